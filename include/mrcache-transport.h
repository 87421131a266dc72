/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a transport needs of a registration cache beyond mrcache.h: what is
 * wanted of one call, event loops without a thread of the library's, and
 * operations other than ibv_reg_mr() and ibv_dereg_mr(). docs/adopters.md says
 * which of the known transports' needs is met by what.
 *
 * Thread safety, fork and ranges are as in mrcache.h.
 */
#ifndef MRCACHE_TRANSPORT_H
#define MRCACHE_TRANSPORT_H

#include "mrcache.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- one call ------------------------------------------------------------------ */

/*
 * Only what is there: never registers. No system call and no lock, but for the
 * first call of a thread, for memory to count in, of which a thread needs more
 * as there are more registrations, and for ending what was found and became stale in
 * the very moment. EAGAIN otherwise: register elsewhere, where waiting is
 * allowed, and ask again.
 */
#define MRCACHE_REG_HIT (1u << 0)

/*
 * Only what is cached, so that mrcache_valid() means something: EOPNOTSUPP
 * instead of passing through. `reason` says why.
 */
#define MRCACHE_REG_CACHED (1u << 1)

/* Not cached and nobody else's: its keys end with mrcache_dereg_mr(). */
#define MRCACHE_REG_ALONE (1u << 2)

/*
 * Cached although access is remote, also where mrcache_attr::remote and linger
 * are off. Its keys work for peers after mrcache_dereg_mr(), until the memory
 * changes, mrcache_revoke() or mrcache_flush(). Calls without this flag are not
 * given such a registration, nor the other way round.
 */
#define MRCACHE_REG_REMOTE (1u << 3)

/*
 * Of this very range, though mrcache_attr::contain and page_align would do with
 * a larger one.
 */
#define MRCACHE_REG_EXACT (1u << 4)

/*
 * What mrcache_reg_mr() is told, and how. Set `size` and what is needed, all
 * else 0.
 */
struct mrcache_request {
	size_t size; /* sizeof(struct mrcache_request) */
	struct ibv_pd *pd;
	void *addr;
	size_t length;
	int access;
	unsigned int flags; /* MRCACHE_REG_* */
	/*
	 * Out: the enum mrcache_bypass why it is not, or would not be, cached;
	 * -1 if it is, or nothing was looked at.
	 */
	int reason;
};

/*
 * mrcache_reg_mr() with a wish. A hit takes some 40 instructions more than there,
 * and no lock or system call either. What it returns is given back with mrcache_dereg_mr(). NULL with errno as
 * mrcache_reg_mr() sets it, or
 *   EAGAIN      MRCACHE_REG_HIT, and it would have to be registered
 *   EOPNOTSUPP  MRCACHE_REG_CACHED, and it cannot be cached; see reason
 *   EINVAL      also: a size that is too small or larger than the library's, an
 *               unknown flag, MRCACHE_REG_ALONE together with HIT, CACHED or
 *               REMOTE
 */
MRCACHE_API struct ibv_mr *mrcache_reg_mr_ex(struct mrcache *cache,
					     struct mrcache_request *request);

/*
 * Nobody is given this registration any more, as if its memory had changed. If
 * nobody holds it, it is deregistered now; else by mrcache_dereg_mr() of the
 * last who does. The caller's own hold stays, and mrcache_valid() goes on telling
 * of the memory. Returns 0 if it is held once at most, which must be by the caller:
 * then its keys are dead when this has returned and mrcache_dereg_mr() of all who
 * ever held it. Or
 *   EBUSY   others hold it, too
 *   EINVAL  NULL or closed cache, or not a registration of it
 */
MRCACHE_API int mrcache_revoke(struct mrcache *cache, struct ibv_mr *mr);

/* What a registration really is. */
struct mrcache_info {
	void *addr; /* what is registered is [addr, addr + length) */
	size_t length;
	int access;
	bool watched; /* cached: mrcache_valid() tells when it is stale */
	bool found;   /* others may be given it */
	bool stale;   /* its memory is known to have changed */
};

/*
 * Fills in *info, size bytes of it (sizeof(*info)), about a registration that
 * the caller holds. Takes a lock. Returns 0 or EINVAL as mrcache_revoke().
 */
MRCACHE_API int mrcache_get_info(struct mrcache *cache, const struct ibv_mr *mr,
				 struct mrcache_info *info, size_t size);

/* ---- event loops ----------------------------------------------------------------- */

/*
 * A descriptor to poll: readable when mrcache_progress() has something to do.
 * It is the library's: not to be read or closed. -ENODEV if the cache has no
 * monitor, -ESTALE in a child, or -EINVAL.
 */
