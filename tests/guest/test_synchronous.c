/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * When the call that changed a mapping returns, the counter and the state words
 * already say so: in the same thread, in another, and for another process's
 * call on a shared file. Who sees the counter changed sees the words changed.
 */
#include "case.h"
#include "support.h"
#include "umn.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define COOKIE 1

CASE(in_the_same_thread)
{
	enum { ROUNDS = 2000 };
	struct ummunotify_watch_ioctl w;
	struct umn u;
	uint64_t i;
	char *p;

	assert_int_equal(umn_start(&u, UMN_ALL), 0);
	for (i = 0; i < ROUNDS; i++) {
		p = pages_map(1);
		assert_non_null(p);
		assert_int_equal(umn_watch(u.fd, p, PAGE, COOKIE, 0, &w), 0);
		assert_true(umn_clean(&u, w.slot, w.state));
		assert_int_equal(umn_counter(&u), i);
		assert_int_equal(pages_unmap(p, 1), 0);
		assert_int_equal(umn_counter(&u), i + 1);
		assert_int_equal(umn_word(&u, w.slot),
				 w.state | UMMUNOTIFY_KIND_UNMAP);
		assert_int_equal(umn_unregister(u.fd, COOKIE), 0);
	}
	umn_stop(&u);
}

struct helper {
	char *page;
	_Atomic int go;
	_Atomic int done;
};

static void *unmap_on_command(void *argument)
{
	struct helper *h = argument;
	int round;

	for (round = 1;; round++) {
		while (h->go != round && h->go >= 0)
			sched_yield();
		if (h->go < 0)
			return NULL;
		if (pages_unmap(h->page, 1))
			return h;
		h->done = round;
	}
}

CASE(in_another_thread)
{
	enum { ROUNDS = 500 };
	struct ummunotify_rearm_ioctl w;
	struct ummunotify_watch_ioctl watch;
	static struct helper h; /* outlives a failed test */
	pthread_t thread;
	void *result;
	struct umn u;
	int i;

	assert_int_equal(umn_start(&u, UMN_ALL), 0);
	assert_int_equal(pthread_create(&thread, NULL, unmap_on_command, &h),
			 0);
	h.page = pages_map(1);
	assert_int_equal(umn_watch(u.fd, h.page, PAGE, COOKIE, 0, &watch), 0);
	for (i = 1; i <= ROUNDS; i++) {
		assert_ptr_equal(mmap(h.page, PAGE, PROT_READ | PROT_WRITE,
				      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED |
					      MAP_POPULATE,
				      -1, 0),
				 h.page);
		assert_int_equal(umn_rearm(u.fd, COOKIE, &w), 0);
		assert_true(umn_clean(&u, w.slot, w.state));
		h.go = i;
		while (h.done != i)
			sched_yield();
		assert_false(umn_clean(&u, w.slot, w.state));
	}
	h.go = -1;
	pthread_join(thread, &result);
	assert_null(result);
	umn_stop(&u);
}

/* ---- another process ----------------------------------------------------- */

/* Does to the file what it is told, and answers when the call has returned. */
static int serve(int commands, int answers, int file)
{
	const off_t size = 2 * PAGE;
	char command;
	int ret;

	while (get_byte(commands, &command)) {
		switch (command) {
		case 'p':
			ret = fallocate(file,
					FALLOC_FL_PUNCH_HOLE |
						FALLOC_FL_KEEP_SIZE,
					PAGE, PAGE);
			break;
		case 't':
			ret = ftruncate(file, PAGE);
			break;
		case 'g':
			ret = ftruncate(file, size);
			break;
		default:
			ret = -1;
		}
		if (!put_byte(answers, ret ? 'n' : 'y'))
			return 1;
	}
	return 0;
}

