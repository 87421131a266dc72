/* SPDX-License-Identifier: BSD-2-Clause */
/* mrcache doctor: what on this machine is in the way of caching. */
#include "command.h"
#include "device.h"
#include "installed.h"
#include "job.h"
#include "plan.h"
#include "report.h"
#include "settings.h"
#include "share.h"
#include "shim.h"

#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

/* What an MPI library registers before it has sent anything. */
#define FEW_BYTES (UINT64_C(64) << 20)

/* --- the driver ----------------------------------------------------------------- */

static void check_kernel(void)
{
	struct utsname kernel;
	int major = 0, minor = 0;

	uname(&kernel);
	sscanf(kernel.release, "%d.%d", &major, &minor);
	if (major < 5 || (major == 5 && minor < 10))
		report(FAIL, "kernel", "the driver needs Linux 5.10 or later",
		       "Linux %s", kernel.release);
	else
		report(OK, "kernel", NULL, "Linux %s", kernel.release);
}

static bool read_number(const char *path, uint64_t *number)
{
	FILE *file = fopen(path, "re");
	bool done;

	if (!file)
		return false;
	done = fscanf(file, "%" SCNu64, number) == 1;
	fclose(file);
	return done;
}

static void check_module(const struct device *device)
{
	static const char parameters[] = "/sys/module/ummunotify/parameters";
	uint64_t one, user, all;
	char path[128];

	if (device->state == DEVICE_NOT_LOADED) {
		report(FAIL, "module", device->advice, "%s", device->found);
		return;
	}
	if (!device->module_loaded) {
		/* Not seen here, say in a container, or another driver. */
		if (device->state == DEVICE_GOOD || device->state == DEVICE_OLD)
			report(OK, "module", NULL,
			       "not in /sys here, but the device works");
		return;
	}
	snprintf(path, sizeof(path), "%s/max_watches", parameters);
	if (!read_number(path, &one))
		one = 0;
	snprintf(path, sizeof(path), "%s/max_watches_total", parameters);
	if (!read_number(path, &all))
		all = 0;
	snprintf(path, sizeof(path), "%s/max_watches_user", parameters);
	if (!read_number(path, &user))
		user = 0;
	if (one && user && all)
		report(OK, "module", NULL,
		       "ummunotify is loaded; %" PRIu64
		       " watches for each open file, %" PRIu64
		       " for each user, %" PRIu64 " in all",
		       one, user, all);
	else
		report(OK, "module", NULL, "ummunotify is loaded");
}

/* Root may open it whatever its mode. */
static void check_mode(const struct device *device)
{
	char advice[256];

	if (device->node.st_mode & S_IROTH)
		return;
	snprintf(advice, sizeof(advice), "chmod 0666 %s; for good: %s",
		 device->path,
		 device_has_udev_rule()
			 ? "find what overrides 60-ummunotify.rules in "
			   "/etc/udev/rules.d"
			 : "install kernel/60-ummunotify.rules in "
			   "/etc/udev/rules.d");
	report(WARN, "device", advice,
	       "other users have no permission to open %s (mode %04o)",
	       device->path, device->node.st_mode & 07777);
}

/* Whether guards can stand on it. */
static bool check_device(const struct mrcache_attr *attr)
{
	struct device device;

	device_probe(&device, attr->device);
	check_module(&device);
	switch (device.state) {
	case DEVICE_GOOD:
		report(OK, "device", NULL, "%s can be opened", device.path);
		check_mode(&device);
		report(OK, "features", NULL, "filter%s%s",
		       device.query.features & UMMUNOTIFY_FEATURE_KIND
			       ? ", kinds"
			       : "",
		       device.query.state_bytes ? ", state words" : "");
		break;
	case DEVICE_OLD:
		report(OK, "device", NULL, "%s can be opened", device.path);
		check_mode(&device);
		report(WARN, "features", device.advice, "%s", device.found);
		break;
	case DEVICE_NOT_LOADED:
		break; /* said */
	default:
		report(FAIL, "device", device.advice, "%s", device.found);
		break;
	}
	return device.state == DEVICE_GOOD &&
	       (!strcmp(attr->monitor, "auto") ||
		!strcmp(attr->monitor, "ummunotify"));
}

