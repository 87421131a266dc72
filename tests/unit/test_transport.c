/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What transports ask for: wishes for one call, an event loop without a thread,
 * operations of their own.
 */
#include "fake_driver.h"
#include "mrcache-transport.h"
#include "unit.h"

#include <poll.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- one call -------------------------------------------------------------------- */

static int last_reason;

static struct ibv_mr *reg_ex(struct scene *s, size_t n, size_t pages,
			     int access, unsigned int flags)
{
	struct mrcache_request request = {
		.size = sizeof(request),
		.pd = s->pd,
		.addr = page(n),
		.length = pages * PAGE,
		.access = access,
		.flags = flags,
	};
	struct ibv_mr *mr;

	errno = 0;
	mr = mrcache_reg_mr_ex(s->cache, &request);
	last_reason = request.reason;
	if (mr && !(fake_access(mr) & ~access))
		assert_true(fake_reaches(mr, page(n), pages * PAGE));
	return mr;
}

static void begin_contain(struct scene *s, bool page_align)
{
	struct mrcache_attr attr;

	test_attr(&attr);
	attr.contain = true;
	attr.page_align = page_align;
	begin_with(s, FAKE_STATES, &attr);
}

TEST_BOTH(without_wishes_it_is_the_same)
{
	struct ibv_mr *mr, *other;
	struct scene s;

	begin(&s, flags_of(state));
	mr = reg_ex(&s, 8, 2, LOCAL, 0);
	assert_non_null(mr);
	assert_int_equal(last_reason, -1);
	other = reg(&s, 8, 2);
	assert_ptr_equal(mr, other);
	assert_ptr_equal(reg_ex(&s, 8, 2, LOCAL, 0), mr);
	give(&s, mr);
	give(&s, mr);
	give(&s, mr);
	assert_int_equal(stats(&s).hits, 2);
	fake_change(page(8), PAGE);
	other = reg_ex(&s, 8, 2, LOCAL, 0);
	assert_true(fake_serves(other, s.pd, page(8), 2 * PAGE, LOCAL));
	give(&s, other);
	finish(&s);
}

/* It does not wait: nothing is called, of the verbs, the monitor, the system. */
TEST_BOTH(only_a_hit)
{
	unsigned int calls;
	struct ibv_mr *mr;
	struct scene s;

	begin(&s, flags_of(state));
	touch(&s, 8, 2);
	calls = fake_all_calls();
	assert_null(reg_ex(&s, 16, 2, LOCAL, MRCACHE_REG_HIT));
	assert_int_equal(errno, EAGAIN);
	assert_null(reg_ex(&s, 8, 1, LOCAL, MRCACHE_REG_HIT));
	assert_int_equal(errno, EAGAIN);
	mr = reg_ex(&s, 8, 2, LOCAL, MRCACHE_REG_HIT);
	assert_non_null(mr);
	give(&s, mr);
	fake_change(page(8), PAGE);
	assert_null(reg_ex(&s, 8, 2, LOCAL, MRCACHE_REG_HIT));
	assert_int_equal(errno, EAGAIN);
	assert_int_equal(fake_all_calls(), calls);
	/* Somebody else does what takes time. */
	assert_int_equal(mrcache_progress(s.cache), 0);
	assert_int_equal(fake_registered(NULL), 0);
	finish(&s);
}

TEST(only_what_is_cached)
{
	struct ibv_mr *mr;
	struct scene s;

	begin(&s, FAKE_STATES);
	assert_null(reg_ex(&s, 8, 1, REMOTE, MRCACHE_REG_CACHED));
	assert_int_equal(errno, EOPNOTSUPP);
	assert_int_equal(last_reason, MRCACHE_BYPASS_REMOTE);
	assert_int_equal(fake_calls(FAKE_REG), 0);
	fake_fail(FAKE_WATCH, 1, 1, EOPNOTSUPP);
	assert_null(reg_ex(&s, 8, 1, LOCAL, MRCACHE_REG_CACHED));
	assert_int_equal(errno, EOPNOTSUPP);
	assert_int_equal(last_reason, MRCACHE_BYPASS_MEMORY);
	assert_int_equal(fake_registered(NULL), 0);
	/* Nothing was passed through. */
	assert_int_equal(bypasses(&s), 0);
	mr = reg_ex(&s, 8, 1, LOCAL, MRCACHE_REG_CACHED);
	assert_non_null(mr);
	give(&s, mr);
	finish(&s);

	begin(&s, NO_MONITOR);
	assert_null(reg_ex(&s, 8, 1, LOCAL, MRCACHE_REG_CACHED));
	assert_int_equal(errno, EOPNOTSUPP);
	assert_int_equal(last_reason, MRCACHE_BYPASS_MONITOR);
	/* And why what passes does. */
	mr = reg_ex(&s, 8, 1, LOCAL, 0);
	assert_non_null(mr);
	assert_int_equal(last_reason, MRCACHE_BYPASS_MONITOR);
	give(&s, mr);
	finish(&s);
}

