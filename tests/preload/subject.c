/* SPDX-License-Identifier: BSD-2-Clause */
/* A program that is linked with libibverbs, as most are. See subject.h. */
#include "fake_device.h"
#include "fake_ibverbs.h"
#include "subject.h"
#include "support/patience.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LOCAL  IBV_ACCESS_LOCAL_WRITE
#define REMOTE (LOCAL | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE)

/* Not a constant to the compiler: the macro's other way. */
static volatile int local = LOCAL, remote_access = REMOTE;

static struct ibv_context *context;
static struct ibv_pd *pd;
static char memory[64 << 10];
static const char *program;
static unsigned int others; /* registrations that are not ours */

static void open_device(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);

	others = fake_live();
	CHECK(list && list[0]);
	context = ibv_open_device(list[0]);
	CHECK(context);
	ibv_free_device_list(list);
	pd = ibv_alloc_pd(context);
	CHECK(pd);
}

static void close_device(void)
{
	CHECK_EQUAL(ibv_dealloc_pd(pd), 0);
	CHECK_EQUAL(ibv_close_device(context), 0);
	CHECK_EQUAL(fake_live(), others);
}

/* Registrations made must be as many as without and with a cache. */
#define CHECK_PINS(plain, cached) \
	CHECK_EQUAL(fake_pins(), caches() ? cached : plain)

static struct ibv_mr *reg_in(struct ibv_pd *domain, void *addr, size_t length)
{
	struct ibv_mr *mr = ibv_reg_mr(domain, addr, length, LOCAL);

	CHECK(mr);
	CHECK(mr->addr == addr && mr->length == length);
	CHECK(mr->pd == domain && mr->context == domain->context);
	CHECK(mr->lkey && mr->rkey);
	return mr;
}

static struct ibv_mr *reg(void)
{
	return reg_in(pd, memory, sizeof(memory));
}

static void touch(void)
{
	CHECK_EQUAL(ibv_dereg_mr(reg()), 0);
}

static void invalidate_range(const void *addr, size_t length)
{
	void (*function)(const void *, size_t) =
		(void (*)(const void *, size_t))dlsym(RTLD_DEFAULT,
						      "fake_invalidate");

	if (function)
		function(addr, length);
}

static void invalidate(void)
{
	invalidate_range(memory, sizeof(memory));
}

static bool wait_for(bool (*condition)(void))
{
	return COMES(condition(), 20);
}

/* ---- registering ------------------------------------------------------------------ */

static void hit(void)
{
	open_device();
	for (int i = 0; i < 5; i++)
		touch();
	CHECK_PINS(5, 1);
	close_device();
}

/* libibverbs enters itself by the same symbols: one call, one registration. */
static void once(void)
{
	struct ibv_mr *mrs[3];

	open_device();
	mrs[0] = ibv_reg_mr(pd, memory, 4096, LOCAL);
	CHECK_EQUAL(fake_pins(), 1);
	CHECK_EQUAL(fake_calls("reg_mr_iova2"), 1);
	mrs[1] = ibv_reg_mr(pd, memory + 4096, 4096, local);
	CHECK_EQUAL(fake_pins(), 2);
	CHECK_EQUAL(fake_calls("reg_mr_iova2"), 2);
	mrs[2] = ibv_reg_mr_iova(pd, memory, 4096, 0, LOCAL);
	CHECK_EQUAL(fake_pins(), 3);
	CHECK_EQUAL(fake_calls("reg_mr_iova2"), 3);
	for (int i = 0; i < 3; i++) {
		CHECK(mrs[i]);
		CHECK_EQUAL(ibv_dereg_mr(mrs[i]), 0);
	}
	CHECK_EQUAL(fake_live(), caches() ? 2 : 0);
	CHECK_EQUAL(fake_calls("dereg_mr"), caches() ? 1 : 3);
	close_device();
	CHECK_EQUAL(fake_calls("dereg_mr"), 3);
}

/* verbs.h makes other calls of an access that is a constant and one that is not. */
static void macros(void)
{
	open_device();
	CHECK_EQUAL(ibv_dereg_mr(ibv_reg_mr(pd, memory, 4096, LOCAL)), 0);
	if (getenv("SUBJECT_PLAIN"))
		CHECK_EQUAL(fake_calls("reg_mr"), 1);
	CHECK_EQUAL(ibv_dereg_mr(ibv_reg_mr(pd, memory, 4096, local)), 0);
	if (getenv("SUBJECT_PLAIN"))
		CHECK_EQUAL(fake_calls("reg_mr"), 1);
	CHECK_EQUAL(
		ibv_dereg_mr(ibv_reg_mr(pd, memory, 4096,
					LOCAL | IBV_ACCESS_RELAXED_ORDERING)),
		0);
	CHECK_EQUAL(fake_last_access(), LOCAL | IBV_ACCESS_RELAXED_ORDERING);
	CHECK_EQUAL(ibv_dereg_mr(ibv_reg_mr_iova(pd, memory, 4096,
						 (uintptr_t)memory, LOCAL)),
		    0);
	CHECK_PINS(4, 2);
	close_device();
}

