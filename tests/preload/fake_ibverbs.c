/* SPDX-License-Identifier: BSD-2-Clause */
/* A libibverbs.so.1 without devices; see fake_ibverbs.h. */
#include "fake_ibverbs.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#undef ibv_reg_mr
#undef ibv_reg_mr_iova
#undef ibv_get_device_list

#define EXPORT	      __attribute__((visibility("default")))
#define OLD(function) EXPORT __attribute__((symver(#function "@IBVERBS_1.0")))

#define MAX_FUNCTIONS 32
#define MAX_MRS	      4096

/* What the kernel knows of a protection domain; several ibv_pds may share it. */
struct domain {
	uint32_t handle;
	unsigned int users; /* registrations and parents */
};

struct pd {
	struct ibv_pd pd;
	struct domain *domain;
	struct pd *of; /* a parent domain is of another */
};

struct mr {
	struct ibv_mr mr;
	struct domain *domain;
	uint64_t bytes; /* pinned */
	bool live;
};

struct context {
	struct ibv_context context;
	int events[2];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
	const char *name;
	unsigned int calls, failures;
	int error;
} functions[MAX_FUNCTIONS];
static unsigned int pins, unpins, live;
static uint64_t pinned, memlock;
static uint32_t next_key = 1;
static int last_access;
static bool gone;
static void (*on_pin)(struct ibv_mr *mr);
static void (*on_unpin)(void);
static bool copy_on_fork, fork_skipped, fork_support, too_late;
static bool fork_locked;
static unsigned int madvises;

static void die(const char *why)
{
	dprintf(2, "fake libibverbs: %s\n", why);
	abort();
}

/* With the lock. */
static unsigned int function(const char *name)
{
	unsigned int i;

	for (i = 0; functions[i].name; i++)
		if (!strcmp(functions[i].name, name))
			return i;
	if (i == MAX_FUNCTIONS - 1)
		die("too many functions");
	functions[i].name = strdup(name);
	return i;
}

/* Counts a call; the errno value to fail with. */
static int enter(const char *name)
{
	unsigned int i;
	int error = 0;

	if (gone)
		die(name);
	pthread_mutex_lock(&lock);
	i = function(name);
	functions[i].calls++;
	if (functions[i].failures) {
		functions[i].failures--;
		error = functions[i].error;
	}
	pthread_mutex_unlock(&lock);
	return error;
}

/* ---- control ------------------------------------------------------------------ */

EXPORT unsigned int fake_calls(const char *name)
{
	unsigned int calls;

	pthread_mutex_lock(&lock);
	calls = functions[function(name)].calls;
	pthread_mutex_unlock(&lock);
	return calls;
}

EXPORT unsigned int fake_pins(void)
{
	return __atomic_load_n(&pins, __ATOMIC_ACQUIRE);
}

EXPORT unsigned int fake_unpins(void)
{
	return __atomic_load_n(&unpins, __ATOMIC_ACQUIRE);
}

EXPORT unsigned int fake_live(void)
{
	return __atomic_load_n(&live, __ATOMIC_ACQUIRE);
}

EXPORT int fake_last_access(void)
{
	return last_access;
}

EXPORT void fake_fail(const char *name, int error, unsigned int times)
{
	unsigned int i;

	pthread_mutex_lock(&lock);
	i = function(name);
	functions[i].error = error;
	functions[i].failures = times;
	pthread_mutex_unlock(&lock);
}

EXPORT void fake_on_pin(void (*function)(struct ibv_mr *mr))
{
	__atomic_store_n(&on_pin, function, __ATOMIC_RELEASE);
}

EXPORT void fake_on_unpin(void (*function)(void))
{
	__atomic_store_n(&on_unpin, function, __ATOMIC_RELEASE);
}

EXPORT void fake_memlock(uint64_t bytes)
{
	memlock = bytes;
}

EXPORT void fake_event(struct ibv_context *context, enum ibv_event_type type)
{
	struct context *c = (struct context *)context;

	if (write(c->events[1], &type, sizeof(type)) != sizeof(type))
		die("no event");
}

static __attribute__((constructor)) void begin(void)
{
	const char *status = getenv("FAKE_FORK");

	copy_on_fork = !status || strcmp(status, "disabled");
	fork_skipped = status && !strcmp(status, "skipped");
	fork_locked = status && !strcmp(status, "locked");
}

static __attribute__((destructor)) void end(void)
{
	const char *path = getenv("FAKE_LOG");
	int fd = path ? open(path, O_WRONLY | O_APPEND | O_CREAT, 0600) : -1;

	gone = true;
	if (fd < 0)
		return;
	dprintf(fd, "pins %u unpins %u live %u\n", pins, unpins, live);
	close(fd);
}

