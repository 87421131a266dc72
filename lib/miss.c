/* SPDX-License-Identifier: BSD-2-Clause */
/* Begin reading at mrc_miss(), at the end. No lock is held while a verb runs. */
#include "miss.h"

#include "cancel.h"
#include "drain.h"
#include "evict.h"
#include "log.h"
#include "recent.h"
#include "verify.h"

#include <errno.h>
#include <unistd.h>

/* Access flags that are understood well enough to be cached. */
#define CACHEABLE_ACCESS                              \
	(IBV_ACCESS_LOCAL_WRITE | MRC_REMOTE_ACCESS | \
	 IBV_ACCESS_RELAXED_ORDERING)

/* How much is evicted when ibv_reg_mr() finds no memory: a part of the whole. */
#define EVICT_PART 8

/* What a verb is to know of it. */
static int verbs_access(const struct mr_want *want)
{
	return want->flags & MRCACHE_REG_REMOTE
		       ? want->access & ~MRC_ASKED_REMOTE
		       : want->access;
}

/*
 * ibv_reg_mr(); when memory is short or the lock limit is reached, idle
 * registrations make room and it is tried again.
 */
static struct ibv_mr *verbs_reg_mr(struct mrcache *cache,
				   const struct mr_want *range)
{
	for (;;) {
		struct ibv_mr *ibv = cache->verbs->reg_mr(
			range->pd, (void *)range->start, range->length,
			verbs_access(range));
		struct mr *list = NULL;
		int error = errno;
		bool evicted;

		if (ibv) {
			mrc_count(cache, STAT_REGISTRATIONS);
			return ibv;
		}
		if (error != ENOMEM && error != EAGAIN)
			break;
		pthread_mutex_lock(&cache->lock);
		evicted = mr_evict(cache,
				   range->length +
					   mrc_get(cache, STAT_CACHED_BYTES) /
						   EVICT_PART,
				   1, &list);
		pthread_mutex_unlock(&cache->lock);
		errno = error;
		if (!evicted)
			break;
		mrc_count(cache, STAT_RETRIES);
		mr_release(cache, list);
	}
	mrc_count(cache, STAT_REG_ERRORS);
	return NULL;
}

/* ---- what ends without being cached ---------------------------------------- */

/* Back to the pool without having been handed out. */
static void abandon(struct mrcache *cache, struct mr *mr)
{
	int saved = errno;

	if (mr->watched)
		cache->monitor->ops->unwatch(cache->monitor, mr_cookie(mr));
	pthread_mutex_lock(&cache->lock);
	mr_put(cache, mr);
	pthread_mutex_unlock(&cache->lock);
	errno = saved;
}

/* Deregisters what was not handed out. */
static void drop_ibv(struct mrcache *cache, struct ibv_mr *ibv)
{
	int saved = errno;

	mrc_count(cache, cache->verbs->dereg_mr(ibv) ? STAT_DEREG_ERRORS
						     : STAT_DEREGISTRATIONS);
	errno = saved;
}

/* Why it is not cached; false if its caller wants nothing else. */
static bool may_pass(const struct mr_want *want, enum mrcache_bypass reason)
{
	if (want->reason)
		*want->reason = reason;
	return !(want->flags & MRCACHE_REG_CACHED);
}

static void count_passed(struct mrcache *cache, const struct mr_want *want,
			 enum mrcache_bypass reason)
{
	/* Of what was asked for nothing need be said. */
	if (want->flags & MRCACHE_REG_ALONE)
		mrc_count(cache, STAT_BYPASS + reason);
	else
		mrc_count_bypass(cache, reason);
}

/*
 * Hands ibv, made for the BUSY mr, to this one caller. A growth of the table is
 * one allocation of megabytes, where verbs want a hundred bytes.
 */
static struct ibv_mr *hand_out_uncached(struct mrcache *cache, struct mr *mr,
					struct ibv_mr *ibv,
					const struct mr_want *want,
					enum mrcache_bypass reason)
{
	int ret;

	if (!may_pass(want, reason)) {
		drop_ibv(cache, ibv);
		abandon(cache, mr);
		errno = EOPNOTSUPP;
		return NULL;
	}
	if (mr->watched)
		cache->monitor->ops->unwatch(cache->monitor, mr_cookie(mr));
	mr->watched = false;
	pthread_mutex_lock(&cache->lock);
	ret = mr_publish_uncached(cache, mr, ibv);
	pthread_mutex_unlock(&cache->lock);
	if (ret && !cache->lends_unknown) {
		drop_ibv(cache, ibv);
		abandon(cache, mr);
		errno = -ret;
		return NULL;
	}
	if (ret)
		abandon(cache, mr);
	count_passed(cache, want, reason);
	return ibv;
}

