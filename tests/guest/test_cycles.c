/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The same many times, and the kernel has as much memory as before: open and
 * close, processes that are killed, load and unload. The objects of the driver's
 * own slab cache are counted exactly. All else moves a little by itself, so a
 * thousand cycles are made, and half of what one thing lost in each would come to
 * is let pass. Loading takes the kernel too long for that.
 * A kernel that looks for leaks finds each one, when the guest ends
 * (tests/vm/init), and what it notes for that grows: only the driver's objects
 * are counted there.
 */
#include "case.h"
#include "module.h"
#include "support.h"
#include "umn.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define CYCLES	1000
#define FEW	(CYCLES / 20)
#define SLACK	(CYCLES / 2)
#define ROUNDS	2
#define LOOKS	4
#define WATCHES 8
#define SPARES	64 /* ended watches that an open file keeps */
#define AT_ONCE 16 /* made together where there are many */
#define CACHE	"umn_watch"
#define SLAB	"/sys/kernel/slab/"

/* ---- what the kernel uses ---------------------------------------------------- */

struct cache {
	char name[64];
	long objects;
};

struct usage {
	struct cache caches[512];
	size_t count;
	long vmalloc; /* KiB, as the next two */
	long percpu;
	long other; /* what nothing accounts for: pages of a driver, say */
};

static void pause_ms(long ms)
{
	const struct timespec pause = {.tv_sec = ms / 1000,
				       .tv_nsec = ms % 1000 * 1000000};

	nanosleep(&pause, NULL);
}

static void shrink_all(void)
{
	struct dirent *entry;
	DIR *dir;

	dir = opendir(SLAB);
	assert_non_null(dir);
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			slab_shrink(entry->d_name); /* unless it is gone */
	closedir(dir);
}

static void read_caches(struct usage *u)
{
	struct cache *cache;
	char line[512];
	FILE *f;

	f = fopen("/proc/slabinfo", "re");
	assert_non_null(f);
	u->count = 0;
	while (fgets(line, sizeof(line), f)) {
		assert_true(u->count < sizeof(u->caches) / sizeof(*cache));
		cache = &u->caches[u->count];
		if (sscanf(line, "%63s %ld", cache->name, &cache->objects) == 2)
			u->count++;
	}
	fclose(f);
	assert_true(u->count > 0);
}

/* Objects in use; -1 if there is no such cache. */
static long objects_of(const struct usage *u, const char *name)
{
	size_t i;

	for (i = 0; i < u->count; i++)
		if (!strcmp(u->caches[i].name, name))
			return u->caches[i].objects;
	return -1;
}

/* The pages each CPU keeps for itself, which MemFree leaves out; in KiB. */
static long kept_by_cpus(void)
{
	char line[256];
	long count, sum = 0;
	FILE *f;

	f = fopen("/proc/zoneinfo", "re");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, " count: %ld", &count) == 1)
			sum += count;
	fclose(f);
	return sum * (long)(PAGE / 1024);
}

static void read_memory(struct usage *u)
{
	static const char *const accounted[] = {
		"MemFree:",    "Buffers:",     "Cached:",      "AnonPages:",
		"Slab:",       "KernelStack:", "Percpu:",      "SecPageTables",
		"PageTables:", "SwapCached",   "VmallocUsed:",
	};
	char line[256], name[64];
	long value;
	size_t i;
	FILE *f;

	u->vmalloc = u->percpu = u->other = -1;
	f = fopen("/proc/meminfo", "re");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%63s %ld", name, &value) != 2)
			continue;
		if (!strcmp(name, "MemTotal:"))
			u->other = value - kept_by_cpus();
		else if (!strcmp(name, "VmallocUsed:"))
			u->vmalloc = value;
		else if (!strcmp(name, "Percpu:"))
			u->percpu = value;
		for (i = 0; i < sizeof(accounted) / sizeof(*accounted); i++)
			if (!strcmp(name, accounted[i]))
				u->other -= value;
	}
	fclose(f);
	assert_true(u->vmalloc >= 0 && u->percpu >= 0 && u->other >= 0);
}

static long least(long a, long b)
{
	return a < b ? a : b;
}

static void measure_once(struct usage *u)
{
	/* What is freed later, by RCU or by a worker. */
	pause_ms(100);
	assert_int_equal(syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0),
			 0);
	pause_ms(100);
	shrink_all();
	read_caches(u);
	read_memory(u);
}

/*
 * Slabs that a CPU has at hand count as in use with all they can hold, and some
 * may have been taken, for one object or none, while we measure. So the least
 * of several counts is nearest the truth.
 */
