/* SPDX-License-Identifier: BSD-2-Clause */
/* The monitor for those who keep their own cache; see mrcache-monitor.h. */
#include "monitor_public.h"

#include "cancel.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* As many reports as are read at once. */
#define REPORTS 128

/* A monitor that never says "empty" must not hold us for ever. */
#define ROUNDS (1u << 20)

/* What no state word is: a slot is never free and hit by everything. */
#define NEVER MRCACHE_WATCH_NONE

/* On a page that reads 0 in a child, so that nothing is valid there. */
struct hot {
	uint64_t alive;
	_Atomic uint64_t drained; /* generation + 1 up to which all is told */
};

/*
 * drain_lock is all there is, and no other lock is taken under it; the caller's
 * may be, by its callback. It is not touched in a child, where another thread
 * of the parent's may have left it locked.
 */
struct mrcache_mon {
	struct mrcache_mon_head head; /* first */
	struct mrc_monitor *monitor;
	struct hot *hot;
	pthread_mutex_t drain_lock;
	_Atomic uint64_t watched, ended, refused, rearms, drains, reports;
};

/* Not in a child. */
static bool is_owner(const struct mrcache_mon *mon)
{
	return mon->hot->alive;
}

/* ---- opening and closing -------------------------------------------------------- */

static struct hot *new_hot(void)
{
	size_t size = (size_t)sysconf(_SC_PAGESIZE);
	struct hot *hot = mmap(NULL, size, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (hot == MAP_FAILED)
		return NULL;
	if (madvise(hot, size, MADV_WIPEONFORK)) {
		/* In a child stale memory would look valid. */
		munmap(hot, size);
		return NULL;
	}
	hot->alive = 1;
	return hot;
}

int mrc_mon_open_with(struct mrcache_mon **result, struct mrc_monitor *monitor)
{
	struct mrcache_mon *mon = NULL;
	pthread_mutexattr_t attr;
	int ret = -EOPNOTSUPP;

	if (!monitor->states)
		goto err_monitor;
	ret = -ENOMEM;
	mon = calloc(1, sizeof(*mon));
	if (!mon)
		goto err_monitor;
	mon->hot = new_hot();
	if (!mon->hot)
		goto err_monitor;
	mon->monitor = monitor;
	mon->head = (struct mrcache_mon_head){
		.states = monitor->states,
		.generation = monitor->generation,
		.hot = (const uint64_t *)mon->hot,
	};
	/* Nothing is watched yet, so nothing that has happened matters. */
	mon->hot->drained =
		__atomic_load_n(monitor->generation, __ATOMIC_ACQUIRE) + 1;
	pthread_mutexattr_init(&attr);
	/* So that a callback that drains is told, and does not wait for itself. */
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK);
	pthread_mutex_init(&mon->drain_lock, &attr);
	pthread_mutexattr_destroy(&attr);
	*result = mon;
	return 0;

err_monitor:
	free(mon);
	monitor->ops->close(monitor);
	return ret;
}

int mrcache_mon_open(struct mrcache_mon **mon, const char *device)
{
	MRC_NOT_CANCELLED;
	struct mrc_monitor *monitor;
	int ret;

	if (!mon)
		return -EINVAL;
	if (!device)
		device = secure_getenv("MRCACHE_DEVICE");
	if (!device)
		device = "/dev/ummunotify";
	ret = mrc_monitor_ummunotify(&monitor, device, false);
	return ret ? ret : mrc_mon_open_with(mon, monitor);
}

void mrcache_mon_close(struct mrcache_mon *mon)
{
	MRC_NOT_CANCELLED;

	if (!mon)
		return;
	mon->monitor->ops->close(mon->monitor);
	if (is_owner(mon))
		pthread_mutex_destroy(&mon->drain_lock);
	munmap(mon->hot, (size_t)sysconf(_SC_PAGESIZE));
	free(mon);
}

/* ---- watches ----------------------------------------------------------------------- */

int mrcache_mon_watch(struct mrcache_mon *mon, const void *addr, size_t length,
		      uint64_t cookie, struct mrcache_watch *watch)
{
	MRC_NOT_CANCELLED;
	uint64_t start = (uintptr_t)addr;
	struct mrc_watch armed = {0};
	int ret;

	*watch = (struct mrcache_watch){.cookie = cookie, .armed = NEVER};
	if (!length || start + length < start)
		return -EINVAL;
	if (!is_owner(mon))
		return -ESTALE;
	ret = mon->monitor->ops->watch(mon->monitor, start, start + length,
				       cookie, &armed);
	if (ret) {
		atomic_fetch_add(&mon->refused, 1);
		return ret;
	}
	atomic_fetch_add(&mon->watched, 1);
	watch->slot = armed.slot;
	watch->armed = armed.armed;
	return 0;
}

