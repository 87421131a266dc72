/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A monitor: the source of invalidations. The cache knows monitors only by
 * this interface; tests have their own.
 *
 * A monitor counts invalidations in *generation, a word in shared memory that
 * grows before the invalidated memory can be seen to change. If it has state
 * words, states[watch->slot] equals watch->armed exactly while the watch is
 * untouched. Without them (states is NULL) only read() tells which watch was
 * hit.
 */
#ifndef MRC_MONITOR_H
#define MRC_MONITOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mrc_monitor;

/* What a monitor gives for a watch; meaningless without state words. */
struct mrc_watch {
	uint32_t slot;
	uint32_t armed;
};

/* Watches that are verified in one call. */
#define MRC_PRINTS 64

/* Which pages a registration of a watch's range gets; see mrc_monitor_ops. */
struct mrc_print {
	uint64_t cookie;
	uint64_t fingerprint;
	struct mrc_watch watch;
	bool writes; /* the registration may write */
	bool same;
};

/*
 * All return 0 or -errno, are thread-safe except close, and may be called with
 * no lock of the cache held except the drain lock by read().
 */
struct mrc_monitor_ops {
	/*
	 * Watches [start, end) under a cookie not in use, armed.
	 * -EOPNOTSUPP: memory that must not be cached; -ENOSPC: a limit.
	 */
	int (*watch)(struct mrc_monitor *monitor, uint64_t start, uint64_t end,
		     uint64_t cookie, struct mrc_watch *watch);

	/* Makes a watch clean again; only what happens from now on counts. */
	int (*rearm)(struct mrc_monitor *monitor, uint64_t cookie,
		     struct mrc_watch *watch);

	/*
	 * The same of memory that may be other by now, and is refused as by
	 * watch(); what fails leaves the watch as it was. A report of it that
	 * nobody has read vanishes. NULL if the monitor cannot.
	 */
	int (*renew)(struct mrc_monitor *monitor, uint64_t start, uint64_t end,
		     uint64_t cookie, struct mrc_watch *watch);

	/* After this no read() returns the cookie unless it already has. */
	int (*unwatch)(struct mrc_monitor *monitor, uint64_t cookie);

	/*
	 * Returns how many cookies of watches that were hit it stored, at most
	 * max. *empty says that nothing more was pending; *generation is then
	 * the generation up to which everything was reported. Never blocks.
	 */
	int (*read)(struct mrc_monitor *monitor, uint64_t *cookies, size_t max,
		    uint64_t *generation, bool *empty);

	/*
	 * Whether what hit a watch may have left its pages. NULL, as the next
	 * two, if the monitor can never tell.
	 */
	bool (*is_alarm)(const struct mrc_monitor *monitor,
			 const struct mrc_watch *watch);

	/*
	 * Takes the fingerprint of what is pinned, of a watch that was armed as
	 * in print->watch before; -ENODATA: cannot tell.
	 */
	int (*fingerprint)(struct mrc_monitor *monitor,
			   struct mrc_print *print);

	/*
	 * Arms up to MRC_PRINTS watches anew and compares, without bringing
	 * back pages that are not there: those that are the same say so, and
	 * what they are armed as. Others may have been armed, or not.
	 */
	int (*verify)(struct mrc_monitor *monitor, struct mrc_print *prints,
		      size_t n);

	/* Frees everything, also what is shared with a fork parent. */
	void (*close)(struct mrc_monitor *monitor);
};

struct mrc_monitor {
	const struct mrc_monitor_ops *ops;
	const char *name;
	const uint64_t *generation;
	const uint32_t *states; /* or NULL */
	int fd; /* readable when read() has something; -1: none */
};

/*
 * The driver. device is a path; old uses only what the driver of 2010 had.
 * -errno of open() or mmap() when it cannot be used.
 */
int mrc_monitor_ummunotify(struct mrc_monitor **monitor, const char *device,
			   bool old);

#endif /* MRC_MONITOR_H */
