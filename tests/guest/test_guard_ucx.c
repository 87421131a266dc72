/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guard of UCX with the real UCX, driver and device: this program runs
 * itself, plain and under the shim, in modes that know nothing of a cache. In
 * these, two workers of one process send each other what is in memory that is
 * replaced in between in ways that UCX's hooks do not see. They print how many
 * messages were wrong.
 */
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucp/api/ucp.h>
#include <unistd.h>

#include "case.h"
#include "memop.h"
#include "rdma.h"

#define SIZE   (256UL << 10)
#define ROUNDS 6u

static void must(bool condition, const char *what)
{
	if (condition)
		return;
	fprintf(stderr, "not %s (errno %d)\n", what, errno);
	exit(1);
}
#define MUST(condition) must(condition, #condition)

/* ---- memory ----------------------------------------------------------------------- */

/* Where nobody else maps anything while it is not mapped. */
#define FIRST_BUFFER ((char *)0x200000000000)

struct buffer {
	char *addr;
	int file; /* -1: anonymous memory */
};

static void *map(const struct buffer *b)
{
	return (void *)syscall(
		SYS_mmap, b->addr, SIZE, PROT_READ | PROT_WRITE,
		MAP_FIXED_NOREPLACE | (b->file < 0 ? MAP_PRIVATE | MAP_ANONYMOUS
						   : MAP_SHARED),
		b->file, 0L);
}

static struct buffer new_buffer(bool in_file)
{
	static _Atomic uintptr_t next = (uintptr_t)FIRST_BUFFER;
	struct buffer b = {.addr = (char *)atomic_fetch_add(&next, 16 * SIZE),
			   .file = -1};

	if (in_file) {
		b.file = memfd_create("buffer", MFD_CLOEXEC);
		MUST(b.file >= 0 && !ftruncate(b.file, (off_t)SIZE));
	}
	MUST(map(&b) == b.addr);
	return b;
}

static void drop_buffer(const struct buffer *b)
{
	munmap(b->addr, SIZE);
	if (b->file >= 0)
		close(b->file);
}

/* Other pages: unmapped past libc, or a hole in the file. */
static void change(const struct buffer *b)
{
	if (b->file >= 0) {
		MUST(!fallocate(b->file,
				FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
				(off_t)SIZE));
		return;
	}
	MUST(!syscall(SYS_munmap, b->addr, SIZE));
	MUST(map(b) == b->addr);
}

/* ---- UCX -------------------------------------------------------------------------- */

/* Two workers that are connected with each other. */
struct pair {
	ucp_context_h context;
	ucp_worker_h worker[2];
	ucp_ep_h to[2]; /* the other */
};

static ucp_context_h new_context(void)
{
	ucp_params_t params = {
		.field_mask = UCP_PARAM_FIELD_FEATURES |
			      UCP_PARAM_FIELD_MT_WORKERS_SHARED,
		.features = UCP_FEATURE_TAG | UCP_FEATURE_RMA,
		.mt_workers_shared = 1,
	};
	ucp_config_t *config;
	ucp_context_h context;

	MUST(ucp_config_read(NULL, NULL, &config) == UCS_OK);
	MUST(ucp_init(&params, config, &context) == UCS_OK);
	ucp_config_release(config);
	return context;
}

static struct pair new_pair(ucp_context_h context)
{
	ucp_worker_params_t params = {
		.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
		.thread_mode = UCS_THREAD_MODE_MULTI,
	};
	struct pair p = {.context = context};
	ucp_address_t *address;
	size_t length;

	for (int i = 0; i < 2; i++)
		MUST(ucp_worker_create(context, &params, &p.worker[i]) ==
		     UCS_OK);
	for (int i = 0; i < 2; i++) {
		ucp_ep_params_t to = {
			.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS,
		};

		MUST(ucp_worker_get_address(p.worker[1 - i], &address,
					    &length) == UCS_OK);
		to.address = address;
		MUST(ucp_ep_create(p.worker[i], &to, &p.to[i]) == UCS_OK);
		ucp_worker_release_address(p.worker[1 - i], address);
	}
	return p;
}

static void finish(struct pair *p, void *request)
{
	ucs_status_t status = UCS_OK;

	if (UCS_PTR_IS_ERR(request))
		status = UCS_PTR_STATUS(request);
	else if (request) {
		while ((status = ucp_request_check_status(request)) ==
		       UCS_INPROGRESS) {
			ucp_worker_progress(p->worker[0]);
			ucp_worker_progress(p->worker[1]);
		}
		ucp_request_free(request);
	}
	if (status != UCS_OK)
		fprintf(stderr, "UCX: %s\n", ucs_status_string(status));
	MUST(status == UCS_OK);
}

