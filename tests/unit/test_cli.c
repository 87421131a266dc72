/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The command `mrcache` as a user types it, as far as neither the driver nor an
 * RDMA device matters; with them it is tested in tests/guest/test_command.c.
 */
#include "unit.h"

#include "guest/execute.h"
#include "preload/publish.h"

#include <sys/prctl.h>
#include <sys/stat.h>

static int plain_environment(void **state)
{
	(void)state;
	unsetenv("LD_PRELOAD");
	unsetenv("MRCACHE_LOG");
	return 0;
}

/* The tools may not have been built. */
#define NEEDS_COMMAND()                           \
	do {                                      \
		(void)state;                      \
		if (access(command_path(), X_OK)) \
			skip();                   \
	} while (0)

static struct executed e;

/* --- usage -------------------------------------------------------------------- */

static void help_and_version(void **state)
{
	NEEDS_COMMAND();
	MRCACHE(&e, "--help");
	assert_status(&e, 0);
	assert_out(&e, "run");
	assert_out(&e, "doctor");
	assert_out(&e, "stat");
	MRCACHE(&e, "--version");
	assert_status(&e, 0);
	assert_int_equal(strncmp(e.out, "mrcache ", 8), 0);
	MRCACHE(&e, "run", "--help");
	assert_status(&e, 0);
	assert_out(&e, "--remote");
	MRCACHE(&e, "help", "stat");
	assert_status(&e, 0);
	assert_out(&e, "--watch");
	MRCACHE(&e, "doctor", "-h");
	assert_status(&e, 0);
	assert_out(&e, "--json");
}

static void wrong_usage(void **state)
{
	NEEDS_COMMAND();
	execute_as(&e, &(const struct as){0},
		   (const char *const[]){NULL, NULL});
	assert_status(&e, 2);
	assert_err(&e, "a command is missing");
	MRCACHE(&e, "strat");
	assert_status(&e, 2);
	assert_err(&e, "no command 'strat'");
	assert_err(&e, "--help");
	MRCACHE(&e, "--nonsense");
	assert_status(&e, 2);
	MRCACHE(&e, "doctor", "now");
	assert_status(&e, 2);
	MRCACHE(&e, "stat", "12x");
	assert_status(&e, 2);
	MRCACHE(&e, "stat", "--watch=0");
	assert_status(&e, 2);
	MRCACHE(&e, "stat", "--watch=nan");
	assert_status(&e, 2);
	MRCACHE(&e, "stat", "--all", "1");
	assert_status(&e, 2);
	MRCACHE(&e, "run");
	assert_status(&e, 125);
	assert_err(&e, "a program to run is missing");
	MRCACHE(&e, "run", "--nonsense", "true");
	assert_status(&e, 125);
	MRCACHE(&e, "run", "--max-bytes=many", "true");
	assert_status(&e, 125);
	assert_err(&e, "--max-bytes=many: not a size");
	MRCACHE(&e, "run", "--monitor", "lizard", "true");
	assert_status(&e, 125);
	assert_err(&e, "no monitor lizard");
	MRCACHE(&e, "run", "--linger=-1", "true");
	assert_status(&e, 125);
}

static void nothing_is_lost_silently(void **state)
{
	NEEDS_COMMAND();
	execute_as(&e, &(const struct as){0},
		   (const char *const[]){"/bin/sh", "-c",
					 "exec \"$0\" doctor >/dev/full",
					 command_path(), NULL});
	assert_status(&e, 1);
	assert_err(&e, "cannot write");
}

/* --- run ------------------------------------------------------------------------ */

/* Any library that can be preloaded: sanitizers' builds have no shim. */
static const char *any_library(void)
{
	static char path[PATH_MAX];
	char line[PATH_MAX + 128];
	FILE *maps = fopen("/proc/self/maps", "re");

	while (!*path && maps && fgets(line, sizeof(line), maps))
		if (strstr(line, "/libc.so.6")) {
			line[strcspn(line, "\n")] = '\0';
			strcpy(path, strchr(line, '/'));
		}
	if (maps)
		fclose(maps);
	return path;
}

static int with_library(void **state)
{
	(void)state;
	/* A sanitized command may be preloaded into, too. */
	setenv("ASAN_OPTIONS", "verify_asan_link_order=0", 0);
	return setenv("MRCACHE_PRELOAD", any_library(), 1);
}

