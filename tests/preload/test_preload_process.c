/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The shim in the life of a process: settings, what it says and shows, fork,
 * exec, set-uid programs, and the end.
 */
#include "support/case.h"
#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define WARN  "MRCACHE_LOG=warn"
#define STATS "MRCACHE_STATS=1"

static void run_under(const struct how *how, const char *mode)
{
	run(how, mode);
	if (outcome.status)
		print_error("%s: status 0x%x\n%s", mode,
			    (unsigned int)outcome.status, outcome.err);
	assert_int_equal(outcome.status, 0);
}

static void no_counters_left(void)
{
	assert_false(outcome.left_counters);
}

/* ---- settings ------------------------------------------------------------------- */

CASE(it_can_be_turned_off)
{
	run_under(
		&(struct how){.shim = CACHING,
			      .passes = true,
			      .environment = {"MRCACHE_ENABLE=0", WARN, STATS}},
		"passes");
	assert_string_equal(outcome.err, "");
	no_counters_left();
}

CASE(settings_that_make_no_sense)
{
	static const char *const settings[] = {
		"MRCACHE_REMOTE=2",	      "MRCACHE_REMOTE=",
		"MRCACHE_LINGER=soon",	      "MRCACHE_LOG=loud",
		"MRCACHE_MAX_BYTES=4X",	      "MRCACHE_MAX_REGS=-1",
		"MRCACHE_PAGE_ALIGN=1",	      "MRCACHE_MONITOR=eyes",
		"MRCACHE_MONITOR=ummunotify",
	};

	for (size_t i = 0; i < sizeof(settings) / sizeof(*settings); i++) {
		struct how how = {
			.shim = CACHING,
			.passes = true,
			.environment = {"MRCACHE_DEVICE=/nonexistent",
					"SUBJECT_IS=passing", settings[i]},
		};

		/* MRCACHE_LOG is quiet unless said otherwise. */
		how.environment[1] = strncmp(settings[i], "MRCACHE_LOG", 11)
					     ? WARN
					     : how.environment[1];
		run_under(&how, "passes");
		if (lines(outcome.err) != 1)
			print_error("%s: %s", settings[i], outcome.err);
		assert_int_equal(lines(outcome.err), 1);
		assert_non_null(strstr(outcome.err, "passed through"));
		no_counters_left();

		if (!strncmp(settings[i], "MRCACHE_LOG", 11))
			continue;
		how.environment[1] = "MRCACHE_LOG=quiet";
		run_under(&how, "passes");
		assert_string_equal(outcome.err, "");
	}
}

CASE(without_the_device)
{
	run_under(&(struct how){.shim = SHIM, .environment = {WARN, STATS}},
		  "passes");
	/* That line, and the statistics. */
	assert_int_equal(lines(outcome.err), 2);
	assert_non_null(strstr(outcome.err, "/nonexistent"));
	assert_non_null(strstr(outcome.err, "nothing is cached"));
	assert_non_null(strstr(outcome.err, "\"monitor\":\"none\""));
	assert_int_equal(number(strchr(outcome.err, '\n'), "registrations"), 3);
	run_well(&(struct how){.shim = SHIM}, "passes");
}

CASE(not_permitted_to_open_the_device)
{
	const char *device = scratch("device");
	char setting[128];
	int fd;

	if (!is_root())
		skip();
	fd = open(device, O_WRONLY | O_CREAT | O_EXCL, 0600);
	assert_true(fd >= 0);
	close(fd);
	snprintf(setting, sizeof(setting), "MRCACHE_DEVICE=%s", device);
	run_under(&(struct how){.shim = CACHING, .environment = {setting}},
		  "hit");
	run_under(&(struct how){.shim = CACHING,
				.passes = true,
				.nobody = true,
				.environment = {setting, WARN}},
		  "passes");
	assert_int_equal(lines(outcome.err), 1);
	assert_non_null(strstr(outcome.err, "not permitted"));
}

