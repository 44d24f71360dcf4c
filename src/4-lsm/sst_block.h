/* SPDX-License-Identifier: MPL-2.0 */
/*
 * sst_block.h - layer 4, within sstable: one record block, and what readers and iterators share.
 *
 * Role     Blocks are checked once, when they come from the log (sst_read_blocks); searches then
 *          rely on it.
 */
#ifndef MLS_LSM_SST_BLOCK_H
#define MLS_LSM_SST_BLOCK_H

#include "4-lsm/sstable.h"
#include "base/checked.h"

#define MLS_SST_MAGIC "MlsSst1"		/* and its 0: 8 bytes */
#define MLS_SST_INDEX_PER_BLOCK (MLS_BLOCK_BYTES / 8)

struct mls_sst {
	struct mls_sst_info info;
	struct mls_log_reader *log;
	struct mls_block_cache *cache;	/* borrowed; NULL: none */
	uint64_t *index;		/* first LBA of each record block */
	uint64_t nr_record_blocks;
	uint32_t refs;			/* atomic */
	bool dead;			/* atomic */
	bool told;			/* atomic: see lsm_shadow.c */
};

static inline uint64_t mls_sst_nr_record_blocks(uint64_t nr_records)
{
	return nr_records / MLS_SST_RECS_PER_BLOCK + (nr_records % MLS_SST_RECS_PER_BLOCK != 0);
}

static inline uint64_t mls_sst_nr_index_blocks(uint64_t nr_record_blocks)
{
	return nr_record_blocks / MLS_SST_INDEX_PER_BLOCK + (nr_record_blocks % MLS_SST_INDEX_PER_BLOCK != 0);
}

static inline unsigned mls_sst_block_nr(const struct mls_sst_block_disk *block)
{
	return mls_get_le16(block->nr_records);
}

static inline uint64_t mls_sst_block_lba(const struct mls_sst_block_disk *block, unsigned k)
{
	return mls_get_le64(block->rec[k].lba);
}

/* What a table knows of one of its blocks without looking at it: its nr records have LBAs in [first, end), and first is
 * there. */
struct mls_sst_span {
	uint64_t first, end;
	unsigned nr;
};

static inline struct mls_sst_span mls_sst_span(const struct mls_sst *sst, uint64_t i)
{
	bool is_last = i == sst->nr_record_blocks - 1;

	return (struct mls_sst_span){
		.first = sst->index[i],
		.end = is_last ? sst->info.max_lba + 1 : sst->index[i + 1],
		.nr = is_last ? (unsigned)(sst->info.nr_records - i * MLS_SST_RECS_PER_BLOCK) : MLS_SST_RECS_PER_BLOCK,
	};
}

/*
 * The first record with an LBA >= lba; span->nr: none.
 *
 * A block is rarely in the CPU's caches, and a binary search would wait for one line after the other.
 * LBAs are mostly dense or evenly spread: guess the place, then go outward from there in growing steps. The guess
 * is made of what is known without the block: a lookup waited for its first and its last line before it had one.
 */
static inline unsigned mls_sst_block_search(const struct mls_sst_block_disk *block, const struct mls_sst_span *span,
					    uint64_t lba)
{
	unsigned lo = 0, hi = span->nr, step = 1, mid;

	if (lba <= span->first)
		return 0;
	if (lba >= span->end)
		return span->nr;
	/* From here on: lba(lo) < lba <= lba(hi), were there an hi. The product may wrap: a bad guess, no more. */
	mid = (unsigned)((lba - span->first) * hi / (span->end - span->first));
	while (hi - lo > 1) {
		uint64_t found;

		if (mid <= lo || mid >= hi)
			mid = lo + (hi - lo) / 2;
		found = mls_sst_block_lba(block, mid);
		if (found == lba)
			return mid;
		if (found < lba) {
			lo = mid;
			mid += step;
		} else {
			hi = mid;
			mid -= mls_min_u64(step, mid);
		}
		step *= 2;
	}
	return hi;
}

/* The record block, not before `from`, that lba is in if the table has it. index[from] <= lba. */
uint64_t mls_sst_find_block(const struct mls_sst *sst, uint64_t from, uint64_t lba);

/* Read nr record blocks and check that they are what the index tells. */
MLS_MUST_CHECK int mls_sst_read_blocks(const struct mls_sst *sst, uint64_t first, uint32_t nr,
				       struct mls_sst_block_disk *blocks);

#endif
