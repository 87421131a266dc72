/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a miss does, counted: locks, system calls, calls of the monitor and of
 * verbs. The ways to miss are new memory, and memory that has changed since its
 * registration was given back.
 */
#define _GNU_SOURCE
#include "thread.h"
#include "unit.h"

#include <dlfcn.h>
#include <linux/filter.h>
#include <linux/membarrier.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGES 4u
#define RANGE page(8), (PAGES * PAGE)

/* How often a miss takes a lock: of new memory, and of changed. */
#define NEW_LOCKS     2
#define CHANGED_LOCKS 2

/* Begins with a registration that was given back, so that all that is lazy is done. */
static void prepare(struct scene *s)
{
	begin(s, FAKE_STATES);
	touch(s, 8, PAGES);
	touch(s, 100, 1);
}

static void *use_once(void *arg)
{
	touch(arg, 200, 1);
	return NULL;
}

/* ---- system calls --------------------------------------------------------------- */

#define CHILD_CANNOT 77

static bool install(struct sock_filter *filter, unsigned short length)
{
	struct sock_fprog program = {length, filter};

	return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) &&
	       !syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}

/*
 * From now on membarrier() is the end, unless it is only asked what there is, or
 * (`slow`) waits until all processors have come by, which interrupts nobody.
 */
static bool forbid_membarrier_but(bool slow)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_membarrier, 0, 4),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, args[0])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MEMBARRIER_CMD_QUERY, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
			 slow ? MEMBARRIER_CMD_GLOBAL : MEMBARRIER_CMD_QUERY, 1,
			 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};

	return install(filter, sizeof(filter) / sizeof(*filter));
}

static bool forbid_membarrier(void)
{
	return forbid_membarrier_but(false);
}

/* From now on every system call but the last is the end. */
static bool forbid_all(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	};

	return install(filter, sizeof(filter) / sizeof(*filter));
}

/* Runs it in a child, which must end well, or by SIGSYS. */
static void in_child(int (*function)(void), bool well)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (!pid) {
		setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
		signal(SIGSYS, SIG_DFL);
		syscall(SYS_exit_group, function());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == CHILD_CANNOT)
		skip();
	if (!well) {
		assert_true(WIFSIGNALED(status));
		assert_int_equal(WTERMSIG(status), SIGSYS);
	} else if (WIFSIGNALED(status)) {
		fail_msg("ended by signal %d", WTERMSIG(status));
	} else {
		assert_int_equal(WEXITSTATUS(status), 0);
	}
}

/* All that ends registrations. */
static int end_some(struct scene *s)
{
	struct ibv_mr *mr;

	for (size_t n = 0; n < 40; n++)
		touch(s, n, 1);
	fake_change(RANGE);
	touch(s, 8, PAGES);
	mr = reg(s, 8, PAGES);
	fake_change(RANGE);
	touch(s, 300, 1);
	give(s, mr);
	if (mrcache_invalidate(s->cache, page(0), PAGE) ||
	    mrcache_flush(s->cache, NULL))
		return 1;
	return mrcache_close(s->cache) ? 2 : 0;
}

static int as_the_only_thread(void)
{
	struct mrcache_attr attr;
	struct scene s;

	if (!forbid_membarrier())
		return CHILD_CANNOT;
	test_attr(&attr);
	attr.max_regs = 20;
	begin_with(&s, FAKE_STATES, &attr);
	return end_some(&s);
}

static void *use_and_end(void *arg)
{
	return end_some(arg) ? arg : NULL;
}

/* One after the other, and a third that never registers anything. */
static int as_one_thread_at_a_time(void)
{
	struct scene s;

	if (!forbid_membarrier())
		return CHILD_CANNOT;
	begin(&s, FAKE_STATES);
	in_thread(use_once, &s);
	in_thread(use_and_end, &s);
	return 0;
}

static int beside_another_thread(void)
{
	struct scene s;

	prepare(&s);
	in_thread(use_once, &s);
	if (!s.cache->expedited || !forbid_membarrier())
		return CHILD_CANNOT;
	return mrcache_flush(s.cache, NULL);
}

static void *flush(void *arg)
{
	struct scene *s = arg;

	mrcache_flush(s->cache, NULL);
	return NULL;
}

