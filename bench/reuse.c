/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bench-reuse: what registering costs a program that transfers, end to end on
 * an RDMA device: registering each time, a naive cache that keeps what it has
 * registered whatever happens (right only while nothing does), mrcache, and
 * on-demand paging where the device has it. Ways take turns.
 */
#include "bench.h"
#include "support/memop.h"
#include "support/purge.h"
#include "support/rdma.h"
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
/* As it is, with a reaper, as the shim has it, and full: all is held. */
static struct mrcache *cache, *reaped, *full;

/* ---- ways to register ---------------------------------------------------------------- */

struct way {
	const char *name;
	struct ibv_mr *(*get)(struct way *way, void *addr, size_t size);
	int (*put)(struct ibv_mr *mr);
	void (*forget)(struct way *way);
	int access;
	bool stale;	     /* wrong once the memory has changed */
	struct ibv_mr *kept; /* there is one buffer at a time */
};

static struct ibv_mr *plain_get(struct way *way, void *addr, size_t size)
{
	return ibv_reg_mr(rdma.pd, addr, size, way->access);
}

static void nothing(struct way *way)
{
	(void)way;
}

static struct ibv_mr *kept_get(struct way *way, void *addr, size_t size)
{
	if (!way->kept)
		way->kept = plain_get(way, addr, size);
	return way->kept;
}

static int kept_put(struct ibv_mr *mr)
{
	(void)mr;
	return 0;
}

static void kept_forget(struct way *way)
{
	if (way->kept && ibv_dereg_mr(way->kept))
		bench_die("cannot deregister");
	way->kept = NULL;
}

/* As late as a cache can: when the same memory is asked for again. */
static struct ibv_mr *late_get(struct way *way, void *addr, size_t size)
{
	kept_forget(way);
	return kept_get(way, addr, size);
}

static struct ibv_mr *cache_get(struct way *way, void *addr, size_t size)
{
	return mrcache_reg_mr(cache, rdma.pd, addr, size, way->access);
}

static int cache_put(struct ibv_mr *mr)
{
	return mrcache_dereg_mr(cache, mr);
}

static void cache_forget(struct way *way)
{
	(void)way;
	mrcache_flush(cache, rdma.pd);
}

static struct ibv_mr *reaped_get(struct way *way, void *addr, size_t size)
{
	return mrcache_reg_mr(reaped, rdma.pd, addr, size, way->access);
}

static int reaped_put(struct ibv_mr *mr)
{
	return mrcache_dereg_mr(reaped, mr);
}

static void reaped_forget(struct way *way)
{
	(void)way;
	mrcache_flush(reaped, rdma.pd);
}

static struct ibv_mr *full_get(struct way *way, void *addr, size_t size)
{
	return mrcache_reg_mr(full, rdma.pd, addr, size, way->access);
}

static int full_put(struct ibv_mr *mr)
{
	return mrcache_dereg_mr(full, mr);
}

#define LOCAL  IBV_ACCESS_LOCAL_WRITE
#define PAGING (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_ON_DEMAND)

enum { NONE, NAIVE, LATE, MRCACHE, ODP, WAYS, REAPED = WAYS, FULL, ALL_WAYS };
static struct way ways[ALL_WAYS] = {
	{"none", plain_get, ibv_dereg_mr, nothing, LOCAL, false, NULL},
	{"naive", kept_get, kept_put, kept_forget, LOCAL, true, NULL},
	{"late", late_get, kept_put, kept_forget, LOCAL, false, NULL},
	{"mrcache", cache_get, cache_put, cache_forget, LOCAL, false, NULL},
	{"odp", kept_get, kept_put, kept_forget, PAGING, false, NULL},
	{"reaped", reaped_get, reaped_put, reaped_forget, LOCAL, false, NULL},
	{"full", full_get, full_put, nothing, LOCAL, false, NULL},
};
static size_t usable = WAYS; /* how many of them */

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

/* ---- one operation --------------------------------------------------------------------- */

