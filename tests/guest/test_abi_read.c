/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How reports reach the program: read() in all its lengths and failures,
 * blocking, poll and SIGIO. No report is ever lost, no LAST forgotten.
 */
#include "case.h"
#include "patience.h"
#include "support.h"
#include "umn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define EVENT sizeof(struct ummunotify_event)
#define MANY  300

/* A device, `count` watches with cookies 0 .. count - 1 on one page each. */
struct scene {
	struct umn u;
	char *pages;
	size_t count;
};

static void begin(struct scene *s, size_t count)
{
	size_t i;

	assert_int_equal(umn_start(&s->u, 0), 0);
	s->count = count;
	s->pages = pages_map(count);
	assert_non_null(s->pages);
	for (i = 0; i < count; i++)
		assert_int_equal(
			umn_register(s->u.fd, s->pages + i * PAGE, PAGE, i), 0);
}

static void hit_all(struct scene *s)
{
	assert_int_equal(pages_unmap(s->pages, s->count), 0);
}

static void finish(struct scene *s)
{
	umn_stop(&s->u);
	pages_unmap(s->pages, s->count);
}

static void expect_last(const struct ummunotify_event *e, uint64_t counter)
{
	assert_int_equal(e->type, UMMUNOTIFY_EVENT_TYPE_LAST);
	assert_int_equal(e->user_cookie_counter, counter);
}

/* Reads all there is: each cookie below `count` once, then LAST. */
static void expect_all_reports(struct scene *s, size_t count, uint64_t counter)
{
	struct ummunotify_event e[MANY];
	bool seen[MANY] = {};
	uint64_t last = ~counter;
	size_t i;

	assert_int_equal(umn_drain(s->u.fd, e, MANY, &last), count);
	assert_int_equal(last, counter);
	for (i = 0; i < count; i++) {
		assert_true(e[i].user_cookie_counter < count);
		assert_false(seen[e[i].user_cookie_counter]);
		seen[e[i].user_cookie_counter] = true;
	}
}

CASE(nothing_pending)
{
	struct ummunotify_event e[2];
	struct scene s;

	begin(&s, 1);
	assert_int_equal(umn_read(s.u.fd, e, 2), -EAGAIN);
	assert_int_equal(read(s.u.fd, e, EVENT - 1), -1);
	assert_int_equal(errno, EAGAIN);
	finish(&s);
}

CASE(last_comes_along_if_there_is_room)
{
	struct ummunotify_event e[4];
	struct scene s;

	begin(&s, 2);
	hit_all(&s);
	assert_int_equal(umn_read(s.u.fd, e, 4), 3);
	expect_last(&e[2], 1);
	assert_int_equal(umn_read(s.u.fd, e, 4), -EAGAIN);
	finish(&s);
}

CASE(last_comes_later_if_there_was_none)
{
	struct ummunotify_event e[2];
	struct scene s;

	begin(&s, 2);
	hit_all(&s);
	assert_int_equal(umn_read(s.u.fd, e, 2), 2);
	assert_int_equal(e[0].type, UMMUNOTIFY_EVENT_TYPE_INVAL);
	assert_int_equal(e[1].type, UMMUNOTIFY_EVENT_TYPE_INVAL);
	assert_int_equal(umn_read(s.u.fd, e, 2), 1);
	expect_last(&e[0], 1);
	assert_int_equal(umn_read(s.u.fd, e, 2), -EAGAIN);
	finish(&s);
}

CASE(one_by_one)
{
	struct ummunotify_event e;
	unsigned int seen = 0;
	struct scene s;
	int i;

	begin(&s, 3);
	hit_all(&s);
	for (i = 0; i < 3; i++) {
		assert_int_equal(umn_read(s.u.fd, &e, 1), 1);
		assert_int_equal(e.type, UMMUNOTIFY_EVENT_TYPE_INVAL);
		seen |= 1u << e.user_cookie_counter;
	}
	assert_int_equal(seen, 7);
	assert_int_equal(umn_read(s.u.fd, &e, 1), 1);
	expect_last(&e, 1);
	assert_int_equal(umn_read(s.u.fd, &e, 1), -EAGAIN);
	finish(&s);
}

