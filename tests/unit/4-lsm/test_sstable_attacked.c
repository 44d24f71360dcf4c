/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_sstable_attacked.c - an error, never a wrong record, when what was sealed well says what can't be, and when the
 * host changes or fails what lies below.
 */
#include "tests/unit/4-lsm/sst_bench.h"

#include "base/buf.h"
#include "tests/lib/check_run.h"
#include "tests/lib/tamper.h"
#include "tests/lib/test_log.h"

/* ---- Authentic, but malformed ---- */

enum { NR = 127 * 2 + 50, NR_BLOCKS = 5 };	/* 3 record blocks, index, footer */

/* The table of LBAs 10, 11, ... as bytes, in blocks. */
static void encode_table(uint8_t *blocks)
{
	struct mls_sst_footer_disk *footer = (void *)mls_block_at(blocks, 4);

	memset(blocks, 0, NR_BLOCKS * MLS_BLOCK_BYTES);
	for (unsigned i = 0; i < NR; i++) {
		struct mls_sst_block_disk *block = (void *)mls_block_at(blocks, i / 127);
		struct mls_index_rec rec = sst_rec(10 + i, 0);

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
static int try_table(struct sst_world *w, uint8_t *blocks, uint32_t nr_blocks, struct mls_sst_info info)
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
			must(recs[i].lba == MLS_LBA_NONE || sst_is_rec(&recs[i], i, 0));
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
	struct sst_world *w = sst_world_new();
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
	sst_world_free(w);
}
END_TEST

/* ---- Tampering ---- */

struct place {
	uint64_t id, hbas[SST_NR_RUNS];
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
static bool notices(struct sst_world *w, const struct mls_sst_info *info, const struct sst_model *m)
{
	struct mls_block_cache *cache = sst_cache(64);
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
			must(recs[i].lba == MLS_LBA_NONE ? err || !sst_model_has(m, lba + i) :
								sst_is_rec(&recs[i], lba + i, 0));
	}
	ck_assert_int_eq(mls_sst_iter_new(&iter, sst, 0, 2), 0);
	while (!(err = mls_sst_iter_next(iter, &rec)))
		must(sst_is_rec(&rec, m->first + k++ * m->step, 0));
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
	struct sst_world *w = sst_world_new();
	struct sst_model m = { 3, 2, 127 * 70 + 20 };
	struct mls_sst_info info;
	struct place place = { 0 };
	unsigned nr_noticed = 0;

	mls_set_logger(test_log_quiet, NULL);
	ck_assert_int_eq(sst_build(w, m.first, m.step, m.nr, 0, &info), 0);
	place.id = info.log_id;
	ck_assert_int_eq(mls_tx_store_list(w->store, -1, note_place, &place), 1);
	for (unsigned i = 0; i < place.nr * SST_RUN_BLOCKS; i++) {
		uint64_t hba = place.hbas[i / SST_RUN_BLOCKS] + i % SST_RUN_BLOCKS;
		uint32_t bit = i * 9973 % (8 * MLS_BLOCK_BYTES);

		tamper_flip_bit(w->disk, hba, bit);
		nr_noticed += notices(w, &info, &m);
		tamper_flip_bit(w->disk, hba, bit);
		ck_assert(!notices(w, &info, &m));
	}
	/* Each block of the log, nodes included; the rest of the runs doesn't belong to it. */
	ck_assert_uint_eq(nr_noticed, mls_crypto_log_total_blocks(mls_sst_nr_blocks(m.nr)));
	mls_set_logger(NULL, NULL);
	sst_world_free(w);
}
END_TEST

START_TEST(swapped_blocks_are_noticed)
{
	struct sst_world *w = sst_world_new();
	struct sst_model m = { 3, 2, 127 * 20 };
	struct mls_sst_info info[2];
	struct place place[2] = { 0 };

	mls_set_logger(test_log_quiet, NULL);
	for (unsigned i = 0; i < 2; i++) {
		ck_assert_int_eq(sst_build(w, m.first, m.step, m.nr, 0, &info[i]), 0);
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
	sst_world_free(w);
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
			struct sst_world *w = sst_world_new();
			struct sst_model m = { 0, 1, 127 * 150 };
			struct mls_sst *old = sst_new(w, NULL, 7, 1, 500);
			struct mls_sst_info info = { 0 };

			fault_dev_arm(w->dev, n, MLS_EIO, sticky);
			err = sst_build(w, m.first, m.step, m.nr, 0, &info);
			ck_assert_int_eq(err, w->dev->fired ? MLS_EIO : 0);
			fault_dev_arm(w->dev, 0, 0, false);
			sst_check_iter(old, &(struct sst_model){ 7, 1, 500 }, 0, 0);
			mls_sst_put(old);
			if (!err) {
				struct mls_sst *sst = sst_open(w, NULL, &info);

				sst_check_iter(sst, &m, 0, 0);
				mls_sst_put(sst);
			}
			sst_world_free(w);
			ck_assert_uint_lt(n, 5000);
		}
	}
	mls_set_logger(NULL, NULL);
}
END_TEST

/* Goal: each failed read comes out as MLS_EIO, and what was read right is kept; the next try works. */
START_TEST(reading_fails_cleanly_at_each_call)
{
	struct sst_world *w = sst_world_new();
	struct sst_model m = { 0, 1, 127 * 40 + 1 };
	struct mls_index_rec *recs = calloc(m.nr, sizeof *recs), rec;
	struct mls_sst_info info;
	int err = MLS_EIO;

	mls_set_logger(test_log_quiet, NULL);
	ck_assert_int_eq(sst_build(w, m.first, m.step, m.nr, 0, &info), 0);
	for (unsigned n = 1; err; n++) {
		struct mls_block_cache *cache = sst_cache(20);
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
			must(sst_is_rec(&recs[i], i, 0));
		if (!err) {
			ck_assert_uint_eq(nr_missing, 0);
			ck_assert_int_eq(mls_sst_iter_new(&iter, sst, 0, 5), 0);
			while (!(err = mls_sst_iter_next(iter, &rec)))
				must(sst_is_rec(&rec, k++, 0));
			err = err == MLS_ENOENT && k == m.nr ? 0 : err;
		}
		ck_assert_int_eq(err, w->dev->fired ? MLS_EIO : 0);
		fault_dev_arm(w->dev, 0, 0, false);
		if (sst)
			sst_check_range(sst, &m, 0, m.nr, NULL);
		while (iter && !mls_sst_iter_next(iter, &rec))	/* after the error, too */
			must(sst_is_rec(&rec, k++, 0));
		ck_assert(!iter || k == m.nr);
		mls_sst_iter_free(iter);
		mls_sst_put(sst);
		mls_block_cache_free(cache);
		ck_assert_uint_lt(n, 5000);
	}
	mls_set_logger(NULL, NULL);
	free(recs);
	sst_world_free(w);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("sstable attacked");
	TCase *tc = tcase_create("all");

	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, a_malformed_table_is_refused);
	tcase_add_test(tc, tampering_is_noticed);
	tcase_add_test(tc, swapped_blocks_are_noticed);
	tcase_add_test(tc, building_fails_cleanly_at_each_call);
	tcase_add_test(tc, reading_fails_cleanly_at_each_call);
	suite_add_tcase(suite, tc);
	return check_run(suite);
}
