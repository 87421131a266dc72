/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whatever happens to the memory at whatever step of a registration or a hit,
 * the cache never hands out a registration of pages that were replaced before
 * it was asked; and what it asks of the monitor, and how it bears its failures.
 */
#include "lookup.h"
#include "thread.h"
#include "unit.h"

#include <string.h>

/* The range all of this is about, and one far away. */
#define PAGES 4u
#define RANGE page(8), (PAGES * PAGE)
#define OTHER 200u

/* ---- a change at every step ---------------------------------------------------- */

static const struct step {
	enum fake_call call;
	enum fake_when when;
} steps[] = {
	{FAKE_WATCH, BEFORE}, {FAKE_WATCH, AFTER}, {FAKE_REG, BEFORE},
	{FAKE_REG, DURING},   {FAKE_REG, AFTER},
};
#define STEPS (sizeof(steps) / sizeof(*steps))
/* After the last step: when the call has returned. */
#define RETURNED STEPS

/* Does something at one step, as often as that step comes, up to `times`. */
struct at_step {
	struct step step;
	unsigned int times, came;
	void (*act)(void *arg);
	void *arg;
	struct at_step *also; /* another one */
};

static void run_at_step(enum fake_call call, enum fake_when when, void *arg)
{
	struct at_step *at;

	for (at = arg; at; at = at->also)
		if (at->step.call == call && at->step.when == when &&
		    at->came++ < at->times)
			at->act(at->arg);
}

static void change(void *arg)
{
	(void)arg;
	fake_change(RANGE);
}

static void change_begin(void *arg)
{
	(void)arg;
	fake_change_begin(RANGE);
}

static void change_end(void *arg)
{
	(void)arg;
	fake_change_end(RANGE);
}

static void change_one_page(void *arg)
{
	(void)arg;
	fake_change(page(9), 1);
}

/* What was handed out last may be stale; what is handed out next must not be. */
static void next_one_is_current(struct scene *s, struct ibv_mr *mr)
{
	assert_non_null(mr);
	fake_hook(NULL, NULL);
	touch(s, 8, PAGES); /* asserts that it reaches what is there now */
	give(s, mr);
	touch(s, 8, PAGES);
	assert_true(is_cached(s, 8, PAGES));
}

TEST_BOTH(a_change_at_any_step_is_noticed)
{
	for (size_t i = 0; i < STEPS; i++)
		for (unsigned int times = 1; times <= 3; times++) {
			struct at_step at = {steps[i], times, 0,
					     change,   NULL,  NULL};
			struct ibv_mr *mr;
			struct scene s;

			begin(&s, flags_of(state));
			fake_hook(run_at_step, &at);
			mr = mrcache_reg_mr(s.cache, s.pd, RANGE, LOCAL);
			assert_true(at.came >= 1);
			/* The last look came after the last change. */
			assert_true(fake_reaches(mr, RANGE));
			assert_int_equal(bypasses(&s), 0);
			assert_int_equal(stats(&s).misses, 1);
			next_one_is_current(&s, mr);
			finish(&s);
		}
}

TEST_BOTH(a_change_of_one_page_is_noticed)
{
	for (size_t i = 0; i < STEPS; i++) {
		struct at_step at = {steps[i],	      1,    0,
				     change_one_page, NULL, NULL};
		struct ibv_mr *mr;
		struct scene s;

		begin(&s, flags_of(state));
		fake_hook(run_at_step, &at);
		mr = mrcache_reg_mr(s.cache, s.pd, RANGE, LOCAL);
		assert_true(fake_reaches(mr, RANGE));
		next_one_is_current(&s, mr);
		finish(&s);
	}
}

/* A change takes time: it begins at one step and ends at a later one. */
TEST_BOTH(a_change_under_way_is_noticed)
{
	for (size_t from = 0; from < STEPS; from++)
		for (size_t to = from; to <= RETURNED; to++) {
			struct at_step end = {{FAKE_CLOSE, DURING}, 1,	  0,
					      change_end,	    NULL, NULL};
			struct at_step start = {steps[from],  1,    0,
						change_begin, NULL, &end};
			struct ibv_mr *mr;
			struct scene s;

			begin(&s, flags_of(state));
			if (to < RETURNED)
				end.step = steps[to];
			fake_hook(run_at_step, &start);
			mr = mrcache_reg_mr(s.cache, s.pd, RANGE, LOCAL);
			assert_non_null(mr);
			if (to == RETURNED)
				change_end(NULL);
			else
				assert_true(fake_reaches(mr, RANGE));
			next_one_is_current(&s, mr);
			finish(&s);
		}
}

TEST_BOTH(a_change_after_publication_is_noticed)
{
	struct ibv_mr *mr;
	struct scene s;

	begin(&s, flags_of(state));
	for (int i = 0; i < 5; i++) {
		mr = reg(&s, 8, PAGES);
		fake_change(page(8 + i % PAGES), 1);
		assert_false(mrcache_valid(s.cache, mr));
		give(&s, mr);
		touch(&s, 8, PAGES);
	}
	assert_int_equal(stats(&s).misses, 6);
	assert_int_equal(stats(&s).hits, 4);
	finish(&s);
}

