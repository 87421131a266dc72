/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Threads arm, arm again, read, unwatch and invalidate, all at once, against an
 * oracle: memory whose pages have a version.
 *
 * Between the start and the end of an invalidation each page gets its next
 * version, and after the end that one is `done`. Who arms a watch and then looks
 * at the version of its pages knows of that version. While the word of the watch
 * is what it was armed as, no later version than the known one may be done:
 * docs/abi.md, "Lossless" and "The window". Reads are counted for each watch:
 * none is told more often than it was armed, and when all is quiet each dirty
 * one has been told since.
 *
 * Some invalidations leave the pages, as all do that only change protections;
 * the others replace their frames. A watch with a fingerprint may go on with the
 * frames that were pinned, if the driver says that the pages are the same: then
 * no later frame may be done either.
 *
 * Rounds are short, each with a driver loaded anew, so that what is left, and
 * slots that are lost, come to light.
 *
 * usage: races SECONDS SEED
 */
#include "native.h"
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <time.h>

#define THREADS	  4
#define FILES	  2
#define WATCHES	  24 /* of each thread in each file */
#define PAGES	  32
#define LONGEST	  4	/* pages of a watch or a change */
#define ROUND	  20000 /* operations of a thread */
#define LIMIT	  256	/* watches of a file */
#define MEMORY	  0x10000000UL
#define READ_FLAG 1UL
#define SENTINEL  UINT64_C(0xffff)
#define SLOTLESS  8 /* one in so many has no slot */
#define load(p)	  __atomic_load_n(p, __ATOMIC_ACQUIRE)
#define add(p, n) __atomic_add_fetch(p, n, __ATOMIC_ACQ_REL)

/* How often something has begun, and the last that has ended. */
struct history {
	uint64_t version, done;
};

static struct {
	struct history changes, frames;
} pages[PAGES];

/* A watch is its thread's; others only count what they read of it. */
struct watch {
	bool is_there, has_slot; /* the latter for good */
	unsigned int page, n;
	uint32_t slot, state;
	uint64_t known[LONGEST], pinned[LONGEST]; /* versions */
	uint64_t armed;				  /* how often */
	uint64_t told; /* how often, by whoever read it */
	uint64_t told_before;
	bool has_print; /* of what is pinned */
	uint64_t print;
	bool must; /* (without a slot) be told more often than before */
};

struct shared_file {
	struct file *file;
	struct native_mapping words, counter_mapping;
	const uint64_t *counter;
	const uint32_t *word_pages[1 + LIMIT * sizeof(uint32_t) / NATIVE_PAGE];
	struct watch watches[THREADS][WATCHES];
	uint64_t sentinels; /* read */
};

static struct shared_file files[FILES];
static uint32_t features; /* of all files of a round */
static struct mm_struct *mm;
static uint64_t operations, same; /* the latter: answers */
static pthread_barrier_t barrier;

static _Thread_local uint64_t random_state;
static _Thread_local unsigned int self;
static _Thread_local uint64_t mine;

static uint32_t below(uint32_t limit)
{
	random_state = random_state * UINT64_C(6364136223846793005) + 1;
	return (uint32_t)((random_state >> 33) % limit);
}

/* Makes room for others where they hurt most. */
static void disturb(void)
{
	if (!below(128))
		sched_yield();
}

static void pause_a_while(void)
{
	if (!below(16))
		sched_yield();
	for (unsigned int i = below(64); i; i--)
		__builtin_ia32_pause();
}

static uint64_t address(unsigned int page)
{
	return MEMORY + page * NATIVE_PAGE;
}

static uint64_t cookie_of(unsigned int thread, unsigned int i)
{
	return (uint64_t)thread << 8 | i;
}

static uint32_t word(const struct shared_file *f, uint32_t slot)
{
	const uint32_t *page = f->word_pages[slot * 4 / NATIVE_PAGE];

	return load(&page[slot % (NATIVE_PAGE / 4)]);
}

/* After arming. */
static void look(struct watch *w)
{
	for (unsigned int i = 0; i < w->n; i++)
		w->known[i] = load(&pages[w->page + i].changes.version);
}

