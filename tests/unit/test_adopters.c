/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Two transports' caches, rebuilt in examples/ on the public interface alone:
 * each with what its users do to it. The verbs they call are here.
 */
/* NOLINTNEXTLINE(bugprone-suspicious-include): they have no headers */
#include "../../examples/adopt_nccl.c"
/* NOLINTNEXTLINE(bugprone-suspicious-include) */
#include "../../examples/adopt_ucx.c"
#include "fake_driver.h"
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#undef ibv_reg_mr
struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *addr, size_t length,
			  int access)
{
	return fake_verbs.reg_mr(pd, addr, length, access);
}

struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *addr, size_t length,
				uint64_t iova, unsigned int access)
{
	(void)iova;
	return fake_verbs.reg_mr(pd, addr, length, (int)access);
}

int ibv_dereg_mr(struct ibv_mr *mr)
{
	return fake_verbs.dereg_mr(mr);
}

#define RDMA                                                        \
	(LOCAL | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | \
	 IBV_ACCESS_REMOTE_ATOMIC)
#define RELAXED (RDMA | IBV_ACCESS_RELAXED_ORDERING)

static struct fake_monitor *monitor;

static void begin_device(void)
{
	monitor = fake_monitor_new(FAKE_STATES | FAKE_FD);
	fake_driver(monitor);
	setenv("MRCACHE_DEVICE", FAKE_DEVICE, 1);
	setenv("MRCACHE_MONITOR", "ummunotify", 1);
}

static void end_device(void)
{
	struct mrc_monitor *base = fake_monitor_base(monitor);

	assert_int_equal(fake_registered(NULL), 0);
	assert_int_equal(fake_watches(monitor), 0);
	fake_driver(NULL);
	base->ops->close(base);
	unsetenv("MRCACHE_DEVICE");
	unsetenv("MRCACHE_MONITOR");
	no_trouble();
}

/* ---- UCX ------------------------------------------------------------------------- */

static void begin_ucx(struct ucx_rcache *r, uint64_t limit)
{
	struct mrcache *cache;

	begin_device();
	assert_int_equal(ucx_context_open(&cache, limit), 0);
	assert_int_equal(ucx_rcache_open(r, cache, fake_pd(0)), 0);
	fake_check_locks(r->cache);
}

static void end_ucx(struct ucx_rcache *r)
{
	fake_check_locks(NULL);
	assert_int_equal(ucx_rcache_close(r), 0);
	assert_int_equal(mrcache_close(r->cache), 0);
	end_device();
}

/* A region that serves this, with both keys. */
static struct ucx_memh *ucx_get(struct ucx_rcache *r, void *addr, size_t length)
{
	struct ucx_memh *memh = NULL;

	assert_int_equal(ucx_rcache_get(r, addr, length, &memh), 0);
	assert_true(fake_serves(memh->relaxed, r->pd, addr, length, RELAXED));
	assert_true(fake_serves(memh->strict, r->pd, addr, length, RDMA));
	return memh;
}

TEST(ucx_hits)
{
	struct ucx_memh *a, *b;
	struct ucx_rcache r;

	begin_ucx(&r, UINT64_MAX);
	a = ucx_get(&r, at(8, 100), 200);
	b = ucx_get(&r, at(8, 1000), 10);
	assert_ptr_equal(a, b);
	assert_ptr_equal(a->region->addr, page(8));
	assert_int_equal(a->region->length, PAGE);
	ucx_rcache_put(&r, a);
	ucx_rcache_put(&r, b);
	assert_int_equal(fake_calls(FAKE_REG), 2);
	end_ucx(&r);
}

struct counted {
	struct ucx_comp comp;
	unsigned int done;
};

static void count_done(struct ucx_comp *comp)
{
	((struct counted *)comp)->done++;
}

