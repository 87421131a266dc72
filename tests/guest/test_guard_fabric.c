/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libfabric's registration cache, guarded: this program runs itself in modes that
 * know libfabric's public interface only, change memory between registrations,
 * and look at each byte that a registration's key carries. Registrations are
 * counted by the kernel.
 */
#include <stddef.h>
#include <stdint.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <rdma/fabric.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "case.h"
#include "execute.h"
#include "memop.h"
#include "mrcache-fabric.h"
#include "rdma.h"
#include "support.h"

/* Four pages at least, for the modes that have ranges in ranges. */
#define SIZE   (4 * PAGE > 65536 ? 4 * PAGE : (size_t)65536)
#define ROUNDS 20u
#define COUNT  "/sys/kernel/tracing/kprobe_profile"
#define PROBE  "guard_fabric"

static void must(bool condition, const char *what)
{
	if (condition)
		return;
	fprintf(stderr, "not %s (errno %d)\n", what, errno);
	exit(1);
}
#define MUST(condition) must(condition, #condition)

/* ---- the program that knows nothing: domains ------------------------------------ */

static struct ibv_pd *last_pd;

/* Where libfabric's registrations are, so that a connection can be there. */
__attribute__((visibility("default"))) struct ibv_pd *
ibv_alloc_pd(struct ibv_context *context)
{
	static __typeof__(ibv_alloc_pd) *real;

	if (!real)
		real = (__typeof__(real))dlsym(RTLD_NEXT, "ibv_alloc_pd");
	last_pd = real(context);
	return last_pd;
}

static void replace(char *addr, size_t size);

/* The next registration finds its memory replaced as soon as it is pinned. */
static _Atomic(char *) window;
static size_t window_size;

/* Between libibverbs and its providers: whoever registers comes through here. */
int ibv_cmd_reg_mr(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova,
		   int access, void *mr, void *cmd, size_t cmd_size, void *resp,
		   size_t resp_size);
__attribute__((visibility("default"))) int
ibv_cmd_reg_mr(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova,
	       int access, void *mr, void *cmd, size_t cmd_size, void *resp,
	       size_t resp_size)
{
	static __typeof__(ibv_cmd_reg_mr) *real;
	int ret;

	if (!real)
		real = (__typeof__(real))dlsym(RTLD_NEXT, "ibv_cmd_reg_mr");
	ret = real(pd, addr, length, iova, access, mr, cmd, cmd_size, resp,
		   resp_size);
	if (addr == window) {
		window = NULL;
		replace(addr, window_size);
	}
	return ret;
}

/* A domain, and a connection in it whose peer is outside. */
struct side {
	struct fid_fabric *fabric;
	struct fid_domain *domain;
	struct rdma wire;
};

static struct rdma own;

static void open_side(struct side *side)
{
	struct fi_info *hints = fi_allocinfo(), *info;
	struct rdma via;

	MUST(hints);
	hints->fabric_attr->prov_name = strdup("verbs");
	hints->ep_attr->type = FI_EP_MSG;
	hints->caps = FI_MSG | FI_RMA;
	hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR |
				      FI_MR_ALLOCATED | FI_MR_PROV_KEY;
	MUST(!fi_getinfo(FI_VERSION(1, 9), NULL, NULL, 0, hints, &info));
	MUST(!fi_fabric(info->fabric_attr, &side->fabric, NULL));
	MUST(!fi_domain(side->fabric, info, &side->domain, NULL));
	via = own;
	via.context = last_pd->context;
	via.pd = last_pd;
	MUST(!rdma_join(&side->wire, &via, SIZE));
	fi_freeinfo(info);
	fi_freeinfo(hints);
}

static void close_side(struct side *side)
{
	/* First the connection, which is in libfabric's domain. */
	MUST(!rdma_close(&side->wire));
	MUST(!fi_close(&side->domain->fid));
	MUST(!fi_close(&side->fabric->fid));
}

static struct fid_mr *reg(struct side *side, void *addr, size_t size)
{
	struct fid_mr *mr;

	MUST(!fi_mr_reg(side->domain, addr, size,
			FI_READ | FI_WRITE | FI_REMOTE_READ | FI_REMOTE_WRITE,
			0, 0, 0, &mr, NULL));
	return mr;
}

/* Whether the registration carries what is not the program's, either way. */
static unsigned int is_wrong(struct side *side, struct fid_mr *mr, void *addr,
			     size_t size, unsigned int seed)
{
	struct ibv_mr reached = {.rkey = (uint32_t)fi_mr_key(mr)};
	size_t wrong;

	memop_fill(addr, size, seed);
	MUST(!rdma_peer_reads(&side->wire, &reached, addr, size));
	wrong = memop_wrong(side->wire.peer, size, seed);
	memop_fill(side->wire.peer, size, seed + 1);
	MUST(!rdma_peer_writes(&side->wire, &reached, addr, size));
	wrong += memop_wrong(addr, size, seed + 1);
	return wrong > 0;
}