extern struct old_pd *old_alloc_pd(struct ibv_context *);
extern int old_dealloc_pd(struct old_pd *);
extern struct old_mr *old_reg_mr(struct old_pd *, void *, size_t, int);
extern int old_dereg_mr(struct old_mr *);
extern int old_close_device(struct ibv_context *);
__asm__(".symver old_alloc_pd, ibv_alloc_pd@IBVERBS_1.0");
__asm__(".symver old_dealloc_pd, ibv_dealloc_pd@IBVERBS_1.0");
__asm__(".symver old_reg_mr, ibv_reg_mr@IBVERBS_1.0");
__asm__(".symver old_dereg_mr, ibv_dereg_mr@IBVERBS_1.0");
__asm__(".symver old_close_device, ibv_close_device@IBVERBS_1.0");

/* A program of 2006: its structures are others, its functions call the new ones. */
static void version_1_0(void)
{
	struct old_pd *old;
	struct old_mr *mr;

	open_device();
	old = old_alloc_pd(context);
	for (int i = 0; i < 3; i++) {
		mr = old_reg_mr(old, memory, sizeof(memory), LOCAL);
		CHECK(mr && mr->pd == old);
		CHECK(mr->real->addr == memory && mr->lkey == mr->real->lkey);
		CHECK_EQUAL(old_dereg_mr(mr), 0);
	}
	CHECK_EQUAL(fake_calls("reg_mr@1.0"), 3);
	CHECK_EQUAL(fake_calls("dereg_mr@1.0"), 3);
	CHECK_PINS(3, 1);
	mr = old_reg_mr(old, memory, 4096, LOCAL);
	CHECK_EQUAL(old_dealloc_pd(old), EBUSY);
	CHECK_EQUAL(old_dereg_mr(mr), 0);
	CHECK_EQUAL(old_dealloc_pd(old), 0);
	CHECK_EQUAL(ibv_dealloc_pd(pd), 0);
	CHECK_EQUAL(old_close_device(context), 0);
	CHECK_EQUAL(fake_live(), 0);
}

/* What the shim never sees made. */
static void unseen(void)
{
	struct ibv_mr *mr;
	unsigned int unpins;

	open_device();
	/* Before there is a cache, too. */
	for (int before = 1; before >= 0; before--) {
		unpins = fake_unpins();
		CHECK_EQUAL(ibv_dereg_mr(fake_null_mr(pd)), 0);
		CHECK_EQUAL(ibv_dereg_mr(fake_dm_mr(pd)), 0);
		mr = ibv_import_mr(pd, 7);
		CHECK_EQUAL(ibv_dereg_mr(mr), 0);
		ibv_unimport_mr(ibv_import_mr(pd, 8));
		CHECK_EQUAL(fake_unpins() - unpins, 4);
		if (before)
			touch();
	}
	close_device();
}

static struct ibv_mr *reg_ex(size_t length)
{
	struct fake_init_attr attr = {
		.length = length, .access = LOCAL, .addr = memory};

	return ibv_reg_mr_ex(pd, (struct ibv_mr_init_attr *)&attr);
}

/* Not plain memory at its own address: passed through, and back. */
static void other_kinds(void)
{
	uint64_t iova = (uintptr_t)memory;

	open_device();
	for (int i = 0; i < 2; i++) {
		struct ibv_mr *mr = ibv_reg_dmabuf_mr(pd, 0, 4096, 0, 3, LOCAL);

		CHECK(mr);
		CHECK_EQUAL(ibv_dereg_mr(mr), 0);
		mr = reg_ex(4096);
		CHECK(mr);
		CHECK_EQUAL(ibv_dereg_mr(mr), 0);
		mr = ibv_reg_buf_mr(pd, NULL, memory, 4096, LOCAL);
		CHECK(mr);
		CHECK_EQUAL(ibv_dereg_mr(mr), 0);
		mr = ibv_reg_mr_iova(pd, memory, 4096, 0, LOCAL);
		CHECK(mr);
		CHECK_EQUAL(ibv_dereg_mr(mr), 0);
		mr = ibv_reg_mr_iova2(pd, memory, 4096, iova + 4096,
				      (unsigned int)LOCAL);
		CHECK(mr);
		CHECK_EQUAL(ibv_dereg_mr(mr), 0);
		mr = ibv_reg_mr(pd, memory, 4096,
				LOCAL | IBV_ACCESS_ZERO_BASED);
		CHECK(mr);
		CHECK_EQUAL(fake_last_access(), LOCAL | IBV_ACCESS_ZERO_BASED);
		CHECK_EQUAL(ibv_dereg_mr(mr), 0);
		mr = ibv_reg_mr(pd, memory, 4096, LOCAL | IBV_ACCESS_MW_BIND);
		CHECK(mr);
		CHECK_EQUAL(ibv_dereg_mr(mr), 0);
		mr = ibv_reg_mr(pd, NULL, SIZE_MAX,
				LOCAL | IBV_ACCESS_ON_DEMAND);
		CHECK(mr);
		CHECK_EQUAL(ibv_dereg_mr(mr), 0);
		CHECK_EQUAL(fake_pins(), 8 * (i + 1));
		CHECK_EQUAL(fake_live(), 0);
	}
	CHECK_EQUAL(fake_calls("reg_buf_mr"), 2);
	CHECK_EQUAL(fake_calls("reg_mr_ex"), 4);
	close_device();
}

