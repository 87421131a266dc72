/* SPDX-License-Identifier: BSD-2-Clause */
#include "memcg.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define GROUPS "/tmp/test.cgroup"
#define GROUP  GROUPS "/child"

static int put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), ret = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		ret = -errno;
	close(fd);
	return ret;
}

int memcg_make(void)
{
	int ret;

	if (mkdir(GROUPS, 0700) ||
	    mount("none", GROUPS, "cgroup2", MS_NOSUID | MS_NOEXEC, NULL))
		return -errno;
	ret = put(GROUPS "/cgroup.subtree_control", "+memory");
	if (ret)
		return ret;
	return mkdir(GROUP, 0700) ? -errno : 0;
}

void memcg_drop(void)
{
	rmdir(GROUP);
	umount2(GROUPS, MNT_DETACH);
	rmdir(GROUPS);
}

int memcg_limit(size_t bytes)
{
	char text[32];

	snprintf(text, sizeof(text), "%zu", bytes);
	return put(GROUP "/memory.max", text);
}

int memcg_enter(void)
{
	return put(GROUP "/cgroup.procs", "0");
}
