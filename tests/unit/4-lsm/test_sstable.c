/* SPDX-License-Identifier: MPL-2.0 */
/* test_sstable.c - a table gives the records that went in, whatever is asked for and however large it is. */
#include "tests/unit/4-lsm/sst_bench.h"

#include <pthread.h>

#include "4-lsm/merge.h"
#include "base/buf.h"
#include "tests/lib/check_run.h"

/* Goal: all sizes where a block, a buffer, an index block begins or ends. */
START_TEST(any_size)
{
	static const uint64_t sizes[] = { 1, 2, 126, 127, 128, 254, 255, 127 * 63, 127 * 64 - 1, 127 * 64,
					  127 * 64 + 1, 127 * 512 - 1, 127 * 512, 127 * 512 + 1, 127 * 515 };
	struct test_rand rand;

	test_rand_seed(&rand, 5);
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		struct sst_world *w = sst_world_new();
		struct mls_block_cache *cache = sst_cache(100);
		struct sst_model m = { 10, 3, sizes[i] };
		struct mls_sst *sst = sst_new(w, cache, m.first, m.step, m.nr);
		uint64_t end = m.first + m.nr * m.step + 10, stride = end / 300 + 1;

		ck_assert_uint_eq(mls_log_nr_blocks(sst->log), mls_sst_nr_blocks(m.nr));
		sst_check_range(sst, &m, 0, 0, NULL);
		sst_check_range(sst, &m, 0, end, NULL);
		for (uint64_t lba = 0; lba < end; lba += stride) {
			sst_check_range(sst, &m, lba, 1, NULL);
			sst_check_range(sst, &m, lba, 30, NULL);
			sst_check_next(sst, &m, lba);
		}
		/* The seams of the record blocks. */
		for (uint64_t block = 1; block * 127 <= m.nr; block += 1 + block / 4) {
			uint64_t seam = m.first + block * 127 * m.step;

			for (uint64_t lba = seam - 4; lba < seam + 3; lba++) {
				sst_check_range(sst, &m, lba, 1, NULL);
				sst_check_range(sst, &m, lba, 5, NULL);
				sst_check_next(sst, &m, lba);
			}
		}
		sst_check_next(sst, &m, MLS_LBA_NONE);
		sst_check_iter(sst, &m, 0, 0);
		sst_check_iter(sst, &m, m.first + m.nr * m.step / 2, 1);
		sst_check_iter(sst, &m, m.first + m.nr * m.step / 3, 3);
		sst_check_iter(sst, &m, end, 0);
		sst_check_skip(sst, &m, 1, 3);
		sst_check_skip(sst, &m, 50, 3);
		sst_check_skip(sst, &m, 127 * 3, 2);
		sst_check_skip(sst, &m, 127 * 3 * 5 + 1, 0);
		sst_check_skip(sst, &m, 127 * 3 * 40, 0);
		for (unsigned k = 0; k < 20; k++)
			sst_check_each(sst, &m, &rand);
		mls_sst_put(sst);
		mls_block_cache_free(cache);
		sst_world_free(w);
	}
	mls_sst_put(NULL);
	mls_sst_iter_free(NULL);
	mls_sst_builder_free(NULL);
}
END_TEST

/* Goal: the search is right for LBAs that are spread in any way, also where a guess is far off. */
START_TEST(a_block_is_searched_right)
{
	struct mls_sst_block_disk *block = mls_blocks_zalloc(1);
	struct test_rand rand;

	test_rand_seed(&rand, 2);
	for (unsigned n = 0; n < 3000; n++) {
		unsigned nr = (unsigned)test_rand_between(&rand, 1, 127);
		unsigned spread = (unsigned)test_rand_below(&rand, 57);
		uint64_t lba = test_rand_below(&rand, 100);
		struct mls_sst_span span = { .first = lba, .nr = nr };

		for (unsigned k = 0; k < nr; k++) {
			mls_put_le64(block->rec[k].lba, lba);
			lba += 1 + (test_rand_chance(&rand, 1, 4) ? test_rand_below(&rand, 1ull << spread) : 0);
		}
		span.end = test_rand_chance(&rand, 1, 2) ? lba : mls_sst_block_lba(block, nr - 1) + 1;
		for (unsigned i = 0; i < 40; i++) {
			unsigned k = (unsigned)test_rand_below(&rand, nr), linear = 0;
			uint64_t wanted = mls_sst_block_lba(block, k) + test_rand_below(&rand, 3) - 1;

			while (linear < nr && mls_sst_block_lba(block, linear) < wanted)
				linear++;
			must(mls_sst_block_search(block, &span, wanted) == linear);
		}
		must(mls_sst_block_search(block, &span, 0) == 0);
		must(mls_sst_block_search(block, &span, MLS_LBA_NONE) == nr);
	}
	mls_blocks_free(block);
}
END_TEST

