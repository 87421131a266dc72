/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The memory monitor for libfabric, with a double of libfabric's registration
 * caches in front of it: their locks, their order of pin and subscribe, and what
 * becomes of an entry that was refused, as in libfabric 1.17 and 2.1. Memory has
 * versions, so that each lookup can be judged.
 */
#define _GNU_SOURCE
#include "unit.h"

#include "fabric/import.h"

#include <rdma/fi_errno.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <utlist.h>

/* ---- the double of libfabric ------------------------------------------------------- */

#define MOST_PAGES 4u

struct entry {
	const char *addr;
	size_t length;
	uint32_t versions[MOST_PAGES];
	struct domain *domain;
	unsigned int uses;
	bool is_cached;
	struct entry *below; /* of the cache below this one */
	struct entry *prev, *next;
};

struct domain {
	struct entry *entries, *dead; /* the oldest first */
	unsigned int kept, most;
	bool is_announced;
	struct domain *below;
	struct domain *next;
};

static struct {
	pthread_mutex_t mm_lock; /* finds out who takes it twice */
	pthread_rwlock_t mm_list_rwlock;
	struct domain *domains;
	struct fid_mem_monitor *monitor;
	bool unsubscribes;	    /* as since 2.1 */
	void (*after_notify)(void); /* once, with no lock */
	void (*in_notify)(void);    /* the same, before it takes its locks */
	const char *setting;
	int open_error, import_error;
	_Atomic unsigned int registrations;
} fi;

static struct ranges *ranges;
static struct fake_monitor *monitor;

static __thread unsigned int mm_again;

static void mm_lock(void)
{
	if (!pthread_mutex_lock(&fi.mm_lock))
		return;
	fake_trouble("mm_lock is held already");
	mm_again++;
}

static void mm_unlock(void)
{
	if (mm_again)
		mm_again--;
	else
		pthread_mutex_unlock(&fi.mm_lock);
}

static void once(void (**function)(void))
{
	void (*run)(void) = *function;

	*function = NULL;
	if (run)
		run();
}

static void uncache(struct entry *entry)
{
	struct domain *domain = entry->domain;

	DL_DELETE(domain->entries, entry);
	entry->is_cached = false;
	domain->kept--;
	if (fi.unsubscribes)
		fi.monitor->export_ops->unsubscribe(fi.monitor, entry->addr,
						    entry->length);
	if (!entry->uses)
		DL_APPEND(domain->dead, entry);
}

static bool overlaps(const struct entry *entry, const char *addr, size_t length)
{
	return entry->addr < addr + length &&
	       addr < entry->addr + entry->length;
}

static void do_notify(struct fid_mem_monitor *imported, const void *addr,
		      size_t length)
{
	struct entry *entry, *next;
	struct domain *domain;

	(void)imported;
	once(&fi.in_notify);
	pthread_rwlock_rdlock(&fi.mm_list_rwlock);
	mm_lock();
	LL_FOREACH(fi.domains, domain)
	{
		DL_FOREACH_SAFE(domain->entries, entry, next)
		if (overlaps(entry, addr, length))
			uncache(entry);
	}
	mm_unlock();
	pthread_rwlock_unlock(&fi.mm_list_rwlock);
	once(&fi.after_notify);
}

static void unregister(struct entry *entry);

static void *pin(void *arg)
{
	struct entry *entry = arg;
	size_t first, end;

	int error = fake_enter(FAKE_REG);

	if (error) {
		errno = error;
		return NULL;
	}
	fi.registrations++;
	fake_pages((uintptr_t)entry->addr, entry->length, &first, &end);
	for (size_t i = first; i < end; i++)
		entry->versions[i - first] = fake_version(i);
	fake_leave(FAKE_REG);
	return entry;
}

static int unpin(void *mr)
{
	(void)mr;
	return fake_enter(FAKE_DEREG);
}

static struct entry *use(struct domain *domain, const void *addr,
			 size_t length);
static void release(struct entry *entry);

static bool add_region(struct entry *entry)
{
	if (entry->domain->below) {
		entry->below =
			use(entry->domain->below, entry->addr, entry->length);
		memcpy(entry->versions, entry->below->versions,
		       sizeof(entry->versions));
		return true;
	}
	if (entry->domain->is_announced)
		return ranges_reg(ranges, entry->addr, entry->length, pin,
				  entry);
	return pin(entry);
}

/* With no lock. */
static void unregister(struct entry *entry)
{
	if (entry->below)
		release(entry->below);
	else if (!entry->domain->is_announced ||
		 ranges_dereg(ranges, entry, unpin) == -ENOENT)
		unpin(entry);
	free(entry);
}

