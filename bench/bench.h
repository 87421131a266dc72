/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What all benchmarks share: options, clocks, threads on CPUs of their own, and
 * the series of samples they write as JSON. bench/report.py makes tables and
 * goals of them; a benchmark judges nothing.
 */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

extern struct bench_options {
	const char *json;
	const char *only; /* the part of it that is wanted, or NULL */
	bool quick;
} bench_options;

/* Parses --json FILE, --only PART and --quick; what is wrong ends the program. */
void bench_begin(int argc, char **argv, const char *doc);

/* Whether a part is to be measured: all are, unless --only names one. */
bool bench_wants(const char *part);

/* Writes the JSON: 0, or 1 and said. For main() to return. */
int bench_end(void);

/* One line on standard error. */
void bench_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same, and the program ends. */
void bench_die(const char *format, ...)
	__attribute__((noreturn, format(printf, 1, 2)));

/* A series under a name like "hit/256/mrcache"; samples are sorted. */
void bench_add(const char *unit, double *samples, size_t n, const char *name,
	       ...) __attribute__((format(printf, 4, 5)));
void bench_value(const char *unit, double value, const char *name, ...)
	__attribute__((format(printf, 3, 4)));

/* What could not be measured here, and why. */
void bench_skip(const char *name, const char *why);

/* Nanoseconds. */
double bench_now(void);

double bench_median(double *samples, size_t n);

/* CPUs this process may use, and the calling thread put on the nth of them. */
unsigned int bench_cpus(void);
void bench_pin(unsigned int n);

/*
 * A child that answers with a figure whenever it is asked; it ends with its
 * parent, and its parent with it. Its loop has answer(question) called.
 */
struct bench_process {
	pid_t pid;
	int ask, answer;
};
typedef double bench_answer_fn(long question);
/* Returns when prepare(arg) has, in the child. */
void bench_start(struct bench_process *p, void (*prepare)(const void *arg),
		 const void *arg, bench_answer_fn *answer);
double bench_ask(const struct bench_process *p, long question);
void bench_stop(struct bench_process *p);

/* Reproducible: the same seed gives the same order. */
uint64_t bench_random(uint64_t *seed);

#endif /* BENCH_BENCH_H */
