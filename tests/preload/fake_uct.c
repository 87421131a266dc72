/* SPDX-License-Identifier: BSD-2-Clause */
/* libuct_ib.so.0; see fake_ucx.h. */
#include "fake_ucx.h"

#include "fake_ibverbs.h"

#include <stdlib.h>
#include <string.h>

#undef ibv_reg_mr_iova

#define EXPORT __attribute__((visibility("default")))
#define ACCESS                                             \
	(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | \
	 IBV_ACCESS_REMOTE_WRITE)

static struct ibv_mr *reg_ex(struct ibv_pd *pd, void *addr, size_t length)
{
	struct fake_init_attr attr = {.length = length,
				      .access = ACCESS,
				      .comp_mask = 1 << 1,
				      .addr = addr};
	struct ibv_mr *mr = ibv_reg_mr_ex(pd, (struct ibv_mr_init_attr *)&attr);

	return mr && mr->pd == pd ? mr : NULL;
}

/* FAKE_UCT_VERB=iova, ex: by another function. */
EXPORT struct ibv_mr *fake_uct_reg(struct ibv_pd *pd, void *addr, size_t length)
{
	const char *verb = getenv("FAKE_UCT_VERB");
	struct ibv_mr *mr;

	if (verb && !strcmp(verb, "ex"))
		mr = reg_ex(pd, addr, length);
	else if (verb)
		mr = ibv_reg_mr_iova(pd, addr, length, (uintptr_t)addr, ACCESS);
	else
		mr = ibv_reg_mr(pd, addr, length, ACCESS);

	/* So that this call is no jump: who calls is of interest. */
	return mr && mr->pd == pd ? mr : NULL;
}

EXPORT int fake_uct_dereg(struct ibv_mr *mr)
{
	return ibv_dereg_mr(mr);
}
