/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Programs compiled for the 2009 header work: its ioctl numbers and version
 * check, alone and mixed with the calls of 2010.
 */
#include "case.h"
#include "support.h"
#include "umn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ummunot.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

static int add(const struct umn *u, const void *start, size_t length,
	       uint64_t cookie)
{
	uint32_t version = 1;

	return umn_ummunot_register(u->fd, &version, start, length, cookie);
}

CASE(numbers)
{
	assert_int_equal(UMMUNOT_REGISTER_REGION, 0xc0205501);
	assert_int_equal(UMMUNOT_UNREGISTER_REGION, 0x40085502);
	assert_int_equal(UMMUNOTIFY_EXCHANGE_FEATURES, 0xc0045501);
	assert_int_equal(UMMUNOTIFY_REGISTER_REGION, 0x40205502);
	assert_int_equal(UMMUNOTIFY_UNREGISTER_REGION, 0x40085503);
}

CASE(register_read_unregister)
{
	struct ummunot_event e[3];
	struct umn u;
	char *p;

	assert_int_equal(umn_start(&u, 0), 0);
	p = pages_map(3);
	assert_non_null(p);
	assert_int_equal(add(&u, p, 3 * PAGE, 7), 0);
	assert_int_equal(umn_counter(&u), 0);
	assert_int_equal(pages_unmap(p + PAGE, 1), 0);
	assert_int_equal(umn_counter(&u), 1);
	assert_int_equal(umn_read(u.fd, e, 3), 2);
	assert_int_equal(e[0].type, UMMUNOT_EVENT_TYPE_INVAL);
	assert_int_equal(e[0].flags, UMMUNOT_EVENT_FLAG_HINT);
	assert_int_equal(e[0].hint_start, (uintptr_t)p + PAGE);
	assert_int_equal(e[0].hint_end, (uintptr_t)p + 2 * PAGE);
	assert_int_equal(e[0].user_cookie_counter, 7);
	assert_int_equal(e[1].type, UMMUNOT_EVENT_TYPE_LAST);
	assert_int_equal(e[1].user_cookie_counter, 1);
	assert_int_equal(umn_ummunot_unregister(u.fd, 7), 0);
	assert_int_equal(umn_ummunot_unregister(u.fd, 7), -EINVAL);
	assert_int_equal(pages_unmap(p, 3), 0);
	assert_int_equal(umn_counter(&u), 1);
	umn_stop(&u);
}

CASE(version_must_be_1)
{
	static const uint32_t wrong[] = {0, 2, 0x01000000, UINT32_MAX};
	uint32_t version;
	struct umn u;
	size_t i;

	assert_int_equal(umn_start(&u, 0), 0);
	for (i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		version = wrong[i];
		assert_int_equal(umn_ummunot_register(u.fd, &version,
						      (void *)PAGE, PAGE, 1),
				 -EINVAL);
		assert_int_equal(version, 1);
		assert_int_equal(umn_ummunot_unregister(u.fd, 1), -EINVAL);
	}
	umn_stop(&u);
}

/* A version that cannot be written back is EFAULT, not EINVAL. */
CASE(version_in_read_only_memory)
{
	struct ummunot_register_ioctl *r;
	struct umn u;

	assert_int_equal(umn_start(&u, 0), 0);
	r = (void *)pages_map(1);
	assert_non_null(r);
	r->intf_version = 3;
	assert_int_equal(mprotect(r, PAGE, PROT_READ), 0);
	assert_int_equal(ioctl(u.fd, UMMUNOT_REGISTER_REGION, r), -1);
	assert_int_equal(errno, EFAULT);
	assert_int_equal(r->intf_version, 3);
	pages_unmap(r, 1);
	umn_stop(&u);
}

CASE(ranges_and_cookies)
{
	struct umn u;

	assert_int_equal(umn_start(&u, 0), 0);
	assert_int_equal(add(&u, (void *)(2 * PAGE), -PAGE, 2), 0);
	assert_int_equal(add(&u, (void *)(2 * PAGE), 0, 1), 0);
	assert_int_equal(add(&u, (void *)(4 * PAGE), PAGE, 1), -EINVAL);
	umn_stop(&u);
}

CASE(both_interfaces_share_the_watches)
{
	struct umn u;

	assert_int_equal(umn_start(&u, 0), 0);
	assert_int_equal(add(&u, (void *)PAGE, PAGE, 1), 0);
	assert_int_equal(umn_register(u.fd, (void *)PAGE, PAGE, 1), -EINVAL);
	assert_int_equal(umn_register(u.fd, (void *)PAGE, PAGE, 2), 0);
	assert_int_equal(add(&u, (void *)PAGE, PAGE, 2), -EINVAL);
	assert_int_equal(umn_unregister(u.fd, 1), 0);
	assert_int_equal(umn_ummunot_unregister(u.fd, 2), 0);
	umn_stop(&u);
}

CASE(a_program_of_2009_cannot_negotiate_afterwards)
{
	uint32_t mask = UMMUNOTIFY_FEATURES_MAGIC | UMN_ALL;
	struct umn u;

	assert_int_equal(umn_start(&u, 0), 0);
	assert_int_equal(add(&u, (void *)PAGE, PAGE, 1), 0);
	assert_int_equal(umn_exchange(u.fd, &mask), -EINVAL);
	umn_stop(&u);
}

/* The name is udev's to make, and the guest's. */
CASE(the_old_name)
{
	uint32_t version = 1;
	int fd;

	fd = open("/dev/ummunot", O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(
		umn_ummunot_register(fd, &version, (void *)PAGE, PAGE, 1), 0);
	close(fd);
}

int main(void)
{
	return run_cases(NULL, NULL);
}