/* ---- where guards cannot be ---------------------------------------------------------- */

/* What a program finds set; `env` with an argument that it ignores. */
static void environment_of(enum shim shim, const char *one, const char *two,
			   const char *three, const char *four)
{
	run(&(struct how){.shim = shim,
			  .path = "/usr/bin/env",
			  .environment = {WARN, one, two, three, four}},
	    "-uNONE");
	assert_int_equal(outcome.status, 0);
	assert_string_equal(outcome.err, "");
}

static bool is_set(const char *entry)
{
	return strstr(outcome.out, entry);
}

CASE(without_the_device_caches_are_off)
{
	environment_of(SHIM, "A=1", NULL, NULL, NULL);
	assert_true(is_set("UCX_RCACHE_ENABLE=n\n"));
	assert_true(is_set("UCX_IB_REG_METHODS=direct\n"));
	assert_true(is_set("FI_MR_CACHE_MAX_COUNT=0\n"));
	assert_true(is_set("MRCACHE_TURNED_OFF=ucx,libfabric\n"));
	/* With the device they stay on, to be guarded. */
	environment_of(CACHING, "A=1", NULL, NULL, NULL);
	assert_false(is_set("UCX_RCACHE_ENABLE"));
	assert_false(is_set("FI_MR_CACHE"));
	/* But not where guards are not to be had of it. */
	environment_of(CACHING, "MRCACHE_MONITOR=ummunotify-2010", NULL, NULL,
		       NULL);
	assert_true(is_set("UCX_RCACHE_ENABLE=n\n"));
	environment_of(CACHING, "MRCACHE_MAX_BYTES=some", NULL, NULL, NULL);
	assert_true(is_set("UCX_RCACHE_ENABLE=n\n"));
	/* Nobody wanted guards. */
	environment_of(SHIM, "MRCACHE_GUARD=0", NULL, NULL, NULL);
	assert_false(is_set("UCX_") || is_set("FI_MR"));
	environment_of(SHIM, "MRCACHE_ENABLE=0", NULL, NULL, NULL);
	assert_false(is_set("UCX_") || is_set("FI_MR"));
	environment_of(SHIM, "MRCACHE_GUARD=libfabric", NULL, NULL, NULL);
	assert_true(!is_set("UCX_") && is_set("FI_MR_CACHE_MAX_COUNT=0\n"));
	/* What the user set stays. */
	environment_of(SHIM, "UCX_RCACHE_ENABLE=y", NULL, NULL, NULL);
	assert_true(is_set("UCX_RCACHE_ENABLE=y\n"));
	assert_false(is_set("UCX_IB_REG_METHODS"));
	assert_true(is_set("MRCACHE_TURNED_OFF=libfabric\n"));
}

/* A job that was started on a node without it. */
CASE(with_the_device_it_is_taken_back)
{
	environment_of(CACHING, "MRCACHE_TURNED_OFF=ucx", "UCX_RCACHE_ENABLE=n",
		       "UCX_IB_REG_METHODS=direct", "FI_MR_CACHE_MAX_COUNT=0");
	assert_false(is_set("UCX_"));
	assert_false(is_set("MRCACHE_TURNED_OFF"));
	/* That was not ours. */
	assert_true(is_set("FI_MR_CACHE_MAX_COUNT=0\n"));
	/* Half of it was the user's, and is all that UCX 1.16 looks at. */
	environment_of(SHIM, "UCX_RCACHE_ENABLE=n", NULL, NULL, NULL);
	assert_true(is_set("UCX_IB_REG_METHODS=direct\n"));
	assert_true(is_set("MRCACHE_TURNED_OFF=libfabric\n"));
}

/* It has functions of its own for its variables. */
CASE(a_shell_with_its_own_setenv)
{
	if (access("/bin/bash", X_OK))
		skip();
	run(&(struct how){.shim = SHIM, .path = "/bin/bash"}, "--version");
	assert_int_equal(outcome.status, 0);
}