static unsigned int use(struct side *side, void *addr, size_t size,
			unsigned int seed)
{
	struct fid_mr *mr = reg(side, addr, size);
	unsigned int wrong = is_wrong(side, mr, addr, size, seed);

	MUST(!fi_close(&mr->fid));
	return wrong;
}

/* ---- memory ------------------------------------------------------------------------- */

static int file = -1;

/* Far from where the kernel puts what others map while it is free. */
static char *map(void)
{
	static _Atomic uintptr_t next = UINT64_C(0x100000000000);
	char *want = (char *)(next += UINT64_C(1) << 30);
	char *addr =
		mmap(want, SIZE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	MUST(addr == want);
	memset(addr, 1, SIZE);
	return addr;
}

/* Past libc, where a hook on munmap() sees nothing. */
static void replace(char *addr, size_t size)
{
	MUST(!syscall(SYS_munmap, addr, size));
	MUST((char *)syscall(SYS_mmap, addr, size, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
			     -1, 0L) == addr);
}

static char *map_file(void)
{
	char *addr;

	file = memfd_create("memory", 0);
	MUST(file >= 0 && !ftruncate(file, (off_t)SIZE));
	addr = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	MUST(addr != MAP_FAILED);
	return addr;
}

static void punch(char *addr, size_t size)
{
	(void)addr;
	MUST(!fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			(off_t)size));
}

/* ---- modes: each returns how many registrations were wrong ------------------------------ */

static struct side a, b;

static unsigned int seed(void)
{
	static unsigned int last;

	return last += 2;
}

static unsigned int change_by(void (*change)(char *addr, size_t size),
			      char *addr)
{
	unsigned int wrong = 0;

	for (unsigned int i = 0; i < ROUNDS; i++) {
		if (i)
			change(addr, SIZE);
		wrong += use(&a, addr, SIZE, seed());
	}
	return wrong;
}

static unsigned int mode_replace(void)
{
	return change_by(replace, map());
}

static unsigned int mode_punch(void)
{
	return change_by(punch, map_file());
}

static unsigned int mode_none(void)
{
	unsigned int wrong = 0;
	char *addr = map();

	for (unsigned int i = 0; i < ROUNDS; i++)
		wrong += use(&a, addr, SIZE, seed());
	return wrong;
}

/* Each buffer is new, and there are two uses of it. */
static unsigned int mode_new(void)
{
	unsigned int wrong = 0;

	for (unsigned int i = 0; i < ROUNDS; i++) {
		char *addr = map();

		wrong += use(&a, addr, SIZE, seed());
		wrong += use(&a, addr, SIZE, seed());
		MUST(!syscall(SYS_munmap, addr, SIZE));
	}
	return wrong;
}

/* In mode_two(): a domain that is used after a change registers, once. */
#define TWO_REGISTRATIONS 23

/* Each domain may have an old registration while the other makes a new one. */
static unsigned int mode_two(void)
{
	static const char plan[] =
		"ab-ab-ba-a-b-aab-bba-bb-a-ba-ab-aabb-b-abab";
	unsigned int wrong = 0;
	char *addr = map();

	for (const char *step = plan; *step; step++) {
		if (*step == '-')
			replace(addr, SIZE);
		else
			wrong +=
				use(*step == 'a' ? &a : &b, addr, SIZE, seed());
	}
	return wrong;
}

/* Replaced after the pin, when libfabric has not yet subscribed. */
static unsigned int mode_window(void)
{
	unsigned int wrong = 0;
	char *addr = map();

	window_size = SIZE;
	for (unsigned int i = 0; i < ROUNDS; i++) {
		struct fid_mr *mr;

		window = addr;
		mr = reg(&a, addr, SIZE);
		/* Not pinned: an old one was handed out. */
		wrong += window != NULL;
		window = NULL;
		MUST(!fi_close(&mr->fid));
		/* That one was too late. */
		wrong += use(&a, addr, SIZE, seed());
		wrong += use(&a, addr, SIZE, seed());
		replace(addr, SIZE);
	}
	return wrong;
}

/* More than the cache keeps (FI_MR_CACHE_MAX_COUNT), some of them replaced. */
static unsigned int mode_evict(void)
{
	unsigned int wrong = 0;
	char *addr[6];

	for (size_t i = 0; i < 6; i++)
		addr[i] = map();
	for (unsigned int i = 0; i < 5 * ROUNDS; i++) {
		char *buffer = addr[i * 7 % 11 % 6];

		if (i % 3 == 0)
			replace(buffer, SIZE);
		wrong += use(&a, buffer, SIZE, seed());
		wrong += use(&a, buffer, SIZE, seed());
	}
	return wrong;
}

