/* SPDX-License-Identifier: BSD-2-Clause */
#include "device.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <unistd.h>

#define FEATURES                                                 \
	(UMMUNOTIFY_FEATURES_MAGIC | UMMUNOTIFY_FEATURE_FILTER | \
	 UMMUNOTIFY_FEATURE_STATE)

#define STANDARD "/dev/ummunotify"

#define FOUND(d, ...)  snprintf((d)->found, sizeof((d)->found), __VA_ARGS__)
#define ADVISE(d, ...) snprintf((d)->advice, sizeof((d)->advice), __VA_ARGS__)

/* modprobe would find a module for the running kernel. */
static bool is_installed(const char *release)
{
	char path[256], line[4096];
	bool found = false;
	FILE *file;

	snprintf(path, sizeof(path), "/lib/modules/%s/modules.dep", release);
	file = fopen(path, "re");
	if (!file)
		return false;
	while (!found && fgets(line, sizeof(line), file)) {
		const char *colon = strchr(line, ':');
		const char *name = strstr(line, "/ummunotify.ko");

		found = name && colon && name < colon;
	}
	fclose(file);
	return found;
}

static void not_loaded(struct device *d)
{
	struct utsname kernel;

	d->state = DEVICE_NOT_LOADED;
	uname(&kernel);
	FOUND(d, "the kernel module ummunotify is not loaded");
	if (is_installed(kernel.release))
		ADVISE(d, "load it as root: modprobe ummunotify; and at every "
			  "boot: echo ummunotify "
			  ">/etc/modules-load.d/ummunotify.conf");
	else
		ADVISE(d,
		       "it is not installed for kernel %s: build it with its "
		       "headers (make -C kernel && make -C kernel "
		       "modules_install && depmod), then as root: modprobe "
		       "ummunotify",
		       kernel.release);
}

static void no_node(struct device *d)
{
	char line[64] = "";
	int major = 0, minor = 0;
	FILE *file;

	d->state = DEVICE_NO_NODE;
	if (strcmp(d->path, STANDARD)) {
		FOUND(d, "%s does not exist", d->path);
		ADVISE(d, "MRCACHE_DEVICE names it; unset that for " STANDARD);
		return;
	}
	FOUND(d, "%s does not exist, although the module is loaded", d->path);
	file = fopen("/sys/class/misc/ummunotify/dev", "re");
	if (file) {
		if (!fgets(line, sizeof(line), file) ||
		    sscanf(line, "%d:%d", &major, &minor) != 2)
			major = 0;
		fclose(file);
	}
	if (major)
		ADVISE(d,
		       "in a container, pass it in (--device "
		       "/dev/ummunotify); elsewhere as root: mknod -m 666 "
		       "/dev/ummunotify c %d %d",
		       major, minor);
	else
		ADVISE(d, "in a container, pass it in (--device "
			  "/dev/ummunotify); elsewhere load the module anew");
}

static void not_permitted(struct device *d, int error)
{
	d->state = DEVICE_NOT_PERMITTED;
	if (d->exists && (error == EPERM || d->node.st_mode & S_IROTH)) {
		/* Its own mode allows it. */
		FOUND(d, "no permission to open %s: %s", d->path,
		      strerror(error));
		ADVISE(d, "the device may be forbidden to this container or "
			  "service (device cgroup, security module): allow "
			  "it there, e.g. --device /dev/ummunotify, or "
			  "DeviceAllow=/dev/ummunotify r");
		return;
	}
	if (!d->exists) {
		FOUND(d, "no permission to reach %s", d->path);
		ADVISE(d, "its directory must be open to this user");
		return;
	}
	FOUND(d,
	      "user %u has no permission to open %s (owner %u:%u, mode %04o)",
	      geteuid(), d->path, d->node.st_uid, d->node.st_gid,
	      d->node.st_mode & 07777);
	ADVISE(d,
	       "as root, now: chmod 0666 %s; for good: %s. It shows each "
	       "process its own memory only",
	       d->path,
	       device_has_udev_rule()
		       ? "find what overrides 60-ummunotify.rules in "
			 "/etc/udev/rules.d"
		       : "install kernel/60-ummunotify.rules in "
			 "/etc/udev/rules.d");
}

static void ask(struct device *d, int fd)
{
	__u32 features = FEATURES;

	if (!S_ISCHR(d->node.st_mode)) {
		d->state = DEVICE_BROKEN;
		FOUND(d, "%s is not a device", d->path);
		ADVISE(d, "remove it and load the module anew");
		return;
	}
	if (ioctl(fd, UMMUNOTIFY_EXCHANGE_FEATURES, &features)) {
		d->state = DEVICE_BROKEN;
		FOUND(d, "%s does not behave as ummunotify: %s", d->path,
		      strerror(errno));
		ADVISE(d, "it belongs to another driver: remove it and load "
			  "the module anew");
		return;
	}
	if (features != FEATURES || ioctl(fd, UMMUNOTIFY_QUERY, &d->query)) {
		d->state = DEVICE_OLD;
		FOUND(d, "a driver without state words, as that of 2010");
		ADVISE(d, "it works, but slower; the driver that comes with "
			  "mrcache has them");
		return;
	}
	d->state = DEVICE_GOOD;
	FOUND(d, "%s works", d->path);
}

void device_probe(struct device *d, const char *path)
{
	int fd, error;

	*d = (struct device){.path = path ? path : STANDARD};
	d->module_loaded = !access("/sys/module/ummunotify", F_OK);
	d->exists = !stat(d->path, &d->node);
	do
		fd = open(d->path,
			  O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	while (fd < 0 && errno == EINTR);
	error = errno;
	if (fd >= 0) {
		ask(d, fd);
		close(fd);
		return;
	}
	switch (error) {
	case ENOENT:
	case ENOTDIR:
		if (d->module_loaded || strcmp(d->path, STANDARD))
			no_node(d);
		else
			not_loaded(d);
		return;
	case ENODEV:
	case ENXIO:
		/* A node that somebody made, or that was left behind. */
		not_loaded(d);
		return;
	case EACCES:
	case EPERM:
		not_permitted(d, error);
		return;
	}
	d->state = DEVICE_BROKEN;
	FOUND(d, "%s cannot be opened: %s", d->path, strerror(error));
	ADVISE(d, "see the kernel's log (dmesg)");
}

bool device_has_udev_rule(void)
{
	static const char *const places[] = {
		"/etc/udev/rules.d", "/run/udev/rules.d",
		"/usr/lib/udev/rules.d", "/lib/udev/rules.d"};
	char path[128];

	for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
		snprintf(path, sizeof(path), "%s/60-ummunotify.rules",
			 places[i]);
		if (!access(path, F_OK))
			return true;
	}
	return false;
}