static int without_library(void **state)
{
	static const char *const names[] = {"MRCACHE_PRELOAD", "LD_PRELOAD",
					    "MRCACHE_LINGER",  "MRCACHE_REMOTE",
					    "MRCACHE_LOG",     "MRCACHE_REMOT"};

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		unsetenv(names[i]);
	return 0;
}

static void status_and_signals_are_the_programs(void **state)
{
	NEEDS_COMMAND();
	MRCACHE(&e, "run", "-q", "--", "sh", "-c", "exit 42");
	assert_status(&e, 42);
	assert_string_equal(e.err, "");
	MRCACHE(&e, "run", "-q", "--", "sh", "-c", "kill -TERM $$");
	assert_status(&e, 128 + SIGTERM);
	MRCACHE(&e, "run", "-q", "sh", "-c", "echo \"$@\"", "-", "--remote",
		"a b");
	assert_status(&e, 0);
	assert_string_equal(e.out, "--remote a b\n");
}

static void the_process_becomes_the_program(void **state)
{
	char number[32];

	NEEDS_COMMAND();
	execute_begin(&e, &(const struct as){0},
		      (const char *const[]){NULL, "run", "-q", "sh", "-c",
					    "echo $$", NULL});
	snprintf(number, sizeof(number), "%d\n", e.pid);
	execute_end(&e);
	assert_string_equal(e.out, number);
}

static void what_cannot_be_run(void **state)
{
	NEEDS_COMMAND();
	MRCACHE(&e, "run", "-q", "no-such-program");
	assert_status(&e, 127);
	assert_err(&e, "no-such-program: No such file");
	MRCACHE(&e, "run", "-q", "/no/such/program");
	assert_status(&e, 127);
	MRCACHE(&e, "run", "-q", "");
	assert_status(&e, 127);
	MRCACHE(&e, "run", "-q", "/");
	assert_status(&e, 126);
	MRCACHE(&e, "run", "-q", "/etc/passwd");
	assert_status(&e, 126);
	assert_err(&e, "Permission denied");
	setenv("MRCACHE_PRELOAD", "/no/such/shim.so", 1);
	MRCACHE(&e, "run", "true");
	assert_status(&e, 125);
	assert_err(&e, "/no/such/shim.so");
}

static void the_environment_it_sets(void **state)
{
	char want[2 * PATH_MAX];

	NEEDS_COMMAND();
	MRCACHE(&e, "run", "-q", "--remote", "--linger=250", "--stats=numbers",
		"--monitor=auto", "--max-bytes", "4G", "env");
	assert_status(&e, 0);
	snprintf(want, sizeof(want), "LD_PRELOAD=%s\n", any_library());
	assert_out(&e, want);
	assert_out(&e, "MRCACHE_REMOTE=1\n");
	assert_out(&e, "MRCACHE_LINGER=250\n");
	assert_out(&e, "MRCACHE_MONITOR=auto\n");
	assert_out(&e, "MRCACHE_MAX_BYTES=4G\n");
	assert_out(&e, "MRCACHE_LOG=quiet\n");
	/* The program may go to another directory. */
	assert_true(getcwd(want, PATH_MAX) != NULL);
	strcat(want, "/numbers\n");
	assert_out(&e, want);

	MRCACHE(&e, "run", "--stats", "env");
	assert_out(&e, "MRCACHE_STATS=1\n");
	assert_null(strstr(e.out, "MRCACHE_LOG="));
}

static void what_is_preloaded_stays(void **state)
{
	char want[2 * PATH_MAX];

	NEEDS_COMMAND();
	setenv("LD_PRELOAD", "libm.so.6", 1);
	MRCACHE(&e, "run", "-q", "env");
	snprintf(want, sizeof(want), "LD_PRELOAD=%s:libm.so.6\n",
		 any_library());
	assert_out(&e, want);
	unsetenv("LD_PRELOAD");
	/* mrcache run mpirun mrcache run */
	MRCACHE(&e, "run", "-q", command_path(), "run", "-q", "env");
	snprintf(want, sizeof(want), "LD_PRELOAD=%s\n", any_library());
	assert_out(&e, want);
}