/* Memory that changes with each registration, and what is left of it. */
static void alarm_always(enum fake_call call, enum fake_when when, void *arg)
{
	(void)arg;
	if (call == FAKE_REG && when == DURING)
		fake_alarm(page(8), PAGE);
}

TEST_BOTH(what_is_never_still_is_not_cached)
{
	struct scene s;

	begin(&s, flags_of(state));
	fake_hook(alarm_always, NULL);
	assert_null(reg_ex(&s, 8, 1, LOCAL, MRCACHE_REG_CACHED));
	assert_int_equal(errno, EOPNOTSUPP);
	assert_int_equal(last_reason, MRCACHE_BYPASS_UNSTABLE);
	fake_hook(NULL, NULL);
	assert_int_equal(fake_registered(NULL), 0);
	finish(&s);
}

TEST_BOTH(alone_is_nobody_elses)
{
	struct ibv_mr *mr, *alone, *other;
	struct scene s;

	begin(&s, flags_of(state));
	mr = reg(&s, 8, 1);
	alone = reg_ex(&s, 8, 1, LOCAL, MRCACHE_REG_ALONE);
	assert_non_null(alone);
	assert_ptr_not_equal(alone, mr);
	other = reg_ex(&s, 8, 1, LOCAL, MRCACHE_REG_ALONE);
	assert_ptr_not_equal(alone, other);
	give(&s, alone);
	/* Its keys are dead. */
	assert_int_equal(fake_registered(NULL), 2);
	give(&s, other);
	give(&s, mr);
	assert_int_equal(fake_registered(NULL), 1);
	/* Asked for, so nothing is said of it. */
	assert_int_equal(log_lines(MRCACHE_LOG_WARN), 0);
	finish(&s);
}

/* A key that one asked to outlive its registration is not given to others. */
TEST_BOTH(remote_is_for_those_who_ask)
{
	struct ibv_mr *kept, *plain;
	struct scene s;

	begin(&s, flags_of(state));
	kept = reg_ex(&s, 8, 1, REMOTE, MRCACHE_REG_REMOTE);
	assert_non_null(kept);
	assert_int_equal(fake_access(kept), REMOTE);
	give(&s, kept);
	assert_true(fake_is_registered(kept));

	plain = mrcache_reg_mr(s.cache, s.pd, page(8), PAGE, REMOTE);
	assert_ptr_not_equal(plain, kept);
	assert_int_equal(fake_access(plain), REMOTE);
	give(&s, plain);
	assert_int_equal(fake_registered(NULL), 1);
	plain = reg_ex(&s, 8, 1, REMOTE, 0);
	assert_ptr_not_equal(plain, kept);
	give(&s, plain);
	assert_int_equal(fake_registered(NULL), 1);

	assert_ptr_equal(reg_ex(&s, 8, 1, REMOTE, MRCACHE_REG_REMOTE), kept);
	give(&s, kept);
	/* Of local access there is only one kind. */
	kept = reg_ex(&s, 16, 1, LOCAL, MRCACHE_REG_REMOTE);
	assert_ptr_equal(reg(&s, 16, 1), kept);
	give(&s, kept);
	give(&s, kept);
	finish(&s);
}

