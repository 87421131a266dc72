/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * mrcache-demo: what a registration cache does to data, shown on a real (or
 * soft) RDMA device. Every scenario of the table of memory operations is played
 * with no cache, with a cache that knows nothing of unmapping, and with
 * mrcache; the peer's bytes are compared with the program's after each transfer.
 * They take turns, every other turn backwards, so that what the rest of the
 * machine does meanwhile falls on all of them.
 */
#define _GNU_SOURCE
#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <mrcache.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "support/memop.h"
#include "support/purge.h"
#include "support/rdma.h"

#define EXIT_WRONG  1
#define EXIT_USAGE  2
#define EXIT_CANNOT 3

#define MAX_SIZE ((size_t)256 << 20)
#define TURNS	 2

static struct {
	const char *json;
	const char *scenario;
	unsigned int rounds;
	size_t size;
	bool list;
} options = {.rounds = 10};

/* --- ways to register -------------------------------------------------------- */

struct demo {
	struct rdma rdma;
	struct mrcache *caches[2]; /* without and with attr.fingerprint */
	struct mrcache *cache;	   /* that of the strategy that plays */
	uint64_t registrations;	   /* by the first two */

	/* The naive cache: whatever was registered at this address. */
	struct ibv_mr *naive;
	void *naive_addr;
	size_t naive_size;
};

struct strategy {
	const char *name;
	struct ibv_mr *(*get)(struct demo *d, void *addr, size_t size);
	int (*put)(struct demo *d, struct ibv_mr *mr);
	void (*forget)(struct demo *d);
	uint64_t (*registrations)(struct demo *d);
};

static struct ibv_mr *plain_get(struct demo *d, void *addr, size_t size)
{
	d->registrations++;
	return ibv_reg_mr(d->rdma.pd, addr, size, IBV_ACCESS_LOCAL_WRITE);
}

static int plain_put(struct demo *d, struct ibv_mr *mr)
{
	(void)d;
	return ibv_dereg_mr(mr);
}

static void plain_forget(struct demo *d)
{
	(void)d;
}

static uint64_t plain_registrations(struct demo *d)
{
	return d->registrations;
}

static void naive_forget(struct demo *d)
{
	if (d->naive)
		ibv_dereg_mr(d->naive);
	d->naive = NULL;
}

static struct ibv_mr *naive_get(struct demo *d, void *addr, size_t size)
{
	if (d->naive && d->naive_addr == addr && d->naive_size == size)
		return d->naive;
	naive_forget(d);
	d->naive = plain_get(d, addr, size);
	d->naive_addr = addr;
	d->naive_size = size;
	return d->naive;
}

static int naive_put(struct demo *d, struct ibv_mr *mr)
{
	(void)d;
	(void)mr;
	return 0;
}

static struct ibv_mr *cache_get(struct demo *d, void *addr, size_t size)
{
	return mrcache_reg_mr(d->cache, d->rdma.pd, addr, size,
			      IBV_ACCESS_LOCAL_WRITE);
}

static int cache_put(struct demo *d, struct ibv_mr *mr)
{
	return mrcache_dereg_mr(d->cache, mr);
}

static void cache_forget(struct demo *d)
{
	mrcache_flush(d->cache, d->rdma.pd);
}

static uint64_t cache_registrations(struct demo *d)
{
	struct mrcache_stats stats;

	mrcache_get_stats(d->cache, &stats, sizeof(stats));
	return stats.registrations;
}

enum { PLAIN, NAIVE, CACHE, VERIFIED, STRATEGIES };

static const struct strategy strategies[STRATEGIES] = {
	{"none", plain_get, plain_put, plain_forget, plain_registrations},
	{"naive", naive_get, naive_put, naive_forget, plain_registrations},
	{"mrcache", cache_get, cache_put, cache_forget, cache_registrations},
	{"verified", cache_get, cache_put, cache_forget, cache_registrations},
};

/* Verifying is for where the kernel does not say which it is, and only there. */
static bool plays(int strategy, const struct memop *op)
{
	bool either = op->verdict == MEMOP_EITHER;

	return strategy == VERIFIED ? either : strategy != NAIVE || !either;
}

/* --- one scenario ------------------------------------------------------------- */

