/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_lsm_tree.c - the index against a model map: puts, syncs, reopening with and without the last
 * one, space pressure; and in each case the listener's counts against a full scan.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "tests/lib/check_run.h"
#include "tests/lib/crash_dev.h"
#include "tests/lib/test_log.h"
#include "tests/lib/test_rand.h"
#include "tests/unit/4-lsm/tree_bench.h"

static struct tree_world *world;
static struct mls_block_dev *dev;

static void setup(void)
{
	world = tree_world_new();
	ck_assert_int_eq(mls_block_dev_mem_new(&dev, TREE_DEV_BLOCKS), 0);
	tree_format(world, dev);
}

static void teardown(void)
{
	mls_block_dev_destroy(dev);
	free(world);
}

static void check_all(struct tree_bench *b)
{
	tree_check(b);
	tree_check_counts(b);
}

static void put_random(struct tree_bench *b, struct test_rand *r, uint64_t end)
{
	uint64_t nr = test_rand_between(r, 1, 12), lba = test_rand_below(r, end - nr + 1);

	ck_assert_int_eq(tree_put(b, lba, nr, test_rand_chance(r, 5, 6)), 0);
}

/* ---- Cases ---- */

START_TEST(empty)
{
	struct tree_bench *b = tree_open_ok(world, dev, &tree_inline_opts);
	struct mls_index_rec rec;
	uint64_t found;
	bool progress = true;

	check_all(b);
	ck_assert(!mls_lsm_dirty(b->lsm));
	ck_assert_int_eq(mls_lsm_next_mapped(b->lsm, 0, UINT64_MAX - 1, &found), MLS_ENOENT);
	ck_assert_int_eq(mls_lsm_get(b->lsm, UINT64_MAX - 1, 2, &rec), MLS_EINVAL);
	ck_assert_int_eq(mls_lsm_compact_all(b->lsm, &progress), 0);
	ck_assert(!progress);
	tree_close(b);
}
END_TEST

START_TEST(what_is_synced_stays_and_nothing_else)
{
	struct tree_bench *b = tree_open_ok(world, dev, &tree_inline_opts);

	ck_assert_int_eq(tree_put(b, 3, 5, true), 0);
	ck_assert(mls_lsm_dirty(b->lsm));
	ck_assert_int_eq(tree_sync(b), 0);
	ck_assert(!mls_lsm_dirty(b->lsm));
	ck_assert_int_eq(tree_put(b, 4, 2, true), 0);
	ck_assert_int_eq(tree_put(b, 7, 1, false), 0);
	ck_assert_int_eq(tree_put(b, 100, 1, true), 0);
	check_all(b);
	tree_close(b);

	b = tree_open_ok(world, dev, &tree_inline_opts);
	check_all(b);
	ck_assert_uint_ne(world->now[4], 0);
	ck_assert_uint_eq(world->now[100], 0);
	ck_assert_uint_eq(b->nr_announced, 1);
	tree_close(b);
}
END_TEST

/* A long run: every so often reopened, with what wasn't synced dropped. */
static void run_random(uint64_t seed, unsigned nr_steps, unsigned sync_in, uint64_t end)
{
	struct tree_bench *b = tree_open_ok(world, dev, &tree_inline_opts);
	struct test_rand r;

	test_rand_seed(&r, seed);
	for (unsigned i = 0; i < nr_steps; i++) {
		put_random(b, &r, end);
		if (test_rand_chance(&r, 1, sync_in))
			ck_assert_int_eq(tree_sync(b), 0);
		if (i % 16 == 0)
			check_all(b);
		if (test_rand_chance(&r, 1, 60)) {
			tree_close(b);
			b = tree_open_ok(world, dev, &tree_inline_opts);
			check_all(b);
		}
	}
	check_all(b);
	tree_close(b);
}

START_TEST(random_with_many_syncs)
{
	run_random(1, 1200, 3, TREE_DISK_BLOCKS);
}
END_TEST

START_TEST(random_with_few_syncs)
{
	run_random(2, 1500, 70, TREE_DISK_BLOCKS);
}
END_TEST

START_TEST(random_on_few_blocks)
{
	run_random(3, 1500, 5, 30);
}
END_TEST

