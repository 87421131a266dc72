/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A program that is not linked with libibverbs: it loads it, or something that
 * is, when it runs, as NCCL, NVSHMEM, UCX and Open MPI do. See subject.h.
 */
#include "fake_ibverbs.h"
#include "subject.h"

#include <dlfcn.h>
#include <unistd.h>

#undef ibv_reg_mr
#undef ibv_reg_mr_iova

typedef struct ibv_mr *reg_mr_fn(struct ibv_pd *, void *, size_t, int);
typedef struct ibv_mr *reg_mr_iova2_fn(struct ibv_pd *, void *, size_t,
				       uint64_t, unsigned int);
typedef int dereg_mr_fn(struct ibv_mr *);
typedef int pd_fn(struct ibv_pd *);
typedef unsigned int count_fn(void);
typedef unsigned int plugin_all_fn(void *addr, unsigned int times);
typedef void *plugin_default_fn(const char *name, const char *version);

static char memory[8192];
static char named[] = "names from dlsym()";

static void *get(void *handle, const char *name, const char *version)
{
	void *function =
		version ? dlvsym(handle, name, version) : dlsym(handle, name);

	CHECK(function);
	CHECK(!dlerror()); /* many look at this and not at the function */
	return function;
}

/* Registers and gives back some times, by what these lookups give. */
static void use(void *handle, const char *v1_1, const char *v1_8)
{
	struct ibv_device **(*get_device_list)(int *) =
		(struct ibv_device * *(*)(int *))
			get(handle, "ibv_get_device_list", v1_1);
	struct ibv_context *(*open_device)(struct ibv_device *) =
		(struct ibv_context * (*)(struct ibv_device *))
			get(handle, "ibv_open_device", v1_1);
	struct ibv_pd *(*alloc_pd)(struct ibv_context *) =
		(struct ibv_pd * (*)(struct ibv_context *))
			get(handle, "ibv_alloc_pd", v1_1);
	int (*close_device)(struct ibv_context *) =
		(int (*)(struct ibv_context *))get(handle, "ibv_close_device",
						   v1_1);
	reg_mr_fn *reg_mr = (reg_mr_fn *)get(handle, "ibv_reg_mr", v1_1);
	reg_mr_iova2_fn *reg_mr_iova2 =
		(reg_mr_iova2_fn *)get(handle, "ibv_reg_mr_iova2", v1_8);
	dereg_mr_fn *dereg_mr =
		(dereg_mr_fn *)get(handle, "ibv_dereg_mr", v1_1);
	pd_fn *dealloc_pd = (pd_fn *)get(handle, "ibv_dealloc_pd", v1_1);
	count_fn *pins = (count_fn *)get(handle, "fake_pins", NULL);
	count_fn *live = (count_fn *)get(handle, "fake_live", NULL);
	struct ibv_context *context = open_device(get_device_list(NULL)[0]);
	struct ibv_pd *pd = alloc_pd(context);
	struct ibv_mr *mr;

	for (int i = 0; i < 3; i++) {
		mr = reg_mr(pd, memory, 4096, IBV_ACCESS_LOCAL_WRITE);
		CHECK(mr && mr->addr == memory && mr->length == 4096);
		CHECK_EQUAL(dereg_mr(mr), 0);
		mr = reg_mr_iova2(pd, memory, 4096, (uintptr_t)memory,
				  IBV_ACCESS_LOCAL_WRITE);
		CHECK(mr && mr->addr == memory && mr->length == 4096);
		CHECK_EQUAL(dereg_mr(mr), 0);
	}
	CHECK_EQUAL(pins(), caches() ? 1 : 6);
	CHECK_EQUAL(dealloc_pd(pd), 0);
	CHECK_EQUAL(close_device(context), 0);
	CHECK_EQUAL(live(), 0);
}

static void *load(int flags)
{
	void *handle = dlopen("libibverbs.so.1", flags);

	CHECK(handle);
	return handle;
}

static void by_dlsym(void)
{
	use(load(RTLD_NOW), NULL, NULL);
}

