/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the cache does when nothing goes wrong: who is handed which registration
 * and when it is deregistered; containment; remote access; what passes through.
 */
#include "unit.h"

#include <malloc.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- hit and miss ------------------------------------------------------------ */

TEST_BOTH(a_second_registration_is_a_hit)
{
	struct mrcache_stats before, after;
	struct scene s;
	struct ibv_mr *mr;

	begin(&s, flags_of(state));
	mr = reg(&s, 0, 4);
	assert_ptr_equal(mr->addr, page(0));
	assert_int_equal(mr->length, 4 * PAGE);
	assert_ptr_equal(mr->pd, s.pd);
	give(&s, mr);
	before = stats(&s);
	assert_int_equal(before.hits, 0);
	assert_int_equal(before.misses, 1);
	assert_int_equal(before.registrations, 1);
	assert_int_equal(before.cached, 1);
	assert_int_equal(before.cached_bytes, 4 * PAGE);

	assert_ptr_equal(reg(&s, 0, 4), mr);
	assert_true(mrcache_valid(s.cache, mr));
	give(&s, mr);
	after = stats(&s);
	assert_int_equal(after.hits, 1);
	assert_int_equal(after.misses, 1);
	assert_int_equal(after.registrations, 1);
	assert_int_equal(after.deregistrations, 0);
	assert_int_equal(fake_calls(FAKE_REG), 1);
	assert_int_equal(fake_calls(FAKE_DEREG), 0);
	finish(&s);
	assert_int_equal(fake_calls(FAKE_DEREG), 1);
}

TEST_BOTH(every_part_of_the_key_counts)
{
	static const int accesses[] = {
		0,
		IBV_ACCESS_LOCAL_WRITE,
		IBV_ACCESS_RELAXED_ORDERING,
		IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_RELAXED_ORDERING,
		IBV_ACCESS_REMOTE_READ,
		IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ,
		IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE,
		IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_ATOMIC,
	};
	struct ibv_mr *mrs[2 * 2 * 2 * 8];
	struct mrcache_attr attr;
	size_t n = 0;
	struct scene s;

	test_attr(&attr);
	attr.remote = true;
	begin_with(&s, flags_of(state), &attr);
	for (int again = 0; again < 2; again++) {
		n = 0;
		for (unsigned int key = 0; key < 8; key++)
			for (size_t a = 0; a < 8; a++) {
				void *addr = at(1, key & 1 ? 64 : 0);
				size_t length = key & 2 ? 4000 : 4032;
				struct ibv_mr *mr;

				s.pd = fake_pd(key >> 2);
				mr = reg_range(&s, addr, length, accesses[a]);
				if (again)
					assert_ptr_equal(mr, mrs[n]);
				for (size_t i = 0; i < n; i++)
					assert_ptr_not_equal(mr, mrs[i]);
				mrs[n++] = mr;
			}
	}
	assert_int_equal(fake_calls(FAKE_REG), n);
	assert_int_equal(stats(&s).hits, n);
	assert_int_equal(mrcache_flush(s.cache, fake_pd(0)), n / 2);
	for (int again = 0; again < 2; again++)
		for (size_t i = 0; i < n; i++)
			give(&s, mrs[i]);
	assert_int_equal(fake_registered(fake_pd(0)), 0);
	assert_int_equal(fake_registered(fake_pd(1)), n / 2);
	finish(&s);
}

TEST_BOTH(overlapping_registrations_coexist)
{
	struct scene s;

	begin(&s, flags_of(state));
	for (int again = 0; again < 2; again++)
		for (size_t n = 0; n < 8; n++)
			assert_int_equal(is_cached(&s, n, 4), again);
	assert_int_equal(stats(&s).cached, 8);
	fake_change(page(5), PAGE);
	for (size_t n = 0; n < 8; n++)
		assert_int_equal(is_cached(&s, n, 4), n + 4 <= 5 || n > 5);
	finish(&s);
}

TEST_BOTH(very_many_registrations_are_all_found)
{
	enum { MANY = 3000 };
	struct scene s;

	begin(&s, flags_of(state));
	for (int again = 0; again < 2; again++)
		for (size_t n = 0; n < MANY; n++)
			touch(&s, n, 1);
	assert_int_equal(stats(&s).misses, MANY);
	assert_int_equal(stats(&s).hits, MANY);
	assert_int_equal(stats(&s).cached, MANY);
	assert_int_equal(fake_registered(NULL), MANY);
	assert_int_equal(mrcache_flush(s.cache, NULL), 0);
	assert_int_equal(fake_registered(NULL), 0);
	finish(&s);
}

/* ---- holds ------------------------------------------------------------------- */

TEST_BOTH(every_holder_gives_back_once)
{
	struct ibv_mr *mr;
	struct scene s;

	begin(&s, flags_of(state));
	mr = reg(&s, 0, 1);
	for (int i = 0; i < 4; i++)
		assert_ptr_equal(reg(&s, 0, 1), mr);
	assert_int_equal(mrcache_flush(s.cache, NULL), 1);
	for (int i = 0; i < 4; i++) {
		give(&s, mr);
		assert_true(fake_is_registered(mr));
		assert_int_equal(mrcache_close(s.cache), -EBUSY);
	}
	give(&s, mr);
	assert_int_equal(fake_registered(NULL), 0);
	assert_int_equal(fake_calls(FAKE_DEREG), 1);
	finish(&s);
}

