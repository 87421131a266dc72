/* SPDX-License-Identifier: BSD-2-Clause */
/* Giving back what is not remembered by the thread that gives it. */
#ifndef MRC_GIVEBACK_H
#define MRC_GIVEBACK_H

#include "lookup.h"

/*
 * (no lock) 0; -ENOENT for an ibv_mr that did not come from this cache, and
 * -EINVAL for one that is not held; for one that was not cached ibv_dereg_mr()'s
 * value.
 */
int mrc_give_back(struct mrcache *cache, struct ibv_mr *ibv);

/*
 * Makes ibv, which the caller holds, its own, so that it may be changed:
 * 0; -EBUSY if others hold it, too; -ENOENT if the cache does not know it.
 */
int mrc_unshare(struct mrcache *cache, const struct ibv_mr *ibv);

#endif /* MRC_GIVEBACK_H */
