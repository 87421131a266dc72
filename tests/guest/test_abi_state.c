/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The features of today: what is granted, state words from WATCH to
 * UNREGISTER, one report until armed again, kinds in events, and the filter.
 */
#include "case.h"
#include "support.h"
#include "umn.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define COOKIE	 0xfeedfacecafef00dull
#define LOW_BITS (UMMUNOTIFY_STATE_KINDS | UMMUNOTIFY_STATE_FREE)
#define KINDS_OF(event)                              \
	(((event).flags & UMMUNOTIFY_EVENT_KINDS) >> \
	 UMMUNOTIFY_EVENT_KINDS_SHIFT)

/* A device with all features and one watch on one page. */
struct scene {
	struct umn u;
	struct ummunotify_watch_ioctl watch;
	char *page;
};

static void begin_with(struct scene *s, uint32_t features)
{
	assert_int_equal(umn_start(&s->u, features), 0);
	s->page = pages_map(1);
	assert_non_null(s->page);
	assert_int_equal(
		umn_watch(s->u.fd, s->page, PAGE, COOKIE, 0, &s->watch), 0);
}

static void begin(struct scene *s)
{
	begin_with(s, UMN_ALL);
}

static void finish(struct scene *s)
{
	umn_stop(&s->u);
	pages_unmap(s->page, 1);
}

/* Makes the page's contents go away; more than once if it is touched between. */
static void discard(struct scene *s)
{
	*(volatile char *)s->page = 1;
	assert_int_equal(madvise(s->page, PAGE, MADV_DONTNEED), 0);
}

static bool clean(const struct scene *s)
{
	return umn_clean(&s->u, s->watch.slot, s->watch.state);
}

CASE(only_known_bits_are_granted)
{
	struct ummunotify_query_ioctl query;
	uint32_t known, mask, bits;
	int fd;

	fd = umn_open(O_RDONLY);
	assert_int_equal(umn_query(fd, &query), 0);
	known = query.features;
	assert_int_equal(known & UMN_ALL, UMN_ALL);
	assert_int_equal(known & UMMUNOTIFY_FEATURES_MAGIC_MASK, 0);
	close(fd);

	for (bits = 0; bits <= UMN_ALL; bits++) {
		fd = umn_open(O_RDONLY);
		mask = UMMUNOTIFY_FEATURES_MAGIC | bits;
		assert_int_equal(umn_exchange(fd, &mask), 0);
		assert_int_equal(mask, UMMUNOTIFY_FEATURES_MAGIC | bits);
		assert_int_equal(umn_query(fd, &query), 0);
		assert_int_equal(query.granted, bits);
		close(fd);
	}

	fd = umn_open(O_RDONLY);
	mask = UMMUNOTIFY_FEATURES_MAGIC | 0xffff;
	assert_int_equal(umn_exchange(fd, &mask), 0);
	assert_int_equal(mask, UMMUNOTIFY_FEATURES_MAGIC | known);
	close(fd);
}

CASE(query_tells_limits_and_use)
{
	struct ummunotify_query_ioctl q;
	struct ummunotify_watch_ioctl watch;
	uint32_t mask = UMMUNOTIFY_FEATURES_MAGIC | UMN_ALL;
	int fd;

	fd = umn_open(O_RDONLY);
	assert_int_equal(umn_query(fd, &q), 0);
	assert_int_equal(q.granted, 0);
	assert_int_equal(q.watches, 0);
	assert_int_equal(q.max_watches, umn_parameter("max_watches"));
	assert_int_equal(q.state_offset, UMMUNOTIFY_STATE_OFFSET);
	assert_int_equal(q.state_bytes, 0);
	assert_int_equal(q.reserved[0] | q.reserved[1] | q.reserved[2], 0);

	assert_int_equal(umn_exchange(fd, &mask), 0);
	assert_int_equal(umn_watch(fd, (void *)PAGE, PAGE, 1, 0, &watch), 0);
	assert_int_equal(umn_register(fd, (void *)PAGE, PAGE, 2), 0);
	assert_int_equal(umn_query(fd, &q), 0);
	assert_int_equal(q.granted, UMN_ALL);
	assert_int_equal(q.watches, 2);
	assert_int_equal(q.max_watches, umn_parameter("max_watches"));
	assert_int_equal(q.state_offset, UMMUNOTIFY_STATE_OFFSET);
	assert_true(q.state_bytes >= q.max_watches * sizeof(__u32));
	assert_int_equal(q.reserved[0] | q.reserved[1] | q.reserved[2], 0);

	assert_int_equal(umn_unregister(fd, 1), 0);
	assert_int_equal(umn_query(fd, &q), 0);
	assert_int_equal(q.watches, 1);
	close(fd);
}

