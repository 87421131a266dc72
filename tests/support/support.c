/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory, threads and children for the tests of the device; see support.h. */
#include "support.h"

#include "memop_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WAIT_SECONDS 60
#define SLAB	     "/sys/kernel/slab/"

char *pages_map(size_t count)
{
	char *p = mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	/* Kernels without huge pages answer EINVAL: all the same. */
	madvise(p, count * PAGE, MADV_NOHUGEPAGE);
	if (pages_populate(p, count * PAGE)) {
		munmap(p, count * PAGE);
		return NULL;
	}
	return p;
}

int pages_populate(void *start, size_t length)
{
	if (!madvise(start, length, MADV_POPULATE_WRITE))
		return 0;
	if (errno != EINVAL)
		return -errno;
	/*
	 * Before Linux 5.14: changes nothing, but is a write from the beginning.
	 * Reading first would map the zero page, which the write then replaces.
	 */
	for (char *p = start; p < (char *)start + length; p += PAGE)
		__atomic_fetch_or(p, 0, __ATOMIC_RELAXED);
	return 0;
}

bool kernel_is_before(unsigned int major, unsigned int minor)
{
	unsigned int has_major = 0, has_minor = 0;
	struct utsname host;

	uname(&host);
	sscanf(host.release, "%u.%u", &has_major, &has_minor);
	return has_major < major || (has_major == major && has_minor < minor);
}

bool has_huge_pages(void)
{
	long long size = memop_number(
		"/sys/kernel/mm/transparent_hugepage/hpage_pmd_size");

	if (size != MEMOP_HUGE)
		printf("# skipped: huge pages of this kernel: %lld bytes\n",
		       size < 0 ? 0 : size);
	return size == MEMOP_HUGE;
}

int pages_unmap(void *start, size_t count)
{
	return syscall(SYS_munmap, start, count * PAGE) ? -errno : 0;
}

bool page_present(int pagemap, const void *address)
{
	uint64_t entry = 0;
	off_t offset = (uintptr_t)address / PAGE * sizeof(entry);

	if (pread(pagemap, &entry, sizeof(entry), offset) != sizeof(entry))
		return false;
	return entry >> 63;
}

pid_t thread_id(void)
{
	return syscall(SYS_gettid);
}

bool wait_blocked(pid_t tid, long system_call)
{
	const struct timespec pause = {.tv_nsec = 1000000};
	time_t end = time(NULL) + WAIT_SECONDS;
	char path[64], line[64];

	snprintf(path, sizeof(path), "/proc/%d/syscall", tid);
	while (time(NULL) < end) {
		FILE *f = fopen(path, "re");
		char *rest;

		if (!f)
			return false;
		if (fgets(line, sizeof(line), f) &&
		    strtol(line, &rest, 10) == system_call && rest != line) {
			fclose(f);
			return true;
		}
		fclose(f);
		nanosleep(&pause, NULL);
	}
	return false;
}

int child_result(pid_t pid)
{
	int status;
	pid_t got;

	do
		got = waitpid(pid, &status, 0);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return -errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int in_child(int (*f)(void *argument), void *argument)
{
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (!pid)
		_exit(f(argument));
	return child_result(pid);
}

union control {
	struct cmsghdr header;
	char room[CMSG_SPACE(sizeof(int))];
};

int send_fd(int socket, int fd)
{
	union control control = {};
	char byte = 0;
	struct iovec data = {&byte, 1};
	struct msghdr message = {
		.msg_iov = &data,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	return sendmsg(socket, &message, 0) == 1 ? 0 : -errno;
}

int receive_fd(int socket)
{
	union control control = {};
	char byte;
	struct iovec data = {&byte, 1};
	struct msghdr message = {
		.msg_iov = &data,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *header;
	ssize_t got;
	int fd;

	do
		got = recvmsg(socket, &message, 0);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return -errno;
	header = CMSG_FIRSTHDR(&message);
	if (got != 1 || !header || header->cmsg_type != SCM_RIGHTS)
		return -EPIPE;
	memcpy(&fd, CMSG_DATA(header), sizeof(fd));
	return fd;
}

int slab_shrink(const char *cache)
{
	char path[512];
	int fd, ret;

	snprintf(path, sizeof(path), SLAB "%s/shrink", cache);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ret = write(fd, "1", 1) == 1 ? 0 : -errno;
	close(fd);
	return ret;
}

long slab_objects(const char *cache)
{
	char path[512];
	long objects;
	int ret;
	FILE *f;

	ret = slab_shrink(cache);
	if (ret)
		return ret;
	snprintf(path, sizeof(path), SLAB "%s/objects", cache);
	f = fopen(path, "re");
	if (!f)
		return -errno;
	ret = fscanf(f, "%ld", &objects);
	fclose(f);
	return ret == 1 ? objects : -EBADMSG;
}

bool put_byte(int fd, char byte)
{
	ssize_t done;

	do
		done = write(fd, &byte, 1);
	while (done < 0 && errno == EINTR);
	return done == 1;
}

bool get_byte(int fd, char *byte)
{
	ssize_t done;

	do
		done = read(fd, byte, 1);
	while (done < 0 && errno == EINTR);
	return done == 1;
}
