/* SPDX-License-Identifier: BSD-2-Clause */
/* The kernel around the driver, as kernel.h and native.h describe it. */
#include "kernel.h"
#include "native.h"

#include <stdarg.h>
#include <time.h>

#define PATIENCE 60 /* seconds that nobody waits in vain */
#define SPINS	 64

int native_fence;
_Thread_local struct native_plan native_plan;
_Thread_local uint64_t native_lock_operations;
_Thread_local const void *native_copied;
_Thread_local size_t native_copied_bytes;

static _Thread_local struct task_struct task;
static _Thread_local bool in_hook;

static const struct file_operations *fops;
static long objects; /* allocated now */
static unsigned long signals;

void native_die(const char *format, ...)
{
	va_list args;

	dprintf(2, "native: ");
	va_start(args, format);
	vdprintf(2, format, args);
	va_end(args);
	dprintf(2, "\n");
	abort();
}

/* As another task would: with nothing held, nothing that fails. */
static void run_hook(void (*hook)(void))
{
	struct task_struct saved = task;
	struct native_plan plan = native_plan;

	if (!hook || in_hook)
		return;
	in_hook = true;
	task.atomic = 0;
	native_plan.fault_end = NULL;
	native_plan.fail_after = 0;
	hook();
	in_hook = false;
	task = saved;
	native_plan.fault_end = plan.fault_end;
	native_plan.fail_after = plan.fail_after;
}

/* ---- tasks -------------------------------------------------------------- */

struct user_namespace init_user_ns;

bool native_is_inner(void)
{
	return in_hook;
}

struct task_struct *native_task(void)
{
	return &task;
}

void native_become(struct mm_struct *mm, unsigned int uid, bool capable)
{
	task.mm = mm;
	task.uid.val = uid;
	task.capable = capable;
}

void native_signal(bool pending)
{
	task.signal = pending;
}

bool native_holds_mutex(void)
{
	return task.mutexes;
}

bool native_holds_lock(void)
{
	return task.spinning;
}

void might_sleep(void)
{
	if (task.spinning || task.atomic)
		native_die("sleeping where it is forbidden");
}

void cpu_relax(void)
{
	sched_yield();
}

unsigned int native_cpu(void)
{
	static unsigned int threads;
	static _Thread_local unsigned int number;

	if (!number)
		number = 1 + __atomic_fetch_add(&threads, 1, __ATOMIC_RELAXED);
	return number % NATIVE_CPUS;
}

/* ---- locks -------------------------------------------------------------- */

static void take(pthread_mutex_t *lock, struct task_struct **owner)
{
	if (__atomic_load_n(owner, __ATOMIC_RELAXED) == &task)
		native_die("a lock is taken twice");
	if (pthread_mutex_lock(lock))
		abort();
	__atomic_store_n(owner, &task, __ATOMIC_RELAXED);
}

static void let_go(pthread_mutex_t *lock, struct task_struct **owner)
{
	native_assert_held(*owner, "what is let go of");
	__atomic_store_n(owner, NULL, __ATOMIC_RELAXED);
	pthread_mutex_unlock(lock);
}

void native_assert_held(const struct task_struct *owner, const char *lock)
{
	if (owner != &task)
		native_die("%s is not held", lock);
}

void spin_lock_init(spinlock_t *lock)
{
	*lock = (spinlock_t){.lock = PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP};
}

/*
 * Who waits spins, and lets others run, as they may have the lock: to sleep would
 * cost ten times what is done under it.
 */
void spin_lock(spinlock_t *lock)
{
	if (__atomic_load_n(&lock->owner, __ATOMIC_RELAXED) == &task)
		native_die("a lock is taken twice");
	for (unsigned int i = 1; pthread_mutex_trylock(&lock->lock); i++) {
		if (i % SPINS)
			__builtin_ia32_pause();
		else
			sched_yield();
	}
	__atomic_store_n(&lock->owner, &task, __ATOMIC_RELAXED);
	task.spinning++;
	native_lock_operations++;
}

void spin_unlock(spinlock_t *lock)
{
	let_go(&lock->lock, &lock->owner);
	if (!--task.spinning && native_plan.at_unlock)
		run_hook(native_plan.at_unlock);
}

