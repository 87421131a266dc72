/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Calls of one thread against a model of docs/abi.md. An input is a program of
 * calls, and of invalidations whose start and end are steps of their own, so
 * that the window is as wide as the input likes. A step may be interrupted:
 * where the driver lets go of its lock, writes to the program or sleeps, other
 * steps run as another task. User memory faults and memory is short on demand.
 *
 * The model is exact. Only what the order of interrupted steps leaves open is
 * taken from the driver: of watches with a slot from their state word, of
 * others a report that may or may not come.
 */
#include "native.h"
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>

#define FILES	4
#define WATCHES 48
#define CHANGES 4
#define STEPS	200
#define MMS	2
#define PAGE	NATIVE_PAGE

#define UMN_ALL                                                \
	(UMMUNOTIFY_FEATURE_FILTER | UMMUNOTIFY_FEATURE_KIND | \
	 UMMUNOTIFY_FEATURE_STATE | UMMUNOTIFY_FEATURE_FINGERPRINT)
#define LIMIT	     300 /* in watches; an open file is some 70 */
#define MOST_CHARGED 120
#define HARMLESS                                                   \
	(UMMUNOTIFY_KIND_PROTECTION | UMMUNOTIFY_KIND_SOFT_DIRTY | \
	 UMMUNOTIFY_KIND_MIGRATE)
#define VM_READ_       1UL
#define VM_WRITE_      2UL
#define VM_MAYWRITE_   0x20UL
#define VM_DONTEXPAND_ 0x40000UL

/* The memory of each process, in pages from BASE: docs/abi.md, CACHEABLE. */
#define BASE  0x10000000UL
#define SPACE 64
static const struct {
	unsigned int start, end;
	enum native_memory kind;
	uint32_t says;
} memory[] = {
	{0, 16, NATIVE_ANONYMOUS, 0},
	{16, 20, NATIVE_ANONYMOUS, 0},
	{24, 28, NATIVE_IO, UMMUNOTIFY_MEMORY_DEVICE},
	{28, 32, NATIVE_DAX, UMMUNOTIFY_MEMORY_DAX},
	{32, 36, NATIVE_CHARDEV, UMMUNOTIFY_MEMORY_DEVICE},
	{36, SPACE, NATIVE_ANONYMOUS, 0},
};

enum pending { NO, YES, MAYBE };

struct watch {
	uint64_t cookie, start, end;
	bool has_slot;
	uint32_t slot;
	uint32_t state;	 /* as armed */
	bool dirty;	 /* hit since it was armed */
	bool touched;	 /* made or armed while another step was under way */
	unsigned int id; /* of this watch, armed this time */
	unsigned int during; /* changes in flight when it was armed, a mask */
	/* The report, from the first hit on. */
	enum pending pending;
	uint32_t first, all; /* kinds */
	unsigned int hits;
	uint64_t hint_start, hint_end;
	bool same_hint;
	bool vague; /* the report is there, what it says is not known */
};

struct fd {
	struct file *file; /* NULL: none */
	unsigned int mm;
	uint32_t features;
	bool used, owed, async;
	bool filters; /* harmless kinds */
	uint64_t generation;
	struct native_mapping counter, states;
	const uint64_t *counter_page;
	const uint32_t *state_pages[2];
	struct watch watches[WATCHES];
	unsigned int n;
};

/* What an interrupted step is about. */
enum outer { NOTHING, NEGOTIATING, A_CALL, MAKING, READING, CHANGING };

static struct {
	struct input in;
	struct fd files[FILES];
	struct mm_struct *mms[MMS];
	struct native_change changes[CHANGES];
	uint32_t kinds[CHANGES]; /* 0: not in flight */
	unsigned long max_watches;
	enum outer outer;
	struct fd *outer_file;
	uint64_t outer_cookie, outer_other;
	unsigned int outer_change;
	unsigned int skip; /* unlocks before the interruption */
	bool interrupted, is_inner;
	bool tagged;	 /* the range taken last */
	uint64_t cookie; /* of the watch that is being made */
	bool legacy_filter;
	/* A user, or all together, soon have all that they may; or neither. */
	bool tight, tight_for_all;
} m;

static void inner_step(void);

/* Says what it does, where TRACE is set: for one input. */
static bool tracing;
#define trace(...) ((void)(tracing && dprintf(2, __VA_ARGS__)))

/* ---- the model: watches --------------------------------------------------------- */

static unsigned int in_flight(unsigned int mm)
{
	unsigned int mask = 0;

	for (unsigned int i = 0; i < CHANGES; i++)
		if (m.kinds[i] && m.changes[i].mm == m.mms[mm])
			mask |= 1u << i;
	return mask;
}

static bool filters(const struct fd *f, uint32_t kind)
{
	return kind & HARMLESS && f->filters;
}

static struct watch *find(struct fd *f, uint64_t cookie)
{
	for (unsigned int i = 0; i < f->n; i++)
		if (f->watches[i].cookie == cookie)
			return &f->watches[i];
	return NULL;
}

static uint32_t word(const struct fd *f, const struct watch *w)
{
	const uint32_t *page = f->state_pages[w->slot / 1024];

	return __atomic_load_n(&page[w->slot % 1024], __ATOMIC_ACQUIRE);
}

static void arm(struct fd *f, struct watch *w)
{
	static unsigned int ids;

	w->id = ++ids;
	w->vague = false;
	w->dirty = false;
	w->pending = NO;
	w->during = in_flight(f->mm);
	w->touched = m.outer != NOTHING;
}

static void pend(struct watch *w, uint32_t kind, uint64_t start, uint64_t end)
{
	w->pending = YES;
	w->hits = 1;
	w->first = w->all = kind;
	w->same_hint = true;
	w->vague = false;
	w->hint_start = start;
	w->hint_end = end;
}

static bool covers(const struct watch *w, const struct native_change *c)
{
	uint64_t end = w->end > w->start ? w->end : w->start + 1;

	return c->start < c->end && w->start < c->end && c->start < end;
}

/* Whether the counter must grow by this. */
static bool hit(struct watch *w, const struct native_change *c, uint32_t kind,
		bool at_end)
{
	uint64_t start = w->start > c->start ? w->start : c->start;
	uint64_t end = w->end < c->end ? w->end : c->end;
	/* Told once, until it is armed again. */
	if (w->has_slot && w->dirty)
		return false;
	w->dirty = true;
	if (w->pending == NO) {
		pend(w, kind, start, end);
		return true;
	}
	/* Its start may be what it was told by. */
	if (at_end && kind & HARMLESS)
		return false;
	w->hits++;
	w->all |= kind;
	w->same_hint &= w->hint_start == start && w->hint_end == end;
	return !at_end;
}

