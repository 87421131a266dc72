/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The command `mrcache` with the driver and an RDMA device, and with either
 * taken away: what the doctor finds, what `run` warns of, and the counters of
 * a process that is running. Its usage is tested in tests/unit/test_cli.c.
 */
#include "case.h"
#include "rdma.h"
#include "support.h"

#include <stdint.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>

#include "execute.h"

#define DEVICE	     "/dev/ummunotify"
#define WAIT_SECONDS 30

static const struct as root = {0};
static const struct as nobody = {.uid = NOBODY};
static struct executed e;

/* --- a program that knows nothing of mrcache ----------------------------------- */

#define USES	     10
#define REMOTE_USES  3
#define BUFFER_PAGES 16

/* Prints "ready" when it has done all this; SIGUSR1 ends it. */
static int program(void)
{
	struct rdma r;
	char *once, *often;
	struct ibv_mr *mr;
	sigset_t end;
	int signal;

	sigemptyset(&end);
	sigaddset(&end, SIGUSR1);
	sigprocmask(SIG_BLOCK, &end, NULL);
	often = pages_map(BUFFER_PAGES);
	once = pages_map(1);
	if (!often || !once || rdma_open(&r, PAGE))
		return 1;
	/* The peer's buffer was registered for remote access: bypassed. */
	for (int i = 0; i < USES; i++) {
		mr = ibv_reg_mr(r.pd, often, BUFFER_PAGES * PAGE,
				IBV_ACCESS_LOCAL_WRITE);
		if (!mr || ibv_dereg_mr(mr))
			return 2;
	}
	for (int i = 0; i < REMOTE_USES; i++) {
		mr = ibv_reg_mr(r.pd, often, BUFFER_PAGES * PAGE,
				IBV_ACCESS_REMOTE_READ);
		if (!mr || ibv_dereg_mr(mr))
			return 3;
	}
	/* Held, and stale. */
	mr = ibv_reg_mr(r.pd, once, PAGE, IBV_ACCESS_LOCAL_WRITE);
	if (!mr || pages_unmap(once, 1))
		return 4;
	puts("ready");
	fflush(stdout);
	while (sigwait(&end, &signal))
		;
	if (ibv_dereg_mr(mr) || rdma_close(&r))
		return 5;
	return 42;
}

static const char *self(void)
{
	static char path[PATH_MAX];

	if (!*path && readlink("/proc/self/exe", path, sizeof(path) - 1) < 0)
		return "";
	return path;
}

static const char *number(pid_t pid)
{
	static char text[16];

	snprintf(text, sizeof(text), "%d", pid);
	return text;
}

/* Starts the program under the command; it has got to "ready". */
static void start(struct executed *p, const struct as *as, const char *option)
{
	time_t end = time(NULL) + WAIT_SECONDS;

	assert_true(execute_begin(p, as,
				  (const char *const[]){NULL, "run", option,
							"--", self(),
							"--program", NULL}));
	do {
		usleep(20000);
		execute_collect(p);
	} while (!strstr(p->out, "ready") && time(NULL) < end);
	assert_out(p, "ready");
}

static void stop(struct executed *p)
{
	kill(p->pid, SIGUSR1);
	execute_end(p);
	assert_status(p, 42);
}

/* What `stat` shows is there in the end: the reaper takes its time. */
static void until_stat_shows(const struct as *as, pid_t pid, const char *text)
{
	time_t end = time(NULL) + WAIT_SECONDS;

	do
		MRCACHE_AS(&e, as, "stat", "--json", number(pid));
	while (!strstr(e.out, text) && time(NULL) < end);
	assert_out(&e, text);
}

/* --- doctor --------------------------------------------------------------------- */