START_TEST(unsynced_data_outgrows_the_memtable_many_times)
{
	struct tree_bench *b = tree_open_ok(world, dev, &tree_inline_opts);
	struct mls_lsm_stat stat;

	ck_assert_int_eq(tree_put(b, 0, TREE_DISK_BLOCKS, true), 0);
	ck_assert_int_eq(tree_sync(b), 0);
	for (unsigned i = 0; i < 4; i++) {
		ck_assert_int_eq(tree_put(b, 0, TREE_DISK_BLOCKS, i % 2 == 0), 0);
		check_all(b);
	}
	mls_lsm_stat(b->lsm, &stat);
	ck_assert_uint_gt(stat.flushes, 40);
	ck_assert_uint_le(stat.level_tables[0], 4 + 8 + 1);
	tree_close(b);

	b = tree_open_ok(world, dev, &tree_inline_opts);
	check_all(b);
	ck_assert_uint_ne(world->now[0], 0);
	tree_close(b);
}
END_TEST

START_TEST(sync_after_flushes_needs_few_records)
{
	struct tree_bench *b = tree_open_ok(world, dev, &tree_inline_opts);
	struct mls_lsm_cut cut;

	ck_assert_int_eq(tree_put(b, 0, 200, true), 0);
	ck_assert_int_eq(mls_lsm_cut(b->lsm, &cut), 0);
	ck_assert_uint_le(cut.nr_records, 50);
	mls_lsm_abandon(b->lsm, &cut);
	ck_assert_int_eq(tree_put(b, 0, 1, true), MLS_EPOISONED);
	memcpy(world->closing, world->synced, sizeof world->closing);
	tree_close(b);
	b = tree_open_ok(world, dev, &tree_inline_opts);
	check_all(b);
	tree_close(b);
}
END_TEST

/* Puts between cut and commit belong to the next sync. */
START_TEST(puts_during_a_sync)
{
	struct tree_bench *b = tree_open_ok(world, dev, &tree_inline_opts);
	struct mls_lsm_cut cut;

	for (unsigned round = 0; round < 30; round++) {
		ck_assert_int_eq(tree_put(b, round, 20, true), 0);
		memcpy(world->closing, world->now, sizeof world->now);
		ck_assert_int_eq(mls_lsm_cut(b->lsm, &cut), 0);
		ck_assert_int_eq(tree_put(b, round + 10, 70, round % 3 != 0), 0);
		ck_assert_int_eq(mls_lsm_wal_write(b->lsm, &cut, NULL, 0, 1, 0), 0);
		ck_assert_int_eq(tree_put(b, round + 5, 10, true), 0);
		check_all(b);
		world->sync_id = cut.sync_id;
		memcpy(world->digest, cut.digest, sizeof world->digest);
		memcpy(world->synced, world->closing, sizeof world->synced);
		mls_lsm_commit(b->lsm, &cut);
		check_all(b);
		if (round % 4 == 3) {
			tree_close(b);
			b = tree_open_ok(world, dev, &tree_inline_opts);
			check_all(b);
		}
	}
	tree_close(b);
}
END_TEST

/* A sync whose group is on the medium, but not in the register: may be taken or given up. */
START_TEST(the_last_group_is_accepted_or_given_up)
{
	for (unsigned round = 0; round < 20; round++) {
		struct tree_bench *b = tree_open_ok(world, dev, &tree_inline_opts);
		struct mls_lsm_cut cut;
		uint64_t sync_id;

		ck_assert_int_eq(tree_put(b, round * 3, 30 + 7 * round, round % 5 != 0), 0);
		memcpy(world->closing, world->now, sizeof world->now);
		ck_assert_int_eq(mls_lsm_cut(b->lsm, &cut), 0);
		ck_assert_int_eq(mls_lsm_wal_write(b->lsm, &cut, NULL, 0, 1, 0), 0);
		sync_id = cut.sync_id;
		tree_close(b);

		world->reject_last = round % 2;
		b = tree_open_ok(world, dev, &tree_inline_opts);
		ck_assert(world->took_last == !world->reject_last);
		ck_assert_uint_eq(world->sync_id, sync_id + world->took_last);
		check_all(b);
		tree_close(b);
	}
}
END_TEST

