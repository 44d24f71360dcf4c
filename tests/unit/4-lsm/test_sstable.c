/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_sstable.c - a table gives the records that went in, whatever is asked for and however large it
 * is; and an error, never a wrong record, when the host changes or fails what lies below.
 *
 * Tables lie in a real log store on memory, behind a device that fails its Nth operation.
 */
#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "0-bio/block_dev.h"
#include "4-lsm/merge.h"
#include "4-lsm/sst_block.h"
#include "base/buf.h"
#include "tests/lib/check_run.h"
#include "tests/lib/fault_dev.h"
#include "tests/lib/tamper.h"
#include "tests/lib/test_log.h"
#include "tests/lib/test_rand.h"

#define RUN_BLOCKS 64u
#define NR_RUNS 32u

/* For inner loops: Check notes each ck_assert in a file. */
#define must(expr)                                            \
	do {                                                  \
		if (!(expr))                                  \
			ck_abort_msg("%s is false", #expr);   \
	} while (0)

/* ---- A log store ---- */

struct world {
	struct mls_block_dev *disk;
	struct fault_dev *dev;		/* above disk */
	struct mls_keyring *keys;
	struct mls_journal *journal;
	struct mls_chunk_alloc *alloc;
	struct mls_tx_store *store;
};

static struct world *new_world(void)
{
	static const uint8_t key[MLS_KEY_BYTES] = { 1, 2, 3 }, uuid[MLS_UUID_BYTES] = { 4, 5, 6 };
	static const uint8_t session[MLS_SESSION_BYTES] = { 7, 8, 9 };
	uint64_t area_blocks = mls_journal_area_blocks(NR_RUNS);
	uint64_t base_hba = MLS_JOURNAL_HBA + 2 * area_blocks;
	struct world *w = calloc(1, sizeof *w);

	ck_assert_ptr_nonnull(w);
	ck_assert_int_eq(mls_block_dev_mem_new(&w->disk, base_hba + NR_RUNS * RUN_BLOCKS), 0);
	w->dev = fault_dev_new(w->disk, FAULT_ALL);
	ck_assert_ptr_nonnull(w->dev);
	ck_assert_int_eq(mls_keyring_new(&w->keys, key, uuid), 0);
	ck_assert_int_eq(mls_chunk_alloc_new(&w->alloc, base_hba, RUN_BLOCKS, NR_RUNS), 0);
	ck_assert_int_eq(mls_journal_new(&w->journal, &w->dev->base, w->keys, MLS_JOURNAL_HBA, area_blocks), 0);
	ck_assert_int_eq(mls_tx_store_new(&w->store, &w->dev->base, w->alloc, w->keys, w->journal), 0);
	ck_assert_int_eq(mls_journal_start(w->journal, session), 0);
	return w;
}

static void free_world(struct world *w)
{
	mls_tx_store_free(w->store);
	mls_journal_free(w->journal);
	mls_chunk_alloc_free(w->alloc);
	mls_keyring_free(w->keys);
	mls_block_dev_destroy(&w->dev->base);
	mls_block_dev_destroy(w->disk);
	free(w);
}

/* ---- Records ---- */

/* age tells tables apart. Some are tombstones. */
static struct mls_index_rec rec_of(uint64_t lba, unsigned age)
{
	struct mls_index_rec rec = { .lba = lba, .hba = lba % 11 == 3 ? MLS_HBA_NONE : lba * 100 + age };

	for (unsigned i = 0; i < sizeof rec.tag; i++)
		rec.tag[i] = (uint8_t)(lba >> i % 4 * 8) ^ (uint8_t)(i + age);
	return rec;
}

static bool is_rec(const struct mls_index_rec *rec, uint64_t lba, unsigned age)
{
	struct mls_index_rec expected = rec_of(lba, age);

	return rec->lba == lba && rec->hba == expected.hba &&
	       memcmp(rec->tag, expected.tag, sizeof rec->tag) == 0;
}

/* A table of the LBAs first, first + step, ...; cache NULL: the builder has none. */
static int build_cached(struct world *w, struct mls_block_cache *cache, uint64_t first, uint64_t step, uint64_t nr,
			unsigned age, struct mls_sst_info *info)
{
	struct mls_sst_builder *builder = NULL;
	struct mls_tx *tx;
	int err;

	err = mls_tx_begin(w->store, &tx);
	if (err)
		return err;
	err = mls_sst_builder_new(&builder, tx, 3);
	if (!err)
		mls_sst_builder_set_cache(builder, cache);
	for (uint64_t i = 0; i < nr && !err; i++) {
		struct mls_index_rec rec = rec_of(first + i * step, age);

		err = mls_sst_builder_add(builder, &rec);
	}
	if (!err) {
		ck_assert_uint_eq(mls_sst_builder_nr_records(builder), nr);
		err = mls_sst_builder_finish(builder, info);
	}
	mls_sst_builder_free(builder);
	if (err)
		mls_tx_abort(tx);
	else
		err = mls_tx_commit(tx);
	return err;
}

static int build(struct world *w, uint64_t first, uint64_t step, uint64_t nr, unsigned age,
		 struct mls_sst_info *info)
{
	return build_cached(w, NULL, first, step, nr, age, info);
}

static struct mls_sst *open_table(struct world *w, struct mls_block_cache *cache,
				  const struct mls_sst_info *info)
{
	struct mls_sst *sst;

	ck_assert_int_eq(mls_sst_open(&sst, w->store, cache, info), 0);
	return sst;
}

static struct mls_sst *new_table(struct world *w, struct mls_block_cache *cache, uint64_t first, uint64_t step,
				 uint64_t nr)
{
	struct mls_sst_info info;

	ck_assert_int_eq(build(w, first, step, nr, 0, &info), 0);
	ck_assert_uint_eq(info.nr_records, nr);
	ck_assert_uint_eq(info.min_lba, first);
	ck_assert_uint_eq(info.max_lba, first + (nr - 1) * step);
	return open_table(w, cache, &info);
}

static struct mls_block_cache *new_cache(uint64_t nr_blocks)
{
	struct mls_block_cache *cache;

	ck_assert_int_eq(mls_block_cache_new(&cache, nr_blocks * MLS_BLOCK_BYTES), 0);
	return cache;
}

/* ---- Checks against the model: record iff lba = first + k * step, k < nr ---- */

struct model {
	uint64_t first, step, nr;
};

static bool model_has(const struct model *m, uint64_t lba)
{
	return lba >= m->first && (lba - m->first) % m->step == 0 && (lba - m->first) / m->step < m->nr;
}

/* With rand, some of recs are found already, by a newer source (age 9). */
static void check_range(struct mls_sst *sst, const struct model *m, uint64_t lba, size_t nr,
			struct test_rand *rand)
{
	struct mls_index_rec *recs = calloc(nr ? nr : 1, sizeof *recs);
	bool *was_found = calloc(nr ? nr : 1, sizeof *was_found);
	size_t nr_missing = nr, nr_expected = nr;

	mls_lookup_init(recs, nr);
	for (size_t i = 0; i < nr; i++) {
		was_found[i] = rand && test_rand_chance(rand, 1, 3);
		if (was_found[i]) {
			recs[i] = rec_of(lba + i, 9);
			nr_missing--;
			nr_expected--;
		}
		if (!was_found[i] && model_has(m, lba + i))
			nr_expected--;
	}
	ck_assert_int_eq(mls_sst_get_range(sst, lba, nr, recs, &nr_missing), 0);
	ck_assert_uint_eq(nr_missing, nr_expected);
	for (size_t i = 0; i < nr; i++)
		if (was_found[i])
			must(is_rec(&recs[i], lba + i, 9));
		else if (model_has(m, lba + i))
			must(is_rec(&recs[i], lba + i, 0));
		else
			must(recs[i].lba == MLS_LBA_NONE);
	free(was_found);
	free(recs);
}

/* Single LBAs, some of them twice, some found already; steps wide apart now and then. */
static void check_each(struct mls_sst *sst, const struct model *m, struct test_rand *rand)
{
	struct mls_index_rec recs[90];
	bool was_found[90];
	size_t nr_missing = 0, nr_expected = 0;
	uint64_t lba = m->first - test_rand_below(rand, m->first < 20 ? m->first + 1 : 20);

	for (size_t i = 0; i < 90; i++) {
		was_found[i] = test_rand_chance(rand, 1, 4);
		recs[i] = was_found[i] ? rec_of(lba, 9) :
					 (struct mls_index_rec){ .lba = lba, .hba = MLS_HBA_MISSING };
		nr_missing += !was_found[i];
		nr_expected += !was_found[i] && !model_has(m, lba);
		lba += test_rand_chance(rand, 1, 8) ? m->nr * m->step / 16 : test_rand_below(rand, m->step + 2);
	}
	ck_assert_int_eq(mls_sst_get_each(sst, recs, 90, &nr_missing), 0);
	ck_assert_uint_eq(nr_missing, nr_expected);
	for (size_t i = 0; i < 90; i++)
		if (was_found[i])
			must(is_rec(&recs[i], recs[i].lba, 9));
		else if (model_has(m, recs[i].lba))
			must(is_rec(&recs[i], recs[i].lba, 0));
		else
			must(recs[i].hba == MLS_HBA_MISSING);
}

static void check_next(struct mls_sst *sst, const struct model *m, uint64_t lba)
{
	uint64_t max = m->first + (m->nr - 1) * m->step;
	uint64_t behind = lba <= m->first ? 0 : (lba - m->first + m->step - 1) / m->step * m->step;
	struct mls_index_rec rec;

	if (lba > max) {
		ck_assert_int_eq(mls_sst_next(sst, lba, &rec), MLS_ENOENT);
		return;
	}
	must(mls_sst_next(sst, lba, &rec) == 0);
	must(is_rec(&rec, m->first + behind, 0));
}

static void check_iter(struct mls_sst *sst, const struct model *m, uint64_t lba, uint32_t ahead_blocks)
{
	struct mls_sst_iter *iter;
	struct mls_index_rec rec;
	uint64_t k = lba <= m->first ? 0 : (lba - m->first + m->step - 1) / m->step;

	ck_assert_int_eq(mls_sst_iter_new(&iter, sst, lba, ahead_blocks), 0);
	for (; k < m->nr; k++) {
		must(mls_sst_iter_next(iter, &rec) == 0);
		must(is_rec(&rec, m->first + k * m->step, 0));
	}
	ck_assert_int_eq(mls_sst_iter_next(iter, &rec), MLS_ENOENT);
	ck_assert_int_eq(mls_sst_iter_next(iter, &rec), MLS_ENOENT);
	mls_sst_iter_free(iter);
}

/* Looking for every stride-th LBA; between skips the next records come in order. */
static void check_skip(struct mls_sst *sst, const struct model *m, uint64_t stride, uint32_t ahead_blocks)
{
	struct mls_sst_iter *iter;
	struct mls_index_rec rec;
	uint64_t next = 0, max = m->first + (m->nr - 1) * m->step;

	ck_assert_int_eq(mls_sst_iter_new(&iter, sst, 0, ahead_blocks), 0);
	for (uint64_t lba = 0; lba <= max; lba += stride) {
		uint64_t k = lba <= m->first ? 0 : (lba - m->first + m->step - 1) / m->step;

		mls_sst_iter_skip(iter, lba);
		next = k > next ? k : next;
		for (unsigned i = 0; i < 2 && next < m->nr; i++, next++) {
			must(mls_sst_iter_next(iter, &rec) == 0);
			must(is_rec(&rec, m->first + next * m->step, 0));
		}
	}
	mls_sst_iter_skip(iter, max + 1);
	ck_assert_int_eq(mls_sst_iter_next(iter, &rec), MLS_ENOENT);
	mls_sst_iter_free(iter);
}

/* ---- Tests ---- */

/* Goal: all sizes where a block, a buffer, an index block begins or ends. */
START_TEST(any_size)
{
	static const uint64_t sizes[] = { 1, 2, 126, 127, 128, 254, 255, 127 * 63, 127 * 64 - 1, 127 * 64,
					  127 * 64 + 1, 127 * 512 - 1, 127 * 512, 127 * 512 + 1, 127 * 515 };
	struct test_rand rand;

	test_rand_seed(&rand, 5);
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		struct world *w = new_world();
		struct mls_block_cache *cache = new_cache(100);
		struct model m = { 10, 3, sizes[i] };
		struct mls_sst *sst = new_table(w, cache, m.first, m.step, m.nr);
		uint64_t end = m.first + m.nr * m.step + 10, stride = end / 300 + 1;

		ck_assert_uint_eq(mls_log_nr_blocks(sst->log), mls_sst_nr_blocks(m.nr));
		check_range(sst, &m, 0, 0, NULL);
		check_range(sst, &m, 0, end, NULL);
		for (uint64_t lba = 0; lba < end; lba += stride) {
			check_range(sst, &m, lba, 1, NULL);
			check_range(sst, &m, lba, 30, NULL);
			check_next(sst, &m, lba);
		}
		/* The seams of the record blocks. */
		for (uint64_t block = 1; block * 127 <= m.nr; block += 1 + block / 4) {
			uint64_t seam = m.first + block * 127 * m.step;

			for (uint64_t lba = seam - 4; lba < seam + 3; lba++) {
				check_range(sst, &m, lba, 1, NULL);
				check_range(sst, &m, lba, 5, NULL);
				check_next(sst, &m, lba);
			}
		}
		check_next(sst, &m, MLS_LBA_NONE);
		check_iter(sst, &m, 0, 0);
		check_iter(sst, &m, m.first + m.nr * m.step / 2, 1);
		check_iter(sst, &m, m.first + m.nr * m.step / 3, 3);
		check_iter(sst, &m, end, 0);
		check_skip(sst, &m, 1, 3);
		check_skip(sst, &m, 50, 3);
		check_skip(sst, &m, 127 * 3, 2);
		check_skip(sst, &m, 127 * 3 * 5 + 1, 0);
		check_skip(sst, &m, 127 * 3 * 40, 0);
		for (unsigned k = 0; k < 20; k++)
			check_each(sst, &m, &rand);
		mls_sst_put(sst);
		mls_block_cache_free(cache);
		free_world(w);
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

		mls_put_le16(block->nr_records, (uint16_t)nr);
		for (unsigned k = 0; k < nr; k++) {
			mls_put_le64(block->rec[k].lba, lba);
			lba += 1 + (test_rand_chance(&rand, 1, 4) ? test_rand_below(&rand, 1ull << spread) : 0);
		}
		for (unsigned i = 0; i < 40; i++) {
			unsigned k = (unsigned)test_rand_below(&rand, nr), linear = 0;
			uint64_t wanted = mls_sst_block_lba(block, k) + test_rand_below(&rand, 3) - 1;

			while (linear < nr && mls_sst_block_lba(block, linear) < wanted)
				linear++;
			must(mls_sst_block_search(block, wanted) == linear);
		}
		must(mls_sst_block_search(block, 0) == 0);
		must(mls_sst_block_search(block, MLS_LBA_NONE) == nr);
	}
	mls_blocks_free(block);
}
END_TEST

