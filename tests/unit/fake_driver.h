/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The driver without a kernel: FAKE_DEVICE can be opened while there is a fake
 * monitor behind it, and speaks docs/abi.md as far as the library does. Without
 * state words it is the driver of 2010.
 */
#ifndef TESTS_UNIT_FAKE_DRIVER_H
#define TESTS_UNIT_FAKE_DRIVER_H

#include "fake_monitor.h"

#define FAKE_DEVICE "/dev/fake-ummunotify"

/* NULL: there is no such device. The monitor needs FAKE_FD. */
void fake_driver(struct fake_monitor *monitor);

/* For fake_system.c: what is done to the device's descriptor. */
bool fake_driver_has(int fd);
int fake_driver_open(void);
int fake_driver_ioctl(unsigned long request, void *arg);
void *fake_driver_mmap(size_t size, bool states);
long fake_driver_read(void *buffer, size_t size);

#endif /* TESTS_UNIT_FAKE_DRIVER_H */