TEST_BOTH(a_change_while_idle_is_noticed)
{
	struct scene s;

	begin(&s, flags_of(state));
	for (int i = 0; i < 5; i++) {
		touch(&s, 8, PAGES);
		fake_change(page(8 + i % PAGES), 1);
	}
	touch(&s, 8, PAGES);
	assert_int_equal(stats(&s).misses, 6);
	assert_int_equal(stats(&s).hits, 0);
	finish(&s);
}

TEST_BOTH(changes_of_other_memory_cost_nothing)
{
	struct scene s;

	begin(&s, flags_of(state));
	touch(&s, 8, PAGES);
	touch(&s, OTHER, 1);
	fake_change(page(7), PAGE);
	fake_change(page(8 + PAGES), PAGE);
	fake_change(page(OTHER), PAGE);
	assert_true(is_cached(&s, 8, PAGES));
	finish(&s);
}

/* Without a drain in between nothing else than the hit itself can tell. */
TEST_BOTH(another_thread_does_not_get_a_stale_one)
{
	struct scene s;
	struct ibv_mr *mr;

	begin(&s, flags_of(state));
	mr = reg(&s, 8, PAGES);
	fake_change(RANGE);
	assert_int_equal(give_in_thread(&s, mr), 0);
	touch(&s, 8, PAGES);
	finish(&s);
}

/* ---- pinning that changes the mapping ------------------------------------------ */

TEST_BOTH(repins_are_bounded)
{
	for (unsigned int repins = 0; repins <= 4; repins++)
		for (unsigned int times = 0; times <= repins + 2; times++) {
			struct at_step at = {{FAKE_REG, DURING},
					     times,
					     0,
					     change,
					     NULL,
					     NULL};
			bool stable = times <= repins;
			struct mrcache_attr attr;
			struct mrcache_stats now;
			unsigned int rearms = fake_calls(FAKE_REARM);
			struct ibv_mr *mr;
			struct scene s;

			test_attr(&attr);
			attr.repins = repins;
			begin_with(&s, flags_of(state), &attr);
			fake_hook(run_at_step, &at);
			mr = mrcache_reg_mr(s.cache, s.pd, RANGE, LOCAL);
			assert_non_null(mr);
			fake_hook(NULL, NULL);
			now = stats(&s);
			assert_int_equal(now.repins, stable ? times : repins);
			assert_int_equal(now.registrations, now.repins + 1);
			assert_int_equal(now.deregistrations, now.repins);
			assert_int_equal(now.misses, stable);
			assert_int_equal(now.cached, stable);
			assert_int_equal(now.uncached, !stable);
			assert_int_equal(now.bypass[MRCACHE_BYPASS_UNSTABLE],
					 !stable);
			assert_int_equal(bypasses(&s), !stable);
			assert_int_equal(fake_registered(NULL), 1);
			assert_int_equal(fake_watches(s.monitor), stable);
			assert_int_equal(fake_calls(FAKE_REARM),
					 rearms + now.repins);
			give(&s, mr);
			/* It was not its last chance. */
			touch(&s, 8, PAGES);
			assert_true(is_cached(&s, 8, PAGES));
			finish(&s);
		}
}

TEST_BOTH(a_false_alarm_while_pinning_costs_a_repin_only)
{
	struct scene s;
	struct at_step at = {{FAKE_REG, DURING}, 1, 0, change, NULL, NULL};

	begin(&s, flags_of(state));
	fake_hook(run_at_step, &at);
	touch(&s, 8, PAGES);
	assert_int_equal(stats(&s).repins, 1);
	assert_true(is_cached(&s, 8, PAGES));
	finish(&s);
}

static void invalidate_all(void *arg)
{
	struct scene *s = arg;

	assert_int_equal(mrcache_invalidate(s->cache, RANGE), 0);
	fake_new_versions(RANGE); /* no monitor sees it */
}

TEST_BOTH(invalidate_counts_while_registering)
{
	for (size_t i = 0; i < STEPS; i++) {
		struct scene s;
		struct at_step at = {steps[i], 1, 0, invalidate_all, &s, NULL};
		struct ibv_mr *mr;

		begin(&s, flags_of(state));
		fake_hook(run_at_step, &at);
		mr = mrcache_reg_mr(s.cache, s.pd, RANGE, LOCAL);
		assert_true(fake_reaches(mr, RANGE));
		next_one_is_current(&s, mr);
		finish(&s);
	}
}

/* Registers what the outer call registers, too. */
static void reg_the_same(void *arg)
{
	struct scene *s = arg;

	fake_hook(NULL, NULL);
	touch(s, 8, PAGES);
}

