/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A library that uses verbs before main() has begun and after it has ended, as
 * those do that set themselves up in constructors.
 */
#include "fake_ibverbs.h"
#include "subject.h"

#include <dlfcn.h>
#include <time.h>
#include <unistd.h>

static struct ibv_context *context;
static struct ibv_pd *pd;
static struct ibv_mr *held;
static char memory[8192];

static void touch(size_t at)
{
	struct ibv_mr *mr =
		ibv_reg_mr(pd, memory + at, 4096, IBV_ACCESS_LOCAL_WRITE);

	CHECK(mr);
	CHECK_EQUAL(ibv_dereg_mr(mr), 0);
}

static __attribute__((constructor)) void begin(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	unsigned int pins;

	if (getenv("EARLY_WAITS")) {
		CHECK(!setenv("EARLY_LOADING", "1", 1));
		while (!getenv("SUBJECT_REGISTERING"))
			usleep(1000);
		/* Time for it to run into what we hold, or to be done. */
		usleep(300000);
	}
	CHECK(dlsym(RTLD_DEFAULT, "ibv_alloc_pd") == (void *)ibv_alloc_pd);
	context = ibv_open_device(list[0]);
	pd = ibv_alloc_pd(context);
	ibv_free_device_list(list);
	pins = fake_pins();
	touch(0);
	touch(0);
	CHECK_EQUAL(fake_pins() - pins, caches() ? 1 : 2);
	held = ibv_reg_mr(pd, memory + 4096, 4096, IBV_ACCESS_LOCAL_WRITE);
	CHECK(held);
}

static __attribute__((destructor)) void end(void)
{
	CHECK_EQUAL(ibv_dealloc_pd(pd), EBUSY);
	CHECK_EQUAL(ibv_dereg_mr(held), 0);
	touch(0);
	CHECK_EQUAL(ibv_dealloc_pd(pd), 0);
	CHECK_EQUAL(ibv_close_device(context), 0);
}