/* dlvsym with the version of each function, after a lazy dlopen. */
static void by_dlvsym(void)
{
	use(load(RTLD_NOW), "IBVERBS_1.1", "IBVERBS_1.8");
}

static void by_global(void)
{
	load(RTLD_LAZY | RTLD_GLOBAL);
	use(RTLD_DEFAULT, NULL, NULL);
	CHECK(get(RTLD_DEFAULT, "ibv_reg_mr", "IBVERBS_1.1") ==
	      get(RTLD_DEFAULT, "ibv_reg_mr", NULL));
}

static void by_lazy_handle(void)
{
	void *handle = load(RTLD_LAZY | RTLD_GLOBAL);

	use(handle, "IBVERBS_1.1", "IBVERBS_1.8");
	/* All ways lead to the same. */
	CHECK(get(handle, "ibv_reg_mr", NULL) ==
	      get(RTLD_DEFAULT, "ibv_reg_mr", NULL));
	CHECK(get(handle, "ibv_reg_mr", NULL) ==
	      get(handle, "ibv_reg_mr", "IBVERBS_1.1"));
}

/* RTLD_DEEPBIND is about what a library binds to; asked by handle, it is ours. */
static void by_deepbind(void)
{
	use(load(RTLD_NOW | RTLD_DEEPBIND), NULL, NULL);
}

static void *plugin(int flags)
{
	const char *path = getenv("SUBJECT_PLUGIN");
	void *handle;

	CHECK(path);
	handle = dlopen(path, flags);
	CHECK(handle);
	return handle;
}

static void by_plugin(void)
{
	plugin_all_fn *all = (plugin_all_fn *)get(plugin(RTLD_NOW | RTLD_LOCAL),
						  "plugin_all", NULL);

	CHECK_EQUAL(all(memory, 5), caches() ? 1 : 5);
	/* After libibverbs' own structures are gone, again. */
	CHECK_EQUAL(all(memory, 5), caches() ? 1 : 5);
}

/* A plug-in that comes, works, goes, and comes back. */
static void plugin_again(void)
{
	for (int i = 0; i < 3; i++) {
		void *handle = plugin(RTLD_NOW | RTLD_LOCAL);
		plugin_all_fn *all =
			(plugin_all_fn *)get(handle, "plugin_all", NULL);

		CHECK_EQUAL(all(memory, 5), caches() ? 1 : 5);
		CHECK(!dlclose(handle));
	}
}

/* Verbs of a library's handle are those of the libibverbs it is linked with. */
static void plugin_handle(void)
{
	use(plugin(RTLD_NOW | RTLD_LOCAL), "IBVERBS_1.1", "IBVERBS_1.8");
}

/* RTLD_DEFAULT begins with who asks: a plug-in sees its own libraries. */
static void plugin_scope(void)
{
	void *handle = plugin(RTLD_NOW | RTLD_LOCAL);
	plugin_default_fn *lookup =
		(plugin_default_fn *)get(handle, "plugin_default", NULL);

	CHECK(lookup("ibv_alloc_pd", NULL) ==
	      get(handle, "ibv_alloc_pd", NULL));
	CHECK(lookup("fake_pins", NULL));
	CHECK(lookup("ibv_reg_mr", NULL) == get(handle, "ibv_reg_mr", NULL));
	CHECK(lookup("ibv_reg_mr", "IBVERBS_1.0") ==
	      get(handle, "ibv_reg_mr", "IBVERBS_1.0"));
	CHECK(!lookup("ibv_reg_mr", "IBVERBS_2.0"));
	/* We do not. */
	CHECK(!dlsym(RTLD_DEFAULT, "ibv_alloc_pd"));
	CHECK(!dlsym(RTLD_DEFAULT, "plugin_all"));
}