START_TEST(compact_all_leaves_one_record_of_each_lba)
{
	struct tree_bench *b = tree_open_ok(world, dev, &tree_inline_opts);
	struct test_rand r;
	struct mls_lsm_stat stat;
	unsigned nr_mapped = 0;
	bool progress = false;

	test_rand_seed(&r, 7);
	for (unsigned i = 0; i < 800; i++) {
		put_random(b, &r, TREE_DISK_BLOCKS);
		if (i % 50 == 0)
			ck_assert_int_eq(tree_sync(b), 0);
	}
	ck_assert_int_eq(tree_sync(b), 0);
	ck_assert_int_eq(mls_lsm_compact_all(b->lsm, &progress), 0);
	ck_assert(progress);
	check_all(b);
	for (unsigned lba = 0; lba < TREE_DISK_BLOCKS; lba++)
		nr_mapped += world->now[lba] != MLS_HBA_NONE;
	mls_lsm_stat(b->lsm, &stat);
	ck_assert_uint_eq(stat.memtable_records + stat.frozen_records, 0);
	ck_assert_uint_eq(stat.nr_table_records, nr_mapped);

	ck_assert_int_eq(mls_lsm_compact_all(b->lsm, &progress), 0);
	ck_assert(!progress);

	/* All discarded: nothing is left at all. */
	ck_assert_int_eq(tree_put(b, 0, TREE_DISK_BLOCKS, false), 0);
	ck_assert_int_eq(tree_sync(b), 0);
	ck_assert_int_eq(mls_lsm_compact_all(b->lsm, &progress), 0);
	mls_lsm_stat(b->lsm, &stat);
	ck_assert_uint_eq(stat.nr_tables, 0);
	ck_assert_uint_eq(mls_chunk_alloc_nr_free(b->alloc), TREE_NR_RUNS);
	check_all(b);
	tree_close(b);
	b = tree_open_ok(world, dev, &tree_inline_opts);
	check_all(b);
	tree_close(b);
}
END_TEST

/* Unsynced overwrites must not cost a synced version, however often space is asked for. */
START_TEST(compact_all_spares_what_is_synced)
{
	struct tree_bench *b = tree_open_ok(world, dev, &tree_inline_opts);
	bool progress;

	ck_assert_int_eq(tree_put(b, 0, 300, true), 0);
	ck_assert_int_eq(tree_sync(b), 0);
	ck_assert_int_eq(tree_put(b, 0, 300, true), 0);
	ck_assert_int_eq(tree_put(b, 100, 50, false), 0);
	ck_assert_int_eq(mls_lsm_compact_all(b->lsm, &progress), 0);
	check_all(b);
	tree_close(b);
	b = tree_open_ok(world, dev, &tree_inline_opts);
	check_all(b);
	tree_close(b);
}
END_TEST

START_TEST(move_only_what_is_still_there)
{
	struct tree_bench *b = tree_open_ok(world, dev, &tree_inline_opts);
	struct mls_index_rec first = tree_rec(400, world->next_hba++);
	bool first_moved;

	/* From nowhere: only while nothing is there. */
	ck_assert_int_eq(mls_lsm_move(b->lsm, &first, MLS_HBA_NONE, &first_moved), 0);
	ck_assert(first_moved);
	world->now[400] = first.hba;
	first = tree_rec(400, world->next_hba++);
	ck_assert_int_eq(mls_lsm_move(b->lsm, &first, MLS_HBA_NONE, &first_moved), 0);
	ck_assert(!first_moved);
	for (unsigned lba = 0; lba < 300; lba++) {
		uint64_t old_hba, new_hba, view = mls_lsm_view(b->lsm);
		struct mls_index_rec rec;
		size_t nr_moved;

		ck_assert_int_eq(tree_put(b, lba, 1, true), 0);
		if (lba % 20 == 0)
			ck_assert_int_eq(tree_sync(b), 0);
		if (lba < 60)
			continue;
		old_hba = world->now[lba - 60];
		new_hba = world->next_hba++;
		rec = tree_rec(lba - 60, new_hba);
		if (lba % 2)
			ck_assert_int_eq(tree_put(b, lba - 60, 1, lba % 4 == 1), 0);
		else
			world->now[lba - 60] = new_hba;
		ck_assert_int_eq(mls_lsm_move_each(b->lsm, &rec, &old_hba, 1, view, &nr_moved), 0);
		ck_assert_uint_eq(nr_moved, lba % 2 == 0);
		check_all(b);
	}
	tree_close(b);
}
END_TEST

