/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Registering, transferring, unmapping and truncating all at once, by threads
 * and by another process, for a bounded time. Every piece of memory has a lock:
 * who changes it holds the lock for the change and for the new contents; who
 * uses it holds it, shared, from registering to comparing. So a byte that is
 * wrong on the wire is a stale hit and nothing else.
 *
 * RACE_SECONDS is the time for all tests together (8), RACE_SEED repeats the
 * choices of a run, though not their order.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "memop_int.h"
#include "wire.h"

#define PAGE_SIZE ((size_t)4096)
#define SIZE	  (4 * PAGE_SIZE)

#define USERS	     3
#define ANON	     4 /* slots of private memory, for all */
#define FILES	     4 /* slots of shared memory that another process has too */
#define SHARED_SLOTS (ANON + FILES)
#define SLOTS	     (SHARED_SLOTS + USERS) /* and one for each user alone */

/* Everything below stops the run rather than the thread. */
#define MUST(condition)                                                   \
	do {                                                              \
		if (!(condition)) {                                       \
			fprintf(stderr, "race: line %d: %s (errno %d)\n", \
				__LINE__, #condition, errno);             \
			abort();                                          \
		}                                                         \
	} while (0)

struct slot {
	pthread_rwlock_t lock;
	char *addr; /* in the program */
	int fd;	    /* -1: private memory */
	unsigned int seed;
};

/* Shared with the other process. */
struct world {
	_Atomic bool stop;
	_Atomic uint64_t operations;
	_Atomic uint64_t by_other;
	struct slot slots[SLOTS];
};

struct variant {
	const char *monitor;
	unsigned int caches;
	uint64_t max_regs; /* 0: the default */
	bool contain;
	bool reaper;
	/*
	 * Hold on to registrations. Not where the limits make some that are
	 * not cached: whether those are valid is for the program to know.
	 */
	bool hold;
	bool naive; /* believe every registration that is held */
};

struct race {
	const struct variant *variant;
	struct world *world;
	struct rdma wire;
	struct mrcache *caches[2];
	uint64_t seed;
	_Atomic uint64_t transfers;
	_Atomic uint64_t held; /* of them through one held since before */
	_Atomic uint64_t stale;
	_Atomic uint64_t noise;
};

struct user {
	struct race *race;
	unsigned int id;
	struct rdma wire;
	uint64_t random;
	struct {
		struct ibv_mr *mr;
		struct mrcache *cache;
		char *addr;
	} held[SLOTS];
};

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state >> 11;
}

static unsigned int below(uint64_t *state, unsigned int limit)
{
	return next_random(state) % limit;
}

static uint64_t random_state(const struct race *race, unsigned int who)
{
	uint64_t state = race->seed * 0x9e3779b97f4a7c15ull + who + 1;
	int i;

	state += !state;
	for (i = 0; i < 8; i++)
		next_random(&state);
	return state;
}

static unsigned int other_seed(unsigned int seed, uint64_t *state)
{
	return seed + 1 + below(state, 255);
}

/* --- what happens to memory ------------------------------------------------------ */

static char *map(void *where, int flags, int fd)
{
	int sharing = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	void *p = mmap(where, SIZE, PROT_READ | PROT_WRITE, sharing | flags, fd,
		       0);

	return p == MAP_FAILED ? NULL : p;
}

/* Where it was, unless somebody was faster: then elsewhere. */
static void unmap_and_map(struct slot *slot)
{
	char *p;

	MUST(!munmap(slot->addr, SIZE));
	p = map(slot->addr, MAP_FIXED_NOREPLACE, slot->fd);
	slot->addr = p ? p : map(NULL, 0, slot->fd);
	MUST(slot->addr);
}

static void move_pages_away(struct slot *slot)
{
	/* Past libc, which passes on a new address with MREMAP_FIXED only. */
	long p = syscall(SYS_mremap, slot->addr, SIZE, SIZE,
			 MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);

	MUST(p != -1);
	MUST(!munmap((void *)p, SIZE));
}