int cond_resched_lock(spinlock_t *lock)
{
	spin_unlock(lock);
	might_sleep();
	spin_lock(lock);
	return 1;
}

void mutex_init(struct mutex *mutex)
{
	*mutex = (struct mutex){.lock = PTHREAD_MUTEX_INITIALIZER};
}

void mutex_destroy(struct mutex *mutex)
{
	pthread_mutex_destroy(&mutex->lock);
}

void mutex_lock(struct mutex *mutex)
{
	might_sleep();
	take(&mutex->lock, &mutex->owner);
	task.mutexes++;
}

int mutex_trylock(struct mutex *mutex)
{
	if (pthread_mutex_trylock(&mutex->lock))
		return 0;
	__atomic_store_n(&mutex->owner, &task, __ATOMIC_RELAXED);
	task.mutexes++;
	return 1;
}

int mutex_lock_interruptible(struct mutex *mutex)
{
	mutex_lock(mutex);
	return 0;
}

void mutex_unlock(struct mutex *mutex)
{
	let_go(&mutex->lock, &mutex->owner);
	task.mutexes--;
}

/* Readers of RCU hold it for reading, so waiting for them is taking it. */
static pthread_rwlock_t rcu = PTHREAD_RWLOCK_INITIALIZER;

void rcu_read_lock(void)
{
	pthread_rwlock_rdlock(&rcu);
}

void rcu_read_unlock(void)
{
	pthread_rwlock_unlock(&rcu);
}

void synchronize_rcu_native(void)
{
	pthread_rwlock_wrlock(&rcu);
	pthread_rwlock_unlock(&rcu);
}

/* ---- memory ------------------------------------------------------------- */

static bool fails(gfp_t gfp)
{
	if (gfp == GFP_KERNEL)
		might_sleep();
	if (native_plan.fail_one_in) {
		native_plan.random =
			native_plan.random * UINT64_C(6364136223846793005) + 1;
		if ((native_plan.random >> 33) % native_plan.fail_one_in == 0)
			return true;
	}
	return native_plan.fail_after && !--native_plan.fail_after;
}

long native_objects(void)
{
	return __atomic_load_n(&objects, __ATOMIC_RELAXED);
}

static void *count_object(void *p)
{
	if (!p)
		abort();
	__atomic_fetch_add(&objects, 1, __ATOMIC_RELAXED);
	return p;
}

void *kzalloc(size_t size, gfp_t gfp)
{
	return fails(gfp) ? NULL : count_object(calloc(1, size));
}

void kfree(const void *p)
{
	if (!p)
		return;
	__atomic_fetch_sub(&objects, 1, __ATOMIC_RELAXED);
	free((void *)p);
}

struct kmem_cache {
	size_t size;
	void (*ctor)(void *);
};

struct kmem_cache *kmem_cache_create(const char *name, size_t size,
				     size_t align, unsigned int flags,
				     void (*ctor)(void *))
{
	struct kmem_cache *cache = kzalloc(sizeof(*cache), GFP_KERNEL);

	(void)name;
	(void)align;
	(void)flags;
	if (cache)
		*cache = (struct kmem_cache){size, ctor};
	return cache;
}

void kmem_cache_destroy(struct kmem_cache *cache)
{
	kfree(cache);
}

/* What is not asked to be zero is not. */
void *kmem_cache_alloc(struct kmem_cache *cache, gfp_t gfp)
{
	void *p;

	if (fails(gfp))
		return NULL;
	p = count_object(malloc(cache->size));
	memset(p, 0xa5, cache->size);
	if (cache->ctor)
		cache->ctor(p);
	return p;
}

int kmem_cache_alloc_bulk(struct kmem_cache *cache, gfp_t gfp, size_t n,
			  void **p)
{
	for (size_t i = 0; i < n; i++) {
		p[i] = kmem_cache_alloc(cache, gfp);
		if (p[i])
			continue;
		kmem_cache_free_bulk(cache, i, p);
		return 0;
	}
	return (int)n;
}

void kmem_cache_free_bulk(struct kmem_cache *cache, size_t n, void **p)
{
	while (n--)
		kmem_cache_free(cache, p[n]);
}

