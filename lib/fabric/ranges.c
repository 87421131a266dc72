/* SPDX-License-Identifier: BSD-2-Clause */
#include "ranges.h"

#include "await.h"
#include "cancel.h"
#include "wiped.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Without memory for a table uthash would end the program. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

/* As many reports as are read at once. */
#define REPORTS 128

/*
 * No more ranges than this. A range that a cache may have an entry of ends only
 * when it changes, or when others need the room.
 */
#define MAX_RANGES 65536

/* Threads that may be registering one range at the same time, and be kept. */
#define WITNESSES 4

/* A thread that has begun to pin since the watch was armed. */
struct witness {
	pthread_t thread;
	/* Of its earlier call; calls that are part of it are deeper. */
	uintptr_t frame; /* 0: none */
};
#define ANNOUNCED UINTPTR_MAX

struct key {
	uintptr_t addr;
	size_t length;
};

/* A range. Its id is the cookie of its watch and is never used again. */
struct range {
	uint64_t id;
	struct key key;
	bool is_watched;
	struct mrc_watch watch;
	/*
	 * As many entries as caches may have (I2). The end of a registration
	 * that was announced takes none away: its cache may have been full, and
	 * what the thread subscribed then was another, whose end nobody announces.
	 */
	unsigned int entries;
	unsigned int pins; /* registrations that were announced and not ended */
	bool telling;	   /* notify is being called: nothing may be accepted */
	struct witness witnesses[WITNESSES];
	unsigned int next_witness;
	UT_hash_handle hh_id, hh_key;
};

/* A registration that was announced. */
struct pin {
	void *mr;
	uint64_t id; /* of its range */
	UT_hash_handle hh;
};

struct ranges {
	struct mrc_monitor *monitor;
	ranges_notify_fn *notify;
	void *notify_arg;
	/* On a page that reads 0 in a fork child. */
	const uint64_t *alive;

	pthread_mutex_t tell_lock;
	/* The generation up to which all was told, + 1. */
	_Atomic uint64_t told_up_to;
	_Atomic bool is_broken; /* the monitor */

	pthread_mutex_t lock; /* all below */
	struct range *by_id, *by_key;
	struct pin *pins;
	uint64_t last_id;
	bool is_crowded; /* the thread is to make room */

	bool has_thread;
	pthread_t thread;
	int stop; /* eventfd; also wakes it to make room */
	_Atomic bool is_ending;

	_Atomic uint64_t unwatched;
};

/* ---- opening and closing ----------------------------------------------------------- */

static void free_ranges(struct ranges *ranges)
{
	mrc_wiped_free((void *)ranges->alive);
	if (ranges->stop >= 0)
		close(ranges->stop);
	if (ranges->monitor)
		ranges->monitor->ops->close(ranges->monitor);
	free(ranges);
}

static const uint64_t *new_alive(void)
{
	uint64_t *alive = mrc_wiped_new();

	if (alive)
		*alive = 1;
	return alive;
}

struct ranges *ranges_open(struct mrc_monitor *monitor)
{
	struct ranges *ranges = calloc(1, sizeof(*ranges));

	if (!ranges) {
		monitor->ops->close(monitor);
		errno = ENOMEM;
		return NULL;
	}
	ranges->monitor = monitor;
	ranges->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ranges->alive = new_alive();
	if (ranges->stop < 0 || !ranges->alive || !monitor->states) {
		int error = monitor->states ? ENOMEM : EOPNOTSUPP;

		free_ranges(ranges);
		errno = error;
		return NULL;
	}
	pthread_mutex_init(&ranges->tell_lock, NULL);
	pthread_mutex_init(&ranges->lock, NULL);
	return ranges;
}

void ranges_set_notify(struct ranges *ranges, ranges_notify_fn *notify,
		       void *arg)
{
	ranges->notify = notify;
	ranges->notify_arg = arg;
}

bool ranges_is_owner(const struct ranges *ranges)
{
	return __atomic_load_n(ranges->alive, __ATOMIC_RELAXED);
}

