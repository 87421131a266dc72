/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where registrations come from and go to: chunks that double and never move,
 * and the protection domain that each belongs to. Under the cache lock, but for
 * mr_of_number().
 */
#ifndef MRC_POOL_H
#define MRC_POOL_H

#include "mr.h"

/* Where a number's chunk is, and its place there. */
static inline unsigned int mrc_chunk(uint32_t number, uint32_t *at)
{
	uint32_t scaled = number / MRC_CHUNK_FIRST + 1;
	unsigned int chunk = 31 - (unsigned int)__builtin_clz(scaled);

	*at = number - ((1u << chunk) - 1) * MRC_CHUNK_FIRST;
	return chunk;
}

static inline size_t mrc_chunk_size(unsigned int chunk)
{
	return (size_t)MRC_CHUNK_FIRST << chunk;
}

/* When the cache is closed: what was kept of pds. */
void mrc_pds_fini(struct mrcache *cache);

/* A BUSY one for this range, or NULL without memory. */
struct mr *mr_get(struct mrcache *cache, const struct mr_want *range);

/*
 * From RELEASING back to BUSY, for the same range, still watched and counted; to
 * be deregistered all the same.
 */
void mr_get_again(struct mrcache *cache, struct mr *mr);

/* Back to the pool, from BUSY or RELEASING. */
void mr_put(struct mrcache *cache, struct mr *mr);

/* Counts it among those that the limits are for; ends with mr_put(). */
void mr_account(struct mrcache *cache, struct mr *mr);
void mr_unaccount(struct mrcache *cache, struct mr *mr);

/* The registration a cookie names, or NULL; for any 64 bits. */
struct mr *mr_of_cookie(struct mrcache *cache, uint64_t cookie);

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

#endif /* MRC_POOL_H */
