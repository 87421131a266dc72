/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The two fast paths, mrcache_reg_mr() and mrcache_dereg_mr(): no lock, no system
 * call, nothing written that another thread reads. What is rare leaves by a last
 * call with the same arguments, so that no register need be saved. What comes
 * after them in this file is asked when the thread does not remember.
 */
#include "hit.h"

#include "cancel.h"
#include "drain.h"
#include "giveback.h"
#include "log.h"
#include "lookup.h"
#include "miss.h"
#include "recent.h"
#include "verify.h"

#include <errno.h>

static struct ibv_mr *reg_by_index(struct mrcache *cache, struct ibv_pd *pd,
				   void *addr, size_t length, int access,
				   struct mr *dropped);
static int dereg_or_complain(struct mrcache *cache, struct ibv_mr *ibv);
static int finish(struct mrcache *cache, struct mr *mr);

/* ---- the hit ------------------------------------------------------------------ */

struct ibv_mr *mrcache_reg_mr(struct mrcache *cache, struct ibv_pd *pd,
			      void *addr, size_t length, int access)
{
	const struct mr_want want = {.pd = pd,
				     .start = (uintptr_t)addr,
				     .length = length,
				     .access = access};
	struct mrc_thread *thread = mrc_thread_known(cache);
	struct mr *dropped = NULL;
	struct mr_hold hold;

	if (__builtin_expect(thread && recall(thread,
					      range_key(want.start, length),
					      mr_serves, &want, &hold),
			     1)) {
		if (__builtin_expect(mr_hold_if_usable(cache, &hold), 1))
			return recalled(thread, hold.mr);
		if (mr_hold_sub(cache, &hold))
			dropped = hold.mr;
	}
	return reg_by_index(cache, pd, addr, length, access, dropped);
}

/* ---- giving back --------------------------------------------------------------- */

/* Finds what the thread used recently and surely holds. */
static inline bool recall_ibv(struct mrc_thread *thread,
			      const struct ibv_mr *ibv, struct mr_hold *hold)
{
	const struct mrc_recent *recent =
		mrc_recent(thread->ibvs, (uintptr_t)ibv);

	hold->mr = recent->mr;
	hold->count = recent->count;
	/* While it is LIVE ibv can only mean it. */
	return hold->count && mr_is_ibv(hold->mr, ibv, &hold->life) &&
	       mr_is_surely_held(hold->mr, hold->count);
}

/* What `rare` does is all that the two callers differ in. */
static inline __attribute__((always_inline)) int
dereg(struct mrcache *cache, struct ibv_mr *ibv,
      int (*rare)(struct mrcache *cache, struct ibv_mr *ibv))
{
	struct mrc_thread *thread = mrc_thread_known(cache);
	struct mr_hold hold;

	if (__builtin_expect(!thread || !recall_ibv(thread, ibv, &hold), 0))
		return rare(cache, ibv);
	if (__builtin_expect(mr_hold_sub(cache, &hold), 0))
		return finish(cache, hold.mr);
	return 0;
}

int mrcache_dereg_mr(struct mrcache *cache, struct ibv_mr *ibv)
{
	return dereg(cache, ibv, dereg_or_complain);
}

int mrc_dereg_mr(struct mrcache *cache, struct ibv_mr *ibv)
{
	return dereg(cache, ibv, mrc_give_back);
}

/* ---- what the thread does not remember ------------------------------------------ */

/* A child knows nothing of its own registrations and needs not to. */
static struct ibv_mr *reg_in_child(struct mrcache *cache,
				   const struct mr_want *want)
{
	MRC_NOT_CANCELLED;
	mrc_count_bypass(cache, MRCACHE_BYPASS_FORK);
	return cache->verbs->reg_mr(want->pd, (void *)want->start, want->length,
				    want->access);
}

/* No registration of this very range is known. */
static __attribute__((noinline)) struct ibv_mr *
reg_by_larger(struct mrcache *cache, struct mrc_thread *thread,
	      struct ibv_pd *pd, uintptr_t start, size_t length, int access)
{
	struct mr_want want = {
		.pd = pd, .start = start, .length = length, .access = access};
	struct mr_hold hold;

	if (!mrc_is_owner(cache))
		return reg_in_child(cache, &want);
	if (cache->contain && length &&
	    mr_find_larger(cache, thread, &want, &hold))
		return mrc_found(cache, thread, &want, &hold);
	return mrc_miss(cache, thread, &want);
}

