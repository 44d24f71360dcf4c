/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_block_cache.c - a block found is the block that was put there, whatever else goes on; memory
 * stays bounded; what is pinned stays.
 */
#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "4-lsm/block_cache.h"
#include "tests/lib/check_run.h"
#include "tests/lib/test_rand.h"

static void fill(struct mls_cached_block *block)
{
	uint64_t *words = block->data;

	for (unsigned i = 0; i < MLS_BLOCK_BYTES / 16; i++) {
		words[2 * i] = block->log_id;
		words[2 * i + 1] = block->pos;
	}
}

static bool is_filled(const struct mls_cached_block *block, uint64_t log_id, uint64_t pos)
{
	const uint64_t *words = block->data;

	for (unsigned i = 0; i < MLS_BLOCK_BYTES / 16; i++)
		if (words[2 * i] != log_id || words[2 * i + 1] != pos)
			return false;
	return true;
}

static struct mls_block_cache *new_cache(uint64_t nr_blocks)
{
	struct mls_block_cache *cache;

	ck_assert_int_eq(mls_block_cache_new(&cache, nr_blocks * MLS_BLOCK_BYTES), 0);
	return cache;
}

/* false: there was no room. */
static bool add(struct mls_block_cache *cache, uint64_t log_id, uint64_t pos)
{
	struct mls_cached_block *block = mls_block_cache_reserve(cache, log_id, pos);

	if (!block)
		return false;
	ck_assert_uint_eq((uintptr_t)block->data % MLS_BLOCK_BYTES, 0);
	fill(block);
	mls_block_cache_publish(cache, block);
	mls_block_cache_put(block);
	return true;
}

/* Is it there? And if so, is it right? */
static bool has(struct mls_block_cache *cache, uint64_t log_id, uint64_t pos)
{
	struct mls_cached_block *block = mls_block_cache_lookup(cache, log_id, pos);

	if (!block)
		return false;
	ck_assert(is_filled(block, log_id, pos));
	mls_block_cache_put(block);
	return true;
}

START_TEST(an_empty_cache_holds_nothing)
{
	struct mls_block_cache *cache = new_cache(0);
	struct mls_block_cache_stat stat;

	ck_assert_ptr_null(mls_block_cache_lookup(cache, 1, 0));
	ck_assert_ptr_null(mls_block_cache_reserve(cache, 1, 0));
	mls_block_cache_drop_log(cache, 1);
	mls_block_cache_stat(cache, &stat);
	ck_assert_uint_eq(stat.max_blocks, 0);
	mls_block_cache_free(cache);
	mls_block_cache_free(NULL);
}
END_TEST

START_TEST(only_what_was_published_is_found)
{
	struct mls_block_cache *cache = new_cache(64);
	struct mls_block_cache_stat stat;
	struct mls_cached_block *block;

	ck_assert(!has(cache, 7, 3));
	block = mls_block_cache_reserve(cache, 7, 3);
	ck_assert_ptr_nonnull(block);
	ck_assert(!has(cache, 7, 3));
	mls_block_cache_put(block);
	ck_assert(!has(cache, 7, 3));

	ck_assert(add(cache, 7, 3));
	ck_assert(has(cache, 7, 3));
	ck_assert(!has(cache, 3, 7));
	ck_assert(!has(cache, 7, 4));
	mls_block_cache_stat(cache, &stat);
	ck_assert_uint_eq(stat.hits, 1);
	ck_assert_uint_eq(stat.misses, 5);
	mls_block_cache_free(cache);
}
END_TEST

START_TEST(the_bound_holds_for_any_size)
{
	static const uint64_t sizes[] = { 1, 2, 7, 8, 15, 16, 17, 100, 129, 1000, 2111 };

	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		struct mls_block_cache *cache = new_cache(sizes[i]);
		struct mls_block_cache_stat stat;
		unsigned nr_held = 0;

		for (uint64_t pos = 0; pos < 3 * sizes[i] + 10; pos++) {
			ck_assert(add(cache, 1, pos));
			ck_assert(has(cache, 1, pos));
		}
		for (uint64_t pos = 0; pos < 3 * sizes[i] + 10; pos++)
			nr_held += has(cache, 1, pos);
		mls_block_cache_stat(cache, &stat);
		ck_assert_uint_le(stat.max_blocks, sizes[i]);
		ck_assert_uint_ge(stat.max_blocks, sizes[i] - sizes[i] / 8);
		ck_assert_uint_eq(stat.nr_blocks, stat.max_blocks);
		ck_assert_uint_eq(nr_held, stat.max_blocks);
		mls_block_cache_free(cache);
	}
}
END_TEST

START_TEST(a_pinned_block_stays)
{
	enum { MAX = 15 };
	struct mls_block_cache *cache = new_cache(MAX);
	struct mls_cached_block *pinned[MAX];

	for (unsigned i = 0; i < MAX; i++) {
		pinned[i] = mls_block_cache_reserve(cache, 1, i);
		ck_assert_ptr_nonnull(pinned[i]);
		fill(pinned[i]);
		mls_block_cache_publish(cache, pinned[i]);
	}
	ck_assert_ptr_null(mls_block_cache_reserve(cache, 2, 0));
	ck_assert(has(cache, 1, 5));
	ck_assert(!add(cache, 2, 1));

	mls_block_cache_put(pinned[5]);
	for (unsigned i = 0; i < 100; i++)
		ck_assert(add(cache, 2, i));
	ck_assert(!has(cache, 1, 5));
	for (unsigned i = 0; i < MAX; i++) {
		if (i == 5)
			continue;
		ck_assert(is_filled(pinned[i], 1, i));
		ck_assert(has(cache, 1, i));
		mls_block_cache_put(pinned[i]);
	}
	mls_block_cache_free(cache);
}
END_TEST

