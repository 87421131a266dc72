/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Finding a registration that serves. Without the lock nothing is believed that
 * cannot be checked, and something may be overlooked.
 */
#ifndef MRC_LOOKUP_H
#define MRC_LOOKUP_H

#include "retire.h"

/* (no lock) Holds it if it is usable; else what was counted is given back. */
static inline bool mr_try_hold(struct mrcache *cache, struct mr_hold *hold)
{
	if (__builtin_expect(mr_hold_if_usable(cache, hold), 1))
		return true;
	mr_hold_drop(cache, hold);
	return false;
}

/* (no lock) Holds the one that the index names, if it serves. */
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

/* (no lock) A LIVE one of the very range, held. */
static inline bool mr_find_same(struct mrcache *cache,
				struct mrc_thread *thread,
				const struct mr_want *want,
				struct mr_hold *hold)
{
	struct mrc_index_iter iter;
	uint32_t number;

	mrc_index_find(&cache->by_range, mr_hash_want(want), &iter);
	while ((number = mrc_index_next(&iter)) != MRC_INDEX_END)
		if (mr_try_number(cache, thread, number, mr_serves, want, hold))
			return true;
	return false;
}

/* (no lock) A LIVE one that has the range in it, held. */
bool mr_find_larger(struct mrcache *cache, struct mrc_thread *thread,
		    const struct mr_want *want, struct mr_hold *hold);

/* (lock) Either of them, if there is one at all. */
bool mr_find_locked(struct mrcache *cache, struct mrc_thread *thread,
		    const struct mr_want *want, struct mr_hold *hold);

/*
 * A LIVE one of the very range whose memory has changed, or NULL. Without the lock
 * a guess. Only with state words.
 */
struct mr *mr_find_changed(struct mrcache *cache, const struct mr_want *range);

/*
 * (lock) LIVE ones that one of this range would make needless, as it serves all
 * that they do: at most so many, after so many looks. Of those that it may have in
 * it only the ones filed where it begins are looked at, as those of a buffer that
 * is used at growing lengths are. One may be there twice. Only with `contain`.
 */
uint32_t mr_find_within(struct mrcache *cache, const struct mr_want *range,
			uint32_t looks, struct mr **within, uint32_t most);

/* (lock) The LIVE or DOOMED one behind an ibv_mr, or NULL. */
struct mr *mr_find_ibv_locked(struct mrcache *cache, const struct ibv_mr *ibv);
/* A LIVE one, its life and number, without the lock, or NULL. */
struct mr *mr_find_ibv(struct mrcache *cache, const struct ibv_mr *ibv,
		       uint64_t *life, uint32_t *number);

#endif /* MRC_LOOKUP_H */
