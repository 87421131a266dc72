/* SPDX-License-Identifier: BSD-2-Clause */
/* mrcache stat: the counters of running processes, which do not notice. */
#include "command.h"
#include "counted.h"
#include "counters.h"
#include "guard/stacks.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define WATCH_SECONDS 2.0

struct options {
	bool all, json;
	double watch; /* seconds; 0: once */
	pid_t *pids;
	size_t n_pids;
};

/* The processes seen at one moment. */
struct sample {
	struct counted *processes;
	size_t n;
	double time;
	unsigned int denied;
};

/* --- taking a sample ------------------------------------------------------------ */

static bool is_wanted(const struct options *options, uid_t uid, pid_t pid)
{
	for (size_t i = 0; i < options->n_pids; i++)
		if (options->pids[i] == pid)
			return true;
	return !options->n_pids && (options->all || uid == geteuid());
}

static int compare(const void *a, const void *b)
{
	const struct counted *x = a, *y = b;

	return (x->pid > y->pid) - (x->pid < y->pid);
}

static void add(struct sample *sample, const struct counted *one)
{
	struct counted *more =
		reallocarray(sample->processes, sample->n + 1, sizeof(*more));

	if (!more)
		return;
	sample->processes = more;
	more[sample->n++] = *one;
}

static void take(struct sample *sample, const struct options *options)
{
	int fd = counted_open();
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;
	struct counted one;
	struct timespec now;
	const char *why;
	uid_t uid;
	pid_t pid;

	*sample = (struct sample){0};
	clock_gettime(CLOCK_MONOTONIC, &now);
	sample->time = (double)now.tv_sec + (double)now.tv_nsec / 1e9;
	while (directory && (entry = readdir(directory))) {
		if (counted_name(entry->d_name, &uid, &pid) != COUNTED ||
		    !is_wanted(options, uid, pid))
			continue;
		switch (counted_read(fd, entry->d_name, &one, &why)) {
		case COUNTED:
			add(sample, &one);
			break;
		case COUNTED_DENIED:
			sample->denied++;
			break;
		case COUNTED_BAD:
			if (!options->watch)
				complain("/dev/shm/%s is passed over: %s",
					 entry->d_name, why);
			break;
		default:
			break;
		}
	}
	if (directory)
		closedir(directory);
	else if (fd >= 0)
		close(fd);
	if (sample->n)
		qsort(sample->processes, sample->n, sizeof(*sample->processes),
		      compare);
}

static const struct counted *find(const struct sample *sample,
				  const struct counted *process)
{
	for (size_t i = 0; sample && i < sample->n; i++)
		if (sample->processes[i].pid == process->pid &&
		    sample->processes[i].started == process->started)
			return &sample->processes[i];
	return NULL;
}

/* What happened since; what is now stays. */
static struct mrcache_stats since(const struct mrcache_stats *now,
				  const struct mrcache_stats *before)
{
	struct mrcache_stats d = *now;

#define SUBTRACT(name, member) d.member -= before->member;
#define KEEP(name, member)
	MRC_STAT_LIST(SUBTRACT, KEEP)
#undef SUBTRACT
#undef KEEP
	for (int i = 0; i < MRCACHE_BYPASS_REASONS; i++)
		d.bypass[i] -= before->bypass[i];
	return d;
}

/* --- text ------------------------------------------------------------------------ */

/* At most six characters. */
static void print_count(double n)
{
	static const char suffixes[] = "kMGTPE";
	unsigned int i = 0;

	if (n < 999999.5) {
		printf(" %6.0f", n);
		return;
	}
	for (n /= 1000; n >= 9999.5 && suffixes[i + 1]; i++)
		n /= 1000;
	printf(" %5.0f%c", n, suffixes[i]);
}

static void print_bytes(uint64_t bytes)
{
	static const char suffixes[] = " KMGTPE";
	double n = (double)bytes;
	unsigned int i = 0;

	for (; n >= 9999.5 && suffixes[i + 1]; i++)
		n /= 1024;
	printf(" %5.0f%c", n, suffixes[i]);
}

static void print_rate(const struct mrcache_stats *stats)
{
	double rate = counted_hit_rate(stats);

	if (rate < 0)
		printf(" %6s", "-");
	else
		/* Rounded down: 100 % means every one. */
		printf(" %5.1f%%", (int)(rate * 1000) / 10.0);
}

