/* SPDX-License-Identifier: BSD-2-Clause */
#include "stacks.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- what values mean ------------------------------------------------------------ */

static bool is_no(const char *value)
{
	return !strcmp(value, "0") || !strcasecmp(value, "n") ||
	       !strcasecmp(value, "no") || !strcasecmp(value, "off") ||
	       !strcasecmp(value, "false");
}

static bool is_zero(const char *value)
{
	char *end;

	return !strtoull(value, &end, 0) && end != value && !*end;
}

static bool is_disabled(const char *monitor)
{
	return !strcasecmp(monitor, "disabled");
}

static bool lacks_rcache(const char *methods)
{
	return !strstr(methods, "rcache");
}

/* 2 is the cache in user space; 1 is one in the kernel, which is told. */
static bool is_not_2(const char *mode)
{
	return strcmp(mode, "2") != 0;
}

/*
 * Up to 1.15 UCX has a cache for each InfiniBand device, which REG_METHODS turns
 * off, and later one for all of them, which RCACHE_ENABLE turns off. A version
 * warns of what it does not know. UCX_MEM_EVENTS=n does for every version, and is
 * not exported: it also ends what is no registration cache.
 *
 * FI_MR_CACHE_MONITOR=disabled has no effect where a program brings a monitor, as
 * Open MPI does. The provider efa replaces FI_MR_CACHE_MAX_COUNT by a number of
 * its own.
 *
 * MPICH has a cache of its own since July 2026, for providers that want the
 * buffers of GPUs registered; libfabric's guard does not see what it keeps.
 *
 * Where each comes from is in docs/preload.md.
 */
const struct stack known_stacks[STACKS] = {
	[STACK_UCX] = {"UCX",
		       "ucx",
		       "libucp.so",
		       {{"UCX_RCACHE_ENABLE", "n", is_no, ROLE_SWITCH},
			{"UCX_IB_REG_METHODS", "direct", lacks_rcache,
			 ROLE_SWITCH},
			{"UCX_MEM_EVENTS", NULL, is_no, ROLE_MASTER},
			{"UCX_WARN_UNUSED_ENV_VARS", "n", NULL, ROLE_HUSH}}},
	[STACK_FABRIC] = {"libfabric",
			  "libfabric",
			  "libfabric.so",
			  {{"FI_MR_CACHE_MAX_COUNT", "0", is_zero, ROLE_SWITCH},
			   {"FI_MR_CACHE_MONITOR", NULL, is_disabled,
			    ROLE_WISH},
			   {"FI_MR_CACHE_MAX_SIZE", NULL, is_zero, ROLE_MASTER},
			   {"FI_EFA_MR_CACHE_ENABLE", "0", is_no, ROLE_EXTRA}}},
	[STACK_OPENMPI] = {"Open MPI",
			   NULL,
			   "libopen-pal.so",
			   {{"OMPI_MCA_mpi_leave_pinned", "0", is_no,
			     ROLE_SWITCH},
			    {"OMPI_MCA_mpi_leave_pinned_pipeline", NULL, is_no,
			     ROLE_EXTRA}}},
	[STACK_MVAPICH] =
		{"MVAPICH",
		 NULL,
		 NULL,
		 {{"MV2_USE_LAZY_MEM_UNREGISTER", "0", is_zero, ROLE_SWITCH},
		  {"MVP_USE_LAZY_MEM_UNREGISTER", "0", is_zero, ROLE_SWITCH}}},
	[STACK_MPICH] = {"MPICH",
			 NULL,
			 "libmpich.so",
			 {{"MPIR_CVAR_CH4_OFI_MR_CACHE_SIZE", "0", is_zero,
			   ROLE_SWITCH}}},
	[STACK_PSM3] = {"PSM3",
			NULL,
			NULL,
			{{"PSM3_MR_CACHE_MODE", NULL, is_not_2, ROLE_EXTRA}}},
};

/* ---- what the environment says ---------------------------------------------------- */

/* n is the number of the variable; false behind the last one. */
static bool is_there(const struct stack *stack, int n)
{
	return n < STACK_VARIABLES && stack->variables[n].name;
}

const struct stack_variable *stack_off_by(const struct stack *stack)
{
	const struct stack_variable *off = NULL;
	bool all = true;

	for (int i = 0; is_there(stack, i); i++) {
		const struct stack_variable *variable = &stack->variables[i];
		const char *value = getenv(variable->name);
		bool is_off =
			value && variable->is_off && variable->is_off(value);

		if (variable->role == ROLE_MASTER && is_off)
			return variable;
		if (variable->role == ROLE_EXTRA && value && !is_off)
			all = false;
		if (variable->role != ROLE_SWITCH)
			continue;
		all &= is_off;
		if (is_off && !off)
			off = variable;
	}
	return all ? off : NULL;
}