MRCACHE_API int mrcache_fd(const struct mrcache *cache);

/*
 * Does what is due: registrations whose memory has changed are not handed out
 * again and, if nobody holds them, deregistered, in this thread. Two loads when
 * nothing is due, so that a loop may call it each time round. So neither
 * mrcache_attr::reaper nor a miss is needed for it. Returns 0, -EIO if the
 * monitor cannot be read, or -EINVAL.
 */
MRCACHE_API int mrcache_progress(struct mrcache *cache);

/*
 * Called once for each cached registration, right before it is deregistered,
 * when nobody holds it and nobody can be given it any more: what the caller
 * keeps beside it is to be dropped. stale: its memory changed, else it was
 * evicted, flushed, revoked or ended before a fork. In whatever thread ends it:
 * one that registers, gives back, flushes, closes, forks or makes progress, or
 * the reaper; no lock of the library is held, so it may call the library, but not
 * for mr, nor mrcache_flush(), mrcache_domain_free() or mrcache_close(), which
 * wait for it (nor may it wait for a thread that does). In a thread that calls
 * fork() the pthread_atfork() handlers of others may have run: it must not wait
 * for a lock that one of them, or the caller of fork(), holds (or set
 * mrcache_attr::fork_release to UINT64_MAX). Not called for what is not cached,
 * nor in a child.
 */
typedef void mrcache_end_fn(void *arg, struct ibv_mr *mr, bool stale);

/*
 * Sets it, before the first registration. Returns 0, -EBUSY after it, or
 * -EINVAL.
 */
MRCACHE_API int mrcache_on_end(struct mrcache *cache, mrcache_end_fn *fn,
			       void *arg);

/* ---- own operations --------------------------------------------------------------- */

/*
 * How the registrations of a domain are made and ended. Both callbacks are
 * called in any thread, with no lock of the library held; they may call the
 * library, also for the same cache, but not for what they are called for, and as
 * mrcache_end_fn dereg must not flush, free a domain or close; dereg is called
 * in a thread that calls fork(), too. In a child calls pass through, to both.
 *
 * mr is the library's: what mrcache_reg_mr() returns. pd, addr and length are
 * filled in: what is to be registered, which with mrcache_attr::page_align or
 * contain may be more than was asked for. reg may fill in lkey, rkey, context
 * and handle, for those who hold it; what else it needs to remember goes into
 * the area, `area` bytes that begin as zeroes and are aligned as by malloc().
 */
struct mrcache_ops {
	size_t size; /* sizeof(struct mrcache_ops) */
	size_t area; /* bytes of the caller's in each entry; at most 1 MiB */
	/*
	 * Pins the memory as it is now: 0 or -errno. At -ENOMEM and -EAGAIN
	 * idle registrations are ended and it is called again.
	 */
	int (*reg)(void *domain, struct ibv_mr *mr, void *area, int access);
	/* 0; or -errno, and all is as it was. mr is freed afterwards. */
	int (*dereg)(void *domain, struct ibv_mr *mr, void *area);
	/*
	 * If reg calls libibverbs for the program's memory, one of its protection
	 * domains: asked whether ibv_fork_init() is in effect, once for each cache,
	 * because then nothing of it may be cached. Else NULL.
	 */
	struct ibv_pd *verbs_pd;
};

/*
 * A cache for domains only. As mrcache_open(), attr may be NULL; not for
 * protection domains of libibverbs.
 */
MRCACHE_API struct mrcache *mrcache_open_own(const struct mrcache_attr *attr);

/*
 * What stands in the place of a protection domain in every call of mrcache.h
 * and of this file, for caches opened with mrcache_open_own(). *ops is copied,
 * `domain` handed to its callbacks. One domain may be several NICs or protection
 * domains; one cache may have many domains, with different operations. NULL
 * with errno ENOMEM, or EINVAL: ops that are not complete, or too large an area.
 */
MRCACHE_API struct ibv_pd *mrcache_domain_new(const struct mrcache_ops *ops,
					      void *domain);

/*
 * Ends a domain with all its idle registrations; before mrcache_close(). Returns
 * 0, -EBUSY while some are held (the others have been ended), or -EINVAL: not a
 * domain, or no open cache.
 */
MRCACHE_API int mrcache_domain_free(struct mrcache *cache, struct ibv_pd *pd);

#define MRCACHE_AREA_OFFSET 64

/* The caller's area of a registration that a domain's operations made. */
static inline void *mrcache_area(struct ibv_mr *mr)
{
	return (char *)mr + MRCACHE_AREA_OFFSET;
}

#ifdef __cplusplus
}
#endif

#endif /* MRCACHE_TRANSPORT_H */
