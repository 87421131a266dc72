/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The command `mrcache` as a user types it, as far as neither the driver nor an
 * RDMA device matters; with them it is tested in tests/guest/test_command.c.
 */
#include "config.h"
#include "unit.h"

#include "guard/stacks.h"
#include "support/execute.h"
#include "publish.h"

#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

static int plain_environment(void **state)
{
	(void)state;
	unsetenv("LD_PRELOAD");
	unsetenv("MRCACHE_LOG");
	return 0;
}

static struct executed e;

static void lines_fit(const char *text)
{
	for (size_t length; *text; text += length + (text[length] == '\n')) {
		length = strcspn(text, "\n");
		if (length > 80 && !memchr(text, '/', length))
			fail_msg("longer than 80: %.*s", (int)length, text);
	}
}

/* --- usage -------------------------------------------------------------------- */

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

/* Those of stacks, whose caches `run` turns off. */
static void no_stack_variables(void)
{
	for (int i = 0; i < STACKS; i++)
		for (int j = 0; j < STACK_VARIABLES; j++)
			if (known_stacks[i].variables[j].name)
				unsetenv(known_stacks[i].variables[j].name);
}

static int with_library(void **state)
{
	(void)state;
	no_stack_variables();
	/* No driver, whatever this machine has. */
	setenv("MRCACHE_DEVICE", "/dev/null/ummunotify", 1);
	/* A sanitized command may be preloaded into, too. */
	setenv("ASAN_OPTIONS", "verify_asan_link_order=0", 0);
	return setenv("MRCACHE_PRELOAD", any_library(), 1);
}

static int without_library(void **state)
{
	static const char *const names[] = {
		"MRCACHE_PRELOAD", "LD_PRELOAD",      "MRCACHE_LINGER",
		"MRCACHE_REMOTE",  "MRCACHE_LOG",     "MRCACHE_REMOT",
		"MRCACHE_GUARD",   "MRCACHE_ENABLE",  "MRCACHE_GUARD_UCX_HOOKS",
		"MRCACHE_DEVICE",  "LD_LIBRARY_PATH", "PMI_RANK",
		"MPI_LOCALRANKID"};

	(void)state;
	no_stack_variables();
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		unsetenv(names[i]);
	return 0;
}

CASE(help_and_version)
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

CASE_IN(wrong_usage, with_library, without_library)
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
	MRCACHE(&e, "doctor", "--timeout=0");
	assert_status(&e, 2);
	MRCACHE(&e, "doctor", "no-such-program");
	assert_status(&e, 127);
	MRCACHE(&e, "env", "now");
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
	MRCACHE(&e, "run", "--stack-caches=of", "true");
	assert_status(&e, 125);
	assert_err(&e, "--stack-caches=of: not guard, off or keep");
}

CASE(nothing_is_lost_silently)
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

CASE_IN(status_and_signals_are_the_programs, with_library, without_library)
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

CASE_IN(the_process_becomes_the_program, with_library, without_library)
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

CASE_IN(what_cannot_be_run, with_library, without_library)
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

CASE_IN(the_environment_it_sets, with_library, without_library)
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

CASE_IN(what_is_preloaded_stays, with_library, without_library)
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

CASE_IN(programs_that_cannot_be_helped, with_library, without_library)
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
CASE_IN(programs_that_are_damaged, with_library, without_library)
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

CASE_IN(settings_that_make_no_sense, with_library, without_library)
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

/* --- run: stacks' own caches. There is no driver here, so none is guarded. ------- */

#define ALL_OFF                                                          \
	"FI_EFA_MR_CACHE_ENABLE=0\nFI_MR_CACHE_MAX_COUNT=0\n"            \
	"MPIR_CVAR_CH4_OFI_MR_CACHE_SIZE=0\nMRCACHE_GUARD=0\n"           \
	"MV2_USE_LAZY_MEM_UNREGISTER=0\nMVP_USE_LAZY_MEM_UNREGISTER=0\n" \
	"OMPI_MCA_mpi_leave_pinned=0\nUCX_IB_REG_METHODS=direct\n"       \
	"UCX_RCACHE_ENABLE=n\nUCX_WARN_UNUSED_ENV_VARS=n\n"