CASE(without_the_feature_there_are_no_calls)
{
	struct ummunotify_watch_ioctl watch;
	struct ummunotify_rearm_ioctl rearm;
	struct umn u;

	assert_int_equal(umn_start(&u, UMN_FILTER | UMN_KIND), 0);
	assert_int_equal(umn_watch(u.fd, (void *)PAGE, PAGE, 1, 0, &watch),
			 -ENOTTY);
	assert_int_equal(umn_rearm(u.fd, 1, &rearm), -ENOTTY);
	assert_int_equal(ioctl(u.fd, UMMUNOTIFY_WATCH, NULL), -1);
	assert_int_equal(errno, ENOTTY);
	umn_stop(&u);
}

CASE(watch_returns_slot_and_state)
{
	struct scene s;

	begin(&s);
	assert_int_equal(s.watch.start, (uintptr_t)s.page);
	assert_int_equal(s.watch.end, (uintptr_t)s.page + PAGE);
	assert_int_equal(s.watch.user_cookie, COOKIE);
	assert_int_equal(s.watch.flags, 0);
	assert_true(s.watch.slot < s.u.state_bytes / sizeof(__u32));
	assert_int_equal(s.watch.state & LOW_BITS, 0);
	assert_true(clean(&s));
	assert_int_equal(umn_counter(&s.u), 0);
	assert_int_equal(umn_drain(s.u.fd, NULL, 0, NULL), 0);
	finish(&s);
}

CASE(errors_of_watch)
{
	struct ummunotify_watch_ioctl watch;
	unsigned int bit;
	struct umn u;

	assert_int_equal(umn_start(&u, UMN_STATE), 0);
	assert_int_equal(umn_watch(u.fd, (void *)PAGE, 0, 1, 0, &watch),
			 -EINVAL);
	assert_int_equal(
		umn_watch(u.fd, (void *)(2 * PAGE), -PAGE, 1, 0, &watch),
		-EINVAL);
	for (bit = 1; bit < 32; bit++)
		assert_int_equal(umn_watch(u.fd, (void *)PAGE, PAGE, 1,
					   1u << bit, &watch),
				 -EINVAL);
	assert_int_equal(umn_watch(u.fd, (void *)PAGE, PAGE, 1, 3, &watch),
			 -EINVAL);
	assert_int_equal(umn_unregister(u.fd, 1), -EINVAL);

	assert_int_equal(umn_watch(u.fd, (void *)PAGE, PAGE, 1, 0, &watch), 0);
	assert_int_equal(umn_watch(u.fd, (void *)PAGE, PAGE, 1, 0, &watch),
			 -EEXIST);
	assert_int_equal(umn_register(u.fd, (void *)PAGE, PAGE, 1), -EINVAL);
	assert_int_equal(umn_register(u.fd, (void *)PAGE, PAGE, 2), 0);
	assert_int_equal(umn_watch(u.fd, (void *)PAGE, PAGE, 2, 0, &watch),
			 -EEXIST);

	assert_int_equal(ioctl(u.fd, UMMUNOTIFY_WATCH, NULL), -1);
	assert_int_equal(errno, EFAULT);
	umn_stop(&u);
}

