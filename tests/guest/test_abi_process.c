/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An open file belongs to the address space that opened it: no other can use
 * it, steal its reports or write to its pages, and it may go away at any time.
 */
#include "case.h"
#include "support.h"
#include "umn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* In children nothing can be asserted: they say what is wrong and return 1. */
#define WANT(condition)                                                  \
	do {                                                             \
		if (!(condition)) {                                      \
			fprintf(stderr, "%s:%d: wrong in a child: %s\n", \
				__FILE__, __LINE__, #condition);         \
			return 1;                                        \
		}                                                        \
	} while (0)

/* A device, a counter, two pages with a watch each (cookies 1 and 2). */
struct scene {
	struct umn u;
	struct ummunotify_watch_ioctl watch;
	char *pages;
};

static int scene_begin(struct scene *s)
{
	int ret = umn_start(&s->u, UMN_ALL);

	if (ret)
		return ret;
	s->pages = pages_map(2);
	if (!s->pages)
		return -ENOMEM;
	ret = umn_watch(s->u.fd, s->pages, PAGE, 1, 0, &s->watch);
	return ret ? ret : umn_register(s->u.fd, s->pages + PAGE, PAGE, 2);
}

static void begin(struct scene *s)
{
	assert_int_equal(scene_begin(s), 0);
}

static void finish(struct scene *s)
{
	umn_stop(&s->u);
	pages_unmap(s->pages, 2);
}

/* Every way in is closed. Returns 0 if so. */
static int is_stale(int fd)
{
	static const unsigned long requests[] = {
		UMMUNOTIFY_EXCHANGE_FEATURES,
		UMMUNOTIFY_REGISTER_REGION,
		UMMUNOTIFY_UNREGISTER_REGION,
		UMMUNOTIFY_WATCH,
		UMMUNOTIFY_REARM,
		UMMUNOTIFY_QUERY,
		UMMUNOTIFY_ARM,
		UMMUNOTIFY_ARM_MANY,
		UMMUNOT_REGISTER_REGION,
		UMMUNOT_UNREGISTER_REGION,
	};
	struct pollfd p = {.fd = fd, .events = POLLIN};
	struct ummunotify_event e[4];
	char argument[64] = {1};
	size_t i;

	for (i = 0; i < sizeof(requests) / sizeof(requests[0]); i++)
		WANT(ioctl(fd, requests[i], argument) == -1 && errno == ESTALE);
	WANT(umn_read(fd, e, 4) == -ESTALE);
	WANT(read(fd, e, 1) == -1 && errno == ESTALE);
	WANT(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED &&
	     errno == ESTALE);
	WANT(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd,
		  UMMUNOTIFY_STATE_OFFSET) == MAP_FAILED &&
	     errno == ESTALE);
	WANT(fcntl(fd, F_SETFL, O_NONBLOCK | O_ASYNC) == -1 && errno == ESTALE);
	WANT(poll(&p, 1, -1) == 1 && p.revents == POLLERR);
	return 0;
}

CASE(files_are_independent)
{
	struct ummunotify_event e[4];
	struct scene a, b;
	uint64_t last = 0;

	begin(&a);
	begin(&b);
	assert_int_equal(umn_register(b.u.fd, a.pages, PAGE, 3), 0);
	assert_int_equal(pages_unmap(b.pages, 2), 0);
	assert_int_equal(umn_counter(&a.u), 0);
	assert_int_equal(umn_counter(&b.u), 1);
	assert_true(umn_clean(&a.u, a.watch.slot, a.watch.state));
	assert_false(umn_clean(&b.u, b.watch.slot, b.watch.state));
	assert_int_equal(umn_drain(a.u.fd, e, 4, &last), 0);
	assert_int_equal(umn_drain(b.u.fd, e, 4, &last), 2);
	assert_int_equal(last, 1);

	assert_int_equal(pages_unmap(a.pages, 1), 0);
	assert_int_equal(umn_counter(&a.u), 1);
	assert_int_equal(umn_counter(&b.u), 2);
	finish(&a);
	assert_int_equal(umn_drain(b.u.fd, e, 4, &last), 1);
	assert_int_equal(e[0].user_cookie_counter, 3);
	finish(&b);
}

static int child_uses(void *argument)
{
	struct scene *s = argument;

	WANT(!is_stale(s->u.fd));
	/* Its own memory is not watched by the parent. */
	WANT(!pages_unmap(s->pages, 2));
	WANT(umn_counter(&s->u) == 1);
	return 0;
}

