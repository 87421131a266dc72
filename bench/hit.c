/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bench-hit: what a hit costs, for mrcache and for the registration cache of
 * UCX in the same process. Both run in turns, so that what disturbs one
 * disturbs the other; every sample is the mean of a turn.
 */
#include "bench.h"
#include "mrcache.h"
#include "side.h"

#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define BASE	    ((uintptr_t)1 << 44)
#define LENGTH	    ((size_t)64 << 10)
#define MAX_REPEATS 64u
/* Calls between two looks at the clock. */
#define BATCH 4096u

static const struct side *sides[] = {&side_mrcache, &side_ucx};
#define SIDES (sizeof(sides) / sizeof(*sides))

static unsigned int repeats = 21;
static double turn = 20e6; /* ns */

/* ---- addresses ------------------------------------------------------------------ */

/* What is asked for, in order; made before anything is measured. */
struct order {
	uintptr_t *addresses;
	size_t n; /* a multiple of BATCH */
	size_t length;
};

/* Every one of `count` ranges as often as the others, shuffled. */
static struct order make_order(uintptr_t base, size_t count, size_t stride,
			       size_t length, uint64_t seed)
{
	struct order o = {.n = count, .length = length};

	if (o.n % BATCH)
		o.n += BATCH - o.n % BATCH;
	o.addresses = calloc(o.n, sizeof(*o.addresses));
	if (!o.addresses)
		bench_die("no memory");
	for (size_t i = 0; i < o.n; i++)
		o.addresses[i] = base + i % count * stride;
	for (size_t i = o.n - 1; i > 0; i--) {
		size_t j = bench_random(&seed) % (i + 1);
		uintptr_t other = o.addresses[j];

		o.addresses[j] = o.addresses[i];
		o.addresses[i] = other;
	}
	return o;
}

/* ---- one turn ------------------------------------------------------------------- */

typedef void hit_fn(void *cache, const uintptr_t *addresses, size_t n,
		    size_t length);

struct worker {
	pthread_t thread;
	unsigned int cpu;
	hit_fn *hit;
	void *cache;
	const struct order *order;
	size_t at; /* goes on where the last turn ended */
	double ns; /* result, for a call */
};

/* How many threads are at it: a turn counts only while all are. */
static atomic_uint ready, stop;
static unsigned int expected;

static void *work(void *arg)
{
	struct worker *w = arg;
	double start, end;
	uint64_t calls = 0;

	bench_pin(w->cpu);
	atomic_fetch_add(&ready, 1);
	while (atomic_load(&ready) < expected)
		;
	start = bench_now();
	do {
		w->hit(w->cache, w->order->addresses + w->at, BATCH,
		       w->order->length);
		/* NOLINTNEXTLINE(clang-analyzer-core.DivideZero): never empty */
		w->at = (w->at + BATCH) % w->order->n;
		calls += BATCH;
		end = bench_now();
	} while (end - start < turn && !atomic_load(&stop));
	/* The others would be alone from now on. */
	atomic_store(&stop, 1);
	w->ns = (end - start) / (double)calls;
	return NULL;
}

struct noise {
	pthread_t thread;
	void (*make)(void *cache, uint64_t n);
	void *cache; /* mrcache's, or NULL */
	uint64_t count;
	double rate; /* result, each second */
};

static void *make_noise(void *arg)
{
	struct noise *n = arg;
	double start;

	bench_pin(1);
	atomic_fetch_add(&ready, 1);
	while (atomic_load(&ready) < expected)
		;
	start = bench_now();
	for (n->count = 0; !atomic_load(&stop); n->count++)
		n->make(n->cache, n->count);
	n->rate = (double)n->count / ((bench_now() - start) / 1e9);
	return NULL;
}

/* Mean of the threads. */
static double take_turn(struct worker *workers, unsigned int n,
			struct noise *noise)
{
	double sum = 0;

