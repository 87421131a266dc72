/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The monitor alone, for those who keep their own cache of registrations and
 * only need to know when one is stale. It is the kernel's /dev/ummunotify;
 * link with -lmrcache.
 *
 * The order that everything depends on: watch, pin, look.
 *
 *	mrcache_mon_watch(mon, addr, length, cookie, &entry->watch);
 *	entry->mr = ibv_reg_mr(...);
 *	if (!mrcache_mon_valid(mon, &entry->watch))
 *		-- it changed while it was pinned: deregister, rearm, again
 *
 * From then on an entry may be used exactly while mrcache_mon_valid() says so:
 * ask before each use, after the lookup. When munmap() has returned, or
 * whatever else changed the mapping, in this process or another, it says no.
 * What is drained tells which entries to deregister; that is for the sake of
 * memory, not of being right, and may come late.
 *
 * All functions are thread-safe but mrcache_mon_close(). A struct
 * mrcache_watch is touched by the calls that are given it and by nothing else;
 * two of these at the same time are the caller's to prevent. No lock of the
 * library is held while a system call runs or a callback is called, except by
 * mrcache_mon_drain() one that only other calls of it wait for. Nothing here is
 * a point of cancellation.
 *
 * A monitor belongs to the process that opened it. In a child, however it was
 * made, mrcache_mon_valid() is false for every watch, mrcache_mon_has_news()
 * true, calls that watch, rearm, unwatch or drain fail with ESTALE, and nothing
 * of the parent's is touched; mrcache_mon_close() frees what the child has of it.
 * Ranges are [start, end).
 */
#ifndef MRCACHE_MONITOR_H
#define MRCACHE_MONITOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef MRCACHE_API
#define MRCACHE_API __attribute__((visibility("default")))
#endif

struct mrcache_mon;

/*
 * A watched range, to be kept in the caller's entry. Its members are the
 * library's; it may be copied and moved, and one that is all zero (never
 * watched) must not be asked about.
 */
struct mrcache_watch {
	uint64_t cookie;
	uint32_t slot;	/* of the state word */
	uint32_t armed; /* the state word while untouched */
};

/* In `armed`, of a watch that was refused or has ended; no state word is that. */
#define MRCACHE_WATCH_NONE UINT32_MAX

/*
 * Opens a monitor. device is a path; NULL is MRCACHE_DEVICE or else
 * /dev/ummunotify. 0 and *mon, or nothing is open and
 *   -ENOENT, -EACCES, ...  as open(): no module, no permission
 *   -EOPNOTSUPP  a driver of 2010, which cannot say what is valid
 *   -ENOMEM      no memory
 */
MRCACHE_API int mrcache_mon_open(struct mrcache_mon **mon, const char *device);

/* Ends all watches. No other call may be running. NULL is ignored. */
MRCACHE_API void mrcache_mon_close(struct mrcache_mon *mon);

/*
 * Watches [addr, addr + length), from now on, under a cookie of the caller's
 * choice, which no other watch of this monitor has: an entry's address, say.
 * 0 and *watch, or *watch is one that is not valid and
 *   -EINVAL      an empty range, or one that wraps around
 *   -EEXIST      a cookie that is in use
 *   -EOPNOTSUPP  memory that must not be cached: a hole, device memory, DAX
 *   -ENOSPC      the limit of watches: end some, and try again
 *   -ENOMEM, -ESTALE
 */
MRCACHE_API int mrcache_mon_watch(struct mrcache_mon *mon, const void *addr,
				  size_t length, uint64_t cookie,
				  struct mrcache_watch *watch);

/* One of several ranges for mrcache_mon_watch_many(). */
struct mrcache_mon_range {
	const void *addr;
	size_t length;
	uint64_t cookie;
};

/*
 * Watches n ranges, such as those of one scattered registration: all of them,
 * or none, no *watches is valid, and the first error as of mrcache_mon_watch().
 */
MRCACHE_API int mrcache_mon_watch_many(struct mrcache_mon *mon,
				       const struct mrcache_mon_range *ranges,
				       size_t n, struct mrcache_watch *watches);

/*
 * Makes a watch valid again: only what happens from now on counts, so pin
 * after this. 0 or -EINVAL (not watched), -ESTALE. It does not look at what
 * the memory is now: where that may have become device memory, end the watch
 * and watch anew.
 */