CASE(with_everything_all_is_well)
{
	MRCACHE(&e, "doctor");
	assert_status(&e, 0);
	assert_null(strstr(e.out, "fail "));
	assert_out(&e, "ok    kernel    Linux ");
	assert_out(&e, "ok    module    ummunotify is loaded");
	assert_out(&e, "ok    device    " DEVICE " can be opened");
	assert_out(&e, "ok    features  filter, kinds, state words");
	assert_out(&e, "ok    rdma      rxe0");
	assert_out(&e, "ok    memlock   unlimited");
	assert_out(&e, "ok    fork      ");
	assert_out(&e, "ok    preload   /");
	assert_out(&e, "ok    settings  ");
	assert_out(&e, "ok    counters  ");
	MRCACHE_AS(&e, &nobody, "doctor");
	assert_status(&e, 0);
	MRCACHE(&e, "run", "--verbose", "true");
	assert_status(&e, 0);
	assert_err(&e, "/true: ummunotify ready, but not for remote access");
	MRCACHE(&e, "run", "--remote", "--verbose", "true");
	assert_err(&e, "/true: ummunotify ready, remote access included");
	/* It never says "cached" of what may register nothing. */
	assert_null(strstr(e.err, "cached"));
}

static int restore_mode(void **state)
{
	(void)state;
	return chmod(DEVICE, 0666);
}

CASE_IN(without_permission, NULL, restore_mode)
{
	assert_int_equal(chmod(DEVICE, 0600), 0);
	MRCACHE_AS(&e, &nobody, "doctor");
	assert_status(&e, 1);
	assert_out(&e, "ok    module ");
	assert_out(&e, "fail  device    user 65534 has no permission");
	assert_out(&e, "-> as root, now: chmod 0666 " DEVICE);
	assert_out(&e, "60-ummunotify.rules");
	MRCACHE_AS(&e, &nobody, "run", "sh", "-c", "exit 5");
	assert_status(&e, 5);
	assert_err(&e, "has no permission");
	assert_err(&e, "nothing is cached");
	/* Root is told about the others. */
	MRCACHE(&e, "doctor");
	assert_status(&e, 0);
	assert_out(&e, "warn  device    other users have no permission");
}

static int insert_module(void **state)
{
	char command[PATH_MAX + 16];

	(void)state;
	if (!access("/sys/module/ummunotify", F_OK))
		return 0;
	snprintf(command, sizeof(command), "insmod '%s'", getenv("UMN_MODULE"));
	return system(command);
}

static bool remove_module(void)
{
	/* The last close may still be on its way, and a busy machine is slow. */
	for (int i = 0; i < 10; i++) {
		if (!system("rmmod ummunotify 2>/dev/null"))
			return true;
		sleep(1);
	}
	return !system("rmmod ummunotify");
}

CASE_IN(without_the_module, NULL, insert_module)
{
	if (!getenv("UMN_MODULE"))
		fail_msg("UMN_MODULE is not set; see tests/vm/suite");
	assert_true(remove_module());
	MRCACHE(&e, "doctor");
	assert_status(&e, 1);
	assert_out(&e, "fail  module    the kernel module ummunotify is not "
		       "loaded");
	assert_out(&e, "modprobe");
	assert_null(strstr(e.out, " device "));
	MRCACHE(&e, "run", "sh", "-c", "exit 6");
	assert_status(&e, 6);
	assert_err(&e, "not loaded: nothing is cached");

	/* A program with verbs works, only without a cache. */
	start(&e, &root, "--quiet");
	assert_string_equal(e.err, "");
	stop(&e);

	assert_int_equal(insert_module(NULL), 0);
	MRCACHE(&e, "doctor");
	assert_status(&e, 0);
}

CASE(without_its_node)
{
	assert_int_equal(rename(DEVICE, "/dev/hidden"), 0);
	MRCACHE(&e, "doctor");
	assert_int_equal(rename("/dev/hidden", DEVICE), 0);
	assert_status(&e, 1);
	assert_out(&e, "fail  device    " DEVICE " does not exist, although "
		       "the module is loaded");
	assert_out(&e, "mknod -m 666 " DEVICE " c 10 ");
}

