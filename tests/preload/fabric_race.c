/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A program that opens its first fabric while another thread loads a library
 * ($FABRIC_EARLY) that does so in its constructor.
 */
#include "subject.h"

#include <dlfcn.h>
#include <pthread.h>
#include <unistd.h>

int fi_fabric(void *attr, void **fabric, void *context);

static void *load(void *arg)
{
	(void)arg;
	while (!getenv("FABRIC_BEGUN"))
		usleep(1000);
	CHECK(dlopen(getenv("FABRIC_EARLY"), RTLD_NOW | RTLD_LOCAL));
	return NULL;
}

static void race(void)
{
	pthread_t thread;

	CHECK(!setenv("FABRIC_RACE", "1", 1));
	CHECK(!pthread_create(&thread, NULL, load, NULL));
	CHECK_EQUAL(fi_fabric(NULL, NULL, NULL), -61);
	CHECK(!pthread_join(thread, NULL));
	CHECK_EQUAL(fi_fabric(NULL, NULL, NULL), -61);
}

static const struct mode modes[] = {{"race", race}, {NULL, NULL}};

int main(int argc, char **argv)
{
	return run_mode(modes, argc > 1 ? argv[1] : NULL);
}
