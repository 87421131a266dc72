/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bench-libfabric: the registration cache that libfabric's verbs provider has,
 * through fi_mr_reg(), beside mrcache and plain registering. Each is in a
 * process of its own, because libfabric's default monitor rewrites functions of
 * the C library; they take turns. How often memory is really registered is
 * counted, and what a remote key reaches is looked at by a transfer.
 */
#include "bench.h"
#include "support/rdma.h"

#ifdef BENCH_LIBFABRIC

#include "mrcache.h"

#include <assert.h>
#include <dlfcn.h>
#include <errno.h>
#include <rdma/fabric.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE	((size_t)sysconf(_SC_PAGESIZE))
#define REGION	((size_t)64 << 10)
#define REGIONS 256u
#define MAX	512u
#define LARGEST ((size_t)16 << 20)
#define MESSAGE ((size_t)1 << 20) /* the largest that is transferred */
/* What libfabric always asks for; the same for all. */
#define ACCESS                                              \
	(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | \
	 IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC)

static unsigned int turns = 21;

/* ---- registrations, counted -------------------------------------------------------- */

static unsigned long registrations;
static struct ibv_pd *last_pd;

/* All ways of registering come through here, those of libibverbs too. */
__attribute__((visibility("default"))) struct ibv_mr *
ibv_reg_mr_iova2(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova,
		 unsigned int access)
{
	static __typeof__(ibv_reg_mr_iova2) *real;

	if (!real)
		real = (__typeof__(real))dlsym(RTLD_NEXT, "ibv_reg_mr_iova2");
	registrations++;
	last_pd = pd;
	return real(pd, addr, length, iova, access);
}

/* ---- ways to register, in a child ---------------------------------------------------- */

/* What was registered, and the key by which it is reached. */
struct registration {
	void *handle;
	uint32_t rkey;
};

struct way {
	const char *name;
	const char *monitor; /* FI_MR_CACHE_MONITOR */
	void (*open)(void);
	struct registration (*get)(void *addr, size_t size);
	void (*put)(void *handle);
};

static const struct way *way;
static struct rdma own, rdma; /* where verbs register; what transfers */
static struct mrcache *cache;
static struct fid_domain *domain;

static void open_plain(void)
{
}

static struct registration get_plain(void *addr, size_t size)
{
	struct ibv_mr *mr = ibv_reg_mr(own.pd, addr, size, ACCESS);

	if (!mr)
		bench_die("cannot register: %s", strerror(errno));
	return (struct registration){mr, mr->rkey};
}

static void put_plain(void *handle)
{
	ibv_dereg_mr(handle);
}

static void open_cache(void)
{
	struct mrcache_attr attr;

	mrcache_attr_init(&attr);
	attr.monitor = "ummunotify";
	attr.remote = true;
	cache = mrcache_open(&attr);
	if (!cache)
		bench_die("no device");
}

static struct registration get_cache(void *addr, size_t size)
{
	struct ibv_mr *mr = mrcache_reg_mr(cache, own.pd, addr, size, ACCESS);

	if (!mr)
		bench_die("cannot register: %s", strerror(errno));
	return (struct registration){mr, mr->rkey};
}

static void put_cache(void *handle)
{
	mrcache_dereg_mr(cache, handle);
}

static void open_fabric(void)
{
	struct fi_info *hints = fi_allocinfo(), *info;
	struct fid_fabric *fabric;
	int ret;

	if (!hints)
		bench_die("no memory");
	hints->fabric_attr->prov_name = strdup("verbs");
	hints->ep_attr->type = FI_EP_MSG;
	hints->caps = FI_MSG | FI_RMA;
	hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR |
				      FI_MR_ALLOCATED | FI_MR_PROV_KEY;
	ret = fi_getinfo(FI_VERSION(1, 9), NULL, NULL, 0, hints, &info);
	if (!ret)
		ret = fi_fabric(info->fabric_attr, &fabric, NULL);
	if (!ret)
		ret = fi_domain(fabric, info, &domain, NULL);
	if (ret)
		bench_die("libfabric: %s", fi_strerror(-ret));
}

static struct registration get_fabric(void *addr, size_t size)
{
	struct fid_mr *mr;
	int ret =
		fi_mr_reg(domain, addr, size,
			  FI_READ | FI_WRITE | FI_REMOTE_READ | FI_REMOTE_WRITE,
			  0, 0, 0, &mr, NULL);

	if (ret)
		bench_die("libfabric: cannot register: %s", fi_strerror(-ret));
	return (struct registration){mr, (uint32_t)fi_mr_key(mr)};
}

static void put_fabric(void *handle)
{
	fi_close(&((struct fid_mr *)handle)->fid);
}

static const struct way ways[] = {
	{"none", NULL, open_plain, get_plain, put_plain},
	{"mrcache", NULL, open_cache, get_cache, put_cache},
	{"libfabric", NULL, open_fabric, get_fabric, put_fabric},
	{"libfabric-uffd", "userfaultfd", open_fabric, get_fabric, put_fabric},
};
#define WAYS (sizeof(ways) / sizeof(*ways))

static char *memory;

