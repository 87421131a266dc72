// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * /dev/ummunotify: tells a process when its mappings change. One open file
 * watches ranges of the address space that opened it; the interface is in
 * docs/abi.md, the argument for the in-flight window, and for letting go of the
 * lock, in docs/design.md.
 *
 * What the driver does not do: keep anything alive or, where it is told of an
 * invalidation, look at page tables. It only remembers, inside the kernel's own
 * invalidation, which watches were hit. Whether the pages are still the same is
 * looked at when a program asks, see "fingerprints" below.
 */
#include <linux/atomic.h>
#include <linux/bitmap.h>
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/delay.h>
#include <linux/fs.h>
#include <linux/interval_tree.h>
#include <linux/list.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/poll.h>
#include <linux/random.h>
#include <linux/rbtree.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>
#include <linux/siphash.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/uaccess.h>
#include <linux/uidgid.h>
#include <linux/ummunotify.h>
#include <linux/user_namespace.h>
#include <linux/wait.h>

#define CREATE_TRACE_POINTS
#include "ummunotify_trace.h"

static unsigned int max_watches = 1 << 20;
module_param(max_watches, uint, 0444);
MODULE_PARM_DESC(max_watches, "Watches one open file may have");

static ulong max_watches_user = 3 << 19;
module_param(max_watches_user, ulong, 0444);
MODULE_PARM_DESC(max_watches_user,
		 "What one user's files may hold together, in watches");

static ulong max_watches_total = 16 << 20;
module_param(max_watches_total, ulong, 0444);
MODULE_PARM_DESC(max_watches_total,
		 "What all open files may hold together, in watches");

static bool legacy_filter = true;
module_param(legacy_filter, bool, 0444);
MODULE_PARM_DESC(legacy_filter,
		 "Filter for programs that know of no features, too");

#define UMN_FEATURES                                               \
	(UMMUNOTIFY_FEATURE_FILTER | UMMUNOTIFY_FEATURE_KIND | \
	 UMMUNOTIFY_FEATURE_STATE | UMMUNOTIFY_FEATURE_FINGERPRINT)

/* Open files that one address space may have: their numbers are bits. */
#define UMN_FILES 32

/* Watches that are dealt with before the lock is let go of. */
#define UMN_BATCH 64

/* Ended watches with their slots that a file keeps for the next ones. */
#define UMN_SPARES 64

/* Pages that a fingerprint holds at once, and that one call looks at. */
#define UMN_PAGES_AT_ONCE 32
#define UMN_PAGES_PER_CALL (1UL << 16)

/* Watches with slots that a file makes at once when it has twice as many. */
#define UMN_REFILL 16U

/* The share of max_watches_total that only CAP_SYS_RESOURCE gets at. */
#define UMN_RESERVE(total) ((total) / 16)

/* Orders of ARM_MANY that are dealt with under one hold of the locks. */
#define UMN_ARMS 8

/* UMMUNOTIFY_KIND_* bits are counted by their position. */
#define UMN_KINDS 6

/*
 * Kinds that leave a pinned page the right one, whatever they do to the page
 * tables: the page's replacement, if any, is announced as CLEAR or UNMAP.
 */
#define UMN_HARMLESS                                                       \
	(UMMUNOTIFY_KIND_PROTECTION | UMMUNOTIFY_KIND_SOFT_DIRTY | \
	 UMMUNOTIFY_KIND_MIGRATE)

#define UMN_STATE_GENERATION (~0U << UMMUNOTIFY_STATE_GENERATION_SHIFT)
#define UMN_WORDS_PER_PAGE (PAGE_SIZE / sizeof(u32))
#define UMN_STATE_PGOFF (UMMUNOTIFY_STATE_OFFSET >> PAGE_SHIFT)
/* They fit into a page of any size. */
#define UMN_EVENTS_PER_READ 128

/* umn_space::busy */
#define UMN_ARMED 1L	/* something was armed in this window */
#define UMN_INFLIGHT 2L /* one invalidation between its start and its end */

/*
 * One watched range. In umn_file::cookies; on ::pending while it has a report;
 * and by range in one tree at most:
 *
 *	armed				umn_space::armed
 *	told, made by REGISTER		umn_file::told
 *	told, made by WATCH		none, until it is armed again
 *
 * "Told" is on ::pending for REGISTER, a kind in `state` for WATCH. One that
 * has ended is on ::spares, where only slot and state mean something. All of it
 * is protected by umn_space::lock.
 *
 * Two cache lines, since an invalidation may hit very many: what finds a watch
 * is in the first, what is reported in the second.
 */
struct umn_watch {
	struct interval_tree_node range; /* [start, last], both included */
	struct umn_file *file;
	u32 slot : 29; /* of its state word */
	u32 has_slot : 1; /* made by WATCH, else by REGISTER */
	u32 empty : 1; /* end was not beyond start; last is start all the same */
	u32 hinted : 1; /* hint_start and hint_end say what hit it */
	u32 state; /* the word, of which the page has a copy; or the kinds */

	struct list_head pending;
	unsigned long hint_start; /* what the only hit covered, if hinted */
	unsigned long hint_end;
	u64 cookie;
	struct rb_node by_cookie;
};

/* Who pays. On umn_users while there are references; both under umn_users_lock. */
struct umn_user {
	struct list_head link;
	unsigned int references;
	kuid_t uid;
	atomic_long_t held; /* in watches, see umn_charge() */
};

struct umn_counts {
	u64 of[UMN_KINDS];
};

/*
 * One address space, whatever the number of its open files. Each of these has a
 * reference (mmu_notifier_get); it is freed when no callback can run any more.
 *
 * Lock order: mmap_lock, whatever locks an invalidation is called under
 * (mmap_lock, VMA lock, i_mmap_rwsem, anon_vma, ...), lock. Nothing is allocated
 * under `lock` and no fault taken, because reclaim calls into the notifier.
 * umn_file::words_lock is held around allocations and around nothing else.
 *
 * I1 The in-flight window. The start of an invalidation tells the armed watches
 * that it overlaps, and these leave `armed`. So what is in `armed` and overlaps
 * when it ends was armed in between, may have missed its start, and is told
 * then. `busy` saves the look: it counts the invalidations in flight, and who
 * arms while there are any sets UMN_ARMED, which stays until there are none.
 *
 * I2 No watch, no lock. `idle` is set when there is nothing an invalidation
 * would have to look at, by number umn_is_harmless(). Pairing: who arms clears
 * idle, full barrier, reads busy; a start counts itself in busy, full barrier,
 * reads idle. One of the two sees the other.
 *
 * I3 Who lets go of the lock in the middle has changed words whose counter has
 * not moved: `unpublished`. No other invalidation returns before it has moved
 * these counters, because it may have found its watches told already.
 *
 * I4 Who arms waits a tick while somebody has let go (`walking`), so that a walk
 * gets further than what is armed meanwhile, and ends. Nothing else depends on
 * that: what is armed all the same is dealt with by I1.
 */
struct umn_space {
	struct mmu_notifier notifier;
	struct umn_counts __percpu *counts; /* of all invalidations */

	atomic_long_t busy ____cacheline_aligned;
	bool idle[2];

	spinlock_t lock; /* protects the rest, and what umn_file says */
	struct rb_root_cached armed[2]; /* by umn_file::hears_all */
	unsigned long concerned[2]; /* watches in armed or umn_file::told */
	unsigned long unpublished; /* files, by number */
	unsigned int walking;
	struct list_head told_files; /* by umn_file::told_link */
	struct umn_file *files[UMN_FILES];

	wait_queue_head_t walked;
	struct umn_user *user; /* who opened it first */
};

/* State words of UMN_WORDS_PER_PAGE slots. */
struct umn_page {
	u32 *words; /* what is mapped; never read */
	unsigned long *holes; /* slots below next_slot that are free */
};

/* One open file. */
struct umn_file {
	struct umn_space *space;
	struct mm_struct *mm; /* the opener's; immutable, the space holds it */
	struct umn_user *user;

	/* Protected by umn_space::lock, down to `wait`. */
	struct rb_root_cached told; /* by range, see struct umn_watch */
	struct list_head told_link; /* umn_space::told_files, unless empty */
	struct rb_root cookies;
	struct list_head pending; /* watches with a report, oldest first */
	struct list_head spares;
	u32 spare_count;
	u32 number; /* in umn_space::files */
	u32 holders; /* that it is open, and invalidations that will tell it */
	u32 arm_count; /* makes state words differ */
	u32 watches;
	u32 pending_count;
	/* So many of the oldest reports were hit again if made by REGISTER. */
	u32 unhinted;
	u32 unhinted_kinds;
	u64 generation; /* copied to *counter */
	bool hears_all; /* harmless kinds, too; does not change once used */
	bool last_owed; /* a reader has not seen LAST yet */
	bool used;	/* too late for EXCHANGE_FEATURES */
	bool closed;
	u64 hits[UMN_KINDS];
	u64 late;
	/* What a read delivers, and whose it is. */
	struct ummunotify_event *events;
	struct umn_watch *taken[UMN_EVENTS_PER_READ];

	wait_queue_head_t wait;
	struct fasync_struct *fasync;
	siphash_key_t key; /* of fingerprints; immutable */
	u32 features; /* read by umn_features(), written once under lock */
	u64 *counter; /* one page, mapped by user space; never read */

	struct mutex words_lock; /* protects the next four */
	u32 next_slot;
	u32 holes;
	u32 hole_page; /* there are none in the pages before */
	struct umn_page *pages; /* words appear under words_lock */

	struct umn_counts before; /* what was counted before it was open */
};

static struct kmem_cache *umn_watch_cache;

/* Address spaces that are not freed yet. */
static atomic_long_t umn_spaces;

/* ---- limits ---------------------------------------------------------------- */