TEST(exact_is_not_larger)
{
	struct ibv_mr *large, *mr;
	struct scene s;

	begin_contain(&s, true);
	large = reg_ex(&s, 8, 16, LOCAL, 0);
	mr = reg_ex(&s, 9, 1, LOCAL, 0);
	assert_ptr_equal(mr, large);
	give(&s, mr);
	mr = reg_ex(&s, 9, 1, LOCAL, MRCACHE_REG_EXACT);
	assert_ptr_not_equal(mr, large);
	assert_ptr_equal(mr->addr, page(9));
	assert_int_equal(mr->length, PAGE);
	give(&s, mr);
	assert_ptr_equal(reg_ex(&s, 9, 1, LOCAL, MRCACHE_REG_EXACT), mr);
	give(&s, mr);
	give(&s, large);
	/* Nor page by page. */
	mr = mrcache_reg_mr_ex(s.cache,
			       &(struct mrcache_request){
				       .size = sizeof(struct mrcache_request),
				       .pd = s.pd,
				       .addr = at(40, 8),
				       .length = 16,
				       .access = LOCAL,
				       .flags = MRCACHE_REG_EXACT});
	assert_ptr_equal(mr->addr, at(40, 8));
	assert_int_equal(mr->length, 16);
	give(&s, mr);
	finish(&s);
}

TEST(bad_requests_are_refused)
{
	struct mrcache_request good = {.size = sizeof(good),
				       .addr = page(8),
				       .length = PAGE,
				       .access = LOCAL},
			       bad;
	struct scene s;

	begin(&s, FAKE_STATES);
	good.pd = s.pd;
	/* With and without a thread that is known. */
	for (int i = 0; i < 2; i++) {
#define REFUSED(change)                                        \
	do {                                                   \
		bad = good;                                    \
		change;                                        \
		errno = 0;                                     \
		assert_null(mrcache_reg_mr_ex(s.cache, &bad)); \
		assert_int_equal(errno, EINVAL);               \
	} while (0)
		REFUSED(bad.size = 0);
		REFUSED(bad.size--);
		REFUSED(bad.size++);
		REFUSED(bad.flags = 1u << 31);
		REFUSED(bad.flags = MRCACHE_REG_ALONE | MRCACHE_REG_HIT);
		REFUSED(bad.flags = MRCACHE_REG_ALONE | MRCACHE_REG_CACHED);
		REFUSED(bad.flags = MRCACHE_REG_ALONE | MRCACHE_REG_REMOTE);
		REFUSED(bad.pd = NULL);
		REFUSED(bad.access |= 1 << 30);
		assert_null(mrcache_reg_mr_ex(s.cache, NULL));
		assert_null(mrcache_reg_mr_ex(NULL, &good));
		touch(&s, 8, 1);
	}
	finish(&s);
	assert_null(mrcache_reg_mr_ex(s.cache, &good));
	assert_int_equal(errno, EINVAL);
}

/* A child has nothing of the cache: what must not wait does not, the rest passes. */
static int wish_in_child(struct scene *s, struct ibv_mr *held)
{
	struct ibv_mr *mr;

	if (reg_ex(s, 8, 1, LOCAL, MRCACHE_REG_HIT) || errno != EAGAIN)
		return 1;
	if (reg_ex(s, 8, 1, LOCAL, MRCACHE_REG_CACHED) || errno != EOPNOTSUPP ||
	    last_reason != MRCACHE_BYPASS_FORK)
		return 2;
	mr = reg_ex(s, 8, 1, LOCAL, 0);
	if (!mr || mr == held || mrcache_dereg_mr(s->cache, mr))
		return 3;
	if (mrcache_revoke(s->cache, held) || mrcache_progress(s->cache))
		return 4;
	return fake_is_registered(held) ? 0 : 5;
}

TEST_BOTH(a_child_has_nothing)
{
	struct ibv_mr *mr;
	struct scene s;
	int status;
	pid_t pid;

	begin(&s, flags_of(state) | FAKE_FD);
	mr = reg(&s, 8, 1);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid)
		_exit(mrcache_fd(s.cache) == -ESTALE ? wish_in_child(&s, mr)
						     : 6);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	give(&s, mr);
	finish(&s);
}

/* ---- revoke, info ------------------------------------------------------------------ */