/* The oldest that are not used go, if there are too many. */
static void flush(struct domain *domain, bool oldest)
{
	struct entry *gone, *entry, *next;

	mm_lock();
	DL_FOREACH_SAFE(domain->entries, entry, next)
	if (oldest && !entry->uses && domain->kept >= domain->most)
		uncache(entry);
	gone = domain->dead;
	domain->dead = NULL;
	mm_unlock();
	DL_FOREACH_SAFE(gone, entry, next)
	unregister(entry);
}

static bool is_within(const char *addr, size_t length,
		      const struct entry *entry)
{
	return addr >= entry->addr &&
	       addr + length <= entry->addr + entry->length;
}

/* One that holds the range, or is held by it. */
static struct entry *find_entry(struct domain *domain, const char *addr,
				size_t length)
{
	struct entry *entry;

	DL_FOREACH(domain->entries, entry)
	if (is_within(addr, length, entry) ||
	    (entry->addr >= addr &&
	     entry->addr + entry->length <= addr + length))
		return entry;
	return NULL;
}

static struct entry *create(struct domain *domain, const char *addr,
			    size_t length)
{
	struct entry *entry = calloc(1, sizeof(*entry));

	if (!entry)
		abort();
	*entry = (struct entry){addr,  length, {0},  domain, 1,
				false, NULL,   NULL, NULL};
	if (!add_region(entry)) {
		free(entry);
		return NULL;
	}
	mm_lock();
	if (find_entry(domain, addr, length)) {
		/* Another thread was faster: all over again. */
		mm_unlock();
		unregister(entry);
		return use(domain, addr, length);
	}
	if (domain->kept < domain->most) {
		DL_APPEND(domain->entries, entry);
		entry->is_cached = true;
		domain->kept++;
		if (fi.monitor->export_ops->subscribe(fi.monitor, addr,
						      length)) {
			DL_DELETE(domain->entries, entry);
			entry->is_cached = false;
			domain->kept--;
		}
	}
	mm_unlock();
	return entry;
}

static struct entry *use(struct domain *domain, const void *addr, size_t length)
{
	struct entry *entry;

	flush(domain, true);
	mm_lock();
	entry = find_entry(domain, addr, length);
	if (entry && is_within(addr, length, entry) &&
	    fi.monitor->export_ops->valid(fi.monitor, entry->addr,
					  entry->length)) {
		entry->uses++;
		mm_unlock();
		return entry;
	}
	while ((entry = find_entry(domain, addr, length)))
		uncache(entry);
	mm_unlock();
	return create(domain, addr, length);
}

static void release(struct entry *entry)
{
	bool last;

	mm_lock();
	last = !--entry->uses && !entry->is_cached;
	mm_unlock();
	if (last)
		unregister(entry);
}

static struct domain *open_domain(bool is_announced)
{
	struct domain *domain = calloc(1, sizeof(*domain));
	bool is_first;

	if (!domain)
		abort();
	domain->most = 1000;
	domain->is_announced = is_announced;
	pthread_rwlock_wrlock(&fi.mm_list_rwlock);
	is_first = !fi.domains;
	LL_PREPEND(fi.domains, domain);
	pthread_rwlock_unlock(&fi.mm_list_rwlock);
	if (is_first)
		fi.monitor->export_ops->start(fi.monitor);
	return domain;
}

static void close_domain(struct domain *domain)
{
	bool is_last;

	domain->most = 0;
	flush(domain, true);
	pthread_rwlock_wrlock(&fi.mm_list_rwlock);
	LL_DELETE(fi.domains, domain);
	is_last = !fi.domains;
	pthread_rwlock_unlock(&fi.mm_list_rwlock);
	if (is_last)
		fi.monitor->export_ops->stop(fi.monitor);
	free(domain);
}

static int import(struct fid *fid, struct fid *monitor_fid, uint64_t flags)
{
	static struct fi_ops_mem_notify notify = {sizeof(notify), do_notify};

	(void)fid, (void)flags;
	if (fi.import_error)
		return fi.import_error;
	fi.monitor = (struct fid_mem_monitor *)monitor_fid;
	fi.monitor->import_ops = &notify;
	return 0;
}

static int no_close(struct fid *fid)
{
	(void)fid;
	return 0;
}

