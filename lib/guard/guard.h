/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guards: the registration caches inside UCX and libfabric, made right. What a
 * stack keeps registered is watched; before the stack uses what it kept it is
 * told of what has changed. How is in ucx.c and fabric.c, why it
 * is right in docs/guards.md. Everything a guard knows of a stack's insides is in its file.
 */
#ifndef MRC_GUARD_H
#define MRC_GUARD_H

#include "log.h"
#include "watched.h"

enum guard_stack { GUARD_UCX, GUARD_FABRIC, GUARD_STACKS };

/* The cache of the process, opened if it was not; NULL: all is passed through. */
struct mrcache *guard_cache(void);

/*
 * The process has a cache, whose settings and counters the guards use. Reads
 * MRCACHE_GUARD: 1 or all (default), 0, or some of ucx,libfabric.
 */
void guard_init(struct mrcache *cache, int (*dereg_mr)(struct ibv_mr *mr));

/* Whether the settings allow it; true before guard_init(), which may forbid. */
bool guard_is_allowed(enum guard_stack stack);

/*
 * A guard says whether its stack has a cache now, with the guard in front of it.
 * While it has none the stack registers as any program does.
 */
void guard_set_keeping(enum guard_stack stack, bool keeping);

/*
 * The stack that calls from this address and keeps what it registers, so that
 * it must do so by guard_reg(); GUARD_STACKS if it is none. One load while no
 * stack keeps anything.
 */
enum guard_stack guard_keeper(const void *return_address);

/*
 * Registers by pin(arg) what is [addr, addr + length), with a watch; see
 * watched_reg() and ranges_reg(). Where nothing can be watched at all (said once) only pin(arg).
 */
struct ibv_mr *guard_reg(enum guard_stack stack, void *addr, size_t length,
			 watched_pin_fn *pin, void *arg);

/* As watched_dereg(): -ENOENT for what guard_reg() did not return. */
int guard_dereg(struct ibv_mr *mr);

/* The registrations of UCX; NULL: there are none, or not for this process. */
struct watched_set *guard_set(enum guard_stack stack);

/* The same, opened if it was not; NULL: the stack is not guarded. */
struct watched_set *guard_open(enum guard_stack stack);

/* watched_tell(), counted; if the monitor fails, said once. */
void guard_tell(enum guard_stack stack, watched_tell_fn *fn, void *arg);

/* A lookup of a stack's was checked, and what it found (not) refused. */
void guard_count_checked(bool refused);

/* ---- for the guards themselves ------------------------------------------------------- */

/* A monitor for a stack's registrations, or NULL: then it was said. */
struct mrc_monitor *guard_monitor(enum guard_stack stack);

/* Says that the stack's cache is not guarded, and why. */
void guard_say_unguarded(enum guard_stack stack, const char *why);

/* ibv_dereg_mr() behind us. */
int guard_unpin(struct ibv_mr *mr);

/* Functions of a stack that the shim stands in front of; the last has no name. */
struct guard_symbol {
	const char *name, *version;
	void *function;
};

extern const struct guard_symbol guard_fabric_symbols[];

/* As guard_reg() and guard_dereg(), for libfabric. */
struct ibv_mr *guard_fabric_reg(void *addr, size_t length, watched_pin_fn *pin,
				void *arg);
int guard_fabric_dereg(struct ibv_mr *mr);
uint64_t guard_fabric_unwatched(void);

#endif /* MRC_GUARD_H */
