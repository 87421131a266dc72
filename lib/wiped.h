/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A page that a fork child finds full of zeros: how what belongs to one process
 * is told from what a child inherited, without a handler and without a call.
 */
#ifndef MRC_WIPED_H
#define MRC_WIPED_H

#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

static inline size_t mrc_wiped_size(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

/*
 * Zeroed; NULL: no memory. Where the kernel lacks MADV_WIPEONFORK (before Linux
 * 4.14) the child has a copy.
 */
static inline void *mrc_wiped_new(void)
{
	size_t size = mrc_wiped_size();
	void *page = mmap(NULL, size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return NULL;
	madvise(page, size, MADV_WIPEONFORK);
	return page;
}

/* NULL is no page, and fine. */
static inline void mrc_wiped_free(void *page)
{
	if (page)
		munmap(page, mrc_wiped_size());
}

#endif