static void programs_that_cannot_be_helped(void **state)
{
	static const char busybox[] = "/bin/busybox";
	char script[] = "/tmp/mrcache-script.XXXXXX";
	int fd;

	NEEDS_COMMAND();
	if (access(busybox, X_OK))
		skip();
	MRCACHE(&e, "run", busybox, "true");
	assert_status(&e, 0);
	assert_err(&e, "/bin/busybox is statically linked");
	fd = mkstemp(script);
	assert_true(fd >= 0);
	dprintf(fd, "#! %s sh\nexit 7\n", busybox);
	assert_int_equal(fchmod(fd, 0755), 0);
	close(fd);
	MRCACHE(&e, "run", script);
	assert_status(&e, 7);
	assert_err(&e, "/bin/busybox is statically linked");
	MRCACHE(&e, "run", "--quiet", script);
	assert_status(&e, 7);
	assert_string_equal(e.err, "");
	unlink(script);
}

/* Every file that is executable is looked into, so it may be anything. */
static void programs_that_are_damaged(void **state)
{
	char path[] = "/tmp/mrcache-elf.XXXXXX";
	char copy[4096];
	ssize_t size;
	int fd, from;

	NEEDS_COMMAND();
	from = open("/bin/sh", O_RDONLY | O_CLOEXEC);
	size = read(from, copy, sizeof(copy));
	close(from);
	assert_int_equal(size, sizeof(copy));
	fd = mkstemp(path);
	close(fd);
	for (unsigned int i = 0; i < 120; i++) {
		fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
		assert_true(fd >= 0);
		/* Cut, or with bytes of the headers set. */
		if (i < 40) {
			assert_true(write(fd, copy, i * i * 2) >= 0);
		} else {
			char wrong[4096];

			memcpy(wrong, copy, sizeof(wrong));
			memset(wrong + 4 + (i - 40) * 8, 0xff, 8);
			assert_int_equal(write(fd, wrong, sizeof(wrong)),
					 sizeof(wrong));
		}
		assert_int_equal(fchmod(fd, 0755), 0);
		close(fd);
		/* It is looked at first, and then not run. */
		MRCACHE(&e, "run", "--max-bytes=x", path);
		assert_status(&e, 125);
		assert_null(strstr(e.err, "Sanitizer"));
	}
	unlink(path);
}

static void settings_that_make_no_sense(void **state)
{
	NEEDS_COMMAND();
	setenv("MRCACHE_LINGER", "soon", 1);
	setenv("MRCACHE_REMOTE", "yes", 1);
	setenv("MRCACHE_REMOT", "1", 1);
	setenv("MRCACHE_LOG", "quiet", 1);
	/* They came with the environment: the program runs, unchanged. */
	MRCACHE(&e, "run", "env");
	assert_status(&e, 0);
	assert_err(&e, "MRCACHE_LINGER=soon: not a number of milliseconds: "
		       "nothing is cached");
	assert_err(&e, "MRCACHE_REMOTE=yes: not 0 or 1");
	assert_err(&e, "MRCACHE_REMOT: there is no such setting");
	assert_out(&e, "MRCACHE_LINGER=soon\n");
	assert_out(&e, "MRCACHE_REMOTE=yes\n");
	assert_out(&e, "MRCACHE_LOG=quiet\n");
	MRCACHE(&e, "doctor");
	assert_status(&e, 1);
	assert_out(&e, "fail  settings  MRCACHE_LINGER=soon");
	assert_out(&e, "fail  settings  MRCACHE_REMOTE=yes");
	assert_out(&e, "warn  settings  MRCACHE_REMOT:");
}

/* --- doctor ---------------------------------------------------------------------- */

static void lines_fit(const char *text)
{
	for (size_t length; *text; text += length + (text[length] == '\n')) {
		length = strcspn(text, "\n");
		if (length > 80 && !memchr(text, '/', length))
			fail_msg("longer than 80: %.*s", (int)length, text);
	}
}

