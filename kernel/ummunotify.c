// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * /dev/ummunotify: tells a process when its mappings change. One open file
 * watches ranges of the address space that opened it; the interface is in
 * docs/abi.md, the argument for the in-flight window in docs/design.md.
 *
 * What the driver does not do: pin, look at page tables, or keep anything
 * alive. It only remembers, inside the kernel's own invalidation, which watches
 * were hit.
 */
#include <linux/atomic.h>
#include <linux/fs.h>
#include <linux/idr.h>
#include <linux/interval_tree.h>
#include <linux/list.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/poll.h>
#include <linux/rbtree.h>
#include <linux/sched/mm.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/uaccess.h>
#include <linux/ummunotify.h>
#include <linux/wait.h>

#define CREATE_TRACE_POINTS
#include "ummunotify_trace.h"

static unsigned int max_watches = 1 << 20;
module_param(max_watches, uint, 0444);
MODULE_PARM_DESC(max_watches, "Watches one open file may have");

static ulong max_watches_total = 4 << 20;
module_param(max_watches_total, ulong, 0444);
MODULE_PARM_DESC(max_watches_total, "Watches all open files may have together");

#define UMN_FEATURES                                               \
	(UMMUNOTIFY_FEATURE_FILTER | UMMUNOTIFY_FEATURE_KIND | \
	 UMMUNOTIFY_FEATURE_STATE)

/* Ended watches with their slots that a file keeps for the next ones. */
#define UMN_SPARES 64

/* UMMUNOTIFY_KIND_* bits are counted by their position. */
#define UMN_KINDS 6

/*
 * Kinds that leave a pinned page the right one, whatever they do to the page
 * tables: the page's replacement, if any, is announced as CLEAR or UNMAP.
 */
#define UMN_HARMLESS                                                       \
	(UMMUNOTIFY_KIND_PROTECTION | UMMUNOTIFY_KIND_SOFT_DIRTY | \
	 UMMUNOTIFY_KIND_MIGRATE)

#define UMN_NO_SLOT U32_MAX
#define UMN_STATE_GENERATION (~0U << UMMUNOTIFY_STATE_GENERATION_SHIFT)
#define UMN_WORDS_PER_PAGE (PAGE_SIZE / sizeof(u32))
#define UMN_STATE_PGOFF (UMMUNOTIFY_STATE_OFFSET >> PAGE_SHIFT)
#define UMN_EVENTS_PER_READ (PAGE_SIZE / sizeof(struct ummunotify_event))

static struct kmem_cache *umn_watch_cache;
static atomic_long_t umn_total_watches;

/*
 * One watched range. Lives in umn_file::ranges and ::cookies, and on ::pending
 * while it has a report; or, when it has ended, on ::spares, where only slot
 * and state mean something. All of it is protected by umn_file::lock; range,
 * cookie and slot do not change.
 *
 * Two cache lines, since an invalidation may hit very many: what finds a watch
 * is in the first.
 */
struct umn_watch {
	struct interval_tree_node range; /* [start, last], both included */
	struct list_head pending;
	unsigned long hint_start; /* what the only hit covered, if hinted */
	unsigned long hint_end;
	u64 cookie;
	struct rb_node by_cookie;
	u32 window; /* the busy period it was armed in, 0 if none */
	u32 slot;   /* of its state word, UMN_NO_SLOT if from REGISTER */
	u32 state;  /* the word; what is mapped is only ever written */
	u8 kinds;   /* that hit since the last report */
	bool hinted;
	bool empty; /* end was given as start; last is start all the same */
};

/*
 * One open file.
 *
 * Lock order: read_lock, mmap_lock, whatever locks an invalidation is called
 * under (mmap_lock, VMA lock, i_mmap_rwsem, anon_vma, ...), lock. Nothing is
 * allocated and no user memory touched under `lock`, because reclaim calls
 * into the notifier, and read_lock is never taken inside the notifier, because
 * it is held while user memory is written.
 *
 * The in-flight window: `inflight` counts invalidations between their start
 * and their end. A period in which it is not zero is a `window`. A watch armed
 * in a window may have missed the start of an invalidation whose end is still
 * to come, so it remembers the window, and the end of any overlapping
 * invalidation in the same window hits it. No list of invalidations is needed.
 * When the number comes round, a watch of a window long ago is taken for one of
 * this; but that one the start of the invalidation has hit already.
 */
struct umn_file {
	struct mmu_notifier notifier;
	struct mm_struct *mm; /* the opener's; immutable, holds mm_count */

	spinlock_t lock; /* protects all down to `wait` */
	struct rb_root_cached ranges;
	struct rb_root cookies;
	struct list_head pending; /* watches with a report, oldest first */
	struct list_head spares;
	u32 spare_count;
	u64 generation;		  /* copied to *counter */
	u32 window;		  /* number of the latest window */
	unsigned long inflight[2]; /* by umn_is_harmless(kind) */
	unsigned long armed;	  /* watches armed in this window */
	u32 arm_count;		  /* makes state words differ */
	u32 watches;
	u32 pending_count;
	bool last_owed; /* a reader has not seen LAST yet */
	bool used;	/* too late for EXCHANGE_FEATURES */
	u64 hits[UMN_KINDS];
	u64 misses[UMN_KINDS];
	u64 late;

