/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Everything at once: threads make, arm and end watches, invalidate what they
 * watch, and read, also into bad buffers. Afterwards nothing is lost: each watch
 * whose word is dirty was reported since it was armed, and what one last
 * invalidation reports is exactly what was armed.
 */
#include "case.h"
#include "support.h"
#include "umn.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RANGE	   64  /* pages watched and invalidated */
#define EACH	   256 /* watches of one thread: a walk over all lets go */
#define WATCHERS   2   /* threads that make and end watches */
#define DISTURBERS 2   /* threads that invalidate */
#define STEPS	   5000

enum kind { NONE, WORD, REGION };

/* What the thread that made it knows of a watch; cookie: index in watches. */
struct known {
	enum kind kind;
	uint32_t slot, state;
	uint32_t told_before; /* reports of this cookie before it was armed */
};

static struct umn u;
static char *range;
static struct known watches[WATCHERS * EACH];
static _Atomic uint32_t told[WATCHERS * EACH]; /* by whoever reads */
static _Atomic int watchers_left;

struct part {
	pthread_t thread;
	int number;
};

static unsigned int next(unsigned int *random)
{
	*random = *random * 1664525 + 1013904223;
	return *random >> 16;
}

static bool change(struct known *known, uint64_t cookie, unsigned int *random)
{
	const size_t start = next(random) % RANGE;
	const size_t length = 1 + next(random) % (RANGE - start);
	char *p = range + start * PAGE;
	struct ummunotify_watch_ioctl w;
	struct ummunotify_rearm_ioctl r;
	const uint32_t told_before = told[cookie];

	if (known->kind == NONE && next(random) % 2) {
		known->kind = REGION;
		return !umn_register(u.fd, p, length * PAGE, cookie);
	}
	if (known->kind == NONE) {
		if (umn_watch(u.fd, p, length * PAGE, cookie, 0, &w))
			return false;
		*known = (struct known){WORD, w.slot, w.state, told_before};
		return true;
	}
	if (known->kind == WORD && next(random) % 4) {
		if (umn_rearm(u.fd, cookie, &r) || r.slot != known->slot ||
		    r.state == known->state)
			return false;
		known->state = r.state;
		known->told_before = told_before;
		return true;
	}
	known->kind = NONE;
	return !umn_unregister(u.fd, cookie);
}

static void *watcher(void *argument)
{
	const struct part *part = argument;
	unsigned int random = part->number;
	void *failed = NULL;
	int i;

	for (i = 0; i < STEPS && !failed; i++) {
		unsigned int cookie =
			part->number * EACH + next(&random) % EACH;

		if (!change(&watches[cookie], cookie, &random))
			failed = argument;
	}
	watchers_left--;
	return failed;
}

static void *disturber(void *argument)
{
	const struct part *part = argument;
	unsigned int random = 100 + part->number;

	while (watchers_left) {
		size_t start = next(&random) % RANGE;
		size_t length = 1 + next(&random) % (RANGE - start);

		*(volatile char *)(range + start * PAGE) = 1;
		if (madvise(range + start * PAGE, length * PAGE, MADV_DONTNEED))
			return argument;
	}
	return NULL;
}

static void *reader(void *argument)
{
	struct ummunotify_event e[16];
	unsigned int random = 200;
	int got, i;

	while (watchers_left) {
		if (!(next(&random) % 4)) {
			if (read(u.fd, (void *)PAGE, sizeof(e)) >= 0 ||
			    (errno != EFAULT && errno != EAGAIN))
				return argument;
			continue;
		}
		got = umn_read(u.fd, e, 1 + next(&random) % 16);
		if (got < 0 && got != -EAGAIN)
			return argument;
		for (i = 0; i < got; i++) {
			if (e[i].type != UMMUNOTIFY_EVENT_TYPE_INVAL)
				continue;
			if (e[i].user_cookie_counter >= WATCHERS * EACH)
				return argument;
			told[e[i].user_cookie_counter]++;
		}
	}
	return NULL;
}

static void run_all(void)
{
	struct part watcher_parts[WATCHERS], others[DISTURBERS + 1];
	void *result;
	int i, failed = 0;

	watchers_left = WATCHERS;
	for (i = 0; i < WATCHERS; i++) {
		watcher_parts[i].number = i;
		assert_int_equal(pthread_create(&watcher_parts[i].thread, NULL,
						watcher, &watcher_parts[i]),
				 0);
	}
	for (i = 0; i <= DISTURBERS; i++) {
		others[i].number = i;
		assert_int_equal(
			pthread_create(&others[i].thread, NULL,
				       i < DISTURBERS ? disturber : reader,
				       &others[i]),
			0);
	}
	for (i = 0; i < WATCHERS; i++) {
		pthread_join(watcher_parts[i].thread, &result);
		failed += !!result;
	}
	for (i = 0; i <= DISTURBERS; i++) {
		pthread_join(others[i].thread, &result);
		failed += !!result;
	}
	assert_int_equal(failed, 0);
}