	atomic_store(&ready, 0);
	atomic_store(&stop, 0);
	expected = n + (noise != NULL);
	if (noise && pthread_create(&noise->thread, NULL, make_noise, noise))
		bench_die("no thread");
	for (unsigned int i = 1; i < n; i++)
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
			bench_die("no thread");
	work(&workers[0]);
	for (unsigned int i = 1; i < n; i++)
		pthread_join(workers[i].thread, NULL);
	if (noise)
		pthread_join(noise->thread, NULL);
	for (unsigned int i = 0; i < n; i++)
		sum += workers[i].ns;
	return sum / n;
}

/* ---- a case ---------------------------------------------------------------------- */

struct setting {
	const char *name;
	unsigned int threads;
	struct order orders[2]; /* of each thread */
	bool key;
	bool contain;
	/* What is registered first, if not what is asked for. */
	const struct order *registered;
	void (*noise)(void *cache, uint64_t n);
};

struct entrant {
	const struct side *side;
	void *cache;
	uint64_t misses;
	struct worker workers[2];
	struct noise noise;
	double samples[MAX_REPEATS];
	double rates[MAX_REPEATS];
};

static void prepare(struct entrant *e, const struct setting *s)
{
	const struct order *first = s->registered;

	e->cache = e->side->open(s->contain);
	for (unsigned int i = 0; i < s->threads; i++) {
		const struct order *o = first ? first : &s->orders[i];

		e->side->hit(e->cache, o->addresses, o->n, o->length);
		e->workers[i] = (struct worker){
			.cpu = i,
			.hit = s->key ? e->side->hit_and_key : e->side->hit,
			.cache = e->cache,
			.order = &s->orders[i],
		};
	}
	e->noise = (struct noise){
		.make = s->noise,
		.cache = e->side == &side_mrcache ? e->cache : NULL,
	};
	e->misses = e->side->misses(e->cache);
	/* Once around, unmeasured. */
	for (unsigned int i = 0; i < s->threads; i++)
		e->side->hit(e->cache, s->orders[i].addresses, s->orders[i].n,
			     s->orders[i].length);
}

static void finish(struct entrant *e, const struct setting *s)
{
	if (e->side->misses(e->cache) != e->misses)
		bench_die("%s: not all were hits", e->side->name);
	e->side->close(e->cache);
	bench_add("ns", e->samples, repeats, "hit/%s/%s", s->name,
		  e->side->name);
	if (s->noise)
		bench_add("1/s", e->rates, repeats, "hit/%s/%s/rate", s->name,
			  e->side->name);
}

static void measure(const struct setting *s)
{
	static struct entrant entrants[SIDES];
	unsigned int n = 0;

	if (s->threads + (s->noise != NULL) > bench_cpus()) {
		bench_skip(s->name, "needs two CPUs");
		return;
	}
	for (unsigned int i = 0; i < SIDES; i++)
		if (!sides[i]->missing())
			entrants[n++].side = sides[i];
	for (unsigned int i = 0; i < n; i++)
		prepare(&entrants[i], s);
	for (unsigned int r = 0; r < repeats; r++)
		for (unsigned int i = 0; i < n; i++) {
			struct entrant *e = &entrants[i];

			e->samples[r] = take_turn(e->workers, s->threads,
						  s->noise ? &e->noise : NULL);
			e->rates[r] = e->noise.rate;
		}
	for (unsigned int i = 0; i < n; i++)
		finish(&entrants[i], s);
}

static void free_orders(struct setting *s)
{
	for (unsigned int i = 0; i < s->threads; i++)
		free(s->orders[i].addresses);
}

/* ---- the cases ------------------------------------------------------------------- */

static void one_thread(const char *name, size_t count, bool key)
{
	struct setting s = {
		.name = name,
		.threads = 1,
		.key = key,
		.orders = {make_order(BASE, count, LENGTH, LENGTH, 1)},
	};

	measure(&s);
	free_orders(&s);
}