TEST_BOTH(who_was_slower_uses_what_the_other_made)
{
	for (size_t i = 0; i < STEPS; i++) {
		struct scene s;
		struct at_step at = {steps[i], 1, 0, reg_the_same, &s, NULL};

		begin(&s, flags_of(state));
		fake_hook(run_at_step, &at);
		touch(&s, 8, PAGES);
		assert_int_equal(stats(&s).misses, 1);
		assert_int_equal(stats(&s).hits, 1);
		assert_int_equal(stats(&s).cached, 1);
		assert_int_equal(fake_registered(NULL), 1);
		assert_int_equal(fake_watches(s.monitor), 1);
		finish(&s);
	}
}

TEST_BOTH(the_slower_one_does_not_use_what_became_stale)
{
	struct scene s;
	struct at_step then = {{FAKE_REG, AFTER}, 1, 0, change, NULL, NULL};
	struct at_step at = {{FAKE_WATCH, AFTER}, 1, 0, NULL, &s, &then};

	begin(&s, flags_of(state));
	/* The inner one is published, then both become stale. */
	at.act = reg_the_same;
	fake_hook(run_at_step, &at);
	touch(&s, 8, PAGES);
	fake_change(RANGE);
	touch(&s, 8, PAGES);
	finish(&s);
}

/* ---- between check and publication, between hold and check ---------------------- */

/* Trap functions: what other threads do meanwhile, done in this one. */
struct meanwhile {
	struct scene *s;
	bool found, ran;
};

static const struct mr_want *want(struct scene *s)
{
	static struct mr_want w;

	w = (struct mr_want){.pd = s->pd,
			     .start = (uintptr_t)page(8),
			     .length = PAGES * PAGE,
			     .access = LOCAL};
	return &w;
}

/* Whether a hit would hand out a registration of the range, without locks. */
static void look(void *arg)
{
	struct meanwhile *m = arg;
	struct mr_hold hold;

	m->ran = true;
	m->found = mr_find_same(m->s->cache, mrc_thread(m->s->cache),
				want(m->s), &hold);
	if (m->found)
		mr_hold_drop(m->s->cache, &hold);
}

static void *miss_elsewhere(void *arg)
{
	struct scene *s = arg;

	touch(s, OTHER, 1);
	return NULL;
}

static void change_trap(void *arg)
{
	struct meanwhile *m = arg;

	m->ran = true;
	fake_change(RANGE);
}

/* The state word of a stale one is looked at again right before publication. */
TEST(a_change_between_check_and_publication_is_noticed)
{
	struct meanwhile m = {0};
	struct scene s;
	struct ibv_mr *mr;
	uint32_t slot;

	begin(&s, FAKE_STATES | FAKE_TRAPS);
	m.s = &s;
	touch(&s, 8, PAGES);
	slot = fake_slot(s.monitor, RANGE);
	fake_change(RANGE);
	/* Nobody drains, so that the stale one stays in the index. */
	fake_fail(FAKE_READ, 1, FAKE_FOR_EVER, EIO);
	mr = reg(&s, 8, PAGES); /* one of the two looks */
	give(&s, mr);
	fake_change(RANGE);
	fake_trap_state(s.monitor, slot, change_trap, &m);
	mr = mrcache_reg_mr(s.cache, s.pd, RANGE, LOCAL);
	assert_non_null(mr);
	assert_true(m.ran);
	fake_fail(FAKE_READ, 1, 0, EIO);
	next_one_is_current(&s, mr);
	finish(&s);
}

static void trap_own_state(void *arg)
{
	struct meanwhile *m = arg;

	/* What a drain of another thread finds while this one registers. */
	fake_hook(NULL, NULL);
	fake_change(RANGE);
	in_thread(miss_elsewhere, m->s);
	assert_int_equal(fake_pending(m->s->monitor), 0);
	fake_trap_state(m->s->monitor, fake_slot(m->s->monitor, RANGE), look,
			m);
}

TEST(nothing_is_handed_out_before_it_was_checked)
{
	struct scene s;
	struct meanwhile m = {.s = &s};
	struct at_step at = {{FAKE_REG, AFTER}, 1, 0, trap_own_state, &m, NULL};

	begin(&s, FAKE_STATES | FAKE_TRAPS);
	fake_hook(run_at_step, &at);
	touch(&s, 8, PAGES);
	assert_true(m.ran);
	assert_false(m.found);
	assert_int_equal(stats(&s).repins, 1);
	finish(&s);
}

/* Here the drain of another thread comes after the look, before publication. */
static void drain_after_look(void *arg)
{
	struct meanwhile *m = arg;

	m->ran = true;
	fake_change(RANGE);
	in_thread(miss_elsewhere, m->s);
	/* The word is what it was, when it is read now: as if read before. */
	fake_new_versions(RANGE);
}

TEST(a_change_right_before_the_check_is_noticed)
{
	struct scene s;
	struct meanwhile m = {.s = &s};
	struct ibv_mr *mr;

	begin(&s, FAKE_STATES | FAKE_TRAPS);
	touch(&s, 8, PAGES);
	fake_change(RANGE);
	fake_trap_generation(s.monitor, drain_after_look, &m);
	mr = mrcache_reg_mr(s.cache, s.pd, RANGE, LOCAL);
	assert_non_null(mr);
	assert_true(m.ran);
	next_one_is_current(&s, mr);
	finish(&s);
}

