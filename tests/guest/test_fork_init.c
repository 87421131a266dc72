/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ibv_fork_init() with the real libibverbs, driver and device: this program runs
 * itself plain, under the shim, and with the library. Children find the memory
 * they would find without a cache, and what has huge pages is cached all the same.
 */
#include "case.h"
#include "support.h"
#include "wire.h"

#include <stdint.h>
#include <spawn.h>
#include <sys/syscall.h>

#include "execute.h"

#undef ibv_reg_mr

#define SIZE   (32UL << 10) /* less than what is deregistered before a fork */
#define ROUNDS 10
#define HUGE   (2UL << 20)
#define LARGE  (2 * HUGE)
#define SLICE  (256UL << 10)
#define USES   5 /* of each slice */

extern char **environ;

/* ---- the program -------------------------------------------------------------- */

static struct rdma wire;
static struct mrcache *cache; /* of the program's own, or NULL */

static void must(bool condition, const char *what)
{
	if (condition)
		return;
	fprintf(stderr, "not %s (errno %d)\n", what, errno);
	exit(1);
}
#define MUST(condition) must(condition, #condition)

static struct ibv_mr *reg(void *addr, size_t size)
{
	struct ibv_mr *mr =
		cache ? mrcache_reg_mr(cache, wire.pd, addr, size, WIRE_LOCAL)
		      : ibv_reg_mr(wire.pd, addr, size, WIRE_LOCAL);

	MUST(mr);
	return mr;
}

static void dereg(struct ibv_mr *mr)
{
	MUST((cache ? mrcache_dereg_mr(cache, mr) : ibv_dereg_mr(mr)) == 0);
}

static void right(struct ibv_mr *mr, void *addr, size_t size, unsigned int seed)
{
	MUST(wire_wrong(&wire, mr, addr, size, seed, WIRE_BY_PROGRAM) == 0);
}

static void use(void *addr, size_t size, unsigned int seed)
{
	struct ibv_mr *mr = reg(addr, size);

	right(mr, addr, size, seed);
	dereg(mr);
}

/* Past libc, where a hook would see it. */
static char *map_at(void *addr, size_t size, int flags)
{
	char *p;

	if (addr)
		MUST(syscall(SYS_munmap, addr, size) == 0);
	p = (char *)syscall(SYS_mmap, addr, size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | flags |
				    (addr ? MAP_FIXED_NOREPLACE : 0),
			    -1, 0L);
	MUST(p != MAP_FAILED);
	return p;
}

struct memory {
	char *addr;
	size_t size;
};

/* In a child: reads and writes all of it. */
static int use_as_child(void *arg)
{
	const struct memory *m = arg;

	for (size_t i = 0; i < m->size; i++)
		m->addr[i] = (char)~m->addr[i];
	return 0;
}

static int is_mapped(void *arg)
{
	const struct memory *m = arg;
	unsigned char present[LARGE / PAGE];

	return mincore(m->addr, m->size, present) == 0;
}

/* Of idle memory a child has its own copy; so of held memory under the shim. */
static void children(void)
{
	struct memory idle = {map_at(NULL, SIZE, 0), SIZE};
	struct memory held = {map_at(NULL, SIZE, 0), SIZE};
	struct ibv_mr *mr = reg(held.addr, SIZE);
	int status;

	right(mr, held.addr, SIZE, 100);
	for (unsigned int round = 0; round < USES; round++) {
		use(idle.addr, SIZE, round);
		/* wire_wrong() leaves these bytes. */
		MUST(in_child(use_as_child, &idle) == 0);
		MUST(memop_wrong((uint8_t *)idle.addr, SIZE, round + 128) == 0);
		status = in_child(use_as_child, &held);
		MUST(status == 0 || status == 128 + SIGSEGV);
		printf("held %s\n", status ? "died" : "lived");
		MUST(memop_wrong((uint8_t *)held.addr, SIZE, 228) == 0);
		right(mr, held.addr, SIZE, 100);
	}
	dereg(mr);
}

