/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libmrcache-preload.so: in front of libibverbs in a program that knows nothing
 * of mrcache. Registrations go through a cache of the process; everything else
 * is libibverbs' own. What it can and cannot see is in docs/preload.md.
 */
#include "guard/guard.h"
#include "guard/unguarded.h"
#include "config.h"
#include "flush.h"
#include "fork.h"
#include "giveback.h"
#include "hit.h"
#include "log.h"
#include "open.h"
#include "reaper.h"
#include "fallback.h"
#include "publish.h"
#include "real.h"
#include "summary.h"

#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* verbs.h has macros in front of these. */
#undef ibv_reg_mr
#undef ibv_reg_mr_iova

#define EXPORT __attribute__((visibility("default")))

/* Of IBVERBS_1.15 and 1.17; verbs.h may not have them yet. */
struct ibv_mr_init_attr;
struct ibv_buf;
struct ibv_mr *ibv_reg_mr_ex(struct ibv_pd *pd, struct ibv_mr_init_attr *attr);
struct ibv_mr *ibv_reg_buf_mr(struct ibv_pd *pd, struct ibv_buf *buf,
			      void *addr, size_t length, int access);

/* How struct ibv_mr_init_attr begins, and what says that there is memory at addr. */
struct init_attr {
	size_t length;
	int access;
	uint64_t comp_mask;
	uint64_t iova;
	void *addr;
};
#define INIT_ADDR      (1u << 1)
#define INIT_FD	       (1u << 2)
#define INIT_FD_OFFSET (1u << 3)
#define INIT_BUF       (1u << 5)

/*
 * libibverbs calls its own functions through the symbols that we define, and
 * what it registers so on our behalf must reach it.
 */
static __thread unsigned int inside __attribute__((tls_model("initial-exec")));

/* ---- libibverbs behind us ------------------------------------------------------ */

#define REAL_VERBS(X)                                                   \
	X(reg_mr, "1.1", struct ibv_mr *,                               \
	  (struct ibv_pd *, void *, size_t, int))                       \
	X(reg_mr_iova, "1.7", struct ibv_mr *,                          \
	  (struct ibv_pd *, void *, size_t, uint64_t, int))             \
	X(reg_mr_iova2, "1.8", struct ibv_mr *,                         \
	  (struct ibv_pd *, void *, size_t, uint64_t, unsigned int))    \
	X(reg_dmabuf_mr, "1.12", struct ibv_mr *,                       \
	  (struct ibv_pd *, uint64_t, size_t, uint64_t, int, int))      \
	X(reg_mr_ex, "1.15", struct ibv_mr *,                           \
	  (struct ibv_pd *, struct ibv_mr_init_attr *))                 \
	X(reg_buf_mr, "1.17", struct ibv_mr *,                          \
	  (struct ibv_pd *, struct ibv_buf *, void *, size_t, int))     \
	X(dereg_mr, "1.1", int, (struct ibv_mr *))                      \
	X(rereg_mr, "1.1", int,                                         \
	  (struct ibv_mr *, int, struct ibv_pd *, void *, size_t, int)) \
	X(dealloc_pd, "1.1", int, (struct ibv_pd *))                    \
	X(close_device, "1.1", int, (struct ibv_context *))             \
	X(fork_init, "1.1", int, (void))                                \
	X(is_fork_initialized, "1.13", enum ibv_fork_status, (void))    \
	X(unimport_pd, "1.10", void, (struct ibv_pd *))                 \
	X(get_async_event, "1.1", int,                                  \
	  (struct ibv_context *, struct ibv_async_event *))

