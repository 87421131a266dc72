/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The OOM reaper takes the memory of a process that is killed for want of memory,
 * before that process has ended: from a thread of the kernel, where no callback
 * may sleep. What it takes must be told as all else is.
 */
#define _GNU_SOURCE
#include "case.h"
#include "memcg.h"
#include "patience.h"
#include "support.h"
#include "umn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* More than the driver deals with before it lets go of its lock. */
#define WATCHES 1000

#define LIMIT	((size_t)32 << 20)
#define SECONDS 30

#define WANT(condition)                   \
	do {                              \
		if (!(condition))         \
			return -__LINE__; \
	} while (0)

/*
 * The victim watches its memory. The reader, its child, has the victim's counter
 * and state words by inheritance, and is sent SIGIO. The test traces the victim,
 * so that it stays where it is when it is killed, and has its memory yet.
 */
struct scene {
	struct umn u;
	struct ummunotify_watch_ioctl watches[WATCHES];
	uint64_t counter; /* when all were armed */
	int missed;	  /* watches, or -line: the reader's result */
	uint32_t kinds;	  /* of all that were told */
};

static int read_all(struct scene *s, int armed, int result)
{
	const struct timespec limit = {.tv_sec = patience(SECONDS)};
	sigset_t set;
	char byte;
	int i;

	sigemptyset(&set);
	sigaddset(&set, SIGIO);
	WANT(!sigprocmask(SIG_BLOCK, &set, NULL));
	WANT(put_byte(result, 'r'));
	WANT(get_byte(armed, &byte));
	WANT(sigtimedwait(&set, NULL, &limit) == SIGIO);
	WANT(umn_counter(&s->u) > s->counter);
	for (i = 0; i < WATCHES; i++) {
		uint32_t kinds = umn_word(&s->u, s->watches[i].slot) &
				 UMMUNOTIFY_STATE_KINDS;

		/* The first on 6.1, the second on 7.2. */
		s->missed += kinds != UMMUNOTIFY_KIND_UNMAP &&
			     kinds != UMMUNOTIFY_KIND_CLEAR;
		s->kinds |= kinds;
	}
	return s->missed;
}

/* Uses memory until it is killed. */
static int exceed(void)
{
	size_t size = 4 * LIMIT, at;
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	WANT(memory != MAP_FAILED);
	WANT(!memcg_enter());
	for (at = 0; at < size; at += PAGE)
		*(volatile char *)(memory + at) = 1;
	return -__LINE__;
}

static int victim(struct scene *s, int go, int result)
{
	int armed[2], ready[2], i;
	pid_t reader;
	char *pages, byte;

	WANT(get_byte(go, &byte));
	WANT(!pipe2(armed, O_CLOEXEC) && !pipe2(ready, O_CLOEXEC));
	WANT(!umn_start(&s->u, UMN_ALL));
	reader = fork();
	WANT(reader >= 0);
	if (!reader) {
		s->missed = read_all(s, armed[0], ready[1]);
		/* Also that it is over. */
		put_byte(result, 'r');
		_exit(0);
	}
	close(result);
	WANT(get_byte(ready[0], &byte));
	pages = pages_map(WATCHES);
	WANT(pages);
	for (i = 0; i < WATCHES; i++)
		WANT(!umn_watch(s->u.fd, pages + i * PAGE, PAGE, i, 0,
				&s->watches[i]));
	WANT(!fcntl(s->u.fd, F_SETOWN, reader));
	WANT(!fcntl(s->u.fd, F_SETFL, O_NONBLOCK | O_ASYNC));
	s->counter = umn_counter(&s->u);
	WANT(put_byte(armed[1], 'a'));
	return exceed();
}

/* Waits until the kernel says that it has reaped that process. */
static bool says_reaped(int kmsg, pid_t pid)
{
	struct pollfd fd = {.fd = kmsg, .events = POLLIN};
	time_t end = time(NULL) + patience(SECONDS);
	char line[2048], text[64];
	ssize_t n;

	snprintf(text, sizeof(text), "reaped process %d ", (int)pid);
	while (time(NULL) < end) {
		n = read(kmsg, line, sizeof(line) - 1);
		if (n < 0 && errno == EAGAIN) {
			poll(&fd, 1, 1000);
			continue;
		}
		/* EPIPE: lines that were overwritten. */
		if (n < 0)
			continue;
		line[n] = '\0';
		if (strstr(line, text))
			return true;
	}
	return false;
}

CASE(all_is_told)
{
	int kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	int go[2], result[2], status, ret;
	bool reaped, read;
	struct scene *s;
	pid_t child;
	char byte;

	assert_true(kmsg >= 0);
	assert_true(lseek(kmsg, 0, SEEK_END) >= 0);
	ret = memcg_make();
	if (!ret)
		ret = memcg_limit(LIMIT);
	if (ret) {
		memcg_drop();
		close(kmsg);
		print_message("# skipped: no memory cgroup: %s\n",
			      strerror(-ret));
		skip();
	}
	s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(s, MAP_FAILED);
	assert_int_equal(pipe2(go, O_CLOEXEC), 0);
	assert_int_equal(pipe2(result, O_CLOEXEC), 0);
	child = fork();
	assert_true(child >= 0);
	if (!child) {
		ret = victim(s, go[0], result[1]);
		fprintf(stderr, "victim: %d\n", ret);
		_exit(1);
	}
	close(result[1]);
	assert_int_equal(ptrace(PTRACE_SEIZE, child, NULL, PTRACE_O_TRACEEXIT),
			 0);
	assert_true(put_byte(go[1], 'g'));
	assert_int_equal(waitpid(child, &status, __WALL), child);
	/* On its way to the end, by the kernel's hand. */
	assert_true(WIFSTOPPED(status));
	assert_int_equal(status >> 8, SIGTRAP | PTRACE_EVENT_EXIT << 8);
	read = get_byte(result[0], &byte);
	reaped = says_reaped(kmsg, child);
	assert_int_equal(ptrace(PTRACE_CONT, child, NULL, NULL), 0);
	assert_int_equal(child_result(child), 128 + SIGKILL);
	memcg_drop();
	close(kmsg);
	assert_true(read);
	print_message("# told as kind 0x%x\n", s->kinds);
	assert_int_equal(s->missed, 0);
	assert_true(reaped);
	munmap(s, sizeof(*s));
	close(go[0]);
	close(go[1]);
	close(result[0]);
}

int main(void)
{
	return run_cases(NULL, NULL);
}