/* LAST says how things are when it is read, not when the list ran empty. */
CASE(a_late_last_is_up_to_date)
{
	struct ummunotify_event e[2];
	struct scene s;

	begin(&s, 2);
	assert_int_equal(pages_unmap(s.pages, 1), 0);
	assert_int_equal(umn_read(s.u.fd, e, 1), 1);
	assert_int_equal(e[0].user_cookie_counter, 0);
	assert_int_equal(pages_unmap(s.pages + PAGE, 1), 0);
	assert_int_equal(umn_read(s.u.fd, e, 2), 2);
	assert_int_equal(e[0].type, UMMUNOTIFY_EVENT_TYPE_INVAL);
	assert_int_equal(e[0].user_cookie_counter, 1);
	expect_last(&e[1], 2);
	finish(&s);
}

CASE(events_are_whole)
{
	unsigned char buffer[3 * EVENT];
	struct ummunotify_event *e = (void *)buffer;
	struct scene s;
	size_t i;

	begin(&s, 2);
	hit_all(&s);
	memset(buffer, 0xcc, sizeof(buffer));
	assert_int_equal(read(s.u.fd, buffer, 0), 0);
	assert_int_equal(read(s.u.fd, buffer, EVENT - 1), 0);
	for (i = 0; i < sizeof(buffer); i++)
		assert_int_equal(buffer[i], 0xcc);
	assert_int_equal(read(s.u.fd, buffer, 2 * EVENT - 1), EVENT);
	for (i = EVENT; i < sizeof(buffer); i++)
		assert_int_equal(buffer[i], 0xcc);
	assert_int_equal(read(s.u.fd, buffer, EVENT), EVENT);
	assert_int_equal(e->type, UMMUNOTIFY_EVENT_TYPE_INVAL);
	/* Too short for the LAST that is owed: it stays owed. */
	assert_int_equal(read(s.u.fd, buffer, EVENT - 1), 0);
	assert_int_equal(read(s.u.fd, buffer, sizeof(buffer)), EVENT);
	expect_last(e, 1);
	finish(&s);
}

CASE(at_most_128_in_one_read)
{
	struct ummunotify_event e[MANY];
	bool seen[MANY] = {};
	struct scene s;
	int got, i, sum = 0;

	begin(&s, 2 * 128 + 1);
	hit_all(&s);
	assert_int_equal(umn_counter(&s.u), 1);
	while (sum < 2 * 128) {
		got = umn_read(s.u.fd, e, MANY);
		assert_int_equal(got, 128);
		for (i = 0; i < got; i++) {
			assert_int_equal(e[i].type,
					 UMMUNOTIFY_EVENT_TYPE_INVAL);
			assert_true(e[i].user_cookie_counter < s.count);
			assert_false(seen[e[i].user_cookie_counter]);
			seen[e[i].user_cookie_counter] = true;
		}
		sum += got;
	}
	assert_int_equal(umn_read(s.u.fd, e, MANY), 2);
	assert_false(seen[e[0].user_cookie_counter]);
	expect_last(&e[1], 1);
	finish(&s);
}

CASE(reports_survive_a_bad_buffer)
{
	struct scene s;
	int again;

	begin(&s, 5);
	hit_all(&s);
	for (again = 0; again < 3; again++) {
		assert_int_equal(read(s.u.fd, (void *)PAGE, 64 * EVENT), -1);
		assert_int_equal(errno, EFAULT);
	}
	expect_all_reports(&s, 5, 1);
	finish(&s);
}

