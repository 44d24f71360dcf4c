/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_lsm_threads.c - writers, readers, syncs, moves and space pressure at once. For TSan; and for
 * what readers may see: a record of an LBA is never older than one that was put before the read began.
 *
 * Each writer owns a range of LBAs and numbers its puts; the HBA is the number, so it only grows.
 */
#include <check.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/check_run.h"
#include "tests/lib/test_rand.h"
#include "tests/unit/4-lsm/tree_bench.h"

#define NR_WRITERS 2u
#define NR_READERS 2u
#define RANGE (TREE_DISK_BLOCKS / NR_WRITERS)
#define NR_ROUNDS 700u
#define HBAS_EACH (TREE_NR_HBAS / NR_WRITERS)

static struct tree_world *world;
static struct mls_block_dev *dev;
static struct tree_bench *bench;
static _Atomic uint64_t newest[TREE_DISK_BLOCKS];	/* HBA put last; 0: tombstone or never */
static atomic_uint nr_writing, nr_wrong;

static void wrong_unless(bool right)
{
	if (!right)
		atomic_fetch_add(&nr_wrong, 1);
}

static void *write_main(void *arg)
{
	unsigned id = (unsigned)(uintptr_t)arg;
	uint64_t next_hba = 1 + (uint64_t)id * HBAS_EACH;
	struct mls_index_rec recs[8];
	struct test_rand r;

	test_rand_seed(&r, id);
	for (unsigned round = 0; round < NR_ROUNDS; round++) {
		uint64_t nr = test_rand_between(&r, 1, 8);
		uint64_t lba = id * RANGE + test_rand_below(&r, RANGE - nr);

		for (uint64_t i = 0; i < nr; i++)
			recs[i] = tree_rec(lba + i, next_hba++);
		wrong_unless(mls_lsm_put(bench->lsm, recs, nr) == 0);
		for (uint64_t i = 0; i < nr; i++)
			atomic_store(&newest[lba + i], recs[i].hba);
		if (round % 7 == 0) {	/* as the cleaner does */
			struct mls_index_rec rec = tree_rec(lba, next_hba++);
			bool moved = false;

			wrong_unless(mls_lsm_move(bench->lsm, &rec, recs[0].hba, &moved) == 0 && moved);
			atomic_store(&newest[lba], rec.hba);
		}
	}
	atomic_fetch_sub(&nr_writing, 1);
	return NULL;
}

static void *read_main(void *arg)
{
	struct mls_index_rec recs[20];
	struct test_rand r;

	test_rand_seed(&r, 100 + (uint64_t)(uintptr_t)arg);
	while (atomic_load(&nr_writing)) {
		uint64_t lba = test_rand_below(&r, TREE_DISK_BLOCKS - 20), before[20], found;

		for (unsigned i = 0; i < 20; i++)
			before[i] = atomic_load(&newest[lba + i]);
		wrong_unless(mls_lsm_get(bench->lsm, lba, 20, recs) == 0);
		for (unsigned i = 0; i < 20; i++)
			wrong_unless(recs[i].hba >= before[i] && recs[i].lba == lba + i);
		if (before[0] && mls_lsm_next_mapped(bench->lsm, lba, lba + 1, &found) != 0)
			wrong_unless(false);
	}
	return NULL;
}

static int sync_once(struct mls_lsm_cut *cut)
{
	int err = mls_lsm_cut(bench->lsm, cut);

	if (!err)
		err = mls_lsm_wal_write(bench->lsm, cut, NULL, 0, 1, 0);
	if (!err)
		err = mls_block_dev_flush(dev);
	if (!err)
		mls_lsm_commit(bench->lsm, cut);
	return err;
}

static void *sync_main(void *arg)
{
	struct mls_lsm_cut cut;
	bool more;

	(void)arg;
	do {
		more = atomic_load(&nr_writing);
		wrong_unless(sync_once(&cut) == 0);
	} while (more);
	world->sync_id = cut.sync_id;
	memcpy(world->digest, cut.digest, sizeof cut.digest);
	return NULL;
}