static void rereg(void)
{
	struct ibv_pd *other;
	struct ibv_mr *mr, *again;

	open_device();
	other = ibv_alloc_pd(context);
	touch(); /* so that it is a hit */
	mr = reg();
	CHECK_EQUAL(ibv_rereg_mr(mr,
				 IBV_REREG_MR_CHANGE_TRANSLATION |
					 IBV_REREG_MR_CHANGE_PD,
				 other, memory, 4096, 0),
		    0);
	CHECK(mr->addr == memory && mr->length == 4096 && mr->pd == other);
	/* It is no longer what it was, so nobody else may get it. */
	again = reg();
	CHECK(again != mr);
	CHECK_EQUAL(ibv_dereg_mr(again), 0);
	again = reg_in(other, memory, 4096);
	CHECK_EQUAL(ibv_dereg_mr(again), 0);
	CHECK_EQUAL(ibv_dealloc_pd(other), EBUSY);
	CHECK_EQUAL(ibv_dereg_mr(mr), 0);
	CHECK_EQUAL(ibv_dealloc_pd(other), 0);
	close_device();
}

/* The same registration in two hands: changing it is refused, not done. */
static void rereg_shared(void)
{
	struct ibv_mr *one, *two;
	int ret;

	open_device();
	one = reg();
	two = reg();
	CHECK((one == two) == caches());
	errno = 0;
	ret = ibv_rereg_mr(one, IBV_REREG_MR_CHANGE_TRANSLATION, NULL, memory,
			   4096, 0);
	CHECK_EQUAL(ret, caches() ? IBV_REREG_MR_ERR_INPUT : 0);
	if (caches())
		CHECK_EQUAL(errno, EBUSY);
	CHECK_EQUAL(two->length, sizeof(memory));
	CHECK_EQUAL(ibv_dereg_mr(two), 0);
	CHECK_EQUAL(ibv_rereg_mr(one, IBV_REREG_MR_CHANGE_TRANSLATION, NULL,
				 memory, 8192, 0),
		    0);
	CHECK_EQUAL(one->length, 8192);
	CHECK_EQUAL(ibv_dereg_mr(one), 0);
	close_device();
}

static void invalidated(void)
{
	struct ibv_mr *held;

	open_device();
	touch();
	invalidate();
	touch();
	touch();
	CHECK_PINS(3, 2);
	held = reg();
	invalidate();
	touch();
	CHECK_PINS(5, 3);
	CHECK_EQUAL(ibv_dereg_mr(held), 0);
	touch();
	CHECK_PINS(6, 3);
	close_device();
}

static bool none_live(void)
{
	return fake_live() == 0;
}

static bool only_one_live(void)
{
	return fake_live() == 1;
}

/* Idle memory that changes is not kept, though nobody calls anything. */
static void reaped(void)
{
	open_device();
	touch();
	invalidate();
	CHECK(wait_for(none_live));
	close_device();
}

static void twice(void)
{
	struct ibv_mr *mr;

	open_device();
	mr = reg();
	CHECK_EQUAL(ibv_dereg_mr(mr), 0);
	if (caches()) /* plain, this is a crash */
		CHECK_EQUAL(ibv_dereg_mr(mr), EINVAL);
	touch();
	CHECK_PINS(2, 2);
	close_device();
}

static struct ibv_mr *kept;

static void give_back_kept(void)
{
	struct ibv_mr *mr = kept;

	kept = NULL;
	if (mr)
		CHECK_EQUAL(ibv_dereg_mr(mr), 0);
}

