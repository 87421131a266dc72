/* SPDX-License-Identifier: BSD-2-Clause */
#define _GNU_SOURCE
#include "purge.h"

#include "mrcache.h"
#include "rdma.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARGUMENT "--purge-with"
#define THP	 "/sys/kernel/mm/transparent_hugepage/enabled"

const struct purge_allocator purge_allocators[PURGE_ALLOCATORS] = {
	{"glibc", NULL},
	{"jemalloc", "libjemalloc.so.2"},
	{"tcmalloc", "libtcmalloc_minimal.so.4"},
};

/* ---- in the process ------------------------------------------------------------- */

/* Each buffer has a neighbour. */
static char *buffers[PURGE_BUFFERS], *neighbours[PURGE_BUFFERS];
static size_t n_buffers;
/* What the allocator can give back one of. */
static size_t page;

/* All that is free goes back to the system. */
static void purge_glibc(void)
{
	malloc_trim(0);
}

static int (*mallctl)(const char *, void *, size_t *, void *, size_t);

static void purge_jemalloc(void)
{
	mallctl("thread.tcache.flush", NULL, NULL, NULL, 0);
	/* 4096: of all arenas. */
	mallctl("arena.4096.purge", NULL, NULL, NULL, 0);
}

static void (*tcmalloc_idle)(void), (*tcmalloc_release)(void);

static void purge_tcmalloc(void)
{
	tcmalloc_idle();
	tcmalloc_release();
}

static void (*purge)(void);

static const char *find_purge(const char *name)
{
	void *volatile room;
	size_t size = sizeof(page);

	page = (size_t)sysconf(_SC_PAGESIZE);
	*(void **)&mallctl = dlsym(RTLD_DEFAULT, "mallctl");
	*(void **)&tcmalloc_idle =
		dlsym(RTLD_DEFAULT, "MallocExtension_MarkThreadIdle");
	*(void **)&tcmalloc_release =
		dlsym(RTLD_DEFAULT, "MallocExtension_ReleaseFreeMemory");
	if (!strcmp(name, "glibc")) {
		/* One heap, which huge pages fit in, trimmed when it is asked. */
		mallopt(M_MMAP_THRESHOLD, 1 << 30);
		mallopt(M_TRIM_THRESHOLD, 1 << 30);
		mallopt(M_TOP_PAD, 64 << 20);
		purge = purge_glibc;
	} else if (!strcmp(name, "jemalloc") && mallctl) {
		purge = purge_jemalloc;
		/* It has pages of its own, of up to 64 KiB. */
		mallctl("arenas.page", &page, &size, NULL, 0);
	} else if (tcmalloc_idle && tcmalloc_release) {
		/* It grows by less than a huge page, unless at once. */
		room = malloc((size_t)512 << 20);
		free(room);
		purge = purge_tcmalloc;
	}
	/* As many bytes in all. */
	n_buffers = PURGE_BUFFERS * 4096 / page;
	return purge ? NULL : "the allocator could not be preloaded";
}

static unsigned int huge_kib(void)
{
	FILE *f = fopen("/proc/self/smaps_rollup", "re");
	unsigned int kib = 0;
	char line[256];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "AnonHugePages: %u", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib;
}

static bool allocate(size_t size)
{
	for (size_t i = 0; i < n_buffers; i++) {
		buffers[i] = malloc(size);
		neighbours[i] = malloc(size);
		if (!buffers[i] || !neighbours[i])
			return false;
		memset(buffers[i], 1, size);
		memset(neighbours[i], 1, size);
	}
	return true;
}

static bool use_all(struct mrcache *cache, struct ibv_pd *pd, size_t size)
{
	for (size_t i = 0; i < n_buffers; i++) {
		struct ibv_mr *mr = mrcache_reg_mr(cache, pd, buffers[i], size,
						   IBV_ACCESS_LOCAL_WRITE);

		if (!mr || mrcache_dereg_mr(cache, mr))
			return false;
	}
	return true;
}

/*
 * Larger ones in each round: what was freed in those before has no room for them,
 * nor a huge page, until it is unmapped. So these get new memory.
 */
static const char *play_round(struct mrcache *cache, struct ibv_pd *pd,
			      bool calm, unsigned int round, unsigned int *huge)
{
	/* A page for each, and a huge page has room for many. */
	size_t size = (4 + round) * page;
	unsigned int kib = huge_kib();

	if (!allocate(size))
		return "no memory";
	kib = huge_kib() - kib;
	if (kib < *huge)
		*huge = kib;
	if (!use_all(cache, pd, size))
		return "cannot register";
	for (size_t i = 0; i < n_buffers; i++)
		free(neighbours[i]);
	if (!calm)
		purge();
	if (!use_all(cache, pd, size) || !use_all(cache, pd, size))
		return "cannot register";
	return NULL;
}