/* It was hit, or not, while it was made or armed: its word knows. */
static void look(struct fd *f, struct watch *w)
{
	if (w->has_slot && word(f, w) == w->state)
		return;
	if (w->pending == NO && !(w->has_slot && w->dirty))
		w->pending = w->has_slot ? YES : MAYBE;
	w->dirty = true;
	w->vague = true;
}

static uint64_t counter(const struct fd *f)
{
	return __atomic_load_n(f->counter_page, __ATOMIC_ACQUIRE);
}

/* What was there before an invalidation is hit. */
static void invalidate(unsigned int i, bool at_end)
{
	const struct native_change *c = &m.changes[i];
	uint32_t kind = m.kinds[i];
	unsigned int must[FILES] = {0}, may[FILES] = {0};
	uint64_t before[FILES];
	unsigned long signals = native_signals(), wanted = 0;
	bool inner = m.is_inner;

	for (unsigned int j = 0; j < FILES; j++) {
		if (!m.files[j].file)
			continue;
		before[j] = m.files[j].generation;
		for (unsigned int k = 0; k < m.files[j].n; k++)
			m.files[j].watches[k].touched = false;
	}
	m.interrupted = false;
	trace("%s of %u, kind 0x%x, 0x%llx to 0x%llx\n",
	      at_end ? "end" : "start", i, kind, (unsigned long long)c->start,
	      (unsigned long long)c->end);
	if (at_end) {
		m.kinds[i] = 0;
		native_change_end(c);
	} else {
		native_change_begin(c);
	}
	for (unsigned int j = 0; j < FILES; j++) {
		struct fd *f = &m.files[j];

		if (!f->file)
			continue;
		for (unsigned int k = 0; k < f->n; k++) {
			struct watch *w = &f->watches[k];

			if (m.mms[f->mm] != c->mm || filters(f, kind) ||
			    !covers(w, c))
				continue;
			/* See unplan(). */
			if (inner && f == m.outer_file &&
			    w->cookie == m.outer_cookie)
				continue;
			if (w->touched)
				look(f, w);
			else if (!at_end || w->during & 1u << i)
				must[j] |= hit(w, c, kind, at_end);
			else
				continue;
			may[j] |= !w->has_slot || must[j] || w->touched;
			/* Which of two was first is not known. */
			w->vague |= m.outer == CHANGING && inner;
		}
		for (unsigned int k = 0; k < f->n; k++)
			f->watches[k].during &= ~(at_end ? 1u << i : 0);
		wanted += must[j] && f->async;
		/* Of a watch that is being made or moved nothing is known. */
		may[j] += inner && m.outer_file == f;
		if (m.interrupted || (inner && m.outer == CHANGING)) {
			/* Steps in between have looked at it, too. */
			CHECK(counter(f) >= before[j] + (must[j] > 0),
			      "counter");
		} else {
			CHECK(counter(f) >= before[j] + (must[j] > 0) &&
				      counter(f) <= before[j] + (may[j] > 0),
			      "the counter was %llu, is %llu; hits %u",
			      (unsigned long long)before[j],
			      (unsigned long long)counter(f), may[j]);
		}
		f->generation = counter(f);
	}
	CHECK((inner && m.outer == CHANGING) ||
		      native_signals() - signals >= wanted,
	      "no SIGIO");
}

/* ---- interruptions ------------------------------------------------------------------ */

static void at_unlock(void)
{
	if (m.skip--)
		return;
	native_plan.at_unlock = NULL;
	inner_step();
}

static void at_copy(void)
{
	inner_step();
}

/* A step of another task comes in between, if the input says so. */
static void plan(enum outer outer, struct fd *f, uint64_t cookie)
{
	uint8_t byte = take_byte(&m.in);

	m.outer = outer;
	m.outer_file = f;
	m.outer_cookie = m.outer_other = cookie;
	m.interrupted = false;
	native_plan = (struct native_plan){0};
	if (byte & 1 && outer != READING) {
		m.skip = byte >> 1 & 7;
		native_plan.at_unlock = at_unlock;
	}
	if (byte & 16)
		native_plan.at_copy = at_copy;
	native_plan.absent = byte & 32 ? byte >> 6 : 0;
	if ((byte & 0xe0) == 0xe0)
		native_plan.fail_after = 1 + (byte >> 2 & 3);
}

static void unplan(void)
{
	struct watch *w = NULL;

	/* What happened to it meanwhile is not known. */
	if (m.interrupted && (m.outer == A_CALL || m.outer == MAKING))
		w = find(m.outer_file, m.outer_cookie);
	if (w)
		look(m.outer_file, w);
	native_plan = (struct native_plan){0};
	m.outer = NOTHING;
}

/* ---- arguments ---------------------------------------------------------------------- */

static struct fd *take_file(void)
{
	struct fd *f = &m.files[take_byte(&m.in) % FILES];

	return f->file ? f : &m.files[0];
}

/* One there is, near one, or a small number. */
static uint64_t take_cookie(const struct fd *f)
{
	uint8_t byte = take_byte(&m.in);

	if (f->n && byte & 1)
		return f->watches[(byte >> 3) % f->n].cookie +
		       (byte & 6 ? 0 : 1);
	return byte == 0xfe ? UINT64_MAX : byte >> 1;
}

static void take_range(uint64_t *start, uint64_t *end)
{
	uint8_t byte = take_byte(&m.in), more = take_byte(&m.in);

	m.tagged = byte >= 8 && more & 32;
	if (byte < 8) {
		*start = byte & 1 ? UINT64_MAX - more : more;
		*end = byte & 2 ? UINT64_MAX : *start + (byte >> 2) - 1;
		return;
	}
	*start = BASE + byte % SPACE * PAGE;
	*end = *start + (more & 7) * PAGE + (more >> 3 & 3) * 64;
	if (more & 128)
		*start += 100;
	if (more == 7)
		*end = BASE + SPACE * PAGE;
}

/* What is asked for may have a tag; what it stands for has none. */
static uint64_t pointer(uint64_t addr)
{
	return m.tagged ? addr ^ UINT64_C(0x2a) << 56 : addr;
}

static uint64_t untagged(uint64_t addr)
{
	return (uint64_t)((int64_t)(addr << 8) >> 8);
}

enum place { GOOD, READ_ONLY, BAD };

/* Calls with an argument that is somewhere. */
static long call(struct fd *f, unsigned int request, void *argument,
		 size_t size, enum place *place)
{
	uint8_t byte = take_byte(&m.in);
	long ret;

	*place = byte < 16 ? BAD : byte < 32 ? READ_ONLY : GOOD;
	if (*place != GOOD) {
		/* From its last byte on. */
		native_plan.fault_start =
			(char *)argument + (byte & 1 ? size - 1 : 0);
		native_plan.fault_end = (char *)argument + size;
		native_plan.readable = *place == READ_ONLY;
	}
	native_become(m.mms[f->mm], f->mm, false);
	ret = native_ioctl(f->file, request, argument);
	native_plan.fault_end = NULL;
	return ret;
}

