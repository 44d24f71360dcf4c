/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_disk.c - the disk through its public face, one promise a test; among them each failure of
 * the earlier implementation that the design brief lists.
 */
#include <check.h>

#include "tests/lib/check_run.h"
#include "tests/lib/fault_dev.h"
#include "tests/lib/tamper.h"
#include "tests/lib/test_log.h"
#include "tests/lib/test_rand.h"
#include "tests/unit/5-disk/disk_fixture.h"

/* ---- Reading and writing ---- */

START_TEST(unwritten_blocks_read_as_zeros)
{
	struct disk_fixture f;
	struct mls_disk *disk;

	fixture_init(&f, 8 * MIB, 0);
	disk = fixture_open(&f);
	for (uint64_t lba = 0; lba < 8 * MIB / MLS_BLOCK_BYTES; lba += 37)
		ck_assert(block_is(disk, lba, 0));
	ck_assert_int_eq(mls_disk_close(disk), 0);
	fixture_release(&f);
}
END_TEST

/* The earlier one returned nothing of the written blocks, with success. */
START_TEST(a_read_over_written_and_unwritten_blocks_returns_both)
{
	static _Alignas(MLS_BLOCK_BYTES) uint8_t buf[8 * MLS_BLOCK_BYTES];
	uint8_t expected[MLS_BLOCK_BYTES];
	struct disk_fixture f;
	struct mls_disk *disk;

	fixture_init(&f, 8 * MIB, 0);
	disk = fixture_open(&f);
	ck_assert_int_eq(block_write(disk, 2, 1), 0);
	ck_assert_int_eq(block_write(disk, 5, 1), 0);
	for (int round = 0; round < 2; round++) {	/* from memory, then from the device */
		ck_assert_int_eq(mls_disk_read(disk, 0, buf, sizeof buf), 0);
		for (uint64_t lba = 0; lba < 8; lba++) {
			block_fill(expected, lba, lba == 2 || lba == 5);
			ck_assert_mem_eq(buf + lba * MLS_BLOCK_BYTES, expected, MLS_BLOCK_BYTES);
		}
		ck_assert_int_eq(mls_disk_close(disk), 0);
		disk = fixture_open(&f);
	}
	ck_assert_int_eq(mls_disk_close(disk), 0);
	fixture_release(&f);
}
END_TEST

START_TEST(any_byte_range_works_like_memory)
{
	uint64_t bytes = MIB, offset;
	uint8_t *model = calloc(1, bytes), *buf = malloc(bytes);
	struct disk_fixture f;
	struct test_rand r;
	struct mls_disk *disk;

	test_rand_seed(&r, 1);
	fixture_init(&f, bytes, 0);
	disk = fixture_open(&f);
	for (int i = 0; i < 600; i++) {
		size_t len = test_rand_below(&r, 4) ? test_rand_between(&r, 1, 5000) : test_rand_between(&r, 1, 70000);

		offset = test_rand_below(&r, bytes - len + 1);
		switch (test_rand_below(&r, 5)) {
		case 0:
			ck_assert_int_eq(mls_disk_discard(disk, offset, len), 0);
			memset(model + offset, 0, len);
			break;
		case 1:
			ck_assert_int_eq(mls_disk_sync(disk), 0);
			break;
		default:
			test_rand_fill(&r, buf, len);
			memcpy(model + offset, buf, len);
			ck_assert_int_eq(mls_disk_write(disk, offset, buf, len), 0);
		}
		len = test_rand_between(&r, 1, 70000);
		offset = test_rand_below(&r, bytes - len + 1);
		ck_assert_int_eq(mls_disk_read(disk, offset, buf, len), 0);
		ck_assert_mem_eq(buf, model + offset, len);
	}
	ck_assert_int_eq(mls_disk_close(disk), 0);
	disk = fixture_open(&f);
	ck_assert_int_eq(mls_disk_read(disk, 0, buf, bytes), 0);
	ck_assert_mem_eq(buf, model, bytes);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	fixture_release(&f);
	free(model);
	free(buf);
}
END_TEST

