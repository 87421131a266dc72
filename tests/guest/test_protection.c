/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Registrations side by side on memory whose protection changes, and memory that
 * is mapped anew very often: what UCX's own tests ask of its registration cache
 * (merging with what must not be written, its queue of invalidations), of ours,
 * which merges nothing. The device, the driver and the protections are real.
 */
#include "case.h"
#include "support.h"
#include "wire.h"

#include <stdint.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define FIRST	10 /* pages before the second part */
#define SECOND	8
#define PAGES	(FIRST + SECOND)
#define OVERLAP (FIRST + SECOND / 2) /* of the registration over both parts */
#define THREADS 3
#define READ	0 /* the access of what is only sent */

/* One thread of a case: its own memory, the cache is everybody's. */
struct side {
	char *memory;
	int line; /* of what did not hold, or 0 */
	int (*f)(struct side *side);
};

static struct rdma wire;
static pthread_mutex_t wire_lock = PTHREAD_MUTEX_INITIALIZER;
static struct mrcache *cache;

#define REQUIRE(condition)               \
	do {                             \
		if (!(condition))        \
			return __LINE__; \
	} while (0)

static char *at(const struct side *side, size_t page)
{
	return side->memory + page * PAGE;
}

static bool protect(const struct side *side, size_t first, size_t end, int prot)
{
	return mprotect(at(side, first), (end - first) * PAGE, prot) == 0;
}

static struct ibv_mr *reg(void *addr, size_t size, int access)
{
	errno = 0;
	return mrcache_reg_mr(cache, wire.pd, addr, size, access);
}

static bool put(struct ibv_mr *mr)
{
	return mrcache_dereg_mr(cache, mr) == 0;
}

/* What ibv_reg_mr() says: 0, or errno. */
static int plain(void *addr, size_t size, int access)
{
	struct ibv_mr *mr;

	errno = 0;
	mr = ibv_reg_mr(wire.pd, addr, size, access);
	if (!mr)
		return errno;
	return ibv_dereg_mr(mr);
}

/* The peer gets the program's bytes. */
static bool sends(struct ibv_mr *mr, const void *addr, size_t size)
{
	bool right;

	pthread_mutex_lock(&wire_lock);
	memset(wire.peer, 0xa5, size);
	right = rdma_write_from(&wire, mr, addr, size) == 0 &&
		memcmp(wire.peer, addr, size) == 0;
	pthread_mutex_unlock(&wire_lock);
	return right;
}

/* The program gets the peer's. */
static bool receives(struct ibv_mr *mr, void *addr, size_t size,
		     unsigned int seed)
{
	bool right;

	pthread_mutex_lock(&wire_lock);
	memop_fill(wire.peer, size, seed);
	right = rdma_read_into(&wire, mr, addr, size) == 0 &&
		memcmp(wire.peer, addr, size) == 0;
	pthread_mutex_unlock(&wire_lock);
	return right;
}

/* A kernel may replace pages that are pinned, when they are next written. */
static void needs_pages_that_stay(void)
{
	if (!kernel_is_before(5, 12))
		return;
	print_message(
		"# skipped: pinned pages do not stay after mprotect before Linux 5.12\n");
	skip();
}

/* --- the case, in several threads, with each kind of lookup ----------------------- */

/*
 * Not to be written outside, or it could be one mapping with a thread's stack: the
 * kernel tells of a huge page that is split wherever there is room for one.
 */
static char *map_alone(void)
{
	char *p = pages_map(PAGES + 2);

	assert_non_null(p);
	assert_int_equal(mprotect(p, PAGE, PROT_NONE), 0);
	assert_int_equal(mprotect(p + (PAGES + 1) * PAGE, PAGE, PROT_NONE), 0);
	return p + PAGE;
}

static void *run_side(void *arg)
{
	struct side *side = arg;

	side->line = side->f(side);
	return NULL;
}

static struct mrcache_stats run(int (*f)(struct side *side), bool contain)
{
	struct side sides[THREADS] = {0};
	struct mrcache_stats stats;
	struct mrcache_attr attr;
	pthread_t threads[THREADS];