START_TEST(any_range_with_any_cache)
{
	static const uint64_t cache_sizes[] = { 0, 1, 3, 1000 };
	static const uint64_t steps[] = { 1, 2, 60, 1000 };
	struct sst_world *w = sst_world_new();
	struct test_rand rand;

	test_rand_seed(&rand, 1);
	for (unsigned i = 0; i < 4; i++)
		for (unsigned k = 0; k < 4; k++) {
			struct mls_block_cache *cache = i ? sst_cache(cache_sizes[i]) : NULL;
			struct sst_model m = { test_rand_below(&rand, 1000), steps[k],
					   test_rand_between(&rand, 1, 3000) };
			struct mls_sst *sst = sst_new(w, cache, m.first, m.step, m.nr);

			for (unsigned n = 0; n < 100; n++) {
				uint64_t lba = test_rand_below(&rand, m.first + m.nr * m.step + 100);

				sst_check_range(sst, &m, lba, test_rand_below(&rand, 700), &rand);
				sst_check_next(sst, &m, lba);
			}
			mls_sst_put(sst);
			mls_block_cache_free(cache);
		}
	sst_world_free(w);
}
END_TEST

START_TEST(what_the_builder_caches_is_not_read)
{
	struct sst_world *w = sst_world_new();
	struct mls_block_cache *cache = sst_cache(1000);
	struct sst_model m = { 5, 2, 127 * 100 + 3 };
	struct mls_block_cache_stat stat;
	struct mls_sst_info info;
	struct mls_sst *sst;

	ck_assert_int_eq(sst_build_cached(w, cache, m.first, m.step, m.nr, 0, &info), 0);
	sst = sst_open(w, cache, &info);
	sst_check_range(sst, &m, 0, m.first + m.nr * m.step, NULL);
	sst_check_iter(sst, &m, 0, 0);
	sst_check_skip(sst, &m, 127 * 5, 0);
	mls_block_cache_stat(cache, &stat);
	ck_assert_uint_eq(stat.hits, 101);
	ck_assert_uint_eq(stat.misses, 0);
	mls_sst_put(sst);
	mls_block_cache_free(cache);
	sst_world_free(w);
}
END_TEST

START_TEST(a_lookup_costs_one_block_and_a_scan_none)
{
	struct sst_world *w = sst_world_new();
	struct mls_block_cache *cache = sst_cache(1000);
	struct sst_model m = { 0, 1, 127 * 100 };
	struct mls_sst *sst = sst_new(w, cache, m.first, m.step, m.nr);
	struct mls_block_cache_stat before, after;

	sst_check_iter(sst, &m, 0, 0);
	mls_block_cache_stat(cache, &before);
	ck_assert_uint_eq(before.hits + before.misses, 0);

	sst_check_range(sst, &m, 127 * 50 + 3, 120, NULL);
	mls_block_cache_stat(cache, &after);
	ck_assert_uint_eq(after.hits, 0);
	ck_assert_uint_eq(after.misses, 1);
	sst_check_range(sst, &m, 127 * 50 + 100, 127, NULL);
	mls_block_cache_stat(cache, &after);
	ck_assert_uint_eq(after.hits, 1);
	ck_assert_uint_eq(after.misses, 2);

	/* Outside the table nothing is looked at. */
	sst_check_range(sst, &m, 127 * 100, 50, NULL);
	mls_block_cache_stat(cache, &before);
	ck_assert_uint_eq(before.hits + before.misses, after.hits + after.misses);
	mls_sst_put(sst);
	mls_block_cache_free(cache);
	sst_world_free(w);
}
END_TEST