CASE(reports_survive_a_half_bad_buffer)
{
	struct scene s;
	char *p;

	p = pages_map(2);
	assert_non_null(p);
	assert_int_equal(mprotect(p + PAGE, PAGE, PROT_NONE), 0);
	begin(&s, 5);
	hit_all(&s);
	/* Two reports would fit, the third is cut, then only LAST would not. */
	assert_int_equal(read(s.u.fd, p + PAGE - 2 * EVENT - 8, 6 * EVENT), -1);
	assert_int_equal(errno, EFAULT);
	assert_int_equal(read(s.u.fd, p + PAGE - 5 * EVENT, 6 * EVENT), -1);
	assert_int_equal(errno, EFAULT);
	expect_all_reports(&s, 5, 1);
	pages_unmap(p, 2);
	finish(&s);
}

CASE(last_survives_a_bad_buffer)
{
	struct ummunotify_event e[2];
	struct scene s;

	begin(&s, 2);
	hit_all(&s);
	assert_int_equal(umn_read(s.u.fd, e, 2), 2);
	assert_int_equal(read(s.u.fd, (void *)PAGE, 2 * EVENT), -1);
	assert_int_equal(errno, EFAULT);
	assert_int_equal(umn_read(s.u.fd, e, 2), 1);
	expect_last(&e[0], 1);
	assert_int_equal(umn_read(s.u.fd, e, 2), -EAGAIN);
	finish(&s);
}

CASE(a_failed_read_leaves_watches_armed)
{
	struct ummunotify_event e[3];
	struct scene s;
	char *p;

	assert_int_equal(umn_start(&s.u, 0), 0);
	p = pages_map(2);
	assert_non_null(p);
	assert_int_equal(umn_register(s.u.fd, p, 2 * PAGE, 1), 0);
	assert_int_equal(pages_unmap(p, 1), 0);
	assert_int_equal(read(s.u.fd, (void *)PAGE, EVENT), -1);
	assert_int_equal(errno, EFAULT);
	assert_int_equal(pages_unmap(p + PAGE, 1), 0);
	assert_int_equal(umn_counter(&s.u), 2);
	assert_int_equal(umn_read(s.u.fd, e, 3), 2);
	assert_int_equal(e[0].type, UMMUNOTIFY_EVENT_TYPE_INVAL);
	assert_int_equal(e[0].flags, 0);
	assert_int_equal(e[0].hint_start, (uintptr_t)p);
	assert_int_equal(e[0].hint_end, (uintptr_t)p + 2 * PAGE);
	expect_last(&e[1], 2);
	umn_stop(&s.u);
}

/* ---- blocking ------------------------------------------------------------ */

struct reader {
	pthread_t thread;
	_Atomic pid_t tid;
	int fd;
	int error;
	_Atomic int got; /* written last */
	struct ummunotify_event events[4];
};

static void *read_once(void *argument)
{
	struct reader *r = argument;

	int got;

	r->tid = thread_id();
	got = read(r->fd, r->events, sizeof(r->events));
	r->error = errno;
	r->got = got;
	return NULL;
}

static void start_reader(struct reader *r, int fd)
{
	memset(r, 0, sizeof(*r));
	r->fd = fd;
	assert_int_equal(fcntl(fd, F_SETFL, 0), 0);
	assert_int_equal(pthread_create(&r->thread, NULL, read_once, r), 0);
	while (!r->tid)
		sched_yield();
	assert_true(wait_blocked(r->tid, SYS_read));
}

CASE(munmap_wakes_a_reader)
{
	static struct reader r;
	struct scene s;

	begin(&s, 1);
	start_reader(&r, s.u.fd);
	hit_all(&s);
	pthread_join(r.thread, NULL);
	assert_int_equal(r.got, 2 * EVENT);
	assert_int_equal(r.events[0].type, UMMUNOTIFY_EVENT_TYPE_INVAL);
	expect_last(&r.events[1], 1);
	finish(&s);
}