	wire_attr(&attr, "ummunotify");
	attr.contain = contain;
	cache = mrcache_open(&attr);
	assert_non_null(cache);
	for (int i = 0; i < THREADS; i++) {
		sides[i].f = f;
		sides[i].memory = map_alone();
		memop_fill(sides[i].memory, PAGES * PAGE, (unsigned int)i);
	}
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(
			pthread_create(&threads[i], NULL, run_side, &sides[i]),
			0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < THREADS; i++) {
		if (sides[i].line)
			print_error("thread %d: line %d\n", i, sides[i].line);
		assert_int_equal(sides[i].line, 0);
		pages_unmap(sides[i].memory - PAGE, PAGES + 2);
	}
	stats = wire_stats(cache);
	assert_int_equal(wire_bypassed(&stats), 0);
	assert_int_equal(stats.dereg_errors, 0);
	assert_int_equal(mrcache_close(cache), 0);
	return stats;
}

static void run_both(int (*f)(struct side *side), unsigned int misses,
		     unsigned int errors)
{
	for (int contain = 0; contain < 2; contain++) {
		struct mrcache_stats stats = run(f, contain);

		assert_int_equal(stats.misses, THREADS * misses);
		assert_int_equal(stats.reg_errors, THREADS * errors);
		assert_int_equal(stats.invalidations, 0);
	}
}

/* --- memory that may not be written any more ----------------------------------------- */

/*
 * The pages are the same, so nothing is stale: what the program gets is what it
 * would have had by keeping its registration. A new one is refused.
 */
static int use_protected(struct side *side)
{
	static const int protections[] = {PROT_READ, PROT_NONE};
	size_t size = FIRST * PAGE;
	struct ibv_mr *mr = reg(side->memory, size, WIRE_LOCAL), *again;

	REQUIRE(mr && receives(mr, side->memory, size, 1));
	for (int held = 0; held < 2; held++) {
		for (int i = 0; i < 2; i++) {
			if (!held)
				REQUIRE(put(mr));
			REQUIRE(protect(side, 0, FIRST, protections[i]));
			REQUIRE(plain(side->memory, size, WIRE_LOCAL) ==
				EFAULT);
			again = reg(side->memory, size, WIRE_LOCAL);
			REQUIRE(again == mr && mrcache_valid(cache, mr));
			if (protections[i] == PROT_READ)
				REQUIRE(sends(mr, side->memory, size) &&
					receives(mr, side->memory, size, 2));
			if (held)
				REQUIRE(put(again));
			/* Another one is another matter. */
			REQUIRE(!reg(side->memory, size + PAGE, WIRE_LOCAL));
			REQUIRE(errno == EFAULT);
			REQUIRE(protect(side, 0, FIRST,
					PROT_READ | PROT_WRITE));
			memop_fill(side->memory, size, 3);
			REQUIRE(sends(mr, side->memory, size));
		}
	}
	REQUIRE(put(mr));
	return 0;
}

CASE(protected_memory_is_not_stale)
{
	needs_pages_that_stay();
	run_both(use_protected, 1, 4);
}

/* When the pages go as well it is as without a cache. */
static int use_protected_and_new(struct side *side)
{
	size_t size = FIRST * PAGE;
	struct ibv_mr *mr = reg(side->memory, size, WIRE_LOCAL);

	REQUIRE(mr && put(mr));
	REQUIRE(madvise(side->memory, size, MADV_DONTNEED) == 0);
	REQUIRE(protect(side, 0, FIRST, PROT_READ));
	REQUIRE(!reg(side->memory, size, WIRE_LOCAL) && errno == EFAULT);
	REQUIRE(protect(side, 0, FIRST, PROT_READ | PROT_WRITE));
	mr = reg(side->memory, size, WIRE_LOCAL);
	REQUIRE(mr && receives(mr, side->memory, size, 1));
	REQUIRE(put(mr));
	return 0;
}

CASE(protected_memory_with_new_pages_is_refused)
{
	for (int contain = 0; contain < 2; contain++) {
		struct mrcache_stats stats =
			run(use_protected_and_new, contain);

		assert_int_equal(stats.misses, 2 * THREADS);
		assert_int_equal(stats.reg_errors, THREADS);
		assert_int_equal(stats.invalidations, THREADS);
	}
}

/* --- registrations that overlap -------------------------------------------------------- */

