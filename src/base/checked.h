/* SPDX-License-Identifier: MPL-2.0 */
/* checked.h - below all layers: sums and roundings that can't wrap unnoticed. */
#ifndef MLS_BASE_CHECKED_H
#define MLS_BASE_CHECKED_H

#include <stdbool.h>
#include <stdint.h>

/* false: the sum doesn't fit; *sum is then undefined. */
static inline bool mls_add_u64(uint64_t a, uint64_t b, uint64_t *sum)
{
	return !__builtin_add_overflow(a, b, sum);
}

static inline bool mls_mul_u64(uint64_t a, uint64_t b, uint64_t *product)
{
	return !__builtin_mul_overflow(a, b, product);
}

/* Is [start, start + nr) within [0, end)? Safe for any numbers. */
static inline bool mls_range_within(uint64_t start, uint64_t nr, uint64_t end)
{
	return start <= end && nr <= end - start;
}

static inline uint64_t mls_div_round_up(uint64_t n, uint64_t d)
{
	return n / d + (n % d != 0);
}

static inline uint64_t mls_min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t mls_max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

#endif