/* --- RDMA ------------------------------------------------------------------------ */

static void check_rdma_device(struct ibv_device *rdma)
{
	const char *name = ibv_get_device_name(rdma);
	struct ibv_device_attr attr;
	struct ibv_port_attr port;
	struct ibv_context *context;
	unsigned int active = 0;

	errno = 0;
	context = ibv_open_device(rdma);
	if (!context) {
		report(FAIL, "rdma",
		       errno == EACCES || errno == EPERM
			       ? "as root: chmod 0666 /dev/infiniband/uverbs*, "
				 "or install the udev rules of rdma-core"
			       : "load ib_uverbs as root; in a container, "
				 "pass in --device /dev/infiniband",
		       "%s cannot be opened: %s", name,
		       errno ? strerror(errno) : "no reason given");
		return;
	}
	if (ibv_query_device(context, &attr))
		attr.phys_port_cnt = 1;
	for (uint8_t i = 1; i && i <= attr.phys_port_cnt; i++)
		active += !ibv_query_port(context, i, &port) &&
			  port.state == IBV_PORT_ACTIVE;
	ibv_close_device(context);
	if (active)
		report(OK, "rdma", NULL, "%s", name);
	else
		report(WARN, "rdma",
		       "check the cable, or its network device "
		       "(ip link)",
		       "%s has no active port", name);
}

static void check_rdma(void)
{
	struct ibv_device **devices;
	int count = 0;

	devices = ibv_get_device_list(&count);
	for (int i = 0; devices && i < count; i++)
		if (i < 8) /* and so on */
			check_rdma_device(devices[i]);
	if (devices)
		ibv_free_device_list(devices);
	if (count > 0)
		return;
	if (rdma_devices())
		report(FAIL, "rdma",
		       "install ibverbs-providers, load ib_uverbs",
		       "the kernel has an RDMA device, libibverbs has none");
	else
		report(FAIL, "rdma",
		       "load the driver of your adapter; without one, as root: "
		       "modprobe rdma_rxe && rdma link add rxe0 type rxe "
		       "netdev eth0",
		       "there is no RDMA device");
}

static const char *size_name(char *text, size_t size, uint64_t bytes)
{
	static const char *const units[] = {"bytes", "KiB", "MiB", "GiB",
					    "TiB"};
	unsigned int unit = 0;

	if (bytes == RLIM_INFINITY) {
		snprintf(text, size, "unlimited");
		return text;
	}
	while (unit + 1 < sizeof(units) / sizeof(*units) &&
	       (bytes >= 10240 || (bytes && bytes % 1024 == 0))) {
		bytes >>= 10;
		unit++;
	}
	snprintf(text, size, "%" PRIu64 " %s", bytes, units[unit]);
	return text;
}

/* What the cache would take if nothing limited locked memory. */
static uint64_t share_of(const struct mrc_limits *limits)
{
	uint64_t memory = limits->memory < limits->cgroup ? limits->memory
							  : limits->cgroup;

	return memory / 2 / limits->ranks;
}

/* Where the cache's own limit comes from. */
static void check_limit(const struct mrcache_attr *attr,
			const struct mrc_limits *limits)
{
	char most[32], machine[32], group[64] = "", name[32];

	size_name(most, sizeof(most), attr->max_bytes);
	if (attr->max_bytes != limits->bytes) {
		report(OK, "limit", NULL, "%s, by MRCACHE_MAX_BYTES", most);
		return;
	}
	size_name(machine, sizeof(machine), limits->memory);
	if (limits->cgroup < limits->memory) {
		size_name(name, sizeof(name), limits->cgroup);
		snprintf(group, sizeof(group), ", of which its group has %s",
			 name);
	}
	report(OK, "limit", NULL,
	       "%s for each process: memory %s%s, %u rank%s of a job here%s",
	       most, machine, group, limits->ranks,
	       limits->ranks == 1 ? "" : "s",
	       limits->bytes == limits->memlock ? ", no more may be locked"
						: "");
}

