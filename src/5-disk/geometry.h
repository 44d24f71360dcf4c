/* SPDX-License-Identifier: MPL-2.0 */
/*
 * geometry.h - layer 5: how BACKING is divided.
 *
 * Role     Chosen once, at format; stored in the superblock; checked against the device at each
 *          open. Constant time, whatever the size. mls_backing_bytes and its inverse
 *          mls_disk_bytes_for_backing (mlsdisk.h) are here, too.
 * Shapes   All in blocks of MLS_BLOCK_BYTES. Order on BACKING: superblocks, journal area 0, journal
 *          area 1, WAL ring, runs.
 * Source   doc/design.md 2; doc/format.md 1.
 */
#ifndef MLS_DISK_GEOMETRY_H
#define MLS_DISK_GEOMETRY_H

#include "mlsdisk/mlsdisk.h"

#define MLS_DISK_BLOCKS_MAX ((uint64_t)1 << 50)	/* 4 EiB: sums of such numbers don't wrap */
#define MLS_SPARE_RUNS_MIN 24u			/* beyond what data and index need: cleaning, compaction */
#define MLS_WAL_BLOCKS_MIN 16u

struct mls_geometry {
	uint64_t disk_blocks;		/* virtual size */
	uint64_t journal_area_blocks;	/* of each of the two */
	uint64_t wal_blocks;
	uint64_t nr_runs;
	uint32_t run_blocks;		/* power of two */
};

/*
 * Choose. opts: only the sizes count. The disk may be larger than what backing_blocks can hold (thin);
 * mls_backing_bytes says what is needed to fill it.
 *
 * Returns  0; MLS_EINVAL: a size in opts can't be; MLS_ENOSPC: too small for any disk.
 */
MLS_MUST_CHECK int mls_geometry_init(struct mls_geometry *geo, const struct mls_format_opts *opts,
				     uint64_t backing_blocks);

/* Can these numbers, read from the host, be a geometry? (Not: does it fit the device.) */
bool mls_geometry_possible(const struct mls_geometry *geo);

/* Where things lie. */
uint64_t mls_geometry_journal_hba(const struct mls_geometry *geo);	/* area 0; area 1 follows */
uint64_t mls_geometry_wal_hba(const struct mls_geometry *geo);
uint64_t mls_geometry_runs_hba(const struct mls_geometry *geo);		/* run 0 */
uint64_t mls_geometry_end(const struct mls_geometry *geo);		/* first block behind it all */

/* A segment of run_blocks ends with its summary: this many blocks are left for user data. */
uint32_t mls_segment_slots(uint32_t run_blocks);

/* The most runs this disk can ever have: what its journal areas have room for. */
uint64_t mls_geometry_max_runs(const struct mls_geometry *geo);

#endif
