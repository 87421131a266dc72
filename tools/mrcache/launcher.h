/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Programs that start others. What is linked into them says nothing of the
 * processes that register, so nothing is claimed of those: the environment is
 * exported to them, or it is known not to arrive.
 */
#ifndef MRCACHE_LAUNCHER_H
#define MRCACHE_LAUNCHER_H

#include "program.h"

enum launch {
	LAUNCH_NOT,   /* a program as any */
	LAUNCH_OTHER, /* a shell, an interpreter, a wrapper: on this host */
	LAUNCH_JOB,   /* of MPI or of a batch system: perhaps on others */
	LAUNCH_DROPS, /* what it starts gets another environment */
};

/* By its name, or by that of the interpreter of a script. */
enum launch launcher_kind(const struct program *program);

/* The last part of a path. */
const char *base_name(const char *path);

#endif /* MRCACHE_LAUNCHER_H */