TEST_BOTH(any_thread_may_give_back)
{
	struct ibv_mr *mr;
	struct scene s;

	begin(&s, flags_of(state));
	for (int i = 0; i < 3; i++) {
		mr = reg(&s, 0, 1);
		assert_ptr_equal(reg(&s, 0, 1), mr);
		assert_int_equal(give_in_thread(&s, mr), 0);
		assert_int_equal(mrcache_flush(s.cache, NULL), 1);
		assert_true(fake_is_registered(mr));
		assert_int_equal(give_in_thread(&s, mr), 0);
		assert_int_equal(fake_registered(NULL), 0);
		assert_int_equal(mrcache_dereg_mr(s.cache, mr), EINVAL);
	}
	finish(&s);
}

TEST_BOTH(holds_that_went_both_ways_are_counted_right)
{
	struct ibv_mr *mr;
	struct scene s;

	begin(&s, flags_of(state));
	for (int i = 0; i < 5; i++) {
		mr = reg(&s, 0, 1);
		assert_int_equal(give_in_thread(&s, mr), 0);
	}
	/* This thread counts five, another one gave them back: none is held. */
	mr = reg(&s, 0, 1);
	assert_int_equal(mrcache_flush(s.cache, NULL), 1);
	assert_true(fake_is_registered(mr));
	give(&s, mr);
	assert_false(fake_is_registered(mr));
	mr = reg(&s, 0, 1);
	give(&s, mr);
	assert_int_equal(mrcache_flush(s.cache, NULL), 0);
	assert_int_equal(fake_registered(NULL), 0);
	finish(&s);
}

static void *take_one(void *arg)
{
	struct scene *s = arg;

	return mrcache_reg_mr(s->cache, s->pd, page(0), PAGE, LOCAL) ? s : NULL;
}

TEST_BOTH(a_thread_that_ends_leaves_its_holds)
{
	struct ibv_mr *mr;
	struct scene s;

	begin(&s, flags_of(state));
	mr = reg(&s, 0, 1);
	give(&s, mr);
	for (int i = 0; i < 3; i++)
		in_thread(take_one, &s);
	assert_int_equal(stats(&s).hits, 3);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(mrcache_flush(s.cache, NULL), 1);
		assert_true(fake_is_registered(mr));
		give(&s, mr);
	}
	assert_int_equal(fake_registered(NULL), 0);
	finish(&s);
}

TEST_BOTH(what_is_held_outlives_its_memory)
{
	struct ibv_mr *old, *mr;
	struct scene s;

	begin(&s, flags_of(state));
	old = reg(&s, 0, 2);
	assert_ptr_equal(reg(&s, 0, 2), old);
	fake_change(page(1), PAGE);
	mr = reg(&s, 0, 2);
	assert_ptr_not_equal(mr, old);
	assert_true(fake_is_registered(old));
	assert_int_equal(stats(&s).invalidations, 1);
	assert_int_equal(stats(&s).stale_held, 1);
	assert_int_equal(stats(&s).cached, 1);
	give(&s, old);
	assert_true(fake_is_registered(old));
	assert_int_equal(fake_calls(FAKE_DEREG), 0);
	give(&s, old);
	assert_false(fake_is_registered(old));
	assert_int_equal(fake_calls(FAKE_DEREG), 1);
	assert_int_equal(stats(&s).stale_held, 0);
	give(&s, mr);
	assert_int_equal(fake_calls(FAKE_DEREG), 1);
	finish(&s);
}

TEST_BOTH(what_is_idle_and_stale_is_deregistered_at_the_next_miss)
{
	struct scene s;

	begin(&s, flags_of(state));
	for (size_t n = 0; n < 3; n++)
		touch(&s, n, 1);
	fake_change(page(0), 3 * PAGE);
	touch(&s, 9, 1);
	assert_int_equal(fake_registered(NULL), 1);
	assert_int_equal(fake_watches(s.monitor), 1);
	assert_int_equal(stats(&s).invalidations, 3);
	assert_int_equal(stats(&s).deregistrations, 3);
	finish(&s);
}

TEST_BOTH(an_address_of_libibverbs_may_be_used_again)
{
	struct ibv_mr *old, *mr;
	struct scene s;

	begin(&s, flags_of(state));
	fake_reuse_addresses(true);
	for (size_t n = 0; n < 5; n++) {
		old = reg(&s, n, 1);
		give(&s, old);
		assert_int_equal(mrcache_flush(s.cache, NULL), 0);
		mr = reg(&s, n + 100, 1);
		assert_ptr_equal(mr, old);
		assert_int_equal(mrcache_flush(s.cache, NULL), 1);
		give(&s, mr);
		assert_int_equal(mrcache_dereg_mr(s.cache, mr), EINVAL);
		/* Uncached, at the same address again. */
		mr = mrcache_reg_mr(s.cache, s.pd, page(n), PAGE,
				    IBV_ACCESS_MW_BIND);
		assert_ptr_equal(mr, old);
		give(&s, mr);
	}
	finish(&s);
}

