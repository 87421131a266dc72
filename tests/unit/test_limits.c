/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is scarce: room in the cache, memory that may be locked, and memory at
 * all. What is idle makes room, and what is held never goes.
 */
#include "evict.h"
#include "hit.h"
#include "unit.h"

static void begin_limited(struct scene *s, unsigned int flags,
			  uint64_t max_bytes, uint64_t max_regs)
{
	struct mrcache_attr attr;

	test_attr(&attr);
	attr.max_bytes = max_bytes;
	attr.max_regs = max_regs;
	begin_with(s, flags, &attr);
}

static bool is_there(struct scene *s, size_t n)
{
	return fake_cookie(s->monitor, page(n), 1) != 0;
}

static uint64_t passed(struct scene *s, enum mrcache_bypass reason)
{
	return stats(s).bypass[reason];
}

/* ---- the cache's own limits ------------------------------------------------------ */

TEST_BOTH(what_was_not_used_for_longest_makes_room)
{
	struct scene s;

	begin_limited(&s, flags_of(state), UINT64_MAX, 4);
	for (size_t n = 0; n < 4; n++)
		touch(&s, n, 1);
	touch(&s, 4, 1);
	assert_false(is_there(&s, 0));
	for (size_t n = 5; n < 30; n++) {
		/* Used again each time: stays. */
		assert_true(is_cached(&s, 4, 1));
		touch(&s, n, 1);
		assert_true(is_there(&s, n));
		assert_true(is_there(&s, 4));
		assert_int_equal(stats(&s).cached, 4);
		assert_int_equal(fake_registered(NULL), 4);
	}
	assert_int_equal(stats(&s).evictions, 26);
	assert_int_equal(stats(&s).misses, 30);
	assert_int_equal(bypasses(&s), 0);
	finish(&s);
}

TEST_BOTH(registrations_are_limited)
{
	for (unsigned int max = 1; max < 6; max++) {
		struct scene s;

		begin_limited(&s, flags_of(state), UINT64_MAX, max);
		for (size_t n = 0; n < 20; n++) {
			touch(&s, n, n + 1);
			assert_true(fake_registered(NULL) <= max);
			assert_true(is_cached(&s, n, n + 1));
		}
		assert_int_equal(stats(&s).cached, max);
		assert_int_equal(bypasses(&s), 0);
		finish(&s);
	}
}

TEST_BOTH(bytes_are_limited)
{
	for (unsigned int max = 1; max < 12; max++) {
		struct scene s;

		begin_limited(&s, flags_of(state), max * PAGE, UINT64_MAX);
		for (size_t n = 0; n < 40; n++) {
			size_t pages = 1 + n * 7 % max;

			touch(&s, 100 * n, pages);
			assert_true(fake_registered_bytes() <= max * PAGE);
			assert_true(is_cached(&s, 100 * n, pages));
		}
		assert_int_equal(bypasses(&s), 0);
		assert_int_equal(stats(&s).cached_bytes,
				 fake_registered_bytes());
		finish(&s);
	}
}

TEST_BOTH(no_more_goes_than_must)
{
	struct scene s;

	begin_limited(&s, flags_of(state), 10 * PAGE, UINT64_MAX);
	for (size_t n = 0; n < 10; n++)
		touch(&s, n, 1);
	assert_int_equal(stats(&s).evictions, 0);
	touch(&s, 50, 3);
	assert_int_equal(stats(&s).evictions, 3);
	assert_int_equal(stats(&s).cached, 8);
	touch(&s, 60, 10);
	assert_int_equal(stats(&s).cached, 1);
	finish(&s);
}

