/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The system calls and libc functions that the library can be denied. The
 * linker makes ours stand in (--wrap, see CMakeLists.txt), for the library and
 * the tests but not for libc and sanitizers.
 */
#include "fake_driver.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

struct pollfd;

void (*fake_on_heap)(void);

static _Atomic int maps;

int fake_maps(void)
{
	return atomic_load(&maps);
}

/* Whether a call is to fail; with errno. */
static bool denied(enum fake_call call)
{
	int error = fake_enter_system(call);

	if (error)
		errno = error;
	return error != 0;
}

static bool heap_denied(void)
{
	if (fake_on_heap)
		fake_on_heap();
	return denied(FAKE_MEMORY);
}

#define WRAP(type, name, ...)            \
	type __real_##name(__VA_ARGS__); \
	type __wrap_##name(__VA_ARGS__); \
	type __wrap_##name(__VA_ARGS__)

/* uthash gives a table back for which it gets no buckets: as if nothing were. */
static __thread void *newest;

WRAP(void *, malloc, size_t size)
{
	return heap_denied() ? NULL : (newest = __real_malloc(size));
}

WRAP(void *, calloc, size_t count, size_t size)
{
	return heap_denied() ? NULL : __real_calloc(count, size);
}

WRAP(void *, aligned_alloc, size_t alignment, size_t size)
{
	return heap_denied() ? NULL : __real_aligned_alloc(alignment, size);
}

/* It may give memory back, which a program's hook may be told of. */
WRAP(void, free, void *memory)
{
	if (fake_on_heap)
		fake_on_heap();
	if (memory && memory != newest && !fake_allocates)
		fake_no_locks("free");
	__real_free(memory);
}

WRAP(void *, mmap, void *addr, size_t size, int prot, int flags, int fd,
     off_t offset)
{
	void *mapping;

	if (denied(FAKE_MAP))
		return (void *)-1;
	mapping = fake_driver_has(fd)
			  ? fake_driver_mmap(size, offset != 0)
			  : __real_mmap(addr, size, prot, flags, fd, offset);
	if (mapping != (void *)-1 && !fake_allocates)
		atomic_fetch_add(&maps, 1);
	return mapping;
}

WRAP(int, munmap, void *addr, size_t size)
{
	if (!fake_allocates)
		atomic_fetch_sub(&maps, 1);
	return __real_munmap(addr, size);
}

WRAP(int, pthread_create, pthread_t *thread, const pthread_attr_t *attr,
     void *(*function)(void *), void *arg)
{
	int error = fake_enter_system(FAKE_THREAD);

	return error ? error
		     : __real_pthread_create(thread, attr, function, arg);
}

WRAP(int, pthread_setspecific, pthread_key_t key, const void *value)
{
	int error = fake_enter_system(FAKE_KEY);

	return error ? error : __real_pthread_setspecific(key, value);
}

WRAP(int, eventfd, unsigned int value, int flags)
{
	return denied(FAKE_EVENTFD) ? -1 : __real_eventfd(value, flags);
}

WRAP(int, poll, struct pollfd *fds, unsigned long count, int timeout)
{
	return denied(FAKE_POLL) ? -1 : __real_poll(fds, count, timeout);
}

WRAP(int, open, const char *path, int flags, ...)
{
	mode_t mode = 0;
	va_list args;

	if (!strcmp(path, FAKE_DEVICE))
		return fake_driver_open();
	va_start(args, flags);
	if (flags & O_CREAT)
		mode = va_arg(args, mode_t);
	va_end(args);
	return __real_open(path, flags, mode);
}

WRAP(int, ioctl, int fd, unsigned long request, ...)
{
	va_list args;
	void *arg;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	return fake_driver_has(fd) ? fake_driver_ioctl(request, arg)
				   : __real_ioctl(fd, request, arg);
}

WRAP(ssize_t, read, int fd, void *buffer, size_t size)
{
	return fake_driver_has(fd) ? fake_driver_read(buffer, size)
				   : __real_read(fd, buffer, size);
}
