/* SPDX-License-Identifier: BSD-2-Clause */
/* What is said, and that it is said once. */
#ifndef MRC_LOG_H
#define MRC_LOG_H

#include "types.h"

/* A line, at a level of attr's or worse. errno is preserved. */
void mrc_log(const struct mrcache_attr *attr, enum mrcache_log_level level,
	     const char *format, ...) __attribute__((format(printf, 3, 4)));

/* A line on standard error, by mrc_write_quietly(). */
void mrc_say(const char *line);

/*
 * One write(), whole or (false, errno) not, that ends no program: SIGPIPE and
 * SIGXFSZ of it are nobody's.
 */
bool mrc_write_quietly(int fd, const char *text, size_t size);

/* Says a line only the first time for this cache. */
enum mrc_once {
	ONCE_BYPASS, /* and MRCACHE_BYPASS_REASONS more */
	ONCE_MONITOR = ONCE_BYPASS + MRCACHE_BYPASS_REASONS,
	ONCE_DEREG,
	ONCE_UCX_HOOKS,
};
bool mrc_once(struct mrcache *cache, unsigned int what);

/* Counts a registration that is passed through, and says it once. */
void mrc_count_bypass(struct mrcache *cache, enum mrcache_bypass reason);

#endif /* MRC_LOG_H */
