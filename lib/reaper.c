/* SPDX-License-Identifier: BSD-2-Clause */
#include "reaper.h"

#include "await.h"
#include "drain.h"
#include "evict.h"
#include "log.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/*
 * Enough for a log callback, and too small for a transparent huge page: in a
 * stack of the usual size a few kilobytes of use may cost two megabytes.
 */
#define STACK ((size_t)256 << 10)

struct mrc_reaper {
	pthread_t thread;
	int stop; /* eventfd, which is never waited for in a read */
};

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int mrc_reaper_batch = 50;

/* When the monitor is asked again after a failure, in milliseconds. */
#define RETRY 1000

/* How long until something is due; -1: it never is (0). */
static int until(int64_t due, int64_t now)
{
	return !due ? -1 : due > now ? (int)(due - now) : 0;
}

static int sooner(int one, int other)
{
	return one < 0 || (other >= 0 && other < one) ? other : one;
}

static bool is_to_stop(int stop)
{
	eventfd_t count;

	return !eventfd_read(stop, &count);
}

/*
 * Whatever fails, it goes on: it is what keeps the promise that remote keys do
 * not live on without limit.
 */
static void *reap(void *arg)
{
	struct mrcache *cache = arg;
	struct pollfd fds[] = {
		{.fd = cache->monitor->fd, .events = POLLIN},
		{.fd = cache->reaper->stop, .events = POLLIN},
	};
	int64_t linger = cache->attr.linger ? cache->attr.linger / 2 + 1 : 0;
	int64_t next = linger ? now_ms() + linger : 0, due = 0;
	bool said = false;

	for (;;) {
		int64_t now = now_ms();
		bool failed = false;
		int timeout;

		/* A clock of its own: events must not put off what lingers. */
		if (linger && now >= next) {
			mrc_linger(cache);
			next = now + linger;
		}
		/* Not polled before that, nobody is woken. */
		if (due && now >= due) {
			due = 0;
			fds[0].fd = cache->monitor->fd;
			failed = !mrc_drain_aside(cache);
		}
		fds[0].revents = fds[1].revents = 0;
		timeout = sooner(until(next, now), until(due, now));
		failed = failed || !mrc_await(fds, 2, timeout);
		if (fds[1].revents || (failed && is_to_stop(fds[1].fd)))
			return NULL;
		failed |= fds[0].revents & ~POLLIN;
		if (!failed && !fds[0].revents)
			continue;
		fds[0].fd = -1;
		/* Not put off by the next failure. */
		if (!due)
			due = now_ms() + (failed ? RETRY : mrc_reaper_batch);
		/* What lingers ends all the same, or keys would work for ever. */
		if (failed && !said)
			mrc_log(&cache->attr, MRCACHE_LOG_ERROR,
				"the reaper cannot read the monitor, or wait for it; stale memory stays registered until it can, or the next miss");
		said |= failed;
	}
}

static int start_thread(struct mrcache *cache, pthread_t *thread)
{
	pthread_attr_t attr;
	int ret;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK);
	ret = pthread_create(thread, &attr, reap, cache);
	pthread_attr_destroy(&attr);
	/* A program's thread-local variables are in the stack, too. */
	return ret == EINVAL ? pthread_create(thread, NULL, reap, cache) : ret;
}

int mrc_reaper_start(struct mrcache *cache)
{
	struct mrc_reaper *reaper = calloc(1, sizeof(*reaper));
	sigset_t all, old;
	int ret;

	if (!reaper)
		return -ENOMEM;
	reaper->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (reaper->stop < 0) {
		ret = errno;
		goto err_reaper;
	}
	cache->reaper = reaper;
	/* The program's signals are for its own threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = start_thread(cache, &reaper->thread);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (ret)
		goto err_stop;
	return 0;

err_stop:
	cache->reaper = NULL;
	close(reaper->stop);
err_reaper:
	free(reaper);
	return -ret;
}

static void end(struct mrcache *cache)
{
	struct mrc_reaper *reaper = cache->reaper;

	/* First: the child of a fork beside us would do all this again. */
	cache->reaper = NULL;
	close(reaper->stop);
	free(reaper);
}

void mrc_reaper_stop(struct mrcache *cache)
{
	struct mrc_reaper *reaper = cache->reaper;

	if (!reaper)
		return;
	eventfd_write(reaper->stop, 1);
	pthread_join(reaper->thread, NULL);
	end(cache);
}

void mrc_reaper_leave(struct mrcache *cache)
{
	struct timespec limit;

	if (!cache->reaper)
		return;
	eventfd_write(cache->reaper->stop, 1);
	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec++;
	if (!pthread_timedjoin_np(cache->reaper->thread, NULL, &limit))
		end(cache);
}

void mrc_reaper_forget(struct mrcache *cache)
{
	struct mrc_reaper *reaper = cache->reaper;

	if (!reaper || reaper->stop < 0)
		return;
	close(reaper->stop);
	reaper->stop = -1;
}
