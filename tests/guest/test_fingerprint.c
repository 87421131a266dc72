/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * UMMUNOTIFY_FINGERPRINT. For each memory operation of the table: one that
 * leaves the pages must not cost a registration, and whatever the device calls
 * the same is right on the wire. Then the calls by themselves: what they refuse,
 * where they stop, and what they must not take for the same.
 */
#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memop_cmocka.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memop_int.h"
#include "support.h"
#include "umn.h"
#include "wire.h"

#define ROUNDS	  4
#define SIZE	  MEMOP_MIN_SIZE
#define PEER_SIZE ((size_t)4 << 20)
#define COOKIE	  UINT64_C(0xfeedface)
#define WRITE	  UMMUNOTIFY_FINGERPRINT_WRITE
#define PRESENT	  UMMUNOTIFY_FINGERPRINT_PRESENT
#define VERIFY	  UMMUNOTIFY_FINGERPRINT_VERIFY
#define UNKNOWN	  UMMUNOTIFY_PAGES_UNKNOWN
#define SAME	  UMMUNOTIFY_PAGES_SAME
#define OTHER	  UMMUNOTIFY_PAGES_OTHER
#define AT_ONCE	  ((size_t)1 << 16) /* pages that one call looks at */

static struct rdma wire;
static struct umn umn;

static int set_up(void **state)
{
	int ret = rdma_open(&wire, PEER_SIZE);

	(void)state;
	if (ret) {
		print_error("no RDMA connection: %s\n", strerror(-ret));
		return ret;
	}
	return umn_start(&umn, UMN_ALL);
}

static int tear_down(void **state)
{
	(void)state;
	umn_stop(&umn);
	return rdma_close(&wire);
}

/* A watch, and the fingerprint of what is pinned in its range. */
struct watched {
	char *addr;
	size_t size;
	uint32_t slot, state;
	uint64_t fingerprint;
	struct ibv_mr *mr;
};

/* One entry, which has no error: its answer. */
static uint32_t ask(struct ummunotify_fingerprint *print)
{
	assert_int_equal(umn_fingerprint(umn.fd, print, 1), 1);
	assert_int_equal(print->error, 0);
	return print->answer;
}

static uint32_t take(struct watched *w, uint32_t flags)
{
	struct ummunotify_fingerprint print =
		umn_fingerprint_of(COOKIE, flags, w->state, 0);
	uint32_t answer = ask(&print);

	assert_int_equal(print.state, w->state);
	w->fingerprint = print.fingerprint;
	return answer;
}

static uint32_t verify(struct watched *w, uint32_t flags)
{
	struct ummunotify_fingerprint print = umn_fingerprint_of(
		COOKIE, flags | VERIFY, w->state, w->fingerprint);
	uint32_t answer = ask(&print);

	assert_int_equal(print.fingerprint, w->fingerprint);
	if (answer == SAME) {
		assert_int_not_equal(print.state, w->state);
		assert_int_equal(print.slot, w->slot);
	}
	w->state = print.state;
	return answer;
}

static uint32_t kinds(const struct watched *w)
{
	return umn_word(&umn, w->slot) & UMMUNOTIFY_STATE_KINDS;
}

static bool clean(const struct watched *w)
{
	return umn_clean(&umn, w->slot, w->state);
}

static void watch(struct watched *w, void *addr, size_t size, uint32_t flags)
{
	struct ummunotify_watch_ioctl watch;

	*w = (struct watched){.addr = addr, .size = size};
	umn_unregister(umn.fd, COOKIE); /* that a failed test has left */
	assert_int_equal(umn_watch(umn.fd, addr, size, COOKIE, flags, &watch),
			 0);
	w->slot = watch.slot;
	w->state = watch.state;
}

static void unwatch(void)
{
	assert_int_equal(umn_unregister(umn.fd, COOKIE), 0);
}

/* ---- every operation, on the wire ---------------------------------------------- */

