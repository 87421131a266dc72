/* SPDX-License-Identifier: BSD-2-Clause */
#include "report.h"

#include "command.h"

#include "guard/stacks.h"

#include <jansson.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define INDENT 16
#define WIDTH  80

static struct line {
	enum verdict verdict;
	const char *check;
	char found[512], advice[768];
} * lines;

static unsigned int n_lines, counts[FAIL + 1];

static const char *const names[] = {
	[OK] = "ok", [WARN] = "warn", [FAIL] = "fail"};

/* --- steps ------------------------------------------------------------------------ */

#define PATIENCE 5 /* seconds */

static const char *volatile step;
static volatile unsigned int waited, limit;

static void put(char *text, size_t size, const char *words)
{
	size_t length = strlen(text);

	while (*words && length + 1 < size)
		text[length++] = *words++;
	text[length] = '\0';
}

/* Only what a signal handler may do. */
static void say_step(const char *how, unsigned int seconds)
{
	char text[160] = "", digits[12] = "";
	size_t n = sizeof(digits) - 1;

	do
		digits[--n] = (char)('0' + seconds % 10);
	while (seconds /= 10);
	put(text, sizeof(text), "mrcache doctor: ");
	put(text, sizeof(text), how);
	put(text, sizeof(text), step);
	put(text, sizeof(text), ", for ");
	put(text, sizeof(text), digits + n);
	put(text, sizeof(text), " s\n");
	if (write(STDERR_FILENO, text, strlen(text)) < 0)
		_exit(STATUS_NO);
}

static void on_alarm(int number)
{
	unsigned int next = PATIENCE;

	(void)number;
	if (!step)
		return;
	waited += waited + PATIENCE > limit ? limit - waited : PATIENCE;
	if (waited >= limit) {
		say_step("given up: ", waited);
		_exit(STATUS_NO);
	}
	say_step("looking at ", waited);
	if (waited + next > limit)
		next = limit - waited;
	alarm(next);
}

void report_begin(unsigned int timeout)
{
	const struct sigaction action = {.sa_handler = on_alarm,
					 .sa_flags = SA_RESTART};

	limit = timeout;
	sigaction(SIGALRM, &action, NULL);
}

void report_step(const char *what)
{
	waited = 0;
	step = what;
	alarm(!what ? 0 : limit < PATIENCE ? limit : PATIENCE);
}

/* --- lines ------------------------------------------------------------------------ */

void report(enum verdict verdict, const char *check, const char *advice,
	    const char *found, ...)
{
	struct line *line;
	va_list args;

	line = reallocarray(lines, n_lines + 1, sizeof(*lines));
	if (!line)
		abort();
	lines = line;
	line = &lines[n_lines++];
	line->verdict = verdict;
	line->check = check;
	va_start(args, found);
	vsnprintf(line->found, sizeof(line->found), found, args);
	va_end(args);
	snprintf(line->advice, sizeof(line->advice), "%s",
		 advice ? advice : "");
	counts[verdict]++;
}

/* From a column on, broken at spaces. */
static void print_wrapped(const char *text, int indent)
{
	const size_t width = (size_t)(WIDTH - indent);

	for (;;) {
		size_t length = strlen(text), end = length;

		if (length > width) {
			for (end = width; end && text[end] != ' ';)
				end--;
			if (!end) /* one long word, such as a path */
				end = strcspn(text, " ");
		}
		printf("%.*s\n", (int)end, text);
		text += end + strspn(text + end, " ");
		if (!*text)
			return;
		printf("%*s", indent, "");
	}
}

static const char *host(void)
{
	static char name[HOST_NAME_MAX + 1];

	if (gethostname(name, sizeof(name) - 1))
		strcpy(name, "unknown");
	return name;
}

static void print_text(void)
{
	/* Lines of many hosts come together. */
	if (job_has_ranks())
		printf("%s:\n", host());
	for (const struct line *line = lines; line < lines + n_lines; line++) {
		printf("%-5s %-9s ", names[line->verdict], line->check);
		print_wrapped(line->found, INDENT);
		if (*line->advice) {
			printf("%*s-> ", INDENT, "");
			print_wrapped(line->advice, INDENT + 3);
		}
	}
	putchar('\n');
	if (counts[FAIL])
		printf("%u failed, %u to look at.\n", counts[FAIL],
		       counts[WARN]);
	else if (counts[WARN])
		printf("Nothing failed, %u to look at.\n", counts[WARN]);
	else
		puts("All is well.");
}

/* "?" for what is no UTF-8, such as paths can be. */
static json_t *text_json(const char *text)
{
	json_t *string = json_string(text);

	return string ? string : json_string("?");
}

static void print_json(bool protected)
{
	json_t *checks = json_array();
	json_t *all =
		json_pack("{s:s, s:o, s:i, s:i, s:b}", "host", host(), "checks",
			  checks, "failed", (int)counts[FAIL], "warned",
			  (int)counts[WARN], "protected", protected);

	for (const struct line *line = lines; line < lines + n_lines; line++)
		json_array_append_new(
			checks,
			json_pack("{s:s, s:s, s:o, s:o*}", "check", line->check,
				  "status", names[line->verdict], "found",
				  text_json(line->found), "advice",
				  *line->advice ? text_json(line->advice)
						: NULL));
	/* A line for each host of a job. */
	json_dumpf(all, stdout,
		   job_has_ranks() ? JSON_COMPACT : JSON_INDENT(2));
	putchar('\n');
	json_decref(all);
}

unsigned int report_print(bool json, bool protected)
{
	if (json)
		print_json(protected);
	else
		print_text();
	free(lines);
	return counts[FAIL];
}
