/* SPDX-License-Identifier: BSD-2-Clause */
/* The memory operations that must be reported. */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "memop_int.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* --- unmapped and mapped again ------------------------------------------- */

static int munmap_mmap(struct memop_buffer *b)
{
	int ret = memop_unmap(b->addr, b->size);

	return ret ? ret : memop_map_anon(b->addr, b->size);
}

static int raw_munmap(struct memop_buffer *b)
{
	long ret = syscall(SYS_munmap, b->addr, b->size);

	return ret ? -errno : memop_map_anon(b->addr, b->size);
}

/* From the quarter to the three quarters. */
static int munmap_middle(struct memop_buffer *b)
{
	size_t start = b->size / 4 / b->page * b->page;
	size_t size = b->size / 2 / b->page * b->page;
	int ret = memop_unmap(b->addr + start, size);

	return ret ? ret : memop_map_anon(b->addr + start, size);
}

static int munmap_around(struct memop_buffer *b)
{
	int ret = memop_unmap(b->addr - b->page, b->size + 2 * b->page);

	if (!ret)
		ret = memop_map_anon(b->addr, b->size);
	if (!ret)
		ret = memop_guard(b->addr - b->page, b->page);
	if (!ret)
		ret = memop_guard(b->addr + b->size, b->page);
	return ret;
}

static int munmap_by_thread(struct memop_buffer *b)
{
	return memop_thread(b, munmap_mmap);
}

static int map_over(struct memop_buffer *b)
{
	return memop_map_over(b->addr, b->size);
}

static int map_over_page(struct memop_buffer *b)
{
	return memop_map_over(b->addr + b->size / 2 / b->page * b->page,
			      b->page);
}

static int map_file_over(struct memop_buffer *b)
{
	int fd = memop_memfd(b->size, 0);
	void *p;

	if (fd < 0)
		return fd;
	p = mmap(b->addr, b->size, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_FIXED, fd, 0);
	close(fd);
	return p == MAP_FAILED ? -errno : 0;
}

