/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whatever fails leaves nothing behind and a cache that works. Each scenario is
 * run again and again while the first, the second, the third ... allocation,
 * verb, call of the monitor, system call fails, until none is left to fail.
 */
#include "fake_driver.h"
#include "giveback.h"
#include "reaper.h"
#include "unit.h"

#include <fcntl.h>
#include <unistd.h>

/* ---- what the cache stands on ------------------------------------------------- */

struct base {
	unsigned int flags;
	bool device; /* by way of monitor_ummunotify.c */
};

static const struct base states = {FAKE_STATES, false}, bare = {0, false},
			 device = {FAKE_STATES, true}, device_2010 = {0, true};

/* One run of a scenario under a fault. */
struct run {
	const struct base *base;
	enum fake_call call;
	int error;
	struct scene s;
	struct mrcache_attr attr; /* the scenario's wishes */
	unsigned int given;	  /* registrations that were handed out */
};

/* Only what a caller needs may be refused; all else must not be noticed. */
static bool may_refuse_open(enum fake_call call)
{
	return call == FAKE_MEMORY || call == FAKE_MAP || call == FAKE_OPEN ||
	       call == FAKE_FEATURES;
}

static bool may_refuse_reg(enum fake_call call)
{
	return call == FAKE_MEMORY || call == FAKE_REG;
}

static bool open_cache(struct run *run)
{
	struct scene *s = &run->s;

	s->pd = fake_pd(0);
	s->monitor = fake_monitor_new(run->base->flags | FAKE_FD);
	errno = 0;
	if (run->base->device) {
		fake_driver(s->monitor);
		run->attr.monitor = "ummunotify";
		run->attr.device = FAKE_DEVICE;
		s->cache = mrc_open_device(&run->attr, &fake_verbs, NULL);
	} else {
		s->cache = mrc_open(&run->attr, fake_monitor_base(s->monitor),
				    &fake_verbs);
	}
	if (s->cache)
		return true;
	assert_true(may_refuse_open(run->call));
	assert_int_equal(errno, run->error);
	return false;
}

/* The device is not the cache's: only its descriptor was. */
static void end_device(struct run *run)
{
	struct mrc_monitor *monitor;

	if (!run->base->device)
		return;
	fake_driver(NULL);
	monitor = fake_monitor_base(run->s.monitor);
	monitor->ops->close(monitor);
}

/* ---- steps ---------------------------------------------------------------------- */

static struct ibv_mr *take(struct run *run, size_t n, size_t pages, int access)
{
	struct ibv_mr *mr = try_reg(&run->s, n, pages, access, run->error);

	if (mr)
		run->given++;
	else
		assert_true(may_refuse_reg(run->call));
	return mr;
}

/* And it reaches the memory as it is now: no stale one. */
static struct ibv_mr *take_good(struct run *run, size_t n, size_t pages,
				int access)
{
	struct ibv_mr *mr = take(run, n, pages, access);

	if (mr)
		assert_true(fake_reaches(mr, page(n), pages * PAGE));
	return mr;
}

static void put(struct run *run, struct ibv_mr *mr)
{
	try_give(&run->s, mr, run->error);
}

static void pass_by(struct run *run, size_t n, size_t pages)
{
	put(run, take_good(run, n, pages, LOCAL));
}

/* ---- scenarios -------------------------------------------------------------------- */

static void change_while_pinning(enum fake_call call, enum fake_when when,
				 void *arg)
{
	unsigned int *times = arg;

	if (call == FAKE_REG && when == DURING && *times) {
		--*times;
		fake_change(page(40), 1);
	}
}

/* Limits that are reached, two domains, changes before, while and after. */
static void some_of_everything(struct run *run)
{
	struct scene *s = &run->s;
	struct ibv_mr *held[5];
	unsigned int times = 2;

	held[0] = take_good(run, 0, 2, LOCAL);
	held[1] = take_good(run, 2, 2, LOCAL);
	held[2] = take_good(run, 4, 1, REMOTE);
	pass_by(run, 6, 1);
	put(run, held[1]);
	fake_change(page(1), 2 * PAGE);
	held[1] = take_good(run, 1, 3, LOCAL);
	held[3] = take_good(run, 2, 2, LOCAL);
	/* It may be handed out as it is, as ibv_reg_mr() would. */
	fake_hook(change_while_pinning, &times);
	held[4] = take(run, 40, 2, LOCAL);
	fake_hook(NULL, NULL);
	s->pd = fake_pd(1);
	pass_by(run, 8, 1);
	pass_by(run, 9, 3);
	pass_by(run, 12, 3);
	s->pd = fake_pd(0);
	put(run, held[0]);
	put(run, held[3]);
	pass_by(run, 20, 4);
	fake_change(page(20), PAGE);
	pass_by(run, 20, 4);
	fake_change(page(9), 1);
	pass_by(run, 21, 2);
	assert_int_equal(mrcache_invalidate(s->cache, page(21), PAGE), 0);
	assert_int_equal(mrcache_flush(s->cache, fake_pd(1)), 0);
	put(run, held[4]);
	put(run, held[2]);
	put(run, held[1]);
}

