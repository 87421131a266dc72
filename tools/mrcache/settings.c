/* SPDX-License-Identifier: BSD-2-Clause */
#include "settings.h"

#include "guard/stacks.h"
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_WRONG 16

/* Variables that are not of the library but of the shim and the command. */
static const char *const others[] = {
	"MRCACHE_ENABLE",    "MRCACHE_STATS",		"MRCACHE_PRELOAD",
	"MRCACHE_GUARD",     "MRCACHE_GUARD_UCX_HOOKS", "MRCACHE_VERIFY",
	"MRCACHE_TURNED_OFF"};

static bool is_known(const char *entry, size_t length)
{
	const char *name;

	for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++)
		if (strlen(others[i]) == length &&
		    !strncmp(others[i], entry, length))
			return true;
	for (size_t i = 0; (name = mrc_config_variable(i)); i++)
		if (strlen(name) == length && !strncmp(name, entry, length))
			return true;
	return false;
}

static void check_names(settings_fn *fn, void *arg)
{
	char why[160], name[64];

	for (char **entry = environ; *entry; entry++) {
		size_t length = strcspn(*entry, "=");

		if (strncmp(*entry, "MRCACHE_", strlen("MRCACHE_")) ||
		    is_known(*entry, length))
			continue;
		snprintf(name, sizeof(name), "%.*s", (int)length, *entry);
		snprintf(why, sizeof(why),
			 "%s: there is no such setting, it has no effect",
			 name);
		fn(arg, name, why, false);
	}
}

/* The shim says the same, and goes on. */
static void check_guards(settings_fn *fn, void *arg)
{
	const char *guard = getenv("MRCACHE_GUARD"),
		   *hooks = getenv("MRCACHE_GUARD_UCX_HOOKS");
	unsigned int bits;
	char why[256];

	if (!guard_parse(guard, &bits)) {
		snprintf(why, sizeof(why),
			 "MRCACHE_GUARD=%.64s: not " GUARD_WANTS
			 ": all are guarded",
			 guard);
		fn(arg, "MRCACHE_GUARD", why, false);
	}
	if (hooks && strcmp(hooks, "0") != 0 && strcmp(hooks, "1") != 0) {
		snprintf(why, sizeof(why),
			 "MRCACHE_GUARD_UCX_HOOKS=%.64s: not 0 or 1: it has no "
			 "effect",
			 hooks);
		fn(arg, "MRCACHE_GUARD_UCX_HOOKS", why, false);
	}
}

static void keep_line(void *arg, enum mrcache_log_level level, const char *line)
{
	(void)level;
	snprintf(arg, 256, "%s", line);
}

/* The variable that a complaint of the library is about, or NULL. */
static const char *variable_of(const char *line)
{
	size_t length = strcspn(line, "=");
	const char *name;

	for (size_t i = 0; (name = mrc_config_variable(i)); i++)
		if (strlen(name) == length && !strncmp(name, line, length))
			return name;
	/* These do not begin with it. */
	if (strstr(line, "monitor"))
		return "MRCACHE_MONITOR";
	if (strstr(line, "page_align"))
		return "MRCACHE_PAGE_ALIGN";
	return NULL;
}

struct taken {
	const char *name;
	char *value;
};

static bool take(struct taken *taken, const char *name)
{
	const char *value = getenv(name);

	if (!value)
		return false;
	taken->name = name;
	taken->value = strdup(value);
	unsetenv(name);
	return true;
}

/*
 * The library stops at the first that is wrong; so that one is taken out of
 * the environment for the time being, and it is asked again.
 */
void settings_check(struct mrcache_attr *attr, settings_fn *fn, void *arg)
{
	struct taken taken[MAX_WRONG];
	const char *wrong, *level = getenv("MRCACHE_LOG");
	char line[256];
	size_t n = 0;

	check_names(fn, arg);
	check_guards(fn, arg);
	/* Quiet it would not say what is wrong. */
	if (level && !strcmp(level, "quiet"))
		n += take(&taken[n], "MRCACHE_LOG");
	do {
		mrcache_attr_init(attr);
		attr->reaper = true; /* as the shim does */
		attr->environment_widens = true;
		attr->log = keep_line;
		attr->log_arg = line;
		line[0] = '\0';
		if (!mrc_config(attr))
			break;
		wrong = variable_of(line);
		fn(arg, wrong, line, true);
	} while (wrong && n < MAX_WRONG && take(&taken[n], wrong) && ++n);
	if (!attr->monitor)
		attr->monitor = "auto";
	while (n--) {
		if (taken[n].value)
			setenv(taken[n].name, taken[n].value, 1);
		free(taken[n].value);
	}
}