static void pin(struct watch *w)
{
	look(w);
	for (unsigned int i = 0; i < w->n; i++)
		w->pinned[i] = load(&pages[w->page + i].frames.version);
}

/* What the page tables have: a version of a page is a frame of its own. */
static uint64_t frame(uint64_t address, bool write)
{
	uint64_t page = (address - MEMORY) / NATIVE_PAGE;
	uint64_t version = load(&pages[page].frames.version);

	CHECK(page < PAGES && write, "page %llu", (unsigned long long)page);
	disturb();
	return (page + 1) << 40 | version;
}

/* ---- operations -------------------------------------------------------------- */

/* Memory is short in some rounds. */
static bool has_failed(long ret)
{
	CHECK(!ret || (ret == -ENOMEM && native_plan.fail_one_in), "%ld", ret);
	return ret;
}

static struct ummunotify_fingerprint ask(struct shared_file *f,
					 const struct watch *w, uint64_t cookie,
					 uint32_t flags)
{
	struct ummunotify_fingerprint print = {
		.size = sizeof(print),
		.flags = flags | UMMUNOTIFY_FINGERPRINT_WRITE,
		.user_cookie = cookie,
		.state = w->state,
		.fingerprint = w->print,
	};
	struct ummunotify_fingerprints all = {
		.size = sizeof(all),
		.fingerprints = (uintptr_t)&print,
		.count = 1,
	};
	long ret = native_ioctl(f->file, UMMUNOTIFY_FINGERPRINT, &all);

	mine++;
	CHECK(!ret && all.done == 1 && !print.error, "%ld, %d", ret,
	      print.error);
	return print;
}

/* Armed and pinned: sometimes the fingerprint is taken, too. */
static void take_print(struct shared_file *f, struct watch *w, uint64_t cookie)
{
	struct ummunotify_fingerprint print;

	w->has_print = false;
	if (!w->has_slot || below(2))
		return;
	pause_a_while();
	print = ask(f, w, cookie, 0);
	w->has_print = print.answer == UMMUNOTIFY_PAGES_SAME;
	w->print = print.fingerprint;
}

static void choose_place(struct watch *w)
{
	w->page = below(PAGES);
	w->n = 1 + below(LONGEST);
	if (w->n > PAGES - w->page)
		w->n = PAGES - w->page;
}

static void make(struct shared_file *f, struct watch *w, uint64_t cookie)
{
	choose_place(w);
	w->told_before = load(&w->told);
	w->must = false;
	mine++;
	if (!w->has_slot) {
		struct ummunotify_register_ioctl r = {
			.start = address(w->page),
			.end = address(w->page + w->n),
			.user_cookie = cookie,
		};

		if (has_failed(native_ioctl(f->file, UMMUNOTIFY_REGISTER_REGION,
					    &r)))
			return;
	} else {
		struct ummunotify_watch_ioctl i = {
			.start = address(w->page),
			.end = address(w->page + w->n),
			.user_cookie = cookie,
		};

		if (has_failed(native_ioctl(f->file, UMMUNOTIFY_WATCH, &i)))
			return;
		w->slot = i.slot;
		w->state = i.state;
		CHECK(i.slot < LIMIT, "slot %u", i.slot);
	}
	w->armed++;
	w->is_there = true;
	pin(w);
	take_print(f, w, cookie);
}

static void rearm(struct shared_file *f, struct watch *w, uint64_t cookie)
{
	struct ummunotify_rearm_ioctl r = {.user_cookie = cookie};
	uint64_t told = load(&w->told);
	long ret;

	/* Before it is armed: what is told from now on may be of this time. */
	w->armed++;
	ret = native_ioctl(f->file, UMMUNOTIFY_REARM, &r);
	mine++;
	CHECK(!ret && r.slot == w->slot && r.state != w->state,
	      "%ld, slot %u, state 0x%x", ret, r.slot, r.state);
	w->told_before = told;
	w->state = r.state;
	pin(w);
	take_print(f, w, cookie);
}

