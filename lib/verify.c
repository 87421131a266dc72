/* SPDX-License-Identifier: BSD-2-Clause */
#include "verify.h"

#include "evict.h"
#include "lookup.h"
#include "retire.h"

/* Access with which an adapter may write: its pages must be writable. */
#define WRITES                                              \
	(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | \
	 IBV_ACCESS_REMOTE_ATOMIC)

/*
 * One that was the same pays for so many that are not. The balance has these
 * limits; at the lower one only one in so many is asked.
 */
#define SAVED	  8
#define OVERDRAWN (-8)
#define RICH	  1016
#define RARELY	  64

static bool can_verify(const struct mrcache *cache)
{
	return cache->attr.fingerprint && cache->states &&
	       cache->monitor->ops->verify;
}

static bool writes(struct mr *mr)
{
	return atomic_load(&mr->access) & WRITES;
}

/* Whether what hit it may have left its pages. */
static bool is_alarm(struct mrcache *cache, struct mr *mr)
{
	struct mrc_watch watch = {atomic_load(&mr->slot),
				  atomic_load(&mr->armed)};

	if (!can_verify(cache) ||
	    !cache->monitor->ops->is_alarm(cache->monitor, &watch))
		return false;
	if (!atomic_load_explicit(&cache->alarmed, memory_order_relaxed))
		atomic_store_explicit(&cache->alarmed, true,
				      memory_order_relaxed);
	return true;
}

bool mr_may_live_on(struct mrcache *cache, struct mr *mr)
{
	return is_alarm(cache, mr) && atomic_load(&mr->has_print);
}

/*
 * Looking at the pages costs up to half of registering them. So none is looked at
 * before there was an alarm, and few while nearly all alarms are true.
 */
static bool is_worth_it(struct mrcache *cache)
{
	if (!atomic_load_explicit(&cache->alarmed, memory_order_relaxed))
		return false;
	return atomic_load_explicit(&cache->balance, memory_order_relaxed) >
		       OVERDRAWN ||
	       atomic_fetch_add_explicit(&cache->asked, 1,
					 memory_order_relaxed) %
			       RARELY ==
		       0;
}

void mr_take_print(struct mrcache *cache, struct mr *mr)
{
	struct mrc_print print = {
		.cookie = mr_cookie(mr),
		.writes = writes(mr),
		.watch = {atomic_load(&mr->slot), atomic_load(&mr->armed)},
	};
	bool taken = can_verify(cache) && is_worth_it(cache) &&
		     !cache->monitor->ops->fingerprint(cache->monitor, &print);

	atomic_store(&mr->has_print, taken);
	mr->print = print.fingerprint;
}

/*
 * (lock) RELEASING to LIVE, unless it was hit since it was armed anew, somebody
 * has asked for its end, or it is not needed any more. What is evicted for it
 * goes onto the list.
 */
static bool put_back(struct mrcache *cache, struct mr *mr, struct mr **list)
{
	const struct mr_want same = {
		.pd = atomic_load(&mr->pd),
		.start = atomic_load(&mr->start),
		.length = atomic_load(&mr->length),
		.access = atomic_load(&mr->access),
	};
	struct mr_hold hold;

	/*
	 * Before it can be found: an event that was read while it was RELEASING
	 * has doomed nothing, but the word says it (I5).
	 */
	if (!mr_is_untouched(cache, mr) || mr->retired <= cache->flushed)
		return false;
	if (mr_find_locked(cache, NULL, &same, &hold)) {
		mr_hold_sub(cache, &hold);
		return false;
	}
	if (!mr_make_room(cache, same.length, list))
		return false;
	/* Even to even, as mr_put(): who has the life of its last use can tell. */
	atomic_fetch_add(&mr->life, 2);
	if (mr_publish(cache, mr, atomic_load(&mr->ibv), NULL, &hold))
		return false;
	mr_hold_sub(cache, &hold);
	mr_account(cache, mr);
	mr->stale = false;
	pthread_cond_broadcast(&cache->released);
	return true;
}

