/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What seems to have changed and still has its pages is not registered again;
 * what has not is, whatever happens at whatever step of finding out.
 */
#include "drain.h"
#include "unit.h"

#include <pthread.h>
#include <sched.h>

#define PAGES 4u
#define RANGE page(8), (PAGES * PAGE)
#define OTHER 200u
#define MANY  150u

static void begin_verifying(struct scene *s)
{
	struct mrcache_attr attr;

	test_attr(&attr);
	attr.fingerprint = true;
	begin_with(s, FAKE_STATES | FAKE_PRINTS, &attr);
}

/* Registered, idle, and verifiable: something was hit before. */
static void settle(struct scene *s)
{
	touch(s, OTHER, 1);
	fake_alarm(page(OTHER), PAGE);
	touch(s, OTHER, 1);
	touch(s, 8, PAGES);
	assert_int_equal(stats(s).verified, 0);
}

TEST(a_false_alarm_costs_nothing)
{
	struct scene s;

	begin_verifying(&s);
	settle(&s);
	for (unsigned int i = 1; i <= 10; i++) {
		fake_alarm(RANGE);
		assert_true(is_cached(&s, 8, PAGES));
		assert_int_equal(stats(&s).verified, i);
	}
	assert_int_equal(stats(&s).refuted, 0);
	assert_int_equal(fake_watches(s.monitor), 2);
	finish(&s);
}

TEST(a_change_is_refuted)
{
	struct scene s;

	begin_verifying(&s);
	settle(&s);
	for (unsigned int i = 1; i <= 3; i++) {
		fake_change(page(9), 1);
		assert_false(is_cached(&s, 8, PAGES));
		assert_int_equal(stats(&s).refuted, i);
		fake_alarm(RANGE);
		assert_true(is_cached(&s, 8, PAGES));
	}
	finish(&s);
}

/* Nothing is asked where it is not wanted, or the monitor cannot tell. */
TEST(only_on_demand)
{
	struct mrcache_attr attr;
	struct scene s;

	begin(&s, FAKE_STATES | FAKE_PRINTS);
	settle(&s);
	fake_alarm(RANGE);
	assert_false(is_cached(&s, 8, PAGES));
	assert_int_equal(fake_calls(FAKE_PRINT), 0);
	assert_int_equal(fake_calls(FAKE_VERIFY), 0);
	finish(&s);

	test_attr(&attr);
	attr.fingerprint = true;
	begin_with(&s, FAKE_STATES, &attr);
	settle(&s);
	fake_alarm(RANGE);
	assert_false(is_cached(&s, 8, PAGES));
	finish(&s);
}

/* A program whose memory never changes does not pay. */
TEST(nothing_is_taken_before_a_change)
{
	struct scene s;

	begin_verifying(&s);
	touch(&s, 8, PAGES);
	touch(&s, OTHER, 1);
	assert_int_equal(fake_calls(FAKE_PRINT), 0);
	fake_alarm(RANGE);
	assert_false(is_cached(&s, 8, PAGES));
	assert_int_equal(fake_calls(FAKE_PRINT), 1);
	assert_int_equal(fake_calls(FAKE_VERIFY), 0);
	finish(&s);
}

/* While what seems to have changed has changed, hardly anything is asked. */
TEST(little_is_asked_in_vain)
{
	struct scene s;

	begin_verifying(&s);
	settle(&s);
	for (unsigned int i = 0; i < 200; i++) {
		fake_change(RANGE);
		touch(&s, 8, PAGES);
	}
	assert_in_range(stats(&s).refuted, 8, 14);
	assert_in_range(fake_calls(FAKE_PRINT), 8, 14);
	/* And not for ever. */
	for (unsigned int i = 0; !stats(&s).verified; i++) {
		assert_in_range(i, 0, 64);
		fake_alarm(RANGE);
		touch(&s, 8, PAGES);
	}
	for (unsigned int i = 0; i < 5; i++) {
		fake_alarm(RANGE);
		assert_true(is_cached(&s, 8, PAGES));
	}
	finish(&s);
}

/* As where freed memory is purged beside what is used. */
TEST(true_alarms_among_false_ones)
{
	struct scene s;
	unsigned int before;

	begin_verifying(&s);
	settle(&s);
	for (unsigned int round = 0; round < 4; round++) {
		for (unsigned int i = 0; i < 2 * MANY; i++)
			touch(&s, 1000 + 2 * i, 2);
		before = fake_calls(FAKE_REG);
		fake_change(page(1000), 2 * MANY * PAGE);
		fake_alarm(page(1000 + 2 * MANY), 2 * MANY * PAGE);
		for (unsigned int i = MANY; i < 2 * MANY; i++)
			touch(&s, 1000 + 2 * i, 2);
		assert_int_equal(fake_calls(FAKE_REG), before);
	}
	assert_int_equal(stats(&s).verified, 4 * MANY);
	assert_int_equal(stats(&s).refuted, 4 * MANY);
	finish(&s);
}

