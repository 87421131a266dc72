/* SPDX-License-Identifier: BSD-2-Clause */
/* A memory cgroup for a test. Each returns 0 or -errno, and asserts nothing. */
#ifndef TESTS_SUPPORT_MEMCG_H
#define TESTS_SUPPORT_MEMCG_H

#include <stddef.h>

/* Makes it, empty and without a limit. To be dropped also if that failed. */
int memcg_make(void);
void memcg_drop(void);

/* In bytes, beyond which the kernel ends processes in it. */
int memcg_limit(size_t bytes);

/* Moves the calling process into it. */
int memcg_enter(void);

#endif /* TESTS_SUPPORT_MEMCG_H */