TEST(what_is_drained_was_doomed_before)
{
	struct scene s;
	struct meanwhile m = {.s = &s};

	begin(&s, FAKE_STATES | FAKE_TRAPS);
	touch(&s, 8, PAGES);
	fake_change(RANGE);
	/* The drain looks at the word before it dooms; nobody else does. */
	fake_trap_state(s.monitor, fake_slot(s.monitor, RANGE), look, &m);
	touch(&s, OTHER, 1);
	assert_true(m.ran);
	assert_false(m.found);
	touch(&s, 8, PAGES);
	finish(&s);
}

/* A hit that has counted its hold when the memory changes and others drain. */
static void doom_under_hold(void *arg)
{
	struct meanwhile *m = arg;

	m->ran = true;
	fake_change(RANGE);
	in_thread(miss_elsewhere, m->s);
	/* Not while somebody may be about to use it. */
	m->found = fake_registered(NULL) == 2;
}

TEST_BOTH(a_hit_that_loses_the_race_ends_what_it_held)
{
	struct scene s;
	struct meanwhile m = {.s = &s};

	begin(&s, flags_of(state) | FAKE_TRAPS);
	touch(&s, 8, PAGES);
	fake_trap_generation(s.monitor, doom_under_hold, &m);
	touch(&s, 8, PAGES);
	assert_true(m.ran);
	assert_true(m.found);
	assert_int_equal(fake_registered(NULL), 2); /* the new one, the other */
	assert_int_equal(stats(&s).stale_held, 0);
	finish(&s);
}

static void flush_under_hold(void *arg)
{
	struct meanwhile *m = arg;

	m->ran = true;
	mrcache_flush(m->s->cache, NULL);
}

/*
 * Between a thread's look at a registration and its hold there is nothing that
 * a trap could stop, so the hold that comes too late is made by hand.
 */
TEST_BOTH(a_hold_of_an_earlier_use_does_not_keep_a_later_one)
{
	struct scene s;
	struct meanwhile m = {.s = &s};
	struct mr_hold hold;

	begin(&s, flags_of(state) | FAKE_TRAPS);
	touch(&s, 8, PAGES);
	hold.mr = mr_of_number(s.cache, 0);
	hold.life = atomic_load(&hold.mr->life);
	hold.count = mrc_thread_count(mrc_thread(s.cache), 0);
	assert_int_equal(mrcache_flush(s.cache, NULL), 0);
	/* The same structure serves another range. */
	touch(&s, OTHER, 1);
	assert_int_equal(atomic_load(&hold.mr->start), (uintptr_t)page(OTHER));
	fake_trap_generation(s.monitor, flush_under_hold, &m);
	assert_false(mr_try_hold(s.cache, &hold));
	assert_true(m.ran);
	assert_int_equal(stats(&s).cached, 0);
	assert_int_equal(fake_registered(NULL), 0);
	finish(&s);
}

/* Whoever holds, and asks before each use, is soon fast again without a miss. */
TEST_BOTH(asking_is_fast_again_after_a_change_elsewhere)
{
	struct ibv_mr *mr;
	struct scene s;

	begin(&s, flags_of(state));
	mr = reg(&s, 0, 1);
	for (int i = 0; i < 3; i++) {
		fake_noise(s.monitor);
		assert_int_not_equal(*s.cache->head.quiet,
				     *s.cache->head.generation + 1);
		for (int n = 0; n < 64; n++)
			assert_true(mrcache_valid(s.cache, mr));
		assert_int_equal(*s.cache->head.quiet,
				 *s.cache->head.generation + 1);
	}
	give(&s, mr);
	finish(&s);
}

/* The counters may be in a file that others can write to: only for show. */
TEST_BOTH(what_others_write_to_the_counters_is_not_believed)
{
	struct ibv_mr *mr;
	struct scene s;

	begin(&s, flags_of(state));
	mr = reg(&s, 0, 1);
	fake_change(page(0), PAGE);
	touch(&s, 1, 1);
	assert_false(mrcache_valid(s.cache, mr));
	for (int i = 0; i < STATS; i++)
		atomic_store(&s.cache->counters->counts[i], 0);
	fake_noise(s.monitor);
	touch(&s, 2, 1);
	assert_false(mrcache_valid(s.cache, mr));
	give(&s, mr);
	assert_int_equal(mrcache_flush(s.cache, NULL), 0);
	for (int i = 0; i < STATS; i++)
		atomic_store(&s.cache->counters->counts[i], 0);
	finish(&s);
}

