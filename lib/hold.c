/* SPDX-License-Identifier: BSD-2-Clause */
#include "hold.h"

#include <linux/membarrier.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* ---- fences --------------------------------------------------------------- */

#ifdef __SANITIZE_THREAD__
_Atomic int mrc_fence_word;
#endif

bool mrc_fence_init(void)
{
#ifdef __SANITIZE_THREAD__
	return false;
#else
	long has = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);

	return has > 0 && (has & MEMBARRIER_CMD_PRIVATE_EXPEDITED);
#endif
}

void mrc_fence_prepare(const struct mrcache *cache)
{
	if (atomic_load_explicit(&cache->expedited, memory_order_relaxed))
		syscall(SYS_membarrier,
			MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
}

/*
 * membarrier() was there when the cache was opened and is forbidden now (seccomp).
 * From here on each hold has a fence of its own. A thread that is just counting
 * one without is over it long before this ends: what it stored leaves the
 * processor's buffer by itself, or with the thread when that is preempted.
 */
#ifndef __SANITIZE_THREAD__
static bool is_alone(const struct mrcache *cache)
{
	return cache->users == MRC_NOBODY ||
	       (cache->users == MRC_ONE &&
		pthread_equal(cache->sole, pthread_self()));
}

static bool expedite(void)
{
	for (int i = 0; i < 2; i++) {
		if (!syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED,
			     0, 0))
			return true;
		/* EPERM: not registered yet. */
		if (syscall(SYS_membarrier,
			    MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0))
			break;
	}
	return false;
}

static void lose_membarrier(struct mrcache *cache)
{
	struct timespec left = {.tv_nsec = 50000000};

	atomic_store(&cache->expedited, false);
	while (nanosleep(&left, &left))
		;
}
#endif

void mrc_fence_heavy(struct mrcache *cache)
{
#ifdef __SANITIZE_THREAD__
	(void)cache;
	atomic_exchange(&mrc_fence_word, 0);
#else
	if (is_alone(cache))
		return;
	/* Pairs with mrc_fence_light() in every thread. */
	if (atomic_load_explicit(&cache->expedited, memory_order_relaxed)) {
		if (expedite())
			return;
		lose_membarrier(cache);
	}
	atomic_thread_fence(memory_order_seq_cst);
#endif
}

bool mrc_fence_disturbs(const struct mrcache *cache)
{
	return cache->users == MRC_ONE &&
	       !pthread_equal(cache->sole, pthread_self()) &&
	       atomic_load_explicit(&cache->expedited, memory_order_relaxed);
}

bool mrc_fence_slow(void)
{
	return !syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0);
}

/* ---- counts --------------------------------------------------------------- */

_Atomic int64_t *mrc_thread_counts(struct mrc_thread *thread,
				   unsigned int chunk)
{
	_Atomic int64_t *counts =
		calloc(mrc_chunk_size(chunk), sizeof(*counts));

	/* Pairs with the acquire in read_count(). */
	if (counts)
		atomic_store_explicit(&thread->counts[chunk], counts,
				      memory_order_release);
	return counts;
}

/* A thread's count now, by any thread. */
static int64_t read_count(struct mrc_thread *thread, uint32_t number)
{
	uint32_t at;
	unsigned int chunk = mrc_chunk(number, &at);
	_Atomic int64_t *counts = atomic_load_explicit(&thread->counts[chunk],
						       memory_order_acquire);

	return counts ? atomic_load_explicit(&counts[at], memory_order_acquire)
		      : 0;
}

/*
 * The sum of the holds. For a LIVE one it may be out of date. For a DOOMED one,
 * after mr_sift()'s fence and under the lock, it is never too small: no hold is
 * added that lasts, and one given back meanwhile calls mr_finish(), which sums
 * again (tests/model/hold.pml). `handed` comes first for the sake of a LIVE one
 * that another thread registered: what was taken from handed had been counted
 * by then, so a hold that exists is not overlooked.
 */
int64_t mr_holds(struct mrcache *cache, struct mr *mr)
{
	int64_t holds = atomic_load_explicit(&mr->handed, memory_order_acquire);
	struct mrc_thread *thread =
		atomic_load_explicit(&cache->threads, memory_order_acquire);

	for (; thread; thread = thread->next)
		holds += read_count(thread, mr->number);
	return holds;
}

bool mr_seems_held(struct mrcache *cache, struct mr *mr)
{
	/* First, as in mr_holds(). */
	int64_t handed =
		atomic_load_explicit(&mr->handed, memory_order_acquire);
	_Atomic int64_t *holder =
		atomic_load_explicit(&mr->holder, memory_order_acquire);
	struct mrc_thread *thread;
	int64_t holds = handed, most = 0;

	if (holder &&
	    handed + atomic_load_explicit(holder, memory_order_acquire) > 0)
		return true;
	thread = atomic_load_explicit(&cache->threads, memory_order_acquire);
	for (; thread; thread = thread->next) {
		int64_t count = read_count(thread, mr->number);

		holds += count;
		if (count > most) {
			most = count;
			holder = mrc_thread_count(thread, mr->number);
		}
	}
	if (most)
		atomic_store_explicit(&mr->holder, holder,
				      memory_order_release);
	return holds > 0;
}

bool mr_is_held(struct mrcache *cache, struct mr *mr)
{
	return mr_holds(cache, mr) > 0;
}

/*
 * Moves the counts of a thread that has ended to the registrations. Under the
 * cache lock, so that nobody adds up a count that is in neither or both places
 * and acts on it.
 */
void mrc_thread_fold(struct mrcache *cache, struct mrc_thread *thread)
{
	for (unsigned int chunk = 0; chunk < MRC_CHUNKS; chunk++) {
		_Atomic int64_t *counts = atomic_load(&thread->counts[chunk]);
		struct mr *mrs = atomic_load(&cache->chunks[chunk]);

		for (size_t i = 0; counts && i < mrc_chunk_size(chunk); i++) {
			int64_t count = atomic_load(&counts[i]);

			if (count) {
				atomic_fetch_add(&mrs[i].handed, count);
				atomic_store(&counts[i], 0);
			}
		}
	}
}
