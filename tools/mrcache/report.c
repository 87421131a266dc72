/* SPDX-License-Identifier: BSD-2-Clause */
#include "report.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static void print_text(void)
{
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

static void print_json(void)
{
	json_t *checks = json_array();
	json_t *all = json_pack("{s:o, s:i, s:i}", "checks", checks, "failed",
				(int)counts[FAIL], "warned", (int)counts[WARN]);

	/* "?" for strings that are no UTF-8, such as paths can be. */
	for (const struct line *line = lines; line < lines + n_lines; line++) {
		json_t *found = json_string(line->found);

		json_array_append_new(
			checks,
			json_pack("{s:s, s:s, s:o, s:s*}", "check", line->check,
				  "status", names[line->verdict], "found",
				  found ? found : json_string("?"), "advice",
				  *line->advice ? line->advice : NULL));
	}
	json_dumpf(all, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(all);
}

unsigned int report_print(bool json)
{
	if (json)
		print_json();
	else
		print_text();
	free(lines);
	return counts[FAIL];
}