CASE(with_little_memlock)
{
	const struct as little = {.uid = NOBODY, .memlock = 64 << 10};
	const struct as more = {.uid = NOBODY, .memlock = 128 << 20};

	MRCACHE_AS(&e, &little, "doctor");
	assert_status(&e, 1);
	assert_out(&e, "fail  memlock   only 64 KiB may be registered");
	assert_out(&e, "limits.d");
	MRCACHE_AS(&e, &more, "doctor");
	assert_status(&e, 0);
	assert_out(&e, "warn  memlock   128 MiB may be registered");
}

CASE(without_rdma)
{
	assert_int_equal(system("rdma link del rxe0"), 0);
	MRCACHE(&e, "doctor");
	assert_int_equal(system("rdma link add rxe0 type rxe netdev dummy0"),
			 0);
	assert_status(&e, 1);
	assert_out(&e, "fail  rdma      there is no RDMA device");
	assert_out(&e, "rdma link add");
}

/* --- run ------------------------------------------------------------------------- */

static void copy_of_true(char *name)
{
	char command[128];
	int fd = mkstemp(name);

	assert_true(fd >= 0);
	close(fd);
	snprintf(command, sizeof(command), "cp /bin/true %s && chmod 755 %s",
		 name, name);
	assert_int_equal(system(command), 0);
}

CASE(programs_with_privileges)
{
	const struct vfs_cap_data capabilities = {
		.magic_etc = VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE,
		.data = {{.permitted = 1 << CAP_NET_RAW}},
	};
	char name[] = "/tmp/true.XXXXXX";

	copy_of_true(name);
	MRCACHE_AS(&e, &nobody, "run", name);
	assert_status(&e, 0);
	assert_null(strstr(e.err, "LD_PRELOAD"));
	assert_int_equal(chmod(name, 04755), 0);
	MRCACHE_AS(&e, &nobody, "run", name);
	assert_status(&e, 0);
	assert_err(&e, "is set-uid or set-gid, and so LD_PRELOAD is ignored");
	/* It is root's own. */
	MRCACHE(&e, "run", name);
	assert_null(strstr(e.err, "LD_PRELOAD"));
	assert_int_equal(chmod(name, 0755), 0);
	assert_int_equal(setxattr(name, "security.capability", &capabilities,
				  XATTR_CAPS_SZ_2, 0),
			 0);
	MRCACHE_AS(&e, &nobody, "run", name);
	assert_status(&e, 0);
	assert_err(&e, "has file capabilities");
	unlink(name);
}

/* Stacks' variables, as a program finds them. */
#define SHOW "sh", "-c", "env | grep -E '^(MRCACHE_GUARD|UCX_|FI_|OMPI_|MV)'"

static void is_set(const char *name, bool wanted)
{
	if (!strstr(e.out, name) != !wanted)
		print_error("%s: not as it should be in\n%s%s", name, e.out,
			    e.err);
	assert_int_equal(strstr(e.out, name) != NULL, wanted);
}

static void stacks_are(bool ucx_off, bool fabric_off, const char *words)
{
	is_set("UCX_RCACHE_ENABLE=n\n", ucx_off);
	is_set("UCX_IB_REG_METHODS=direct\n", ucx_off);
	is_set("FI_MR_CACHE_MAX_COUNT=0\n", fabric_off);
	is_set("OMPI_MCA_mpi_leave_pinned=0\n", true);
	assert_err(&e, words);
}

