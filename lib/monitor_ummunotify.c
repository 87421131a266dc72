/* SPDX-License-Identifier: BSD-2-Clause */
/* The monitor on /dev/ummunotify; the interface is in docs/abi.md. */
#include "monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ummunotify.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define FEATURES                                                 \
	(UMMUNOTIFY_FEATURES_MAGIC | UMMUNOTIFY_FEATURE_FILTER | \
	 UMMUNOTIFY_FEATURE_STATE)

/* Nice to have. */
#define WANTED (FEATURES | UMMUNOTIFY_FEATURE_FINGERPRINT)

/* As many as the driver hands out at once. */
#define EVENTS 128

struct ummunotify {
	struct mrc_monitor monitor; /* first */
	size_t states_size;
};

static int umn_watch(struct mrc_monitor *monitor, uint64_t start, uint64_t end,
		     uint64_t cookie, struct mrc_watch *watch)
{
	struct ummunotify_watch_ioctl arg = {
		.start = start,
		.end = end,
		.user_cookie = cookie,
		.flags = UMMUNOTIFY_WATCH_CACHEABLE,
	};

	if (ioctl(monitor->fd, UMMUNOTIFY_WATCH, &arg))
		return -errno;
	watch->slot = arg.slot;
	watch->armed = arg.state;
	return 0;
}

static int umn_rearm(struct mrc_monitor *monitor, uint64_t cookie,
		     struct mrc_watch *watch)
{
	struct ummunotify_rearm_ioctl arg = {.user_cookie = cookie};

	if (ioctl(monitor->fd, UMMUNOTIFY_REARM, &arg))
		return -errno;
	watch->slot = arg.slot;
	watch->armed = arg.state;
	return 0;
}

static int umn_renew(struct mrc_monitor *monitor, uint64_t start, uint64_t end,
		     uint64_t cookie, struct mrc_watch *watch)
{
	struct ummunotify_arm arg = {
		.size = sizeof(arg),
		.flags = UMMUNOTIFY_ARM_CACHEABLE,
		.user_cookie = cookie,
		.new_cookie = cookie,
		.start = start,
		.end = end,
	};

	if (ioctl(monitor->fd, UMMUNOTIFY_ARM, &arg))
		return -errno;
	watch->slot = arg.slot;
	watch->armed = arg.state;
	return 0;
}

static int old_watch(struct mrc_monitor *monitor, uint64_t start, uint64_t end,
		     uint64_t cookie, struct mrc_watch *watch)
{
	struct ummunotify_register_ioctl arg = {
		.start = start,
		.end = end,
		.user_cookie = cookie,
	};

	(void)watch;
	return ioctl(monitor->fd, UMMUNOTIFY_REGISTER_REGION, &arg) ? -errno
								    : 0;
}

/* The caller has read the watch's report, which arms it. */
static int old_rearm(struct mrc_monitor *monitor, uint64_t cookie,
		     struct mrc_watch *watch)
{
	(void)monitor, (void)cookie, (void)watch;
	return 0;
}

static int umn_unwatch(struct mrc_monitor *monitor, uint64_t cookie)
{
	__u64 arg = cookie;

	return ioctl(monitor->fd, UMMUNOTIFY_UNREGISTER_REGION, &arg) ? -errno
								      : 0;
}

static int umn_read(struct mrc_monitor *monitor, uint64_t *cookies, size_t max,
		    uint64_t *generation, bool *empty)
{
	struct ummunotify_event events[EVENTS];
	/*
	 * Before read(): if that finds nothing, everything counted here was
	 * reported or belongs to watches that are gone. Pairs with the driver's
	 * release of the counter.
	 */
	uint64_t before =
		__atomic_load_n(monitor->generation, __ATOMIC_ACQUIRE);
	ssize_t bytes;
	int n = 0;

	*empty = false;
	if (max > EVENTS)
		max = EVENTS;
	bytes = read(monitor->fd, events, max * sizeof(*events));
	if (bytes < 0) {
		if (errno == EINTR)
			return 0;
		if (errno != EAGAIN)
			return -errno;
		*empty = true;
		*generation = before;
		return 0;
	}
	for (size_t i = 0; i < (size_t)bytes / sizeof(*events); i++) {
		if (events[i].type == UMMUNOTIFY_EVENT_TYPE_INVAL) {
			cookies[n++] = events[i].user_cookie_counter;
		} else if (events[i].type == UMMUNOTIFY_EVENT_TYPE_LAST) {
			*empty = true;
			*generation = events[i].user_cookie_counter;
		}
	}
	return n;
}

/* Other kinds are refused by the driver, too. */
static bool umn_is_alarm(const struct mrc_monitor *monitor,
			 const struct mrc_watch *watch)
{
	uint32_t word = __atomic_load_n(&monitor->states[watch->slot],
					__ATOMIC_RELAXED);

	return (word & UMMUNOTIFY_STATE_KINDS) == UMMUNOTIFY_KIND_CLEAR;
}

static int call_fingerprint(struct mrc_monitor *monitor,
			    struct ummunotify_fingerprint *prints, size_t n,
			    size_t *done)
{
	struct ummunotify_fingerprints all = {
		.size = sizeof(all),
		.fingerprints = (uintptr_t)prints,
		.count = (uint32_t)n,
	};
	int ret = ioctl(monitor->fd, UMMUNOTIFY_FINGERPRINT, &all) ? -errno : 0;

	*done = all.done;
	return ret;
}