CASE(what_was_turned_off_is_said_and_counted)
{
	/* By this process, or by one that started it. */
	static const char *const inherited[] = {"MRCACHE_TURNED_OFF=ucx",
						"UCX_RCACHE_ENABLE=n",
						"UCX_IB_REG_METHODS=direct"};

	for (int i = 0; i < 2; i++) {
		run_under(&(struct how){.shim = SHIM,
					.environment = {WARN, STATS,
							i ? inherited[0] : NULL,
							inherited[1],
							inherited[2]}},
			  "passes");
		/* One line for one cause, and the statistics. */
		assert_int_equal(lines(outcome.err), 2);
		assert_non_null(
			strstr(outcome.err,
			       "nothing is cached; what cannot be guarded "
			       "was turned off: UCX, libfabric's own "
			       "caches\n"));
	}
	assert_non_null(
		strstr(outcome.err, "\"turned_off\":[\"UCX\",\"libfabric\"]"));
	/* No cache at all, so that no guard could say it. */
	run_under(&(struct how){.shim = CACHING,
				.passes = true,
				.environment = {WARN, "SUBJECT_IS=passing",
						"MRCACHE_MAX_BYTES=4X",
						"UCX_RCACHE_ENABLE=y"}},
		  "passes");
	assert_int_equal(lines(outcome.err), 1);
	assert_non_null(strstr(outcome.err, "; UCX's own cache is left on "
					    "(UCX_RCACHE_ENABLE)"));
	/* One of a job's processes on a host speaks. */
	run_under(&(struct how){.shim = SHIM,
				.environment = {WARN, "MPI_LOCALRANKID=1"}},
		  "passes");
	assert_string_equal(outcome.err, "");
	/* There is a driver, but not one to stand on. */
	run_under(&(struct how){.shim = CACHING,
				.environment = {WARN,
						"MRCACHE_MONITOR=ummunotify-"
						"2010"}},
		  "hit");
	assert_int_equal(lines(outcome.err), 1);
	assert_non_null(strstr(outcome.err, "what cannot be guarded was turned "
					    "off: UCX, libfabric"));
}

/* ---- saying more --------------------------------------------------------------------- */

CASE(more_is_said_if_asked)
{
	run_under(&(struct how){.shim = CACHING,
				.environment = {"MRCACHE_LOG=info"}},
		  "hit");
	assert_int_equal(lines(outcome.err), 2);
	assert_non_null(strstr(outcome.err, "monitor fake, at most "));
	assert_non_null(strstr(outcome.err, "4 hits, 1 misses"));
	run_under(&(struct how){.shim = SHIM,
				.environment = {"MRCACHE_LOG=debug"}},
		  "passes");
	assert_non_null(strstr(outcome.err, " not cached: monitor\n"));
}

CASE(a_child_is_not_blamed_on_libibverbs)
{
	run_under(&(struct how){.shim = CACHING, .environment = {WARN}},
		  "forked");
	assert_null(strstr(outcome.err, "ibv_fork_init"));
	assert_non_null(strstr(outcome.err, "this is a fork child"));
}

/* ---- evidence -------------------------------------------------------------------------- */

