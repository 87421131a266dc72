/* SPDX-License-Identifier: BSD-2-Clause */
#include "plan.h"

#include "installed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool plan_mode_of(const char *name, enum plan_mode *mode)
{
	static const char *const names[] = {[PLAN_GUARD] = "guard",
					    [PLAN_OFF] = "off",
					    [PLAN_KEEP] = "keep"};

	for (unsigned int i = 0; i < sizeof(names) / sizeof(*names); i++) {
		if (strcmp(name, names[i]) != 0)
			continue;
		*mode = (enum plan_mode)i;
		return true;
	}
	return false;
}

static void decide(struct plan *plan, unsigned int i)
{
	const struct stack *stack = &known_stacks[i];
	const struct stack_variable *off = stack_off_by(stack),
				    *on = stack_on_by(stack);
	bool guarded = plan->mode == PLAN_GUARD && plan->guards &&
		       plan->allowed & 1u << i && !stack_is_unwanted(stack);

	if (off) {
		plan->stacks[i].state = STACK_OFF;
		plan->stacks[i].by = off;
	} else if (guarded) {
		plan->stacks[i].state = STACK_GUARDED;
	} else if (on) {
		plan->stacks[i].state = STACK_ON;
		plan->stacks[i].by = on;
	} else if (!stack_keeps(stack)) {
		plan->stacks[i].state = STACK_NOTHING;
	} else {
		plan->stacks[i].state =
			plan->mode == PLAN_KEEP ? STACK_ON : STACK_OFF;
	}
}

void plan_make(struct plan *plan, enum plan_mode mode, bool guards, bool asked)
{
	*plan = (struct plan){.mode = mode, .guards = guards, .asked = asked};
	guard_parse(asked ? NULL : getenv("MRCACHE_GUARD"), &plan->allowed);
	for (unsigned int i = 0; i < STACKS; i++)
		decide(plan, i);
}

void plan_export(const struct plan *plan)
{
	if (plan->mode != PLAN_GUARD || !plan->guards)
		setenv("MRCACHE_GUARD", "0", 1);
	else if (plan->asked && getenv("MRCACHE_GUARD"))
		setenv("MRCACHE_GUARD", "1", 1);
	for (unsigned int i = 0; i < STACKS; i++) {
		if (plan->stacks[i].state != STACK_OFF)
			continue;
		if (plan->stacks[i].by)
			stack_switch_extras_off(&known_stacks[i]);
		else
			stack_switch_off(&known_stacks[i]);
	}
}

/* --- in words ------------------------------------------------------------------ */

/* One that is neither installed nor spoken of by the user is left out. */
static bool is_shown(const struct plan *plan, unsigned int i, bool all)
{
	return plan->stacks[i].state != STACK_NOTHING &&
	       (all || plan->stacks[i].by || installed(&known_stacks[i]));
}

static void add(char *text, size_t size, const char *words)
{
	size_t length = strlen(text);

	snprintf(text + length, size - length, "%s", words);
}

/* "; UCX, libfabric guarded": those in this state by our decision. */
static void add_group(const struct plan *plan, enum plan_state state,
		      const char *words, bool all, char *text, size_t size)
{
	const char *separator = *text ? "; " : "";
	bool some = false;

	for (unsigned int i = 0; i < STACKS; i++) {
		if (plan->stacks[i].state != state || plan->stacks[i].by ||
		    !is_shown(plan, i, all))
			continue;
		add(text, size, some ? ", " : separator);
		add(text, size, known_stacks[i].name);
		some = true;
	}
	if (some)
		add(text, size, words);
}

static void add_users(const struct plan *plan, unsigned int i, char *text,
		      size_t size)
{
	const struct stack_variable *by = plan->stacks[i].by;
	char words[256];

	snprintf(words, sizeof(words), "%s%s %s (%s=%.64s)", *text ? "; " : "",
		 known_stacks[i].name,
		 plan->stacks[i].state == STACK_OFF ? "off" : "LEFT ON",
		 by->name, getenv(by->name));
	add(text, size, words);
}

void plan_text(const struct plan *plan, bool all, char *text, size_t size)
{
	*text = '\0';
	add_group(plan, STACK_GUARDED, " guarded", all, text, size);
	add_group(plan, STACK_OFF, " off", all, text, size);
	add_group(plan, STACK_ON, " LEFT ON, which may use stale memory", all,
		  text, size);
	for (unsigned int i = 0; i < STACKS; i++)
		if (plan->stacks[i].by)
			add_users(plan, i, text, size);
}

bool plan_is_notable(const struct plan *plan)
{
	for (unsigned int i = 0; i < STACKS; i++)
		if (plan->stacks[i].state != STACK_GUARDED &&
		    is_shown(plan, i, false))
			return true;
	return false;
}