/* An answer that cannot be given leaves no watch behind. */
CASE(watch_with_an_unwritable_argument)
{
	struct ummunotify_watch_ioctl *watch;
	struct ummunotify_query_ioctl query;
	struct umn u;

	assert_int_equal(umn_start(&u, UMN_STATE), 0);
	watch = (void *)pages_map(1);
	assert_non_null(watch);
	*watch =
		(struct ummunotify_watch_ioctl){.start = PAGE, .end = 2 * PAGE};
	assert_int_equal(mprotect(watch, PAGE, PROT_READ), 0);
	assert_int_equal(ioctl(u.fd, UMMUNOTIFY_WATCH, watch), -1);
	assert_int_equal(errno, EFAULT);
	assert_int_equal(umn_query(u.fd, &query), 0);
	assert_int_equal(query.watches, 0);
	pages_unmap(watch, 1);
	umn_stop(&u);
}

CASE(errors_of_rearm)
{
	struct ummunotify_rearm_ioctl rearm;
	struct umn u;

	assert_int_equal(umn_start(&u, UMN_STATE), 0);
	assert_int_equal(umn_rearm(u.fd, 1, &rearm), -ENOENT);
	assert_int_equal(umn_register(u.fd, (void *)PAGE, PAGE, 1), 0);
	assert_int_equal(umn_rearm(u.fd, 1, &rearm), -EINVAL);
	assert_int_equal(umn_unregister(u.fd, 1), 0);
	assert_int_equal(umn_rearm(u.fd, 1, &rearm), -ENOENT);
	assert_int_equal(ioctl(u.fd, UMMUNOTIFY_REARM, NULL), -1);
	assert_int_equal(errno, EFAULT);
	umn_stop(&u);
}

CASE(the_word_tells_of_munmap)
{
	struct scene s;
	uint32_t word;

	begin(&s);
	assert_int_equal(pages_unmap(s.page, 1), 0);
	word = umn_word(&s.u, s.watch.slot);
	assert_int_equal(word & LOW_BITS, UMMUNOTIFY_KIND_UNMAP);
	assert_int_equal(word & ~LOW_BITS, s.watch.state);
	assert_int_equal(umn_counter(&s.u), 1);
	finish(&s);
}

/* Told once, it is out of everybody's way until it is armed again. */
CASE(the_word_keeps_the_first_kind)
{
	struct scene s;

	begin(&s);
	discard(&s);
	assert_int_equal(umn_word(&s.u, s.watch.slot),
			 s.watch.state | UMMUNOTIFY_KIND_CLEAR);
	assert_int_equal(pages_unmap(s.page, 1), 0);
	assert_int_equal(umn_word(&s.u, s.watch.slot),
			 s.watch.state | UMMUNOTIFY_KIND_CLEAR);
	assert_int_equal(umn_counter(&s.u), 1);
	finish(&s);
}

CASE(other_memory_leaves_the_word_alone)
{
	struct scene s;
	char *p;

	begin(&s);
	p = pages_map(3);
	assert_non_null(p);
	assert_int_equal(umn_watch(s.u.fd, p + PAGE, PAGE, 1, 0, &s.watch), 0);
	assert_int_equal(pages_unmap(p, 1), 0);
	assert_int_equal(pages_unmap(p + 2 * PAGE, 1), 0);
	assert_true(clean(&s));
	assert_int_equal(umn_counter(&s.u), 0);
	assert_int_equal(pages_unmap(p + PAGE, 1), 0);
	assert_false(clean(&s));
	finish(&s);
}

CASE(one_report_until_armed_again)
{
	struct ummunotify_rearm_ioctl rearm;
	struct ummunotify_event e[2];
	struct scene s;
	uint64_t last = 0;

	begin(&s);
	discard(&s);
	discard(&s);
	assert_int_equal(umn_counter(&s.u), 1);
	assert_int_equal(umn_drain(s.u.fd, e, 2, &last), 1);
	assert_int_equal(e[0].user_cookie_counter, COOKIE);
	assert_int_equal(last, 1);
	/* Told once: read or not, more hits say nothing. */
	discard(&s);
	assert_int_equal(umn_counter(&s.u), 1);
	assert_int_equal(umn_drain(s.u.fd, e, 2, &last), 0);

	assert_int_equal(umn_rearm(s.u.fd, COOKIE, &rearm), 0);
	assert_int_equal(umn_counter(&s.u), 1);
	discard(&s);
	assert_int_equal(umn_counter(&s.u), 2);
	assert_int_equal(umn_drain(s.u.fd, e, 2, &last), 1);
	assert_int_equal(last, 2);
	finish(&s);
}