/* Ranges in ranges, some of them held while the memory changes. */
static unsigned int mode_many(void)
{
	unsigned int wrong = 0;
	char *addr = map();

	for (unsigned int i = 0; i < ROUNDS; i++) {
		struct fid_mr *whole, *part;

		whole = reg(&a, addr, SIZE);
		part = reg(&a, addr + SIZE / 4, SIZE / 2);
		wrong += is_wrong(&a, whole, addr, SIZE, seed());
		wrong += is_wrong(&a, part, addr + SIZE / 4, SIZE / 2, seed());
		/* Both still held, and both wrong from now on. */
		if (i % 2)
			replace(addr + SIZE / 4, SIZE / 4);
		wrong += use(&a, addr, SIZE, seed());
		wrong += use(&a, addr + SIZE / 4, SIZE / 2, seed());
		wrong += use(&a, addr + SIZE / 2, SIZE / 2, seed());
		MUST(!fi_close(&part->fid));
		MUST(!fi_close(&whole->fid));
		wrong += use(&a, addr, SIZE, seed());
	}
	return wrong;
}

static _Atomic bool is_over;

/* Registers and replaces at the side, in both domains. */
static void *disturb(void *arg)
{
	struct side *side = arg;
	char *addr = map();

	while (!is_over) {
		struct fid_mr *mr = reg(side, addr, SIZE);

		MUST(!fi_close(&mr->fid));
		replace(addr, SIZE);
		memset(addr, 1, SIZE);
	}
	return NULL;
}

static unsigned int mode_threads(void)
{
	unsigned int wrong;
	pthread_t threads[2];

	MUST(!pthread_create(&threads[0], NULL, disturb, &a));
	MUST(!pthread_create(&threads[1], NULL, disturb, &b));
	wrong = mode_two();
	is_over = true;
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	return wrong;
}

/* The cache again, after the last domain was closed. */
static unsigned int mode_again(void)
{
	unsigned int wrong = 0;
	char *addr = map();

	for (unsigned int i = 0; i < 3; i++) {
		wrong += use(&a, addr, SIZE, seed());
		close_side(&a);
		close_side(&b);
		replace(addr, SIZE);
		open_side(&a);
		open_side(&b);
		wrong += use(&a, addr, SIZE, seed());
		wrong += use(&b, addr, SIZE, seed());
	}
	return wrong;
}

static const struct {
	const char *name;
	unsigned int (*function)(void);
} modes[] = {
	{"replace", mode_replace}, {"punch", mode_punch},
	{"none", mode_none},	   {"new", mode_new},
	{"two", mode_two},	   {"evict", mode_evict},
	{"many", mode_many},	   {"again", mode_again},
	{"threads", mode_threads}, {"window", mode_window},
};

static long registrations(void)
{
	char line[256], name[64];
	FILE *profile = fopen(COUNT, "re");
	long count = -1;

	while (profile && fgets(line, sizeof(line), profile))
		if (sscanf(line, "%63s %ld", name, &count) == 2 &&
		    !strcmp(name, PROBE))
			break;
	if (profile)
		fclose(profile);
	return count;
}

static unsigned int (*find_mode(const char *name))(void)
{
	for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++)
		if (!strcmp(modes[i].name, name))
			return modes[i].function;
	return NULL;
}

/* A line for each mode. */
static int run_modes(char **names)
{
	if (!strcmp(*names, "import")) {
		MUST(mrcache_fabric_import(NULL) == 0);
		names++;
	}
	MUST(!rdma_open(&own, SIZE));
	open_side(&a);
	open_side(&b);
	for (; *names; names++) {
		unsigned int (*mode)(void) = find_mode(*names), wrong;
		long before = registrations();

		MUST(mode);
		wrong = mode();
		printf("%s: %u wrong, %ld registrations\n", *names, wrong,
		       registrations() - before);
	}
	close_side(&a);
	close_side(&b);
	MUST(!rdma_close(&own));
	return 0;
}

/* ---- the tests ------------------------------------------------------------------------- */

static struct executed e;

enum how { PLAIN, SHIM, IMPORT };

/* In one process, because it takes its time to start: modes, separated by blanks. */
static void run(enum how how, const char *setting, const char *mode_names)
{
	static char self[2 * PATH_MAX], shim[2 * PATH_MAX + 16], names[256];
	const char *argv[24] = {"/usr/bin/env", "MRCACHE_REMOTE=1",
				"FI_PROVIDER=verbs"};
	char *rest = names;
	int n = 3;

	strcpy(self, build_path("/tests/guest/test_guard_fabric"));
	snprintf(shim, sizeof(shim), "LD_PRELOAD=%s",
		 build_path("/lib/preload/libmrcache-preload.so"));
	strcpy(names, mode_names);
	if (setting)
		argv[n++] = setting;
	if (how == SHIM)
		argv[n++] = shim;
	argv[n++] = self;
	if (how == IMPORT)
		argv[n++] = "import";
	while ((argv[n] = strsep(&rest, " ")))
		n++;
	execute_as(&e, &(struct as){0}, argv);
	print_message("# %s\n%s", setting ? setting : "", e.out);
	assert_status(&e, 0);
}

