/* SPDX-License-Identifier: BSD-2-Clause */
/* Attributes: defaults, the environment variables that override them, checks. */
#ifndef MRC_CONFIG_H
#define MRC_CONFIG_H

#include "mrcache.h"

/*
 * A caller's attr, of whatever size, as this library's: 0; -EINVAL (said) for one
 * that was never initialised; -E2BIG (said) if it asks for what is not known here.
 */
int mrc_attr_take(struct mrcache_attr *attr, const struct mrcache_attr *given);

/*
 * attr checked, then with the environment applied: 0, or -EINVAL (said), for the
 * program's mistake or the environment's.
 */
int mrc_config_program(struct mrcache_attr *attr);
int mrc_config_environment(struct mrcache_attr *attr);

/* Both. */
int mrc_config(struct mrcache_attr *attr);

/* The name of the nth environment variable it looks at, or NULL. */
const char *mrc_config_variable(size_t n);

#endif /* MRC_CONFIG_H */
