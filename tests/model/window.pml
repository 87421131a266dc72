/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The in-flight window: the driver's start, end and arming against a cache
 * that watches, pins, looks, publishes. `version` is what the page tables map;
 * each invalidation makes a new one at some moment between its start and its
 * end, or lets it be. Checked: when an invalidation has returned, no
 * registration of an older version passes for valid.
 *
 * One watch is enough: what else a walk passes, before it and after it, is the
 * moments at which it lets go of the lock. A walk publishes what it told, by
 * moving the counter, when it is through; others do that for it when they
 * return earlier.
 *
 * Broken variants, each of which must fail: -DNO_END (the end does nothing),
 * -DPIN_FIRST (the cache watches after the pin), -DNO_CHECK (the cache does
 * not look after the pin), -DEND_FORGETS (the end counts down before it looks
 * whether something was armed), -DSTAYS_OUT (arming anew does not put the watch
 * back into the tree), -DTOLD_LATE (a watch leaves the tree in one piece of the
 * walk and is marked in the next), -DBLIND (what is armed while a walk has let
 * go is not noted), -DKEEPS_QUIET (who returns while a walk has let go does not
 * move the counter for it), -DIDLE_EARLY (the last watch leaves, and the next
 * invalidation needs no lock, although the counter has not moved),
 * -DLOOKS_FIRST (the start sees that there is nothing to do before it counts
 * itself), -DARM_LOOKS_FIRST (arming looks for invalidations before the watch
 * is in the tree).
 */
#define INVALIDATIONS 2
#define ARMS 3

byte version;	/* of the mapping */

/* The driver's, of one address space. */
byte inflight;	/* between start and end: these two are one word */
bool armed;	/* something was, in this window */
bool idle = true;	/* nothing that an invalidation would look at */
bool in_tree;
bool dirty;	/* the state word */
bool unpublished;	/* told, and the counter has not moved */
byte letting_go;	/* walks that have let go of the lock */
byte counter;

/* The cache's. */
bool published;
bool lookout;	/* the counter was looked at: `drained` means something */
byte drained;
byte pinned;	/* the version the registration reaches */

/* Under the driver's lock. */
inline settle()
{
#ifdef IDLE_EARLY
	idle = !in_tree
#else
	idle = !in_tree && !unpublished
#endif
}

inline tell()
{
	if
	:: in_tree -> in_tree = false; dirty = true; hit = true
	:: else
	fi
}

inline publish()
{
	if
#ifdef KEEPS_QUIET
	:: hit -> counter++; unpublished = false
#else
	:: hit || unpublished -> counter++; unpublished = false
#endif
	:: else
	fi;
	hit = false
}

inline let_go()
{
	unpublished = unpublished || hit;
	letting_go++
}

/*
 * The walk: takes the lock, comes to the watch, is through; it may let go of the
 * lock before the watch, after it, or not at all. Others run between the atomic
 * pieces, and only there.
 */
inline walk()
{
	if
	:: atomic { true -> tell(); publish(); settle() }
	:: atomic { true -> let_go() };
	   atomic { letting_go--; tell(); publish(); settle() }
	:: atomic { true -> tell(); let_go();
#ifdef IDLE_EARLY
		settle()
#endif
	   };
	   atomic { letting_go--; publish(); settle() }
#ifdef TOLD_LATE
	:: atomic { true -> late = in_tree; in_tree = false; settle() };
	   atomic {
		if
		:: late -> dirty = true; counter++
		:: else
		fi
	   }
#endif
	fi
}

active [INVALIDATIONS] proctype invalidation()
{
	byte mine;
	bool hit;
	bool seen;
#ifdef TOLD_LATE
	bool late;
#endif

	/* start */
#ifdef LOOKS_FIRST
	seen = idle;
	inflight++;
#else
	inflight++;
	seen = idle;
#endif
	if
	:: seen
	:: else -> walk()
	fi;

	if
	:: atomic { version++; mine = version }
	:: mine = 0	/* another's part of the range, or nothing there */
	fi;

	/* end */
#ifdef END_FORGETS
	atomic {
		inflight--;
		if
		:: inflight == 0 -> armed = false
		:: else
		fi
	};
	if
	:: armed -> walk()
	:: else
	fi;
#else
	if
	:: atomic { !armed -> inflight-- }
	:: armed ->
#ifndef NO_END
		walk();
#endif
		atomic {
			inflight--;
			if
			:: inflight == 0 -> armed = false
			:: else
			fi
		}
	fi;
#endif
	/* The system call returns: nothing may pass for valid. */
	atomic {
		if
		:: mine == 0
		:: else ->
			assert(!(published && pinned < mine && !dirty));
			assert(!(published && pinned < mine && lookout && drained == counter))
		fi
	}
}

/* The driver's lock is held, so nobody lets go of it in the middle of this. */
inline note()
{
#ifdef BLIND
	armed = armed || (inflight > 0 && letting_go == 0)
#else
	armed = armed || inflight > 0
#endif
}

inline arm()
{
#ifdef ARM_LOOKS_FIRST
	atomic { dirty = false; note() };
	atomic { in_tree = true; idle = false }
#else
#ifdef STAYS_OUT
	atomic {
		dirty = false;
		if
		:: !once -> in_tree = true; idle = false
		:: else
		fi;
		once = true
	};
#else
	/* A start may count itself between the two: it needs no lock. */
	atomic { dirty = false; in_tree = true; idle = false };
#endif
	atomic { note() }
#endif
}

/* read() until LAST: the report, if any, and the counter at that moment. */
inline drain()
{
	atomic {
		drained = counter;
		lookout = true;
		if
		:: dirty -> published = false
		:: else
		fi
	}
}

active proctype cache()
{
	byte arms;
#ifdef STAYS_OUT
	bool once;
#endif

#ifdef PIN_FIRST
	pinned = version;
	arm();
	if
	:: !dirty -> published = true
	:: else
	fi
#else
	do
	:: arms < ARMS ->
		arms++;
		published = false;
		lookout = false;
		arm();
		pinned = version;
#ifdef NO_CHECK
		published = true;
		dirty = false;
		break
#else
		if
		:: dirty		/* again */
		:: !dirty ->
			published = true;
			/* From here on a hit may go by the counter alone. */
			drain();
			/* A later use finds it dirty and starts over. */
			if
			:: dirty
			:: break
			fi
		fi
#endif
	:: else -> break
	od
#endif
}
