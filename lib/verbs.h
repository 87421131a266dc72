/* SPDX-License-Identifier: BSD-2-Clause */
/* The verbs the cache calls, as a table so that tests can put in their own. */
#ifndef MRC_VERBS_H
#define MRC_VERBS_H

#include <infiniband/verbs.h>

struct mrc_verbs {
	/* As ibv_reg_mr(): NULL and errno. */
	struct ibv_mr *(*reg_mr)(struct ibv_pd *pd, void *addr, size_t length,
				 int access);
	/* As ibv_dereg_mr(): 0 or a positive errno value. */
	int (*dereg_mr)(struct ibv_mr *mr);
	/* As ibv_is_fork_initialized(). */
	enum ibv_fork_status (*fork_status)(void);
};

extern const struct mrc_verbs mrc_verbs_real;

#endif /* MRC_VERBS_H */