/* An ordinary registration, known to the cache only to be given back. */
static struct ibv_mr *reg_uncached(struct mrcache *cache, struct mr *mr,
				   const struct mr_want *want,
				   enum mrcache_bypass reason)
{
	struct ibv_mr *ibv;

	if (!may_pass(want, reason)) {
		abandon(cache, mr);
		errno = EOPNOTSUPP;
		return NULL;
	}
	ibv = verbs_reg_mr(cache, want);
	if (!ibv) {
		abandon(cache, mr);
		return NULL;
	}
	return hand_out_uncached(cache, mr, ibv, want, reason);
}

/* The same without memory for an mr. reason: or -1. */
static struct ibv_mr *reg_unknown(struct mrcache *cache,
				  const struct mr_want *want, int reason)
{
	enum mrcache_bypass why =
		reason < 0 ? MRCACHE_BYPASS_LIMIT : (enum mrcache_bypass)reason;
	struct ibv_mr *ibv;

	if (!cache->lends_unknown || !may_pass(want, why)) {
		errno = cache->lends_unknown ? EOPNOTSUPP : ENOMEM;
		return NULL;
	}
	ibv = verbs_reg_mr(cache, want);
	if (ibv)
		count_passed(cache, want, why);
	return ibv;
}

/* ---- watch, pin, look, publish --------------------------------------------- */

/* Starts watching the BUSY mr: 0, or the reason not to cache it. */
static int watch(struct mrcache *cache, struct mr *mr)
{
	struct mrc_monitor *monitor = cache->monitor;
	uint64_t start = atomic_load(&mr->start),
		 end = start + atomic_load(&mr->length);
	struct mrc_watch armed = {0};
	struct mr *list = NULL;
	int ret;

	ret = monitor->ops->watch(monitor, start, end, mr_cookie(mr), &armed);
	if (ret == -ENOSPC || ret == -ENOMEM) {
		/* Registrations that go take their watches with them. */
		pthread_mutex_lock(&cache->lock);
		mr_evict(cache, 0, 1 + cache->live / EVICT_PART, &list);
		pthread_mutex_unlock(&cache->lock);
		if (list) {
			mr_release(cache, list);
			ret = monitor->ops->watch(monitor, start, end,
						  mr_cookie(mr), &armed);
		}
	}
	if (ret == -EOPNOTSUPP)
		return MRCACHE_BYPASS_MEMORY;
	if (ret)
		return MRCACHE_BYPASS_WATCH;
	mr->watched = true;
	atomic_store(&mr->slot, armed.slot);
	atomic_store(&mr->armed, armed.armed);
	return -1;
}

/* The same for one that is watched from its last use. */
static int watch_again(struct mrcache *cache, struct mr *mr)
{
	struct mrc_monitor *monitor = cache->monitor;
	uint64_t start = atomic_load(&mr->start),
		 end = start + atomic_load(&mr->length);
	struct mrc_watch armed = {0};
	int ret =
		monitor->ops->renew(monitor, start, end, mr_cookie(mr), &armed);

	if (ret) {
		monitor->ops->unwatch(monitor, mr_cookie(mr));
		mr->watched = false;
		return ret == -EOPNOTSUPP ? MRCACHE_BYPASS_MEMORY
					  : watch(cache, mr);
	}
	atomic_store(&mr->slot, armed.slot);
	atomic_store(&mr->armed, armed.armed);
	return -1;
}

/* Whether the BUSY mr was hit since it was armed. */
static bool is_dirty(struct mrcache *cache, struct mr *mr)
{
	if (cache->states && !mr_is_untouched(cache, mr))
		return true;
	if (!cache->states &&
	    mrc_generation(cache) + 1 != atomic_load(&cache->hot->drained) &&
	    !mrc_drain(cache, true))
		return true;
	return atomic_load(&mr->hit);
}

/* (lock) What came since then; what was reported meanwhile is reported once. */
static bool became_dirty(struct mrcache *cache, struct mr *mr)
{
	return mr->hit || (cache->states && !mr_is_untouched(cache, mr));
}

static bool rearm(struct mrcache *cache, struct mr *mr)
{
	struct mrc_watch armed = {0};
	int ret;

	pthread_mutex_lock(&cache->lock);
	mr->hit = false;
	pthread_mutex_unlock(&cache->lock);
	ret = cache->monitor->ops->rearm(cache->monitor, mr_cookie(mr), &armed);
	if (ret)
		return false;
	atomic_store(&mr->slot, armed.slot);
	atomic_store(&mr->armed, armed.armed);
	return true;
}

