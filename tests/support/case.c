/* SPDX-License-Identifier: BSD-2-Clause */
#include "case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct CMUnitTest all[512];
static size_t count;

void add_cases(const struct CMUnitTest *cases, size_t n)
{
	if (n > sizeof(all) / sizeof(all[0]) - count) {
		fputs("too many cases\n", stderr);
		abort();
	}
	memcpy(all + count, cases, n * sizeof(*cases));
	count += n;
}

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

int run_cases(CMFixtureFunction set_up, CMFixtureFunction tear_down)
{
	return _cmocka_run_group_tests("tests", all, count, set_up, tear_down);
}
