/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A cache of one's own, as small as can be, that is never stale: the monitor
 * alone. Buffers are unmapped and mapped anew behind its back.
 */
#include "device.h"

#include <errno.h>
#include <mrcache-monitor.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define BUFFERS 8u
#define LENGTH	((size_t)64 << 10)
#define ROUNDS	200u

struct entry {
	char *addr;
	struct ibv_mr *mr; /* or NULL */
	struct mrcache_watch watch;
};

static struct mrcache_mon *mon;
static struct ibv_pd *pd;
static struct entry entries[BUFFERS];
static unsigned int registered, hits, told;

/* Watch, pin, look: until it was left alone while it was pinned. */
static void fill(struct entry *e)
{
	int ret = mrcache_mon_watch(mon, e->addr, LENGTH, (uintptr_t)e,
				    &e->watch);

	errno = -ret;
	if (ret)
		err(1, "cannot watch");
	for (;;) {
		e->mr = ibv_reg_mr(pd, e->addr, LENGTH, IBV_ACCESS_LOCAL_WRITE);
		if (!e->mr)
			err(1, "ibv_reg_mr");
		registered++;
		if (mrcache_mon_valid(mon, &e->watch))
			return;
		ibv_dereg_mr(e->mr);
		ret = mrcache_mon_rearm(mon, &e->watch);
		errno = -ret;
		if (ret)
			err(1, "cannot rearm");
	}
}

static void empty(struct entry *e)
{
	if (!e->mr)
		return;
	mrcache_mon_unwatch(mon, &e->watch);
	ibv_dereg_mr(e->mr);
	e->mr = NULL;
}

/* The lookup: whatever it returns is right. */
static struct ibv_mr *get(struct entry *e)
{
	if (e->mr && mrcache_mon_valid(mon, &e->watch)) {
		hits++;
		return e->mr;
	}
	empty(e);
	fill(e);
	return e->mr;
}

/* What is stale need not stay pinned until somebody asks for it. */
static void on_change(void *arg, uint64_t cookie)
{
	struct entry *e = (struct entry *)(uintptr_t)cookie;

	(void)arg;
	told++;
	if (!mrcache_mon_valid(mon, &e->watch))
		empty(e);
}

static void map_buffer(struct entry *e)
{
	if (e->addr)
		munmap(e->addr, LENGTH);
	/* At the same address, as allocators do. */
	e->addr = mmap(e->addr, LENGTH, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (e->addr == MAP_FAILED)
		err(1, "mmap");
	memset(e->addr, 1, LENGTH);
}

int main(void)
{
	struct pollfd p = {.events = POLLIN};
	int ret = mrcache_mon_open(&mon, NULL);

	errno = -ret;
	if (ret)
		err(1, "no monitor");
	pd = open_pd();
	p.fd = mrcache_mon_fd(mon);
	for (unsigned int i = 0; i < BUFFERS; i++)
		map_buffer(&entries[i]);
	for (unsigned int i = 0; i < ROUNDS; i++) {
		struct entry *e = &entries[i % BUFFERS];

		get(e);
		if (i % 10 == 0)
			map_buffer(e);
		if (i % 10 == 0 && mrcache_mon_valid(mon, &e->watch))
			errx(1, "stale, and valid");
		if (poll(&p, 1, 0) == 1)
			mrcache_mon_drain(mon, on_change, NULL);
	}
	for (unsigned int i = 0; i < BUFFERS; i++)
		empty(&entries[i]);
	mrcache_mon_close(mon);
	close_pd(pd);
	printf("%u uses: %u registrations, %u hits, told of %u changes\n",
	       ROUNDS, registered, hits, told);
	return 0;
}