static void prepare(const void *arg)
{
	struct rdma via;
	struct registration mr;

	way = arg;
	bench_pin(0);
	if (way->monitor)
		setenv("FI_MR_CACHE_MONITOR", way->monitor, 1);
	else
		unsetenv("FI_MR_CACHE_MONITOR");
	if (rdma_open(&own, PAGE))
		bench_die("no device");
	way->open();
	memory = mmap(NULL, LARGEST, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		bench_die("no memory");
	memset(memory, 1, LARGEST);
	/* To transfer, a connection in whatever domain it registers in. */
	mr = way->get(memory, PAGE);
	way->put(mr.handle);
	via = own;
	via.context = last_pd->context;
	via.pd = last_pd;
	if (rdma_join(&rdma, &via, MESSAGE))
		bench_die("no connection");
}

/* ---- questions, answered in a child --------------------------------------------------- */

/* Each but the last two: ns for one use, of many in a row. */
enum kind {
	HIT,	    /* getting and giving back one of so many regions */
	REUSE,	    /* the same of so many bytes */
	REMAP,	    /* mapping again, filling, registering, transferring */
	REMAP_RAW,  /* the same past the C library */
	REGISTERED, /* how often a use in the last answer registered memory */
	WRONG,	    /* how often it transferred what is not the program's */
};

static double registered, wrong;

static void touch(char *addr, size_t size)
{
	way->put(way->get(addr, size).handle);
}

static double touch_regions(size_t regions, size_t size)
{
	const unsigned int n = way->open == open_plain ? 64 : 2048;
	double start;

	assert(regions);
	for (size_t i = 0; i < regions; i++)
		touch(memory + i * REGION, size);
	registrations = 0;
	start = bench_now();
	for (unsigned int i = 0; i < n; i++)
		touch(memory + i % regions * REGION, size);
	start = (bench_now() - start) / n;
	registered = (double)registrations / n;
	return start;
}

/* As a program that is linked against the C library does it. */
static void *map_again(void *addr, size_t size)
{
	munmap(addr, size);
	return mmap(addr, size, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
}

/* As others do: the Go runtime, a static program, another C library. */
static void *map_again_raw(void *addr, size_t size)
{
	syscall(SYS_munmap, addr, size);
	return (void *)syscall(
		SYS_mmap, addr, size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
}

static void transfer(size_t size)
{
	struct registration mr = way->get(memory, size);
	struct ibv_mr reached = {.rkey = mr.rkey};

	if (rdma_peer_reads(&rdma, &reached, memory, size))
		bench_die("%s: cannot transfer", way->name);
	way->put(mr.handle);
}

static double remap(size_t size, void *(*again)(void *addr, size_t size))
{
	const unsigned int n = size < MESSAGE ? 16 : 4;
	static uint64_t round;
	double ns = 0;

	transfer(size);
	registrations = 0;
	wrong = 0;
	for (unsigned int i = 0; i < n; i++) {
		double start = bench_now();

		if (again(memory, size) != memory)
			bench_die("cannot map again");
		/* Contents that never come again. */
		memset(memory, (int)++round, size);
		memcpy(memory, &round, sizeof(round));
		transfer(size);
		ns += (bench_now() - start) / n;
		wrong += (memcmp(rdma.peer, memory, size) != 0) / (double)n;
	}
	registered = (double)registrations / n;
	return ns;
}

#define QUESTION(kind, size) ((long)(size) << 8 | (long)(kind))

static double answer(long question)
{
	size_t size = (size_t)question >> 8;

	switch ((enum kind)(question & 0xff)) {
	case HIT:
		return touch_regions(size, REGION);
	case REUSE:
		return touch_regions(1, size);
	case REMAP:
		return remap(size, map_again);
	case REMAP_RAW:
		return remap(size, map_again_raw);
	case REGISTERED:
		return registered;
	case WRONG:
		return wrong;
	}
	return 0;
}

/* ---- the whole ------------------------------------------------------------------------- */

static struct bench_process processes[WAYS];

/* Median times of all ways, and means of what is counted. */
static void measure(enum kind kind, size_t size, const char *name)
{
	static double ns[WAYS][MAX];
	double again[WAYS] = {0}, bad[WAYS] = {0};

	/* Once for warming up. */
	for (unsigned int turn = 0; turn < turns + 1; turn++)
		for (size_t i = 0; i < WAYS; i++) {
			const struct bench_process *p = &processes[i];
			double figure = bench_ask(p, QUESTION(kind, size));

			if (!turn)
				continue;
			ns[i][turn - 1] = figure;
			again[i] += bench_ask(p, QUESTION(REGISTERED, 0));
			bad[i] += bench_ask(p, QUESTION(WRONG, 0));
		}
	for (size_t i = 0; i < WAYS; i++) {
		bench_add("ns", ns[i], turns, "fabric/%s-%zu/%s", name, size,
			  ways[i].name);
		bench_value("", again[i] / turns, "fabric/%s-%zu/%s/registered",
			    name, size, ways[i].name);
		if (kind == REMAP || kind == REMAP_RAW)
			bench_value("", bad[i] / turns,
				    "fabric/%s-%zu/%s/wrong", name, size,
				    ways[i].name);
	}
}

static void measure_all(void)
{
	for (size_t i = 0; i < WAYS; i++)
		bench_start(&processes[i], prepare, &ways[i], answer);
	measure(HIT, 1, "hit");
	measure(HIT, REGIONS, "hit");
	for (size_t size = 4096; size <= LARGEST; size *= 16)
		measure(REUSE, size, "reuse");
	for (size_t size = 4096; size <= MESSAGE; size *= 16) {
		measure(REMAP, size, "remap");
		measure(REMAP_RAW, size, "remap-raw");
	}
	for (size_t i = 0; i < WAYS; i++)
		bench_stop(&processes[i]);
}

static const char *missing(void)
{
	return rdma_missing();
}

#else

static unsigned int turns;

static void measure_all(void)
{
}

static const char *missing(void)
{
	return "libfabric-dev was not there when this was built";
}

#endif

int main(int argc, char **argv)
{
	bench_begin(argc, argv, "libfabric's registration cache.");
	if (bench_options.quick)
		turns = 5;
	if (missing())
		bench_skip("libfabric", missing());
	else
		measure_all();
	return bench_end();
}
