/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The memory operations that must not be reported: a page pinned before is the
 * program's page afterwards too. None of them writes to the memory, because
 * writing to a page that is shared with a fork child and not pinned replaces
 * the page, which is something else.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "memop_int.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* --- processes ----------------------------------------------------------- */

static int nothing(struct memop_buffer *b)
{
	(void)b;
	return 0;
}

static int write_pages(struct memop_buffer *b)
{
	size_t at;

	for (at = 0; at < b->size; at += b->page)
		b->addr[at] ^= 0x55;
	return 0;
}

static int unmap_all(struct memop_buffer *b)
{
	return memop_unmap(b->addr, b->size);
}

static int drop_pages(struct memop_buffer *b)
{
	return madvise(b->addr, b->size, MADV_DONTNEED) ? -errno : 0;
}

static int fork_alive(struct memop_buffer *b)
{
	return memop_fork(b, nothing);
}

static int fork_exited(struct memop_buffer *b)
{
	int ret = memop_fork(b, nothing);

	memop_reap(b);
	return ret;
}

static int fork_writes(struct memop_buffer *b)
{
	return memop_fork(b, write_pages);
}

static int fork_unmaps(struct memop_buffer *b)
{
	return memop_fork(b, unmap_all);
}

static int fork_dontneed(struct memop_buffer *b)
{
	return memop_fork(b, drop_pages);
}

static int run_system(struct memop_buffer *b)
{
	(void)b;
	return system(":") ? -ECHILD : 0;
}

static int run_spawn(struct memop_buffer *b)
{
	static char *const arguments[] = {"true", NULL};
	static char *const environment[] = {NULL};
	int status, error;
	pid_t pid;

	(void)b;
	error = posix_spawn(&pid, "/bin/true", NULL, NULL, arguments,
			    environment);
	if (error)
		return -error;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return status ? -ECHILD : 0;
}

static int threads_come_and_go(struct memop_buffer *b)
{
	int i, ret = 0;

	for (i = 0; i < 4 && !ret; i++)
		ret = memop_thread(b, nothing);
	return ret;
}

/* --- protection ------------------------------------------------------------ */

static int protect(struct memop_buffer *b, int without)
{
	if (mprotect(b->addr, b->size, without) ||
	    mprotect(b->addr, b->size, PROT_READ | PROT_WRITE))
		return -errno;
	return 0;
}

static int mprotect_read(struct memop_buffer *b)
{
	return protect(b, PROT_READ);
}

static int mprotect_none(struct memop_buffer *b)
{
	return protect(b, PROT_NONE);
}

/*
 * Linux before 5.19 replaces a pinned page of private memory when it is written
 * after mprotect(), and says so. Asked of a page that a pipe holds.
 */
static const char *missing_exclusive(void)
{
	size_t size = (size_t)sysconf(_SC_PAGESIZE);
	char *page = mmap(NULL, size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct iovec iov = {.iov_base = page, .iov_len = 1};
	int ends[2] = {-1, -1};
	char seen = 0;

	if (page != MAP_FAILED && !pipe2(ends, O_CLOEXEC)) {
		*page = 'a';
		if (vmsplice(ends[1], &iov, 1, 0) == 1 &&
		    !mprotect(page, size, PROT_READ) &&
		    !mprotect(page, size, PROT_READ | PROT_WRITE)) {
			*page = 'b';
			if (read(ends[0], &seen, 1) != 1)
				seen = 0;
		}
	}
	for (int i = 0; i < 2; i++)
		if (ends[i] >= 0)
			close(ends[i]);
	if (page != MAP_FAILED)
		munmap(page, size);
	return seen == 'a' ? "a page that is held is replaced after mprotect"
			   : NULL;
}

static int soft_dirty(struct memop_buffer *b)
{
	(void)b;
	return memop_put("/proc/self/clear_refs", "4");
}

static const char *missing_soft_dirty(void)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;
	ssize_t got;

	if (fd < 0)
		return "no /proc/self/pagemap";
	/* A page just written to has the bit, where there is one. */
	got = pread(fd, &entry, sizeof(entry),
		    (uintptr_t)&entry / sysconf(_SC_PAGESIZE) * sizeof(entry));
	close(fd);
	return got == sizeof(entry) && entry >> 55 & 1
		       ? NULL
		       : "no CONFIG_MEM_SOFT_DIRTY";
}

