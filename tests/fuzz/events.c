/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A monitor that the input plays: a few bytes of attributes, then steps, each
 * a call of the library, something that happens to the memory, or something
 * that the monitor says. As long as it says the truth, what is handed out must
 * reach the memory; when it lies (m.lying) it must still be obeyed: what was
 * reported, or whose state word says so, is not handed out again. Whatever it
 * does, everything is released exactly once, and not while it is held.
 */
#include "fuzz.h"

#include "evict.h"
#include "giveback.h"
#include "lookup.h"
#include "open.h"
#include "unit.h"

#define HELD	512u
#define STEPS	2000u
#define WATCHES 1024u
#define DOMAINS 3u

/* What was registered and not given back. */
struct held {
	struct ibv_mr *ibv;
	struct ibv_pd *pd;
	uint32_t key; /* that ibv had */
	bool cached;
	char *addr;
	size_t length;
};

/* A watch of the library's, as the monitor knows it. */
struct watch {
	uint64_t cookie, start, end;
	struct mrc_watch word;
	bool told; /* the library knows that it was hit */
	bool gone; /* it was told to forget it */
};

static struct model {
	struct input in;
	struct mrcache_attr attr;
	struct mrcache *cache;
	struct fake_monitor *monitor;
	const struct mrc_monitor_ops *ops; /* the fake's */
	bool lying;
	uint64_t
		drained; /* generation up to which the library believes to know */

	struct held held[HELD];
	unsigned int n_held;
	struct watch watches[WATCHES];
	unsigned int n_watches;
	struct ibv_mr *given; /* back, the last one */
	uint64_t ended;	      /* cookie of the last watch that ended */
	unsigned int
		refused; /* failures of dereg_mr that callers were told of */

	struct {
		bool set;
		enum fake_call call;
		enum fake_when when;
	} hook;
	bool in_hook, in_read;
	bool changed; /* memory changed during the call */
	bool late;    /* at a moment at which nothing needs to notice */

	struct {
		bool set, empty;
		unsigned int n;
		int error;
		uint64_t generation, cookies[4];
	} lie; /* what the next read says */
} m;

/* ---- the monitor ------------------------------------------------------------ */

static struct watch *find_watch(uint64_t cookie)
{
	for (unsigned int i = 0; i < m.n_watches; i++)
		if (m.watches[i].cookie == cookie)
			return &m.watches[i];
	return NULL;
}

static bool is_dirty(const struct watch *watch)
{
	const uint32_t *states = m.cache->monitor->states;

	return states && states[watch->word.slot] != watch->word.armed;
}

static int watch(struct mrc_monitor *monitor, uint64_t start, uint64_t end,
		 uint64_t cookie, struct mrc_watch *word)
{
	int ret = m.ops->watch(monitor, start, end, cookie, word);

	if (!ret) {
		CHECK(m.n_watches < WATCHES, "too many watches");
		m.watches[m.n_watches++] = (struct watch){
			.cookie = cookie,
			.start = start,
			.end = end,
			.word = *word,
		};
	}
	return ret;
}

static int rearm(struct mrc_monitor *monitor, uint64_t cookie,
		 struct mrc_watch *word)
{
	int ret = m.ops->rearm(monitor, cookie, word);
	struct watch *watch = find_watch(cookie);

	if (!ret && watch) {
		watch->word = *word;
		watch->told = false;
	}
	return ret;
}

static int renew(struct mrc_monitor *monitor, uint64_t start, uint64_t end,
		 uint64_t cookie, struct mrc_watch *word)
{
	int ret = m.ops->renew(monitor, start, end, cookie, word);
	struct watch *watch = find_watch(cookie);

	if (!ret && watch) {
		watch->word = *word;
		watch->told = false;
	}
	return ret;
}

static int unwatch(struct mrc_monitor *monitor, uint64_t cookie)
{
	struct watch *watch = find_watch(cookie);

	CHECK(watch, "unwatch of an unknown cookie");
	*watch = m.watches[--m.n_watches];
	m.ended = cookie;
	return m.ops->unwatch(monitor, cookie);
}

static int read_events(struct mrc_monitor *monitor, uint64_t *cookies,
		       size_t max, uint64_t *generation, bool *empty)
{
	int n;

	if (m.lie.set) {
		m.lie.set = false;
		if (m.lie.error)
			return -m.lie.error;
		n = (int)m.lie.n;
		memcpy(cookies, m.lie.cookies, m.lie.n * sizeof(*cookies));
		*generation = m.lie.generation;
		*empty = m.lie.empty;
	} else {
		n = m.ops->read(monitor, cookies, max, generation, empty);
	}
	for (int i = 0; i < n; i++) {
		struct watch *watch = find_watch(cookies[i]);

		/* Without state words there is nothing to weigh it against. */
		if (watch && (!monitor->states || is_dirty(watch)))
			watch->told = true;
	}
	if (n >= 0 && *empty)
		m.drained = *generation;
	return n;
}