/* Nanoseconds of its parts. */
enum part { UNMAP, FILL, GET, SEND, PUT, PARTS };
static const char *const part_names[PARTS] = {"unmap", "fill", "get", "send",
					      "put"};

static double whole(const double parts[PARTS])
{
	double sum = 0;

	for (size_t i = 0; i < PARTS; i++)
		sum += parts[i];
	return sum;
}

/* Adds the time since *then, which becomes now. */
static void lap(double *part, double *then)
{
	double now = bench_now();

	*part += now - *then;
	*then = now;
}

static void use(struct way *way, char *addr, size_t size, double parts[PARTS])
{
	double then = bench_now();
	struct ibv_mr *mr = way->get(way, addr, size);

	if (!mr)
		bench_die("%s: cannot register: %s", way->name,
			  strerror(errno));
	lap(&parts[GET], &then);
	for (size_t at = 0; at < size; at += MESSAGE)
		if (rdma_write_from(&rdma, mr, addr + at,
				    size - at < MESSAGE ? size - at : MESSAGE))
			bench_die("%s: cannot transfer", way->name);
	lap(&parts[SEND], &then);
	if (way->put(mr))
		bench_die("%s: cannot give back", way->name);
	lap(&parts[PUT], &then);
}

static void remap_and_use(struct way *way, char *addr, size_t size,
			  unsigned int seed, double parts[PARTS])
{
	double then = bench_now();

	if (munmap(addr, size) ||
	    mmap(addr, size, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1,
		 0) != addr)
		bench_die("cannot map again");
	lap(&parts[UNMAP], &then);
	memset(addr, (int)seed, size);
	lap(&parts[FILL], &then);
	use(way, addr, size, parts);
	if (memcmp(rdma.peer, addr, size))
		bench_die("%s: transferred the wrong memory", way->name);
}

/* ---- loops of them ----------------------------------------------------------------------- */

static double samples[ALL_WAYS][PARTS][MAX];

/* Of a turn of all ways; every other one goes backwards. */
static size_t nth(unsigned int turn, size_t i)
{
	return turn % 2 ? usable - 1 - i : i;
}

static void keep(size_t way, unsigned int turn, const double parts[PARTS])
{
	/* The first for warming up. */
	for (size_t part = 0; part < PARTS; part++)
		samples[way][part][turn ? turn - 1 : 0] = parts[part];
}

/*
 * Adds what a loop measured, and how ways compare in the same turn, which what
 * the machine does besides disturbs less than either alone.
 */
static void add_whole(const char *loop, size_t size, size_t way, size_t base,
		      unsigned int n)
{
	double all[MAX], ratio[MAX];

	for (unsigned int turn = 0; turn < n; turn++) {
		double parts[2][PARTS];

		for (size_t part = 0; part < PARTS; part++) {
			parts[0][part] = samples[way][part][turn];
			parts[1][part] = samples[base][part][turn];
		}
		all[turn] = whole(parts[0]);
		ratio[turn] = all[turn] / whole(parts[1]);
	}
	bench_add("ns", all, n, "%s/%zu/%s", loop, size, ways[way].name);
	if (way != base)
		bench_add("x", ratio, n, "%s/%zu/%s/against-%s", loop, size,
			  ways[way].name, ways[base].name);
}

