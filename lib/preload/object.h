/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One object that the dynamic linker has loaded: its symbols and what it is
 * bound to. Only while dl_iterate_phdr() shows it.
 */
#ifndef MRC_OBJECT_H
#define MRC_OBJECT_H

#include <link.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct object {
	const char *path; /* empty: the program */
	const char *name; /* without directories */
	const struct dl_phdr_info *info;
	const ElfW(Sym) * symbols;
	const char *strings;
	const uint32_t *hash; /* the GNU one; every libc has it */
	struct {
		const ElfW(Rela) * first;
		size_t n;
	} relocations[2]; /* of data, of calls */
};

/* False if it has no dynamic symbols. */
bool object_read(struct object *object, const struct dl_phdr_info *info);

/* Whether an address is in it. */
bool object_has(const struct object *object, const void *address);

/* What it defines under a name, whatever the version; or NULL. */
void *object_symbol(const struct object *object, const char *name);

/*
 * Calls fn for each function or variable that it takes from elsewhere, or might:
 * the name, and where the address is that it goes to now. A call that was not
 * made yet goes into the object itself.
 */
typedef void object_binding_fn(void *arg, const char *name, const void *slot);
void object_bindings(const struct object *object, object_binding_fn *fn,
		     void *arg);

/* Whether the string is in what is not written to, with an end. */
bool object_has_string(const struct object *object, const char *string);

#endif /* MRC_OBJECT_H */