/* What the program finds set. */
#define SHOW        \
	"sh", "-c", \
		"env | grep -E '^(MRCACHE_GUARD|UCX_|FI_|OMPI_MCA|MV|MPIR)' | LC_ALL=C sort"

CASE_IN(without_a_driver_all_are_off, with_library, without_library)
{
	NEEDS_COMMAND();
	MRCACHE(&e, "run", "-v", SHOW);
	assert_status(&e, 0);
	assert_string_equal(e.out, ALL_OFF);
	assert_err(
		&e,
		"nothing is cached (mrcache doctor says what to do); "
		"stack caches: UCX, libfabric, Open MPI, MVAPICH, MPICH off\n");
	assert_int_equal(strchr(e.err, '\n')[1], '\0');
	/* Also where it was to be guarded. */
	MRCACHE(&e, "run", "-v", "--stack-caches=guard", SHOW);
	assert_string_equal(e.out, ALL_OFF);
	MRCACHE(&e, "run", "-q", "-coff", SHOW);
	assert_string_equal(e.out, ALL_OFF);
	assert_string_equal(e.err, "");
}

CASE_IN(kept_if_asked_and_loudly, with_library, without_library)
{
	NEEDS_COMMAND();
	MRCACHE(&e, "run", "-v", "--stack-caches=keep", SHOW);
	assert_status(&e, 0);
	assert_string_equal(e.out, "MRCACHE_GUARD=0\n");
	assert_err(&e, "stack caches: UCX, libfabric, Open MPI, MVAPICH, MPICH "
		       "LEFT ON, which may use stale memory\n");
	/* Nothing is to be done to the program at all. */
	setenv("MRCACHE_ENABLE", "0", 1);
	MRCACHE(&e, "run", "-v", SHOW);
	assert_string_equal(e.out, "MRCACHE_GUARD=0\n");
	assert_err(&e, "MRCACHE_ENABLE=0: nothing is cached; stack caches: ");
	assert_err(&e, "LEFT ON");
}

CASE_IN(what_the_user_set_stays, with_library, without_library)
{
	NEEDS_COMMAND();
	setenv("UCX_RCACHE_ENABLE", "y", 1);
	setenv("FI_MR_CACHE_MAX_COUNT", "0", 1);
	setenv("OMPI_MCA_mpi_leave_pinned", "1", 1);
	setenv("PSM3_MR_CACHE_MODE", "2", 1);
	MRCACHE(&e, "run", "-v", SHOW);
	assert_status(&e, 0);
	assert_out(&e, "UCX_RCACHE_ENABLE=y\n");
	assert_out(&e, "OMPI_MCA_mpi_leave_pinned=1\n");
	assert_null(strstr(e.out, "UCX_IB_REG_METHODS"));
	assert_err(&e, "stack caches: MVAPICH, MPICH off; UCX LEFT ON "
		       "(UCX_RCACHE_ENABLE=y); libfabric off "
		       "(FI_MR_CACHE_MAX_COUNT=0); Open MPI LEFT ON "
		       "(OMPI_MCA_mpi_leave_pinned=1); PSM3 LEFT ON "
		       "(PSM3_MR_CACHE_MODE=2)\n");
	/* Also if it came from one outside. */
	no_stack_variables();
	MRCACHE(&e, "run", "-q", command_path(), "run", "-q", SHOW);
	assert_out(&e, ALL_OFF);
}

/* Empty files will do: only their names are looked for. */
CASE_IN(only_what_is_installed_is_told, with_library, without_library)
{
	char directory[] = "/tmp/mrcache-stacks.XXXXXX", path[64];

	NEEDS_COMMAND();
	assert_non_null(mkdtemp(directory));
	setenv("LD_LIBRARY_PATH", directory, 1);
	snprintf(path, sizeof(path), "%s/libucp.so.0", directory);
	close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
	MRCACHE(&e, "run", "true");
	assert_err(&e, "stack caches: UCX");
	assert_null(strstr(e.err, "MVAPICH"));
	/* It is there, and cannot be asked. */
	MRCACHE(&e, "doctor");
	assert_out(&e, "ok    stacks    UCX: its cache would be off "
		       "(UCX_RCACHE_ENABLE=n)");
	lines_fit(e.out);
	unlink(path);
	rmdir(directory);
}

