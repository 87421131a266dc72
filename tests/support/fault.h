/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Faults of the kernel on request: an allocation fails, or a copy from or to
 * the program. Only where the kernel has fault injection.
 */
#ifndef TESTS_SUPPORT_FAULT_H
#define TESTS_SUPPORT_FAULT_H

#include <stdbool.h>

/* NULL, or why this kernel cannot do it. */
const char *fault_missing(void);

/*
 * To be called first, and again in a fork child: makes all kinds of faults
 * possible. 0 or -errno.
 */
int fault_begin(void);

/* Only what `function` of the kernel calls is to fail; NULL: anything. */
int fault_only_in(const char *function);

/* The nth that can fail of what this thread asks for from now on fails. */
void fault_arm(unsigned int nth);

/* Ends that. Whether it has happened. */
bool fault_happened(void);

#endif /* TESTS_SUPPORT_FAULT_H */