/*
 * Not what the thread used recently for this very range. `dropped`, if not
 * NULL, was held in vain, and has been doomed meanwhile.
 */
static __attribute__((noinline)) struct ibv_mr *
reg_by_index(struct mrcache *cache, struct ibv_pd *pd, void *addr,
	     size_t length, int access, struct mr *dropped)
{
	const struct mr_want want = {.pd = pd,
				     .start = (uintptr_t)addr,
				     .length = length,
				     .access = access};
	struct mrc_thread *thread;
	struct mr_hold hold;

	if (!mrc_is_open(cache) || !pd) {
		errno = EINVAL;
		return NULL;
	}
	if (dropped)
		mr_finish(cache, dropped);
	thread = mrc_thread(cache);
	if (cache->contain && length && thread &&
	    recall(thread, block_key(want.start, thread->order), mr_contains,
		   &want, &hold) &&
	    mr_try_hold(cache, &hold))
		return recalled(thread, hold.mr);
	if (mrc_is_owner(cache) && mr_find_same(cache, thread, &want, &hold))
		return mrc_found(cache, thread, &want, &hold);
	return reg_by_larger(cache, thread, pd, want.start, length, access);
}

static __attribute__((noinline)) int dereg_or_complain(struct mrcache *cache,
						       struct ibv_mr *ibv)
{
	int ret;

	if (!mrc_is_open(cache) || !ibv)
		return EINVAL;
	ret = mrc_give_back(cache, ibv);
	if (ret >= 0)
		return ret;
	mrc_log(&cache->attr, MRCACHE_LOG_ERROR, "mrcache_dereg_mr(%p): %s",
		(void *)ibv,
		ret == -EINVAL ? "not held; given back twice?"
			       : "not from this cache, or given back already");
	return EINVAL;
}

static __attribute__((noinline)) int finish(struct mrcache *cache,
					    struct mr *mr)
{
	mr_finish(cache, mr);
	return 0;
}

bool mrcache_is_watched(struct mrcache *cache, const struct ibv_mr *ibv)
{
	MRC_NOT_CANCELLED;
	struct mr *mr;
	bool watched;
	uint32_t number;
	uint64_t life;

	if (!mrc_is_open(cache) || !ibv || !mrc_is_owner(cache))
		return false;
	if (mr_find_ibv(cache, ibv, &life, &number))
		return true;
	pthread_mutex_lock(&cache->lock);
	mr = mr_find_ibv_locked(cache, ibv);
	watched = mr && !mr->uncached;
	pthread_mutex_unlock(&cache->lock);
	return watched;
}

/*
 * A thread that asks so often and registers nothing drains now and then, or it
 * would be asking the slow way for ever.
 */
#define SLOW_BEFORE_DRAIN 64

static bool due_to_drain(void)
{
	static __thread unsigned int slow
		__attribute__((tls_model("initial-exec")));

	return ++slow % SLOW_BEFORE_DRAIN == 0;
}

bool mrcache_valid_slow(struct mrcache *cache, const struct ibv_mr *ibv)
{
	MRC_NOT_CANCELLED;
	struct mr *mr;
	bool valid, drained = true;
	uint32_t number;
	uint64_t life;

	if (!cache || !atomic_load(&cache->open) || !ibv ||
	    !mrc_is_owner(cache))
		return false;
	if (cache->monitor &&
	    mrc_generation(cache) + 1 != atomic_load(&cache->hot->drained)) {
		if (!cache->states)
			drained = mrc_drain(cache, true);
		else if (due_to_drain())
			mrc_drain(cache, false);
	}
	mr = mr_find_ibv(cache, ibv, &life, &number);
	if (mr && cache->states && mr_is_usable(cache, mr, life))
		return true;

	pthread_mutex_lock(&cache->lock);
	mr = mr_find_ibv_locked(cache, ibv);
	if (!mr)
		valid = false;
	else if (mr->uncached)
		valid = true;
	else
		valid = !mr->stale &&
			(cache->states ? mr_is_untouched(cache, mr) : drained);
	pthread_mutex_unlock(&cache->lock);
	if (!valid && mr && mr_may_live_on(cache, mr))
		return mr_verify_held(cache, mr);
	return valid;
}