	wait_queue_head_t wait;
	struct fasync_struct *fasync;
	u32 features; /* read by umn_features(), written once under lock */
	atomic_long_t filtered[UMN_KINDS];

	struct mutex read_lock; /* serialises readers; protects events */
	struct ummunotify_event *events;

	struct ida slots;
	u64 *counter;	/* one page, mapped by user space; never read */
	u32 **words;	/* pages of state words, each NULL until needed;
			 * never read. Pages appear under words_lock */
	struct mutex words_lock;
};

/* ---- invalidation -------------------------------------------------------- */

static u32 umn_kind(const struct mmu_notifier_range *range)
{
	switch (range->event) {
	case MMU_NOTIFY_UNMAP:
		return UMMUNOTIFY_KIND_UNMAP;
	case MMU_NOTIFY_CLEAR:
		return UMMUNOTIFY_KIND_CLEAR;
	case MMU_NOTIFY_PROTECTION_VMA:
	case MMU_NOTIFY_PROTECTION_PAGE:
		return UMMUNOTIFY_KIND_PROTECTION;
	case MMU_NOTIFY_SOFT_DIRTY:
		return UMMUNOTIFY_KIND_SOFT_DIRTY;
	case MMU_NOTIFY_MIGRATE:
	case MMU_NOTIFY_EXCLUSIVE:
		return UMMUNOTIFY_KIND_MIGRATE;
	default:
		return UMMUNOTIFY_KIND_OTHER;
	}
}

static bool umn_is_harmless(u32 kind)
{
	return kind & UMN_HARMLESS;
}

/* Pairs with the release in umn_ioctl_exchange(): `words` is there too. */
static u32 umn_features(struct umn_file *file)
{
	return smp_load_acquire(&file->features);
}

/*
 * Both ends of an invalidation must get the same answer, or inflight would
 * drift. `features` changes at most once, before there is a watch; a harmless
 * invalidation in flight at that moment leaves inflight[1] too high, which is
 * why umn_busy() then ignores it.
 */
static bool umn_filters(struct umn_file *file, u32 kind)
{
	return umn_is_harmless(kind) &&
	       (umn_features(file) & UMMUNOTIFY_FEATURE_FILTER);
}

static bool umn_busy(struct umn_file *file)
{
	lockdep_assert_held(&file->lock);
	return file->inflight[0] ||
	       (file->inflight[1] && !umn_filters(file, UMN_HARMLESS));
}

static void umn_set_state(struct umn_file *file, struct umn_watch *watch, u32 state)
{
	lockdep_assert_held(&file->lock);
	watch->state = state;
	WRITE_ONCE(file->words[watch->slot / UMN_WORDS_PER_PAGE]
			      [watch->slot % UMN_WORDS_PER_PAGE], state);
}

/* From now on the next hit counts, also one that has already begun. */
static void umn_arm(struct umn_file *file, struct umn_watch *watch)
{
	lockdep_assert_held(&file->lock);
	watch->window = 0;
	if (umn_busy(file)) {
		watch->window = file->window;
		file->armed++;
	}
}

static void umn_arm_slot(struct umn_file *file, struct umn_watch *watch)
{
	u32 state = ++file->arm_count << UMMUNOTIFY_STATE_GENERATION_SHIFT;

	/* The generation has come round to that of this very watch. */
	if (state == (watch->state & UMN_STATE_GENERATION))
		state = ++file->arm_count << UMMUNOTIFY_STATE_GENERATION_SHIFT;
	umn_arm(file, watch);
	umn_set_state(file, watch, state);
}

static unsigned long umn_end(const struct umn_watch *watch)
{
	return watch->range.last + !watch->empty;
}

static void umn_pend(struct umn_file *file, struct umn_watch *watch)
{
	lockdep_assert_held(&file->lock);
	list_add_tail(&watch->pending, &file->pending);
	file->pending_count++;
}

static void umn_unpend(struct umn_file *file, struct umn_watch *watch)
{
	lockdep_assert_held(&file->lock);
	if (list_empty(&watch->pending))
		return;
	list_del_init(&watch->pending);
	file->pending_count--;
}

/* Returns whether user space has to be told. */
static bool umn_hit(struct umn_file *file, struct umn_watch *watch,
		    unsigned long start, unsigned long end, u32 kind, bool at_end)
{
	unsigned long hint_start = max(watch->range.start, start);
	unsigned long hint_end = min(umn_end(watch), end);

	lockdep_assert_held(&file->lock);
	watch->kinds |= kind;

	if (watch->slot != UMN_NO_SLOT) {
		bool told = watch->state & UMMUNOTIFY_STATE_KINDS;

		umn_set_state(file, watch, watch->state | kind);
		if (told && list_empty(&watch->pending))
			return false;
	}

	if (list_empty(&watch->pending)) {
		watch->hinted = true;
		watch->hint_start = hint_start;
		watch->hint_end = hint_end;
		umn_pend(file, watch);
		trace_ummunotify_report(file, watch->cookie, hint_start,
					hint_end - 1);
		return true;
	}

	/*
	 * Already reported, not yet read. The end of the very invalidation that
	 * was reported at its start says nothing new; any other one does.
	 */
	if (!at_end || watch->hint_start != hint_start || watch->hint_end != hint_end)
		watch->hinted = false;
	return !at_end && watch->slot == UMN_NO_SLOT;
}

