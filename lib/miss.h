/* SPDX-License-Identifier: BSD-2-Clause */
/* Registering what was not found: watch, pin, look, publish. */
#ifndef MRC_MISS_H
#define MRC_MISS_H

#include "lookup.h"

/*
 * (no lock) Not found without the lock: looks again under it, else registers.
 * NULL and errno as ibv_reg_mr().
 */
struct ibv_mr *mrc_miss(struct mrcache *cache, struct mrc_thread *thread,
			const struct mr_want *want);

#endif /* MRC_MISS_H */
