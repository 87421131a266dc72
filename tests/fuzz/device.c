/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The device. An input is a program: each step takes a byte that says what is
 * done and as many more as it needs, relative to what there is: descriptors,
 * watches, an arena of memory, mappings of the device. Beside it runs a model
 * of docs/abi.md: every result must be the one it says, no invalidation may be
 * missed, no report lost. That the kernel says nothing is looked at after each
 * input.
 *
 * usage: fuzz_device SECONDS SEED DIR [INPUT...]
 *
 * Runs the inputs (files, or all in a directory), then makes new ones from those that showed something new:
 * edges of the module where the kernel has KCOV, else results of steps. What
 * was new is left in DIR/learned, what broke something in DIR.
 */
#include "fuzz.h"
#include "support.h"
#include "umn.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kcov.h>
#include <linux/memfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FILES	 4
#define WATCHES	 64
#define MAPPINGS 8
#define LONGEST	 512 /* bytes of an input */
#define STEPS	 200
#define SECONDS	 300 /* for one input, on a slow machine */

#define ARENA	    ((char *)0x10000000)
#define ARENA_PAGES 32UL
/* Arguments are here, low enough for calls of 32 bits: writable, read-only, none. */
#define ARGUMENT ((char *)0x0f000000)
#define KERNEL	 0xffffffff81000000UL

struct watch {
	uint64_t cookie, start, end;
	bool has_slot;
	uint32_t slot, state;
	bool must;     /* a report must come */
	bool reported; /* and, having a slot, none until it is armed again */
};

struct file {
	int fd; /* -1: none */
	uint32_t features;
	bool used; /* too late to negotiate */
	bool owed; /* a LAST must come */
	const uint64_t *counter;
	const uint32_t *states;
	size_t state_bytes;
	struct watch watches[WATCHES];
	unsigned int n;
};

static struct {
	struct input in;
	struct file files[FILES];
	struct {
		char *addr;
		size_t length;
	} mappings[MAPPINGS];
	int memory;	/* memfd that parts of the arena are of */
	bool uncertain; /* a second thread did something */
} m;

/* What a step came to; says how much there is to learn from an input. */
static void note(unsigned int kind, long result, uint32_t features);

/* ---- memory of the process ------------------------------------------------------ */

/* Reads memory that may not be there. */
static bool peek(const void *addr, void *value, size_t size)
{
	static int ends[2] = {-1, -1};
	ssize_t done;

	if (ends[0] < 0 && pipe2(ends, O_CLOEXEC))
		abort();
	done = write(ends[1], addr, size);
	if (done > 0 && read(ends[0], value, (size_t)done) != done)
		abort();
	return done == (ssize_t)size;
}

static uint64_t counter(const struct file *file)
{
	return __atomic_load_n(file->counter, __ATOMIC_ACQUIRE);
}

static uint32_t word(const struct file *file, const struct watch *watch)
{
	return __atomic_load_n(&file->states[watch->slot], __ATOMIC_ACQUIRE);
}

