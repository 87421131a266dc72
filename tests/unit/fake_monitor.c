/* SPDX-License-Identifier: BSD-2-Clause */
/* A monitor whose invalidations the test makes; see fake_monitor.h. */
#define _GNU_SOURCE
#include "fake_monitor.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include <uthash.h>
#include <utlist.h>

#define STATE_FREE    0x80u
#define STATE_TOUCHED 0x01u

/* State words: as many as there are, dense or one on each page. */
#define SLOTS	     4096u
#define SPREAD	     (PAGE / sizeof(uint32_t))
#define STATES_BYTES (SLOTS * PAGE)
#define MAX_CHANGES  16

struct watch {
	uint64_t cookie, start, end;
	uint32_t slot;
	bool armed;
	bool in_flight; /* armed while some change was under way */
	bool pending;
	struct watch *prev, *next; /* pending, in order */
	UT_hash_handle hh;	   /* by cookie */
};

/* A report whose cookie may be wild. */
struct event {
	uint64_t cookie;
	struct event *next;
};

struct fake_monitor {
	struct mrc_monitor monitor; /* first: what the cache sees */
	pid_t pid; /* who made it; others must leave alone what is shared */
	unsigned int flags, per_read, max_watches;
	_Atomic bool certain;
	int memory; /* of both, shared */
	uint64_t *generation;
	uint32_t *states;
	size_t mapped;
	void *seen; /* the cache's mapping, if it is another */
	struct watch *watches, *pending;
	struct event *events;
	uint32_t next_slot;
	uint32_t free_slots[SLOTS], n_free;
	uint32_t arms;
	struct fake_monitor *prev, *next;
};

/* One lock for all, so that a change is seen by all at once. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct fake_monitor *monitors;
static struct {
	uint64_t start, end;
} changes[MAX_CHANGES];

/* ---- state ------------------------------------------------------------------- */

static uint32_t *word(struct fake_monitor *m, uint32_t slot)
{
	return &m->states[slot];
}

static void grow_generation(struct fake_monitor *m)
{
	__atomic_store_n(m->generation, *m->generation + 1, __ATOMIC_RELEASE);
}

static void poll_in(struct fake_monitor *m)
{
	if (m->monitor.fd >= 0)
		eventfd_write(m->monitor.fd, 1);
}

static void poll_out(struct fake_monitor *m)
{
	eventfd_t value;

	if (m->monitor.fd >= 0)
		eventfd_read(m->monitor.fd, &value);
}

static bool any_change(void)
{
	for (int i = 0; i < MAX_CHANGES; i++)
		if (changes[i].end)
			return true;
	return false;
}

static void arm(struct fake_monitor *m, struct watch *w,
		struct mrc_watch *armed)
{
	w->armed = true;
	w->in_flight = any_change();
	if (w->pending)
		DL_DELETE(m->pending, w);
	w->pending = false;
	if (m->states) {
		__atomic_store_n(word(m, w->slot), ++m->arms << 8,
				 __ATOMIC_RELEASE);
		armed->slot = w->slot;
		armed->armed = m->arms << 8;
	}
}

/* Whether it counts. */
static bool hit(struct fake_monitor *m, struct watch *w)
{
	if (!w->armed)
		return false;
	w->in_flight = false;
	if (m->states) {
		w->armed = false;
		__atomic_store_n(word(m, w->slot),
				 *word(m, w->slot) | STATE_TOUCHED,
				 __ATOMIC_RELEASE);
	}
	if (!w->pending) {
		w->pending = true;
		DL_APPEND(m->pending, w);
	}
	return true;
}

static void invalidate(uint64_t start, uint64_t end, bool only_in_flight)
{
	struct fake_monitor *m;
	struct watch *w, *next;

	DL_FOREACH(monitors, m)
	{
		bool any = false;

		HASH_ITER(hh, m->watches, w, next)
		if (w->start < end && start < w->end &&
		    (!only_in_flight || w->in_flight))
			any |= hit(m, w);
		if (any) {
			grow_generation(m);
			poll_in(m);
		}
	}
}

