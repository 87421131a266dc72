/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The public calls. mrcache_reg_mr() and mrcache_dereg_mr() first look at what
 * the thread used recently, then at the index, both without a lock; the rest
 * of this file is what happens when that is not enough.
 */
#include "mr.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Access flags that are understood well enough to be cached. */
#define CACHEABLE_ACCESS                              \
	(IBV_ACCESS_LOCAL_WRITE | MRC_REMOTE_ACCESS | \
	 IBV_ACCESS_RELAXED_ORDERING)

/* How much is evicted when ibv_reg_mr() finds no memory: a part of the whole. */
#define EVICT_PART 8

/* ---- open and close --------------------------------------------------------- */

/* All caches, closed ones too: they stay, so that using one is an error. */
static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct mrcache *registry;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

/* What a closed cache's head points to; mrcache_valid() is false then. */
static const uint64_t no_generation;
static struct mrc_hot no_hot;
/* Where a child counts: the parent's counters may be shared memory. */
static struct mrc_counters child_counters;

static void before_fork(void)
{
	pthread_mutex_lock(&registry_lock);
	for (struct mrcache *cache = registry; cache; cache = cache->next) {
		pthread_mutex_lock(&cache->drain_lock);
		pthread_mutex_lock(&cache->lock);
	}
}

static void after_fork(void)
{
	for (struct mrcache *cache = registry; cache; cache = cache->next) {
		pthread_mutex_unlock(&cache->lock);
		pthread_mutex_unlock(&cache->drain_lock);
	}
	pthread_mutex_unlock(&registry_lock);
}

static void after_fork_in_child(void)
{
	for (struct mrcache *cache = registry; cache; cache = cache->next) {
		/* Done by the kernel already, unless it lacks MADV_WIPEONFORK. */
		if (cache->hot != &no_hot)
			memset(cache->hot, 0, sizeof(*cache->hot));
		cache->counters = &child_counters;
		mrc_reaper_forget(cache);
	}
	after_fork();
}

static void set_fork_handlers(void)
{
	pthread_atfork(before_fork, after_fork, after_fork_in_child);
}

static struct mrc_hot *new_hot(void)
{
	size_t size = (size_t)sysconf(_SC_PAGESIZE);
	struct mrc_hot *hot = mmap(NULL, size, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (hot == MAP_FAILED)
		return NULL;
	madvise(hot, size, MADV_WIPEONFORK);
	hot->alive = 1;
	return hot;
}

static void free_hot(struct mrc_hot *hot)
{
	if (hot)
		munmap(hot, (size_t)sysconf(_SC_PAGESIZE));
}

static struct mrc_counters *new_counters(void)
{
	void *memory =
		mmap(NULL, sizeof(struct mrc_counters), PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

static void free_counters(struct mrc_counters *counters)
{
	if (counters && counters != &child_counters)
		munmap(counters, sizeof(*counters));
}

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
		.fork_unneeded = verbs->fork_status() == IBV_FORK_UNNEEDED,
		.hot = new_hot(),
		.counters = counters ? counters : new_counters(),
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
	cache->head.generation = monitor ? monitor->generation : &no_generation;
	/* Nothing is watched yet, so nothing that has happened matters. */
	atomic_store(&cache->hot->drained, mrc_generation(cache) + 1);
	cache->hot->quiet = atomic_load(&cache->hot->drained);
	atomic_store(&cache->open, true);
	start_reaper(cache);
	pthread_once(&fork_once, set_fork_handlers);
	pthread_mutex_lock(&registry_lock);
	cache->next = registry;
	registry = cache;
	pthread_mutex_unlock(&registry_lock);
	return cache;

err_by_range:
	mrc_index_fini(&cache->by_range);
err_hot:
	free_hot(cache->hot);
	if (cache->counters != counters)
		free_counters(cache->counters);
	free(cache);
err_monitor:
	free_counters(counters);
	if (monitor)
		monitor->ops->close(monitor);
	errno = ENOMEM;
	return NULL;
}

struct mrcache *mrc_open_device(const struct mrcache_attr *given,
				const struct mrc_verbs *verbs,
				struct mrc_counters *counters)
{
	struct mrc_monitor *monitor = NULL;
	struct mrcache_attr attr;
	int ret;

