/* SPDX-License-Identifier: MPL-2.0 */
/*
 * disk_fixture.h - a formatted disk in memory, for the tests of layer 5.
 *
 * A block's content is made of its LBA and a version, so that a test needn't keep copies: any
 * byte can be checked against what was written last.
 */
#ifndef MLS_TEST_DISK_FIXTURE_H
#define MLS_TEST_DISK_FIXTURE_H

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "mlsdisk/mlsdisk.h"
#include "tests/lib/test_store.h"

#define MIB (UINT64_C(1) << 20)

struct disk_fixture {
	struct mls_block_dev *dev;
	struct test_store store;
	struct mls_secret secret;
	struct mls_open_opts opts;
	uint8_t uuid[MLS_UUID_BYTES];
	uint64_t disk_bytes;
};

static const char fixture_key[32] = "0123456789abcdef0123456789abcde";

/* backing_bytes 0: what the disk needs. */
static inline void fixture_init(struct disk_fixture *f, uint64_t disk_bytes, uint64_t backing_bytes)
{
	struct mls_format_opts opts = { .disk_bytes = disk_bytes };

	memset(f, 0, sizeof *f);
	f->disk_bytes = disk_bytes;
	f->secret = (struct mls_secret){ fixture_key, sizeof fixture_key, false };
	f->opts.inline_work = true;
	if (!backing_bytes)
		backing_bytes = mls_backing_bytes(disk_bytes);
	test_store_init(&f->store, NULL);
	ck_assert_int_eq(mls_block_dev_mem_new(&f->dev, backing_bytes / MLS_BLOCK_BYTES), 0);
	ck_assert_int_eq(mls_uuid_new(f->uuid), 0);
	ck_assert_int_eq(mls_disk_format(f->dev, &f->store.base, &f->secret, f->uuid, &opts), 0);
}

static inline void fixture_release(struct disk_fixture *f)
{
	mls_block_dev_destroy(f->dev);
}

static inline int fixture_try_open(struct disk_fixture *f, struct mls_disk **disk)
{
	return mls_disk_open(disk, f->dev, &f->store.base, &f->secret, &f->opts);
}

static inline struct mls_disk *fixture_open(struct disk_fixture *f)
{
	struct mls_disk *disk = NULL;

	ck_assert_int_eq(fixture_try_open(f, &disk), 0);
	return disk;
}

/* Version 0 is "never written": zeros. */
static inline void block_fill(uint8_t *block, uint64_t lba, uint64_t version)
{
	uint64_t words[2] = { lba * 0x9e3779b97f4a7c15 + version, version };

	memset(block, 0, MLS_BLOCK_BYTES);
	for (size_t at = 0; version && at < MLS_BLOCK_BYTES; at += sizeof words)
		memcpy(block + at, words, sizeof words);
}

/* The version that block holds, whole, as content of lba; not 0. */
static inline uint64_t block_version(const uint8_t *block, uint64_t lba)
{
	uint8_t expected[MLS_BLOCK_BYTES];
	uint64_t version;

	memcpy(&version, block + 8, sizeof version);
	block_fill(expected, lba, version);
	ck_assert_mem_eq(block, expected, MLS_BLOCK_BYTES);
	return version;
}

static inline int block_write(struct mls_disk *disk, uint64_t lba, uint64_t version)
{
	uint8_t block[MLS_BLOCK_BYTES];

	block_fill(block, lba, version);
	return mls_disk_write(disk, lba * MLS_BLOCK_BYTES, block, sizeof block);
}

static inline bool block_is(struct mls_disk *disk, uint64_t lba, uint64_t version)
{
	uint8_t expected[MLS_BLOCK_BYTES], block[MLS_BLOCK_BYTES];

	block_fill(expected, lba, version);
	ck_assert_int_eq(mls_disk_read(disk, lba * MLS_BLOCK_BYTES, block, sizeof block), 0);
	return memcmp(expected, block, sizeof block) == 0;
}

#endif