/*
 * With watches that report once: those of 2010 are armed again by the read, so
 * a reader that is quick enough to read before munmap has ended gets a second
 * report, at its end.
 */
CASE(one_report_wakes_one_reader)
{
	static struct reader a, b;
	struct ummunotify_watch_ioctl watch;
	struct scene s = {.count = 2, .pages = pages_map(2)};
	size_t i;

	assert_non_null(s.pages);
	assert_int_equal(umn_start(&s.u, UMN_ALL), 0);
	for (i = 0; i < s.count; i++)
		assert_int_equal(umn_watch(s.u.fd, s.pages + i * PAGE, PAGE, i,
					   0, &watch),
				 0);
	start_reader(&a, s.u.fd);
	start_reader(&b, s.u.fd);
	assert_int_equal(pages_unmap(s.pages, 1), 0);
	/* Whoever got it, the other sleeps on until there is another. */
	while (!a.got && !b.got)
		sched_yield();
	assert_true(wait_blocked(a.got ? b.tid : a.tid, SYS_read));
	assert_int_equal(pages_unmap(s.pages + PAGE, 1), 0);
	pthread_join(a.thread, NULL);
	pthread_join(b.thread, NULL);
	assert_int_equal(a.got, 2 * EVENT);
	assert_int_equal(b.got, 2 * EVENT);
	assert_int_equal(a.events[0].user_cookie_counter +
				 b.events[0].user_cookie_counter,
			 1);
	finish(&s);
}

static void on_signal(int number)
{
	(void)number;
}

/* A page that is not there until it is given: who writes to it waits. */
static int missing_page(char **page)
{
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register r = {.mode = UFFDIO_REGISTER_MODE_MISSING};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);

	*page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	r.range.start = (uintptr_t)*page;
	r.range.len = PAGE;
	if (fd < 0 || *page == MAP_FAILED || ioctl(fd, UFFDIO_API, &api) ||
	    ioctl(fd, UFFDIO_REGISTER, &r))
		return -1;
	return fd;
}

struct faulting {
	_Atomic pid_t tid;
	int fd;
	char *page;
	int got, error;
};

static void *read_to_missing(void *argument)
{
	struct faulting *f = argument;

	f->tid = thread_id();
	f->got = read(f->fd, f->page, 4 * EVENT);
	f->error = errno;
	return NULL;
}

/* One reader's memory is not there: the other does not wait for it. */
CASE(a_reader_that_faults_delays_nobody)
{
	const struct sigaction action = {.sa_handler = on_signal};
	struct uffdio_zeropage give = {.range.len = PAGE};
	static struct faulting f;
	struct ummunotify_event e[3];
	pthread_t thread;
	struct scene s;
	int fd;

	begin(&s, 1);
	fd = missing_page(&f.page);
	assert_true(fd >= 0);
	hit_all(&s);
	f.fd = s.u.fd;
	assert_int_equal(pthread_create(&thread, NULL, read_to_missing, &f), 0);
	while (!f.tid)
		sched_yield();
	assert_true(wait_blocked(f.tid, SYS_read));

	assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
	alarm(patience(10));
	assert_int_equal(umn_read(s.u.fd, e, 3), 2);
	alarm(0);
	assert_int_equal(e[0].type, UMMUNOTIFY_EVENT_TYPE_INVAL);
	expect_last(&e[1], 1);

	give.range.start = (uintptr_t)f.page;
	assert_int_equal(ioctl(fd, UFFDIO_ZEROPAGE, &give), 0);
	pthread_join(thread, NULL);
	assert_int_equal(f.got, -1);
	assert_int_equal(f.error, EAGAIN);
	close(fd);
	munmap(f.page, PAGE);
	finish(&s);
}

