/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The mappings of the device: what may be mapped, that nobody can ever write
 * to it, and where reading it raises SIGBUS.
 */
#include "case.h"
#include "memcg.h"
#include "support.h"
#include "umn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Maps, at once unmaps: 0 or -errno. */
static int can_map(int fd, size_t length, int protection, int flags,
		   off_t offset)
{
	void *p = mmap(NULL, length, protection, flags, fd, offset);

	if (p == MAP_FAILED)
		return -errno;
	munmap(p, length);
	return 0;
}

CASE(the_counter_is_one_page)
{
	struct umn u;

	assert_int_equal(umn_start(&u, 0), 0);
	assert_int_equal(can_map(u.fd, PAGE, PROT_READ, MAP_SHARED, 0), 0);
	assert_int_equal(can_map(u.fd, 8, PROT_READ, MAP_SHARED, 0), 0);
	assert_int_equal(can_map(u.fd, PAGE, PROT_NONE, MAP_SHARED, 0), 0);
	assert_int_equal(can_map(u.fd, PAGE, PROT_READ, MAP_PRIVATE, 0), 0);
	assert_int_equal(can_map(u.fd, 2 * PAGE, PROT_READ, MAP_SHARED, 0),
			 -EINVAL);
	assert_int_equal(can_map(u.fd, PAGE + 1, PROT_READ, MAP_SHARED, 0),
			 -EINVAL);
	assert_int_equal(can_map(u.fd, PAGE, PROT_READ, MAP_SHARED, PAGE),
			 -EINVAL);
	assert_int_equal(can_map(u.fd, PAGE, PROT_READ, MAP_SHARED, 1ull << 40),
			 -EINVAL);
	/* The state words must be asked for. */
	assert_int_equal(can_map(u.fd, PAGE, PROT_READ, MAP_SHARED,
				 UMMUNOTIFY_STATE_OFFSET),
			 -EINVAL);
	umn_stop(&u);
}

CASE(the_state_words_end_where_query_says)
{
	const off_t offset = UMMUNOTIFY_STATE_OFFSET;
	struct umn u;
	size_t bytes;

	assert_int_equal(umn_start(&u, UMN_STATE), 0);
	bytes = u.state_bytes;
	assert_int_equal(can_map(u.fd, bytes, PROT_READ, MAP_SHARED, offset),
			 0);
	assert_int_equal(can_map(u.fd, PAGE, PROT_READ, MAP_SHARED, offset), 0);
	assert_int_equal(can_map(u.fd, bytes, PROT_READ, MAP_PRIVATE, offset),
			 0);
	assert_int_equal(
		can_map(u.fd, bytes + PAGE, PROT_READ, MAP_SHARED, offset),
		-EINVAL);
	assert_int_equal(
		can_map(u.fd, bytes, PROT_READ, MAP_SHARED, offset - PAGE),
		-EINVAL);
	assert_int_equal(
		can_map(u.fd, PAGE, PROT_READ, MAP_SHARED, offset + bytes),
		-EINVAL);
	umn_stop(&u);
}

static void expect_read_only(int fd, off_t offset, int flags)
{
	const uint32_t evil = 0x45564c21;
	uint32_t before;
	char *p;
	int mem;

	assert_int_equal(can_map(fd, PAGE, PROT_WRITE, flags, offset), -EACCES);
	assert_int_equal(
		can_map(fd, PAGE, PROT_READ | PROT_WRITE, flags, offset),
		-EACCES);

	p = mmap(NULL, PAGE, PROT_READ, flags, fd, offset);
	assert_ptr_not_equal(p, MAP_FAILED);
	before = *(volatile uint32_t *)p;
	assert_int_equal(mprotect(p, PAGE, PROT_WRITE), -1);
	assert_int_equal(errno, EACCES);
	assert_int_equal(mprotect(p, PAGE, PROT_READ | PROT_WRITE), -1);
	assert_int_equal(errno, EACCES);

	/* The way of debuggers, which may write to read-only text. */
	mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	assert_true(mem >= 0);
	assert_int_equal(pwrite(mem, &evil, sizeof(evil), (uintptr_t)p), -1);
	assert_int_equal(errno, EIO);
	close(mem);
	assert_int_equal(*(volatile uint32_t *)p, before);

	/* Growing would reach what mmap refuses. */
	assert_ptr_equal(mremap(p, PAGE, 2 * PAGE, MREMAP_MAYMOVE), MAP_FAILED);
	assert_int_equal(errno, EFAULT);
	if (flags == MAP_SHARED) {
		assert_ptr_equal(mremap(p, 0, 2 * PAGE, MREMAP_MAYMOVE),
				 MAP_FAILED);
		assert_int_equal(errno, EFAULT);
	}
	munmap(p, PAGE);
}