START_TEST(any_range_with_any_cache)
{
	static const uint64_t cache_sizes[] = { 0, 1, 3, 1000 };
	static const uint64_t steps[] = { 1, 2, 60, 1000 };
	struct world *w = new_world();
	struct test_rand rand;

	test_rand_seed(&rand, 1);
	for (unsigned i = 0; i < 4; i++)
		for (unsigned k = 0; k < 4; k++) {
			struct mls_block_cache *cache = i ? new_cache(cache_sizes[i]) : NULL;
			struct model m = { test_rand_below(&rand, 1000), steps[k],
					   test_rand_between(&rand, 1, 3000) };
			struct mls_sst *sst = new_table(w, cache, m.first, m.step, m.nr);

			for (unsigned n = 0; n < 100; n++) {
				uint64_t lba = test_rand_below(&rand, m.first + m.nr * m.step + 100);

				check_range(sst, &m, lba, test_rand_below(&rand, 700), &rand);
				check_next(sst, &m, lba);
			}
			mls_sst_put(sst);
			mls_block_cache_free(cache);
		}
	free_world(w);
}
END_TEST

START_TEST(what_the_builder_caches_is_not_read)
{
	struct world *w = new_world();
	struct mls_block_cache *cache = new_cache(1000);
	struct model m = { 5, 2, 127 * 100 + 3 };
	struct mls_block_cache_stat stat;
	struct mls_sst_info info;
	struct mls_sst *sst;

	ck_assert_int_eq(build_cached(w, cache, m.first, m.step, m.nr, 0, &info), 0);
	sst = open_table(w, cache, &info);
	check_range(sst, &m, 0, m.first + m.nr * m.step, NULL);
	check_iter(sst, &m, 0, 0);
	check_skip(sst, &m, 127 * 5, 0);
	mls_block_cache_stat(cache, &stat);
	ck_assert_uint_eq(stat.hits, 101);
	ck_assert_uint_eq(stat.misses, 0);
	mls_sst_put(sst);
	mls_block_cache_free(cache);
	free_world(w);
}
END_TEST

