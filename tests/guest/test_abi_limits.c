/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Many watches, the module's limits, and what fdinfo and the parameters show.
 * The module is loaded anew with small limits.
 */
#include "case.h"
#include "module.h"
#include "support.h"
#include "umn.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MANY 100000

CASE(parameters_can_be_read_by_all)
{
	static const char *const names[] = {"max_watches", "max_watches_user",
					    "max_watches_total"};
	char path[128];
	struct stat st;
	size_t i;

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

CASE(a_hundred_thousand)
{
	static struct ummunotify_event e[MANY];
	static struct ummunotify_watch_ioctl w[MANY];
	static bool seen[MANY];
	struct ummunotify_query_ioctl q;
	uint64_t last = 0;
	struct umn u;
	char *p;
	int i;

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

CASE(fdinfo_adds_up)
{
	static const char *const kinds[] = {"unmap",	  "clear",
					    "protection", "soft_dirty",
					    "migrate",	  "other"};
	struct ummunotify_watch_ioctl w;
	struct counts before, after;
	struct umn u;
	size_t i;
	char *p;

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
	/* Who was told is not hit again. */
	assert_int_equal(counts(u.fd, "clear").hit, 0);
	before = counts(u.fd, "clear");
	assert_int_equal(madvise(p + 2 * PAGE, PAGE, MADV_DONTNEED), 0);
	after = counts(u.fd, "clear");
	assert_int_equal(after.hit, 0);
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
	return module_reload("max_watches=8");
}

/* Enough for some files and their pages, and some watches more. */
#define FEW    (400 * (int)(PAGE / 4096))
#define PLENTY (1000 * (int)(PAGE / 4096))

/* With limits of so many watches for a file, a user and in all. */
static int reload_limited(int file, int user, int total)
{
	char text[128];

	snprintf(text, sizeof(text),
		 "max_watches=%d max_watches_user=%d max_watches_total=%d",
		 file, user, total);
	return module_reload(text);
}

static int set_total(void **state)
{
	(void)state;
	return reload_limited(PLENTY, 3 << 19, FEW);
}

static int set_user(void **state)
{
	(void)state;
	return reload_limited(PLENTY, FEW, 16 << 20);
}

static int set_both(void **state)
{
	(void)state;
	return reload_limited(PLENTY, PLENTY, FEW);
}

CASE_IN(a_file_has_its_limit, set_small, set_defaults)
{
	struct ummunotify_watch_ioctl w[8], more;
	struct ummunotify_query_ioctl q;
	int i;

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
CASE_IN(slots_do_not_leak, set_small, set_defaults)
{
	struct ummunotify_watch_ioctl w;
	int round, i;

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

/* Makes watches from cookie `from` on until one is refused: how many. */
static int fill(struct umn *u, int from)
{
	int ret, i;

	for (i = 0; !(ret = umn_register(u->fd, (void *)PAGE, PAGE, from + i));
	     i++)
		;
	return ret == -ENOSPC ? i : ret;
}

CASE_IN(all_files_share_a_limit, set_total, set_defaults)
{
	long held;
	int i, n;

	assert_int_equal(umn_start(&a, 0), 0);
	assert_int_equal(umn_start(&b, 0), 0);
	for (i = 0; i < 8; i++)
		assert_int_equal(umn_register(a.fd, (void *)PAGE, PAGE, i), 0);
	n = fill(&b, 0);
	assert_true(n > 0);
	/* All that both hold, and the address space, of which less than 64. */
	held = umn_fdinfo(a.fd, "ummunotify-holds") +
	       umn_fdinfo(b.fd, "ummunotify-holds");
	assert_true(held > 2 * 64 + 8 + n);
	assert_true(held < FEW && held > FEW - 64);
	assert_int_equal(umn_unregister(a.fd, 0), 0);
	assert_int_equal(umn_register(b.fd, (void *)PAGE, PAGE, n), 0);
	assert_int_equal(umn_register(b.fd, (void *)PAGE, PAGE, n + 1),
			 -ENOSPC);
	/* What a file held is free when it is closed. */
	held = umn_fdinfo(a.fd, "ummunotify-holds");
	umn_stop(&a);
	assert_int_equal(fill(&b, n + 1), held);
	umn_stop(&b);
}

/* Pages count, too: of state words, and what is kept of ended watches. */
CASE_IN(everything_a_file_holds_counts, NULL, set_defaults)
{
	/* A page of state words, and a bit for each of them. */
	const int words = PAGE / sizeof(__u32), at_once = 16;
	const int unit = PAGE / 128 + words / 8 / 128;
	static struct ummunotify_watch_ioctl w;
	long of_user;
	long plain, first;
	int i;

	assert_int_equal(umn_start(&b, 0), 0);
	plain = umn_fdinfo(b.fd, "ummunotify-holds");
	assert_true(plain > 2 * (long)PAGE / 128);
	assert_int_equal(umn_start(&a, UMN_ALL), 0);
	first = umn_fdinfo(a.fd, "ummunotify-holds");
	of_user = umn_fdinfo(a.fd, "ummunotify-user-holds") - first;
	assert_true(first > plain);
	for (i = 0; i < words; i++)
		assert_int_equal(umn_watch(a.fd, (void *)PAGE, PAGE, i, 0, &w),
				 0);
	assert_int_equal(umn_fdinfo(a.fd, "ummunotify-holds"),
			 first + words + unit);
	/* A file that has many makes some at once. */
	assert_int_equal(umn_watch(a.fd, (void *)PAGE, PAGE, i, 0, &w), 0);
	assert_int_equal(umn_fdinfo(a.fd, "ummunotify-holds"),
			 first + words + at_once + 2 * unit);
	assert_int_equal(umn_fdinfo(a.fd, "ummunotify-user-holds"),
			 of_user + first + words + at_once + 2 * unit);
	assert_int_equal(umn_unregister(a.fd, 0), 0);
	assert_int_equal(umn_fdinfo(a.fd, "ummunotify-holds"),
			 first + words + at_once + 2 * unit);
	for (i = 1; i <= words; i++)
		assert_int_equal(umn_unregister(a.fd, i), 0);
	/* 64 are kept. */
	assert_int_equal(umn_fdinfo(a.fd, "ummunotify-holds"),
			 first + 64 + 2 * unit);
	umn_stop(&a);
	umn_stop(&b);
}

/* What ends is given back, also by a file that has taken all there was. */
CASE_IN(what_ends_at_the_limit_is_given_back, set_total, set_defaults)
{
	static struct ummunotify_watch_ioctl w;
	int i = 0, n;

	assert_int_equal(umn_start(&b, 0), 0);
	assert_int_equal(umn_start(&a, UMN_ALL), 0);
	while (!umn_watch(a.fd, (void *)PAGE, PAGE, i, 0, &w))
		i++;
	assert_true(i > 100);
	assert_int_equal(umn_register(b.fd, (void *)PAGE, PAGE, 1), -ENOSPC);
	for (n = 0; n < i; n++)
		assert_int_equal(umn_unregister(a.fd, n), 0);
	assert_int_equal(umn_register(b.fd, (void *)PAGE, PAGE, 1), 0);
	for (n = 0; n < i - 1; n++)
		assert_int_equal(umn_watch(a.fd, (void *)PAGE, PAGE, n, 0, &w),
				 0);
	umn_stop(&a);
	umn_stop(&b);
}

/* ---- users ------------------------------------------------------------------- */

/* In children nothing can be asserted: they say what is wrong and return 1. */
#define WANT(condition)                                                  \
	do {                                                             \
		if (!(condition)) {                                      \
			fprintf(stderr, "%s:%d: wrong in a child: %s\n", \
				__FILE__, __LINE__, #condition);         \
			return 1;                                        \
		}                                                        \
	} while (0)

/* The user fills what is its own, and then another finds its own free. */
struct users {
	uid_t uid;
	int from[2]; /* a byte when it is full; it ends when this is closed */
	int to[2];
};

static int become(uid_t uid)
{
	return setresgid(uid, uid, uid) || setresuid(uid, uid, uid) ? -errno
								    : 0;
}

static int fill_as(struct users *users)
{
	struct umn u, more;
	char byte;

	WANT(!become(users->uid));
	WANT(!umn_start(&u, 0));
	WANT(fill(&u, 0) > 0);
	/* No more by another file, nor by a process of its own. */
	WANT(umn_start(&more, 0) == -ENOSPC);
	close(users->to[1]);
	WANT(put_byte(users->from[1], 'x'));
	get_byte(users->to[0], &byte);
	return 0;
}

static int watch_as(void *argument)
{
	const uid_t *uid = argument;
	struct umn u;

	WANT(!become(*uid));
	WANT(!umn_start(&u, 0));
	WANT(!umn_register(u.fd, (void *)PAGE, PAGE, 1));
	umn_stop(&u);
	return 0;
}

/* A child that does this; when it has put its first byte. */
static pid_t fill_in_child(struct users *users, int (*f)(struct users *users))
{
	pid_t child;
	char byte;

	assert_int_equal(pipe(users->from), 0);
	assert_int_equal(pipe(users->to), 0);
	child = fork();
	assert_true(child >= 0);
	if (!child)
		_exit(f(users));
	close(users->from[1]);
	assert_true(get_byte(users->from[0], &byte));
	return child;
}

/* In the namespace that it has made there are two users, and it goes on. */
static void map_users(struct users *users, pid_t child)
{
	static const char map[] = "0 65534 1\n1 100000 1\n";
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/uid_map", child);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, map, strlen(map)), strlen(map));
	close(fd);
	assert_true(put_byte(users->to[1], 'x'));
}

static void end_child(struct users *users, pid_t child)
{
	close(users->to[1]);
	close(users->to[0]);
	assert_int_equal(child_result(child), 0);
	close(users->from[0]);
}

CASE_IN(a_user_has_its_limit, set_user, set_defaults)
{
	struct users users = {.uid = 65534};
	uid_t other = 65533;
	pid_t child;

	child = fill_in_child(&users, fill_as);
	assert_int_equal(in_child(watch_as, &other), 0);
	assert_int_not_equal(in_child(watch_as, &users.uid), 0);
	/* CAP_SYS_RESOURCE is above it. */
	assert_int_equal(umn_start(&a, 0), 0);
	assert_int_equal(umn_start(&b, 0), 0);
	assert_int_equal(umn_register(a.fd, (void *)PAGE, PAGE, 1), 0);
	umn_stop(&a);
	umn_stop(&b);
	end_child(&users, child);
	/* What it held is free. */
	assert_int_equal(in_child(watch_as, &users.uid), 0);
}

/* In a namespace of its own it is the same user, whoever it is there. */
static int fill_and_leave(struct users *users)
{
	struct umn u, more;
	char byte;

	WANT(!become(users->uid));
	WANT(!umn_start(&u, 0));
	WANT(fill(&u, 0) > 0);
	WANT(!unshare(CLONE_NEWUSER));
	WANT(put_byte(users->from[1], 'x'));
	WANT(get_byte(users->to[0], &byte));
	WANT(!setresuid(1, 1, 1));
	WANT(umn_start(&more, 0) == -ENOSPC);
	return 0;
}

CASE_IN(a_namespace_gives_no_more, set_user, set_defaults)
{
	struct users users = {.uid = 65534};
	uid_t outside = 100000;
	pid_t child;

	if (access("/proc/self/ns/user", F_OK))
		skip();
	child = fill_in_child(&users, fill_and_leave);
	/* That user has nothing to do with it elsewhere. */
	assert_int_equal(in_child(watch_as, &outside), 0);
	map_users(&users, child);
	end_child(&users, child);
}

/* Root makes namespaces for others: each user in one is who it is outside. */
static int fill_in_roots_namespace(struct users *users)
{
	struct umn u, more;
	char byte;

	WANT(!unshare(CLONE_NEWUSER));
	WANT(put_byte(users->from[1], 'x'));
	WANT(get_byte(users->to[0], &byte));
	WANT(!setresuid(0, 0, 0));
	WANT(!umn_start(&u, 0));
	WANT(fill(&u, 0) > 0);
	/* Its capabilities are for what is its own. */
	WANT(umn_start(&more, 0) == -ENOSPC);
	WANT(put_byte(users->from[1], 'x'));
	get_byte(users->to[0], &byte);
	umn_stop(&u);
	WANT(!setresuid(1, 1, 1));
	WANT(!umn_start(&u, 0));
	WANT(fill(&u, 0) > 0);
	WANT(put_byte(users->from[1], 'x'));
	get_byte(users->to[0], &byte);
	return 0;
}

CASE_IN(in_roots_namespace_each_has_its_own, set_user, set_defaults)
{
	struct users users = {.uid = 65534};
	uid_t first = 65534, second = 100000;
	pid_t child;
	char byte;

	if (access("/proc/self/ns/user", F_OK))
		skip();
	child = fill_in_child(&users, fill_in_roots_namespace);
	map_users(&users, child);

	/* Full is who it is outside; neither the other nor root is. */
	assert_true(get_byte(users.from[0], &byte));
	assert_int_not_equal(in_child(watch_as, &first), 0);
	assert_int_equal(in_child(watch_as, &second), 0);
	assert_true(put_byte(users.to[1], 'x'));

	assert_true(get_byte(users.from[0], &byte));
	assert_int_equal(in_child(watch_as, &first), 0);
	assert_int_not_equal(in_child(watch_as, &second), 0);
	assert_int_equal(umn_start(&a, 0), 0);
	assert_int_equal(umn_register(a.fd, (void *)PAGE, PAGE, 1), 0);
	umn_stop(&a);
	assert_true(put_byte(users.to[1], 'x'));
	end_child(&users, child);
}

CASE_IN(some_is_left_for_root, set_both, set_defaults)
{
	const int left = FEW / 16;
	struct users users = {.uid = 65534};
	uid_t other = 65533;
	pid_t child;

	assert_int_equal(umn_start(&a, 0), 0);
	child = fill_in_child(&users, fill_as);
	assert_int_not_equal(in_child(watch_as, &other), 0);
	assert_int_equal(fill(&a, 0), left);
	end_child(&users, child);
	umn_stop(&a);
}

/* ---- files ------------------------------------------------------------------- */

/* However many are opened, one address space has so many and no more. */
CASE(an_address_space_has_so_many_files)
{
	enum { FILES = 32 };
	struct umn u[FILES], more;
	int i, round;
	char *p;

	for (round = 0; round < 3; round++) {
		for (i = 0; i < FILES; i++)
			assert_int_equal(umn_start(&u[i], UMN_ALL), 0);
		assert_int_equal(umn_start(&more, 0), -ENOSPC);
		umn_stop(&u[round]);
		assert_int_equal(umn_start(&u[round], UMN_ALL), 0);
		assert_int_equal(umn_start(&more, 0), -ENOSPC);
		/* All of them are told. */
		p = pages_map(1);
		assert_non_null(p);
		for (i = 0; i < FILES; i++)
			assert_int_equal(umn_register(u[i].fd, p, PAGE, i), 0);
		assert_int_equal(pages_unmap(p, 1), 0);
		for (i = 0; i < FILES; i++) {
			assert_int_equal(umn_counter(&u[i]), 1);
			umn_stop(&u[i]);
		}
	}
}

/* The module stays while a file is open or one of its pages is mapped. */
CASE_IN(in_use_it_cannot_be_unloaded, set_small, set_defaults)
{
	assert_int_equal(umn_start(&a, UMN_ALL), 0);
	assert_int_equal(module_unload(), -EWOULDBLOCK);
	assert_int_equal(close(a.fd), 0);
	a.fd = -1;
	assert_int_equal(module_unload(), -EWOULDBLOCK);
	umn_stop(&a);
	assert_int_equal(module_unload(), 0);
	assert_int_equal(umn_open(O_RDONLY), -ENOENT);
}

CASE_IN(odd_limits_are_refused, set_defaults, set_defaults)
{
	assert_int_equal(module_unload(), 0);
	assert_int_equal(module_load("max_watches=0"), -EINVAL);
	assert_int_equal(module_load("max_watches=4294967295"), -EINVAL);
	assert_int_equal(module_load("max_watches=-1"), -EINVAL);
	assert_int_equal(module_load("max_watches=1"), 0);
}

int main(void)
{
	return run_cases(NULL, NULL);
}