struct outcome {
	unsigned int uses; /* times the memory was registered */
	unsigned int transfers;
	unsigned int wrong; /* of them */
	uint64_t registrations;
	/* Medians. A cycle: change, fill, register, transfer, give back. */
	double registering_us, cycle_us;
	int error;	    /* 0 or -errno */
	const char *failed; /* at what */
};

struct row {
	const struct memop *op;
	const char *missing;
	struct outcome outcome[STRATEGIES];
};

static double microseconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values, unsigned int count)
{
	qsort(values, count, sizeof(*values), compare);
	return count ? values[count / 2] : 0;
}

static int failed(struct outcome *o, const char *at, int error)
{
	o->failed = at;
	o->error = error ? error : -EIO;
	return o->error;
}

/* The times of one scenario and strategy, in all turns. */
struct times {
	double *registering, *cycle; /* room for TURNS * rounds each */
	unsigned int uses, cycles;
};

/*
 * Registers the buffer as the strategy does, sends it to the peer, fetches
 * other bytes back from there, and looks at both. `changing` is the time that
 * changing the memory took; fetching and looking are in no time.
 */
static int use(struct demo *d, const struct strategy *s, struct memop_buffer *b,
	       unsigned int round, struct outcome *o, double changing,
	       struct times *times)
{
	size_t size = b->size < options.size ? b->size : options.size;
	unsigned int there = memop_seed(b->op, 2 * round);
	unsigned int back = memop_seed(b->op, 2 * round + 1);
	double start, filled, registered, sent, done, returned, registering;
	struct ibv_mr *mr;
	int ret;

	memset(d->rdma.peer, 0, size);
	start = microseconds();
	memop_fill(b->addr, size, there);
	filled = microseconds();
	mr = s->get(d, b->addr, b->size);
	registered = microseconds();
	if (!mr)
		return failed(o, "registering", -errno);
	o->uses++;

	ret = rdma_write_from(&d->rdma, mr, b->addr, size);
	sent = microseconds();
	if (!ret) {
		o->transfers++;
		o->wrong += memop_wrong(d->rdma.peer, size, there) > 0;
		memop_fill(d->rdma.peer, size, back);
		ret = rdma_read_into(&d->rdma, mr, b->addr, size);
	}
	if (!ret) {
		o->transfers++;
		o->wrong += memop_wrong(b->addr, size, back) > 0;
	}

	done = microseconds();
	if (s->put(d, mr) && !ret)
		return failed(o, "deregistering", -EIO);
	returned = microseconds();
	registering = (registered - filled) + (returned - done);
	times->registering[times->uses++] = registering;
	/* Nothing was changed before the first. */
	if (round)
		times->cycle[times->cycles++] = changing + (filled - start) +
						(sent - registered) +
						registering;
	return ret ? failed(o, "transferring", ret) : 0;
}

static void play(struct demo *d, const struct strategy *s,
		 const struct memop *op, struct outcome *o, struct times *times)
{
	struct memop_buffer b;
	unsigned int round;
	uint64_t before;
	double start, changing = 0;
	int ret = memop_make(&b, op, options.size);

	d->cache = d->caches[s == &strategies[VERIFIED]];
	before = s->registrations(d);
	if (ret) {
		failed(o, "making the memory", ret);
		return;
	}
	for (round = 0; round < options.rounds && !ret; round++) {
		if (round) {
			start = microseconds();
			ret = memop_perform(&b);
			changing = microseconds() - start;
		}
		if (ret)
			failed(o, "the operation", ret);
		else
			ret = use(d, s, &b, round, o, changing, times);
	}
	o->registrations += s->registrations(d) - before;
	s->forget(d);
	memop_drop(&b);
}

