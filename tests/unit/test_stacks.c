/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What variables of the environment say of stacks' own caches, what is exported
 * to turn them off, and the settings of the guards.
 */
#include "unit.h"

#include "guard/stacks.h"

#include <stdlib.h>
#include <string.h>

static const char *const ranks[] = {"OMPI_COMM_WORLD_RANK",
				    "PMIX_RANK",
				    "PMI_RANK",
				    "SLURM_PROCID",
				    "MPI_LOCALRANKID",
				    "SLURM_LOCALID",
				    "OMPI_COMM_WORLD_LOCAL_RANK",
				    "PALS_LOCAL_RANKID",
				    "PALS_RANKID",
				    "FLUX_TASK_RANK",
				    "FLUX_TASK_LOCAL_ID",
				    "MV2_COMM_WORLD_RANK",
				    "MV2_COMM_WORLD_LOCAL_RANK"};

static int nothing_set(void **state)
{
	(void)state;
	for (int i = 0; i < STACKS; i++)
		for (int j = 0; j < STACK_VARIABLES; j++)
			if (known_stacks[i].variables[j].name)
				unsetenv(known_stacks[i].variables[j].name);
	for (size_t i = 0; i < sizeof(ranks) / sizeof(*ranks); i++)
		unsetenv(ranks[i]);
	return 0;
}

/* Sets "NAME=VALUE NAME=VALUE ...", and nothing else. */
static void set(const char *text)
{
	char *copy = strdup(text), *rest = copy, *word;

	nothing_set(NULL);
	while ((word = strsep(&rest, " "))) {
		char *value = strchr(word, '=');

		if (!value)
			continue;
		*value++ = '\0';
		assert_int_equal(setenv(word, value, 1), 0);
	}
	free(copy);
}

static const char *name_of(const struct stack_variable *variable)
{
	return variable ? variable->name : "";
}

static void is(enum stack_id stack, const char *environment, const char *off_by,
	       const char *on_by)
{
	set(environment);
	assert_string_equal(name_of(stack_off_by(&known_stacks[stack])),
			    off_by);
	assert_string_equal(name_of(stack_on_by(&known_stacks[stack])), on_by);
}

CASE(what_variables_say)
{
	for (int i = 0; i < STACKS; i++)
		is((enum stack_id)i, "", "", "");

	/* Off only if every version is. */
	is(STACK_UCX, "UCX_RCACHE_ENABLE=n UCX_IB_REG_METHODS=direct",
	   "UCX_RCACHE_ENABLE", "");
	is(STACK_UCX, "UCX_RCACHE_ENABLE=no UCX_IB_REG_METHODS=odp,direct",
	   "UCX_RCACHE_ENABLE", "");
	is(STACK_UCX, "UCX_RCACHE_ENABLE=n", "", "");
	is(STACK_UCX, "UCX_IB_REG_METHODS=direct", "", "");
	is(STACK_UCX, "UCX_MEM_EVENTS=n", "UCX_MEM_EVENTS", "");
	is(STACK_UCX, "UCX_MEM_EVENTS=y", "", "");
	is(STACK_UCX, "UCX_RCACHE_ENABLE=y", "", "UCX_RCACHE_ENABLE");
	is(STACK_UCX, "UCX_RCACHE_ENABLE=try", "", "UCX_RCACHE_ENABLE");
	is(STACK_UCX, "UCX_RCACHE_ENABLE=n UCX_IB_REG_METHODS=rcache,direct",
	   "", "UCX_IB_REG_METHODS");
	is(STACK_UCX, "UCX_RCACHE_ENABLE=y UCX_MEM_EVENTS=0", "UCX_MEM_EVENTS",
	   "");
	is(STACK_UCX, "UCX_WARN_UNUSED_ENV_VARS=y", "", "");

	is(STACK_FABRIC, "FI_MR_CACHE_MAX_COUNT=0", "FI_MR_CACHE_MAX_COUNT",
	   "");
	is(STACK_FABRIC, "FI_MR_CACHE_MAX_SIZE=0", "FI_MR_CACHE_MAX_SIZE", "");
	is(STACK_FABRIC, "FI_MR_CACHE_MAX_COUNT=64", "",
	   "FI_MR_CACHE_MAX_COUNT");
	is(STACK_FABRIC, "FI_MR_CACHE_MAX_COUNT=", "", "FI_MR_CACHE_MAX_COUNT");
	/* The provider efa has a switch of its own. */
	is(STACK_FABRIC, "FI_MR_CACHE_MAX_COUNT=0 FI_EFA_MR_CACHE_ENABLE=1", "",
	   "FI_EFA_MR_CACHE_ENABLE");
	is(STACK_FABRIC, "FI_EFA_MR_CACHE_ENABLE=0", "", "");
	is(STACK_FABRIC, "FI_MR_CACHE_MONITOR=disabled", "", "");
	assert_true(stack_is_unwanted(&known_stacks[STACK_FABRIC]));
	is(STACK_FABRIC, "FI_MR_CACHE_MONITOR=memhooks", "", "");
	assert_false(stack_is_unwanted(&known_stacks[STACK_FABRIC]));

	is(STACK_OPENMPI, "OMPI_MCA_mpi_leave_pinned=0",
	   "OMPI_MCA_mpi_leave_pinned", "");
	is(STACK_OPENMPI, "OMPI_MCA_mpi_leave_pinned=false",
	   "OMPI_MCA_mpi_leave_pinned", "");
	is(STACK_OPENMPI, "OMPI_MCA_mpi_leave_pinned=1", "",
	   "OMPI_MCA_mpi_leave_pinned");
	is(STACK_OPENMPI,
	   "OMPI_MCA_mpi_leave_pinned=0 OMPI_MCA_mpi_leave_pinned_pipeline=1",
	   "", "OMPI_MCA_mpi_leave_pinned_pipeline");

	is(STACK_MVAPICH,
	   "MV2_USE_LAZY_MEM_UNREGISTER=0 MVP_USE_LAZY_MEM_UNREGISTER=0",
	   "MV2_USE_LAZY_MEM_UNREGISTER", "");
	is(STACK_MVAPICH, "MV2_USE_LAZY_MEM_UNREGISTER=0", "", "");

	is(STACK_MPICH, "MPIR_CVAR_CH4_OFI_MR_CACHE_SIZE=0",
	   "MPIR_CVAR_CH4_OFI_MR_CACHE_SIZE", "");
	is(STACK_MPICH, "MPIR_CVAR_CH4_OFI_MR_CACHE_SIZE=16", "",
	   "MPIR_CVAR_CH4_OFI_MR_CACHE_SIZE");

	is(STACK_PSM3, "PSM3_MR_CACHE_MODE=1", "", "");
	is(STACK_PSM3, "PSM3_MR_CACHE_MODE=2", "", "PSM3_MR_CACHE_MODE");
	assert_false(stack_keeps(&known_stacks[STACK_PSM3]));
}