static void check_memlock(const struct mrcache_attr *attr,
			  const struct mrc_limits *limits)
{
	static const char for_good[] =
		"for good, as root: \"* - memlock unlimited\" in "
		"/etc/security/limits.d/rdma.conf and log in again; for "
		"services LimitMEMLOCK=infinity";
	char advice[512] = "", soft[32], hard[32];
	struct rlimit limit;

	getrlimit(RLIMIT_MEMLOCK, &limit);
	size_name(soft, sizeof(soft), limit.rlim_cur);
	size_name(hard, sizeof(hard), limit.rlim_max);
	if (limit.rlim_cur == RLIM_INFINITY) {
		report(OK, "memlock", NULL, "unlimited");
		return;
	}
	/* CAP_IPC_LOCK lifts the limit. */
	if (limits->memlock == UINT64_MAX) {
		report(OK, "memlock", NULL,
		       "%s, but this process is exempt (CAP_IPC_LOCK)", soft);
		return;
	}
	if (limit.rlim_max > limit.rlim_cur)
		strcpy(advice, "now: ulimit -l $(ulimit -Hl); ");
	strncat(advice, for_good, sizeof(advice) - strlen(advice) - 1);
	if (limit.rlim_cur < FEW_BYTES)
		report(FAIL, "memlock", advice,
		       "only %s may be registered (hard limit %s): "
		       "registering more fails with ENOMEM",
		       soft, hard);
	else if (limit.rlim_cur < attr->max_bytes ||
		 limit.rlim_cur < share_of(limits))
		report(WARN, "memlock", advice,
		       "%s may be registered (hard limit %s), which is less "
		       "than the cache would take: it will evict often",
		       soft, hard);
	else
		report(OK, "memlock", NULL, "%s", soft);
}

/* After check_rdma(), which initialises libibverbs. */
static void check_fork(void)
{
	const char *set = getenv("RDMAV_FORK_SAFE") ? "RDMAV_FORK_SAFE"
			  : getenv("IBV_FORK_SAFE") ? "IBV_FORK_SAFE"
						    : NULL;

	switch (ibv_is_fork_initialized()) {
	case IBV_FORK_UNNEEDED:
		report(OK, "fork", NULL,
		       "the kernel copies pinned pages on fork");
		break;
	case IBV_FORK_ENABLED:
		report(FAIL, "fork",
		       "unset it, or use a kernel that copies pinned pages "
		       "on fork (5.12 and later, with RDMA loaded)",
		       "%s is set and this kernel needs it: nothing is cached",
		       set ? set : "fork support");
		break;
	default:
		if (set)
			report(WARN, "fork", "unset it",
			       "%s may make programs cache nothing", set);
		else
			report(OK, "fork", NULL, "fork support is off");
	}
}

/* --- mrcache itself -------------------------------------------------------------- */

/* Whether programs can load it. */
static bool check_shim(void)
{
	char path[2 * PATH_MAX];
	int ret = shim_find(path, sizeof(path));
	void *handle;
	char *enable;

	if (ret) {
		report(FAIL, "preload",
		       "install mrcache, or let MRCACHE_PRELOAD say where "
		       "libmrcache-preload.so is",
		       "%s: %s", path, strerror(-ret));
		return false;
	}
	/* Here it is only to be loaded, and must not turn anything off. */
	enable = getenv("MRCACHE_ENABLE");
	enable = enable ? strdup(enable) : NULL;
	setenv("MRCACHE_ENABLE", "0", 1);
	handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!handle)
		report(FAIL, "preload", "install it anew", "%s", dlerror());
	else
		/* Nor look at us, who call libibverbs around it. */
		dlclose(handle);
	if (enable)
		setenv("MRCACHE_ENABLE", enable, 1);
	else
		unsetenv("MRCACHE_ENABLE");
	free(enable);
	if (!handle)
		return false;
	if (strpbrk(path, ": ")) {
		report(FAIL, "preload", "install it elsewhere",
		       "LD_PRELOAD cannot name a file with a space or colon "
		       "in its path: %s",
		       path);
		return false;
	}
	report(OK, "preload", NULL, "%s", path);
	return true;
}

