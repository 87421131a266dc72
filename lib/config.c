/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"

#include "cancel.h"
#include "share.h"
#include "log.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What the first version had; no attr is smaller. */
#define FIRST_SIZE (offsetof(struct mrcache_attr, log_arg) + sizeof(void *))

unsigned int mrcache_version(void)
{
	return MRCACHE_VERSION_CODE;
}

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

static const struct mrcache_attr defaults = {
	.max_bytes = UINT64_MAX,
	.max_regs = 65536,
	.repins = 3,
	.log_level = MRCACHE_LOG_WARN,
};

void mrcache_attr_init_size(struct mrcache_attr *attr, size_t size)
{
	MRC_NOT_CANCELLED;
	struct mrc_limits limits;

	memset(attr, 0, size);
	memcpy(attr, &defaults, smaller(size, sizeof(defaults)));
	mrc_limits(&limits);
	attr->size = size;
	attr->max_bytes = limits.bytes;
}

/* The attr cannot be trusted, so this goes where everybody's lines go. */
static int refuse(int error, const char *why)
{
	mrc_log(&(struct mrcache_attr){.log_level = MRCACHE_LOG_WARN},
		MRCACHE_LOG_ERROR, "%s", why);
	return error;
}

int mrc_attr_take(struct mrcache_attr *attr, const struct mrcache_attr *given)
{
	const char *bytes = (const char *)given;

	/* Far beyond what it may ever be: not a size. */
	if (given->size < FIRST_SIZE || given->size > 4096)
		return refuse(-EINVAL,
			      "attr was not made with mrcache_attr_init()");
	for (size_t i = sizeof(*attr); i < given->size; i++)
		if (bytes[i])
			return refuse(
				-E2BIG,
				"attr asks for what this version of the library does not know");
	*attr = defaults;
	memcpy(attr, given, smaller(given->size, sizeof(*attr)));
	attr->size = sizeof(*attr);
	return 0;
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

static int parse(enum kind kind, const char *text, uint64_t *value)
{
	switch (kind) {
	case NUMBER:
		return parse_number(text, false, UINT32_MAX, value);
	case SIZE:
		return parse_number(text, true, UINT64_MAX, value);
	case FLAG:
		return parse_number(text, false, 1, value);
	case LEVEL:
		return parse_level(text, value);
	case STRING:
		return *text ? 0 : -EINVAL;
	}
	return -EINVAL;
}

static uint64_t get(const void *member, enum kind kind)
{
	switch (kind) {
	case NUMBER:
		return *(const unsigned int *)member;
	case SIZE:
		return *(const uint64_t *)member;
	case FLAG:
		return *(const bool *)member;
	case LEVEL:
	case STRING:
		break;
	}
	return 0;
}

static void set(void *member, enum kind kind, const char *text, uint64_t value)
{
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
		*(const char **)member = text;
		break;
	}
}

static const struct variable {
	const char *name;
	size_t member;
	enum kind kind;
	const char *wants;
	bool more_widens; /* a larger value than the program's does */
} variables[] = {
	/* First, so that it applies to what is said of the others. */
	{"MRCACHE_LOG", offsetof(struct mrcache_attr, log_level), LEVEL,
	 "quiet, error, warn, info or debug", false},
	{"MRCACHE_MONITOR", offsetof(struct mrcache_attr, monitor), STRING,
	 "auto, ummunotify, ummunotify-2010 or none", false},
	{"MRCACHE_DEVICE", offsetof(struct mrcache_attr, device), STRING,
	 "a path", false},
	{"MRCACHE_MAX_BYTES", offsetof(struct mrcache_attr, max_bytes), SIZE,
	 "a size such as 4G", true},
	{"MRCACHE_MAX_REGS", offsetof(struct mrcache_attr, max_regs), SIZE,
	 "a number", true},
	{"MRCACHE_FORK_RELEASE", offsetof(struct mrcache_attr, fork_release),
	 SIZE, "a size such as 64K", false},
	{"MRCACHE_FINGERPRINT", offsetof(struct mrcache_attr, fingerprint),
	 FLAG, "0 or 1", true},
	{"MRCACHE_REPINS", offsetof(struct mrcache_attr, repins), NUMBER,
	 "a number", false},
	{"MRCACHE_REMOTE", offsetof(struct mrcache_attr, remote), FLAG,
	 "0 or 1", true},
	{"MRCACHE_LINGER", offsetof(struct mrcache_attr, linger), NUMBER,
	 "a number of milliseconds", true},
	{"MRCACHE_CONTAIN", offsetof(struct mrcache_attr, contain), FLAG,
	 "0 or 1", true},
	{"MRCACHE_PAGE_ALIGN", offsetof(struct mrcache_attr, page_align), FLAG,
	 "0 or 1", true},
	{"MRCACHE_REAPER", offsetof(struct mrcache_attr, reaper), FLAG,
	 "0 or 1", true},
};

