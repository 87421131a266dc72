/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What callers must not do, and what they may do that fails: every such call is
 * an error of the right kind, changes nothing, and leaves a cache that works.
 */
#include "giveback.h"
#include "unit.h"

#include <string.h>

TEST(null_is_an_error)
{
	struct mrcache_stats st;
	struct scene s;

	begin(&s, FAKE_STATES);
	errno = 0;
	assert_null(mrcache_reg_mr(NULL, s.pd, page(0), PAGE, LOCAL));
	assert_int_equal(errno, EINVAL);
	errno = 0;
	assert_null(mrcache_reg_mr(s.cache, NULL, page(0), PAGE, LOCAL));
	assert_int_equal(errno, EINVAL);
	assert_int_equal(mrcache_dereg_mr(NULL, NULL), EINVAL);
	assert_int_equal(mrcache_dereg_mr(s.cache, NULL), EINVAL);
	assert_int_equal(mrcache_flush(NULL, s.pd), -EINVAL);
	assert_int_equal(mrcache_invalidate(NULL, page(0), PAGE), -EINVAL);
	assert_int_equal(mrcache_get_stats(NULL, &st, sizeof(st)), -EINVAL);
	assert_int_equal(mrcache_get_stats(s.cache, NULL, sizeof(st)), -EINVAL);
	assert_string_equal(mrcache_monitor(NULL), "none");
	assert_false(mrcache_valid_slow(NULL, NULL));
	assert_false(mrcache_valid_slow(s.cache, NULL));
	assert_int_equal(mrcache_close(NULL), -EINVAL);
	assert_int_equal(fake_all_calls(), 0);
	finish(&s);
}

TEST(statistics_fill_in_what_was_asked_for)
{
	struct mrcache_stats st[2];
	struct scene s;

	begin(&s, FAKE_STATES);
	touch(&s, 0, 1);
	assert_int_equal(mrcache_get_stats(s.cache, st, 0), -EINVAL);
	assert_int_equal(mrcache_get_stats(s.cache, st, SIZE_MAX), -EINVAL);
	memset(st, 0xa5, sizeof(st));
	assert_int_equal(mrcache_get_stats(s.cache, st, 2 * sizeof(uint64_t)),
			 0);
	assert_int_equal(st->misses, 1);
	assert_int_equal(st->registrations, 0xa5a5a5a5a5a5a5a5);
	memset(st, 0xa5, sizeof(st));
	assert_int_equal(mrcache_get_stats(s.cache, st, sizeof(*st)), 0);
	assert_int_equal(st->uncached, 0);
	assert_int_equal(st[1].hits, 0xa5a5a5a5a5a5a5a5);
	/* A later version's, of which this one knows the beginning. */
	memset(st, 0xa5, sizeof(st));
	assert_int_equal(
		mrcache_get_stats(s.cache, st, sizeof(*st) + sizeof(uint64_t)),
		0);
	assert_int_equal(st->misses, 1);
	assert_int_equal(st[1].hits, 0);
	assert_int_equal(st[1].misses, 0xa5a5a5a5a5a5a5a5);
	finish(&s);
}

TEST_BOTH(ranges_that_make_no_sense_are_an_error)
{
	struct scene s;

	begin(&s, flags_of(state));
	touch(&s, 0, 1);
	assert_int_equal(mrcache_invalidate(s.cache, page(0), 0), -EINVAL);
	assert_int_equal(mrcache_invalidate(s.cache, page(1), SIZE_MAX),
			 -EINVAL);
	assert_int_equal(mrcache_invalidate(s.cache, (void *)-PAGE, PAGE + 1),
			 -EINVAL);
	assert_true(is_cached(&s, 0, 1));
	/* To the very end of the address space is a range. */
	assert_int_equal(mrcache_invalidate(s.cache, (void *)-PAGE, PAGE), 0);
	assert_true(is_cached(&s, 0, 1));
	finish(&s);
}

/* ---- giving back what is not held ------------------------------------------------ */