CASE(a_fork_child_can_do_nothing)
{
	struct ummunotify_event e[4];
	struct scene s;
	uint64_t last = 0;

	begin(&s);
	assert_int_equal(pages_unmap(s.pages, 1), 0);
	assert_int_equal(in_child(child_uses, &s), 0);
	/* Neither the report nor the watch is gone. */
	assert_int_equal(umn_counter(&s.u), 1);
	assert_int_equal(umn_drain(s.u.fd, e, 4, &last), 1);
	assert_int_equal(e[0].user_cookie_counter, 1);
	assert_int_equal(last, 1);
	assert_int_equal(pages_unmap(s.pages + PAGE, 1), 0);
	assert_int_equal(umn_counter(&s.u), 2);
	finish(&s);
}

static int child_maps(void *argument)
{
	struct scene *s = argument;

	WANT(umn_counter(&s->u) == 1);
	WANT(umn_word(&s->u, s->watch.slot) ==
	     (s->watch.state | UMMUNOTIFY_KIND_UNMAP));
	WANT(mprotect((void *)s->u.counter, PAGE, PROT_READ | PROT_WRITE) ==
		     -1 &&
	     errno == EACCES);
	WANT(mprotect((void *)s->u.states, PAGE, PROT_READ | PROT_WRITE) ==
		     -1 &&
	     errno == EACCES);
	return 0;
}

CASE(inherited_mappings_are_read_only)
{
	struct scene s;

	begin(&s);
	assert_int_equal(pages_unmap(s.pages, 1), 0);
	assert_int_equal(in_child(child_maps, &s), 0);
	finish(&s);
}

static int child_closes(void *argument)
{
	struct scene *s = argument;

	umn_stop(&s->u);
	return 0;
}

CASE(a_child_closes_for_itself)
{
	struct scene s;

	begin(&s);
	assert_int_equal(in_child(child_closes, &s), 0);
	assert_int_equal(pages_unmap(s.pages, 1), 0);
	assert_int_equal(umn_counter(&s.u), 1);
	assert_int_equal(umn_drain(s.u.fd, NULL, 0, NULL), 1);
	finish(&s);
}

static int child_opens(void *argument)
{
	struct scene s;

	(void)argument;
	WANT(!scene_begin(&s));
	WANT(!pages_unmap(s.pages, 1));
	WANT(umn_counter(&s.u) == 1);
	WANT(umn_drain(s.u.fd, NULL, 0, NULL) == 1);
	finish(&s);
	return 0;
}

CASE(a_child_opens_its_own)
{
	struct scene s;

	begin(&s);
	assert_int_equal(in_child(child_opens, NULL), 0);
	assert_int_equal(umn_counter(&s.u), 0);
	finish(&s);
}

static int nobody(void *argument)
{
	WANT(!setresgid(65534, 65534, 65534));
	WANT(!setresuid(65534, 65534, 65534));
	return child_opens(argument);
}

CASE(any_user_may_open_it)
{
	assert_int_equal(in_child(nobody, NULL), 0);
}

CASE(a_receiver_can_do_nothing)
{
	struct scene s;
	int pair[2], fd;
	pid_t child;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	child = fork();
	assert_true(child >= 0);
	if (!child) {
		fd = receive_fd(pair[1]);
		_exit(fd < 0 ? 2 : is_stale(fd));
	}
	begin(&s);
	assert_int_equal(pages_unmap(s.pages, 1), 0);
	assert_int_equal(send_fd(pair[0], s.u.fd), 0);
	assert_int_equal(child_result(child), 0);
	assert_int_equal(umn_drain(s.u.fd, NULL, 0, NULL), 1);
	finish(&s);
	close(pair[0]);
	close(pair[1]);
}

static int child_execs(void *argument)
{
	struct scene s;
	char number[16];

	(void)argument;
	WANT(!scene_begin(&s));
	WANT(!pages_unmap(s.pages, 2));
	WANT(!fcntl(s.u.fd, F_SETFD, 0));
	snprintf(number, sizeof(number), "%d", s.u.fd);
	execl("/proc/self/exe", "test_abi_process", "--stale", number, NULL);
	return 2;
}

CASE(after_exec_nothing_works)
{
	assert_int_equal(in_child(child_execs, NULL), 0);
}

/* ---- who shares the address space may use it --------------------------------- */

