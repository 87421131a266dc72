/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Settings: a few bytes of attributes, then lines "NAME=VALUE" of which the
 * name is a number. What the library accepts, and makes of it, must be what a
 * second reading of include/mrcache.h makes of it.
 */
#include "fuzz.h"

#include "config.h"
#include "settings.h"
#include "unit.h"

#define VARIABLES 13

static const struct {
	const char *name;
	enum { SIZE, NUMBER, FLAG, LEVEL, MONITOR, PATH } kind;
	size_t member;
} variables[VARIABLES] = {
#define MEMBER(name) offsetof(struct mrcache_attr, name)
	{"MRCACHE_LOG", LEVEL, MEMBER(log_level)},
	{"MRCACHE_MONITOR", MONITOR, MEMBER(monitor)},
	{"MRCACHE_DEVICE", PATH, MEMBER(device)},
	{"MRCACHE_MAX_BYTES", SIZE, MEMBER(max_bytes)},
	{"MRCACHE_MAX_REGS", SIZE, MEMBER(max_regs)},
	{"MRCACHE_REPINS", NUMBER, MEMBER(repins)},
	{"MRCACHE_REMOTE", FLAG, MEMBER(remote)},
	{"MRCACHE_LINGER", NUMBER, MEMBER(linger)},
	{"MRCACHE_CONTAIN", FLAG, MEMBER(contain)},
	{"MRCACHE_PAGE_ALIGN", FLAG, MEMBER(page_align)},
	{"MRCACHE_REAPER", FLAG, MEMBER(reaper)},
	{"MRCACHE_FORK_RELEASE", SIZE, MEMBER(fork_release)},
	{"MRCACHE_FINGERPRINT", FLAG, MEMBER(fingerprint)},
};

static const char *const levels[] = {"quiet", "error", "warn", "info", "debug"};
static const char *const monitors[] = {"auto", "ummunotify", "ummunotify-2010",
				       "none"};

/* Where a text stands in a list, or -1. */
static int place(const char *const *list, int n, const char *text)
{
	for (int i = 0; i < n; i++)
		if (!strcmp(list[i], text))
			return i;
	return -1;
}

/* A number with a suffix if is_size; false if it is none or above max. */
static bool number(const char *text, bool is_size, uint64_t max,
		   uint64_t *value)
{
	unsigned __int128 n = 0;
	size_t digits = strspn(text, "0123456789");
	const char *suffix = text + digits;
	static const char suffixes[] = "kKmMgGtT";

	for (size_t i = 0; i < digits && n <= UINT64_MAX; i++)
		n = n * 10 + (unsigned int)(text[i] - '0');
	if (!digits || n > UINT64_MAX)
		return false;
	if (is_size && *suffix) {
		const char *found = strchr(suffixes, *suffix++);

		if (!found)
			return false;
		n <<= 10 * ((found - suffixes) / 2 + 1);
	}
	*value = (uint64_t)n;
	return !*suffix && n <= max;
}

/* Whether a value makes sense, and that it is what the library took it for. */
static bool is_right(unsigned int i, const char *text,
		     const struct mrcache_attr *attr)
{
	const char *member = (const char *)attr + variables[i].member;
	uint64_t value = 0;
	int at;

	switch (variables[i].kind) {
	case SIZE:
		return number(text, true, UINT64_MAX, &value) &&
		       (!attr->size || *(const uint64_t *)member == value);
	case NUMBER:
		return number(text, false, UINT32_MAX, &value) &&
		       (!attr->size || *(const unsigned int *)member == value);
	case FLAG:
		return number(text, false, 1, &value) &&
		       (!attr->size || *(const bool *)member == value);
	case LEVEL:
		at = place(levels, 5, text);
		return at >= 0 && (!attr->size || (int)attr->log_level == at);
	case MONITOR:
		return place(monitors, 4, text) >= 0 &&
		       (!attr->size || !strcmp(attr->monitor, text));
	case PATH:
		return *text && (!attr->size || !strcmp(attr->device, text));
	}
	return false;
}