/* So much is known of what is held; it stays so when it is stale. */
TEST_BOTH(what_is_watched_can_be_told)
{
	struct ibv_mr *mr, *passed;
	struct scene s;

	begin(&s, flags_of(state));
	mr = reg(&s, 0, 1);
	passed = mrcache_reg_mr(s.cache, s.pd, page(1), PAGE,
				IBV_ACCESS_MW_BIND);
	assert_true(mrcache_is_watched(s.cache, mr));
	assert_false(mrcache_is_watched(s.cache, passed));
	assert_true(mrcache_valid(s.cache, passed));
	fake_change(page(0), 2 * PAGE);
	touch(&s, 2, 1);
	assert_true(mrcache_is_watched(s.cache, mr));
	assert_false(mrcache_is_watched(s.cache, passed));
	assert_false(mrcache_is_watched(s.cache, NULL));
	assert_false(mrcache_is_watched(NULL, mr));
	give(&s, mr);
	give(&s, passed);
	assert_false(mrcache_is_watched(s.cache, mr));
	finish(&s);
	assert_false(mrcache_is_watched(s.cache, mr));
}

/* A lost registration keeps the entry of a pd that was freed; another follows. */
TEST_BOTH(a_pd_at_the_address_of_another_is_known_for_what_it_is)
{
	struct ibv_context one = {0}, two = {0};
	struct ibv_mr *lost;
	struct scene s;

	begin(&s, flags_of(state));
	s.pd->context = &one;
	s.pd->handle = 1;
	lost = reg(&s, 0, 1);
	s.pd->context = &two;
	s.pd->handle = 2;
	touch(&s, 1, 1);
	assert_ptr_equal(s.cache->pds->context, &two);
	assert_int_equal(s.cache->pds->handle, 2);
	give(&s, lost);
	s.pd->context = NULL;
	s.pd->handle = 0;
	finish(&s);
}

TEST_BOTH(valid_sees_a_change_that_comes_while_it_looks)
{
	struct scene s;
	struct meanwhile m = {.s = &s};
	struct ibv_mr *mr;

	begin(&s, flags_of(state) | FAKE_TRAPS);
	mr = reg(&s, 8, PAGES);
	fake_trap_generation(s.monitor, change_trap, &m);
	assert_false(mrcache_valid(s.cache, mr));
	assert_true(m.ran);
	m.ran = false;
	give(&s, mr);
	mr = reg(&s, 8, PAGES);
	fake_trap_generation(s.monitor, doom_under_hold, &m);
	assert_false(mrcache_valid(s.cache, mr));
	assert_true(m.ran);
	give(&s, mr);
	finish(&s);
}

/* ---- calls of the monitor -------------------------------------------------------- */

TEST_BOTH(a_hit_makes_no_call)
{
	struct ibv_mr *mr;
	struct scene s;
	unsigned int calls;

	begin(&s, flags_of(state));
	mr = reg(&s, 8, PAGES);
	touch(&s, OTHER, 1);
	calls = fake_all_calls();
	for (int i = 0; i < 100; i++) {
		touch(&s, 8, PAGES);
		touch(&s, OTHER, 1);
	}
	in_thread(miss_elsewhere, &s); /* a hit there, too, by the index */
	assert_int_equal(give_in_thread(&s, reg(&s, 8, PAGES)), 0);
	assert_int_equal(fake_all_calls(), calls);
	give(&s, mr);
	finish(&s);
}

TEST(with_state_words_a_hit_makes_no_call_whatever_else_changes)
{
	struct scene s;
	struct ibv_mr *mr;
	unsigned int calls;

	begin(&s, FAKE_STATES);
	mr = reg(&s, 8, PAGES);
	for (size_t n = 0; n < 20; n++)
		touch(&s, OTHER + n, 1);
	calls = fake_all_calls();
	for (size_t n = 1; n < 20; n++) {
		fake_change(page(OTHER + n), 1);
		touch(&s, 8, PAGES);
		assert_true(mrcache_valid(s.cache, mr));
		in_thread(miss_elsewhere, &s); /* page OTHER: a hit */
	}
	assert_int_equal(fake_all_calls(), calls);
	assert_int_equal(stats(&s).drains, 0);
	assert_int_equal(fake_pending(s.monitor), 19);
	give(&s, mr);
	finish(&s);
}

TEST(without_state_words_a_change_costs_one_drain)
{
	struct scene s;
	unsigned int calls;

	begin(&s, 0);
	touch(&s, 8, PAGES);
	for (int i = 1; i <= 5; i++) {
		fake_noise(s.monitor);
		calls = fake_calls(FAKE_READ);
		assert_true(is_cached(&s, 8, PAGES));
		assert_int_equal(fake_calls(FAKE_READ), calls + 1);
		assert_true(is_cached(&s, 8, PAGES));
		assert_int_equal(fake_calls(FAKE_READ), calls + 1);
	}
	assert_int_equal(stats(&s).drains, 5);
	finish(&s);
}

TEST_BOTH(a_miss_is_one_watch_and_one_pin)
{
	struct scene s;

	begin(&s, flags_of(state));
	for (unsigned int n = 1; n < 5; n++) {
		touch(&s, n, 1);
		assert_int_equal(fake_calls(FAKE_WATCH), n);
		assert_int_equal(fake_calls(FAKE_REG), n);
		assert_int_equal(fake_all_calls(), 2 * n);
	}
	finish(&s);
}