static LIST_HEAD(umn_users);
static DEFINE_SPINLOCK(umn_users_lock);
static atomic_long_t umn_held;

/* What is not a watch counts as so many. */
static long umn_cost(size_t bytes)
{
	return DIV_ROUND_UP(bytes, sizeof(struct umn_watch));
}

/*
 * Who can be held to account: a user's namespaces with all users that it may
 * have there are that user. Root makes them for others, so its are not.
 */
static kuid_t umn_uid(void)
{
	struct user_namespace *ns;
	kuid_t uid = current_uid();

	for (ns = current_user_ns(); ns != &init_user_ns; ns = ns->parent)
		if (!uid_eq(ns->owner, GLOBAL_ROOT_UID))
			uid = ns->owner;
	return uid;
}

static struct umn_user *umn_get_user(void)
{
	struct umn_user *new = kzalloc(sizeof(*new), GFP_KERNEL_ACCOUNT);
	kuid_t uid = umn_uid();
	struct umn_user *user;

	if (!new)
		return NULL;
	spin_lock(&umn_users_lock);
	list_for_each_entry(user, &umn_users, link)
		if (uid_eq(user->uid, uid))
			goto found;
	user = new;
	new = NULL;
	user->uid = uid;
	list_add(&user->link, &umn_users);
found:
	user->references++;
	spin_unlock(&umn_users_lock);
	kfree(new);
	return user;
}

static void umn_put_user(struct umn_user *user)
{
	bool last;

	spin_lock(&umn_users_lock);
	last = !--user->references;
	if (last)
		list_del(&user->link);
	spin_unlock(&umn_users_lock);
	if (last)
		kfree(user);
}

static void umn_uncharge(struct umn_user *user, long n)
{
	atomic_long_sub(n, &umn_held);
	atomic_long_sub(n, &user->held);
}

/*
 * Everything a file holds is charged to its opener, in watches. First to the
 * user: who is at its own limit does not move what others are measured by.
 */
static int umn_charge(struct umn_user *user, long n)
{
	unsigned long all;

	if (atomic_long_add_return(n, &user->held) > max_watches_user &&
	    !capable(CAP_SYS_RESOURCE)) {
		atomic_long_sub(n, &user->held);
		return -ENOSPC;
	}
	all = atomic_long_add_return(n, &umn_held);
	if (all <= max_watches_total - UMN_RESERVE(max_watches_total) ||
	    (all <= max_watches_total && capable(CAP_SYS_RESOURCE)))
		return 0;
	umn_uncharge(user, n);
	return -ENOSPC;
}

/* ---- invalidation -------------------------------------------------------- */

/* One invalidation's walk over the watches, at its start or at its end. */
struct umn_walk {
	struct umn_space *space;
	const struct mmu_notifier_range *range;
	u32 kind;
	bool at_end;
	bool has_let_go;
	unsigned int since; /* watches since the lock was taken */
	unsigned int hits;
	unsigned long hit; /* files, by number */
	unsigned long held; /* files that count this walk in `holders` */
};

