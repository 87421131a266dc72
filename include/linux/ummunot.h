/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR BSD-2-Clause */
/*
 * The names of 2009, for sources written then; what they name is in
 * linux/ummunotify.h, and docs/abi.md describes it.
 */
#ifndef _LINUX_UMMUNOT_H
#define _LINUX_UMMUNOT_H

#include <linux/ummunotify.h>

#define UMMUNOT_MAGIC UMMUNOTIFY_MAGIC

#define UMMUNOT_EVENT_TYPE_INVAL UMMUNOTIFY_EVENT_TYPE_INVAL
#define UMMUNOT_EVENT_TYPE_LAST UMMUNOTIFY_EVENT_TYPE_LAST
#define UMMUNOT_EVENT_FLAG_HINT UMMUNOTIFY_EVENT_FLAG_HINT

#define ummunot_event ummunotify_event

#endif /* _LINUX_UMMUNOT_H */
