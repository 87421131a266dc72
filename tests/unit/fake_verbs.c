/* SPDX-License-Identifier: BSD-2-Clause */
/* Verbs without a device; see fake_verbs.h. */
#include "fake_verbs.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#define POISON 0xdb

struct fake_mr {
	struct ibv_mr mr; /* first: what the cache sees */
	int access;
	bool going; /* dereg_mr() is under way */
	size_t first, end;
	uint32_t *versions; /* of [first, end) */
	struct fake_mr *reusable;
	const struct ibv_mr *key; /* its own address */
	UT_hash_handle hh;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct fake_mr *mrs;
static struct fake_mr *reusable;
static bool reuse;
static uint64_t bytes, memlock = UINT64_MAX;
static bool fork_support, too_late;	  /* for it */
static unsigned int dontfork[FAKE_PAGES]; /* registrations of each page */
static unsigned int wrong_dofork, fork_questions;
static struct ibv_pd pds[16];
static uint32_t keys;

struct ibv_pd *fake_pd(unsigned int n)
{
	return &pds[n];
}

/* With the lock. */
static struct fake_mr *find(const struct ibv_mr *mr)
{
	struct fake_mr *fake;

	HASH_FIND_PTR(mrs, &mr, fake);
	return fake;
}

/* With the lock. */
static void release(struct fake_mr *fake)
{
	fake_allocates++;
	HASH_DEL(mrs, fake);
	fake_allocates--;
	bytes -= fake->mr.length;
	fake_free(fake->versions);
	memset(fake, POISON, sizeof(*fake));
	if (reuse) {
		fake->reusable = reusable;
		reusable = fake;
	} else {
		fake_free(fake);
	}
}

void fake_verbs_reset(void)
{
	struct fake_mr *fake, *next;

	pthread_mutex_lock(&lock);
	HASH_ITER(hh, mrs, fake, next)
	release(fake);
	reuse = false;
	while (reusable) {
		fake = reusable;
		reusable = fake->reusable;
		fake_free(fake);
	}
	memlock = UINT64_MAX;
	fork_support = too_late = false;
	memset(dontfork, 0, sizeof(dontfork));
	wrong_dofork = fork_questions = 0;
	pthread_mutex_unlock(&lock);
}

size_t fake_registered(const struct ibv_pd *pd)
{
	struct fake_mr *fake, *next;
	size_t n = 0;

	pthread_mutex_lock(&lock);
	HASH_ITER(hh, mrs, fake, next)
	n += !pd || fake->mr.pd == pd;
	pthread_mutex_unlock(&lock);
	return n;
}

uint64_t fake_registered_bytes(void)
{
	uint64_t n;

	pthread_mutex_lock(&lock);
	n = bytes;
	pthread_mutex_unlock(&lock);
	return n;
}

void fake_memlock(uint64_t limit)
{
	pthread_mutex_lock(&lock);
	memlock = limit;
	pthread_mutex_unlock(&lock);
}

/* ---- fork support --------------------------------------------------------------- */

int fake_fork_init(void)
{
	int error = 0;

	pthread_mutex_lock(&lock);
	if (too_late && !fork_support)
		error = EINVAL;
	else
		fork_support = true;
	pthread_mutex_unlock(&lock);
	return error;
}

bool fake_dontfork(size_t page)
{
	bool is;

	pthread_mutex_lock(&lock);
	is = dontfork[page];
	pthread_mutex_unlock(&lock);
	return is;
}

unsigned int fake_wrong_dofork(void)
{
	unsigned int n;

	pthread_mutex_lock(&lock);
	n = wrong_dofork;
	pthread_mutex_unlock(&lock);
	return n;
}

unsigned int fake_fork_questions(void)
{
	unsigned int n;

	pthread_mutex_lock(&lock);
	n = fork_questions;
	pthread_mutex_unlock(&lock);
	return n;
}

/* With the lock, as all that follow. Where nothing is mapped it fails. */
static int dontfork_range(uintptr_t start, size_t length)
{
	size_t n, end;

	if (!fork_support) {
		too_late = true;
		return 0;
	}
	fake_pages(start, length, &n, &end);
	if (n == end)
		return ENOMEM;
	for (; n < end; n++)
		dontfork[n]++;
	return 0;
}

static void dofork_range(const struct fake_mr *fake)
{
	for (size_t n = fake->first; fork_support && n < fake->end; n++) {
		dontfork[n]--;
		if (fake->versions[n - fake->first] != fake_version(n))
			wrong_dofork++;
	}
}

/*
 * A registration that cannot be, by which the cache finds out about fork
 * support: as the real one no more than that. Not counted as a call.
 */
static bool is_question(uintptr_t start, int access)
{
	return start > FAKE_BASE + FAKE_PAGES * PAGE &&
	       access == IBV_ACCESS_REMOTE_WRITE;
}

void fake_reuse_addresses(bool on)
{
	pthread_mutex_lock(&lock);
	reuse = on;
	pthread_mutex_unlock(&lock);
}

static void pin(struct fake_mr *fake, size_t from, size_t to)
{
	for (size_t n = from; n < to; n++)
		fake->versions[n - fake->first] = fake_version(n);
}

static struct fake_mr *new_mr(struct ibv_pd *pd, uintptr_t start, size_t length,
			      int access)
{
	size_t first, end;
	struct fake_mr *fake;

	fake_pages(start, length, &first, &end);
	fake_allocates++;
	pthread_mutex_lock(&lock);
	fake = reusable;
	if (fake)
		reusable = fake->reusable;
	pthread_mutex_unlock(&lock);
	if (!fake)
		fake = malloc(sizeof(*fake));
	if (!fake)
		abort();
	*fake = (struct fake_mr){
		.mr = {.pd = pd, .addr = (void *)start, .length = length},
		.access = access,
		.first = first,
		.end = end,
		.versions = calloc(end - first + 1, sizeof(*fake->versions)),
	};
	if (!fake->versions)
		abort();
	fake_allocates--;
	return fake;
}

static struct ibv_mr *reg_mr(struct ibv_pd *pd, void *addr, size_t length,
			     int access)
{
	struct ibv_mr *mr = NULL;
	struct fake_mr *fake;
	size_t middle;
	int error;

	if (is_question((uintptr_t)addr, access)) {
		pthread_mutex_lock(&lock);
		fork_questions++;
		error = dontfork_range((uintptr_t)addr, length);
		pthread_mutex_unlock(&lock);
		errno = error ? error : EINVAL;
		return NULL;
	}
	error = fake_enter(FAKE_REG);
	if (!error &&
	    ((access & (IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC)) &&
	     !(access & IBV_ACCESS_LOCAL_WRITE)))
		error = EINVAL; /* as the kernel has it */
	if (!error) {
		fake = new_mr(pd, (uintptr_t)addr, length, access);
		middle = fake->first + (fake->end - fake->first) / 2;
		pin(fake, fake->first, middle);
		fake_during(FAKE_REG);
		pin(fake, middle, fake->end);

		pthread_mutex_lock(&lock);
		if (memlock != UINT64_MAX &&
		    (length > memlock || bytes > memlock - length)) {
			error = ENOMEM;
		} else if (length &&
			   (error = dontfork_range((uintptr_t)addr, length))) {
			mr = NULL;
		} else {
			bytes += length;
			fake->mr.lkey = fake->mr.rkey = ++keys;
			mr = &fake->mr;
			fake->key = mr;
			fake_allocates++;
			HASH_ADD_PTR(mrs, key, fake);
			fake_allocates--;
		}
		pthread_mutex_unlock(&lock);
		if (error) {
			fake_free(fake->versions);
			fake_free(fake);
		}
	}
	fake_leave(FAKE_REG);
	/* On success, too: nobody may rely on it. */
	errno = error ? error : EXFULL;
	return mr;
}

static int dereg_mr(struct ibv_mr *mr)
{
	int error = fake_enter(FAKE_DEREG);
	struct fake_mr *fake;

	pthread_mutex_lock(&lock);
	fake = find(mr);
	if (!fake) {
		fake_trouble("dereg_mr of what is not registered");
		error = EINVAL;
	} else if (fake->going) {
		fake_trouble("dereg_mr of what is being deregistered");
		error = EINVAL;
	} else if (!error) {
		fake->going = true;
	}
	pthread_mutex_unlock(&lock);
	fake_during(FAKE_DEREG);
	if (!error) {
		pthread_mutex_lock(&lock);
		dofork_range(fake);
		release(fake);
		pthread_mutex_unlock(&lock);
	}
	fake_leave(FAKE_DEREG);
	errno = EXFULL;
	return error;
}

static void before_fork(void)
{
	pthread_mutex_lock(&lock);
}

static void after_fork(void)
{
	pthread_mutex_unlock(&lock);
}

/* Before the cache sets its own, so that these locks are taken after its. */
static __attribute__((constructor(300))) void set_fork_handlers(void)
{
	pthread_atfork(before_fork, after_fork, after_fork);
}

const struct mrc_verbs fake_verbs = {
	.reg_mr = reg_mr,
	.dereg_mr = dereg_mr,
};

/* ---- the oracle -------------------------------------------------------------- */

bool fake_is_registered(const struct ibv_mr *mr)
{
	bool is;

	pthread_mutex_lock(&lock);
	is = find(mr) != NULL;
	pthread_mutex_unlock(&lock);
	return is;
}

/* With the lock. */
static bool reaches(const struct fake_mr *fake, const void *addr, size_t length)
{
	uintptr_t start = (uintptr_t)addr, mr_start = (uintptr_t)fake->mr.addr;
	size_t n, end;

	if (start < mr_start || start - mr_start > fake->mr.length ||
	    length > fake->mr.length - (start - mr_start))
		return false;
	for (fake_pages(start, length, &n, &end); n < end; n++)
		if (fake->versions[n - fake->first] != fake_version(n))
			return false;
	return true;
}

bool fake_reaches(const struct ibv_mr *mr, const void *addr, size_t length)
{
	const struct fake_mr *fake;
	bool good;

	pthread_mutex_lock(&lock);
	fake = find(mr);
	good = fake && reaches(fake, addr, length);
	pthread_mutex_unlock(&lock);
	return good;
}

bool fake_serves(const struct ibv_mr *mr, const struct ibv_pd *pd,
		 const void *addr, size_t length, int access)
{
	const struct fake_mr *fake;
	bool good;

	pthread_mutex_lock(&lock);
	fake = find(mr);
	good = fake && fake->mr.pd == pd && fake->access == access &&
	       reaches(fake, addr, length);
	pthread_mutex_unlock(&lock);
	return good;
}

int fake_access(const struct ibv_mr *mr)
{
	const struct fake_mr *fake;
	int access;

	pthread_mutex_lock(&lock);
	fake = find(mr);
	access = fake ? fake->access : -1;
	pthread_mutex_unlock(&lock);
	return access;
}