CASE(nothing_can_be_written)
{
	struct ummunotify_watch_ioctl watch;
	struct umn u;

	assert_int_equal(umn_start(&u, UMN_STATE), 0);
	assert_int_equal(umn_watch(u.fd, (void *)PAGE, PAGE, 1, 0, &watch), 0);
	expect_read_only(u.fd, 0, MAP_SHARED);
	expect_read_only(u.fd, 0, MAP_PRIVATE);
	expect_read_only(u.fd, UMMUNOTIFY_STATE_OFFSET, MAP_SHARED);
	expect_read_only(u.fd, UMMUNOTIFY_STATE_OFFSET, MAP_PRIVATE);
	assert_true(umn_clean(&u, watch.slot, watch.state));
	umn_stop(&u);
}

static sigjmp_buf escape;

static void on_bus_error(int number)
{
	(void)number;
	siglongjmp(escape, 1);
}

static bool raises_sigbus(const volatile uint32_t *word)
{
	const struct sigaction action = {.sa_handler = on_bus_error};
	struct sigaction old;
	bool raised;

	sigaction(SIGBUS, &action, &old);
	raised = sigsetjmp(escape, 1);
	if (!raised)
		(void)*word;
	sigaction(SIGBUS, &old, NULL);
	return raised;
}

CASE(pages_without_slots_raise_sigbus)
{
	struct ummunotify_watch_ioctl watch;
	struct umn u;

	assert_int_equal(umn_start(&u, UMN_STATE), 0);
	assert_true(u.state_bytes >= 2 * PAGE);
	assert_true(raises_sigbus(u.states));
	assert_int_equal(umn_watch(u.fd, (void *)PAGE, PAGE, 1, 0, &watch), 0);
	assert_true(watch.slot < PAGE / sizeof(*u.states));
	assert_false(raises_sigbus(u.states + watch.slot));
	assert_true(raises_sigbus(u.states + u.state_bytes / sizeof(*u.states) -
				  1));
	assert_int_equal(umn_unregister(u.fd, 1), 0);
	assert_false(raises_sigbus(u.states + watch.slot));
	umn_stop(&u);
}

/* Slots of the page that have no watch say so. */
CASE(unused_slots_are_free)
{
	struct ummunotify_watch_ioctl watch;
	struct umn u;
	size_t i;

	assert_int_equal(umn_start(&u, UMN_STATE), 0);
	assert_int_equal(umn_watch(u.fd, (void *)PAGE, PAGE, 1, 0, &watch), 0);
	for (i = 0; i < PAGE / sizeof(*u.states); i++) {
		if (i == watch.slot)
			assert_int_equal(
				umn_word(&u, i) & UMMUNOTIFY_STATE_FREE, 0);
		else
			assert_int_equal(umn_word(&u, i) & 0xff,
					 UMMUNOTIFY_STATE_FREE);
	}
	umn_stop(&u);
}

/* A mapping keeps the file open: it goes on telling. */
CASE(mappings_outlive_close)
{
	struct ummunotify_watch_ioctl watch;
	struct umn u;
	char *p;

	assert_int_equal(umn_start(&u, UMN_STATE), 0);
	p = pages_map(1);
	assert_non_null(p);
	assert_int_equal(umn_watch(u.fd, p, PAGE, 1, 0, &watch), 0);
	assert_int_equal(close(u.fd), 0);
	u.fd = -1;
	assert_true(umn_clean(&u, watch.slot, watch.state));
	assert_int_equal(pages_unmap(p, 1), 0);
	assert_int_equal(umn_counter(&u), 1);
	assert_false(umn_clean(&u, watch.slot, watch.state));
	umn_stop(&u);
}

/* ---- in a memory cgroup ------------------------------------------------------- */

/* Maps and unmaps pages of each kind, in that cgroup. */
static int child_in_group(void *argument)
{
	struct ummunotify_watch_ioctl w;
	struct umn u;

	(void)argument;
	if (memcg_enter() || umn_start(&u, UMN_ALL) ||
	    umn_watch(u.fd, (void *)PAGE, PAGE, 1, 0, &w))
		return 1;
	if (umn_counter(&u) || !umn_clean(&u, w.slot, w.state))
		return 2;
	umn_stop(&u);
	return 0;
}

/* What the kernel says of a map count that is not one, from here on. */
static int complaints(int kmsg)
{
	char line[2048];
	ssize_t n;
	int found = 0;

	while ((n = read(kmsg, line, sizeof(line) - 1)) > 0) {
		line[n] = '\0';
		found += strstr(line, "Bad page") != NULL;
	}
	return found;
}

/*
 * Before Linux 5.11 an accounted page keeps that fact where its map count is. It
 * shows only when somebody accounts, so not in the outermost cgroup.
 */
CASE(mapped_in_a_memory_cgroup)
{
	int kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	int ret, found;

	assert_true(kmsg >= 0);
	assert_true(lseek(kmsg, 0, SEEK_END) >= 0);
	ret = memcg_make();
	if (ret) {
		memcg_drop();
		close(kmsg);
		print_message("no memory cgroup: %s\n", strerror(-ret));
		skip();
	}
	ret = in_child(child_in_group, NULL);
	found = complaints(kmsg);
	memcg_drop();
	close(kmsg);
	assert_int_equal(ret, 0);
	assert_int_equal(found, 0);
}

int main(void)
{
	return run_cases(NULL, NULL);
}