/* Two of three who hold it have it invalidated: all know when it is gone. */
TEST(ucx_invalidate_while_held)
{
	struct counted c[2] = {{.comp.done = count_done},
			       {.comp.done = count_done}};
	struct ucx_memh *a, *b, *d, *other;
	struct ucx_rcache r;

	begin_ucx(&r, UINT64_MAX);
	a = ucx_get(&r, page(8), PAGE);
	b = ucx_get(&r, page(8), PAGE);
	d = ucx_get(&r, page(8), PAGE);
	ucx_rcache_invalidate(&r, a, &c[0].comp);
	ucx_rcache_invalidate(&r, b, &c[1].comp);
	other = ucx_get(&r, page(8), PAGE);
	assert_ptr_not_equal(other, a);
	ucx_rcache_put(&r, a);
	ucx_rcache_put(&r, b);
	assert_int_equal(c[0].done + c[1].done, 0);
	assert_true(fake_is_registered(d->strict));
	ucx_rcache_put(&r, d);
	assert_int_equal(c[0].done, 1);
	assert_int_equal(c[1].done, 1);
	ucx_rcache_put(&r, other);
	assert_int_equal(fake_registered(NULL), 2);
	end_ucx(&r);
}

/* The memory goes away while it is held. */
TEST(ucx_unmap_while_held)
{
	struct ucx_memh *a, *b;
	struct ucx_rcache r;

	begin_ucx(&r, UINT64_MAX);
	a = ucx_get(&r, page(8), 2 * PAGE);
	fake_change(page(9), PAGE);
	b = ucx_get(&r, page(8), 2 * PAGE);
	assert_ptr_not_equal(a, b);
	assert_true(fake_is_registered(a->relaxed));
	ucx_rcache_put(&r, a);
	assert_int_equal(fake_registered(NULL), 2);
	ucx_rcache_put(&r, b);
	/* Idle: gone with the next turn of the progress function. */
	fake_change(page(8), PAGE);
	ucx_rcache_progress(&r);
	assert_int_equal(fake_registered(NULL), 0);
	end_ucx(&r);
}

TEST(ucx_evict)
{
	struct ucx_memh *held;
	struct ucx_rcache r;

	begin_ucx(&r, 8 * PAGE);
	held = ucx_get(&r, page(0), PAGE);
	for (size_t n = 8; n < 40; n += 2)
		ucx_rcache_put(&r, ucx_get(&r, page(n), PAGE));
	assert_true(fake_is_registered(held->strict));
	assert_in_range(fake_registered(NULL), 4, 2 * 8);
	ucx_rcache_put(&r, held);
	end_ucx(&r);
}

/* What reaches over the end of a region gets one of its own, each right. */
TEST(ucx_overlapping)
{
	struct ucx_memh *a, *b, *c;
	struct ucx_rcache r;

	begin_ucx(&r, UINT64_MAX);
	a = ucx_get(&r, page(8), 4 * PAGE);
	b = ucx_get(&r, page(10), 4 * PAGE);
	assert_ptr_not_equal(a, b);
	c = ucx_get(&r, page(9), PAGE);
	assert_ptr_equal(c, a);
	ucx_rcache_put(&r, c);
	fake_change(page(13), PAGE);
	c = ucx_get(&r, page(10), 4 * PAGE);
	assert_ptr_not_equal(c, b);
	ucx_rcache_put(&r, c);
	c = ucx_get(&r, page(8), 4 * PAGE);
	assert_ptr_equal(c, a);
	ucx_rcache_put(&r, c);
	ucx_rcache_put(&r, b);
	ucx_rcache_put(&r, a);
	end_ucx(&r);
}

/* Deregistering frees memory, which changes others; and calls the cache. */
struct nested {
	struct ucx_rcache *ucx;
	struct nccl_vnic *nccl;
	unsigned int left, done;
};

static void free_and_get(enum fake_call call, enum fake_when when, void *arg)
{
	struct nested *n = arg;

	if (call != FAKE_DEREG || when != AFTER || !n->left)
		return;
	n->left--;
	fake_change(page(100), PAGE);
	if (n->ucx) {
		ucx_rcache_put(n->ucx, ucx_get(n->ucx, page(100), PAGE));
	} else {
		struct nccl_mhandle *mhandle = NULL;

		assert_int_equal(
			nccl_reg_mr(n->nccl, page(100), PAGE, false, &mhandle),
			0);
		assert_int_equal(nccl_check(n->nccl, mhandle), 0);
		assert_int_equal(nccl_dereg_mr(n->nccl, mhandle), 0);
	}
	n->done++;
}

