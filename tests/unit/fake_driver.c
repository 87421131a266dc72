/* SPDX-License-Identifier: BSD-2-Clause */
/* The driver's system calls, made calls of a fake monitor; see fake_driver.h. */
#include "fake_driver.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ummunotify.h>
#include <string.h>

#define EVENTS 128

static struct mrc_monitor *monitor;
static struct fake_monitor *fake;
static int device = -1;

void fake_driver(struct fake_monitor *m)
{
	fake = m;
	monitor = m ? fake_monitor_base(m) : NULL;
	device = -1;
}

bool fake_driver_has(int fd)
{
	return fd >= 0 && fd == device;
}

/* What a system call returns. */
static int result(int ret)
{
	if (ret >= 0)
		return ret;
	errno = -ret;
	return -1;
}

int fake_driver_open(void)
{
	int error = fake_enter_system(FAKE_OPEN);

	if (!error && !monitor)
		error = ENOENT;
	if (error)
		return result(-error);
	device = fcntl(monitor->fd, F_DUPFD_CLOEXEC, 0);
	return device;
}

static int features(__u32 *wanted)
{
	int error = fake_enter_system(FAKE_FEATURES);

	if (!monitor->states)
		*wanted = 0;
	return -error;
}

static int query(struct ummunotify_query_ioctl *answer)
{
	int error = fake_enter_system(FAKE_FEATURES);

	*answer = (struct ummunotify_query_ioctl){
		.state_offset = UMMUNOTIFY_STATE_OFFSET,
		.state_bytes = FAKE_STATES_BYTES,
	};
	return -error;
}

static int watch(struct ummunotify_watch_ioctl *arg)
{
	struct mrc_watch armed;
	int ret;

	if (arg->flags != UMMUNOTIFY_WATCH_CACHEABLE)
		fake_trouble("watch of what must not be cached");
	ret = monitor->ops->watch(monitor, arg->start, arg->end,
				  arg->user_cookie, &armed);
	if (!ret) {
		arg->slot = armed.slot;
		arg->state = armed.armed;
	}
	return ret;
}

static int rearm(struct ummunotify_rearm_ioctl *arg)
{
	struct mrc_watch armed;
	int ret = monitor->ops->rearm(monitor, arg->user_cookie, &armed);

	if (!ret) {
		arg->slot = armed.slot;
		arg->state = armed.armed;
	}
	return ret;
}

static int arm(struct ummunotify_arm *arg)
{
	struct mrc_watch armed;
	int ret;

	if (arg->size != sizeof(*arg) ||
	    arg->flags != UMMUNOTIFY_ARM_CACHEABLE ||
	    arg->new_cookie != arg->user_cookie || arg->reserved)
		fake_trouble("a watch is armed for what it is not");
	ret = monitor->ops->renew(monitor, arg->start, arg->end,
				  arg->user_cookie, &armed);
	if (!ret) {
		arg->slot = armed.slot;
		arg->state = armed.armed;
	}
	return ret;
}

static int register_region(const struct ummunotify_register_ioctl *arg)
{
	struct mrc_watch armed;

	return monitor->ops->watch(monitor, arg->start, arg->end,
				   arg->user_cookie, &armed);
}

int fake_driver_ioctl(unsigned long request, void *arg)
{
	switch (request) {
	case UMMUNOTIFY_EXCHANGE_FEATURES:
		return result(features(arg));
	case UMMUNOTIFY_QUERY:
		return result(query(arg));
	case UMMUNOTIFY_WATCH:
		return result(watch(arg));
	case UMMUNOTIFY_REARM:
		return result(rearm(arg));
	case UMMUNOTIFY_ARM:
		return result(arm(arg));
	case UMMUNOTIFY_REGISTER_REGION:
		return result(register_region(arg));
	case UMMUNOTIFY_UNREGISTER_REGION:
		return result(monitor->ops->unwatch(monitor, *(__u64 *)arg));
	}
	fake_trouble("ioctl %#lx", request);
	return result(-ENOTTY);
}

void *fake_driver_mmap(size_t size, bool states)
{
	return fake_monitor_map(fake, size, states);
}

/* LAST comes with the others if there is room. */
long fake_driver_read(void *buffer, size_t size)
{
	struct ummunotify_event *events = buffer;
	size_t max = size / sizeof(*events);
	uint64_t cookies[EVENTS], generation = 0;
	bool empty = false;
	int n = monitor->ops->read(monitor, cookies,
				   max < EVENTS ? max : EVENTS, &generation,
				   &empty);

	if (n == 0 && empty)
		n = -EAGAIN;
	if (n < 0)
		return result(n);
	memset(buffer, 0, size);
	for (int i = 0; i < n; i++)
		events[i] = (struct ummunotify_event){
			.type = UMMUNOTIFY_EVENT_TYPE_INVAL,
			.user_cookie_counter = cookies[i],
		};
	if (empty && (size_t)n < max)
		events[n++] = (struct ummunotify_event){
			.type = UMMUNOTIFY_EVENT_TYPE_LAST,
			.user_cookie_counter = generation,
		};
	return n * (long)sizeof(*events);
}
