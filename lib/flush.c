/* SPDX-License-Identifier: BSD-2-Clause */
#include "flush.h"

#include "cancel.h"

#include <errno.h>

/* (lock) */
void mrc_doom_all(struct mrcache *cache, const struct mrc_pd *entry,
		  struct mr **doomed)
{
	struct mr *mr;

	DL_FOREACH(entry->mrs, mr)
	if (mr->state == MR_LIVE)
		mr_doom(cache, mr, false, doomed);
}

/* (lock) Those that somebody has, or is about to get. */
int mrc_count_held(struct mrcache *cache, const struct mrc_pd *entry)
{
	struct mr *mr;
	int held = 0;

	DL_FOREACH(entry->mrs, mr)
	if (mr->state == MR_BUSY || (mr->state == MR_DOOMED && !mr->aside) ||
	    ((mr->state == MR_LIVE || mr->aside) && mr_is_held(cache, mr)))
		held++;
	return held;
}

/* (lock) Whether one that is RELEASING was so when `retired` was counted. */
static bool any_releasing(const struct mrc_pd *entry, uint64_t retired)
{
	struct mr *mr;

	DL_FOREACH(entry->mrs, mr)
	if (mr->state == MR_RELEASING && mr->retired <= retired)
		return true;
	return false;
}

int mrc_flush_matching(struct mrcache *cache, mrc_match_fn *match,
		       const void *arg)
{
	MRC_NOT_CANCELLED;
	struct mr *doomed = NULL, *list = NULL;
	struct mrc_pd *entry, *next;
	uint64_t retired;
	bool releasing;
	int held;

	pthread_mutex_lock(&cache->lock);
	HASH_ITER(hh, cache->pds, entry, next)
	if (match(entry, arg))
		mrc_doom_all(cache, entry, &doomed);
	mr_sift(cache, doomed, &list);
	retired = cache->flushed = cache->retired;
	pthread_mutex_unlock(&cache->lock);
	mr_release(cache, list);

	pthread_mutex_lock(&cache->lock);
	for (;;) {
		releasing = false;
		held = 0;
		HASH_ITER(hh, cache->pds, entry, next)
		{
			if (!match(entry, arg))
				continue;
			held += mrc_count_held(cache, entry);
			releasing |= any_releasing(entry, retired);
		}
		if (!releasing)
			break;
		pthread_cond_wait(&cache->released, &cache->lock);
	}
	pthread_mutex_unlock(&cache->lock);
	return held;
}

static bool is_pd(const struct mrc_pd *entry, const void *arg)
{
	return !arg || entry->pd == arg;
}

int mrcache_flush(struct mrcache *cache, struct ibv_pd *pd)
{
	if (!cache || !atomic_load(&cache->open))
		return -EINVAL;
	if (!mrc_is_owner(cache))
		return 0;
	return mrc_flush_matching(cache, is_pd, pd);
}

int mrcache_invalidate(struct mrcache *cache, const void *addr, size_t length)
{
	MRC_NOT_CANCELLED;
	uintptr_t start = (uintptr_t)addr;
	struct mr *doomed = NULL, *list = NULL;

	if (!cache || !atomic_load(&cache->open) || !length ||
	    start + length - 1 < start)
		return -EINVAL;
	if (!mrc_is_owner(cache))
		return 0;
	pthread_mutex_lock(&cache->lock);
	cache->flushed = cache->retired;
	for (uint32_t number = 0; number < cache->made; number++) {
		struct mr *mr = mr_of_number(cache, number);
		uintptr_t mr_start = atomic_load(&mr->start);

		if (mr->state == MR_FREE || mr->state == MR_RELEASING)
			continue;
		if (mr_start > start + length - 1 ||
		    mr_start + (atomic_load(&mr->length) - 1) < start)
			continue;
		if (mr->state == MR_BUSY)
			mr->hit = true;
		else if (mr->state == MR_LIVE)
			mr_doom(cache, mr, true, &doomed);
		else
			mr_mark_stale(cache, mr);
	}
	mr_sift(cache, doomed, &list);
	pthread_mutex_unlock(&cache->lock);
	mr_release(cache, list);
	return 0;
}