/* At the end of an invalidation only watches armed in this window are hit. */
static bool umn_invalidate(struct umn_file *file,
			   const struct mmu_notifier_range *range, u32 kind,
			   bool at_end)
{
	unsigned long last = range->end - 1;
	struct interval_tree_node *node;
	unsigned int hits = 0;
	bool tell = false;

	lockdep_assert_held(&file->lock);
	if (range->start >= range->end)
		return false;

	for (node = interval_tree_iter_first(&file->ranges, range->start, last);
	     node; node = interval_tree_iter_next(node, range->start, last)) {
		struct umn_watch *watch = container_of(node, struct umn_watch, range);

		if (at_end && watch->window != file->window)
			continue;
		tell |= umn_hit(file, watch, range->start, range->end, kind, at_end);
		hits++;
	}

	if (tell) {
		/*
		 * Pairs with the acquire load in user space: who sees this
		 * generation sees the state words written above.
		 */
		smp_store_release(file->counter, ++file->generation);
	}
	if (at_end)
		file->late += tell;
	else if (hits)
		file->hits[ilog2(kind)]++;
	else
		file->misses[ilog2(kind)]++;
	if (hits)
		trace_ummunotify_invalidate(file, range->start, range->end, kind,
					    at_end, hits, file->generation);
	return tell;
}

/* The file cannot go away: unregistering waits for notifiers to return. */
static void umn_tell(struct umn_file *file)
{
	wake_up_interruptible(&file->wait);
	kill_fasync(&file->fasync, SIGIO, POLL_IN);
}

/*
 * Called from any task, with all kinds of locks held, sometimes where sleeping
 * is forbidden. current->mm means nothing here. Must return 0, or the kernel
 * would call the end of an invalidation that we had refused to see.
 */
static int umn_range_start(struct mmu_notifier *notifier,
			   const struct mmu_notifier_range *range)
{
	struct umn_file *file = container_of(notifier, struct umn_file, notifier);
	u32 kind = umn_kind(range);
	bool tell;

	if (umn_filters(file, kind)) {
		atomic_long_inc(&file->filtered[ilog2(kind)]);
		return 0;
	}

	spin_lock(&file->lock);
	if (!umn_busy(file)) {
		file->window++;
		file->armed = 0;
	}
	file->inflight[umn_is_harmless(kind)]++;
	tell = umn_invalidate(file, range, kind, false);
	spin_unlock(&file->lock);

	if (tell)
		umn_tell(file);
	return 0;
}

static void umn_range_end(struct mmu_notifier *notifier,
			  const struct mmu_notifier_range *range)
{
	struct umn_file *file = container_of(notifier, struct umn_file, notifier);
	u32 kind = umn_kind(range);
	unsigned long *inflight = &file->inflight[umn_is_harmless(kind)];
	bool tell = false;

	if (umn_filters(file, kind))
		return;

	spin_lock(&file->lock);
	if (file->armed)
		tell = umn_invalidate(file, range, kind, true);
	if (!WARN_ON_ONCE(!*inflight))
		--*inflight;
	spin_unlock(&file->lock);

	if (tell)
		umn_tell(file);
}

static const struct mmu_notifier_ops umn_notifier_ops = {
	.invalidate_range_start = umn_range_start,
	.invalidate_range_end = umn_range_end,
};

/* ---- watches ------------------------------------------------------------- */

static int umn_cmp_cookie(const void *key, const struct rb_node *node)
{
	u64 cookie = *(const u64 *)key;
	u64 other = rb_entry(node, struct umn_watch, by_cookie)->cookie;

	return cookie < other ? -1 : cookie > other;
}

static int umn_cmp_watch(struct rb_node *node, const struct rb_node *parent)
{
	return umn_cmp_cookie(&rb_entry(node, struct umn_watch, by_cookie)->cookie,
			      parent);
}

static struct umn_watch *umn_find(struct umn_file *file, u64 cookie)
{
	struct rb_node *node;

	lockdep_assert_held(&file->lock);
	node = rb_find(&cookie, &file->cookies, umn_cmp_cookie);
	return node ? rb_entry(node, struct umn_watch, by_cookie) : NULL;
}