START_TEST(a_lookup_costs_one_block_and_a_scan_none)
{
	struct world *w = new_world();
	struct mls_block_cache *cache = new_cache(1000);
	struct model m = { 0, 1, 127 * 100 };
	struct mls_sst *sst = new_table(w, cache, m.first, m.step, m.nr);
	struct mls_block_cache_stat before, after;

	check_iter(sst, &m, 0, 0);
	mls_block_cache_stat(cache, &before);
	ck_assert_uint_eq(before.hits + before.misses, 0);

	check_range(sst, &m, 127 * 50 + 3, 120, NULL);
	mls_block_cache_stat(cache, &after);
	ck_assert_uint_eq(after.hits, 0);
	ck_assert_uint_eq(after.misses, 1);
	check_range(sst, &m, 127 * 50 + 100, 127, NULL);
	mls_block_cache_stat(cache, &after);
	ck_assert_uint_eq(after.hits, 1);
	ck_assert_uint_eq(after.misses, 2);

	/* Outside the table nothing is looked at. */
	check_range(sst, &m, 127 * 100, 50, NULL);
	mls_block_cache_stat(cache, &before);
	ck_assert_uint_eq(before.hits + before.misses, after.hits + after.misses);
	mls_sst_put(sst);
	mls_block_cache_free(cache);
	free_world(w);
}
END_TEST