START_TEST(outside_the_disk_is_refused)
{
	uint8_t block[MLS_BLOCK_BYTES] = { 0 };
	struct disk_fixture f;
	struct mls_disk *disk;

	fixture_init(&f, MIB, 0);
	disk = fixture_open(&f);
	ck_assert_int_eq(mls_disk_read(disk, MIB - 1, block, 2), MLS_EINVAL);
	ck_assert_int_eq(mls_disk_write(disk, MIB, block, 1), MLS_EINVAL);
	ck_assert_int_eq(mls_disk_write(disk, UINT64_MAX, block, 2), MLS_EINVAL);
	ck_assert_int_eq(mls_disk_discard(disk, 1, UINT64_MAX), MLS_EINVAL);
	ck_assert_int_eq(mls_disk_write(disk, MIB - 1, block, 1), 0);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	fixture_release(&f);
}
END_TEST

START_TEST(seek_finds_data_and_holes)
{
	struct disk_fixture f;
	struct mls_disk *disk;
	uint64_t at;

	fixture_init(&f, MIB, 0);
	disk = fixture_open(&f);
	ck_assert_int_eq(mls_disk_seek(disk, 0, true, &at), MLS_ENOENT);
	ck_assert_int_eq(block_write(disk, 10, 1), 0);
	ck_assert_int_eq(block_write(disk, 11, 1), 0);
	ck_assert_int_eq(mls_disk_seek(disk, 0, true, &at), 0);
	ck_assert_uint_eq(at, 10 * MLS_BLOCK_BYTES);
	ck_assert_int_eq(mls_disk_seek(disk, 10 * MLS_BLOCK_BYTES + 5, true, &at), 0);
	ck_assert_uint_eq(at, 10 * MLS_BLOCK_BYTES + 5);
	ck_assert_int_eq(mls_disk_seek(disk, 10 * MLS_BLOCK_BYTES, false, &at), 0);
	ck_assert_uint_eq(at, 12 * MLS_BLOCK_BYTES);
	ck_assert_int_eq(mls_disk_seek(disk, MIB, false, &at), MLS_ENOENT);
	ck_assert_int_eq(mls_disk_discard(disk, 0, MIB), 0);
	ck_assert_int_eq(mls_disk_seek(disk, 0, true, &at), MLS_ENOENT);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	fixture_release(&f);
}
END_TEST

/* ---- Sync and reopening ---- */

/* The earlier one recovered only the newest WAL. */
START_TEST(many_open_write_close_rounds_lose_nothing)
{
	struct disk_fixture f;

	fixture_init(&f, 4 * MIB, 0);
	for (uint64_t round = 1; round <= 200; round++) {
		struct mls_disk *disk = fixture_open(&f);

		for (uint64_t lba = 0; lba < 50; lba++)
			ck_assert(block_is(disk, lba, round > lba + 1 ? (round - 2 - lba) / 50 * 50 + lba + 1 : 0));
		ck_assert_int_eq(block_write(disk, (round - 1) % 50, round), 0);
		ck_assert_int_eq(mls_disk_sync(disk), 0);
		ck_assert_int_eq(mls_disk_close(disk), 0);
	}
	fixture_release(&f);
}
END_TEST

/* A copy of BACKING without the sync must show the last synced state: all of it, nothing more. */
START_TEST(what_was_not_synced_is_dropped_as_a_whole)
{
	struct tamper_image image;
	struct test_store store;
	struct disk_fixture f;
	struct mls_disk *disk;

	fixture_init(&f, 4 * MIB, 0);
	f.opts.memtable_records = 64;	/* unsynced records reach SSTables */
	disk = fixture_open(&f);
	for (uint64_t lba = 0; lba < 500; lba++)
		ck_assert_int_eq(block_write(disk, lba, 1), 0);
	ck_assert_int_eq(mls_disk_sync(disk), 0);
	for (uint64_t lba = 0; lba < 500; lba++)
		ck_assert_int_eq(block_write(disk, lba, 2), 0);
	tamper_image_take(&image, f.dev);
	store = f.store;
	ck_assert_int_eq(mls_disk_close(disk), 0);

	tamper_image_put_back(&image, f.dev);
	f.store = store;
	disk = fixture_open(&f);
	for (uint64_t lba = 0; lba < 500; lba++)
		ck_assert(block_is(disk, lba, 1));
	ck_assert_int_eq(mls_disk_close(disk), 0);
	tamper_image_release(&image);
	fixture_release(&f);
}
END_TEST

