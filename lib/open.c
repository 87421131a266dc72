/* SPDX-License-Identifier: BSD-2-Clause */
/* Opening and closing a cache, and what it says of itself. */
#include "open.h"

#include "cancel.h"
#include "config.h"
#include "flush.h"
#include "fork.h"
#include "log.h"
#include "pool.h"
#include "publish.h"
#include "reaper.h"
#include "thread.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* With a time limit for remote keys there must be somebody to keep it. */
static void start_reaper(struct mrcache *cache)
{
	struct mrcache_attr *attr = &cache->attr;
	int ret;

	if (attr->remote)
		attr->linger = 0;
	if (!cache->monitor || !(attr->reaper || attr->linger))
		return;
	ret = mrc_reaper_start(cache);
	if (ret) {
		mrc_log(attr, MRCACHE_LOG_WARN, "no reaper thread: %s",
			/* NOLINTNEXTLINE(concurrency-mt-unsafe): glibc's is safe */
			strerror(-ret));
		attr->linger = 0;
	}
}

struct mrcache *mrc_open_with(const struct mrcache_attr *attr,
			      struct mrc_monitor *monitor,
			      const struct mrc_verbs *verbs,
			      struct mrc_counters *counters)
{
	struct mrcache *cache =
		aligned_alloc(_Alignof(struct mrcache), sizeof(*cache));

	if (!cache)
		goto err_monitor;
	*cache = (struct mrcache){
		.attr = *attr,
		.contain = attr->contain,
		.monitor = monitor,
		.verbs = verbs,
		.expedited = mrc_fence_init(),
		.hot = mrc_hot_new(),
		.counters = counters ? counters : mrc_counters_new(),
	};
	if (!cache->hot || !cache->counters)
		goto err_hot;
	if (mrc_index_init(&cache->by_range))
		goto err_hot;
	if (mrc_index_init(&cache->by_ibv))
		goto err_by_range;
	pthread_mutex_init(&cache->lock, NULL);
	pthread_mutex_init(&cache->drain_lock, NULL);
	pthread_cond_init(&cache->released, NULL);
	cache->states = monitor ? monitor->states : NULL;
	cache->head.quiet = &cache->hot->quiet;
	cache->head.generation =
		monitor ? monitor->generation : &mrc_no_generation;
	/* Nothing is watched yet, so nothing that has happened matters. */
	atomic_store(&cache->hot->drained, mrc_generation(cache) + 1);
	cache->hot->quiet = atomic_load(&cache->hot->drained);
	atomic_store(&cache->open, true);
	start_reaper(cache);
	mrc_fork_register(cache);
	return cache;

err_by_range:
	mrc_index_fini(&cache->by_range);
err_hot:
	mrc_hot_free(cache->hot);
	if (cache->counters != counters)
		mrc_counters_free(cache->counters);
	free(cache);
err_monitor:
	mrc_counters_free(counters);
	if (monitor)
		monitor->ops->close(monitor);
	errno = ENOMEM;
	return NULL;
}

struct mrcache *mrc_open_device(const struct mrcache_attr *given,
				const struct mrc_verbs *verbs,
				struct mrc_counters *counters)
{
	MRC_NOT_CANCELLED;
	struct mrc_monitor *monitor = NULL;
	struct mrcache_attr attr;
	int ret = 0;

	if (given)
		ret = mrc_attr_take(&attr, given);
	else
		mrcache_attr_init(&attr);
	if (!ret)
		ret = mrc_config_program(&attr);
	/* Said; the program is not to fail for it. */
	if (!ret && mrc_config_environment(&attr))
		attr.monitor = "none";
	if (ret) {
		mrc_counters_free(counters);
		errno = -ret;
		return NULL;
	}
	if (strcmp(attr.monitor, "none")) {
		ret = mrc_monitor_ummunotify(
			&monitor, attr.device,
			!strcmp(attr.monitor, "ummunotify-2010"));
		if (ret && strcmp(attr.monitor, "auto")) {
			mrc_log(&attr, MRCACHE_LOG_ERROR, "%s: %s", attr.device,
				mrcache_strerror(ret));
			mrc_counters_free(counters);
			errno = -ret;
			return NULL;
		}
		if (ret)
			mrc_log(&attr, MRCACHE_LOG_WARN,
				"%s: %s; nothing is cached", attr.device,
				mrcache_strerror(ret));
	}
	return mrc_open_with(&attr, monitor, verbs, counters);
}

