/* SPDX-License-Identifier: MPL-2.0 */
/* sst_bench.c - see sst_bench.h. */
#include "tests/unit/4-lsm/sst_bench.h"

/* ---- A log store ---- */

struct sst_world *sst_world_new(void)
{
	static const uint8_t key[MLS_KEY_BYTES] = { 1, 2, 3 }, uuid[MLS_UUID_BYTES] = { 4, 5, 6 };
	static const uint8_t session[MLS_SESSION_BYTES] = { 7, 8, 9 };
	uint64_t area_blocks = mls_journal_area_blocks(SST_NR_RUNS);
	uint64_t base_hba = MLS_JOURNAL_HBA + 2 * area_blocks;
	struct sst_world *w = calloc(1, sizeof *w);

	ck_assert_ptr_nonnull(w);
	ck_assert_int_eq(mls_block_dev_mem_new(&w->disk, base_hba + SST_NR_RUNS * SST_RUN_BLOCKS), 0);
	w->dev = fault_dev_new(w->disk, FAULT_ALL);
	ck_assert_ptr_nonnull(w->dev);
	ck_assert_int_eq(mls_keyring_new(&w->keys, key, uuid), 0);
	ck_assert_int_eq(mls_chunk_alloc_new(&w->alloc, base_hba, SST_RUN_BLOCKS, SST_NR_RUNS), 0);
	ck_assert_int_eq(mls_journal_new(&w->journal, &w->dev->base, w->keys, MLS_JOURNAL_HBA, area_blocks), 0);
	ck_assert_int_eq(mls_tx_store_new(&w->store, &w->dev->base, w->alloc, w->keys, w->journal), 0);
	ck_assert_int_eq(mls_journal_start(w->journal, session), 0);
	return w;
}

void sst_world_free(struct sst_world *w)
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

struct mls_index_rec sst_rec(uint64_t lba, unsigned age)
{
	struct mls_index_rec rec = { .lba = lba, .hba = lba % 11 == 3 ? MLS_HBA_NONE : lba * 100 + age };

	for (unsigned i = 0; i < sizeof rec.tag; i++)
		rec.tag[i] = (uint8_t)(lba >> i % 4 * 8) ^ (uint8_t)(i + age);
	return rec;
}

bool sst_is_rec(const struct mls_index_rec *rec, uint64_t lba, unsigned age)
{
	struct mls_index_rec expected = sst_rec(lba, age);

	return rec->lba == lba && rec->hba == expected.hba &&
	       memcmp(rec->tag, expected.tag, sizeof rec->tag) == 0;
}