CASE_IN(one_process_of_a_job_says_it, with_library, without_library)
{
	NEEDS_COMMAND();
	setenv("MPI_LOCALRANKID", "1", 1);
	MRCACHE(&e, "run", "-v", SHOW);
	assert_string_equal(e.out, ALL_OFF);
	assert_string_equal(e.err, "");
	/* The first on another host, which may be another in what is wrong. */
	setenv("MPI_LOCALRANKID", "0", 1);
	setenv("PMI_RANK", "7", 1);
	MRCACHE(&e, "run", "true");
	assert_err(&e, "nothing is cached");
}

/* --- run: programs that start others ---------------------------------------------- */

static void says_of(const char *name, const char *words)
{
	char link[64] = "/tmp/mrcache-launcher.XXXXXX";

	assert_non_null(mkdtemp(link));
	strcat(link, "/");
	strcat(link, name);
	assert_int_equal(symlink("/bin/true", link), 0);
	/* As if the driver were here: --elsewhere is of env alone. */
	MRCACHE(&e, "run", "-v", "-mnone", link);
	assert_status(&e, 0);
	assert_null(strstr(e.err, " cached with"));
	if (words)
		assert_err(&e, words);
	else
		assert_null(strstr(e.err, "environment"));
	unlink(link);
	*strrchr(link, '/') = '\0';
	rmdir(link);
}

CASE_IN(launchers_that_drop_the_environment, with_library, without_library)
{
	NEEDS_COMMAND();
	says_of("sudo", "sudo gives what it starts another environment: put "
			"mrcache run behind it");
	says_of("ssh", "ssh gives what it starts another environment");
	says_of("srun", NULL);
	says_of("mpiexec.hydra", NULL);
	says_of("python3.11", NULL);
	says_of("sudoku", NULL);
	MRCACHE(&e, "doctor", "-mnone", "sh", "-c", "true");
	assert_out(&e, "what sh starts gets the environment");
}

/* --- env -------------------------------------------------------------------------- */

/* What a shell has after eval is what run gives a program. */
CASE_IN(env_is_what_run_exports, with_library, without_library)
{
	static char ran[sizeof(e.out)];

	NEEDS_COMMAND();
	setenv("LD_PRELOAD", "libm.so.6", 1);
	MRCACHE(&e, "run", "-q", "--remote", "--stats=/tmp/it's a file", "sh",
		"-c", "env | LC_ALL=C sort | grep -v '^_='");
	strcpy(ran, e.out);
	assert_non_null(strstr(ran, "MRCACHE_STATS=/tmp/it's a file\n"));
	execute_as(&e, &(const struct as){0},
		   (const char *const[]){
			   "/bin/sh", "-c",
			   "eval \"$(\"$0\" env -q --remote '--stats=/tmp/it'"
			   "\\''s a file')\" && env | LC_ALL=C sort | "
			   "grep -v '^_='",
			   command_path(), NULL});
	assert_status(&e, 0);
	assert_string_equal(e.out, ran);
	unsetenv("LD_PRELOAD");

	MRCACHE(&e, "env", "-q", "--csh", "--stats=/a!b'c d");
	assert_status(&e, 0);
	assert_out(&e, "setenv MRCACHE_STATS '/a\\!b'\\''c d';\n");
	assert_out(&e, "setenv UCX_RCACHE_ENABLE n;\n");
	MRCACHE(&e, "env", "-q", "--json", "--stats=/a\"b");
	assert_status(&e, 0);
	assert_out(&e, "\"MRCACHE_STATS\": \"/a\\\"b\"");
	assert_out(&e, "\"FI_MR_CACHE_MAX_COUNT\": \"0\"");
	/* Rather nothing than a value that it is not. */
	MRCACHE(&e, "env", "-q", "--json", "--stats=/\xff");
	assert_status(&e, 1);
	assert_string_equal(e.out, "");
	assert_err(&e, "JSON is UTF-8, and the value of MRCACHE_STATS is not");
	MRCACHE(&e, "env", "-q", "--stats=/\xff");
	assert_status(&e, 0);
	assert_out(&e, "export MRCACHE_STATS='/\xff'\n");
	/* What is set already is not repeated. */
	setenv("FI_MR_CACHE_MAX_COUNT", "0", 1);
	MRCACHE(&e, "env");
	assert_null(strstr(e.out, "FI_MR_CACHE_MAX_COUNT"));
	assert_err(&e, "nothing is cached");
	MRCACHE(&e, "env", "-b", "much");
	assert_status(&e, 1);
	assert_string_equal(e.out, "");
}

