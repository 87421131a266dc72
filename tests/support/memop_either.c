/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The memory operations that leave pinned pages right but raise the same
 * invalidation as one that does not, so that the device cannot tell. Memory
 * that is not pinned may well get other pages. How many there are is what the
 * filter is worth.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "memop_int.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define THP	     "/sys/kernel/mm/transparent_hugepage/"
#define KSM	     "/sys/kernel/mm/ksm/"

static int advise(struct memop_buffer *b, int advice)
{
	return madvise(b->addr, b->size, advice) ? -errno : 0;
}

/* The pages are the file's, and come back. */
static int dontneed_memfd(struct memop_buffer *b)
{
	return advise(b, MADV_DONTNEED);
}

static int lazy_free(struct memop_buffer *b)
{
	return advise(b, MADV_FREE);
}

static int page_out(struct memop_buffer *b)
{
	return advise(b, MADV_PAGEOUT);
}

/* The private copies stay. */
static int punch_private(struct memop_buffer *b)
{
	return memop_punch(b->fd, 0, b->size);
}

static int compact(struct memop_buffer *b)
{
	(void)b;
	return memop_put("/proc/sys/vm/compact_memory", "1");
}

static const char *missing_compaction(void)
{
	return access("/proc/sys/vm/compact_memory", W_OK)
		       ? "no CONFIG_COMPACTION"
		       : NULL;
}

/* --- huge pages of the kernel's choice ---------------------------------------- */

static const char *missing_thp(void)
{
	char mode[64] = "";
	FILE *f = fopen(THP "enabled", "re");

	if (!f)
		return "no CONFIG_TRANSPARENT_HUGEPAGE";
	if (!fgets(mode, sizeof(mode), f))
		mode[0] = 0;
	fclose(f);
	return strstr(mode, "[never]") ? "transparent huge pages are off"
				       : NULL;
}

