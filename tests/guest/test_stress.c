/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Everything at once for a while, each scenario in a process of its own, and
 * some killed in the middle of it. Afterwards the kernel has what it had.
 *
 * usage: test_stress [--seconds N] [--seed S]
 *
 * The seed repeats every decision of every thread, though not who is faster.
 */
#include "case.h"
#include "stress/stress.h"

#include <stdarg.h>
#include <stddef.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "memop_int.h"
#include "support.h"

#define PATIENCE 120 /* seconds for what takes milliseconds */

uint64_t stress_seed;
unsigned int stress_seconds = 15;
_Atomic uint64_t *stress_work;

/* --- for the scenarios ----------------------------------------------------------- */

static void complain(const char *text)
{
	fprintf(stderr,
		"seed %" PRIu64 ": %s\n"
		"replay: ./run test stress --seed %" PRIu64 " --seconds %u\n",
		stress_seed, text, stress_seed, stress_seconds);
}

void stress_die(const char *format, ...)
{
	char text[512];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	complain(text);
	_exit(1);
}

/* splitmix64 */
static uint64_t next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

struct dice dice_for(unsigned int thread, uint64_t step)
{
	struct dice dice = {stress_seed};

	dice.state = next(&dice.state) ^ thread;
	dice.state = next(&dice.state) ^ step;
	return dice;
}