/* What is unmapped has other pages: it is revived, and nothing asked. */
TEST(what_is_certain_is_not_asked)
{
	struct scene s;

	begin_verifying(&s);
	settle(&s);
	fake_certain(s.monitor);
	for (unsigned int i = 0; i < 5; i++) {
		fake_change(RANGE);
		touch(&s, 8, PAGES);
	}
	assert_int_equal(fake_calls(FAKE_VERIFY), 0);
	assert_int_equal(fake_calls(FAKE_RENEW), 6);
	finish(&s);
}

TEST(many_in_few_calls)
{
	struct scene s;
	unsigned int before;

	begin_verifying(&s);
	settle(&s);
	for (unsigned int i = 0; i < MANY; i++)
		touch(&s, 1000 + 2 * i, 2);
	before = fake_calls(FAKE_REG);
	fake_alarm(page(1000), 2 * MANY * PAGE);
	for (unsigned int i = 0; i < MANY; i++)
		touch(&s, 1000 + 2 * i, 2);
	assert_int_equal(fake_calls(FAKE_REG), before);
	assert_int_equal(stats(&s).verified, MANY);
	assert_int_equal(fake_calls(FAKE_VERIFY), (MANY + 63) / 64);
	finish(&s);
}

/* ---- at every step ---------------------------------------------------------------- */

struct at {
	struct scene *s;
	enum fake_call call;
	enum fake_when when;
	void (*act)(struct at *at);
	bool came;
	pthread_t thread;
};

static void run_at(enum fake_call call, enum fake_when when, void *arg)
{
	struct at *at = arg;

	if (call == at->call && when == at->when && !at->came) {
		at->came = true;
		at->act(at);
	}
}

/* What seems to have changed is drained, and meanwhile it acts. */
static void drain_beside(struct at *at)
{
	fake_alarm(RANGE);
	fake_hook(run_at, at);
	mrc_drain(at->s->cache, true);
	assert_true(at->came);
	fake_hook(NULL, NULL);
}

static void change(struct at *at)
{
	(void)at;
	fake_change(RANGE);
}

static void change_begin(struct at *at)
{
	(void)at;
	fake_change_begin(RANGE);
}

static void *drain(void *arg)
{
	mrc_drain(arg, true);
	return NULL;
}

/* And its report is read while nobody can doom what is being verified. */
static void change_and_drain(struct at *at)
{
	fake_change(RANGE);
	in_thread(drain, at->s->cache);
}

static void changed_at(enum fake_call call, enum fake_when when,
		       void (*act)(struct at *at), bool ends)
{
	struct scene s;
	struct at at = {.s = &s, .call = call, .when = when, .act = act};

	begin_verifying(&s);
	settle(&s);
	drain_beside(&at);
	if (ends)
		fake_change_end(RANGE);
	touch(&s, 8, PAGES); /* asserts that it reaches what is there now */
	assert_true(is_cached(&s, 8, PAGES));
	finish(&s);
}

TEST(a_change_at_any_step_is_noticed)
{
	for (int when = BEFORE; when <= AFTER; when++) {
		changed_at(FAKE_VERIFY, (enum fake_when)when, change, false);
		changed_at(FAKE_VERIFY, (enum fake_when)when, change_and_drain,
			   false);
		changed_at(FAKE_VERIFY, (enum fake_when)when, change_begin,
			   true);
	}
}

/* What is taken in a change is not what is pinned. */
TEST(a_change_while_it_is_taken)
{
	struct scene s;
	struct at at = {.s = &s, .call = FAKE_WATCH, .act = change_begin};

	begin_verifying(&s);
	touch(&s, OTHER, 1);
	fake_alarm(page(OTHER), PAGE);
	touch(&s, OTHER, 1);
	fake_hook(run_at, &at);
	touch(&s, 8, PAGES);
	fake_hook(NULL, NULL);
	fake_change_end(RANGE);
	touch(&s, 8, PAGES);
	assert_int_equal(stats(&s).verified, 0);
	finish(&s);
}

static void invalidate(struct at *at)
{
	assert_int_equal(mrcache_invalidate(at->s->cache, RANGE), 0);
}

static void *flush(void *arg)
{
	struct scene *s = arg;

	mrcache_flush(s->cache, s->pd);
	return NULL;
}

/* It waits for what is being verified. */
static void flush_begin(struct at *at)
{
	struct mrcache *cache = at->s->cache;
	bool begun;

	assert_int_equal(pthread_create(&at->thread, NULL, flush, at->s), 0);
	do {
		sched_yield();
		pthread_mutex_lock(&cache->lock);
		begun = cache->flushed;
		pthread_mutex_unlock(&cache->lock);
	} while (!begun);
}

/* Who asks for the end of registrations gets it. */
TEST(what_is_to_end_is_not_put_back)
{
	struct scene s;
	struct at at = {.s = &s,
			.call = FAKE_VERIFY,
			.when = DURING,
			.act = invalidate};

	begin_verifying(&s);
	settle(&s);
	drain_beside(&at);
	assert_int_equal(fake_registered(s.pd), 1); /* OTHER */
	assert_int_equal(stats(&s).verified, 0);

	at = (struct at){.s = &s,
			 .call = FAKE_VERIFY,
			 .when = DURING,
			 .act = flush_begin};
	touch(&s, 8, PAGES);
	pthread_mutex_lock(&s.cache->lock);
	s.cache->flushed = 0;
	pthread_mutex_unlock(&s.cache->lock);
	drain_beside(&at);
	assert_int_equal(pthread_join(at.thread, NULL), 0);
	assert_int_equal(fake_registered(s.pd), 0);
	finish(&s);
}