static void measure(struct usage *u)
{
	static struct usage again;
	long objects;
	size_t i;
	int look;

	measure_once(u);
	for (look = 1; look < LOOKS; look++) {
		measure_once(&again);
		for (i = 0; i < u->count; i++) {
			objects = objects_of(&again, u->caches[i].name);
			if (objects >= 0)
				u->caches[i].objects =
					least(u->caches[i].objects, objects);
		}
		u->vmalloc = least(u->vmalloc, again.vmalloc);
		u->percpu = least(u->percpu, again.percpu);
		u->other = least(u->other, again.other);
	}
}

/*
 * Names caches that grew, if `tell`. Not that of vmalloc's areas, which are
 * given back late, many at a time: their pages are in the other numbers.
 */
static bool caches_grew(const struct usage *before, const struct usage *after,
			bool tell)
{
	bool grew = false;
	long was, growth;
	size_t i;

	for (i = 0; i < after->count; i++) {
		if (!strcmp(after->caches[i].name, "vmap_area"))
			continue;
		was = objects_of(before, after->caches[i].name);
		growth = after->caches[i].objects - (was < 0 ? 0 : was);
		if (growth <= SLACK)
			continue;
		grew = true;
		if (tell)
			print_error("%ld more of %s\n", growth,
				    after->caches[i].name);
	}
	return grew;
}

static bool memory_grew(const struct usage *before, const struct usage *after)
{
	const long pages = SLACK * (long)(PAGE / 1024);

	return after->vmalloc - before->vmalloc > pages ||
	       after->other - before->other > pages ||
	       /* Eight bytes for each of two CPUs would be the least. */
	       after->percpu - before->percpu > SLACK * 16 / 1024;
}

/* What was lost stays lost, however often one looks. */
static bool grew_since(const struct usage *before, bool tell)
{
	static struct usage after;
	bool grew = true;
	int i;

	for (i = 0; i < 3 && grew; i++) {
		measure(&after);
		assert_int_equal(objects_of(&after, CACHE), 0);
		grew = caches_grew(before, &after, false) ||
		       memory_grew(before, &after);
	}
	print_message("# %d cycles: vmalloc %+ld KiB, percpu %+ld KiB, "
		      "unaccounted %+ld KiB\n",
		      CYCLES, after.vmalloc - before->vmalloc,
		      after.percpu - before->percpu,
		      after.other - before->other);
	if (tell)
		caches_grew(before, &after, true);
	return grew;
}

/* ---- cycles -------------------------------------------------------------------- */

static char *memory;

/*
 * An open file with all that it can have: watches of both kinds, some of them
 * hit. 0 or -errno: it also runs in children.
 */
static int use(struct umn *u, int cycle)
{
	struct ummunotify_watch_ioctl w;
	int i, ret;

	memset(memory, 1, WATCHES * PAGE);
	ret = umn_start(u, UMN_ALL);
	if (!ret && cycle % 3 == 0 &&
	    fcntl(u->fd, F_SETFL, O_NONBLOCK | O_ASYNC))
		ret = -errno;
	for (i = 0; !ret && i < WATCHES; i++)
		ret = i & 1 ? umn_register(u->fd, memory + i * PAGE, PAGE, i)
			    : umn_watch(u->fd, memory + i * PAGE, PAGE, i, 0,
					&w);
	/* One is refused after it was made. */
	if (!ret && umn_watch(u->fd, memory, PAGE, 0, 0, &w) != -EEXIST)
		ret = -EPROTO;
	if (!ret && madvise(memory, 6 * PAGE, MADV_DONTNEED))
		ret = -errno;
	if (!ret && cycle & 1 && umn_drain(u->fd, NULL, 0, NULL) != 6)
		ret = -EPROTO;
	if (!ret && cycle & 2)
		ret = umn_unregister(u->fd, cycle % WATCHES);
	return ret;
}

CASE(objects_are_counted_exactly)
{
	struct umn u;

	assert_int_equal(slab_objects(CACHE), 0);
	assert_int_equal(use(&u, 0), 0);
	/* And the refused one with those made at once, kept for the next. */
	assert_int_equal(slab_objects(CACHE), WATCHES + WATCHES / 2);
	assert_int_equal(umn_unregister(u.fd, 1), 0);
	assert_int_equal(slab_objects(CACHE), WATCHES + WATCHES / 2 - 1);
	umn_stop(&u);
	assert_int_equal(slab_objects(CACHE), 0);
}

