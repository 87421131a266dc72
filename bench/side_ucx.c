/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The registration cache of UCX with callbacks that do nothing, set up as its
 * InfiniBand transport does by default. The library is loaded when it runs.
 */
#include "side.h"
#include "bench.h"

#ifdef BENCH_UCX

#include <dlfcn.h>
#include <limits.h>
#include <stdlib.h>
#include <ucm/api/ucm.h>
#include <ucs/memory/rcache.h>
#include <unistd.h>

struct region {
	ucs_rcache_region_t super;
	/* Where the transport keeps what the registration returned. */
	uint32_t lkey;
	char handle[44];
};

struct cache {
	ucs_rcache_t *rcache;
	uint64_t misses;
};

static __typeof__(ucs_rcache_create) *create;
static __typeof__(ucs_rcache_destroy) *destroy;
static __typeof__(ucs_rcache_get) *get;
static __typeof__(ucs_rcache_region_put) *put;

static const char *missing(void)
{
	void *library;

	if (put)
		return NULL;
	library = dlopen("libucs.so.0", RTLD_NOW | RTLD_GLOBAL);
	if (!library)
		return "libucs.so.0 is not installed";
	create = dlsym(library, "ucs_rcache_create");
	destroy = dlsym(library, "ucs_rcache_destroy");
	get = dlsym(library, "ucs_rcache_get");
	put = dlsym(library, "ucs_rcache_region_put");
	if (!create || !destroy || !get || !put) {
		put = NULL;
		return "libucs.so.0 has no registration cache";
	}
	return NULL;
}

static ucs_status_t null_reg(void *context, ucs_rcache_t *rcache, void *arg,
			     ucs_rcache_region_t *region, uint16_t flags)
{
	struct cache *c = context;

	(void)rcache;
	(void)arg;
	(void)region;
	(void)flags;
	c->misses++;
	return UCS_OK;
}

static void null_dereg(void *context, ucs_rcache_t *rcache,
		       ucs_rcache_region_t *region)
{
	(void)context;
	(void)rcache;
	(void)region;
}

static void null_dump(void *context, ucs_rcache_t *rcache,
		      ucs_rcache_region_t *region, char *buf, size_t max)
{
	(void)context;
	(void)rcache;
	(void)region;
	if (max)
		*buf = '\0';
}

static void *open_cache(bool contain)
{
	static const ucs_rcache_ops_t ops = {null_reg, null_dereg, null_dump};
	struct cache *c = calloc(1, sizeof(*c));
	ucs_rcache_params_t params = {
		.region_struct_size = sizeof(struct region),
		.alignment = UCS_RCACHE_MIN_ALIGNMENT,
		.max_alignment = (size_t)sysconf(_SC_PAGESIZE),
		.ucm_events = UCM_EVENT_VM_UNMAPPED,
		.ucm_event_priority = 1000,
		.ops = &ops,
		.context = c,
		.flags = UCS_RCACHE_FLAG_PURGE_ON_FORK,
		.max_regions = ULONG_MAX,
		.max_size = SIZE_MAX,
		.max_unreleased = SIZE_MAX,
	};

	/* It always lets a larger one serve. */
	(void)contain;
	if (!c || create(&params, "bench", NULL, &c->rcache) != UCS_OK)
		bench_die("no cache of UCX");
	return c;
}

static inline void loop(void *cache, const uintptr_t *addresses, size_t n,
			size_t length, bool key)
{
	ucs_rcache_t *rcache = ((struct cache *)cache)->rcache;
	ucs_rcache_region_t *region;

	for (size_t i = 0; i < n; i++) {
		if (get(rcache, (void *)addresses[i], length,
			PROT_READ | PROT_WRITE, NULL, &region) != UCS_OK)
			bench_die("UCX found no region");
		if (key)
			(void)*(volatile uint32_t *)&((struct region *)region)
				->lkey;
		put(rcache, region);
	}
}

static void hit(void *cache, const uintptr_t *addresses, size_t n,
		size_t length)
{
	loop(cache, addresses, n, length, false);
}

static void hit_and_key(void *cache, const uintptr_t *addresses, size_t n,
			size_t length)
{
	loop(cache, addresses, n, length, true);
}

static uint64_t misses(void *cache)
{
	return ((struct cache *)cache)->misses;
}

static void close_cache(void *cache)
{
	destroy(((struct cache *)cache)->rcache);
	free(cache);
}

const struct side side_ucx = {
	.name = "ucx",
	.missing = missing,
	.open = open_cache,
	.hit = hit,
	.hit_and_key = hit_and_key,
	.misses = misses,
	.close = close_cache,
};

#else

static const char *missing(void)
{
	return "its headers were not there when this was built (libucx-dev)";
}

const struct side side_ucx = {.name = "ucx", .missing = missing};

#endif