/* ---- valid, flush, invalidate, close ------------------------------------------- */

TEST_BOTH(valid_says_what_changed)
{
	struct ibv_mr *a, *b, *uncached;
	struct scene s;

	begin(&s, flags_of(state));
	a = reg(&s, 0, 1);
	b = reg(&s, 1, 1);
	uncached = mrcache_reg_mr(s.cache, s.pd, page(2), PAGE,
				  IBV_ACCESS_MW_BIND);
	assert_true(mrcache_valid(s.cache, a));
	fake_noise(s.monitor);
	assert_true(mrcache_valid(s.cache, a));
	fake_change(page(0), 3 * PAGE / 2);
	assert_false(mrcache_valid(s.cache, a));
	assert_false(mrcache_valid(s.cache, b));
	assert_true(mrcache_valid(s.cache, uncached));
	give(&s, b);
	b = reg(&s, 1, 1);
	touch(&s, 10, 1); /* new, so it drains */
	assert_true(mrcache_valid(s.cache, b));
	assert_false(mrcache_valid(s.cache, a));
	assert_true(mrcache_valid(s.cache, uncached));
	give(&s, a);
	assert_true(mrcache_valid(s.cache, b));
	give(&s, b);
	give(&s, uncached);
	finish(&s);
}

TEST_BOTH(valid_knows_what_was_flushed)
{
	struct ibv_mr *mr, *other;
	struct scene s;

	begin(&s, flags_of(state));
	mr = reg(&s, 0, 1);
	other = reg(&s, 5, 1);
	assert_int_equal(mrcache_flush(s.cache, NULL), 2);
	assert_true(mrcache_valid(s.cache, mr));
	fake_noise(s.monitor);
	assert_true(mrcache_valid(s.cache, mr));
	fake_change(page(0), PAGE);
	assert_false(mrcache_valid(s.cache, mr));
	touch(&s, 9, 1); /* drains */
	assert_false(mrcache_valid(s.cache, mr));
	assert_true(mrcache_valid(s.cache, other));
	give(&s, mr);
	give(&s, other);
	finish(&s);
}

TEST_BOTH(valid_is_free_when_nothing_changed)
{
	struct ibv_mr *mr;
	struct scene s;
	unsigned int calls;

	begin(&s, flags_of(state));
	mr = reg(&s, 0, 1);
	calls = fake_all_calls();
	for (int i = 0; i < 100; i++)
		assert_true(mrcache_valid(s.cache, mr));
	assert_int_equal(fake_all_calls(), calls);
	give(&s, mr);
	finish(&s);
}

TEST_BOTH(flush_takes_one_pd_or_all)
{
	struct ibv_mr *held, *again;
	struct scene s;

	begin(&s, flags_of(state));
	for (unsigned int pd = 0; pd < 3; pd++) {
		s.pd = fake_pd(pd);
		for (size_t n = 0; n < 4; n++)
			touch(&s, n, 1);
	}
	assert_int_equal(mrcache_flush(s.cache, fake_pd(1)), 0);
	assert_int_equal(fake_registered(fake_pd(0)), 4);
	assert_int_equal(fake_registered(fake_pd(1)), 0);
	assert_int_equal(fake_registered(fake_pd(2)), 4);
	assert_int_equal(mrcache_flush(s.cache, fake_pd(9)), 0);
	assert_int_equal(fake_registered(NULL), 8);

	s.pd = fake_pd(2);
	held = reg(&s, 2, 1);
	assert_int_equal(mrcache_flush(s.cache, fake_pd(0)), 0);
	assert_int_equal(mrcache_flush(s.cache, NULL), 1);
	assert_int_equal(fake_registered(NULL), 1);
	assert_true(fake_is_registered(held));
	/* It is forgotten: not handed out again. */
	again = reg(&s, 2, 1);
	assert_ptr_not_equal(again, held);
	assert_int_equal(mrcache_flush(s.cache, fake_pd(2)), 2);
	give(&s, held);
	assert_false(fake_is_registered(held));
	assert_int_equal(mrcache_flush(s.cache, fake_pd(2)), 1);
	assert_int_equal(stats(&s).stale_held, 0);
	assert_int_equal(stats(&s).invalidations, 0);
	give(&s, again);
	assert_int_equal(fake_registered(NULL), 0);
	finish(&s);
}

TEST_BOTH(flush_counts_what_is_not_cached_too)
{
	struct ibv_mr *mr;
	struct scene s;

	begin(&s, flags_of(state));
	mr = mrcache_reg_mr(s.cache, s.pd, page(0), PAGE, IBV_ACCESS_MW_BIND);
	assert_non_null(mr);
	assert_int_equal(mrcache_flush(s.cache, s.pd), 1);
	assert_int_equal(mrcache_flush(s.cache, fake_pd(1)), 0);
	assert_int_equal(mrcache_close(s.cache), -EBUSY);
	give(&s, mr);
	assert_int_equal(mrcache_flush(s.cache, s.pd), 0);
	finish(&s);
}