/* A verb frees memory, a cache above verbs hears of it and gives back in there. */
static void nested(void)
{
	struct ibv_pd *other;

	open_device();
	other = ibv_alloc_pd(context);
	CHECK_EQUAL(ibv_dereg_mr(reg_in(other, memory, 4096)), 0);
	fake_on_unpin(give_back_kept);
	/* In a verb that is passed through, and in one that the cache calls. */
	for (int i = 0; i < 2; i++) {
		kept = reg();
		if (i == 0 || !caches())
			CHECK_EQUAL(ibv_dereg_mr(fake_null_mr(pd)), 0);
		else
			CHECK_EQUAL(ibv_dealloc_pd(other), 0);
		CHECK(!kept);
		touch();
	}
	fake_on_unpin(NULL);
	if (!caches())
		CHECK_EQUAL(ibv_dealloc_pd(other), 0);
	/* Those of null are counted, too. */
	CHECK_PINS(7, 3);
	close_device();
}

/* ---- remote access ----------------------------------------------------------------- */

static void touch_remote(void)
{
	struct ibv_mr *mr =
		ibv_reg_mr(pd, memory, sizeof(memory), remote_access);

	CHECK(mr);
	CHECK_EQUAL(ibv_dereg_mr(mr), 0);
}

static void remote_passes(void)
{
	open_device();
	for (int i = 1; i <= 3; i++) {
		touch_remote();
		CHECK_EQUAL(fake_live(), 0); /* the key is dead */
		CHECK_EQUAL(fake_pins(), i);
	}
	close_device();
}

static void remote_hits(void)
{
	open_device();
	for (int i = 0; i < 3; i++)
		touch_remote();
	CHECK_PINS(3, 1);
	close_device();
}

/* Cached, but not for long. */
static void remote_lingers(void)
{
	open_device();
	touch_remote();
	touch_remote();
	CHECK(wait_for(none_live));
	touch_remote();
	CHECK(wait_for(none_live));
	/* Local ones stay, and do so after that of the others is over. */
	touch();
	touch_remote();
	CHECK(wait_for(only_one_live));
	usleep(300000);
	CHECK_EQUAL(fake_live(), 1);
	close_device();
}

/* ---- the end of what registrations belong to ------------------------------------------ */

static void pd_busy(void)
{
	struct ibv_mr *mr;

	open_device();
	touch();
	mr = reg_in(pd, memory, 4096);
	CHECK_EQUAL(ibv_dealloc_pd(pd), EBUSY);
	CHECK_EQUAL(ibv_dereg_mr(mr), 0);
	close_device();
}

/* A pd at an address where there was another: not its registrations. */
static void pd_again(void)
{
	open_device();
	for (int i = 1; i <= 20; i++) {
		uint32_t key;
		struct ibv_mr *mr = reg();

		key = mr->lkey;
		CHECK_EQUAL(key, i);
		CHECK_EQUAL(ibv_dereg_mr(mr), 0);
		CHECK_EQUAL(ibv_dealloc_pd(pd), 0);
		pd = ibv_alloc_pd(context);
	}
	close_device();
}

static void parent_domain(void)
{
	struct ibv_pd *parent;

	open_device();
	parent = fake_parent_domain(pd);
	touch();
	CHECK_EQUAL(ibv_dereg_mr(reg_in(parent, memory, 4096)), 0);
	CHECK_EQUAL(ibv_dereg_mr(reg_in(parent, memory, 4096)), 0);
	CHECK_PINS(3, 2);
	/* The base is busy with the parent's, which has another address. */
	CHECK_EQUAL(ibv_dealloc_pd(parent), 0);
	CHECK_EQUAL(ibv_dealloc_pd(pd), 0);
	CHECK_EQUAL(ibv_close_device(context), 0);
	CHECK_EQUAL(fake_live(), 0);
}

static void imported_pd(void)
{
	struct ibv_pd *imported;

	open_device();
	for (int i = 1; i <= 20; i++) {
		struct ibv_mr *mr;

		imported = ibv_import_pd(context, 1000 + (uint32_t)i);
		mr = reg_in(imported, memory, 4096);
		CHECK_EQUAL(mr->lkey, i);
		CHECK_EQUAL(ibv_dereg_mr(mr), 0);
		ibv_unimport_pd(imported);
		CHECK_EQUAL(fake_live(), 0);
	}
	close_device();
}

static void close_without_dealloc(void)
{
	struct ibv_mr *held;

	open_device();
	touch();
	held = reg_in(pd, memory, 4096);
	CHECK_EQUAL(ibv_close_device(context), 0);
	CHECK_EQUAL(fake_live(), 1); /* that one is the program's */
	(void)held;
	open_device();
	touch();
	touch();
	CHECK_PINS(4, 3);
	CHECK_EQUAL(ibv_dealloc_pd(pd), 0);
	CHECK_EQUAL(ibv_close_device(context), 0);
}

