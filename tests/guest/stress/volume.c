/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The driver's promise against the page tables. Threads and another process
 * change the mappings of a few arenas as fast as they can, without any lock.
 * Others watch ranges of them, pin those and remember which frames the page
 * tables then have. A pinned frame is neither freed nor moved, so as long as a
 * watch is untouched the page tables must have the same frames: it takes no
 * more than to look at them first and at the watch afterwards.
 *
 * Two things are allowed for. A watch that is armed while an invalidation is
 * under way need not be hit before that ends, and munmap takes the mapping away
 * before it turns to the page tables. In both cases the calls that are being
 * made are waited for. A watch that was armed while nobody changed its arena
 * and has another frame now has no such excuse.
 */
#define _GNU_SOURCE
#include "stress.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "memop_int.h"
#include "rdma.h"
#include "support.h"
#include "umn.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Far from where the kernel puts mappings by itself: holes stay holes. */
#define BASE   0x100000000000ULL
#define STRIDE (1ULL << 30)

#define ARENAS	 4
#define SIZE	 ((size_t)4 << 20)
#define PAGES	 (SIZE / PAGE)
#define MUTATORS 2 /* threads; one more is another process */
#define OTHER	 MUTATORS
#define WATCHERS 3 /* threads that do nothing else */
#define DEVICES	 3
#define EACH	 8  /* watches of one thread */
#define MOST	 16 /* pages of one watch */

/* Entries of /proc/self/pagemap. */
#define PRESENT (1UL << 63)
#define SWAPPED (1UL << 62) /* without swap: being migrated */
#define FRAME	((1UL << 55) - 1)

/* A part of an arena to change. */
struct place {
	unsigned int arena;
	char *addr;
	size_t size;
	off_t offset; /* in the arena's file too */
	int fd;
	char *scratch; /* nothing is mapped there */
	pid_t *child;
};

struct change {
	const char *name;
	int (*make)(const struct place *place); /* 0 or -errno */
	int advice;				/* if that is NULL */
	bool optional;	   /* not in every kernel, or not often */
	const char *needs; /* kernels without this path refuse it */
};

/* Shared with the other process. */
struct world {
	_Atomic bool stop;
	/* What each is at: a number that grows, and 1 + the arena or 0. */
	_Atomic uint64_t busy[MUTATORS + 1];
	_Atomic uint64_t done[64]; /* by index in changes */
	_Atomic uint64_t refused;
	int files[ARENAS];
};

struct figures {
	_Atomic uint64_t armed, again, quiet, unpinned, right, pages, hit;
	_Atomic uint64_t own, transient, waited, events;
};

static struct world *world;
static struct figures figures;
static struct umn devices[DEVICES];
static struct ibv_pd *pd;
static int pagemap;

static char *arena(unsigned int index)
{
	return (char *)(BASE + index * STRIDE);
}

/* --- changes ------------------------------------------------------------------- */

static int map_anon(const struct place *p)
{
	return memop_map_over(p->addr, p->size);
}

static int map_file(const struct place *p, int sharing)
{
	void *q = mmap(p->addr, p->size, PROT_READ | PROT_WRITE,
		       sharing | MAP_FIXED, p->fd, p->offset);

	return q == MAP_FAILED ? -errno : 0;
}

static int map_shared(const struct place *p)
{
	return map_file(p, MAP_SHARED);
}

/* What the arena has mostly. */
static int map_usual(const struct place *p)
{
	return p->arena % 2 ? map_shared(p) : map_anon(p);
}

static int unmap(const struct place *p)
{
	int ret = memop_unmap(p->addr, p->size);

	return ret ? ret : map_usual(p);
}

static int map_private(const struct place *p)
{
	return map_file(p, MAP_PRIVATE);
}

static int move(void *from, void *to, size_t size, int flags)
{
	void *p = mremap(from, size, size,
			 MREMAP_MAYMOVE | MREMAP_FIXED | flags, to);

	return p == MAP_FAILED ? -errno : 0;
}

static int move_away(const struct place *p)
{
	int ret = move(p->addr, p->scratch, p->size, 0);

	return ret ? ret : map_usual(p);
}

static int move_and_back(const struct place *p)
{
	int ret = move(p->addr, p->scratch, p->size, 0);

	return ret ? ret : move(p->scratch, p->addr, p->size, 0);
}