START_TEST(a_replaced_table_is_readable_until_put)
{
	struct sst_world *w = sst_world_new();
	struct mls_block_cache *cache = sst_cache(100);
	struct sst_model m = { 5, 2, 1000 };
	struct mls_sst *sst = sst_new(w, cache, m.first, m.step, m.nr);
	uint64_t nr_free = mls_chunk_alloc_nr_free(w->alloc), log_id = mls_sst_info(sst)->log_id;
	struct mls_sst_iter *iter;
	struct mls_index_rec rec;
	struct mls_sst *gone;
	struct mls_tx *tx;

	sst_check_range(sst, &m, 0, 2000, NULL);
	ck_assert_int_eq(mls_sst_iter_new(&iter, sst, 0, 1), 0);
	ck_assert_int_eq(mls_tx_begin(w->store, &tx), 0);
	ck_assert_int_eq(mls_tx_log_delete(tx, log_id), 0);
	ck_assert_int_eq(mls_tx_commit(tx), 0);
	mls_sst_set_dead(sst);
	sst_check_range(sst, &m, 0, 2000, NULL);
	ck_assert_int_eq(mls_sst_open(&gone, w->store, cache, mls_sst_info(sst)), MLS_ENOENT);

	ck_assert_ptr_eq(mls_sst_get(sst), sst);
	mls_sst_put(sst);
	mls_sst_put(sst);
	for (uint64_t k = 0; k < m.nr; k++) {	/* the iterator has a reference of its own */
		must(mls_sst_iter_next(iter, &rec) == 0);
		must(sst_is_rec(&rec, m.first + k * m.step, 0));
	}
	ck_assert_uint_eq(mls_chunk_alloc_nr_free(w->alloc), nr_free);
	mls_sst_iter_free(iter);
	ck_assert_uint_gt(mls_chunk_alloc_nr_free(w->alloc), nr_free);
	for (uint64_t pos = 0; pos < 8; pos++)
		ck_assert_ptr_null(mls_block_cache_lookup(cache, log_id, pos));
	mls_block_cache_free(cache);
	sst_world_free(w);
}
END_TEST

START_TEST(an_abandoned_builder_leaves_nothing)
{
	struct sst_world *w = sst_world_new();
	uint64_t nr_free = mls_chunk_alloc_nr_free(w->alloc);
	struct mls_sst_builder *builder;
	struct mls_tx *tx;

	for (unsigned nr = 0; nr < 30000; nr = nr * 7 + 1) {
		ck_assert_int_eq(mls_tx_begin(w->store, &tx), 0);
		ck_assert_int_eq(mls_sst_builder_new(&builder, tx, 1), 0);
		for (uint64_t i = 0; i < nr; i++) {
			struct mls_index_rec rec = sst_rec(i, 0);

			must(mls_sst_builder_add(builder, &rec) == 0);
		}
		mls_sst_builder_free(builder);
		if (nr % 2)
			mls_tx_abort(tx);
		else
			ck_assert_int_ne(mls_tx_commit(tx), 0);
		ck_assert_uint_eq(mls_chunk_alloc_nr_free(w->alloc), nr_free);
	}
	sst_world_free(w);
}
END_TEST

/* ---- Merging tables ---- */

static int count_dropped(void *arg, const struct mls_index_rec *rec)
{
	uint64_t *nr = arg;

	must(sst_is_rec(rec, rec->lba, 2) || sst_is_rec(rec, rec->lba, 3));
	++*nr;
	return 0;
}

