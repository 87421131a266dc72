/* SPDX-License-Identifier: BSD-2-Clause */
#include "publish.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[64]; /* empty: no file */
static pid_t owner;   /* who made it: a fork child has all this, too */
static ino_t inode;   /* another copy's may be in its place by now */
/* The cache that counts in the file; NULL: none, or it was closed. */
static struct mrcache *_Atomic published;

uint64_t publish_start_time(pid_t pid)
{
	uint64_t started = 0;
	char stat[64] = "/proc/self/stat", line[1024], *field;
	FILE *file;

	if (pid)
		snprintf(stat, sizeof(stat), "/proc/%d/stat", (int)pid);
	file = fopen(stat, "re");
	if (!file)
		return 0;
	if (fgets(line, sizeof(line), file) && (field = strrchr(line, ')'))) {
		/* Behind the command's name comes field 3; this is number 22. */
		for (int i = 2; field && i < 22; i++)
			field = strchr(field + 1, ' ');
		if (field)
			started = strtoull(field + 1, NULL, 10);
	}
	fclose(file);
	return started;
}

/*
 * Whether somebody counts in a file of this name: another copy of this code in
 * this process, or a process of another PID namespace. A lease is refused then.
 * One that nobody has open is of a process that had this number and died, or of
 * what this process was before it called exec().
 */
static bool is_in_use(void)
{
	int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat st;
	bool used;

	if (fd < 0)
		return false;
	/*
	 * Root would get a lease of another user's file, too, and who opens that
	 * to write would send us a SIGIO.
	 */
	used = !fstat(fd, &st) && st.st_uid == geteuid() &&
	       fcntl(fd, F_SETLEASE, F_RDLCK) && errno == EAGAIN;
	close(fd);
	return used;
}

/* Beyond RLIMIT_FSIZE there is no error, but a signal that ends the program. */
static bool is_allowed(void)
{
	struct rlimit limit;

	return !getrlimit(RLIMIT_FSIZE, &limit) &&
	       limit.rlim_cur >= sizeof(struct mrc_counters);
}

struct mrc_counters *publish_new(void)
{
	struct mrc_counters *counters = MAP_FAILED;
	struct stat st;
	int fd;

	if (atomic_load(&published) && owner == getpid())
		return NULL;
	publish_end();
	snprintf(path, sizeof(path), PUBLISH_DIRECTORY "/mrcache.%u.%d",
		 (unsigned int)geteuid(), (int)getpid());
	if (!is_allowed() || is_in_use()) {
		path[0] = '\0';
		return NULL;
	}
	owner = getpid();
	unlink(path);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
		  0600);
	if (fd < 0) {
		path[0] = '\0';
		return NULL;
	}
	inode = fstat(fd, &st) ? 0 : st.st_ino;
	/* Memory that is not there when it is written would be a SIGBUS. */
	if (!posix_fallocate(fd, 0, sizeof(*counters)))
		counters = mmap(NULL, sizeof(*counters), PROT_READ | PROT_WRITE,
				MAP_SHARED, fd, 0);
	close(fd);
	if (counters == MAP_FAILED) {
		publish_end();
		return NULL;
	}
	return counters;
}

static bool is_ours(void)
{
	struct stat st;

	return path[0] && owner == getpid() && !lstat(path, &st) &&
	       st.st_ino == inode;
}

void publish_end(void)
{
	int saved = errno;

	if (is_ours())
		unlink(path);
	path[0] = '\0';
	atomic_store(&published, NULL);
	errno = saved;
}

void publish_closed(struct mrcache *cache)
{
	atomic_compare_exchange_strong(&published, &cache, NULL);
}

void publish_begin(struct mrcache *cache)
{
	struct mrc_counters *counters = cache->counters;

	counters->size = sizeof(*counters);
	counters->stats = STATS;
	counters->pid = getpid();
	counters->started = publish_start_time(0);
	snprintf(counters->command, sizeof(counters->command), "%s",
		 program_invocation_short_name);
	snprintf(counters->monitor, sizeof(counters->monitor), "%s",
		 mrcache_monitor(cache));
	atomic_store(&published, cache);
	__atomic_store_n(&counters->magic, MRC_COUNTERS_MAGIC,
			 __ATOMIC_RELEASE);
}
