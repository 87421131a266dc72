/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is to become of the caches that libraries have of their own: guarded,
 * off, or left as they are. Decided from the environment and whether guards
 * can work here, never from the program: a launcher does not show what the
 * processes it starts are linked with, and a variable of a library that is not
 * there does no harm.
 */
#ifndef MRCACHE_PLAN_H
#define MRCACHE_PLAN_H

#include "guard/stacks.h"

enum plan_mode {
	PLAN_GUARD, /* guarded where that can be, else off */
	PLAN_OFF,
	PLAN_KEEP,
};

enum plan_state {
	STACK_NOTHING, /* as it comes it keeps nothing, and nobody asked */
	STACK_GUARDED,
	STACK_OFF,
	STACK_ON,
};

struct plan {
	enum plan_mode mode;
	bool guards;	      /* can work here */
	bool asked;	      /* for the mode: MRCACHE_GUARD does not count */
	unsigned int allowed; /* bit n: the guard of stack n */
	struct {
		enum plan_state state;
		/* The user's, that decided; NULL if we did. */
		const struct stack_variable *by;
	} stacks[STACKS];
};

/* "guard", "off" or "keep"; false if it is none. */
bool plan_mode_of(const char *name, enum plan_mode *mode);

/*
 * Decides. `guards`: the driver is there and the program hears the shim. With
 * `asked` the mode was asked for, and MRCACHE_GUARD does not count.
 */
void plan_make(struct plan *plan, enum plan_mode mode, bool guards, bool asked);

/* Exports what brings it about; leaves alone what is set. */
void plan_export(const struct plan *plan);

/*
 * In a line: "UCX, libfabric guarded; Open MPI off". Of those we turn off or
 * guard, only what is installed, unless `all`. Empty if there is nothing.
 */
void plan_text(const struct plan *plan, bool all, char *text, size_t size);

/* Something that is installed is not guarded. */
bool plan_is_notable(const struct plan *plan);

#endif /* MRCACHE_PLAN_H */