TEST_BOTH(invalidate_takes_what_overlaps)
{
	struct ibv_mr *held;
	struct scene s;

	begin(&s, flags_of(state));
	for (size_t n = 0; n < 10; n++)
		touch(&s, n, 1);
	held = reg(&s, 4, 1);
	/* From the last byte of page 3 to the first of page 6. */
	assert_int_equal(
		mrcache_invalidate(s.cache, at(3, PAGE - 1), 2 * PAGE + 2), 0);
	assert_int_equal(fake_registered(NULL), 7);
	assert_int_equal(stats(&s).invalidations, 4);
	assert_int_equal(stats(&s).stale_held, 1);
	assert_false(mrcache_valid(s.cache, held));
	for (size_t n = 0; n < 10; n++)
		assert_int_equal(is_cached(&s, n, 1), n < 3 || n > 6);
	give(&s, held);
	assert_false(fake_is_registered(held));

	held = reg(&s, 0, 1);
	assert_int_equal(mrcache_invalidate(s.cache, page(1), 100 * PAGE), 0);
	assert_true(mrcache_valid(s.cache, held));
	assert_int_equal(mrcache_invalidate(s.cache, NULL, SIZE_MAX), 0);
	assert_false(mrcache_valid(s.cache, held));
	assert_int_equal(mrcache_invalidate(s.cache, at(0, PAGE - 1), 1), 0);
	give(&s, held);
	assert_int_equal(fake_registered(NULL), 0);
	finish(&s);
}

TEST_BOTH(invalidate_reaches_what_was_flushed)
{
	struct ibv_mr *mr;
	struct scene s;

	begin(&s, flags_of(state));
	mr = reg(&s, 0, 1);
	assert_int_equal(mrcache_flush(s.cache, NULL), 1);
	assert_int_equal(mrcache_invalidate(s.cache, page(0), PAGE), 0);
	assert_false(mrcache_valid(s.cache, mr));
	assert_int_equal(stats(&s).stale_held, 1);
	give(&s, mr);
	assert_int_equal(stats(&s).stale_held, 0);
	finish(&s);
}

TEST_BOTH(close_refuses_while_something_is_held)
{
	struct ibv_mr *mr;
	struct scene s;

	begin(&s, flags_of(state));
	touch(&s, 1, 1);
	mr = reg(&s, 0, 1);
	assert_int_equal(mrcache_close(s.cache), -EBUSY);
	/* Nothing was done. */
	assert_int_equal(stats(&s).cached, 2);
	assert_true(is_cached(&s, 0, 1));
	assert_true(is_cached(&s, 1, 1));
	assert_true(mrcache_valid(s.cache, mr));
	give(&s, mr);
	finish(&s);
}

TEST_BOTH(many_caches_live_side_by_side)
{
	enum { CACHES = 12 };
	struct scene s[CACHES];
	struct ibv_mr *mrs[CACHES];

	for (int i = 0; i < CACHES; i++)
		begin(&s[i], i % 3 == 2 ? NO_MONITOR : flags_of(state));
	for (int again = 0; again < 2; again++) {
		for (int i = 0; i < CACHES; i++) {
			struct mrcache *other = s[(i + 1) % CACHES].cache;

			mrs[i] = reg(&s[i], 0, 1);
			for (int j = 0; j < i; j++)
				assert_ptr_not_equal(mrs[i], mrs[j]);
			assert_int_equal(mrcache_dereg_mr(other, mrs[i]),
					 EINVAL);
		}
		for (int i = 0; i < CACHES; i++)
			give(&s[i], mrs[i]);
	}
	fake_change(page(0), PAGE);
	for (int i = 0; i < CACHES; i++)
		assert_false(is_cached(&s[i], 0, 1));
	for (int i = CACHES - 1; i > 0; i--)
		assert_int_equal(mrcache_close(s[i].cache), 0);
	assert_true(is_cached(&s[0], 0, 1));
	finish(&s[0]);
}

/*
 * A thread's record whose counts are a page that cannot be read: who adds up the
 * counts of all threads dies of it.
 */
static void trap_sums(struct mrcache *cache, struct mrc_thread *trap,
		      void *page)
{
	memset(trap, 0, sizeof(*trap));
	trap->in_use = true;
	trap->next = atomic_load(&cache->threads);
	atomic_store(&trap->counts[0], page);
	atomic_store(&cache->threads, trap);
}

static void untrap_sums(struct mrcache *cache, const struct mrc_thread *trap)
{
	struct mrc_thread *thread = atomic_load(&cache->threads);

	if (thread == trap) {
		atomic_store(&cache->threads, trap->next);
		return;
	}
	while (thread->next != trap)
		thread = thread->next;
	thread->next = trap->next;
}

