/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guard of UCX: in front of the few functions of libucs and libucm through
 * which UCX's libraries keep registrations and look them up. Why no lookup
 * returns what has changed is in docs/guards.md, "UCX".
 *
 * Nothing here is public in UCX, so as little as possible is assumed: the
 * names below, that all their arguments are words, and that what
 * ucs_pgtable_lookup() returns begins with the start and the end of a range.
 * This is so in 1.13 to 1.23.
 */
#include "guard.h"
#include "preload/real.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define CALLER __builtin_return_address(0)

/* ucs_status_t, one byte */
#define UCS_OK		    0
#define UCS_ERR_UNSUPPORTED (-22)

/* As many words as any version takes; those that it does not are ignored. */
typedef long get_fn(long, long, long, long, long, long, long);
typedef long create_fn(const void *params, const char *name, void *stats,
		       void **rcache);
typedef void destroy_fn(void *rcache);
typedef const struct region *lookup_fn(const void *table, unsigned long addr);
typedef void unmapped_fn(void *addr, size_t length);
typedef long handler_fn(int events, int priority, void *fn, void *arg);

/* enum ucm_event_type */
#define UCM_EVENT_VM_UNMAPPED	  (1 << 17)
#define UCM_EVENT_FLAG_NO_INSTALL (1 << 24)

struct region {
	uintptr_t start, end;
};

EXPORT get_fn ucs_rcache_get;
EXPORT create_fn ucs_rcache_create;
EXPORT destroy_fn ucs_rcache_destroy;
EXPORT lookup_fn ucs_pgtable_lookup;
EXPORT handler_fn ucm_set_event_handler;

/* ---- UCX behind us --------------------------------------------------------------- */

/* One UCX; a process may have loaded several, of other names. */
struct ucx {
	get_fn *rcache_get;
	create_fn *rcache_create;
	destroy_fn *rcache_destroy;
	lookup_fn *pgtable_lookup;
	unmapped_fn *vm_munmap;
	handler_fn *set_event_handler;
};

/*
 * An object that has called us, with the UCX that would have been called
 * without us. It stays loaded: we have a handle.
 */
struct object {
	uintptr_t start, end;
	const struct ucx *ucx;
	bool keeps;    /* a cache that it makes is one of registrations */
	bool looks_up; /* in such a cache, by ucs_pgtable_lookup() */
};

#define OBJECTS 64
#define UCXS	4

static struct object objects[OBJECTS]; /* append only */
static _Atomic unsigned int object_count;
static struct ucx ucxs[UCXS]; /* append only */
static _Atomic unsigned int ucx_count;
/* For appending. Nothing is called with it held. */
static pthread_mutex_t objects_lock = PTHREAD_MUTEX_INITIALIZER;

struct search {
	uintptr_t addr; /* 0: the object of this name */
	const char *prefix;
	const char *path;
	uintptr_t start, end;
};

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static bool is_named(const char *path, const char *prefix)
{
	return !strncmp(base_name(path), prefix, strlen(prefix));
}

static int search_object(struct dl_phdr_info *info, size_t size, void *arg)
{
	uintptr_t start = UINTPTR_MAX, end = 0;
	struct search *search = arg;

	(void)size;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *header = &info->dlpi_phdr[i];
		uintptr_t at = info->dlpi_addr + header->p_vaddr;

		if (header->p_type != PT_LOAD)
			continue;
		if (at < start)
			start = at;
		if (at + header->p_memsz > end)
			end = at + header->p_memsz;
	}
	if (search->prefix ? !is_named(info->dlpi_name, search->prefix)
			   : search->addr < start || search->addr >= end)
		return 0;
	search->path = info->dlpi_name;
	search->start = start;
	search->end = end;
	return 1;
}

static void *look_up(void *handle, const char *name, const void *ours)
{
	void *found = handle ? real_dlsym()(handle, name) : NULL;

	/* A program's own handle finds what is global: us. */
	return found == ours ? real_dlsym()(RTLD_NEXT, name) : found;
}

static bool fill_in(struct ucx *ucx, void *handle)
{
#define GET(member, name, ours) \
	((ucx->member = (__typeof__(ucx->member))look_up(handle, name, ours)))
	return GET(rcache_get, "ucs_rcache_get", ucs_rcache_get) &&
	       GET(rcache_create, "ucs_rcache_create", ucs_rcache_create) &&
	       GET(rcache_destroy, "ucs_rcache_destroy", ucs_rcache_destroy) &&
	       GET(pgtable_lookup, "ucs_pgtable_lookup", ucs_pgtable_lookup) &&
	       GET(set_event_handler, "ucm_set_event_handler",
		   ucm_set_event_handler) &&
	       GET(vm_munmap, "ucm_vm_munmap", NULL);
#undef GET
}

