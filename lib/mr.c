/* SPDX-License-Identifier: BSD-2-Clause */
#include "mr.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- pool ---------------------------------------------------------------- */

struct mr *mr_of_cookie(struct mrcache *cache, uint64_t cookie)
{
	uint32_t left = cache->made;

	for (unsigned int chunk = 0; left; chunk++) {
		uintptr_t first = (uintptr_t)atomic_load_explicit(
			&cache->chunks[chunk], memory_order_relaxed);
		size_t made = mrc_chunk_size(chunk);

		if (made > left)
			made = left;
		left -= (uint32_t)made;
		if (cookie >= first &&
		    cookie - first < made * sizeof(struct mr) &&
		    (cookie - first) % sizeof(struct mr) == 0)
			return (struct mr *)(uintptr_t)cookie;
	}
	return NULL;
}

static struct mr *grow(struct mrcache *cache)
{
	uint32_t at;
	unsigned int chunk = mrc_chunk(cache->made, &at);
	struct mr *mrs;

	if (chunk >= MRC_CHUNKS)
		return NULL;
	mrs = atomic_load_explicit(&cache->chunks[chunk], memory_order_relaxed);
	if (!mrs) {
		size_t size = mrc_chunk_size(chunk) * sizeof(*mrs);

		mrs = aligned_alloc(_Alignof(struct mr), size);
		if (!mrs)
			return NULL;
		/* Pairs with the acquire in mr_of_number(). */
		atomic_store_explicit(&cache->chunks[chunk], mrs,
				      memory_order_release);
	}
	/* One by one: what is not needed yet stays untouched memory. */
	mrs[at] = (struct mr){.number = cache->made++};
	return &mrs[at];
}

static struct mrc_pd *get_pd(struct mrcache *cache, struct ibv_pd *pd)
{
	struct mrc_pd *entry;

	HASH_FIND_PTR(cache->pds, &pd, entry);
	if (!entry) {
		entry = calloc(1, sizeof(*entry));
		if (!entry)
			return NULL;
		entry->pd = pd;
		entry->context = pd->context;
		entry->handle = pd->handle;
		HASH_ADD_PTR(cache->pds, pd, entry);
		if (!entry->hh.tbl) {
			free(entry);
			return NULL;
		}
	}
	return entry;
}

static void put_pd(struct mrcache *cache, struct mrc_pd *entry)
{
	if (entry->mrs)
		return;
	HASH_DEL(cache->pds, entry);
	free(entry);
}

struct mr *mr_get(struct mrcache *cache, const struct mr_want *range)
{
	struct mrc_pd *entry = get_pd(cache, range->pd);
	struct mr *mr = cache->free;

	if (!entry)
		return NULL;
	if (mr)
		cache->free = mr->link;
	else
		mr = grow(cache);
	if (!mr) {
		put_pd(cache, entry);
		return NULL;
	}
	mr->state = MR_BUSY;
	mr->watched = mr->accounted = mr->hit = mr->stale = mr->uncached =
		false;
	mr->pd_entry = entry;
	mr->link = NULL;
	DL_APPEND(entry->mrs, mr);
	atomic_store_explicit(&mr->pd, range->pd, memory_order_relaxed);
	atomic_store_explicit(&mr->start, range->start, memory_order_relaxed);
	atomic_store_explicit(&mr->length, range->length, memory_order_relaxed);
	atomic_store_explicit(&mr->access, range->access, memory_order_relaxed);
	atomic_store_explicit(&mr->ibv, NULL, memory_order_relaxed);
	return mr;
}

static void unaccount(struct mrcache *cache, struct mr *mr)
{
	if (mr->accounted) {
		cache->regs--;
		cache->bytes -= atomic_load(&mr->length);
		mr->accounted = false;
	}
}

void mr_put(struct mrcache *cache, struct mr *mr)
{
	unaccount(cache, mr);
	if (mr->uncached)
		mrc_add(cache, STAT_UNCACHED, -1);
	DL_DELETE(mr->pd_entry->mrs, mr);
	put_pd(cache, mr->pd_entry);
	mr->pd_entry = NULL;
	mr->state = MR_FREE;
	/* Even to even: who still has the life of this use can tell (I1). */
	atomic_fetch_add(&mr->life, 2);
	mr->link = cache->free;
	cache->free = mr;
	pthread_cond_broadcast(&cache->released);
}

/* ---- what the index holds --------------------------------------------------- */

