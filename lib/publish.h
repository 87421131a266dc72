/* SPDX-License-Identifier: BSD-2-Clause */
/* Statistics for others: counters in a file of shared memory while a process runs. */
#ifndef MRC_PUBLISH_H
#define MRC_PUBLISH_H

#include "types.h"

/* Where the files are; a file's name is mrcache.UID.PID. */
#define PUBLISH_DIRECTORY "/dev/shm"

/*
 * Counters in a new file, or NULL: then the cache has its own. There is one file
 * for a process: of two caches that are open the first has it. Not for two
 * threads at once.
 */
struct mrc_counters *publish_new(void);

/* The cache is open: what readers need to know besides the counts. */
void publish_begin(struct mrcache *cache);

/* A cache is closed: the next that is opened has the file. */
void publish_closed(struct mrcache *cache);

/* Removes the file, in the process that made it. */
void publish_end(void);

/*
 * When a process was started: with its number it names one process. 0: there is
 * none. PID 0 is this one, whatever PID namespace /proc is of.
 */
uint64_t publish_start_time(pid_t pid);

#endif /* MRC_PUBLISH_H */
