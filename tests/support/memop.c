/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory operations: the table as a whole and what its entries are made of.
 * The entries are in memop_report.c, memop_quiet.c and memop_either.c.
 */
#define _GNU_SOURCE
#include "memop.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "memop_int.h"

static const struct memop_group *const groups[] = {
	&memop_reported,
	&memop_quiet,
	&memop_either,
};

#define GROUPS (sizeof(groups) / sizeof(groups[0]))

static size_t page_size(void)
{
	return sysconf(_SC_PAGESIZE);
}

static size_t round_up(size_t size, size_t unit)
{
	return (size + unit - 1) / unit * unit;
}

/* --- the table ----------------------------------------------------------- */

size_t memop_count(void)
{
	size_t count = 0, i;

	for (i = 0; i < GROUPS; i++)
		count += groups[i]->count;
	return count;
}

const struct memop *memop_get(size_t index)
{
	size_t i;

	for (i = 0; i < GROUPS; i++) {
		if (index < groups[i]->count)
			return &groups[i]->ops[index];
		index -= groups[i]->count;
	}
	return NULL;
}

size_t memop_index(const struct memop *op)
{
	size_t i;

	for (i = 0; i < memop_count(); i++)
		if (memop_get(i) == op)
			break;
	return i;
}

const struct memop *memop_find(const char *name)
{
	size_t i;

	for (i = 0; i < memop_count(); i++)
		if (!strcmp(memop_get(i)->name, name))
			return memop_get(i);
	return NULL;
}

const char *memop_missing(const struct memop *op)
{
	return op->missing ? op->missing() : NULL;
}

const char *memop_verdict_name(enum memop_verdict verdict)
{
	switch (verdict) {
	case MEMOP_REPORT:
		return "must report";
	case MEMOP_QUIET:
		return "must not report";
	case MEMOP_EITHER:
		return "may report";
	}
	return "unknown";
}

int memop_make(struct memop_buffer *b, const struct memop *op, size_t size)
{
	int ret;

	memset(b, 0, sizeof(*b));
	b->fd = -1;
	b->segment = -1;
	b->control = -1;
	b->op = op;
	b->page = op->page ? op->page : page_size();
	b->size = round_up(size > MEMOP_MIN_SIZE ? size : MEMOP_MIN_SIZE,
			   b->page);
	ret = op->make(b);
	if (ret) {
		memop_drop(b);
		return ret;
	}
	memop_fill(b->addr, b->size, memop_seed(op, 0));
	return 0;
}

int memop_perform(struct memop_buffer *b)
{
	if (b->control < 0)
		memop_reap(b);
	return b->op->perform(b);
}

void memop_drop(struct memop_buffer *b)
{
	if (b->op)
		(b->op->drop ? b->op->drop : memop_drop_area)(b);
	b->op = NULL;
}

/* --- contents ------------------------------------------------------------ */

static uint8_t content(size_t i, unsigned int seed)
{
	return (uint8_t)(i ^ i >> 8 ^ i >> 16) + seed;
}

void memop_fill(void *addr, size_t size, unsigned int seed)
{
	uint8_t *p = addr;
	size_t i;

	for (i = 0; i < size; i++)
		p[i] = content(i, seed);
}

size_t memop_wrong(const void *addr, size_t size, unsigned int seed)
{
	const uint8_t *p = addr;
	size_t wrong = 0, i;

	for (i = 0; i < size; i++)
		wrong += p[i] != content(i, seed);
	return wrong;
}

unsigned int memop_seed(const struct memop *op, unsigned int round)
{
	return memop_index(op) * 29 + round * 101 + 1;
}

/* --- address space ------------------------------------------------------- */

int memop_reserve(struct memop_buffer *b, size_t beside, size_t align)
{
	size_t guard = page_size();
	uintptr_t start;

	b->area_size = align + b->size + 2 * beside + 2 * guard;
	b->area = mmap(NULL, b->area_size, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (b->area == MAP_FAILED) {
		b->area = NULL;
		return -errno;
	}
	start = round_up((uintptr_t)b->area + guard + beside, align);
	b->addr = (char *)start;
	return 0;
}

static int map_anon(void *addr, size_t size, int fixed)
{
	void *p = mmap(addr, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | fixed, -1, 0);

	if (p == MAP_FAILED)
		return -errno;
	if (p != addr) {
		munmap(p, size);
		return -EADDRINUSE;
	}
	/* khugepaged would be an operation of its own. */
	return madvise(p, size, MADV_NOHUGEPAGE) && errno != EINVAL ? -errno
								    : 0;
}

int memop_map_anon(void *addr, size_t size)
{
	return map_anon(addr, size, MAP_FIXED_NOREPLACE);
}

int memop_map_over(void *addr, size_t size)
{
	return map_anon(addr, size, MAP_FIXED);
}

int memop_unmap(void *addr, size_t size)
{
	return munmap(addr, size) ? -errno : 0;
}

int memop_guard(void *addr, size_t size)
{
	void *p = mmap(addr, size, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
		       -1, 0);

	return p == MAP_FAILED ? -errno : 0;
}

int memop_make_anon(struct memop_buffer *b)
{
	int ret = memop_reserve(b, 0, b->page);

	return ret ? ret : memop_map_over(b->addr, b->size);
}

int memop_memfd(size_t size, unsigned int flags)
{
	int fd = memfd_create("memop", MFD_CLOEXEC | flags);
	int ret;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, size)) {
		ret = -errno;
		close(fd);
		return ret;
	}
	return fd;
}