/* However many end, only some are kept, and they are what is used next. */
CASE(few_ended_watches_are_kept)
{
	struct ummunotify_watch_ioctl w;
	struct umn u;
	int i;

	assert_int_equal(umn_start(&u, UMN_ALL), 0);
	for (i = 0; i < 2 * SPARES; i++)
		assert_int_equal(umn_watch(u.fd, memory, PAGE, i, 0, &w), 0);
	assert_int_equal(slab_objects(CACHE), 2 * SPARES);
	for (i = 0; i < 2 * SPARES; i++)
		assert_int_equal(umn_unregister(u.fd, i), 0);
	assert_int_equal(slab_objects(CACHE), SPARES);
	for (i = 0; i < SPARES + 1; i++) {
		assert_int_equal(umn_watch(u.fd, memory, PAGE, i, 0, &w), 0);
		assert_int_equal(slab_objects(CACHE),
				 i < SPARES ? SPARES : SPARES + AT_ONCE);
	}
	umn_stop(&u);
	assert_int_equal(slab_objects(CACHE), 0);
}

static bool kernel_finds_leaks(void)
{
	return !access("/sys/kernel/debug/kmemleak", F_OK);
}

/* Ten times faster here, and nothing else about it matters. */
static void expedite(bool on)
{
	int fd = open("/sys/kernel/rcu_expedited", O_WRONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, on ? "1" : "0", 1), 1);
	close(fd);
}

static void repeat_a_little(void (*cycle)(int number))
{
	int i;

	expedite(true);
	for (i = 0; i < FEW; i++)
		cycle(i);
	expedite(false);
	assert_int_equal(slab_objects(CACHE), 0);
}

static void repeat(void (*cycle)(int number))
{
	static struct usage before;
	bool grew = true;
	int i, round;

	/* What a first time needs, and measuring, is not lost. */
	repeat_a_little(cycle);
	if (kernel_finds_leaks())
		return;
	expedite(true);
	/*
	 * What each cycle loses is lost again. A cache of the kernel's may have
	 * got one more slab meanwhile, which holds 512 of the smallest objects.
	 */
	for (round = 0; round < ROUNDS && grew; round++) {
		measure(&before);
		for (i = 0; i < CYCLES; i++)
			cycle(i);
		grew = grew_since(&before, round == ROUNDS - 1);
	}
	expedite(false);
	assert_false(grew);
}

static void opened_and_closed(int cycle)
{
	struct umn u;

	assert_int_equal(use(&u, cycle), 0);
	umn_stop(&u);
}

CASE(open_and_close)
{
	repeat(opened_and_closed);
}

static int die_in_use(void *argument)
{
	struct umn u;

	if (!use(&u, *(int *)argument))
		raise(SIGKILL);
	return 1;
}

static void killed(int cycle)
{
	assert_int_equal(in_child(die_in_use, &cycle), 128 + SIGKILL);
}

CASE(kill_the_user)
{
	repeat(killed);
}

static void loaded_anew(int cycle)
{
	opened_and_closed(cycle);
	assert_int_equal(module_unload(), 0);
	assert_int_equal(access(SLAB CACHE, F_OK), -1);
	assert_int_equal(access(UMN_DEVICE, F_OK), -1);
	assert_int_equal(module_load(""), 0);
}

/* The tests after this one want it. */
static int leave_loaded(void **state)
{
	int ret = module_load("");

	(void)state;
	return ret == -EEXIST ? 0 : ret;
}

struct puncher {
	int file;
	atomic_bool stop;
};

/* Holds no lock meanwhile that all else would wait for. */
static void *punch(void *argument)
{
	struct puncher *p = argument;

	while (!atomic_load(&p->stop))
		fallocate(p->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			  0, PAGE);
	return NULL;
}

/* Of another thread's invalidations one may be in the driver still. */
CASE_IN(unload_and_load, NULL, leave_loaded)
{
	struct puncher p = {.file = memfd_create("punched", MFD_CLOEXEC)};
	pthread_t thread;
	void *shared;

	assert_true(p.file >= 0);
	assert_int_equal(ftruncate(p.file, PAGE), 0);
	shared = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, p.file, 0);
	assert_ptr_not_equal(shared, MAP_FAILED);
	assert_int_equal(pthread_create(&thread, NULL, punch, &p), 0);
	repeat_a_little(loaded_anew);
	atomic_store(&p.stop, true);
	pthread_join(thread, NULL);
	munmap(shared, PAGE);
	close(p.file);
}

int main(void)
{
	memory = pages_map(WATCHES);
	if (!memory)
		abort();
	return run_cases(NULL, NULL);
}
