/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a thread has in a cache: counts of holds, and what it used recently.
 *
 * I4 A hold is counted before it is known to be good. One side writes a count,
 *    then reads `life`; the other writes `life`, then reads the counts. With a
 *    full fence between on both sides at least one of them sees the other.
 *    fence_light() is that fence on the side that must be fast: no instruction
 *    at all where membarrier() lets fence_heavy() issue it for all threads.
 */
#ifndef MRC_THREAD_H
#define MRC_THREAD_H

#include "mrcache_int.h"

/* The cache this thread used last, and its record there. */
struct mrc_current {
	struct mrcache *cache;
	struct mrc_thread *thread;
};
extern __thread struct mrc_current mrc_current
	__attribute__((tls_model("initial-exec"), visibility("hidden")));

/* Finds or makes this thread's record; NULL if there is no memory. */
struct mrc_thread *mrc_thread_lookup(struct mrcache *cache);

static inline struct mrc_thread *mrc_thread(struct mrcache *cache)
{
	if (__builtin_expect(mrc_current.cache == cache, 1))
		return mrc_current.thread;
	return mrc_thread_lookup(cache);
}

/* The same for the cache used last, if that is open; else NULL. */
static inline struct mrc_thread *mrc_thread_known(const struct mrcache *cache)
{
	struct mrc_thread *thread = mrc_current.thread;

	/* With a thread, mrc_current.cache is not NULL. */
	if (__builtin_expect(thread && mrc_current.cache == cache &&
				     atomic_load_explicit(&cache->open,
							  memory_order_relaxed),
			     1))
		return thread;
	return NULL;
}

/* A thread's count now, by any thread. */
int64_t mrc_thread_read(struct mrc_thread *thread, uint32_t number);

/* Frees the records of a cache that nobody uses any more. */
void mrc_threads_fini(struct mrcache *cache);

/* Registers with membarrier(); false where the kernel has none. */
bool mrc_fence_init(void);
void mrc_fence_heavy(const struct mrcache *cache);

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
	if (__builtin_expect(cache->expedited, 1))
		atomic_signal_fence(memory_order_seq_cst);
	else
		atomic_thread_fence(
			memory_order_seq_cst); /* as in the heavy one */
#endif
}

/* Where a number's chunk is, and its place there. */
static inline unsigned int mrc_chunk(uint32_t number, uint32_t *at)
{
	uint32_t scaled = number / MRC_CHUNK_FIRST + 1;
	unsigned int chunk = 31 - (unsigned int)__builtin_clz(scaled);

	*at = number - ((1u << chunk) - 1) * MRC_CHUNK_FIRST;
	return chunk;
}

static inline size_t mrc_chunk_size(unsigned int chunk)
{
	return (size_t)MRC_CHUNK_FIRST << chunk;
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

/*
 * Where in a table a key has its place (Fibonacci hashing: keys at regular
 * distances, as buffers and ibv_mrs often are, spread evenly).
 */
static inline struct mrc_recent *mrc_recent(struct mrc_recent *table,
					    uint64_t key)
{
	return &table[key * UINT64_C(0x9e3779b97f4a7c15) >>
		      (64 - MRC_RECENT_BITS)];
}

#endif /* MRC_THREAD_H */
