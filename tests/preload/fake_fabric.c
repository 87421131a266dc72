/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A libfabric.so.1 of which only the beginning matters: it is initialised by the
 * first call, with the dynamic linker's help. With FABRIC_RACE in the environment
 * a library is being loaded by then whose constructor comes here, too.
 */
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

struct fi_param;

int fi_getparams(struct fi_param **params, int *count);
void fi_freeparams(struct fi_param *params);
int fi_open(uint32_t version, const char *name, void *attr, size_t attr_len,
	    uint64_t flags, void **fid, void *context);
int fi_fabric(void *attr, void **fabric, void *context);

static void initialize(void)
{
	static atomic_bool begun;
	void *self;

	if (atomic_exchange(&begun, true) || !getenv("FABRIC_RACE"))
		return;
	setenv("FABRIC_BEGUN", "1", 1);
	while (!getenv("FABRIC_LOADING"))
		usleep(1000);
	/* Time for the constructor to run into what we hold. */
	usleep(300000);
	self = dlopen("libfabric.so.1", RTLD_LAZY | RTLD_NOLOAD);
	if (self)
		dlclose(self);
}

EXPORT int fi_getparams(struct fi_param **params, int *count)
{
	initialize();
	*params = NULL;
	*count = 0;
	return 0;
}

EXPORT void fi_freeparams(struct fi_param *params)
{
	(void)params;
}

/* There is no cache to import into. */
EXPORT int fi_open(uint32_t version, const char *name, void *attr,
		   size_t attr_len, uint64_t flags, void **fid, void *context)
{
	(void)version, (void)name, (void)attr, (void)attr_len, (void)flags;
	(void)fid, (void)context;
	return -38;
}

EXPORT int fi_fabric(void *attr, void **fabric, void *context)
{
	(void)attr, (void)fabric, (void)context;
	initialize();
	return -61;
}