void *kmem_cache_zalloc(struct kmem_cache *cache, gfp_t gfp)
{
	return kzalloc(cache->size, gfp);
}

void kmem_cache_free(struct kmem_cache *cache, void *p)
{
	(void)cache;
	kfree(p);
}

/* Before each page there is another, with the number of its users. */
struct page {
	char bytes[PAGE_SIZE];
};

static unsigned int *page_users(struct page *page)
{
	return (unsigned int *)&page[-1];
}

static unsigned long new_page(gfp_t gfp, int fill)
{
	struct page *pages;

	if (fails(gfp))
		return 0;
	pages = count_object(aligned_alloc(PAGE_SIZE, 2 * PAGE_SIZE));
	memset(&pages[1], fill, PAGE_SIZE);
	*page_users(&pages[1]) = 1;
	return (unsigned long)&pages[1];
}

unsigned long get_zeroed_page(gfp_t gfp)
{
	return new_page(gfp, 0);
}

unsigned long __get_free_page(gfp_t gfp)
{
	return new_page(gfp, 0xa5);
}

void get_page(struct page *page)
{
	__atomic_fetch_add(page_users(page), 1, __ATOMIC_RELAXED);
}

void native_put_page(void *page)
{
	if (!__atomic_sub_fetch(page_users(page), 1, __ATOMIC_ACQ_REL))
		kfree((struct page *)page - 1);
}

/* ---- ids ----------------------------------------------------------------- */

#define BITS_IN_WORD 64

void ida_init(struct ida *ida)
{
	*ida = (struct ida){.lock = PTHREAD_MUTEX_INITIALIZER};
}

static bool ida_grow(struct ida *ida)
{
	unsigned int words = ida->words ? 2 * ida->words : 4;
	unsigned long *used = realloc(ida->used, words * sizeof(*used));

	if (!used)
		abort();
	memset(used + ida->words, 0, (words - ida->words) * sizeof(*used));
	ida->used = used;
	ida->words = words;
	return true;
}

int ida_alloc_max(struct ida *ida, unsigned int max, gfp_t gfp)
{
	int id = -ENOSPC;

	if (fails(gfp))
		return -ENOMEM;
	pthread_mutex_lock(&ida->lock);
	for (unsigned int i = ida->first; i <= max / BITS_IN_WORD; i++) {
		unsigned int n;

		if (i >= ida->words)
			ida_grow(ida);
		ida->first = i;
		if (ida->used[i] == ~0UL)
			continue;
		n = i * BITS_IN_WORD +
		    (unsigned int)__builtin_ctzl(~ida->used[i]);
		if (n > max)
			break;
		ida->used[i] |= 1UL << n % BITS_IN_WORD;
		id = (int)n;
		break;
	}
	pthread_mutex_unlock(&ida->lock);
	return id;
}

void ida_free(struct ida *ida, unsigned int id)
{
	unsigned int i = id / BITS_IN_WORD;
	unsigned long bit = 1UL << id % BITS_IN_WORD;

	pthread_mutex_lock(&ida->lock);
	if (i >= ida->words || !(ida->used[i] & bit))
		native_die("ida_free of %u, which is free", id);
	ida->used[i] &= ~bit;
	if (i < ida->first)
		ida->first = i;
	pthread_mutex_unlock(&ida->lock);
}

void ida_destroy(struct ida *ida)
{
	free(ida->used);
	ida_init(ida);
}

/* ---- memory of programs --------------------------------------------------- */

struct mm_struct *native_new_mm(void)
{
	struct mm_struct *mm = count_object(calloc(1, sizeof(*mm)));

	atomic_set(&mm->mm_count, 1);
	pthread_rwlock_init(&mm->mmap_lock, NULL);
	pthread_rwlock_init(&mm->changing, NULL);
	pthread_rwlock_init(&mm->notifying, NULL);
	return mm;
}

void mmgrab(struct mm_struct *mm)
{
	atomic_inc(&mm->mm_count);
}

void mmdrop(struct mm_struct *mm)
{
	if (!atomic_dec_and_test(&mm->mm_count))
		return;
	if (mm->notifiers.first)
		native_die("a notifier is left in an address space");
	free(mm->vmas);
	kfree(mm);
}

