/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Libraries that keep registrations themselves, above libibverbs: which
 * variables turn that off, what the environment says of it now, and which of
 * their caches the settings let a guard stand at. For the command, which
 * chooses, and the shim, which looks what became of it.
 */
#ifndef MRC_STACKS_H
#define MRC_STACKS_H

#include <stdbool.h>
#include <stddef.h>

/* Those with a guard first, as in enum guard_stack. */
enum stack_id {
	STACK_UCX,
	STACK_FABRIC,
	STACK_OPENMPI,
	STACK_MVAPICH,
	STACK_MPICH,
	STACK_PSM3,
	STACKS,
};

#define GUARDED_STACKS 2

enum stack_role {
	ROLE_SWITCH, /* off only if all of these are; some versions lack some */
	ROLE_MASTER, /* off turns the cache off whatever the others say */
	ROLE_EXTRA,  /* of a part that most have not; on it turns a cache on */
	ROLE_WISH,   /* off asks for what it cannot do alone */
	ROLE_HUSH,   /* goes with the switches, and switches nothing */
};

struct stack_variable {
	const char *name;
	const char *off; /* to be exported; NULL: only looked at */
	bool (*is_off)(const char *value);
	enum stack_role role;
};

#define STACK_VARIABLES 5

struct stack {
	const char *name;  /* for people */
	const char *guard; /* in MRCACHE_GUARD; NULL: there is none */
	const char
		*library; /* how the name of one of its own begins, or NULL */
	struct stack_variable variables[STACK_VARIABLES]; /* up to a NULL */
};

extern const struct stack known_stacks[STACKS];

/* The variable by which the environment turns its cache off; NULL: none. */
const struct stack_variable *stack_off_by(const struct stack *stack);

/* The variable by which the environment asks for its cache; NULL: none. */
const struct stack_variable *stack_on_by(const struct stack *stack);

/* The environment wants no cache, in a way that not all programs obey. */
bool stack_is_unwanted(const struct stack *stack);

/* As it comes, with nothing set, it has a cache. */
bool stack_keeps(const struct stack *stack);

/*
 * Exports what turns its cache off, and leaves alone what is set. Not
 * thread-safe: for the command, and for the shim before main().
 */
void stack_switch_off(const struct stack *stack);

/* Takes that back: removes what has the values that it gives. */
void stack_switch_back(const struct stack *stack);

/* There is such a value: that would remove it. */
bool stack_has_off_value(const struct stack *stack);

/* By these; libc's own unless somebody knows better. */
extern int (*stack_setenv)(const char *name, const char *value, int overwrite);
extern int (*stack_unsetenv)(const char *name);

/* The same of its extras alone, where the user's own switch leaves them on. */
void stack_switch_extras_off(const struct stack *stack);

/*
 * MRCACHE_GUARD: bit n of *bits is stack n. All if text is NULL, "1" or "all",
 * none if "0", else those in the list. False, and all, if it makes no sense.
 */
bool guard_parse(const char *text, unsigned int *bits);

/* What a value that makes no sense should have been. */
#define GUARD_WANTS "0, 1, all, ucx, libfabric or a list of them"

/*
 * Bits of mrc_counters.unguarded, what the shim found to be on and without a
 * guard: bit n is stack n, and one more for registrations that do not reach the
 * shim. Their names, for people.
 */
#define UNGUARDED_VERBS (1u << STACKS)
#define UNGUARDED_BITS	(STACKS + 1)
const char *unguarded_name(unsigned int n);

/*
 * Whether this process is the first of its MPI job, and the first on its host,
 * so that a job says things once; true for any process that is not in one.
 */
bool job_is_first(void);
bool job_is_first_here(void);

/* It is one of a job, as far as that can be seen. */
bool job_has_ranks(void);

#endif /* MRC_STACKS_H */