static int use(void *argument)
{
	struct scene *s = argument;
	struct ummunotify_rearm_ioctl rearm;
	struct ummunotify_event e[4];
	const uint64_t *counter;

	/* Not unmapped: what is mapped below could get the address. */
	WANT(!madvise(s->pages, PAGE, MADV_DONTNEED));
	WANT(umn_counter(&s->u) == 1);
	WANT(umn_read(s->u.fd, e, 4) == 2);
	WANT(!umn_rearm(s->u.fd, 1, &rearm));
	WANT(!umn_register(s->u.fd, s->pages, PAGE, 3));
	WANT(!umn_map_counter(s->u.fd, &counter));
	WANT(*counter == 1);
	WANT(!munmap((void *)counter, PAGE));
	return 0;
}

static void *use_in_thread(void *argument)
{
	return (void *)(intptr_t)use(argument);
}

CASE(a_thread_may_use_it)
{
	static struct scene s;
	pthread_t thread;
	void *result;

	begin(&s);
	assert_int_equal(pthread_create(&thread, NULL, use_in_thread, &s), 0);
	pthread_join(thread, &result);
	assert_null(result);
	finish(&s);
}

CASE(a_child_in_the_same_memory_may_use_it)
{
	const size_t size = 64 * PAGE;
	struct scene s;
	char *stack;
	pid_t child;

	begin(&s);
	stack = pages_map(size / PAGE);
	assert_non_null(stack);
	child = clone(use, stack + size, CLONE_VM | CLONE_VFORK | SIGCHLD, &s);
	assert_true(child > 0);
	assert_int_equal(child_result(child), 0);
	/* Its end is not the end of the address space. */
	assert_int_equal(pages_unmap(s.pages + PAGE, 1), 0);
	assert_int_equal(umn_counter(&s.u), 2);
	pages_unmap(stack, size / PAGE);
	finish(&s);
}

CASE(dup_is_the_same_file)
{
	struct ummunotify_event e[2];
	struct scene s;
	int fd;

	begin(&s);
	fd = dup(s.u.fd);
	assert_true(fd >= 0);
	assert_int_equal(umn_register(fd, s.pages, PAGE, 1), -EINVAL);
	assert_int_equal(pages_unmap(s.pages, 2), 0);
	assert_int_equal(umn_read(fd, e, 1), 1);
	assert_int_equal(umn_read(s.u.fd, e, 1), 1);
	assert_int_equal(close(s.u.fd), 0);
	s.u.fd = fd;
	assert_int_equal(umn_read(fd, e, 2), 1);
	assert_int_equal(e[0].type, UMMUNOTIFY_EVENT_TYPE_LAST);
	finish(&s);
}

/* ---- ends -------------------------------------------------------------------- */

/* Opens, is hit, sends the file to its parent, and waits to be killed. */
static int give_away(int socket)
{
	struct scene s;

	WANT(!scene_begin(&s));
	WANT(!pages_unmap(s.pages, 2));
	WANT(!send_fd(socket, s.u.fd));
	for (;;)
		pause();
}

CASE(the_address_space_goes_first)
{
	int pair[2], fd;
	pid_t child;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	child = fork();
	assert_true(child >= 0);
	if (!child)
		_exit(give_away(pair[1]));
	fd = receive_fd(pair[0]);
	assert_true(fd >= 0);
	assert_int_equal(is_stale(fd), 0);
	assert_int_equal(kill(child, SIGKILL), 0);
	assert_int_equal(child_result(child), 128 + SIGKILL);
	assert_int_equal(is_stale(fd), 0);
	assert_int_equal(close(fd), 0);
	close(pair[0]);
	close(pair[1]);
}

/* What a child inherited stays there when the parent has gone. */
static int orphan(void *argument)
{
	int *out = argument;
	struct scene s;
	int ready[2];
	char byte;
	pid_t child;

	WANT(!scene_begin(&s));
	WANT(!pages_unmap(s.pages, 1));
	WANT(!pipe(ready));
	child = fork();
	WANT(child >= 0);
	if (child)
		return 0;
	close(ready[1]);
	/* Closed by the end of the parent, whose files go after its memory. */
	get_byte(ready[0], &byte);
	byte = !is_stale(s.u.fd) && umn_counter(&s.u) >= 1 ? 'y' : 'n';
	umn_stop(&s.u);
	put_byte(out[1], byte);
	_exit(0);
}

