/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR BSD-2-Clause */
/*
 * /dev/ummunotify: tell a process when the kernel changes the mappings of
 * address ranges it watches. The interface is described in docs/abi.md.
 *
 * The first part is the interface of 2010, the last part that of 2009; neither
 * may change. Everything between is new and must be asked for with
 * UMMUNOTIFY_EXCHANGE_FEATURES. Ranges are [start, end) throughout.
 */
#ifndef _LINUX_UMMUNOTIFY_H
#define _LINUX_UMMUNOTIFY_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* ---- 2010 ------------------------------------------------------------- */

#define UMMUNOTIFY_MAGIC 'U'

enum {
	UMMUNOTIFY_EVENT_TYPE_INVAL = 0, /* a watch was invalidated */
	UMMUNOTIFY_EVENT_TYPE_LAST = 1,	 /* nothing more is pending */
};

enum {
	/*
	 * hint_start and hint_end say what was invalidated, exactly; for a
	 * watch made with UMMUNOTIFY_WATCH, by the first that hit it.
	 */
	UMMUNOTIFY_EVENT_FLAG_HINT = 1 << 0,
};

/* What read() returns, as many as fit. */
struct ummunotify_event {
	__u32 type;
	__u32 flags;
	__u64 hint_start; /* INVAL: the part hit, or the whole watch without HINT */
	__u64 hint_end;
	__u64 user_cookie_counter; /* INVAL: cookie; LAST: generation counter */
};

struct ummunotify_register_ioctl {
	__u64 start;
	__u64 end;
	__u64 user_cookie;
	__u32 flags;	/* ignored: programs of 2010 leave it uninitialised */
	__u32 reserved; /* ignored */
};

#define UMMUNOTIFY_EXCHANGE_FEATURES _IOWR(UMMUNOTIFY_MAGIC, 1, __u32)
#define UMMUNOTIFY_REGISTER_REGION \
	_IOW(UMMUNOTIFY_MAGIC, 2, struct ummunotify_register_ioctl)
#define UMMUNOTIFY_UNREGISTER_REGION _IOW(UMMUNOTIFY_MAGIC, 3, __u64)

/* ---- features --------------------------------------------------------- */

/*
 * A mask without this signature in its upper half is taken for one of 2010,
 * which some programs pass uninitialised, and answered with 0.
 */
#define UMMUNOTIFY_FEATURES_MAGIC 0x4d520000u
#define UMMUNOTIFY_FEATURES_MAGIC_MASK 0xffff0000u

/* Only kinds that can make a pinned page the wrong one are reported. */
#define UMMUNOTIFY_FEATURE_FILTER (1u << 0)
/* Events carry the UMMUNOTIFY_KIND_* that hit, in UMMUNOTIFY_EVENT_KINDS. */
#define UMMUNOTIFY_FEATURE_KIND (1u << 1)
/* WATCH, REARM, ARM, ARM_MANY and the mapping of state words. */
#define UMMUNOTIFY_FEATURE_STATE (1u << 2)
/* FINGERPRINT. Of use with FEATURE_STATE only. */
#define UMMUNOTIFY_FEATURE_FINGERPRINT (1u << 3)

/* Kinds of invalidation. */
#define UMMUNOTIFY_KIND_UNMAP 0x01u	 /* munmap, MAP_FIXED over, mremap, brk */
#define UMMUNOTIFY_KIND_CLEAR 0x02u	 /* DONTNEED, truncate, punch hole, COW */
#define UMMUNOTIFY_KIND_PROTECTION 0x04u /* mprotect, fork, NUMA balancing */
#define UMMUNOTIFY_KIND_SOFT_DIRTY 0x08u /* soft-dirty tracking */
#define UMMUNOTIFY_KIND_MIGRATE 0x10u	 /* attempts to move to device memory */
#define UMMUNOTIFY_KIND_OTHER 0x20u	 /* kinds newer than this driver */

#define UMMUNOTIFY_EVENT_KINDS_SHIFT 8
#define UMMUNOTIFY_EVENT_KINDS (0xffu << UMMUNOTIFY_EVENT_KINDS_SHIFT)

/* ---- state words (FEATURE_STATE) --------------------------------------- */

/*
 * The counter page is mapped at offset 0, the array of state words, one __u32
 * for each slot, at this offset. Both are read-only. A watch is untouched
 * since it was armed exactly while its word equals the `state` that was
 * returned by the call that armed it.
 */
#define UMMUNOTIFY_STATE_OFFSET 0x100000

#define UMMUNOTIFY_STATE_KINDS 0x7fu /* the KIND_* that hit it first */
#define UMMUNOTIFY_STATE_FREE 0x80u  /* no watch has this slot */
#define UMMUNOTIFY_STATE_GENERATION_SHIFT 8

/* Refuse with EOPNOTSUPP, and say in `memory` why, what must not be cached. */
#define UMMUNOTIFY_WATCH_CACHEABLE (1u << 0)

/* What in a range forbids caching a registration of it. */
#define UMMUNOTIFY_MEMORY_HOLE 0x01u   /* something is not mapped */
#define UMMUNOTIFY_MEMORY_DEVICE 0x02u /* VM_IO, VM_PFNMAP, device files */
#define UMMUNOTIFY_MEMORY_DAX 0x04u    /* storage mapped directly */

struct ummunotify_watch_ioctl {
	__u64 start;
	__u64 end;
	__u64 user_cookie;
	__u32 flags;  /* in: UMMUNOTIFY_WATCH_*, others EINVAL */
	__u32 memory; /* out: UMMUNOTIFY_MEMORY_*, with WATCH_CACHEABLE */
	__u32 slot;   /* out: index of the state word */
	__u32 state;  /* out: the state word as armed */
};