/* own: the second thread's ranges begin behind the first's. */
static void two_threads(const char *name, size_t count, bool own)
{
	uintptr_t second = own ? BASE + count * LENGTH : BASE;
	struct setting s = {
		.name = name,
		.threads = 2,
		.orders = {make_order(BASE, count, LENGTH, LENGTH, 1),
			   make_order(second, count, LENGTH, LENGTH, 2)},
	};

	measure(&s);
	free_orders(&s);
}

static void change_memory(uint64_t n)
{
	char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		bench_die("no memory");
	*p = (char)n;
	munmap(p, 4096);
}

/* Memory that nobody watches: the counter stays. */
static void unwatched(void *cache, uint64_t n)
{
	(void)cache;
	change_memory(n);
}

/* Memory of other watches: the counter moves each time. */
static void watched(void *cache, uint64_t n)
{
	change_memory(n);
	if (cache)
		side_mrcache_noise(cache);
}

/* No kernel does that: the counter moves as fast as a processor can move it. */
static void counter_only(void *cache, uint64_t n)
{
	if (cache)
		side_mrcache_noise(cache);
	else
		change_memory(n);
}

static void with_noise(const char *name, void (*noise)(void *, uint64_t))
{
	struct setting s = {
		.name = name,
		.threads = 1,
		.orders = {make_order(BASE, 256, LENGTH, LENGTH, 1)},
		.noise = noise,
	};

	measure(&s);
	free_orders(&s);
}

/* 4 KiB each, at `count` different places in 256 registrations of 1 MiB. */
static void within(const char *name, size_t count)
{
	const size_t large = (size_t)1 << 20, small = 4096;
	struct order registered = make_order(BASE, 256, large, large, 1);
	struct setting s = {
		.name = name,
		.threads = 1,
		.contain = true,
		.registered = &registered,
		.orders = {make_order(BASE, count, 256 * large / count, small,
				      1)},
	};

	measure(&s);
	free_orders(&s);
	free(registered.addresses);
}

/* ---- mrcache_valid() --------------------------------------------------------------- */

static void valid(const char *name, bool moved)
{
	void *side = side_mrcache.open(false);
	struct mrcache *cache = side_mrcache_of(side);
	struct ibv_mr *mr = side_mrcache_hold(side, BASE, LENGTH);
	double samples[MAX_REPEATS];
	unsigned int wrong = 0;

	bench_pin(0);
	if (moved)
		side_mrcache_noise(side);
	for (unsigned int r = 0; r < repeats; r++) {
		uint64_t calls = 0;
		double start = bench_now(), end;

		do {
			for (unsigned int i = 0; i < BATCH; i++) {
				wrong += !mrcache_valid(cache, mr);
				/* Each call is one of its own. */
				__asm__ volatile("" : "+r"(cache)::"memory");
			}
			calls += BATCH;
			end = bench_now();
		} while (end - start < turn);
		samples[r] = (end - start) / (double)calls;
	}
	if (wrong)
		bench_die("mrcache_valid() is wrong");
	side_mrcache_release(side, mr);
	side_mrcache.close(side);
	bench_add("ns", samples, repeats, "hit/%s/mrcache", name);
}

/* ---- giving back what another thread took ----------------------------------------------- */

#define TAKERS 256u

struct takers {
	void *side;
	struct ibv_mr *mrs[TAKERS];
	double spent[TAKERS]; /* to give one back */
	pthread_barrier_t taken, given;
	bool own; /* each gives back what it took itself */
	bool over;
};

struct taker {
	struct takers *all;
	size_t n;
};

/* Each has just been woken, whatever it gives back: its caches are as cold. */
static void *take_and_give(void *arg)
{
	const struct taker *taker = arg;
	struct takers *t = taker->all;
	const size_t n = taker->n, given = t->own ? n : (n + 1) % TAKERS;
	double start;

	for (;;) {
		pthread_barrier_wait(&t->given);
		if (t->over)
			return NULL;
		t->mrs[n] =
			side_mrcache_hold(t->side, BASE + n * LENGTH, LENGTH);
		pthread_barrier_wait(&t->taken);
		start = bench_now();
		side_mrcache_release(t->side, t->mrs[given]);
		t->spent[n] = bench_now() - start;
	}
}

