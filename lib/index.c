/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Open addressing with linear probing, at most half full while there is memory.
 * Removing shifts later entries back instead of leaving tombstones, so tables
 * are replaced only to grow. Replaced tables stay until the end, because a
 * reader may be in one; they double, so together they are no larger than the
 * newest.
 */
#include "index.h"

#include <errno.h>
#include <stdlib.h>

#define INITIAL_SIZE 1024u

static uint64_t pack(uint32_t hash, uint32_t number)
{
	return (uint64_t)hash << 32 | (number + 1);
}

static uint32_t hash_of(uint64_t entry)
{
	return (uint32_t)(entry >> 32);
}

static struct mrc_index_table *new_table(uint64_t size,
					 struct mrc_index_table *older)
{
	struct mrc_index_table *table =
		calloc(1, sizeof(*table) + size * sizeof(table->entries[0]));

	if (table) {
		table->mask = (uint32_t)(size - 1);
		table->older = older;
	}
	return table;
}

static void put(struct mrc_index_table *table, uint64_t entry)
{
	uint32_t at = hash_of(entry) & table->mask;

	while (atomic_load_explicit(&table->entries[at], memory_order_relaxed))
		at = (at + 1) & table->mask;
	/* Pairs with the acquire in mrc_index_next(): what is found is filled in. */
	atomic_store_explicit(&table->entries[at], entry, memory_order_release);
}

int mrc_index_init(struct mrc_index *index)
{
	struct mrc_index_table *table = new_table(INITIAL_SIZE, NULL);

	if (!table)
		return -ENOMEM;
	atomic_init(&index->table, table);
	index->used = 0;
	return 0;
}

void mrc_index_fini(struct mrc_index *index)
{
	struct mrc_index_table *table = atomic_load(&index->table);

	while (table) {
		struct mrc_index_table *older = table->older;

		free(table);
		table = older;
	}
	atomic_store(&index->table, NULL);
}

/* Replaces the table by one twice as large; false without memory. */
static bool grow(struct mrc_index *index)
{
	struct mrc_index_table *table = atomic_load(&index->table);
	struct mrc_index_table *larger =
		new_table((table->mask + UINT64_C(1)) * 2, table);

	if (!larger)
		return false;
	for (uint64_t i = 0; i <= table->mask; i++) {
		uint64_t entry = atomic_load_explicit(&table->entries[i],
						      memory_order_relaxed);
		if (entry)
			put(larger, entry);
	}
	/* Pairs with the acquire in mrc_index_find(). */
	atomic_store_explicit(&index->table, larger, memory_order_release);
	return true;
}

int mrc_index_insert(struct mrc_index *index, uint32_t hash, uint32_t number)
{
	struct mrc_index_table *table = atomic_load(&index->table);

	/* Fuller than it should be is better than nothing. */
	if (index->used > table->mask / 2 && !grow(index) &&
	    index->used >= table->mask - table->mask / 8)
		return -ENOMEM;
	put(atomic_load(&index->table), pack(hash, number));
	index->used++;
	return 0;
}

void mrc_index_remove(struct mrc_index *index, uint32_t hash, uint32_t number)
{
	struct mrc_index_table *table = atomic_load(&index->table);
	uint64_t wanted = pack(hash, number), entry;
	uint32_t hole = hash & table->mask;

	for (;; hole = (hole + 1) & table->mask) {
		entry = atomic_load_explicit(&table->entries[hole],
					     memory_order_relaxed);
		if (!entry)
			return;
		if (entry == wanted)
			break;
	}
	index->used--;

	/* Fill the hole with the next entry that may stand there, and so on. */
	for (uint32_t at = hole;;) {
		at = (at + 1) & table->mask;
		entry = atomic_load_explicit(&table->entries[at],
					     memory_order_relaxed);
		if (!entry)
			break;
		/* Its distance from home, and from the hole. */
		if (((at - hash_of(entry)) & table->mask) <
		    ((at - hole) & table->mask))
			continue;
		atomic_store_explicit(&table->entries[hole], entry,
				      memory_order_release);
		hole = at;
	}
	atomic_store_explicit(&table->entries[hole], 0, memory_order_release);
}
