/* SPDX-License-Identifier: BSD-2-Clause */
/* The calls of /dev/ummunotify as functions; see umn.h. */
#include "umn.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define POISON 0xcc

static int control(int fd, unsigned long request, void *argument)
{
	return ioctl(fd, request, argument) < 0 ? -errno : 0;
}

int umn_open(int flags)
{
	int fd;

	do
		fd = open(UMN_DEVICE, flags | O_CLOEXEC);
	while (fd < 0 && errno == EINTR);
	return fd < 0 ? -errno : fd;
}

int umn_exchange(int fd, uint32_t *mask)
{
	return control(fd, UMMUNOTIFY_EXCHANGE_FEATURES, mask);
}

int umn_query(int fd, struct ummunotify_query_ioctl *query)
{
	memset(query, POISON, sizeof(*query));
	return control(fd, UMMUNOTIFY_QUERY, query);
}

int umn_register(int fd, const void *start, size_t length, uint64_t cookie)
{
	struct ummunotify_register_ioctl r;

	/* Poison flags and reserved too: they must not matter. */
	memset(&r, POISON, sizeof(r));
	r.start = (uintptr_t)start;
	r.end = (uintptr_t)start + length;
	r.user_cookie = cookie;
	return control(fd, UMMUNOTIFY_REGISTER_REGION, &r);
}

int umn_unregister(int fd, uint64_t cookie)
{
	__u64 argument = cookie;

	return control(fd, UMMUNOTIFY_UNREGISTER_REGION, &argument);
}

int umn_ummunot_register(int fd, uint32_t *version, const void *start,
			 size_t length, uint64_t cookie)
{
	struct ummunot_register_ioctl r;
	int ret;

	memset(&r, POISON, sizeof(r));
	r.intf_version = *version;
	r.start = (uintptr_t)start;
	r.end = (uintptr_t)start + length;
	r.user_cookie = cookie;
	ret = control(fd, UMMUNOT_REGISTER_REGION, &r);
	*version = r.intf_version;
	return ret;
}

int umn_ummunot_unregister(int fd, uint64_t cookie)
{
	__u64 argument = cookie;

	return control(fd, UMMUNOT_UNREGISTER_REGION, &argument);
}

int umn_watch(int fd, const void *start, size_t length, uint64_t cookie,
	      uint32_t flags, struct ummunotify_watch_ioctl *watch)
{
	memset(watch, POISON, sizeof(*watch));
	watch->start = (uintptr_t)start;
	watch->end = (uintptr_t)start + length;
	watch->user_cookie = cookie;
	watch->flags = flags;
	return control(fd, UMMUNOTIFY_WATCH, watch);
}

int umn_rearm(int fd, uint64_t cookie, struct ummunotify_rearm_ioctl *rearm)
{
	memset(rearm, POISON, sizeof(*rearm));
	rearm->user_cookie = cookie;
	return control(fd, UMMUNOTIFY_REARM, rearm);
}

struct ummunotify_arm umn_order(uint64_t cookie, const void *start,
				size_t length, uint32_t flags)
{
	struct ummunotify_arm arm;

	memset(&arm, POISON, sizeof(arm));
	arm.size = sizeof(arm);
	arm.flags = flags;
	arm.user_cookie = arm.new_cookie = cookie;
	arm.start = (uintptr_t)start;
	arm.end = (uintptr_t)start + length;
	arm.reserved = 0;
	return arm;
}

int umn_arm(int fd, struct ummunotify_arm *arm)
{
	return control(fd, UMMUNOTIFY_ARM, arm);
}

int umn_arm_many(int fd, struct ummunotify_arm *arms, uint32_t count)
{
	struct ummunotify_arm_many many = {
		.size = sizeof(many),
		.arms = (uintptr_t)arms,
		.count = count,
	};
	int ret = control(fd, UMMUNOTIFY_ARM_MANY, &many);

	return ret ? ret : (int)many.done;
}

struct ummunotify_fingerprint umn_fingerprint_of(uint64_t cookie,
						 uint32_t flags, uint32_t state,
						 uint64_t fingerprint)
{
	struct ummunotify_fingerprint print;

	memset(&print, POISON, sizeof(print));
	print.size = sizeof(print);
	print.flags = flags;
	print.user_cookie = cookie;
	print.state = state;
	print.fingerprint = fingerprint;
	print.reserved = 0;
	return print;
}

