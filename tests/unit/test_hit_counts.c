/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a hit does not do, counted: system calls, allocations, locks, writes to
 * memory that other threads use; and how many instructions it takes. Times are
 * the benchmarks' matter.
 */
#include "lookup.h"
#include "mrcache-transport.h"
#include "thread.h"
#include "unit.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- ways to hit --------------------------------------------------------------- */

struct way {
	const char *name;
	size_t ranges; /* more than MRC_RECENT_BITS let it remember */
	bool contain;  /* inside larger registrations */
	bool moved;  /* the counter has moved: something else was invalidated */
	bool handed; /* another thread registered them, and has ended */
	bool valid;  /* mrcache_valid() before each is given back */
	bool wish;   /* by mrcache_reg_mr_ex(), and not to be waited for */
	bool progress;	   /* mrcache_progress() each time */
	unsigned int most; /* instructions for one; 0: not counted */
};

static const struct way ways[] = {
	{.name = "one range", .ranges = 1},
	{.name = "ranges used recently", .ranges = 16, .most = 140},
	{.name = "many ranges", .ranges = 3000, .most = 320},
	{.name = "inside larger ones", .ranges = 3000, .contain = true},
	{.name = "the counter moved", .ranges = 16, .moved = true, .most = 150},
	{.name = "many, the counter moved", .ranges = 3000, .moved = true},
	{.name = "registered by another thread",
	 .ranges = 3000,
	 .handed = true},
	{.name = "valid", .ranges = 16, .valid = true},
	{.name = "valid, the counter moved",
	 .ranges = 3000,
	 .moved = true,
	 .valid = true},
	{.name = "only a hit", .ranges = 16, .wish = true, .most = 180},
	{.name = "only a hit, of many", .ranges = 3000, .wish = true},
	{.name = "only a hit, inside larger ones",
	 .ranges = 3000,
	 .contain = true,
	 .wish = true},
	{.name = "only a hit, in a loop",
	 .ranges = 16,
	 .wish = true,
	 .progress = true,
	 .most = 205},
};
#define WAYS (sizeof(ways) / sizeof(*ways))

/* Pages of a larger registration. */
#define LARGE ((size_t)16)

struct hitter {
	struct scene s;
	const struct way *way;
};

static void *register_all(void *arg)
{
	struct hitter *h = arg;
	size_t step = h->way->contain ? LARGE : 1;

	for (size_t n = 0; n < h->way->ranges; n += step)
		touch(&h->s, n, step);
	return NULL;
}

static inline struct ibv_mr *hit(struct hitter *h, size_t n)
{
	if (!h->way->wish)
		return mrcache_reg_mr(h->s.cache, h->s.pd, page(n), PAGE,
				      LOCAL);
	if (h->way->progress && mrcache_progress(h->s.cache))
		abort();
	return mrcache_reg_mr_ex(h->s.cache,
				 &(struct mrcache_request){
					 .size = sizeof(struct mrcache_request),
					 .pd = h->s.pd,
					 .addr = page(n),
					 .length = PAGE,
					 .access = LOCAL,
					 .flags = MRCACHE_REG_HIT,
				 });
}

static __attribute__((noinline)) void hit_all(struct hitter *h)
{
	for (size_t n = 0; n < h->way->ranges; n++) {
		struct ibv_mr *mr = hit(h, n);

		if (h->way->valid && !mrcache_valid(h->s.cache, mr))
			abort();
		mrcache_dereg_mr(h->s.cache, mr);
	}
}

/* Registers, and hits everything twice, so that all that is lazy is done. */
static void prepare(struct hitter *h, const struct way *way)
{
	struct mrcache_attr attr;

	test_attr(&attr);
	attr.contain = way->contain;
	h->way = way;
	begin_with(&h->s, FAKE_STATES, &attr);
	if (way->handed)
		in_thread(register_all, h);
	else
		register_all(h);
	if (way->moved)
		fake_noise(h->s.monitor);
	hit_all(h);
	hit_all(h);
}

/* ---- counting calls -------------------------------------------------------------- */

#if !SANITIZED

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *p);

static __thread unsigned int allocations, locks;

/*
 * While set, what the library allocates gets pages of its own, which are not
 * given back.
 */
static bool isolating;
#define ISOLATED 256
static struct {
	char *start;
	size_t size;
} isolated[ISOLATED];
static size_t n_isolated;