static int open_name(uint32_t version, const char *name, void *attr,
		     size_t attr_len, uint64_t flags, struct fid **fid,
		     void *context)
{
	static struct fi_ops ops = {
		.size = sizeof(ops), .close = no_close, .bind = import};
	static struct fid cache = {.ops = &ops};

	(void)attr, (void)context;
	assert_string_equal(name, "mr_cache");
	assert_true(version >= FI_VERSION(1, 13) && !attr_len && !flags);
	*fid = &cache;
	return fi.open_error;
}

static int getparams(struct fi_param **params, int *count)
{
	struct fi_param *all = calloc(3, sizeof(*all));

	if (!all)
		abort();
	all[0] = (struct fi_param){.name = "FI_MR_CACHE_MAX_COUNT",
				   .value = "7"};
	all[1] = (struct fi_param){.name = "FI_MR_CACHE_MONITOR",
				   .value = fi.setting};
	*params = all;
	*count = 2;
	return 0;
}

static void freeparams(struct fi_param *params)
{
	free(params);
}

static const struct fabric_functions functions = {getparams, freeparams,
						  open_name};

/* ---- what tests begin and end with ---------------------------------------------------- */

static _Atomic unsigned int checked, refused, told, keeps;
static unsigned int counted;

static void count_checked(bool is_refused)
{
	checked++;
	refused += is_refused;
}

static void count_told(void)
{
	told++;
}

static void count_keeping(bool keeping)
{
	if (keeping)
		keeps++;
	else
		keeps--;
}

static const struct fabric_hooks hooks = {count_keeping, count_checked,
					  count_told};

static void begin_fabric(void)
{
	pthread_mutexattr_t attr;

	memset(&fi, 0, sizeof(fi));
	checked = refused = told = keeps = counted = 0;
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK);
	pthread_mutex_init(&fi.mm_lock, &attr);
	pthread_rwlock_init(&fi.mm_list_rwlock, NULL);
	monitor = fake_monitor_new(FAKE_STATES | FAKE_FD);
	ranges = ranges_open(fake_monitor_base(monitor));
	assert_non_null(ranges);
	assert_int_equal(fabric_import(&functions, ranges, &hooks), 0);
}

static void finish_fabric(void)
{
	while (fi.domains)
		close_domain(fi.domains);
	assert_int_equal(keeps, 0);
	ranges_close(ranges);
	assert_int_equal(fake_monitors(), 0);
	assert_int_equal(fake_calls(FAKE_DEREG), fi.registrations);
	no_trouble();
}

/* What carries it is what is there now. */
static bool is_right(const struct entry *entry)
{
	size_t first, end;

	fake_pages((uintptr_t)entry->addr, entry->length, &first, &end);
	for (size_t i = first; i < end; i++)
		if (entry->versions[i - first] != fake_version(i))
			return false;
	return true;
}

static bool touch_range(struct domain *domain, size_t n, size_t pages)
{
	struct entry *entry = use(domain, page(n), pages * PAGE);
	bool right = is_right(entry);

	release(entry);
	return right;
}

/* Registrations since the last time. */
static unsigned int registered(void)
{
	unsigned int n = fi.registrations - counted;

	counted = fi.registrations;
	return n;
}

#define CHANGE(n, pages) fake_change(page(n), (pages)*PAGE)

/* ---- what is kept ------------------------------------------------------------------------ */

TEST(announced_is_kept_at_once)
{
	struct domain *domain;

	begin_fabric();
	domain = open_domain(true);
	assert_int_equal(keeps, 1);
	for (int i = 0; i < 5; i++)
		assert_true(touch_range(domain, 1, 2));
	assert_int_equal(registered(), 1);
	assert_int_equal(checked, 4);
	assert_int_equal(refused, 0);
	/* Once for each change. */
	for (int i = 0; i < 5; i++) {
		CHANGE(2, 1);
		assert_true(touch_range(domain, 1, 2));
		assert_true(touch_range(domain, 1, 2));
	}
	assert_int_equal(registered(), 5);
	assert_int_equal(refused, 5);
	/* What others change is of no interest. */
	CHANGE(3, 1);
	assert_true(touch_range(domain, 1, 2));
	assert_int_equal(registered(), 0);
	close_domain(domain);
	assert_int_equal(fake_watches(monitor), 0);
	finish_fabric();
}

TEST(the_second_time_if_not_announced)
{
	struct domain *domain;

	begin_fabric();
	domain = open_domain(false);
	for (int i = 0; i < 5; i++)
		assert_true(touch_range(domain, 1, 2));
	assert_int_equal(registered(), 2);
	/* The lookup that is refused is where it is armed again. */
	CHANGE(1, 1);
	for (int i = 0; i < 5; i++)
		assert_true(touch_range(domain, 1, 2));
	assert_true(registered() <= 2);
	finish_fabric();
}

