/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * mrcache run: sets the environment up, says what is in the way, and becomes
 * the program, so that its exit status and signals are its own.
 */
#include "command.h"
#include "device.h"
#include "others.h"
#include "program.h"
#include "settings.h"
#include "shim.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum key {
	REMOTE = 'r',
	LINGER = 'l',
	STATS = 's',
	MONITOR = 'm',
	MAX_BYTES = 'b',
	QUIET = 'q',
	VERBOSE = 'v',
};

static const struct argp_option options[] = {
	{"remote", REMOTE, NULL, 0,
	 "Cache registrations for remote access, too. Peers can then use them "
	 "until the memory changes, not only until the program ends them",
	 0},
	{"linger", LINGER, "MS", 0,
	 "Cache registrations for remote access until they are unused for MS "
	 "milliseconds",
	 0},
	{"stats", STATS, "FILE", OPTION_ARG_OPTIONAL,
	 "Append a line of JSON to FILE when the program ends; without FILE "
	 "to standard error",
	 0},
	{"monitor", MONITOR, "NAME", 0,
	 "Who tells of changes: auto (default), ummunotify, ummunotify-2010 "
	 "or none",
	 0},
	{"max-bytes", MAX_BYTES, "SIZE", 0,
	 "Keep so much memory registered at most (K, M, G, T may follow)", 0},
	{"quiet", QUIET, NULL, 0, "Say nothing, nor let the cache", 0},
	{"verbose", VERBOSE, NULL, 0, "Say also that all is well", 0},
	{NULL, 'h', NULL, OPTION_HIDDEN, NULL, 0},
	{0},
};

struct run {
	const char *remote, *linger, *monitor, *max_bytes;
	char *stats; /* "1" or an absolute path */
	bool quiet, verbose;
	char **program; /* and its arguments */

	unsigned int warnings;
	bool wrong; /* an option's value */
};