/* The old functions take other structures and are never ours. */
static void old_version(void)
{
	void *handle = load(RTLD_NOW);
	unsigned int (*calls)(const char *) =
		(unsigned int (*)(const char *))get(handle, "fake_calls", NULL);
	struct old_pd *(*alloc_pd)(struct ibv_context *) =
		(struct old_pd * (*)(struct ibv_context *))
			get(handle, "ibv_alloc_pd", "IBVERBS_1.0");
	struct old_mr *(*reg_mr)(struct old_pd *, void *, size_t, int) =
		(struct old_mr * (*)(struct old_pd *, void *, size_t, int))
			get(handle, "ibv_reg_mr", "IBVERBS_1.0");
	int (*dereg_mr)(struct old_mr *) = (int (*)(struct old_mr *))get(
		handle, "ibv_dereg_mr", "IBVERBS_1.0");
	int (*dealloc_pd)(struct old_pd *) = (int (*)(struct old_pd *))get(
		handle, "ibv_dealloc_pd", "IBVERBS_1.0");
	struct ibv_context *(*open_device)(struct ibv_device *) =
		(struct ibv_context * (*)(struct ibv_device *))
			get(handle, "ibv_open_device", NULL);
	struct old_pd *pd = alloc_pd(open_device(NULL));
	struct old_mr *mr = reg_mr(pd, memory, 4096, IBV_ACCESS_LOCAL_WRITE);

	CHECK(mr && mr->pd == pd && mr->real->addr == memory);
	CHECK_EQUAL(calls("reg_mr@1.0"), 1);
	CHECK_EQUAL(dereg_mr(mr), 0);
	CHECK_EQUAL(calls("dereg_mr@1.0"), 1);
	CHECK_EQUAL(dealloc_pd(pd), 0);
}

/* Prints what is found of all kinds of names, and what dlerror() says. */
static void say(const char *what, void *found)
{
	const char *error = dlerror();

	printf("%s: %s, %s\n", what, found ? "found" : "NULL",
	       error ? error : "no error");
}

static void names(void)
{
	void *handle, *self = dlopen(NULL, RTLD_NOW), *libc;

	libc = dlopen("libc.so.6", RTLD_NOW);
	CHECK(self && libc);
	/* The words differ in who is said to lack it. */
	CHECK(!dlsym(RTLD_DEFAULT, "ibv_reg_mr"));
	CHECK(dlerror() && !dlerror());
	CHECK(!dlsym(self, "ibv_reg_mr"));
	CHECK(dlerror() && !dlerror());
	CHECK(!dlvsym(self, "ibv_reg_mr", "IBVERBS_1.1"));
	CHECK(dlerror() && !dlerror());
	say("next before", dlsym(RTLD_NEXT, "ibv_alloc_pd"));
	say("libc", dlsym(libc, "ibv_reg_mr"));
	handle = load(RTLD_NOW | RTLD_LOCAL);
	say("local", dlsym(handle, "ibv_reg_mr"));
	say("missing", dlsym(handle, "ibv_no_such_verb"));
	say("missing again", dlsym(handle, "ibv_no_such_verb"));
	say("after an error", dlsym(handle, "ibv_reg_mr"));
	say("version", dlvsym(handle, "ibv_reg_mr", "IBVERBS_1.99"));
	say("other version", dlvsym(handle, "ibv_reg_mr", "IBVERBS_1.8"));
	say("old version", dlvsym(handle, "ibv_reg_mr", "IBVERBS_1.0"));
	say("not ibv", dlsym(handle, "fake_pins"));
	say("libc's", dlsym(RTLD_DEFAULT, "getenv"));
	say("libc's version", dlvsym(libc, "getenv", "GLIBC_2.2.5"));
	say("next", dlsym(RTLD_NEXT, "getenv"));
	say("empty", dlsym(handle, ""));
	say("ibv_", dlsym(handle, "ibv_"));
	say("alloc_pd", dlsym(handle, "ibv_alloc_pd"));
	CHECK(dlsym(RTLD_DEFAULT, "getenv") == (void *)getenv);
	CHECK(dlsym(libc, "getenv") == (void *)getenv);
}

/* The program's own function of such a name is the program's. */
__attribute__((visibility("default"))) struct ibv_mr *
ibv_reg_mr_iova(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova,
		int access)
{
	(void)pd, (void)addr, (void)length, (void)iova, (void)access;
	return (struct ibv_mr *)named;
}

