/* SPDX-License-Identifier: BSD-2-Clause */
#include "launcher.h"

#include <ctype.h>
#include <stddef.h>
#include <string.h>

static const struct {
	const char *name;
	enum launch kind;
} launchers[] = {
	/* MPI */
	{"mpirun", LAUNCH_JOB},
	{"mpiexec", LAUNCH_JOB},
	{"orterun", LAUNCH_JOB},
	{"oshrun", LAUNCH_JOB},
	{"shmemrun", LAUNCH_JOB},
	{"prterun", LAUNCH_JOB},
	{"prun", LAUNCH_JOB},
	{"mpirun_rsh", LAUNCH_JOB},
	{"torchrun", LAUNCH_JOB},
	/* batch systems */
	{"srun", LAUNCH_JOB},
	{"salloc", LAUNCH_JOB},
	{"sbatch", LAUNCH_JOB},
	{"flux", LAUNCH_JOB},
	{"jsrun", LAUNCH_JOB},
	{"aprun", LAUNCH_JOB},
	{"ibrun", LAUNCH_JOB},
	{"palsrun", LAUNCH_JOB},
	/* shells and interpreters */
	{"sh", LAUNCH_OTHER},
	{"bash", LAUNCH_OTHER},
	{"dash", LAUNCH_OTHER},
	{"busybox", LAUNCH_OTHER},
	{"zsh", LAUNCH_OTHER},
	{"ksh", LAUNCH_OTHER},
	{"csh", LAUNCH_OTHER},
	{"tcsh", LAUNCH_OTHER},
	{"fish", LAUNCH_OTHER},
	{"python", LAUNCH_OTHER},
	{"pypy", LAUNCH_OTHER},
	{"perl", LAUNCH_OTHER},
	{"ruby", LAUNCH_OTHER},
	{"julia", LAUNCH_OTHER},
	{"Rscript", LAUNCH_OTHER},
	{"java", LAUNCH_OTHER},
	{"node", LAUNCH_OTHER},
	{"make", LAUNCH_OTHER},
	{"ninja", LAUNCH_OTHER},
	{"parallel", LAUNCH_OTHER},
	{"xargs", LAUNCH_OTHER},
	/* wrappers */
	{"env", LAUNCH_OTHER},
	{"timeout", LAUNCH_OTHER},
	{"numactl", LAUNCH_OTHER},
	{"taskset", LAUNCH_OTHER},
	{"nice", LAUNCH_OTHER},
	{"ionice", LAUNCH_OTHER},
	{"chrt", LAUNCH_OTHER},
	{"nohup", LAUNCH_OTHER},
	{"setsid", LAUNCH_OTHER},
	{"stdbuf", LAUNCH_OTHER},
	{"time", LAUNCH_OTHER},
	{"prlimit", LAUNCH_OTHER},
	{"setpriv", LAUNCH_OTHER},
	{"hwloc-bind", LAUNCH_OTHER},
	{"gdb", LAUNCH_OTHER},
	{"strace", LAUNCH_OTHER},
	{"ltrace", LAUNCH_OTHER},
	{"perf", LAUNCH_OTHER},
	{"valgrind", LAUNCH_OTHER},
	{"mrcache", LAUNCH_OTHER},
	/* other users, hosts and containers */
	{"sudo", LAUNCH_DROPS},
	{"doas", LAUNCH_DROPS},
	{"su", LAUNCH_DROPS},
	{"runuser", LAUNCH_DROPS},
	{"ssh", LAUNCH_DROPS},
	{"pdsh", LAUNCH_DROPS},
	{"clush", LAUNCH_DROPS},
	{"docker", LAUNCH_DROPS},
	{"podman", LAUNCH_DROPS},
	{"systemd-run", LAUNCH_DROPS},
};

const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* "mpirun", "mpirun.openmpi", "mpiexec-hydra", "python3.11" and the like. */
static bool is_named(const char *file, const char *name)
{
	size_t length = strlen(name);
	const char *rest = file + length;

	return !strncmp(file, name, length) &&
	       (!*rest || strchr(".-", *rest) || isdigit((unsigned char)*rest));
}

static enum launch kind_of(const char *path)
{
	const char *name = base_name(path);

	for (size_t i = 0; i < sizeof(launchers) / sizeof(*launchers); i++)
		if (is_named(name, launchers[i].name))
			return launchers[i].kind;
	return LAUNCH_NOT;
}

enum launch launcher_kind(const struct program *program)
{
	enum launch kind = kind_of(program->path);

	if (kind == LAUNCH_NOT && *program->interpreter)
		kind = LAUNCH_OTHER;
	return kind;
}