static void inside_larger_ones(struct run *run)
{
	struct ibv_mr *outer = take_good(run, 0, 4, LOCAL), *inner;

	inner = take_good(run, 1, 2, LOCAL);
	pass_by(run, 3, 1);
	put(run, outer);
	pass_by(run, 0, 2);
	fake_change(page(3), 1);
	pass_by(run, 1, 1);
	put(run, inner);
	pass_by(run, 0, 4);
	pass_by(run, 2, 2);
}

static void made_ones_own(struct run *run)
{
	struct mrcache *cache = run->s.cache;
	struct ibv_mr *mr[2];
	int ret;

	pass_by(run, 0, 1);
	mr[0] = take_good(run, 0, 1, LOCAL);
	mr[1] = take_good(run, 0, 1, LOCAL);
	if (mr[0]) {
		ret = mrc_unshare(cache, mr[0]);
		assert_int_equal(ret, mr[0] == mr[1] ? -EBUSY : 0);
	}
	put(run, mr[1]);
	if (mr[0])
		assert_int_equal(mrc_unshare(cache, mr[0]), 0);
	pass_by(run, 0, 1);
	put(run, mr[0]);
}

/* Not cacheable, each for another reason. */
static void passed_through(struct run *run)
{
	struct ibv_mr *mr[3];

	run->s.cache->attr.remote = false;
	mr[0] = take_good(run, 0, 1, IBV_ACCESS_MW_BIND);
	mr[1] = take_good(run, 0, 1, REMOTE);
	mr[2] = take_good(run, 100, 50, LOCAL); /* more than max_bytes */
	for (size_t i = 0; i < 3; i++)
		put(run, mr[i]);
}

struct other {
	struct run *run;
	struct ibv_mr *mr[2];
};

static void *takes_and_gives(void *arg)
{
	struct other *other = arg;

	fake_allocates = 0;
	put(other->run, other->mr[0]);
	pass_by(other->run, 0, 1);
	other->mr[1] = take_good(other->run, 0, 1, LOCAL);
	pass_by(other->run, 2, 1);
	return NULL;
}

/* Held by one thread, given back by another, which may have ended. */
static void two_threads(struct run *run)
{
	struct other other = {.run = run};

	other.mr[0] = take_good(run, 0, 1, LOCAL);
	put(run, take_good(run, 2, 1, LOCAL));
	fake_allocates++;
	in_thread(takes_and_gives, &other);
	fake_allocates--;
	pass_by(run, 0, 1);
	fake_change(page(0), 1);
	pass_by(run, 0, 1);
	put(run, other.mr[1]);
}

/* Until the reaper has nothing to do, or there is none (and that was said). */
static void let_reap(struct run *run)
{
	while (fake_watches(run->s.monitor) && !log_containing("reaper"))
		usleep(500);
}

static void reaped(struct run *run)
{
	pass_by(run, 0, 2);
	put(run, take_good(run, 4, 1, REMOTE)); /* lingers */
	fake_change(page(0), 1);
	let_reap(run);
	pass_by(run, 0, 2);
	fake_change(page(1), 1);
	let_reap(run);
}

enum { SMALL = 1, CONTAIN = 2, REAPER = 4, THREADS = 8 };

static const struct scenario {
	void (*function)(struct run *run);
	unsigned int flags;
} scenarios[] = {
	{some_of_everything, SMALL}, {inside_larger_ones, CONTAIN},
	{made_ones_own, 0},	     {passed_through, SMALL},
	{two_threads, THREADS},	     {reaped, REAPER | THREADS},
};
#define SCENARIOS (sizeof(scenarios) / sizeof(*scenarios))

/* ---- one fault -------------------------------------------------------------------- */

static void wishes(struct mrcache_attr *attr, unsigned int flags)
{
	test_attr(attr);
	attr->log_level = MRCACHE_LOG_WARN;
	if (flags & SMALL) {
		attr->max_regs = 5;
		attr->max_bytes = 12 * PAGE;
	}
	attr->contain = attr->page_align = flags & CONTAIN;
	attr->reaper = flags & REAPER;
	attr->linger = flags & REAPER ? 2 : 0;
	attr->remote = flags & SMALL;
}

