/* SPDX-License-Identifier: BSD-2-Clause */
/* Counts, failures, hooks and memory of the fakes; see fake.h. */
#include "fake.h"
#include "types.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

size_t fake_page_size;

__attribute__((constructor)) static void find_page_size(void)
{
	fake_page_size = (size_t)sysconf(_SC_PAGESIZE);
}

static const char *const names[FAKE_CALLS] = {
	"reg_mr", "dereg_mr", "watch",	 "rearm", "renew",  "unwatch",
	"print",  "verify",   "read",	 "close", "malloc", "mmap",
	"thread", "key",      "eventfd", "poll",  "open",   "features",
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
	unsigned int calls, fail_from, fail_end;
	int error;
} calls[FAKE_CALLS];
static fake_hook_fn *hook;
static void *hook_arg;
static struct mrcache *checked;
static char trouble[256];
static _Atomic uint32_t versions[FAKE_PAGES];

__thread int fake_allocates;

void fake_reset(void)
{
	pthread_mutex_lock(&lock);
	for (int i = 0; i < FAKE_CALLS; i++) {
		calls[i].calls = 0;
		calls[i].fail_from = calls[i].fail_end = 0;
	}
	hook = NULL;
	checked = NULL;
	trouble[0] = '\0';
	for (size_t i = 0; i < FAKE_PAGES; i++)
		atomic_store_explicit(&versions[i], 0, memory_order_relaxed);
	pthread_mutex_unlock(&lock);
}

void fake_hook(fake_hook_fn *function, void *arg)
{
	pthread_mutex_lock(&lock);
	hook = function;
	hook_arg = arg;
	pthread_mutex_unlock(&lock);
}

void fake_fail(enum fake_call call, unsigned int nth, unsigned int times,
	       int error)
{
	pthread_mutex_lock(&lock);
	calls[call].fail_from = calls[call].calls + nth;
	calls[call].fail_end = calls[call].fail_from + times;
	calls[call].error = error;
	pthread_mutex_unlock(&lock);
}

unsigned int fake_calls(enum fake_call call)
{
	unsigned int n;

	pthread_mutex_lock(&lock);
	n = calls[call].calls;
	pthread_mutex_unlock(&lock);
	return n;
}

unsigned int fake_monitor_calls(void)
{
	unsigned int n = 0;

	for (int i = FAKE_WATCH; i <= FAKE_READ; i++)
		n += fake_calls((enum fake_call)i);
	return n;
}

unsigned int fake_all_calls(void)
{
	return fake_monitor_calls() + fake_calls(FAKE_REG) +
	       fake_calls(FAKE_DEREG);
}

void fake_check_locks(struct mrcache *cache)
{
	pthread_mutex_lock(&lock);
	checked = cache;
	pthread_mutex_unlock(&lock);
}

void fake_trouble(const char *format, ...)
{
	va_list args;

	pthread_mutex_lock(&lock);
	if (!trouble[0]) {
		va_start(args, format);
		vsnprintf(trouble, sizeof(trouble), format, args);
		va_end(args);
	}
	pthread_mutex_unlock(&lock);
}

const char *fake_first_trouble(void)
{
	const char *first;

	pthread_mutex_lock(&lock);
	first = trouble[0] ? trouble : NULL;
	pthread_mutex_unlock(&lock);
	return first;
}

static void check_free(pthread_mutex_t *mutex, const char *name,
		       const char *during)
{
	if (pthread_mutex_trylock(mutex))
		fake_trouble("%s with the cache's %s held", during, name);
	else
		pthread_mutex_unlock(mutex);
}

static void check_locks(struct mrcache *cache, const char *during, bool drains)
{
	if (!cache)
		return;
	check_free(&cache->lock, "lock", during);
	if (!drains)
		check_free(&cache->drain_lock, "drain_lock", during);
}

void fake_no_locks(const char *during)
{
	struct mrcache *cache;

	pthread_mutex_lock(&lock);
	cache = checked;
	pthread_mutex_unlock(&lock);
	check_locks(cache, during, false);
}

static void run_hook(enum fake_call call, enum fake_when when)
{
	fake_hook_fn *function;
	void *arg;

	pthread_mutex_lock(&lock);
	function = hook;
	arg = hook_arg;
	pthread_mutex_unlock(&lock);
	if (function)
		function(call, when, arg);
}

/* With the lock. */
static int count(enum fake_call call)
{
	unsigned int n = ++calls[call].calls;

	return n >= calls[call].fail_from && n < calls[call].fail_end
		       ? calls[call].error
		       : 0;
}

int fake_enter_system(enum fake_call call)
{
	int error;

	if (fake_allocates)
		return 0;
	pthread_mutex_lock(&lock);
	error = count(call);
	pthread_mutex_unlock(&lock);
	return error;
}

int fake_enter(enum fake_call call)
{
	struct mrcache *cache;
	int error;

	pthread_mutex_lock(&lock);
	cache = checked;
	error = count(call);
	pthread_mutex_unlock(&lock);
	check_locks(cache, names[call], call == FAKE_READ);
	run_hook(call, BEFORE);
	return error;
}

void fake_during(enum fake_call call)
{
	run_hook(call, DURING);
}

void fake_leave(enum fake_call call)
{
	run_hook(call, AFTER);
}

static void before_fork(void)
{
	pthread_mutex_lock(&lock);
}

static void after_fork(void)
{
	pthread_mutex_unlock(&lock);
}

/*
 * A priority: handlers set first lock last, and this lock is taken with the
 * other fakes' held.
 */
static __attribute__((constructor(200))) void set_fork_handlers(void)
{
	pthread_atfork(before_fork, after_fork, after_fork);
}

/* ---- memory ------------------------------------------------------------------ */

void fake_pages(uintptr_t start, size_t length, size_t *first, size_t *end)
{
	uintptr_t limit = FAKE_BASE + FAKE_PAGES * PAGE;
	uintptr_t stop = start + length < start ? UINTPTR_MAX : start + length;

	*first = *end = 0;
	if (start < FAKE_BASE)
		start = FAKE_BASE;
	if (stop > limit)
		stop = limit;
	if (!length || start >= stop)
		return;
	*first = (start - FAKE_BASE) / PAGE;
	*end = (stop - FAKE_BASE + PAGE - 1) / PAGE;
}

uint32_t fake_version(size_t n)
{
	return atomic_load(&versions[n]);
}

void fake_new_versions(const void *addr, size_t length)
{
	size_t n, end;

	for (fake_pages((uintptr_t)addr, length, &n, &end); n < end; n++)
		atomic_fetch_add(&versions[n], 1);
}
