/* SPDX-License-Identifier: BSD-2-Clause */
#include "retire.h"

#include "cancel.h"
#include "log.h"

#include <errno.h>
#include <string.h>

static void update_quiet(struct mrcache *cache)
{
	uint64_t quiet =
		cache->stale_held ? 0 : atomic_load(&cache->hot->drained);

	__atomic_store_n(&cache->hot->quiet, quiet, __ATOMIC_RELEASE);
}

static void count_stale_held(struct mrcache *cache, int more)
{
	cache->stale_held += (uint64_t)more;
	mrc_add(cache, STAT_STALE_HELD, (uint64_t)more);
}

void mr_mark_stale(struct mrcache *cache, struct mr *mr)
{
	if (mr->stale || mr->uncached)
		return;
	mrc_count(cache, STAT_INVALIDATIONS);
	mr->stale = true;
	count_stale_held(cache,
			 1); /* until mr_sift() or mr_finish() retires it */
}

void mr_unmark_stale(struct mrcache *cache, struct mr *mr)
{
	mr->stale = false;
	count_stale_held(cache, -1);
	update_quiet(cache);
}

void mr_doom(struct mrcache *cache, struct mr *mr, bool stale,
	     struct mr **doomed)
{
	mr_unpublish(cache, mr);
	mrc_add(cache, STAT_CACHED, -1);
	mrc_add(cache, STAT_CACHED_BYTES, -atomic_load(&mr->length));
	mr->state = MR_DOOMED;
	CDL_DELETE2(cache->ring, mr, ring_prev, ring_next);
	cache->live--;
	if (stale)
		mr_mark_stale(cache, mr);
	atomic_fetch_add(&mr->life, 1);
	mr->link = *doomed;
	*doomed = mr;
}

/* DOOMED and not held, to RELEASING and onto the list. */
static void retire(struct mrcache *cache, struct mr *mr, struct mr **list)
{
	if (mr->stale)
		count_stale_held(cache, -1);
	if (mr->aside)
		DL_DELETE2(cache->aside, mr, ring_prev, ring_next);
	mr->aside = false;
	mr_unaccount(cache, mr);
	mr_set_releasing(cache, mr);
	mrc_index_remove(&cache->by_ibv, mr_hash_ibv(atomic_load(&mr->ibv)),
			 mr->number);
	mr->link = *list;
	*list = mr;
}

/* After a fence: their counts are exact. */
static void sift_aside(struct mrcache *cache, struct mr **list)
{
	struct mr *mr, *next;

	DL_FOREACH_SAFE2(cache->aside, mr, next, ring_next)
	{
		if (mr_is_held(cache, mr)) {
			DL_DELETE2(cache->aside, mr, ring_prev, ring_next);
			mr->aside = false;
		} else {
			retire(cache, mr, list);
		}
	}
}

void mr_sift(struct mrcache *cache, struct mr *doomed, struct mr **list)
{
	if (doomed || cache->aside)
		mrc_fence_heavy(cache); /* between life and counts (I4) */
	sift_aside(cache, list);
	while (doomed) {
		struct mr *mr = doomed;

		doomed = mr->link;
		mr->link = NULL;
		if (!mr_is_held(cache, mr))
			retire(cache, mr, list);
	}
	update_quiet(cache);
}

void mr_sift_later(struct mrcache *cache, struct mr *doomed, struct mr **list)
{
	if (!mrc_fence_disturbs(cache)) {
		mr_sift(cache, doomed, list);
		return;
	}
	while (doomed) {
		struct mr *mr = doomed;

		doomed = mr->link;
		mr->aside = true;
		DL_APPEND2(cache->aside, mr, ring_prev, ring_next);
	}
	update_quiet(cache);
}

struct mr *mr_sift_aside(struct mrcache *cache)
{
	struct mr *list = NULL;
	bool any, fenced;

	pthread_mutex_lock(&cache->lock);
	any = cache->aside;
	pthread_mutex_unlock(&cache->lock);
	if (!any)
		return NULL;
	/* Only this thread puts aside: all that is there was doomed before. */
	fenced = mrc_fence_slow();
	pthread_mutex_lock(&cache->lock);
	if (!fenced && cache->aside)
		mrc_fence_heavy(cache);
	sift_aside(cache, &list);
	update_quiet(cache);
	pthread_mutex_unlock(&cache->lock);
	return list;
}

void mr_finish(struct mrcache *cache, struct mr *mr)
{
	MRC_NOT_CANCELLED;
	struct mr *list = NULL;

	/* A child tries the hits of its parent, in vain, and must not go on. */
	if (!mrc_is_owner(cache))
		return;
	pthread_mutex_lock(&cache->lock);
	/*
	 * Whichever use it is now: the hold given back may be one that was added
	 * for an earlier use and, seen beside the doom of this one, kept it. What
	 * is aside has had no fence yet, so that its sum may be too small.
	 */
	if (mr->state == MR_DOOMED && !mr->uncached && !mr->aside &&
	    !mr_is_held(cache, mr)) {
		retire(cache, mr, &list);
		update_quiet(cache);
	}
	pthread_mutex_unlock(&cache->lock);
	mr_release(cache, list);
}

void mr_end(struct mrcache *cache, struct mr *mr, bool stale)
{
	int ret;

	if (cache->ended)
		cache->ended(cache->ended_arg, atomic_load(&mr->ibv), stale);
	ret = cache->verbs->dereg_mr(atomic_load(&mr->ibv));
	if (ret) {
		mrc_count(cache, STAT_DEREG_ERRORS);
		if (mrc_once(cache, ONCE_DEREG))
			mrc_log(&cache->attr, MRCACHE_LOG_ERROR,
				"cannot deregister memory that is no longer used: %s (said once, counted)",
				/* NOLINTNEXTLINE(concurrency-mt-unsafe): glibc's is safe */
				strerror(ret));
	} else {
		mrc_count(cache, STAT_DEREGISTRATIONS);
	}
}

void mr_release(struct mrcache *cache, struct mr *list)
{
	int saved = errno;

	while (list) {
		struct mr *mr = list;

		list = mr->link;
		if (mr->watched)
			cache->monitor->ops->unwatch(cache->monitor,
						     mr_cookie(mr));
		mr_end(cache, mr, mr->stale);
		pthread_mutex_lock(&cache->lock);
		mr_put(cache, mr);
		pthread_mutex_unlock(&cache->lock);
	}
	errno = saved;
}