CASE_IN(env_for_other_hosts, with_library, without_library)
{
	NEEDS_COMMAND();
	MRCACHE(&e, "env", "--elsewhere", "-v");
	assert_status(&e, 0);
	assert_null(strstr(e.out, "UCX_RCACHE_ENABLE"));
	assert_null(strstr(e.out, "MRCACHE_GUARD"));
	assert_out(&e, "export OMPI_MCA_mpi_leave_pinned=0\n");
	assert_err(&e, "UCX, libfabric guarded");
	assert_err(&e, "mrcache: ummunotify ready, but not for remote access");
	MRCACHE(&e, "env", "--elsewhere", "-v", "-b0");
	assert_err(&e, "ready, but nothing is cached (MRCACHE_MAX_BYTES=0)");
	MRCACHE(&e, "env", "--elsewhere", "-v", "-m", "ummunotify-2010");
	assert_err(&e, "mrcache: ummunotify-2010 ready");
	assert_out(&e, "export UCX_RCACHE_ENABLE=n\n");
}

/* --- run --verify: here nothing registers ------------------------------------------- */

#define BEGAN                                          \
	"{\"host\":\"a\",\"pid\":1,\"command\":\"x\"," \
	"\"began\":true}\\n"
#define ENDED                                          \
	"{\"host\":\"a\",\"pid\":1,\"command\":\"x\"," \
	"\"registrations\":5,\"protected\":true}\\n"
#define SAYS(lines, file) "printf '" lines "' >$MRCACHE_VERIFY/" file "; "

CASE_IN(verify_needs_evidence, with_library, without_library)
{
	char directory[] = "/tmp/mrcache-evidence.XXXXXX", option[96];

	NEEDS_COMMAND();
	MRCACHE(&e, "run", "--verify", "sh", "-c", "echo $MRCACHE_VERIFY");
	assert_status(&e, 123);
	assert_err(&e, "not verified: no process registered memory");
	e.out[strcspn(e.out, "\n")] = '\0';
	assert_int_equal(access(e.out, F_OK), -1);
	/* The program's own status goes first. */
	MRCACHE(&e, "run", "--verify", "sh", "-c", "exit 7");
	assert_status(&e, 7);
	MRCACHE(&e, "run", "--verify", "sh", "-c", "kill -TERM $$");
	assert_status(&e, 128 + SIGTERM);
#ifndef __SANITIZE_THREAD__ /* which keeps signals until waitpid() returns */
	/* What came at it reaches the program. */
	MRCACHE(&e, "run", "--verify", "sh", "-c",
		"trap 'exit 9' TERM; kill -TERM $PPID; "
		"for i in $(seq 200); do sleep 0.1; done");
	assert_status(&e, 9);
#endif

	assert_non_null(mkdtemp(directory));
	snprintf(option, sizeof(option), "--verify=%s", directory);
	MRCACHE(&e, "run", option, "sh", "-c", SAYS(BEGAN, "a.1"));
	assert_status(&e, 123);
	assert_err(&e, "a: x (1): never came to its end");
	assert_err(&e, "of 1 processes 0 were not protected, and of 1 it is");
	MRCACHE(&e, "run", option, "sh", "-c", SAYS(BEGAN ENDED, "a.1"));
	assert_status(&e, 0);
	assert_err(&e, "verified: 1 process registered memory 5 times");
	/* What that one left proves nothing of another. */
	MRCACHE(&e, "run", option, "true");
	assert_status(&e, 123);
	assert_err(&e, "no process registered memory");
	/* A full disk. */
	MRCACHE(&e, "run", option, "sh", "-c",
		SAYS(BEGAN ENDED, "a.1") SAYS("", "a.2"));
	assert_status(&e, 123);
	assert_err(&e, "a.2: what it says is not whole");
	MRCACHE(&e, "run", option, "sh", "-c", SAYS(BEGAN ENDED "{", "a.1"));
	assert_status(&e, 123);
	snprintf(option, sizeof(option), "rm -r %s", directory);
	assert_int_equal(system(option), 0);
}

