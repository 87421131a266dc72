/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A C++ program's view of the public headers: all can be included, and every
 * structure can be named without `struct`, which a function of the same name
 * would forbid.
 */
#include "public_headers.h"

extern "C" bool cxx_uses_the_library(void)
{
	mrcache_attr attr;
	mrcache_stats stats;
	mrcache *cache;

	mrcache_attr_init(&attr);
	attr.monitor = "none";
	cache = mrcache_open(&attr);
	return cache && mrcache_valid(cache, nullptr) &&
	       !mrcache_get_stats(cache, &stats, sizeof(stats)) &&
	       stats.hits == 0 && mrcache_version() == MRCACHE_VERSION_CODE &&
	       !mrcache_close(cache);
}
