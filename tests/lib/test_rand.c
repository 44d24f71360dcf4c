/* SPDX-License-Identifier: MPL-2.0 */
/* test_rand.c - xoshiro256** of Blackman and Vigna (public domain), seeded by splitmix64. */
#include "tests/lib/test_rand.h"

#include <stdlib.h>
#include <string.h>

static uint64_t splitmix64(uint64_t *x)
{
	uint64_t z = (*x += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static uint64_t rotl(uint64_t x, int k)
{
	return (x << k) | (x >> (64 - k));
}

void test_rand_seed(struct test_rand *r, uint64_t seed)
{
	for (int i = 0; i < 4; i++)
		r->s[i] = splitmix64(&seed);
}

uint64_t test_rand_u64(struct test_rand *r)
{
	uint64_t *s = r->s, result = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rotl(s[3], 45);
	return result;
}

uint64_t test_rand_below(struct test_rand *r, uint64_t end)
{
	return test_rand_u64(r) % end;		/* the bias is far below what a test can see */
}

uint64_t test_rand_between(struct test_rand *r, uint64_t low, uint64_t high)
{
	return low + test_rand_below(r, high - low + 1);
}

bool test_rand_chance(struct test_rand *r, uint64_t of, uint64_t in)
{
	return test_rand_below(r, in) < of;
}

void test_rand_fill(struct test_rand *r, void *out, size_t bytes)
{
	uint8_t *p = out;

	while (bytes) {
		uint64_t v = test_rand_u64(r);
		size_t n = bytes < sizeof v ? bytes : sizeof v;

		memcpy(p, &v, n);
		p += n;
		bytes -= n;
	}
}

int test_rand_source(void *r, void *out, size_t bytes)
{
	test_rand_fill(r, out, bytes);
	return 0;
}

uint64_t test_rand_mix(uint64_t a, uint64_t b)
{
	uint64_t x = a;

	x = splitmix64(&x) ^ b;
	return splitmix64(&x);
}

uint64_t test_env_u64(const char *name, uint64_t fallback)
{
	const char *text = getenv(name);

	return text && *text ? strtoull(text, NULL, 0) : fallback;
}