/* Every 5th LBA in an array (age 1), every 3rd in one table (2), every 2nd in an older one (3). */
START_TEST(tables_merge)
{
	enum { END = 3000 };
	struct mls_index_rec recs[END / 5], rec;
	struct mls_sst_iter *iters[2];
	struct sst_world *w = sst_world_new();
	struct mls_sst_info info[2];
	struct mls_sst *sst[2];
	struct mls_merge *m;
	uint64_t nr_dropped = 0, nr_expected = 0;

	for (unsigned i = 0; i < END / 5; i++)
		recs[i] = sst_rec(i * 5, 1);
	ck_assert_int_eq(mls_merge_new(&m, 3, count_dropped, &nr_dropped), 0);
	mls_merge_add_array(m, recs, END / 5);
	for (unsigned i = 0; i < 2; i++) {
		ck_assert_int_eq(sst_build(w, 0, 3 - i, END / (3 - i), 2 + i, &info[i]), 0);
		sst[i] = sst_open(w, NULL, &info[i]);
		ck_assert_int_eq(mls_sst_iter_new(&iters[i], sst[i], 0, 2), 0);
		mls_merge_add_iter(m, iters[i]);
	}
	for (uint64_t lba = 0; lba < END; lba++) {
		unsigned nr_there = (lba % 5 == 0) + (lba % 3 == 0) + (lba % 2 == 0);

		if (nr_there == 0)
			continue;
		nr_expected += nr_there - 1;
		must(mls_merge_next(m, &rec) == 0);
		must(sst_is_rec(&rec, lba, lba % 5 == 0 ? 1 : lba % 3 == 0 ? 2 : 3));
	}
	ck_assert_int_eq(mls_merge_next(m, &rec), MLS_ENOENT);
	ck_assert_uint_eq(nr_dropped, nr_expected);
	mls_merge_free(m);
	for (unsigned i = 0; i < 2; i++) {
		mls_sst_iter_free(iters[i]);
		mls_sst_put(sst[i]);
	}
	sst_world_free(w);
}
END_TEST

/* ---- Threads ---- */

struct worker {
	pthread_t thread;
	struct mls_sst *sst;
	struct test_rand rand;
	uint64_t nr_wrong;
};

static void *work(void *arg)
{
	struct worker *worker = arg;
	uint64_t max_lba = mls_sst_info(worker->sst)->max_lba;

	for (unsigned n = 0; n < 1500; n++) {
		struct mls_sst *sst = mls_sst_get(worker->sst);
		uint64_t lba = test_rand_below(&worker->rand, max_lba);
		struct mls_index_rec recs[40], rec;
		size_t nr_missing = 40;

		mls_lookup_init(recs, 40);
		if (mls_sst_get_range(sst, lba, 40, recs, &nr_missing) || mls_sst_next(sst, lba, &rec))
			worker->nr_wrong++;
		else if (!sst_is_rec(&rec, lba + lba % 2, 0))
			worker->nr_wrong++;
		for (unsigned i = 0; i < 40; i++)
			if ((lba + i) % 2 || lba + i > max_lba)
				worker->nr_wrong += recs[i].lba != MLS_LBA_NONE;
			else
				worker->nr_wrong += !sst_is_rec(&recs[i], lba + i, 0);
		mls_sst_put(sst);
	}
	return NULL;
}

START_TEST(threads_read_one_table)
{
	enum { NR_WORKERS = 4 };
	struct worker workers[NR_WORKERS];
	struct sst_world *w = sst_world_new();
	struct mls_block_cache *cache = sst_cache(24);
	struct mls_sst *sst = sst_new(w, cache, 0, 2, 127 * 50);

	for (unsigned i = 0; i < NR_WORKERS; i++) {
		workers[i] = (struct worker){ .sst = sst };
		test_rand_seed(&workers[i].rand, i);
		ck_assert_int_eq(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
	}
	for (unsigned i = 0; i < NR_WORKERS; i++) {
		pthread_join(workers[i].thread, NULL);
		ck_assert_uint_eq(workers[i].nr_wrong, 0);
	}
	mls_sst_set_dead(sst);
	mls_sst_put(sst);
	mls_block_cache_free(cache);
	sst_world_free(w);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("sstable");
	TCase *tc = tcase_create("all");

	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, any_size);
	tcase_add_test(tc, a_block_is_searched_right);
	tcase_add_test(tc, any_range_with_any_cache);
	tcase_add_test(tc, what_the_builder_caches_is_not_read);
	tcase_add_test(tc, a_lookup_costs_one_block_and_a_scan_none);
	tcase_add_test(tc, a_replaced_table_is_readable_until_put);
	tcase_add_test(tc, an_abandoned_builder_leaves_nothing);
	tcase_add_test(tc, tables_merge);
	tcase_add_test(tc, threads_read_one_table);
	suite_add_tcase(suite, tc);
	return check_run(suite);
}