CASE(stacks_are_guarded_or_off)
{
	static const char all_off[] =
		"stack caches: UCX, libfabric, Open MPI, MVAPICH, MPICH off\n";

	MRCACHE(&e, "run", "-v", SHOW);
	stacks_are(false, false,
		   "stack caches: UCX, libfabric guarded; Open MPI, MVAPICH, "
		   "MPICH off\n");
	is_set("MRCACHE_GUARD", false);
	setenv("MRCACHE_GUARD", "libfabric", 1);
	MRCACHE(&e, "run", "-v", SHOW);
	stacks_are(true, false,
		   "stack caches: libfabric guarded; UCX, Open MPI, MVAPICH, "
		   "MPICH off\n");
	setenv("MRCACHE_GUARD", "0", 1);
	MRCACHE(&e, "run", "-v", SHOW);
	stacks_are(true, true, all_off);
	/* An option comes before the environment. */
	MRCACHE(&e, "run", "-v", "--stack-caches=guard", SHOW);
	stacks_are(false, false, "UCX, libfabric guarded");
	is_set("MRCACHE_GUARD=1\n", true);
	unsetenv("MRCACHE_GUARD");

	/* Guards need state words, and a program that they can be in. */
	MRCACHE(&e, "run", "-v", "-m", "ummunotify-2010", SHOW);
	stacks_are(true, true, all_off);
	assert_err(&e, "sh: ummunotify-2010 ready");
	MRCACHE(&e, "run", "-v", "-m", "none", SHOW);
	stacks_are(true, true, all_off);
	assert_err(&e, "MRCACHE_MONITOR=none: nothing is cached; stack");
	setenv("MRCACHE_REMOTE", "perhaps", 1);
	MRCACHE(&e, "run", "-v", SHOW);
	unsetenv("MRCACHE_REMOTE");
	stacks_are(true, true, all_off);
	if (!access("/bin/busybox", X_OK)) {
		MRCACHE(&e, "run", "-v", "/bin/busybox", SHOW);
		stacks_are(true, true, all_off);
		assert_err(&e, "is statically linked, and so LD_PRELOAD has no "
			       "effect: nothing is cached; stack");
	}
	MRCACHE(&e, "run", "-v", "-coff", SHOW);
	stacks_are(true, true, all_off);
	assert_err(&e, "sh: ummunotify ready");

	/* Open MPI would bring a monitor in spite of that. */
	setenv("FI_MR_CACHE_MONITOR", "disabled", 1);
	MRCACHE(&e, "run", "-v", SHOW);
	unsetenv("FI_MR_CACHE_MONITOR");
	stacks_are(false, true,
		   "stack caches: UCX guarded; libfabric, Open MPI, MVAPICH, "
		   "MPICH off\n");

	/* What the user set decides, and is told. */
	setenv("UCX_MEM_EVENTS", "n", 1);
	MRCACHE(&e, "run", SHOW);
	unsetenv("UCX_MEM_EVENTS");
	stacks_are(false, false, "UCX off (UCX_MEM_EVENTS=n)\n");
	assert_err(&e, "stack caches: ");
}