TEST_BOTH(revoked_is_not_found)
{
	struct ibv_mr *mr, *other;
	struct scene s;

	begin(&s, flags_of(state));
	mr = reg(&s, 8, 1);
	assert_int_equal(mrcache_revoke(s.cache, mr), 0);
	assert_true(fake_is_registered(mr));
	other = reg(&s, 8, 1);
	assert_ptr_not_equal(other, mr);
	give(&s, mr);
	assert_false(fake_is_registered(mr));

	/* Others hold it, too: theirs until they give it back. */
	assert_ptr_equal(reg(&s, 8, 1), other);
	assert_int_equal(mrcache_revoke(s.cache, other), EBUSY);
	give(&s, other);
	assert_true(fake_is_registered(other));
	assert_int_equal(mrcache_revoke(s.cache, other), 0);
	give(&s, other);
	assert_false(fake_is_registered(other));

	/* One that is idle goes at once. */
	mr = reg(&s, 8, 1);
	give(&s, mr);
	assert_int_equal(mrcache_revoke(s.cache, mr), 0);
	assert_false(fake_is_registered(mr));
	assert_int_equal(mrcache_revoke(s.cache, mr), EINVAL);
	assert_int_equal(mrcache_revoke(s.cache, NULL), EINVAL);
	assert_int_equal(mrcache_revoke(NULL, mr), EINVAL);
	finish(&s);
}

TEST(info_says_what_it_is)
{
	struct mrcache_info info;
	struct ibv_mr *mr, *part;
	struct scene s;

	begin_contain(&s, true);
	mr = reg_ex(&s, 8, 4, REMOTE, MRCACHE_REG_REMOTE);
	part = reg_ex(&s, 9, 1, REMOTE, MRCACHE_REG_REMOTE);
	assert_ptr_equal(mr, part);
	assert_int_equal(mrcache_get_info(s.cache, part, &info, sizeof(info)),
			 0);
	assert_ptr_equal(info.addr, page(8));
	assert_int_equal(info.length, 4 * PAGE);
	assert_int_equal(info.access, REMOTE);
	assert_true(info.watched && info.found && !info.stale);
	give(&s, part);
	fake_change(page(8), PAGE);
	assert_int_equal(mrcache_progress(s.cache), 0);
	assert_int_equal(mrcache_get_info(s.cache, mr, &info, sizeof(info)), 0);
	assert_true(info.watched && !info.found && info.stale);
	give(&s, mr);
	assert_int_equal(mrcache_get_info(s.cache, mr, &info, sizeof(info)),
			 EINVAL);
	mr = reg_ex(&s, 8, 1, LOCAL, MRCACHE_REG_ALONE);
	assert_int_equal(mrcache_get_info(s.cache, mr, &info, sizeof(info)), 0);
	assert_true(!info.watched && !info.found && !info.stale);
	assert_int_equal(mrcache_get_info(s.cache, mr, &info, sizeof(info) + 1),
			 EINVAL);
	give(&s, mr);
	finish(&s);
}

/* ---- event loops -------------------------------------------------------------------- */

static bool readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, 0) == 1 && (p.revents & POLLIN);
}

TEST_BOTH(progress_does_what_is_due)
{
	struct ibv_mr *held;
	unsigned int calls;
	struct scene s;
	int fd;

	begin(&s, flags_of(state) | FAKE_FD);
	fd = mrcache_fd(s.cache);
	assert_true(fd >= 0);
	held = reg(&s, 8, 1);
	touch(&s, 16, 1);
	calls = fake_all_calls();
	assert_int_equal(mrcache_progress(s.cache), 0);
	assert_int_equal(fake_all_calls(), calls);
	assert_false(readable(fd));

	fake_change(page(8), 16 * PAGE);
	assert_true(readable(fd));
	assert_int_equal(mrcache_progress(s.cache), 0);
	assert_false(readable(fd));
	assert_int_equal(fake_registered(NULL), 1);
	assert_false(mrcache_valid(s.cache, held));
	give(&s, held);
	assert_int_equal(fake_registered(NULL), 0);

	touch(&s, 8, 1);
	fake_change(page(8), PAGE);
	fake_fail(FAKE_READ, 1, 1, EIO);
	assert_int_equal(mrcache_progress(s.cache), -EIO);
	assert_int_equal(mrcache_progress(s.cache), 0);
	assert_int_equal(fake_registered(NULL), 0);
	finish(&s);
	assert_int_equal(mrcache_progress(s.cache), -EINVAL);
	assert_int_equal(mrcache_fd(s.cache), -EINVAL);
}

