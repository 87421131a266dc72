/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The index against a model: every pair that was put in is found until it is
 * taken out, whatever the hashes; and readers beside a writer see no number
 * that was never there, and miss nothing once the writer rests.
 */
#include "index.h"
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#define NUMBERS 6000u

/* A random number generator of our own, the same everywhere. */
static uint64_t next_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static bool finds(const struct mrc_index *index, uint32_t hash, uint32_t number)
{
	struct mrc_index_iter iter;
	uint32_t found;
	bool is = false;

	mrc_index_find(index, hash, &iter);
	while ((found = mrc_index_next(&iter)) != MRC_INDEX_END) {
		if (found == number) {
			/* Once only. */
			assert_false(is);
			is = true;
		}
	}
	/* The end stays the end. */
	assert_int_equal(mrc_index_next(&iter), MRC_INDEX_END);
	return is;
}

TEST(an_empty_index_has_nothing)
{
	struct mrc_index index;

	assert_int_equal(mrc_index_init(&index), 0);
	for (uint32_t hash = 0; hash < 5000; hash++)
		assert_false(finds(&index, hash * 2654435761u, 0));
	mrc_index_remove(&index, 0, 0);
	assert_int_equal(index.used, 0);
	mrc_index_fini(&index);
}

TEST(the_edges_of_hashes_and_numbers_work)
{
	static const uint32_t hashes[] = {
		0, 1, 1023, 1024, UINT32_MAX - 1, UINT32_MAX};
	static const uint32_t numbers[] = {0, 1, 0x7fffffff, 0x80000000,
					   UINT32_MAX - 2};
	struct mrc_index index;

	assert_int_equal(mrc_index_init(&index), 0);
	for (size_t h = 0; h < 6; h++)
		for (size_t n = 0; n < 5; n++)
			assert_int_equal(
				mrc_index_insert(&index, hashes[h], numbers[n]),
				0);
	for (size_t h = 0; h < 6; h++)
		for (size_t n = 0; n < 5; n++) {
			assert_true(finds(&index, hashes[h], numbers[n]));
			assert_false(finds(&index, hashes[h], numbers[n] + 5));
			assert_false(finds(&index, hashes[h] + 7, numbers[n]));
		}
	for (size_t h = 0; h < 6; h++)
		for (size_t n = 0; n < 5; n++) {
			mrc_index_remove(&index, hashes[h], numbers[n]);
			assert_false(finds(&index, hashes[h], numbers[n]));
		}
	assert_int_equal(index.used, 0);
	mrc_index_fini(&index);
}

/* Inserts and removes at random, with hashes of so many bits. */
static void against_the_model(uint32_t mask, uint32_t numbers,
			      unsigned int steps, uint64_t seed)
{
	uint32_t *hashes = calloc(numbers, sizeof(*hashes));
	bool *there = calloc(numbers, sizeof(*there));
	uint32_t used = 0;
	struct mrc_index index;

	assert_non_null(hashes);
	assert_non_null(there);
	assert_int_equal(mrc_index_init(&index), 0);
	for (uint32_t n = 0; n < numbers; n++)
		hashes[n] = (uint32_t)next_random(&seed) & mask;
	for (unsigned int step = 0; step < steps; step++) {
		uint32_t n = (uint32_t)(next_random(&seed) % numbers);

		if (!there[n]) {
			assert_int_equal(mrc_index_insert(&index, hashes[n], n),
					 0);
			used++;
		} else {
			mrc_index_remove(&index, hashes[n], n);
			mrc_index_remove(&index, hashes[n],
					 n); /* does nothing */
			used--;
			hashes[n] = (uint32_t)next_random(&seed) & mask;
		}
		there[n] = !there[n];
		assert_int_equal(index.used, used);
		n = (uint32_t)(next_random(&seed) % numbers);
		assert_int_equal(finds(&index, hashes[n], n), there[n]);
	}
	for (uint32_t n = 0; n < numbers; n++)
		assert_int_equal(finds(&index, hashes[n], n), there[n]);
	mrc_index_fini(&index);
	free(hashes);
	free(there);
}

TEST(it_agrees_with_the_model)
{
	for (uint64_t seed = 1; seed <= 4; seed++) {
		against_the_model(UINT32_MAX, 400, 20000, seed);
		against_the_model(UINT32_MAX, NUMBERS, 40000, seed << 20);
	}
}

TEST(it_agrees_with_the_model_when_hashes_collide)
{
	for (uint64_t seed = 1; seed <= 4; seed++) {
		against_the_model(0x3f, 400, 20000, seed);
		against_the_model(0, 60, 5000, seed);
		/* Around the end of the table, where probing wraps. */
		against_the_model(0xfffffc07, 400, 20000, seed);
		against_the_model(0xffff, 3000, 20000, seed);
	}
}

TEST(it_grows_and_keeps_everything)
{
	struct mrc_index index;

	assert_int_equal(mrc_index_init(&index), 0);
	for (uint32_t n = 0; n < 50000; n++)
		assert_int_equal(mrc_index_insert(&index, n * 2654435761u, n),
				 0);
	for (uint32_t n = 0; n < 50000; n++)
		assert_true(finds(&index, n * 2654435761u, n));
	for (uint32_t n = 0; n < 50000; n += 2)
		mrc_index_remove(&index, n * 2654435761u, n);
	for (uint32_t n = 0; n < 50000; n++)
		assert_int_equal(finds(&index, n * 2654435761u, n), n % 2);
	mrc_index_fini(&index);
}

