/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * mrcache: a cache of RDMA memory registrations that is never stale.
 *
 * mrcache_reg_mr() and mrcache_dereg_mr() behave as ibv_reg_mr() and
 * ibv_dereg_mr(), but a registration that was made before and whose memory has
 * not changed is handed out again without a system call. The kernel's
 * /dev/ummunotify tells when memory changes. Without it, and for everything
 * that cannot be cached, they are the ordinary calls.
 *
 * All functions are thread-safe unless they say otherwise. A cache belongs to
 * the process that opened it: in a child after fork its registration calls
 * pass through and touch nothing of the parent's. Ranges are [start, end).
 *
 * Do not call ibv_fork_init(), nor set RDMAV_FORK_SAFE or IBV_FORK_SAFE, where
 * the kernel copies pinned pages on fork (5.12 and later;
 * ibv_is_fork_initialized() says IBV_FORK_UNNEEDED). libibverbs before version
 * 51 then still keeps what it registers from children, and nothing is cached
 * (MRCACHE_BYPASS_FORK). The first registration that could be cached finds out.
 *
 * A program that was compiled with this header works with the library of any
 * later version, and with an older one as long as it asks for nothing that is
 * newer. Structures only grow at their end, and their sizes are the caller's.
 */
#ifndef MRCACHE_H
#define MRCACHE_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef MRCACHE_API
#define MRCACHE_API __attribute__((visibility("default")))
#endif

/* Of this header; mrcache_version() is the library's. */
#define MRCACHE_VERSION_MAJOR 0
#define MRCACHE_VERSION_MINOR 1
#define MRCACHE_VERSION_PATCH 0
#define MRCACHE_VERSION_NUMBER(major, minor, patch) \
	((major)*10000 + (minor)*100 + (patch))
#define MRCACHE_VERSION_CODE                                                 \
	MRCACHE_VERSION_NUMBER(MRCACHE_VERSION_MAJOR, MRCACHE_VERSION_MINOR, \
			       MRCACHE_VERSION_PATCH)

/* MRCACHE_VERSION_CODE of the library in use, which may be another than this one. */
MRCACHE_API unsigned int mrcache_version(void);

struct mrcache;

enum mrcache_log_level {
	MRCACHE_LOG_QUIET,
	MRCACHE_LOG_ERROR, /* something is broken; the cache copes */
	MRCACHE_LOG_WARN,  /* a fallback, said once for each reason (default) */
	MRCACHE_LOG_INFO,
	MRCACHE_LOG_DEBUG,
};

/*
 * Receives one line without a newline. May be called from any thread that is
 * inside the library, never with a lock of the cache held; also in the reaper,
 * which has a stack of 256 KiB. Must not call it.
 */
typedef void mrcache_log_fn(void *arg, enum mrcache_log_level level,
			    const char *line);

/*
 * How a cache behaves. Initialise with mrcache_attr_init(), then change what
 * matters. The environment variable named at a member may restrict it: switch
 * off, lower, choose the monitor and what is logged. What would widen what the
 * program agreed to is ignored, which is said, unless environment_widens. With a
 * value that makes no sense nothing is cached, which is said, too.
 *
 * Members that a later version adds come at the end, and 0 is their default. So
 * an older program's structure is completed by a newer library, and an older
 * library takes a newer program's if what it does not know is 0.
 */
struct mrcache_attr {
	size_t size; /* as the caller knows it, set by mrcache_attr_init() */

	/*
	 * MRCACHE_MONITOR: where invalidations come from. NULL or "auto" is
	 * ummunotify, or no caching (said once) where it cannot be used;
	 * "ummunotify" fails mrcache_open() instead; "ummunotify-2010" uses
	 * only what the driver of 2010 offered; "none" never caches.
	 */
	const char *monitor;
	const char *device; /* MRCACHE_DEVICE: NULL is /dev/ummunotify */

	/*
	 * MRCACHE_MAX_BYTES (K, M, G, T may follow), MRCACHE_MAX_REGS: how much
	 * may stay registered, idle or held. Idle registrations that were not
	 * used recently make room; if all are held, a registration is made
	 * that is not cached. The default of max_bytes is half of the memory
	 * of the machine or the control group, divided by the job's ranks on
	 * this node, and no more than may be locked.
	 */
	uint64_t max_bytes;
	uint64_t max_regs;