CASE(what_is_exported_turns_it_off)
{
	for (int i = 0; i < STACKS; i++) {
		const struct stack *stack = &known_stacks[i];

		nothing_set(NULL);
		stack_switch_off(stack);
		assert_ptr_equal(stack_off_by(stack),
				 stack_keeps(stack) ? &stack->variables[0]
						    : NULL);
		assert_null(stack_on_by(stack));
	}
	/* What is there stays; and never what leaves UCX without events. */
	set("UCX_RCACHE_ENABLE=y");
	stack_switch_off(&known_stacks[STACK_UCX]);
	assert_string_equal(getenv("UCX_RCACHE_ENABLE"), "y");
	assert_string_equal(getenv("UCX_IB_REG_METHODS"), "direct");
	assert_null(getenv("UCX_MEM_EVENTS"));
	/* What the user's switch leaves on, and nothing else. */
	set("FI_MR_CACHE_MAX_COUNT=0");
	stack_switch_extras_off(&known_stacks[STACK_FABRIC]);
	assert_string_equal(getenv("FI_EFA_MR_CACHE_ENABLE"), "0");
	nothing_set(NULL);
	stack_switch_extras_off(&known_stacks[STACK_UCX]);
	assert_null(getenv("UCX_RCACHE_ENABLE"));
}

CASE(guards_have_names)
{
	static const struct {
		const char *text;
		unsigned int bits;
	} good[] = {{NULL, 3},
		    {"1", 3},
		    {"all", 3},
		    {"0", 0},
		    {"ucx", 1},
		    {"libfabric", 2},
		    {"ucx,libfabric", 3},
		    {"libfabric,ucx", 3},
		    {"ucx,ucx", 1}};
	static const char *const bad[] = {
		"",	 "2",	  "yes",	  "UCX",  "ucx,", ",ucx",
		"ucx,1", "ucx x", "libfabric,uc", "none", "01"};
	unsigned int bits;

	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		bits = 77;
		assert_true(guard_parse(good[i].text, &bits));
		assert_int_equal(bits, good[i].bits);
	}
	/* Rather all than none. */
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		bits = 77;
		assert_false(guard_parse(bad[i], &bits));
		assert_int_equal(bits, 3);
	}
}

CASE(one_of_a_job_speaks)
{
	set("");
	assert_true(job_is_first() && job_is_first_here());
	set("OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_LOCAL_RANK=0");
	assert_true(job_is_first() && job_is_first_here());
	set("OMPI_COMM_WORLD_RANK=4 OMPI_COMM_WORLD_LOCAL_RANK=0");
	assert_true(!job_is_first() && job_is_first_here());
	set("SLURM_PROCID=5 SLURM_LOCALID=1");
	assert_true(!job_is_first() && !job_is_first_here());
	set("FLUX_TASK_RANK=2 FLUX_TASK_LOCAL_ID=0");
	assert_true(!job_is_first() && job_is_first_here());
	set("PALS_RANKID=2 PALS_LOCAL_RANKID=1");
	assert_true(!job_is_first() && !job_is_first_here());
	set("MV2_COMM_WORLD_RANK=0 MV2_COMM_WORLD_LOCAL_RANK=0");
	assert_true(job_is_first() && job_is_first_here());
	/* mpirun inside of a batch job: its own ranks count. */
	set("SLURM_PROCID=0 SLURM_LOCALID=0 PMI_RANK=3");
	assert_true(!job_is_first() && job_is_first_here());
}

int main(void)
{
	return run_cases(nothing_set, NULL);
}