/* get_reg_mr() and so on: the function, or NULL if libibverbs has none. */
#define X(verb, version, type, parameters)                                     \
	typedef type verb##_fn parameters;                                     \
	static verb##_fn *get_##verb(void)                                     \
	{                                                                      \
		static _Atomic(verb##_fn *) cached;                            \
		static _Atomic bool absent;                                    \
		verb##_fn *fn =                                                \
			atomic_load_explicit(&cached, memory_order_acquire);   \
		bool loaded;                                                   \
                                                                               \
		if (fn || atomic_load_explicit(&absent, memory_order_relaxed)) \
			return fn;                                             \
		fn = (verb##_fn *)real_function("ibv_" #verb,                  \
						"IBVERBS_" version, &loaded);  \
		atomic_store_explicit(&cached, fn, memory_order_release);      \
		if (!fn && loaded)                                             \
			atomic_store_explicit(&absent, true,                   \
					      memory_order_relaxed);           \
		return fn;                                                     \
	}
REAL_VERBS(X)
#undef X

static void look_up_verbs(void)
{
#define X(verb, version, type, parameters) get_##verb();
	REAL_VERBS(X)
#undef X
}

/* Calls a real verb; `missing` is its value where libibverbs has none. */
#define REAL(verb, missing, ...)                 \
	({                                       \
		verb##_fn *fn_ = get_##verb();   \
		__auto_type ret_ = missing;      \
                                                 \
		inside++;                        \
		if (fn_)                         \
			ret_ = fn_(__VA_ARGS__); \
		else                             \
			errno = EOPNOTSUPP;      \
		inside--;                        \
		ret_;                            \
	})

#define NO_MR ((struct ibv_mr *)NULL)

/* ---- the cache of this process -------------------------------------------------- */

static struct mrcache *the_cache;

/* With each that is made the chance grows that a stack has come to stay. */
static struct ibv_mr *registered(struct ibv_mr *mr)
{
	if (!mr || !the_cache)
		return mr;
	if (mrc_is_owner(the_cache))
		unguarded_registered(the_cache);
	else
		summary_child(the_cache);
	return mr;
}

static struct ibv_mr *verbs_reg_mr(struct ibv_pd *pd, void *addr, size_t length,
				   int access)
{
	/* Where the ordinary call would end up, without the way there. */
	if (get_reg_mr_iova2())
		return registered(REAL(reg_mr_iova2, NO_MR, pd, addr, length,
				       (uintptr_t)addr, (unsigned int)access));
	return registered(REAL(reg_mr, NO_MR, pd, addr, length, access));
}

static int verbs_dereg_mr(struct ibv_mr *mr)
{
	return REAL(dereg_mr, EOPNOTSUPP, mr);
}

static const struct mrc_verbs verbs = {
	.reg_mr = verbs_reg_mr,
	.dereg_mr = verbs_dereg_mr,
};

static _Atomic bool the_cache_is_open;
static _Atomic bool opened; /* or tried to */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pid_t loaded_by;

__attribute__((constructor)) static void at_load(void)
{
	void *volatile memory = malloc(1);

	loaded_by = getpid();
	/* Allocators that begin with the first call have their handlers now. */
	free(memory);
	/* Before all who give back to us in theirs: libmrcache, UCX. */
	mrc_fork_init();
	fallback_at_load();
}

/* What holds for all processes of a job on this host is said once. */
static void say(void *arg, enum mrcache_log_level level, const char *line)
{
	(void)arg;
	if (level == MRCACHE_LOG_WARN && !job_is_first_here())
		return;
	mrc_say(line);
}

static bool said_fallback;

/* What goes wrong while the cache is opened: one line says it all. */
static void say_of_open(void *arg, enum mrcache_log_level level,
			const char *line)
{
	char fallback[128], left[256] = "", whole[1024];

	if (!job_is_first_here())
		return;
	fallback_text(fallback, sizeof(fallback));
	/* Without a cache there are no guards that would say it. */
	if (level == MRCACHE_LOG_ERROR)
		fallback_left_text(left, sizeof(left));
	snprintf(whole, sizeof(whole), "%s%s%s%s%s", line,
		 level == MRCACHE_LOG_ERROR
			 ? "; registrations are passed through"
			 : "",
		 *fallback ? "; " : "", fallback, left);
	say(arg, level, whole);
	said_fallback = true;
}

static void say_begin(void)
{
	const struct mrcache_attr *attr = &the_cache->attr;
	char fallback[128];

	fallback_text(fallback, sizeof(fallback));
	if (*fallback && !said_fallback)
		mrc_log(attr, MRCACHE_LOG_WARN, "%s", fallback);
	mrc_log(attr, MRCACHE_LOG_INFO,
		"%s (%d): monitor %s, at most %" PRIu64 " bytes in %" PRIu64
		" registrations, remote access %s",
		program_invocation_short_name, getpid(),
		mrcache_monitor(the_cache), attr->max_bytes, attr->max_regs,
		attr->remote   ? "cached"
		: attr->linger ? "cached for a while"
			       : "not cached");
}

static void say_end(void)
{
	struct mrcache_stats stats;

	mrcache_get_stats(the_cache, &stats, sizeof(stats));
	mrc_log(&the_cache->attr, MRCACHE_LOG_INFO,
		"%s (%d): %" PRIu64 " hits, %" PRIu64 " misses, %" PRIu64
		" stale, %" PRIu64 " guarded",
		program_invocation_short_name, getpid(), stats.hits,
		stats.misses, stats.invalidations, stats.guarded);
	for (int i = 0; i < MRCACHE_BYPASS_REASONS; i++)
		if (stats.bypass[i])
			mrc_log(&the_cache->attr, MRCACHE_LOG_DEBUG,
				"%s (%d): %" PRIu64 " not cached: %s",
				program_invocation_short_name, getpid(),
				stats.bypass[i],
				mrcache_bypass_name((enum mrcache_bypass)i));
}

/*
 * Before the destructors of what we call run, that is, while libibverbs and its
 * providers are whole: nothing may be deregistered behind their backs later.
 * Deregistering all is the kernel's business.
 */
static void at_exit(void)
{
	if (!mrc_is_owner(the_cache))
		return;
	mrc_reaper_leave(the_cache);
	unguarded_look_at_end(the_cache);
	summary_end(the_cache);
	say_end();
	publish_end();
}

/* What was never seen to register may have done so behind our back. */
__attribute__((destructor)) static void at_unload(void)
{
	const char *enable = secure_getenv("MRCACHE_ENABLE");

	if (!atomic_load(&opened) && getpid() == loaded_by &&
	    !(enable && !strcmp(enable, "0")))
		summary_stranger(unguarded_look_at_stranger());
}

static struct mrcache *new_cache(void)
{
	const char *enable = secure_getenv("MRCACHE_ENABLE");
	struct mrcache_attr attr;
	struct mrcache *cache;

	if (enable && !strcmp(enable, "0"))
		return NULL;
	mrcache_attr_init(&attr);
	attr.reaper = true;
	/* What libibverbs registers here is pinned, or not cached. */
	attr.fingerprint = true;
	attr.environment_widens = true;
	attr.log = say_of_open;
	/* It is done again below, but this knows the level of what is said. */
	if (mrc_config(&attr))
		return NULL;
	cache = mrc_open_device(&attr, &verbs, publish_new());
	if (!cache) {
		/* Otherwise it was said. */
		if (errno == ENOMEM)
			mrc_log(&attr, MRCACHE_LOG_ERROR, "no cache: %s",
				mrcache_strerror(errno));
		publish_end();
		return NULL;
	}
	cache->attr.log = say;
	cache->lends_unknown = true;
	/* Callers were promised the range they asked for in mr->addr. */
	if (cache->contain) {
		cache->contain = cache->attr.page_align = false;
		mrc_log(&cache->attr, MRCACHE_LOG_WARN,
			"MRCACHE_CONTAIN is ignored: programs see mr->addr and mr->length");
	}
	return cache;
}

static void open_cache(void)
{
	inside++;
	the_cache = new_cache();
	inside--;
	if (the_cache) {
		publish_begin(the_cache);
		the_cache->counters->turned_off = fallback_turned_off();
		say_begin();
		summary_begin(the_cache);
		guard_init(the_cache, verbs_dereg_mr);
		atexit(at_exit);
		atomic_store_explicit(&the_cache_is_open, true,
				      memory_order_release);
	} else {
		summary_no_cache();
	}
	atomic_store_explicit(&opened, true, memory_order_release);
}

/* The cache; opened by the first registration. NULL: pass through. */
static struct mrcache *get_cache(void)
{
	if (inside)
		return NULL;
	if (!atomic_load_explicit(&opened, memory_order_acquire)) {
		/*
		 * Looking up takes the dynamic linker's lock, whose owner may
		 * be in a constructor that registers. So not under `once`.
		 */
		look_up_verbs();
		pthread_once(&once, open_cache);
	}
	return the_cache;
}

struct mrcache *guard_cache(void)
{
	return get_cache();
}

/*
 * The cache if there was ever a registration. Also inside a verb: it may free
 * memory, at which a cache above us gives back what it has of it. No lock is held
 * then, and what libibverbs itself gives back is not known here.
 */
static struct mrcache *peek_cache(void)
{
	if (!atomic_load_explicit(&the_cache_is_open, memory_order_acquire))
		return NULL;
	return the_cache;
}

/*
 * For what is never cached: whether idle registrations were dropped that may
 * have taken the memory (or the right to lock it) that was missing.
 */
static bool made_room(struct mrcache *cache, const struct ibv_mr *mr)
{
	int saved = errno;
	bool any;

	if (mr || !cache || !mrc_is_owner(cache) ||
	    (saved != ENOMEM && saved != EAGAIN))
		return false;
	pthread_mutex_lock(&cache->lock);
	any = cache->live || cache->aside;
	pthread_mutex_unlock(&cache->lock);
	if (!any)
		return false;
	mrcache_flush(cache, NULL);
	errno = saved;
	return true;
}

static struct ibv_mr *bypassed(struct mrcache *cache, struct ibv_mr *mr)
{
	if (!cache)
		return mr;
	/* What is not there cannot be cached: UCX asks for one, to learn that. */
	if (mr)
		mrc_count_bypass(cache, MRCACHE_BYPASS_KIND);
	mrc_count(cache, mr ? STAT_REGISTRATIONS : STAT_REG_ERRORS);
	return registered(mr);
}

/* For a stack whose own cache keeps it: the ordinary call, with a watch. */
struct pin {
	struct mrcache *cache;
	struct ibv_pd *pd;
	void *addr;
	size_t length;
	uint64_t iova;
	unsigned int access;
	struct ibv_mr_init_attr *attr; /* or NULL: by ibv_reg_mr_ex() */
};

static struct ibv_mr *pin_once(const struct pin *pin)
{
	if (pin->attr)
		return REAL(reg_mr_ex, NO_MR, pin->pd, pin->attr);
	if (get_reg_mr_iova2())
		return REAL(reg_mr_iova2, NO_MR, pin->pd, pin->addr,
			    pin->length, pin->iova, pin->access);
	if (pin->iova != (uintptr_t)pin->addr)
		return REAL(reg_mr_iova, NO_MR, pin->pd, pin->addr, pin->length,
			    pin->iova, (int)pin->access);
	return REAL(reg_mr, NO_MR, pin->pd, pin->addr, pin->length,
		    (int)pin->access);
}

static struct ibv_mr *pin(void *arg)
{
	const struct pin *pin = arg;
	struct ibv_mr *mr;

	do
		mr = pin_once(pin);
	while (made_room(pin->cache, mr));
	return registered(mr);
}

/* Whether the caller keeps it itself: then *mr is what it gets. */
static bool guarded(const struct pin *wanted, const void *caller,
		    struct ibv_mr **mr)
{
	enum guard_stack stack = guard_keeper(caller);
	struct pin arg = *wanted;

	/* The hardware follows the mapping by itself. */
	if (stack == GUARD_STACKS || !arg.cache ||
	    (arg.access & IBV_ACCESS_ON_DEMAND) || !mrc_is_owner(arg.cache))
		return false;
	*mr = guard_reg(stack, arg.addr, arg.length, pin, &arg);
	return true;
}

#define CALLER __builtin_return_address(0)

static bool is_context(const struct mrc_pd *pd, const void *context)
{
	return pd->context == context;
}

/* A parent domain is another structure with the same handle. */
static bool is_same_pd(const struct mrc_pd *entry, const void *arg)
{
	const struct ibv_pd *pd = arg;

	return entry->pd == pd ||
	       (entry->context == pd->context && entry->handle == pd->handle);
}

static void flush(mrc_match_fn *match, const void *arg)
{
	struct mrcache *cache = peek_cache();

	/* Inside a verb it might wait for that very verb to end. */
	if (!inside && cache && mrc_is_owner(cache))
		mrc_flush_matching(cache, match, arg);
}

/* ---- what programs call ------------------------------------------------------------ */

EXPORT struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *addr, size_t length,
				 int access)
{
	struct mrcache *cache = get_cache();
	struct ibv_mr *mr;

	if (!cache)
		return REAL(reg_mr, NO_MR, pd, addr, length, access);
	if (guarded(&(struct pin){cache, pd, addr, length, (uintptr_t)addr,
				  (unsigned int)access, NULL},
		    CALLER, &mr))
		return mr;
	return mrcache_reg_mr(cache, pd, addr, length, access);
}

