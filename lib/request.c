/* SPDX-License-Identifier: BSD-2-Clause */
/* What is wanted of one registration; see mrcache-transport.h. */
#include "cancel.h"
#include "miss.h"
#include "recent.h"

#include <errno.h>
#include <string.h>

#define FLAGS                                                       \
	(MRCACHE_REG_HIT | MRCACHE_REG_CACHED | MRCACHE_REG_ALONE | \
	 MRCACHE_REG_REMOTE | MRCACHE_REG_EXACT)

/* What is asked of a registration that others can be given, too. */
#define SHARED (MRCACHE_REG_HIT | MRCACHE_REG_CACHED | MRCACHE_REG_REMOTE)

static bool makes_sense(const struct mrcache *cache,
			const struct mrcache_request *request)
{
	return mrc_is_open(cache) && request->pd &&
	       request->size == sizeof(*request) &&
	       !(request->flags & ~FLAGS) &&
	       !(request->access & MRC_ASKED_REMOTE) &&
	       !((request->flags & MRCACHE_REG_ALONE) &&
		 (request->flags & SHARED));
}

static struct mr_want want_of(const struct mrcache *cache,
			      struct mrcache_request *request)
{
	struct mr_want want = {
		.pd = request->pd,
		.start = (uintptr_t)request->addr,
		.length = request->length,
		.access = request->access,
		.flags = request->flags,
		.reason = &request->reason,
	};

	/* Where all such registrations are cached, they are all the same. */
	if ((request->flags & MRCACHE_REG_REMOTE) &&
	    (request->access & MRC_REMOTE_ACCESS) && !cache->attr.remote &&
	    !cache->attr.linger)
		want.access |= MRC_ASKED_REMOTE;
	return want;
}

/* A child knows nothing of its own registrations. */
static struct ibv_mr *reg_in_child(struct mrcache *cache,
				   struct mrcache_request *request)
{
	request->reason = MRCACHE_BYPASS_FORK;
	if (request->flags & (MRCACHE_REG_HIT | MRCACHE_REG_CACHED)) {
		errno = request->flags & MRCACHE_REG_HIT ? EAGAIN : EOPNOTSUPP;
		return NULL;
	}
	return mrcache_reg_mr(cache, request->pd, request->addr,
			      request->length, request->access);
}

/* (no lock) One that is there, held. */
static bool find(struct mrcache *cache, struct mrc_thread *thread,
		 const struct mr_want *want, struct mr_hold *hold)
{
	if (want->flags & MRCACHE_REG_ALONE)
		return false;
	if (mr_find_same(cache, thread, want, hold))
		return true;
	return cache->contain && want->length &&
	       !(want->flags & MRCACHE_REG_EXACT) &&
	       mr_find_larger(cache, thread, want, hold);
}

/*
 * Not what the thread used recently for this very range, or not sensible.
 * `dropped`, if not NULL, was held in vain, and has been doomed meanwhile.
 */
static __attribute__((noinline)) struct ibv_mr *
reg_slow(struct mrcache *cache, struct mrcache_request *request,
	 struct mr *dropped)
{
	struct mrc_thread *thread;
	struct mr_hold hold;
	struct mr_want want;

	if (!cache || !request || !makes_sense(cache, request)) {
		errno = EINVAL;
		return NULL;
	}
	if (dropped)
		mr_finish(cache, dropped);
	request->reason = -1;
	if (!mrc_is_owner(cache))
		return reg_in_child(cache, request);
	want = want_of(cache, request);
	thread = mrc_thread(cache);
	if (find(cache, thread, &want, &hold))
		return mrc_found(cache, thread, &want, &hold);
	if (!(want.flags & MRCACHE_REG_HIT))
		return mrc_miss(cache, thread, &want);
	errno = EAGAIN;
	return NULL;
}

struct ibv_mr *mrcache_reg_mr_ex(struct mrcache *cache,
				 struct mrcache_request *request)
{
	struct mrc_thread *thread = cache ? mrc_thread_known(cache) : NULL;
	struct mr *dropped = NULL;
	struct mr_hold hold;
	struct mr_want want;

	if (__builtin_expect(!thread || !request, 0))
		return reg_slow(cache, request, NULL);
	request->reason = -1;
	if (__builtin_expect((request->flags & MRCACHE_REG_ALONE) ||
				     !makes_sense(cache, request),
			     0))
		return reg_slow(cache, request, NULL);
	want = want_of(cache, request);
	if (__builtin_expect(recall(thread, range_key(want.start, want.length),
				    mr_serves, &want, &hold),
			     1)) {
		if (__builtin_expect(mr_hold_if_usable(cache, &hold), 1))
			return recalled(thread, hold.mr);
		if (mr_hold_sub(cache, &hold))
			dropped = hold.mr;
	}
	return reg_slow(cache, request, dropped);
}

int mrcache_revoke(struct mrcache *cache, struct ibv_mr *ibv)
{
	MRC_NOT_CANCELLED;
	struct mr *doomed = NULL, *list = NULL;
	struct mr *mr;
	int ret = 0;

	if (!cache || !ibv || !mrc_is_open(cache))
		return EINVAL;
	/* A child has nothing that anybody could be given. */
	if (!mrc_is_owner(cache))
		return 0;
	pthread_mutex_lock(&cache->lock);
	mr = mr_find_ibv_locked(cache, ibv);
	if (!mr) {
		ret = EINVAL;
	} else if (!mr->uncached) {
		if (mr->state == MR_LIVE)
			mr_doom(cache, mr, false, &doomed);
		/* Nobody can join now; who has it is exact after the fence. */
		mr_sift(cache, doomed, &list);
		if (mr->state == MR_DOOMED && mr_holds(cache, mr) > 1)
			ret = EBUSY;
	}
	pthread_mutex_unlock(&cache->lock);
	mr_release(cache, list);
	return ret;
}

int mrcache_get_info(struct mrcache *cache, const struct ibv_mr *ibv,
		     struct mrcache_info *info, size_t size)
{
	MRC_NOT_CANCELLED;
	struct mrcache_info all;
	struct mr *mr;

	if (!cache || !ibv || !info || !size || size > sizeof(all) ||
	    !mrc_is_open(cache) || !mrc_is_owner(cache))
		return EINVAL;
	pthread_mutex_lock(&cache->lock);
	mr = mr_find_ibv_locked(cache, ibv);
	if (mr)
		all = (struct mrcache_info){
			.addr = (void *)atomic_load(&mr->start),
			.length = atomic_load(&mr->length),
			.access = atomic_load(&mr->access) & ~MRC_ASKED_REMOTE,
			.watched = !mr->uncached,
			.found = mr->state == MR_LIVE,
			.stale = mr->stale,
		};
	pthread_mutex_unlock(&cache->lock);
	if (!mr)
		return EINVAL;
	memcpy(info, &all, size);
	return 0;
}