static uint32_t hash_mr(struct mr *mr)
{
	return mr_hash_range(atomic_load(&mr->pd), atomic_load(&mr->start),
			     atomic_load(&mr->length),
			     atomic_load(&mr->access));
}

/*
 * For containment a registration is filed under the blocks it touches, a block
 * being as large as the largest power of two (its order) that is not larger
 * than the registration: three at the most. A range inside it starts in one of
 * those blocks.
 */
static uint32_t hash_block(const struct ibv_pd *pd, unsigned int order,
			   uintptr_t address)
{
	return mrc_hash((uintptr_t)pd ^ (uint64_t)(order + 1) << 56,
			address >> order);
}

struct blocks {
	unsigned int order;
	uintptr_t next, last;
};

static struct blocks blocks_of(struct mr *mr)
{
	uintptr_t start = atomic_load(&mr->start);
	size_t length = atomic_load(&mr->length);
	unsigned int order = mr_order_of(length);

	return (struct blocks){order, start >> order,
			       (start + length - 1) >> order};
}

static void unpublish(struct mrcache *cache, struct mr *mr)
{
	mrc_index_remove(&cache->by_range, hash_mr(mr), mr->number);
	if (cache->contain) {
		struct blocks b = blocks_of(mr);

		for (; b.next <= b.last; b.next++)
			mrc_index_remove(
				&cache->by_range,
				hash_block(mr->pd, b.order, b.next << b.order),
				mr->number);
	}
}

static int publish(struct mrcache *cache, struct mr *mr)
{
	int ret = mrc_index_insert(&cache->by_range, hash_mr(mr), mr->number);

	if (!ret && cache->contain) {
		struct blocks b = blocks_of(mr);

		atomic_fetch_or(&cache->orders, UINT64_C(1) << b.order);
		for (; !ret && b.next <= b.last; b.next++)
			ret = mrc_index_insert(
				&cache->by_range,
				hash_block(mr->pd, b.order, b.next << b.order),
				mr->number);
	}
	if (ret)
		unpublish(cache, mr);
	return ret;
}

int mr_publish(struct mrcache *cache, struct mr *mr, struct ibv_mr *ibv,
	       struct mrc_thread *thread, struct mr_hold *hold)
{
	uint64_t life = atomic_load(&mr->life);
	int ret;

	atomic_store_explicit(&mr->ibv, ibv, memory_order_relaxed);
	ret = mrc_index_insert(&cache->by_ibv, mr_hash_ibv(ibv), mr->number);
	if (ret)
		return ret;
	ret = publish(cache, mr);
	if (ret) {
		mrc_index_remove(&cache->by_ibv, mr_hash_ibv(ibv), mr->number);
		return ret;
	}
	*hold = (struct mr_hold){mr, life + 1,
				 mrc_thread_count(thread, mr->number)};
	mr_hold_add(hold);
	atomic_store(&mr->referenced, 1);
	mr->state = MR_LIVE;
	mrc_count(cache, STAT_CACHED);
	mrc_add(cache, STAT_CACHED_BYTES, atomic_load(&mr->length));
	/* Pairs with the acquires of life: all the above is seen (I2). */
	atomic_store_explicit(&mr->life, life + 1, memory_order_release);
	return 0;
}

int mr_publish_uncached(struct mrcache *cache, struct mr *mr,
			struct ibv_mr *ibv)
{
	int ret =
		mrc_index_insert(&cache->by_ibv, mr_hash_ibv(ibv), mr->number);

	if (ret)
		return ret;
	atomic_store(&mr->ibv, ibv);
	atomic_fetch_add(&mr->handed, 1);
	unaccount(cache, mr);
	mr->uncached = true;
	mrc_count(cache, STAT_UNCACHED);
	mr->state = MR_DOOMED;
	return 0;
}

/* ---- doom and release ---------------------------------------------------------- */

/*
 * The sum of the holds. For a LIVE one it may be out of date. For a DOOMED one,
 * after mr_sift()'s fence and under the lock, it is never too small: no hold is
 * added that lasts, and one given back meanwhile calls mr_finish(), which sums
 * again (tests/model/hold.pml). `handed` comes first for the sake of a LIVE one
 * that another thread registered: what was taken from handed had been counted
 * by then, so a hold that exists is not overlooked.
 */