TEST(a_search_goes_on_in_the_table_it_began_in)
{
	struct mrc_index_iter iter;
	struct mrc_index index;
	uint32_t found = 0;

	assert_int_equal(mrc_index_init(&index), 0);
	for (uint32_t n = 0; n < 10; n++)
		assert_int_equal(mrc_index_insert(&index, 77, n), 0);
	mrc_index_find(&index, 77, &iter);
	assert_true(mrc_index_next(&iter) < 10);
	for (uint32_t n = 10; n < 5000; n++)
		assert_int_equal(mrc_index_insert(&index, n * 2654435761u, n),
				 0);
	while (mrc_index_next(&iter) != MRC_INDEX_END)
		found++;
	assert_int_equal(found, 9);
	mrc_index_fini(&index);
}

/* ---- readers beside a writer ---------------------------------------------------------- */

#define STEADY	300u /* numbers that stay */
#define MOVING	900u /* numbers that come and go */
#define READERS 3

struct beside {
	struct mrc_index index;
	_Atomic bool stop;
	_Atomic unsigned int wrong;
};

/* Few hashes, so that entries stand in each other's way and are shifted. */
static uint32_t crowded(uint32_t number)
{
	return number % 97 * 3 + (number % 5) * 0x10000;
}

static void *read_it(void *arg)
{
	struct beside *b = arg;

	while (!atomic_load(&b->stop))
		for (uint32_t n = 0; n < STEADY; n++) {
			struct mrc_index_iter iter;
			uint32_t hash = crowded(n), found, steps = 0;

			mrc_index_find(&b->index, hash, &iter);
			while ((found = mrc_index_next(&iter)) != MRC_INDEX_END)
				if (found >= STEADY + MOVING ||
				    crowded(found) != hash ||
				    ++steps > 4 * (STEADY + MOVING))
					b->wrong++;
		}
	return NULL;
}

TEST(readers_beside_a_writer_see_nothing_wrong)
{
	pthread_t readers[READERS];
	struct beside b = {.stop = false};
	bool there[STEADY + MOVING] = {false};
	uint64_t seed = 20240607;

	assert_int_equal(mrc_index_init(&b.index), 0);
	for (uint32_t n = 0; n < STEADY; n++)
		assert_int_equal(mrc_index_insert(&b.index, crowded(n), n), 0);
	for (int i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&readers[i], NULL, read_it, &b),
				 0);
	for (unsigned int step = 0; step < (SANITIZED ? 3000 : 30000); step++) {
		uint32_t n = STEADY + (uint32_t)(next_random(&seed) % MOVING);

		if (there[n])
			mrc_index_remove(&b.index, crowded(n), n);
		else
			assert_int_equal(
				mrc_index_insert(&b.index, crowded(n), n), 0);
		there[n] = !there[n];
	}
	atomic_store(&b.stop, true);
	for (int i = 0; i < READERS; i++)
		pthread_join(readers[i], NULL);
	assert_int_equal(b.wrong, 0);
	for (uint32_t n = 0; n < STEADY + MOVING; n++)
		assert_int_equal(finds(&b.index, crowded(n), n),
				 n < STEADY || there[n]);
	mrc_index_fini(&b.index);
}

/* What is found names an object that was filled in before it was put in. */
static struct {
	uint64_t filled;
} objects[NUMBERS];

static void *look_into(void *arg)
{
	struct beside *b = arg;

	while (!atomic_load(&b->stop))
		for (uint32_t n = 0; n < NUMBERS; n += 7) {
			struct mrc_index_iter iter;
			uint32_t found;

			mrc_index_find(&b->index, n * 2654435761u, &iter);
			while ((found = mrc_index_next(&iter)) != MRC_INDEX_END)
				if (objects[found].filled !=
				    found + UINT64_C(1))
					b->wrong++;
		}
	return NULL;
}

TEST(what_is_found_was_filled_in_before)
{
	pthread_t readers[READERS];
	struct beside b = {.stop = false};

	memset(objects, 0, sizeof(objects));
	assert_int_equal(mrc_index_init(&b.index), 0);
	for (int i = 0; i < READERS; i++)
		assert_int_equal(
			pthread_create(&readers[i], NULL, look_into, &b), 0);
	for (uint32_t n = 0; n < NUMBERS; n++) {
		objects[n].filled = n + UINT64_C(1);
		assert_int_equal(mrc_index_insert(&b.index, n * 2654435761u, n),
				 0);
	}
	atomic_store(&b.stop, true);
	for (int i = 0; i < READERS; i++)
		pthread_join(readers[i], NULL);
	assert_int_equal(b.wrong, 0);
	for (uint32_t n = 0; n < NUMBERS; n++)
		assert_true(finds(&b.index, n * 2654435761u, n));
	mrc_index_fini(&b.index);
}

int main(void)
{
	return run_cases(NULL, NULL);
}
