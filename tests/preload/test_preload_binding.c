/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * However a program gets at verbs, it gets the shim's, and of anything else what
 * it would get without: linked, by symbol versions, by plug-ins, by dlsym().
 */
#include "support/case.h"
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

CASE(a_linked_program_hits)
{
	linked("hit");
}

CASE(both_forms_of_the_macro_share)
{
	linked("macros");
}

CASE(version_1_0_is_left_alone_and_harmless)
{
	linked("version_1_0");
}

CASE(one_call_is_one_registration)
{
	linked("once");
}

CASE(a_plugin_with_local_scope)
{
	loaded("by_plugin");
}

CASE(a_plugin_that_comes_and_goes)
{
	loaded("plugin_again");
}

CASE(dlsym_of_libibverbs)
{
	loaded("by_dlsym");
}

CASE(dlvsym_of_libibverbs)
{
	loaded("by_dlvsym");
}

CASE(dlsym_after_a_global_dlopen)
{
	loaded("by_global");
}

CASE(dlvsym_after_a_lazy_global_dlopen)
{
	loaded("by_lazy_handle");
}

CASE(dlsym_after_dlopen_with_deepbind)
{
	loaded("by_deepbind");
}

CASE(dlvsym_of_a_library_that_needs_libibverbs)
{
	loaded("plugin_handle");
}

CASE(default_is_looked_up_for_the_caller)
{
	loaded("plugin_scope");
}

CASE(dlvsym_of_1_0_is_the_old_one)
{
	loaded("old_version");
}

CASE(a_function_of_the_program_is_its_own)
{
	loaded("own_name");
}

CASE(all_other_lookups_are_as_without)
{
	static char plain[sizeof(outcome.out)];

	run_well(&(struct how){.shim = PLAIN, .loader = true}, "names");
	strcpy(plain, outcome.out);
	assert_true(lines(plain) > 10);
	run_well(&(struct how){.shim = SHIM, .loader = true}, "names");
	assert_string_equal(outcome.out, plain);
	run_well(&(struct how){.shim = CACHING, .loader = true}, "names");
	assert_string_equal(outcome.out, plain);
}

CASE(a_private_copy_of_libibverbs)
{
	for (enum shim shim = PLAIN; shim <= CACHING; shim++)
		run_well(
			&(struct
			  how){.shim = shim,
			       .loader = true,
			       .environment =
				       {"SUBJECT_PLUGIN=" PRIVATE_PLUGIN_FILE}},
			"by_plugin");
}

CASE(a_libibverbs_of_long_ago)
{
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

CASE(next_of_a_library_preloaded_before)
{
	for (enum shim shim = PLAIN; shim <= CACHING; shim++)
		run_well(&(struct how){.shim = shim,
				       .loader = true,
				       .tool = TOOL_FIRST},
			 "next");
}

CASE(next_of_a_library_preloaded_after)
{
	for (enum shim shim = SHIM; shim <= CACHING; shim++)
		run_well(&(struct how){.shim = shim,
				       .loader = true,
				       .tool = TOOL_LAST},
			 "next");
}

CASE(constructors_and_destructors)
{
	for (enum shim shim = PLAIN; shim <= CACHING; shim++)
		run_well(&(struct how){.shim = shim, .early = true},
			 "leave_late");
}

CASE(a_constructor_beside_the_first_registration)
{
	linked("constructor_race");
}

CASE(a_constructor_beside_the_first_fabric)
{
	for (enum shim shim = PLAIN; shim <= CACHING; shim++)
		run_well(
			&(struct how){
				.shim = shim,
				.path = FABRIC_RACE,
				.environment =
					{"FABRIC_EARLY=" FABRIC_EARLY_FILE}},
			"race");
}

CASE(threads_beside_dlopen)
{
	linked("threads");
}

int main(void)
{
	return run_cases(NULL, NULL);
}