void fake_change_begin(const void *addr, size_t length)
{
	uint64_t start = (uintptr_t)addr;
	int i;

	pthread_mutex_lock(&lock);
	for (i = 0; i < MAX_CHANGES && changes[i].end; i++)
		;
	if (i < MAX_CHANGES) {
		changes[i].start = start;
		changes[i].end = start + length;
	} else {
		fake_trouble("too many changes at a time");
	}
	invalidate(start, start + length, false);
	pthread_mutex_unlock(&lock);
}

void fake_change_end(const void *addr, size_t length)
{
	uint64_t start = (uintptr_t)addr;
	int i;

	pthread_mutex_lock(&lock);
	for (i = 0; i < MAX_CHANGES; i++)
		if (changes[i].start == start &&
		    changes[i].end == start + length)
			break;
	if (i < MAX_CHANGES)
		changes[i].end = 0;
	else
		fake_trouble("a change ends that has not begun");
	fake_new_versions(addr, length);
	invalidate(start, start + length, true);
	pthread_mutex_unlock(&lock);
}

void fake_change(const void *addr, size_t length)
{
	fake_change_begin(addr, length);
	fake_change_end(addr, length);
}

void fake_alarm(const void *addr, size_t length)
{
	uint64_t start = (uintptr_t)addr;

	pthread_mutex_lock(&lock);
	invalidate(start, start + length, false);
	pthread_mutex_unlock(&lock);
}

void fake_event(struct fake_monitor *m, uint64_t cookie)
{
	struct event *event;

	fake_allocates++;
	event = malloc(sizeof(*event));
	fake_allocates--;
	if (!event)
		abort();
	pthread_mutex_lock(&lock);
	event->cookie = cookie;
	LL_APPEND(m->events, event);
	grow_generation(m);
	poll_in(m);
	pthread_mutex_unlock(&lock);
}

void fake_noise(struct fake_monitor *m)
{
	pthread_mutex_lock(&lock);
	grow_generation(m);
	poll_in(m);
	pthread_mutex_unlock(&lock);
}

/* ---- operations ---------------------------------------------------------------- */

static struct fake_monitor *of(struct mrc_monitor *monitor)
{
	return (struct fake_monitor *)monitor;
}

static struct watch *find(struct fake_monitor *m, uint64_t cookie)
{
	struct watch *w;

	HASH_FIND(hh, m->watches, &cookie, sizeof(cookie), w);
	return w;
}

static int add(struct fake_monitor *m, uint64_t start, uint64_t end,
	       uint64_t cookie, struct mrc_watch *armed)
{
	struct watch *w;

	if (find(m, cookie)) {
		fake_trouble("watch with a cookie in use");
		return -EEXIST;
	}
	if (end <= start) {
		fake_trouble("watch of an empty range");
		return -EINVAL;
	}
	if (HASH_COUNT(m->watches) >= m->max_watches)
		return -ENOSPC;
	w = calloc(1, sizeof(*w));
	if (!w)
		abort();
	w->cookie = cookie;
	w->start = start;
	w->end = end;
	w->slot = m->n_free ? m->free_slots[--m->n_free] : m->next_slot++;
	HASH_ADD(hh, m->watches, cookie, sizeof(w->cookie), w);
	arm(m, w, armed);
	return 0;
}

static int fake_watch(struct mrc_monitor *monitor, uint64_t start, uint64_t end,
		      uint64_t cookie, struct mrc_watch *armed)
{
	int ret = -fake_enter(FAKE_WATCH);

	if (!ret) {
		fake_allocates++;
		pthread_mutex_lock(&lock);
		ret = add(of(monitor), start, end, cookie, armed);
		pthread_mutex_unlock(&lock);
		fake_allocates--;
	}
	fake_leave(FAKE_WATCH);
	errno = EXFULL;
	return ret;
}

