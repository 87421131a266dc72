/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * In the shim in place of lib/monitor_ummunotify.c: any file that can be opened
 * is a device, with state words, and fake_invalidate() is the kernel.
 */
#include "fake_device.h"
#include "monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORT	__attribute__((visibility("default")))
#define WATCHES 1024u
#define TOUCHED 1u

struct watch {
	uint64_t start, end, cookie;
	bool used, pending;
};

/* One for each that opens it. */
static struct device {
	struct mrc_monitor monitor;
	struct device *next;
	struct watch watches[WATCHES];
	uint64_t *generation;
	uint32_t *states;
	uint32_t arms;
} * devices;

static bool broken;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void arm(struct device *d, uint32_t slot, struct mrc_watch *armed)
{
	d->watches[slot].pending = false;
	d->arms += 2;
	__atomic_store_n(&d->states[slot], d->arms, __ATOMIC_RELEASE);
	armed->slot = slot;
	armed->armed = d->arms;
}

static int fake_watch(struct mrc_monitor *monitor, uint64_t start, uint64_t end,
		      uint64_t cookie, struct mrc_watch *armed)
{
	struct device *d = (struct device *)monitor;
	int ret = -ENOSPC;

	pthread_mutex_lock(&lock);
	for (uint32_t i = 0; i < WATCHES; i++) {
		if (d->watches[i].used)
			continue;
		d->watches[i] = (struct watch){start, end, cookie, true, false};
		arm(d, i, armed);
		ret = 0;
		break;
	}
	pthread_mutex_unlock(&lock);
	return ret;
}

static int find(struct device *d, uint64_t cookie)
{
	for (int i = 0; i < (int)WATCHES; i++)
		if (d->watches[i].used && d->watches[i].cookie == cookie)
			return i;
	return -1;
}

static int fake_rearm(struct mrc_monitor *monitor, uint64_t cookie,
		      struct mrc_watch *armed)
{
	struct device *d = (struct device *)monitor;
	int slot;

	pthread_mutex_lock(&lock);
	slot = find(d, cookie);
	if (slot >= 0)
		arm(d, (uint32_t)slot, armed);
	pthread_mutex_unlock(&lock);
	return slot < 0 ? -ENOENT : 0;
}

static int fake_unwatch(struct mrc_monitor *monitor, uint64_t cookie)
{
	struct device *d = (struct device *)monitor;
	int slot;

	pthread_mutex_lock(&lock);
	slot = find(d, cookie);
	if (slot >= 0)
		d->watches[slot].used = false;
	pthread_mutex_unlock(&lock);
	return slot < 0 ? -ENOENT : 0;
}

static int fake_read(struct mrc_monitor *monitor, uint64_t *cookies, size_t max,
		     uint64_t *generation, bool *empty)
{
	struct device *d = (struct device *)monitor;
	eventfd_t value;
	size_t n = 0;

	if (__atomic_load_n(&broken, __ATOMIC_ACQUIRE))
		return -EIO;
	pthread_mutex_lock(&lock);
	*empty = true;
	for (uint32_t i = 0; i < WATCHES; i++) {
		if (!d->watches[i].used || !d->watches[i].pending)
			continue;
		if (n == max) {
			*empty = false;
			break;
		}
		d->watches[i].pending = false;
		cookies[n++] = d->watches[i].cookie;
	}
	*generation = *d->generation;
	if (*empty)
		eventfd_read(monitor->fd, &value);
	pthread_mutex_unlock(&lock);
	return (int)n;
}

static void fake_close(struct mrc_monitor *monitor)
{
	struct device *d = (struct device *)monitor, **at = &devices;

	pthread_mutex_lock(&lock);
	while (*at != d)
		at = &(*at)->next;
	*at = d->next;
	pthread_mutex_unlock(&lock);
	close(monitor->fd);
	free(d);
}

static const struct mrc_monitor_ops ops = {
	.watch = fake_watch,
	.rearm = fake_rearm,
	.unwatch = fake_unwatch,
	.read = fake_read,
	.close = fake_close,
};

int mrc_monitor_ummunotify(struct mrc_monitor **monitor, const char *device,
			   bool old)
{
	int fd = open(device, O_RDONLY | O_CLOEXEC);
	struct device *d;
	char *memory;

	if (fd < 0)
		return -errno;
	close(fd);
	d = calloc(1, sizeof(*d));
	/* Shared with a fork child, as the driver's. */
	memory = mmap(NULL, 2 * 4096, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (!d || memory == MAP_FAILED)
		abort();
	d->generation = (uint64_t *)memory;
	d->states = (uint32_t *)(memory + 4096);
	d->monitor = (struct mrc_monitor){
		.ops = &ops,
		.name = "fake",
		.generation = d->generation,
		.states = old ? NULL : d->states,
		.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
	};
	pthread_mutex_lock(&lock);
	d->next = devices;
	devices = d;
	pthread_mutex_unlock(&lock);
	*monitor = &d->monitor;
	return 0;
}

/* ---- for programs ---------------------------------------------------------------- */

static void invalidate(struct device *d, uint64_t start, uint64_t end)
{
	bool any = false;

	for (uint32_t i = 0; i < WATCHES; i++) {
		struct watch *w = &d->watches[i];

		if (!w->used || w->start >= end || start >= w->end ||
		    d->states[i] & TOUCHED)
			continue;
		__atomic_store_n(&d->states[i], d->states[i] | TOUCHED,
				 __ATOMIC_RELEASE);
		w->pending = any = true;
	}
	if (any) {
		__atomic_store_n(d->generation, *d->generation + 1,
				 __ATOMIC_RELEASE);
		eventfd_write(d->monitor.fd, 1);
	}
}

EXPORT void fake_invalidate(const void *addr, size_t length)
{
	uint64_t start = (uintptr_t)addr;

	pthread_mutex_lock(&lock);
	for (struct device *d = devices; d; d = d->next)
		invalidate(d, start, start + length);
	pthread_mutex_unlock(&lock);
}

EXPORT void fake_break(void)
{
	__atomic_store_n(&broken, true, __ATOMIC_RELEASE);
}

EXPORT unsigned int fake_watches(void)
{
	unsigned int n = 0;

	pthread_mutex_lock(&lock);
	for (struct device *d = devices; d; d = d->next)
		for (uint32_t i = 0; i < WATCHES; i++)
			n += d->watches[i].used;
	pthread_mutex_unlock(&lock);
	return n;
}
