/* SPDX-License-Identifier: BSD-2-Clause */
/* The only file that calls libibverbs. */
#include "mrcache_int.h"

static struct ibv_mr *real_reg_mr(struct ibv_pd *pd, void *addr, size_t length,
				  int access)
{
	return ibv_reg_mr(pd, addr, length, access);
}

static int real_dereg_mr(struct ibv_mr *mr)
{
	return ibv_dereg_mr(mr);
}

static enum ibv_fork_status real_fork_status(void)
{
	return ibv_is_fork_initialized();
}

const struct mrc_verbs mrc_verbs_real = {
	.reg_mr = real_reg_mr,
	.dereg_mr = real_dereg_mr,
	.fork_status = real_fork_status,
};

struct mrcache *mrcache_open(const struct mrcache_attr *attr)
{
	return mrc_open_device(attr, &mrc_verbs_real, NULL);
}
