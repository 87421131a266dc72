/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The reaper: a thread that drains as soon as the monitor has something, so
 * that memory a program has freed does not stay pinned until its next miss.
 */
#include "mrcache_int.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

struct mrc_reaper {
	pthread_t thread;
	int stop; /* eventfd */
};

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void *reap(void *arg)
{
	struct mrcache *cache = arg;
	struct pollfd fds[] = {
		{.fd = cache->monitor->fd, .events = POLLIN},
		{.fd = cache->reaper->stop, .events = POLLIN},
	};
	int64_t linger = cache->attr.linger ? cache->attr.linger / 2 + 1 : 0;
	int64_t next = now_ms() + linger;

	for (;;) {
		/* A clock of its own: events must not put off what lingers. */
		if (linger && now_ms() >= next) {
			mrc_linger(cache);
			next = now_ms() + linger;
		}
		fds[0].revents = fds[1].revents = 0;
		if (poll(fds, 2, linger ? (int)linger : -1) < 0 &&
		    errno != EINTR)
			break;
		if (fds[1].revents)
			return NULL;
		if (fds[0].revents & ~POLLIN)
			break;
		if ((fds[0].revents & POLLIN) && !mrc_drain(cache, true))
			break;
	}
	mrc_log(&cache->attr, MRCACHE_LOG_ERROR,
		"the reaper cannot go on; stale memory stays registered until the next miss");
	return NULL;
}

int mrc_reaper_start(struct mrcache *cache)
{
	struct mrc_reaper *reaper = calloc(1, sizeof(*reaper));
	sigset_t all, old;
	int ret;

	if (!reaper)
		return -ENOMEM;
	reaper->stop = eventfd(0, EFD_CLOEXEC);
	if (reaper->stop < 0) {
		ret = errno;
		goto err_reaper;
	}
	cache->reaper = reaper;
	/* The program's signals are for its own threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = pthread_create(&reaper->thread, NULL, reap, cache);
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

void mrc_reaper_stop(struct mrcache *cache)
{
	struct mrc_reaper *reaper = cache->reaper;

	if (!reaper)
		return;
	eventfd_write(reaper->stop, 1);
	pthread_join(reaper->thread, NULL);
	mrc_reaper_forget(cache);
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
		mrc_reaper_forget(cache);
}

void mrc_reaper_forget(struct mrcache *cache)
{
	if (!cache->reaper)
		return;
	close(cache->reaper->stop);
	free(cache->reaper);
	cache->reaper = NULL;
}
