/* SPDX-License-Identifier: BSD-2-Clause */
#include "watched.h"

#include "wiped.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* As many reports as are read at once. */
#define REPORTS 128

struct range {
	uintptr_t addr;
	size_t length;
};

/*
 * One registration. Its id is the cookie of its watch and is never used again,
 * so a report that comes late names nothing.
 *
 * `mr` is NULL while a thread registers or deregisters: that thread looks at
 * the state word itself once it holds the lock, so reports are left to it.
 */
struct watched {
	uint64_t id;
	struct range range;
	struct ibv_mr *mr;
	struct mrc_watch watch;
	bool has_watch;
	bool is_changed; /* in set->changed; never false again */
	bool is_untold;	 /* in set->untold */
	struct watched *prev_changed, *next_changed; /* set->changed */
	struct watched *prev_untold, *next_untold;   /* set->untold */
	UT_hash_handle hh_id, hh_mr;
};

/* This thread is telling: of whatever set. */
static __thread bool telling __attribute__((tls_model("initial-exec")));

/* ---- the set ------------------------------------------------------------------- */

static void free_set(struct watched_set *set)
{
	mrc_wiped_free(set->hot);
	set->monitor->ops->close(set->monitor);
	free(set);
}

static struct watched_hot *new_hot(void)
{
	struct watched_hot *hot = mrc_wiped_new();

	if (hot)
		hot->alive = 1;
	return hot;
}

struct watched_set *watched_open(struct mrc_monitor *monitor,
				 int (*dereg_mr)(struct ibv_mr *mr),
				 unsigned int repins)
{
	struct watched_set *set = calloc(1, sizeof(*set));

	if (!set) {
		monitor->ops->close(monitor);
		errno = ENOMEM;
		return NULL;
	}
	set->monitor = monitor;
	set->dereg_mr = dereg_mr;
	set->repins = repins;
	set->hot = new_hot();
	if (!set->hot || !monitor->states) {
		int error = set->hot ? EOPNOTSUPP : ENOMEM;

		free_set(set);
		errno = error;
		return NULL;
	}
	pthread_mutex_init(&set->tell_lock, NULL);
	pthread_mutex_init(&set->lock, NULL);
	return set;
}

void watched_close(struct watched_set *set)
{
	struct watched *w = set->by_id, *next;

	HASH_CLEAR(hh_mr, set->by_mr);
	HASH_CLEAR(hh_id, set->by_id);
	for (; w; w = next) {
		next = w->hh_id.next;
		free(w);
	}
	pthread_mutex_destroy(&set->lock);
	pthread_mutex_destroy(&set->tell_lock);
	free_set(set);
}

/* ---- one registration; under the lock unless it says otherwise ------------------ */

static bool is_clean(const struct watched_set *set, const struct watched *w)
{
	/* Pairs with the driver's release of the word. */
	return w->has_watch &&
	       __atomic_load_n(&set->monitor->states[w->watch.slot],
			       __ATOMIC_ACQUIRE) == w->watch.armed;
}

static void set_changed(struct watched_set *set, struct watched *w)
{
	if (w->is_changed)
		return;
	w->is_changed = true;
	DL_APPEND2(set->changed, w, prev_changed, next_changed);
	atomic_fetch_add(&set->changed_count, 1);
	atomic_fetch_add(&set->changes, 1);
}

static void set_untold(struct watched_set *set, struct watched *w)
{
	if (w->is_untold)
		return;
	w->is_untold = true;
	DL_APPEND2(set->untold, w, prev_untold, next_untold);
	atomic_fetch_add(&set->hot->untold, 1);
}

static void set_told(struct watched_set *set, struct watched *w)
{
	if (!w->is_untold)
		return;
	w->is_untold = false;
	DL_DELETE2(set->untold, w, prev_untold, next_untold);
	atomic_fetch_sub(&set->hot->untold, 1);
}

/* Into the table, or -ENOMEM. What has changed meanwhile is to be told. */
static int enter(struct watched_set *set, struct watched *w, struct ibv_mr *mr)
{
	w->mr = mr;
	HASH_ADD(hh_mr, set->by_mr, mr, sizeof(void *), w);
	if (!w->hh_mr.tbl) {
		w->mr = NULL;
		return -ENOMEM;
	}
	if (!is_clean(set, w) && !w->is_changed) {
		set_changed(set, w);
		set_untold(set, w);
	}
	return 0;
}