/* Finds a slot for a state word and makes sure its page is there. */
static int umn_get_slot(struct umn_file *file, u32 *slot)
{
	u32 **page;
	int ret = ida_alloc_max(&file->slots, max_watches - 1, GFP_KERNEL_ACCOUNT);

	if (ret < 0)
		return ret;
	*slot = ret;

	page = &file->words[*slot / UMN_WORDS_PER_PAGE];
	if (READ_ONCE(*page))
		return 0;

	mutex_lock(&file->words_lock);
	if (!*page) {
		u32 *words = (u32 *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
		size_t i;

		if (!words) {
			mutex_unlock(&file->words_lock);
			ida_free(&file->slots, *slot);
			return -ENOMEM;
		}
		for (i = 0; i < UMN_WORDS_PER_PAGE; i++)
			words[i] = UMMUNOTIFY_STATE_FREE;
		/* Pairs with the acquire in umn_fault(). */
		smp_store_release(page, words);
	}
	mutex_unlock(&file->words_lock);
	return 0;
}

/* Programs end one watch and make another all the time. */
static bool umn_put_spare(struct umn_file *file, struct umn_watch *watch)
{
	bool room;

	spin_lock(&file->lock);
	room = file->spare_count < UMN_SPARES;
	if (room) {
		list_add(&watch->pending, &file->spares);
		file->spare_count++;
	}
	spin_unlock(&file->lock);
	return room;
}

static struct umn_watch *umn_get_spare(struct umn_file *file)
{
	struct umn_watch *watch;

	spin_lock(&file->lock);
	watch = list_first_entry_or_null(&file->spares, struct umn_watch, pending);
	if (watch) {
		list_del_init(&watch->pending);
		file->spare_count--;
		watch->kinds = 0;
	}
	spin_unlock(&file->lock);
	return watch;
}

static void umn_free_watch(struct umn_file *file, struct umn_watch *watch)
{
	atomic_long_dec(&umn_total_watches);
	if (watch->slot != UMN_NO_SLOT) {
		if (umn_put_spare(file, watch))
			return;
		ida_free(&file->slots, watch->slot);
	}
	kmem_cache_free(umn_watch_cache, watch);
}

static struct umn_watch *umn_alloc_watch(struct umn_file *file, bool with_slot)
{
	struct umn_watch *watch;
	int ret;

	if (atomic_long_inc_return(&umn_total_watches) > max_watches_total) {
		ret = -ENOSPC;
		goto err_count;
	}
	watch = with_slot ? umn_get_spare(file) : NULL;
	if (watch)
		return watch;
	watch = kmem_cache_zalloc(umn_watch_cache, GFP_KERNEL);
	if (!watch) {
		ret = -ENOMEM;
		goto err_count;
	}
	INIT_LIST_HEAD(&watch->pending);
	watch->slot = UMN_NO_SLOT;
	if (with_slot) {
		ret = umn_get_slot(file, &watch->slot);
		if (ret)
			goto err_watch;
	}
	return watch;

err_watch:
	kmem_cache_free(umn_watch_cache, watch);
err_count:
	atomic_long_dec(&umn_total_watches);
	return ERR_PTR(ret);
}

/* Makes and arms a watch. start <= end; slot and state only with a slot. */
static int umn_watch(struct umn_file *file, u64 start, u64 end, u64 cookie,
		     bool with_slot, u32 *slot, u32 *state)
{
	struct umn_watch *watch;
	int ret = 0;

	if (end > ULONG_MAX)
		return -EINVAL;
	watch = umn_alloc_watch(file, with_slot);
	if (IS_ERR(watch))
		return PTR_ERR(watch);

	watch->cookie = cookie;
	watch->range.start = start;
	watch->range.last = end > start ? end - 1 : start;
	watch->empty = end == start;

	spin_lock(&file->lock);
	file->used = true;
	if (rb_find_add(&watch->by_cookie, &file->cookies, umn_cmp_watch)) {
		ret = -EEXIST;
	} else if (file->watches >= max_watches) {
		rb_erase(&watch->by_cookie, &file->cookies);
		ret = -ENOSPC;
	} else {
		file->watches++;
		interval_tree_insert(&watch->range, &file->ranges);
		if (with_slot) {
			umn_arm_slot(file, watch);
			*slot = watch->slot;
			*state = watch->state;
		} else {
			umn_arm(file, watch);
		}
		trace_ummunotify_watch(file, cookie, watch->range.start,
				       watch->range.last);
	}
	spin_unlock(&file->lock);

	if (ret)
		umn_free_watch(file, watch);
	return ret;
}

/* Ends a watch; if `only` is given, just the one it was filled in for. */
static int umn_unwatch(struct umn_file *file, u64 cookie,
		       const struct ummunotify_watch_ioctl *only)
{
	struct umn_watch *watch;

	spin_lock(&file->lock);
	watch = umn_find(file, cookie);
	if (watch && only &&
	    (watch->slot != only->slot ||
	     (watch->state ^ only->state) & UMN_STATE_GENERATION))
		watch = NULL;
	if (watch) {
		trace_ummunotify_unwatch(file, cookie, watch->range.start,
					 watch->range.last);
		interval_tree_remove(&watch->range, &file->ranges);
		rb_erase(&watch->by_cookie, &file->cookies);
		umn_unpend(file, watch);
		file->watches--;
		if (watch->slot != UMN_NO_SLOT)
			umn_set_state(file, watch,
				      watch->state | UMMUNOTIFY_STATE_FREE);
	}
	spin_unlock(&file->lock);

	if (!watch)
		return -ENOENT;
	umn_free_watch(file, watch);
	return 0;
}

static u32 umn_vma_memory(struct vm_area_struct *vma)
{
	if (vma->vm_flags & (VM_IO | VM_PFNMAP | VM_MIXEDMAP))
		return UMMUNOTIFY_MEMORY_DEVICE;
	if (vma_is_dax(vma))
		return UMMUNOTIFY_MEMORY_DAX;
	/* A private mapping of /dev/zero has a file but is anonymous. */
	if (vma->vm_file && !vma_is_anonymous(vma) &&
	    S_ISCHR(file_inode(vma->vm_file)->i_mode))
		return UMMUNOTIFY_MEMORY_DEVICE;
	return 0;
}

/* What in a non-empty range forbids caching, or -EINTR. */
static int umn_memory(struct mm_struct *mm, unsigned long start, unsigned long end)
{
	VMA_ITERATOR(vmi, mm, start);
	struct vm_area_struct *vma;
	int memory = 0;

	if (mmap_read_lock_killable(mm))
		return -EINTR;
	for_each_vma_range(vmi, vma, end) {
		if (vma->vm_start > start)
			memory |= UMMUNOTIFY_MEMORY_HOLE;
		memory |= umn_vma_memory(vma);
		start = vma->vm_end;
		if (start >= end)
			break; /* looking for one more is half of the cost */
	}
	mmap_read_unlock(mm);
	if (start < end)
		memory |= UMMUNOTIFY_MEMORY_HOLE;
	return memory;
}

/* ---- ioctl ----------------------------------------------------------------- */

static long umn_ioctl_exchange(struct umn_file *file, u32 __user *arg)
{
	u32 mask, magic = 0, granted = 0;
	u32 **words = NULL;
	long ret = 0;

	if (get_user(mask, arg))
		return -EFAULT;
	if ((mask & UMMUNOTIFY_FEATURES_MAGIC_MASK) == UMMUNOTIFY_FEATURES_MAGIC) {
		magic = UMMUNOTIFY_FEATURES_MAGIC;
		granted = mask & UMN_FEATURES;
	}
	if (granted & UMMUNOTIFY_FEATURE_STATE) {
		words = kvcalloc(DIV_ROUND_UP(max_watches, UMN_WORDS_PER_PAGE),
				 sizeof(*words), GFP_KERNEL_ACCOUNT);
		if (!words)
			return -ENOMEM;
	}

	spin_lock(&file->lock);
	if (file->used) {
		ret = -EINVAL;
	} else {
		file->used = true;
		swap(file->words, words);
		/* Pairs with the acquire in umn_features(). */
		smp_store_release(&file->features, granted);
	}
	spin_unlock(&file->lock);
	kvfree(words);
	if (ret)
		return ret;

	return put_user(magic | granted, arg) ? -EFAULT : 0;
}

/* The error numbers of 2009 and 2010. */
static long umn_old_error(int ret)
{
	return ret == -EEXIST || ret == -ENOENT ? -EINVAL : ret;
}

static long umn_register(struct umn_file *file, u64 start, u64 end, u64 cookie)
{
	if (end < start)
		return -EINVAL;
	return umn_old_error(umn_watch(file, start, end, cookie, false, NULL, NULL));
}

static long umn_ioctl_register(struct umn_file *file, void __user *arg)
{
	struct ummunotify_register_ioctl parm;

	if (copy_from_user(&parm, arg, sizeof(parm)))
		return -EFAULT;
	return umn_register(file, parm.start, parm.end, parm.user_cookie);
}

static long umn_ioctl_register_2009(struct umn_file *file,
				    struct ummunot_register_ioctl __user *arg)
{
	struct ummunot_register_ioctl parm;

	if (copy_from_user(&parm, arg, sizeof(parm)))
		return -EFAULT;
	if (parm.intf_version != UMMUNOT_INTF_VERSION)
		return put_user(UMMUNOT_INTF_VERSION, &arg->intf_version) ? -EFAULT :
									    -EINVAL;
	return umn_register(file, parm.start, parm.end, parm.user_cookie);
}

static long umn_ioctl_unregister(struct umn_file *file, u64 __user *arg)
{
	u64 cookie;

	if (copy_from_user(&cookie, arg, sizeof(cookie)))
		return -EFAULT;
	return umn_old_error(umn_unwatch(file, cookie, NULL));
}

static long umn_ioctl_watch(struct umn_file *file, void __user *arg)
{
	struct ummunotify_watch_ioctl parm;
	int ret;

	if (copy_from_user(&parm, arg, sizeof(parm)))
		return -EFAULT;
	if (parm.flags & ~UMMUNOTIFY_WATCH_CACHEABLE || parm.end <= parm.start)
		return -EINVAL;

	ret = umn_watch(file, parm.start, parm.end, parm.user_cookie, true,
			&parm.slot, &parm.state);
	if (ret)
		return ret;

	parm.memory = 0;
	if (parm.flags & UMMUNOTIFY_WATCH_CACHEABLE) {
		/* Only now: what is mapped from here on announces itself. */
		ret = umn_memory(file->mm, parm.start, parm.end);
		if (ret > 0) {
			parm.memory = ret;
			ret = -EOPNOTSUPP;
		}
	}
	if (copy_to_user(arg, &parm, sizeof(parm)))
		ret = -EFAULT;
	if (ret)
		umn_unwatch(file, parm.user_cookie, &parm);
	return ret;
}

static long umn_ioctl_rearm(struct umn_file *file, void __user *arg)
{
	struct ummunotify_rearm_ioctl parm;
	struct umn_watch *watch;
	long ret = 0;

	if (copy_from_user(&parm, arg, sizeof(parm)))
		return -EFAULT;

	spin_lock(&file->lock);
	watch = umn_find(file, parm.user_cookie);
	if (!watch) {
		ret = -ENOENT;
	} else if (watch->slot == UMN_NO_SLOT) {
		ret = -EINVAL;
	} else {
		umn_unpend(file, watch);
		watch->kinds = 0;
		umn_arm_slot(file, watch);
		parm.slot = watch->slot;
		parm.state = watch->state;
		trace_ummunotify_rearm(file, watch->cookie, watch->range.start,
				       watch->range.last);
	}
	spin_unlock(&file->lock);

	if (!ret && copy_to_user(arg, &parm, sizeof(parm)))
		ret = -EFAULT;
	return ret;
}

static unsigned long umn_state_bytes(struct umn_file *file)
{
	if (!(umn_features(file) & UMMUNOTIFY_FEATURE_STATE))
		return 0;
	return PAGE_ALIGN(max_watches * sizeof(u32));
}

static long umn_ioctl_query(struct umn_file *file, void __user *arg)
{
	struct ummunotify_query_ioctl parm = {
		.features = UMN_FEATURES,
		.granted = umn_features(file),
		.max_watches = max_watches,
		.state_offset = UMMUNOTIFY_STATE_OFFSET,
		.state_bytes = umn_state_bytes(file),
	};

	spin_lock(&file->lock);
	parm.watches = file->watches;
	spin_unlock(&file->lock);
	return copy_to_user(arg, &parm, sizeof(parm)) ? -EFAULT : 0;
}

static bool umn_is_owner(const struct umn_file *file)
{
	return current->mm == file->mm;
}

static long umn_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	struct umn_file *file = filp->private_data;
	void __user *argp = (void __user *)arg;

	if (!umn_is_owner(file))
		return -ESTALE;

	switch (cmd) {
	case UMMUNOTIFY_EXCHANGE_FEATURES:
		return umn_ioctl_exchange(file, argp);
	case UMMUNOTIFY_REGISTER_REGION:
		return umn_ioctl_register(file, argp);
	case UMMUNOTIFY_UNREGISTER_REGION:
	case UMMUNOT_UNREGISTER_REGION:
		return umn_ioctl_unregister(file, argp);
	case UMMUNOT_REGISTER_REGION:
		return umn_ioctl_register_2009(file, argp);
	case UMMUNOTIFY_QUERY:
		return umn_ioctl_query(file, argp);
	}

	if (!(umn_features(file) & UMMUNOTIFY_FEATURE_STATE))
		return -ENOTTY;

	switch (cmd) {
	case UMMUNOTIFY_WATCH:
		return umn_ioctl_watch(file, argp);
	case UMMUNOTIFY_REARM:
		return umn_ioctl_rearm(file, argp);
	default:
		return -ENOTTY;
	}
}

