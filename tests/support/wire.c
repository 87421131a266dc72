/* SPDX-License-Identifier: BSD-2-Clause */
/* The wire as oracle; see wire.h. */
#include "wire.h"

#include <errno.h>
#include <string.h>

long wire_wrong(struct rdma *r, const struct ibv_mr *mr, void *addr,
		size_t size, unsigned int seed, enum wire_side side)
{
	/* Not a difference of two rounds' seeds, unless 128 rounds apart. */
	unsigned int answer = seed + 128;
	long wrong;
	int ret;

	memop_fill(addr, size, seed);
	memset(r->peer, 0, size);
	ret = side == WIRE_BY_PEER ? rdma_peer_reads(r, mr, addr, size)
				   : rdma_write_from(r, mr, addr, size);
	if (ret)
		return ret;
	wrong = memop_wrong(r->peer, size, seed);

	memop_fill(r->peer, size, answer);
	ret = side == WIRE_BY_PEER ? rdma_peer_writes(r, mr, addr, size)
				   : rdma_read_into(r, mr, addr, size);
	if (ret)
		return ret;
	return wrong + memop_wrong(addr, size, answer);
}

long wire_wrong_of(struct rdma *r, const struct ibv_mr *mr,
		   const struct memop_buffer *b, unsigned int round)
{
	unsigned int seed = memop_seed(b->op, round);
	enum wire_side side = round % 2 ? WIRE_BY_PEER : WIRE_BY_PROGRAM;
	size_t end = MEMOP_MIN_SIZE;
	long first, last;

	if (b->page <= end)
		return wire_wrong(r, mr, b->addr, b->size, seed, side);
	if (b->size != b->page)
		return -EINVAL; /* each would have ends of its own */
	first = wire_wrong(r, mr, b->addr, end, seed, side);
	if (first < 0)
		return first;
	last = wire_wrong(r, mr, b->addr + b->size - end, end, seed, side);
	return last < 0 ? last : first + last;
}

void wire_attr(struct mrcache_attr *attr, const char *monitor)
{
	mrcache_attr_init(attr);
	attr->monitor = monitor;
	attr->remote = true;
	/* What the kernel tells is tested, not what is released before a fork. */
	attr->fork_release = UINT64_MAX;
}

struct mrcache *wire_cache(const char *monitor)
{
	struct mrcache_attr attr;

	wire_attr(&attr, monitor);
	return mrcache_open(&attr);
}

struct mrcache_stats wire_stats(struct mrcache *cache)
{
	struct mrcache_stats stats;

	memset(&stats, 0xff, sizeof(stats));
	mrcache_get_stats(cache, &stats, sizeof(stats));
	return stats;
}

uint64_t wire_bypassed(const struct mrcache_stats *stats)
{
	uint64_t sum = 0;
	int i;

	for (i = 0; i < MRCACHE_BYPASS_REASONS; i++)
		sum += stats->bypass[i];
	return sum;
}