/* Goes on with what is pinned, or pins anew. */
static void verify(struct shared_file *f, struct watch *w, uint64_t cookie)
{
	uint32_t kinds = word(f, w->slot) & UMMUNOTIFY_STATE_KINDS;
	struct ummunotify_fingerprint print;
	uint64_t told = load(&w->told);

	w->armed++;
	print = ask(f, w, cookie, UMMUNOTIFY_FINGERPRINT_VERIFY);
	if (print.state == w->state) {
		w->armed--;
		CHECK(print.answer == UMMUNOTIFY_PAGES_UNKNOWN, "answer %u",
		      print.answer);
		rearm(f, w, cookie);
		return;
	}
	CHECK(!(kinds & ~UMMUNOTIFY_KIND_CLEAR), "kinds 0x%x", kinds);
	w->told_before = told;
	w->state = print.state;
	if (print.answer == UMMUNOTIFY_PAGES_SAME) {
		add(&same, 1);
		look(w);
		return;
	}
	pin(w);
	take_print(f, w, cookie);
}

static void end(struct shared_file *f, struct watch *w, uint64_t cookie)
{
	long ret = native_ioctl(f->file, UMMUNOTIFY_UNREGISTER_REGION, &cookie);

	mine++;
	CHECK(!ret, "%ld", ret);
	w->is_there = false;
}

/* Whether its word says that nothing happened to it, which must be true. */
static bool is_clean(const struct shared_file *f, const struct watch *w)
{
	uint64_t changed[LONGEST], replaced[LONGEST];
	uint32_t now;

	for (unsigned int i = 0; i < w->n; i++) {
		changed[i] = load(&pages[w->page + i].changes.done);
		replaced[i] = load(&pages[w->page + i].frames.done);
	}
	now = word(f, w->slot);
	if (now != w->state) {
		CHECK((now ^ w->state) < UMMUNOTIFY_STATE_FREE,
		      "word 0x%x, armed as 0x%x", now, w->state);
		return false;
	}
	for (unsigned int i = 0; i < w->n; i++) {
		CHECK(changed[i] <= w->known[i],
		      "page %u is version %llu, known %llu, and the word is clean",
		      w->page + i, (unsigned long long)changed[i],
		      (unsigned long long)w->known[i]);
		CHECK(replaced[i] <= w->pinned[i],
		      "page %u is frame %llu, pinned %llu, and the word is clean",
		      w->page + i, (unsigned long long)replaced[i],
		      (unsigned long long)w->pinned[i]);
	}
	return true;
}

/* All of the thread's that are dirty, elsewhere, in one call. */
static void rearm_many(struct shared_file *f)
{
	struct ummunotify_arm arms[WATCHES] = {0};
	struct watch *these[WATCHES];
	uint64_t told[WATCHES];
	struct ummunotify_arm_many many = {
		.size = sizeof(many),
		.arms = (uintptr_t)arms,
	};
	unsigned int n = 0;
	long ret;

	for (unsigned int i = 0; i < WATCHES; i++) {
		struct watch *w = &f->watches[self][i];
		uint64_t cookie = cookie_of(self, i);

		if (!w->is_there || !w->has_slot || is_clean(f, w))
			continue;
		choose_place(w);
		w->armed++;
		told[n] = load(&w->told);
		arms[n] = (struct ummunotify_arm){
			.size = sizeof(*arms),
			.user_cookie = cookie,
			.new_cookie = cookie,
			.start = address(w->page),
			.end = address(w->page + w->n),
			.error = -1,
		};
		these[n++] = w;
	}
	many.count = n;
	/* Sometimes the page of an answer is not there right now. */
	native_plan.absent = below(8) ? 0 : 1;
	ret = native_ioctl(f->file, UMMUNOTIFY_ARM_MANY, &many);
	native_plan.absent = 0;
	mine += n;
	CHECK(!ret && many.done == n, "%ld, %u of %u", ret, many.done, n);
	for (unsigned int i = 0; i < n; i++) {
		struct watch *w = these[i];

		CHECK(!arms[i].error && arms[i].slot == w->slot &&
			      arms[i].state != w->state,
		      "%d, slot %u, state 0x%x", arms[i].error, arms[i].slot,
		      arms[i].state);
		w->told_before = told[i];
		w->state = arms[i].state;
		pin(w);
		take_print(f, w, arms[i].user_cookie);
	}
}