EXPORT struct ibv_mr *ibv_reg_mr_iova(struct ibv_pd *pd, void *addr,
				      size_t length, uint64_t iova, int access)
{
	struct mrcache *cache = get_cache();
	struct ibv_mr *mr;

	if (guarded(&(struct pin){cache, pd, addr, length, iova,
				  (unsigned int)access, NULL},
		    CALLER, &mr))
		return mr;
	if (cache && iova == (uintptr_t)addr)
		return mrcache_reg_mr(cache, pd, addr, length, access);
	do
		mr = REAL(reg_mr_iova, NO_MR, pd, addr, length, iova, access);
	while (made_room(cache, mr));
	return bypassed(cache, mr);
}

EXPORT struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *addr,
				       size_t length, uint64_t iova,
				       unsigned int access)
{
	struct mrcache *cache = get_cache();
	struct ibv_mr *mr;

	if (guarded(&(struct pin){cache, pd, addr, length, iova, access, NULL},
		    CALLER, &mr))
		return mr;
	if (cache && iova == (uintptr_t)addr)
		return mrcache_reg_mr(cache, pd, addr, length, (int)access);
	do
		mr = REAL(reg_mr_iova2, NO_MR, pd, addr, length, iova, access);
	while (made_room(cache, mr));
	return bypassed(cache, mr);
}

