/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Operations of the caller's in the place of verbs. To the cache a domain is a
 * struct ibv_pd and an entry a struct ibv_mr, of which it only uses the
 * addresses; here are the larger structures they are the beginning of.
 */
#include "cancel.h"
#include "flush.h"
#include "mrcache-transport.h"
#include "open.h"

#include <errno.h>
#include <stdlib.h>

#define MAX_AREA ((size_t)1 << 20)

struct own_domain {
	struct ibv_pd pd; /* first; context is NULL, as of no real one */
	uint32_t magic;
	struct mrcache_ops ops;
	void *domain;
};
#define MAGIC 0x6f776e64u

struct own_mr {
	struct ibv_mr mr; /* first */
	/* Not by way of mr.pd, which the caller can write to. */
	struct own_domain *domain;
	_Alignas(MRCACHE_AREA_OFFSET) char area[];
};
_Static_assert(offsetof(struct own_mr, area) == MRCACHE_AREA_OFFSET,
	       "mrcache_area()");

/* The larger one, or NULL if it is none. */
static struct own_domain *domain_of(struct ibv_pd *pd)
{
	struct own_domain *domain = (struct own_domain *)pd;

	return pd && !pd->context && domain->magic == MAGIC ? domain : NULL;
}

/* miss.c's question about fork support; nothing else is of no memory. */
static bool is_question(uintptr_t start, size_t length, int access)
{
	return length == 1 && start > UINTPTR_MAX - ((uintptr_t)1 << 20) &&
	       access == IBV_ACCESS_REMOTE_WRITE;
}

static struct ibv_mr *ask(struct ibv_pd *pd, void *addr, size_t length,
			  int access)
{
	if (pd)
		return mrc_verbs_real.reg_mr(pd, addr, length, access);
	errno = MRC_NOT_ASKED; /* another domain may know */
	return NULL;
}

static struct ibv_mr *own_reg_mr(struct ibv_pd *pd, void *addr, size_t length,
				 int access)
{
	struct own_domain *domain = domain_of(pd);
	struct own_mr *own;
	int ret;

	if (!domain) {
		errno = EINVAL;
		return NULL;
	}
	if (is_question((uintptr_t)addr, length, access))
		return ask(domain->ops.verbs_pd, addr, length, access);
	own = aligned_alloc(
		_Alignof(struct own_mr),
		(sizeof(*own) + domain->ops.area + MRCACHE_AREA_OFFSET - 1) &
			~((size_t)MRCACHE_AREA_OFFSET - 1));
	if (!own) {
		errno = ENOMEM;
		return NULL;
	}
	*own = (struct own_mr){
		.mr = {.pd = pd, .addr = addr, .length = length},
		.domain = domain,
	};
	for (size_t i = 0; i < domain->ops.area; i++)
		own->area[i] = 0;
	ret = domain->ops.reg(domain->domain, &own->mr, own->area, access);
	if (!ret)
		return &own->mr;
	free(own);
	errno = -ret;
	return NULL;
}

static int own_dereg_mr(struct ibv_mr *mr)
{
	struct own_mr *own = (struct own_mr *)mr;
	int ret = own->domain->ops.dereg(own->domain->domain, mr, own->area);

	if (!ret)
		free(own);
	return -ret;
}

static const struct mrc_verbs own_verbs = {
	.reg_mr = own_reg_mr,
	.dereg_mr = own_dereg_mr,
};

struct mrcache *mrcache_open_own(const struct mrcache_attr *attr)
{
	return mrc_open_device(attr, &own_verbs, NULL);
}

struct ibv_pd *mrcache_domain_new(const struct mrcache_ops *ops, void *domain)
{
	struct own_domain *own;

	if (!ops || ops->size != sizeof(*ops) || !ops->reg || !ops->dereg ||
	    ops->area > MAX_AREA) {
		errno = EINVAL;
		return NULL;
	}
	own = calloc(1, sizeof(*own));
	if (!own)
		return NULL;
	own->magic = MAGIC;
	own->ops = *ops;
	own->domain = domain;
	return (struct ibv_pd *)own;
}

/* Whether an entry is there, or is just being ended by another thread. */
static bool is_used(struct mrcache *cache, struct ibv_pd *pd)
{
	MRC_NOT_CANCELLED;
	struct mrc_pd *entry;
	bool used;

	if (!mrc_is_owner(cache))
		return false;
	pthread_mutex_lock(&cache->lock);
	HASH_FIND_PTR(cache->pds, &pd, entry);
	used = entry && entry->mrs;
	pthread_mutex_unlock(&cache->lock);
	return used;
}

int mrcache_domain_free(struct mrcache *cache, struct ibv_pd *pd)
{
	struct own_domain *domain = domain_of(pd);
	int round = 0, held;

	if (!domain)
		return -EINVAL;
	/* Its operations, which registrations call, end with it. */
	do {
		held = mrcache_flush(cache, pd);
		if (held)
			return held < 0 ? held : -EBUSY;
		if (round++ == MRC_MOST_ROUNDS)
			return -EBUSY;
	} while (is_used(cache, pd));
	domain->magic = 0;
	free(domain);
	return 0;
}