/* Memory was short, which may be the answer. */
static bool has_failed(unsigned int asked, long ret)
{
	return asked && !native_plan.fail_after && ret == -ENOMEM;
}

static void expect(const char *what, long ret, long expected)
{
	trace("%s: %ld\n", what, ret);
	CHECK(ret == expected, "%s: %ld, should be %ld", what, ret, expected);
}

/* ---- calls ------------------------------------------------------------------------------ */

static void map(struct fd *f)
{
	CHECK(!native_mmap(f->file, 0, PAGE, VM_READ_, &f->counter), "mmap");
	f->counter_page = native_fault(&f->counter, 0);
	CHECK(f->counter_page && !counter(f), "counter");
}

static void map_states(struct fd *f)
{
	unsigned long size = (m.max_watches * 4 + PAGE - 1) & ~(PAGE - 1);

	if (!(f->features & UMMUNOTIFY_FEATURE_STATE) || f->states.vma)
		return;
	CHECK(!native_mmap(f->file, UMMUNOTIFY_STATE_OFFSET / PAGE, size,
			   VM_READ_, &f->states),
	      "mmap");
}

static unsigned long long value_of(const char *text, const char *name)
{
	const char *line = strstr(text, name);

	CHECK(line, "fdinfo has no %s", name);
	return strtoull(line + strlen(name), NULL, 0);
}

static unsigned long long fdinfo_of(const struct fd *f, const char *name)
{
	struct native_plan plan = native_plan;
	char text[4096];

	/* It is not part of the step. */
	native_plan = (struct native_plan){0};
	native_fdinfo(f->file, text, sizeof(text));
	native_plan = plan;
	return value_of(text, name);
}

/* What counts for the limit that is near: of its user, or of all. */
static unsigned long long held(const struct fd *f)
{
	unsigned long long n = fdinfo_of(f, "ummunotify-user-holds:");

	for (unsigned int i = 0; m.tight_for_all && i < FILES; i++)
		if (m.files[i].file && m.files[i].mm != f->mm) {
			n += fdinfo_of(&m.files[i], "ummunotify-user-holds:");
			break;
		}
	return n;
}

/* Whether that may be the answer: the most that a call may charge. */
static bool is_charged(const struct fd *f)
{
	return m.tight && held(f) + MOST_CHARGED >= LIMIT;
}

static long negotiate(struct fd *f, uint32_t mask, long expected)
{
	uint32_t magic = 0, granted = 0;
	unsigned int fails = native_plan.fail_after;
	enum place place;
	long ret;

	if ((mask & UMMUNOTIFY_FEATURES_MAGIC_MASK) ==
	    UMMUNOTIFY_FEATURES_MAGIC) {
		magic = UMMUNOTIFY_FEATURES_MAGIC;
		granted = mask & UMN_ALL;
	}
	ret = call(f, UMMUNOTIFY_EXCHANGE_FEATURES, &mask, sizeof(mask),
		   &place);
	if (place == BAD)
		expected = -EFAULT;
	else if (has_failed(fails, ret))
		expected = -ENOMEM;
	else if (ret == -ENOSPC && is_charged(f))
		expected = ret;
	else if (f->used)
		expected = -EINVAL;
	else if (place == READ_ONLY)
		expected = -EFAULT;
	expect("EXCHANGE_FEATURES", ret, expected);
	if (place == BAD || f->used || ret == -ENOMEM || ret == -ENOSPC)
		return ret;
	f->used = true;
	f->features = granted;
	if (magic)
		f->filters = granted & UMMUNOTIFY_FEATURE_FILTER;
	CHECK(ret || mask == (magic | granted), "mask 0x%x", mask);
	map_states(f);
	return ret;
}

static void exchange(void)
{
	struct fd *f = take_file();
	uint8_t byte = take_byte(&m.in);
	uint32_t mask = byte & 0x3f;

	mask |= byte & 0x40 ? UMMUNOTIFY_FEATURES_MAGIC : 0;
	mask |= byte & 0x80 ? 0x12340000 : 0;
	plan(NEGOTIATING, NULL, 0);
	negotiate(f, mask, 0);
	unplan();
}

/* An address space gets its first notifier only when all is quiet. */
static void drain(struct mm_struct *mm)
{
	for (unsigned int i = 0; i < CHANGES; i++)
		if (m.kinds[i] && m.changes[i].mm == mm)
			invalidate(i, true);
}

/* What arrives in the file now must be there from its first watch on. */
static void open_file(void)
{
	uint8_t byte = take_byte(&m.in);
	struct fd *f = &m.files[byte % FILES];
	struct file *file = NULL;
	unsigned int fails;
	int ret;

	if (f->file)
		return;
	memset(f, 0, sizeof(*f));
	f->filters = m.legacy_filter;
	f->mm = f == &m.files[FILES - 1];
	native_become(m.mms[f->mm], f->mm, false);
	plan(NEGOTIATING, NULL, 0);
	native_plan.at_unlock = native_plan.at_copy = NULL;
	native_plan.at_drain = drain;
	fails = native_plan.fail_after;
	ret = native_open(
		(byte & 0xc0) == 0xc0 ? O_RDWR : O_RDONLY | O_NONBLOCK, &file);
	unplan();
	/* What a user has is seen in its other files. */
	if (has_failed(fails, ret) || (ret == -ENOSPC && m.tight))
		return;
	expect("open", ret, (byte & 0xc0) == 0xc0 ? -EINVAL : 0);
	if (ret)
		return;
	f->file = file;
	map(f);
	/* Mostly with features, as programs do. */
	if (byte & 0x38)
		negotiate(f,
			  UMMUNOTIFY_FEATURES_MAGIC |
				  ((byte >> 3 & UMN_ALL) ^ 4),
			  0);
}

static void close_file(struct fd *f)
{
	if (!f->file)
		return;
	native_put_page((void *)f->counter_page);
	native_munmap(&f->counter);
	for (unsigned int i = 0; i < 2; i++)
		if (f->state_pages[i])
			native_put_page((void *)f->state_pages[i]);
	if (f->states.vma)
		native_munmap(&f->states);
	native_become(m.mms[f->mm], f->mm, false);
	native_close(f->file);
	f->file = NULL;
	f->n = 0;
}

static void close_any(void)
{
	uint8_t byte = take_byte(&m.in);

	close_file(&m.files[byte % FILES]);
	if (byte & 128)
		native_settle();
}

/* What another step already does something to is left alone. */
static bool is_busy(const struct fd *f, uint64_t cookie)
{
	return m.outer != NOTHING && m.outer_file == f &&
	       (m.outer_cookie == cookie || m.outer_other == cookie ||
		(m.outer == MAKING && native_holds_mutex()));
}

