/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The cache over an RDMA device, one situation at a time: held registrations,
 * remote keys, limits of the cache and of the kernel, memory that changes while
 * it is being registered, protection domains, and the errors of ibv_reg_mr().
 */
#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <grp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "case.h"
#include "support.h"
#include "umn.h"
#include "wire.h"

#define SIZE	  MEMOP_MIN_SIZE
#define PAGE_SIZE ((size_t)sysconf(_SC_PAGESIZE))

/* Set up before each test: the connection, a cache, memory to operate on. */
static struct rdma wire;
static struct mrcache *cache;
static struct memop_buffer buffer;

static int connect_wire(void **state)
{
	int ret = rdma_open(&wire, (size_t)1 << 20);

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

static int open_cache(const struct mrcache_attr *attr)
{
	cache = mrcache_open(attr);
	if (!cache)
		return -1;
	return memop_make(&buffer, memop_find("munmap+mmap"), SIZE);
}

static int set_up(void **state)
{
	struct mrcache_attr attr;

	(void)state;
	wire_attr(&attr, "ummunotify");
	return open_cache(&attr);
}

static int tear_down(void **state)
{
	int ret = mrcache_close(cache);

	(void)state;
	memop_drop(&buffer);
	return ret;
}

static struct ibv_mr *get_of(void *addr, size_t size)
{
	return mrcache_reg_mr(cache, wire.pd, addr, size, WIRE_REMOTE);
}

static struct ibv_mr *get(void)
{
	struct ibv_mr *mr = get_of(buffer.addr, buffer.size);

	assert_non_null(mr);
	return mr;
}

static void put(struct ibv_mr *mr)
{
	assert_int_equal(mrcache_dereg_mr(cache, mr), 0);
}

/*
 * Registrations but those that were made again: to pin memory for long the kernel
 * may move it, out of a movable zone or CMA, which an arm64 kernel has by default.
 */
static uint64_t registered(struct mrcache *of)
{
	struct mrcache_stats stats = wire_stats(of);

	return stats.registrations - stats.repins;
}

static void assert_right_of(struct ibv_mr *mr, void *addr, size_t size)
{
	static unsigned int round;

	round++;
	assert_int_equal(wire_wrong(&wire, mr, addr, size,
				    memop_seed(buffer.op, round), round % 2),
			 0);
}

static void assert_right(struct ibv_mr *mr)
{
	assert_right_of(mr, buffer.addr, buffer.size);
}

static void operate(void)
{
	assert_int_equal(memop_perform(&buffer), 0);
}

/* --- who holds what ------------------------------------------------------------ */

CASE_IN(held_over_a_change, set_up, tear_down)
{
	struct ibv_mr *first = get(), *second = get(), *fresh;
	uint64_t before;

	assert_ptr_equal(first, second);
	assert_true(mrcache_valid(cache, first));
	operate();
	assert_false(mrcache_valid(cache, first));

	fresh = get();
	assert_ptr_not_equal(fresh, first);
	assert_right(fresh);
	assert_true(mrcache_valid(cache, fresh));
	/* The fresh one does not make the old one right. */
	assert_false(mrcache_valid(cache, first));
	assert_int_equal(wire_stats(cache).stale_held, 1);

	before = wire_stats(cache).deregistrations;
	put(first);
	assert_int_equal(wire_stats(cache).deregistrations, before);
	assert_int_equal(wire_stats(cache).stale_held, 1);
	put(second);
	assert_int_equal(wire_stats(cache).deregistrations, before + 1);
	assert_int_equal(wire_stats(cache).stale_held, 0);
	assert_int_equal(mrcache_dereg_mr(cache, first), EINVAL);
	assert_true(mrcache_valid(cache, fresh));
	assert_right(fresh);
	put(fresh);
}

/* A peer that still has the key must not reach the old pages. */
CASE_IN(the_remote_key_of_stale_memory_ends, set_up, tear_down)
{
	struct ibv_mr *mr = get(), old = *mr;

	assert_right(mr);
	put(mr);
	operate();
	mr = get();
	assert_right(mr);
	if (mr->rkey != old.rkey) {
		print_message("# the next transfer is to fail\n");
		assert_int_not_equal(
			rdma_peer_reads(&wire, &old, buffer.addr, PAGE_SIZE),
			0);
	}
	assert_right(mr);
	put(mr);
}

CASE_IN(remote_access_passes_through_unless_asked_for, set_up, tear_down)
{
	struct mrcache_attr attr;
	struct mrcache *local;
	struct mrcache_stats stats;
	struct ibv_mr *mr;
	int i;

	wire_attr(&attr, "ummunotify");
	attr.remote = false;
	local = mrcache_open(&attr);
	assert_non_null(local);
	for (i = 0; i < 3; i++) {
		mr = mrcache_reg_mr(local, wire.pd, buffer.addr, buffer.size,
				    WIRE_REMOTE);
		assert_non_null(mr);
		assert_right(mr);
		assert_int_equal(mrcache_dereg_mr(local, mr), 0);
	}
	stats = wire_stats(local);
	assert_int_equal(stats.bypass[MRCACHE_BYPASS_REMOTE], 3);
	assert_int_equal(stats.registrations, 3);
	assert_int_equal(stats.deregistrations, 3);
	assert_int_equal(stats.uncached, 0);
	assert_int_equal(mrcache_close(local), 0);
}

CASE_IN(access_must_match, set_up, tear_down)
{
	struct ibv_mr *mr = get(), *local;

	local = mrcache_reg_mr(cache, wire.pd, buffer.addr, buffer.size,
			       WIRE_LOCAL);
	assert_non_null(local);
	assert_ptr_not_equal(local, mr);
	print_message("# the next transfer is to fail\n");
	assert_int_not_equal(
		rdma_peer_reads(&wire, local, buffer.addr, PAGE_SIZE), 0);
	put(local);
	assert_right(mr);
	put(mr);
}

CASE_IN(two_caches_are_independent, set_up, tear_down)
{
	struct mrcache *other = wire_cache("ummunotify");
	struct ibv_mr *mine, *others;
	int i;

	assert_non_null(other);
	for (i = 0; i < 3; i++) {
		mine = get();
		others = mrcache_reg_mr(other, wire.pd, buffer.addr,
					buffer.size, WIRE_REMOTE);
		assert_non_null(others);
		assert_ptr_not_equal(mine, others);
		assert_right(mine);
		assert_right(others);
		assert_int_equal(mrcache_dereg_mr(cache, others), EINVAL);
		put(mine);
		operate();
		assert_false(mrcache_valid(other, others));
		assert_int_equal(mrcache_dereg_mr(other, others), 0);
	}
	assert_int_equal(registered(cache), 3);
	assert_int_equal(registered(other), 3);
	assert_int_equal(mrcache_close(other), 0);
}

/* --- protection domains ----------------------------------------------------------- */

CASE_IN(a_flushed_domain_can_be_freed, set_up, tear_down)
{
	struct ibv_pd *pd = ibv_alloc_pd(wire.context);
	struct ibv_mr *mr, *mine;

	assert_non_null(pd);
	mine = get();
	mr = mrcache_reg_mr(cache, pd, buffer.addr, buffer.size, WIRE_REMOTE);
	assert_non_null(mr);
	assert_ptr_not_equal(mr, mine);
	assert_int_equal(mrcache_flush(cache, pd), 1);
	assert_int_not_equal(ibv_dealloc_pd(pd), 0);
	put(mr);
	assert_int_equal(mrcache_flush(cache, pd), 0);
	assert_int_equal(ibv_dealloc_pd(pd), 0);
	assert_right(mine);
	put(mine);
}

CASE_IN(an_idle_registration_keeps_its_domain, set_up, tear_down)
{
	struct ibv_pd *pd = ibv_alloc_pd(wire.context);
	struct ibv_mr *mr;

	assert_non_null(pd);
	mr = mrcache_reg_mr(cache, pd, buffer.addr, buffer.size, WIRE_REMOTE);
	assert_non_null(mr);
	put(mr);
	assert_int_not_equal(ibv_dealloc_pd(pd), 0);
	assert_int_equal(mrcache_flush(cache, pd), 0);
	assert_int_equal(ibv_dealloc_pd(pd), 0);
}

/* --- limits -------------------------------------------------------------------------- */

static int set_up_one_registration(void **state)
{
	struct mrcache_attr attr;

	(void)state;
	wire_attr(&attr, "ummunotify");
	attr.max_regs = 1;
	attr.log_level = MRCACHE_LOG_ERROR;
	return open_cache(&attr);
}

CASE_IN(one_registration_at_most, set_up_one_registration, tear_down)
{
	char *half = buffer.addr + buffer.size / 2;
	size_t size = buffer.size / 2;
	struct ibv_mr *a, *b;
	struct mrcache_stats stats;
	int i;

	for (i = 0; i < 4; i++) {
		a = get_of(buffer.addr, size);
		assert_non_null(a);
		assert_right_of(a, buffer.addr, size);
		put(a);
		b = get_of(half, size);
		assert_non_null(b);
		assert_right_of(b, half, size);
		put(b);
		assert_in_range(wire_stats(cache).cached, 0, 1);
		operate();
	}
	assert_true(wire_stats(cache).evictions >= 4);

	/* Held, so that it cannot make room: the other is not cached. */
	a = get_of(buffer.addr, size);
	b = get_of(half, size);
	assert_non_null(a);
	assert_non_null(b);
	assert_right_of(a, buffer.addr, size);
	assert_right_of(b, half, size);
	stats = wire_stats(cache);
	assert_int_equal(stats.bypass[MRCACHE_BYPASS_LIMIT], 1);
	assert_int_equal(stats.uncached, 1);
	put(a);
	put(b);
	assert_int_equal(wire_stats(cache).uncached, 0);
}

#define LOCKED (8 * (rlim_t)SIZE)
#define BLOCKS 16

/* Says which line went wrong: there is no cmocka in the child. */
#define REQUIRE(condition)                                             \
	do {                                                           \
		if (!(condition)) {                                    \
			print_error("child: line %d: %s (errno %d)\n", \
				    __LINE__, #condition, errno);      \
			return 1;                                      \
		}                                                      \
	} while (0)

/* 16 blocks where as much as 8 of them may be locked, the peer's buffer included. */
static int register_beyond_the_limit(void)
{
	struct rlimit limit = {LOCKED, LOCKED};
	struct ibv_mr *mr, *plain[BLOCKS];
	struct rdma r;
	char *blocks;
	int i, held;

	REQUIRE(!setrlimit(RLIMIT_MEMLOCK, &limit));
	REQUIRE(!setgroups(0, NULL) && !setresgid(65534, 65534, 65534) &&
		!setresuid(65534, 65534, 65534));
	blocks = mmap(NULL, BLOCKS * SIZE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(blocks != MAP_FAILED);
	REQUIRE(!rdma_open(&r, SIZE));
	cache = wire_cache("ummunotify");
	REQUIRE(cache);

	/* The limit is real. */
	for (held = 0; held < BLOCKS; held++) {
		plain[held] = ibv_reg_mr(r.pd, blocks + held * SIZE, SIZE,
					 WIRE_REMOTE);
		if (!plain[held])
			break;
	}
	REQUIRE(held > 0 && held < BLOCKS && errno == ENOMEM);
	for (i = 0; i < held; i++)
		REQUIRE(!ibv_dereg_mr(plain[i]));

	for (i = 0; i < 3 * BLOCKS; i++) {
		char *block = blocks + i % BLOCKS * SIZE;

		mr = mrcache_reg_mr(cache, r.pd, block, SIZE, WIRE_REMOTE);
		REQUIRE(mr);
		REQUIRE(!wire_wrong(&r, mr, block, SIZE, i * 101, i % 2));
		REQUIRE(!mrcache_dereg_mr(cache, mr));
	}
	REQUIRE(wire_stats(cache).retries > 0);
	REQUIRE(wire_stats(cache).evictions > 0);
	REQUIRE(!wire_stats(cache).reg_errors);

	/* Nothing to evict: the error is ibv_reg_mr's. */
	for (i = 0; i < BLOCKS; i++) {
		plain[i] = mrcache_reg_mr(cache, r.pd, blocks + i * SIZE, SIZE,
					  WIRE_REMOTE);
		if (!plain[i])
			break;
	}
	REQUIRE(errno == ENOMEM);
	/* rxe of before 5.12 may keep what it did not get an answer about. */
	REQUIRE(i == held || (kernel_is_before(5, 12) && i < held));
	while (i--)
		REQUIRE(!mrcache_dereg_mr(cache, plain[i]));
	REQUIRE(!mrcache_close(cache));
	REQUIRE(!rdma_close(&r));
	return 0;
}

CASE(the_memlock_limit_evicts)
{
	pid_t pid;
	int status;

	fflush(NULL);
	pid = fork();
	if (!pid)
		_exit(register_beyond_the_limit());
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

/* --- changes that are under way -------------------------------------------------------- */

/* What changes at once: twice as much after each change that was over too soon. */
#define LEAST_CHANGED ((size_t)12 << 20)
#define MOST_CHANGED  ((size_t)192 << 20)
/* For three registrations meanwhile; for one, where another thread is slow. */
#define ATTEMPTS      8
#define MOST_ATTEMPTS 32

struct change {
	_Atomic int go;
	_Atomic int done;
};

static void *perform_change(void *arg)
{
	struct change *change = arg;
	int ret;

	while (!change->go)
		;
	ret = memop_perform(&buffer);
	change->done = 1;
	return (void *)(intptr_t)ret;
}

/*
 * One registration of the last page, made after the operation has begun at the
 * first. True if that was over before the operation was. In any case the page
 * is right when registered after the operation.
 */
static bool try_window(struct umn *u, const struct memop *op, size_t size)
{
	struct ummunotify_watch_ioctl watch;
	struct change change = {0};
	pthread_t thread;
	struct ibv_mr *mr;
	bool inside;
	void *ret;
	char *page;

	memop_drop(&buffer);
	assert_int_equal(memop_make(&buffer, op, size), 0);
	page = buffer.addr + buffer.size - PAGE_SIZE;
	assert_int_equal(umn_watch(u->fd, buffer.addr, PAGE_SIZE, 1, 0, &watch),
			 0);
	assert_int_equal(pthread_create(&thread, NULL, perform_change, &change),
			 0);
	change.go = 1;
	while (umn_clean(u, watch.slot, watch.state) && !change.done)
		;
	mr = get_of(page, PAGE_SIZE);
	inside = mr && !change.done;
	if (mr)
		put(mr);
	pthread_join(thread, &ret);
	assert_null(ret);

	mr = get_of(page, PAGE_SIZE);
	assert_non_null(mr);
	assert_right_of(mr, page, PAGE_SIZE);
	put(mr);
	assert_int_equal(umn_unregister(u->fd, 1), 0);
	return inside;
}

static void registered_while_it_changes(void **state)
{
	const struct memop *op = memop_find(*state);
	size_t size = LEAST_CHANGED;
	struct umn u;
	int i, inside = 0;

	assert_non_null(op);
	assert_int_equal(umn_start(&u, UMN_ALL), 0);
	for (i = 0; i < (inside ? ATTEMPTS : MOST_ATTEMPTS) && inside < 3;
	     i++) {
		if (try_window(&u, op, size))
			inside++;
		else if (size < MOST_CHANGED)
			size *= 2;
	}
	umn_stop(&u);
	print_message("# %s: %d registrations of %d were made meanwhile\n",
		      op->name, inside, i);
	/* Otherwise nothing was shown. */
	assert_true(inside > 0);
}

/* --- memory and arguments that ibv_reg_mr() refuses --------------------------------------- */

struct request {
	const char *name;
	void *addr;
	size_t size;
	int access;
};

/* Both succeed, or fail with the same errno. */
static void compare(const struct request *request)
{
	struct ibv_mr *plain, *mr;
	int expected, error;

	errno = 0;
	plain = ibv_reg_mr(wire.pd, request->addr, request->size,
			   request->access);
	expected = plain ? 0 : errno;
	errno = 0;
	mr = mrcache_reg_mr(cache, wire.pd, request->addr, request->size,
			    request->access);
	error = mr ? 0 : errno;
	if (mr)
		put(mr);
	if (plain)
		assert_int_equal(ibv_dereg_mr(plain), 0);
	print_message("# %s: %s\n", request->name,
		      expected ? strerror(expected) : "registered");
	if (error != expected)
		fail_msg("%s: %s instead", request->name,
			 error ? strerror(error) : "registered");
}

CASE_IN(errors_are_those_of_ibv_reg_mr, set_up, tear_down)
{
	size_t page = PAGE_SIZE;
	char *m = buffer.addr;
	/* A page to read only, and a hole. */
	char *read_only = m + 2 * page, *hole = m + 4 * page;
	const struct request requests[] = {
		{"all is well", m, page, WIRE_REMOTE},
		{"odd address and length", m + 3, 1001, WIRE_REMOTE},
		{"NULL", NULL, page, WIRE_REMOTE},
		{"NULL and nothing", NULL, 0, WIRE_REMOTE},
		{"length 0", m, 0, WIRE_REMOTE},
		{"length 0 where nothing is", hole, 0, WIRE_REMOTE},
		{"not mapped", hole, page, WIRE_REMOTE},
		{"hole in the middle", m + 3 * page, 3 * page, WIRE_REMOTE},
		{"read-only memory", read_only, page, WIRE_REMOTE},
		{"read-only memory, to read", read_only, page, 0},
		{"read-only memory in the middle", m + page, 3 * page,
		 WIRE_LOCAL},
		{"around the end", (void *)-(uintptr_t)page, 2 * page,
		 WIRE_LOCAL},
		{"to the end", (void *)-(uintptr_t)page, page, WIRE_LOCAL},
		{"everything", NULL, SIZE_MAX, WIRE_LOCAL},
		{"huge", m, (size_t)1 << 46, WIRE_LOCAL},
		{"kernel address", (void *)0xffff888000000000, page,
		 WIRE_LOCAL},
		{"no access", m, page, 0},
		{"remote write without local", m, page,
		 IBV_ACCESS_REMOTE_WRITE},
		{"remote atomic without local", m, page,
		 IBV_ACCESS_REMOTE_ATOMIC},
		{"remote read alone", m, page, IBV_ACCESS_REMOTE_READ},
		{"relaxed ordering", m, page,
		 WIRE_LOCAL | IBV_ACCESS_RELAXED_ORDERING},
		{"bind", m, page, WIRE_LOCAL | IBV_ACCESS_MW_BIND},
		{"zero based", m, page, WIRE_LOCAL | IBV_ACCESS_ZERO_BASED},
		{"on demand", m, page, WIRE_LOCAL | IBV_ACCESS_ON_DEMAND},
		{"on demand, everything", NULL, SIZE_MAX, IBV_ACCESS_ON_DEMAND},
		{"huge pages asked for", m, page,
		 WIRE_LOCAL | IBV_ACCESS_HUGETLB},
		{"unknown access", m, page, WIRE_LOCAL | 1 << 16},
		{"unknown optional access", m, page, WIRE_LOCAL | 1 << 29},
		{"negative access", m, page, (int)0x80000001},
	};
	size_t i;

	assert_int_equal(mprotect(read_only, page, PROT_READ), 0);
	assert_int_equal(munmap(hole, page), 0);
	for (i = 0; i < sizeof(requests) / sizeof(requests[0]); i++)
		compare(&requests[i]);
	/* Twice: nothing about a refusal is remembered. */
	for (i = 0; i < sizeof(requests) / sizeof(requests[0]); i++)
		compare(&requests[i]);
	assert_int_equal(wire_stats(cache).uncached, 0);
}

/* The counter's page belongs to the driver: what ibv_reg_mr() does is done. */
CASE_IN(the_counter_cannot_be_cached, set_up, tear_down)
{
	struct request request = {.name = "the counter", .size = PAGE_SIZE};
	struct umn u;

	assert_int_equal(umn_start(&u, 0), 0);
	request.addr = (void *)u.counter;
	request.access = WIRE_LOCAL;
	compare(&request);
	request.access = 0;
	compare(&request);
	assert_int_equal(wire_stats(cache).cached, 0);
	umn_stop(&u);
}

/* --- options ---------------------------------------------------------------------------------- */

static int set_up_contain(void **state)
{
	struct mrcache_attr attr;

	(void)state;
	wire_attr(&attr, "ummunotify");
	attr.contain = true;
	attr.page_align = true;
	return open_cache(&attr);
}

CASE_IN(part_of_a_larger_registration, set_up_contain, tear_down)
{
	struct ibv_mr *whole = get(), *part;
	char *inside = buffer.addr + 5000;

	assert_right(whole);
	put(whole);
	part = get_of(inside, 1000);
	assert_non_null(part);
	assert_right_of(part, inside, 1000);
	assert_int_equal(registered(cache), 1);
	assert_int_equal(wire_stats(cache).hits, 1);
	put(part);

	/* Even if what changes is elsewhere in the larger one. */
	assert_int_equal(
		madvise(buffer.addr + 8 * PAGE_SIZE, PAGE_SIZE, MADV_DONTNEED),
		0);
	whole = get();
	assert_right(whole);
	put(whole);
	operate();
	part = get_of(inside, 1000);
	assert_non_null(part);
	assert_right_of(part, inside, 1000);
	put(part);
	whole = get();
	assert_right(whole);
	put(whole);
}

static int set_up_reaper(void **state)
{
	struct mrcache_attr attr;

	(void)state;
	wire_attr(&attr, "ummunotify");
	attr.reaper = true;
	return open_cache(&attr);
}

/* Until one has ended that was not registered again at once. */
static void await_end(void)
{
	struct timespec nap = {.tv_nsec = 10 * 1000 * 1000};
	struct mrcache_stats stats = wire_stats(cache);

	for (int i = 0; i < 2000 && stats.deregistrations == stats.repins;
	     i++) {
		nanosleep(&nap, NULL);
		stats = wire_stats(cache);
	}
	assert_int_equal(stats.deregistrations, stats.repins + 1);
	assert_int_equal(stats.cached, 0);
}

CASE_IN(the_reaper_deregisters_by_itself, set_up_reaper, tear_down)
{
	put(get());
	assert_int_equal(wire_stats(cache).cached, 1);
	operate();
	await_end();
}

static int set_up_linger(void **state)
{
	struct mrcache_attr attr;

	(void)state;
	wire_attr(&attr, "ummunotify");
	attr.remote = false;
	attr.linger = 200;
	return open_cache(&attr);
}

CASE_IN(a_remote_key_lingers_and_ends, set_up_linger, tear_down)
{
	struct ibv_mr *mr = get(), *again = get(), old = *mr;

	assert_ptr_equal(again, mr);
	assert_right(mr);
	put(mr);
	put(again);
	await_end();
	print_message("# the next transfer is to fail\n");
	assert_int_not_equal(
		rdma_peer_reads(&wire, &old, buffer.addr, PAGE_SIZE), 0);
}

static int set_up_none(void **state)
{
	struct mrcache_attr attr;

	(void)state;
	wire_attr(&attr, "none");
	attr.log_level = MRCACHE_LOG_ERROR;
	return open_cache(&attr);
}

CASE_IN(without_a_monitor_nothing_is_cached, set_up_none, tear_down)
{
	struct ibv_mr *mr;
	int i;

	for (i = 0; i < 3; i++) {
		mr = get();
		assert_right(mr);
		put(mr);
		operate();
	}
	assert_int_equal(wire_stats(cache).registrations, 3);
	assert_int_equal(wire_stats(cache).bypass[MRCACHE_BYPASS_MONITOR], 3);
}

#define WINDOW(operation)                                               \
	{                                                               \
		"registered while it changes: " operation,              \
			registered_while_it_changes, set_up, tear_down, \
			(void *)operation,                              \
	}

static const struct CMUnitTest windows[] = {
	WINDOW("dontneed"),
	WINDOW("punch hole"),
	WINDOW("punch by other"),
};
CASES(windows);

int main(void)
{
	return run_cases(connect_wire, disconnect_wire);
}