static uint64_t *generation(void)
{
	return (uint64_t *)fake_monitor_base(m.monitor)->generation;
}

/* A cookie: of a watch, nearly, of one that ended, or anything. */
static uint64_t take_cookie(void)
{
	uint8_t byte = take_byte(&m.in);
	uint64_t cookie =
		m.n_watches ? m.watches[(byte >> 2) % m.n_watches].cookie : 0;

	switch (byte & 3) {
	case 0:
		return cookie;
	case 1:
		return cookie + (int8_t)take_byte(&m.in) * INT64_C(8);
	case 2:
		return m.ended;
	default:
		return take_word(&m.in);
	}
}

/* ---- checks ----------------------------------------------------------------- */

static struct mrcache_stats stats_now(void)
{
	struct mrcache_stats now;

	CHECK(!mrcache_get_stats(m.cache, &now, sizeof(now)), "no statistics");
	return now;
}

static struct mr *mr_of(const struct ibv_mr *ibv)
{
	struct mr *mr;

	pthread_mutex_lock(&m.cache->lock);
	mr = mr_find_ibv_locked(m.cache, ibv);
	pthread_mutex_unlock(&m.cache->lock);
	return mr;
}

static bool reaches(const struct held *held)
{
	return fake_reaches(held->ibv, held->addr, held->length);
}

/* What was just handed out. */
static void check_new(struct held *held, int access)
{
	struct mr *mr = mr_of(held->ibv);
	int got = fake_access(held->ibv);

	CHECK(fake_is_registered(held->ibv), "it is not registered");
	CHECK(held->ibv->pd == held->pd, "it is of another domain");
	if (m.attr.contain)
		CHECK((got | LOCAL) == (access | LOCAL) &&
			      (got & access) == access,
		      "access 0x%x for 0x%x", got, access);
	else
		CHECK(got == access, "access 0x%x for 0x%x", got, access);
	CHECK(mr, "the cache does not know it");
	held->cached = !mr->uncached;
	if (held->cached && !m.late) {
		struct watch *watch = find_watch(mr_cookie(mr));

		CHECK(watch, "it is not watched");
		CHECK(!watch->told, "it was reported");
		CHECK(!watch->gone, "it was forgotten");
		CHECK(!is_dirty(watch) || *generation() == m.drained,
		      "its state word tells that it was hit");
	}
	if (!m.lying && !(held->cached ? m.late : m.changed))
		CHECK(reaches(held), "stale: pages %p, %zu bytes",
		      (void *)held->addr, held->length);
}

static void check_all(void)
{
	struct mrcache_stats now = stats_now();
	unsigned int uncached = 0;

	CHECK(!fake_first_trouble(), "%s", fake_first_trouble());
	for (unsigned int i = 0; i < m.n_held; i++) {
		const struct held *held = &m.held[i];

		CHECK(fake_is_registered(held->ibv) &&
			      held->ibv->lkey == held->key,
		      "deregistered while held");
		uncached += !held->cached;
	}
	CHECK(now.uncached == uncached, "%u uncached are held", uncached);
	CHECK(now.registrations - now.deregistrations == fake_registered(NULL),
	      "%zu are registered", fake_registered(NULL));
	CHECK(fake_watches(m.monitor) == m.n_watches, "%u watches",
	      m.n_watches);
	CHECK(m.cache->regs <= m.attr.max_regs &&
		      m.cache->bytes <= m.attr.max_bytes,
	      "over the limits");
}

/* ---- calls of the library ---------------------------------------------------- */

static void take_range(struct held *range)
{
	uint8_t byte = take_byte(&m.in);

	if (byte < 0xc0) {
		range->addr = page(byte & 15);
		range->length = (size_t)(1 + (byte >> 4)) * PAGE;
	} else if (byte < 0xf8) {
		range->addr = at(byte & 15, take_byte(&m.in));
		range->length = take_byte(&m.in) * (byte & 16 ? 1u : 64u);
	} else {
		range->addr = (char *)take_word(&m.in);
		range->length = take_word(&m.in) >> (byte & 7) * 8;
	}
}