/* Watch, pin, fingerprint; again where pinning has itself replaced pages. */
static void pin(struct watched *w)
{
	struct ummunotify_rearm_ioctl rearm;
	int tries = 0;

	for (;;) {
		w->mr = ibv_reg_mr(wire.pd, w->addr, w->size, WIRE_REMOTE);
		assert_non_null(w->mr);
		if (take(w, WRITE) == SAME)
			return;
		assert_true(++tries < 4);
		assert_int_equal(ibv_dereg_mr(w->mr), 0);
		assert_int_equal(umn_rearm(umn.fd, COOKIE, &rearm), 0);
		w->state = rearm.state;
	}
}

/* Memory that is there, and nobody else's: what a registration would reach. */
static void settle(const struct memop_buffer *b, unsigned int round)
{
	memop_fill(b->addr, b->size, memop_seed(b->op, round));
}

/*
 * Before Linux 5.12 a child shares a page that is pinned, and its parent's next
 * write gets another.
 */
static bool may_be_replaced(const struct memop *op)
{
	return !strcmp(op->name, "hugetlb fork alive") &&
	       kernel_is_before(5, 12);
}

static void operation(void **state)
{
	const struct memop *op = *state;
	bool split =
		!strncmp(op->name, "thp ", 4) || !strcmp(op->name, "madv free");
	uint32_t answer, word, before;
	struct memop_buffer b;
	struct watched w;
	unsigned int round, asked = 0, same = 0;

	make(&b, op, SIZE);
	watch(&w, b.addr, b.size, UMMUNOTIFY_WATCH_CACHEABLE);
	settle(&b, 0);
	pin(&w);
	for (round = 1; round <= ROUNDS; round++) {
		perform(&b);
		word = umn_word(&umn, w.slot);
		if (word != w.state) {
			before = w.state;
			/* What is split is there, what is let go of is not. */
			answer = verify(&w, WRITE | (split ? PRESENT : 0));
			asked++;
			same += answer == SAME;
			if (op->stale)
				assert_int_not_equal(answer, SAME);
			if (word & UMMUNOTIFY_KIND_UNMAP) {
				assert_int_equal(answer, UNKNOWN);
				assert_int_equal(w.state, before);
				assert_int_equal(umn_word(&umn, w.slot), word);
			} else if (op->verdict == MEMOP_EITHER &&
				   !may_be_replaced(op)) {
				assert_int_equal(answer, SAME);
			}
			if (answer != SAME) {
				struct ummunotify_rearm_ioctl rearm;

				assert_int_equal(ibv_dereg_mr(w.mr), 0);
				settle(&b, round);
				assert_int_equal(
					umn_rearm(umn.fd, COOKIE, &rearm), 0);
				w.state = rearm.state;
				pin(&w);
			}
		}
		assert_true(clean(&w));
		assert_int_equal(wire_wrong_of(&wire, w.mr, &b, round), 0);
		assert_true(clean(&w));
	}
	print_message("# %s: asked %u times, %u times the same\n", op->name,
		      asked, same);
	if (op->verdict == MEMOP_REPORT)
		assert_int_equal(asked, ROUNDS);
	assert_int_equal(ibv_dereg_mr(w.mr), 0);
	unwatch();
	memop_drop(&b);
}

/* ---- what is the same, and what is not ------------------------------------------- */

static char *map_shared(int *fd, size_t size)
{
	char *p;

	*fd = memfd_create("fingerprint", MFD_CLOEXEC);
	assert_true(*fd >= 0);
	assert_int_equal(ftruncate(*fd, size), 0);
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	assert_int_equal(pages_populate(p, size), 0);
	return p;
}

/* A watch that nothing has hit may be verified, too; it is armed anew. */
CASE(untouched)
{
	struct watched w;
	char *p = pages_map(3);
	uint32_t armed;

	/* Neither end is that of a page. */
	watch(&w, p + 100, 2 * PAGE, 0);
	pin(&w); /* or its frames could be had again */
	armed = w.state;
	assert_int_equal(verify(&w, WRITE), SAME);
	assert_int_not_equal(w.state, armed);
	assert_true(clean(&w));
	/* The last page, of which 100 bytes are watched. */
	assert_int_equal(madvise(p + 2 * PAGE, PAGE, MADV_DONTNEED), 0);
	assert_int_equal(kinds(&w), UMMUNOTIFY_KIND_CLEAR);
	assert_int_equal(verify(&w, WRITE), OTHER);
	assert_int_equal(ibv_dereg_mr(w.mr), 0);
	unwatch();
	pages_unmap(p, 3);
}

