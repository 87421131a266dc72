/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What verbs do under the shim is what they do without, but for how often
 * memory is registered: kinds of registrations, remote access, rereg, errors.
 */
#include "support/case.h"
#include "spawn.h"

#include <string.h>

#define REMOTE	  "MRCACHE_REMOTE=1"
#define LINGER	  "MRCACHE_LINGER=50"
#define STATS	  "MRCACHE_STATS=1"
#define NO_LOG	  "MRCACHE_LOG=quiet"
#define WITH(...) (&(struct how){.shim = CACHING, .environment = {__VA_ARGS__}})

CASE(changed_memory_is_registered_again)
{
	run_all_ways("invalidated");
}

CASE(idle_memory_that_changes_is_let_go)
{
	run_all_ways("reaped");
}

CASE(registrations_made_elsewhere_end)
{
	run_all_ways("unseen");
}

CASE(other_kinds_pass_through)
{
	run_all_ways("other_kinds");
}

CASE(other_kinds_are_counted)
{
	run(WITH(STATS, NO_LOG), "other_kinds");
	assert_int_equal(outcome.status, 0);
	assert_int_equal(number(outcome.err, "kind"), 10);
	assert_int_equal(number(outcome.err, "access"), 6);
	assert_int_equal(number(outcome.err, "registrations"), 16);
	assert_int_equal(number(outcome.err, "cached"), 0);
}

CASE(giving_back_twice_is_an_error)
{
	run_all_ways("twice");
}

CASE(giving_back_may_nest_in_a_verb)
{
	run_all_ways("nested");
}

CASE(rereg_changes_one_registration)
{
	run_all_ways("rereg");
}

CASE(rereg_of_a_shared_one_is_refused)
{
	run_all_ways("rereg_shared");
}

CASE(errors_are_libibverbs_own)
{
	static char plain[sizeof(outcome.out)];
	/* Otherwise ibv_fork_init() is not libibverbs'. */
	const char *fork = "FAKE_FORK=disabled";

	run_well(&(struct how){.shim = PLAIN, .environment = {fork}}, "errors");
	strcpy(plain, outcome.out);
	assert_true(lines(plain) > 20);
	run_well(&(struct how){.shim = SHIM, .environment = {fork}}, "errors");
	assert_string_equal(outcome.out, plain);
	run_well(&(struct how){.shim = CACHING, .environment = {fork}},
		 "errors");
	assert_string_equal(outcome.out, plain);
	/* Of a registration that there is not nobody says how it was passed. */
	run(&(struct how){.shim = CACHING,
			  .environment = {fork, "MRCACHE_LOG=warn"}},
	    "errors");
	assert_int_equal(outcome.status, 0);
	assert_null(strstr(outcome.err, "not of plain memory"));
}

CASE(idle_ones_make_room)
{
	run_all_ways("memlock");
}

CASE(memory_for_verbs_is_enough)
{
	run_all_ways("little_memory");
	run(WITH(STATS, NO_LOG), "little_memory");
	/* That it was not enough for the cache. */
	assert_true(number(outcome.err, "limit") > 0);
}

/* ---- remote access ------------------------------------------------------------ */

CASE(remote_keys_die_by_default)
{
	run_all_ways("remote_passes");
	run(WITH("MRCACHE_REMOTE=0", STATS, NO_LOG), "remote_passes");
	assert_int_equal(outcome.status, 0);
	assert_int_equal(number(outcome.err, "remote"), 3);
	assert_int_equal(number(outcome.err, "hits"), 0);
	assert_int_equal(number(outcome.err, "registrations"), 3);
}

CASE(it_is_said_once_that_they_pass)
{
	run(WITH("MRCACHE_LOG=warn"), "remote_passes");
	assert_int_equal(outcome.status, 0);
	assert_int_equal(lines(outcome.err), 1);
	assert_non_null(strstr(outcome.err, "MRCACHE_REMOTE=1"));
}

CASE(remote_keys_live_on_if_wanted)
{
	run_well(WITH(REMOTE), "remote_hits");
	run(WITH(REMOTE, STATS), "remote_hits");
	assert_int_equal(number(outcome.err, "remote"), 0);
	assert_int_equal(number(outcome.err, "hits"), 2);
}

CASE(remote_keys_live_on_for_a_time)
{
	run_well(WITH(LINGER), "remote_lingers");
}

/* ---- protection domains and devices --------------------------------------------- */

CASE(a_domain_ends_with_idle_ones)
{
	run_all_ways("hit");
	run_all_ways("pd_again");
}

CASE(a_domain_with_held_ones_is_busy)
{
	run_all_ways("pd_busy");
}

CASE(a_parent_domain_is_the_same_domain)
{
	run_all_ways("parent_domain");
}

CASE(an_imported_domain_ends)
{
	run_all_ways("imported_pd");
}

CASE(a_device_is_closed_with_idle_ones)
{
	run_all_ways("close_without_dealloc");
}

CASE(a_dead_device_is_forgotten)
{
	run_all_ways("fatal");
}

CASE(a_thread_is_cancelled_while_it_waits)
{
	run_all_ways("cancelled");
}

int main(void)
{
	return run_cases(NULL, NULL);
}
