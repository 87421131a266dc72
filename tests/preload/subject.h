/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For the programs that run plain and under the shim: each has modes, and ends
 * with 0 if all checks of the mode held. SUBJECT_CACHES=1 in the environment
 * says that registrations are cached.
 */
#ifndef TESTS_PRELOAD_SUBJECT_H
#define TESTS_PRELOAD_SUBJECT_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                 \
	do {                                                             \
		if (!(condition)) {                                      \
			fprintf(stderr, "%s:%d: %s: not %s\n", __FILE__, \
				__LINE__, __func__, #condition);         \
			_exit(1);                                        \
		}                                                        \
	} while (0)

#define CHECK_EQUAL(is, should)                                              \
	do {                                                                 \
		long long is_ = (long long)(is),                             \
			  should_ = (long long)(should);                     \
                                                                             \
		if (is_ != should_) {                                        \
			fprintf(stderr, "%s:%d: %s: %s is %lld, not %lld\n", \
				__FILE__, __LINE__, __func__, #is, is_,      \
				should_);                                    \
			_exit(1);                                            \
		}                                                            \
	} while (0)

struct mode {
	const char *name;
	void (*function)(void);
};

static inline bool caches(void)
{
	return getenv("SUBJECT_CACHES") != NULL;
}

static inline int run_mode(const struct mode *modes, const char *name)
{
	for (; modes->name; modes++)
		if (name && !strcmp(modes->name, name)) {
			modes->function();
			return 0;
		}
	fprintf(stderr, "no mode %s\n", name ? name : "given");
	return 2;
}

#endif /* TESTS_PRELOAD_SUBJECT_H */