static int fake_rearm(struct mrc_monitor *monitor, uint64_t cookie,
		      struct mrc_watch *armed)
{
	struct fake_monitor *m = of(monitor);
	int ret = -fake_enter(FAKE_REARM);
	struct watch *w;

	pthread_mutex_lock(&lock);
	w = find(m, cookie);
	if (!w) {
		fake_trouble("rearm of an unknown cookie");
		ret = -ENOENT;
	} else if (!ret && m->states) {
		arm(m, w, armed);
	}
	pthread_mutex_unlock(&lock);
	fake_leave(FAKE_REARM);
	errno = EXFULL;
	return ret;
}

static int fake_renew(struct mrc_monitor *monitor, uint64_t start, uint64_t end,
		      uint64_t cookie, struct mrc_watch *armed)
{
	struct fake_monitor *m = of(monitor);
	int ret = -fake_enter(FAKE_RENEW);
	struct watch *w;

	pthread_mutex_lock(&lock);
	w = find(m, cookie);
	if (!w || w->start != start || w->end != end) {
		fake_trouble("renewal of what is not watched");
		ret = -ENOENT;
	} else if (!ret) {
		arm(m, w, armed);
	}
	pthread_mutex_unlock(&lock);
	fake_leave(FAKE_RENEW);
	errno = EXFULL;
	return ret;
}

static void remove_watch(struct fake_monitor *m, struct watch *w)
{
	if (w->pending)
		DL_DELETE(m->pending, w);
	if (m->states && m->pid == getpid())
		__atomic_store_n(word(m, w->slot),
				 *word(m, w->slot) | STATE_FREE,
				 __ATOMIC_RELEASE);
	m->free_slots[m->n_free++] = w->slot;
	HASH_DEL(m->watches, w);
	fake_free(w);
}

static int fake_unwatch(struct mrc_monitor *monitor, uint64_t cookie)
{
	struct fake_monitor *m = of(monitor);
	int ret = -fake_enter(FAKE_UNWATCH);
	struct watch *w;

	pthread_mutex_lock(&lock);
	w = find(m, cookie);
	if (!w) {
		fake_trouble("unwatch of an unknown cookie");
		ret = -EINVAL;
	} else {
		/* It is gone, whatever is said: no error leaves it. */
		remove_watch(m, w);
	}
	pthread_mutex_unlock(&lock);
	fake_leave(FAKE_UNWATCH);
	errno = EXFULL;
	return ret;
}

/* With the lock. */
static size_t take_events(struct fake_monitor *m, uint64_t *cookies, size_t max)
{
	size_t n = 0;

	while (n < max && m->events) {
		struct event *event = m->events;

		cookies[n++] = event->cookie;
		LL_DELETE(m->events, event);
		fake_free(event);
	}
	while (n < max && m->pending) {
		struct watch *w = m->pending;

		cookies[n++] = w->cookie;
		w->pending = false;
		/* Without state words this is what arms it again. */
		w->in_flight = !m->states && any_change();
		DL_DELETE(m->pending, w);
	}
	return n;
}

static int fake_read(struct mrc_monitor *monitor, uint64_t *cookies, size_t max,
		     uint64_t *generation, bool *empty)
{
	struct fake_monitor *m = of(monitor);
	int ret = -fake_enter(FAKE_READ);
	size_t n = 0;

	if (!ret) {
		pthread_mutex_lock(&lock);
		if (max > m->per_read)
			max = m->per_read;
		n = take_events(m, cookies, max);
		*empty = !m->pending && !m->events &&
			 !(n && m->flags & FAKE_ALONE);
		if (*empty) {
			*generation = *m->generation;
			poll_out(m);
		}
		pthread_mutex_unlock(&lock);
	}
	fake_leave(FAKE_READ);
	errno = EXFULL;
	return ret ? ret : (int)n;
}