unsigned int dice_below(struct dice *dice, unsigned int limit)
{
	return (next(&dice->state) >> 16) % limit;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void pause_us(long us)
{
	const struct timespec pause = {us / 1000000, us % 1000000 * 1000};

	nanosleep(&pause, NULL);
}

void stress_nap(struct dice *dice, unsigned int microseconds)
{
	pause_us(dice_below(dice, microseconds));
}

void stress_wait(double seconds, bool (*is_enough)(const void *),
		 const void *argument)
{
	double start = now(), spent;

	do {
		pause_us(20000);
		spent = now() - start;
	} while (spent < seconds ||
		 (!is_enough(argument) && spent < seconds + PATIENCE));
}

pid_t stress_fork(void (*f)(void *argument), void *argument)
{
	pid_t parent = getpid(), pid = fork();

	MUST(pid >= 0);
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* It may have ended before. */
	if (getppid() == parent)
		f(argument);
	_exit(1);
}

/* --- what a scenario leaves behind ------------------------------------------------- */

struct belongings {
	char rdma[256]; /* protection domains, registrations, ... */
	long long watches, uses;
};

static void read_belongings(struct belongings *b)
{
	FILE *f = popen("rdma resource show", "re");

	memset(b, 0, sizeof(*b));
	assert_non_null(f);
	assert_true(fread(b->rdma, 1, sizeof(b->rdma) - 1, f) > 0);
	assert_int_equal(pclose(f), 0);
	/* What a CPU has at hand would count as in use. */
	memop_put("/sys/kernel/slab/umn_watch/shrink", "1");
	b->watches = memop_number("/sys/kernel/slab/umn_watch/objects");
	b->uses = memop_number("/sys/module/ummunotify/refcnt");
}

static struct belongings at_first;

/* What is given back a moment later, by a worker or by RCU, is waited for. */
static void check_belongings(void)
{
	double end = now() + PATIENCE;
	struct belongings b;

	for (;;) {
		read_belongings(&b);
		if (!memcmp(&b, &at_first, sizeof(b)) || now() > end)
			break;
		pause_us(50000);
	}
	if (memcmp(&b, &at_first, sizeof(b)))
		complain("something is left behind");
	assert_string_equal(b.rdma, at_first.rdma);
	assert_int_equal(b.watches, at_first.watches);
	assert_int_equal(b.uses, at_first.uses);
}

/* --- a scenario in a process of its own ---------------------------------------------- */

struct scenario {
	const struct wire_variant *wire; /* NULL: volume */
	double share;			 /* of the time */
};

static void run(void *argument)
{
	const struct scenario *s = argument;
	double seconds = s->share * stress_seconds;

	/* A new group, so that all of it can be killed. */
	setpgid(0, 0);
	/* cmocka's handlers would end it without a word from another thread. */
	signal(SIGSEGV, SIG_DFL);
	signal(SIGBUS, SIG_DFL);
	alarm(seconds + 3 * PATIENCE);
	if (s->wire)
		wire_run(s->wire, seconds);
	else
		volume_run(seconds);
	fflush(NULL);
	_exit(0);
}

static bool failed = true;

/* What comes after a failure would say no more, and take its time. */
static void go_on(void)
{
	if (failed)
		exit(1);
	failed = true;
}

static void scenario(void **state)
{
	go_on();
	fflush(NULL);
	assert_int_equal(child_result(stress_fork(run, *state)), 0);
	check_belongings();
	failed = false;
}

static struct scenario volume = {.share = 0.35};

#define WIRE(NAME, ...)                                             \
	static struct scenario NAME = {                             \
		.wire = &(const struct wire_variant){.name = #NAME, \
						     __VA_ARGS__},  \
		.share = 0.05,                                      \
	}

WIRE(one_cache, .monitor = "ummunotify", .caches = 1, .hold = true);
WIRE(two_caches, .monitor = "ummunotify", .caches = 2, .hold = true);
WIRE(driver_of_2010, .monitor = "ummunotify-2010", .caches = 1, .hold = true);
WIRE(parts, .monitor = "ummunotify", .caches = 2, .contain = true,
     .reaper = true, .hold = true);
WIRE(many_domains, .monitor = "ummunotify", .caches = 2, .own_pds = true,
     .reaper = true, .hold = true);
WIRE(one_registration, .monitor = "ummunotify", .caches = 2, .max_regs = 1,
     .own_pds = true, .reaper = true);
WIRE(little_locked, .monitor = "ummunotify", .caches = 1, .memlock = 48,
     .reaper = true);
WIRE(verified, .monitor = "ummunotify", .caches = 2, .reaper = true,
     .fingerprint = true, .hold = true);
/* The race can be lost, so that winning it says something. */
WIRE(naive, .caches = 1, .hold = true, .naive = true);

#define TEST(SCENARIO)                                       \
	{                                                    \
#SCENARIO, scenario, NULL, NULL, &(SCENARIO) \
	}

static const struct CMUnitTest scenarios[] = {
	TEST(volume),
	TEST(one_cache),
	TEST(two_caches),
	TEST(driver_of_2010),
	TEST(parts),
	TEST(many_domains),
	TEST(one_registration),
	TEST(little_locked),
	TEST(verified),
	TEST(naive),
};
CASES(scenarios);

/* --- killed in the middle ---------------------------------------------------------------- */

#define KILL_SHARE 0.25
#define KILLS	   5 /* at least */

static struct scenario *const victims[] = {
	&volume,	   &one_cache,	   &many_domains, &parts,
	&one_registration, &little_locked, &verified,
};

/* Whether it was killed at work, rather than while it got ready. */
static bool kill_one(struct dice *dice)
{
	unsigned int which =
		dice_below(dice, sizeof(victims) / sizeof(victims[0]));
	struct scenario victim = *victims[which];
	double end = now() + PATIENCE;
	uint64_t before = *stress_work;
	pid_t pid;
	bool worked;

	victim.share = 1e6;
	fflush(NULL);
	pid = stress_fork(run, &victim);
	/* Most are left to get ready. */
	if (dice_below(dice, 4))
		while (*stress_work == before && now() < end)
			pause_us(1000);
	stress_nap(dice, 300000);
	worked = *stress_work > before;
	kill(pid, SIGKILL);
	assert_int_equal(child_result(pid), 128 + SIGKILL);
	/* Those it had made. */
	kill(-pid, SIGKILL);
	check_belongings();
	return worked;
}

CASE(killed)
{
	double end = now() + KILL_SHARE * stress_seconds;
	unsigned int kills = 0, worked = 0;

	go_on();
	do {
		struct dice dice = dice_for(DICE_KILL, kills++);

		worked += kill_one(&dice);
	} while (now() < end || kills < KILLS ||
		 (!worked && kills < 4 * KILLS));
	print_message("# killed: %u times, %u of them at work; 0 leaks\n",
		      kills, worked);
	assert_true(worked > 0);
}

/* --- all of it --------------------------------------------------------------------------- */

static void stop_merging(void)
{
	memop_put("/sys/kernel/mm/ksm/run", "0");
}

static int begin(void **state)
{
	(void)state;
	print_message("# seed %" PRIu64 ", %u seconds\n", stress_seed,
		      stress_seconds);
	stress_work = mmap(NULL, sizeof(*stress_work), PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (stress_work == MAP_FAILED)
		return -1;
	read_belongings(&at_first);
	memop_put("/sys/kernel/mm/ksm/sleep_millisecs", "20");
	memop_put("/sys/kernel/mm/ksm/run", "1");
	atexit(stop_merging);
	failed = false;
	return 0;
}

static void parse(int argc, char **argv)
{
	static const struct option options[] = {
		{"seconds", required_argument, NULL, 'n'},
		{"seed", required_argument, NULL, 's'},
		{0},
	};
	int option;

	stress_seed = time(NULL) % 1000000000;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'n':
			stress_seconds = strtoul(optarg, NULL, 0);
			break;
		case 's':
			stress_seed = strtoull(optarg, NULL, 0);
			break;
		default:
			exit(2);
		}
	}
}

int main(int argc, char **argv)
{
	parse(argc, argv);
	return run_cases(begin, NULL);
}
