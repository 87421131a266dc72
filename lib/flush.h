/* SPDX-License-Identifier: BSD-2-Clause */
/* Ending many registrations at once: of a protection domain, of a range. */
#ifndef MRC_FLUSH_H
#define MRC_FLUSH_H

#include "retire.h"

/*
 * Callbacks may register something new whenever something ends; after so many
 * rounds of ending it that is taken for what they want.
 */
#define MRC_MOST_ROUNDS 1000

/* (lock) Dooms all of a protection domain; to be followed by mr_sift(). */
void mrc_doom_all(struct mrcache *cache, const struct mrc_pd *entry,
		  struct mr **doomed);

/* (lock) Those that somebody has, or is about to get. */
int mrc_count_held(struct mrcache *cache, const struct mrc_pd *entry);

/*
 * mrcache_flush() of all protection domains that match. It returns when those
 * that others are deregistering are gone, too, so that what they belong to can
 * be freed.
 */
typedef bool mrc_match_fn(const struct mrc_pd *pd, const void *arg);
int mrc_flush_matching(struct mrcache *cache, mrc_match_fn *match,
		       const void *arg);

#endif /* MRC_FLUSH_H */