/*
 * Of steps at once each may count, or not, when a limit is looked at. Of two
 * reasons it is nobody's business which comes first.
 */
static long limited(const struct fd *f, long ret, long expected)
{
	bool at_once = m.is_inner || m.interrupted;

	if (ret == -ENOSPC &&
	    (f->n + at_once >= m.max_watches || is_charged(f)))
		return ret;
	return at_once && expected == -ENOSPC && !find((struct fd *)f, m.cookie)
		       ? ret
		       : expected;
}

static void check_limit(const struct fd *f)
{
	CHECK(!m.tight || held(f) <= LIMIT, "a user has more than a user may");
}

static struct watch *add_watch(struct fd *f, uint64_t start, uint64_t end,
			       uint64_t cookie)
{
	struct watch *w = &f->watches[f->n++];

	check_limit(f);
	/* Who passes the last byte instead of the end. */
	*w = (struct watch){.cookie = cookie,
			    .start = start,
			    .end = end > start ? end : start};
	return w;
}

static void register_(void)
{
	struct fd *f = take_file();
	uint64_t cookie = take_cookie(f), start, end;
	uint8_t byte = take_byte(&m.in);
	struct ummunotify_register_ioctl now;
	struct ummunot_register_ioctl old;
	bool inner = m.outer != NOTHING, wrong;
	unsigned int fails;
	enum place place;
	long ret, expected = 0;

	take_range(&start, &end);
	if (f->n == WATCHES || is_busy(f, cookie))
		return;
	old = (struct ummunot_register_ioctl){
		.intf_version = byte & 6 ? 1 : byte,
		.start = pointer(start),
		.end = pointer(end),
		.user_cookie = cookie,
	};
	now = (struct ummunotify_register_ioctl){
		.start = pointer(start),
		.end = pointer(end),
		.user_cookie = cookie,
		.flags = byte,
		.reserved = byte,
	};
	wrong = byte & 1 && old.intf_version != UMMUNOT_INTF_VERSION;
	if (!inner)
		plan(MAKING, f, cookie);
	fails = native_plan.fail_after;
	m.interrupted = false;
	if (byte & 1)
		ret = call(f, UMMUNOT_REGISTER_REGION, &old, sizeof(old),
			   &place);
	else
		ret = call(f, UMMUNOTIFY_REGISTER_REGION, &now, sizeof(now),
			   &place);
	if (place == BAD)
		expected = -EFAULT;
	else if (wrong) /* of a structure only the version is written */
		expected = place == READ_ONLY && ret == -EFAULT ? ret : -EINVAL;
	else if (has_failed(fails, ret))
		expected = -ENOMEM;
	else if (find(f, cookie))
		expected = -EINVAL;
	else if (f->n >= m.max_watches)
		expected = -ENOSPC;
	m.cookie = cookie;
	expect("REGISTER", ret, limited(f, ret, expected));
	CHECK(!wrong || place != GOOD || old.intf_version == 1, "version %u",
	      old.intf_version);
	if (!wrong && place != BAD && ret != -ENOMEM && ret != -ENOSPC)
		f->used = true;
	if (!ret) {
		struct watch *w = add_watch(f, start, end, cookie);

		arm(f, w);
		if (m.interrupted)
			look(f, w);
	}
	if (!inner)
		unplan();
}

static uint32_t memory_of(uint64_t start, uint64_t end)
{
	uint32_t says = 0;
	uint64_t at = start;

	for (unsigned int i = 0; i < sizeof(memory) / sizeof(*memory); i++) {
		uint64_t from = BASE + memory[i].start * PAGE;
		uint64_t to = BASE + memory[i].end * PAGE;

		if (to <= start || from >= end)
			continue;
		if (from > at)
			says |= UMMUNOTIFY_MEMORY_HOLE;
		says |= memory[i].says;
		at = to;
	}
	return at < end ? says | UMMUNOTIFY_MEMORY_HOLE : says;
}

static void check_slot(struct fd *f, const struct watch *w)
{
	CHECK(w->slot < m.max_watches && w->slot < 2048, "slot %u", w->slot);
	for (unsigned int i = 0; i < f->n; i++)
		CHECK(&f->watches[i] == w || !f->watches[i].has_slot ||
			      f->watches[i].slot != w->slot ||
			      /* It is being ended. */
			      (m.outer_file == f &&
			       f->watches[i].cookie == m.outer_cookie),
		      "slot %u twice", w->slot);
	if (!f->state_pages[w->slot / 1024])
		f->state_pages[w->slot / 1024] =
			native_fault(&f->states, w->slot / 1024);
	CHECK(f->state_pages[w->slot / 1024], "there is no state word");
	CHECK(!(w->state & 0xff), "armed as 0x%x", w->state);
}

static void watch(void)
{
	struct fd *f = take_file();
	struct ummunotify_watch_ioctl a = {.user_cookie = take_cookie(f)};
	uint8_t byte = take_byte(&m.in);
	bool inner = m.outer != NOTHING;
	uint64_t start, end;
	struct watch *w;
	unsigned int fails;
	enum place place;
	long ret, expected = 0;

	take_range(&start, &end);
	a.start = pointer(start);
	a.end = pointer(end);
	a.flags = byte & 3 ? byte >> 2 & 1 : byte;
	if (f->n == WATCHES || is_busy(f, a.user_cookie) ||
	    (inner && m.outer == MAKING))
		return;
	if (!inner)
		plan(MAKING, f, a.user_cookie);
	fails = native_plan.fail_after;
	m.interrupted = false;
	ret = call(f, UMMUNOTIFY_WATCH, &a, sizeof(a), &place);
	if (!(f->features & UMMUNOTIFY_FEATURE_STATE))
		expected = -ENOTTY;
	else if (place == BAD)
		expected = -EFAULT;
	else if (a.flags & ~UMMUNOTIFY_WATCH_CACHEABLE || end <= start)
		expected = -EINVAL;
	else if (has_failed(fails, ret))
		expected = -ENOMEM;
	else if (find(f, a.user_cookie))
		expected = -EEXIST;
	else if (f->n >= m.max_watches)
		expected = -ENOSPC;
	else if (place == READ_ONLY)
		expected = -EFAULT;
	else if (a.flags && memory_of(start, end))
		expected = -EOPNOTSUPP;
	/* Which of two reasons comes first is nobody's business. */
	m.cookie = a.user_cookie;
	expected = limited(f, ret, expected);
	if (ret == -EOPNOTSUPP && expected == -ENOSPC && a.flags)
		expected = ret;
	expect("WATCH", ret, expected);
	if (ret == -EOPNOTSUPP)
		CHECK(a.memory == memory_of(start, end), "memory 0x%x",
		      a.memory);
	if (f->features & UMMUNOTIFY_FEATURE_STATE)
		f->used = true;
	if (!ret) {
		w = add_watch(f, start, end, a.user_cookie);
		w->has_slot = true;
		w->slot = a.slot;
		w->state = a.state;
		arm(f, w);
		check_slot(f, w);
		if (m.interrupted)
			look(f, w);
	}
	if (!inner)
		unplan();
}

