/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Programs and libraries of different versions: structures of the caller's size,
 * smaller and larger than the library's, and versions that can be asked for.
 * What the functions look like is compared by lib/abi/check.
 */
#include "config.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GUARD 64

/* A structure and what lies behind it in the caller's memory. */
union padded {
	struct mrcache_attr attr;
	char bytes[sizeof(struct mrcache_attr) + GUARD];
};

/* What the first version had: up to log_arg. */
#define FIRST_SIZE (offsetof(struct mrcache_attr, log_arg) + sizeof(void *))

static void init(union padded *padded, size_t size)
{
	memset(padded, 0xa5, sizeof(*padded));
	mrcache_attr_init_size(&padded->attr, size);
	assert_int_equal(padded->attr.size, size);
	for (size_t i = size; i < sizeof(*padded); i++)
		assert_int_equal(padded->bytes[i], (char)0xa5);
}

static struct mrcache *open_padded(union padded *padded)
{
	padded->attr.monitor = "none";
	errno = 0;
	return mrcache_open(&padded->attr);
}

TEST(only_the_callers_bytes_are_written)
{
	union padded padded;

	for (size_t size = FIRST_SIZE; size <= sizeof(padded); size += 8)
		init(&padded, size);
	/* And what it is called by is the size that the caller was built with. */
	memset(&padded, 0xa5, sizeof(padded));
	mrcache_attr_init(&padded.attr);
	assert_int_equal(padded.attr.size, sizeof(padded.attr));
	assert_int_equal(padded.bytes[sizeof(padded.attr)], (char)0xa5);
}

TEST(an_older_program_is_served)
{
	struct mrcache_attr taken, fresh_one;
	union padded padded;
	struct mrcache *cache;

	for (size_t size = FIRST_SIZE; size <= sizeof(struct mrcache_attr);
	     size += 8) {
		init(&padded, size);
		padded.attr.max_regs = 77;
		assert_int_equal(mrc_attr_take(&taken, &padded.attr), 0);
		mrcache_attr_init(&fresh_one);
		fresh_one.max_regs = 77;
		/* Behind it are defaults, not what lies there. */
		assert_memory_equal(&taken, &fresh_one, sizeof(taken));
		cache = open_padded(&padded);
		assert_non_null(cache);
		assert_int_equal(mrcache_close(cache), 0);
	}
}

TEST(a_newer_program_is_served_if_it_asks_for_nothing_new)
{
	union padded padded;
	struct mrcache *cache;

	for (size_t size = sizeof(struct mrcache_attr) + 8;
	     size <= sizeof(padded); size += 8) {
		init(&padded, size);
		cache = open_padded(&padded);
		assert_non_null(cache);
		assert_int_equal(mrcache_close(cache), 0);
		padded.bytes[size - 1] = 1;
		assert_null(open_padded(&padded));
		assert_int_equal(errno, E2BIG);
	}
}

TEST(reasons_to_come_have_their_place)
{
	struct mrcache_stats stats;

	assert_true(MRCACHE_BYPASS_REASONS <= MRCACHE_BYPASS_PLACES);
	assert_int_equal(sizeof(stats.bypass),
			 MRCACHE_BYPASS_PLACES * sizeof(uint64_t));
	/* A program of the first version finds these where they were. */
	assert_int_equal(offsetof(struct mrcache_stats, bypass), 12 * 8);
	assert_int_equal(offsetof(struct mrcache_stats, cached), 44 * 8);
}

TEST(versions_can_be_asked_for)
{
	char version[32];

	snprintf(version, sizeof(version), "%d.%d.%d", MRCACHE_VERSION_MAJOR,
		 MRCACHE_VERSION_MINOR, MRCACHE_VERSION_PATCH);
	assert_string_equal(version, PROJECT_VERSION);
	assert_int_equal(mrcache_version(), MRCACHE_VERSION_CODE);
	assert_true(MRCACHE_VERSION_CODE >= MRCACHE_VERSION_NUMBER(0, 1, 0));
	assert_true(MRCACHE_VERSION_NUMBER(1, 0, 0) >
		    MRCACHE_VERSION_NUMBER(0, 99, 99));
}

#ifdef CXX_TOO
bool cxx_uses_the_library(void);

TEST(cxx_programs_can_use_it)
{
	assert_true(cxx_uses_the_library());
}
#endif

int main(void)
{
	return run_cases(NULL, NULL);
}