/* After the fault: as good as new. */
static void works(struct scene *s)
{
	for (size_t n = 0; n < 3; n++) {
		touch(s, 50 + 4 * n, 1);
		assert_true(is_cached(s, 50 + 4 * n, 1));
	}
	fake_change(page(54), 1);
	touch(s, 54, 1);
	assert_true(is_cached(s, 54, 1));
	assert_true(is_cached(s, 50, 1));
}

/* All is given back: what is left, and what was counted. */
static void adds_up(struct run *run)
{
	struct mrcache *cache = run->s.cache;
	struct mrcache_stats now = stats(&run->s);
	size_t lost = fake_registered(NULL) - now.cached;

	assert_int_equal(now.hits + now.misses + bypasses(&run->s), run->given);
	assert_int_equal(now.uncached, 0);
	assert_int_equal(now.cached, fake_watches(run->s.monitor));
	/* An uncached one was deregistered when it was tried again. */
	assert_true(lost <= (run->call == FAKE_DEREG ? now.dereg_errors : 0));
	assert_int_equal(mrcache_flush(cache, NULL), 0);
	now = stats(&run->s);
	assert_int_equal(now.registrations, now.deregistrations + lost);
	assert_int_equal(fake_registered(NULL), lost);
	assert_int_equal(fake_watches(run->s.monitor), 0);
	assert_int_equal(now.cached, 0);
	assert_int_equal(now.cached_bytes, 0);
	assert_int_equal(now.stale_held, 0);
	assert_int_equal(cache->regs, 0);
	assert_int_equal(cache->bytes, 0);
}

static int descriptors(void)
{
	int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

struct fault {
	enum fake_call call;
	unsigned int times;
	int error;
};

/* Whether the nth call was reached, and failed. */
static bool nth_fails(const struct base *base, const struct scenario *scenario,
		      const struct fault *fault, unsigned int n)
{
	int fds = descriptors(), maps = fake_maps();
	struct run run = {
		.base = base, .call = fault->call, .error = fault->error};
	bool reached;

	fresh(NULL);
	wishes(&run.attr, scenario->flags);
	fake_fail(fault->call, n, fault->times, fault->error);
	if (open_cache(&run)) {
		struct mrcache *cache = run.s.cache;

		if (!(scenario->flags & THREADS))
			fake_check_locks(cache);
		scenario->function(&run);
		reached = fake_calls(fault->call) >= n;
		fake_fail(fault->call, 1, 0, 0);
		if (reached && fault->call == FAKE_REG)
			assert_true(stats(&run.s).reg_errors ||
				    stats(&run.s).retries);
		/* The reaper may still be at it. */
		if (!(scenario->flags & REAPER)) {
			adds_up(&run);
			works(&run.s);
		}
		assert_int_equal(mrcache_close(cache), 0);
		if (fault->call != FAKE_DEREG)
			assert_int_equal(fake_registered(NULL), 0);
	} else {
		reached = true;
	}
	end_device(&run);
	assert_int_equal(fake_monitors(), 0);
	assert_int_equal(fake_maps(), maps);
	assert_int_equal(descriptors(), fds);
	no_trouble();
	fake_verbs_reset();
	return reached;
}

static void each_fails(const struct base *base, const struct fault *faults,
		       size_t n_faults)
{
	unsigned int injected = 0;

	for (size_t f = 0; f < n_faults; f++)
		for (size_t i = 0; i < SCENARIOS; i++) {
			unsigned int n = 1;

			while (nth_fails(base, &scenarios[i], &faults[f], n))
				assert_true(n++ < 1000);
			injected += n - 1;
		}
	assert_true(injected > 0);
	print_message("# %u faults injected\n", injected);
}

/* ---- all faults --------------------------------------------------------------------- */

/* As long as it goes on. */
#define EVER FAKE_FOR_EVER

#define EACH_FAILS(name, ...)                                                 \
	static void name(void **state)                                        \
	{                                                                     \
		static const struct fault faults[] = {__VA_ARGS__};           \
                                                                              \
		each_fails(*state, faults, sizeof(faults) / sizeof(*faults)); \
	}

EACH_FAILS(each_allocation_fails, {FAKE_MEMORY, 1, ENOMEM},
	   {FAKE_MEMORY, 2, ENOMEM}, {FAKE_MEMORY, EVER, ENOMEM})

EACH_FAILS(each_mapping_fails, {FAKE_MAP, 1, ENOMEM}, {FAKE_MAP, EVER, ENOMEM})

EACH_FAILS(each_registration_fails, {FAKE_REG, 1, ENOMEM},
	   {FAKE_REG, 3, ENOMEM}, {FAKE_REG, 1, EAGAIN}, {FAKE_REG, 1, EINVAL},
	   {FAKE_REG, 1, EFAULT}, {FAKE_REG, EVER, ENOMEM},
	   {FAKE_REG, EVER, EPERM})

EACH_FAILS(each_deregistration_fails, {FAKE_DEREG, 1, EBUSY},
	   {FAKE_DEREG, 1, EINVAL}, {FAKE_DEREG, 1, EIO})

EACH_FAILS(each_watch_fails, {FAKE_WATCH, 1, ENOSPC}, {FAKE_WATCH, 2, ENOSPC},
	   {FAKE_WATCH, 1, ENOMEM}, {FAKE_WATCH, 1, EOPNOTSUPP},
	   {FAKE_WATCH, EVER, ENOSPC}, {FAKE_WATCH, EVER, EIO})

EACH_FAILS(each_rearm_fails, {FAKE_REARM, 1, ENOENT}, {FAKE_REARM, 1, ESTALE},
	   {FAKE_REARM, EVER, ESTALE})

EACH_FAILS(each_renewal_fails, {FAKE_RENEW, 1, EOPNOTSUPP},
	   {FAKE_RENEW, 1, ENOENT}, {FAKE_RENEW, EVER, ENOTTY})

EACH_FAILS(each_unwatch_fails, {FAKE_UNWATCH, 1, EINVAL},
	   {FAKE_UNWATCH, EVER, EINVAL})

EACH_FAILS(each_read_fails, {FAKE_READ, 1, EIO}, {FAKE_READ, 1, EFAULT},
	   {FAKE_READ, EVER, ESTALE})

EACH_FAILS(each_thread_fails, {FAKE_THREAD, 1, EAGAIN}, {FAKE_KEY, 1, ENOMEM},
	   {FAKE_KEY, EVER, ENOMEM}, {FAKE_EVENTFD, 1, EMFILE},
	   {FAKE_POLL, 1, ENOMEM}, {FAKE_POLL, 1, EINTR})

EACH_FAILS(each_step_of_opening_fails, {FAKE_OPEN, 1, EACCES},
	   {FAKE_OPEN, 1, EMFILE}, {FAKE_FEATURES, 1, EINVAL},
	   {FAKE_FEATURES, 1, EFAULT})

/* A signal at the wrong moment is not even noticed. */
static void interrupted_calls_are_made_again(void **state)
{
	static const enum fake_call calls[] = {FAKE_OPEN, FAKE_READ};

	for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
		struct run run = {.base = *state, .call = calls[i]};

		fresh(NULL);
		wishes(&run.attr, 0);
		fake_fail(calls[i], 1, 3, EINTR);
		assert_true(open_cache(&run));
		some_of_everything(&run);
		assert_true(fake_calls(calls[i]) > 3);
		adds_up(&run);
		assert_int_equal(log_lines(MRCACHE_LOG_ERROR), 0);
		assert_int_equal(mrcache_close(run.s.cache), 0);
		end_device(&run);
		no_trouble();
	}
}

