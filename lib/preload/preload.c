/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libmrcache-preload.so: in front of libibverbs in a program that knows nothing
 * of mrcache. Registrations go through a cache of the process; everything else
 * is libibverbs' own. What it can and cannot see is in docs/preload.md.
 */
#include "mrcache_int.h"
#include "publish.h"
#include "real.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* verbs.h has macros in front of these. */
#undef ibv_reg_mr
#undef ibv_reg_mr_iova

#define EXPORT __attribute__((visibility("default")))

/*
 * libibverbs calls its own functions through the symbols that we define, and
 * what it calls so on our behalf must reach it.
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
		fn = (verb##_fn *)real_verb("ibv_" #verb, "IBVERBS_" version,  \
					    &loaded);                          \
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

static struct ibv_mr *verbs_reg_mr(struct ibv_pd *pd, void *addr, size_t length,
				   int access)
{
	/* Where the ordinary call would end up, without the way there. */
	if (get_reg_mr_iova2())
		return REAL(reg_mr_iova2, NO_MR, pd, addr, length,
			    (uintptr_t)addr, (unsigned int)access);
	return REAL(reg_mr, NO_MR, pd, addr, length, access);
}

static int verbs_dereg_mr(struct ibv_mr *mr)
{
	return REAL(dereg_mr, EOPNOTSUPP, mr);
}

static _Atomic bool fork_init_called;

static enum ibv_fork_status verbs_fork_status(void)
{
	if (get_is_fork_initialized())
		return REAL(is_fork_initialized, IBV_FORK_DISABLED);
	/* As libibverbs decides at its start. */
	if (atomic_load(&fork_init_called) || getenv("RDMAV_FORK_SAFE") ||
	    getenv("IBV_FORK_SAFE"))
		return IBV_FORK_ENABLED;
	return IBV_FORK_DISABLED;
}

static const struct mrc_verbs verbs = {
	.reg_mr = verbs_reg_mr,
	.dereg_mr = verbs_dereg_mr,
	.fork_status = verbs_fork_status,
};

static struct mrcache *the_cache;
static _Atomic bool the_cache_is_open;
static _Atomic bool opened; /* or tried to */
static pthread_once_t once = PTHREAD_ONCE_INIT;

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
	publish_end(the_cache);
}

/* What goes wrong while the cache is opened: one line says it all. */
static void say(void *arg, enum mrcache_log_level level, const char *line)
{
	(void)arg;
	fprintf(stderr, "mrcache: %s%s\n", line,
		level == MRCACHE_LOG_ERROR
			? "; registrations are passed through"
			: "");
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
	attr.log = say;
	/* It is done again below, but this knows the level of what is said. */
	if (mrc_config(&attr))
		return NULL;
	cache = mrc_open_device(&attr, &verbs, publish_new());
	if (!cache) {
		/* Otherwise it was said. */
		if (errno == ENOMEM)
			mrc_log(&attr, MRCACHE_LOG_ERROR, "no cache: %s",
				mrcache_strerror(errno));
		publish_abandon();
		return NULL;
	}
	cache->attr.log = NULL;
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
		atexit(at_exit);
		atomic_store_explicit(&the_cache_is_open, true,
				      memory_order_release);
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

/* The cache if there was ever a registration. */
static struct mrcache *peek_cache(void)
{
	if (inside ||
	    !atomic_load_explicit(&the_cache_is_open, memory_order_acquire))
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

	if (mr || !cache || !mrc_is_owner(cache) ||
	    (saved != ENOMEM && saved != EAGAIN) ||
	    !mrc_get(cache, STAT_CACHED))
		return false;
	mrcache_flush(cache, NULL);
	errno = saved;
	return true;
}

static struct ibv_mr *bypassed(struct mrcache *cache, struct ibv_mr *mr)
{
	if (!cache)
		return mr;
	mrc_count_bypass(cache, MRCACHE_BYPASS_KIND);
	mrc_count(cache, mr ? STAT_REGISTRATIONS : STAT_REG_ERRORS);
	return mr;
}

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

	if (cache && mrc_is_owner(cache))
		mrc_flush_matching(cache, match, arg);
}