void ranges_close(struct ranges *ranges)
{
	struct range *range, *next;
	struct pin *pin, *next_pin;

	if (ranges->has_thread && ranges_is_owner(ranges)) {
		atomic_store(&ranges->is_ending, true);
		eventfd_write(ranges->stop, 1);
		pthread_join(ranges->thread, NULL);
	}
	HASH_ITER(hh, ranges->pins, pin, next_pin)
	{
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): not next */
		HASH_DEL(ranges->pins, pin);
		free(pin);
	}
	HASH_CLEAR(hh_key, ranges->by_key);
	HASH_ITER(hh_id, ranges->by_id, range, next)
	{
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): not next */
		HASH_DELETE(hh_id, ranges->by_id, range);
		free(range);
	}
	pthread_mutex_destroy(&ranges->lock);
	pthread_mutex_destroy(&ranges->tell_lock);
	free_ranges(ranges);
}

uint64_t ranges_unwatched(const struct ranges *ranges)
{
	return atomic_load(&ranges->unwatched);
}

bool ranges_is_broken(const struct ranges *ranges)
{
	return atomic_load(&ranges->is_broken);
}

/* ---- one range; under the lock --------------------------------------------------------- */

static bool is_untouched(const struct ranges *ranges, const struct range *range)
{
	/* Pairs with the driver's release of the word. */
	return range->is_watched &&
	       __atomic_load_n(&ranges->monitor->states[range->watch.slot],
			       __ATOMIC_ACQUIRE) == range->watch.armed &&
	       !atomic_load_explicit(&ranges->is_broken, memory_order_relaxed);
}

static struct range *find(struct ranges *ranges, const void *addr,
			  size_t length)
{
	const struct key key = {(uintptr_t)addr, length};
	struct range *range;

	/* NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult): uthash */
	HASH_FIND(hh_key, ranges->by_key, &key, sizeof(key), range);
	return range;
}

static struct range *find_id(struct ranges *ranges, uint64_t id)
{
	struct range *range;

	HASH_FIND(hh_id, ranges->by_id, &id, sizeof(id), range);
	return range;
}

static void unwatch(struct ranges *ranges, struct range *range)
{
	if (range->is_watched)
		ranges->monitor->ops->unwatch(ranges->monitor, range->id);
	range->is_watched = false;
}

/*
 * The thread makes room; until it has there is none. eventfd_write() is a
 * cancellation point, with the lock held, and libfabric's: whoever comes here is
 * not cancelled.
 */
static void want_room(struct ranges *ranges)
{
	ranges->is_crowded = true;
	eventfd_write(ranges->stop, 1);
}

static bool watch(struct ranges *ranges, struct range *range)
{
	uint64_t start = range->key.addr;
	int ret = -ENOSPC;

	if (HASH_CNT(hh_id, ranges->by_id) <= MAX_RANGES)
		ret = ranges->monitor->ops->watch(ranges->monitor, start,
						  start + range->key.length,
						  range->id, &range->watch);
	if (ret)
		atomic_fetch_add(&ranges->unwatched, 1);
	if (ret == -ENOSPC)
		want_room(ranges);
	range->is_watched = !ret;
	return range->is_watched;
}

/* No cache has an entry of it (I2). */
static void forget(struct ranges *ranges, struct range *range)
{
	unwatch(ranges, range);
	HASH_DELETE(hh_key, ranges->by_key, range);
	HASH_DELETE(hh_id, ranges->by_id, range);
	free(range);
}

static struct range *add(struct ranges *ranges, const void *addr, size_t length)
{
	struct range *range = calloc(1, sizeof(*range));

	if (!range)
		return NULL;
	range->id = ++ranges->last_id;
	range->key = (struct key){(uintptr_t)addr, length};
	HASH_ADD(hh_id, ranges->by_id, id, sizeof(range->id), range);
	if (!range->hh_id.tbl)
		goto err_range;
	HASH_ADD(hh_key, ranges->by_key, key, sizeof(range->key), range);
	if (!range->hh_key.tbl)
		goto err_id;
	if (watch(ranges, range))
		return range;

	HASH_DELETE(hh_key, ranges->by_key, range);
err_id:
	HASH_DELETE(hh_id, ranges->by_id, range);
err_range:
	free(range);
	return NULL;
}

/* The range, its watch untouched if that may be; NULL if it cannot be watched. */
static struct range *get(struct ranges *ranges, const void *addr, size_t length)
{
	struct range *range = find(ranges, addr, length);