TEST_BOTH(what_can_never_fit_passes_through_and_evicts_nothing)
{
	const uint64_t bytes[] = {0, 1, PAGE - 1, 4 * PAGE};
	struct scene s;

	for (size_t i = 0; i < sizeof(bytes) / sizeof(*bytes); i++) {
		begin_limited(&s, flags_of(state), bytes[i], UINT64_MAX);
		if (bytes[i])
			give(&s, reg_range(&s, page(100), 1, LOCAL));
		give(&s, reg_range(&s, page(0), bytes[i] + 1, LOCAL));
		assert_int_equal(passed(&s, MRCACHE_BYPASS_LIMIT), 1);
		assert_int_equal(stats(&s).evictions, 0);
		assert_int_equal(stats(&s).cached, bytes[i] != 0);
		if (bytes[i])
			give(&s, reg_range(&s, page(0), bytes[i], LOCAL));
		assert_int_equal(passed(&s, MRCACHE_BYPASS_LIMIT), 1);
		finish(&s);
	}
	begin_limited(&s, flags_of(state), UINT64_MAX, 0);
	touch(&s, 0, 1);
	touch(&s, 0, 1);
	assert_int_equal(passed(&s, MRCACHE_BYPASS_LIMIT), 2);
	finish(&s);
}

TEST_BOTH(what_can_never_fit_replaces_nothing)
{
	enum { MANY = 16 };
	struct mrcache_attr attr;
	struct scene s;

	test_attr(&attr);
	attr.contain = true;
	attr.max_bytes = 2 * MANY * PAGE;
	begin_with(&s, flags_of(state), &attr);
	for (size_t n = 0; n < MANY; n++)
		give(&s, reg_range(&s, at(0, n), PAGE, LOCAL));
	touch(&s, 0, 2 * MANY + 1);
	assert_int_equal(passed(&s, MRCACHE_BYPASS_LIMIT), 1);
	assert_int_equal(stats(&s).evictions, 0);
	assert_int_equal(stats(&s).cached, MANY);
	/* What fits does. */
	touch(&s, 0, 2);
	assert_int_equal(stats(&s).cached, 1);
	finish(&s);
}

TEST_BOTH(whole_pages_count_as_whole_pages)
{
	struct mrcache_attr attr;
	struct ibv_mr *mr;
	struct scene s;

	test_attr(&attr);
	attr.contain = attr.page_align = true;
	attr.max_bytes = PAGE;
	begin_with(&s, flags_of(state), &attr);
	mr = mrcache_reg_mr(s.cache, s.pd, at(0, 1), 10, LOCAL);
	assert_int_equal(mr->length, PAGE);
	give(&s, mr);
	mr = mrcache_reg_mr(s.cache, s.pd, at(0, PAGE - 1), 2, LOCAL);
	assert_int_equal(mr->length, 2);
	assert_int_equal(passed(&s, MRCACHE_BYPASS_LIMIT), 1);
	give(&s, mr);
	finish(&s);
}

TEST_BOTH(what_is_held_never_goes)
{
	struct ibv_mr *held[3];
	struct scene s;

	begin_limited(&s, flags_of(state), 8 * PAGE, 4);
	for (size_t i = 0; i < 3; i++)
		held[i] = reg(&s, i, 1);
	for (size_t n = 10; n < 40; n++) {
		touch(&s, n, 1 + n % 5);
		for (size_t i = 0; i < 3; i++) {
			assert_true(fake_is_registered(held[i]));
			assert_true(is_cached(&s, i, 1));
		}
	}
	assert_int_equal(bypasses(&s), 0);
	for (size_t i = 0; i < 3; i++)
		give(&s, held[i]);
	/* Idle now, and so the next to go. */
	for (size_t n = 50; n < 60; n++)
		touch(&s, n, 1);
	for (size_t i = 0; i < 3; i++)
		assert_false(is_there(&s, i));
	finish(&s);
}

TEST_BOTH(what_another_thread_holds_never_goes)
{
	struct ibv_mr *held;
	struct scene s;

	begin_limited(&s, flags_of(state), UINT64_MAX, 2);
	held = reg(&s, 0, 1);
	assert_ptr_equal(reg(&s, 0, 1), held);
	assert_int_equal(give_in_thread(&s, held), 0);
	for (size_t n = 10; n < 20; n++) {
		touch(&s, n, 1);
		assert_true(fake_is_registered(held));
	}
	assert_int_equal(give_in_thread(&s, held), 0);
	touch(&s, 20, 1);
	touch(&s, 21, 1);
	assert_false(is_there(&s, 0));
	finish(&s);
}

