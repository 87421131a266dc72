/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Another library to preload, such as a profiler: its getppid() and its
 * ibv_dealloc_pd() stand in front of others, which it finds by RTLD_NEXT.
 */
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

struct ibv_pd;

/* So that whoever asks can tell that the tool was there. */
EXPORT unsigned int tool_calls;

EXPORT pid_t getppid(void)
{
	pid_t (*next)(void) = (pid_t(*)(void))dlsym(RTLD_NEXT, "getppid");

	/* Our own would mean that dlsym() took somebody else for the caller. */
	if (!next || next == getppid)
		abort();
	tool_calls++;
	return next();
}

EXPORT int ibv_dealloc_pd(struct ibv_pd *pd)
{
	int (*next)(struct ibv_pd *) =
		(int (*)(struct ibv_pd *))dlsym(RTLD_NEXT, "ibv_dealloc_pd");

	if (!next || next == ibv_dealloc_pd)
		abort();
	tool_calls++;
	return next(pd);
}