static void print_counts(const struct mrcache_stats *stats, double seconds)
{
	print_count((double)stats->hits / seconds);
	print_count((double)stats->misses / seconds);
	print_rate(stats);
	print_count((double)stats->evictions / seconds);
	print_count((double)stats->invalidations / seconds);
	print_count((double)counted_bypasses(stats) / seconds);
}

static int width(void)
{
	struct winsize size;

	if (!isatty(STDOUT_FILENO))
		return 0;
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) || size.ws_col < 80)
		return 80;
	return size.ws_col;
}

static void print_command(const struct counted *process)
{
	int columns = width();
	const int before = 70;

	if (columns)
		printf(" %.*s\n", columns - before - 1, process->command);
	else
		printf(" %s\n", process->command);
}

static void print_stacks(const char *what, unsigned int bits)
{
	const char *separator = what;

	if (!bits)
		return;
	printf("%8s", "");
	for (unsigned int i = 0; i < UNGUARDED_BITS; i++) {
		if (!(bits & 1u << i))
			continue;
		printf("%s%s", separator, unguarded_name(i));
		separator = ", ";
	}
	putchar('\n');
}

/* What a guard did, and where there is none. */
static void print_guards(const struct counted *process)
{
	const struct mrcache_stats *stats = &process->stats;

	if (stats->guarded || stats->guard_checked) {
		printf("%8sguarded: %" PRIu64 ", checked %" PRIu64
		       ", refused %" PRIu64 ", told %" PRIu64,
		       "", stats->guarded, stats->guard_checked,
		       stats->guard_refused, stats->guard_told);
		if (stats->guard_unwatched)
			printf(", not watched %" PRIu64,
			       stats->guard_unwatched);
		putchar('\n');
	}
	print_stacks("turned off: ", process->turned_off);
	print_stacks("not guarded: ", process->unguarded);
}

/* Below a process, what is not always worth a column. */
static void print_details(const struct counted *process)
{
	const struct mrcache_stats *stats = &process->stats;
	const char *separator = "bypassed: ";

	if (strcmp(process->monitor, "ummunotify"))
		printf("%8smonitor: %s\n", "", process->monitor);
	print_guards(process);
	if (!counted_bypasses(stats) && !stats->reg_errors)
		return;
	printf("%8s", "");
	for (int i = 0; i < MRCACHE_BYPASS_REASONS; i++) {
		if (!stats->bypass[i])
			continue;
		printf("%s%s %" PRIu64, separator,
		       mrcache_bypass_name((enum mrcache_bypass)i),
		       stats->bypass[i]);
		separator = ", ";
	}
	if (stats->reg_errors)
		printf("%sfailed: %" PRIu64,
		       counted_bypasses(stats) ? "; " : "", stats->reg_errors);
	putchar('\n');
}

static void print_table(const struct sample *now, const struct sample *before)
{
	puts("    PID   HITS MISSES   RATE  EVICT  INVAL BYPASS CACHED PINNED "
	     "STALE COMMAND");
	for (size_t i = 0; i < now->n; i++) {
		const struct counted *process = &now->processes[i];
		const struct counted *old = find(before, process);
		struct mrcache_stats between;

		printf("%7d", process->pid);
		print_counts(&process->stats, 1);
		print_count((double)process->stats.cached);
		print_bytes(process->stats.cached_bytes);
		printf(" %5" PRIu64, process->stats.stale_held);
		print_command(process);
		if (before && old && now->time > before->time) {
			between = since(&process->stats, &old->stats);
			printf("%7s", "/s");
			print_counts(&between, now->time - before->time);
			putchar('\n');
		}
		print_details(process);
	}
}

/* --- JSON ------------------------------------------------------------------------ */

static json_t *number(uint64_t n)
{
	return json_integer((json_int_t)n);
}

static json_t *stacks_json(unsigned int bits)
{
	json_t *names = json_array();

	for (unsigned int i = 0; i < UNGUARDED_BITS; i++)
		if (bits & 1u << i)
			json_array_append_new(names,
					      json_string(unguarded_name(i)));
	return names;
}