int64_t mr_holds(struct mrcache *cache, struct mr *mr)
{
	int64_t holds = atomic_load_explicit(&mr->handed, memory_order_acquire);
	struct mrc_thread *thread =
		atomic_load_explicit(&cache->threads, memory_order_acquire);

	for (; thread; thread = thread->next)
		holds += mrc_thread_read(thread, mr->number);
	return holds;
}

bool mr_is_held(struct mrcache *cache, struct mr *mr)
{
	return mr_holds(cache, mr) > 0;
}

static void update_quiet(struct mrcache *cache)
{
	uint64_t quiet = mrc_get(cache, STAT_STALE_HELD)
				 ? 0
				 : atomic_load(&cache->hot->drained);

	__atomic_store_n(&cache->hot->quiet, quiet, __ATOMIC_RELEASE);
}

void mr_mark_stale(struct mrcache *cache, struct mr *mr)
{
	if (mr->stale || mr->uncached)
		return;
	mrc_count(cache, STAT_INVALIDATIONS);
	mr->stale = true;
	mrc_count(
		cache,
		STAT_STALE_HELD); /* until mr_sift() or mr_finish() retires it */
}

void mr_doom(struct mrcache *cache, struct mr *mr, bool stale,
	     struct mr **doomed)
{
	unpublish(cache, mr);
	mrc_add(cache, STAT_CACHED, -1);
	mrc_add(cache, STAT_CACHED_BYTES, -atomic_load(&mr->length));
	mr->state = MR_DOOMED;
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
		mrc_add(cache, STAT_STALE_HELD, -1);
	unaccount(cache, mr);
	mr->state = MR_RELEASING;
	mrc_index_remove(&cache->by_ibv, mr_hash_ibv(atomic_load(&mr->ibv)),
			 mr->number);
	mr->link = *list;
	*list = mr;
}

void mr_sift(struct mrcache *cache, struct mr *doomed, struct mr **list)
{
	if (doomed)
		mrc_fence_heavy(cache); /* between life and counts (I4) */
	while (doomed) {
		struct mr *mr = doomed;

		doomed = mr->link;
		mr->link = NULL;
		if (!mr_is_held(cache, mr))
			retire(cache, mr, list);
	}
	update_quiet(cache);
}

void mr_finish(struct mrcache *cache, struct mr *mr)
{
	struct mr *list = NULL;

	/* A child tries the hits of its parent, in vain, and must not go on. */
	if (!mrc_is_owner(cache))
		return;
	pthread_mutex_lock(&cache->lock);
	/*
	 * Whichever use it is now: the hold given back may be one that was added
	 * for an earlier use and, seen beside the doom of this one, kept it.
	 */
	if (mr->state == MR_DOOMED && !mr->uncached && !mr_is_held(cache, mr)) {
		retire(cache, mr, &list);
		update_quiet(cache);
	}
	pthread_mutex_unlock(&cache->lock);
	mr_release(cache, list);
}

void mr_release(struct mrcache *cache, struct mr *list)
{
	int saved = errno;

	while (list) {
		struct mr *mr = list;
		int ret;

		list = mr->link;
		if (mr->watched)
			cache->monitor->ops->unwatch(cache->monitor,
						     mr_cookie(mr));
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
		pthread_mutex_lock(&cache->lock);
		mr_put(cache, mr);
		pthread_mutex_unlock(&cache->lock);
	}
	errno = saved;
}

/* ---- eviction ------------------------------------------------------------------- */

/*
 * A clock: the hand passes over all registrations and takes the first idle ones
 * that were not used since it came by last, or the time before if they were hit.
 */
bool mr_evict(struct mrcache *cache, uint64_t bytes, uint64_t regs,
	      struct mr **list)
{
	struct mr *doomed = NULL;
	bool any = false;

	for (uint64_t left = 3 * (uint64_t)cache->made; left && (bytes || regs);
	     left--) {
		struct mr *mr = mr_of_number(cache, cache->clock);
		uint8_t referenced;
		uint64_t length;

		cache->clock = (cache->clock + 1) % cache->made;
		if (mr->state != MR_LIVE || mr_is_held(cache, mr))
			continue;
		referenced = atomic_load(&mr->referenced);
		if (referenced) {
			/* A hit in between may be lost: it was a guess anyway. */
			atomic_store(&mr->referenced, referenced - 1);
			continue;
		}
		length = atomic_load(&mr->length);
		bytes -= bytes < length ? bytes : length;
		regs -= regs > 0;
		mrc_count(cache, STAT_EVICTIONS);
		mr_doom(cache, mr, false, &doomed);
		any = true;
	}
	mr_sift(cache, doomed, list);
	return any;
}