/*
 * What the object at addr depends on is searched as the dynamic linker would,
 * but for us. If that finds nothing (it is a plug-in, say, that others are to
 * load UCX for) any UCX will do.
 */
static bool find_ucx(const struct search *caller, struct ucx *ucx)
{
	struct search libucs = {.prefix = "libucs"};
	void *handle = NULL;

	if (caller->path)
		handle = dlopen(*caller->path ? caller->path : NULL,
				RTLD_LAZY | RTLD_NOLOAD);
	if (fill_in(ucx, handle))
		return true;
	if (!dl_iterate_phdr(search_object, &libucs))
		return false;
	handle = dlopen(libucs.path, RTLD_LAZY | RTLD_NOLOAD);
	return fill_in(ucx, handle);
}

/* Under objects_lock. NULL: no room. */
static const struct ucx *add_ucx(const struct ucx *found)
{
	unsigned int n = atomic_load(&ucx_count);

	for (unsigned int i = 0; i < n; i++)
		if (ucxs[i].rcache_get == found->rcache_get)
			return &ucxs[i];
	if (n == UCXS)
		return NULL;
	ucxs[n] = *found;
	atomic_store(&ucx_count, n + 1);
	return &ucxs[n];
}

/* Which calls of an object are of interest; by the names of UCX's libraries. */
static void judge(struct object *object, const char *path)
{
	bool transport = is_named(path, "libuct_");
	bool verbs = is_named(path, "libuct_ib");

	/* Others are of memory of GPUs, of other processes ... */
	object->keeps = verbs || !transport;
	/*
	 * libucs looks up for ucs_rcache_get(), which has been here, and for
	 * tables of other things.
	 */
	object->looks_up = object->keeps && !is_named(path, "libucs");
}

static const struct object *find_object(const void *addr)
{
	unsigned int n =
		atomic_load_explicit(&object_count, memory_order_acquire);

	for (unsigned int i = 0; i < n; i++)
		if ((uintptr_t)addr - objects[i].start <
		    objects[i].end - objects[i].start)
			return &objects[i];
	return NULL;
}

static const struct object *add_object(const void *addr)
{
	struct search caller = {.addr = (uintptr_t)addr};
	const struct object *known;
	struct object *object;
	struct ucx found;
	unsigned int n;

	/* Without a lock: it takes the dynamic linker's, see preload.c. */
	if (!dl_iterate_phdr(search_object, &caller))
		caller.start = caller.end = 0;
	if (!find_ucx(&caller, &found))
		return NULL;

	pthread_mutex_lock(&objects_lock);
	known = find_object(addr);
	n = atomic_load(&object_count);
	if (!known && n < OBJECTS) {
		object = &objects[n];
		object->start = caller.start;
		object->end = caller.end;
		object->ucx = add_ucx(&found);
		judge(object, caller.path ? caller.path : "");
		if (object->ucx) {
			known = object;
			atomic_store_explicit(&object_count, n + 1,
					      memory_order_release);
		}
	}
	pthread_mutex_unlock(&objects_lock);
	return known;
}

/* Never NULL where there is a UCX: nobody else calls us. */
static const struct object *object_of(const void *addr)
{
	const struct object *object = find_object(addr);

	return object ? object : add_object(addr);
}

/* ---- what UCX keeps ---------------------------------------------------------------- */

/*
 * UCX's caches of registrations. While there is one, what UCX registers must
 * not be kept below it as well, so a cache counts from before it is made until
 * after it is gone.
 */
struct rcache {
	const void *rcache;
	struct rcache *next;
};

static struct rcache *rcaches;
static unsigned int rcache_count;
static pthread_mutex_t rcaches_lock = PTHREAD_MUTEX_INITIALIZER;
/* This thread is in ucs_rcache_create() for one that counts. */
static __thread bool creating __attribute__((tls_model("initial-exec")));

static void count_rcaches(int change)
{
	pthread_mutex_lock(&rcaches_lock);
	rcache_count += (unsigned int)change;
	guard_set_keeping(GUARD_UCX, rcache_count > 0);
	pthread_mutex_unlock(&rcaches_lock);
}

/* Without memory it counts for ever, which is safe. */
static void remember(const void *made)
{
	struct rcache *rcache = malloc(sizeof(*rcache));

	if (!rcache)
		return;
	rcache->rcache = made;
	pthread_mutex_lock(&rcaches_lock);
	LL_PREPEND(rcaches, rcache);
	pthread_mutex_unlock(&rcaches_lock);
}

static bool forget(const void *made)
{
	struct rcache *rcache;

	pthread_mutex_lock(&rcaches_lock);
	LL_SEARCH_SCALAR(rcaches, rcache, rcache, made);
	if (rcache)
		LL_DELETE(rcaches, rcache);
	pthread_mutex_unlock(&rcaches_lock);
	free(rcache);
	return rcache;
}

