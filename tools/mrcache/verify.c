/* SPDX-License-Identifier: BSD-2-Clause */
#include "verify.h"

#include "command.h"
#include "counted.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SHOWN 8 /* of the processes that were not protected */

/* --- what the processes wrote --------------------------------------------------- */

struct found {
	unsigned int processes, unprotected, unknown, shown;
	uint64_t registrations, guarded;
	unsigned int running;
	bool here;   /* only processes of this host could say anything */
	bool so_far; /* those that run are asked by their counters */
};

static void complain_of(struct found *found, const json_t *line,
			const char *why)
{
	const char *host = json_string_value(json_object_get(line, "host")),
		   *command =
			   json_string_value(json_object_get(line, "command"));

	if (found->shown++ < SHOWN)
		complain("%s: %s (%" JSON_INTEGER_FORMAT "): %s",
			 host ? host : "?", command ? command : "?",
			 json_integer_value(json_object_get(line, "pid")), why);
}

static void look_at_end(struct found *found, const json_t *line)
{
	const json_t *names = json_object_get(line, "unguarded"), *name;
	char why[256] = "not protected:";
	size_t i;

	found->registrations += (uint64_t)json_integer_value(
		json_object_get(line, "registrations"));
	found->guarded +=
		(uint64_t)json_integer_value(json_object_get(line, "guarded"));
	if (json_is_true(json_object_get(line, "protected")))
		return;
	found->unprotected++;
	json_array_foreach(names, i, name)
	{
		size_t length = strlen(why);

		snprintf(why + length, sizeof(why) - length, "%s %s",
			 i ? "," : "", json_string_value(name));
	}
	complain_of(found, line, why);
}

/* Of a process of this host that has not ended; false if there is none. */
static bool look_at_running(struct found *found, const json_t *begun)
{
	const char *host = json_string_value(json_object_get(begun, "host")),
		   *why;
	char name[64], here[HOST_NAME_MAX + 1] = "";
	enum counted_result result;
	struct counted counted;
	int directory;

	gethostname(here, sizeof(here) - 1);
	if (!host || strcmp(host, here))
		return false;
	directory = counted_open();
	if (directory < 0)
		return false;
	snprintf(name, sizeof(name), "mrcache.%u.%" JSON_INTEGER_FORMAT,
		 (unsigned int)geteuid(),
		 json_integer_value(json_object_get(begun, "pid")));
	result = counted_read(directory, name, &counted, &why);
	close(directory);
	if (result != COUNTED)
		return false;
	found->running++;
	found->registrations += counted.stats.registrations;
	found->guarded += counted.stats.guarded;
	if (counted.unguarded) {
		found->unprotected++;
		complain_of(found, begun,
			    "not protected: mrcache stat says what is on");
	}
	return true;
}

static bool has_more(FILE *file)
{
	int c;

	do
		c = getc(file);
	while (c == '\n');
	return c != EOF && ungetc(c, file) != EOF;
}

/*
 * Lines come in pairs; one that began and did not end is not known, nor one whose
 * lines were not written, or not to their end.
 */
static void read_process(struct found *found, FILE *file, const char *name)
{
	bool is_whole = has_more(file);
	json_t *begun = NULL, *line;
	json_error_t error;

	while (is_whole && has_more(file)) {
		line = json_loadf(file, JSON_DISABLE_EOF_CHECK, &error);
		is_whole = line;
		if (!is_whole)
			break;
		if (!json_object_get(line, "began")) {
			look_at_end(found, line);
			json_decref(begun);
			begun = NULL;
			json_decref(line);
			continue;
		}
		found->processes++;
		if (begun) {
			found->unknown++;
			complain_of(found, begun, "executed another program");
			json_decref(begun);
		}
		begun = line;
	}
	if (!is_whole) {
		found->processes += !begun;
		found->unknown++;
		if (found->shown++ < SHOWN)
			complain("%s: what it says is not whole", name);
	} else if (begun && json_object_get(begun, "forked")) {
		found->unknown++;
		complain_of(found, begun,
			    "a fork child, in which nothing is looked at");
	} else if (begun && !(found->so_far && look_at_running(found, begun))) {
		found->unknown++;
		complain_of(found, begun,
			    "never came to its end: killed, by _exit(), or it "
			    "still runs");
	}
	json_decref(begun);
}

