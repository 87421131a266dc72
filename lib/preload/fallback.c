/* SPDX-License-Identifier: BSD-2-Clause */
#include "fallback.h"

#include "config.h"
#include "monitor.h"
#include "real.h"

#include "guard/stacks.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

#define MARK "MRCACHE_TURNED_OFF"

static unsigned int turned_off;
/* Of these the user had set a part: what is whose could not be told any more. */
static unsigned int users_too;
static unsigned int left_on; /* the user wants it */

/* What is wrong with the settings is said when the cache is opened. */
static void hush(void *arg, enum mrcache_log_level level, const char *line)
{
	(void)arg, (void)level, (void)line;
}

/* Whether the monitor that guards stand on can be opened: it has state words. */
static bool can_guard(void)
{
	struct mrc_monitor *monitor;
	struct mrcache_attr attr;
	bool can;

	mrcache_attr_init(&attr);
	attr.log = hush;
	if (mrc_config(&attr))
		return false;
	if (strcmp(attr.monitor, "auto") != 0 &&
	    strcmp(attr.monitor, "ummunotify") != 0)
		return false;
	if (mrc_monitor_ummunotify(&monitor, attr.device, false))
		return false;
	can = monitor->states;
	monitor->ops->close(monitor);
	return can;
}

/* libc's: some programs, such as bash, have functions of these names. */
static bool find_functions(void)
{
	stack_setenv =
		(__typeof__(stack_setenv))real_dlsym()(RTLD_NEXT, "setenv");
	stack_unsetenv =
		(__typeof__(stack_unsetenv))real_dlsym()(RTLD_NEXT, "unsetenv");
	return stack_setenv && stack_unsetenv;
}

static void write_mark(void)
{
	char mark[64] = "";
	size_t length;

	for (unsigned int i = 0; i < GUARDED_STACKS; i++) {
		if (!(turned_off & ~users_too & 1u << i))
			continue;
		length = strlen(mark);
		snprintf(mark + length, sizeof(mark) - length, "%s%s",
			 length ? "," : "", known_stacks[i].guard);
	}
	if (*mark)
		stack_setenv(MARK, mark, 1);
	else
		stack_unsetenv(MARK);
}

static void turn_off(unsigned int wanted, unsigned int marked)
{
	for (unsigned int i = 0; i < GUARDED_STACKS; i++) {
		const struct stack *stack = &known_stacks[i];

		if (!(wanted & 1u << i))
			continue;
		if (!(marked & 1u << i) && stack_has_off_value(stack))
			users_too |= 1u << i;
		if (!stack_off_by(stack) && stack_on_by(stack))
			left_on |= 1u << i;
		if (stack_off_by(stack)) {
			/* By one before us, or by the user. */
			turned_off |= marked & 1u << i;
			continue;
		}
		/* The user wants it, and was told by mrcache run. */
		if (stack_on_by(stack))
			continue;
		stack_switch_off(stack);
		turned_off |= 1u << i;
	}
}

static void take_back(unsigned int marked)
{
	for (unsigned int i = 0; i < GUARDED_STACKS; i++)
		if (marked & 1u << i)
			stack_switch_back(&known_stacks[i]);
}

static void at_load(void)
{
	const char *enable = secure_getenv("MRCACHE_ENABLE"),
		   *mark = secure_getenv(MARK);
	unsigned int wanted, marked = 0;

	if (getauxval(AT_SECURE) || (enable && !strcmp(enable, "0")))
		return;
	/* With a value that makes no sense all are guarded. */
	guard_parse(secure_getenv("MRCACHE_GUARD"), &wanted);
	if (mark && !guard_parse(mark, &marked))
		marked = 0;
	marked &= wanted;
	if (!wanted || !find_functions())
		return;
	if (!can_guard())
		turn_off(wanted, marked);
	else if (marked)
		take_back(marked);
	if (mark || turned_off)
		write_mark();
}

void fallback_at_load(void)
{
	int saved = errno; /* programs begin with 0 */

	at_load();
	errno = saved;
}

unsigned int fallback_turned_off(void)
{
	return turned_off;
}

void fallback_text(char *text, size_t size)
{
	const char *separator = "";
	size_t length;

	*text = '\0';
	if (!turned_off)
		return;
	snprintf(text, size, "what cannot be guarded was turned off: ");
	for (unsigned int i = 0; i < GUARDED_STACKS; i++) {
		if (!(turned_off & 1u << i))
			continue;
		length = strlen(text);
		snprintf(text + length, size - length, "%s%s", separator,
			 known_stacks[i].name);
		separator = ", ";
	}
	length = strlen(text);
	snprintf(text + length, size - length, "'s own cache%s",
		 turned_off & (turned_off - 1) ? "s" : "");
}

void fallback_left_text(char *text, size_t size)
{
	size_t length;

	*text = '\0';
	for (unsigned int i = 0; i < GUARDED_STACKS; i++) {
		const struct stack_variable *by = stack_on_by(&known_stacks[i]);

		length = strlen(text);
		if (left_on & 1u << i && by)
			snprintf(
				text + length, size - length,
				"; %s's own cache is left on (%s), and may use stale memory",
				known_stacks[i].name, by->name);
	}
}