/* ---- events ------------------------------------------------------------------------ */

TEST_BOTH(events_are_read_until_there_are_none)
{
	static const unsigned int per_read[] = {1, 2, 3, 127, 128};

	for (size_t i = 0; i < sizeof(per_read) / sizeof(*per_read); i++)
		for (unsigned int alone = 0; alone <= FAKE_ALONE;
		     alone += FAKE_ALONE) {
			struct scene s;

			begin(&s, flags_of(state) | alone);
			fake_per_read(s.monitor, per_read[i]);
			for (size_t n = 0; n < 256; n++)
				touch(&s, n, 1);
			fake_change(page(0), 256 * PAGE);
			assert_int_equal(fake_pending(s.monitor), 256);
			touch(&s, 1000, 1);
			assert_int_equal(stats(&s).events, 256);
			assert_int_equal(stats(&s).invalidations, 256);
			assert_int_equal(stats(&s).drains, 1);
			assert_int_equal(fake_registered(NULL), 1);
			assert_true(is_cached(&s, 1000, 1));
			finish(&s);
		}
}

static void storm(void *arg)
{
	size_t *n = arg;

	fake_change(page(300 + (*n)++ % 64), 1);
}

TEST_BOTH(events_that_keep_coming_are_read_while_they_come)
{
	struct scene s;
	size_t n = 0;
	struct at_step at = {{FAKE_READ, BEFORE}, 64, 0, storm, &n, NULL};

	begin(&s, flags_of(state));
	fake_per_read(s.monitor, 1);
	for (size_t i = 0; i < 64; i++)
		touch(&s, 300 + i, 1);
	touch(&s, 8, PAGES);
	fake_hook(run_at_step, &at);
	fake_change(page(300), 1);
	for (size_t i = 0; i < 64; i++) {
		touch(&s, 8, PAGES);
		touch(&s, 300 + i, 1);
	}
	assert_int_equal(stats(&s).misses - stats(&s).invalidations, 65);
	finish(&s);
}

/* What comes between the last read and what follows from it. */
TEST_BOTH(a_change_after_the_last_event_was_read_is_noticed)
{
	struct scene s;
	struct at_step at = {{FAKE_READ, AFTER}, 1, 0, change, NULL, NULL};

	begin(&s, flags_of(state));
	touch(&s, 8, PAGES);
	touch(&s, OTHER, 1);
	fake_change(page(OTHER), 1);
	fake_hook(run_at_step, &at);
	touch(&s, OTHER + 1, 1); /* new, so it drains */
	assert_int_equal(at.came, 1 + !(flags_of(state) & FAKE_STATES));
	touch(&s, 8, PAGES);
	finish(&s);
}

TEST_BOTH(cookies_of_nothing_are_ignored)
{
	const bool states = flags_of(state) & FAKE_STATES;
	uint64_t cookie, wild[16];
	struct scene s;
	size_t n = 0;

	begin(&s, flags_of(state));
	fake_event(s.monitor, 0x1234567890); /* before there is anything */
	touch(&s, OTHER, 1);
	touch(&s, 8, PAGES);
	touch(&s, 60, 1);
	cookie = fake_cookie(s.monitor, page(60), 1);
	wild[n++] = 0;
	wild[n++] = 1;
	wild[n++] = UINT64_MAX;
	wild[n++] = UINT64_MAX - 63;
	wild[n++] = (uintptr_t)s.cache;
	wild[n++] = (uintptr_t)&n;
	wild[n++] = cookie + 1;
	wild[n++] = cookie + 8;
	wild[n++] = cookie - 1;
	wild[n++] = cookie + 500 * sizeof(struct mr);  /* never used yet */
	wild[n++] = cookie + 1022 * sizeof(struct mr); /* past the last */
	wild[n++] = cookie - 3 * sizeof(struct mr);    /* before the first */
	for (size_t i = 0; i < n; i++)
		fake_event(s.monitor, wild[i]);
	touch(&s, OTHER + 1, 1); /* drains */
	assert_int_equal(stats(&s).events, n + 1);
	assert_int_equal(stats(&s).invalidations, 0);
	assert_true(is_cached(&s, 8, PAGES));
	assert_true(is_cached(&s, 60, 1));

	/* Of a registration that its state word calls untouched. */
	fake_event(s.monitor, cookie);
	touch(&s, OTHER + 2, 1);
	assert_int_equal(is_cached(&s, 60, 1), states);
	finish(&s);
}

/* Between read() and what follows, the registration goes and another comes. */
static void reuse(void *arg)
{
	struct scene *s = arg;
	uint64_t cookie = fake_cookie(s->monitor, RANGE);

	fake_hook(NULL, NULL);
	assert_int_equal(mrcache_flush(s->cache, NULL), 0);
	touch(s, 50, 1);
	assert_int_equal(fake_cookie(s->monitor, page(50), 1), cookie);
}