/* Memory of which nothing can be told is registered for each use. */
TEST(what_cannot_be_watched_is_not_kept)
{
	struct domain *domain;

	begin_fabric();
	domain = open_domain(true);
	fake_fail(FAKE_WATCH, 1, FAKE_FOR_EVER, EOPNOTSUPP);
	for (int i = 0; i < 3; i++)
		assert_true(touch_range(domain, 1, 1));
	assert_int_equal(registered(), 3);
	assert_true(ranges_unwatched(ranges) >= 3);
	/*
	 * Nor if it was not always such memory, whoever sees the change first: from
	 * the third round on it is not the thread, which waits for nothing.
	 */
	for (int round = 0; round < 20; round++) {
		if (round == 1)
			fake_fail(FAKE_POLL, 1, FAKE_FOR_EVER, EINTR);
		fake_fail(FAKE_WATCH, 0, 0, 0);
		for (int i = 0; i < 3; i++)
			assert_true(touch_range(domain, 1, 1));
		assert_int_equal(registered(), 1);
		CHANGE(1, 1);
		fake_fail(FAKE_WATCH, 1, FAKE_FOR_EVER, EOPNOTSUPP);
		for (int i = 0; i < 3; i++)
			assert_true(touch_range(domain, 1, 1));
		assert_int_equal(registered(), 3);
	}
	fake_fail(FAKE_POLL, 0, 0, 0);
	fake_fail(FAKE_WATCH, 0, 0, 0);
	for (int i = 0; i < 3; i++)
		assert_true(touch_range(domain, 1, 1));
	assert_int_equal(registered(), 1);
	finish_fabric();
}

TEST(a_pin_that_fails)
{
	struct domain *domain;

	begin_fabric();
	domain = open_domain(true);
	fake_fail(FAKE_REG, 1, 1, EFAULT);
	assert_null(use(domain, page(1), PAGE));
	assert_int_equal(errno, EFAULT);
	assert_int_equal(fake_watches(monitor), 0);
	assert_true(touch_range(domain, 1, 1));
	assert_true(touch_range(domain, 1, 1));
	assert_int_equal(registered(), 1);
	finish_fabric();
}

TEST(a_deregistration_that_fails)
{
	static char mr;

	begin_fabric();
	open_domain(true);
	{
		struct entry entry = {.addr = page(1), .length = PAGE};

		assert_ptr_equal(ranges_reg(ranges, page(1), PAGE, pin, &entry),
				 &entry);
		fake_fail(FAKE_DEREG, 1, 1, EBUSY);
		assert_int_equal(ranges_dereg(ranges, &entry, unpin), EBUSY);
		assert_int_equal(fake_watches(monitor), 1);
		assert_int_equal(ranges_dereg(ranges, &entry, unpin), 0);
		assert_int_equal(fake_watches(monitor), 0);
		assert_int_equal(ranges_dereg(ranges, &entry, unpin), -ENOENT);
	}
	assert_int_equal(ranges_dereg(ranges, &mr, unpin), -ENOENT);
	fi.registrations++; /* the one that failed was counted, too */
	finish_fabric();
}

TEST(nothing_is_kept_if_the_monitor_breaks)
{
	struct domain *domain;

	begin_fabric();
	domain = open_domain(true);
	assert_true(touch_range(domain, 1, 1));
	assert_true(touch_range(domain, 2, 1));
	fake_fail(FAKE_READ, 1, FAKE_FOR_EVER, EIO);
	CHANGE(1, 1);
	/* Read where a new range is registered. */
	assert_true(touch_range(domain, 3, 1));
	assert_true(ranges_is_broken(ranges));
	registered();
	for (int i = 0; i < 3; i++)
		assert_true(touch_range(domain, 2, 1));
	assert_int_equal(registered(), 3);
	finish_fabric();
}

/* ---- several domains ------------------------------------------------------------------------ */

/* A range of both is right in neither, and comes back in both. */
TEST(two_domains)
{
	struct domain *a, *b;

	begin_fabric();
	a = open_domain(true);
	b = open_domain(true);
	for (int i = 0; i < 5; i++) {
		assert_true(touch_range(a, 1, 2));
		assert_true(touch_range(b, 1, 2));
		CHANGE(1, 1);
		/* One of them, while the other's is still there. */
		assert_true(touch_range(a, 1, 2));
		assert_true(touch_range(a, 1, 2));
		assert_true(touch_range(b, 1, 2));
		assert_true(touch_range(b, 1, 2));
		CHANGE(2, 1);
		assert_true(touch_range(b, 1, 2));
		CHANGE(2, 1);
		assert_true(touch_range(a, 1, 2));
	}
	/* Each domain at each use after a change, and no more. */
	assert_int_equal(registered(), 6 + 4 * 5);
	finish_fabric();
}

