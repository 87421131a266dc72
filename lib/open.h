/* SPDX-License-Identifier: BSD-2-Clause */
/* Opening a cache on verbs and a monitor other than the usual ones. */
#ifndef MRC_OPEN_H
#define MRC_OPEN_H

#include "types.h"

/*
 * mrcache_open() with verbs given, and with counters in shared memory
 * (munmap()ed at close; NULL: private memory).
 */
struct mrcache *mrc_open_device(const struct mrcache_attr *attr,
				const struct mrc_verbs *verbs,
				struct mrc_counters *counters);

/*
 * The innermost: attr is complete, monitor (or NULL) is taken over, also on
 * failure. NULL and errno.
 */
struct mrcache *mrc_open_with(const struct mrcache_attr *attr,
			      struct mrc_monitor *monitor,
			      const struct mrc_verbs *verbs,
			      struct mrc_counters *counters);
static inline struct mrcache *mrc_open(const struct mrcache_attr *attr,
				       struct mrc_monitor *monitor,
				       const struct mrc_verbs *verbs)
{
	return mrc_open_with(attr, monitor, verbs, NULL);
}

#endif /* MRC_OPEN_H */
