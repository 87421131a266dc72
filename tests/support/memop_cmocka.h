/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory operations in the cases of a test. */
#ifndef TESTS_SUPPORT_MEMOP_CMOCKA_H
#define TESTS_SUPPORT_MEMOP_CMOCKA_H

#include "case.h"
#include "memop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Skips the test, with the reason, where this machine cannot do it. */
static inline void make(struct memop_buffer *b, const struct memop *op,
			size_t size)
{
	const char *reason = memop_missing(op);
	int ret;

	if (reason) {
		print_message("# skipped: %s: %s\n", op->name, reason);
		skip();
	}
	ret = memop_make(b, op, size);
	if (ret)
		fail_msg("%s: making the memory: %s", op->name, strerror(-ret));
}

static inline void perform(struct memop_buffer *b)
{
	int ret = memop_perform(b);

	if (ret)
		fail_msg("%s: %s", b->op->name, strerror(-ret));
}

/* A case for each memory operation that is wanted (NULL: all), PREFIX and its name. */
static inline void add_memops(const char *prefix, CMUnitTestFunction f,
			      bool (*wanted)(const struct memop *op))
{
	for (size_t i = 0; i < memop_count(); i++) {
		const struct memop *op = memop_get(i);
		char *name;

		if (wanted && !wanted(op))
			continue;
		/* Until the program ends. */
		if (asprintf(&name, "%s%s", prefix, op->name) < 0)
			abort();
		add_cases(
			&(const struct CMUnitTest){.name = name,
						   .test_func = f,
						   .initial_state = (void *)op},
			1);
	}
}

#endif /* TESTS_SUPPORT_MEMOP_CMOCKA_H */