static void reg_any(void)
{
	static const int accesses[] = {
		LOCAL,
		REMOTE,
		0,
		LOCAL | IBV_ACCESS_REMOTE_READ,
		LOCAL | IBV_ACCESS_RELAXED_ORDERING,
		IBV_ACCESS_REMOTE_READ,
		IBV_ACCESS_REMOTE_WRITE,
		LOCAL | IBV_ACCESS_ON_DEMAND,
	};
	uint8_t byte = take_byte(&m.in);
	int access = accesses[byte & 7];
	struct held held = {.pd = fake_pd((byte >> 3) % DOMAINS)};

	take_range(&held);
	held.ibv = mrcache_reg_mr(m.cache, held.pd, held.addr, held.length,
				  access);
	if (!held.ibv)
		return;
	held.key = held.ibv->lkey;
	check_new(&held, access);
	CHECK(m.n_held < HELD, "too many are held");
	m.held[m.n_held++] = held;
}

static struct held *take_held(void)
{
	uint8_t byte = take_byte(&m.in);

	return m.n_held ? &m.held[byte % m.n_held] : NULL;
}

static bool is_held(const struct ibv_mr *ibv)
{
	for (unsigned int i = 0; i < m.n_held; i++)
		if (m.held[i].ibv == ibv)
			return true;
	return false;
}

static void dereg(struct held *held)
{
	struct held one;
	int ret;

	if (!held)
		return;
	one = *held;
	*held = m.held[--m.n_held];
	ret = mrcache_dereg_mr(m.cache, one.ibv);
	CHECK(!ret || !one.cached, "%d for one that is held", ret);
	if (ret) {
		m.refused++;
		m.held[m.n_held++] = one;
	} else {
		m.given = one.ibv;
	}
}

static void dereg_any(void)
{
	dereg(take_held());
}

/* What is not held: given back already, or never handed out. */
static void dereg_wrong(void)
{
	uint8_t byte = take_byte(&m.in);
	struct ibv_mr *ibv =
		byte & 1 ? m.given : (struct ibv_mr *)(uintptr_t)take_cookie();

	if (!is_held(ibv))
		CHECK(mrcache_dereg_mr(m.cache, ibv) == EINVAL,
		      "given back twice");
}

static void valid(void)
{
	struct held *held = take_held(), one;
	struct mr *mr;
	bool valid;

	if (!held)
		return;
	one = *held;
	mr = mr_of(one.ibv);
	CHECK(mr, "the cache does not know what is held");
	valid = mrcache_valid(m.cache, one.ibv);
	if (!one.cached) {
		CHECK(valid, "what is not cached is always valid");
	} else if (valid && !m.late) {
		CHECK(!find_watch(mr_cookie(mr))->told, "it was reported");
		CHECK(m.lying || reaches(&one), "stale");
	}
}

static void unshare_any(void)
{
	const struct held *held = take_held();
	unsigned int others = 0;
	struct held one;
	int ret;

	if (!held)
		return;
	one = *held;
	for (unsigned int i = 0; i < m.n_held; i++)
		others += &m.held[i] != held && m.held[i].ibv == one.ibv;
	if (one.cached)
		find_watch(mr_cookie(mr_of(one.ibv)))->gone = true;
	ret = mrc_unshare(m.cache, one.ibv);
	CHECK(ret == (others ? -EBUSY : 0), "%d, %u others", ret, others);
}

static void invalidate(void)
{
	struct held range;
	uintptr_t start, last;
	int ret, expected;

	take_range(&range);
	start = (uintptr_t)range.addr;
	last = start + range.length - 1;
	expected = range.length && last >= start ? 0 : -EINVAL;
	/* At once: what comes while these are released is not meant. */
	for (unsigned int i = 0; !expected && i < m.n_watches; i++)
		if (m.watches[i].start <= last && start < m.watches[i].end)
			m.watches[i].told = true;
	ret = mrcache_invalidate(m.cache, range.addr, range.length);
	CHECK(ret == expected, "%d", ret);
}

/* Different ones of a domain, or of all. */
static int count_held(const struct ibv_pd *pd)
{
	int n = 0;

	for (unsigned int i = 0; i < m.n_held; i++) {
		bool first = !pd || m.held[i].pd == pd;

		for (unsigned int j = 0; first && j < i; j++)
			first = m.held[j].ibv != m.held[i].ibv;
		n += first;
	}
	return n;
}