TEST(ucx_nested_callbacks)
{
	struct ucx_rcache r;
	struct nested n = {.ucx = &r, .left = 3};

	begin_ucx(&r, UINT64_MAX);
	ucx_rcache_put(&r, ucx_get(&r, page(100), PAGE));
	ucx_rcache_put(&r, ucx_get(&r, page(8), PAGE));
	fake_hook(free_and_get, &n);
	fake_change(page(8), PAGE);
	ucx_rcache_progress(&r);
	fake_hook(NULL, NULL);
	assert_int_equal(n.done, 3);
	ucx_rcache_put(&r, ucx_get(&r, page(100), PAGE));
	end_ucx(&r);
}

TEST(ucx_many_pds)
{
	struct ucx_rcache r[4];
	struct ucx_memh *memh[4];

	begin_ucx(&r[0], UINT64_MAX);
	for (unsigned int i = 0; i < 4; i++) {
		if (i)
			assert_int_equal(
				ucx_rcache_open(&r[i], r[0].cache, fake_pd(i)),
				0);
		memh[i] = ucx_get(&r[i], page(8), PAGE);
	}
	assert_int_equal(ucx_rcache_close(&r[3]), -EBUSY);
	fake_change(page(8), PAGE);
	for (unsigned int i = 0; i < 4; i++) {
		ucx_rcache_put(&r[i], memh[i]);
		ucx_rcache_put(&r[i], ucx_get(&r[i], page(8), PAGE));
		assert_int_equal(fake_registered(fake_pd(i)), 2);
	}
	/* One ends with what is idle, the others go on. */
	for (unsigned int i = 3; i; i--) {
		assert_int_equal(ucx_rcache_close(&r[i]), 0);
		assert_int_equal(fake_registered(fake_pd(i)), 0);
	}
	assert_int_equal(fake_registered(fake_pd(0)), 2);
	end_ucx(&r[0]);
}

/* The second registration of the two fails: nothing is left of the first. */
TEST(ucx_half_registered)
{
	struct ucx_memh *memh;
	struct ucx_rcache r;

	begin_ucx(&r, UINT64_MAX);
	fake_fail(FAKE_REG, 2, 1, EPERM);
	assert_int_equal(ucx_rcache_get(&r, page(8), PAGE, &memh), -EPERM);
	assert_int_equal(fake_registered(NULL), 0);
	end_ucx(&r);
}

/* Memory that ibv_fork_init() keeps from children must not stay registered. */
TEST(ucx_after_fork_init)
{
	struct ucx_rcache r;

	begin_ucx(&r, UINT64_MAX);
	assert_int_equal(fake_fork_init(), 0);
	ucx_rcache_put(&r, ucx_get(&r, page(8), PAGE));
	assert_int_equal(fake_registered(NULL), 0);
	end_ucx(&r);
}

static int no_reg(void *domain, struct ibv_mr *mr, void *area, int access)
{
	(void)domain, (void)mr, (void)area, (void)access;
	return 0;
}

static int no_dereg(void *domain, struct ibv_mr *mr, void *area)
{
	(void)domain, (void)mr, (void)area;
	return 0;
}

/* A domain that is not verbs does not answer for one that is. */
TEST(ucx_after_fork_init_beside_others)
{
	const struct mrcache_ops ops = {
		.size = sizeof(ops), .reg = no_reg, .dereg = no_dereg};
	struct ibv_pd *other;
	struct ucx_rcache r;
	struct ibv_mr *mr;

	begin_ucx(&r, UINT64_MAX);
	assert_int_equal(fake_fork_init(), 0);
	other = mrcache_domain_new(&ops, NULL);
	mr = mrcache_reg_mr(r.cache, other, page(8), PAGE, LOCAL);
	assert_non_null(mr);
	assert_int_equal(mrcache_dereg_mr(r.cache, mr), 0);
	ucx_rcache_put(&r, ucx_get(&r, page(8), PAGE));
	assert_int_equal(fake_registered(NULL), 0);
	assert_int_equal(mrcache_domain_free(r.cache, other), 0);
	end_ucx(&r);
}