static void a_doctor_says_what_to_do(void **state)
{
	const char *line;
	bool bad = false;

	NEEDS_COMMAND();
	setenv("MRCACHE_PRELOAD", "/etc/passwd", 1);
	setenv("MRCACHE_DEVICE", "/dev/null", 1);
	MRCACHE(&e, "doctor");
	unsetenv("MRCACHE_DEVICE");
	assert_status(&e, 1);
	assert_out(&e, "ok    kernel    Linux ");
	assert_out(&e, "fail  preload   /etc/passwd");
	assert_out(&e, "/dev/null does not behave as ummunotify");
	lines_fit(e.out);
	/* Each that is not ok is followed by advice. */
	for (line = e.out; *line && *line != '\n';
	     line += strcspn(line, "\n") + 1) {
		bool starts = *line != ' ';

		if (starts && bad)
			fail_msg("no advice before: %.40s", line);
		if (starts)
			bad = !strncmp(line, "fail", 4) ||
			      !strncmp(line, "warn", 4);
		else if (strstr(line, "->") &&
			 strstr(line, "->") < line + strcspn(line, "\n"))
			bad = false;
	}
	assert_false(bad);
}

static void a_doctor_speaks_json(void **state)
{
	NEEDS_COMMAND();
	MRCACHE(&e, "doctor", "--json");
	assert_int_equal(e.out[0], '{');
	assert_out(&e, "\"check\": \"kernel\"");
	assert_out(&e, "\"status\": \"ok\"");
	assert_out(&e, "\"failed\": ");
	assert_string_equal(e.err, "");
}

static void a_small_memlock(void **state)
{
	const struct as small = {.uid = getuid() ? 0 : NOBODY,
				 .memlock = 64 << 10};

	NEEDS_COMMAND();
	MRCACHE_AS(&e, &small, "doctor");
	if (e.status == 98)
		skip(); /* the build is not for everybody to see */
	assert_status(&e, 1);
	assert_out(&e, "fail  memlock   only 64 KiB");
	assert_out(&e, "limits.d");
}

/* --- stat: counters of this process, and what pretends to be --------------------- */

static struct mrc_counters good;
static char path[128];

static uint64_t start_time(void)
{
	char line[1024], *field;
	FILE *file = fopen("/proc/self/stat", "re");

	assert_non_null(file);
	assert_non_null(fgets(line, sizeof(line), file));
	fclose(file);
	field = strrchr(line, ')');
	for (int i = 2; i < 22; i++)
		field = strchr(field + 1, ' ');
	return strtoull(field + 1, NULL, 10);
}

static int new_counters(void **state)
{
	(void)state;
	memset(&good, 0, sizeof(good));
	good.magic = MRC_COUNTERS_MAGIC;
	good.size = sizeof(good);
	good.stats = STATS;
	good.pid = getpid();
	good.started = start_time();
	strcpy(good.command, "program");
	strcpy(good.monitor, "ummunotify");
	good.counts[STAT_OTHER_HITS] = 7;
	good.threads[0].hits = 700;
	good.threads[MRC_COUNTED_THREADS - 1].hits = 45;
	good.counts[STAT_MISSES] = 48;
	good.counts[STAT_EVICTIONS] = 3;
	good.counts[STAT_INVALIDATIONS] = 5;
	good.counts[STAT_CACHED] = 11;
	good.counts[STAT_CACHED_BYTES] = 640 << 10;
	good.counts[STAT_STALE_HELD] = 2;
	good.counts[STAT_BYPASS + MRCACHE_BYPASS_REMOTE] = 13;
	good.counts[STAT_BYPASS + MRCACHE_BYPASS_MEMORY] = 1;
	snprintf(path, sizeof(path), PUBLISH_DIRECTORY "/mrcache.%u.%d",
		 geteuid(), getpid());
	unlink(path);
	return 0;
}

static int no_counters(void **state)
{
	(void)state;
	unlink(path);
	return 0;
}

static const char *self(void)
{
	static char number[16];

	snprintf(number, sizeof(number), "%d", getpid());
	return number;
}

static void put_size(size_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, &good, size), size);
	close(fd);
}

static void put(void)
{
	put_size(sizeof(good));
}

/* What is there is passed over, with a reason. */
static void is_refused(const char *reason)
{
	MRCACHE(&e, "stat", self());
	assert_status(&e, 1);
	assert_string_equal(e.out, "");
	if (reason)
		assert_err(&e, reason);
	MRCACHE(&e, "stat", "--json");
	assert_null(strstr(e.out, "program"));
}

