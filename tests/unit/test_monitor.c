/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The monitor alone, as a cache of somebody else's uses it: what changed is not
 * valid from then on, and is reported once.
 */
#include "fake_driver.h"
#include "monitor_public.h"
#include "unit.h"

#include <sched.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define COOKIES 1024

struct mon {
	struct mrcache_mon *mon;
	struct fake_monitor *fake;
	struct mrcache_watch watch;
	uint64_t told[COOKIES];
	unsigned int n;
	int nested;
};

static void open_mon(struct mon *m)
{
	*m = (struct mon){.fake = fake_monitor_new(FAKE_STATES | FAKE_FD)};
	fake_driver(m->fake);
	assert_int_equal(mrcache_mon_open(&m->mon, FAKE_DEVICE), 0);
}

static void close_mon(struct mon *m)
{
	struct mrc_monitor *base = fake_monitor_base(m->fake);

	mrcache_mon_close(m->mon);
	fake_driver(NULL);
	base->ops->close(base);
	no_trouble();
	assert_int_equal(fake_maps(), 0);
}

static void note(void *arg, uint64_t cookie)
{
	struct mon *m = arg;

	if (m->n < COOKIES)
		m->told[m->n] = cookie;
	m->n++;
}

static int drain(struct mon *m)
{
	m->n = 0;
	return mrcache_mon_drain(m->mon, note, m);
}

static void watch_page(struct mon *m, size_t n, uint64_t cookie)
{
	assert_int_equal(
		mrcache_mon_watch(m->mon, page(n), PAGE, cookie, &m->watch), 0);
}

TEST(what_changed_is_not_valid)
{
	struct mon m;

	open_mon(&m);
	watch_page(&m, 1, 7);
	assert_true(mrcache_mon_valid(m.mon, &m.watch));
	fake_change(page(2), PAGE);
	assert_true(mrcache_mon_valid(m.mon, &m.watch));
	fake_change(page(1), PAGE);
	assert_false(mrcache_mon_valid(m.mon, &m.watch));
	/* Draining makes nothing valid. */
	assert_int_equal(drain(&m), 1);
	assert_false(mrcache_mon_valid(m.mon, &m.watch));
	assert_int_equal(mrcache_mon_rearm(m.mon, &m.watch), 0);
	assert_true(mrcache_mon_valid(m.mon, &m.watch));
	fake_change(page(1), PAGE);
	assert_false(mrcache_mon_valid(m.mon, &m.watch));
	close_mon(&m);
}

/* Each hit once, until it is armed again. */
TEST(each_is_told_once)
{
	struct mon m;

	open_mon(&m);
	watch_page(&m, 1, 7);
	assert_false(mrcache_mon_has_news(m.mon));
	fake_change(page(1), PAGE);
	fake_change(page(1), PAGE);
	assert_true(mrcache_mon_has_news(m.mon));
	assert_int_equal(drain(&m), 1);
	assert_int_equal(m.told[0], 7);
	assert_false(mrcache_mon_has_news(m.mon));
	assert_int_equal(drain(&m), 0);
	close_mon(&m);
}

/* More than one read() brings, and LAST by itself. */
TEST(many_are_told)
{
	struct mrcache_watch watches[COOKIES];
	bool told[COOKIES] = {false};
	struct mon m;

	open_mon(&m);
	for (size_t i = 0; i < COOKIES; i++)
		assert_int_equal(
			mrcache_mon_watch(m.mon, page(i), PAGE, i, &watches[i]),
			0);
	fake_change(page(0), COOKIES * PAGE);
	assert_int_equal(drain(&m), COOKIES);
	for (size_t i = 0; i < COOKIES; i++) {
		told[m.told[i]] = true;
		assert_false(mrcache_mon_valid(m.mon, &watches[i]));
	}
	for (size_t i = 0; i < COOKIES; i++)
		assert_true(told[i]);
	close_mon(&m);
}

