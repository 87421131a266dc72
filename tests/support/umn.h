/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The calls of /dev/ummunotify as functions, for the tests. Each returns 0 (or
 * what it says) or -errno, and asserts nothing; the raw ioctls stay available
 * through the descriptor in `struct umn`.
 */
#ifndef TESTS_SUPPORT_UMN_H
#define TESTS_SUPPORT_UMN_H

#include <linux/ummunotify.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define UMN_DEVICE     "/dev/ummunotify"
#define UMN_PARAMETERS "/sys/module/ummunotify/parameters/"

#define UMN_FILTER UMMUNOTIFY_FEATURE_FILTER
#define UMN_KIND   UMMUNOTIFY_FEATURE_KIND
#define UMN_STATE  UMMUNOTIFY_FEATURE_STATE
#define UMN_PAGES  UMMUNOTIFY_FEATURE_FINGERPRINT
#define UMN_ALL	   (UMN_FILTER | UMN_KIND | UMN_STATE | UMN_PAGES)

/* What umn_start() sets up; `states` is NULL without FEATURE_STATE. */
struct umn {
	int fd;
	const uint64_t *counter;
	const uint32_t *states;
	size_t state_bytes;
};

/* For umn_start(): does negotiate, and wants no feature. */
#define UMN_NONE UMMUNOTIFY_FEATURES_MAGIC

/*
 * Opens the device O_NONBLOCK, negotiates `features` (0: does not negotiate at
 * all, as the programs of 2010), maps the counter and the state words. -EPROTO
 * if less was granted than wanted.
 */
int umn_start(struct umn *u, uint32_t features);
void umn_stop(struct umn *u);

/* A descriptor or -errno. EINTR is tried again. */
int umn_open(int flags);
int umn_exchange(int fd, uint32_t *mask);
int umn_query(int fd, struct ummunotify_query_ioctl *query);

int umn_register(int fd, const void *start, size_t length, uint64_t cookie);
int umn_unregister(int fd, uint64_t cookie);
int umn_ummunot_register(int fd, uint32_t *version, const void *start,
			 size_t length, uint64_t cookie);
int umn_ummunot_unregister(int fd, uint64_t cookie);

/* `watch` and `rearm` are poisoned first, then hold what the driver wrote. */
int umn_watch(int fd, const void *start, size_t length, uint64_t cookie,
	      uint32_t flags, struct ummunotify_watch_ioctl *watch);
int umn_rearm(int fd, uint64_t cookie, struct ummunotify_rearm_ioctl *rearm);

/* An order to arm `cookie` where it is to be, its answers poisoned. */
struct ummunotify_arm umn_order(uint64_t cookie, const void *start,
				size_t length, uint32_t flags);
int umn_arm(int fd, struct ummunotify_arm *arm);

/* How many were dealt with, or -errno. */
int umn_arm_many(int fd, struct ummunotify_arm *arms, uint32_t count);

/* An order to take a fingerprint, or with VERIFY to compare one. */
struct ummunotify_fingerprint umn_fingerprint_of(uint64_t cookie,
						 uint32_t flags, uint32_t state,
						 uint64_t fingerprint);
/* How many were dealt with, or -errno. */
int umn_fingerprint(int fd, struct ummunotify_fingerprint *prints,
		    uint32_t count);

/* One read() of at most `max` events: how many came, or -errno. */
int umn_read(int fd, struct ummunotify_event *events, size_t max);

/*
 * Reads until LAST or nothing is pending, on an O_NONBLOCK descriptor. Returns
 * how many INVAL events there were, of which the first `max` are in `events`
 * (may be NULL). *last, if not NULL, is set by LAST and else left alone.
 */
int umn_drain(int fd, struct ummunotify_event *events, size_t max,
	      uint64_t *last);

int umn_map_counter(int fd, const uint64_t **counter);
int umn_map_states(int fd, size_t bytes, const uint32_t **states);

/* Load-acquire. */
uint64_t umn_counter(const struct umn *u);
uint32_t umn_word(const struct umn *u, uint32_t slot);

/* The watch is untouched since `state` was returned for its slot. */
bool umn_clean(const struct umn *u, uint32_t slot, uint32_t state);

/* The number after "NAME:" in this process's fdinfo of fd, or -errno. */
long long umn_fdinfo(int fd, const char *name);

/* The number in a parameter of the module, or -errno. */
long long umn_parameter(const char *name);

#endif /* TESTS_SUPPORT_UMN_H */
