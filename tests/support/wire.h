/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The wire as oracle: a transfer through a registration must carry the bytes
 * that the program sees, both ways.
 */
#ifndef TESTS_SUPPORT_WIRE_H
#define TESTS_SUPPORT_WIRE_H

#include <mrcache.h>

#include "memop.h"
#include "rdma.h"

#define WIRE_LOCAL IBV_ACCESS_LOCAL_WRITE
#define WIRE_REMOTE                                        \
	(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | \
	 IBV_ACCESS_REMOTE_WRITE)

/* Who starts the transfers. */
enum wire_side { WIRE_BY_PROGRAM, WIRE_BY_PEER };

/*
 * Fills the memory, has the peer get it and compares; then has the peer's
 * bytes put into it and compares again. How many bytes were wrong, or -errno.
 * Of consecutive seeds of memop_seed() no two give the same bytes.
 */
long wire_wrong(struct rdma *r, const struct ibv_mr *mr, void *addr,
		size_t size, unsigned int seed, enum wire_side side);

/*
 * The same for an operation's memory in one of its rounds, which take turns in
 * who starts. A huge page is replaced as a whole: its two ends stand for it.
 */
long wire_wrong_of(struct rdma *r, const struct ibv_mr *mr,
		   const struct memop_buffer *b, unsigned int round);

/* A cache with this monitor, caching remote access too; NULL with errno. */
struct mrcache *wire_cache(const char *monitor);

/* The same with other attributes: wire_attr() first. */
void wire_attr(struct mrcache_attr *attr, const char *monitor);

struct mrcache_stats wire_stats(struct mrcache *cache);
uint64_t wire_bypassed(const struct mrcache_stats *stats);

#endif /* TESTS_SUPPORT_WIRE_H */
