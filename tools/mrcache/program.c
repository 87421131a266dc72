/* SPDX-License-Identifier: BSD-2-Clause */
#include "program.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#define MAX_HEADERS 128 /* of segments; ordinary programs have a dozen */

/* --- finding ----------------------------------------------------------------- */

static int is_executable(const char *path)
{
	struct stat st;

	if (stat(path, &st))
		return -errno;
	if (S_ISDIR(st.st_mode))
		return -EACCES;
	return access(path, X_OK) ? -errno : 0;
}

static int search(char *found, size_t size, const char *name)
{
	const char *path = getenv("PATH"), *end;
	int ret = -ENOENT, one;

	if (!path)
		path = "/bin:/usr/bin"; /* as execvp() */
	for (;; path = end + 1) {
		end = strchrnul(path, ':');
		if (end == path)
			one = snprintf(found, size, "%s", name);
		else
			one = snprintf(found, size, "%.*s/%s",
				       (int)(end - path), path, name);
		if (one < (int)size) {
			one = is_executable(found);
			if (!one)
				return 0;
			if (one == -EACCES)
				ret = -EACCES;
		}
		if (!*end)
			return ret;
	}
}

/* --- privilege --------------------------------------------------------------- */

/* Then the dynamic linker looks at neither LD_PRELOAD nor MRCACHE_*. */
static enum program_deaf privilege(int fd)
{
	struct statvfs fs;
	struct stat st;

	if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ||
	    (!fstatvfs(fd, &fs) && fs.f_flag & ST_NOSUID))
		return PROGRAM_HEARS;
	if (!fstat(fd, &st)) {
		if (st.st_mode & S_ISUID && st.st_uid != getuid())
			return PROGRAM_SETUID;
		if ((st.st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) &&
		    st.st_gid != getgid())
			return PROGRAM_SETUID;
	}
	if (getuid() && fgetxattr(fd, "security.capability", NULL, 0) > 0)
		return PROGRAM_CAPABILITIES;
	return PROGRAM_HEARS;
}

/* --- ELF --------------------------------------------------------------------- */

/* Reads all of it, or fails. */
static bool get(int fd, void *buffer, size_t size, uint64_t offset)
{
	return offset < INT64_MAX &&
	       pread(fd, buffer, size, (off_t)offset) == (ssize_t)size;
}

/* Where in the file an address of the program is. */
static uint64_t file_offset(const ElfW(Phdr) * headers, unsigned int n,
			    uint64_t address)
{
	for (unsigned int i = 0; i < n; i++)
		if (headers[i].p_type == PT_LOAD &&
		    address >= headers[i].p_vaddr &&
		    address - headers[i].p_vaddr < headers[i].p_filesz)
			return headers[i].p_offset + address -
			       headers[i].p_vaddr;
	return UINT64_MAX;
}

static void add_needed(struct program *program, int fd, uint64_t offset)
{
	ssize_t length;
	char *name;

	if (program->n_needs == PROGRAM_NEEDS || offset >= INT64_MAX)
		return;
	name = program->needs[program->n_needs];
	length = pread(fd, name, sizeof(program->needs[0]) - 1, (off_t)offset);
	if (length <= 0)
		return;
	name[length] = '\0';
	program->n_needs++;
}

static void read_needed(struct program *program, int fd,
			const ElfW(Phdr) * headers, unsigned int n,
			const ElfW(Phdr) * dynamic)
{
	uint64_t count = dynamic->p_filesz / sizeof(ElfW(Dyn)), strings;
	ElfW(Dyn) entry;

	strings = UINT64_MAX;
	for (int round = 0; round < 2; round++) {
		for (uint64_t i = 0; i < count && i < 1024; i++) {
			if (!get(fd, &entry, sizeof(entry),
				 dynamic->p_offset + i * sizeof(entry)) ||
			    entry.d_tag == DT_NULL)
				break;
			if (!round && entry.d_tag == DT_STRTAB)
				strings = file_offset(headers, n,
						      entry.d_un.d_ptr);
			else if (round && entry.d_tag == DT_NEEDED)
				add_needed(program, fd,
					   strings + entry.d_un.d_val);
		}
		if (strings == UINT64_MAX)
			return;
	}
}