static char *map(size_t size)
{
	char *addr = mmap(NULL, size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (addr == MAP_FAILED)
		bench_die("no memory");
	memset(addr, 1, size);
	return addr;
}

static unsigned int turns_of(size_t size)
{
	size_t n = ((size_t)100 << 20) / size;

	if (bench_options.quick)
		return 7;
	return n < 41 ? 41 : n > 301 ? 301 : (unsigned int)n;
}

/* The same memory again, and nothing changes. */
static void reuse(const char *loop, size_t size)
{
	const unsigned int n = turns_of(size);
	char *addr = map(size);

	for (unsigned int turn = 0; turn < n + 1; turn++)
		for (size_t i = 0; i < usable; i++) {
			double parts[PARTS] = {0};

			use(&ways[nth(turn, i)], addr, size, parts);
			keep(nth(turn, i), turn, parts);
		}
	for (size_t i = 0; i < usable; i++) {
		ways[i].forget(&ways[i]);
		add_whole(loop, size, i, NAIVE, n);
		for (unsigned int turn = 0; turn < n; turn++)
			samples[i][GET][turn] += samples[i][PUT][turn];
		bench_add("ns", samples[i][GET], n, "%s/%zu/%s/registering",
			  loop, size, ways[i].name);
	}
	munmap(addr, size);
}

/* New memory at the old address each time, which each way has its own of. */
static void remap(const char *loop, size_t size)
{
	const unsigned int n = turns_of(size);
	char *addr[WAYS];

	for (size_t i = 0; i < WAYS; i++)
		addr[i] = map(size);
	for (unsigned int turn = 0; turn < n + 1; turn++)
		for (size_t i = 0; i < usable; i++) {
			size_t w = nth(turn, i);
			double parts[PARTS] = {0};

			if (ways[w].stale)
				continue;
			remap_and_use(&ways[w], addr[w], size, turn, parts);
			keep(w, turn, parts);
		}
	for (size_t i = WAYS; i-- > 0;) {
		if (i < usable)
			ways[i].forget(&ways[i]);
		munmap(addr[i], size);
		if (ways[i].stale)
			continue;
		add_whole(loop, size, i, NONE, n);
		for (size_t part = 0; part < PARTS; part++)
			bench_add("ns", samples[i][part], n, "%s/%zu/%s/%s",
				  loop, size, ways[i].name, part_names[part]);
	}
}

/* ---- a cache against none ------------------------------------------------------------------- */

/*
 * New memory at the old address, in turn with no cache, and nothing else: what is
 * left of memory is the same before both. Under a name of its own.
 */
static void against_none(const char *loop, size_t size, size_t way)
{
	const unsigned int n = bench_options.quick ? 7 : 201;
	const size_t pair[] = {NONE, way};
	char *addr[] = {map(size), map(size)};

	for (unsigned int turn = 0; turn < n + 1; turn++)
		for (size_t i = 0; i < 2; i++) {
			size_t p = (turn + i) % 2;
			double parts[PARTS] = {0};

			remap_and_use(&ways[pair[p]], addr[p], size, turn,
				      parts);
			keep(pair[p], turn, parts);
		}
	ways[way].forget(&ways[way]);
	for (size_t i = 0; i < 2; i++)
		munmap(addr[i], size);
	add_whole(loop, size, way, NONE, n);
}

#define HELD 4096u

/* The limit is reached, and all of it is held. */
static void limit(void)
{
	struct mrcache_attr attr;
	struct ibv_mr *held[HELD];
	char *addr = map(HELD * (size_t)4096);

	mrcache_attr_init(&attr);
	attr.monitor = "ummunotify";
	attr.log_level = MRCACHE_LOG_QUIET;
	attr.max_regs = HELD;
	full = mrcache_open(&attr);
	if (!full)
		bench_die("no cache");
	for (size_t i = 0; i < HELD; i++) {
		held[i] = mrcache_reg_mr(full, rdma.pd, addr + i * 4096, 4096,
					 LOCAL);
		if (!held[i])
			bench_die("cannot register");
	}
	/* Until it is known that all is held. */
	for (size_t i = 0; i < HELD; i++)
		mrcache_dereg_mr(
			full, mrcache_reg_mr(full, rdma.pd, addr, 8192, LOCAL));
	against_none("limit", 4096, FULL);
	for (size_t i = 0; i < HELD; i++)
		mrcache_dereg_mr(full, held[i]);
	if (mrcache_close(full))
		bench_die("something is registered still");
	munmap(addr, HELD * (size_t)4096);
}

static void cycles(void)
{
	struct mrcache_attr attr;

	/*
	 * The largest first: in a new process a small one without a cache takes
	 * a tenth more than it does later.
	 */
	for (size_t size = (size_t)1 << 20; size >= 4096; size /= 16)
		against_none("cycle", size, MRCACHE);
	mrcache_attr_init(&attr);
	attr.monitor = "ummunotify";
	attr.reaper = true;
	reaped = mrcache_open(&attr);
	if (!reaped)
		bench_die("no cache");
	for (size_t size = 4096; size <= (size_t)1 << 20; size *= 16)
		against_none("cycle", size, REAPED);
	if (mrcache_close(reaped))
		bench_die("something is registered still");
	limit();
}

/* ---- every scenario as a loop ------------------------------------------------------------------ */

static bool play_once(struct way *way, struct memop_buffer *b, double *all,
		      double *registering)
{
	double start = bench_now(), parts[PARTS] = {0};

	if (memop_perform(b))
		return false;
	/* So that it is present, whatever was done to it. */
	memop_fill(b->addr, b->size, 1);
	use(way, b->addr, b->size, parts);
	*all = bench_now() - start;
	*registering = parts[GET] + parts[PUT];
	return true;
}

static void scenario(const struct memop *op)
{
	static double all[MAX], registering[MAX];
	const unsigned int n = bench_options.quick ? 3 : 20;

	/* Paging on demand was compared by the loops. */
	for (size_t i = 0; i < ODP; i++) {
		struct memop_buffer b;
		unsigned int turn;

		if (ways[i].stale)
			continue;
		if (memop_make(&b, op, SCENARIO)) {
			bench_skip(op->name, "its memory cannot be made");
			return;
		}
		use(&ways[i], b.addr, b.size, (double[PARTS]){0});
		for (turn = 0; turn < n; turn++)
			if (!play_once(&ways[i], &b, &all[turn],
				       &registering[turn]))
				break;
		ways[i].forget(&ways[i]);
		memop_drop(&b);
		if (turn < n) {
			bench_skip(op->name, "the operation failed");
			return;
		}
		bench_add("ns", all, n, "scenario/%s/%s", op->name,
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

/* ---- allocators that purge ------------------------------------------------------------------- */

static void purges(void)
{
	static const char *const names[PURGE_WAYS] = {"calm", "unverified",
						      "verified"};

	for (size_t i = 0; i < PURGE_ALLOCATORS; i++) {
		const struct purge_allocator *allocator = &purge_allocators[i];
		struct purge p;
		const char *why =
			purge_run(allocator, bench_options.quick ? 1 : 5, &p);

		if (why) {
			bench_skip(allocator->name, why);
			continue;
		}
		for (int way = 0; way < PURGE_WAYS; way++)
			bench_value("x", (double)p.hits[way] / p.uses[way],
				    "purge/%s/%s", allocator->name, names[way]);
	}
}

int main(int argc, char **argv)
{
	struct mrcache_attr attr;
	bool odp;

	purge_main(argc, argv);
	bench_begin(argc, argv, "What registering costs transfers.");
	/* Only the loops, under a name of their own. */
	odp = bench_options.only && !strcmp(bench_options.only, "odp");
	if (rdma_missing()) {
		bench_skip("reuse", rdma_missing());
		return bench_end();
	}
	mrcache_attr_init(&attr);
	attr.monitor = "ummunotify";
	cache = mrcache_open(&attr);
	if (!cache || rdma_open(&rdma, MESSAGE))
		bench_die("no device");
	if (odp_missing()) {
		bench_skip("odp", odp_missing());
		usable = ODP;
	}
	if (!odp)
		cycles();
	if (bench_options.only && !strcmp(bench_options.only, "cycle"))
		goto out;
	for (size_t size = 4096; size <= LARGEST; size *= 4)
		reuse(odp ? "odp-reuse" : "reuse", size);
	for (size_t size = 4096; size <= (size_t)1 << 20; size *= 16)
		remap(odp ? "odp-remap" : "remap", size);
	if (!odp) {
		scenarios();
		purges();
	}
out:
	if (mrcache_close(cache) || rdma_close(&rdma))
		bench_die("something is registered still");
	return bench_end();
}
