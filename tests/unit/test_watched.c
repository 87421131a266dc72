/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a guard stands on: whatever happens to memory at whatever step of a
 * registration, it is told, or what asks afterwards learns of it.
 */
#include "guard/watched.h"
#include "unit.h"

#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#define REPINS 3u

/* The range all of this is about. */
#define FIRST 8u
#define PAGES 4u
#define START ((uintptr_t)page(FIRST))
#define RANGE page(FIRST), (PAGES * PAGE)

struct set {
	struct watched_set *set;
	struct fake_monitor *monitor;
	struct ibv_pd *pd;
	unsigned int told; /* by tell() */
	uintptr_t start, end;
};

static struct ibv_mr *pin(void *arg)
{
	struct set *s = arg;

	return fake_verbs.reg_mr(s->pd, RANGE, REMOTE);
}

static struct ibv_mr *register_range(struct set *s)
{
	return watched_reg(s->set, RANGE, pin, s);
}

static void note(void *arg, uintptr_t start, uintptr_t end)
{
	struct set *s = arg;

	s->told++;
	s->start = start;
	s->end = end;
}

/* How many changes are told now. */
static unsigned int tell(struct set *s)
{
	s->told = 0;
	watched_tell(s->set, note, s);
	return s->told;
}

/* Nothing is known against it, nor can there be. */
static bool is_valid(struct set *s)
{
	return !watched_has_news(s->set) &&
	       !watched_has_changed(s->set, START, PAGES * PAGE);
}

static void open_set(struct set *s)
{
	*s = (struct set){
		.monitor = fake_monitor_new(FAKE_STATES),
		.pd = fake_pd(0),
	};
	s->set = watched_open(fake_monitor_base(s->monitor),
			      fake_verbs.dereg_mr, REPINS);
	assert_non_null(s->set);
	/* Nothing is watched, so nothing that has happened matters. */
	assert_int_equal(tell(s), 0);
	assert_false(watched_has_news(s->set));
}

/* Everything was deregistered. */
static void close_set(struct set *s)
{
	assert_int_equal(fake_watches(s->monitor), 0);
	assert_int_equal(fake_registered(NULL), 0);
	watched_close(s->set);
	assert_int_equal(fake_monitors(), 0);
	no_trouble();
}

static void end_mr(struct set *s, struct ibv_mr *mr)
{
	assert_int_equal(watched_dereg(s->set, mr), 0);
}

/* ---- a change at every step -------------------------------------------------------- */

static const struct step {
	enum fake_call call;
	enum fake_when when;
} steps[] = {
	{FAKE_WATCH, BEFORE}, {FAKE_WATCH, AFTER}, {FAKE_REG, BEFORE},
	{FAKE_REG, DURING},   {FAKE_REG, AFTER},
};
#define STEPS (sizeof(steps) / sizeof(*steps))

struct at {
	struct step step;
	unsigned int times, came;
	void (*act)(void *arg);
	void *arg;
	struct at *also;
};

