/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A program as it would be run: what was asked for, what is in the way on this
 * host, and the environment it would get. `run` runs it, `env` prints that
 * environment, `doctor` says what it thinks of it.
 */
#ifndef MRCACHE_JOB_H
#define MRCACHE_JOB_H

#include "device.h"
#include "launcher.h"
#include "plan.h"

#include <argp.h>
#include <mrcache.h>

struct job {
	/* What was asked for. */
	const char *remote, *linger, *monitor, *max_bytes;
	char *stats; /* "1" or an absolute path */
	enum plan_mode stack_caches;
	bool stack_caches_given, quiet, verbose;
	bool elsewhere; /* on a host that is said to have the driver */
	char **argv;	/* the program and its arguments; NULL: any */

	/* What was found. */
	struct mrcache_attr attr;
	struct device device;
	struct program program;
	enum launch launch;
	struct plan plan;
	const char *uncached; /* the setting that leaves nothing to cache */
	char nothing[1024];   /* the first reason why nothing is cached */
	bool disabled;	      /* the user wants the program as it is */
	bool wrong;	      /* an option's value makes no sense; said */
};

/* The options of a job, for a command's; their input is a struct job. */
extern const struct argp_child job_children[];

/* A path that stays right when the directory changes; NULL: no memory. */
char *absolute_path(const char *file);

/* Sets what the options say, but not LD_PRELOAD. */
void job_set_options(const struct job *job);

/*
 * Finds the program and what is in the way, and makes this environment that of
 * the job. 0, or an exit status of `run`; then it was said.
 */
int job_prepare(struct job *job);

/* Says in a line what is ready, or what is in the way. */
void job_say(const struct job *job);

/* How many RDMA devices the kernel has. */
unsigned int rdma_devices(void);

#endif /* MRCACHE_JOB_H */