START_TEST(a_replaced_table_is_readable_until_put)
{
	struct world *w = new_world();
	struct mls_block_cache *cache = new_cache(100);
	struct model m = { 5, 2, 1000 };
	struct mls_sst *sst = new_table(w, cache, m.first, m.step, m.nr);
	uint64_t nr_free = mls_chunk_alloc_nr_free(w->alloc), log_id = mls_sst_info(sst)->log_id;
	struct mls_sst_iter *iter;
	struct mls_index_rec rec;
	struct mls_sst *gone;
	struct mls_tx *tx;

	check_range(sst, &m, 0, 2000, NULL);
	ck_assert_int_eq(mls_sst_iter_new(&iter, sst, 0, 1), 0);
	ck_assert_int_eq(mls_tx_begin(w->store, &tx), 0);
	ck_assert_int_eq(mls_tx_log_delete(tx, log_id), 0);
	ck_assert_int_eq(mls_tx_commit(tx), 0);
	mls_sst_set_dead(sst);
	check_range(sst, &m, 0, 2000, NULL);
	ck_assert_int_eq(mls_sst_open(&gone, w->store, cache, mls_sst_info(sst)), MLS_ENOENT);

	ck_assert_ptr_eq(mls_sst_get(sst), sst);
	mls_sst_put(sst);
	mls_sst_put(sst);
	for (uint64_t k = 0; k < m.nr; k++) {	/* the iterator has a reference of its own */
		must(mls_sst_iter_next(iter, &rec) == 0);
		must(is_rec(&rec, m.first + k * m.step, 0));
	}
	ck_assert_uint_eq(mls_chunk_alloc_nr_free(w->alloc), nr_free);
	mls_sst_iter_free(iter);
	ck_assert_uint_gt(mls_chunk_alloc_nr_free(w->alloc), nr_free);
	for (uint64_t pos = 0; pos < 8; pos++)
		ck_assert_ptr_null(mls_block_cache_lookup(cache, log_id, pos));
	mls_block_cache_free(cache);
	free_world(w);
}
END_TEST

