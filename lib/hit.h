/* SPDX-License-Identifier: BSD-2-Clause */
/* The two calls that matter most; their documentation is in mrcache.h. */
#ifndef MRC_HIT_H
#define MRC_HIT_H

#include "types.h"

/*
 * mrcache_dereg_mr() for the shim, with nothing said: a negative value of
 * mrc_give_back()'s where that is the answer.
 */
int mrc_dereg_mr(struct mrcache *cache, struct ibv_mr *ibv);

#endif /* MRC_HIT_H */