/* ---- devices ------------------------------------------------------------------ */

static int fork_init_1_1(void);

static pthread_once_t initialized = PTHREAD_ONCE_INIT;

static void initialize(void)
{
	const char *safe = getenv("RDMAV_FORK_SAFE");

	if (safe && strcmp(safe, "0"))
		(void)(fork_locked ? fork_init_1_1() : ibv_fork_init());
}

EXPORT struct ibv_device **ibv_get_device_list(int *n)
{
	static struct ibv_device device = {.name = "fake0"};
	struct ibv_device **list = calloc(2, sizeof(*list));

	pthread_once(&initialized, initialize);
	enter("get_device_list");
	list[0] = &device;
	if (n)
		*n = 1;
	return list;
}

EXPORT void ibv_free_device_list(struct ibv_device **list)
{
	free(list);
}

EXPORT const char *ibv_get_device_name(struct ibv_device *device)
{
	return device->name;
}

EXPORT struct ibv_context *ibv_open_device(struct ibv_device *device)
{
	struct context *c = calloc(1, sizeof(*c));

	pthread_once(&initialized, initialize); /* not all ask for the list */
	enter("open_device");
	c->context.device = device;
	if (pipe2(c->events, O_CLOEXEC))
		die("pipe");
	c->context.async_fd = c->events[0];
	return &c->context;
}

EXPORT int ibv_close_device(struct ibv_context *context)
{
	struct context *c = (struct context *)context;
	int error = enter("close_device");

	if (error) {
		errno = error;
		return -1;
	}
	close(c->events[0]);
	close(c->events[1]);
	free(c);
	return 0;
}

OLD(ibv_close_device) int ibv_close_device_1_0(struct ibv_context *context)
{
	enter("close_device@1.0");
	return ibv_close_device(context);
}

EXPORT int ibv_get_async_event(struct ibv_context *context,
			       struct ibv_async_event *event)
{
	struct context *c = (struct context *)context;
	int error = enter("get_async_event");

	memset(event, 0, sizeof(*event));
	if (!error && read(c->events[0], &event->event_type,
			   sizeof(event->event_type)) < 0)
		error = errno;
	errno = error;
	return error ? -1 : 0;
}

EXPORT void ibv_ack_async_event(struct ibv_async_event *event)
{
	(void)event;
}

/* ---- protection domains --------------------------------------------------------- */

static struct pd *new_pd(struct ibv_context *context, struct domain *domain)
{
	struct pd *pd = calloc(1, sizeof(*pd));

	pd->pd.context = context;
	pd->pd.handle = domain->handle;
	pd->domain = domain;
	return pd;
}

EXPORT struct ibv_pd *ibv_alloc_pd(struct ibv_context *context)
{
	static uint32_t handle;
	struct domain *domain = calloc(1, sizeof(*domain));

	enter("alloc_pd");
	domain->handle = __atomic_add_fetch(&handle, 1, __ATOMIC_RELAXED);
	return &new_pd(context, domain)->pd;
}

EXPORT struct ibv_pd *fake_parent_domain(struct ibv_pd *of)
{
	struct pd *parent = new_pd(of->context, ((struct pd *)of)->domain);

	parent->of = (struct pd *)of;
	return &parent->pd;
}

EXPORT int ibv_dealloc_pd(struct ibv_pd *base)
{
	struct pd *pd = (struct pd *)base;
	int error = enter("dealloc_pd");

	if (error)
		return error;
	if (!pd->of) {
		pthread_mutex_lock(&lock);
		error = pd->domain->users ? EBUSY : 0;
		pthread_mutex_unlock(&lock);
		if (error)
			return error;
		free(pd->domain);
	}
	/* So that a use of it is noticed. */
	memset(pd, 0xee, sizeof(*pd));
	free(pd);
	return 0;
}

OLD(ibv_alloc_pd) struct old_pd *ibv_alloc_pd_1_0(struct ibv_context *context)
{
	struct old_pd *pd = calloc(1, sizeof(*pd));

	pd->context = context;
	pd->real = ibv_alloc_pd(context);
	pd->handle = pd->real->handle;
	return pd;
}

OLD(ibv_dealloc_pd) int ibv_dealloc_pd_1_0(struct old_pd *pd)
{
	int ret;

	enter("dealloc_pd@1.0");
	ret = ibv_dealloc_pd(pd->real);
	if (!ret)
		free(pd);
	return ret;
}

