/* SPDX-License-Identifier: BSD-2-Clause */
/* From the monitor's events to registrations that are deregistered. */
#ifndef MRC_DRAIN_H
#define MRC_DRAIN_H

#include "retire.h"

/*
 * Reads the monitor's events until there are none, and dooms what they name.
 * False if the monitor failed. With `wait` false returns (true) at once if
 * another thread is at it.
 */
bool mrc_drain(struct mrcache *cache, bool wait);

/* The same for the reaper, which has time to wait until it disturbs nobody. */
bool mrc_drain_aside(struct mrcache *cache);

#endif /* MRC_DRAIN_H */
