/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A thread that is to be cancelled ends between calls of the library, not in
 * them: whatever it is doing there, at every call of a verb, of the monitor or
 * of the system, no lock stays locked and no registration half made.
 */
#include "unit.h"

#include <sys/wait.h>
#include <unistd.h>

struct job {
	struct scene s;
	void (*prepare)(struct job *job);
	void (*act)(struct job *job);
	struct ibv_mr *mr;
	unsigned int nth, came; /* which call is the cancellation point */
	bool acted;
};

/* Any call may be one: read() is, and what providers do. */
static void cancellation_point(enum fake_call call, enum fake_when when,
			       void *arg)
{
	struct job *job = arg;

	(void)call, (void)when;
	if (++job->came == job->nth)
		pthread_testcancel();
}

static void *act(void *arg)
{
	struct job *job = arg;
	int state;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	pthread_cancel(pthread_self());
	fake_hook(cancellation_point, job);
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state);
	job->act(job);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	fake_hook(NULL, NULL);
	job->acted = true;
	return NULL;
}

static void nothing(struct job *job)
{
	(void)job;
}

static void register_one(struct job *job)
{
	job->mr = mrcache_reg_mr(job->s.cache, job->s.pd, page(0), PAGE, LOCAL);
}

static void register_changed(struct job *job)
{
	touch(&job->s, 0, 1);
	fake_change(page(0), PAGE);
}

static void hold_and_doom(struct job *job)
{
	register_one(job);
	fake_change(page(0), PAGE);
	touch(&job->s, 1, 1); /* drains */
}

static void give_back(struct job *job)
{
	mrcache_dereg_mr(job->s.cache, job->mr);
	job->mr = NULL;
}

static void hold_uncached(struct job *job)
{
	fake_fail(FAKE_WATCH, 1, 1, ENOSPC);
	register_one(job);
	fake_fail(FAKE_WATCH, 1, 0, 0);
}

static void flush(struct job *job)
{
	mrcache_flush(job->s.cache, NULL);
}

static void ask(struct job *job)
{
	mrcache_valid(job->s.cache, job->mr);
}

static void invalidate(struct job *job)
{
	mrcache_invalidate(job->s.cache, page(0), PAGE);
}

static void others_can_go_on(struct job *job)
{
	assert_int_equal(pthread_mutex_trylock(&job->s.cache->drain_lock), 0);
	assert_int_equal(pthread_mutex_trylock(&job->s.cache->lock), 0);
	pthread_mutex_unlock(&job->s.cache->lock);
	pthread_mutex_unlock(&job->s.cache->drain_lock);
	/* fork() takes the locks of closed caches, too: more than TSan can count. */
#ifndef __SANITIZE_THREAD__
	int status;
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
#endif
	touch(&job->s, 0, 1);
}

/* Every call on the way, one after the other, is the point. */
static void is_not_cancelled_inside(unsigned int flags,
				    void (*prepare)(struct job *job),
				    void (*act_)(struct job *job))
{
	unsigned int came;

	for (unsigned int nth = 1;; nth++) {
		struct job job = {.prepare = prepare, .act = act_, .nth = nth};

		begin(&job.s, flags);
		job.prepare(&job);
		in_thread(act, &job);
		assert_true(job.acted);
		others_can_go_on(&job);
		if (job.mr)
			give(&job.s, job.mr);
		finish(&job.s);
		came = job.came;
		if (came < nth)
			break;
	}
}

#define IS_NOT_CANCELLED_INSIDE(name, prepare, act)                     \
	TEST_BOTH(name)                                                 \
	{                                                               \
		is_not_cancelled_inside(flags_of(state), prepare, act); \
	}

IS_NOT_CANCELLED_INSIDE(a_new_registration, nothing, register_one)
IS_NOT_CANCELLED_INSIDE(a_changed_one, register_changed, register_one)
IS_NOT_CANCELLED_INSIDE(giving_back_the_last_of_a_stale_one, hold_and_doom,
			give_back)
IS_NOT_CANCELLED_INSIDE(giving_back_what_was_not_cached, hold_uncached,
			give_back)
IS_NOT_CANCELLED_INSIDE(a_flush, register_changed, flush)
IS_NOT_CANCELLED_INSIDE(a_question, hold_and_doom, ask)
IS_NOT_CANCELLED_INSIDE(an_invalidation, register_changed, invalidate)

int main(void)
{
	return run_cases(NULL, NULL);
}