static void counters_are_shown(void **state)
{
	NEEDS_COMMAND();
	put();
	MRCACHE(&e, "stat", self());
	assert_status(&e, 0);
	assert_out(&e,
		   "    752     48  94.0%      3      5     14     11   640K "
		   "    2 program\n");
	assert_out(&e, "bypassed: remote 13, memory 1\n");
	assert_string_equal(e.err, "");
	lines_fit(e.out);
	MRCACHE(&e, "stat", "--json", self());
	assert_status(&e, 0);
	assert_out(&e, "\"hits\": 752");
	assert_out(&e, "\"misses\": 48");
	assert_out(&e, "\"hit_rate\": 0.94");
	assert_out(&e, "\"cached_bytes\": 655360");
	assert_out(&e, "\"remote\": 13");
	/* Without a number: at least this one. */
	MRCACHE(&e, "stat");
	assert_status(&e, 0);
	assert_out(&e, " program\n");
	/* It is alive, so its file stays. */
	assert_int_equal(access(path, F_OK), 0);
}

static void large_counters_keep_their_column(void **state)
{
	NEEDS_COMMAND();
	for (int i = 0; i < STATS; i++)
		good.counts[i] = UINT64_MAX / 4;
	put();
	MRCACHE(&e, "stat", self());
	assert_status(&e, 0);
	assert_out(&e, "PINNED");
	MRCACHE(&e, "stat", "--json", self());
	assert_status(&e, 0);
}

static void a_watch_ends_with_ctrl_c(void **state)
{
	static const int signals[] = {SIGINT, SIGTERM};

	NEEDS_COMMAND();
	put();
	for (size_t i = 0; i < 2; i++) {
		assert_true(execute_begin(&e, &(const struct as){0},
					  (const char *const[]){NULL, "stat",
								"--watch=0.1",
								self(), NULL}));
		do { /* the second time with a rate */
			usleep(10000);
			execute_collect(&e);
		} while (!strstr(e.out, "/s") && !kill(e.pid, 0));
		kill(e.pid, signals[i]);
		execute_end(&e);
		assert_status(&e, 0);
		assert_string_equal(e.err, "");
	}
}

static void a_watch_ends_with_the_process(void **state)
{
	NEEDS_COMMAND();
	put();
	assert_true(
		execute_begin(&e, &(const struct as){0},
			      (const char *const[]){NULL, "stat", "--watch=0.1",
						    "--json", self(), NULL}));
	do {
		usleep(10000);
		execute_collect(&e);
	} while (!strstr(e.out, "per_second") && !kill(e.pid, 0));
	unlink(path);
	execute_end(&e);
	assert_status(&e, 0);
	assert_err(&e, "has ended");
}

static void nothing_to_show(void **state)
{
	NEEDS_COMMAND();
	MRCACHE(&e, "stat", self());
	assert_status(&e, 1);
	assert_err(&e, "has no cache");
	MRCACHE(&e, "stat", "2147483647");
	assert_status(&e, 1);
	assert_err(&e, "there is no process 2147483647");
}

static void files_cut_short(void **state)
{
	static const size_t sizes[] = {1, 8, 16, 64, 4096, sizeof(good) - 1};

	NEEDS_COMMAND();
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		put_size(sizes[i]);
		is_refused("too short");
	}
	put_size(0); /* being made */
	is_refused(NULL);
	assert_int_equal(access(path, F_OK), 0);
}

static void files_with_wrong_content(void **state)
{
	NEEDS_COMMAND();
	good.magic++;
	put();
	is_refused("not made by mrcache");
	good.magic = 0; /* being made */
	put();
	is_refused(NULL);
	new_counters(NULL);
	good.size--;
	put();
	is_refused("another version");
	new_counters(NULL);
	good.stats = UINT32_MAX;
	put();
	is_refused("another version");
	new_counters(NULL);
	good.pid++;
	put();
	is_refused("another process");
	memset(&good, 0xff, sizeof(good));
	put();
	is_refused("not made by mrcache");
}

