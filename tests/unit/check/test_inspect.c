/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_inspect.c - the inspection of healthy disks: nothing is found, and what is seen is what is there.
 *
 * Damage of all kinds is tests/fsck's.
 */
#include <stdatomic.h>
#include <stdio.h>

#include "0-bio/block_dev.h"
#include "5-disk/location.h"
#include "base/buf.h"
#include "base/checked.h"
#include "check/inspect.h"
#include "tests/lib/check_run.h"
#include "tests/lib/test_rand.h"
#include "tests/unit/5-disk/disk_fixture.h"

#define NR_BLOCKS 4096u

static unsigned nr_found;

static void count_findings(void *arg, const struct mls_finding *finding)
{
	(void)arg;
	if (mls_finding_severity(finding->code) == MLS_SEV_NOTE)
		return;
	nr_found++;
	printf("found %s: hba %llu lba %llu+%llu log %lld run %lld: %s\n", mls_finding_name(finding->code),
	       (unsigned long long)finding->hba, (unsigned long long)finding->lba,
	       (unsigned long long)finding->nr_lbas, (long long)finding->log_id, (long long)finding->run,
	       finding->detail);
}

static struct mls_inspect *inspect(struct disk_fixture *f)
{
	struct mls_inspect *x = NULL;

	nr_found = 0;
	ck_assert_int_eq(mls_inspect_open(&x, f->dev, &f->store.base, &f->secret, count_findings, NULL), 0);
	ck_assert_int_eq(mls_inspect_check_logs(x, NULL, NULL), 0);
	ck_assert_int_eq(mls_inspect_check_records(x, NULL, NULL), 0);
	ck_assert_int_eq(mls_inspect_check_runs(x, NULL, NULL), 0);
	ck_assert_uint_eq(nr_found, 0);
	return x;
}

struct seen {
	struct mls_inspect *x;
	const uint64_t *version;
	uint64_t nr_mapped;
	uint8_t *block;
};

static int compare(void *arg, const struct mls_inspect_rec *rec)
{
	struct seen *seen = arg;
	uint8_t expected[MLS_BLOCK_BYTES];

	if (!rec->newest || rec->rec.hba == MLS_HBA_NONE)
		return 0;
	seen->nr_mapped++;
	ck_assert_uint_ne(seen->version[rec->rec.lba], 0);
	ck_assert_int_eq(mls_inspect_read(seen->x, &rec->rec, seen->block), 0);
	block_fill(expected, rec->rec.lba, seen->version[rec->rec.lba]);
	ck_assert_mem_eq(expected, seen->block, sizeof expected);
	return 0;
}

/* Goal: after any history, a close and an inspection see the same disk, and no fault. Method: random
 * writes, discards, syncs and reopenings over many memtables and cleanings, against a model. */
START_TEST(healthy_disk_has_no_findings)
{
	static uint64_t version[NR_BLOCKS];
	struct disk_fixture f;
	struct test_rand rand;
	struct mls_inspect *x;
	uint8_t *block = mls_blocks_alloc(1);

	test_rand_seed(&rand, (uint64_t)_i + 1);
	memset(version, 0, sizeof version);
	fixture_init(&f, (uint64_t)NR_BLOCKS * MLS_BLOCK_BYTES, 0);
	f.opts.memtable_records = 256;
	for (unsigned round = 0; round < 6; round++) {
		struct mls_disk *disk = fixture_open(&f);
		uint64_t nr_expected = 0;
		struct seen seen;

		for (unsigned i = 0; i < 2500; i++) {
			uint64_t lba = test_rand_below(&rand, NR_BLOCKS);

			if (test_rand_below(&rand, 10) == 0) {
				ck_assert_int_eq(mls_disk_discard(disk, lba * MLS_BLOCK_BYTES, MLS_BLOCK_BYTES), 0);
				version[lba] = 0;
			} else {
				version[lba] = round * 10000 + i + 1;
				ck_assert_int_eq(block_write(disk, lba, version[lba]), 0);
			}
			if (test_rand_below(&rand, 200) == 0)
				ck_assert_int_eq(mls_disk_sync(disk), 0);
		}
		ck_assert_int_eq(mls_disk_close(disk), 0);
		x = inspect(&f);
		ck_assert_int_eq(x->verdict, MLS_INSPECT_CLEAN);
		seen = (struct seen){ .x = x, .version = version, .block = block };
		ck_assert_int_eq(mls_inspect_records(x, 0, UINT64_MAX, compare, &seen), 0);
		for (unsigned lba = 0; lba < NR_BLOCKS; lba++)
			nr_expected += version[lba] != 0;
		ck_assert_uint_eq(seen.nr_mapped, nr_expected);
		mls_inspect_close(x);
	}
	mls_blocks_free(block);
	fixture_release(&f);
}
END_TEST