static void change_any(struct slot *slot, unsigned int choice)
{
	switch (choice) {
	case 0:
		unmap_and_map(slot);
		break;
	case 1:
		MUST(map(slot->addr, MAP_FIXED, slot->fd) == slot->addr);
		break;
	case 2:
		MUST(!mprotect(slot->addr, SIZE, PROT_READ));
		MUST(!mprotect(slot->addr, SIZE, PROT_READ | PROT_WRITE));
		break;
	}
}

static void change_anon(struct slot *slot, uint64_t *random)
{
	unsigned int choice = below(random, 6);

	switch (choice) {
	case 3:
		MUST(!madvise(slot->addr, SIZE, MADV_DONTNEED));
		break;
	case 4:
		MUST(!madvise(slot->addr + PAGE_SIZE, PAGE_SIZE,
			      MADV_DONTNEED));
		break;
	case 5:
		move_pages_away(slot);
		break;
	default:
		change_any(slot, choice);
	}
}

static void change_file_only(const struct slot *slot, uint64_t *random)
{
	switch (below(random, 3)) {
	case 0:
		MUST(!memop_punch(slot->fd, 0, SIZE));
		break;
	case 1:
		MUST(!memop_punch(slot->fd, 2 * PAGE_SIZE, PAGE_SIZE));
		break;
	case 2:
		MUST(!memop_truncate(slot->fd, SIZE));
		break;
	}
}

static void change_file(struct slot *slot, uint64_t *random)
{
	unsigned int choice = below(random, 6);

	if (choice == 3)
		MUST(!madvise(slot->addr, SIZE, MADV_REMOVE));
	else if (choice > 3)
		change_file_only(slot, random);
	else
		change_any(slot, choice);
}

/* The lock is held for writing. */
static void change(struct world *world, struct slot *slot, uint64_t *random)
{
	if (slot->fd < 0)
		change_anon(slot, random);
	else
		change_file(slot, random);
	slot->seed = other_seed(slot->seed, random);
	memop_fill(slot->addr, SIZE, slot->seed);
	atomic_fetch_add(&world->operations, 1);
}

/* --- those who use it -------------------------------------------------------------- */

static struct mrcache *some_cache(struct user *user)
{
	return user->race
		->caches[below(&user->random, user->race->variant->caches)];
}

static struct ibv_mr *get(struct user *user, struct mrcache *cache, void *addr,
			  size_t size)
{
	struct ibv_pd *pd = user->race->wire.pd;
	struct ibv_mr *mr;

	if (user->race->variant->naive)
		mr = ibv_reg_mr(pd, addr, size, WIRE_LOCAL);
	else
		mr = mrcache_reg_mr(cache, pd, addr, size, WIRE_LOCAL);
	MUST(mr);
	return mr;
}

static void put(struct user *user, struct mrcache *cache, struct ibv_mr *mr)
{
	if (user->race->variant->naive)
		MUST(!ibv_dereg_mr(mr));
	else
		MUST(!mrcache_dereg_mr(cache, mr));
}

static void send_and_compare(struct user *user, struct ibv_mr *mr,
			     const char *addr, size_t size)
{
	MUST(!rdma_write_from(&user->wire, mr, addr, size));
	atomic_fetch_add(&user->race->transfers, 1);
	if (memcmp(user->wire.peer, addr, size))
		atomic_fetch_add(&user->race->stale, 1);
}

/* Needs the lock for writing: the contents change. */
static void fetch_and_compare(struct user *user, struct ibv_mr *mr,
			      struct slot *slot)
{
	slot->seed = other_seed(slot->seed, &user->random);
	memop_fill(user->wire.peer, SIZE, slot->seed);
	MUST(!rdma_read_into(&user->wire, mr, slot->addr, SIZE));
	atomic_fetch_add(&user->race->transfers, 1);
	if (memop_wrong(slot->addr, SIZE, slot->seed)) {
		atomic_fetch_add(&user->race->stale, 1);
		memop_fill(slot->addr, SIZE, slot->seed);
	}
}