MRCACHE_API int mrcache_mon_rearm(struct mrcache_mon *mon,
				  struct mrcache_watch *watch);

/*
 * Ends a watch, which is not valid from now on. The cookie may be used again at
 * once; a drain that is under way in another thread may still report it, as it
 * may have read the report before. 0 or -EINVAL (not watched), -ESTALE.
 */
MRCACHE_API int mrcache_mon_unwatch(struct mrcache_mon *mon,
				    struct mrcache_watch *watch);

/*
 * Called for a watch that was hit, in the thread that drains, with no lock of
 * the library held but that of drains. It may watch, rearm, unwatch and
 * deregister memory; it must not drain or close. As a report may have been on
 * its way while the watch was armed again, or ended and its cookie given to
 * another: a watch that is still valid needs nothing done.
 */
typedef void mrcache_mon_fn(void *arg, uint64_t cookie);

/*
 * Reports the watches that were hit, each once until it is armed again. When
 * it returns, everything that happened before the call has been reported, also
 * by drains in other threads, for which it waits. Does not wait for anything to
 * happen. Returns how many it reported, or
 *   -EDEADLK  called from a callback of the same monitor
 *   -EIO, ... the device cannot be read
 *   -ESTALE
 */
MRCACHE_API int mrcache_mon_drain(struct mrcache_mon *mon, mrcache_mon_fn *fn,
				  void *arg);

/*
 * A descriptor to poll, readable while there is something to drain; only to be
 * polled, and the library's. In a child it is the parent's: do not poll it.
 */
MRCACHE_API int mrcache_mon_fd(const struct mrcache_mon *mon);

struct mrcache_mon_stats {
	uint64_t watches; /* now */
	uint64_t watched; /* ever */
	uint64_t refused; /* that could not be watched */
	uint64_t rearms;
	uint64_t drains;
	uint64_t reports; /* watches reported as hit */
};

/* Fills in *stats, size bytes of it (sizeof(*stats)). */
MRCACHE_API void mrcache_mon_stats(const struct mrcache_mon *mon,
				   struct mrcache_mon_stats *stats,
				   size_t size);

/* The head of struct mrcache_mon, only for the functions below. */
struct mrcache_mon_head {
	const uint32_t *states;	    /* the driver's, read-only */
	const uint64_t *generation; /* the driver's counter */
	/*
	 * Two words of the library's on a page that the kernel zeroes in a
	 * child: 1, and the generation + 1 up to which all is drained.
	 */
	const uint64_t *hot;
};

/*
 * Whether nothing has happened to the range since it was watched or armed: then
 * a registration pinned since reaches the memory the program sees. Three loads,
 * no call. False for a watch that has ended or was refused.
 */
static inline bool mrcache_mon_valid(const struct mrcache_mon *mon,
				     const struct mrcache_watch *watch)
{
	const struct mrcache_mon_head *head =
		(const struct mrcache_mon_head *)mon;

	/*
	 * The state word is written before the page tables change: who learned
	 * from another thread that the new memory is there sees it changed.
	 * MRCACHE_WATCH_NONE first: its slot may be one that cannot be read.
	 */
	return watch->armed != MRCACHE_WATCH_NONE &&
	       __atomic_load_n(&head->hot[0], __ATOMIC_RELAXED) &&
	       __atomic_load_n(&head->states[watch->slot], __ATOMIC_ACQUIRE) ==
		       watch->armed;
}

/*
 * Whether anything was hit since the last drain began. While this is false,
 * all watches are valid but those a callback has been told of.
 */
static inline bool mrcache_mon_has_news(const struct mrcache_mon *mon)
{
	const struct mrcache_mon_head *head =
		(const struct mrcache_mon_head *)mon;
	/* Pairs with the release in mrcache_mon_drain(): all is reported. */
	uint64_t drained = __atomic_load_n(&head->hot[1], __ATOMIC_ACQUIRE);

	/* Pairs with the driver's release of the counter. */
	return drained !=
	       __atomic_load_n(head->generation, __ATOMIC_ACQUIRE) + 1;
}

#ifdef __cplusplus
}
#endif

#endif /* MRCACHE_MONITOR_H */
