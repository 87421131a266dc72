/* SPDX-License-Identifier: BSD-2-Clause */
#include "evict.h"

#include "lookup.h"

/*
 * A clock: the hand passes over the LIVE ones and takes the first idle one that
 * was not used since it came by last, or the time before if it was hit; or, after
 * some looks, the one of those seen that was used least. A look adds up counts of
 * all threads, so the more threads there are the fewer looks.
 */
#define MOST_LOOKS  32u
#define LEAST_LOOKS 4u
#define COUNTS	    256u /* to be added up in all, if that leaves enough looks */

/* A sweep interrupts the threads of the process; not more often than this. */
#define SWEEP_AFTER 1024u

static uint32_t some_looks(const struct mrcache *cache)
{
	uint32_t looks = COUNTS / (cache->thread_count + 1);

	return looks > MOST_LOOKS    ? MOST_LOOKS
	       : looks < LEAST_LOOKS ? LEAST_LOOKS
				     : looks;
}

/* From now on who gives back says so, and what is seen held stays seen. */
static void begin_sweep(struct mrcache *cache)
{
	atomic_store_explicit(&cache->all_held, true, memory_order_relaxed);
	mrc_fence_heavy(cache); /* pairs with the light one in mr_hold_sub() */
	cache->sweeping = true;
	cache->to_see = cache->live;
}

/* Whether it is known, without looking, that nothing is idle. */
static bool known_held(struct mrcache *cache)
{
	if (cache->sweeping && !atomic_load(&cache->all_held)) {
		cache->sweeping = false;
		cache->held_in_row = 0;
	}
	return cache->sweeping && !cache->to_see;
}

static void seen_held(struct mrcache *cache)
{
	if (cache->held_in_row < UINT32_MAX)
		cache->held_in_row++;
	if (cache->to_see)
		cache->to_see--;
}

static void seen_idle(struct mrcache *cache)
{
	cache->held_in_row = 0;
	cache->sweeping = false;
	atomic_store_explicit(&cache->all_held, false, memory_order_relaxed);
}

/* The next to go, after as many looks; NULL if all that was seen is held. */
static struct mr *next_idle(struct mrcache *cache, uint32_t looks)
{
	uint8_t referenced, least = UINT8_MAX;
	struct mr *best = NULL;

	if (known_held(cache))
		return NULL;
	if (!cache->sweeping && cache->held_in_row >= SWEEP_AFTER &&
	    cache->held_in_row >= cache->live)
		begin_sweep(cache);
	for (uint32_t held = 0; looks && held < cache->live; looks--) {
		struct mr *mr = cache->ring;

		cache->ring = mr->ring_next;
		cache->looked++;
		if (mr_is_held(cache, mr)) {
			seen_held(cache);
			held++;
			continue;
		}
		seen_idle(cache);
		held = 0;
		referenced = atomic_load(&mr->referenced);
		if (!referenced)
			return mr;
		/* A hit in between may be lost: it was a guess anyway. */
		atomic_store(&mr->referenced, referenced - 1);
		if (referenced < least) {
			least = referenced;
			best = mr;
		}
	}
	return best;
}

/*
 * Evicts idle ones, each found with as many looks; false if none was, nor anything
 * else put onto the list: what the reaper had put aside makes room as well.
 */
static bool evict(struct mrcache *cache, uint64_t bytes, uint64_t regs,
		  uint32_t looks, struct mr **list)
{
	struct mr *doomed = NULL, *before = *list, *mr;
	bool any = false;

	while ((bytes || regs) && (mr = next_idle(cache, looks))) {
		uint64_t length = atomic_load(&mr->length);

		bytes -= bytes < length ? bytes : length;
		regs -= regs > 0;
		mrc_count(cache, STAT_EVICTIONS);
		mr_doom(cache, mr, false, &doomed);
		any = true;
	}
	mr_sift(cache, doomed, list);
	return any || *list != before;
}

bool mr_evict(struct mrcache *cache, uint64_t bytes, uint64_t regs,
	      struct mr **list)
{
	/* Thrice round, or until it is known that all is held. */
	return evict(cache, bytes, regs, UINT32_MAX, list);
}