int mmap_read_lock_killable(struct mm_struct *mm)
{
	might_sleep();
	if (task.signal)
		return -EINTR;
	pthread_rwlock_rdlock(&mm->mmap_lock);
	return 0;
}

void mmap_read_unlock(struct mm_struct *mm)
{
	pthread_rwlock_unlock(&mm->mmap_lock);
}

static const struct vm_operations_struct no_operations;
static struct inode regular = {.i_mode = S_IFREG}, device = {.i_mode = S_IFCHR};
static struct file regular_file = {.f_inode = &regular};
static struct file device_file = {.f_inode = &device};

/* In the order of addresses, not overlapping. */
void native_add_memory(struct mm_struct *mm, uint64_t start, uint64_t end,
		       enum native_memory kind)
{
	struct vm_area_struct *vma;

	mm->vmas = realloc(mm->vmas, (mm->n_vmas + 1) * sizeof(*mm->vmas));
	if (!mm->vmas)
		abort();
	vma = &mm->vmas[mm->n_vmas++];
	*vma = (struct vm_area_struct){
		.vm_start = start,
		.vm_end = end,
		.vm_mm = mm,
		.vm_flags =
			VM_READ | VM_WRITE | (kind == NATIVE_IO ? VM_IO : 0),
		.dax = kind == NATIVE_DAX,
	};
	if (kind == NATIVE_CHARDEV) {
		vma->vm_file = &device_file;
		vma->vm_ops = &no_operations;
	} else if (kind == NATIVE_DAX) {
		vma->vm_file = &regular_file;
		vma->vm_ops = &no_operations;
	}
}

struct vm_area_struct *native_next_vma(struct vma_iterator *it,
				       unsigned long end)
{
	for (unsigned int i = 0; i < it->mm->n_vmas; i++) {
		struct vm_area_struct *vma = &it->mm->vmas[i];

		if (vma->vm_end > it->start && vma->vm_start < end) {
			it->start = vma->vm_end;
			return vma;
		}
	}
	return NULL;
}

uint64_t (*native_frame)(uint64_t address, bool write);

/* Pins that nobody has let go of. */
static atomic_long_t pins;

/* A few at a time, as the kernel may. */
int pin_user_pages_fast(unsigned long start, int n, unsigned int flags,
			struct page **pages)
{
	int i;

	might_sleep();
	if (task.signal)
		return -EINTR;
	for (i = 0; i < n && i < 2; i++) {
		uint64_t frame = native_frame
					 ? native_frame(start + i * PAGE_SIZE,
							flags & FOLL_WRITE)
					 : 0;

		if (!frame)
			break;
		pages[i] = (struct page *)frame;
		atomic_long_inc(&pins);
	}
	return i ? i : -EFAULT;
}

void unpin_user_pages(struct page **pages, unsigned long n)
{
	(void)pages;
	might_sleep();
	atomic_long_sub(n, &pins);
}

int get_user_pages_fast_only(unsigned long start, int n, unsigned int flags,
			     struct page **pages)
{
	int got = pin_user_pages_fast(start, n, flags, pages);

	return got > 0 ? got : 0;
}

/* The same each time, so that a run can be had again. */
void get_random_bytes(void *bytes, size_t n)
{
	memset(bytes, 0x5a, n);
}

/* How much of user memory is there. */
static size_t reachable(const char *start, size_t n, bool write)
{
	const struct native_plan *plan = &native_plan;

	if (!plan->fault_end || start >= plan->fault_end ||
	    start + n <= plan->fault_start || (!write && plan->readable))
		return n;
	return start < plan->fault_start ? (size_t)(plan->fault_start - start)
					 : 0;
}

static void is_copied(const void *from, size_t n)
{
	native_copied = from;
	native_copied_bytes = n;
	if (native_plan.at_copy && !task.spinning)
		run_hook(native_plan.at_copy);
}

size_t native_copy(void *to, const void *from, size_t n, const void *user,
		   bool write)
{
	size_t good;

	might_sleep();
	if (write)
		is_copied(from, n);
	good = reachable(user, n, write);
	memcpy(to, from, good);
	return n - good;
}

bool native_write_begin(const void *to, size_t n)
{
	if (native_plan.absent) {
		native_plan.absent--;
		return false;
	}
	return reachable(to, n, true) == n;
}

