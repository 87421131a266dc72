/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A program that loads stacks (see stack.c): SUBJECT_STACKS, of which those behind
 * a '+' with RTLD_DEEPBIND. See subject.h.
 */
#include "fake_ibverbs.h"
#include "subject.h"

#include <dlfcn.h>
#include <unistd.h>

typedef struct ibv_mr *stack_reg_fn(struct ibv_pd *pd, void *addr);

static char memory[8192];

static void *load(const char *word)
{
	bool deep = *word == '+';
	void *handle = dlopen(word + deep, RTLD_LAZY | RTLD_LOCAL |
						   (deep ? RTLD_DEEPBIND : 0));

	if (!handle)
		fprintf(stderr, "%s\n", dlerror());
	CHECK(handle);
	return handle;
}

static void registers(struct ibv_pd *pd, bool self)
{
	char *list = strdup(getenv("SUBJECT_STACKS")), *rest = list, *word;
	struct ibv_mr *mr;

	while ((word = strsep(&rest, ","))) {
		stack_reg_fn *reg;

		if (!*word)
			continue;
		reg = (stack_reg_fn *)dlsym(load(word), "stack_reg");
		CHECK(reg);
		mr = reg(pd, memory);
		CHECK(mr);
		CHECK_EQUAL(ibv_dereg_mr(mr), 0);
	}
	free(list);
	for (int i = 0; self && i < 4; i++) {
		mr = ibv_reg_mr(pd, memory, 4096 + (size_t)i,
				IBV_ACCESS_LOCAL_WRITE);
		CHECK(mr);
		CHECK_EQUAL(ibv_dereg_mr(mr), 0);
	}
}

static struct ibv_pd *open_pd(void)
{
	return ibv_alloc_pd(ibv_open_device(ibv_get_device_list(NULL)[0]));
}

static void uses(void)
{
	registers(open_pd(), true);
}

/* Killed, so that nothing is said at the end. */
static void dies(void)
{
	registers(open_pd(), true);
	_exit(0);
}

/* Registers by a library that is bound around the shim, and by no other. */
static void stranger(void)
{
	struct ibv_pd *pd = open_pd();
	stack_reg_fn *reg = (stack_reg_fn *)dlsym(
		load(getenv("SUBJECT_STACKS")), "stack_reg");

	CHECK(reg && reg(pd, memory));
}

static const struct mode modes[] = {
	{"uses", uses},
	{"dies", dies},
	{"stranger", stranger},
	{NULL, NULL},
};

int main(int argc, char **argv)
{
	return run_mode(modes, argc > 1 ? argv[1] : NULL);
}
