/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Statistics for others: counters in a file of shared memory while the process
 * runs, a summary when it ends (MRCACHE_STATS).
 */
#ifndef MRC_PUBLISH_H
#define MRC_PUBLISH_H

#include "mrcache_int.h"

/* Where the files are; a file's name is mrcache.UID.PID. */
#define PUBLISH_DIRECTORY "/dev/shm"

/* Counters in a new file, or NULL: then the cache has its own. */
struct mrc_counters *publish_new(void);

/* There will be no cache: removes the file again. */
void publish_abandon(void);

/* The cache is open: what readers need to know besides the counts. */
void publish_begin(struct mrcache *cache);

/* The process ends: removes the file; the summary. */
void publish_end(struct mrcache *cache);

#endif /* MRC_PUBLISH_H */
