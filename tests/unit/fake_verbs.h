/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Verbs without a device. A registration remembers the versions of the pages it
 * pinned, so that a stale one can be told from a good one. One that has been
 * deregistered is poisoned and freed: AddressSanitizer sees a use of it.
 * Deregistering twice, or what was never registered, is trouble.
 */
#ifndef TESTS_UNIT_FAKE_VERBS_H
#define TESTS_UNIT_FAKE_VERBS_H

#include "fake.h"
#include "verbs.h"

extern const struct mrc_verbs fake_verbs;

/* Protection domains, as many as wanted below 16. */
struct ibv_pd *fake_pd(unsigned int n);

/* Forgets (and frees) what is registered, limits, and fork support. */
void fake_verbs_reset(void);

/* Registrations there are, of one pd or (NULL) all, and their bytes. */
size_t fake_registered(const struct ibv_pd *pd);
uint64_t fake_registered_bytes(void);

/* More bytes than this are ENOMEM; UINT64_MAX, the default: no limit. */
void fake_memlock(uint64_t bytes);

/*
 * ibv_fork_init() of a libibverbs before version 51, or where the kernel does
 * not copy pinned pages: from now on all memory that is registered becomes
 * MADV_DONTFORK, and all that is deregistered MADV_DOFORK. EINVAL after the first
 * registration.
 */
int fake_fork_init(void);
/* Whether a fork child would be without this page. */
bool fake_dontfork(size_t page);
/* Pages made MADV_DOFORK that were not those registered, but new at that place. */
unsigned int fake_wrong_dofork(void);
/* How often the cache asked whether it is so. */
unsigned int fake_fork_questions(void);

/* Hands the address of the last deregistered one out again at once. */
void fake_reuse_addresses(bool reuse);

/* Whether mr is registered, now. */
bool fake_is_registered(const struct ibv_mr *mr);

/*
 * The oracle: whether mr is registered, covers [addr, addr + length) of this pd
 * with this access, and reaches the pages as they are now.
 */
bool fake_serves(const struct ibv_mr *mr, const struct ibv_pd *pd,
		 const void *addr, size_t length, int access);
/* Only the pages. */
bool fake_reaches(const struct ibv_mr *mr, const void *addr, size_t length);
int fake_access(const struct ibv_mr *mr);

#endif /* TESTS_UNIT_FAKE_VERBS_H */