/* An entry that nobody announced outlives those of the same range that were. */
TEST(domains_of_both_kinds)
{
	struct domain *announced, *other;

	begin_fabric();
	other = open_domain(false);
	assert_true(touch_range(other, 1, 1));
	assert_true(touch_range(other, 1, 1));
	announced = open_domain(true);
	assert_true(touch_range(announced, 1, 1));
	close_domain(announced);
	registered();
	assert_true(touch_range(other, 1, 1));
	assert_int_equal(registered(), 0);
	CHANGE(1, 1);
	announced = open_domain(true);
	assert_true(touch_range(announced, 1, 1));
	assert_true(touch_range(other, 1, 1));
	finish_fabric();
}

/* A cache above another, as lnx has: its entry is made of that one's. */
TEST(a_domain_above_another)
{
	for (int announced = 0; announced < 2; announced++) {
		struct domain *low, *high;

		begin_fabric();
		low = open_domain(announced);
		high = open_domain(announced);
		high->below = low;
		for (int i = 0; i < 10; i++) {
			assert_true(touch_range(high, 1, 2));
			if (i % 3 == 0)
				CHANGE(1, 2);
			assert_true(touch_range(low, 1, 2));
		}
		finish_fabric();
		fresh(state);
	}
}

static void change_before_arming(enum fake_call call, enum fake_when when,
				 void *arg)
{
	/* After the pin, before the watch is made. */
	if (call == FAKE_WATCH && when == BEFORE && *(bool *)arg) {
		*(bool *)arg = false;
		fake_new_versions(page(1), 2 * PAGE);
	}
}

/* The window: pinned, then changed, then watched. Nobody is told of that. */
TEST(a_change_between_pin_and_watch)
{
	for (int above = 0; above < 2; above++) {
		bool armed = true;
		struct domain *domain, *low;

		begin_fabric();
		domain = low = open_domain(false);
		if (above) {
			domain = open_domain(false);
			domain->below = low;
		}
		fake_hook(change_before_arming, &armed);
		touch_range(domain, 1, 2);
		assert_false(armed);
		for (int i = 0; i < 4; i++)
			assert_true(touch_range(domain, 1, 2));
		finish_fabric();
		fresh(state);
	}
}

static void change_after_pin(enum fake_call call, enum fake_when when,
			     void *arg)
{
	if (call == FAKE_REG && when == AFTER && *(bool *)arg) {
		*(bool *)arg = false;
		CHANGE(1, 2);
	}
}

TEST(a_change_between_pin_and_subscribe)
{
	for (int announced = 0; announced < 2; announced++) {
		bool armed = false;
		struct domain *domain;

		begin_fabric();
		fake_hook(change_after_pin, &armed);
		domain = open_domain(announced);
		for (int i = 0; i < 3; i++) {
			armed = true;
			touch_range(domain, 1, 2);
			/* It is not kept, if it was registered at all. */
			assert_true(armed || !domain->entries);
			armed = false;
			assert_true(touch_range(domain, 1, 2));
			assert_true(touch_range(domain, 1, 2));
		}
		finish_fabric();
		fresh(state);
	}
}

/* An old entry of one, idle, and a new one of the other: telling takes both. */
TEST(what_is_told_takes_all_that_overlap)
{
	struct domain *a, *b;

	begin_fabric();
	a = open_domain(true);
	b = open_domain(true);
	touch_range(a, 1, 2);
	touch_range(b, 1, 2);
	CHANGE(1, 1);
	ranges_tell(ranges);
	assert_int_equal(told, 1);
	assert_null(a->entries);
	assert_null(b->entries);
	/* Nothing changed since: not again. */
	ranges_tell(ranges);
	assert_int_equal(told, 1);
	finish_fabric();
}

static void *ask(void *arg)
{
	fi.monitor->export_ops->valid(fi.monitor, page(9), PAGE);
	return arg;
}

/* Another thread, which has mm_lock, is answered. */
static void ask_from_another(void)
{
	struct timespec limit;
	pthread_t thread;

	pthread_create(&thread, NULL, ask, NULL);
	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += patience(10);
	if (!pthread_timedjoin_np(thread, NULL, &limit))
		return;
	fake_trouble("notify with a lock held that libfabric waits for");
	pthread_detach(thread);
}

