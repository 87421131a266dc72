/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Makes older kernels look like the newest one, so that the driver is written
 * once. Included before every source by Kbuild, which finds out by looking
 * into the kernel's headers (HAVE_*), because distributions backport and
 * version numbers then lie. What cannot be stood in for is refused by name.
 */
#ifndef UMMUNOTIFY_COMPAT_H
#define UMMUNOTIFY_COMPAT_H

#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/rbtree.h>

#ifndef CONFIG_MMU_NOTIFIER
#error "ummunotify needs a kernel with CONFIG_MMU_NOTIFIER"
#endif

#ifndef CONFIG_64BIT
#error "ummunotify needs a 64-bit kernel: the counter is written in one piece"
#endif

/* Before 6.9 a kernel does not say it of itself: these are the 64-bit ones. */
#if defined(CONFIG_ARCH_HAS_CPU_CACHE_ALIASING) || defined(CONFIG_MIPS) || \
	defined(CONFIG_PARISC) || defined(CONFIG_SPARC)
#error "ummunotify needs data caches without aliases: programs map its pages"
#endif

#ifndef HAVE_MMU_NOTIFIER_GET
#error "ummunotify needs a kernel with mmu_notifier_get()"
#endif

#ifndef HAVE_MMU_NOTIFY_CLEAR
#error "ummunotify needs a kernel whose invalidations have kinds (MMU_NOTIFY_CLEAR)"
#endif

#ifndef HAVE_MMAP_READ_LOCK
#error "ummunotify needs a kernel with mmap_read_lock_killable()"
#endif

#ifndef HAVE_GET_USER_PAGES_FAST_ONLY
#error "ummunotify needs a kernel with get_user_pages_fast_only()"
#endif

#ifndef HAVE_COPY_STRUCT_FROM_USER
#error "ummunotify needs a kernel with copy_struct_from_user()"
#endif

#ifndef HAVE_COPY_TO_USER_NOFAULT
#error "ummunotify needs a kernel with copy_to_user_nofault()"
#endif

#ifndef HAVE_COMPAT_PTR_IOCTL
#error "ummunotify needs a kernel with compat_ptr_ioctl()"
#endif

/* Nobody raises it. */
#ifndef HAVE_MMU_NOTIFY_EXCLUSIVE
#define MMU_NOTIFY_EXCLUSIVE (~0U)
#endif

/*
 * For pages that programs map. PG_kmemcg, which marks an accounted page, is in
 * the place of its map count: such a page must not be mapped. It counts towards
 * the user's limit all the same.
 */
#ifdef HAVE_PG_KMEMCG
#define UMN_GFP_MAPPED GFP_KERNEL
#else
#define UMN_GFP_MAPPED GFP_KERNEL_ACCOUNT
#endif

#ifndef HAVE_RB_FIND_ADD
static inline struct rb_node *
rb_find(const void *key, const struct rb_root *tree,
	int (*cmp)(const void *key, const struct rb_node *node))
{
	struct rb_node *node = tree->rb_node;

	while (node) {
		int order = cmp(key, node);

		if (!order)
			break;
		node = order < 0 ? node->rb_left : node->rb_right;
	}
	return node;
}

/* Returns the node that is there already, or NULL. */
static inline struct rb_node *
rb_find_add(struct rb_node *node, struct rb_root *tree,
	    int (*cmp)(struct rb_node *node, const struct rb_node *parent))
{
	struct rb_node **link = &tree->rb_node, *parent = NULL;

	while (*link) {
		int order = cmp(node, *link);

		if (!order)
			return *link;
		parent = *link;
		link = order < 0 ? &parent->rb_left : &parent->rb_right;
	}
	rb_link_node(node, parent, link);
	rb_insert_color(node, tree);
	return NULL;
}
#endif

#ifndef HAVE_FOR_EACH_VMA_RANGE
#define VMA_ITERATOR(name, of_mm, from)                  \
	struct {                                         \
		struct mm_struct *mm;                    \
		unsigned long at;                        \
	} name = { .mm = (of_mm), .at = (from) }

#define for_each_vma_range(iterator, vma, end)                          \
	for (vma = find_vma((iterator).mm, (iterator).at);              \
	     vma && vma->vm_start < (end);                              \
	     vma = vma->vm_next)
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