static void fatal(void)
{
	struct ibv_async_event event;
	struct ibv_mr *held;

	open_device();
	touch();
	fake_event(context, IBV_EVENT_PORT_ERR);
	CHECK_EQUAL(ibv_get_async_event(context, &event), 0);
	CHECK_EQUAL(event.event_type, IBV_EVENT_PORT_ERR);
	CHECK_EQUAL(fake_live(), caches() ? 1 : 0);
	held = reg_in(pd, memory, 4096);
	fake_event(context, IBV_EVENT_DEVICE_FATAL);
	CHECK_EQUAL(ibv_get_async_event(context, &event), 0);
	CHECK_EQUAL(event.event_type, IBV_EVENT_DEVICE_FATAL);
	CHECK_EQUAL(fake_live(), 1);
	CHECK_EQUAL(ibv_dereg_mr(reg_in(pd, memory, 4096)), 0);
	CHECK_EQUAL(fake_pins(), 3);
	CHECK_EQUAL(ibv_dereg_mr(held), 0);
	close_device();
}

static struct ibv_mr *cleanup_mr;

static void clean_up(void *arg)
{
	(void)arg;
	CHECK_EQUAL(ibv_dereg_mr(cleanup_mr), 0);
	touch();
}

static void *wait_for_events(void *arg)
{
	struct ibv_async_event event;

	(void)arg;
	pthread_cleanup_push(clean_up, NULL);
	ibv_get_async_event(context, &event);
	pthread_cleanup_pop(0);
	return NULL;
}

/* A thread that is ended while it waits, as many programs do at their end. */
static void cancelled(void)
{
	pthread_t thread;
	void *result;

	open_device();
	cleanup_mr = reg();
	CHECK(!pthread_create(&thread, NULL, wait_for_events, NULL));
	while (!fake_calls("get_async_event"))
		usleep(1000);
	CHECK(!pthread_cancel(thread));
	CHECK(!pthread_join(thread, &result));
	CHECK(result == PTHREAD_CANCELED);
	touch();
	CHECK_PINS(3, 1);
	close_device();
}

static void leave(void)
{
	open_device();
	touch();
	(void)reg_in(pd, memory, 4096);
	/* main() returns */
}

static void at_the_end(void)
{
	touch();
	close_device();
}

/* The program's own handler runs after the shim's: verbs must still work. */
static void leave_late(void)
{
	CHECK(!atexit(at_the_end));
	open_device();
	touch();
}

static void counters_path(char *path, size_t size)
{
	snprintf(path, size, "/dev/shm/mrcache.%u.%d", (unsigned int)geteuid(),
		 (int)getpid());
}

/* ---- processes ---------------------------------------------------------------------- */

static void join(pid_t pid)
{
	int status;

	CHECK(pid > 0);
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK_EQUAL(status, 0);
}

static void forked(void)
{
	struct ibv_mr *held;
	char path[64];
	pid_t pid;

	counters_path(path, sizeof(path));
	open_device();
	touch();
	held = reg_in(pd, memory, 4096);
	pid = fork();
	if (!pid) {
		unsigned int pins = fake_pins(), live = fake_live();

		touch();
		touch();
		CHECK_EQUAL(fake_pins() - pins, 2);
		CHECK_EQUAL(fake_live(), live);
		exit(0); /* with all handlers */
	}
	join(pid);
	CHECK((access(path, F_OK) == 0) == !getenv("SUBJECT_PLAIN"));
	/* What is large and idle went before the fork. */
	touch();
	CHECK_PINS(3, 3);
	CHECK_EQUAL(ibv_dereg_mr(held), 0);
	pid = fork();
	if (!pid) {
		execl("/proc/self/exe", program, "hit", NULL);
		_exit(127);
	}
	join(pid);
	CHECK_EQUAL(ibv_dereg_mr(reg_in(pd, memory, 4096)), 0);
	CHECK_PINS(4, 3);
	close_device();
}

/* The child of a process that had no cache yet has its own. */
static void forked_early(void)
{
	pid_t pid;

	open_device();
	pid = fork();
	if (!pid) {
		for (int i = 0; i < 3; i++)
			touch();
		CHECK_PINS(3, 1);
		exit(0);
	}
	join(pid);
	for (int i = 0; i < 3; i++)
		touch();
	CHECK_PINS(3, 1);
	close_device();
}

static struct ibv_mr *given_back;

static void *register_for_handler(void *arg)
{
	(void)arg;
	given_back = reg();
	return NULL;
}

static void give_back_before_fork(void)
{
	if (given_back)
		CHECK_EQUAL(ibv_dereg_mr(given_back), 0);
	given_back = NULL;
}

/* As UCX and libmrcache do, whose handler is there before they register. */
static void fork_handler(void)
{
	pthread_t thread;
	pid_t pid;

	alarm(patience(60));
	open_device();
	CHECK(!pthread_atfork(give_back_before_fork, NULL, NULL));
	CHECK(!pthread_create(&thread, NULL, register_for_handler, NULL));
	CHECK(!pthread_join(thread, NULL));
	pid = fork();
	if (!pid) {
		alarm(patience(60));
		touch();
		_exit(0);
	}
	join(pid);
	touch();
	CHECK_PINS(2, 1);
	close_device();
}