TEST(without_a_monitor_nothing_is_due)
{
	struct scene s;

	begin(&s, NO_MONITOR);
	assert_int_equal(mrcache_fd(s.cache), -ENODEV);
	assert_int_equal(mrcache_progress(s.cache), 0);
	finish(&s);
	assert_int_equal(mrcache_fd(NULL), -EINVAL);
	assert_int_equal(mrcache_progress(NULL), -EINVAL);
}

struct ends {
	struct scene *s;
	struct ibv_mr *last;
	unsigned int n, stale;
	bool was_registered;
	struct ibv_mr *nested;
};

static void note_end(void *arg, struct ibv_mr *mr, bool stale)
{
	struct ends *e = arg;

	fake_no_locks("end");
	e->n++;
	e->stale += stale;
	e->last = mr;
	e->was_registered = fake_is_registered(mr);
	/* It may call the library. */
	if (e->nested)
		return;
	e->nested =
		mrcache_reg_mr(e->s->cache, e->s->pd, page(100), PAGE, LOCAL);
	give(e->s, e->nested);
}

TEST_BOTH(the_end_is_told)
{
	struct ends e = {.n = 0};
	struct ibv_mr *mr;
	struct scene s;

	begin(&s, flags_of(state));
	e.s = &s;
	fake_check_locks(s.cache);
	assert_int_equal(mrcache_on_end(s.cache, note_end, &e), 0);
	mr = reg(&s, 8, 1);
	fake_change(page(8), PAGE);
	assert_int_equal(mrcache_progress(s.cache), 0);
	/* Not while it is held. */
	assert_int_equal(e.n, 0);
	give(&s, mr);
	assert_int_equal(e.n, 1);
	assert_int_equal(e.stale, 1);
	assert_ptr_equal(e.last, mr);
	assert_true(e.was_registered);
	/* Flushed, revoked; and what is not cached is not told of. */
	touch(&s, 8, 1);
	assert_int_equal(mrcache_flush(s.cache, s.pd), 0);
	assert_int_equal(e.n, 3); /* and the nested one */
	mr = reg(&s, 8, 1);
	mrcache_revoke(s.cache, mr);
	give(&s, mr);
	assert_int_equal(e.n, 4);
	assert_int_equal(e.stale, 1);
	give(&s, reg_ex(&s, 8, 1, LOCAL, MRCACHE_REG_ALONE));
	assert_int_equal(e.n, 4);
	assert_int_equal(mrcache_on_end(s.cache, note_end, &e), -EBUSY);
	assert_int_equal(mrcache_on_end(NULL, note_end, &e), -EINVAL);
	fake_check_locks(NULL);
	finish(&s);
}

/* ---- own operations ------------------------------------------------------------------ */

/* Two NICs behind one entry, and a key with relaxed order for each. */
struct pair {
	struct ibv_pd *pds[2];
	struct mrcache *cache;
	int fail, fail_dereg;
	size_t nest;	   /* a page to register while registering, or 0 */
	size_t nest_dereg; /* while deregistering */
	unsigned int regs, deregs;
};

struct keys {
	struct ibv_mr *mrs[2];
	char zero;
};

static int pair_reg(void *domain, struct ibv_mr *mr, void *area, int access)
{
	struct keys *keys = area;
	struct pair *p = domain;

	fake_no_locks("reg");
	assert_false(keys->zero);
	keys->zero = 1;
	p->regs++;
	if (p->fail)
		return -p->fail;
	if (p->nest) {
		size_t n = p->nest;
		struct ibv_mr *inner;

		p->nest = 0;
		inner = mrcache_reg_mr(p->cache, mr->pd, page(n), PAGE, LOCAL);
		assert_non_null(inner);
		assert_int_equal(mrcache_dereg_mr(p->cache, inner), 0);
	}
	for (int i = 0; i < 2; i++)
		keys->mrs[i] = fake_verbs.reg_mr(p->pds[i], mr->addr,
						 mr->length, access);
	mr->lkey = keys->mrs[0]->lkey;
	return 0;
}

