/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The life of a registration: FREE, BUSY, LIVE, DOOMED, RELEASING, FREE (see
 * mrcache_int.h). Functions marked (lock) want the cache lock held, those
 * marked (no lock) want it free.
 */
#ifndef MRC_MR_H
#define MRC_MR_H

#include "thread.h"

/* What a caller of mrcache_reg_mr() asks for. */
struct mr_want {
	struct ibv_pd *pd;
	uintptr_t start;
	size_t length;
	int access;
};

/* A hold: while it is counted, this use of mr does not end. */
struct mr_hold {
	struct mr *mr;
	uint64_t life;
	_Atomic int64_t *count; /* the thread's, or mr->handed */
};

/* (lock) A BUSY one for this range, or NULL without memory. */
struct mr *mr_get(struct mrcache *cache, const struct mr_want *range);
/* (lock) Back to the pool, from BUSY or RELEASING. */
void mr_put(struct mrcache *cache, struct mr *mr);

/* (lock) The registration a cookie names, or NULL; for any 64 bits. */
struct mr *mr_of_cookie(struct mrcache *cache, uint64_t cookie);
static inline uint64_t mr_cookie(const struct mr *mr)
{
	return (uintptr_t)mr;
}

/* For numbers below cache->made, as what the index holds. */
static inline struct mr *mr_of_number(struct mrcache *cache, uint32_t number)
{
	uint32_t at;
	unsigned int chunk = mrc_chunk(number, &at);

	/* Pairs with the release in grow(). */
	return atomic_load_explicit(&cache->chunks[chunk],
				    memory_order_acquire) +
	       at;
}

/* (lock) BUSY to LIVE, with one hold; or -ENOMEM and still BUSY. */
int mr_publish(struct mrcache *cache, struct mr *mr, struct ibv_mr *ibv,
	       struct mrc_thread *thread, struct mr_hold *hold);
/* (lock) BUSY to DOOMED with one hold: given to one caller only. -ENOMEM. */
int mr_publish_uncached(struct mrcache *cache, struct mr *mr,
			struct ibv_mr *ibv);

/*
 * (lock) LIVE to DOOMED. Any number of these must be followed by mr_sift(),
 * which moves those not held to RELEASING and onto the list. *list: NULL, or
 * from an earlier call.
 */
void mr_doom(struct mrcache *cache, struct mr *mr, bool stale,
	     struct mr **doomed);
/* (lock) The memory of a DOOMED one changed; also followed by mr_sift(). */
void mr_mark_stale(struct mrcache *cache, struct mr *mr);
void mr_sift(struct mrcache *cache, struct mr *doomed, struct mr **list);

/* (lock) Whether anybody holds it. Exact for DOOMED ones, else a guess. */
bool mr_is_held(struct mrcache *cache, struct mr *mr);

/* (lock) Makes room for one more of this length; false if all is held. */
bool mr_make_room(struct mrcache *cache, size_t length, struct mr **list);
/* (lock) Evicts idle ones of at least this many bytes; false if none was. */
bool mr_evict(struct mrcache *cache, uint64_t bytes, uint64_t regs,
	      struct mr **list);

/*
 * (lock) Dooms idle registrations with remote access that were not used since
 * the last call.
 */
void mr_linger(struct mrcache *cache, struct mr **list);

/* Access that may be wider than asked for. */
#define MRC_LOCAL_ACCESS IBV_ACCESS_LOCAL_WRITE

#define MRC_REMOTE_ACCESS                                   \
	(IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | \
	 IBV_ACCESS_REMOTE_ATOMIC)

/* (no lock) Deregisters what is on a list of RELEASING ones. */
void mr_release(struct mrcache *cache, struct mr *list);

/* Whether the state word says untouched. Only for monitors that have them. */
static inline bool mr_is_untouched(const struct mrcache *cache, struct mr *mr)
{
	/* Acquire, so that the caller's look at life comes after (I2). */
	uint32_t slot = atomic_load_explicit(&mr->slot, memory_order_acquire);
	uint32_t armed = atomic_load_explicit(&mr->armed, memory_order_acquire);

	/* Pairs with the monitor's write of the word. */
	return __atomic_load_n(&cache->states[slot], __ATOMIC_ACQUIRE) == armed;
}

