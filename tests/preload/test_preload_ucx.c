/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guard of UCX, with UCX doubles of two shapes (fake_ucx.h) and a device
 * without a kernel. What the doubles do plain is checked as well: they are as
 * wrong as the real ones.
 */
#include "support/case.h"
#include "spawn.h"

#include <stdio.h>
#include <string.h>

#define ROUNDS 20

static const char *const versions[] = {"FAKE_UCX=1.13", "FAKE_UCX=1.18"};

struct counts {
	unsigned int stale, registrations, left;
};

/* The last line; lines before it are skipped. */
static struct counts counted(void)
{
	const char *line = strstr(outcome.out, "stale ");
	struct counts counts = {0};

	for (const char *next = line; next; next = strstr(next + 1, "stale "))
		line = next;
	assert_non_null(line);
	assert_int_equal(sscanf(line, "stale %u registrations %u left %u",
				&counts.stale, &counts.registrations,
				&counts.left),
			 3);
	return counts;
}

static struct counts run_ucx(enum shim shim, const char *version,
			     const char *more, const char *mode)
{
	run(&(struct how){.shim = shim,
			  .path = UCX_SUBJECT,
			  .environment = {version, "MRCACHE_REMOTE=1", more}},
	    mode);
	if (outcome.status)
		print_error("%s, %s: status 0x%x\n%s", mode, version,
			    (unsigned int)outcome.status, outcome.err);
	assert_int_equal(outcome.status, 0);
	assert_string_equal(outcome.err, "");
	return counted();
}

/* Plain it is wrong, guarded it never is; registrations are counted exactly. */
static void compare(const char *mode, unsigned int plain, unsigned int guarded)
{
	for (int i = 0; i < 2; i++) {
		struct counts counts = run_ucx(PLAIN, versions[i], NULL, mode);

		assert_true(counts.stale > 0);
		assert_int_equal(counts.registrations, plain);
		counts = run_ucx(CACHING, versions[i], NULL, mode);
		assert_int_equal(counts.stale, 0);
		assert_int_equal(counts.registrations, guarded);
		/* None of them was kept below as well. */
		assert_int_equal(counts.left, 0);
	}
}

CASE(unchanged_memory_is_registered_once)
{
	for (int i = 0; i < 2; i++) {
		assert_int_equal(run_ucx(PLAIN, versions[i], NULL, "unchanged")
					 .registrations,
				 1);
		assert_int_equal(
			run_ucx(CACHING, versions[i], NULL, "unchanged")
				.registrations,
			1);
	}
}

CASE(changed_memory_is_registered_again)
{
	compare("changes", 2, ROUNDS + 1);
}

CASE(whichever_function_registers)
{
	static const char *const verbs[] = {"FAKE_UCT_VERB=iova",
					    "FAKE_UCT_VERB=ex"};

	for (int i = 0; i < 4; i++) {
		const char *version = versions[i / 2], *verb = verbs[i % 2];
		struct counts counts = run_ucx(PLAIN, version, verb, "changes");

		assert_true(counts.stale > 0);
		counts = run_ucx(CACHING, version, verb, "changes");
		assert_int_equal(counts.stale, 0);
		assert_int_equal(counts.registrations, ROUNDS + 1);
		assert_int_equal(counts.left, 0);
	}
}

CASE(what_is_held_is_replaced_once)
{
	compare("held", 1, 2);
	compare("held_others", 2, ROUNDS + 1);
}

CASE(the_window_while_it_is_registered)
{
	compare("window", 1, 2);
}

CASE(each_context_is_told)
{
	compare("contexts", 2, 2 * ROUNDS + 2);
}

CASE(without_a_cache_it_has_ours)
{
	for (int i = 0; i < 2; i++) {
		assert_int_equal(run_ucx(PLAIN, versions[i], NULL, "uncached")
					 .registrations,
				 ROUNDS + 1);
		assert_int_equal(run_ucx(CACHING, versions[i], NULL, "uncached")
					 .registrations,
				 2);
		assert_int_equal(run_ucx(CACHING, versions[i], NULL, "closed")
					 .registrations,
				 2);
	}
}

CASE(a_broken_monitor_keeps_nothing)
{
	for (int i = 0; i < 2; i++)
		assert_int_equal(
			run_ucx(CACHING, versions[i], NULL, "broken").stale, 0);
}

CASE(a_fork_child_gets_through)
{
	for (int i = 0; i < 2; i++)
		assert_int_equal(
			run_ucx(CACHING, versions[i], NULL, "forked").stale, 0);
}

/* Told by another thread after this one has looked into its queue. */
CASE(a_queue_that_was_empty)
{
	for (int i = 0; i < 2; i++)
		assert_int_equal(
			run_ucx(CACHING, versions[i], NULL, "race_queue").stale,
			0);
}

