/* SPDX-License-Identifier: BSD-2-Clause */
/* libmrcache-fabric: what mrcache-fabric.h declares. */
#include "mrcache-fabric.h"
#include "import.h"

#include <errno.h>
#include <pthread.h>
#include <rdma/fi_errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct ranges *_Atomic the_ranges;
static _Atomic uint64_t checked, refused, told;

static void count_checked(bool is_refused)
{
	atomic_fetch_add_explicit(&checked, 1, memory_order_relaxed);
	if (is_refused)
		atomic_fetch_add_explicit(&refused, 1, memory_order_relaxed);
}

static void count_told(void)
{
	atomic_fetch_add_explicit(&told, 1, memory_order_relaxed);
}

static const struct fabric_functions libfabric = {
	.getparams = fi_getparams,
	.freeparams = fi_freeparams,
	.open = fi_open,
};

static const struct fabric_hooks hooks = {
	.checked = count_checked,
	.told = count_told,
};

static const char *device_path(const char *device)
{
	if (!device)
		device = secure_getenv("MRCACHE_DEVICE");
	return device ? device : "/dev/ummunotify";
}

static int import(const char *device)
{
	struct mrc_monitor *monitor;
	struct ranges *ranges;
	int ret;

	if (fabric_wish(&libfabric) == FABRIC_DISABLED)
		return -ECANCELED;
	ret = mrc_monitor_ummunotify(&monitor, device_path(device), false);
	if (ret)
		return ret;
	ranges = ranges_open(monitor);
	if (!ranges)
		return -errno;
	ret = fabric_import(&libfabric, ranges, &hooks);
	if (!ret) {
		atomic_store(&the_ranges, ranges);
		return 0;
	}
	ranges_close(ranges);
	return ret == -FI_EBUSY ? -EBUSY : -ENOSYS;
}

int mrcache_fabric_import(const char *device)
{
	int ret;

	pthread_mutex_lock(&lock);
	ret = the_ranges ? 0 : import(device);
	pthread_mutex_unlock(&lock);
	return ret;
}

void mrcache_fabric_stats(struct mrcache_fabric_stats *stats, size_t size)
{
	struct ranges *ranges = atomic_load(&the_ranges);
	struct mrcache_fabric_stats now = {
		.checked = atomic_load(&checked),
		.refused = atomic_load(&refused),
		.told = atomic_load(&told),
	};

	if (ranges) {
		now.unwatched = ranges_unwatched(ranges);
		now.broken = ranges_is_broken(ranges);
	}
	memcpy(stats, &now, size < sizeof(now) ? size : sizeof(now));
}
