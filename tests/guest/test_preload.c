/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The shim with the real libibverbs, driver and device: this program runs itself
 * under it, in modes that know nothing of a cache, and what they count and see
 * on the wire is right.
 */
#include <stddef.h>
#include <stdint.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "case.h"
#include "umn.h"
#include "wire.h"

#undef ibv_reg_mr

#define SIZE   (64UL << 10)
#define ROUNDS 30
/* The buffer is mapped anew before every round that this divides. */
#define REMAP_EVERY 3
#define REMAPS	    (ROUNDS / REMAP_EVERY - 1)
#define NOBODY	    65534

/* ---- the program that knows nothing ------------------------------------------ */

typedef struct ibv_mr *reg_mr_fn(struct ibv_pd *pd, void *addr, size_t length,
				 int access);
typedef struct ibv_mr *reg_mr_iova2_fn(struct ibv_pd *pd, void *addr,
				       size_t length, uint64_t iova,
				       unsigned int access);
typedef int dereg_mr_fn(struct ibv_mr *mr);

static struct rdma wire;

static void must(bool condition, const char *what)
{
	if (condition)
		return;
	fprintf(stderr, "not %s (errno %d)\n", what, errno);
	exit(1);
}
#define MUST(condition) must(condition, #condition)

/* Past libc, where a hook on malloc() or munmap() sees nothing. */
static void *map_at(void *addr)
{
	if (addr)
		MUST(syscall(SYS_munmap, addr, SIZE) == 0);
	return (void *)syscall(SYS_mmap, addr, SIZE, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS |
				       (addr ? MAP_FIXED_NOREPLACE : 0),
			       -1, 0L);
}

static void transfer(reg_mr_fn *reg_mr, reg_mr_iova2_fn *reg_mr_iova2,
		     dereg_mr_fn *dereg_mr)
{
	char *buffer = map_at(NULL);

	MUST(buffer != MAP_FAILED);
	for (unsigned int round = 0; round < ROUNDS; round++) {
		struct ibv_mr *mr;

		if (round && round % REMAP_EVERY == 0)
			MUST(map_at(buffer) == buffer);
		mr = round % 2 ? reg_mr_iova2(wire.pd, buffer, SIZE,
					      (uintptr_t)buffer,
					      IBV_ACCESS_LOCAL_WRITE)
			       : reg_mr(wire.pd, buffer, SIZE,
					IBV_ACCESS_LOCAL_WRITE);
		MUST(mr);
		MUST(mr->addr == buffer && mr->length == SIZE);
		MUST(mr->pd == wire.pd && mr->context == wire.context);
		MUST(wire_wrong(&wire, mr, buffer, SIZE, round,
				WIRE_BY_PROGRAM) == 0);
		MUST(dereg_mr(mr) == 0);
	}
	munmap(buffer, SIZE);
}

static void linked(void)
{
	MUST(rdma_open(&wire, SIZE) == 0);
	transfer(ibv_reg_mr, ibv_reg_mr_iova2, ibv_dereg_mr);
	/* Frees the protection domains and closes the device. */
	MUST(rdma_close(&wire) == 0);
}

/* As collective libraries for GPUs have it: a lazy dlopen, then versions. */
static void versions(void)
{
	void *handle = dlopen("libibverbs.so.1", RTLD_NOW);
	reg_mr_fn *reg_mr;
	reg_mr_iova2_fn *reg_mr_iova2;
	dereg_mr_fn *dereg_mr;

	MUST(handle);
	reg_mr = (reg_mr_fn *)dlvsym(handle, "ibv_reg_mr", "IBVERBS_1.1");
	reg_mr_iova2 = (reg_mr_iova2_fn *)dlvsym(handle, "ibv_reg_mr_iova2",
						 "IBVERBS_1.8");
	dereg_mr = (dereg_mr_fn *)dlvsym(handle, "ibv_dereg_mr", "IBVERBS_1.1");
	MUST(reg_mr && reg_mr_iova2 && dereg_mr);
	MUST(rdma_open(&wire, SIZE) == 0);
	transfer(reg_mr, reg_mr_iova2, dereg_mr);
	MUST(rdma_close(&wire) == 0);
}

static void plain_names(void)
{
	void *handle = dlopen("libibverbs.so.1", RTLD_LAZY | RTLD_GLOBAL);

	MUST(handle);
	MUST(rdma_open(&wire, SIZE) == 0);
	transfer((reg_mr_fn *)dlsym(handle, "ibv_reg_mr"),
		 (reg_mr_iova2_fn *)dlsym(RTLD_DEFAULT, "ibv_reg_mr_iova2"),
		 (dereg_mr_fn *)dlsym(handle, "ibv_dereg_mr"));
	MUST(rdma_close(&wire) == 0);
}