CASE(all_is_told_before_any_lookup)
{
	for (int i = 0; i < 2; i++)
		assert_int_equal(
			run_ucx(CACHING, versions[i], NULL, "race_told").stale,
			0);
}

CASE(a_thread_that_is_cancelled)
{
	for (int i = 0; i < 2; i++)
		assert_int_equal(
			run_ucx(CACHING, versions[i], NULL, "cancelled").stale,
			0);
}

CASE(threads_and_contexts)
{
	for (int i = 0; i < 2; i++) {
		assert_true(run_ucx(PLAIN, versions[i], NULL, "threads").stale >
			    0);
		assert_int_equal(
			run_ucx(CACHING, versions[i], NULL, "threads").stale,
			0);
	}
}

CASE(switched_off_it_is_as_plain)
{
	for (int i = 0; i < 2; i++) {
		assert_true(run_ucx(CACHING, versions[i], "MRCACHE_GUARD=0",
				    "changes")
				    .stale > 0);
		assert_true(run_ucx(CACHING, versions[i],
				    "MRCACHE_GUARD=libfabric", "changes")
				    .stale > 0);
		assert_int_equal(run_ucx(CACHING, versions[i],
					 "MRCACHE_GUARD=ucx", "changes")
					 .stale,
				 0);
	}
}

/* ---- without patching ------------------------------------------------------------- */

CASE(it_needs_no_hooks)
{
	static const char *const off[] = {"MRCACHE_GUARD_UCX_HOOKS=0",
					  "FAKE_UCM_HOOKS=none"};
	struct how how = {.shim = CACHING, .path = UCX_SUBJECT};

	run_well(&how, "hooks");
	assert_non_null(strstr(outcome.out, "cache 1 patched 1\n"));
	/* UCX alone makes no cache then. */
	how.environment[0] = off[1];
	run_well(&how, "hooks");
	assert_non_null(strstr(outcome.out, "cache 0 patched 0\n"));
	how.environment[1] = off[0];
	run_well(&how, "hooks");
	assert_non_null(strstr(outcome.out, "cache 1 patched 0\n"));
	assert_int_equal(counted().stale, 0);
	assert_int_equal(counted().registrations, ROUNDS);
}

/* Where nothing is guarded UCX must have its own. */
CASE(hooks_are_left_where_nothing_is_guarded)
{
	struct how how = {.shim = SHIM,
			  .path = UCX_SUBJECT,
			  .environment = {"MRCACHE_GUARD_UCX_HOOKS=0"}};

	run_well(&how, "hooks");
	assert_non_null(strstr(outcome.out, "cache 1 patched 1\n"));
	how.shim = CACHING;
	how.environment[1] = "MRCACHE_GUARD=0";
	how.environment[2] = "MRCACHE_LOG=warn";
	how.environment[3] = "MRCACHE_REMOTE=1";
	run(&how, "hooks");
	assert_int_equal(outcome.status, 0);
	assert_non_null(strstr(outcome.out, "cache 1 patched 1\n"));
	assert_non_null(strstr(outcome.err, "MRCACHE_GUARD_UCX_HOOKS=0 is "
					    "ignored"));
	assert_int_equal(lines(outcome.err), 1);
}

/* ---- ways to load it -------------------------------------------------------------- */

CASE(two_copies_with_local_scope)
{
	struct how how = {.shim = CACHING,
			  .path = UCX_LOADER,
			  .environment = {"UCX_PLUGINS=" UCX_PLUGIN
					  ":" UCX_PRIVATE_PLUGIN}};

	for (int i = 0; i < 2; i++) {
		how.environment[1] = versions[i];
		run_well(&how, "changes");
		assert_int_equal(lines(outcome.out), 4);
		assert_int_equal(counted().stale, 0);
		/* All four times, as often as it must be. */
		assert_int_equal(counted().registrations, 4 * (ROUNDS + 1));
	}
}

CASE(calls_that_pass_us_are_said)
{
	struct how how = {.shim = CACHING,
			  .path = UCX_LOADER,
			  .environment = {"UCX_PLUGINS=" UCX_PLUGIN
					  ":" UCX_PRIVATE_PLUGIN,
					  "UCX_DEEP=1", "MRCACHE_LOG=warn",
					  "FAKE_UCX=1.18"}};

	run(&how, "unchanged");
	assert_int_equal(outcome.status, 0);
	/* And that the plug-in is, which is linked with libibverbs. */
	assert_int_equal(lines(outcome.err), 2);
	assert_non_null(
		strstr(outcome.err, "its UCX is out of the guard's reach"));
	/* And nothing of the kind where they do not. */
	how.environment[1] = "UCX_DEEPER=1";
	run(&how, "unchanged");
	assert_int_equal(outcome.status, 0);
	assert_string_equal(outcome.err, "");
}

int main(void)
{
	return run_cases(NULL, NULL);
}