static struct ummunotify_fingerprint order_of(const struct mrc_print *print,
					      uint32_t flags)
{
	return (struct ummunotify_fingerprint){
		.size = sizeof(struct ummunotify_fingerprint),
		.flags = flags |
			 (print->writes ? UMMUNOTIFY_FINGERPRINT_WRITE : 0),
		.user_cookie = print->cookie,
		.fingerprint = print->fingerprint,
		.state = print->watch.armed,
	};
}

static int umn_fingerprint(struct mrc_monitor *monitor, struct mrc_print *print)
{
	struct ummunotify_fingerprint order = order_of(print, 0);
	size_t done;
	int ret = call_fingerprint(monitor, &order, 1, &done);

	if (ret)
		return ret;
	if (!done || order.error || order.answer != UMMUNOTIFY_PAGES_SAME)
		return -ENODATA;
	print->fingerprint = order.fingerprint;
	return 0;
}

/* A call may stop early, when there was much to look at. */
static int umn_verify(struct mrc_monitor *monitor, struct mrc_print *prints,
		      size_t n)
{
	struct ummunotify_fingerprint orders[MRC_PRINTS];
	size_t i, at, done;

	for (i = 0; i < n; i++)
		orders[i] = order_of(&prints[i],
				     UMMUNOTIFY_FINGERPRINT_VERIFY |
					     UMMUNOTIFY_FINGERPRINT_PRESENT);
	for (at = 0; at < n; at += done) {
		int ret = call_fingerprint(monitor, orders + at, n - at, &done);

		if (ret)
			return ret;
		if (!done || done > n - at)
			return -EPROTO;
	}
	for (i = 0; i < n; i++) {
		prints[i].same = !orders[i].error &&
				 orders[i].answer == UMMUNOTIFY_PAGES_SAME;
		prints[i].watch =
			(struct mrc_watch){orders[i].slot, orders[i].state};
	}
	return 0;
}

static void free_umn(struct ummunotify *umn)
{
	const struct mrc_monitor *monitor = &umn->monitor;

	if (monitor->states)
		munmap((void *)monitor->states, umn->states_size);
	if (monitor->generation)
		munmap((void *)monitor->generation,
		       (size_t)sysconf(_SC_PAGESIZE));
	if (monitor->fd >= 0)
		close(monitor->fd);
	free(umn);
}

static void umn_close(struct mrc_monitor *monitor)
{
	free_umn((struct ummunotify *)monitor);
}

static const struct mrc_monitor_ops umn_ops = {
	.watch = umn_watch,
	.rearm = umn_rearm,
	.renew = umn_renew,
	.unwatch = umn_unwatch,
	.read = umn_read,
	.close = umn_close,
};

static const struct mrc_monitor_ops fingerprint_ops = {
	.watch = umn_watch,
	.rearm = umn_rearm,
	.renew = umn_renew,
	.unwatch = umn_unwatch,
	.read = umn_read,
	.is_alarm = umn_is_alarm,
	.fingerprint = umn_fingerprint,
	.verify = umn_verify,
	.close = umn_close,
};

static const struct mrc_monitor_ops old_ops = {
	.watch = old_watch,
	.rearm = old_rearm,
	.unwatch = umn_unwatch,
	.read = umn_read,
	.close = umn_close,
};

static int open_device(const char *device)
{
	int fd;

	/* The driver is interrupted by signals that are pending. */
	do
		fd = open(device, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	while (fd < 0 && errno == EINTR);
	return fd < 0 ? -errno : fd;
}

static const void *map(int fd, size_t size, off_t offset)
{
	void *mapping = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, offset);

	return mapping == MAP_FAILED ? NULL : mapping;
}

/* A driver that does not know the features is one of 2010. */
static int map_states(struct ummunotify *umn)
{
	struct ummunotify_query_ioctl query;
	__u32 features = WANTED;

	if (ioctl(umn->monitor.fd, UMMUNOTIFY_EXCHANGE_FEATURES, &features))
		return -errno;
	if ((features & FEATURES) != FEATURES)
		return 0;
	if (ioctl(umn->monitor.fd, UMMUNOTIFY_QUERY, &query))
		return -errno;
	umn->monitor.states = map(umn->monitor.fd, query.state_bytes,
				  (off_t)query.state_offset);
	if (!umn->monitor.states)
		return -errno;
	umn->monitor.ops = features == WANTED ? &fingerprint_ops : &umn_ops;
	umn->monitor.name = "ummunotify";
	umn->states_size = query.state_bytes;
	return 0;
}

int mrc_monitor_ummunotify(struct mrc_monitor **monitor, const char *device,
			   bool old)
{
	struct ummunotify *umn = calloc(1, sizeof(*umn));
	int ret;

	if (!umn)
		return -ENOMEM;
	umn->monitor.ops = &old_ops;
	umn->monitor.name = "ummunotify-2010";
	umn->monitor.fd = ret = open_device(device);
	if (ret < 0)
		goto err_close;
	umn->monitor.generation =
		map(umn->monitor.fd, (size_t)sysconf(_SC_PAGESIZE), 0);
	if (!umn->monitor.generation) {
		ret = -errno;
		goto err_close;
	}
	if (!old) {
		ret = map_states(umn);
		if (ret)
			goto err_close;
	}
	*monitor = (struct mrc_monitor *)umn;
	return 0;

err_close:
	free_umn(umn);
	return ret;
}
