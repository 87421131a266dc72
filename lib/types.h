/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The cache's own structures, and what may be asked of them with one load. The
 * argument why they are right is in docs/design.md; invariants are referred to
 * by their numbers there (I1 ...).
 */
#ifndef MRC_TYPES_H
#define MRC_TYPES_H

#include "counters.h"
#include "index.h"
#include "monitor.h"
#include "mrcache-transport.h"
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

/* Access that may be wider than asked for; and what must never be. */
#define MRC_LOCAL_ACCESS IBV_ACCESS_LOCAL_WRITE
#define MRC_REMOTE_ACCESS                                   \
	(IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | \
	 IBV_ACCESS_REMOTE_ATOMIC)

/*
 * In mr->access and in what is asked for, and known to no verb: cached with
 * remote access because its callers asked for that (MRCACHE_REG_REMOTE) where
 * others' registrations are not. So neither is ever given the other's.
 */
#define MRC_ASKED_REMOTE (1 << 30)

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
	_Atomic bool hit;	/* told to be invalid while BUSY */
	_Atomic bool has_print; /* it can be verified (verify.c) */

	/* Under the cache lock, or of the owner while BUSY or RELEASING: */
	bool watched : 1;   /* the monitor knows it */
	bool accounted : 1; /* counted in the cache's regs and bytes */
	bool stale : 1;	    /* DOOMED because its memory changed */
	bool uncached : 1;  /* handed out once, never LIVE */
	bool aside : 1;	    /* DOOMED and in mrcache::aside */

	/* Holds not counted in a thread's own counts; may be negative. */
	_Atomic int64_t handed;
	/* A guess: the count of the thread that holds it. See mr_seems_held(). */
	_Atomic(_Atomic int64_t *) holder;

	/* Under the cache lock, or of the owner while BUSY or RELEASING: */
	uint32_t number;
	enum mr_state state;
	uint64_t print; /* fingerprint of the pages it reaches */
	struct mrc_pd *pd_entry;
	struct mr *prev, *next; /* in pd_entry->mrs */
	union {
		/* LIVE: in mrcache::ring; DOOMED: in mrcache::aside */
		struct {
			struct mr *ring_prev, *ring_next;
		};
		/* else */
		struct {
			uint64_t
				retired; /* RELEASING since; mrcache::retired */
			struct mr *link; /* in the pool, or a list of doomed or
					   * releasing */
		};
	};
};

_Static_assert(sizeof(struct mr) == 128, "two cache lines");

/* The registrations of one pd; under the cache lock. */
struct mrc_pd {
	struct ibv_pd *pd;
	/* Of the pd, which may be freed while a lost registration names it. */
	const struct ibv_context *context;
	uint32_t handle;
	struct mr *mrs;	     /* NULL: only kept so that nothing need be freed */
	struct mrc_pd *link; /* in mrcache::free_pds */
	UT_hash_handle hh;
};

/* What a caller of mrcache_reg_mr() asks for. */
struct mr_want {
	struct ibv_pd *pd;
	uintptr_t start;
	size_t length;
	int access;	    /* may have MRC_ASKED_REMOTE */
	unsigned int flags; /* MRCACHE_REG_* of mrcache-transport.h */
	/* Where an enum mrcache_bypass goes if it is not cached, or NULL. */
	int *reason;
};