START_TEST(an_abandoned_builder_leaves_nothing)
{
	struct world *w = new_world();
	uint64_t nr_free = mls_chunk_alloc_nr_free(w->alloc);
	struct mls_sst_builder *builder;
	struct mls_tx *tx;

	for (unsigned nr = 0; nr < 30000; nr = nr * 7 + 1) {
		ck_assert_int_eq(mls_tx_begin(w->store, &tx), 0);
		ck_assert_int_eq(mls_sst_builder_new(&builder, tx, 1), 0);
		for (uint64_t i = 0; i < nr; i++) {
			struct mls_index_rec rec = rec_of(i, 0);

			must(mls_sst_builder_add(builder, &rec) == 0);
		}
		mls_sst_builder_free(builder);
		if (nr % 2)
			mls_tx_abort(tx);
		else
			ck_assert_int_ne(mls_tx_commit(tx), 0);
		ck_assert_uint_eq(mls_chunk_alloc_nr_free(w->alloc), nr_free);
	}
	free_world(w);
}
END_TEST

/* ---- Authentic, but malformed ---- */

enum { NR = 127 * 2 + 50, NR_BLOCKS = 5 };	/* 3 record blocks, index, footer */

/* The table of LBAs 10, 11, ... as bytes, in blocks. */
static void encode_table(uint8_t *blocks)
{
	struct mls_sst_footer_disk *footer = (void *)mls_block_at(blocks, 4);

	memset(blocks, 0, NR_BLOCKS * MLS_BLOCK_BYTES);
	for (unsigned i = 0; i < NR; i++) {
		struct mls_sst_block_disk *block = (void *)mls_block_at(blocks, i / 127);
		struct mls_index_rec rec = rec_of(10 + i, 0);

		mls_put_le16(block->nr_records, (uint16_t)(i % 127 + 1));
		mls_index_rec_encode(&block->rec[i % 127], &rec);
		if (i % 127 == 0)
			mls_put_le64(mls_block_at(blocks, 3) + i / 127 * 8, rec.lba);
	}
	memcpy(footer->magic, "MlsSst1", 8);
	mls_put_le64(footer->nr_records, NR);
	mls_put_le64(footer->nr_record_blocks, 3);
	mls_put_le64(footer->nr_index_blocks, 1);
	mls_put_le64(footer->min_lba, 10);
	mls_put_le64(footer->max_lba, 10 + NR - 1);
}

/* Store the blocks as a log, open it as a table, look at all of it in every way. */
static int try_table(struct world *w, uint8_t *blocks, uint32_t nr_blocks, struct mls_sst_info info)
{
	struct mls_index_rec recs[NR + 20], rec;
	struct mls_log_writer *writer;
	struct mls_sst_iter *iter;
	size_t nr_missing = NR + 20;
	struct mls_sst *sst;
	struct mls_tx *tx;
	int err, err_of_iter;

	ck_assert_int_eq(mls_tx_begin(w->store, &tx), 0);
	ck_assert_int_eq(mls_tx_log_create(tx, 1, &writer, &info.log_id), 0);
	ck_assert_int_eq(mls_log_append(writer, blocks, nr_blocks), 0);
	ck_assert_int_eq(mls_log_finish(writer), 0);
	ck_assert_int_eq(mls_tx_commit(tx), 0);

	err = mls_sst_open(&sst, w->store, NULL, &info);
	if (!err) {
		mls_lookup_init(recs, NR + 20);
		err = mls_sst_get_range(sst, 0, NR + 20, recs, &nr_missing);
		for (unsigned i = 0; i < NR + 20; i++)
			must(recs[i].lba == MLS_LBA_NONE || is_rec(&recs[i], i, 0));
		ck_assert_int_eq(mls_sst_iter_new(&iter, sst, 0, 0), 0);
		while (!(err_of_iter = mls_sst_iter_next(iter, &rec)))
			;
		ck_assert_int_eq(err_of_iter, err ? err : MLS_ENOENT);
		mls_sst_iter_free(iter);
		mls_sst_put(sst);
	}
	ck_assert_int_eq(mls_tx_begin(w->store, &tx), 0);
	ck_assert_int_eq(mls_tx_log_delete(tx, info.log_id), 0);
	ck_assert_int_eq(mls_tx_commit(tx), 0);
	return err;
}

