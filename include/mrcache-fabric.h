/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libmrcache-fabric: a memory monitor for libfabric's registration caches that
 * misses nothing. libfabric finds out by hooks in the C library, or with
 * userfaultfd, when memory changes that it keeps registered; here the kernel's
 * /dev/ummunotify tells. Every entry of the caches is looked at before it is
 * used, which takes no system call.
 *
 * For programs that call libfabric (1.13 or later) themselves and are built with
 * this library. Others are guarded without being changed: see `mrcache run`.
 */
#ifndef MRCACHE_FABRIC_H
#define MRCACHE_FABRIC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MRCACHE_FABRIC_API __attribute__((visibility("default")))

/*
 * Makes it the memory monitor of all of libfabric's caches, for the rest of the
 * process. To be called before the first domain is opened (fi_domain), and by
 * one part of the program only. It initialises libfabric if need be.
 *
 * device: a path, or NULL for $MRCACHE_DEVICE or else /dev/ummunotify. A monitor
 * that FI_MR_CACHE_MONITOR names is overridden.
 *
 * Returns 0, also if it was done before; or, and then nothing has changed:
 *   -EBUSY      the process has an imported monitor already (under `mrcache run`
 *               it has this one), or a domain with a cache is open
 *   -ECANCELED  FI_MR_CACHE_MONITOR=disabled: the user wants no cache
 *   -ENOENT, -EACCES, ...  the device cannot be opened
 *   -EOPNOTSUPP the driver has no state words (it is one of 2010)
 *   -ENOSYS     libfabric cannot import a monitor
 *   -ENOMEM
 *
 * Thread-safe. In a child after fork nothing is kept in the caches: each
 * registration is made, used and ended.
 *
 * The first registration of a range is not kept, because libfabric says what it
 * registers only afterwards; the second one is. A thread, started with the
 * first registration, tells libfabric of what has changed.
 */
MRCACHE_FABRIC_API int mrcache_fabric_import(const char *device);

struct mrcache_fabric_stats {
	uint64_t checked;   /* lookups that found an entry */
	uint64_t refused;   /* of these, what was found was stale */
	uint64_t told;	    /* changes that libfabric was told of */
	uint64_t unwatched; /* ranges that could not be watched, so not kept */
	uint64_t broken;    /* 1: the device cannot be read; nothing is kept */
};

/*
 * Fills in at most size bytes: pass sizeof(*stats). All 0 before the import.
 * Thread-safe; figures of one moment only while no thread registers.
 */
MRCACHE_FABRIC_API void mrcache_fabric_stats(struct mrcache_fabric_stats *stats,
					     size_t size);

#ifdef __cplusplus
}
#endif

#endif /* MRCACHE_FABRIC_H */
