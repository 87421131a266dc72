/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Registrations paired with a watch, for a cache that is not ours: what a guard
 * stands on. It needs nothing but a monitor with state words and the verbs.
 *
 * Each registration has its own watch, made before it is pinned and looked at
 * afterwards (docs/design.md, "watch, pin, look"). A watch that was hit is never
 * armed again: its registration has changed, for good, and the owner of the
 * other cache is told so, once. The watch ends with the registration.
 *
 * Lock order: tell_lock, lock. No lock is held while a verb runs, and `lock` is
 * never held while a function of a caller runs. tell_lock is: a second thread
 * must not look anything up before the first has told all that it read.
 */
#ifndef MRC_WATCHED_H
#define MRC_WATCHED_H

#include "monitor.h"
#include "verbs.h"

#include <pthread.h>
#include <stdatomic.h>

/* Without memory for a table uthash would end the program. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

/* On a page that reads 0 in a fork child, where nothing here may be touched. */
struct watched_hot {
	/* The generation up to which all was told, + 1. */
	_Atomic uint64_t told;
	/* Registrations to be told of that no report will name. */
	_Atomic uint64_t untold;
	uint64_t alive; /* 1 */
};

struct watched_set {
	struct mrc_monitor *monitor;
	struct watched_hot *hot;
	int (*dereg_mr)(struct ibv_mr *mr);
	unsigned int repins;

	pthread_mutex_t tell_lock;
	pthread_mutex_t lock;	       /* all below, and the registrations */
	struct watched *by_id, *by_mr; /* uthash */
	struct watched *changed;       /* have changed and are still there */
	struct watched *untold;	       /* of these, not yet told */
	uint64_t last_id;
	/* How many are in `changed`; read without the lock. */
	_Atomic uint64_t changed_count;
	/* How often one came into `changed`; read without the lock. */
	_Atomic uint64_t changes;
	/* Registrations that no watch could be made for, ever. */
	_Atomic uint64_t unwatched;
};

/*
 * Opens a set on a monitor, which it takes over, also on failure. NULL with
 * errno ENOMEM, or EOPNOTSUPP if the monitor has no state words.
 */
struct watched_set *watched_open(struct mrc_monitor *monitor,
				 int (*dereg_mr)(struct ibv_mr *mr),
				 unsigned int repins);

/* Ends all watches, and no registration. No other call may be running. */
void watched_close(struct watched_set *set);

/* False in a fork child, where all calls must be left out. */
static inline bool watched_is_owner(const struct watched_set *set)
{
	return __atomic_load_n(&set->hot->alive, __ATOMIC_RELAXED);
}

/*
 * Registers by pin(arg) what must be [addr, addr + length), with a watch. If
 * pinning itself changes the mapping, it is done again, `repins` times at most.
 * What cannot be watched, or does not come to rest, counts as changed from its
 * start. NULL with pin's errno, or ENOMEM.
 */
typedef struct ibv_mr *watched_pin_fn(void *arg);
struct ibv_mr *watched_reg(struct watched_set *set, void *addr, size_t length,
			   watched_pin_fn *pin, void *arg);

/*
 * Deregisters what watched_reg() returned: dereg_mr's value, or -ENOENT for
 * what is not in the set, which is not touched.
 */
int watched_dereg(struct watched_set *set, struct ibv_mr *mr);

/* Whether there may be something to tell. Loads only; no lock. */
static inline bool watched_has_news(const struct watched_set *set)
{
	/* Pairs with the driver's release of the counter. */
	uint64_t generation =
		__atomic_load_n(set->monitor->generation, __ATOMIC_ACQUIRE);

	return atomic_load_explicit(&set->hot->told, memory_order_acquire) !=
		       generation + 1 ||
	       atomic_load_explicit(&set->hot->untold, memory_order_acquire);
}

/*
 * Tells of each registration that has changed since the last time: fn(arg,
 * start, end), with tell_lock held and no other, in the thread that calls. fn
 * may deregister. When it returns, all changes that had happened before the call
 * were told, by this thread or another. A call from within fn does nothing.
 * Returns how many this thread told, or -errno if the monitor cannot be read:
 * then everything there is was told.
 */
typedef void watched_tell_fn(void *arg, uintptr_t start, uintptr_t end);
int watched_tell(struct watched_set *set, watched_tell_fn *fn, void *arg);

/*
 * Whether a registration that overlaps has changed. Loads only, while none has
 * that is still registered, or while this thread has asked the same lately and
 * none has since; else takes `lock`.
 */
bool watched_has_changed(struct watched_set *set, uintptr_t addr,
			 size_t length);

#endif /* MRC_WATCHED_H */