/* A quiet watch silences no other. */
CASE(a_told_watch_beside_an_armed_one)
{
	struct ummunotify_watch_ioctl second;
	struct ummunotify_event e[2];
	struct scene s;

	begin(&s);
	discard(&s);
	assert_int_equal(umn_drain(s.u.fd, NULL, 0, NULL), 1);
	assert_int_equal(umn_watch(s.u.fd, s.page, PAGE, 1, 0, &second), 0);
	discard(&s);
	assert_int_equal(umn_counter(&s.u), 2);
	assert_false(umn_clean(&s.u, second.slot, second.state));
	assert_int_equal(umn_drain(s.u.fd, e, 2, NULL), 1);
	assert_int_equal(e[0].user_cookie_counter, 1);
	finish(&s);
}

CASE(rearm_of_a_clean_watch)
{
	struct ummunotify_rearm_ioctl rearm;
	struct scene s;

	begin(&s);
	assert_int_equal(umn_rearm(s.u.fd, COOKIE, &rearm), 0);
	assert_int_equal(rearm.user_cookie, COOKIE);
	assert_int_equal(rearm.slot, s.watch.slot);
	assert_int_equal(rearm.state & LOW_BITS, 0);
	assert_int_not_equal(rearm.state, s.watch.state);
	assert_true(umn_clean(&s.u, rearm.slot, rearm.state));
	discard(&s);
	assert_false(umn_clean(&s.u, rearm.slot, rearm.state));
	finish(&s);
}

CASE(rearm_of_a_dirty_watch)
{
	struct ummunotify_rearm_ioctl rearm;
	struct scene s;

	begin(&s);
	discard(&s);
	assert_int_equal(umn_drain(s.u.fd, NULL, 0, NULL), 1);
	assert_int_equal(umn_rearm(s.u.fd, COOKIE, &rearm), 0);
	assert_int_equal(rearm.slot, s.watch.slot);
	assert_int_equal(rearm.state & LOW_BITS, 0);
	assert_true(umn_clean(&s.u, rearm.slot, rearm.state));
	/* What was remembered before the hit does not come back to life. */
	assert_false(clean(&s));
	finish(&s);
}

CASE(rearm_takes_the_report_along)
{
	struct ummunotify_rearm_ioctl rearm;
	struct ummunotify_event e[2];
	struct scene s;

	begin(&s);
	discard(&s);
	assert_int_equal(umn_rearm(s.u.fd, COOKIE, &rearm), 0);
	assert_int_equal(umn_read(s.u.fd, e, 2), -EAGAIN);

	/* Nor do its kinds leak into the next report. */
	assert_int_equal(pages_unmap(s.page, 1), 0);
	assert_int_equal(umn_read(s.u.fd, e, 2), 2);
	assert_int_equal(KINDS_OF(e[0]), UMMUNOTIFY_KIND_UNMAP);
	finish(&s);
}

/* An answer that cannot be given has armed nothing, and lost nothing. */
CASE(rearm_with_an_unwritable_argument)
{
	struct ummunotify_rearm_ioctl *rearm;
	struct ummunotify_event e[2];
	struct scene s;

	begin(&s);
	rearm = (void *)pages_map(1);
	assert_non_null(rearm);
	rearm->user_cookie = COOKIE;
	assert_int_equal(mprotect(rearm, PAGE, PROT_READ), 0);
	assert_int_equal(ioctl(s.u.fd, UMMUNOTIFY_REARM, rearm), -1);
	assert_int_equal(errno, EFAULT);
	assert_true(clean(&s));
	discard(&s);
	assert_int_equal(ioctl(s.u.fd, UMMUNOTIFY_REARM, rearm), -1);
	assert_int_equal(errno, EFAULT);
	assert_int_equal(umn_word(&s.u, s.watch.slot),
			 s.watch.state | UMMUNOTIFY_KIND_CLEAR);
	assert_int_equal(umn_read(s.u.fd, e, 2), 2);
	assert_int_equal(e[0].user_cookie_counter, COOKIE);
	pages_unmap(rearm, 1);
	finish(&s);
}