#define FORK_SIZE (64 << 10)

/* Pages of their own: fork support is about whole ones. */
static char *map_at(void *addr)
{
	char *p = mmap(addr, FORK_SIZE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | (addr ? MAP_FIXED : 0), -1,
		       0);

	CHECK(p != MAP_FAILED);
	return p;
}

/* Whether a fork child finds the memory there; SIGSEGV says that it does not. */
static bool is_in_children(const volatile char *p)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		for (size_t i = 0; i < FORK_SIZE; i += 4096)
			(void)p[i];
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(!status || (WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV));
	return !status;
}

/*
 * What was registered is in children, and what the program keeps from them is
 * not, although a registration of what was there before has ended late.
 */
static void use_memory_and_fork(void)
{
	char *p = map_at(NULL);

	for (int i = 0; i < 3; i++)
		CHECK_EQUAL(ibv_dereg_mr(reg_in(pd, p, FORK_SIZE)), 0);
	CHECK_PINS(3, 1);
	CHECK(is_in_children(p));
	map_at(p);
	CHECK_EQUAL(madvise(p, FORK_SIZE, MADV_DONTFORK), 0);
	invalidate_range(p, FORK_SIZE);
	touch();
	CHECK(!is_in_children(p));
	CHECK_PINS(4, 2);
	CHECK_EQUAL(munmap(p, FORK_SIZE), 0);
}

/* SUBJECT_MADVISES: whether libibverbs must have been left to its fork support. */
static void fork_init(void)
{
	open_device();
	CHECK_EQUAL(ibv_fork_init(), 0);
	use_memory_and_fork();
	CHECK((fake_madvises() > 0) == (getenv("SUBJECT_MADVISES") != NULL));
	close_device();
}

static void fork_safe(void)
{
	open_device();
	use_memory_and_fork();
	CHECK((fake_madvises() > 0) == (getenv("SUBJECT_MADVISES") != NULL));
	close_device();
}

/* Too late it changes nothing; whether it is an error is printed. */
static void fork_init_late(void)
{
	open_device();
	touch();
	printf("%d\n", ibv_fork_init());
	touch();
	CHECK_PINS(2, 1);
	CHECK_EQUAL(fake_madvises(), 0);
	close_device();
}

static void passes(void)
{
	open_device();
	for (int i = 1; i <= 3; i++) {
		touch();
		CHECK_EQUAL(fake_pins(), i);
		CHECK_EQUAL(fake_live(), 0);
	}
	close_device();
}

/* ---- errors ----------------------------------------------------------------------------- */

static void say(const char *what, long long value)
{
	printf("%s: %lld, errno %d\n", what, value, errno);
	errno = 0;
}

