/* SPDX-License-Identifier: MPL-2.0 */
/* test_geometry.c - a backing of the size we ask for holds the disk; sums and inverse agree, whatever the size. */
#include <check.h>
#include <stdlib.h>

#include "5-disk/geometry.h"
#include "format/mlsdisk_format.h"
#include "tests/lib/check_run.h"

#define MIB ((uint64_t)1 << 20)
#define PIB ((uint64_t)1 << 50)

static struct mls_geometry geometry_of(uint64_t disk_bytes, uint64_t backing_bytes)
{
	struct mls_format_opts opts = { .disk_bytes = disk_bytes };
	struct mls_geometry geo = { 0 };

	ck_assert_int_eq(mls_geometry_init(&geo, &opts, backing_bytes / MLS_BLOCK_BYTES), 0);
	return geo;
}

/* The powers of two, their neighbours, and steps between: from 1 MiB to 1 PiB. */
static uint64_t next_size(uint64_t bytes)
{
	uint64_t power = MIB;

	while (power <= bytes)
		power *= 2;
	if (bytes + MLS_BLOCK_BYTES >= power)
		return bytes + MLS_BLOCK_BYTES;
	bytes += bytes / 37 & ~(uint64_t)(MLS_BLOCK_BYTES - 1);
	return bytes >= power ? power - MLS_BLOCK_BYTES : bytes;
}

START_TEST(need_grows_with_the_disk_and_has_an_inverse)
{
	uint64_t before = 0;

	for (uint64_t disk = MIB; disk <= PIB; disk = next_size(disk)) {
		uint64_t backing = mls_backing_bytes(disk);

		ck_assert_msg(backing >= before, "%llu", (unsigned long long)disk);
		ck_assert(backing > disk + disk / 8);
		ck_assert(backing < disk + disk / 3 + 24 * MIB * 10);
		ck_assert(mls_disk_bytes_for_backing(backing) >= disk);
		ck_assert(mls_disk_bytes_for_backing(backing - 1) < disk ||
			  mls_backing_bytes(disk - MLS_BLOCK_BYTES) == backing);
		before = backing;
	}
}
END_TEST

START_TEST(disk_for_a_backing_is_the_largest_that_fits)
{
	for (uint64_t backing = 4 * MIB; backing <= PIB; backing = next_size(backing)) {
		uint64_t disk = mls_disk_bytes_for_backing(backing);

		ck_assert(disk > 0 && disk < backing && disk % MLS_BLOCK_BYTES == 0);
		ck_assert(mls_backing_bytes(disk) <= backing);
		ck_assert(mls_backing_bytes(disk + MLS_BLOCK_BYTES) > backing);
	}
	ck_assert_uint_eq(mls_disk_bytes_for_backing(0), 0);
	ck_assert_uint_eq(mls_disk_bytes_for_backing(MIB), 0);
	ck_assert_uint_gt(mls_disk_bytes_for_backing(UINT64_MAX), PIB);
	ck_assert_uint_eq(mls_backing_bytes(UINT64_MAX), UINT64_MAX);
	ck_assert_uint_gt(mls_backing_bytes(0), 0);
}
END_TEST

START_TEST(geometry_fits_and_holds_the_disk)
{
	for (uint64_t disk = MIB; disk <= PIB; disk = next_size(disk)) {
		uint64_t backing = mls_backing_bytes(disk);

		for (unsigned extra = 0; extra < 3; extra++) {
			uint64_t room = backing + extra * (backing / 5);
			struct mls_geometry geo = geometry_of(disk, room);
			uint64_t slots = mls_segment_slots(geo.run_blocks), data = disk / MLS_BLOCK_BYTES * 9 / 8;

			ck_assert(mls_geometry_possible(&geo));
			ck_assert(mls_geometry_end(&geo) * MLS_BLOCK_BYTES <= room);
			ck_assert(geo.nr_runs * slots >= data + MLS_SPARE_RUNS_MIN * slots);
			ck_assert(mls_geometry_journal_hba(&geo) == MLS_JOURNAL_HBA);
			ck_assert(mls_geometry_wal_hba(&geo) < mls_geometry_runs_hba(&geo));
		}
	}
}
END_TEST

START_TEST(sizes_follow_the_disk)
{
	struct mls_geometry geo;

	geo = geometry_of(64 * MIB, mls_backing_bytes(64 * MIB));
	ck_assert_uint_eq(geo.run_blocks, 64);
	ck_assert_uint_eq(geo.wal_blocks, 256);
	geo = geometry_of(MIB, mls_backing_bytes(MIB));
	ck_assert_uint_eq(geo.run_blocks, 16);
	ck_assert_uint_eq(geo.wal_blocks, 64);
	geo = geometry_of(4096 * MIB, mls_backing_bytes(4096 * MIB));
	ck_assert_uint_eq(geo.run_blocks, 1024);
	geo = geometry_of(PIB, mls_backing_bytes(PIB));
	ck_assert_uint_eq(geo.wal_blocks, 16384);
	/* Thin: a large disk on a small backing has the runs of a small one. */
	geo = geometry_of(PIB, 64 * MIB);
	ck_assert_uint_eq(geo.disk_blocks, PIB / MLS_BLOCK_BYTES);
	ck_assert_uint_le(geo.run_blocks, 64);
	ck_assert_uint_gt(geo.nr_runs, 128);
}
END_TEST

