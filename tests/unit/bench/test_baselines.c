/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_baselines.c - what MlsDisk is measured against does what it says: a baseline that is fast because
 * it is wrong would be no baseline.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "0-bio/block_dev.h"
#include "base/buf.h"
#include "bench/baselines/baseline_engine.h"
#include "tests/lib/check_run.h"
#include "tests/lib/crash_dev.h"

#define NR_BLOCKS 1024u

static struct mls_block_dev *dev;
static uint8_t *data, *seen;

static void set_up(void)
{
	ck_assert_int_eq(mls_block_dev_mem_new(&dev, NR_BLOCKS), 0);
	data = mls_blocks_zalloc(NR_BLOCKS);
	seen = mls_blocks_zalloc(NR_BLOCKS);
	ck_assert(data && seen);
}

static void tear_down(void)
{
	mls_blocks_free(data);
	mls_blocks_free(seen);
	mls_block_dev_destroy(dev);
}

static const struct mls_secret secret = {.data = "0123456789abcdef0123456789abcdef", .bytes = 32};

static struct mls_disk *open_kind(const char *kind)
{
	static const struct mls_open_opts opts;
	struct mls_disk *disk;

	ck_assert_int_eq(baseline_select(kind), 0);
	ck_assert_int_eq(mls_disk_open(&disk, dev, NULL, &secret, &opts), 0);
	return disk;
}

static void fill(uint8_t *out, size_t bytes, unsigned seed)
{
	for (size_t i = 0; i < bytes; i++)
		out[i] = (uint8_t)((seed = seed * 1103515245u + 12345u) >> 16);
}

/* IEEE 1619-2007, XTS-AES-256, vector 10: the first bytes of data unit 0xff. */
static const uint8_t xts_key[CRYPT_KEY_BYTES] = {
	0x27, 0x18, 0x28, 0x18, 0x28, 0x45, 0x90, 0x45, 0x23, 0x53, 0x60, 0x28, 0x74, 0x71, 0x35, 0x26,
	0x62, 0x49, 0x77, 0x57, 0x24, 0x70, 0x93, 0x69, 0x99, 0x59, 0x57, 0x49, 0x66, 0x96, 0x76, 0x27,
	0x31, 0x41, 0x59, 0x26, 0x53, 0x58, 0x97, 0x93, 0x23, 0x84, 0x62, 0x64, 0x33, 0x83, 0x27, 0x95,
	0x02, 0x88, 0x41, 0x97, 0x16, 0x93, 0x99, 0x37, 0x51, 0x05, 0x82, 0x09, 0x74, 0x94, 0x45, 0x92};
static const uint8_t xts_sealed[] = {
	0x1c, 0x3b, 0x3a, 0x10, 0x2f, 0x77, 0x03, 0x86, 0xe4, 0x83, 0x6c, 0x99, 0xe3, 0x70, 0xcf, 0x9b,
	0xea, 0x00, 0x80, 0x3f, 0x5e, 0x48, 0x23, 0x57, 0xa4, 0xae, 0x12, 0xd4, 0x14, 0xa3, 0xe6, 0x3b,
	0x5d, 0x31, 0xe2, 0x76, 0xf8, 0xfe, 0x4a, 0x8d, 0x66, 0xb3, 0x17, 0xf9, 0xac, 0x68, 0x3f, 0x44};

START_TEST(crypt_disk_gives_the_published_bytes)
{
	struct baseline *disk;

	for (unsigned i = 0; i < MLS_BLOCK_BYTES; i++)
		data[i] = (uint8_t)i;
	ck_assert_int_eq(crypt_disk_new(&disk, dev, xts_key), 0);
	ck_assert_int_eq(disk->ops->write(disk, 0xff, 1, data), 0);
	ck_assert_int_eq(mls_block_dev_read(dev, 0xff, 1, seen), 0);
	ck_assert_mem_eq(seen, xts_sealed, sizeof xts_sealed);
	ck_assert_int_eq(disk->ops->read(disk, 0xff, 1, seen), 0);
	ck_assert_mem_eq(seen, data, MLS_BLOCK_BYTES);
	ck_assert_int_eq(disk->ops->destroy(disk), 0);
}
END_TEST