static int by_another_thread(void)
{
	struct scene s;

	prepare(&s);
	if (!s.cache->expedited || !forbid_membarrier())
		return CHILD_CANNOT;
	in_thread(flush, &s);
	return 0;
}

static int without_a_record(void)
{
	struct scene s;

	prepare(&s);
	if (!s.cache->expedited || !forbid_membarrier())
		return CHILD_CANNOT;
	fake_fail(FAKE_KEY, 1, FAKE_FOR_EVER, ENOMEM);
	in_thread(use_once, &s);
	return mrcache_flush(s.cache, NULL);
}

static void begin_with_reaper(struct scene *s)
{
	struct mrcache_attr attr;

	test_attr(&attr);
	attr.reaper = true;
	begin_with(s, FAKE_STATES | FAKE_FD, &attr);
}

static int beside_the_reaper(void)
{
	struct ibv_mr *held;
	struct scene s;

	if (!forbid_membarrier_but(true))
		return CHILD_CANNOT;
	begin_with_reaper(&s);
	held = reg(&s, 8, 1);
	for (size_t n = 9; n < 12; n++)
		touch(&s, n, 1);
	fake_change(RANGE);
	COME_REGISTERED(1);
	if (!fake_is_registered(held) || stats(&s).stale_held != 1)
		return 1;
	give(&s, held);
	return fake_registered(NULL) ? 2 : end_some(&s);
}

TEST(nor_does_its_reaper)
{
	if (SANITIZED)
		skip();
	in_child(beside_the_reaper, true);
}

static int beside_a_time_limit(void)
{
	struct mrcache_attr attr;
	struct ibv_mr *held;
	struct scene s;

	if (!forbid_membarrier_but(true))
		return CHILD_CANNOT;
	test_attr(&attr);
	attr.linger = 20;
	begin_with(&s, FAKE_STATES | FAKE_FD, &attr);
	held = reg_range(&s, page(8), PAGE, REMOTE);
	for (size_t n = 9; n < 12; n++)
		give(&s, reg_range(&s, page(n), PAGE, REMOTE));
	COME_REGISTERED(1);
	if (!fake_is_registered(held))
		return 1;
	give(&s, held);
	COME_REGISTERED(0);
	return end_some(&s);
}

TEST(nor_does_a_time_limit)
{
	if (SANITIZED)
		skip();
	in_child(beside_a_time_limit, true);
}

TEST(one_thread_interrupts_nobody)
{
	if (SANITIZED) /* and has no membarrier(), or its own idea of it */
		skip();
	in_child(as_the_only_thread, true);
	in_child(as_one_thread_at_a_time, true);
}

TEST(who_ends_what_another_thread_counts_has_a_fence)
{
	if (SANITIZED)
		skip();
	in_child(beside_another_thread, false);
	in_child(by_another_thread, false);
	in_child(without_a_record, false);
}

/* The fakes make none, so that what there is would be the cache's own. */
static int miss_without_system_calls(void)
{
	struct scene s;

	prepare(&s);
	for (size_t n = 0; n < 20; n++) /* so that what it takes is there */
		touch(&s, 400 + n, 1);
	mrcache_flush(s.cache, NULL);
	touch(&s, 8, PAGES);
	if (!forbid_all())
		return CHILD_CANNOT;
	for (size_t n = 0; n < 20; n++) {
		unsigned int calls = fake_monitor_calls();

		if (n < 10) {
			touch(&s, 20 + n, 1);
		} else {
			fake_change(RANGE);
			touch(&s, 8, PAGES);
		}
		if (fake_monitor_calls() != calls + 1)
			return 1;
	}
	return 0;
}

TEST(a_miss_makes_one_call_beside_verbs)
{
	if (SANITIZED) /* which makes calls of its own */
		skip();
	in_child(miss_without_system_calls, true);
}

/* ---- the reaper ----------------------------------------------------------------- */

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Not with each change, but some time after the first: once for many. */
TEST(the_reaper_comes_now_and_then)
{
	struct scene s;

	begin_with_reaper(&s);
	for (int i = 0; i < 20; i++) {
		uint64_t drains = stats(&s).drains;
		int64_t changed;

		touch(&s, 8, PAGES);
		changed = now_ms();
		fake_change(RANGE);
		while (stats(&s).drains == drains)
			usleep(1000);
		/* 50, of which a clock may be short. */
		assert_true(now_ms() - changed >= 45);
		COME_REGISTERED(0);
	}
	finish(&s);
}

