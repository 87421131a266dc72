/* SPDX-License-Identifier: BSD-2-Clause */
#include "object.h"

#include <string.h>

/* Most architectures relocate these pointers in place, some leave offsets. */
static const void *dynamic_pointer(const struct dl_phdr_info *info,
				   ElfW(Addr) value)
{
	return (const void *)(value < info->dlpi_addr ? info->dlpi_addr + value
						      : value);
}

static void read_dynamic(struct object *object, const ElfW(Dyn) * dynamic)
{
	const struct dl_phdr_info *info = object->info;

	for (; dynamic->d_tag != DT_NULL; dynamic++) {
		const void *pointer =
			dynamic_pointer(info, dynamic->d_un.d_ptr);

		switch (dynamic->d_tag) {
		case DT_SYMTAB:
			object->symbols = pointer;
			break;
		case DT_STRTAB:
			object->strings = pointer;
			break;
		case DT_GNU_HASH:
			object->hash = pointer;
			break;
		case DT_RELA:
			object->relocations[0].first = pointer;
			break;
		case DT_RELASZ:
			object->relocations[0].n =
				dynamic->d_un.d_val / sizeof(ElfW(Rela));
			break;
		case DT_JMPREL:
			object->relocations[1].first = pointer;
			break;
		case DT_PLTRELSZ:
			object->relocations[1].n =
				dynamic->d_un.d_val / sizeof(ElfW(Rela));
			break;
		default:
			break;
		}
	}
}

bool object_read(struct object *object, const struct dl_phdr_info *info)
{
	const char *slash = strrchr(info->dlpi_name, '/');

	*object = (struct object){
		.path = info->dlpi_name,
		.name = slash ? slash + 1 : info->dlpi_name,
		.info = info,
	};
	for (int i = 0; i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
			read_dynamic(
				object,
				(const void *)(info->dlpi_addr +
					       info->dlpi_phdr[i].p_vaddr));
	return object->symbols && object->strings;
}

bool object_has(const struct object *object, const void *address)
{
	const struct dl_phdr_info *info = object->info;

	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *header = &info->dlpi_phdr[i];
		uintptr_t start = info->dlpi_addr + header->p_vaddr;

		if (header->p_type == PT_LOAD &&
		    (uintptr_t)address - start < header->p_memsz)
			return true;
	}
	return false;
}

static uint32_t gnu_hash(const char *name)
{
	uint32_t hash = 5381;

	while (*name)
		hash = hash * 33 + (unsigned char)*name++;
	return hash;
}

void *object_symbol(const struct object *object, const char *name)
{
	const uint32_t *table = object->hash, *buckets, *chain;
	uint32_t hash = gnu_hash(name), index;

	if (!table || !table[0])
		return NULL;
	/* buckets, first hashed symbol, Bloom words, Bloom shift; see gABI notes */
	buckets =
		table + 4 + table[2] * (sizeof(ElfW(Addr)) / sizeof(uint32_t));
	chain = buckets + table[0];
	index = buckets[hash % table[0]];
	if (index < table[1])
		return NULL;
	for (;; index++) {
		uint32_t found = chain[index - table[1]];
		const ElfW(Sym) *symbol = &object->symbols[index];

		if ((found | 1) == (hash | 1) &&
		    symbol->st_shndx != SHN_UNDEF &&
		    !strcmp(object->strings + symbol->st_name, name))
			return (void *)(object->info->dlpi_addr +
					symbol->st_value);
		if (found & 1)
			return NULL;
	}
}

#if __ELF_NATIVE_CLASS == 64
#define SYMBOL_OF(info) ELF64_R_SYM(info)
#else
#define SYMBOL_OF(info) ELF32_R_SYM(info)
#endif

void object_bindings(const struct object *object, object_binding_fn *fn,
		     void *arg)
{
	for (int i = 0; i < 2; i++) {
		const ElfW(Rela) *relocation = object->relocations[i].first;

		for (size_t n = object->relocations[i].n; n && relocation;
		     n--, relocation++) {
			size_t number = SYMBOL_OF(relocation->r_info);
			const ElfW(Sym) *symbol = &object->symbols[number];

			if (number)
				fn(arg, object->strings + symbol->st_name,
				   (const void *)(object->info->dlpi_addr +
						  relocation->r_offset));
		}
	}
}

bool object_has_string(const struct object *object, const char *string)
{
	const struct dl_phdr_info *info = object->info;

	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *header = &info->dlpi_phdr[i];

		if (header->p_type == PT_LOAD &&
		    (header->p_flags & (PF_R | PF_W)) == PF_R &&
		    memmem((const void *)(info->dlpi_addr + header->p_vaddr),
			   header->p_filesz, string, strlen(string) + 1))
			return true;
	}
	return false;
}