/* ---- read and poll ------------------------------------------------------------ */

static bool umn_readable(struct umn_file *file)
{
	bool readable;

	spin_lock(&file->lock);
	readable = file->last_owed || !list_empty(&file->pending);
	spin_unlock(&file->lock);
	return readable;
}

/* Takes up to max reports; for a REGISTER watch that arms it anew. */
static size_t umn_take(struct umn_file *file, size_t max)
{
	size_t n;

	lockdep_assert_held(&file->read_lock);
	spin_lock(&file->lock);
	for (n = 0; n < max; n++) {
		struct ummunotify_event *event = &file->events[n];
		struct umn_watch *watch = list_first_entry_or_null(
			&file->pending, struct umn_watch, pending);

		memset(event, 0, sizeof(*event));
		if (!watch) {
			event->type = UMMUNOTIFY_EVENT_TYPE_LAST;
			event->user_cookie_counter = file->generation;
			file->last_owed = false;
			n++;
			break;
		}

		event->type = UMMUNOTIFY_EVENT_TYPE_INVAL;
		event->user_cookie_counter = watch->cookie;
		event->hint_start = watch->range.start;
		event->hint_end = umn_end(watch);
		if (watch->hinted) {
			event->flags = UMMUNOTIFY_EVENT_FLAG_HINT;
			event->hint_start = watch->hint_start;
			event->hint_end = watch->hint_end;
		}
		if (umn_features(file) & UMMUNOTIFY_FEATURE_KIND)
			event->flags |= watch->kinds << UMMUNOTIFY_EVENT_KINDS_SHIFT;

		umn_unpend(file, watch);
		watch->kinds = 0;
		if (watch->slot == UMN_NO_SLOT)
			umn_arm(file, watch);
		file->last_owed = true;
	}
	spin_unlock(&file->lock);
	return n;
}