/* Nobody may notice: neither those who hold it nor those who hit it. */
static void refused(struct scene *s, struct ibv_mr *mr)
{
	struct mrcache_stats before = stats(s), after;
	unsigned int calls = fake_calls(FAKE_DEREG);

	assert_int_equal(mrcache_dereg_mr(s->cache, mr), EINVAL);
	assert_int_equal(give_in_thread(s, mr), EINVAL);
	after = stats(s);
	assert_int_equal(after.uncached, before.uncached);
	assert_int_equal(after.stale_held, before.stale_held);
	assert_int_equal(after.dereg_errors, before.dereg_errors);
	/* What nobody held may be deregistered early, but only that. */
	assert_true(fake_calls(FAKE_DEREG) <= calls + 1);
}

TEST_BOTH(what_is_not_from_here_is_refused)
{
	struct ibv_mr foreign, *mr;
	struct scene s;

	begin(&s, flags_of(state));
	memset(&foreign, 0, sizeof(foreign));
	refused(&s, &foreign);
	refused(&s, (struct ibv_mr *)8); /* it is not looked into */
	mr = fake_verbs.reg_mr(s.pd, page(0), PAGE, LOCAL);
	refused(&s, mr);
	assert_true(fake_is_registered(mr));
	assert_int_equal(fake_verbs.dereg_mr(mr), 0);
	assert_false(mrcache_valid_slow(s.cache, &foreign));
	finish(&s);
}

TEST_BOTH(what_was_given_back_is_refused)
{
	struct ibv_mr *mr;
	struct scene s;

	begin(&s, flags_of(state));
	mr = reg(&s, 0, 1);
	give(&s, mr);
	refused(&s, mr);
	refused(&s, mr);
	mr = reg(&s, 0, 1);
	assert_int_equal(mrcache_flush(s.cache, NULL), 1);
	give(&s, mr);
	refused(&s, mr);
	finish(&s);
}

TEST_BOTH(what_another_thread_gave_back_is_refused)
{
	struct ibv_mr *mr;
	struct scene s;

	begin(&s, flags_of(state));
	mr = reg(&s, 0, 1);
	assert_int_equal(give_in_thread(&s, mr), 0);
	/* This thread's own count of it is not what tells. */
	refused(&s, mr);
	mr = reg(&s, 0, 1);
	assert_int_equal(mrcache_flush(s.cache, NULL), 1);
	assert_true(fake_is_registered(mr));
	give(&s, mr);
	assert_false(fake_is_registered(mr));
	finish(&s);
}

TEST_BOTH(after_both_directions_it_is_refused)
{
	struct ibv_mr *mr = NULL;
	struct scene s;

	begin(&s, flags_of(state));
	for (int i = 0; i < 4; i++) {
		mr = reg(&s, 0, 1);
		assert_ptr_equal(reg(&s, 0, 1), mr);
		assert_int_equal(give_in_thread(&s, mr), 0);
		give(&s, mr);
	}
	refused(&s, mr);
	mr = reg(&s, 0, 1);
	assert_ptr_equal(reg(&s, 0, 1), mr);
	give(&s, mr);
	assert_int_equal(mrcache_flush(s.cache, NULL), 1);
	assert_true(fake_is_registered(mr));
	give(&s, mr);
	refused(&s, mr);
	finish(&s);
}

TEST_BOTH(an_uncached_one_is_given_back_once)
{
	struct ibv_mr *mr;
	struct scene s;

	begin(&s, flags_of(state));
	mr = mrcache_reg_mr(s.cache, s.pd, page(0), PAGE, IBV_ACCESS_MW_BIND);
	give(&s, mr);
	refused(&s, mr);
	finish(&s);
}

TEST_BOTH(a_stale_one_is_given_back_once)
{
	struct ibv_mr *mr;
	struct scene s;

	begin(&s, flags_of(state));
	mr = reg(&s, 0, 1);
	fake_change(page(0), 1);
	touch(&s, 0, 1);
	assert_int_equal(stats(&s).stale_held, 1);
	give(&s, mr);
	refused(&s, mr);
	touch(&s, 0, 1);
	finish(&s);
}

/* Tries to give back, from the hook, what is just being deregistered. */
struct again {
	struct scene *s;
	struct ibv_mr *mr;
	int ret, other;
};

static void give_again(enum fake_call call, enum fake_when when, void *arg)
{
	struct again *again = arg;

	if (call != FAKE_DEREG || when != BEFORE)
		return;
	fake_hook(NULL, NULL);
	again->ret = mrcache_dereg_mr(again->s->cache, again->mr);
	again->other = give_in_thread(again->s, again->mr);
}