EXPORT long ucs_rcache_create(const void *params, const char *name, void *stats,
			      void **rcache)
{
	const struct object *caller = object_of(CALLER);
	long status;

	if (!caller)
		return UCS_ERR_UNSUPPORTED;
	if (!caller->keeps)
		return caller->ucx->rcache_create(params, name, stats, rcache);
	count_rcaches(1);
	creating = true;
	status = caller->ucx->rcache_create(params, name, stats, rcache);
	creating = false;
	if ((signed char)status == UCS_OK)
		remember(*rcache);
	else
		count_rcaches(-1);
	return status;
}

EXPORT void ucs_rcache_destroy(void *rcache)
{
	const struct object *caller = object_of(CALLER);
	/* Before it is gone: another one may get its address. */
	bool known = forget(rcache);

	if (caller)
		caller->ucx->rcache_destroy(rcache);
	if (known)
		count_rcaches(-1);
}

/* ---- before it is looked up ---------------------------------------------------------- */

/*
 * All UCXs are told: which of them registered it is not known. Each takes the
 * regions out of its caches, or if it cannot at once, remembers to do so before
 * it next looks at them under its lock. It deregisters nothing here.
 */
static void tell_ucx(void *arg, uintptr_t start, uintptr_t end)
{
	unsigned int n = atomic_load(&ucx_count);

	(void)arg;
	for (unsigned int i = 0; i < n && start < end; i++)
		ucxs[i].vm_munmap((void *)start, end - start);
}

EXPORT long ucs_rcache_get(long a, long b, long c, long d, long e, long f,
			   long g)
{
	const struct object *caller = object_of(CALLER);

	if (!caller)
		return UCS_ERR_UNSUPPORTED;
	if (caller->keeps) {
		guard_tell(GUARD_UCX, tell_ucx, NULL);
		guard_count_checked(false);
	}
	return caller->ucx->rcache_get(a, b, c, d, e, f, g);
}

/*
 * UCX looked into its queue of invalidations before it came here. What it is
 * told of now may be in that queue, and still in the table: then there is
 * nothing, and UCX goes the slow way, by ucs_rcache_get().
 */
EXPORT const struct region *ucs_pgtable_lookup(const void *table,
					       unsigned long addr)
{
	const struct object *caller = object_of(CALLER);
	const struct region *region;
	struct watched_set *set;
	bool refused;

	if (!caller)
		return NULL;
	if (!caller->looks_up)
		return caller->ucx->pgtable_lookup(table, addr);
	guard_tell(GUARD_UCX, tell_ucx, NULL);
	region = caller->ucx->pgtable_lookup(table, addr);
	set = guard_set(GUARD_UCX);
	if (!region || !set)
		return region;
	refused = watched_has_changed(set, region->start,
				      region->end - region->start);
	guard_count_checked(refused);
	return refused ? NULL : region;
}

/* ---- without patching libc ----------------------------------------------------------- */

/*
 * MRCACHE_GUARD_UCX_HOOKS=0: a cache that is guarded needs no events, so UCX
 * does not have to patch libc's functions for it. What is registered elsewhere
 * than in verbs (knem) has nobody else to tell of it.
 */
static bool does_without_hooks(void)
{
	const char *text = secure_getenv("MRCACHE_GUARD_UCX_HOOKS");
	struct search knem = {.prefix = "libuct_knem"};
	struct mrcache *cache;

	if (!text || strcmp(text, "0"))
		return false;
	cache = guard_cache();
	if (cache && guard_open(GUARD_UCX) &&
	    !dl_iterate_phdr(search_object, &knem))
		return true;
	if (cache && mrc_once(cache, ONCE_UCX_HOOKS))
		mrc_log(&cache->attr, MRCACHE_LOG_WARN,
			"MRCACHE_GUARD_UCX_HOOKS=0 is ignored: UCX's cache needs them");
	return false;
}

/* UCX fails to make its cache when it cannot patch; so it must not try. */
EXPORT long ucm_set_event_handler(int events, int priority, void *fn, void *arg)
{
	const struct object *caller = object_of(CALLER);
	handler_fn *real;
	int others = events & ~UCM_EVENT_VM_UNMAPPED;
	long status;

	if (!caller)
		return UCS_ERR_UNSUPPORTED;
	real = caller->ucx->set_event_handler;
	if (!creating || !(events & UCM_EVENT_VM_UNMAPPED) ||
	    !does_without_hooks())
		return real(events, priority, fn, arg);
	/* Both are removed by one call, which names the same fn and arg. */
	if (others) {
		status = real(others, priority, fn, arg);
		if ((signed char)status != UCS_OK)
			return status;
	}
	return real(UCM_EVENT_VM_UNMAPPED | UCM_EVENT_FLAG_NO_INSTALL, priority,
		    fn, arg);
}