/* ---- what programs call ------------------------------------------------------------ */

EXPORT struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *addr, size_t length,
				 int access)
{
	struct mrcache *cache = get_cache();

	if (!cache)
		return REAL(reg_mr, NO_MR, pd, addr, length, access);
	return mrcache_reg_mr(cache, pd, addr, length, access);
}

EXPORT struct ibv_mr *ibv_reg_mr_iova(struct ibv_pd *pd, void *addr,
				      size_t length, uint64_t iova, int access)
{
	struct mrcache *cache = get_cache();
	struct ibv_mr *mr;

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

EXPORT int ibv_dereg_mr(struct ibv_mr *mr)
{
	struct mrcache *cache = peek_cache();
	int ret = -ENOENT;

	if (cache && mr)
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

EXPORT int ibv_fork_init(void)
{
	struct mrcache *cache = peek_cache();
	int ret;

	/* From now on deregistering late would madvise() the wrong memory. */
	if (cache && mrc_is_owner(cache))
		mrcache_flush(cache, NULL);
	ret = REAL(fork_init, EOPNOTSUPP);
	if (!ret)
		atomic_store(&fork_init_called, true);
	return ret;
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

struct ours {
	const char *name, *version;
	void *function;
};

static const struct ours table[] = {
	{"ibv_reg_mr", "IBVERBS_1.1", ibv_reg_mr},
	{"ibv_reg_mr_iova", "IBVERBS_1.7", ibv_reg_mr_iova},
	{"ibv_reg_mr_iova2", "IBVERBS_1.8", ibv_reg_mr_iova2},
	{"ibv_reg_dmabuf_mr", "IBVERBS_1.12", ibv_reg_dmabuf_mr},
	{"ibv_dereg_mr", "IBVERBS_1.1", ibv_dereg_mr},
	{"ibv_rereg_mr", "IBVERBS_1.1", ibv_rereg_mr},
	{"ibv_dealloc_pd", "IBVERBS_1.1", ibv_dealloc_pd},
	{"ibv_unimport_pd", "IBVERBS_1.10", ibv_unimport_pd},
	{"ibv_close_device", "IBVERBS_1.1", ibv_close_device},
	{"ibv_fork_init", "IBVERBS_1.1", ibv_fork_init},
	{"ibv_get_async_event", "IBVERBS_1.1", ibv_get_async_event},
};

static const struct ours *find_ours(const void *handle, const char *name)
{
	/* Who asks for the next one knows what it is after. */
	if (handle == RTLD_NEXT || !name || strncmp(name, "ibv_", 4))
		return NULL;
	for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++)
		if (!strcmp(name, table[i].name))
			return &table[i];
	return NULL;
}

/*
 * What libibverbs would have been asked for becomes ours; another function of
 * that name (of version 1.0, or a program's own) stays what it is.
 */
static void *instead_of(void *found, const struct ours *ours, const void *real)
{
	void *volatile none;

	if (found && found == real)
		return ours->function;
	if (real || found != ours->function)
		return found;
	/*
	 * Without libibverbs there is no such function, and libc, asked for
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
	const struct ours *ours = find_ours(handle, name);
	void *real = ours ? real_verb(ours->name, ours->version, NULL) : NULL;

	if (!ours || (handle == RTLD_DEFAULT && real))
		return real_dlsym()(handle, name);
	return instead_of(real_dlsym()(handle, name), ours, real);
}

EXPORT JUMPS void *dlvsym(void *restrict handle, const char *restrict name,
			  const char *restrict version)
{
	const struct ours *ours = find_ours(handle, name);
	void *real = ours ? real_verb(ours->name, ours->version, NULL) : NULL;

	if (!ours || (handle == RTLD_DEFAULT && real))
		return real_dlvsym()(handle, name, version);
	return instead_of(real_dlvsym()(handle, name, version), ours, real);
}