/*
 * Whether a use of mr, which must be held or looked at under the lock, may be
 * handed out. The order is what counts: `drained` before `life`, because what
 * is drained was doomed before; and `life` last of all (I2, I4).
 */
static inline bool mr_is_usable(const struct mrcache *cache, struct mr *mr,
				uint64_t life)
{
	uint64_t drained = atomic_load_explicit(&cache->hot->drained,
						memory_order_acquire);

	if (__builtin_expect(drained != mrc_generation(cache) + 1, 0)) {
		/* Also so in a fork child, where drained and alive are 0. */
		if (!cache->states || !cache->hot->alive ||
		    !mr_is_untouched(cache, mr))
			return false;
	}
	return atomic_load_explicit(&mr->life, memory_order_acquire) == life;
}

/* Acquire, so that the caller's second look at life comes after (I2). */
static inline bool mr_serves(struct mr *mr, const struct mr_want *want)
{
	return atomic_load_explicit(&mr->start, memory_order_acquire) ==
		       want->start &&
	       atomic_load_explicit(&mr->length, memory_order_acquire) ==
		       want->length &&
	       atomic_load_explicit(&mr->pd, memory_order_acquire) ==
		       want->pd &&
	       atomic_load_explicit(&mr->access, memory_order_acquire) ==
		       want->access;
}

/*
 * The same if a larger one may serve. Access to local memory may be wider than
 * asked for, to remote peers never.
 */
static inline bool mr_contains(struct mr *mr, const struct mr_want *want)
{
	uintptr_t start =
		atomic_load_explicit(&mr->start, memory_order_acquire);
	size_t length = atomic_load_explicit(&mr->length, memory_order_acquire);
	int access = atomic_load_explicit(&mr->access, memory_order_acquire);

	return start <= want->start && want->length <= length &&
	       want->start - start <= length - want->length &&
	       atomic_load_explicit(&mr->pd, memory_order_acquire) ==
		       want->pd &&
	       (access | MRC_LOCAL_ACCESS) ==
		       (want->access | MRC_LOCAL_ACCESS) &&
	       (access & want->access) == want->access;
}

typedef bool mr_serves_fn(struct mr *mr, const struct mr_want *want);

/* A registration's order: the largest power of two not above its length. */
static inline unsigned int mr_order_of(size_t length)
{
	return 63 - (unsigned int)__builtin_clzll(length);
}

static inline unsigned int mr_order(struct mr *mr)
{
	return mr_order_of(
		atomic_load_explicit(&mr->length, memory_order_relaxed));
}

/* Whether mr is LIVE and behind ibv; its life. */
static inline bool mr_is_ibv(struct mr *mr, const struct ibv_mr *ibv,
			     uint64_t *life)
{
	*life = atomic_load_explicit(&mr->life, memory_order_acquire);
	return (*life & 1) &&
	       atomic_load_explicit(&mr->ibv, memory_order_acquire) == ibv &&
	       atomic_load_explicit(&mr->life, memory_order_acquire) == *life;
}

/* Set by every hit, but written only if it changes: the line is shared. */
static inline void mr_reference(struct mr *mr)
{
	if (atomic_load_explicit(&mr->referenced, memory_order_relaxed) != 2)
		atomic_store_explicit(&mr->referenced, 2, memory_order_relaxed);
}

/* Counts a hold, of a thread or (count is NULL) of nobody in particular. */
static inline void mr_hold_add(struct mr_hold *hold)
{
	if (__builtin_expect(hold->count != NULL, 1))
		atomic_store_explicit(
			hold->count,
			atomic_load_explicit(hold->count,
					     memory_order_relaxed) +
				1,
			memory_order_relaxed);
	else
		atomic_fetch_add(&hold->mr->handed, 1);
}

/*
 * Gives one back; release, so that its use comes before deregistration. True if
 * that use of mr is over, and the caller must call mr_finish().
 */
static inline bool mr_hold_sub(struct mrcache *cache, struct mr_hold *hold)
{
	if (__builtin_expect(hold->count != NULL, 1))
		/* Pairs with the acquire in mrc_thread_read(). */
		atomic_store_explicit(
			hold->count,
			atomic_load_explicit(hold->count,
					     memory_order_relaxed) -
				1,
			memory_order_release);
	else
		atomic_fetch_sub(&hold->mr->handed, 1);
	mrc_fence_light(cache);
	return atomic_load_explicit(&hold->mr->life, memory_order_acquire) !=
	       hold->life;
}