long copy_to_user_nofault(void *to, const void *from, size_t n)
{
	is_copied(from, n);
	if (!native_write_begin(to, n)) {
		native_copied_bytes = 0;
		return -EFAULT;
	}
	memcpy(to, from, n);
	return 0;
}

/* Nothing is delivered by that. */
unsigned long clear_user(void *to, unsigned long n)
{
	size_t good;

	might_sleep();
	good = reachable(to, n, true);
	memset(to, 0, good);
	return n - good;
}

int copy_struct_from_user(void *to, size_t size, const void *from,
			  size_t user_size)
{
	char rest[256];
	size_t least = size < user_size ? size : user_size;

	if (user_size > size) {
		if (user_size - size > sizeof(rest))
			return -E2BIG;
		if (copy_from_user(rest, (const char *)from + size,
				   user_size - size))
			return -EFAULT;
		for (size_t i = 0; i < user_size - size; i++)
			if (rest[i])
				return -E2BIG;
	}
	memset((char *)to + least, 0, size - least);
	return copy_from_user(to, from, least) ? -EFAULT : 0;
}

/* ---- invalidations ---------------------------------------------------------- */

unsigned int native_event(unsigned int kind)
{
	switch (kind) {
	case UMMUNOTIFY_KIND_UNMAP:
		return MMU_NOTIFY_UNMAP;
	case UMMUNOTIFY_KIND_CLEAR:
		return MMU_NOTIFY_CLEAR;
	case UMMUNOTIFY_KIND_PROTECTION:
		return MMU_NOTIFY_PROTECTION_VMA;
	case UMMUNOTIFY_KIND_SOFT_DIRTY:
		return MMU_NOTIFY_SOFT_DIRTY;
	case UMMUNOTIFY_KIND_MIGRATE:
		return MMU_NOTIFY_MIGRATE;
	default:
		return MMU_NOTIFY_EXCLUSIVE + 7; /* one of the future */
	}
}

static struct mmu_notifier_range range_of(const struct native_change *change)
{
	return (struct mmu_notifier_range){
		.mm = change->mm,
		.start = change->start,
		.end = change->end,
		.event = change->event,
		.flags = change->may_sleep ? MMU_NOTIFIER_RANGE_BLOCKABLE : 0,
	};
}

void native_change_begin(const struct native_change *change)
{
	struct mmu_notifier_range range = range_of(change);
	struct mm_struct *mm = change->mm;
	struct mmu_notifier *notifier;

	pthread_rwlock_rdlock(&mm->changing);
	atomic_inc(&mm->inflight);
	pthread_rwlock_rdlock(&mm->notifying);
	task.atomic += !change->may_sleep;
	hlist_for_each_entry(
		notifier, &mm->notifiers,
		hlist) if (notifier->ops->invalidate_range_start(notifier,
								 &range))
		native_die("an invalidation is refused");
	task.atomic -= !change->may_sleep;
	pthread_rwlock_unlock(&mm->notifying);
}

void native_change_end(const struct native_change *change)
{
	struct mmu_notifier_range range = range_of(change);
	struct mm_struct *mm = change->mm;
	struct mmu_notifier *notifier;

	pthread_rwlock_rdlock(&mm->notifying);
	task.atomic += !change->may_sleep;
	hlist_for_each_entry(notifier, &mm->notifiers,
			     hlist) if (notifier->ops->invalidate_range_end)
		notifier->ops->invalidate_range_end(notifier, &range);
	task.atomic -= !change->may_sleep;
	pthread_rwlock_unlock(&mm->notifying);
	atomic_dec(&mm->inflight);
	pthread_rwlock_unlock(&mm->changing);
}

/* Who holds mmap_lock for writing; mm_take_all_locks() waits for all changes. */
static void start_notifying(struct mm_struct *mm, struct mmu_notifier *notifier)
{
	if (atomic_read(&mm->inflight) && native_plan.at_drain)
		native_plan.at_drain(mm);
	pthread_rwlock_wrlock(&mm->changing);
	pthread_rwlock_wrlock(&mm->notifying);
	mmgrab(mm);
	notifier->mm = mm;
	notifier->users = 1;
	hlist_add_head(&notifier->hlist, &mm->notifiers);
	pthread_rwlock_unlock(&mm->notifying);
	pthread_rwlock_unlock(&mm->changing);
}

