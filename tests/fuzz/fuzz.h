/* SPDX-License-Identifier: BSD-2-Clause */
/* What the fuzz targets share: taking values from an input, and checks. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* libFuzzer calls it for each input; what is wrong ends the program. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition, ...)                                         \
	do {                                                          \
		if (!(condition)) {                                   \
			dprintf(2, "%s:%d: %s: ", __FILE__, __LINE__, \
				#condition);                          \
			dprintf(2, __VA_ARGS__);                      \
			dprintf(2, "\n");                             \
			abort();                                      \
		}                                                     \
	} while (0)

/* An input; behind its end there are zeroes. */
struct input {
	const uint8_t *data;
	size_t size;
};

static inline void take(struct input *in, void *value, size_t size)
{
	size_t n = size < in->size ? size : in->size;

	memset(value, 0, size);
	if (n)
		memcpy(value, in->data, n);
	in->data += n;
	in->size -= n;
}

static inline uint8_t take_byte(struct input *in)
{
	uint8_t byte;

	take(in, &byte, sizeof(byte));
	return byte;
}

static inline uint64_t take_word(struct input *in)
{
	uint64_t word;

	take(in, &word, sizeof(word));
	return word;
}

#endif /* TESTS_FUZZ_FUZZ_H */