/*
 * Puts back what could not be delivered. Watches are found again by cookie:
 * they may have ended, or been hit again, meanwhile.
 */
static void umn_put_back(struct umn_file *file, size_t n)
{
	lockdep_assert_held(&file->read_lock);
	spin_lock(&file->lock);
	while (n--) {
		struct ummunotify_event *event = &file->events[n];
		struct umn_watch *watch;

		if (event->type == UMMUNOTIFY_EVENT_TYPE_LAST) {
			file->last_owed = true;
			continue;
		}
		watch = umn_find(file, event->user_cookie_counter);
		if (!watch)
			continue;
		if (watch->slot != UMN_NO_SLOT &&
		    !(watch->state & UMMUNOTIFY_STATE_KINDS))
			continue; /* armed again, so dealt with */
		watch->kinds |= (event->flags & UMMUNOTIFY_EVENT_KINDS) >>
				UMMUNOTIFY_EVENT_KINDS_SHIFT;
		if (!list_empty(&watch->pending)) {
			watch->hinted = false; /* hit again meanwhile */
			continue;
		}
		/* Unless the cookie now names another range. */
		watch->hinted = event->flags & UMMUNOTIFY_EVENT_FLAG_HINT &&
				event->hint_start >= watch->range.start &&
				event->hint_end <= umn_end(watch);
		watch->hint_start = event->hint_start;
		watch->hint_end = event->hint_end;
		umn_pend(file, watch);
	}
	spin_unlock(&file->lock);
}

