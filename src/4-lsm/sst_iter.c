/* SPDX-License-Identifier: MPL-2.0 */
/*
 * sst_iter.c - why it exists: a merge reads whole tables once. It needs large reads, and a cache that
 * random lookups filled must not be emptied for it. What is in the cache anyway is taken from there.
 *
 * Whoever looks for LBAs in ascending order skips: near by, blocks are read on in one go (a transfer costs
 * more than the blocks between); after a wide jump, the one block alone.
 */
#include <stdlib.h>
#include <string.h>

#include "4-lsm/sst_block.h"
#include "base/buf.h"
#include "base/checked.h"

#define NEAR_BLOCKS 16u

struct mls_sst_iter {
	struct mls_sst *sst;
	struct mls_sst_block_disk *blocks;	/* [block, block + nr_blocks) of the table */
	uint64_t start_lba;			/* to be searched for in the first block; then 0 */
	uint64_t next_block;			/* the first one not read yet */
	uint32_t nr_blocks, max_blocks;
	bool far;				/* the next block is read alone */
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

/* The next blocks, up to *nr, as far as they are in the cache; if none is, all are read. */
static int get_blocks(struct mls_sst_iter *iter, uint32_t *nr)
{
	struct mls_sst *sst = iter->sst;
	uint32_t i = 0;

	for (; sst->cache && i < *nr; i++) {
		struct mls_cached_block *cached =
			mls_block_cache_peek(sst->cache, sst->info.log_id, iter->next_block + i);

		if (!cached)
			break;
		memcpy(&iter->blocks[i], cached->data, MLS_BLOCK_BYTES);
		mls_block_cache_put(cached);
	}
	if (i == 0)
		return mls_sst_read_blocks(sst, iter->next_block, *nr, iter->blocks);
	*nr = i;
	return 0;
}

/* In block i of the table, which is blocks[at]. */
static unsigned search_block(const struct mls_sst_iter *iter, uint64_t i, uint64_t at, uint64_t lba)
{
	struct mls_sst_span span = mls_sst_span(iter->sst, i);

	return mls_sst_block_search(&iter->blocks[at], &span, lba);
}

/* MLS_ENOENT: all blocks have been read. */
static int read_ahead(struct mls_sst_iter *iter)
{
	uint64_t left = iter->sst->nr_record_blocks - iter->next_block;
	uint32_t nr = (uint32_t)mls_min_u64(iter->far ? 1 : iter->max_blocks, left);
	int err;

	if (nr == 0)
		return MLS_ENOENT;
	iter->nr_blocks = 0;	/* so that an error leaves nothing to go on with */
	iter->block = 0;
	err = get_blocks(iter, &nr);
	if (err)
		return err;
	iter->rec = search_block(iter, iter->next_block, 0, iter->start_lba);
	iter->next_block += nr;
	iter->nr_blocks = nr;
	iter->far = false;
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

void mls_sst_iter_skip(struct mls_sst_iter *iter, uint64_t lba)
{
	const struct mls_sst *sst = iter->sst;
	uint64_t first = iter->next_block - iter->nr_blocks, at = first + iter->block, target;
	unsigned rec;

	if (at == sst->nr_record_blocks || sst->index[at] >= lba)
		return;
	target = mls_sst_find_block(sst, at, lba);
	if (target >= iter->next_block) {
		iter->far = target - iter->next_block > NEAR_BLOCKS;
		iter->next_block = target;
		iter->nr_blocks = iter->block = 0;
		iter->start_lba = lba;
		return;
	}
	rec = search_block(iter, target, target - first, lba);
	iter->rec = target == at && rec < iter->rec ? iter->rec : rec;
	iter->block = (uint32_t)(target - first);
}
