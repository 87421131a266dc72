/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory, threads and children for the tests of the device. Asserts nothing. */
#ifndef TESTS_SUPPORT_SUPPORT_H
#define TESTS_SUPPORT_SUPPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <unistd.h>

/* Not a constant: 4, 16 or 64 KiB. */
#define PAGE ((size_t)sysconf(_SC_PAGESIZE))

/* Private anonymous pages, present, writable, never huge; NULL on failure. */
char *pages_map(size_t count);

/* Makes writable memory present, page by page: 0 or -errno. */
int pages_populate(void *start, size_t length);

/* For what cannot be found out by trying. */
bool kernel_is_before(unsigned int major, unsigned int minor);

/* Whether the kernel has transparent huge pages of 2 MiB, on or off; says why not. */
bool has_huge_pages(void);

/* munmap past libc: 0 or -errno. */
int pages_unmap(void *start, size_t count);

/* The page tables have a page at `address` (/proc/self/pagemap). */
bool page_present(int pagemap, const void *address);

pid_t thread_id(void);

/* Waits until a thread of any process sleeps in this system call. */
bool wait_blocked(pid_t tid, long system_call);

/* Waits for a child: its exit status, 128 + the signal, or -errno. */
int child_result(pid_t pid);

/* Runs f(argument) in a fork child: its return value, 128 + signal, or -errno. */
int in_child(int (*f)(void *argument), void *argument);

int send_fd(int socket, int fd);
int receive_fd(int socket);

/* Frees what a slab cache of the kernel has at hand. 0 or -errno. */
int slab_shrink(const char *cache);

/* Objects in use in a slab cache, counted exactly, or -errno. */
long slab_objects(const char *cache);

/* Single bytes through a pipe or a socket, past EINTR; false when it is closed. */
bool put_byte(int fd, char byte);
bool get_byte(int fd, char *byte);

#endif /* TESTS_SUPPORT_SUPPORT_H */