/* (lock) What somebody has, or is about to get. */
static int count_all_held(struct mrcache *cache)
{
	struct mrc_pd *entry, *next;
	int held = 0;

	mrc_fence_heavy(cache);
	HASH_ITER(hh, cache->pds, entry, next)
	held += mrc_count_held(cache, entry);
	return held;
}

/* Ends all that is idle, also what callbacks register meanwhile; how many are held. */
static int end_all(struct mrcache *cache)
{
	for (int round = 0; round < MRC_MOST_ROUNDS; round++) {
		struct mr *doomed = NULL, *list = NULL;
		struct mrc_pd *entry, *next;
		bool any;
		int held;

		pthread_mutex_lock(&cache->lock);
		held = count_all_held(cache);
		if (!held)
			HASH_ITER(hh, cache->pds, entry, next)
		mrc_doom_all(cache, entry, &doomed);
		mr_sift(cache, doomed, &list);
		pthread_mutex_unlock(&cache->lock);
		any = list;
		mr_release(cache, list);
		if (held || !any)
			return held;
	}
	return 1;
}

int mrcache_close(struct mrcache *cache)
{
	MRC_NOT_CANCELLED;
	struct mrc_hot *hot;
	int held;
	bool owner;

	if (!cache || !atomic_load(&cache->open))
		return -EINVAL;
	owner = mrc_is_owner(cache);
	if (owner) {
		pthread_mutex_lock(&cache->lock);
		held = count_all_held(cache);
		pthread_mutex_unlock(&cache->lock);
		if (held)
			return -EBUSY;

		mrc_reaper_stop(cache);
		if (end_all(cache)) {
			start_reaper(cache);
			return -EBUSY;
		}
	}

	/* In a child made without our handlers they may be locked for ever. */
	if (owner) {
		mrc_fork_closing(cache);
		pthread_mutex_lock(&cache->lock);
	}
	atomic_store(&cache->open, false);
	hot = cache->hot;
	cache->hot = &mrc_no_hot;
	cache->head.quiet = &mrc_no_hot.quiet;
	cache->head.generation = &mrc_no_generation;
	cache->states = NULL;
	if (owner)
		pthread_mutex_unlock(&cache->lock);
	/* A thread that ends sees that it is closed, and leaves its record. */
	mrc_threads_fini(cache);

	if (cache->monitor)
		cache->monitor->ops->close(cache->monitor);
	cache->monitor = NULL;
	/* In a child it is left: its parent's other threads may have been in it. */
	if (owner)
		mrc_pds_fini(cache);
	mrc_index_fini(&cache->by_range);
	mrc_index_fini(&cache->by_ibv);
	for (unsigned int chunk = 0; chunk < MRC_CHUNKS; chunk++)
		free(atomic_exchange(&cache->chunks[chunk], NULL));
	publish_closed(cache);
	mrc_counters_free(cache->counters);
	cache->counters = NULL;
	mrc_hot_free(hot);
	if (owner)
		mrc_fork_unregister(cache);
	return 0;
}

int mrcache_get_stats(struct mrcache *cache, struct mrcache_stats *stats,
		      size_t size)
{
	struct mrcache_stats all;
	struct mrc_thread *thread;

	/* So much more than there is cannot be a later version's. */
	if (!cache || !stats || !size || size > 16 * sizeof(all) ||
	    !atomic_load(&cache->open))
		return -EINVAL;
	mrc_counters_read(cache->counters, &all);
	for (thread = atomic_load(&cache->threads); thread;
	     thread = thread->next)
		all.hits += atomic_load_explicit(&thread->own_hits,
						 memory_order_relaxed);
	memset(stats, 0, size);
	memcpy(stats, &all, size < sizeof(all) ? size : sizeof(all));
	return 0;
}

const char *mrcache_monitor(const struct mrcache *cache)
{
	return cache && cache->monitor ? cache->monitor->name : "none";
}
