/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * WATCH_CACHEABLE refuses exactly the memory whose registration must not be
 * cached, says why, and leaves no watch behind.
 */
#include "case.h"
#include "support.h"
#include "umn.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define COOKIE	  5
#define HUGE_PAGE (2ul << 20)

static struct umn device;

static int set_up(void **state)
{
	(void)state;
	return umn_start(&device, UMN_ALL);
}

static int tear_down(void **state)
{
	(void)state;
	umn_stop(&device);
	return 0;
}

static void accepted(const void *start, size_t length)
{
	struct ummunotify_watch_ioctl w;

	assert_int_equal(umn_watch(device.fd, start, length, COOKIE,
				   UMMUNOTIFY_WATCH_CACHEABLE, &w),
			 0);
	assert_int_equal(w.memory, 0);
	assert_true(umn_clean(&device, w.slot, w.state));
	assert_int_equal(umn_unregister(device.fd, COOKIE), 0);
}

static void refused(const void *start, size_t length, uint32_t memory)
{
	struct ummunotify_query_ioctl q;
	struct ummunotify_watch_ioctl w;

	assert_int_equal(umn_watch(device.fd, start, length, COOKIE,
				   UMMUNOTIFY_WATCH_CACHEABLE, &w),
			 -EOPNOTSUPP);
	assert_int_equal(w.memory, memory);
	assert_int_equal(umn_query(device.fd, &q), 0);
	assert_int_equal(q.watches, 0);
	/* The same memory can be watched by who does not ask, the cookie is free. */
	assert_int_equal(umn_watch(device.fd, start, length, COOKIE, 0, &w), 0);
	assert_int_equal(umn_unregister(device.fd, COOKIE), 0);
}

CASE_IN(anonymous_memory, set_up, tear_down)
{
	char *p;

	p = pages_map(4);
	assert_non_null(p);
	accepted(p, 4 * PAGE);
	accepted(p + 1, 1);
	accepted(p + PAGE - 1, 2 * PAGE + 2);
	/* Several mappings in a row, one of them without access. */
	assert_int_equal(mprotect(p + PAGE, PAGE, PROT_READ), 0);
	assert_int_equal(mprotect(p + 2 * PAGE, PAGE, PROT_NONE), 0);
	accepted(p, 4 * PAGE);
	pages_unmap(p, 4);

	p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		 -1, 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	accepted(p, PAGE);
	pages_unmap(p, 1);
}

CASE_IN(stack_and_program, set_up, tear_down)
{
	static char data[100];
	char local[100] = "";

	accepted(local, sizeof(local));
	accepted(data, sizeof(data));
	/* Function pointers of POSIX systems convert. */
	accepted((void *)(uintptr_t)stack_and_program, 16);
}

static void map_file(const char *path, int flags)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	char *p;

	assert_true(fd >= 0);
	p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, flags, fd, 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	accepted(p, 2 * PAGE);
	pages_unmap(p, 2);
	close(fd);
}

/* A device by its file, memory by its nature. */
CASE_IN(dev_zero, set_up, tear_down)
{
	map_file("/dev/zero", MAP_PRIVATE);
	map_file("/dev/zero", MAP_SHARED);
}

CASE_IN(memory_files, set_up, tear_down)
{
	static const int flags[] = {MAP_SHARED, MAP_PRIVATE};
	char *p;
	size_t i;
	int fd;

	fd = memfd_create("cacheable", MFD_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 2 * PAGE), 0);
	for (i = 0; i < 2; i++) {
		p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, flags[i], fd,
			 0);
		assert_ptr_not_equal(p, MAP_FAILED);
		accepted(p, 2 * PAGE);
		pages_unmap(p, 2);
	}
	close(fd);
}