struct wrong {
	unsigned int all, fatal;
};

static void wrong_setting(void *arg, const char *name, const char *why,
			  bool fatal)
{
	struct wrong *wrong = arg;
	char advice[128] = "correct it";

	if (name)
		snprintf(advice, sizeof(advice),
			 "unset %s or correct it; see mrcache(7)", name);
	wrong->all++;
	wrong->fatal += fatal;
	report(fatal ? FAIL : WARN, "settings", advice, "%s%s", why,
	       fatal ? ": nothing would be cached" : "");
}

static bool is_disabled(void)
{
	const char *enable = getenv("MRCACHE_ENABLE");

	return enable && !strcmp(enable, "0");
}

/* Whether something would be cached with these. */
static bool check_settings(struct mrcache_attr *attr)
{
	struct wrong wrong = {0};
	unsigned int set = 0;

	settings_check(attr, wrong_setting, &wrong);
	for (char **entry = environ; *entry; entry++)
		set += !strncmp(*entry, "MRCACHE_", strlen("MRCACHE_"));
	if (is_disabled())
		report(WARN, "settings", "unset MRCACHE_ENABLE",
		       "MRCACHE_ENABLE=0: nothing is cached"),
			wrong.all++, wrong.fatal++;
	if (!attr->max_bytes || !attr->max_regs)
		report(WARN, "settings", "unset it",
		       "MRCACHE_MAX_%s=0: nothing is cached",
		       attr->max_bytes ? "REGS" : "BYTES"),
			wrong.all++;
	if (!strcmp(attr->monitor, "none"))
		report(WARN, "settings", "unset MRCACHE_MONITOR",
		       "MRCACHE_MONITOR=none: nothing is cached"),
			wrong.all++;
	if (attr->contain)
		report(WARN, "settings", "unset MRCACHE_CONTAIN",
		       "MRCACHE_CONTAIN has no effect under mrcache run"),
			wrong.all++;
	if (wrong.all)
		return !wrong.fatal;
	if (set)
		report(OK, "settings", NULL, "%u MRCACHE_ variable%s set", set,
		       set > 1 ? "s" : "");
	else
		report(OK, "settings", NULL,
		       "no MRCACHE_ variable is set: defaults");
	return true;
}

static void check_counters(void)
{
	if (access("/dev/shm", W_OK | X_OK))
		report(WARN, "counters", "mount a tmpfs there, mode 1777",
		       "/dev/shm: %s: mrcache stat will show nothing",
		       strerror(errno));
	else
		report(OK, "counters", NULL, "/dev/shm can be written");
}

/* The versions that the guards were run with; see docs/guards.md. */
static const struct {
	unsigned int first[2], last[2];
} known_versions[GUARDED_STACKS] = {
	[STACK_UCX] = {{1, 13}, {1, 18}},
	[STACK_FABRIC] = {{1, 17}, {2, 1}},
};

static bool is_before(const unsigned int *a, const unsigned int *b)
{
	return a[0] < b[0] || (a[0] == b[0] && a[1] < b[1]);
}

static bool is_known(unsigned int stack, const struct version *version)
{
	const unsigned int is[] = {version->major, version->minor};

	return !is_before(is, known_versions[stack].first) &&
	       !is_before(known_versions[stack].last, is);
}