CASE(an_orphan_keeps_its_mappings)
{
	char byte = 0;
	int out[2];

	assert_int_equal(pipe(out), 0);
	assert_int_equal(in_child(orphan, out), 0);
	close(out[1]);
	assert_true(get_byte(out[0], &byte));
	assert_int_equal(byte, 'y');
	close(out[0]);
}

CASE(close_with_reports_pending)
{
	struct scene s;
	int i;

	for (i = 0; i < 20; i++) {
		begin(&s);
		assert_int_equal(pages_unmap(s.pages, 2), 0);
		finish(&s);
	}
}

static int exit_with_all_open(void *argument)
{
	struct scene s[10];
	int i;

	(void)argument;
	for (i = 0; i < 10; i++) {
		WANT(!scene_begin(&s[i]));
		WANT(!pages_unmap(s[i].pages, 1 + (i & 1)));
	}
	return 0;
}

CASE(exit_with_files_open)
{
	assert_int_equal(in_child(exit_with_all_open, NULL), 0);
}

CASE(killed_while_reading)
{
	struct ummunotify_event e;
	struct scene s;
	pid_t child;

	child = fork();
	assert_true(child >= 0);
	if (!child) {
		if (scene_begin(&s) || fcntl(s.u.fd, F_SETFL, 0))
			_exit(2);
		_exit(umn_read(s.u.fd, &e, 1) < 0 ? 3 : 4);
	}
	assert_true(wait_blocked(child, SYS_read));
	assert_int_equal(kill(child, SIGKILL), 0);
	assert_int_equal(child_result(child), 128 + SIGKILL);
}

/* The owner waits in read() or poll(); another's close changes nothing. */
static void *blocked_reader(void *argument)
{
	struct scene *s = argument;
	struct ummunotify_event e[2];

	return (void *)(intptr_t)umn_read(s->u.fd, e, 2);
}

CASE(closed_by_a_child_while_reading)
{
	static struct scene s;
	pthread_t thread;
	void *result;

	begin(&s);
	assert_int_equal(fcntl(s.u.fd, F_SETFL, 0), 0);
	assert_int_equal(pthread_create(&thread, NULL, blocked_reader, &s), 0);
	assert_int_equal(in_child(child_closes, &s), 0);
	assert_int_equal(pages_unmap(s.pages, 1), 0);
	pthread_join(thread, &result);
	assert_int_equal((intptr_t)result, 2);
	finish(&s);
}

/* ---- signals ---------------------------------------------------------------- */

static int child_takes_signals(const struct scene *s, int ready)
{
	const struct timespec limit = {.tv_sec = 60};
	struct ummunotify_event e[1];
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGIO);
	WANT(!sigprocmask(SIG_BLOCK, &set, NULL));
	WANT(!fcntl(s->u.fd, F_SETOWN, getpid()));
	WANT(put_byte(ready, 'x'));
	WANT(sigtimedwait(&set, NULL, &limit) == SIGIO);
	/* That something happened is all there is to be known. */
	WANT(umn_read(s->u.fd, e, 1) == -ESTALE);
	return 0;
}

/*
 * Who is sent SIGIO belongs to the open file description, as for each file, and
 * a driver is not asked: so whoever was given the descriptor may take it.
 */
CASE(the_receiver_of_sigio_is_the_files)
{
	struct scene s;
	int ready[2];
	pid_t child;
	char byte;

	begin(&s);
	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	assert_int_equal(fcntl(s.u.fd, F_SETOWN, getpid()), 0);
	assert_int_equal(fcntl(s.u.fd, F_SETFL, O_NONBLOCK | O_ASYNC), 0);
	child = fork();
	assert_true(child >= 0);
	if (!child)
		_exit(child_takes_signals(&s, ready[1]));
	close(ready[1]);
	assert_true(get_byte(ready[0], &byte));
	assert_int_equal(fcntl(s.u.fd, F_GETOWN), child);
	assert_int_equal(pages_unmap(s.pages, 1), 0);
	assert_int_equal(child_result(child), 0);
	/* Nothing else is: the owner has its report. */
	assert_int_equal(umn_counter(&s.u), 1);
	assert_int_equal(umn_drain(s.u.fd, NULL, 0, NULL), 1);
	/* And takes it back. */
	assert_int_equal(fcntl(s.u.fd, F_SETOWN, getpid()), 0);
	assert_int_equal(fcntl(s.u.fd, F_GETOWN), getpid());
	close(ready[0]);
	finish(&s);
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "--stale"))
		return is_stale(atoi(argv[2]));
	return run_cases(NULL, NULL);
}