/* When this returns none of its functions runs, nor will. */
static void stop_notifying(struct mm_struct *mm, struct mmu_notifier *notifier)
{
	pthread_rwlock_wrlock(&mm->notifying);
	if (notifier->hlist.pprev)
		hlist_del_init(&notifier->hlist);
	pthread_rwlock_unlock(&mm->notifying);
}

int mmu_notifier_register(struct mmu_notifier *notifier, struct mm_struct *mm)
{
	might_sleep();
	if (task.signal)
		return -EINTR;
	if (fails(GFP_KERNEL))
		return -ENOMEM;
	pthread_rwlock_wrlock(&mm->mmap_lock);
	start_notifying(mm, notifier);
	pthread_rwlock_unlock(&mm->mmap_lock);
	return 0;
}

void mmu_notifier_unregister(struct mmu_notifier *notifier,
			     struct mm_struct *mm)
{
	might_sleep();
	stop_notifying(mm, notifier);
	mmdrop(mm);
}

struct mmu_notifier *mmu_notifier_get(const struct mmu_notifier_ops *ops,
				      struct mm_struct *mm)
{
	struct mmu_notifier *notifier;

	might_sleep();
	pthread_rwlock_wrlock(&mm->mmap_lock);
	pthread_rwlock_wrlock(&mm->notifying);
	hlist_for_each_entry(notifier, &mm->notifiers,
			     hlist) if (notifier->ops == ops)
	{
		notifier->users++;
		pthread_rwlock_unlock(&mm->notifying);
		goto out;
	}
	pthread_rwlock_unlock(&mm->notifying);
	notifier = ops->alloc_notifier(mm);
	if (IS_ERR(notifier))
		goto out;
	notifier->ops = ops;
	if (task.signal || fails(GFP_KERNEL)) {
		notifier->mm = mm;
		ops->free_notifier(notifier);
		notifier = ERR_PTR(task.signal ? -EINTR : -ENOMEM);
		goto out;
	}
	start_notifying(mm, notifier);
out:
	pthread_rwlock_unlock(&mm->mmap_lock);
	return notifier;
}

static pthread_mutex_t freeing = PTHREAD_MUTEX_INITIALIZER;
static struct mmu_notifier *to_free;

/* Freed some time later: nobody may rely on when. */
void mmu_notifier_put(struct mmu_notifier *notifier)
{
	struct mm_struct *mm = notifier->mm;
	bool last;

	pthread_rwlock_wrlock(&mm->notifying);
	last = !--notifier->users;
	if (last && notifier->hlist.pprev)
		hlist_del_init(&notifier->hlist);
	pthread_rwlock_unlock(&mm->notifying);
	if (!last)
		return;
	pthread_mutex_lock(&freeing);
	notifier->next_free = to_free;
	to_free = notifier;
	pthread_mutex_unlock(&freeing);
}

void mmu_notifier_synchronize(void)
{
	struct mmu_notifier *notifier;

	pthread_mutex_lock(&freeing);
	notifier = to_free;
	to_free = NULL;
	pthread_mutex_unlock(&freeing);
	while (notifier) {
		struct mmu_notifier *next = notifier->next_free;
		struct mm_struct *mm = notifier->mm;

		task.atomic++;
		notifier->ops->free_notifier(notifier);
		task.atomic--;
		mmdrop(mm);
		notifier = next;
	}
}

void native_end_mm(struct mm_struct *mm)
{
	struct mmu_notifier *notifier;

	pthread_rwlock_rdlock(&mm->notifying);
	hlist_for_each_entry(notifier, &mm->notifiers,
			     hlist) if (notifier->ops->release)
		notifier->ops->release(notifier, mm);
	pthread_rwlock_unlock(&mm->notifying);
	pthread_rwlock_wrlock(&mm->notifying);
	while (mm->notifiers.first)
		hlist_del_init(mm->notifiers.first);
	pthread_rwlock_unlock(&mm->notifying);
	mmdrop(mm);
}

/* ---- waiting ------------------------------------------------------------------ */