struct change {
	struct native_change change;
	unsigned int page, n;
	bool is_filtered; /* says nothing */
	bool replaces;	  /* the frames */
	uint64_t versions[LONGEST], frames[LONGEST];
};

static bool covers(const struct change *c, const struct watch *w)
{
	return w->is_there && w->page < c->page + c->n &&
	       c->page < w->page + w->n;
}

static void choose(struct change *c)
{
	static const unsigned int kinds[] = {
		UMMUNOTIFY_KIND_UNMAP, UMMUNOTIFY_KIND_CLEAR,
		UMMUNOTIFY_KIND_PROTECTION, UMMUNOTIFY_KIND_OTHER};
	unsigned int kind = kinds[below(4)];

	c->page = below(PAGES);
	c->n = 1 + below(LONGEST);
	if (c->n > PAGES - c->page)
		c->n = PAGES - c->page;
	c->change = (struct native_change){
		.mm = mm,
		.start = address(c->page),
		.end = address(c->page + c->n),
		.event = native_event(kind),
		.may_sleep = below(2),
	};
	c->replaces = kind != UMMUNOTIFY_KIND_PROTECTION &&
		      (kind != UMMUNOTIFY_KIND_CLEAR || below(2));
	c->is_filtered = kind == UMMUNOTIFY_KIND_PROTECTION &&
			 features & UMMUNOTIFY_FEATURE_FILTER;
}

/* What was announced is known at once to who announced it. */
static void begin(struct change *c)
{
	struct shared_file *f = &files[below(FILES)];
	uint64_t counter = load(f->counter);
	bool grows = false;

	choose(c);
	for (unsigned int i = 0; i < WATCHES && !c->is_filtered; i++) {
		struct watch *w = &f->watches[self][i];

		if (!covers(c, w))
			continue;
		if (!w->has_slot) {
			w->must = true;
			w->told_before = load(&w->told);
		}
		grows |= !w->has_slot || word(f, w->slot) == w->state;
	}
	native_change_begin(&c->change);
	mine++;
	if (c->is_filtered)
		return;
	for (unsigned int i = 0; i < WATCHES; i++) {
		const struct watch *w = &f->watches[self][i];

		CHECK(!covers(c, w) || !w->has_slot ||
			      word(f, w->slot) != w->state,
		      "the word is clean in an invalidation");
	}
	CHECK(!grows || load(f->counter) > counter, "the counter is still %llu",
	      (unsigned long long)counter);
	/* Who arms and pins now has what is about to go. */
	pause_a_while();
	for (unsigned int i = 0; i < c->n; i++) {
		c->versions[i] = add(&pages[c->page + i].changes.version, 1);
		if (c->replaces)
			c->frames[i] =
				add(&pages[c->page + i].frames.version, 1);
	}
}

