/* SPDX-License-Identifier: BSD-2-Clause */
#include "pool.h"

#include <stdlib.h>

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

static void refresh_pd(struct mrc_pd *entry)
{
	/* Perhaps another by now, at the same address. */
	entry->context = entry->pd->context;
	entry->handle = entry->pd->handle;
}

static void free_pd(struct mrcache *cache, struct mrc_pd *entry)
{
	entry->link = cache->free_pds;
	cache->free_pds = entry;
}

static struct mrc_pd *new_pd(struct mrcache *cache)
{
	struct mrc_pd *entry = cache->free_pds;

	if (!entry)
		return calloc(1, sizeof(*entry));
	cache->free_pds = entry->link;
	*entry = (struct mrc_pd){.link = NULL};
	return entry;
}

static struct mrc_pd *add_pd(struct mrcache *cache, struct ibv_pd *pd)
{
	struct mrc_pd *entry = new_pd(cache);

	if (!entry)
		return NULL;
	entry->pd = pd;
	HASH_ADD_PTR(cache->pds, pd, entry);
	if (entry->hh.tbl)
		return entry;
	free_pd(cache, entry);
	return NULL;
}

static struct mrc_pd *get_pd(struct mrcache *cache, struct ibv_pd *pd)
{
	struct mrc_pd *entry;

	HASH_FIND_PTR(cache->pds, &pd, entry);
	if (!entry)
		entry = add_pd(cache, pd);
	if (entry)
		refresh_pd(entry);
	return entry;
}

/* With the last one its table would be freed: it stays. */
static void put_pd(struct mrcache *cache, struct mrc_pd *entry)
{
	if (entry->mrs || HASH_COUNT(cache->pds) == 1)
		return;
	HASH_DEL(cache->pds, entry);
	free_pd(cache, entry);
}

void mrc_pds_fini(struct mrcache *cache)
{
	struct mrc_pd *entry, *next;

	HASH_ITER(hh, cache->pds, entry, next)
	{
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): not next */
		HASH_DEL(cache->pds, entry);
		free(entry);
	}
	LL_FOREACH_SAFE2(cache->free_pds, entry, next, link)
	free(entry);
	cache->free_pds = NULL;
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
	mr->watched = mr->accounted = mr->stale = mr->uncached = false;
	atomic_store_explicit(&mr->hit, false, memory_order_relaxed);
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

void mr_get_again(struct mrcache *cache, struct mr *mr)
{
	mr->state = MR_BUSY;
	mr->stale = false;
	atomic_store_explicit(&mr->hit, false, memory_order_relaxed);
	mr->link = NULL;
	refresh_pd(mr->pd_entry);
	/* As mr_put(), for the same reason. */
	atomic_fetch_add(&mr->life, 2);
	mr_account(cache, mr);
}

void mr_account(struct mrcache *cache, struct mr *mr)
{
	mr->accounted = true;
	cache->regs++;
	cache->bytes += atomic_load(&mr->length);
}

void mr_unaccount(struct mrcache *cache, struct mr *mr)
{
	if (mr->accounted) {
		cache->regs--;
		cache->bytes -= atomic_load(&mr->length);
		mr->accounted = false;
	}
}

void mr_put(struct mrcache *cache, struct mr *mr)
{
	mr_unaccount(cache, mr);
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
