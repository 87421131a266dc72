/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The driver's module, for tests that load it anew. Its file is named by
 * $UMN_MODULE or is where the guest's launcher puts it. Each returns 0 or
 * -errno.
 */
#ifndef TESTS_SUPPORT_MODULE_H
#define TESTS_SUPPORT_MODULE_H

/* Returns when the device's node is there. */
int module_load(const char *parameters);

int module_unload(void);

/* Leaves the module as it is if it could not be loaded again. */
int module_reload(const char *parameters);

#endif /* TESTS_SUPPORT_MODULE_H */
