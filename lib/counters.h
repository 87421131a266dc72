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

enum mrc_stat {
	STAT_MISSES,
	STAT_REGISTRATIONS,
	STAT_DEREGISTRATIONS,
	STAT_REPINS,
	STAT_INVALIDATIONS,
	STAT_EVICTIONS,
	STAT_REG_ERRORS,
	STAT_DEREG_ERRORS,
	STAT_RETRIES,
	STAT_DRAINS,
	STAT_EVENTS,
	STAT_OTHER_HITS, /* of threads without a record */
	/* what is now, changed under the cache lock */
	STAT_CACHED,
	STAT_CACHED_BYTES,
	STAT_STALE_HELD,
	STAT_UNCACHED,
	STAT_BYPASS, /* and MRCACHE_BYPASS_REASONS more */
	STATS = STAT_BYPASS + MRCACHE_BYPASS_REASONS,
};

#define MRC_COUNTERS_MAGIC UINT64_C(0x31736568636163) /* "caches1" */

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
	_Alignas(64) _Atomic uint64_t counts[STATS];
	struct {
		_Alignas(64) _Atomic uint64_t hits;
	} threads[MRC_COUNTED_THREADS];
};

/* Everything that is in the counters, as mrcache_stats() gives it. */
void mrc_counters_read(const struct mrc_counters *counters,
		       struct mrcache_stats *stats);

#endif /* MRC_COUNTERS_H */