static void fill(char *addr, size_t pages)
{
	if (mmap(addr, pages * PAGE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		abort();
}

static void touch(char *addr, size_t pages)
{
	for (size_t i = 0; i < pages; i++)
		((volatile char *)addr)[i * PAGE]++;
}

static void take_pages(char **addr, size_t *pages)
{
	uint8_t byte = take_byte(&m.in);
	size_t first = byte % ARENA_PAGES;

	*addr = ARENA + first * PAGE;
	*pages = 1 + (byte >> 5);
	if (*pages > ARENA_PAGES - first)
		*pages = ARENA_PAGES - first;
}

/* Of a watch: near the arena, near another watch, or anywhere. */
static void take_range(uint64_t *start, uint64_t *end)
{
	uint8_t byte = take_byte(&m.in);
	char *addr;
	size_t pages;

	switch (byte % 12) {
	case 0:
		*start = take_word(&m.in);
		*end = take_word(&m.in);
		return;
	case 1: /* kernel addresses, the end of all */
		*start = byte & 16 ? KERNEL : UINT64_MAX - byte;
		*end = byte & 32 ? UINT64_MAX : *start + byte;
		return;
	case 2: /* of the device itself */
		*start = (uintptr_t)m.mappings[(byte >> 4) % MAPPINGS].addr;
		*end = *start + PAGE;
		return;
	case 3: /* single bytes, nothing, or the wrong way round */
		*start = (uintptr_t)ARENA + take_byte(&m.in) * 64u;
		*end = *start + (byte >> 4) % 3 - 1;
		return;
	default:
		take_pages(&addr, &pages);
		*start = (uintptr_t)addr + (byte & 128 ? byte : 0);
		*end = (uintptr_t)addr + pages * PAGE - (byte & 64 ? 1 : 0);
	}
}

/* ---- the model -------------------------------------------------------------------- */

static struct file *take_file(void)
{
	struct file *file = &m.files[take_byte(&m.in) % FILES];

	return file->fd < 0 ? &m.files[0] : file;
}

static struct watch *find(struct file *file, uint64_t cookie)
{
	for (unsigned int i = 0; i < file->n; i++)
		if (file->watches[i].cookie == cookie)
			return &file->watches[i];
	return NULL;
}

/* One there is, near one, or a small number. */
static uint64_t take_cookie(const struct file *file)
{
	uint8_t byte = take_byte(&m.in);

	if (file->n && byte & 1)
		return file->watches[(byte >> 3) % file->n].cookie +
		       (byte & 6 ? 0 : 1);
	return byte == 0xfe ? UINT64_MAX : byte >> 1;
}

static void remove_watch(struct file *file, struct watch *watch)
{
	*watch = file->watches[--file->n];
}

static bool covers(const struct watch *watch, uint64_t start, uint64_t last)
{
	uint64_t end =
		watch->end > watch->start ? watch->end - 1 : watch->start;

	return watch->start <= last && start <= end;
}

/* What is known before something that invalidates a range, for all files. */
static struct before {
	uint64_t counter;
	bool grows;
} before[FILES];

static void before_change(char *addr, size_t pages)
{
	uint64_t start = (uintptr_t)addr, last = start + pages * PAGE - 1;

	for (unsigned int i = 0; i < FILES; i++) {
		struct file *file = &m.files[i];

		before[i].grows = false;
		if (file->fd < 0 || !file->counter)
			continue;
		before[i].counter = counter(file);
		for (unsigned int j = 0; j < file->n; j++) {
			const struct watch *watch = &file->watches[j];

			if (covers(watch, start, last) &&
			    (!watch->has_slot || !file->states ||
			     word(file, watch) == watch->state))
				before[i].grows |=
					!watch->has_slot || file->states;
		}
	}
}

/* All of the range was invalidated, and the call has returned. */
static void after_change(char *addr, size_t pages)
{
	uint64_t start = (uintptr_t)addr, last = start + pages * PAGE - 1;

	if (m.uncertain)
		return;
	for (unsigned int i = 0; i < FILES; i++) {
		struct file *file = &m.files[i];

		if (file->fd < 0)
			continue;
		CHECK(!before[i].grows || counter(file) > before[i].counter,
		      "the counter is still %llu",
		      (unsigned long long)before[i].counter);
		for (unsigned int j = 0; j < file->n; j++) {
			struct watch *watch = &file->watches[j];

			if (!covers(watch, start, last))
				continue;
			if (!watch->has_slot || !watch->reported)
				watch->must = true;
			CHECK(!watch->has_slot || !file->states ||
				      word(file, watch) != watch->state,
			      "the state word is still 0x%x", watch->state);
		}
	}
}

static void check_file(struct file *file)
{
	struct pollfd poll_fd = {.fd = file->fd, .events = POLLIN};
	bool must = file->owed;

	if (m.uncertain || file->fd < 0)
		return;
	for (unsigned int i = 0; i < file->n; i++) {
		const struct watch *watch = &file->watches[i];

		must |= watch->must;
		if (!watch->has_slot || !file->states)
			continue;
		CHECK(word(file, watch) == watch->state
			      ? !watch->must && !watch->reported
			      : (word(file, watch) ^ watch->state) < 0x80,
		      "state word 0x%x, armed as 0x%x", word(file, watch),
		      watch->state);
	}
	CHECK(poll(&poll_fd, 1, 0) == (poll_fd.revents ? 1 : 0) &&
		      (!must || poll_fd.revents == POLLIN),
	      "poll says 0x%x", poll_fd.revents);
}

/* What others see of it. */
static void check_fdinfo(const struct file *file)
{
	long long watches, features;

	if (m.uncertain || file->fd < 0)
		return;
	watches = umn_fdinfo(file->fd, "ummunotify-watches");
	features = umn_fdinfo(file->fd, "ummunotify-features");
	CHECK(watches == file->n, "%lld watches, and not %u", watches, file->n);
	CHECK(features == file->features, "features 0x%llx, and not 0x%x",
	      features, file->features);
}

/* The result of a call, as it should be. */
static void expect(unsigned int kind, const struct file *file, long result,
		   long expected)
{
	note(kind, result, file->features);
	CHECK(m.uncertain || result == expected,
	      "step %u: result %ld, should be %ld", kind, result, expected);
}

/* ---- calls ---------------------------------------------------------------------- */

/* From 32-bit programs; needs a kernel that has them. */
static bool has_compat;

/* As a program of 32 bits; only x86 lets one of 64 do that. */
static long compat_ioctl(int fd, unsigned long request, void *argument)
{
	long ret = -ENOSYS;

#ifdef __x86_64__
	__asm__ volatile("int $0x80"
			 : "=a"(ret)
			 : "a"(54), "b"(fd), "c"(request), "d"(argument)
			 : "memory", "r8", "r9", "r10", "r11");
#else
	(void)fd, (void)request, (void)argument;
#endif
	return (int)ret;
}

enum place { GOOD, READ_ONLY, BAD };

/* Puts an argument somewhere and calls. What is written is in *argument. */
static long call(struct file *file, unsigned long request, void *argument,
		 size_t size, enum place *place)
{
	uint8_t byte = take_byte(&m.in);
	char *addr = ARGUMENT + (byte & 8 ? 1 : 0);
	long ret;

	*place = GOOD;
	switch (byte & 7) {
	case 0: /* across into what cannot be written */
		addr = ARGUMENT + PAGE - size + 1;
		*place = READ_ONLY;
		break;
	case 1:
		addr = ARGUMENT + 2 * PAGE - size;
		*place = READ_ONLY;
		break;
	case 2:
		addr = byte & 16   ? ARGUMENT + 2 * PAGE - size + 1
		       : byte & 32 ? (char *)KERNEL
		       : byte & 64 ? (char *)UINT64_MAX - 3
				   : NULL;
		*place = BAD;
		break;
	}
	if (*place == READ_ONLY)
		mprotect(ARGUMENT + PAGE, PAGE, PROT_READ | PROT_WRITE);
	if (*place != BAD)
		memcpy(addr, argument, size);
	if (*place == READ_ONLY)
		mprotect(ARGUMENT + PAGE, PAGE, PROT_READ);
	if (has_compat && byte & 128 && (uintptr_t)addr <= UINT32_MAX)
		ret = compat_ioctl(file->fd, request, addr);
	else
		ret = ioctl(file->fd, request, addr) ? -errno : 0;
	if (*place != BAD)
		memcpy(argument, addr, size);
	return ret;
}

static void map_states(struct file *file)
{
	struct ummunotify_query_ioctl query;

	if (!(file->features & UMN_STATE) || umn_query(file->fd, &query))
		return;
	file->state_bytes = query.state_bytes;
	CHECK(!umn_map_states(file->fd, file->state_bytes, &file->states), "%d",
	      errno);
}

static void open_file(unsigned int kind)
{
	static const int wrong[] = {O_WRONLY, O_RDWR};
	uint8_t byte = take_byte(&m.in);
	struct file *file = &m.files[byte % FILES];
	uint32_t features;

	if (byte & 64) {
		expect(kind, file, umn_open(wrong[byte >> 7]), -EINVAL);
		return;
	}
	if (file->fd >= 0)
		return;
	*file = (struct file){.fd = umn_open(O_RDONLY | O_NONBLOCK)};
	CHECK(file->fd >= 0, "cannot open: %d", file->fd);
	/* Mostly with features, in two steps, as programs do. */
	features = byte >> 2 & UMN_ALL;
	if (byte & 32) {
		uint32_t mask = UMMUNOTIFY_FEATURES_MAGIC | features;

		CHECK(!umn_exchange(file->fd, &mask), "no features");
		file->features = features;
		file->used = true;
		map_states(file);
	}
	CHECK(!umn_map_counter(file->fd, &file->counter), "no counter");
}

static void close_file(struct file *file)
{
	if (file->fd < 0)
		return;
	if (file->counter)
		munmap((void *)file->counter, PAGE);
	if (file->states)
		munmap((void *)file->states, file->state_bytes);
	close(file->fd);
	file->fd = -1;
	file->n = 0;
}

static void close_any(unsigned int kind)
{
	(void)kind;
	close_file(&m.files[take_byte(&m.in) % FILES]);
}

static void exchange(unsigned int kind)
{
	struct file *file = take_file();
	uint8_t byte = take_byte(&m.in);
	uint32_t mask = byte & 0x3f, granted = 0, magic = 0;
	enum place place;
	long ret;

	if (byte & 0x40)
		magic = UMMUNOTIFY_FEATURES_MAGIC;
	if (byte & 0x80)
		mask |= 0x12340000;
	mask |= magic;
	if ((mask & UMMUNOTIFY_FEATURES_MAGIC_MASK) ==
	    UMMUNOTIFY_FEATURES_MAGIC)
		granted = mask & UMN_ALL;
	else
		magic = 0;
	ret = call(file, UMMUNOTIFY_EXCHANGE_FEATURES, &mask, sizeof(mask),
		   &place);
	expect(kind, file, ret,
	       place == BAD	    ? -EFAULT
	       : file->used	    ? -EINVAL
	       : place == READ_ONLY ? -EFAULT
				    : 0);
	/* What runs beside us may have read from it. */
	if (place == BAD || file->used || (m.uncertain && ret == -EINVAL))
		return;
	file->used = true;
	file->features = granted;
	CHECK(m.uncertain || ret || mask == (magic | granted), "mask 0x%x",
	      mask);
	map_states(file);
}

/* REGISTER_REGION, and what it was in 2009. */
static void register_(unsigned int kind)
{
	struct file *file = take_file();
	uint64_t cookie = take_cookie(file), start, end;
	uint8_t byte = take_byte(&m.in);
	enum place place;
	long ret, expected;

	take_range(&start, &end);
	if (file->n == WATCHES)
		return;
	if (byte & 1) {
		struct ummunot_register_ioctl r = {
			.intf_version = byte & 6 ? 1 : byte,
			.start = start,
			.end = end,
			.user_cookie = cookie,
		};
		bool wrong = r.intf_version != UMMUNOT_INTF_VERSION;

		ret = call(file, UMMUNOT_REGISTER_REGION, &r, sizeof(r),
			   &place);
		expected = !wrong ? 0 : place == READ_ONLY ? -EFAULT : -EINVAL;
		CHECK(!wrong || place != GOOD ||
			      r.intf_version == UMMUNOT_INTF_VERSION,
		      "version %u", r.intf_version);
		/* Only the end of it may be out of reach. */
		if (wrong && place == READ_ONLY && ret == -EINVAL)
			expected = ret;
	} else {
		struct ummunotify_register_ioctl r = {
			.start = start,
			.end = end,
			.user_cookie = cookie,
			.flags = byte,
			.reserved = byte,
		};

		ret = call(file, UMMUNOTIFY_REGISTER_REGION, &r, sizeof(r),
			   &place);
		expected = 0;
	}
	if (place == BAD)
		expected = -EFAULT;
	if (!expected) {
		file->used = true;
		if (find(file, cookie))
			expected = -EINVAL;
	}
	expect(kind, file, ret, expected);
	if (!ret)
		file->watches[file->n++] = (struct watch){
			.cookie = cookie, .start = start, .end = end};
}

static bool is_arena(uint64_t start, uint64_t end)
{
	return start >= (uintptr_t)ARENA &&
	       end <= (uintptr_t)ARENA + ARENA_PAGES * PAGE;
}

static void watch(unsigned int kind)
{
	struct file *file = take_file();
	struct ummunotify_watch_ioctl w = {.user_cookie = take_cookie(file)};
	uint8_t byte = take_byte(&m.in);
	uint64_t start, end;
	enum place place;
	long ret, expected;

	take_range(&start, &end);
	w.start = start;
	w.end = end;
	if (file->n == WATCHES)
		return;
	w.flags = byte & 3 ? byte >> 2 & 1 : byte;
	ret = call(file, UMMUNOTIFY_WATCH, &w, sizeof(w), &place);
	if (!(file->features & UMN_STATE)) {
		expected = -ENOTTY;
	} else if (place == BAD) {
		expected = -EFAULT;
	} else if (w.flags & ~UMMUNOTIFY_WATCH_CACHEABLE || w.end <= w.start) {
		expected = -EINVAL;
	} else {
		file->used = true;
		expected = find(file, w.user_cookie) ? -EEXIST
			   : place == READ_ONLY	     ? -EFAULT
						     : 0;
		/* Never of the kernel's, always of the arena's memory. */
		if (!expected && w.flags &&
		    (w.end > 1UL << 47 ||
		     (ret == -EOPNOTSUPP && !is_arena(w.start, w.end)))) {
			expected = -EOPNOTSUPP;
			CHECK(m.uncertain || w.memory, "it is not said why");
		}
	}
	expect(kind, file, ret, expected);
	if (!ret)
		file->watches[file->n++] = (struct watch){
			.cookie = w.user_cookie,
			.start = w.start,
			.end = w.end,
			.has_slot = true,
			.slot = w.slot,
			.state = w.state,
		};
}

static void armed(struct watch *watch, uint32_t slot, uint32_t state)
{
	watch->must = watch->reported = false;
	CHECK(m.uncertain || slot == watch->slot, "slot %u, and not %u", slot,
	      watch->slot);
	CHECK(m.uncertain || state != watch->state, "armed as before");
	watch->state = state;
}

static void rearm(unsigned int kind)
{
	struct file *file = take_file();
	struct ummunotify_rearm_ioctl r = {.user_cookie = take_cookie(file)};
	struct watch *watch = find(file, r.user_cookie);
	enum place place;
	long ret = call(file, UMMUNOTIFY_REARM, &r, sizeof(r), &place);

	expect(kind, file, ret,
	       !(file->features & UMN_STATE) ? -ENOTTY
	       : place == BAD		     ? -EFAULT
	       : !watch			     ? -ENOENT
	       : !watch->has_slot	     ? -EINVAL
	       : place == READ_ONLY	     ? -EFAULT
					     : 0);
	/* What fails has changed nothing. */
	if (!ret && watch)
		armed(watch, r.slot, r.state);
}

/* Anew, and elsewhere. */
static void arm(unsigned int kind)
{
	struct file *file = take_file();
	struct ummunotify_arm a = {.size = sizeof(a)};
	struct watch *watch;
	uint8_t byte;
	uint64_t start, end;
	enum place place;
	long ret, expected;

	a.user_cookie = take_cookie(file);
	watch = find(file, a.user_cookie);
	byte = take_byte(&m.in);
	a.new_cookie = byte & 1 ? a.user_cookie : take_cookie(file);
	take_range(&start, &end);
	a.start = start;
	a.end = end;
	a.flags = byte & 0xe0 ? byte >> 1 & 1 : byte;
	a.reserved = (byte & 0xfc) == 0xfc;
	ret = call(file, UMMUNOTIFY_ARM, &a, sizeof(a), &place);
	if (!(file->features & UMN_STATE))
		expected = -ENOTTY;
	else if (place == BAD)
		/* Its size comes first, and may be in what can be read: anything. */
		expected = ret == -EINVAL || ret == -E2BIG ? ret : -EFAULT;
	else if (a.flags & ~UMMUNOTIFY_ARM_CACHEABLE || a.reserved ||
		 a.end <= a.start)
		expected = -EINVAL;
	else if (ret == -EOPNOTSUPP && a.flags && !is_arena(a.start, a.end))
		expected = -EOPNOTSUPP;
	else if (!watch)
		expected = -ENOENT;
	else if (!watch->has_slot)
		expected = -EINVAL;
	else if (a.new_cookie != a.user_cookie && find(file, a.new_cookie))
		expected = -EEXIST;
	else
		/* The answer's place may be in the part that can be written. */
		expected = place == READ_ONLY && ret ? -EFAULT : 0;
	/* The answer that it must not be cached cannot be given either. */
	if (ret == -EFAULT && place == READ_ONLY && a.flags)
		expected = ret;
	expect(kind, file, ret, expected);
	if (ret || !watch)
		return;
	armed(watch, a.slot, a.state);
	watch->cookie = a.new_cookie;
	watch->start = a.start;
	watch->end = a.end;
}

static void unregister(unsigned int kind)
{
	static const unsigned long requests[] = {UMMUNOTIFY_UNREGISTER_REGION,
						 UMMUNOT_UNREGISTER_REGION};
	struct file *file = take_file();
	uint64_t cookie = take_cookie(file);
	struct watch *watch = find(file, cookie), ended = {0};
	enum place place;
	long ret;

	ret = call(file, requests[take_byte(&m.in) & 1], &cookie,
		   sizeof(cookie), &place);
	expect(kind, file, ret, place == BAD ? -EFAULT : watch ? 0 : -EINVAL);
	if (!watch || place == BAD)
		return;
	ended = *watch;
	remove_watch(file, watch);
	CHECK(m.uncertain || !ended.has_slot || !file->states ||
		      word(file, &ended) & UMMUNOTIFY_STATE_FREE,
	      "its slot is not free");
}

static void query(unsigned int kind)
{
	struct file *file = take_file();
	struct ummunotify_query_ioctl q = {0};
	enum place place;
	long ret = call(file, UMMUNOTIFY_QUERY, &q, sizeof(q), &place);

	expect(kind, file, ret, place == GOOD ? 0 : -EFAULT);
	CHECK(ret || m.uncertain ||
		      (q.features == UMN_ALL && q.granted == file->features &&
		       q.watches == file->n &&
		       q.state_offset == UMMUNOTIFY_STATE_OFFSET &&
		       !q.state_bytes == !(file->features & UMN_STATE) &&
		       !q.reserved[0] && !q.reserved[1] && !q.reserved[2]),
	      "query");
}

/* Numbers and sizes that are not the device's. */
static void unknown(unsigned int kind)
{
	static const uint32_t known[] = {
		UMMUNOTIFY_EXCHANGE_FEATURES,
		UMMUNOTIFY_REGISTER_REGION,
		UMMUNOTIFY_UNREGISTER_REGION,
		UMMUNOTIFY_WATCH,
		UMMUNOTIFY_REARM,
		UMMUNOTIFY_QUERY,
		UMMUNOT_REGISTER_REGION,
		UMMUNOT_UNREGISTER_REGION,
	};
	struct file *file = take_file();
	uint8_t byte = take_byte(&m.in);
	uint32_t request = known[byte & 7] ^ (byte & 8 ? 0x40000000 : 0) ^
			   (uint32_t)(byte >> 4) << 16;
	uint64_t argument[8] = {0};
	enum place place;
	long ret;

	if (byte & 128 && byte & 64)
		request = (uint32_t)_IO('U', byte & 63);
	for (unsigned int i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (known[i] == request)
			return;
	ret = call(file, request, argument, sizeof(argument), &place);
	expect(kind, file, ret, -ENOTTY);
}

/* ---- reading --------------------------------------------------------------------- */

static void check_event(struct file *file, const struct ummunotify_event *event,
			bool is_final)
{
	struct watch *watch;

	if (event->type == UMMUNOTIFY_EVENT_TYPE_LAST) {
		CHECK(is_final, "LAST comes before others");
		CHECK(event->user_cookie_counter <= counter(file),
		      "LAST says more than the counter");
		for (unsigned int i = 0; i < file->n; i++)
			CHECK(!file->watches[i].must, "a report is lost");
		file->owed = false;
		return;
	}
	CHECK(event->type == UMMUNOTIFY_EVENT_TYPE_INVAL, "type %u",
	      event->type);
	file->owed = true;
	watch = find(file, event->user_cookie_counter);
	CHECK(watch, "a report of a watch that there is not");
	CHECK(event->hint_start >= watch->start &&
		      (event->hint_end <= watch->end ||
		       watch->end <= watch->start),
	      "the hint is outside");
	CHECK(!watch->has_slot || !watch->reported, "a second report");
	CHECK(file->features & UMN_KIND ? event->flags >> 8
					: !(event->flags >> 8),
	      "flags 0x%x", event->flags);
	watch->must = false;
	watch->reported = true;
}

static void check_events(struct file *file,
			 const struct ummunotify_event *events, long got)
{
	CHECK(got % (long)sizeof(*events) == 0, "%ld bytes", got);
	for (long i = 0, n = got / (long)sizeof(*events); i < n; i++)
		if (!m.uncertain)
			check_event(file, &events[i], i == n - 1);
}

static void read_events(unsigned int kind)
{
	static struct ummunotify_event events[256];
	struct file *file = take_file();
	uint8_t byte = take_byte(&m.in);
	size_t size = byte & 15 ? (byte & 15) * 32u + (byte >> 4 & 1)
				: sizeof(events);
	char *buffer = (char *)events;
	bool must = file->owed, faults = false;
	long got;

	for (unsigned int i = 0; i < file->n; i++)
		must |= file->watches[i].must;
	if (byte & 32) {
		faults = true;
		/* Some of it can be written. */
		buffer = byte & 64 ? (char *)KERNEL : ARGUMENT + PAGE - 40;
		size = size > 64 ? size : 64;
	}
	got = syscall(SYS_read, file->fd, buffer,
		      byte & 128 && !faults ? byte >> 2 & 31 : size);
	if (byte & 128 && !faults)
		size = 0;
	if (got < 0)
		got = -errno;
	note(kind, got > 0 ? 1 : got, file->features);
	/* With such an address read() does not get to the device. */
	file->used |= buffer != (char *)KERNEL;
	CHECK(got != -EFAULT || faults, "EFAULT");
	/* What fits into the part that can be written is no fault. */
	if (faults && got > 0) {
		CHECK(buffer != (char *)KERNEL && got == 32, "%ld", got);
		memcpy(events, buffer, 32);
	}
	CHECK(m.uncertain || got != -EAGAIN || !must, "nothing to read");
	CHECK(got >= 0 || got == -EAGAIN || got == -EFAULT, "%ld", got);
	CHECK(got <= 128 * 32 && (got || size < 32), "%ld bytes", got);
	if (got > 0)
		check_events(file, events, got);
}

struct reader {
	int fd;
	_Atomic pid_t tid;
	struct ummunotify_event events[16];
	long got;
};

static void *read_blocking(void *arg)
{
	struct reader *reader = arg;

	reader->tid = thread_id();
	reader->got = read(reader->fd, reader->events, sizeof(reader->events));
	if (reader->got < 0)
		reader->got = -errno;
	return NULL;
}

static void change_pages(char *addr, size_t pages, unsigned int how);

/* A thread sleeps in read() while the memory changes, or the file is closed. */
static void block(unsigned int kind)
{
	struct file *file = take_file();
	struct pollfd poll_fd = {.fd = file->fd, .events = POLLIN};
	uint8_t byte = take_byte(&m.in);
	struct reader reader = {.fd = file->fd};
	pthread_t thread;
	size_t pages;
	char *addr;

	take_pages(&addr, &pages);
	/* The other thread must not be the one that sleeps, or is read to. */
	if (m.uncertain || poll(&poll_fd, 1, 0))
		return;
	fcntl(file->fd, F_SETFL, 0);
	if (pthread_create(&thread, NULL, read_blocking, &reader))
		abort();
	while (!reader.tid)
		sched_yield();
	wait_blocked(reader.tid, SYS_read);
	change_pages(addr, pages, 0);
	if (byte & 1)
		close_file(file);
	else
		fcntl(file->fd, F_SETFL, O_NONBLOCK);
	pthread_kill(thread, SIGUSR1);
	pthread_join(thread, NULL);
	note(kind, reader.got > 0 ? 1 : reader.got, file->features);
	CHECK(reader.got > 0 || reader.got == -EINTR, "%ld", reader.got);
	file->used = true;
	if (reader.got > 0 && file->fd >= 0)
		check_events(file, reader.events, reader.got);
}

/* ---- mappings of the device ---------------------------------------------------------- */

static void map(unsigned int kind)
{
	struct file *file = take_file();
	uint8_t byte = take_byte(&m.in), more = take_byte(&m.in);
	const off_t offsets[] = {0, UMMUNOTIFY_STATE_OFFSET, PAGE,
				 UMMUNOTIFY_STATE_OFFSET + PAGE};
	static const int prots[] = {PROT_READ, PROT_NONE, PROT_READ | PROT_EXEC,
				    PROT_READ | PROT_WRITE};
	off_t offset = offsets[byte & 3];
	int prot = prots[byte >> 2 & 3];
	int flags = byte & 16 ? MAP_PRIVATE : MAP_SHARED;
	size_t length = more & 128 ? (size_t)more << 20
				   : (more & 15 ? more & 15 : 1) * PAGE - byte;
	size_t limit = file->features & UMN_STATE
			       ? (umn_parameter("max_watches") * 4 + PAGE - 1) &
					 ~(PAGE - 1)
			       : 0;
	size_t whole = (length + PAGE - 1) & ~(PAGE - 1);
	long expected = 0;
	char *addr;

	if (flags == MAP_SHARED && prot & PROT_WRITE)
		expected = -EACCES; /* the descriptor is read-only */
	else if (byte & 2 || (byte & 1 ? whole > limit : whole != PAGE))
		expected = -EINVAL;
	else if (prot & PROT_WRITE)
		expected = -EACCES;
	addr = mmap(NULL, length, prot, flags | (byte & 32 ? MAP_POPULATE : 0),
		    file->fd, offset);
	expect(kind, file, addr == MAP_FAILED ? -errno : 0, expected);
	if (addr == MAP_FAILED)
		return;
	for (unsigned int i = 0; i < MAPPINGS; i++)
		if (!m.mappings[i].addr) {
			m.mappings[i].addr = addr;
			m.mappings[i].length = whole;
			return;
		}
	munmap(addr, whole);
}

static void use_mapping(unsigned int kind)
{
	static const int advices[] = {
		MADV_DONTNEED,	    MADV_FREE,	   MADV_HUGEPAGE,
		MADV_DONTFORK,	    MADV_REMOVE,   MADV_MERGEABLE,
		MADV_POPULATE_READ, MADV_COLD,	   MADV_PAGEOUT,
		MADV_WIPEONFORK,    MADV_WILLNEED, MADV_DOFORK,
	};
	uint8_t byte = take_byte(&m.in), more = take_byte(&m.in);
	unsigned int i = byte % MAPPINGS;
	char *addr = m.mappings[i].addr;
	size_t length = m.mappings[i].length, part;
	uint64_t value;
	char *moved;
	long ret = 0;

	if (!addr)
		return;
	part = more % (length / PAGE) * PAGE;
	switch (byte >> 3 & 15) {
	case 0:
		munmap(addr + part, length - part);
		m.mappings[i].length = part;
		if (!part)
			m.mappings[i].addr = NULL;
		break;
	case 1: /* never larger: VM_DONTEXPAND */
		moved = mremap(addr, length, length + PAGE, MREMAP_MAYMOVE);
		ret = moved == MAP_FAILED ? -errno : 0;
		CHECK(ret, "a mapping grows");
		break;
	case 2:
		moved = mremap(addr, length, length - part,
			       MREMAP_MAYMOVE |
				       (more & 128 ? MREMAP_DONTUNMAP : 0));
		if (moved == MAP_FAILED) {
			ret = -errno;
		} else if (moved == addr) {
			m.mappings[i].length = length - part;
		} else {
			/* The old place has something, too, and may be kept. */
			munmap(addr, length);
			m.mappings[i].addr = moved;
			m.mappings[i].length = length - part;
		}
		break;
	case 3:
		ret = mprotect(addr, PAGE, PROT_READ | PROT_WRITE) ? -errno : 0;
		CHECK(ret == -EACCES, "it becomes writable: %ld", ret);
		break;
	case 4:
		ret = mprotect(addr + part, length - part,
			       more & 128 ? PROT_NONE : PROT_READ);
		break;
	case 5:
		ret = madvise(addr + part, length - part,
			      advices[more %
				      (sizeof(advices) / sizeof(*advices))])
			      ? -errno
			      : 0;
		break;
	case 6:
		ret = mlock(addr, PAGE) ? -errno : 0;
		munlock(addr, PAGE);
		break;
	case 7: /* the kernel writes for us */
		ret = umn_fdinfo(0, "pos");
		ret = pread(m.memory, addr, 8, 0) < 0 ? -errno : 1;
		CHECK(ret == -EFAULT || ret == 1, "%ld", ret);
		break;
	default:
		ret = peek(addr + part, &value, sizeof(value));
	}
	note(kind + 64 + (byte >> 3 & 15), ret, 0);
}

/* ---- what happens ------------------------------------------------------------------- */

/* Something that replaces all pages, for certain; the memory is there again. */
static void change_pages(char *addr, size_t pages, unsigned int how)
{
	size_t offset = (size_t)(addr - ARENA), size = pages * PAGE;
	bool certain = true;
	char *moved;

	touch(addr, pages);
	before_change(addr, pages);
	switch (how) {
	case 0:
		fill(addr, pages);
		break;
	case 1:
		certain = !madvise(addr, size, MADV_DONTNEED);
		break;
	case 2:
		munmap(addr, size);
		after_change(addr, pages);
		fill(addr, pages);
		return;
	case 3:
		moved = mremap(addr, size, size, MREMAP_MAYMOVE | MREMAP_FIXED,
			       ARENA + 2 * ARENA_PAGES * PAGE);
		certain = moved != MAP_FAILED;
		if (certain) {
			after_change(addr, pages);
			munmap(moved, size);
			fill(addr, pages);
			return;
		}
		break;
	case 4:
		if (mmap(addr, size, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_FIXED, m.memory,
			 (off_t)offset) == MAP_FAILED)
			abort();
		break;
	case 5: /* what is mapped of the file, and maybe nothing is */
		fallocate(m.memory, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			  (off_t)offset, (off_t)size);
		certain = false;
		break;
	default:
		mmap(addr, size, PROT_READ, MAP_PRIVATE | MAP_FIXED, m.memory,
		     (off_t)offset);
		mprotect(addr, size, PROT_READ | PROT_WRITE);
	}
	if (certain)
		after_change(addr, pages);
}

static void change(unsigned int kind)
{
	uint8_t byte = take_byte(&m.in);
	size_t pages;
	char *addr;

	(void)kind;
	take_pages(&addr, &pages);
	change_pages(addr, pages, byte % 7);
}

/* What leaves the pages, mostly. */
static void disturb(unsigned int kind)
{
	static const int advices[] = {MADV_COLD,     MADV_PAGEOUT,
				      MADV_FREE,     MADV_HUGEPAGE,
				      MADV_WILLNEED, MADV_NOHUGEPAGE};
	uint8_t byte = take_byte(&m.in);
	size_t pages;
	char *addr;
	long ret;

	take_pages(&addr, &pages);
	if (byte & 1) {
		ret = mprotect(addr, pages * PAGE, PROT_READ);
		mprotect(addr, pages * PAGE, PROT_READ | PROT_WRITE);
	} else {
		ret = madvise(addr, pages * PAGE, advices[(byte >> 1) % 6]);
	}
	touch(addr, pages);
	note(kind, ret, byte % 12);
}

/* In another process nothing of it works. */
static int in_other(void *arg)
{
	struct file *file = arg;
	struct ummunotify_event event;
	struct pollfd poll_fd = {.fd = file->fd, .events = POLLIN};
	uint64_t argument[8] = {0};

	if (ioctl(file->fd, UMMUNOTIFY_QUERY, argument) != -1 ||
	    errno != ESTALE)
		return 1;
	if (ioctl(file->fd, UMMUNOTIFY_WATCH, argument) != -1 ||
	    errno != ESTALE)
		return 2;
	if (read(file->fd, &event, sizeof(event)) != -1 || errno != ESTALE)
		return 3;
	if (mmap(NULL, PAGE, PROT_READ, MAP_SHARED, file->fd, 0) !=
		    MAP_FAILED ||
	    errno != ESTALE)
		return 4;
	if (poll(&poll_fd, 1, 0) != 1 || !(poll_fd.revents & POLLERR))
		return 5;
	touch(ARENA, 2);
	munmap(ARENA, PAGE);
	return 0;
}

static void fork_(unsigned int kind)
{
	struct file *file = take_file();
	int ret = in_child(in_other, file);

	CHECK(!ret, "check %d in a child", ret);
	note(kind, ret, file->features);
}

/* The same file under another number, by dup() or through a socket. */
static void renumber(unsigned int kind)
{
	struct file *file = take_file();
	int fd, ends[2];

	if (take_byte(&m.in) & 1) {
		fd = fcntl(file->fd, F_DUPFD_CLOEXEC, 0);
	} else {
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) ||
		    send_fd(ends[0], file->fd))
			abort();
		fd = receive_fd(ends[1]);
		close(ends[0]);
		close(ends[1]);
	}
	CHECK(fd >= 0, "no descriptor");
	close(file->fd);
	file->fd = fd;
	note(kind, 0, file->features);
}

static void async(unsigned int kind)
{
	struct file *file = take_file();
	uint8_t byte = take_byte(&m.in);

	if (byte & 1)
		fcntl(file->fd, F_SETOWN, getpid());
	expect(kind, file,
	       fcntl(file->fd, F_SETFL, O_NONBLOCK | (byte & 2 ? O_ASYNC : 0)),
	       0);
}

/* ---- a second thread ------------------------------------------------------------------ */

struct racer {
	int fds[FILES];
	uint8_t bytes[32];
	size_t n;
};

/* Whatever, of the same files and memory; results are nobody's business. */
static void *race(void *arg)
{
	struct racer *racer = arg;
	struct ummunotify_watch_ioctl w;
	struct ummunotify_rearm_ioctl r;
	struct ummunotify_event events[8];

	for (size_t i = 0; i + 1 < racer->n; i += 2) {
		uint8_t byte = racer->bytes[i], more = racer->bytes[i + 1];
		int fd = racer->fds[byte >> 6];
		char *addr = ARENA + more % ARENA_PAGES * PAGE;

		switch (byte % 8) {
		case 0:
			read(fd, events, sizeof(events));
			break;
		case 1:
			fill(addr, 1);
			break;
		case 2:
			umn_watch(fd, addr, PAGE, more, byte >> 3 & 1, &w);
			break;
		case 3:
			umn_rearm(fd, more >> 1, &r);
			break;
		case 4:
			umn_unregister(fd, more >> 1);
			break;
		case 5:
			umn_register(fd, addr, PAGE, more >> 1);
			break;
		case 6:
			read(fd, ARGUMENT + PAGE - 40, 96);
			break;
		default:
			umn_fdinfo(fd, "ummunotify-pending");
		}
	}
	return NULL;
}

static pthread_t racing;
static struct racer racer;

static void start_race(unsigned int kind)
{
	(void)kind;
	if (m.uncertain)
		return;
	for (unsigned int i = 0; i < FILES; i++)
		racer.fds[i] = m.files[i].fd < 0 ? -1
						 : fcntl(m.files[i].fd,
							 F_DUPFD_CLOEXEC, 0);
	racer.n = take_byte(&m.in) % sizeof(racer.bytes);
	take(&m.in, racer.bytes, racer.n);
	m.uncertain = true;
	if (pthread_create(&racing, NULL, race, &racer))
		abort();
}

static void end_race(void)
{
	if (!m.uncertain)
		return;
	pthread_join(racing, NULL);
	for (unsigned int i = 0; i < FILES; i++)
		if (racer.fds[i] >= 0)
			close(racer.fds[i]);
}

/* ---- an input --------------------------------------------------------------------------- */

static void (*const steps[])(unsigned int kind) = {
	open_file,   open_file,	  watch,       watch,	   watch,    register_,
	register_,   rearm,	  arm,	       change,	   change,   change,
	read_events, read_events, unregister,  query,	   exchange, unknown,
	map,	     use_mapping, use_mapping, disturb,	   block,    fork_,
	renumber,    async,	  close_any,   start_race,
};
#define KINDS (sizeof(steps) / sizeof(*steps))

static void run(const uint8_t *data, size_t size)
{
	memset(&m.mappings, 0, sizeof(m.mappings));
	m.in = (struct input){data, size};
	m.uncertain = false;
	fill(ARENA, ARENA_PAGES);
	open_file(0);
	for (unsigned int i = 0; m.in.size && i < STEPS; i++) {
		unsigned int kind = take_byte(&m.in) % KINDS;

		/* There is always one. */
		if (m.files[0].fd < 0) {
			struct input rest = m.in;

			m.in = (struct input){(const uint8_t *)"\x3c", 1};
			open_file(0);
			m.in = rest;
		}
		steps[kind](kind);
		for (unsigned int j = 0; j < FILES; j++)
			check_file(&m.files[j]);
	}
	for (unsigned int i = 0; i < FILES; i++)
		check_fdinfo(&m.files[i]);
	end_race();
	for (unsigned int i = 0; i < FILES; i++)
		close_file(&m.files[i]);
	for (unsigned int i = 0; i < MAPPINGS; i++)
		if (m.mappings[i].addr)
			munmap(m.mappings[i].addr, m.mappings[i].length);
}

static void on_signal(int signal)
{
	(void)signal;
}

static void set_up(void)
{
	/* Without SA_RESTART: it is to interrupt. */
	struct sigaction interrupt = {.sa_handler = on_signal};

	for (unsigned int i = 0; i < FILES; i++)
		m.files[i].fd = -1;
	sigaction(SIGUSR1, &interrupt, NULL);
	signal(SIGIO, SIG_IGN);
	m.memory = memfd_create("arena", MFD_CLOEXEC);
	if (m.memory < 0 || ftruncate(m.memory, (off_t)(ARENA_PAGES * PAGE)))
		abort();
	fill(ARGUMENT, 3);
	mprotect(ARGUMENT + PAGE, PAGE, PROT_READ);
	mprotect(ARGUMENT + 2 * PAGE, PAGE, PROT_NONE);
}

/* ---- what was new ------------------------------------------------------------------------- */

#define FEATURES (1u << 16)
#define KCOV_PCS (256u << 10)

static uint8_t seen[2][FEATURES]; /* edges; results */
static unsigned int found[2];
static bool is_new;

static void feature(int of, uint64_t value)
{
	uint32_t at = (uint32_t)((value * UINT64_C(0x9e3779b97f4a7c15)) >> 48);

	if (seen[of][at])
		return;
	seen[of][at] = 1;
	found[of]++;
	is_new = true;
}

static void note(unsigned int kind, long result, uint32_t features)
{
	static unsigned int last;
	uint64_t value =
		kind << 20 | ((uint64_t)result & 0xfff) << 8 | features;

	feature(1, value << 8 | last);
	last = kind;
}

static unsigned long *pcs; /* NULL: there is no KCOV */
static unsigned long module_start, module_end;

static void find_module(void)
{
	FILE *file = fopen("/proc/modules", "re");
	unsigned long size, start;
	char line[256];

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "ummunotify %lu %*s %*s %*s %lx", &size,
			   &start) == 2) {
			module_start = start;
			module_end = start + size;
		}
	if (file)
		fclose(file);
}

