/* SPDX-License-Identifier: BSD-2-Clause */
/* Whether the driver can be used, and if not, why and what to do. */
#ifndef MRCACHE_DEVICE_H
#define MRCACHE_DEVICE_H

#include <linux/ummunotify.h>
#include <stdbool.h>
#include <sys/stat.h>

enum device_state {
	DEVICE_GOOD,
	DEVICE_OLD, /* usable, but a driver that has no state words */
	DEVICE_NOT_LOADED,
	DEVICE_NO_NODE, /* the module is loaded */
	DEVICE_NOT_PERMITTED,
	DEVICE_BROKEN, /* anything else */
};

struct device {
	const char *path;
	enum device_state state;
	bool module_loaded;
	bool exists;
	struct stat node;		     /* if it exists */
	struct ummunotify_query_ioctl query; /* if DEVICE_GOOD */
	char found[256];		     /* a line that says how it is */
	char advice[640];		     /* what to do; empty if nothing */
};

/* Opens the device and closes it again. path NULL is /dev/ummunotify. */
void device_probe(struct device *device, const char *path);

/* A rule of udev's that knows the device is installed. */
bool device_has_udev_rule(void);

#endif /* MRCACHE_DEVICE_H */
