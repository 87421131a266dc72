/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The library against the wire. Threads and another process register, transfer,
 * unmap and truncate all at once. Every piece of memory has a lock: who changes
 * it holds the lock for the change and for the new contents; who uses it holds
 * it, shared, until what arrived is compared. So a byte that is wrong on the
 * wire is a stale hit and nothing else. Registering may also begin without the
 * lock, while the memory changes: what is then handed out again under the lock
 * must be right too.
 */
#define _GNU_SOURCE
#include "stress.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "memop_int.h"
#include "support.h"
#include "wire.h"

#define SIZE (4 * PAGE)

#define USERS	     3
#define ANON	     4 /* slots of private memory, for all */
#define FILES	     4 /* slots of shared memory that another process has too */
#define SHARED_SLOTS (ANON + FILES)
#define SLOTS	     (SHARED_SLOTS + USERS) /* and one for each user alone */

struct slot {
	pthread_rwlock_t lock;
	char *_Atomic addr; /* in the program */
	_Atomic bool changing;
	int fd; /* -1: private memory */
	unsigned int seed;
};

/* Shared with the other process. */
struct world {
	_Atomic bool stop;
	_Atomic uint64_t operations;
	_Atomic uint64_t by_other;
	struct slot slots[SLOTS];
};

struct race {
	const struct wire_variant *variant;
	struct world *world;
	struct rdma wire;
	struct mrcache *caches[2];
	_Atomic uint64_t transfers;
	_Atomic uint64_t held;	/* of them through one held since before */
	_Atomic uint64_t early; /* registered before the lock was taken */
	_Atomic uint64_t kept;	/* of them still handed out under the lock */
	_Atomic uint64_t
		refused; /* there was no memory, or too little may be locked */
	_Atomic uint64_t flushed;
	_Atomic uint64_t stale;
	_Atomic uint64_t noise;
};

struct user {
	struct race *race;
	unsigned int id;
	uint64_t step;
	struct rdma wire;
	struct dice dice;
	struct {
		struct ibv_mr *mr;
		struct mrcache *cache;
		char *addr;
	} held[SLOTS];
};