static void flush(void)
{
	uint8_t byte = take_byte(&m.in) % (DOMAINS + 1);
	struct ibv_pd *pd = byte ? fake_pd(byte - 1) : NULL;
	int ret;

	for (unsigned int i = 0; i < m.n_held; i++)
		if (m.held[i].cached && (!pd || m.held[i].pd == pd))
			find_watch(mr_cookie(mr_of(m.held[i].ibv)))->gone =
				true;
	ret = mrcache_flush(m.cache, pd);
	CHECK(ret == count_held(pd), "%d held, says flush, and %d are", ret,
	      count_held(pd));
}

static void close_early(void)
{
	if (m.n_held)
		CHECK(mrcache_close(m.cache) == -EBUSY, "closed while held");
}

static void linger(void)
{
	mrc_linger(m.cache);
}

/* ---- what happens ------------------------------------------------------------- */

static void lie_about_word(void)
{
	uint8_t byte = take_byte(&m.in);
	uint32_t *states = (uint32_t *)m.cache->monitor->states;
	const struct watch *watch;

	if (!states || !m.n_watches)
		return;
	watch = &m.watches[(byte >> 2) % m.n_watches];
	m.lying = true;
	if (byte & 1)
		states[watch->word.slot] = watch->word.armed;
	else
		take(&m.in, &states[watch->word.slot], sizeof(*states));
}

static void lie_about_generation(void)
{
	uint64_t value = take_word(&m.in);

	m.lying = true;
	/* No counter that begins at 0 gets to where + 1 is 0 again. */
	*generation() = value == UINT64_MAX ? 0 : value;
}

static void lie_about_events(void)
{
	static const int errors[] = {EIO, ESTALE, EFAULT, EINTR};
	uint8_t byte = take_byte(&m.in);

	m.lying = true;
	m.lie.set = true;
	m.lie.empty = byte & 1;
	m.lie.error = byte & 2 ? errors[byte >> 6] : 0;
	m.lie.n = byte >> 2 & 3;
	m.lie.generation = byte & 32 ? *generation() : take_word(&m.in);
	if (m.lie.generation == UINT64_MAX)
		m.lie.generation = 0;
	for (unsigned int i = 0; i < m.lie.n; i++)
		m.lie.cookies[i] = take_cookie();
}

static void fail_next(void)
{
	static const int errors[] = {ENOMEM, EAGAIN, ENOSPC, EOPNOTSUPP,
				     EIO,    ESTALE, EINTR,  EBUSY};
	uint8_t byte = take_byte(&m.in);

	fake_fail((enum fake_call)(take_byte(&m.in) % FAKE_CLOSE),
		  1 + (byte & 3), 1 + (byte >> 2 & 7), errors[byte >> 5]);
}

static void limit(void)
{
	uint8_t byte = take_byte(&m.in);
	unsigned int n = byte >> 3;

	switch (byte & 7) {
	case 0:
		fake_per_read(m.monitor, 1 + n);
		break;
	case 1:
		fake_max_watches(m.monitor, n);
		break;
	case 2:
		fake_memlock(n == 31 ? UINT64_MAX : n * PAGE);
		break;
	case 3:
		if (n & 1)
			(void)fake_fork_init();
		break;
	default:
		fake_reuse_addresses(n & 1);
	}
}

static void set_hook(void)
{
	uint8_t byte = take_byte(&m.in);

	m.hook.call = (enum fake_call)((byte >> 2) % FAKE_CLOSE);
	m.hook.when = (enum fake_when)(byte & 3);
	m.hook.set = true;
}

static void take_place(const void **addr, size_t *length)
{
	uint8_t byte = take_byte(&m.in);

	*addr = page(byte & 15);
	*length = (size_t)(1 + (byte >> 4)) * PAGE;
}

static void change(void)
{
	const void *addr;
	size_t length;

	take_place(&addr, &length);
	fake_change(addr, length);
	m.changed = true;
}

static void false_alarm(void)
{
	const void *addr;
	size_t length;

	take_place(&addr, &length);
	fake_alarm(addr, length);
}

/* One change at a time takes its time. */
static const void *changing;
static size_t changing_length;

static void begin_or_end(void)
{
	if (changing) {
		fake_change_end(changing, changing_length);
		changing = NULL;
		m.changed = true;
	} else {
		take_place(&changing, &changing_length);
		fake_change_begin(changing, changing_length);
	}
}

static void event(void)
{
	fake_event(m.monitor, take_cookie());
}

static void noise(void)
{
	fake_noise(m.monitor);
}

/* ---- steps ---------------------------------------------------------------------- */