/* As what a daemon starts may be. */
CASE_IN(verify_where_children_are_ignored, with_library, without_library)
{
	NEEDS_COMMAND();
	assert_true(execute_begin(
		&e, &(const struct as){0},
		(const char *const[]){"/usr/bin/env", "--ignore-signal=CHLD",
				      command_path(), "run", "--verify", "sh",
				      "-c", "exit 7", NULL}));
	execute_end(&e);
	assert_status(&e, 7);
}

CASE_IN(guards_by_name, with_library, without_library)
{
	NEEDS_COMMAND();
	setenv("MRCACHE_GUARD", "ucx,mpi", 1);
	setenv("MRCACHE_GUARD_UCX_HOOKS", "no", 1);
	MRCACHE(&e, "run", "true");
	assert_status(&e, 0);
	assert_err(&e, "MRCACHE_GUARD=ucx,mpi: not 0, 1, all, ucx, libfabric "
		       "or a list of them: all are guarded\n");
	assert_err(&e, "MRCACHE_GUARD_UCX_HOOKS=no: not 0 or 1");
	MRCACHE(&e, "doctor");
	assert_out(&e, "warn  settings  MRCACHE_GUARD=ucx,mpi");
	assert_out(&e, "warn  settings  MRCACHE_GUARD_UCX_HOOKS=no");
}

/* --- doctor ---------------------------------------------------------------------- */

CASE_IN(a_doctor_says_what_to_do, with_library, without_library)
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

CASE_IN(a_doctor_speaks_json, with_library, without_library)
{
	NEEDS_COMMAND();
	MRCACHE(&e, "doctor", "--json");
	assert_int_equal(e.out[0], '{');
	assert_out(&e, "\"check\": \"kernel\"");
	assert_out(&e, "\"status\": \"ok\"");
	assert_out(&e, "\"failed\": ");
	assert_out(&e, "\"host\": \"");
	assert_out(&e, "\"protected\": true");
	/* Nothing is left out for a name that is no text. */
	setenv("MRCACHE_\xff", "1", 1);
	MRCACHE(&e, "doctor", "--json");
	unsetenv("MRCACHE_\xff");
	assert_out(&e, "\"check\": \"settings\",\n      \"status\": \"warn\"");
	/* One for each host of a job, on a line. */
	setenv("MPI_LOCALRANKID", "0", 1);
	MRCACHE(&e, "doctor", "--json");
	assert_non_null(strchr(e.out, '\n'));
	assert_int_equal(strchr(e.out, '\n')[1], '\0');
	MRCACHE(&e, "doctor");
	assert_int_equal(e.out[strcspn(e.out, ":\n")], ':');
	setenv("MPI_LOCALRANKID", "1", 1);
	MRCACHE(&e, "doctor");
	assert_status(&e, 0);
	assert_string_equal(e.out, "");
	unsetenv("MPI_LOCALRANKID");
	assert_string_equal(e.err, "");
}

/* As srun starts it: four tasks on two nodes, of which it is told no other way. */
CASE_IN(a_doctor_on_each_node_of_srun, with_library, without_library)
{
	static const char *const tasks[][2] = {
		{"0", "0"}, {"1", "1"}, {"2", "0"}, {"3", "1"}};
	char head[160] = "";

	NEEDS_COMMAND();
	gethostname(head, 128);
	strcat(head, ":\n");
	for (size_t i = 0; i < 4; i++) {
		setenv("SLURM_PROCID", tasks[i][0], 1);
		setenv("SLURM_LOCALID", tasks[i][1], 1);
		MRCACHE(&e, "doctor");
		if (*tasks[i][1] == '0')
			assert_int_equal(strncmp(e.out, head, strlen(head)), 0);
		else
			assert_string_equal(e.out, "");
		/* A node that fails must fail the step, by whichever task. */
		assert_status(&e, *tasks[i][1] == '0');
	}
	unsetenv("SLURM_PROCID");
	unsetenv("SLURM_LOCALID");
}

CASE_IN(a_small_memlock, with_library, without_library)
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
	good.counts[STAT_GUARDED] = 20;
	good.counts[STAT_GUARD_REFUSED] = 6;
	good.counts[STAT_GUARD_TOLD] = 8;
	good.counts[STAT_FORK_RELEASES] = 9;
	good.threads[0].guard_checked = 300;
	good.threads[7].guard_checked = 33;
	good.unguarded = 1u << STACK_OPENMPI | UNGUARDED_VERBS;
	good.turned_off = 1u << STACK_UCX;
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

