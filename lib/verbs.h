/* SPDX-License-Identifier: BSD-2-Clause */
/* The verbs the cache calls, as a table so that tests can put in their own. */
#ifndef MRC_VERBS_H
#define MRC_VERBS_H

#include <errno.h>
#include <infiniband/verbs.h>

/* What reg_mr fails with if there is nobody to ask about fork support. */
#define MRC_NOT_ASKED ENODATA

struct mrc_verbs {
	/* As ibv_reg_mr(): NULL and errno. */
	struct ibv_mr *(*reg_mr)(struct ibv_pd *pd, void *addr, size_t length,
				 int access);
	/* As ibv_dereg_mr(): 0 or a positive errno value. */
	int (*dereg_mr)(struct ibv_mr *mr);
};

extern const struct mrc_verbs mrc_verbs_real;

#endif /* MRC_VERBS_H */
