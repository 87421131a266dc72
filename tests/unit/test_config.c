/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Settings: defaults, what each environment variable accepts and refuses, that
 * it has the last word, what is said of mistakes, and names and error texts.
 */
#include "config.h"
#include "share.h"
#include "log.h"
#include "unit.h"

#include <infiniband/verbs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const variables[] = {
	"MRCACHE_LOG",	       "MRCACHE_MONITOR",  "MRCACHE_DEVICE",
	"MRCACHE_MAX_BYTES",   "MRCACHE_MAX_REGS", "MRCACHE_REPINS",
	"MRCACHE_REMOTE",      "MRCACHE_LINGER",   "MRCACHE_CONTAIN",
	"MRCACHE_PAGE_ALIGN",  "MRCACHE_REAPER",   "MRCACHE_FORK_RELEASE",
	"MRCACHE_FINGERPRINT",
};

/* A device that is not there, whatever this machine has. */
#define NO_DEVICE "/dev/null/ummunotify"

static void unset_all(void)
{
	for (size_t i = 0; i < sizeof(variables) / sizeof(*variables); i++)
		unsetenv(variables[i]);
}

static void quiet_attr(struct mrcache_attr *attr)
{
	unset_all();
	fresh(NULL);
	test_attr(attr);
}

/* What the configuration makes of a variable. */
static int with(const char *name, const char *value, struct mrcache_attr *attr)
{
	int ret;

	quiet_attr(attr);
	attr->environment_widens = true;
	setenv(name, value, 1);
	ret = mrc_config(attr);
	unsetenv(name);
	return ret;
}

static void refused(const char *name, const char *value)
{
	struct mrcache_attr attr;

	assert_int_equal(with(name, value, &attr), -EINVAL);
	/* Said which, once. */
	assert_int_equal(log_lines(MRCACHE_LOG_DEBUG), 1);
	assert_int_equal(log_lines(MRCACHE_LOG_ERROR), 1);
	assert_int_equal(log_containing(name), 1);
}

TEST(the_defaults_are_sane)
{
	struct mrcache_attr attr;

	unset_all();
	memset(&attr, 0xa5, sizeof(attr));
	mrcache_attr_init(&attr);
	assert_int_equal(attr.size, sizeof(attr));
	assert_true(attr.max_bytes >= 1 << 20);
	assert_true(attr.max_regs >= 1024);
	assert_true(attr.repins >= 1);
	assert_false(attr.remote);
	assert_int_equal(attr.linger, 0);
	assert_false(attr.contain);
	assert_false(attr.page_align);
	assert_false(attr.reaper);
	assert_false(attr.fingerprint);
	assert_int_equal(attr.log_level, MRCACHE_LOG_WARN);
	assert_null(attr.log);
	assert_int_equal(mrc_config(&attr), 0);
	assert_string_equal(attr.monitor, "auto");
	assert_string_equal(attr.device, "/dev/ummunotify");
}