CASE(nothing_is_lost)
{
	struct ummunotify_event e[WATCHERS * EACH];
	bool expected[WATCHERS * EACH] = {};
	int i, count = 0, wanted = 0, made = 0, got;
	uint64_t before, last = 0;

	assert_int_equal(umn_start(&u, UMN_ALL), 0);
	range = pages_map(RANGE);
	assert_non_null(range);
	run_all();
	/* Also if the reader hardly came to read: what is left stays. */
	for (i = 0; i < 8; i++)
		assert_int_equal(read(u.fd, (void *)PAGE, sizeof(e)) < 0, 1);

	got = umn_drain(u.fd, e, WATCHERS * EACH, NULL);
	assert_in_range(got, 0, WATCHERS * EACH);
	for (i = 0; i < got; i++)
		told[e[i].user_cookie_counter]++;
	for (i = 0; i < WATCHERS * EACH; i++) {
		const struct known *k = &watches[i];

		made += k->kind != NONE;
		expected[i] =
			k->kind == REGION ||
			(k->kind == WORD && umn_clean(&u, k->slot, k->state));
		wanted += expected[i];
		if (k->kind == WORD && !expected[i])
			assert_true(told[i] > k->told_before);
	}
	assert_int_equal(umn_fdinfo(u.fd, "ummunotify-watches"), made);
	assert_int_equal(umn_fdinfo(u.fd, "ummunotify-pending"), 0);
	assert_true(wanted > 0);

	memset(range, 1, RANGE * PAGE);
	before = umn_counter(&u);
	assert_int_equal(madvise(range, RANGE * PAGE, MADV_DONTNEED), 0);
	assert_int_equal(umn_counter(&u), before + 1);
	got = umn_drain(u.fd, e, WATCHERS * EACH, &last);
	assert_int_equal(got, wanted);
	assert_int_equal(last, before + 1);
	for (i = 0; i < got; i++) {
		assert_true(expected[e[i].user_cookie_counter]);
		expected[e[i].user_cookie_counter] = false;
		count++;
	}
	assert_int_equal(count, wanted);
	for (i = 0; i < WATCHERS * EACH; i++)
		if (watches[i].kind == WORD)
			assert_false(umn_clean(&u, watches[i].slot,
					       watches[i].state));
	for (i = 0; i < WATCHERS * EACH; i++)
		if (watches[i].kind != NONE)
			assert_int_equal(umn_unregister(u.fd, i), 0);
	assert_int_equal(umn_fdinfo(u.fd, "ummunotify-watches"), 0);
	pages_unmap(range, RANGE);
	umn_stop(&u);
}

/* Files come and go while others of the process are hit. */
static void *open_and_close(void *argument)
{
	int *rounds = argument;
	struct umn own;

	while (--*rounds) {
		if (umn_start(&own, UMN_ALL))
			return argument;
		umn_stop(&own);
	}
	return NULL;
}

CASE(files_come_and_go)
{
	static int rounds = 50;
	uint64_t hits = 0;
	pthread_t thread;
	void *result;
	char *p;

	assert_int_equal(umn_start(&u, UMN_ALL), 0);
	p = pages_map(1);
	assert_non_null(p);
	assert_int_equal(umn_register(u.fd, p, PAGE, 1), 0);
	assert_int_equal(pthread_create(&thread, NULL, open_and_close, &rounds),
			 0);
	while (pthread_tryjoin_np(thread, &result) == EBUSY) {
		*(volatile char *)p = 1;
		assert_int_equal(madvise(p, PAGE, MADV_DONTNEED), 0);
		assert_int_equal(umn_counter(&u), ++hits);
	}
	assert_null(result);
	pages_unmap(p, 1);
	umn_stop(&u);
}

/* What loses reports may make others wait for ever. */
static void takes_too_long(int signal)
{
	static const char line[] = "not ok 1 - nothing_is_lost: no end\n";
	ssize_t written = write(STDOUT_FILENO, line, sizeof(line) - 1);

	(void)signal;
	(void)written;
	_exit(1);
}

int main(void)
{
	const struct sigaction action = {.sa_handler = takes_too_long};

	sigaction(SIGALRM, &action, NULL);
	alarm(100);
	return run_cases(NULL, NULL);
}
