/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is scarce: room in the cache, memory that may be locked, watches, and
 * memory at all. What is idle makes room, what is held never goes, and any call
 * that fails anywhere leaves nothing behind and a cache that works.
 */
#include "unit.h"

#include <stdlib.h>

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

static void what_was_not_used_for_longest_makes_room(void **state)
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

static void registrations_are_limited(void **state)
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

static void bytes_are_limited(void **state)
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

static void no_more_goes_than_must(void **state)
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

static void what_can_never_fit_passes_through_and_evicts_nothing(void **state)
{
	static const uint64_t bytes[] = {0, 1, PAGE - 1, 4 * PAGE};
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

static void whole_pages_count_as_whole_pages(void **state)
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

static void what_is_held_never_goes(void **state)
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

static void what_another_thread_holds_never_goes(void **state)
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

static void when_all_is_held_more_passes_through(void **state)
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

static void what_is_stale_and_held_counts_until_it_is_given_back(void **state)
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
static void what_is_stale_and_idle_makes_room_first(void **state)
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

static void without_memory_idle_ones_make_room(void **state)
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

static void without_memory_and_nothing_idle_it_is_an_error(void **state)
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

static void the_lock_limit_is_lived_with(void **state)
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

static void remote_keys_linger_for_a_while(void **state)
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

/* ---- every call fails once ----------------------------------------------------------- */

static void change_while_pinning(enum fake_call call, enum fake_when when,
				 void *arg)
{
	unsigned int *times = arg;

	if (call == FAKE_REG && when == DURING && *times) {
		--*times;
		fake_change(page(40), 1);
	}
}

/* NULL only with an error that was made to happen. */
static struct ibv_mr *try_reg(struct scene *s, size_t n, size_t pages,
			      int access, int error)
{
	struct ibv_mr *mr;

	errno = 0;
	mr = mrcache_reg_mr(s->cache, s->pd, page(n), pages * PAGE, access);
	if (!mr)
		assert_int_equal(errno, error);
	else
		assert_true(fake_is_registered(mr));
	return mr;
}

static void try_give(struct scene *s, struct ibv_mr *mr, int error)
{
	int ret;

	if (!mr)
		return;
	ret = mrcache_dereg_mr(s->cache, mr);
	if (ret) {
		/* An uncached one: the second time it goes. */
		assert_int_equal(ret, error);
		give(s, mr);
	}
}

/* Some of everything. */
static void use(struct scene *s, int error)
{
	struct ibv_mr *held[6];
	unsigned int times = 2;

	held[0] = try_reg(s, 0, 2, LOCAL, error);
	held[1] = try_reg(s, 2, 2, LOCAL, error);
	held[2] = try_reg(s, 4, 1, REMOTE, error);
	try_give(s, try_reg(s, 6, 1, LOCAL, error), error);
	try_give(s, held[1], error);
	fake_change(page(1), 2 * PAGE);
	held[1] = try_reg(s, 1, 3, LOCAL, error);
	held[3] = try_reg(s, 2, 2, LOCAL, error);
	fake_hook(change_while_pinning, &times);
	held[4] = try_reg(s, 40, 2, LOCAL, error);
	fake_hook(NULL, NULL);
	s->pd = fake_pd(1);
	held[5] = try_reg(s, 8, 1, LOCAL, error);
	try_give(s, held[5], error);
	try_give(s, try_reg(s, 9, 3, LOCAL, error), error);
	try_give(s, try_reg(s, 12, 3, LOCAL, error), error);
	s->pd = fake_pd(0);
	try_give(s, held[0], error);
	try_give(s, held[3], error);
	try_give(s, try_reg(s, 20, 4, LOCAL, error), error);
	fake_change(page(9), 1);
	try_give(s, try_reg(s, 21, 2, LOCAL, error), error);
	assert_int_equal(mrcache_invalidate(s->cache, page(21), PAGE), 0);
	assert_true(mrcache_flush(s->cache, fake_pd(1)) == 0);
	try_give(s, held[4], error);
	try_give(s, held[2], error);
	try_give(s, held[1], error);
	assert_int_equal(mrcache_flush(s->cache, fake_pd(0)), 0);
}

/* And then it must be as good as new. */
static void works(struct scene *s)
{
	for (size_t n = 0; n < 3; n++) {
		touch(s, 50 + n, 1);
		assert_true(is_cached(s, 50 + n, 1));
	}
	fake_change(page(51), 1);
	touch(s, 51, 1);
	assert_true(is_cached(s, 51, 1));
	assert_int_equal(stats(s).uncached, 0);
	assert_int_equal(stats(s).stale_held, 0);
}

static void begin_small(struct scene *s, unsigned int flags)
{
	struct mrcache_attr attr;

	test_attr(&attr);
	attr.max_regs = 5;
	attr.max_bytes = 12 * PAGE;
	attr.log_level = MRCACHE_LOG_QUIET;
	begin_with(s, flags, &attr);
}

static void each_call_fails(unsigned int flags, enum fake_call call,
			    unsigned int times, int error)
{
	for (unsigned int n = 1;; n++) {
		unsigned int before = fake_calls(call), lost;
		struct scene s;
		bool reached;

		begin_small(&s, flags);
		fake_fail(call, n, times, error);
		use(&s, error);
		reached = fake_calls(call) >= before + n;
		fake_fail(call, 1, 0, 0);
		lost = (unsigned int)fake_registered(NULL);
		/* An uncached one is deregistered when it is tried again. */
		assert_true(lost <=
			    (call == FAKE_DEREG ? stats(&s).dereg_errors : 0));
		assert_int_equal(stats(&s).registrations,
				 stats(&s).deregistrations + lost);
		assert_int_equal(fake_watches(s.monitor), 0);
		works(&s);
		assert_int_equal(mrcache_close(s.cache), 0);
		assert_int_equal(fake_registered(NULL), lost);
		assert_int_equal(fake_monitors(), 0);
		no_trouble();
		fake_verbs_reset();
		if (!reached)
			break;
		assert_true(n < 1000);
	}
}

static void each_registration_fails(void **state)
{
	each_call_fails(flags_of(state), FAKE_REG, 1, ENOMEM);
	each_call_fails(flags_of(state), FAKE_REG, 1, EFAULT);
	each_call_fails(flags_of(state), FAKE_REG, 3, ENOMEM);
	each_call_fails(flags_of(state), FAKE_REG, FAKE_FOR_EVER, EPERM);
}

static void each_deregistration_fails(void **state)
{
	each_call_fails(flags_of(state), FAKE_DEREG, 1, EBUSY);
}

static void each_watch_fails(void **state)
{
	each_call_fails(flags_of(state), FAKE_WATCH, 1, ENOSPC);
	each_call_fails(flags_of(state), FAKE_WATCH, 2, ENOSPC);
	each_call_fails(flags_of(state), FAKE_WATCH, 1, EOPNOTSUPP);
	each_call_fails(flags_of(state), FAKE_WATCH, FAKE_FOR_EVER, EIO);
}

static void each_rearm_fails(void **state)
{
	each_call_fails(flags_of(state), FAKE_REARM, 1, ENOENT);
	each_call_fails(flags_of(state), FAKE_REARM, FAKE_FOR_EVER, ESTALE);
}

static void each_unwatch_fails(void **state)
{
	each_call_fails(flags_of(state), FAKE_UNWATCH, 1, EINVAL);
	each_call_fails(flags_of(state), FAKE_UNWATCH, FAKE_FOR_EVER, EINVAL);
}

static void each_read_fails(void **state)
{
	each_call_fails(flags_of(state), FAKE_READ, 1, EIO);
	each_call_fails(flags_of(state), FAKE_READ, FAKE_FOR_EVER, ESTALE);
}

/* ---- no memory ------------------------------------------------------------------------ */

/* Allocations of the library (and of this program) as they are counted down. */
static unsigned int fail_from, fail_end, allocations;

#if !SANITIZED
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

static bool is_scarce(void)
{
	if (!fail_end || fake_allocates)
		return false;
	allocations++;
	return allocations >= fail_from && allocations < fail_end;
}

void *malloc(size_t size)
{
	if (is_scarce()) {
		errno = ENOMEM;
		return NULL;
	}
	return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
	if (is_scarce()) {
		errno = ENOMEM;
		return NULL;
	}
	return __libc_calloc(count, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
	if (is_scarce()) {
		errno = ENOMEM;
		return NULL;
	}
	return __libc_memalign(alignment, size);
}
#endif

static void needs_scarce_memory(void)
{
	if (SANITIZED) {
		print_message(
			"# SKIP: sanitizers have an allocator of their own\n");
		skip();
	}
}

static void make_scarce(unsigned int nth, unsigned int times)
{
	allocations = 0;
	fail_from = nth;
	fail_end = nth + times;
}

static void make_plenty(void)
{
	fail_end = 0;
}

static void each_allocation_fails_from(unsigned int flags, unsigned int times)
{
	for (unsigned int n = 1;; n++) {
		struct mrcache_attr attr;
		struct scene s;
		bool reached;

		test_attr(&attr);
		attr.max_regs = 5;
		attr.log_level = MRCACHE_LOG_QUIET;
		attr.contain = n % 2;
		s.pd = fake_pd(0);
		s.monitor = fake_monitor_new(flags);
		make_scarce(n, times);
		errno = 0;
		s.cache = mrc_open(&attr, fake_monitor_base(s.monitor),
				   &fake_verbs);
		if (s.cache) {
			use(&s, ENOMEM);
		} else {
			assert_int_equal(errno, ENOMEM);
			assert_int_equal(fake_monitors(), 0);
		}
		reached = allocations >= n;
		make_plenty();
		if (s.cache) {
			assert_int_equal(fake_registered(NULL), 0);
			assert_int_equal(fake_watches(s.monitor), 0);
			works(&s);
			finish(&s);
		}
		if (!reached)
			break;
		assert_true(n < 1000);
	}
}

static void each_allocation_fails(void **state)
{
	needs_scarce_memory();
	each_allocation_fails_from(flags_of(state), 1);
	each_allocation_fails_from(flags_of(state), 2);
	each_allocation_fails_from(flags_of(state), FAKE_FOR_EVER);
}

static void a_table_that_cannot_grow_is_lived_with(void **state)
{
	enum { BEFORE_IT_GROWS = 500, MANY = 3000 };
	struct ibv_mr *held;
	struct scene s;

	needs_scarce_memory();
	begin(&s, flags_of(state));
	held = reg(&s, 60000, 1);
	for (size_t n = 0; n < BEFORE_IT_GROWS; n++)
		touch(&s, n, 1);
	make_scarce(1, FAKE_FOR_EVER);
	for (size_t n = 0; n < MANY; n++)
		try_give(&s, try_reg(&s, n, 1, LOCAL, ENOMEM), ENOMEM);
	/* What was there is there. */
	assert_true(is_cached(&s, 60000, 1));
	assert_int_equal(stats(&s).cached, fake_registered(NULL));
	assert_int_equal(stats(&s).cached, fake_watches(s.monitor));
	make_plenty();
	for (size_t n = 0; n < MANY; n++)
		touch(&s, n, 1);
	for (size_t n = 0; n < MANY; n++)
		assert_true(is_cached(&s, n, 1));
	give(&s, held);
	finish(&s);
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
static void a_thread_without_a_record_is_served(void **state)
{
	pthread_t thread;
	struct scene s;
	void *failed;

	needs_scarce_memory();
	begin(&s, flags_of(state));
	for (size_t n = 0; n < 3; n++)
		touch(&s, n, 1);
	make_scarce(1, FAKE_FOR_EVER);
	assert_int_equal(pthread_create(&thread, NULL, touch_in_vain, &s), 0);
	pthread_join(thread, &failed);
	make_plenty();
	assert_null(failed);
	assert_int_equal(stats(&s).hits, 3);
	assert_int_equal(mrcache_flush(s.cache, NULL), 0);
	assert_int_equal(fake_registered(NULL), 0);
	finish(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_BOTH(what_was_not_used_for_longest_makes_room),
		TEST_BOTH(registrations_are_limited),
		TEST_BOTH(bytes_are_limited),
		TEST_BOTH(no_more_goes_than_must),
		TEST_BOTH(what_can_never_fit_passes_through_and_evicts_nothing),
		TEST_BOTH(whole_pages_count_as_whole_pages),
		TEST_BOTH(what_is_held_never_goes),
		TEST_BOTH(what_another_thread_holds_never_goes),
		TEST_BOTH(when_all_is_held_more_passes_through),
		TEST_BOTH(what_is_stale_and_held_counts_until_it_is_given_back),
		TEST_BOTH(what_is_stale_and_idle_makes_room_first),
		TEST_BOTH(without_memory_idle_ones_make_room),
		TEST_BOTH(without_memory_and_nothing_idle_it_is_an_error),
		TEST_BOTH(the_lock_limit_is_lived_with),
		TEST_BOTH(remote_keys_linger_for_a_while),
		TEST_BOTH(each_registration_fails),
		TEST_BOTH(each_deregistration_fails),
		TEST_BOTH(each_watch_fails),
		TEST_BOTH(each_rearm_fails),
		TEST_BOTH(each_unwatch_fails),
		TEST_BOTH(each_read_fails),
		TEST_BOTH(each_allocation_fails),
		TEST_BOTH(a_table_that_cannot_grow_is_lived_with),
		TEST_BOTH(a_thread_without_a_record_is_served),
	};

	return RUN(tests);
}