static void start_kcov(void)
{
	int fd = open("/sys/kernel/debug/kcov", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return;
	find_module();
	if (ioctl(fd, KCOV_INIT_TRACE, KCOV_PCS))
		abort();
	pcs = mmap(NULL, KCOV_PCS * sizeof(*pcs), PROT_READ | PROT_WRITE,
		   MAP_SHARED, fd, 0);
	if (pcs == MAP_FAILED || ioctl(fd, KCOV_ENABLE, KCOV_TRACE_PC))
		abort();
}

static void take_edges(void)
{
	unsigned long n = pcs ? __atomic_load_n(&pcs[0], __ATOMIC_RELAXED) : 0;
	unsigned long last = 0;

	for (unsigned long i = 1; i <= n && i < KCOV_PCS; i++) {
		if (pcs[i] < module_start || pcs[i] >= module_end)
			continue;
		feature(0, (pcs[i] - module_start) << 24 ^ last);
		last = pcs[i] - module_start;
	}
	if (pcs)
		__atomic_store_n(&pcs[0], 0, __ATOMIC_RELAXED);
}

/* ---- fuzzing ------------------------------------------------------------------------------ */

struct bytes {
	size_t size;
	uint8_t data[LONGEST];
};

#define CORPUS 4096
static struct bytes corpus[CORPUS];
static unsigned int n_corpus;

static uint64_t random_state;

static uint32_t random_below(uint32_t limit)
{
	random_state = random_state * UINT64_C(6364136223846793005) + 1;
	return (uint32_t)((random_state >> 33) % limit);
}

static void change_bytes(struct bytes *b)
{
	size_t at = b->size ? random_below((uint32_t)b->size) : 0, n;
	const struct bytes *other;

	switch (random_below(6)) {
	case 0:
		b->data[at] = (uint8_t)random_below(256);
		break;
	case 1:
		b->data[at] ^= (uint8_t)(1 << random_below(8));
		break;
	case 2: /* out */
		n = 1 + random_below(8);
		if (at + n > b->size)
			break;
		memmove(b->data + at, b->data + at + n, b->size - at - n);
		b->size -= n;
		break;
	case 3: /* in */
		n = 1 + random_below(8);
		if (b->size + n > LONGEST)
			break;
		memmove(b->data + at + n, b->data + at, b->size - at);
		for (size_t i = 0; i < n; i++)
			b->data[at + i] = (uint8_t)random_below(256);
		b->size += n;
		break;
	case 4: /* something of another */
		other = &corpus[random_below(n_corpus)];
		n = other->size < LONGEST - at ? other->size : LONGEST - at;
		memcpy(b->data + at, other->data, n);
		if (at + n > b->size)
			b->size = at + n;
		break;
	default: /* more */
		for (n = 1 + random_below(24); n && b->size < LONGEST; n--)
			b->data[b->size++] = (uint8_t)random_below(256);
	}
}

static void make(struct bytes *b)
{
	*b = (struct bytes){0};
	if (n_corpus && random_below(8))
		*b = corpus[random_below(n_corpus)];
	for (unsigned int i = random_below(6); i || !b->size; i -= i > 0)
		change_bytes(b);
}

/* What the parent reads when we are gone. */
static struct shared {
	struct bytes now;
	uint64_t executed, steps;
	unsigned int edges, results, kept;
	bool has_kcov;
} * shared;

/* Whether the kernel had something to say since the last time. */
static bool complains(void)
{
	static const char *const words[] = {
		"BUG:",		 "WARNING:",	       "KASAN",
		"Oops",		 "general protection", "refcount_t",
		"suspicious RCU"};
	static int log = -1;
	bool found = false;
	char line[4096];
	ssize_t n;

	if (log < 0) {
		log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		lseek(log, 0, SEEK_END);
	}
	while ((n = read(log, line, sizeof(line) - 1)) > 0 ||
	       (n < 0 && errno == EPIPE)) {
		line[n > 0 ? n : 0] = '\0';
		for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
			found |= strstr(line, words[i]) != NULL;
	}
	return found;
}

static const char *directory;

static void save(const struct bytes *b, const char *name, unsigned int number)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/%s%u", directory, name, number);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, b->data, b->size) != (ssize_t)b->size)
		perror(path);
	if (fd >= 0)
		close(fd);
}