int umn_fingerprint(int fd, struct ummunotify_fingerprint *prints,
		    uint32_t count)
{
	struct ummunotify_fingerprints all = {
		.size = sizeof(all),
		.fingerprints = (uintptr_t)prints,
		.count = count,
	};
	int ret = control(fd, UMMUNOTIFY_FINGERPRINT, &all);

	return ret ? ret : (int)all.done;
}

int umn_read(int fd, struct ummunotify_event *events, size_t max)
{
	ssize_t got;

	memset(events, POISON, max * sizeof(*events));
	got = read(fd, events, max * sizeof(*events));
	if (got < 0)
		return -errno;
	if (got % sizeof(*events))
		return -EBADMSG;
	return got / sizeof(*events);
}

int umn_drain(int fd, struct ummunotify_event *events, size_t max,
	      uint64_t *last)
{
	struct ummunotify_event batch[128];
	int found = 0, got, i;

	for (;;) {
		got = umn_read(fd, batch, 128);
		if (got == -EAGAIN)
			return found;
		if (got < 0)
			return got;
		for (i = 0; i < got; i++) {
			if (batch[i].type == UMMUNOTIFY_EVENT_TYPE_LAST) {
				if (last)
					*last = batch[i].user_cookie_counter;
				return i + 1 == got ? found : -EBADMSG;
			}
			if (batch[i].type != UMMUNOTIFY_EVENT_TYPE_INVAL)
				return -EBADMSG;
			if (events && (size_t)found < max)
				events[found] = batch[i];
			found++;
		}
		if (!got)
			return -EBADMSG;
	}
}

static int map(int fd, size_t bytes, off_t offset, const void **where)
{
	void *p = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, offset);

	if (p == MAP_FAILED)
		return -errno;
	*where = p;
	return 0;
}

int umn_map_counter(int fd, const uint64_t **counter)
{
	return map(fd, sysconf(_SC_PAGESIZE), 0, (const void **)counter);
}

int umn_map_states(int fd, size_t bytes, const uint32_t **states)
{
	return map(fd, bytes, UMMUNOTIFY_STATE_OFFSET, (const void **)states);
}

uint64_t umn_counter(const struct umn *u)
{
	return __atomic_load_n(u->counter, __ATOMIC_ACQUIRE);
}

uint32_t umn_word(const struct umn *u, uint32_t slot)
{
	return __atomic_load_n(&u->states[slot], __ATOMIC_ACQUIRE);
}

bool umn_clean(const struct umn *u, uint32_t slot, uint32_t state)
{
	return umn_word(u, slot) == state;
}

int umn_start(struct umn *u, uint32_t features)
{
	struct ummunotify_query_ioctl query;
	int ret;

	memset(u, 0, sizeof(*u));
	u->fd = umn_open(O_RDONLY | O_NONBLOCK);
	if (u->fd < 0)
		return u->fd;
	if (features) {
		uint32_t mask = UMMUNOTIFY_FEATURES_MAGIC | features;

		ret = umn_exchange(u->fd, &mask);
		if (!ret && mask != (UMMUNOTIFY_FEATURES_MAGIC | features))
			ret = -EPROTO;
		if (ret)
			goto err_stop;
	}
	ret = umn_map_counter(u->fd, &u->counter);
	if (ret)
		goto err_stop;
	if (features & UMMUNOTIFY_FEATURE_STATE) {
		ret = umn_query(u->fd, &query);
		if (ret)
			goto err_stop;
		u->state_bytes = query.state_bytes;
		ret = umn_map_states(u->fd, u->state_bytes, &u->states);
		if (ret)
			goto err_stop;
	}
	return 0;

err_stop:
	umn_stop(u);
	return ret;
}

void umn_stop(struct umn *u)
{
	if (u->states)
		munmap((void *)u->states, u->state_bytes);
	if (u->counter)
		munmap((void *)u->counter, sysconf(_SC_PAGESIZE));
	if (u->fd >= 0)
		close(u->fd);
	memset(u, 0, sizeof(*u));
	u->fd = -1;
}

static long long number(const char *path, const char *name)
{
	FILE *f = fopen(path, "re");
	long long value = -ENOENT;
	size_t length = strlen(name);
	char line[256];

	if (!f)
		return -errno;
	while (fgets(line, sizeof(line), f)) {
		if (length &&
		    (strncmp(line, name, length) || line[length] != ':'))
			continue;
		value = strtoll(line + (length ? length + 1 : 0), NULL, 0);
		break;
	}
	fclose(f);
	return value;
}

long long umn_fdinfo(int fd, const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	return number(path, name);
}

long long umn_parameter(const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), UMN_PARAMETERS "%s", name);
	return number(path, "");
}