CASE(by_another_process)
{
	enum { ROUNDS = 200 };
	static const char commands[] = "pt";
	int to[2], from[2], file, i;
	struct ummunotify_watch_ioctl watch;
	struct ummunotify_rearm_ioctl w;
	struct umn u;
	pid_t child;
	char answer;
	char *p;

	file = memfd_create("shared", MFD_CLOEXEC);
	assert_true(file >= 0);
	assert_int_equal(ftruncate(file, 2 * PAGE), 0);
	assert_int_equal(pipe(to), 0);
	assert_int_equal(pipe(from), 0);
	child = fork();
	assert_true(child >= 0);
	if (!child) {
		close(to[1]);
		_exit(serve(to[0], from[1], file));
	}

	assert_int_equal(umn_start(&u, UMN_ALL), 0);
	p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	assert_int_equal(umn_watch(u.fd, p + PAGE, PAGE, COOKIE, 0, &watch), 0);
	for (i = 0; i < ROUNDS; i++) {
		*(volatile char *)(p + PAGE) = 1;
		assert_int_equal(umn_rearm(u.fd, COOKIE, &w), 0);
		assert_true(umn_clean(&u, w.slot, w.state));
		assert_true(put_byte(to[1], commands[i & 1]));
		assert_true(get_byte(from[0], &answer));
		assert_int_equal(answer, 'y');
		assert_int_equal(umn_word(&u, w.slot),
				 w.state | UMMUNOTIFY_KIND_CLEAR);
		assert_true(put_byte(to[1], 'g'));
		assert_true(get_byte(from[0], &answer));
		assert_int_equal(answer, 'y');
	}
	assert_int_equal(umn_counter(&u), ROUNDS);
	close(to[1]);
	assert_int_equal(child_result(child), 0);
	close(to[0]);
	close(from[0]);
	close(from[1]);
	munmap(p, 2 * PAGE);
	close(file);
	umn_stop(&u);
}

/* ---- order ------------------------------------------------------------------- */

#define WATCHES 20000

struct observer {
	const struct umn *u;
	struct ummunotify_watch_ioctl *watches;
	uint64_t before;
	_Atomic int ready;
	int clean; /* words that were clean when the counter had changed */
};

/* From the last address down: the way opposite to the driver's. */
static void *observe(void *argument)
{
	struct observer *o = argument;
	int i;

	o->ready = 1;
	while (umn_counter(o->u) == o->before)
		;
	for (i = WATCHES - 1; i >= 0; i--)
		o->clean += umn_clean(o->u, o->watches[i].slot,
				      o->watches[i].state);
	return NULL;
}

CASE(words_change_before_the_counter)
{
	enum { ROUNDS = 5 };
	struct ummunotify_watch_ioctl *watches;
	struct ummunotify_rearm_ioctl w;
	static struct observer o;
	pthread_t thread;
	struct umn u;
	int round, i;
	char *p;

	assert_int_equal(umn_start(&u, UMN_ALL), 0);
	watches = calloc(WATCHES, sizeof(*watches));
	assert_non_null(watches);
	p = pages_map(1);
	assert_non_null(p);
	for (i = 0; i < WATCHES; i++)
		assert_int_equal(
			umn_watch(u.fd, p + i % PAGE, 1, i, 0, &watches[i]), 0);
	for (round = 0; round < ROUNDS; round++) {
		for (i = 0; i < WATCHES; i++) {
			assert_int_equal(umn_rearm(u.fd, i, &w), 0);
			watches[i].state = w.state;
		}
		*(volatile char *)p = 1;
		o = (struct observer){
			.u = &u, .watches = watches, .before = umn_counter(&u)};
		assert_int_equal(pthread_create(&thread, NULL, observe, &o), 0);
		while (!o.ready)
			sched_yield();
		assert_int_equal(madvise(p, PAGE, MADV_DONTNEED), 0);
		pthread_join(thread, NULL);
		assert_int_equal(o.clean, 0);
	}
	free(watches);
	pages_unmap(p, 1);
	umn_stop(&u);
}

int main(void)
{
	return run_cases(NULL, NULL);
}
