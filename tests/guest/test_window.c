/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The in-flight window: a watch armed while an invalidation of its range is
 * under way, after its start and before its end, is hit when it ends.
 *
 * No help from the kernel is needed to get into the window. An invalidation of
 * a large range takes long. Its start makes the watch on the first page dirty;
 * the last page is cleared last. So a watch on the last page is armed as soon
 * as the first is dirty, and if the last page is still in the page tables
 * after that, the end of the invalidation must be yet to come. Such a round is
 * conclusive; others prove nothing and are tried again.
 *
 * Rounds are run in turns on two processors, where both really run at once, and
 * on one, where the invalidation is idle work: it makes way in its middle, for as
 * long as it takes to look and to arm, however busy the machine is.
 */
#include "case.h"
#include "support.h"
#include "umn.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* How large the range is: it grows when the window is missed. */
#define LEAST_BYTES (8UL << 20)
#define MOST_BYTES  (128UL << 20)
#define PATIENCE    2 /* rounds in vain before it grows */

#define WANTED	 3   /* conclusive rounds */
#define ATTEMPTS 100 /* at most, to get them */

enum cookie { FIRST = 1, LAST, OUTSIDE, INSIDE, MANY };

/* A walk over so many lets go of the lock again and again. */
#define CROWD  50000
#define ORDERS 1000 /* of them are armed in one call */

/* What is done to the large range, and by whom. */
enum operation { DISCARD, UNMAP, PUNCH };

/* How the watch on its last page is armed in the window. */
enum arming { WATCH, REARM, REGISTER, READ };

struct variant {
	enum operation operation;
	enum arming arming;
};

/* In memory that the process which punches holes shares. */
struct job {
	enum operation operation;
	char *base;
	size_t bytes;
	int file;
	int commands[2];
	_Atomic pid_t who;
	_Atomic int done; /* how many calls have returned */
	_Atomic int failed;
};

struct scene {
	struct umn u;
	const struct variant *variant;
	struct job *job;
	pthread_t thread;
	pid_t child;
	int pagemap;
	int rounds;
	int in_vain;
	bool one_processor;
	char *outside; /* two pages apart from the range */
	struct ummunotify_watch_ioctl first;
};

static int perform(const struct job *job)
{
	switch (job->operation) {
	case DISCARD:
		return madvise(job->base, job->bytes, MADV_DONTNEED);
	case UNMAP:
		return munmap(job->base, job->bytes);
	case PUNCH:
		return fallocate(job->file,
				 FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
				 job->bytes);
	}
	return -1;
}

static int serve(struct job *job)
{
	char byte;

	job->who = gettid();
	while (get_byte(job->commands[0], &byte)) {
		if (perform(job))
			job->failed = errno;
		job->done++;
	}
	return 0;
}

static void *serve_in_thread(void *argument)
{
	serve(argument);
	return NULL;
}

/* Both on one processor, where the invalidation makes way; or anywhere. */
static void take_processors(struct scene *s, bool one)
{
	const struct sched_param none = {};
	cpu_set_t set;
	int i;

	while (!s->job->who)
		usleep(100);
	CPU_ZERO(&set);
	for (i = 0; i < (one ? 1 : CPU_SETSIZE); i++)
		CPU_SET(i, &set);
	assert_int_equal(sched_setaffinity(0, sizeof(set), &set), 0);
	assert_int_equal(sched_setaffinity(s->job->who, sizeof(set), &set), 0);
	assert_int_equal(sched_setscheduler(s->job->who,
					    one ? SCHED_IDLE : SCHED_OTHER,
					    &none),
			 0);
	s->one_processor = one;
}

/* Lets the invalidation run, if it cannot otherwise. */
static void let_run(const struct scene *s)
{
	if (s->one_processor)
		usleep(50);
	else
		sched_yield();
}

static int map_range(struct scene *s)
{
	const bool file = s->job->operation == PUNCH;
	char *p = mmap(s->job->base, s->job->bytes, PROT_READ | PROT_WRITE,
		       (file ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS) |
			       (s->job->base ? MAP_FIXED : 0),
		       file ? s->job->file : -1, 0);

	if (p == MAP_FAILED)
		return -errno;
	s->job->base = p;
	madvise(p, s->job->bytes, MADV_NOHUGEPAGE);
	return 0;
}

