/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Caches of stacks that nothing guards: the shim finds them by looking at the
 * process, says so once, and says nothing of what is not there. With doubles;
 * real stacks are in tests/programs.
 */
#include "support/case.h"
#include "spawn.h"

#include <stdio.h>
#include <string.h>

#define WARN  "MRCACHE_LOG=warn"
#define STATS "MRCACHE_STATS=1"

static char stacks[2048];

/* Loads these and registers; what it says is in `outcome`. */
static void with(const char *list, const char *one, const char *two,
		 const char *mode)
{
	snprintf(stacks, sizeof(stacks), "SUBJECT_STACKS=%s", list);
	run(&(struct how){.shim = CACHING,
			  .path = STACKS_PROGRAM,
			  .environment = {WARN, stacks, one ? one : STATS,
					  two ? two : STATS, STATS}},
	    mode);
	if (outcome.status)
		print_error("%s: status 0x%x\n%s", list,
			    (unsigned int)outcome.status, outcome.err);
	assert_int_equal(outcome.status, 0);
}

/* What the statistics say is not guarded, as JSON. */
static void unguarded_is(const char *names)
{
	char want[128];

	snprintf(want, sizeof(want), "\"unguarded\":[%s]", names);
	if (!strstr(outcome.err, want))
		print_error("no %s in\n%s", want, outcome.err);
	assert_non_null(strstr(outcome.err, want));
}

/* The line, and that of the statistics. */
static void says(const char *what)
{
	if (lines(outcome.err) != 2 || !strstr(outcome.err, what))
		print_error("not \"%s\" alone:\n%s", what, outcome.err);
	assert_int_equal(lines(outcome.err), 2);
	assert_non_null(strstr(outcome.err, what));
}

static void says_nothing(void)
{
	if (lines(outcome.err) != 1)
		print_error("%s", outcome.err);
	assert_int_equal(lines(outcome.err), 1);
}

CASE(a_program_without_stacks)
{
	with("", NULL, NULL, "uses");
	unguarded_is("");
	says_nothing();
	/* One that only registers, as any may. */
	with(STACK_PLAIN_FILE, NULL, NULL, "uses");
	unguarded_is("");
	says_nothing();
}

CASE(open_mpi_is_asked_itself)
{
	with(STACK_OPAL_FILE, "FAKE_OPAL=pinned,hooks", NULL, "uses");
	unguarded_is("\"Open MPI\"");
	says("Open MPI keeps registrations without a guard");
	assert_non_null(strstr(outcome.err, "OMPI_MCA_mpi_leave_pinned=0"));
	with(STACK_OPAL_FILE, "FAKE_OPAL=pipeline,hooks", NULL, "uses");
	unguarded_is("\"Open MPI\"");
	/* Loaded, but for UCX or libfabric; or off. */
	with(STACK_OPAL_FILE, NULL, NULL, "uses");
	unguarded_is("");
	says_nothing();
	with(STACK_OPAL_FILE, "FAKE_OPAL=pinned", NULL, "uses");
	unguarded_is("");
	with(STACK_OPAL_FILE, "FAKE_OPAL=hooks", NULL, "uses");
	unguarded_is("");
	says_nothing();
}

CASE(mvapich)
{
	with(STACK_MPI_FILE, NULL, NULL, "uses");
	unguarded_is("\"MVAPICH\"");
	says("MVAPICH keeps registrations");
	with(STACK_MPI_FILE, "MV2_USE_LAZY_MEM_UNREGISTER=0",
	     "MVP_USE_LAZY_MEM_UNREGISTER=0", "uses");
	unguarded_is("");
	says_nothing();
}

CASE(copies_inside_other_libraries)
{
	with(STACK_UCX_INSIDE_FILE, NULL, NULL, "uses");
	unguarded_is("\"UCX\"");
	says(STACK_UCX_INSIDE_FILE ": its UCX is out of the guard's reach");
	with(STACK_FABRIC_INSIDE_FILE, NULL, NULL, "uses");
	unguarded_is("\"libfabric\"");
	says(STACK_FABRIC_INSIDE_FILE ": its libfabric is out of");
	with(STACK_UCX_INSIDE_FILE "," STACK_FABRIC_INSIDE_FILE,
	     "UCX_MEM_EVENTS=n", "FI_MR_CACHE_MAX_COUNT=0", "uses");
	unguarded_is("");
	says_nothing();
}

