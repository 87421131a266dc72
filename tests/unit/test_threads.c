/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Threads that register, hit, give back and hand over to each other while the
 * memory changes, registrations are flushed and limits evict. The oracle is
 * exact: a range changes only while nobody is between asking for its
 * registration and having checked it.
 */
#define _GNU_SOURCE
#include "unit.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define RANGES	40u
#define WORKERS 4u
#define SLOTS	16u
#define SEED	UINT64_C(0x5eed)
#define STEPS	(SANITIZED ? 8000u : 20000u)

static uint64_t next_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* ---- the crowd ---------------------------------------------------------------------- */

struct crowd {
	struct scene s[2];
	unsigned int caches;
	/* Held for reading while a range must not change. */
	pthread_rwlock_t ranges[RANGES];
	/* Registrations that wait for any thread to give them back. */
	struct handed {
		struct ibv_mr *mr;
		unsigned int cache;
		uint32_t key;
	} * _Atomic slots[SLOTS];
	_Atomic bool stop;
	_Atomic unsigned int wrong;
	_Atomic int readers;
	const char *_Atomic what;
	uint64_t seed;
};

static void wrong(struct crowd *c, const char *what)
{
	const char *none = NULL;

	c->wrong++;
	atomic_compare_exchange_strong(&c->what, &none, what);
}

