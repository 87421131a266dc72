/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The in-flight window: the driver's start, end and arming against a cache
 * that watches, pins, looks, publishes. `version` is what the page tables map;
 * each invalidation makes a new one at some moment between its start and its
 * end. Checked: when an invalidation has returned, no registration of an older
 * version passes for valid.
 *
 * Broken variants, each of which must fail: -DNO_END (the end does nothing),
 * -DPIN_FIRST (the cache watches after the pin), -DNO_CHECK (the cache does
 * not look after the pin), -DEND_FORGETS (the end counts down before it looks,
 * and a window that is over flags nothing).
 */
#define INVALIDATIONS 2
#define ARMS 3

byte version;	/* of the mapping */
byte inflight;	/* between start and end */
byte window;	/* number of the latest busy period */

bool watched;
bool dirty;	/* the state word */
byte armed_in;	/* the window it was armed in, 0 if none */

bool published;
byte pinned;	/* the version the registration reaches */

inline arm()
{
	atomic { /* the driver's lock */
		watched = true;
		dirty = false;
		if
		:: inflight > 0 -> armed_in = window
		:: else -> armed_in = 0
		fi
	}
}

active [INVALIDATIONS] proctype invalidation()
{
	byte mine;

	atomic { /* start, under the driver's lock */
		if
		:: inflight == 0 -> window++
		:: else
		fi;
		inflight++;
		if
		:: watched -> dirty = true
		:: else
		fi
	}
	atomic { version++; mine = version }
	atomic { /* end */
#ifdef END_FORGETS
		inflight--;
		if
		:: inflight == 0 -> armed_in = 0
		:: else
		fi;
#endif
#ifndef NO_END
		if
		:: watched && armed_in != 0 && armed_in == window -> dirty = true
		:: else
		fi;
#endif
#ifndef END_FORGETS
		inflight--;
#endif
		mine = mine
	}
	/* The system call returns. */
	assert(!(published && !dirty && pinned < mine))
}

active proctype cache()
{
	byte arms;

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
