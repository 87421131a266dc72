/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whatever can fail inside the kernel does: every allocation and every copy
 * from or to the program that a call of the device makes, one at a time, the
 * 1st, the 2nd, ... until there is none left. No chance is involved. A call
 * that fails has changed nothing, and works the next time. What it may have
 * leaked is counted here (the driver's own objects) and by the launcher (all
 * else, when the guest ends).
 */
#include "case.h"
#include "fault.h"
#include "module.h"
#include "support.h"
#include "umn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#define CACHE "umn_watch"

/* Cookies: STANDING watches page 0 all the time, CALLED is the call's. */
#define STANDING 1
#define CALLED	 2
#define OTHERS	 1000 /* and up: what only takes up slots */

static struct umn u;
static struct ummunotify_watch_ioctl standing;
static char *memory; /* two pages; what a call watches is the second */
static bool missing;
static unsigned int all_faults;

struct call {
	const char *name;
	/*
	 * It can fail in so many ways; the allocator may ask for memory of its
	 * own and hide one.
	 */
	unsigned int least;
	void (*before)(void); /* may be NULL */
	int (*call)(void);    /* always the same if it works, or -errno */
	void (*undo)(void);   /* may be NULL */
};

/* What a call that fails must leave alone. */
struct sight {
	uint64_t counter, generation;
	uint32_t features, watches, pending, flags;
};

static void hit(int page)
{
	assert_int_equal(madvise(memory + page * PAGE, PAGE, MADV_DONTNEED), 0);
	memory[page * PAGE] = 1;
}

static struct sight look(void)
{
	struct ummunotify_query_ioctl query;
	struct sight s = {};

	assert_int_equal(umn_query(u.fd, &query), 0);
	assert_int_equal(query.watches, umn_fdinfo(u.fd, "ummunotify-watches"));
	s.counter = umn_counter(&u);
	s.generation = umn_fdinfo(u.fd, "ummunotify-generation");
	s.features = query.granted;
	s.watches = query.watches;
	s.pending = umn_fdinfo(u.fd, "ummunotify-pending");
	s.flags = fcntl(u.fd, F_GETFL);
	return s;
}

/* The watch that is there all the time is told, and nobody else. */
static void check_all_works(void)
{
	struct ummunotify_rearm_ioctl rearm;
	struct ummunotify_event event;
	uint64_t counter = umn_counter(&u), last = 0;

	assert_int_equal(umn_drain(u.fd, NULL, 0, NULL), 0);
	hit(1);
	assert_int_equal(umn_counter(&u), counter);
	hit(0);
	assert_int_equal(umn_counter(&u), counter + 1);
	assert_int_equal(umn_drain(u.fd, &event, 1, &last), 1);
	assert_int_equal(event.user_cookie_counter, STANDING);
	assert_int_equal(last, counter + 1);
	if (u.states) {
		assert_false(umn_clean(&u, standing.slot, standing.state));
		assert_int_equal(umn_rearm(u.fd, STANDING, &rearm), 0);
		assert_int_equal(rearm.slot, standing.slot);
		standing.state = rearm.state;
		assert_true(umn_clean(&u, standing.slot, standing.state));
	}
}

static void undo(const struct call *c)
{
	if (c->undo)
		c->undo();
}

/* How many of the faults in it made it fail. */
static unsigned int try_each(const struct call *c)
{
	unsigned int nth, failed = 0, absorbed = 0;
	struct sight was, is;
	bool happened;
	int good, ret;

	/* What a first call needs is not what is tried. */
	if (c->before)
		c->before();
	good = c->call();
	assert_true(good >= 0);
	undo(c);

	for (nth = 1, happened = true; happened; nth++) {
		if (c->before)
			c->before();
		was = look();
		fault_arm(nth);
		ret = c->call();
		happened = fault_happened();
		if (ret < 0) {
			assert_true(happened);
			if (ret != -EFAULT)
				assert_int_equal(ret, -ENOMEM);
			is = look();
			assert_memory_equal(&is, &was, sizeof(is));
			failed++;
			ret = c->call();
		} else if (happened) {
			absorbed++;
		}
		assert_int_equal(ret, good);
		undo(c);
		check_all_works();
	}
	print_message("# %s: %u failed, %u absorbed\n", c->name, failed,
		      absorbed);
	all_faults += failed + absorbed;
	return failed;
}

/*
 * That a slab is new is one fault more, which the next time is not there: then
 * one of those behind it is passed over.
 */
static void fail_each(const struct call *c)
{
	unsigned int tries = 0;

	while (try_each(c) < c->least)
		assert_true(++tries < 5);
}

