/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Doubles of what brings a cache of registrations of its own, as far as the shim
 * looks at it: the library's name, a variable, a string. One source for all;
 * STACK_* says which.
 */
#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

#ifdef STACK_OPAL
/* As its constructor finds them set in FAKE_OPAL: leave_pinned and hooks. */
EXPORT int opal_leave_pinned = -1, mca_rcache_base_used_mem_hooks;
EXPORT bool opal_leave_pinned_pipeline;

__attribute__((constructor)) static void start(void)
{
	const char *set = getenv("FAKE_OPAL");

	if (!set)
		return;
	opal_leave_pinned = strstr(set, "pinned") != NULL;
	opal_leave_pinned_pipeline = strstr(set, "pipeline") != NULL;
	mca_rcache_base_used_mem_hooks = strstr(set, "hooks") != NULL;
}
#endif

#ifdef STACK_MPI
EXPORT int g_is_dreg_initialized = 1;
#endif

/* What the shim stands in front of; none of it does anything. */
#if defined(STACK_UCS) || defined(STACK_UCP)
long ucs_rcache_get(long a, long b, long c, long d, long e, long f, long g);
#endif
#ifdef STACK_UCS
long ucs_rcache_create(void);
void ucs_rcache_destroy(void);
void *ucs_pgtable_lookup(void);
void ucm_vm_munmap(void);

EXPORT long ucs_rcache_get(long a, long b, long c, long d, long e, long f,
			   long g)
{
	return a + b + c + d + e + f + g;
}
EXPORT long ucs_rcache_create(void)
{
	return 0;
}
EXPORT void ucs_rcache_destroy(void)
{
}
EXPORT void *ucs_pgtable_lookup(void)
{
	return NULL;
}
EXPORT void ucm_vm_munmap(void)
{
}
#endif

#if defined(STACK_FI) || defined(STACK_MTL)
int fi_fabric(void *attr, void **fabric, void *context);
#endif
#ifdef STACK_FI
EXPORT int fi_fabric(void *attr, void **fabric, void *context)
{
	(void)attr, (void)fabric, (void)context;
	return -1;
}
#endif

/* A copy inside another library, which registers by itself. */
#ifdef STACK_INSIDE
EXPORT const char *stack_inside(void)
{
	return STACK_INSIDE;
}
#endif

#if !defined(STACK_UCS) && !defined(STACK_FI)
/* Not ibv_reg_mr(): libibverbs' own would come back to the shim by iova2. */
EXPORT struct ibv_mr *stack_reg(struct ibv_pd *pd, void *addr)
{
#ifdef STACK_UCP
	ucs_rcache_get(0, 0, 0, 0, 0, 0, 0);
#endif
#ifdef STACK_MTL
	fi_fabric(NULL, NULL, NULL);
#endif
	return ibv_reg_mr_iova2(pd, addr, 4096, (uintptr_t)addr,
				IBV_ACCESS_LOCAL_WRITE);
}
#endif