CASE_IN(huge_pages, set_up, tear_down)
{
	char *p;

	p = mmap(NULL, HUGE_PAGE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	accepted(p, HUGE_PAGE);
	munmap(p, HUGE_PAGE);
}

CASE_IN(holes, set_up, tear_down)
{
	const uint32_t hole = UMMUNOTIFY_MEMORY_HOLE;
	char *p;

	p = pages_map(5);
	assert_non_null(p);
	pages_unmap(p, 1);
	pages_unmap(p + 2 * PAGE, 1);
	pages_unmap(p + 4 * PAGE, 1);
	accepted(p + PAGE, PAGE);
	accepted(p + 3 * PAGE, PAGE);
	refused(p + 2 * PAGE, PAGE, hole);
	refused(p + PAGE, 3 * PAGE, hole);
	refused(p + PAGE - 1, 2, hole);
	refused(p + 2 * PAGE - 1, 2, hole);
	refused(p, 5 * PAGE, hole);
	refused((void *)PAGE, PAGE, hole);
	/* What no process can map. */
	refused((void *)-PAGE, PAGE - 1, hole);
	pages_unmap(p + PAGE, 1);
	pages_unmap(p + 3 * PAGE, 1);
}

CASE_IN(a_mapped_device, set_up, tear_down)
{
	refused(device.counter, PAGE, UMMUNOTIFY_MEMORY_DEVICE);
	refused(device.states, device.state_bytes, UMMUNOTIFY_MEMORY_DEVICE);
	refused((char *)device.counter + 1, 1, UMMUNOTIFY_MEMORY_DEVICE);
}

/* Pages the kernel maps by number, without a file: [vvar]. */
CASE_IN(kernel_pages, set_up, tear_down)
{
	uintptr_t start = 0, end = 0;
	char line[256];
	FILE *f;

	f = fopen("/proc/self/maps", "re");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		if (strstr(line, "[vvar]") &&
		    sscanf(line, "%" SCNxPTR "-%" SCNxPTR, &start, &end) == 2)
			break;
	}
	fclose(f);
	assert_true(start < end);
	refused((void *)start, end - start, UMMUNOTIFY_MEMORY_DEVICE);
}

CASE_IN(device_memory, set_up, tear_down)
{
	int fd = open("/dev/mem", O_RDONLY | O_CLOEXEC);
	void *p;

	if (fd < 0)
		return;
	/* The BIOS, which even a kernel with a strict /dev/mem lets one see. */
	p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0xf0000);
	if (p != MAP_FAILED) {
		refused(p, PAGE, UMMUNOTIFY_MEMORY_DEVICE);
		munmap(p, PAGE);
	}
	close(fd);
}

/* Memory, device, hole, memory: all reasons, and only what is in the range. */
CASE_IN(a_mixed_range, set_up, tear_down)
{
	const uint32_t hole = UMMUNOTIFY_MEMORY_HOLE,
		       dev = UMMUNOTIFY_MEMORY_DEVICE;
	char *p;

	p = pages_map(4);
	assert_non_null(p);
	assert_ptr_equal(mmap(p + PAGE, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED,
			      device.fd, 0),
			 p + PAGE);
	pages_unmap(p + 2 * PAGE, 1);
	accepted(p, PAGE);
	accepted(p + 3 * PAGE, PAGE);
	refused(p, PAGE + 1, dev);
	refused(p, 2 * PAGE, dev);
	refused(p + PAGE, PAGE, dev);
	refused(p, 2 * PAGE + 1, dev | hole);
	refused(p, 4 * PAGE, dev | hole);
	refused(p + 2 * PAGE, 2 * PAGE, hole);
	pages_unmap(p, 4);
}

/* A hole or a device right after the range or right before it is not in it. */
CASE_IN(neighbours, set_up, tear_down)
{
	char *p;

	p = pages_map(3);
	assert_non_null(p);
	assert_ptr_equal(
		mmap(p, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, device.fd, 0),
		p);
	assert_ptr_equal(mmap(p + 2 * PAGE, PAGE, PROT_READ,
			      MAP_SHARED | MAP_FIXED, device.fd, 0),
			 p + 2 * PAGE);
	accepted(p + PAGE, PAGE);
	accepted(p + PAGE, 1);
	accepted(p + 2 * PAGE - 1, 1);
	refused(p + 2 * PAGE - 1, 2, UMMUNOTIFY_MEMORY_DEVICE);
	pages_unmap(p, 1);
	pages_unmap(p + 2 * PAGE, 1);
	accepted(p + PAGE, PAGE);
	pages_unmap(p + PAGE, 1);
}

int main(void)
{
	return run_cases(NULL, NULL);
}