bool mr_make_room(struct mrcache *cache, size_t length, struct mr **list)
{
	const struct mrcache_attr *attr = &cache->attr;

	if (length > attr->max_bytes || !attr->max_regs)
		return false;
	/* What is aside ends anyway: before any that may be used again. */
	if (cache->aside && (cache->regs >= attr->max_regs ||
			     cache->bytes > attr->max_bytes - length))
		mr_sift(cache, NULL, list);
	while (cache->regs >= attr->max_regs ||
	       cache->bytes > attr->max_bytes - length) {
		uint64_t bytes =
			cache->bytes > attr->max_bytes - length
				? cache->bytes - (attr->max_bytes - length)
				: 0;

		if (!evict(cache, bytes, cache->regs >= attr->max_regs,
			   some_looks(cache), list))
			return false;
	}
	return true;
}

/* They go together, as a fence may interrupt all threads. */
#define SUPERSEDED 8u

void mr_supersede(struct mrcache *cache, const struct mr_want *range,
		  struct mr **list)
{
	struct mr *within[2 * SUPERSEDED], *doomed = NULL;
	uint32_t found = mr_find_within(cache, range, MOST_LOOKS, within,
					2 * SUPERSEDED);

	if (found < SUPERSEDED)
		return;
	for (uint32_t i = 0; i < found; i++) {
		if (within[i]->state != MR_LIVE || mr_is_held(cache, within[i]))
			continue;
		mrc_count(cache, STAT_EVICTIONS);
		mr_doom(cache, within[i], false, &doomed);
	}
	mr_sift(cache, doomed, list);
}

/* (lock) The next few from *number on; false when there are no more. */
static bool linger_some(struct mrcache *cache, uint32_t *number,
			struct mr **list)
{
	struct mr *doomed = NULL;

	for (uint32_t looks = some_looks(cache); looks && *number < cache->made;
	     looks--, ++*number) {
		struct mr *mr = mr_of_number(cache, *number);

		if (mr->state != MR_LIVE ||
		    !(atomic_load(&mr->access) & MRC_REMOTE_ACCESS))
			continue;
		if (mr_is_held(cache, mr))
			atomic_store(&mr->referenced, 1);
		else if (!atomic_exchange(&mr->referenced, 0))
			mr_doom(cache, mr, false, &doomed);
	}
	mr_sift_later(cache, doomed, list);
	return *number < cache->made;
}

/*
 * The lock is let go of in between, so that no miss waits for all of it. What was
 * put aside had its time, whatever its pages are: it is not verified.
 */
void mrc_linger(struct mrcache *cache)
{
	struct mr *list = NULL;
	uint32_t number = 0;
	bool more = true;

	while (more) {
		pthread_mutex_lock(&cache->lock);
		more = linger_some(cache, &number, &list);
		pthread_mutex_unlock(&cache->lock);
	}
	mr_release(cache, list);
	mr_release(cache, mr_sift_aside(cache));
}

/*
 * From where copying costs more than pinning again and what an adapter needs: 64
 * KiB are copied in 11 us, and pinned in 2 (docs/design.md, Fork).
 */
#define FORK_RELEASE ((uint64_t)64 << 10)

void mrc_release_for_fork(struct mrcache *cache)
{
	uint64_t least = cache->attr.fork_release ? cache->attr.fork_release
						  : FORK_RELEASE;
	struct mr *doomed = NULL, *list = NULL, *mr, *next;

	pthread_mutex_lock(&cache->lock);
	mr = cache->ring;
	/* Mostly there is not enough of it altogether. */
	for (uint32_t left = cache->bytes < least ? 0 : cache->live; left;
	     left--, mr = next) {
		next = mr->ring_next;
		if (atomic_load(&mr->length) < least || mr_is_held(cache, mr))
			continue;
		mrc_count(cache, STAT_FORK_RELEASES);
		mr_doom(cache, mr, false, &doomed);
	}
	mr_sift(cache, doomed, &list);
	pthread_mutex_unlock(&cache->lock);
	mr_release(cache, list);
}