/* So many on one range that an invalidation lets go of the lock. */
static void watch_several(void)
{
	struct fd *f = take_file();
	uint8_t byte = take_byte(&m.in);
	uint64_t start = BASE + byte % 16 * PAGE, end = start + PAGE;

	native_become(m.mms[f->mm], f->mm, false);
	for (uint64_t cookie = 100; cookie < 105; cookie++) {
		struct ummunotify_watch_ioctl a = {
			.start = start,
			.end = end,
			.user_cookie = cookie,
		};
		struct watch *w;

		if (f->n == WATCHES ||
		    native_ioctl(f->file, UMMUNOTIFY_WATCH, &a))
			return;
		w = add_watch(f, start, end, cookie);
		w->has_slot = true;
		w->slot = a.slot;
		w->state = a.state;
		f->used = true;
		arm(f, w);
		check_slot(f, w);
	}
}

static void is_armed(struct fd *f, struct watch *w, uint32_t slot,
		     uint32_t state)
{
	CHECK(slot == w->slot, "slot %u, and not %u", slot, w->slot);
	CHECK(state != w->state && !(state & 0xff), "armed as 0x%x again",
	      state);
	w->state = state;
	arm(f, w);
	if (m.interrupted)
		look(f, w);
}

static void rearm(void)
{
	struct fd *f = take_file();
	struct ummunotify_rearm_ioctl a = {.user_cookie = take_cookie(f)};
	bool inner = m.outer != NOTHING;
	struct watch *w = find(f, a.user_cookie);
	enum place place;
	long ret;

	if (is_busy(f, a.user_cookie))
		return;
	if (!inner)
		plan(A_CALL, f, a.user_cookie);
	m.interrupted = false;
	ret = call(f, UMMUNOTIFY_REARM, &a, sizeof(a), &place);
	w = find(f, a.user_cookie);
	expect("REARM", ret,
	       !(f->features & UMMUNOTIFY_FEATURE_STATE) ? -ENOTTY
	       : place == BAD				 ? -EFAULT
	       : !w					 ? -ENOENT
	       : !w->has_slot				 ? -EINVAL
	       : place == READ_ONLY			 ? -EFAULT
							 : 0);
	if (!ret)
		is_armed(f, w, a.slot, a.state);
	if (!inner)
		unplan();
}

/* What ARM may answer, as a mask of bits. */
static uint64_t bit(int error)
{
	return UINT64_C(1) << (error & 63);
}

static uint64_t answers(struct fd *f, const struct ummunotify_arm *a)
{
	const struct watch *w = find(f, a->user_cookie);
	uint64_t may = 0;

	if (a->size < sizeof(*a))
		return bit(EINVAL);
	if (a->size > sizeof(*a))
		may |= bit(E2BIG);
	if (a->flags & ~UMMUNOTIFY_ARM_CACHEABLE || a->reserved ||
	    untagged(a->end) <= untagged(a->start))
		return may | bit(EINVAL);
	if (!w)
		may |= bit(ENOENT);
	else if (!w->has_slot)
		may |= bit(EINVAL);
	if (a->new_cookie != a->user_cookie && find(f, a->new_cookie))
		may |= bit(EEXIST);
	if (a->flags && memory_of(untagged(a->start), untagged(a->end)))
		may |= bit(EOPNOTSUPP);
	return may;
}

static void check_arm(struct fd *f, const struct ummunotify_arm *a, long ret,
		      uint64_t may)
{
	struct watch *w = find(f, a->user_cookie);

	trace("ARM: %ld\n", ret);
	CHECK(may ? ret < 0 && may & bit((int)-ret) : !ret, "ARM: %ld", ret);
	if (ret == -EOPNOTSUPP)
		CHECK(a->memory ==
			      memory_of(untagged(a->start), untagged(a->end)),
		      "memory 0x%x", a->memory);
	if (ret)
		return;
	w->cookie = a->new_cookie;
	w->start = untagged(a->start);
	w->end = untagged(a->end);
	is_armed(f, w, a->slot, a->state);
}

static void take_arm(struct fd *f, struct ummunotify_arm *a)
{
	uint8_t byte = take_byte(&m.in);
	uint64_t start, end;

	take_range(&start, &end);
	*a = (struct ummunotify_arm){
		.size = sizeof(*a),
		.flags = byte & 1,
		.user_cookie = take_cookie(f),
		.start = pointer(start),
		.end = pointer(end),
		.error = 77,
	};
	a->new_cookie = byte & 2 ? take_cookie(f) : a->user_cookie;
	if (byte >= 0xf0) {
		a->size += byte & 4 ? 8 : -8U;
		a->flags |= byte & 8;
		a->reserved = byte & 1;
	}
}

static void arm_anew(void)
{
	struct fd *f = take_file();
	/* What follows has something in it that is not known. */
	struct {
		struct ummunotify_arm arm;
		uint64_t more;
	} a = {.more = 1};
	bool inner = m.outer != NOTHING;
	uint64_t may;
	enum place place;
	long ret;

	take_arm(f, &a.arm);
	if (is_busy(f, a.arm.user_cookie) || is_busy(f, a.arm.new_cookie))
		return;
	if (!inner) {
		plan(A_CALL, f, a.arm.user_cookie);
		m.outer_other = a.arm.new_cookie;
	}
	m.interrupted = false;
	ret = call(f, UMMUNOTIFY_ARM, &a, sizeof(a), &place);
	may = answers(f, &a.arm);
	if (!(f->features & UMMUNOTIFY_FEATURE_STATE))
		may = bit(ENOTTY);
	else if (place != GOOD && (may || ret))
		may |= bit(EFAULT);
	check_arm(f, &a.arm, ret, may);
	if (!inner)
		unplan();
}

static void arm_many(void)
{
	struct fd *f = take_file();
	struct ummunotify_arm arms[3];
	struct ummunotify_arm_many many = {
		.size = sizeof(many),
		.arms = (uintptr_t)arms,
		.count = take_byte(&m.in) % 4,
	};
	enum place place;
	long ret;

	for (unsigned int i = 0; i < many.count; i++) {
		take_arm(f, &arms[i]);
		arms[i].size = sizeof(arms[i]);
	}
	ret = call(f, UMMUNOTIFY_ARM_MANY, &many, sizeof(many), &place);
	if (!(f->features & UMMUNOTIFY_FEATURE_STATE)) {
		expect("ARM_MANY", ret, -ENOTTY);
		return;
	}
	if (place == BAD) {
		expect("ARM_MANY", ret, -EFAULT);
		return;
	}
	/* That the number cannot be told does not undo it. */
	CHECK(!ret || (ret == -EFAULT && place != GOOD), "%ld", ret);
	CHECK(ret || many.done == many.count, "%u done", many.done);
	for (unsigned int i = 0; i < many.count; i++)
		check_arm(f, &arms[i], arms[i].error, answers(f, &arms[i]));
}