static void look_at_elf(struct program *program, int fd)
{
	ElfW(Phdr) headers[MAX_HEADERS];
	bool is_dynamic = false;
	ElfW(Ehdr) elf, own;
	unsigned int n;
	int self;

	/* Another class has another layout from e_entry on. */
	self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	if (self < 0)
		return;
	if (!get(self, &own, sizeof(own), 0))
		own.e_ident[EI_CLASS] = ELFCLASSNONE;
	close(self);
	if (!get(fd, &elf, sizeof(elf), 0) ||
	    elf.e_ident[EI_CLASS] != own.e_ident[EI_CLASS] ||
	    elf.e_ident[EI_DATA] != own.e_ident[EI_DATA] ||
	    elf.e_machine != own.e_machine) {
		program->deaf = PROGRAM_FOREIGN;
		return;
	}
	n = elf.e_phnum;
	if (n > MAX_HEADERS || elf.e_phentsize != sizeof(*headers) ||
	    !get(fd, headers, n * sizeof(*headers), elf.e_phoff))
		return;
	for (unsigned int i = 0; i < n; i++)
		is_dynamic |= headers[i].p_type == PT_INTERP;
	if (!is_dynamic) {
		program->deaf = PROGRAM_STATIC;
		return;
	}
	for (unsigned int i = 0; i < n; i++)
		if (headers[i].p_type == PT_DYNAMIC)
			read_needed(program, fd, headers, n, &headers[i]);
}

/* --- scripts ------------------------------------------------------------------ */

/* The interpreter in "#! /path argument", or false. */
static bool script(int fd, char *interpreter, size_t size)
{
	char line[256];
	ssize_t length = pread(fd, line, sizeof(line) - 1, 0);
	char *start;

	if (length < 3 || line[0] != '#' || line[1] != '!')
		return false;
	line[length] = '\0';
	line[strcspn(line, "\n")] = '\0';
	start = line + 2 + strspn(line + 2, " \t");
	start[strcspn(start, " \t")] = '\0';
	snprintf(interpreter, size, "%s", start);
	return *start;
}

static bool is_elf(int fd)
{
	char magic[SELFMAG];

	return get(fd, magic, SELFMAG, 0) && !memcmp(magic, ELFMAG, SELFMAG);
}

int program_find(struct program *program, const char *name)
{
	const char *path = program->path;
	int ret, fd;

	*program = (struct program){0};
	if (!*name)
		return -ENOENT;
	if (strchr(name, '/')) {
		if (snprintf(program->path, sizeof(program->path), "%s",
			     name) >= (int)sizeof(program->path))
			return -ENAMETOOLONG;
		ret = is_executable(name);
	} else {
		ret = search(program->path, sizeof(program->path), name);
	}
	if (ret)
		return ret;
	/* A script's interpreter may be a script; the kernel allows 4. */
	for (int depth = 0; depth < 5; depth++) {
		fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		if (fd < 0)
			return 0; /* may be executed all the same */
		if (is_elf(fd)) {
			program->deaf = privilege(fd);
			if (!program->deaf)
				look_at_elf(program, fd);
			close(fd);
			return 0;
		}
		ret = script(fd, program->interpreter,
			     sizeof(program->interpreter));
		close(fd);
		if (!ret)
			return 0;
		path = program->interpreter;
	}
	return 0;
}

bool program_needs(const struct program *program, const char *library)
{
	for (unsigned int i = 0; i < program->n_needs; i++)
		if (!strncmp(program->needs[i], library, strlen(library)))
			return true;
	return false;
}
