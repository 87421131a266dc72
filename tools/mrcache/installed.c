/* SPDX-License-Identifier: BSD-2-Clause */
#include "installed.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Loading a library takes milliseconds, from a busy network some seconds. */
#define ASK_SECONDS 10

/* --- where a library is ------------------------------------------------------ */

/* The linker's cache has the paths as plain strings. */
static bool linker_knows(const char *library, char *path, size_t size)
{
	FILE *file = fopen("/etc/ld.so.cache", "re");
	char name[64], *content = NULL, *found = NULL;
	struct stat st;
	size_t length;

	if (!file)
		return false;
	if (!fstat(fileno(file), &st) && st.st_size > 0)
		content = malloc((size_t)st.st_size + 1);
	if (content) {
		length = fread(content, 1, (size_t)st.st_size, file);
		content[length] = '\0';
		snprintf(name, sizeof(name), "/%s", library);
		found = memmem(content, length, name, strlen(name));
		if (found) {
			/* Back to where the path begins. */
			for (; found > content && found[-1];)
				found--;
			snprintf(path, size, "%s", found);
		}
	}
	free(content);
	fclose(file);
	return found;
}

static bool in_directory(const char *directory, size_t length,
			 const char *library, char *path, size_t size)
{
	char pattern[PATH_MAX];
	glob_t found;
	bool some;

	snprintf(pattern, sizeof(pattern), "%.*s/%s*", (int)length, directory,
		 library);
	some = !glob(pattern, 0, NULL, &found);
	if (some)
		snprintf(path, size, "%s", found.gl_pathv[0]);
	globfree(&found);
	return some;
}

static bool find(const char *library, char *path, size_t size)
{
	const char *list = getenv("LD_LIBRARY_PATH"), *end;

	if (!library)
		return false;
	for (; list && *list; list = *end ? end + 1 : end) {
		end = strchrnul(list, ':');
		if (end != list && in_directory(list, (size_t)(end - list),
						library, path, size))
			return true;
	}
	return linker_knows(library, path, size);
}

bool installed(const struct stack *stack)
{
	char path[PATH_MAX];

	return find(stack->library, path, sizeof(path));
}

/* --- what it says of itself ---------------------------------------------------- */

static void ask_ucx(void *library, struct version *version)
{
	void (*ask)(unsigned int *, unsigned int *, unsigned int *) =
		(void (*)(unsigned int *, unsigned int *, unsigned int *))dlsym(
			library, "ucp_get_version");
	unsigned int patch = 0;

	if (!ask)
		return;
	ask(&version->major, &version->minor, &patch);
	snprintf(version->text, sizeof(version->text), "%u.%u.%u",
		 version->major, version->minor, patch);
}

static void ask_fabric(void *library, struct version *version)
{
	uint32_t (*ask)(void) = (uint32_t(*)(void))dlsym(library, "fi_version");
	uint32_t number = ask ? ask() : 0;

	if (!ask)
		return;
	version->major = number >> 16;
	version->minor = number & 0xffff;
	snprintf(version->text, sizeof(version->text), "%u.%u", version->major,
		 version->minor);
}

static void (*const asks[GUARDED_STACKS])(void *library,
					  struct version *version) = {
	[STACK_UCX] = ask_ucx,
	[STACK_FABRIC] = ask_fabric,
};

/* In the child: nothing that is loaded may speak, or last. */
static void ask(enum stack_id stack, const char *path, int fd)
{
	struct version version = {0};
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	void *library;

	signal(SIGALRM, SIG_DFL);
	alarm(ASK_SECONDS);
	dup2(null, STDOUT_FILENO);
	dup2(null, STDERR_FILENO);
	library = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
	if (library)
		asks[stack](library, &version);
	_exit(write(fd, &version, sizeof(version)) != sizeof(version));
}

bool installed_version(enum stack_id stack, struct version *version)
{
	char path[PATH_MAX];
	int fds[2], status;
	ssize_t n;
	pid_t pid;

	*version = (struct version){0};
	if (stack >= GUARDED_STACKS ||
	    !find(known_stacks[stack].library, path, sizeof(path)) ||
	    pipe2(fds, O_CLOEXEC))
		return false;
	fflush(NULL);
	pid = fork();
	if (!pid)
		ask(stack, path, fds[1]);
	close(fds[1]);
	n = pid < 0 ? 0 : read(fds[0], version, sizeof(*version));
	close(fds[0]);
	if (pid > 0)
		waitpid(pid, &status, 0);
	if (n != sizeof(*version))
		*version = (struct version){0};
	return *version->text;
}