static void unregister(void)
{
	static const unsigned int requests[] = {UMMUNOTIFY_UNREGISTER_REGION,
						UMMUNOT_UNREGISTER_REGION};
	struct fd *f = take_file();
	uint64_t cookie = take_cookie(f);
	unsigned int request = requests[take_byte(&m.in) & 1];
	bool inner = m.outer != NOTHING;
	struct watch *w;
	enum place place;
	long ret;

	if (is_busy(f, cookie))
		return;
	if (!inner)
		plan(A_CALL, f, cookie);
	ret = call(f, request, &cookie, sizeof(cookie), &place);
	w = find(f, cookie);
	expect("UNREGISTER", ret, place == BAD ? -EFAULT : w ? 0 : -EINVAL);
	if (!ret) {
		struct watch ended = *w;

		*w = f->watches[--f->n];
		/* Its slot may have a new one by now. */
		for (unsigned int i = 0; i < f->n; i++)
			ended.has_slot &= !f->watches[i].has_slot ||
					  f->watches[i].slot != ended.slot;
		CHECK(!ended.has_slot ||
			      word(f, &ended) & UMMUNOTIFY_STATE_FREE,
		      "its slot is not free");
	}
	if (!inner)
		unplan();
}

static void query(void)
{
	struct fd *f = take_file();
	struct ummunotify_query_ioctl q;
	enum place place;
	long ret;

	memset(&q, 0xcc, sizeof(q));
	plan(READING, NULL, 0);
	ret = call(f, UMMUNOTIFY_QUERY, &q, sizeof(q), &place);
	unplan();
	expect("QUERY", ret, place == GOOD ? 0 : -EFAULT);
	CHECK(ret || ((q.features & UMN_ALL) == UMN_ALL &&
		      q.granted == f->features &&
		      q.max_watches == m.max_watches &&
		      q.state_offset == UMMUNOTIFY_STATE_OFFSET &&
		      !q.state_bytes ==
			      !(f->features & UMMUNOTIFY_FEATURE_STATE)),
	      "query");
}

