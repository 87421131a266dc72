/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Own operations: two protection domains behind one entry, as a program with two
 * NICs has them, and a key for each that lies beside the entry.
 */
#include "device.h"

#include <errno.h>
#include <mrcache-transport.h>
#include <mrcache.h>
#include <stdio.h>
#include <stdlib.h>

#define NICS   2
#define LENGTH ((size_t)64 << 10)
#define ROUNDS 100

static struct ibv_pd *pds[NICS];
static unsigned int registered;

/* The area of an entry. */
struct keys {
	struct ibv_mr *mrs[NICS];
};

static int dereg(void *domain, struct ibv_mr *mr, void *area)
{
	struct keys *keys = area;

	(void)domain;
	(void)mr;
	for (int i = 0; i < NICS; i++) {
		int ret = keys->mrs[i] ? ibv_dereg_mr(keys->mrs[i]) : 0;

		if (ret)
			return -ret;
		keys->mrs[i] = NULL;
	}
	return 0;
}

static int reg(void *domain, struct ibv_mr *mr, void *area, int access)
{
	struct keys *keys = area;

	for (int i = 0; i < NICS; i++) {
		int error;

		keys->mrs[i] = ibv_reg_mr(pds[i], mr->addr, mr->length, access);
		error = errno;
		if (!keys->mrs[i]) {
			dereg(domain, mr, area);
			return -error;
		}
	}
	registered++;
	return 0;
}

int main(void)
{
	const struct mrcache_ops ops = {
		.size = sizeof(ops),
		.area = sizeof(struct keys),
		.reg = reg,
		.dereg = dereg,
		.verbs_pd = pds[0] = open_pd(),
	};
	char *buffer = calloc(1, LENGTH);
	struct mrcache *cache;
	struct ibv_pd *domain;

	pds[1] = open_pd();
	cache = mrcache_open_own(NULL);
	domain = cache ? mrcache_domain_new(&ops, NULL) : NULL;
	if (!buffer || !domain)
		err(1, "mrcache");
	for (int i = 0; i < ROUNDS; i++) {
		struct ibv_mr *mr = mrcache_reg_mr(
			cache, domain, buffer, LENGTH, IBV_ACCESS_LOCAL_WRITE);
		struct keys *keys;

		if (!mr)
			err(1, "mrcache_reg_mr");
		keys = mrcache_area(mr);
		/* Post work with the key of the NIC whose turn it is. */
		if (!keys->mrs[i % NICS]->lkey)
			errx(1, "no key");
		mrcache_dereg_mr(cache, mr);
	}
	if (mrcache_domain_free(cache, domain) || mrcache_close(cache))
		errx(1, "something is still held");
	for (int i = 0; i < NICS; i++)
		close_pd(pds[i]);
	free(buffer);
	printf("%d uses: %u registrations with %d NICs\n", ROUNDS, registered,
	       NICS);
	return 0;
}
