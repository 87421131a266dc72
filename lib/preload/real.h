/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The functions behind the shim: those of libibverbs and libfabric, which may
 * be loaded later than the shim and out of sight of dlsym(RTLD_NEXT), and libc's
 * dlsym and dlvsym, which the shim itself stands in front of.
 */
#ifndef MRC_REAL_H
#define MRC_REAL_H

#include <stdbool.h>

/*
 * The function of that name (ibv_... or fi_...) and version, or NULL: its library
 * is not yet loaded, or if *is_loaded (may be NULL), has none.
 */
void *real_function(const char *name, const char *version, bool *is_loaded);

typedef void *dlsym_fn(void *handle, const char *name);
typedef void *dlvsym_fn(void *handle, const char *name, const char *version);

dlsym_fn *real_dlsym(void);
dlvsym_fn *real_dlvsym(void);

#endif /* MRC_REAL_H */