TEST(an_ended_watch_is_not_valid)
{
	struct mrcache_watch other;
	struct mon m;

	open_mon(&m);
	watch_page(&m, 1, 7);
	other = m.watch;
	assert_int_equal(mrcache_mon_unwatch(m.mon, &m.watch), 0);
	assert_false(mrcache_mon_valid(m.mon, &m.watch));
	assert_int_equal(mrcache_mon_unwatch(m.mon, &m.watch), -EINVAL);
	assert_int_equal(mrcache_mon_rearm(m.mon, &m.watch), -EINVAL);
	/* Its slot and cookie may be another's; a copy is not valid by that. */
	watch_page(&m, 2, 7);
	assert_true(mrcache_mon_valid(m.mon, &m.watch));
	assert_false(mrcache_mon_valid(m.mon, &other));
	fake_change(page(1), PAGE);
	assert_int_equal(drain(&m), 0);
	close_mon(&m);
}

TEST(what_cannot_be_watched_is_not_valid)
{
	static const int errors[] = {EOPNOTSUPP, ENOSPC, ENOMEM};
	struct mrcache_mon_stats stats;
	struct mon m;

	open_mon(&m);
	for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++) {
		fake_fail(FAKE_WATCH, 1, 1, errors[i]);
		assert_int_equal(
			mrcache_mon_watch(m.mon, page(1), PAGE, 1, &m.watch),
			-errors[i]);
		assert_false(mrcache_mon_valid(m.mon, &m.watch));
	}
	assert_int_equal(mrcache_mon_watch(m.mon, page(1), 0, 1, &m.watch),
			 -EINVAL);
	assert_int_equal(
		mrcache_mon_watch(m.mon, page(1), SIZE_MAX, 1, &m.watch),
		-EINVAL);
	assert_false(mrcache_mon_valid(m.mon, &m.watch));
	mrcache_mon_stats(m.mon, &stats, sizeof(stats));
	assert_int_equal(stats.refused, 3);
	assert_int_equal(stats.watches, 0);
	close_mon(&m);
}

static void note_read(void *arg)
{
	*(bool *)arg = true;
}

/* The driver's page of a slot that nobody was given cannot be read: SIGBUS. */
TEST(of_a_refused_watch_nothing_is_read)
{
	struct fake_monitor *fake = fake_monitor_new(FAKE_STATES | FAKE_TRAPS);
	struct mrcache_watch watch;
	struct mrcache_mon *mon;
	bool read = false;

	assert_int_equal(mrc_mon_open_with(&mon, fake_monitor_base(fake)), 0);
	assert_int_equal(mrcache_mon_watch(mon, page(1), 0, 1, &watch),
			 -EINVAL);
	fake_trap_state(fake, 0, note_read, &read);
	assert_false(mrcache_mon_valid(mon, &watch));
	assert_false(read);
	(void)__atomic_load_n(fake_monitor_base(fake)->states,
			      __ATOMIC_RELAXED);
	assert_true(fake_trapped() && read);
	mrcache_mon_close(mon);
	no_trouble();
}

/* All of them or none. */
TEST(many_ranges_are_watched)
{
	const struct mrcache_mon_range ranges[] = {
		{page(1), PAGE, 1}, {page(5), PAGE, 2}, {page(9), PAGE, 3}};
	struct mrcache_watch watches[3];
	struct mon m;

	open_mon(&m);
	for (unsigned int failing = 1; failing <= 3; failing++) {
		memset(watches, 0, sizeof(watches));
		fake_fail(FAKE_WATCH, failing, 1, ENOSPC);
		assert_int_equal(
			mrcache_mon_watch_many(m.mon, ranges, 3, watches),
			-ENOSPC);
		assert_int_equal(fake_watches(m.fake), 0);
		for (unsigned int i = 0; i < 3; i++)
			assert_false(mrcache_mon_valid(m.mon, &watches[i]));
	}
	assert_int_equal(mrcache_mon_watch_many(m.mon, ranges, 3, watches), 0);
	fake_change(page(5), PAGE);
	assert_true(mrcache_mon_valid(m.mon, &watches[0]));
	assert_false(mrcache_mon_valid(m.mon, &watches[1]));
	assert_true(mrcache_mon_valid(m.mon, &watches[2]));
	assert_int_equal(mrcache_mon_watch_many(m.mon, ranges, 0, watches), 0);
	close_mon(&m);
}