static int set_up(struct scene *s, const struct variant *variant)
{
	int ret;

	memset(s, 0, sizeof(*s));
	s->variant = variant;
	s->job = mmap(NULL, sizeof(*s->job), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (s->job == MAP_FAILED || pipe2(s->job->commands, O_CLOEXEC))
		return -errno;
	s->job->operation = variant->operation;
	s->job->bytes = LEAST_BYTES;
	s->job->file = memfd_create("window", MFD_CLOEXEC);
	if (s->job->file < 0 || ftruncate(s->job->file, MOST_BYTES))
		return -errno;
	if (variant->operation == PUNCH) {
		s->child = fork();
		if (s->child < 0)
			return -errno;
		if (!s->child) {
			close(s->job->commands[1]);
			_exit(serve(s->job));
		}
	} else if (pthread_create(&s->thread, NULL, serve_in_thread, s->job)) {
		return -EAGAIN;
	}
	s->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	s->outside = pages_map(2);
	if (s->pagemap < 0 || !s->outside)
		return -ENOMEM;
	ret = umn_start(&s->u, UMN_ALL);
	return ret ? ret : map_range(s);
}

static int tear_down(struct scene *s)
{
	close(s->job->commands[1]);
	if (s->child) {
		if (child_result(s->child))
			return -ECHILD;
	} else {
		pthread_join(s->thread, NULL);
	}
	umn_stop(&s->u);
	munmap(s->job->base, s->job->bytes);
	pages_unmap(s->outside, 2);
	close(s->pagemap);
	close(s->job->file);
	close(s->job->commands[0]);
	munmap(s->job, sizeof(*s->job));
	return 0;
}

/* A longer invalidation is easier to get into. */
static void grow(struct scene *s)
{
	if (s->job->bytes == MOST_BYTES)
		return;
	munmap(s->job->base, s->job->bytes);
	s->job->base = NULL;
	s->job->bytes *= 2;
	assert_int_equal(map_range(s), 0);
}

/* What to do after a round that was in the window, or was not. */
static void learn(struct scene *s, bool conclusive)
{
	s->in_vain = conclusive ? 0 : s->in_vain + 1;
	if (s->in_vain == PATIENCE) {
		s->in_vain = 0;
		grow(s);
	}
}

static char *last_page(const struct scene *s)
{
	return s->job->base + s->job->bytes - PAGE;
}

static sigjmp_buf escape;

static void on_fault(int number)
{
	(void)number;
	siglongjmp(escape, 1);
}

/*
 * The last page is still in the page tables. While munmap runs, pagemap does
 * not show what it has already taken out of the list of mappings; but nobody
 * has touched the page from user space, so only the page tables can answer.
 */
static bool last_page_present(struct scene *s)
{
	const struct sigaction action = {.sa_handler = on_fault};
	struct sigaction old;
	volatile bool present = false;

	if (s->job->operation != UNMAP)
		return page_present(s->pagemap, last_page(s));
	sigaction(SIGSEGV, &action, &old);
	if (!sigsetjmp(escape, 1)) {
		(void)*(volatile char *)last_page(s);
		present = true;
	}
	sigaction(SIGSEGV, &old, NULL);
	return present;
}

/* Fills the range and makes the watches that are made before the window. */
static void prepare(struct scene *s)
{
	struct ummunotify_watch_ioctl w;

	if (s->job->operation == UNMAP && s->rounds)
		assert_int_equal(map_range(s), 0);
	s->rounds++;
	assert_int_equal(pages_populate(s->job->base, s->job->bytes), 0);
	assert_int_equal(umn_drain(s->u.fd, NULL, 0, NULL), 0);
	assert_int_equal(
		umn_watch(s->u.fd, s->job->base, PAGE, FIRST, 0, &s->first), 0);
	assert_true(umn_clean(&s->u, s->first.slot, s->first.state));
	if (s->variant->arming == REARM)
		assert_int_equal(
			umn_watch(s->u.fd, last_page(s), PAGE, LAST, 0, &w), 0);
	else if (s->variant->arming == READ)
		assert_int_equal(
			umn_register(s->u.fd, last_page(s), PAGE, LAST), 0);
	assert_int_equal(umn_drain(s->u.fd, NULL, 0, NULL), 0);
}

static void wait_for_start(struct scene *s, int done)
{
	assert_true(put_byte(s->job->commands[1], 'x'));
	/* A call that has returned has told: so look at `done` first. */
	for (;;) {
		bool returned = s->job->done != done;

		if (!umn_clean(&s->u, s->first.slot, s->first.state))
			return;
		assert_false(returned);
		if (s->one_processor)
			let_run(s);
	}
}

static void wait_for_end(const struct scene *s, int done)
{
	while (s->job->done == done)
		let_run(s);
}

static int find(const struct ummunotify_event *events, int count,
		uint64_t cookie)
{
	int i, found = 0;

	for (i = 0; i < count; i++)
		found += events[i].user_cookie_counter == cookie;
	return found;
}

/* One round; whether it was conclusive. */
static bool try_once(struct scene *s)
{
	const int done = s->job->done;
	const bool words =
		s->variant->arming == WATCH || s->variant->arming == REARM;
	const uint32_t kind = s->job->operation == UNMAP
				      ? UMMUNOTIFY_KIND_UNMAP
				      : UMMUNOTIFY_KIND_CLEAR;
	struct ummunotify_rearm_ioctl rearm = {};
	struct ummunotify_watch_ioctl w = {}, outside;
	struct ummunotify_event e[8];
	uint32_t state = 0, slot = 0;
	uint64_t before, last = 0;
	bool conclusive;
	int got, ret = 0;

	prepare(s);
	wait_for_start(s, done);

	switch (s->variant->arming) {
	case WATCH:
		ret = umn_watch(s->u.fd, last_page(s), PAGE, LAST, 0, &w);
		slot = w.slot;
		state = w.state;
		break;
	case REARM:
		ret = umn_rearm(s->u.fd, LAST, &rearm);
		slot = rearm.slot;
		state = rearm.state;
		break;
	case REGISTER:
		ret = umn_register(s->u.fd, last_page(s), PAGE, LAST);
		break;
	case READ:
		got = umn_read(s->u.fd, e, 8);
		ret = got == 3 && find(e, 2, LAST) == 1 &&
				      find(e, 2, FIRST) == 1
			      ? 0
			      : -EPROTO;
		break;
	}
	before = umn_counter(&s->u);
	conclusive = last_page_present(s);
	assert_int_equal(ret, 0);
	if (words)
		assert_int_equal(state & (UMMUNOTIFY_STATE_KINDS |
					  UMMUNOTIFY_STATE_FREE),
				 0);
	/* Armed in the window too, but of no concern to this invalidation. */
	assert_int_equal(
		umn_watch(s->u.fd, s->outside, PAGE, OUTSIDE, 0, &outside), 0);

	wait_for_end(s, done);
	assert_int_equal(s->job->failed, 0);
	got = umn_drain(s->u.fd, e, 8, &last);
	assert_true(got >= 0);
	if (conclusive) {
		if (words)
			assert_int_equal(umn_word(&s->u, slot), state | kind);
		assert_int_equal(umn_counter(&s->u), before + 1);
		assert_int_equal(find(e, got, LAST), 1);
		assert_int_equal(last, before + 1);
	}

	/* The window is over: an ordinary hit counts once, a miss not at all. */
	assert_true(umn_clean(&s->u, outside.slot, outside.state));
	assert_int_equal(find(e, got, OUTSIDE), 0);
	before = umn_counter(&s->u);
	assert_int_equal(madvise(s->outside + PAGE, PAGE, MADV_DONTNEED), 0);
	assert_true(umn_clean(&s->u, outside.slot, outside.state));
	assert_int_equal(umn_counter(&s->u), before);
	assert_int_equal(madvise(s->outside, PAGE, MADV_DONTNEED), 0);
	assert_false(umn_clean(&s->u, outside.slot, outside.state));
	assert_int_equal(umn_counter(&s->u), before + 1);
	assert_int_equal(umn_drain(s->u.fd, NULL, 0, NULL), 1);

	assert_int_equal(umn_unregister(s->u.fd, FIRST), 0);
	assert_int_equal(umn_unregister(s->u.fd, LAST), 0);
	assert_int_equal(umn_unregister(s->u.fd, OUTSIDE), 0);
	return conclusive;
}

static void armed_in_the_window(void **state)
{
	struct scene s;
	int hits = 0, attempts;
	bool conclusive;

	assert_int_equal(set_up(&s, *state), 0);
	for (attempts = 0; hits < WANTED && attempts < ATTEMPTS; attempts++) {
		take_processors(&s, attempts % 2);
		conclusive = try_once(&s);
		learn(&s, conclusive);
		hits += conclusive;
	}
	print_message("# %d of %d attempts were in the window\n", hits,
		      attempts);
	assert_int_equal(hits, WANTED);
	assert_true(umn_fdinfo(s.u.fd, "ummunotify-late") >= WANTED);
	assert_int_equal(tear_down(&s), 0);
}

/*
 * A short invalidation that begins and ends inside the window of another is
 * reported at its start; its end says nothing new to a watch armed before it.
 */
CASE(a_short_one_inside_counts_once)
{
	static const struct variant variant = {DISCARD, WATCH};
	struct ummunotify_watch_ioctl w;
	struct scene s;
	int hits = 0, attempts, done;
	uint64_t before;
	bool conclusive;

	assert_int_equal(set_up(&s, &variant), 0);
	for (attempts = 0; hits < WANTED && attempts < ATTEMPTS; attempts++) {
		done = s.job->done;
		take_processors(&s, attempts % 2);
		prepare(&s);
		wait_for_start(&s, done);
		assert_int_equal(
			umn_watch(s.u.fd, s.outside, PAGE, INSIDE, 0, &w), 0);
		assert_true(umn_clean(&s.u, w.slot, w.state));
		before = umn_counter(&s.u);
		assert_int_equal(madvise(s.outside, PAGE, MADV_DONTNEED), 0);
		conclusive = last_page_present(&s);
		wait_for_end(&s, done);
		assert_int_equal(umn_word(&s.u, w.slot),
				 w.state | UMMUNOTIFY_KIND_CLEAR);
		assert_int_equal(umn_counter(&s.u), before + 1);
		assert_int_equal(umn_drain(s.u.fd, NULL, 0, NULL), 2);
		assert_int_equal(umn_unregister(s.u.fd, FIRST), 0);
		assert_int_equal(umn_unregister(s.u.fd, INSIDE), 0);
		learn(&s, conclusive);
		hits += conclusive;
	}
	assert_int_equal(hits, WANTED);
	assert_int_equal(tear_down(&s), 0);
}

/* ---- long walks ---------------------------------------------------------- */

/* CROWD watches on the last page, which come after the first in a walk. */
static void crowd(struct scene *s)
{
	struct ummunotify_watch_ioctl w;
	int i;

	for (i = 0; i < CROWD; i++)
		assert_int_equal(
			umn_watch(s->u.fd, last_page(s), PAGE, MANY + i, 0, &w),
			0);
}

static void arm_crowd(struct scene *s)
{
	static struct ummunotify_arm orders[ORDERS];
	int i, j;

	for (i = 0; i < CROWD; i += ORDERS) {
		for (j = 0; j < ORDERS; j++)
			orders[j] =
				umn_order(MANY + i + j, last_page(s), PAGE, 0);
		assert_int_equal(umn_arm_many(s->u.fd, orders, ORDERS), ORDERS);
	}
}

static long pending(struct scene *s)
{
	return umn_fdinfo(s->u.fd, "ummunotify-pending");
}

/*
 * While one invalidation goes over many watches others get the lock: they see
 * that some were hit and others not yet. And whoever's own invalidation hits
 * what was told so sees the counter moved when it returns.
 */
CASE(a_long_walk_lets_go)
{
	static const struct variant variant = {DISCARD, WATCH};
	struct scene s;
	bool seen = false, early = false;
	int attempts, done;
	uint64_t before;
	long now, partly;

	assert_int_equal(set_up(&s, &variant), 0);
	crowd(&s);
	/* Either can be seen only if the lock is let go of: once will do. */
	for (attempts = 0; !(seen && early) && attempts < ATTEMPTS;
	     attempts++) {
		done = s.job->done;
		arm_crowd(&s);
		prepare(&s);
		before = umn_counter(&s.u);
		wait_for_start(&s, done);
		partly = pending(&s);
		seen |= partly > 0 && partly < CROWD + 1;

		assert_int_equal(madvise(s.job->base, PAGE, MADV_DONTNEED), 0);
		now = pending(&s);
		assert_true(umn_counter(&s.u) > before);
		early |= now < CROWD + 1;

		wait_for_end(&s, done);
		assert_int_equal(pending(&s), CROWD + 1);
		assert_int_equal(umn_drain(s.u.fd, NULL, 0, NULL), CROWD + 1);
		assert_int_equal(umn_unregister(s.u.fd, FIRST), 0);
	}
	print_message("# %d attempts\n", attempts);
	assert_true(seen);
	assert_true(early);
	assert_int_equal(tear_down(&s), 0);
}

/*
 * A reader waits for a walk, which tells all that it hits before anything is read:
 * else LAST could say that nothing is pending while there is more to come.
 */
CASE(a_reader_beside_a_long_walk)
{
	static const struct variant variant = {DISCARD, WATCH};
	enum { SOME = 8 };
	struct ummunotify_event events[SOME];
	struct scene s;
	int attempts, done;
	bool hit = false;
	long partly;

	assert_int_equal(set_up(&s, &variant), 0);
	crowd(&s);
	for (attempts = 0; !hit && attempts < ATTEMPTS; attempts++) {
		done = s.job->done;
		arm_crowd(&s);
		prepare(&s);
		wait_for_start(&s, done);
		partly = pending(&s);
		assert_int_equal(umn_read(s.u.fd, events, SOME), SOME);
		assert_int_equal(pending(&s), CROWD + 1 - SOME);
		hit = partly > 0 && partly < CROWD + 1;
		wait_for_end(&s, done);
		assert_int_equal(umn_drain(s.u.fd, NULL, 0, NULL),
				 CROWD + 1 - SOME);
		assert_int_equal(umn_unregister(s.u.fd, FIRST), 0);
	}
	print_message("# %d attempts\n", attempts);
	assert_true(hit);
	assert_int_equal(tear_down(&s), 0);
}

/* What is armed while a walk goes on, behind it, is hit when the call ends. */
CASE(armed_behind_a_long_walk)
{
	static const struct variant variant = {DISCARD, WATCH};
	struct ummunotify_rearm_ioctl r;
	struct scene s;
	int hits = 0, attempts, done;
	bool conclusive;

	assert_int_equal(set_up(&s, &variant), 0);
	crowd(&s);
	for (attempts = 0; hits < WANTED && attempts < ATTEMPTS; attempts++) {
		done = s.job->done;
		arm_crowd(&s);
		prepare(&s);
		wait_for_start(&s, done);
		assert_int_equal(umn_rearm(s.u.fd, FIRST, &r), 0);
		conclusive = last_page_present(&s);
		wait_for_end(&s, done);
		if (conclusive)
			assert_int_equal(umn_word(&s.u, r.slot),
					 r.state | UMMUNOTIFY_KIND_CLEAR);
		assert_true(umn_drain(s.u.fd, NULL, 0, NULL) >= CROWD);
		assert_int_equal(umn_unregister(s.u.fd, FIRST), 0);
		hits += conclusive;
	}
	assert_int_equal(hits, WANTED);
	assert_int_equal(tear_down(&s), 0);
}

/* With nothing under way, what is armed stays clean. */
CASE(armed_outside_any_window)
{
	struct ummunotify_watch_ioctl w;
	struct ummunotify_rearm_ioctl r;
	struct umn u;
	char *p;
	int i;

	assert_int_equal(umn_start(&u, UMN_ALL), 0);
	for (i = 1; i <= 200; i++) {
		p = pages_map(1);
		assert_non_null(p);
		assert_int_equal(pages_unmap(p, 1), 0);
		p = pages_map(1);
		assert_non_null(p);
		assert_int_equal(umn_watch(u.fd, p, PAGE, 1, 0, &w), 0);
		assert_int_equal(umn_register(u.fd, p, PAGE, 2), 0);
		assert_true(umn_clean(&u, w.slot, w.state));
		assert_int_equal(umn_rearm(u.fd, 1, &r), 0);
		assert_true(umn_clean(&u, r.slot, r.state));
		assert_int_equal(umn_drain(u.fd, NULL, 0, NULL), 0);
		assert_int_equal(pages_unmap(p, 1), 0);
		assert_int_equal(umn_counter(&u), i);
		assert_int_equal(umn_drain(u.fd, NULL, 0, NULL), 2);
		assert_int_equal(umn_unregister(u.fd, 1), 0);
		assert_int_equal(umn_unregister(u.fd, 2), 0);
	}
	assert_int_equal(umn_fdinfo(u.fd, "ummunotify-late"), 0);
	umn_stop(&u);
}

#define VARIANT(what, how)                                       \
	{                                                        \
#what "_" #how, armed_in_the_window, NULL, NULL, \
			&(struct variant)                        \
		{                                                \
			what, how                                \
		}                                                \
	}

static const struct CMUnitTest variants[] = {
	VARIANT(DISCARD, WATCH),    VARIANT(DISCARD, REARM),
	VARIANT(DISCARD, REGISTER), VARIANT(DISCARD, READ),
	VARIANT(UNMAP, WATCH),	    VARIANT(UNMAP, REARM),
	VARIANT(UNMAP, REGISTER),   VARIANT(UNMAP, READ),
	VARIANT(PUNCH, WATCH),	    VARIANT(PUNCH, REARM),
	VARIANT(PUNCH, REGISTER),   VARIANT(PUNCH, READ),
};
CASES(variants);

int main(void)
{
	return run_cases(NULL, NULL);
}
