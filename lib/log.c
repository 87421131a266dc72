/* SPDX-License-Identifier: BSD-2-Clause */
/* Log lines. To the caller's function if there is one, else to standard error. */
#include "log.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Half a line would be none. */
static bool has_room(int fd, size_t size)
{
	struct rlimit limit;
	struct stat st;

	if (fstat(fd, &st) || !S_ISREG(st.st_mode) ||
	    getrlimit(RLIMIT_FSIZE, &limit))
		return true;
	return (rlim_t)st.st_size <= limit.rlim_cur &&
	       limit.rlim_cur - (rlim_t)st.st_size >= size;
}

/*
 * A pipe that nobody reads and RLIMIT_FSIZE mean a signal, which would end the
 * program or find a handler of its own. It is this thread's, so here it waits
 * until it is taken away.
 */
bool mrc_write_quietly(int fd, const char *text, size_t size)
{
	sigset_t ours, before, pending;
	bool done;
	int saved;

	if (!has_room(fd, size)) {
		errno = EFBIG;
		return false;
	}
	sigemptyset(&ours);
	sigemptyset(&pending);
	sigaddset(&ours, SIGPIPE);
	sigaddset(&ours, SIGXFSZ);
	pthread_sigmask(SIG_BLOCK, &ours, &before);
	sigpending(&pending);
	done = write(fd, text, size) == (ssize_t)size;
	saved = errno;
	/* What the program has blocked, and got before, is its own. */
	if (sigismember(&pending, SIGPIPE))
		sigdelset(&ours, SIGPIPE);
	if (sigismember(&pending, SIGXFSZ))
		sigdelset(&ours, SIGXFSZ);
	while (!done && sigtimedwait(&ours, NULL, &(struct timespec){0}) > 0)
		;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	errno = saved;
	return done;
}

void mrc_say(const char *line)
{
	char whole[1100];
	int length = snprintf(whole, sizeof(whole), "mrcache: %s\n", line);

	if (length >= (int)sizeof(whole)) {
		length = sizeof(whole) - 1;
		whole[length - 1] = '\n';
	}
	mrc_write_quietly(STDERR_FILENO, whole, (size_t)length);
}

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
		mrc_say(line);
	errno = saved;
}

bool mrc_once(struct mrcache *cache, unsigned int what)
{
	uint64_t bit = UINT64_C(1) << what;

	return !(atomic_fetch_or(&cache->said, bit) & bit);
}

void mrc_count_bypass(struct mrcache *cache, enum mrcache_bypass reason)
{
	static const char *const why[MRCACHE_BYPASS_REASONS] = {
		[MRCACHE_BYPASS_MONITOR] = "there is no monitor",
		[MRCACHE_BYPASS_ACCESS] = "its access flags cannot be cached",
		[MRCACHE_BYPASS_REMOTE] =
			"it grants remote access (MRCACHE_REMOTE=1 or MRCACHE_LINGER=milliseconds cache those)",
		[MRCACHE_BYPASS_RANGE] = "its range is empty or wraps around",
		[MRCACHE_BYPASS_MEMORY] =
			"it is of device memory, or has a hole",
		[MRCACHE_BYPASS_FORK] =
			"libibverbs keeps it from children (fork support by ibv_fork_init, RDMAV_FORK_SAFE or IBV_FORK_SAFE; Linux 5.12 and later need none)",
		[MRCACHE_BYPASS_LIMIT] =
			"the cache's limits are reached and all is held",
		[MRCACHE_BYPASS_WATCH] = "the monitor cannot watch it",
		[MRCACHE_BYPASS_UNSTABLE] = "its mapping kept changing",
		[MRCACHE_BYPASS_KIND] =
			"it is not of plain memory at its own address",
	};

	const char *text = why[reason];

	mrc_count(cache, STAT_BYPASS + (enum mrc_stat)reason);
	/* There it is for another reason than in the parent. */
	if (reason == MRCACHE_BYPASS_FORK && !mrc_is_owner(cache))
		text = "this is a fork child of the process with the cache";
	/* Without a monitor it was said at open. */
	if (reason != MRCACHE_BYPASS_MONITOR &&
	    mrc_once(cache, ONCE_BYPASS + reason))
		mrc_log(&cache->attr, MRCACHE_LOG_WARN,
			"a registration was not cached: %s (said once, counted)",
			text);
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