static void start(uint32_t features)
{
	if (missing)
		skip();
	assert_int_equal(umn_start(&u, features), 0);
	if (features)
		assert_int_equal(
			umn_watch(u.fd, memory, PAGE, STANDING, 0, &standing),
			0);
	else
		assert_int_equal(umn_register(u.fd, memory, PAGE, STANDING), 0);
}

static int stop(void **state)
{
	(void)state;
	umn_stop(&u);
	/* -ENOENT: not loaded, or a kernel that does not say. */
	return missing || slab_objects(CACHE) == 0 ? 0 : -1;
}

/* ---- open -------------------------------------------------------------------- */

static int open_with_fault(void *nth)
{
	int fd, other;

	/* The very first open of an address space needs most. */
	if (fault_begin())
		return 100;
	fault_arm(*(unsigned int *)nth);
	fd = umn_open(O_RDONLY);
	if (!fault_happened())
		return fd < 0 ? 101 : 0;
	if (fd < 0 && fd != -ENOMEM && fd != -EFAULT)
		return 102;
	other = umn_open(O_RDONLY);
	if (other < 0 || umn_register(other, memory, PAGE, STANDING))
		return 103;
	return fd < 0 ? 1 : 2;
}

CASE_IN(open_fails, NULL, stop)
{
	unsigned int nth, count[3] = {};
	int ret;

	if (missing)
		skip();
	for (nth = 1, ret = 1; ret; nth++) {
		ret = in_child(open_with_fault, &nth);
		assert_in_range(ret, 0, 2);
		count[ret]++;
	}
	print_message("# open: %u failed, %u absorbed\n", count[1], count[2]);
	/* The file, its two pages, what the address space has of notifiers. */
	assert_true(count[1] >= 4);
	all_faults += count[1] + count[2];
}

/* ---- 2009 and 2010 ------------------------------------------------------------ */

static int call_register(void)
{
	return umn_register(u.fd, memory + PAGE, PAGE, CALLED);
}

static int call_register_2009(void)
{
	uint32_t version = UMMUNOT_INTF_VERSION;

	return umn_ummunot_register(u.fd, &version, memory + PAGE, PAGE,
				    CALLED);
}

static int call_unregister(void)
{
	return umn_unregister(u.fd, CALLED);
}

static int call_unregister_2009(void)
{
	return umn_ummunot_unregister(u.fd, CALLED);
}

static int call_query(void)
{
	struct ummunotify_query_ioctl query;
	int ret = umn_query(u.fd, &query);

	return ret ? ret : (int)query.watches;
}

/* The second page is watched: a failed call must not have ended that. */
static void make_watch(void)
{
	assert_int_equal(call_register(), 0);
}

static void end_watch(void)
{
	assert_int_equal(call_unregister(), 0);
}

