/* SPDX-License-Identifier: BSD-2-Clause */
#include "counted.h"

#include "counters.h"
#include "publish.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int counted_open(void)
{
	int fd = open(PUBLISH_DIRECTORY, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

enum counted_result counted_name(const char *name, uid_t *uid, pid_t *pid)
{
	char again[64];

	if (sscanf(name, "mrcache.%u.%d", uid, pid) != 2 || *pid <= 0)
		return COUNTED_NOT;
	/* Exactly, without "+", leading zeroes, or more behind. */
	snprintf(again, sizeof(again), "mrcache.%u.%d", *uid, *pid);
	return strcmp(name, again) ? COUNTED_NOT : COUNTED;
}

/*
 * What a dead process left is removed by whom it belongs to. A lease is only
 * given if nobody has the file open or mapped for writing: a living process
 * may be in another PID namespace, and look dead from here.
 */
static void remove_dead(int directory, const char *name, int fd,
			const struct stat *st)
{
	struct stat now;

	if (st->st_uid != geteuid() || fcntl(fd, F_SETLEASE, F_RDLCK))
		return;
	/* A new process may have put its own in place. */
	if (!fstatat(directory, name, &now, AT_SYMLINK_NOFOLLOW) &&
	    now.st_dev == st->st_dev && now.st_ino == st->st_ino)
		unlinkat(directory, name, 0);
	fcntl(fd, F_SETLEASE, F_UNLCK);
}

/* Terminals, and JSON, get printable ASCII. */
static void copy_text(char *to, const char *from, size_t size)
{
	size_t i;

	for (i = 0; i + 1 < size && from[i]; i++)
		to[i] = from[i];
	to[i] = '\0';
	for (char *c = to; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
}

static enum counted_result check_file(const struct stat *st, uid_t uid,
				      const char **why)
{
	*why = NULL;
	if (!S_ISREG(st->st_mode))
		*why = "not a regular file";
	else if (st->st_uid != uid)
		*why = "belongs to another user than its name says";
	else if (st->st_mode & (S_IWGRP | S_IWOTH))
		*why = "others may write to it";
	else if (st->st_nlink > 1)
		*why = "has another name, too";
	else if (!st->st_size)
		return COUNTED_NOT_YET;
	return *why ? COUNTED_BAD : COUNTED;
}

static enum counted_result check_content(const struct mrc_counters *counters,
					 ssize_t size, pid_t pid,
					 const char **why)
{
	*why = NULL;
	/* A process writes `magic` last, but the file is of full size before. */
	if (size != sizeof(*counters))
		*why = "too short, or of another version of mrcache";
	else if (!counters->magic)
		return COUNTED_NOT_YET;
	else if (counters->magic != MRC_COUNTERS_MAGIC)
		*why = "not made by mrcache, or by another version of it";
	else if (counters->size != sizeof(*counters) ||
		 counters->stats != STATS)
		*why = "made by another version of mrcache";
	else if (counters->pid != pid)
		*why = "belongs to another process than its name says";
	return *why ? COUNTED_BAD : COUNTED;
}

enum counted_result counted_read(int directory, const char *name,
				 struct counted *counted, const char **why)
{
	struct mrc_counters counters = {0};
	enum counted_result result;
	uint64_t started;
	struct stat st;
	ssize_t size;
	int fd;

	*why = NULL;
	result = counted_name(name, &counted->uid, &counted->pid);
	if (result != COUNTED)
		return result;
	/* O_NONBLOCK: it may be a pipe. */
	fd = openat(directory, name,
		    O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0) {
		if (errno == ENOENT)
			return COUNTED_DEAD;
		if (errno == EACCES || errno == EPERM)
			return COUNTED_DENIED;
		*why = errno == ELOOP ? "a symbolic link" : strerror(errno);
		return COUNTED_BAD;
	}
	if (fstat(fd, &st)) {
		*why = strerror(errno);
		close(fd);
		return COUNTED_BAD;
	}
	result = check_file(&st, counted->uid, why);
	started = publish_start_time(counted->pid);
	if (result == COUNTED) {
		size = pread(fd, &counters, sizeof(counters), 0);
		result = check_content(&counters, size, counted->pid, why);
	}
	if ((result == COUNTED && counters.started != started) ||
	    (result == COUNTED_NOT_YET && !started))
		result = COUNTED_DEAD;
	if (result == COUNTED_DEAD)
		remove_dead(directory, name, fd, &st);
	close(fd);
	if (result != COUNTED)
		return result;

	counted->started = started;
	copy_text(counted->command, counters.command, sizeof(counted->command));
	copy_text(counted->monitor, counters.monitor, sizeof(counted->monitor));
	counted->unguarded = (unsigned int)counters.unguarded;
	counted->turned_off = (unsigned int)counters.turned_off;
	mrc_counters_read(&counters, &counted->stats);
	return COUNTED;
}

double counted_hit_rate(const struct mrcache_stats *stats)
{
	double all = (double)stats->hits + (double)stats->misses;

	return all > 0 ? (double)stats->hits / all : -1;
}

uint64_t counted_bypasses(const struct mrcache_stats *stats)
{
	uint64_t n = 0;

	for (int i = 0; i < MRCACHE_BYPASS_REASONS; i++)
		n += stats->bypass[i];
	return n;
}
