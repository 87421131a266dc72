/* SPDX-License-Identifier: BSD-2-Clause */
#include "bench.h"

#include <argp.h>
#include <errno.h>
#include <jansson.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct bench_options bench_options;

static json_t *series, *skipped;
static double began;

/* ---- options ---------------------------------------------------------------- */

enum { KEY_JSON = 256, KEY_ONLY, KEY_QUICK };

static const struct argp_option arguments[] = {
	{"json", KEY_JSON, "FILE", 0, "write the samples to FILE", 0},
	{"only", KEY_ONLY, "PART", 0, "measure only PART", 0},
	{"quick", KEY_QUICK, NULL, 0, "less of everything, to see that it runs",
	 0},
	{0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	switch (key) {
	case KEY_JSON:
		bench_options.json = arg;
		return 0;
	case KEY_ONLY:
		bench_options.only = arg;
		return 0;
	case KEY_QUICK:
		bench_options.quick = true;
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "unexpected '%s'", arg);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

void bench_begin(int argc, char **argv, const char *doc)
{
	const struct argp argp = {
		.options = arguments, .parser = parse, .doc = doc};

	argp_err_exit_status = 2;
	argp_parse(&argp, argc, argv, 0, NULL, NULL);
	series = json_object();
	skipped = json_object();
	began = bench_now();
}

bool bench_wants(const char *part)
{
	return !bench_options.only || !strcmp(bench_options.only, part);
}

/* ---- what is said ------------------------------------------------------------- */

static void say(const char *format, va_list args)
{
	fprintf(stderr, "[%6.1f s] ", (bench_now() - began) / 1e9);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
}

void bench_say(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(format, args);
	va_end(args);
}

void bench_die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(format, args);
	va_end(args);
	exit(1);
}

/* ---- series --------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double bench_median(double *samples, size_t n)
{
	qsort(samples, n, sizeof(*samples), compare);
	return (samples[(n - 1) / 2] + samples[n / 2]) / 2;
}

static void add(const char *unit, double *samples, size_t n, const char *format,
		va_list args)
{
	json_t *one = json_object(), *all = json_array();
	char name[128];

	vsnprintf(name, sizeof(name), format, args);
	json_object_set_new(one, "unit", json_string(unit));
	json_object_set_new(one, "median", json_real(bench_median(samples, n)));
	for (size_t i = 0; i < n; i++)
		json_array_append_new(all, json_real(samples[i]));
	json_object_set_new(one, "samples", all);
	json_object_set_new(series, name, one);
	bench_say("%-44s %10.4g %s  (%.4g to %.4g)", name,
		  bench_median(samples, n), unit, samples[0], samples[n - 1]);
}

void bench_add(const char *unit, double *samples, size_t n, const char *name,
	       ...)
{
	va_list args;

	va_start(args, name);
	add(unit, samples, n, name, args);
	va_end(args);
}

void bench_value(const char *unit, double value, const char *name, ...)
{
	va_list args;

	va_start(args, name);
	add(unit, &value, 1, name, args);
	va_end(args);
}

void bench_skip(const char *name, const char *why)
{
	json_object_set_new(skipped, name, json_string(why));
	bench_say("%s: skipped: %s", name, why);
}

/* All of the file or none of it. */
static int save(json_t *value, const char *path)
{
	char *partial;
	int ret = 0;

	if (asprintf(&partial, "%s.part", path) < 0)
		return -ENOMEM;
	if (json_dump_file(value, partial, JSON_INDENT(1)) ||
	    rename(partial, path))
		ret = errno ? -errno : -EIO;
	free(partial);
	return ret;
}

int bench_end(void)
{
	json_t *all = json_object();
	struct utsname host;
	int ret = 0;

	uname(&host);
	json_object_set_new(all, "kernel", json_string(host.release));
	json_object_set_new(all, "cpus", json_integer(bench_cpus()));
	json_object_set_new(all, "quick", json_boolean(bench_options.quick));
	json_object_set_new(all, "series", series);
	json_object_set_new(all, "skipped", skipped);
	if (bench_options.json)
		ret = save(all, bench_options.json);
	if (ret)
		bench_say("%s: %s", bench_options.json, strerror(-ret));
	json_decref(all);
	return ret ? 1 : 0;
}

/* ---- time and place ---------------------------------------------------------------- */

double bench_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* Those it may use at the start, before any thread is pinned. */
static const cpu_set_t *usable(void)
{
	static cpu_set_t set;
	static bool known;

	if (!known && sched_getaffinity(0, sizeof(set), &set))
		CPU_SET(0, &set);
	known = true;
	return &set;
}

static __attribute__((constructor)) void look(void)
{
	usable();
}

unsigned int bench_cpus(void)
{
	return (unsigned int)CPU_COUNT(usable());
}

void bench_pin(unsigned int n)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, usable()) && !n--) {
			CPU_SET(cpu, &set);
			sched_setaffinity(0, sizeof(set), &set);
			return;
		}
}

/* ---- children ------------------------------------------------------------------------ */

static _Noreturn void serve(int ask, int answer, bench_answer_fn *figure)
{
	double ns = 0;
	long question;

	/* The first says that it is ready. */
	while (write(answer, &ns, sizeof(ns)) == sizeof(ns) &&
	       read(ask, &question, sizeof(question)) == sizeof(question))
		ns = figure(question);
	_exit(1);
}

static double hear(const struct bench_process *p)
{
	double ns;

	if (read(p->answer, &ns, sizeof(ns)) != sizeof(ns))
		bench_die("a process that measures is gone");
	return ns;
}

void bench_start(struct bench_process *p, void (*prepare)(const void *arg),
		 const void *arg, bench_answer_fn *answer)
{
	int question[2], figure[2];

	if (pipe(question) || pipe(figure))
		bench_die("no pipe");
	p->pid = fork();
	if (p->pid < 0)
		bench_die("no process");
	if (!p->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(question[1]);
		close(figure[0]);
		prepare(arg);
		serve(question[0], figure[1], answer);
	}
	close(question[0]);
	close(figure[1]);
	p->ask = question[1];
	p->answer = figure[0];
	hear(p);
}

double bench_ask(const struct bench_process *p, long question)
{
	if (write(p->ask, &question, sizeof(question)) != sizeof(question))
		bench_die("a process that measures is gone");
	return hear(p);
}

void bench_stop(struct bench_process *p)
{
	kill(p->pid, SIGKILL);
	waitpid(p->pid, NULL, 0);
	close(p->ask);
	close(p->answer);
}

/* xorshift64* (Vigna, public domain). */
uint64_t bench_random(uint64_t *seed)
{
	*seed ^= *seed >> 12;
	*seed ^= *seed << 25;
	*seed ^= *seed >> 27;
	return *seed * UINT64_C(0x2545f4914f6cdd1d);
}
