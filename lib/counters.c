/* SPDX-License-Identifier: BSD-2-Clause */
#include "counters.h"

void mrc_counters_read(const struct mrc_counters *counters,
		       struct mrcache_stats *stats)
{
	const _Atomic uint64_t *counts = counters->counts;

	*stats = (struct mrcache_stats){
		.hits = counts[STAT_OTHER_HITS],
		.misses = counts[STAT_MISSES],
		.registrations = counts[STAT_REGISTRATIONS],
		.deregistrations = counts[STAT_DEREGISTRATIONS],
		.repins = counts[STAT_REPINS],
		.invalidations = counts[STAT_INVALIDATIONS],
		.evictions = counts[STAT_EVICTIONS],
		.reg_errors = counts[STAT_REG_ERRORS],
		.dereg_errors = counts[STAT_DEREG_ERRORS],
		.retries = counts[STAT_RETRIES],
		.drains = counts[STAT_DRAINS],
		.events = counts[STAT_EVENTS],
		.cached = counts[STAT_CACHED],
		.cached_bytes = counts[STAT_CACHED_BYTES],
		.stale_held = counts[STAT_STALE_HELD],
		.uncached = counts[STAT_UNCACHED],
	};
	for (int i = 0; i < MRCACHE_BYPASS_REASONS; i++)
		stats->bypass[i] = counts[STAT_BYPASS + i];
	for (unsigned int i = 0; i < MRC_COUNTED_THREADS; i++)
		stats->hits += atomic_load_explicit(&counters->threads[i].hits,
						    memory_order_relaxed);
}
