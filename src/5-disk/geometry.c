/* SPDX-License-Identifier: MPL-2.0 */
/*
 * geometry.c - how BACKING is divided; see geometry.h.
 *
 * One sum, backing_blocks_for(), says what a disk of a given size needs. It grows with the size, so
 * its inverse is a binary search over it: the two can't contradict each other. Sizes that follow the
 * size of the disk (run, WAL ring) are chosen by the disk that BACKING can hold, so an over-large thin
 * disk on a small BACKING gets the runs of a small one.
 */
#include "5-disk/geometry.h"

#include "2-edit/journal.h"
#include "base/checked.h"
#include "base/err.h"
#include "format/mlsdisk_format.h"

#define RUNS_WANTED 256u			/* at least, where runs can be small enough */
#define RUN_BLOCKS_DEFAULT_MAX 1024u		/* 4 MiB */
#define WAL_DEFAULT_MAX 16384u			/* 64 MiB */
#define WAL_DEFAULT_MIN 256u			/* 1 MiB; tiny disks have less, but never under ... */
#define WAL_TINY_MIN 64u
#define INDEX_COPIES 3u				/* levels, and a compaction's input beside its output */

/* ---- Sizes by the size of the disk ---- */

static uint64_t clamp(uint64_t n, uint64_t min, uint64_t max)
{
	return mls_min_u64(mls_max_u64(n, min), max);
}

static uint32_t default_run_blocks(uint64_t disk_blocks)
{
	uint32_t run_blocks = MLS_RUN_BLOCKS_MIN;

	while (run_blocks < RUN_BLOCKS_DEFAULT_MAX && (uint64_t)run_blocks * 2 * RUNS_WANTED <= disk_blocks)
		run_blocks *= 2;
	return run_blocks;
}

static uint64_t default_wal_blocks(uint64_t disk_blocks)
{
	return clamp(disk_blocks / 64, clamp(disk_blocks / 16, WAL_TINY_MIN, WAL_DEFAULT_MIN), WAL_DEFAULT_MAX);
}

uint32_t mls_segment_slots(uint32_t run_blocks)
{
	/* The fewest summary blocks s with: head + (run_blocks - s) slots fit into s blocks. */
	uint32_t head = sizeof(struct mls_blob_hdr_disk) + sizeof(struct mls_seg_summary_disk);
	uint32_t slot = sizeof(struct mls_seg_slot_disk);
	uint32_t summary = (uint32_t)mls_div_round_up(head + slot * run_blocks, MLS_BLOCK_BYTES + slot);

	MLS_INVARIANT(summary < run_blocks);
	return run_blocks - summary;
}

/* ---- The sum and its inverse ---- */

static uint64_t runs_for(uint64_t disk_blocks, uint32_t run_blocks)
{
	uint64_t data = disk_blocks + disk_blocks / 8;
	uint64_t index = mls_div_round_up(disk_blocks, MLS_SST_RECS_PER_BLOCK) * INDEX_COPIES;

	index += index / 16;			/* SSTable indexes, tree nodes */
	return mls_div_round_up(data, mls_segment_slots(run_blocks)) + mls_div_round_up(index, run_blocks) +
	       MLS_SPARE_RUNS_MIN;
}

static uint64_t total_blocks(uint64_t nr_runs, uint32_t run_blocks, uint64_t wal_blocks)
{
	return MLS_JOURNAL_HBA + MLS_NR_JOURNAL_AREAS * mls_journal_area_blocks(nr_runs) + wal_blocks +
	       nr_runs * run_blocks;
}

static uint64_t backing_blocks_for(uint64_t disk_blocks)
{
	uint32_t run_blocks = default_run_blocks(disk_blocks);

	MLS_INVARIANT(disk_blocks <= MLS_DISK_BLOCKS_MAX);
	return total_blocks(runs_for(disk_blocks, run_blocks), run_blocks, default_wal_blocks(disk_blocks));
}

/* The largest disk that fits; 0: none. */
static uint64_t disk_blocks_for(uint64_t backing_blocks)
{
	uint64_t fits = 0, too_large = mls_min_u64(backing_blocks, MLS_DISK_BLOCKS_MAX) + 1;

	while (too_large - fits > 1) {
		uint64_t middle = fits + (too_large - fits) / 2;

		if (backing_blocks_for(middle) <= backing_blocks)
			fits = middle;
		else
			too_large = middle;
	}
	return fits;
}

/* The most runs for which there is room; 0: none. */
static uint64_t most_runs(uint64_t backing_blocks, uint32_t run_blocks, uint64_t wal_blocks)
{
	uint64_t fits = 0, too_many = backing_blocks / run_blocks + 1;

	while (too_many - fits > 1) {
		uint64_t middle = fits + (too_many - fits) / 2;

		if (total_blocks(middle, run_blocks, wal_blocks) <= backing_blocks)
			fits = middle;
		else
			too_many = middle;
	}
	return fits;
}

