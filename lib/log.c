/* SPDX-License-Identifier: BSD-2-Clause */
/* Log lines. To the caller's function if there is one, else to standard error. */
#include "mrcache_int.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void mrc_log(const struct mrcache_attr *attr, enum mrcache_log_level level,
	     const char *format, ...)
{
	int saved = errno;
	char line[512];
	va_list args;

	if (level > attr->log_level)
		return;
	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (attr->log)
		attr->log(attr->log_arg, level, line);
	else
		fprintf(stderr, "mrcache: %s\n", line);
	errno = saved;
}

const char *mrcache_strerror(int error)
{
	if (error < 0 && error != INT_MIN)
		error = -error;
	switch (error) {
	case 0:
		return "no error";
	case EINVAL:
		return "not a valid argument: a cache that is closed, a registration that is "
		       "not held, or a setting that makes no sense";
	case EBUSY:
		return "registrations are still held";
	case ENOMEM:
		return "no memory, or not allowed to lock so much (see ulimit -l)";
	case ENOENT:
	case ENXIO:
	case ENODEV:
		return "no such device (is the ummunotify module loaded?)";
	case EACCES:
	case EPERM:
		return "not permitted (may this user read /dev/ummunotify?)";
	case ESTALE:
		return "the monitor belongs to another process: opened before a fork or exec";
	case ENOSPC:
		return "the monitor's limit of watches is reached";
	case EOPNOTSUPP:
		return "memory whose registration cannot be cached";
	default:
		/* NOLINTNEXTLINE(concurrency-mt-unsafe): glibc's is safe */
		return strerror(error);
	}
}

const char *mrcache_bypass_name(enum mrcache_bypass reason)
{
	static const char *const names[MRCACHE_BYPASS_REASONS] = {
		[MRCACHE_BYPASS_MONITOR] = "monitor",
		[MRCACHE_BYPASS_ACCESS] = "access",
		[MRCACHE_BYPASS_REMOTE] = "remote",
		[MRCACHE_BYPASS_RANGE] = "range",
		[MRCACHE_BYPASS_MEMORY] = "memory",
		[MRCACHE_BYPASS_FORK] = "fork",
		[MRCACHE_BYPASS_LIMIT] = "limit",
		[MRCACHE_BYPASS_WATCH] = "watch",
		[MRCACHE_BYPASS_UNSTABLE] = "unstable",
		[MRCACHE_BYPASS_KIND] = "kind",
	};

	if ((unsigned int)reason >= MRCACHE_BYPASS_REASONS)
		return "unknown";
	return names[reason];
}