struct ummunotify_rearm_ioctl {
	__u64 user_cookie;
	__u32 slot;  /* out */
	__u32 state; /* out: the state word as armed anew */
};

/*
 * UMMUNOTIFY_ARM: arms a watch anew and says where it is from now on, which may
 * be where it was. These structures may grow: `size` says what the program knows,
 * what it does not know counts as 0. On failure nothing has changed.
 */
#define UMMUNOTIFY_ARM_CACHEABLE (1u << 0) /* as UMMUNOTIFY_WATCH_CACHEABLE */

struct ummunotify_arm {
	__u32 size;	   /* in: of this structure */
	__u32 flags;	   /* in: UMMUNOTIFY_ARM_*, others EINVAL */
	__u64 user_cookie; /* in: which watch */
	__u64 new_cookie;  /* in: its cookie from now on */
	__u64 start;	   /* in: its range from now on */
	__u64 end;
	__u32 memory;	/* out: UMMUNOTIFY_MEMORY_*, with ARM_CACHEABLE */
	__s32 error;	/* out, of UMMUNOTIFY_ARM_MANY: 0 or -errno */
	__u32 slot;	/* out */
	__u32 state;	/* out: the state word as armed anew */
	__u64 reserved; /* in: 0 */
};

/* UMMUNOTIFY_ARM_MANY: one after the other, each with its own `error`. */
struct ummunotify_arm_many {
	__u32 size;	/* in: of this structure */
	__u32 flags;	/* in: 0 */
	__u64 arms;	/* in: address of the first struct ummunotify_arm */
	__u32 count;	/* in: how many; each is as long as its `size` */
	__u32 done;	/* out: how many were dealt with */
	__u64 reserved; /* in: 0 */
};

/*
 * UMMUNOTIFY_FINGERPRINT: which pages a registration of a watch's range would
 * get now, as one number. Without VERIFY it is taken: of a watch that is armed
 * and pinned. With VERIFY the watch is armed anew, whatever CLEAR has hit it,
 * and what is found is compared.
 */
#define UMMUNOTIFY_FINGERPRINT_VERIFY (1u << 0)
/* The registration may write: its pages must be writable. */
#define UMMUNOTIFY_FINGERPRINT_WRITE (1u << 1)
/* Nothing is faulted in: of pages that are not there one cannot tell. */
#define UMMUNOTIFY_FINGERPRINT_PRESENT (1u << 2)

enum {
	UMMUNOTIFY_PAGES_UNKNOWN = 0, /* cannot tell: take them for others */
	UMMUNOTIFY_PAGES_SAME = 1,    /* so far as the word is `state` */
	UMMUNOTIFY_PAGES_OTHER = 2,   /* with VERIFY only */
};

struct ummunotify_fingerprint {
	__u32 size;	   /* in: of this structure */
	__u32 flags;	   /* in: UMMUNOTIFY_FINGERPRINT_*, others EINVAL */
	__u64 user_cookie; /* in: which watch */
	__u64 fingerprint; /* out; with VERIFY in: as it was taken */
	__u32 slot;	   /* out */
	__u32 state;	   /* in: as armed; with VERIFY out: as armed anew */
	__s32 error;	   /* out: 0 or -errno */
	__u32 answer;	   /* out: UMMUNOTIFY_PAGES_* */
	__u64 reserved;	   /* in: 0 */
};

/* What the call takes: one after the other, each with its own `error`. */
struct ummunotify_fingerprints {
	__u32 size;	    /* in: of this structure */
	__u32 flags;	    /* in: 0 */
	__u64 fingerprints; /* in: address of the first */
	__u32 count;	    /* in: how many; each is as long as its `size` */
	__u32 done;	    /* out: how many were dealt with */
	__u64 reserved;	    /* in: 0 */
};

struct ummunotify_query_ioctl {
	__u32 features;	    /* all that this driver offers, without the magic */
	__u32 granted;	    /* what this file was granted */
	__u64 max_watches;  /* limit of this file */
	__u64 watches;	    /* watches of this file now */
	__u64 state_offset; /* where and how large the state words are: */
	__u64 state_bytes;  /* 0 without FEATURE_STATE */
	__u64 reserved[3];  /* 0 */
};

#define UMMUNOTIFY_WATCH _IOWR(UMMUNOTIFY_MAGIC, 4, struct ummunotify_watch_ioctl)
#define UMMUNOTIFY_REARM _IOWR(UMMUNOTIFY_MAGIC, 5, struct ummunotify_rearm_ioctl)
#define UMMUNOTIFY_QUERY _IOR(UMMUNOTIFY_MAGIC, 6, struct ummunotify_query_ioctl)
/* Numbers that stay when the structures grow: an argument begins with its size. */
#define UMMUNOTIFY_ARM _IOWR(UMMUNOTIFY_MAGIC, 7, __u32)
#define UMMUNOTIFY_ARM_MANY _IOWR(UMMUNOTIFY_MAGIC, 8, __u32)
#define UMMUNOTIFY_FINGERPRINT _IOWR(UMMUNOTIFY_MAGIC, 9, __u32)

/* ---- 2009 ------------------------------------------------------------- */

/* The numbers differ from those of 2010 because the argument sizes do. */
#define UMMUNOT_INTF_VERSION 1

struct ummunot_register_ioctl {
	__u32 intf_version; /* in: 1; out, with EINVAL: the version served */
	__u32 reserved1;
	__u64 start;
	__u64 end;
	__u64 user_cookie;
};

#define UMMUNOT_REGISTER_REGION \
	_IOWR(UMMUNOTIFY_MAGIC, 1, struct ummunot_register_ioctl)
#define UMMUNOT_UNREGISTER_REGION _IOW(UMMUNOTIFY_MAGIC, 2, __u64)

#endif /* _LINUX_UMMUNOTIFY_H */
