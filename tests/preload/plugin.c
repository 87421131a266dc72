/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A plug-in that is linked with libibverbs, for programs that are not: libibverbs
 * then arrives late and out of sight of the shim's RTLD_NEXT.
 */
#include "fake_ibverbs.h"
#include "subject.h"

#include <dlfcn.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

/* Registers and gives back; how many registrations were made for it. */
EXPORT unsigned int plugin_touch(struct ibv_pd *pd, void *addr)
{
	unsigned int pins = fake_pins();
	struct ibv_mr *mr = ibv_reg_mr(pd, addr, 4096, IBV_ACCESS_LOCAL_WRITE);

	CHECK(mr && mr->addr == addr);
	CHECK_EQUAL(ibv_dereg_mr(mr), 0);
	return fake_pins() - pins;
}

/* All from opening to closing the device; how many registrations were made. */
EXPORT unsigned int plugin_all(void *addr, unsigned int times)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	struct ibv_context *context = ibv_open_device(list[0]);
	struct ibv_pd *pd = ibv_alloc_pd(context);
	unsigned int pins = fake_pins();

	for (unsigned int i = 0; i < times; i++)
		plugin_touch(pd, addr);
	CHECK_EQUAL(ibv_dealloc_pd(pd), 0);
	CHECK_EQUAL(ibv_close_device(context), 0);
	ibv_free_device_list(list);
	CHECK_EQUAL(fake_live(), 0);
	return fake_pins() - pins;
}

/*
 * What RTLD_DEFAULT means here: this library's libibverbs, too. Who asks is told
 * by the return address, so this must not become a jump.
 */
EXPORT void *plugin_default(const char *name, const char *version)
{
	void *volatile found = version ? dlvsym(RTLD_DEFAULT, name, version)
				       : dlsym(RTLD_DEFAULT, name);

	return found;
}