START_TEST(a_read_only_open_writes_nothing)
{
	struct tamper_image before, after;
	struct disk_fixture f;
	struct mls_disk *disk;

	fixture_init(&f, 4 * MIB, 0);
	disk = fixture_open(&f);
	ck_assert_int_eq(block_write(disk, 3, 1), 0);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	tamper_image_take(&before, f.dev);
	f.opts.read_only = true;
	f.store.nr_advances = 0;
	disk = fixture_open(&f);
	ck_assert(block_is(disk, 3, 1));
	ck_assert_int_eq(block_write(disk, 3, 2), MLS_EROFS);
	ck_assert_int_eq(mls_disk_discard(disk, 0, MIB), MLS_EROFS);
	ck_assert_int_eq(mls_disk_sync(disk), 0);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	tamper_image_take(&after, f.dev);
	for (uint64_t hba = 0; hba < before.nr_blocks; hba++)
		ck_assert(tamper_image_block_same(&before, &after, hba));
	ck_assert_uint_eq(f.store.nr_advances, 0);
	tamper_image_release(&before);
	tamper_image_release(&after);
	fixture_release(&f);
}
END_TEST

START_TEST(a_failed_flush_stops_writing_until_reopened)
{
	struct mls_block_dev *healthy;
	struct fault_dev *flaky;
	struct disk_fixture f;
	struct mls_disk *disk;

	fixture_init(&f, 4 * MIB, 0);
	healthy = f.dev;
	flaky = fault_dev_new(healthy, FAULT_FLUSH);
	f.dev = &flaky->base;
	disk = fixture_open(&f);
	ck_assert_int_eq(block_write(disk, 1, 1), 0);
	ck_assert_int_eq(mls_disk_sync(disk), 0);
	ck_assert_int_eq(block_write(disk, 1, 2), 0);
	fault_dev_arm(flaky, 1, MLS_EIO, false);
	ck_assert_int_eq(mls_disk_sync(disk), MLS_EIO);
	ck_assert_int_eq(block_write(disk, 1, 3), MLS_EPOISONED);
	ck_assert_int_eq(mls_disk_sync(disk), MLS_EPOISONED);
	ck_assert(block_is(disk, 1, 2));
	mls_disk_close(disk);
	f.dev = healthy;
	disk = fixture_open(&f);
	ck_assert(block_is(disk, 1, 1) || block_is(disk, 1, 2));
	ck_assert_int_eq(block_write(disk, 1, 4), 0);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	mls_block_dev_destroy(&flaky->base);
	fixture_release(&f);
}
END_TEST

/* A small sync writes its data beside the WAL group. Write N fails, once or for ever: a sync that returned 0 holds,
 * also when the power goes; one that didn't leaves the old block or the new one. */