/* It is what a progress thread does, and must not depend on how many others are. */
TEST_BOTH(giving_back_for_another_thread_asks_no_third)
{
	void *nothing =
		mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	static struct mrc_thread trap;
	struct ibv_mr *mr[2];
	struct scene s;

	assert_true(nothing != MAP_FAILED);
	begin(&s, flags_of(state));
	mr[0] = reg(&s, 0, 1);
	mr[1] = reg(&s, 1, 1);
	trap_sums(s.cache, &trap, nothing);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(give_in_thread(&s, mr[0]), 0);
		assert_ptr_equal(reg(&s, 0, 1), mr[0]);
		assert_ptr_equal(reg(&s, 0, 1), mr[0]);
		assert_int_equal(give_in_thread(&s, mr[0]), 0);
		/* Also as the only one to have it. */
		assert_int_equal(give_in_thread(&s, mr[1]), 0);
		assert_ptr_equal(reg(&s, 1, 1), mr[1]);
	}
	untrap_sums(s.cache, &trap);
	/* And what nobody holds is found out all the same. */
	for (int i = 0; i < 2; i++) {
		assert_int_equal(give_in_thread(&s, mr[i]), 0);
		assert_int_equal(give_in_thread(&s, mr[i]), EINVAL);
	}
	finish(&s);
	munmap(nothing, PAGE);
}

/* Memory in use, where it is known. */
static size_t in_use(void)
{
	return mallinfo2().uordblks;
}

TEST_BOTH(closed_caches_do_not_pile_up)
{
	size_t before = 0;

	for (int i = 0; i < 1000; i++) {
		struct scene s;

		begin(&s, flags_of(state));
		touch(&s, 0, 1);
		finish(&s);
		/* Some are kept, so that using them is an error. */
		assert_int_equal(mrcache_flush(s.cache, NULL), -EINVAL);
		if (i == 200)
			before = in_use();
	}
	assert_true(in_use() < before + 100 * sizeof(struct mrcache));
}

TEST_BOTH(a_cache_can_be_opened_after_another_was_closed)
{
	struct scene s;

	for (int i = 0; i < 50; i++) {
		begin(&s, flags_of(state));
		assert_false(is_cached(&s, 0, 1));
		assert_true(is_cached(&s, 0, 1));
		finish(&s);
	}
}

TEST_BOTH(no_lock_is_held_during_a_call)
{
	struct ibv_mr *held;
	struct mrcache_attr attr;
	struct scene s;

	test_attr(&attr);
	attr.max_regs = 6;
	begin_with(&s, flags_of(state), &attr);
	fake_check_locks(s.cache);
	held = reg(&s, 0, 1);
	for (size_t n = 1; n < 12; n++)
		touch(&s, n, 1);
	fake_change(page(0), 20 * PAGE);
	touch(&s, 30, 1); /* drains and deregisters */
	no_trouble();
	give(&s, held);
	touch(&s, 31, 1);
	assert_int_equal(mrcache_invalidate(s.cache, page(31), 1), 0);
	assert_int_equal(mrcache_dereg_mr(s.cache, held), EINVAL); /* logs */
	touch(&s, 32, 1);
	fake_fail(FAKE_DEREG, 1, 1, EIO); /* logs */
	assert_int_equal(mrcache_flush(s.cache, NULL), 0);
	fake_noise(s.monitor);
	fake_fail(FAKE_READ, 1, 1, EIO); /* logs */
	touch(&s, 33, 1);
	assert_int_equal(stats(&s).dereg_errors, 1);
	assert_true(log_lines(MRCACHE_LOG_DEBUG) >= 3);
	no_trouble();
	fake_check_locks(NULL);
	assert_int_equal(mrcache_close(s.cache), 0);
	assert_int_equal(fake_registered(NULL), 1); /* the one that failed */
	fake_verbs_reset();
}

/* ---- containment ------------------------------------------------------------- */

static void begin_contain(struct scene *s, unsigned int flags, bool remote,
			  bool align)
{
	struct mrcache_attr attr;

	test_attr(&attr);
	attr.contain = true;
	attr.remote = remote;
	attr.page_align = align;
	begin_with(s, flags, &attr);
}

/* Registers anything, checks that it reaches the range, tells if it was a hit. */
static bool hits(struct scene *s, const void *addr, size_t length, int access)
{
	unsigned int before = fake_calls(FAKE_REG);
	struct ibv_mr *mr =
		mrcache_reg_mr(s->cache, s->pd, (void *)addr, length, access);
	int remote = ~IBV_ACCESS_LOCAL_WRITE;

	assert_non_null(mr);
	assert_true(fake_reaches(mr, addr, length));
	assert_ptr_equal(mr->pd, s->pd);
	assert_int_equal(fake_access(mr) & access, access);
	assert_int_equal(fake_access(mr) & remote, access & remote);
	give(s, mr);
	return fake_calls(FAKE_REG) == before;
}