#if !SANITIZED

static long (*real_syscall)(long number, ...);
static void (*during_fence)(struct scene *s);
static struct scene *fenced;
static struct ibv_mr *fenced_mr;

/* Stands in for libc's; what is done while the reaper waits for all processors. */
long syscall(long number, ...)
{
	long args[6];
	va_list list;

	if (!real_syscall)
		*(void **)&real_syscall = dlsym(RTLD_NEXT, "syscall");
	va_start(list, number);
	for (int i = 0; i < 6; i++)
		args[i] = va_arg(list, long);
	va_end(list);
	if (number == SYS_membarrier && args[0] == MEMBARRIER_CMD_GLOBAL &&
	    during_fence) {
		during_fence(fenced);
		__atomic_store_n(&during_fence, NULL, __ATOMIC_RELEASE);
	}
	return real_syscall(number, args[0], args[1], args[2], args[3], args[4],
			    args[5]);
}

/* In the reaper, where no assertion can fail. */
static bool as_wanted;

static void flush_meanwhile(struct scene *s)
{
	as_wanted = fake_registered(NULL) == 2 &&
		    mrcache_flush(s->cache, NULL) == 1 &&
		    fake_registered(NULL) == 1;
}

static void give_back_meanwhile(struct scene *s)
{
	as_wanted = !mrcache_dereg_mr(s->cache, fenced_mr);
	fenced_mr = NULL;
}

static void use_meanwhile(struct scene *s)
{
	touch(s, 8, 1);
	touch(s, 9, 1);
	fake_change(RANGE);
	as_wanted = true;
}

TEST(what_waits_for_the_fence_is_not_in_the_way)
{
	static void (*const acts[])(struct scene * s) = {
		flush_meanwhile, give_back_meanwhile, use_meanwhile};

	for (size_t i = 0; i < sizeof(acts) / sizeof(*acts); i++) {
		struct scene s;

		fresh(state);
		begin_with_reaper(&s);
		if (!s.cache->expedited)
			skip();
		fenced = &s;
		fenced_mr = reg(&s, 8, 1);
		touch(&s, 9, 1);
		as_wanted = false;
		during_fence = acts[i];
		fake_change(RANGE);
		while (__atomic_load_n(&during_fence, __ATOMIC_ACQUIRE))
			usleep(1000);
		assert_true(as_wanted);
		COME_REGISTERED(fenced_mr ? 1 : 0);
		if (fenced_mr)
			give(&s, fenced_mr);
		COME_REGISTERED(0);
		assert_int_equal(stats(&s).stale_held, 0);
		finish(&s);
	}
}

static _Atomic bool in_fence, closed;
static unsigned int longest; /* seconds */

static void let_close(struct scene *s)
{
	(void)s;
	in_fence = true;
	(void)COMES(closed, longest);
}

/* Two that the reaper has put aside, until `closed`. */
static void begin_with_two_aside(struct scene *s, uint64_t max_regs)
{
	struct mrcache_attr attr;

	test_attr(&attr);
	attr.reaper = true;
	attr.max_regs = max_regs;
	begin_with(s, FAKE_STATES | FAKE_FD, &attr);
	if (!s->cache->expedited)
		skip();
	fenced = s;
	in_fence = closed = false;
	longest = 30;
	touch(s, 8, 1);
	touch(s, 9, 1);
	during_fence = let_close;
	fake_change(RANGE);
	while (!in_fence)
		usleep(1000);
	assert_int_equal(fake_registered(NULL), 2);
}

static void finish_beside(struct scene *s, struct ibv_mr *ibv)
{
	assert_int_equal(fake_registered(NULL), 1);
	assert_int_equal(stats(s).cached, 1);
	give(s, ibv);
	/* Would wait for ever for one that is lost. */
	assert_int_equal(mrcache_flush(s->cache, NULL), 0);
	assert_int_equal(fake_registered(NULL), 0);
	closed = true;
	finish(s);
}

