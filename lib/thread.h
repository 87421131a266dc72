/* SPDX-License-Identifier: BSD-2-Clause */
/* What a thread has in a cache: its record, made at the first use. */
#ifndef MRC_THREAD_H
#define MRC_THREAD_H

#include "hold.h"

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

/* Frees the records of a cache that nobody uses any more. */
void mrc_threads_fini(struct mrcache *cache);

#endif /* MRC_THREAD_H */
