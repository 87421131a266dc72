/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A registration whose memory has changed, and that nobody holds, is taken over by
 * the thread that wants the same range: deregistered, its watch armed anew,
 * registered. What may happen at each step of that, and what must not.
 */
#include "mrcache-transport.h"
#include "thread.h"
#include "unit.h"

#include <string.h>

#define PAGES 4u
#define RANGE page(8), (PAGES * PAGE)
#define OTHER 200u

/* One that was used, given back, and has changed since. */
static void prepare_with(struct scene *s, const struct mrcache_attr *attr)
{
	begin_with(s, FAKE_STATES, attr);
	touch(s, 8, PAGES);
	fake_change(RANGE);
}

static void prepare(struct scene *s)
{
	struct mrcache_attr attr;

	test_attr(&attr);
	prepare_with(s, &attr);
}

static const enum fake_call calls[] = {FAKE_REG,   FAKE_DEREG, FAKE_WATCH,
				       FAKE_REARM, FAKE_RENEW, FAKE_UNWATCH,
				       FAKE_READ};
#define CALLS (sizeof(calls) / sizeof(*calls))

/* What it takes of each of these: registers, deregisters, and arms once. */
static void assert_calls(struct scene *s, size_t n, size_t pages,
			 const unsigned int expected[CALLS])
{
	unsigned int before[CALLS];

	for (size_t i = 0; i < CALLS; i++)
		before[i] = fake_calls(calls[i]);
	touch(s, n, pages);
	for (size_t i = 0; i < CALLS; i++)
		assert_int_equal(fake_calls(calls[i]) - before[i], expected[i]);
}

static const unsigned int as_new[CALLS] = {1, 0, 1, 0, 0, 0, 0};
static const unsigned int revived[CALLS] = {1, 1, 0, 0, 1, 0, 0};

TEST(arming_is_the_only_call_beside_verbs)
{
	struct scene s;

	begin(&s, FAKE_STATES);
	assert_calls(&s, 8, PAGES, as_new);
	for (int i = 0; i < 20; i++) {
		fake_change(RANGE);
		assert_calls(&s, 8, PAGES, revived);
		assert_true(is_cached(&s, 8, PAGES));
		assert_int_equal(fake_pending(s.monitor), 0);
	}
	assert_int_equal(stats(&s).misses, 21);
	assert_int_equal(stats(&s).invalidations, 20);
	assert_int_equal(stats(&s).cached, 1);
	assert_int_equal(stats(&s).cached_bytes, PAGES * PAGE);
	assert_int_equal(stats(&s).stale_held, 0);
	finish(&s);
}

TEST(without_state_words_there_is_none)
{
	struct scene s;

	begin(&s, 0);
	touch(&s, 8, PAGES);
	fake_change(RANGE);
	touch(&s, 8, PAGES);
	assert_int_equal(fake_calls(FAKE_RENEW), 0);
	assert_int_equal(fake_calls(FAKE_WATCH), 2);
	finish(&s);
}

TEST(it_needs_no_more_room)
{
	struct mrcache_attr attr;
	struct scene s;

	test_attr(&attr);
	attr.max_regs = 1;
	attr.max_bytes = PAGES * PAGE;
	prepare_with(&s, &attr);
	for (int i = 0; i < 5; i++) {
		assert_calls(&s, 8, PAGES, revived);
		fake_change(RANGE);
	}
	assert_int_equal(stats(&s).evictions, 0);
	assert_int_equal(bypasses(&s), 0);
	/* And leaves none behind. */
	touch(&s, OTHER, PAGES);
	assert_true(is_cached(&s, OTHER, PAGES));
	finish(&s);
}

/* ---- what happens meanwhile ----------------------------------------------------- */

