/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory operations in a cmocka test. To be included after <cmocka.h>. */
#ifndef TESTS_SUPPORT_MEMOP_CMOCKA_H
#define TESTS_SUPPORT_MEMOP_CMOCKA_H

#include "memop.h"

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

#endif /* TESTS_SUPPORT_MEMOP_CMOCKA_H */
