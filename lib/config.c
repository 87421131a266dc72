/* SPDX-License-Identifier: BSD-2-Clause */
/* Attributes: defaults, the environment variables that override them, checks. */
#include "mrcache_int.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void mrcache_attr_init(struct mrcache_attr *attr)
{
	uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) *
			  (uint64_t)sysconf(_SC_PAGESIZE);

	*attr = (struct mrcache_attr){
		.size = sizeof(*attr),
		.max_bytes = memory / 2,
		.max_regs = 65536,
		.repins = 3,
		.log_level = MRCACHE_LOG_WARN,
	};
}

/* Decimal digits, then K, M, G or T if it is a size. */
static int parse_number(const char *text, bool is_size, uint64_t max,
			uint64_t *value)
{
	static const char suffixes[] = "KMGT";
	unsigned long long number;
	const char *suffix;
	unsigned int shift;
	char *end;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	errno = 0;
	number = strtoull(text, &end, 10);
	if (errno)
		return -EINVAL;
	if (*end && is_size) {
		suffix = strchr(suffixes, toupper((unsigned char)*end));
		if (!suffix || end[1])
			return -EINVAL;
		shift = 10 * (unsigned int)(suffix - suffixes + 1);
		if (number > UINT64_MAX >> shift)
			return -EINVAL;
		number <<= shift;
	} else if (*end) {
		return -EINVAL;
	}
	if (number > max)
		return -EINVAL;
	*value = number;
	return 0;
}

static int parse_level(const char *text, uint64_t *value)
{
	static const char *const names[] = {"quiet", "error", "warn", "info",
					    "debug"};

	for (*value = 0; *value < sizeof(names) / sizeof(*names); ++*value)
		if (!strcmp(text, names[*value]))
			return 0;
	return -EINVAL;
}

enum kind { NUMBER, SIZE, FLAG, LEVEL, STRING };

static int set(void *member, enum kind kind, const char *text)
{
	uint64_t value = 0;
	int ret = 0;

	switch (kind) {
	case NUMBER:
		ret = parse_number(text, false, UINT32_MAX, &value);
		break;
	case SIZE:
		ret = parse_number(text, true, UINT64_MAX, &value);
		break;
	case FLAG:
		ret = parse_number(text, false, 1, &value);
		break;
	case LEVEL:
		ret = parse_level(text, &value);
		break;
	case STRING:
		if (!*text)
			return -EINVAL;
		*(const char **)member = text;
		return 0;
	}
	if (ret)
		return ret;
	switch (kind) {
	case NUMBER:
		*(unsigned int *)member = (unsigned int)value;
		break;
	case SIZE:
		*(uint64_t *)member = value;
		break;
	case FLAG:
		*(bool *)member = value;
		break;
	case LEVEL:
		*(enum mrcache_log_level *)member =
			(enum mrcache_log_level)value;
		break;
	case STRING:
		break;
	}
	return 0;
}

static const struct variable {
	const char *name;
	size_t member;
	enum kind kind;
	const char *wants;
} variables[] = {
	/* First, so that it applies to what is said of the others. */
	{"MRCACHE_LOG", offsetof(struct mrcache_attr, log_level), LEVEL,
	 "quiet, error, warn, info or debug"},
	{"MRCACHE_MONITOR", offsetof(struct mrcache_attr, monitor), STRING,
	 "auto, ummunotify, ummunotify-2010 or none"},
	{"MRCACHE_DEVICE", offsetof(struct mrcache_attr, device), STRING,
	 "a path"},
	{"MRCACHE_MAX_BYTES", offsetof(struct mrcache_attr, max_bytes), SIZE,
	 "a size such as 4G"},
	{"MRCACHE_MAX_REGS", offsetof(struct mrcache_attr, max_regs), SIZE,
	 "a number"},
	{"MRCACHE_REPINS", offsetof(struct mrcache_attr, repins), NUMBER,
	 "a number"},
	{"MRCACHE_REMOTE", offsetof(struct mrcache_attr, remote), FLAG,
	 "0 or 1"},
	{"MRCACHE_LINGER", offsetof(struct mrcache_attr, linger), NUMBER,
	 "a number of milliseconds"},
	{"MRCACHE_CONTAIN", offsetof(struct mrcache_attr, contain), FLAG,
	 "0 or 1"},
	{"MRCACHE_PAGE_ALIGN", offsetof(struct mrcache_attr, page_align), FLAG,
	 "0 or 1"},
	{"MRCACHE_REAPER", offsetof(struct mrcache_attr, reaper), FLAG,
	 "0 or 1"},
};

const char *mrc_config_variable(size_t n)
{
	return n < sizeof(variables) / sizeof(*variables) ? variables[n].name
							  : NULL;
}

static bool is_monitor(const char *name)
{
	return !strcmp(name, "auto") || !strcmp(name, "ummunotify") ||
	       !strcmp(name, "ummunotify-2010") || !strcmp(name, "none");
}

int mrc_config(struct mrcache_attr *attr)
{
	if (attr->size != sizeof(*attr)) {
		mrc_log(&(struct mrcache_attr){.log_level = MRCACHE_LOG_WARN},
			MRCACHE_LOG_ERROR,
			"attr was not made with mrcache_attr_init() of this version");
		return -EINVAL;
	}
	for (size_t i = 0; i < sizeof(variables) / sizeof(*variables); i++) {
		const struct variable *variable = &variables[i];
		const char *text = secure_getenv(variable->name);

		if (text && set((char *)attr + variable->member, variable->kind,
				text)) {
			mrc_log(attr, MRCACHE_LOG_ERROR, "%s=%s: not %s",
				variable->name, text, variable->wants);
			return -EINVAL;
		}
	}
	if (!attr->monitor)
		attr->monitor = "auto";
	if (!attr->device)
		attr->device = "/dev/ummunotify";
	if (!is_monitor(attr->monitor)) {
		mrc_log(attr, MRCACHE_LOG_ERROR,
			"there is no monitor %s: not auto, ummunotify, ummunotify-2010 or none",
			attr->monitor);
		return -EINVAL;
	}
	if (attr->page_align && !attr->contain) {
		mrc_log(attr, MRCACHE_LOG_ERROR,
			"page_align registers more than is asked for and so needs contain");
		return -EINVAL;
	}
	return 0;
}
