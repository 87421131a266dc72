/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whether a registration whose memory was hit still has its pages (docs/design.md,
 * D8), so that it need not be made again. Only with attr.fingerprint, and with a
 * monitor that can tell.
 */
#ifndef MRC_VERIFY_H
#define MRC_VERIFY_H

#include "types.h"

/*
 * Of one that was hit: whether it may turn out to have its pages. A guess without
 * the lock; the owner of a RELEASING one knows.
 */
bool mr_may_live_on(struct mrcache *cache, struct mr *mr);

/*
 * (no lock) Of the BUSY mr, which was armed and then registered as ibv: what to
 * compare with later. The monitor gives none if it was hit since it was armed.
 */
void mr_take_print(struct mrcache *cache, struct mr *mr);

/*
 * (no lock) Puts those on a list of RELEASING ones back that still have their
 * pages, and returns the others. Nothing is faulted in.
 */
struct mr *mr_verify(struct mrcache *cache, struct mr *list);

/*
 * (no lock) Of one that the caller holds and that may live on: whether it still has
 * its pages. It is not found any more, but valid for those that hold it.
 */
bool mr_verify_held(struct mrcache *cache, struct mr *mr);

#endif /* MRC_VERIFY_H */
