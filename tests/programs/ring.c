/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ring: an MPI program that knows nothing of RDMA. A message goes round and
 * round the ranks, from and into one buffer in each; between messages every
 * rank changes its buffer's memory in a chosen way, and the receiver looks at
 * every byte.
 *
 * usage: ring WAY:MESSAGES:BYTES[:KIND]...
 *
 * KIND is how messages go: send (the default), put or get through a window that
 * is made for each, or threads: sent by two threads at a time in each rank,
 * which have buffers and a communicator of their own.
 *
 * One line of JSON for each argument. "registrations" are those of the whole
 * machine during it, as far as $RING_COUNTER (a file like kprobe_profile: name,
 * number, ...) says. Ends with 1 if any message was wrong.
 */
#include <errno.h>
#include <fcntl.h>
#include <mpi.h>
#include <pthread.h>
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
#define WALL	 ((size_t)sysconf(_SC_PAGESIZE))
#define THREADS	 2
/* Of a buffer inside a mapping: not whole huge pages, which the mapping has. */
#define MARGIN ((size_t)3 << 19)

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
	int file;      /* memory is a file's */
	size_t margin; /* of the mapping around it, before and behind */
} ways[] = {
	{"none", way_none, 0, 0},     {"inside", way_none, 0, MARGIN},
	{"munmap", way_munmap, 0, 0}, {"syscall", way_syscall, 0, 0},
	{"fixed", way_fixed, 0, 0},   {"madvise", way_madvise, 0, 0},
	{"mremap", way_mremap, 0, 0}, {"punch", way_punch, 1, 0},
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

/* What goes from one rank to the other; all ranks of comm call it. */
typedef void carry_fn(MPI_Comm comm, const struct buffer *b, int from, int to);

static void carry_send(MPI_Comm comm, const struct buffer *b, int from, int to)
{
	if (rank == from)
		MPI_Send(b->addr, (int)b->size, MPI_BYTE, to, 0, comm);
	if (rank == to)
		MPI_Recv(b->addr, (int)b->size, MPI_BYTE, from, 0, comm,
			 MPI_STATUS_IGNORE);
}

static MPI_Win open_window(MPI_Comm comm, const struct buffer *b)
{
	MPI_Win window;

	MPI_Win_create(b->addr, (MPI_Aint)b->size, 1, MPI_INFO_NULL, comm,
		       &window);
	MPI_Win_fence(0, window);
	return window;
}

static void close_window(MPI_Win window)
{
	MPI_Win_fence(0, window);
	MPI_Win_free(&window);
}

static void carry_put(MPI_Comm comm, const struct buffer *b, int from, int to)
{
	MPI_Win window = open_window(comm, b);

	if (rank == from)
		MPI_Put(b->addr, (int)b->size, MPI_BYTE, to, 0, (int)b->size,
			MPI_BYTE, window);
	close_window(window);
}

static void carry_get(MPI_Comm comm, const struct buffer *b, int from, int to)
{
	MPI_Win window = open_window(comm, b);

	if (rank == to)
		MPI_Get(b->addr, (int)b->size, MPI_BYTE, from, 0, (int)b->size,
			MPI_BYTE, window);
	close_window(window);
}

static const struct kind {
	const char *name;
	carry_fn *carry;
	int threads;
} kinds[] = {
	{"send", carry_send, 1},
	{"put", carry_put, 1},
	{"get", carry_get, 1},
	{"threads", carry_send, THREADS},
};

static const struct kind *find_kind(const char *name)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		if (!strcmp(kinds[i].name, name))
			return &kinds[i];
	return NULL;
}

/* --- the game -------------------------------------------------------------------- */

struct phase {
	const struct way *way;
	const struct kind *kind;
	unsigned int rounds;
	size_t size;
};

/* What one thread of a rank has. */
struct player {
	const struct phase *phase;
	MPI_Comm comm;
	struct buffer buffer;
	int wrong; /* messages that this rank received */
	pthread_t thread;
};

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