/* Many at once, some of them twice, some of them moved before, with flushes between look and move. */
START_TEST(move_many)
{
	struct tree_bench *b = tree_open_ok(world, dev, &tree_inline_opts);
	struct mls_index_rec recs[40], moves[40];
	uint64_t olds[40], view;
	size_t nr_moved, nr_expected;

	for (unsigned round = 0; round < 30; round++) {
		ck_assert_int_eq(tree_put(b, 0, 200, true), 0);
		if (round % 3 == 0)
			ck_assert_int_eq(tree_sync(b), 0);
		nr_expected = 0;
		view = mls_lsm_view(b->lsm);
		for (unsigned i = 0; i < 40; i++)
			recs[i].lba = (uint64_t)i * (round % 5 + 1);
		ck_assert_int_eq(mls_lsm_get_each(b->lsm, recs, 40), 0);
		if (round % 2)
			ck_assert_int_eq(tree_put(b, 0, 100, true), 0);
		for (unsigned i = 0; i < 40; i++) {
			olds[i] = recs[i].hba;
			moves[i] = tree_rec(recs[i].lba, world->next_hba++);
			if (world->now[recs[i].lba] == olds[i]) {
				world->now[recs[i].lba] = moves[i].hba;
				nr_expected++;
			}
		}
		ck_assert_int_eq(mls_lsm_move_each(b->lsm, moves, olds, 40, view, &nr_moved), 0);
		ck_assert_uint_eq(nr_moved, nr_expected);
		check_all(b);
	}
	tree_close(b);
}
END_TEST

/* What is told to be hidden is (the bench looks at each), between and in compactions. */
START_TEST(hidden_records_are_told)
{
	struct tree_bench *b = tree_open_ok(world, dev, &tree_inline_opts);

	for (unsigned i = 0; i < 120; i++) {
		ck_assert_int_eq(tree_put(b, i * 37 % 250, 1 + i % 40, i % 11 != 0), 0);
		if (i % 5 == 0)
			ck_assert_int_eq(tree_sync(b), 0);
		if (i % 7 == 0)
			ck_assert_int_eq(mls_lsm_tell_shadowed(b->lsm), 0);
	}
	ck_assert_uint_gt(b->nr_hidden, 500);
	check_all(b);
	tree_close(b);
}
END_TEST

/* Without a run for the flush: clean refusals, reads go on; then it goes on as if nothing happened. */
START_TEST(no_space_is_not_the_end)
{
	struct tree_bench *b = tree_open_ok(world, dev, &tree_inline_opts);
	uint64_t runs[TREE_NR_RUNS], nr = 0;
	int err = 0;

	ck_assert_int_eq(tree_put(b, 0, 200, true), 0);
	ck_assert_int_eq(tree_sync(b), 0);
	while (mls_chunk_alloc_take(b->alloc, MLS_RUN_INDEX, &runs[nr]) == 0)
		nr++;
	for (unsigned i = 0; !err && i < 200; i++)
		err = tree_put(b, i, 1, true);
	ck_assert_int_eq(err, MLS_ENOSPC);
	check_all(b);
	ck_assert_int_eq(tree_put(b, 400, 1, true), MLS_ENOSPC);
	ck_assert_int_eq(tree_sync(b), 0);
	check_all(b);
	while (nr)
		mls_chunk_alloc_give(b->alloc, runs[--nr]);
	ck_assert_int_eq(tree_put(b, 100, 300, true), 0);
	check_all(b);
	ck_assert_int_eq(tree_sync(b), 0);
	tree_close(b);
	b = tree_open_ok(world, dev, &tree_inline_opts);
	check_all(b);
	tree_close(b);
}
END_TEST

/* ---- A sync, or a crash, in the middle of a flush ---- */