/* Nor one that is not in the page tables yet. */
CASE(rearm_with_an_argument_to_be_faulted_in)
{
	struct ummunotify_rearm_ioctl *rearm;
	struct scene s;
	int file;

	begin(&s);
	file = memfd_create("argument", MFD_CLOEXEC);
	assert_true(file >= 0);
	assert_int_equal(ftruncate(file, PAGE), 0);
	assert_int_equal(pwrite(file, &(uint64_t){COOKIE}, 8, 0), 8);
	rearm = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	assert_ptr_not_equal(rearm, MAP_FAILED);
	assert_int_equal(ioctl(s.u.fd, UMMUNOTIFY_REARM, rearm), 0);
	assert_true(umn_clean(&s.u, rearm->slot, rearm->state));
	munmap(rearm, PAGE);
	close(file);
	finish(&s);
}

/* ---- ARM: anew, and elsewhere ---------------------------------------------- */

CASE(arm_where_it_is)
{
	struct ummunotify_arm a;
	struct scene s;

	begin(&s);
	discard(&s);
	a = umn_order(COOKIE, s.page, PAGE, 0);
	assert_int_equal(umn_arm(s.u.fd, &a), 0);
	assert_int_equal(a.slot, s.watch.slot);
	assert_int_equal(a.memory, 0);
	assert_true(umn_clean(&s.u, a.slot, a.state));
	assert_false(clean(&s));
	/* The report went with it. */
	assert_int_equal(umn_drain(s.u.fd, NULL, 0, NULL), 0);
	discard(&s);
	assert_false(umn_clean(&s.u, a.slot, a.state));
	assert_int_equal(umn_counter(&s.u), 2);
	finish(&s);
}

CASE(arm_elsewhere)
{
	enum { OTHER = 7 };
	struct ummunotify_event e[2];
	struct ummunotify_arm a;
	struct scene s;
	char *p;

	begin(&s);
	p = pages_map(2);
	assert_non_null(p);
	a = umn_order(COOKIE, p, 2 * PAGE, UMMUNOTIFY_ARM_CACHEABLE);
	a.new_cookie = OTHER;
	assert_int_equal(umn_arm(s.u.fd, &a), 0);
	assert_int_equal(a.slot, s.watch.slot);
	assert_true(umn_clean(&s.u, a.slot, a.state));
	/* Not where it was, nor by that cookie. */
	discard(&s);
	assert_true(umn_clean(&s.u, a.slot, a.state));
	assert_int_equal(umn_counter(&s.u), 0);
	assert_int_equal(umn_unregister(s.u.fd, COOKIE), -EINVAL);
	assert_int_equal(pages_unmap(p + PAGE, 1), 0);
	assert_false(umn_clean(&s.u, a.slot, a.state));
	assert_int_equal(umn_read(s.u.fd, e, 2), 2);
	assert_int_equal(e[0].user_cookie_counter, OTHER);
	assert_int_equal(e[0].hint_start, (uintptr_t)p + PAGE);
	assert_int_equal(umn_fdinfo(s.u.fd, "ummunotify-watches"), 1);
	assert_int_equal(umn_unregister(s.u.fd, OTHER), 0);
	pages_unmap(p, 1);
	finish(&s);
}

static int arm_changed(struct scene *s, size_t offset, uint64_t value,
		       size_t size)
{
	struct ummunotify_arm a = umn_order(COOKIE, s->page, PAGE, 0);

	memcpy((char *)&a + offset, &value, size);
	return umn_arm(s->u.fd, &a);
}

#define CHANGED(s, field, value)                                      \
	arm_changed(s, offsetof(struct ummunotify_arm, field), value, \
		    sizeof(((struct ummunotify_arm *)NULL)->field))

