/* SPDX-License-Identifier: BSD-2-Clause */
/* mrcache doctor: what on this machine is in the way of caching. */
#include "command.h"
#include "device.h"
#include "others.h"
#include "report.h"
#include "settings.h"
#include "shim.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/capability.h>
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
	if (major < 6 || (major == 6 && minor < 1))
		report(FAIL, "kernel", "the driver needs Linux 6.1 or later",
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
	uint64_t one, all;
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
	if (one && all)
		report(OK, "module", NULL,
		       "ummunotify is loaded; %" PRIu64
		       " watches for each process, %" PRIu64 " in all",
		       one, all);
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

static void check_device(const struct mrcache_attr *attr)
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
}

/* --- RDMA ------------------------------------------------------------------------ */

static unsigned int devices_in_kernel(void)
{
	DIR *directory = opendir("/sys/class/infiniband");
	const struct dirent *entry;
	unsigned int n = 0;

	if (!directory)
		return 0;
	while ((entry = readdir(directory)))
		n += *entry->d_name != '.';
	closedir(directory);
	return n;
}

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
	if (devices_in_kernel())
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

/* CAP_IPC_LOCK lifts the limit. */
static bool may_lock(void)
{
	FILE *file = fopen("/proc/self/status", "re");
	unsigned long long capabilities = 0;
	char line[256];

	if (!file)
		return false;
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "CapEff: %llx", &capabilities) == 1)
			break;
	fclose(file);
	return capabilities >> CAP_IPC_LOCK & 1;
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

static void check_memlock(const struct mrcache_attr *attr)
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
	if (may_lock()) {
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
	else if (limit.rlim_cur < attr->max_bytes)
		report(WARN, "memlock", advice,
		       "%s may be registered (hard limit %s), which is less "
		       "than the cache's own limit: it will evict often",
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

static void check_shim(void)
{
	char path[2 * PATH_MAX];
	int ret = shim_find(path, sizeof(path));
	void *handle;

	if (ret) {
		report(FAIL, "preload",
		       "install mrcache, or let MRCACHE_PRELOAD say where "
		       "libmrcache-preload.so is",
		       "%s: %s", path, strerror(-ret));
		return;
	}
	handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!handle) {
		report(FAIL, "preload", "install it anew", "%s", dlerror());
		return;
	}
	dlclose(handle);
	if (strpbrk(path, ": "))
		report(FAIL, "preload", "install it elsewhere",
		       "LD_PRELOAD cannot name a file with a space or colon "
		       "in its path: %s",
		       path);
	else
		report(OK, "preload", NULL, "%s", path);
}

static void wrong_setting(void *arg, const char *name, const char *why,
			  bool fatal)
{
	unsigned int *wrong = arg;
	char advice[128] = "correct it";

	if (name)
		snprintf(advice, sizeof(advice),
			 "unset %s or correct it; see mrcache(7)", name);
	++*wrong;
	report(fatal ? FAIL : WARN, "settings", advice, "%s%s", why,
	       fatal ? ": nothing would be cached" : "");
}

static void check_settings(struct mrcache_attr *attr)
{
	const char *enable = getenv("MRCACHE_ENABLE");
	unsigned int wrong = 0, set = 0;

	settings_check(attr, wrong_setting, &wrong);
	for (char **entry = environ; *entry; entry++)
		set += !strncmp(*entry, "MRCACHE_", strlen("MRCACHE_"));
	if (enable && !strcmp(enable, "0"))
		report(WARN, "settings", "unset MRCACHE_ENABLE",
		       "MRCACHE_ENABLE=0: nothing is cached"),
			wrong++;
	if (!strcmp(attr->monitor, "none"))
		report(WARN, "settings", "unset MRCACHE_MONITOR",
		       "MRCACHE_MONITOR=none: nothing is cached"),
			wrong++;
	if (attr->contain)
		report(WARN, "settings", "unset MRCACHE_CONTAIN",
		       "MRCACHE_CONTAIN has no effect under mrcache run"),
			wrong++;
	if (wrong)
		return;
	if (set)
		report(OK, "settings", NULL, "%u MRCACHE_ variable%s set", set,
		       set > 1 ? "s" : "");
	else
		report(OK, "settings", NULL,
		       "no MRCACHE_ variable is set: defaults");
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

static void check_others(void)
{
	char advice[256];

	for (int i = 0; i < OTHERS; i++) {
		const struct other *other = &others[i];

		if (other->is_off()) {
			report(OK, "stacking", NULL, "%s: its cache is off",
			       other->name);
		} else if (other_is_installed(other)) {
			snprintf(advice, sizeof(advice),
				 "for programs that use it: export %s",
				 other->switch_off);
			report(WARN, "stacking", advice,
			       "%s is installed, and its own cache would "
			       "hide this one",
			       other->name);
		}
	}
}

/* --- the command ------------------------------------------------------------------- */

static error_t parse(int key, char *arg, struct argp_state *state)
{
	bool *json = state->input;

	(void)arg;
	switch (key) {
	case 'j':
		*json = true;
		return 0;
	case 'h':
		argp_state_help(state, stdout, ARGP_HELP_STD_HELP);
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "doctor takes no arguments");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

int doctor_main(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"json", 'j', NULL, 0, "Print JSON", 0},
		{NULL, 'h', NULL, OPTION_HIDDEN, NULL, 0},
		{0},
	};
	static const struct argp argp = {
		.options = options,
		.parser = parse,
		.doc = "Says what on this machine, for this user and in this "
		       "environment, is in the way of caching RDMA memory "
		       "registrations, and what to do about it.\v"
		       "Exit status: 0 if nothing failed, 1 if something did.",
	};
	struct mrcache_attr attr;
	bool json = false;
	unsigned int failed;

	parse_arguments(&argp, argc, argv, STATUS_USAGE, &json);
	check_kernel();
	check_settings(&attr);
	check_device(&attr);
	check_rdma();
	check_memlock(&attr);
	check_fork();
	check_shim();
	check_counters();
	check_others();
	failed = report_print(json);
	return finish_output(failed ? STATUS_NO : 0);
}