static ssize_t umn_read(struct file *filp, char __user *buf, size_t count,
			loff_t *pos)
{
	struct umn_file *file = filp->private_data;
	size_t max = min_t(size_t, count / sizeof(*file->events), UMN_EVENTS_PER_READ);
	size_t n;

	if (!umn_is_owner(file))
		return -ESTALE;
	spin_lock(&file->lock);
	file->used = true;
	spin_unlock(&file->lock);

	/*
	 * Readers take turns, so that none gets a LAST while another may still
	 * put reports back.
	 */
	for (;;) {
		if (mutex_lock_interruptible(&file->read_lock))
			return -ERESTARTSYS;
		if (umn_readable(file))
			break;
		mutex_unlock(&file->read_lock);
		if (filp->f_flags & O_NONBLOCK)
			return -EAGAIN;
		if (wait_event_interruptible(file->wait, umn_readable(file)))
			return -ERESTARTSYS;
	}

	n = umn_take(file, max);
	if (copy_to_user(buf, file->events, n * sizeof(*file->events))) {
		umn_put_back(file, n);
		mutex_unlock(&file->read_lock);
		return -EFAULT;
	}
	mutex_unlock(&file->read_lock);
	return n * sizeof(*file->events);
}

static __poll_t umn_poll(struct file *filp, poll_table *table)
{
	struct umn_file *file = filp->private_data;

	if (!umn_is_owner(file))
		return EPOLLERR;
	poll_wait(filp, &file->wait, table);
	return umn_readable(file) ? EPOLLIN | EPOLLRDNORM : 0;
}

static int umn_fasync(int fd, struct file *filp, int on)
{
	struct umn_file *file = filp->private_data;

	if (on && !umn_is_owner(file))
		return -ESTALE;
	return fasync_helper(fd, filp, on, &file->fasync);
}

/* ---- mmap --------------------------------------------------------------------- */

static vm_fault_t umn_fault(struct vm_fault *vmf)
{
	struct umn_file *file = vmf->vma->vm_private_data;
	void *page = file->counter;

	/* umn_mmap() let only page 0 or pages of the state words through. */
	if (vmf->pgoff) {
		unsigned long index = vmf->pgoff - UMN_STATE_PGOFF;

		if (index >= umn_state_bytes(file) >> PAGE_SHIFT)
			return VM_FAULT_SIGBUS;
		/* Pairs with the release in umn_get_slot(). */
		page = smp_load_acquire(&file->words[index]);
		if (!page)
			return VM_FAULT_SIGBUS;
	}
	vmf->page = virt_to_page(page);
	get_page(vmf->page);
	return 0;
}

static const struct vm_operations_struct umn_vm_ops = {
	.fault = umn_fault,
};

static int umn_mmap(struct file *filp, struct vm_area_struct *vma)
{
	struct umn_file *file = filp->private_data;
	unsigned long size = vma->vm_end - vma->vm_start;

	if (!umn_is_owner(file))
		return -ESTALE;
	if (vma->vm_pgoff == 0) {
		if (size != PAGE_SIZE)
			return -EINVAL;
	} else if (vma->vm_pgoff != UMN_STATE_PGOFF || size > umn_state_bytes(file)) {
		return -EINVAL;
	}
	if (vma->vm_flags & VM_WRITE)
		return -EACCES;

	/* The file is open read-only, so this is for private mappings. */
	vm_flags_clear(vma, VM_MAYWRITE);
	vm_flags_set(vma, VM_DONTEXPAND | VM_DONTDUMP);
	vma->vm_ops = &umn_vm_ops;
	vma->vm_private_data = file;
	return 0;
}

/* ---- open and close ------------------------------------------------------------ */