	if (!range)
		return add(ranges, addr, length);
	if (is_untouched(ranges, range) || range->telling || range->entries)
		return range;
	/* All who have begun to pin began before this. */
	memset(range->witnesses, 0, sizeof(range->witnesses));
	/*
	 * A new watch, not the old one armed again: what is there now may be
	 * memory that must not be kept. Without a watch it counts as touched.
	 */
	unwatch(ranges, range);
	watch(ranges, range);
	return range;
}

static struct witness *find_witness(struct range *range)
{
	for (unsigned int i = 0; i < WITNESSES; i++)
		if (range->witnesses[i].frame &&
		    pthread_equal(range->witnesses[i].thread, pthread_self()))
			return &range->witnesses[i];
	return NULL;
}

/* This thread, in this frame, has been here while the watch was armed. */
static void bear_witness(struct range *range, uintptr_t frame)
{
	struct witness *witness = find_witness(range);

	if (!witness) {
		witness = &range->witnesses[range->next_witness++ % WITNESSES];
		*witness = (struct witness){pthread_self(), frame};
	} else if (witness->frame == ANNOUNCED || witness->frame < frame) {
		/* It was announced for one entry only. */
		witness->frame = frame;
	}
}

/* ---- what libfabric asks; under its mm_lock --------------------------------------------- */

static void *tell_forever(void *arg);

/*
 * Registrations are not announced: then nobody tells in time what has changed,
 * so that a thread has to. Without one all is as right, but memory that the
 * program has freed stays registered for longer, and more is not kept.
 */