/* Whether nothing is more than what the program agreed to. */
static bool restricts(const struct mrcache_attr *given,
		      const struct mrcache_attr *made)
{
	return made->max_bytes <= given->max_bytes &&
	       made->max_regs <= given->max_regs &&
	       made->remote <= given->remote &&
	       (given->remote || made->linger <= given->linger) &&
	       made->contain <= given->contain &&
	       made->page_align <= given->page_align &&
	       made->fingerprint <= given->fingerprint &&
	       made->reaper <= given->reaper &&
	       (!made->linger || given->linger || given->reaper) &&
	       (given->fork_release != UINT64_MAX ||
		made->fork_release == UINT64_MAX);
}

static void count(void *arg, const char *name, const char *why, bool is_fatal)
{
	CHECK(why && *why, "%s", name ? name : "?");
	if (is_fatal)
		++*(int *)arg;
}

static void take_attr(struct input *in, struct mrcache_attr *attr)
{
	uint8_t flags = take_byte(in);

	test_attr(attr);
	attr->remote = flags & 1;
	attr->contain = flags & 2;
	attr->page_align = flags & 4;
	attr->reaper = flags & 8;
	if (flags & 16) {
		attr->linger = 1 + take_byte(in);
		if (attr->linger & 1)
			attr->fork_release = UINT64_MAX;
	}
	if (flags & 32)
		attr->size = take_byte(in) % (sizeof(*attr) + 1);
	if (flags & 64)
		attr->monitor = monitors[take_byte(in) % 4];
	attr->environment_widens = !(flags & 128);
	attr->device = "/dev/null/none";
}

/* Any path that is not one of a device of this machine. */
static void set(unsigned int i, const char *value)
{
	static char path[300];

	snprintf(path, sizeof(path), "/dev/null/%s", value);
	setenv(variables[i].name, variables[i].kind == PATH ? path : value, 1);
}

static void open_and_close(const struct mrcache_attr *attr)
{
	struct mrcache *cache = mrc_open_device(attr, &fake_verbs, NULL);

	if (cache)
		CHECK(!mrcache_close(cache), "the cache does not close");
	else
		CHECK(errno == EINVAL || errno == ENOENT || errno == ENOTDIR,
		      "%d", errno);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	struct mrcache_attr attr, checked = {0};
	bool right = true, made;
	int wrong = 0;

	fresh(NULL);
	take_attr(&in, &attr);
	made = attr.size == sizeof(attr);
	/* What is not whole is refused before the settings are looked at. */
	if (!made) {
		open_and_close(&attr);
		return 0;
	}
	for (unsigned int i = 0; i < VARIABLES; i++)
		unsetenv(variables[i].name);
	while (in.size) {
		uint8_t byte = take_byte(&in);
		char value[256] = "";
		size_t n = 0;

		while (in.size && *in.data != '\n' && *in.data &&
		       n < sizeof(value) - 1)
			value[n++] = (char)take_byte(&in);
		take_byte(&in);
		set(byte % VARIABLES, value);
	}

	checked = attr;
	if (!mrc_config(&checked)) {
		CHECK(!checked.page_align || checked.contain,
		      "page_align without contain");
		CHECK(place(monitors, 4, checked.monitor) >= 0, "%s",
		      checked.monitor);
		for (unsigned int i = 0; i < VARIABLES; i++) {
			const char *text = getenv(variables[i].name);

			CHECK(!text || is_right(i, text,
						attr.environment_widens
							? &checked
							: &(struct
							    mrcache_attr){0}),
			      "%s=%s", variables[i].name, text);
		}
		CHECK(attr.environment_widens || restricts(&attr, &checked),
		      "more than the program agreed to");
	} else {
		for (unsigned int i = 0; i < VARIABLES; i++) {
			const char *text = getenv(variables[i].name);

			right &= !text ||
				 is_right(i, text, &(struct mrcache_attr){0});
		}
		CHECK(!right || (checked.page_align && !checked.contain),
		      "refused for no reason");
		CHECK(checked.log_level == MRCACHE_LOG_QUIET ||
			      log_lines(MRCACHE_LOG_ERROR) == 1,
		      "it is not said why");
	}
	open_and_close(&attr);

	/* What doctor says of the same environment, which it leaves as it is. */
	settings_check(&checked, count, &wrong);
	CHECK(right || wrong, "doctor finds nothing");
	return 0;
}
