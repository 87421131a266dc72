/* SPDX-License-Identifier: BSD-2-Clause */
/* A cache on libibverbs and the device: all that the shim has otherwise. */
#include "cancel.h"
#include "open.h"
#include "publish.h"

#include <unistd.h>

/* The process in which a thread is at it: in a child of fork nobody is. */
static _Atomic pid_t publishing;

/*
 * The first that is open is the one that `mrcache stat` shows; of two that are
 * opened at once, the first to come.
 */
struct mrcache *mrcache_open(const struct mrcache_attr *attr)
{
	MRC_NOT_CANCELLED;
	pid_t self = getpid(), other = atomic_load(&publishing);
	bool first = other != self &&
		     atomic_compare_exchange_strong(&publishing, &other, self);
	struct mrc_counters *counters = first ? publish_new() : NULL;
	struct mrcache *cache;

	cache = mrc_open_device(attr, &mrc_verbs_real, counters);
	if (cache && counters)
		publish_begin(cache);
	else if (counters)
		publish_end();
	if (first)
		atomic_store(&publishing, 0);
	return cache;
}

/* What a closed cache counted stays to be seen until then. */
__attribute__((destructor)) static void at_end(void)
{
	publish_end();
}
