/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bench-mpi: what an MPI program does with its buffers, a cell at a time. It
 * knows nothing of RDMA; bench/mpi.py starts it, once for each way to run a
 * stack, and gives orders in turn.
 *
 * usage: bench-mpi DIRECTORY, in two ranks
 *
 * Every rank takes its orders from the pipe DIRECTORY/RANK, a line each, and
 * rank 0 answers in DIRECTORY/answers:
 *
 *   size BYTES              messages and the kept buffers have so many bytes
 *                           from now on
 *   PATTERN MEMORY ROUNDS   one cell
 *   loop none N             2N instructions in each rank, for that of one
 *
 * An answer has the wrong messages of both ranks, the nanoseconds, and how
 * often the two ranks have polled. The time is from when both have begun until
 * both are done, and is all that the program does: getting its buffers,
 * filling them, the messages, looking at every byte, and giving buffers back.
 *
 * A rank that waits yields after each poll, so that ranks on one processor
 * (QEMU's -icount) do not spend their time slices waiting for each other.
 */
#include <errno.h>
#include <mpi.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define KEPT	16 /* buffers that are kept */
#define WINDOW	2  /* messages under way in each direction, if many are */
#define SLOTS	4  /* buffers that a round has at most */
#define LARGEST ((size_t)4 << 20)
#define IDLE	SLOTS /* a tag that no message has */

/* Far from where the kernel puts mappings. */
#define RAW ((char *)0x100000000000)

/* Contents start at one of so many places of one text. */
#define TEXTS 4096u
#define STEP  64u

static int rank;
static size_t size;
static char *kept[KEPT];
static char *text;
static unsigned int rounds; /* since the start; the same in all ranks */
static unsigned long polls;
static int wrong;

static char *window_memory;
static MPI_Win window = MPI_WIN_NULL;

static void die(const char *what)
{
	fprintf(stderr, "bench-mpi: rank %d: %s: %s\n", rank, what,
		strerror(errno));
	MPI_Abort(MPI_COMM_WORLD, 2);
	abort();
}

/* ---- what is sent -------------------------------------------------------------- */

/* No byte pattern comes twice within 64 bytes of two places. */
static void write_text(void)
{
	size_t words = (LARGEST + (size_t)TEXTS * STEP) / sizeof(uint64_t);
	uint64_t *word = malloc(words * sizeof(*word));

	if (!word)
		die("malloc");
	for (size_t i = 0; i < words; i++) {
		uint64_t x = (i + 1) * 0x9e3779b97f4a7c15u;

		x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
		word[i] = x ^ (x >> 27);
	}
	text = (char *)word;
}

/* What rank WHO sends from its slot of this round. */
static const char *sent(int who, unsigned int slot)
{
	unsigned int n = (rounds * SLOTS + slot) * 2 + (unsigned int)who;

	return text + (size_t)(n % TEXTS) * STEP;
}

static void fill(char *buffer, unsigned int slot)
{
	memcpy(buffer, sent(rank, slot), size);
}

/*
 * What is wrong is told on standard error: where it begins, whether nothing came
 * at all, and whether it was only late.
 */
static void compare(const char *buffer, const char *right, size_t length)
{
	const struct timespec while_it_comes = {.tv_nsec = 200000000};
	size_t at = 0, zeros = 0;

	if (!memcmp(buffer, right, length))
		return;
	wrong++;
	while (at < length && buffer[at] == right[at])
		at++;
	for (size_t i = at; i < length; i++)
		zeros += !buffer[i];
	nanosleep(&while_it_comes, NULL);
	fprintf(stderr,
		"bench-mpi: rank %d, round %u: wrong from byte %zu of %zu, %zu zeros; %s\n",
		rank, rounds, at, length, zeros,
		memcmp(buffer, right, length) ? "it stays so"
					      : "right 0.2 s later");
}

static void check(const char *buffer, unsigned int slot)
{
	compare(buffer, sent(!rank, slot), size);
}

/* ---- buffers ------------------------------------------------------------------- */

static char *get_mapping(unsigned int slot)
{
	char *addr;

	(void)slot;
	addr = mmap(NULL, size, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (addr == MAP_FAILED)
		die("mmap");
	return addr;
}

static void put_mapping(char *buffer)
{
	if (munmap(buffer, size))
		die("munmap");
}

/* The same place each time, and by no function that libraries know of. */
static char *get_raw(unsigned int slot)
{
	char *addr = RAW + ((size_t)slot << 30);

	if (syscall(SYS_mmap, addr, size, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1,
		    0L) != (long)addr)
		die("mmap");
	return addr;
}

static void put_raw(char *buffer)
{
	if (syscall(SYS_munmap, buffer, size))
		die("munmap");
}

static char *get_allocated(unsigned int slot)
{
	char *addr = malloc(size);

	(void)slot;
	if (!addr)
		die("malloc");
	return addr;
}

static void put_allocated(char *buffer)
{
	free(buffer);
}

static char *get_same(unsigned int slot)
{
	return kept[slot];
}

static char *get_next(unsigned int slot)
{
	static unsigned int next;

	(void)slot;
	return kept[next++ % KEPT];
}

static void keep(char *buffer)
{
	(void)buffer;
}

static const struct memory {
	const char *name;
	char *(*get)(unsigned int slot);
	void (*put)(char *buffer);
} memories[] = {
	{"one", get_same, keep},
	{"sixteen", get_next, keep},
	{"malloc", get_allocated, put_allocated},
	{"mmap", get_mapping, put_mapping},
	{"raw", get_raw, put_raw},
};

/* ---- messages ------------------------------------------------------------------ */

static void wait_for(int count, MPI_Request *requests)
{
	MPI_Status statuses[2 * WINDOW];
	int done;

	for (;;) {
		MPI_Testall(count, requests, &done, statuses);
		if (done)
			return;
		polls++;
		sched_yield();
	}
}

static void meet(void)
{
	MPI_Request request;

	MPI_Ibarrier(MPI_COMM_WORLD, &request);
	wait_for(1, &request);
}

static void send(char *buffer, unsigned int slot, MPI_Request *request)
{
	MPI_Isend(buffer, (int)size, MPI_BYTE, !rank, (int)slot, MPI_COMM_WORLD,
		  request);
}

static void receive(char *buffer, unsigned int slot, MPI_Request *request)
{
	MPI_Irecv(buffer, (int)size, MPI_BYTE, !rank, (int)slot, MPI_COMM_WORLD,
		  request);
}

/* There and back, into and from one buffer. */
static void pingpong(char **b)
{
	MPI_Request request;

	for (int turn = 0; turn < 2; turn++) {
		if (turn == rank) {
			fill(b[0], 0);
			send(b[0], 0, &request);
			wait_for(1, &request);
		} else {
			receive(b[0], 0, &request);
			wait_for(1, &request);
			check(b[0], 0);
		}
	}
}

/* COUNT messages in each direction at once. */
static void both_ways(char **b, unsigned int count)
{
	MPI_Request requests[2 * WINDOW];

	for (unsigned int i = 0; i < count; i++)
		receive(b[count + i], i, &requests[i]);
	for (unsigned int i = 0; i < count; i++) {
		fill(b[i], i);
		send(b[i], i, &requests[count + i]);
	}
	wait_for((int)(2 * count), requests);
	for (unsigned int i = 0; i < count; i++)
		check(b[count + i], i);
}

static void bandwidth(char **b)
{
	both_ways(b, WINDOW);
}

static void exchange(char **b)
{
	both_ways(b, 1);
}

/* A half for each rank, the own one too. */
static void all_to_all(char **b)
{
	size_t half = size / 2;
	MPI_Request request;

	fill(b[0], 0);
	MPI_Ialltoall(b[0], (int)half, MPI_BYTE, b[1], (int)half, MPI_BYTE,
		      MPI_COMM_WORLD, &request);
	wait_for(1, &request);
	for (int who = 0; who < 2; who++)
		compare(b[1] + (size_t)who * half,
			sent(who, 0) + (size_t)rank * half, half);
}

/* From a buffer of rank 0 into the window of rank 1. */
static void put(char **b)
{
	MPI_Request request;

	if (rank == 0) {
		fill(b[0], 0);
		MPI_Rput(b[0], (int)size, MPI_BYTE, 1, 0, (int)size, MPI_BYTE,
			 window, &request);
		wait_for(1, &request);
		MPI_Win_flush(1, window);
	}
	meet();
	if (rank == 1) {
		MPI_Win_sync(window);
		check(window_memory, 0);
	}
	meet();
}

/* From the window of rank 1 into a buffer of rank 0. */
static void get(char **b)
{
	MPI_Request request;

	if (rank == 1) {
		fill(window_memory, 0);
		MPI_Win_sync(window);
	}
	meet();
	if (rank == 0) {
		MPI_Rget(b[0], (int)size, MPI_BYTE, 1, 0, (int)size, MPI_BYTE,
			 window, &request);
		wait_for(1, &request);
		/* Open MPI 4.1 over UCX may complete it before its data came. */
		MPI_Win_flush(1, window);
		check(b[0], 0);
	}
	meet();
}

static const struct pattern {
	const char *name;
	void (*round)(char **b);
	unsigned int slots[2]; /* buffers that rank 0 and rank 1 need */
} patterns[] = {
	{"pingpong", pingpong, {1, 1}},
	{"bandwidth", bandwidth, {2 * WINDOW, 2 * WINDOW}},
	{"exchange", exchange, {2, 2}},
	{"alltoall", all_to_all, {2, 2}},
	{"put", put, {1, 0}},
	{"get", get, {1, 0}},
};

/* ---- orders -------------------------------------------------------------------- */

static void set_size(size_t bytes)
{
	if (window != MPI_WIN_NULL) {
		MPI_Win_unlock_all(window);
		MPI_Win_free(&window);
		free(window_memory);
		for (int i = 0; i < KEPT; i++)
			put_mapping(kept[i]);
	}
	size = bytes;
	for (int i = 0; i < KEPT; i++)
		kept[i] = get_mapping(0);
	window_memory = aligned_alloc((size_t)sysconf(_SC_PAGESIZE), size);
	if (!window_memory)
		die("aligned_alloc");
	MPI_Win_create(window_memory, (MPI_Aint)size, 1, MPI_INFO_NULL,
		       MPI_COMM_WORLD, &window);
	MPI_Win_lock_all(MPI_MODE_NOCHECK, window);
}

static void play(const struct pattern *pattern, const struct memory *memory,
		 unsigned int count)
{
	unsigned int slots = pattern->slots[rank];
	char *b[SLOTS];

	for (unsigned int i = 0; i < count; i++, rounds++) {
		for (unsigned int slot = 0; slot < slots; slot++)
			b[slot] = memory->get(slot);
		pattern->round(b);
		for (unsigned int slot = slots; slot-- > 0;)
			memory->put(b[slot]);
	}
}

/* Each time around has two. */
static void loop(unsigned long count)
{
#if defined(__x86_64__)
	__asm__ volatile("1: dec %0; jnz 1b" : "+r"(count) : : "cc");
#elif defined(__aarch64__)
	__asm__ volatile("1: subs %0, %0, #1; b.ne 1b" : "+r"(count) : : "cc");
#else /* more or less */
	while (count--)
		__asm__ volatile("");
#endif
}

static const struct pattern *find_pattern(const char *name)
{
	for (size_t i = 0; i < sizeof(patterns) / sizeof(*patterns); i++)
		if (!strcmp(patterns[i].name, name))
			return &patterns[i];
	return NULL;
}

static const struct memory *find_memory(const char *name)
{
	for (size_t i = 0; i < sizeof(memories) / sizeof(*memories); i++)
		if (!strcmp(memories[i].name, name))
			return &memories[i];
	return NULL;
}

static int64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_RAW, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void obey(const char *order, FILE *answers)
{
	char first[16], second[16];
	unsigned int count = 0;
	const struct pattern *pattern;
	const struct memory *memory;
	int64_t began, took;
	long mine[2], all[2];
	size_t bytes;

	polls = 0;
	wrong = 0;
	if (sscanf(order, "size %zu", &bytes) == 1) {
		if (!bytes || bytes > LARGEST)
			die(order);
		began = now();
		set_size(bytes);
	} else {
		if (sscanf(order, "%15s %15s %u", first, second, &count) != 3)
			die(order);
		pattern = find_pattern(first);
		memory = find_memory(second);
		meet();
		polls = 0;
		began = now();
		if (pattern && memory)
			play(pattern, memory, count);
		else if (!strcmp(first, "loop") && count)
			loop(count);
		else
			die(order);
	}
	meet();
	took = now() - began;
	mine[0] = wrong;
	mine[1] = (long)polls;
	MPI_Reduce(mine, all, 2, MPI_LONG, MPI_SUM, 0, MPI_COMM_WORLD);
	if (answers) {
		fprintf(answers, "%ld %lld %ld\n", all[0], (long long)took,
			all[1]);
		fflush(answers);
	}
}

static FILE *open_pipe(const char *directory, const char *name,
		       const char *mode)
{
	char path[256];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	file = fopen(path, mode);
	if (!file)
		die(path);
	return file;
}

int main(int argc, char **argv)
{
	char line[64], name[16];
	FILE *orders, *answers = NULL;
	int ranks;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &ranks);
	if (argc != 2 || ranks != 2) {
		if (rank == 0)
			fputs("usage: bench-mpi DIRECTORY, in two ranks\n",
			      stderr);
		MPI_Finalize();
		return 2;
	}
	write_text();
	snprintf(name, sizeof(name), "%d", rank);
	orders = open_pipe(argv[1], name, "re");
	if (rank == 0)
		answers = open_pipe(argv[1], "answers", "we");
	while (fgets(line, sizeof(line), orders))
		obey(line, answers);
	fclose(orders);
	if (answers)
		fclose(answers);
	if (window != MPI_WIN_NULL) {
		MPI_Win_unlock_all(window);
		MPI_Win_free(&window);
	}
	MPI_Finalize();
	return 0;
}
