/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A reactor: one loop that must not wait. It takes what the cache has and
 * nothing else; what has to be registered goes to a worker, and the request
 * comes again. The loop also does what is due, so that the cache needs no
 * thread.
 */
#include "device.h"

#include <errno.h>
#include <mrcache-transport.h>
#include <mrcache.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#define BUFFERS	 4u
#define LENGTH	 ((size_t)64 << 10)
#define REQUESTS 100u

static struct mrcache *cache;
static struct ibv_pd *pd;
static char *buffers[BUFFERS];
static unsigned int served, waited;
static _Atomic unsigned int ended; /* in whichever thread ends it */

/* ---- the worker, which may wait -------------------------------------------------- */

static int wanted, done; /* eventfds */
static unsigned int wanted_buffer;

static void *work(void *arg)
{
	eventfd_t stop;

	(void)arg;
	while (!eventfd_read(wanted, &stop) && stop == 1) {
		struct ibv_mr *mr =
			mrcache_reg_mr(cache, pd, buffers[wanted_buffer],
				       LENGTH, IBV_ACCESS_LOCAL_WRITE);

		if (!mr)
			err(1, "mrcache_reg_mr");
		/* It stays in the cache, for the loop to find. */
		mrcache_dereg_mr(cache, mr);
		eventfd_write(done, 1);
	}
	return NULL;
}

/* ---- the loop --------------------------------------------------------------------- */

/* False: not now. */
static bool serve(unsigned int buffer)
{
	struct mrcache_request request = {
		.size = sizeof(request),
		.pd = pd,
		.addr = buffers[buffer],
		.length = LENGTH,
		.access = IBV_ACCESS_LOCAL_WRITE,
		.flags = MRCACHE_REG_HIT,
	};
	struct ibv_mr *mr = mrcache_reg_mr_ex(cache, &request);

	if (!mr && errno != EAGAIN)
		err(1, "mrcache_reg_mr_ex");
	if (!mr)
		return false;
	/* Post work with mr->lkey; when it has completed: */
	mrcache_dereg_mr(cache, mr);
	served++;
	return true;
}

static void map_buffer(unsigned int i)
{
	if (buffers[i])
		munmap(buffers[i], LENGTH);
	buffers[i] = mmap(buffers[i], LENGTH, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (buffers[i] == MAP_FAILED)
		err(1, "mmap");
	memset(buffers[i], 1, LENGTH);
}

static void loop(void)
{
	struct pollfd fds[] = {
		{.fd = mrcache_fd(cache), .events = POLLIN},
		{.fd = done, .events = POLLIN},
	};

	while (served < REQUESTS) {
		unsigned int buffer = served % BUFFERS;
		bool is_served = serve(buffer);
		eventfd_t n;

		if (!is_served) {
			waited++;
			wanted_buffer = buffer;
			eventfd_write(wanted, 1);
		} else if (served % 25 == 0) {
			map_buffer(buffer);
		}
		/* Others' completions would be polled here, too. */
		if (poll(fds, 2, is_served ? 0 : -1) < 0)
			err(1, "poll");
		if (fds[0].revents && mrcache_progress(cache))
			errx(1, "the monitor cannot be read");
		while (!is_served && !fds[1].revents)
			poll(&fds[1], 1, -1);
		if (fds[1].revents)
			eventfd_read(done, &n);
	}
}

static void on_end(void *arg, struct ibv_mr *mr, bool stale)
{
	(void)arg;
	(void)mr;
	ended += stale;
}

int main(void)
{
	struct mrcache_attr attr;
	pthread_t worker;

	mrcache_attr_init(&attr);
	attr.monitor = "ummunotify"; /* without it a hit is never to be had */
	cache = mrcache_open(&attr);
	if (!cache)
		err(1, "mrcache_open");
	mrcache_on_end(cache, on_end, NULL);
	pd = open_pd();
	wanted = eventfd(0, EFD_CLOEXEC);
	done = eventfd(0, EFD_CLOEXEC);
	if (wanted < 0 || done < 0 || pthread_create(&worker, NULL, work, NULL))
		errx(1, "no worker");
	for (unsigned int i = 0; i < BUFFERS; i++)
		map_buffer(i);
	loop();
	eventfd_write(wanted, 2);
	pthread_join(worker, NULL);
	mrcache_flush(cache, pd);
	mrcache_close(cache);
	close_pd(pd);
	close(wanted);
	close(done);
	printf("%u requests: %u had to wait, %u registrations ended stale\n",
	       served, waited, ended);
	return 0;
}
