/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Uses each library by one call, and says which monitor the cache has.
 */
#include <linux/ummunotify.h>
#include <mrcache-fabric.h>
#include <mrcache.h>
#include <stdio.h>

int main(void)
{
	struct mrcache_fabric_stats stats;
	struct mrcache *cache = mrcache_open(NULL);

	if (!cache) {
		perror("mrcache_open");
		return 1;
	}
	mrcache_fabric_stats(&stats, sizeof(stats));
	printf("%s\n", mrcache_monitor(cache));
	return mrcache_close(cache) != 0;
}
