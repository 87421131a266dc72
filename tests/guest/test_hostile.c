/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What one user can do to another: user nobody does its worst with the device,
 * and a bystander measures. Every figure is against the same without watches, in
 * the same boot. In a guest whose clock counts instructions (--icount) times are
 * work, exactly; elsewhere the least of several is taken. docs/security.md has
 * the table.
 */
#include "case.h"
#include "module.h"
#include "support.h"
#include "umn.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NOBODY	   65534
#define SOMEBODY   1000
#define EVERYTHING (((size_t)1 << 47) - 3 * PAGE)
#define MANY	   20000
#define VERY_MANY  1000000
#define AT_ONCE	   500 /* of them armed in a call */
#define MAPPINGS   1000
#define TIMES	   20
#define FILES	   1000
#define PERIOD	   100000L     /* ns, of the bystander */
#define LOAD	   200000000.0 /* ns, of two threads */
#define STOOD_BACK 50

/* ---- children ------------------------------------------------------------------- */

/* Does what it is asked, one byte each, and answers with a figure. */
struct actor {
	pid_t pid;
	int ask, answer;
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int become(uid_t uid)
{
	return setgroups(0, NULL) || setresgid(uid, uid, uid) ||
			       setresuid(uid, uid, uid)
		       ? -errno
		       : 0;
}

/* In a child nothing can be asserted: it ends, and its answer does not come. */
#define WANT(condition)                                                  \
	do {                                                             \
		if (!(condition)) {                                      \
			fprintf(stderr, "%s:%d: wrong in a child: %s\n", \
				__FILE__, __LINE__, #condition);         \
			_exit(1);                                        \
		}                                                        \
	} while (0)

static _Noreturn void act(uid_t uid, double (*f)(char order), int ask,
			  int answer)
{
	double figure;
	char order;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	WANT(!become(uid));
	while (get_byte(ask, &order)) {
		figure = f(order);
		WANT(write(answer, &figure, sizeof(figure)) == sizeof(figure));
	}
	_exit(0);
}

static void start(struct actor *actor, uid_t uid, double (*f)(char order))
{
	int ask[2], answer[2];

	assert_int_equal(pipe2(ask, O_CLOEXEC), 0);
	assert_int_equal(pipe2(answer, O_CLOEXEC), 0);
	actor->pid = fork();
	assert_true(actor->pid >= 0);
	if (!actor->pid) {
		close(ask[1]);
		close(answer[0]);
		act(uid, f, ask[0], answer[1]);
	}
	close(ask[0]);
	close(answer[1]);
	actor->ask = ask[1];
	actor->answer = answer[0];
}

static double ask(const struct actor *actor, char order)
{
	double figure = -1;

	assert_true(put_byte(actor->ask, order));
	assert_int_equal(read(actor->answer, &figure, sizeof(figure)),
			 sizeof(figure));
	return figure;
}

/* How long it takes from SIGKILL to the end. */
static double stop(struct actor *actor)
{
	double begin = now();

	kill(actor->pid, SIGKILL);
	assert_int_equal(child_result(actor->pid), 128 + SIGKILL);
	close(actor->ask);
	close(actor->answer);
	return now() - begin;
}

/* ---- the bystander ------------------------------------------------------------------ */

/* Root's, more important than all else on its CPU; shared with its parent. */
static struct bystander {
	volatile double longest; /* ns that it ran too late */
} * bystander;
static pid_t bystander_pid;

static _Noreturn void stand_by(void)
{
	struct sched_param priority = {.sched_priority = 50};
	struct timespec next;
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(0, &cpus);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	WANT(!sched_setaffinity(0, sizeof(cpus), &cpus));
	WANT(!sched_setscheduler(0, SCHED_FIFO, &priority));
	clock_gettime(CLOCK_MONOTONIC, &next);
	for (;;) {
		double late = now() - (double)next.tv_sec * 1e9 -
			      (double)next.tv_nsec;

		if (late > bystander->longest)
			bystander->longest = late;
		clock_gettime(CLOCK_MONOTONIC, &next);
		next.tv_nsec += PERIOD;
		if (next.tv_nsec >= 1000000000) {
			next.tv_nsec -= 1000000000;
			next.tv_sec++;
		}
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
	}
}

static int start_bystander(void **state)
{
	(void)state;
	bystander = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (bystander == MAP_FAILED)
		return -1;
	bystander_pid = fork();
	if (!bystander_pid)
		stand_by();
	return bystander_pid < 0;
}

static int stop_bystander(void **state)
{
	(void)state;
	kill(bystander_pid, SIGKILL);
	waitpid(bystander_pid, NULL, 0);
	return munmap(bystander, PAGE);
}

/* ---- what nobody does ------------------------------------------------------------------ */

static struct umn u;
static char *page;

static void watch_everything(unsigned int from, unsigned int n, bool with_slot)
{
	struct ummunotify_watch_ioctl w;

	if (!u.counter)
		WANT(!umn_start(&u, UMN_ALL));
	for (unsigned int i = from; i < from + n; i++)
		WANT(!(with_slot ? umn_watch(u.fd, (void *)PAGE, EVERYTHING, i,
					     0, &w)
				 : umn_register(u.fd, (void *)PAGE, EVERYTHING,
						i)));
}

/* Arms so many watches anew, at everything, as cheaply as may be. */
static void arm_all(unsigned int n)
{
	static struct ummunotify_arm arms[AT_ONCE];

	for (unsigned int i = 0; i < n; i += AT_ONCE) {
		for (unsigned int j = 0; j < AT_ONCE; j++)
			arms[j] = umn_order(i + j, (void *)PAGE, EVERYTHING, 0);
		WANT(umn_arm_many(u.fd, arms, AT_ONCE) == AT_ONCE);
	}
}

static void hit(void)
{
	*page = 1;
	WANT(!madvise(page, PAGE, MADV_DONTNEED));
}

/* The least time of a call that invalidates one page. */
static double least(void)
{
	double best = 1e18;

	for (unsigned int i = 0; i < TIMES; i++) {
		double begin, took;

		*page = 1;
		begin = now();
		WANT(!madvise(page, PAGE, MADV_DONTNEED));
		took = now() - begin;
		if (took < best)
			best = took;
	}
	return best;
}

static void *load(void *arg)
{
	char *own = pages_map(1);
	double end = now() + LOAD;

	(void)arg;
	WANT(own);
	while (now() < end) {
		*own = 1;
		WANT(!madvise(own, PAGE, MADV_DONTNEED));
	}
	return NULL;
}

/* The longest time that the bystander had to wait for two threads of ours. */
static double load_twice(void)
{
	pthread_t thread;

	bystander->longest = 0;
	WANT(!pthread_create(&thread, NULL, load, NULL));
	load(NULL);
	pthread_join(thread, NULL);
	return bystander->longest;
}

static bool is_told(void)
{
	return umn_word(&u, 0) & UMMUNOTIFY_STATE_KINDS;
}

/* The same, when the first of their calls hits all there are. */
static double load_all(void)
{
	double longest;

	WANT(!is_told());
	longest = load_twice();
	WANT(is_told());
	return longest;
}

/* Opens the device until it is refused. */
static double open_many(void)
{
	struct rlimit limit = {FILES + 100, FILES + 100};
	unsigned int n = 0;

	WANT(!setrlimit(RLIMIT_NOFILE, &limit));
	while (n < FILES && umn_open(O_RDONLY) >= 0)
		n++;
	return n;
}

static int shared = -1; /* root's file that all may read */
static char *mapped[MAPPINGS];

static double map_all(void)
{
	for (unsigned int i = 0; i < MAPPINGS; i++) {
		if (!mapped[i])
			mapped[i] = mmap(NULL, PAGE, PROT_READ, MAP_SHARED,
					 shared, 0);
		WANT(mapped[i] != MAP_FAILED);
		(void)*(volatile char *)mapped[i];
	}
	return 0;
}

/* How often it stands back for the bystander, on whose CPU it is. */
static double first_hit(void)
{
	struct rusage before, after;
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(0, &cpus);
	WANT(!sched_setaffinity(0, sizeof(cpus), &cpus));
	*page = 1;
	WANT(!getrusage(RUSAGE_THREAD, &before));
	WANT(!madvise(page, PAGE, MADV_DONTNEED));
	WANT(!getrusage(RUSAGE_THREAD, &after));
	return (double)(after.ru_nivcsw - before.ru_nivcsw);
}

/* What nobody is told to do. */
static double obey(char order)
{
	static unsigned int made;

	if (!page)
		WANT((page = pages_map(1)));
	switch (order) {
	case '0': /* only opened */
		watch_everything(0, 0, true);
		return 0;
	case 'w':
		watch_everything(made, MANY, true);
		made += MANY;
		return 0;
	case 'r':
		watch_everything(made, MANY, false);
		made += MANY;
		return 0;
	case '1':
		watch_everything(made, MANY / 5, true);
		made += MANY / 5;
		return 0;
	case 'W':
		watch_everything(made, VERY_MANY, true);
		made += VERY_MANY;
		return 0;
	case 'h':
		hit();
		return 0;
	case 'f':
		return first_hit();
	case 't':
		return least();
	case 'a':
		arm_all(made);
		return 0;
	case 'l':
		return load_twice();
	case 'L':
		return load_all();
	case 'm':
		return map_all();
	case 'o':
		return open_many();
	default:
		WANT(false);
		return 0;
	}
}

#define AT_MOST(figure, times, other)                                       \
	do {                                                                \
		printf("# %s: %.0f ns, %s: %.0f ns\n", #figure, figure,     \
		       #other, other);                                      \
		if (!((figure) <= (times) * (other)))                       \
			fail_msg("%s is %.0f ns, %s is %.0f ns: more than " \
				 "%g times",                                \
				 #figure, figure, #other, other,            \
				 (double)(times));                          \
	} while (0)

/* ---- tests ------------------------------------------------------------------------------ */

/* What is told costs nothing more, made by this order. */
static void told_costs_nothing(char make)
{
	struct actor nobody;
	double without, with;

	start(&nobody, NOBODY, obey);
	ask(&nobody, '0');
	without = ask(&nobody, 't');
	ask(&nobody, make);
	ask(&nobody, 'h');
	with = ask(&nobody, 't');
	stop(&nobody);
	AT_MOST(with, 2, without);
}

CASE(told_watches_cost_nothing)
{
	told_costs_nothing('w');
}

/* Those of REGISTER_REGION, which stay armed; nobody reads the reports. */
CASE(told_registers_cost_nothing)
{
	told_costs_nothing('r');
}

/* The first hit lets go of its lock, however many it hits. */
CASE(a_long_walk_lets_others_run)
{
	struct actor nobody;
	double stood_back;

	start(&nobody, NOBODY, obey);
	/* Once in vain: what a fork shares is copied, which hits. */
	ask(&nobody, '1');
	ask(&nobody, 'f');
	for (unsigned int i = 0; i < 10; i++)
		ask(&nobody, 'w');
	stood_back = ask(&nobody, 'f');
	stop(&nobody);
	printf("# stood back %.0f times for %d watches\n", stood_back,
	       10 * MANY);
	assert_true(stood_back >= STOOD_BACK);
}

/* A million armed watches, and then the same ones that were told. */
CASE(two_threads_do_not_stop_others)
{
	struct actor nobody;
	double without = 1e18, with = 1e18, gap;

	start(&nobody, NOBODY, obey);
	for (unsigned int i = 0; i < 3; i++) {
		gap = ask(&nobody, 'l');
		without = gap < without ? gap : without;
	}
	ask(&nobody, 'W');
	for (unsigned int i = 0; i < 3; i++) {
		ask(&nobody, 'a');
		gap = ask(&nobody, 'L');
		with = gap < with ? gap : with;
	}
	stop(&nobody);
	AT_MOST(with, 3, without);
}

/* Root truncates a file of its own, which nobody has mapped a thousand times. */
static double truncate_shared(const struct actor *nobody)
{
	double begin;

	assert_int_equal(ftruncate(shared, PAGE), 0);
	ask(nobody, 'm');
	begin = now();
	assert_int_equal(ftruncate(shared, 0), 0);
	return now() - begin;
}

CASE(truncating_is_not_made_slow)
{
	char path[] = "/tmp/hostile-XXXXXX";
	double without, first, told;
	struct actor nobody;
	int writable;

	writable = mkstemp(path);
	assert_true(writable >= 0);
	assert_int_equal(fchmod(writable, 0644), 0);
	shared = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(shared >= 0);
	start(&nobody, NOBODY, obey);
	dup2(writable, shared);
	ask(&nobody, '0');
	truncate_shared(&nobody);
	without = truncate_shared(&nobody);
	ask(&nobody, '1');
	first = truncate_shared(&nobody);
	told = truncate_shared(&nobody);
	stop(&nobody);
	close(writable);
	close(shared);
	unlink(path);
	AT_MOST(first, 2, without);
	AT_MOST(told, 2, without);
}

CASE(open_files_cost_nothing)
{
	double without, with, end_without, end_with;
	struct actor nobody;

	start(&nobody, NOBODY, obey);
	ask(&nobody, '0');
	without = ask(&nobody, 't');
	end_without = stop(&nobody);
	start(&nobody, NOBODY, obey);
	printf("# %.0f files\n", ask(&nobody, 'o'));
	with = ask(&nobody, 't');
	end_with = stop(&nobody);
	AT_MOST(with, 2, without);
	AT_MOST(end_with, 10, end_without);
}

/* ---- limits ------------------------------------------------------------------------------ */

static int set_small(void **state)
{
	(void)state;
	return module_reload("max_watches_user=2000 max_watches_total=20000");
}

static int set_defaults(void **state)
{
	(void)state;
	return module_reload("");
}

/* Makes watches until that is refused: how many; or just one. */
static double take(char order)
{
	double n = 0;

	if (order == '1')
		return !umn_start(&u, 0) &&
		       !umn_register(u.fd, (void *)PAGE, PAGE, 1);
	if (umn_start(&u, 0))
		return 0;
	while (!umn_register(u.fd, (void *)PAGE, PAGE, (uint64_t)n))
		n++;
	return n;
}

CASE_IN(watches_of_others_cannot_be_taken, set_small, set_defaults)
{
	struct actor nobodies[3], somebody, root;

	for (unsigned int i = 0; i < 3; i++) {
		start(&nobodies[i], NOBODY, take);
		printf("# process %u of nobody made %.0f\n", i,
		       ask(&nobodies[i], 'a'));
	}
	start(&somebody, SOMEBODY, take);
	start(&root, 0, take);
	assert_true(ask(&somebody, '1') == 1);
	assert_true(ask(&root, '1') == 1);
	stop(&root);
	stop(&somebody);
	for (unsigned int i = 0; i < 3; i++)
		stop(&nobodies[i]);
}

int main(int argc, char **argv)
{
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return run_cases(start_bystander, stop_bystander);
}