/* What the program keeps from its children where registered memory was before. */
static void keeps(void)
{
	struct memory m = {map_at(NULL, SIZE, 0), SIZE};
	char *other = map_at(NULL, SIZE, 0);
	int undone = 0;

	for (unsigned int round = 0; round < ROUNDS; round++) {
		use(m.addr, SIZE, round);
		map_at(m.addr, SIZE, 0);
		MUST(madvise(m.addr, SIZE, MADV_DONTFORK) == 0);
		/* A cache has to look at its registrations now. */
		map_at(other, SIZE, 0);
		use(other, SIZE, round);
		undone += in_child(is_mapped, &m);
		map_at(m.addr, SIZE, 0);
	}
	printf("undone %d\n", undone);
}

/*
 * kB of huge pages behind an address, of either kind. Where they lie in tables of
 * the lowest level, as those of 2 MiB beside pages of 16 KiB, Linux 6.12 may call
 * private ones shared: it looks at a count that only the level above has.
 */
static long huge_pages(const void *addr)
{
	unsigned long start, end;
	FILE *f = fopen("/proc/self/smaps", "r");
	bool there = false;
	long kb, sum = 0;
	char line[512];

	MUST(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			there = start < (uintptr_t)addr + LARGE &&
				end > (uintptr_t)addr;
		else if (there &&
			 (sscanf(line, "AnonHugePages: %ld", &kb) == 1 ||
			  sscanf(line, "Private_Hugetlb: %ld", &kb) == 1 ||
			  sscanf(line, "Shared_Hugetlb: %ld", &kb) == 1))
			sum += kb;
	}
	fclose(f);
	return sum;
}

/* The wire takes long: of the last round one slice, and all in one. */
static void use_slices(char *addr, size_t slice)
{
	for (unsigned int n = 0; n < USES - 1; n++) {
		for (size_t at = 0; at < LARGE; at += slice)
			dereg(reg(addr + at, slice));
		dereg(reg(addr, LARGE));
	}
	for (size_t at = slice; at < LARGE; at += slice)
		dereg(reg(addr + at, slice));
	use(addr, slice, 1);
	use(addr, LARGE, 2);
}

/* Aligned memory of huge pages, that are there and stay. */
static void transparent(void)
{
	char *p = map_at(NULL, LARGE + HUGE, 0);

	p += -(uintptr_t)p & (HUGE - 1);
	MUST(madvise(p, LARGE, MADV_HUGEPAGE) == 0);
	memset(p, 1, LARGE);
	MUST(huge_pages(p) == LARGE >> 10);
	use_slices(p, SLICE);
	printf("huge %ld\n", huge_pages(p));
}

/* libibverbs' own fork support cannot do with parts of these. */
static void hugetlb(void)
{
	char *p = map_at(NULL, LARGE, MAP_HUGETLB);

	memset(p, 1, LARGE);
	MUST(huge_pages(p) == LARGE >> 10);
	use_slices(p, HUGE);
	printf("huge %ld\n", huge_pages(p));
}

static const char *self(void)
{
	static char path[PATH_MAX];

	MUST(readlink("/proc/self/exe", path, sizeof(path) - 1) > 0);
	return path;
}

static int exec_used(void *arg)
{
	(void)arg;
	execl(self(), self(), "used", "init", NULL);
	return 99;
}

static void used(void)
{
	char *p = map_at(NULL, SIZE, 0);

	for (unsigned int n = 0; n < USES; n++)
		use(p, SIZE, n);
}

/* Children that become another program, while registrations are held. */
static void executes(void)
{
	char *const argv[] = {(char *)self(), "used", "init", NULL};
	char *held = map_at(NULL, SIZE, 0), *idle = map_at(NULL, SIZE, 0);
	struct ibv_mr *mr = reg(held, SIZE);
	pid_t pid;

	use(idle, SIZE, 0);
	MUST(in_child(exec_used, NULL) == 0);
	right(mr, held, SIZE, 1);
	/* By vfork, in this very memory. */
	MUST(posix_spawn(&pid, self(), NULL, NULL, argv, environ) == 0);
	MUST(child_result(pid) == 0);
	right(mr, held, SIZE, 2);
	use(idle, SIZE, 3);
	use(held, SIZE, 4);
	dereg(mr);
}

/* Prints whether libibverbs itself does more than answer. */
static void asks(void)
{
	struct memory m = {map_at(NULL, SIZE, 0), SIZE};
	struct ibv_mr *mr = reg(m.addr, SIZE);

	printf("madvises %d\n", !in_child(is_mapped, &m));
	dereg(mr);
}