void init_waitqueue_head(wait_queue_head_t *queue)
{
	*queue = (wait_queue_head_t){
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.changed = PTHREAD_COND_INITIALIZER,
	};
}

/* Who wakes counts first and then looks for sleepers; who sleeps, vice versa. */
void wake_up_interruptible(wait_queue_head_t *queue)
{
	__atomic_fetch_add(&queue->wakes, 1, __ATOMIC_SEQ_CST);
	if (!__atomic_load_n(&queue->sleepers, __ATOMIC_SEQ_CST))
		return;
	pthread_mutex_lock(&queue->lock);
	pthread_cond_broadcast(&queue->changed);
	pthread_mutex_unlock(&queue->lock);
}

unsigned int native_wait_ticket(wait_queue_head_t *queue)
{
	return __atomic_load_n(&queue->wakes, __ATOMIC_SEQ_CST);
}

int native_wait(wait_queue_head_t *queue, unsigned int ticket)
{
	struct timespec limit;
	int ret = 0;

	might_sleep();
	if (native_plan.at_wait) {
		run_hook(native_plan.at_wait);
		return native_wait_ticket(queue) == ticket ? -ERESTARTSYS : 0;
	}
	/* Others have something for it soon, mostly. */
	for (unsigned int i = 0; i < SPINS; i++) {
		if (native_wait_ticket(queue) != ticket)
			return 0;
		sched_yield();
	}
	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += PATIENCE;
	pthread_mutex_lock(&queue->lock);
	__atomic_fetch_add(&queue->sleepers, 1, __ATOMIC_SEQ_CST);
	while (native_wait_ticket(queue) == ticket && !ret)
		ret = pthread_cond_timedwait(&queue->changed, &queue->lock,
					     &limit);
	__atomic_fetch_sub(&queue->sleepers, 1, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&queue->lock);
	if (ret)
		native_die("a reader was never woken");
	return 0;
}

bool waitqueue_active(wait_queue_head_t *queue)
{
	(void)queue;
	return true;
}

void poll_wait(struct file *filp, wait_queue_head_t *queue, poll_table *table)
{
	(void)filp;
	(void)queue;
	table->asked++;
}

/* ---- files ---------------------------------------------------------------------- */

static pthread_mutex_t fasync_lock = PTHREAD_MUTEX_INITIALIZER;

int fasync_helper(int fd, struct file *filp, int on,
		  struct fasync_struct **fasync)
{
	struct fasync_struct *old, *new = NULL;

	(void)fd;
	(void)filp;
	if (on) {
		new = kzalloc(sizeof(*new), GFP_KERNEL);
		if (!new)
			return -ENOMEM;
	}
	pthread_mutex_lock(&fasync_lock);
	old = *fasync;
	*fasync = new;
	pthread_mutex_unlock(&fasync_lock);
	kfree(old);
	return !old == !new ? 0 : 1;
}

void kill_fasync(struct fasync_struct **fasync, int signal, int band)
{
	(void)signal;
	(void)band;
	pthread_mutex_lock(&fasync_lock);
	signals += *fasync != NULL;
	pthread_mutex_unlock(&fasync_lock);
}

unsigned long native_signals(void)
{
	unsigned long n;

	pthread_mutex_lock(&fasync_lock);
	n = signals;
	pthread_mutex_unlock(&fasync_lock);
	return n;
}

void seq_printf(struct seq_file *seq, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(seq->text + seq->used, seq->size - seq->used, format,
		      args);
	va_end(args);
	seq->used += (size_t)n;
	if (seq->used >= seq->size)
		native_die("fdinfo is long");
}

int misc_register(struct miscdevice *misc)
{
	if (fails(GFP_KERNEL))
		return -ENOMEM;
	fops = misc->fops;
	return 0;
}

void misc_deregister(struct miscdevice *misc)
{
	(void)misc;
	fops = NULL;
}

static struct inode the_device = {.i_mode = S_IFCHR | 0666};

int native_open(int flags, struct file **filp)
{
	struct file *file = count_object(calloc(1, sizeof(*file)));
	int accmode = flags & O_ACCMODE, ret;

	file->f_mode = (accmode == O_WRONLY ? 0 : FMODE_READ) |
		       (accmode == O_RDONLY ? 0 : FMODE_WRITE);
	file->f_flags = (unsigned int)flags;
	file->f_inode = &the_device;
	ret = fops->open(&the_device, file);
	if (ret)
		kfree(file);
	else
		*filp = file;
	return ret;
}