/* Of 256 threads each gives back what it took, or what the next one did. */
static void give_back(const char *name, bool own)
{
	struct takers t = {.side = side_mrcache.open(false), .own = own};
	double samples[MAX_REPEATS];
	struct taker takers[TAKERS];
	pthread_t threads[TAKERS];

	pthread_barrier_init(&t.taken, NULL, TAKERS + 1);
	pthread_barrier_init(&t.given, NULL, TAKERS + 1);
	for (size_t i = 0; i < TAKERS; i++) {
		takers[i] = (struct taker){&t, i};
		if (pthread_create(&threads[i], NULL, take_and_give,
				   &takers[i]))
			bench_die("no thread");
	}
	/* The first for warming up. */
	for (unsigned int r = 0; r <= repeats + 1; r++) {
		t.over = r == repeats + 1;
		pthread_barrier_wait(&t.given);
		if (r > 1)
			samples[r - 2] = bench_median(t.spent, TAKERS);
		if (!t.over)
			pthread_barrier_wait(&t.taken);
	}
	for (size_t i = 0; i < TAKERS; i++)
		pthread_join(threads[i], NULL);
	side_mrcache.close(t.side);
	bench_add("ns", samples, repeats, "hit/%s/mrcache", name);
}

/* ---- memory ------------------------------------------------------------------------- */

static double allocated(void)
{
	struct mallinfo2 info = mallinfo2();

	return (double)info.uordblks + (double)info.hblkhd;
}

static double resident(void)
{
	unsigned long pages = 0;
	FILE *f = fopen("/proc/self/statm", "re");

	if (!f || fscanf(f, "%*u %lu", &pages) != 1)
		bench_die("no /proc/self/statm");
	fclose(f);
	return (double)pages * 4096;
}

static void memory(size_t count)
{
	struct order o = make_order(BASE, count, LENGTH, LENGTH, 1);
	void *side = side_mrcache.open(false);
	double before, present, fake;

	/* What the thread needs whatever it registers. */
	side_mrcache_release(side, side_mrcache_hold(side, 4096, 4096));
	before = allocated();
	present = resident();
	side_mrcache.hit(side, o.addresses, o.n, o.length);
	fake = (double)side_mrcache_fake_bytes(side);
	bench_value("B", (allocated() - before - fake) / (double)count,
		    "memory/user/%zu/allocated", count);
	bench_value("B", (resident() - present - fake) / (double)count,
		    "memory/user/%zu/resident", count);
	side_mrcache.close(side);
	free(o.addresses);
}

int main(int argc, char **argv)
{
	bench_begin(argc, argv, "What a hit in the cache costs.");
	if (bench_options.quick) {
		repeats = 5;
		turn = 5e6;
	}
	bench_pin(0);
	/* First of all: nothing has been freed yet. */
	memory(1000);
	memory(65536);
	memory(1000000);
	if (side_ucx.missing())
		bench_skip("ucx", side_ucx.missing());

	one_thread("1", 1, false);
	one_thread("256", 256, false);
	one_thread("65536", 65536, false);
	one_thread("1048576", 1048576, false);
	one_thread("1048576+key", 1048576, true);
	two_threads("own-1", 1, true);
	two_threads("own-256", 256, true);
	two_threads("same-1", 1, false);
	two_threads("same-256", 256, false);
	with_noise("unmap", unwatched);
	with_noise("unmap-watched", watched);
	with_noise("counter", counter_only);
	valid("valid", false);
	valid("valid-moved", true);
	within("within", 256);
	within("within-many", 65536);
	give_back("give-back-own", true);
	give_back("give-back-others", false);
	return bench_end();
}