static u32 umn_kind(const struct mmu_notifier_range *range)
{
	switch ((unsigned int)range->event) { /* a kernel may lack some */
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

/* Pairs with the release in umn_ioctl_exchange(): `pages` is there too. */
static u32 umn_features(struct umn_file *file)
{
	return smp_load_acquire(&file->features);
}

static unsigned long umn_end(const struct umn_watch *watch)
{
	return watch->range.last + !watch->empty;
}

static void umn_set_state(struct umn_file *file, struct umn_watch *watch, u32 state)
{
	lockdep_assert_held(&file->space->lock);
	watch->state = state;
	WRITE_ONCE(file->pages[watch->slot / UMN_WORDS_PER_PAGE]
			   .words[watch->slot % UMN_WORDS_PER_PAGE], state);
}

static void umn_pend(struct umn_file *file, struct umn_watch *watch)
{
	lockdep_assert_held(&file->space->lock);
	list_add_tail(&watch->pending, &file->pending);
	file->pending_count++;
}

static void umn_unpend(struct umn_file *file, struct umn_watch *watch)
{
	lockdep_assert_held(&file->space->lock);
	if (list_empty(&watch->pending))
		return;
	list_del_init(&watch->pending);
	file->pending_count--;
	file->unhinted = min(file->unhinted, file->pending_count);
	if (!file->unhinted)
		file->unhinted_kinds = 0;
}

/*
 * Armed: from now on the next hit counts, also of an invalidation that has
 * already begun.
 */
static void umn_enter_armed(struct umn_file *file, struct umn_watch *watch)
{
	struct umn_space *space = file->space;
	long busy;

	lockdep_assert_held(&space->lock);
	interval_tree_insert(&watch->range, &space->armed[file->hears_all]);
	space->concerned[file->hears_all]++;
	WRITE_ONCE(space->idle[false], false);
	if (file->hears_all)
		WRITE_ONCE(space->idle[true], false);
	smp_mb(); /* I2: pairs with that in umn_range_start() */
	busy = atomic_long_read(&space->busy);
	while (busy >= UMN_INFLIGHT && !(busy & UMN_ARMED))
		if (atomic_long_try_cmpxchg(&space->busy, &busy, busy | UMN_ARMED))
			break;
}

static void umn_leave_armed(struct umn_file *file, struct umn_watch *watch)
{
	struct umn_space *space = file->space;

	lockdep_assert_held(&space->lock);
	interval_tree_remove(&watch->range, &space->armed[file->hears_all]);
	space->concerned[file->hears_all]--;
}

/* A REGISTER watch that has a report still moves the counter when it is hit. */
static void umn_enter_told(struct umn_file *file, struct umn_watch *watch)
{
	struct umn_space *space = file->space;

	lockdep_assert_held(&space->lock);
	if (list_empty(&file->told_link))
		list_add(&file->told_link, &space->told_files);
	interval_tree_insert(&watch->range, &file->told);
	space->concerned[file->hears_all]++;
}

static void umn_leave_told(struct umn_file *file, struct umn_watch *watch)
{
	struct umn_space *space = file->space;

	lockdep_assert_held(&space->lock);
	interval_tree_remove(&watch->range, &file->told);
	if (RB_EMPTY_ROOT(&file->told.rb_root))
		list_del_init(&file->told_link);
	space->concerned[file->hears_all]--;
}

static void umn_leave(struct umn_file *file, struct umn_watch *watch)
{
	if (watch->has_slot ? !(watch->state & UMMUNOTIFY_STATE_KINDS) :
			      list_empty(&watch->pending))
		umn_leave_armed(file, watch);
	else if (!watch->has_slot)
		umn_leave_told(file, watch);
}

/* Before the lock is let go of by who made watches leave: see I2. */
static void umn_settle(struct umn_space *space)
{
	lockdep_assert_held(&space->lock);
	WRITE_ONCE(space->idle[false], !space->concerned[false] &&
					       !space->concerned[true] &&
					       !space->unpublished);
	WRITE_ONCE(space->idle[true],
		   !space->concerned[true] && !space->unpublished);
}

static void umn_hold(struct umn_walk *walk, struct umn_file *file)
{
	if (walk->held & BIT(file->number))
		return;
	walk->held |= BIT(file->number);
	file->holders++;
}

static void umn_hit(struct umn_walk *walk, struct umn_watch *watch)
{
	struct umn_file *file = watch->file;

	umn_leave_armed(file, watch);
	if (watch->has_slot) {
		umn_set_state(file, watch, watch->state | walk->kind);
	} else {
		watch->state = walk->kind;
		umn_enter_told(file, watch);
	}
	watch->hinted = true;
	watch->hint_start = max(watch->range.start, walk->range->start);
	watch->hint_end = min(umn_end(watch), walk->range->end);
	umn_pend(file, watch);
	umn_hold(walk, file);
	walk->hit |= BIT(file->number);
	walk->hits++;
	trace_ummunotify_report(file, watch->cookie, watch->hint_start,
				watch->hint_end - 1);
}

/*
 * REGISTER watches that were told already. Which of them are hit is not looked
 * at: all that have a report now lose the hint, and the report gets this kind.
 * At the end of an invalidation they count for nothing; a harmless one would
 * find here what it has told itself.
 */
static void umn_ask_told(struct umn_walk *walk)
{
	struct umn_file *file;

	list_for_each_entry(file, &walk->space->told_files, told_link) {
		if (umn_is_harmless(walk->kind) && (!file->hears_all || walk->at_end))
			continue;
		if (!interval_tree_iter_first(&file->told, walk->range->start,
					      walk->range->end - 1))
			continue;
		file->unhinted = file->pending_count;
		file->unhinted_kinds |= walk->kind;
		if (walk->at_end)
			continue;
		umn_hold(walk, file);
		walk->hit |= BIT(file->number);
	}
}

/* Moves the counters: after the words and reports, see I3. */
static void umn_publish(struct umn_walk *walk)
{
	struct umn_space *space = walk->space;
	unsigned long files = walk->hit | space->unpublished;
	unsigned int i;

	lockdep_assert_held(&space->lock);
	for_each_set_bit(i, &files, UMN_FILES) {
		struct umn_file *file = space->files[i];

		umn_hold(walk, file);
		if (file->closed)
			continue;
		/*
		 * Pairs with the acquire load in user space: who sees this
		 * generation sees the state words written above.
		 */
		smp_store_release(file->counter, ++file->generation);
		if (!(walk->hit & BIT(i)))
			continue;
		if (walk->at_end)
			file->late++;
		else
			file->hits[ilog2(walk->kind)]++;
		trace_ummunotify_invalidate(file, walk->range->start,
					    walk->range->end, walk->kind,
					    walk->at_end, walk->hits,
					    file->generation);
	}
	space->unpublished = 0;
}

/*
 * Lets others have the lock, and the CPU where that may be. Whatever they arm
 * is told by the rest of this walk or by the end of the invalidation (I1).
 */
static void umn_let_go(struct umn_walk *walk)
	__must_hold(&walk->space->lock)
{
	struct umn_space *space = walk->space;

	space->unpublished |= walk->hit;
	if (!walk->has_let_go)
		WRITE_ONCE(space->walking, space->walking + 1);
	walk->has_let_go = true;
	spin_unlock(&space->lock);
	if (mmu_notifier_range_blockable(walk->range))
		cond_resched();
	else
		cpu_relax();
	spin_lock(&space->lock);
	walk->since = 0;
	/* Others may have told watches of this range meanwhile. */
	umn_ask_told(walk);
}

/* Each watch found leaves the tree, so the first is always a new one. */
static void umn_walk_tree(struct umn_walk *walk, struct rb_root_cached *tree)
{
	unsigned long start = walk->range->start, last = walk->range->end - 1;
	struct interval_tree_node *node = interval_tree_iter_first(tree, start, last);

	while (node) {
		struct umn_watch *watch = container_of(node, struct umn_watch, range);

		node = interval_tree_iter_next(node, start, last);
		umn_hit(walk, watch);
		if (++walk->since < UMN_BATCH)
			continue;
		umn_let_go(walk);
		node = interval_tree_iter_first(tree, start, last);
	}
}

/* The file stays: see umn_file::holders. */
static void umn_tell(struct umn_file *file)
{
	wake_up_interruptible(&file->wait);
	kill_fasync(&file->fasync, SIGIO, POLL_IN);
}

static void umn_tell_all(struct umn_walk *walk)
{
	struct umn_space *space = walk->space;
	unsigned int i;

	/* Only this walk's own files, which stay: no lock is needed. */
	for_each_set_bit(i, &walk->held, UMN_FILES)
		umn_tell(READ_ONCE(space->files[i]));

	spin_lock(&space->lock);
	for_each_set_bit(i, &walk->held, UMN_FILES) {
		struct umn_file *file = space->files[i];

		if (!--file->holders) {
			space->files[i] = NULL;
			kfree(file);
		}
	}
	spin_unlock(&space->lock);
}

static void umn_invalidate(struct umn_space *space,
			   const struct mmu_notifier_range *range, u32 kind,
			   bool at_end)
{
	struct umn_walk walk = {
		.space = space,
		.range = range,
		.kind = kind,
		.at_end = at_end,
	};
	bool wake = false;

	if (range->start >= range->end)
		return;

	spin_lock(&space->lock);
	umn_ask_told(&walk);
	if (!umn_is_harmless(kind))
		umn_walk_tree(&walk, &space->armed[false]);
	umn_walk_tree(&walk, &space->armed[true]);
	umn_publish(&walk);
	if (walk.has_let_go) {
		WRITE_ONCE(space->walking, space->walking - 1);
		wake = !space->walking;
	}
	umn_settle(space);
	spin_unlock(&space->lock);

	if (wake)
		wake_up_all(&space->walked);
	if (walk.held)
		umn_tell_all(&walk);
}

/*
 * Called from any task, with all kinds of locks held, sometimes where sleeping
 * is forbidden. current->mm means nothing here. Must return 0, or the kernel
 * would call the end of an invalidation that we had refused to see.
 */
static int umn_range_start(struct mmu_notifier *notifier,
			   const struct mmu_notifier_range *range)
{
	struct umn_space *space = container_of(notifier, struct umn_space, notifier);
	u32 kind = umn_kind(range);
	bool harmless = umn_is_harmless(kind);

	this_cpu_inc(space->counts->of[ilog2(kind)]);
	if (!harmless) {
		atomic_long_add(UMN_INFLIGHT, &space->busy);
		smp_mb__after_atomic(); /* I2: pairs with that in umn_enter_armed() */
	}
	if (!READ_ONCE(space->idle[harmless]))
		umn_invalidate(space, range, kind, false);
	return 0;
}

/* Harmless ones are rarely heard at all, so there the look is not saved. */
static void umn_range_end(struct mmu_notifier *notifier,
			  const struct mmu_notifier_range *range)
{
	struct umn_space *space = container_of(notifier, struct umn_space, notifier);
	u32 kind = umn_kind(range);
	bool looked = false;
	long busy, next;

	if (umn_is_harmless(kind)) {
		if (!READ_ONCE(space->idle[true]))
			umn_invalidate(space, range, kind, true);
		return;
	}

	busy = atomic_long_read(&space->busy);
	do {
		if (busy & UMN_ARMED && !looked) {
			umn_invalidate(space, range, kind, true);
			looked = true;
			busy = atomic_long_read(&space->busy);
		}
		if (WARN_ON_ONCE(busy < UMN_INFLIGHT))
			return;
		next = busy - UMN_INFLIGHT;
		if (next < UMN_INFLIGHT)
			next = 0; /* the window is over */
	} while (!atomic_long_try_cmpxchg(&space->busy, &busy, next));
}

static struct mmu_notifier *umn_alloc_space(struct mm_struct *mm)
{
	long cost = umn_cost(sizeof(struct umn_space)) +
		    umn_cost(sizeof(struct umn_counts) * num_possible_cpus());
	struct umn_space *space = kzalloc(sizeof(*space), GFP_KERNEL_ACCOUNT);
	int ret = -ENOMEM;

	if (!space)
		return ERR_PTR(-ENOMEM);
	space->counts = alloc_percpu_gfp(struct umn_counts, GFP_KERNEL_ACCOUNT);
	if (!space->counts)
		goto err_space;
	space->user = umn_get_user();
	if (!space->user)
		goto err_counts;
	ret = umn_charge(space->user, cost);
	if (ret)
		goto err_user;
	space->idle[false] = true;
	space->idle[true] = true;
	spin_lock_init(&space->lock);
	space->armed[false] = RB_ROOT_CACHED;
	space->armed[true] = RB_ROOT_CACHED;
	INIT_LIST_HEAD(&space->told_files);
	init_waitqueue_head(&space->walked);
	atomic_long_inc(&umn_spaces);
	return &space->notifier;

err_user:
	umn_put_user(space->user);
err_counts:
	free_percpu(space->counts);
err_space:
	kfree(space);
	return ERR_PTR(ret);
}

/* When no callback runs any more; must not sleep. */
static void umn_free_space(struct mmu_notifier *notifier)
{
	struct umn_space *space = container_of(notifier, struct umn_space, notifier);
	long cost = umn_cost(sizeof(struct umn_space)) +
		    umn_cost(sizeof(struct umn_counts) * num_possible_cpus());

	umn_uncharge(space->user, cost);
	umn_put_user(space->user);
	free_percpu(space->counts);
	kfree(space);
	atomic_long_dec(&umn_spaces);
}

static const struct mmu_notifier_ops umn_notifier_ops = {
	.invalidate_range_start = umn_range_start,
	.invalidate_range_end = umn_range_end,
	.alloc_notifier = umn_alloc_space,
	.free_notifier = umn_free_space,
};

/* ---- slots ----------------------------------------------------------------- */

/* Both at once: giving a slot back must not need anything. */
static long umn_words_cost(void)
{
	return umn_cost(PAGE_SIZE) +
	       umn_cost(BITS_TO_LONGS(UMN_WORDS_PER_PAGE) * sizeof(long));
}

static int umn_add_words(struct umn_file *file, struct umn_page *page)
{
	u32 *words;
	size_t i;
	int ret;

	lockdep_assert_held(&file->words_lock);
	ret = umn_charge(file->user, umn_words_cost());
	if (ret)
		return ret;
	ret = -ENOMEM;
	page->holes = bitmap_zalloc(UMN_WORDS_PER_PAGE, GFP_KERNEL_ACCOUNT);
	if (!page->holes)
		goto err_charge;
	words = (u32 *)__get_free_page(UMN_GFP_MAPPED);
	if (!words)
		goto err_holes;
	for (i = 0; i < UMN_WORDS_PER_PAGE; i++)
		words[i] = UMMUNOTIFY_STATE_FREE;
	/* Pairs with the acquire in umn_fault(). */
	smp_store_release(&page->words, words);
	return 0;

err_holes:
	bitmap_free(page->holes);
	page->holes = NULL;
err_charge:
	umn_uncharge(file->user, umn_words_cost());
	return ret;
}

static u32 umn_take_hole(struct umn_file *file)
{
	unsigned long *holes;
	u32 bit;

	lockdep_assert_held(&file->words_lock);
	for (;; file->hole_page++) {
		holes = file->pages[file->hole_page].holes;
		bit = find_first_bit(holes, UMN_WORDS_PER_PAGE);
		if (bit < UMN_WORDS_PER_PAGE)
			break;
	}
	__clear_bit(bit, holes);
	file->holes--;
	return file->hole_page * UMN_WORDS_PER_PAGE + bit;
}

/* A slot whose state word is there. */
static int umn_get_slot(struct umn_file *file)
{
	struct umn_page *page;
	int ret = 0;

	lockdep_assert_held(&file->words_lock);
	if (file->holes)
		return umn_take_hole(file);
	if (file->next_slot == max_watches)
		return -ENOSPC;
	page = &file->pages[file->next_slot / UMN_WORDS_PER_PAGE];
	if (!page->words)
		ret = umn_add_words(file, page);
	return ret ? ret : file->next_slot++;
}

static void umn_put_slot(struct umn_file *file, u32 slot)
{
	u32 index = slot / UMN_WORDS_PER_PAGE;

	mutex_lock(&file->words_lock);
	__set_bit(slot % UMN_WORDS_PER_PAGE, file->pages[index].holes);
	if (!file->holes++ || index < file->hole_page)
		file->hole_page = index;
	mutex_unlock(&file->words_lock);
}

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

	lockdep_assert_held(&file->space->lock);
	node = rb_find(&cookie, &file->cookies, umn_cmp_cookie);
	return node ? rb_entry(node, struct umn_watch, by_cookie) : NULL;
}

/*
 * I4: whoever arms lets walks go first, but does not wait for a task that gets no
 * CPU, which may be anybody's.
 */
static int umn_yield_to_walks(struct umn_space *space)
{
	if (likely(!READ_ONCE(space->walking)))
		return 0;
	return wait_event_killable_timeout(space->walked, !READ_ONCE(space->walking),
					   1) < 0 ? -EINTR : 0;
}

/* A reader does: what LAST says is to be true. */
static int umn_await_walks(struct umn_space *space)
{
	if (likely(!READ_ONCE(space->walking)))
		return 0;
	return wait_event_killable(space->walked, !READ_ONCE(space->walking)) ?
		       -EINTR : 0;
}

/* A word that differs from the last one of this very watch. */
static u32 umn_next_state(struct umn_file *file, const struct umn_watch *watch)
{
	u32 state = ++file->arm_count << UMMUNOTIFY_STATE_GENERATION_SHIFT;

	lockdep_assert_held(&file->space->lock);
	if (state == (watch->state & UMN_STATE_GENERATION))
		state = ++file->arm_count << UMMUNOTIFY_STATE_GENERATION_SHIFT;
	return state;
}

/* Programs end one watch and make another all the time. */
static bool umn_put_spare(struct umn_file *file, struct umn_watch *watch, bool always)
{
	lockdep_assert_held(&file->space->lock);
	if (file->spare_count >= UMN_SPARES && !always)
		return false;
	list_add(&watch->pending, &file->spares);
	file->spare_count++;
	return true;
}

static struct umn_watch *umn_get_spare(struct umn_file *file)
{
	struct umn_watch *watch;

	lockdep_assert_held(&file->space->lock);
	watch = list_first_entry_or_null(&file->spares, struct umn_watch, pending);
	if (watch) {
		list_del_init(&watch->pending);
		file->spare_count--;
	}
	return watch;
}

static void umn_free_watch(struct umn_file *file, struct umn_watch *watch)
{
	if (watch->has_slot)
		umn_put_slot(file, watch->slot);
	kmem_cache_free(umn_watch_cache, watch);
	umn_uncharge(file->user, 1);
}

/* Each field is set here or by umn_watch(), or has no meaning yet. */
static void umn_init_watch(struct umn_file *file, struct umn_watch *watch)
{
	INIT_LIST_HEAD(&watch->pending);
	watch->file = file;
	watch->has_slot = false;
	watch->hinted = false;
	watch->slot = 0;
	watch->state = 0;
}

/* Without a slot: for REGISTER. */
static struct umn_watch *umn_alloc_watch(struct umn_file *file)
{
	struct umn_watch *watch;
	int ret = umn_charge(file->user, 1);

	if (ret)
		return ERR_PTR(ret);
	watch = kmem_cache_alloc(umn_watch_cache, GFP_KERNEL);
	if (!watch) {
		umn_uncharge(file->user, 1);
		return ERR_PTR(-ENOMEM);
	}
	umn_init_watch(file, watch);
	return watch;
}

static int umn_alloc_some(struct umn_file *file, struct umn_watch **watches, u32 n)
{
	int ret = umn_charge(file->user, n);

	if (ret)
		return ret;
	if (kmem_cache_alloc_bulk(umn_watch_cache, GFP_KERNEL, n, (void **)watches))
		return 0;
	umn_uncharge(file->user, n);
	return -ENOMEM;
}

/*
 * With slots, for WATCH: up to `n` at once, since each by itself would pay for
 * the allocator, both limits and two locks. They end with a row of slots, so
 * that they need one page of words at most; near a limit there is but one.
 */
static u32 umn_fill_watches(struct umn_file *file, struct umn_watch **watches, u32 n,
			    int *error)
{
	u32 got;

	lockdep_assert_held(&file->words_lock);
	n = min(n, UMN_REFILL - file->next_slot % UMN_REFILL);
	*error = umn_alloc_some(file, watches, n);
	if (*error && n > 1) {
		n = 1;
		*error = umn_alloc_some(file, watches, n);
	}
	if (*error)
		return 0;
	for (got = 0; got < n; got++) {
		int slot = umn_get_slot(file);

		if (slot < 0) {
			*error = slot;
			break;
		}
		umn_init_watch(file, watches[got]);
		watches[got]->has_slot = true;
		watches[got]->slot = slot;
	}
	if (got < n) {
		kmem_cache_free_bulk(umn_watch_cache, n - got, (void **)&watches[got]);
		umn_uncharge(file->user, n - got);
	}
	return got;
}

/* All but the first become spares, the lowest slot first. */
static struct umn_watch *umn_alloc_watches(struct umn_file *file, u32 n)
{
	struct umn_watch *watches[UMN_REFILL];
	int error;

	mutex_lock(&file->words_lock);
	n = umn_fill_watches(file, watches, n, &error);
	/* Under the mutex: who finds nothing left finds these. */
	if (n > 1) {
		spin_lock(&file->space->lock);
		while (n > 1)
			umn_put_spare(file, watches[--n], true);
		spin_unlock(&file->space->lock);
	}
	mutex_unlock(&file->words_lock);
	return n ? watches[0] : ERR_PTR(error);
}

/* Makes and arms a watch; slot and state only with a slot. */
static int umn_watch(struct umn_file *file, u64 start, u64 end, u64 cookie,
		     bool with_slot, u32 *slot, u32 *state)
{
	struct umn_space *space = file->space;
	struct umn_watch *watch = NULL;
	u32 refill;
	int ret;

	if (end > ULONG_MAX)
		return -EINVAL;
	ret = umn_yield_to_walks(space);
	if (ret)
		return ret;

	spin_lock(&space->lock);
	if (with_slot)
		watch = umn_get_spare(file);
	if (!watch) {
		refill = clamp(file->watches / 2, 1U, UMN_REFILL);
		spin_unlock(&space->lock);
		watch = with_slot ? umn_alloc_watches(file, refill) :
				    umn_alloc_watch(file);
		spin_lock(&space->lock);
		if (IS_ERR(watch) && with_slot && file->spare_count)
			watch = umn_get_spare(file);
		if (IS_ERR(watch)) {
			spin_unlock(&space->lock);
			return PTR_ERR(watch);
		}
	}

	watch->cookie = cookie;
	watch->range.start = start;
	watch->range.last = end > start ? end - 1 : start;
	watch->empty = end <= start;

	file->used = true;
	if (rb_find_add(&watch->by_cookie, &file->cookies, umn_cmp_watch)) {
		ret = -EEXIST;
	} else if (file->watches >= max_watches) {
		rb_erase(&watch->by_cookie, &file->cookies);
		ret = -ENOSPC;
	} else {
		file->watches++;
		if (with_slot) {
			umn_set_state(file, watch, umn_next_state(file, watch));
			*slot = watch->slot;
			*state = watch->state;
		}
		umn_enter_armed(file, watch);
		trace_ummunotify_watch(file, cookie, watch->range.start,
				       watch->range.last);
	}
	if (!ret || (with_slot && umn_put_spare(file, watch, false)))
		watch = NULL;
	spin_unlock(&space->lock);

	if (watch)
		umn_free_watch(file, watch);
	return ret;
}

/* Ends a watch; if `only` is given, just the one it was filled in for. */
static int umn_unwatch(struct umn_file *file, u64 cookie,
		       const struct ummunotify_watch_ioctl *only)
{
	struct umn_space *space = file->space;
	struct umn_watch *watch;
	int ret = 0;

	spin_lock(&space->lock);
	watch = umn_find(file, cookie);
	if (watch && only &&
	    (watch->slot != only->slot ||
	     (watch->state ^ only->state) & UMN_STATE_GENERATION))
		watch = NULL;
	if (watch) {
		trace_ummunotify_unwatch(file, cookie, watch->range.start,
					 watch->range.last);
		umn_leave(file, watch);
		rb_erase(&watch->by_cookie, &file->cookies);
		umn_unpend(file, watch);
		file->watches--;
		if (watch->has_slot) {
			umn_set_state(file, watch,
				      watch->state | UMMUNOTIFY_STATE_FREE);
			if (umn_put_spare(file, watch, false))
				watch = NULL;
		}
		umn_settle(space);
	} else {
		ret = -ENOENT;
	}
	spin_unlock(&space->lock);

	if (watch)
		umn_free_watch(file, watch);
	return ret;
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

/*
 * What in a non-empty range forbids caching; under mmap_lock. *last is NULL or
 * what was found before under the same hold of it: neighbours share a mapping.
 */
static u32 umn_memory(struct mm_struct *mm, unsigned long start, unsigned long end,
		      struct vm_area_struct **last)
{
	VMA_ITERATOR(vmi, mm, start);
	struct vm_area_struct *vma = *last;
	u32 memory = 0;

	if (vma && vma->vm_start <= start && end <= vma->vm_end)
		return umn_vma_memory(vma);
	for_each_vma_range(vmi, vma, end) {
		*last = vma;
		if (vma->vm_start > start)
			memory |= UMMUNOTIFY_MEMORY_HOLE;
		memory |= umn_vma_memory(vma);
		start = vma->vm_end;
		if (start >= end)
			break; /* looking for one more is half of the cost */
	}
	if (start < end)
		memory |= UMMUNOTIFY_MEMORY_HOLE;
	return memory;
}

/* ---- fingerprints ---------------------------------------------------------- */

/*
 * The frames of a range's pages in their order, as one number. Who compares
 * two holds a pin from before the first was taken, so a frame that is in both
 * is the same page. Why equal is enough, and what the window has to do with it:
 * docs/design.md, D8.
 */

/* What a watch with a slot is at one moment. */
struct umn_view {
	unsigned long start;
	unsigned long last;
	u32 slot;
	u32 state;
};

static void umn_view_locked(const struct umn_watch *watch, struct umn_view *view)
{
	lockdep_assert_held(&watch->file->space->lock);
	view->start = watch->range.start;
	view->last = watch->range.last;
	view->slot = watch->slot;
	view->state = watch->state;
}

static int umn_view(struct umn_file *file, u64 cookie, struct umn_view *view)
{
	struct umn_watch *watch;
	int ret = 0;

	spin_lock(&file->space->lock);
	watch = umn_find(file, cookie);
	if (!watch)
		ret = -ENOENT;
	else if (!watch->has_slot)
		ret = -EINVAL;
	else
		umn_view_locked(watch, view);
	spin_unlock(&file->space->lock);
	return ret;
}

/*
 * Arms a watch anew where it was seen; -ESTALE if something else than CLEAR has hit
 * it, or it has moved since.
 */
static int umn_arm_to_verify(struct umn_file *file, u64 cookie, struct umn_view *view)
{
	struct umn_watch *watch;
	int ret;

	ret = umn_yield_to_walks(file->space);
	if (ret)
		return ret;
	spin_lock(&file->space->lock);
	watch = umn_find(file, cookie);
	if (!watch) {
		ret = -ENOENT;
	} else if (!watch->has_slot) {
		ret = -EINVAL;
	} else if (watch->state & UMMUNOTIFY_STATE_KINDS & ~UMMUNOTIFY_KIND_CLEAR ||
		   watch->range.start != view->start || watch->range.last != view->last) {
		ret = -ESTALE;
	} else {
		umn_leave(file, watch);
		umn_unpend(file, watch);
		umn_set_state(file, watch, umn_next_state(file, watch));
		umn_enter_armed(file, watch);
		trace_ummunotify_rearm(file, cookie, watch->range.start,
				       watch->range.last);
		umn_view_locked(watch, view);
	}
	spin_unlock(&file->space->lock);
	return ret;
}

/*
 * Every invalidation that had begun before a watch was armed has ended, and has
 * hit it: true at some moment after the arming. Pairs with the end of an
 * invalidation, which looks before it counts itself out of `busy`: who reads
 * this, and the word after it, sees that hit.
 */
static bool umn_window_is_over(struct umn_space *space)
{
	return !(atomic_long_read_acquire(&space->busy) & UMN_ARMED);
}

static unsigned long umn_view_pages(const struct umn_view *view)
{
	return (view->last >> PAGE_SHIFT) - (view->start >> PAGE_SHIFT) + 1;
}

/* The frames seen so far, as runs of neighbours, and what was hashed of them. */
struct umn_hash {
	u64 hash;
	u64 runs[UMN_PAGES_AT_ONCE]; /* first frame << 24 | number of frames */
	unsigned int count;
};

/*
 * Always as many runs at a time, so that it does not matter how many pages came
 * at a time.
 */
static void umn_hash_frame(struct umn_hash *hash, u64 frame, const siphash_key_t *key)
{
	BUILD_BUG_ON(UMN_PAGES_PER_CALL >= 1 << 24);
	if (hash->count) {
		u64 *run = &hash->runs[hash->count - 1];

		if (frame == (*run >> 24) + (*run & 0xffffff)) {
			++*run;
			return;
		}
	}
	if (hash->count == ARRAY_SIZE(hash->runs)) {
		hash->hash = siphash_2u64(hash->hash,
					  siphash(hash->runs, sizeof(hash->runs), key), key);
		hash->count = 0;
	}
	hash->runs[hash->count++] = frame << 24 | 1;
}

static u64 umn_hash_end(const struct umn_hash *hash, const siphash_key_t *key)
{
	size_t size = hash->count * sizeof(hash->runs[0]);

	return siphash_2u64(hash->hash, siphash(hash->runs, size, key), key);
}

/*
 * Some of the pages at an address: as a registration would get them, or only what
 * is there. That is for comparing with what is pinned, so it need be no pin.
 */
static int umn_get_pages(unsigned long at, int n, u32 how, struct page **pages)
{
	unsigned int write = how & UMMUNOTIFY_FINGERPRINT_WRITE ? FOLL_WRITE : 0;

	return how & UMMUNOTIFY_FINGERPRINT_PRESENT ?
		       get_user_pages_fast_only(at, n, write, pages) :
		       pin_user_pages_fast(at, n, write | FOLL_LONGTERM, pages);
}

static void umn_put_pages(struct page **pages, int n, u32 how)
{
	if (how & UMMUNOTIFY_FINGERPRINT_PRESENT)
		while (n--)
			put_page(pages[n]);
	else
		unpin_user_pages(pages, n);
}

/*
 * Gets the pages, a few at a time, and lets them go; `how` is
 * UMMUNOTIFY_FINGERPRINT_*. *is_over: umn_window_is_over() at some moment.
 */
static int umn_hash_pages(struct umn_file *file, const struct umn_view *view,
			  u32 how, u64 *result, bool *is_over)
{
	unsigned long at = view->start & PAGE_MASK;
	unsigned long left = umn_view_pages(view);
	struct umn_hash hash;

	hash.hash = siphash_2u64(at, left, &file->key);
	hash.count = 0;
	*is_over = false;
	while (left) {
		struct page *pages[UMN_PAGES_AT_ONCE];
		int i, got;

		*is_over = *is_over || umn_window_is_over(file->space);
		got = umn_get_pages(at, min_t(unsigned long, left, ARRAY_SIZE(pages)),
				    how, pages);
		if (got <= 0)
			return got ? got : -EFAULT;
		for (i = 0; i < got; i++)
			umn_hash_frame(&hash, page_to_pfn(pages[i]), &file->key);
		umn_put_pages(pages, got, how);
		at += (unsigned long)got << PAGE_SHIFT;
		left -= got;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	*result = umn_hash_end(&hash, &file->key);
	*is_over = *is_over || umn_window_is_over(file->space);
	return 0;
}

/*
 * Takes a fingerprint of a watch that is armed, or verifies one. The order is
 * everything: armed, then the pages, then the word. *left counts what the call
 * may still look at; -EAGAIN if that is not enough.
 */
static int umn_fingerprint(struct umn_file *file, struct ummunotify_fingerprint *parm,
			   unsigned long *left)
{
	bool verify = parm->flags & UMMUNOTIFY_FINGERPRINT_VERIFY;
	struct umn_view view, after;
	struct vm_area_struct *vma = NULL;
	bool is_over;
	u32 memory;
	u64 hash;
	int ret;

	parm->answer = UMMUNOTIFY_PAGES_UNKNOWN;
	ret = umn_view(file, parm->user_cookie, &view);
	if (ret)
		return ret;
	if (umn_view_pages(&view) > UMN_PAGES_PER_CALL)
		return 0;
	if (umn_view_pages(&view) > *left)
		return -EAGAIN;
	*left -= umn_view_pages(&view);

	if (verify) {
		ret = umn_arm_to_verify(file, parm->user_cookie, &view);
		if (ret)
			return ret == -ESTALE ? 0 : ret;
		parm->state = view.state;
	}
	parm->slot = view.slot;
	if (view.state != parm->state || view.state & UMMUNOTIFY_STATE_KINDS)
		return 0;

	/* Armed: what is mapped from here on announces itself. */
	if (mmap_read_lock_killable(file->mm))
		return -EINTR;
	memory = umn_memory(file->mm, view.start, view.last + 1, &vma);
	mmap_read_unlock(file->mm);
	if (memory)
		return 0;
	ret = umn_hash_pages(file, &view, parm->flags, &hash, &is_over);
	if (ret)
		return fatal_signal_pending(current) ? -EINTR : 0;

	if (umn_view(file, parm->user_cookie, &after) || after.state != view.state)
		return 0;
	if (verify) {
		parm->answer = hash == parm->fingerprint ? UMMUNOTIFY_PAGES_SAME :
							   UMMUNOTIFY_PAGES_OTHER;
	} else if (is_over) {
		parm->fingerprint = hash;
		parm->answer = UMMUNOTIFY_PAGES_SAME;
	}
	return 0;
}

/* ---- ioctl ----------------------------------------------------------------- */

static u32 umn_page_count(void)
{
	return DIV_ROUND_UP(max_watches, UMN_WORDS_PER_PAGE);
}

static long umn_ioctl_exchange(struct umn_file *file, u32 __user *arg)
{
	long cost = umn_cost(umn_page_count() * sizeof(struct umn_page));
	u32 mask, magic = 0, granted = 0;
	struct umn_page *pages = NULL;
	long ret = 0;

	if (get_user(mask, arg))
		return -EFAULT;
	if ((mask & UMMUNOTIFY_FEATURES_MAGIC_MASK) == UMMUNOTIFY_FEATURES_MAGIC) {
		magic = UMMUNOTIFY_FEATURES_MAGIC;
		granted = mask & UMN_FEATURES;
	}
	if (granted & UMMUNOTIFY_FEATURE_STATE) {
		ret = umn_charge(file->user, cost);
		if (ret)
			return ret;
		pages = kvcalloc(umn_page_count(), sizeof(*pages), GFP_KERNEL_ACCOUNT);
		if (!pages) {
			umn_uncharge(file->user, cost);
			return -ENOMEM;
		}
	}

	spin_lock(&file->space->lock);
	if (file->used) {
		ret = -EINVAL;
	} else {
		file->used = true;
		if (magic)
			file->hears_all = !(granted & UMMUNOTIFY_FEATURE_FILTER);
		swap(file->pages, pages);
		/* Pairs with the acquire in umn_features(). */
		smp_store_release(&file->features, granted);
	}
	spin_unlock(&file->space->lock);
	if (pages) {
		kvfree(pages);
		umn_uncharge(file->user, cost);
	}
	if (ret)
		return ret;

	return put_user(magic | granted, arg) ? -EFAULT : 0;
}

/* The error numbers of 2009 and 2010. */
static long umn_old_error(int ret)
{
	return ret == -EEXIST || ret == -ENOENT ? -EINVAL : ret;
}

/* Pointers may have tags (arm64, x86); what is invalidated has none. */
static u64 umn_untag(u64 addr)
{
	return untagged_addr(addr);
}

static long umn_register(struct umn_file *file, u64 start, u64 end, u64 cookie)
{
	return umn_old_error(umn_watch(file, umn_untag(start), umn_untag(end), cookie,
				       false, NULL, NULL));
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
	struct vm_area_struct *vma = NULL;
	struct ummunotify_watch_ioctl parm;
	u64 start, end;
	int ret;

	if (copy_from_user(&parm, arg, sizeof(parm)))
		return -EFAULT;
	start = umn_untag(parm.start);
	end = umn_untag(parm.end);
	if (parm.flags & ~UMMUNOTIFY_WATCH_CACHEABLE || end <= start)
		return -EINVAL;

	ret = umn_watch(file, start, end, parm.user_cookie, true, &parm.slot,
			&parm.state);
	if (ret)
		return ret;

	parm.memory = 0;
	if (parm.flags & UMMUNOTIFY_WATCH_CACHEABLE) {
		/* Only now: what is mapped from here on announces itself. */
		if (mmap_read_lock_killable(file->mm)) {
			ret = -EINTR;
		} else {
			parm.memory = umn_memory(file->mm, start, end, &vma);
			mmap_read_unlock(file->mm);
			if (parm.memory)
				ret = -EOPNOTSUPP;
		}
	}
	if (copy_to_user(arg, &parm, sizeof(parm)))
		ret = -EFAULT;
	if (ret)
		umn_unwatch(file, parm.user_cookie, &parm);
	return ret;
}

/* What a watch is to be when it is armed anew. */
struct umn_place {
	unsigned long start;
	unsigned long end;
	u64 cookie;
	bool cacheable; /* only if the memory there is */
};

/* What is answered: slot and state, or all of a struct ummunotify_arm's. */
struct umn_answer {
	u32 __user *slot;
	u32 __user *memory; /* and `error`; or NULL */
};

/* In the same step as arming, so without a fault. */
static int umn_give(const struct umn_answer *answer, u32 slot, u32 state)
{
	u32 __user *first = answer->memory ? answer->memory : answer->slot;
	int ret = -EAGAIN;

	pagefault_disable();
	if (!user_write_access_begin(first, (answer->slot + 2 - first) * sizeof(*first)))
		goto out;
	if (answer->memory) {
		unsafe_put_user(0, answer->memory, fault);
		unsafe_put_user(0, answer->memory + 1, fault);
	}
	unsafe_put_user(slot, answer->slot, fault);
	unsafe_put_user(state, answer->slot + 1, fault);
	ret = 0;
fault:
	user_write_access_end();
out:
	pagefault_enable();
	return ret;
}

/* Under the lock: nothing has changed unless 0 is returned. */
static int umn_rearm_locked(struct umn_file *file, u64 cookie,
			    const struct umn_place *place,
			    const struct umn_answer *answer)
{
	struct umn_watch *watch = umn_find(file, cookie);
	u32 state;

	if (!watch)
		return -ENOENT;
	if (!watch->has_slot)
		return -EINVAL;
	if (place && place->cookie != cookie && umn_find(file, place->cookie))
		return -EEXIST;

	/* The answer comes first: if it cannot be given, nothing is lost. */
	state = umn_next_state(file, watch);
	if (umn_give(answer, watch->slot, state))
		return -EAGAIN;

	umn_leave(file, watch);
	umn_unpend(file, watch);
	if (place) {
		watch->range.start = place->start;
		watch->range.last = place->end - 1;
	}
	if (place && place->cookie != cookie) {
		rb_erase(&watch->by_cookie, &file->cookies);
		watch->cookie = place->cookie;
		rb_find_add(&watch->by_cookie, &file->cookies, umn_cmp_watch);
	}
	umn_set_state(file, watch, state);
	umn_enter_armed(file, watch);
	trace_ummunotify_rearm(file, watch->cookie, watch->range.start,
			       watch->range.last);
	return 0;
}

/*
 * Arms a watch anew, perhaps elsewhere, and answers with its slot and state. On
 * failure nothing has changed; *memory says why it is -EOPNOTSUPP. mmap_lock is
 * held from looking at the memory until the watch is armed, so that what is
 * mapped later announces itself.
 */
static int umn_rearm(struct umn_file *file, u64 cookie,
		     const struct umn_place *place, u32 *memory, u32 __user *slot)
{
	const struct umn_answer answer = { .slot = slot };
	bool cacheable = place && place->cacheable;
	struct vm_area_struct *vma;
	int ret;

	for (;;) {
		ret = umn_yield_to_walks(file->space);
		if (ret)
			return ret;
		if (cacheable && mmap_read_lock_killable(file->mm))
			return -EINTR;
		vma = NULL;
		if (cacheable)
			*memory = umn_memory(file->mm, place->start, place->end, &vma);
		if (cacheable && *memory) {
			ret = -EOPNOTSUPP;
		} else {
			spin_lock(&file->space->lock);
			ret = umn_rearm_locked(file, cookie, place, &answer);
			spin_unlock(&file->space->lock);
		}
		if (cacheable)
			mmap_read_unlock(file->mm);
		if (ret != -EAGAIN)
			return ret;
		if (clear_user(slot, 2 * sizeof(*slot)))
			return -EFAULT;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
}

static long umn_ioctl_rearm(struct umn_file *file,
			    struct ummunotify_rearm_ioctl __user *arg)
{
	struct ummunotify_rearm_ioctl parm;

	BUILD_BUG_ON(offsetof(typeof(parm), state) != offsetof(typeof(parm), slot) + 4);
	if (copy_from_user(&parm, arg, sizeof(parm)))
		return -EFAULT;
	return umn_rearm(file, parm.user_cookie, NULL, NULL, &arg->slot);
}

static bool umn_get_place(const struct ummunotify_arm *parm, struct umn_place *place)
{
	u64 start = umn_untag(parm->start), end = umn_untag(parm->end);

	if (parm->flags & ~UMMUNOTIFY_ARM_CACHEABLE || parm->reserved ||
	    end <= start || end > ULONG_MAX)
		return false;
	place->start = start;
	place->end = end;
	place->cookie = parm->new_cookie;
	place->cacheable = parm->flags & UMMUNOTIFY_ARM_CACHEABLE;
	return true;
}

/* What says in its first word how long it is, and at least has what we know. */
static int umn_get_size(const __u32 __user *arg, size_t known, u32 *size)
{
	if (get_user(*size, arg))
		return -EFAULT;
	if (*size < known)
		return -EINVAL;
	return *size > PAGE_SIZE ? -E2BIG : 0;
}

static int umn_arm(struct umn_file *file, struct ummunotify_arm __user *arg, u32 size)
{
	struct ummunotify_arm parm;
	struct umn_place place;
	u32 memory = 0;
	int ret;

	BUILD_BUG_ON(offsetof(typeof(parm), state) != offsetof(typeof(parm), slot) + 4);
	ret = copy_struct_from_user(&parm, sizeof(parm), arg, size);
	if (ret)
		return ret;
	if (!umn_get_place(&parm, &place))
		return -EINVAL;
	/* What an earlier call may have left there. */
	if (parm.memory && put_user(0, &arg->memory))
		return -EFAULT;
	ret = umn_rearm(file, parm.user_cookie, &place, &memory, &arg->slot);
	if (memory && put_user(memory, &arg->memory))
		return -EFAULT;
	return ret;
}

static long umn_ioctl_arm(struct umn_file *file, struct ummunotify_arm __user *arg)
{
	u32 size;
	int ret = umn_get_size(&arg->size, sizeof(*arg), &size);

	return ret ? ret : umn_arm(file, arg, size);
}

/* Arms the first of n orders that can be at once: how many. */
static u32 umn_arm_locked(struct umn_file *file, struct ummunotify_arm __user *at,
			  const struct ummunotify_arm *parms, u32 n)
{
	struct umn_place place;
	u32 i;

	lockdep_assert_held(&file->space->lock);
	for (i = 0; i < n; i++) {
		struct umn_answer answer = {
			.slot = &at[i].slot,
			.memory = &at[i].memory,
		};

		if (!umn_get_place(&parms[i], &place) ||
		    umn_rearm_locked(file, parms[i].user_cookie, &place, &answer))
			break;
	}
	return i;
}

/*
 * The first of n orders that succeed at once and are as long as this driver
 * knows them: how many. What is the matter with the next one, if anything, is
 * found out by umn_arm(). The lock is not held for looking at memory, which may
 * be made of very many mappings.
 */
static u32 umn_arm_some(struct umn_file *file, struct ummunotify_arm __user *at, u32 n)
{
	struct ummunotify_arm parms[UMN_ARMS];
	struct vm_area_struct *vma = NULL;
	struct umn_place place;
	bool looks = false;
	u32 i;

	BUILD_BUG_ON(offsetof(typeof(*at), error) != offsetof(typeof(*at), memory) + 4);
	BUILD_BUG_ON(offsetof(typeof(*at), slot) != offsetof(typeof(*at), memory) + 8);
	n = min_t(u32, n, UMN_ARMS);
	if (copy_from_user(parms, at, n * sizeof(*parms)) ||
	    umn_yield_to_walks(file->space))
		return 0;
	for (i = 0; i < n && parms[i].size == sizeof(*parms); i++) {
		if (!umn_get_place(&parms[i], &place))
			break;
		looks |= place.cacheable;
	}
	n = i;
	if (looks && mmap_read_lock_killable(file->mm))
		return 0;
	for (i = 0; looks && i < n; i++) {
		umn_get_place(&parms[i], &place);
		if (place.cacheable && umn_memory(file->mm, place.start, place.end, &vma))
			n = i;
		cond_resched();
	}
	spin_lock(&file->space->lock);
	n = umn_arm_locked(file, at, parms, n);
	spin_unlock(&file->space->lock);
	if (looks)
		mmap_read_unlock(file->mm);
	return n;
}

/* One order, which is as long as it says itself; *at becomes the next one. */
static long umn_arm_next(struct umn_file *file, struct ummunotify_arm __user **at)
{
	u32 size;
	long ret;

	ret = umn_get_size(&(*at)->size, sizeof(**at), &size);
	if (ret)
		return ret;
	ret = umn_arm(file, *at, size);
	if (ret == -EFAULT || put_user(ret, &(*at)->error))
		return -EFAULT;
	*at = (void __user *)*at + size;
	return 0;
}

static long umn_ioctl_arm_many(struct umn_file *file,
			       struct ummunotify_arm_many __user *arg)
{
	struct ummunotify_arm_many parm;
	struct ummunotify_arm __user *at;
	u32 size, done = 0, some;
	long ret;

	ret = umn_get_size(&arg->size, sizeof(parm), &size);
	if (ret)
		return ret;
	ret = copy_struct_from_user(&parm, sizeof(parm), arg, size);
	if (ret)
		return ret;
	if (parm.flags || parm.reserved)
		return -EINVAL;

	at = u64_to_user_ptr(parm.arms);
	while (done < parm.count && !ret) {
		if (fatal_signal_pending(current)) {
			ret = -EINTR;
			break;
		}
		some = umn_arm_some(file, at, parm.count - done);
		at += some;
		done += some;
		if (some < UMN_ARMS && done < parm.count) {
			ret = umn_arm_next(file, &at);
			done += !ret;
		}
		cond_resched();
	}
	if (put_user(done, &arg->done))
		return -EFAULT;
	return ret;
}

static int umn_fingerprint_at(struct umn_file *file,
			      struct ummunotify_fingerprint __user *arg, u32 size,
			      unsigned long *left)
{
	struct ummunotify_fingerprint parm;
	int ret;

	ret = copy_struct_from_user(&parm, sizeof(parm), arg, size);
	if (ret)
		return ret;
	if (parm.reserved || parm.flags & ~(UMMUNOTIFY_FINGERPRINT_VERIFY |
					    UMMUNOTIFY_FINGERPRINT_WRITE |
					    UMMUNOTIFY_FINGERPRINT_PRESENT)) {
		parm.answer = UMMUNOTIFY_PAGES_UNKNOWN;
		parm.error = -EINVAL;
	} else {
		/* Nothing is armed that cannot be answered. */
		if (put_user(UMMUNOTIFY_PAGES_UNKNOWN, &arg->answer))
			return -EFAULT;
		ret = umn_fingerprint(file, &parm, left);
		if (ret == -EINTR || ret == -EAGAIN)
			return ret;
		parm.error = ret;
	}
	parm.size = size;
	return copy_to_user(arg, &parm, sizeof(parm)) ? -EFAULT : 0;
}

/* Each entry is as long as it says itself. */
static long umn_ioctl_fingerprint(struct umn_file *file,
				  struct ummunotify_fingerprints __user *arg)
{
	unsigned long left = UMN_PAGES_PER_CALL;
	struct ummunotify_fingerprint __user *at;
	struct ummunotify_fingerprints parm;
	u32 size, done;
	long ret;

	ret = umn_get_size(&arg->size, sizeof(parm), &size);
	if (ret)
		return ret;
	ret = copy_struct_from_user(&parm, sizeof(parm), arg, size);
	if (ret)
		return ret;
	if (parm.flags || parm.reserved)
		return -EINVAL;

	at = u64_to_user_ptr(parm.fingerprints);
	for (done = 0; done < parm.count; done++) {
		if (done && signal_pending(current))
			break;
		if (fatal_signal_pending(current))
			ret = -EINTR;
		else
			ret = umn_get_size(&at->size, sizeof(*at), &size);
		if (!ret)
			ret = umn_fingerprint_at(file, at, size, &left);
		if (ret)
			break;
		at = (void __user *)at + size;
		cond_resched();
	}
	if (put_user(done, &arg->done))
		return -EFAULT;
	return ret == -EAGAIN ? 0 : ret;
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

	spin_lock(&file->space->lock);
	parm.watches = file->watches;
	spin_unlock(&file->space->lock);
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
	case UMMUNOTIFY_ARM:
		return umn_ioctl_arm(file, argp);
	case UMMUNOTIFY_ARM_MANY:
		return umn_ioctl_arm_many(file, argp);
	case UMMUNOTIFY_FINGERPRINT:
		if (!(umn_features(file) & UMMUNOTIFY_FEATURE_FINGERPRINT))
			return -ENOTTY;
		return umn_ioctl_fingerprint(file, argp);
	default:
		return -ENOTTY;
	}
}

/* ---- read and poll ------------------------------------------------------------ */

static bool umn_readable_locked(const struct umn_file *file)
{
	lockdep_assert_held(&file->space->lock);
	return file->last_owed || !list_empty(&file->pending);
}

static bool umn_readable(struct umn_file *file)
{
	bool readable;

	spin_lock(&file->space->lock);
	readable = umn_readable_locked(file);
	spin_unlock(&file->space->lock);
	return readable;
}

/* A REGISTER watch's report; `late`: see umn_file::unhinted. */
static void umn_fill_region(const struct umn_file *file,
			    const struct umn_watch *watch,
			    struct ummunotify_event *event, bool late, u32 kinds)
{
	kinds &= late ? watch->state | file->unhinted_kinds : watch->state;
	event->flags = kinds << UMMUNOTIFY_EVENT_KINDS_SHIFT;
	if (watch->hinted && !late) {
		event->flags |= UMMUNOTIFY_EVENT_FLAG_HINT;
		event->hint_start = watch->hint_start;
		event->hint_end = watch->hint_end;
	} else {
		event->hint_start = watch->range.start;
		event->hint_end = umn_end(watch);
	}
}

/*
 * Takes up to max reports, oldest first, off the list. Programs drain thousands,
 * so what a WATCH watch needs is here, and the list is set right once.
 */
static u32 umn_take(struct umn_file *file, u32 max, bool *regions)
{
	u32 kinds = umn_features(file) & UMMUNOTIFY_FEATURE_KIND ?
			    UMMUNOTIFY_STATE_KINDS : 0;
	struct ummunotify_event *event = file->events;
	struct umn_watch *watch, *next;
	u32 n = 0;

	lockdep_assert_held(&file->space->lock);
	list_for_each_entry_safe(watch, next, &file->pending, pending) {
		if (n == max)
			break;
		event->type = UMMUNOTIFY_EVENT_TYPE_INVAL;
		if (likely(watch->has_slot)) {
			event->flags = UMMUNOTIFY_EVENT_FLAG_HINT |
				       (watch->state & kinds)
					       << UMMUNOTIFY_EVENT_KINDS_SHIFT;
			event->hint_start = watch->hint_start;
			event->hint_end = watch->hint_end;
		} else {
			umn_fill_region(file, watch, event, n < file->unhinted, kinds);
			*regions = true;
		}
		event->user_cookie_counter = watch->cookie;
		event++;
		INIT_LIST_HEAD(&watch->pending);
		file->taken[n++] = watch;
	}
	/* The first that is left, or the head itself, comes first now. */
	file->pending.next = &watch->pending;
	watch->pending.prev = &file->pending;
	return n;
}

/* All is as it was before umn_take(). */
static void umn_put_back(struct umn_file *file, u32 n)
{
	lockdep_assert_held(&file->space->lock);
	while (n--)
		list_add(&file->taken[n]->pending, &file->pending);
}

/* They were delivered: REGISTER watches among them are armed anew. */
static void umn_settle_taken(struct umn_file *file, u32 n, bool regions)
{
	lockdep_assert_held(&file->space->lock);
	file->pending_count -= n;
	file->unhinted -= min(file->unhinted, n);
	if (!file->unhinted)
		file->unhinted_kinds = 0;
	while (regions && n--) {
		struct umn_watch *watch = file->taken[n];

		if (watch->has_slot)
			continue;
		umn_leave_told(file, watch);
		watch->state = 0;
		umn_enter_armed(file, watch);
	}
}

/*
 * Delivers what there is in one step, so that nobody sees a LAST while there are
 * reports that may yet come back. -EAGAIN: there is nothing; -EFAULT: nothing
 * was taken, the buffer's first *wanted bytes have to be there first.
 */
static ssize_t umn_deliver(struct umn_file *file, char __user *buf, u32 max,
			   size_t *wanted)
{
	bool regions = false, last;
	u32 n;

	lockdep_assert_held(&file->space->lock);
	if (!umn_readable_locked(file))
		return -EAGAIN;
	if (!max)
		return 0;
	n = umn_take(file, max, &regions);
	last = n < max;
	if (last)
		file->events[n] = (struct ummunotify_event){
			.type = UMMUNOTIFY_EVENT_TYPE_LAST,
			.user_cookie_counter = file->generation,
		};
	*wanted = (n + last) * sizeof(*file->events);
	if (copy_to_user_nofault(buf, file->events, *wanted)) {
		umn_put_back(file, n);
		return -EFAULT;
	}
	file->last_owed = !last;
	umn_settle_taken(file, n, regions);
	return *wanted;
}

static ssize_t umn_read(struct file *filp, char __user *buf, size_t count,
			loff_t *pos)
{
	struct umn_file *file = filp->private_data;
	struct umn_space *space = file->space;
	u32 max = min_t(size_t, count / sizeof(*file->events), UMN_EVENTS_PER_READ);
	size_t wanted;
	ssize_t ret;

	if (!umn_is_owner(file))
		return -ESTALE;
	for (;;) {
		if (umn_await_walks(space))
			return -EINTR;
		spin_lock(&space->lock);
		file->used = true;
		/* One that has begun since moves the counter when it is done. */
		ret = space->walking ? -EBUSY : umn_deliver(file, buf, max, &wanted);
		spin_unlock(&space->lock);
		if (ret == -EBUSY)
			continue;
		if (ret == -EAGAIN) {
			if (filp->f_flags & O_NONBLOCK)
				return ret;
			if (wait_event_interruptible(file->wait, umn_readable(file)))
				return -ERESTARTSYS;
		} else if (ret == -EFAULT) {
			/*
			 * No lock is held, so nobody waits for this memory. All
			 * of it is written: tags may differ within a page.
			 */
			if (clear_user(buf, wanted))
				return ret;
			if (signal_pending(current))
				return -ERESTARTSYS;
			cond_resched();
		} else {
			return ret;
		}
	}
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
		/* Pairs with the release in umn_add_words(). */
		page = smp_load_acquire(&file->pages[index].words);
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

static struct umn_counts umn_count(struct umn_space *space)
{
	struct umn_counts sum = {};
	int cpu, i;

	for_each_possible_cpu(cpu)
		for (i = 0; i < UMN_KINDS; i++)
			sum.of[i] += READ_ONCE(per_cpu_ptr(space->counts, cpu)->of[i]);
	return sum;
}

static long umn_file_cost(void)
{
	return umn_cost(sizeof(struct umn_file)) + 2 * umn_cost(PAGE_SIZE);
}

/* Gives the file a number in the address space of who opens it. */
static int umn_join(struct umn_file *file)
{
	struct mmu_notifier *notifier;
	struct umn_space *space;
	int ret = -ENOSPC;
	u32 i;

	/*
	 * No invalidation can be in flight when the first of them makes the
	 * space: that takes every lock under which one may be. -EINTR if a
	 * signal is pending.
	 */
	notifier = mmu_notifier_get(&umn_notifier_ops, current->mm);
	if (IS_ERR(notifier))
		return PTR_ERR(notifier);
	space = container_of(notifier, struct umn_space, notifier);

	spin_lock(&space->lock);
	for (i = 0; i < UMN_FILES && space->files[i]; i++)
		;
	if (i < UMN_FILES) {
		file->space = space;
		file->number = i;
		space->files[i] = file;
		ret = 0;
	}
	spin_unlock(&space->lock);
	if (ret)
		mmu_notifier_put(notifier);
	return ret;
}

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
	file->mm = current->mm;
	file->told = RB_ROOT_CACHED;
	INIT_LIST_HEAD(&file->told_link);
	file->cookies = RB_ROOT;
	INIT_LIST_HEAD(&file->pending);
	INIT_LIST_HEAD(&file->spares);
	init_waitqueue_head(&file->wait);
	mutex_init(&file->words_lock);
	file->hears_all = !legacy_filter;
	file->holders = 1;
	get_random_bytes(&file->key, sizeof(file->key));

	ret = -ENOMEM;
	file->user = umn_get_user();
	if (!file->user)
		goto err_file;
	ret = umn_charge(file->user, umn_file_cost());
	if (ret)
		goto err_user;
	ret = -ENOMEM;
	file->events = (void *)__get_free_page(GFP_KERNEL_ACCOUNT);
	if (!file->events)
		goto err_charge;
	file->counter = (void *)get_zeroed_page(UMN_GFP_MAPPED);
	if (!file->counter)
		goto err_events;
	ret = umn_join(file);
	if (ret)
		goto err_counter;
	file->before = umn_count(file->space);

	filp->private_data = file;
	return nonseekable_open(inode, filp);

err_counter:
	free_page((unsigned long)file->counter);
err_events:
	free_page((unsigned long)file->events);
err_charge:
	umn_uncharge(file->user, umn_file_cost());
err_user:
	umn_put_user(file->user);
err_file:
	kfree(file);
	return ret;
}

/* What it holds, in watches; words_lock or the last reference is held. */
static long umn_holds(struct umn_file *file, u32 watches)
{
	long holds = umn_file_cost() + watches;

	if (file->pages)
		holds += umn_cost(umn_page_count() * sizeof(*file->pages));
	return holds +
	       DIV_ROUND_UP(file->next_slot, UMN_WORDS_PER_PAGE) * umn_words_cost();
}

/* Out of the trees, after which no invalidation finds the file any more. */
static void umn_leave_all(struct umn_file *file)
{
	struct umn_space *space = file->space;
	struct umn_watch *watch, *next;
	unsigned int n = 0;

	spin_lock(&space->lock);
	rbtree_postorder_for_each_entry_safe(watch, next, &file->cookies, by_cookie) {
		umn_leave(file, watch);
		if (++n % UMN_BATCH)
			continue;
		spin_unlock(&space->lock);
		cond_resched();
		spin_lock(&space->lock);
	}
	space->unpublished &= ~BIT(file->number);
	file->closed = true;
	umn_settle(space);
	spin_unlock(&space->lock);
}

static int umn_release(struct inode *inode, struct file *filp)
{
	struct umn_file *file = filp->private_data;
	long holds = umn_holds(file, file->watches + file->spare_count);
	struct umn_space *space = file->space;
	struct umn_user *user = file->user;
	struct umn_watch *watch, *next;
	bool last;
	u32 i;

	umn_leave_all(file);
	rbtree_postorder_for_each_entry_safe(watch, next, &file->cookies, by_cookie) {
		kmem_cache_free(umn_watch_cache, watch);
		cond_resched();
	}
	list_for_each_entry_safe(watch, next, &file->spares, pending) {
		kmem_cache_free(umn_watch_cache, watch);
		cond_resched();
	}

	for (i = 0; file->pages && i < umn_page_count(); i++) {
		free_page((unsigned long)file->pages[i].words);
		bitmap_free(file->pages[i].holes);
	}
	kvfree(file->pages);
	free_page((unsigned long)file->counter);
	free_page((unsigned long)file->events);

	/* Unless invalidations are about to tell it: then the last of them. */
	spin_lock(&space->lock);
	last = !--file->holders;
	if (last)
		space->files[file->number] = NULL;
	spin_unlock(&space->lock);
	if (last)
		kfree(file);
	mmu_notifier_put(&space->notifier);
	umn_uncharge(user, holds);
	umn_put_user(user);
	return 0;
}

#ifdef CONFIG_PROC_FS
static void umn_show_fdinfo(struct seq_file *seq, struct file *filp)
{
	static const char *const names[UMN_KINDS] = {
		"unmap", "clear", "protection", "soft_dirty", "migrate", "other",
	};
	struct umn_file *file = filp->private_data;
	struct umn_counts counts = umn_count(file->space);
	u64 hits[UMN_KINDS], generation, late, all;
	u32 watches, spares, pending;
	bool hears_all;
	long holds;
	int i;

	spin_lock(&file->space->lock);
	memcpy(hits, file->hits, sizeof(hits));
	generation = file->generation;
	late = file->late;
	watches = file->watches;
	spares = file->spare_count;
	pending = file->pending_count;
	hears_all = file->hears_all;
	spin_unlock(&file->space->lock);
	mutex_lock(&file->words_lock);
	holds = umn_holds(file, watches + spares);
	mutex_unlock(&file->words_lock);

	seq_printf(seq, "ummunotify-features:\t0x%x\n", umn_features(file));
	seq_printf(seq, "ummunotify-watches:\t%u\n", watches);
	seq_printf(seq, "ummunotify-max-watches:\t%u\n", max_watches);
	seq_printf(seq, "ummunotify-holds:\t%ld\n", holds);
	seq_printf(seq, "ummunotify-user-holds:\t%ld\n",
		   atomic_long_read(&file->user->held));
	seq_printf(seq, "ummunotify-pending:\t%u\n", pending);
	seq_printf(seq, "ummunotify-generation:\t%llu\n", generation);
	seq_printf(seq, "ummunotify-late:\t%llu\n", late);
	for (i = 0; i < UMN_KINDS; i++) {
		bool filters = umn_is_harmless(1 << i) && !hears_all;

		all = counts.of[i] - file->before.of[i];
		seq_printf(seq, "ummunotify-%s:\thit %llu miss %llu filtered %llu\n",
			   names[i], hits[i],
			   filters || all < hits[i] ? 0 : all - hits[i],
			   filters ? all : 0);
	}
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
	BUILD_BUG_ON(sizeof(struct ummunotify_arm) != 64);
	BUILD_BUG_ON(sizeof(struct ummunotify_arm_many) != 32);
	BUILD_BUG_ON(sizeof(struct ummunotify_fingerprint) != 48);
	BUILD_BUG_ON(sizeof(struct ummunotify_fingerprints) != 32);
	BUILD_BUG_ON(sizeof(struct umn_watch) > 128);
	BUILD_BUG_ON(UMN_FILES > BITS_PER_LONG);

	if (!max_watches || max_watches > INT_MAX / sizeof(u32) ||
	    max_watches_user > LONG_MAX || max_watches_total > LONG_MAX)
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
	/*
	 * Spaces are freed later than files, by callbacks of SRCU. This waits for
	 * a grace period, after which such a callback may still be queued on a
	 * CPU that is busy; and when the last has counted, it has to return.
	 */
	mmu_notifier_synchronize();
	while (atomic_long_read(&umn_spaces))
		msleep(1);
	synchronize_rcu();
	kmem_cache_destroy(umn_watch_cache);
}

module_init(umn_init);
module_exit(umn_exit);

MODULE_ALIAS("ummunot");
MODULE_DESCRIPTION("Tells user space when its mappings change");
MODULE_LICENSE("Dual BSD/GPL");
#ifdef UMMUNOTIFY_VERSION
MODULE_VERSION(UMMUNOTIFY_VERSION);
#endif