void native_close(struct file *filp)
{
	if (fops->flush)
		fops->flush(filp, NULL);
	fops->fasync(-1, filp, 0);
	fops->release(&the_device, filp);
	kfree(filp);
}

void native_set_flags(struct file *filp, int flags)
{
	__atomic_store_n(&filp->f_flags, (unsigned int)flags, __ATOMIC_RELAXED);
}

/* After each call nothing is held any more. */
static void check_task(void)
{
	if (!in_hook && (task.spinning || task.mutexes || task.atomic))
		native_die("a lock is held after a call");
}

long native_ioctl(struct file *filp, unsigned int request, void *argument)
{
	long ret = fops->unlocked_ioctl(filp, request, (unsigned long)argument);

	check_task();
	return ret;
}

ssize_t native_read(struct file *filp, void *buffer, size_t size)
{
	loff_t position = 0;
	ssize_t ret = fops->read(filp, buffer, size, &position);

	check_task();
	return ret;
}

unsigned int native_poll(struct file *filp)
{
	poll_table table = {0};

	return (unsigned int)fops->poll(filp, &table);
}

int native_fasync(struct file *filp, bool on)
{
	int ret = fops->fasync(0, filp, on);

	return ret < 0 ? ret : 0;
}

void native_fdinfo(struct file *filp, char *text, size_t size)
{
	struct seq_file seq = {.text = text, .size = size};

	text[0] = '\0';
	fops->show_fdinfo(&seq, filp);
}

int native_mmap(struct file *filp, unsigned long page, unsigned long size,
		unsigned long flags, struct native_mapping *mapping)
{
	struct vm_area_struct *vma = count_object(calloc(1, sizeof(*vma)));
	int ret;

	*vma = (struct vm_area_struct){
		.vm_start = 0x7f0000000000,
		.vm_end = 0x7f0000000000 + size,
		.vm_pgoff = page,
		.vm_flags = flags,
		.vm_file = filp,
		.vm_mm = task.mm,
	};
	ret = fops->mmap(filp, vma);
	mapping->vma = ret ? NULL : vma;
	if (ret)
		kfree(vma);
	return ret;
}

unsigned long native_mapping_flags(const struct native_mapping *mapping)
{
	return mapping->vma->vm_flags;
}

void native_munmap(struct native_mapping *mapping)
{
	kfree(mapping->vma);
	mapping->vma = NULL;
}

void *native_fault(struct native_mapping *mapping, unsigned long index)
{
	struct vm_area_struct *vma = mapping->vma;
	struct vm_fault vmf = {
		.vma = vma,
		.pgoff = vma->vm_pgoff + index,
		.address = vma->vm_start + index * PAGE_SIZE,
	};

	return vma->vm_ops->fault(&vmf) ? NULL : vmf.page;
}

/* ---- the module ---------------------------------------------------------------------- */

static struct parameter {
	const char *name;
	void *value;
	size_t size;
} parameters[16];
static unsigned int n_parameters;

void native_parameter(const char *name, void *value, size_t size)
{
	if (n_parameters == ARRAY_SIZE(parameters))
		abort();
	parameters[n_parameters++] = (struct parameter){name, value, size};
}

bool native_set(const char *name, unsigned long value)
{
	for (unsigned int i = 0; i < n_parameters; i++) {
		const struct parameter *p = &parameters[i];

		if (!strcmp(p->name, name)) {
			/* Little-endian. */
			memcpy(p->value, &value, p->size);
			return true;
		}
	}
	return false;
}

int native_load(void)
{
	if (native_objects())
		native_die("%ld objects before the module", native_objects());
	return native_init();
}

void native_settle(void)
{
	mmu_notifier_synchronize();
}

void native_unload(void)
{
	native_settle();
	native_exit();
	if (native_objects())
		native_die("%ld objects are never freed", native_objects());
	if (atomic_long_read(&pins))
		native_die("%ld pages stay pinned", atomic_long_read(&pins));
}
