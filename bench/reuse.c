/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bench-reuse: what registering costs a program that transfers, end to end on
 * an RDMA device: registering each time, a naive cache that keeps what it has
 * registered whatever happens (right only while nothing does), mrcache, and
 * on-demand paging where the device has it. Ways take turns.
 */
#include "bench.h"
#include "guest/memop.h"
#include "guest/rdma.h"
#include "mrcache.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MAX	 512u
#define MESSAGE	 ((size_t)8 << 20) /* the largest soft-RoCE carries at once */
#define LARGEST	 ((size_t)16 << 20)
#define SCENARIO ((size_t)64 << 10)

static struct rdma rdma;
static struct mrcache *cache;
static unsigned int turns = 41;

/* ---- ways to register ---------------------------------------------------------------- */

struct way {
	const char *name;
	struct ibv_mr *(*get)(void *addr, size_t size);
	int (*put)(struct ibv_mr *mr);
	void (*forget)(void);
	bool stale; /* wrong once the memory has changed */
};

static struct ibv_mr *kept;
static int kept_access = IBV_ACCESS_LOCAL_WRITE;

static struct ibv_mr *plain_get(void *addr, size_t size)
{
	return ibv_reg_mr(rdma.pd, addr, size, IBV_ACCESS_LOCAL_WRITE);
}

static void nothing(void)
{
}

/* There is one buffer at a time. */
static struct ibv_mr *kept_get(void *addr, size_t size)
{
	if (!kept)
		kept = ibv_reg_mr(rdma.pd, addr, size, kept_access);
	return kept;
}

static int kept_put(struct ibv_mr *mr)
{
	(void)mr;
	return 0;
}

static void kept_forget(void)
{
	if (kept && ibv_dereg_mr(kept))
		bench_die("cannot deregister");
	kept = NULL;
}

static struct ibv_mr *cache_get(void *addr, size_t size)
{
	return mrcache_reg_mr(cache, rdma.pd, addr, size,
			      IBV_ACCESS_LOCAL_WRITE);
}

static int cache_put(struct ibv_mr *mr)
{
	return mrcache_dereg_mr(cache, mr);
}

static void cache_forget(void)
{
	mrcache_flush(cache, rdma.pd);
}

static const struct way ways[] = {
	{"none", plain_get, ibv_dereg_mr, nothing, false},
	{"naive", kept_get, kept_put, kept_forget, true},
	{"mrcache", cache_get, cache_put, cache_forget, false},
};
#define WAYS (sizeof(ways) / sizeof(*ways))

/* One operation: the time of all of it, and of registering alone. */
static double use(const struct way *way, char *addr, size_t size,
		  double *registering)
{
	double start = bench_now(), got, sent, end;
	struct ibv_mr *mr = way->get(addr, size);

	if (!mr)
		bench_die("%s: cannot register: %s", way->name,
			  strerror(errno));
	got = bench_now();
	for (size_t at = 0; at < size; at += MESSAGE)
		if (rdma_write_from(&rdma, mr, addr + at,
				    size - at < MESSAGE ? size - at : MESSAGE))
			bench_die("%s: cannot transfer", way->name);
	sent = bench_now();
	if (way->put(mr))
		bench_die("%s: cannot give back", way->name);
	end = bench_now();
	if (registering)
		*registering = got - start + end - sent;
	return end - start;
}

/* ---- nothing changes --------------------------------------------------------------------- */

