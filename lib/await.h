/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Waiting of a thread of the library's own that must go on where poll() fails: it
 * may be forbidden, and fails if the limit of descriptors is lowered.
 */
#ifndef MRC_AWAIT_H
#define MRC_AWAIT_H

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <time.h>

/* How long nothing is seen where it fails, at the most, in milliseconds. */
#define MRC_NAP 100

/*
 * poll(), for `timeout` milliseconds (-1: without limit). False: it failed, and
 * this has slept instead, so that the caller may look by itself.
 */
static inline bool mrc_await(struct pollfd *fds, nfds_t n, int timeout)
{
	int ms = timeout < 0 || timeout > MRC_NAP ? MRC_NAP : timeout;

	if (poll(fds, n, timeout) >= 0 || errno == EINTR)
		return true;
	nanosleep(&(struct timespec){.tv_nsec = ms * 1000000L}, NULL);
	return false;
}

#endif /* MRC_AWAIT_H */