/* Goal: a lookup of a range is the walk over all, cut to it. */
START_TEST(range_is_a_part_of_the_whole)
{
	struct disk_fixture f;
	struct mls_disk *disk;
	struct mls_inspect *x;
	uint8_t *block = mls_blocks_alloc(1);
	static uint64_t version[NR_BLOCKS];

	fixture_init(&f, (uint64_t)NR_BLOCKS * MLS_BLOCK_BYTES, 0);
	f.opts.memtable_records = 512;
	disk = fixture_open(&f);
	for (uint64_t lba = 0; lba < NR_BLOCKS; lba += 2) {
		version[lba] = lba + 1;
		ck_assert_int_eq(block_write(disk, lba, version[lba]), 0);
	}
	ck_assert_int_eq(mls_disk_close(disk), 0);
	x = inspect(&f);
	for (uint64_t lba = 0; lba < NR_BLOCKS; lba += 97) {
		struct seen seen = { .x = x, .version = version, .block = block };

		ck_assert_int_eq(mls_inspect_records(x, lba, lba + 10, compare, &seen), 0);
		ck_assert_uint_eq(seen.nr_mapped, (mls_min_u64(lba + 10, NR_BLOCKS) + 1) / 2 - (lba + 1) / 2);
	}
	mls_inspect_close(x);
	mls_blocks_free(block);
	fixture_release(&f);
}
END_TEST

struct data_seen {
	atomic_uint nr_good, nr_bad;
	_Atomic uint64_t lbas; /* sum of the bad ones */
	const uint64_t *version;
	unsigned stop_after; /* 0: never */
};

static int count_block(void *arg, uint64_t lba, const void *block)
{
	struct data_seen *seen = arg;
	uint8_t expected[MLS_BLOCK_BYTES];

	if (block) {
		block_fill(expected, lba, seen->version[lba]);
		ck_assert_mem_eq(expected, block, sizeof expected);
	} else {
		atomic_fetch_add(&seen->nr_bad, 1);
		atomic_fetch_add(&seen->lbas, lba);
	}
	return atomic_fetch_add(&seen->nr_good, block != NULL) + 1 == seen->stop_after ? MLS_EIO : 0;
}

/* The host writes one block of LBA's content anew. */
static int spoil(void *arg, const struct mls_inspect_rec *rec)
{
	struct disk_fixture *f = arg;
	uint8_t *block = mls_blocks_zalloc(1);

	if (rec->newest)
		ck_assert_int_eq(mls_block_dev_write(f->dev, mls_loc_hba(rec->rec.hba), 1, block), 0);
	mls_blocks_free(block);
	return 0;
}

/* Goal: the pass over the data, in several threads, sees each live block once, finds what was spoilt and
 * nothing else, and stops when it is told to. */
START_TEST(data_is_seen_once_and_damage_found)
{
	static uint64_t version[NR_BLOCKS];
	const uint64_t spoilt[] = { 3, 1000, 1001, 4095 };
	struct data_seen seen = { .version = version };
	struct disk_fixture f;
	struct mls_inspect *x;
	struct mls_disk *disk;

	fixture_init(&f, (uint64_t)NR_BLOCKS * MLS_BLOCK_BYTES, 0);
	disk = fixture_open(&f);
	for (uint64_t lba = 0; lba < NR_BLOCKS; lba++) {
		version[lba] = lba + 7;
		ck_assert_int_eq(block_write(disk, lba, version[lba]), 0);
	}
	ck_assert_int_eq(mls_disk_close(disk), 0);
	x = inspect(&f);
	ck_assert_int_eq(mls_inspect_check_data(x, count_block, &seen, NULL, NULL), 0);
	ck_assert_uint_eq(nr_found, 0);
	ck_assert_uint_eq(atomic_load(&seen.nr_good), NR_BLOCKS);

	for (size_t i = 0; i < sizeof spoilt / sizeof spoilt[0]; i++)
		ck_assert_int_eq(mls_inspect_records(x, spoilt[i], spoilt[i] + 1, spoil, &f), 0);
	atomic_store(&seen.nr_good, 0);
	ck_assert_int_eq(mls_inspect_check_data(x, count_block, &seen, NULL, NULL), 0);
	ck_assert_uint_gt(nr_found, 0);
	ck_assert_uint_eq(atomic_load(&seen.nr_good), NR_BLOCKS - 4);
	ck_assert_uint_eq(atomic_load(&seen.nr_bad), 4);
	ck_assert_uint_eq(atomic_load(&seen.lbas), 3 + 1000 + 1001 + 4095);

	atomic_store(&seen.nr_good, 0);
	seen.stop_after = 100;
	ck_assert_int_eq(mls_inspect_check_data(x, count_block, &seen, NULL, NULL), MLS_EIO);
	ck_assert_uint_lt(atomic_load(&seen.nr_good), NR_BLOCKS);
	mls_inspect_close(x);
	fixture_release(&f);
}
END_TEST

/* Goal: without a key there is still something to see; with a wrong one the answer says so. */
START_TEST(without_a_key)
{
	struct mls_secret wrong = { "wrong wrong wrong wrong wrong wro", 32, false };
	struct disk_fixture f;
	struct mls_inspect *x = NULL;

	fixture_init(&f, MIB, 0);
	ck_assert_int_eq(mls_inspect_open(&x, f.dev, NULL, NULL, count_findings, NULL), 0);
	ck_assert(x->has_sb && !x->authentic && !x->keys);
	ck_assert_int_eq(mls_inspect_place(x, x->runs_hba).kind, MLS_PLACE_RUN);
	mls_inspect_close(x);
	ck_assert_int_eq(mls_inspect_open(&x, f.dev, NULL, &wrong, NULL, NULL), MLS_EKEY);
	fixture_release(&f);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("inspect");
	TCase *tc = tcase_create("inspect");

	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, healthy_disk_has_no_findings, 0, 4);
	tcase_add_test(tc, range_is_a_part_of_the_whole);
	tcase_add_test(tc, data_is_seen_once_and_damage_found);
	tcase_add_test(tc, without_a_key);
	suite_add_tcase(suite, tc);
	return check_run(suite);
}
