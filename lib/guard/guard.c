/* SPDX-License-Identifier: BSD-2-Clause */
#include "guard.h"

#include "stacks.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct {
	const char *what; /* in lines for people */
	/* Objects whose registrations are the stack's; ends of their names. */
	const char *prefix[2], *suffix;
	/* In this order: set, then the registrations it is needed for. */
	struct watched_set *_Atomic set;
} stacks[GUARD_STACKS] = {
	[GUARD_UCX] = {.what = "UCX", .prefix = {"libuct", "libucp"}},
	[GUARD_FABRIC] = {.what = "libfabric",
			  .prefix = {"libfabric"},
			  .suffix = "-fi.so"},
};

/* What guard_parse() gives are bits of these. */
_Static_assert((int)GUARD_UCX == STACK_UCX &&
		       (int)GUARD_FABRIC == STACK_FABRIC &&
		       (int)GUARD_STACKS == GUARDED_STACKS,
	       "the same order");

static struct mrcache *the_cache;
static int (*the_dereg_mr)(struct ibv_mr *mr);
static _Atomic unsigned int allowed = (1u << GUARD_STACKS) - 1;
static _Atomic unsigned int keeping; /* bit n: stack n has a cache */

/* ---- settings -------------------------------------------------------------------- */

void guard_init(struct mrcache *cache, int (*dereg_mr)(struct ibv_mr *mr))
{
	const char *text = secure_getenv("MRCACHE_GUARD");
	unsigned int bits;

	if (!guard_parse(text, &bits))
		mrc_log(&cache->attr, MRCACHE_LOG_WARN,
			"MRCACHE_GUARD=%s: not " GUARD_WANTS
			": all are guarded",
			text);
	atomic_store(&allowed, bits);
	the_dereg_mr = dereg_mr;
	the_cache = cache;
}

bool guard_is_allowed(enum guard_stack stack)
{
	return atomic_load(&allowed) & 1u << stack;
}

/* ---- who calls ------------------------------------------------------------------- */

void guard_set_keeping(enum guard_stack stack, bool does)
{
	if (does)
		atomic_fetch_or(&keeping, 1u << stack);
	else
		atomic_fetch_and(&keeping, ~(1u << stack));
}

static bool is_of(enum guard_stack stack, const char *object)
{
	const char *slash = strrchr(object, '/'),
		   *suffix = stacks[stack].suffix;
	const char *name = slash ? slash + 1 : object;

	for (size_t i = 0; i < 2 && stacks[stack].prefix[i]; i++)
		if (!strncmp(name, stacks[stack].prefix[i],
			     strlen(stacks[stack].prefix[i])))
			return true;
	return suffix && strstr(name, suffix);
}

enum guard_stack guard_keeper(const void *return_address)
{
	unsigned int kept =
		atomic_load_explicit(&keeping, memory_order_acquire) &
		atomic_load_explicit(&allowed, memory_order_relaxed);
	Dl_info info;

	if (!kept || !dladdr(return_address, &info) || !info.dli_fname)
		return GUARD_STACKS;
	for (unsigned int i = 0; i < GUARD_STACKS; i++)
		if ((kept & 1u << i) && is_of(i, info.dli_fname))
			return i;
	return GUARD_STACKS;
}

/* ---- registrations ----------------------------------------------------------------- */

void guard_say_unguarded(enum guard_stack stack, const char *why)
{
	mrc_log(&the_cache->attr, MRCACHE_LOG_WARN,
		"the registration cache of %s is not guarded: %s",
		stacks[stack].what, why);
	atomic_fetch_or(&the_cache->counters->unguarded, 1u << stack);
}

struct mrc_monitor *guard_monitor(enum guard_stack stack)
{
	const struct mrcache_attr *attr = &the_cache->attr;
	const char *name = attr->monitor ? attr->monitor : "auto";
	struct mrc_monitor *monitor = NULL;
	int error = -EOPNOTSUPP;

