/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Holds counted by each thread for itself, against a doomer (drain, eviction,
 * flush). A thread's count reaches the others late: `mine` is what the thread
 * wrote, `seen` what memory holds, and a flush may happen at any time (total
 * store order). The heavy fence, membarrier(), flushes all threads.
 * Thread 0 may hand a hold to thread 1, which gives it back for it.
 * The doomer may also put aside what it dooms, and have the fence without the
 * lock before it adds up; until then nobody else does.
 *
 * Checked: not released while anybody uses it; never twice; released in the
 * end.
 *
 * Broken variants, each of which must fail: -DNO_HEAVY (the doomer's fence is
 * its own only), -DNO_RECHECK (a hold is believed without a look at life),
 * -DNO_FINISH (the last one to give back does not look at life), -DEAGER (who
 * gives back adds up what is aside).
 */
#define THREADS 2

bool dead;	 /* life */
bool lock;
bool doomed;	 /* state MR_DOOMED */
bool aside;	 /* and no fence yet */
byte released;
short handed;
short mine[THREADS];
short seen[THREADS];
byte using;
bool passed;	 /* thread 0's hold now belongs to thread 1 */
bool sure;	 /* thread 0 passes nothing any more */
byte finished;

inline acquire() { atomic { !lock -> lock = true } }
inline release() { lock = false }

/* Under the lock; reads one count after the other, as the code does. */
inline release_if_unheld(sum)
{
	sum = handed;
	sum = sum + seen[0];
	sum = sum + seen[1];
	if
	:: doomed && sum <= 0 ->
		doomed = false;
		released++;
		assert(released == 1);
		assert(using == 0)
	:: else
	fi
}

inline finish(me, sum)
{
	acquire();
	seen[me] = mine[me];
#ifndef EAGER
	if
	:: aside
	:: else -> release_if_unheld(sum)
	fi;
#else
	release_if_unheld(sum);
#endif
	release()
}

inline give_back(me, sum)
{
	atomic { using--; mine[me] = mine[me] - 1 };
#ifndef NO_FINISH
	if
	:: dead -> finish(me, sum)
	:: else
	fi
#endif
}

proctype thread(byte me)
{
	short sum;
	byte rounds;

	do
	:: rounds < 2 ->
		rounds++;
		mine[me] = mine[me] + 1;
#ifdef NO_RECHECK
		using++;
		give_back(me, sum)
#else
		if
		:: dead ->	/* back off, as if it had been held */
			mine[me] = mine[me] - 1;
			finish(me, sum);
			break
		:: atomic { !dead -> using++ }
			if
			:: give_back(me, sum)
			:: me == 0 && !passed ->
				/* Passing on is a release: counts before. */
				atomic { seen[0] = mine[0]; passed = true }
			fi
		fi
#endif
	:: else -> break
	od;
	if
	:: me == 0 -> sure = true
	:: me == 1 ->
		(sure);		/* whether anything was passed */
		if
		:: passed ->
			atomic { using--; handed-- };
			if
			:: dead -> finish(me, sum)
			:: else
			fi
		:: else
		fi
	fi;
	finished++
}

/* The store buffer of a thread drains when it likes. */
active proctype memory()
{
	do
	:: atomic { seen[0] != mine[0] -> seen[0] = mine[0] }
	:: atomic { seen[1] != mine[1] -> seen[1] = mine[1] }
	:: finished == THREADS + 1 -> break
	od
}

active proctype doomer()
{
	short sum;

	atomic { run thread(0); run thread(1) };
	acquire();
	doomed = true;
	dead = true;
	if
	:: aside = true;
		release()
	:: skip
	fi;
#ifndef NO_HEAVY
	atomic { seen[0] = mine[0]; seen[1] = mine[1] };
#endif
	if
	:: aside ->
		acquire();
		aside = false
	:: else
	fi;
	release_if_unheld(sum);
	release();
	finished++;
	(finished == THREADS + 1);
	assert(released == 1)
}