static void *press_main(void *arg)
{
	struct mls_lsm_stat stat;
	bool progress;

	(void)arg;
	while (atomic_load(&nr_writing)) {
		wrong_unless(mls_lsm_compact_all(bench->lsm, &progress) == 0);
		mls_lsm_stat(bench->lsm, &stat);
	}
	return NULL;
}

static void run(bool press)
{
	pthread_t threads[NR_WRITERS + NR_READERS + 2];
	unsigned nr = 0;

	atomic_store(&nr_writing, NR_WRITERS);
	for (uintptr_t i = 0; i < NR_WRITERS; i++)
		ck_assert_int_eq(pthread_create(&threads[nr++], NULL, write_main, (void *)i), 0);
	for (uintptr_t i = 0; i < NR_READERS; i++)
		ck_assert_int_eq(pthread_create(&threads[nr++], NULL, read_main, (void *)i), 0);
	ck_assert_int_eq(pthread_create(&threads[nr++], NULL, sync_main, NULL), 0);
	if (press)
		ck_assert_int_eq(pthread_create(&threads[nr++], NULL, press_main, NULL), 0);
	while (nr)
		pthread_join(threads[--nr], NULL);
	ck_assert_uint_eq(atomic_load(&nr_wrong), 0);
}

static void run_and_reopen(bool press)
{
	struct mls_lsm_stat stat;

	world = tree_world_new();
	ck_assert_int_eq(mls_block_dev_mem_new(&dev, TREE_DEV_BLOCKS), 0);
	tree_format(world, dev);
	bench = tree_open_ok(world, dev, &tree_thread_opts);
	run(press);
	for (unsigned lba = 0; lba < TREE_DISK_BLOCKS; lba++)
		world->now[lba] = world->closing[lba] = world->synced[lba] = atomic_load(&newest[lba]);
	tree_check(bench);
	mls_lsm_stat(bench->lsm, &stat);
	ck_assert_uint_gt(stat.flushes, 10);
	ck_assert_uint_gt(stat.compactions, 3);
	tree_close(bench);

	bench = tree_open_ok(world, dev, &tree_inline_opts);
	tree_check(bench);
	tree_check_counts(bench);
	tree_close(bench);
	mls_block_dev_destroy(dev);
	free(world);
}

START_TEST(writers_readers_and_syncs)
{
	run_and_reopen(false);
}
END_TEST

START_TEST(and_space_pressure)
{
	run_and_reopen(true);
}
END_TEST

/* Workers flush and compact what one thread puts; then all is counted, with the threads idle. */
START_TEST(counts_hold_with_workers)
{
	struct test_rand r;

	world = tree_world_new();
	ck_assert_int_eq(mls_block_dev_mem_new(&dev, TREE_DEV_BLOCKS), 0);
	tree_format(world, dev);
	bench = tree_open_ok(world, dev, &tree_thread_opts);
	test_rand_seed(&r, 5);
	for (unsigned i = 0; i < 600; i++) {
		uint64_t nr = test_rand_between(&r, 1, 10), lba = test_rand_below(&r, TREE_DISK_BLOCKS - nr);
		bool mapped = test_rand_chance(&r, 5, 6), progress;

		ck_assert_int_eq(tree_put(bench, lba, nr, mapped), 0);
		if (test_rand_chance(&r, 1, 20))
			ck_assert_int_eq(tree_sync(bench), 0);
		if (i % 200 == 199) {
			ck_assert_int_eq(tree_sync(bench), 0);
			ck_assert_int_eq(mls_lsm_compact_all(bench->lsm, &progress), 0);
			tree_check(bench);
			tree_check_counts(bench);
		}
	}
	tree_close(bench);
	bench = tree_open_ok(world, dev, &tree_thread_opts);
	tree_check(bench);
	tree_close(bench);
	mls_block_dev_destroy(dev);
	free(world);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("lsm_threads");
	TCase *tc = tcase_create("all");

	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, writers_readers_and_syncs);
	tcase_add_test(tc, and_space_pressure);
	tcase_add_test(tc, counts_hold_with_workers);
	suite_add_tcase(suite, tc);
	return check_run(suite);
}