static int dontunmap(const struct place *p)
{
	return move(p->addr, p->scratch, p->size, MREMAP_DONTUNMAP);
}

static int shrink_grow(const struct place *p)
{
	size_t half = (p->size + PAGE) / 2 / PAGE * PAGE;
	void *q = mremap(p->addr, p->size, half, 0);

	if (q == MAP_FAILED)
		return -errno;
	q = mremap(p->addr, half, p->size, 0);
	return q == MAP_FAILED ? map_usual(p) : 0;
}

/* A few pages, which are more often all of them shared. */
static int remove_some(const struct place *p)
{
	size_t size = p->size < 4 * PAGE ? p->size : 4 * PAGE;

	return madvise(p->addr, size, MADV_REMOVE) ? -errno : 0;
}

static int punch(const struct place *p)
{
	return memop_punch(p->fd, p->offset, p->size);
}

static int truncate_here(const struct place *p)
{
	return ftruncate(p->fd, p->offset) || ftruncate(p->fd, SIZE) ? -errno
								     : 0;
}

static int truncate_all(const struct place *p)
{
	return memop_truncate(p->fd, SIZE);
}

static int protect(const struct place *p)
{
	if (mprotect(p->addr, p->size, PROT_READ) ||
	    mprotect(p->addr, p->size, PROT_READ | PROT_WRITE))
		return -errno;
	return 0;
}

static int protect_none(const struct place *p)
{
	if (mprotect(p->addr, p->size, PROT_NONE) ||
	    mprotect(p->addr, p->size, PROT_READ | PROT_WRITE))
		return -errno;
	return 0;
}

static int lock_unlock(const struct place *p)
{
	return mlock(p->addr, p->size) || munlock(p->addr, p->size) ? -errno
								    : 0;
}

/*
 * Writes to pages of which others may take the mapping away. Before Linux 5.14
 * the kernel writes a byte, and so says what would be a signal here.
 */
static int populate(char *start, size_t size)
{
	if (!madvise(start, size, MADV_POPULATE_WRITE))
		return 0;
	if (errno != EINVAL)
		return -errno;
	for (char *p = start; p < start + size; p += PAGE)
		if (getrandom(p, 1, 0) != 1)
			return -errno;
	return 0;
}

static int populate_place(const struct place *p)
{
	return populate(p->addr, p->size);
}

