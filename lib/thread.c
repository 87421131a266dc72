/* SPDX-License-Identifier: BSD-2-Clause */
/* Threads' records: made at first use, folded and reused when the thread ends. */
#include "thread.h"

#include <linux/membarrier.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

__thread struct mrc_current mrc_current;

/* A thread's records in all caches, so that its end finds them. */
struct record {
	struct mrcache *cache; /* never freed, so the address stays its name */
	struct mrc_thread *thread;
	struct record *next;
};

static __thread struct record *records;
static pthread_key_t key;
static bool key_made;
static pthread_once_t once = PTHREAD_ONCE_INIT;

#ifdef __SANITIZE_THREAD__
_Atomic int mrc_fence_word;
#endif

bool mrc_fence_init(void)
{
#ifdef __SANITIZE_THREAD__
	return false;
#else
	return !syscall(SYS_membarrier,
			MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
#endif
}

void mrc_fence_heavy(const struct mrcache *cache)
{
#ifdef __SANITIZE_THREAD__
	(void)cache;
	atomic_exchange(&mrc_fence_word, 0);
#else
	/* Pairs with mrc_fence_light() in every thread. */
	if (cache->expedited)
		syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
	else
		atomic_thread_fence(memory_order_seq_cst);
#endif
}

/*
 * Moves the counts of a thread that has ended to the registrations. Under the
 * cache lock, so that nobody adds up a count that is in neither or both places
 * and acts on it.
 */
static void fold(struct mrcache *cache, struct mrc_thread *thread)
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

static void thread_ends(void *list)
{
	struct record *record = list;

	while (record) {
		struct record *next = record->next;
		struct mrcache *cache = record->cache;

		pthread_mutex_lock(&cache->lock);
		/* A closed cache has freed its records. */
		if (atomic_load(&cache->open)) {
			fold(cache, record->thread);
			record->thread->in_use = false;
		}
		pthread_mutex_unlock(&cache->lock);
		free(record);
		record = next;
	}
	records = NULL;
	mrc_current = (struct mrc_current){NULL, NULL};
}

static void make_key(void)
{
	key_made = !pthread_key_create(&key, thread_ends);
}

/* A record that no thread uses, or a new one. Under the cache lock. */
static struct mrc_thread *get_thread(struct mrcache *cache)
{
	struct mrc_thread *thread;

	for (thread = atomic_load(&cache->threads); thread;
	     thread = thread->next)
		if (!thread->in_use)
			break;
	if (!thread) {
		thread = aligned_alloc(_Alignof(struct mrc_thread),
				       sizeof(*thread));
		if (!thread)
			return NULL;
		*thread = (struct mrc_thread){
			.next = atomic_load(&cache->threads)};
		thread->hits =
			cache->thread_count < MRC_COUNTED_THREADS
				? &cache->counters->threads[cache->thread_count]
					   .hits
				: &thread->own_hits;
		cache->thread_count++;
		/* Pairs with the acquire of who adds up counts or statistics. */
		atomic_store_explicit(&cache->threads, thread,
				      memory_order_release);
	}
	thread->in_use = true;
	return thread;
}

struct mrc_thread *mrc_thread_lookup(struct mrcache *cache)
{
	struct record *record;

	for (record = records; record; record = record->next)
		if (record->cache == cache)
			goto found;

	/* A child needs none, and the lock may be locked for ever there. */
	if (!mrc_is_owner(cache))
		return NULL;
	pthread_once(&once, make_key);
	record = key_made ? malloc(sizeof(*record)) : NULL;
	if (!record)
		return NULL;
	pthread_mutex_lock(&cache->lock);
	record->thread = get_thread(cache);
	pthread_mutex_unlock(&cache->lock);
	record->cache = cache;
	record->next = records;
	if (!record->thread || pthread_setspecific(key, record)) {
		if (record->thread) {
			pthread_mutex_lock(&cache->lock);
			record->thread->in_use = false;
			pthread_mutex_unlock(&cache->lock);
		}
		free(record);
		return NULL;
	}
	records = record;
found:
	mrc_current = (struct mrc_current){cache, record->thread};
	return record->thread;
}

_Atomic int64_t *mrc_thread_counts(struct mrc_thread *thread,
				   unsigned int chunk)
{
	_Atomic int64_t *counts =
		calloc(mrc_chunk_size(chunk), sizeof(*counts));

	/* Pairs with the acquire in mrc_thread_read(). */
	if (counts)
		atomic_store_explicit(&thread->counts[chunk], counts,
				      memory_order_release);
	return counts;
}

int64_t mrc_thread_read(struct mrc_thread *thread, uint32_t number)
{
	uint32_t at;
	unsigned int chunk = mrc_chunk(number, &at);
	_Atomic int64_t *counts = atomic_load_explicit(&thread->counts[chunk],
						       memory_order_acquire);

	return counts ? atomic_load_explicit(&counts[at], memory_order_acquire)
		      : 0;
}

void mrc_threads_fini(struct mrcache *cache)
{
	struct mrc_thread *thread = atomic_load(&cache->threads);

	while (thread) {
		struct mrc_thread *next = thread->next;

		for (unsigned int chunk = 0; chunk < MRC_CHUNKS; chunk++)
			free((void *)atomic_load(&thread->counts[chunk]));
		free(thread);
		thread = next;
	}
	atomic_store(&cache->threads, NULL);
}