static void write_to(const char *directory, const char *name, const char *text)
{
	char path[300];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	f = fopen(path, "we");
	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

TEST(the_least_limit_of_all_control_groups_counts)
{
	static const struct {
		const char *membership, *top, *inner;
		uint64_t limit;
	} cases[] = {
		{"0::/a/b\n", "max\n", "1000\n", 1000},
		{"0::/a/b\n", "1000\n", "max\n", 1000},
		{"0::/a/b\n", "1000\n", "2000\n", 1000},
		{"0::/a/b\n", "max\n", "max\n", UINT64_MAX},
		{"9:memory:/a\n0::/a/b\n", "3000\n", "2000\n", 2000},
		{"0::/\n", "5000\n", "1\n", 5000},
		{"0::/elsewhere/c\n", "5000\n", "1\n", 5000},
		{"9:memory:/a/b\n", "1\n", "1\n", UINT64_MAX},
		{"1:name=x0::/a/b\n", "1\n", "1\n", UINT64_MAX},
		{"0::/a/b\n", "", "much\n", UINT64_MAX},
	};
	char root[] = "/tmp/test_config.XXXXXX", membership[64], inner[64],
	     command[128];

	assert_non_null(mkdtemp(root));
	snprintf(membership, sizeof(membership), "%s/membership", root);
	snprintf(inner, sizeof(inner), "%s/a/b", root);
	snprintf(command, sizeof(command), "mkdir -p %s", inner);
	assert_int_equal(system(command), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		write_to(root, "membership", cases[i].membership);
		write_to(root, "memory.max", cases[i].top);
		write_to(inner, "memory.max", cases[i].inner);
		assert_int_equal(mrc_cgroup_limit(membership, root),
				 cases[i].limit);
	}
	snprintf(command, sizeof(command), "rm -r %s", root);
	assert_int_equal(system(command), 0);
	assert_int_equal(mrc_cgroup_limit(membership, root), UINT64_MAX);
}

TEST(ranks_share_what_there_is)
{
	static const struct {
		const char *name, *value;
		unsigned int ranks;
	} cases[] = {
		{"OMPI_COMM_WORLD_LOCAL_SIZE", "128", 128},
		{"MPI_LOCALNRANKS", "4", 4},
		{"MV2_COMM_WORLD_LOCAL_SIZE", "2", 2},
		{"SLURM_STEP_TASKS_PER_NODE", "16(x2),8", 16},
		{"SLURM_STEP_TASKS_PER_NODE", "3,64(x7)", 64},
		{"OMPI_COMM_WORLD_LOCAL_SIZE", "0", 1},
		{"OMPI_COMM_WORLD_LOCAL_SIZE", "", 1},
		{"OMPI_COMM_WORLD_LOCAL_SIZE", "-3", 1},
		{"OMPI_COMM_WORLD_LOCAL_SIZE", "many", 1},
	};
	struct mrc_limits alone, shared;
	struct mrcache_attr attr;

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		unsetenv(cases[i].name);
	mrc_limits(&alone);
	assert_int_equal(alone.ranks, 1);
	assert_true(alone.bytes <= alone.memory / 2);
	assert_true(alone.bytes <= alone.cgroup / 2);
	assert_true(alone.bytes <= alone.memlock);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		setenv(cases[i].name, cases[i].value, 1);
		mrc_limits(&shared);
		assert_int_equal(shared.ranks, cases[i].ranks);
		assert_true(shared.bytes * cases[i].ranks <= alone.memory / 2);
		mrcache_attr_init(&attr);
		assert_int_equal(attr.max_bytes, shared.bytes);
		unsetenv(cases[i].name);
	}
}

TEST(what_may_not_be_locked_is_not_planned_for)
{
	struct rlimit limit = {2 << 20, 2 << 20};
	struct mrc_limits limits;
	pid_t pid = fork();
	int status;

	if (!pid) {
		/* The limit does not bind who has CAP_IPC_LOCK. */
		setrlimit(RLIMIT_MEMLOCK, &limit);
		if (!geteuid() && setuid(65534))
			_exit(77);
		mrc_limits(&limits);
		_exit(limits.bytes != 2 << 20);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(status, 0);
}

TEST(sizes_take_suffixes)
{
	static const struct {
		const char *text;
		uint64_t value;
	} good[] = {
		{"0", 0},
		{"1", 1},
		{"007", 7},
		{"4096", 4096},
		{"1K", 1 << 10},
		{"1k", 1 << 10},
		{"3M", 3 << 20},
		{"3m", 3 << 20},
		{"2G", UINT64_C(2) << 30},
		{"2g", UINT64_C(2) << 30},
		{"5T", UINT64_C(5) << 40},
		{"5t", UINT64_C(5) << 40},
		{"16777215T", UINT64_C(16777215) << 40},
		{"18446744073709551615", UINT64_MAX},
		{"18014398509481983K", UINT64_C(18014398509481983) << 10},
	};
	static const char *const bad[] = {
		"",
		" ",
		"-1",
		"+1",
		" 1",
		"1 ",
		"K",
		"1KB",
		"1Ki",
		"1KK",
		"1.5G",
		"0x10",
		"1e6",
		"ten",
		"1P",
		"18446744073709551616",
		"16777216T",
		"-0",
		"1,000",
		"18014398509481984K",
		"99999999999999999999999",
		"1\n",
		"\xff",
		"1\xff",
	};
	struct mrcache_attr attr;

	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		assert_int_equal(with("MRCACHE_MAX_BYTES", good[i].text, &attr),
				 0);
		assert_int_equal(attr.max_bytes, good[i].value);
		assert_int_equal(with("MRCACHE_MAX_REGS", good[i].text, &attr),
				 0);
		assert_int_equal(attr.max_regs, good[i].value);
		assert_int_equal(log_lines(MRCACHE_LOG_DEBUG), 0);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		refused("MRCACHE_MAX_BYTES", bad[i]);
		refused("MRCACHE_MAX_REGS", bad[i]);
	}
}