/* Whole huge pages around the place; what happens to parts later splits them. */
static int map_huge(const struct place *p)
{
	uintptr_t start = (uintptr_t)p->addr / MEMOP_HUGE * MEMOP_HUGE;
	void *q = mmap((void *)start, MEMOP_HUGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	if (q == MAP_FAILED || madvise(q, MEMOP_HUGE, MADV_HUGEPAGE))
		return -errno;
	return populate(q, MEMOP_HUGE);
}

static int guard(const struct place *p)
{
	if (madvise(p->addr, p->size, MADV_GUARD_INSTALL) ||
	    madvise(p->addr, p->size, MADV_GUARD_REMOVE))
		return -errno;
	return 0;
}

/* In the child, which has copies, whatever the parent does to its own. */
static void child_main(void *argument)
{
	const struct place *p = argument;

	populate(p->addr, p->size);
	madvise(p->addr, p->size / 2, MADV_DONTNEED);
	_exit(0);
}

/* Both write to what they share then. */
static int fork_and_write(const struct place *p)
{
	if (*p->child > 0)
		MUST(child_result(*p->child) == 0);
	*p->child = stress_fork(child_main, (void *)p);
	return populate(p->addr, p->size);
}

static int compact(const struct place *p)
{
	(void)p;
	return memop_put("/proc/sys/vm/compact_memory", "1");
}

#define CALL(NAME, MAKE, ...)                             \
	{                                                 \
		.name = NAME, .make = MAKE, ##__VA_ARGS__ \
	}
#define ADVICE(NAME, WHICH, ...)                             \
	{                                                    \
		.name = NAME, .advice = WHICH, ##__VA_ARGS__ \
	}

static const struct change changes[] = {
	CALL("unmap", unmap),
	CALL("map over", map_anon),
	CALL("map shared", map_shared),
	CALL("map private", map_private),
	CALL("mremap", move_away),
	CALL("mremap and back", move_and_back),
	CALL("dontunmap", dontunmap),
	CALL("shrink and grow", shrink_grow),
	ADVICE("dontneed", MADV_DONTNEED),
	ADVICE("free", MADV_FREE),
	ADVICE("pageout", MADV_PAGEOUT),
	CALL("remove", remove_some),
	CALL("huge", map_huge, .needs = "/sys/kernel/mm/transparent_hugepage"),
	ADVICE("collapse", MADV_COLLAPSE, .optional = true),
	ADVICE("mergeable", MADV_MERGEABLE),
	ADVICE("unmergeable", MADV_UNMERGEABLE),
	CALL("guard", guard, .optional = true),
	CALL("protect", protect),
	CALL("protect none", protect_none),
	CALL("lock", lock_unlock),
	CALL("fork", fork_and_write),
	CALL("populate", populate_place),
};

/* What another process can do; counted behind those above. */
static const struct change by_other[] = {
	CALL("other punches", punch),
	CALL("other truncates", truncate_here),
	CALL("other empties", truncate_all),
	CALL("compact", compact, .optional = true),
};

_Static_assert(COUNT(changes) + COUNT(by_other) <= 64, "struct world::done");

/* What the state of the memory, which nobody has under control, may forbid. */
static bool is_refusal(int ret)
{
	switch (-ret) {
	case EACCES:
	case EAGAIN:
	case EBUSY:
	case EFAULT:
	case EINVAL:
	case ENOMEM:
		return true;
	}
	return false;
}

static struct place some_place(struct dice *dice)
{
	unsigned int index = dice_below(dice, ARENAS);
	unsigned int start = dice_below(dice, PAGES);
	unsigned int most = PAGES - start;

	if (most > 32 && dice_below(dice, 8))
		most = 32;
	return (struct place){
		.arena = index,
		.addr = arena(index) + start * PAGE,
		.size = (1 + dice_below(dice, most)) * PAGE,
		.offset = start * PAGE,
		.fd = world->files[index],
	};
}

static void change(unsigned int who, const struct change *change,
		   const struct place *place, _Atomic uint64_t *done)
{
	uint64_t turn = (world->busy[who] / 16 + 1) * 16;
	int ret;

	world->busy[who] = turn + 1 + place->arena;
	if (change->make)
		ret = change->make(place);
	else
		ret = madvise(place->addr, place->size, change->advice) ? -errno
									: 0;
	world->busy[who] = turn;
	if (ret && !is_refusal(ret))
		stress_die("volume: %s: errno %d", change->name, -ret);
	atomic_fetch_add(ret ? &world->refused : done, 1);
}

/* --- those who watch ----------------------------------------------------------- */

struct watch {
	bool made;
	struct place place;
	size_t pages;
	uint32_t slot, state; /* of the word, if it has one */
	uint64_t counter;     /* else */
	bool quiet;	      /* armed while nobody was changing the arena */
	uint64_t busy[MUTATORS + 1];
	struct ibv_mr *mr;
	uint64_t frames[MOST];
};

struct watcher {
	unsigned int id;
	struct umn *device;
	bool words; /* otherwise as in 2010, with one watch on the device */
	uint64_t step;
	struct watch watches[EACH];
};

static uint64_t cookie_of(const struct watcher *w, const struct watch *watch)
{
	return w->id * EACH + (watch - w->watches);
}

static void see_busy(uint64_t *busy)
{
	unsigned int i;

	for (i = 0; i <= MUTATORS; i++)
		busy[i] = world->busy[i];
}

static bool is_busy_in(const uint64_t *busy, unsigned int index)
{
	unsigned int i;

	for (i = 0; i <= MUTATORS; i++)
		if (busy[i] % 16 == 1 + index)
			return true;
	return false;
}

/* Until the calls that were being made are over. */
static void wait_for_calls(const uint64_t *busy)
{
	unsigned int i;

	for (i = 0; i <= MUTATORS; i++)
		while (busy[i] % 16 && world->busy[i] == busy[i])
			sched_yield();
}

static void see_frames(const struct watch *watch, uint64_t *frames)
{
	size_t bytes = watch->pages * sizeof(*frames), i;

	MUST(pread(pagemap, frames, bytes,
		   (uintptr_t)watch->place.addr / PAGE * sizeof(*frames)) ==
	     (ssize_t)bytes);
	for (i = 0; i < watch->pages; i++)
		frames[i] &= frames[i] & PRESENT ? PRESENT | FRAME : SWAPPED;
}

/* To be asked after the page tables were looked at. */
static bool is_untouched(const struct watcher *w, const struct watch *watch)
{
	if (w->words)
		return umn_clean(w->device, watch->slot, watch->state);
	return umn_counter(w->device) == watch->counter;
}

/* Index of a page that has no frame or another one; -1 if all are the same. */
static int changed_page(const struct watch *watch, uint64_t *frames)
{
	size_t i;

	see_frames(watch, frames);
	for (i = 0; i < watch->pages; i++) {
		/* Which the kernel gives up, as the page is pinned. */
		if (frames[i] == SWAPPED || watch->frames[i] == SWAPPED)
			figures.transient++;
		else if (frames[i] != watch->frames[i] || !frames[i])
			return i;
	}
	return -1;
}

static _Noreturn void stale(const struct watcher *w, const struct watch *watch,
			    const uint64_t *frames, int page)
{
	stress_die("volume: stale: %s, watcher %u, step %lu: page %d of %zu at "
		   "%p has frame %#lx, had %#lx; armed %s",
		   w->words ? "the word says untouched"
			    : "the counter has not moved",
		   w->id, w->step, page, watch->pages, watch->place.addr,
		   frames[page] & FRAME, watch->frames[page] & FRAME,
		   watch->quiet ? "in quiet" : "during a call");
}

/* The oracle. False: the watch was hit. */
static bool is_right(const struct watcher *w, const struct watch *watch)
{
	uint64_t frames[MOST], busy[MUTATORS + 1];
	int page = changed_page(watch, frames);

	atomic_fetch_add(stress_work, 1);
	see_busy(busy);
	if (!is_untouched(w, watch))
		return false;
	figures.right++;
	figures.pages += watch->pages;
	if (page < 0)
		return true;
	if (!watch->quiet || !frames[page] || !watch->frames[page]) {
		figures.waited++;
		wait_for_calls(busy);
		if (!is_untouched(w, watch))
			return false;
	}
	stale(w, watch, frames, page);
}

static int arm_first(const struct watcher *w, struct watch *watch,
		     unsigned int flags)
{
	const struct place *p = &watch->place;
	struct ummunotify_watch_ioctl made;
	int ret;

	if (!w->words) {
		watch->counter = umn_counter(w->device);
		return umn_register(w->device->fd, p->addr, p->size,
				    cookie_of(w, watch));
	}
	ret = umn_watch(w->device->fd, p->addr, p->size, cookie_of(w, watch),
			flags, &made);
	watch->slot = made.slot;
	watch->state = made.state;
	return ret;
}

static int arm_again(const struct watcher *w, struct watch *watch)
{
	struct ummunotify_rearm_ioctl rearm;
	int ret;

	if (!w->words) {
		ret = umn_drain(w->device->fd, NULL, 0, &watch->counter);
		return ret < 0 ? ret : 0;
	}
	ret = umn_rearm(w->device->fd, cookie_of(w, watch), &rearm);
	watch->state = rearm.state;
	return ret;
}

static void unpin(struct watch *watch)
{
	if (watch->mr)
		MUST(!ibv_dereg_mr(watch->mr));
	watch->mr = NULL;
}

static void forget(const struct watcher *w, struct watch *watch)
{
	unpin(watch);
	if (watch->made)
		MUST(!umn_unregister(w->device->fd, cookie_of(w, watch)));
	watch->made = false;
}

/* 0 or why it is not watched or not pinned. */
static int watch_and_pin(const struct watcher *w, struct watch *watch,
			 struct dice *dice)
{
	uint64_t before[MUTATORS + 1], after[MUTATORS + 1];
	int ret;

	see_busy(before);
	if (watch->made) {
		ret = arm_again(w, watch);
		figures.again++;
	} else {
		ret = arm_first(w, watch,
				dice_below(dice, 2) ? UMMUNOTIFY_WATCH_CACHEABLE
						    : 0);
		if (ret == -EOPNOTSUPP)
			return ret;
		watch->made = true;
	}
	MUST(!ret);
	figures.armed++;
	see_busy(after);
	watch->quiet = !memcmp(before, after, sizeof(after)) &&
		       !is_busy_in(after, watch->place.arena);

	watch->mr =
		ibv_reg_mr(pd, watch->place.addr, watch->place.size,
			   dice_below(dice, 2) ? IBV_ACCESS_LOCAL_WRITE : 0);
	if (!watch->mr)
		return -errno;
	see_frames(watch, watch->frames);
	return 0;
}

/* Watch, pin, look. False: what was pinned is not known, or nothing was. */
static bool begin(const struct watcher *w, struct watch *watch,
		  struct dice *dice)
{
	int ret = watch_and_pin(w, watch, dice);

	if (ret) {
		MUST(ret == -EOPNOTSUPP || is_refusal(ret));
		figures.unpinned++;
		forget(w, watch);
		return false;
	}
	figures.quiet += watch->quiet;
	if (is_right(w, watch))
		return true;
	unpin(watch);
	return false;
}

static void set_place(struct watch *watch, const struct place *place)
{
	watch->place = *place;
	if (watch->place.size > MOST * PAGE)
		watch->place.size = MOST * PAGE;
	watch->pages = watch->place.size / PAGE;
}

/* Soon, or not at all. */
static void wait_for_change(unsigned int index)
{
	uint64_t busy[MUTATORS + 1];
	int i;

	for (i = 0; i < 200; i++) {
		see_busy(busy);
		if (is_busy_in(busy, index))
			break;
		sched_yield();
	}
}

static void step(struct watcher *w, struct dice *dice)
{
	unsigned int index = dice_below(dice, w->words ? EACH : 1);
	struct watch *watch = &w->watches[index];
	bool drop = !dice_below(dice, 4), again = dice_below(dice, 4);
	bool during = dice_below(dice, 2);
	struct place place = some_place(dice);

	if (watch->mr) {
		bool right = is_right(w, watch);

		if (right && !drop)
			return;
		figures.hit += !right;
		unpin(watch);
	}
	if (drop || !again)
		forget(w, watch);
	if (!watch->made)
		set_place(watch, &place);
	if (during)
		wait_for_change(watch->place.arena);
	begin(w, watch, dice);
}

static void *watcher_main(void *argument)
{
	struct watcher *w = argument;
	unsigned int i;
	int got;

	for (w->step = 0; !world->stop; w->step++) {
		struct dice dice = dice_for(DICE_VOLUME + w->id, w->step);

		step(w, &dice);
		if (w->words && !dice_below(&dice, 16)) {
			got = umn_drain(w->device->fd, NULL, 0, NULL);
			MUST(got >= 0);
			figures.events += got;
		}
		/* The others have two processors. */
		stress_nap(&dice, 500);
	}
	for (i = 0; i < EACH; i++)
		forget(w, &w->watches[i]);
	return NULL;
}

/* --- those who change ---------------------------------------------------------- */

static void *mutator_main(void *argument)
{
	struct watcher *w = argument;
	unsigned int who = w->id - WATCHERS;
	struct watch *watch = w->watches;
	pid_t child = 0;

	for (; !world->stop; w->step++) {
		struct dice dice = dice_for(DICE_VOLUME + w->id, w->step);
		unsigned int kind = dice_below(&dice, COUNT(changes));
		struct place place = some_place(&dice);

		/* It takes long, and now and then is enough. */
		if (changes[kind].make == fork_and_write &&
		    dice_below(&dice, 4))
			continue;
		place.scratch = arena(ARENAS + who);
		place.child = &child;
		set_place(watch, &place);
		begin(w, watch, &dice);
		change(who, &changes[kind], &place, &world->done[kind]);
		if (watch->mr) {
			figures.own++;
			figures.hit += !is_right(w, watch);
		}
		forget(w, watch);
		memop_unmap(place.scratch, SIZE);
		if (dice_below(&dice, 4))
			populate(place.addr, place.size);
	}
	if (child > 0)
		MUST(child_result(child) == 0);
	return NULL;
}

static void other_main(void *argument)
{
	uint64_t step;

	(void)argument;
	for (step = 0; !world->stop; step++) {
		struct dice dice = dice_for(DICE_VOLUME + 10, step);
		unsigned int kind = dice_below(&dice, COUNT(by_other));
		struct place place = some_place(&dice);

		if (by_other[kind].make != compact || !dice_below(&dice, 64))
			change(OTHER, &by_other[kind], &place,
			       &world->done[COUNT(changes) + kind]);
		stress_nap(&dice, 3000);
	}
	_exit(0);
}

/* --- a run --------------------------------------------------------------------- */

static void make_world(void)
{
	unsigned int i;

	world = mmap(NULL, sizeof(*world), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	MUST(world != MAP_FAILED);
	for (i = 0; i < ARENAS; i++) {
		struct place whole = {
			.arena = i, .addr = arena(i), .size = SIZE};

		whole.fd = memop_memfd(SIZE, 0);
		MUST(whole.fd >= 0);
		MUST(!map_usual(&whole));
		MUST(!pages_populate(whole.addr, SIZE));
		world->files[i] = whole.fd;
	}
	pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	MUST(pagemap >= 0);
}

static uint64_t hits(void)
{
	uint64_t sum = 0;
	unsigned int i;

	for (i = 0; i < DEVICES; i++)
		sum += umn_counter(&devices[i]);
	return sum;
}

static uint64_t late_hits(void)
{
	uint64_t sum = 0;
	unsigned int i;

	for (i = 0; i < DEVICES; i++)
		sum += umn_fdinfo(devices[i].fd, "ummunotify-late");
	return sum;
}

static const struct change *kind_of(unsigned int index)
{
	return index < COUNT(changes) ? &changes[index]
				      : &by_other[index - COUNT(changes)];
}

static bool is_due(const struct change *kind)
{
	return !kind->optional && (!kind->needs || !access(kind->needs, F_OK));
}

static bool is_enough(const void *unused)
{
	unsigned int i;

	(void)unused;
	for (i = 0; i < COUNT(changes) + COUNT(by_other); i++)
		if (!world->done[i] && is_due(kind_of(i)))
			return false;
	return figures.right > 1000 && figures.quiet > 100 &&
	       figures.own > 100 && figures.hit && figures.events &&
	       late_hits();
}

static void report(void)
{
	uint64_t sum = 0;
	unsigned int i;

	for (i = 0; i < COUNT(changes) + COUNT(by_other); i++)
		sum += world->done[i];
	printf("# volume: %lu changes (%lu refused):", sum, world->refused);
	for (i = 0; i < COUNT(changes) + COUNT(by_other); i++)
		printf("%s %s %lu", i ? "," : "", kind_of(i)->name,
		       world->done[i]);
	printf("\n# volume: armed %lu times (%lu again, %lu in quiet, %lu not "
	       "pinned), %lu times right (%lu pages), %lu times hit, %lu looks "
	       "right after a change; %lu invalidations, %lu of them at their "
	       "end; %lu reports; waited for a call %lu times, %lu pages under "
	       "migration; 0 stale\n",
	       figures.armed, figures.again, figures.quiet, figures.unpinned,
	       figures.right, figures.pages, figures.hit, figures.own, hits(),
	       late_hits(), figures.events, figures.waited, figures.transient);
	fflush(stdout); /* for who asks what was not enough */
}

void volume_run(double seconds)
{
	static struct watcher watchers[WATCHERS + MUTATORS];
	pthread_t threads[WATCHERS + MUTATORS];
	struct rdma wire;
	unsigned int i;
	pid_t other;

	make_world();
	other = stress_fork(other_main, NULL);
	for (i = 0; i < DEVICES; i++)
		MUST(!umn_start(&devices[i], i ? UMN_ALL : 0));
	MUST(!rdma_open(&wire, PAGE));
	pd = wire.pd;
	for (i = 0; i < WATCHERS + MUTATORS; i++) {
		watchers[i].id = i;
		watchers[i].words = i;
		watchers[i].device = &devices[(i + 1) / 2];
		MUST(!pthread_create(&threads[i], NULL,
				     i < WATCHERS ? watcher_main : mutator_main,
				     &watchers[i]));
	}
	stress_wait(seconds, is_enough, NULL);
	world->stop = true;
	for (i = 0; i < WATCHERS + MUTATORS; i++)
		MUST(!pthread_join(threads[i], NULL));
	MUST(child_result(other) == 0);
	report();
	MUST(is_enough(NULL));
	for (i = 0; i < DEVICES; i++) {
		MUST(!umn_fdinfo(devices[i].fd, "ummunotify-watches"));
		umn_stop(&devices[i]);
	}
	MUST(!rdma_close(&wire));
}
