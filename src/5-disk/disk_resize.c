/* SPDX-License-Identifier: MPL-2.0 */
/*
 * disk_resize.c - a disk grows while it is used.
 *
 *   device measured and flushed (its new size is durable) -> superblock, generation + 1, both copies
 *   -> table and allocator have the new runs -> a group with the new generation -> done
 *
 * A crash leaves the old superblock or the new one. Either is accepted until the group is durable; after
 * it, an old superblock put back is refused like any other rollback. The new part of the disk is
 * unmapped, so nothing has to be written for it.
 *
 * A generation that was tried and failed isn't given to another superblock: one copy may have it.
 * All of this is done between two syncs, so whoever syncs sees one generation.
 */
#include <string.h>

#include "5-disk/disk.h"
#include "base/checked.h"
#include "base/err.h"
#include "base/log.h"
#include "format/mlsdisk_format.h"

/* As many runs as the device has room for by now. */
static int measure(struct mls_disk *disk, struct mls_geometry *geo)
{
	uint64_t hba = mls_geometry_runs_hba(geo), dev_blocks, room;
	int err = mls_block_dev_measure(disk->dev, &dev_blocks);

	if (err || dev_blocks <= hba)
		return err;
	room = mls_min_u64((dev_blocks - hba) / geo->run_blocks, mls_geometry_max_runs(geo));
	if (room <= geo->nr_runs)
		return 0;
	geo->nr_runs = room;
	return mls_block_dev_flush(disk->dev);
}

static int write_superblock(struct mls_disk *disk, const struct mls_geometry *geo)
{
	struct mls_superblock sb = disk->sb;
	int err;

	sb.geo = *geo;
	sb.generation = mls_max_u64(disk->sb.generation, disk->generation_tried) + 1;
	disk->generation_tried = sb.generation;
	err = mls_superblock_write(disk->dev, disk->keys, &sb);
	if (err) {
		mls_error("disk: the superblock couldn't be written: %s; the disk keeps its size",
			  mls_strerror(err));
		return err;
	}
	disk->sb.generation = sb.generation;
	disk->sb.geo.disk_blocks = geo->disk_blocks;
	disk->sb.geo.nr_runs = geo->nr_runs;
	return 0;
}

static void warn_if_thin(const struct mls_geometry *geo)
{
	uint64_t needed = mls_backing_bytes(geo->disk_blocks * MLS_BLOCK_BYTES);
	uint64_t there = mls_geometry_end(geo) * MLS_BLOCK_BYTES;

	if (needed > there)
		mls_warn("disk: %llu bytes of BACKING are used, %llu are needed to fill the disk: it is thin now",
			 (unsigned long long)there, (unsigned long long)needed);
}

static int resize(struct mls_disk *disk, void *arg)
{
	struct mls_geometry geo = disk->sb.geo;
	uint64_t nr_blocks = *(const uint64_t *)arg;
	int err;

	if (mls_disk_stopped(disk) || mls_lsm_poisoned(disk->lsm))
		return MLS_EPOISONED;
	if (nr_blocks < geo.disk_blocks || nr_blocks > MLS_DISK_BLOCKS_MAX) {
		mls_error("disk: a size of %llu bytes was refused: it has %llu and can only grow, up to %llu",
			  (unsigned long long)(nr_blocks * MLS_BLOCK_BYTES),
			  (unsigned long long)(geo.disk_blocks * MLS_BLOCK_BYTES),
			  (unsigned long long)(MLS_DISK_BLOCKS_MAX * MLS_BLOCK_BYTES));
		return MLS_EINVAL;
	}
	geo.disk_blocks = nr_blocks;
	err = measure(disk, &geo);
	if (err || (geo.disk_blocks == disk->sb.geo.disk_blocks && geo.nr_runs == disk->sb.geo.nr_runs))
		return err;
	err = write_superblock(disk, &geo);
	if (err)
		return err;
	mls_segment_table_grow(disk->table, geo.nr_runs);
	err = mls_chunk_alloc_grow(disk->alloc, geo.nr_runs);
	if (err)	/* the next open has them */
		mls_warn("disk: the new space can't be used yet: %s", mls_strerror(err));
	mls_cleaner_resized(disk->cleaner);
	atomic_store(&disk->nr_blocks, geo.disk_blocks);
	atomic_store(&disk->disk_bytes, geo.disk_blocks * MLS_BLOCK_BYTES);
	warn_if_thin(&geo);
	mls_info("disk: %llu bytes in %llu runs now", (unsigned long long)atomic_load(&disk->disk_bytes),
		 (unsigned long long)geo.nr_runs);
	return mls_disk_write_group(disk);
}

int mls_disk_resize(struct mls_disk *disk, uint64_t new_bytes)
{
	uint64_t nr_blocks = new_bytes / MLS_BLOCK_BYTES;
	int err;

	if (disk->opts.read_only)
		return MLS_EROFS;
	err = mls_bury_all(disk->burier);	/* while space can be waited for */
	return err ? err : mls_disk_between_syncs(disk, resize, &nr_blocks);
}
