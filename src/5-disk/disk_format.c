/* SPDX-License-Identifier: MPL-2.0 */
/*
 * disk_format.c - makes a disk, in constant time.
 *
 * The superblock is written last: until then nothing on the device is an MlsDisk, neither the old
 * one (its superblocks go first) nor the new one.
 */
#include <stdlib.h>
#include <string.h>

#include "5-disk/disk.h"
#include "base/buf.h"
#include "base/checked.h"
#include "base/err.h"
#include "base/log.h"
#include "base/rand.h"

#define ZEROS_BLOCKS 512u

/* What isn't a run gets its space now, so that a sync doesn't depend on what the host has left. */
static int reserve_space(struct mls_block_dev *dev, const struct mls_geometry *geo)
{
	int err = mls_backing_fixed(dev, geo);

	if (err == MLS_ENOSPC)
		mls_error("format: the host has no space for journal and WAL (%llu bytes)",
			  (unsigned long long)(mls_geometry_runs_hba(geo) * MLS_BLOCK_BYTES));
	return err;
}

/*
 * Of a file, each block of the WAL is written once: the flush of a first write waits for the host's file
 * system, too, and every sync of the first lap would meet one. At most 64 MiB, whatever the disk's size.
 */
static int write_wal_once(struct mls_block_dev *dev, const struct mls_block_dev *inner, const struct mls_geometry *geo)
{
	uint64_t hba = mls_geometry_wal_hba(geo), left = inner->ops->reserve ? geo->wal_blocks : 0;
	void *zeros = mls_blocks_zalloc(ZEROS_BLOCKS);
	int err = zeros ? 0 : MLS_ENOMEM;

	while (left > 0 && !err) {
		uint32_t nr = (uint32_t)mls_min_u64(left, ZEROS_BLOCKS);

		err = mls_block_dev_write(dev, hba, nr, zeros);
		hba += nr;
		left -= nr;
	}
	mls_blocks_free(zeros);
	return err;
}

static int wipe_superblocks(struct mls_block_dev *dev)
{
	void *zeros = mls_blocks_zalloc(1);
	int err = zeros ? 0 : MLS_ENOMEM;

	if (!err)
		err = mls_block_dev_write(dev, MLS_SUPERBLOCK_HBA_0, 1, zeros);
	if (!err)
		err = mls_block_dev_write(dev, MLS_SUPERBLOCK_HBA_1, 1, zeros);
	if (!err)
		err = mls_block_dev_flush(dev);
	mls_blocks_free(zeros);
	return err;
}

/* An empty index, an empty journal, and a WAL that starts with a random tag. */
static int write_state(struct mls_disk *disk, struct mls_trust *trust)
{
	uint8_t session[MLS_SESSION_BYTES];
	int err = mls_rand_bytes(session, sizeof session);

	if (!err)
		err = mls_rand_bytes(trust->digest, sizeof trust->digest);
	if (!err)
		err = mls_disk_stack_new(disk);
	if (err)
		return err;
	mls_lsm_format(disk->lsm, trust->digest, session);
	return mls_journal_start(disk->journal, session);
}

static int store_first(struct mls_disk *disk, const struct mls_trust *trust)
{
	uint8_t key[MLS_KEY_BYTES];
	int err = 0;

	if (!disk->store)
		return 0;
	if (disk->store->ops->set_key) {
		err = mls_key_derive(disk->keys, "store", NULL, key);
		if (!err)
			err = disk->store->ops->set_key(disk->store, key);
		mls_wipe(key, sizeof key);
	}
	return err ? err : disk->store->ops->advance(disk->store, trust);
}

int mls_disk_format(struct mls_block_dev *dev, struct mls_trusted_store *store, const struct mls_secret *secret,
		    const uint8_t uuid[MLS_UUID_BYTES], const struct mls_format_opts *opts)
{
	struct mls_disk *disk = calloc(1, sizeof *disk);
	struct mls_trust trust = { .sync_id = 0 };
	struct mls_geometry geo;
	int err;

	if (!disk)
		return MLS_ENOMEM;
	mls_block_meter_init(&disk->meter, dev);
	disk->dev = &disk->meter.base;
	disk->store = store;
	disk->opts.inline_work = true;
	memcpy(trust.uuid, uuid, sizeof trust.uuid);

	err = mls_geometry_init(&geo, opts, dev->nr_blocks);
	if (!err)
		err = mls_superblock_new(&disk->sb, &disk->keys, &geo, uuid, secret, opts->scrypt_log_n, "format");
	if (!err)
		err = wipe_superblocks(disk->dev);
	if (!err)
		err = reserve_space(disk->dev, &geo);
	if (!err)
		err = write_wal_once(disk->dev, dev, &geo);
	if (!err)
		err = write_state(disk, &trust);
	if (!err)
		err = store_first(disk, &trust);
	if (!err)
		err = mls_superblock_write(disk->dev, disk->keys, &disk->sb);
	mls_disk_stack_free(disk);
	free(disk);
	return err;
}