TEST(it_is_told_without_locks)
{
	struct domain *domain;

	begin_fabric();
	domain = open_domain(true);
	touch_range(domain, 1, 1);
	CHANGE(1, 1);
	fi.in_notify = ask_from_another;
	ranges_tell(ranges);
	assert_null(fi.in_notify);
	finish_fabric();
}

static sem_t is_cleared, may_go_on;

static void meet(void)
{
	sem_post(&is_cleared);
	sem_wait(&may_go_on);
}

/* While it is told of a range, an entry of it comes that is not counted. */
TEST(an_entry_while_telling)
{
	/* Because it has changed, or because others need the room. */
	for (int crowded = 0; crowded < 2; crowded++) {
		struct domain *domain, *other;

		sem_init(&is_cleared, 0, 0);
		sem_init(&may_go_on, 0, 0);
		begin_fabric();
		domain = open_domain(false);
		touch_range(domain, 1, 1);
		touch_range(domain, 1, 1);
		fi.after_notify = meet;
		if (crowded) {
			fake_max_watches(monitor, 1);
			touch_range(domain, 3, 1);
		} else {
			CHANGE(1, 1);
		}
		sem_wait(&is_cleared);
		assert_true(touch_range(domain, 1, 1));
		sem_post(&may_go_on);
		assert_true(COMES(!fake_watches(monitor), 10));
		CHANGE(1, 1);
		other = open_domain(true);
		assert_true(touch_range(other, 1, 1));
		assert_true(touch_range(domain, 1, 1));
		finish_fabric();
		fresh(state);
	}
}

/* ---- at random, one thread -------------------------------------------------------------------- */

static uint64_t next_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed >> 11;
}

/* Three domains, ranges in and over each other, few of which are kept. */
static void play(uint64_t seed, unsigned int announced, bool unsubscribes)
{
	struct domain *domains[3];
	struct entry *held[4] = {NULL};

	begin_fabric();
	fi.unsubscribes = unsubscribes;
	for (unsigned int i = 0; i < 3; i++) {
		domains[i] = open_domain(announced >> i & 1);
		domains[i]->most = 2 + next_random(&seed) % 4;
	}
	if (next_random(&seed) % 8 == 0)
		fake_max_watches(monitor, 2);
	for (unsigned int step = 0; step < 60; step++) {
		struct domain *domain = domains[next_random(&seed) % 3];
		struct entry **hold = &held[next_random(&seed) % 4];
		size_t n = 1 + next_random(&seed) % 4;
		size_t pages = 1 + next_random(&seed) % 3;

		switch (next_random(&seed) % 6) {
		case 0:
			CHANGE(n, pages);
			break;
		case 1:
			if (*hold)
				release(*hold);
			*hold = use(domain, page(n), pages * PAGE);
			assert_true(is_right(*hold));
			break;
		case 2:
			ranges_tell(ranges);
			break;
		default:
			assert_true(touch_range(domain, n, pages));
		}
	}
	for (unsigned int i = 0; i < 4; i++)
		if (held[i])
			release(held[i]);
	finish_fabric();
}

/*
 * It is announced and not subscribed. What the same thread subscribes then is
 * another, which the end of the first does not end.
 */
TEST(a_cache_that_was_full)
{
	struct domain *full, *other;
	struct entry *entry;

	begin_fabric();
	full = open_domain(true);
	other = open_domain(false);
	full->most = 0;
	entry = use(full, page(1), PAGE);
	assert_true(touch_range(other, 1, 1));
	release(entry);
	CHANGE(1, 1);
	release(use(full, page(1), PAGE));
	assert_true(touch_range(other, 1, 1));
	finish_fabric();
}

TEST(at_random)
{
	for (uint64_t seed = 1; seed <= (SANITIZED ? 100 : 400); seed++) {
		play(seed * 0x9e3779b97f4a7c15, seed % 8, seed & 8);
		fresh(state);
	}
}

/* ---- threads ------------------------------------------------------------------------------------ */

#define RANGES	8u
#define WORKERS 4u

static struct {
	struct domain *domains[3];
	pthread_rwlock_t locks[RANGES]; /* for reading: it does not change */
	_Atomic bool is_over;
	_Atomic unsigned int wrong;
} crowd;