bool mr_make_room(struct mrcache *cache, size_t length, struct mr **list)
{
	const struct mrcache_attr *attr = &cache->attr;

	if (length > attr->max_bytes || !attr->max_regs)
		return false;
	while (cache->regs >= attr->max_regs ||
	       cache->bytes > attr->max_bytes - length) {
		uint64_t bytes =
			cache->bytes > attr->max_bytes - length
				? cache->bytes - (attr->max_bytes - length)
				: 0;

		if (!mr_evict(cache, bytes, cache->regs >= attr->max_regs,
			      list))
			return false;
	}
	return true;
}

void mr_linger(struct mrcache *cache, struct mr **list)
{
	struct mr *doomed = NULL;

	for (uint32_t number = 0; number < cache->made; number++) {
		struct mr *mr = mr_of_number(cache, number);

		if (mr->state != MR_LIVE ||
		    !(atomic_load(&mr->access) & MRC_REMOTE_ACCESS))
			continue;
		if (mr_is_held(cache, mr))
			atomic_store(&mr->referenced, 1);
		else if (!atomic_exchange(&mr->referenced, 0))
			mr_doom(cache, mr, false, &doomed);
	}
	mr_sift(cache, doomed, list);
}

/* ---- finding -------------------------------------------------------------------- */

/*
 * Under the lock nothing is doomed beside us. A monitor without state words
 * has just been drained, so that what is LIVE was valid when we were called.
 */
static bool hold_locked(struct mrcache *cache, struct mrc_thread *thread,
			uint32_t number, mr_serves_fn *serves,
			const struct mr_want *want, struct mr_hold *hold)
{
	struct mr *mr = mr_of_number(cache, number);

	if (mr->state != MR_LIVE || !serves(mr, want) ||
	    (cache->states && !mr_is_untouched(cache, mr)))
		return false;
	*hold = (struct mr_hold){mr, atomic_load(&mr->life),
				 mrc_thread_count(thread, number)};
	mr_hold_add(hold);
	return true;
}

static inline bool find_larger(struct mrcache *cache, struct mrc_thread *thread,
			       mr_hold_fn *try, const struct mr_want *want,
			       struct mr_hold *hold)
{
	uint64_t orders = atomic_load(&cache->orders) &
			  ~UINT64_C(0) << mr_order_of(want->length);

	while (orders) {
		unsigned int order = (unsigned int)__builtin_ctzll(orders);

		orders &= orders - 1;
		if (mr_find_hash(cache, thread,
				 hash_block(want->pd, order, want->start),
				 mr_contains, try, want, hold))
			return true;
	}
	return false;
}

bool mr_find_larger(struct mrcache *cache, struct mrc_thread *thread,
		    const struct mr_want *want, struct mr_hold *hold)
{
	return find_larger(cache, thread, mr_try_number, want, hold);
}

bool mr_find_locked(struct mrcache *cache, struct mrc_thread *thread,
		    const struct mr_want *want, struct mr_hold *hold)
{
	return mr_find_hash(cache, thread, mr_hash_want(want), mr_serves,
			    hold_locked, want, hold) ||
	       (cache->contain &&
		find_larger(cache, thread, hold_locked, want, hold));
}

struct mr *mr_find_ibv_locked(struct mrcache *cache, const struct ibv_mr *ibv)
{
	struct mrc_index_iter iter;
	uint32_t number;

	mrc_index_find(&cache->by_ibv, mr_hash_ibv(ibv), &iter);
	while ((number = mrc_index_next(&iter)) != MRC_INDEX_END) {
		struct mr *mr = mr_of_number(cache, number);

		if (atomic_load(&mr->ibv) == ibv &&
		    (mr->state == MR_LIVE || mr->state == MR_DOOMED))
			return mr;
	}
	return NULL;
}

struct mr *mr_find_ibv(struct mrcache *cache, const struct ibv_mr *ibv,
		       uint64_t *life, uint32_t *number)
{
	struct mrc_index_iter iter;

	mrc_index_find(&cache->by_ibv, mr_hash_ibv(ibv), &iter);
	while ((*number = mrc_index_next(&iter)) != MRC_INDEX_END) {
		struct mr *mr = mr_of_number(cache, *number);

		if (mr_is_ibv(mr, ibv, life))
			return mr;
	}
	return NULL;
}