	if (given)
		attr = *given;
	else
		mrcache_attr_init(&attr);
	ret = mrc_config(&attr);
	if (ret) {
		free_counters(counters);
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
			free_counters(counters);
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

/* (lock) */
static void doom_all(struct mrcache *cache, const struct mrc_pd *entry,
		     struct mr **doomed)
{
	struct mr *mr;

	DL_FOREACH(entry->mrs, mr)
	if (mr->state == MR_LIVE)
		mr_doom(cache, mr, false, doomed);
}

/* (lock) Those that somebody has, or is about to get. */
static int count_held(struct mrcache *cache, const struct mrc_pd *entry)
{
	struct mr *mr;
	int held = 0;

	DL_FOREACH(entry->mrs, mr)
	if (mr->state == MR_BUSY || mr->state == MR_DOOMED ||
	    (mr->state == MR_LIVE && mr_is_held(cache, mr)))
		held++;
	return held;
}

int mrcache_close(struct mrcache *cache)
{
	struct mrc_pd *entry, *next;
	struct mr *doomed = NULL, *list = NULL;
	struct mrc_hot *hot;
	int held = 0;
	bool owner;

	if (!cache || !atomic_load(&cache->open))
		return -EINVAL;
	owner = mrc_is_owner(cache);
	if (owner) {
		pthread_mutex_lock(&cache->lock);
		mrc_fence_heavy(cache);
		HASH_ITER(hh, cache->pds, entry, next)
		held += count_held(cache, entry);
		pthread_mutex_unlock(&cache->lock);
		if (held)
			return -EBUSY;

		mrc_reaper_stop(cache);
		pthread_mutex_lock(&cache->lock);
		HASH_ITER(hh, cache->pds, entry, next)
		doom_all(cache, entry, &doomed);
		mr_sift(cache, doomed, &list);
		pthread_mutex_unlock(&cache->lock);
		mr_release(cache, list);
	}

	/* In a child made without our handlers it may be locked for ever. */
	if (owner)
		pthread_mutex_lock(&cache->lock);
	atomic_store(&cache->open, false);
	hot = cache->hot;
	cache->hot = &no_hot;
	cache->head.quiet = &no_hot.quiet;
	cache->head.generation = &no_generation;
	cache->states = NULL;
	mrc_threads_fini(cache);
	if (owner)
		pthread_mutex_unlock(&cache->lock);

	if (cache->monitor)
		cache->monitor->ops->close(cache->monitor);
	cache->monitor = NULL;
	HASH_ITER(hh, cache->pds, entry, next)
	{
		/* Only in a child: the registrations are the parent's. */
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): not next */
		HASH_DEL(cache->pds, entry);
		free(entry);
	}
	mrc_index_fini(&cache->by_range);
	mrc_index_fini(&cache->by_ibv);
	for (unsigned int chunk = 0; chunk < MRC_CHUNKS; chunk++)
		free(atomic_exchange(&cache->chunks[chunk], NULL));
	free_counters(cache->counters);
	cache->counters = NULL;
	free_hot(hot);
	return 0;
}

/* ---- registering --------------------------------------------------------------- */

/*
 * Where a thread remembers what served a request: under the range itself, or
 * what served as part of it, under the block that it was found by, so that one
 * entry does for all of a large registration.
 */
static inline uint64_t range_key(uintptr_t start, size_t length)
{
	return start ^ length;
}

static inline uint64_t block_key(uintptr_t start, unsigned int order)
{
	return (start >> order) ^ (uint64_t)(order + 1) << 56;
}

static inline void remember(const struct mrcache *cache,
			    struct mrc_thread *thread,
			    const struct mr_want *want,
			    const struct mr_hold *hold, struct ibv_mr *ibv)
{
	const struct mrc_recent recent = {hold->mr, hold->count};
	uint64_t key = range_key(want->start, want->length);

	if (!thread || !hold->count)
		return;
	if (cache->contain && !mr_serves(hold->mr, want)) {
		thread->order = mr_order(hold->mr);
		key = block_key(want->start, thread->order);
	}
	*mrc_recent(thread->ranges, key) = recent;
	*mrc_recent(thread->ibvs, (uintptr_t)ibv) = recent;
}

static inline void count_hit(struct mrc_thread *thread)
{
	atomic_store_explicit(
		thread->hits,
		atomic_load_explicit(thread->hits, memory_order_relaxed) + 1,
		memory_order_relaxed);
}

/* What a hit does once it holds, when it was found the long way. */
static inline struct ibv_mr *hit(struct mrcache *cache,
				 struct mrc_thread *thread,
				 const struct mr_want *want,
				 const struct mr_hold *hold)
{
	struct ibv_mr *ibv =
		atomic_load_explicit(&hold->mr->ibv, memory_order_relaxed);

	mr_reference(hold->mr);
	remember(cache, thread, want, hold, ibv);
	if (thread)
		count_hit(thread);
	else
		mrc_count(cache, STAT_OTHER_HITS);
	return ibv;
}

/*
 * ibv_reg_mr(); when memory is short or the lock limit is reached, idle
 * registrations make room and it is tried again.
 */
static struct ibv_mr *verbs_reg_mr(struct mrcache *cache,
				   const struct mr_want *range)
{
	for (;;) {
		struct ibv_mr *ibv =
			cache->verbs->reg_mr(range->pd, (void *)range->start,
					     range->length, range->access);
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

void mrc_count_bypass(struct mrcache *cache, enum mrcache_bypass reason)
{
	static const char *const why[MRCACHE_BYPASS_REASONS] = {
		[MRCACHE_BYPASS_MONITOR] = "there is no monitor",
		[MRCACHE_BYPASS_ACCESS] = "its access flags cannot be cached",
		[MRCACHE_BYPASS_REMOTE] =
			"it grants remote access (MRCACHE_REMOTE=1 or MRCACHE_LINGER=milliseconds cache those)",
		[MRCACHE_BYPASS_RANGE] = "its range is empty or wraps around",
		[MRCACHE_BYPASS_MEMORY] =
			"it is of device memory, or has a hole",
		[MRCACHE_BYPASS_FORK] =
			"fork support (ibv_fork_init) is in effect",
		[MRCACHE_BYPASS_LIMIT] =
			"the cache's limits are reached and all is held",
		[MRCACHE_BYPASS_WATCH] = "the monitor cannot watch it",
		[MRCACHE_BYPASS_UNSTABLE] = "its mapping kept changing",
		[MRCACHE_BYPASS_KIND] =
			"it is not of plain memory at its own address",
	};

	mrc_count(cache, STAT_BYPASS + (enum mrc_stat)reason);
	/* Without a monitor it was said at open. */
	if (reason != MRCACHE_BYPASS_MONITOR &&
	    mrc_once(cache, ONCE_BYPASS + reason))
		mrc_log(&cache->attr, MRCACHE_LOG_WARN,
			"a registration was not cached: %s (said once, counted)",
			why[reason]);
}

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

/* Hands ibv, made for the BUSY mr, to this one caller. */
static struct ibv_mr *hand_out_uncached(struct mrcache *cache, struct mr *mr,
					struct ibv_mr *ibv,
					enum mrcache_bypass reason)
{
	int ret;

	if (mr->watched)
		cache->monitor->ops->unwatch(cache->monitor, mr_cookie(mr));
	mr->watched = false;
	pthread_mutex_lock(&cache->lock);
	ret = mr_publish_uncached(cache, mr, ibv);
	pthread_mutex_unlock(&cache->lock);
	if (ret) {
		drop_ibv(cache, ibv);
		abandon(cache, mr);
		errno = -ret;
		return NULL;
	}
	mrc_count_bypass(cache, reason);
	return ibv;
}

/* An ordinary registration, known to the cache only to be given back. */
static struct ibv_mr *reg_uncached(struct mrcache *cache, struct mr *mr,
				   const struct mr_want *want,
				   enum mrcache_bypass reason)
{
	struct ibv_mr *ibv = verbs_reg_mr(cache, want);

	if (!ibv) {
		abandon(cache, mr);
		return NULL;
	}
	return hand_out_uncached(cache, mr, ibv, reason);
}

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
		mr_evict(cache, 0, 1 + mrc_get(cache, STAT_CACHED) / EVICT_PART,
			 &list);
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

/* Whether the BUSY mr was hit since it was armed. */
static bool is_dirty(struct mrcache *cache, struct mr *mr)
{
	bool hit;

	if (cache->states && !mr_is_untouched(cache, mr))
		return true;
	if (!cache->states &&
	    mrc_generation(cache) + 1 != atomic_load(&cache->hot->drained) &&
	    !mrc_drain(cache, true))
		return true;
	pthread_mutex_lock(&cache->lock);
	hit = mr->hit;
	pthread_mutex_unlock(&cache->lock);
	return hit;
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
	int reason = watch(cache, mr);

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
			return hand_out_uncached(cache, mr, ibv,
						 MRCACHE_BYPASS_UNSTABLE);
		if (!rearm(cache, mr))
			return hand_out_uncached(cache, mr, ibv,
						 MRCACHE_BYPASS_WATCH);
		drop_ibv(cache, ibv);
		mrc_count(cache, STAT_REPINS);
	}

	pthread_mutex_lock(&cache->lock);
	if (mr_find_locked(cache, thread, want, &hold)) {
		/* Another thread was faster. */
		pthread_mutex_unlock(&cache->lock);
		drop_ibv(cache, ibv);
		abandon(cache, mr);
		return hit(cache, thread, want, &hold);
	}
	/* Without state words an event may have come since is_dirty(). */
	if (mr->hit)
		reason = MRCACHE_BYPASS_UNSTABLE;
	else if (mr_publish(cache, mr, ibv, thread, &hold))
		reason = MRCACHE_BYPASS_LIMIT; /* of memory */
	pthread_mutex_unlock(&cache->lock);
	if (reason >= 0)
		return hand_out_uncached(cache, mr, ibv,
					 (enum mrcache_bypass)reason);
	mrc_count(cache, STAT_MISSES);
	remember(cache, thread, want, &hold, ibv);
	return ibv;
}

/* What forbids caching whatever the state of the cache; -1 if nothing does. */
static int never_cached(struct mrcache *cache, const struct mr_want *want)
{
	if (!cache->monitor)
		return MRCACHE_BYPASS_MONITOR;
	if (want->access & ~CACHEABLE_ACCESS)
		return MRCACHE_BYPASS_ACCESS;
	if (!want->length || want->start + want->length < want->start)
		return MRCACHE_BYPASS_RANGE;
	if ((want->access & MRC_REMOTE_ACCESS) && !cache->attr.remote &&
	    !cache->attr.linger)
		return MRCACHE_BYPASS_REMOTE;
	/* It would madvise() memory that has gone when we deregister. */
	if (!cache->fork_unneeded &&
	    cache->verbs->fork_status() == IBV_FORK_ENABLED)
		return MRCACHE_BYPASS_FORK;
	return -1;
}

static struct mr_want range_of(struct mrcache *cache,
			       const struct mr_want *want)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	struct mr_want range = *want;
	uintptr_t end = want->start + want->length;

	if (!cache->attr.page_align || end > UINTPTR_MAX - page)
		return range;
	range.start &= ~(page - 1);
	range.length = ((end + page - 1) & ~(page - 1)) - range.start;
	return range;
}

/* Not found without the lock: look again under it, else register. */
static struct ibv_mr *reg_slow(struct mrcache *cache, struct mrc_thread *thread,
			       const struct mr_want *want)
{
	int reason = never_cached(cache, want);
	struct mr_want range = reason < 0 ? range_of(cache, want) : *want;
	struct mr *mr, *list = NULL;
	struct mr_hold hold;
	bool drained = true;

	if (reason < 0 &&
	    mrc_generation(cache) + 1 != atomic_load(&cache->hot->drained))
		drained = mrc_drain(cache, !cache->states) || cache->states;

	pthread_mutex_lock(&cache->lock);
	if (reason < 0 && drained &&
	    mr_find_locked(cache, thread, want, &hold)) {
		pthread_mutex_unlock(&cache->lock);
		return hit(cache, thread, want, &hold);
	}
	mr = mr_get(cache, &range);
	if (mr && reason < 0) {
		if (mr_make_room(cache, range.length, &list)) {
			mr->accounted = true;
			cache->regs++;
			cache->bytes += range.length;
		} else {
			reason = MRCACHE_BYPASS_LIMIT;
		}
	}
	pthread_mutex_unlock(&cache->lock);
	mr_release(cache, list);
	if (!mr) {
		errno = ENOMEM;
		return NULL;
	}
	if (reason >= 0)
		return reg_uncached(cache, mr, want,
				    (enum mrcache_bypass)reason);
	return reg_watched(cache, thread, mr, want, &range);
}

/* Looks at what the thread remembers under a key: whether that serves. */
static inline bool recall(struct mrc_thread *thread, uint64_t key,
			  mr_serves_fn *serves, const struct mr_want *want,
			  struct mr_hold *hold)
{
	const struct mrc_recent *recent = mrc_recent(thread->ranges, key);

