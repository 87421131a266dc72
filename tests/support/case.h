/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The cases of a test program, in the order of its file. cmocka runs them; those
 * that MRCACHE_TEST_CASE names, if it is set: a pattern with * and ?.
 */
#ifndef TESTS_SUPPORT_CASE_H
#define TESTS_SUPPORT_CASE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/*
 * A case, whose body follows; it has `state`. What stands behind its name are
 * members of struct CMUnitTest.
 */
#define CASE(f, ...)                                                 \
	static void f(void **state);                                 \
	static __attribute__((constructor)) void f##_case(void)      \
	{                                                            \
		add_cases(&(const struct CMUnitTest){.name = #f,     \
						     .test_func = f, \
						     __VA_ARGS__},   \
			  1);                                        \
	}                                                            \
	static void f(void **state __attribute__((unused)))

/* One with what comes before and after it, or NULL. */
#define CASE_IN(f, set_up, tear_down) \
	CASE(f, .setup_func = set_up, .teardown_func = tear_down)

/* Cases that differ in their arguments: an array. */
#define CASES(table)                                                  \
	static __attribute__((constructor)) void table##_cases(void)  \
	{                                                             \
		add_cases(table, sizeof(table) / sizeof((table)[0])); \
	}                                                             \
	_Static_assert(1, "")

/* Copies them: n, not more than 512 in all. */
void add_cases(const struct CMUnitTest *cases, size_t n);

/* Runs them, once; how many have failed. */
int run_cases(CMFixtureFunction set_up, CMFixtureFunction tear_down);

#endif
