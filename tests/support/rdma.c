/* SPDX-License-Identifier: BSD-2-Clause */
/* A reliable RDMA connection from the program to itself; see rdma.h. */
#include "rdma.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define PORT	1
#define SECONDS 20 /* a completion takes milliseconds, in a slow guest too */

#define ACCESS                                             \
	(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | \
	 IBV_ACCESS_REMOTE_WRITE)

/* verbs that return a pointer leave errno, some as 0 */
static int last_error(void)
{
	return errno ? -errno : -EIO;
}

const char *rdma_missing(void)
{
	struct ibv_device **devices;
	int count = 0;

	devices = ibv_get_device_list(&count);
	if (!devices)
		return "no RDMA in this kernel (modprobe ib_uverbs)";
	ibv_free_device_list(devices);
	return count ? NULL
		     : "no RDMA device (rdma link add rxe0 type rxe netdev NETDEV)";
}

int rdma_check(void **state)
{
	const char *missing = rdma_missing();

	(void)state;
	if (missing)
		fprintf(stderr, "no RDMA: %s\n", missing);
	return missing ? -1 : 0;
}

/* An IPv4 address, which needs no neighbour, before others. */
static bool is_ipv4(const union ibv_gid *gid)
{
	static const uint8_t prefix[12] = {[10] = 0xff, [11] = 0xff};

	return !memcmp(gid->raw, prefix, sizeof(prefix));
}

static int choose_gid(struct rdma *r, const struct ibv_port_attr *port)
{
	struct ibv_gid_entry entry;
	int i;

	r->gid_index = -1;
	for (i = 0; i < port->gid_tbl_len; i++) {
		if (ibv_query_gid_ex(r->context, PORT, i, &entry, 0))
			continue;
		if (port->link_layer == IBV_LINK_LAYER_ETHERNET &&
		    entry.gid_type != IBV_GID_TYPE_ROCE_V2)
			continue;
		if (r->gid_index >= 0 && !is_ipv4(&entry.gid))
			continue;
		r->gid_index = i;
		r->gid = entry.gid;
		if (is_ipv4(&entry.gid))
			break;
	}
	return r->gid_index < 0 ? -EADDRNOTAVAIL : 0;
}

static int open_device(struct rdma *r)
{
	struct ibv_device **devices;
	struct ibv_port_attr port;
	int count = 0, error;

	errno = 0;
	devices = ibv_get_device_list(&count);
	if (!devices)
		return last_error();
	if (count)
		r->context = ibv_open_device(devices[0]);
	ibv_free_device_list(devices);
	if (!count)
		return -ENODEV;
	if (!r->context)
		return last_error();
	error = ibv_query_port(r->context, PORT, &port);
	if (error)
		return -error;
	r->mtu = port.active_mtu;
	return choose_gid(r, &port);
}

static int make_qp(struct rdma_end *end)
{
	struct ibv_qp_init_attr init = {
		.qp_type = IBV_QPT_RC,
		.cap = {.max_send_wr = 4,
			.max_recv_wr = 1,
			.max_send_sge = 1,
			.max_recv_sge = 1},
		.sq_sig_all = 1,
		.send_cq = end->cq,
		.recv_cq = end->cq,
	};

	errno = 0;
	end->qp = ibv_create_qp(end->pd, &init);
	return end->qp ? 0 : last_error();
}

static int open_end(struct rdma *r, struct rdma_end *end)
{
	errno = 0;
	if (!end->pd)
		end->pd = ibv_alloc_pd(r->context);
	if (!end->pd)
		return last_error();
	end->cq = ibv_create_cq(r->context, 8, NULL, NULL, 0);
	return end->cq ? make_qp(end) : last_error();
}

static int drop_qp(struct rdma_end *end)
{
	int error = end->qp ? ibv_destroy_qp(end->qp) : 0;

	if (!error)
		end->qp = NULL;
	return -error;
}