/* With remote access: the peer's turn. */
static void remote(void)
{
	char *buffer = map_at(NULL);

	MUST(rdma_open(&wire, SIZE) == 0);
	for (unsigned int round = 0; round < ROUNDS; round++) {
		struct ibv_mr *mr;

		if (round && round % REMAP_EVERY == 0)
			MUST(map_at(buffer) == buffer);
		mr = ibv_reg_mr(wire.pd, buffer, SIZE, WIRE_REMOTE);
		MUST(mr);
		MUST(wire_wrong(&wire, mr, buffer, SIZE, round, WIRE_BY_PEER) ==
		     0);
		MUST(ibv_dereg_mr(mr) == 0);
	}
	munmap(buffer, SIZE);
	MUST(rdma_close(&wire) == 0);
}

/* Memory of the driver itself; prints whether it can be registered at all. */
static void device_memory(void)
{
	int fd = umn_open(O_RDONLY);
	void *page;

	MUST(fd >= 0);
	page = mmap(NULL, (size_t)sysconf(_SC_PAGESIZE), PROT_READ, MAP_SHARED,
		    fd, 0);
	MUST(page != MAP_FAILED);
	MUST(rdma_open(&wire, SIZE) == 0);
	for (int i = 0; i < 2; i++) {
		struct ibv_mr *mr;

		errno = 0;
		mr = ibv_reg_mr(wire.pd, page, 4096, 0);
		printf("%s %d\n", mr ? "registered" : "refused",
		       mr ? 0 : errno);
		MUST(!mr || ibv_dereg_mr(mr) == 0);
	}
	MUST(rdma_close(&wire) == 0);
}

static const struct {
	const char *name;
	void (*function)(void);
} modes[] = {
	{"linked", linked}, {"versions", versions},    {"names", plain_names},
	{"remote", remote}, {"device", device_memory},
};

/* ---- the tests ------------------------------------------------------------------ */

static struct {
	int status;
	char out[4096], err[8192], stats[4096];
} outcome;

struct how {
	bool plain;		     /* without the shim */
	bool nobody;		     /* as that user */
	const char *setting, *other; /* NAME=VALUE, or NULL */
};

static void read_back(int fd, char *text, size_t size)
{
	ssize_t n = pread(fd, text, size - 1, 0);

	text[n < 0 ? 0 : n] = '\0';
	close(fd);
}

static int text_file(void)
{
	int fd = memfd_create("text", 0);

	assert_true(fd >= 0);
	return fd;
}

static void become(const struct how *how, const char *mode, int stats)
{
	char self[PATH_MAX], shim[PATH_MAX + 64], setting[64];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n < 0)
		_exit(125);
	self[n] = '\0';
	snprintf(setting, sizeof(setting), "/proc/self/fd/%d", stats);
	setenv("MRCACHE_STATS", setting, 1);
	if (how->setting)
		putenv((char *)how->setting);
	if (how->other)
		putenv((char *)how->other);
	if (!how->plain) {
		char *directory = strdup(self);

		snprintf(shim, sizeof(shim),
			 "%s/../../lib/preload/libmrcache-preload.so",
			 dirname(directory));
		if (access(shim, R_OK)) {
			dprintf(2, "no shim at %s\n", shim);
			_exit(125);
		}
		setenv("LD_PRELOAD", shim, 1);
	}
	if (how->nobody &&
	    (setgroups(0, NULL) || setgid(NOBODY) || setuid(NOBODY)))
		_exit(125);
	execl(self, self, mode, NULL);
	_exit(125);
}

static void run(const struct how *how, const char *mode)
{
	int out = text_file(), err = text_file(), stats = text_file();
	pid_t pid;

	/* Whoever it becomes opens it by name. */
	assert_int_equal(fchmod(stats, 0666), 0);
	pid = fork();
	if (!pid) {
		dup2(out, 1);
		dup2(err, 2);
		become(how, mode, stats);
	}
	assert_int_equal(waitpid(pid, &outcome.status, 0), pid);
	read_back(out, outcome.out, sizeof(outcome.out));
	read_back(err, outcome.err, sizeof(outcome.err));
	read_back(stats, outcome.stats, sizeof(outcome.stats));
	if (outcome.status)
		print_error("%s: status 0x%x\n%s", mode,
			    (unsigned int)outcome.status, outcome.err);
	assert_int_equal(outcome.status, 0);
}