START_TEST(of_two_copies_the_first_stays)
{
	struct mls_block_cache *cache = new_cache(15);
	struct mls_cached_block *a = mls_block_cache_reserve(cache, 1, 1);
	struct mls_cached_block *b = mls_block_cache_reserve(cache, 1, 1);
	struct mls_cached_block *found;

	ck_assert(a && b && a != b);
	fill(a);
	fill(b);
	mls_block_cache_publish(cache, b);
	mls_block_cache_publish(cache, a);
	found = mls_block_cache_lookup(cache, 1, 1);
	ck_assert_ptr_eq(found, b);
	mls_block_cache_put(found);
	mls_block_cache_put(b);
	ck_assert(is_filled(a, 1, 1));
	mls_block_cache_put(a);
	/* The loser's room isn't lost. */
	for (unsigned i = 0; i < 40; i++)
		ck_assert(add(cache, 2, i));
	mls_block_cache_free(cache);
}
END_TEST

START_TEST(what_is_used_again_outlives_a_scan)
{
	struct mls_block_cache *cache = new_cache(15);

	ck_assert(add(cache, 1, 0));
	for (unsigned i = 0; i < 1000; i++) {
		ck_assert(has(cache, 1, 0));
		ck_assert(add(cache, 2, i));
	}
	mls_block_cache_free(cache);
}
END_TEST

START_TEST(a_dropped_log_is_gone)
{
	struct mls_block_cache *cache = new_cache(1000);
	struct mls_cached_block *pinned;

	for (unsigned i = 0; i < 200; i++)
		ck_assert(add(cache, 1 + i % 2, i));
	pinned = mls_block_cache_lookup(cache, 1, 10);
	ck_assert_ptr_nonnull(pinned);
	mls_block_cache_drop_log(cache, 1);
	ck_assert(is_filled(pinned, 1, 10));
	for (unsigned i = 0; i < 200; i++)
		ck_assert(has(cache, 1 + i % 2, i) == (i % 2 == 1));
	mls_block_cache_put(pinned);
	for (unsigned i = 0; i < 3000; i++)
		ck_assert(add(cache, 3, i));
	mls_block_cache_free(cache);
}
END_TEST

/* ---- Threads: content is always that of the key; every check is by content, not by luck ---- */

struct worker {
	pthread_t thread;
	struct mls_block_cache *cache;
	struct test_rand rand;
	unsigned nr_wrong, nr_hits;
};

static void *work(void *arg)
{
	struct worker *w = arg;

	for (unsigned i = 0; i < 20000; i++) {
		uint64_t r = test_rand_u64(&w->rand), log_id = 1 + r % 3, pos = (r >> 8) % 100;
		struct mls_cached_block *block = mls_block_cache_lookup(w->cache, log_id, pos);

		if (block) {
			w->nr_hits++;
			w->nr_wrong += !is_filled(block, log_id, pos);
		} else {
			block = mls_block_cache_reserve(w->cache, log_id, pos);
			if (!block)
				continue;
			fill(block);
			if (r >> 60)	/* else as if the read had failed */
				mls_block_cache_publish(w->cache, block);
			w->nr_wrong += !is_filled(block, log_id, pos);
		}
		mls_block_cache_put(block);
		if (i % 1000 == 999)
			mls_block_cache_drop_log(w->cache, log_id);
	}
	return NULL;
}

START_TEST(threads_find_only_what_is_right)
{
	enum { NR_WORKERS = 4 };
	struct worker workers[NR_WORKERS];
	struct mls_block_cache *cache = new_cache(150);

	for (unsigned i = 0; i < NR_WORKERS; i++) {
		workers[i] = (struct worker){ .cache = cache };
		test_rand_seed(&workers[i].rand, i);
		ck_assert_int_eq(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
	}
	for (unsigned i = 0; i < NR_WORKERS; i++) {
		pthread_join(workers[i].thread, NULL);
		ck_assert_uint_eq(workers[i].nr_wrong, 0);
		ck_assert_uint_gt(workers[i].nr_hits, 0);
	}
	mls_block_cache_free(cache);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("block_cache");
	TCase *tc = tcase_create("all");

	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, an_empty_cache_holds_nothing);
	tcase_add_test(tc, only_what_was_published_is_found);
	tcase_add_test(tc, the_bound_holds_for_any_size);
	tcase_add_test(tc, a_pinned_block_stays);
	tcase_add_test(tc, of_two_copies_the_first_stays);
	tcase_add_test(tc, what_is_used_again_outlives_a_scan);
	tcase_add_test(tc, a_dropped_log_is_gone);
	tcase_add_test(tc, threads_find_only_what_is_right);
	suite_add_tcase(suite, tc);
	return check_run(suite);
}
