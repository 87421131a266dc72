/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Preloaded into the command: any character device that is asked is the driver,
 * with all it can do. FAKE_HANG: libibverbs does not come back.
 */
#include <dlfcn.h>
#include <linux/ummunotify.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

EXPORT int ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	void *arg;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (request == UMMUNOTIFY_EXCHANGE_FEATURES)
		return 0; /* all that is asked for */
	if (request == UMMUNOTIFY_QUERY) {
		memset(arg, 0, sizeof(struct ummunotify_query_ioctl));
		return 0;
	}
	return (int)syscall(SYS_ioctl, fd, request, arg);
}

typedef void *list_fn(int *count);

EXPORT void *ibv_get_device_list(int *count)
{
	list_fn *next = (list_fn *)dlsym(RTLD_NEXT, "ibv_get_device_list");

	while (getenv("FAKE_HANG"))
		usleep(10000);
	return next ? next(count) : NULL;
}
