/* SPDX-License-Identifier: BSD-2-Clause */
#include "publish.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[64]; /* empty: no file */

struct mrc_counters *publish_new(void)
{
	struct mrc_counters *counters = MAP_FAILED;
	int fd;

	snprintf(path, sizeof(path), PUBLISH_DIRECTORY "/mrcache.%u.%d",
		 (unsigned int)geteuid(), (int)getpid());
	/* One that is there is of a process that had this number and died. */
	unlink(path);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
		  0600);
	if (fd < 0) {
		path[0] = '\0';
		return NULL;
	}
	/* Memory that is not there when it is written would be a SIGBUS. */
	if (!posix_fallocate(fd, 0, sizeof(*counters)))
		counters = mmap(NULL, sizeof(*counters), PROT_READ | PROT_WRITE,
				MAP_SHARED, fd, 0);
	close(fd);
	if (counters == MAP_FAILED) {
		unlink(path);
		path[0] = '\0';
		return NULL;
	}
	return counters;
}

void publish_abandon(void)
{
	if (path[0])
		unlink(path);
	path[0] = '\0';
}

/* Tells this process from a later one with the same number. */
static uint64_t start_time(void)
{
	uint64_t started = 0;
	char line[1024], *field;
	FILE *file = fopen("/proc/self/stat", "re");

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

void publish_begin(struct mrcache *cache)
{
	struct mrc_counters *counters = cache->counters;

	counters->size = sizeof(*counters);
	counters->stats = STATS;
	counters->pid = getpid();
	counters->started = start_time();
	snprintf(counters->command, sizeof(counters->command), "%s",
		 program_invocation_short_name);
	snprintf(counters->monitor, sizeof(counters->monitor), "%s",
		 mrcache_monitor(cache));
	__atomic_store_n(&counters->magic, MRC_COUNTERS_MAGIC,
			 __ATOMIC_RELEASE);
}

/* One line of JSON, so that results of many processes can be put in one file. */
static void summary(FILE *file, struct mrcache *cache)
{
	const struct mrc_counters *counters = cache->counters;
	struct mrcache_stats stats;

	mrcache_stats(cache, &stats, sizeof(stats));
	fprintf(file,
		"{\"pid\":%" PRId64 ",\"monitor\":\"%s\",\"hits\":%" PRIu64
		",\"misses\":%" PRIu64 ",\"registrations\":%" PRIu64
		",\"deregistrations\":%" PRIu64 ",\"repins\":%" PRIu64
		",\"invalidations\":%" PRIu64 ",\"evictions\":%" PRIu64
		",\"reg_errors\":%" PRIu64 ",\"dereg_errors\":%" PRIu64
		",\"cached\":%" PRIu64 ",\"cached_bytes\":%" PRIu64
		",\"bypass\":{",
		counters->pid, counters->monitor, stats.hits, stats.misses,
		stats.registrations, stats.deregistrations, stats.repins,
		stats.invalidations, stats.evictions, stats.reg_errors,
		stats.dereg_errors, stats.cached, stats.cached_bytes);
	for (int i = 0; i < MRCACHE_BYPASS_REASONS; i++)
		fprintf(file, "%s\"%s\":%" PRIu64, i ? "," : "",
			mrcache_bypass_name((enum mrcache_bypass)i),
			stats.bypass[i]);
	fputs("}}\n", file);
}

void publish_end(struct mrcache *cache)
{
	const char *where = secure_getenv("MRCACHE_STATS");
	FILE *file;

	publish_abandon();
	if (!where || !*where || !strcmp(where, "0"))
		return;
	if (!strcmp(where, "1")) {
		fputs("mrcache: ", stderr);
		summary(stderr, cache);
		return;
	}
	file = fopen(where, "ae");
	if (!file) {
		mrc_log(&cache->attr, MRCACHE_LOG_WARN, "MRCACHE_STATS=%s: %m",
			where);
		return;
	}
	setvbuf(file, NULL, _IOFBF,
		1 << 14); /* one write(), so lines stay whole */
	summary(file, cache);
	fclose(file);
}
