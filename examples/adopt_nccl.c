/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The registrations of a net plug-in like NCCL's for InfiniBand, on
 * mrcache-transport.h: one handle for several NICs that work as one, whole
 * pages, remote access, and a flag for strict order. The plug-in's own frees a
 * registration with its last user; this one keeps it while it is right.
 */
#include <errno.h>
#include <mrcache-transport.h>
#include <mrcache.h>

#define NCCL_MAX_DEVS 4

/* NICs that work as one. */
struct nccl_vnic {
	struct mrcache *cache; /* of all vNICs of the process */
	struct ibv_pd *domain;
	unsigned int ndevs;
	struct ibv_pd *pds[NCCL_MAX_DEVS];
};

/* What the library above calls mhandle: a key for each NIC. */
struct nccl_mhandle {
	struct ibv_mr *entry;
	struct ibv_mr *mrs[NCCL_MAX_DEVS];
};

#define NCCL_ACCESS                                         \
	(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | \
	 IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC)

/* 0 or a positive errno value; what is gone is NULL, to be tried again. */
static int nccl_dereg_all(struct nccl_vnic *v, struct nccl_mhandle *mhandle)
{
	for (unsigned int i = 0; i < v->ndevs; i++) {
		int ret = mhandle->mrs[i] ? ibv_dereg_mr(mhandle->mrs[i]) : 0;

		if (ret)
			return ret;
		mhandle->mrs[i] = NULL;
	}
	return 0;
}

static int nccl_reg(void *domain, struct ibv_mr *entry, void *area, int access)
{
	struct nccl_mhandle *mhandle = area;
	struct nccl_vnic *v = domain;

	mhandle->entry = entry;
	for (unsigned int i = 0; i < v->ndevs; i++) {
		int error;

		mhandle->mrs[i] = ibv_reg_mr(v->pds[i], entry->addr,
					     entry->length, access);
		if (mhandle->mrs[i])
			continue;
		error = errno;
		nccl_dereg_all(v, mhandle);
		return -error;
	}
	return 0;
}

static int nccl_dereg(void *domain, struct ibv_mr *entry, void *area)
{
	(void)entry;
	return -nccl_dereg_all(domain, area);
}

/* One cache for all. 0 or -errno, as all of them. */
int nccl_init(struct mrcache **cache, uint64_t max_regs)
{
	struct mrcache_attr attr;

	mrcache_attr_init(&attr);
	attr.contain = attr.page_align = true;
	attr.max_regs = max_regs;
	*cache = mrcache_open_own(&attr);
	return *cache ? 0 : -errno;
}

int nccl_vnic_open(struct nccl_vnic *v, struct mrcache *cache,
		   struct ibv_pd *const *pds, unsigned int ndevs)
{
	const struct mrcache_ops ops = {
		.size = sizeof(ops),
		.area = sizeof(struct nccl_mhandle),
		.reg = nccl_reg,
		.dereg = nccl_dereg,
		.verbs_pd = ndevs ? pds[0] : NULL,
	};

	if (!ndevs || ndevs > NCCL_MAX_DEVS)
		return -EINVAL;
	*v = (struct nccl_vnic){.cache = cache, .ndevs = ndevs};
	for (unsigned int i = 0; i < ndevs; i++)
		v->pds[i] = pds[i];
	v->domain = mrcache_domain_new(&ops, v);
	return v->domain ? 0 : -errno;
}

int nccl_vnic_close(struct nccl_vnic *v)
{
	return mrcache_domain_free(v->cache, v->domain);
}

int nccl_reg_mr(struct nccl_vnic *v, void *data, size_t size, bool strict,
		struct nccl_mhandle **mhandle)
{
	struct mrcache_request request = {
		.size = sizeof(request),
		.pd = v->domain,
		.addr = data,
		.length = size,
		.access = NCCL_ACCESS |
			  (strict ? 0 : IBV_ACCESS_RELAXED_ORDERING),
		.flags = MRCACHE_REG_REMOTE,
	};
	struct ibv_mr *entry = mrcache_reg_mr_ex(v->cache, &request);

	if (!entry)
		return -errno;
	*mhandle = mrcache_area(entry);
	return 0;
}

int nccl_dereg_mr(struct nccl_vnic *v, struct nccl_mhandle *mhandle)
{
	return -mrcache_dereg_mr(v->cache, mhandle->entry);
}

/*
 * In isend, irecv and iput: -ESTALE if the memory was freed since nccl_reg_mr(),
 * instead of sending what is not there any more.
 */
int nccl_check(const struct nccl_vnic *v, const struct nccl_mhandle *mhandle)
{
	return mrcache_valid(v->cache, mhandle->entry) ? 0 : -ESTALE;
}
