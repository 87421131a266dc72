/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What an invalidation costs against a number of watches, in instructions of
 * the driver and its trees as valgrind counts them: one that hits nothing, one
 * that hits all of them for the first time, one that hits what was told already.
 * Time means nothing here. Each call that is measured has a function of its own,
 * so that callgrind can tell them apart.
 *
 * usage: scale WATCHES
 */
#include "native.h"
#include "fuzz.h"

#include <fcntl.h>
#include <valgrind/callgrind.h>

#define BASE	0x10000000UL
#define REPEATS 16

/* Over everything that is watched, or beside it. */
static void change(struct mm_struct *mm, uint64_t start, uint64_t end)
{
	struct native_change c = {
		.mm = mm,
		.start = start,
		.end = end,
		.event = native_event(UMMUNOTIFY_KIND_CLEAR),
		.may_sleep = true,
	};

	native_change_begin(&c);
	native_change_end(&c);
}

__attribute__((noinline)) static void measure_unrelated(struct mm_struct *mm)
{
	for (unsigned int i = 0; i < REPEATS; i++)
		change(mm, NATIVE_PAGE, 2 * NATIVE_PAGE);
}

__attribute__((noinline)) static void measure_first(struct mm_struct *mm)
{
	change(mm, BASE, UINT64_MAX);
}

__attribute__((noinline)) static void measure_told(struct mm_struct *mm)
{
	for (unsigned int i = 0; i < REPEATS; i++)
		change(mm, BASE, UINT64_MAX);
}

int main(int argc, char **argv)
{
	uint32_t mask = UMMUNOTIFY_FEATURES_MAGIC | UMMUNOTIFY_FEATURE_FILTER |
			UMMUNOTIFY_FEATURE_KIND | UMMUNOTIFY_FEATURE_STATE;
	struct mm_struct *mm;
	struct file *file;
	uint64_t watches;

	if (argc != 2) {
		fputs("usage: scale WATCHES\n", stderr);
		return 2;
	}
	watches = strtoull(argv[1], NULL, 10);
	CHECK(!native_load(), "load");
	mm = native_new_mm();
	native_become(mm, 0, true);
	CHECK(!native_open(O_RDONLY | O_NONBLOCK, &file), "open");
	CHECK(!native_ioctl(file, UMMUNOTIFY_EXCHANGE_FEATURES, &mask),
	      "features");
	/* Every other page, in an order that is not that of the addresses. */
	for (uint64_t i = 0; i < watches; i++) {
		uint64_t at = i * UINT64_C(0x9e3779b1) % (2 * watches + 1);
		struct ummunotify_watch_ioctl w = {
			.start = BASE + at * NATIVE_PAGE,
			.end = BASE + (at + 1) * NATIVE_PAGE,
			.user_cookie = i,
		};

		CHECK(!native_ioctl(file, UMMUNOTIFY_WATCH, &w), "watch");
	}
	CALLGRIND_START_INSTRUMENTATION;
	measure_unrelated(mm);
	measure_first(mm);
	measure_told(mm);
	CALLGRIND_STOP_INSTRUMENTATION;
	native_close(file);
	native_end_mm(mm);
	native_unload();
	return 0;
}