CASE_IN(counters_are_shown, new_counters, no_counters)
{
	NEEDS_COMMAND();
	put();
	MRCACHE(&e, "stat", self());
	assert_status(&e, 0);
	assert_out(&e,
		   "    752     48  94.0%      3      5     14     11   640K "
		   "    2 program\n");
	assert_out(&e, "bypassed: remote 13, memory 1\n");
	assert_out(&e, "        guarded: 20, checked 333, refused 6, told 8\n");
	assert_out(&e, "        turned off: UCX\n"
		       "        not guarded: Open MPI, deep binding\n");
	assert_string_equal(e.err, "");
	lines_fit(e.out);
	MRCACHE(&e, "stat", "--json", self());
	assert_status(&e, 0);
	assert_out(&e, "\"hits\": 752");
	assert_out(&e, "\"misses\": 48");
	assert_out(&e, "\"hit_rate\": 0.94");
	assert_out(&e, "\"cached_bytes\": 655360");
	assert_out(&e, "\"remote\": 13");
	assert_out(&e, "\"guard_checked\": 333");
	assert_out(&e, "\"guard_refused\": 6");
	assert_out(&e, "\"guard_told\": 8");
	assert_out(&e, "\"fork_releases\": 9");
	assert_out(&e, "\"Open MPI\",\n");
	/* Without a number: at least this one. */
	MRCACHE(&e, "stat");
	assert_status(&e, 0);
	assert_out(&e, " program\n");
	/* It is alive, so its file stays. */
	assert_int_equal(access(path, F_OK), 0);
}