static void want_thread(struct ranges *ranges)
{
	sigset_t all, old;

	if (ranges->has_thread)
		return;
	/* The program's signals are for its own threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ranges->has_thread =
		!pthread_create(&ranges->thread, NULL, tell_forever, ranges);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* I1. */
static bool may_be_kept(struct ranges *ranges, struct range *range,
			uintptr_t frame)
{
	struct witness *witness = find_witness(range);

	if (range->telling || !is_untouched(ranges, range) || !witness ||
	    witness->frame < frame)
		return false;
	range->entries++;
	return true;
}

static bool is_announced(struct ranges *ranges, const void *addr, size_t length)
{
	struct range *range = find(ranges, addr, length);
	struct witness *witness = range ? find_witness(range) : NULL;

	return witness && witness->frame == ANNOUNCED;
}

bool ranges_subscribe(struct ranges *ranges, const void *addr, size_t length,
		      uintptr_t frame)
{
	MRC_NOT_CANCELLED;
	struct range *range;
	bool kept = false;

	if (!ranges_is_owner(ranges) || !length)
		return false;
	pthread_mutex_lock(&ranges->lock);
	if (!is_announced(ranges, addr, length))
		want_thread(ranges);
	range = find(ranges, addr, length);
	if (range)
		kept = may_be_kept(ranges, range, frame);
	if (!kept)
		range = get(ranges, addr, length);
	if (range)
		bear_witness(range, frame);
	pthread_mutex_unlock(&ranges->lock);
	return kept;
}

bool ranges_is_valid(struct ranges *ranges, const void *addr, size_t length,
		     uintptr_t frame)
{
	MRC_NOT_CANCELLED;
	struct range *range;
	bool valid;

	if (!ranges_is_owner(ranges))
		return false;
	pthread_mutex_lock(&ranges->lock);
	range = find(ranges, addr, length);
	valid = range && is_untouched(ranges, range);
	/*
	 * The only entry is the one that is asked about, and it is dropped now.
	 * The registration that follows can be kept.
	 */
	if (range && !valid && !range->telling && range->entries == 1) {
		range->entries = 0;
		if (get(ranges, addr, length) == range)
			bear_witness(range, frame);
	}
	pthread_mutex_unlock(&ranges->lock);
	return valid;
}

void ranges_no_entries(struct ranges *ranges)
{
	MRC_NOT_CANCELLED;
	struct range *range, *next;

	if (!ranges_is_owner(ranges))
		return;
	pthread_mutex_lock(&ranges->lock);
	HASH_ITER(hh_id, ranges->by_id, range, next)
	{
		range->entries = 0;
		if (!range->pins && !range->telling)
			forget(ranges, range);
	}
	pthread_mutex_unlock(&ranges->lock);
}

/* ---- registrations that are announced --------------------------------------------------- */

/* Under the lock. */
static void end_pin(struct ranges *ranges, uint64_t id)
{
	struct range *range = find_id(ranges, id);

	if (!range || --range->pins)
		return;
	if (!range->entries && !range->telling)
		forget(ranges, range);
}

static uint64_t announce(struct ranges *ranges, const void *addr, size_t length)
{
	MRC_NOT_CANCELLED;
	struct range *range;
	uint64_t id = 0;

	pthread_mutex_lock(&ranges->lock);
	range = get(ranges, addr, length);
	if (range) {
		struct witness *witness;

		bear_witness(range, 1);
		witness = find_witness(range);
		witness->frame = ANNOUNCED;
		range->pins++;
		id = range->id;
	}
	pthread_mutex_unlock(&ranges->lock);
	return id;
}

/* Under the lock. What cannot be remembered must not be kept. */
static void remember(struct ranges *ranges, struct pin *pin)
{
	struct range *range = find_id(ranges, pin->id);
	struct pin *lost;

	/* A device that was closed takes its registrations along, untold. */
	HASH_FIND(hh, ranges->pins, &pin->mr, sizeof(pin->mr), lost);
	if (lost) {
		HASH_DEL(ranges->pins, lost);
		end_pin(ranges, lost->id);
		free(lost);
	}
	HASH_ADD(hh, ranges->pins, mr, sizeof(pin->mr), pin);
	if (pin->hh.tbl)
		return;
	if (range && find_witness(range))
		find_witness(range)->frame = 0;
	free(pin);
}

/* pin->mr was made, or not. */
static void settle(struct ranges *ranges, struct pin *pin)
{
	MRC_NOT_CANCELLED;

	pthread_mutex_lock(&ranges->lock);
	if (pin->mr && pin->id) {
		remember(ranges, pin);
	} else {
		end_pin(ranges, pin->id);
		free(pin);
	}
	pthread_mutex_unlock(&ranges->lock);
}

/* What the verb is cancelled in is its caller's business. */
void *ranges_reg(struct ranges *ranges, const void *addr, size_t length,
		 ranges_pin_fn *pin_fn, void *arg)
{
	struct pin *pin;
	void *mr;
	int error;

	if (!ranges_is_owner(ranges) || !length)
		return pin_fn(arg);
	ranges_tell(ranges);
	pin = calloc(1, sizeof(*pin));
	if (!pin)
		return pin_fn(arg);
	pin->id = announce(ranges, addr, length);
	mr = pin->mr = pin_fn(arg);
	error = errno;
	settle(ranges, pin);
	errno = error;
	return mr;
}

/* The pin of this mr, which is forgotten, or NULL. */
static struct pin *take_pin(struct ranges *ranges, void *mr)
{
	MRC_NOT_CANCELLED;
	struct pin *pin;

	pthread_mutex_lock(&ranges->lock);
	HASH_FIND(hh, ranges->pins, &mr, sizeof(mr), pin);
	if (pin)
		HASH_DEL(ranges->pins, pin);
	pthread_mutex_unlock(&ranges->lock);
	return pin;
}

int ranges_dereg(struct ranges *ranges, void *mr, ranges_unpin_fn *unpin)
{
	struct pin *pin;
	int ret;

	if (!ranges_is_owner(ranges))
		return -ENOENT;
	/* Before the verb: after it the address may be another's. */
	pin = take_pin(ranges, mr);
	if (!pin)
		return -ENOENT;
	ret = unpin(mr);
	if (!ret)
		pin->mr = NULL;
	settle(ranges, pin);
	return ret;
}

/* ---- telling; under tell_lock ------------------------------------------------------------ */

/* What is to be told of. */
struct batch {
	size_t n;
	struct key keys[REPORTS];
	uint64_t ids[REPORTS];
};

/* Under the lock. From now on nothing is accepted. */
static void put(struct batch *batch, struct range *range)
{
	range->telling = true;
	batch->ids[batch->n] = range->id;
	batch->keys[batch->n++] = range->key;
}

/* With no other lock: libfabric takes its own. */
static void tell_batch(struct ranges *ranges, const struct batch *batch)
{
	for (size_t i = 0; i < batch->n; i++) {
		const struct key *key = &batch->keys[i];
		struct range *range;

		ranges->notify(ranges->notify_arg, (const void *)key->addr,
			       key->length);
		pthread_mutex_lock(&ranges->lock);
		range = find_id(ranges, batch->ids[i]);
		if (range) {
			/* Nothing was accepted since, so this is all. */
			range->telling = false;
			range->entries = 0;
			if (!range->pins)
				forget(ranges, range);
		}
		pthread_mutex_unlock(&ranges->lock);
	}
}

/* Everything reported is told; *generation is up to where. */
static int tell_reported(struct ranges *ranges, uint64_t *generation)
{
	struct batch batch;
	uint64_t ids[REPORTS];
	bool empty = false;

	while (!empty) {
		int read = ranges->monitor->ops->read(
			ranges->monitor, ids, REPORTS, generation, &empty);

		if (read < 0)
			return read;
		batch.n = 0;
		pthread_mutex_lock(&ranges->lock);
		for (int i = 0; i < read; i++) {
			struct range *range = find_id(ranges, ids[i]);

			/* It may have been armed again by now. */
			if (range && !is_untouched(ranges, range))
				put(&batch, range);
		}
		pthread_mutex_unlock(&ranges->lock);
		tell_batch(ranges, &batch);
	}
	return 0;
}

/* The oldest go. */
static void make_room(struct ranges *ranges)
{
	struct batch batch = {.n = 0};
	struct range *range, *next;

	pthread_mutex_lock(&ranges->lock);
	if (ranges->is_crowded) {
		HASH_ITER(hh_id, ranges->by_id, range, next)
		{
			if (batch.n == REPORTS)
				break;
			if (!range->pins)
				put(&batch, range);
		}
		ranges->is_crowded = false;
	}
	pthread_mutex_unlock(&ranges->lock);
	tell_batch(ranges, &batch);
}

static bool has_news(const struct ranges *ranges)
{
	/* Pairs with the driver's release of the counter. */
	uint64_t generation =
		__atomic_load_n(ranges->monitor->generation, __ATOMIC_ACQUIRE);

	return atomic_load_explicit(&ranges->told_up_to,
				    memory_order_acquire) != generation + 1;
}

/* reports: there are some, whatever the counter says. */
static int tell(struct ranges *ranges, bool reports)
{
	uint64_t generation = 0;
	int cancel, ret = 0;

	/* read() is a cancellation point. */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	pthread_mutex_lock(&ranges->tell_lock);
	if (reports || has_news(ranges)) {
		ret = tell_reported(ranges, &generation);
		if (ret)
			atomic_store(&ranges->is_broken, true);
		else
			/* Pairs with has_news(): all is told before. */
			atomic_store_explicit(&ranges->told_up_to,
					      generation + 1,
					      memory_order_release);
	}
	pthread_mutex_unlock(&ranges->tell_lock);
	pthread_setcancelstate(cancel, NULL);
	return ret;
}

void ranges_tell(struct ranges *ranges)
{
	if (ranges_is_owner(ranges) && has_news(ranges) &&
	    !ranges_is_broken(ranges))
		tell(ranges, false);
}

static void *tell_forever(void *arg)
{
	struct ranges *ranges = arg;
	struct pollfd fds[] = {
		{.fd = ranges->monitor->fd, .events = POLLIN},
		{.fd = ranges->stop, .events = POLLIN},
	};
	eventfd_t count;

	for (;;) {
		fds[0].revents = fds[1].revents = 0;
		if (!mrc_await(fds, 2, -1))
			fds[0].revents = fds[1].revents = POLLIN;
		if (atomic_load(&ranges->is_ending))
			return NULL;
		if (fds[1].revents) {
			eventfd_read(ranges->stop, &count);
			pthread_mutex_lock(&ranges->tell_lock);
			make_room(ranges);
			pthread_mutex_unlock(&ranges->tell_lock);
		}
		if ((fds[0].revents & ~POLLIN) ||
		    (fds[0].revents && tell(ranges, true)))
			return NULL;
	}
}