static int pair_dereg(void *domain, struct ibv_mr *mr, void *area)
{
	struct keys *keys = area;
	struct pair *p = domain;

	(void)mr;
	fake_no_locks("dereg");
	p->deregs++;
	if (p->fail_dereg)
		return -p->fail_dereg;
	if (p->nest_dereg) {
		size_t n = p->nest_dereg;
		struct ibv_mr *inner;

		p->nest_dereg = 0;
		inner = mrcache_reg_mr(p->cache, mr->pd, page(n), PAGE, LOCAL);
		assert_non_null(inner);
		assert_int_equal(mrcache_dereg_mr(p->cache, inner), 0);
	}
	for (int i = 0; i < 2; i++)
		assert_int_equal(fake_verbs.dereg_mr(keys->mrs[i]), 0);
	return 0;
}

static const struct mrcache_ops pair_ops = {
	.size = sizeof(pair_ops),
	.area = sizeof(struct keys),
	.reg = pair_reg,
	.dereg = pair_dereg,
};

/* A scene whose pd is a domain. */
static void begin_own(struct scene *s, struct pair *p)
{
	struct mrcache_attr attr;

	s->monitor = fake_monitor_new(FAKE_STATES | FAKE_FD);
	fake_driver(s->monitor);
	test_attr(&attr);
	attr.monitor = "ummunotify";
	attr.device = FAKE_DEVICE;
	s->cache = mrcache_open_own(&attr);
	assert_non_null(s->cache);
	fake_check_locks(s->cache);
	*p = (struct pair){.pds = {fake_pd(0), fake_pd(1)}, .cache = s->cache};
	s->pd = mrcache_domain_new(&pair_ops, p);
	assert_non_null(s->pd);
}

static void finish_own(struct scene *s)
{
	struct mrc_monitor *base = fake_monitor_base(s->monitor);

	fake_check_locks(NULL);
	assert_int_equal(mrcache_domain_free(s->cache, s->pd), 0);
	assert_int_equal(fake_registered(NULL), 0);
	assert_int_equal(mrcache_close(s->cache), 0);
	fake_driver(NULL);
	base->ops->close(base);
	no_trouble();
}

static struct ibv_mr *reg_own(struct scene *s, size_t n, size_t pages)
{
	struct ibv_mr *mr =
		mrcache_reg_mr(s->cache, s->pd, page(n), pages * PAGE, LOCAL);
	struct keys *keys;

	assert_non_null(mr);
	keys = mrcache_area(mr);
	assert_int_equal(mr->lkey, keys->mrs[0]->lkey);
	for (int i = 0; i < 2; i++)
		assert_true(fake_serves(keys->mrs[i], fake_pd(i), page(n),
					pages * PAGE, LOCAL));
	return mr;
}

TEST(own_operations_are_cached)
{
	struct ibv_mr *mr, *other;
	struct scene s;
	struct pair p;

	begin_own(&s, &p);
	mr = reg_own(&s, 8, 2);
	assert_ptr_equal(mr->addr, page(8));
	assert_int_equal(mr->length, 2 * PAGE);
	assert_ptr_equal(mr->pd, s.pd);
	assert_ptr_equal(reg_own(&s, 8, 2), mr);
	assert_int_equal(p.regs, 1);
	assert_true(mrcache_valid(s.cache, mr));
	fake_change(page(9), PAGE);
	assert_false(mrcache_valid(s.cache, mr));
	other = reg_own(&s, 8, 2);
	assert_ptr_not_equal(other, mr);
	assert_int_equal(mrcache_domain_free(s.cache, s.pd), -EBUSY);
	give(&s, mr);
	give(&s, mr);
	assert_int_equal(p.deregs, 1);
	give(&s, other);
	finish_own(&s);
}

/* One cache, domains with keys and sizes of their own. */
TEST(domains_are_apart)
{
	struct ibv_pd *first, *second;
	struct ibv_mr *mr, *other;
	struct scene s;
	struct pair p;

	begin_own(&s, &p);
	first = s.pd;
	second = mrcache_domain_new(&pair_ops, &p);
	mr = reg_own(&s, 8, 1);
	s.pd = second;
	other = reg_own(&s, 8, 1);
	assert_ptr_not_equal(mr, other);
	give(&s, mr);
	give(&s, other);
	assert_int_equal(mrcache_domain_free(s.cache, second), 0);
	s.pd = first;
	assert_ptr_equal(reg_own(&s, 8, 1), mr);
	give(&s, mr);
	finish_own(&s);
}

