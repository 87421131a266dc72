/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fingerprints: a cache that watches, pins, takes the fingerprint, looks, and
 * later verifies instead of pinning again. One page of the address space. What
 * is mapped there has a number of its own, which nobody can see, and a frame,
 * which is all that a fingerprint knows. An invalidation leaves the page, or puts
 * another there in any frame that is not pinned, or brings back the one that is
 * pinned, as a file does. Checked: when nothing is under way any more, no
 * registration of another page passes for valid.
 *
 * Which kind an invalidation is of, and what became of the watch between two
 * verifications, is not in it: neither matters, which is the point. The driver
 * is that of window.pml, with walks that do not let go of the lock.
 *
 * Broken variants, each of which must fail: -DVERIFY_FIRST (the pages are looked
 * at, then the watch is armed anew), -DNO_LOOK (nobody looks at the word when the
 * pages have been looked at), -DTAKEN_BLINDLY (the same, when the fingerprint is
 * taken), -DIN_WINDOW (it is taken although an invalidation from before the
 * arming has not ended), -DASKED_LATE (whether such a one has ended is asked
 * after the last look at the word), -DUNPINNED (nothing keeps the frame of the
 * registration's page), -DREPLACED (a fingerprint that differs becomes the one to
 * compare with).
 */
#define INVALIDATIONS 3
#define ROUNDS 3
#define FRAMES 2

/* What is mapped. */
byte page = 1;
byte frame = 1;
byte pages = 1;	/* numbers given so far */

/* The driver's, of one address space and one watch. */
byte inflight;
bool armed;	/* something was, in this window */
bool in_tree;
bool dirty;	/* the word is not what it was armed as */

/* The cache's. */
bool published;
byte pinned;	/* the page that the registration reaches; 0: none */
byte pinned_frame;
bool has_print;
byte print;

inline tell()
{
	if
	:: in_tree -> in_tree = false; dirty = true
	:: else
	fi
}

/* Valid, and of another page, while nothing is under way. */
#define STALE (published && !dirty && pinned != page && inflight == 0)

active [INVALIDATIONS] proctype invalidation()
{
	/* start */
	atomic { inflight++; tell() };

	if
	:: skip
	:: atomic {
		pages++;
		page = pages;
		if
		:: frame = 1
		:: frame = 2
		fi
#ifndef UNPINNED
		;
		if
		:: pinned && frame == pinned_frame -> frame = FRAMES + 1 - frame
		:: else
		fi
#endif
	   }
	:: atomic { pinned -> page = pinned; frame = pinned_frame }
	fi;

	/* end: looks, if something was armed, before it counts itself out */
	if
	:: atomic { !armed -> inflight--; assert(!STALE) }
	:: armed ->
		atomic { tell() };
		atomic {
			inflight--;
			if
			:: inflight == 0 -> armed = false
			:: else
			fi;
			assert(!STALE)
		}
	fi
}

inline arm()
{
	atomic {
		dirty = false;
		in_tree = true;
		armed = armed || inflight > 0
	}
}

/* Any moment of the call will do: once before the pages, once after. */
inline take()
{
	over = !armed;
	atomic { print = frame; has_print = true };
#ifndef ASKED_LATE
	over = over || !armed;
#endif
	seen = dirty;
#ifdef ASKED_LATE
	over = over || !armed;
#endif
#ifdef IN_WINDOW
	over = true;
#endif
#ifdef TAKEN_BLINDLY
	seen = false;
#endif
	has_print = over && !seen
}

active proctype cache()
{
	byte rounds;
	byte found;
	bool over;
	bool seen;

	arm();
	atomic { pinned = page; pinned_frame = frame };
	take();
	published = !dirty;

	do
	:: rounds < ROUNDS ->
		rounds++;
		/* It is used, and found dirty. */
		if
		:: !dirty || !has_print -> break
		:: dirty && has_print
		fi;
		published = false;
#ifdef VERIFY_FIRST
		found = frame;
		arm();
#else
		arm();
		found = frame;
#endif
#ifdef NO_LOOK
		seen = false;
#else
		seen = dirty;
#endif
		if
		:: found == print && !seen ->
#ifdef NO_LOOK
			dirty = false;
#endif
			published = true
		:: else ->
			/* A new registration, which nobody looks at here. */
#ifdef REPLACED
			if
			:: !seen -> print = found
			:: else -> break
			fi
#else
			break
#endif
		fi
	:: else -> break
	od
}