	/*
	 * MRCACHE_REPINS: registering may itself change the mapping (breaking
	 * copy-on-write, say). How often to try again before giving the caller
	 * a registration that is not cached.
	 */
	unsigned int repins;

	/*
	 * MRCACHE_REMOTE (0 or 1): cache registrations with IBV_ACCESS_REMOTE_*
	 * too. Their keys then still work for peers after mrcache_dereg_mr(),
	 * until the memory changes or mrcache_flush(): not for programs that
	 * deregister in order to revoke. Off by default: they pass through.
	 */
	bool remote;

	/*
	 * MRCACHE_LINGER: the middle way, in milliseconds: such registrations
	 * are cached, and those idle and unused for that long are deregistered.
	 * Runs a thread, as reaper does. 0, the default: no. No effect with
	 * remote.
	 */
	unsigned int linger;

	/*
	 * MRCACHE_CONTAIN (0 or 1): a registration of a larger range may serve.
	 * Then mr->addr and mr->length may be those of the larger range, and
	 * local access may be wider than asked for, never remote access.
	 */
	bool contain;

	/*
	 * MRCACHE_PAGE_ALIGN (0 or 1): register whole pages, so that nearby
	 * buffers share a registration. Needs contain; EINVAL without.
	 */
	bool page_align;

	/*
	 * MRCACHE_REAPER (0 or 1): a thread that deregisters stale memory soon
	 * (50 ms) after it became stale, so that a process that no longer
	 * registers anything does not keep freed pages pinned.
	 */
	bool reaper;

	enum mrcache_log_level
		log_level;   /* MRCACHE_LOG: quiet error warn info debug */
	mrcache_log_fn *log; /* NULL: standard error */
	void *log_arg;

	/*
	 * The program agrees to whatever the environment may ask for: it looks
	 * at mr->addr and mr->length of what it gets (contain), does not
	 * deregister in order to revoke (remote, linger), and may be called back
	 * in a thread of the library's (reaper, linger) and in fork()
	 * (fork_release, which otherwise stays UINT64_MAX).
	 */
	bool environment_widens;

	/*
	 * MRCACHE_FORK_RELEASE (K, M, G, T may follow): fork() copies pinned
	 * memory into the child. Idle registrations of this length or more are
	 * deregistered before it, since making them again costs less. 0, the
	 * default: 64 KiB; 1: all; UINT64_MAX: none. What is held is copied.
	 * vfork(), posix_spawn(), system() and popen() copy nothing.
	 */
	uint64_t fork_release;

	/*
	 * MRCACHE_FINGERPRINT (0 or 1): when the memory of registrations that are
	 * idle, or asked for by mrcache_valid(), seems to have changed, look
	 * whether they still have their pages, and keep those that do: a huge
	 * page split by a neighbour, MADV_FREE. Costs nothing until that happens.
	 * Needs a driver that can tell; with operations of its own
	 * (mrcache_open_own()) a program must know that its registrations pin
	 * their pages. Default 0.
	 */
	bool fingerprint;
};

/*
 * Fills in the defaults: size bytes, the caller's sizeof(*attr), whatever size
 * the library knows. mrcache_attr_init() passes it.
 */
MRCACHE_API void mrcache_attr_init_size(struct mrcache_attr *attr, size_t size);

static inline void mrcache_attr_init(struct mrcache_attr *attr)
{
	mrcache_attr_init_size(attr, sizeof(*attr));
}

/*
 * Opens a cache. attr may be NULL for the defaults. Returns NULL with errno
 *   EINVAL  attr makes no sense (logged why)
 *   E2BIG   attr has a member set that this library is too old to know
 *   ENOMEM  no memory
 *   ENOENT, EACCES, ENODEV, ...  the monitor asked for by name cannot be used
 * Close with mrcache_close().
 */
MRCACHE_API struct mrcache *mrcache_open(const struct mrcache_attr *attr);