TEST_BOTH(what_is_being_given_back_is_refused)
{
	struct again again = {0};
	struct scene s;

	begin(&s, flags_of(state));
	again.s = &s;
	for (int cached = 0; cached < 2; cached++) {
		again.mr = mrcache_reg_mr(s.cache, s.pd, page(0), PAGE,
					  cached ? LOCAL : IBV_ACCESS_MW_BIND);
		mrcache_flush(s.cache, NULL);
		again.ret = again.other = -1;
		fake_hook(give_again, &again);
		give(&s, again.mr);
		assert_int_equal(again.ret, EINVAL);
		assert_int_equal(again.other, EINVAL);
	}
	finish(&s);
}

TEST_BOTH(what_is_not_held_is_not_made_ones_own)
{
	struct ibv_mr foreign, *mr;
	struct scene s;

	begin(&s, flags_of(state));
	assert_int_equal(mrc_unshare(s.cache, &foreign), -ENOENT);
	mr = reg(&s, 0, 1);
	give(&s, mr);
	assert_int_equal(mrc_unshare(s.cache, mr), -ENOENT);
	assert_int_equal(fake_registered(NULL), 0);
	touch(&s, 0, 1);
	finish(&s);
}

TEST_BOTH(a_refusal_is_said)
{
	struct ibv_mr foreign;
	struct scene s;

	begin(&s, flags_of(state));
	assert_int_equal(mrcache_dereg_mr(s.cache, &foreign), EINVAL);
	assert_int_equal(log_lines(MRCACHE_LOG_ERROR), 1);
	finish(&s);
}

/* ---- a closed cache ---------------------------------------------------------------- */

TEST_BOTH(a_closed_cache_refuses_everything)
{
	struct mrcache_stats st;
	struct ibv_mr *mr;
	struct scene s;
	unsigned int calls;

	begin(&s, flags_of(state));
	mr = reg(&s, 0, 1);
	give(&s, mr);
	finish(&s);
	calls = fake_all_calls();
	for (int i = 0; i < 2; i++) {
		errno = 0;
		assert_null(
			mrcache_reg_mr(s.cache, s.pd, page(0), PAGE, LOCAL));
		assert_int_equal(errno, EINVAL);
		assert_int_equal(mrcache_dereg_mr(s.cache, mr), EINVAL);
		assert_int_equal(give_in_thread(&s, mr), EINVAL);
		assert_int_equal(mrcache_flush(s.cache, NULL), -EINVAL);
		assert_int_equal(mrcache_invalidate(s.cache, page(0), 1),
				 -EINVAL);
		assert_int_equal(mrcache_get_stats(s.cache, &st, sizeof(st)),
				 -EINVAL);
		assert_false(mrcache_valid(s.cache, mr));
		assert_false(mrcache_valid_slow(s.cache, mr));
		assert_string_equal(mrcache_monitor(s.cache), "none");
		assert_int_equal(mrcache_close(s.cache), -EINVAL);
	}
	assert_int_equal(fake_all_calls(), calls);
}

static void *use_then_wait(void *arg)
{
	struct scene *s = arg;

	touch(s, 0, 1);
	assert_int_equal(mrcache_close(s->cache), 0);
	return NULL;
}

TEST_BOTH(a_thread_may_end_after_its_cache)
{
	struct scene s, other;

	begin(&other, flags_of(state));
	begin(&s, flags_of(state));
	in_thread(use_then_wait, &s); /* its record is gone when it ends */
	assert_null(mrcache_reg_mr(s.cache, s.pd, page(0), PAGE, LOCAL));
	touch(&other, 0, 1);
	finish(&other);
	assert_int_equal(fake_monitors(), 0);
}

/* ---- errors of the verbs ------------------------------------------------------------ */