/* Random ranges, whole blocks and not, reopened between; against a copy in memory. */
START_TEST(each_kind_keeps_what_was_written)
{
	static const char *const kinds[] = {"pass", "crypt", "pfs"};
	struct mls_disk *disk = open_kind(kinds[_i]);
	struct mls_disk_stat stat;
	unsigned seed = 7;
	uint64_t size;

	mls_disk_stat(disk, &stat);
	size = stat.disk_bytes;
	ck_assert_int_eq(mls_disk_discard(disk, 0, size), 0);
	for (unsigned round = 0; round < 300; round++) {
		bool whole = round % 3;
		uint64_t at = (seed = seed * 69069u + 1) % size;
		size_t bytes = (seed >> 8) % (size - at < 200000 ? size - at : 200000);

		if (whole) {
			at -= at % MLS_BLOCK_BYTES;
			bytes -= bytes % MLS_BLOCK_BYTES;
		}
		if (bytes == 0)
			continue;
		fill(data + at, bytes, round);
		ck_assert_int_eq(mls_disk_write(disk, at, data + at, bytes), 0);
		ck_assert_int_eq(mls_disk_read(disk, at, seen + at, bytes), 0);
		ck_assert_mem_eq(seen + at, data + at, bytes);
		if (round % 50 == 49)
			ck_assert_int_eq(mls_disk_sync(disk), 0);
		if (round % 100 == 99) {
			ck_assert_int_eq(mls_disk_close(disk), 0);
			disk = open_kind(kinds[_i]);
			ck_assert_int_eq(mls_disk_read(disk, 0, seen, size), 0);
			ck_assert_mem_eq(seen, data, size);
		}
	}
	ck_assert_int_eq(mls_disk_write(disk, size, data, 1), MLS_EINVAL);
	ck_assert_int_eq(mls_disk_close(disk), 0);
}
END_TEST

/* ---- PfsDisk ---- */

static const uint8_t pfs_key[MLS_KEY_BYTES] = {1, 2, 3};

START_TEST(pfs_disk_notices_each_changed_block)
{
	struct baseline *disk;
	int nr_noticed = 0;

	ck_assert_int_eq(pfs_disk_new(&disk, dev, pfs_key, 0), 0);
	fill(data, 64 * MLS_BLOCK_BYTES, 3);
	ck_assert_int_eq(disk->ops->write(disk, 0, 64, data), 0);
	ck_assert_int_eq(disk->ops->destroy(disk), 0);
	/* Without its journal: with it, what the last commit changed is taken for torn, and the commit undone. */
	ck_assert_int_eq(mls_block_dev_write(dev, 1, 1, seen), 0);
	for (uint64_t hba = 0; hba < NR_BLOCKS; hba++) {
		int err;

		ck_assert_int_eq(mls_block_dev_read(dev, hba, 1, seen), 0);
		seen[100] ^= 1;
		ck_assert_int_eq(mls_block_dev_write(dev, hba, 1, seen), 0);
		err = pfs_disk_new(&disk, dev, pfs_key, 0);
		if (!err) {
			err = disk->ops->read(disk, 0, 64, mls_block_at(data, 64));
			ck_assert_msg(err || memcmp(data, mls_block_at(data, 64), 64 * MLS_BLOCK_BYTES) == 0,
				      "block %llu", (unsigned long long)hba);
			ck_assert_int_eq(disk->ops->destroy(disk), 0);
		}
		nr_noticed += err == MLS_EAUTH;
		seen[100] ^= 1;
		ck_assert_int_eq(mls_block_dev_write(dev, hba, 1, seen), 0);
	}
	ck_assert_int_ge(nr_noticed, 64 + 3);	/* data, nodes, header */
	seen[0] = 9;
	ck_assert_int_eq(pfs_disk_new(&disk, dev, seen, 0), MLS_EAUTH);
}
END_TEST

#define PFS_BLOCKS 300u

