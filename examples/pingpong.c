/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * usage: pingpong ADDRESS [ROUNDS]
 *
 * Remote access through the cache. The client says where its buffer is and with
 * which key; the server reads it over RDMA, adds 1 to each byte, writes it back
 * and says so. Both ends are here, the server in a thread. Every tenth round the
 * client unmaps the buffer and maps another at the same address: a key that is
 * stale would bring back old bytes.
 */
#include <err.h>
#include <errno.h>
#include <mrcache-transport.h>
#include <mrcache.h>
#include <pthread.h>
#include <rdma/rdma_verbs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define LENGTH ((size_t)16 << 10)
#define PORT   "17771"
#define REMOTE                                              \
	(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | \
	 IBV_ACCESS_REMOTE_READ)

struct message {
	uint64_t addr; /* 0: the end */
	uint32_t rkey;
};

/* A connection, and a message each way. */
struct end {
	struct rdma_cm_id *id;
	struct message in, out;
	struct ibv_mr *in_mr, *out_mr;
};

static unsigned int rounds = 50;

static struct rdma_cm_id *endpoint(const char *address, int flags)
{
	struct rdma_addrinfo hints = {.ai_port_space = RDMA_PS_TCP,
				      .ai_flags = flags};
	struct ibv_qp_init_attr init = {
		.cap = {.max_send_wr = 4,
			.max_recv_wr = 4,
			.max_send_sge = 1,
			.max_recv_sge = 1},
		.sq_sig_all = 1,
	};
	struct rdma_addrinfo *info;
	struct rdma_cm_id *id;

	if (rdma_getaddrinfo(address, PORT, &hints, &info))
		err(1, "%s", address);
	if (rdma_create_ep(&id, info, NULL, &init))
		err(1, "%s: no RDMA device", address);
	rdma_freeaddrinfo(info);
	return id;
}

static void expect_message(struct end *e)
{
	if (rdma_post_recv(e->id, NULL, &e->in, sizeof(e->in), e->in_mr))
		err(1, "rdma_post_recv");
}

static void prepare(struct end *e)
{
	e->in_mr = rdma_reg_msgs(e->id, &e->in, sizeof(e->in));
	e->out_mr = rdma_reg_msgs(e->id, &e->out, sizeof(e->out));
	if (!e->in_mr || !e->out_mr)
		err(1, "rdma_reg_msgs");
	expect_message(e);
}

static void finish(struct end *e)
{
	rdma_dereg_mr(e->in_mr);
	rdma_dereg_mr(e->out_mr);
	rdma_destroy_ep(e->id);
}

static void sent(struct end *e, int ret, const char *what)
{
	struct ibv_wc wc = {0};

	if (ret || rdma_get_send_comp(e->id, &wc) < 0 || wc.status)
		errx(1, "%s: %s", what, ibv_wc_status_str(wc.status));
}

static void say(struct end *e)
{
	sent(e,
	     rdma_post_send(e->id, NULL, &e->out, sizeof(e->out), e->out_mr, 0),
	     "send");
}

static struct message hear(struct end *e)
{
	struct message message;
	struct ibv_wc wc = {0};

	if (rdma_get_recv_comp(e->id, &wc) < 0 || wc.status)
		errx(1, "receive: %s", ibv_wc_status_str(wc.status));
	message = e->in;
	expect_message(e);
	return message;
}

static void *serve(void *listener)
{
	static unsigned char buffer[LENGTH];
	struct end e = {0};
	struct ibv_mr *mr;

	if (rdma_get_request(listener, &e.id))
		err(1, "rdma_get_request");
	prepare(&e);
	if (rdma_accept(e.id, NULL))
		err(1, "rdma_accept");
	mr = rdma_reg_msgs(e.id, buffer, LENGTH);
	if (!mr)
		err(1, "rdma_reg_msgs");
	for (;;) {
		struct message ping = hear(&e);

		if (!ping.addr)
			break;
		sent(&e,
		     rdma_post_read(e.id, NULL, buffer, LENGTH, mr, 0,
				    ping.addr, ping.rkey),
		     "RDMA read");
		for (size_t i = 0; i < LENGTH; i++)
			buffer[i]++;
		sent(&e,
		     rdma_post_write(e.id, NULL, buffer, LENGTH, mr, 0,
				     ping.addr, ping.rkey),
		     "RDMA write");
		say(&e);
	}
	rdma_dereg_mr(mr);
	finish(&e);
	return NULL;
}

static unsigned char *map(void *where)
{
	unsigned char *p = mmap(where, LENGTH, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		err(1, "mmap");
	return p;
}

static void ping(struct end *e, struct mrcache *cache, unsigned char *buffer,
		 unsigned char byte)
{
	struct mrcache_request request = {
		.size = sizeof(request),
		.pd = e->id->pd,
		.addr = buffer,
		.length = LENGTH,
		.access = REMOTE,
		/* The peer is trusted with the key for longer than a round. */
		.flags = MRCACHE_REG_REMOTE,
	};
	struct ibv_mr *mr = mrcache_reg_mr_ex(cache, &request);

	if (!mr)
		err(1, "mrcache_reg_mr_ex");
	memset(buffer, byte, LENGTH);
	e->out = (struct message){(uintptr_t)buffer, mr->rkey};
	say(e);
	hear(e);
	mrcache_dereg_mr(cache, mr);
	for (size_t i = 0; i < LENGTH; i++)
		if (buffer[i] != (unsigned char)(byte + 1))
			errx(1, "wrong bytes");
}

int main(int argc, char **argv)
{
	struct rdma_cm_id *listener;
	struct mrcache *cache;
	struct mrcache_stats stats;
	struct end e = {0};
	unsigned char *buffer;
	pthread_t server;

	if (argc < 2 ||
	    (argc > 2 && !(rounds = (unsigned int)strtoul(argv[2], NULL, 10))))
		errx(2, "usage: pingpong ADDRESS [ROUNDS]");
	cache = mrcache_open(NULL);
	if (!cache)
		err(1, "mrcache_open");
	buffer = map(NULL);
	listener = endpoint(argv[1], RAI_PASSIVE);
	if (rdma_listen(listener, 1) ||
	    pthread_create(&server, NULL, serve, listener))
		err(1, "no server");
	e.id = endpoint(argv[1], 0);
	prepare(&e);
	if (rdma_connect(e.id, NULL))
		err(1, "rdma_connect");
	for (unsigned int i = 0; i < rounds; i++) {
		ping(&e, cache, buffer, (unsigned char)i);
		if (i % 10 == 9) {
			munmap(buffer, LENGTH);
			buffer = map(buffer);
		}
	}
	e.out.addr = 0;
	say(&e);
	pthread_join(server, NULL);
	mrcache_get_stats(cache, &stats, sizeof(stats));
	mrcache_flush(cache, e.id->pd);
	mrcache_close(cache);
	finish(&e);
	rdma_destroy_ep(listener);
	munmap(buffer, LENGTH);
	printf("%u rounds: %llu registrations, %llu hits\n", rounds,
	       (unsigned long long)stats.registrations,
	       (unsigned long long)stats.hits);
	return 0;
}
