/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * UCX in three libraries, as simple as can be, but with the caches, queues, locks
 * and calls of each other that the real ones have: libucs.so.0 (with libucm's
 * functions), libucp.so.0 and libuct_ib.so.0.
 *
 * FAKE_UCX=1.13   libucp calls ucs_rcache_get(), of 6 arguments, for each lookup;
 *                 events take effect at once if nobody looks up
 *         =1.18   libucp has the fast path in itself, under its own lock;
 *                 ucs_rcache_get() has 7 arguments; events are always queued
 */
#ifndef TESTS_PRELOAD_FAKE_UCX_H
#define TESTS_PRELOAD_FAKE_UCX_H

#include <infiniband/verbs.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- for programs ------------------------------------------------------------------ */

/* What libucs's and libucp's structures begin with. */
struct fake_region {
	uintptr_t start, end;
	struct ibv_mr *mr;
	unsigned int refs; /* one is the table's */
	bool in_table, registered;
	struct fake_region *next;      /* in the table */
	struct fake_region *next_dead; /* in the list of garbage */
};

struct fake_ucp;

/* A context, with a cache if that is wanted and can be made. */
struct fake_ucp *fake_ucp_open(struct ibv_pd *pd, bool cache);
void fake_ucp_close(struct fake_ucp *ucp);
bool fake_ucp_has_cache(const struct fake_ucp *ucp);
/* Registered memory, to be put back; thread-safe. */
struct fake_region *fake_ucp_get(struct fake_ucp *ucp, void *addr,
				 size_t length);
void fake_ucp_put(struct fake_ucp *ucp, struct fake_region *region);

/*
 * The function is called at these points, in the thread that is there:
 * "queue": a lookup has looked into the queue of events
 * "unmapped": before an event is dealt with
 */
void fake_ucs_at(void (*function)(const char *point));
/* Patched libc for events. */
bool fake_ucm_patched(void);

/* ---- for each other ------------------------------------------------------------------ */

#define FAKE_NO_INSTALL (1 << 24)
#define FAKE_UNMAPPED	(1 << 17)
#define FAKE_SYNC	1
#define FAKE_ERROR	(-22)

struct fake_event {
	void *addr;
	size_t length;
};

struct fake_params {
	struct fake_region *(*reg)(void *context, uintptr_t start,
				   uintptr_t end);
	void (*dereg)(void *context, struct fake_region *region);
	void *context;
	int flags;
};

struct fake_table {
	struct fake_region *regions;
};

struct fake_queued {
	uintptr_t start, end;
	struct fake_queued *next;
};

struct fake_rcache {
	struct fake_params params;
	pthread_rwlock_t table_lock;
	struct fake_table table;
	pthread_mutex_t lock; /* the rest; taken last */
	struct fake_queued *_Atomic queue;
	struct fake_region *dead;
};

extern void (*fake_at)(const char *point);

bool fake_is_113(void);
struct ibv_mr *fake_uct_reg(struct ibv_pd *pd, void *addr, size_t length);
int fake_uct_dereg(struct ibv_mr *mr);

signed char ucs_rcache_create(const struct fake_params *params,
			      const char *name, void *stats,
			      struct fake_rcache **rcache);
void ucs_rcache_destroy(struct fake_rcache *rcache);
void ucs_rcache_region_put(struct fake_rcache *rcache,
			   struct fake_region *region);
struct fake_region *ucs_pgtable_lookup(const struct fake_table *table,
				       unsigned long addr);
signed char ucm_set_event_handler(int events, int priority,
				  void (*fn)(int, struct fake_event *, void *),
				  void *arg);
void ucm_unset_event_handler(int events,
			     void (*fn)(int, struct fake_event *, void *),
			     void *arg);
void ucm_vm_munmap(void *addr, size_t length);

#endif /* TESTS_PRELOAD_FAKE_UCX_H */