/* Another structure for the domain with this handle; it is not a user of it. */
EXPORT struct ibv_pd *ibv_import_pd(struct ibv_context *context,
				    uint32_t handle)
{
	struct domain *domain = calloc(1, sizeof(*domain));

	domain->handle = handle;
	return &new_pd(context, domain)->pd;
}

EXPORT void ibv_unimport_pd(struct ibv_pd *pd)
{
	enter("unimport_pd");
	memset(pd, 0xee, sizeof(*pd));
	free(pd);
}

/* ---- fork --------------------------------------------------------------------------- */

static int fork_init_1_1(void)
{
	int error = enter("fork_init");

	if (error || fork_support || (copy_on_fork && fork_skipped))
		return error;
	if (too_late)
		return EINVAL;
	fork_support = true;
	return 0;
}

EXPORT int ibv_fork_init(void)
{
	return fork_init_1_1();
}

EXPORT enum ibv_fork_status ibv_is_fork_initialized(void)
{
	return copy_on_fork   ? IBV_FORK_UNNEEDED
	       : fork_support ? IBV_FORK_ENABLED
			      : IBV_FORK_DISABLED;
}

EXPORT unsigned int fake_madvises(void)
{
	return __atomic_load_n(&madvises, __ATOMIC_ACQUIRE);
}

/* Whole pages, as the real one does, but overlaps are not counted. */
static int madvise_range(void *addr, size_t length, int advice)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE),
		  start = (uintptr_t)addr & ~(page - 1),
		  end = ((uintptr_t)addr + length + page - 1) & ~(page - 1);

	if (!fork_support) {
		too_late = true;
		return 0;
	}
	if (!addr || !length)
		return 0;
	__atomic_fetch_add(&madvises, 1, __ATOMIC_RELAXED);
	return madvise((void *)start, end - start, advice);
}

/* ---- registrations ---------------------------------------------------------------- */

static struct ibv_mr *new_mr(struct ibv_pd *base, void *addr, size_t length,
			     uint64_t bytes, int access)
{
	struct mr *mr = calloc(1, sizeof(*mr));

	pthread_mutex_lock(&lock);
	if (memlock && pinned + bytes > memlock) {
		pthread_mutex_unlock(&lock);
		free(mr);
		errno = ENOMEM;
		return NULL;
	}
	mr->domain = ((struct pd *)base)->domain;
	mr->domain->users++;
	mr->bytes = bytes;
	mr->live = true;
	mr->mr.context = base->context;
	mr->mr.pd = base;
	mr->mr.addr = addr;
	mr->mr.length = length;
	mr->mr.lkey = mr->mr.rkey = mr->mr.handle = next_key++;
	pinned += bytes;
	pins++;
	live++;
	last_access = access;
	pthread_mutex_unlock(&lock);
	return &mr->mr;
}

EXPORT struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *addr,
				       size_t length, uint64_t iova,
				       unsigned int access)
{
	void (*pinned_fn)(struct ibv_mr *) =
		__atomic_load_n(&on_pin, __ATOMIC_ACQUIRE);
	const unsigned int writes =
		IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE;
	struct ibv_mr *mr;
	int error;

	if (madvise_range(addr, length, MADV_DONTFORK))
		return NULL;
	/* As the kernel has it, before anything else. */
	if ((access & writes) == IBV_ACCESS_REMOTE_WRITE) {
		madvise_range(addr, length, MADV_DOFORK);
		errno = EINVAL;
		return NULL;
	}
	error = enter("reg_mr_iova2");
	if (!error && iova != (uintptr_t)addr)
		(void)fake_calls("own iova");
	if (error) {
		madvise_range(addr, length, MADV_DOFORK);
		errno = error;
		return NULL;
	}
	mr = new_mr(pd, addr, length, length, (int)access);
	if (mr && pinned_fn)
		pinned_fn(mr);
	return mr;
}

EXPORT struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *addr, size_t length,
				 int access)
{
	enter("reg_mr");
	return ibv_reg_mr_iova2(pd, addr, length, (uintptr_t)addr,
				(unsigned int)access);
}

EXPORT struct ibv_mr *ibv_reg_mr_iova(struct ibv_pd *pd, void *addr,
				      size_t length, uint64_t iova, int access)
{
	enter("reg_mr_iova");
	return ibv_reg_mr_iova2(pd, addr, length, iova, (unsigned int)access);
}

OLD(ibv_reg_mr)
struct old_mr *ibv_reg_mr_1_0(struct old_pd *pd, void *addr, size_t length,
			      int access)
{
	struct old_mr *mr = calloc(1, sizeof(*mr));

	enter("reg_mr@1.0");
	mr->context = pd->context;
	mr->pd = pd;
	mr->real = ibv_reg_mr(pd->real, addr, length, access);
	if (!mr->real) {
		free(mr);
		return NULL;
	}
	mr->lkey = mr->real->lkey;
	mr->rkey = mr->real->rkey;
	return mr;
}