/* The buffer, and the rest of its last huge page as a neighbour. */
static int make_thp(struct memop_buffer *b)
{
	size_t whole = (b->size + MEMOP_HUGE) / MEMOP_HUGE * MEMOP_HUGE;
	int ret = memop_reserve(b, whole - b->size, MEMOP_HUGE);
	void *p;

	if (ret)
		return ret;
	p = mmap(b->addr, whole, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	if (p == MAP_FAILED || madvise(p, whole, MADV_HUGEPAGE))
		return -errno;
	memset(b->addr, 1, whole);
	b->state = whole - b->size;
	return 0;
}

static int thp_munmap(struct memop_buffer *b)
{
	char *beside = b->addr + b->size;
	int ret = memop_unmap(beside, b->state);

	return ret ? ret : memop_map_anon(beside, b->state);
}

static int thp_dontneed(struct memop_buffer *b)
{
	return madvise(b->addr + b->size, b->state, MADV_DONTNEED) ? -errno : 0;
}

static int thp_mprotect(struct memop_buffer *b)
{
	char *beside = b->addr + b->size;

	if (mprotect(beside, b->state, PROT_READ) ||
	    mprotect(beside, b->state, PROT_READ | PROT_WRITE))
		return -errno;
	return 0;
}

static int make_small_pages(struct memop_buffer *b)
{
	size_t whole = (b->size + MEMOP_HUGE - 1) / MEMOP_HUGE * MEMOP_HUGE;
	int ret = memop_reserve(b, whole - b->size, MEMOP_HUGE);

	if (!ret)
		ret = memop_map_over(b->addr, whole);
	if (ret)
		return ret;
	memset(b->addr, 1, whole);
	b->state = whole;
	return 0;
}

/* Pinned pages make it fail, which is what is wanted. */
static int collapse(struct memop_buffer *b)
{
	int error;

	if (madvise(b->addr, b->state, MADV_HUGEPAGE))
		return -errno;
	error = madvise(b->addr, b->state, MADV_COLLAPSE) ? errno : 0;
	if (madvise(b->addr, b->state, MADV_NOHUGEPAGE))
		return -errno;
	return error == EAGAIN || error == EBUSY || error == EINVAL ||
			       error == ENOMEM
		       ? 0
		       : -error;
}

/* --- merging of equal pages ------------------------------------------------------ */

static const char *missing_ksm(void)
{
	return access(KSM "run", W_OK) ? "no CONFIG_KSM" : NULL;
}

static int wait_for_scans(long long scans)
{
	struct timespec nap = {.tv_nsec = 10 * 1000 * 1000};
	long long end = memop_number(KSM "full_scans") + scans;
	time_t limit = time(NULL) + 10;

	while (memop_number(KSM "full_scans") < end) {
		if (time(NULL) > limit)
			return -ETIME;
		nanosleep(&nap, NULL);
	}
	return 0;
}

static int merge(struct memop_buffer *b)
{
	int ret;

	if (memop_put(KSM "sleep_millisecs", "1") ||
	    memop_put(KSM "pages_to_scan", "10000") ||
	    memop_put(KSM "run", "1"))
		return -EIO;
	memset(b->addr, 0x5a, b->size);
	ret = advise(b, MADV_MERGEABLE);
	/* Equal pages merge in the second scan at the earliest. */
	if (!ret)
		ret = wait_for_scans(3);
	memop_put(KSM "run", "0");
	/* Gives each its own page again. */
	if (advise(b, MADV_UNMERGEABLE) && !ret)
		ret = -EIO;
	return ret;
}

/* --- fork ---------------------------------------------------------------------- */

/*
 * The parent keeps its pages, but for private hugetlb memory the kernel
 * announces what it announces of pages that go.
 */
static int nothing(struct memop_buffer *b)
{
	(void)b;
	return 0;
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

/* --- the entries ----------------------------------------------------------------------- */

#define CLEAR UMMUNOTIFY_KIND_CLEAR

#define OP(NAME, WHAT, MAKE, PERFORM, ...)                           \
	{                                                            \
		.name = NAME, .what = WHAT, .verdict = MEMOP_EITHER, \
		.kinds = CLEAR, .keeps = true, .make = MAKE,         \
		.perform = PERFORM, ##__VA_ARGS__                    \
	}

static const struct memop ops[] = {
	OP("dontneed memfd", "MADV_DONTNEED of a shared memfd",
	   memop_make_memfd, dontneed_memfd),
	OP("madv free", "MADV_FREE, which takes nothing yet", memop_make_anon,
	   lazy_free),
	OP("pageout", "MADV_PAGEOUT of a shared memfd", memop_make_memfd,
	   page_out),
	OP("punch private", "a hole under private copies",
	   memop_make_memfd_private, punch_private),
	OP("compaction", "the kernel moves pages about", memop_make_anon,
	   compact, .missing = missing_compaction),
	OP("thp munmap beside", "a huge page is split", make_thp, thp_munmap,
	   .missing = missing_thp),
	OP("thp dontneed beside", "by what happens to the rest of it", make_thp,
	   thp_dontneed, .missing = missing_thp),
	OP("thp mprotect beside", "which is not the buffer's", make_thp,
	   thp_mprotect, .missing = missing_thp),
	OP("collapse", "MADV_COLLAPSE into a huge page", make_small_pages,
	   collapse, .missing = missing_thp),
	OP("hugetlb fork alive", "huge pages, and the child lives on",
	   memop_make_huge, fork_alive, .page = MEMOP_HUGE,
	   .missing = memop_missing_hugetlb),
	OP("hugetlb fork exited", "huge pages, and the child is gone",
	   memop_make_huge, fork_exited, .page = MEMOP_HUGE,
	   .missing = memop_missing_hugetlb),
	{
		.name = "ksm",
		.what = "equal pages merged and parted again",
		.verdict = MEMOP_EITHER,
		.kinds = CLEAR,
		.missing = missing_ksm,
		.make = memop_make_anon,
		.perform = merge,
	},
};

const struct memop_group memop_either = {ops, COUNT(ops)};
