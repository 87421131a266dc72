/* SPDX-License-Identifier: BSD-2-Clause */
/* The lines that README shows, in a program. */
#include "device.h"

#include <mrcache.h>
#include <stdlib.h>

/* clang-format off */
static void use(struct ibv_pd *pd, void *buffer, size_t length)
{
	/* README begins */
	struct mrcache *cache = mrcache_open(NULL);
	if (!cache)
		err(1, "mrcache_open");

	struct ibv_mr *mr = mrcache_reg_mr(cache, pd, buffer, length, IBV_ACCESS_LOCAL_WRITE);
	if (!mr)
		err(1, "mrcache_reg_mr");
	/* ... post work with mr->lkey; if mr is kept, ask mrcache_valid(cache, mr) before each use ... */
	mrcache_dereg_mr(cache, mr);   /* stays registered for the next caller */

	mrcache_flush(cache, pd);   /* before ibv_dealloc_pd(pd) */
	mrcache_close(cache);
	/* README ends */
}
/* clang-format on */

int main(void)
{
	struct ibv_pd *pd = open_pd();
	char *buffer = malloc(65536);

	if (!buffer)
		err(1, "malloc");
	use(pd, buffer, 65536);
	free(buffer);
	close_pd(pd);
	return 0;
}
