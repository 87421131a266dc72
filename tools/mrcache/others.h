/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Other caches of registrations. One on top of mrcache holds what it has for
 * ever, so that mrcache can neither evict nor take back what became stale.
 */
#ifndef MRCACHE_OTHERS_H
#define MRCACHE_OTHERS_H

#include <stdbool.h>

#define OTHERS 3

struct other {
	const char *name;
	const char *library;	/* how the name of its library begins */
	const char *switch_off; /* what to set in the environment */
	bool (*is_off)(void);	/* in this environment */
};

extern const struct other others[OTHERS];

/* Its library is among those the dynamic linker knows. */
bool other_is_installed(const struct other *other);

#endif /* MRCACHE_OTHERS_H */
