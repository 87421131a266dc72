/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * mrcache run: sets the environment up, says what is in the way, and becomes
 * the program, so that its exit status and signals are its own. With --verify
 * it stays, to say in the end what the processes found.
 */
#include "command.h"
#include "job.h"
#include "verify.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum key { VERIFY = 'V' + 256 };

struct run {
	struct job job;
	bool verify;
	char *evidence; /* the directory, or NULL for one of our own */
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct run *run = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &run->job;
		return 0;
	case VERIFY:
		if (arg && !*arg)
			argp_error(state, "--verify= needs a directory");
		run->verify = true;
		run->evidence = arg ? absolute_path(arg) : NULL;
		return arg && !run->evidence ? ENOMEM : 0;
	case 'h':
		argp_state_help(state, stdout, ARGP_HELP_STD_HELP);
		return 0;
	case ARGP_KEY_ARG:
		run->job.argv = &state->argv[state->next - 1];
		state->next = state->argc;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_error(state, "a program to run is missing");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

int run_main(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"verify", VERIFY, "DIRECTORY", OPTION_ARG_OPTIONAL,
		 "Say in the end whether each process that registered memory "
		 "was protected; DIRECTORY is where they say so, and must be "
		 "shared by the hosts of a job",
		 0},
		{NULL, 'h', NULL, OPTION_HIDDEN, NULL, 0},
		{0},
	};
	static const struct argp argp = {
		.options = options,
		.parser = parse,
		.args_doc = "PROGRAM [ARG...]",
		.doc = "Runs PROGRAM with a cache of RDMA memory registrations.\v"
		       "Exit status: PROGRAM's own; 123 if that is 0 and "
		       "--verify could not show that all was protected; 125 if "
		       "mrcache run itself fails, 126 if PROGRAM cannot be "
		       "executed, 127 if it is not found.",
		.children = job_children,
	};
	static struct run run; /* as long as the process */
	int status;

	parse_arguments(&argp, argc, argv, STATUS_RUN_FAILED, &run);
	status = job_prepare(&run.job);
	if (status)
		return status;
	job_say(&run.job);
	if (run.verify)
		return verify_run(run.job.argv, run.evidence);
	execvp(run.job.argv[0], run.job.argv);
	status = errno == ENOENT ? STATUS_NOT_FOUND : STATUS_CANNOT_RUN;
	complain("%s: %s", run.job.argv[0], strerror(errno));
	return status;
}
