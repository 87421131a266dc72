/* SPDX-License-Identifier: BSD-2-Clause */
/* A plug-in that has the library in it is unloaded before its threads end. */
#include "support/case.h"

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static pthread_barrier_t used, unloaded;

static void *use(void *arg)
{
	int (*plugin_use)(void) = (int (*)(void))arg;
	int ret = plugin_use();

	pthread_barrier_wait(&used);
	pthread_barrier_wait(&unloaded);
	return (void *)(intptr_t)ret;
}

/* In a process of its own, which may not survive it. */
static int run(void)
{
	void *plugin = dlopen(PLUGIN, RTLD_NOW | RTLD_LOCAL), *ret;
	void *function = plugin ? dlsym(plugin, "plugin_use") : NULL;
	pthread_t thread;

	if (!function)
		return 1;
	pthread_barrier_init(&used, NULL, 2);
	pthread_barrier_init(&unloaded, NULL, 2);
	if (pthread_create(&thread, NULL, use, function))
		return 2;
	pthread_barrier_wait(&used);
	/* Still there, it would show nothing. */
	if (dlclose(plugin) || dlopen(PLUGIN, RTLD_NOW | RTLD_NOLOAD))
		return 3;
	pthread_barrier_wait(&unloaded);
	return pthread_join(thread, &ret) || ret ? 4 : 0;
}

CASE(a_thread_ends_after_the_library_is_gone)
{
	int status;
	pid_t pid;

	pid = fork();
	if (!pid) {
		signal(SIGSEGV, SIG_DFL); /* cmocka's is for its own */
		_exit(run());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

int main(void)
{
	return run_cases(NULL, NULL);
}