static void names_are_not_trusted(void **state)
{
	NEEDS_COMMAND();
	/* Neither an end nor anything a terminal would obey. */
	memset(good.command, 'x', sizeof(good.command));
	memcpy(good.command, "\033[2J\n\"\\\xff", 8);
	memset(good.monitor, '\a', sizeof(good.monitor));
	put();
	MRCACHE(&e, "stat", self());
	assert_status(&e, 0);
	assert_out(&e, " ?[2J?\"\\?xxxx");
	assert_null(strchr(e.out, '\033'));
	assert_null(strchr(e.out, '\a'));
	MRCACHE(&e, "stat", "--json", self());
	assert_status(&e, 0);
	assert_out(&e, "\"?[2J?\\\"\\\\?xxxx");
}

static void other_kinds_of_files(void **state)
{
	char target[] = "/tmp/mrcache-target.XXXXXX";
	int fd;

	NEEDS_COMMAND();
	fd = mkstemp(target);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, &good, sizeof(good)), sizeof(good));
	close(fd);
	assert_int_equal(symlink(target, path), 0);
	is_refused("a symbolic link");
	assert_int_equal(access(path, F_OK), 0);
	unlink(path);
	unlink(target);
	assert_int_equal(mkfifo(path, 0600), 0);
	is_refused("not a regular file");
	unlink(path);
	assert_int_equal(mkdir(path, 0700), 0);
	is_refused("not a regular file");
	assert_int_equal(rmdir(path), 0);
}

static void files_others_can_write(void **state)
{
	char second[160];

	NEEDS_COMMAND();
	put();
	assert_int_equal(chmod(path, 0666), 0);
	is_refused("others may write");
	assert_int_equal(chmod(path, 0600), 0);
	snprintf(second, sizeof(second), "%s.link", path);
	assert_int_equal(link(path, second), 0);
	is_refused("another name");
	unlink(second);
	MRCACHE(&e, "stat", self());
	assert_status(&e, 0);
}

static void files_of_other_users(void **state)
{
	NEEDS_COMMAND();
	if (geteuid())
		skip();
	put();
	assert_int_equal(chown(path, NOBODY, NOBODY), 0);
	is_refused("another user");
	unlink(path);
	/* One who is not root may not look, and is told so. */
	new_counters(NULL);
	put();
	MRCACHE_AS(&e, &(const struct as){.uid = NOBODY}, "stat", self());
	if (e.status == 98)
		return;
	assert_status(&e, 1);
	assert_err(&e, "belongs to another user");
}

static void dead_processes_are_cleared_away(void **state)
{
	NEEDS_COMMAND();
	good.started--; /* another process had this number */
	put();
	MRCACHE(&e, "stat", self());
	assert_status(&e, 1);
	assert_int_equal(access(path, F_OK), -1);
}

/* It may live in another PID namespace. */
static void what_is_mapped_is_not_cleared_away(void **state)
{
	void *mapping;
	int fd;

	NEEDS_COMMAND();
	good.started--;
	put();
	fd = open(path, O_RDWR | O_CLOEXEC);
	mapping = mmap(NULL, sizeof(good), PROT_READ | PROT_WRITE, MAP_SHARED,
		       fd, 0);
	close(fd);
	assert_true(mapping != MAP_FAILED);
	MRCACHE(&e, "stat", self());
	assert_status(&e, 1);
	assert_int_equal(access(path, F_OK), 0);
	munmap(mapping, sizeof(good));
}

static void names_that_are_nearly_right(void **state)
{
	static const char *const wrong[] = {"mrcache.0",      "mrcache.%d.%d.x",
					    "mrcache.+%d.%d", "mrcache.%d.0%d",
					    "mrcache.%d.-%d", "mrcache.%d %d"};
	char name[160];

	NEEDS_COMMAND();
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		int length =
			snprintf(name, sizeof(name), PUBLISH_DIRECTORY "/");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		snprintf(name + length, sizeof(name) - (size_t)length, wrong[i],
			 (int)geteuid(), (int)getpid());
#pragma GCC diagnostic pop
		put();
		assert_int_equal(rename(path, name), 0);
		MRCACHE(&e, "stat", self());
		unlink(name);
		assert_status(&e, 1);
		assert_err(&e, "has no cache");
	}
}

/* --- the pages -------------------------------------------------------------------- */

