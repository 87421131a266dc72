/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How a registration ends: doomed, it is not found again; once nobody holds it,
 * it is deregistered and goes back to the pool. Functions marked (lock) want the
 * cache lock held, those marked (no lock) want it free.
 */
#ifndef MRC_RETIRE_H
#define MRC_RETIRE_H

#include "listed.h"

/*
 * (lock) LIVE to DOOMED. Any number of these must be followed by mr_sift(),
 * which moves those not held to RELEASING and onto the list. *list: NULL, or
 * from an earlier call.
 */
void mr_doom(struct mrcache *cache, struct mr *mr, bool stale,
	     struct mr **doomed);
/* (lock) The memory of a DOOMED one changed; also followed by mr_sift(). */
void mr_mark_stale(struct mrcache *cache, struct mr *mr);
/* (lock) A stale DOOMED one turned out to have its pages. */
void mr_unmark_stale(struct mrcache *cache, struct mr *mr);
void mr_sift(struct mrcache *cache, struct mr *doomed, struct mr **list);

/*
 * (lock) As mr_sift(), for a thread that has time. Where the fence would disturb
 * others what is doomed is put aside instead, and in either case it calls
 * mr_sift_aside() (no lock) afterwards, which returns those that are not held.
 * Whoever sifts before sifts that, too.
 */
void mr_sift_later(struct mrcache *cache, struct mr *doomed, struct mr **list);
struct mr *mr_sift_aside(struct mrcache *cache);

/*
 * (lock) It belongs to the thread that deregisters it. Numbered, so that who
 * waits for those there are now need not wait for those to come.
 */
static inline void mr_set_releasing(struct mrcache *cache, struct mr *mr)
{
	mr->retired = ++cache->retired;
	mr->state = MR_RELEASING;
}

/* (no lock) Deregisters what is on a list of RELEASING ones. */
void mr_release(struct mrcache *cache, struct mr *list);

/* (no lock) Deregisters what was cached as mr, now RELEASING or BUSY, and no more. */
void mr_end(struct mrcache *cache, struct mr *mr, bool stale);

/* (no lock) Ends a use that is doomed and no longer held. */
void mr_finish(struct mrcache *cache, struct mr *mr);

/* (no lock) Gives a hold back. */
static inline void mr_hold_drop(struct mrcache *cache, struct mr_hold *hold)
{
	if (__builtin_expect(mr_hold_sub(cache, hold), 0))
		mr_finish(cache, hold->mr);
}

#endif /* MRC_RETIRE_H */