CASE(evidence_of_a_process)
{
	const char *directory = scratch("evidence");
	char setting[160], file[256], host[128] = "";

	assert_int_equal(mkdir(directory, 0700), 0);
	gethostname(host, sizeof(host) - 1);
	snprintf(setting, sizeof(setting), "MRCACHE_VERIFY=%s", directory);
	run_well(&(struct how){.shim = CACHING, .environment = {setting}},
		 "hit");
	snprintf(file, sizeof(file), "%s/%s.%d", directory, host, outcome.pid);
	assert_int_equal(lines(content(file)), 2);
	assert_non_null(strstr(content(file), "\"began\":true"));
	assert_non_null(strstr(content(file), "\"protected\":true}\n"));
	unlink(file);
	/* One that never says how it ended. */
	run_well(&(struct how){.shim = CACHING, .environment = {setting}},
		 "drop");
	snprintf(file, sizeof(file), "%s/%s.%d", directory, host, outcome.pid);
	assert_int_equal(lines(content(file)), 1);
	unlink(file);
	rmdir(directory);
	run_under(
		&(struct how){.shim = CACHING, .environment = {setting, WARN}},
		"hit");
	assert_non_null(strstr(outcome.err, "nobody will know"));
	assert_non_null(strstr(outcome.err, "No such file"));
	assert_int_equal(lines(outcome.err), 1);
}

/* Its signal would end the program, or call the program's handler. */
CASE(a_limit_of_file_sizes_costs_the_lines_only)
{
	const char *directory = scratch("limited"), *file = scratch("stats");
	char stats[160], verify[160], evidence[256], host[128] = "";
	struct rlimit before, limit;

	assert_int_equal(mkdir(directory, 0700), 0);
	gethostname(host, sizeof(host) - 1);
	snprintf(stats, sizeof(stats), "MRCACHE_STATS=%s", file);
	snprintf(verify, sizeof(verify), "MRCACHE_VERIFY=%s", directory);
	getrlimit(RLIMIT_FSIZE, &before);
	/* Room for the first line of evidence; both others would be cut. */
	limit = (struct rlimit){200, before.rlim_max};
	setrlimit(RLIMIT_FSIZE, &limit);
	run(&(struct how){.shim = CACHING,
			  .environment = {stats, verify, WARN}},
	    "hit");
	setrlimit(RLIMIT_FSIZE, &before);
	assert_int_equal(outcome.status, 0);
	assert_int_equal(lines(outcome.err), 2);
	assert_non_null(strstr(outcome.err, "MRCACHE_STATS"));
	assert_non_null(strstr(outcome.err, "MRCACHE_VERIFY"));
	assert_non_null(strstr(outcome.err, "File too large"));
	assert_string_equal(content(file), "");
	snprintf(evidence, sizeof(evidence), "%s/%s.%d", directory, host,
		 outcome.pid);
	assert_int_equal(lines(content(evidence)), 1);
	assert_non_null(strstr(content(evidence), "\"began\":true"));
	unlink(evidence);
	rmdir(directory);
}

CASE(mr_addr_is_what_was_asked_for)
{
	run_under(&(struct how){.shim = CACHING,
				.environment = {"MRCACHE_CONTAIN=1", WARN}},
		  "hit");
	assert_int_equal(lines(outcome.err), 1);
	assert_non_null(strstr(outcome.err, "MRCACHE_CONTAIN is ignored"));
	run_well(&(struct how){.shim = CACHING,
			       .environment = {"MRCACHE_CONTAIN=1",
					       "MRCACHE_PAGE_ALIGN=1"}},
		 "pd_busy");
}

/* ---- statistics ------------------------------------------------------------------ */

static void run_unread(const struct how *how, const char *mode)
{
	int ends[2], in, out, kept = dup(2);
	pid_t pid;

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	close(ends[0]);
	dup2(ends[1], 2);
	pid = start(how, mode, &in, &out);
	dup2(kept, 2);
	close(kept);
	close(ends[1]);
	assert_int_equal(finish(pid), 0);
	close(in);
	close(out);
}

/* As of `mrcache run --stats PROGRAM 2>&1 | head -1`. */
CASE(standard_error_that_nobody_reads)
{
	run_unread(&(struct how){.shim = CACHING, .environment = {STATS}},
		   "hit");
	/* A line in the middle: that remote access passes through. */
	run_unread(&(struct how){.shim = CACHING, .environment = {WARN}},
		   "remote_passes");
	/* And of the opening. */
	run_unread(&(struct how){.shim = SHIM, .environment = {WARN}},
		   "passes");
}

