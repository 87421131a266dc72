/* SPDX-License-Identifier: BSD-2-Clause */
/* What most of the tests begin with; see unit.h. */
#include "unit.h"

#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

const unsigned int with_states = FAKE_STATES, without_states = 0;

/* ---- log --------------------------------------------------------------------- */

#define LINES 64

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
	enum mrcache_log_level level;
	char text[256];
} lines[LINES];
static unsigned int n_lines;

static void collect(void *arg, enum mrcache_log_level level, const char *line)
{
	(void)arg;
	fake_no_locks("log");
	pthread_mutex_lock(&log_lock);
	if (n_lines < LINES) {
		lines[n_lines].level = level;
		strncpy(lines[n_lines].text, line, sizeof(lines->text) - 1);
	}
	n_lines++;
	pthread_mutex_unlock(&log_lock);
}

unsigned int log_lines(enum mrcache_log_level level)
{
	unsigned int n = 0;

	pthread_mutex_lock(&log_lock);
	for (unsigned int i = 0; i < n_lines && i < LINES; i++)
		n += lines[i].level <= level;
	pthread_mutex_unlock(&log_lock);
	return n;
}

unsigned int log_containing(const char *text)
{
	unsigned int n = 0;

	pthread_mutex_lock(&log_lock);
	for (unsigned int i = 0; i < n_lines && i < LINES; i++)
		n += strstr(lines[i].text, text) != NULL;
	pthread_mutex_unlock(&log_lock);
	return n;
}

const char *log_last(void)
{
	const char *last;

	pthread_mutex_lock(&log_lock);
	last = n_lines && n_lines <= LINES ? lines[n_lines - 1].text : "";
	pthread_mutex_unlock(&log_lock);
	return last;
}

/* ---- scene ------------------------------------------------------------------- */

int fresh(void **state)
{
	(void)state;
	fake_reset();
	fake_verbs_reset();
	fake_monitors_reset();
	pthread_mutex_lock(&log_lock);
	memset(lines, 0, sizeof(lines));
	n_lines = 0;
	pthread_mutex_unlock(&log_lock);
	return 0;
}

void test_attr(struct mrcache_attr *attr)
{
	mrcache_attr_init(attr);
	attr->max_bytes = UINT64_MAX;
	attr->max_regs = UINT64_MAX;
	attr->log = collect;
	attr->log_level = MRCACHE_LOG_DEBUG;
}

void begin_with(struct scene *s, unsigned int flags,
		const struct mrcache_attr *attr)
{
	s->pd = fake_pd(0);
	s->monitor = flags == NO_MONITOR ? NULL : fake_monitor_new(flags);
	s->cache = mrc_open(attr,
			    s->monitor ? fake_monitor_base(s->monitor) : NULL,
			    &fake_verbs);
	assert_non_null(s->cache);
}

void begin(struct scene *s, unsigned int flags)
{
	struct mrcache_attr attr;

	test_attr(&attr);
	begin_with(s, flags, &attr);
}

void no_trouble(void)
{
	const char *trouble = fake_first_trouble();

	if (trouble)
		fail_msg("%s", trouble);
}

void finish(struct scene *s)
{
	fake_hook(NULL, NULL);
	assert_int_equal(mrcache_close(s->cache), 0);
	assert_int_equal(fake_registered(NULL), 0);
	assert_int_equal(fake_monitors(), 0);
	no_trouble();
}

struct ibv_mr *reg_range(struct scene *s, const void *addr, size_t length,
			 int access)
{
	struct ibv_mr *mr =
		mrcache_reg_mr(s->cache, s->pd, (void *)addr, length, access);

	assert_non_null(mr);
	assert_true(fake_serves(mr, s->pd, addr, length, access));
	return mr;
}

struct ibv_mr *reg(struct scene *s, size_t n, size_t pages)
{
	return reg_range(s, page(n), pages * PAGE, LOCAL);
}

void give(struct scene *s, struct ibv_mr *mr)
{
	assert_int_equal(mrcache_dereg_mr(s->cache, mr), 0);
}

void touch(struct scene *s, size_t n, size_t pages)
{
	give(s, reg(s, n, pages));
}

bool is_cached(struct scene *s, size_t n, size_t pages)
{
	unsigned int before = fake_calls(FAKE_REG);

	touch(s, n, pages);
	return fake_calls(FAKE_REG) == before;
}

struct mrcache_stats stats(struct scene *s)
{
	struct mrcache_stats now;

	assert_int_equal(mrcache_get_stats(s->cache, &now, sizeof(now)), 0);
	return now;
}

uint64_t bypasses(struct scene *s)
{
	struct mrcache_stats now = stats(s);
	uint64_t n = 0;

	for (int i = 0; i < MRCACHE_BYPASS_REASONS; i++)
		n += now.bypass[i];
	return n;
}

struct ibv_mr *try_reg(struct scene *s, size_t n, size_t pages, int access,
		       int error)
{
	struct ibv_mr *mr;

	errno = 0;
	mr = mrcache_reg_mr(s->cache, s->pd, page(n), pages * PAGE, access);
	if (!mr)
		assert_int_equal(errno, error);
	else
		assert_true(fake_is_registered(mr));
	return mr;
}

void try_give(struct scene *s, struct ibv_mr *mr, int error)
{
	int ret;

	if (!mr)
		return;
	ret = mrcache_dereg_mr(s->cache, mr);
	if (ret) {
		/* An uncached one: the second time it goes. */
		assert_int_equal(ret, error);
		give(s, mr);
	}
}

/* ---- threads ----------------------------------------------------------------- */

void in_thread(void *(*function)(void *arg), void *arg)
{
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, function, arg), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
}

struct give {
	struct scene *s;
	struct ibv_mr *mr;
	int ret;
};

static void *give_thread(void *arg)
{
	struct give *give = arg;

	give->ret = mrcache_dereg_mr(give->s->cache, give->mr);
	return NULL;
}

int give_in_thread(struct scene *s, struct ibv_mr *mr)
{
	struct give give = {s, mr, -1};

	in_thread(give_thread, &give);
	return give.ret;
}

/* ---- coverage ---------------------------------------------------------------- */

#ifdef MRCACHE_COVERAGE
void __gcov_dump(void);

/* What a child that ends at once has reached counts as well. */
void _exit(int status)
{
	__gcov_dump();
	syscall(SYS_exit_group, status);
	__builtin_unreachable();
}
#endif
