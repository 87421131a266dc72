/* SPDX-License-Identifier: BSD-2-Clause */
#include "counters.h"

void mrc_counters_read(const struct mrc_counters *counters,
		       struct mrcache_stats *stats)
{
	const _Atomic uint64_t *counts = counters->counts;

	*stats = (struct mrcache_stats){
#define READ(name, member) .member = counts[STAT_##name],
		MRC_STAT_LIST(READ, READ)
#undef READ
	};
	for (int i = 0; i < MRCACHE_BYPASS_REASONS; i++)
		stats->bypass[i] = counts[STAT_BYPASS + i];
	for (unsigned int i = 0; i < MRC_COUNTED_THREADS; i++) {
		stats->hits += atomic_load_explicit(&counters->threads[i].hits,
						    memory_order_relaxed);
		stats->guard_checked += atomic_load_explicit(
			&counters->threads[i].guard_checked,
			memory_order_relaxed);
	}
}