/* A file at a time, so that the order does not matter. */
static bool read_all(struct found *found, const char *directory, bool clear)
{
	DIR *all = opendir(directory);
	const struct dirent *entry;
	struct stat st;
	FILE *file;
	int fd;

	if (!all)
		return false;
	while ((entry = readdir(all))) {
		if (*entry->d_name == '.')
			continue;
		fd = openat(dirfd(all), entry->d_name,
			    O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
		if (fd < 0)
			continue;
		if (!fstat(fd, &st) && S_ISREG(st.st_mode) &&
		    st.st_uid == geteuid() && (file = fdopen(fd, "r"))) {
			read_process(found, file, entry->d_name);
			fclose(file);
		} else {
			close(fd);
		}
		if (clear)
			unlinkat(dirfd(all), entry->d_name, 0);
	}
	closedir(all);
	if (clear)
		rmdir(directory);
	return true;
}

static bool judge(const struct found *found)
{
	const char *when = found->so_far ? " so far" : "";
	char running[32] = "";

	if (!found->processes) {
		complain("not verified%s: no process registered memory where "
			 "the cache could see it",
			 when);
		return false;
	}
	if (found->unprotected || found->unknown) {
		complain("not verified%s: of %u processes %u were not "
			 "protected, and of %u it is not known",
			 when, found->processes, found->unprotected,
			 found->unknown);
		return false;
	}
	if (found->so_far)
		snprintf(running, sizeof(running), " (%u running)",
			 found->running);
	complain("verified%s: %u process%s%s%s registered memory %" PRIu64
		 " times, %" PRIu64 " of these for guarded caches; no cache "
		 "without a guard was found",
		 when, found->processes, found->processes > 1 ? "es" : "",
		 running, found->here ? " on this host" : "",
		 found->registrations, found->guarded);
	return true;
}

static void say_so_far(const char *directory, bool here)
{
	struct found found = {.here = here, .so_far = true};

	if (read_all(&found, directory, false))
		judge(&found);
}

/* --- the program ------------------------------------------------------------------- */

static volatile pid_t child;

static void pass_on(int number)
{
	int saved = errno;

	kill(child, number);
	errno = saved;
}

/* Those of a terminal reach the program by themselves. */
static const int passed_on[] = {SIGTERM, SIGHUP,  SIGUSR1, SIGUSR2,
				SIGCONT, SIGXCPU, SIGALRM};
static const int ignored[] = {SIGINT, SIGQUIT};

static void handle(void (*passing)(int), void (*ignoring)(int))
{
	struct sigaction action = {.sa_handler = passing,
				   .sa_flags = SA_RESTART};

	for (size_t i = 0; i < sizeof(passed_on) / sizeof(*passed_on); i++)
		sigaction(passed_on[i], &action, NULL);
	action.sa_handler = ignoring;
	for (size_t i = 0; i < sizeof(ignored) / sizeof(*ignored); i++)
		sigaction(ignored[i], &action, NULL);
}

/*
 * The status that waitpid() gave, or -1 if there is no program. At SIGRTMIN says
 * what is known so far: the signals that batch systems send are the program's.
 */
static int run(char **argv, const char *evidence, bool here)
{
	struct sigaction child_ends;
	sigset_t all, before, ours;
	int status, ended;

	/* One that comes before there is a child is the child's. */
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &before);
	/* Ignored, as we may have been started, it would take the status away. */
	sigaction(SIGCHLD, NULL, &child_ends);
	signal(SIGCHLD, SIG_DFL);
	child = fork();
	if (child < 0)
		return -1;
	if (!child) {
		sigaction(SIGCHLD, &child_ends, NULL);
		sigprocmask(SIG_SETMASK, &before, NULL);
		execvp(argv[0], argv);
		complain("%s: %s", argv[0], strerror(errno));
		_exit(errno == ENOENT ? STATUS_NOT_FOUND : STATUS_CANNOT_RUN);
	}
	handle(pass_on, SIG_IGN);
	sigemptyset(&ours);
	sigaddset(&ours, SIGCHLD);
	sigaddset(&ours, SIGRTMIN);
	sigorset(&all, &before, &ours);
	sigprocmask(SIG_SETMASK, &all, NULL);
	while (!(ended = waitpid(child, &status, WNOHANG)))
		if (sigwaitinfo(&ours, NULL) == SIGRTMIN)
			say_so_far(evidence, here);
	return ended < 0 ? -1 : status;
}

static void die_of(int number)
{
	const struct rlimit none = {0, 0};

	setrlimit(RLIMIT_CORE, &none);
	handle(SIG_DFL, SIG_DFL);
	signal(number, SIG_DFL);
	raise(number);
}

int verify_run(char **argv, const char *directory)
{
	struct found found = {.here = !directory};
	char own[PATH_MAX];
	bool verified;
	int status;

	if (directory && mkdir(directory, 0700) && errno != EEXIST) {
		complain("--verify=%s: %s", directory, strerror(errno));
		return STATUS_RUN_FAILED;
	}
	/* A new one: what is there is of earlier runs, or of others. */
	if (snprintf(own, sizeof(own), "%s/mrcache-verify.XXXXXX",
		     directory ? directory : "/tmp") >= (int)sizeof(own)) {
		complain("%s: %s", own, strerror(ENAMETOOLONG));
		return STATUS_RUN_FAILED;
	}
	if (!mkdtemp(own)) {
		complain("%s: %s", own, strerror(errno));
		return STATUS_RUN_FAILED;
	}
	setenv("MRCACHE_VERIFY", own, 1);
	status = run(argv, own, found.here);
	verified = read_all(&found, own, !directory) && judge(&found);
	if (status < 0) {
		complain("cannot run it: %s", strerror(errno));
		return STATUS_RUN_FAILED;
	}
	if (WIFSIGNALED(status)) {
		die_of(WTERMSIG(status));
		return 128 + WTERMSIG(status);
	}
	if (WEXITSTATUS(status))
		return WEXITSTATUS(status);
	return verified ? 0 : STATUS_NOT_VERIFIED;
}
