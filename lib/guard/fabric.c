/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libfabric's caches ask a memory monitor that we import. Before the first of
 * them opens, and after libfabric's initialisation: the functions that come in
 * front of both are ours (preload.map). Registrations of libfabric's are
 * announced to the monitor (fabric/ranges.h).
 */
#include "fabric/import.h"
#include "guard.h"
#include "preload/real.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <strings.h>

#define EXPORT __attribute__((visibility("default")))

typedef int fi_fabric_fn(struct fi_fabric_attr *attr,
			 struct fid_fabric **fabric, void *context);
typedef int fi_fabric2_fn(struct fi_info *info, struct fid_fabric **fabric,
			  uint64_t flags, void *context);
typedef int fi_open_fn(uint32_t version, const char *name, void *attr,
		       size_t attr_len, uint64_t flags, struct fid **fid,
		       void *context);

static struct ranges *_Atomic the_ranges;

static void *libfabric(const char *name, const char *version)
{
	return real_function(name, version, NULL);
}

/* ---- the import -------------------------------------------------------------------------- */

static void keeping(bool keeps)
{
	guard_set_keeping(GUARD_FABRIC, keeps);
}

static void told(void)
{
	mrc_count(guard_cache(), STAT_GUARD_TOLD);
}

static const struct fabric_hooks hooks = {
	.keeping = keeping,
	.checked = guard_count_checked,
	.told = told,
};

static void do_import(const struct mrcache_attr *attr,
		      const struct fabric_functions *functions,
		      enum fabric_wish wish)
{
	struct mrc_monitor *monitor;
	struct ranges *ranges;
	int ret;

	/* Then it registers as any program does. */
	if (wish == FABRIC_DISABLED)
		return;
	monitor = guard_monitor(GUARD_FABRIC);
	if (!monitor)
		return;
	ranges = ranges_open(monitor);
	if (!ranges) {
		guard_say_unguarded(GUARD_FABRIC, mrcache_strerror(errno));
		return;
	}
	ret = fabric_import(functions, ranges, &hooks);
	if (ret) {
		ranges_close(ranges);
		guard_say_unguarded(
			GUARD_FABRIC,
			ret == -FI_EBUSY
				? "the program has a memory monitor of its own"
				: "it is older than 1.13");
		return;
	}
	if (wish == FABRIC_OTHER)
		mrc_log(attr, MRCACHE_LOG_WARN,
			"FI_MR_CACHE_MONITOR is overridden: the registration cache of libfabric is guarded (MRCACHE_GUARD=0 leaves it alone)");
	atomic_store(&the_ranges, ranges);
}

/* What this thread has found out before import_once(). */
struct known {
	struct fabric_functions functions;
	bool is_whole;
	enum fabric_wish wish;
};

static __thread const struct known *known
	__attribute__((tls_model("initial-exec")));

static _Atomic bool imported; /* or tried to */

static void import_once(void)
{
	if (known->is_whole)
		do_import(&guard_cache()->attr, &known->functions, known->wish);
	else
		guard_say_unguarded(GUARD_FABRIC, "it is older than 1.5");
}

/*
 * Looking up takes the dynamic linker's lock, as does libfabric's initialisation,
 * and its owner may be in a constructor that comes here. So not under `once`.
 */
static void find_out(struct known *it)
{
	struct fabric_functions *functions = &it->functions;

	functions->getparams = libfabric("fi_getparams", "FABRIC_1.0");
	functions->freeparams = libfabric("fi_freeparams", "FABRIC_1.0");
	functions->open = libfabric("fi_open", "FABRIC_1.5");
	it->is_whole = functions->getparams && functions->freeparams &&
		       functions->open;
	if (it->is_whole)
		it->wish = fabric_wish(functions);
}

static void import(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct known it = {.is_whole = false};
	struct mrcache *cache;

	if (atomic_load_explicit(&imported, memory_order_acquire))
		return;
	cache = guard_cache();
	if (cache && mrc_is_owner(cache) && guard_is_allowed(GUARD_FABRIC)) {
		find_out(&it);
		known = &it;
		pthread_once(&once, import_once);
		known = NULL;
	}
	atomic_store_explicit(&imported, true, memory_order_release);
}

/* ---- what programs call --------------------------------------------------------------------- */

EXPORT int fi_fabric(struct fi_fabric_attr *attr, struct fid_fabric **fabric,
		     void *context)
{
	fi_fabric_fn *fn = libfabric("fi_fabric", "FABRIC_1.1");

	import();
	return fn ? fn(attr, fabric, context) : -FI_ENOSYS;
}

EXPORT int fi_fabric2(struct fi_info *info, struct fid_fabric **fabric,
		      uint64_t flags, void *context)
{
	fi_fabric2_fn *fn = libfabric("fi_fabric2", "FABRIC_1.8");

	import();
	return fn ? fn(info, fabric, flags, context) : -FI_ENOSYS;
}

/* Who comes with a monitor of its own, as Open MPI does, comes after us. */
EXPORT int fi_open(uint32_t version, const char *name, void *attr,
		   size_t attr_len, uint64_t flags, struct fid **fid,
		   void *context)
{
	fi_open_fn *fn = libfabric("fi_open", "FABRIC_1.5");

	if (name && !strcasecmp(name, "mr_cache"))
		import();
	return fn ? fn(version, name, attr, attr_len, flags, fid, context)
		  : -FI_ENOSYS;
}

const struct guard_symbol guard_fabric_symbols[] = {
	{"fi_fabric", "FABRIC_1.1", fi_fabric},
	{"fi_fabric2", "FABRIC_1.8", fi_fabric2},
	{"fi_open", "FABRIC_1.5", fi_open},
	{NULL, NULL, NULL},
};

/* ---- registrations ------------------------------------------------------------------------------ */

struct call {
	watched_pin_fn *pin;
	void *arg;
};

static void *pin(void *arg)
{
	const struct call *call = arg;

	return call->pin(call->arg);
}

struct ibv_mr *guard_fabric_reg(void *addr, size_t length,
				watched_pin_fn *pin_fn, void *arg)
{
	struct ranges *ranges = atomic_load(&the_ranges);
	struct mrcache *cache = guard_cache();
	struct call call = {pin_fn, arg};
	struct ibv_mr *mr;

	if (!ranges)
		return pin_fn(arg);
	mr = ranges_reg(ranges, addr, length, pin, &call);
	if (ranges_is_broken(ranges) && mrc_once(cache, ONCE_MONITOR))
		mrc_log(&cache->attr, MRCACHE_LOG_ERROR,
			"the monitor cannot be read: libfabric keeps no registration");
	return mr;
}

static int unpin(void *mr)
{
	return guard_unpin(mr);
}

int guard_fabric_dereg(struct ibv_mr *mr)
{
	struct ranges *ranges =
		atomic_load_explicit(&the_ranges, memory_order_acquire);

	return ranges ? ranges_dereg(ranges, mr, unpin) : -ENOENT;
}

uint64_t guard_fabric_unwatched(void)
{
	struct ranges *ranges = atomic_load(&the_ranges);

	return ranges ? ranges_unwatched(ranges) : 0;
}
