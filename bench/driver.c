/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bench-driver: what the device costs. A watch against a registration; munmap
 * in processes with more and more watches against one that has not opened the
 * device; an invalidation and the reading of its events against how many
 * watches it hits. Only ratios within one boot mean anything.
 */
#include "bench.h"
#include "support/rdma.h"
#include "support/umn.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX 512u
/* Where watches are that nothing is mapped at. */
#define NOWHERE ((char *)(1ul << 40))

static size_t page; /* of memory, in bytes */
static unsigned int rounds = 200;
static unsigned int turns = 11;

/* ---- a watch against a registration ------------------------------------------------ */

static double time_registration(struct ibv_pd *pd, void *addr, size_t length)
{
	double start = bench_now();
	struct ibv_mr *mr =
		ibv_reg_mr(pd, addr, length, IBV_ACCESS_LOCAL_WRITE);

	if (!mr || ibv_dereg_mr(mr))
		bench_die("cannot register memory: %s", strerror(errno));
	return bench_now() - start;
}

static double time_watch(struct umn *u, void *addr, size_t length)
{
	struct ummunotify_watch_ioctl watch = {
		.start = (uintptr_t)addr,
		.end = (uintptr_t)addr + length,
		.user_cookie = 1,
		.flags = UMMUNOTIFY_WATCH_CACHEABLE,
	};
	uint64_t cookie = 1;
	double start = bench_now();

	if (ioctl(u->fd, UMMUNOTIFY_WATCH, &watch) ||
	    ioctl(u->fd, UMMUNOTIFY_UNREGISTER_REGION, &cookie))
		bench_die("cannot watch memory: %s", strerror(errno));
	return bench_now() - start;
}

/* Makes the kernel tell of the memory, and leaves it mapped but empty. */
static void change(void *addr, size_t length)
{
	if (madvise(addr, length, MADV_DONTNEED))
		bench_die("cannot discard memory: %s", strerror(errno));
}

/* What a miss on changed memory takes: its watch was hit, and nobody has read that. */
static double time_arm(struct umn *u, void *addr, size_t length)
{
	struct ummunotify_arm arm =
		umn_order(2, addr, length, UMMUNOTIFY_ARM_CACHEABLE);
	double start;

	change(addr, length);
	start = bench_now();
	if (ioctl(u->fd, UMMUNOTIFY_ARM, &arm))
		bench_die("cannot arm a watch: %s", strerror(errno));
	return bench_now() - start;
}

/* Two system calls that do nothing: what watching cannot be faster than. */
static double time_nothing(struct umn *u)
{
	double start = bench_now();

	ioctl(u->fd, 0);
	ioctl(u->fd, 0);
	return bench_now() - start;
}

#define AT_ONCE 64u

/* For one of so many in one call, all of them of the same mapping. */
static double time_arm_many(struct umn *u, char *addr, unsigned int count)
{
	struct ummunotify_arm arms[AT_ONCE];
	double start;

	for (unsigned int i = 0; i < count; i++) {
		arms[i] = umn_order(100 + i, addr + i * page, page,
				    UMMUNOTIFY_ARM_CACHEABLE);
	}
	change(addr, count * page);
	start = bench_now();
	if (umn_arm_many(u->fd, arms, count) != (int)count || arms[0].error ||
	    arms[count - 1].error)
		bench_die("cannot arm watches");
	return (bench_now() - start) / count;
}

static void arm_at_once(struct umn *u, char *memory)
{
	static const unsigned int counts[] = {1, 8, AT_ONCE};
	static double samples[MAX];
	struct ummunotify_watch_ioctl watch;

	for (unsigned int i = 0; i < AT_ONCE; i++)
		if (umn_watch(u->fd, NOWHERE, page, 100 + i, 0, &watch))
			bench_die("cannot watch memory");
	for (size_t n = 0; n < sizeof(counts) / sizeof(*counts); n++) {
		for (unsigned int i = 0; i < rounds + 10; i++)
			samples[i < 10 ? 0 : i - 10] =
				time_arm_many(u, memory, counts[n]);
		bench_add("ns", samples, rounds, "driver/arm-many/%u",
			  counts[n]);
	}
}

/* Of slots that were never used before; there are as many as samples. */
static void watch_first(void)
{
	static double samples[MAX];
	struct umn u;

	if (umn_start(&u, UMN_ALL))
		bench_die("no device");
	for (unsigned int i = 0; i < rounds + 10; i++) {
		struct ummunotify_watch_ioctl watch = {
			.start = (uintptr_t)NOWHERE + 2 * page * i,
			.end = (uintptr_t)NOWHERE + 2 * page * i + page,
			.user_cookie = i,
		};
		double start = bench_now();

		if (ioctl(u.fd, UMMUNOTIFY_WATCH, &watch))
			bench_die("cannot watch memory");
		samples[i < 10 ? 0 : i - 10] = bench_now() - start;
	}
	bench_add("ns", samples, rounds, "driver/watch-first");
	umn_stop(&u);
}

