/* SPDX-License-Identifier: BSD-2-Clause */
#include "listed.h"

static uint32_t hash_mr(struct mr *mr)
{
	return mr_hash_range(atomic_load(&mr->pd), atomic_load(&mr->start),
			     atomic_load(&mr->length),
			     atomic_load(&mr->access));
}

struct blocks {
	unsigned int order;
	uintptr_t next, last;
};

static struct blocks blocks_of(struct mr *mr)
{
	uintptr_t start = atomic_load(&mr->start);
	size_t length = atomic_load(&mr->length);
	unsigned int order = mr_order_of(length);

	return (struct blocks){order, start >> order,
			       (start + length - 1) >> order};
}

void mr_unpublish(struct mrcache *cache, struct mr *mr)
{
	mrc_index_remove(&cache->by_range, hash_mr(mr), mr->number);
	if (cache->contain) {
		struct blocks b = blocks_of(mr);

		for (; b.next <= b.last; b.next++)
			mrc_index_remove(&cache->by_range,
					 mr_hash_block(mr->pd, b.order,
						       b.next << b.order),
					 mr->number);
	}
}

static int publish(struct mrcache *cache, struct mr *mr)
{
	int ret = mrc_index_insert(&cache->by_range, hash_mr(mr), mr->number);

	if (!ret && cache->contain) {
		struct blocks b = blocks_of(mr);

		atomic_fetch_or(&cache->orders, UINT64_C(1) << b.order);
		for (; !ret && b.next <= b.last; b.next++)
			ret = mrc_index_insert(&cache->by_range,
					       mr_hash_block(mr->pd, b.order,
							     b.next << b.order),
					       mr->number);
	}
	if (ret)
		mr_unpublish(cache, mr);
	return ret;
}

int mr_publish(struct mrcache *cache, struct mr *mr, struct ibv_mr *ibv,
	       struct mrc_thread *thread, struct mr_hold *hold)
{
	uint64_t life = atomic_load(&mr->life);
	int ret;

	atomic_store_explicit(&mr->ibv, ibv, memory_order_relaxed);
	ret = mrc_index_insert(&cache->by_ibv, mr_hash_ibv(ibv), mr->number);
	if (ret)
		return ret;
	ret = publish(cache, mr);
	if (ret) {
		mrc_index_remove(&cache->by_ibv, mr_hash_ibv(ibv), mr->number);
		return ret;
	}
	*hold = (struct mr_hold){mr, life + 1,
				 mrc_thread_count(thread, mr->number)};
	mr_hold_add(hold);
	atomic_store(&mr->holder, hold->count);
	atomic_store(&mr->referenced, 1);
	mr->state = MR_LIVE;
	CDL_APPEND2(cache->ring, mr, ring_prev, ring_next);
	cache->live++;
	mrc_count(cache, STAT_CACHED);
	mrc_add(cache, STAT_CACHED_BYTES, atomic_load(&mr->length));
	/* Pairs with the acquires of life: all the above is seen (I2). */
	atomic_store_explicit(&mr->life, life + 1, memory_order_release);
	return 0;
}

int mr_publish_uncached(struct mrcache *cache, struct mr *mr,
			struct ibv_mr *ibv)
{
	int ret =
		mrc_index_insert(&cache->by_ibv, mr_hash_ibv(ibv), mr->number);

	if (ret)
		return ret;
	atomic_store(&mr->ibv, ibv);
	atomic_fetch_add(&mr->handed, 1);
	mr_unaccount(cache, mr);
	mr->uncached = true;
	mrc_count(cache, STAT_UNCACHED);
	mr->state = MR_DOOMED;
	return 0;
}