/* All strategies, in turns; one that failed plays no more. */
static void play_all(struct demo *d, struct row *row)
{
	size_t room = sizeof(double) * TURNS * options.rounds;
	struct times times[STRATEGIES] = {0};
	struct outcome *o;
	int turn, i, s;

	for (s = 0; s < STRATEGIES; s++) {
		times[s].registering = malloc(room);
		times[s].cycle = malloc(room);
		if (!times[s].registering || !times[s].cycle)
			failed(&row->outcome[s], "timing", -ENOMEM);
	}
	for (turn = 0; turn < TURNS; turn++) {
		for (i = 0; i < STRATEGIES; i++) {
			s = turn % 2 ? STRATEGIES - 1 - i : i;
			o = &row->outcome[s];
			if (!o->error && plays(s, row->op))
				play(d, &strategies[s], row->op, o, &times[s]);
		}
	}
	for (s = 0; s < STRATEGIES; s++) {
		o = &row->outcome[s];
		if (!o->error) {
			o->registering_us =
				median(times[s].registering, times[s].uses);
			o->cycle_us = median(times[s].cycle, times[s].cycles);
		}
		free(times[s].registering);
		free(times[s].cycle);
	}
}

static bool selected(const struct memop *op)
{
	return !options.scenario || !strcmp(options.scenario, op->name);
}

/* --- what is printed -------------------------------------------------------------- */

static void rule(void)
{
	int i;

	for (i = 0; i < 100; i++)
		putchar('-');
	putchar('\n');
}

static void print_failure(const struct row *row, const struct strategy *s,
			  const struct outcome *o)
{
	printf("%-22s FAILED (%s, %s): %s\n", row->op->name, s->name, o->failed,
	       strerror(-o->error));
}

static bool print_problems(const struct row *row)
{
	int i;

	if (row->missing) {
		printf("%-22s not here: %s\n", row->op->name, row->missing);
		return true;
	}
	for (i = 0; i < STRATEGIES; i++) {
		if (row->outcome[i].error) {
			print_failure(row, &strategies[i], &row->outcome[i]);
			return true;
		}
	}
	return false;
}

static uint64_t hits(const struct outcome *o)
{
	return o->uses > o->registrations ? o->uses - o->registrations : 0;
}

static void head_keep(void)
{
	printf("\nMEMORY THAT IS USED AGAIN\n"
	       "The pages stay the program's own whatever happens between two uses, so the registration stays\n"
	       "right: only the first use of a turn has to register. `hits` counts uses served from the cache,\n"
	       "`us` is what registering and giving back take.\n\n");
	printf("%-22s %-34s | %13s | %24s\n", "", "", "no cache   ",
	       "mrcache         ");
	printf("%-22s %-34s | %4s %8s | %4s %4s %5s %8s\n", "scenario",
	       "what happens", "regs", "us", "regs", "hits", "wrong", "us");
	rule();
}

static void print_keep(const struct row *row)
{
	const struct outcome *plain = &row->outcome[PLAIN],
			     *cache = &row->outcome[CACHE];

	if (print_problems(row))
		return;
	printf("%-22s %-34s | %4" PRIu64 " %8.1f | %4" PRIu64 " %4" PRIu64
	       " %5u %8.1f\n",
	       row->op->name, row->op->what, plain->registrations,
	       plain->registering_us, cache->registrations, hits(cache),
	       cache->wrong, cache->registering_us);
}

static void head_change(void)
{
	printf("\nMEMORY THAT CHANGES BETWEEN TWO USES OF THE SAME ADDRESS\n"
	       "A registration kept over the change reaches the old pages: the peer gets old bytes, and what it\n"
	       "sends is lost. `wrong` counts such transfers, `regs` registrations. Each use has to register, also\n"
	       "with mrcache. `us` is the whole cycle: change, fill, register, transfer, give back.\n\n");
	printf("%-22s %9s | %19s | %19s | %19s\n", "", "", "no cache     ",
	       "naive cache    ", "mrcache      ");
	printf("%-22s %9s", "scenario", "transfers");
	for (int i = 0; i <= CACHE; i++)
		printf(" | %4s %5s %8s", "regs", "wrong", "us");
	putchar('\n');
	rule();
}

static void print_change(const struct row *row)
{
	int i;

	if (print_problems(row))
		return;
	printf("%-22s %9u", row->op->name, row->outcome[CACHE].transfers);
	for (i = 0; i <= CACHE; i++)
		printf(" | %4" PRIu64 " %5u %8.1f",
		       row->outcome[i].registrations, row->outcome[i].wrong,
		       row->outcome[i].cycle_us);
	putchar('\n');
}

