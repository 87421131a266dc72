/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `mrcache doctor -- PROGRAM` tells what `mrcache run --verify -- PROGRAM` will
 * find, in prepared situations: with doubles of a driver, of stacks and of
 * libibverbs. What the processes themselves saw is the judge.
 */
#include <stddef.h>
#include <stdint.h>

#include "support/case.h"
#include "support/execute.h"

#include <stdlib.h>

#define DRIVER "MRCACHE_DEVICE=/dev/null"
#define NONE   "MRCACHE_DEVICE=/nonexistent"
#define PINNED "FAKE_OPAL=pinned,hooks"

static struct executed e;

static const struct situation {
	const char *what;
	const char *stack; /* a library that the program loads */
	bool protected;
	const char *environment[4]; /* NAME=VALUE */
	const char *option;
	const char *program[4]; /* NULL: the one that loads stacks */
	const char *doctor;	/* says this */
} situations[] = {
	{.what = "nothing but the driver",
	 .stack = STACK_PLAIN_FILE,
	 .protected = true,
	 .environment = {DRIVER}},
	{.what = "without the driver all is off",
	 .stack = STACK_UCT_FILE,
	 .protected = true,
	 .environment = {NONE}},
	{.what = "a guarded UCX, whatever its variables say",
	 .stack = STACK_UCT_FILE,
	 .protected = true,
	 .environment = {DRIVER, "UCX_RCACHE_ENABLE=y"}},
	{.what = "UCX's guard forbidden, its cache off",
	 .stack = STACK_UCT_FILE,
	 .protected = true,
	 .environment = {DRIVER, "MRCACHE_GUARD=0"}},
	{.what = "UCX's guard forbidden, its cache on",
	 .stack = STACK_UCT_FILE,
	 .environment = {DRIVER, "MRCACHE_GUARD=0", "UCX_RCACHE_ENABLE=y"},
	 .doctor = "it would not be protected: UCX"},
	{.what = "without the driver, UCX's cache on",
	 .stack = STACK_UCT_FILE,
	 .environment = {NONE, "UCX_RCACHE_ENABLE=y"}},
	{.what = "libfabric's guard forbidden, its cache on",
	 .stack = STACK_MTL_FILE,
	 .environment = {DRIVER, "MRCACHE_GUARD=ucx",
			 "FI_MR_CACHE_MAX_COUNT=64"}},
	{.what = "kept, as it was asked for",
	 .stack = STACK_UCT_FILE,
	 .environment = {DRIVER},
	 .option = "--stack-caches=keep"},
	{.what = "off, as it was asked for",
	 .stack = STACK_UCT_FILE,
	 .protected = true,
	 .environment = {DRIVER},
	 .option = "--stack-caches=off"},
	{.what = "Open MPI's cache on",
	 .stack = STACK_OPAL_FILE,
	 .environment = {DRIVER, PINNED, "OMPI_MCA_mpi_leave_pinned=1"},
	 .doctor = "Open MPI may use stale memory"},
	{.what = "MVAPICH's cache off",
	 .stack = STACK_MPI_FILE,
	 .protected = true,
	 .environment = {DRIVER}},
	{.what = "MVAPICH's cache on",
	 .stack = STACK_MPI_FILE,
	 .environment = {DRIVER, "MV2_USE_LAZY_MEM_UNREGISTER=1"}},
	{.what = "the program as it is",
	 .stack = STACK_PLAIN_FILE,
	 .environment = {DRIVER, "MRCACHE_ENABLE=0"}},
	{.what = "started by a shell",
	 .stack = STACK_UCT_FILE,
	 .protected = true,
	 .environment = {DRIVER},
	 .program = {"sh", "-c", STACKS_PROGRAM " uses"},
	 .doctor = "what sh starts gets the environment"},
	{.what = "out of reach",
	 .stack = STACK_PLAIN_FILE,
	 .environment = {DRIVER},
	 .program = {"/bin/busybox", "true"},
	 .doctor = "is statically linked"},
};

