/* SPDX-License-Identifier: MPL-2.0 */
/*
 * sst_iter.c - why it exists: a merge reads whole tables once. It needs large reads, and a cache that
 * random lookups filled must not be emptied for it.
 */
#include <stdlib.h>

#include "4-lsm/sst_block.h"
#include "base/buf.h"
#include "base/checked.h"

struct mls_sst_iter {
	struct mls_sst *sst;
	struct mls_sst_block_disk *blocks;	/* [block, block + nr_blocks) of the table */
	uint64_t start_lba;			/* to be searched for in the first block; then 0 */
	uint64_t next_block;			/* the first one not read yet */
	uint32_t nr_blocks, max_blocks;
	uint32_t block;				/* where we are: index in blocks ... */
	unsigned rec;				/* ... and in the block */
};

int mls_sst_iter_new(struct mls_sst_iter **out, struct mls_sst *sst, uint64_t lba, uint32_t ahead_blocks)
{
	struct mls_sst_iter *iter = calloc(1, sizeof *iter);

	if (!iter)
		return MLS_ENOMEM;
	iter->max_blocks = (uint32_t)mls_min_u64(ahead_blocks ? ahead_blocks : MLS_SST_AHEAD_BLOCKS,
						 sst->nr_record_blocks);
	iter->blocks = mls_blocks_alloc(iter->max_blocks);
	if (!iter->blocks) {
		free(iter);
		return MLS_ENOMEM;
	}
	iter->sst = mls_sst_get(sst);
	iter->start_lba = lba;
	if (lba > sst->info.max_lba)
		iter->next_block = sst->nr_record_blocks;
	else if (lba > sst->info.min_lba)
		iter->next_block = mls_sst_find_block(sst, 0, lba);
	*out = iter;
	return 0;
}

void mls_sst_iter_free(struct mls_sst_iter *iter)
{
	if (!iter)
		return;
	mls_sst_put(iter->sst);
	mls_blocks_free(iter->blocks);
	free(iter);
}

/* MLS_ENOENT: all blocks have been read. */
static int read_ahead(struct mls_sst_iter *iter)
{
	uint64_t left = iter->sst->nr_record_blocks - iter->next_block;
	uint32_t nr = (uint32_t)mls_min_u64(iter->max_blocks, left);
	int err;

	if (nr == 0)
		return MLS_ENOENT;
	iter->nr_blocks = 0;	/* so that an error leaves nothing to go on with */
	iter->block = 0;
	err = mls_sst_read_blocks(iter->sst, iter->next_block, nr, iter->blocks);
	if (err)
		return err;
	iter->next_block += nr;
	iter->nr_blocks = nr;
	iter->rec = mls_sst_block_search(&iter->blocks[0], iter->start_lba);
	iter->start_lba = 0;
	return 0;
}

int mls_sst_iter_next(struct mls_sst_iter *iter, struct mls_index_rec *rec)
{
	while (iter->block == iter->nr_blocks || iter->rec == mls_sst_block_nr(&iter->blocks[iter->block])) {
		if (iter->block < iter->nr_blocks) {
			iter->block++;
			iter->rec = 0;
		}
		if (iter->block == iter->nr_blocks) {
			int err = read_ahead(iter);

			if (err)
				return err;
		}
	}
	mls_index_rec_decode(rec, &iter->blocks[iter->block].rec[iter->rec++]);
	return 0;
}
