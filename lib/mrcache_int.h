/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The cache's own structures. The argument why they are right is in
 * docs/design.md; invariants are referred to by their numbers there (I1 ...).
 */
#ifndef MRC_INT_H
#define MRC_INT_H

#include "counters.h"
#include "index.h"
#include "monitor.h"
#include "mrcache.h"
#include "verbs.h"

#include <pthread.h>
#include <stdatomic.h>

/* Without memory for a table uthash would end the program. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>
#include <utlist.h>

/*
 * Numbers of registrations and threads' counts of them are kept in chunks that
 * double, so that nothing ever moves.
 */
#define MRC_CHUNKS	20
#define MRC_CHUNK_FIRST 1024u

enum mr_state {
	MR_FREE,      /* in the pool */
	MR_BUSY,      /* belongs to the thread that registers it */
	MR_LIVE,      /* in the index: may be found and held */
	MR_DOOMED,    /* held, not to be found again; ends with the last put */
	MR_RELEASING, /* belongs to the thread that deregisters it */
};

/*
 * One registration. The structure is never freed before the cache is closed,
 * so that its address may serve as the monitor's cookie and a reader without a
 * lock may look at one that has been reused.
 *
 * I1 `life` is odd exactly while the state is MR_LIVE. It only grows, and by
 *    at least 3 from one use to the next, so (mr, odd life) names one use.
 * I2 What a reader compares is written only while life is even, and a reader
 *    believes it only if life is the same odd number before and after.
 * I3 An mr that anybody holds is not MR_FREE or MR_BUSY, and not
 *    MR_RELEASING unless by the one who gave back the last hold.
 */
struct mr {
	_Alignas(64) _Atomic uint64_t life;
	_Atomic uintptr_t start;
	_Atomic size_t length;
	_Atomic(struct ibv_pd *) pd;
	_Atomic(struct ibv_mr *) ibv;
	_Atomic int access;
	_Atomic uint32_t slot;	/* of the state word */
	_Atomic uint32_t armed; /* the state word while untouched */
	/*
	 * Rounds of the clock it survives idle: 1 when new, 2 after each hit, so
	 * that what is used again outlives what just passes by.
	 */
	_Atomic uint8_t referenced;

	/* Holds not counted in a thread's own counts; may be negative. */
	_Atomic int64_t handed;

	/* Under the cache lock, or of the owner while BUSY or RELEASING: */
	uint32_t number;
	enum mr_state state;
	bool watched;	/* the monitor knows it */
	bool accounted; /* counted in the cache's regs and bytes */
	bool hit;	/* reported by the monitor while BUSY */
	bool stale;	/* DOOMED because its memory changed */
	bool uncached;	/* handed out once, never LIVE */
	struct mrc_pd *pd_entry;
	struct mr *prev, *next; /* in pd_entry->mrs */
	struct mr *link; /* in the pool, or a list of doomed or releasing */
};

/* The registrations of one pd; under the cache lock. */
struct mrc_pd {
	struct ibv_pd *pd;
	/* Of the pd, which may be freed while a lost registration names it. */
	const struct ibv_context *context;
	uint32_t handle;
	struct mr *mrs;
	UT_hash_handle hh;
};

/*
 * A registration that a thread used recently, and the thread's count of it. It
 * is only a guess where to look: whether it serves is asked of the registration
 * itself, as of one that the index names.
 */
struct mrc_recent {
	struct mr *mr;
	_Atomic int64_t *count; /* NULL: empty */
};

#define MRC_RECENT_BITS 11

/*
 * What one thread has in one cache. Written by that thread alone, except that
 * a record whose thread has ended is folded and reused under the cache lock.
 * counts[] are read by others under the cache lock (and mr_holds()).
 */
struct mrc_thread {
	_Alignas(64) _Atomic(_Atomic int64_t *) counts[MRC_CHUNKS];
	_Atomic uint64_t *hits;	 /* in mrc_counters, or own_hits; immutable */
	struct mrc_thread *next; /* immutable once linked */
	_Atomic uint64_t own_hits;
	bool in_use;	    /* under the cache lock */
	unsigned int order; /* of the last hit by containment */
	/* See mrc_recent(). Two, or one would push out the other's. */
	struct mrc_recent ranges[1u << MRC_RECENT_BITS]; /* asked for */
	struct mrc_recent ibvs[1u << MRC_RECENT_BITS];	 /* and given */
};

/*
 * Alone on a page that the kernel zeroes in a fork child (MADV_WIPEONFORK), so
 * that no hit is possible there, however the child was made. Written rarely.
 */
struct mrc_hot {
	_Atomic uint64_t drained; /* generation + 1 up to which all is doomed */
	uint64_t quiet;		  /* mrcache_head::quiet; 0 while stale_held */
	uint64_t alive;		  /* 1, and 0 in a child */
};

/*
 * Lock order: registry lock (mrcache.c), drain_lock, lock. No lock is held while
 * a verb or a monitor call runs, except drain_lock during the monitor's
 * read(): deregistering frees memory, which is an invalidation, whose reader
 * may need those locks. The log callback runs without locks as well.
 */
struct mrcache {
	/* Read by every hit; written at open and close only. */
	struct mrcache_head head;
	struct mrc_hot *hot;
	const uint32_t *states;
	_Atomic bool open;
	bool expedited; /* membarrier works: fences are one-sided (I4) */
	bool contain;
	struct mrc_monitor *monitor; /* or NULL */
	struct mrcache_attr attr;
	const struct mrc_verbs *verbs;
	bool fork_unneeded;    /* fork support can never be in effect */
	_Atomic uint64_t said; /* mrc_once(): what was said already */

