/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A hash table from 32-bit hashes to numbers (of registrations) that is read
 * without locks. It knows nothing of keys: a hash may stand for several
 * numbers, and the reader checks each.
 *
 * Writers hold the cache lock. A reader that runs beside a writer may miss an
 * entry, or see one that is being removed; it checks what it finds and asks
 * again under the lock before it believes that there is nothing.
 */
#ifndef MRC_INDEX_H
#define MRC_INDEX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * An entry is one 64-bit word, hash and number + 1, so that readers never see
 * half of one; 0 is no entry.
 */
struct mrc_index_table {
	struct mrc_index_table *older;
	uint32_t mask;
	_Atomic uint64_t entries[];
};

struct mrc_index {
	_Atomic(struct mrc_index_table *)
		table; /* the newest; older ones linked */
	uint32_t used; /* under the cache lock */
};

struct mrc_index_iter {
	const struct mrc_index_table *table;
	uint32_t hash;
	uint32_t at;
	uint32_t left;
};

#define MRC_INDEX_END UINT32_MAX

int mrc_index_init(struct mrc_index *index);
void mrc_index_fini(struct mrc_index *index);

/* 0 or -ENOMEM. number < MRC_INDEX_END - 1. The pair must not be there yet. */
int mrc_index_insert(struct mrc_index *index, uint32_t hash, uint32_t number);

/* Does nothing if the pair is not there. */
void mrc_index_remove(struct mrc_index *index, uint32_t hash, uint32_t number);

/* The numbers of a hash, one a call, then MRC_INDEX_END. */
static inline void mrc_index_find(const struct mrc_index *index, uint32_t hash,
				  struct mrc_index_iter *iter)
{
	iter->table = atomic_load_explicit(&index->table, memory_order_acquire);
	iter->hash = hash;
	iter->at = hash & iter->table->mask;
	iter->left = iter->table->mask;
}

static inline uint32_t mrc_index_next(struct mrc_index_iter *iter)
{
	while (iter->left--) {
		/* Pairs with the release in put(): what is found is filled in. */
		uint64_t entry = atomic_load_explicit(
			&iter->table->entries[iter->at], memory_order_acquire);

		iter->at = (iter->at + 1) & iter->table->mask;
		if (!entry)
			break;
		if (entry >> 32 == iter->hash)
			return (uint32_t)entry - 1;
	}
	iter->left = 0;
	return MRC_INDEX_END;
}

/* Mixes two words into a hash (the finaliser of MurmurHash3, public domain). */
static inline uint32_t mrc_hash(uint64_t a, uint64_t b)
{
	uint64_t h = a ^ (b * 0x9e3779b97f4a7c15u);

	h ^= h >> 33;
	h *= 0xff51afd7ed558ccdu;
	h ^= h >> 33;
	h *= 0xc4ceb9fe1a85ec53u;
	h ^= h >> 33;
	return (uint32_t)h;
}

#endif /* MRC_INDEX_H */
