/* SPDX-License-Identifier: BSD-2-Clause */
/* Runs a program of this directory plain or under the shim, and keeps what it says. */
#ifndef TESTS_PRELOAD_SPAWN_H
#define TESTS_PRELOAD_SPAWN_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdbool.h>
#include <sys/types.h>

enum shim {
	PLAIN,	 /* no shim */
	SHIM,	 /* the one that is shipped; there is no device here */
	CACHING, /* with the fake device */
};

/* What comes with SHIM and CACHING in LD_PRELOAD. */
enum tool {
	NO_TOOL,
	TOOL_FIRST,
	TOOL_LAST,
};

struct how {
	enum shim shim;
	enum tool tool;
	bool passes;	  /* CACHING, but the program must see no cache */
	bool loader;	  /* the program that is not linked with libibverbs */
	bool early;	  /* the one linked with early.c */
	bool old_library; /* a libibverbs of long ago */
	bool nobody;	  /* as this user */
	const char *path; /* or this program */
	const char *environment[8]; /* NAME=VALUE */
};

struct outcome {
	int status; /* as of waitpid() */
	pid_t pid;
	bool left_counters; /* in /dev/shm; they are removed */
	char out[1 << 16];
	char err[1 << 16];
};

/* Of the last run. */
extern struct outcome outcome;

/* Runs a mode to its end (half a minute at most). */
void run(const struct how *how, const char *mode);
/* The same, and it must end with 0 and say nothing on stderr. */
void run_well(const struct how *how, const char *mode);

/* In two steps; `in` and `out` are pipes to it. */
pid_t start(const struct how *how, const char *mode, int *in, int *out);
int finish(pid_t pid);

/* A mode of the linked program in all three ways. */
void run_all_ways(const char *mode);

/* Whether we may become somebody else; tests that need it skip() if not. */
bool is_root(void);

/* Where the counters of a process are that this user runs. */
const char *counters_path(pid_t pid);

unsigned int lines(const char *text);
/* The number after "NAME": in a line of statistics; -1 if there is none. */
long long number(const char *line, const char *name);

/* A file that is removed at the end, with a name of its own. */
const char *scratch(const char *name);
/* What is in it; "" if it is not there. */
const char *content(const char *path);

#endif /* TESTS_PRELOAD_SPAWN_H */