static const struct step {
	enum fake_call call;
	enum fake_when when;
} steps[] = {
	{FAKE_DEREG, BEFORE}, {FAKE_DEREG, AFTER}, {FAKE_RENEW, BEFORE},
	{FAKE_RENEW, AFTER},  {FAKE_REG, BEFORE},  {FAKE_REG, DURING},
	{FAKE_REG, AFTER},
};
#define STEPS (sizeof(steps) / sizeof(*steps))

struct at_step {
	struct step step;
	unsigned int times, came;
	void (*act)(struct scene *s);
	struct scene *s;
	struct at_step *also;
};

static void run_at_step(enum fake_call call, enum fake_when when, void *arg)
{
	struct at_step *at;

	for (at = arg; at; at = at->also)
		if (at->step.call == call && at->step.when == when &&
		    at->came++ < at->times)
			at->act(at->s);
}

static void change(struct scene *s)
{
	(void)s;
	fake_change(RANGE);
}

static void change_begin(struct scene *s)
{
	(void)s;
	fake_change_begin(RANGE);
}

static void change_end(struct scene *s)
{
	(void)s;
	fake_change_end(RANGE);
}

static void invalidate(struct scene *s)
{
	assert_int_equal(mrcache_invalidate(s->cache, RANGE), 0);
	fake_new_versions(RANGE); /* no monitor sees it */
}

static void flush(struct scene *s)
{
	/* Somebody is about to get it. */
	assert_int_equal(mrcache_flush(s->cache, NULL), 1);
}

static void *use_it(void *arg)
{
	touch(arg, 8, PAGES);
	return NULL;
}

static void use_elsewhere(struct scene *s)
{
	fake_hook(NULL, NULL);
	in_thread(use_it, s);
}

static void *miss(void *arg)
{
	touch(arg, OTHER, 1);
	return NULL;
}

static void drain_elsewhere(struct scene *s)
{
	fake_hook(NULL, NULL);
	in_thread(miss, s);
	assert_int_equal(fake_pending(s->monitor), 0);
}

static void change_and_drain_elsewhere(struct scene *s)
{
	fake_change(RANGE);
	drain_elsewhere(s);
}

static void act_at_each_step(void (*act)(struct scene *s), unsigned int most)
{
	for (size_t i = 0; i < STEPS; i++)
		for (unsigned int times = 1; times <= most; times++) {
			struct scene s;
			struct at_step at = {steps[i], times, 0, act, &s, NULL};
			struct ibv_mr *mr;

			prepare(&s);
			fake_hook(run_at_step, &at);
			mr = mrcache_reg_mr(s.cache, s.pd, RANGE, LOCAL);
			assert_true(at.came >= 1);
			/* The last look came after whatever it was. */
			assert_non_null(mr);
			assert_true(fake_reaches(mr, RANGE));
			assert_int_equal(bypasses(&s), 0);
			fake_hook(NULL, NULL);
			touch(&s, 8, PAGES);
			give(&s, mr);
			assert_true(is_cached(&s, 8, PAGES));
			assert_int_equal(stats(&s).stale_held, 0);
			assert_int_equal(mrcache_flush(s.cache, NULL), 0);
			assert_int_equal(fake_registered(NULL), 0);
			finish(&s);
		}
}

TEST(a_change_at_any_step_is_noticed)
{
	act_at_each_step(change, 3);
}

TEST(a_change_under_way_is_noticed)
{
	for (size_t from = 0; from < STEPS; from++)
		for (size_t to = from; to < STEPS; to++) {
			struct scene s;
			struct at_step end = {steps[to],  1,  0,
					      change_end, &s, NULL};
			struct at_step start = {steps[from],  1,  0,
						change_begin, &s, &end};
			struct ibv_mr *mr;

			prepare(&s);
			fake_hook(run_at_step, &start);
			mr = mrcache_reg_mr(s.cache, s.pd, RANGE, LOCAL);
			assert_non_null(mr);
			assert_true(fake_reaches(mr, RANGE));
			fake_hook(NULL, NULL);
			give(&s, mr);
			touch(&s, 8, PAGES);
			finish(&s);
		}
}