static json_t *process_json(const struct counted *process,
			    const struct counted *old, double seconds)
{
	const struct mrcache_stats *stats = &process->stats;
	const struct {
		const char *name;
		uint64_t value, before;
		bool is_count; /* and not what is now */
	} members[] = {
#define COUNT(stat, member) \
	{#member, stats->member, old ? old->stats.member : 0, true},
#define NOW(stat, member) {#member, stats->member, 0, false},
		MRC_STAT_LIST(COUNT, NOW)
#undef COUNT
#undef NOW
	};
	double rate = counted_hit_rate(stats);
	json_t *object = json_object(), *bypass = json_object(),
	       *speed = json_object();

	json_object_set_new(object, "pid", json_integer(process->pid));
	json_object_set_new(object, "uid", json_integer(process->uid));
	json_object_set_new(object, "command", json_string(process->command));
	json_object_set_new(object, "monitor", json_string(process->monitor));
	json_object_set_new(object, "hit_rate",
			    rate < 0 ? json_null() : json_real(rate));
	for (size_t i = 0; i < sizeof(members) / sizeof(*members); i++) {
		json_object_set_new(object, members[i].name,
				    number(members[i].value));
		if (members[i].is_count && old && seconds > 0)
			json_object_set_new(
				speed, members[i].name,
				json_real((double)(members[i].value -
						   members[i].before) /
					  seconds));
	}
	for (int i = 0; i < MRCACHE_BYPASS_REASONS; i++)
		json_object_set_new(bypass,
				    mrcache_bypass_name((enum mrcache_bypass)i),
				    number(stats->bypass[i]));
	json_object_set_new(object, "bypass", bypass);
	json_object_set_new(object, "turned_off",
			    stacks_json(process->turned_off));
	json_object_set_new(object, "unguarded",
			    stacks_json(process->unguarded));
	if (old && seconds > 0)
		json_object_set(object, "per_second", speed);
	json_decref(speed);
	return object;
}

static void print_json(const struct sample *now, const struct sample *before,
		       bool watch)
{
	json_t *processes = json_array();
	json_t *all = json_pack("{s:o}", "processes", processes);

	for (size_t i = 0; i < now->n; i++)
		json_array_append_new(
			processes,
			process_json(&now->processes[i],
				     find(before, &now->processes[i]),
				     before ? now->time - before->time : 0));
	/* Watching: a line each time. */
	json_dumpf(all, stdout,
		   JSON_REAL_PRECISION(6) |
			   (watch ? JSON_COMPACT : JSON_INDENT(2)));
	putchar('\n');
	json_decref(all);
}

/* --- the command ----------------------------------------------------------------- */

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *options = state->input;
	pid_t *more;
	char *end;
	long pid;

	switch (key) {
	case 'a':
		options->all = true;
		return 0;
	case 'j':
		options->json = true;
		return 0;
	case 'w':
		options->watch = WATCH_SECONDS;
		if (!arg)
			return 0;
		options->watch = strtod(arg, &end);
		if (end == arg || *end || !(options->watch >= 0.1) ||
		    options->watch > 86400)
			argp_error(state,
				   "--watch=%s: not a number of seconds from "
				   "0.1 to 86400",
				   arg);
		return 0;
	case 'h':
		argp_state_help(state, stdout, ARGP_HELP_STD_HELP);
		return 0;
	case ARGP_KEY_ARG:
		errno = 0;
		pid = strtol(arg, &end, 10);
		if (end == arg || *end || errno || pid <= 0 || pid > INT32_MAX)
			argp_error(state, "'%s' is not a process ID", arg);
		more = reallocarray(options->pids, options->n_pids + 1,
				    sizeof(*more));
		if (!more)
			return ENOMEM;
		options->pids = more;
		more[options->n_pids++] = (pid_t)pid;
		return 0;
	case ARGP_KEY_END:
		if (options->all && options->n_pids)
			argp_error(state, "--all and process IDs exclude each "
					  "other");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* Says which of the processes asked for are not there; how many. */
static unsigned int complain_of_missing(const struct options *options,
					const struct sample *sample)
{
	unsigned int missing = 0;
	char path[64];

	for (size_t i = 0; i < options->n_pids; i++) {
		bool found = false;

		for (size_t j = 0; j < sample->n; j++)
			found |= sample->processes[j].pid == options->pids[i];
		if (found)
			continue;
		missing++;
		snprintf(path, sizeof(path), "/proc/%d", options->pids[i]);
		if (access(path, F_OK))
			complain("there is no process %d", options->pids[i]);
		else if (sample->denied)
			complain("process %d belongs to another user: only "
				 "root may look",
				 options->pids[i]);
		else
			complain("process %d has no cache: it was not "
				 "started with mrcache run and does not use "
				 "libmrcache, or has not registered memory yet",
				 options->pids[i]);
	}
	return missing;
}

static unsigned int complain_of_none(const struct options *options,
				     const struct sample *sample)
{
	if (options->n_pids)
		return complain_of_missing(options, sample);
	if (sample->denied)
		complain("%u process%s of other users not shown: only root "
			 "may look",
			 sample->denied, sample->denied > 1 ? "es" : "");
	else if (!sample->n)
		complain("no process%s has a cache: a program gets one when "
			 "it is started with mrcache run and has registered "
			 "memory, or when it uses libmrcache itself",
			 options->all ? "" : " of this user");
	return !sample->n;
}

static int once(const struct options *options)
{
	struct sample sample;
	unsigned int missing;

	take(&sample, options);
	if (options->json)
		print_json(&sample, NULL, false);
	else if (sample.n)
		print_table(&sample, NULL);
	missing = complain_of_none(options, &sample);
	free(sample.processes);
	return finish_output(missing ? STATUS_NO : 0);
}

/* Whether a signal asked to end. */
static bool wait_for_end(const sigset_t *ends, double seconds)
{
	const struct timespec time = {
		.tv_sec = (time_t)seconds,
		.tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9),
	};
	int ret;

	do
		ret = sigtimedwait(ends, NULL, &time);
	while (ret < 0 && errno == EINTR);
	return ret > 0;
}

static int watch(const struct options *options)
{
	struct sample now, before = {0};
	bool is_terminal = isatty(STDOUT_FILENO), first = true, end = false;
	int status = 0;
	sigset_t ends;

	sigemptyset(&ends);
	sigaddset(&ends, SIGINT);
	sigaddset(&ends, SIGTERM);
	sigprocmask(SIG_BLOCK, &ends, NULL);
	while (!end) {
		take(&now, options);
		if (options->json) {
			print_json(&now, first ? NULL : &before, true);
		} else {
			if (is_terminal)
				fputs("\033[H\033[2J", stdout);
			else if (!first)
				putchar('\n');
			if (now.n)
				print_table(&now, first ? NULL : &before);
			else if (!options->n_pids)
				puts("waiting for a process with a cache");
		}
		status = finish_output(0);
		if (options->n_pids && !now.n && !status) {
			/* There is nothing more to come. */
			end = true;
			if (first)
				status = complain_of_missing(options, &now)
						 ? STATUS_NO
						 : 0;
			else
				complain("%s ended",
					 options->n_pids > 1
						 ? "all have"
						 : "the process has");
		}
		free(before.processes);
		before = now;
		first = false;
		end = end || status || wait_for_end(&ends, options->watch);
	}
	free(before.processes);
	return status;
}

int stat_main(int argc, char **argv)
{
	static const struct argp_option arguments[] = {
		{"all", 'a', NULL, 0,
		 "All users' processes, not only one's own", 0},
		{"watch", 'w', "SECONDS", OPTION_ARG_OPTIONAL,
		 "Again and again, with rates, until Ctrl-C (default: every 2 "
		 "seconds)",
		 0},
		{"json", 'j', NULL, 0, "Print JSON", 0},
		{NULL, 'h', NULL, OPTION_HIDDEN, NULL, 0},
		{0},
	};
	static const struct argp argp = {
		.options = arguments,
		.parser = parse,
		.args_doc = "[PID...]",
		.doc = "Shows the counters of running processes that were "
		       "started with mrcache run or use libmrcache: all of "
		       "one's own, or those with the given IDs. It does not "
		       "disturb them.\v"
		       "RATE is the share of hits. CACHED registrations are "
		       "ready to be used again and have PINNED bytes of memory; "
		       "STALE ones are waiting to be given back.\n\n"
		       "Exit status: 0 if all was shown, 1 if there is no such "
		       "process, 2 wrong usage.",
	};
	struct options options = {0};
	int status;

	parse_arguments(&argp, argc, argv, STATUS_USAGE, &options);
	status = options.watch ? watch(&options) : once(&options);
	free(options.pids);
	return status;
}