CASE(libraries_bound_around_the_shim)
{
	with("+" STACK_PLAIN_FILE, NULL, NULL, "uses");
	unguarded_is("\"deep binding\"");
	says(STACK_PLAIN_FILE " is bound to libibverbs directly");
	/* Nothing of it reaches the shim, which has no statistics then. */
	with("+" STACK_PLAIN_FILE, NULL, NULL, "stranger");
	assert_int_equal(lines(outcome.err), 1);
	assert_non_null(
		strstr(outcome.err, " is bound to libibverbs directly"));
	with("+" STACK_PLAIN_FILE, "MRCACHE_LOG=quiet", NULL, "stranger");
	assert_string_equal(outcome.err, "");
	with("+" STACK_PLAIN_FILE, "MRCACHE_ENABLE=0", NULL, "stranger");
	assert_string_equal(outcome.err, "");
	with(STACK_PLAIN_FILE, NULL, NULL, "stranger");
	says_nothing();
}

/* Its registrations are seen, and what it looks up is not. */
CASE(a_ucx_bound_around_the_guard)
{
	with(STACK_UCP_FILE, NULL, NULL, "uses");
	unguarded_is("");
	says_nothing();
	with("+" STACK_UCP_FILE, NULL, NULL, "uses");
	unguarded_is("\"UCX\"");
	says(STACK_UCP_FILE ": its UCX is out of the guard's reach");
}

/* What uses libfabric is linked with verbs as well, here. */
CASE(a_libfabric_bound_around_the_guard)
{
	with("+" STACK_MTL_FILE, NULL, NULL, "uses");
	unguarded_is("\"libfabric\",\"deep binding\"");
	assert_non_null(strstr(outcome.err, STACK_MTL_FILE
			       ": its libfabric is out of the guard's reach"));
	with("+" STACK_MTL_FILE, "FI_MR_CACHE_MAX_COUNT=0", NULL, "uses");
	unguarded_is("\"deep binding\"");
	says(STACK_MTL_FILE " is bound to libibverbs directly");
}

/* Said by whoever turned the guard off; the statistics have it all the same. */
CASE(a_guard_that_is_off)
{
	with(STACK_UCT_FILE, "MRCACHE_GUARD=0", NULL, "uses");
	unguarded_is("\"UCX\"");
	says_nothing();
	with(STACK_UCT_FILE, "MRCACHE_GUARD=libfabric", NULL, "uses");
	unguarded_is("\"UCX\"");
	with(STACK_UCT_FILE, "MRCACHE_GUARD=ucx", NULL, "uses");
	unguarded_is("");
	with(STACK_UCT_FILE, NULL, NULL, "uses");
	unguarded_is("");
	with(STACK_UCT_FILE, "MRCACHE_GUARD=0", "UCX_MEM_EVENTS=n", "uses");
	unguarded_is("");
	with(STACK_UCT_FILE, "MRCACHE_GUARD=nonsense", NULL, "uses");
	unguarded_is("");
	says("MRCACHE_GUARD=nonsense: not 0, 1, all, ucx");
}

/* One line for all processes of a job on a host, and not only at the end. */
CASE(it_is_said_once_and_early)
{
	with(STACK_OPAL_FILE, "FAKE_OPAL=pinned,hooks", NULL, "dies");
	assert_int_equal(lines(outcome.err), 1);
	assert_non_null(strstr(outcome.err, "Open MPI keeps"));
	assert_true(outcome.left_counters);
	with(STACK_OPAL_FILE, "FAKE_OPAL=pinned,hooks",
	     "OMPI_COMM_WORLD_LOCAL_RANK=1", "uses");
	unguarded_is("\"Open MPI\"");
	says_nothing();
	with(STACK_OPAL_FILE, "FAKE_OPAL=pinned,hooks",
	     "OMPI_COMM_WORLD_LOCAL_RANK=0", "uses");
	says("Open MPI keeps");
}

int main(void)
{
	return run_cases(NULL, NULL);
}
