/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Makes older kernels look like the newest one, so that the driver is written
 * once. Included before every source by Kbuild, which finds out by looking
 * into the kernel's headers (HAVE_*), because distributions backport and
 * version numbers then lie.
 */
#ifndef UMMUNOTIFY_COMPAT_H
#define UMMUNOTIFY_COMPAT_H

#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 1, 0)
#error "ummunotify needs Linux 6.1 or later"
#endif

#ifndef CONFIG_MMU_NOTIFIER
#error "ummunotify needs a kernel with CONFIG_MMU_NOTIFIER"
#endif

#ifndef HAVE_VM_FLAGS_SET
static inline void vm_flags_set(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags |= flags;
}

static inline void vm_flags_clear(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags &= ~flags;
}
#endif

#endif /* UMMUNOTIFY_COMPAT_H */