#define expect(c, condition)                           \
	do {                                           \
		if (!(condition))                      \
			wrong(c, #condition " fails"); \
	} while (0)

/* Ranges lie apart; they have one to four pages. */
static void *range_of(size_t r, size_t *length)
{
	*length = (1 + r % 4) * PAGE - (r % 3) * 100;
	return at(8 * r, (r % 3) * 100);
}

/* Gives back, after a look whether it is still what was handed out. */
static void give_back(struct crowd *c, struct handed h)
{
	expect(c, h.mr->lkey == h.key);
	expect(c, fake_is_registered(h.mr));
	expect(c, mrcache_dereg_mr(c->s[h.cache].cache, h.mr) == 0);
}

static void hand_over(struct crowd *c, size_t slot, struct handed h)
{
	struct handed *mine = malloc(sizeof(*mine)), *other;

	if (!mine)
		abort();
	*mine = h;
	other = atomic_exchange(&c->slots[slot], mine);
	if (other)
		give_back(c, *other);
	free(other);
}

static void take_what_is_handed(struct crowd *c, size_t slot)
{
	struct handed *other = atomic_exchange(&c->slots[slot], NULL);

	if (other)
		give_back(c, *other);
	free(other);
}

/* One registration, checked while its memory cannot change. */
static struct handed take(struct crowd *c, unsigned int cache, size_t r)
{
	struct scene *s = &c->s[cache];
	struct handed h = {.cache = cache};
	size_t length;
	void *addr = range_of(r, &length);

	pthread_rwlock_rdlock(&c->ranges[r]);
	h.mr = mrcache_reg_mr(s->cache, s->pd, addr, length, LOCAL);
	expect(c, h.mr);
	if (h.mr) {
		expect(c, fake_reaches(h.mr, addr, length));
		expect(c, fake_access(h.mr) == LOCAL);
		expect(c, h.mr->pd == s->pd);
		expect(c, mrcache_valid(s->cache, h.mr));
		h.key = h.mr->lkey;
	}
	pthread_rwlock_unlock(&c->ranges[r]);
	return h;
}

/* Changes a range if nobody looks at it; never waits for that. */
static void change_one(struct crowd *c, uint64_t random)
{
	size_t r = random % RANGES, length;
	char *addr = range_of(r, &length);

	if (pthread_rwlock_trywrlock(&c->ranges[r]))
		return;
	fake_change(addr + (random >> 40) % length, 1);
	pthread_rwlock_unlock(&c->ranges[r]);
}

struct worker {
	struct crowd *c;
	uint64_t seed;
	unsigned int steps;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	struct crowd *c = w->c;

	for (unsigned int i = 0; i < w->steps; i++) {
		uint64_t random = next_random(&w->seed);
		unsigned int cache = (unsigned int)(random % c->caches);
		/* Some ranges are everybody's favourites. */
		size_t r = random >> 8 & 1 ? random >> 16 & 3
					   : (random >> 16) % RANGES;
		size_t slot = (random >> 32) % SLOTS;
		struct handed h = take(c, cache, r), again;

		/* Here, too, so that it happens however threads are scheduled. */
		if (i % 16 == 0)
			change_one(c, random >> 20);
		if (!h.mr)
			continue;
		switch (random >> 48 & 7) {
		case 0:
			hand_over(c, slot, h);
			break;
		case 1:
			take_what_is_handed(c, slot);
			give_back(c, h);
			break;
		case 2: /* two at a time */
			again = take(c, cache, r);
			give_back(c, h);
			if (again.mr)
				give_back(c, again);
			break;
		case 3: /* for a while */
			for (size_t k = 0; k < 5; k++) {
				again = take(c, cache, (r + k) % RANGES);
				if (again.mr)
					give_back(c, again);
			}
			give_back(c, h);
			break;
		default:
			give_back(c, h);
		}
	}
	return NULL;
}

/* Changes memory all the time, also such as nobody uses. */
static void *change(void *arg)
{
	struct crowd *c = arg;
	uint64_t seed = c->seed ^ 0xc4a26e;

	while (!atomic_load(&c->stop)) {
		uint64_t random = next_random(&seed);

		if (random >> 32 & 1)
			fake_change(page(8 * RANGES + random % RANGES), PAGE);
		else
			change_one(c, random);
		sched_yield();
	}
	return NULL;
}

static void *flush(void *arg)
{
	struct crowd *c = arg;
	uint64_t seed = c->seed ^ 0xf1a5;

	while (!atomic_load(&c->stop)) {
		uint64_t random = next_random(&seed);
		struct scene *s = &c->s[random % c->caches];
		struct mrcache_stats st;
		size_t length;
		char *addr = range_of((random >> 8) % RANGES, &length);

		switch (random >> 32 & 7) {
		case 0:
			expect(c, mrcache_flush(s->cache, s->pd) >= 0);
			break;
		case 1:
			expect(c, mrcache_flush(s->cache, fake_pd(9)) == 0);
			break;
		case 2:
			/* Of memory beside: what is held stays valid. */
			expect(c,
			       !mrcache_invalidate(s->cache, addr + length, 1));
			break;
		default:
			expect(c,
			       !mrcache_get_stats(s->cache, &st, sizeof(st)));
			expect(c, st.cached <= 4096 && st.uncached <= 4096);
		}
		sched_yield();
	}
	return NULL;
}

/* Events of one cache are read by one thread at a time. */
static void count_readers(enum fake_call call, enum fake_when when, void *arg)
{
	struct crowd *c = arg;

	if (call != FAKE_READ)
		return;
	if (when == BEFORE)
		expect(c, atomic_fetch_add(&c->readers, 1) < (int)c->caches);
	else if (when == AFTER)
		atomic_fetch_sub(&c->readers, 1);
}

static void run_crowd(struct crowd *c, uint64_t seed)
{
	pthread_t workers[WORKERS], changer, flusher;
	struct worker work_of[WORKERS];

	print_message("# seed %#llx\n", (unsigned long long)seed);
	c->seed = seed;
	for (size_t r = 0; r < RANGES; r++)
		pthread_rwlock_init(&c->ranges[r], NULL);
	fake_hook(count_readers, c);
	for (unsigned int i = 0; i < WORKERS; i++) {
		work_of[i] = (struct worker){c, seed + 77 * i + 1, STEPS};
		assert_int_equal(
			pthread_create(&workers[i], NULL, work, &work_of[i]),
			0);
	}
	assert_int_equal(pthread_create(&changer, NULL, change, c), 0);
	assert_int_equal(pthread_create(&flusher, NULL, flush, c), 0);
	for (unsigned int i = 0; i < WORKERS; i++)
		pthread_join(workers[i], NULL);
	atomic_store(&c->stop, true);
	pthread_join(changer, NULL);
	pthread_join(flusher, NULL);
	for (size_t slot = 0; slot < SLOTS; slot++)
		take_what_is_handed(c, slot);
	for (size_t r = 0; r < RANGES; r++)
		pthread_rwlock_destroy(&c->ranges[r]);
	if (c->wrong)
		fail_msg("%u times, first: %s", c->wrong, c->what);
}

/* Nobody holds anything now: no count may be left over. */
static void finish_crowd(struct crowd *c)
{
	struct mrcache_stats st;

	fake_hook(NULL, NULL);
	for (unsigned int i = 0; i < c->caches; i++) {
		assert_int_equal(mrcache_flush(c->s[i].cache, NULL), 0);
		st = stats(&c->s[i]);
		assert_int_equal(st.cached, 0);
		assert_int_equal(st.cached_bytes, 0);
		assert_int_equal(st.stale_held, 0);
		assert_int_equal(st.uncached, 0);
		assert_int_equal(st.registrations, st.deregistrations);
		assert_int_equal(st.reg_errors + st.dereg_errors, 0);
		assert_true(st.hits > 0);
		assert_true(st.misses > RANGES);
	}
	assert_int_equal(fake_registered(NULL), 0);
	for (unsigned int i = 0; i < c->caches; i++)
		assert_int_equal(mrcache_close(c->s[i].cache), 0);
	assert_int_equal(fake_monitors(), 0);
	no_trouble();
}

static void crowd_with(void **state, unsigned int caches, unsigned int flags,
		       const struct mrcache_attr *attr, uint64_t seed)
{
	struct crowd *c = calloc(1, sizeof(*c));

	assert_non_null(c);
	c->caches = caches;
	for (unsigned int i = 0; i < caches; i++)
		begin_with(&c->s[i], flags_of(state) | flags, attr);
	run_crowd(c, seed);
	finish_crowd(c);
	free(c);
}

TEST_BOTH(nothing_stale_is_ever_handed_out)
{
	struct mrcache_attr attr;

	test_attr(&attr);
	crowd_with(state, 1, 0, &attr, SEED);
}

TEST_BOTH(nor_when_addresses_are_used_again)
{
	struct mrcache_attr attr;

	test_attr(&attr);
	fake_reuse_addresses(true);
	crowd_with(state, 1, 0, &attr, SEED + 1);
}

TEST_BOTH(nor_when_limits_evict)
{
	struct mrcache_attr attr;

	test_attr(&attr);
	attr.max_regs = RANGES / 4;
	attr.log_level = MRCACHE_LOG_QUIET;
	crowd_with(state, 1, 0, &attr, SEED + 2);
}

TEST_BOTH(nor_when_larger_ranges_serve)
{
	struct mrcache_attr attr;

	test_attr(&attr);
	attr.contain = attr.page_align = true;
	crowd_with(state, 1, 0, &attr, SEED + 3);
}

TEST_BOTH(nor_when_a_reaper_helps)
{
	struct mrcache_attr attr;

	test_attr(&attr);
	attr.reaper = true;
	crowd_with(state, 1, FAKE_FD, &attr, SEED + 4);
}

TEST_BOTH(nor_with_two_caches)
{
	struct mrcache_attr attr;

	test_attr(&attr);
	attr.max_regs = RANGES / 2;
	attr.log_level = MRCACHE_LOG_QUIET;
	attr.reaper = true;
	crowd_with(state, 2, FAKE_FD | FAKE_ALONE, &attr, SEED + 5);
}

/* ---- threads that come and go --------------------------------------------------------- */

#define MANY (MRC_COUNTED_THREADS + 44u)

struct many {
	struct scene s;
	pthread_barrier_t all_here;
	struct ibv_mr *taken[MANY];
	_Atomic unsigned int next, wrong;
};

static void *take_and_leave(void *arg)
{
	struct many *m = arg;
	unsigned int i = m->next++;
	struct ibv_mr *mr;

	mr = mrcache_reg_mr(m->s.cache, m->s.pd, page(0), PAGE, LOCAL);
	m->taken[i] = mr;
	mr = mrcache_reg_mr(m->s.cache, m->s.pd, page(0), PAGE, LOCAL);
	if (!mr || mr != m->taken[i] || mrcache_dereg_mr(m->s.cache, mr))
		m->wrong++;
	pthread_barrier_wait(&m->all_here);
	return NULL;
}

TEST_BOTH(there_may_be_more_threads_than_lines_for_their_counts)
{
	static struct many m;
	pthread_t threads[MANY];

	memset(&m, 0, sizeof(m));
	begin(&m.s, flags_of(state));
	touch(&m.s, 0, 1);
	pthread_barrier_init(&m.all_here, NULL, MANY);
	for (unsigned int i = 0; i < MANY; i++)
		assert_int_equal(
			pthread_create(&threads[i], NULL, take_and_leave, &m),
			0);
	for (unsigned int i = 0; i < MANY; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&m.all_here);
	assert_int_equal(m.wrong, 0);
	assert_int_equal(stats(&m.s).hits, 2 * MANY);
	assert_int_equal(stats(&m.s).misses, 1);
	assert_int_equal(mrcache_flush(m.s.cache, NULL), 1);
	for (unsigned int i = 0; i < MANY; i++) {
		assert_ptr_equal(m.taken[i], m.taken[0]);
		assert_true(fake_is_registered(m.taken[0]));
		give(&m.s, m.taken[i]);
	}
	assert_int_equal(mrcache_dereg_mr(m.s.cache, m.taken[0]), EINVAL);
	assert_int_equal(fake_registered(NULL), 0);
	finish(&m.s);
}

static void *one_after_the_other(void *arg)
{
	struct scene *s = arg;

	for (size_t n = 0; n < 3; n++)
		if (!mrcache_reg_mr(s->cache, s->pd, page(n), PAGE, LOCAL))
			return NULL;
	return s;
}

TEST_BOTH(records_of_threads_that_ended_are_used_again)
{
	struct mrc_thread *thread;
	unsigned int records = 0;
	struct scene s;

	begin(&s, flags_of(state));
	for (int i = 0; i < 100; i++)
		in_thread(one_after_the_other, &s);
	for (thread = atomic_load(&s.cache->threads); thread;
	     thread = thread->next)
		records++;
	assert_int_equal(records, 1);
	assert_int_equal(stats(&s).hits + stats(&s).misses, 300);
	for (size_t n = 0; n < 3; n++) {
		struct ibv_mr *mr = reg(&s, n, 1);

		for (int i = 0; i < 100; i++)
			give(&s, mr);
		assert_true(fake_is_registered(mr));
		give(&s, mr);
		assert_int_equal(mrcache_dereg_mr(s.cache, mr), EINVAL);
	}
	finish(&s);
}

static void *use_both(void *arg)
{
	struct scene *s = arg;

	for (size_t n = 0; n < 200; n++) {
		struct scene *one = &s[n % 2];
		struct ibv_mr *mr = mrcache_reg_mr(one->cache, one->pd,
						   page(n % 7), PAGE, LOCAL);

		if (!mr ||
		    mrcache_dereg_mr(s[(n + 1) % 2].cache, mr) != EINVAL ||
		    (n < 196 && mrcache_dereg_mr(one->cache, mr)))
			fake_trouble("with two caches");
	}
	return NULL;
}

TEST_BOTH(a_thread_ends_in_all_its_caches)
{
	struct scene s[2];

	begin(&s[0], flags_of(state));
	begin(&s[1], flags_of(state));
	in_thread(use_both, s);
	no_trouble();
	for (size_t i = 0; i < 2; i++)
		assert_int_equal(mrcache_flush(s[i].cache, NULL), 2);
	/* The last four were kept: pages 0 to 3. */
	assert_int_equal(mrcache_close(s[0].cache), -EBUSY);
	for (size_t i = 0; i < 2; i++) {
		struct mrc_pd *entry, *next;

		HASH_ITER(hh, s[i].cache->pds, entry, next)
		while (entry->mrs->next)
			give(&s[i], atomic_load(&entry->mrs->ibv));
		give(&s[i], atomic_load(&s[i].cache->pds->mrs->ibv));
	}
	assert_int_equal(mrcache_close(s[0].cache), 0);
	finish(&s[1]);
}

/* ---- the reaper ------------------------------------------------------------------------- */

TEST_BOTH(the_reaper_deregisters_what_became_stale)
{
	struct mrcache_attr attr;
	struct ibv_mr *held;
	struct scene s;

	test_attr(&attr);
	attr.reaper = true;
	begin_with(&s, flags_of(state) | FAKE_FD, &attr);
	held = reg(&s, 0, 1);
	for (int again = 0; again < 3; again++) {
		for (size_t n = 1; n < 5; n++)
			touch(&s, n, 1);
		fake_change(page(1), 3 * PAGE);
		COME_REGISTERED(2);
	}
	fake_change(page(0), PAGE);
	while (stats(&s).stale_held != 1)
		sched_yield();
	assert_true(fake_is_registered(held));
	give(&s, held);
	/* At once, or by the reaper, if that is not through with it. */
	COME_REGISTERED(1);
	finish(&s);
}

/* Whether all registrations are ended by another thread, in a while. */
static bool all_end(void)
{
	return COMES(!fake_registered(NULL), 10);
}

TEST_BOTH(a_reaper_whose_monitor_fails_says_so_and_tries_again)
{
	struct mrcache_attr attr;
	struct scene s;

	test_attr(&attr);
	attr.reaper = true;
	begin_with(&s, flags_of(state) | FAKE_FD, &attr);
	touch(&s, 0, 1);
	fake_fail(FAKE_READ, 1, FAKE_FOR_EVER, EIO);
	fake_change(page(0), PAGE);
	while (log_lines(MRCACHE_LOG_ERROR) < 2)
		sched_yield();
	assert_int_equal(log_containing("reaper"), 1);
	fake_fail(FAKE_READ, 1, 0, EIO);
	assert_true(all_end());
	assert_int_equal(log_containing("reaper"), 1);
	finish(&s);
}

/* Or a key that should be revoked works for ever. */
TEST_BOTH(what_lingers_ends_although_the_monitor_fails)
{
	struct mrcache_attr attr;
	struct scene s;

	test_attr(&attr);
	attr.remote = false;
	attr.linger = 20;
	begin_with(&s, flags_of(state) | FAKE_FD, &attr);
	give(&s, reg_range(&s, page(0), PAGE, REMOTE));
	fake_fail(FAKE_READ, 1, FAKE_FOR_EVER, EIO);
	fake_change(page(0), PAGE);
	assert_true(all_end());
	fake_fail(FAKE_READ, 1, 0, EIO);
	finish(&s);
}

/* Of any age: what there is when it begins, and what is cached after. */
TEST_BOTH(what_lingers_ends_although_nothing_can_be_polled)
{
	struct mrcache_attr attr;
	struct scene s;

	test_attr(&attr);
	attr.remote = false;
	attr.linger = 50;
	begin_with(&s, flags_of(state) | FAKE_FD, &attr);
	give(&s, reg_range(&s, page(0), PAGE, REMOTE));
	fake_fail(FAKE_POLL, 1, FAKE_FOR_EVER, EINVAL);
	assert_true(all_end());
	give(&s, reg_range(&s, page(1), PAGE, REMOTE));
	assert_int_equal(stats(&s).misses, 2);
	assert_true(all_end());
	assert_int_equal(log_containing("reaper"), 1);
	finish(&s);
}

/* Nor does stale memory stay for ever, and closing ends. */
TEST_BOTH(stale_memory_is_found_although_nothing_can_be_polled)
{
	struct mrcache_attr attr;
	struct scene s;

	test_attr(&attr);
	attr.remote = false;
	attr.reaper = true;
	attr.linger = 50; /* what comes more often does not put it off */
	begin_with(&s, flags_of(state) | FAKE_FD, &attr);
	fake_fail(FAKE_POLL, 1, FAKE_FOR_EVER, EINVAL);
	for (size_t n = 0; n < 2; n++) {
		touch(&s, n, 1);
		fake_change(page(n), PAGE);
		assert_true(all_end());
	}
	finish(&s);
}

TEST_BOTH(without_a_descriptor_there_is_nothing_to_reap)
{
	struct mrcache_attr attr;
	struct scene s;

	test_attr(&attr);
	attr.reaper = true;
	begin_with(&s, flags_of(state), &attr);
	touch(&s, 0, 1);
	fake_change(page(0), PAGE);
	touch(&s, 0, 1);
	finish(&s);
	begin_with(&s, NO_MONITOR, &attr);
	touch(&s, 0, 1);
	finish(&s);
}

/* A deregistration of the reaper that lasts until flush returns or sleeps. */
struct slow {
	_Atomic pid_t flusher; /* while it flushes */
	_Atomic bool busy, done;
};

static bool is_asleep(pid_t thread)
{
	char path[64], line[512], *state;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", (int)thread);
	file = fopen(path, "r");
	if (!file)
		return false;
	state = fgets(line, sizeof(line), file);
	state = state ? strrchr(line, ')') : NULL;
	fclose(file);
	return state && state[2] == 'S';
}

static void slow_dereg(enum fake_call call, enum fake_when when, void *arg)
{
	struct slow *slow = arg;

	if (call != FAKE_DEREG || when != BEFORE)
		return;
	atomic_store(&slow->busy, true);
	while (!atomic_load(&slow->done) &&
	       !(atomic_load(&slow->flusher) &&
		 is_asleep(atomic_load(&slow->flusher))))
		sched_yield();
}

TEST_BOTH(flush_waits_for_what_others_deregister)
{
	struct slow slow = {.done = false};
	struct mrcache_attr attr;
	struct scene s;
	size_t left;

	test_attr(&attr);
	attr.reaper = true;
	begin_with(&s, flags_of(state) | FAKE_FD, &attr);
	touch(&s, 0, 1);
	fake_hook(slow_dereg, &slow);
	fake_change(page(0), PAGE);
	while (!atomic_load(&slow.busy))
		sched_yield();
	atomic_store(&slow.flusher, gettid());
	assert_int_equal(mrcache_flush(s.cache, s.pd), 0);
	/* So that ibv_dealloc_pd() works now. */
	left = fake_registered(s.pd);
	atomic_store(&slow.done, true);
	assert_int_equal(left, 0);
	finish(&s);
}

/*
 * One is being deregistered when flush begins; before it is done another begins
 * to be, and is not done before flush returns.
 */
struct relay {
	struct scene *s;
	struct ibv_mr *next;
	pthread_t thread;
	_Atomic pid_t flusher;
	_Atomic unsigned int begun;
	_Atomic bool returned, gave_up;
};

static void *deregister_next(void *arg)
{
	struct relay *relay = arg;

	mrcache_dereg_mr(relay->s->cache, relay->next);
	return NULL;
}

static void relay_dereg(enum fake_call call, enum fake_when when, void *arg)
{
	struct relay *relay = arg;
	unsigned int nth;

	if (call != FAKE_DEREG || when != BEFORE)
		return;
	nth = atomic_fetch_add(&relay->begun, 1);
	if (nth == 0) {
		while (!atomic_load(&relay->flusher) ||
		       !is_asleep(atomic_load(&relay->flusher)))
			sched_yield();
		pthread_create(&relay->thread, NULL, deregister_next, relay);
		while (atomic_load(&relay->begun) < 2)
			sched_yield();
	} else if (nth == 1) {
		atomic_store(&relay->gave_up,
			     !COMES(atomic_load(&relay->returned), 5));
	}
}

struct one {
	struct scene *s;
	struct ibv_mr *mr;
};

static void *deregister_one(void *arg)
{
	const struct one *one = arg;

	mrcache_dereg_mr(one->s->cache, one->mr);
	return NULL;
}

TEST_BOTH(flush_does_not_wait_for_what_comes_after)
{
	struct relay relay = {.returned = false};
	pthread_t first;
	struct scene s;
	struct one one = {.s = &s};

	begin(&s, flags_of(state));
	relay.s = &s;
	/* Not cached, so that deregistering is their callers' own. */
	fake_fail(FAKE_WATCH, 1, 2, ENOSPC);
	one.mr = reg(&s, 0, 1);
	relay.next = reg(&s, 1, 1);
	fake_hook(relay_dereg, &relay);
	pthread_create(&first, NULL, deregister_one, &one);
	while (!atomic_load(&relay.begun))
		sched_yield();
	atomic_store(&relay.flusher, gettid());
	mrcache_flush(s.cache, NULL);
	atomic_store(&relay.returned, true);
	pthread_join(first, NULL);
	pthread_join(relay.thread, NULL);
	assert_false(relay.gave_up);
	fake_hook(NULL, NULL);
	finish(&s);
}

int main(void)
{
	return run_cases(NULL, NULL);
}
