/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A program of UCX's (fake_ucx.h) that changes its memory past all hooks: a
 * program of its own, or a plug-in of ucx_loader.c. It prints how many lookups
 * gave it a registration of memory as it was before, and how many registrations
 * were made.
 */
#include "fake_device.h"
#include "fake_ibverbs.h"
#include "fake_ucx.h"
#include "subject.h"

#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE	4096UL
#define PAGES	64u
#define ROUNDS	20u
#define THREADS 4u

static char memory[PAGES * PAGE] __attribute__((aligned(4096)));
/* Grows with each change; when each page was last changed. */
static _Atomic uint32_t now, changed[PAGES];
static _Atomic unsigned int stale;
static struct ibv_context *device;
static struct ibv_pd *pd;
static struct fake_ucp *ucp;

/* ---- memory -------------------------------------------------------------------- */

static void call(const char *name, const void *addr, size_t length)
{
	void (*function)(const void *, size_t) =
		(void (*)(const void *, size_t))dlsym(RTLD_DEFAULT, name);

	if (function)
		function(addr, length);
}

static void change(unsigned int page, unsigned int count)
{
	uint32_t at = ++now;

	call("fake_invalidate", memory + page * PAGE, count * PAGE);
	/* Others may rely on it only when it is over. */
	for (unsigned int i = page; i < page + count; i++)
		changed[i] = at;
}

/* What the adapter will see: memory as it is now. */
static void stamp(struct ibv_mr *mr)
{
	mr->rkey = now;
}

static struct fake_region *get_in(struct fake_ucp *context, unsigned int page,
				  unsigned int count)
{
	struct fake_region *region;
	uint32_t last = 0;

	for (unsigned int i = page; i < page + count; i++)
		last = changed[i] > last ? changed[i] : last;
	region = fake_ucp_get(context, memory + page * PAGE, count * PAGE);
	CHECK(region && region->mr);
	CHECK(region->start <= (uintptr_t)memory + page * PAGE &&
	      region->end >= (uintptr_t)memory + (page + count) * PAGE);
	if (region->mr->rkey < last)
		stale++;
	return region;
}

static void use_in(struct fake_ucp *context, unsigned int page,
		   unsigned int count)
{
	fake_ucp_put(context, get_in(context, page, count));
}

static void use(unsigned int page, unsigned int count)
{
	use_in(ucp, page, count);
}

static void open_all(bool cache)
{
	struct ibv_device **list = ibv_get_device_list(NULL);

	device = ibv_open_device(list[0]);
	ibv_free_device_list(list);
	pd = ibv_alloc_pd(device);
	fake_on_pin(stamp);
	ucp = fake_ucp_open(pd, cache);
}

static void close_all(void)
{
	unsigned int left;

	fake_ucp_close(ucp);
	fake_on_pin(NULL);
	left = fake_live();
	CHECK_EQUAL(ibv_dealloc_pd(pd), 0);
	CHECK_EQUAL(ibv_close_device(device), 0);
	CHECK_EQUAL(fake_live(), 0);
	printf("stale %u registrations %u left %u\n", stale, fake_pins(), left);
}

/* ---- one thread ---------------------------------------------------------------- */

static void unchanged(void)
{
	open_all(true);
	for (unsigned int i = 0; i < ROUNDS; i++)
		use(0, 4);
	close_all();
}

static void changes(void)
{
	open_all(true);
	for (unsigned int i = 0; i < ROUNDS; i++) {
		use(0, 4);
		change(1, 1);
		/* Another's memory is no reason to register ours. */
		use(8, 4);
		use(8, 4);
	}
	close_all();
}

/* What changes while it is used is registered anew for the next, and once. */
static void held(void)
{
	struct fake_region *region;

	open_all(true);
	region = get_in(ucp, 0, 4);
	change(0, 4);
	for (unsigned int i = 0; i < ROUNDS; i++)
		use(0, 4);
	fake_ucp_put(ucp, region);
	use(0, 4);
	close_all();
}

/* And it does not keep others from being found, nor from being noticed. */
static void held_others(void)
{
	struct fake_region *region;

	open_all(true);
	region = get_in(ucp, 0, 4);
	change(0, 4);
	for (unsigned int i = 0; i < ROUNDS; i++) {
		use(8, 4);
		use(8, 4);
		change(9, 1);
	}
	fake_ucp_put(ucp, region);
	close_all();
}

static void change_once(struct ibv_mr *mr)
{
	stamp(mr);
	fake_on_pin(stamp);
	change(0, 1);
}

/* While it is being registered. */
static void window(void)
{
	open_all(true);
	fake_on_pin(change_once);
	use(0, 4);
	use(0, 4);
	close_all();
}

static void contexts(void)
{
	struct fake_ucp *other;

	open_all(true);
	other = fake_ucp_open(pd, true);
	for (unsigned int i = 0; i < ROUNDS; i++) {
		use(0, 4);
		use_in(other, 0, 4);
		use_in(other, 2, 2);
		change(2, 1);
	}
	use_in(other, 0, 4);
	fake_ucp_close(other);
	/* The guard stays with the other one. */
	change(0, 4);
	use(0, 4);
	close_all();
}

/* A stack without a cache of its own has ours. */
static void uncached(void)
{
	open_all(false);
	CHECK(!fake_ucp_has_cache(ucp));
	for (unsigned int i = 0; i < ROUNDS; i++)
		use(0, 4);
	change(0, 4);
	use(0, 4);
	close_all();
}