int sst_build_cached(struct sst_world *w, struct mls_block_cache *cache, uint64_t first, uint64_t step, uint64_t nr,
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
		struct mls_index_rec rec = sst_rec(first + i * step, age);

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

int sst_build(struct sst_world *w, uint64_t first, uint64_t step, uint64_t nr, unsigned age,
	      struct mls_sst_info *info)
{
	return sst_build_cached(w, NULL, first, step, nr, age, info);
}

struct mls_sst *sst_open(struct sst_world *w, struct mls_block_cache *cache, const struct mls_sst_info *info)
{
	struct mls_sst *sst;

	ck_assert_int_eq(mls_sst_open(&sst, w->store, cache, info), 0);
	return sst;
}

struct mls_sst *sst_new(struct sst_world *w, struct mls_block_cache *cache, uint64_t first, uint64_t step,
			uint64_t nr)
{
	struct mls_sst_info info;

	ck_assert_int_eq(sst_build(w, first, step, nr, 0, &info), 0);
	ck_assert_uint_eq(info.nr_records, nr);
	ck_assert_uint_eq(info.min_lba, first);
	ck_assert_uint_eq(info.max_lba, first + (nr - 1) * step);
	return sst_open(w, cache, &info);
}

struct mls_block_cache *sst_cache(uint64_t nr_blocks)
{
	struct mls_block_cache *cache;

	ck_assert_int_eq(mls_block_cache_new(&cache, nr_blocks * MLS_BLOCK_BYTES), 0);
	return cache;
}

/* ---- Checks against the model: record iff lba = first + k * step, k < nr ---- */

bool sst_model_has(const struct sst_model *m, uint64_t lba)
{
	return lba >= m->first && (lba - m->first) % m->step == 0 && (lba - m->first) / m->step < m->nr;
}

void sst_check_range(struct mls_sst *sst, const struct sst_model *m, uint64_t lba, size_t nr, struct test_rand *rand)
{
	struct mls_index_rec *recs = calloc(nr ? nr : 1, sizeof *recs);
	bool *was_found = calloc(nr ? nr : 1, sizeof *was_found);
	size_t nr_missing = nr, nr_expected = nr;

	mls_lookup_init(recs, nr);
	for (size_t i = 0; i < nr; i++) {
		was_found[i] = rand && test_rand_chance(rand, 1, 3);
		if (was_found[i]) {
			recs[i] = sst_rec(lba + i, 9);
			nr_missing--;
			nr_expected--;
		}
		if (!was_found[i] && sst_model_has(m, lba + i))
			nr_expected--;
	}
	ck_assert_int_eq(mls_sst_get_range(sst, lba, nr, recs, &nr_missing), 0);
	ck_assert_uint_eq(nr_missing, nr_expected);
	for (size_t i = 0; i < nr; i++)
		if (was_found[i])
			must(sst_is_rec(&recs[i], lba + i, 9));
		else if (sst_model_has(m, lba + i))
			must(sst_is_rec(&recs[i], lba + i, 0));
		else
			must(recs[i].lba == MLS_LBA_NONE);
	free(was_found);
	free(recs);
}

void sst_check_each(struct mls_sst *sst, const struct sst_model *m, struct test_rand *rand)
{
	struct mls_index_rec recs[90];
	bool was_found[90];
	size_t nr_missing = 0, nr_expected = 0;
	uint64_t lba = m->first - test_rand_below(rand, m->first < 20 ? m->first + 1 : 20);

	for (size_t i = 0; i < 90; i++) {
		was_found[i] = test_rand_chance(rand, 1, 4);
		recs[i] = was_found[i] ? sst_rec(lba, 9) :
					 (struct mls_index_rec){ .lba = lba, .hba = MLS_HBA_MISSING };
		nr_missing += !was_found[i];
		nr_expected += !was_found[i] && !sst_model_has(m, lba);
		lba += test_rand_chance(rand, 1, 8) ? m->nr * m->step / 16 : test_rand_below(rand, m->step + 2);
	}
	ck_assert_int_eq(mls_sst_get_each(sst, recs, 90, &nr_missing), 0);
	ck_assert_uint_eq(nr_missing, nr_expected);
	for (size_t i = 0; i < 90; i++)
		if (was_found[i])
			must(sst_is_rec(&recs[i], recs[i].lba, 9));
		else if (sst_model_has(m, recs[i].lba))
			must(sst_is_rec(&recs[i], recs[i].lba, 0));
		else
			must(recs[i].hba == MLS_HBA_MISSING);
}

void sst_check_next(struct mls_sst *sst, const struct sst_model *m, uint64_t lba)
{
	uint64_t max = m->first + (m->nr - 1) * m->step;
	uint64_t behind = lba <= m->first ? 0 : (lba - m->first + m->step - 1) / m->step * m->step;
	struct mls_index_rec rec;

	if (lba > max) {
		ck_assert_int_eq(mls_sst_next(sst, lba, &rec), MLS_ENOENT);
		return;
	}
	must(mls_sst_next(sst, lba, &rec) == 0);
	must(sst_is_rec(&rec, m->first + behind, 0));
}

void sst_check_iter(struct mls_sst *sst, const struct sst_model *m, uint64_t lba, uint32_t ahead_blocks)
{
	struct mls_sst_iter *iter;
	struct mls_index_rec rec;
	uint64_t k = lba <= m->first ? 0 : (lba - m->first + m->step - 1) / m->step;

	ck_assert_int_eq(mls_sst_iter_new(&iter, sst, lba, ahead_blocks), 0);
	for (; k < m->nr; k++) {
		must(mls_sst_iter_next(iter, &rec) == 0);
		must(sst_is_rec(&rec, m->first + k * m->step, 0));
	}
	ck_assert_int_eq(mls_sst_iter_next(iter, &rec), MLS_ENOENT);
	ck_assert_int_eq(mls_sst_iter_next(iter, &rec), MLS_ENOENT);
	mls_sst_iter_free(iter);
}

void sst_check_skip(struct mls_sst *sst, const struct sst_model *m, uint64_t stride, uint32_t ahead_blocks)
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
			must(sst_is_rec(&rec, m->first + next * m->step, 0));
		}
	}
	mls_sst_iter_skip(iter, max + 1);
	ck_assert_int_eq(mls_sst_iter_next(iter, &rec), MLS_ENOENT);
	mls_sst_iter_free(iter);
}
