/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * However a program gets at verbs, it gets the shim's, and of anything else what
 * it would get without: linked, by symbol versions, by plug-ins, by dlsym().
 */
#include "spawn.h"

#include <string.h>

static void linked(const char *mode)
{
	run_all_ways(mode);
}

static void loaded(const char *mode)
{
	run_well(&(struct how){.shim = PLAIN, .loader = true}, mode);
	run_well(&(struct how){.shim = SHIM, .loader = true}, mode);
	run_well(&(struct how){.shim = CACHING, .loader = true}, mode);
}

static void a_linked_program_hits(void **state)
{
	(void)state;
	linked("hit");
}

static void both_forms_of_the_macro_share(void **state)
{
	(void)state;
	linked("macros");
}

static void version_1_0_is_left_alone_and_harmless(void **state)
{
	(void)state;
	linked("version_1_0");
}

static void one_call_is_one_registration(void **state)
{
	(void)state;
	linked("once");
}

static void a_plugin_with_local_scope(void **state)
{
	(void)state;
	loaded("by_plugin");
}

static void a_plugin_that_comes_and_goes(void **state)
{
	(void)state;
	loaded("plugin_again");
}

static void dlsym_of_libibverbs(void **state)
{
	(void)state;
	loaded("by_dlsym");
}

static void dlvsym_of_libibverbs(void **state)
{
	(void)state;
	loaded("by_dlvsym");
}

static void dlsym_after_a_global_dlopen(void **state)
{
	(void)state;
	loaded("by_global");
}

static void dlvsym_after_a_lazy_global_dlopen(void **state)
{
	(void)state;
	loaded("by_lazy_handle");
}

static void dlsym_after_dlopen_with_deepbind(void **state)
{
	(void)state;
	loaded("by_deepbind");
}

static void dlvsym_of_a_library_that_needs_libibverbs(void **state)
{
	(void)state;
	loaded("plugin_handle");
}

static void default_is_looked_up_for_the_caller(void **state)
{
	(void)state;
	loaded("plugin_scope");
}

static void dlvsym_of_1_0_is_the_old_one(void **state)
{
	(void)state;
	loaded("old_version");
}

static void a_function_of_the_program_is_its_own(void **state)
{
	(void)state;
	loaded("own_name");
}

static void all_other_lookups_are_as_without(void **state)
{
	static char plain[sizeof(outcome.out)];

	(void)state;
	run_well(&(struct how){.shim = PLAIN, .loader = true}, "names");
	strcpy(plain, outcome.out);
	assert_true(lines(plain) > 10);
	run_well(&(struct how){.shim = SHIM, .loader = true}, "names");
	assert_string_equal(outcome.out, plain);
	run_well(&(struct how){.shim = CACHING, .loader = true}, "names");
	assert_string_equal(outcome.out, plain);
}

static void a_private_copy_of_libibverbs(void **state)
{
	(void)state;
	for (enum shim shim = PLAIN; shim <= CACHING; shim++)
		run_well(
			&(struct
			  how){.shim = shim,
			       .loader = true,
			       .environment =
				       {"SUBJECT_PLUGIN=" PRIVATE_PLUGIN_FILE}},
			"by_plugin");
}

static void a_libibverbs_of_long_ago(void **state)
{
	(void)state;
	for (enum shim shim = PLAIN; shim <= CACHING; shim++)
		run_well(&(struct how){.shim = shim,
				       .loader = true,
				       .old_library = true},
			 "old_library");
	/* It cannot say that this is in effect. */
	run_well(&(struct how){.shim = CACHING,
			       .passes = true,
			       .loader = true,
			       .old_library = true,
			       .environment = {"RDMAV_FORK_SAFE=1"}},
		 "old_library");
}

static void next_of_a_library_preloaded_before(void **state)
{
	(void)state;
	for (enum shim shim = PLAIN; shim <= CACHING; shim++)
		run_well(&(struct how){.shim = shim,
				       .loader = true,
				       .tool = TOOL_FIRST},
			 "next");
}

static void next_of_a_library_preloaded_after(void **state)
{
	(void)state;
	for (enum shim shim = SHIM; shim <= CACHING; shim++)
		run_well(&(struct how){.shim = shim,
				       .loader = true,
				       .tool = TOOL_LAST},
			 "next");
}

static void constructors_and_destructors(void **state)
{
	(void)state;
	for (enum shim shim = PLAIN; shim <= CACHING; shim++)
		run_well(&(struct how){.shim = shim, .early = true},
			 "leave_late");
}

static void a_constructor_beside_the_first_registration(void **state)
{
	(void)state;
	linked("constructor_race");
}

static void a_constructor_beside_the_first_fabric(void **state)
{
	(void)state;
	for (enum shim shim = PLAIN; shim <= CACHING; shim++)
		run_well(
			&(struct how){
				.shim = shim,
				.path = FABRIC_RACE,
				.environment =
					{"FABRIC_EARLY=" FABRIC_EARLY_FILE}},
			"race");
}

static void threads_beside_dlopen(void **state)
{
	(void)state;
	linked("threads");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_linked_program_hits),
		cmocka_unit_test(both_forms_of_the_macro_share),
		cmocka_unit_test(version_1_0_is_left_alone_and_harmless),
		cmocka_unit_test(one_call_is_one_registration),
		cmocka_unit_test(a_plugin_with_local_scope),
		cmocka_unit_test(a_plugin_that_comes_and_goes),
		cmocka_unit_test(dlsym_of_libibverbs),
		cmocka_unit_test(dlvsym_of_libibverbs),
		cmocka_unit_test(dlsym_after_a_global_dlopen),
		cmocka_unit_test(dlvsym_after_a_lazy_global_dlopen),
		cmocka_unit_test(dlsym_after_dlopen_with_deepbind),
		cmocka_unit_test(dlvsym_of_a_library_that_needs_libibverbs),
		cmocka_unit_test(default_is_looked_up_for_the_caller),
		cmocka_unit_test(dlvsym_of_1_0_is_the_old_one),
		cmocka_unit_test(a_function_of_the_program_is_its_own),
		cmocka_unit_test(all_other_lookups_are_as_without),
		cmocka_unit_test(a_private_copy_of_libibverbs),
		cmocka_unit_test(a_libibverbs_of_long_ago),
		cmocka_unit_test(next_of_a_library_preloaded_before),
		cmocka_unit_test(next_of_a_library_preloaded_after),
		cmocka_unit_test(constructors_and_destructors),
		cmocka_unit_test(a_constructor_beside_the_first_registration),
		cmocka_unit_test(a_constructor_beside_the_first_fabric),
		cmocka_unit_test(threads_beside_dlopen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
