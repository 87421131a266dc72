/* SPDX-License-Identifier: BSD-2-Clause */
/* libucp.so.0; see fake_ucx.h. */
#include "fake_ucx.h"

#include <stdlib.h>

#define EXPORT __attribute__((visibility("default")))

/* One function, whose callers were compiled with headers of two versions. */
extern signed char get_113(struct fake_rcache *, void *, size_t, int, void *,
			   struct fake_region **) __asm__("ucs_rcache_get");
extern signed char get_118(struct fake_rcache *, void *, size_t, size_t, int,
			   void *,
			   struct fake_region **) __asm__("ucs_rcache_get");

struct fake_ucp {
	struct ibv_pd *pd;
	struct fake_rcache *rcache;
	pthread_mutex_t lock;
};

static struct fake_region *reg(void *context, uintptr_t start, uintptr_t end)
{
	struct fake_ucp *ucp = context;
	struct fake_region *region = calloc(1, sizeof(*region));

	region->start = start;
	region->end = end;
	region->refs = 1;
	region->mr = fake_uct_reg(ucp->pd, (void *)start, end - start);
	if (region->mr)
		return region;
	free(region);
	return NULL;
}

static void dereg(void *context, struct fake_region *region)
{
	(void)context;
	if (fake_uct_dereg(region->mr))
		abort();
}

EXPORT struct fake_ucp *fake_ucp_open(struct ibv_pd *pd, bool cache)
{
	struct fake_ucp *ucp = calloc(1, sizeof(*ucp));
	struct fake_params params = {
		.reg = reg,
		.dereg = dereg,
		.context = ucp,
		.flags = fake_is_113() ? 0 : FAKE_SYNC,
	};

	ucp->pd = pd;
	pthread_mutex_init(&ucp->lock, NULL);
	if (cache &&
	    ucs_rcache_create(&params, "ucp_rcache", NULL, &ucp->rcache))
		ucp->rcache = NULL;
	return ucp;
}

EXPORT void fake_ucp_close(struct fake_ucp *ucp)
{
	if (ucp->rcache)
		ucs_rcache_destroy(ucp->rcache);
	free(ucp);
}

EXPORT bool fake_ucp_has_cache(const struct fake_ucp *ucp)
{
	return ucp->rcache;
}

/* The fast path; with ucp->lock. */
static struct fake_region *look_up(struct fake_ucp *ucp, uintptr_t start,
				   size_t length)
{
	struct fake_region *region;

	if (ucp->rcache->queue)
		return NULL;
	if (fake_at)
		fake_at("queue");
	region = ucs_pgtable_lookup(&ucp->rcache->table, start);
	if (!region || start + length > region->end || !region->registered)
		return NULL;
	region->refs++;
	return region;
}

EXPORT struct fake_region *fake_ucp_get(struct fake_ucp *ucp, void *addr,
					size_t length)
{
	uintptr_t start = (uintptr_t)addr;
	struct fake_region *region = NULL;

	if (!ucp->rcache)
		return reg(ucp, start, start + length);
	if (fake_is_113()) {
		get_113(ucp->rcache, addr, length, 3, ucp, &region);
		return region;
	}
	pthread_mutex_lock(&ucp->lock);
	region = look_up(ucp, start, length);
	pthread_mutex_unlock(&ucp->lock);
	if (region)
		return region;
	pthread_mutex_lock(&ucp->lock);
	get_118(ucp->rcache, addr, length, 16, 3, ucp, &region);
	pthread_mutex_unlock(&ucp->lock);
	return region;
}

EXPORT void fake_ucp_put(struct fake_ucp *ucp, struct fake_region *region)
{
	if (!ucp->rcache) {
		dereg(ucp, region);
		free(region);
		return;
	}
	if (!fake_is_113())
		pthread_mutex_lock(&ucp->lock);
	ucs_rcache_region_put(ucp->rcache, region);
	if (!fake_is_113())
		pthread_mutex_unlock(&ucp->lock);
}
