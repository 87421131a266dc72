/* SPDX-License-Identifier: BSD-2-Clause */
/* For event loops, instead of the reaper; see mrcache-transport.h. */
#include "cancel.h"
#include "drain.h"

#include <errno.h>

int mrcache_fd(const struct mrcache *cache)
{
	if (!cache || !atomic_load(&cache->open))
		return -EINVAL;
	if (!cache->monitor || cache->monitor->fd < 0)
		return -ENODEV;
	return mrc_is_owner(cache) ? cache->monitor->fd : -ESTALE;
}

static __attribute__((noinline)) int drain_now(struct mrcache *cache)
{
	MRC_NOT_CANCELLED;

	/* If another thread is at it, that one does what is due. */
	return mrc_drain(cache, false) ? 0 : -EIO;
}

int mrcache_progress(struct mrcache *cache)
{
	if (!cache || !atomic_load(&cache->open))
		return -EINVAL;
	if (!cache->monitor || !mrc_is_owner(cache) ||
	    mrc_generation(cache) + 1 ==
		    atomic_load_explicit(&cache->hot->drained,
					 memory_order_acquire))
		return 0;
	return drain_now(cache);
}

int mrcache_on_end(struct mrcache *cache, mrcache_end_fn *fn, void *arg)
{
	MRC_NOT_CANCELLED;
	int ret = 0;

	if (!cache || !atomic_load(&cache->open))
		return -EINVAL;
	pthread_mutex_lock(&cache->lock);
	/* Published to other threads with the first registration, by the lock. */
	if (cache->made) {
		ret = -EBUSY;
	} else {
		cache->ended = fn;
		cache->ended_arg = arg;
	}
	pthread_mutex_unlock(&cache->lock);
	return ret;
}