/* A file of the source, without the marks of the manual. */
static char *source(const char *name)
{
	static char text[65536];
	char where[3 * PATH_MAX];
	FILE *file;
	size_t n;

	/* build/PRESET is two directories below. */
	snprintf(where, sizeof(where), "%s/%s", build_path("/../.."), name);
	file = fopen(where, "re");
	if (!file)
		return NULL;
	n = fread(text, 1, sizeof(text) - 1, file);
	text[n] = '\0';
	fclose(file);
	return text;
}

static void every_option_is_described(void **state)
{
	static const char *const commands[] = {"run", "doctor", "stat"};
	char option[64], want[80];
	const char *text;

	NEEDS_COMMAND();
	if (!source("docs/man/mrcache.1"))
		skip();
	for (size_t i = 0; i < 3; i++) {
		MRCACHE(&e, commands[i], "--help");
		for (const char *at = e.out; (at = strstr(at, " --")); at++) {
			size_t length =
				strspn(at + 3, "abcdefghijklmnopqrstuvwxyz-");

			snprintf(option, sizeof(option), "%.*s", (int)length,
				 at + 3);
			text = source("tools/mrcache/completion.bash");
			snprintf(want, sizeof(want), "--%s", option);
			if (!strstr(text, want))
				fail_msg("completion lacks %s", want);
			/* Everybody knows these. */
			if (!strcmp(option, "help") ||
			    !strcmp(option, "usage") ||
			    !strcmp(option, "version"))
				continue;
			text = source("docs/man/mrcache.1");
			snprintf(want, sizeof(want), "Fl -%s", option);
			if (!strstr(text, want))
				fail_msg("mrcache(1) lacks --%s", option);
		}
	}
}

static void every_setting_is_described(void **state)
{
	const char *text = source("docs/man/mrcache.7"), *name;
	char want[80];

	(void)state;
	if (!text)
		skip();
	for (size_t i = 0; (name = mrc_config_variable(i)); i++) {
		snprintf(want, sizeof(want), ".It Ev %s\n", name);
		if (!strstr(text, want))
			fail_msg("mrcache(7) lacks %s", name);
	}
	for (int i = 0; i < MRCACHE_BYPASS_REASONS; i++) {
		snprintf(want, sizeof(want), ".It Li %s\n",
			 mrcache_bypass_name((enum mrcache_bypass)i));
		if (!strstr(text, want))
			fail_msg("mrcache(7) lacks %s", want);
	}
}

#define RUN_TEST(f) \
	cmocka_unit_test_setup_teardown(f, with_library, without_library)
#define STAT_TEST(f) \
	cmocka_unit_test_setup_teardown(f, new_counters, no_counters)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(help_and_version),
		RUN_TEST(wrong_usage),
		cmocka_unit_test(nothing_is_lost_silently),
		RUN_TEST(status_and_signals_are_the_programs),
		RUN_TEST(the_process_becomes_the_program),
		RUN_TEST(what_cannot_be_run),
		RUN_TEST(the_environment_it_sets),
		RUN_TEST(what_is_preloaded_stays),
		RUN_TEST(programs_that_cannot_be_helped),
		RUN_TEST(programs_that_are_damaged),
		RUN_TEST(settings_that_make_no_sense),
		RUN_TEST(a_doctor_says_what_to_do),
		RUN_TEST(a_doctor_speaks_json),
		RUN_TEST(a_small_memlock),
		STAT_TEST(counters_are_shown),
		STAT_TEST(large_counters_keep_their_column),
		STAT_TEST(a_watch_ends_with_ctrl_c),
		STAT_TEST(a_watch_ends_with_the_process),
		STAT_TEST(nothing_to_show),
		STAT_TEST(files_cut_short),
		STAT_TEST(files_with_wrong_content),
		STAT_TEST(names_are_not_trusted),
		STAT_TEST(other_kinds_of_files),
		STAT_TEST(files_others_can_write),
		STAT_TEST(files_of_other_users),
		STAT_TEST(dead_processes_are_cleared_away),
		STAT_TEST(what_is_mapped_is_not_cleared_away),
		STAT_TEST(names_that_are_nearly_right),
		cmocka_unit_test(every_option_is_described),
		cmocka_unit_test(every_setting_is_described),
	};

	alarm(150);
	return cmocka_run_group_tests(tests, plain_environment, NULL);
}