TEST(an_event_of_an_earlier_use_is_ignored)
{
	struct scene s;
	struct at_step at = {{FAKE_READ, AFTER}, 1, 0, reuse, &s, NULL};

	begin(&s, FAKE_STATES);
	touch(&s, 8, PAGES);
	fake_change(RANGE);
	fake_hook(run_at_step, &at);
	touch(&s, OTHER, 1);
	assert_int_equal(at.came, 1);
	assert_int_equal(stats(&s).events, 1);
	assert_int_equal(stats(&s).invalidations, 0);
	assert_true(is_cached(&s, 50, 1));
	fake_change(page(50), 1);
	assert_false(is_cached(&s, 50, 1));
	finish(&s);
}

static void flush_all(void *arg)
{
	struct scene *s = arg;

	fake_hook(NULL, NULL);
	mrcache_flush(s->cache, NULL);
}

TEST_BOTH(an_event_of_what_has_gone_is_ignored)
{
	struct scene s;
	struct at_step at = {{FAKE_READ, AFTER}, 1, 0, flush_all, &s, NULL};
	struct ibv_mr *mr;

	begin(&s, flags_of(state));
	mr = reg(&s, 20, 1);
	touch(&s, 8, PAGES);
	fake_change(page(8), 20 * PAGE);
	fake_hook(run_at_step, &at);
	touch(&s, OTHER, 1);
	assert_int_equal(stats(&s).events, 2);
	/* Flushed, but its holder may still ask. */
	assert_int_equal(stats(&s).stale_held, 1);
	assert_false(mrcache_valid(s.cache, mr));
	give(&s, mr);
	assert_int_equal(fake_registered(NULL), 1);
	finish(&s);
}

/* One thread reads; another that wants to is not kept waiting by it. */
static void miss_in_thread(void *arg)
{
	struct scene *s = arg;

	fake_hook(NULL, NULL);
	in_thread(miss_elsewhere, s);
}

TEST(with_state_words_nobody_waits_for_a_drain)
{
	struct scene s;
	struct at_step at = {{FAKE_READ, BEFORE}, 1,  0,
			     miss_in_thread,	  &s, NULL};

	begin(&s, FAKE_STATES);
	touch(&s, 8, PAGES);
	fake_change(RANGE);
	fake_hook(run_at_step, &at);
	touch(&s, 8, 1); /* new, so it drains */
	assert_int_equal(fake_calls(FAKE_READ), 1);
	assert_int_equal(stats(&s).misses, 3);
	finish(&s);
}

/* ---- a monitor that fails ---------------------------------------------------------- */

TEST_BOTH(an_error_of_watch_means_an_ordinary_registration)
{
	static const struct {
		int error;
		enum mrcache_bypass reason;
	} errors[] = {
		{EOPNOTSUPP, MRCACHE_BYPASS_MEMORY},
		{ENOSPC, MRCACHE_BYPASS_WATCH},
		{ENOMEM, MRCACHE_BYPASS_WATCH},
		{EINVAL, MRCACHE_BYPASS_WATCH},
		{EINTR, MRCACHE_BYPASS_WATCH},
		{ESTALE, MRCACHE_BYPASS_WATCH},
		{EEXIST, MRCACHE_BYPASS_WATCH},
		{EFAULT, MRCACHE_BYPASS_WATCH},
	};
	struct scene s;

	begin(&s, flags_of(state));
	for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++) {
		struct mrcache_stats before = stats(&s);

		fake_fail(FAKE_WATCH, 1, 1, errors[i].error);
		give(&s, reg(&s, 8, PAGES));
		assert_int_equal(stats(&s).bypass[errors[i].reason],
				 before.bypass[errors[i].reason] + 1);
		assert_int_equal(bypasses(&s), i + 1);
		assert_int_equal(stats(&s).retries, 0);
		assert_int_equal(fake_registered(NULL), 0);
		assert_int_equal(fake_calls(FAKE_WATCH), i + 1);
	}
	assert_false(is_cached(&s, 8, PAGES));
	assert_true(is_cached(&s, 8, PAGES));
	finish(&s);
}

TEST_BOTH(no_more_watches_means_evicting)
{
	struct scene s;
	struct ibv_mr *held[3];

	begin(&s, flags_of(state));
	fake_max_watches(s.monitor, 4);
	for (size_t n = 0; n < 20; n++) {
		touch(&s, n, 1);
		assert_true(is_cached(&s, n, 1));
	}
	assert_int_equal(stats(&s).misses, 20);
	assert_int_equal(bypasses(&s), 0);
	assert_true(stats(&s).evictions >= 16);
	assert_true(stats(&s).cached <= 4);

	/* As long as anything is idle; then what is new passes through. */
	assert_int_equal(mrcache_flush(s.cache, NULL), 0);
	for (size_t n = 0; n < 3; n++)
		held[n] = reg(&s, n, 1);
	for (size_t n = 10; n < 20; n++)
		touch(&s, n, 1);
	assert_int_equal(bypasses(&s), 0);
	touch(&s, 19, 1);
	give(&s, mrcache_reg_mr(s.cache, s.pd, page(5), PAGE, LOCAL));
	for (size_t n = 0; n < 3; n++) {
		assert_true(fake_is_registered(held[n]));
		assert_true(mrcache_valid(s.cache, held[n]));
	}
	assert_int_equal(bypasses(&s), 0);
	fake_max_watches(s.monitor, 3);
	assert_int_equal(mrcache_flush(s.cache, fake_pd(1)), 0);
	for (size_t n = 0; n < 3; n++)
		give(&s, held[n]);
	finish(&s);
}