START_TEST(a_malformed_table_is_refused)
{
	/* le64 at byte `at` of a block is set to value. */
	static const struct {
		unsigned block, at;
		uint64_t value;
	} bad[] = {
		{ 4, 0, 0 },					/* magic */
		{ 4, 8, NR - 1 }, { 4, 8, NR + 1 }, { 4, 8, 0 }, { 4, 8, UINT64_MAX },
		{ 4, 16, 2 }, { 4, 16, 4 }, { 4, 16, UINT64_MAX },
		{ 4, 24, 0 }, { 4, 24, 2 },
		{ 4, 32, 9 }, { 4, 32, 11 },
		{ 4, 40, 10 + NR }, { 4, 40, 0 },
		{ 3, 0, 9 }, { 3, 0, 11 },			/* index */
		{ 3, 8, 10 }, { 3, 8, 136 }, { 3, 8, 138 }, { 3, 8, UINT64_MAX },
		{ 3, 16, 137 }, { 3, 16, 263 }, { 3, 16, 10 + NR }, { 3, 16, UINT64_MAX },
		{ 0, 0, 0 }, { 0, 0, 126 }, { 0, 0, 128 }, { 0, 0, 0xffff },	/* number of records */
		{ 2, 0, 49 }, { 2, 0, 51 }, { 2, 0, 127 },
		{ 1, 32, 136 }, { 1, 32, 138 },			/* first record of a block */
		{ 1, 32 + 32 * 5, 141 }, { 1, 32 + 32 * 5, 143 }, { 1, 32 + 32 * 5, UINT64_MAX },
		{ 1, 32 + 32 * 126, 264 },			/* last one, in the way of the next block */
		{ 2, 32 + 32 * 49, 10 + NR }, { 2, 32 + 32 * 49, 10 + NR + 5 },
	};
	struct mls_sst_info info = { .nr_records = NR, .min_lba = 10, .max_lba = 10 + NR - 1 };
	struct world *w = new_world();
	uint8_t *blocks = mls_blocks_zalloc(NR_BLOCKS + 1);

	mls_set_logger(test_log_quiet, NULL);
	encode_table(blocks);
	ck_assert_int_eq(try_table(w, blocks, NR_BLOCKS, info), 0);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		int err;

		encode_table(blocks);
		mls_put_le64(mls_block_at(blocks, bad[i].block) + bad[i].at, bad[i].value);
		err = try_table(w, blocks, NR_BLOCKS, info);
		ck_assert_msg(err == MLS_EFORMAT, "damage %zu: %s", i, mls_strerror(err));
	}

	/* Whole, but not what the owner wrote down. */
	encode_table(blocks);
	for (unsigned i = 0; i < 6; i++) {
		struct mls_sst_info wrong = info;

		wrong.nr_records += (i == 0) - (i == 1);
		wrong.nr_records = i == 2 ? 0 : i == 3 ? UINT64_MAX : wrong.nr_records;
		wrong.min_lba += i == 4;
		wrong.max_lba += i == 5;
		ck_assert_int_eq(try_table(w, blocks, NR_BLOCKS, wrong), MLS_EFORMAT);
	}
	ck_assert_int_eq(try_table(w, blocks, NR_BLOCKS + 1, info), MLS_EFORMAT);
	ck_assert_int_eq(try_table(w, blocks, NR_BLOCKS - 1, info), MLS_EFORMAT);
	ck_assert_int_eq(try_table(w, blocks, 1, info), MLS_EFORMAT);
	mls_set_logger(NULL, NULL);
	mls_blocks_free(blocks);
	free_world(w);
}
END_TEST

/* ---- Tampering ---- */

struct place {
	uint64_t id, hbas[NR_RUNS];
	uint32_t nr;
};

static int note_place(void *arg, const struct mls_log_info *info)
{
	struct place *place = arg;

	if (info->id != place->id)
		return 0;
	memcpy(place->hbas, info->chunk_hbas, info->nr_chunks * sizeof *info->chunk_hbas);
	place->nr = info->nr_chunks;
	return 1;
}

/* Open, look up everything, scan: right records or an error. true: there was one. */
static bool notices(struct world *w, const struct mls_sst_info *info, const struct model *m)
{
	struct mls_block_cache *cache = new_cache(64);
	struct mls_sst_iter *iter;
	struct mls_index_rec rec;
	struct mls_sst *sst;
	uint64_t k = 0;
	int err = mls_sst_open(&sst, w->store, cache, info);
	bool noticed = err != 0;

	if (err)
		goto out;
	for (uint64_t lba = m->first; lba <= info->max_lba; lba += 40 * m->step) {
		struct mls_index_rec recs[3];
		size_t nr_missing = 3;

		mls_lookup_init(recs, 3);
		err = mls_sst_get_range(sst, lba, 3, recs, &nr_missing);
		ck_assert(err == 0 || err == MLS_EAUTH);
		noticed |= err != 0;
		for (unsigned i = 0; i < 3; i++)
			must(recs[i].lba == MLS_LBA_NONE ? err || !model_has(m, lba + i) :
								is_rec(&recs[i], lba + i, 0));
	}
	ck_assert_int_eq(mls_sst_iter_new(&iter, sst, 0, 2), 0);
	while (!(err = mls_sst_iter_next(iter, &rec)))
		must(is_rec(&rec, m->first + k++ * m->step, 0));
	ck_assert(err == MLS_EAUTH || (err == MLS_ENOENT && k == m->nr));
	noticed |= err != MLS_ENOENT;
	mls_sst_iter_free(iter);
	mls_sst_put(sst);
out:
	mls_block_cache_free(cache);
	return noticed;
}

