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

/* Prints all; returns how many failed. */
unsigned int report_print(bool json);

#endif /* MRCACHE_REPORT_H */