/* The last one: of bypasses, where two have the same name. */
static long long number(const char *name)
{
	const char *at = outcome.stats;
	long long value = -1;
	char key[64];

	snprintf(key, sizeof(key), "\"%s\":", name);
	while ((at = strstr(at, key))) {
		at += strlen(key);
		value = atoll(at);
	}
	return value;
}

static unsigned int lines(const char *text)
{
	unsigned int n = 0;

	for (; *text; text++)
		n += *text == '\n';
	return n;
}

/* Registered once, and again only when it was mapped anew. */
static void check_cached(void)
{
	assert_int_equal(number("misses"), 1 + REMAPS);
	assert_int_equal(number("hits"), ROUNDS - 1 - REMAPS);
	assert_int_equal(number("dereg_errors"), 0);
	assert_int_equal(number("cached"), 0);
}

CASE(a_linked_program)
{
	run(&(struct how){0}, "linked");
	check_cached();
	/* The peer's memory has remote access; that is said, once. */
	assert_int_equal(number("remote"), 1);
	assert_int_equal(lines(outcome.err), 1);
	assert_non_null(strstr(outcome.stats, "\"monitor\":\"ummunotify\""));
}

CASE(a_program_that_looks_versions_up)
{
	run(&(struct how){0}, "versions");
	check_cached();
}

CASE(a_program_that_looks_names_up)
{
	run(&(struct how){0}, "names");
	check_cached();
}

CASE(with_the_driver_of_2010)
{
	run(&(struct how){.setting = "MRCACHE_MONITOR=ummunotify-2010"},
	    "linked");
	check_cached();
}

CASE(remote_access_passes_through)
{
	run(&(struct how){0}, "remote");
	assert_int_equal(number("hits"), 0);
	assert_int_equal(number("remote"), 1 + ROUNDS);
	assert_int_equal(number("registrations"), 1 + ROUNDS);
}

CASE(remote_access_is_cached_if_wanted)
{
	run(&(struct how){.setting = "MRCACHE_REMOTE=1"}, "remote");
	/* And the peer's own. */
	assert_int_equal(number("misses"), 2 + REMAPS);
	assert_int_equal(number("hits"), ROUNDS - 1 - REMAPS);
	assert_int_equal(number("cached"), 0);
	assert_string_equal(outcome.err, "");
}

CASE(without_the_device)
{
	run(&(struct how){.setting = "MRCACHE_DEVICE=/nonexistent"}, "linked");
	assert_int_equal(number("hits"), 0);
	assert_int_equal(number("registrations"), 1 + ROUNDS);
	assert_int_equal(number("monitor"), 1 + ROUNDS);
	assert_int_equal(lines(outcome.err), 1);
	assert_non_null(strstr(outcome.err, "nothing is cached"));
	run(&(struct how){.setting = "MRCACHE_DEVICE=/nonexistent",
			  .other = "MRCACHE_LOG=quiet"},
	    "linked");
	assert_string_equal(outcome.err, "");
}

CASE(not_permitted_to_open_the_device)
{
	struct stat before;

	assert_int_equal(stat(UMN_DEVICE, &before), 0);
	/* As it is, anybody may. */
	run(&(struct how){.nobody = true}, "linked");
	check_cached();
	assert_int_equal(chmod(UMN_DEVICE, 0600), 0);
	run(&(struct how){.nobody = true}, "linked");
	assert_int_equal(chmod(UMN_DEVICE, before.st_mode & 07777), 0);
	assert_int_equal(number("hits"), 0);
	assert_int_equal(number("registrations"), 1 + ROUNDS);
	assert_int_equal(lines(outcome.err), 1);
	assert_non_null(strstr(outcome.err, "not permitted"));
}

CASE(memory_that_must_not_be_cached)
{
	static char plain[sizeof(outcome.out)];

	run(&(struct how){.plain = true}, "device");
	strcpy(plain, outcome.out);
	run(&(struct how){0}, "device");
	assert_string_equal(outcome.out, plain);
	assert_int_equal(number("hits"), 0);
	assert_int_equal(number("misses"), 0);
	if (strstr(plain, "registered"))
		assert_int_equal(number("memory"), 2);
	else
		assert_int_equal(number("reg_errors"), 2);
}

int main(int argc, char **argv)
{
	for (size_t i = 0; argc > 1 && i < sizeof(modes) / sizeof(*modes); i++)
		if (!strcmp(argv[1], modes[i].name)) {
			modes[i].function();
			return 0;
		}
	return run_cases(rdma_check, NULL);
}