TEST(invalidate_counts_at_any_step)
{
	act_at_each_step(invalidate, 1);
}

TEST(a_flush_at_any_step_leaves_it)
{
	act_at_each_step(flush, 1);
}

/* They find nothing, make their own, and who comes second uses the first's. */
TEST(others_that_want_it_meanwhile_get_their_own)
{
	act_at_each_step(use_elsewhere, 1);
}

TEST(a_drain_at_any_step_does_not_end_it)
{
	act_at_each_step(drain_elsewhere, 1);
}

TEST(a_change_reported_at_any_step_is_noticed)
{
	act_at_each_step(change_and_drain_elsewhere, 1);
}

/* The report of the change it is taken over for is read while it is. */
TEST(a_report_of_its_last_use_costs_nothing)
{
	struct scene s;
	struct at_step at = {{FAKE_RENEW, BEFORE}, 1,  0,
			     drain_elsewhere,	   &s, NULL};

	prepare(&s);
	fake_hook(run_at_step, &at);
	touch(&s, 8, PAGES);
	assert_int_equal(at.came, 1);
	assert_int_equal(stats(&s).events, 1);
	assert_int_equal(stats(&s).repins, 0);
	assert_true(is_cached(&s, 8, PAGES));
	finish(&s);
}

static void revive_before_the_report_is_looked_at(struct scene *s)
{
	fake_hook(NULL, NULL);
	assert_calls(s, 8, PAGES, revived);
}

/* Or it was read before, and comes to the cache afterwards. */
TEST(a_report_on_its_way_does_not_end_it)
{
	struct scene s;
	struct at_step at = {{FAKE_READ, AFTER},
			     1,
			     0,
			     revive_before_the_report_is_looked_at,
			     &s,
			     NULL};

	prepare(&s);
	fake_hook(run_at_step, &at);
	touch(&s, OTHER, 1);
	assert_int_equal(at.came, 1);
	assert_int_equal(stats(&s).events, 1);
	assert_true(is_cached(&s, 8, PAGES));
	finish(&s);
}

/* Perhaps the domain is another by now, at the same address. */
TEST(its_domain_is_known_for_what_it_is)
{
	struct ibv_context one = {0}, two = {0};
	struct scene s;

	begin(&s, FAKE_STATES);
	s.pd->context = &one;
	touch(&s, 8, PAGES);
	fake_change(RANGE);
	s.pd->context = &two;
	assert_calls(&s, 8, PAGES, revived);
	assert_ptr_equal(s.cache->pds->context, &two);
	s.pd->context = NULL;
	finish(&s);
}

/* ---- what is not taken over ------------------------------------------------------ */

TEST(what_is_held_is_left_to_its_holder)
{
	struct ibv_mr *mr;
	struct scene s;

	begin(&s, FAKE_STATES);
	mr = reg(&s, 8, PAGES);
	fake_change(RANGE);
	touch(&s, 8, PAGES);
	assert_int_equal(fake_calls(FAKE_RENEW), 0);
	assert_true(fake_is_registered(mr));
	assert_false(mrcache_valid(s.cache, mr));
	assert_int_equal(stats(&s).stale_held, 1);
	assert_int_equal(give_in_thread(&s, mr), 0);
	assert_int_equal(fake_registered(NULL), 1);
	assert_int_equal(stats(&s).stale_held, 0);
	assert_true(is_cached(&s, 8, PAGES));
	finish(&s);
}