EXPORT struct ibv_mr *ibv_reg_dmabuf_mr(struct ibv_pd *pd, uint64_t offset,
					size_t length, uint64_t iova, int fd,
					int access)
{
	int error = enter("reg_dmabuf_mr");

	(void)offset, (void)fd;
	if (error) {
		errno = error;
		return NULL;
	}
	return new_mr(pd, (void *)(uintptr_t)iova, length, length, access);
}

EXPORT struct ibv_mr *ibv_reg_mr_ex(struct ibv_pd *pd,
				    struct ibv_mr_init_attr *attr)
{
	const struct fake_init_attr *a = (const struct fake_init_attr *)attr;
	void (*pinned_fn)(struct ibv_mr *) =
		__atomic_load_n(&on_pin, __ATOMIC_ACQUIRE);
	int error = enter("reg_mr_ex");
	struct ibv_mr *mr;

	if (error) {
		errno = error;
		return NULL;
	}
	mr = new_mr(pd, a->addr, a->length, a->length, a->access);
	if (mr && pinned_fn)
		pinned_fn(mr);
	return mr;
}

EXPORT struct ibv_mr *ibv_reg_buf_mr(struct ibv_pd *pd, struct ibv_buf *buf,
				     void *addr, size_t length, int access)
{
	struct fake_init_attr attr = {
		.length = length, .access = access, .addr = addr};

	(void)buf;
	enter("reg_buf_mr");
	return ibv_reg_mr_ex(pd, (struct ibv_mr_init_attr *)&attr);
}

EXPORT struct ibv_mr *fake_null_mr(struct ibv_pd *pd)
{
	return new_mr(pd, NULL, SIZE_MAX, 0, 0);
}

EXPORT struct ibv_mr *fake_dm_mr(struct ibv_pd *pd)
{
	return new_mr(pd, NULL, 4096, 0, 0);
}

EXPORT struct ibv_mr *ibv_import_mr(struct ibv_pd *pd, uint32_t handle)
{
	struct ibv_mr *mr = new_mr(pd, NULL, 0, 0, 0);

	mr->handle = handle;
	return mr;
}

EXPORT int ibv_dereg_mr(struct ibv_mr *base)
{
	struct mr *mr = (struct mr *)base;
	void (*unpinned_fn)(void) =
		__atomic_load_n(&on_unpin, __ATOMIC_ACQUIRE);
	int error = enter("dereg_mr");

	if (error)
		return error;
	pthread_mutex_lock(&lock);
	if (!mr->live)
		die("deregistered twice");
	mr->live = false;
	mr->domain->users--;
	pinned -= mr->bytes;
	unpins++;
	live--;
	pthread_mutex_unlock(&lock);
	if (mr->bytes)
		madvise_range(mr->mr.addr, mr->mr.length, MADV_DOFORK);
	memset(&mr->mr, 0xee, sizeof(mr->mr));
	free(mr);
	if (unpinned_fn)
		unpinned_fn();
	return 0;
}

OLD(ibv_dereg_mr) int ibv_dereg_mr_1_0(struct old_mr *mr)
{
	int ret;

	enter("dereg_mr@1.0");
	ret = ibv_dereg_mr(mr->real);
	if (!ret)
		free(mr);
	return ret;
}

EXPORT void ibv_unimport_mr(struct ibv_mr *mr)
{
	ibv_dereg_mr(mr);
}

EXPORT int ibv_rereg_mr(struct ibv_mr *base, int flags, struct ibv_pd *pd,
			void *addr, size_t length, int access)
{
	struct mr *mr = (struct mr *)base;
	int error = enter("rereg_mr");

	if (error) {
		errno = error;
		return IBV_REREG_MR_ERR_CMD;
	}
	if (!mr->live)
		die("rereg of what is gone");
	if (flags & IBV_REREG_MR_CHANGE_TRANSLATION) {
		base->addr = addr;
		base->length = length;
	}
	if (flags & IBV_REREG_MR_CHANGE_PD) {
		pthread_mutex_lock(&lock);
		mr->domain->users--;
		mr->domain = ((struct pd *)pd)->domain;
		mr->domain->users++;
		pthread_mutex_unlock(&lock);
		base->pd = pd;
	}
	if (flags & IBV_REREG_MR_CHANGE_ACCESS)
		last_access = access;
	return 0;
}