/*
 * Deregisters everything and frees the cache. Returns 0, or -EBUSY and does
 * nothing while registrations are still held, or -EINVAL for NULL or a cache
 * already closed. No other call may be running. In a fork child nothing of the
 * parent's is touched.
 */
MRCACHE_API int mrcache_close(struct mrcache *cache);

/*
 * As ibv_reg_mr(): a registration of [addr, addr + length) in pd with exactly
 * this access. NULL with errno as ibv_reg_mr() sets it; EINVAL also for a NULL
 * or closed cache or a NULL pd. The same pointer may be returned to several
 * callers; each must mrcache_dereg_mr() it once. The memory behind it is the
 * memory the range held at some moment during the call; whether it still is
 * can be asked with mrcache_valid().
 */
MRCACHE_API struct ibv_mr *mrcache_reg_mr(struct mrcache *cache,
					  struct ibv_pd *pd, void *addr,
					  size_t length, int access);

/*
 * As ibv_dereg_mr(): gives back what mrcache_reg_mr() returned, in any thread.
 * The memory stays registered for the next caller while nothing speaks against
 * it. Returns 0, or an errno value (positive, as ibv_dereg_mr() does):
 *   EINVAL  NULL or closed cache, or mr is not held: it never came from this
 *           cache or was given back already. Nothing is changed.
 *   other   ibv_dereg_mr()'s, for a registration that was not cached; it is
 *           still held then
 */
MRCACHE_API int mrcache_dereg_mr(struct mrcache *cache, struct ibv_mr *mr);

/*
 * Deregisters every idle registration of pd (all if NULL) and forgets the held
 * ones, which are deregistered when they are given back. To be called before
 * ibv_dealloc_pd(), which fails while memory is registered. Returns how many
 * registrations of pd are still held, or -EINVAL.
 */
MRCACHE_API int mrcache_flush(struct mrcache *cache, struct ibv_pd *pd);

/*
 * Tells the cache that the memory in [addr, addr + length) is no longer the
 * same, for sources the kernel's monitor cannot see, such as device memory.
 * Registrations that overlap are not handed out again, idle ones are
 * deregistered. Linear in the number of registrations. Returns 0 or -EINVAL.
 */
MRCACHE_API int mrcache_invalidate(struct mrcache *cache, const void *addr,
				   size_t length);

/* Why a registration was passed through to ibv_reg_mr() without caching. */
enum mrcache_bypass {
	MRCACHE_BYPASS_MONITOR, /* no monitor */
	MRCACHE_BYPASS_ACCESS,	/* access flags that cannot be cached */
	MRCACHE_BYPASS_REMOTE,	/* remote access, and attr.remote is off */
	MRCACHE_BYPASS_RANGE, /* empty, wraps around, implicit on-demand paging */
	MRCACHE_BYPASS_MEMORY, /* device memory or a hole in the range */
	MRCACHE_BYPASS_FORK,   /* ibv_fork_init() was called, or a fork child */
	MRCACHE_BYPASS_LIMIT, /* limits reached and all is held, or no memory */
	MRCACHE_BYPASS_WATCH, /* the monitor refused a watch */
	MRCACHE_BYPASS_UNSTABLE, /* the mapping kept changing while registering */
	MRCACHE_BYPASS_KIND, /* MRCACHE_REG_ALONE; the shim: dmabuf, an iova of its own, ... */
	MRCACHE_BYPASS_REASONS, /* how many this version knows; new ones follow */
};

/* Places for reasons in the statistics: for those to come as well. */
#define MRCACHE_BYPASS_PLACES 32

/* A short name of a reason, "unknown" if there is none. Never NULL. */
MRCACHE_API const char *mrcache_bypass_name(enum mrcache_bypass reason);

