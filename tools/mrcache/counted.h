/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Counters of a running process, read from the file the shim keeps them in.
 * Anybody can put a file there, so nothing in it is believed unchecked, and it
 * is read and not mapped: a mapping of a file that shrinks is a SIGBUS.
 */
#ifndef MRCACHE_COUNTED_H
#define MRCACHE_COUNTED_H

#include <mrcache.h>
#include <sys/types.h>

struct counted {
	pid_t pid;
	uid_t uid;
	uint64_t started; /* with pid names one process */
	char command[64];
	char monitor[32];
	unsigned int unguarded;	 /* bits; see unguarded_name() */
	unsigned int turned_off; /* the same */
	struct mrcache_stats stats;
};

enum counted_result {
	COUNTED,
	COUNTED_NOT,	 /* not a file of counters at all, going by its name */
	COUNTED_DEAD,	 /* its process is gone; the file was removed if own */
	COUNTED_NOT_YET, /* its process is about to fill it in */
	COUNTED_DENIED,
	COUNTED_BAD, /* not what it should be: *why says what */
};

/* Opens the directory the files are in, or -errno. */
int counted_open(void);

/* Reads a file in that directory. */
enum counted_result counted_read(int directory, const char *name,
				 struct counted *counted, const char **why);

/* Whose process and which one a file of this name would be. */
enum counted_result counted_name(const char *name, uid_t *uid, pid_t *pid);

/* hits of hits and misses, 0 to 1; negative if there were none. */
double counted_hit_rate(const struct mrcache_stats *stats);

uint64_t counted_bypasses(const struct mrcache_stats *stats);

#endif /* MRCACHE_COUNTED_H */
