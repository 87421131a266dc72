/* SPDX-License-Identifier: BSD-2-Clause */
/* What an executable file is, as far as it matters for LD_PRELOAD. */
#ifndef MRCACHE_PROGRAM_H
#define MRCACHE_PROGRAM_H

#include <limits.h>
#include <stdbool.h>

#define PROGRAM_NEEDS 64

enum program_deaf {
	PROGRAM_HEARS,
	PROGRAM_SETUID, /* or set-gid */
	PROGRAM_CAPABILITIES,
	PROGRAM_STATIC,
	PROGRAM_FOREIGN, /* ELF of another architecture */
};

struct program {
	char path[PATH_MAX];	       /* as found */
	char interpreter[PATH_MAX];    /* that runs a script; or empty */
	enum program_deaf deaf;	       /* why LD_PRELOAD has no effect */
	char needs[PROGRAM_NEEDS][64]; /* libraries it is linked with */
	unsigned int n_needs;
};

/*
 * Finds a program as execvp() does, and looks at it. 0, or -errno if there is
 * none that can be executed.
 */
int program_find(struct program *program, const char *name);

/* It is linked with a library whose name begins so. */
bool program_needs(const struct program *program, const char *library);

#endif /* MRCACHE_PROGRAM_H */