/* One event of so many that one read delivers. */
static void drain_at_once(void)
{
	static double samples[MAX];
	struct ummunotify_watch_ioctl watch;
	struct ummunotify_event events[AT_ONCE];
	struct ummunotify_rearm_ioctl rearm;
	char *memory = mmap(NULL, AT_ONCE * page, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct umn u;

	if (memory == MAP_FAILED || umn_start(&u, UMN_ALL))
		bench_die("no device");
	for (unsigned int i = 0; i < AT_ONCE; i++)
		if (umn_watch(u.fd, memory + i * page, page, i, 0, &watch))
			bench_die("cannot watch memory");
	for (unsigned int i = 0; i < rounds + 10; i++) {
		double start;

		memset(memory, 1, AT_ONCE * page);
		if (madvise(memory, AT_ONCE * page, MADV_DONTNEED))
			bench_die("madvise");
		start = bench_now();
		if (umn_read(u.fd, events, AT_ONCE) != (int)AT_ONCE)
			bench_die("not all are reported");
		samples[i < 10 ? 0 : i - 10] = (bench_now() - start) / AT_ONCE;
		for (unsigned int j = 0; j < AT_ONCE; j++)
			if (umn_rearm(u.fd, j, &rearm))
				bench_die("cannot re-arm");
	}
	bench_add("ns", samples, rounds, "driver/drain-%u", AT_ONCE);
	umn_stop(&u);
	munmap(memory, AT_ONCE * page);
}

static void watch_against_registration(void)
{
	static double watching[MAX], registering[MAX], nothing[MAX],
		beyond[MAX], arming[MAX];
	struct ummunotify_watch_ioctl watch;
	const size_t length = (size_t)64 << 10;
	char *memory = mmap(NULL, AT_ONCE * page, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct rdma rdma;
	struct umn u;

	if (rdma_missing()) {
		bench_skip("driver/watch", rdma_missing());
		return;
	}
	if (memory == MAP_FAILED || rdma_open(&rdma, page) ||
	    umn_start(&u, UMN_ALL))
		bench_die("no device");
	if (umn_watch(u.fd, NOWHERE, page, 2, 0, &watch))
		bench_die("cannot watch memory");
	watch_first();
	drain_at_once();
	for (unsigned int i = 0; i < rounds + 10; i++) {
		/* The first ten are for warming up. */
		unsigned int at = i < 10 ? 0 : i - 10;

		memset(memory, 1, length);
		registering[at] = time_registration(rdma.pd, memory, length);
		watching[at] = time_watch(&u, memory, length);
		nothing[at] = time_nothing(&u);
		arming[at] = time_arm(&u, memory, length);
		beyond[at] = watching[at] - nothing[at];
	}
	bench_add("ns", registering, rounds, "driver/registration");
	bench_add("ns", watching, rounds, "driver/watch");
	bench_add("ns", arming, rounds, "driver/arm");
	bench_add("ns", nothing, rounds, "driver/two-empty-calls");
	bench_add("ns", beyond, rounds, "driver/watch-beyond-empty-calls");
	arm_at_once(&u, memory);
	umn_stop(&u);
	rdma_close(&rdma);
	munmap(memory, AT_ONCE * page);
}

/* ---- a fingerprint against a registration --------------------------------------------- */

static double time_fingerprint(struct umn *u, uint64_t *fingerprint,
			       uint32_t *state, uint32_t flags)
{
	struct ummunotify_fingerprint print = umn_fingerprint_of(
		3, flags | UMMUNOTIFY_FINGERPRINT_WRITE, *state, *fingerprint);
	double start = bench_now();

	if (umn_fingerprint(u->fd, &print, 1) != 1 ||
	    print.answer != UMMUNOTIFY_PAGES_SAME)
		bench_die("no fingerprint");
	*fingerprint = print.fingerprint;
	*state = print.state;
	return bench_now() - start;
}

/* Of memory in small pages, or in as large ones as there are. */
static void fingerprint_of(struct umn *u, struct ibv_pd *pd, size_t length,
			   bool huge)
{
	static double registering[MAX], taking[MAX], verifying[MAX];
	const char *pages = huge ? "huge" : "small";
	struct ummunotify_watch_ioctl watch;
	unsigned int times = length > 1 << 20 ? 10 : rounds;
	/* Huge pages begin at multiples of their size. */
	const size_t room = (size_t)2 << 20;
	char *all = mmap(NULL, length + room, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *memory = (char *)(((uintptr_t)all + room - 1) & ~(room - 1));
	uint64_t fingerprint = 0;

	if (all == MAP_FAILED ||
	    madvise(all, length + room, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
		bench_die("no memory");
	memset(memory, 1, length);
	if (umn_watch(u->fd, memory, length, 3, 0, &watch))
		bench_die("cannot watch memory");
	for (unsigned int i = 0; i < times + 3; i++) {
		unsigned int at = i < 3 ? 0 : i - 3;

		memset(memory, 1, length);
		registering[at] = time_registration(pd, memory, length);
		taking[at] = time_fingerprint(u, &fingerprint, &watch.state, 0);
		verifying[at] = time_fingerprint(u, &fingerprint, &watch.state,
						 UMMUNOTIFY_FINGERPRINT_VERIFY);
	}
	bench_add("ns", registering, times, "driver/fingerprint/%s/%zu/reg",
		  pages, length);
	bench_add("ns", taking, times, "driver/fingerprint/%s/%zu/take", pages,
		  length);
	bench_add("ns", verifying, times, "driver/fingerprint/%s/%zu/verify",
		  pages, length);
	umn_unregister(u->fd, 3);
	munmap(all, length + room);
}

static void fingerprints(void)
{
	static const size_t lengths[] = {4 << 10, 64 << 10, 1 << 20, 64 << 20};
	struct rdma rdma;
	struct umn u;

	if (rdma_missing()) {
		bench_skip("driver/fingerprint", rdma_missing());
		return;
	}
	if (rdma_open(&rdma, page) || umn_start(&u, UMN_ALL))
		bench_die("no device");
	for (unsigned int i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
		fingerprint_of(&u, rdma.pd, lengths[i], false);
		if (lengths[i] > 1 << 20)
			fingerprint_of(&u, rdma.pd, lengths[i], true);
	}
	umn_stop(&u);
	rdma_close(&rdma);
}

/* ---- processes with watches ---------------------------------------------------------- */

static void watch_many(struct umn *u, char *first, size_t stride, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct ummunotify_watch_ioctl watch;
		int ret = umn_watch(u->fd, first + i * stride, page, i + 1, 0,
				    &watch);

		if (ret)
			bench_die("watch %zu: %s", i, strerror(-ret));
	}
}

/* How long munmap() takes of 64 KiB that nobody watches. */
static double unmap_once(void)
{
	const size_t length = (size_t)64 << 10;
	char *p = mmap(NULL, length, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	double start;

	if (p == MAP_FAILED)
		bench_die("no memory");
	memset(p, 1, length);
	start = bench_now();
	munmap(p, length);
	return bench_now() - start;
}

static atomic_bool enough;

static void *unmap_meanwhile(void *arg)
{
	(void)arg;
	bench_pin(1);
	while (!atomic_load(&enough))
		unmap_once();
	return NULL;
}

/* The median of many, while so many other threads do the same. */
static double time_unmap(long others)
{
	static double samples[MAX];
	pthread_t other;

	atomic_store(&enough, false);
	if (others && pthread_create(&other, NULL, unmap_meanwhile, NULL))
		bench_die("no thread");
	for (unsigned int i = 0; i < rounds; i++)
		samples[i] = unmap_once();
	atomic_store(&enough, true);
	if (others)
		pthread_join(other, NULL);
	return bench_median(samples, rounds);
}

/* How many: -1 if the device is not even opened. */
static void prepare(const void *watches)
{
	long count = *(const long *)watches;
	struct umn u;

	bench_pin(0);
	if (count < 0)
		return;
	if (umn_start(&u, UMN_ALL))
		bench_die("no device");
	watch_many(&u, NOWHERE, 2 * page, (size_t)count);
}

static void unmap_beside_watches(void)
{
	static const long counts[] = {-1, 0, 1, 1000, 100000, 1000000};
	enum { N = sizeof(counts) / sizeof(*counts) };
	static struct bench_process processes[N];
	static double samples[N][MAX], threads[N][MAX];

	bench_say("making processes with up to a million watches");
	for (size_t i = 0; i < N; i++)
		bench_start(&processes[i], prepare, &counts[i], time_unmap);
	/* Once for warming up. */
	for (unsigned int turn = 0; turn < turns + 1; turn++)
		for (size_t i = 0; i < N; i++) {
			unsigned int at = turn ? turn - 1 : 0;

			samples[i][at] = bench_ask(&processes[i], 0);
			threads[i][at] = bench_ask(&processes[i], 1);
		}
	for (size_t i = 0; i < N; i++) {
		char name[32] = "no-device";

		if (counts[i] >= 0)
			snprintf(name, sizeof(name), "%ld", counts[i]);
		bench_add("ns", samples[i], turns, "driver/munmap/%s", name);
		bench_add("ns", threads[i], turns, "driver/munmap-two/%s",
			  name);
		bench_stop(&processes[i]);
	}
}

/* ---- one munmap that hits many ----------------------------------------------------------- */

/*
 * Watches 0, 1 to 9, 10 to 99 and so on are groups, each in huge pages of its
 * own: a mapping that is cut inside a huge page hits all watches there.
 */
#define HUGE   ((size_t)2 << 20)
#define GROUPS 6u /* 100000 */

static size_t group_end(unsigned int group)
{
	size_t n = 1;

	while (group--)
		n *= 10;
	return n;
}

/* Bytes from the start of the first group to the end of one. */
static size_t groups_length(unsigned int group)
{
	size_t length = HUGE;

	for (unsigned int g = 1; g <= group; g++) {
		size_t size = (group_end(g) - group_end(g - 1)) * page;

		length += (size + HUGE - 1) & ~(HUGE - 1);
	}
	return length;
}

static void map_again(char *start, size_t length)
{
	if (mmap(start, length, PROT_NONE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
		 0) == MAP_FAILED)
		bench_die("no memory");
}

static void watch_groups(struct umn *u, char *memory)
{
	for (unsigned int g = 0; g < GROUPS; g++) {
		size_t i = g ? group_end(g - 1) : 0, first = i;
		char *start = memory + (g ? groups_length(g - 1) : 0);

		for (; i < group_end(g); i++) {
			struct ummunotify_watch_ioctl watch;

			if (umn_watch(u->fd, start + (i - first) * page, page,
				      i + 1, 0, &watch))
				bench_die("cannot watch");
		}
	}
}

static void hit_groups(struct umn *u, char *memory, unsigned int group)
{
	static double unmapping[MAX], draining[MAX];
	const size_t k = group_end(group), length = groups_length(group);
	const unsigned int n = k < 10000 ? turns * 3 : turns;

	/* Once for warming up. */
	for (unsigned int i = 0; i < n + 1; i++) {
		double start = bench_now(), between, end;
		int events;

		munmap(memory, length);
		between = bench_now();
		events = umn_drain(u->fd, NULL, 0, NULL);
		end = bench_now();
		if (events != (int)k)
			bench_die("%d events for %zu watches", events, k);
		unmapping[i ? i - 1 : 0] = between - start;
		draining[i ? i - 1 : 0] = end - between;
		map_again(memory, length);
		for (size_t cookie = 1; cookie <= k; cookie++) {
			struct ummunotify_rearm_ioctl rearm;

			if (umn_rearm(u->fd, cookie, &rearm))
				bench_die("cannot re-arm");
		}
	}
	bench_add("ns", unmapping, n, "driver/hit/%zu/munmap", k);
	bench_add("ns", draining, n, "driver/hit/%zu/drain", k);
}

static void hit_watches(void)
{
	const size_t length = groups_length(GROUPS - 1) + HUGE;
	char *area = mmap(NULL, length, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *memory = (char *)(((uintptr_t)area + HUGE - 1) & ~(HUGE - 1));
	struct umn u;

	if (area == MAP_FAILED || umn_start(&u, UMN_ALL))
		bench_die("no device");
	watch_groups(&u, memory);
	for (unsigned int group = 0; group < GROUPS; group++)
		hit_groups(&u, memory, group);
	umn_stop(&u);
	munmap(area, length);
}

/* ---- memory -------------------------------------------------------------------------------- */

/* Bytes of all pages the kernel's object caches have. */
static double slab_bytes(void)
{
	FILE *f = fopen("/proc/slabinfo", "re");
	double bytes = 0;
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		unsigned long pages, slabs;

		if (sscanf(line,
			   "%*s %*u %*u %*u %*u %lu : tunables %*u %*u %*u : slabdata %*u %lu",
			   &pages, &slabs) == 2)
			bytes += (double)slabs * (double)pages * (double)page;
	}
	if (f)
		fclose(f);
	return bytes;
}

static void kernel_memory(size_t count)
{
	double before = slab_bytes();
	struct umn u;

	if (!before) {
		bench_skip("memory/kernel", "/proc/slabinfo is not there");
		return;
	}
	if (umn_start(&u, UMN_ALL))
		bench_die("no device");
	watch_many(&u, NOWHERE, 2 * page, count);
	/* And a state word. */
	bench_value("B",
		    (slab_bytes() - before) / (double)count + sizeof(uint32_t),
		    "memory/kernel/%zu", count);
	umn_stop(&u);
}

int main(int argc, char **argv)
{
	bench_begin(argc, argv, "What the device costs.");
	page = (size_t)sysconf(_SC_PAGESIZE);
	if (bench_options.quick) {
		rounds = 50;
		turns = 3;
	}
	bench_pin(0);
	if (bench_wants("watch"))
		watch_against_registration();
	if (bench_wants("fingerprint"))
		fingerprints();
	if (bench_wants("memory"))
		kernel_memory(100000);
	if (bench_wants("hit"))
		hit_watches();
	if (bench_wants("munmap"))
		unmap_beside_watches();
	return bench_end();
}
