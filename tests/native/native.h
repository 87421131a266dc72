/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The driver in a process: what a program, and the kernel around it, do to it.
 * Every thread is a task of its own. Errors are negative, as in the kernel.
 */
#ifndef TESTS_NATIVE_NATIVE_H
#define TESTS_NATIVE_NATIVE_H

#include <linux/ummunotify.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct file;
struct mm_struct;

#define NATIVE_PAGE 4096UL
#ifndef ERESTARTSYS
#define ERESTARTSYS 512 /* a signal came */
#endif

/* ---- the module ----------------------------------------------------------- */

/* A parameter of the module; false if it has none of that name. Before load. */
bool native_set(const char *name, unsigned long value);
int native_load(void);
/* All files are closed. Whatever is still allocated ends the program. */
void native_unload(void);
/* What is freed some time after its last use is freed now. */
void native_settle(void);
/* Objects allocated now, of any kind. */
long native_objects(void);

/* ---- the task -------------------------------------------------------------- */

struct mm_struct *native_new_mm(void);
/* The last task with it has ended: notifiers are released. */
void native_end_mm(struct mm_struct *mm);

/* The calling thread becomes one of a process. */
void native_become(struct mm_struct *mm, unsigned int uid, bool capable);
/* A signal is pending, or not. */
void native_signal(bool pending);
/* Whether the thread holds a mutex or a spin lock of the driver. */
bool native_holds_mutex(void);
bool native_holds_lock(void);

/* What is to go wrong, or to happen meanwhile, in the calling thread. */
struct native_plan {
	/* User memory that cannot be written, and read. */
	const char *fault_start, *fault_end;
	bool readable;
	/* So many times what is there is found not to be there right now. */
	unsigned int absent;
	/* This allocation fails, 1 being the next; 0: none. */
	unsigned int fail_after;
	/* One in so many allocations fails; 0: none. */
	unsigned int fail_one_in;
	uint64_t random;
	/*
	 * Called, never from within each other: before memory of the program
	 * is written, when the last spin lock was let go of, instead of waiting
	 * in a read, and when an invalidation must end before something goes on.
	 */
	void (*at_copy)(void);
	void (*at_unlock)(void);
	void (*at_wait)(void);
	void (*at_drain)(struct mm_struct *mm);
};
extern _Thread_local struct native_plan native_plan;

/*
 * What is about to be written when at_copy is called; nothing once it turns out
 * that a page is not there.
 */
extern _Thread_local const void *native_copied;
extern _Thread_local size_t native_copied_bytes;
/* How often this thread has taken a spin lock. */
extern _Thread_local uint64_t native_lock_operations;

/* ---- files ------------------------------------------------------------------ */

/* flags: O_RDONLY, O_NONBLOCK, ... */
int native_open(int flags, struct file **file);
void native_close(struct file *file);
void native_set_flags(struct file *file, int flags);
long native_ioctl(struct file *file, unsigned int request, void *argument);
ssize_t native_read(struct file *file, void *buffer, size_t size);
/* EPOLL* that are true now. */
unsigned int native_poll(struct file *file);
int native_fasync(struct file *file, bool on);
/* SIGIO sent so far, to whomever. */
unsigned long native_signals(void);
/* All that fdinfo says of it. */
void native_fdinfo(struct file *file, char *text, size_t size);

struct native_mapping {
	struct vm_area_struct *vma;
};

/* flags: VM_READ ...; returns an error, or 0 and what to give back. */
int native_mmap(struct file *file, unsigned long page, unsigned long size,
		unsigned long flags, struct native_mapping *mapping);
unsigned long native_mapping_flags(const struct native_mapping *mapping);
void native_munmap(struct native_mapping *mapping);
/* A page of it, to be given back, or NULL where there is SIGBUS. */
void *native_fault(struct native_mapping *mapping, unsigned long index);
void native_put_page(void *page);

/* Makes memory there, of a kind: what WATCH_CACHEABLE looks at. */
enum native_memory { NATIVE_ANONYMOUS, NATIVE_IO, NATIVE_DAX, NATIVE_CHARDEV };
void native_add_memory(struct mm_struct *mm, uint64_t start, uint64_t end,
		       enum native_memory kind);

/*
 * The number of the frame that the page tables have at an address for reading,
 * or for writing; 0 if there is none. Without it nothing is mapped anywhere.
 */
extern uint64_t (*native_frame)(uint64_t address, bool write);

/* ---- invalidations ------------------------------------------------------------ */

struct native_change {
	struct mm_struct *mm;
	uint64_t start, end;
	unsigned int event; /* index of the kind, see native_event() */
	bool may_sleep;
};

/* The event that is reported as this UMMUNOTIFY_KIND_*. */
unsigned int native_event(unsigned int kind);
void native_change_begin(const struct native_change *change);
void native_change_end(const struct native_change *change);

#endif /* TESTS_NATIVE_NATIVE_H */
