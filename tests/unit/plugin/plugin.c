/* SPDX-License-Identifier: BSD-2-Clause */
/* A plug-in with the library in it, that uses a cache and closes it again. */
#include "open.h"

static struct ibv_mr the_mr;

static struct ibv_mr *reg_mr(struct ibv_pd *pd, void *addr, size_t length,
			     int access)
{
	(void)pd, (void)addr, (void)length, (void)access;
	return &the_mr;
}

static int dereg_mr(struct ibv_mr *mr)
{
	return mr != &the_mr;
}

static const struct mrc_verbs verbs = {.reg_mr = reg_mr, .dereg_mr = dereg_mr};

/* 0 if all went well. The thread that calls has a record in the library. */
__attribute__((visibility("default"))) int plugin_use(void)
{
	struct ibv_pd pd = {0};
	struct mrcache_attr attr;
	struct mrcache *cache;
	struct ibv_mr *mr;

	mrcache_attr_init(&attr);
	cache = mrc_open(&attr, NULL, &verbs);
	if (!cache)
		return -1;
	mr = mrcache_reg_mr(cache, &pd, &pd, sizeof(pd), 0);
	return mrcache_dereg_mr(cache, mr) || mrcache_close(cache);
}
