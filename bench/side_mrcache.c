/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libmrcache on verbs that do nothing and a monitor that never reports. Its
 * counter and state words are in a shared mapping, which the cache sees
 * read-only, as the driver's.
 */
#include "side.h"
#include "bench.h"
#include "open.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define SLOTS	    ((size_t)2 << 20)
#define WORDS_BYTES (4096 + SLOTS * sizeof(uint32_t))
#define ARMED	    0x100u

struct null_monitor {
	struct mrc_monitor monitor;
	uint64_t *generation; /* the driver's view */
	uint32_t *states;
	void *seen; /* the cache's */
	_Atomic uint32_t next_slot;
};

struct cache {
	struct mrcache *cache;
	struct null_monitor *monitor;
};

/* ---- monitor -------------------------------------------------------------------- */

static int null_watch(struct mrc_monitor *monitor, uint64_t start, uint64_t end,
		      uint64_t cookie, struct mrc_watch *watch)
{
	struct null_monitor *m = (struct null_monitor *)monitor;

	(void)start;
	(void)end;
	(void)cookie;
	watch->slot = atomic_fetch_add(&m->next_slot, 1);
	if (watch->slot >= SLOTS)
		return -ENOSPC;
	watch->armed = m->states[watch->slot] = ARMED;
	return 0;
}

static int null_rearm(struct mrc_monitor *monitor, uint64_t cookie,
		      struct mrc_watch *watch)
{
	(void)monitor;
	(void)cookie;
	(void)watch;
	return -ENOENT;
}

static int null_unwatch(struct mrc_monitor *monitor, uint64_t cookie)
{
	(void)monitor;
	(void)cookie;
	return 0;
}

static int null_read(struct mrc_monitor *monitor, uint64_t *cookies, size_t max,
		     uint64_t *generation, bool *empty)
{
	struct null_monitor *m = (struct null_monitor *)monitor;

	(void)cookies;
	(void)max;
	*generation = __atomic_load_n(m->generation, __ATOMIC_ACQUIRE);
	*empty = true;
	return 0;
}

static void null_close(struct mrc_monitor *monitor)
{
	struct null_monitor *m = (struct null_monitor *)monitor;

	munmap(m->generation, WORDS_BYTES);
	munmap(m->seen, WORDS_BYTES);
	free(m);
}

static const struct mrc_monitor_ops null_ops = {
	.watch = null_watch,
	.rearm = null_rearm,
	.unwatch = null_unwatch,
	.read = null_read,
	.close = null_close,
};

static struct null_monitor *new_monitor(void)
{
	struct null_monitor *m = calloc(1, sizeof(*m));
	int memory = memfd_create("monitor", MFD_CLOEXEC);
	char *words, *seen;

	if (!m || memory < 0 || ftruncate(memory, (off_t)WORDS_BYTES))
		bench_die("no memory for a monitor");
	words = mmap(NULL, WORDS_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
		     memory, 0);
	seen = mmap(NULL, WORDS_BYTES, PROT_READ, MAP_SHARED, memory, 0);
	if (words == MAP_FAILED || seen == MAP_FAILED)
		bench_die("no memory for a monitor");
	close(memory);
	m->generation = (uint64_t *)words;
	m->states = (uint32_t *)(words + 4096);
	m->seen = seen;
	m->monitor = (struct mrc_monitor){
		.ops = &null_ops,
		.name = "null",
		.generation = (const uint64_t *)seen,
		.states = (const uint32_t *)(seen + 4096),
		.fd = -1,
	};
	return m;
}

/* ---- verbs ------------------------------------------------------------------------- */

static struct ibv_mr *null_reg_mr(struct ibv_pd *pd, void *addr, size_t length,
				  int access)
{
	struct ibv_mr *mr = calloc(1, sizeof(*mr));

	(void)access;
	if (mr) {
		mr->pd = pd;
		mr->addr = addr;
		mr->length = length;
	}
	return mr;
}