static void head_either(void)
{
	printf("\nMEMORY OF WHICH THE KERNEL SAYS MORE THAN HAPPENED\n"
	       "Page-table entries go, the pages stay, or most of them. A cache that believes each alarm registers\n"
	       "again; with verifying, as under the shim, mrcache asks the driver whether the pages are the same.\n"
	       "The first alarm is believed: only then does the cache remember pages.\n\n");
	printf("%-22s %-40s | %8s | %10s | %15s\n", "", "", "no cache",
	       "mrcache ", "verifying    ");
	printf("%-22s %-40s | %8s | %4s %5s | %4s %4s %5s\n", "scenario",
	       "what happens", "regs", "regs", "wrong", "regs", "hits",
	       "wrong");
	rule();
}

static void print_either(const struct row *row)
{
	const struct outcome *cache = &row->outcome[CACHE],
			     *verified = &row->outcome[VERIFIED];

	if (print_problems(row))
		return;
	printf("%-22s %-40s | %8" PRIu64 " | %4" PRIu64 " %5u | %4" PRIu64
	       " %4" PRIu64 " %5u\n",
	       row->op->name, row->op->what, row->outcome[PLAIN].registrations,
	       cache->registrations, cache->wrong, verified->registrations,
	       hits(verified), verified->wrong);
}

/* --- the whole --------------------------------------------------------------------- */

struct summary {
	unsigned int scenarios; /* played */
	unsigned int stale;	/* those in which a registration goes stale */
	unsigned int naive_wrong;
	unsigned int mrcache_wrong;
	unsigned int failed;
	unsigned int blind;  /* stale, and yet the naive cache was right */
	uint64_t hits, uses; /* of the first table */
};

static void add(struct summary *sum, const struct row *row)
{
	const struct outcome *o = row->outcome;
	int i;

	if (row->missing)
		return;
	sum->scenarios++;
	for (i = 0; i < STRATEGIES; i++) {
		if (!o[i].error || !plays(i, row->op))
			continue;
		sum->failed++;
		return;
	}
	sum->naive_wrong += o[NAIVE].wrong;
	sum->mrcache_wrong += o[CACHE].wrong + o[VERIFIED].wrong;
	/* Nothing may be wrong without a cache: that would be the demo itself. */
	sum->failed += o[PLAIN].wrong > 0;
	if (row->op->stale && plays(NAIVE, row->op) && options.rounds > 1) {
		sum->stale++;
		sum->blind += !o[NAIVE].wrong;
	}
	if (row->op->verdict == MEMOP_QUIET) {
		sum->hits += hits(&o[CACHE]);
		sum->uses += o[CACHE].uses;
	}
}

/* Rounded down: 1.00 would say that nothing was ever registered. */
static double hit_rate(const struct summary *sum)
{
	/* NOLINTNEXTLINE(bugprone-integer-division): that is what rounds */
	return sum->uses ? (double)(sum->hits * 100 / sum->uses) / 100 : 0;
}

static const struct {
	void (*head)(void);
	void (*print)(const struct row *row);
} tables[] = {
	[MEMOP_QUIET] = {head_keep, print_keep},
	[MEMOP_REPORT] = {head_change, print_change},
	[MEMOP_EITHER] = {head_either, print_either},
};

static void run_table(struct demo *d, enum memop_verdict verdict,
		      struct row *rows, struct summary *sum)
{
	bool first = true;
	size_t i;

	for (i = 0; i < memop_count(); i++) {
		struct row *row = &rows[i];

		row->op = memop_get(i);
		if (row->op->verdict != verdict || !selected(row->op))
			continue;
		if (first)
			tables[verdict].head();
		first = false;
		row->missing = memop_missing(row->op);
		if (!row->missing)
			play_all(d, row);
		tables[verdict].print(row);
		fflush(stdout);
		add(sum, row);
	}
}

/* --- allocators -------------------------------------------------------------------- */

#define PURGES 3u

static double percent(const struct purge *p, enum purge_way way)
{
	return 100.0 * p->hits[way] / p->uses[way];
}

struct allocators {
	const char *missing[PURGE_ALLOCATORS];
	struct purge purges[PURGE_ALLOCATORS];
};