uint64_t mls_backing_bytes(uint64_t disk_bytes)
{
	uint64_t disk_blocks = disk_bytes / MLS_BLOCK_BYTES;	/* as format rounds it */

	if (disk_blocks > MLS_DISK_BLOCKS_MAX)
		return UINT64_MAX;
	return backing_blocks_for(mls_max_u64(disk_blocks, 1)) * MLS_BLOCK_BYTES;
}

uint64_t mls_disk_bytes_for_backing(uint64_t backing_bytes)
{
	return disk_blocks_for(backing_bytes / MLS_BLOCK_BYTES) * MLS_BLOCK_BYTES;
}

/* ---- A geometry ---- */

static bool run_blocks_possible(uint32_t run_blocks)
{
	return run_blocks >= MLS_RUN_BLOCKS_MIN && run_blocks <= MLS_RUN_BLOCKS_MAX &&
	       (run_blocks & (run_blocks - 1)) == 0;
}

int mls_geometry_init(struct mls_geometry *geo, const struct mls_format_opts *opts, uint64_t backing_blocks)
{
	struct mls_geometry g = { .disk_blocks = opts->disk_bytes / MLS_BLOCK_BYTES };
	uint64_t usable = mls_min_u64(backing_blocks, 2 * MLS_DISK_BLOCKS_MAX);
	uint64_t holds = mls_min_u64(g.disk_blocks, disk_blocks_for(usable));

	if (g.disk_blocks == 0 || g.disk_blocks > MLS_DISK_BLOCKS_MAX)
		return MLS_EINVAL;
	g.run_blocks = opts->run_blocks ? opts->run_blocks : default_run_blocks(holds);
	g.wal_blocks = opts->wal_blocks ? opts->wal_blocks : default_wal_blocks(holds);
	if (!run_blocks_possible(g.run_blocks) || g.wal_blocks < MLS_WAL_BLOCKS_MIN)
		return MLS_EINVAL;
	g.nr_runs = most_runs(usable, g.run_blocks, g.wal_blocks);
	if (g.nr_runs <= MLS_SPARE_RUNS_MIN)
		return MLS_ENOSPC;
	g.journal_area_blocks = mls_journal_area_blocks(g.nr_runs);
	MLS_INVARIANT(mls_geometry_possible(&g) && mls_geometry_end(&g) <= backing_blocks);
	*geo = g;
	return 0;
}

bool mls_geometry_possible(const struct mls_geometry *geo)
{
	const uint64_t max = 4 * MLS_DISK_BLOCKS_MAX;
	uint64_t run_total;

	return run_blocks_possible(geo->run_blocks) && geo->disk_blocks > 0 &&
	       geo->disk_blocks <= MLS_DISK_BLOCKS_MAX && geo->journal_area_blocks > 0 &&
	       geo->journal_area_blocks <= max && geo->wal_blocks >= MLS_WAL_BLOCKS_MIN &&
	       geo->wal_blocks <= max && geo->nr_runs > 0 &&
	       mls_mul_u64(geo->nr_runs, geo->run_blocks, &run_total) && run_total <= max;
}

uint64_t mls_geometry_journal_hba(const struct mls_geometry *geo)
{
	(void)geo;
	return MLS_JOURNAL_HBA;
}

uint64_t mls_geometry_wal_hba(const struct mls_geometry *geo)
{
	return MLS_JOURNAL_HBA + MLS_NR_JOURNAL_AREAS * geo->journal_area_blocks;
}

uint64_t mls_geometry_runs_hba(const struct mls_geometry *geo)
{
	return mls_geometry_wal_hba(geo) + geo->wal_blocks;
}

uint64_t mls_geometry_end(const struct mls_geometry *geo)
{
	return mls_geometry_runs_hba(geo) + geo->nr_runs * geo->run_blocks;
}

/*
 * An area has 256 bytes a run. A run takes 36 of a snapshot, and as many of the largest group, so three
 * times the runs that the area was made for take 216.
 */
uint64_t mls_geometry_max_runs(const struct mls_geometry *geo)
{
	uint64_t fits = 0, too_many = 2 * MLS_DISK_BLOCKS_MAX / geo->run_blocks + 1;

	while (too_many - fits > 1) {
		uint64_t middle = fits + (too_many - fits) / 2;

		if (mls_journal_area_blocks(middle) <= geo->journal_area_blocks)
			fits = middle;
		else
			too_many = middle;
	}
	return mls_max_u64(geo->nr_runs, mls_min_u64(3 * fits, 2 * MLS_DISK_BLOCKS_MAX / geo->run_blocks));
}