static void warn(struct run *run, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void warn(struct run *run, const char *format, ...)
{
	char line[1024];
	va_list args;

	run->warnings++;
	if (run->quiet)
		return;
	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	complain("%s", line);
}

/* The program may change its directory. */
static char *absolute(const char *file)
{
	char *directory, *path;

	if (*file == '/')
		return strdup(file);
	directory = getcwd(NULL, 0);
	if (!directory || asprintf(&path, "%s/%s", directory, file) < 0)
		path = NULL;
	free(directory);
	return path;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct run *run = state->input;

	switch (key) {
	case REMOTE:
		run->remote = "1";
		return 0;
	case LINGER:
		run->linger = arg;
		return 0;
	case STATS:
		if (arg && !*arg)
			argp_error(state, "--stats= needs the name of a file");
		free(run->stats);
		run->stats = arg ? absolute(arg) : strdup("1");
		return run->stats ? 0 : errno;
	case MONITOR:
		run->monitor = arg;
		return 0;
	case MAX_BYTES:
		run->max_bytes = arg;
		return 0;
	case QUIET:
		run->quiet = true;
		return 0;
	case VERBOSE:
		run->verbose = true;
		return 0;
	case 'h':
		argp_state_help(state, stdout, ARGP_HELP_STD_HELP);
		return 0;
	case ARGP_KEY_ARG:
		run->program = &state->argv[state->next - 1];
		state->next = state->argc;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_error(state, "a program to run is missing");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* --- environment ------------------------------------------------------------- */

static bool has_element(const char *list, const char *element)
{
	size_t length = strlen(element), one;

	for (; *list; list += one) {
		list += strspn(list, ": ");
		one = strcspn(list, ": ");
		if (one == length && !strncmp(list, element, length))
			return true;
	}
	return false;
}

static bool preload(const char *shim)
{
	const char *before = getenv("LD_PRELOAD");
	char *list;

	if (strpbrk(shim, ": ")) {
		complain("LD_PRELOAD cannot name a file with a space or colon "
			 "in its path: %s",
			 shim);
		return false;
	}
	if (!before || !*before)
		return !setenv("LD_PRELOAD", shim, 1);
	if (has_element(before, shim))
		return true;
	if (asprintf(&list, "%s:%s", shim, before) < 0)
		return false;
	setenv("LD_PRELOAD", list, 1);
	free(list);
	return true;
}

static void set(const char *name, const char *value)
{
	if (value)
		setenv(name, value, 1);
}

static bool prepare_environment(const struct run *run)
{
	char shim[2 * PATH_MAX];
	int ret = shim_find(shim, sizeof(shim));

	if (ret) {
		complain("%s: %s; MRCACHE_PRELOAD can say where it is", shim,
			 strerror(-ret));
		return false;
	}
	set("MRCACHE_REMOTE", run->remote);
	set("MRCACHE_LINGER", run->linger);
	set("MRCACHE_STATS", run->stats);
	set("MRCACHE_MONITOR", run->monitor);
	set("MRCACHE_MAX_BYTES", run->max_bytes);
	if (run->quiet)
		setenv("MRCACHE_LOG", "quiet", 1);
	return preload(shim);
}

/* --- what is in the way ------------------------------------------------------- */

static void check_program(struct run *run, const struct program *program)
{
	static const char *const why[] = {
		[PROGRAM_SETUID] = "is set-uid or set-gid, and so LD_PRELOAD "
				   "is ignored",
		[PROGRAM_CAPABILITIES] = "has file capabilities, and so "
					 "LD_PRELOAD is ignored",
		[PROGRAM_STATIC] = "is statically linked, and so LD_PRELOAD "
				   "has no effect",
		[PROGRAM_FOREIGN] = "is for another architecture than the "
				    "cache, which it cannot load",
	};

	if (program->deaf)
		warn(run, "%s %s: nothing is cached",
		     *program->interpreter ? program->interpreter
					   : program->path,
		     why[program->deaf]);
}

static void check_others(struct run *run, const struct program *program)
{
	bool mpi = program_needs(program, "libmpi");
	char advice[256] = "";
	size_t length = 0;

	for (int i = 0; i < OTHERS; i++) {
		bool used = program_needs(program, others[i].library);

		/* What an MPI library loads is not seen in the program. */
		if (mpi && strncmp(others[i].library, "libmpi", 6))
			used |= other_is_installed(&others[i]);

		if (used && !others[i].is_off() && length < sizeof(advice))
			length += (size_t)snprintf(advice + length,
						   sizeof(advice) - length,
						   " %s", others[i].switch_off);
	}
	if (*advice)
		warn(run,
		     "%s uses libraries with caches of their own, which hide "
		     "this one; switch them off with%s",
		     program->path, advice);
}

static void wrong_setting(void *arg, const char *name, const char *why,
			  bool fatal)
{
	struct run *run = arg;
	const struct {
		const char *value, *option, *variable;
	} given[] = {
		{run->linger, "--linger", "MRCACHE_LINGER"},
		{run->monitor, "--monitor", "MRCACHE_MONITOR"},
		{run->max_bytes, "--max-bytes", "MRCACHE_MAX_BYTES"},
	};

	for (size_t i = 0; name && i < sizeof(given) / sizeof(*given); i++) {
		if (!given[i].value || strcmp(name, given[i].variable))
			continue;
		run->wrong = true;
		if (!strncmp(why, name, strlen(name)))
			complain("%s%s", given[i].option, why + strlen(name));
		else
			complain("%s: %s", given[i].option, why);
		return;
	}
	warn(run, "%s%s", why, fatal ? ": nothing is cached" : "");
}

static void check_settings(struct run *run, struct mrcache_attr *attr)
{
	const char *enable = getenv("MRCACHE_ENABLE");

	settings_check(attr, wrong_setting, run);
	if (enable && !strcmp(enable, "0"))
		warn(run, "MRCACHE_ENABLE=0: nothing is cached");
	if (attr->remote && run->linger)
		warn(run, "--linger has no effect when remote access is "
			  "cached without limit (MRCACHE_REMOTE)");
}

static void check_device(struct run *run, const struct mrcache_attr *attr,
			 struct device *device)
{
	if (!strcmp(attr->monitor, "none")) {
		warn(run, "MRCACHE_MONITOR=none: nothing is cached");
		return;
	}
	device_probe(device, attr->device);
	if (device->state != DEVICE_GOOD && device->state != DEVICE_OLD)
		warn(run,
		     "%s: nothing is cached (mrcache doctor says what to do)",
		     device->found);
}

static void say_all_is_well(const struct run *run,
			    const struct program *program,
			    const struct mrcache_attr *attr,
			    const struct device *device)
{
	if (!run->verbose || run->quiet || run->warnings)
		return;
	complain("%s: cached with %s%s", program->path,
		 device->state == DEVICE_OLD ? "ummunotify-2010" : "ummunotify",
		 attr->remote	? ", remote access too"
		 : attr->linger ? ", remote access for a while"
				: "; registrations for remote access pass "
				  "through (--remote)");
}

int run_main(int argc, char **argv)
{
	static const struct argp argp = {
		.options = options,
		.parser = parse,
		.args_doc = "PROGRAM [ARG...]",
		.doc = "Runs PROGRAM with a cache of RDMA memory registrations.\v"
		       "Exit status: PROGRAM's own; 125 if mrcache run itself "
		       "fails, 126 if PROGRAM cannot be executed, 127 if it is "
		       "not found.",
	};
	struct mrcache_attr attr;
	struct program program;
	struct device device = {0};
	struct run run = {0};
	int ret;

	parse_arguments(&argp, argc, argv, STATUS_RUN_FAILED, &run);
	ret = program_find(&program, run.program[0]);
	if (!ret) {
		if (!prepare_environment(&run))
			return STATUS_RUN_FAILED;
		check_settings(&run, &attr);
		if (run.wrong)
			return STATUS_RUN_FAILED;
		check_program(&run, &program);
		check_device(&run, &attr, &device);
		check_others(&run, &program);
		say_all_is_well(&run, &program, &attr, &device);
		execvp(run.program[0], run.program);
		ret = -errno;
	}
	complain("%s: %s", run.program[0], strerror(-ret));
	return ret == -ENOENT ? STATUS_NOT_FOUND : STATUS_CANNOT_RUN;
}