static void reuse(size_t size)
{
	static double samples[WAYS][MAX], registering[WAYS][MAX];
	unsigned int n = turns;
	char *addr = mmap(NULL, size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (addr == MAP_FAILED)
		bench_die("no memory");
	memset(addr, 1, size);
	if (size > (size_t)1 << 20 && n > 11)
		n = 11;
	/* The first for warming up. */
	for (unsigned int turn = 0; turn < n + 1; turn++)
		for (size_t i = 0; i < WAYS; i++) {
			unsigned int at = turn ? turn - 1 : 0;

			samples[i][at] =
				use(&ways[i], addr, size, &registering[i][at]);
		}
	for (size_t i = 0; i < WAYS; i++) {
		ways[i].forget();
		bench_add("ns", samples[i], n, "reuse/%zu/%s", size,
			  ways[i].name);
		bench_add("ns", registering[i], n, "reuse/%zu/%s/registering",
			  size, ways[i].name);
	}
	munmap(addr, size);
}

/* ---- new memory at the old address each time ------------------------------------------------ */

static double remap_and_use(const struct way *way, char *addr, size_t size,
			    unsigned int seed)
{
	double start = bench_now();

	if (munmap(addr, size) ||
	    mmap(addr, size, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1,
		 0) != addr)
		bench_die("cannot map again");
	memset(addr, (int)seed, size);
	use(way, addr, size, NULL);
	return bench_now() - start;
}

static void remap(size_t size)
{
	static double samples[WAYS][MAX];
	char *addr = mmap(NULL, size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned int n = 2 * turns;

	if (addr == MAP_FAILED)
		bench_die("no memory");
	for (unsigned int turn = 0; turn < n + 1; turn++)
		for (size_t i = 0; i < WAYS; i++)
			if (!ways[i].stale)
				samples[i][turn ? turn - 1 : 0] = remap_and_use(
					&ways[i], addr, size, turn);
	for (size_t i = 0; i < WAYS; i++) {
		ways[i].forget();
		if (!ways[i].stale)
			bench_add("ns", samples[i], n, "remap/%zu/%s", size,
				  ways[i].name);
	}
	munmap(addr, size);
}

/* ---- every scenario as a loop ------------------------------------------------------------------ */

static bool play_once(const struct way *way, struct memop_buffer *b,
		      double *whole, double *registering)
{
	double start = bench_now();

	if (memop_perform(b))
		return false;
	/* So that it is present, whatever was done to it. */
	memop_fill(b->addr, b->size, 1);
	use(way, b->addr, b->size, registering);
	*whole = bench_now() - start;
	return true;
}

static void scenario(const struct memop *op)
{
	static double whole[MAX], registering[MAX];
	const unsigned int n = turns / 2;

	for (size_t i = 0; i < WAYS; i++) {
		struct memop_buffer b;
		unsigned int turn;

		if (ways[i].stale)
			continue;
		if (memop_make(&b, op, SCENARIO)) {
			bench_skip(op->name, "its memory cannot be made");
			return;
		}
		use(&ways[i], b.addr, b.size, NULL);
		for (turn = 0; turn < n; turn++)
			if (!play_once(&ways[i], &b, &whole[turn],
				       &registering[turn]))
				break;
		ways[i].forget();
		memop_drop(&b);
		if (turn < n) {
			bench_skip(op->name, "the operation failed");
			return;
		}
		bench_add("ns", whole, n, "scenario/%s/%s", op->name,
			  ways[i].name);
		bench_add("ns", registering, n, "scenario/%s/%s/registering",
			  op->name, ways[i].name);
	}
	bench_value("", op->verdict == MEMOP_QUIET, "scenario/%s/kept",
		    op->name);
}

static void scenarios(void)
{
	for (size_t i = 0; i < memop_count(); i++) {
		const struct memop *op = memop_get(i);

		if (op->verdict == MEMOP_EITHER)
			continue;
		if (memop_missing(op))
			bench_skip(op->name, memop_missing(op));
		else
			scenario(op);
	}
}

/* ---- on-demand paging ----------------------------------------------------------------------------- */

static const char *odp_missing(void)
{
	struct ibv_device_attr_ex attr;

	if (ibv_query_device_ex(rdma.context, NULL, &attr) ||
	    !(attr.odp_caps.general_caps & IBV_ODP_SUPPORT) ||
	    !(attr.odp_caps.per_transport_caps.rc_odp_caps &
	      IBV_ODP_SUPPORT_SEND))
		return "this kernel's soft-RoCE has no on-demand paging";
	return NULL;
}

/* Registered once; what is unmapped is faulted in by the transfer. */
static void on_demand(size_t size)
{
	static const struct way way = {"odp", kept_get, kept_put, kept_forget,
				       false};
	static double samples[MAX];
	char *addr = mmap(NULL, size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (addr == MAP_FAILED)
		bench_die("no memory");
	memset(addr, 1, size);
	kept_access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_ON_DEMAND;
	for (unsigned int turn = 0; turn < turns + 1; turn++)
		samples[turn ? turn - 1 : 0] = use(&way, addr, size, NULL);
	bench_add("ns", samples, turns, "reuse/%zu/odp", size);
	for (unsigned int turn = 0; turn < turns + 1; turn++)
		samples[turn ? turn - 1 : 0] =
			remap_and_use(&way, addr, size, turn);
	bench_add("ns", samples, turns, "remap/%zu/odp", size);
	kept_forget();
	kept_access = IBV_ACCESS_LOCAL_WRITE;
	munmap(addr, size);
}

int main(int argc, char **argv)
{
	struct mrcache_attr attr;

	bench_begin(argc, argv, "What registering costs transfers.");
	if (bench_options.quick)
		turns = 7;
	if (rdma_missing()) {
		bench_skip("reuse", rdma_missing());
		return bench_end();
	}
	mrcache_attr_init(&attr);
	attr.monitor = "ummunotify";
	cache = mrcache_open(&attr);
	if (!cache || rdma_open(&rdma, MESSAGE))
		bench_die("no device");
	for (size_t size = 4096; size <= LARGEST; size *= 4)
		reuse(size);
	for (size_t size = 4096; size <= (size_t)1 << 20; size *= 16)
		remap(size);
	if (odp_missing())
		bench_skip("odp", odp_missing());
	else
		for (size_t size = 4096; size <= (size_t)1 << 20; size *= 16)
			on_demand(size);
	scenarios();
	if (mrcache_close(cache) || rdma_close(&rdma))
		bench_die("something is registered still");
	return bench_end();
}