/*
 * The order everything depends on: watch, pin, look. What is unmapped before
 * the watch is not what is pinned; what is unmapped after it is seen. Pinning
 * may itself be seen (it breaks copy-on-write), so there are some tries.
 */
static struct ibv_mr *reg_watched(struct mrcache *cache,
				  struct mrc_thread *thread, struct mr *mr,
				  const struct mr_want *want,
				  const struct mr_want *range)
{
	struct mr_hold hold;
	struct ibv_mr *ibv;
	int reason = mr->watched ? watch_again(cache, mr) : watch(cache, mr);

	if (reason >= 0)
		return reg_uncached(cache, mr, want,
				    (enum mrcache_bypass)reason);

	for (unsigned int repins = 0;; repins++) {
		ibv = verbs_reg_mr(cache, range);
		if (!ibv) {
			abandon(cache, mr);
			return NULL;
		}
		if (!is_dirty(cache, mr))
			break;
		if (repins == cache->attr.repins)
			return hand_out_uncached(cache, mr, ibv, want,
						 MRCACHE_BYPASS_UNSTABLE);
		if (!rearm(cache, mr))
			return hand_out_uncached(cache, mr, ibv, want,
						 MRCACHE_BYPASS_WATCH);
		drop_ibv(cache, ibv);
		mrc_count(cache, STAT_REPINS);
	}
	mr_take_print(cache, mr);

	pthread_mutex_lock(&cache->lock);
	if (mr_find_locked(cache, thread, want, &hold)) {
		/* Another thread was faster. */
		pthread_mutex_unlock(&cache->lock);
		drop_ibv(cache, ibv);
		abandon(cache, mr);
		return mrc_found(cache, thread, want, &hold);
	}
	if (became_dirty(cache, mr))
		reason = MRCACHE_BYPASS_UNSTABLE;
	else if (mr_publish(cache, mr, ibv, thread, &hold))
		reason = MRCACHE_BYPASS_LIMIT; /* of memory */
	pthread_mutex_unlock(&cache->lock);
	if (reason >= 0)
		return hand_out_uncached(cache, mr, ibv, want,
					 (enum mrcache_bypass)reason);
	mrc_count(cache, STAT_MISSES);
	remember(cache, thread, want, &hold, ibv);
	return ibv;
}

/* ---- whether to cache at all ------------------------------------------------ */

/*
 * Whether libibverbs' fork support is in effect. Then it makes what it registers
 * MADV_DONTFORK, and undoes that on deregistering, at the address, whatever is
 * mapped there by then. Kept idle, a registration takes its memory from
 * children; deregistered late, it gives them another's.
 *
 * ibv_is_fork_initialized() does not tell: where the kernel copies pinned pages
 * on fork it says IBV_FORK_UNNEEDED, and libibverbs before version 51 does so
 * all the same once ibv_fork_init() was called. Therefore a registration that
 * cannot be, of no memory and with access that is always refused: madvise()
 * comes first, and fails with ENOMEM; without it the kernel looks at the access
 * before anything else, and says EINVAL. The question settles the matter:
 * after a registration that was not madvise()d none ever will be, as
 * ibv_fork_init() then fails, or does nothing.
 */
static bool fork_support(struct mrcache *cache, struct ibv_pd *pd)
{
	enum mrc_fork fork = atomic_load(&cache->fork);
	/* Far from what others register: a failure there may leave its mark. */
	uintptr_t nothing = UINTPTR_MAX - 2 * (uintptr_t)sysconf(_SC_PAGESIZE);
	int saved = errno;
	struct ibv_mr *ibv;

	if (fork == MRC_FORK_UNKNOWN) {
		errno = 0;
		ibv = cache->verbs->reg_mr(pd, (void *)nothing, 1,
					   IBV_ACCESS_REMOTE_WRITE);
		if (!ibv && errno == MRC_NOT_ASKED) {
			errno = saved;
			return false;
		}
		fork = !ibv && errno == ENOMEM ? MRC_FORK_ON : MRC_FORK_OFF;
		if (ibv)
			cache->verbs->dereg_mr(ibv);
		atomic_store(&cache->fork, fork);
		errno = saved;
	}
	return fork == MRC_FORK_ON;
}

/* What forbids caching whatever the state of the cache; -1 if nothing does. */
static int never_cached(struct mrcache *cache, const struct mr_want *want)
{
	if (want->flags & MRCACHE_REG_ALONE)
		return MRCACHE_BYPASS_KIND;
	if (!cache->monitor)
		return MRCACHE_BYPASS_MONITOR;
	if (verbs_access(want) & ~CACHEABLE_ACCESS)
		return MRCACHE_BYPASS_ACCESS;
	if (!want->length || want->start + want->length < want->start)
		return MRCACHE_BYPASS_RANGE;
	if ((want->access & MRC_REMOTE_ACCESS) && !cache->attr.remote &&
	    !cache->attr.linger && !(want->access & MRC_ASKED_REMOTE))
		return MRCACHE_BYPASS_REMOTE;
	if (fork_support(cache, want->pd))
		return MRCACHE_BYPASS_FORK;
	return -1;
}