/* What the callback may do, and what it must not. */
static void rearm_and_drain(void *arg, uint64_t cookie)
{
	struct mon *m = arg;

	note(m, cookie);
	m->nested = mrcache_mon_drain(m->mon, note, m);
	assert_int_equal(mrcache_mon_rearm(m->mon, &m->watch), 0);
}

TEST(a_callback_rearms)
{
	struct mon m;

	open_mon(&m);
	watch_page(&m, 1, 7);
	fake_change(page(1), PAGE);
	assert_int_equal(mrcache_mon_drain(m.mon, rearm_and_drain, &m), 1);
	assert_int_equal(m.nested, -EDEADLK);
	assert_int_equal(m.n, 1);
	assert_true(mrcache_mon_valid(m.mon, &m.watch));
	close_mon(&m);
}

struct pair {
	struct mon *a, *b;
	int inner, innermost;
};

static void drain_a(void *arg, uint64_t cookie)
{
	struct pair *p = arg;

	note(p->b, cookie);
	p->innermost = drain(p->a);
}

static void drain_b(void *arg, uint64_t cookie)
{
	struct pair *p = arg;

	note(p->a, cookie);
	p->inner = mrcache_mon_drain(p->b->mon, drain_a, p);
}

/* One monitor in the callback of another, but not in its own. */
TEST(monitors_nest)
{
	struct mon a, b;
	struct pair p = {&a, &b, 0, 0};

	open_mon(&a);
	watch_page(&a, 1, 1);
	b = (struct mon){.fake = fake_monitor_new(FAKE_STATES)};
	assert_int_equal(mrc_mon_open_with(&b.mon, fake_monitor_base(b.fake)),
			 0);
	watch_page(&b, 1, 2);
	fake_change(page(1), PAGE);
	assert_int_equal(mrcache_mon_drain(a.mon, drain_b, &p), 1);
	assert_int_equal(p.inner, 1);
	assert_int_equal(p.innermost, -EDEADLK);
	mrcache_mon_close(b.mon);
	close_mon(&a);
}

/* What changes while all is being told is told, too, or is news. */
static void change_again(enum fake_call call, enum fake_when when, void *arg)
{
	unsigned int *left = arg;

	if (call == FAKE_READ && when == AFTER && *left) {
		--*left;
		fake_change(page(5), PAGE);
	}
}

TEST(what_comes_meanwhile_is_news)
{
	struct mrcache_watch other;
	unsigned int left = 1;
	struct mon m;

	open_mon(&m);
	watch_page(&m, 1, 7);
	assert_int_equal(mrcache_mon_watch(m.mon, page(5), PAGE, 8, &other), 0);
	fake_change(page(1), PAGE);
	fake_hook(change_again, &left);
	assert_in_range(drain(&m), 1, 2);
	assert_true(m.n == 2 || mrcache_mon_has_news(m.mon));
	fake_hook(NULL, NULL);
	close_mon(&m);
}

TEST(a_failed_read_is_said)
{
	struct mon m;

	open_mon(&m);
	watch_page(&m, 1, 7);
	fake_change(page(1), PAGE);
	fake_fail(FAKE_READ, 1, 1, EIO);
	assert_int_equal(drain(&m), -EIO);
	/* It is still to be told, and was not valid for a moment. */
	assert_true(mrcache_mon_has_news(m.mon));
	assert_false(mrcache_mon_valid(m.mon, &m.watch));
	assert_int_equal(drain(&m), 1);
	close_mon(&m);
}

/* In a child nothing is valid, nothing of the parent's is touched. */
static int in_child(struct mon *m)
{
	unsigned int calls = fake_monitor_calls();
	struct mrcache_watch watch;

	if (mrcache_mon_valid(m->mon, &m->watch))
		return 1;
	if (mrcache_mon_watch(m->mon, page(3), PAGE, 9, &watch) != -ESTALE ||
	    mrcache_mon_valid(m->mon, &watch))
		return 2;
	watch = m->watch;
	if (mrcache_mon_rearm(m->mon, &watch) != -ESTALE ||
	    mrcache_mon_unwatch(m->mon, &watch) != -ESTALE ||
	    drain(m) != -ESTALE)
		return 3;
	if (fake_monitor_calls() != calls)
		return 4;
	mrcache_mon_close(m->mon);
	return 0;
}

