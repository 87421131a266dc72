/* SPDX-License-Identifier: BSD-2-Clause */
#include "shim.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SHIM "libmrcache-preload.so"

static int resolve(const char *from, char *path, size_t size)
{
	char real[PATH_MAX];

	if (!realpath(from, real) || access(real, R_OK))
		return -errno;
	if (snprintf(path, size, "%s", real) >= (int)size)
		return -ENAMETOOLONG;
	return 0;
}

int shim_find(char *path, size_t size)
{
	/* Seen from the directory of this command: installed, and built. */
	static const char *const places[] = {MRCACHE_SHIM_RELATIVE,
					     "../../lib/preload"};
	const char *set = secure_getenv("MRCACHE_PRELOAD");
	char self[PATH_MAX], candidate[2 * PATH_MAX];
	ssize_t length;

	if (set && *set) {
		snprintf(path, size, "%s", set);
		return resolve(set, path, size);
	}
	length = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (length > 0) {
		self[length] = '\0';
		*strrchr(self, '/') = '\0';
		for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
			snprintf(candidate, sizeof(candidate), "%s/%s/" SHIM,
				 self, places[i]);
			if (!resolve(candidate, path, size))
				return 0;
		}
	}
	/* Where it was meant to be installed; also for the complaint. */
	snprintf(path, size, "%s", MRCACHE_SHIM_DIRECTORY "/" SHIM);
	return resolve(MRCACHE_SHIM_DIRECTORY "/" SHIM, path, size);
}
