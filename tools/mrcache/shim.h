/* SPDX-License-Identifier: BSD-2-Clause */
/* Where libmrcache-preload.so is. */
#ifndef MRCACHE_SHIM_H
#define MRCACHE_SHIM_H

#include <stddef.h>

/*
 * Its absolute path: MRCACHE_PRELOAD, or installed with this command, or from
 * the same build. Returns 0, or -errno; path then names what was looked for.
 */
int shim_find(char *path, size_t size);

#endif /* MRCACHE_SHIM_H */