EXPORT struct ibv_mr *ibv_reg_dmabuf_mr(struct ibv_pd *pd, uint64_t offset,
					size_t length, uint64_t iova, int fd,
					int access)
{
	struct mrcache *cache = get_cache();
	struct ibv_mr *mr;

	do
		mr = REAL(reg_dmabuf_mr, NO_MR, pd, offset, length, iova, fd,
			  access);
	while (made_room(cache, mr));
	return bypassed(cache, mr);
}

/* The same of memory at an address, for a stack that keeps it. */
static bool guarded_ex(struct mrcache *cache, struct ibv_pd *pd,
		       struct ibv_mr_init_attr *init, const void *caller,
		       struct ibv_mr **mr)
{
	const struct init_attr *attr = (const struct init_attr *)init;

	return (attr->comp_mask & INIT_ADDR) &&
	       !(attr->comp_mask & (INIT_FD | INIT_FD_OFFSET | INIT_BUF)) &&
	       guarded(&(struct pin){.cache = cache,
				     .pd = pd,
				     .addr = attr->addr,
				     .length = attr->length,
				     .access = (unsigned int)attr->access,
				     .attr = init},
		       caller, mr);
}

EXPORT struct ibv_mr *ibv_reg_mr_ex(struct ibv_pd *pd,
				    struct ibv_mr_init_attr *attr)
{
	struct mrcache *cache = get_cache();
	struct ibv_mr *mr;

