/* SPDX-License-Identifier: BSD-2-Clause */
#include "unguarded.h"

#include "config.h"
#include "guard.h"
#include "preload/object.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char here; /* an address in this object */

/* Names that only the sources of a stack have, for copies inside of others. */
#define UCX_INSIDE    "rcache_region"
#define FABRIC_INSIDE "mr_cache_max_count"

/* A part of the address space that belongs to whom we stand in front of. */
struct part {
	struct object object;
	struct dl_phdr_info info;
};

#define PARTS 16

struct look {
	struct part real[PARTS]; /* libibverbs, and the stacks' own */
	unsigned int n_real;
	struct part us;
	bool knows_us;

	unsigned int found;
	char where[UNGUARDED_BITS][256]; /* the object, if that matters */

	/* Also at all that objects are bound to, which takes its time. */
	bool bindings;

	/* The object that is being looked at. */
	const struct object *object;
	bool registers;
};

static bool begins(const char *name, const char *with)
{
	return !strncmp(name, with, strlen(with));
}

static void found(struct look *look, unsigned int bit, const char *where)
{
	if (!(look->found & 1u << bit))
		snprintf(look->where[bit], sizeof(look->where[bit]), "%s",
			 where && !*where ? program_invocation_name
			 : where	  ? where
					  : "");
	look->found |= 1u << bit;
}

/* ---- deep binding ------------------------------------------------------------------ */

/* What the shim stands in front of, by its own symbols. */
static bool is_ours(const struct look *look, const char *name)
{
	static const char *const prefixes[] = {"ibv_", "ucs_", "ucm_", "fi_"};

	/* For most names the first letter will do. */
	if (*name != 'i' && *name != 'u' && *name != 'f')
		return false;
	for (size_t i = 0; i < sizeof(prefixes) / sizeof(*prefixes); i++)
		if (begins(name, prefixes[i]))
			return object_symbol(&look->us.object, name);
	return false;
}

/* Registrations that are not seen cannot be guarded either. */
static unsigned int bit_of(const struct look *look, const char *name)
{
	const char *object = look->object->name;
	bool verbs = begins(name, "ibv_");

	if (verbs ? begins(object, "libuc") : *name == 'u')
		return STACK_UCX;
	if (verbs ? begins(object, "libfabric") : *name == 'f')
		return STACK_FABRIC;
	return STACKS;
}

static void look_at_binding(void *arg, const char *name, const void *slot)
{
	struct look *look = arg;
	const void *target;
	unsigned int bit;

	if (!is_ours(look, name))
		return;
	look->registers |= begins(name, "ibv_reg_mr");
	memcpy(&target, slot, sizeof(target));
	if (object_has(look->object, target))
		return; /* not called yet */
	bit = bit_of(look, name);
	if (bit < STACKS && stack_off_by(&known_stacks[bit]))
		bit = STACKS;
	for (unsigned int i = 0; i < look->n_real; i++)
		if (object_has(&look->real[i].object, target) &&
		    (bit < STACKS || begins(name, "ibv_")))
			found(look, bit, look->object->path);
}

/* ---- caches ---------------------------------------------------------------------------- */

static bool is_on(const struct object *object, const char *variable)
{
	const int *value = object_symbol(object, variable);

	return value && *value;
}

/*
 * Of its registration caches grdma is the one of the network, and in use when a
 * module was made while it was not forbidden; -1 is "not decided", and off.
 */
static void look_at_openmpi(struct look *look, const struct object *object)
{
	const int *pinned = object_symbol(object, "opal_leave_pinned");
	const bool *pipeline =
		object_symbol(object, "opal_leave_pinned_pipeline");

	if (is_on(object, "mca_rcache_base_used_mem_hooks") &&
	    ((pinned && *pinned == 1) || (pipeline && *pipeline)))
		found(look, STACK_OPENMPI, NULL);
}

/* A stack whose guard the settings forbid. */
static void look_at_forbidden(struct look *look, enum stack_id stack)
{
	if (!guard_is_allowed((enum guard_stack)stack) &&
	    !stack_off_by(&known_stacks[stack]))
		found(look, stack, NULL);
}

static void look_inside(struct look *look, const struct object *object)
{
	if (!stack_off_by(&known_stacks[STACK_UCX]) &&
	    object_has_string(object, UCX_INSIDE))
		found(look, STACK_UCX, object->path);
	if (!stack_off_by(&known_stacks[STACK_FABRIC]) &&
	    object_has_string(object, FABRIC_INSIDE))
		found(look, STACK_FABRIC, object->path);
}

static bool is_real(const struct object *object)
{
	return begins(object->name, "libibverbs") ||
	       begins(object->name, "libucs") ||
	       begins(object->name, "libucm") ||
	       begins(object->name, "libfabric");
}