/* What fails has changed nothing: neither the word nor the pending report. */
CASE(errors_of_arm)
{
	struct ummunotify_arm a;
	struct scene s;
	unsigned int bit;

	begin(&s);
	discard(&s);
	assert_int_equal(umn_register(s.u.fd, s.page, PAGE, 2), 0);
	for (bit = 1; bit < 32; bit++)
		assert_int_equal(CHANGED(&s, flags, 1u << bit), -EINVAL);
	for (bit = 0; bit < 64; bit++)
		assert_int_equal(CHANGED(&s, reserved, 1ull << bit), -EINVAL);
	assert_int_equal(CHANGED(&s, size, 0), -EINVAL);
	assert_int_equal(CHANGED(&s, size, sizeof(a) - 1), -EINVAL);
	assert_int_equal(CHANGED(&s, size, PAGE + 1), -E2BIG);
	assert_int_equal(CHANGED(&s, user_cookie, 3), -ENOENT);
	assert_int_equal(CHANGED(&s, user_cookie, 2), -EINVAL);
	assert_int_equal(CHANGED(&s, new_cookie, 2), -EEXIST);
	assert_int_equal(CHANGED(&s, end, (uintptr_t)s.page), -EINVAL);
	assert_int_equal(CHANGED(&s, end, 0), -EINVAL);
	a = umn_order(COOKIE, (void *)PAGE, PAGE, UMMUNOTIFY_ARM_CACHEABLE);
	assert_int_equal(umn_arm(s.u.fd, &a), -EOPNOTSUPP);
	assert_int_equal(a.memory, UMMUNOTIFY_MEMORY_HOLE);
	assert_int_equal(ioctl(s.u.fd, UMMUNOTIFY_ARM, NULL), -1);
	assert_int_equal(errno, EFAULT);

	assert_int_equal(umn_word(&s.u, s.watch.slot),
			 s.watch.state | UMMUNOTIFY_KIND_CLEAR);
	assert_int_equal(umn_drain(s.u.fd, NULL, 0, NULL), 1);
	assert_int_equal(
		umn_rearm(s.u.fd, COOKIE, &(struct ummunotify_rearm_ioctl){0}),
		0);
	finish(&s);
}

/* What a newer program says with more of it is heard if it says nothing new. */
CASE(a_longer_order)
{
	struct {
		struct ummunotify_arm arm;
		uint64_t more;
	} longer = {.more = 1};
	struct scene s;

	begin(&s);
	longer.arm = umn_order(COOKIE, s.page, PAGE, 0);
	longer.arm.size = sizeof(longer);
	assert_int_equal(umn_arm(s.u.fd, &longer.arm), -E2BIG);
	assert_true(clean(&s));
	longer.more = 0;
	assert_int_equal(umn_arm(s.u.fd, &longer.arm), 0);
	assert_true(umn_clean(&s.u, longer.arm.slot, longer.arm.state));
	finish(&s);
}

CASE(arm_many)
{
	enum { COUNT = 300, BAD = 100 };
	static struct ummunotify_arm a[COUNT + 1];
	struct ummunotify_watch_ioctl w;
	struct scene s;
	int i;

	begin(&s);
	for (i = 0; i < COUNT; i++) {
		assert_int_equal(umn_watch(s.u.fd, s.page, PAGE, i, 0, &w), 0);
		a[i] = umn_order(i, s.page, PAGE, 0);
	}
	discard(&s);
	assert_int_equal(umn_unregister(s.u.fd, BAD), 0);
	assert_int_equal(umn_arm_many(s.u.fd, a, COUNT), COUNT);
	for (i = 0; i < COUNT; i++) {
		assert_int_equal(a[i].error, i == BAD ? -ENOENT : 0);
		if (i != BAD)
			assert_true(umn_clean(&s.u, a[i].slot, a[i].state));
	}
	discard(&s);
	assert_int_equal(umn_drain(s.u.fd, NULL, 0, NULL), COUNT);

	assert_int_equal(umn_arm_many(s.u.fd, NULL, 0), 0);
	assert_int_equal(umn_arm_many(s.u.fd, NULL, 1), -EFAULT);
	a[1].size = 0;
	assert_int_equal(umn_arm_many(s.u.fd, a, 2), -EINVAL);
	assert_true(umn_clean(&s.u, a[0].slot, a[0].state));
	finish(&s);
}

