/* SPDX-License-Identifier: BSD-2-Clause */
#include "spawn.h"
#include "support/patience.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOBODY 65534

struct outcome outcome;

static const char *program_of(const struct how *how)
{
	return how->path     ? how->path
	       : how->loader ? LOADER
	       : how->early  ? SUBJECT_EARLY
			     : SUBJECT;
}

static void set_preload(const struct how *how)
{
	const char *shim = how->shim == SHIM	  ? SHIM_FILE
			   : how->shim == CACHING ? CACHING_SHIM_FILE
						  : "";
	char list[2048];

	snprintf(list, sizeof(list), "%s:%s:%s",
		 how->tool == TOOL_FIRST ? TOOL_FILE : "", shim,
		 how->tool == TOOL_LAST ? TOOL_FILE : "");
	setenv("LD_PRELOAD", list, 1);
}

/* In the child. */
static void become(const struct how *how, const char *mode)
{
	static const char *const ours[] = {
		"MRCACHE_ENABLE", "MRCACHE_LOG",     "MRCACHE_MONITOR",
		"MRCACHE_DEVICE", "MRCACHE_REMOTE",  "MRCACHE_LINGER",
		"MRCACHE_STATS",  "MRCACHE_CONTAIN", "RDMAV_FORK_SAFE",
		"IBV_FORK_SAFE",  "MRCACHE_GUARD",   "MRCACHE_GUARD_UCX_HOOKS",
		"UCX_MEM_EVENTS",
	};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (size_t i = 0; i < sizeof(ours) / sizeof(*ours); i++)
		unsetenv(ours[i]);
	setenv("LD_LIBRARY_PATH",
	       how->old_library ? OLD_FAKE_DIRECTORY : FAKE_DIRECTORY, 1);
	setenv("SUBJECT_PLUGIN", PLUGIN_FILE, 1);
	setenv("SUBJECT_EARLY", EARLY_FILE, 1);
	if (how->shim == PLAIN)
		setenv("SUBJECT_PLAIN", "1", 1);
	else
		setenv("MRCACHE_LOG", "quiet", 1);
	if (how->shim == CACHING) {
		setenv("MRCACHE_DEVICE", "/dev/null", 1);
		if (!how->passes)
			setenv("SUBJECT_CACHES", "1", 1);
	} else if (how->shim == SHIM) {
		setenv("MRCACHE_DEVICE", "/nonexistent", 1);
	}
	if (how->tool == TOOL_FIRST)
		setenv("SUBJECT_TOOL_FIRST", "1", 1);
	for (int i = 0; i < 8 && how->environment[i]; i++)
		putenv((char *)how->environment[i]);
	set_preload(how);
	alarm(patience(30));
	if (how->nobody &&
	    (setgroups(0, NULL) || setgid(NOBODY) || setuid(NOBODY)))
		_exit(126);
	execl(program_of(how), program_of(how), mode, NULL);
	dprintf(2, "%s: %s\n", program_of(how), strerror(errno));
	_exit(127);
}

static pid_t spawn(const struct how *how, const char *mode, int in, int out,
		   int err)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	if (in >= 0)
		dup2(in, 0);
	dup2(out, 1);
	if (err >= 0)
		dup2(err, 2);
	become(how, mode);
	return -1;
}

int finish(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return status;
}

pid_t start(const struct how *how, const char *mode, int *in, int *out)
{
	int to[2], from[2];
	pid_t pid;

	assert_int_equal(pipe2(to, O_CLOEXEC), 0);
	assert_int_equal(pipe2(from, O_CLOEXEC), 0);
	pid = spawn(how, mode, to[0], from[1], -1);
	assert_true(pid > 0);
	close(to[0]);
	close(from[1]);
	*in = to[1];
	*out = from[0];
	return pid;
}

/* Reads both until both end. */
static void collect(int out, int err)
{
	struct pollfd fds[] = {{out, POLLIN, 0}, {err, POLLIN, 0}};
	char *texts[] = {outcome.out, outcome.err};
	size_t used[] = {0, 0};
	int open = 2;

	while (open && poll(fds, 2, -1) > 0)
		for (int i = 0; i < 2; i++) {
			size_t left = sizeof(outcome.out) - 1 - used[i];
			ssize_t n;

			if (fds[i].fd < 0 || !fds[i].revents)
				continue;
			n = read(fds[i].fd, texts[i] + used[i], left);
			if (n <= 0) {
				fds[i].fd = -1;
				open--;
				continue;
			}
			used[i] += (size_t)n;
		}
	for (int i = 0; i < 2; i++)
		texts[i][used[i]] = '\0';
}

static const char *counters_of(unsigned int user, pid_t pid)
{
	static char path[64];

	snprintf(path, sizeof(path), "/dev/shm/mrcache.%u.%d", user, (int)pid);
	return path;
}

const char *counters_path(pid_t pid)
{
	return counters_of(geteuid(), pid);
}

void run(const struct how *how, const char *mode)
{
	int out[2], err[2];

	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	assert_int_equal(pipe2(err, O_CLOEXEC), 0);
	outcome.pid = spawn(how, mode, -1, out[1], err[1]);
	assert_true(outcome.pid > 0);
	close(out[1]);
	close(err[1]);
	collect(out[0], err[0]);
	close(out[0]);
	close(err[0]);
	outcome.status = finish(outcome.pid);
	outcome.left_counters = !unlink(counters_path(outcome.pid)) ||
				!unlink(counters_of(NOBODY, outcome.pid));
}

void run_well(const struct how *how, const char *mode)
{
	static const char *const names[] = {"plain", "shim", "caching"};

	run(how, mode);
	if (outcome.status || outcome.err[0])
		print_error("%s, %s: status 0x%x\n%s", mode, names[how->shim],
			    (unsigned int)outcome.status, outcome.err);
	assert_int_equal(outcome.status, 0);
	assert_string_equal(outcome.err, "");
}

void run_all_ways(const char *mode)
{
	run_well(&(struct how){.shim = PLAIN}, mode);
	run_well(&(struct how){.shim = SHIM}, mode);
	run_well(&(struct how){.shim = CACHING}, mode);
}

bool is_root(void)
{
	return geteuid() == 0;
}

unsigned int lines(const char *text)
{
	unsigned int n = 0;

	for (; *text; text++)
		n += *text == '\n';
	return n;
}

long long number(const char *line, const char *name)
{
	char key[64];
	const char *at;

	snprintf(key, sizeof(key), "\"%s\":", name);
	at = strstr(line, key);
	return at ? atoll(at + strlen(key)) : -1;
}

static char scratches[8][64];
static unsigned int scratch_count;

static void remove_scratches(void)
{
	for (unsigned int i = 0; i < scratch_count; i++)
		unlink(scratches[i]);
}

const char *scratch(const char *name)
{
	char *path = scratches[scratch_count];

	assert_true(scratch_count < 8);
	if (!scratch_count++)
		atexit(remove_scratches);
	snprintf(path, sizeof(*scratches), "/tmp/mrcache-test.%d.%s",
		 (int)getpid(), name);
	unlink(path);
	return path;
}

const char *content(const char *path)
{
	static char text[1 << 16];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	text[n < 0 ? 0 : n] = '\0';
	return text;
}