/* An answer is about what the word says now, and a later hit shows. */
CASE(a_hit_after_it)
{
	struct watched w;
	int fd;
	char *p = map_shared(&fd, 2 * PAGE);

	watch(&w, p, 2 * PAGE, 0);
	assert_int_equal(take(&w, WRITE), SAME);
	assert_int_equal(madvise(p, PAGE, MADV_DONTNEED), 0);
	assert_false(clean(&w));
	assert_int_equal(verify(&w, WRITE), SAME);
	assert_true(clean(&w));
	/* The report of the hit is gone, too. */
	assert_int_equal(umn_drain(umn.fd, NULL, 0, NULL), 0);
	assert_int_equal(madvise(p, PAGE, MADV_DONTNEED), 0);
	assert_false(clean(&w));
	assert_int_equal(umn_drain(umn.fd, NULL, 0, NULL), 1);
	unwatch();
	pages_unmap(p, 2);
	close(fd);
}

/* Of a watch that was hit or armed anew, nothing is taken. */
CASE(taken_too_late)
{
	struct ummunotify_rearm_ioctl rearm;
	struct watched w;
	char *p = pages_map(1);

	watch(&w, p, PAGE, 0);
	assert_int_equal(madvise(p, PAGE, MADV_DONTNEED), 0);
	assert_int_equal(take(&w, WRITE), UNKNOWN);
	/* Nor does it help to know: a watch that was told hears of nothing more. */
	w.state |= UMMUNOTIFY_KIND_CLEAR;
	assert_int_equal(take(&w, WRITE), UNKNOWN);
	assert_int_equal(umn_rearm(umn.fd, COOKIE, &rearm), 0);
	assert_int_equal(take(&w, WRITE), UNKNOWN);
	w.state = rearm.state;
	/* Pins by write what was never there: nothing is replaced. */
	assert_int_equal(take(&w, WRITE), SAME);
	unwatch();
	pages_unmap(p, 1);
}

/* A registration that writes cannot do with pages that only can be read. */
CASE(not_writable)
{
	struct watched w;
	int fd;
	char *p = map_shared(&fd, 2 * PAGE);

	watch(&w, p, 2 * PAGE, 0);
	assert_int_equal(take(&w, WRITE), SAME);
	assert_int_equal(madvise(p, PAGE, MADV_DONTNEED), 0);
	assert_int_equal(mprotect(p + PAGE, PAGE, PROT_READ), 0);
	assert_int_equal(verify(&w, WRITE), UNKNOWN);
	assert_int_equal(verify(&w, 0), SAME);
	assert_int_equal(mprotect(p + PAGE, PAGE, PROT_READ | PROT_WRITE), 0);
	assert_int_equal(verify(&w, WRITE), SAME);
	unwatch();
	pages_unmap(p, 2);
	close(fd);
}

/* What the program gave back stays there, unless it is asked to come. */
CASE(only_what_is_there)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	struct watched w;
	int fd;
	char *p = map_shared(&fd, 2 * PAGE);

	assert_true(pagemap >= 0);
	watch(&w, p, 2 * PAGE, 0);
	assert_int_equal(take(&w, WRITE | PRESENT), SAME);
	assert_int_equal(verify(&w, WRITE | PRESENT), SAME);
	assert_int_equal(madvise(p + PAGE, PAGE, MADV_DONTNEED), 0);
	assert_int_equal(verify(&w, WRITE | PRESENT), UNKNOWN);
	assert_true(clean(&w));
	assert_false(page_present(pagemap, p + PAGE));
	assert_int_equal(verify(&w, WRITE), SAME);
	assert_true(page_present(pagemap, p + PAGE));
	unwatch();
	pages_unmap(p, 2);
	close(fd);
	close(pagemap);
}

