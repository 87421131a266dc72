/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a thread used recently, by what was asked for and by what was given.
 * Entries are guesses where to look, never believed unasked.
 */
#ifndef MRC_RECENT_H
#define MRC_RECENT_H

#include "thread.h"

/*
 * Where in a table a key has its place (Fibonacci hashing: keys at regular
 * distances, as buffers and ibv_mrs often are, spread evenly).
 */
static inline struct mrc_recent *mrc_recent(struct mrc_recent *table,
					    uint64_t key)
{
	return &table[key * UINT64_C(0x9e3779b97f4a7c15) >>
		      (64 - MRC_RECENT_BITS)];
}

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

/* What a hit does once it holds what was remembered. */
static inline struct ibv_mr *recalled(struct mrc_thread *thread, struct mr *mr)
{
	count_hit(thread);
	mr_reference(mr);
	return atomic_load_explicit(&mr->ibv, memory_order_relaxed);
}

/* The same when it was found the long way. */
static inline struct ibv_mr *mrc_found(struct mrcache *cache,
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

#endif /* MRC_RECENT_H */
