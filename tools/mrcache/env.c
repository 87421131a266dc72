/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * mrcache env: what `run` would export, for module files, prologs of batch
 * systems, containers, and hosts that are not this one.
 */
#include "command.h"
#include "job.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum key { SH = 256, CSH, JSON = 'j', ELSEWHERE = 'e' };

struct env {
	struct job job;
	int form; /* one of the keys */
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct env *env = state->input;

	(void)arg;
	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &env->job;
		return 0;
	case SH:
	case CSH:
	case JSON:
		env->form = key;
		return 0;
	case ELSEWHERE:
		env->job.elsewhere = true;
		return 0;
	case 'h':
		argp_state_help(state, stdout, ARGP_HELP_STD_HELP);
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "env takes no arguments");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* Names and values as they were; NULL: no memory. */
static char **copy_environment(void)
{
	size_t n = 0;
	char **copy;

	while (environ[n])
		n++;
	copy = calloc(n + 1, sizeof(*copy));
	for (size_t i = 0; copy && i < n; i++) {
		copy[i] = strdup(environ[i]);
		if (!copy[i]) {
			complain("%s", strerror(ENOMEM));
			exit(STATUS_NO);
		}
	}
	return copy;
}

static bool has(char **entries, const char *entry)
{
	for (; *entries; entries++)
		if (!strcmp(*entries, entry))
			return true;
	return false;
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Left bare if that is the same: a prolog of Slurm takes quotes for a part. */
static bool is_plain(const char *value)
{
	return *value && !value[strspn(value, "abcdefghijklmnopqrstuvwxyz"
					      "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
					      "0123456789_./:=,+-@%")];
}

static void print_quoted(const char *value, bool csh)
{
	if (is_plain(value)) {
		fputs(value, stdout);
		return;
	}
	putchar('\'');
	for (; *value; value++) {
		if (*value == '\'')
			fputs("'\\''", stdout);
		else if (csh && (*value == '!' || *value == '\n'))
			printf("\\%c", *value);
		else
			putchar(*value);
	}
	putchar('\'');
}

/* False if it cannot be written in this form. */
static bool print_entry(const char *entry, int form, json_t *object)
{
	size_t length = strcspn(entry, "=");
	const char *value = entry + length + 1;
	char *name;
	bool done;

	if (form != JSON) {
		printf(form == CSH ? "setenv %.*s " : "export %.*s=",
		       (int)length, entry);
		print_quoted(value, form == CSH);
		/* eval of csh makes one line of all. */
		puts(form == CSH ? ";" : "");
		return true;
	}
	name = strndup(entry, length);
	done = name && !json_object_set_new(object, name, json_string(value));
	if (!done)
		complain("JSON is UTF-8, and the value of %.*s is not",
			 (int)length, entry);
	free(name);
	return done;
}

/* All of them, or in JSON none. */
static int print_changes(char **before, int form)
{
	json_t *object = json_object();
	bool done = true;
	size_t n = 0;

	for (char **entry = environ; *entry; entry++)
		if (!has(before, *entry))
			environ[n++] = *entry;
	environ[n] = NULL;
	if (n)
		qsort(environ, n, sizeof(*environ), compare);
	for (char **entry = environ; *entry; entry++)
		done &= print_entry(*entry, form, object);
	if (form == JSON && done) {
		json_dumpf(object, stdout, JSON_INDENT(2) | JSON_SORT_KEYS);
		putchar('\n');
	}
	json_decref(object);
	return done ? 0 : STATUS_NO;
}

int env_main(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"sh", SH, NULL, 0,
		 "As lines for a shell: export NAME=VALUE (default)", 0},
		{"csh", CSH, NULL, 0, "As lines for csh: setenv NAME VALUE", 0},
		{"json", JSON, NULL, 0, "As an object of JSON", 0},
		{"elsewhere", ELSEWHERE, NULL, 0,
		 "For hosts other than this one, whether or not this one has "
		 "the driver: where it is missing the preload library turns "
		 "off what it cannot guard",
		 0},
		{NULL, 'h', NULL, OPTION_HIDDEN, NULL, 0},
		{0},
	};
	static const struct argp argp = {
		.options = options,
		.parser = parse,
		.doc = "Prints the environment that mrcache run would give a "
		       "program here, as far as it is not set already.\v"
		       "Exit status: 0, or 1 if there is no preload library, if "
		       "the value of --linger, --monitor or --max-bytes makes "
		       "no sense, or if a value is not UTF-8 with --json. A "
		       "bad variable is reported and costs the cache, not the "
		       "status.",
		.children = job_children,
	};
	/* They last as long as the process. */
	static struct env env = {.form = SH};
	static char **before;

	before = copy_environment();
	if (!before) {
		complain("%s", strerror(ENOMEM));
		return STATUS_NO;
	}
	parse_arguments(&argp, argc, argv, STATUS_USAGE, &env);
	if (job_prepare(&env.job))
		return STATUS_NO;
	job_say(&env.job);
	return finish_output(print_changes(before, env.form));
}
