/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The cache and every memory operation of the table, on the wire: after each
 * operation a registration reaches the memory the program sees now, and what
 * need not be registered again is not. A cache that is never invalidated must
 * fail the same test, or the test would show nothing.
 */
#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memop_cmocka.h"

#include "support.h"
#include "wire.h"

#define ROUNDS 4
#define SIZE   MEMOP_MIN_SIZE

static struct rdma wire;

static int set_up(void **state)
{
	int ret = rdma_open(&wire, SIZE);

	(void)state;
	if (ret)
		print_error("no RDMA connection: %s\n", strerror(-ret));
	return ret;
}

static int tear_down(void **state)
{
	(void)state;
	/* Fails if anything is registered still. */
	return rdma_close(&wire);
}

/* --- the naive cache --------------------------------------------------------- */

/* One registration for good: how many bytes go wrong over all rounds. */
static size_t naive_wrong(const struct memop *op)
{
	struct memop_buffer b;
	struct ibv_mr *mr;
	size_t sum = 0;
	unsigned int round;
	long wrong;

	make(&b, op, SIZE);
	mr = ibv_reg_mr(wire.pd, b.addr, b.size, WIRE_REMOTE);
	assert_non_null(mr);
	for (round = 0; round < ROUNDS; round++) {
		if (round)
			perform(&b);
		wrong = wire_wrong_of(&wire, mr, &b, round);
		assert_true(wrong >= 0);
		if (!round)
			assert_int_equal(wrong, 0);
		sum += wrong;
	}
	assert_int_equal(ibv_dereg_mr(mr), 0);
	memop_drop(&b);
	return sum;
}

/*
 * Before Linux 5.12 a huge page that is pinned is shared by fork() as others are,
 * and the first to write gets another one: the parent.
 */
static bool parts_late(const struct memop *op)
{
	return !strcmp(op->name, "hugetlb fork alive") &&
	       kernel_is_before(5, 12);
}

static void naive(void **state)
{
	const struct memop *op = *state;
	size_t wrong = naive_wrong(op);

	if (op->stale || parts_late(op))
		assert_true(wrong >= ROUNDS - 1);
	else
		assert_int_equal(wrong, 0);
}

/* --- the cache ------------------------------------------------------------------ */

struct run {
	struct mrcache *cache;
	struct memop_buffer b;
	unsigned int round;
};

/* Two registrations in a row: the second shows that the first was cached. */
static struct ibv_mr *use(struct run *run)
{
	struct memop_buffer *b = &run->b;
	struct ibv_mr *mr, *again;

	mr = mrcache_reg_mr(run->cache, wire.pd, b->addr, b->size, WIRE_REMOTE);
	assert_non_null(mr);
	assert_int_equal(wire_wrong_of(&wire, mr, b, run->round), 0);
	assert_true(mrcache_valid(run->cache, mr));
	again = mrcache_reg_mr(run->cache, wire.pd, b->addr, b->size,
			       WIRE_REMOTE);
	assert_ptr_equal(again, mr);
	assert_int_equal(mrcache_dereg_mr(run->cache, again), 0);
	return mr;
}

/* The first half of the rounds keeps hold of the registration meanwhile. */
static void operate(struct run *run, struct ibv_mr *mr)
{
	const struct memop *op = run->b.op;
	bool held = run->round < ROUNDS / 2;

	if (!held)
		assert_int_equal(mrcache_dereg_mr(run->cache, mr), 0);
	perform(&run->b);
	if (!held)
		return;
	if (op->verdict == MEMOP_REPORT)
		assert_false(mrcache_valid(run->cache, mr));
	if (op->verdict == MEMOP_QUIET)
		assert_true(mrcache_valid(run->cache, mr));
	assert_int_equal(mrcache_dereg_mr(run->cache, mr), 0);
}

static void check_stats(struct run *run)
{
	const struct memop *op = run->b.op;
	struct mrcache_stats stats = wire_stats(run->cache);

	assert_int_equal(wire_bypassed(&stats), 0);
	assert_int_equal(stats.uncached, 0);
	assert_int_equal(stats.reg_errors, 0);
	assert_int_equal(stats.dereg_errors, 0);
	assert_int_equal(stats.hits + stats.misses, 2 * ROUNDS);
	switch (op->verdict) {
	case MEMOP_REPORT:
		assert_int_equal(stats.hits, ROUNDS);
		break;
	case MEMOP_QUIET:
		assert_int_equal(stats.misses, 1);
		assert_int_equal(stats.registrations, 1 + stats.repins);
		assert_int_equal(stats.invalidations, 0);
		break;
	case MEMOP_EITHER:
		print_message("# %s: %llu registrations for %d uses\n",
			      op->name, (unsigned long long)stats.registrations,
			      ROUNDS);
		break;
	}
}

static void cached(const struct memop *op, const char *monitor, bool filtered)
{
	struct run run = {0};
	struct ibv_mr *mr;

	make(&run.b, op, SIZE);
	run.cache = wire_cache(monitor);
	assert_non_null(run.cache);
	assert_string_equal(mrcache_monitor(run.cache), monitor);
	for (run.round = 0; run.round < ROUNDS; run.round++) {
		mr = use(&run);
		if (run.round + 1 < ROUNDS)
			operate(&run, mr);
		else
			assert_int_equal(mrcache_dereg_mr(run.cache, mr), 0);
	}
	if (filtered)
		check_stats(&run);
	assert_int_equal(wire_stats(run.cache).stale_held, 0);
	assert_int_equal(mrcache_close(run.cache), 0);
	memop_drop(&run.b);
}

static void with_ummunotify(void **state)
{
	cached(*state, "ummunotify", true);
}

static void with_2010(void **state)
{
	cached(*state, "ummunotify-2010", false);
}

/* --- all of them ------------------------------------------------------------------ */

static bool reported(const struct memop *op)
{
	return op->verdict == MEMOP_REPORT;
}

int main(void)
{
	add_memops("", with_ummunotify, NULL);
	add_memops("2010: ", with_2010, reported);
	add_memops("naive: ", naive, NULL);
	return run_cases(set_up, tear_down);
}