TEST(own_failures_are_passed_on)
{
	struct ibv_mr *mr;
	struct scene s;
	struct pair p;

	begin_own(&s, &p);
	p.fail = EPERM;
	errno = 0;
	assert_null(mrcache_reg_mr(s.cache, s.pd, page(8), PAGE, LOCAL));
	assert_int_equal(errno, EPERM);
	/* Without memory idle ones go first. */
	p.fail = 0;
	give(&s, reg_own(&s, 16, 1));
	p.fail = ENOMEM;
	assert_null(mrcache_reg_mr(s.cache, s.pd, page(8), PAGE, LOCAL));
	assert_int_equal(errno, ENOMEM);
	assert_int_equal(p.deregs, 1);
	p.fail = 0;
	/* What is not cached is still held when it could not be ended. */
	mr = mrcache_reg_mr_ex(s.cache,
			       &(struct mrcache_request){
				       .size = sizeof(struct mrcache_request),
				       .pd = s.pd,
				       .addr = page(8),
				       .length = PAGE,
				       .access = LOCAL,
				       .flags = MRCACHE_REG_ALONE});
	assert_non_null(mr);
	p.fail_dereg = EBUSY;
	assert_int_equal(mrcache_dereg_mr(s.cache, mr), EBUSY);
	p.fail_dereg = 0;
	give(&s, mr);
	finish_own(&s);
}

TEST(own_operations_nest)
{
	struct ibv_mr *mr;
	struct scene s;
	struct pair p;

	begin_own(&s, &p);
	p.nest = 100;
	mr = reg_own(&s, 8, 1);
	assert_int_equal(p.regs, 2);
	give(&s, mr);
	finish_own(&s);
}

/* What dereg registers goes with the domain, or with the cache. */
TEST(what_comes_at_the_end_ends_too)
{
	struct scene s;
	struct pair p;

	begin_own(&s, &p);
	give(&s, reg_own(&s, 8, 1));
	p.nest_dereg = 100;
	finish_own(&s); /* nothing is registered once the domain is gone */
	assert_int_equal(p.regs, 2);
	assert_int_equal(p.deregs, 2);

	begin_own(&s, &p);
	give(&s, reg_own(&s, 8, 1));
	p.nest_dereg = 100;
	fake_check_locks(NULL);
	assert_int_equal(mrcache_close(s.cache), 0);
	assert_int_equal(p.deregs, 2);
	assert_int_equal(fake_registered(NULL), 0);
	free(s.pd); /* too late for mrcache_domain_free() */
	fake_driver(NULL);
	fake_monitor_base(s.monitor)->ops->close(fake_monitor_base(s.monitor));
	no_trouble();
}

TEST(only_domains_are_domains)
{
	struct mrcache_ops bad = pair_ops;
	struct scene s;
	struct pair p;

	begin_own(&s, &p);
	errno = 0;
	assert_null(mrcache_reg_mr(s.cache, fake_pd(0), page(8), PAGE, LOCAL));
	assert_int_equal(errno, EINVAL);
	assert_int_equal(mrcache_domain_free(s.cache, fake_pd(0)), -EINVAL);
	assert_int_equal(mrcache_domain_free(s.cache, NULL), -EINVAL);
	assert_int_equal(mrcache_domain_free(NULL, s.pd), -EINVAL);
	bad.size--;
	assert_null(mrcache_domain_new(&bad, NULL));
	bad = pair_ops;
	bad.dereg = NULL;
	assert_null(mrcache_domain_new(&bad, NULL));
	bad = pair_ops;
	bad.area = SIZE_MAX;
	assert_null(mrcache_domain_new(&bad, NULL));
	assert_int_equal(errno, EINVAL);
	assert_null(mrcache_domain_new(NULL, NULL));
	finish_own(&s);
}

int main(void)
{
	return run_cases(NULL, NULL);
}