static const char *play(struct ibv_pd *pd, enum purge_way way,
			unsigned int rounds, unsigned int *huge)
{
	struct mrcache_stats before, after;
	struct mrcache_attr attr;
	struct mrcache *cache;
	const char *why;

	mrcache_attr_init(&attr);
	attr.monitor = "ummunotify";
	attr.fingerprint = way == PURGE_VERIFIED;
	cache = mrcache_open(&attr);
	if (!cache)
		return "no cache";
	why = play_round(cache, pd, way == PURGE_CALM, 0, huge);
	mrcache_get_stats(cache, &before, sizeof(before));
	for (unsigned int i = 1; !why && i <= rounds; i++)
		why = play_round(cache, pd, way == PURGE_CALM, i, huge);
	mrcache_get_stats(cache, &after, sizeof(after));
	if (mrcache_close(cache))
		return "something is registered still";
	if (!why)
		printf("%zu %" PRIu64 " %" PRIu64 " %u\n", n_buffers,
		       after.hits - before.hits + after.misses - before.misses,
		       after.hits - before.hits, *huge);
	return why;
}

void purge_main(int argc, char **argv)
{
	unsigned int huge = -1U;
	struct rdma rdma;
	const char *why;

	if (argc != 5 || strcmp(argv[1], ARGUMENT) != 0)
		return;
	why = find_purge(argv[2]);
	if (!why && rdma_open(&rdma, 4096))
		why = "no RDMA device";
	if (!why) {
		why = play(rdma.pd, (enum purge_way)atoi(argv[3]),
			   (unsigned int)atoi(argv[4]), &huge);
		rdma_close(&rdma);
	}
	if (why)
		printf("%s\n", why);
	fflush(stdout);
	_exit(why != NULL);
}

/* ---- who runs it ------------------------------------------------------------------ */

/* Huge pages wherever they fit: "always", or what was set before. */
static void set_thp(const char *setting, char *before, size_t size)
{
	int fd = open(THP, O_RDWR | O_CLOEXEC);
	char text[128] = "", *chosen, *end = NULL;
	ssize_t done = -1;

	if (before)
		*before = '\0';
	if (fd < 0)
		return;
	if (read(fd, text, sizeof(text) - 1) > 0 && before) {
		chosen = strchr(text, '[');
		if (chosen)
			end = strchr(chosen, ']');
		if (end)
			snprintf(before, size, "%.*s", (int)(end - chosen - 1),
				 chosen + 1);
	}
	if (*setting)
		done = pwrite(fd, setting, strlen(setting), 0);
	(void)done; /* seen by how much is in huge pages */
	close(fd);
}

static void become_it(const struct purge_allocator *allocator,
		      enum purge_way way, unsigned int rounds, int output)
{
	char number[16], which[16];

	snprintf(which, sizeof(which), "%d", (int)way);
	snprintf(number, sizeof(number), "%u", rounds);
	dup2(output, STDOUT_FILENO);
	if (allocator->library)
		setenv("LD_PRELOAD", allocator->library, 1);
	execl("/proc/self/exe", "purge", ARGUMENT, allocator->name, which,
	      number, (char *)NULL);
	_exit(127);
}

/* What it printed: figures, or why there are none. */
static const char *read_result(int fd, enum purge_way way, struct purge *result)
{
	static char line[128];
	FILE *output = fdopen(fd, "r");
	unsigned int huge;

	*line = '\0';
	if (!output || !fgets(line, sizeof(line), output))
		strcpy(line, "it could not be run");
	if (output)
		fclose(output);
	line[strcspn(line, "\n")] = '\0';
	if (sscanf(line, "%u %u %u %u", &result->buffers, &result->uses[way],
		   &result->hits[way], &huge) != 4)
		return line;
	if (huge < result->huge_kib)
		result->huge_kib = huge;
	return NULL;
}

static const char *run_way(const struct purge_allocator *allocator,
			   enum purge_way way, struct purge *result)
{
	const char *why;
	int pipes[2];
	pid_t child;

	if (pipe2(pipes, O_CLOEXEC))
		return "no pipe";
	child = fork();
	if (!child)
		become_it(allocator, way, result->rounds, pipes[1]);
	close(pipes[1]);
	why = read_result(pipes[0], way, result);
	if (child > 0)
		waitpid(child, NULL, 0);
	return why;
}

const char *purge_run(const struct purge_allocator *allocator,
		      unsigned int rounds, struct purge *result)
{
	const char *why = NULL;
	char before[32];

	*result = (struct purge){.rounds = rounds, .huge_kib = -1U};
	set_thp("always", before, sizeof(before));
	for (int way = 0; way < PURGE_WAYS && !why; way++)
		why = run_way(allocator, (enum purge_way)way, result);
	set_thp(before, NULL, 0);
	if (!why && !result->huge_kib)
		why = "this kernel gives no huge pages";
	return why;
}
