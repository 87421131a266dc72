/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Runs the command `mrcache` of the build that the test belongs to, for the
 * tests of it, which are in both directories.
 */
#ifndef TESTS_SUPPORT_EXECUTE_H
#define TESTS_SUPPORT_EXECUTE_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOBODY 65534

struct executed {
	int status; /* exit status, or 128 + signal */
	char out[32768], err[16384];

	pid_t pid; /* between begin and end */
	int out_fd, err_fd;
};

/* Who runs it and how. */
struct as {
	uid_t uid;	/* 0: this user */
	rlim_t memlock; /* 0: as it is */
};

/* build/PRESET/tests/DIRECTORY/PROGRAM and its build/PRESET. */
static inline const char *build_path(const char *below)
{
	static char path[2 * PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", path, PATH_MAX - 1);

	path[length > 0 ? length : 0] = '\0';
	for (int i = 0; i < 3; i++)
		if (strrchr(path, '/'))
			*strrchr(path, '/') = '\0';
	strcat(path, below);
	return path;
}

static inline const char *command_path(void)
{
	static char path[2 * PATH_MAX];

	if (!*path)
		strcpy(path, build_path("/tools/mrcache/mrcache"));
	return path;
}

static inline int become(const struct as *as)
{
	const struct rlimit limit = {as->memlock, as->memlock};

	if (as->memlock && setrlimit(RLIMIT_MEMLOCK, &limit))
		return -errno;
	if (as->uid && (setresgid(as->uid, as->uid, as->uid) ||
			setresuid(as->uid, as->uid, as->uid)))
		return -errno;
	return 0;
}

/* argv[0] is a path, or NULL for the command. */
static inline bool execute_begin(struct executed *e, const struct as *as,
				 const char *const *argv)
{
	const char *copy[32] = {command_path()};
	const char *path = argv[0] ? argv[0] : copy[0];
	int n = 1;

	for (; n < 31 && argv[n]; n++)
		copy[n] = argv[n];
	if (argv[0])
		copy[0] = argv[0];
	e->out_fd = memfd_create("out", MFD_CLOEXEC);
	e->err_fd = memfd_create("err", MFD_CLOEXEC);
	e->pid = fork();
	if (!e->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(e->out_fd, 1);
		dup2(e->err_fd, 2);
		if (become(as))
			_exit(99);
		execv(path, (char *const *)copy);
		_exit(98);
	}
	return e->pid > 0;
}

static inline void execute_collect(struct executed *e)
{
	ssize_t n = pread(e->out_fd, e->out, sizeof(e->out) - 1, 0);

	e->out[n > 0 ? n : 0] = '\0';
	n = pread(e->err_fd, e->err, sizeof(e->err) - 1, 0);
	e->err[n > 0 ? n : 0] = '\0';
}

static inline void execute_end(struct executed *e)
{
	int status = 0;

	while (waitpid(e->pid, &status, 0) < 0 && errno == EINTR)
		;
	e->status = WIFEXITED(status) ? WEXITSTATUS(status)
				      : 128 + WTERMSIG(status);
	execute_collect(e);
	close(e->out_fd);
	close(e->err_fd);
}

static inline void execute_as(struct executed *e, const struct as *as,
			      const char *const *argv)
{
	e->status = -1;
	if (execute_begin(e, as, argv))
		execute_end(e);
}

/* mrcache ARGUMENT... as this user */
#define MRCACHE(e, ...)                      \
	execute_as(e, &(const struct as){0}, \
		   (const char *const[]){NULL, __VA_ARGS__, NULL})
#define MRCACHE_AS(e, as, ...) \
	execute_as(e, as, (const char *const[]){NULL, __VA_ARGS__, NULL})

/* The tools may not have been built. */
#define NEEDS_COMMAND()                           \
	do {                                      \
		(void)state;                      \
		if (access(command_path(), X_OK)) \
			skip();                   \
	} while (0)

/* Shows what was printed, for an assertion that is about to fail. */
static inline bool shows(const struct executed *e, const char *stream,
			 const char *text)
{
	if (strstr(stream, text))
		return true;
	print_error("not there: %s\nstatus %d\n--- output\n%s--- errors\n%s",
		    text, e->status, e->out, e->err);
	return false;
}

#define assert_out(e, text) assert_true(shows(e, (e)->out, text))
#define assert_err(e, text) assert_true(shows(e, (e)->err, text))
#define assert_status(e, want)                       \
	do {                                         \
		if ((e)->status != (want))           \
			shows(e, "", "the status");  \
		assert_int_equal((e)->status, want); \
	} while (0)

#endif /* TESTS_SUPPORT_EXECUTE_H */
