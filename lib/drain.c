/* SPDX-License-Identifier: BSD-2-Clause */
#include "drain.h"

#include "log.h"
#include "verify.h"

#include <errno.h>

#define COOKIES 128

/*
 * A monitor that never says "empty" must not hold us for ever; this is far
 * more than there can be reports.
 */
#define ROUNDS (1u << 20)

/* (lock) */
static void on_event(struct mrcache *cache, uint64_t cookie, struct mr **doomed)
{
	struct mr *mr = mr_of_cookie(cache, cookie);

	mrc_count(cache, STAT_EVENTS);
	/*
	 * Untouched: the event is from an earlier use of mr, or from before it
	 * was armed again, and was on its way here while that changed.
	 */
	if (!mr || (cache->states && mr_is_untouched(cache, mr)))
		return;
	switch (mr->state) {
	case MR_BUSY: /* who registers it looks at the word, if there is one */
		if (!cache->states)
			mr->hit = true;
		break;
	case MR_LIVE:
		mr_doom(cache, mr, true, doomed);
		break;
	case MR_DOOMED: /* by a flush, say, and its holder still asks */
		mr_mark_stale(cache, mr);
		break;
	case MR_FREE:
	case MR_RELEASING:
		break;
	}
}

typedef void mr_sift_fn(struct mrcache *cache, struct mr *doomed,
			struct mr **list);

/* With drain_lock; what is to be released afterwards goes onto the list. */
static int drain(struct mrcache *cache, mr_sift_fn *sift, struct mr **list)
{
	struct mrc_monitor *monitor = cache->monitor;
	uint64_t cookies[COOKIES];
	uint64_t generation = 0;
	bool empty = false;

	mrc_count(cache, STAT_DRAINS);
	for (unsigned int round = 0; !empty && round < ROUNDS; round++) {
		struct mr *doomed = NULL;
		int n = monitor->ops->read(monitor, cookies, COOKIES,
					   &generation, &empty);

		if (n < 0)
			return n;
		pthread_mutex_lock(&cache->lock);
		for (int i = 0; i < n; i++)
			on_event(cache, cookies[i], &doomed);
		if (empty)
			/*
			 * After everything up to generation is doomed; pairs
			 * with the acquire in mr_is_usable().
			 */
			atomic_store_explicit(&cache->hot->drained,
					      generation + 1,
					      memory_order_release);
		sift(cache, doomed, list);
		pthread_mutex_unlock(&cache->lock);
	}
	return empty ? 0 : -ELOOP;
}

static bool drain_with(struct mrcache *cache, bool wait, mr_sift_fn *sift)
{
	struct mr *list = NULL;
	int ret;

	if (wait)
		pthread_mutex_lock(&cache->drain_lock);
	else if (pthread_mutex_trylock(&cache->drain_lock))
		return true;
	ret = drain(cache, sift, &list);
	pthread_mutex_unlock(&cache->drain_lock);
	mr_release(cache, mr_verify(cache, list));
	if (ret && mrc_once(cache, ONCE_MONITOR))
		mrc_log(&cache->attr, MRCACHE_LOG_ERROR,
			"monitor %s: cannot read events: %s",
			cache->monitor->name, mrcache_strerror(ret));
	return !ret;
}

bool mrc_drain(struct mrcache *cache, bool wait)
{
	return drain_with(cache, wait, mr_sift);
}

bool mrc_drain_aside(struct mrcache *cache)
{
	bool drained = drain_with(cache, true, mr_sift_later);

	mr_release(cache, mr_verify(cache, mr_sift_aside(cache)));
	return drained;
}