/* Out of the table again; no report of it is told from now on. */
static void leave(struct watched_set *set, struct watched *w)
{
	HASH_DELETE(hh_mr, set->by_mr, w);
	w->mr = NULL;
}

static struct watched *find_mr(struct watched_set *set, struct ibv_mr *mr)
{
	struct watched *w;

	HASH_FIND(hh_mr, set->by_mr, &mr, sizeof(void *), w);
	return w;
}

/* Without the lock: ends what is in no table but by_id. */
static void end(struct watched_set *set, struct watched *w)
{
	if (w->has_watch)
		set->monitor->ops->unwatch(set->monitor, w->id);
	pthread_mutex_lock(&set->lock);
	HASH_DELETE(hh_id, set->by_id, w);
	set_told(set, w);
	if (w->is_changed) {
		DL_DELETE2(set->changed, w, prev_changed, next_changed);
		atomic_fetch_sub(&set->changed_count, 1);
	}
	pthread_mutex_unlock(&set->lock);
	free(w);
}

/* ---- registering: watch, pin, look ---------------------------------------------- */

/* Without the lock. */
static struct watched *begin(struct watched_set *set, void *addr, size_t length)
{
	struct watched *w = calloc(1, sizeof(*w));
	uintptr_t start = (uintptr_t)addr;
	bool known;

	if (!w)
		return NULL;
	w->range = (struct range){start, length};
	pthread_mutex_lock(&set->lock);
	w->id = ++set->last_id;
	HASH_ADD(hh_id, set->by_id, id, sizeof(w->id), w);
	known = w->hh_id.tbl;
	pthread_mutex_unlock(&set->lock);
	if (!known) {
		free(w);
		return NULL;
	}
	w->has_watch = !set->monitor->ops->watch(
		set->monitor, start, start + length, w->id, &w->watch);
	if (!w->has_watch)
		atomic_fetch_add(&set->unwatched, 1);
	return w;
}

/* Registers until the look afterwards finds it untouched, or gives up. */
static struct ibv_mr *pin_and_look(struct watched_set *set, struct watched *w,
				   watched_pin_fn *pin, void *arg)
{
	struct ibv_mr *mr = pin(arg);

	for (unsigned int i = 0; mr && i < set->repins; i++) {
		if (!w->has_watch || is_clean(set, w) || set->dereg_mr(mr))
			break;
		if (set->monitor->ops->rearm(set->monitor, w->id, &w->watch)) {
			set->monitor->ops->unwatch(set->monitor, w->id);
			w->has_watch = false;
			atomic_fetch_add(&set->unwatched, 1);
		}
		mr = pin(arg);
	}
	return mr;
}

struct ibv_mr *watched_reg(struct watched_set *set, void *addr, size_t length,
			   watched_pin_fn *pin, void *arg)
{
	struct watched *w = begin(set, addr, length), *lost;
	struct ibv_mr *mr;
	int error;

	if (!w) {
		errno = ENOMEM;
		return NULL;
	}
	mr = pin_and_look(set, w, pin, arg);
	if (!mr) {
		error = errno;
		end(set, w);
		errno = error;
		return NULL;
	}
	pthread_mutex_lock(&set->lock);
	/* A device that was closed takes its registrations along, untold. */
	lost = find_mr(set, mr);
	if (lost)
		leave(set, lost);
	error = enter(set, w, mr);
	pthread_mutex_unlock(&set->lock);
	if (lost)
		end(set, lost);
	if (error) {
		set->dereg_mr(mr);
		end(set, w);
		errno = ENOMEM;
		return NULL;
	}
	return mr;
}

int watched_dereg(struct watched_set *set, struct ibv_mr *mr)
{
	struct watched *w;
	int ret;

	pthread_mutex_lock(&set->lock);
	w = find_mr(set, mr);
	/* Before the verb: after it the address may be another's. */
	if (w)
		leave(set, w);
	pthread_mutex_unlock(&set->lock);
	if (!w)
		return -ENOENT;
	ret = set->dereg_mr(mr);
	if (ret) {
		int error;

		pthread_mutex_lock(&set->lock);
		error = enter(set, w, mr);
		pthread_mutex_unlock(&set->lock);
		if (!error)
			return ret;
		/* It lives on without a watch, as any that we do not know. */
	}
	end(set, w);
	return ret;
}

/* ---- telling ---------------------------------------------------------------------- */