/* ---- NCCL ------------------------------------------------------------------------ */

struct nccl {
	struct mrcache *cache;
	struct nccl_vnic v;
};

static void begin_nccl(struct nccl *n, uint64_t max_regs, unsigned int ndevs)
{
	struct ibv_pd *pds[NCCL_MAX_DEVS];

	begin_device();
	assert_int_equal(nccl_init(&n->cache, max_regs), 0);
	fake_check_locks(n->cache);
	for (unsigned int i = 0; i < ndevs; i++)
		pds[i] = fake_pd(i);
	assert_int_equal(nccl_vnic_open(&n->v, n->cache, pds, ndevs), 0);
}

static void end_nccl(struct nccl *n)
{
	fake_check_locks(NULL);
	assert_int_equal(nccl_vnic_close(&n->v), 0);
	assert_int_equal(mrcache_close(n->cache), 0);
	end_device();
}

static struct nccl_mhandle *nccl_get(struct nccl_vnic *v, size_t n,
				     size_t pages, bool strict)
{
	struct nccl_mhandle *mhandle = NULL;

	assert_int_equal(
		nccl_reg_mr(v, page(n), pages * PAGE, strict, &mhandle), 0);
	for (unsigned int i = 0; i < v->ndevs; i++)
		assert_true(fake_serves(mhandle->mrs[i], v->pds[i], page(n),
					pages * PAGE, strict ? RDMA : RELAXED));
	assert_int_equal(nccl_check(v, mhandle), 0);
	return mhandle;
}

static void nccl_give(struct nccl_vnic *v, struct nccl_mhandle *mhandle)
{
	assert_int_equal(nccl_dereg_mr(v, mhandle), 0);
}

TEST(nccl_hits)
{
	struct nccl_mhandle *a, *strict;
	struct nccl n;

	begin_nccl(&n, 100, 3);
	a = nccl_get(&n.v, 8, 4, false);
	nccl_give(&n.v, a);
	assert_ptr_equal(nccl_get(&n.v, 9, 1, false), a);
	/* Of another order: another key. */
	strict = nccl_get(&n.v, 8, 4, true);
	assert_ptr_not_equal(strict, a);
	assert_int_equal(fake_registered(NULL), 6);
	nccl_give(&n.v, strict);
	nccl_give(&n.v, a);
	end_nccl(&n);
}

/* The memory is freed while the handle is kept: it is not sent from. */
TEST(nccl_invalidate_while_held)
{
	struct nccl_mhandle *a, *b;
	struct nccl n;

	begin_nccl(&n, 100, 2);
	a = nccl_get(&n.v, 8, 4, false);
	fake_change(page(10), PAGE);
	assert_int_equal(nccl_check(&n.v, a), -ESTALE);
	b = nccl_get(&n.v, 8, 4, false);
	assert_ptr_not_equal(a, b);
	nccl_give(&n.v, a);
	assert_int_equal(fake_registered(NULL), 2);
	nccl_give(&n.v, b);
	end_nccl(&n);
}

TEST(nccl_evict)
{
	struct nccl_mhandle *held;
	struct nccl n;

	begin_nccl(&n, 4, 2);
	held = nccl_get(&n.v, 0, 1, false);
	for (size_t i = 8; i < 40; i += 2)
		nccl_give(&n.v, nccl_get(&n.v, i, 1, false));
	assert_true(fake_is_registered(held->mrs[1]));
	assert_in_range(fake_registered(NULL), 4, 2 * 4);
	nccl_give(&n.v, held);
	end_nccl(&n);
}

TEST(nccl_overlapping)
{
	struct nccl_mhandle *a, *b, *c;
	struct nccl n;

	begin_nccl(&n, 100, 2);
	a = nccl_get(&n.v, 8, 4, false);
	b = nccl_get(&n.v, 10, 4, false);
	fake_change(page(13), PAGE);
	assert_int_equal(nccl_check(&n.v, a), 0);
	assert_int_equal(nccl_check(&n.v, b), -ESTALE);
	c = nccl_get(&n.v, 10, 4, false);
	nccl_give(&n.v, c);
	nccl_give(&n.v, b);
	nccl_give(&n.v, a);
	end_nccl(&n);
}