static void set_up(struct player *p, const struct phase *phase, char *addr)
{
	struct buffer *b = &p->buffer;
	size_t margin = phase->way->margin;

	*p = (struct player){
		.phase = phase,
		.buffer = {.addr = addr, .size = phase->size, .file = -1}};
	MPI_Comm_dup(MPI_COMM_WORLD, &p->comm);
	if (phase->way->file) {
		b->file = memfd_create("ring", MFD_CLOEXEC);
		if (b->file < 0 || ftruncate(b->file, (off_t)b->size))
			die("memfd_create");
	}
	b->size += 2 * margin;
	map(b, MAP_FIXED_NOREPLACE);
	b->addr += margin;
	b->size = phase->size;
}

static void tear_down(struct player *p)
{
	size_t margin = p->phase->way->margin;

	munmap(p->buffer.addr - margin, p->buffer.size + 2 * margin);
	if (p->buffer.file >= 0)
		close(p->buffer.file);
	MPI_Comm_free(&p->comm);
}

static void *pass_round(void *arg)
{
	struct player *p = arg;
	const struct phase *phase = p->phase;
	const struct buffer *b = &p->buffer;

	for (unsigned int i = 0; i < phase->rounds; i++) {
		int from = (int)(i % (unsigned int)ranks);
		int to = (from + 1) % ranks;

		if (i)
			phase->way->change(b);
		/* The receiver's memory is there, and is not what will come. */
		fill(b, rank == from ? i : i + phase->rounds);
		phase->kind->carry(p->comm, b, from, to);
		if (rank == to)
			p->wrong += !is_right(b, i);
	}
	return NULL;
}

/* Returns the number of wrong messages, on every rank. */
static int play(const struct phase *phase, char *addr)
{
	int threads = phase->kind->threads, mine = 0, wrong = 0;
	struct player players[THREADS];
	long before, after;

	for (int i = 0; i < threads; i++)
		set_up(&players[i], phase,
		       addr + (size_t)i * DISTANCE / THREADS);
	before = registrations();
	for (int i = 1; i < threads; i++)
		if (pthread_create(&players[i].thread, NULL, pass_round,
				   &players[i]))
			die("pthread_create");
	pass_round(&players[0]);
	for (int i = 1; i < threads; i++)
		pthread_join(players[i].thread, NULL);
	after = registrations();

	for (int i = 0; i < threads; i++) {
		mine += players[i].wrong;
		tear_down(&players[i]);
	}
	MPI_Allreduce(&mine, &wrong, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
	if (rank == 0) {
		printf("{\"way\":\"%s\",\"kind\":\"%s\",\"messages\":%u,"
		       "\"bytes\":%zu,\"wrong\":%d,\"registrations\":%ld}\n",
		       phase->way->name, phase->kind->name,
		       phase->rounds * (unsigned int)threads, phase->size,
		       wrong, after - before);
		fflush(stdout);
	}
	return wrong;
}

/* WAY:MESSAGES:BYTES[:KIND] */
static int parse(const char *arg, struct phase *phase)
{
	size_t length = strcspn(arg, ":");
	char kind[16] = "send";

	if (sscanf(arg + length, ":%u:%zu:%15s", &phase->rounds, &phase->size,
		   kind) < 2)
		return -1;
	phase->way = find_way(arg, length);
	phase->kind = find_kind(kind);
	if (!phase->way || !phase->kind || phase->size > DISTANCE / THREADS / 2)
		return -1;
	return 0;
}

/* Only who has threads asks for them: it changes what a stack does. */
static void start(int *argc, char ***argv)
{
	int level, wanted = MPI_THREAD_SINGLE;

	for (int i = 1; i < *argc; i++)
		if (strstr((*argv)[i], ":threads"))
			wanted = MPI_THREAD_MULTIPLE;
	MPI_Init_thread(argc, argv, wanted, &level);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &ranks);
	if (level < wanted) {
		fputs("ring: this MPI has no threads\n", stderr);
		MPI_Abort(MPI_COMM_WORLD, 2);
	}
}

int main(int argc, char **argv)
{
	char *addr = BUFFERS;
	struct phase phase;
	int wrong = 0;

	start(&argc, &argv);
	for (int i = 1; i < argc; i++, addr += DISTANCE) {
		if (parse(argv[i], &phase) || ranks < 2) {
			if (rank == 0)
				fputs("usage: ring WAY:MESSAGES:BYTES[:KIND]..., "
				      "in two ranks or more\n",
				      stderr);
			MPI_Finalize();
			return 2;
		}
		wrong += play(&phase, addr);
	}
	MPI_Finalize();
	return wrong > 0;
}
