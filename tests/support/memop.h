/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The table of memory operations: everything a program, another process or the
 * kernel can do to memory that is registered for RDMA, and what must be told
 * about it. The device tests, the wire tests, the demo and the benchmarks all
 * take it from here. An operation asserts nothing and leaves nothing behind:
 * 0 or -errno throughout.
 */
#ifndef TESTS_SUPPORT_MEMOP_H
#define TESTS_SUPPORT_MEMOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <unistd.h>

enum memop_verdict {
	MEMOP_REPORT, /* must be reported: the old pages can be the wrong ones */
	MEMOP_QUIET, /* must not be: a registration would be lost for nothing */
	MEMOP_EITHER, /* the kernel's invalidation does not tell the two apart */
};

struct memop;

/* Memory to operate on. The first four members are for everybody. */
struct memop_buffer {
	const struct memop *op;
	char *addr; /* the program's memory, writable before and after */
	size_t size;
	size_t page; /* size of its pages */

	/* For the operations. */
	char *area; /* address space kept for it, guards included */
	size_t area_size;
	char *other; /* a second mapping or a neighbour */
	size_t other_size;
	int fd;	     /* memfd, or -1 */
	int segment; /* System V shared memory, or -1 */
	pid_t child; /* another process, or 0 */
	int control; /* socket to it, or -1 */
	uint64_t state;
};

struct memop {
	const char *name; /* short and stable */
	const char *what; /* one line */
	enum memop_verdict verdict;
	/* A page that was pinned before is not the program's page afterwards. */
	bool stale;
	/*
	 * The UMMUNOTIFY_KIND_* it is reported as; for MEMOP_QUIET those a
	 * device without UMMUNOTIFY_FEATURE_FILTER reports, 0 for nothing.
	 */
	uint32_t kinds;
	/* The program's bytes are afterwards what they were before. */
	bool keeps;
	size_t page; /* 0: the ordinary page size */

	/* NULL, or why this machine cannot do it. The function may be NULL. */
	const char *(*missing)(void);
	int (*make)(struct memop_buffer *b);
	int (*perform)(struct memop_buffer *b);
	void (*drop)(struct memop_buffer *b); /* may be NULL: the usual */
};

/* All operations, by index below memop_count(). */
size_t memop_count(void);
const struct memop *memop_get(size_t index);
size_t memop_index(const struct memop *op);

/* NULL if there is none of that name. */
const struct memop *memop_find(const char *name);

const char *memop_missing(const struct memop *op);
const char *memop_verdict_name(enum memop_verdict verdict);

/*
 * Makes at least size bytes of memory (at least MEMOP_MIN_SIZE, whole pages)
 * and touches every page. To be dropped with memop_drop(), which does nothing
 * to a buffer whose making failed.
 */
#define MEMOP_MIN_SIZE (16 * (size_t)sysconf(_SC_PAGESIZE))
int memop_make(struct memop_buffer *b, const struct memop *op, size_t size);

/*
 * Does it once. The program then has memory at b->addr again. May be repeated.
 * A process the operation leaves running ends with the next one or the drop.
 */
int memop_perform(struct memop_buffer *b);
void memop_drop(struct memop_buffer *b);

/*
 * Contents derived from a seed: those of seeds that differ modulo 256 differ
 * in every byte. memop_wrong() counts the bytes that are not as filled.
 */
void memop_fill(void *addr, size_t size, unsigned int seed);
size_t memop_wrong(const void *addr, size_t size, unsigned int seed);

/* The seed for one round of one scenario: never that of the round before. */
unsigned int memop_seed(const struct memop *op, unsigned int round);

#endif /* TESTS_SUPPORT_MEMOP_H */