TEST(without_a_device_nothing_is_cached)
{
	struct mrcache_attr attr;
	struct scene s = {.pd = fake_pd(0)};

	fake_driver(NULL);
	wishes(&attr, REAPER);
	attr.device = FAKE_DEVICE;
	s.cache = mrc_open_device(&attr, &fake_verbs, NULL);
	assert_non_null(s.cache);
	assert_int_equal(log_containing("nothing is cached"), 1);
	assert_false(is_cached(&s, 0, 1));
	assert_false(is_cached(&s, 0, 1));
	finish(&s);
}

#define TEST_ON(f, base)                                    \
	{                                                   \
#f "_" #base, f, fresh, NULL, (void *)&base \
	}
#define TEST_ON_ALL(f)	   TEST_ON(f, states), TEST_ON(f, bare), TEST_ON_DEVICES(f)
#define TEST_ON_DEVICES(f) TEST_ON(f, device), TEST_ON(f, device_2010)

static const struct CMUnitTest on_bases[] = {
	TEST_ON_ALL(each_allocation_fails),
	TEST_ON_ALL(each_mapping_fails),
	TEST_ON_ALL(each_registration_fails),
	TEST_ON_ALL(each_deregistration_fails),
	TEST_ON_ALL(each_watch_fails),
	TEST_ON(each_rearm_fails, states),
	TEST_ON(each_rearm_fails, bare),
	TEST_ON(each_rearm_fails, device),
	TEST_ON(each_renewal_fails, states),
	TEST_ON(each_renewal_fails, device),
	TEST_ON_ALL(each_unwatch_fails),
	TEST_ON_ALL(each_read_fails),
	TEST_ON_ALL(each_thread_fails),
	TEST_ON_DEVICES(each_step_of_opening_fails),
	TEST_ON_DEVICES(interrupted_calls_are_made_again),
};
CASES(on_bases);

int main(void)
{
	mrc_reaper_batch = 1; /* or it would be waited for thousands of times */
	return run_cases(NULL, NULL);
}
