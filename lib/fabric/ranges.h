/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The ranges that libfabric's registration caches keep, and a watch for each.
 * libfabric asks of a memory monitor: may this be kept (subscribe), is what was
 * kept still right (valid); and it can be told that memory has changed (notify).
 * It stands on a monitor with state words (monitor.h) and nothing else.
 *
 * Words: an entry is one registration in one of libfabric's caches. Several
 * caches (domains) may have an entry for the same range, and all of them depend
 * on the one watch of that range. The watch is touched when the memory changes,
 * and untouched again once it is armed again.
 *
 * What makes it right, and where it is kept:
 *
 *  I1  An entry is accepted only if its registration began after the watch was
 *      armed: subscribe(). If the watch was touched meanwhile the entry is
 *      wrong from its start and is refused at once, for caches that do not ask
 *      again.
 *  I2  A touched watch is armed again, and a range forgotten, only when no cache
 *      has an entry of it any more: entries are never counted too few.
 *  So an entry that a cache has is right exactly while the watch is untouched,
 *  which is what valid() answers.
 *
 * Whether a registration began after the watch was armed is known in two ways.
 * Who stands between libfabric and its pin announces it: ranges_reg(). Otherwise
 * a thread that has been here before under the same arming, in a call that is
 * not part of the registration it asks for now, has begun that one since; so the
 * first use of a range is refused, which means: used, but not kept.
 *
 * Lock order: tell_lock, libfabric's mm_list_rwlock, its mm_lock, lock. libfabric
 * holds mm_lock in all calls of a monitor; notify() takes both of its locks. So
 * tell_lock is never taken in subscribe() or valid(), and notify() never called
 * there.
 */
#ifndef MRC_RANGES_H
#define MRC_RANGES_H

#include "monitor.h"

struct ranges;

/* libfabric's notify: no cache has an entry that overlaps when it returns. */
typedef void ranges_notify_fn(void *arg, const void *addr, size_t length);

/*
 * Opens an empty set on a monitor, which it takes over, also on failure. NULL
 * with errno ENOMEM, or EOPNOTSUPP if the monitor has no state words.
 */
struct ranges *ranges_open(struct mrc_monitor *monitor);

/* Before the first subscribe(). */
void ranges_set_notify(struct ranges *ranges, ranges_notify_fn *notify,
		       void *arg);

/* Ends the thread and all watches. No other call may be running. */
void ranges_close(struct ranges *ranges);

/* False in a fork child, where all calls refuse and do nothing. */
bool ranges_is_owner(const struct ranges *ranges);

/*
 * May an entry of this range be kept, which has just been registered by this
 * thread? frame: __builtin_frame_address(0) of the function that libfabric calls.
 */
bool ranges_subscribe(struct ranges *ranges, const void *addr, size_t length,
		      uintptr_t frame);

/*
 * Whether entries of exactly this range are right. If not, the cache that asks
 * drops its own.
 */
bool ranges_is_valid(struct ranges *ranges, const void *addr, size_t length,
		     uintptr_t frame);

/* No cache is left, and so no entry. */
void ranges_no_entries(struct ranges *ranges);

/*
 * Registers by pin(arg), announced: what has changed is told first, the watch is
 * armed before the pin. With none of libfabric's locks held. pin's value, which
 * names the registration, or NULL with its errno.
 */
typedef void *ranges_pin_fn(void *arg);
void *ranges_reg(struct ranges *ranges, const void *addr, size_t length,
		 ranges_pin_fn *pin, void *arg);

/*
 * Ends by unpin(what ranges_reg() returned): unpin's value, 0 if it is ended;
 * -ENOENT for what ranges_reg() did not return, which is not touched.
 */
typedef int ranges_unpin_fn(void *mr);
int ranges_dereg(struct ranges *ranges, void *mr, ranges_unpin_fn *unpin);

/* Tells libfabric of all that has changed; with none of its locks held. */
void ranges_tell(struct ranges *ranges);

/* The monitor could not be read: nothing is kept from then on. */
bool ranges_is_broken(const struct ranges *ranges);

/* How often a range could not be watched, and so was not kept. */
uint64_t ranges_unwatched(const struct ranges *ranges);

#endif /* MRC_RANGES_H */