	if (guarded_ex(cache, pd, attr, CALLER, &mr))
		return mr;
	do
		mr = REAL(reg_mr_ex, NO_MR, pd, attr);
	while (made_room(cache, mr));
	return bypassed(cache, mr);
}

EXPORT struct ibv_mr *ibv_reg_buf_mr(struct ibv_pd *pd, struct ibv_buf *buf,
				     void *addr, size_t length, int access)
{
	struct mrcache *cache = get_cache();
	struct ibv_mr *mr;

	do
		mr = REAL(reg_buf_mr, NO_MR, pd, buf, addr, length, access);
	while (made_room(cache, mr));
	return bypassed(cache, mr);
}

EXPORT int ibv_dereg_mr(struct ibv_mr *mr)
{
	struct mrcache *cache = peek_cache();
	int ret = -ENOENT;

	if (cache && mr)
		ret = guard_dereg(mr);
	if (cache && mr && ret == -ENOENT)
		ret = mrc_dereg_mr(cache, mr);
	/* Device memory, null, imported, dmabuf, or from before us. */
	if (ret == -ENOENT)
		return REAL(dereg_mr, EOPNOTSUPP, mr);
	return ret < 0 ? -ret : ret;
}

EXPORT int ibv_rereg_mr(struct ibv_mr *mr, int flags, struct ibv_pd *pd,
			void *addr, size_t length, int access)
{
	struct mrcache *cache = peek_cache();

	if (cache && mrc_is_owner(cache) && mrc_unshare(cache, mr) == -EBUSY) {
		/* Others have it as it is. The old registration is untouched. */
		errno = EBUSY;
		return IBV_REREG_MR_ERR_INPUT;
	}
	return REAL(rereg_mr, IBV_REREG_MR_ERR_INPUT, mr, flags, pd, addr,
		    length, access);
}