static int open_uffd(uint64_t features)
{
	struct uffdio_api api = {.api = UFFD_API, .features = features};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	int ret;

	if (fd < 0)
		return -errno;
	if (!ioctl(fd, UFFDIO_API, &api))
		return fd;
	ret = -errno;
	close(fd);
	return ret;
}

static const char *missing_uffd(void)
{
	int fd = open_uffd(UFFD_FEATURE_PAGEFAULT_FLAG_WP);

	if (fd < 0)
		return "userfaultfd cannot write-protect here";
	close(fd);
	return NULL;
}

static int uffd_protect(struct memop_buffer *b)
{
	struct uffdio_range range = {.start = (uintptr_t)b->addr,
				     .len = b->size};
	struct uffdio_register r = {.range = range,
				    .mode = UFFDIO_REGISTER_MODE_WP};
	struct uffdio_writeprotect on = {.range = range,
					 .mode = UFFDIO_WRITEPROTECT_MODE_WP};
	struct uffdio_writeprotect off = {.range = range};
	int fd = open_uffd(UFFD_FEATURE_PAGEFAULT_FLAG_WP);
	int ret = 0;

	if (fd < 0)
		return fd;
	if (ioctl(fd, UFFDIO_REGISTER, &r) ||
	    ioctl(fd, UFFDIO_WRITEPROTECT, &on) ||
	    ioctl(fd, UFFDIO_WRITEPROTECT, &off) ||
	    ioctl(fd, UFFDIO_UNREGISTER, &range))
		ret = -errno;
	close(fd);
	return ret;
}

/* --- NUMA ------------------------------------------------------------------ */

#define BALANCING "/proc/sys/kernel/numa_balancing"
#define WAITS	  "/sys/kernel/debug/sched/numa_balancing/"

/*
 * In milliseconds, where they can be set: until the scheduler first looks at the
 * memory of a thread that is yet to start, and from one look to the next.
 */
static const char *const waits[] = {
	WAITS "scan_delay_ms",
	WAITS "scan_period_min_ms",
};

static int numa_bind(struct memop_buffer *b)
{
	unsigned long nodes = 1;

	/* 2 is MPOL_BIND; 1 and 2 are MPOL_MF_STRICT and MPOL_MF_MOVE. */
	if (syscall(SYS_mbind, b->addr, b->size, 2, &nodes, 8 * sizeof(nodes),
		    1 | 2))
		return -errno;
	return syscall(SYS_mbind, b->addr, b->size, 0, NULL, 0, 0) ? -errno : 0;
}

static int numa_move(struct memop_buffer *b)
{
	void *pages[16];
	int nodes[16] = {0}, status[16];
	size_t i;

	for (i = 0; i < COUNT(pages); i++)
		pages[i] = b->addr + i * b->page;
	return syscall(SYS_move_pages, 0, COUNT(pages), pages, nodes, status,
		       2) < 0
		       ? -errno
		       : 0;
}

static const char *missing_numa(void)
{
	int node;

	return syscall(SYS_get_mempolicy, &node, NULL, 0, NULL, 0)
		       ? "no CONFIG_NUMA"
		       : NULL;
}

/* How often the scheduler has been through this address space, or -1. */
static long long scans(void)
{
	FILE *f = fopen("/proc/self/sched", "re");
	long long value = -1;
	char line[128];

	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "mm->numa_scan_seq : %lld", &value) == 1)
			break;
	fclose(f);
	return value;
}

