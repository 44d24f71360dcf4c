/* SPDX-License-Identifier: MPL-2.0 */
/*
 * latency.h - layer 5: how long calls take, as a histogram that costs one atomic addition a call.
 *
 * Buckets  Four to each power of two of nanoseconds, so a percentile is right within a quarter.
 * Threads  Any; numbers read while others count may be of slightly different moments.
 */
#ifndef MLS_DISK_LATENCY_H
#define MLS_DISK_LATENCY_H

#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

#define MLS_LATENCY_BUCKETS 256u

struct mls_latency {
	atomic_uint_fast64_t buckets[MLS_LATENCY_BUCKETS], total_ns, max_ns;
};

static inline uint64_t mls_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static inline unsigned mls_latency_bucket(uint64_t ns)
{
	unsigned log;

	if (ns < 4)
		return (unsigned)ns;
	log = 63 - (unsigned)__builtin_clzll(ns);
	return log * 4 + (unsigned)(ns >> (log - 2) & 3);
}

/* The largest value of a bucket. */
static inline uint64_t mls_latency_bucket_end(unsigned bucket)
{
	unsigned log = bucket / 4;

	if (bucket < 8)
		return bucket;
	return ((uint64_t)(bucket % 4 + 5) << (log - 2)) - 1;
}

static inline void mls_latency_note(struct mls_latency *latency, uint64_t began_ns)
{
	uint64_t ns = mls_now_ns() - began_ns, max = atomic_load_explicit(&latency->max_ns, memory_order_relaxed);

	atomic_fetch_add_explicit(&latency->buckets[mls_latency_bucket(ns)], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&latency->total_ns, ns, memory_order_relaxed);
	while (ns > max && !atomic_compare_exchange_weak(&latency->max_ns, &max, ns))
		;
}

/* per_mille 999: that many of a thousand calls took no longer than the returned ns. */
static inline uint64_t mls_latency_percentile(struct mls_latency *latency, unsigned per_mille)
{
	uint64_t nr = 0, seen = 0, wanted;

	for (unsigned i = 0; i < MLS_LATENCY_BUCKETS; i++)
		nr += atomic_load_explicit(&latency->buckets[i], memory_order_relaxed);
	wanted = nr - nr * (1000 - per_mille) / 1000;
	for (unsigned i = 0; i < MLS_LATENCY_BUCKETS; i++) {
		seen += atomic_load_explicit(&latency->buckets[i], memory_order_relaxed);
		if (seen >= wanted && seen > 0) {
			uint64_t end = mls_latency_bucket_end(i), max = atomic_load(&latency->max_ns);

			return end < max ? end : max;
		}
	}
	return 0;
}

#endif