static void fake_close(struct mrc_monitor *monitor)
{
	struct fake_monitor *m = of(monitor);
	struct watch *w, *next;
	struct event *event, *after;

	fake_enter(FAKE_CLOSE);
	pthread_mutex_lock(&lock);
	if (monitors)
		DL_DELETE(monitors, m);
	HASH_ITER(hh, m->watches, w, next)
	remove_watch(m, w);
	LL_FOREACH_SAFE(m->events, event, after)
	fake_free(event);
	pthread_mutex_unlock(&lock);
	if (m->monitor.fd >= 0)
		close(m->monitor.fd);
	fake_allocates++;
	if (m->seen)
		munmap(m->seen, m->mapped);
	munmap(m->generation, m->mapped);
	fake_allocates--;
	close(m->memory);
	fake_free(m);
	fake_leave(FAKE_CLOSE);
	errno = EXFULL;
}

/* ---- fingerprints ------------------------------------------------------------- */

static uint64_t versions_of(const struct watch *w)
{
	uint64_t hash = w->start;
	size_t n, end;

	for (fake_pages(w->start, w->end - w->start, &n, &end); n < end; n++)
		hash = hash * UINT64_C(0x100000001b3) ^ fake_version(n);
	return hash;
}

static bool fake_is_alarm(const struct mrc_monitor *monitor,
			  const struct mrc_watch *watch)
{
	(void)watch;
	return !((const struct fake_monitor *)monitor)->certain;
}

static int fake_print(struct mrc_monitor *monitor, struct mrc_print *print)
{
	struct fake_monitor *m = of(monitor);
	int ret = -fake_enter(FAKE_PRINT);
	struct watch *w;

	pthread_mutex_lock(&lock);
	w = find(m, print->cookie);
	if (!w)
		fake_trouble("fingerprint of an unknown cookie");
	if (!ret && (!w || *word(m, w->slot) != print->watch.armed ||
		     (w->in_flight && any_change())))
		ret = -ENODATA;
	if (!ret)
		print->fingerprint = versions_of(w);
	pthread_mutex_unlock(&lock);
	fake_leave(FAKE_PRINT);
	errno = EXFULL;
	return ret;
}

static int fake_verify(struct mrc_monitor *monitor, struct mrc_print *prints,
		       size_t n)
{
	struct fake_monitor *m = of(monitor);
	int ret = -fake_enter(FAKE_VERIFY);
	struct watch *w;
	size_t i;

	pthread_mutex_lock(&lock);
	for (i = 0; i < n && !ret; i++) {
		w = find(m, prints[i].cookie);
		if (!w)
			fake_trouble("verifying an unknown cookie");
		else
			arm(m, w, &prints[i].watch);
	}
	pthread_mutex_unlock(&lock);
	fake_during(FAKE_VERIFY);
	pthread_mutex_lock(&lock);
	for (i = 0; i < n && !ret; i++) {
		w = find(m, prints[i].cookie);
		prints[i].same = w &&
				 *word(m, w->slot) == prints[i].watch.armed &&
				 versions_of(w) == prints[i].fingerprint;
	}
	pthread_mutex_unlock(&lock);
	fake_leave(FAKE_VERIFY);
	errno = EXFULL;
	return ret;
}

static const struct mrc_monitor_ops print_ops = {
	.watch = fake_watch,
	.rearm = fake_rearm,
	.renew = fake_renew,
	.unwatch = fake_unwatch,
	.read = fake_read,
	.is_alarm = fake_is_alarm,
	.fingerprint = fake_print,
	.verify = fake_verify,
	.close = fake_close,
};

static const struct mrc_monitor_ops ops = {
	.watch = fake_watch,
	.rearm = fake_rearm,
	.renew = fake_renew,
	.unwatch = fake_unwatch,
	.read = fake_read,
	.close = fake_close,
};

/* ---- new --------------------------------------------------------------------- */

