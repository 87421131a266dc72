/* SPDX-License-Identifier: BSD-2-Clause */
/* The MRCACHE_* variables of the environment: whether they make sense. */
#ifndef MRCACHE_SETTINGS_H
#define MRCACHE_SETTINGS_H

#include <mrcache.h>
#include <stdbool.h>

/*
 * A variable that is wrong. `name` is NULL if it is not one alone; `fatal` if
 * with it nothing would be cached.
 */
typedef void settings_fn(void *arg, const char *name, const char *why,
			 bool fatal);

/*
 * Calls fn for each. The environment is the same afterwards. *attr is what
 * the shim will do, where it can be told.
 */
void settings_check(struct mrcache_attr *attr, settings_fn *fn, void *arg);

#endif /* MRCACHE_SETTINGS_H */
