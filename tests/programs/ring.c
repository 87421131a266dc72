/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ring: an MPI program that knows nothing of RDMA. A message goes round and
 * round the ranks, from and into one buffer in each; between messages every
 * rank changes its buffer's memory in a chosen way, and the receiver looks at
 * every byte.
 *
 * usage: ring WAY:MESSAGES:BYTES...
 *
 * One line of JSON for each argument. "registrations" are those of the whole
 * machine during it, as far as $RING_COUNTER (a file like kprobe_profile: name,
 * number, ...) says. Ends with 1 if any message was wrong.
 */
#include <errno.h>
#include <fcntl.h>
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * Buffers are far from where the kernel puts mappings, so that nothing else
 * gets the address while it is free.
 */
#define BUFFERS	 ((char *)0x100000000000)
#define DISTANCE ((size_t)1 << 30)
#define WALL	 ((size_t)4096)

struct buffer {
	char *addr;
	size_t size;
	int file; /* -1: anonymous memory */
};

static int rank, ranks;

static void die(const char *what)
{
	fprintf(stderr, "ring: rank %d: %s: %s\n", rank, what, strerror(errno));
	MPI_Abort(MPI_COMM_WORLD, 2);
	abort();
}

static void map(const struct buffer *b, int fixed)
{
	int kind = b->file < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;

	if (mmap(b->addr, b->size, PROT_READ | PROT_WRITE, kind | fixed,
		 b->file, 0) != b->addr)
		die("mmap");
}

/* --- ways to change memory --------------------------------------------------- */

static void way_none(const struct buffer *b)
{
	(void)b;
}

static void way_munmap(const struct buffer *b)
{
	if (munmap(b->addr, b->size))
		die("munmap");
	map(b, MAP_FIXED_NOREPLACE);
}

/* Not through the functions that communication libraries intercept. */
static void way_syscall(const struct buffer *b)
{
	long addr;

	if (syscall(SYS_munmap, b->addr, b->size))
		die("munmap");
	addr = syscall(SYS_mmap, b->addr, b->size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1,
		       0L);
	if (addr != (long)b->addr)
		die("mmap");
}

static void way_fixed(const struct buffer *b)
{
	map(b, MAP_FIXED);
}

static void way_madvise(const struct buffer *b)
{
	if (madvise(b->addr, b->size, MADV_DONTNEED))
		die("madvise");
}

/* It grows, and cannot where it is. */
static void way_mremap(const struct buffer *b)
{
	char *wall = b->addr + b->size, *moved;

	if (mmap(wall, WALL, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		 -1, 0) != wall)
		die("mmap");
	moved = mremap(b->addr, b->size, 2 * b->size, MREMAP_MAYMOVE);
	if (moved == MAP_FAILED || moved == b->addr)
		die("mremap");
	map(b, MAP_FIXED_NOREPLACE);
	if (munmap(moved, 2 * b->size) || munmap(wall, WALL))
		die("munmap");
}

/* No call that names the address at all: the file loses its pages. */
static void way_punch(const struct buffer *b)
{
	if (fallocate(b->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
		      (off_t)b->size))
		die("fallocate");
}

static const struct way {
	const char *name;
	void (*change)(const struct buffer *b);
	int file; /* memory is a file's */
} ways[] = {
	{"none", way_none, 0},	     {"munmap", way_munmap, 0},
	{"syscall", way_syscall, 0}, {"fixed", way_fixed, 0},
	{"madvise", way_madvise, 0}, {"mremap", way_mremap, 0},
	{"punch", way_punch, 1},
};

static const struct way *find_way(const char *name, size_t length)
{
	for (size_t i = 0; i < sizeof(ways) / sizeof(*ways); i++)
		if (strlen(ways[i].name) == length &&
		    !strncmp(ways[i].name, name, length))
			return &ways[i];
	return NULL;
}

/* --- messages ------------------------------------------------------------------ */

