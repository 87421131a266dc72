/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the scenarios of test_stress share. Each runs in a process of its own,
 * which ends with a message and status 1 as soon as something is wrong.
 */
#ifndef TESTS_GUEST_STRESS_H
#define TESTS_GUEST_STRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* What all decisions of the run come from, and what to say to repeat it. */
extern uint64_t stress_seed;
extern unsigned int stress_seconds;

/* Comparisons made so far, for whoever waits to kill the process. */
extern _Atomic uint64_t *stress_work;

/* Says what is wrong and how to run the same again, and ends the process. */
void stress_die(const char *format, ...)
	__attribute__((noreturn, format(printf, 1, 2)));

#define MUST(condition)                                                   \
	do {                                                              \
		if (!(condition))                                         \
			stress_die("%s:%d: %s (errno %d)", __FILE_NAME__, \
				   __LINE__, #condition, errno);          \
	} while (0)

/*
 * The decisions of one step of one thread. They depend on the seed, the thread
 * and the step's number alone, whatever came of the steps before.
 */
struct dice {
	uint64_t state;
};

struct dice dice_for(unsigned int thread, uint64_t step);
unsigned int dice_below(struct dice *dice, unsigned int limit);

/* The numbers of the threads that decide something. */
enum { DICE_VOLUME = 0, DICE_WIRE = 100, DICE_KILL = 200 };

/*
 * Waits until `seconds` are over and enough has happened to mean something. A
 * slow machine gets more time for that, within limits.
 */
void stress_wait(double seconds, bool (*is_enough)(const void *),
		 const void *argument);

/* Sleeps for a random time below a limit. */
void stress_nap(struct dice *dice, unsigned int microseconds);

/* A process for f(argument), which ends with the thread that makes it. */
pid_t stress_fork(void (*f)(void *argument), void *argument);

/* --- the scenarios ------------------------------------------------------------- */

/* The driver against the page tables. */
void volume_run(double seconds);

/* The library against the wire. */
struct wire_variant {
	const char *name;
	const char *monitor;
	unsigned int caches;
	uint64_t max_regs; /* 0: the default */
	uint64_t memlock;  /* pages that nobody may lock; 0: root, who may */
	bool own_pds;	   /* each thread has a protection domain of its own */
	bool contain;
	bool reaper;
	bool fingerprint;
	/*
	 * Hold on to registrations. Not where the limits make some that are
	 * not cached: whether those are valid is for the program to know.
	 */
	bool hold;
	bool naive; /* believe every registration that is held */
};

void wire_run(const struct wire_variant *variant, double seconds);

#endif /* TESTS_GUEST_STRESS_H */