TEST(a_child_has_nothing)
{
	struct mon m;
	int status;
	pid_t pid;

	open_mon(&m);
	watch_page(&m, 1, 7);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid)
		_exit(in_child(&m));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	assert_true(mrcache_mon_valid(m.mon, &m.watch));
	close_mon(&m);
}

/* A thread that drains while another is in the callback waits until it is told. */
struct slow {
	struct mon m;
	_Atomic bool inside, go;
	_Atomic bool other_done;
	bool done_early;
};

static void wait_inside(void *arg, uint64_t cookie)
{
	struct slow *s = arg;

	(void)cookie;
	s->inside = true;
	while (!s->go)
		sched_yield();
	/* Whoever waits for all to be told must not have gone on. */
	usleep(20000);
	s->done_early = s->other_done;
}

static void *drain_slowly(void *arg)
{
	struct slow *s = arg;

	mrcache_mon_drain(s->m.mon, wait_inside, s);
	return NULL;
}

TEST(a_drain_waits_for_another)
{
	static struct slow s;
	pthread_t thread;

	memset(&s, 0, sizeof(s));
	open_mon(&s.m);
	watch_page(&s.m, 1, 7);
	fake_change(page(1), PAGE);
	assert_int_equal(pthread_create(&thread, NULL, drain_slowly, &s), 0);
	while (!s.inside)
		sched_yield();
	s.go = true;
	assert_int_equal(drain(&s.m), 0);
	s.other_done = true;
	pthread_join(thread, NULL);
	assert_false(s.done_early);
	close_mon(&s.m);
}

TEST(what_cannot_be_opened)
{
	struct mrcache_mon *mon = NULL;
	struct fake_monitor *fake;

	assert_int_equal(mrcache_mon_open(&mon, FAKE_DEVICE), -ENOENT);
	assert_int_equal(mrcache_mon_open(NULL, FAKE_DEVICE), -EINVAL);
	/* A driver of 2010. */
	fake = fake_monitor_new(0);
	assert_int_equal(mrc_mon_open_with(&mon, fake_monitor_base(fake)),
			 -EOPNOTSUPP);
	fake = fake_monitor_new(FAKE_STATES);
	fake_fail(FAKE_MEMORY, 1, 1, ENOMEM);
	assert_int_equal(mrc_mon_open_with(&mon, fake_monitor_base(fake)),
			 -ENOMEM);
	fake = fake_monitor_new(FAKE_STATES);
	fake_fail(FAKE_MAP, 1, 1, ENOMEM);
	assert_int_equal(mrc_mon_open_with(&mon, fake_monitor_base(fake)),
			 -ENOMEM);
	assert_int_equal(fake_monitors(), 0);
	assert_null(mon);
	mrcache_mon_close(NULL);
	no_trouble();
}

TEST(all_is_counted)
{
	struct mrcache_mon_stats stats;
	struct {
		uint64_t watches, next;
	} part = {0, 77};
	struct mon m;

	open_mon(&m);
	assert_true(mrcache_mon_fd(m.mon) >= 0);
	watch_page(&m, 1, 1);
	assert_int_equal(mrcache_mon_unwatch(m.mon, &m.watch), 0);
	watch_page(&m, 2, 2);
	watch_page(&m, 3, 3);
	fake_change(page(3), PAGE);
	assert_int_equal(drain(&m), 1);
	assert_int_equal(mrcache_mon_rearm(m.mon, &m.watch), 0);
	mrcache_mon_stats(m.mon, &stats, sizeof(stats));
	assert_int_equal(stats.watches, 2);
	assert_int_equal(stats.watched, 3);
	assert_int_equal(stats.refused, 0);
	assert_int_equal(stats.rearms, 1);
	assert_int_equal(stats.drains, 1);
	assert_int_equal(stats.reports, 1);
	/* An older program's is shorter. */
	mrcache_mon_stats(m.mon, (struct mrcache_mon_stats *)&part,
			  sizeof(part.watches));
	assert_int_equal(part.watches, 2);
	assert_int_equal(part.next, 77);
	close_mon(&m);
}

int main(void)
{
	return run_cases(NULL, NULL);
}