/* (lock) What verifying has shown. */
static void learn(struct mrcache *cache, bool same)
{
	int32_t balance =
		atomic_load_explicit(&cache->balance, memory_order_relaxed);

	mrc_count(cache, same ? STAT_VERIFIED : STAT_REFUTED);
	if (same && balance < RICH)
		balance += SAVED;
	else if (!same && balance > OVERDRAWN)
		balance--;
	atomic_store_explicit(&cache->balance, balance, memory_order_relaxed);
}

/* Verifies those of a batch; what goes onto the list is to be released. */
static void verify_batch(struct mrcache *cache, struct mr **mrs,
			 struct mrc_print *prints, size_t n, struct mr **list)
{
	struct mr *evicted = NULL;
	size_t i;

	if (cache->monitor->ops->verify(cache->monitor, prints, n))
		for (i = 0; i < n; i++)
			prints[i].same = false;
	pthread_mutex_lock(&cache->lock);
	for (i = 0; i < n; i++) {
		struct mr *mr = mrs[i];

		/* RELEASING: nobody compares them (I2). */
		if (prints[i].same) {
			atomic_store(&mr->slot, prints[i].watch.slot);
			atomic_store(&mr->armed, prints[i].watch.armed);
			prints[i].same = put_back(cache, mr, &evicted);
		}
		learn(cache, prints[i].same);
		if (!prints[i].same) {
			mr->link = *list;
			*list = mr;
		}
	}
	pthread_mutex_unlock(&cache->lock);
	mr_release(cache, evicted);
}

static struct mrc_print question(struct mr *mr)
{
	return (struct mrc_print){
		.cookie = mr_cookie(mr),
		.fingerprint = mr->print,
		.writes = writes(mr),
	};
}

struct mr *mr_verify(struct mrcache *cache, struct mr *list)
{
	struct mrc_print prints[MRC_PRINTS];
	struct mr *mrs[MRC_PRINTS], *rest = NULL;
	size_t n = 0;

	if (!can_verify(cache))
		return list;
	while (list) {
		struct mr *mr = list;

		list = mr->link;
		if (!mr->stale || !mr_may_live_on(cache, mr)) {
			mr->link = rest;
			rest = mr;
			continue;
		}
		mrs[n] = mr;
		prints[n++] = question(mr);
		if (n == MRC_PRINTS) {
			verify_batch(cache, mrs, prints, n, &rest);
			n = 0;
		}
	}
	if (n)
		verify_batch(cache, mrs, prints, n, &rest);
	return rest;
}

/* (lock) DOOMED and stale, if it is held; what is not goes onto the list. */
static void doom_held(struct mrcache *cache, struct mr *mr, struct mr **list)
{
	struct mr *doomed = NULL;

	if (mr->state == MR_LIVE)
		mr_doom(cache, mr, true, &doomed);
	else if (mr->state == MR_DOOMED)
		mr_mark_stale(cache, mr);
	mr_sift(cache, doomed, list);
}

bool mr_verify_held(struct mrcache *cache, struct mr *mr)
{
	struct mr *list = NULL;
	struct mrc_print print;
	uint64_t life;
	bool held, same;

	pthread_mutex_lock(&cache->lock);
	doom_held(cache, mr, &list);
	held = mr->state == MR_DOOMED;
	life = atomic_load(&mr->life);
	print = question(mr);
	pthread_mutex_unlock(&cache->lock);
	mr_release(cache, list);
	if (!held)
		return false;

	same = !cache->monitor->ops->verify(cache->monitor, &print, 1) &&
	       print.same;
	pthread_mutex_lock(&cache->lock);
	/* Its holder has it, or this is a use of it that is over. */
	same = same && mr->stale && atomic_load(&mr->life) == life;
	if (same) {
		/* DOOMED: nobody compares them (I2). */
		atomic_store(&mr->slot, print.watch.slot);
		atomic_store(&mr->armed, print.watch.armed);
		same = mr_is_untouched(cache, mr);
	}
	if (same)
		mr_unmark_stale(cache, mr);
	else
		atomic_store(&mr->has_print, false); /* asked once */
	learn(cache, same);
	pthread_mutex_unlock(&cache->lock);
	return same;
}