/* Through the registration held since an earlier visit, if it may be believed. */
static void use_held(struct user *user, unsigned int index, struct slot *slot)
{
	struct ibv_mr *mr = user->held[index].mr;
	bool believed = user->race->variant->naive ||
			mrcache_valid(user->held[index].cache, mr);

	if (believed && user->held[index].addr == slot->addr) {
		send_and_compare(user, mr, slot->addr, SIZE);
		atomic_fetch_add(&user->race->held, 1);
		return;
	}
	put(user, user->held[index].cache, mr);
	user->held[index].mr = NULL;
}

static void use_part(struct user *user, struct slot *slot)
{
	struct mrcache *cache = some_cache(user);
	size_t start = below(&user->random, SIZE - 1);
	size_t size = 1 + below(&user->random, SIZE - start);
	struct ibv_mr *mr = get(user, cache, slot->addr + start, size);

	send_and_compare(user, mr, slot->addr + start, size);
	put(user, cache, mr);
}

static void use(struct user *user, unsigned int index, struct slot *slot,
		bool exclusive)
{
	struct mrcache *cache = some_cache(user);
	struct ibv_mr *mr;

	if (user->held[index].mr)
		use_held(user, index, slot);
	if (user->race->variant->contain && below(&user->random, 2))
		use_part(user, slot);
	mr = get(user, cache, slot->addr, SIZE);
	send_and_compare(user, mr, slot->addr, SIZE);
	if (exclusive)
		fetch_and_compare(user, mr, slot);
	if (user->race->variant->hold && !user->held[index].mr &&
	    !below(&user->random, 4)) {
		user->held[index].mr = mr;
		user->held[index].cache = cache;
		user->held[index].addr = slot->addr;
	} else {
		put(user, cache, mr);
	}
}

static void *user_main(void *arg)
{
	struct user *user = arg;
	struct world *world = user->race->world;
	unsigned int i;

	while (!world->stop) {
		bool own = !below(&user->random, 4);
		bool exclusive = own || !below(&user->random, 4);
		unsigned int index = own ? SHARED_SLOTS + user->id
					 : below(&user->random, SHARED_SLOTS);
		struct slot *slot = &world->slots[index];

		if (exclusive)
			MUST(!pthread_rwlock_wrlock(&slot->lock));
		else
			MUST(!pthread_rwlock_rdlock(&slot->lock));
		if (own && below(&user->random, 2))
			change(world, slot, &user->random);
		use(user, index, slot, exclusive);
		MUST(!pthread_rwlock_unlock(&slot->lock));
	}
	for (i = 0; i < SLOTS; i++)
		if (user->held[i].mr)
			put(user, user->held[i].cache, user->held[i].mr);
	return NULL;
}

/* --- those who change it ------------------------------------------------------------- */

static void nap(uint64_t *random)
{
	struct timespec t = {.tv_nsec = below(random, 3 * 1000 * 1000)};

	nanosleep(&t, NULL);
}

static void *mutator_main(void *arg)
{
	struct race *race = arg;
	uint64_t random = random_state(race, 100);

	while (!race->world->stop) {
		struct slot *slot =
			&race->world->slots[below(&random, SHARED_SLOTS)];

		MUST(!pthread_rwlock_wrlock(&slot->lock));
		change(race->world, slot, &random);
		MUST(!pthread_rwlock_unlock(&slot->lock));
		nap(&random);
	}
	return NULL;
}

/* Memory that is nobody else's comes and goes without any lock. */
static void *noise_main(void *arg)
{
	struct race *race = arg;
	uint64_t random = random_state(race, 200);

	while (!race->world->stop) {
		size_t size = (1 + below(&random, 64)) * PAGE_SIZE;
		char *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		MUST(p != MAP_FAILED);
		memset(p, 1, size);
		if (below(&random, 2))
			MUST(!madvise(p, size / 2, MADV_DONTNEED));
		MUST(!munmap(p, size));
		atomic_fetch_add(&race->noise, 1);
		nap(&random);
	}
	return NULL;
}

