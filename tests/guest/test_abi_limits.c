/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Many watches, the module's limits, and what fdinfo and the parameters show.
 * The module is loaded anew with small limits.
 */
#include "module.h"
#include "support.h"
#include "umn.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MANY 100000

static void parameters_can_be_read_by_all(void **state)
{
	static const char *const names[] = {"max_watches", "max_watches_total"};
	char path[128];
	struct stat st;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), UMN_PARAMETERS "%s", names[i]);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_mode & 07777, 0444);
		assert_true(umn_parameter(names[i]) > 0);
	}
	assert_int_equal(stat(UMN_DEVICE, &st), 0);
	assert_true(S_ISCHR(st.st_mode));
	assert_int_equal(st.st_mode & 07777, 0666);
}

static void a_hundred_thousand(void **state)
{
	static struct ummunotify_event e[MANY];
	static struct ummunotify_watch_ioctl w[MANY];
	static bool seen[MANY];
	struct ummunotify_query_ioctl q;
	uint64_t last = 0;
	struct umn u;
	char *p;
	int i;

	(void)state;
	assert_int_equal(umn_start(&u, UMN_ALL), 0);
	p = mmap(NULL, MANY * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	for (i = 0; i < MANY; i++)
		assert_int_equal(
			umn_watch(u.fd, p + i * PAGE, PAGE, i, 0, &w[i]), 0);
	assert_int_equal(umn_query(u.fd, &q), 0);
	assert_int_equal(q.watches, MANY);
	assert_int_equal(munmap(p, MANY * PAGE), 0);
	assert_int_equal(umn_counter(&u), 1);
	for (i = 0; i < MANY; i++)
		assert_int_equal(umn_word(&u, w[i].slot),
				 w[i].state | UMMUNOTIFY_KIND_UNMAP);
	assert_int_equal(umn_fdinfo(u.fd, "ummunotify-pending"), MANY);
	assert_int_equal(umn_drain(u.fd, e, MANY, &last), MANY);
	assert_int_equal(last, 1);
	for (i = 0; i < MANY; i++) {
		uint64_t cookie = e[i].user_cookie_counter;

		assert_true(cookie < MANY);
		assert_false(seen[cookie]);
		seen[cookie] = true;
		assert_int_equal(e[i].hint_start, (uintptr_t)p + cookie * PAGE);
		assert_int_equal(e[i].hint_end, e[i].hint_start + PAGE);
	}
	/* Half of them one by one, the rest with the file. */
	for (i = 0; i < MANY; i += 2)
		assert_int_equal(umn_unregister(u.fd, i), 0);
	assert_int_equal(umn_query(u.fd, &q), 0);
	assert_int_equal(q.watches, MANY / 2);
	umn_stop(&u);
}

/* ---- fdinfo ------------------------------------------------------------------ */

struct counts {
	unsigned long long hit, miss;
	long long filtered;
};

static struct counts counts(int fd, const char *kind)
{
	struct counts c = {.filtered = -1};
	char path[64], line[256], format[64];
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	snprintf(format, sizeof(format), "ummunotify-%s:", kind);
	f = fopen(path, "re");
	assert_non_null(f);
	while (!found && fgets(line, sizeof(line), f))
		found = !strncmp(line, format, strlen(format)) &&
			sscanf(line + strlen(format),
			       " hit %llu miss %llu filtered %lld", &c.hit,
			       &c.miss, &c.filtered) == 3;
	fclose(f);
	assert_true(found);
	return c;
}

static void fdinfo_adds_up(void **state)
{
	static const char *const kinds[] = {"unmap",	  "clear",
					    "protection", "soft_dirty",
					    "migrate",	  "other"};
	struct ummunotify_watch_ioctl w;
	struct counts before, after;
	struct umn u;
	size_t i;
	char *p;

	(void)state;
	assert_int_equal(umn_start(&u, UMN_ALL), 0);
	p = pages_map(4);
	assert_non_null(p);
	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		assert_int_equal(counts(u.fd, kinds[i]).hit, 0);
	assert_int_equal(umn_fdinfo(u.fd, "ummunotify-features"), UMN_ALL);
	assert_int_equal(umn_fdinfo(u.fd, "ummunotify-watches"), 0);
	assert_int_equal(umn_fdinfo(u.fd, "ummunotify-max-watches"),
			 umn_parameter("max_watches"));

	assert_int_equal(umn_watch(u.fd, p, 2 * PAGE, 1, 0, &w), 0);
	assert_int_equal(umn_register(u.fd, p, PAGE, 2), 0);
	assert_int_equal(umn_fdinfo(u.fd, "ummunotify-watches"), 2);
	assert_int_equal(umn_fdinfo(u.fd, "ummunotify-pending"), 0);
	assert_int_equal(umn_fdinfo(u.fd, "ummunotify-generation"), 0);

	before = counts(u.fd, "protection");
	assert_int_equal(mprotect(p, PAGE, PROT_READ), 0);
	after = counts(u.fd, "protection");
	assert_int_equal(after.hit, 0);
	assert_int_equal(after.filtered, before.filtered + 1);
	assert_int_equal(umn_fdinfo(u.fd, "ummunotify-generation"), 0);

	/* One event that hits both, one that hits one, one that hits none. */
	assert_int_equal(pages_unmap(p, 1), 0);
	assert_int_equal(counts(u.fd, "unmap").hit, 1);
	assert_int_equal(umn_fdinfo(u.fd, "ummunotify-pending"), 2);
	assert_int_equal(madvise(p + PAGE, PAGE, MADV_DONTNEED), 0);
	assert_int_equal(counts(u.fd, "clear").hit, 1);
	before = counts(u.fd, "clear");
	assert_int_equal(madvise(p + 2 * PAGE, PAGE, MADV_DONTNEED), 0);
	after = counts(u.fd, "clear");
	assert_int_equal(after.hit, 1);
	assert_int_equal(after.miss, before.miss + 1);
	assert_int_equal(umn_fdinfo(u.fd, "ummunotify-generation"),
			 umn_counter(&u));

	assert_int_equal(umn_drain(u.fd, NULL, 0, NULL), 2);
	assert_int_equal(umn_fdinfo(u.fd, "ummunotify-pending"), 0);
	assert_int_equal(umn_unregister(u.fd, 1), 0);
	assert_int_equal(umn_fdinfo(u.fd, "ummunotify-watches"), 1);
	assert_int_equal(umn_fdinfo(u.fd, "ummunotify-late"), 0);
	pages_unmap(p, 4);
	umn_stop(&u);
}

/* ---- the module, loaded anew ---------------------------------------------------- */

/* Closed by the tear-down too: open files keep the module. */
static struct umn a = {.fd = -1}, b = {.fd = -1};

static int set_defaults(void **state)
{
	(void)state;
	umn_stop(&a);
	umn_stop(&b);
	return module_reload("");
}

static int set_small(void **state)
{
	(void)state;
	return module_reload("max_watches=8 max_watches_total=12");
}

static void a_file_has_its_limit(void **state)
{
	struct ummunotify_watch_ioctl w[8], more;
	struct ummunotify_query_ioctl q;
	int i;

	(void)state;
	assert_int_equal(umn_start(&a, UMN_ALL), 0);
	assert_int_equal(umn_query(a.fd, &q), 0);
	assert_int_equal(q.max_watches, 8);
	assert_int_equal(a.state_bytes, PAGE);
	for (i = 0; i < 8; i++) {
		if (i & 1)
			assert_int_equal(
				umn_register(a.fd, (void *)PAGE, PAGE, i), 0);
		else
			assert_int_equal(umn_watch(a.fd, (void *)PAGE, PAGE, i,
						   0, &w[i]),
					 0);
	}
	assert_int_equal(umn_register(a.fd, (void *)PAGE, PAGE, 8), -ENOSPC);
	assert_int_equal(umn_watch(a.fd, (void *)PAGE, PAGE, 8, 0, &more),
			 -ENOSPC);
	/* A refused one has left no trace. */
	assert_int_equal(umn_unregister(a.fd, 8), -EINVAL);
	assert_true(umn_clean(&a, w[0].slot, w[0].state));
	assert_int_equal(umn_query(a.fd, &q), 0);
	assert_int_equal(q.watches, 8);

	assert_int_equal(umn_unregister(a.fd, 3), 0);
	assert_int_equal(umn_watch(a.fd, (void *)PAGE, PAGE, 8, 0, &more), 0);
	assert_int_equal(umn_register(a.fd, (void *)PAGE, PAGE, 9), -ENOSPC);
	assert_int_equal(umn_unregister(a.fd, 0), 0);
	assert_int_equal(umn_register(a.fd, (void *)PAGE, PAGE, 9), 0);
	umn_stop(&a);
}

/* All slots can be used, again and again. */
static void slots_do_not_leak(void **state)
{
	struct ummunotify_watch_ioctl w;
	int round, i;

	(void)state;
	assert_int_equal(umn_start(&a, UMN_ALL), 0);
	for (round = 0; round < 50; round++) {
		for (i = 0; i < 8; i++)
			assert_int_equal(
				umn_watch(a.fd, (void *)PAGE, PAGE, i, 0, &w),
				0);
		assert_int_equal(umn_watch(a.fd, (void *)PAGE, PAGE, 8, 0, &w),
				 -ENOSPC);
		assert_int_equal(umn_watch(a.fd, (void *)PAGE, 0, 9, 0, &w),
				 -EINVAL);
		for (i = 0; i < 8; i++)
			assert_int_equal(umn_unregister(a.fd, i), 0);
		for (i = 0; i < 8; i++) {
			assert_int_equal(umn_watch(a.fd, (void *)PAGE, PAGE, 1,
						   UMMUNOTIFY_WATCH_CACHEABLE,
						   &w),
					 -EOPNOTSUPP);
			assert_int_equal(
				umn_watch(a.fd, (void *)PAGE, PAGE, 1, 0, &w),
				0);
			assert_int_equal(
				umn_watch(a.fd, (void *)PAGE, PAGE, 1, 0, &w),
				-EEXIST);
			assert_int_equal(umn_unregister(a.fd, 1), 0);
		}
	}
	umn_stop(&a);
}

static void all_files_share_a_limit(void **state)
{
	int i;

	(void)state;
	assert_int_equal(umn_start(&a, 0), 0);
	assert_int_equal(umn_start(&b, 0), 0);
	for (i = 0; i < 8; i++)
		assert_int_equal(umn_register(a.fd, (void *)PAGE, PAGE, i), 0);
	for (i = 0; i < 4; i++)
		assert_int_equal(umn_register(b.fd, (void *)PAGE, PAGE, i), 0);
	assert_int_equal(umn_register(b.fd, (void *)PAGE, PAGE, 4), -ENOSPC);
	assert_int_equal(umn_unregister(a.fd, 0), 0);
	assert_int_equal(umn_register(b.fd, (void *)PAGE, PAGE, 4), 0);
	assert_int_equal(umn_register(b.fd, (void *)PAGE, PAGE, 5), -ENOSPC);
	/* What a file held is free when it is closed. */
	umn_stop(&a);
	for (i = 5; i < 8; i++)
		assert_int_equal(umn_register(b.fd, (void *)PAGE, PAGE, i), 0);
	umn_stop(&b);
}

/* The module stays while a file is open or one of its pages is mapped. */
static void in_use_it_cannot_be_unloaded(void **state)
{
	(void)state;
	assert_int_equal(umn_start(&a, UMN_ALL), 0);
	assert_int_equal(module_unload(), -EWOULDBLOCK);
	assert_int_equal(close(a.fd), 0);
	a.fd = -1;
	assert_int_equal(module_unload(), -EWOULDBLOCK);
	umn_stop(&a);
	assert_int_equal(module_unload(), 0);
	assert_int_equal(umn_open(O_RDONLY), -ENOENT);
}

static void odd_limits_are_refused(void **state)
{
	(void)state;
	assert_int_equal(module_unload(), 0);
	assert_int_equal(module_load("max_watches=0"), -EINVAL);
	assert_int_equal(module_load("max_watches=4294967295"), -EINVAL);
	assert_int_equal(module_load("max_watches=-1"), -EINVAL);
	assert_int_equal(module_load("max_watches=1"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parameters_can_be_read_by_all),
		cmocka_unit_test(a_hundred_thousand),
		cmocka_unit_test(fdinfo_adds_up),
		cmocka_unit_test_setup_teardown(a_file_has_its_limit, set_small,
						set_defaults),
		cmocka_unit_test_setup_teardown(slots_do_not_leak, set_small,
						set_defaults),
		cmocka_unit_test_setup_teardown(all_files_share_a_limit,
						set_small, set_defaults),
		cmocka_unit_test_setup_teardown(in_use_it_cannot_be_unloaded,
						set_small, set_defaults),
		cmocka_unit_test_setup_teardown(odd_limits_are_refused,
						set_defaults, set_defaults),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