/* What is aside is pinned yet: it makes room, and is not lost. */
TEST(memory_may_be_short_meanwhile)
{
	struct ibv_mr *ibv;
	struct scene s;

	begin_with_two_aside(&s, UINT64_MAX);
	fake_fail(FAKE_REG, 1, 1, ENOMEM);
	ibv = reg(&s, 20, 1);
	assert_int_equal(stats(&s).retries, 1);
	finish_beside(&s, ibv);
}

TEST(and_at_the_limit_it_counts_no_more)
{
	struct ibv_mr *ibv;
	struct scene s;

	begin_with_two_aside(&s, 2);
	ibv = reg(&s, 20, 1);
	assert_int_equal(stats(&s).evictions, 0);
	finish_beside(&s, ibv);
}

/* Nothing is held, so that it must not say EBUSY. */
TEST(nor_of_closing)
{
	struct scene s;

	begin_with_reaper(&s);
	if (!s.cache->expedited)
		skip();
	fenced = &s;
	in_fence = closed = false;
	longest = 1; /* closing waits for the reaper */
	touch(&s, 9, 1);
	during_fence = let_close;
	fake_change(RANGE);
	while (!in_fence)
		usleep(1000);
	assert_int_equal(mrcache_close(s.cache), 0);
	closed = true;
	assert_int_equal(fake_registered(NULL), 0);
}

#endif

/* ---- locks ---------------------------------------------------------------------- */

#if !SANITIZED

static int (*real_lock)(pthread_mutex_t *);
static int (*real_trylock)(pthread_mutex_t *);
static struct mrcache *counted;
static unsigned int locks;
/* Runs before the nth is taken, in that thread; 0: never. */
static unsigned int act_before;
static void (*act)(void *arg);
static void *act_arg;

static __attribute__((constructor(101))) void find_real(void)
{
	*(void **)&real_lock = dlsym(RTLD_NEXT, "pthread_mutex_lock");
	*(void **)&real_trylock = dlsym(RTLD_NEXT, "pthread_mutex_trylock");
}

/* The fakes have locks, too. */
static void count(pthread_mutex_t *mutex)
{
	if (!counted ||
	    (mutex != &counted->lock && mutex != &counted->drain_lock))
		return;
	if (++locks == act_before) {
		counted = NULL;
		act_before = 0;
		act(act_arg);
	}
}

int pthread_mutex_lock(pthread_mutex_t *mutex)
{
	count(mutex);
	return real_lock(mutex);
}

int pthread_mutex_trylock(pthread_mutex_t *mutex)
{
	count(mutex);
	return real_trylock(mutex);
}

static void change_and_drain_elsewhere(void *arg)
{
	fake_change(RANGE);
	in_thread(use_once, arg);
}

/* A report that comes once is not lost on the way to the index. */
TEST(a_change_before_any_lock_is_noticed)
{
	for (unsigned int nth = 1; nth <= CHANGED_LOCKS; nth++)
		for (int changed = 0; changed < 2; changed++) {
			struct ibv_mr *mr;
			struct scene s;

			fresh(state);
			prepare(&s);
			if (changed)
				fake_change(RANGE);
			else
				mrcache_flush(s.cache, NULL);
			locks = 0;
			counted = s.cache;
			act_before = nth;
			act = change_and_drain_elsewhere;
			act_arg = &s;
			mr = mrcache_reg_mr(s.cache, s.pd, RANGE, LOCAL);
			assert_non_null(mr);
			assert_int_equal(act_before, 0);
			touch(&s, 8, PAGES); /* asserts that it is current */
			give(&s, mr);
			finish(&s);
		}
}

static unsigned int locks_of(struct scene *s, size_t n, size_t pages)
{
	locks = 0;
	counted = s->cache;
	touch(s, n, pages);
	counted = NULL;
	return locks;
}

TEST(a_miss_takes_few_locks)
{
	struct scene s;

	prepare(&s);
	for (size_t n = 20; n < 24; n++)
		assert_int_equal(locks_of(&s, n, 1), NEW_LOCKS);
	for (int i = 0; i < 10; i++) {
		fake_change(RANGE);
		assert_int_equal(locks_of(&s, 8, PAGES), CHANGED_LOCKS);
	}
	finish(&s);
}

#endif

int main(void)
{
	return run_cases(NULL, NULL);
}