CASE(unregister_frees_the_slot)
{
	struct ummunotify_event e;
	struct scene s;
	uint32_t word;

	begin(&s);
	discard(&s);
	assert_int_equal(umn_unregister(s.u.fd, COOKIE), 0);
	word = umn_word(&s.u, s.watch.slot);
	assert_int_equal(word & UMMUNOTIFY_STATE_FREE, UMMUNOTIFY_STATE_FREE);
	assert_int_not_equal(word, s.watch.state);
	assert_int_equal(umn_read(s.u.fd, &e, 1), -EAGAIN);
	assert_int_equal(umn_unregister(s.u.fd, COOKIE), -EINVAL);
	finish(&s);
}

/* Slots are used again, and who remembers the old state is not fooled. */
CASE(a_slot_used_again_has_another_state)
{
	struct ummunotify_watch_ioctl next;
	struct scene s;
	int i, again = 0;

	begin(&s);
	assert_int_equal(umn_unregister(s.u.fd, COOKIE), 0);
	for (i = 0; i < 2000; i++) {
		assert_int_equal(
			umn_watch(s.u.fd, s.page, PAGE, COOKIE, 0, &next), 0);
		assert_true(umn_clean(&s.u, next.slot, next.state));
		assert_false(clean(&s));
		again += next.slot == s.watch.slot;
		s.watch = next;
		assert_int_equal(umn_unregister(s.u.fd, COOKIE), 0);
	}
	assert_true(again > 0);
	finish(&s);
}

/* The driver keeps what has ended for the next watch, but not what hit it. */
CASE(a_watch_made_anew_knows_no_earlier_hits)
{
	struct ummunotify_event e[2];
	struct scene s;

	begin(&s);
	discard(&s);
	assert_int_equal(umn_unregister(s.u.fd, COOKIE), 0);
	assert_int_equal(umn_watch(s.u.fd, s.page, PAGE, COOKIE, 0, &s.watch),
			 0);
	assert_true(clean(&s));
	assert_int_equal(pages_unmap(s.page, 1), 0);
	assert_int_equal(umn_word(&s.u, s.watch.slot),
			 s.watch.state | UMMUNOTIFY_KIND_UNMAP);
	assert_int_equal(umn_read(s.u.fd, e, 2), 2);
	assert_int_equal(KINDS_OF(e[0]), UMMUNOTIFY_KIND_UNMAP);
	finish(&s);
}

CASE(slots_differ)
{
	enum { COUNT = 3000 };
	static struct ummunotify_watch_ioctl watches[COUNT];
	static bool seen[COUNT];
	struct scene s;
	int i;

	begin(&s);
	for (i = 0; i < COUNT; i++) {
		assert_int_equal(
			umn_watch(s.u.fd, s.page, PAGE, i, 0, &watches[i]), 0);
		assert_true(watches[i].slot <= COUNT);
		assert_int_not_equal(watches[i].slot, s.watch.slot);
	}
	for (i = 0; i < COUNT; i++) {
		assert_true(umn_clean(&s.u, watches[i].slot, watches[i].state));
		if (watches[i].slot < COUNT) {
			assert_false(seen[watches[i].slot]);
			seen[watches[i].slot] = true;
		}
	}
	discard(&s);
	assert_int_equal(umn_counter(&s.u), 1);
	for (i = 0; i < COUNT; i++)
		assert_int_equal(umn_word(&s.u, watches[i].slot),
				 watches[i].state | UMMUNOTIFY_KIND_CLEAR);
	assert_int_equal(umn_drain(s.u.fd, NULL, 0, NULL), COUNT + 1);
	finish(&s);
}

