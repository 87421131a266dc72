/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Allocators as they are packaged, which give freed memory back to the system:
 * what shares huge pages with it is not registered again.
 */
#include "case.h"
#include "purge.h"
#include "rdma.h"
#include "support.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define ROUNDS 4u

static void costs_no_registration(const char *name)
{
	const struct purge_allocator *allocator = purge_allocators;
	struct purge r;
	const char *why;

	if (!has_huge_pages())
		skip();
	while (strcmp(allocator->name, name) != 0)
		allocator++;
	why = purge_run(allocator, ROUNDS, &r);
	if (why)
		fail_msg("%s: %s", name, why);
	print_message(
		"# %s: %u uses, hits: calm %u, unverified %u, verified %u; %u KiB huge\n",
		name, r.uses[0], r.hits[PURGE_CALM], r.hits[PURGE_UNVERIFIED],
		r.hits[PURGE_VERIFIED], r.huge_kib);
	/* On others pages are of up to 64 KiB, the kernel's or the allocator's. */
#ifdef __x86_64__
	assert_int_equal(r.buffers, PURGE_BUFFERS);
#endif
	assert_in_range(r.buffers, PURGE_BUFFERS / 16, PURGE_BUFFERS);
	for (int way = 0; way < PURGE_WAYS; way++)
		assert_int_equal(r.uses[way], ROUNDS * 3 * r.buffers);
	/* What is measured happens: nearly all alarms are false ones. */
	assert_in_range(r.hits[PURGE_CALM], r.uses[0] * 66 / 100, r.uses[0]);
	assert_in_range(r.hits[PURGE_UNVERIFIED], 0, r.uses[0] / 2);
	assert_in_range(r.hits[PURGE_VERIFIED], r.hits[PURGE_CALM] * 99 / 100,
			r.uses[0]);
}

CASE(glibc_trims)
{
	costs_no_registration("glibc");
}

CASE(jemalloc_purges)
{
	costs_no_registration("jemalloc");
}

CASE(tcmalloc_releases)
{
	costs_no_registration("tcmalloc");
}

int main(int argc, char **argv)
{
	purge_main(argc, argv);
	return run_cases(rdma_check, NULL);
}