static int connect_end(struct rdma *r, struct rdma_end *end,
		       const struct rdma_end *to)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_INIT,
		.port_num = PORT,
		.qp_access_flags = ACCESS,
	};
	int error = ibv_modify_qp(end->qp, &attr,
				  IBV_QP_STATE | IBV_QP_PKEY_INDEX |
					  IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);

	if (error)
		return -error;
	attr = (struct ibv_qp_attr){
		.qp_state = IBV_QPS_RTR,
		.path_mtu = r->mtu,
		.dest_qp_num = to->qp->qp_num,
		.max_dest_rd_atomic = 1,
		.min_rnr_timer = 12,
		.ah_attr = {.is_global = 1,
			    .port_num = PORT,
			    .grh = {.dgid = r->gid,
				    .sgid_index = r->gid_index,
				    .hop_limit = 1}},
	};
	error = ibv_modify_qp(end->qp, &attr,
			      IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU |
				      IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
				      IBV_QP_MAX_DEST_RD_ATOMIC |
				      IBV_QP_MIN_RNR_TIMER);
	if (error)
		return -error;
	attr = (struct ibv_qp_attr){
		.qp_state = IBV_QPS_RTS,
		.timeout = 17, /* half a second */
		.retry_cnt = 7,
		.rnr_retry = 7,
		.max_rd_atomic = 1,
	};
	error = ibv_modify_qp(end->qp, &attr,
			      IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
				      IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
				      IBV_QP_MAX_QP_RD_ATOMIC);
	return -error;
}

static int connect_ends(struct rdma *r)
{
	int ret = connect_end(r, &r->local, &r->remote);

	return ret ? ret : connect_end(r, &r->remote, &r->local);
}

/*
 * With new queue pairs, after an error. One that rxe resets while it answers a READ
 * goes on with that answer, which is no more, and refuses whatever comes.
 */
static int connect_anew(struct rdma *r)
{
	int ret = drop_qp(&r->local);

	if (!ret)
		ret = drop_qp(&r->remote);
	if (!ret)
		ret = make_qp(&r->local);
	if (!ret)
		ret = make_qp(&r->remote);
	return ret ? ret : connect_ends(r);
}

static int make_peer(struct rdma *r, size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (p == MAP_FAILED)
		return -errno;
	r->peer = p;
	r->peer_size = size;
	/* No child gets a copy, so that fork costs nothing here. */
	madvise(p, size, MADV_DONTFORK);
	errno = 0;
	r->peer_mr = ibv_reg_mr(r->remote.pd, p, size, ACCESS);
	return r->peer_mr ? 0 : last_error();
}

static int open_ends(struct rdma *r, size_t peer_size)
{
	int ret = open_end(r, &r->local);

	if (!ret)
		ret = open_end(r, &r->remote);
	if (!ret)
		ret = make_peer(r, peer_size);
	if (!ret)
		ret = connect_ends(r);
	if (ret)
		rdma_close(r);
	else
		r->pd = r->local.pd;
	return ret;
}

int rdma_open(struct rdma *r, size_t peer_size)
{
	int ret;

	memset(r, 0, sizeof(*r));
	ret = open_device(r);
	if (ret) {
		rdma_close(r);
		return ret;
	}
	return open_ends(r, peer_size);
}

int rdma_join(struct rdma *r, const struct rdma *other, size_t peer_size)
{
	memset(r, 0, sizeof(*r));
	r->joined = true;
	r->context = other->context;
	r->local.pd = other->pd;
	r->gid = other->gid;
	r->gid_index = other->gid_index;
	r->mtu = other->mtu;
	return open_ends(r, peer_size);
}

static int close_end(struct rdma_end *end)
{
	int error = -drop_qp(end);

	if (end->cq && !error)
		error = ibv_destroy_cq(end->cq);
	if (end->pd && !error)
		error = ibv_dealloc_pd(end->pd);
	return -error;
}