START_TEST(tampering_is_noticed)
{
	struct world *w = new_world();
	struct model m = { 3, 2, 127 * 70 + 20 };
	struct mls_sst_info info;
	struct place place = { 0 };
	unsigned nr_noticed = 0;

	mls_set_logger(test_log_quiet, NULL);
	ck_assert_int_eq(build(w, m.first, m.step, m.nr, 0, &info), 0);
	place.id = info.log_id;
	ck_assert_int_eq(mls_tx_store_list(w->store, -1, note_place, &place), 1);
	for (unsigned i = 0; i < place.nr * RUN_BLOCKS; i++) {
		uint64_t hba = place.hbas[i / RUN_BLOCKS] + i % RUN_BLOCKS;
		uint32_t bit = i * 9973 % (8 * MLS_BLOCK_BYTES);

		tamper_flip_bit(w->disk, hba, bit);
		nr_noticed += notices(w, &info, &m);
		tamper_flip_bit(w->disk, hba, bit);
		ck_assert(!notices(w, &info, &m));
	}
	/* Each block of the log, nodes included; the rest of the runs doesn't belong to it. */
	ck_assert_uint_eq(nr_noticed, mls_crypto_log_total_blocks(mls_sst_nr_blocks(m.nr)));
	mls_set_logger(NULL, NULL);
	free_world(w);
}
END_TEST

START_TEST(swapped_blocks_are_noticed)
{
	struct world *w = new_world();
	struct model m = { 3, 2, 127 * 20 };
	struct mls_sst_info info[2];
	struct place place[2] = { 0 };

	mls_set_logger(test_log_quiet, NULL);
	for (unsigned i = 0; i < 2; i++) {
		ck_assert_int_eq(build(w, m.first, m.step, m.nr, 0, &info[i]), 0);
		place[i].id = info[i].log_id;
		ck_assert_int_eq(mls_tx_store_list(w->store, -1, note_place, &place[i]), 1);
	}
	/* Within a table, and between two with the same content. */
	for (unsigned i = 0; i < 20; i++) {
		tamper_swap(w->disk, place[0].hbas[0] + i, place[0].hbas[0] + i + 1);
		ck_assert(notices(w, &info[0], &m));
		tamper_swap(w->disk, place[0].hbas[0] + i, place[0].hbas[0] + i + 1);
		tamper_swap(w->disk, place[0].hbas[0] + i, place[1].hbas[0] + i);
		ck_assert(notices(w, &info[0], &m) && notices(w, &info[1], &m));
		tamper_swap(w->disk, place[0].hbas[0] + i, place[1].hbas[0] + i);
	}
	mls_set_logger(NULL, NULL);
	free_world(w);
}
END_TEST

/* ---- I/O failures ---- */

/* Goal: a build that fails says so and leaves no table; what was there before stays. */
START_TEST(building_fails_cleanly_at_each_call)
{
	int err = MLS_EIO;

	mls_set_logger(test_log_quiet, NULL);
	for (unsigned sticky = 0; sticky < 2; sticky++) {
		err = MLS_EIO;
		for (unsigned n = 1; err; n++) {
			struct world *w = new_world();
			struct model m = { 0, 1, 127 * 150 };
			struct mls_sst *old = new_table(w, NULL, 7, 1, 500);
			struct mls_sst_info info = { 0 };

			fault_dev_arm(w->dev, n, MLS_EIO, sticky);
			err = build(w, m.first, m.step, m.nr, 0, &info);
			ck_assert_int_eq(err, w->dev->fired ? MLS_EIO : 0);
			fault_dev_arm(w->dev, 0, 0, false);
			check_iter(old, &(struct model){ 7, 1, 500 }, 0, 0);
			mls_sst_put(old);
			if (!err) {
				struct mls_sst *sst = open_table(w, NULL, &info);

				check_iter(sst, &m, 0, 0);
				mls_sst_put(sst);
			}
			free_world(w);
			ck_assert_uint_lt(n, 5000);
		}
	}
	mls_set_logger(NULL, NULL);
}
END_TEST

