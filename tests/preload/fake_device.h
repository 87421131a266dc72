/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the shim of the tests exports besides the shim's own: programs that run
 * under it look these up with dlsym(RTLD_DEFAULT, ...).
 */
#ifndef TESTS_PRELOAD_FAKE_DEVICE_H
#define TESTS_PRELOAD_FAKE_DEVICE_H

#include <stddef.h>

/* The memory in a range changes. */
void fake_invalidate(const void *addr, size_t length);
/* From now on what was invalidated cannot be read. */
void fake_break(void);
/* Watches there are. */
unsigned int fake_watches(void);

#endif /* TESTS_PRELOAD_FAKE_DEVICE_H */