static void learn(const struct bytes *b)
{
	is_new = false;
	shared->now = *b;
	alarm(SECONDS);
	run(b->data, b->size);
	alarm(0);
	CHECK(!complains(), "the kernel complains, see its log");
	take_edges();
	if (is_new && n_corpus < CORPUS) {
		save(b, "learned/", n_corpus);
		corpus[n_corpus++] = *b;
	}
	shared->executed++;
	shared->edges = found[0];
	shared->results = found[1];
	shared->kept = n_corpus;
}

static void load(struct bytes *b, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, b->data, LONGEST);

	if (n < 0) {
		perror(path);
		exit(2);
	}
	b->size = (size_t)n;
	close(fd);
}

static void learn_path(const char *path)
{
	DIR *directory = opendir(path);
	const struct dirent *entry;
	static struct bytes b;
	char file[512];

	if (!directory) {
		load(&b, path);
		learn(&b);
		return;
	}
	while ((entry = readdir(directory))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(file, sizeof(file), "%s/%s", path, entry->d_name);
		load(&b, file);
		learn(&b);
	}
	closedir(directory);
}

static void work(double seconds, int n, char **paths)
{
	struct timespec begin, now;
	static struct bytes b;

	set_up();
	/* Only kernels that run programs of 32 bits have this. */
	has_compat = !access("/proc/sys/abi/vsyscall32", F_OK);
	complains();
	start_kcov();
	shared->has_kcov = pcs;
	for (int i = 0; i < n; i++)
		learn_path(paths[i]);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	do {
		clock_gettime(CLOCK_MONOTONIC, &now);
		if ((double)(now.tv_sec - begin.tv_sec) >= seconds)
			return;
		make(&b);
		learn(&b);
	} while (true);
}

int main(int argc, char **argv)
{
	int status;
	pid_t pid;

	if (argc < 4) {
		fputs("usage: fuzz_device SECONDS SEED DIR [INPUT...]\n",
		      stderr);
		return 2;
	}
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		abort();
	directory = argv[3];
	random_state = strtoull(argv[2], NULL, 10) * 2 + 1;
	pid = fork();
	if (!pid) {
		work(strtod(argv[1], NULL), argc - 4, argv + 4);
		exit(0);
	}
	status = child_result(pid);
	printf("%llu inputs, %u kept, %u %s, %u results\n",
	       (unsigned long long)shared->executed, shared->kept,
	       shared->edges, shared->has_kcov ? "edges" : "edges (no KCOV)",
	       shared->results);
	if (status) {
		fprintf(stderr, "status %d\n", status);
		save(&shared->now, "device-crash-", 1);
	}
	return status ? 1 : 0;
}