#define FAILS(function, error, what)           \
	do {                                   \
		fake_fail(function, error, 1); \
		errno = 0;                     \
		say(#what, (long long)(what)); \
	} while (0)

/* Prints what each call gives when libibverbs' own fails. */
static void errors(void)
{
	struct ibv_async_event event;
	struct ibv_mr *mr;

	open_device();
	for (int again = 0; again < 2; again++) {
		FAILS("reg_mr_iova2", EFAULT,
		      ibv_reg_mr(pd, memory, 64, LOCAL));
		FAILS("reg_mr_iova2", EACCES,
		      ibv_reg_mr(pd, memory, 64, local));
		FAILS("reg_mr_iova2", ENOSYS,
		      ibv_reg_mr(pd, memory, 64, remote_access));
		FAILS("reg_mr_iova2", EINVAL,
		      ibv_reg_mr_iova(pd, memory, 64, 0, LOCAL));
		FAILS("reg_mr_iova2", EINVAL, ibv_reg_mr(pd, memory, 0, LOCAL));
		FAILS("reg_dmabuf_mr", EBADF,
		      ibv_reg_dmabuf_mr(pd, 0, 64, 0, -1, LOCAL));
		FAILS("reg_mr_ex", EBADF, reg_ex(64));
		FAILS("reg_mr_ex", EOPNOTSUPP,
		      ibv_reg_buf_mr(pd, NULL, memory, 64, LOCAL));
		fake_fail("reg_mr_iova2", ENOMEM, 100);
		say("no memory", (long long)ibv_reg_mr(pd, memory, 64, LOCAL));
		fake_fail("reg_mr_iova2", 0, 0);
		mr = fake_null_mr(pd);
		FAILS("dereg_mr", EBUSY, ibv_dereg_mr(mr));
		CHECK_EQUAL(ibv_dereg_mr(mr), 0);
		mr = ibv_reg_mr(pd, memory, 64, REMOTE);
		FAILS("dereg_mr", EBUSY, ibv_dereg_mr(mr));
		FAILS("rereg_mr", EAGAIN,
		      ibv_rereg_mr(mr, 0, NULL, NULL, 0, 0));
		CHECK_EQUAL(ibv_dereg_mr(mr), 0);
		touch(); /* now there is a cache */
	}
	FAILS("fork_init", EINVAL, ibv_fork_init());
	FAILS("get_async_event", EIO, ibv_get_async_event(context, &event));
	FAILS("dealloc_pd", EPERM, ibv_dealloc_pd(pd));
	FAILS("close_device", EBADF, ibv_close_device(context));
	printf("live: %u\n", fake_live());
	close_device();
}

/* Idle registrations must not take the memory somebody needs. */
static void memlock(void)
{
	struct ibv_mr *mr;

	open_device();
	fake_memlock(16384);
	CHECK_EQUAL(ibv_dereg_mr(reg_in(pd, memory, 16384)), 0);
	CHECK_EQUAL(ibv_dereg_mr(reg_in(pd, memory + 4096, 12288)), 0);
	mr = ibv_reg_mr_iova(pd, memory, 16384, 0, LOCAL);
	CHECK(mr);
	CHECK_EQUAL(ibv_dereg_mr(mr), 0);
	CHECK_EQUAL(ibv_dereg_mr(reg_in(pd, memory, 16384)), 0);
	mr = ibv_reg_dmabuf_mr(pd, 0, 16384, 0, 3, LOCAL);
	CHECK(mr);
	CHECK_EQUAL(ibv_dereg_mr(mr), 0);
	CHECK_EQUAL(ibv_dereg_mr(reg_in(pd, memory, 16384)), 0);
	mr = reg_ex(16384);
	CHECK(mr);
	CHECK_EQUAL(ibv_dereg_mr(mr), 0);
	CHECK_EQUAL(ibv_dereg_mr(reg_in(pd, memory, 16384)), 0);
	mr = ibv_reg_buf_mr(pd, NULL, memory, 16384, LOCAL);
	CHECK(mr);
	CHECK_EQUAL(ibv_dereg_mr(mr), 0);
	CHECK_EQUAL(ibv_dereg_mr(reg_in(pd, memory, 16384)), 0);
	mr = ibv_reg_mr(pd, memory + 4096, 16384, remote_access);
	CHECK(mr);
	CHECK_EQUAL(ibv_dereg_mr(mr), 0);
	errno = 0;
	CHECK(!ibv_reg_mr_iova(pd, memory, 16385, 0, LOCAL));
	CHECK_EQUAL(errno, ENOMEM);
	close_device();
}

/*
 * There is memory for what libibverbs wants, little by little, and none for a
 * table that grows.
 */
static void little_memory(void)
{
	enum { BEFORE = 1000, MANY = 1400, LITTLE = 100000 };
	static struct ibv_mr *mr[MANY];
	struct rlimit limit;
	unsigned long pages;
	void *heap;
	FILE *file;

	open_device();
	for (size_t n = 0; n < BEFORE; n++)
		mr[n] = reg_in(pd, memory + 4 * n, 4);
	mallopt(M_MMAP_THRESHOLD, 2 * LITTLE);
	mallopt(M_TRIM_THRESHOLD, 4 * LITTLE);
	heap = malloc(LITTLE);
	CHECK(heap);
	file = fopen("/proc/self/statm", "r");
	CHECK(file && fscanf(file, "%lu", &pages) == 1);
	fclose(file);
	free(heap);
	CHECK_EQUAL(getrlimit(RLIMIT_AS, &limit), 0);
	limit.rlim_cur = pages * (unsigned long)sysconf(_SC_PAGESIZE);
	CHECK_EQUAL(setrlimit(RLIMIT_AS, &limit), 0);
	for (size_t n = BEFORE; n < MANY; n++)
		mr[n] = reg_in(pd, memory + 4 * n, 4);
	limit.rlim_cur = limit.rlim_max;
	CHECK_EQUAL(setrlimit(RLIMIT_AS, &limit), 0);
	for (size_t n = 0; n < MANY; n++)
		CHECK_EQUAL(ibv_dereg_mr(mr[n]), 0);
	close_device();
}

/* ---- threads ------------------------------------------------------------------------------ */

static volatile bool stop;

static void *register_all_the_time(void *arg)
{
	char *mine = memory + 4096 * (size_t)(uintptr_t)arg;

	while (!stop)
		CHECK_EQUAL(ibv_dereg_mr(reg_in(pd, mine, 4096)), 0);
	return NULL;
}

/* While libraries come and go. */
static void threads(void)
{
	const char *plugin = getenv("SUBJECT_PLUGIN");
	pthread_t ids[3];

	CHECK(plugin);
	open_device();
	for (uintptr_t i = 0; i < 3; i++)
		CHECK(!pthread_create(&ids[i], NULL, register_all_the_time,
				      (void *)i));
	for (int i = 0; i < 100; i++) {
		void *handle = dlopen(plugin, RTLD_NOW | RTLD_LOCAL);
		unsigned int (*function)(struct ibv_pd *, void *);

		CHECK(handle);
		function = (unsigned int (*)(struct ibv_pd *, void *))dlsym(
			handle, "plugin_touch");
		CHECK(function);
		function(pd, memory + 32768);
		CHECK(!dlclose(handle));
	}
	stop = true;
	for (int i = 0; i < 3; i++)
		CHECK(!pthread_join(ids[i], NULL));
	CHECK(!caches() || fake_pins() <= 4);
	close_device();
}

static void *load(void *plugin)
{
	void *handle = dlopen(plugin, RTLD_NOW | RTLD_LOCAL);

	CHECK(handle);
	return NULL;
}

static void *register_first(void *arg)
{
	(void)arg;
	CHECK(!setenv("SUBJECT_REGISTERING", "1", 1));
	touch();
	return NULL;
}

/*
 * A library's constructor registers while another thread is about to make the
 * first registration of all: neither may wait for the other.
 */
static void constructor_race(void)
{
	const char *early = getenv("SUBJECT_EARLY");
	pthread_t loader, other;

	CHECK(early);
	open_device();
	/* The constructor waits for the other thread to be well under way. */
	CHECK(!setenv("EARLY_WAITS", "1", 1));
	CHECK(!pthread_create(&loader, NULL, load, (void *)early));
	while (!getenv("EARLY_LOADING"))
		usleep(1000);
	CHECK(!pthread_create(&other, NULL, register_first, NULL));
	CHECK(!pthread_join(loader, NULL));
	CHECK(!pthread_join(other, NULL));
	others += caches() ? 2 : 1; /* the library has some */
	close_device();
}

/* ---- what is seen from outside --------------------------------------------------------------- */

static void counters(void)
{
	char path[64];
	struct stat stat_buf;
	int fd;

	counters_path(path, sizeof(path));
	open_device();
	/* Of somebody who had this number and died. */
	if (caches()) {
		fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
		CHECK(fd >= 0);
		CHECK(write(fd, "stale", 5) == 5);
		close(fd);
	} else {
		CHECK(access(path, F_OK));
	}
	touch();
	CHECK_EQUAL(stat(path, &stat_buf), 0);
	CHECK_EQUAL(stat_buf.st_mode & 07777, 0600);
	CHECK_EQUAL(stat_buf.st_uid, geteuid());
	CHECK(stat_buf.st_size > 4096);
	fd = open(path, O_RDONLY);
	CHECK(fd >= 0);
	CHECK(pread(fd, path, 7, 0) == 7 && !memcmp(path, "caches2", 7));
	close(fd);
	close_device();
	printf("%d\n", (int)getpid());
}

/* A set-uid program run by somebody else: no shim at all. */
static void set_uid(void)
{
	CHECK(getuid() && !geteuid());
	CHECK(!dlsym(RTLD_DEFAULT, "fake_invalidate"));
	passes();
}

/* Holds still until its input ends. */
static void wait_mode(void)
{
	char byte;

	open_device();
	touch();
	printf("%d\n", (int)getpid());
	fflush(stdout);
	while (read(0, &byte, 1) > 0)
		;
	close_device();
}

/* Ends without any handler. */
static void drop(void)
{
	open_device();
	touch();
	_exit(0);
}

static const struct mode modes[] = {
	{"hit", hit},
	{"once", once},
	{"macros", macros},
	{"version_1_0", version_1_0},
	{"unseen", unseen},
	{"other_kinds", other_kinds},
	{"rereg", rereg},
	{"rereg_shared", rereg_shared},
	{"invalidated", invalidated},
	{"reaped", reaped},
	{"twice", twice},
	{"nested", nested},
	{"remote_passes", remote_passes},
	{"remote_hits", remote_hits},
	{"remote_lingers", remote_lingers},
	{"pd_busy", pd_busy},
	{"pd_again", pd_again},
	{"parent_domain", parent_domain},
	{"imported_pd", imported_pd},
	{"close_without_dealloc", close_without_dealloc},
	{"fatal", fatal},
	{"cancelled", cancelled},
	{"leave", leave},
	{"leave_late", leave_late},
	{"forked", forked},
	{"forked_early", forked_early},
	{"fork_handler", fork_handler},
	{"fork_init", fork_init},
	{"fork_safe", fork_safe},
	{"fork_init_late", fork_init_late},
	{"passes", passes},
	{"errors", errors},
	{"memlock", memlock},
	{"little_memory", little_memory},
	{"threads", threads},
	{"constructor_race", constructor_race},
	{"set_uid", set_uid},
	{"counters", counters},
	{"wait", wait_mode},
	{"drop", drop},
	{NULL, NULL},
};

int main(int argc, char **argv)
{
	program = argv[0];
	return run_mode(modes, argc > 1 ? argv[1] : NULL);
}