	hold->mr = recent->mr;
	hold->count = recent->count;
	if (!hold->count)
		return false;
	hold->life =
		atomic_load_explicit(&hold->mr->life, memory_order_acquire);
	return (hold->life & 1) && serves(hold->mr, want);
}

static inline struct ibv_mr *recalled(struct mrc_thread *thread, struct mr *mr)
{
	count_hit(thread);
	mr_reference(mr);
	return atomic_load_explicit(&mr->ibv, memory_order_relaxed);
}

/* A child knows nothing of its own registrations and needs not to. */
static struct ibv_mr *reg_in_child(struct mrcache *cache,
				   const struct mr_want *want)
{
	mrc_count_bypass(cache, MRCACHE_BYPASS_FORK);
	return cache->verbs->reg_mr(want->pd, (void *)want->start, want->length,
				    want->access);
}

/* No registration of this very range is known. */
static __attribute__((noinline)) struct ibv_mr *
reg_unknown(struct mrcache *cache, struct mrc_thread *thread, struct ibv_pd *pd,
	    uintptr_t start, size_t length, int access)
{
	struct mr_want want = {pd, start, length, access};
	struct mr_hold hold;

	if (!mrc_is_owner(cache))
		return reg_in_child(cache, &want);
	if (cache->contain && length &&
	    mr_find_larger(cache, thread, &want, &hold))
		return hit(cache, thread, &want, &hold);
	return reg_slow(cache, thread, &want);
}

/*
 * Not what the thread used recently for this very range. `dropped`, if not
 * NULL, was held in vain, and has been doomed meanwhile.
 */
static __attribute__((noinline)) struct ibv_mr *
reg_other(struct mrcache *cache, struct ibv_pd *pd, void *addr, size_t length,
	  int access, struct mr *dropped)
{
	const struct mr_want want = {pd, (uintptr_t)addr, length, access};
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
		return hit(cache, thread, &want, &hold);
	return reg_unknown(cache, thread, pd, want.start, length, access);
}

/*
 * The hit that matters most. What is rare leaves by a last call with the same
 * arguments, so that no register need be saved here.
 */
struct ibv_mr *mrcache_reg_mr(struct mrcache *cache, struct ibv_pd *pd,
			      void *addr, size_t length, int access)
{
	const struct mr_want want = {pd, (uintptr_t)addr, length, access};
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
	return reg_other(cache, pd, addr, length, access, dropped);
}

/* ---- giving back ------------------------------------------------------------------ */

/* (lock) is taken; under it everything can be told apart. */
static int dereg_locked(struct mrcache *cache, struct mrc_thread *thread,
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
		mr->state = MR_RELEASING;
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
	mr_hold_drop(cache, &hold);
	return 0;
}

static int dereg_in_child(struct mrcache *cache, struct ibv_mr *ibv)
{
	/* What the parent held at fork is not ours to deregister. */
	if (mr_find_ibv_locked(cache, ibv))
		return 0;
	return cache->verbs->dereg_mr(ibv);
}

/*
 * Whether there is a hold to give back, without adding up: no thread's count is
 * negative, so one above zero means a hold unless another thread gave it back.
 */
static inline bool is_surely_held(const struct mr *mr,
				  const _Atomic int64_t *count)
{
	return atomic_load_explicit(count, memory_order_relaxed) > 0 &&
	       atomic_load_explicit(&mr->handed, memory_order_relaxed) >= 0;
}

static int dereg_other(struct mrcache *cache, struct ibv_mr *ibv)
{
	struct mrc_thread *thread = mrc_thread(cache);
	struct mr_hold hold;
	uint32_t number;

	if (!mrc_is_owner(cache))
		return dereg_in_child(cache, ibv);
	hold.mr = mr_find_ibv(cache, ibv, &hold.life, &number);
	if (!hold.mr)
		return dereg_locked(cache, thread, ibv);
	hold.count = mrc_thread_count(thread, number);
	/* Registered by another thread, or not held at all. */
	if (!(hold.count && is_surely_held(hold.mr, hold.count)) &&
	    mr_holds(cache, hold.mr) <= 0)
		return dereg_locked(cache, thread, ibv);
	if (hold.count &&
	    atomic_load_explicit(hold.count, memory_order_relaxed) <= 0)
		hold.count = NULL;
	mr_hold_drop(cache, &hold);
	return 0;
}

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
	       is_surely_held(hold->mr, hold->count);
}

int mrc_dereg_mr(struct mrcache *cache, struct ibv_mr *ibv)
{
	struct mrc_thread *thread = mrc_thread_known(cache);
	struct mr_hold hold;

	if (!thread || !recall_ibv(thread, ibv, &hold))
		return dereg_other(cache, ibv);
	mr_hold_drop(cache, &hold);
	return 0;
}

static __attribute__((noinline)) int dereg_or_complain(struct mrcache *cache,
						       struct ibv_mr *ibv)
{
	int ret;