static int make_file(struct memop_buffer *b, int sharing)
{
	int ret = memop_reserve(b, 0, b->page);
	void *p;

	if (ret)
		return ret;
	b->fd = memop_memfd(b->size, 0);
	if (b->fd < 0)
		return b->fd;
	p = mmap(b->addr, b->size, PROT_READ | PROT_WRITE, sharing | MAP_FIXED,
		 b->fd, 0);
	return p == MAP_FAILED ? -errno : 0;
}

int memop_make_memfd(struct memop_buffer *b)
{
	return make_file(b, MAP_SHARED);
}

int memop_make_memfd_private(struct memop_buffer *b)
{
	return make_file(b, MAP_PRIVATE);
}

void memop_drop_area(struct memop_buffer *b)
{
	memop_reap(b);
	if (b->control >= 0)
		close(b->control);
	if (b->other)
		munmap(b->other, b->other_size);
	if (b->area)
		munmap(b->area, b->area_size);
	if (b->fd >= 0)
		close(b->fd);
	b->control = -1;
	b->other = NULL;
	b->area = NULL;
	b->fd = -1;
}

int memop_truncate(int fd, size_t size)
{
	return ftruncate(fd, 0) || ftruncate(fd, size) ? -errno : 0;
}

int memop_punch(int fd, size_t start, size_t size)
{
	int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

	return fallocate(fd, mode, start, size) ? -errno : 0;
}

/* --- other processes and threads ----------------------------------------- */

/*
 * In the child: only system calls, and no return. It shares descriptors, so
 * that it must not outlive the program.
 */
static void child_main(struct memop_buffer *b,
		       int (*body)(struct memop_buffer *b), int fd)
{
	int ret;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	ret = body(b);
	if (write(fd, &ret, sizeof(ret)) != sizeof(ret))
		_exit(1);
	for (;;)
		pause();
}

int memop_fork(struct memop_buffer *b, int (*body)(struct memop_buffer *b))
{
	int fds[2], result;
	ssize_t got;

	memop_reap(b);
	if (pipe2(fds, O_CLOEXEC))
		return -errno;
	b->child = fork();
	if (!b->child) {
		close(fds[0]);
		child_main(b, body, fds[1]);
	}
	result = -errno;
	close(fds[1]);
	if (b->child < 0) {
		b->child = 0;
		close(fds[0]);
		return result;
	}
	got = read(fds[0], &result, sizeof(result));
	close(fds[0]);
	return got == sizeof(result) ? result : -EPIPE;
}

void memop_reap(struct memop_buffer *b)
{
	if (b->child <= 0)
		return;
	kill(b->child, SIGKILL);
	while (waitpid(b->child, NULL, 0) < 0 && errno == EINTR)
		;
	b->child = 0;
}

/* Writes what the file holds into it once more. */
static int rewrite(int fd, size_t size)
{
	char chunk[4096];
	size_t at;

	for (at = 0; at < size; at += sizeof(chunk))
		if (pread(fd, chunk, sizeof(chunk), at) != sizeof(chunk) ||
		    pwrite(fd, chunk, sizeof(chunk), at) != sizeof(chunk))
			return -EIO;
	return 0;
}

static void other_main(int fd, int control, size_t size)
{
	char command;
	int ret;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (read(control, &command, 1) == 1) {
		switch (command) {
		case MEMOP_TRUNCATE:
			ret = memop_truncate(fd, size);
			break;
		case MEMOP_PUNCH:
			ret = memop_punch(fd, 0, size);
			break;
		case MEMOP_REWRITE:
			ret = rewrite(fd, size);
			break;
		default:
			ret = -EINVAL;
		}
		if (write(control, &ret, sizeof(ret)) != sizeof(ret))
			break;
	}
	_exit(0);
}

int memop_make_memfd_other(struct memop_buffer *b)
{
	int ret = memop_make_memfd(b);
	int ends[2];

	if (ret)
		return ret;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		return -errno;
	b->child = fork();
	if (!b->child) {
		close(ends[0]);
		other_main(b->fd, ends[1], b->size);
	}
	ret = b->child < 0 ? -errno : 0;
	close(ends[1]);
	b->control = ends[0];
	return ret;
}

int memop_other(struct memop_buffer *b, enum memop_command command)
{
	char c = command;
	int ret;

	if (send(b->control, &c, 1, MSG_NOSIGNAL) != 1 ||
	    recv(b->control, &ret, sizeof(ret), 0) != sizeof(ret))
		return -EPIPE;
	return ret;
}

struct thread_call {
	struct memop_buffer *b;
	int (*body)(struct memop_buffer *b);
	int ret;
};

static void *thread_main(void *arg)
{
	struct thread_call *call = arg;

	call->ret = call->body(call->b);
	return NULL;
}

int memop_thread(struct memop_buffer *b, int (*body)(struct memop_buffer *b))
{
	struct thread_call call = {.b = b, .body = body};
	pthread_t thread;
	int error = pthread_create(&thread, NULL, thread_main, &call);

	if (error)
		return -error;
	pthread_join(thread, NULL);
	return call.ret;
}

/* --- /proc and /sys ------------------------------------------------------- */

int memop_put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int ret;

	if (fd < 0)
		return -errno;
	ret = write(fd, text, strlen(text)) < 0 ? -errno : 0;
	close(fd);
	return ret;
}

long long memop_number(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char text[64];
	ssize_t got;

	if (fd < 0)
		return -errno;
	got = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (got <= 0)
		return -EIO;
	text[got] = 0;
	return strtoll(text, NULL, 0);
}
