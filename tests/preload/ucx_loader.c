/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A program that knows nothing of UCX until it loads plug-ins (ucx_subject.c)
 * that do, with other copies of it: $UCX_PLUGINS, separated by colons. With
 * $UCX_DEEP the symbols of the first are its own.
 */
#include "subject.h"

#include <dlfcn.h>
#include <unistd.h>

typedef int (*subject_fn)(const char *mode);

int main(int argc, char **argv)
{
	int flags = RTLD_LAZY | (getenv("UCX_DEEP") ? RTLD_DEEPBIND : 0);
	char *list = strdup(getenv("UCX_PLUGINS")), *next = NULL;
	subject_fn subjects[4] = {NULL};
	unsigned int n = 0;

	CHECK(argc == 2);
	for (char *path = strtok_r(list, ":", &next); path && n < 4;
	     path = strtok_r(NULL, ":", &next)) {
		void *handle = dlopen(path, flags | RTLD_LOCAL);

		if (!handle)
			fprintf(stderr, "%s\n", dlerror());
		CHECK(handle);
		subjects[n] = (subject_fn)dlsym(handle, "subject");
		CHECK(subjects[n]);
		flags &= ~RTLD_DEEPBIND;
		n++;
	}
	free(list);
	/* All twice, so that each comes before and after each. */
	for (unsigned int i = 0; i < 2 * n; i++)
		if (subjects[i % n](argv[1]))
			return 1;
	return 0;
}