static void execute_situation(const struct situation *situation,
			      const char *first, const char *second)
{
	char settings[8][256];
	const char *argv[24] = {"/usr/bin/env"};
	unsigned int n = 1, set = 0;

#define SET(...)                                                             \
	do {                                                                 \
		snprintf(settings[set], sizeof(settings[set]), __VA_ARGS__); \
		argv[n++] = settings[set++];                                 \
	} while (0)
	SET("SUBJECT_STACKS=%s", situation->stack);
	SET("MRCACHE_PRELOAD=%s", CACHING_SHIM_FILE);
	SET("LD_PRELOAD=%s", NODE_FILE);
#undef SET
	for (int i = 0; i < 4 && situation->environment[i]; i++)
		argv[n++] = situation->environment[i];
	argv[n++] = command_path();
	argv[n++] = first;
	argv[n++] = second;
	if (situation->option)
		argv[n++] = situation->option;
	argv[n++] = "--";
	if (situation->program[0]) {
		for (int i = 0; i < 4 && situation->program[i]; i++)
			argv[n++] = situation->program[i];
	} else {
		argv[n++] = STACKS_PROGRAM;
		argv[n++] = "uses";
	}
	argv[n] = NULL;
	execute_as(&e, &(const struct as){0}, argv);
}

static void predicts(const struct situation *situation)
{
	static const char *const prediction[] = {"\"protected\": false",
						 "\"protected\": true"};

	execute_situation(situation, "doctor", "--json");
	assert_out(&e, prediction[situation->protected]);
	/* There is no RDMA device, which is another matter. */
	assert_status(&e, situation->protected ? 1 : 3);
	if (situation->doctor)
		assert_out(&e, situation->doctor);
	execute_situation(situation, "run", "--verify");
	assert_status(&e, situation->protected ? 0 : 123);
	assert_err(&e, situation->protected ? "mrcache: verified: 1 process"
					    : "mrcache: not verified: ");
}

CASE(what_it_says_comes_true)
{
	NEEDS_COMMAND();
	for (size_t i = 0; i < sizeof(situations) / sizeof(*situations); i++) {
		const struct situation *situation = &situations[i];

		if (situation->program[0] && *situation->program[0] == '/' &&
		    access(situation->program[0], X_OK))
			continue;
		print_message("%s\n", situation->what);
		predicts(situation);
	}
}

/* In each, one of the processes is protected, and one is not known to be. */
CASE(only_what_is_known_is_verified)
{
	static const struct situation both[] = {
		{.stack = STACK_UCT_FILE,
		 .environment = {DRIVER, "UCX_RCACHE_ENABLE=y"},
		 .program = {"sh", "-c",
			     STACKS_PROGRAM
			     " uses; MRCACHE_MAX_BYTES=x " STACKS_PROGRAM
			     " uses"},
		 .doctor = "not protected: there is no cache"},
		{.stack = STACK_PLAIN_FILE,
		 .environment = {DRIVER, "SUBJECT_CACHES=1"},
		 .program = {SUBJECT, "forked"},
		 .doctor = "a fork child, in which nothing is looked at"},
	};

	NEEDS_COMMAND();
	for (size_t i = 0; i < sizeof(both) / sizeof(*both); i++) {
		execute_situation(&both[i], "run", "--verify");
		assert_status(&e, 123);
		assert_err(&e, both[i].doctor);
	}
}

CASE(a_doctor_does_not_speak_of_itself)
{
	NEEDS_COMMAND();
	setenv("MRCACHE_PRELOAD", SHIM_FILE, 1);
	setenv("LD_BIND_NOW", "1", 1); /* as packages are built */
	MRCACHE(&e, "doctor");
	unsetenv("LD_BIND_NOW");
	unsetenv("MRCACHE_PRELOAD");
	assert_out(&e, "ok    preload ");
	assert_string_equal(e.err, "");
}

CASE(what_hangs_is_named)
{
	NEEDS_COMMAND();
	setenv("LD_PRELOAD", NODE_FILE, 1);
	setenv("FAKE_HANG", "1", 1);
	MRCACHE(&e, "doctor", "--timeout=7");
	unsetenv("FAKE_HANG");
	unsetenv("LD_PRELOAD");
	assert_status(&e, 1);
	assert_string_equal(
		e.err, "mrcache doctor: looking at RDMA devices, for 5 s\n"
		       "mrcache doctor: given up: RDMA devices, for 7 s\n");
}

int main(void)
{
	return run_cases(NULL, NULL);
}