static void *isolate(size_t size)
{
	char *start;

	if (!isolating || fake_allocates)
		return NULL;
	size = (size + PAGE - 1) & ~(PAGE - 1);
	start = mmap(NULL, size, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (start == MAP_FAILED || n_isolated == ISOLATED)
		abort();
	isolated[n_isolated].start = start;
	isolated[n_isolated++].size = size;
	return start;
}

void *malloc(size_t size)
{
	void *p = isolate(size);

	allocations++;
	return p ? p : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
	void *p = isolate(count * size);

	allocations++;
	return p ? p : __libc_calloc(count, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
	void *p = isolate(size);

	allocations++;
	return p ? p : __libc_memalign(alignment, size);
}

void free(void *p)
{
	allocations++;
	for (size_t i = 0; i < n_isolated; i++)
		if (p == isolated[i].start)
			return;
	__libc_free(p);
}

static int (*real_lock)(pthread_mutex_t *);
static int (*real_trylock)(pthread_mutex_t *);

static __attribute__((constructor(101))) void find_real(void)
{
	*(void **)&real_lock = dlsym(RTLD_NEXT, "pthread_mutex_lock");
	*(void **)&real_trylock = dlsym(RTLD_NEXT, "pthread_mutex_trylock");
}

int pthread_mutex_lock(pthread_mutex_t *mutex)
{
	locks++;
	return real_lock(mutex);
}

int pthread_mutex_trylock(pthread_mutex_t *mutex)
{
	locks++;
	return real_trylock(mutex);
}

TEST(a_hit_allocates_nothing_and_takes_no_lock)
{
	struct hitter h;

	for (size_t i = 0; i < WAYS; i++) {
		unsigned int new_allocations, new_locks;

		fresh(state);
		prepare(&h, &ways[i]);
		allocations = locks = 0;
		hit_all(&h);
		new_allocations = allocations;
		new_locks = locks;
		if (new_allocations || new_locks)
			fail_msg("%s: %u allocations, %u locks", ways[i].name,
				 new_allocations, new_locks);
		finish(&h.s);
	}
}

TEST(a_miss_is_seen_to_allocate_and_lock)
{
	static const struct way way = {.name = "miss", .ranges = 1};
	struct hitter h;

	prepare(&h, &way);
	allocations = locks = 0;
	touch(&h.s, 1000, 1);
	assert_true(allocations > 0);
	assert_true(locks > 0);
	finish(&h.s);
}

#endif

/* ---- in a child that dies of what it must not do ------------------------------------ */

#define CHILD_CANNOT 77

/* The status of waitpid(). */
static int in_child(int (*function)(const struct way *way),
		    const struct way *way)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (!pid) {
		setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
		/* What a sanitizer would make of it is not asked. */
		signal(SIGSYS, SIG_DFL);
		signal(SIGSEGV, SIG_DFL);
		/* And nothing else, as _exit() may under gcov. */
		syscall(SYS_exit_group, function(way));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void assert_child(int status, int expected_signal, const char *name)
{
	if (WIFEXITED(status) && WEXITSTATUS(status) == CHILD_CANNOT)
		skip();
	if (expected_signal) {
		assert_true(WIFSIGNALED(status));
		assert_int_equal(WTERMSIG(status), expected_signal);
	} else if (WIFSIGNALED(status)) {
		fail_msg("%s: %s", name, strsignal(WTERMSIG(status)));
	} else {
		assert_int_equal(WEXITSTATUS(status), 0);
	}
}

/* From now on every system call but the last is the end. */
static bool forbid_system_calls(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	};
	struct sock_fprog program = {sizeof(filter) / sizeof(*filter), filter};

	return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) &&
	       !syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}

/* ---- without membarrier -------------------------------------------------------------- */

/* membarrier() fails from now on, as a sandbox would have it. */
static bool forbid_membarrier(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_membarrier, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof(filter) / sizeof(*filter), filter};

	return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) &&
	       !syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}

/* Then each hold must have a fence of its own. */
static int lose_membarrier(const struct way *way)
{
	struct hitter h;

	prepare(&h, way);
	/* A second thread, or there would be no need of it. */
	in_thread(register_all, &h);
	if (!h.s.cache->expedited || !forbid_membarrier())
		return CHILD_CANNOT;
	if (mrcache_invalidate(h.s.cache, page(0), PAGE))
		return 1;
	if (h.s.cache->expedited)
		return 2;
	hit_all(&h);
	return is_cached(&h.s, 0, 1) ? 0 : 3;
}

TEST(without_membarrier_holds_have_fences)
{
	assert_child(in_child(lose_membarrier, &ways[1]), 0, "membarrier");
}

static int hit_without_system_calls(const struct way *way)
{
	struct hitter h;

	prepare(&h, way);
	if (!forbid_system_calls())
		return CHILD_CANNOT;
	for (int i = 0; i < 10; i++)
		hit_all(&h);
	return 0;
}

static int one_system_call(const struct way *way)
{
	(void)way;
	if (!forbid_system_calls())
		return CHILD_CANNOT;
	syscall(SYS_getppid);
	return 0;
}

TEST(a_hit_makes_no_system_call)
{
#ifdef __SANITIZE_ADDRESS__
	print_message("# SKIP: AddressSanitizer makes calls of its own\n");
	skip();
#endif
	for (size_t i = 0; i < WAYS; i++) {
		fresh(state);
		assert_child(in_child(hit_without_system_calls, &ways[i]), 0,
			     ways[i].name);
	}
}

TEST(a_system_call_is_seen)
{
	assert_child(in_child(one_system_call, NULL), SIGSYS, "getppid");
}

/* ---- shared memory is not written ----------------------------------------------------- */

#if !SANITIZED

static bool is_own(const struct mrc_thread *thread, const char *start)
{
	if (start == (const char *)thread)
		return true;
	for (unsigned int chunk = 0; chunk < MRC_CHUNKS; chunk++)
		if (start == (char *)atomic_load(&thread->counts[chunk]))
			return true;
	return false;
}

