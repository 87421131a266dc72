/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What documents promise: README's program is examples/snippet.c, which is one,
 * and each public function has a manual page.
 */
#include "unit.h"

#include <glob.h>
#include <stdio.h>
#include <string.h>

struct text {
	char lines[4096][256];
	size_t n;
};

/* Without what stands before and after; indentation is the place's. */
static void read_text(struct text *text, const char *path)
{
	FILE *f = fopen(path, "re");
	char line[1024];

	if (!f)
		fail_msg("cannot open %s", path);
	text->n = 0;
	while (fgets(line, sizeof(line), f)) {
		char *start = line + strspn(line, " \t");

		start[strcspn(start, "\n")] = '\0';
		assert_true(text->n < 4096 && strlen(start) < 1024);
		strncpy(text->lines[text->n], start, 255);
		text->lines[text->n++][255] = '\0';
	}
	fclose(f);
}

static size_t find_line(const struct text *text, size_t from, const char *line)
{
	while (from < text->n && strcmp(text->lines[from], line))
		from++;
	return from;
}

CASE(readme_shows_what_is_compiled)
{
	static struct text readme, snippet;
	size_t first, end, at;

	read_text(&readme, SOURCE_DIR "/README.md");
	read_text(&snippet, SOURCE_DIR "/examples/snippet.c");
	first = find_line(&snippet, 0, "/* README begins */") + 1;
	end = find_line(&snippet, first, "/* README ends */");
	assert_true(first < end && end < snippet.n);
	at = find_line(&readme, 0, snippet.lines[first]);
	for (size_t i = first; i < end; i++, at++)
		if (at >= readme.n ||
		    strcmp(readme.lines[at], snippet.lines[i]))
			fail_msg(
				"README.md does not have line %zu of examples/snippet.c in its place: %s",
				i + 1, snippet.lines[i]);
}

/* Every name in a version script is a .Nm of a page in section 3. */
CASE(public_functions_have_pages)
{
	static struct text map, page;
	unsigned int functions = 0;
	glob_t pages;

	read_text(&map, SOURCE_DIR "/lib/mrcache.map");
	/* NOLINTNEXTLINE(concurrency-mt-unsafe): one thread */
	assert_int_equal(glob(SOURCE_DIR "/docs/man/*.3", 0, NULL, &pages), 0);
	for (size_t i = 0; i < map.n; i++) {
		char name[300], last[300];
		bool found = false;

		if (strncmp(map.lines[i], "mrcache_", 8))
			continue;
		map.lines[i][strcspn(map.lines[i], ";")] = '\0';
		snprintf(name, sizeof(name), ".Nm %s ,", map.lines[i]);
		snprintf(last, sizeof(last), ".Nm %s", map.lines[i]);
		for (size_t p = 0; p < pages.gl_pathc && !found; p++) {
			read_text(&page, pages.gl_pathv[p]);
			found = find_line(&page, 0, name) < page.n ||
				find_line(&page, 0, last) < page.n;
		}
		if (!found)
			fail_msg("no page in docs/man has %s", map.lines[i]);
		functions++;
	}
	globfree(&pages);
	assert_true(functions > 20);
}

int main(void)
{
	return run_cases(NULL, NULL);
}