/* Not a matter of one buffer, so of programs of their own. */
static void run_allocators(struct allocators *all)
{
	printf("\nBUFFERS BESIDE MEMORY THAT THE ALLOCATOR GIVES BACK\n"
	       "%u buffers share huge pages with as many that are freed; each is used once before the allocator\n"
	       "purges, and twice after. Hits in %% of all uses; 67 is all that there can be.\n\n"
	       "%-22s | %12s | %12s | %12s\n",
	       PURGE_BUFFERS, "allocator", "no purge", "mrcache", "verifying");
	rule();
	for (int i = 0; i < PURGE_ALLOCATORS; i++) {
		const struct purge_allocator *allocator = &purge_allocators[i];
		struct purge *p = &all->purges[i];

		all->missing[i] = purge_run(allocator, PURGES, p);
		if (all->missing[i])
			printf("%-22s skipped: %s\n", allocator->name,
			       all->missing[i]);
		else
			printf("%-22s | %12.0f | %12.0f | %12.0f\n",
			       allocator->name, percent(p, PURGE_CALM),
			       percent(p, PURGE_UNVERIFIED),
			       percent(p, PURGE_VERIFIED));
		fflush(stdout);
	}
}

/* --- JSON ---------------------------------------------------------------------------- */

static json_t *row_json(const struct row *row)
{
	json_t *result = json_object();
	int i;

	json_object_set_new(result, "name", json_string(row->op->name));
	json_object_set_new(result, "what", json_string(row->op->what));
	json_object_set_new(result, "expect",
			    json_string(memop_verdict_name(row->op->verdict)));
	json_object_set_new(result, "stale", json_boolean(row->op->stale));
	if (row->missing) {
		json_object_set_new(result, "missing",
				    json_string(row->missing));
		return result;
	}
	for (i = 0; i < STRATEGIES; i++) {
		const struct outcome *o = &row->outcome[i];
		json_t *object;

		if (!plays(i, row->op))
			continue;
		object = json_object();

		json_object_set_new(object, "uses", json_integer(o->uses));
		json_object_set_new(object, "transfers",
				    json_integer(o->transfers));
		json_object_set_new(object, "wrong", json_integer(o->wrong));
		json_object_set_new(object, "registrations",
				    json_integer((json_int_t)o->registrations));
		json_object_set_new(object, "us_per_use",
				    json_real(o->registering_us));
		json_object_set_new(object, "us_per_cycle",
				    json_real(o->cycle_us));
		if (o->error) {
			json_object_set_new(object, "failed",
					    json_string(o->failed));
			json_object_set_new(object, "error",
					    json_string(strerror(-o->error)));
		}
		json_object_set_new(result, strategies[i].name, object);
	}
	return result;
}

/* All of the file or none of it. */
static json_t *allocators_json(const struct allocators *all)
{
	static const char *const ways[PURGE_WAYS] = {"no-purge", "mrcache",
						     "verified"};
	json_t *list = json_array();

	for (int i = 0; i < PURGE_ALLOCATORS; i++) {
		const struct purge *p = &all->purges[i];
		json_t *one = json_object();

		json_object_set_new(one, "name",
				    json_string(purge_allocators[i].name));
		if (all->missing[i])
			json_object_set_new(one, "missing",
					    json_string(all->missing[i]));
		for (int way = 0; way < PURGE_WAYS && !all->missing[i]; way++)
			json_object_set_new(one, ways[way],
					    json_pack("{s:i, s:i}", "uses",
						      (int)p->uses[way], "hits",
						      (int)p->hits[way]));
		json_array_append_new(list, one);
	}
	return list;
}

static int write_json(const char *path, json_t *value)
{
	char *partial;
	FILE *f;
	int error = 0;

	if (asprintf(&partial, "%s.%ld.part", path, (long)getpid()) < 0)
		return -ENOMEM;
	f = fopen(partial, "we");
	if (!f) {
		error = errno;
		free(partial);
		return -error;
	}
	if (json_dumpf(value, f, JSON_INDENT(2)) || fputc('\n', f) == EOF ||
	    fflush(f) || fsync(fileno(f)))
		error = errno ? errno : EIO;
	if (fclose(f) && !error)
		error = errno;
	if (!error && rename(partial, path))
		error = errno;
	if (error)
		unlink(partial);
	free(partial);
	return -error;
}