static bool protect(void *start, size_t size)
{
	return !mprotect(start, size, PROT_READ);
}

/* Everything of the cache but what belongs to this thread alone. */
static bool protect_shared(struct mrcache *cache)
{
	for (size_t i = 0; i < n_isolated; i++)
		if (!is_own(mrc_current.thread, isolated[i].start) &&
		    !protect(isolated[i].start, isolated[i].size))
			return false;
	return protect(cache->hot, PAGE);
}

/* The counters are in one mapping, a line for each thread: all but that. */
static void copy_counters(const struct mrcache *cache,
			  struct mrc_counters *copy)
{
	memcpy(copy, cache->counters, sizeof(*copy));
	memset((char *)copy + ((char *)mrc_current.thread->hits -
			       (char *)cache->counters),
	       0, 64);
}

static int hit_without_writing(const struct way *way)
{
	static struct mrc_counters before, after;
	struct hitter h;

	isolating = true;
	prepare(&h, way);
	isolating = false;
	/* A line of its own in the counters. */
	if ((uintptr_t)mrc_current.thread->hits % 64)
		return 2;
	copy_counters(h.s.cache, &before);
	if (!protect_shared(h.s.cache))
		return 3;
	for (int i = 0; i < 10; i++)
		hit_all(&h);
	copy_counters(h.s.cache, &after);
	return memcmp(&before, &after, sizeof(before)) ? 4 : 0;
}

static int write_to_a_registration(const struct way *way)
{
	struct hitter h;

	isolating = true;
	prepare(&h, way);
	isolating = false;
	if (!protect_shared(h.s.cache))
		return 3;
	atomic_store(&mr_of_number(h.s.cache, 0)->referenced, false);
	return 0;
}

static int write_to_the_cache(const struct way *way)
{
	struct hitter h;

	isolating = true;
	prepare(&h, way);
	isolating = false;
	if (!protect_shared(h.s.cache))
		return 3;
	pthread_mutex_lock(&h.s.cache->lock);
	return 0;
}

TEST(a_hit_writes_nothing_that_threads_share)
{
	for (size_t i = 0; i < WAYS; i++) {
		fresh(state);
		assert_child(in_child(hit_without_writing, &ways[i]), 0,
			     ways[i].name);
	}
}

TEST(a_write_is_seen)
{
	assert_child(in_child(write_to_a_registration, &ways[2]), SIGSEGV,
		     "registration");
	assert_child(in_child(write_to_the_cache, &ways[0]), SIGSEGV, "cache");
}

#endif

/* ---- instructions ----------------------------------------------------------------- */

#define WAY_VARIABLE "TEST_HIT_COUNTS_WAY"
#define ROUNDS	     2000

/* callgrind counts while this runs. */
static __attribute__((noinline)) void counted(struct hitter *h)
{
	for (size_t n = 0; n < ROUNDS; n += h->way->ranges)
		hit_all(h);
}

static int run_counted(const char *way)
{
	struct hitter h;

	fresh(NULL);
	prepare(&h, &ways[atoi(way)]);
	counted(&h);
	return 0;
}

#if defined(__OPTIMIZE__) && !SANITIZED

/* The number in the line "totals: N" of callgrind's output. */
static double read_totals(const char *path)
{
	FILE *f = fopen(path, "re");
	double totals = -1;
	char line[256];

	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "totals: %lf", &totals);
	if (f)
		fclose(f);
	return totals;
}

/* Instructions for one hit and giving it back; negative: cannot be counted. */
static double instructions(size_t way)
{
	char path[] = "/tmp/test_hit_counts.XXXXXX", self[4096] = {0},
	     command[8192];
	size_t ranges = ways[way].ranges;
	int fd = mkstemp(path);
	double totals = -1;

	if (fd < 0 || readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
		return -1;
	close(fd);
	snprintf(command, sizeof(command),
		 WAY_VARIABLE "=%zu valgrind --tool=callgrind "
			      "--toggle-collect=counted "
			      "--callgrind-out-file=%s '%s' >/dev/null 2>&1",
		 way, path, self);
	if (!system(command))
		totals = read_totals(path);
	unlink(path);
	return totals / (double)((ROUNDS + ranges - 1) / ranges * ranges);
}

TEST(a_hit_takes_few_instructions)
{
	if (system("valgrind --version >/dev/null 2>&1")) {
		print_message("# SKIP: valgrind is not installed\n");
		skip();
	}
	for (size_t i = 0; i < WAYS; i++) {
		double n;

		if (!ways[i].most)
			continue;
		n = instructions(i);
		assert_true(n > 0);
		print_message("# %s: %.1f instructions\n", ways[i].name, n);
		if (n > ways[i].most)
			fail_msg("%s: %.1f instructions, at most %u wanted",
				 ways[i].name, n, ways[i].most);
	}
}

#endif

int main(void)
{
	const char *way = getenv(WAY_VARIABLE);

	return way ? run_counted(way) : run_cases(NULL, NULL);
}
