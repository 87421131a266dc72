/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the acquires and releases are for, on processors that keep no other order
 * (arm64): loads and stores to different places are done in any order, each at
 * once for all, but for those that a fence, an acquire or a release keeps apart.
 * A thread is a set of steps, each with those it must come after.
 *
 * Checked: no hit that began after munmap had returned (promise 3); no watch
 * believed for a generation that includes its invalidation; no field of another
 * use of a registration believed (I2).
 *
 * Broken variants, each of which must fail: -DDRAINED_RELAXED (the hit's load),
 * -DDRAINED_EARLY (the drainer's store is no release), -DCOUNTER_RELAXED (the
 * program's load), -DCOUNTER_EARLY (the driver's store is no release),
 * -DFIELD_RELAXED, -DLIFE_RELAXED (the loads of a lookup), -DLIFE_EARLY (its
 * publication is no release), -DNO_HEAVY (nothing between the end of one use and
 * the fields of the next).
 */
#define STEP(n)		!done[n] -> done[n] = true
#define AFTER(n)	done[n]

bool dirty;		/* the state word */
byte counter;		/* the driver's */
bool told;		/* driver's lock: word, report and counter are written */
bool returned;		/* munmap has */
byte drained = 1;	/* generation + 1 */
byte life = 1;		/* odd while LIVE */
byte field = 1;		/* what a lookup compares: the life it belongs to */

/* umn_set_state(), then smp_store_release(counter) in umn_publish(). */
active proctype munmap()
{
	bool done[2];

	do
	:: atomic { STEP(0); dirty = true }
#ifdef COUNTER_EARLY
	:: atomic { STEP(1); counter = 1 }
#else
	:: atomic { AFTER(0) && STEP(1); counter = 1 }
#endif
	:: done[0] && done[1] -> break
	od;
	told = true;
	returned = true
}

/* read() takes the driver's lock, so it sees all of an invalidation or nothing. */
active proctype drain()
{
	bool done[4];

	told;
	do
	:: atomic { STEP(0); life = 2 }
#ifdef DRAINED_EARLY
	:: atomic { STEP(1); drained = 2 }
#else
	:: atomic { AFTER(0) && STEP(1); drained = 2 }
#endif
	/* The object's next use: the heavy fence is before its fields. */
#ifdef NO_HEAVY
	:: atomic { STEP(2); field = 3 }
#else
	:: atomic { AFTER(0) && AFTER(1) && STEP(2); field = 3 }
#endif
#ifdef LIFE_EARLY
	:: atomic { AFTER(0) && AFTER(1) && STEP(3); life = 3 }
#else
	:: atomic { AFTER(0) && AFTER(1) && AFTER(2) && STEP(3); life = 3 }
#endif
	:: done[0] && done[1] && done[2] && done[3] -> break
	od
}

/* mr_is_usable() of a use that was looked up before munmap: life 1. */
active proctype hit()
{
	bool done[4], late, clean;
	byte d, c, l;

	late = returned;
	do
	:: atomic { STEP(0); d = drained }
#ifdef DRAINED_RELAXED
	:: atomic { STEP(1); c = counter }
	:: atomic { STEP(2); clean = !dirty }
	:: atomic { AFTER(1) && AFTER(2) && STEP(3); l = life }
#else
	:: atomic { AFTER(0) && STEP(1); c = counter }
	:: atomic { AFTER(1) && STEP(2); clean = !dirty }
	:: atomic { AFTER(2) && STEP(3); l = life }
#endif
	:: done[0] && done[1] && done[2] && done[3] -> break
	od;
	assert(!(late && l == 1 && (d == c + 1 || clean)))
}

/* Who keeps a word's answer by the generation, as guards and other caches do. */
active proctype remember()
{
	bool done[2], clean;
	byte c;

	do
	:: atomic { STEP(0); c = counter }
#ifdef COUNTER_RELAXED
	:: atomic { STEP(1); clean = !dirty }
#else
	:: atomic { AFTER(0) && STEP(1); clean = !dirty }
#endif
	:: done[0] && done[1] -> break
	od;
	assert(!(c == 1 && clean))
}

/* mr_serves() between two looks at life. */
active proctype lookup()
{
	bool done[3];
	byte before, f, after;

	do
	:: atomic { STEP(0); before = life }
#ifdef LIFE_RELAXED
	:: atomic { STEP(1); f = field }
#else
	:: atomic { AFTER(0) && STEP(1); f = field }
#endif
#ifdef FIELD_RELAXED
	:: atomic { AFTER(0) && STEP(2); after = life }
#else
	:: atomic { AFTER(0) && AFTER(1) && STEP(2); after = life }
#endif
	:: done[0] && done[1] && done[2] -> break
	od;
	assert(!(before % 2 == 1 && before == after) || f == before)
}