struct fake_monitor *fake_monitor_new(unsigned int flags)
{
	int memory = memfd_create("monitor", MFD_CLOEXEC);
	size_t mapped = PAGE + STATES_BYTES;
	struct fake_monitor *m;
	char *seen;

	fake_allocates++;
	m = calloc(1, sizeof(*m));
	if (!m || memory < 0 || ftruncate(memory, (off_t)mapped))
		abort();
	m->pid = getpid();
	m->flags = flags;
	m->per_read = 128;
	m->max_watches = SLOTS;
	m->mapped = mapped;
	/* Shared with a fork child, as the driver's. */
	m->generation = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_SHARED,
			     memory, 0);
	if (m->generation == MAP_FAILED)
		abort();
	seen = (char *)m->generation;
	if (flags & FAKE_TRAPS) {
		m->seen = mmap(NULL, mapped, PROT_READ, MAP_SHARED, memory, 0);
		if (m->seen == MAP_FAILED)
			abort();
		seen = m->seen;
	}
	m->memory = memory;
	m->monitor = (struct mrc_monitor){
		.ops = flags & FAKE_PRINTS ? &print_ops : &ops,
		.name = flags & FAKE_STATES ? "fake" : "fake-2010",
		.generation = (uint64_t *)seen,
		.fd = flags & FAKE_FD ? eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
				      : -1,
	};
	fake_allocates--;
	if (flags & FAKE_STATES) {
		m->states = (uint32_t *)((char *)m->generation + PAGE);
		m->monitor.states = (uint32_t *)(seen + PAGE);
	}
	if (flags & FAKE_TRAPS)
		/* Handed out from the free list only: one on each page. */
		for (uint32_t i = SLOTS; i > 0; i--)
			m->free_slots[m->n_free++] =
				(uint32_t)((i - 1) * SPREAD);
	pthread_mutex_lock(&lock);
	DL_APPEND(monitors, m);
	pthread_mutex_unlock(&lock);
	return m;
}

struct mrc_monitor *fake_monitor_base(struct fake_monitor *m)
{
	return &m->monitor;
}

void *fake_monitor_map(struct fake_monitor *m, size_t size, bool states)
{
	void *mapping;

	fake_allocates++;
	mapping = mmap(NULL, size, PROT_READ, MAP_SHARED, m->memory,
		       states ? (off_t)PAGE : 0);
	fake_allocates--;
	return mapping;
}

unsigned int fake_monitors(void)
{
	struct fake_monitor *m;
	unsigned int n = 0;

	pthread_mutex_lock(&lock);
	DL_FOREACH(monitors, m)
	n++;
	pthread_mutex_unlock(&lock);
	return n;
}

void fake_monitors_reset(void)
{
	pthread_mutex_lock(&lock);
	monitors = NULL;
	memset(changes, 0, sizeof(changes));
	pthread_mutex_unlock(&lock);
}

void fake_per_read(struct fake_monitor *m, unsigned int events)
{
	pthread_mutex_lock(&lock);
	m->per_read = events;
	pthread_mutex_unlock(&lock);
}

void fake_certain(struct fake_monitor *monitor)
{
	monitor->certain = true;
}

void fake_max_watches(struct fake_monitor *m, unsigned int watches)
{
	pthread_mutex_lock(&lock);
	m->max_watches = watches;
	pthread_mutex_unlock(&lock);
}

unsigned int fake_watches(struct fake_monitor *m)
{
	unsigned int n;

	pthread_mutex_lock(&lock);
	n = HASH_COUNT(m->watches);
	pthread_mutex_unlock(&lock);
	return n;
}

unsigned int fake_pending(struct fake_monitor *m)
{
	struct watch *w;
	unsigned int n = 0;

	pthread_mutex_lock(&lock);
	DL_FOREACH(m->pending, w)
	n++;
	pthread_mutex_unlock(&lock);
	return n;
}

uint64_t fake_generation(struct fake_monitor *m)
{
	uint64_t generation;

	pthread_mutex_lock(&lock);
	generation = *m->generation;
	pthread_mutex_unlock(&lock);
	return generation;
}