TEST(numbers_take_none)
{
	static const struct {
		const char *text;
		unsigned int value;
	} good[] = {{"0", 0}, {"3", 3}, {"4294967295", UINT32_MAX}};
	static const char *const bad[] = {
		"",  "-1", "+3",  "3K", "4294967296", "18446744073709551616",
		"x", "3 ", "1.0",
	};
	struct mrcache_attr attr;

	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		assert_int_equal(with("MRCACHE_REPINS", good[i].text, &attr),
				 0);
		assert_int_equal(attr.repins, good[i].value);
		assert_int_equal(with("MRCACHE_LINGER", good[i].text, &attr),
				 0);
		assert_int_equal(attr.linger, good[i].value);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		refused("MRCACHE_REPINS", bad[i]);
		refused("MRCACHE_LINGER", bad[i]);
	}
}

TEST(flags_are_0_or_1)
{
	static const struct {
		const char *name;
		size_t member;
	} flags[] = {
		{"MRCACHE_REMOTE", offsetof(struct mrcache_attr, remote)},
		{"MRCACHE_CONTAIN", offsetof(struct mrcache_attr, contain)},
		{"MRCACHE_REAPER", offsetof(struct mrcache_attr, reaper)},
	};
	static const char *const bad[] = {"",	  "2",	"-1",  "yes",
					  "true", "no", "on",  "1K",
					  " 1",	  "1 ", "00x", "4294967297"};
	struct mrcache_attr attr;

	for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++) {
		const bool *member =
			(const bool *)((char *)&attr + flags[i].member);

		assert_int_equal(with(flags[i].name, "1", &attr), 0);
		assert_true(*member);
		assert_int_equal(with(flags[i].name, "0", &attr), 0);
		assert_false(*member);
		for (size_t j = 0; j < sizeof(bad) / sizeof(*bad); j++)
			refused(flags[i].name, bad[j]);
	}
	for (size_t j = 0; j < sizeof(bad) / sizeof(*bad); j++)
		refused("MRCACHE_PAGE_ALIGN", bad[j]);
}

TEST(page_align_needs_contain)
{
	struct mrcache_attr attr;

	assert_int_equal(with("MRCACHE_PAGE_ALIGN", "1", &attr), -EINVAL);
	assert_int_equal(log_lines(MRCACHE_LOG_ERROR), 1);
	quiet_attr(&attr);
	attr.environment_widens = true;
	setenv("MRCACHE_CONTAIN", "1", 1);
	setenv("MRCACHE_PAGE_ALIGN", "1", 1);
	assert_int_equal(mrc_config(&attr), 0);
	assert_true(attr.page_align);
	/* The administrator may also turn off what the program asks for. */
	quiet_attr(&attr);
	attr.contain = attr.page_align = true;
	setenv("MRCACHE_CONTAIN", "0", 1);
	assert_int_equal(mrc_config(&attr), 0);
	assert_false(attr.contain);
	assert_false(attr.page_align);
	/* But not ask for both at once. */
	quiet_attr(&attr);
	attr.contain = attr.page_align = true;
	setenv("MRCACHE_CONTAIN", "0", 1);
	setenv("MRCACHE_PAGE_ALIGN", "1", 1);
	assert_int_equal(mrc_config(&attr), -EINVAL);
	assert_int_equal(log_lines(MRCACHE_LOG_ERROR), 1);
	/* What the program itself got wrong is its error. */
	quiet_attr(&attr);
	attr.page_align = true;
	assert_int_equal(mrc_config(&attr), -EINVAL);
	assert_null(mrcache_open(&attr));
	assert_int_equal(errno, EINVAL);
	unset_all();
}

TEST(monitors_have_names)
{
	static const char *const good[] = {"auto", "ummunotify",
					   "ummunotify-2010", "none"};
	static const char *const bad[] = {
		"",	 "Auto",	"ummunot", "ummunotify-2009",
		"none ", "userfaultfd", "0"};
	struct mrcache_attr attr;

	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		assert_int_equal(with("MRCACHE_MONITOR", good[i], &attr), 0);
		assert_string_equal(attr.monitor, good[i]);
		quiet_attr(&attr);
		attr.monitor = good[i];
		assert_int_equal(mrc_config(&attr), 0);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		assert_int_equal(with("MRCACHE_MONITOR", bad[i], &attr),
				 -EINVAL);
		assert_int_equal(log_lines(MRCACHE_LOG_ERROR), 1);
		quiet_attr(&attr);
		attr.monitor = bad[i];
		assert_int_equal(mrc_config(&attr), -EINVAL);
		assert_int_equal(log_lines(MRCACHE_LOG_ERROR), 1);
	}
	refused("MRCACHE_DEVICE", "");
	assert_int_equal(with("MRCACHE_DEVICE", "relative/path", &attr), 0);
	assert_string_equal(attr.device, "relative/path");
}

