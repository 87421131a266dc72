/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a process says of itself at its end: its counters (MRCACHE_STATS), and the
 * evidence that it was protected (MRCACHE_VERIFY). Both are the same line of JSON.
 */
#ifndef MRC_SUMMARY_H
#define MRC_SUMMARY_H

#include "types.h"

/*
 * Evidence: MRCACHE_VERIFY is a directory; each process that registers memory
 * has a file there, HOST.PID, with a line when it begins and one when it ends.
 * So one that never came to its end is known not to be known.
 */
void summary_begin(struct mrcache *cache);

/* The process ends. */
void summary_end(struct mrcache *cache);

/* A registration in a fork child of the cache's process: nobody looks there. */
void summary_child(struct mrcache *cache);

/* A registration in a process that could not open a cache, or was not to. */
void summary_no_cache(void);

/*
 * The end of a process without a cache, that registered around us all the same:
 * `unguarded` is what was found.
 */
void summary_stranger(unsigned int unguarded);

#endif /* MRC_SUMMARY_H */