static void report_guarded(unsigned int i, const struct version *version,
			   const char *name)
{
	if (!*version->text)
		report(WARN, "stacks", "see ldd of a program that uses it",
		       "%s would be guarded, but cannot be asked for its "
		       "version",
		       name);
	else if (is_known(i, version))
		report(OK, "stacks", NULL, "%s: its cache would be guarded",
		       name);
	else
		report(WARN, "stacks",
		       "compare results with mrcache run --stack-caches=off",
		       "%s: its cache would be guarded, but the guard was "
		       "only run with %u.%u to %u.%u",
		       name, known_versions[i].first[0],
		       known_versions[i].first[1], known_versions[i].last[0],
		       known_versions[i].last[1]);
}

/* What `mrcache run` would do about each that is installed. */
static void check_stacks(const struct plan *plan)
{
	char name[128], advice[160];
	struct version version;

	for (unsigned int i = 0; i < STACKS; i++) {
		const struct stack *stack = &known_stacks[i];
		const struct stack_variable *by = plan->stacks[i].by;

		if (plan->stacks[i].state == STACK_NOTHING ||
		    (!by && !installed(stack)))
			continue;
		version = (struct version){0};
		if (plan->stacks[i].state == STACK_GUARDED)
			installed_version((enum stack_id)i, &version);
		snprintf(name, sizeof(name), "%s%s%s", stack->name,
			 *version.text ? " " : "", version.text);
		switch (plan->stacks[i].state) {
		case STACK_GUARDED:
			report_guarded(i, &version, name);
			break;
		case STACK_OFF:
			report(OK, "stacks", NULL,
			       "%s: its cache %s off (%s=%s)", name,
			       by ? "is" : "would be",
			       by ? by->name : stack->variables[0].name,
			       by ? getenv(by->name) : stack->variables[0].off);
			break;
		default:
			snprintf(advice, sizeof(advice), "unset %s",
				 by		 ? by->name
				 : is_disabled() ? "MRCACHE_ENABLE"
						 : "--stack-caches=keep");
			report(WARN, "stacks", advice,
			       "%s: its cache stays on, without a guard, and "
			       "may use stale memory%s%s%s%s%s",
			       name, by ? " (" : "", by ? by->name : "",
			       by ? "=" : "", by ? getenv(by->name) : "",
			       by ? ")" : "");
			break;
		}
	}
}

/* --- the job as it would run ------------------------------------------------------ */

/* Whether the shim and the variables reach what is run. */
static bool check_program(const struct job *job)
{
	static const char *const deaf[] = {
		[PROGRAM_SETUID] = "is set-uid or set-gid",
		[PROGRAM_CAPABILITIES] = "has file capabilities",
		[PROGRAM_STATIC] = "is statically linked",
		[PROGRAM_FOREIGN] = "is for another architecture",
	};
	const struct program *program = &job->program;
	const char *name = base_name(program->path);

	if (program->deaf) {
		report(FAIL, "program",
		       "build it dynamically, without privileges",
		       "%s %s: the preload library does not reach it, and "
		       "nobody can tell what it keeps",
		       *program->interpreter ? program->interpreter
					     : program->path,
		       deaf[program->deaf]);
		return false;
	}
	switch (job->launch) {
	case LAUNCH_DROPS:
		report(FAIL, "program", "put mrcache run behind it",
		       "%s gives what it starts another environment", name);
		return false;
	case LAUNCH_JOB:
		report(OK, "program", NULL,
		       "what %s starts on this host gets the environment; on "
		       "others start mrcache doctor by it",
		       name);
		return true;
	case LAUNCH_OTHER:
		report(OK, "program", NULL,
		       "what %s starts gets the environment", name);
		return true;
	default:
		report(OK, "program", NULL, "%s", program->path);
		return true;
	}
}

/* Whether every cache that is known of would be guarded or off. */
static bool check_job(const struct plan *plan, bool reached)
{
	char names[128] = "";

	for (unsigned int i = 0; i < STACKS; i++) {
		size_t length = strlen(names);

		if (plan->stacks[i].state == STACK_ON)
			snprintf(names + length, sizeof(names) - length, "%s%s",
				 length ? ", " : "", known_stacks[i].name);
	}
	if (!reached)
		report(FAIL, "job", "see above",
		       "nothing shows that it would be protected");
	else if (*names)
		report(FAIL, "job", "see above",
		       "it would not be protected: %s may use stale memory",
		       names);
	else
		report(OK, "job", NULL,
		       "it would be protected: each known cache is guarded or "
		       "off");
	return reached && !*names;
}