TEST(log_levels_have_names)
{
	static const char *const good[] = {"quiet", "error", "warn", "info",
					   "debug"};
	static const char *const bad[] = {"",	     "0",   "4",     "Warn",
					  "warning", "all", "debug "};
	struct mrcache_attr attr;

	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		assert_int_equal(with("MRCACHE_LOG", good[i], &attr), 0);
		assert_int_equal(attr.log_level, i);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		refused("MRCACHE_LOG", bad[i]);
	/* It counts for what is said of the others, too. */
	quiet_attr(&attr);
	setenv("MRCACHE_LOG", "quiet", 1);
	setenv("MRCACHE_REPINS", "x", 1);
	assert_int_equal(mrc_config(&attr), -EINVAL);
	assert_int_equal(log_lines(MRCACHE_LOG_DEBUG), 0);
	unset_all();
}

TEST(levels_filter_what_is_said)
{
	struct mrcache_attr attr;

	for (int level = MRCACHE_LOG_QUIET; level <= MRCACHE_LOG_DEBUG;
	     level++) {
		quiet_attr(&attr);
		attr.log_level = (enum mrcache_log_level)level;
		errno = EDOM;
		for (int i = MRCACHE_LOG_ERROR; i <= MRCACHE_LOG_DEBUG; i++)
			mrc_log(&attr, (enum mrcache_log_level)i, "%s %d",
				"line", i);
		assert_int_equal(errno, EDOM);
		assert_int_equal(log_lines(MRCACHE_LOG_DEBUG), level);
		if (level == MRCACHE_LOG_INFO)
			assert_string_equal(log_last(), "line 3");
	}
}

/* ---- opening --------------------------------------------------------------------------- */

static struct mrcache *open_with(const char *monitor, const char *device,
				 struct mrcache_attr *attr)
{
	quiet_attr(attr);
	attr->monitor = monitor;
	attr->device = device;
	errno = 0;
	return mrcache_open(attr);
}

TEST(auto_without_a_device_passes_through)
{
	struct mrcache_attr attr;
	struct mrcache_stats stats;
	struct mrcache *cache;

	for (int i = 0; i < 2; i++) {
		cache = open_with(i ? "auto" : NULL, NO_DEVICE, &attr);
		assert_non_null(cache);
		assert_string_equal(mrcache_monitor(cache), "none");
		assert_int_equal(log_lines(MRCACHE_LOG_DEBUG), 1);
		assert_int_equal(log_lines(MRCACHE_LOG_WARN), 1);
		assert_int_equal(log_lines(MRCACHE_LOG_ERROR), 0);
		assert_int_equal(log_containing(NO_DEVICE), 1);
		assert_int_equal(
			mrcache_get_stats(cache, &stats, sizeof(stats)), 0);
		assert_int_equal(mrcache_close(cache), 0);
	}
}

TEST(a_device_asked_for_by_name_must_be_there)
{
	static const char *const names[] = {"ummunotify", "ummunotify-2010"};
	struct mrcache_attr attr;

	for (size_t i = 0; i < 2; i++) {
		assert_null(open_with(names[i], "/nowhere/ummunotify", &attr));
		assert_int_equal(errno, ENOENT);
		assert_int_equal(log_lines(MRCACHE_LOG_ERROR), 1);
		assert_null(open_with(names[i], NO_DEVICE, &attr));
		assert_int_equal(errno, ENOTDIR);
		/* It opens, but is none. */
		assert_null(open_with(names[i], "/dev/null", &attr));
		assert_int_equal(errno, ENODEV);
		assert_int_equal(log_lines(MRCACHE_LOG_ERROR), 1);
	}
}

TEST(none_opens_nothing_and_says_nothing)
{
	struct mrcache_attr attr;
	struct mrcache *cache;

	cache = open_with("none", NO_DEVICE, &attr);
	assert_non_null(cache);
	assert_string_equal(mrcache_monitor(cache), "none");
	assert_int_equal(log_lines(MRCACHE_LOG_DEBUG), 0);
	assert_int_equal(mrcache_close(cache), 0);
}

