/* SPDX-License-Identifier: BSD-2-Clause */
/* How much a process may keep registered if nobody says: its share of the node. */
#ifndef MRC_SHARE_H
#define MRC_SHARE_H

#include <stdint.h>

/* UINT64_MAX is no limit. */
struct mrc_limits {
	uint64_t memory;  /* of the machine */
	uint64_t cgroup;  /* the least memory.max from ours up (version 2) */
	uint64_t memlock; /* RLIMIT_MEMLOCK, unless CAP_IPC_LOCK lifts it */
	unsigned int
		ranks; /* processes of this job here, by its launcher; or 1 */
	/*
	 * What follows, the default of attr.max_bytes: half of what all ranks
	 * have, divided by them, and no more than may be locked.
	 */
	uint64_t bytes;
};

void mrc_limits(struct mrc_limits *limits);

/* Its parts, for tests: files and a directory other than the system's. */
uint64_t mrc_cgroup_limit(const char *membership, const char *root);
unsigned int mrc_ranks(void);

#endif /* MRC_SHARE_H */