TEST(nccl_nested_callbacks)
{
	struct nccl n;
	struct nested nested = {.nccl = &n.v, .left = 3};

	begin_nccl(&n, 100, 2);
	nccl_give(&n.v, nccl_get(&n.v, 100, 1, false));
	nccl_give(&n.v, nccl_get(&n.v, 8, 1, false));
	fake_hook(free_and_get, &nested);
	fake_change(page(8), PAGE);
	assert_int_equal(mrcache_progress(n.cache), 0);
	fake_hook(NULL, NULL);
	assert_int_equal(nested.done, 3);
	end_nccl(&n);
}

/* vNICs of one cache: each with its own keys; one ends, the others go on. */
TEST(nccl_many_pds)
{
	struct ibv_pd *pds[2] = {fake_pd(4), fake_pd(5)};
	struct nccl_mhandle *a, *b;
	struct nccl_vnic other;
	struct nccl n;

	begin_nccl(&n, 100, 4);
	assert_int_equal(nccl_vnic_open(&other, n.cache, pds, 2), 0);
	a = nccl_get(&n.v, 8, 1, false);
	b = nccl_get(&other, 8, 1, false);
	assert_int_equal(nccl_vnic_close(&other), -EBUSY);
	nccl_give(&other, b);
	assert_int_equal(nccl_vnic_close(&other), 0);
	assert_int_equal(fake_registered(pds[0]), 0);
	assert_int_equal(nccl_check(&n.v, a), 0);
	nccl_give(&n.v, a);
	assert_int_equal(nccl_vnic_open(&other, n.cache, pds, 0), -EINVAL);
	end_nccl(&n);
}

TEST(nccl_half_registered)
{
	struct nccl_mhandle *mhandle = NULL;
	struct nccl n;

	begin_nccl(&n, 100, 3);
	fake_fail(FAKE_REG, 3, 1, EPERM);
	assert_int_equal(nccl_reg_mr(&n.v, page(8), PAGE, false, &mhandle),
			 -EPERM);
	assert_int_equal(fake_registered(NULL), 0);
	end_nccl(&n);
}

/*
 * Threads get, revoke and put the same few entries while their memory changes:
 * whoever holds one has it registered, and in the end all are gone.
 */
#define THREADS 4
#define ROUNDS	4000

static void *share(void *arg)
{
	struct nccl_vnic *v = arg;
	static _Atomic unsigned int threads;
	unsigned int seed = atomic_fetch_add(&threads, 1);

	for (unsigned int i = 0; i < ROUNDS; i++) {
		size_t n = 8 + (i * 7 + seed) % 3;
		struct nccl_mhandle *mhandle = NULL;

		if (nccl_reg_mr(v, page(n), PAGE, false, &mhandle))
			return "not registered";
		for (unsigned int d = 0; d < v->ndevs; d++)
			if (!fake_is_registered(mhandle->mrs[d]))
				return "held, and not registered";
		if (i % 5 == seed)
			mrcache_revoke(v->cache, mhandle->entry);
		if (i % 11 == seed)
			fake_change(page(n), PAGE);
		if (i % 3 == seed)
			mrcache_progress(v->cache);
		if (nccl_dereg_mr(v, mhandle))
			return "cannot be given back";
	}
	return NULL;
}

TEST(threads_share_entries)
{
	pthread_t threads[THREADS];
	struct nccl n;

	begin_nccl(&n, 100, 2);
	fake_check_locks(NULL);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, share, &n.v),
				 0);
	for (int i = 0; i < THREADS; i++) {
		void *wrong;

		pthread_join(threads[i], &wrong);
		if (wrong)
			fail_msg("%s", (const char *)wrong);
	}
	end_nccl(&n);
}

int main(void)
{
	return run_cases(NULL, NULL);
}