static void own_name(void)
{
	void *self = dlopen(NULL, RTLD_NOW);
	void *handle;

	CHECK(get(self, "ibv_reg_mr_iova", NULL) == (void *)ibv_reg_mr_iova);
	CHECK(get(RTLD_DEFAULT, "ibv_reg_mr_iova", NULL) ==
	      (void *)ibv_reg_mr_iova);
	handle = load(RTLD_NOW);
	CHECK(get(self, "ibv_reg_mr_iova", NULL) == (void *)ibv_reg_mr_iova);
	CHECK(get(RTLD_DEFAULT, "ibv_reg_mr_iova", NULL) ==
	      (void *)ibv_reg_mr_iova);
	CHECK(get(handle, "ibv_reg_mr_iova", NULL) != (void *)ibv_reg_mr_iova);
}

/*
 * Other libraries' RTLD_NEXT, in whatever order they were preloaded. Verbs that
 * they stand in front of are found if they come first.
 */
static void next(void)
{
	unsigned int *calls = dlsym(RTLD_DEFAULT, "tool_calls");
	plugin_all_fn *all;

	CHECK(calls);
	CHECK(getppid() > 0);
	CHECK_EQUAL(*calls, 1);
	all = (plugin_all_fn *)get(plugin(RTLD_NOW | RTLD_GLOBAL), "plugin_all",
				   NULL);
	CHECK_EQUAL(all(memory, 5), caches() ? 1 : 5);
	CHECK_EQUAL(*calls, getenv("SUBJECT_TOOL_FIRST") ? 2 : 1);
}

/* A libibverbs from before all but the oldest of what the shim knows. */
static void old_library(void)
{
	void *handle = load(RTLD_NOW | RTLD_LOCAL);
	reg_mr_fn *reg_mr =
		(reg_mr_fn *)get(handle, "ibv_reg_mr", "IBVERBS_1.1");
	dereg_mr_fn *dereg_mr =
		(dereg_mr_fn *)get(handle, "ibv_dereg_mr", "IBVERBS_1.1");
	struct ibv_pd *(*alloc_pd)(struct ibv_context *) =
		(struct ibv_pd * (*)(struct ibv_context *))
			get(handle, "ibv_alloc_pd", NULL);
	struct ibv_context *(*open_device)(struct ibv_device *) =
		(struct ibv_context * (*)(struct ibv_device *))
			get(handle, "ibv_open_device", NULL);
	pd_fn *dealloc_pd = (pd_fn *)get(handle, "ibv_dealloc_pd", NULL);
	count_fn *pins = (count_fn *)get(handle, "fake_pins", NULL);
	struct ibv_pd *pd = alloc_pd(open_device(NULL));
	struct ibv_mr *mr;

	CHECK(!dlsym(handle, "ibv_reg_mr_iova2"));
	CHECK(dlerror());
	CHECK(!dlvsym(handle, "ibv_reg_mr_iova2", "IBVERBS_1.8"));
	CHECK(dlerror());
	for (int i = 0; i < 3; i++) {
		mr = reg_mr(pd, memory, 4096, IBV_ACCESS_LOCAL_WRITE);
		CHECK(mr && mr->addr == memory);
		CHECK_EQUAL(dereg_mr(mr), 0);
	}
	CHECK_EQUAL(pins(), caches() ? 1 : 3);
	CHECK_EQUAL(dealloc_pd(pd), 0);
}

static const struct mode modes[] = {
	{"by_dlsym", by_dlsym},
	{"by_dlvsym", by_dlvsym},
	{"by_global", by_global},
	{"by_lazy_handle", by_lazy_handle},
	{"by_deepbind", by_deepbind},
	{"by_plugin", by_plugin},
	{"plugin_again", plugin_again},
	{"plugin_handle", plugin_handle},
	{"plugin_scope", plugin_scope},
	{"old_version", old_version},
	{"old_library", old_library},
	{"names", names},
	{"own_name", own_name},
	{"next", next},
	{NULL, NULL},
};

int main(int argc, char **argv)
{
	return run_mode(modes, argc > 1 ? argv[1] : NULL);
}
