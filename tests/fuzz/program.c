/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What `mrcache run` and `doctor` make of an executable file. Always an ELF
 * one: a script would have paths of this machine looked at.
 */
#include "fuzz.h"

#include "program.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct program program;
	static char path[32];
	static int fd = -1;

	if (fd < 0) {
		fd = memfd_create("program", MFD_CLOEXEC);
		if (fd < 0 || fchmod(fd, 0700))
			abort();
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	}
	if (ftruncate(fd, 0) || pwrite(fd, data, size, 0) < 0 ||
	    pwrite(fd, ELFMAG, SELFMAG, 0) < 0)
		abort();
	CHECK(!program_find(&program, path), "it cannot be executed");
	CHECK(program.n_needs <= PROGRAM_NEEDS, "%u", program.n_needs);
	CHECK(!program.n_needs || program.deaf == PROGRAM_HEARS, "%u",
	      program.n_needs);
	for (unsigned int i = 0; i < program.n_needs; i++)
		CHECK(memchr(program.needs[i], '\0', sizeof(program.needs[i])),
		      "a name without an end");
	program_needs(&program, "libibverbs.so");
	return 0;
}
