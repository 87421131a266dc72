/* SPDX-License-Identifier: BSD-2-Clause */
#include "giveback.h"

#include "cancel.h"
#include "log.h"
#include "thread.h"

#include <errno.h>

/* (lock) is taken; under it everything can be told apart. */
static int give_back_locked(struct mrcache *cache, struct mrc_thread *thread,
			    struct ibv_mr *ibv)
{
	struct mr *doomed = NULL, *list = NULL;
	struct mr_hold hold;
	struct mr *mr;
	int ret;

	pthread_mutex_lock(&cache->lock);
	mr = mr_find_ibv_locked(cache, ibv);
	if (mr && mr->state == MR_LIVE && mr_holds(cache, mr) <= 0) {
		/*
		 * Holds come and go while they are added up, so one may be
		 * overlooked; of what is doomed the sum is exact.
		 */
		mr_doom(cache, mr, false, &doomed);
		mr_sift(cache, doomed, &list);
	}
	if (!mr || mr->state == MR_RELEASING || mr_holds(cache, mr) <= 0) {
		pthread_mutex_unlock(&cache->lock);
		mr_release(cache, list);
		return mr ? -EINVAL : -ENOENT;
	}

	if (mr->uncached) {
		/* Its caller wants to know how deregistering went. */
		atomic_fetch_sub(&mr->handed, 1);
		mr_set_releasing(cache, mr);
		pthread_mutex_unlock(&cache->lock);
		ret = cache->verbs->dereg_mr(ibv);
		mrc_count(cache,
			  ret ? STAT_DEREG_ERRORS : STAT_DEREGISTRATIONS);
		pthread_mutex_lock(&cache->lock);
		if (ret) {
			atomic_fetch_add(&mr->handed, 1);
			mr->state = MR_DOOMED;
			pthread_cond_broadcast(&cache->released);
		} else {
			mrc_index_remove(&cache->by_ibv, mr_hash_ibv(ibv),
					 mr->number);
			mr_put(cache, mr);
		}
		pthread_mutex_unlock(&cache->lock);
		return ret;
	}

	hold = (struct mr_hold){mr, atomic_load(&mr->life),
				mrc_thread_count(thread, mr->number)};
	if (hold.count && atomic_load(hold.count) <= 0)
		hold.count = NULL;
	/* The life it had while LIVE, so that mr_hold_drop() sees that it ended. */
	if (!(hold.life & 1))
		hold.life--;
	pthread_mutex_unlock(&cache->lock);
	mr_release(cache, list); /* of others, which were aside */
	mr_hold_drop(cache, &hold);
	return 0;
}

static int give_back_in_child(struct mrcache *cache, struct ibv_mr *ibv)
{
	/* What the parent held at fork is not ours to deregister. */
	if (mr_find_ibv_locked(cache, ibv))
		return 0;
	return cache->verbs->dereg_mr(ibv);
}

int mrc_give_back(struct mrcache *cache, struct ibv_mr *ibv)
{
	MRC_NOT_CANCELLED;
	struct mrc_thread *thread = mrc_thread(cache);
	struct mr_hold hold;
	uint32_t number;

	if (!mrc_is_owner(cache))
		return give_back_in_child(cache, ibv);
	hold.mr = mr_find_ibv(cache, ibv, &hold.life, &number);
	if (!hold.mr)
		return give_back_locked(cache, thread, ibv);
	hold.count = mrc_thread_count(thread, number);
	/* Registered by another thread, or not held at all. */
	if (!(hold.count && mr_is_surely_held(hold.mr, hold.count)) &&
	    !mr_seems_held(cache, hold.mr))
		return give_back_locked(cache, thread, ibv);
	if (hold.count &&
	    atomic_load_explicit(hold.count, memory_order_relaxed) <= 0)
		hold.count = NULL;
	mr_hold_drop(cache, &hold);
	return 0;
}

int mrc_unshare(struct mrcache *cache, const struct ibv_mr *ibv)
{
	MRC_NOT_CANCELLED;
	struct mr *doomed = NULL, *list = NULL;
	struct mr *mr;
	int ret = 0;

	pthread_mutex_lock(&cache->lock);
	mr = mr_find_ibv_locked(cache, ibv);
	if (!mr) {
		ret = -ENOENT;
	} else if (!mr->uncached) {
		/* Nobody can join now; who has it is exact after the fence. */
		if (mr->state == MR_LIVE)
			mr_doom(cache, mr, false, &doomed);
		mr_sift(cache, doomed, &list);
		if (mr->state == MR_RELEASING)
			ret = -ENOENT; /* not even the caller */
		else if (mr_holds(cache, mr) != 1)
			ret = -EBUSY;
	}
	pthread_mutex_unlock(&cache->lock);
	mr_release(cache, list);
	return ret;
}