const struct stack_variable *stack_on_by(const struct stack *stack)
{
	const struct stack_variable *on = NULL;

	for (int i = 0; is_there(stack, i); i++) {
		const struct stack_variable *variable = &stack->variables[i];
		const char *value = getenv(variable->name);

		if (!value || !variable->is_off)
			continue;
		if (variable->role == ROLE_MASTER && variable->is_off(value))
			return NULL;
		if (variable->role != ROLE_MASTER &&
		    variable->role != ROLE_WISH && !on &&
		    !variable->is_off(value))
			on = variable;
	}
	return on;
}

bool stack_is_unwanted(const struct stack *stack)
{
	for (int i = 0; is_there(stack, i); i++) {
		const struct stack_variable *variable = &stack->variables[i];
		const char *value = getenv(variable->name);

		if (variable->role == ROLE_WISH && value &&
		    variable->is_off(value))
			return true;
	}
	return false;
}

bool stack_keeps(const struct stack *stack)
{
	return stack->variables[0].role == ROLE_SWITCH;
}

int (*stack_setenv)(const char *name, const char *value,
		    int overwrite) = setenv;
int (*stack_unsetenv)(const char *name) = unsetenv;

static void export_off(const struct stack *stack, bool extras_only)
{
	for (int i = 0; is_there(stack, i); i++)
		if (stack->variables[i].off &&
		    (!extras_only || stack->variables[i].role == ROLE_EXTRA))
			stack_setenv(stack->variables[i].name,
				     stack->variables[i].off, 0);
}

void stack_switch_off(const struct stack *stack)
{
	export_off(stack, false);
}

static bool has_off_value(const struct stack_variable *variable)
{
	const char *value = getenv(variable->name);

	return variable->off && value && !strcmp(value, variable->off);
}

bool stack_has_off_value(const struct stack *stack)
{
	bool any = false;

	for (int i = 0; is_there(stack, i); i++)
		any |= has_off_value(&stack->variables[i]);
	return any;
}

void stack_switch_back(const struct stack *stack)
{
	for (int i = 0; is_there(stack, i); i++)
		if (has_off_value(&stack->variables[i]))
			stack_unsetenv(stack->variables[i].name);
}

void stack_switch_extras_off(const struct stack *stack)
{
	export_off(stack, true);
}

/* ---- the setting of the guards ------------------------------------------------------- */

static bool find_name(const char *name, size_t length, unsigned int *bits)
{
	for (unsigned int i = 0; i < GUARDED_STACKS; i++) {
		const char *guard = known_stacks[i].guard;

		if (strlen(guard) != length || strncmp(guard, name, length))
			continue;
		*bits |= 1u << i;
		return true;
	}
	return false;
}

bool guard_parse(const char *text, unsigned int *bits)
{
	unsigned int some = 0;

	*bits = (1u << GUARDED_STACKS) - 1;
	if (!text || !strcmp(text, "1") || !strcmp(text, "all"))
		return true;
	if (!strcmp(text, "0")) {
		*bits = 0;
		return true;
	}
	for (;;) {
		size_t length = strcspn(text, ",");

		if (!find_name(text, length, &some))
			return false;
		if (!text[length])
			break;
		text += length + 1;
	}
	*bits = some;
	return true;
}

const char *unguarded_name(unsigned int n)
{
	return n < STACKS ? known_stacks[n].name : "deep binding";
}

/* ---- jobs ---------------------------------------------------------------------------- */

static const char *const ranks[] = {
	"OMPI_COMM_WORLD_RANK", "PMIX_RANK",   "PMI_RANK",
	"MV2_COMM_WORLD_RANK",	"PALS_RANKID", "FLUX_TASK_RANK",
	"SLURM_PROCID",		NULL};

static const char *const local_ranks[] = {"OMPI_COMM_WORLD_LOCAL_RANK",
					  "MPI_LOCALRANKID",
					  "MV2_COMM_WORLD_LOCAL_RANK",
					  "PALS_LOCAL_RANKID",
					  "FLUX_TASK_LOCAL_ID",
					  "SLURM_LOCALID",
					  NULL};

/* The first of the variables that is set counts; they end with NULL. */
static const char *rank_of(const char *const *variables)
{
	const char *rank = NULL;

	while (*variables && !rank)
		rank = getenv(*variables++);
	return rank;
}

bool job_is_first(void)
{
	const char *rank = rank_of(ranks);

	return !rank || is_zero(rank);
}

bool job_is_first_here(void)
{
	const char *rank = rank_of(local_ranks);

	return !rank || is_zero(rank);
}

bool job_has_ranks(void)
{
	return rank_of(ranks) || rank_of(local_ranks);
}
