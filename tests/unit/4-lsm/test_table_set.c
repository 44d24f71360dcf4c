/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_table_set.c - single LBAs looked up in many tables, with their blocks read together: the same answers, also when
 * reads fail, and none that isn't true.
 */
#include "4-lsm/table_set.h"
#include "tests/unit/4-lsm/sst_bench.h"

#include "tests/lib/check_run.h"
#include "tests/lib/tamper.h"
#include "tests/lib/test_log.h"

#define NR_TABLES 4u
#define NR_RECS 90u

/* One of level 0 over three of level 1 that lie one behind the other, with a gap before the last. */
static const struct sst_model models[NR_TABLES] = {
	{ 500, 7, 127 * 9 + 5 }, { 10, 2, 127 * 20 }, { 6000, 1, 127 * 15 + 1 }, { 9000, 3, 127 * 8 },
};

struct bench {
	struct sst_world *w;
	struct mls_block_cache *cache;
	struct mls_sst_info infos[NR_TABLES];
	struct mls_table_set *set;
};

static void bench_open(struct bench *b, uint64_t cache_blocks)
{
	struct mls_table tables[NR_TABLES];

	b->cache = sst_cache(cache_blocks);
	for (unsigned i = 0; i < NR_TABLES; i++)
		tables[i] = (struct mls_table){ .sst = sst_open(b->w, b->cache, &b->infos[i]),
						.meta = { .info = b->infos[i], .level = i > 0 } };
	ck_assert_int_eq(mls_table_set_new(&b->set, NULL, NULL, 0, tables, NR_TABLES), 0);
	for (unsigned i = 0; i < NR_TABLES; i++)
		mls_sst_put(tables[i].sst);
}

static void bench_close(struct bench *b)
{
	mls_table_set_put(b->set);
	mls_block_cache_free(b->cache);
}

static void bench_new(struct bench *b)
{
	b->w = sst_world_new();
	for (unsigned i = 0; i < NR_TABLES; i++)
		ck_assert_int_eq(sst_build(b->w, models[i].first, models[i].step, models[i].nr, i, &b->infos[i]), 0);
}

/* Ascending, some twice, some found before (age 9); now close together, now far apart. Returns how many are missing. */
static size_t ask(struct test_rand *rand, struct mls_index_rec *recs)
{
	uint64_t lba = test_rand_below(rand, 200), stride = test_rand_between(rand, 2, 300);
	size_t nr_missing = 0;

	for (unsigned i = 0; i < NR_RECS; i++) {
		bool found = test_rand_chance(rand, 1, 5);

		recs[i] = found ? sst_rec(lba, 9) : (struct mls_index_rec){ .lba = lba, .hba = MLS_HBA_MISSING };
		nr_missing += !found;
		lba += test_rand_below(rand, stride);
	}
	return nr_missing;
}

/* The newest table's that has it. */
static bool is_right(const struct mls_index_rec *rec, bool was_found)
{
	if (was_found)
		return sst_is_rec(rec, rec->lba, 9);
	for (unsigned i = 0; i < NR_TABLES; i++)
		if (sst_model_has(&models[i], rec->lba))
			return sst_is_rec(rec, rec->lba, i);
	return rec->hba == MLS_HBA_MISSING;
}

static int look_up(struct bench *b, struct test_rand *rand)
{
	struct mls_index_rec asked[NR_RECS], recs[NR_RECS];
	size_t nr_missing = ask(rand, asked), nr_left = 0;
	int err;

	memcpy(recs, asked, sizeof recs);
	err = mls_table_set_get_each(b->set, recs, NR_RECS, true, &nr_missing);
	for (unsigned i = 0; i < NR_RECS; i++) {
		bool untouched = recs[i].hba == MLS_HBA_MISSING && asked[i].hba == MLS_HBA_MISSING;

		must(is_right(&recs[i], asked[i].hba != MLS_HBA_MISSING) || (err && untouched));
		nr_left += recs[i].hba == MLS_HBA_MISSING;
	}
	ck_assert_uint_eq(nr_left, nr_missing);
	return err;
}