TEST_BOTH(when_all_is_held_more_passes_through)
{
	struct ibv_mr *held[3], *more[2];
	struct scene s;

	begin_limited(&s, flags_of(state), UINT64_MAX, 3);
	for (size_t i = 0; i < 3; i++)
		held[i] = reg(&s, i, 1);
	more[0] = reg(&s, 10, 1);
	more[1] = reg(&s, 10, 1);
	assert_ptr_not_equal(more[0], more[1]);
	assert_int_equal(passed(&s, MRCACHE_BYPASS_LIMIT), 2);
	assert_int_equal(stats(&s).uncached, 2);
	assert_int_equal(stats(&s).cached, 3);
	assert_int_equal(stats(&s).evictions, 0);
	give(&s, held[1]);
	touch(&s, 20, 1);
	assert_int_equal(passed(&s, MRCACHE_BYPASS_LIMIT), 2);
	assert_true(is_cached(&s, 20, 1));
	assert_int_equal(mrcache_flush(s.cache, NULL), 4);
	for (size_t i = 0; i < 2; i++)
		give(&s, more[i]);
	give(&s, held[0]);
	give(&s, held[2]);
	assert_int_equal(fake_registered(NULL), 0);
	finish(&s);
}

#define FULL 2000

/* How many registrations eviction looks at for one miss. */
static uint64_t looks_for(struct scene *s, size_t n, unsigned int evictions)
{
	uint64_t looked = s->cache->looked, before = stats(s).evictions;

	touch(s, n, 1);
	assert_int_equal(stats(s).evictions - before, evictions);
	return s->cache->looked - looked;
}

TEST_BOTH(when_all_is_held_that_is_not_looked_for_again)
{
	struct ibv_mr *held[FULL];
	unsigned int misses = 0;
	uint64_t looks;
	struct scene s;

	begin_limited(&s, flags_of(state), UINT64_MAX, FULL);
	for (size_t n = 0; n < FULL; n++)
		held[n] = reg(&s, n, 1);
	/* A few for each, until all have been seen; twice, the first unsure. */
	while ((looks = looks_for(&s, FULL, 0))) {
		assert_true(looks <= 32);
		assert_true(++misses <= 2 * FULL / 16);
	}
	for (size_t n = 0; n < 100; n++)
		assert_int_equal(looks_for(&s, FULL + n, 0), 0);
	/* Who gives back, wherever it lies, is found and makes room, */
	for (size_t i = 0; i < 3; i++) {
		size_t n = i * (FULL - 1) / 2;

		if (i == 1)
			assert_int_equal(give_in_thread(&s, held[n]), 0);
		else
			give(&s, held[n]);
		for (misses = 0; !is_cached(&s, FULL + 1 + i, 1); misses++)
			assert_true(misses <= FULL / 4);
		assert_int_equal(stats(&s).evictions, i + 1);
		/* and is soon held by another. */
		held[n] = reg(&s, FULL + 1 + i, 1);
	}
	for (size_t n = 0; n < FULL; n++)
		give(&s, held[n]);
	finish(&s);
}

TEST_BOTH(finding_what_goes_takes_few_looks)
{
	struct scene s;

	begin_limited(&s, flags_of(state), UINT64_MAX, FULL);
	for (int i = 0; i < 2; i++)
		for (size_t n = 0; n < FULL; n++)
			touch(&s, n, 1);
	/* All were hit, so none would go at first sight. */
	for (size_t n = 0; n < 100; n++)
		assert_true(looks_for(&s, FULL + n, 1) <= 32);
	assert_int_equal(bypasses(&s), 0);
	finish(&s);
}

