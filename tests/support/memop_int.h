/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files that define memory operations share. */
#ifndef TESTS_SUPPORT_MEMOP_INT_H
#define TESTS_SUPPORT_MEMOP_INT_H

#include <linux/ummunotify.h>
#include <sys/mman.h>

#include "memop.h"

#define MEMOP_HUGE ((size_t)2 << 20)

/* What an older C library does not know. */
#ifndef MADV_COLD
#define MADV_COLD    20
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE  103
#endif

struct memop_group {
	const struct memop *ops;
	size_t count;
};

extern const struct memop_group memop_reported; /* memop_report.c */
extern const struct memop_group memop_quiet;	/* memop_quiet.c */
extern const struct memop_group memop_either;	/* memop_either.c */

/*
 * Reserves address space for b->size bytes with `beside` bytes on either side
 * of them, and guards around it all; b->addr starts a multiple of align.
 */
int memop_reserve(struct memop_buffer *b, size_t beside, size_t align);

/* Ordinary pages at an address where nothing is mapped; never huge ones. */
int memop_map_anon(void *addr, size_t size);
/* The same for what is mapped there now. */
int memop_map_over(void *addr, size_t size);
int memop_unmap(void *addr, size_t size);
/* Nothing accessible, so that nobody else maps something there. */
int memop_guard(void *addr, size_t size);

/* The usual ways to make memory; memop_drop_area() undoes them all. */
int memop_make_anon(struct memop_buffer *b);
int memop_make_memfd(struct memop_buffer *b);	      /* shared */
int memop_make_memfd_private(struct memop_buffer *b); /* copy on write */
int memop_make_memfd_other(struct memop_buffer *b);   /* and another process */
int memop_make_huge(struct memop_buffer *b);	      /* hugetlb, private */
const char *memop_missing_hugetlb(void);
/* The reason, if the kernel does not know this advice for private memory. */
const char *memop_missing_advice(int advice, const char *reason);
void memop_drop_area(struct memop_buffer *b);

/* A memfd of size bytes, or -errno; flags as of memfd_create. */
int memop_memfd(size_t size, unsigned int flags);

int memop_truncate(int fd, size_t size); /* to nothing, and to size again */
int memop_punch(int fd, size_t start, size_t size);

/* Forks a child that runs body(b) and then waits to be ended. */
int memop_fork(struct memop_buffer *b, int (*body)(struct memop_buffer *b));
void memop_reap(struct memop_buffer *b);

/* Has the other process of memop_make_memfd_other() do something. */
enum memop_command {
	MEMOP_TRUNCATE = 't',
	MEMOP_PUNCH = 'p',
	MEMOP_REWRITE = 'w',
};
int memop_other(struct memop_buffer *b, enum memop_command command);

/* Runs body(b) in a thread of its own, to the end. */
int memop_thread(struct memop_buffer *b, int (*body)(struct memop_buffer *b));

/* Writes text to a file of /proc or /sys; the number such a file holds. */
int memop_put(const char *path, const char *text);
long long memop_number(const char *path);

#endif /* TESTS_SUPPORT_MEMOP_INT_H */