TEST_BOTH(a_larger_registration_serves_all_within)
{
	struct scene s;

	begin_contain(&s, flags_of(state), false, false);
	/* Sizes and places around powers of two, and odd ones. */
	for (unsigned int big = 1; big <= 40; big += 3) {
		size_t start = 1000 + 7 * big, length = big * PAGE + 13 * big;

		assert_int_equal(mrcache_flush(s.cache, NULL), 0);
		assert_false(hits(&s, at(start, 100), length, LOCAL));
		for (size_t from = 0; from < length; from += 1 + length / 13)
			for (size_t n = 1; n <= length - from;
			     n += 1 + length / 11)
				assert_true(hits(&s, at(start, 100 + from), n,
						 LOCAL));
		assert_true(hits(&s, at(start, 100), 1, LOCAL));
		assert_true(hits(&s, at(start, 100 + length - 1), 1, LOCAL));
		assert_true(hits(&s, at(start, 101), length - 1, LOCAL));
		/* Nothing is not a part: that is for ibv_reg_mr() to judge. */
		assert_false(hits(&s, at(start, 101), 0, LOCAL));
		/* One byte outside is outside. */
		assert_false(hits(&s, at(start, 99), 1, LOCAL));
		assert_false(hits(&s, at(start, 100 + length), 1, LOCAL));
	}
	finish(&s);
}

TEST_BOTH(partial_overlap_is_a_miss)
{
	struct scene s;

	begin_contain(&s, flags_of(state), false, false);
	assert_false(hits(&s, page(10), 4 * PAGE, LOCAL));
	assert_false(hits(&s, page(9), 2 * PAGE, LOCAL));
	assert_false(hits(&s, page(13), 2 * PAGE, LOCAL));
	assert_false(hits(&s, page(9), 6 * PAGE, LOCAL));
	assert_true(hits(&s, page(9), 6 * PAGE, LOCAL));
	s.pd = fake_pd(1);
	assert_false(hits(&s, page(11), PAGE, LOCAL));
	finish(&s);
}

TEST_BOTH(within_local_access_may_be_wider_and_remote_never)
{
	static const int both = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ;
	struct scene s;

	begin_contain(&s, flags_of(state), true, false);
	assert_false(hits(&s, page(0), 8 * PAGE, IBV_ACCESS_LOCAL_WRITE));
	assert_true(hits(&s, page(1), PAGE, IBV_ACCESS_LOCAL_WRITE));
	assert_true(hits(&s, page(2), PAGE, 0));
	assert_false(hits(&s, page(1), PAGE, both));
	assert_false(hits(&s, page(2), PAGE, IBV_ACCESS_REMOTE_READ));
	assert_false(hits(&s, page(2), PAGE, IBV_ACCESS_RELAXED_ORDERING));

	assert_false(hits(&s, page(20), 8 * PAGE, both));
	assert_true(hits(&s, page(21), PAGE, both));
	assert_true(hits(&s, page(22), PAGE, IBV_ACCESS_REMOTE_READ));
	assert_false(hits(&s, page(21), PAGE, IBV_ACCESS_LOCAL_WRITE));
	assert_false(hits(&s, page(23), PAGE, 0));
	assert_false(hits(&s, page(24), PAGE,
			  IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE));

	/* Less does not serve more. */
	assert_false(hits(&s, page(40), 8 * PAGE, 0));
	assert_false(hits(&s, page(41), PAGE, IBV_ACCESS_LOCAL_WRITE));
	finish(&s);
}

TEST_BOTH(without_contain_only_the_exact_range_serves)
{
	struct scene s;

	begin(&s, flags_of(state));
	assert_false(hits(&s, page(0), 8 * PAGE, LOCAL));
	assert_false(hits(&s, page(0), 4 * PAGE, LOCAL));
	assert_false(hits(&s, page(0), 8 * PAGE, 0));
	finish(&s);
}

TEST_BOTH(what_a_larger_one_served_goes_with_it)
{
	struct ibv_mr *big, *small;
	struct scene s;

	begin_contain(&s, flags_of(state), false, false);
	big = mrcache_reg_mr(s.cache, s.pd, page(0), 8 * PAGE, LOCAL);
	small = mrcache_reg_mr(s.cache, s.pd, page(2), PAGE, LOCAL);
	assert_ptr_equal(small, big);
	/* Elsewhere in the larger range: this one must not be used either. */
	fake_change(page(7), PAGE);
	assert_false(mrcache_valid(s.cache, small));
	assert_false(hits(&s, page(2), PAGE, LOCAL));
	give(&s, big);
	assert_true(fake_is_registered(big));
	give(&s, small);
	assert_false(fake_is_registered(big));
	finish(&s);
}

TEST_BOTH(what_a_larger_one_makes_needless_goes)
{
	enum { LENGTHS = 8192, STEP = 16, LEFT = 16, EQUAL = 32 };
	struct ibv_mr *held;
	struct scene s;

	begin_contain(&s, flags_of(state), false, false);
	/* What it does not serve: other memory, other access. */
	assert_false(hits(&s, page(40), PAGE, LOCAL));
	assert_false(hits(&s, page(0), STEP, IBV_ACCESS_RELAXED_ORDERING));
	held = mrcache_reg_mr(s.cache, s.pd, page(0), STEP + 1, LOCAL);
	for (size_t n = 2; n <= LENGTHS; n++) {
		assert_false(hits(&s, page(0), n * STEP, LOCAL));
		assert_true(stats(&s).cached <= LEFT);
	}
	assert_true(mrcache_valid(s.cache, held));
	give(&s, held);
	assert_true(fake_is_registered(held));
	for (size_t n = 1; n <= LENGTHS; n += 61)
		assert_true(hits(&s, page(0), n * STEP, LOCAL));
	assert_true(hits(&s, page(40), PAGE, LOCAL));
	assert_true(hits(&s, page(0), STEP, IBV_ACCESS_RELAXED_ORDERING));
	/* Two of the same length are not in each other. */
	mrcache_flush(s.cache, NULL);
	for (size_t i = 0; i < EQUAL; i++)
		assert_false(hits(&s, at(0, i), PAGE, LOCAL));
	assert_int_equal(stats(&s).cached, EQUAL);
	finish(&s);
}

