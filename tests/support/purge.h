/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A cache beside an allocator that purges: buffers in use share huge pages with
 * freed memory, which the allocator gives back to the system. The page-table
 * entries of all of them go, the pages of the buffers do not.
 */
#ifndef TESTS_SUPPORT_PURGE_H
#define TESTS_SUPPORT_PURGE_H

#include <stdbool.h>
#include <stddef.h>

/* How the cache is used. */
enum purge_way {
	PURGE_CALM,	  /* nothing is purged while buffers are in use */
	PURGE_UNVERIFIED, /* it is, and the cache believes each alarm */
	PURGE_VERIFIED,	  /* and with attr.fingerprint */
	PURGE_WAYS,
};

/* Fewer where pages, or the allocator's own, are larger than 4 KiB. */
#define PURGE_BUFFERS 1000u

/* After a first round, which nobody can be prepared for. */
struct purge {
	unsigned int rounds;
	unsigned int buffers;
	unsigned int uses[PURGE_WAYS], hits[PURGE_WAYS];
	unsigned int huge_kib; /* new ones in each round, at least */
};

/* The allocators: a name, and what is preloaded for it or NULL. */
struct purge_allocator {
	const char *name, *library;
};
#define PURGE_ALLOCATORS 3
extern const struct purge_allocator purge_allocators[PURGE_ALLOCATORS];

/*
 * Runs it in a process of its own, with that allocator: NULL, or what prevents it.
 * That process is this program once more, whose main() begins with purge_main().
 */
const char *purge_run(const struct purge_allocator *allocator,
		      unsigned int rounds, struct purge *result);

/* Does not return if this is that process. */
void purge_main(int argc, char **argv);

#endif /* TESTS_SUPPORT_PURGE_H */
