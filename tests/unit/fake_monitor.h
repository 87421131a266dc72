/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A monitor whose invalidations the test makes. It behaves as docs/abi.md says:
 * with state words a watch reports once until it is armed again; without them
 * it stays armed and has one report at a time. A watch armed while a change of
 * its range is under way is hit when the change ends. Misuse is trouble.
 */
#ifndef TESTS_UNIT_FAKE_MONITOR_H
#define TESTS_UNIT_FAKE_MONITOR_H

#include "fake.h"
#include "monitor.h"

struct fake_monitor;

#define FAKE_STATES 1u /* has state words */
#define FAKE_FD	    2u /* has a descriptor to poll */
/*
 * Its generation and each of its state words are alone on a page, of which the
 * cache sees a second mapping that fake_trap() can take away.
 */
#define FAKE_TRAPS 4u
/* Can tell which pages are there. */
#define FAKE_PRINTS 16u
/* LAST is never read together with events. */
#define FAKE_ALONE 8u

struct fake_monitor *fake_monitor_new(unsigned int flags);
struct mrc_monitor *fake_monitor_base(struct fake_monitor *monitor);

/* How many there are, made and not closed. */
unsigned int fake_monitors(void);
/* Forgets those that a failed test left. */
void fake_monitors_reset(void);

/* As many events as one read() returns at most (default 128). */
void fake_per_read(struct fake_monitor *monitor, unsigned int events);
/* ENOSPC for more watches than this. */
void fake_max_watches(struct fake_monitor *monitor, unsigned int watches);

/* Another mapping of its generation or its state words, for a fake driver. */
#define FAKE_STATES_BYTES (4 * PAGE)
void *fake_monitor_map(struct fake_monitor *monitor, size_t size, bool states);

/* What hits from now on is known to take the pages. */
void fake_certain(struct fake_monitor *monitor);

unsigned int fake_watches(struct fake_monitor *monitor);
unsigned int fake_pending(struct fake_monitor *monitor);
uint64_t fake_generation(struct fake_monitor *monitor);
/* The cookie of a watch that overlaps, 0 if there is none. */
uint64_t fake_cookie(struct fake_monitor *monitor, const void *addr,
		     size_t length);
/* The slot of a watch that overlaps. */
uint32_t fake_slot(struct fake_monitor *monitor, const void *addr,
		   size_t length);

/* An event of this cookie, whatever it is, and the counter moves. */
void fake_event(struct fake_monitor *monitor, uint64_t cookie);

/* Something else was invalidated: the counter moves. */
void fake_noise(struct fake_monitor *monitor);

/*
 * The memory in a range changes: all monitors are told, then the pages get new
 * versions. The second and third are its two halves; no more than 16 under way.
 */
void fake_change(const void *addr, size_t length);
void fake_change_begin(const void *addr, size_t length);
void fake_change_end(const void *addr, size_t length);

/* All monitors are told, but the pages stay: a false alarm. */
void fake_alarm(const void *addr, size_t length);

/*
 * The next time the cache reads the generation (or the state word in a slot),
 * runs a function first, in that thread, between whatever the cache did before
 * and the read. Once. Only with FAKE_TRAPS.
 */
void fake_trap_generation(struct fake_monitor *monitor,
			  void (*function)(void *arg), void *arg);
void fake_trap_state(struct fake_monitor *monitor, uint32_t slot,
		     void (*function)(void *arg), void *arg);
/* Whether all traps so far were stepped into. */
bool fake_trapped(void);

#endif /* TESTS_UNIT_FAKE_MONITOR_H */