/* The file again, so the same pages: only the mapping is another. */
static int remap_memfd(struct memop_buffer *b)
{
	void *p;

	if (munmap(b->addr, b->size))
		return -errno;
	p = mmap(b->addr, b->size, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_FIXED_NOREPLACE, b->fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	return p == b->addr ? 0 : -EADDRINUSE;
}

static int make_two_halves(struct memop_buffer *b)
{
	int ret = memop_make_memfd(b);

	if (ret)
		return ret;
	return ftruncate(b->fd, 2 * b->size) ? -errno : 0;
}

/* Shows the other half of the file. */
static int switch_half(struct memop_buffer *b)
{
	b->state ^= 1;
	/* Counted in ordinary pages whatever the mapping's are. */
	return remap_file_pages(b->addr, b->size, 0,
				b->state * b->size / sysconf(_SC_PAGESIZE), 0)
		       ? -errno
		       : 0;
}

/* --- malloc and brk ------------------------------------------------------ */

/* A mapping of its own, not cut from the heap: free() unmaps it. */
static bool is_mapped(const void *block)
{
	size_t head = 2 * sizeof(size_t), page = sysconf(_SC_PAGESIZE);

	return (uintptr_t)block % page == head &&
	       (malloc_usable_size((void *)block) + head) % page == 0;
}

/*
 * Other blocks are kept until there is one that is mapped, and at the address
 * wanted if there is one.
 */
static void *malloc_mapped(size_t size, uintptr_t wanted)
{
	void *others[32], *block;
	size_t count = 0;

	for (;;) {
		block = malloc(size);
		if (!block || count == COUNT(others) ||
		    (is_mapped(block) &&
		     (!wanted || (uintptr_t)block == wanted)))
			break;
		others[count++] = block;
	}
	while (count)
		free(others[--count]);
	return block;
}

static int make_malloc(struct memop_buffer *b)
{
	/* Setting it also stops the threshold from growing with each free. */
	mallopt(M_MMAP_THRESHOLD, MEMOP_MIN_SIZE);
	/* What others left free in the heap would be given out first. */
	malloc_trim(0);
	b->addr = malloc_mapped(b->size, 0);
	if (!b->addr)
		return -ENOMEM;
	return is_mapped(b->addr) ? 0 : -EAGAIN;
}

static int free_malloc(struct memop_buffer *b)
{
	uintptr_t old = (uintptr_t)b->addr;

	free(b->addr);
	b->addr = malloc_mapped(b->size, old);
	if (!b->addr)
		return -ENOMEM;
	return (uintptr_t)b->addr == old ? 0 : -EAGAIN;
}

static void drop_malloc(struct memop_buffer *b)
{
	free(b->addr);
	b->addr = NULL;
}

/*
 * A guard one page above the new end of the heap keeps malloc from growing the
 * heap over ours; it takes its memory from mmap then.
 */
static int make_brk(struct memop_buffer *b)
{
	char *end = sbrk(0);
	size_t gap = -(uintptr_t)end % b->page;
	char *p = sbrk(gap + b->size);
	void *guard;

	if (p == (void *)-1)
		return -errno;
	if (p != end) {
		sbrk(-(intptr_t)(gap + b->size));
		return -EAGAIN;
	}
	b->addr = p + gap;
	guard = mmap(b->addr + b->size + b->page, b->page, PROT_NONE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (guard == MAP_FAILED)
		return -errno;
	b->other = guard;
	b->other_size = b->page;
	return madvise(b->addr, b->size, MADV_NOHUGEPAGE) && errno != EINVAL
		       ? -errno
		       : 0;
}

static int brk_shrink_grow(struct memop_buffer *b)
{
	if (sbrk(0) != b->addr + b->size)
		return -EAGAIN;
	if (sbrk(-(intptr_t)b->size) == (void *)-1)
		return -errno;
	return sbrk(b->size) == b->addr ? 0 : -ENOMEM;
}

static void drop_brk(struct memop_buffer *b)
{
	if (b->addr && sbrk(0) == b->addr + b->size)
		sbrk(-(intptr_t)b->size);
	b->addr = NULL;
	memop_drop_area(b);
}

/* --- mremap ------------------------------------------------------------- */

static int make_with_room(struct memop_buffer *b)
{
	int ret = memop_reserve(b, b->size, b->page);

	return ret ? ret : memop_map_over(b->addr, b->size);
}

static int move(struct memop_buffer *b, int flags)
{
	char *target = b->addr + b->size;
	void *p = mremap(b->addr, b->size, b->size,
			 MREMAP_MAYMOVE | MREMAP_FIXED | flags, target);

	return p == MAP_FAILED ? -errno : memop_guard(target, b->size);
}

static int mremap_move(struct memop_buffer *b)
{
	int ret = move(b, 0);

	return ret ? ret : memop_map_anon(b->addr, b->size);
}

static int mremap_dontunmap(struct memop_buffer *b)
{
	return move(b, MREMAP_DONTUNMAP);
}

static int mremap_shrink_grow(struct memop_buffer *b)
{
	size_t half = b->size / 2 / b->page * b->page;
	void *p;

	if (mremap(b->addr, b->size, half, 0) == MAP_FAILED)
		return -errno;
	p = mremap(b->addr, half, b->size, 0);
	return p == MAP_FAILED ? -errno : 0;
}

/* --- pages taken away from a mapping -------------------------------------- */

static int dontneed(struct memop_buffer *b)
{
	return madvise(b->addr, b->size, MADV_DONTNEED) ? -errno : 0;
}

static int dontneed_page(struct memop_buffer *b)
{
	char *page = b->addr + b->size / 2 / b->page * b->page;

	return madvise(page, b->page, MADV_DONTNEED) ? -errno : 0;
}

static int dontneed_by_thread(struct memop_buffer *b)
{
	return memop_thread(b, dontneed);
}

static int dontneed_body(void *arg)
{
	struct memop_buffer *b = arg;

	_exit(madvise(b->addr, b->size, MADV_DONTNEED) ? 1 : 0);
}

/* As posix_spawn and vfork do: another process in the same address space. */
static int dontneed_by_vfork(struct memop_buffer *b)
{
	static char stack[64 << 10] __attribute__((aligned(16)));
	pid_t pid = clone(dontneed_body, stack + sizeof(stack),
			  CLONE_VM | CLONE_VFORK | SIGCHLD, b);
	int status;

	if (pid < 0)
		return -errno;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return status ? -EINVAL : 0;
}

static int dontneed_locked(struct memop_buffer *b)
{
	int ret = 0;

	if (mlock(b->addr, b->size))
		return -errno;
	if (madvise(b->addr, b->size, MADV_DONTNEED_LOCKED))
		ret = -errno;
	return munlock(b->addr, b->size) ? -errno : ret;
}

/*
 * Where there is no page, and so none that could be pinned, the kernel puts a
 * guard without an invalidation. One is there from here on also when this is
 * repeated.
 */
static int guard_pages(struct memop_buffer *b)
{
	if (madvise(b->addr, b->size, MADV_POPULATE_READ) ||
	    madvise(b->addr, b->size, MADV_GUARD_INSTALL) ||
	    madvise(b->addr, b->size, MADV_GUARD_REMOVE))
		return -errno;
	return 0;
}

const char *memop_missing_advice(int advice, const char *reason)
{
	size_t size = sysconf(_SC_PAGESIZE);
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int ret;

	if (p == MAP_FAILED)
		return "no memory";
	ret = madvise(p, size, advice);
	munmap(p, size);
	return ret ? reason : NULL;
}

static const char *missing_dontneed_locked(void)
{
	return memop_missing_advice(MADV_DONTNEED_LOCKED, "needs Linux 5.18");
}

static const char *missing_guard(void)
{
	return memop_missing_advice(MADV_GUARD_INSTALL, "needs Linux 6.13");
}

static int remove_pages(struct memop_buffer *b)
{
	return madvise(b->addr, b->size, MADV_REMOVE) ? -errno : 0;
}

static int punch(struct memop_buffer *b)
{
	return memop_punch(b->fd, 0, b->size);
}

static int truncate_grow(struct memop_buffer *b)
{
	return memop_truncate(b->fd, b->size);
}

static int truncate_half(struct memop_buffer *b)
{
	if (ftruncate(b->fd, b->size / 2 / b->page * b->page) ||
	    ftruncate(b->fd, b->size))
		return -errno;
	return 0;
}

static int other_truncates(struct memop_buffer *b)
{
	return memop_other(b, MEMOP_TRUNCATE);
}

static int other_punches(struct memop_buffer *b)
{
	return memop_other(b, MEMOP_PUNCH);
}

/* --- System V shared memory ------------------------------------------------ */

/* The segment vanishes with its last attachment, whatever happens to us. */
static int attach_new(struct memop_buffer *b, int flags)
{
	void *p;
	int ret = 0;

	b->segment = shmget(IPC_PRIVATE, b->size, IPC_CREAT | 0600);
	if (b->segment < 0)
		return -errno;
	p = shmat(b->segment, b->addr, flags);
	if (p == (void *)-1)
		ret = -errno;
	shmctl(b->segment, IPC_RMID, NULL);
	return ret;
}

static int make_shm(struct memop_buffer *b)
{
	int ret = memop_reserve(b, 0, b->page);

	return ret ? ret : attach_new(b, SHM_REMAP);
}

static int shmdt_shmat(struct memop_buffer *b)
{
	return shmdt(b->addr) ? -errno : attach_new(b, 0);
}

/* A second attachment keeps the segment. */
static int make_shm_kept(struct memop_buffer *b)
{
	int ret = make_shm(b);
	void *p;

	if (ret)
		return ret;
	p = shmat(b->segment, NULL, 0);
	if (p == (void *)-1)
		return -errno;
	b->other = p;
	b->other_size = b->size;
	return 0;
}

static int shmdt_shmat_same(struct memop_buffer *b)
{
	if (shmdt(b->addr) || shmat(b->segment, b->addr, 0) == (void *)-1)
		return -errno;
	return 0;
}

/* --- huge pages ------------------------------------------------------------ */

#define HUGE_FLAGS (MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB)

const char *memop_missing_hugetlb(void)
{
	void *p = mmap(NULL, 2 * MEMOP_HUGE, PROT_READ | PROT_WRITE, HUGE_FLAGS,
		       -1, 0);

	if (p == MAP_FAILED)
		return "no free huge pages (vm.nr_hugepages)";
	munmap(p, 2 * MEMOP_HUGE);
	return NULL;
}

static void *try_huge(void)
{
	return mmap(NULL, 2 * MEMOP_HUGE, PROT_READ | PROT_WRITE, HUGE_FLAGS,
		    -1, 0);
}

static const char *missing_huge_mremap(void)
{
	const char *reason = memop_missing_hugetlb();
	char *p, *q;

	if (reason)
		return reason;
	p = try_huge();
	if (p == MAP_FAILED)
		return "no memory";
	q = mremap(p, MEMOP_HUGE, MEMOP_HUGE, MREMAP_MAYMOVE | MREMAP_FIXED,
		   p + MEMOP_HUGE);
	munmap(p, 2 * MEMOP_HUGE);
	return q == MAP_FAILED ? "needs Linux 5.16" : NULL;
}

static const char *missing_huge_dontneed(void)
{
	const char *reason = memop_missing_hugetlb();
	int ret;
	char *p;

	if (reason)
		return reason;
	p = try_huge();
	if (p == MAP_FAILED)
		return "no memory";
	ret = madvise(p, MEMOP_HUGE, MADV_DONTNEED);
	munmap(p, 2 * MEMOP_HUGE);
	return ret ? "needs Linux 5.18" : NULL;
}

static int map_huge(struct memop_buffer *b, int fixed)
{
	void *p = mmap(b->addr, b->size, PROT_READ | PROT_WRITE,
		       HUGE_FLAGS | fixed, -1, 0);

	if (p == MAP_FAILED)
		return -errno;
	return p == b->addr ? 0 : -EADDRINUSE;
}

int memop_make_huge(struct memop_buffer *b)
{
	int ret = memop_reserve(b, b->size, b->page);

	return ret ? ret : map_huge(b, MAP_FIXED);
}

static int huge_munmap_mmap(struct memop_buffer *b)
{
	int ret = memop_unmap(b->addr, b->size);

	return ret ? ret : map_huge(b, MAP_FIXED_NOREPLACE);
}

static int huge_mremap_move(struct memop_buffer *b)
{
	int ret = move(b, 0);

	return ret ? ret : map_huge(b, MAP_FIXED_NOREPLACE);
}

static int make_huge_memfd(struct memop_buffer *b)
{
	int ret = memop_reserve(b, 0, b->page);
	void *p;

	if (ret)
		return ret;
	b->fd = memop_memfd(b->size, MFD_HUGETLB);
	if (b->fd < 0)
		return b->fd;
	p = mmap(b->addr, b->size, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_FIXED, b->fd, 0);
	return p == MAP_FAILED ? -errno : 0;
}

/* --- the entries ------------------------------------------------------------ */

#define UNMAP UMMUNOTIFY_KIND_UNMAP
#define CLEAR UMMUNOTIFY_KIND_CLEAR

#define ENTRY(NAME, WHAT, KINDS, MAKE, PERFORM, ...)                 \
	{                                                            \
		.name = NAME, .what = WHAT, .verdict = MEMOP_REPORT, \
		.kinds = KINDS, .make = MAKE, .perform = PERFORM,    \
		##__VA_ARGS__                                        \
	}
#define OP(...) ENTRY(__VA_ARGS__, .stale = true)
/* The pages are the file's or the segment's, and come back with it. */
#define OP_SAME(...)  ENTRY(__VA_ARGS__, .keeps = true)
#define HUGE(MISSING) .page = MEMOP_HUGE, .missing = (MISSING)

static const struct memop ops[] = {
	OP("munmap+mmap", "unmap it, map the same address", UNMAP,
	   memop_make_anon, munmap_mmap),
	OP("munmap raw", "the same by syscall(), past libc", UNMAP,
	   memop_make_anon, raw_munmap),
	OP("munmap by thread", "the same in another thread", UNMAP,
	   memop_make_anon, munmap_by_thread),
	OP("munmap middle", "only the middle of it", UNMAP, memop_make_anon,
	   munmap_middle),
	OP("munmap around", "it and its neighbours in one call", UNMAP,
	   memop_make_anon, munmap_around),
	OP("free+malloc", "a large block, given out again", UNMAP, make_malloc,
	   free_malloc, .drop = drop_malloc),
	OP("brk", "shrink the heap, grow it again", UNMAP, make_brk,
	   brk_shrink_grow, .drop = drop_brk),
	OP("mmap over", "MAP_FIXED over it", UNMAP, memop_make_anon, map_over),
	OP("mmap over page", "MAP_FIXED over one page of it", UNMAP,
	   memop_make_anon, map_over_page),
	OP("mmap file over", "MAP_FIXED of a file over it", UNMAP,
	   memop_make_anon, map_file_over),
	OP("remap_file_pages", "shows another part of the file", UNMAP,
	   make_two_halves, switch_half),
	OP("mremap move", "moved away, the old address mapped", UNMAP,
	   make_with_room, mremap_move),
	OP("mremap dontunmap", "its pages moved away", UNMAP, make_with_room,
	   mremap_dontunmap),
	OP("mremap shrink+grow", "half of it cut off and grown again", UNMAP,
	   memop_make_anon, mremap_shrink_grow),
	OP("dontneed", "MADV_DONTNEED of private memory", CLEAR,
	   memop_make_anon, dontneed),
	OP("dontneed page", "the same for one page of it", CLEAR,
	   memop_make_anon, dontneed_page),
	OP("dontneed by thread", "the same in another thread", CLEAR,
	   memop_make_anon, dontneed_by_thread),
	OP("dontneed by vfork", "by a process sharing the memory", CLEAR,
	   memop_make_anon, dontneed_by_vfork),
	OP("dontneed locked", "of memory that is mlocked", CLEAR,
	   memop_make_anon, dontneed_locked,
	   .missing = missing_dontneed_locked),
	OP("guard pages", "MADV_GUARD_INSTALL and REMOVE", CLEAR,
	   memop_make_anon, guard_pages, .missing = missing_guard),
	OP("madv remove", "MADV_REMOVE of a shared memfd", CLEAR,
	   memop_make_memfd, remove_pages),
	OP("punch hole", "fallocate punches out the memfd", CLEAR,
	   memop_make_memfd, punch),
	OP("truncate", "memfd truncated and grown again", CLEAR,
	   memop_make_memfd, truncate_grow),
	OP("truncate half", "the second half of it", CLEAR, memop_make_memfd,
	   truncate_half),
	OP("truncate private", "under private copies of the file", CLEAR,
	   memop_make_memfd_private, truncate_grow),
	OP("punch by other", "another process punches the memfd", CLEAR,
	   memop_make_memfd_other, other_punches),
	OP("truncate by other", "another process truncates it", CLEAR,
	   memop_make_memfd_other, other_truncates),
	OP_SAME("memfd munmap+mmap", "the same file at the same address", UNMAP,
		memop_make_memfd, remap_memfd),
	OP("shmdt+shmat", "another segment at the same address", UNMAP,
	   make_shm, shmdt_shmat),
	OP_SAME("shmdt+shmat same", "the same segment attached again", UNMAP,
		make_shm_kept, shmdt_shmat_same),
	OP("hugetlb munmap+mmap", "huge pages unmapped and mapped", UNMAP,
	   memop_make_huge, huge_munmap_mmap, HUGE(memop_missing_hugetlb)),
	OP("hugetlb mremap", "huge pages moved away", UNMAP | CLEAR,
	   memop_make_huge, huge_mremap_move, HUGE(missing_huge_mremap)),
	OP("hugetlb dontneed", "MADV_DONTNEED of huge pages", UNMAP | CLEAR,
	   memop_make_huge, dontneed, HUGE(missing_huge_dontneed)),
	OP("hugetlb punch hole", "out of a memfd of huge pages", UNMAP | CLEAR,
	   make_huge_memfd, punch, HUGE(memop_missing_hugetlb)),
};

const struct memop_group memop_reported = {ops, COUNT(ops)};