static const ucp_request_param_t plain_param;

static void flush(struct pair *p, int i)
{
	finish(p, ucp_ep_flush_nbx(p->to[i], &plain_param));
}

static void drop_pair(struct pair *p)
{
	void *requests[2];

	for (int i = 0; i < 2; i++)
		requests[i] = ucp_ep_close_nbx(p->to[i], &plain_param);
	for (int i = 0; i < 2; i++)
		finish(p, requests[i]);
	for (int i = 0; i < 2; i++)
		ucp_worker_destroy(p->worker[i]);
}

/* ---- messages: each returns whether it was wrong ---------------------------------------- */

static bool is_wrong(const struct buffer *b, unsigned int seed)
{
	return memop_wrong(b->addr, SIZE, seed) > 0;
}

static bool message(struct pair *p, const struct buffer *from,
		    const struct buffer *to, unsigned int seed)
{
	void *receives, *sends;

	memop_fill(from->addr, SIZE, seed);
	memop_fill(to->addr, SIZE, seed + 100);
	receives = ucp_tag_recv_nbx(p->worker[1], to->addr, SIZE, seed,
				    UINT64_MAX, &plain_param);
	sends = ucp_tag_send_nbx(p->to[0], from->addr, SIZE, seed,
				 &plain_param);
	finish(p, sends);
	finish(p, receives);
	return is_wrong(to, seed);
}

/* What the one-sided operations put to and get from; it stays as it is. */
struct target {
	struct buffer buffer;
	ucp_mem_h memory;
	ucp_rkey_h key;
};

static struct target new_target(struct pair *p)
{
	struct target t = {.buffer = new_buffer(false)};
	ucp_mem_map_params_t params = {
		.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS |
			      UCP_MEM_MAP_PARAM_FIELD_LENGTH,
		.address = t.buffer.addr,
		.length = SIZE,
	};
	void *packed;
	size_t length;

	MUST(ucp_mem_map(p->context, &params, &t.memory) == UCS_OK);
	MUST(ucp_rkey_pack(p->context, t.memory, &packed, &length) == UCS_OK);
	MUST(ucp_ep_rkey_unpack(p->to[0], packed, &t.key) == UCS_OK);
	ucp_rkey_buffer_release(packed);
	return t;
}

static void drop_target(struct pair *p, const struct target *t)
{
	ucp_rkey_destroy(t->key);
	MUST(ucp_mem_unmap(p->context, t->memory) == UCS_OK);
	drop_buffer(&t->buffer);
}

static bool put(struct pair *p, const struct buffer *from,
		const struct target *t, unsigned int seed)
{
	memop_fill(from->addr, SIZE, seed);
	memop_fill(t->buffer.addr, SIZE, seed + 100);
	finish(p, ucp_put_nbx(p->to[0], from->addr, SIZE,
			      (uintptr_t)t->buffer.addr, t->key, &plain_param));
	flush(p, 0);
	return is_wrong(&t->buffer, seed);
}

static bool get(struct pair *p, const struct buffer *to, const struct target *t,
		unsigned int seed)
{
	memop_fill(to->addr, SIZE, seed + 100);
	memop_fill(t->buffer.addr, SIZE, seed);
	finish(p, ucp_get_nbx(p->to[0], to->addr, SIZE,
			      (uintptr_t)t->buffer.addr, t->key, &plain_param));
	flush(p, 0);
	return is_wrong(to, seed);
}

/* ---- the programs ------------------------------------------------------------------------- */

static _Atomic unsigned int wrong;

static void messages(struct pair *p, unsigned int rounds, bool changes)
{
	for (int in_file = 0; in_file < 2; in_file++) {
		struct buffer from = new_buffer(in_file),
			      to = new_buffer(in_file);

		for (unsigned int i = 0; i < rounds; i++) {
			if (i && changes) {
				change(&from);
				change(&to);
			}
			wrong += message(p, &from, &to, i);
		}
		drop_buffer(&from);
		drop_buffer(&to);
	}
}

static void tag(void)
{
	ucp_context_h context = new_context();
	struct pair p = new_pair(context);

	messages(&p, ROUNDS, true);
	drop_pair(&p);
	ucp_cleanup(context);
}

static void unchanged(void)
{
	ucp_context_h context = new_context();
	struct pair p = new_pair(context);

	messages(&p, 4 * ROUNDS, false);
	drop_pair(&p);
	ucp_cleanup(context);
}

static void rma(void)
{
	ucp_context_h context = new_context();
	struct pair p = new_pair(context);
	struct target t = new_target(&p);

	for (int in_file = 0; in_file < 2; in_file++) {
		struct buffer b = new_buffer(in_file);

		for (unsigned int i = 0; i < ROUNDS; i++) {
			wrong += put(&p, &b, &t, 2 * i);
			change(&b);
			wrong += get(&p, &b, &t, 2 * i + 1);
			change(&b);
		}
		drop_buffer(&b);
	}
	drop_target(&p, &t);
	drop_pair(&p);
	ucp_cleanup(context);
}

