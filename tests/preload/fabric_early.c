/* SPDX-License-Identifier: BSD-2-Clause */
/* A library that opens a fabric in its constructor. */
#include <stddef.h>
#include <stdlib.h>

int fi_fabric(void *attr, void **fabric, void *context);

static __attribute__((constructor)) void begin(void)
{
	setenv("FABRIC_LOADING", "1", 1);
	if (fi_fabric(NULL, NULL, NULL) != -61)
		abort();
}
