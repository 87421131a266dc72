/* SPDX-License-Identifier: BSD-2-Clause */
/* The first RDMA device, for examples that only register. */
#ifndef EXAMPLES_DEVICE_H
#define EXAMPLES_DEVICE_H

#include <err.h>
#include <infiniband/verbs.h>

static inline struct ibv_pd *open_pd(void)
{
	struct ibv_device **devices = ibv_get_device_list(NULL);
	struct ibv_context *context;
	struct ibv_pd *pd;

	if (!devices || !devices[0])
		errx(1, "there is no RDMA device");
	context = ibv_open_device(devices[0]);
	ibv_free_device_list(devices);
	pd = context ? ibv_alloc_pd(context) : NULL;
	if (!pd)
		err(1, "RDMA device");
	return pd;
}

static inline void close_pd(struct ibv_pd *pd)
{
	struct ibv_context *context = pd->context;

	if (ibv_dealloc_pd(pd))
		errx(1, "memory is still registered");
	ibv_close_device(context);
}

#endif /* EXAMPLES_DEVICE_H */