/* Of a process that runs, as this one does, by its counters. */
CASE_IN(verify_says_so_far_at_a_signal, new_counters, no_counters)
{
	char script[512], host[128] = "", go[] = "/tmp/mrcache-go.XXXXXX";
	int fd = mkstemp(go);

	if (fd >= 0)
		close(fd);
	NEEDS_COMMAND();
#ifdef __SANITIZE_THREAD__ /* which keeps signals until waitpid() returns */
	unlink(go);
	skip();
#endif
	with_library(state); /* the build may have no shim */
	good.unguarded = 0;
	good.counts[STAT_REGISTRATIONS] = 57;
	put();
	gethostname(host, sizeof(host) - 1);
	/* It goes on when the file is gone. */
	snprintf(script, sizeof(script),
		 "exec >$MRCACHE_VERIFY/a.1; printf '{\"host\":\"%s\","
		 "\"pid\":%s,\"command\":\"x\",\"began\":true}\\n'; "
		 "kill -s RTMIN $PPID; "
		 "while [ -e %s ]; do sleep 0.05; done; printf '" ENDED "'",
		 host, self(), go);
	for (int protected = 1; protected >= 0; protected --) {
		const char *says = protected
					   ? "verified so far: 1 process (1 "
					     "running) on this host registered "
					     "memory 57 times, 20 of these"
					   : "not verified so far: of 1 "
					     "processes 1 were not protected";

		e.err[0] = '\0';
		assert_true(execute_begin(
			&e, &(const struct as){0},
			(const char *const[]){NULL, "run", "--verify", "sh",
					      "-c", script, NULL}));
		for (int i = 0; i < 2000 && !strstr(e.err, " so far"); i++) {
			usleep(10000);
			execute_collect(&e);
		}
		unlink(go);
		execute_end(&e);
		assert_status(&e, 0);
		assert_err(&e, says);
		assert_err(&e, "verified: 1 process on this host registered "
			       "memory 5 times");
		good.unguarded = 1u << STACK_OPENMPI;
		put();
		fd = open(go, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
		if (fd >= 0)
			close(fd);
	}
	unlink(go);
	without_library(state);
}

CASE_IN(large_counters_keep_their_column, new_counters, no_counters)
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

CASE_IN(a_watch_ends_with_ctrl_c, new_counters, no_counters)
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

CASE_IN(a_watch_ends_with_the_process, new_counters, no_counters)
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

CASE_IN(nothing_to_show, new_counters, no_counters)
{
	NEEDS_COMMAND();
	MRCACHE(&e, "stat", self());
	assert_status(&e, 1);
	assert_err(&e, "has no cache");
	MRCACHE(&e, "stat", "2147483647");
	assert_status(&e, 1);
	assert_err(&e, "there is no process 2147483647");
}

CASE_IN(files_cut_short, new_counters, no_counters)
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

CASE_IN(files_with_wrong_content, new_counters, no_counters)
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

CASE_IN(names_are_not_trusted, new_counters, no_counters)
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

CASE_IN(other_kinds_of_files, new_counters, no_counters)
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

CASE_IN(files_others_can_write, new_counters, no_counters)
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

CASE_IN(files_of_other_users, new_counters, no_counters)
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

CASE_IN(dead_processes_are_cleared_away, new_counters, no_counters)
{
	NEEDS_COMMAND();
	good.started--; /* another process had this number */
	put();
	MRCACHE(&e, "stat", self());
	assert_status(&e, 1);
	assert_int_equal(access(path, F_OK), -1);
}

/* It may live in another PID namespace. */
CASE_IN(what_is_mapped_is_not_cleared_away, new_counters, no_counters)
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

/* One that calls the library itself, as this program does. */
CASE_IN(users_of_the_library, new_counters, no_counters)
{
	struct mrcache *first, *second;
	struct mrcache_attr attr;

	NEEDS_COMMAND();
	mrcache_attr_init(&attr);
	attr.monitor = "none";
	first = mrcache_open(&attr);
	second = mrcache_open(&attr);
	assert_true(first && second);
	MRCACHE(&e, "stat", "--json", self());
	assert_status(&e, 0);
	assert_out(&e, "\"command\": \"test_cli\"");
	assert_out(&e, "\"monitor\": \"none\"");
	/* The first has it, and the next after that. */
	assert_string_not_equal((char *)first->counters->command, "");
	assert_string_equal((char *)second->counters->command, "");
	assert_int_equal(mrcache_close(first), 0);
	first = mrcache_open(&attr);
	assert_string_not_equal((char *)first->counters->command, "");
	/* A child's end is not its end. */
	fflush(NULL);
	e.pid = fork();
	if (!e.pid)
		exit(0);
	waitpid(e.pid, NULL, 0);
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(mrcache_close(first), 0);
	assert_int_equal(mrcache_close(second), 0);
}

/* The signal of RLIMIT_FSIZE would end the program. */
CASE_IN(a_limit_of_file_sizes_costs_the_file_only, new_counters, no_counters)
{
	struct rlimit limit = {0, RLIM_INFINITY};
	struct mrcache_attr attr;
	int status;

	mrcache_attr_init(&attr);
	attr.monitor = "none";
	e.pid = fork();
	if (!e.pid) {
		getrlimit(RLIMIT_FSIZE, &limit);
		limit.rlim_cur = 0;
		setrlimit(RLIMIT_FSIZE, &limit);
		_exit(!mrcache_open(&attr));
	}
	waitpid(e.pid, &status, 0);
	assert_int_equal(status, 0);
}

CASE_IN(names_that_are_nearly_right, new_counters, no_counters)
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

CASE(every_option_is_described)
{
	static const char *const commands[] = {"run", "env", "doctor", "stat"};
	char option[64], want[80];
	const char *text;

	NEEDS_COMMAND();
	if (!source("docs/man/mrcache.1"))
		skip();
	for (size_t i = 0; i < 4; i++) {
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

CASE(every_setting_is_described)
{
	const char *text = source("docs/man/mrcache.7"), *name;
	char want[80];

	if (!text)
		skip();
	assert_non_null(strstr(text, ".It Ev MRCACHE_GUARD\n"));
	assert_non_null(strstr(text, ".It Ev MRCACHE_GUARD_UCX_HOOKS\n"));
	/* What is exported to turn a stack's cache off. */
	for (int i = 0; i < STACKS; i++)
		for (int j = 0; j < STACK_VARIABLES; j++) {
			const struct stack_variable *variable =
				&known_stacks[i].variables[j];

			if (!variable->off)
				continue;
			snprintf(want, sizeof(want), ".Ev %s Ns = Ns Li %s",
				 variable->name, variable->off);
			if (!strstr(text, want))
				fail_msg("mrcache(7) lacks %s", want);
		}
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

int main(void)
{
	alarm(150);
	return run_cases(plain_environment, NULL);
}
