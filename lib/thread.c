/* SPDX-License-Identifier: BSD-2-Clause */
/* Threads' records: made at first use, folded and reused when the thread ends. */
#include "thread.h"

#include "cancel.h"

#include <stdlib.h>

__thread struct mrc_current mrc_current;

/* A thread's records in all caches, so that its end finds them. */
struct record {
	struct mrcache *cache; /* not freed while a record names it */
	struct mrc_thread *thread;
	struct record *next;
};

static __thread struct record *records;
static pthread_key_t key;
static bool key_made;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* The cache may be freed from here on. */
static void forget(struct record *record)
{
	/* Pairs with the acquire in mrc_fork_unregister(). */
	atomic_fetch_sub_explicit(&record->cache->records, 1,
				  memory_order_release);
	free(record);
}

/* Forgets the caches that were closed; the first of the list stays where it is. */
static void forget_closed(void)
{
	struct record **link = records ? &records->next : NULL;

	while (link && *link) {
		struct record *record = *link;

		if (atomic_load(&record->cache->open)) {
			link = &record->next;
			continue;
		}
		*link = record->next;
		if (mrc_current.cache == record->cache)
			mrc_current = (struct mrc_current){NULL, NULL};
		forget(record);
	}
}

static void thread_ends(void *list)
{
	struct record *record = list;

	while (record) {
		struct record *next = record->next;
		struct mrcache *cache = record->cache;

		if (atomic_load(&cache->open)) {
			pthread_mutex_lock(&cache->lock);
			/* A closed cache has freed its records. */
			if (atomic_load(&cache->open)) {
				mrc_thread_fold(cache, record->thread);
				record->thread->in_use = false;
			}
			pthread_mutex_unlock(&cache->lock);
		}
		forget(record);
		record = next;
	}
	records = NULL;
	mrc_current = (struct mrc_current){NULL, NULL};
}

static void make_key(void)
{
	key_made = !pthread_key_create(&key, thread_ends);
}

/*
 * The library may be unloaded before threads end that used it: then nothing is
 * to be called, and their records are lost. At the end of the process, which
 * also comes here, other threads may go on; they have no records from now on.
 */
static __attribute__((destructor)) void forget_key(void)
{
	if (key_made)
		pthread_key_delete(key);
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

/* (lock) This thread is about to count; without a record, in `handed`. */
static void enter(struct mrcache *cache, const struct mrc_thread *thread)
{
	if (!thread || cache->thread_count > 1) {
		cache->users = MRC_MANY;
	} else if (cache->users != MRC_MANY) {
		cache->users = MRC_ONE;
		cache->sole = pthread_self();
	}
}

/* This thread counts in `handed`, where there is no memory for a record. */
static struct mrc_thread *enter_without(struct mrcache *cache)
{
	pthread_mutex_lock(&cache->lock);
	enter(cache, NULL);
	pthread_mutex_unlock(&cache->lock);
	return NULL;
}

struct mrc_thread *mrc_thread_lookup(struct mrcache *cache)
{
	MRC_NOT_CANCELLED;
	struct record *record;
	bool alone;

	for (record = records; record; record = record->next)
		if (record->cache == cache)
			goto found;

	/* A child needs none, and the lock may be locked for ever there. */
	if (!mrc_is_owner(cache))
		return NULL;
	pthread_once(&once, make_key);
	record = key_made ? malloc(sizeof(*record)) : NULL;
	if (!record)
		return enter_without(cache);
	pthread_mutex_lock(&cache->lock);
	record->thread = get_thread(cache);
	enter(cache, record->thread);
	alone = cache->users != MRC_MANY;
	pthread_mutex_unlock(&cache->lock);
	if (!alone)
		mrc_fence_prepare(cache);
	record->cache = cache;
	record->next = records;
	atomic_fetch_add_explicit(&cache->records, 1, memory_order_relaxed);
	if (!record->thread || pthread_setspecific(key, record)) {
		if (record->thread) {
			pthread_mutex_lock(&cache->lock);
			record->thread->in_use = false;
			pthread_mutex_unlock(&cache->lock);
		}
		forget(record);
		return enter_without(cache);
	}
	records = record;
	forget_closed();
found:
	mrc_current = (struct mrc_current){cache, record->thread};
	return record->thread;
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
