/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The caches that bench/hit.c compares, behind one interface, with registering
 * itself costing nothing. Addresses are numbers: no memory is there.
 */
#ifndef BENCH_SIDE_H
#define BENCH_SIDE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct side {
	const char *name;
	/* NULL, or why it cannot be used here. */
	const char *(*missing)(void);
	/* A cache; `contain`: a larger registration may serve. */
	void *(*open)(bool contain);
	/* Get and put for each address, all of one length. */
	void (*hit)(void *cache, const uintptr_t *addresses, size_t n,
		    size_t length);
	/* The same, and the key is looked at, as who uses it does. */
	void (*hit_and_key)(void *cache, const uintptr_t *addresses, size_t n,
			    size_t length);
	/* How many calls were not hits, ever. */
	uint64_t (*misses)(void *cache);
	void (*close)(void *cache);
};

/* libmrcache with a monitor whose words are in a real shared mapping. */
extern const struct side side_mrcache;
/* The registration cache of UCX, with the flags its InfiniBand transport uses. */
extern const struct side side_ucx;

/* What only mrcache has. */
struct ibv_mr;
struct mrcache;
struct mrcache *side_mrcache_of(void *cache);
struct ibv_mr *side_mrcache_hold(void *cache, uintptr_t address, size_t length);
void side_mrcache_release(void *cache, struct ibv_mr *mr);
/* Something was invalidated that no registration in use overlaps. */
void side_mrcache_noise(void *cache);
/* Bytes of its own that the fakes take, to be left out. */
size_t side_mrcache_fake_bytes(void *cache);

#endif /* BENCH_SIDE_H */