static const struct step {
	void (*run)(void);
	enum {
		OUTSIDE = 1, /* it calls the library: not beside a read */
		ALONE = 2,   /* nothing else may be under way */
	} where;
} steps[] = {
	{reg_any, OUTSIDE},
	{reg_any, OUTSIDE},
	{dereg_any, OUTSIDE},
	{dereg_any, OUTSIDE},
	{valid, OUTSIDE},
	{unshare_any, OUTSIDE},
	{invalidate, OUTSIDE},
	{linger, OUTSIDE},
	{dereg_wrong, OUTSIDE},
	{flush, ALONE},
	{close_early, ALONE},
	{change, 0},
	{false_alarm, 0},
	{begin_or_end, 0},
	{event, 0},
	{noise, 0},
	{lie_about_word, 0},
	{lie_about_generation, 0},
	{fail_next, 0},
	{lie_about_events, 0},
	{limit, 0},
	{set_hook, 0},
};
#define KINDS (sizeof(steps) / sizeof(*steps))

static void *run_step(void *step)
{
	((const struct step *)step)->run();
	return NULL;
}

/* Within a call of another thread, if it is not the first. */
static void take_step(void)
{
	uint8_t byte = take_byte(&m.in);
	const struct step *step = &steps[(byte & 0x7f) % KINDS];
	pthread_t thread;

	if (m.in_hook &&
	    (step->where & ALONE || (step->where & OUTSIDE && m.in_read)))
		return;
	if (!step->where || !(m.in_hook || byte & 0x80)) {
		step->run();
		return;
	}
	if (pthread_create(&thread, NULL, run_step, (void *)step) ||
	    pthread_join(thread, NULL))
		abort();
}

static void on_call(enum fake_call call, enum fake_when when, void *arg)
{
	(void)arg;
	if (!m.hook.set || m.in_hook || m.hook.call != call ||
	    m.hook.when != when)
		return;
	m.hook.set = false;
	m.in_hook = true;
	m.in_read = call == FAKE_READ;
	take_step();
	/* After these the library need not look again. */
	if (call == FAKE_READ || call == FAKE_UNWATCH || call == FAKE_DEREG)
		m.late = true;
	m.in_hook = m.in_read = false;
}

static void start(void)
{
	uint8_t byte = take_byte(&m.in), more = take_byte(&m.in);
	static struct mrc_monitor_ops ops;

	test_attr(&m.attr);
	m.attr.contain = byte & 1;
	m.attr.page_align = byte & 1 && byte & 2;
	m.attr.remote = byte & 4;
	m.attr.repins = more & 3;
	if (byte & 32)
		m.attr.max_regs = 1 + (more >> 2 & 7);
	if (byte & 64)
		m.attr.max_bytes = (1 + (more >> 5)) * 4 * PAGE;
	m.monitor = fake_monitor_new((byte & 8 ? 0 : FAKE_STATES) |
				     (byte & 16 ? FAKE_ALONE : 0));
	m.ops = fake_monitor_base(m.monitor)->ops;
	ops = *m.ops;
	ops.watch = watch;
	ops.rearm = rearm;
	ops.renew = renew;
	ops.unwatch = unwatch;
	ops.read = read_events;
	fake_monitor_base(m.monitor)->ops = &ops;
	fake_hook(on_call, NULL);
	m.cache = mrc_open(&m.attr, fake_monitor_base(m.monitor), &fake_verbs);
	CHECK(m.cache, "no cache");
	fake_check_locks(m.cache);
}

static void finish_all(void)
{
	struct mrcache_stats last;
	size_t left;

	fake_hook(NULL, NULL);
	for (int call = 0; call < FAKE_CLOSE; call++)
		fake_fail((enum fake_call)call, 0, 0, 0);
	if (changing)
		begin_or_end();
	while (m.n_held)
		dereg(&m.held[m.n_held - 1]);
	check_all();
	last = stats_now();
	left = last.dereg_errors - m.refused;
	fake_check_locks(NULL);
	CHECK(!mrcache_close(m.cache), "the cache does not close");
	CHECK(fake_registered(NULL) == left, "%zu are registered, not %zu",
	      fake_registered(NULL), left);
	CHECK(!m.n_watches && !fake_monitors(), "%u watches are left",
	      m.n_watches);
	CHECK(!fake_first_trouble(), "%s", fake_first_trouble());
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	fresh(NULL);
	memset(&m, 0, sizeof(m));
	m.in = (struct input){data, size};
	changing = NULL;
	start();
	for (unsigned int i = 0; m.in.size && i < STEPS; i++) {
		m.changed = m.late = false;
		if (m.n_held == HELD - 8)
			dereg(&m.held[0]);
		take_step();
		check_all();
	}
	finish_all();
	return 0;
}
