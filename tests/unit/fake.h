/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the fake verbs and the fake monitor have in common: the calls the cache
 * makes are counted, can be made to fail, and run a hook of the test at every
 * step; and a memory of pages that have versions instead of contents.
 *
 * All state is global, because verbs have no place for a pointer of ours.
 */
#ifndef TESTS_UNIT_FAKE_H
#define TESTS_UNIT_FAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

struct mrcache;

enum fake_call {
	FAKE_REG,
	FAKE_DEREG,
	FAKE_WATCH,
	FAKE_REARM,
	FAKE_RENEW,
	FAKE_UNWATCH,
	FAKE_PRINT,
	FAKE_VERIFY,
	FAKE_READ,
	FAKE_CLOSE,
	/* Of the system, by the library or the test; see fake_system.c. */
	FAKE_MEMORY, /* malloc and its like */
	FAKE_MAP,
	FAKE_THREAD,
	FAKE_KEY, /* a thread's own value */
	FAKE_EVENTFD,
	FAKE_POLL,
	FAKE_OPEN,
	FAKE_FEATURES, /* asking a device what it offers */
	FAKE_CALLS,
};

enum fake_when {
	BEFORE,
	/*
	 * FAKE_REG: the first half of the pages is pinned; FAKE_VERIFY: what is
	 * verified is armed.
	 */
	DURING,
	AFTER,
};

/* Runs in the thread that makes the call, with no lock of the fakes held. */
typedef void fake_hook_fn(enum fake_call call, enum fake_when when, void *arg);

/* Forgets all counts, failures, hooks, versions and troubles. */
void fake_reset(void);

void fake_hook(fake_hook_fn *hook, void *arg);

/* `times` calls from the nth on fail (1 is the next one); errno value > 0. */
void fake_fail(enum fake_call call, unsigned int nth, unsigned int times,
	       int error);
#define FAKE_FOR_EVER 0x40000000u

unsigned int fake_calls(enum fake_call call);
/* Of the monitor, and of all. */
unsigned int fake_monitor_calls(void);
unsigned int fake_all_calls(void);

/*
 * From now on a call made while a lock of this cache is held is trouble. Only
 * for tests with one thread: whose lock it is cannot be told. NULL: no more.
 */
void fake_check_locks(struct mrcache *cache);
/* The same for something that is not a call of the fakes. */
void fake_no_locks(const char *during);

/* Notes what the cache must never do; the first is kept. */
void fake_trouble(const char *format, ...)
	__attribute__((format(printf, 1, 2)));
const char *fake_first_trouble(void); /* or NULL */

/* For the fakes: counts a call and runs hooks. The errno value to fail with. */
int fake_enter(enum fake_call call);
void fake_during(enum fake_call call);
void fake_leave(enum fake_call call);
/* The same of the system: only counted, and not while fake_allocates. */
int fake_enter_system(enum fake_call call);

/*
 * In a thread where it is not zero, the system does not fail: it is the fakes
 * (or the test) that allocate.
 */
extern __thread int fake_allocates;
/* Memory of the fakes', under whatever lock. */
static inline void fake_free(void *memory)
{
	fake_allocates++;
	free(memory);
	fake_allocates--;
}

/* mmap()s less munmap()s. */
int fake_maps(void);

/* Called in each call of malloc and its like, and of free; NULL: none. */
extern void (*fake_on_heap)(void);

/* ---- memory ------------------------------------------------------------------ */

/* The system's; a variable, as instructions are counted. */
extern size_t fake_page_size;
#define PAGE	   fake_page_size
#define FAKE_PAGES 65536u
#define FAKE_BASE  ((uintptr_t)1 << 32)

/* The address of a page. Nothing is there. */
static inline void *page(size_t n)
{
	return (void *)(FAKE_BASE + n * PAGE);
}

static inline void *at(size_t n, size_t offset)
{
	return (void *)(FAKE_BASE + n * PAGE + offset);
}

/* Pages touched by a range: [*first, *end), of those there are. */
void fake_pages(uintptr_t start, size_t length, size_t *first, size_t *end);

/* The version of a page, which is what pinning it gets. */
uint32_t fake_version(size_t page);

/* New versions, without telling any monitor; fake_change() tells them. */
void fake_new_versions(const void *addr, size_t length);

#endif /* TESTS_UNIT_FAKE_H */
