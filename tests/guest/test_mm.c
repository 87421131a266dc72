/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the device says about every memory operation of the table: with the
 * filter, what must be reported is, at once and completely, and what must not
 * be is not; without features, as in 2010, the rest is reported too.
 */
#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memop_cmocka.h"

#include "memop.h"
#include "umn.h"

#define ROUNDS 3
#define SIZE   MEMOP_MIN_SIZE
#define COOKIE 0x1234567890abcdefull

/* Everything the device says about one watch. */
struct view {
	struct umn umn;
	struct ummunotify_watch_ioctl watch;
	uint64_t counter;
};

struct answer {
	bool counter;	/* it moved */
	bool word;	/* it changed */
	uint32_t kinds; /* in the word */
	int events;
	struct ummunotify_event event; /* the first */
};

static void look(struct view *v, struct answer *a)
{
	uint32_t word = umn_word(&v->umn, v->watch.slot);

	memset(a, 0, sizeof(*a));
	a->counter = umn_counter(&v->umn) != v->counter;
	a->word = word != v->watch.state;
	a->kinds = word & UMMUNOTIFY_STATE_KINDS;
}

static void drain(struct view *v, struct answer *a)
{
	uint64_t last = 0;

	a->events = umn_drain(v->umn.fd, &a->event, 1, &last);
	if (a->events > 0)
		assert_int_equal(last, umn_counter(&v->umn));
}

static void arm(struct view *v)
{
	struct ummunotify_rearm_ioctl rearm;

	assert_int_equal(umn_rearm(v->umn.fd, COOKIE, &rearm), 0);
	assert_int_equal(rearm.slot, v->watch.slot);
	v->watch.state = rearm.state;
	v->counter = umn_counter(&v->umn);
}

static void check_reported(const struct memop_buffer *b, const struct answer *a)
{
	const struct memop *op = b->op;
	uint32_t kinds = (a->event.flags & UMMUNOTIFY_EVENT_KINDS) >>
			 UMMUNOTIFY_EVENT_KINDS_SHIFT;

	assert_true(a->word);
	assert_true(a->counter);
	assert_int_equal(a->events, 1);
	assert_int_equal(a->event.type, UMMUNOTIFY_EVENT_TYPE_INVAL);
	assert_int_equal(a->event.user_cookie_counter, COOKIE);
	/* Some of the kinds expected and no other. */
	assert_int_not_equal(kinds & op->kinds, 0);
	assert_int_equal(kinds & ~op->kinds, 0);
	assert_int_equal(a->kinds & ~op->kinds, 0);
	assert_true(a->event.hint_start >= (uintptr_t)b->addr);
	assert_true(a->event.hint_end <= (uintptr_t)b->addr + b->size);
	assert_true(a->event.hint_start < a->event.hint_end);
}

static void check_quiet(const struct answer *a)
{
	assert_false(a->word);
	assert_false(a->counter);
	assert_int_equal(a->events, 0);
}

/* Nothing announced by one way and not by the others. */
static void check_consistent(const struct answer *a)
{
	assert_int_equal(a->word, a->counter);
	assert_int_equal(a->word, a->events == 1);
}

static void filtered(void **state)
{
	const struct memop *op = *state;
	struct memop_buffer b;
	struct answer a, settled;
	struct view v;
	int round, reports = 0;

	assert_int_equal(umn_start(&v.umn, UMN_ALL), 0);
	make(&b, op, SIZE);
	assert_int_equal(umn_watch(v.umn.fd, b.addr, b.size, COOKIE,
				   UMMUNOTIFY_WATCH_CACHEABLE, &v.watch),
			 0);
	assert_int_equal(v.watch.memory, 0);
	for (round = 1; round <= ROUNDS; round++) {
		/* Again ordinary memory with a page of its own everywhere. */
		memop_fill(b.addr, b.size, memop_seed(op, round));
		arm(&v);
		look(&v, &settled);
		check_quiet(&settled);

		perform(&b);
		look(&v, &a);
		drain(&v, &a);
		switch (op->verdict) {
		case MEMOP_REPORT:
			check_reported(&b, &a);
			break;
		case MEMOP_QUIET:
			check_quiet(&a);
			break;
		case MEMOP_EITHER:
			check_consistent(&a);
			break;
		}
		reports += a.word;
		if (op->keeps)
			assert_int_equal(memop_wrong(b.addr, b.size,
						     memop_seed(op, round)),
					 0);
	}
	if (op->verdict == MEMOP_EITHER)
		print_message("# %s: reported %d times of %d\n", op->name,
			      reports, ROUNDS);
	memop_drop(&b);
	umn_stop(&v.umn);
}

/* Without the filter, as in 2010: every kind is reported, the watch stays armed. */
static void unfiltered(void **state)
{
	const struct memop *op = *state;
	struct ummunotify_event event;
	struct memop_buffer b;
	struct umn u;
	uint64_t before, last = 0;
	int round;

	assert_int_equal(umn_start(&u, UMN_NONE), 0);
	make(&b, op, SIZE);
	assert_int_equal(umn_register(u.fd, b.addr, b.size, COOKIE), 0);
	for (round = 1; round <= ROUNDS; round++) {
		umn_drain(u.fd, NULL, 0, NULL);
		before = umn_counter(&u);
		perform(&b);
		assert_true(umn_counter(&u) > before);
		assert_int_equal(umn_drain(u.fd, &event, 1, &last), 1);
		assert_int_equal(event.user_cookie_counter, COOKIE);
		assert_int_equal(event.flags & ~UMMUNOTIFY_EVENT_FLAG_HINT, 0);
		assert_int_equal(last, umn_counter(&u));
	}
	memop_drop(&b);
	umn_stop(&u);
}

/* The oracle can fail: an old pattern is wrong in every byte. */
CASE(contents_differ)
{
	static char bytes[4096];
	const struct memop *op = memop_get(0);
	unsigned int round;

	(void)state;
	for (round = 0; round < 8; round++) {
		memop_fill(bytes, sizeof(bytes), memop_seed(op, round));
		assert_int_equal(memop_wrong(bytes, sizeof(bytes),
					     memop_seed(op, round)),
				 0);
		assert_int_equal(memop_wrong(bytes, sizeof(bytes),
					     memop_seed(op, round + 1)),
				 sizeof(bytes));
	}
}

CASE(names_are_unique)
{
	size_t i;

	for (i = 0; i < memop_count(); i++)
		assert_ptr_equal(memop_find(memop_get(i)->name), memop_get(i));
}

static bool is_reported_unfiltered(const struct memop *op)
{
	return op->kinds && op->verdict != MEMOP_EITHER;
}

int main(void)
{
	add_memops("", filtered, NULL);
	add_memops("2010: ", unfiltered, is_reported_unfiltered);
	return run_cases(NULL, NULL);
}