const char *mrc_config_variable(size_t n)
{
	return n < sizeof(variables) / sizeof(*variables) ? variables[n].name
							  : NULL;
}

#define NO_SUCH_MONITOR \
	"there is no monitor %s: not auto, ummunotify, ummunotify-2010 or none"

static bool is_monitor(const char *name)
{
	return !strcmp(name, "auto") || !strcmp(name, "ummunotify") ||
	       !strcmp(name, "ummunotify-2010") || !strcmp(name, "none");
}

int mrc_config_program(struct mrcache_attr *attr)
{
	if (!attr->monitor)
		attr->monitor = "auto";
	if (!attr->device)
		attr->device = "/dev/ummunotify";
	if (!is_monitor(attr->monitor)) {
		mrc_log(attr, MRCACHE_LOG_ERROR, NO_SUCH_MONITOR,
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

/* Whether a variable asks for more than the program agreed to. */
static bool widens(const struct mrcache_attr *given,
		   const struct variable *variable, const char *text,
		   uint64_t value)
{
	if (given->environment_widens)
		return false;
	if (variable->member == offsetof(struct mrcache_attr, monitor))
		return !strcmp(given->monitor, "none") && strcmp(text, "none");
	/*
	 * A time limit is less than none at all. But it is kept by a thread,
	 * which calls back, as the reaper does.
	 */
	if (variable->member == offsetof(struct mrcache_attr, linger) &&
	    given->remote && (given->reaper || given->linger))
		return false;
	/* Never: what is called at an end must not run in fork(). */
	if (variable->member == offsetof(struct mrcache_attr, fork_release))
		return given->fork_release == UINT64_MAX && value != UINT64_MAX;
	return variable->more_widens &&
	       value > get((const char *)given + variable->member,
			   variable->kind);
}

static int apply(struct mrcache_attr *attr, const struct mrcache_attr *given,
		 const struct variable *variable)
{
	const char *text = secure_getenv(variable->name);
	uint64_t value = 0;

	if (!text)
		return 0;
	if (parse(variable->kind, text, &value)) {
		mrc_log(attr, MRCACHE_LOG_ERROR, "%s=%s: not %s",
			variable->name, text, variable->wants);
		return -EINVAL;
	}
	if (variable->member == offsetof(struct mrcache_attr, monitor) &&
	    !is_monitor(text)) {
		mrc_log(attr, MRCACHE_LOG_ERROR, NO_SUCH_MONITOR, text);
		return -EINVAL;
	}
	if (widens(given, variable, text, value))
		mrc_log(attr, MRCACHE_LOG_WARN,
			"%s=%s is ignored: it is more than this program agreed to",
			variable->name, text);
	else
		set((char *)attr + variable->member, variable->kind, text,
		    value);
	return 0;
}

int mrc_config_environment(struct mrcache_attr *attr)
{
	const struct mrcache_attr given = *attr;
	int ret;

	for (size_t i = 0; i < sizeof(variables) / sizeof(*variables); i++) {
		ret = apply(attr, &given, &variables[i]);
		if (ret)
			return ret;
	}
	/* The program's own went with its contain, which was taken away. */
	if (!attr->contain && !secure_getenv("MRCACHE_PAGE_ALIGN"))
		attr->page_align = false;
	return mrc_config_program(attr);
}

int mrc_config(struct mrcache_attr *attr)
{
	int ret = mrc_config_program(attr);

	return ret ? ret : mrc_config_environment(attr);
}
