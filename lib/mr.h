/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a registration says of itself, to readers without a lock: whether it
 * serves, whether it is untouched, whether it may be handed out.
 */
#ifndef MRC_MR_H
#define MRC_MR_H

#include "types.h"

static inline uint64_t mr_cookie(const struct mr *mr)
{
	return (uintptr_t)mr;
}

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

#endif /* MRC_MR_H */