TEST(the_environment_has_the_last_word)
{
	struct mrcache_attr attr;
	struct mrcache *cache;

	quiet_attr(&attr);
	attr.monitor = "ummunotify";
	attr.device = NO_DEVICE;
	setenv("MRCACHE_MONITOR", "none", 1);
	cache = mrcache_open(&attr);
	assert_non_null(cache);
	assert_int_equal(mrcache_close(cache), 0);
	/* The caller's structure is its own. */
	assert_string_equal(attr.monitor, "ummunotify");

	setenv("MRCACHE_MONITOR", "auto", 1);
	setenv("MRCACHE_DEVICE", "/nowhere/else", 1);
	cache = mrcache_open(&attr);
	assert_non_null(cache);
	assert_int_equal(log_containing("/nowhere/else"), 1);
	assert_int_equal(mrcache_close(cache), 0);

	unset_all();
}

/* Nonsense costs a line and the cache, not the program's call. */
TEST(nonsense_costs_the_cache_only)
{
	static const char *const wrong[][2] = {
		{"MRCACHE_MAX_REGS", "many"}, {"MRCACHE_MONITOR", "magic"},
		{"MRCACHE_REMOTE", "yes"},    {"MRCACHE_DEVICE", ""},
		{"MRCACHE_LOG", "loud"},
	};
	struct mrcache_attr attr;
	struct mrcache *cache;

	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		quiet_attr(&attr);
		attr.monitor = "ummunotify";
		attr.device = NO_DEVICE;
		setenv(wrong[i][0], wrong[i][1], 1);
		cache = mrcache_open(&attr);
		assert_non_null(cache);
		assert_string_equal(mrcache_monitor(cache), "none");
		assert_int_equal(log_lines(MRCACHE_LOG_DEBUG), 1);
		assert_int_equal(log_containing(wrong[i][1]), 1);
		assert_int_equal(mrcache_close(cache), 0);
	}
	unset_all();
}

/* Without the program's consent the environment takes away and adds nothing. */
TEST(the_environment_only_restricts)
{
	static const struct {
		const char *name, *value;
	} widen[] = {
		{"MRCACHE_REMOTE", "1"},       {"MRCACHE_LINGER", "10"},
		{"MRCACHE_CONTAIN", "1"},      {"MRCACHE_PAGE_ALIGN", "1"},
		{"MRCACHE_MAX_BYTES", "11M"},  {"MRCACHE_MAX_REGS", "101"},
		{"MRCACHE_MONITOR", "auto"},   {"MRCACHE_FINGERPRINT", "1"},
		{"MRCACHE_REAPER", "1"},       {"MRCACHE_FORK_RELEASE", "64K"},
		{"MRCACHE_FORK_RELEASE", "0"},
	};
	struct mrcache_attr attr, before;

	for (size_t i = 0; i < sizeof(widen) / sizeof(*widen); i++) {
		quiet_attr(&attr);
		attr.max_bytes = 10 << 20;
		attr.max_regs = 100;
		attr.monitor = "none";
		attr.device = NO_DEVICE;
		attr.fork_release = UINT64_MAX;
		before = attr;
		setenv(widen[i].name, widen[i].value, 1);
		assert_int_equal(mrc_config(&attr), 0);
		assert_memory_equal(&attr, &before, sizeof(attr));
		assert_int_equal(log_lines(MRCACHE_LOG_WARN), 1);
		assert_int_equal(log_containing(widen[i].name), 1);
		unset_all();
	}
	/* What it agreed to may be taken away, */
	quiet_attr(&attr);
	attr.remote = attr.contain = attr.page_align = true;
	attr.max_bytes = 10 << 20;
	attr.linger = 10;
	attr.reaper = true;
	attr.fork_release = 1 << 20;
	setenv("MRCACHE_MAX_BYTES", "9M", 1);
	setenv("MRCACHE_REAPER", "0", 1);
	setenv("MRCACHE_FORK_RELEASE", "18446744073709551615", 1);
	setenv("MRCACHE_REMOTE", "0", 1);
	setenv("MRCACHE_LINGER", "5", 1);
	setenv("MRCACHE_CONTAIN", "0", 1);
	assert_int_equal(mrc_config(&attr), 0);
	assert_int_equal(attr.max_bytes, 9 << 20);
	assert_false(attr.remote);
	assert_int_equal(attr.linger, 5);
	assert_false(attr.reaper);
	assert_true(attr.fork_release == UINT64_MAX);
	assert_false(attr.contain);
	assert_false(attr.page_align);
	assert_int_equal(log_lines(MRCACHE_LOG_WARN), 0);
	unset_all();
}