static const char *missing_balancing(void)
{
	if (access(BALANCING, W_OK))
		return "numa_balancing cannot be switched on";
	return scans() < 0 ? "no NUMA statistics in /proc/self/sched" : NULL;
}

/*
 * The scan is done by a thread that uses the processor, so this one does. A
 * processor that is emulated on a busy machine may take its time.
 */
static int use_processor(struct memop_buffer *b)
{
	long long end = scans() + 2;
	time_t limit = time(NULL) + 60;

	(void)b;
	while (scans() < end)
		if (time(NULL) > limit)
			return -ETIME;
	return 0;
}

static int numa_balancing(struct memop_buffer *b)
{
	long long was = memop_number(BALANCING), waited[COUNT(waits)];
	char text[32];
	int ret;
	size_t i;

	for (i = 0; i < COUNT(waits); i++) {
		waited[i] = memop_number(waits[i]);
		memop_put(waits[i], "1");
	}
	ret = memop_put(BALANCING, "1");
	if (!ret)
		ret = memop_thread(b, use_processor);
	memop_put(BALANCING, was > 0 ? "1" : "0");
	for (i = 0; i < COUNT(waits); i++) {
		snprintf(text, sizeof(text), "%lld", waited[i]);
		memop_put(waits[i], waited[i] > 0 ? text : "1000");
	}
	return ret;
}

/* --- other memory ------------------------------------------------------------ */

#define BESIDE ((size_t)64 << 10)

/* One mapping of neighbours and buffer. */
static int make_between(struct memop_buffer *b)
{
	int ret = memop_reserve(b, BESIDE, b->page);

	return ret ? ret
		   : memop_map_over(b->addr - BESIDE, b->size + 2 * BESIDE);
}

static int munmap_beside(struct memop_buffer *b)
{
	char *beside[] = {b->addr - BESIDE, b->addr + b->size};
	size_t i;
	int ret = 0;

	for (i = 0; i < COUNT(beside) && !ret; i++) {
		memset(beside[i], 1, BESIDE);
		ret = memop_unmap(beside[i], BESIDE);
		if (!ret)
			ret = memop_map_anon(beside[i], BESIDE);
	}
	return ret;
}

static int dontneed_beside(struct memop_buffer *b)
{
	memset(b->addr - BESIDE, 1, BESIDE);
	memset(b->addr + b->size, 1, BESIDE);
	if (madvise(b->addr - BESIDE, BESIDE, MADV_DONTNEED) ||
	    madvise(b->addr + b->size, BESIDE, MADV_DONTNEED))
		return -errno;
	return 0;
}

/* More of the file is mapped than the buffer. */
static int make_front(struct memop_buffer *b)
{
	void *p;
	int ret = memop_reserve(b, BESIDE, b->page);

	if (ret)
		return ret;
	b->fd = memop_memfd(b->size + BESIDE, 0);
	if (b->fd < 0)
		return b->fd;
	p = mmap(b->addr, b->size + BESIDE, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_FIXED, b->fd, 0);
	return p == MAP_FAILED ? -errno : 0;
}

static int punch_beside(struct memop_buffer *b)
{
	memset(b->addr + b->size, 1, BESIDE);
	return memop_punch(b->fd, b->size, BESIDE);
}

static int truncate_beside(struct memop_buffer *b)
{
	memset(b->addr + b->size, 1, BESIDE);
	return ftruncate(b->fd, b->size) || ftruncate(b->fd, b->size + BESIDE)
		       ? -errno
		       : 0;
}

static int map_elsewhere(struct memop_buffer *b)
{
	size_t size = b->size + BESIDE;
	int i;

	for (i = 0; i < 8; i++) {
		void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (p == MAP_FAILED)
			return -errno;
		memset(p, i, size);
		munmap(p, size);
	}
	return 0;
}

