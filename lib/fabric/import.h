/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libfabric's interface for a memory monitor of somebody else's (rdma/fi_ext.h),
 * with the ranges behind it. libfabric has one such monitor in a process.
 */
#ifndef MRC_IMPORT_H
#define MRC_IMPORT_H

#include "ranges.h"

#include <rdma/fabric.h>
#include <rdma/fi_ext.h>

/* What is called of libfabric. */
struct fabric_functions {
	int (*getparams)(struct fi_param **params, int *count);
	void (*freeparams)(struct fi_param *params);
	int (*open)(uint32_t version, const char *name, void *attr,
		    size_t attr_len, uint64_t flags, struct fid **fid,
		    void *context);
};

/* What is called of the importer; any may be NULL. */
struct fabric_hooks {
	/* libfabric has a cache now, or none any more. */
	void (*keeping)(bool keeping);
	/* A lookup was checked, and what it found (not) refused. */
	void (*checked)(bool refused);
	/* libfabric is told of a change. */
	void (*told)(void);
};

enum fabric_wish {
	FABRIC_NONE,	 /* the user has not chosen a monitor */
	FABRIC_DISABLED, /* wants no cache */
	FABRIC_OTHER,	 /* has chosen another monitor */
};

/*
 * What FI_MR_CACHE_MONITOR says. libfabric is initialised by this, which has to
 * be before the import: its initialisation takes the monitor that the variable
 * names, whatever was imported.
 */
enum fabric_wish fabric_wish(const struct fabric_functions *libfabric);

/*
 * Makes the ranges libfabric's memory monitor, for the rest of the process.
 * -FI_EBUSY: there is an imported one already, or a cache uses another; other
 * errors: libfabric is older than 1.13.
 */
int fabric_import(const struct fabric_functions *libfabric,
		  struct ranges *ranges, const struct fabric_hooks *hooks);

#endif /* MRC_IMPORT_H */
