/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The statistics of a cache, in memory that may be a file, so that others can
 * read them while the program runs (`mrcache stat`). Counts are exact;
 * different ones are not of the same moment.
 */
#ifndef MRC_COUNTERS_H
#define MRC_COUNTERS_H

#include "mrcache.h"

#include <stdatomic.h>

/*
 * The numbers of struct mrcache_stats but the bypasses: COUNT is what happened, NOW
 * what is now.
 */
#define MRC_STAT_LIST(COUNT, NOW)                                            \
	COUNT(OTHER_HITS, hits) /* of threads without a line of their own */ \
	COUNT(MISSES, misses)                                                \
	COUNT(REGISTRATIONS, registrations)                                  \
	COUNT(DEREGISTRATIONS, deregistrations)                              \
	COUNT(REPINS, repins)                                                \
	COUNT(INVALIDATIONS, invalidations)                                  \
	COUNT(EVICTIONS, evictions)                                          \
	COUNT(REG_ERRORS, reg_errors)                                        \
	COUNT(DEREG_ERRORS, dereg_errors)                                    \
	COUNT(RETRIES, retries)                                              \
	COUNT(DRAINS, drains)                                                \
	COUNT(EVENTS, events)                                                \
	NOW(CACHED, cached)                                                  \
	NOW(CACHED_BYTES, cached_bytes)                                      \
	NOW(STALE_HELD, stale_held)                                          \
	NOW(UNCACHED, uncached)                                              \
	COUNT(GUARDED, guarded)                                              \
	COUNT(GUARD_CHECKED, guard_checked) /* all in the threads' lines */  \
	COUNT(GUARD_REFUSED, guard_refused)                                  \
	COUNT(GUARD_TOLD, guard_told)                                        \
	NOW(GUARD_UNWATCHED, guard_unwatched)                                \
	COUNT(FORK_RELEASES, fork_releases)                                  \
	COUNT(VERIFIED, verified)                                            \
	COUNT(REFUTED, refuted)

enum mrc_stat {
#define STAT(name, member) STAT_##name,
	MRC_STAT_LIST(STAT, STAT)
#undef STAT
		STAT_BYPASS, /* and MRCACHE_BYPASS_REASONS more */
	STATS = STAT_BYPASS + MRCACHE_BYPASS_REASONS,
};

_Static_assert(MRCACHE_BYPASS_REASONS <= MRCACHE_BYPASS_PLACES,
	       "every reason has a place");

#define MRC_COUNTERS_MAGIC UINT64_C(0x32736568636163) /* "caches2" */

/* Threads with a line of their own; further ones are missing in a file. */
#define MRC_COUNTED_THREADS 256u

struct mrc_counters {
	uint64_t magic; /* written last */
	uint32_t size;	/* sizeof(struct mrc_counters) */
	uint32_t stats; /* STATS */
	int64_t pid;
	uint64_t started; /* of the process: field 22 of /proc/PID/stat */
	char command[64]; /* NUL-terminated */
	char monitor[32];
	_Atomic uint64_t unguarded;  /* bits; see guard/unguarded.h */
	_Atomic uint64_t turned_off; /* bits; see preload/fallback.h */
	_Alignas(64) _Atomic uint64_t counts[STATS];
	struct {
		_Alignas(64) _Atomic uint64_t hits;
		_Atomic uint64_t guard_checked; /* of several threads */
	} threads[MRC_COUNTED_THREADS];
};

/* Everything that is in the counters, as mrcache_get_stats() gives it. */
void mrc_counters_read(const struct mrc_counters *counters,
		       struct mrcache_stats *stats);

#endif /* MRC_COUNTERS_H */