struct mrcache_stats {
	uint64_t hits;		  /* calls served from the cache */
	uint64_t misses;	  /* calls that had to register and cached it */
	uint64_t registrations;	  /* successful ibv_reg_mr() calls */
	uint64_t deregistrations; /* successful ibv_dereg_mr() calls */
	uint64_t repins; /* registrations made again: dirty when pinned */
	uint64_t invalidations; /* registrations that became stale */
	uint64_t evictions;	/* idle registrations removed to make room, or
			       because a larger one is made (contain) */
	uint64_t reg_errors;	/* failed ibv_reg_mr(), after all retries */
	uint64_t dereg_errors;	/* failed ibv_dereg_mr() */
	uint64_t retries;	/* ibv_reg_mr() tried again after evicting */
	uint64_t drains;	/* times the monitor was asked for events */
	uint64_t events;	/* events it reported */
	uint64_t bypass[MRCACHE_BYPASS_PLACES];
	/* now */
	uint64_t cached;       /* registrations that can be hit */
	uint64_t cached_bytes; /* their size */
	uint64_t stale_held;   /* stale, waiting for their last dereg */
	uint64_t uncached;     /* handed out without caching, still held */
	/* the shim's guards of other libraries' caches (docs/guards.md) */
	uint64_t guarded;	  /* registrations made for such a cache */
	uint64_t guard_checked;	  /* lookups of theirs that were checked */
	uint64_t guard_refused;	  /* of these, what was found was stale */
	uint64_t guard_told;	  /* changes that they were told of */
	uint64_t guard_unwatched; /* registrations that cannot be watched */
	uint64_t fork_releases;	  /* idle ones deregistered before a fork */
	/* with attr.fingerprint: of what became stale while it was idle */
	uint64_t verified; /* had its pages, and lives on */
	uint64_t refuted;  /* was looked at, and deregistered */
};

/*
 * Fills in *stats, size bytes of it (the caller's sizeof(*stats)), adding up what
 * the threads counted; calls in progress may be missing. What an older library
 * does not know is 0. Returns 0 or -EINVAL.
 */
MRCACHE_API int mrcache_get_stats(struct mrcache *cache,
				  struct mrcache_stats *stats, size_t size);

/* The name of the monitor in use: "ummunotify", "ummunotify-2010", "none". */
MRCACHE_API const char *mrcache_monitor(const struct mrcache *cache);

/*
 * What an error of this library means, in words, for a positive or negative
 * errno value. Never NULL; static storage or, for other errors, strerror()'s.
 */
MRCACHE_API const char *mrcache_strerror(int error);

/*
 * Whether mrcache_valid() means anything for mr, which mrcache_reg_mr() must have
 * returned and nobody given back: its memory is watched. False if it was passed
 * through, and for what is not held of this cache. It does not change while mr is
 * held, so once after registering is enough.
 */
MRCACHE_API bool mrcache_is_watched(struct mrcache *cache,
				    const struct ibv_mr *mr);

/* The head of struct mrcache, only for mrcache_valid(). It never changes. */
struct mrcache_head {
	const uint64_t *generation; /* the monitor's counter */
	const uint64_t *quiet;	    /* generation + 1 at which nothing held was
				     * stale; 0 when something is */
};

/* The part of mrcache_valid() that looks at mr itself. */
MRCACHE_API bool mrcache_valid_slow(struct mrcache *cache,
				    const struct ibv_mr *mr);

/*
 * The check before each RDMA operation for programs that hold on to mr, which
 * mrcache_reg_mr() must have returned and nobody given back: does it still
 * reach the memory the program sees? Two comparisons and no system call while
 * nothing the cache watches has changed. False: get a new registration and
 * give this one back. Always true for a registration that could not be cached,
 * whose memory is for the program to know as with ibv_reg_mr(): see
 * mrcache_is_watched().
 */
static inline bool mrcache_valid(struct mrcache *cache, const struct ibv_mr *mr)
{
	const struct mrcache_head *head = (const struct mrcache_head *)cache;
	uint64_t quiet = __atomic_load_n(head->quiet, __ATOMIC_ACQUIRE);

	/* Pairs with the driver's release of the counter. */
	if (__builtin_expect(quiet == __atomic_load_n(head->generation,
						      __ATOMIC_ACQUIRE) +
					      1,
			     1))
		return true;
	return mrcache_valid_slow(cache, mr);
}

#ifdef __cplusplus
}
#endif

#endif /* MRCACHE_H */