EXPORT int ibv_dealloc_pd(struct ibv_pd *pd)
{
	if (pd)
		flush(is_same_pd, pd);
	return REAL(dealloc_pd, EOPNOTSUPP, pd);
}

/* The structure may come back as another protection domain. */
EXPORT void ibv_unimport_pd(struct ibv_pd *pd)
{
	unimport_pd_fn *fn = get_unimport_pd();

	if (pd)
		flush(is_same_pd, pd);
	if (fn)
		fn(pd);
}

EXPORT int ibv_close_device(struct ibv_context *context)
{
	flush(is_context, context);
	return REAL(close_device, -1, context);
}

/*
 * Where the kernel copies pinned pages on fork nothing need be done, and nothing
 * must be: libibverbs before version 51 would madvise() what it registers all
 * the same, and nothing could be cached. It also calls this itself, at its start,
 * for RDMAV_FORK_SAFE and IBV_FORK_SAFE. Otherwise it is libibverbs' own, and
 * the cache sees at its first registration what has become of it.
 */
EXPORT int ibv_fork_init(void)
{
	if (get_is_fork_initialized() &&
	    REAL(is_fork_initialized, IBV_FORK_DISABLED) == IBV_FORK_UNNEEDED)
		return 0;
	return REAL(fork_init, EOPNOTSUPP);
}

EXPORT int ibv_get_async_event(struct ibv_context *context,
			       struct ibv_async_event *event)
{
	get_async_event_fn *fn = get_get_async_event();
	int ret;

	if (!fn) {
		errno = EOPNOTSUPP;
		return -1;
	}
	/* Not by REAL(): the thread may be cancelled here, with handlers to run. */
	ret = fn(context, event);
	/* Nothing of a dead device may be handed out again. */
	if (!ret && event->event_type == IBV_EVENT_DEVICE_FATAL)
		flush(is_context, context);
	return ret;
}