/* Goal: each failed read comes out as MLS_EIO, and what was read right is kept; the next try works. */
START_TEST(reading_fails_cleanly_at_each_call)
{
	struct world *w = new_world();
	struct model m = { 0, 1, 127 * 40 + 1 };
	struct mls_index_rec *recs = calloc(m.nr, sizeof *recs), rec;
	struct mls_sst_info info;
	int err = MLS_EIO;

	mls_set_logger(test_log_quiet, NULL);
	ck_assert_int_eq(build(w, m.first, m.step, m.nr, 0, &info), 0);
	for (unsigned n = 1; err; n++) {
		struct mls_block_cache *cache = new_cache(20);
		struct mls_sst_iter *iter = NULL;
		struct mls_sst *sst = NULL;
		size_t nr_missing = m.nr;
		uint64_t k = 0;

		mls_lookup_init(recs, m.nr);
		fault_dev_arm(w->dev, n, MLS_EIO, false);
		err = mls_sst_open(&sst, w->store, cache, &info);
		if (!err)
			err = mls_sst_get_range(sst, 0, m.nr, recs, &nr_missing);
		for (uint64_t i = 0; i < m.nr - nr_missing; i++)
			must(is_rec(&recs[i], i, 0));
		if (!err) {
			ck_assert_uint_eq(nr_missing, 0);
			ck_assert_int_eq(mls_sst_iter_new(&iter, sst, 0, 5), 0);
			while (!(err = mls_sst_iter_next(iter, &rec)))
				must(is_rec(&rec, k++, 0));
			err = err == MLS_ENOENT && k == m.nr ? 0 : err;
		}
		ck_assert_int_eq(err, w->dev->fired ? MLS_EIO : 0);
		fault_dev_arm(w->dev, 0, 0, false);
		if (sst)
			check_range(sst, &m, 0, m.nr, NULL);
		while (iter && !mls_sst_iter_next(iter, &rec))	/* after the error, too */
			must(is_rec(&rec, k++, 0));
		ck_assert(!iter || k == m.nr);
		mls_sst_iter_free(iter);
		mls_sst_put(sst);
		mls_block_cache_free(cache);
		ck_assert_uint_lt(n, 5000);
	}
	mls_set_logger(NULL, NULL);
	free(recs);
	free_world(w);
}
END_TEST

/* ---- Merging tables ---- */

static int count_dropped(void *arg, const struct mls_index_rec *rec)
{
	uint64_t *nr = arg;

	must(is_rec(rec, rec->lba, 2) || is_rec(rec, rec->lba, 3));
	++*nr;
	return 0;
}

/* Every 5th LBA in an array (age 1), every 3rd in one table (2), every 2nd in an older one (3). */
START_TEST(tables_merge)
{
	enum { END = 3000 };
	struct mls_index_rec recs[END / 5], rec;
	struct mls_sst_iter *iters[2];
	struct world *w = new_world();
	struct mls_sst_info info[2];
	struct mls_sst *sst[2];
	struct mls_merge *m;
	uint64_t nr_dropped = 0, nr_expected = 0;

	for (unsigned i = 0; i < END / 5; i++)
		recs[i] = rec_of(i * 5, 1);
	ck_assert_int_eq(mls_merge_new(&m, 3, count_dropped, &nr_dropped), 0);
	mls_merge_add_array(m, recs, END / 5);
	for (unsigned i = 0; i < 2; i++) {
		ck_assert_int_eq(build(w, 0, 3 - i, END / (3 - i), 2 + i, &info[i]), 0);
		sst[i] = open_table(w, NULL, &info[i]);
		ck_assert_int_eq(mls_sst_iter_new(&iters[i], sst[i], 0, 2), 0);
		mls_merge_add_iter(m, iters[i]);
	}
	for (uint64_t lba = 0; lba < END; lba++) {
		unsigned nr_there = (lba % 5 == 0) + (lba % 3 == 0) + (lba % 2 == 0);

		if (nr_there == 0)
			continue;
		nr_expected += nr_there - 1;
		must(mls_merge_next(m, &rec) == 0);
		must(is_rec(&rec, lba, lba % 5 == 0 ? 1 : lba % 3 == 0 ? 2 : 3));
	}
	ck_assert_int_eq(mls_merge_next(m, &rec), MLS_ENOENT);
	ck_assert_uint_eq(nr_dropped, nr_expected);
	mls_merge_free(m);
	for (unsigned i = 0; i < 2; i++) {
		mls_sst_iter_free(iters[i]);
		mls_sst_put(sst[i]);
	}
	free_world(w);
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
		else if (!is_rec(&rec, lba + lba % 2, 0))
			worker->nr_wrong++;
		for (unsigned i = 0; i < 40; i++)
			if ((lba + i) % 2 || lba + i > max_lba)
				worker->nr_wrong += recs[i].lba != MLS_LBA_NONE;
			else
				worker->nr_wrong += !is_rec(&recs[i], lba + i, 0);
		mls_sst_put(sst);
	}
	return NULL;
}

START_TEST(threads_read_one_table)
{
	enum { NR_WORKERS = 4 };
	struct worker workers[NR_WORKERS];
	struct world *w = new_world();
	struct mls_block_cache *cache = new_cache(24);
	struct mls_sst *sst = new_table(w, cache, 0, 2, 127 * 50);

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
	free_world(w);
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
	tcase_add_test(tc, a_malformed_table_is_refused);
	tcase_add_test(tc, tampering_is_noticed);
	tcase_add_test(tc, swapped_blocks_are_noticed);
	tcase_add_test(tc, building_fails_cleanly_at_each_call);
	tcase_add_test(tc, reading_fails_cleanly_at_each_call);
	tcase_add_test(tc, tables_merge);
	tcase_add_test(tc, threads_read_one_table);
	suite_add_tcase(suite, tc);
	return check_run(suite);
}