static unsigned int other_seed(unsigned int seed, struct dice *dice)
{
	return seed + 1 + dice_below(dice, 255);
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

static void change_anon(struct slot *slot, struct dice *dice)
{
	unsigned int choice = dice_below(dice, 7);

	switch (choice) {
	case 3:
		MUST(!madvise(slot->addr, SIZE, MADV_DONTNEED));
		break;
	case 4:
		MUST(!madvise(slot->addr + PAGE, PAGE, MADV_DONTNEED));
		break;
	case 5:
		move_pages_away(slot);
		break;
	case 6: /* a false alarm: what is pinned stays */
		MUST(!madvise(slot->addr, SIZE, MADV_FREE));
		break;
	default:
		change_any(slot, choice);
	}
}

static void change_file_only(const struct slot *slot, struct dice *dice)
{
	switch (dice_below(dice, 3)) {
	case 0:
		MUST(!memop_punch(slot->fd, 0, SIZE));
		break;
	case 1:
		MUST(!memop_punch(slot->fd, 2 * PAGE, PAGE));
		break;
	case 2:
		MUST(!memop_truncate(slot->fd, SIZE));
		break;
	}
}

static void change_file(struct slot *slot, struct dice *dice)
{
	unsigned int choice = dice_below(dice, 7);

	if (choice == 3)
		MUST(!madvise(slot->addr, SIZE, MADV_REMOVE));
	else if (choice == 6) /* a false alarm: the file keeps its pages */
		MUST(!madvise(slot->addr, SIZE, MADV_DONTNEED));
	else if (choice > 3)
		change_file_only(slot, dice);
	else
		change_any(slot, choice);
}

/* The lock is held for writing. */
static void change(struct world *world, struct slot *slot, struct dice *dice)
{
	slot->changing = true;
	if (slot->fd < 0)
		change_anon(slot, dice);
	else
		change_file(slot, dice);
	slot->changing = false;
	slot->seed = other_seed(slot->seed, dice);
	memop_fill(slot->addr, SIZE, slot->seed);
	atomic_fetch_add(&world->operations, 1);
}

/* --- those who use it -------------------------------------------------------------- */

static struct mrcache *some_cache(struct user *user)
{
	return user->race
		->caches[dice_below(&user->dice, user->race->variant->caches)];
}

/* NULL if it is refused for a reason that the kernel may well have. */
static struct ibv_mr *get(struct user *user, struct mrcache *cache, void *addr,
			  size_t size)
{
	struct ibv_pd *pd = user->wire.pd;
	struct ibv_mr *mr;

	if (user->race->variant->naive)
		mr = ibv_reg_mr(pd, addr, size, WIRE_LOCAL);
	else
		mr = mrcache_reg_mr(cache, pd, addr, size, WIRE_LOCAL);
	if (!mr) {
		MUST(errno == EFAULT || errno == ENOMEM);
		user->race->refused++;
	}
	return mr;
}

static void put(struct user *user, struct mrcache *cache, struct ibv_mr *mr)
{
	if (!mr)
		return;
	if (user->race->variant->naive)
		MUST(!ibv_dereg_mr(mr));
	else
		MUST(!mrcache_dereg_mr(cache, mr));
}

static void is_stale(struct user *user, const char *what, struct slot *slot)
{
	if (!user->race->variant->naive)
		stress_die("%s: stale: user %u, step %lu: what was %s "
			   "through %s memory at %p is not what is there",
			   user->race->variant->name, user->id, user->step,
			   what, slot->fd < 0 ? "private" : "shared",
			   slot->addr);
	atomic_fetch_add(&user->race->stale, 1);
}

static void count_transfer(struct user *user)
{
	atomic_fetch_add(&user->race->transfers, 1);
	atomic_fetch_add(stress_work, 1);
}

static void send_and_compare(struct user *user, struct ibv_mr *mr,
			     struct slot *slot, const char *addr, size_t size)
{
	MUST(!rdma_write_from(&user->wire, mr, addr, size));
	count_transfer(user);
	if (memcmp(user->wire.peer, addr, size))
		is_stale(user, "sent", slot);
}

/* Needs the lock for writing: the contents change. */
static void fetch_and_compare(struct user *user, struct ibv_mr *mr,
			      struct slot *slot)
{
	slot->seed = other_seed(slot->seed, &user->dice);
	memop_fill(user->wire.peer, SIZE, slot->seed);
	MUST(!rdma_read_into(&user->wire, mr, slot->addr, SIZE));
	count_transfer(user);
	if (memop_wrong(slot->addr, SIZE, slot->seed)) {
		is_stale(user, "fetched", slot);
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
		send_and_compare(user, mr, slot, slot->addr, SIZE);
		atomic_fetch_add(&user->race->held, 1);
		return;
	}
	put(user, user->held[index].cache, mr);
	user->held[index].mr = NULL;
}

static void use_part(struct user *user, struct slot *slot)
{
	struct mrcache *cache = some_cache(user);
	size_t start = dice_below(&user->dice, SIZE - 1);
	size_t size = 1 + dice_below(&user->dice, SIZE - start);
	struct ibv_mr *mr = get(user, cache, slot->addr + start, size);

	if (mr)
		send_and_compare(user, mr, slot, slot->addr + start, size);
	put(user, cache, mr);
}

/* What is not cached is not handed out twice. */
static bool is_cached(struct user *user, struct mrcache *cache,
		      struct ibv_mr *mr, char *addr)
{
	struct ibv_mr *again = get(user, cache, addr, SIZE);

	put(user, cache, again);
	return again == mr;
}

static void hold(struct user *user, unsigned int index, struct mrcache *cache,
		 struct ibv_mr *mr, char *addr)
{
	user->held[index].mr = mr;
	user->held[index].cache = cache;
	user->held[index].addr = addr;
}

static void use(struct user *user, unsigned int index, struct slot *slot,
		struct mrcache *cache, bool exclusive)
{
	const struct wire_variant *variant = user->race->variant;
	struct ibv_mr *mr;

	if (user->held[index].mr)
		use_held(user, index, slot);
	if (variant->contain && dice_below(&user->dice, 2))
		use_part(user, slot);
	mr = get(user, cache, slot->addr, SIZE);
	if (mr)
		send_and_compare(user, mr, slot, slot->addr, SIZE);
	if (mr && exclusive)
		fetch_and_compare(user, mr, slot);
	if (mr && variant->hold && !user->held[index].mr &&
	    !dice_below(&user->dice, 4) &&
	    (variant->naive || is_cached(user, cache, mr, slot->addr)))
		hold(user, index, cache, mr, slot->addr);
	else
		put(user, cache, mr);
}

static void lock(struct slot *slot, bool exclusive)
{
	if (exclusive)
		MUST(!pthread_rwlock_wrlock(&slot->lock));
	else
		MUST(!pthread_rwlock_rdlock(&slot->lock));
}

static void unlock(struct slot *slot)
{
	MUST(!pthread_rwlock_unlock(&slot->lock));
}

/* Registers while the memory changes, if it soon does, or is gone. */
static struct ibv_mr *get_early(struct user *user, struct mrcache *cache,
				struct slot *slot)
{
	struct ibv_mr *mr;
	int i;

	for (i = 0; i < 200 && !slot->changing; i++)
		sched_yield();
	mr = get(user, cache, slot->addr, SIZE);
	user->race->early += !!mr;
	return mr;
}

/* Whether what was registered early is what is handed out now. */
static void check_early(struct user *user, struct mrcache *cache,
			struct ibv_mr *early, struct slot *slot)
{
	struct ibv_mr *mr = get(user, cache, slot->addr, SIZE);

	if (mr == early) {
		send_and_compare(user, mr, slot, slot->addr, SIZE);
		user->race->kept++;
	}
	put(user, cache, mr);
}

static void visit(struct user *user)
{
	const struct wire_variant *variant = user->race->variant;
	bool own = !dice_below(&user->dice, 4);
	bool exclusive = own || !dice_below(&user->dice, 4);
	bool early = !variant->naive && !dice_below(&user->dice, 3);
	unsigned int index = own ? SHARED_SLOTS + user->id
				 : dice_below(&user->dice, SHARED_SLOTS);
	struct slot *slot = &user->race->world->slots[index];
	struct mrcache *cache = some_cache(user);
	struct ibv_mr *mr = early ? get_early(user, cache, slot) : NULL;

	lock(slot, exclusive);
	if (mr)
		check_early(user, cache, mr, slot);
	if (own && dice_below(&user->dice, 2))
		change(user->race->world, slot, &user->dice);
	use(user, index, slot, cache, exclusive);
	unlock(slot);
	put(user, cache, mr);
	if (!variant->naive && !dice_below(&user->dice, 32)) {
		MUST(mrcache_flush(cache, user->wire.pd) >= 0);
		user->race->flushed++;
	}
}

static void *user_main(void *arg)
{
	struct user *user = arg;
	unsigned int i;

	for (; !user->race->world->stop; user->step++) {
		user->dice = dice_for(DICE_WIRE + user->id, user->step);
		visit(user);
	}
	for (i = 0; i < SLOTS; i++)
		put(user, user->held[i].cache, user->held[i].mr);
	return NULL;
}

/* --- those who change it ------------------------------------------------------------- */

static void *mutator_main(void *arg)
{
	struct world *world = arg;
	uint64_t step;

	for (step = 0; !world->stop; step++) {
		struct dice dice = dice_for(DICE_WIRE + 10, step);
		struct slot *slot =
			&world->slots[dice_below(&dice, SHARED_SLOTS)];

		lock(slot, true);
		change(world, slot, &dice);
		unlock(slot);
		stress_nap(&dice, 500);
	}
	return NULL;
}

/* Memory that is nobody else's comes and goes without any lock. */
static void *noise_main(void *arg)
{
	struct race *race = arg;
	uint64_t step;

	for (step = 0; !race->world->stop; step++) {
		struct dice dice = dice_for(DICE_WIRE + 11, step);
		size_t size = (1 + dice_below(&dice, 64)) * PAGE;
		char *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		MUST(p != MAP_FAILED);
		memset(p, 1, size);
		if (dice_below(&dice, 2))
			MUST(!madvise(p, size / 2, MADV_DONTNEED));
		MUST(!munmap(p, size));
		race->noise++;
		stress_nap(&dice, 3000);
	}
	return NULL;
}

/* The other process: its mappings of the files are those it was forked with. */
static void other_main(void *arg)
{
	struct world *world = arg;
	char *mapped[SLOTS];
	unsigned int i;
	uint64_t step;

	for (i = 0; i < SLOTS; i++)
		mapped[i] = world->slots[i].addr;
	for (step = 0; !world->stop; step++) {
		struct dice dice = dice_for(DICE_WIRE + 12, step);
		struct slot *slot;

		i = ANON + dice_below(&dice, FILES);
		slot = &world->slots[i];
		lock(slot, true);
		slot->changing = true;
		change_file_only(slot, &dice);
		slot->changing = false;
		slot->seed = other_seed(slot->seed, &dice);
		memop_fill(mapped[i], SIZE, slot->seed);
		unlock(slot);
		atomic_fetch_add(&world->operations, 1);
		atomic_fetch_add(&world->by_other, 1);
		stress_nap(&dice, 1000);
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

static void open_caches(struct race *race)
{
	const struct wire_variant *variant = race->variant;
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
	attr.fingerprint = variant->fingerprint;
	attr.log_level = MRCACHE_LOG_ERROR;
	for (i = 0; i < variant->caches; i++) {
		race->caches[i] = mrcache_open(&attr);
		MUST(race->caches[i]);
	}
}

/* What the caches counted, together. */
static struct mrcache_stats sum_stats(const struct race *race)
{
	struct mrcache_stats sum = {0};
	uint64_t *to = (uint64_t *)&sum;
	unsigned int i;
	size_t j;

	for (i = 0; i < race->variant->caches && race->caches[i]; i++) {
		struct mrcache_stats stats = wire_stats(race->caches[i]);

		for (j = 0; j < sizeof(stats) / sizeof(*to); j++)
			to[j] += ((uint64_t *)&stats)[j];
	}
	return sum;
}

/* Enough has happened for the result to mean something. */
static bool is_enough(const void *arg)
{
	const struct race *race = arg;
	const struct wire_variant *variant = race->variant;
	struct mrcache_stats stats = sum_stats(race);

	if (race->world->operations <= 20 || race->world->by_other <= 5 ||
	    race->transfers <= 50 || (variant->hold && race->held <= 5))
		return false;
	if (variant->naive)
		return race->stale;
	return race->early > 20 && race->kept && race->flushed && stats.hits &&
	       stats.invalidations &&
	       (variant->max_regs != 1 || stats.evictions) &&
	       (!variant->fingerprint || (stats.verified && stats.refuted)) &&
	       (!variant->memlock || stats.retries);
}

static void check_and_close(struct race *race)
{
	struct mrcache_stats stats = sum_stats(race);
	unsigned int i;

	printf("# %s: %lu changes (%lu by another process), %lu unrelated; "
	       "%lu transfers, %lu of them through held registrations; %lu "
	       "registered early, %lu of them good, %lu refused; %lu hits, %lu "
	       "misses, %lu invalidations, %lu repins, %lu evictions, %lu "
	       "retries, %lu flushes, %lu not cached; %lu verified, %lu "
	       "refuted; %lu stale%s\n",
	       race->variant->name, race->world->operations,
	       race->world->by_other, race->noise, race->transfers, race->held,
	       race->early, race->kept, race->refused, stats.hits, stats.misses,
	       stats.invalidations, stats.repins, stats.evictions,
	       stats.retries, race->flushed, wire_bypassed(&stats),
	       stats.verified, stats.refuted, race->stale,
	       race->variant->naive ? ", as must be" : "");
	MUST(is_enough(race));
	if (race->variant->naive)
		return;
	MUST(!stats.dereg_errors);
	MUST(stats.reg_errors == race->refused);
	MUST(!stats.stale_held);
	MUST(!stats.uncached);
	for (i = 0; i < race->variant->caches; i++)
		MUST(!mrcache_close(race->caches[i]));
}

static void open_wire(struct user *user)
{
	struct race *race = user->race;

	if (race->variant->own_pds)
		MUST(!rdma_open(&user->wire, SIZE));
	else
		MUST(!rdma_join(&user->wire, &race->wire, SIZE));
}

static void run_threads(struct race *race, double seconds)
{
	pthread_t threads[USERS + 2];
	struct user user[USERS] = {0};
	unsigned int i;

	for (i = 0; i < USERS; i++) {
		user[i].race = race;
		user[i].id = i;
		open_wire(&user[i]);
	}
	for (i = 0; i < USERS; i++)
		MUST(!pthread_create(&threads[i], NULL, user_main, &user[i]));
	MUST(!pthread_create(&threads[USERS], NULL, mutator_main, race->world));
	MUST(!pthread_create(&threads[USERS + 1], NULL, noise_main, race));
	stress_wait(seconds, is_enough, race);
	race->world->stop = true;
	for (i = 0; i < USERS + 2; i++)
		MUST(!pthread_join(threads[i], NULL));
	check_and_close(race);
	for (i = 0; i < USERS; i++)
		MUST(!rdma_close(&user[i].wire));
}

/* Nobody, who may lock so many bytes. */
static void become_nobody(uint64_t memlock)
{
	const struct rlimit limit = {memlock, memlock};

	MUST(!setrlimit(RLIMIT_MEMLOCK, &limit));
	MUST(!setresgid(65534, 65534, 65534));
	MUST(!setresuid(65534, 65534, 65534));
}

void wire_run(const struct wire_variant *variant, double seconds)
{
	struct race race = {.variant = variant, .world = make_world()};
	pid_t other = stress_fork(other_main, race.world);

	if (variant->memlock)
		become_nobody(variant->memlock * PAGE);
	MUST(!rdma_open(&race.wire, SIZE));
	open_caches(&race);
	run_threads(&race, seconds);
	MUST(child_result(other) == 0);
	MUST(!rdma_close(&race.wire));
}