static int null_dereg_mr(struct ibv_mr *mr)
{
	free(mr);
	return 0;
}

static const struct mrc_verbs null_verbs = {
	null_reg_mr,
	null_dereg_mr,
};

static struct ibv_context context;
static struct ibv_pd pd = {.context = &context};

/* ---- the side ------------------------------------------------------------------------ */

static const char *missing(void)
{
	return NULL;
}

static void *open_cache(bool contain)
{
	struct cache *c = calloc(1, sizeof(*c));
	struct mrcache_attr attr;

	if (!c)
		bench_die("no memory");
	mrcache_attr_init(&attr);
	attr.max_bytes = UINT64_MAX;
	attr.max_regs = SLOTS;
	attr.contain = contain;
	c->monitor = new_monitor();
	c->cache = mrc_open(&attr, &c->monitor->monitor, &null_verbs);
	if (!c->cache)
		bench_die("no cache");
	return c;
}

/*
 * Called as a program calls the shared library, through a pointer that is
 * looked up once; the compiler must not know what it points to.
 */
static struct ibv_mr *(*volatile reg)(struct mrcache *, struct ibv_pd *, void *,
				      size_t, int) = mrcache_reg_mr;
static int (*volatile dereg)(struct mrcache *,
			     struct ibv_mr *) = mrcache_dereg_mr;

static inline void loop(void *cache, const uintptr_t *addresses, size_t n,
			size_t length, bool key)
{
	struct ibv_mr *(*get)(struct mrcache *, struct ibv_pd *, void *, size_t,
			      int) = reg;
	int (*put)(struct mrcache *, struct ibv_mr *) = dereg;
	struct mrcache *c = ((struct cache *)cache)->cache;

	for (size_t i = 0; i < n; i++) {
		struct ibv_mr *mr = get(c, &pd, (void *)addresses[i], length,
					IBV_ACCESS_LOCAL_WRITE);

		if (key)
			(void)*(volatile uint32_t *)&mr->lkey;
		put(c, mr);
	}
}

static void hit(void *cache, const uintptr_t *addresses, size_t n,
		size_t length)
{
	loop(cache, addresses, n, length, false);
}

static void hit_and_key(void *cache, const uintptr_t *addresses, size_t n,
			size_t length)
{
	loop(cache, addresses, n, length, true);
}

static uint64_t misses(void *cache)
{
	struct mrcache_stats stats;

	mrcache_get_stats(side_mrcache_of(cache), &stats, sizeof(stats));
	return stats.registrations;
}

static void close_cache(void *cache)
{
	struct cache *c = cache;
	int ret = mrcache_close(c->cache);

	if (ret)
		bench_die("a registration is held still: %d", ret);
	free(c);
}

const struct side side_mrcache = {
	.name = "mrcache",
	.missing = missing,
	.open = open_cache,
	.hit = hit,
	.hit_and_key = hit_and_key,
	.misses = misses,
	.close = close_cache,
};

struct mrcache *side_mrcache_of(void *cache)
{
	return ((struct cache *)cache)->cache;
}

struct ibv_mr *side_mrcache_hold(void *cache, uintptr_t address, size_t length)
{
	return mrcache_reg_mr(side_mrcache_of(cache), &pd, (void *)address,
			      length, IBV_ACCESS_LOCAL_WRITE);
}

void side_mrcache_release(void *cache, struct ibv_mr *mr)
{
	mrcache_dereg_mr(side_mrcache_of(cache), mr);
}

void side_mrcache_noise(void *cache)
{
	uint64_t *generation = ((struct cache *)cache)->monitor->generation;

	/* Only one thread does this; the driver has a lock for it. */
	__atomic_store_n(generation, *generation + 1, __ATOMIC_RELEASE);
}

size_t side_mrcache_fake_bytes(void *cache)
{
	/* The allocator's own word included. */
	return misses(cache) * (sizeof(struct ibv_mr) + sizeof(size_t));
}
