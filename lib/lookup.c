/* SPDX-License-Identifier: BSD-2-Clause */
#include "lookup.h"

/*
 * Under the lock nothing is doomed beside us. A monitor without state words
 * has just been drained, so that what is LIVE was valid when we were called.
 */
static bool hold_locked(struct mrcache *cache, struct mrc_thread *thread,
			uint32_t number, const struct mr_want *want,
			struct mr_hold *hold)
{
	struct mr *mr = mr_of_number(cache, number);
	bool larger = cache->contain && !(want->flags & MRCACHE_REG_EXACT);
	mr_serves_fn *serves = larger ? mr_contains : mr_serves;

	if (mr->state != MR_LIVE || !serves(mr, want) ||
	    (cache->states && !mr_is_untouched(cache, mr)))
		return false;
	*hold = (struct mr_hold){mr, atomic_load(&mr->life),
				 mrc_thread_count(thread, number)};
	mr_hold_add(hold);
	return true;
}

/*
 * The blocks, from the smallest, under which one that contains the range may be
 * filed: false when there are no more.
 */
static bool next_block(const struct mr_want *want, uint64_t *orders,
		       uint32_t *hash)
{
	if (!*orders)
		return false;
	*hash = mr_hash_block(want->pd, (unsigned int)__builtin_ctzll(*orders),
			      want->start);
	*orders &= *orders - 1;
	return true;
}

static uint64_t orders_above(const struct mrcache *cache,
			     const struct mr_want *want)
{
	return atomic_load(&cache->orders) &
	       ~UINT64_C(0) << mr_order_of(want->length);
}

bool mr_find_larger(struct mrcache *cache, struct mrc_thread *thread,
		    const struct mr_want *want, struct mr_hold *hold)
{
	uint64_t orders = orders_above(cache, want);
	struct mrc_index_iter iter;
	uint32_t hash, number;

	while (next_block(want, &orders, &hash)) {
		mrc_index_find(&cache->by_range, hash, &iter);
		while ((number = mrc_index_next(&iter)) != MRC_INDEX_END)
			if (mr_try_number(cache, thread, number, mr_contains,
					  want, hold))
				return true;
	}
	return false;
}

static bool find_hash_locked(struct mrcache *cache, struct mrc_thread *thread,
			     uint32_t hash, const struct mr_want *want,
			     struct mr_hold *hold)
{
	struct mrc_index_iter iter;
	uint32_t number;

	mrc_index_find(&cache->by_range, hash, &iter);
	while ((number = mrc_index_next(&iter)) != MRC_INDEX_END)
		if (hold_locked(cache, thread, number, want, hold))
			return true;
	return false;
}

bool mr_find_locked(struct mrcache *cache, struct mrc_thread *thread,
		    const struct mr_want *want, struct mr_hold *hold)
{
	uint64_t orders = cache->contain ? orders_above(cache, want) : 0;
	uint32_t hash = mr_hash_want(want);

	do
		if (find_hash_locked(cache, thread, hash, want, hold))
			return true;
	while (next_block(want, &orders, &hash));
	return false;
}

static bool is_within(struct mr *mr, const struct mr_want *range)
{
	uintptr_t start = atomic_load(&mr->start);
	size_t length = atomic_load(&mr->length);
	int access = atomic_load(&mr->access);

	return range->start <= start && length <= range->length &&
	       start - range->start <= range->length - length &&
	       atomic_load(&mr->pd) == range->pd &&
	       (access | MRC_LOCAL_ACCESS) ==
		       (range->access | MRC_LOCAL_ACCESS) &&
	       (access & range->access) == access;
}

uint32_t mr_find_within(struct mrcache *cache, const struct mr_want *range,
			uint32_t looks, struct mr **within, uint32_t most)
{
	/* Its own and those below. */
	uint64_t orders = atomic_load(&cache->orders) &
			  ~(~UINT64_C(1) << mr_order_of(range->length));
	struct mrc_index_iter iter;
	uint32_t hash, number, found = 0;

	while (next_block(range, &orders, &hash)) {
		mrc_index_find(&cache->by_range, hash, &iter);
		while ((number = mrc_index_next(&iter)) != MRC_INDEX_END) {
			struct mr *mr = mr_of_number(cache, number);

			if (found == most || !looks--)
				return found;
			if (is_within(mr, range))
				within[found++] = mr;
		}
	}
	return found;
}

struct mr *mr_find_changed(struct mrcache *cache, const struct mr_want *range)
{
	struct mrc_index_iter iter;
	uint32_t number;

	mrc_index_find(&cache->by_range, mr_hash_want(range), &iter);
	while ((number = mrc_index_next(&iter)) != MRC_INDEX_END) {
		struct mr *mr = mr_of_number(cache, number);

		if ((atomic_load(&mr->life) & 1) && mr_serves(mr, range) &&
		    !mr_is_untouched(cache, mr))
			return mr;
	}
	return NULL;
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
