/* SPDX-License-Identifier: BSD-2-Clause */
/* How long tests wait for what must come. */
#ifndef TESTS_SUPPORT_PATIENCE_H
#define TESTS_SUPPORT_PATIENCE_H

#include <stdlib.h>
#include <unistd.h>

/*
 * Seconds: enough on the busiest machine, or as few as TEST_PATIENCE in the
 * environment, which tests/runner/mutant sets where a test is to fail.
 */
static inline unsigned int patience(unsigned int seconds)
{
	const char *few = getenv("TEST_PATIENCE");
	unsigned long n = few ? strtoul(few, NULL, 10) : 0;

	return n && n < seconds ? (unsigned int)n : seconds;
}

/* Waits until `condition` is true, for so many seconds at the most: whether it is. */
#define COMES(condition, seconds)                              \
	({                                                     \
		unsigned int left_ = 1000 * patience(seconds); \
                                                               \
		for (; !(condition) && left_; left_--)         \
			usleep(1000);                          \
		left_ > 0 || (condition);                      \
	})

#endif /* TESTS_SUPPORT_PATIENCE_H */