CASE(events_carry_kinds)
{
	struct ummunotify_event e[2];
	struct scene s;

	begin(&s);
	assert_int_equal(umn_register(s.u.fd, s.page, PAGE, 1), 0);
	assert_int_equal(umn_unregister(s.u.fd, COOKIE), 0);
	discard(&s);
	assert_int_equal(umn_drain(s.u.fd, e, 2, NULL), 1);
	assert_int_equal(e[0].flags,
			 UMMUNOTIFY_EVENT_FLAG_HINT |
				 UMMUNOTIFY_KIND_CLEAR
					 << UMMUNOTIFY_EVENT_KINDS_SHIFT);
	/* Only those since the last report; both if there were both. */
	discard(&s);
	assert_int_equal(pages_unmap(s.page, 1), 0);
	assert_int_equal(umn_drain(s.u.fd, e, 2, NULL), 1);
	assert_int_equal(e[0].flags,
			 (UMMUNOTIFY_KIND_CLEAR | UMMUNOTIFY_KIND_UNMAP)
				 << UMMUNOTIFY_EVENT_KINDS_SHIFT);
	finish(&s);
}

CASE(kinds_survive_a_bad_buffer)
{
	struct ummunotify_event e[2];
	struct scene s;

	begin(&s);
	discard(&s);
	assert_int_equal(read(s.u.fd, (void *)PAGE, sizeof(e)), -1);
	assert_int_equal(errno, EFAULT);
	assert_int_equal(umn_read(s.u.fd, e, 2), 2);
	assert_int_equal(KINDS_OF(e[0]), UMMUNOTIFY_KIND_CLEAR);
	finish(&s);
}

CASE(no_kinds_unless_asked_for)
{
	struct ummunotify_event e[2];
	struct scene s;

	begin_with(&s, UMN_STATE | UMN_FILTER);
	assert_int_equal(pages_unmap(s.page, 1), 0);
	assert_int_equal(umn_read(s.u.fd, e, 2), 2);
	assert_int_equal(e[0].flags, UMMUNOTIFY_EVENT_FLAG_HINT);
	/* Its state word has them all the same. */
	assert_int_equal(umn_word(&s.u, s.watch.slot),
			 s.watch.state | UMMUNOTIFY_KIND_UNMAP);
	finish(&s);
}

static int do_nothing(void *unused)
{
	(void)unused;
	return 0;
}

CASE(the_filter_drops_what_is_harmless)
{
	struct scene s;

	begin(&s);
	assert_int_equal(umn_register(s.u.fd, s.page, PAGE, 1), 0);
	assert_int_equal(mprotect(s.page, PAGE, PROT_READ), 0);
	assert_int_equal(mprotect(s.page, PAGE, PROT_READ | PROT_WRITE), 0);
	assert_int_equal(in_child(do_nothing, NULL), 0);
	assert_int_equal(umn_counter(&s.u), 0);
	assert_true(clean(&s));
	assert_int_equal(umn_drain(s.u.fd, NULL, 0, NULL), 0);

	assert_int_equal(pages_unmap(s.page, 1), 0);
	assert_int_equal(umn_counter(&s.u), 1);
	assert_false(clean(&s));
	assert_int_equal(umn_drain(s.u.fd, NULL, 0, NULL), 2);
	finish(&s);
}

CASE(without_the_filter_all_kinds_count)
{
	struct ummunotify_event e[2];
	struct scene s;

	begin_with(&s, UMN_STATE | UMN_KIND);
	assert_int_equal(mprotect(s.page, PAGE, PROT_READ), 0);
	assert_int_equal(umn_counter(&s.u), 1);
	assert_int_equal(umn_word(&s.u, s.watch.slot),
			 s.watch.state | UMMUNOTIFY_KIND_PROTECTION);
	assert_int_equal(umn_drain(s.u.fd, e, 2, NULL), 1);
	assert_int_equal(KINDS_OF(e[0]), UMMUNOTIFY_KIND_PROTECTION);
	finish(&s);
}

int main(void)
{
	return run_cases(NULL, NULL);
}
