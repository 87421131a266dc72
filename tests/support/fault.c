/* SPDX-License-Identifier: BSD-2-Clause */
/* Faults of the kernel on request; see fault.h. */
#include "fault.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NTH   "/proc/thread-self/fail-nth"
#define KNOBS "/sys/kernel/debug/"

static int nth_fd = -1;

const char *fault_missing(void)
{
	if (access(NTH, W_OK))
		return "no CONFIG_FAULT_INJECTION";
	return access(KNOBS "failslab", F_OK) ? "no CONFIG_FAILSLAB" : NULL;
}

/* Sets a knob of those kinds of faults that have it. */
static int turn(const char *knob, const char *value)
{
	static const char *const kinds[] = {"failslab", "fail_page_alloc",
					    "fail_usercopy"};
	char path[128];
	ssize_t done;
	size_t i;
	int fd;

	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		snprintf(path, sizeof(path), KNOBS "%s/%s", kinds[i], knob);
		fd = open(path, O_WRONLY | O_CLOEXEC);
		if (fd < 0 && errno == ENOENT)
			continue;
		if (fd < 0)
			return -errno;
		done = write(fd, value, strlen(value));
		close(fd);
		if (done != (ssize_t)strlen(value))
			return -EIO;
	}
	return 0;
}

int fault_begin(void)
{
	static const char *const knobs[][2] = {
		{"verbose", "0"},	    {"ignore-gfp-wait", "N"},
		{"min-order", "0"},	    {"ignore-gfp-highmem", "N"},
		{"stacktrace-depth", "32"},
	};
	size_t i;
	int ret;

	for (i = 0; i < sizeof(knobs) / sizeof(knobs[0]); i++) {
		ret = turn(knobs[i][0], knobs[i][1]);
		if (ret)
			return ret;
	}
	if (nth_fd >= 0)
		close(nth_fd);
	nth_fd = open(NTH, O_RDWR | O_CLOEXEC);
	return nth_fd < 0 ? -errno : 0;
}

/* Where a function begins and the next one does. */
static bool find_function(const char *name, unsigned long *start,
			  unsigned long *end)
{
	FILE *f = fopen("/proc/kallsyms", "re");
	unsigned long address;
	char line[512], found[256];

	*start = *end = 0;
	if (!f)
		return false;
	while (!*end && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx %*c %255s", &address, found) != 2)
			continue;
		if (*start && address > *start)
			*end = address;
		else if (!strcmp(found, name))
			*start = address;
	}
	fclose(f);
	return *end;
}

int fault_only_in(const char *function)
{
	unsigned long start = 0, end = -1UL;
	char text[32];
	int ret;

	if (function && !find_function(function, &start, &end))
		return -ENOENT;
	snprintf(text, sizeof(text), "%#lx", start);
	ret = turn("require-start", text);
	if (ret)
		return ret;
	snprintf(text, sizeof(text), "%#lx", end);
	return turn("require-end", text);
}

void fault_arm(unsigned int nth)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", nth);
	if (pwrite(nth_fd, text, strlen(text), 0) < 0)
		abort();
}

bool fault_happened(void)
{
	char text[16] = "";
	bool happened;

	/* These may be what fails, if nothing else was. */
	happened = pread(nth_fd, text, sizeof(text) - 1, 0) > 0 &&
		   !strtoul(text, NULL, 10);
	while (pwrite(nth_fd, "0", 1, 0) < 0 && errno == EFAULT)
		;
	return happened;
}
