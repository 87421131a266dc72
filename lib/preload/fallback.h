/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where guards were chosen but cannot be, as on a node without the driver: the
 * caches of the stacks that would have been guarded are turned off in this
 * process, by the variables that turn them off anywhere. That has to happen
 * before a stack reads them: when the shim is loaded, which is before main() and
 * before anything can be loaded later. What the user set stays.
 *
 * The environment goes on to the programs that this one starts, perhaps on
 * another node. MRCACHE_TURNED_OFF names what was turned off so, and by it such
 * a program knows what was not its user's wish: it tells and counts it again, or
 * takes it back where guards can be.
 */
#ifndef MRC_FALLBACK_H
#define MRC_FALLBACK_H

#include <stdbool.h>
#include <stddef.h>

/* Once, before there is a second thread. */
void fallback_at_load(void);

/* Bit n: the cache of stack n was turned off here. */
unsigned int fallback_turned_off(void);

/* "what cannot be guarded was turned off: UCX, ..."; empty if none was. */
void fallback_text(char *text, size_t size);

/* "; UCX's own cache is left on ..., and ...": by the user; empty if none is. */
void fallback_left_text(char *text, size_t size);

#endif /* MRC_FALLBACK_H */