CASE(a_signal_interrupts_a_reader)
{
	const struct sigaction action = {.sa_handler = on_signal};
	static struct reader r;
	struct scene s;

	begin(&s, 1);
	assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
	start_reader(&r, s.u.fd);
	assert_int_equal(pthread_kill(r.thread, SIGUSR1), 0);
	pthread_join(r.thread, NULL);
	assert_int_equal(r.got, -1);
	assert_int_equal(r.error, EINTR);
	hit_all(&s);
	expect_all_reports(&s, 1, 1);
	finish(&s);
}

CASE(a_blocking_read_does_not_block_on_a_report)
{
	struct ummunotify_event e[2];
	struct scene s;

	begin(&s, 1);
	assert_int_equal(fcntl(s.u.fd, F_SETFL, 0), 0);
	hit_all(&s);
	assert_int_equal(umn_read(s.u.fd, e, 1), 1);
	assert_int_equal(umn_read(s.u.fd, e, 2), 1);
	expect_last(&e[0], 1);
	finish(&s);
}

/* ---- poll and SIGIO --------------------------------------------------------- */

static int polled(int fd, int timeout)
{
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT | POLLPRI};
	int ret = poll(&p, 1, timeout);

	return ret < 0 ? -errno : p.revents;
}

CASE(poll_follows_the_list)
{
	struct ummunotify_event e[2];
	struct scene s;

	begin(&s, 1);
	assert_int_equal(polled(s.u.fd, 0), 0);
	hit_all(&s);
	assert_int_equal(polled(s.u.fd, 0), POLLIN);
	assert_int_equal(umn_read(s.u.fd, e, 1), 1);
	/* LAST is owed. */
	assert_int_equal(polled(s.u.fd, 0), POLLIN);
	assert_int_equal(umn_read(s.u.fd, e, 1), 1);
	assert_int_equal(polled(s.u.fd, 0), 0);
	finish(&s);
}

struct poller {
	_Atomic pid_t tid;
	int fd;
	int events;
};

static void *poll_once(void *argument)
{
	struct poller *p = argument;

	p->tid = thread_id();
	p->events = polled(p->fd, -1);
	return NULL;
}

/* What poll() calls, where there is no system call of that name. */
#ifdef SYS_poll
#define POLL SYS_poll
#else
#define POLL SYS_ppoll
#endif

CASE(munmap_wakes_poll)
{
	static struct poller p;
	pthread_t thread;
	struct scene s;

	begin(&s, 1);
	p.fd = s.u.fd;
	assert_int_equal(pthread_create(&thread, NULL, poll_once, &p), 0);
	while (!p.tid)
		sched_yield();
	assert_true(wait_blocked(p.tid, POLL));
	hit_all(&s);
	pthread_join(thread, NULL);
	assert_int_equal(p.events, POLLIN);
	finish(&s);
}

CASE(sigio)
{
	const struct timespec now = {};
	struct scene s;
	sigset_t set;

	begin(&s, 2);
	sigemptyset(&set);
	sigaddset(&set, SIGIO);
	assert_int_equal(pthread_sigmask(SIG_BLOCK, &set, NULL), 0);
	assert_int_equal(fcntl(s.u.fd, F_SETOWN, getpid()), 0);
	assert_int_equal(fcntl(s.u.fd, F_SETFL, O_NONBLOCK | O_ASYNC), 0);
	assert_int_equal(sigtimedwait(&set, NULL, &now), -1);
	assert_int_equal(errno, EAGAIN);
	/* It is there when munmap returns. */
	assert_int_equal(pages_unmap(s.pages, 1), 0);
	assert_int_equal(sigtimedwait(&set, NULL, &now), SIGIO);
	expect_all_reports(&s, 1, 1);

	assert_int_equal(fcntl(s.u.fd, F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(pages_unmap(s.pages + PAGE, 1), 0);
	assert_int_equal(sigtimedwait(&set, NULL, &now), -1);
	assert_int_equal(errno, EAGAIN);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	finish(&s);
}

int main(void)
{
	return run_cases(NULL, NULL);
}
