/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The functions behind the shim: those of libibverbs, which may be loaded
 * later than the shim and out of sight of dlsym(RTLD_NEXT), and libc's dlsym
 * and dlvsym, which the shim itself stands in front of.
 */
#ifndef MRC_REAL_H
#define MRC_REAL_H

#include <stdbool.h>

/*
 * libibverbs' function of that name and version, or NULL: it is not yet loaded,
 * or if *loaded (may be NULL), it has none.
 */
void *real_verb(const char *name, const char *version, bool *loaded);

typedef void *dlsym_fn(void *handle, const char *name);
typedef void *dlvsym_fn(void *handle, const char *name, const char *version);

dlsym_fn *real_dlsym(void);
dlvsym_fn *real_dlvsym(void);

#endif /* MRC_REAL_H */