static int umn_open(struct inode *inode, struct file *filp)
{
	struct umn_file *file;
	int ret;

	if (filp->f_mode & FMODE_WRITE)
		return -EINVAL;
	if (!current->mm)
		return -ESRCH;

	file = kzalloc(sizeof(*file), GFP_KERNEL_ACCOUNT);
	if (!file)
		return -ENOMEM;
	file->notifier.ops = &umn_notifier_ops;
	file->mm = current->mm;
	spin_lock_init(&file->lock);
	file->ranges = RB_ROOT_CACHED;
	file->cookies = RB_ROOT;
	INIT_LIST_HEAD(&file->pending);
	INIT_LIST_HEAD(&file->spares);
	init_waitqueue_head(&file->wait);
	mutex_init(&file->read_lock);
	mutex_init(&file->words_lock);
	ida_init(&file->slots);

	ret = -ENOMEM;
	file->events = (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	if (!file->events)
		goto err_file;
	file->counter = (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	if (!file->counter)
		goto err_events;

	/*
	 * Last, since invalidations arrive as soon as this is done. None can be
	 * in flight: it takes every lock under which one may be. Holds mm_count
	 * until umn_release(). -EINTR if a signal is pending.
	 */
	ret = mmu_notifier_register(&file->notifier, file->mm);
	if (ret)
		goto err_counter;

	filp->private_data = file;
	return nonseekable_open(inode, filp);

err_counter:
	free_page((unsigned long)file->counter);
err_events:
	free_page((unsigned long)file->events);
err_file:
	kfree(file);
	return ret;
}

static int umn_release(struct inode *inode, struct file *filp)
{
	struct umn_file *file = filp->private_data;
	struct umn_watch *watch, *next;
	unsigned long i;

	/* Waits until no callback runs; nothing else can reach the file. */
	mmu_notifier_unregister(&file->notifier, file->mm);

	rbtree_postorder_for_each_entry_safe(watch, next, &file->cookies, by_cookie) {
		kmem_cache_free(umn_watch_cache, watch);
		cond_resched();
	}
	list_for_each_entry_safe(watch, next, &file->spares, pending)
		kmem_cache_free(umn_watch_cache, watch);
	atomic_long_sub(file->watches, &umn_total_watches);
	ida_destroy(&file->slots);
	for (i = 0; file->words && i < umn_state_bytes(file) >> PAGE_SHIFT; i++)
		free_page((unsigned long)file->words[i]);
	kvfree(file->words);
	free_page((unsigned long)file->counter);
	free_page((unsigned long)file->events);
	kfree(file);
	return 0;
}

#ifdef CONFIG_PROC_FS
static void umn_show_fdinfo(struct seq_file *seq, struct file *filp)
{
	static const char *const names[UMN_KINDS] = {
		"unmap", "clear", "protection", "soft_dirty", "migrate", "other",
	};
	struct umn_file *file = filp->private_data;
	u64 hits[UMN_KINDS], misses[UMN_KINDS], generation, late;
	u32 watches, pending;
	int i;

	spin_lock(&file->lock);
	memcpy(hits, file->hits, sizeof(hits));
	memcpy(misses, file->misses, sizeof(misses));
	generation = file->generation;
	late = file->late;
	watches = file->watches;
	pending = file->pending_count;
	spin_unlock(&file->lock);

	seq_printf(seq, "ummunotify-features:\t0x%x\n", umn_features(file));
	seq_printf(seq, "ummunotify-watches:\t%u\n", watches);
	seq_printf(seq, "ummunotify-max-watches:\t%u\n", max_watches);
	seq_printf(seq, "ummunotify-pending:\t%u\n", pending);
	seq_printf(seq, "ummunotify-generation:\t%llu\n", generation);
	seq_printf(seq, "ummunotify-late:\t%llu\n", late);
	for (i = 0; i < UMN_KINDS; i++)
		seq_printf(seq, "ummunotify-%s:\thit %llu miss %llu filtered %ld\n",
			   names[i], hits[i], misses[i],
			   atomic_long_read(&file->filtered[i]));
}
#endif

static const struct file_operations umn_fops = {
	.owner = THIS_MODULE,
	.open = umn_open,
	.release = umn_release,
	.read = umn_read,
	.poll = umn_poll,
	.unlocked_ioctl = umn_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = umn_mmap,
	.fasync = umn_fasync,
#ifdef CONFIG_PROC_FS
	.show_fdinfo = umn_show_fdinfo,
#endif
};

static struct miscdevice umn_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "ummunotify",
	.fops = &umn_fops,
	.mode = 0666,
};

static int __init umn_init(void)
{
	int ret;

	BUILD_BUG_ON(sizeof(struct ummunotify_event) != 32);
	BUILD_BUG_ON(sizeof(struct ummunotify_register_ioctl) != 32);
	BUILD_BUG_ON(sizeof(struct ummunot_register_ioctl) != 32);
	BUILD_BUG_ON(sizeof(struct ummunotify_watch_ioctl) != 40);
	BUILD_BUG_ON(sizeof(struct ummunotify_rearm_ioctl) != 16);
	BUILD_BUG_ON(sizeof(struct ummunotify_query_ioctl) != 64);

	if (!max_watches || max_watches > INT_MAX / sizeof(u32))
		return -EINVAL;
	umn_watch_cache = KMEM_CACHE(umn_watch, SLAB_ACCOUNT | SLAB_HWCACHE_ALIGN);
	if (!umn_watch_cache)
		return -ENOMEM;
	ret = misc_register(&umn_device);
	if (ret)
		kmem_cache_destroy(umn_watch_cache);
	return ret;
}

static void __exit umn_exit(void)
{
	misc_deregister(&umn_device);
	kmem_cache_destroy(umn_watch_cache);
}

module_init(umn_init);
module_exit(umn_exit);

MODULE_DESCRIPTION("Tells user space when its mappings change");
MODULE_LICENSE("Dual BSD/GPL");