TEST_BOTH(no_more_watches_while_all_is_held_passes_through)
{
	struct scene s;
	struct ibv_mr *held[4], *mr;

	begin(&s, flags_of(state));
	fake_max_watches(s.monitor, 4);
	for (size_t n = 0; n < 4; n++)
		held[n] = reg(&s, n, 1);
	mr = reg(&s, 8, PAGES);
	assert_int_equal(stats(&s).bypass[MRCACHE_BYPASS_WATCH], 1);
	assert_int_equal(stats(&s).uncached, 1);
	assert_int_equal(stats(&s).evictions, 0);
	assert_int_equal(fake_calls(FAKE_WATCH), 5);
	for (size_t n = 0; n < 4; n++) {
		assert_true(is_cached(&s, n, 1));
		give(&s, held[n]);
	}
	give(&s, mr);
	finish(&s);
}

TEST_BOTH(an_error_of_rearm_means_an_uncached_one)
{
	struct scene s;
	struct at_step at = {{FAKE_REG, DURING}, 1, 0, change, NULL, NULL};
	struct ibv_mr *mr;

	begin(&s, flags_of(state));
	fake_hook(run_at_step, &at);
	fake_fail(FAKE_REARM, 1, 1, ENOENT);
	mr = mrcache_reg_mr(s.cache, s.pd, RANGE, LOCAL);
	assert_non_null(mr);
	assert_int_equal(stats(&s).bypass[MRCACHE_BYPASS_WATCH], 1);
	assert_int_equal(stats(&s).cached, 0);
	assert_int_equal(fake_watches(s.monitor), 0);
	next_one_is_current(&s, mr);
	finish(&s);
}

TEST_BOTH(while_read_fails_nothing_stale_is_handed_out)
{
	const bool states = flags_of(state) & FAKE_STATES;
	struct ibv_mr *held, *passed;
	struct scene s;

	begin(&s, flags_of(state));
	held = reg(&s, 30, 1);
	passed = reg_range(&s, page(31), PAGE, LOCAL | IBV_ACCESS_ON_DEMAND);
	touch(&s, 8, PAGES);
	touch(&s, OTHER, 1);
	fake_fail(FAKE_READ, 1, FAKE_FOR_EVER, EIO);
	assert_true(is_cached(&s, 8, PAGES));
	for (int i = 0; i < 4; i++) {
		fake_change(RANGE);
		touch(&s, 8, PAGES);
		touch(&s, 40 + (size_t)i, 1);
		assert_int_equal(is_cached(&s, OTHER, 1), states);
		assert_int_equal(mrcache_valid(s.cache, held), states);
		/* What is not cached the monitor has no say in. */
		assert_true(mrcache_valid(s.cache, passed));
	}
	assert_int_equal(log_lines(MRCACHE_LOG_ERROR), 1);
	if (states)
		assert_int_equal(bypasses(&s), 1);
	else
		assert_true(bypasses(&s) > 1);

	fake_fail(FAKE_READ, 1, 0, EIO);
	touch(&s, OTHER + 1, 1);
	assert_true(is_cached(&s, OTHER, 1));
	assert_true(mrcache_valid(s.cache, held));
	touch(&s, 8, PAGES);
	assert_true(is_cached(&s, 8, PAGES));
	assert_int_equal(fake_pending(s.monitor), 0);
	give(&s, passed);
	give(&s, held);
	finish(&s);
}

TEST_BOTH(a_read_that_is_interrupted_is_read_again)
{
	struct scene s;

	/* 0 events and not empty: what EINTR is made of. */
	begin(&s, flags_of(state));
	touch(&s, 8, PAGES);
	touch(&s, OTHER, 1);
	fake_per_read(s.monitor, 1);
	fake_change(RANGE);
	touch(&s, OTHER + 1, 1);
	assert_int_equal(stats(&s).invalidations, 1);
	finish(&s);
}

TEST_BOTH(errors_of_unwatch_do_not_matter)
{
	struct scene s;

	begin(&s, flags_of(state));
	touch(&s, 8, PAGES);
	fake_fail(FAKE_UNWATCH, 1, 1, EIO);
	assert_int_equal(mrcache_flush(s.cache, NULL), 0);
	assert_int_equal(fake_registered(NULL), 0);
	finish(&s);
}

int main(void)
{
	return run_cases(NULL, NULL);
}
