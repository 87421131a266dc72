/* SPDX-License-Identifier: BSD-2-Clause */
#include "real.h"

#include "object.h"

#include <dlfcn.h>
#include <link.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* ---- libc's dlsym and dlvsym ------------------------------------------------ */

/*
 * They cannot be asked for by dlsym(), so the symbol tables of the objects
 * loaded after us are searched, as the dynamic linker would.
 */
struct search {
	const char *name;
	bool passed_us;
	void *found;
};

static const char here; /* an address in this object */

static int search_object(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct search *search = arg;
	struct object object;

	(void)size;
	if (!object_read(&object, info))
		return 0;
	if (object_has(&object, &here))
		search->passed_us = true;
	else if (search->passed_us)
		search->found = object_symbol(&object, search->name);
	return search->found != NULL;
}

static void *find(const char *name)
{
	struct search search = {.name = name};

	dl_iterate_phdr(search_object, &search);
	if (!search.found)
		/*
		 * Dlopened itself, the shim comes after libc, and its dlsym
		 * stands in front of nobody's.
		 */
		search.passed_us = true,
		dl_iterate_phdr(search_object, &search);
	if (!search.found)
		abort(); /* a process without libc's dlsym that called it */
	return search.found;
}

dlsym_fn *real_dlsym(void)
{
	static _Atomic(dlsym_fn *) cached;
	dlsym_fn *fn = atomic_load_explicit(&cached, memory_order_acquire);

	if (!fn) {
		fn = (dlsym_fn *)find("dlsym");
		atomic_store_explicit(&cached, fn, memory_order_release);
	}
	return fn;
}

dlvsym_fn *real_dlvsym(void)
{
	static _Atomic(dlvsym_fn *) cached;
	dlvsym_fn *fn = atomic_load_explicit(&cached, memory_order_acquire);

	if (!fn) {
		fn = (dlvsym_fn *)find("dlvsym");
		atomic_store_explicit(&cached, fn, memory_order_release);
	}
	return fn;
}

/* ---- libraries that may come late -------------------------------------------- */

struct library {
	const char *symbols; /* what the names of its functions begin with */
	const char *soname;
	const char *prefix; /* of its file, also of private copies */
};

static const struct library libraries[] = {
	{"ibv_", "libibverbs.so.1", "libibverbs"},
	{"fi_", "libfabric.so.1", "libfabric"},
};

struct loaded {
	const char *prefix;
	const char *path;
};

/* The path of a loaded library under any name, for private copies. */
static int is_library(struct dl_phdr_info *info, size_t size, void *arg)
{
	const char *name = strrchr(info->dlpi_name, '/');
	struct loaded *loaded = arg;

	(void)size;
	name = name ? name + 1 : info->dlpi_name;
	/* Also libibverbs-1a2b3c4d.so.1, as packers of programs call theirs. */
	if (strncmp(name, loaded->prefix, strlen(loaded->prefix)))
		return 0;
	loaded->path = info->dlpi_name;
	return 1;
}

void *real_function(const char *name, const char *version, bool *is_loaded)
{
	const struct library *library = libraries;
	struct loaded loaded;
	void *found = real_dlvsym()(RTLD_NEXT, name, version);
	void *handle;

	while (strncmp(name, library->symbols, strlen(library->symbols)))
		library++;
	loaded.prefix = library->prefix;
	/*
	 * Also when found: the handle is kept, so that what was found stays.
	 * Loaded by dlopen() with local scope it is found only by its name.
	 */
	handle = dlopen(library->soname, RTLD_LAZY | RTLD_NOLOAD);
	if (!handle && dl_iterate_phdr(is_library, &loaded))
		handle = dlopen(loaded.path, RTLD_LAZY | RTLD_NOLOAD);
	if (!found && handle)
		found = real_dlvsym()(handle, name, version);
	if (is_loaded)
		*is_loaded = found || handle;
	return found;
}
