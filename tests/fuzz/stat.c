/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `mrcache stat` over a file of counters that somebody else has written: two
 * bytes of choices, then what stands in the file from some place on.
 */
#include "fuzz.h"

#include "command.h"
#include "counted.h"
#include "counters.h"

#include <ctype.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define TRUNCATED 0x01 /* ends where the input ends */
#define GROWN	  0x02 /* is longer than it should be */
#define AS_IT_IS  0x04 /* the input is all there is */
#define JSON	  0x08
#define OPEN	  0x10 /* everybody may write to it */
#define NAME	  0x20 /* the input is the file's name */

static char directory[] = "/tmp/fuzz-stat.XXXXXX";
static char file[64];

int __wrap_counted_open(void);
int __wrap_counted_open(void)
{
	return open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void remove_directory(void)
{
	rmdir(directory);
}

static void start(void)
{
	if (file[0])
		return;
	if (!mkdtemp(directory) || atexit(remove_directory))
		abort();
	snprintf(file, sizeof(file), "mrcache.%u.%d", geteuid(), getpid());
	/* What is shown is not looked at. */
	stdout = stderr = fopen("/dev/null", "we");
	if (!stdout)
		abort();
}

/* Field 22 of /proc/self/stat, as the command reads it itself. */
static uint64_t started(void)
{
	static uint64_t start;
	char line[1024] = "", *field;
	int fd;

	if (start)
		return start;
	fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
	if (read(fd, line, sizeof(line) - 1) <= 0)
		abort();
	close(fd);
	field = strrchr(line, ')');
	for (int i = 2; i < 22; i++)
		field = strchr(field + 1, ' ');
	start = strtoull(field + 1, NULL, 10);
	return start;
}

static void write_file(int at, struct input *in, uint8_t how, size_t offset)
{
	struct mrc_counters counters = {
		.magic = MRC_COUNTERS_MAGIC,
		.size = sizeof(counters),
		.stats = STATS,
		.pid = getpid(),
		.started = started(),
		.command = "command",
		.monitor = "ummunotify",
	};
	mode_t mode = how & OPEN ? 0666 : 0600;
	int fd;

	umask(0);
	fd = openat(at, file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
	if (fd < 0)
		abort();
	if (!(how & AS_IT_IS) &&
	    write(fd, &counters, sizeof(counters)) != sizeof(counters))
		abort();
	if (pwrite(fd, in->data, in->size, (off_t)offset) < 0)
		abort();
	if (how & GROWN && ftruncate(fd, sizeof(counters) + in->size))
		abort();
	if (how & TRUNCATED && ftruncate(fd, (off_t)(offset + in->size)))
		abort();
	close(fd);
}

static void check_text(const char *text, size_t size)
{
	CHECK(memchr(text, '\0', size), "a text without an end");
	for (; *text; text++)
		CHECK(isprint((unsigned char)*text), "0x%02x", *text);
}

static void check_read(int at)
{
	struct counted counted;
	const char *why = "";

	switch (counted_read(at, file, &counted, &why)) {
	case COUNTED:
		CHECK(counted.pid == getpid() && counted.uid == geteuid() &&
			      counted.started == started(),
		      "another process");
		check_text(counted.command, sizeof(counted.command));
		check_text(counted.monitor, sizeof(counted.monitor));
		CHECK(counted_hit_rate(&counted.stats) <= 1, "hit rate");
		break;
	case COUNTED_BAD:
		CHECK(why && *why, "it is not said why");
		break;
	case COUNTED_DEAD:
	case COUNTED_NOT_YET:
		break;
	case COUNTED_NOT:
	case COUNTED_DENIED:
		CHECK(false, "its own file");
	}
}

static void check_name(struct input *in)
{
	char name[256] = "", again[64];
	uid_t uid;
	pid_t pid;

	take(in, name, sizeof(name) - 1);
	if (counted_name(name, &uid, &pid) != COUNTED)
		return;
	snprintf(again, sizeof(again), "mrcache.%u.%d", uid, pid);
	CHECK(pid > 0 && !strcmp(name, again), "%s is taken for %s", name,
	      again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	char command[] = "mrcache stat", json[] = "--json";
	char *argv[] = {command, json, NULL};
	uint8_t how = take_byte(&in);
	size_t offset = take_byte(&in) * 8u;
	int at;

	start();
	if (how & NAME) {
		check_name(&in);
		return 0;
	}
	at = __wrap_counted_open();
	write_file(at, &in, how, how & AS_IT_IS ? 0 : offset);
	check_read(at);
	stat_main(how & JSON ? 2 : 1, argv);
	unlinkat(at, file, 0);
	close(at);
	return 0;
}
