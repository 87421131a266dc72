/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A registration cache like UCX's for InfiniBand, on mrcache-transport.h:
 * regions of whole pages that serve whatever is inside them, with remote access,
 * a key for relaxed and one for strict order behind each, reference counts, and
 * invalidation with a completion.
 */
#include <errno.h>
#include <mrcache-transport.h>
#include <mrcache.h>

/* Of one memory domain; those of a context share a cache and its limits. */
struct ucx_rcache {
	struct mrcache *cache;
	struct ibv_pd *domain;
	struct ibv_pd *pd;
};

/* Of somebody who waits for a region to be gone. */
struct ucx_comp {
	void (*done)(struct ucx_comp *comp);
	struct ucx_comp *next;
};

/* A region; each MR is deregistered with it. */
struct ucx_memh {
	struct ibv_mr *region; /* addr and length of all of it */
	struct ibv_mr *relaxed, *strict;
	struct ucx_comp *comps;
};

#define UCX_ACCESS                                          \
	(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | \
	 IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC)

/* Called by the cache, for whole pages. */
static int ucx_reg(void *domain, struct ibv_mr *region, void *area, int access)
{
	struct ucx_rcache *r = domain;
	struct ucx_memh *memh = area;
	int error;

	memh->region = region;
	memh->relaxed = ibv_reg_mr(r->pd, region->addr, region->length,
				   access | IBV_ACCESS_RELAXED_ORDERING);
	if (!memh->relaxed)
		return -errno;
	memh->strict = ibv_reg_mr(r->pd, region->addr, region->length, access);
	if (memh->strict)
		return 0;
	error = errno;
	ibv_dereg_mr(memh->relaxed);
	return -error;
}

/* One that is gone already is not to be ended again when the other failed. */
static int ucx_dereg(void *domain, struct ibv_mr *region, void *area)
{
	struct ucx_memh *memh = area;
	struct ucx_comp *comp = memh->comps, *next;
	int ret;

	(void)domain;
	(void)region;
	if (memh->strict) {
		ret = ibv_dereg_mr(memh->strict);
		if (ret)
			return -ret;
		memh->strict = NULL;
	}
	ret = ibv_dereg_mr(memh->relaxed);
	if (ret)
		return -ret;
	for (; comp; comp = next) {
		next = comp->next;
		comp->done(comp);
	}
	return 0;
}

/* 0 or -errno, as all of them. limit: bytes that may stay registered. */
int ucx_context_open(struct mrcache **cache, uint64_t limit)
{
	struct mrcache_attr attr;

	mrcache_attr_init(&attr);
	attr.contain = attr.page_align = attr.remote = true;
	attr.max_bytes = limit;
	*cache = mrcache_open_own(&attr);
	return *cache ? 0 : -errno;
}

int ucx_rcache_open(struct ucx_rcache *r, struct mrcache *cache,
		    struct ibv_pd *pd)
{
	const struct mrcache_ops ops = {
		.size = sizeof(ops),
		.area = sizeof(struct ucx_memh),
		.reg = ucx_reg,
		.dereg = ucx_dereg,
		.verbs_pd = pd,
	};

	*r = (struct ucx_rcache){.cache = cache, .pd = pd};
	r->domain = mrcache_domain_new(&ops, r);
	return r->domain ? 0 : -errno;
}

int ucx_rcache_close(struct ucx_rcache *r)
{
	return mrcache_domain_free(r->cache, r->domain);
}

int ucx_rcache_get(struct ucx_rcache *r, void *addr, size_t length,
		   struct ucx_memh **memh)
{
	struct ibv_mr *region =
		mrcache_reg_mr(r->cache, r->domain, addr, length, UCX_ACCESS);

	if (!region)
		return -errno;
	*memh = mrcache_area(region);
	return 0;
}

void ucx_rcache_put(struct ucx_rcache *r, struct ucx_memh *memh)
{
	mrcache_dereg_mr(r->cache, memh->region);
}

/* Nobody finds it any more; done is called when the last has put it. */
void ucx_rcache_invalidate(struct ucx_rcache *r, struct ucx_memh *memh,
			   struct ucx_comp *comp)
{
	/* The caller holds it, so that it is not ended meanwhile. */
	comp->next = __atomic_load_n(&memh->comps, __ATOMIC_RELAXED);
	while (!__atomic_compare_exchange_n(&memh->comps, &comp->next, comp,
					    true, __ATOMIC_RELEASE,
					    __ATOMIC_RELAXED))
		;
	mrcache_revoke(r->cache, memh->region);
}

/* In the progress function. */
void ucx_rcache_progress(struct ucx_rcache *r)
{
	mrcache_progress(r->cache);
}