START_TEST(any_lbas_with_any_cache)
{
	static const uint64_t cache_sizes[] = { 0, 1, 8, 100, 1000 };
	struct test_rand rand;
	struct bench b;

	test_rand_seed(&rand, 3);
	bench_new(&b);
	for (unsigned i = 0; i < sizeof cache_sizes / sizeof *cache_sizes; i++) {
		bench_open(&b, cache_sizes[i]);
		for (unsigned n = 0; n < 100; n++)
			ck_assert_int_eq(look_up(&b, &rand), 0);
		bench_close(&b);
	}
	sst_world_free(b.w);
}
END_TEST

/* Each block is read once, and none that nobody asked for. */
START_TEST(a_block_is_read_once)
{
	struct mls_index_rec recs[NR_RECS];
	struct mls_block_cache_stat stat;
	size_t nr_missing = NR_RECS;
	struct bench b;

	bench_new(&b);
	bench_open(&b, 1000);
	for (unsigned i = 0; i < NR_RECS; i++)		/* of the second table's first ten blocks, before the first table begins */
		recs[i] = (struct mls_index_rec){ .lba = 10 + (uint64_t)i * 5, .hba = MLS_HBA_MISSING };
	fault_dev_arm(b.w->dev, 0, 0, false);
	ck_assert_int_eq(mls_table_set_get_each(b.set, recs, NR_RECS, true, &nr_missing), 0);
	mls_block_cache_stat(b.cache, &stat);
	ck_assert_uint_eq(stat.misses, recs[NR_RECS - 1].lba / (2 * 127) + 1);
	ck_assert_uint_eq(b.w->dev->op_count, stat.misses);	/* the tree's node has been read by open */
	bench_close(&b);
	sst_world_free(b.w);
}
END_TEST

/* What can't be read together is read alone; only if that fails, too, the lookup does. */
START_TEST(failing_reads_are_tried_alone)
{
	struct test_rand rand;
	unsigned nr_failed = 0;
	struct bench b;

	mls_set_logger(test_log_quiet, NULL);
	bench_new(&b);
	for (uint64_t n = 1; n < 60; n++) {
		bench_open(&b, 1000);
		test_rand_seed(&rand, n);
		fault_dev_arm(b.w->dev, n, MLS_EIO, false);
		ck_assert_int_eq(look_up(&b, &rand), 0);
		test_rand_seed(&rand, n + 1000);
		fault_dev_arm(b.w->dev, n, MLS_EIO, true);
		nr_failed += look_up(&b, &rand) == MLS_EIO;
		fault_dev_arm(b.w->dev, 0, 0, false);
		ck_assert_int_eq(look_up(&b, &rand), 0);
		bench_close(&b);
	}
	ck_assert_uint_gt(nr_failed, 0);
	mls_set_logger(NULL, NULL);
	sst_world_free(b.w);
}
END_TEST

static int note_first_hba(void *hba, const struct mls_log_info *info)
{
	*(uint64_t *)hba = info->chunk_hbas[0];
	return 1;
}

START_TEST(tampering_gives_no_wrong_record)
{
	uint64_t first = 0;
	unsigned nr_noticed = 0;
	struct test_rand rand;
	struct bench b;

	mls_set_logger(test_log_quiet, NULL);
	bench_new(&b);
	ck_assert_int_eq(mls_tx_store_list(b.w->store, 3, note_first_hba, &first), 1);
	for (unsigned i = 0; i < 200; i++) {
		bench_open(&b, 1000);
		test_rand_seed(&rand, i);
		tamper_flip_bit(b.w->disk, first + i % 60, i * 997 % (8 * MLS_BLOCK_BYTES));
		nr_noticed += look_up(&b, &rand) == MLS_EAUTH;
		tamper_flip_bit(b.w->disk, first + i % 60, i * 997 % (8 * MLS_BLOCK_BYTES));
		ck_assert_int_eq(look_up(&b, &rand), 0);
		bench_close(&b);
	}
	ck_assert_uint_gt(nr_noticed, 0);
	mls_set_logger(NULL, NULL);
	sst_world_free(b.w);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("table set");
	TCase *tc = tcase_create("table set");

	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, any_lbas_with_any_cache);
	tcase_add_test(tc, a_block_is_read_once);
	tcase_add_test(tc, failing_reads_are_tried_alone);
	tcase_add_test(tc, tampering_gives_no_wrong_record);
	suite_add_tcase(suite, tc);
	return check_run(suite);
}