CASE_IN(old_calls_fail, NULL, stop)
{
	static const struct call calls[] = {
		{"REGISTER", 2, NULL, call_register, end_watch},
		{"REGISTER, 2009", 2, NULL, call_register_2009, end_watch},
		{"UNREGISTER", 1, make_watch, call_unregister, NULL},
		{"UNREGISTER, 2009", 1, make_watch, call_unregister_2009, NULL},
		{"QUERY", 1, NULL, call_query, NULL},
	};
	size_t i;

	start(0);
	for (i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		fail_each(&calls[i]);
}

/* ---- features and WATCH --------------------------------------------------------- */

static void reopen(void)
{
	umn_stop(&u);
	assert_int_equal(umn_start(&u, 0), 0);
}

static int call_exchange(void)
{
	uint32_t mask = UMMUNOTIFY_FEATURES_MAGIC | UMN_ALL;
	int ret = umn_exchange(u.fd, &mask);

	return ret ? ret : (int)(mask & 0xffff);
}

static void watch_standing(void)
{
	assert_int_equal(umn_register(u.fd, memory, PAGE, STANDING), 0);
}

static int set_small(void **state)
{
	(void)state;
	return missing ? 0 : module_reload("max_watches=512");
}

static int set_defaults(void **state)
{
	int ret = stop(state);

	return ret || missing ? ret : module_reload("");
}

/* With few watches the pages' addresses fit where there is but one try. */
CASE_IN(exchange_fails, set_small, set_defaults)
{
	static const struct call call = {"EXCHANGE", 1, reopen, call_exchange,
					 watch_standing};

	start(0);
	fail_each(&call);
}

CASE_IN(exchange_takes_another_way, NULL, stop)
{
	static const struct call call = {"EXCHANGE, large", 0, reopen,
					 call_exchange, watch_standing};

	start(0);
	fail_each(&call);
}

static int watch(uint32_t flags)
{
	struct ummunotify_watch_ioctl w;
	int ret = umn_watch(u.fd, memory + PAGE, PAGE, CALLED, flags, &w);

	if (ret)
		return ret;
	assert_true(umn_clean(&u, w.slot, w.state));
	return w.slot;
}

static int call_watch(void)
{
	return watch(0);
}

static int call_watch_cacheable(void)
{
	return watch(UMMUNOTIFY_WATCH_CACHEABLE);
}

/* Takes all slots below `count`. */
static void fill_slots(uint32_t count)
{
	struct ummunotify_watch_ioctl w;
	uint64_t cookie = OTHERS;

	do {
		assert_int_equal(
			umn_watch(u.fd, (void *)PAGE, PAGE, cookie++, 0, &w),
			0);
	} while (w.slot + 1 < count);
}

/* On a new file, since what is allocated for a watch or its slot stays. */
static void reopen_watching(void)
{
	umn_stop(&u);
	start(UMN_ALL);
}

static void reopen_with(uint32_t count)
{
	reopen_watching();
	fill_slots(count);
}

/* The state words of so many slots have one page, this is the next. */
static void reopen_at_page(void)
{
	reopen_with(PAGE / sizeof(uint32_t));
}

CASE_IN(watch_fails, NULL, stop)
{
	static const struct call calls[] = {
		{"WATCH", 2, reopen_watching, call_watch, end_watch},
		{"WATCH, cacheable", 2, reopen_watching, call_watch_cacheable,
		 end_watch},
		{"WATCH, spare", 2, NULL, call_watch, end_watch},
		{"WATCH, page", 4, reopen_at_page, call_watch, end_watch},
	};
	size_t i;

	start(UMN_ALL);
	for (i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		fail_each(&calls[i]);
}

/* ---- REARM ---------------------------------------------------------------------- */

static uint32_t hit_slot, hit_state;

static void make_hit_watch(void)
{
	struct ummunotify_watch_ioctl w;

	assert_int_equal(umn_watch(u.fd, memory + PAGE, PAGE, CALLED, 0, &w),
			 0);
	hit(1);
	assert_int_equal(umn_drain(u.fd, NULL, 0, NULL), 1);
	hit_slot = w.slot;
	hit_state = w.state;
}

/* Whether it was armed or not: never again as if nothing had happened. */
static int call_rearm(void)
{
	struct ummunotify_rearm_ioctl rearm;
	int ret = umn_rearm(u.fd, CALLED, &rearm);

	assert_false(umn_clean(&u, hit_slot, hit_state));
	if (ret)
		return ret;
	assert_true(umn_clean(&u, rearm.slot, rearm.state));
	return rearm.slot;
}

static int call_arm(void)
{
	struct ummunotify_arm arm = umn_order(CALLED, memory + PAGE, PAGE,
					      UMMUNOTIFY_ARM_CACHEABLE);
	int ret = umn_arm(u.fd, &arm);

	assert_false(umn_clean(&u, hit_slot, hit_state));
	if (ret)
		return ret;
	assert_true(umn_clean(&u, arm.slot, arm.state));
	return arm.slot;
}

/* An answer that cannot be written at once is written the second time. */
CASE_IN(rearm_fails, NULL, stop)
{
	static const struct call calls[] = {
		{"REARM", 1, make_hit_watch, call_rearm, end_watch},
		{"ARM", 1, make_hit_watch, call_arm, end_watch},
	};
	size_t i;

	start(UMN_ALL);
	for (i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		fail_each(&calls[i]);
}

/* ---- read, poll, SIGIO ------------------------------------------------------------- */

static void make_report(void)
{
	hit(0);
}

/*
 * A failed one has consumed nothing: event, hint and LAST come again, and in the
 * same call if that is how it fails.
 */
static int call_read(void)
{
	struct ummunotify_event events[4];
	int got = umn_read(u.fd, events, 4);

	if (got < 0)
		return got;
	assert_int_equal(got, 2);
	assert_int_equal(events[0].user_cookie_counter, STANDING);
	assert_int_equal(events[0].flags & UMMUNOTIFY_EVENT_FLAG_HINT,
			 UMMUNOTIFY_EVENT_FLAG_HINT);
	assert_int_equal(events[0].hint_start, (uintptr_t)memory);
	assert_int_equal(events[0].hint_end, (uintptr_t)memory + PAGE);
	assert_int_equal(events[1].type, UMMUNOTIFY_EVENT_TYPE_LAST);
	return got;
}

static int call_poll(void)
{
	struct pollfd p = {.fd = u.fd, .events = POLLIN};
	int ret = poll(&p, 1, 0);

	if (ret < 0)
		return -errno;
	assert_int_equal(p.revents, POLLIN);
	return ret;
}

static void take_report(void)
{
	assert_int_equal(umn_drain(u.fd, NULL, 0, NULL), 1);
}

static int epoll;

static int call_epoll(void)
{
	struct epoll_event event = {.events = EPOLLIN};

	return epoll_ctl(epoll, EPOLL_CTL_ADD, u.fd, &event) ? -errno : 0;
}

static void undo_epoll(void)
{
	assert_int_equal(epoll_ctl(epoll, EPOLL_CTL_DEL, u.fd, NULL), 0);
}

static int call_async(void)
{
	return fcntl(u.fd, F_SETFL, O_NONBLOCK | O_ASYNC) ? -errno : 0;
}

static void undo_async(void)
{
	assert_int_equal(fcntl(u.fd, F_SETFL, O_NONBLOCK), 0);
}

CASE_IN(reports_fail, NULL, stop)
{
	static const struct call calls[] = {
		{"read", 0, make_report, call_read, NULL},
		{"poll", 1, make_report, call_poll, take_report},
		{"epoll", 2, NULL, call_epoll, undo_epoll},
		{"O_ASYNC", 1, NULL, call_async, undo_async},
	};
	size_t i;

	start(0);
	epoll = epoll_create1(EPOLL_CLOEXEC);
	assert_true(epoll >= 0);
	for (i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		fail_each(&calls[i]);
	close(epoll);
}

/* ---- mmap ---------------------------------------------------------------------- */

static const uint64_t *counter_map;
static const uint32_t *states_map;

static int call_mmap_counter(void)
{
	return umn_map_counter(u.fd, &counter_map);
}

static void undo_mmap_counter(void)
{
	assert_int_equal(*counter_map, umn_counter(&u));
	assert_int_equal(munmap((void *)counter_map, PAGE), 0);
}

static int call_mmap_states(void)
{
	return umn_map_states(u.fd, u.state_bytes, &states_map);
}

static void undo_mmap_states(void)
{
	assert_int_equal(munmap((void *)states_map, u.state_bytes), 0);
}

static void map_states(void)
{
	assert_int_equal(call_mmap_states(), 0);
}

/* What is needed to make the page appear is asked for again. */
static int call_touch(void)
{
	return states_map[standing.slot] == standing.state ? 0 : -EIO;
}

CASE_IN(mmap_fails, NULL, stop)
{
	static const struct call calls[] = {
		{"mmap, counter", 1, NULL, call_mmap_counter,
		 undo_mmap_counter},
		{"mmap, states", 1, NULL, call_mmap_states, undo_mmap_states},
		{"first touch", 0, map_states, call_touch, undo_mmap_states},
	};
	size_t i;

	start(UMN_ALL);
	for (i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		fail_each(&calls[i]);
}

/* ---- the module ------------------------------------------------------------------ */

static int fail_anywhere(void **state)
{
	(void)state;
	return missing ? 0 : fault_only_in(NULL);
}

/* Where the kernel does not make the device, the driver is not there. */
CASE_IN(loading_fails, NULL, fail_anywhere)
{
	unsigned int nth, failed = 0, absorbed = 0;
	bool happened;
	int ret;

	if (missing)
		skip();
	assert_int_equal(fault_only_in("misc_register"), 0);
	for (nth = 1, happened = true; happened; nth++) {
		assert_int_equal(module_unload(), 0);
		fault_arm(nth);
		ret = module_load("");
		happened = fault_happened();
		if (ret) {
			assert_true(happened);
			assert_int_equal(ret, -ENOMEM);
			assert_int_equal(slab_objects(CACHE), -ENOENT);
			assert_int_equal(access(UMN_DEVICE, F_OK), -1);
			assert_int_equal(module_load(""), 0);
			failed++;
		} else if (happened) {
			absorbed++;
		}
	}
	print_message("# loading: %u failed, %u absorbed\n", failed, absorbed);
	assert_true(failed >= 1);
	all_faults += failed + absorbed;
}

/* --------------------------------------------------------------------------------- */

static int begin(void **state)
{
	const char *reason = fault_missing();

	(void)state;
	memory = pages_map(2);
	missing = reason;
	if (missing)
		print_message("# skipped: %s\n", reason);
	else if (fault_begin() || fault_only_in(NULL))
		return -1;
	return memory ? 0 : -1;
}

static int end(void **state)
{
	(void)state;
	print_message("# %u faults in all\n", all_faults);
	return 0;
}

int main(void)
{
	u.fd = -1;
	return run_cases(begin, end);
}
