/* SPDX-License-Identifier: BSD-2-Clause */
/* Opening mrcache-monitor.h's monitor on one other than the driver. */
#ifndef MRC_MONITOR_PUBLIC_H
#define MRC_MONITOR_PUBLIC_H

#include "monitor.h"
#include "mrcache-monitor.h"

/* mrcache_mon_open(); the monitor is taken over, also on failure. */
int mrc_mon_open_with(struct mrcache_mon **mon, struct mrc_monitor *monitor);

#endif /* MRC_MONITOR_PUBLIC_H */