/* As merge_with_unwritable: one for reading over both parts, one for writing. */
static int beside_unwritable(struct side *side)
{
	struct ibv_mr *both, *second, *again;

	REQUIRE(protect(side, 0, PAGES, PROT_READ));
	both = reg(side->memory, OVERLAP * PAGE, READ);
	REQUIRE(both);
	REQUIRE(protect(side, FIRST, PAGES, PROT_READ | PROT_WRITE));
	second = reg(at(side, FIRST), SECOND * PAGE, WIRE_LOCAL);
	REQUIRE(second && second != both);
	REQUIRE(second->addr == at(side, FIRST));
	REQUIRE(second->length == SECOND * PAGE);
	REQUIRE(receives(second, at(side, FIRST), SECOND * PAGE, 1));
	/* Both reach the same pages. */
	REQUIRE(sends(both, side->memory, OVERLAP * PAGE));
	REQUIRE(mrcache_valid(cache, both) && mrcache_valid(cache, second));
	again = reg(side->memory, OVERLAP * PAGE, READ);
	REQUIRE(again == both && put(again));
	REQUIRE(put(both) && put(second));
	return 0;
}

CASE(what_may_not_be_written_is_not_merged)
{
	needs_pages_that_stay();
	run_both(beside_unwritable, 2, 0);
}

/* As merge_merge_unwritable: the other way round. */
static int unwritable_beside(struct side *side)
{
	struct ibv_mr *both = reg(side->memory, OVERLAP * PAGE, WIRE_LOCAL);
	struct ibv_mr *second;

	REQUIRE(both);
	REQUIRE(protect(side, FIRST, PAGES, PROT_READ));
	second = reg(at(side, FIRST), SECOND * PAGE, READ);
	REQUIRE(second && second != both);
	REQUIRE(second->addr == at(side, FIRST));
	REQUIRE(second->length == SECOND * PAGE);
	REQUIRE(sends(second, at(side, FIRST), SECOND * PAGE));
	/* It was not made to write: the device refuses. */
	REQUIRE(!receives(second, at(side, FIRST), PAGE, 2));
	REQUIRE(receives(both, side->memory, FIRST * PAGE, 3));
	REQUIRE(mrcache_valid(cache, both));
	REQUIRE(put(both) && put(second));
	return 0;
}

CASE(a_registration_is_not_widened_to_what_is_protected)
{
	needs_pages_that_stay();
	run_both(unwritable_beside, 2, 0);
}

/* As merge_expand_prot: what is there does not get more access than it has. */
static int narrow_beside(struct side *side)
{
	struct ibv_mr *both = reg(side->memory, OVERLAP * PAGE, READ);
	struct ibv_mr *second = reg(at(side, FIRST), SECOND * PAGE, WIRE_LOCAL);
	struct ibv_mr *inside = reg(side->memory, FIRST * PAGE, WIRE_LOCAL);

	REQUIRE(both && second && second != both);
	/* Nor does it serve who wants more of a part of it. */
	REQUIRE(inside && inside != both);
	REQUIRE(receives(inside, side->memory, FIRST * PAGE, 3));
	REQUIRE(second->addr == at(side, FIRST));
	REQUIRE(second->length == SECOND * PAGE);
	REQUIRE(receives(second, at(side, FIRST), SECOND * PAGE, 1));
	REQUIRE(sends(both, side->memory, OVERLAP * PAGE));
	REQUIRE(!receives(both, side->memory, PAGE, 2));
	REQUIRE(put(both) && put(second) && put(inside));
	return 0;
}

CASE(access_is_not_widened)
{
	needs_pages_that_stay();
	run_both(narrow_beside, 3, 0);
}

/* As merge_invalid_prot: part of an idle neighbour may not be written any more. */
static int beside_invalid(struct side *side)
{
	char *odd = at(side, FIRST) - 1024;
	struct ibv_mr *first = reg(side->memory, FIRST * PAGE, WIRE_LOCAL);
	struct ibv_mr *second, *again;

	REQUIRE(first && put(first));
	REQUIRE(protect(side, 0, 1, PROT_READ));
	second = reg(odd, SECOND * PAGE, WIRE_LOCAL);
	REQUIRE(second && second != first);
	REQUIRE(second->addr == odd && second->length == SECOND * PAGE);
	REQUIRE(receives(second, odd, SECOND * PAGE, 1));
	/* The neighbour's pages are what they were. */
	again = reg(side->memory, FIRST * PAGE, WIRE_LOCAL);
	REQUIRE(again == first && sends(again, side->memory, FIRST * PAGE));
	REQUIRE(put(again) && put(second));
	return 0;
}

CASE(a_neighbour_that_was_protected_does_no_harm)
{
	needs_pages_that_stay();
	run_both(beside_invalid, 2, 0);
}

