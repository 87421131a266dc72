/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The shim in the life of a process: settings, what it says and shows, fork,
 * exec, set-uid programs, and the end.
 */
#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

static void it_can_be_turned_off(void **state)
{
	(void)state;
	run_under(
		&(struct how){.shim = CACHING,
			      .passes = true,
			      .environment = {"MRCACHE_ENABLE=0", WARN, STATS}},
		"passes");
	assert_string_equal(outcome.err, "");
	no_counters_left();
}

static void settings_that_make_no_sense(void **state)
{
	static const char *const settings[] = {
		"MRCACHE_REMOTE=2",	      "MRCACHE_REMOTE=",
		"MRCACHE_LINGER=soon",	      "MRCACHE_LOG=loud",
		"MRCACHE_MAX_BYTES=4X",	      "MRCACHE_MAX_REGS=-1",
		"MRCACHE_PAGE_ALIGN=1",	      "MRCACHE_MONITOR=eyes",
		"MRCACHE_MONITOR=ummunotify",
	};

	(void)state;
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

static void without_the_device(void **state)
{
	(void)state;
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

static void not_permitted_to_open_the_device(void **state)
{
	const char *device = scratch("device");
	char setting[128];
	int fd;

	(void)state;
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

static void mr_addr_is_what_was_asked_for(void **state)
{
	(void)state;
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

static void a_summary_on_standard_error(void **state)
{
	(void)state;
	run_under(&(struct how){.shim = CACHING, .environment = {STATS}},
		  "hit");
	assert_int_equal(lines(outcome.err), 1);
	assert_int_equal(strncmp(outcome.err, "mrcache: {", 10), 0);
	assert_int_equal(number(outcome.err, "pid"), outcome.pid);
	assert_int_equal(number(outcome.err, "hits"), 4);
	assert_int_equal(number(outcome.err, "misses"), 1);
	assert_int_equal(number(outcome.err, "registrations"), 1);
	assert_int_equal(number(outcome.err, "deregistrations"), 1);
	run_well(&(struct how){.shim = CACHING,
			       .environment = {"MRCACHE_STATS=0"}},
		 "hit");
}

static void a_summary_in_a_file(void **state)
{
	const char *file = scratch("stats"), *text;
	char setting[128];

	(void)state;
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

static void a_file_that_cannot_be_written(void **state)
{
	(void)state;
	run_under(&(struct how){.shim = CACHING,
				.environment = {"MRCACHE_STATS=/nonexistent/x",
						WARN}},
		  "hit");
	assert_int_equal(lines(outcome.err), 1);
	assert_non_null(strstr(outcome.err, "/nonexistent/x: No such file"));
}

static void counters_while_it_runs(void **state)
{
	(void)state;
	for (enum shim shim = SHIM; shim <= CACHING; shim++) {
		run_well(&(struct how){.shim = shim}, "counters");
		assert_int_equal(atoi(outcome.out), outcome.pid);
		no_counters_left();
	}
}

static void counters_seen_by_another(void **state)
{
	struct how how = {.shim = CACHING};
	char byte = '\n';
	int in, out;
	pid_t pid;

	(void)state;
	pid = start(&how, "wait", &in, &out);
	assert_int_equal(read(out, &byte, 1), 1);
	assert_memory_equal(content(counters_path(pid)), "caches1", 7);
	close(in);
	assert_int_equal(finish(pid), 0);
	close(out);
	assert_int_equal(unlink(counters_path(pid)), -1);
}

/* Nobody can help that; who reads them must look whether the process lives. */
static void counters_of_a_process_that_just_ends(void **state)
{
	(void)state;
	run_well(&(struct how){.shim = CACHING}, "drop");
	assert_true(outcome.left_counters);
}

/* ---- processes --------------------------------------------------------------------- */

static void a_child_passes_through(void **state)
{
	(void)state;
	run_all_ways("forked");
}

static void a_child_of_a_process_without_a_cache(void **state)
{
	(void)state;
	run_all_ways("forked_early");
}

static void fork_support_from_the_start(void **state)
{
	(void)state;
	run_under(&(struct how){.shim = CACHING,
				.passes = true,
				.environment = {"FAKE_FORK=enabled", STATS}},
		  "passes");
	assert_int_equal(number(outcome.err, "fork"), 3);
}

static void fork_support_from_now_on(void **state)
{
	(void)state;
	for (enum shim shim = PLAIN; shim <= CACHING; shim++)
		run_well(&(struct how){.shim = shim,
				       .environment = {"FAKE_FORK=disabled"}},
			 "fork_init");
}

static void copy_program(const char *to)
{
	char command[1024];

	snprintf(command, sizeof(command),
		 "cp '%s' '%s' && chown 0:0 '%s' && chmod 4755 '%s'", SUBJECT,
		 to, to, to);
	assert_int_equal(system(command), 0);
}

static void a_set_uid_program_is_not_touched(void **state)
{
	const char *program = scratch("set-uid");

	(void)state;
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

static void nothing_is_called_after_the_end(void **state)
{
	const char *log = scratch("log");
	char setting[128];

	(void)state;
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

static void handlers_of_the_program_run_later(void **state)
{
	(void)state;
	run_all_ways("leave_late");
	no_counters_left();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_can_be_turned_off),
		cmocka_unit_test(settings_that_make_no_sense),
		cmocka_unit_test(without_the_device),
		cmocka_unit_test(not_permitted_to_open_the_device),
		cmocka_unit_test(mr_addr_is_what_was_asked_for),
		cmocka_unit_test(a_summary_on_standard_error),
		cmocka_unit_test(a_summary_in_a_file),
		cmocka_unit_test(a_file_that_cannot_be_written),
		cmocka_unit_test(counters_while_it_runs),
		cmocka_unit_test(counters_seen_by_another),
		cmocka_unit_test(counters_of_a_process_that_just_ends),
		cmocka_unit_test(a_child_passes_through),
		cmocka_unit_test(a_child_of_a_process_without_a_cache),
		cmocka_unit_test(fork_support_from_the_start),
		cmocka_unit_test(fork_support_from_now_on),
		cmocka_unit_test(a_set_uid_program_is_not_touched),
		cmocka_unit_test(nothing_is_called_after_the_end),
		cmocka_unit_test(handlers_of_the_program_run_later),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