TEST(what_only_contains_the_range_is_not_taken)
{
	struct mrcache_attr attr;
	struct scene s;

	test_attr(&attr);
	attr.contain = true;
	attr.remote = true;
	prepare_with(&s, &attr);
	touch(&s, 9, 1);
	assert_int_equal(fake_calls(FAKE_RENEW), 0);
	touch(&s, 8, PAGES);
	/* As much is not enough: it must be for the same access. */
	fake_change(RANGE);
	give(&s, reg_range(&s, RANGE, REMOTE));
	assert_int_equal(fake_calls(FAKE_RENEW), 0);
	fake_change(RANGE);
	give(&s, reg_range(&s, RANGE, REMOTE));
	assert_int_equal(fake_calls(FAKE_RENEW), 1);
	finish(&s);
}

/* Nobody uses them again, and who revives does not drain. */
TEST(others_that_changed_go_soon)
{
	struct scene s;
	int i;

	begin(&s, FAKE_STATES);
	touch(&s, 8, PAGES);
	for (size_t n = 0; n < 10; n++)
		touch(&s, OTHER + n, 1);
	fake_change(page(OTHER), 10 * PAGE);
	for (i = 0; i < 100 && fake_registered(NULL) > 1; i++) {
		fake_change(RANGE);
		touch(&s, 8, PAGES);
	}
	assert_true(i > 10 && i <= 64);
	/* And hits find that nothing has changed. */
	assert_int_equal(*s.cache->head.quiet, *s.cache->head.generation + 1);
	finish(&s);
}

/* ---- what fails ------------------------------------------------------------------- */

TEST(memory_that_is_no_longer_cacheable_passes_through)
{
	struct ibv_mr *mr;
	struct scene s;

	prepare(&s);
	fake_fail(FAKE_RENEW, 1, 1, EOPNOTSUPP);
	mr = reg(&s, 8, PAGES);
	assert_int_equal(stats(&s).bypass[MRCACHE_BYPASS_MEMORY], 1);
	assert_int_equal(stats(&s).cached, 0);
	assert_int_equal(fake_watches(s.monitor), 0);
	assert_int_equal(fake_registered(NULL), 1);
	give(&s, mr);
	touch(&s, 8, PAGES);
	assert_true(is_cached(&s, 8, PAGES));
	finish(&s);
}

/* ENOTTY: a driver that is older than the library. */
TEST(what_cannot_be_armed_is_watched_anew)
{
	static const int errors[] = {ENOTTY, ENOENT, EINVAL, EINTR, ESTALE};
	struct scene s;

	for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++) {
		prepare(&s);
		fake_fail(FAKE_RENEW, 1, 1, errors[i]);
		touch(&s, 8, PAGES);
		assert_int_equal(bypasses(&s), 0);
		assert_int_equal(fake_watches(s.monitor), 1);
		assert_true(is_cached(&s, 8, PAGES));
		finish(&s);
	}
}

TEST(a_registration_that_fails_leaves_nothing)
{
	struct scene s;

	prepare(&s);
	fake_fail(FAKE_REG, 1, 1, EPERM);
	errno = 0;
	assert_null(mrcache_reg_mr(s.cache, s.pd, RANGE, LOCAL));
	assert_int_equal(errno, EPERM);
	assert_int_equal(fake_watches(s.monitor), 0);
	assert_int_equal(fake_registered(NULL), 0);
	assert_int_equal(stats(&s).cached, 0);
	touch(&s, 8, PAGES);
	assert_true(is_cached(&s, 8, PAGES));
	finish(&s);
}

static unsigned int ended, ended_stale;

static void note_end(void *arg, struct ibv_mr *mr, bool stale)
{
	(void)arg, (void)mr;
	ended++;
	ended_stale += stale;
}

TEST(its_end_is_told)
{
	struct scene s;

	begin(&s, FAKE_STATES);
	assert_int_equal(mrcache_on_end(s.cache, note_end, NULL), 0);
	ended = ended_stale = 0;
	touch(&s, 8, PAGES);
	fake_change(RANGE);
	touch(&s, 8, PAGES);
	assert_int_equal(ended, 1);
	assert_int_equal(ended_stale, 1);
	finish(&s);
}

int main(void)
{
	return run_cases(NULL, NULL);
}
