/* SPDX-License-Identifier: MPL-2.0 */
/*
 * disk_stack.c - all layers wired, bottom to top, for a disk whose superblock has been read.
 *
 * Read mls_disk_stack_new and you know the architecture.
 */
#include <stdlib.h>
#include <string.h>

#include "1-crypto/crypto_chain.h"
#include "5-disk/disk.h"
#include "base/checked.h"
#include "base/err.h"

#define SEG_BUFS 8u			/* whole segments in memory: 32 MiB at full run size */
#define CACHE_BYTES_DEFAULT (UINT64_C(160) << 20)
#define MEMTABLE_RECORDS_MAX 262144u
#define MEMTABLE_RECORDS_MIN 64u

/* Everything a memtable's syncs write must fit into a third of the ring; and the records that
 * compaction hasn't met yet should stay a small part of the disk. */
static uint32_t memtable_records(const struct mls_disk *disk)
{
	uint64_t by_ring = disk->sb.geo.wal_blocks / 3 * (MLS_CHAIN_ROOM_BYTES / 32);
	uint64_t by_size = mls_max_u64(disk->sb.geo.disk_blocks / 8, 1024);
	uint64_t nr = disk->opts.memtable_records ? disk->opts.memtable_records : mls_min_u64(by_size, MEMTABLE_RECORDS_MAX);

	return (uint32_t)mls_max_u64(mls_min_u64(nr, by_ring), MEMTABLE_RECORDS_MIN);
}

/* A compacted table should fill one run: runs are what it takes from the pool. Some blocks of it are for what
 * isn't records: index, footer, nodes of the tree. */
static uint32_t run_records(const struct mls_disk *disk)
{
	uint64_t nr_blocks = (uint64_t)disk->sb.geo.run_blocks * 9 / 10;

	return (uint32_t)(mls_max_u64(nr_blocks - mls_min_u64(nr_blocks, 4), 1) * MLS_SST_RECS_PER_BLOCK);
}

/* Who asks for a small memtable asks for small tables, too. */
static uint32_t table_records(const struct mls_disk *disk)
{
	uint32_t by_run = run_records(disk);

	return disk->opts.memtable_records ? (uint32_t)mls_min_u64(by_run, memtable_records(disk)) : by_run;
}

/* Before an index transaction names records, their blocks are on their way to the device, so that
 * the journal's flush covers them. */
static int bring_data_out(void *arg)
{
	struct mls_disk *disk = arg;

	return disk->writer ? mls_seg_write_out(disk->writer) : 0;
}

int mls_disk_stack_new(struct mls_disk *disk)
{
	const struct mls_geometry *geo = &disk->sb.geo;
	struct mls_lsm_listener listener;
	struct mls_lsm_opts lsm_opts;
	int err;

	disk->disk_bytes = geo->disk_blocks * MLS_BLOCK_BYTES;
	disk->nr_blocks = geo->disk_blocks;
	disk->table_records = table_records(disk);
	disk->opts.memtable_records = memtable_records(disk);
	if (!disk->opts.cache_bytes)
		disk->opts.cache_bytes = CACHE_BYTES_DEFAULT;

	/* Layer 3's allocator is the first to be made: it knows nothing of the others. */
	err = mls_chunk_alloc_new(&disk->alloc, mls_geometry_runs_hba(geo), geo->run_blocks, geo->nr_runs);
	if (!err && !disk->opts.read_only)
		mls_backing_init(&disk->backing, disk->dev, disk->meter.inner, disk->alloc,
				 !disk->opts.no_discard);
	/* Layer 2 */
	if (!err)
		err = mls_journal_new(&disk->journal, disk->dev, disk->keys, mls_geometry_journal_hba(geo),
				      geo->journal_area_blocks);
	/* Layer 3 */
	if (!err)
		err = mls_tx_store_new(&disk->logs, disk->dev, disk->alloc, disk->keys, disk->journal);
	/* Layer 5's table stands beside the index, which tells it of births and deaths */
	if (!err)
		err = mls_segment_table_new(&disk->table, disk->alloc, disk->journal, disk->keys,
					    mls_geometry_max_runs(geo));
	if (err)
		return err;
	mls_segment_table_listener(disk->table, &listener, bring_data_out, disk);
	mls_segment_table_count(disk->table, mls_disk_session_totals, disk);
	/* Layer 4 */
	lsm_opts = (struct mls_lsm_opts){ .memtable_records = disk->opts.memtable_records,
					  .table_records = disk->table_records,
					  .run_records = run_records(disk),
					  .cache_bytes = disk->opts.cache_bytes,
					  .inline_work = disk->opts.inline_work,
					  .read_only = disk->opts.read_only };
	err = mls_block_ring_init(&disk->wal_ring, disk->dev, mls_geometry_wal_hba(geo), geo->wal_blocks);
	if (!err)
		err = mls_lsm_new(&disk->lsm, disk->logs, disk->journal, disk->keys, &disk->wal_ring, &listener,
				  &lsm_opts);
	/* Layer 5 */
	if (!err)
		err = mls_seg_writer_new(&disk->writer, disk->dev, disk->alloc, disk->table, disk->keys,
					 disk->opts.read_only ? 0 : SEG_BUFS,
					 disk->opts.inline_work || disk->opts.read_only);
	if (!err)
		err = mls_read_pool_init(&disk->read_pool, disk->opts.inline_work ? 1 : MLS_READ_BUFS_MAX);
	if (!err && !disk->opts.read_only && disk->meter.inner->ops->reserve)
		err = mls_seg_writer_claim_ahead(disk->writer);
	return err;
}

void mls_disk_stack_free(struct mls_disk *disk)
{
	mls_read_ahead_free(disk->ahead);
	mls_defrag_stop(disk->defrag);		/* it asks the cleaner, and the cleaner it */
	mls_cleaner_free(disk->cleaner);	/* its syncs bury */
	mls_defrag_free(disk->defrag);
	mls_burier_free(disk->burier);
	mls_lsm_free(disk->lsm);
	mls_read_pool_release(&disk->read_pool);
	mls_seg_writer_free(disk->writer);
	mls_segment_table_free(disk->table);
	mls_tx_store_free(disk->logs);
	mls_journal_free(disk->journal);
	mls_backing_release(&disk->backing);
	mls_chunk_alloc_free(disk->alloc);
	mls_keyring_free(disk->keys);
}
