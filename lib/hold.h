/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Holds: each thread counts its own, and only who wants to end a registration
 * adds them up.
 *
 * I4 A hold is counted before it is known to be good. One side writes a count,
 *    then reads `life`; the other writes `life`, then reads the counts. With a
 *    full fence between on both sides at least one of them sees the other.
 *    mrc_fence_light() is that fence on the side that must be fast: no
 *    instruction at all where membarrier() lets mrc_fence_heavy() issue it for
 *    all threads. membarrier() interrupts all processors that run the process,
 *    also threads that never called us, and so it waits for a second thread: a
 *    thread sees its own counts without any fence, and a second one begins to
 *    count after it was entered under the lock (mrc_thread_lookup()), so that
 *    it sees the `life` of all that was doomed before, and all that is doomed
 *    after has the fence.
 */
#ifndef MRC_HOLD_H
#define MRC_HOLD_H

#include "pool.h"

/* Whether the kernel has membarrier(). */
bool mrc_fence_init(void);
/*
 * Registers with membarrier(), which the first heavy fence does otherwise; it
 * may take long in a process of many threads, so not under a lock.
 */
void mrc_fence_prepare(const struct mrcache *cache);
/*
 * (lock) Between what this thread wrote and its look at the counts of others.
 * Nothing at all while it is the only one that ever counted.
 */
void mrc_fence_heavy(struct mrcache *cache);
/*
 * (lock) Whether it would interrupt threads that never called us, as it can be
 * done otherwise: only one thread counts, and it is not this one.
 */
bool mrc_fence_disturbs(const struct mrcache *cache);
/*
 * (no lock) The same that disturbs nobody and takes milliseconds: it waits until
 * all processors have come by; false where that cannot be had.
 */
bool mrc_fence_slow(void);

#ifdef __SANITIZE_THREAD__
/* ThreadSanitizer does not know fences; an exchange is one it understands. */
extern _Atomic int mrc_fence_word;
#endif

static inline void mrc_fence_light(const struct mrcache *cache)
{
#ifdef __SANITIZE_THREAD__
	(void)cache;
	atomic_exchange(&mrc_fence_word, 0);
#else
	if (__builtin_expect(atomic_load_explicit(&cache->expedited,
						  memory_order_relaxed),
			     1))
		atomic_signal_fence(memory_order_seq_cst);
	else
		atomic_thread_fence(
			memory_order_seq_cst); /* as in the heavy one */
#endif
}

/* Makes the counts of a chunk; NULL without memory. */
_Atomic int64_t *mrc_thread_counts(struct mrc_thread *thread,
				   unsigned int chunk);

/* The thread's count of a registration, made if need be; NULL without memory. */
static inline _Atomic int64_t *mrc_thread_count(struct mrc_thread *thread,
						uint32_t number)
{
	uint32_t at;
	unsigned int chunk = mrc_chunk(number, &at);
	_Atomic int64_t *counts;

	if (!thread)
		return NULL;
	counts = atomic_load_explicit(&thread->counts[chunk],
				      memory_order_relaxed);
	if (__builtin_expect(!counts, 0))
		counts = mrc_thread_counts(thread, chunk);
	return counts ? &counts[at] : NULL;
}

/* Counts a hold, of a thread or (count is NULL) of nobody in particular. */
static inline void mr_hold_add(struct mr_hold *hold)
{
	if (__builtin_expect(hold->count != NULL, 1))
		atomic_store_explicit(
			hold->count,
			atomic_load_explicit(hold->count,
					     memory_order_relaxed) +
				1,
			memory_order_relaxed);
	else
		atomic_fetch_add(&hold->mr->handed, 1);
}

/*
 * Gives one back; release, so that its use comes before deregistration. True if
 * that use of mr is over, and the caller must call mr_finish().
 */
static inline bool mr_hold_sub(struct mrcache *cache, struct mr_hold *hold)
{
	if (__builtin_expect(hold->count != NULL, 1))
		/* Pairs with the acquire in read_count(). */
		atomic_store_explicit(
			hold->count,
			atomic_load_explicit(hold->count,
					     memory_order_relaxed) -
				1,
			memory_order_release);
	else
		atomic_fetch_sub(&hold->mr->handed, 1);
	mrc_fence_light(cache);
	/* Pairs with the fence in begin_sweep(). */
	if (__builtin_expect(atomic_load_explicit(&cache->all_held,
						  memory_order_relaxed),
			     0))
		atomic_store_explicit(&cache->all_held, false,
				      memory_order_relaxed);
	return atomic_load_explicit(&hold->mr->life, memory_order_acquire) !=
	       hold->life;
}

/* Counts a hold of what was seen to serve, then checks that it does (I4). */
static inline bool mr_hold_if_usable(struct mrcache *cache,
				     struct mr_hold *hold)
{
	mr_hold_add(hold);
	mrc_fence_light(cache);
	return mr_is_usable(cache, hold->mr, hold->life);
}

/*
 * Holds in all threads; see hold.c for when the sum is exact. (lock), or a guess
 * of one that is LIVE.
 */
int64_t mr_holds(struct mrcache *cache, struct mr *mr);

/*
 * (no lock) The same guess, whether it is above zero. No thread's count is
 * negative, so one that outweighs `handed` will do, and mostly it is that of the
 * thread that was seen to hold it last.
 */
bool mr_seems_held(struct mrcache *cache, struct mr *mr);

/* (lock) Whether anybody holds it. Exact for DOOMED ones, else a guess. */
bool mr_is_held(struct mrcache *cache, struct mr *mr);

/*
 * Whether there is a hold to give back, without adding up: no thread's count is
 * negative, so one above zero means a hold unless another thread gave it back.
 */
static inline bool mr_is_surely_held(const struct mr *mr,
				     const _Atomic int64_t *count)
{
	return atomic_load_explicit(count, memory_order_relaxed) > 0 &&
	       atomic_load_explicit(&mr->handed, memory_order_relaxed) >= 0;
}

/* (lock) The counts of a thread that has ended go to the registrations. */
void mrc_thread_fold(struct mrcache *cache, struct mrc_thread *thread);

#endif /* MRC_HOLD_H */
