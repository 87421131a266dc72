/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A reliable RDMA connection from the program to itself over the first device:
 * the wire that shows which memory a registration reaches. The program's side
 * has the protection domain under test; the peer has its own, and one buffer
 * registered once. All calls are bounded in time; 0 or -errno.
 */
#ifndef TESTS_SUPPORT_RDMA_H
#define TESTS_SUPPORT_RDMA_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rdma_end {
	struct ibv_pd *pd;
	struct ibv_cq *cq;
	struct ibv_qp *qp;
};

struct rdma {
	struct ibv_context *context;
	struct rdma_end local;
	struct rdma_end remote;
	struct ibv_pd *pd; /* local.pd, to register with */

	/* The peer's memory. */
	uint8_t *peer;
	size_t peer_size;
	struct ibv_mr *peer_mr;

	bool joined; /* context and local.pd are another connection's */
	union ibv_gid gid;
	int gid_index;
	enum ibv_mtu mtu;
};

/* NULL, or why there is no RDMA here and what to do about it. */
const char *rdma_missing(void);

/* For a group of cmocka's: -1, having said why, if there is none. */
int rdma_check(void **state);

/* peer_size is the most that one transfer can carry. */
int rdma_open(struct rdma *r, size_t peer_size);

/*
 * One more connection with the device and the protection domain of another, so
 * that threads can use the same registrations. To be closed before it.
 */
int rdma_join(struct rdma *r, const struct rdma *other, size_t peer_size);

/* Fails with -EBUSY, having closed what it could, if memory is registered. */
int rdma_close(struct rdma *r);

/*
 * The program's side sends what mr reaches at addr to the start of the peer's
 * memory, or fetches the peer's memory into it. After an error, which is
 * printed, the connection has been set up anew.
 */
int rdma_write_from(struct rdma *r, const struct ibv_mr *mr, const void *addr,
		    size_t size);
int rdma_read_into(struct rdma *r, const struct ibv_mr *mr, void *addr,
		   size_t size);

/* The same by the peer's doing, through mr's remote key. */
int rdma_peer_reads(struct rdma *r, const struct ibv_mr *mr, const void *addr,
		    size_t size);
int rdma_peer_writes(struct rdma *r, const struct ibv_mr *mr, void *addr,
		     size_t size);

#endif /* TESTS_SUPPORT_RDMA_H */