/* done is at least this, from now on. */
static void end_at(uint64_t *done, uint64_t version)
{
	uint64_t old = load(done);

	while (old < version &&
	       !__atomic_compare_exchange_n(done, &old, version, false,
					    __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		;
}

static void finish(const struct change *c)
{
	native_change_end(&c->change);
	mine++;
	for (unsigned int i = 0; i < c->n && !c->is_filtered; i++) {
		end_at(&pages[c->page + i].changes.done, c->versions[i]);
		if (c->replaces)
			end_at(&pages[c->page + i].frames.done, c->frames[i]);
	}
}

static void change(unsigned int depth)
{
	struct change c;

	begin(&c);
	pause_a_while();
	if (depth && !below(4))
		change(depth - 1);
	finish(&c);
}

static void take_event(struct shared_file *f,
		       const struct ummunotify_event *event)
{
	uint64_t cookie = event->user_cookie_counter;

	CHECK(event->type == UMMUNOTIFY_EVENT_TYPE_INVAL, "type %u",
	      event->type);
	if (cookie == SENTINEL) {
		add(&f->sentinels, 1);
		return;
	}
	CHECK(cookie >> 8 < THREADS && (cookie & 0xff) < WATCHES,
	      "cookie 0x%llx", (unsigned long long)cookie);
	add(&f->watches[cookie >> 8][cookie & 0xff].told, 1);
}

/* False if there was nothing. */
static bool read_some(struct shared_file *f, unsigned int n, bool faults)
{
	struct ummunotify_event events[32];
	ssize_t got;

	if (faults) {
		native_plan.fault_start = (const char *)&events[n - 1] + 5;
		native_plan.fault_end = (const char *)&events[n];
	}
	got = native_read(f->file, events, n * sizeof(*events));
	native_plan.fault_end = NULL;
	mine++;
	if (got == -EFAULT && faults)
		return true;
	if (got == -EAGAIN)
		return false;
	CHECK(got > 0 && got % (ssize_t)sizeof(*events) == 0, "%zd", got);
	n = (unsigned int)((size_t)got / sizeof(*events));
	if (events[n - 1].type == UMMUNOTIFY_EVENT_TYPE_LAST)
		n--;
	for (unsigned int i = 0; i < n; i++)
		take_event(f, &events[i]);
	return true;
}

static struct file *open_new(int flags)
{
	uint32_t mask = UMMUNOTIFY_FEATURES_MAGIC | features;
	struct file *file;
	int ret = native_open(flags, &file);

	if (has_failed(ret))
		return NULL;
	if (has_failed(
		    native_ioctl(file, UMMUNOTIFY_EXCHANGE_FEATURES, &mask))) {
		native_close(file);
		return NULL;
	}
	return file;
}

/* A file of this thread's alone, opened in whatever is going on. */
static void short_life(void)
{
	struct shared_file f = {.file = open_new(O_RDONLY | O_NONBLOCK)};
	struct watch *w = &f.watches[self][0];

	mine += 2;
	if (!f.file)
		return;
	CHECK(!native_mmap(f.file, UMMUNOTIFY_STATE_OFFSET / NATIVE_PAGE,
			   NATIVE_PAGE, READ_FLAG, &f.words),
	      "mmap");
	w->has_slot = true;
	make(&f, w, 1);
	if (w->is_there) {
		f.word_pages[0] = native_fault(&f.words, 0);
		for (unsigned int i = below(20); i; i--) {
			if (!is_clean(&f, w))
				rearm(&f, w, 1);
			pause_a_while();
		}
		native_put_page((void *)f.word_pages[0]);
	}
	native_munmap(&f.words);
	native_close(f.file);
	native_settle();
}

static void look_around(struct shared_file *f)
{
	struct ummunotify_query_ioctl q;
	char text[2048];

	CHECK(!native_ioctl(f->file, UMMUNOTIFY_QUERY, &q) &&
		      q.watches <= LIMIT,
	      "%llu watches", (unsigned long long)q.watches);
	native_fdinfo(f->file, text, sizeof(text));
	native_poll(f->file);
	mine += 3;
}

static void work(unsigned int n)
{
	while (n--) {
		unsigned int of = below(FILES), i = below(WATCHES),
			     what = below(256);
		struct shared_file *f = &files[of];
		struct watch *w = &f->watches[self][i];

		if (what == 0)
			look_around(f);
		else if (what == 1)
			short_life();
		else if (what < 4)
			rearm_many(f);
		else if (what < 40)
			change(2);
		else if (what < 80 &&
			 of) /* the first one would make it sleep */
			read_some(f, 1 + what % 32, what < 44);
		else if (!w->is_there)
			make(f, w, cookie_of(self, i));
		else if (what < 100)
			end(f, w, cookie_of(self, i));
		else if (w->has_slot && (!is_clean(f, w) || what < 104)) {
			if (w->has_print)
				verify(f, w, cookie_of(self, i));
			else
				rearm(f, w, cookie_of(self, i));
		}
	}
}

/* ---- a round ------------------------------------------------------------------ */

struct start {
	pthread_t thread;
	unsigned int number;
	uint64_t seed;
	unsigned int fail_one_in;
};

static void *run_worker(void *arg)
{
	const struct start *start = arg;

	self = start->number;
	random_state = start->seed;
	native_become(mm, 0, false);
	native_plan.at_unlock = disturb;
	native_plan.fail_one_in = start->fail_one_in;
	native_plan.random = start->seed;
	mine = 0;
	pthread_barrier_wait(&barrier);
	work(ROUND);
	add(&operations, mine);
	return NULL;
}

/* Sleeps until there is something, until the sentinel comes. */
static void *run_reader(void *arg)
{
	struct shared_file *f = &files[0];
	const struct start *start = arg;

	random_state = start->seed;
	native_become(mm, 0, false);
	mine = 0;
	pthread_barrier_wait(&barrier);
	while (!load(&f->sentinels))
		read_some(f, 1 + below(32), false);
	add(&operations, mine);
	return NULL;
}

static void open_files(void)
{
	for (unsigned int i = 0; i < FILES; i++) {
		struct shared_file *f = &files[i];

		memset(f, 0, sizeof(*f));
		for (unsigned int j = 0; j < THREADS * WATCHES; j++)
			f->watches[j / WATCHES][j % WATCHES].has_slot =
				j % SLOTLESS;
		/* The first one has a reader that sleeps. */
		f->file = open_new(O_RDONLY | (i ? O_NONBLOCK : 0));
		CHECK(!native_mmap(f->file, 0, NATIVE_PAGE, READ_FLAG,
				   &f->counter_mapping),
		      "counter");
		CHECK(!native_mmap(f->file,
				   UMMUNOTIFY_STATE_OFFSET / NATIVE_PAGE,
				   NATIVE_PAGE, READ_FLAG, &f->words),
		      "words");
		f->counter = native_fault(&f->counter_mapping, 0);
	}
}

/* One watch that stays, so that there are words; it is outside the memory. */
static void watch_sentinels(void)
{
	for (unsigned int i = 0; i < FILES; i++) {
		struct ummunotify_register_ioctl r = {
			.start = address(2 * PAGES),
			.end = address(2 * PAGES + 1),
			.user_cookie = SENTINEL,
		};
		struct ummunotify_watch_ioctl w = {
			.start = address(3 * PAGES),
			.end = address(3 * PAGES + 1),
			.user_cookie = SENTINEL + 1,
		};

		CHECK(!native_ioctl(files[i].file, UMMUNOTIFY_REGISTER_REGION,
				    &r),
		      "sentinel");
		/* The page of the words may fail to be had, at first. */
		native_plan.fail_after = 1 + below(3);
		if (native_ioctl(files[i].file, UMMUNOTIFY_WATCH, &w)) {
			native_plan.fail_after = 0;
			CHECK(!native_ioctl(files[i].file, UMMUNOTIFY_WATCH,
					    &w),
			      "words");
		}
		native_plan.fail_after = 0;
		files[i].word_pages[0] = native_fault(&files[i].words, 0);
		CHECK(files[i].word_pages[0], "no page");
	}
}

static void hit_sentinels(void)
{
	struct native_change c = {
		.mm = mm,
		.start = address(2 * PAGES),
		.end = address(2 * PAGES + 1),
		.event = native_event(UMMUNOTIFY_KIND_CLEAR),
		.may_sleep = true,
	};

	native_change_begin(&c);
	native_change_end(&c);
}

/* All is quiet. */
static void check_file(struct shared_file *f)
{
	uint64_t cookie = SENTINEL;
	unsigned int n = 1;

	native_set_flags(f->file, O_RDONLY | O_NONBLOCK);
	while (read_some(f, 32, false))
		;
	CHECK(f->sentinels, "the sentinel was not reported");
	CHECK(!native_ioctl(f->file, UMMUNOTIFY_UNREGISTER_REGION, &cookie),
	      "unregister");
	for (unsigned int i = 0; i < THREADS * WATCHES; i++) {
		const struct watch *w = &f->watches[i / WATCHES][i % WATCHES];

		CHECK(!w->has_slot || w->told <= w->armed,
		      "told %llu times, armed %llu",
		      (unsigned long long)w->told,
		      (unsigned long long)w->armed);
		if (!w->is_there)
			continue;
		if (w->has_slot) {
			CHECK(is_clean(f, w) || w->told > w->told_before,
			      "a dirty watch was not reported");
			n++;
			continue;
		}
		CHECK(!w->must || w->told > w->told_before, "a report is lost");
		cookie = cookie_of(i / WATCHES, i % WATCHES);
		CHECK(!native_ioctl(f->file, UMMUNOTIFY_UNREGISTER_REGION,
				    &cookie),
		      "unregister");
	}
	/* Every slot can be had. */
	for (cookie = 1 << 20;; cookie++, n++) {
		struct ummunotify_watch_ioctl w = {
			.start = MEMORY,
			.end = MEMORY + 1,
			.user_cookie = cookie,
		};
		long ret = native_ioctl(f->file, UMMUNOTIFY_WATCH, &w);

		CHECK(!ret || ret == -ENOSPC, "%ld", ret);
		if (ret)
			break;
	}
	CHECK(n == LIMIT, "%u watches instead of %u", n, LIMIT);
}

static void close_files(void)
{
	for (unsigned int i = 0; i < FILES; i++) {
		struct shared_file *f = &files[i];

		native_put_page((void *)f->counter);
		native_put_page((void *)f->word_pages[0]);
		native_munmap(&f->counter_mapping);
		native_munmap(&f->words);
		native_close(f->file);
	}
}

static void run_round(uint64_t seed)
{
	struct start starts[THREADS + 1];
	unsigned int fail_one_in = below(2) ? 0 : 16;

	features = UMMUNOTIFY_FEATURE_STATE | UMMUNOTIFY_FEATURE_KIND |
		   UMMUNOTIFY_FEATURE_FINGERPRINT |
		   (below(2) ? UMMUNOTIFY_FEATURE_FILTER : 0);
	native_set("max_watches", LIMIT);
	CHECK(!native_load(), "load");
	mm = native_new_mm();
	native_add_memory(mm, MEMORY, address(PAGES), NATIVE_ANONYMOUS);
	native_become(mm, 0, false);
	memset(pages, 0, sizeof(pages));
	open_files();
	watch_sentinels();
	for (unsigned int i = 0; i <= THREADS; i++) {
		starts[i] = (struct start){
			.number = i,
			.seed = seed * 31 + i,
			.fail_one_in = fail_one_in,
		};
		if (pthread_create(&starts[i].thread, NULL,
				   i < THREADS ? run_worker : run_reader,
				   &starts[i]))
			abort();
	}
	for (unsigned int i = 0; i < THREADS; i++)
		pthread_join(starts[i].thread, NULL);
	hit_sentinels();
	pthread_join(starts[THREADS].thread, NULL);
	for (unsigned int i = 0; i < FILES; i++)
		check_file(&files[i]);
	close_files();
	native_end_mm(mm);
	native_unload();
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	double begin = now(), seconds;
	uint64_t seed, rounds = 0;

	if (argc != 3) {
		fputs("usage: races SECONDS SEED\n", stderr);
		return 2;
	}
	seconds = strtod(argv[1], NULL);
	seed = strtoull(argv[2], NULL, 10);
	pthread_barrier_init(&barrier, NULL, THREADS + 1);
	random_state = seed;
	native_frame = frame;
	do
		run_round(seed + rounds++);
	while (now() - begin < seconds);
	CHECK(same, "no pages were ever the same");
	printf("%llu operations in %llu rounds, %.0f/s; %llu times the same "
	       "pages\n",
	       (unsigned long long)operations, (unsigned long long)rounds,
	       (double)operations / (now() - begin), (unsigned long long)same);
	return 0;
}