/* Of many held ones, one that is idle is found when memory is short. */
TEST_BOTH(without_memory_the_last_idle_one_is_found)
{
	struct ibv_mr *held[FULL];
	struct scene s;

	begin_limited(&s, flags_of(state), UINT64_MAX, UINT64_MAX);
	for (size_t n = 0; n < FULL; n++)
		held[n] = reg(&s, n, 1);
	for (size_t i = 0; i < 4; i++) {
		fake_fail(FAKE_REG, 1, 1, ENOMEM);
		assert_null(
			mrcache_reg_mr(s.cache, s.pd, page(FULL), PAGE, LOCAL));
	}
	for (size_t i = 1; i <= 3; i++) {
		give(&s, held[FULL - i]);
		fake_fail(FAKE_REG, 1, 1, ENOMEM);
		touch(&s, FULL + i, 1);
		assert_false(is_there(&s, FULL - i));
		assert_int_equal(mrcache_flush(s.cache, NULL), FULL - i);
		for (size_t n = 0; n < FULL - i; n++)
			give(&s, held[n]);
		for (size_t n = 0; n < FULL - i; n++)
			held[n] = reg(&s, n, 1);
	}
	for (size_t n = 0; n < FULL - 3; n++)
		give(&s, held[n]);
	finish(&s);
}

TEST_BOTH(what_is_stale_and_held_counts_until_it_is_given_back)
{
	struct ibv_mr *held[2];
	struct scene s;

	begin_limited(&s, flags_of(state), 2 * PAGE, UINT64_MAX);
	held[0] = reg(&s, 0, 1);
	held[1] = reg(&s, 1, 1);
	fake_change(page(0), 2 * PAGE);
	touch(&s, 0, 1);
	assert_int_equal(passed(&s, MRCACHE_BYPASS_LIMIT), 1);
	give(&s, held[0]);
	touch(&s, 0, 1);
	assert_int_equal(passed(&s, MRCACHE_BYPASS_LIMIT), 1);
	assert_true(is_cached(&s, 0, 1));
	give(&s, held[1]);
	finish(&s);
}

/* Too old to be hit, but idle: they go by themselves, not as evictions. */
TEST_BOTH(what_is_stale_and_idle_makes_room_first)
{
	struct scene s;

	begin_limited(&s, flags_of(state), UINT64_MAX, 4);
	for (size_t n = 0; n < 4; n++)
		touch(&s, n, 1);
	fake_change(page(1), 2 * PAGE);
	touch(&s, 10, 1);
	touch(&s, 11, 1);
	assert_int_equal(stats(&s).evictions, 0);
	assert_true(is_there(&s, 0));
	assert_true(is_there(&s, 3));
	finish(&s);
}

/* ---- memory that may be locked ----------------------------------------------------- */

TEST_BOTH(without_memory_idle_ones_make_room)
{
	static const int errors[] = {ENOMEM, EAGAIN};
	struct scene s;

	begin(&s, flags_of(state));
	for (size_t i = 0; i < 2; i++) {
		for (size_t n = 0; n < 4; n++)
			touch(&s, n, 1);
		fake_fail(FAKE_REG, 1, 2, errors[i]);
		touch(&s, 10 + i, 1);
		assert_int_equal(stats(&s).retries, 2 * (i + 1));
		assert_true(stats(&s).evictions >= 2 * (i + 1));
		assert_int_equal(stats(&s).reg_errors, 0);
		assert_true(is_cached(&s, 10 + i, 1));
	}
	/* For those that are not cached, too. */
	fake_fail(FAKE_REG, 1, 1, ENOMEM);
	give(&s,
	     mrcache_reg_mr(s.cache, s.pd, page(20), PAGE, IBV_ACCESS_MW_BIND));
	assert_int_equal(stats(&s).retries, 5);
	/* Other errors are not for lack of memory. */
	fake_fail(FAKE_REG, 1, 1, EFAULT);
	assert_null(mrcache_reg_mr(s.cache, s.pd, page(30), PAGE, LOCAL));
	assert_int_equal(errno, EFAULT);
	assert_int_equal(stats(&s).retries, 5);
	finish(&s);
}