/* How many of a mode's were wrong, and registered. */
static unsigned int wrong(const char *mode, long *registered)
{
	const char *line = strstr(e.out, mode);
	unsigned int n;

	assert_non_null(line);
	assert_int_equal(sscanf(line + strlen(mode),
				": %u wrong, %ld registrations", &n,
				registered),
			 2);
	return n;
}

static void assert_right(const char *mode)
{
	long registered;

	assert_int_equal(wrong(mode, &registered), 0);
}

static void assert_registered(const char *mode, long want)
{
	long registered;

	wrong(mode, &registered);
	assert_int_equal(registered, want);
}

/* That these modes can find what they look for. */
CASE(as_it_comes_it_is_wrong)
{
	long registered;

	run(PLAIN, NULL, "replace punch two window none");
	assert_int_equal(wrong("replace", &registered), ROUNDS - 1);
	assert_int_equal(wrong("punch", &registered), ROUNDS - 1);
	assert_true(wrong("two", &registered) > 0);
	assert_true(wrong("window", &registered) > 0);
	assert_right("none");
	assert_registered("none", 1);
}

/* Nothing is registered but what has to be. */
CASE(guarded_it_is_right)
{
	run(SHIM, NULL, "none replace punch new two window many again threads");
	assert_right("none");
	assert_registered("none", 1);
	assert_right("replace");
	assert_registered("replace", ROUNDS);
	assert_right("punch");
	assert_registered("punch", ROUNDS);
	assert_right("new");
	assert_registered("new", ROUNDS);
	assert_right("two");
	assert_registered("two", TWO_REGISTRATIONS);
	assert_right("window");
	assert_right("many");
	assert_right("again");
	assert_right("threads");
	assert_string_equal(e.err, "");
}

CASE(more_than_the_cache_keeps)
{
	run(SHIM, "FI_MR_CACHE_MAX_COUNT=3", "evict");
	assert_right("evict");
	run(IMPORT, "FI_MR_CACHE_MAX_COUNT=3", "evict");
	assert_right("evict");
}

CASE(monitors_that_the_user_chose)
{
	static const char *const monitors[] = {
		"FI_MR_CACHE_MONITOR=memhooks",
		"FI_MR_CACHE_MONITOR=userfaultfd"};

	for (size_t i = 0; i < 2; i++) {
		run(SHIM, monitors[i], "punch");
		assert_right("punch");
		assert_registered("punch", ROUNDS);
		assert_err(&e, "FI_MR_CACHE_MONITOR is overridden");
	}
	/* No cache of libfabric's: mrcache's own is below it. */
	run(SHIM, "FI_MR_CACHE_MONITOR=disabled", "none replace");
	assert_right("replace");
	assert_registered("replace", ROUNDS);
	assert_registered("none", 1);
	assert_string_equal(e.err, "");
}

CASE(not_guarded_if_not_wanted)
{
	long registered;

	run(SHIM, "MRCACHE_GUARD=0", "replace");
	assert_int_equal(wrong("replace", &registered), ROUNDS - 1);
}

/* The first use of a range is not kept, that is all. */
CASE(imported_by_the_program)
{
	run(IMPORT, NULL,
	    "none replace punch new two window many again threads");
	assert_right("none");
	assert_registered("none", 2);
	assert_right("replace");
	assert_registered("replace", ROUNDS);
	assert_right("punch");
	assert_right("new");
	assert_registered("new", 2 * ROUNDS);
	assert_right("two");
	assert_right("window");
	assert_right("many");
	assert_right("again");
	assert_right("threads");
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		print_error("%s: %s\n", path, strerror(errno));
	close(fd);
}

#define TRACING "/sys/kernel/tracing"

static int start_counting(void **state)
{
	int ret = rdma_check(state);

	write_file(TRACING "/kprobe_events", "p:" PROBE " rxe_reg_user_mr\n");
	write_file(TRACING "/events/kprobes/" PROBE "/enable", "1");
	return ret;
}

static int stop_counting(void **state)
{
	(void)state;
	write_file(TRACING "/events/kprobes/" PROBE "/enable", "0");
	write_file(TRACING "/kprobe_events", "-:" PROBE "\n");
	return 0;
}

int main(int argc, char **argv)
{
	if (argc > 1)
		return run_modes(argv + 1);
	return run_cases(start_counting, stop_counting);
}
