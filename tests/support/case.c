/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Part of every test program: runs only the cases that the pattern (with * and ?)
 * in MRCACHE_TEST_CASE matches.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

static __attribute__((constructor)) void choose_cases(void)
{
	static char kept[256];
	const char *pattern = getenv("MRCACHE_TEST_CASE");

	if (!pattern)
		return;
	snprintf(kept, sizeof(kept), "%s", pattern);
	if (*kept)
		cmocka_set_test_filter(kept);
	/* For what is tested it would be a setting that does not exist. */
	unsetenv("MRCACHE_TEST_CASE");
}