TEST_BOTH(without_memory_and_nothing_idle_it_is_an_error)
{
	struct ibv_mr *held;
	struct scene s;

	begin(&s, flags_of(state));
	held = reg(&s, 0, 1);
	for (size_t n = 1; n < 10; n++)
		touch(&s, n, 1);
	fake_fail(FAKE_REG, 1, FAKE_FOR_EVER, ENOMEM);
	errno = 0;
	assert_null(mrcache_reg_mr(s.cache, s.pd, page(20), PAGE, LOCAL));
	assert_int_equal(errno, ENOMEM);
	/* Everything that was idle has been tried. */
	assert_int_equal(fake_registered(NULL), 1);
	assert_int_equal(stats(&s).reg_errors, 1);
	assert_true(fake_is_registered(held));
	assert_true(is_cached(&s, 0, 1));
	fake_fail(FAKE_REG, 1, 0, 0);
	touch(&s, 20, 1);
	assert_true(is_cached(&s, 20, 1));
	give(&s, held);
	finish(&s);
}

TEST_BOTH(the_lock_limit_is_lived_with)
{
	struct ibv_mr *held;
	struct scene s;

	begin(&s, flags_of(state));
	fake_memlock(16 * PAGE);
	held = reg(&s, 0, 4);
	for (size_t n = 0; n < 50; n++) {
		size_t pages = 1 + n * 5 % 12;

		touch(&s, 100 * (n + 1), pages);
		assert_true(is_cached(&s, 100 * (n + 1), pages));
	}
	assert_int_equal(bypasses(&s), 0);
	assert_int_equal(stats(&s).reg_errors, 0);
	assert_true(stats(&s).retries > 0);
	assert_null(
		mrcache_reg_mr(s.cache, s.pd, page(9000), 13 * PAGE, LOCAL));
	assert_int_equal(errno, ENOMEM);
	assert_true(fake_is_registered(held));
	give(&s, held);
	touch(&s, 9000, 13);
	finish(&s);
}

/* ---- what lingers ------------------------------------------------------------------ */

TEST_BOTH(remote_keys_linger_for_a_while)
{
	struct mrcache_attr attr;
	struct ibv_mr *held, *local;
	struct scene s;

	test_attr(&attr);
	attr.linger = 1u << 30; /* its own thread never gets to it */
	begin_with(&s, flags_of(state), &attr);
	local = reg(&s, 0, 1);
	give(&s, local);
	held = reg_range(&s, page(1), PAGE, REMOTE);
	for (size_t n = 2; n < 5; n++)
		give(&s, reg_range(&s, page(n), PAGE, REMOTE));
	mrc_linger(s.cache);
	assert_int_equal(fake_registered(NULL), 5);
	give(&s, reg_range(&s, page(2), PAGE, REMOTE)); /* used in between */
	mrc_linger(s.cache);
	assert_int_equal(fake_registered(NULL), 3);
	assert_true(is_there(&s, 2));
	assert_true(fake_is_registered(held));
	assert_true(fake_is_registered(local));
	mrc_linger(s.cache);
	assert_int_equal(fake_registered(NULL), 2);
	for (int i = 0; i < 3; i++)
		mrc_linger(s.cache);
	assert_int_equal(fake_registered(NULL), 2);
	/* From when it is given back it has its time, too. */
	give(&s, held);
	mrc_linger(s.cache);
	assert_true(fake_is_registered(held));
	mrc_linger(s.cache);
	assert_false(fake_is_registered(held));
	assert_true(fake_is_registered(local));
	assert_int_equal(stats(&s).invalidations, 0);
	assert_int_equal(bypasses(&s), 0);
	finish(&s);
}

/* ---- no memory ------------------------------------------------------------------------ */

TEST_BOTH(a_table_that_cannot_grow_is_lived_with)
{
	enum { BEFORE_IT_GROWS = 500, MANY = 3000 };
	struct ibv_mr *held;
	struct scene s;

	begin(&s, flags_of(state));
	held = reg(&s, 60000, 1);
	for (size_t n = 0; n < BEFORE_IT_GROWS; n++)
		touch(&s, n, 1);
	fake_fail(FAKE_MEMORY, 1, FAKE_FOR_EVER, ENOMEM);
	for (size_t n = 0; n < MANY; n++)
		try_give(&s, try_reg(&s, n, 1, LOCAL, ENOMEM), ENOMEM);
	/* What was there is there. */
	assert_true(is_cached(&s, 60000, 1));
	assert_int_equal(stats(&s).cached, fake_registered(NULL));
	assert_int_equal(stats(&s).cached, fake_watches(s.monitor));
	fake_fail(FAKE_MEMORY, 1, 0, 0);
	for (size_t n = 0; n < MANY; n++)
		touch(&s, n, 1);
	for (size_t n = 0; n < MANY; n++)
		assert_true(is_cached(&s, n, 1));
	give(&s, held);
	finish(&s);
}

