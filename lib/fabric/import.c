/* SPDX-License-Identifier: BSD-2-Clause */
#include "import.h"

#include <string.h>

static struct {
	struct fid_mem_monitor fid;
	struct ranges *ranges;
	struct fabric_hooks hooks;
} the_import;

/* ---- what libfabric calls -------------------------------------------------------------- */

static int start(struct fid_mem_monitor *monitor)
{
	(void)monitor;
	if (the_import.hooks.keeping)
		the_import.hooks.keeping(true);
	return 0;
}

static void stop(struct fid_mem_monitor *monitor)
{
	(void)monitor;
	if (the_import.hooks.keeping)
		the_import.hooks.keeping(false);
	ranges_no_entries(the_import.ranges);
}

static int subscribe(struct fid_mem_monitor *monitor, const void *addr,
		     size_t len)
{
	(void)monitor;
	/* Refused, it is used all the same, and deregistered after its use. */
	return ranges_subscribe(the_import.ranges, addr, len,
				(uintptr_t)__builtin_frame_address(0))
		       ? 0
		       : -FI_EBUSY;
}

/* Before 2.1 it is not called; since then for each entry that is dropped. */
static void unsubscribe(struct fid_mem_monitor *monitor, const void *addr,
			size_t len)
{
	(void)monitor, (void)addr, (void)len;
}

static bool valid(struct fid_mem_monitor *monitor, const void *addr, size_t len)
{
	bool is_valid = ranges_is_valid(the_import.ranges, addr, len,
					(uintptr_t)__builtin_frame_address(0));

	(void)monitor;
	if (the_import.hooks.checked)
		the_import.hooks.checked(!is_valid);
	return is_valid;
}

static struct fi_ops_mem_monitor export_ops = {
	.size = sizeof(export_ops),
	.start = start,
	.stop = stop,
	.subscribe = subscribe,
	.unsubscribe = unsubscribe,
	.valid = valid,
};

/* ---- what is called of libfabric --------------------------------------------------------- */

static void notify(void *arg, const void *addr, size_t length)
{
	struct fid_mem_monitor *monitor = arg;

	monitor->import_ops->notify(monitor, addr, length);
	if (the_import.hooks.told)
		the_import.hooks.told();
}

enum fabric_wish fabric_wish(const struct fabric_functions *libfabric)
{
	enum fabric_wish wish = FABRIC_NONE;
	struct fi_param *params = NULL;
	int count = 0;

	if (libfabric->getparams(&params, &count) || !params)
		return FABRIC_NONE;
	for (int i = 0; i < count; i++) {
		if (strcmp(params[i].name, "FI_MR_CACHE_MONITOR") ||
		    !params[i].value)
			continue;
		wish = strcmp(params[i].value, "disabled") ? FABRIC_OTHER
							   : FABRIC_DISABLED;
	}
	libfabric->freeparams(params);
	return wish;
}

int fabric_import(const struct fabric_functions *libfabric,
		  struct ranges *ranges, const struct fabric_hooks *hooks)
{
	struct fid *cache;
	int ret;

	ret = libfabric->open(FI_VERSION(1, 13), "mr_cache", NULL, 0, 0, &cache,
			      NULL);
	if (ret)
		return ret;
	/* It may be called as soon as it is imported. */
	the_import.ranges = ranges;
	the_import.hooks = *hooks;
	the_import.fid.fid.fclass = FI_CLASS_MEM_MONITOR;
	the_import.fid.export_ops = &export_ops;
	ranges_set_notify(ranges, notify, &the_import.fid);
	ret = fi_import_fid(cache, &the_import.fid.fid, 0);
	fi_close(cache);
	return ret;
}