TEST_BOTH(errors_of_registering_are_the_callers)
{
	static const int errors[] = {EINVAL, EFAULT, EPERM, ENOMEM,    EAGAIN,
				     EIO,    ENOSPC, EINTR, EOPNOTSUPP};
	static const int accesses[] = {LOCAL, IBV_ACCESS_MW_BIND, REMOTE, 0};
	unsigned int n = 0;
	struct scene s;

	begin(&s, flags_of(state));
	for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++)
		for (size_t a = 0; a < sizeof(accesses) / sizeof(*accesses);
		     a++) {
			fake_fail(FAKE_REG, 1, 1, errors[i]);
			errno = 0;
			assert_null(mrcache_reg_mr(s.cache, s.pd, page(0), PAGE,
						   accesses[a]));
			assert_int_equal(errno, errors[i]);
			assert_int_equal(stats(&s).reg_errors, ++n);
		}
	assert_int_equal(fake_calls(FAKE_REG), n);
	assert_int_equal(fake_watches(s.monitor), 0);
	assert_int_equal(stats(&s).registrations, 0);
	assert_int_equal(bypasses(&s), 0);
	assert_int_equal(mrcache_flush(s.cache, NULL), 0);
	assert_false(is_cached(&s, 0, 1));
	assert_true(is_cached(&s, 0, 1));
	/* As the kernel has it: remote write needs local write. */
	assert_null(mrcache_reg_mr(s.cache, s.pd, page(0), PAGE,
				   IBV_ACCESS_REMOTE_WRITE));
	assert_int_equal(errno, EINVAL);
	finish(&s);
}

static void change(enum fake_call call, enum fake_when when, void *arg)
{
	(void)arg;
	if (call == FAKE_REG && when == DURING)
		fake_change(page(0), 1);
}

TEST_BOTH(an_error_of_pinning_again_is_the_callers)
{
	struct scene s;

	begin(&s, flags_of(state));
	fake_hook(change, NULL);
	fake_fail(FAKE_REG, 2, 1, EFAULT);
	errno = 0;
	assert_null(mrcache_reg_mr(s.cache, s.pd, page(0), PAGE, LOCAL));
	assert_int_equal(errno, EFAULT);
	assert_int_equal(fake_registered(NULL), 0);
	assert_int_equal(fake_watches(s.monitor), 0);
	assert_int_equal(stats(&s).reg_errors, 1);
	finish(&s);
}

TEST_BOTH(errors_of_deregistering_an_uncached_one_are_the_callers)
{
	static const int errors[] = {EBUSY, EINVAL, EIO, ENOMEM};
	struct ibv_mr *mr;
	struct scene s;

	begin(&s, flags_of(state));
	mr = mrcache_reg_mr(s.cache, s.pd, page(0), PAGE, IBV_ACCESS_MW_BIND);
	for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++) {
		fake_fail(FAKE_DEREG, 1, 1, errors[i]);
		assert_int_equal(mrcache_dereg_mr(s.cache, mr), errors[i]);
		/* Still held. */
		assert_true(fake_is_registered(mr));
		assert_int_equal(stats(&s).dereg_errors, i + 1);
		assert_int_equal(stats(&s).uncached, 1);
		assert_int_equal(mrcache_flush(s.cache, s.pd), 1);
		assert_int_equal(mrcache_close(s.cache), -EBUSY);
		assert_true(mrcache_valid(s.cache, mr));
	}
	give(&s, mr);
	assert_int_equal(stats(&s).uncached, 0);
	refused(&s, mr);
	finish(&s);
}

TEST_BOTH(errors_of_deregistering_a_cached_one_are_logged)
{
	struct scene s;

	begin(&s, flags_of(state));
	touch(&s, 0, 1);
	touch(&s, 1, 1);
	fake_fail(FAKE_DEREG, 1, 1, EBUSY);
	assert_int_equal(mrcache_flush(s.cache, NULL), 0);
	assert_int_equal(stats(&s).dereg_errors, 1);
	assert_int_equal(stats(&s).deregistrations, 1);
	assert_int_equal(log_lines(MRCACHE_LOG_ERROR), 1);
	assert_int_equal(fake_watches(s.monitor), 0);
	assert_false(is_cached(&s, 0, 1));
	assert_false(is_cached(&s, 1, 1));
	assert_int_equal(mrcache_close(s.cache), 0);
	assert_int_equal(fake_registered(NULL),
			 1); /* lost, as it is in libibverbs */
	fake_verbs_reset();
}

TEST_BOTH(errno_survives_giving_back)
{
	struct ibv_mr *mr;
	struct scene s;

	begin(&s, flags_of(state));
	mr = reg(&s, 0, 1);
	assert_int_equal(mrcache_flush(s.cache, NULL), 1);
	errno = EDOM;
	give(&s, mr); /* deregisters, and the fakes leave another errno */
	assert_int_equal(errno, EDOM);
	finish(&s);
}

int main(void)
{
	return run_cases(NULL, NULL);
}
