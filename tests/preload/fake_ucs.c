/* SPDX-License-Identifier: BSD-2-Clause */
/* libucs.so.0 with libucm's functions; see fake_ucx.h. */
#include "fake_ucx.h"

#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

EXPORT void (*fake_at)(const char *point);

EXPORT void fake_ucs_at(void (*function)(const char *point))
{
	__atomic_store_n(&fake_at, function, __ATOMIC_RELEASE);
}

static void at(const char *point)
{
	void (*function)(const char *) =
		__atomic_load_n(&fake_at, __ATOMIC_ACQUIRE);

	if (function)
		function(point);
}

EXPORT bool fake_is_113(void)
{
	const char *version = getenv("FAKE_UCX");

	return !version || !strcmp(version, "1.13");
}

/* ---- libucm ---------------------------------------------------------------------- */

struct handler {
	int events;
	void (*fn)(int, struct fake_event *, void *);
	void *arg;
	struct handler *next;
};

static pthread_rwlock_t handlers_lock = PTHREAD_RWLOCK_INITIALIZER;
static struct handler *handlers;
static bool patched;

EXPORT bool fake_ucm_patched(void)
{
	return patched;
}

EXPORT signed char
ucm_set_event_handler(int events, int priority,
		      void (*fn)(int, struct fake_event *, void *), void *arg)
{
	const char *hooks = getenv("FAKE_UCM_HOOKS");
	struct handler *handler = malloc(sizeof(*handler));

	(void)priority;
	if (!(events & FAKE_NO_INSTALL)) {
		if (hooks && !strcmp(hooks, "none")) {
			free(handler);
			return FAKE_ERROR;
		}
		patched = true;
	}
	*handler = (struct handler){events, fn, arg, NULL};
	pthread_rwlock_wrlock(&handlers_lock);
	handler->next = handlers;
	handlers = handler;
	pthread_rwlock_unlock(&handlers_lock);
	return 0;
}

EXPORT void
ucm_unset_event_handler(int events,
			void (*fn)(int, struct fake_event *, void *), void *arg)
{
	struct handler **at_handler, *gone;

	(void)events;
	pthread_rwlock_wrlock(&handlers_lock);
	for (at_handler = &handlers; *at_handler;) {
		gone = *at_handler;
		if (gone->fn == fn && gone->arg == arg) {
			*at_handler = gone->next;
			free(gone);
		} else {
			at_handler = &gone->next;
		}
	}
	pthread_rwlock_unlock(&handlers_lock);
}

EXPORT void ucm_vm_munmap(void *addr, size_t length)
{
	struct fake_event event = {addr, length};

	at("unmapped");
	pthread_rwlock_rdlock(&handlers_lock);
	for (struct handler *h = handlers; h; h = h->next)
		if (h->events & FAKE_UNMAPPED)
			h->fn(FAKE_UNMAPPED, &event, h->arg);
	pthread_rwlock_unlock(&handlers_lock);
}

/* ---- the table ------------------------------------------------------------------- */

EXPORT struct fake_region *ucs_pgtable_lookup(const struct fake_table *table,
					      unsigned long addr)
{
	struct fake_region *region = table->regions;

	while (region && (addr < region->start || addr >= region->end))
		region = region->next;
	return region;
}

static void take_out(struct fake_rcache *rcache, struct fake_region *region)
{
	struct fake_region **at_region = &rcache->table.regions;

	while (*at_region != region)
		at_region = &(*at_region)->next;
	*at_region = region->next;
	region->in_table = false;
}

/* ---- the cache; table_lock held for writing, unless it says otherwise ------------- */

static void destroy(struct fake_rcache *rcache, struct fake_region *region)
{
	if (region->registered)
		rcache->params.dereg(rcache->params.context, region);
	free(region);
}

static bool unref(struct fake_region *region)
{
	return __atomic_sub_fetch(&region->refs, 1, __ATOMIC_ACQ_REL) == 0;
}

/* In an event nothing may be deregistered. */
static void invalidate_range(struct fake_rcache *rcache, uintptr_t start,
			     uintptr_t end, bool in_event)
{
	struct fake_region *region, *next;

	for (region = rcache->table.regions; region; region = next) {
		next = region->next;
		if (region->start >= end || start >= region->end)
			continue;
		take_out(rcache, region);
		if (!unref(region))
			continue;
		if (!in_event) {
			destroy(rcache, region);
			continue;
		}
		pthread_mutex_lock(&rcache->lock);
		region->next_dead = rcache->dead;
		rcache->dead = region;
		pthread_mutex_unlock(&rcache->lock);
	}
}