static const struct {
	const char *name;
	void (*function)(void);
	size_t peer; /* the most that is transferred */
} modes[] = {
	{"children", children, SIZE},
	{"keeps", keeps, SIZE},
	{"transparent", transparent, LARGE},
	{"hugetlb", hugetlb, LARGE},
	{"executes", executes, SIZE},
	{"used", used, SIZE},
	{"asks", asks, SIZE},
};

static void print_stats(void)
{
	struct mrcache_stats s = wire_stats(cache);

	fprintf(stderr,
		"{\"hits\":%llu,\"misses\":%llu,\"registrations\":%llu,\"repins\":%llu,\"dereg_errors\":%llu,\"unstable\":%llu,\"fork\":%llu}\n",
		(unsigned long long)s.hits, (unsigned long long)s.misses,
		(unsigned long long)s.registrations,
		(unsigned long long)s.repins,
		(unsigned long long)s.dereg_errors,
		(unsigned long long)s.bypass[MRCACHE_BYPASS_UNSTABLE],
		(unsigned long long)s.bypass[MRCACHE_BYPASS_FORK]);
}

/* MODE init|not [library] */
static int program(int argc, char **argv)
{
	size_t i = 0;

	while (i < sizeof(modes) / sizeof(*modes) &&
	       strcmp(argv[1], modes[i].name))
		i++;
	MUST(i < sizeof(modes) / sizeof(*modes));
	if (!strcmp(argv[2], "init"))
		MUST(ibv_fork_init() == 0);
	if (argc > 3) {
		cache = wire_cache("ummunotify");
		MUST(cache);
	}
	MUST(rdma_open(&wire, modes[i].peer) == 0);
	setvbuf(stdout, NULL, _IOLBF, 0);
	modes[i].function();
	if (cache) {
		print_stats();
		MUST(mrcache_close(cache) == 0);
	}
	MUST(rdma_close(&wire) == 0);
	return 0;
}

/* ---- the tests ------------------------------------------------------------------ */

static struct executed e;

enum with { PLAIN, SHIM, LIBRARY };

/* `setting` may be NAME=VALUE. */
static void run(enum with with, const char *mode, const char *init,
		const char *setting)
{
	char preload[2 * PATH_MAX + 16];
	const char *argv[] = {
		"/usr/bin/env",
		"MRCACHE_STATS=1",
		"MRCACHE_REAPER=0",
		setting ? setting : "X=",
		with == SHIM ? preload : "Y=",
		self(),
		mode,
		init,
		with == LIBRARY ? "library" : NULL,
		NULL,
	};

	snprintf(preload, sizeof(preload), "LD_PRELOAD=%s",
		 build_path("/lib/preload/libmrcache-preload.so"));
	execute_as(&e, &(const struct as){0}, argv);
	assert_status(&e, 0);
}

static unsigned int lines_of(const char *text, const char *line)
{
	unsigned int n = 0;

	for (; (text = strstr(text, line)); text++)
		n++;
	return n;
}

/* The sum of all processes; -1 if none says it. */
static long number(const char *name)
{
	const char *at = e.err;
	char key[64];
	long sum = -1;

	snprintf(key, sizeof(key), "\"%s\":", name);
	while ((at = strstr(at, key))) {
		at += strlen(key);
		sum = (sum < 0 ? 0 : sum) + atol(at);
	}
	return sum;
}

/* How programs come to have fork support. */
static const struct {
	const char *init, *setting;
} asked[] = {
	{"init", NULL},
	{"not", "RDMAV_FORK_SAFE=1"},
	{"not", "IBV_FORK_SAFE=1"},
};

#define WAYS (sizeof(asked) / sizeof(*asked))

/* The peer's buffer has remote access and is not cached. */
static void check_cached(long distinct, long uses)
{
	assert_int_equal(number("misses"), distinct);
	assert_int_equal(number("hits"), uses - distinct);
	assert_int_equal(number("fork"), 0);
	assert_int_equal(number("unstable"), 0);
	assert_int_equal(number("dereg_errors"), 0);
}

/* Whether the kernel copies pinned pages at fork, so that no support is needed. */
static bool copies(void)
{
	return ibv_is_fork_initialized() == IBV_FORK_UNNEEDED;
}

static void needs_a_kernel_that_copies(void)
{
	if (copies())
		return;
	print_message(
		"# skipped: this kernel does not copy pinned pages at fork\n");
	skip();
}

