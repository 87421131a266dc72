/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The kernel that the driver is compiled against when it runs in a process: as
 * much of its interface as the driver uses, with the kernel's own names. Trees
 * and lists are the kernel's (see prepare), what is here is declared as the
 * newest kernel has it and behaves as it does, with three exceptions: locks are
 * pthread's, memory is malloc's, and it checks itself: who sleeps where that is
 * forbidden, or takes a lock twice, ends the program.
 *
 * Included before the driver; the headers it asks for are then empty. Programs
 * use native.h instead.
 */
#ifndef TESTS_NATIVE_KERNEL_H
#define TESTS_NATIVE_KERNEL_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/bitmap.h>
#include <linux/compiler.h>
#include <linux/err.h>
#include <linux/hashtable.h>
#include <linux/kernel.h>
#include <linux/list.h>
#include <linux/log2.h>
#include <linux/rbtree.h>
#include <linux/types.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>

#include <linux/interval_tree.h>

/* ---- words of the language ---------------------------------------------- */

#define __init __attribute__((unused))
#define __exit __attribute__((unused))
#define __iomem
#define __percpu
#define __rcu
#define __read_mostly
#define ____cacheline_aligned	     __attribute__((aligned(64)))
#define ____cacheline_aligned_in_smp ____cacheline_aligned
#define CONFIG_PROC_FS		     1
#define CONFIG_MMU_NOTIFIER	     1
#define CONFIG_64BIT		     1
#define IS_ENABLED(option)	     (option)
#define THIS_MODULE		     NULL
#define U8_MAX			     UINT8_MAX
#define U16_MAX			     UINT16_MAX
#define U32_MAX			     UINT32_MAX
#define U64_MAX			     UINT64_MAX
#define ERESTARTSYS		     512
#ifndef BUILD_BUG_ON
#define BUILD_BUG_ON(condition) _Static_assert(!(condition), #condition)
#endif
#undef WARN_ON_ONCE
#undef WARN_ON
#undef BUG_ON
#define WARN_ON_ONCE(condition)                                              \
	({                                                                   \
		bool warn_ = (condition);                                    \
		if (warn_)                                                   \
			native_die("%s:%d: WARNING: %s", __FILE__, __LINE__, \
				   #condition);                              \
		warn_;                                                       \
	})
#define WARN_ON(condition)	  WARN_ON_ONCE(condition)
#define WARN_ONCE(condition, ...) WARN_ON_ONCE(condition)
#define BUG_ON(condition)	  ((void)WARN_ON_ONCE(condition))
#define pr_warn_once(...)	  ((void)0)
#define pr_warn(...)		  ((void)0)
#define pr_info(...)		  ((void)0)
#define pr_err(...)		  ((void)0)
#define swap(a, b)                  \
	do {                        \
		typeof(a) tmp_ = a; \
		(a) = (b);          \
		(b) = tmp_;         \
	} while (0)
#ifndef DIV_ROUND_UP
#define DIV_ROUND_UP(n, d) (((n) + (d)-1) / (d))
#endif
#define struct_size(p, member, n) (sizeof(*(p)) + sizeof(*(p)->member) * (n))
#define offsetofend(type, member) \
	(offsetof(type, member) + sizeof(((type *)0)->member))

void native_die(const char *format, ...)
	__attribute__((format(printf, 1, 2), noreturn));

/* ---- order of memory ---------------------------------------------------- */

/* As atomics, which a checker of races understands. */
#undef READ_ONCE
#undef WRITE_ONCE
#undef smp_load_acquire
#undef smp_store_release
#undef smp_mb
#define READ_ONCE(x)		__atomic_load_n(&(x), __ATOMIC_RELAXED)
#define WRITE_ONCE(x, value)	__atomic_store_n(&(x), value, __ATOMIC_RELAXED)
#define smp_load_acquire(p)	__atomic_load_n(p, __ATOMIC_ACQUIRE)
#define smp_store_release(p, v) __atomic_store_n(p, v, __ATOMIC_RELEASE)
#define smp_mb()		native_smp_mb()
#define smp_mb__after_atomic()	native_smp_mb()
#define smp_mb__before_atomic() native_smp_mb()

/* A fence, as far as a checker is concerned one with all others. */
extern int native_fence;
static inline void native_smp_mb(void)
{
	__atomic_fetch_add(&native_fence, 1, __ATOMIC_SEQ_CST);
}

typedef struct {
	s64 counter;
} atomic64_t;

#define ATOMIC_INIT(n) \
	{              \
		n      \
	}
#define ATOMIC_LONG_INIT(n) \
	{                   \
		n           \
	}
#define ATOMIC64_INIT(n) \
	{                \
		n        \
	}

#define NATIVE_ATOMIC(name, type, value)                                       \
	static inline value name##_read(const type *v)                         \
	{                                                                      \
		return __atomic_load_n(&v->counter, __ATOMIC_RELAXED);         \
	}                                                                      \
	static inline value name##_read_acquire(const type *v)                 \
	{                                                                      \
		return __atomic_load_n(&v->counter, __ATOMIC_ACQUIRE);         \
	}                                                                      \
	static inline void name##_set(type *v, value n)                        \
	{                                                                      \
		__atomic_store_n(&v->counter, n, __ATOMIC_RELAXED);            \
	}                                                                      \
	static inline void name##_set_release(type *v, value n)                \
	{                                                                      \
		__atomic_store_n(&v->counter, n, __ATOMIC_RELEASE);            \
	}                                                                      \
	static inline value name##_add_return(value n, type *v)                \
	{                                                                      \
		return __atomic_add_fetch(&v->counter, n, __ATOMIC_SEQ_CST);   \
	}                                                                      \
	static inline value name##_sub_return(value n, type *v)                \
	{                                                                      \
		return __atomic_sub_fetch(&v->counter, n, __ATOMIC_SEQ_CST);   \
	}                                                                      \
	static inline value name##_fetch_add(value n, type *v)                 \
	{                                                                      \
		return __atomic_fetch_add(&v->counter, n, __ATOMIC_SEQ_CST);   \
	}                                                                      \
	static inline value name##_inc_return(type *v)                         \
	{                                                                      \
		return __atomic_add_fetch(&v->counter, 1, __ATOMIC_SEQ_CST);   \
	}                                                                      \
	static inline value name##_dec_return(type *v)                         \
	{                                                                      \
		return __atomic_sub_fetch(&v->counter, 1, __ATOMIC_SEQ_CST);   \
	}                                                                      \
	static inline bool name##_dec_and_test(type *v)                        \
	{                                                                      \
		return !__atomic_sub_fetch(&v->counter, 1, __ATOMIC_SEQ_CST);  \
	}                                                                      \
	static inline void name##_add(value n, type *v)                        \
	{                                                                      \
		__atomic_fetch_add(&v->counter, n, __ATOMIC_RELAXED);          \
	}                                                                      \
	static inline void name##_sub(value n, type *v)                        \
	{                                                                      \
		__atomic_fetch_sub(&v->counter, n, __ATOMIC_RELAXED);          \
	}                                                                      \
	static inline void name##_inc(type *v)                                 \
	{                                                                      \
		__atomic_fetch_add(&v->counter, 1, __ATOMIC_RELAXED);          \
	}                                                                      \
	static inline void name##_dec(type *v)                                 \
	{                                                                      \
		__atomic_fetch_sub(&v->counter, 1, __ATOMIC_RELAXED);          \
	}                                                                      \
	static inline value name##_cmpxchg(type *v, value old, value n)        \
	{                                                                      \
		__atomic_compare_exchange_n(&v->counter, &old, n, false,       \
					    __ATOMIC_SEQ_CST,                  \
					    __ATOMIC_RELAXED);                 \
		return old;                                                    \
	}                                                                      \
	static inline bool name##_try_cmpxchg(type *v, value *old, value n)    \
	{                                                                      \
		return __atomic_compare_exchange_n(&v->counter, old, n, false, \
						   __ATOMIC_SEQ_CST,           \
						   __ATOMIC_RELAXED);          \
	}                                                                      \
	static inline bool name##_add_unless(type *v, value a, value u)        \
	{                                                                      \
		value old = name##_read(v);                                    \
                                                                               \
		do {                                                           \
			if (old == u)                                          \
				return false;                                  \
		} while (!name##_try_cmpxchg(v, &old, old + a));               \
		return true;                                                   \
	}                                                                      \
	static inline bool name##_inc_not_zero(type *v)                        \
	{                                                                      \
		return name##_add_unless(v, 1, 0);                             \
	}

NATIVE_ATOMIC(atomic, atomic_t, int)
NATIVE_ATOMIC(atomic_long, atomic_long_t, long)
NATIVE_ATOMIC(atomic64, atomic64_t, s64)

typedef atomic_t refcount_t;
#define REFCOUNT_INIT(n) \
	{                \
		n        \
	}
#define refcount_read	      atomic_read
#define refcount_set	      atomic_set
#define refcount_inc	      atomic_inc
#define refcount_inc_not_zero atomic_inc_not_zero
#define refcount_dec_and_test atomic_dec_and_test

#define cmpxchg(p, old, new)                                      \
	({                                                        \
		typeof(*(p)) old_ = (old);                        \
		__atomic_compare_exchange_n(p, &old_, new, false, \
					    __ATOMIC_SEQ_CST,     \
					    __ATOMIC_RELAXED);    \
		old_;                                             \
	})
#define xchg(p, value) __atomic_exchange_n(p, value, __ATOMIC_SEQ_CST)

/* ---- locks -------------------------------------------------------------- */

typedef struct {
	pthread_mutex_t lock;
	struct task_struct *owner;
} spinlock_t;

struct mutex {
	pthread_mutex_t lock;
	struct task_struct *owner;
};

#define DEFINE_SPINLOCK(name) \
	spinlock_t name = {.lock = PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP}
#define DEFINE_MUTEX(name) \
	struct mutex name = {.lock = PTHREAD_MUTEX_INITIALIZER}

void spin_lock_init(spinlock_t *lock);
void spin_lock(spinlock_t *lock);
void spin_unlock(spinlock_t *lock);
/* Always lets go: somebody may always be waiting. */
int cond_resched_lock(spinlock_t *lock);
#define spin_lock_irq(lock)	      spin_lock(lock)
#define spin_unlock_irq(lock)	      spin_unlock(lock)
#define spin_lock_nested(lock, class) spin_lock(lock)

void mutex_init(struct mutex *mutex);
void mutex_destroy(struct mutex *mutex);
void mutex_lock(struct mutex *mutex);
int mutex_trylock(struct mutex *mutex);
/* -EINTR with a signal pending when it would have to wait. */
int mutex_lock_interruptible(struct mutex *mutex);
void mutex_unlock(struct mutex *mutex);

void native_assert_held(const struct task_struct *owner, const char *lock);
#define lockdep_assert_held(lock) native_assert_held((lock)->owner, #lock)

/* Where sleeping is forbidden this ends the program. */
void might_sleep(void);
#define cond_resched() might_sleep()
void cpu_relax(void);

struct rcu_head {
	struct rcu_head *next;
	void (*func)(struct rcu_head *head);
};

void rcu_read_lock(void);
void rcu_read_unlock(void);
void synchronize_rcu_native(void);
#undef synchronize_rcu
#define synchronize_rcu()	 synchronize_rcu_native()
#define rcu_dereference(p)	 smp_load_acquire(&(p))
#define rcu_assign_pointer(p, v) smp_store_release(&(p), v)

/* ---- memory ------------------------------------------------------------- */

#define PAGE_SHIFT    12
#define PAGE_SIZE     (1UL << PAGE_SHIFT)
#define PAGE_MASK     (~(PAGE_SIZE - 1))
#define PAGE_ALIGN(n) (((n) + PAGE_SIZE - 1) & PAGE_MASK)
#define TASK_SIZE     (1UL << 47)

#define GFP_KERNEL_ACCOUNT GFP_KERNEL
#define UMN_GFP_MAPPED	   GFP_KERNEL
#define GFP_NOWAIT	   GFP_ATOMIC
#define __GFP_ACCOUNT	   0
#define __GFP_NOWARN	   0
#define __GFP_ZERO	   0
#define SLAB_ACCOUNT	   0
#define SLAB_HWCACHE_ALIGN 1

void *kzalloc(size_t size, gfp_t gfp);
void kfree(const void *p);
#define kmalloc(size, gfp)	     kzalloc(size, gfp)
#define kcalloc(n, size, gfp)	     kzalloc((n) * (size), gfp)
#define kmalloc_array(n, size, gfp)  kzalloc((n) * (size), gfp)
#define kvzalloc(size, gfp)	     kzalloc(size, gfp)
#define kvmalloc(size, gfp)	     kzalloc(size, gfp)
#define kvcalloc(n, size, gfp)	     kzalloc((n) * (size), gfp)
#define kvmalloc_array(n, size, gfp) kzalloc((n) * (size), gfp)
#define kvfree(p)		     kfree(p)
#define kfree_rcu(p, member)              \
	do {                              \
		synchronize_rcu_native(); \
		kfree(p);                 \
	} while (0)

struct kmem_cache *kmem_cache_create(const char *name, size_t size,
				     size_t align, unsigned int flags,
				     void (*ctor)(void *));
void kmem_cache_destroy(struct kmem_cache *cache);
void *kmem_cache_alloc(struct kmem_cache *cache, gfp_t gfp);
void *kmem_cache_zalloc(struct kmem_cache *cache, gfp_t gfp);
void kmem_cache_free(struct kmem_cache *cache, void *p);
/* All of them, or 0. */
int kmem_cache_alloc_bulk(struct kmem_cache *cache, gfp_t gfp, size_t n,
			  void **objects);
void kmem_cache_free_bulk(struct kmem_cache *cache, size_t n, void **objects);
#define KMEM_CACHE(type, flags) \
	kmem_cache_create(#type, sizeof(struct type), 0, flags, NULL)

#define bitmap_zalloc(bits, gfp) \
	((unsigned long *)kzalloc(BITS_TO_LONGS(bits) * sizeof(long), gfp))
#define bitmap_free(p) kfree(p)

/* A struct page is the page itself. What is not asked to be zero is not. */
unsigned long get_zeroed_page(gfp_t gfp);
unsigned long __get_free_page(gfp_t gfp);
void get_page(struct page *page);
void native_put_page(void *page);
#define virt_to_page(p)	   ((struct page *)(p))
#define page_address(page) ((void *)(page))
#define free_page(address)                                  \
	do {                                                \
		if (address)                                \
			native_put_page((void *)(address)); \
	} while (0)

/* One for each possible CPU; a CPU is a thread, but two may share one. */
#define NATIVE_CPUS	    4
#define NATIVE_PERCPU_BYTES 512
unsigned int native_cpu(void);
#define smp_processor_id()	   native_cpu()
#define raw_smp_processor_id()	   native_cpu()
#define num_possible_cpus()	   NATIVE_CPUS
#define for_each_possible_cpu(cpu) for (cpu = 0; cpu < NATIVE_CPUS; cpu++)
#define alloc_percpu_gfp(type, gfp)                                       \
	({                                                                \
		_Static_assert(sizeof(type) <= NATIVE_PERCPU_BYTES,       \
			       "NATIVE_PERCPU_BYTES");                    \
		(type *)kzalloc((size_t)NATIVE_CPUS *NATIVE_PERCPU_BYTES, \
				gfp);                                     \
	})
#define alloc_percpu(type) alloc_percpu_gfp(type, GFP_KERNEL)
#define free_percpu(p)	   kfree(p)
#define per_cpu_ptr(p, cpu) \
	((typeof(p))((char *)(p) + (size_t)(cpu)*NATIVE_PERCPU_BYTES))
#define this_cpu_ptr(p) per_cpu_ptr(p, native_cpu())
#define raw_cpu_ptr(p)	this_cpu_ptr(p)
#define get_cpu_ptr(p)	this_cpu_ptr(p)
#define put_cpu_ptr(p)	((void)(p))
#define this_cpu_add(x, n) \
	__atomic_fetch_add(this_cpu_ptr(&(x)), n, __ATOMIC_RELAXED)
#define this_cpu_inc(x) this_cpu_add(x, 1)
#define raw_cpu_inc(x)	this_cpu_add(x, 1)

/* ---- ids ---------------------------------------------------------------- */

/* Numbers, the smallest free one first. */
struct ida {
	pthread_mutex_t lock;
	unsigned long *used;
	unsigned int words, first; /* none is free before word `first` */
};

void ida_init(struct ida *ida);
int ida_alloc_max(struct ida *ida, unsigned int max, gfp_t gfp);
void ida_free(struct ida *ida, unsigned int id);
void ida_destroy(struct ida *ida);

/* ---- tasks and users ------------------------------------------------------ */

typedef struct {
	unsigned int val;
} kuid_t;

struct user_namespace {
	struct user_namespace *parent;
	kuid_t owner;
};
extern struct user_namespace init_user_ns;

struct task_struct {
	struct mm_struct *mm;
	kuid_t uid;
	bool capable;
	bool signal; /* one is pending */
	/* What it holds. */
	unsigned int spinning, mutexes;
	unsigned int atomic; /* in a call that must not sleep */
};

struct task_struct *native_task(void);
#define current			   native_task()
#define current_uid()		   (current->uid)
#define current_euid()		   (current->uid)
#define current_fsuid()		   (current->uid)
#define uid_eq(a, b)		   ((a).val == (b).val)
#define uid_valid(uid)		   ((uid).val != U32_MAX)
#define __kuid_val(uid)		   ((uid).val)
#define from_kuid(ns, uid)	   ((uid).val)
#define current_user_ns()	   (&init_user_ns)
#define GLOBAL_ROOT_UID		   ((kuid_t){0})
#define signal_pending(task)	   ((task)->signal)
#define fatal_signal_pending(task) ((task)->signal)
#define CAP_SYS_ADMIN		   21
#define CAP_SYS_RESOURCE	   24
#define CAP_IPC_LOCK		   14
#define capable(cap)		   (current->capable)
#define ns_capable(ns, cap)	   (current->capable)
#define capable_noaudit(cap)	   (current->capable)

/* ---- memory of programs -------------------------------------------------- */

#define VM_READ	      0x00000001UL
#define VM_WRITE      0x00000002UL
#define VM_EXEC	      0x00000004UL
#define VM_SHARED     0x00000008UL
#define VM_MAYREAD    0x00000010UL
#define VM_MAYWRITE   0x00000020UL
#define VM_MAYSHARE   0x00000080UL
#define VM_PFNMAP     0x00000400UL
#define VM_IO	      0x00004000UL
#define VM_DONTCOPY   0x00020000UL
#define VM_DONTEXPAND 0x00040000UL
#define VM_HUGETLB    0x00400000UL
#define VM_DONTDUMP   0x04000000UL
#define VM_MIXEDMAP   0x10000000UL

typedef unsigned long vm_flags_t;
typedef unsigned int vm_fault_t;
#define VM_FAULT_SIGBUS 0x0002
#define VM_FAULT_OOM	0x0001

struct inode;
struct file;
struct vm_area_struct;

struct vm_fault {
	struct vm_area_struct *vma;
	unsigned long pgoff;
	unsigned long address;
	struct page *page;
};

struct vm_operations_struct {
	void (*open)(struct vm_area_struct *vma);
	void (*close)(struct vm_area_struct *vma);
	vm_fault_t (*fault)(struct vm_fault *vmf);
};

struct vm_area_struct {
	unsigned long vm_start, vm_end, vm_pgoff;
	vm_flags_t vm_flags;
	struct mm_struct *vm_mm;
	struct file *vm_file;
	const struct vm_operations_struct *vm_ops;
	void *vm_private_data;
	bool dax;
};

#define vm_flags_set(vma, flags)   ((void)((vma)->vm_flags |= (flags)))
#define vm_flags_clear(vma, flags) ((void)((vma)->vm_flags &= ~(flags)))
#define vma_is_dax(vma)		   ((vma)->dax)
#define vma_is_anonymous(vma)	   (!(vma)->vm_ops)
#define is_vm_hugetlb_page(vma)	   ((vma)->vm_flags & VM_HUGETLB)

struct mm_struct {
	atomic_t mm_count;
	pthread_rwlock_t mmap_lock;
	/* Held for reading from the start to the end of an invalidation. */
	pthread_rwlock_t changing;
	/* Held for reading while the notifiers are walked: their SRCU. */
	pthread_rwlock_t notifying;
	struct hlist_head notifiers;
	atomic_t inflight;
	struct vm_area_struct *vmas;
	unsigned int n_vmas;
};

void mmgrab(struct mm_struct *mm);
void mmdrop(struct mm_struct *mm);
int mmap_read_lock_killable(struct mm_struct *mm);
void mmap_read_unlock(struct mm_struct *mm);

struct vma_iterator {
	struct mm_struct *mm;
	unsigned long start;
};
#define VMA_ITERATOR(name, mm_, start_) \
	struct vma_iterator name = {.mm = (mm_), .start = (start_)}
struct vm_area_struct *native_next_vma(struct vma_iterator *it,
				       unsigned long end);
#define for_each_vma_range(it, vma, end) \
	while (((vma) = native_next_vma(&(it), end)) != NULL)

size_t native_copy(void *to, const void *from, size_t n, const void *user,
		   bool write);
#define copy_from_user(to, from, n) native_copy(to, from, n, from, false)
#define copy_to_user(to, from, n)   native_copy(to, from, n, to, true)
#define get_user(x, p)		    (copy_from_user(&(x), p, sizeof(*(p))) ? -EFAULT : 0)
#define put_user(x, p)                                                  \
	({                                                              \
		typeof(*(p)) value_ = (x);                              \
		copy_to_user(p, &value_, sizeof(value_)) ? -EFAULT : 0; \
	})
#define u64_to_user_ptr(x) ((void *)(uintptr_t)(x))
/* These never fault: what is not there right now is a failure. */
long copy_to_user_nofault(void *to, const void *from, size_t n);
/* All of it can be written without a fault until the end, or false. */
bool native_write_begin(const void *to, size_t n);
#define user_write_access_begin(p, n) native_write_begin(p, n)
#define unsafe_put_user(x, p, label) \
	do {                         \
		if (0)               \
			goto label;  \
		*(p) = (x);          \
	} while (0)
#define user_write_access_end() ((void)0)
#define pagefault_disable()	((void)0)
#define pagefault_enable()	((void)0)
/* What of it cannot be had. */
unsigned long clear_user(void *to, unsigned long n);
/* A larger structure than known must have zeroes where it is not: -E2BIG. */
int copy_struct_from_user(void *to, size_t size, const void *from,
			  size_t user_size);

/* ---- pages of programs ------------------------------------------------------ */

#define FOLL_WRITE    0x01
#define FOLL_LONGTERM 0x100

#define untagged_addr(address) ((u64)((s64)((u64)(address) << 8) >> 8))

/* What native_frame() says is mapped; `struct page *` is a frame's number. */
int pin_user_pages_fast(unsigned long start, int n, unsigned int flags,
			struct page **pages);
void unpin_user_pages(struct page **pages, unsigned long n);
/* Only what is there: here that is all, or nothing. */
int get_user_pages_fast_only(unsigned long start, int n, unsigned int flags,
			     struct page **pages);
static inline void put_page(struct page *page)
{
	unpin_user_pages(&page, 1);
}

#define page_to_pfn(page) ((unsigned long)(page))

/* As good as the kernel's where nobody attacks. */
typedef struct {
	u64 key[2];
} siphash_key_t;

static inline u64 siphash_2u64(u64 a, u64 b, const siphash_key_t *key)
{
	u64 hash = key->key[0];

	hash = (hash ^ a) * 0x9e3779b97f4a7c15ULL;
	hash = (hash ^ hash >> 29 ^ b) * 0xbf58476d1ce4e5b9ULL;
	return hash ^ hash >> 32 ^ key->key[1];
}

static inline u64 siphash(const void *data, size_t size,
			  const siphash_key_t *key)
{
	const u64 *words = data;
	u64 hash = size;

	for (size_t i = 0; i < size / sizeof(*words); i++)
		hash = siphash_2u64(hash, words[i], key);
	return hash;
}

void get_random_bytes(void *bytes, size_t n);

/* ---- invalidations -------------------------------------------------------- */

enum mmu_notifier_event {
	MMU_NOTIFY_UNMAP = 0,
	MMU_NOTIFY_CLEAR,
	MMU_NOTIFY_PROTECTION_VMA,
	MMU_NOTIFY_PROTECTION_PAGE,
	MMU_NOTIFY_SOFT_DIRTY,
	MMU_NOTIFY_RELEASE,
	MMU_NOTIFY_MIGRATE,
	MMU_NOTIFY_EXCLUSIVE,
};

#define MMU_NOTIFIER_RANGE_BLOCKABLE (1 << 0)

struct mmu_notifier_range {
	struct mm_struct *mm;
	unsigned long start, end;
	unsigned int flags;
	enum mmu_notifier_event event;
	void *owner;
};
#define mmu_notifier_range_blockable(range) \
	((range)->flags & MMU_NOTIFIER_RANGE_BLOCKABLE)

struct mmu_notifier;
struct mmu_notifier_ops {
	void (*release)(struct mmu_notifier *notifier, struct mm_struct *mm);
	int (*invalidate_range_start)(struct mmu_notifier *notifier,
				      const struct mmu_notifier_range *range);
	void (*invalidate_range_end)(struct mmu_notifier *notifier,
				     const struct mmu_notifier_range *range);
	struct mmu_notifier *(*alloc_notifier)(struct mm_struct *mm);
	void (*free_notifier)(struct mmu_notifier *notifier);
};

struct mmu_notifier {
	struct hlist_node hlist;
	const struct mmu_notifier_ops *ops;
	struct mm_struct *mm;
	struct mmu_notifier *next_free;
	unsigned int users;
};

int mmu_notifier_register(struct mmu_notifier *notifier, struct mm_struct *mm);
void mmu_notifier_unregister(struct mmu_notifier *notifier,
			     struct mm_struct *mm);
struct mmu_notifier *mmu_notifier_get(const struct mmu_notifier_ops *ops,
				      struct mm_struct *mm);
void mmu_notifier_put(struct mmu_notifier *notifier);
void mmu_notifier_synchronize(void);
/* After mmu_notifier_synchronize() here nothing is left to be waited for. */
#define msleep(ms) native_die("waits for what has been freed")

/* ---- files ---------------------------------------------------------------- */

typedef unsigned short umode_t;
typedef unsigned int __poll_t;

typedef struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned int wakes, sleepers; /* atomic */
} wait_queue_head_t;

void init_waitqueue_head(wait_queue_head_t *queue);
void wake_up_interruptible(wait_queue_head_t *queue);
#define wake_up_interruptible_all(queue)     wake_up_interruptible(queue)
#define wake_up_all(queue)		     wake_up_interruptible(queue)
#define wake_up(queue)			     wake_up_interruptible(queue)
#define wake_up_interruptible_poll(queue, m) wake_up_interruptible(queue)
unsigned int native_wait_ticket(wait_queue_head_t *queue);
/* Until woken since the ticket was taken; -ERESTARTSYS by a signal. */
int native_wait(wait_queue_head_t *queue, unsigned int ticket);
#define wait_event_interruptible(queue, condition)                           \
	({                                                                   \
		int ret_ = 0;                                                \
		for (;;) {                                                   \
			unsigned int ticket_ = native_wait_ticket(&(queue)); \
			if (condition)                                       \
				break;                                       \
			ret_ = native_wait(&(queue), ticket_);               \
			if (ret_)                                            \
				break;                                       \
		}                                                            \
		ret_;                                                        \
	})
/* Who interrupts another cannot wait for that other one: it is killed. */
bool native_is_inner(void);
#define wait_event_killable(queue, condition)           \
	(native_is_inner() ? ((condition) ? 0 : -EINTR) \
			   : wait_event_interruptible(queue, condition))
/* The time is always over: what is waited for must not be relied on. */
#define wait_event_killable_timeout(queue, condition, jiffies) \
	(signal_pending(current) ? -ERESTARTSYS : (condition) ? 1 : 0)
/* Waiters are counted, not listed. */
bool waitqueue_active(wait_queue_head_t *queue);
#define wq_has_sleeper(queue) waitqueue_active(queue)

typedef struct poll_table_struct {
	unsigned int asked;
} poll_table;

void poll_wait(struct file *filp, wait_queue_head_t *queue, poll_table *table);

struct fasync_struct {
	unsigned int signals;
};
int fasync_helper(int fd, struct file *filp, int on,
		  struct fasync_struct **fasync);
void kill_fasync(struct fasync_struct **fasync, int signal, int band);

struct inode {
	umode_t i_mode;
};

#define FMODE_READ  1
#define FMODE_WRITE 2

struct seq_file {
	char *text;
	size_t size, used;
};
void seq_printf(struct seq_file *seq, const char *format, ...);

struct file_operations {
	void *owner;
	int (*open)(struct inode *inode, struct file *filp);
	int (*flush)(struct file *filp, void *id);
	int (*release)(struct inode *inode, struct file *filp);
	ssize_t (*read)(struct file *filp, char *buf, size_t count,
			loff_t *pos);
	__poll_t (*poll)(struct file *filp, poll_table *table);
	long (*unlocked_ioctl)(struct file *filp, unsigned int cmd,
			       unsigned long arg);
	long (*compat_ioctl)(struct file *filp, unsigned int cmd,
			     unsigned long arg);
	int (*mmap)(struct file *filp, struct vm_area_struct *vma);
	int (*fasync)(int fd, struct file *filp, int on);
	void (*show_fdinfo)(struct seq_file *seq, struct file *filp);
	loff_t (*llseek)(struct file *filp, loff_t offset, int whence);
};

struct file {
	unsigned int f_mode;
	unsigned int f_flags;
	void *private_data;
	struct inode *f_inode;
};
#define file_inode(filp)	      ((filp)->f_inode)
#define nonseekable_open(inode, filp) 0
#define stream_open(inode, filp)      0
#define no_llseek		      NULL
#define noop_llseek		      NULL
#define compat_ptr_ioctl	      NULL

/* ---- the module ------------------------------------------------------------ */

#define MISC_DYNAMIC_MINOR 255
struct miscdevice {
	int minor;
	const char *name;
	const struct file_operations *fops;
	umode_t mode;
};
int misc_register(struct miscdevice *device);
void misc_deregister(struct miscdevice *device);

void native_parameter(const char *name, void *value, size_t size);
#define module_param(name, type, mode)                                  \
	static void __attribute__((constructor)) parameter_##name(void) \
	{                                                               \
		native_parameter(#name, &(name), sizeof(name));         \
	}
#define MODULE_PARM_DESC(name, text)
#define MODULE_DESCRIPTION(text)
#define MODULE_LICENSE(text)
#define MODULE_ALIAS(text)
#define MODULE_ALIAS_MISCDEV(minor)
#define MODULE_AUTHOR(text)
#define MODULE_VERSION(text)
#define module_init(function)      \
	int native_init(void)      \
	{                          \
		return function(); \
	}
#define module_exit(function)  \
	void native_exit(void) \
	{                      \
		function();    \
	}
int native_init(void);
void native_exit(void);

/* Tracepoints do nothing. */
#define TP_PROTO(...) __VA_ARGS__
#define TP_ARGS(...)
#define DECLARE_EVENT_CLASS(...)
#define DEFINE_EVENT(class, name, proto, args)          \
	static inline void trace_##name(proto)          \
	{                                               \
	}                                               \
	static inline bool trace_##name##_enabled(void) \
	{                                               \
		return false;                           \
	}
#define TRACE_EVENT(name, proto, ...) DEFINE_EVENT(, name, PARAMS(proto), )
#define PARAMS(...)		      __VA_ARGS__

#endif /* TESTS_NATIVE_KERNEL_H */