static struct tree_world *copied_world;
static struct mls_block_dev *copied_dev;
static uint64_t taken_runs[TREE_NR_RUNS], nr_taken;

static void sync_now(struct tree_bench *b)
{
	ck_assert_int_eq(tree_sync(b), 0);
}

static void sync_and_copy(struct tree_bench *b)
{
	struct crash_dev *crash = crash_dev_new(dev, NULL);

	sync_now(b);
	copied_world = tree_world_new();
	tree_world_copy(copied_world, world);
	copied_dev = crash_dev_image(crash, 0);
	mls_block_dev_destroy(&crash->base);
}

static void sync_and_take_space(struct tree_bench *b)
{
	sync_now(b);
	nr_taken = 0;
	while (mls_chunk_alloc_take(b->alloc, MLS_RUN_INDEX, &taken_runs[nr_taken]) == 0)
		nr_taken++;
}

/* Versions of two epochs in the memtable, the older synced; the put that fills it makes it flush. */
static void flush_with(struct tree_bench *b, void (*in_tx)(struct tree_bench *b),
		       void (*in_prepare)(struct tree_bench *b))
{
	ck_assert_int_eq(tree_put(b, 0, 15, true), 0);
	ck_assert_int_eq(tree_sync(b), 0);
	ck_assert_int_eq(tree_put(b, 5, 5, true), 0);
	ck_assert_int_eq(tree_put(b, 10, 5, false), 0);
	ck_assert_int_eq(tree_put(b, 50, 9, true), 0);
	b->in_tx = in_tx;
	b->in_prepare = in_prepare;
	ck_assert_int_eq(tree_put(b, 60, 9, true), 0);
	ck_assert(!b->in_tx && !b->in_prepare);
}

START_TEST(sync_within_a_flush)
{
	struct tree_bench *b = tree_open_ok(world, dev, &tree_inline_opts);

	for (unsigned i = 0; i < 10; i++) {
		bool progress;

		flush_with(b, i % 2 ? sync_now : NULL, i % 2 ? NULL : sync_now);
		check_all(b);
		ck_assert_int_eq(tree_put(b, 7, 60, i % 2), 0);
		ck_assert_int_eq(tree_sync(b), 0);
		ck_assert_int_eq(mls_lsm_compact_all(b->lsm, &progress), 0);	/* empties the memtable */
	}
	tree_close(b);
	b = tree_open_ok(world, dev, &tree_inline_opts);
	check_all(b);
	tree_close(b);
}
END_TEST

START_TEST(crash_after_a_sync_within_a_flush)
{
	struct tree_bench *b = tree_open_ok(world, dev, &tree_inline_opts);

	flush_with(b, NULL, sync_and_copy);
	tree_close(b);
	b = tree_open_ok(copied_world, copied_dev, &tree_inline_opts);
	check_all(b);
	ck_assert_uint_ne(copied_world->now[60], 0);
	tree_close(b);
	mls_block_dev_destroy(copied_dev);
	free(copied_world);
}
END_TEST

/* What the group says again, and after a crash the memtable and the next table have beside the flush's, doesn't hide
 * itself (the bench looks at what is told). */
START_TEST(a_record_does_not_hide_its_like)
{
	struct tree_bench *b = tree_open_ok(world, dev, &tree_inline_opts);

	flush_with(b, sync_now, NULL);
	tree_close(b);
	b = tree_open_ok(world, dev, &tree_inline_opts);
	check_all(b);
	ck_assert_int_eq(mls_lsm_tell_shadowed(b->lsm), 0);
	ck_assert_int_eq(tree_put(b, 100, 100, true), 0);	/* flushes */
	ck_assert_int_eq(tree_sync(b), 0);
	ck_assert_int_eq(mls_lsm_tell_shadowed(b->lsm), 0);
	check_all(b);
	tree_close(b);
}
END_TEST