/* As under the shim, whose programs would have been served without a cache. */
static void without_memory_of_ours_verbs_are_asked(bool begin_with_none,
						   unsigned int flags)
{
	enum { MANY = 3000 };
	static struct ibv_mr *held[MANY];
	unsigned int known = 0;
	struct scene s;

	begin(&s, flags);
	s.cache->lends_unknown = true;
	if (!begin_with_none)
		touch(&s, 60000, 1);
	fake_fail(FAKE_MEMORY, 1, FAKE_FOR_EVER, ENOMEM);
	for (size_t n = 0; n < MANY; n++)
		held[n] = reg_range(&s, page(n), PAGE, n % 2 ? LOCAL : REMOTE);
	assert_int_equal(stats(&s).registrations, MANY + !begin_with_none);
	assert_int_equal(stats(&s).reg_errors, 0);
	for (size_t n = 0; n < MANY; n++) {
		int ret = mrc_dereg_mr(s.cache, held[n]);

		if (!ret) {
			known++;
			continue;
		}
		assert_int_equal(ret, -ENOENT);
		assert_true(fake_is_registered(held[n]));
		assert_int_equal(fake_verbs.dereg_mr(held[n]), 0);
	}
	assert_int_equal(known == 0, begin_with_none);
	assert_true(known < MANY);
	assert_int_equal(bypasses(&s) + stats(&s).misses,
			 MANY + !begin_with_none);
	assert_int_equal(stats(&s).uncached, 0);
	/* Verbs have the last word. */
	fake_fail(FAKE_REG, 1, FAKE_FOR_EVER, EINVAL);
	assert_null(mrcache_reg_mr(s.cache, s.pd, page(MANY), PAGE, LOCAL));
	assert_int_equal(errno, EINVAL);
	fake_fail(FAKE_REG, 1, 0, 0);
	fake_fail(FAKE_MEMORY, 1, 0, 0);
	touch(&s, MANY, 1);
	assert_true(is_cached(&s, MANY, 1));
	finish(&s);
}

TEST_BOTH(without_any_memory_verbs_are_asked)
{
	without_memory_of_ours_verbs_are_asked(true, flags_of(state));
}

TEST_BOTH(without_more_memory_verbs_are_asked)
{
	without_memory_of_ours_verbs_are_asked(false, flags_of(state));
}

static void *touch_in_vain(void *arg)
{
	struct scene *s = arg;

	for (size_t n = 0; n < 3; n++) {
		struct ibv_mr *mr =
			mrcache_reg_mr(s->cache, s->pd, page(n), PAGE, LOCAL);

		if (!mr || mrcache_dereg_mr(s->cache, mr) ||
		    mrcache_dereg_mr(s->cache, mr) != EINVAL)
			return s;
	}
	return NULL;
}

/* A thread that has no memory for a record of its own is only slower. */
TEST_BOTH(a_thread_without_a_record_is_served)
{
	pthread_t thread;
	struct scene s;
	void *failed;

	begin(&s, flags_of(state));
	for (size_t n = 0; n < 3; n++)
		touch(&s, n, 1);
	fake_fail(FAKE_MEMORY, 1, FAKE_FOR_EVER, ENOMEM);
	assert_int_equal(pthread_create(&thread, NULL, touch_in_vain, &s), 0);
	pthread_join(thread, &failed);
	fake_fail(FAKE_MEMORY, 1, 0, 0);
	assert_null(failed);
	assert_int_equal(stats(&s).hits, 3);
	assert_int_equal(mrcache_flush(s.cache, NULL), 0);
	assert_int_equal(fake_registered(NULL), 0);
	finish(&s);
}

int main(void)
{
	return run_cases(NULL, NULL);
}