START_TEST(a_write_that_fails_beside_the_group_costs_nothing_synced)
{
	for (uint64_t n = 1, fired = 1; fired; n++) {
		for (unsigned sticky = 0; sticky <= 1; sticky++) {
			struct mls_block_dev *healthy;
			struct fault_dev *flaky;
			struct disk_fixture f;
			struct mls_disk *disk;
			int err;

			fixture_init(&f, 4 * MIB, 0);
			healthy = f.dev;
			flaky = fault_dev_new(healthy, FAULT_WRITE);
			f.dev = &flaky->base;
			disk = fixture_open(&f);
			ck_assert_int_eq(block_write(disk, 1, 1), 0);
			ck_assert_int_eq(mls_disk_sync(disk), 0);
			ck_assert_int_eq(block_write(disk, 1, 2), 0);
			fault_dev_arm(flaky, n, MLS_EIO, sticky);
			err = mls_disk_sync(disk);
			fired = flaky->fired;
			if (!fired)
				ck_assert_int_eq(err, 0);
			ck_assert(block_is(disk, 1, 2));
			fault_dev_arm(flaky, 1, MLS_EIO, true);		/* nothing is written any more */
			mls_disk_close(disk);
			f.dev = healthy;
			disk = fixture_open(&f);
			ck_assert(block_is(disk, 1, 2) || (err && block_is(disk, 1, 1)));
			ck_assert_int_eq(mls_disk_close(disk), 0);
			mls_block_dev_destroy(&flaky->base);
			fixture_release(&f);
		}
		ck_assert_uint_lt(n, 20);
	}
}
END_TEST

/* ---- Rollback and the trusted store ---- */

/* The earlier one loaded the stored sync id and never compared it. */
START_TEST(an_old_image_is_refused_and_accepted_once_on_demand)
{
	struct tamper_image image;
	struct disk_fixture f;
	struct mls_disk *disk;

	fixture_init(&f, 4 * MIB, 0);
	disk = fixture_open(&f);
	ck_assert_int_eq(block_write(disk, 1, 1), 0);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	tamper_image_take(&image, f.dev);
	disk = fixture_open(&f);
	ck_assert_int_eq(block_write(disk, 1, 2), 0);
	ck_assert_int_eq(mls_disk_close(disk), 0);

	tamper_image_put_back(&image, f.dev);
	ck_assert_int_eq(fixture_try_open(&f, &disk), MLS_ESTALE);
	f.opts.accept_rollback = true;
	disk = fixture_open(&f);
	ck_assert(block_is(disk, 1, 1));
	ck_assert_int_eq(block_write(disk, 1, 3), 0);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	f.opts.accept_rollback = false;		/* the store has moved on with it */
	disk = fixture_open(&f);
	ck_assert(block_is(disk, 1, 3));
	ck_assert_int_eq(mls_disk_close(disk), 0);
	tamper_image_put_back(&image, f.dev);
	ck_assert_int_eq(fixture_try_open(&f, &disk), MLS_ESTALE);
	tamper_image_release(&image);
	fixture_release(&f);
}
END_TEST

START_TEST(two_clones_do_not_both_go_on)
{
	struct tamper_image clone;
	struct disk_fixture f;
	struct mls_disk *disk;

	fixture_init(&f, 4 * MIB, 0);
	disk = fixture_open(&f);
	ck_assert_int_eq(block_write(disk, 1, 1), 0);
	ck_assert_int_eq(mls_disk_sync(disk), 0);
	tamper_image_take(&clone, f.dev);
	mls_disk_close(disk);
	disk = fixture_open(&f);
	mls_disk_close(disk);
	tamper_image_put_back(&clone, f.dev);
	ck_assert_int_eq(fixture_try_open(&f, &disk), MLS_ESTALE);
	tamper_image_release(&clone);
	fixture_release(&f);
}
END_TEST

START_TEST(a_lost_or_foreign_store_is_told)
{
	struct disk_fixture f, g;
	struct mls_disk *disk;

	fixture_init(&f, MIB, 0);
	fixture_init(&g, MIB, 0);
	f.store.trust = g.store.trust;
	ck_assert_int_eq(fixture_try_open(&f, &disk), MLS_ESTALE);
	f.store.held = false;
	ck_assert_int_eq(fixture_try_open(&f, &disk), MLS_ESTALE);
	f.opts.accept_rollback = true;
	disk = fixture_open(&f);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	fixture_release(&f);
	fixture_release(&g);
}
END_TEST

