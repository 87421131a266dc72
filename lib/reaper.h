/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The reaper: a thread that drains soon after the monitor has something, so
 * that memory a program has freed does not stay pinned until its next miss. To
 * wake it for each change would cost the program that changes its memory; so it
 * looks at most once in a while.
 */
#ifndef MRC_REAPER_H
#define MRC_REAPER_H

#include "types.h"

/*
 * How long after the first change the monitor is asked, also for what followed, in
 * milliseconds. Only tests change it.
 */
extern int mrc_reaper_batch __attribute__((visibility("hidden")));

int mrc_reaper_start(struct mrcache *cache);
void mrc_reaper_stop(struct mrcache *cache);

/*
 * The same when the process ends, but waits a second at most: exit() may have
 * been called by a signal handler over a holder of the locks.
 */
void mrc_reaper_leave(struct mrcache *cache);

/* In a fork child, where the thread does not exist; frees nothing. */
void mrc_reaper_forget(struct mrcache *cache);

#endif /* MRC_REAPER_H */
