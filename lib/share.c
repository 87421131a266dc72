/* SPDX-License-Identifier: BSD-2-Clause */
#include "share.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The least of them; below it a cache is of no use. */
#define LEAST_BYTES ((uint64_t)1 << 20)

/* The beginning of a small file, as a string; false if it cannot be read. */
static bool read_file(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t bytes;

	if (fd < 0)
		return false;
	bytes = read(fd, text, size - 1);
	close(fd);
	text[bytes > 0 ? bytes : 0] = '\0';
	return bytes > 0;
}

/* A number in a file; UINT64_MAX for "max", or if there is none. */
static uint64_t read_limit(const char *path)
{
	unsigned long long limit;
	char text[64], *end;

	if (!read_file(path, text, sizeof(text)))
		return UINT64_MAX;
	errno = 0;
	limit = strtoull(text, &end, 10);
	return end == text || errno ? UINT64_MAX : limit;
}

/* The limit of each group holds for all below it. */
uint64_t mrc_cgroup_limit(const char *membership, const char *root)
{
	uint64_t least = UINT64_MAX, limit;
	char text[4096], path[2 * 4096], *group, *slash;

	if (!read_file(membership, text, sizeof(text)))
		return UINT64_MAX;
	/* Of version 2: "0::/a/b". Others have names in between. */
	group = strstr(text, "0::/");
	if (!group || (group != text && group[-1] != '\n'))
		return UINT64_MAX;
	group += strlen("0::");
	group[strcspn(group, "\n")] = '\0';
	for (;;) {
		snprintf(path, sizeof(path), "%s%s/memory.max", root, group);
		limit = read_limit(path);
		if (limit < least)
			least = limit;
		slash = strrchr(group, '/');
		if (!slash)
			return least;
		*slash = '\0';
	}
}

/* The largest number of a list such as "16(x2),8": tasks on each node. */
static unsigned long most_of(const char *list)
{
	unsigned long most = 0, number;
	char *end;

	for (;;) {
		number = strtoul(list, &end, 10);
		if (end == list || number > INT_MAX)
			return most;
		if (number > most)
			most = number;
		list = strchr(end, ',');
		if (!list)
			return most;
		list++;
	}
}

unsigned int mrc_ranks(void)
{
	static const char *const variables[] = {
		"OMPI_COMM_WORLD_LOCAL_SIZE", /* Open MPI */
		"MPI_LOCALNRANKS",	      /* MPICH and its kin */
		"MV2_COMM_WORLD_LOCAL_SIZE",  /* MVAPICH */
		"SLURM_STEP_TASKS_PER_NODE",  /* srun */
	};

	for (size_t i = 0; i < sizeof(variables) / sizeof(*variables); i++) {
		const char *text = secure_getenv(variables[i]);
		unsigned long ranks = text ? most_of(text) : 0;

		if (ranks)
			return (unsigned int)ranks;
	}
	return 1;
}

static bool may_lock_all(void)
{
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {{0}};

	return !syscall(SYS_capget, &header, data) &&
	       (data[CAP_TO_INDEX(CAP_IPC_LOCK)].effective &
		CAP_TO_MASK(CAP_IPC_LOCK));
}

void mrc_limits(struct mrc_limits *limits)
{
	struct rlimit lock;
	uint64_t all;

	*limits = (struct mrc_limits){
		.memory = (uint64_t)sysconf(_SC_PHYS_PAGES) *
			  (uint64_t)sysconf(_SC_PAGESIZE),
		.cgroup =
			mrc_cgroup_limit("/proc/self/cgroup", "/sys/fs/cgroup"),
		.memlock = UINT64_MAX,
		.ranks = mrc_ranks(),
	};
	if (!getrlimit(RLIMIT_MEMLOCK, &lock) &&
	    lock.rlim_cur != RLIM_INFINITY && !may_lock_all())
		limits->memlock = lock.rlim_cur;
	all = limits->cgroup < limits->memory ? limits->cgroup : limits->memory;
	limits->bytes = all / 2 / limits->ranks;
	if (limits->bytes > limits->memlock)
		limits->bytes = limits->memlock;
	if (limits->bytes < LEAST_BYTES)
		limits->bytes = LEAST_BYTES;
}
