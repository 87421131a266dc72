/* SPDX-License-Identifier: BSD-2-Clause */
#include "real.h"

#include <dlfcn.h>
#include <link.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* ---- libc's dlsym and dlvsym ------------------------------------------------ */

/*
 * They cannot be asked for by dlsym(), so the symbol tables of the objects
 * loaded after us are searched, as the dynamic linker would. The hash is the
 * GNU one; every libc that this can run with has it.
 */
struct search {
	const char *name;
	uint32_t hash;
	bool passed_us;
	void *found;
};

static const char here; /* an address in this object */

static uint32_t gnu_hash(const char *name)
{
	uint32_t hash = 5381;

	while (*name)
		hash = hash * 33 + (unsigned char)*name++;
	return hash;
}

/* Most architectures relocate these pointers in place, some leave offsets. */
static const void *dynamic_pointer(const struct dl_phdr_info *info,
				   ElfW(Addr) value)
{
	return (const void *)(value < info->dlpi_addr ? info->dlpi_addr + value
						      : value);
}

static void *find_symbol(const struct dl_phdr_info *info,
			 const ElfW(Dyn) * dynamic, const struct search *search)
{
	const ElfW(Sym) *symbols = NULL;
	const char *strings = NULL;
	const uint32_t *table = NULL, *buckets, *chain;
	uint32_t index;

	for (; dynamic->d_tag != DT_NULL; dynamic++) {
		if (dynamic->d_tag == DT_SYMTAB)
			symbols = dynamic_pointer(info, dynamic->d_un.d_ptr);
		else if (dynamic->d_tag == DT_STRTAB)
			strings = dynamic_pointer(info, dynamic->d_un.d_ptr);
		else if (dynamic->d_tag == DT_GNU_HASH)
			table = dynamic_pointer(info, dynamic->d_un.d_ptr);
	}
	if (!symbols || !strings || !table || !table[0])
		return NULL;

	/* buckets, first hashed symbol, Bloom words, Bloom shift; see gABI notes */
	buckets =
		table + 4 + table[2] * (sizeof(ElfW(Addr)) / sizeof(uint32_t));
	chain = buckets + table[0];
	index = buckets[search->hash % table[0]];
	if (index < table[1])
		return NULL;
	for (;; index++) {
		uint32_t hash = chain[index - table[1]];
		const ElfW(Sym) *symbol = &symbols[index];

		if ((hash | 1) == (search->hash | 1) &&
		    symbol->st_shndx != SHN_UNDEF &&
		    !strcmp(strings + symbol->st_name, search->name))
			return (void *)(info->dlpi_addr + symbol->st_value);
		if (hash & 1)
			return NULL;
	}
}

static int search_object(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct search *search = arg;
	const ElfW(Dyn) *dynamic = NULL;
	bool us = false;

	(void)size;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *header = &info->dlpi_phdr[i];
		uintptr_t start = info->dlpi_addr + header->p_vaddr;

		if (header->p_type == PT_DYNAMIC)
			dynamic = (const void *)start;
		else if (header->p_type == PT_LOAD)
			us |= (uintptr_t)&here - start < header->p_memsz;
	}
	if (us)
		search->passed_us = true;
	else if (search->passed_us && dynamic)
		search->found = find_symbol(info, dynamic, search);
	return search->found != NULL;
}

static void *find(const char *name)
{
	struct search search = {.name = name, .hash = gnu_hash(name)};

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

/* ---- libibverbs --------------------------------------------------------------- */

/* The path of a loaded libibverbs under any name, for private copies. */
static int is_libibverbs(struct dl_phdr_info *info, size_t size, void *arg)
{
	const char *name = strrchr(info->dlpi_name, '/');

	(void)size;
	name = name ? name + 1 : info->dlpi_name;
	/* Also libibverbs-1a2b3c4d.so.1, as packers of programs call theirs. */
	if (strncmp(name, "libibverbs", strlen("libibverbs")))
		return 0;
	*(const char **)arg = info->dlpi_name;
	return 1;
}

void *real_verb(const char *name, const char *version, bool *loaded)
{
	const char *path = "libibverbs.so.1";
	void *found = real_dlvsym()(RTLD_NEXT, name, version);
	void *handle;

	/*
	 * Also when found: the handle is kept, so that what was found stays.
	 * Loaded by dlopen() with local scope it is found only by its name.
	 */
	handle = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
	if (!handle && dl_iterate_phdr(is_libibverbs, &path))
		handle = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
	if (!found && handle)
		found = real_dlvsym()(handle, name, version);
	if (loaded)
		*loaded = found || handle;
	return found;
}