TEST_BOTH(page_align_registers_whole_pages)
{
	struct ibv_mr *mr;
	struct scene s;

	begin_contain(&s, flags_of(state), false, true);
	mr = mrcache_reg_mr(s.cache, s.pd, at(3, 100), PAGE, LOCAL);
	assert_ptr_equal(mr->addr, page(3));
	assert_int_equal(mr->length, 2 * PAGE);
	assert_int_equal(stats(&s).cached_bytes, 2 * PAGE);
	give(&s, mr);
	assert_true(hits(&s, page(3), 10, LOCAL));
	assert_true(hits(&s, at(4, PAGE - 1), 1, LOCAL));
	assert_false(hits(&s, page(5), 1, LOCAL));
	assert_false(hits(&s, at(2, PAGE - 1), 1, LOCAL));
	/* What is not cached is what was asked for. */
	mr = mrcache_reg_mr(s.cache, s.pd, at(9, 100), 50, IBV_ACCESS_MW_BIND);
	assert_ptr_equal(mr->addr, at(9, 100));
	assert_int_equal(mr->length, 50);
	give(&s, mr);
	/* A change of any byte of the pages counts. */
	fake_change(at(3, 0), 1);
	assert_false(hits(&s, page(3), 10, LOCAL));
	/* At the very end of the address space pages cannot be rounded up. */
	mr = mrcache_reg_mr(s.cache, s.pd, (void *)(UINTPTR_MAX - 100), 50,
			    LOCAL);
	assert_non_null(mr);
	give(&s, mr);
	finish(&s);
}

/* ---- what passes through ------------------------------------------------------- */

/* Registers twice; both must be ordinary registrations for this one reason. */
static void passes_through(struct scene *s, void *addr, size_t length,
			   int access, enum mrcache_bypass reason)
{
	struct mrcache_stats before = stats(s), held, after;
	unsigned int calls = fake_calls(FAKE_REG),
		     said = log_lines(MRCACHE_LOG_WARN);
	struct ibv_mr *a =
		mrcache_reg_mr(s->cache, s->pd, addr, length, access);
	struct ibv_mr *b =
		mrcache_reg_mr(s->cache, s->pd, addr, length, access);

	assert_non_null(a);
	assert_non_null(b);
	assert_ptr_not_equal(a, b);
	assert_int_equal(fake_calls(FAKE_REG), calls + 2);
	assert_true(fake_serves(a, s->pd, addr, length, access));
	held = stats(s);
	assert_int_equal(held.uncached, before.uncached + 2);
	assert_true(mrcache_valid(s->cache, a));
	assert_int_equal(give_in_thread(s, a), 0);
	assert_false(fake_is_registered(a));
	give(s, b);
	assert_false(fake_is_registered(b));
	after = stats(s);
	for (int i = 0; i < MRCACHE_BYPASS_REASONS; i++)
		assert_int_equal(after.bypass[i],
				 before.bypass[i] + (i == (int)reason ? 2 : 0));
	assert_int_equal(after.uncached, before.uncached);
	assert_int_equal(after.hits, before.hits);
	assert_int_equal(after.misses, before.misses);
	assert_int_equal(after.cached, before.cached);
	assert_int_equal(after.registrations, before.registrations + 2);
	assert_int_equal(after.deregistrations, before.deregistrations + 2);
	if (reason != MRCACHE_BYPASS_MONITOR)
		assert_int_equal(log_lines(MRCACHE_LOG_WARN),
				 said + (before.bypass[reason] ? 0 : 1));
}

