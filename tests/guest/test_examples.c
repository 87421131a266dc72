/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The examples, with a driver and an RDMA device: what they print is right. A
 * kernel may report a change that was none, so there is some room.
 */

#include "case.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The first line of what an example prints; it must end well, in time. */
static void run(const char *command, char *line, int size)
{
	char self[4096] = {0}, *slash, all[8192];
	FILE *out;

	assert_true(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0);
	/* build/PRESET/tests/guest/test_examples */
	for (int i = 0; i < 3; i++) {
		slash = strrchr(self, '/');
		assert_non_null(slash);
		*slash = '\0';
	}
	snprintf(all, sizeof(all), "timeout 60 %s/examples/%s 2>&1", self,
		 command);
	out = popen(all, "r");
	assert_non_null(out);
	*line = '\0';
	if (!fgets(line, size, out))
		*line = '\0';
	assert_int_equal(pclose(out), 0);
}

CASE(monitor_is_never_stale)
{
	unsigned int uses, registrations, hits, told;
	char line[256];

	run("monitor", line, sizeof(line));
	assert_int_equal(
		sscanf(line, "%u uses: %u registrations, %u hits, told of %u",
		       &uses, &registrations, &hits, &told),
		4);
	assert_int_equal(uses, 200);
	/* 8 buffers, and 20 times one of them is mapped anew. */
	assert_true(registrations >= 20);
	assert_true(told >= 20);
	assert_in_range(hits, 200 - 8 - 20 - 10, 200 - 8 - 20);
}

CASE(event_loop_does_not_wait)
{
	unsigned int requests, waited, ended;
	char line[256];

	run("event_loop", line, sizeof(line));
	assert_int_equal(sscanf(line, "%u requests: %u had to wait, %u reg",
				&requests, &waited, &ended),
			 3);
	assert_int_equal(requests, 100);
	/* 4 buffers, of which 3 were mapped anew and used again. */
	assert_in_range(waited, 7, 20);
	assert_in_range(ended, 3, 20);
}

CASE(own_operations_register_once)
{
	unsigned int uses, registrations;
	char line[256];

	run("own_ops", line, sizeof(line));
	assert_int_equal(sscanf(line, "%u uses: %u registrations", &uses,
				&registrations),
			 2);
	assert_int_equal(uses, 100);
	/* Once more if registering changed the memory. */
	assert_in_range(registrations, 1, 5);
}

CASE(pingpong_is_right)
{
	unsigned int rounds, registrations, hits;
	char line[256];

	run("pingpong 10.77.0.1 50", line, sizeof(line));
	assert_int_equal(sscanf(line, "%u rounds: %u registrations, %u hits",
				&rounds, &registrations, &hits),
			 3);
	assert_int_equal(rounds, 50);
	/* Five mappings; the first touch of each may register it twice. */
	assert_in_range(registrations, 5, 15);
	assert_in_range(hits, 35, 45);
}

CASE(snippet_runs)
{
	char line[256];

	run("snippet", line, sizeof(line));
	assert_string_equal(line, "");
}

int main(void)
{
	return run_cases(NULL, NULL);
}
