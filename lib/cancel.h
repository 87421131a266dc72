/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Cancellation. A thread that is cancelled inside the library would leave locks
 * locked and registrations in between states, so it is put off: everything but
 * the fast paths, which contain no cancellation point, begins with
 * MRC_NOT_CANCELLED. What is pending then acts in the program's next call.
 */
#ifndef MRC_CANCEL_H
#define MRC_CANCEL_H

#include <pthread.h>

static inline int mrc_cancel_off(void)
{
	int state = PTHREAD_CANCEL_DISABLE;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	return state;
}

static inline void mrc_cancel_as_before(const int *state)
{
	pthread_setcancelstate(*state, NULL);
}

/* A declaration: until the end of the block the thread is not cancelled. */
#define MRC_NOT_CANCELLED                                                \
	int not_cancelled_                                               \
		__attribute__((cleanup(mrc_cancel_as_before), unused)) = \
			mrc_cancel_off()

#endif /* MRC_CANCEL_H */