/* ---- programs that ask dlsym() ------------------------------------------------------ */

static const struct guard_symbol verbs_symbols[] = {
	{"ibv_reg_mr", "IBVERBS_1.1", ibv_reg_mr},
	{"ibv_reg_mr_iova", "IBVERBS_1.7", ibv_reg_mr_iova},
	{"ibv_reg_mr_iova2", "IBVERBS_1.8", ibv_reg_mr_iova2},
	{"ibv_reg_dmabuf_mr", "IBVERBS_1.12", ibv_reg_dmabuf_mr},
	{"ibv_reg_mr_ex", "IBVERBS_1.15", ibv_reg_mr_ex},
	{"ibv_reg_buf_mr", "IBVERBS_1.17", ibv_reg_buf_mr},
	{"ibv_dereg_mr", "IBVERBS_1.1", ibv_dereg_mr},
	{"ibv_rereg_mr", "IBVERBS_1.1", ibv_rereg_mr},
	{"ibv_dealloc_pd", "IBVERBS_1.1", ibv_dealloc_pd},
	{"ibv_unimport_pd", "IBVERBS_1.10", ibv_unimport_pd},
	{"ibv_close_device", "IBVERBS_1.1", ibv_close_device},
	{"ibv_fork_init", "IBVERBS_1.1", ibv_fork_init},
	{"ibv_get_async_event", "IBVERBS_1.1", ibv_get_async_event},
	{NULL, NULL, NULL},
};

static const struct guard_symbol *find_ours(const void *handle,
					    const char *name)
{
	const struct guard_symbol *table;

	/* Who asks for the next one knows what it is after. */
	if (handle == RTLD_NEXT || !name)
		return NULL;
	if (!strncmp(name, "ibv_", 4))
		table = verbs_symbols;
	else if (!strncmp(name, "fi_", 3))
		table = guard_fabric_symbols;
	else
		return NULL;
	while (table->name && strcmp(name, table->name))
		table++;
	return table->name ? table : NULL;
}

/*
 * What the library would have been asked for becomes ours; another function of
 * that name (of version 1.0, or a program's own) stays what it is.
 */
static void *instead_of(void *found, const struct guard_symbol *ours,
			const void *real)
{
	void *volatile none;

	if (found && found == real)
		return ours->function;
	if (real || found != ours->function)
		return found;
	/*
	 * Without the library there is no such function, and libc, asked for
	 * the one behind us (by a call that is no jump), has the words for it.
	 */
	none = real_dlsym()(RTLD_NEXT, ours->name);
	return none;
}

/* Counting where it goes (gcov) would make a call of its jump. */
#define JUMPS __attribute__((no_profile_instrument_function))

/*
 * For RTLD_NEXT and RTLD_DEFAULT libc looks at the return address to see who
 * asks. Calls that are none of our business, and those that find us anyway,
 * must therefore be jumps, which is what a compiler that optimises makes of
 * them (see CMakeLists.txt, and the tests). The last call of libc is the one
 * that the program asked for, so that dlerror() is of that.
 */
EXPORT JUMPS void *dlsym(void *restrict handle, const char *restrict name)
{
	const struct guard_symbol *ours = find_ours(handle, name);
	void *real =
		ours ? real_function(ours->name, ours->version, NULL) : NULL;

	if (!ours || (handle == RTLD_DEFAULT && real))
		return real_dlsym()(handle, name);
	return instead_of(real_dlsym()(handle, name), ours, real);
}

EXPORT JUMPS void *dlvsym(void *restrict handle, const char *restrict name,
			  const char *restrict version)
{
	const struct guard_symbol *ours = find_ours(handle, name);
	void *real =
		ours ? real_function(ours->name, ours->version, NULL) : NULL;

	if (!ours || (handle == RTLD_DEFAULT && real))
		return real_dlvsym()(handle, name, version);
	return instead_of(real_dlvsym()(handle, name, version), ours, real);
}