/* The other process: its mappings of the files are those it was forked with. */
static void other_main(struct race *race)
{
	uint64_t random = random_state(race, 300);
	struct world *world = race->world;
	char *mapped[SLOTS];
	unsigned int i;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (i = 0; i < SLOTS; i++)
		mapped[i] = world->slots[i].addr;
	while (!world->stop) {
		struct slot *slot;

		i = ANON + below(&random, FILES);
		slot = &world->slots[i];
		MUST(!pthread_rwlock_wrlock(&slot->lock));
		change_file_only(slot, &random);
		slot->seed = other_seed(slot->seed, &random);
		memop_fill(mapped[i], SIZE, slot->seed);
		MUST(!pthread_rwlock_unlock(&slot->lock));
		atomic_fetch_add(&world->operations, 1);
		atomic_fetch_add(&world->by_other, 1);
		nap(&random);
	}
	_exit(0);
}

/* --- a run ----------------------------------------------------------------------------- */

static struct world *make_world(void)
{
	pthread_rwlockattr_t attr;
	struct world *world = mmap(NULL, sizeof(*world), PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unsigned int i;

	MUST(world != MAP_FAILED);
	MUST(!pthread_rwlockattr_init(&attr));
	MUST(!pthread_rwlockattr_setpshared(&attr, PTHREAD_PROCESS_SHARED));
	MUST(!pthread_rwlockattr_setkind_np(
		&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP));
	for (i = 0; i < SLOTS; i++) {
		struct slot *slot = &world->slots[i];

		MUST(!pthread_rwlock_init(&slot->lock, &attr));
		slot->fd = i >= ANON && i < SHARED_SLOTS ? memop_memfd(SIZE, 0)
							 : -1;
		slot->addr = map(NULL, 0, slot->fd);
		MUST(slot->addr);
		slot->seed = i;
		memop_fill(slot->addr, SIZE, i);
	}
	pthread_rwlockattr_destroy(&attr);
	return world;
}

static void drop_world(struct world *world)
{
	unsigned int i;

	for (i = 0; i < SLOTS; i++) {
		munmap(world->slots[i].addr, SIZE);
		if (world->slots[i].fd >= 0)
			close(world->slots[i].fd);
	}
	munmap(world, sizeof(*world));
}

static void open_caches(struct race *race)
{
	const struct variant *variant = race->variant;
	struct mrcache_attr attr;
	unsigned int i;

	if (variant->naive)
		return;
	wire_attr(&attr, variant->monitor);
	if (variant->max_regs)
		attr.max_regs = variant->max_regs;
	attr.contain = variant->contain;
	attr.page_align = variant->contain;
	attr.reaper = variant->reaper;
	attr.log_level = MRCACHE_LOG_ERROR;
	for (i = 0; i < variant->caches; i++) {
		race->caches[i] = mrcache_open(&attr);
		MUST(race->caches[i]);
	}
}

/* How many registrations were served from the caches. */
static uint64_t close_caches(struct race *race)
{
	uint64_t hits = 0;
	unsigned int i;

	for (i = 0; i < 2 && race->caches[i]; i++) {
		struct mrcache_stats stats = wire_stats(race->caches[i]);

		hits += stats.hits;
		assert_int_equal(stats.dereg_errors, 0);
		assert_int_equal(stats.reg_errors, 0);
		assert_int_equal(stats.stale_held, 0);
		assert_int_equal(stats.uncached, 0);
		if (race->variant->hold)
			assert_int_equal(wire_bypassed(&stats), 0);
		assert_int_equal(mrcache_close(race->caches[i]), 0);
	}
	return hits;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* Enough has happened for the result to mean something. */
static bool is_enough(const struct race *race)
{
	return race->world->operations > 20 && race->world->by_other > 5 &&
	       race->transfers > 50 &&
	       (!race->variant->hold || race->held > 5) &&
	       (!race->variant->naive || race->stale);
}

/* A slow machine gets more time, within limits. */
static void wait_for_it(struct race *race, double seconds)
{
	struct timespec slice = {.tv_nsec = 20 * 1000 * 1000};
	double start = now(), spent;

	do {
		nanosleep(&slice, NULL);
		spent = now() - start;
	} while (spent < seconds || (!is_enough(race) && spent < 60));
}

static void run_threads(struct race *race, double seconds)
{
	pthread_t users[USERS], mutator, noise;
	struct user user[USERS] = {0};
	unsigned int i;

	for (i = 0; i < USERS; i++) {
		user[i].race = race;
		user[i].id = i;
		user[i].random = random_state(race, i);
		MUST(!rdma_join(&user[i].wire, &race->wire, SIZE));
	}
	for (i = 0; i < USERS; i++)
		MUST(!pthread_create(&users[i], NULL, user_main, &user[i]));
	MUST(!pthread_create(&mutator, NULL, mutator_main, race));
	MUST(!pthread_create(&noise, NULL, noise_main, race));
	wait_for_it(race, seconds);
	race->world->stop = true;
	for (i = 0; i < USERS; i++)
		MUST(!pthread_join(users[i], NULL));
	MUST(!pthread_join(mutator, NULL));
	MUST(!pthread_join(noise, NULL));
	for (i = 0; i < USERS; i++)
		MUST(!rdma_close(&user[i].wire));
}

static uint64_t number_of(const char *variable, uint64_t otherwise)
{
	const char *text = getenv(variable);

	return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

static double seconds_each;
static uint64_t the_seed;

static void race(void **state)
{
	struct race race = {.variant = *state, .seed = the_seed};
	uint64_t hits;
	pid_t other;
	int status;

	race.world = make_world();
	fflush(NULL);
	other = fork();
	MUST(other >= 0);
	if (!other)
		other_main(&race);
	assert_int_equal(rdma_open(&race.wire, SIZE), 0);
	open_caches(&race);
	run_threads(&race, seconds_each);
	MUST(waitpid(other, &status, 0) == other);
	assert_int_equal(status, 0);
	print_message("# seed %" PRIu64 ": %" PRIu64 " operations (%" PRIu64
		      " by another process), %" PRIu64 " unrelated, %" PRIu64
		      " transfers (%" PRIu64
		      " through held registrations), %" PRIu64 " stale",
		      race.seed, race.world->operations, race.world->by_other,
		      race.noise, race.transfers, race.held, race.stale);
	hits = close_caches(&race);
	print_message(", %" PRIu64 " hits\n", hits);
	assert_int_equal(rdma_close(&race.wire), 0);

	assert_true(is_enough(&race));
	if (!race.variant->naive) {
		assert_int_equal(race.stale, 0);
		assert_true(hits > 0);
	}
	drop_world(race.world);
}

static struct variant one_cache = {
	.monitor = "ummunotify",
	.caches = 1,
	.hold = true,
};
static struct variant two_caches = {
	.monitor = "ummunotify",
	.caches = 2,
	.hold = true,
};
static struct variant driver_of_2010 = {
	.monitor = "ummunotify-2010",
	.caches = 1,
	.hold = true,
};
static struct variant few_registrations = {
	.monitor = "ummunotify",
	.caches = 1,
	.max_regs = 3,
};
static struct variant parts = {
	.monitor = "ummunotify",
	.caches = 2,
	.contain = true,
	.reaper = true,
	.hold = true,
};
/* The race can be lost, so that winning it says something. */
static struct variant naive = {
	.caches = 1,
	.hold = true,
	.naive = true,
};

#define RACE(variant)                                \
	{                                            \
#variant, race, NULL, NULL, &variant \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RACE(one_cache),	 RACE(two_caches), RACE(driver_of_2010),
		RACE(few_registrations), RACE(parts),	   RACE(naive),
	};

	the_seed = number_of("RACE_SEED", time(NULL));
	seconds_each = (double)number_of("RACE_SECONDS", 8) /
		       (sizeof(tests) / sizeof(tests[0]));
	return cmocka_run_group_tests_name("race", tests, NULL, NULL);
}