CASE(a_summary_on_standard_error)
{
	run_under(&(struct how){.shim = CACHING, .environment = {STATS}},
		  "hit");
	assert_int_equal(lines(outcome.err), 1);
	assert_int_equal(strncmp(outcome.err, "mrcache: {", 10), 0);
	assert_int_equal(number(outcome.err, "pid"), outcome.pid);
	assert_non_null(strstr(outcome.err, "{\"host\":\""));
	assert_non_null(strstr(outcome.err, "\"command\":\"preload_subject\""));
	assert_int_equal(number(outcome.err, "hits"), 4);
	assert_int_equal(number(outcome.err, "misses"), 1);
	assert_int_equal(number(outcome.err, "registrations"), 1);
	assert_int_equal(number(outcome.err, "deregistrations"), 1);
	run_well(&(struct how){.shim = CACHING,
			       .environment = {"MRCACHE_STATS=0"}},
		 "hit");
}

CASE(a_summary_in_a_file)
{
	const char *file = scratch("stats"), *text;
	char setting[128];

	snprintf(setting, sizeof(setting), "MRCACHE_STATS=%s", file);
	for (int i = 0; i < 2; i++)
		run_well(&(struct how){.shim = CACHING,
				       .environment = {setting}},
			 "hit");
	text = content(file);
	assert_int_equal(lines(text), 2);
	assert_int_equal(text[0], '{');
	assert_int_equal(number(text, "hits"), 4);
	assert_int_equal(number(strchr(text, '\n'), "hits"), 4);
	assert_int_equal(number(strchr(text, '\n'), "pid"), outcome.pid);
}

CASE(a_file_that_cannot_be_written)
{
	run_under(&(struct how){.shim = CACHING,
				.environment = {"MRCACHE_STATS=/nonexistent/x",
						WARN}},
		  "hit");
	assert_int_equal(lines(outcome.err), 1);
	assert_non_null(strstr(outcome.err, "/nonexistent/x: No such file"));
}

CASE(counters_while_it_runs)
{
	for (enum shim shim = SHIM; shim <= CACHING; shim++) {
		run_well(&(struct how){.shim = shim}, "counters");
		assert_int_equal(atoi(outcome.out), outcome.pid);
		no_counters_left();
	}
}

CASE(counters_seen_by_another)
{
	struct how how = {.shim = CACHING};
	char byte = '\n';
	int in, out;
	pid_t pid;

	pid = start(&how, "wait", &in, &out);
	assert_int_equal(read(out, &byte, 1), 1);
	assert_memory_equal(content(counters_path(pid)), "caches2", 7);
	close(in);
	assert_int_equal(finish(pid), 0);
	close(out);
	assert_int_equal(unlink(counters_path(pid)), -1);
}

/* Nobody can help that; who reads them must look whether the process lives. */
CASE(counters_of_a_process_that_just_ends)
{
	run_well(&(struct how){.shim = CACHING}, "drop");
	assert_true(outcome.left_counters);
}

/* ---- processes --------------------------------------------------------------------- */

CASE(a_child_passes_through)
{
	run_all_ways("forked");
}

CASE(a_child_of_a_process_without_a_cache)
{
	run_all_ways("forked_early");
}

CASE(a_fork_handler_may_give_back)
{
	run_all_ways("fork_handler");
}

#define MADVISES "SUBJECT_MADVISES=1"

/* The kernel copies pinned pages on fork, whatever libibverbs makes of that. */
CASE(fork_support_that_is_not_needed)
{
	static const char *const libraries[] = {"FAKE_FORK=unneeded",
						"FAKE_FORK=skipped"};

	for (int i = 0; i < 2; i++) {
		for (enum shim shim = PLAIN; shim <= CACHING; shim++) {
			struct how how = {.shim = shim,
					  .environment = {libraries[i],
							  !i && shim == PLAIN
								  ? MADVISES
								  : NULL}};

			run_well(&how, "fork_init");
		}
	}
}

