/* SPDX-License-Identifier: BSD-2-Clause */
/* What the subcommands of `mrcache` share. */
#ifndef MRCACHE_COMMAND_H
#define MRCACHE_COMMAND_H

#include <argp.h>

/* Exit statuses; those of `run` are env(1)'s and timeout(1)'s. */
enum {
	STATUS_NO = 1, /* something is wrong, or there is nothing */
	STATUS_USAGE = 2,
	STATUS_NOT_PROTECTED = 3,
	STATUS_NOT_VERIFIED = 123,
	STATUS_RUN_FAILED = 125, /* `run` itself, also wrong usage */
	STATUS_CANNOT_RUN = 126,
	STATUS_NOT_FOUND = 127,
};

/* The subcommands; argv[0] is "mrcache NAME". They return an exit status. */
int run_main(int argc, char **argv);
int env_main(int argc, char **argv);
int doctor_main(int argc, char **argv);
int stat_main(int argc, char **argv);

/* "mrcache: ..." on standard error. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/*
 * argp_parse() that takes arguments in their order; wrong usage exits with
 * the status `usage`.
 */
void parse_arguments(const struct argp *argp, int argc, char **argv, int usage,
		     void *input);

/* Writes out what was printed: the status, or STATUS_NO if it was lost. */
int finish_output(int status);

#endif /* MRCACHE_COMMAND_H */