	if (!mrc_is_open(cache) || !ibv)
		return EINVAL;
	ret = dereg_other(cache, ibv);
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

/* As mrcache_reg_mr() above, what is rare leaves by a last call. */
int mrcache_dereg_mr(struct mrcache *cache, struct ibv_mr *ibv)
{
	struct mrc_thread *thread = mrc_thread_known(cache);
	struct mr_hold hold;

	if (__builtin_expect(!thread || !recall_ibv(thread, ibv, &hold), 0))
		return dereg_or_complain(cache, ibv);
	if (__builtin_expect(mr_hold_sub(cache, &hold), 0))
		return finish(cache, hold.mr);
	return 0;
}

/* ---- the rest ------------------------------------------------------------------------ */

bool mrcache_valid_slow(struct mrcache *cache, const struct ibv_mr *ibv)
{
	struct mr *mr;
	bool valid, drained = true;
	uint32_t number;
	uint64_t life;

	if (!cache || !atomic_load(&cache->open) || !ibv ||
	    !mrc_is_owner(cache))
		return false;
	if (!cache->states && cache->monitor &&
	    mrc_generation(cache) + 1 != atomic_load(&cache->hot->drained))
		drained = mrc_drain(cache, true);
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
	return valid;
}

/* (lock) */
static bool any_releasing(const struct mrc_pd *entry)
{
	struct mr *mr;

	DL_FOREACH(entry->mrs, mr)
	if (mr->state == MR_RELEASING)
		return true;
	return false;
}

int mrc_flush_matching(struct mrcache *cache, mrc_match_fn *match,
		       const void *arg)
{
	struct mr *doomed = NULL, *list = NULL;
	struct mrc_pd *entry, *next;
	bool releasing;
	int held;

	pthread_mutex_lock(&cache->lock);
	HASH_ITER(hh, cache->pds, entry, next)
	if (match(entry, arg))
		doom_all(cache, entry, &doomed);
	mr_sift(cache, doomed, &list);
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
			held += count_held(cache, entry);
			releasing |= any_releasing(entry);
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

int mrc_unshare(struct mrcache *cache, const struct ibv_mr *ibv)
{
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

int mrcache_invalidate(struct mrcache *cache, const void *addr, size_t length)
{
	uintptr_t start = (uintptr_t)addr;
	struct mr *doomed = NULL, *list = NULL;

	if (!cache || !atomic_load(&cache->open) || !length ||
	    start + length - 1 < start)
		return -EINVAL;
	if (!mrc_is_owner(cache))
		return 0;
	pthread_mutex_lock(&cache->lock);
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

int mrcache_stats(struct mrcache *cache, struct mrcache_stats *stats,
		  size_t size)
{
	struct mrcache_stats all;
	struct mrc_thread *thread;

	if (!cache || !stats || !size || size > sizeof(all) ||
	    !atomic_load(&cache->open))
		return -EINVAL;
	mrc_counters_read(cache->counters, &all);
	for (thread = atomic_load(&cache->threads); thread;
	     thread = thread->next)
		all.hits += atomic_load_explicit(&thread->own_hits,
						 memory_order_relaxed);
	memcpy(stats, &all, size);
	return 0;
}

const char *mrcache_monitor(const struct mrcache *cache)
{
	return cache && cache->monitor ? cache->monitor->name : "none";
}