	/* As for the cache: the environment has the last word. */
	if (!strcmp(name, "auto") || !strcmp(name, "ummunotify"))
		error = mrc_monitor_ummunotify(
			&monitor,
			attr->device ? attr->device : "/dev/ummunotify", false);
	if (!error && !monitor->states) {
		monitor->ops->close(monitor);
		error = -EOPNOTSUPP;
	}
	if (!error)
		return monitor;
	guard_say_unguarded(stack, error == -EOPNOTSUPP
					   ? "the monitor has no state words"
					   : mrcache_strerror(error));
	return NULL;
}

static void open_ucx(void)
{
	struct mrc_monitor *monitor = guard_monitor(GUARD_UCX);
	struct watched_set *set;

	if (!monitor)
		return;
	set = watched_open(monitor, the_dereg_mr, the_cache->attr.repins);
	if (!set)
		guard_say_unguarded(GUARD_UCX, mrcache_strerror(errno));
	atomic_store(&stacks[GUARD_UCX].set, set);
}

struct watched_set *guard_set(enum guard_stack stack)
{
	struct watched_set *set =
		atomic_load_explicit(&stacks[stack].set, memory_order_acquire);

	return set && watched_is_owner(set) ? set : NULL;
}

struct watched_set *guard_open(enum guard_stack stack)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	if (stack != GUARD_UCX || !guard_is_allowed(stack))
		return NULL;
	pthread_once(&once, open_ucx);
	return guard_set(stack);
}

static void count_unwatched(void)
{
	uint64_t n = guard_fabric_unwatched();

	for (unsigned int i = 0; i < GUARD_STACKS; i++)
		if (stacks[i].set)
			n += atomic_load(&stacks[i].set->unwatched);
	atomic_store(&the_cache->counters->counts[STAT_GUARD_UNWATCHED], n);
}

struct ibv_mr *guard_reg(enum guard_stack stack, void *addr, size_t length,
			 watched_pin_fn *pin, void *arg)
{
	struct watched_set *set;
	struct ibv_mr *mr;

	if (stack == GUARD_FABRIC) {
		mr = guard_fabric_reg(addr, length, pin, arg);
	} else {
		set = guard_open(stack);
		if (!set)
			return pin(arg);
		mr = watched_reg(set, addr, length, pin, arg);
	}
	if (mr)
		mrc_count(the_cache, STAT_GUARDED);
	count_unwatched();
	return mr;
}

int guard_unpin(struct ibv_mr *mr)
{
	return the_dereg_mr(mr);
}

int guard_dereg(struct ibv_mr *mr)
{
	int fabric = guard_fabric_dereg(mr);

	if (fabric != -ENOENT)
		return fabric;
	for (unsigned int i = 0; i < GUARD_STACKS; i++) {
		struct watched_set *set = guard_set(i);
		int ret = set ? watched_dereg(set, mr) : -ENOENT;

		if (ret != -ENOENT)
			return ret;
	}
	return -ENOENT;
}

/* ---- telling and counting ------------------------------------------------------------ */

void guard_tell(enum guard_stack stack, watched_tell_fn *fn, void *arg)
{
	struct watched_set *set = guard_set(stack);
	int told;

	if (!set || !watched_has_news(set))
		return;
	told = watched_tell(set, fn, arg);
	if (told > 0)
		mrc_add(the_cache, STAT_GUARD_TOLD, (uint64_t)told);
	else if (told < 0 && mrc_once(the_cache, ONCE_MONITOR))
		mrc_log(&the_cache->attr, MRCACHE_LOG_ERROR,
			"the monitor cannot be read: %s; %s keeps no registration",
			mrcache_strerror(told), stacks[stack].what);
}

void guard_count_checked(bool refused)
{
	static _Atomic unsigned int threads;
	static __thread unsigned int line
		__attribute__((tls_model("initial-exec")));
	struct mrcache *cache = the_cache;

	if (!cache || !mrc_is_owner(cache))
		return;
	/* A line for each of the first threads; then they share. */
	if (!line)
		line = 1 + atomic_fetch_add(&threads, 1) % MRC_COUNTED_THREADS;
	atomic_fetch_add_explicit(
		&cache->counters->threads[line - 1].guard_checked, 1,
		memory_order_relaxed);
	if (refused)
		mrc_count(cache, STAT_GUARD_REFUSED);
}