static void run_at(enum fake_call call, enum fake_when when, void *arg)
{
	for (struct at *at = arg; at; at = at->also)
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

/* Stale is told, and known; what is not reaches what is there. */
static void stale_is_told(struct set *s, struct ibv_mr *mr)
{
	unsigned int told;
	bool reaches;

	assert_non_null(mr);
	fake_hook(NULL, NULL);
	reaches = fake_reaches(mr, RANGE);
	told = tell(s);
	assert_true(reaches || told);
	assert_int_equal(!told, is_valid(s));
	assert_int_equal(!told,
			 !watched_has_changed(s->set, START + PAGE, PAGE));
	end_mr(s, mr);
	close_set(s);
}

TEST(a_change_at_every_step)
{
	for (unsigned int times = 1; times <= REPINS + 1; times++)
		for (size_t i = 0; i < STEPS; i++) {
			struct at at = {steps[i], times, .act = change};
			struct set s;

			open_set(&s);
			fake_hook(run_at, &at);
			stale_is_told(&s, register_range(&s));
		}
}

/* A change that begins at one step and ends at a later one, or after all. */
TEST(a_change_over_every_two_steps)
{
	for (size_t i = 0; i < STEPS; i++)
		for (size_t j = i; j <= STEPS; j++) {
			struct at end = {steps[j % STEPS], j < STEPS,
					 .act = change_end};
			struct at begin = {steps[i], 1, .act = change_begin,
					   .also = &end};
			struct ibv_mr *mr;
			struct set s;

			open_set(&s);
			fake_hook(run_at, &begin);
			mr = register_range(&s);
			fake_hook(NULL, NULL);
			if (!end.came)
				change_end(NULL);
			stale_is_told(&s, mr);
		}
}

/* The report is read while the registration is still being made. */
static void tell_meanwhile(void *arg)
{
	struct set *s = arg;

	fake_change(RANGE);
	tell(s);
}

TEST(a_report_read_too_early_is_told_all_the_same)
{
	for (size_t i = 1; i < STEPS; i++) {
		struct set s;
		struct at at = {steps[i], REPINS + 1, .act = tell_meanwhile,
				.arg = &s};

		open_set(&s);
		fake_hook(run_at, &at);
		stale_is_told(&s, register_range(&s));
	}
}

TEST(what_registering_changes_is_registered_again)
{
	struct at at = {{FAKE_REG, AFTER}, 1, .act = change};
	struct set s;
	struct ibv_mr *mr;

	open_set(&s);
	fake_hook(run_at, &at);
	mr = register_range(&s);
	fake_hook(NULL, NULL);
	assert_int_equal(fake_calls(FAKE_REG), 2);
	assert_int_equal(tell(&s), 0);
	assert_true(is_valid(&s));
	end_mr(&s, mr);
	close_set(&s);
}

/* ---- telling ------------------------------------------------------------------------- */

TEST(a_change_is_told_once_and_known_until_the_end)
{
	struct set s;
	struct ibv_mr *mr;

	open_set(&s);
	mr = register_range(&s);
	assert_true(is_valid(&s));
	assert_int_equal(tell(&s), 0);
	fake_change(page(FIRST + 1), 1);
	assert_true(watched_has_news(s.set));
	assert_false(is_valid(&s)); /* also before it is told */
	assert_int_equal(tell(&s), 1);
	assert_int_equal(s.start, START);
	assert_int_equal(s.end, START + PAGES * PAGE);
	assert_false(watched_has_news(s.set));
	fake_change(RANGE);
	assert_int_equal(tell(&s), 0);
	assert_false(is_valid(&s));
	assert_true(watched_has_changed(s.set, START, 1));
	assert_false(watched_has_changed(s.set, START - PAGE, PAGE));
	assert_false(watched_has_changed(s.set, START + PAGES * PAGE, PAGE));
	end_mr(&s, mr);
	assert_false(watched_has_changed(s.set, START, 1));
	close_set(&s);
}

TEST(one_of_two_is_stale)
{
	struct set s;
	struct ibv_mr *old, *new;

	open_set(&s);
	old = register_range(&s);
	fake_change(RANGE);
	new = register_range(&s);
	assert_true(fake_reaches(new, RANGE));
	/* Who asks for the range cannot say which of the two it has. */
	assert_false(is_valid(&s));
	assert_int_equal(tell(&s), 1);
	assert_false(is_valid(&s));
	end_mr(&s, old);
	assert_true(is_valid(&s));
	end_mr(&s, new);
	close_set(&s);
}

struct other_cache {
	struct set *s;
	struct ibv_mr *mr;
	unsigned int told;
};

static void drop(void *arg, uintptr_t start, uintptr_t end)
{
	struct other_cache *cache = arg;

	assert_int_equal(start, START);
	assert_int_equal(end, START + PAGES * PAGE);
	/* From within: there is nothing to wait for. */
	assert_int_equal(watched_tell(cache->s->set, drop, cache), 0);
	if (cache->mr)
		end_mr(cache->s, cache->mr);
	cache->mr = NULL;
	cache->told++;
}

TEST(the_one_that_is_told_deregisters)
{
	struct set s;
	struct other_cache cache = {.s = &s};

	open_set(&s);
	cache.mr = register_range(&s);
	fake_change(RANGE);
	assert_int_equal(watched_tell(s.set, drop, &cache), 1);
	assert_int_equal(cache.told, 1);
	close_set(&s);
}

struct second {
	struct set *s;
	pthread_t thread;
	_Atomic bool asks, is_past;
};

static void *ask_too(void *arg)
{
	struct second *second = arg;

	atomic_store(&second->asks, true);
	if (watched_has_news(second->s->set))
		watched_tell(second->s->set, note, second->s);
	atomic_store(&second->is_past, true);
	return NULL;
}

static void let_a_second_ask(void *arg, uintptr_t start, uintptr_t end)
{
	struct second *second = arg;

	(void)start, (void)end;
	assert_int_equal(pthread_create(&second->thread, NULL, ask_too, second),
			 0);
	while (!atomic_load(&second->asks))
		sched_yield();
	usleep(20000); /* enough to get past, if it can */
	assert_false(atomic_load(&second->is_past));
}

TEST(nobody_gets_past_who_was_not_told)
{
	struct set s;
	struct second second = {.s = &s};
	struct ibv_mr *mr;

	open_set(&s);
	mr = register_range(&s);
	fake_change(RANGE);
	assert_int_equal(watched_tell(s.set, let_a_second_ask, &second), 1);
	pthread_join(second.thread, NULL);
	assert_true(atomic_load(&second.is_past));
	end_mr(&s, mr);
	close_set(&s);
}

TEST(many_are_told)
{
	static struct ibv_mr *mrs[1000];
	struct set s;

	open_set(&s);
	for (size_t i = 0; i < 1000; i++)
		mrs[i] = register_range(&s);
	fake_change(RANGE);
	assert_int_equal(tell(&s), 1000);
	for (size_t i = 0; i < 1000; i++)
		end_mr(&s, mrs[i]);
	close_set(&s);
}

/* ---- failures -------------------------------------------------------------------------- */

TEST(what_cannot_be_watched_is_never_valid)
{
	struct set s;
	struct ibv_mr *mr;

	open_set(&s);
	fake_fail(FAKE_WATCH, 1, 1, ENOSPC);
	mr = register_range(&s);
	assert_non_null(mr);
	assert_int_equal(atomic_load(&s.set->unwatched), 1);
	assert_true(watched_has_news(s.set));
	assert_false(is_valid(&s));
	assert_int_equal(tell(&s), 1);
	assert_false(watched_has_news(s.set));
	assert_int_equal(tell(&s), 0);
	assert_true(watched_has_changed(s.set, START, 1));
	end_mr(&s, mr);
	close_set(&s);
}

TEST(a_watch_that_cannot_be_armed_again)
{
	struct at at = {{FAKE_REG, AFTER}, 1, .act = change};
	struct set s;
	struct ibv_mr *mr;

	open_set(&s);
	fake_hook(run_at, &at);
	fake_fail(FAKE_REARM, 1, 1, EINTR);
	mr = register_range(&s);
	fake_hook(NULL, NULL);
	assert_non_null(mr);
	assert_false(is_valid(&s));
	assert_int_equal(tell(&s), 1);
	end_mr(&s, mr);
	close_set(&s);
}

TEST(a_monitor_that_fails_makes_all_stale)
{
	struct set s;
	struct ibv_mr *mr, *other;

	open_set(&s);
	mr = register_range(&s);
	other = register_range(&s);
	fake_noise(s.monitor);
	fake_fail(FAKE_READ, 1, 1, EIO);
	s.told = 0;
	assert_int_equal(watched_tell(s.set, note, &s), -EIO);
	assert_int_equal(s.told, 2);
	assert_true(watched_has_news(s.set));
	assert_false(is_valid(&s));
	end_mr(&s, mr);
	end_mr(&s, other);
	close_set(&s);
}

TEST(registering_fails_as_ever)
{
	struct set s;

	open_set(&s);
	fake_fail(FAKE_REG, 1, 1, ENOMEM);
	errno = 0;
	assert_null(register_range(&s));
	assert_int_equal(errno, ENOMEM);
	close_set(&s);
}

TEST(no_memory_at_any_step)
{
	for (unsigned int nth = 1;; nth++) {
		unsigned int before;
		struct set s;
		struct ibv_mr *mr;

		open_set(&s);
		before = fake_calls(FAKE_MEMORY);
		fake_fail(FAKE_MEMORY, nth, 1, ENOMEM);
		errno = 0;
		mr = register_range(&s);
		if (!mr)
			assert_int_equal(errno, ENOMEM);
		else
			end_mr(&s, mr);
		close_set(&s);
		if (fake_calls(FAKE_MEMORY) - before < nth)
			break;
	}
}

TEST(deregistering_fails_and_it_stays)
{
	struct set s;
	struct ibv_mr *mr;

	open_set(&s);
	mr = register_range(&s);
	fake_fail(FAKE_DEREG, 1, 1, EBUSY);
	assert_int_equal(watched_dereg(s.set, mr), EBUSY);
	assert_true(is_valid(&s));
	fake_change(RANGE);
	assert_int_equal(tell(&s), 1);
	end_mr(&s, mr);
	assert_int_equal(watched_dereg(s.set, mr), -ENOENT);
	close_set(&s);
}

/* Its device was closed, and another registration has its address. */
TEST(one_that_was_lost_is_forgotten)
{
	struct set s;
	struct ibv_mr *mr, *again;

	open_set(&s);
	fake_reuse_addresses(true);
	mr = register_range(&s);
	assert_int_equal(fake_verbs.dereg_mr(mr), 0);
	again = register_range(&s);
	assert_ptr_equal(again, mr);
	assert_int_equal(fake_watches(s.monitor), 1);
	assert_true(is_valid(&s));
	end_mr(&s, again);
	close_set(&s);
}

TEST(a_monitor_without_state_words_is_refused)
{
	struct fake_monitor *monitor = fake_monitor_new(0);

	errno = 0;
	assert_null(watched_open(fake_monitor_base(monitor),
				 fake_verbs.dereg_mr, REPINS));
	assert_int_equal(errno, EOPNOTSUPP);
	assert_int_equal(fake_monitors(), 0);
}

TEST(a_child_knows_that_it_is_none_of_its)
{
	struct set s;
	int status;
	pid_t pid;

	open_set(&s);
	assert_true(watched_is_owner(s.set));
	pid = fork();
	if (!pid)
		_exit(watched_is_owner(s.set));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_true(watched_is_owner(s.set));
	close_set(&s);
}

/* ---- threads ------------------------------------------------------------------------------ */

/*
 * Each thread has a cache of one entry, as a stack has: it tells, looks up,
 * uses, and replaces what is no longer there. What it was told of in whichever
 * thread it drops. Memory changes all the time.
 */
#define THREADS 4u
#define CHANGES (SANITIZED ? 200u : 2000u)

struct user {
	struct set *s;
	struct ibv_mr *_Atomic mr;
	_Atomic bool stale;
	unsigned int wrong;
};

static struct user users[THREADS];

static void tell_users(void *arg, uintptr_t start, uintptr_t end)
{
	(void)arg, (void)start, (void)end;
	for (unsigned int i = 0; i < THREADS; i++)
		atomic_store(&users[i].stale, true);
}

static _Atomic bool stop;
/* Odd while memory changes. */
static _Atomic unsigned int changes;

static void *change_memory(void *arg)
{
	(void)arg;
	while (!atomic_load(&stop)) {
		atomic_fetch_add(&changes, 1);
		fake_change(RANGE);
		atomic_fetch_add(&changes, 1);
		sched_yield();
	}
	return NULL;
}

static void *use(void *arg)
{
	struct user *user = arg;
	struct set *s = user->s;

	for (;;) {
		unsigned int before = atomic_load(&changes);
		struct ibv_mr *mr = atomic_load(&user->mr);
		bool hit;

		if (before > 2 * CHANGES)
			break;
		if (watched_has_news(s->set))
			watched_tell(s->set, tell_users, NULL);
		hit = mr && !atomic_load(&user->stale);
		/* Stale since before this round, and a hit? */
		if (hit && !(before & 1) && !fake_reaches(mr, RANGE) &&
		    before == atomic_load(&changes))
			user->wrong++;
		if (hit)
			continue;
		if (mr)
			watched_dereg(s->set, mr);
		atomic_store(&user->stale, false);
		atomic_store(&user->mr, register_range(s));
	}
	return NULL;
}

TEST(threads_are_told_before_they_look)
{
	pthread_t threads[THREADS], changing;
	struct set s;

	open_set(&s);
	atomic_store(&stop, false);
	atomic_store(&changes, 0);
	assert_int_equal(pthread_create(&changing, NULL, change_memory, NULL),
			 0);
	/* All of them first: whoever tells, tells all. */
	for (unsigned int i = 0; i < THREADS; i++)
		users[i] = (struct user){.s = &s};
	for (unsigned int i = 0; i < THREADS; i++)
		assert_int_equal(
			pthread_create(&threads[i], NULL, use, &users[i]), 0);
	for (unsigned int i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(users[i].wrong, 0);
	}
	atomic_store(&stop, true);
	pthread_join(changing, NULL);
	for (unsigned int i = 0; i < THREADS; i++)
		if (users[i].mr)
			end_mr(&s, users[i].mr);
	close_set(&s);
}

int main(void)
{
	return run_cases(NULL, NULL);
}
