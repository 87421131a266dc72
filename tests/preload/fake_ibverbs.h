/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A libibverbs.so.1 without devices, for programs under the shim. It calls its
 * own functions through the PLT as the real one does, counts protection domains'
 * users, and notes what it is asked for. Misuse, and any call after its
 * destructor ran, ends the program with a message.
 *
 * FAKE_FORK=unneeded    the kernel copies pinned pages on fork (the default)
 *           disabled    it does not
 *           skipped     it does, and ibv_fork_init() knows, as from version 51
 *           locked      unneeded, and libibverbs reaches its own function past
 *                       the PLT
 * RDMAV_FORK_SAFE=1     it calls ibv_fork_init() at its start
 * FAKE_LOG=FILE                         counts are appended when it is unloaded
 */
#ifndef TESTS_PRELOAD_FAKE_IBVERBS_H
#define TESTS_PRELOAD_FAKE_IBVERBS_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stdint.h>

/* How often a function was entered: "reg_mr", "reg_mr@1.0", "dereg_mr", ... */
unsigned int fake_calls(const char *function);
/* Registrations made, ended, and there now (of all kinds). */
unsigned int fake_pins(void);
unsigned int fake_unpins(void);
unsigned int fake_live(void);
/* What the last registration was asked for. */
int fake_last_access(void);

/* Called in each registration, when its memory is pinned. */
void fake_on_pin(void (*function)(struct ibv_mr *mr));

/* Called in each deregistration that succeeds, as free() and hooks of it may be. */
void fake_on_unpin(void (*function)(void));

/* The next `times` calls of a function fail with this errno value. */
void fake_fail(const char *function, int error, unsigned int times);
/* madvise()s for fork support, which there are from ibv_fork_init() on. */
unsigned int fake_madvises(void);
/* More bytes than this are ENOMEM; 0: no limit. */
void fake_memlock(uint64_t bytes);

/* What programs get by inline functions, so that no shim sees them. */
struct ibv_pd *fake_parent_domain(struct ibv_pd *pd);
struct ibv_mr *fake_null_mr(struct ibv_pd *pd);
struct ibv_mr *fake_dm_mr(struct ibv_pd *pd);

/* An asynchronous event, for ibv_get_async_event(). */
void fake_event(struct ibv_context *context, enum ibv_event_type type);

/* Of IBVERBS_1.15 and 1.17, which verbs.h may not have yet. */
struct ibv_mr_init_attr;
struct ibv_buf;
struct ibv_mr *ibv_reg_mr_ex(struct ibv_pd *pd, struct ibv_mr_init_attr *attr);
struct ibv_mr *ibv_reg_buf_mr(struct ibv_pd *pd, struct ibv_buf *buf,
			      void *addr, size_t length, int access);

/* How struct ibv_mr_init_attr begins. */
struct fake_init_attr {
	size_t length;
	int access;
	uint64_t comp_mask;
	uint64_t iova;
	void *addr;
};

/* The structures of IBVERBS_1.0, of which only this part matters. */
struct old_pd {
	struct ibv_context *context;
	uint32_t handle;
	struct ibv_pd *real;
};

struct old_mr {
	struct ibv_context *context;
	struct old_pd *pd;
	uint32_t lkey, rkey;
	struct ibv_mr *real;
};

#endif /* TESTS_PRELOAD_FAKE_IBVERBS_H */