static int save(const struct demo *d, const struct row *rows,
		const struct summary *sum, const struct allocators *allocators)
{
	json_t *all = json_object(), *list = json_array(),
	       *summary = json_object();
	struct utsname host;
	size_t i;
	int ret;

	uname(&host);
	json_object_set_new(all, "format", json_integer(1));
	json_object_set_new(all, "kernel", json_string(host.release));
	json_object_set_new(
		all, "device",
		json_string(ibv_get_device_name(d->rdma.context->device)));
	json_object_set_new(all, "monitor",
			    json_string(mrcache_monitor(d->caches[0])));
	json_object_set_new(all, "turns", json_integer(TURNS));
	json_object_set_new(all, "rounds", json_integer(options.rounds));
	json_object_set_new(all, "size",
			    json_integer((json_int_t)options.size));
	for (i = 0; i < memop_count(); i++)
		if (rows[i].op && selected(rows[i].op))
			json_array_append_new(list, row_json(&rows[i]));
	json_object_set_new(all, "results", list);
	if (!options.scenario)
		json_object_set_new(all, "allocators",
				    allocators_json(allocators));
	json_object_set_new(summary, "scenarios", json_integer(sum->scenarios));
	json_object_set_new(summary, "naive_wrong",
			    json_integer(sum->naive_wrong));
	json_object_set_new(summary, "mrcache_wrong",
			    json_integer(sum->mrcache_wrong));
	json_object_set_new(summary, "failed",
			    json_integer(sum->failed + sum->blind));
	json_object_set_new(summary, "hit_rate", json_real(hit_rate(sum)));
	json_object_set_new(all, "summary", summary);
	ret = write_json(options.json, all);
	json_decref(all);
	return ret;
}

/* --- command line ------------------------------------------------------------------------ */

const char *argp_program_version = "mrcache-demo";

enum { KEY_JSON = 256, KEY_ROUNDS, KEY_SIZE, KEY_LIST, KEY_SCENARIO };

static const struct argp_option arguments[] = {
	{"json", KEY_JSON, "FILE", 0, "write all results to FILE", 0},
	{"rounds", KEY_ROUNDS, "N", 0,
	 "use the memory N times in each of two turns (10)", 0},
	{"size", KEY_SIZE, "BYTES", 0,
	 "bytes to transfer, K and M may follow (16 pages)", 0},
	{"scenario", KEY_SCENARIO, "NAME", 0, "only this one", 0},
	{"list", KEY_LIST, NULL, 0, "list the scenarios", 0},
	{0},
};