/* (no lock) Ends a use that is doomed and no longer held. */
void mr_finish(struct mrcache *cache, struct mr *mr);

/* (no lock) Gives a hold back. */
static inline void mr_hold_drop(struct mrcache *cache, struct mr_hold *hold)
{
	if (__builtin_expect(mr_hold_sub(cache, hold), 0))
		mr_finish(cache, hold->mr);
}

/* Counts a hold of what was seen to serve, then checks that it does (I4). */
static inline bool mr_hold_if_usable(struct mrcache *cache,
				     struct mr_hold *hold)
{
	mr_hold_add(hold);
	mrc_fence_light(cache);
	return mr_is_usable(cache, hold->mr, hold->life);
}

/* (no lock) The same; what is not usable is given back at once. */
static inline bool mr_try_hold(struct mrcache *cache, struct mr_hold *hold)
{
	if (__builtin_expect(mr_hold_if_usable(cache, hold), 1))
		return true;
	mr_hold_drop(cache, hold);
	return false;
}

/* Holds somewhere in all threads; see mr.c for when that is exact. */
int64_t mr_holds(struct mrcache *cache, struct mr *mr);

/* Tries to hold the number that the index names. */
typedef bool mr_hold_fn(struct mrcache *cache, struct mrc_thread *thread,
			uint32_t number, mr_serves_fn *serves,
			const struct mr_want *want, struct mr_hold *hold);

static inline bool mr_try_number(struct mrcache *cache,
				 struct mrc_thread *thread, uint32_t number,
				 mr_serves_fn *serves,
				 const struct mr_want *want,
				 struct mr_hold *hold)
{
	struct mr *mr = mr_of_number(cache, number);
	uint64_t life = atomic_load_explicit(&mr->life, memory_order_acquire);

	if (!(life & 1) || !serves(mr, want))
		return false;
	*hold = (struct mr_hold){mr, life, mrc_thread_count(thread, number)};
	return mr_try_hold(cache, hold);
}

static inline uint32_t mr_hash_range(const struct ibv_pd *pd, uintptr_t start,
				     size_t length, int access)
{
	return mrc_hash((uintptr_t)pd ^ (uint64_t)(unsigned int)access << 48,
			start ^ length * UINT64_C(0xff51afd7ed558ccd));
}

static inline uint32_t mr_hash_want(const struct mr_want *want)
{
	return mr_hash_range(want->pd, want->start, want->length, want->access);
}

static inline bool mr_find_hash(struct mrcache *cache,
				struct mrc_thread *thread, uint32_t hash,
				mr_serves_fn *serves, mr_hold_fn *try,
				const struct mr_want *want,
				struct mr_hold *hold)
{
	struct mrc_index_iter iter;
	uint32_t number;

	mrc_index_find(&cache->by_range, hash, &iter);
	while ((number = mrc_index_next(&iter)) != MRC_INDEX_END)
		if (try(cache, thread, number, serves, want, hold))
			return true;
	return false;
}

/*
 * A LIVE one that serves, held: the very range; a larger one; and (lock) either,
 * if there is one at all. Without the lock nothing is believed that cannot be
 * checked, and something may be overlooked.
 */
static inline bool mr_find_same(struct mrcache *cache,
				struct mrc_thread *thread,
				const struct mr_want *want,
				struct mr_hold *hold)
{
	return mr_find_hash(cache, thread, mr_hash_want(want), mr_serves,
			    mr_try_number, want, hold);
}
bool mr_find_larger(struct mrcache *cache, struct mrc_thread *thread,
		    const struct mr_want *want, struct mr_hold *hold);
bool mr_find_locked(struct mrcache *cache, struct mrc_thread *thread,
		    const struct mr_want *want, struct mr_hold *hold);

/* (lock) The LIVE or DOOMED one behind an ibv_mr, or NULL. */
struct mr *mr_find_ibv_locked(struct mrcache *cache, const struct ibv_mr *ibv);
/* A LIVE one, its life and number, without the lock, or NULL. */
struct mr *mr_find_ibv(struct mrcache *cache, const struct ibv_mr *ibv,
		       uint64_t *life, uint32_t *number);

static inline uint32_t mr_hash_ibv(const struct ibv_mr *ibv)
{
	return mrc_hash((uintptr_t)ibv, 0);
}

#endif /* MRC_MR_H */