/* Two contexts have a registration of the same memory each. */
static void contexts(void)
{
	ucp_context_h context[2] = {new_context(), new_context()};
	struct pair p[2] = {new_pair(context[0]), new_pair(context[1])};
	struct buffer from = new_buffer(false), to = new_buffer(true);

	for (unsigned int i = 0; i < ROUNDS; i++) {
		wrong += message(&p[0], &from, &to, 2 * i);
		wrong += message(&p[1], &from, &to, 2 * i + 1);
		change(&from);
		change(&to);
	}
	drop_buffer(&from);
	drop_buffer(&to);
	for (int i = 0; i < 2; i++) {
		drop_pair(&p[i]);
		ucp_cleanup(context[i]);
	}
}

static void *converse(void *arg)
{
	messages(arg, ROUNDS, true);
	return NULL;
}

static void in_threads(bool own_contexts)
{
	ucp_context_h context[2] = {new_context(), NULL};
	struct pair p[2];
	pthread_t threads[2];

	context[1] = own_contexts ? new_context() : context[0];
	for (int i = 0; i < 2; i++)
		p[i] = new_pair(context[i]);
	for (int i = 0; i < 2; i++)
		MUST(!pthread_create(&threads[i], NULL, converse, &p[i]));
	for (int i = 0; i < 2; i++)
		MUST(!pthread_join(threads[i], NULL));
	for (int i = 0; i < 2; i++)
		drop_pair(&p[i]);
	ucp_cleanup(context[0]);
	if (own_contexts)
		ucp_cleanup(context[1]);
}

/* In one context, then in one each. */
static void threads(void)
{
	in_threads(false);
	in_threads(true);
}

static const struct {
	const char *name;
	void (*function)(void);
} modes[] = {
	{"tag", tag},		{"unchanged", unchanged}, {"rma", rma},
	{"contexts", contexts}, {"threads", threads},
};

/* ---- registrations, as the kernel counts them ------------------------------------------------ */

#define TRACING "/sys/kernel/tracing/"

static bool write_to(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC | O_APPEND);
	bool done = fd >= 0 &&
		    write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return done;
}

static int start_counting(void **state)
{
	if (rdma_check(state))
		return -1;
	return !write_to(TRACING "kprobe_events",
			 "p:guard_ucx rxe_reg_user_mr\n") ||
	       !write_to(TRACING "events/kprobes/guard_ucx/enable", "1");
}

static int stop_counting(void **state)
{
	(void)state;
	return !write_to(TRACING "events/kprobes/guard_ucx/enable", "0") ||
	       !write_to(TRACING "kprobe_events", "-:guard_ucx\n");
}

static long registrations(void)
{
	FILE *file = fopen(TRACING "kprobe_profile", "re");
	char name[64];
	long count = -1, hits;

	assert_non_null(file);
	while (fscanf(file, "%63s %ld %*d", name, &hits) == 2)
		if (!strcmp(name, "guard_ucx"))
			count = hits;
	fclose(file);
	assert_true(count >= 0);
	return count;
}

/* ---- the tests ---------------------------------------------------------------------------- */

struct how {
	bool plain; /* without the shim */
	bool hardened;
	bool dies;
	const char *settings[4]; /* NAME=VALUE */
};

static struct {
	int status;
	unsigned int wrong;
	long registrations;
	char err[8192];
} outcome;

static const char *const network[] = {
	"UCX_NET_DEVICES=rxe0:1",
	"UCX_TLS=rc_verbs,ud_verbs",
	"UCX_IB_GID_INDEX=1",
	/* UCX takes rxe's IPv4 packets for foreign ones. */
	"UCX_UD_ETH_DGID_CHECK=n",
	"UCX_RNDV_THRESH=16k",
	/* Later ones copy, as they take rxe for slow. */
	"UCX_RNDV_SCHEME=get_zcopy",
	"UCX_ZCOPY_THRESH=16k",
	"UCX_WARN_UNUSED_ENV_VARS=n",
	"MRCACHE_REMOTE=1",
};

/*
 * As hardened programs are: what makes memory executable ends them. Patching
 * libc's functions does, which UCX begins with as it is loaded.
 */
static void harden(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mprotect, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, args[2])),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof(filter) / sizeof(*filter), filter};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		_exit(125);
}