/* No two rounds have the same word in the same place. */
static uint64_t word(unsigned int round, size_t i)
{
	return (round + 1) * 0x9e3779b97f4a7c15u + i;
}

static void fill(const struct buffer *b, unsigned int round)
{
	uint64_t *words = (uint64_t *)b->addr;

	for (size_t i = 0; i < b->size / sizeof(*words); i++)
		words[i] = word(round, i);
}

static int is_right(const struct buffer *b, unsigned int round)
{
	const uint64_t *words = (const uint64_t *)b->addr;

	for (size_t i = 0; i < b->size / sizeof(*words); i++)
		if (words[i] != word(round, i))
			return 0;
	return 1;
}

/* All ranks are here, and nobody has begun what comes next. */
static long registrations(void)
{
	const char *path = getenv("RING_COUNTER");
	long count = -1;
	FILE *file;

	MPI_Barrier(MPI_COMM_WORLD);
	if (rank == 0 && path) {
		file = fopen(path, "re");
		if (!file || fscanf(file, "%*s %ld", &count) != 1)
			die(path);
		fclose(file);
	}
	MPI_Barrier(MPI_COMM_WORLD);
	return count;
}

/* Returns the number of wrong messages, on every rank. */
static int play(const struct way *way, unsigned int rounds, struct buffer *b)
{
	int mine = 0, wrong = 0;
	long before, after;

	b->file = -1;
	if (way->file) {
		b->file = memfd_create("ring", MFD_CLOEXEC);
		if (b->file < 0 || ftruncate(b->file, (off_t)b->size))
			die("memfd_create");
	}
	map(b, MAP_FIXED_NOREPLACE);

	before = registrations();
	for (unsigned int i = 0; i < rounds; i++) {
		int from = (int)(i % (unsigned int)ranks);
		int to = (from + 1) % ranks;

		if (i)
			way->change(b);
		/* The receiver's memory is there, and is not what will come. */
		fill(b, rank == from ? i : i + rounds);
		if (rank == from)
			MPI_Send(b->addr, (int)b->size, MPI_BYTE, to, 0,
				 MPI_COMM_WORLD);
		if (rank == to) {
			MPI_Recv(b->addr, (int)b->size, MPI_BYTE, from, 0,
				 MPI_COMM_WORLD, MPI_STATUS_IGNORE);
			mine += !is_right(b, i);
		}
	}
	after = registrations();

	munmap(b->addr, b->size);
	if (b->file >= 0)
		close(b->file);
	MPI_Allreduce(&mine, &wrong, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
	if (rank == 0) {
		printf("{\"way\":\"%s\",\"messages\":%u,\"bytes\":%zu,"
		       "\"wrong\":%d,\"registrations\":%ld}\n",
		       way->name, rounds, b->size, wrong, after - before);
		fflush(stdout);
	}
	return wrong;
}

/* WAY:MESSAGES:BYTES */
static const struct way *parse(const char *arg, unsigned int *rounds,
			       size_t *size)
{
	size_t length = strcspn(arg, ":");

	if (sscanf(arg + length, ":%u:%zu", rounds, size) != 2 ||
	    *size > DISTANCE / 2)
		return NULL;
	return find_way(arg, length);
}

int main(int argc, char **argv)
{
	struct buffer b = {.addr = BUFFERS};
	const struct way *way;
	unsigned int rounds;
	int wrong = 0;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &ranks);
	for (int i = 1; i < argc; i++, b.addr += DISTANCE) {
		way = parse(argv[i], &rounds, &b.size);
		if (!way || ranks < 2) {
			if (rank == 0)
				fputs("usage: ring WAY:MESSAGES:BYTES..., "
				      "in two ranks or more\n",
				      stderr);
			MPI_Finalize();
			return 2;
		}
		wrong += play(way, rounds, &b);
	}
	MPI_Finalize();
	return wrong > 0;
}
