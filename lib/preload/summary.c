/* SPDX-License-Identifier: BSD-2-Clause */
#include "summary.h"

#include "fallback.h"
#include "log.h"

#include "guard/stacks.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- a line ------------------------------------------------------------------------ */

/* Names that anybody may choose: printable ASCII. */
static void put_name(FILE *file, const char *name)
{
	for (; *name; name++) {
		if (*name == '"' || *name == '\\')
			fputc('\\', file);
		fputc(*name < ' ' || *name > '~' ? '?' : *name, file);
	}
}

static const char *host(void)
{
	static char name[HOST_NAME_MAX + 1];

	if (!*name && gethostname(name, sizeof(name) - 1))
		snprintf(name, sizeof(name), "unknown");
	return name;
}

static void put_head(FILE *file)
{
	fputs("{\"host\":\"", file);
	put_name(file, host());
	fprintf(file, "\",\"pid\":%d,\"command\":\"", (int)getpid());
	put_name(file, program_invocation_short_name);
	fputc('"', file);
}

static void put_stacks(FILE *file, const char *what, unsigned int bits)
{
	fprintf(file, ",\"%s\":[", what);
	for (unsigned int i = 0, n = 0; i < UNGUARDED_BITS; i++)
		if (bits & 1u << i)
			fprintf(file, "%s\"%s\"", n++ ? "," : "",
				unguarded_name(i));
	fputc(']', file);
}

static void put_line(FILE *file, struct mrcache *cache)
{
	const struct mrc_counters *counters = cache->counters;
	unsigned int unguarded = (unsigned int)counters->unguarded;
	struct mrcache_stats stats;

	mrcache_get_stats(cache, &stats, sizeof(stats));
	put_head(file);
	fprintf(file, ",\"monitor\":\"%s\"", mrcache_monitor(cache));
#define PUT(name, member) \
	fprintf(file, ",\"" #member "\":%" PRIu64, stats.member);
	MRC_STAT_LIST(PUT, PUT)
#undef PUT
	fputs(",\"bypass\":{", file);
	for (int i = 0; i < MRCACHE_BYPASS_REASONS; i++)
		fprintf(file, "%s\"%s\":%" PRIu64, i ? "," : "",
			mrcache_bypass_name((enum mrcache_bypass)i),
			stats.bypass[i]);
	fputc('}', file);
	put_stacks(file, "turned_off", (unsigned int)counters->turned_off);
	put_stacks(file, "unguarded", unguarded);
	fprintf(file, ",\"protected\":%s}\n", unguarded ? "false" : "true");
}

/* ---- writing ------------------------------------------------------------------------- */

/* Made in memory, so that one write() keeps them whole. */
struct lines {
	FILE *file;
	char *text;
	size_t size;
};

static FILE *begin_lines(struct lines *lines)
{
	*lines = (struct lines){0};
	lines->file = open_memstream(&lines->text, &lines->size);
	return lines->file;
}

/* Appends them to a file, or to standard error (NULL); false with errno. */
static bool end_lines(struct lines *lines, const char *path, int flags,
		      mode_t mode)
{
	bool done = !fclose(lines->file);
	int fd, saved;

	fflush(stderr);
	fd = path ? open(path,
			 O_WRONLY | O_CREAT | O_APPEND | O_NOCTTY | O_CLOEXEC |
				 flags,
			 mode)
		  : STDERR_FILENO;
	if (!done)
		errno = ENOMEM;
	done = done && fd >= 0 &&
	       mrc_write_quietly(fd, lines->text, lines->size);
	saved = errno;
	if (path && fd >= 0)
		close(fd);
	free(lines->text);
	errno = saved;
	return done;
}

/* ---- statistics ------------------------------------------------------------------------ */

static void put_statistics(struct mrcache *cache)
{
	const char *where = secure_getenv("MRCACHE_STATS");
	struct lines lines;

	if (!where || !*where || !strcmp(where, "0") || !begin_lines(&lines))
		return;
	if (!strcmp(where, "1")) {
		/* Which is others' as well. */
		fputs("mrcache: ", lines.file);
		where = NULL;
	}
	put_line(lines.file, cache);
	if (!end_lines(&lines, where, 0, 0666) && where)
		mrc_log(&cache->attr, MRCACHE_LOG_WARN, "MRCACHE_STATS=%s: %m",
			where);
}

/* ---- evidence ---------------------------------------------------------------------------- */

static const char *evidence_wanted(void)
{
	const char *directory = secure_getenv("MRCACHE_VERIFY");

	return directory && *directory ? directory : NULL;
}

/* Complains through attr, once for begin, end and children alike. */
static void put_evidence(const struct mrcache_attr *attr, struct lines *lines)
{
	const char *directory = evidence_wanted();
	static atomic_bool said;
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s.%d", directory, host(),
		 (int)getpid());
	if (!end_lines(lines, path, O_NOFOLLOW, 0600) &&
	    !atomic_exchange(&said, true))
		mrc_log(attr, MRCACHE_LOG_WARN,
			"MRCACHE_VERIFY=%s: %m: nobody will know whether this process was protected",
			directory);
}

static void put_begin(FILE *file)
{
	put_head(file);
	fputs(",\"began\":true}\n", file);
}

void summary_begin(struct mrcache *cache)
{
	struct lines lines;

	if (!evidence_wanted() || !begin_lines(&lines))
		return;
	put_begin(lines.file);
	put_evidence(&cache->attr, &lines);
}

void summary_end(struct mrcache *cache)
{
	struct lines lines;

	put_statistics(cache);
	if (!evidence_wanted() || !begin_lines(&lines))
		return;
	put_line(lines.file, cache);
	put_evidence(&cache->attr, &lines);
}

void summary_child(struct mrcache *cache)
{
	static _Atomic pid_t written;
	struct lines lines;

	if (atomic_exchange(&written, getpid()) == getpid() ||
	    !evidence_wanted() || !begin_lines(&lines))
		return;
	put_head(lines.file);
	fputs(",\"began\":true,\"forked\":true}\n", lines.file);
	put_evidence(&cache->attr, &lines);
}

/* Of a process without a cache, whose settings may make no sense. */
static bool begin_foreign(struct lines *lines)
{
	if (!evidence_wanted() || !begin_lines(lines))
		return false;
	put_begin(lines->file);
	put_head(lines->file);
	fputs(",\"registrations\":0", lines->file);
	return true;
}

static void end_foreign(struct lines *lines)
{
	struct mrcache_attr attr;

	fputs(",\"protected\":false}\n", lines->file);
	mrcache_attr_init(&attr);
	put_evidence(&attr, lines);
}

void summary_stranger(unsigned int unguarded)
{
	struct lines lines;

	if (!unguarded || !begin_foreign(&lines))
		return;
	put_stacks(lines.file, "unguarded", unguarded);
	end_foreign(&lines);
}

void summary_no_cache(void)
{
	struct lines lines;

	if (!begin_foreign(&lines))
		return;
	fputs(",\"unguarded\":[\"there is no cache\"]", lines.file);
	end_foreign(&lines);
}
