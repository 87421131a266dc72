/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What verbs do under the shim is what they do without, but for how often
 * memory is registered: kinds of registrations, remote access, rereg, errors.
 */
#include "spawn.h"

#include <string.h>

#define REMOTE	  "MRCACHE_REMOTE=1"
#define LINGER	  "MRCACHE_LINGER=50"
#define STATS	  "MRCACHE_STATS=1"
#define NO_LOG	  "MRCACHE_LOG=quiet"
#define WITH(...) (&(struct how){.shim = CACHING, .environment = {__VA_ARGS__}})

static void changed_memory_is_registered_again(void **state)
{
	(void)state;
	run_all_ways("invalidated");
}

static void idle_memory_that_changes_is_let_go(void **state)
{
	(void)state;
	run_all_ways("reaped");
}

static void registrations_made_elsewhere_end(void **state)
{
	(void)state;
	run_all_ways("unseen");
}

static void other_kinds_pass_through(void **state)
{
	(void)state;
	run_all_ways("other_kinds");
}

static void other_kinds_are_counted(void **state)
{
	(void)state;
	run(WITH(STATS, NO_LOG), "other_kinds");
	assert_int_equal(outcome.status, 0);
	assert_int_equal(number(outcome.err, "kind"), 10);
	assert_int_equal(number(outcome.err, "access"), 6);
	assert_int_equal(number(outcome.err, "registrations"), 16);
	assert_int_equal(number(outcome.err, "cached"), 0);
}

static void giving_back_twice_is_an_error(void **state)
{
	(void)state;
	run_all_ways("twice");
}

static void giving_back_may_nest_in_a_verb(void **state)
{
	(void)state;
	run_all_ways("nested");
}

static void rereg_changes_one_registration(void **state)
{
	(void)state;
	run_all_ways("rereg");
}

static void rereg_of_a_shared_one_is_refused(void **state)
{
	(void)state;
	run_all_ways("rereg_shared");
}

static void errors_are_libibverbs_own(void **state)
{
	static char plain[sizeof(outcome.out)];
	/* Otherwise ibv_fork_init() is not libibverbs'. */
	const char *fork = "FAKE_FORK=disabled";

	(void)state;
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

static void idle_ones_make_room(void **state)
{
	(void)state;
	run_all_ways("memlock");
}

static void memory_for_verbs_is_enough(void **state)
{
	(void)state;
	run_all_ways("little_memory");
	run(WITH(STATS, NO_LOG), "little_memory");
	/* That it was not enough for the cache. */
	assert_true(number(outcome.err, "limit") > 0);
}

/* ---- remote access ------------------------------------------------------------ */

static void remote_keys_die_by_default(void **state)
{
	(void)state;
	run_all_ways("remote_passes");
	run(WITH("MRCACHE_REMOTE=0", STATS, NO_LOG), "remote_passes");
	assert_int_equal(outcome.status, 0);
	assert_int_equal(number(outcome.err, "remote"), 3);
	assert_int_equal(number(outcome.err, "hits"), 0);
	assert_int_equal(number(outcome.err, "registrations"), 3);
}

static void it_is_said_once_that_they_pass(void **state)
{
	(void)state;
	run(WITH("MRCACHE_LOG=warn"), "remote_passes");
	assert_int_equal(outcome.status, 0);
	assert_int_equal(lines(outcome.err), 1);
	assert_non_null(strstr(outcome.err, "MRCACHE_REMOTE=1"));
}

static void remote_keys_live_on_if_wanted(void **state)
{
	(void)state;
	run_well(WITH(REMOTE), "remote_hits");
	run(WITH(REMOTE, STATS), "remote_hits");
	assert_int_equal(number(outcome.err, "remote"), 0);
	assert_int_equal(number(outcome.err, "hits"), 2);
}

static void remote_keys_live_on_for_a_time(void **state)
{
	(void)state;
	run_well(WITH(LINGER), "remote_lingers");
}

/* ---- protection domains and devices --------------------------------------------- */

static void a_domain_ends_with_idle_ones(void **state)
{
	(void)state;
	run_all_ways("hit");
	run_all_ways("pd_again");
}

static void a_domain_with_held_ones_is_busy(void **state)
{
	(void)state;
	run_all_ways("pd_busy");
}

static void a_parent_domain_is_the_same_domain(void **state)
{
	(void)state;
	run_all_ways("parent_domain");
}

static void an_imported_domain_ends(void **state)
{
	(void)state;
	run_all_ways("imported_pd");
}

static void a_device_is_closed_with_idle_ones(void **state)
{
	(void)state;
	run_all_ways("close_without_dealloc");
}

static void a_dead_device_is_forgotten(void **state)
{
	(void)state;
	run_all_ways("fatal");
}

static void a_thread_is_cancelled_while_it_waits(void **state)
{
	(void)state;
	run_all_ways("cancelled");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(changed_memory_is_registered_again),
		cmocka_unit_test(idle_memory_that_changes_is_let_go),
		cmocka_unit_test(registrations_made_elsewhere_end),
		cmocka_unit_test(other_kinds_pass_through),
		cmocka_unit_test(other_kinds_are_counted),
		cmocka_unit_test(giving_back_twice_is_an_error),
		cmocka_unit_test(giving_back_may_nest_in_a_verb),
		cmocka_unit_test(rereg_changes_one_registration),
		cmocka_unit_test(rereg_of_a_shared_one_is_refused),
		cmocka_unit_test(errors_are_libibverbs_own),
		cmocka_unit_test(idle_ones_make_room),
		cmocka_unit_test(memory_for_verbs_is_enough),
		cmocka_unit_test(remote_keys_die_by_default),
		cmocka_unit_test(it_is_said_once_that_they_pass),
		cmocka_unit_test(remote_keys_live_on_if_wanted),
		cmocka_unit_test(remote_keys_live_on_for_a_time),
		cmocka_unit_test(a_domain_ends_with_idle_ones),
		cmocka_unit_test(a_domain_with_held_ones_is_busy),
		cmocka_unit_test(a_parent_domain_is_the_same_domain),
		cmocka_unit_test(an_imported_domain_ends),
		cmocka_unit_test(a_device_is_closed_with_idle_ones),
		cmocka_unit_test(a_dead_device_is_forgotten),
		cmocka_unit_test(a_thread_is_cancelled_while_it_waits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