/* A time limit is less than no limit; but a thread keeps it. */
TEST(a_time_limit_restricts_who_has_a_reaper)
{
	struct mrcache_attr attr;

	for (int reaper = 0; reaper < 2; reaper++) {
		quiet_attr(&attr);
		attr.remote = true;
		attr.reaper = reaper;
		setenv("MRCACHE_REMOTE", "0", 1);
		setenv("MRCACHE_LINGER", "500", 1);
		assert_int_equal(mrc_config(&attr), 0);
		assert_false(attr.remote);
		assert_int_equal(attr.linger, reaper ? 500 : 0);
		assert_int_equal(log_containing("MRCACHE_LINGER"), !reaper);
		unset_all();
	}
}

TEST(without_attributes_there_are_defaults)
{
	struct mrcache *cache;

	unset_all();
	setenv("MRCACHE_MONITOR", "none", 1);
	cache = mrcache_open(NULL);
	assert_non_null(cache);
	assert_int_equal(mrcache_close(cache), 0);
	setenv("MRCACHE_LOG", "quiet", 1);
	setenv("MRCACHE_REPINS", "-", 1);
	cache = mrcache_open(NULL);
	assert_non_null(cache);
	assert_string_equal(mrcache_monitor(cache), "none");
	assert_int_equal(mrcache_close(cache), 0);
	unset_all();
}

TEST(attributes_that_were_never_initialised_are_refused)
{
	static const size_t sizes[] = {0, 1, 79, 4097, SIZE_MAX};
	struct mrcache_attr attr;

	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		quiet_attr(&attr);
		/* Nothing else of it may be looked at. */
		memset(&attr, 0x5a, sizeof(attr));
		attr.size = sizes[i];
		errno = 0;
		assert_null(mrcache_open(&attr));
		assert_int_equal(errno, EINVAL);
	}
}

TEST(limits_from_the_environment_apply)
{
	struct mrcache_attr attr;
	struct scene s;

	quiet_attr(&attr);
	setenv("MRCACHE_MAX_REGS", "2", 1);
	attr.remote = true;
	assert_int_equal(mrc_config(&attr), 0);
	unset_all();
	begin_with(&s, FAKE_STATES, &attr);
	for (size_t n = 0; n < 6; n++)
		give(&s, reg_range(&s, page(n), PAGE, REMOTE));
	assert_int_equal(stats(&s).cached, 2);
	assert_int_equal(bypasses(&s), 0);
	finish(&s);
}

/* ---- names ------------------------------------------------------------------------------ */

TEST(every_reason_has_a_name)
{
	for (int i = 0; i < MRCACHE_BYPASS_REASONS; i++) {
		const char *name = mrcache_bypass_name((enum mrcache_bypass)i);

		assert_non_null(name);
		assert_true(strlen(name) > 1);
		assert_string_not_equal(name, "unknown");
		for (int j = 0; j < i; j++)
			assert_string_not_equal(
				name,
				mrcache_bypass_name((enum mrcache_bypass)j));
	}
	assert_string_equal(mrcache_bypass_name(MRCACHE_BYPASS_REASONS),
			    "unknown");
	assert_string_equal(mrcache_bypass_name((enum mrcache_bypass) - 1),
			    "unknown");
	assert_string_equal(mrcache_bypass_name((enum mrcache_bypass)1000),
			    "unknown");
}

TEST(every_error_has_words)
{
	for (int error = -200; error <= 200; error++) {
		assert_non_null(mrcache_strerror(error));
		assert_true(strlen(mrcache_strerror(error)) > 3);
	}
	assert_string_equal(mrcache_strerror(EBUSY), mrcache_strerror(-EBUSY));
	assert_string_equal(mrcache_strerror(EDOM), strerror(EDOM));
	assert_non_null(mrcache_strerror(INT32_MAX));
	assert_non_null(mrcache_strerror(-INT32_MAX));
	assert_non_null(mrcache_strerror(INT32_MIN));
}

int main(void)
{
	return run_cases(NULL, NULL);
}