static void unknown(void)
{
	static const unsigned int known[] = {UMMUNOTIFY_EXCHANGE_FEATURES,
					     UMMUNOTIFY_REGISTER_REGION,
					     UMMUNOTIFY_UNREGISTER_REGION,
					     UMMUNOTIFY_WATCH,
					     UMMUNOTIFY_REARM,
					     UMMUNOTIFY_QUERY,
					     UMMUNOTIFY_ARM,
					     UMMUNOTIFY_ARM_MANY,
					     UMMUNOT_REGISTER_REGION,
					     UMMUNOT_UNREGISTER_REGION};
	struct fd *f = take_file();
	uint8_t byte = take_byte(&m.in);
	unsigned int request = known[byte & 7] ^ (byte & 8 ? 0x40000000u : 0) ^
			       (unsigned int)(byte >> 4) << 21;

	for (unsigned int i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (known[i] == request)
			return;
	native_become(m.mms[f->mm], f->mm, false);
	expect("unknown", native_ioctl(f->file, request, &request), -ENOTTY);
}

/* ---- reading -------------------------------------------------------------------- */

#define EVENTS 128

static struct {
	struct fd *f;
	struct ummunotify_event events[EVENTS];
	unsigned int n;
	unsigned int must; /* be delivered by a look at the list */
	bool interrupt, with_last;
} reading;

static void take_event(struct fd *f, const struct ummunotify_event *e)
{
	uint32_t kinds = e->flags >> UMMUNOTIFY_EVENT_KINDS_SHIFT;
	bool has_hint = e->flags & UMMUNOTIFY_EVENT_FLAG_HINT;
	struct watch *w = find(f, e->user_cookie_counter);

	CHECK(e->type == UMMUNOTIFY_EVENT_TYPE_INVAL, "type %u", e->type);
	CHECK(w && w->pending != NO, "a report that was not to come");
	CHECK((e->flags & 0xff) == (has_hint ? 1 : 0), "flags 0x%x", e->flags);
	CHECK(f->features & UMMUNOTIFY_FEATURE_KIND ? kinds : !kinds,
	      "flags 0x%x", e->flags);
	/* Which of those told already were hit again is not looked at. */
	CHECK(w->vague || !kinds ||
		      (w->has_slot ? kinds == w->first : !(w->all & ~kinds)),
	      "kinds 0x%x, hit by 0x%x to 0x%x", kinds, w->first, w->all);
	CHECK(w->vague || has_hint || !w->has_slot, "no hint");
	CHECK(!has_hint || w->vague ||
		      (w->same_hint && e->hint_start == w->hint_start &&
		       e->hint_end == w->hint_end),
	      "the hint is 0x%llx to 0x%llx", (unsigned long long)e->hint_start,
	      (unsigned long long)e->hint_end);
	CHECK(e->hint_start >= w->start &&
		      (e->hint_end <= w->end || w->end <= w->start),
	      "the hint is outside");
	CHECK(has_hint || (e->hint_start == w->start && e->hint_end == w->end),
	      "it is not the whole watch");
	w->pending = NO;
	f->owed = true;
	if (!w->has_slot)
		arm(f, w);
}

/* What was delivered, in the step that ends with letting go of the lock. */
static void take_events(struct fd *f)
{
	unsigned int n =
		(unsigned int)(native_copied_bytes / sizeof(reading.events[0]));

	CHECK(!reading.n, "delivered twice");
	CHECK(n <= EVENTS, "%u events", n);
	memcpy(reading.events, native_copied, native_copied_bytes);
	native_copied_bytes = 0;
	reading.n = n;
	reading.with_last =
		n && reading.events[n - 1].type == UMMUNOTIFY_EVENT_TYPE_LAST;
	n -= reading.with_last;
	for (unsigned int i = 0; i < n; i++)
		take_event(f, &reading.events[i]);
	if (reading.with_last) {
		const struct ummunotify_event *last = &reading.events[n];

		CHECK(f->owed, "a LAST that is not owed");
		CHECK(last->user_cookie_counter == f->generation &&
			      !last->flags,
		      "LAST says %llu",
		      (unsigned long long)last->user_cookie_counter);
		f->owed = false;
		for (unsigned int i = 0; i < f->n; i++) {
			CHECK(f->watches[i].pending != YES, "a report is lost");
			f->watches[i].pending = NO;
		}
	}
}

static unsigned int must_read(const struct fd *f)
{
	unsigned int n = f->owed;

	for (unsigned int i = 0; i < f->n; i++)
		n += f->watches[i].pending == YES;
	return n;
}

/* What another task copies is not what is read. */
static void interrupt_read(void)
{
	inner_step();
	native_copied_bytes = 0;
}

/* What the driver found is known; now others come. */
static void read_lets_go(void)
{
	if (native_copied_bytes)
		take_events(reading.f);
	reading.must = must_read(reading.f);
	if (reading.interrupt)
		interrupt_read();
}

static void read_(void)
{
	static struct ummunotify_event buffer[256];
	struct fd *f = take_file();
	uint8_t byte = take_byte(&m.in);
	size_t size = byte & 15 ? (byte & 15) * 32u + (byte >> 4 & 1)
				: sizeof(buffer);
	bool faults = byte & 32, blocks = byte & 64;
	size_t max = size / 32 < EVENTS ? size / 32 : EVENTS;
	ssize_t got;

	if ((byte & 0xc0) == 0xc0)
		size = max = byte & 31;
	if ((byte & 0xc0) == 0xc0)
		max = 0;
	plan(READING, NULL, 0);
	reading.f = f;
	reading.n = 0;
	reading.interrupt = native_plan.at_copy;
	native_copied_bytes = 0;
	native_plan.fail_after = 0;
	native_plan.at_copy = NULL;
	native_plan.at_unlock = read_lets_go;
	native_plan.at_wait = blocks ? interrupt_read : NULL;
	if (faults) {
		native_plan.fault_start = (char *)buffer + (byte & 7) * 20;
		native_plan.fault_end = (char *)(buffer + 256);
	}
	native_set_flags(f->file, blocks ? 0 : O_NONBLOCK);
	native_become(m.mms[f->mm], f->mm, false);
	got = native_read(f->file, buffer, size);
	unplan();
	trace("read: %zd of %zu\n", got, size);
	f->used = true;
	if (got < 0) {
		CHECK(!reading.n, "delivered, and an error");
		if (blocks)
			reading.must = must_read(f);
		CHECK(got == (blocks ? -ERESTARTSYS : -EAGAIN)
			      ? !reading.must
			      : faults && got == -EFAULT,
		      "%zd, there are %u to read", got, reading.must);
		return;
	}
	CHECK(got == (ssize_t)(reading.n * sizeof(*buffer)), "%zd", got);
	CHECK(max ? got > 0 : !got, "%zd bytes", got);
	CHECK(reading.n == max || reading.with_last, "room was left");
	CHECK(!memcmp(buffer, reading.events, (size_t)got), "other events");
}

/* ---- mappings --------------------------------------------------------------------- */

static void mmap_(void)
{
	static const unsigned long offsets[] = {
		0, UMMUNOTIFY_STATE_OFFSET / PAGE, 1,
		UMMUNOTIFY_STATE_OFFSET / PAGE + 1};
	struct fd *f = take_file();
	uint8_t byte = take_byte(&m.in);
	unsigned long offset = offsets[byte & 3],
		      size = (1 + (byte >> 5)) * PAGE;
	unsigned long limit = (m.max_watches * 4 + PAGE - 1) & ~(PAGE - 1);
	unsigned long flags = VM_READ_ | VM_MAYWRITE_;
	struct native_mapping mapping;
	int ret, expected = 0;

	if (byte & 4)
		flags |= VM_WRITE_;
	if (!(f->features & UMMUNOTIFY_FEATURE_STATE))
		limit = 0;
	if (offset == offsets[0] ? size != PAGE
				 : offset != offsets[1] || size > limit)
		expected = -EINVAL;
	else if (byte & 4)
		expected = -EACCES;
	native_become(m.mms[f->mm], f->mm, false);
	ret = native_mmap(f->file, offset, size, flags, &mapping);
	expect("mmap", ret, expected);
	if (ret)
		return;
	CHECK(!(native_mapping_flags(&mapping) & VM_MAYWRITE_) &&
		      native_mapping_flags(&mapping) & VM_DONTEXPAND_,
	      "flags 0x%lx", native_mapping_flags(&mapping));
	for (unsigned long i = 0; i < size / PAGE; i++) {
		void *page = native_fault(&mapping, i);
		bool used = !offset;

		for (unsigned int j = 0; j < f->n && offset; j++)
			used |= f->watches[j].has_slot &&
				f->watches[j].slot / 1024 == i;
		CHECK(page || !used, "SIGBUS");
		if (page)
			native_put_page(page);
	}
	if (offset)
		CHECK(!native_fault(&mapping, limit / PAGE), "no SIGBUS");
	native_munmap(&mapping);
}

/* ---- what happens ---------------------------------------------------------------------- */

/* Returns which of the changes it is, -1 if there is none. */
static int start_change(void)
{
	static const uint32_t kinds[] = {
		UMMUNOTIFY_KIND_UNMAP,	    UMMUNOTIFY_KIND_CLEAR,
		UMMUNOTIFY_KIND_PROTECTION, UMMUNOTIFY_KIND_SOFT_DIRTY,
		UMMUNOTIFY_KIND_MIGRATE,    UMMUNOTIFY_KIND_OTHER,
		UMMUNOTIFY_KIND_UNMAP,	    UMMUNOTIFY_KIND_CLEAR};
	uint8_t byte = take_byte(&m.in), who = take_byte(&m.in);
	bool inner = m.outer != NOTHING;
	unsigned int i = byte & 3, mm = !(who & 31);
	struct native_change *c = &m.changes[i];
	uint64_t start, end;

	take_range(&start, &end);
	if (m.kinds[i] || (m.outer == CHANGING && m.outer_change == i))
		return -1;
	if (who & 32) { /* everything */
		start = 0;
		end = UINT64_MAX;
	}
	*c = (struct native_change){
		.mm = m.mms[mm],
		.start = start,
		.end = end,
		.event = native_event(kinds[byte >> 2 & 7]),
		.may_sleep = byte & 32,
	};
	if (!inner) {
		plan(CHANGING, NULL, 0);
		m.outer_change = i;
	}
	m.kinds[i] = kinds[byte >> 2 & 7];
	/* Done by the process itself, by another or by the kernel. */
	native_become(who & 64	  ? m.mms[mm]
		      : who & 128 ? m.mms[!mm]
				  : NULL,
		      9, true);
	invalidate(i, false);
	if (!inner)
		unplan();
	return (int)i;
}

static void end_change(unsigned int i)
{
	bool inner = m.outer != NOTHING;

	if (!m.kinds[i] || (m.outer == CHANGING && m.outer_change == i))
		return;
	if (!inner) {
		plan(CHANGING, NULL, 0);
		m.outer_change = i;
	}
	native_become(NULL, 9, true);
	invalidate(i, true);
	if (!inner)
		unplan();
}

static void begin(void)
{
	start_change();
}

static void end(void)
{
	end_change(take_byte(&m.in) & 3);
}

static void both(void)
{
	int i = start_change();

	if (i >= 0)
		end_change((unsigned int)i);
}

/* Of another process nothing works. */
static void stranger(void)
{
	struct fd *f = take_file();
	struct ummunotify_event event;
	struct native_mapping mapping;
	uint64_t argument[8] = {0};

	native_become(take_byte(&m.in) & 1 ? m.mms[!f->mm] : NULL, 9, true);
	expect("of another", native_ioctl(f->file, UMMUNOTIFY_QUERY, argument),
	       -ESTALE);
	expect("of another", native_ioctl(f->file, UMMUNOTIFY_WATCH, argument),
	       -ESTALE);
	expect("of another", native_read(f->file, &event, sizeof(event)),
	       -ESTALE);
	expect("of another", native_mmap(f->file, 0, PAGE, VM_READ_, &mapping),
	       -ESTALE);
	expect("of another", native_fasync(f->file, true), -ESTALE);
	expect("of another", native_poll(f->file), EPOLLERR);
}

static void async(void)
{
	struct fd *f = take_file();
	uint8_t byte = take_byte(&m.in);

	native_become(m.mms[f->mm], f->mm, false);
	expect("O_ASYNC", native_fasync(f->file, byte & 1), 0);
	f->async = byte & 1;
}

static void fdinfo(void)
{
	const struct fd *f = take_file();
	unsigned long long pending;
	unsigned int least = 0, most = 0;
	char text[4096];

	native_become(NULL, 9, true);
	native_fdinfo(f->file, text, sizeof(text));
	for (unsigned int i = 0; i < f->n; i++) {
		least += f->watches[i].pending == YES;
		most += f->watches[i].pending != NO;
	}
	pending = value_of(text, "ummunotify-pending:");
	CHECK(value_of(text, "ummunotify-watches:") == f->n &&
		      value_of(text, "ummunotify-features:") == f->features &&
		      value_of(text, "ummunotify-generation:") ==
			      f->generation &&
		      pending >= least && pending <= most,
	      "fdinfo says: %s", text);
}

/* ---- after each step ------------------------------------------------------------------- */

static void check_file(struct fd *f)
{
	unsigned int events, must = must_read(f);
	bool may = must;

	CHECK(counter(f) == f->generation, "the counter is %llu, was %llu",
	      (unsigned long long)counter(f),
	      (unsigned long long)f->generation);
	for (unsigned int i = 0; i < f->n; i++) {
		const struct watch *w = &f->watches[i];
		uint32_t now, kinds;

		may |= w->pending != NO;
		if (!w->has_slot)
			continue;
		now = word(f, w);
		kinds = now & UMMUNOTIFY_STATE_KINDS;
		CHECK((now ^ w->state) < 0x80 && !kinds == !w->dirty,
		      "the word is 0x%x, armed as 0x%x, %s", now, w->state,
		      w->dirty ? "and hit since" : "and not hit");
		CHECK(w->vague || !w->dirty || kinds == w->first,
		      "the word is 0x%x, first hit by 0x%x", now, w->first);
	}
	native_become(m.mms[f->mm], f->mm, false);
	events = native_poll(f->file);
	CHECK(events == (EPOLLIN | EPOLLRDNORM) ? may : !must && !events,
	      "poll says 0x%x", events);
}

static void (*const steps[])(void) = {
	watch_several, watch_several, begin, arm_anew, arm_anew,   arm_many,
	open_file,     watch,	      watch, watch,    register_,  rearm,
	rearm,	       begin,	      begin, end,      end,	   both,
	both,	       read_,	      read_, read_,    unregister, exchange,
	unknown,       query,	      mmap_, async,    fdinfo,	   stranger,
	close_any,
};
#define KINDS (sizeof(steps) / sizeof(*steps))

/* Of another task, in the middle of a step; what needs what that one holds waits. */
static void inner_step(void)
{
	static void (*const inner[])(void) = {
		begin, end, both, begin, rearm, watch, unregister, register_};
	uint8_t byte = take_byte(&m.in);
	unsigned int kind = byte % 8;

	if (kind >= 4 && (m.outer == MAKING || m.outer == NEGOTIATING))
		return;
	trace("  meanwhile:\n");
	m.is_inner = true;
	inner[kind]();
	trace("  .\n");
	m.is_inner = false;
	m.interrupted = true;
}

static void set_up(void)
{
	static const unsigned long limits[] = {4, 2048, 40, 1};
	uint8_t byte = take_byte(&m.in);

	m.max_watches = limits[byte & 3];
	m.tight = byte & 4;
	m.tight_for_all = m.tight && byte & 16;
	m.legacy_filter = byte & 8;
	native_set("max_watches", m.max_watches);
	native_set("max_watches_user",
		   m.tight && !m.tight_for_all ? LIMIT : 1 << 20);
	/* What is charged and never given back will come to this. */
	native_set("max_watches_total",
		   m.tight_for_all ? LIMIT * 16 / 15 : 200000);
	native_set("legacy_filter", m.legacy_filter);
	CHECK(!native_load(), "load");
	for (unsigned int i = 0; i < MMS; i++) {
		m.mms[i] = native_new_mm();
		for (unsigned int j = 0; j < sizeof(memory) / sizeof(*memory);
		     j++)
			native_add_memory(
				m.mms[i], BASE + memory[j].start * PAGE,
				BASE + memory[j].end * PAGE, memory[j].kind);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	memset(&m, 0, sizeof(m));
	tracing = getenv("TRACE");
	m.in = (struct input){data, size};
	set_up();
	for (unsigned int i = 0; m.in.size && i < STEPS; i++) {
		unsigned int kind = take_byte(&m.in) % KINDS;

		/* There is always one, mostly with all features. */
		if (!m.files[0].file) {
			struct input rest = m.in;

			native_settle();
			m.in = (struct input){(const uint8_t *)"\x18\0\xff", 3};
			open_file();
			m.in = rest;
		}
		/* Not even one can be had, of what others still have. */
		if (!m.files[0].file)
			break;
		steps[kind]();
		for (unsigned int j = 0; j < FILES; j++)
			if (m.files[j].file)
				check_file(&m.files[j]);
	}
	for (unsigned int i = 0; i < CHANGES; i++)
		if (m.kinds[i])
			invalidate(i, true);
	for (unsigned int i = 0; i < FILES; i++)
		close_file(&m.files[i]);
	for (unsigned int i = 0; i < MMS; i++)
		native_end_mm(m.mms[i]);
	native_unload();
	return 0;
}

/* Most of the time would go into remembering what is freed, and by whom. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "quarantine_size_mb=8:malloc_context_size=4:"
	       "max_malloc_fill_size=0";
}