/* With the lock. */
static struct watch *overlapping(struct fake_monitor *m, const void *addr,
				 size_t length)
{
	uint64_t start = (uintptr_t)addr;
	struct watch *w, *next;

	HASH_ITER(hh, m->watches, w, next)
	if (w->start < start + length && start < w->end)
		return w;
	return NULL;
}

uint64_t fake_cookie(struct fake_monitor *m, const void *addr, size_t length)
{
	struct watch *w;
	uint64_t cookie;

	pthread_mutex_lock(&lock);
	w = overlapping(m, addr, length);
	cookie = w ? w->cookie : 0;
	pthread_mutex_unlock(&lock);
	return cookie;
}

uint32_t fake_slot(struct fake_monitor *m, const void *addr, size_t length)
{
	struct watch *w;
	uint32_t slot;

	pthread_mutex_lock(&lock);
	w = overlapping(m, addr, length);
	slot = w ? w->slot : UINT32_MAX;
	pthread_mutex_unlock(&lock);
	return slot;
}

/* ---- traps ------------------------------------------------------------------- */

static struct trap {
	_Atomic(char *) page; /* NULL: not set */
	void (*function)(void *arg);
	void *arg;
} traps[4];

/* In the thread that reads, which cannot go on until this returns. */
static void on_fault(int signal, siginfo_t *info, void *context)
{
	char *fault = (char *)((uintptr_t)info->si_addr & ~(PAGE - 1));

	(void)context;
	for (size_t i = 0; i < sizeof(traps) / sizeof(*traps); i++) {
		struct trap *trap = &traps[i];
		char *page = fault;

		if (atomic_compare_exchange_strong(&trap->page, &page, NULL)) {
			int saved = errno;

			mprotect(fault, PAGE, PROT_READ);
			trap->function(trap->arg);
			errno = saved;
			return;
		}
	}
	/* Not ours: the program ends when it faults again. */
	sigaction(signal, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
}

static void set_trap(struct fake_monitor *m, const void *place,
		     void (*function)(void *), void *arg)
{
	struct sigaction action = {.sa_sigaction = on_fault,
				   .sa_flags = SA_SIGINFO | SA_NODEFER};
	char *start = (char *)((uintptr_t)place & ~(PAGE - 1));

	if (!m->seen)
		abort();
	sigaction(SIGSEGV, &action, NULL);
	for (size_t i = 0; i < sizeof(traps) / sizeof(*traps); i++) {
		struct trap *trap = &traps[i];

		if (atomic_load(&trap->page))
			continue;
		trap->function = function;
		trap->arg = arg;
		atomic_store(&trap->page, start);
		if (mprotect(start, PAGE, PROT_NONE))
			abort();
		return;
	}
	abort();
}

void fake_trap_generation(struct fake_monitor *m, void (*function)(void *arg),
			  void *arg)
{
	set_trap(m, m->monitor.generation, function, arg);
}

void fake_trap_state(struct fake_monitor *m, uint32_t slot,
		     void (*function)(void *arg), void *arg)
{
	if (slot == UINT32_MAX) {
		fake_trouble("a trap for the state of no watch");
		return;
	}
	set_trap(m, &m->monitor.states[slot], function, arg);
}

bool fake_trapped(void)
{
	for (size_t i = 0; i < sizeof(traps) / sizeof(*traps); i++)
		if (atomic_load(&traps[i].page))
			return false;
	return true;
}

/* ---- fork -------------------------------------------------------------------- */

static void before_fork(void)
{
	pthread_mutex_lock(&lock);
}

static void after_fork(void)
{
	pthread_mutex_unlock(&lock);
}

/* Before the cache sets its own, so that these locks are taken after its. */
static __attribute__((constructor(300))) void set_fork_handlers(void)
{
	pthread_atfork(before_fork, after_fork, after_fork);
}