/* A hold: while it is counted, this use of mr does not end. */
struct mr_hold {
	struct mr *mr;
	uint64_t life;
	_Atomic int64_t *count; /* the thread's, or mr->handed */
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
	/* See recent.h. Two, or one would push out the other's. */
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

/* Whether fork support (ibv_fork_init) is in effect; no more changes once known. */
enum mrc_fork {
	MRC_FORK_UNKNOWN,
	MRC_FORK_OFF,
	MRC_FORK_ON,
};

/*
 * Which threads ever counted a hold: it only grows. What one thread has counted
 * and given back, in its record, another may have that comes after its end.
 */
enum mrc_users { MRC_NOBODY, MRC_ONE, MRC_MANY };

/*
 * Lock order: registry lock (fork.c), drain_lock, lock. No lock is held while
 * a verb or a monitor call runs, except drain_lock during the monitor's
 * read(), and the registry's while it is closed: deregistering frees memory,
 * which is an invalidation, whose reader may need those locks. The log callback
 * runs without locks as well. Nor is memory freed under them while the cache is
 * open: what the allocator gives back a program's hook may deregister. (But for
 * what uthash replaces when there are hundreds of pds, or memory is short.)
 */
struct mrcache {
	/* Read by every hit; written at open and close only. */
	struct mrcache_head head;
	struct mrc_hot *hot;
	const uint32_t *states;
	_Atomic bool open;
	_Atomic bool
		expedited; /* membarrier works: fences are one-sided (I4) */
	bool contain;
	/*
	 * Set before eviction looks whether all is held, cleared by who gives a
	 * hold back after: still set, and all seen held, nothing is idle. Like a
	 * hold itself (I4): count--, fence, look here; and there set, fence, add
	 * up the counts.
	 */
	_Atomic bool all_held;
	struct mrc_monitor *monitor; /* or NULL */
	struct mrcache_attr attr;
	const struct mrc_verbs *verbs;
	/*
	 * What there is no memory to know of is handed out all the same, as who
	 * gives it back asks verbs next (the shim). Before any registration.
	 */
	bool lends_unknown;
	mrcache_end_fn *ended; /* or NULL; before any registration */
	void *ended_arg;
	_Atomic enum mrc_fork fork; /* of libibverbs; see fork_support() */
	_Atomic uint64_t said;	    /* mrc_once(): what was said already */

	struct mrc_index by_range; /* only MR_LIVE */
	struct mrc_index by_ibv;   /* MR_LIVE, MR_DOOMED */
	_Atomic uint64_t orders; /* bit n: a registration of order n was made */

	_Alignas(64) pthread_mutex_t drain_lock; /* one drain at a time */

	_Alignas(64) pthread_mutex_t lock;     /* all down to released */
	_Atomic(struct mrc_thread *) threads;  /* push only; read without */
	struct mr *_Atomic chunks[MRC_CHUNKS]; /* read without */
	uint32_t made;		 /* registrations in the chunks so far */
	struct mr *free;	 /* by ->link */
	struct mrc_pd *pds;	 /* uthash */
	struct mrc_pd *free_pds; /* by ->link */
	struct mr *ring;      /* the LIVE ones, from where eviction goes on */
	struct mr *aside;     /* DOOMED, their holds not added up (retire.h) */
	uint32_t live;	      /* how many */
	uint32_t held_in_row; /* those seen last by eviction, all held */
	uint32_t to_see;      /* before all_held is known */
	uint64_t looked;      /* how many eviction looked at, ever */
	bool sweeping;	      /* all_held was set by us */
	uint64_t regs, bytes; /* accounted */
	uint64_t revived;     /* how often one was taken over (miss.c) */
	uint64_t retired;     /* how often one became RELEASING */
	uint64_t flushed;     /* `retired` when an end was last asked for */
	_Atomic bool
		alarmed; /* one was hit that may have its pages (verify.c) */
	_Atomic int32_t balance; /* what prints have saved, less what not */
	_Atomic uint32_t asked;	 /* whether one is worth it, when overdrawn */
	/* STAT_STALE_HELD, which is only for show: others may write to a file. */
	uint64_t stale_held;
	uint32_t thread_count;
	enum mrc_users users;
	pthread_t sole;		 /* MRC_ONE */
	pthread_cond_t released; /* a RELEASING one is gone */

	struct mrc_counters *counters;

	struct mrc_reaper *reaper;
	struct mrcache *prev, *next; /* among the open or the closed (fork.c) */
	uint32_t forking; /* forks that are ending some; registry lock */
	/* Taken by the fork that has the registry lock. */
	bool fork_drain_lock, fork_lock;
	_Atomic uint32_t
		records; /* of threads that name this cache (thread.c) */
};

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

#endif /* MRC_TYPES_H */
