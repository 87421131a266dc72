/* SPDX-License-Identifier: BSD-2-Clause */
/* Which of the libraries that keep registrations are on this machine. */
#ifndef MRCACHE_INSTALLED_H
#define MRCACHE_INSTALLED_H

#include "guard/stacks.h"

/* A library of it is among those the dynamic linker knows. */
bool installed(const struct stack *stack);

struct version {
	unsigned int major, minor;
	char text[64]; /* as the library says it */
};

/*
 * Of a stack that can be guarded: loads the library that a program would get, in
 * a process of its own, and asks it. False if that cannot be done.
 */
bool installed_version(enum stack_id stack, struct version *version);

#endif /* MRCACHE_INSTALLED_H */
