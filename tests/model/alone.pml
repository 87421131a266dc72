/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * No membarrier() while one thread uses the cache. The first thread ends a
 * registration, which needs the sum of all counts, while a second one comes: it
 * is entered under the lock, and then tries to hold what it finds without one.
 * Each thread's count reaches the others late, by its store buffer: `mine` is
 * what it wrote, `seen` what memory holds; taking a lock empties the buffer of
 * the thread that takes it. Who dooms reads its own count as it wrote it, and
 * has the heavy fence, which empties all buffers, only if there are many.
 *
 * Checked: not released while anybody uses it; released in the end.
 *
 * Broken variants, each of which must fail: -DNEVER (the second thread does not
 * say that it is there), -DUNLOCKED (it says so without the lock), -DLATE (it
 * says so after its first hold).
 */
#define FIRST  0
#define SECOND 1

bool lock;
bool many;
bool dead;	/* life */
bool doomed;	/* state MR_DOOMED */
byte released;
byte mine[2];
byte seen[2];
byte using;
byte finished;

inline acquire(me)
{
	atomic { !lock -> lock = true; seen[me] = mine[me] }
}
inline release() { lock = false }

/* Under the lock; the other's count is what memory holds. */
inline release_if_unheld(me)
{
	if
	:: doomed && mine[me] + seen[1 - me] == 0 ->
		doomed = false;
		released++;
		assert(released == 1);
		assert(using == 0)
	:: else
	fi
}

inline hold(me)
{
	mine[me] = mine[me] + 1;	/* stays in the buffer */
	if
	:: atomic { !dead -> using++ };
		atomic { using--; mine[me] = mine[me] - 1 }
	:: dead ->
		mine[me] = mine[me] - 1
	fi;
	if
	:: dead ->
		acquire(me);
		release_if_unheld(me);
		release()
	:: else
	fi
}

inline enter()
{
#ifdef NEVER
	skip
#else
#ifdef UNLOCKED
	many = true
#else
	acquire(SECOND);
	many = true;
	release()
#endif
#endif
}

active proctype first()
{
	bool fence;

	hold(FIRST);
	acquire(FIRST);
#ifdef UNLOCKED	/* and so it may be seen late */
	fence = many;
#endif
	doomed = true;
	dead = true;
#ifndef UNLOCKED
	fence = many;
#endif
	if
	:: fence -> atomic { seen[0] = mine[0]; seen[1] = mine[1] }
	:: else
	fi;
	release_if_unheld(FIRST);
	release();
	finished++
}

active proctype second()
{
#ifdef LATE
	hold(SECOND);
	enter();
#else
	enter();
	hold(SECOND);
#endif
	finished++
}

/* The store buffer of a thread drains when it likes. */
active proctype memory()
{
	do
	:: atomic { seen[0] != mine[0] -> seen[0] = mine[0] }
	:: atomic { seen[1] != mine[1] -> seen[1] = mine[1] }
	:: finished == 2 -> break
	od;
	assert(released == 1)
}