/* Also when it had one. */
static void closed(void)
{
	struct fake_ucp *kept;

	open_all(false);
	kept = fake_ucp_open(pd, true);
	use_in(kept, 0, 4);
	fake_ucp_close(kept);
	for (unsigned int i = 0; i < ROUNDS; i++)
		use(0, 4);
	close_all();
}

static void broken(void)
{
	open_all(true);
	use(0, 4);
	use(8, 4);
	call("fake_break", NULL, 0);
	for (unsigned int i = 0; i < ROUNDS; i++) {
		change(0, 1);
		use(0, 4);
	}
	close_all();
}

/* A child must not wait for locks nor touch what is its parent's. */
static void forked(void)
{
	int status;
	pid_t pid;

	open_all(true);
	use(0, 4);
	change(0, 1);
	pid = fork();
	if (!pid) {
		fake_ucp_put(ucp, fake_ucp_get(ucp, memory, PAGE));
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK_EQUAL(status, 0);
	use(0, 4);
	close_all();
}

static void hooks(void)
{
	open_all(true);
	printf("cache %d patched %d\n", fake_ucp_has_cache(ucp),
	       fake_ucm_patched());
	for (unsigned int i = 0; i < ROUNDS; i++) {
		use(0, 4);
		use(0, 4);
		change(0, 1);
	}
	close_all();
}

/* ---- several threads ------------------------------------------------------------ */

static struct fake_ucp *second;
static pthread_t helper;
static _Atomic int step;

static void start_helper(void *(*function)(void *))
{
	CHECK_EQUAL(pthread_create(&helper, NULL, function, NULL), 0);
}

static void join_helper(void)
{
	CHECK_EQUAL(pthread_join(helper, NULL), 0);
}

static void *use_second(void *arg)
{
	use_in(second, 0, 4);
	return arg;
}

/* Another thread tells when this one has looked into its queue already. */
static void told_by_another(const char *point)
{
	if (strcmp(point, "queue") || step++)
		return;
	start_helper(use_second);
	join_helper();
}

static void race_queue(void)
{
	open_all(true);
	second = fake_ucp_open(pd, true);
	for (unsigned int i = 0; i < ROUNDS; i++) {
		use(0, 4);
		use_in(second, 0, 4);
		change(0, 1);
		step = 0;
		fake_ucs_at(told_by_another);
		use(0, 4);
		fake_ucs_at(NULL);
	}
	fake_ucp_close(second);
	close_all();
}

/* This one is telling when another looks up: it must wait until all is told. */
static void look_up_meanwhile(const char *point)
{
	if (strcmp(point, "unmapped") || step++)
		return;
	start_helper(use_second);
	usleep(20000);
}

static void race_told(void)
{
	open_all(true);
	second = fake_ucp_open(pd, true);
	for (unsigned int i = 0; i < 5; i++) {
		use(0, 4);
		use_in(second, 0, 4);
		change(0, 1);
		step = 0;
		fake_ucs_at(look_up_meanwhile);
		use(0, 4);
		fake_ucs_at(NULL);
		if (step)
			join_helper();
	}
	fake_ucp_close(second);
	close_all();
}

/* With a cancellation pending: no lock may be left behind. */
static void *use_cancelled(void *arg)
{
	pthread_cancel(pthread_self());
	use(0, 4);
	pthread_testcancel();
	return arg;
}

static void cancelled(void)
{
	alarm(5);
	open_all(true);
	use(0, 4);
	change(0, 1);
	start_helper(use_cancelled);
	join_helper();
	change(0, 1);
	use(0, 4);
	close_all();
}

static _Atomic bool over;

/* Each thread changes pages of its own; ranges overlap those of others. */
static void *stir(void *arg)
{
	unsigned int mine = (unsigned int)(uintptr_t)arg * 8, seed = mine + 1;

	while (!over) {
		struct fake_ucp *context = rand_r(&seed) % 2 ? ucp : second;
		unsigned int page = mine + (unsigned int)rand_r(&seed) % 4;

		if (rand_r(&seed) % 4 == 0)
			change(page, 1);
		use_in(context, page, 1 + (unsigned int)rand_r(&seed) % 8);
	}
	return arg;
}

static void threads(void)
{
	pthread_t ids[THREADS];

	open_all(true);
	second = fake_ucp_open(pd, true);
	for (uintptr_t i = 0; i < THREADS; i++)
		CHECK_EQUAL(pthread_create(&ids[i], NULL, stir, (void *)i), 0);
	usleep(700000);
	over = true;
	for (unsigned int i = 0; i < THREADS; i++)
		CHECK_EQUAL(pthread_join(ids[i], NULL), 0);
	fake_ucp_close(second);
	close_all();
}

static const struct mode modes[] = {
	{"unchanged", unchanged}, {"changes", changes},
	{"held", held},		  {"held_others", held_others},
	{"window", window},	  {"contexts", contexts},
	{"uncached", uncached},	  {"closed", closed},
	{"broken", broken},	  {"forked", forked},
	{"hooks", hooks},	  {"race_queue", race_queue},
	{"race_told", race_told}, {"cancelled", cancelled},
	{"threads", threads},	  {NULL, NULL},
};

__attribute__((visibility("default"))) int subject(const char *mode);

int subject(const char *mode)
{
	int status = run_mode(modes, mode);

	fflush(stdout);
	return status;
}

int main(int argc, char **argv)
{
	return subject(argc > 1 ? argv[1] : NULL);
}