/* --- the command ------------------------------------------------------------------- */

#define TIMEOUT 60

struct doctor {
	struct job job;
	bool json;
	unsigned int timeout;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct doctor *doctor = state->input;
	unsigned long seconds;
	char *end;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &doctor->job;
		return 0;
	case 'j':
		doctor->json = true;
		return 0;
	case 't':
		seconds = strtoul(arg, &end, 10);
		if (end == arg || *end || *arg == '-' || !seconds ||
		    seconds > 3600)
			argp_error(state,
				   "--timeout=%s: not a number of seconds from "
				   "1 to 3600",
				   arg);
		doctor->timeout = (unsigned int)seconds;
		return 0;
	case 'h':
		argp_state_help(state, stdout, ARGP_HELP_STD_HELP);
		return 0;
	case ARGP_KEY_ARG:
		doctor->job.argv = &state->argv[state->next - 1];
		state->next = state->argc;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static bool check_all(struct job *job)
{
	bool guards, reached = true;
	struct mrc_limits limits;

	report_step("the settings");
	job_set_options(job);
	check_kernel();
	guards = check_settings(&job->attr);
	report_step("the driver");
	guards &= check_device(&job->attr);
	report_step("RDMA devices");
	check_rdma();
	mrc_limits(&limits);
	check_memlock(&job->attr, &limits);
	check_limit(&job->attr, &limits);
	check_fork();
	report_step("the preload library");
	guards &= check_shim();
	check_counters();
	report_step("libraries that keep registrations");
	if (job->argv)
		reached = check_program(job);
	plan_make(&job->plan, is_disabled() ? PLAN_KEEP : job->stack_caches,
		  guards && reached, job->stack_caches_given);
	check_stacks(&job->plan);
	return check_job(&job->plan, reached);
}

int doctor_main(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"json", 'j', NULL, 0, "Print JSON", 0},
		{"timeout", 't', "SECONDS", 0,
		 "Give up a check that takes longer (60)", 0},
		{NULL, 'h', NULL, OPTION_HIDDEN, NULL, 0},
		{0},
	};
	static const struct argp argp = {
		.options = options,
		.parser = parse,
		.args_doc = "[PROGRAM [ARG...]]",
		.doc = "Says what on this machine, for this user and in this "
		       "environment, is in the way of caching RDMA memory "
		       "registrations, and what to do about it; and whether "
		       "a job, of PROGRAM if it is given, would be "
		       "protected.\v"
		       "Exit status: 0 if nothing failed, 1 if something did or "
		       "took too long, 3 if a job would not be protected, 126 "
		       "or 127 as run if PROGRAM cannot be executed or is not "
		       "found.",
		.children = job_children,
	};
	static struct doctor doctor = {.timeout = TIMEOUT};
	struct job *job = &doctor.job;
	bool protected;
	unsigned int failed;
	int ret;

	parse_arguments(&argp, argc, argv, STATUS_USAGE, &doctor);
	/* One for each host of a job is enough. */
	if (!job_is_first_here())
		return 0;
	ret = job->argv ? program_find(&job->program, job->argv[0]) : 0;
	if (ret) {
		complain("%s: %s", job->argv[0], strerror(-ret));
		return ret == -ENOENT ? STATUS_NOT_FOUND : STATUS_CANNOT_RUN;
	}
	if (job->argv)
		job->launch = launcher_kind(&job->program);
	report_begin(doctor.timeout);
	protected = check_all(job);
	report_step(NULL);
	failed = report_print(doctor.json, protected);
	return finish_output(!protected ? STATUS_NOT_PROTECTED
			     : failed	? STATUS_NO
					: 0);
}
