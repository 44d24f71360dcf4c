/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_rand.h - seeded random numbers for tests: the same seed, the same run, on every machine.
 *
 * xoshiro256**, seeded by splitmix64. Not for keys. One struct belongs to one thread.
 */
#ifndef MLS_TEST_RAND_H
#define MLS_TEST_RAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct test_rand {
	uint64_t s[4];
};

void test_rand_seed(struct test_rand *r, uint64_t seed);
uint64_t test_rand_u64(struct test_rand *r);
uint64_t test_rand_below(struct test_rand *r, uint64_t end);			/* 0 ... end - 1; end > 0 */
uint64_t test_rand_between(struct test_rand *r, uint64_t low, uint64_t high);	/* both included */
bool test_rand_chance(struct test_rand *r, uint64_t of, uint64_t in);		/* true: of times in `in` */
void test_rand_fill(struct test_rand *r, void *out, size_t bytes);
int test_rand_source(void *r, void *out, size_t bytes);				/* the same, for mls_rand_set_source */

/* A seed mixed from two numbers: one for each step, image or thread of a seeded run. */
uint64_t test_rand_mix(uint64_t a, uint64_t b);

/* Environment variable as a number (decimal or 0x...); fallback if it is unset. */
uint64_t test_env_u64(const char *name, uint64_t fallback);

#endif