static void become(const struct how *how, const char *mode)
{
	char self[PATH_MAX], shim[PATH_MAX + 64];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n < 0)
		_exit(125);
	self[n] = '\0';
	for (size_t i = 0; i < sizeof(network) / sizeof(*network); i++)
		putenv((char *)network[i]);
	for (size_t i = 0; how->settings[i]; i++)
		putenv((char *)how->settings[i]);
	if (!how->plain) {
		char *directory = strdup(self);

		snprintf(shim, sizeof(shim),
			 "%s/../../lib/preload/libmrcache-preload.so",
			 dirname(directory));
		if (access(shim, R_OK)) {
			dprintf(2, "no shim at %s\n", shim);
			_exit(125);
		}
		setenv("LD_PRELOAD", shim, 1);
	}
	if (how->hardened)
		harden();
	execl(self, self, mode, NULL);
	_exit(125);
}

static void read_back(int fd, char *text, size_t size)
{
	ssize_t n = pread(fd, text, size - 1, 0);

	text[n < 0 ? 0 : n] = '\0';
	close(fd);
}

static void run(const struct how *how, const char *mode)
{
	int out = memfd_create("out", 0), err = memfd_create("err", 0);
	long before = registrations();
	char text[256];
	pid_t pid;

	assert_true(out >= 0 && err >= 0);
	pid = fork();
	if (!pid) {
		dup2(out, 1);
		dup2(err, 2);
		become(how, mode);
	}
	assert_int_equal(waitpid(pid, &outcome.status, 0), pid);
	outcome.registrations = registrations() - before;
	read_back(out, text, sizeof(text));
	read_back(err, outcome.err, sizeof(outcome.err));
	if (how->dies)
		return;
	if (outcome.status || outcome.err[0])
		print_error("%s: status 0x%x\n%s", mode,
			    (unsigned int)outcome.status, outcome.err);
	assert_int_equal(outcome.status, 0);
	assert_int_equal(sscanf(text, "wrong %u", &outcome.wrong), 1);
}

/* Nothing is wrong, and nothing is said. */
static void check_guarded(const char *mode, const char *setting)
{
	run(&(struct how){.settings = {setting}}, mode);
	assert_int_equal(outcome.wrong, 0);
	assert_string_equal(outcome.err, "");
}

static void check_plain_is_wrong(const char *mode)
{
	run(&(struct how){.plain = true}, mode);
	assert_true(outcome.wrong > 0);
}

CASE(messages_by_get)
{
	check_plain_is_wrong("tag");
	check_guarded("tag", NULL);
}

CASE(messages_by_put)
{
	check_guarded("tag", "UCX_RNDV_SCHEME=put_zcopy");
}

CASE(one_sided)
{
	check_plain_is_wrong("rma");
	check_guarded("rma", NULL);
}

CASE(two_contexts)
{
	check_guarded("contexts", NULL);
}

CASE(two_threads)
{
	check_guarded("threads", NULL);
}

/* Of the program whose memory stays as it is, plain. */
static long unchanged_plain;

CASE(unchanged_memory_costs_nothing)
{
	run(&(struct how){.plain = true}, "unchanged");
	assert_int_equal(outcome.wrong, 0);
	unchanged_plain = outcome.registrations;
	check_guarded("unchanged", NULL);
	assert_int_equal(outcome.registrations, unchanged_plain);
}

#define NO_HOOKS       "UCX_MEM_MMAP_HOOK_MODE=none", "UCX_MEM_MALLOC_HOOKS=n"
#define GUARD_NO_HOOKS NO_HOOKS, "MRCACHE_GUARD_UCX_HOOKS=0"

/* UCX alone makes no cache then, and registers for each message. */
CASE(it_needs_no_hooks)
{
	run(&(struct how){.plain = true, .settings = {NO_HOOKS}}, "unchanged");
	assert_true(outcome.registrations > unchanged_plain + (long)ROUNDS);
	run(&(struct how){.settings = {GUARD_NO_HOOKS}}, "unchanged");
	assert_int_equal(outcome.wrong, 0);
	assert_int_equal(outcome.registrations, unchanged_plain);
}

CASE(a_program_that_patching_kills)
{
	run(&(struct how){.plain = true, .hardened = true, .dies = true},
	    "tag");
	assert_true(WIFSIGNALED(outcome.status));
	assert_int_equal(WTERMSIG(outcome.status), SIGSYS);
	run(&(struct how){.hardened = true, .settings = {GUARD_NO_HOOKS}},
	    "tag");
	assert_int_equal(outcome.wrong, 0);
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return run_cases(start_counting, stop_counting);
	for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++)
		if (!strcmp(modes[i].name, argv[1])) {
			modes[i].function();
			printf("wrong %u\n", wrong);
			return 0;
		}
	fprintf(stderr, "no mode %s\n", argv[1]);
	return 2;
}
