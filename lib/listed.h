/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The registrations that can be found: under what each is filed, entering and
 * leaving. Under the cache lock, but for the hashes.
 */
#ifndef MRC_LISTED_H
#define MRC_LISTED_H

#include "hold.h"

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

static inline uint32_t mr_hash_ibv(const struct ibv_mr *ibv)
{
	return mrc_hash((uintptr_t)ibv, 0);
}

/*
 * For containment a registration is filed under the blocks it touches, a block
 * being as large as the largest power of two (its order) that is not larger
 * than the registration: three at the most. A range inside it starts in one of
 * those blocks.
 */
static inline uint32_t mr_hash_block(const struct ibv_pd *pd,
				     unsigned int order, uintptr_t address)
{
	return mrc_hash((uintptr_t)pd ^ (uint64_t)(order + 1) << 56,
			address >> order);
}

/* BUSY to LIVE, with one hold; or -ENOMEM and still BUSY. */
int mr_publish(struct mrcache *cache, struct mr *mr, struct ibv_mr *ibv,
	       struct mrc_thread *thread, struct mr_hold *hold);

/* BUSY to DOOMED with one hold: given to one caller only. -ENOMEM. */
int mr_publish_uncached(struct mrcache *cache, struct mr *mr,
			struct ibv_mr *ibv);

/* No longer to be found by its range; still by its ibv_mr. */
void mr_unpublish(struct mrcache *cache, struct mr *mr);

#endif /* MRC_LISTED_H */
