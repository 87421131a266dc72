/* SPDX-License-Identifier: BSD-2-Clause */
/* The driver's module, for tests that load it anew; see module.h. */
#include "module.h"
#include "umn.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int module_unload(void)
{
	return syscall(SYS_delete_module, "ummunotify", O_NONBLOCK) ? -errno
								    : 0;
}

/* The module's file, or -errno. */
static int open_module(void)
{
	const char *file = getenv("UMN_MODULE"), *results = getenv("RESULTS");
	char path[512];
	int fd;

	if (!file && results) {
		snprintf(path, sizeof(path), "%s/.guest/ummunotify.ko",
			 results);
		file = path;
	}
	if (!file)
		return -ENOENT;
	fd = open(file, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int module_load(const char *parameters)
{
	const struct timespec pause = {.tv_nsec = 1000000};
	time_t end = time(NULL) + 10;
	int fd, ret;

	fd = open_module();
	if (fd < 0)
		return fd;
	ret = syscall(SYS_finit_module, fd, parameters, 0) ? -errno : 0;
	close(fd);
	/* devtmpfs makes the node. */
	while (!ret && access(UMN_DEVICE, R_OK) && time(NULL) < end)
		nanosleep(&pause, NULL);
	return ret;
}

int module_reload(const char *parameters)
{
	int fd, ret;

	fd = open_module();
	if (fd < 0) {
		fprintf(stderr, "no module file (UMN_MODULE): %s\n",
			strerror(-fd));
		return fd;
	}
	close(fd);
	ret = module_unload();
	return ret && ret != -ENOENT ? ret : module_load(parameters);
}