int rdma_close(struct rdma *r)
{
	int ret = 0, other;

	if (r->peer_mr)
		ret = -ibv_dereg_mr(r->peer_mr);
	if (r->peer)
		munmap(r->peer, r->peer_size);
	if (r->joined)
		r->local.pd = NULL;
	other = close_end(&r->local);
	ret = other ? other : ret;
	other = close_end(&r->remote);
	ret = other ? other : ret;
	if (r->context && !r->joined)
		ibv_close_device(r->context);
	memset(r, 0, sizeof(*r));
	return ret;
}

/* --- transfers ------------------------------------------------------------- */

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static int await(struct ibv_cq *cq)
{
	double deadline = now() + SECONDS;
	struct ibv_wc wc;
	int got;

	while (!(got = ibv_poll_cq(cq, 1, &wc))) {
		if (now() > deadline) {
			fprintf(stderr, "rdma: no completion in %d s\n",
				SECONDS);
			return -ETIMEDOUT;
		}
		/* The device is software and needs the processor. */
		sched_yield();
	}
	if (got < 0) {
		fprintf(stderr,
			"rdma: the completion queue cannot be polled\n");
		return -EIO;
	}
	if (wc.status == IBV_WC_SUCCESS)
		return 0;
	fprintf(stderr, "rdma: %s (vendor error %u)\n",
		ibv_wc_status_str(wc.status), wc.vendor_err);
	return -EIO;
}

static int transfer(struct rdma *r, struct rdma_end *end,
		    enum ibv_wr_opcode opcode, const struct ibv_sge *from,
		    uint64_t to, uint32_t rkey)
{
	struct ibv_sge sge = *from;
	struct ibv_send_wr *bad,
		wr = {
			.sg_list = &sge,
			.num_sge = 1,
			.opcode = opcode,
			.wr.rdma = {.remote_addr = to, .rkey = rkey},
		};
	struct ibv_wc wc;
	int error, ret;

	if (sge.length > r->peer_size)
		return -EMSGSIZE;
	if (!end->qp)
		return -ENOTCONN;
	error = ibv_post_send(end->qp, &wr, &bad);
	if (error) {
		fprintf(stderr, "rdma: posting: %s\n", strerror(error));
		return -error;
	}
	ret = await(end->cq);
	if (!ret)
		return 0;
	error = connect_anew(r);
	if (error)
		fprintf(stderr, "rdma: cannot connect again: %s\n",
			strerror(-error));
	while (ibv_poll_cq(r->local.cq, 1, &wc) > 0 ||
	       ibv_poll_cq(r->remote.cq, 1, &wc) > 0)
		;
	return ret;
}

static int by_program(struct rdma *r, enum ibv_wr_opcode opcode,
		      const struct ibv_mr *mr, const void *addr, size_t size)
{
	struct ibv_sge sge = {(uintptr_t)addr, size, mr->lkey};

	return transfer(r, &r->local, opcode, &sge, (uintptr_t)r->peer,
			r->peer_mr->rkey);
}

static int by_peer(struct rdma *r, enum ibv_wr_opcode opcode,
		   const struct ibv_mr *mr, const void *addr, size_t size)
{
	struct ibv_sge sge = {(uintptr_t)r->peer, size, r->peer_mr->lkey};

	return transfer(r, &r->remote, opcode, &sge, (uintptr_t)addr, mr->rkey);
}

int rdma_write_from(struct rdma *r, const struct ibv_mr *mr, const void *addr,
		    size_t size)
{
	return by_program(r, IBV_WR_RDMA_WRITE, mr, addr, size);
}

int rdma_read_into(struct rdma *r, const struct ibv_mr *mr, void *addr,
		   size_t size)
{
	return by_program(r, IBV_WR_RDMA_READ, mr, addr, size);
}

int rdma_peer_reads(struct rdma *r, const struct ibv_mr *mr, const void *addr,
		    size_t size)
{
	return by_peer(r, IBV_WR_RDMA_READ, mr, addr, size);
}

int rdma_peer_writes(struct rdma *r, const struct ibv_mr *mr, void *addr,
		     size_t size)
{
	return by_peer(r, IBV_WR_RDMA_WRITE, mr, addr, size);
}
