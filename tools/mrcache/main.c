/* SPDX-License-Identifier: BSD-2-Clause */
/* mrcache: chooses the subcommand. */
#include "command.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The C library's own has this name, and must find ours. */
__attribute__((visibility("default"))) const char *argp_program_version =
	"mrcache " MRCACHE_VERSION;

static const struct command {
	const char *name, *title;
	int (*main)(int argc, char **argv);
} commands[] = {
	{"run", "mrcache run", run_main},
	{"env", "mrcache env", env_main},
	{"doctor", "mrcache doctor", doctor_main},
	{"stat", "mrcache stat", stat_main},
};

#define COMMANDS (sizeof(commands) / sizeof(*commands))

void complain(const char *format, ...)
{
	va_list args;

	fflush(stdout);
	flockfile(stderr);
	fputs("mrcache: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	funlockfile(stderr);
}

void parse_arguments(const struct argp *argp, int argc, char **argv, int usage,
		     void *input)
{
	error_t error;

	argp_err_exit_status = usage;
	error = argp_parse(argp, argc, argv, ARGP_IN_ORDER, NULL, input);
	if (error) {
		complain("%s", strerror(error));
		exit(usage);
	}
}

int finish_output(int status)
{
	if (!fflush(stdout) && !ferror(stdout))
		return status;
	complain("cannot write: %s", strerror(errno));
	return STATUS_NO;
}

static const struct command *find(const char *name)
{
	for (size_t i = 0; i < COMMANDS; i++)
		if (!strcmp(name, commands[i].name))
			return &commands[i];
	return NULL;
}

struct choice {
	int argc;
	char **argv; /* of the subcommand; argv[0] is its name */
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct choice *choice = state->input;

	switch (key) {
	case 'h':
		argp_state_help(state, stdout, ARGP_HELP_STD_HELP);
		return 0;
	case ARGP_KEY_ARG:
		choice->argv = &state->argv[state->next - 1];
		choice->argc = state->argc - state->next + 1;
		if (strcmp(arg, "help") && !find(arg))
			argp_error(state,
				   "there is no command '%s'; there are run, "
				   "env, doctor and stat",
				   arg);
		/* The rest is the subcommand's. */
		state->next = state->argc;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_error(state, "a command is missing: run, env, doctor or "
				  "stat");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* `mrcache help COMMAND` is `mrcache COMMAND --help`. */
static void turn_help_around(struct choice *choice)
{
	static char help[] = "--help";
	static char *argv[] = {NULL, help, NULL};

	if (strcmp(choice->argv[0], "help"))
		return;
	argv[0] = choice->argc > 1 ? choice->argv[1] : NULL;
	choice->argv = argv;
	choice->argc = 2;
}

int main(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{.key = 'h', .flags = OPTION_HIDDEN},
		{0},
	};
	static const struct argp argp = {
		.options = options,
		.parser = parse,
		.args_doc = "COMMAND [ARG...]",
		.doc = "Caches RDMA memory registrations of programs that "
		       "know nothing of it.\v"
		       "Commands:\n"
		       "  run      runs a program with the cache\n"
		       "  env      prints the environment run would set\n"
		       "  doctor   says what on this machine is in the way\n"
		       "  stat     shows the counters of running programs\n"
		       "\n"
		       "`mrcache COMMAND --help` says more, and mrcache(1).",
	};
	const struct command *command;
	struct choice choice = {0};

	if (argc > 0)
		argv[0] = (char *)"mrcache";
	parse_arguments(&argp, argc, argv, STATUS_USAGE, &choice);
	turn_help_around(&choice);
	command = choice.argv[0] ? find(choice.argv[0]) : NULL;
	if (!command) {
		static char help[] = "--help";
		char *again[] = {argv[0], help, NULL};

		if (choice.argv[0]) {
			complain("there is no command '%s'", choice.argv[0]);
			return STATUS_USAGE;
		}
		parse_arguments(&argp, 2, again, STATUS_USAGE, &choice);
		return 0;
	}
	/* What argp puts before "Usage" and before complaints. */
	choice.argv[0] = (char *)command->title;
	return command->main(choice.argc, choice.argv);
}