START_TEST(options_override)
{
	struct mls_format_opts opts = { .disk_bytes = 8 * MIB, .run_blocks = 32, .wal_blocks = 77 };
	struct mls_geometry geo = { 0 };

	ck_assert_int_eq(mls_geometry_init(&geo, &opts, 4096), 0);
	ck_assert_uint_eq(geo.run_blocks, 32);
	ck_assert_uint_eq(geo.wal_blocks, 77);

	opts.run_blocks = 24;
	ck_assert_int_eq(mls_geometry_init(&geo, &opts, 4096), MLS_EINVAL);
	opts.run_blocks = 8;
	ck_assert_int_eq(mls_geometry_init(&geo, &opts, 4096), MLS_EINVAL);
	opts.run_blocks = 8192;
	ck_assert_int_eq(mls_geometry_init(&geo, &opts, 1 << 20), MLS_EINVAL);
	opts.run_blocks = 16;
	opts.wal_blocks = 4;
	ck_assert_int_eq(mls_geometry_init(&geo, &opts, 4096), MLS_EINVAL);
	opts.wal_blocks = UINT32_MAX;
	ck_assert_int_eq(mls_geometry_init(&geo, &opts, 4096), MLS_ENOSPC);
	opts.wal_blocks = 0;
	opts.disk_bytes = 4095;
	ck_assert_int_eq(mls_geometry_init(&geo, &opts, 4096), MLS_EINVAL);
	opts.disk_bytes = UINT64_MAX;
	ck_assert_int_eq(mls_geometry_init(&geo, &opts, 4096), MLS_EINVAL);
}
END_TEST

START_TEST(too_small_is_no_space)
{
	struct mls_format_opts opts = { .disk_bytes = MIB };
	struct mls_geometry geo = { 0 };

	for (uint64_t blocks = 0; blocks < 300; blocks++)
		ck_assert_int_eq(mls_geometry_init(&geo, &opts, blocks), MLS_ENOSPC);
	ck_assert_int_eq(mls_geometry_init(&geo, &opts, mls_backing_bytes(MIB) / MLS_BLOCK_BYTES), 0);
	ck_assert_int_eq(mls_geometry_init(&geo, &opts, UINT64_MAX), 0);
	ck_assert(mls_geometry_possible(&geo));
}
END_TEST

/* A segment's summary must fit behind its slots, and no block may be given away. */
START_TEST(segment_slots_leave_room_for_the_summary)
{
	uint32_t head = sizeof(struct mls_blob_hdr_disk) + sizeof(struct mls_seg_summary_disk);

	for (uint32_t run = MLS_RUN_BLOCKS_MIN; run <= MLS_RUN_BLOCKS_MAX; run *= 2) {
		uint32_t slots = mls_segment_slots(run);
		uint32_t more = slots + 1;

		ck_assert_uint_le(head + slots * sizeof(struct mls_seg_slot_disk), (run - slots) * MLS_BLOCK_BYTES);
		ck_assert_uint_gt(head + more * sizeof(struct mls_seg_slot_disk), (run - more) * MLS_BLOCK_BYTES);
	}
}
END_TEST

START_TEST(impossible_numbers_are_seen)
{
	const struct mls_geometry good = geometry_of(64 * MIB, mls_backing_bytes(64 * MIB));
	const uint64_t evil[] = { 0, UINT64_MAX, UINT64_MAX / 2, UINT64_MAX / 1024, (uint64_t)1 << 53 };
	struct mls_geometry geo;

	ck_assert(mls_geometry_possible(&good));
	for (size_t i = 0; i < sizeof evil / sizeof evil[0]; i++) {
		geo = good, geo.disk_blocks = evil[i];
		ck_assert(!mls_geometry_possible(&geo));
		geo = good, geo.journal_area_blocks = evil[i];
		ck_assert(!mls_geometry_possible(&geo));
		geo = good, geo.wal_blocks = evil[i];
		ck_assert(!mls_geometry_possible(&geo));
		geo = good, geo.nr_runs = evil[i];
		ck_assert(!mls_geometry_possible(&geo));
		geo = good, geo.run_blocks = (uint32_t)evil[i] + (evil[i] == 0);
		ck_assert(!mls_geometry_possible(&geo));
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("geometry");
	TCase *tc = tcase_create("geometry");

	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, need_grows_with_the_disk_and_has_an_inverse);
	tcase_add_test(tc, disk_for_a_backing_is_the_largest_that_fits);
	tcase_add_test(tc, geometry_fits_and_holds_the_disk);
	tcase_add_test(tc, sizes_follow_the_disk);
	tcase_add_test(tc, options_override);
	tcase_add_test(tc, too_small_is_no_space);
	tcase_add_test(tc, segment_slots_leave_room_for_the_summary);
	tcase_add_test(tc, impossible_numbers_are_seen);
	suite_add_tcase(suite, tc);
	return check_run(suite);
}
