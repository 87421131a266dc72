/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fork() beside an allocator that locks itself over it, and whose handlers came
 * after those of the cache that take locks: theirs run first before the fork, and
 * last in the child.
 */
#include "fork.h"
#include "unit.h"

#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECONDS 20

/* Not a mutex, or ThreadSanitizer would say what all this is about. */
static _Atomic bool heap;
/* This thread has it, for a fork. */
static __thread bool has_heap;
/* It asked for memory all the same: that is for ever. */
static __thread bool waits_for_itself;

/* Of another thread, which is to want memory while the heap is locked. */
static struct other {
	struct scene *s;
	_Atomic bool runs, go, waits;
	struct ibv_mr *mr;
} other;
static __thread bool is_other;

static void use_heap(void)
{
	if (has_heap) {
		waits_for_itself = true;
		return;
	}
	if (is_other && !atomic_load(&other.waits)) {
		if (!pthread_mutex_trylock(&other.s->cache->lock)) {
			pthread_mutex_unlock(&other.s->cache->lock);
			return;
		}
		atomic_store(&other.waits, true);
	}
	while (atomic_exchange(&heap, true))
		sched_yield();
	atomic_store(&heap, false);
}

static void use_heap_in_verb(enum fake_call call, enum fake_when when,
			     void *arg)
{
	(void)arg;
	if ((call == FAKE_REG || call == FAKE_DEREG) && when == BEFORE)
		use_heap();
}

static void lock_heap(void)
{
	while (atomic_exchange(&heap, true))
		sched_yield();
	has_heap = true;
	if (atomic_load(&other.runs)) {
		atomic_store(&other.go, true);
		while (!atomic_load(&other.waits))
			sched_yield();
	}
}

static void unlock_heap(void)
{
	has_heap = false;
	atomic_store(&heap, false);
}

static void begin_heap(struct scene *s, unsigned int flags,
		       const struct mrcache_attr *attr)
{
	alarm(patience(SECONDS));
	waits_for_itself = false;
	begin_with(s, flags, attr);
	fake_hook(use_heap_in_verb, NULL);
	fake_on_heap = use_heap;
}

static void finish_heap(struct scene *s)
{
	fake_on_heap = NULL;
	fake_hook(NULL, NULL);
	finish(s);
	alarm(0);
}

/* In a child; the cache is not its own, and free for it. */
static bool child_is_well(struct scene *s, struct ibv_mr *held)
{
	struct mrcache *cache = s->cache;
	unsigned int deregs = fake_calls(FAKE_DEREG);
	struct ibv_mr *mr;

	if (waits_for_itself || pthread_mutex_trylock(&cache->drain_lock) ||
	    pthread_mutex_trylock(&cache->lock))
		return false;
	pthread_mutex_unlock(&cache->lock);
	pthread_mutex_unlock(&cache->drain_lock);
	mr = mrcache_reg_mr(cache, s->pd, page(0), PAGE, LOCAL);
	if (!mr || mr == held || mrcache_dereg_mr(cache, mr) ||
	    fake_calls(FAKE_DEREG) != deregs + 1)
		return false;
	return mrcache_dereg_mr(cache, held) == 0 &&
	       fake_calls(FAKE_DEREG) == deregs + 1 &&
	       mrcache_close(cache) == 0;
}

static void fork_well(struct scene *s, struct ibv_mr *held)
{
	pid_t pid = fork();
	int status = -1;

	if (!pid) {
		alarm(patience(SECONDS));
		_exit(!child_is_well(s, held));
	}
	assert_true(pid > 0);
	assert_true(waitpid(pid, &status, 0) == pid);
	assert_int_equal(status, 0);
	assert_false(waits_for_itself);
}

TEST_BOTH(what_a_fork_ends_may_free_memory)
{
	struct mrcache_attr attr;
	struct ibv_mr *held;
	struct scene s;

	test_attr(&attr);
	begin_heap(&s, flags_of(state), &attr);
	held = reg(&s, 0, 1);
	touch(&s, 100, 16);
	fork_well(&s, held);
	assert_int_equal(stats(&s).fork_releases, 1);
	give(&s, held);
	finish_heap(&s);
}

TEST_BOTH(a_child_frees_nothing_before_it_may)
{
	struct mrcache_attr attr;
	struct ibv_mr *held;
	struct scene s;

	test_attr(&attr);
	attr.reaper = true;
	attr.fork_release = UINT64_MAX;
	begin_heap(&s, flags_of(state) | FAKE_FD, &attr);
	held = reg(&s, 0, 1);
	touch(&s, 100, 16);
	fork_well(&s, held);
	assert_int_equal(stats(&s).fork_releases, 0);
	give(&s, held);
	finish_heap(&s);
}

/* Of a domain that is new to the cache. */
static void *register_meanwhile(void *arg)
{
	struct other *o = arg;

	while (!atomic_load(&o->go))
		sched_yield();
	is_other = true;
	o->mr = mrcache_reg_mr(o->s->cache, fake_pd(5), page(50), PAGE, LOCAL);
	is_other = false;
	return NULL;
}

TEST_BOTH(who_has_the_lock_may_wait_for_memory)
{
	struct mrcache_attr attr;
	struct ibv_mr *held;
	pthread_t thread;
	struct scene s;

	test_attr(&attr);
	begin_heap(&s, flags_of(state), &attr);
	held = reg(&s, 0, 1);
	other.s = &s;
	other.mr = NULL;
	other.go = other.waits = false;
	assert_int_equal(
		pthread_create(&thread, NULL, register_meanwhile, &other), 0);
	other.runs = true;
	fork_well(&s, held);
	other.runs = false;
	pthread_join(thread, NULL);
	assert_non_null(other.mr);
	assert_true(mrcache_valid(s.cache, other.mr));
	give(&s, other.mr);
	give(&s, held);
	/* And the next one, with nobody in the way. */
	touch(&s, 0, 1);
	held = reg(&s, 0, 1);
	fork_well(&s, held);
	give(&s, held);
	finish_heap(&s);
}

int main(void)
{
	/* As of the shim, and of an allocator of the program. */
	mrc_fork_init();
	pthread_atfork(lock_heap, unlock_heap, unlock_heap);
	return run_cases(NULL, NULL);
}