static void check_queue(struct fake_rcache *rcache, bool in_event)
{
	struct fake_queued *entry;

	pthread_mutex_lock(&rcache->lock);
	while ((entry = rcache->queue)) {
		rcache->queue = entry->next;
		pthread_mutex_unlock(&rcache->lock);
		invalidate_range(rcache, entry->start, entry->end, in_event);
		free(entry);
		pthread_mutex_lock(&rcache->lock);
	}
	pthread_mutex_unlock(&rcache->lock);
}

static void check_dead(struct fake_rcache *rcache)
{
	struct fake_region *dead, *next;

	pthread_mutex_lock(&rcache->lock);
	dead = rcache->dead;
	rcache->dead = NULL;
	pthread_mutex_unlock(&rcache->lock);
	for (; dead; dead = next) {
		next = dead->next_dead;
		destroy(rcache, dead);
	}
}

/* No lock held, or table_lock by this thread for reading. */
static void unmapped(int type, struct fake_event *event, void *arg)
{
	uintptr_t start = (uintptr_t)event->addr, end = start + event->length;
	struct fake_rcache *rcache = arg;
	struct fake_queued *entry;

	(void)type;
	if (!(rcache->params.flags & FAKE_SYNC) &&
	    !pthread_rwlock_trywrlock(&rcache->table_lock)) {
		invalidate_range(rcache, start, end, true);
		check_queue(rcache, true);
		pthread_rwlock_unlock(&rcache->table_lock);
		return;
	}
	entry = malloc(sizeof(*entry));
	pthread_mutex_lock(&rcache->lock);
	*entry = (struct fake_queued){start, end, rcache->queue};
	rcache->queue = entry;
	pthread_mutex_unlock(&rcache->lock);
}

EXPORT signed char ucs_rcache_create(const struct fake_params *params,
				     const char *name, void *stats,
				     struct fake_rcache **made)
{
	struct fake_rcache *rcache = calloc(1, sizeof(*rcache));

	(void)name;
	(void)stats;
	rcache->params = *params;
	pthread_rwlock_init(&rcache->table_lock, NULL);
	pthread_mutex_init(&rcache->lock, NULL);
	if (ucm_set_event_handler(FAKE_UNMAPPED, 1000, unmapped, rcache)) {
		free(rcache);
		return FAKE_ERROR;
	}
	*made = rcache;
	return 0;
}

EXPORT void ucs_rcache_destroy(struct fake_rcache *rcache)
{
	ucm_unset_event_handler(FAKE_UNMAPPED, unmapped, rcache);
	check_queue(rcache, false);
	check_dead(rcache);
	invalidate_range(rcache, 0, UINTPTR_MAX, false);
	free(rcache);
}

static struct fake_region *create_region(struct fake_rcache *rcache,
					 uintptr_t start, uintptr_t end)
{
	struct fake_region *region, *next;

	pthread_rwlock_wrlock(&rcache->table_lock);
	check_queue(rcache, false);
	check_dead(rcache);
	for (region = rcache->table.regions; region; region = next) {
		next = region->next;
		if (region->start >= end || start >= region->end)
			continue;
		if (region->start <= start && end <= region->end) {
			__atomic_add_fetch(&region->refs, 1, __ATOMIC_ACQ_REL);
			goto out;
		}
		start = region->start < start ? region->start : start;
		end = region->end > end ? region->end : end;
		invalidate_range(rcache, region->start, region->end, false);
		next = rcache->table.regions;
	}
	region = rcache->params.reg(rcache->params.context, start, end);
	if (region) {
		region->registered = region->in_table = true;
		region->refs = 2;
		region->next = rcache->table.regions;
		rcache->table.regions = region;
	}
out:
	pthread_rwlock_unlock(&rcache->table_lock);
	return region;
}

/* 1.13: rcache, address, length, prot, arg, region; 1.18: with alignment. */
EXPORT signed char ucs_rcache_get(struct fake_rcache *rcache, void *addr,
				  size_t length, long d, long e, long f, long g)
{
	struct fake_region **found =
		(struct fake_region **)(fake_is_113() ? f : g);
	uintptr_t start = (uintptr_t)addr, end = start + length;
	struct fake_region *region = NULL;
	bool hit;

	(void)d;
	(void)e;
	pthread_rwlock_rdlock(&rcache->table_lock);
	if (!rcache->queue) {
		at("queue");
		region = ucs_pgtable_lookup(&rcache->table, start);
	}
	hit = region && end <= region->end;
	if (hit)
		__atomic_add_fetch(&region->refs, 1, __ATOMIC_ACQ_REL);
	pthread_rwlock_unlock(&rcache->table_lock);
	*found = hit ? region : create_region(rcache, start, end);
	return *found ? 0 : FAKE_ERROR;
}

EXPORT void ucs_rcache_region_put(struct fake_rcache *rcache,
				  struct fake_region *region)
{
	if (!unref(region))
		return;
	pthread_rwlock_wrlock(&rcache->table_lock);
	destroy(rcache, region);
	pthread_rwlock_unlock(&rcache->table_lock);
}
