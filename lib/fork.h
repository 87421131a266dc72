/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a fork child must find: locks that are free, and a cache that knows that
 * it is not its own.
 */
#ifndef MRC_FORK_H
#define MRC_FORK_H

#include "types.h"

/* What the heads of closed caches point to; mrcache_valid() is false then. */
extern const uint64_t mrc_no_generation;
extern struct mrc_hot mrc_no_hot;

/* A page of its own, zeroed in children; NULL without memory. */
struct mrc_hot *mrc_hot_new(void);
void mrc_hot_free(struct mrc_hot *hot);

/* In private memory; NULL without. */
struct mrc_counters *mrc_counters_new(void);
/* Also what the caller of mrc_open_with() gave; not those that children have. */
void mrc_counters_free(struct mrc_counters *counters);

/*
 * Handlers run in the reverse order before a fork: those that take locks must run
 * after those of others who call us in theirs, so the shim's are set first. Else
 * mrc_fork_register() will do, which also sets the one that ends registrations.
 */
void mrc_fork_init(void);

/* From now on fork takes its locks, */
void mrc_fork_register(struct mrcache *cache);

/*
 * (no lock) Before it is taken apart: waits for forks that are ending its
 * registrations, and from here to mrc_fork_unregister() no other goes on.
 */
void mrc_fork_closing(const struct mrcache *cache);

/*
 * and no more. The closed cache's memory stays for a while, so that using it is
 * an error: until many more were closed, and while a thread has a record of it.
 */
void mrc_fork_unregister(struct mrcache *cache);

#endif /* MRC_FORK_H */
