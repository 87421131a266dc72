/* SPDX-License-Identifier: BSD-2-Clause */
#include "job.h"

#include "command.h"
#include "settings.h"
#include "shim.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- options ------------------------------------------------------------------- */

enum key {
	REMOTE = 'r',
	LINGER = 'l',
	STATS = 's',
	MONITOR = 'm',
	MAX_BYTES = 'b',
	STACK_CACHES = 'c',
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
	{"stack-caches", STACK_CACHES, "HOW", 0,
	 "What becomes of the caches that UCX, libfabric and MPI libraries have "
	 "of their own: guard (default: made right, or off where that cannot "
	 "be), off, or keep",
	 0},
	{"quiet", QUIET, NULL, 0, "Say nothing, nor let the cache", 0},
	{"verbose", VERBOSE, NULL, 0, "Say also that all is well", 0},
	{0},
};

/* The program may change its directory. */
char *absolute_path(const char *file)
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
	struct job *job = state->input;

	switch (key) {
	case REMOTE:
		job->remote = "1";
		return 0;
	case LINGER:
		job->linger = arg;
		return 0;
	case STATS:
		if (arg && !*arg)
			argp_error(state, "--stats= needs the name of a file");
		free(job->stats);
		job->stats = arg ? absolute_path(arg) : strdup("1");
		return job->stats ? 0 : errno;
	case MONITOR:
		job->monitor = arg;
		return 0;
	case MAX_BYTES:
		job->max_bytes = arg;
		return 0;
	case STACK_CACHES:
		job->stack_caches_given = true;
		if (!plan_mode_of(arg, &job->stack_caches))
			argp_error(state,
				   "--stack-caches=%s: not guard, off or keep",
				   arg);
		return 0;
	case QUIET:
		job->quiet = true;
		return 0;
	case VERBOSE:
		job->verbose = true;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp job_argp = {.options = options, .parser = parse};
const struct argp_child job_children[] = {{&job_argp, 0, NULL, -1}, {0}};

/* --- saying ---------------------------------------------------------------------- */

static void warn(const struct job *job, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
static void cache_nothing(struct job *job, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* What is the same for all processes of a job on this host is said once. */
static void warn(const struct job *job, const char *format, ...)
{
	char line[1024];
	va_list args;

	if (job->quiet || !job_is_first_here())
		return;
	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	complain("%s", line);
}

/* The first reason is said last, with what comes of it. */
static void cache_nothing(struct job *job, const char *format, ...)
{
	char line[sizeof(job->nothing)];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (*job->nothing)
		warn(job, "%s", line);
	else
		memcpy(job->nothing, line, sizeof(line));
}

/* --- environment ----------------------------------------------------------------- */

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

void job_set_options(const struct job *job)
{
	set("MRCACHE_REMOTE", job->remote);
	set("MRCACHE_LINGER", job->linger);
	set("MRCACHE_STATS", job->stats);
	set("MRCACHE_MONITOR", job->monitor);
	set("MRCACHE_MAX_BYTES", job->max_bytes);
	if (job->quiet)
		setenv("MRCACHE_LOG", "quiet", 1);
}

static bool prepare_environment(const struct job *job)
{
	char shim[2 * PATH_MAX];
	int ret = shim_find(shim, sizeof(shim));

	if (ret) {
		complain("%s: %s; MRCACHE_PRELOAD can say where it is", shim,
			 strerror(-ret));
		return false;
	}
	job_set_options(job);
	return preload(shim);
}

/* --- what is in the way ------------------------------------------------------------ */

static void check_program(struct job *job, const struct program *program)
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
		cache_nothing(job, "%s %s: nothing is cached",
			      *program->interpreter ? program->interpreter
						    : program->path,
			      why[program->deaf]);
}

static void wrong_setting(void *arg, const char *name, const char *why,
			  bool fatal)
{
	struct job *job = arg;
	const struct {
		const char *value, *option, *variable;
	} given[] = {
		{job->linger, "--linger", "MRCACHE_LINGER"},
		{job->monitor, "--monitor", "MRCACHE_MONITOR"},
		{job->max_bytes, "--max-bytes", "MRCACHE_MAX_BYTES"},
	};

	for (size_t i = 0; name && i < sizeof(given) / sizeof(*given); i++) {
		if (!given[i].value || strcmp(name, given[i].variable))
			continue;
		job->wrong = true;
		if (!strncmp(why, name, strlen(name)))
			complain("%s%s", given[i].option, why + strlen(name));
		else
			complain("%s: %s", given[i].option, why);
		return;
	}
	if (fatal)
		cache_nothing(job, "%s: nothing is cached", why);
	else
		warn(job, "%s", why);
}

static void check_settings(struct job *job)
{
	const struct mrcache_attr *attr = &job->attr;
	const char *enable = getenv("MRCACHE_ENABLE");

	settings_check(&job->attr, wrong_setting, job);
	if (enable && !strcmp(enable, "0")) {
		job->disabled = true;
		cache_nothing(job, "MRCACHE_ENABLE=0: nothing is cached");
	}
	/* Guards need no room in the cache. */
	if (!attr->max_bytes)
		job->uncached = "MRCACHE_MAX_BYTES=0";
	else if (!attr->max_regs)
		job->uncached = "MRCACHE_MAX_REGS=0";
	if (attr->remote && job->linger)
		warn(job, "--linger has no effect when remote access is "
			  "cached without limit (MRCACHE_REMOTE)");
}

static void check_device(struct job *job)
{
	if (!strcmp(job->attr.monitor, "none")) {
		cache_nothing(job, "MRCACHE_MONITOR=none: nothing is cached");
		return;
	}
	if (job->elsewhere) {
		job->device.state = DEVICE_GOOD;
		return;
	}
	device_probe(&job->device, job->attr.device);
	if (job->device.state != DEVICE_GOOD && job->device.state != DEVICE_OLD)
		cache_nothing(job,
			      "%s: nothing is cached (mrcache doctor says what "
			      "to do)",
			      job->device.found);
}

/* What guards stand on: the shim, and state words. */
static bool can_guard(const struct job *job)
{
	return !*job->nothing && job->device.state == DEVICE_GOOD &&
	       strcmp(job->attr.monitor, "ummunotify-2010") != 0;
}

static int find_program(struct job *job)
{
	int ret = program_find(&job->program, job->argv[0]);

	if (ret) {
		complain("%s: %s", job->argv[0], strerror(-ret));
		return ret == -ENOENT ? STATUS_NOT_FOUND : STATUS_CANNOT_RUN;
	}
	job->launch = launcher_kind(&job->program);
	return 0;
}

int job_prepare(struct job *job)
{
	int status = job->argv ? find_program(job) : 0;

	if (status)
		return status;
	if (!prepare_environment(job))
		return STATUS_RUN_FAILED;
	check_settings(job);
	if (job->wrong)
		return STATUS_RUN_FAILED;
	if (job->argv)
		check_program(job, &job->program);
	check_device(job);
	plan_make(&job->plan, job->disabled ? PLAN_KEEP : job->stack_caches,
		  can_guard(job), job->stack_caches_given);
	plan_export(&job->plan);
	return 0;
}

unsigned int rdma_devices(void)
{
	DIR *directory = opendir("/sys/class/infiniband");
	const struct dirent *entry;
	unsigned int n = 0;

	if (!directory)
		return 0;
	while ((entry = readdir(directory)))
		n += *entry->d_name != '.';
	closedir(directory);
	return n;
}

/* --- how it is ------------------------------------------------------------------------ */

static const char *monitor_name(const struct job *job)
{
	return job->device.state == DEVICE_OLD ||
			       !strcmp(job->attr.monitor, "ummunotify-2010")
		       ? "ummunotify-2010"
		       : "ummunotify";
}

/* ", but ...": what will and will not be cached where this arrives. */
static void extent_text(const struct job *job, char *text, size_t size)
{
	if (job->uncached)
		snprintf(text, size, ", but nothing is cached (%s)",
			 job->uncached);
	else if (!job->elsewhere && !rdma_devices())
		snprintf(text, size, ", but there is no RDMA device here");
	else
		snprintf(text, size, ", %s",
			 job->attr.remote   ? "remote access included"
			 : job->attr.linger ? "remote access for a while"
					    : "but not for remote access "
					      "(--remote)");
}

/*
 * Whether anything will be cached is for the program to show: it may register
 * nothing, or start others that do, here or elsewhere.
 */
static void say_verbosely(const struct job *job, const char *separator,
			  const char *stacks)
{
	const char *name = job->argv ? base_name(job->program.path) : NULL;
	char extent[128], arrives[PATH_MAX] = "";

	extent_text(job, extent, sizeof(extent));
	if (job->launch == LAUNCH_OTHER || job->launch == LAUNCH_JOB)
		snprintf(arrives, sizeof(arrives),
			 "; exported to what %s starts%s", name,
			 job->launch == LAUNCH_JOB ? " on this host" : "");
	complain("%s%s%s ready%s%s%s%s", name ? job->program.path : "",
		 name ? ": " : "", monitor_name(job), extent, arrives,
		 separator, stacks);
}

void job_say(const struct job *job)
{
	const char *separator = "";
	char stacks[512];

	if (job->quiet)
		return;
	if (job->launch == LAUNCH_DROPS)
		warn(job,
		     "%s gives what it starts another environment: put mrcache "
		     "run behind it",
		     base_name(job->program.path));
	plan_text(&job->plan, job->verbose, stacks, sizeof(stacks));
	if (*stacks)
		separator = "; stack caches: ";
	if (*job->nothing) {
		warn(job, "%s%s%s", job->nothing, separator, stacks);
		return;
	}
	if (!job_is_first())
		return;
	if (job->verbose)
		say_verbosely(job, separator, stacks);
	else if (job->uncached)
		complain("%s: nothing is cached%s%s", job->uncached, separator,
			 stacks);
	else if (plan_is_notable(&job->plan))
		complain("stack caches: %s", stacks);
}
