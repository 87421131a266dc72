/* SPDX-License-Identifier: BSD-2-Clause */
/* The only file that calls libibverbs. */
#include "verbs.h"

static struct ibv_mr *real_reg_mr(struct ibv_pd *pd, void *addr, size_t length,
				  int access)
{
	return ibv_reg_mr(pd, addr, length, access);
}

static int real_dereg_mr(struct ibv_mr *mr)
{
	return ibv_dereg_mr(mr);
}

const struct mrc_verbs mrc_verbs_real = {
	.reg_mr = real_reg_mr,
	.dereg_mr = real_dereg_mr,
};
