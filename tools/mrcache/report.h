/* SPDX-License-Identifier: BSD-2-Clause */
/* The lines of `mrcache doctor`, as text or as JSON. */
#ifndef MRCACHE_REPORT_H
#define MRCACHE_REPORT_H

#include <stdbool.h>

enum verdict { OK, WARN, FAIL };

/*
 * Adds a line: what was checked, what was found (a printf format), what to do
 * about it (NULL or empty: nothing).
 */
void report(enum verdict verdict, const char *check, const char *advice,
	    const char *found, ...) __attribute__((format(printf, 4, 5)));

/*
 * What is being looked at now; NULL: nothing more. After some seconds of it a
 * line on standard error says so, and after the time given at the beginning the
 * process ends, with a line that names it.
 */
void report_begin(unsigned int timeout);
void report_step(const char *what);

/*
 * Prints all, with the host's name in a job of many; returns how many failed.
 * `protected` goes into the JSON.
 */
unsigned int report_print(bool json, bool protected);

#endif /* MRCACHE_REPORT_H */