static bool parse_number(const char *text, unsigned long long min,
			 unsigned long long max, unsigned long long *value)
{
	char *end;

	errno = 0;
	*value = strtoull(text, &end, 10);
	if (errno || end == text || *text == '-' || *value > max)
		return false;
	if (*end == 'K' || *end == 'M')
		*value <<= *end++ == 'K' ? 10 : 20;
	return !*end && *value >= min && *value <= max;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	unsigned long long value;

	switch (key) {
	case KEY_JSON:
		options.json = arg;
		return 0;
	case KEY_ROUNDS:
		if (!parse_number(arg, 2, 100000, &value))
			argp_error(state,
				   "--rounds takes 2 to 100000, not '%s'", arg);
		options.rounds = value;
		return 0;
	case KEY_SIZE:
		if (!parse_number(arg, MEMOP_MIN_SIZE, MAX_SIZE, &value))
			argp_error(state, "--size takes %zuK to 256M, not '%s'",
				   MEMOP_MIN_SIZE >> 10, arg);
		options.size = value;
		return 0;
	case KEY_SCENARIO:
		if (!memop_find(arg))
			argp_error(state, "no scenario '%s'; see --list", arg);
		options.scenario = arg;
		return 0;
	case KEY_LIST:
		options.list = true;
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "unexpected '%s'", arg);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static void list(void)
{
	size_t i;

	for (i = 0; i < memop_count(); i++)
		if (selected(memop_get(i)))
			printf("%-22s %-40s %s\n", memop_get(i)->name,
			       memop_get(i)->what,
			       memop_verdict_name(memop_get(i)->verdict));
}

static void complain(const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fputs("mrcache-demo: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

static bool start(struct demo *d)
{
	const char *reason = rdma_missing();
	struct mrcache_attr attr;
	int ret;

	if (reason) {
		complain("%s", reason);
		return false;
	}
	ret = rdma_open(&d->rdma, options.size);
	if (ret) {
		complain("no RDMA connection: %s", strerror(-ret));
		return false;
	}
	mrcache_attr_init(&attr);
	attr.monitor = "ummunotify";
	/* What the kernel tells is shown, not what is released before a fork. */
	attr.fork_release = UINT64_MAX;
	d->caches[0] = mrcache_open(&attr);
	attr.fingerprint = true;
	d->caches[1] = d->caches[0] ? mrcache_open(&attr) : NULL;
	if (d->caches[1])
		return true;
	ret = errno;
	if (d->caches[0])
		mrcache_close(d->caches[0]);
	complain("/dev/ummunotify cannot be used: %s", mrcache_strerror(ret));
	if (ret == ENOENT)
		complain("load the driver first: insmod kernel/ummunotify.ko");
	rdma_close(&d->rdma);
	return false;
}

static void print_summary(const struct summary *sum)
{
	putchar('\n');
	if (sum->failed)
		printf("%u scenarios could not be played as they should.\n",
		       sum->failed);
	if (sum->blind)
		printf("In %u scenarios the naive cache should have been wrong and was not.\n",
		       sum->blind);
	printf("demo: scenarios=%u naive_wrong=%u mrcache_wrong=%u hit_rate=%.2f\n",
	       sum->scenarios, sum->naive_wrong, sum->mrcache_wrong,
	       hit_rate(sum));
	fflush(stdout);
}

int main(int argc, char **argv)
{
	static const struct argp argp = {
		.options = arguments,
		.parser = parse,
		.doc = "Shows on an RDMA device what a stale registration does to data, and that "
		       "mrcache has none.\v"
		       "Exit status: 0 if mrcache delivered no wrong byte and the naive cache did, "
		       "1 if not, 2 wrong usage, 3 nothing could be played: no RDMA device, no driver.",
	};
	static struct allocators allocators;
	struct summary sum = {0};
	struct demo demo = {0};
	struct row *rows;
	int ret;

	options.size = MEMOP_MIN_SIZE;
	purge_main(argc, argv);
	argp_err_exit_status = EXIT_USAGE;
	argp_parse(&argp, argc, argv, 0, NULL, NULL);
	if (options.list) {
		list();
		return 0;
	}
	rows = calloc(memop_count(), sizeof(*rows));
	if (!rows || !start(&demo)) {
		free(rows);
		return EXIT_CANNOT;
	}
	printf("mrcache-demo: %s, monitor %s, two turns of %u uses of %zu KiB each.\n"
	       "Times are medians; in an emulated guest they only compare with each other.\n",
	       ibv_get_device_name(demo.rdma.context->device),
	       mrcache_monitor(demo.caches[0]), options.rounds,
	       options.size >> 10);
	run_table(&demo, MEMOP_QUIET, rows, &sum);
	run_table(&demo, MEMOP_REPORT, rows, &sum);
	run_table(&demo, MEMOP_EITHER, rows, &sum);
	if (!options.scenario)
		run_allocators(&allocators);

	ret = sum.mrcache_wrong || sum.failed || sum.blind ? EXIT_WRONG : 0;
	if (sum.stale && !sum.naive_wrong)
		ret = EXIT_WRONG;
	if (!sum.scenarios)
		ret = EXIT_CANNOT;
	if (options.json) {
		int error = save(&demo, rows, &sum, &allocators);

		if (error) {
			complain("%s: %s", options.json, strerror(-error));
			ret = ret ? ret : EXIT_WRONG;
		}
	}
	free(rows);
	/* In this order, and each finds nothing registered any more. */
	if (mrcache_close(demo.caches[0]) || mrcache_close(demo.caches[1]) ||
	    rdma_close(&demo.rdma)) {
		complain("something is registered still");
		ret = EXIT_WRONG;
	}
	print_summary(&sum);
	return ret;
}