/* As merge_invalid_prot_slow: what cannot be is an error, and costs nothing. */
static int all_invalid(struct side *side)
{
	char *odd = at(side, FIRST) - 1024;
	struct ibv_mr *first = reg(side->memory, FIRST * PAGE, WIRE_LOCAL);
	struct ibv_mr *mr;

	REQUIRE(first && put(first));
	REQUIRE(protect(side, 0, PAGES, PROT_READ));
	REQUIRE(plain(odd, SECOND * PAGE, WIRE_LOCAL) == EFAULT);
	for (int i = 0; i < 2; i++)
		REQUIRE(!reg(odd, SECOND * PAGE, WIRE_LOCAL) &&
			errno == EFAULT);
	REQUIRE(protect(side, 0, PAGES, PROT_READ | PROT_WRITE));
	mr = reg(odd, SECOND * PAGE, WIRE_LOCAL);
	REQUIRE(mr && receives(mr, odd, SECOND * PAGE, 1) && put(mr));
	mr = reg(side->memory, FIRST * PAGE, WIRE_LOCAL);
	REQUIRE(mr == first && sends(mr, side->memory, FIRST * PAGE) &&
		put(mr));
	return 0;
}

CASE(what_cannot_be_registered_leaves_nothing)
{
	needs_pages_that_stay();
	run_both(all_invalid, 2, 2);
}

/* --- memory ------------------------------------------------------------------------------- */

#define REMAPS	  40000
#define GROWTH_KB (128 * (long)PAGE / 1024)

/* Of this process, in kB: "VmRSS:", or of its mappings, "AnonHugePages:". */
static long kb(const char *file, const char *name)
{
	FILE *f = fopen(file, "r");
	char line[256];
	long value = -1;

	assert_non_null(f);
	while (value < 0 && fgets(line, sizeof(line), f))
		if (!strncmp(line, name, strlen(name)))
			value = atol(line + strlen(name));
	fclose(f);
	return value;
}

static long resident(void)
{
	return kb("/proc/self/smaps_rollup", "Rss:");
}

static long huge(void)
{
	return kb("/proc/self/smaps_rollup", "AnonHugePages:");
}

/* Address space that could become memory. */
static long writable(void)
{
	return kb("/proc/self/status", "VmData:");
}

/* As inv_q_bounded: what happens between two registrations takes no memory. */
CASE(remapping_takes_no_memory)
{
	long before, opened, used, after, huge_before = huge(),
					  data = writable();
	struct mrcache_stats stats;
	struct mrcache_attr attr;
	struct ibv_mr *mr;
	char *page = pages_map(1);

	assert_non_null(page);
	before = resident();
	wire_attr(&attr, "ummunotify");
	attr.reaper = true;
	cache = mrcache_open(&attr);
	assert_non_null(cache);
	opened = resident();
	/* No stack of the usual size, which could get a huge page. */
	assert_in_range(writable() - data, 0, GROWTH_KB);
	mr = reg(page, PAGE, WIRE_LOCAL);
	assert_true(mr && put(mr));
	used = resident();
	for (int i = 0; i < REMAPS; i++) {
		assert_int_equal(munmap(page, PAGE), 0);
		page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		assert_true(page != MAP_FAILED);
	}
	after = resident();
	print_message(
		"# kB: opening %ld, first registration %ld, %d remappings %ld; in huge pages %ld\n",
		opened - before, used - opened, REMAPS, after - used,
		huge() - huge_before);
	assert_in_range(after - used + GROWTH_KB, 0, 2L * GROWTH_KB);
	assert_in_range(after - before, 0, GROWTH_KB);
	mr = reg(page, PAGE, WIRE_LOCAL);
	assert_true(mr && sends(mr, page, PAGE) && put(mr));
	stats = wire_stats(cache);
	/* The one that was registered; nobody asked about the others. */
	assert_int_equal(stats.events, 1);
	assert_int_equal(mrcache_close(cache), 0);
	assert_int_equal(munmap(page, PAGE), 0);
}

static int connect_wire(void **state)
{
	int ret = rdma_open(&wire, PAGES * PAGE);

	(void)state;
	if (ret)
		print_error("no RDMA connection: %s\n", strerror(-ret));
	return ret;
}

static int disconnect_wire(void **state)
{
	(void)state;
	return rdma_close(&wire);
}

int main(void)
{
	return run_cases(connect_wire, disconnect_wire);
}