CASE(a_child_has_idle_memory)
{
	needs_a_kernel_that_copies();
	run(PLAIN, "children", asked[0].init, asked[0].setting);
	for (size_t way = 0; way < WAYS; way++) {
		run(SHIM, "children", asked[way].init, asked[way].setting);
		assert_int_equal(lines_of(e.out, "held lived"), USES);
		check_cached(2, 1 + USES);
	}
}

CASE(memory_kept_from_children_stays_so)
{
	needs_a_kernel_that_copies();
	run(PLAIN, "keeps", asked[0].init, asked[0].setting);
	assert_out(&e, "undone 0\n");
	for (size_t way = 0; way < WAYS; way++) {
		run(SHIM, "keeps", asked[way].init, asked[way].setting);
		assert_out(&e, "undone 0\n");
		assert_int_equal(number("fork"), 0);
		assert_int_equal(number("registrations"),
				 1 + 2 * ROUNDS + number("repins"));
	}
}

static void huge_pages_are_cached(const char *mode, long slices)
{
	run(PLAIN, mode, asked[0].init, asked[0].setting);
	print_message("# %s, plain: %s", mode, e.out);
	for (size_t way = 0; way < WAYS - 1; way++) {
		run(SHIM, mode, asked[way].init, asked[way].setting);
		assert_out(&e, "huge 4096\n");
		check_cached(slices + 1, (slices + 1) * USES);
		/* The peer's, and no more than were needed. */
		assert_int_equal(number("registrations"), 1 + slices + 1);
	}
}

CASE(transparent_huge_pages)
{
	needs_a_kernel_that_copies();
	if (!has_huge_pages())
		skip();
	huge_pages_are_cached("transparent", LARGE / SLICE);
}

CASE(huge_pages_asked_for)
{
	needs_a_kernel_that_copies();
	huge_pages_are_cached("hugetlb", LARGE / HUGE);
}

CASE(children_that_execute)
{
	needs_a_kernel_that_copies();
	run(PLAIN, "executes", "init", NULL);
	run(SHIM, "executes", "init", NULL);
	/* Two of the parent's, and one of each of two other programs. */
	check_cached(2 + 2, 4 + 2 * USES);
}

/* There it is as plain, and nothing is cached. */
CASE(where_the_kernel_does_not_copy)
{
	static const char *const same[] = {"children", "keeps"};
	char plain[sizeof(e.out)];

	if (copies()) {
		print_message(
			"# skipped: this kernel copies pinned pages at fork\n");
		skip();
	}
	for (size_t i = 0; i < sizeof(same) / sizeof(*same); i++) {
		run(PLAIN, same[i], "init", NULL);
		memcpy(plain, e.out, sizeof(plain));
		for (size_t way = 0; way < WAYS; way++) {
			run(SHIM, same[i], asked[way].init, asked[way].setting);
			assert_string_equal(e.out, plain);
			assert_int_equal(number("misses"), 0);
			assert_true(number("fork") > 0);
			assert_int_equal(lines_of(e.err, "fork support"), 1);
		}
	}
}

/* Without the shim it is libibverbs' word, and the library sees what that does. */
CASE(the_library_sees_fork_support)
{
	bool madvises;

	run(PLAIN, "asks", "init", NULL);
	madvises = strstr(e.out, "madvises 1");
	print_message("# libibverbs' fork support %s here\n",
		      madvises ? "is in effect" : "does nothing");
	run(LIBRARY, "children", "init", NULL);
	assert_int_equal(lines_of(e.out, "held died"), madvises ? USES : 0);
	if (madvises) {
		assert_int_equal(number("fork"), 1 + USES);
		assert_int_equal(lines_of(e.err, "fork support"), 1);
	} else {
		check_cached(2, 1 + USES);
	}
	run(LIBRARY, "keeps", "not", "IBV_FORK_SAFE=1");
	assert_out(&e, "undone 0\n");
	assert_int_equal(number("fork"), madvises ? 2 * ROUNDS : 0);
}

CASE(the_library_without_fork_support)
{
	run(LIBRARY, "children", "not", NULL);
	assert_int_equal(lines_of(e.out, "held lived"), USES);
	check_cached(2, 1 + USES);
	run(LIBRARY, "executes", "not", NULL);
	check_cached(2, 4);
}

int main(int argc, char **argv)
{
	if (argc > 2)
		return program(argc, argv);
	return run_cases(rdma_check, NULL);
}