	struct mrc_index by_range; /* only MR_LIVE */
	struct mrc_index by_ibv;   /* MR_LIVE, MR_DOOMED */
	_Atomic uint64_t orders; /* bit n: a registration of order n was made */

	_Alignas(64) pthread_mutex_t drain_lock; /* one drain at a time */

	_Alignas(64) pthread_mutex_t lock;     /* all down to released */
	_Atomic(struct mrc_thread *) threads;  /* push only; read without */
	struct mr *_Atomic chunks[MRC_CHUNKS]; /* read without */
	uint32_t made;	      /* registrations in the chunks so far */
	struct mr *free;      /* by ->link */
	struct mrc_pd *pds;   /* uthash */
	uint32_t clock;	      /* where eviction goes on */
	uint64_t regs, bytes; /* accounted */
	uint32_t thread_count;
	pthread_cond_t released; /* a RELEASING one is gone */

	struct mrc_counters *counters;

	struct mrc_reaper *reaper;
	struct mrcache *next; /* registry */
};

/*
 * mrcache_open() with verbs given, and with counters in shared memory
 * (munmap()ed at close; NULL: private memory).
 */
struct mrcache *mrc_open_device(const struct mrcache_attr *attr,
				const struct mrc_verbs *verbs,
				struct mrc_counters *counters);

/*
 * The innermost: attr is complete, monitor (or NULL) is taken over, also on
 * failure. NULL and errno.
 */
struct mrcache *mrc_open_with(const struct mrcache_attr *attr,
			      struct mrc_monitor *monitor,
			      const struct mrc_verbs *verbs,
			      struct mrc_counters *counters);
static inline struct mrcache *mrc_open(const struct mrcache_attr *attr,
				       struct mrc_monitor *monitor,
				       const struct mrc_verbs *verbs)
{
	return mrc_open_with(attr, monitor, verbs, NULL);
}

/*
 * mrcache_flush() of all protection domains that match. It returns when those
 * that others are deregistering are gone, too, so that what they belong to can
 * be freed.
 */
typedef bool mrc_match_fn(const struct mrc_pd *pd, const void *arg);
int mrc_flush_matching(struct mrcache *cache, mrc_match_fn *match,
		       const void *arg);

/*
 * mrcache_dereg_mr(), but with nothing said -ENOENT for an ibv_mr that did not
 * come from this cache, and -EINVAL for one that is not held.
 */
int mrc_dereg_mr(struct mrcache *cache, struct ibv_mr *ibv);

/*
 * Makes ibv, which the caller holds, its own, so that it may be changed:
 * 0; -EBUSY if others hold it, too; -ENOENT if the cache does not know it.
 */
int mrc_unshare(struct mrcache *cache, const struct ibv_mr *ibv);

static inline void mrc_add(struct mrcache *cache, enum mrc_stat stat,
			   uint64_t n)
{
	atomic_fetch_add_explicit(&cache->counters->counts[stat], n,
				  memory_order_relaxed);
}

static inline void mrc_count(struct mrcache *cache, enum mrc_stat stat)
{
	mrc_add(cache, stat, 1);
}

/* One of those that change under the lock only. */
static inline uint64_t mrc_get(const struct mrcache *cache, enum mrc_stat stat)
{
	return atomic_load_explicit(&cache->counters->counts[stat],
				    memory_order_relaxed);
}

/* The monitor's counter. Pairs with its release of it. */
static inline uint64_t mrc_generation(const struct mrcache *cache)
{
	return __atomic_load_n(cache->head.generation, __ATOMIC_ACQUIRE);
}

/* config.c: attr with the environment applied and checked, 0 or -EINVAL (said). */
int mrc_config(struct mrcache_attr *attr);
/* The name of the nth environment variable it looks at, or NULL. */
const char *mrc_config_variable(size_t n);

/* log.c: errno is preserved. */
void mrc_log(const struct mrcache_attr *attr, enum mrcache_log_level level,
	     const char *format, ...) __attribute__((format(printf, 3, 4)));

/* reaper.c */
int mrc_reaper_start(struct mrcache *cache);
void mrc_reaper_stop(struct mrcache *cache);
/*
 * The same when the process ends, but waits a second at most: exit() may have
 * been called by a signal handler over a holder of the locks.
 */
void mrc_reaper_leave(struct mrcache *cache);
/* In a fork child, where the thread does not exist. */
void mrc_reaper_forget(struct mrcache *cache);

/*
 * drain.c: reads the monitor's events until there are none, and dooms what
 * they name. False if the monitor failed. With `wait` false returns (true) at
 * once if another thread is at it.
 */
bool mrc_drain(struct mrcache *cache, bool wait);
/* To be called twice in attr.linger: ends what lingered. */
void mrc_linger(struct mrcache *cache);

/*
 * Whether this process is the one that opened the cache, and not a child of
 * it, which must touch nothing of the parent's.
 */
static inline bool mrc_is_owner(const struct mrcache *cache)
{
	return __atomic_load_n(&cache->hot->alive, __ATOMIC_RELAXED);
}

static inline bool mrc_is_open(const struct mrcache *cache)
{
	return cache &&
	       atomic_load_explicit(&cache->open, memory_order_relaxed);
}

/* Says a line only the first time for this cache. */
enum mrc_once {
	ONCE_BYPASS, /* and MRCACHE_BYPASS_REASONS more */
	ONCE_MONITOR = ONCE_BYPASS + MRCACHE_BYPASS_REASONS,
	ONCE_DEREG,
};
bool mrc_once(struct mrcache *cache, unsigned int what);

/* Counts a registration that is passed through, and says it once. */
void mrc_count_bypass(struct mrcache *cache, enum mrcache_bypass reason);

#endif /* MRC_INT_H */