START_TEST(a_wrong_key_is_told_before_anything_is_written)
{
	struct mls_secret wrong = { "another key file of 32 bytes ....", 32, false };
	struct disk_fixture f;
	struct mls_disk *disk;

	fixture_init(&f, MIB, 0);
	ck_assert_int_eq(mls_disk_open(&disk, f.dev, &f.store.base, &wrong, &f.opts), MLS_EKEY);
	disk = fixture_open(&f);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	tamper_fill(f.dev, 0, 32, 0);
	ck_assert_int_eq(fixture_try_open(&f, &disk), MLS_EFORMAT);
	fixture_release(&f);
}
END_TEST

/* Also when the WAL holds no group any more, because a flush has moved its start behind the last. */
START_TEST(an_old_superblock_is_refused_with_an_empty_wal)
{
	static const struct mls_secret other = { "another key file of 32 bytes ....", 32, false };
	struct tamper_image old;
	struct disk_fixture f;
	struct mls_disk *disk;

	fixture_init(&f, 4 * MIB, 0);
	f.opts.memtable_records = 64;
	tamper_image_take(&old, f.dev);
	ck_assert_int_eq(mls_key_add(f.dev, &f.secret, &other, MLS_KEY_SLOT_ANY, "other", NULL), 0);
	disk = fixture_open(&f);
	for (uint64_t lba = 0; lba < 63; lba++)
		ck_assert_int_eq(block_write(disk, lba, 1), 0);
	ck_assert_int_eq(mls_disk_sync(disk), 0);
	/* Fills the memtable: the flush takes the WAL's start behind the sync. */
	ck_assert_int_eq(block_write(disk, 64, 1), 0);
	mls_disk_close(disk);
	tamper_image_put_back_range(&old, f.dev, 0, 32);
	ck_assert_int_eq(fixture_try_open(&f, &disk), MLS_ESTALE);
	tamper_image_release(&old);
	fixture_release(&f);
}
END_TEST

/* ---- Space ---- */

static void overwrite(struct disk_fixture *f, uint64_t nr_live, uint64_t nr_writes, bool syncs)
{
	uint64_t *version = calloc(nr_live, sizeof *version);
	struct mls_disk *disk = fixture_open(f);
	struct test_rand r;

	test_rand_seed(&r, 7);
	for (uint64_t lba = 0; lba < nr_live; lba++) {
		ck_assert_int_eq(block_write(disk, lba, 1), 0);
		version[lba] = 1;
	}
	for (uint64_t i = 0; i < nr_writes; i++) {
		uint64_t lba = test_rand_below(&r, nr_live);

		ck_assert_int_eq(block_write(disk, lba, i + 2), 0);
		version[lba] = i + 2;
		if (syncs && i % 500 == 0)
			ck_assert_int_eq(mls_disk_sync(disk), 0);
		if (i % 7 == 0) {
			lba = test_rand_below(&r, nr_live);
			ck_assert(block_is(disk, lba, version[lba]));
		}
	}
	ck_assert_int_eq(mls_disk_close(disk), 0);
	disk = fixture_open(f);
	for (uint64_t lba = 0; lba < nr_live; lba++)
		ck_assert(block_is(disk, lba, version[lba]));
	ck_assert_int_eq(mls_disk_close(disk), 0);
	free(version);
}

/* The earlier one panicked at 80 % after four times its capacity, and waited for ever at 100 %. */
START_TEST(a_full_disk_is_overwritten_for_ever)
{
	static const unsigned percent[] = { 80, 100 };
	struct disk_fixture f;
	uint64_t nr = 8 * MIB / MLS_BLOCK_BYTES;

	fixture_init(&f, 8 * MIB, 0);
	if (_i >= 2)
		f.opts.inline_work = false;
	overwrite(&f, nr * percent[_i % 2] / 100, 6 * nr, _i % 2 == 0);
	fixture_release(&f);
}
END_TEST