CASE(a_doctor_knows_stacks)
{
	char directory[] = "/tmp/mrcache-stacks.XXXXXX", path[64];

	assert_non_null(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/libucp.so.0", directory);
	close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
	setenv("LD_LIBRARY_PATH", directory, 1);
	MRCACHE(&e, "doctor");
	unsetenv("LD_LIBRARY_PATH");
	unlink(path);
	rmdir(directory);
	assert_out(&e, "warn  stacks    UCX would be guarded, but cannot be "
		       "asked for its version");
	/* The real ones, if they are there. */
	MRCACHE(&e, "doctor");
	if (!access("/usr/lib/x86_64-linux-gnu/libucp.so.0", F_OK))
		assert_out(&e, "its cache would be guarded");
	assert_null(strstr(e.out, "cannot be asked"));
}

/* --- stat ------------------------------------------------------------------------ */

CASE(counters_of_a_running_process)
{
	struct executed p;
	char text[128];

	start(&p, &root, "-v");
	until_stat_shows(&root, p.pid, "\"stale_held\": 1");
	assert_status(&e, 0);
	assert_out(&e, "\"monitor\": \"ummunotify\"");
	assert_out(&e, "\"hits\": 9");
	assert_out(&e, "\"misses\": 2");
	assert_out(&e, "\"invalidations\": 1");
	assert_out(&e, "\"cached\": 1");
	snprintf(text, sizeof(text), "\"cached_bytes\": %zu", 16 * PAGE);
	assert_out(&e, text);
	/* And that of rdma_open(). */
	assert_out(&e, "\"remote\": 4");
	MRCACHE(&e, "stat");
	assert_status(&e, 0);
	snprintf(
		text, sizeof(text),
		"      9      2  81.8%%      0      1      4      1 %5zuK     1 "
		"test_command\n",
		16 * PAGE / 1024);
	assert_out(&e, text);
	assert_out(&e, "bypassed: remote 4\n");

	/* Others may not look, and root may look at others. */
	MRCACHE_AS(&e, &nobody, "stat", number(p.pid));
	assert_status(&e, 1);
	assert_err(&e, "belongs to another user");
	stop(&p);
	MRCACHE(&e, "stat", number(p.pid));
	assert_status(&e, 1);

	start(&p, &nobody, "-v");
	until_stat_shows(&root, p.pid, "\"stale_held\": 1");
	MRCACHE(&e, "stat");
	assert_status(&e, 1);
	MRCACHE(&e, "stat", "--all");
	assert_status(&e, 0);
	assert_out(&e, "test_command");
	MRCACHE_AS(&e, &nobody, "stat");
	assert_status(&e, 0);
	stop(&p);
}

CASE(what_a_killed_process_leaves)
{
	struct executed p;
	char path[64];

	start(&p, &root, "-v");
	snprintf(path, sizeof(path), "/dev/shm/mrcache.0.%d", p.pid);
	assert_int_equal(access(path, F_OK), 0);
	kill(p.pid, SIGKILL);
	execute_end(&p);
	assert_status(&p, 128 + SIGKILL);
	assert_int_equal(access(path, F_OK), 0);
	/* Another user may not clear it away. */
	MRCACHE_AS(&e, &nobody, "stat", "--all");
	assert_status(&e, 1);
	assert_int_equal(access(path, F_OK), 0);
	MRCACHE(&e, "stat");
	assert_status(&e, 1);
	assert_int_equal(access(path, F_OK), -1);
}

CASE(remote_access_if_allowed)
{
	struct executed p;

	start(&p, &root, "--remote");
	until_stat_shows(&root, p.pid, "\"stale_held\": 1");
	assert_out(&e, "\"remote\": 0");
	/* REMOTE_USES: one miss, the rest hits; and rdma_open()'s a miss. */
	assert_out(&e, "\"hits\": 11");
	assert_out(&e, "\"misses\": 4");
	stop(&p);
}

CASE(a_summary_at_the_end)
{
	struct executed p;
	char name[] = "/tmp/stats.XXXXXX", option[64], line[4096];
	FILE *file;

	file = fdopen(mkstemp(name), "r");
	assert_non_null(file);
	snprintf(option, sizeof(option), "--stats=%s", name);
	start(&p, &root, option);
	until_stat_shows(&root, p.pid, "\"stale_held\": 1");
	stop(&p);
	assert_non_null(fgets(line, sizeof(line), file));
	assert_non_null(strstr(line, "\"hits\":9,\"misses\":2,"));
	assert_null(fgets(line, sizeof(line), file));
	fclose(file);
	unlink(name);
}

/* What a launcher such as mpirun does: the environment is handed down. */
CASE(around_a_launcher)
{
	const struct timespec pause = {.tv_nsec = 20000000};
	time_t end = time(NULL) + WAIT_SECONDS;
	struct executed p;

	assert_true(execute_begin(
		&p, &root,
		(const char *const[]){NULL, "run", "--", "sh", "-c",
				      "\"$0\" --program & child=$!; trap 'kill "
				      "-USR1 $child' USR1; wait; wait $child",
				      self(), NULL}));
	do {
		nanosleep(&pause, NULL);
		execute_collect(&p);
	} while (!strstr(p.out, "ready") && time(NULL) < end);
	assert_out(&p, "ready");
	MRCACHE(&e, "stat");
	assert_status(&e, 0);
	assert_out(&e, "test_command\n");
	stop(&p);
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "--program"))
		return program();
	return run_cases(NULL, NULL);
}
