/* SPDX-License-Identifier: BSD-2-Clause */
/* What most of the tests begin with: a cache on the fakes, and its end. */
#ifndef TESTS_UNIT_UNIT_H
#define TESTS_UNIT_UNIT_H

#include "fake.h"
#include "fake_monitor.h"
#include "fake_verbs.h"
#include "open.h"
#include "support/case.h"
#include "support/patience.h"

#include <errno.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

/* A case that begins with fakes as new; and twins with and without state words. */
#define TEST(f) CASE(f, .setup_func = fresh)
#define TWIN(f, suffix, flags)                                          \
	{                                                               \
		.name = #f suffix, .test_func = f, .setup_func = fresh, \
		.initial_state = (void *)&(flags)                       \
	}
#define TEST_BOTH(f)                                             \
	static void f(void **state);                             \
	static const struct CMUnitTest f##_twins[] = {           \
		TWIN(f, "_with_state_words", with_states),       \
		TWIN(f, "_without_state_words", without_states), \
	};                                                       \
	CASES(f##_twins);                                        \
	static void f(void **state)

extern const unsigned int with_states, without_states;

/* The flags for fake_monitor_new() a twin is to use. */
static inline unsigned int flags_of(void **state)
{
	return *(const unsigned int *)*state;
}

/* cmocka's: everything as new, for one test. */
int fresh(void **state);

#define LOCAL IBV_ACCESS_LOCAL_WRITE
#define REMOTE                                              \
	(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | \
	 IBV_ACCESS_REMOTE_READ)

struct scene {
	struct mrcache *cache;
	struct fake_monitor *monitor; /* or NULL */
	struct ibv_pd *pd;
};

/* So many registrations are there, or will be soon. */
#define COME_REGISTERED(n) assert_true(COMES(fake_registered(NULL) == (n), 60))

/* Generous limits, and log lines to where log_lines() finds them. */
void test_attr(struct mrcache_attr *attr);

/* Opens with those, or *attr. NO_MONITOR as flags: none. */
#define NO_MONITOR 0x80000000u
void begin(struct scene *s, unsigned int flags);
void begin_with(struct scene *s, unsigned int flags,
		const struct mrcache_attr *attr);

/* Closes: nothing is left, and nothing that happened was trouble. */
void finish(struct scene *s);
void no_trouble(void);

/* Registers pages from page n on, of s->pd; asserts that it serves. */
struct ibv_mr *reg(struct scene *s, size_t n, size_t pages);
struct ibv_mr *reg_range(struct scene *s, const void *addr, size_t length,
			 int access);
/* The same and gives it back at once. */
void touch(struct scene *s, size_t n, size_t pages);
void give(struct scene *s, struct ibv_mr *mr);

/*
 * The same while something is made to fail with this error: NULL then, and what
 * could not be given back is the second time.
 */
struct ibv_mr *try_reg(struct scene *s, size_t n, size_t pages, int access,
		       int error);
void try_give(struct scene *s, struct ibv_mr *mr, int error);

/* Whether it is handed out without a new registration, and given back. */
bool is_cached(struct scene *s, size_t n, size_t pages);

struct mrcache_stats stats(struct scene *s);
uint64_t bypasses(struct scene *s); /* of all reasons */

/* Runs a function in another thread and waits for it. */
void in_thread(void *(*function)(void *arg), void *arg);
/* mrcache_dereg_mr() in another thread. */
int give_in_thread(struct scene *s, struct ibv_mr *mr);

/* Lines logged at a level (or worse) since the test began; the last of them. */
unsigned int log_lines(enum mrcache_log_level level);
const char *log_last(void);
unsigned int log_containing(const char *text);

#endif /* TESTS_UNIT_UNIT_H */
