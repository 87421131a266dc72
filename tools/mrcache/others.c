/* SPDX-License-Identifier: BSD-2-Clause */
#include "others.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

static bool is_no(const char *value)
{
	return value && (!strcmp(value, "0") || !strcasecmp(value, "n") ||
			 !strcasecmp(value, "no") || !strcasecmp(value, "off"));
}

/*
 * Up to 1.13 UCX_RCACHE_ENABLE does not reach the InfiniBand transports; without
 * memory events none of its versions caches.
 */
static bool ucx_is_off(void)
{
	const char *methods = getenv("UCX_IB_REG_METHODS");

	return is_no(getenv("UCX_MEM_EVENTS")) ||
	       (methods && !strstr(methods, "rcache"));
}

/* FI_MR_CACHE_MONITOR=disabled does not do it where a program brings its own. */
static bool libfabric_is_off(void)
{
	const char *count = getenv("FI_MR_CACHE_MAX_COUNT");

	return count && !strcmp(count, "0");
}

static bool openmpi_is_off(void)
{
	return is_no(getenv("OMPI_MCA_mpi_leave_pinned"));
}

const struct other others[OTHERS] = {
	{"UCX", "libucp.so", "UCX_MEM_EVENTS=n UCX_RCACHE_ENABLE=n",
	 ucx_is_off},
	{"libfabric", "libfabric.so", "FI_MR_CACHE_MAX_COUNT=0",
	 libfabric_is_off},
	{"Open MPI", "libmpi.so", "OMPI_MCA_mpi_leave_pinned=0",
	 openmpi_is_off},
};

/* The linker's cache has the paths as plain strings. */
static bool linker_knows(const char *library)
{
	FILE *file = fopen("/etc/ld.so.cache", "re");
	char name[64], *content = NULL;
	bool known = false;
	struct stat st;
	size_t size;

	if (!file)
		return false;
	if (!fstat(fileno(file), &st) && st.st_size > 0)
		content = malloc((size_t)st.st_size);
	if (content) {
		size = fread(content, 1, (size_t)st.st_size, file);
		snprintf(name, sizeof(name), "/%s", library);
		known = memmem(content, size, name, strlen(name));
	}
	free(content);
	fclose(file);
	return known;
}

static bool in_directory(const char *directory, size_t length,
			 const char *library)
{
	char pattern[4096];
	glob_t found;
	bool some;

	snprintf(pattern, sizeof(pattern), "%.*s/%s*", (int)length, directory,
		 library);
	some = !glob(pattern, GLOB_NOSORT, NULL, &found);
	globfree(&found);
	return some;
}

bool other_is_installed(const struct other *other)
{
	const char *path = getenv("LD_LIBRARY_PATH"), *end;

	for (; path && *path; path = *end ? end + 1 : end) {
		end = strchrnul(path, ':');
		if (end != path &&
		    in_directory(path, (size_t)(end - path), other->library))
			return true;
	}
	return linker_knows(other->library);
}