static void *work(void *arg)
{
	uint64_t seed = (uint64_t)(uintptr_t)arg;

	for (unsigned int i = 0; i < (SANITIZED ? 1500u : 6000u); i++) {
		size_t n = next_random(&seed) % RANGES;

		if (next_random(&seed) % 8 == 0) {
			pthread_rwlock_wrlock(&crowd.locks[n]);
			CHANGE(1 + 4 * n, 2);
			pthread_rwlock_unlock(&crowd.locks[n]);
		} else {
			pthread_rwlock_rdlock(&crowd.locks[n]);
			crowd.wrong += !touch_range(
				crowd.domains[next_random(&seed) % 3],
				1 + 4 * n, 2);
			pthread_rwlock_unlock(&crowd.locks[n]);
		}
	}
	return NULL;
}

/* A lock in the wrong order would end it here. */
static void together(unsigned int announced)
{
	pthread_t workers[WORKERS];

	begin_fabric();
	memset(&crowd, 0, sizeof(crowd));
	for (size_t i = 0; i < RANGES; i++)
		pthread_rwlock_init(&crowd.locks[i], NULL);
	for (unsigned int i = 0; i < 3; i++) {
		crowd.domains[i] = open_domain(announced >> i & 1);
		crowd.domains[i]->most = 6;
	}
	for (uintptr_t i = 0; i < WORKERS; i++)
		pthread_create(&workers[i], NULL, work,
			       (void *)(0x5eed + i * 77));
	for (unsigned int i = 0; i < WORKERS; i++)
		pthread_join(workers[i], NULL);
	assert_int_equal(crowd.wrong, 0);
	assert_true(refused > 0);
	finish_fabric();
}

TEST(threads_that_announce)
{
	together(7);
}

TEST(threads_that_do_not)
{
	together(0);
}

TEST(threads_of_both_kinds)
{
	together(5);
}

/* Memory that the program has freed does not stay registered. */
TEST(the_thread_tells)
{
	struct domain *domain;

	begin_fabric();
	domain = open_domain(false);
	touch_range(domain, 1, 1);
	touch_range(domain, 1, 1);
	touch_range(domain, 3, 1);
	assert_non_null(domain->entries);
	CHANGE(1, 1);
	assert_true(COMES(told, 10));
	finish_fabric();
}

/* As under a limit of descriptors that was lowered after it began. */
TEST(the_thread_tells_without_poll)
{
	struct domain *domain;

	begin_fabric();
	domain = open_domain(false);
	fake_fail(FAKE_POLL, 1, FAKE_FOR_EVER, EINVAL);
	for (unsigned int change = 1; change <= 3; change++) {
		touch_range(domain, 1, 1);
		touch_range(domain, 1, 1);
		assert_non_null(domain->entries);
		CHANGE(1, 1);
		assert_true(COMES(told >= change, 10));
	}
	fake_fail(FAKE_POLL, 0, 0, 0);
	finish_fabric();
}

/* Ranges end where others need the room; nothing else ends them. */
TEST(there_is_room_again)
{
	struct domain *domain;
	unsigned int i;

	begin_fabric();
	domain = open_domain(false);
	fake_max_watches(monitor, 8);
	for (size_t n = 0; n < 30; n++)
		assert_true(touch_range(domain, 1 + n, 1));
	for (i = 0; i < 1000; i++) {
		registered();
		assert_true(touch_range(domain, 50, 1));
		if (!registered())
			break;
		usleep(1000);
	}
	assert_true(i < 1000);
	finish_fabric();
}

/* ---- threads that are cancelled ---------------------------------------------------------- */

static struct entry of_cancelled;

static void subscribe(void)
{
	ranges_subscribe(ranges, page(1), PAGE, 1);
}

static void ask_if_valid(void)
{
	ranges_is_valid(ranges, page(1), PAGE, 1);
}

static void announce(void)
{
	of_cancelled = (struct entry){.addr = page(1), .length = PAGE};
	ranges_reg(ranges, page(1), PAGE, pin, &of_cancelled);
}

static void keep(void)
{
	announce();
	assert_true(ranges_subscribe(ranges, page(1), PAGE, 1));
}

static void keep_and_change(void)
{
	keep();
	CHANGE(1, 1);
}

static void end(void)
{
	ranges_dereg(ranges, &of_cancelled, unpin);
}

static void keep_and_end(void)
{
	keep();
	end();
}

static void no_entries(void)
{
	ranges_no_entries(ranges);
}

static void end_after_no_entries(void)
{
	announce();
	no_entries();
}

/* A driver's call may be a cancellation point; waking the thread is one. */
static void in_the_monitor(enum fake_call call, enum fake_when when, void *arg)
{
	(void)when, (void)arg;
	if (call == FAKE_WATCH || call == FAKE_UNWATCH)
		pthread_testcancel();
}