START_TEST(a_thin_disk_that_runs_full_says_enospc_and_loses_nothing)
{
	uint64_t nr = 32 * MIB / MLS_BLOCK_BYTES, lba, written;
	struct disk_fixture f;
	struct mls_disk *disk;
	int err = 0;

	fixture_init(&f, 32 * MIB, mls_backing_bytes(8 * MIB));
	f.opts.inline_work = _i == 0;
	disk = fixture_open(&f);
	for (lba = 0; lba < nr && !err; lba++)
		err = block_write(disk, lba, 1);
	ck_assert_int_eq(err, MLS_ENOSPC);
	written = lba - 1;
	ck_assert_uint_gt(written, 7 * MIB / MLS_BLOCK_BYTES);
	ck_assert_int_eq(mls_disk_sync(disk), 0);
	for (lba = 0; lba < written; lba++)
		ck_assert(block_is(disk, lba, 1));
	ck_assert_int_eq(mls_disk_discard(disk, 0, written / 2 * MLS_BLOCK_BYTES), 0);
	ck_assert_int_eq(mls_disk_sync(disk), 0);
	for (lba = 0; lba < written / 4; lba++)
		ck_assert_int_eq(block_write(disk, lba, 2), 0);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	disk = fixture_open(&f);
	for (lba = 0; lba < written; lba++)
		ck_assert(block_is(disk, lba, lba < written / 4 ? 2 : lba < written / 2 ? 0 : 1));
	ck_assert_int_eq(mls_disk_close(disk), 0);
	fixture_release(&f);
}
END_TEST

START_TEST(format_takes_constant_time_and_space)
{
	struct disk_fixture f;
	struct mls_disk *disk;
	struct mls_disk_stat stat;

	fixture_init(&f, UINT64_C(64) << 30, 64 * MIB);
	disk = fixture_open(&f);
	mls_disk_stat(disk, &stat);
	ck_assert_uint_eq(stat.disk_bytes, UINT64_C(64) << 30);
	ck_assert_int_eq(block_write(disk, (UINT64_C(64) << 30) / MLS_BLOCK_BYTES - 1, 9), 0);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	disk = fixture_open(&f);
	ck_assert(block_is(disk, (UINT64_C(64) << 30) / MLS_BLOCK_BYTES - 1, 9));
	ck_assert_int_eq(mls_disk_close(disk), 0);
	fixture_release(&f);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("disk");
	TCase *tc = tcase_create("disk");

	tcase_set_timeout(tc, 240);
	tcase_add_test(tc, unwritten_blocks_read_as_zeros);
	tcase_add_test(tc, a_read_over_written_and_unwritten_blocks_returns_both);
	tcase_add_test(tc, any_byte_range_works_like_memory);
	tcase_add_test(tc, outside_the_disk_is_refused);
	tcase_add_test(tc, seek_finds_data_and_holes);
	tcase_add_test(tc, many_open_write_close_rounds_lose_nothing);
	tcase_add_test(tc, what_was_not_synced_is_dropped_as_a_whole);
	tcase_add_test(tc, a_read_only_open_writes_nothing);
	tcase_add_test(tc, a_write_that_fails_beside_the_group_costs_nothing_synced);
	tcase_add_test(tc, a_failed_flush_stops_writing_until_reopened);
	tcase_add_test(tc, an_old_image_is_refused_and_accepted_once_on_demand);
	tcase_add_test(tc, two_clones_do_not_both_go_on);
	tcase_add_test(tc, a_lost_or_foreign_store_is_told);
	tcase_add_test(tc, a_wrong_key_is_told_before_anything_is_written);
	tcase_add_test(tc, an_old_superblock_is_refused_with_an_empty_wal);
	tcase_add_loop_test(tc, a_full_disk_is_overwritten_for_ever, 0, 4);
	tcase_add_loop_test(tc, a_thin_disk_that_runs_full_says_enospc_and_loses_nothing, 0, 2);
	tcase_add_test(tc, format_takes_constant_time_and_space);
	suite_add_tcase(suite, tc);
	if (!getenv("MLS_LOUD"))
		mls_set_logger(test_log_quiet, NULL);
	return check_run(suite);
}