static void *touch_it(void *arg)
{
	touch(arg, 8, PAGES);
	return NULL;
}

static void another_registers(struct at *at)
{
	in_thread(touch_it, at->s);
}

/* Of two for the same range one is enough. */
TEST(another_was_faster)
{
	struct scene s;
	struct at at = {.s = &s,
			.call = FAKE_VERIFY,
			.when = DURING,
			.act = another_registers};

	begin_verifying(&s);
	settle(&s);
	drain_beside(&at);
	assert_int_equal(fake_registered(s.pd), 2);
	assert_true(is_cached(&s, 8, PAGES));
	assert_int_equal(stats(&s).verified, 0);
	finish(&s);
}

TEST(what_is_held_ends_with_its_last_hold)
{
	struct ibv_mr *mr;
	struct scene s;

	begin_verifying(&s);
	settle(&s);
	mr = reg(&s, 8, PAGES);
	fake_alarm(RANGE);
	assert_false(is_cached(&s, 8, PAGES));
	assert_int_equal(stats(&s).verified, 0);
	give(&s, mr);
	assert_true(is_cached(&s, 8, PAGES));
	finish(&s);
}

/* What its holder has is still right, though nobody else gets it. */
TEST(what_is_held_is_asked_for)
{
	struct ibv_mr *mr, *other;
	struct scene s;

	begin_verifying(&s);
	settle(&s);
	mr = reg(&s, 8, PAGES);
	for (unsigned int i = 1; i <= 3; i++) {
		fake_alarm(RANGE);
		assert_true(mrcache_valid(s.cache, mr));
		assert_true(mrcache_valid(s.cache, mr));
		assert_int_equal(stats(&s).verified, i);
		assert_int_equal(stats(&s).stale_held, 0);
	}
	/* After a drain, too. */
	fake_alarm(RANGE);
	mrc_drain(s.cache, true);
	assert_int_equal(stats(&s).stale_held, 1);
	assert_true(mrcache_valid(s.cache, mr));
	assert_int_equal(stats(&s).stale_held, 0);
	other = reg(&s, 8, PAGES);
	assert_ptr_not_equal(other, mr);
	give(&s, other);
	fake_change(page(9), 1);
	for (unsigned int i = 0; i < 3; i++)
		assert_false(mrcache_valid(s.cache, mr));
	assert_int_equal(stats(&s).refuted, 1);
	assert_int_equal(stats(&s).stale_held, 1);
	fake_alarm(RANGE);
	assert_false(mrcache_valid(s.cache, mr));
	give(&s, mr);
	assert_int_equal(stats(&s).stale_held, 0);
	finish(&s);
}

static void held_and_changed_at(enum fake_when when, void (*act)(struct at *at),
				bool ends)
{
	struct at at = {.call = FAKE_VERIFY, .when = when, .act = act};
	struct scene s;
	struct ibv_mr *mr;

	begin_verifying(&s);
	at.s = &s;
	settle(&s);
	mr = reg(&s, 8, PAGES);
	fake_alarm(RANGE);
	fake_hook(run_at, &at);
	/* A change that has begun, and not ended, has not taken pages yet. */
	assert_int_equal(mrcache_valid(s.cache, mr), ends && when == BEFORE);
	assert_true(at.came);
	fake_hook(NULL, NULL);
	if (ends)
		fake_change_end(RANGE);
	assert_false(mrcache_valid(s.cache, mr));
	give(&s, mr);
	touch(&s, 8, PAGES);
	finish(&s);
}

TEST(a_change_of_what_is_held_is_noticed)
{
	for (int when = BEFORE; when <= AFTER; when++) {
		held_and_changed_at((enum fake_when)when, change, false);
		held_and_changed_at((enum fake_when)when, change_and_drain,
				    false);
		held_and_changed_at((enum fake_when)when, change_begin, true);
	}
}

TEST(errors_mean_another_registration)
{
	struct scene s;

	begin_verifying(&s);
	settle(&s);
	fake_fail(FAKE_VERIFY, 1, 1, EIO);
	fake_alarm(RANGE);
	assert_false(is_cached(&s, 8, PAGES));
	assert_int_equal(stats(&s).refuted, 1);
	fake_alarm(RANGE);
	fake_fail(FAKE_VERIFY, 1, 1, EIO);
	fake_fail(FAKE_PRINT, 1, 1, EIO);
	assert_false(is_cached(&s, 8, PAGES));
	fake_alarm(RANGE);
	assert_false(is_cached(&s, 8, PAGES));
	assert_int_equal(fake_calls(FAKE_VERIFY), 2);
	finish(&s);
}

int main(void)
{
	return run_cases(NULL, NULL);
}