TEST_BOTH(what_cannot_be_cached_passes_through)
{
	struct scene s;

	begin(&s, flags_of(state));
	passes_through(&s, page(0), PAGE, IBV_ACCESS_ON_DEMAND,
		       MRCACHE_BYPASS_ACCESS);
	passes_through(&s, page(0), PAGE, IBV_ACCESS_ZERO_BASED,
		       MRCACHE_BYPASS_ACCESS);
	passes_through(&s, page(0), PAGE, IBV_ACCESS_MW_BIND,
		       MRCACHE_BYPASS_ACCESS);
	passes_through(&s, page(0), PAGE, IBV_ACCESS_HUGETLB,
		       MRCACHE_BYPASS_ACCESS);
	passes_through(&s, page(0), PAGE, 1 << 30, MRCACHE_BYPASS_ACCESS);
	passes_through(&s, page(0), PAGE, INT32_MIN, MRCACHE_BYPASS_ACCESS);
	passes_through(&s, NULL, SIZE_MAX, IBV_ACCESS_ON_DEMAND,
		       MRCACHE_BYPASS_ACCESS);
	passes_through(&s, page(0), 0, LOCAL, MRCACHE_BYPASS_RANGE);
	passes_through(&s, NULL, 0, 0, MRCACHE_BYPASS_RANGE);
	passes_through(&s, page(1), SIZE_MAX, LOCAL, MRCACHE_BYPASS_RANGE);
	passes_through(&s, (void *)-PAGE, PAGE, LOCAL, MRCACHE_BYPASS_RANGE);
	passes_through(&s, page(0), PAGE, IBV_ACCESS_REMOTE_READ,
		       MRCACHE_BYPASS_REMOTE);
	passes_through(&s, page(0), PAGE, REMOTE, MRCACHE_BYPASS_REMOTE);
	passes_through(&s, page(0), PAGE, LOCAL | IBV_ACCESS_REMOTE_ATOMIC,
		       MRCACHE_BYPASS_REMOTE);
	assert_int_equal(log_lines(MRCACHE_LOG_DEBUG), 3);
	assert_int_equal(fake_monitor_calls(), 0);
	assert_false(is_cached(&s, 0, 1));
	assert_true(is_cached(&s, 0, 1));
	finish(&s);
}

TEST_BOTH(with_fork_support_everything_passes_through)
{
	struct scene s;

	begin(&s, flags_of(state));
	assert_int_equal(fake_fork_init(), 0);
	passes_through(&s, page(0), PAGE, LOCAL, MRCACHE_BYPASS_FORK);
	assert_int_equal(log_lines(MRCACHE_LOG_DEBUG), 1);
	assert_int_equal(fake_monitor_calls(), 0);
	finish(&s);
}

TEST(without_a_monitor_everything_passes_through)
{
	struct ibv_mr *mr;
	struct scene s;

	begin(&s, NO_MONITOR);
	assert_string_equal(mrcache_monitor(s.cache), "none");
	passes_through(&s, page(0), PAGE, LOCAL, MRCACHE_BYPASS_MONITOR);
	passes_through(&s, page(0), PAGE, REMOTE, MRCACHE_BYPASS_MONITOR);
	mr = reg(&s, 0, 1);
	assert_int_equal(mrcache_flush(s.cache, s.pd), 1);
	assert_int_equal(mrcache_invalidate(s.cache, page(0), PAGE), 0);
	assert_true(fake_is_registered(mr));
	give(&s, mr);
	assert_int_equal(log_lines(MRCACHE_LOG_DEBUG), 0);
	finish(&s);
}

TEST_BOTH(what_monitor_and_limits_refuse_passes_through)
{
	struct mrcache_attr attr;
	struct scene s;

	test_attr(&attr);
	attr.max_bytes = 16 * PAGE;
	begin_with(&s, flags_of(state), &attr);
	fake_fail(FAKE_WATCH, 1, FAKE_FOR_EVER, EOPNOTSUPP);
	passes_through(&s, page(0), PAGE, LOCAL, MRCACHE_BYPASS_MEMORY);
	fake_fail(FAKE_WATCH, 1, FAKE_FOR_EVER, EIO);
	passes_through(&s, page(0), PAGE, LOCAL, MRCACHE_BYPASS_WATCH);
	fake_fail(FAKE_WATCH, 1, 0, EIO);
	passes_through(&s, page(0), 17 * PAGE, LOCAL, MRCACHE_BYPASS_LIMIT);
	assert_int_equal(log_lines(MRCACHE_LOG_DEBUG), 3);
	assert_int_equal(fake_watches(s.monitor), 0);
	finish(&s);
}

TEST_BOTH(remote_access_is_cached_if_wanted)
{
	struct mrcache_attr attr;
	struct ibv_mr *mr;
	struct scene s;

	mrcache_attr_init(&attr);
	assert_false(attr.remote);
	test_attr(&attr);
	attr.remote = true;
	begin_with(&s, flags_of(state), &attr);
	mr = reg_range(&s, page(0), PAGE, REMOTE);
	give(&s, mr);
	assert_ptr_equal(reg_range(&s, page(0), PAGE, REMOTE), mr);
	give(&s, mr);
	assert_int_equal(bypasses(&s), 0);
	finish(&s);
}

TEST_BOTH(quiet_says_nothing)
{
	struct mrcache_attr attr;
	struct ibv_mr *mr;
	struct scene s;

	test_attr(&attr);
	attr.log_level = MRCACHE_LOG_QUIET;
	begin_with(&s, flags_of(state), &attr);
	mr = mrcache_reg_mr(s.cache, s.pd, page(0), PAGE, REMOTE);
	give(&s, mr);
	assert_int_equal(mrcache_dereg_mr(s.cache, mr), EINVAL);
	assert_int_equal(log_lines(MRCACHE_LOG_DEBUG), 0);
	finish(&s);
}

int main(void)
{
	return run_cases(NULL, NULL);
}