static int malloc_elsewhere(struct memop_buffer *b)
{
	static const size_t sizes[] = {100, 5000, 70000, 300000, 3000000};
	void *blocks[COUNT(sizes)];
	int round;
	size_t i;

	(void)b;
	for (round = 0; round < 4; round++) {
		for (i = 0; i < COUNT(sizes); i++) {
			blocks[i] = malloc(sizes[i]);
			if (blocks[i])
				memset(blocks[i], round, sizes[i]);
		}
		for (i = 0; i < COUNT(sizes); i++)
			free(blocks[i]);
	}
	return 0;
}

/* A second mapping of the same file goes; this one stays. */
static int unmap_alias(struct memop_buffer *b)
{
	char *p = mmap(NULL, b->size, PROT_READ | PROT_WRITE, MAP_SHARED, b->fd,
		       0);

	if (p == MAP_FAILED)
		return -errno;
	p[0] = b->addr[0];
	return memop_unmap(p, b->size);
}

/* --- looking, hinting, writing -------------------------------------------------- */

static int read_bytes(struct memop_buffer *b)
{
	volatile const char *p = b->addr;
	size_t at;

	for (at = 0; at < b->size; at += 64)
		(void)p[at];
	return 0;
}

static int look(struct memop_buffer *b)
{
	unsigned char resident[16];
	uint64_t entries[16];
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	off_t at =
		(uintptr_t)b->addr / sysconf(_SC_PAGESIZE) * sizeof(entries[0]);
	int ret = 0;

	if (fd < 0)
		return -errno;
	if (pread(fd, entries, sizeof(entries), at) < 0 ||
	    mincore(b->addr, COUNT(resident) * b->page, resident))
		ret = -errno;
	close(fd);
	return ret;
}

static int advise(struct memop_buffer *b, const int *advices, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++)
		/*
		 * EINVAL: not in this kernel, or not for this memory; EBADF:
		 * where nothing can be swapped, nothing will be needed.
		 */
		if (madvise(b->addr, b->size, advices[i]) && errno != EINVAL &&
		    errno != EBADF)
			return -errno;
	return 0;
}

static int hints(struct memop_buffer *b)
{
	static const int advices[] = {
		MADV_WILLNEED, MADV_SEQUENTIAL, MADV_RANDOM,   MADV_NORMAL,
		MADV_DONTFORK, MADV_DOFORK,	MADV_DONTDUMP, MADV_DODUMP,
		MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_COLD,
	};

	return advise(b, advices, COUNT(advices));
}

static const char *missing_populate(void)
{
	return memop_missing_advice(MADV_POPULATE_READ, "needs Linux 5.14");
}

static int populate(struct memop_buffer *b)
{
	static const int advices[] = {MADV_POPULATE_READ, MADV_POPULATE_WRITE};

	return advise(b, advices, COUNT(advices));
}

static int lock_unlock(struct memop_buffer *b)
{
	return mlock(b->addr, b->size) || munlock(b->addr, b->size) ? -errno
								    : 0;
}

static int write_back(struct memop_buffer *b)
{
	if (msync(b->addr, b->size, MS_SYNC) || fdatasync(b->fd))
		return -errno;
	return 0;
}

static int grow(struct memop_buffer *b)
{
	if (fallocate(b->fd, 0, b->size, BESIDE) ||
	    ftruncate(b->fd, b->size + 2 * BESIDE))
		return -errno;
	/* Back to what it was, which takes away only what is not mapped. */
	return ftruncate(b->fd, b->size) ? -errno : 0;
}

static int other_writes(struct memop_buffer *b)
{
	return memop_other(b, MEMOP_REWRITE);
}

/* --- the entries ------------------------------------------------------------------ */

#define PROTECTION UMMUNOTIFY_KIND_PROTECTION
#define SOFT_DIRTY UMMUNOTIFY_KIND_SOFT_DIRTY

