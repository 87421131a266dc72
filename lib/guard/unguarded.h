/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Caches of registrations that are on in this process and that nothing guards:
 * found by looking at what is loaded. A cache in a library that looks like none
 * of the known ones is not found; docs/preload.md says what is.
 */
#ifndef MRC_UNGUARDED_H
#define MRC_UNGUARDED_H

#include "types.h"
#include "stacks.h"

/*
 * A registration was made. Looks at the 1st, 2nd, 4th, 8th ...: stacks are
 * loaded, and decide, late. Notes what it finds in the counters, and says what
 * is new. No lock may be held.
 */
void unguarded_registered(struct mrcache *cache);

/* Looks once more, and closely. */
void unguarded_look_at_end(struct mrcache *cache);

/*
 * The same at the end of a process whose registrations never reached us. Returns
 * what it found: bits, as in the counters.
 */
unsigned int unguarded_look_at_stranger(void);

#endif /* MRC_UNGUARDED_H */
