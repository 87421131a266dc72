/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Programs compiled for the 2010 header work: the three ioctls, their errors,
 * and what a watch reports, with no feature granted.
 */
#include "case.h"
#include "module.h"
#include "support.h"
#include "umn.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define COOKIE 0xfeedfacecafef00dull

static void start(struct umn *u)
{
	assert_int_equal(umn_start(u, 0), 0);
	assert_int_equal(umn_counter(u), 0);
}

static void expect_inval(const struct ummunotify_event *e, uint64_t cookie,
			 const char *begin, size_t length, bool hint)
{
	assert_int_equal(e->type, UMMUNOTIFY_EVENT_TYPE_INVAL);
	assert_int_equal(e->flags, hint ? UMMUNOTIFY_EVENT_FLAG_HINT : 0);
	assert_int_equal(e->hint_start, (uintptr_t)begin);
	assert_int_equal(e->hint_end, (uintptr_t)begin + length);
	assert_int_equal(e->user_cookie_counter, cookie);
}

static void expect_last(const struct ummunotify_event *e, uint64_t counter)
{
	assert_int_equal(e->type, UMMUNOTIFY_EVENT_TYPE_LAST);
	assert_int_equal(e->user_cookie_counter, counter);
}

/* What the sample program of 2010 does and expects, step by step. */
CASE(sample_program)
{
	const uint64_t *counter;
	struct ummunotify_event e[2];
	struct ummunotify_register_ioctl r;
	uint32_t mask = 0xdeadbeef;
	__u64 cookie = 123;
	char *p;
	int fd;

	fd = umn_open(O_RDONLY | O_NONBLOCK);
	assert_true(fd >= 0);
	assert_int_equal(ioctl(fd, UMMUNOTIFY_EXCHANGE_FEATURES, &mask), 0);
	assert_int_equal(mask, 0);
	counter = mmap(NULL, sizeof(*counter), PROT_READ, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(counter, MAP_FAILED);
	assert_int_equal(*(volatile const uint64_t *)counter, 0);

	p = mmap(NULL, 3 * PAGE, PROT_READ,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	r.start = (uintptr_t)p;
	r.end = (uintptr_t)p + 3 * PAGE;
	r.user_cookie = cookie;
	r.flags = 0xa5a5a5a5;
	r.reserved = 0x5a5a5a5a;
	assert_int_equal(ioctl(fd, UMMUNOTIFY_REGISTER_REGION, &r), 0);
	assert_int_equal(*(volatile const uint64_t *)counter, 0);

	assert_int_equal(munmap(p + PAGE, PAGE), 0);
	assert_int_equal(*(volatile const uint64_t *)counter, 1);
	assert_int_equal(umn_read(fd, e, 2), 2);
	expect_inval(&e[0], cookie, p + PAGE, PAGE, true);
	expect_last(&e[1], 1);

	assert_int_equal(ioctl(fd, UMMUNOTIFY_UNREGISTER_REGION, &cookie), 0);
	assert_int_equal(munmap(p, PAGE), 0);
	assert_int_equal(*(volatile const uint64_t *)counter, 1);
	assert_int_equal(umn_read(fd, e, 2), -EAGAIN);
	munmap(p + 2 * PAGE, PAGE);
	munmap((void *)counter, PAGE);
	close(fd);
}

CASE(open_is_read_only)
{
	assert_int_equal(umn_open(O_RDWR), -EINVAL);
	assert_int_equal(umn_open(O_WRONLY), -EINVAL);
	assert_int_equal(umn_open(O_RDWR | O_NONBLOCK), -EINVAL);
}

CASE(masks_of_2010_grant_nothing)
{
	static const uint32_t masks[] = {
		0, 1, 7, 0xffff, 0x4d510007, 0x7fffffff, 0xffffffff};
	struct ummunotify_query_ioctl query;
	struct ummunotify_watch_ioctl watch;
	struct ummunotify_rearm_ioctl rearm;
	uint32_t mask;
	size_t i;
	int fd;

	for (i = 0; i < sizeof(masks) / sizeof(masks[0]); i++) {
		fd = umn_open(O_RDONLY);
		mask = masks[i];
		assert_int_equal(umn_exchange(fd, &mask), 0);
		assert_int_equal(mask, 0);
		assert_int_equal(umn_query(fd, &query), 0);
		assert_int_equal(query.granted, 0);
		assert_int_equal(
			umn_watch(fd, (void *)PAGE, PAGE, 1, 0, &watch),
			-ENOTTY);
		assert_int_equal(umn_rearm(fd, 1, &rearm), -ENOTTY);
		close(fd);
	}
}

CASE(exchange_comes_first)
{
	struct ummunotify_query_ioctl query;
	struct ummunotify_event e;
	uint32_t mask;
	int fd;

	fd = umn_open(O_RDONLY | O_NONBLOCK);
	mask = 0;
	assert_int_equal(umn_exchange(fd, &mask), 0);
	mask = 0xcccccccc;
	assert_int_equal(umn_exchange(fd, &mask), -EINVAL);
	close(fd);

	fd = umn_open(O_RDONLY | O_NONBLOCK);
	assert_int_equal(umn_register(fd, (void *)PAGE, PAGE, 1), 0);
	mask = 0;
	assert_int_equal(umn_exchange(fd, &mask), -EINVAL);
	close(fd);

	fd = umn_open(O_RDONLY | O_NONBLOCK);
	assert_int_equal(umn_read(fd, &e, 1), -EAGAIN);
	mask = 0;
	assert_int_equal(umn_exchange(fd, &mask), -EINVAL);
	close(fd);

	/* What makes nothing and reads nothing does not count as use. */
	fd = umn_open(O_RDONLY | O_NONBLOCK);
	assert_int_equal(umn_query(fd, &query), 0);
	assert_int_equal(umn_unregister(fd, COOKIE), -EINVAL);
	mask = UMMUNOTIFY_FEATURES_MAGIC | UMN_ALL;
	assert_int_equal(umn_exchange(fd, &mask), 0);
	assert_int_equal(mask, UMMUNOTIFY_FEATURES_MAGIC | UMN_ALL);
	close(fd);
}

CASE(cookies)
{
	struct umn u;

	start(&u);
	assert_int_equal(umn_unregister(u.fd, COOKIE), -EINVAL);
	assert_int_equal(umn_register(u.fd, (void *)PAGE, PAGE, COOKIE), 0);
	assert_int_equal(umn_register(u.fd, (void *)PAGE, PAGE, COOKIE),
			 -EINVAL);
	assert_int_equal(umn_register(u.fd, (void *)(8 * PAGE), PAGE, COOKIE),
			 -EINVAL);
	/* All 64 bits tell cookies apart, and none is special. */
	assert_int_equal(
		umn_register(u.fd, (void *)PAGE, PAGE, COOKIE ^ (1ull << 63)),
		0);
	assert_int_equal(
		umn_register(u.fd, (void *)PAGE, PAGE, COOKIE ^ (1ull << 31)),
		0);
	assert_int_equal(umn_register(u.fd, (void *)PAGE, PAGE, 0), 0);
	assert_int_equal(umn_register(u.fd, (void *)PAGE, PAGE, UINT64_MAX), 0);
	assert_int_equal(umn_unregister(u.fd, COOKIE), 0);
	assert_int_equal(umn_unregister(u.fd, COOKIE), -EINVAL);
	assert_int_equal(umn_unregister(u.fd, 0), 0);
	assert_int_equal(umn_unregister(u.fd, UINT64_MAX), 0);
	assert_int_equal(umn_register(u.fd, (void *)PAGE, PAGE, COOKIE), 0);
	umn_stop(&u);
}

CASE(end_may_equal_start)
{
	struct ummunotify_event e[2];
	struct umn u;
	char *p;

	start(&u);
	p = pages_map(3);
	assert_non_null(p);
	/* The last byte in place of the end: the page it is on counts. */
	assert_int_equal(umn_register(u.fd, p + 2 * PAGE - 1, 0, 1), 0);
	assert_int_equal(pages_unmap(p + 2 * PAGE, 1), 0);
	assert_int_equal(pages_unmap(p, 1), 0);
	assert_int_equal(umn_counter(&u), 0);
	assert_int_equal(pages_unmap(p + PAGE, 1), 0);
	assert_int_equal(umn_counter(&u), 1);
	assert_int_equal(umn_read(u.fd, e, 2), 2);
	assert_int_equal(e[0].user_cookie_counter, 1);
	assert_int_equal(e[0].hint_start, (uintptr_t)p + 2 * PAGE - 1);
	expect_last(&e[1], 1);
	umn_stop(&u);
}

/* Who passes the last byte as the end does so for no bytes at all, too. */
CASE(end_before_start)
{
	struct ummunotify_event e[2];
	struct umn u;
	char *p;

	start(&u);
	p = pages_map(2);
	assert_non_null(p);
	assert_int_equal(umn_register(u.fd, p + PAGE, -1, 4), 0);
	assert_int_equal(umn_register(u.fd, (void *)-PAGE, 2 * PAGE, 5), 0);
	assert_int_equal(pages_unmap(p, 1), 0);
	assert_int_equal(umn_counter(&u), 0);
	assert_int_equal(pages_unmap(p + PAGE, 1), 0);
	assert_int_equal(umn_read(u.fd, e, 2), 2);
	assert_int_equal(e[0].user_cookie_counter, 4);
	assert_int_equal(e[0].hint_start, (uintptr_t)p + PAGE);
	expect_last(&e[1], 1);
	/* Any other range will do, mapped or not. */
	assert_int_equal(umn_register(u.fd, NULL, 0, 1), 0);
	assert_int_equal(umn_register(u.fd, NULL, -1, 2), 0);
	assert_int_equal(umn_register(u.fd, (void *)-1, 0, 3), 0);
	umn_stop(&u);
}

CASE(hint_is_clipped_to_the_watch)
{
	struct ummunotify_event e[2];
	struct umn u;
	char *p;

	start(&u);
	p = pages_map(3);
	assert_non_null(p);
	assert_int_equal(umn_register(u.fd, p + 100, PAGE, 1), 0);
	assert_int_equal(pages_unmap(p + PAGE, 2), 0);
	assert_int_equal(umn_read(u.fd, e, 2), 2);
	expect_inval(&e[0], 1, p + PAGE, 100, true);
	pages_unmap(p, 1);
	umn_stop(&u);
}

CASE(overlapping_watches_all_report)
{
	struct ummunotify_event e[8];
	uint64_t last = 0;
	unsigned int seen = 0;
	struct umn u;
	char *p;
	int i;

	start(&u);
	p = pages_map(4);
	assert_non_null(p);
	assert_int_equal(umn_register(u.fd, p, 4 * PAGE, 0), 0);
	assert_int_equal(umn_register(u.fd, p, 4 * PAGE, 1), 0);
	assert_int_equal(umn_register(u.fd, p + PAGE, PAGE, 2), 0);
	assert_int_equal(umn_register(u.fd, p + PAGE - 1, 2, 3), 0);
	assert_int_equal(umn_register(u.fd, p, PAGE, 4), 0);
	assert_int_equal(umn_register(u.fd, p + 2 * PAGE, PAGE, 5), 0);
	assert_int_equal(pages_unmap(p + PAGE, 1), 0);
	/* One event of the kernel counts once, however many watches it hits. */
	assert_int_equal(umn_counter(&u), 1);
	assert_int_equal(umn_drain(u.fd, e, 8, &last), 4);
	assert_int_equal(last, 1);
	for (i = 0; i < 4; i++)
		seen |= 1u << e[i].user_cookie_counter;
	assert_int_equal(seen, 0xf);
	pages_unmap(p, 4);
	umn_stop(&u);
}

CASE(hits_coalesce)
{
	struct ummunotify_event e[3];
	struct umn u;
	char *p;

	start(&u);
	p = pages_map(4);
	assert_non_null(p);
	assert_int_equal(umn_register(u.fd, p, 4 * PAGE, 1), 0);
	assert_int_equal(pages_unmap(p + PAGE, 1), 0);
	assert_int_equal(pages_unmap(p + 2 * PAGE, 1), 0);
	assert_int_equal(umn_counter(&u), 2);
	assert_int_equal(umn_read(u.fd, e, 3), 2);
	expect_inval(&e[0], 1, p, 4 * PAGE, false);
	expect_last(&e[1], 2);

	/* Still armed, and exact again. */
	assert_int_equal(pages_unmap(p + 3 * PAGE, 1), 0);
	assert_int_equal(umn_counter(&u), 3);
	assert_int_equal(umn_read(u.fd, e, 3), 2);
	expect_inval(&e[0], 1, p + 3 * PAGE, PAGE, true);
	expect_last(&e[1], 3);
	pages_unmap(p, 1);
	umn_stop(&u);
}

CASE(unregister_takes_the_report_along)
{
	struct ummunotify_event e[3];
	struct umn u;
	char *p;

	start(&u);
	p = pages_map(2);
	assert_non_null(p);
	assert_int_equal(umn_register(u.fd, p, PAGE, 1), 0);
	assert_int_equal(umn_register(u.fd, p, 2 * PAGE, 2), 0);
	assert_int_equal(umn_register(u.fd, p, PAGE, 3), 0);
	assert_int_equal(pages_unmap(p, 2), 0);
	assert_int_equal(umn_unregister(u.fd, 1), 0);
	assert_int_equal(umn_unregister(u.fd, 3), 0);
	assert_int_equal(umn_read(u.fd, e, 3), 2);
	expect_inval(&e[0], 2, p, 2 * PAGE, true);
	expect_last(&e[1], 1);

	assert_int_equal(umn_register(u.fd, p, PAGE, 1), 0);
	assert_int_equal(umn_drain(u.fd, e, 3, NULL), 0);
	umn_stop(&u);
}

/* What leaves pinned pages right is no longer reported as in 2010. */
CASE(harmless_kinds_are_filtered)
{
	struct umn u;
	pid_t child;
	char *p;

	start(&u);
	p = pages_map(1);
	assert_non_null(p);
	assert_int_equal(umn_register(u.fd, p, PAGE, 1), 0);
	assert_int_equal(mprotect(p, PAGE, PROT_READ), 0);
	assert_int_equal(mprotect(p, PAGE, PROT_READ | PROT_WRITE), 0);
	child = fork();
	if (!child)
		_exit(0);
	assert_int_equal(child_result(child), 0);
	assert_int_equal(umn_counter(&u), 0);
	assert_int_equal(umn_drain(u.fd, NULL, 0, NULL), 0);
	assert_int_equal(pages_unmap(p, 1), 0);
	assert_int_equal(umn_counter(&u), 1);
	umn_stop(&u);
}

static int without_legacy_filter(void **state)
{
	(void)state;
	return module_reload("legacy_filter=0");
}

static int with_defaults(void **state)
{
	(void)state;
	return module_reload("");
}

/* Unless one wants it: then every kind is. */
CASE_IN(all_kinds_are_reported, without_legacy_filter, with_defaults)
{
	struct umn u;
	pid_t child;
	char *p;

	start(&u);
	p = pages_map(1);
	assert_non_null(p);
	assert_int_equal(umn_register(u.fd, p, PAGE, 1), 0);
	assert_int_equal(mprotect(p, PAGE, PROT_READ), 0);
	assert_int_equal(umn_counter(&u), 1);
	assert_int_equal(umn_drain(u.fd, NULL, 0, NULL), 1);
	assert_int_equal(mprotect(p, PAGE, PROT_READ | PROT_WRITE), 0);
	assert_int_equal(umn_counter(&u), 2);
	assert_int_equal(umn_drain(u.fd, NULL, 0, NULL), 1);

	child = fork();
	if (!child)
		_exit(0);
	assert_int_equal(child_result(child), 0);
	assert_int_equal(umn_counter(&u), 3);
	assert_int_equal(umn_drain(u.fd, NULL, 0, NULL), 1);
	pages_unmap(p, 1);
	umn_stop(&u);
}

CASE(bad_pointers)
{
	struct ummunotify_register_ioctl *r;
	void *bad[] = {NULL, (void *)PAGE, NULL};
	uint32_t mask = 0;
	struct umn u;
	size_t i;
	char *p;

	p = pages_map(2);
	assert_non_null(p);
	assert_int_equal(mprotect(p + PAGE, PAGE, PROT_NONE), 0);
	bad[2] = p + PAGE - 2;
	start(&u);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		const unsigned long requests[] = {
			UMMUNOTIFY_EXCHANGE_FEATURES,
			UMMUNOTIFY_QUERY,
			UMMUNOTIFY_REGISTER_REGION,
			UMMUNOTIFY_UNREGISTER_REGION,
			UMMUNOT_REGISTER_REGION,
			UMMUNOT_UNREGISTER_REGION,
		};
		size_t k;

		for (k = 0; k < sizeof(requests) / sizeof(requests[0]); k++) {
			errno = 0;
			assert_int_equal(ioctl(u.fd, requests[k], bad[i]), -1);
			assert_int_equal(errno, EFAULT);
		}
	}
	/* A mask that cannot be read is no exchange. */
	assert_int_equal(umn_exchange(u.fd, &mask), 0);
	/* The argument may end exactly where its page does. */
	r = (void *)(p + PAGE - sizeof(*r));
	*r = (struct ummunotify_register_ioctl){.start = PAGE, .end = 2 * PAGE};
	assert_int_equal(ioctl(u.fd, UMMUNOTIFY_REGISTER_REGION, r), 0);
	pages_unmap(p, 2);
	umn_stop(&u);
}

CASE(what_is_not_there)
{
	char buffer[256] = {};
	struct iovec vector = {buffer, sizeof(buffer)};
	struct umn u;
	int n;

	start(&u);
	for (n = 7; n < 256; n++) {
		assert_int_equal(ioctl(u.fd, _IO('U', n), buffer), -1);
		assert_int_equal(errno, ENOTTY);
	}
	assert_int_equal(ioctl(u.fd, _IOWR('U', 1, __u64), buffer), -1);
	assert_int_equal(errno, ENOTTY);
	assert_int_equal(ioctl(u.fd,
			       _IOW('V', 2, struct ummunotify_register_ioctl),
			       buffer),
			 -1);
	assert_int_equal(errno, ENOTTY);
	assert_int_equal(write(u.fd, buffer, sizeof(buffer)), -1);
	assert_int_equal(errno, EBADF);
	assert_int_equal(writev(u.fd, &vector, 1), -1);
	assert_int_equal(errno, EBADF);
	assert_int_equal(pread(u.fd, buffer, sizeof(buffer), 0), -1);
	assert_int_equal(errno, ESPIPE);
	assert_int_equal(lseek(u.fd, 0, SEEK_SET), -1);
	assert_int_equal(errno, ESPIPE);
	umn_stop(&u);
}

int main(void)
{
	return run_cases(NULL, NULL);
}
