/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Making room, and ending what lingers. Under the cache lock unless it says
 * otherwise.
 */
#ifndef MRC_EVICT_H
#define MRC_EVICT_H

#include "retire.h"

/*
 * Makes room for one more of this length; false if all is held, as far as a
 * bounded number of looks shows. Each call looks at others, and once all were
 * seen held none looks any more until somebody gives back.
 */
bool mr_make_room(struct mrcache *cache, size_t length, struct mr **list);

/*
 * Ends idle ones that one of this range, which is going to be made, would make
 * needless (mr_find_within()), as soon as there are some: in each use of a buffer
 * at a greater length one is left behind.
 */
void mr_supersede(struct mrcache *cache, const struct mr_want *range,
		  struct mr **list);

/* Evicts idle ones of at least this many bytes; false if there is none. */
bool mr_evict(struct mrcache *cache, uint64_t bytes, uint64_t regs,
	      struct mr **list);

/*
 * (no lock) To be called twice in attr.linger, by the thread that alone puts
 * aside (retire.h): ends idle ones with remote access that were not used since
 * the last call.
 */
void mrc_linger(struct mrcache *cache);

/*
 * (no lock) Before a fork, which copies what is pinned: ends idle ones that are
 * large enough for that to cost more than making them again (attr.fork_release).
 */
void mrc_release_for_fork(struct mrcache *cache);

#endif /* MRC_EVICT_H */