static long free_huge_pages(void)
{
	char line[128];
	long n = -1;
	FILE *f = fopen("/proc/meminfo", "re");

	while (f && n < 0 && fgets(line, sizeof(line), f))
		sscanf(line, "HugePages_Free: %ld", &n);
	if (f)
		fclose(f);
	return n;
}

/* A huge page that is gone is not brought back, either. */
CASE(only_what_is_there_of_huge_pages)
{
	const char *missing = memop_missing_hugetlb();
	struct watched w;
	long before;
	char *p;

	if (missing) {
		print_message("# %s\n", missing);
		skip();
	}
	p = mmap(NULL, MEMOP_HUGE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	memset(p, 1, MEMOP_HUGE);
	watch(&w, p, MEMOP_HUGE, 0);
	assert_int_equal(take(&w, WRITE | PRESENT), SAME);
	assert_int_equal(verify(&w, WRITE | PRESENT), SAME);
	/* Linux before 5.18 has that for small pages only. */
	if (!madvise(p, MEMOP_HUGE, MADV_DONTNEED)) {
		before = free_huge_pages();
		assert_int_equal(verify(&w, WRITE | PRESENT), UNKNOWN);
		assert_int_equal(free_huge_pages(), before);
	}
	unwatch();
	munmap(p, MEMOP_HUGE);
}

static int idle_child(void *argument)
{
	char byte;

	read(*(int *)argument, &byte, 1);
	return 0;
}

/* Not pinned, so fork shares the page, and who writes first gets another. */
CASE(copy_on_write)
{
	struct watched w;
	char *p = pages_map(1);
	int ends[2];
	pid_t child;

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	watch(&w, p, PAGE, 0);
	assert_int_equal(take(&w, WRITE), SAME);
	child = fork();
	if (!child) {
		close(ends[1]);
		_exit(idle_child(&ends[0]));
	}
	assert_true(child > 0);
	assert_true(clean(&w));
	*(volatile char *)p = 2;
	assert_int_equal(kinds(&w), UMMUNOTIFY_KIND_CLEAR);
	assert_int_equal(verify(&w, WRITE), OTHER);
	close(ends[0]);
	close(ends[1]);
	assert_int_equal(child_result(child), 0);
	unwatch();
	pages_unmap(p, 1);
}

/* The pages come back, but what was unmapped is not asked about. */
CASE(moved_and_back)
{
	struct watched w;
	char *p = pages_map(2), *room = pages_map(2);
	uint32_t armed;

	watch(&w, p, 2 * PAGE, 0);
	assert_int_equal(take(&w, WRITE), SAME);
	armed = w.state;
	assert_ptr_equal(mremap(p, 2 * PAGE, 2 * PAGE,
				MREMAP_MAYMOVE | MREMAP_FIXED, room),
			 room);
	assert_ptr_equal(mremap(room, 2 * PAGE, 2 * PAGE,
				MREMAP_MAYMOVE | MREMAP_FIXED, p),
			 p);
	assert_int_equal(kinds(&w), UMMUNOTIFY_KIND_UNMAP);
	assert_int_equal(verify(&w, WRITE), UNKNOWN);
	/* Nothing has happened to it: its report is there. */
	assert_int_equal(w.state, armed);
	assert_int_equal(kinds(&w), UMMUNOTIFY_KIND_UNMAP);
	assert_int_equal(umn_drain(umn.fd, NULL, 0, NULL), 1);
	unwatch();
	pages_unmap(p, 2);
}

/* The same two pages of a file, the other way round. */
CASE(in_another_order)
{
	struct ummunotify_rearm_ioctl rearm;
	struct watched w;
	int fd;
	char *p = map_shared(&fd, 2 * PAGE);

	watch(&w, p, 2 * PAGE, 0);
	assert_int_equal(take(&w, WRITE), SAME);
	assert_ptr_equal(mmap(p, PAGE, PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_FIXED | MAP_POPULATE, fd, PAGE),
			 p);
	assert_ptr_equal(mmap(p + PAGE, PAGE, PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_FIXED | MAP_POPULATE, fd, 0),
			 p + PAGE);
	assert_int_equal(umn_rearm(umn.fd, COOKIE, &rearm), 0);
	w.state = rearm.state;
	assert_int_equal(verify(&w, WRITE), OTHER);
	unwatch();
	pages_unmap(p, 2);
	close(fd);
}

/* Its pages could be had, but who owns them takes them away without a word. */
CASE(memory_not_to_be_cached)
{
	struct watched w;
	char *p = pages_map(3);

	watch(&w, (void *)umn.counter, PAGE, 0);
	assert_int_equal(take(&w, 0), UNKNOWN);
	assert_int_equal(verify(&w, 0), UNKNOWN);
	unwatch();

	/* A hole. */
	pages_unmap(p + PAGE, 1);
	watch(&w, p, 3 * PAGE, 0);
	assert_int_equal(take(&w, 0), UNKNOWN);
	unwatch();
	pages_unmap(p, 1);
	pages_unmap(p + 2 * PAGE, 1);
}

/* ---- the call ---------------------------------------------------------------------- */

CASE(without_the_feature)
{
	struct ummunotify_fingerprint print =
		umn_fingerprint_of(COOKIE, 0, 0, 0);
	struct umn other;

	assert_int_equal(umn_start(&other, UMN_STATE), 0);
	assert_int_equal(umn_fingerprint(other.fd, &print, 1), -ENOTTY);
	umn_stop(&other);
	assert_int_equal(umn_start(&other, UMN_PAGES), 0);
	assert_int_equal(umn_fingerprint(other.fd, &print, 1), -ENOTTY);
	umn_stop(&other);
}

/* Each has its own answer, and an old answer is not left. */
CASE(several_at_once)
{
	struct ummunotify_fingerprint prints[6];
	struct ummunotify_watch_ioctl other;
	struct watched w;
	char *p = pages_map(2);

	watch(&w, p, PAGE, 0);
	assert_int_equal(umn_watch(umn.fd, p + PAGE, PAGE, 2, 0, &other), 0);
	assert_int_equal(umn_register(umn.fd, p, PAGE, 3), 0);
	prints[0] = umn_fingerprint_of(COOKIE, WRITE, w.state, 0);
	prints[1] = umn_fingerprint_of(4, WRITE, 0, 0);
	prints[2] = umn_fingerprint_of(3, WRITE, 0, 0);
	prints[3] = umn_fingerprint_of(2, PRESENT << 1, other.state, 0);
	prints[4] = umn_fingerprint_of(2, WRITE, other.state, 0);
	prints[4].reserved = 1;
	prints[5] = umn_fingerprint_of(2, WRITE, other.state, 0);
	for (int i = 0; i < 6; i++)
		prints[i].answer = SAME;
	assert_int_equal(umn_fingerprint(umn.fd, prints, 6), 6);
	assert_int_equal(prints[0].error, 0);
	assert_int_equal(prints[0].answer, SAME);
	assert_int_equal(prints[1].error, -ENOENT);
	assert_int_equal(prints[2].error, -EINVAL);
	assert_int_equal(prints[3].error, -EINVAL);
	assert_int_equal(prints[4].error, -EINVAL);
	for (int i = 1; i < 5; i++)
		assert_int_equal(prints[i].answer, UNKNOWN);
	assert_int_equal(prints[5].error, 0);
	assert_int_equal(prints[5].answer, SAME);
	assert_int_equal(prints[5].slot, other.slot);
	/* Others' pages, and others' address. */
	assert_int_not_equal(prints[0].fingerprint, prints[5].fingerprint);
	assert_int_equal(umn_unregister(umn.fd, 2), 0);
	assert_int_equal(umn_unregister(umn.fd, 3), 0);
	unwatch();
	pages_unmap(p, 2);
}

CASE(wrong_arguments)
{
	struct ummunotify_fingerprints all = {.size = sizeof(all), .count = 1};
	struct {
		struct ummunotify_fingerprint print;
		uint64_t more;
	} longer = {.print = umn_fingerprint_of(COOKIE, 0, 0, 0)};
	struct watched w;
	char *p = pages_map(1);

	watch(&w, p, PAGE, 0);
	assert_int_equal(ioctl(umn.fd, UMMUNOTIFY_FINGERPRINT, NULL), -1);
	assert_int_equal(errno, EFAULT);
	all.fingerprints = (uintptr_t)&longer;
#define FAILS(error)                                                          \
	do {                                                                  \
		assert_int_equal(ioctl(umn.fd, UMMUNOTIFY_FINGERPRINT, &all), \
				 -1);                                         \
		assert_int_equal(errno, error);                               \
	} while (0)
	all.flags = 1;
	FAILS(EINVAL);
	all.flags = 0;
	all.reserved = 1;
	FAILS(EINVAL);
	all.reserved = 0;
	all.size--;
	FAILS(EINVAL);
	all.size = PAGE + 1;
	FAILS(E2BIG);
	all.size = sizeof(all);

	longer.print.size--;
	FAILS(EINVAL);
	longer.print.size = PAGE + 1;
	FAILS(E2BIG);
	longer.print.size = sizeof(longer);
	longer.more = 1;
	FAILS(E2BIG);
	assert_int_equal(all.done, 0);
	longer.more = 0;
	longer.print.state = w.state;
	assert_int_equal(ioctl(umn.fd, UMMUNOTIFY_FINGERPRINT, &all), 0);
	assert_int_equal(all.done, 1);
	assert_int_equal(longer.print.size, sizeof(longer));
	assert_int_equal(longer.print.answer, SAME);
	all.fingerprints = 0;
	FAILS(EFAULT);
#undef FAILS
	/* Cannot be answered: nothing is armed. */
	{
		struct ummunotify_fingerprint *print = (void *)pages_map(1);

		*print = umn_fingerprint_of(COOKIE, VERIFY, w.state, 0);
		assert_int_equal(mprotect(print, PAGE, PROT_READ), 0);
		assert_int_equal(umn_fingerprint(umn.fd, print, 1), -EFAULT);
		assert_true(clean(&w));
		pages_unmap(print, 1);
	}
	assert_int_equal(umn_fingerprint(umn.fd, NULL, 0), 0);
	unwatch();
	pages_unmap(p, 1);
}

/* One call looks at so many pages, whether it finds any or not. */
CASE(limit_of_a_call)
{
	/* Nobody has mapped anything there. */
	char *nowhere =
		mmap(NULL, 2 * AT_ONCE * PAGE, PROT_NONE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct ummunotify_fingerprint prints[3];
	struct ummunotify_watch_ioctl watch;
	struct watched w;
	int i;

	assert_ptr_not_equal(nowhere, MAP_FAILED);
	assert_int_equal(munmap(nowhere, 2 * AT_ONCE * PAGE), 0);
	for (i = 0; i < 3; i++) {
		assert_int_equal(umn_watch(umn.fd, nowhere,
					   AT_ONCE / 2 * PAGE + (i == 1), i, 0,
					   &watch),
				 0);
		prints[i] = umn_fingerprint_of(i, VERIFY, watch.state, 0);
	}
	/* The second is a page too large, and is not begun. */
	assert_int_equal(umn_fingerprint(umn.fd, prints, 3), 1);
	assert_int_equal(prints[0].answer, UNKNOWN);
	assert_true(umn_clean(&umn, watch.slot, watch.state));
	assert_int_equal(umn_fingerprint(umn.fd, prints + 1, 2), 1);
	assert_int_equal(umn_fingerprint(umn.fd, prints + 2, 1), 1);
	for (i = 0; i < 3; i++)
		assert_int_equal(umn_unregister(umn.fd, i), 0);

	/* For one that is too large for any call there is an answer. */
	w = (struct watched){0};
	assert_int_equal(umn_watch(umn.fd, nowhere, (AT_ONCE + 1) * PAGE,
				   COOKIE, 0, &watch),
			 0);
	w.slot = watch.slot;
	w.state = watch.state;
	assert_int_equal(verify(&w, 0), UNKNOWN);
	assert_int_equal(w.state, watch.state);
	assert_true(clean(&w));
	unwatch();
}

/* ---- the cache ----------------------------------------------------------------------- */

#define HUGE_PAGE ((size_t)2 << 20)
#define BUFFERS	  32
#define PURGES	  6

/*
 * Many registrations in a huge page, of which an allocator purges the rest, a
 * page at a time. Each is used on the wire after each purge.
 */
static void a_neighbour_purges(void **state)
{
	const bool *verifies = *state;
	const size_t size = 4 * PAGE;
	struct mrcache_attr attr;
	struct mrcache_stats stats;
	struct mrcache *cache;
	struct ibv_mr *last;
	char *area, *buffer;
	unsigned int i, purge;

	if (!has_huge_pages())
		skip();
	wire_attr(&attr, "ummunotify");
	attr.fingerprint = *verifies;
	cache = mrcache_open(&attr);
	assert_non_null(cache);
	area = mmap(NULL, 2 * HUGE_PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(area, MAP_FAILED);
	buffer = (char *)(((uintptr_t)area + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1));
	for (purge = 0; purge < PURGES; purge++) {
		struct mrcache_stats before = wire_stats(cache);

		/* All of it is one huge page again; pinned parts stay. */
		if (!purge) {
			assert_int_equal(
				madvise(area, 2 * HUGE_PAGE, MADV_HUGEPAGE), 0);
			memset(buffer, 1, HUGE_PAGE);
		} else {
			/* Told of all, and takes what is beside them. */
			assert_int_equal(madvise(buffer, HUGE_PAGE, MADV_FREE),
					 0);
			assert_int_equal(madvise(buffer + HUGE_PAGE / 2, PAGE,
						 MADV_DONTNEED),
					 0);
		}
		for (i = 0; i < BUFFERS; i++) {
			char *addr = buffer + i * 2 * size;
			struct ibv_mr *mr = mrcache_reg_mr(cache, wire.pd, addr,
							   size, WIRE_REMOTE);

			assert_non_null(mr);
			assert_int_equal(wire_wrong(&wire, mr, addr, size,
						    purge * BUFFERS + i,
						    WIRE_BY_PROGRAM),
					 0);
			assert_int_equal(mrcache_dereg_mr(cache, mr), 0);
		}
		stats = wire_stats(cache);
		/* The first of them is how it is learnt that there are any. */
		if (purge > 1)
			assert_int_equal(stats.registrations -
						 before.registrations,
					 *verifies ? 0 : BUFFERS);
	}
	if (*verifies) {
		assert_int_equal(stats.verified, (PURGES - 2) * BUFFERS);
		assert_int_equal(stats.refuted, 0);
		/* What the program gives back is not brought back. */
		assert_int_equal(madvise(buffer, size, MADV_DONTNEED), 0);
		last = mrcache_reg_mr(cache, wire.pd, area, PAGE, WIRE_LOCAL);
		assert_non_null(last);
		assert_int_equal(mrcache_dereg_mr(cache, last), 0);
		assert_int_equal(wire_stats(cache).refuted, 1);
	} else {
		assert_int_equal(stats.verified, 0);
	}
	assert_int_equal(mrcache_close(cache), 0);
	munmap(area, 2 * HUGE_PAGE);
}

static const bool yes = true, no = false;

/* ---- all of them --------------------------------------------------------------------- */

static const struct CMUnitTest neighbours[] = {
	{"a_neighbour_purges_verified", a_neighbour_purges, NULL, NULL,
	 (void *)&yes},
	{"a_neighbour_purges_unverified", a_neighbour_purges, NULL, NULL,
	 (void *)&no},
};
CASES(neighbours);

int main(void)
{
	add_memops("", operation, NULL);
	return run_cases(set_up, tear_down);
}