int mrcache_mon_watch_many(struct mrcache_mon *mon,
			   const struct mrcache_mon_range *ranges, size_t n,
			   struct mrcache_watch *watches)
{
	int ret = 0;
	size_t i;

	for (i = 0; i < n && !ret; i++)
		ret = mrcache_mon_watch(mon, ranges[i].addr, ranges[i].length,
					ranges[i].cookie, &watches[i]);
	if (!ret)
		return 0;
	/* The last one is not watched, nor are those after it. */
	for (size_t rest = i; rest < n; rest++)
		watches[rest] = (struct mrcache_watch){
			.cookie = ranges[rest].cookie, .armed = NEVER};
	for (i--; i > 0; i--)
		mrcache_mon_unwatch(mon, &watches[i - 1]);
	return ret;
}

int mrcache_mon_rearm(struct mrcache_mon *mon, struct mrcache_watch *watch)
{
	MRC_NOT_CANCELLED;
	struct mrc_watch armed = {0};
	int ret;

	if (!is_owner(mon))
		return -ESTALE;
	if (watch->armed == NEVER)
		return -EINVAL;
	ret = mon->monitor->ops->rearm(mon->monitor, watch->cookie, &armed);
	if (ret)
		return ret == -ENOENT ? -EINVAL : ret;
	atomic_fetch_add(&mon->rearms, 1);
	watch->slot = armed.slot;
	watch->armed = armed.armed;
	return 0;
}

int mrcache_mon_unwatch(struct mrcache_mon *mon, struct mrcache_watch *watch)
{
	MRC_NOT_CANCELLED;
	int ret;

	if (!is_owner(mon))
		return -ESTALE;
	if (watch->armed == NEVER)
		return -EINVAL;
	watch->armed = NEVER;
	ret = mon->monitor->ops->unwatch(mon->monitor, watch->cookie);
	if (ret)
		return ret == -ENOENT ? -EINVAL : ret;
	atomic_fetch_add(&mon->ended, 1);
	return 0;
}

/* ---- reports ------------------------------------------------------------------------ */

/* Under drain_lock. How many were told, or -errno. */
static int drain(struct mrcache_mon *mon, mrcache_mon_fn *fn, void *arg)
{
	uint64_t cookies[REPORTS], generation = 0;
	bool empty = false;
	int told = 0;

	atomic_fetch_add(&mon->drains, 1);
	for (unsigned int round = 0; !empty && round < ROUNDS; round++) {
		int n = mon->monitor->ops->read(mon->monitor, cookies, REPORTS,
						&generation, &empty);

		if (n < 0)
			return n;
		atomic_fetch_add(&mon->reports, (uint64_t)n);
		for (int i = 0; i < n; i++)
			fn(arg, cookies[i]);
		told += n;
	}
	if (!empty)
		return -ELOOP;
	/* Pairs with mrcache_mon_has_news(): all is told before. */
	atomic_store_explicit(&mon->hot->drained, generation + 1,
			      memory_order_release);
	return told;
}

int mrcache_mon_drain(struct mrcache_mon *mon, mrcache_mon_fn *fn, void *arg)
{
	MRC_NOT_CANCELLED;
	int ret;

	if (!is_owner(mon))
		return -ESTALE;
	ret = pthread_mutex_lock(&mon->drain_lock);
	if (ret)
		return -ret; /* EDEADLK: fn drains */
	ret = drain(mon, fn, arg);
	pthread_mutex_unlock(&mon->drain_lock);
	return ret;
}

int mrcache_mon_fd(const struct mrcache_mon *mon)
{
	return mon->monitor->fd;
}

void mrcache_mon_stats(const struct mrcache_mon *mon,
		       struct mrcache_mon_stats *stats, size_t size)
{
	const struct mrcache_mon_stats all = {
		.watches = mon->watched - mon->ended,
		.watched = mon->watched,
		.refused = mon->refused,
		.rearms = mon->rearms,
		.drains = mon->drains,
		.reports = mon->reports,
	};

	memset(stats, 0, size);
	memcpy(stats, &all, size < sizeof(all) ? size : sizeof(all));
}