/* KINDS is what a device without the filter reports. */
#define OP(NAME, WHAT, KINDS, MAKE, PERFORM, ...)                   \
	{                                                           \
		.name = NAME, .what = WHAT, .verdict = MEMOP_QUIET, \
		.kinds = KINDS, .keeps = true, .make = MAKE,        \
		.perform = PERFORM, ##__VA_ARGS__                   \
	}

static const struct memop ops[] = {
	OP("fork alive", "the child lives on", PROTECTION, memop_make_anon,
	   fork_alive),
	OP("fork exited", "the child is gone", PROTECTION, memop_make_anon,
	   fork_exited),
	OP("fork writes", "the child writes to its copy", PROTECTION,
	   memop_make_anon, fork_writes),
	OP("fork unmaps", "the child unmaps its copy", PROTECTION,
	   memop_make_anon, fork_unmaps),
	OP("fork dontneed", "the child gives its copy back", PROTECTION,
	   memop_make_anon, fork_dontneed),
	OP("system", "system() of a shell", 0, memop_make_anon, run_system),
	OP("posix_spawn", "posix_spawn() of a program", 0, memop_make_anon,
	   run_spawn),
	OP("threads", "threads start and end", 0, memop_make_anon,
	   threads_come_and_go),
	OP("mprotect read", "read-only and back", PROTECTION, memop_make_anon,
	   mprotect_read, .missing = missing_exclusive),
	OP("mprotect none", "inaccessible and back", PROTECTION,
	   memop_make_anon, mprotect_none, .missing = missing_exclusive),
	OP("mprotect memfd", "the same for a shared memfd", PROTECTION,
	   memop_make_memfd, mprotect_read),
	OP("soft-dirty", "clear_refs starts dirty tracking", SOFT_DIRTY,
	   memop_make_anon, soft_dirty, .missing = missing_soft_dirty),
	OP("userfaultfd wp", "write-protected and released", PROTECTION,
	   memop_make_anon, uffd_protect, .missing = missing_uffd),
	OP("mbind", "bound to the node it is on", 0, memop_make_anon, numa_bind,
	   .missing = missing_numa),
	OP("move_pages", "moved to the node they are on", 0, memop_make_anon,
	   numa_move, .missing = missing_numa),
	OP("numa balancing", "the scheduler samples its pages", PROTECTION,
	   memop_make_anon, numa_balancing, .missing = missing_balancing),
	OP("munmap beside", "its neighbours are unmapped", 0, make_between,
	   munmap_beside),
	OP("dontneed beside", "its neighbours are given back", 0, make_between,
	   dontneed_beside),
	OP("punch beside", "a hole in the file next to it", 0, make_front,
	   punch_beside),
	OP("truncate beside", "the file cut behind it", 0, make_front,
	   truncate_beside),
	OP("mmap elsewhere", "other memory mapped and unmapped", 0,
	   memop_make_anon, map_elsewhere),
	OP("malloc elsewhere", "other blocks, large and small", 0,
	   memop_make_anon, malloc_elsewhere),
	OP("unmap alias", "another mapping of the file goes", 0,
	   memop_make_memfd, unmap_alias),
	OP("read", "only read", 0, memop_make_anon, read_bytes),
	OP("pagemap", "pagemap and mincore looked at", 0, memop_make_anon,
	   look),
	OP("hints", "madvise hints, MADV_COLD too", 0, memop_make_anon, hints),
	OP("populate", "MADV_POPULATE_READ and _WRITE", 0, memop_make_anon,
	   populate, .missing = missing_populate),
	OP("mlock", "locked and unlocked", 0, memop_make_anon, lock_unlock),
	OP("msync", "msync and fdatasync of a memfd", 0, memop_make_memfd,
	   write_back),
	OP("grow", "the file grows and is cut again", 0, memop_make_memfd,
	   grow),
	OP("write by other", "another process writes the file", 0,
	   memop_make_memfd_other, other_writes),
};

const struct memop_group memop_quiet = {ops, COUNT(ops)};