CASE(fork_support_asked_for_by_the_environment)
{
	for (enum shim shim = PLAIN; shim <= CACHING; shim++) {
		struct how how = {
			.shim = shim,
			.environment = {"RDMAV_FORK_SAFE=1",
					shim == PLAIN ? MADVISES : NULL}};

		run_well(&how, "fork_safe");
	}
}

/* Then children and what the program maps later must be as without a cache. */
CASE(fork_support_in_effect)
{
	/* The kernel needs it; libibverbs does it out of our sight. */
	static const char *const environments[][2] = {
		{"FAKE_FORK=disabled", "SUBJECT_IGNORED=1"},
		{"FAKE_FORK=disabled", "RDMAV_FORK_SAFE=1"},
		{"FAKE_FORK=locked", "RDMAV_FORK_SAFE=1"},
	};

	for (int i = 0; i < 3; i++) {
		struct how how = {.shim = PLAIN,
				  .passes = true,
				  .environment = {environments[i][0],
						  environments[i][1], MADVISES,
						  STATS}};
		const char *mode = i ? "fork_safe" : "fork_init";

		run_well(&how, mode);
		how.shim = CACHING;
		run_under(&how, mode);
		assert_int_equal(number(outcome.err, "fork"), 4);
		assert_int_equal(number(outcome.err, "hits"), 0);
	}
}

CASE(fork_support_that_comes_too_late)
{
	static const struct {
		const char *setting, *plain, *cached;
	} cases[] = {
		{"FAKE_FORK=disabled", "22\n", "22\n"},
		/* As libibverbs has it from version 51 on. */
		{"FAKE_FORK=unneeded", "22\n", "0\n"},
		{"FAKE_FORK=skipped", "0\n", "0\n"},
	};

	for (int i = 0; i < 3; i++) {
		run_well(&(struct how){.shim = PLAIN,
				       .environment = {cases[i].setting}},
			 "fork_init_late");
		assert_string_equal(outcome.out, cases[i].plain);
		run_well(&(struct how){.shim = CACHING,
				       .environment = {cases[i].setting}},
			 "fork_init_late");
		assert_string_equal(outcome.out, cases[i].cached);
	}
}

static void copy_program(const char *to)
{
	char command[1024];

	snprintf(command, sizeof(command),
		 "cp '%s' '%s' && chown 0:0 '%s' && chmod 4755 '%s'", SUBJECT,
		 to, to, to);
	assert_int_equal(system(command), 0);
}

CASE(a_set_uid_program_is_not_touched)
{
	const char *program = scratch("set-uid");

	if (!is_root())
		skip();
	copy_program(program);
	/* Run by root it is a program as any. */
	run_well(&(struct how){.shim = CACHING, .path = program}, "hit");
	run_well(&(struct how){.shim = CACHING,
			       .passes = true,
			       .path = program,
			       .nobody = true},
		 "set_uid");
}

/* ---- the end -------------------------------------------------------------------------- */

CASE(nothing_is_called_after_the_end)
{
	const char *log = scratch("log");
	char setting[128];

	snprintf(setting, sizeof(setting), "FAKE_LOG=%s", log);
	for (enum shim shim = PLAIN; shim <= CACHING; shim++) {
		unlink(log);
		run_well(&(struct how){.shim = shim, .environment = {setting}},
			 "leave");
		/* Registrations are left to the kernel. */
		assert_string_equal(content(log),
				    shim == CACHING
					    ? "pins 2 unpins 0 live 2\n"
					    : "pins 2 unpins 1 live 1\n");
		no_counters_left();
	}
}

CASE(handlers_of_the_program_run_later)
{
	run_all_ways("leave_late");
	no_counters_left();
}

int main(void)
{
	return run_cases(NULL, NULL);
}
