/* SPDX-License-Identifier: BSD-2-Clause */
/* What an administrator sees: every tracepoint of the driver fires and says
 * which cookie, range and kind it was. */
#include "case.h"
#include "support.h"
#include "umn.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TRACING "/sys/kernel/tracing/"
#define COOKIE	0xc00c1e5

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

/* A line of the trace has all three; "" is in every line. */
static bool traced(const char *event, const char *a, const char *b)
{
	FILE *file = fopen(TRACING "trace", "re");
	char line[512];
	bool found = false;

	assert_non_null(file);
	while (!found && fgets(line, sizeof(line), file))
		found = strstr(line, event) && strstr(line, a) &&
			strstr(line, b);
	fclose(file);
	return found;
}

CASE(every_tracepoint_fires)
{
	struct ummunotify_watch_ioctl watch;
	struct ummunotify_rearm_ioctl rearm;
	char cookie[32], range[64], page[64];
	size_t start;
	struct umn u;
	char *pages;

	put(TRACING "events/ummunotify/enable", "1");
	put(TRACING "trace", "\n");

	assert_int_equal(umn_start(&u, UMN_ALL), 0);
	pages = pages_map(3);
	assert_non_null(pages);
	start = (size_t)pages;
	snprintf(cookie, sizeof(cookie), "cookie=0x%x", COOKIE);
	snprintf(range, sizeof(range), "range=%#zx-%#zx", start,
		 start + 3 * PAGE - 1);
	snprintf(page, sizeof(page), "range=%#zx-%#zx", start + PAGE,
		 start + 2 * PAGE - 1);

	assert_int_equal(umn_watch(u.fd, pages, 3 * PAGE, COOKIE, 0, &watch),
			 0);
	assert_true(traced("ummunotify_watch:", cookie, range));
	assert_int_equal(pages_unmap(pages + PAGE, 1), 0);
	assert_true(traced("ummunotify_report:", cookie, page));
	assert_true(
		traced("ummunotify_invalidate:", "kind=0x1 ", "generation=1"));
	assert_int_equal(umn_rearm(u.fd, COOKIE, &rearm), 0);
	assert_true(traced("ummunotify_rearm:", cookie, range));
	assert_int_equal(umn_unregister(u.fd, COOKIE), 0);
	assert_true(traced("ummunotify_unwatch:", cookie, range));

	umn_stop(&u);
	pages_unmap(pages, 3);
	put(TRACING "events/ummunotify/enable", "0");
}

int main(void)
{
	return run_cases(NULL, NULL);
}