START_TEST(sync_within_a_flush_that_fails)
{
	struct tree_bench *b = tree_open_ok(world, dev, &tree_inline_opts);
	struct mls_lsm_stat stat;

	flush_with(b, sync_and_take_space, NULL);
	mls_lsm_stat(b->lsm, &stat);
	ck_assert_uint_eq(stat.flushes, 0);
	ck_assert_uint_eq(stat.frozen_records, 15 + 9 + 9);	/* what the sync superseded is gone */
	check_all(b);
	while (nr_taken)
		mls_chunk_alloc_give(b->alloc, taken_runs[--nr_taken]);
	ck_assert_int_eq(tree_put(b, 0, 100, true), 0);
	check_all(b);
	tree_close(b);
	b = tree_open_ok(world, dev, &tree_inline_opts);
	check_all(b);
	tree_close(b);
}
END_TEST

/* Whatever the host does to the tables: the true record or an error. */
START_TEST(damaged_tables_give_no_wrong_record)
{
	struct tree_bench *b = tree_open_ok(world, dev, &tree_inline_opts);
	struct mls_lsm_opts uncached = tree_inline_opts;
	unsigned nr_errors = 0;

	ck_assert_int_eq(tree_put(b, 0, TREE_DISK_BLOCKS, true), 0);
	ck_assert_int_eq(tree_sync(b), 0);
	tree_close(b);
	uncached.cache_bytes = 0;
	b = tree_open_ok(world, dev, &uncached);
	for (uint64_t hba = TREE_RUN_HBA; hba < TREE_DEV_BLOCKS; hba += 3) {
		uint8_t *block = mls_blocks_zalloc(1);

		ck_assert_int_eq(mls_block_dev_write(dev, hba, 1, block), 0);
		mls_blocks_free(block);
	}
	for (unsigned lba = 0; lba < TREE_DISK_BLOCKS; lba++) {
		struct mls_index_rec rec;
		int err = mls_lsm_get(b->lsm, lba, 1, &rec);

		ck_assert(err == MLS_EAUTH || (err == 0 && rec.hba == world->now[lba]));
		nr_errors += err != 0;
	}
	ck_assert_uint_gt(nr_errors, 0);
	tree_close(b);
}
END_TEST

START_TEST(a_ring_too_small_is_refused)
{
	struct mls_lsm_opts opts = tree_inline_opts;
	struct tree_bench *b = tree_open_ok(world, dev, &opts);
	struct mls_lsm_listener none = { .arg = NULL };
	struct mls_lsm *lsm;

	opts.memtable_records = TREE_RING_BLOCKS * 125 / 3 + 10;
	ck_assert_int_eq(mls_lsm_new(&lsm, b->store, b->journal, b->keys, &b->ring, &none, &opts), MLS_EINVAL);
	opts.memtable_records = 0;
	ck_assert_int_eq(mls_lsm_new(&lsm, b->store, b->journal, b->keys, &b->ring, &none, &opts), MLS_EINVAL);
	tree_close(b);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("lsm_tree");
	TCase *tc = tcase_create("all");

	mls_set_logger(test_log_quiet, NULL);
	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, empty);
	tcase_add_test(tc, what_is_synced_stays_and_nothing_else);
	tcase_add_test(tc, random_with_many_syncs);
	tcase_add_test(tc, random_with_few_syncs);
	tcase_add_test(tc, random_on_few_blocks);
	tcase_add_test(tc, unsynced_data_outgrows_the_memtable_many_times);
	tcase_add_test(tc, sync_after_flushes_needs_few_records);
	tcase_add_test(tc, puts_during_a_sync);
	tcase_add_test(tc, the_last_group_is_accepted_or_given_up);
	tcase_add_test(tc, compact_all_leaves_one_record_of_each_lba);
	tcase_add_test(tc, compact_all_spares_what_is_synced);
	tcase_add_test(tc, move_only_what_is_still_there);
	tcase_add_test(tc, move_many);
	tcase_add_test(tc, hidden_records_are_told);
	tcase_add_test(tc, no_space_is_not_the_end);
	tcase_add_test(tc, sync_within_a_flush);
	tcase_add_test(tc, crash_after_a_sync_within_a_flush);
	tcase_add_test(tc, a_record_does_not_hide_its_like);
	tcase_add_test(tc, sync_within_a_flush_that_fails);
	tcase_add_test(tc, damaged_tables_give_no_wrong_record);
	tcase_add_test(tc, a_ring_too_small_is_refused);
	suite_add_tcase(suite, tc);
	return check_run(suite);
}