static _Atomic bool has_returned;

static void *act_cancelled(void *arg)
{
	void (**act)(void) = arg;
	int state;

	pthread_cancel(pthread_self());
	(*act)();
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	has_returned = true;
	return NULL;
}

/* Not with a lock of ours, which libfabric would wait for under its own. */
TEST(a_thread_is_not_cancelled_inside)
{
	static const struct {
		void (*prepare)(void);
		void (*act)(void);
		bool is_full, is_hooked;
	} cases[] = {
		{no_entries, subscribe, true, false},
		{no_entries, subscribe, false, true},
		{keep_and_change, ask_if_valid, true, false},
		{keep_and_change, ask_if_valid, false, true},
		{no_entries, announce, true, false},
		{no_entries, announce, false, true},
		{end_after_no_entries, end, false, true},
		{keep_and_end, no_entries, false, true},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		void (*act)(void) = cases[i].act;

		fresh(state);
		begin_fabric();
		cases[i].prepare();
		if (cases[i].is_full)
			fake_fail(FAKE_WATCH, 1, 1, ENOSPC);
		if (cases[i].is_hooked)
			fake_hook(in_the_monitor, NULL);
		has_returned = false;
		in_thread(act_cancelled, &act);
		fake_hook(NULL, NULL);
		assert_true(has_returned);
		ask_from_another();
		no_trouble();
		/* What is not ended yet; without a watch it was not announced. */
		end();
		if (fake_calls(FAKE_DEREG) < fi.registrations)
			unpin(&of_cancelled);
		finish_fabric();
	}
}

/* ---- the rest ---------------------------------------------------------------------------------------- */

TEST(what_the_user_wishes)
{
	begin_fabric();
	assert_int_equal(fabric_wish(&functions), FABRIC_NONE);
	fi.setting = "disabled";
	assert_int_equal(fabric_wish(&functions), FABRIC_DISABLED);
	fi.setting = "memhooks";
	assert_int_equal(fabric_wish(&functions), FABRIC_OTHER);
	fi.setting = NULL;
	fi.import_error = -FI_EBUSY;
	assert_int_equal(fabric_import(&functions, ranges, &hooks), -FI_EBUSY);
	fi.open_error = -FI_ENOSYS;
	assert_int_equal(fabric_import(&functions, ranges, &hooks), -FI_ENOSYS);
	finish_fabric();
}

TEST(it_wants_state_words)
{
	monitor = fake_monitor_new(0);
	errno = 0;
	assert_null(ranges_open(fake_monitor_base(monitor)));
	assert_int_equal(errno, EOPNOTSUPP);
	assert_int_equal(fake_monitors(), 0);
}

TEST(a_child_keeps_nothing)
{
	struct domain *domain;
	int status;
	pid_t pid;

	begin_fabric();
	domain = open_domain(true);
	assert_true(touch_range(domain, 1, 1));
	pid = fork();
	if (!pid) {
		unsigned int calls = fake_monitor_calls(), wrong = 0;

		for (int i = 0; i < 3; i++)
			wrong += !touch_range(domain, 1, 1);
		_exit(wrong || fi.registrations != 4 ||
		      fake_monitor_calls() != calls);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	registered();
	assert_true(touch_range(domain, 1, 1));
	assert_int_equal(registered(), 0);
	finish_fabric();
}

TEST(without_memory)
{
	struct domain *domain;

	/* Each allocation of the monitor's in turn, and all after it. */
	for (unsigned int n = 1; n < 12; n++) {
		begin_fabric();
		domain = open_domain(true);
		fake_allocates++;
		assert_true(touch_range(domain, 5, 1));
		fake_allocates--;
		fake_fail(FAKE_MEMORY, n, 1, ENOMEM);
		for (int i = 0; i < 3; i++) {
			struct entry entry = {.addr = page(1), .length = PAGE};
			void *mr =
				ranges_reg(ranges, page(1), PAGE, pin, &entry);

			assert_ptr_equal(mr, &entry);
			mm_lock();
			if (!fi.monitor->export_ops->subscribe(fi.monitor,
							       page(1), PAGE))
				assert_true(fi.monitor->export_ops->valid(
					fi.monitor, page(1), PAGE));
			mm_unlock();
			if (ranges_dereg(ranges, mr, unpin) == -ENOENT)
				unpin(mr);
		}
		fake_fail(FAKE_MEMORY, 0, 0, 0);
		finish_fabric();
		fresh(state);
	}
}

int main(void)
{
	return run_cases(NULL, NULL);
}