/* Stores what a report names, if it is news. Under the lock. */
static size_t note(struct watched_set *set, uint64_t id, struct range *range)
{
	struct watched *w;

	HASH_FIND(hh_id, set->by_id, &id, sizeof(id), w);
	if (!w || !w->mr || (w->is_changed && !w->is_untold))
		return 0;
	set_changed(set, w);
	set_told(set, w);
	*range = w->range;
	return 1;
}

static size_t note_untold(struct watched_set *set, struct range *ranges)
{
	size_t n = 0;

	while (n < REPORTS && set->untold) {
		ranges[n++] = set->untold->range;
		set_told(set, set->untold);
	}
	return n;
}

static void tell_ranges(const struct range *ranges, size_t n,
			watched_tell_fn *fn, void *arg)
{
	for (size_t i = 0; i < n; i++)
		fn(arg, ranges[i].addr, ranges[i].addr + ranges[i].length);
}

/* The monitor is broken: whatever is registered may have changed. */
static void all_have_changed(struct watched_set *set)
{
	struct watched *w, *next;

	pthread_mutex_lock(&set->lock);
	HASH_ITER(hh_mr, set->by_mr, w, next)
	{
		set_changed(set, w);
		set_untold(set, w);
	}
	pthread_mutex_unlock(&set->lock);
}

/* Everything reported is told; *generation is up to where. */
static int tell_reported(struct watched_set *set, watched_tell_fn *fn,
			 void *arg, uint64_t *generation)
{
	struct range ranges[REPORTS];
	uint64_t ids[REPORTS];
	bool empty = false;
	int told = 0;

	while (!empty) {
		size_t n = 0;
		int read = set->monitor->ops->read(set->monitor, ids, REPORTS,
						   generation, &empty);

		if (read < 0)
			return read;
		pthread_mutex_lock(&set->lock);
		for (int i = 0; i < read; i++)
			n += note(set, ids[i], &ranges[n]);
		pthread_mutex_unlock(&set->lock);
		tell_ranges(ranges, n, fn, arg);
		told += (int)n;
	}
	return told;
}

static int tell_untold(struct watched_set *set, watched_tell_fn *fn, void *arg)
{
	struct range ranges[REPORTS];
	int told = 0;
	size_t n;

	do {
		pthread_mutex_lock(&set->lock);
		n = note_untold(set, ranges);
		pthread_mutex_unlock(&set->lock);
		tell_ranges(ranges, n, fn, arg);
		told += (int)n;
	} while (n == REPORTS);
	return told;
}

int watched_tell(struct watched_set *set, watched_tell_fn *fn, void *arg)
{
	uint64_t generation = 0;
	int cancel, told = 0, more;

	if (telling)
		return 0;
	/* read() and what fn calls may be cancellation points. */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	pthread_mutex_lock(&set->tell_lock);
	telling = true;
	if (watched_has_news(set)) {
		told = tell_reported(set, fn, arg, &generation);
		if (told < 0)
			all_have_changed(set);
		more = tell_untold(set, fn, arg);
		if (told >= 0) {
			told += more;
			/* Pairs with watched_has_news(): all is told before. */
			atomic_store_explicit(&set->hot->told, generation + 1,
					      memory_order_release);
		}
	}
	telling = false;
	pthread_mutex_unlock(&set->tell_lock);
	pthread_setcancelstate(cancel, NULL);
	return told;
}

/* ---- asking ------------------------------------------------------------------------ */

/* What a thread has found unchanged, as long as set->changes is what it was. */
struct asked {
	const struct watched_set *set;
	uintptr_t addr;
	size_t length;
	uint64_t changes;
};

static __thread struct asked asked[8]
	__attribute__((tls_model("initial-exec")));

bool watched_has_changed(struct watched_set *set, uintptr_t addr, size_t length)
{
	struct asked *last = &asked[(addr >> 12 ^ addr >> 20) % 8];
	struct watched *w;
	bool changed = false;
	uint64_t changes;

	if (!atomic_load_explicit(&set->changed_count, memory_order_acquire))
		return false;
	/* Before the look: what comes meanwhile must be looked at again. */
	changes = atomic_load_explicit(&set->changes, memory_order_acquire);
	if (last->set == set && last->addr == addr && last->length == length &&
	    last->changes == changes)
		return false;
	pthread_mutex_lock(&set->lock);
	for (w = set->changed; w && !changed; w = w->next_changed)
		changed = w->range.addr < addr + length &&
			  addr < w->range.addr + w->range.length;
	pthread_mutex_unlock(&set->lock);
	if (!changed)
		*last = (struct asked){set, addr, length, changes};
	return changed;
}
