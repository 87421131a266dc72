/* SPDX-License-Identifier: BSD-2-Clause */
#include "fork.h"

#include "cancel.h"
#include "evict.h"
#include "reaper.h"
#include "wiped.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

/* The caches that are open; and closed ones, the oldest first. */
static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct mrcache *registry, *closed;
static unsigned int closed_count;
#define MOST_CLOSED 64
static pthread_once_t lock_once = PTHREAD_ONCE_INIT;
static pthread_once_t release_once = PTHREAD_ONCE_INIT;
/* A cache's `forking` is 0 now. */
static pthread_cond_t not_forking = PTHREAD_COND_INITIALIZER;

/* What a closed cache's head points to; mrcache_valid() is false then. */
const uint64_t mrc_no_generation;
struct mrc_hot mrc_no_hot;
/* Where a child counts: the parent's counters may be shared memory. */
static struct mrc_counters child_counters;

/*
 * No lock is held while verbs and the program's callbacks run; `forking` keeps the
 * cache from being closed meanwhile, and so in the registry.
 */
static void release(struct mrcache *cache)
{
	cache->forking++;
	pthread_mutex_unlock(&registry_lock);
	mrc_release_for_fork(cache);
	pthread_mutex_lock(&registry_lock);
	if (!--cache->forking)
		pthread_cond_broadcast(&not_forking);
}

/*
 * In a handler of its own, which runs before those of the allocators that were
 * there when the first cache was opened: verbs free memory.
 */
static void release_before_fork(void)
{
	MRC_NOT_CANCELLED;

	pthread_mutex_lock(&registry_lock);
	for (struct mrcache *cache = registry; cache; cache = cache->next)
		if (mrc_is_owner(cache))
			release(cache);
	pthread_mutex_unlock(&registry_lock);
}

/*
 * Whoever has the lock may be waiting for memory of an allocator that this
 * thread has locked for the fork. It is then where nothing is half-written but
 * what a child does not look at (docs/design.md, Fork), and is left there.
 */
#define LOCK_LIMIT 200000000L /* ns */

static bool lock_for_fork(pthread_mutex_t *lock)
{
	struct timespec limit;

	if (!pthread_mutex_trylock(lock))
		return true;
	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_nsec += LOCK_LIMIT;
	if (limit.tv_nsec >= 1000000000L) {
		limit.tv_nsec -= 1000000000L;
		limit.tv_sec++;
	}
	return !pthread_mutex_timedlock(lock, &limit);
}

static void lock_before_fork(void)
{
	MRC_NOT_CANCELLED;

	pthread_mutex_lock(&registry_lock);
	for (struct mrcache *cache = registry; cache; cache = cache->next) {
		/* A parent's, whose threads have its locks and are not here. */
		if (!mrc_is_owner(cache))
			continue;
		cache->fork_drain_lock = lock_for_fork(&cache->drain_lock);
		cache->fork_lock = lock_for_fork(&cache->lock);
	}
}

static void after_fork(void)
{
	for (struct mrcache *cache = registry; cache; cache = cache->next) {
		if (cache->fork_lock)
			pthread_mutex_unlock(&cache->lock);
		if (cache->fork_drain_lock)
			pthread_mutex_unlock(&cache->drain_lock);
		cache->fork_lock = cache->fork_drain_lock = false;
	}
	pthread_mutex_unlock(&registry_lock);
}

/* Allocators may still be locked: nothing is allocated here, nor freed. */
static void after_fork_in_child(void)
{
	/* Who waited is not here. */
	not_forking = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
	for (struct mrcache *cache = registry; cache; cache = cache->next) {
		/* Done by the kernel already, unless it lacks MADV_WIPEONFORK. */
		if (cache->hot != &mrc_no_hot)
			memset(cache->hot, 0, sizeof(*cache->hot));
		cache->counters = &child_counters;
		mrc_reaper_forget(cache);
		/* Nor who has them. */
		if (!cache->fork_lock)
			cache->lock =
				(pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
		if (!cache->fork_drain_lock)
			cache->drain_lock =
				(pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
	}
	after_fork();
}

static void set_lock_handlers(void)
{
	pthread_atfork(lock_before_fork, after_fork, after_fork_in_child);
}

static void set_release_handler(void)
{
	pthread_atfork(release_before_fork, NULL, NULL);
}

void mrc_fork_init(void)
{
	pthread_once(&lock_once, set_lock_handlers);
}

void mrc_fork_register(struct mrcache *cache)
{
	/* In this order: the later one runs first. */
	mrc_fork_init();
	pthread_once(&release_once, set_release_handler);
	pthread_mutex_lock(&registry_lock);
	DL_APPEND(registry, cache);
	pthread_mutex_unlock(&registry_lock);
}

void mrc_fork_closing(const struct mrcache *cache)
{
	pthread_mutex_lock(&registry_lock);
	while (cache->forking)
		pthread_cond_wait(&not_forking, &registry_lock);
}

void mrc_fork_unregister(struct mrcache *cache)
{
	struct mrcache *old, *next;

	DL_DELETE(registry, cache);
	DL_APPEND(closed, cache);
	closed_count++;
	DL_FOREACH_SAFE(closed, old, next)
	{
		if (closed_count <= MOST_CLOSED)
			break;
		/* Pairs with the release of who dropped the last record. */
		if (atomic_load_explicit(&old->records, memory_order_acquire))
			continue;
		DL_DELETE(closed, old);
		closed_count--;
		pthread_mutex_destroy(&old->lock);
		pthread_mutex_destroy(&old->drain_lock);
		pthread_cond_destroy(&old->released);
		free(old);
	}
	pthread_mutex_unlock(&registry_lock);
}

struct mrc_hot *mrc_hot_new(void)
{
	struct mrc_hot *hot = mrc_wiped_new();

	if (hot)
		hot->alive = 1;
	return hot;
}

void mrc_hot_free(struct mrc_hot *hot)
{
	mrc_wiped_free(hot);
}

struct mrc_counters *mrc_counters_new(void)
{
	void *memory =
		mmap(NULL, sizeof(struct mrc_counters), PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

void mrc_counters_free(struct mrc_counters *counters)
{
	if (counters && counters != &child_counters)
		munmap(counters, sizeof(*counters));
}
