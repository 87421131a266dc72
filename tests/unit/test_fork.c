/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A child after fork, however it was made: its calls pass through, none of them
 * touches what is the parent's, and the parent notices nothing.
 */
#define _GNU_SOURCE
#include "unit.h"

#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* A child that hangs is killed, which is a failure. */
#define CHILD_SECONDS 10

/* In a child: ends it, and says where. */
#define child_assert(condition)                                             \
	do {                                                                \
		if (!(condition)) {                                         \
			fprintf(stderr, "# child, line %d: %s\n", __LINE__, \
				#condition);                                \
			_exit(1);                                           \
		}                                                           \
	} while (0)

typedef pid_t fork_fn(void);

/* Without what pthread_atfork() has set up. */
static pid_t raw_fork(void)
{
	return (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

static pid_t start_child(fork_fn *how, void (*child)(void *arg), void *arg)
{
	pid_t pid = how();

	if (!pid) {
		alarm(patience(CHILD_SECONDS));
		child(arg);
		_exit(0);
	}
	return pid;
}

static int wait_child(pid_t pid)
{
	int status = -1;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

static void nothing(void *arg)
{
	(void)arg;
}

static void in_child(fork_fn *how, void (*child)(void *arg), void *arg)
{
	pid_t pid = start_child(how, child, arg);

	assert_true(pid > 0);
	assert_int_equal(wait_child(pid), 0);
}

static fork_fn *const ways[] = {fork, raw_fork};
#define WAYS 2
/* ThreadSanitizer takes the parent's threads for the child's, but for fork(). */
#ifdef __SANITIZE_THREAD__
#define WAYS_BESIDE_THREADS 1
#else
#define WAYS_BESIDE_THREADS WAYS
#endif

/* ---- what a child sees ------------------------------------------------------------ */

struct family {
	struct scene s;
	struct ibv_mr *held, *idle, *uncached, *stale;
};

static void begin_family(struct family *f, unsigned int flags)
{
	begin(&f->s, flags);
	f->stale = reg(&f->s, 3, 1);
	fake_change(page(3), 1);
	f->held = reg(&f->s, 0, 1);
	f->idle = reg(&f->s, 1, 1);
	give(&f->s, f->idle);
	f->uncached = mrcache_reg_mr(f->s.cache, f->s.pd, page(2), PAGE,
				     IBV_ACCESS_MW_BIND);
	assert_non_null(f->uncached);
}

static void finish_family(struct family *f)
{
	unsigned int calls = fake_all_calls();

	assert_true(fake_is_registered(f->held));
	assert_true(fake_is_registered(f->uncached));
	assert_true(fake_is_registered(f->stale));
	assert_true(mrcache_valid(f->s.cache, f->held));
	assert_false(mrcache_valid(f->s.cache, f->stale));
	assert_ptr_equal(reg(&f->s, 0, 1), f->held);
	assert_ptr_equal(reg(&f->s, 1, 1), f->idle);
	assert_int_equal(fake_all_calls(), calls);
	assert_int_equal(bypasses(&f->s), 1);
	give(&f->s, f->idle);
	give(&f->s, f->held);
	give(&f->s, f->held);
	give(&f->s, f->uncached);
	give(&f->s, f->stale);
	finish(&f->s);
}

static void use_as_a_child(void *arg)
{
	struct family *f = arg;
	struct mrcache *cache = f->s.cache;
	unsigned int monitor = fake_monitor_calls(),
		     deregs = fake_calls(FAKE_DEREG);
	unsigned int regs = fake_calls(FAKE_REG);
	size_t registered = fake_registered(NULL);
	struct mrcache_stats st;
	struct ibv_mr *mr;

	child_assert(!mrcache_valid(cache, f->held));
	child_assert(!mrcache_valid(cache, f->uncached));
	child_assert(!mrcache_valid_slow(cache, f->held));
	for (size_t n = 0; n < 4; n++) {
		mr = mrcache_reg_mr(cache, f->s.pd, page(n), PAGE, LOCAL);
		child_assert(mr);
		child_assert(mr != f->held && mr != f->idle);
		child_assert(fake_calls(FAKE_REG) == regs + n + 1);
		child_assert(fake_registered(NULL) == registered + 1);
		child_assert(mrcache_dereg_mr(cache, mr) == 0);
		child_assert(fake_calls(FAKE_DEREG) == deregs + n + 1);
		child_assert(fake_registered(NULL) == registered);
	}
	/* What the parent holds is not the child's to give back. */
	for (int again = 0; again < 2; again++) {
		child_assert(mrcache_dereg_mr(cache, f->held) == 0);
		child_assert(mrcache_dereg_mr(cache, f->uncached) == 0);
		child_assert(mrcache_dereg_mr(cache, f->stale) == 0);
	}
	child_assert(mrcache_flush(cache, NULL) == 0);
	child_assert(mrcache_invalidate(cache, page(0), 8 * PAGE) == 0);
	child_assert(mrcache_get_stats(cache, &st, sizeof(st)) == 0);
	child_assert(st.bypass[MRCACHE_BYPASS_FORK] == 4);
	/* Errors are as always. */
	child_assert(!mrcache_reg_mr(cache, NULL, page(0), PAGE, LOCAL));
	child_assert(errno == EINVAL);
	fake_fail(FAKE_REG, 1, 1, EFAULT);
	child_assert(!mrcache_reg_mr(cache, f->s.pd, page(0), PAGE, LOCAL));
	child_assert(errno == EFAULT);
	child_assert(fake_monitor_calls() == monitor);
	child_assert(fake_registered(NULL) == registered);
	child_assert(!fake_first_trouble());
}

static void close_as_a_child(void *arg)
{
	struct family *f = arg;
	unsigned int deregs = fake_calls(FAKE_DEREG);
	size_t registered = fake_registered(NULL);

	/* Held or not: it is not the child's. */
	child_assert(mrcache_close(f->s.cache) == 0);
	child_assert(fake_calls(FAKE_DEREG) == deregs);
	child_assert(fake_registered(NULL) == registered);
	child_assert(fake_monitors() == 0);
	child_assert(mrcache_close(f->s.cache) == -EINVAL);
	child_assert(
		!mrcache_reg_mr(f->s.cache, f->s.pd, page(0), PAGE, LOCAL));
	child_assert(!mrcache_valid(f->s.cache, f->held));
	child_assert(!fake_first_trouble());
}

static void use_and_close_as_a_child(void *arg)
{
	use_as_a_child(arg);
	close_as_a_child(arg);
}

TEST_BOTH(a_child_passes_through)
{
	for (int way = 0; way < WAYS; way++) {
		struct family f;

		begin_family(&f, flags_of(state));
		in_child(ways[way], use_as_a_child, &f);
		in_child(ways[way], close_as_a_child, &f);
		in_child(ways[way], use_and_close_as_a_child, &f);
		finish_family(&f);
	}
}

static void fork_again(void *arg)
{
	for (int way = 0; way < WAYS; way++) {
		pid_t pid =
			start_child(ways[way], use_and_close_as_a_child, arg);

		child_assert(pid > 0);
		child_assert(wait_child(pid) == 0);
	}
	use_and_close_as_a_child(arg);
}

TEST_BOTH(a_grandchild_passes_through)
{
	for (int way = 0; way < WAYS; way++) {
		struct family f;

		begin_family(&f, flags_of(state));
		in_child(ways[way], fork_again, &f);
		finish_family(&f);
	}
}

/* The child keeps what it registered over its own fork and after the close. */
static void keep_over_close(void *arg)
{
	struct family *f = arg;
	struct ibv_mr *mr =
		mrcache_reg_mr(f->s.cache, f->s.pd, page(9), PAGE, LOCAL);

	child_assert(mr);
	child_assert(mrcache_close(f->s.cache) == 0);
	child_assert(fake_is_registered(mr));
}

TEST_BOTH(what_a_child_registered_is_its_own)
{
	struct family f;

	begin_family(&f, flags_of(state));
	in_child(fork, keep_over_close, &f);
	finish_family(&f);
}

static void open_as_a_child(void *arg)
{
	struct family *f = arg;
	struct mrcache_attr attr;
	struct ibv_mr *mr, *again;
	struct scene s = {.pd = f->s.pd};

	fake_monitors_reset(); /* the parent's; what changes here is not there */
	test_attr(&attr);
	s.monitor = fake_monitor_new(FAKE_STATES);
	s.cache = mrc_open(&attr, fake_monitor_base(s.monitor), &fake_verbs);
	child_assert(s.cache && s.cache != f->s.cache);
	for (int i = 0; i < 3; i++) {
		mr = mrcache_reg_mr(s.cache, s.pd, page(0), PAGE, LOCAL);
		child_assert(mr && mr != f->held);
		child_assert(fake_serves(mr, s.pd, page(0), PAGE, LOCAL));
		child_assert(mrcache_valid(s.cache, mr));
		again = mrcache_reg_mr(s.cache, s.pd, page(0), PAGE, LOCAL);
		child_assert(again == mr);
		child_assert(mrcache_dereg_mr(s.cache, mr) == 0);
		child_assert(mrcache_dereg_mr(s.cache, mr) == 0);
		fake_change(page(0), 1);
		/* The other one still passes through beside it. */
		mr = mrcache_reg_mr(f->s.cache, s.pd, page(0), PAGE, LOCAL);
		child_assert(mr && mr != again && mr != f->held);
		child_assert(mrcache_dereg_mr(f->s.cache, mr) == 0);
	}
	child_assert(mrcache_close(s.cache) == 0);
	child_assert(!fake_first_trouble());
}

TEST_BOTH(a_child_may_have_a_cache_of_its_own)
{
	for (int way = 0; way < WAYS; way++) {
		struct family f;

		begin_family(&f, flags_of(state));
		in_child(ways[way], open_as_a_child, &f);
		finish_family(&f);
	}
}

static void fork_at(enum fake_call call, enum fake_when when, void *arg)
{
	(void)when;
	if (call == FAKE_READ || call == FAKE_CLOSE)
		return;
	fake_hook(NULL, NULL);
	in_child(fork, use_as_a_child, arg);
	fake_hook(fork_at, arg);
}

TEST_BOTH(forking_during_a_call_is_no_problem)
{
	struct family f;

	begin_family(&f, flags_of(state));
	fake_hook(fork_at, &f);
	touch(&f.s, 20, 1);
	fake_change(page(20), 1);
	touch(&f.s, 20, 1);
	mrcache_invalidate(f.s.cache, page(20), 1);
	fake_hook(NULL, NULL);
	finish_family(&f);
}

static void use_in_a_fork(void *arg)
{
	pid_t pid = start_child(fork, use_and_close_as_a_child, arg);

	child_assert(pid > 0);
	child_assert(wait_child(pid) == 0);
}

static void *fork_with_locks(void *arg)
{
	struct family *f = arg;
	pid_t pid, other;

	pthread_mutex_lock(&f->s.cache->drain_lock);
	pthread_mutex_lock(&f->s.cache->lock);
	pid = start_child(raw_fork, use_and_close_as_a_child, f);
	other = start_child(raw_fork, use_in_a_fork, f);
	pthread_mutex_unlock(&f->s.cache->lock);
	pthread_mutex_unlock(&f->s.cache->drain_lock);
	if (pid < 0 || wait_child(pid))
		fake_trouble("the child hangs or failed");
	if (other < 0 || wait_child(other))
		fake_trouble("the child that forks hangs or failed");
	return NULL;
}

/* Whoever held them when a child was made behind our back is not there. */
TEST_BOTH(a_child_needs_no_lock_of_its_parent)
{
	struct family f;

	begin_family(&f, flags_of(state));
	fork_with_locks(&f);
	/* And from a thread that the cache has not seen before. */
	in_thread(fork_with_locks, &f);
	finish_family(&f);
}

TEST_BOTH(two_caches_are_both_the_parents)
{
	struct family a, b;

	begin_family(&a, flags_of(state));
	begin_family(&b, flags_of(state));
	for (int way = 0; way < WAYS; way++) {
		in_child(ways[way], use_as_a_child, &a);
		in_child(ways[way], use_as_a_child, &b);
	}
	/* One by one: the second has one monitor less to find. */
	for (size_t n = 0; n < 2; n++) {
		assert_true(is_cached(&a.s, 1, 1));
		assert_true(is_cached(&b.s, 1, 1));
	}
	give(&b.s, b.held);
	give(&b.s, b.uncached);
	give(&b.s, b.stale);
	assert_int_equal(mrcache_close(b.s.cache), 0);
	finish_family(&a);
}

/* ---- while other threads are at it ------------------------------------------------- */

struct busy {
	struct family f;
	_Atomic bool stop;
	_Atomic unsigned int wrong;
};

static void *be_busy(void *arg)
{
	struct busy *b = arg;

	for (size_t n = 0; !atomic_load(&b->stop); n++) {
		struct ibv_mr *mr =
			mrcache_reg_mr(b->f.s.cache, b->f.s.pd,
				       page(40 + n % 16), PAGE, LOCAL);

		if (!mr || mrcache_dereg_mr(b->f.s.cache, mr))
			b->wrong++;
		if (n % 5 == 0)
			fake_change(page(40 + n % 16), 1);
		if (n % 101 == 0)
			mrcache_flush(b->f.s.cache, fake_pd(7));
		sched_yield();
	}
	return NULL;
}

/* What other threads are just doing makes counts uncertain here. */
static void use_beside_others(void *arg)
{
	struct busy *b = arg;
	struct mrcache *cache = b->f.s.cache;
	struct ibv_mr *mr;

	for (size_t n = 0; n < 60; n++) {
		mr = mrcache_reg_mr(cache, b->f.s.pd, page(n), PAGE, LOCAL);
		child_assert(mr && mr != b->f.held && mr != b->f.idle);
		child_assert(mrcache_dereg_mr(cache, mr) == 0);
		child_assert(!fake_is_registered(mr));
	}
	child_assert(mrcache_dereg_mr(cache, b->f.held) == 0);
	child_assert(fake_is_registered(b->f.held));
	child_assert(mrcache_flush(cache, NULL) == 0);
	child_assert(mrcache_close(cache) == 0);
	child_assert(fake_is_registered(b->f.held));
	child_assert(!fake_first_trouble());
}

TEST_BOTH(forking_beside_threads_is_no_problem)
{
	enum { THREADS = 3 };
	struct busy b = {.stop = false};
	pthread_t threads[THREADS];

#ifdef __SANITIZE_ADDRESS__
	print_message("# SKIP: AddressSanitizer's allocator is not held over "
		      "a fork (GCC 12); a child may wait for it for ever\n");
	skip();
#endif
	begin(&b.f.s, flags_of(state));
	b.f.held = reg(&b.f.s, 0, 1);
	b.f.idle = reg(&b.f.s, 1, 1);
	give(&b.f.s, b.f.idle);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, be_busy, &b),
				 0);
	for (int i = 0; i < (SANITIZED ? 10 : 50); i++) {
		pid_t pid = start_child(fork, use_beside_others, &b);

		if (pid < 0 || wait_child(pid) != 0)
			b.wrong++;
	}
	atomic_store(&b.stop, true);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(b.wrong, 0);
	assert_true(is_cached(&b.f.s, 1, 1));
	give(&b.f.s, b.f.held);
	finish(&b.f.s);
}

TEST_BOTH(the_reaper_is_the_parents_only)
{
	struct mrcache_attr attr;
	struct family f;

	test_attr(&attr);
	attr.reaper = true;
	begin_with(&f.s, flags_of(state) | FAKE_FD, &attr);
	f.held = reg(&f.s, 0, 1);
	f.idle = reg(&f.s, 1, 1);
	give(&f.s, f.idle);
	f.uncached = mrcache_reg_mr(f.s.cache, f.s.pd, page(2), PAGE,
				    IBV_ACCESS_MW_BIND);
	f.stale = f.held;
	for (int way = 0; way < WAYS_BESIDE_THREADS; way++) {
		in_child(ways[way], use_as_a_child, &f);
		in_child(ways[way], close_as_a_child, &f);
	}
	fake_change(page(1), 1);
	COME_REGISTERED(2);
	assert_true(mrcache_valid(f.s.cache, f.held));
	give(&f.s, f.held);
	give(&f.s, f.uncached);
	finish(&f.s);
}

/* ---- ibv_fork_init() --------------------------------------------------------------- */

/* An idle page must be in children, and another's at its place left alone. */
TEST_BOTH(with_fork_support_nothing_is_kept)
{
	struct scene s;

	begin(&s, flags_of(state));
	assert_int_equal(fake_fork_init(), 0);
	for (unsigned int i = 0; i < 3; i++) {
		touch(&s, 0, 1);
		assert_int_equal(fake_registered(NULL), 0);
		assert_false(fake_dontfork(0));
		fake_change(page(0), 1);
		touch(&s, 1, 1);
		assert_int_equal(fake_wrong_dofork(), 0);
	}
	assert_int_equal(stats(&s).bypass[MRCACHE_BYPASS_FORK], 6);
	assert_int_equal(bypasses(&s), 6);
	assert_int_equal(stats(&s).reg_errors, 0);
	assert_int_equal(log_lines(MRCACHE_LOG_DEBUG), 1);
	assert_int_equal(fake_fork_questions(), 1);
	finish(&s);
}

TEST_BOTH(a_held_one_has_fork_support)
{
	struct scene s;
	struct ibv_mr *mr;

	begin(&s, flags_of(state));
	assert_int_equal(fake_fork_init(), 0);
	mr = reg(&s, 0, 1);
	assert_true(fake_dontfork(0));
	assert_true(mrcache_valid(s.cache, mr));
	give(&s, mr);
	assert_false(fake_dontfork(0));
	finish(&s);
}

/* fork() copies what is pinned; what is large and idle is not worth that. */
TEST_BOTH(what_is_large_and_idle_goes_before_a_fork)
{
	const struct {
		uint64_t attr;
		bool large, small; /* goes */
	} cases[] = {{0, true, false},
		     {1, true, true},
		     {17 * PAGE, false, false},
		     {UINT64_MAX, false, false}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct mrcache_attr attr;
		struct ibv_mr *held;
		struct scene s;
		pid_t pid;

		test_attr(&attr);
		attr.fork_release = cases[i].attr;
		begin_with(&s, flags_of(state), &attr);
		held = reg(&s, 0, 16);
		touch(&s, 100, 16);
		touch(&s, 200, 15);
		/* By clone() nothing is known of it. */
		in_child(raw_fork, nothing, NULL);
		assert_int_equal(fake_registered(NULL), 3);
		pid = start_child(fork, nothing, NULL);
		assert_int_equal(fake_registered(NULL),
				 3 - cases[i].large - cases[i].small);
		assert_int_equal(wait_child(pid), 0);
		assert_int_equal(stats(&s).fork_releases,
				 cases[i].large + cases[i].small);
		assert_int_equal(stats(&s).evictions, 0);
		assert_true(fake_is_registered(held));
		assert_int_equal(is_cached(&s, 200, 15), !cases[i].small);
		assert_int_equal(is_cached(&s, 100, 16), !cases[i].large);
		give(&s, held);
		finish(&s);
	}
}

/* Beside a fork that is ending registrations; the lock of nothing is held then. */
struct beside {
	struct scene s;
	bool came, was_open, opened;
	int closed; /* what mrcache_close() said */
	sem_t ended;
};

static void *close_it(void *arg)
{
	struct beside *b = arg;

	b->closed = mrcache_close(b->s.cache);
	sem_post(&b->ended);
	return NULL;
}

static void close_beside(enum fake_call call, enum fake_when when, void *arg)
{
	const struct timespec a_while = {.tv_nsec = 100000000};
	struct beside *b = arg;
	pthread_t thread;

	if (call != FAKE_DEREG || when != BEFORE || b->came)
		return;
	b->came = true;
	/* It may end before the fork: the child has nobody to join. */
	pthread_create(&thread, NULL, close_it, b);
	pthread_detach(thread);
	nanosleep(&a_while, NULL);
	b->was_open = atomic_load(&b->s.cache->open);
}

TEST_BOTH(closing_waits_for_a_fork)
{
	struct beside b = {.closed = -1};

	sem_init(&b.ended, 0, 0);
	begin(&b.s, flags_of(state));
	touch(&b.s, 0, 16);
	touch(&b.s, 16, 16);
	fake_hook(close_beside, &b);
	in_child(fork, nothing, NULL);
	fake_hook(NULL, NULL);
	assert_true(b.came);
	sem_wait(&b.ended);
	assert_int_equal(b.closed, 0);
	assert_true(b.was_open);
	assert_int_equal(fake_registered(NULL), 0);
	assert_int_equal(fake_monitors(), 0);
	no_trouble();
}

static void open_and_close_another(void *arg, struct ibv_mr *mr, bool stale)
{
	struct mrcache_attr attr;
	struct mrcache *other;
	struct beside *b = arg;

	(void)mr, (void)stale;
	test_attr(&attr);
	other = mrc_open(&attr, NULL, &fake_verbs);
	b->opened = other && mrcache_close(other) == 0;
}

/* mrcache_on_end()'s may call the library, also before a fork. */
TEST_BOTH(what_a_fork_ends_is_told_without_a_lock)
{
	struct beside b = {.came = false};

	begin(&b.s, flags_of(state));
	assert_int_equal(mrcache_on_end(b.s.cache, open_and_close_another, &b),
			 0);
	touch(&b.s, 0, 16);
	alarm(patience(CHILD_SECONDS));
	in_child(fork, nothing, NULL);
	alarm(0);
	assert_true(b.opened);
	finish(&b.s);
}

/* What is said of a child is not that its parent called ibv_fork_init(). */
static void child_says_what_it_is(void *arg)
{
	struct scene *s = arg;

	give(s, reg(s, 0, 1));
	child_assert(log_containing("fork child of the process") == 1);
	child_assert(log_containing("ibv_fork_init") == 0);
}

TEST_BOTH(a_child_says_that_it_is_one)
{
	struct scene s;

	begin(&s, flags_of(state));
	in_child(fork, child_says_what_it_is, &s);
	finish(&s);
}

/* It is asked once, at the first registration that could be cached. */
TEST_BOTH(without_fork_support_it_is_asked_once)
{
	struct scene s;

	begin(&s, flags_of(state));
	give(&s,
	     mrcache_reg_mr(s.cache, s.pd, page(0), PAGE, IBV_ACCESS_MW_BIND));
	assert_int_equal(fake_fork_questions(), 0);
	for (size_t n = 0; n < 3; n++)
		touch(&s, n, 1);
	assert_int_equal(fake_fork_questions(), 1);
	assert_true(is_cached(&s, 0, 1));
	/* What it saw stays true. */
	assert_int_equal(fake_fork_init(), EINVAL);
	touch(&s, 3, 1);
	assert_false(fake_dontfork(3));
	assert_true(is_cached(&s, 3, 1));
	assert_int_equal(bypasses(&s), 1);
	finish(&s);
}

TEST_BOTH(the_question_leaves_errno_alone)
{
	struct scene s;

	begin(&s, flags_of(state));
	fake_fail(FAKE_REG, 1, 1, EFAULT);
	assert_null(mrcache_reg_mr(s.cache, s.pd, page(0), PAGE, LOCAL));
	assert_int_equal(errno, EFAULT);
	assert_int_equal(fake_fork_questions(), 1);
	finish(&s);
}

int main(void)
{
	return run_cases(NULL, NULL);
}