static int overwrite(struct baseline *disk, uint8_t *model, unsigned round)
{
	int err = 0;

	for (unsigned i = 0; i < 20 && !err; i++) {
		uint64_t lba = (round * 31 + i * 7) % PFS_BLOCKS;

		fill(mls_block_at(model, lba), MLS_BLOCK_BYTES, round * 100 + i);
		err = disk->ops->write(disk, lba, 1, mls_block_at(model, lba));
	}
	return err ? err : disk->ops->flush(disk);
}

/*
 * Goal: after a power cut the disk is as at the last flush, or as at the one that was under way. Method: cut at
 * operation 1, 2, 3 ... of a commit; of what wasn't flushed any part may have got through.
 */
START_TEST(pfs_disk_survives_power_cuts)
{
	bool through = false;

	for (uint64_t cut = 1; !through; cut++) {
		struct test_power power = {.cut_at = 0};
		struct crash_dev *crash = crash_dev_new(dev, &power);
		struct baseline *disk;
		unsigned round;
		int err = 0;

		ck_assert_ptr_nonnull(crash);
		ck_assert_int_eq(pfs_disk_new(&disk, &crash->base, pfs_key, 0), 0);
		memset(data, 0, PFS_BLOCKS * MLS_BLOCK_BYTES);
		ck_assert_int_eq(disk->ops->write(disk, 0, PFS_BLOCKS, data), 0);
		for (round = 0; round < 3; round++)
			ck_assert_int_eq(overwrite(disk, data, round), 0);
		test_power_on(&power, cut);
		memcpy(seen, data, PFS_BLOCKS * MLS_BLOCK_BYTES);
		err = overwrite(disk, seen, round);	/* data: before; seen: after */
		through = !err;
		(void)disk->ops->destroy(disk);
		crash_dev_cut(crash, cut * 7919);
		test_power_on(&power, 0);

		ck_assert_int_eq(pfs_disk_new(&disk, &crash->base, pfs_key, 0), 0);
		ck_assert_int_eq(disk->ops->read(disk, 0, PFS_BLOCKS, mls_block_at(data, PFS_BLOCKS)), 0);
		ck_assert(memcmp(mls_block_at(data, PFS_BLOCKS), seen, PFS_BLOCKS * MLS_BLOCK_BYTES) == 0 ||
			  (err && memcmp(mls_block_at(data, PFS_BLOCKS), data, PFS_BLOCKS * MLS_BLOCK_BYTES) == 0));
		ck_assert_int_eq(overwrite(disk, seen, 9), 0);		/* and it goes on */
		ck_assert_int_eq(disk->ops->destroy(disk), 0);
		mls_block_dev_destroy(&crash->base);
		mls_block_dev_destroy(dev);
		ck_assert_int_eq(mls_block_dev_mem_new(&dev, NR_BLOCKS), 0);
	}
}
END_TEST

START_TEST(null_disk_touches_nothing)
{
	struct mls_disk *disk = open_kind("null");

	fill(data, MLS_BLOCK_BYTES, 1);
	memcpy(seen, data, MLS_BLOCK_BYTES);
	ck_assert_int_eq(mls_disk_write(disk, 0, data, MLS_BLOCK_BYTES), 0);
	ck_assert_int_eq(mls_disk_read(disk, 0, data, MLS_BLOCK_BYTES), 0);
	ck_assert_mem_eq(data, seen, MLS_BLOCK_BYTES);
	ck_assert_int_eq(mls_block_dev_read(dev, 0, 1, data), 0);
	ck_assert_int_eq(data[0], 0);
	ck_assert_int_eq(mls_disk_close(disk), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("baselines");
	TCase *tcase = tcase_create("all");

	tcase_add_checked_fixture(tcase, set_up, tear_down);
	tcase_add_test(tcase, crypt_disk_gives_the_published_bytes);
	tcase_add_loop_test(tcase, each_kind_keeps_what_was_written, 0, 3);
	tcase_add_test(tcase, pfs_disk_notices_each_changed_block);
	tcase_add_test(tcase, pfs_disk_survives_power_cuts);
	tcase_add_test(tcase, null_disk_touches_nothing);
	suite_add_tcase(suite, tcase);	return check_run(suite);
}