static struct mr_want range_of(struct mrcache *cache,
			       const struct mr_want *want)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	struct mr_want range = *want;
	uintptr_t end = want->start + want->length;

	if (!cache->attr.page_align || (want->flags & MRCACHE_REG_EXACT) ||
	    end > UINTPTR_MAX - page)
		return range;
	range.start &= ~(page - 1);
	range.length = ((end + page - 1) & ~(page - 1)) - range.start;
	return range;
}

/* ---- the same range again ---------------------------------------------------- */

/*
 * Who revives does not drain. What others there may be that nobody uses again is
 * to go all the same, and hits are to have a counter that says "unchanged".
 */
#define REVIVED_BEFORE_DRAIN 64

/*
 * A guess, without the lock. What may have its pages is left to a drain, which
 * finds that out of all that were hit with it.
 */
static bool may_revive(struct mrcache *cache, const struct mr_want *range)
{
	struct mr *mr = cache->states && cache->monitor->ops->renew
				? mr_find_changed(cache, range)
				: NULL;

	return mr && !mr_may_live_on(cache, mr);
}

/*
 * (lock) A registration of this very range whose memory has changed and that
 * nobody holds is taken over, with its watch: BUSY. NULL if there is none. If
 * there are more they go onto the list, which is empty; those that are held end
 * with the last hold.
 */
static struct mr *take_over(struct mrcache *cache, const struct mr_want *range,
			    struct mr **list)
{
	struct mr *doomed = NULL, *mr;

	while ((mr = mr_find_changed(cache, range)))
		mr_doom(cache, mr, true, &doomed);
	mr_sift(cache, doomed, list);
	LL_FOREACH2(*list, mr, link)
	if (mr_serves(mr, range)) {
		LL_DELETE2(*list, mr, link);
		mr_get_again(cache, mr);
		cache->revived++;
		break;
	}
	return mr;
}

/* Deregister, arm, register: nothing is read, no watch ends and none is made. */
static struct ibv_mr *revive(struct mrcache *cache, struct mrc_thread *thread,
			     struct mr *mr, const struct mr_want *want,
			     const struct mr_want *range, bool drain)
{
	struct ibv_mr *ibv;

	mr_end(cache, mr, true);
	ibv = reg_watched(cache, thread, mr, want, range);
	if (ibv && drain)
		mrc_drain(cache, false);
	return ibv;
}

/* Not found without the lock: look again under it, else register. */
struct ibv_mr *mrc_miss(struct mrcache *cache, struct mrc_thread *thread,
			const struct mr_want *want)
{
	MRC_NOT_CANCELLED;
	int reason = never_cached(cache, want);
	struct mr_want range = reason < 0 ? range_of(cache, want) : *want;
	struct mr *mr = NULL, *list = NULL;
	struct mr_hold hold;
	bool drained = true, revived = reason < 0 && may_revive(cache, &range);
	bool due;

	if (reason < 0 && !revived &&
	    mrc_generation(cache) + 1 != atomic_load(&cache->hot->drained))
		drained = mrc_drain(cache, !cache->states) || cache->states;

	pthread_mutex_lock(&cache->lock);
	if (reason < 0 && drained &&
	    mr_find_locked(cache, thread, want, &hold)) {
		pthread_mutex_unlock(&cache->lock);
		return mrc_found(cache, thread, want, &hold);
	}
	if (revived)
		mr = take_over(cache, &range, &list);
	revived = mr;
	due = cache->revived % REVIVED_BEFORE_DRAIN == 0;
	if (!mr)
		mr = mr_get(cache, &range);
	if (mr && reason < 0 && !revived) {
		if (mr_make_room(cache, range.length, &list)) {
			mr_account(cache, mr);
			if (cache->contain)
				mr_supersede(cache, &range, &list);
		} else {
			reason = MRCACHE_BYPASS_LIMIT;
		}
	}
	pthread_mutex_unlock(&cache->lock);
	mr_release(cache, list);
	if (!mr)
		return reg_unknown(cache, want, reason);
	if (reason >= 0)
		return reg_uncached(cache, mr, want,
				    (enum mrcache_bypass)reason);
	if (revived)
		return revive(cache, thread, mr, want, &range, due);
	return reg_watched(cache, thread, mr, want, &range);
}