static void look_at_object(struct look *look, const struct object *object)
{
	const char *name = object->name;

	look->object = object;
	look->registers = false;
	if (look->bindings)
		object_bindings(object, look_at_binding, look);
	if (begins(name, "libopen-pal"))
		look_at_openmpi(look, object);
	if (begins(name, "libuct_ib"))
		look_at_forbidden(look, STACK_UCX);
	else if (begins(name, "libfabric"))
		look_at_forbidden(look, STACK_FABRIC);
	else if (begins(name, "libmpi") &&
		 is_on(object, "g_is_dreg_initialized") &&
		 !stack_off_by(&known_stacks[STACK_MVAPICH]))
		found(look, STACK_MVAPICH, NULL);
	else if (look->registers && !is_real(object) && !begins(name, "libuc"))
		look_inside(look, object);
}

/* ---- what is loaded ---------------------------------------------------------------------- */

static void keep(struct part *part, const struct dl_phdr_info *info)
{
	part->info = *info;
	object_read(&part->object, &part->info);
}

static int find_real(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct look *look = arg;
	struct object object;

	(void)size;
	if (!object_read(&object, info))
		return 0;
	if (object_has(&object, &here)) {
		keep(&look->us, info);
		look->knows_us = true;
	} else if (is_real(&object) && look->n_real < PARTS) {
		keep(&look->real[look->n_real++], info);
	}
	return 0;
}

static int look_at(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct look *look = arg;
	struct object object;

	(void)size;
	if (object_read(&object, info) && !object_has(&object, &here))
		look_at_object(look, &object);
	return 0;
}

/* Both passes see the same: what is kept of the first is still there. */
static int look_twice(struct dl_phdr_info *info, size_t size, void *arg)
{
	static _Atomic unsigned long long last_adds;
	struct look *look = arg;

	(void)size;
	/* Else they are as they were, but for calls made for the first time. */
	look->bindings |=
		atomic_exchange(&last_adds, info->dlpi_adds) != info->dlpi_adds;
	dl_iterate_phdr(find_real, look);
	if (look->knows_us && look->n_real)
		dl_iterate_phdr(look_at, look);
	return 1; /* once: this held the linker's lock */
}

/* ---- saying it ----------------------------------------------------------------------------- */

static void say(const struct mrcache_attr *attr, const struct look *look,
		unsigned int n)
{
	const struct stack *stack = n < STACKS ? &known_stacks[n] : NULL;
	const char *where = look->where[n];

	if (!stack)
		mrc_log(attr, MRCACHE_LOG_WARN,
			"%s is bound to libibverbs directly (RTLD_DEEPBIND, say): its registrations are neither cached nor guarded",
			where);
	else if (*where)
		mrc_log(attr, MRCACHE_LOG_WARN,
			"%s: its %s is out of the guard's reach, and may use stale memory; %s=%s turns its cache off",
			where, stack->name, stack->variables[0].name,
			stack->variables[0].off);
	else if (!stack->guard)
		mrc_log(attr, MRCACHE_LOG_WARN,
			"%s keeps registrations without a guard, and may use stale memory; %s=%s turns that off",
			stack->name, stack->variables[0].name,
			stack->variables[0].off);
	/* Else it is as the settings want it, and those who set them know. */
}

static unsigned int look_and_say(const struct mrcache_attr *attr, bool at_end)
{
	static _Atomic unsigned int said;
	struct look *look = calloc(1, sizeof(*look));
	unsigned int bits, new;

	if (!look)
		return 0;
	look->bindings = at_end;
	dl_iterate_phdr(look_twice, look);
	bits = look->found;
	new = bits & ~atomic_fetch_or(&said, bits);
	for (unsigned int n = 0; n < UNGUARDED_BITS; n++)
		if (new & 1u << n && job_is_first_here())
			say(attr, look, n);
	free(look);
	return bits;
}

static void look_and_count(struct mrcache *cache, bool at_end)
{
	atomic_fetch_or(&cache->counters->unguarded,
			look_and_say(&cache->attr, at_end));
}

void unguarded_registered(struct mrcache *cache)
{
	static _Atomic uint64_t registrations;
	uint64_t n = atomic_fetch_add(&registrations, 1) + 1;

	if (!(n & (n - 1)))
		look_and_count(cache, false);
}

void unguarded_look_at_end(struct mrcache *cache)
{
	look_and_count(cache, true);
}

/* What is wrong with the settings has no effect on such a process. */
static void hush(void *arg, enum mrcache_log_level level, const char *line)
{
	(void)arg, (void)level, (void)line;
}

unsigned int unguarded_look_at_stranger(void)
{
	struct mrcache_attr attr;

	mrcache_attr_init(&attr);
	attr.log = hush;
	if (mrc_config(&attr))
		return 0;
	attr.log = NULL;
	return look_and_say(&attr, true);
}
