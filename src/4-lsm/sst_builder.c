/* SPDX-License-Identifier: MPL-2.0 */
/*
 * sst_builder.c - why it exists: sorted records become the blocks of a log, in one pass and with
 * little memory.
 *
 * Records are encoded straight into a buffer of BUF_BLOCKS blocks, which is appended when it is full.
 * The first LBA of each block is kept in memory until the end, when the index blocks and the footer
 * go through the same buffer. Record blocks can go into the cache as well: who looks for their records soon
 * needn't read them, one by one, from a device that is busy with other things.
 *
 * Invariants (the reader checks them): LBAs ascend strictly throughout; every record block but the
 * last is full; index[i] is the first LBA of record block i.
 */
#include <stdlib.h>
#include <string.h>

#include "4-lsm/sst_block.h"
#include "base/buf.h"
#include "base/err.h"

#define BUF_BLOCKS 64u

struct mls_sst_builder {
	struct mls_log_writer *log;
	uint8_t *buf;			/* BUF_BLOCKS blocks */
	uint32_t nr_full;		/* blocks in buf that are complete */
	unsigned nr_in_block;		/* records in the block after them */
	uint64_t *index;
	uint64_t nr_index, max_index;
	struct mls_sst_info info;
	struct mls_block_cache *cache;	/* or NULL */
	bool failed, finished;
};

uint64_t mls_sst_nr_blocks(uint64_t nr_records)
{
	uint64_t nr_record_blocks = mls_sst_nr_record_blocks(nr_records);

	return nr_record_blocks + mls_sst_nr_index_blocks(nr_record_blocks) + 1;
}

int mls_sst_builder_new(struct mls_sst_builder **out, struct mls_tx *tx, uint8_t bucket)
{
	struct mls_sst_builder *b = calloc(1, sizeof *b);
	int err = MLS_ENOMEM;

	if (!b)
		return MLS_ENOMEM;
	b->buf = mls_blocks_alloc(BUF_BLOCKS);
	if (!b->buf)
		goto fail;
	err = mls_tx_log_create(tx, bucket, &b->log, &b->info.log_id);
	if (err)
		goto fail;
	*out = b;
	return 0;
fail:
	mls_sst_builder_free(b);
	return err;
}

void mls_sst_builder_free(struct mls_sst_builder *b)
{
	if (!b)
		return;
	free(b->index);		/* an unfinished log is the transaction's, and goes with its abort */
	mls_blocks_free(b->buf);
	free(b);
}

void mls_sst_builder_set_cache(struct mls_sst_builder *b, struct mls_block_cache *cache)
{
	b->cache = cache;
}

/* Should the table never come to be, nobody asks for its blocks, and they leave as others do. */
static void cache_block(struct mls_sst_builder *b, uint64_t i, const void *block)
{
	struct mls_cached_block *cached = mls_block_cache_reserve(b->cache, b->info.log_id, i);

	if (!cached)
		return;
	memcpy(cached->data, block, MLS_BLOCK_BYTES);
	mls_block_cache_publish(b->cache, cached);
	mls_block_cache_put(cached);
}

static int builder_fail(struct mls_sst_builder *b, int err)
{
	b->failed = true;
	return err;
}

static int buf_append(struct mls_sst_builder *b)
{
	uint32_t nr = b->nr_full;

	b->nr_full = 0;
	return nr ? mls_log_append(b->log, b->buf, nr) : 0;
}

/* The next block of the buffer, which is full of zeros; call block_done when it is complete. */
static void *block_begin(struct mls_sst_builder *b)
{
	return memset(mls_block_at(b->buf, b->nr_full), 0, MLS_BLOCK_BYTES);
}

static int block_done(struct mls_sst_builder *b)
{
	return ++b->nr_full == BUF_BLOCKS ? buf_append(b) : 0;
}

static int record_block_done(struct mls_sst_builder *b)
{
	struct mls_sst_block_disk *block = (void *)mls_block_at(b->buf, b->nr_full);

	mls_put_le16(block->nr_records, (uint16_t)b->nr_in_block);
	b->nr_in_block = 0;
	if (b->cache)
		cache_block(b, b->nr_index - 1, block);
	return block_done(b);
}

static int index_push(struct mls_sst_builder *b, uint64_t lba)
{
	if (b->nr_index == b->max_index) {
		uint64_t max = b->max_index ? b->max_index * 2 : MLS_SST_INDEX_PER_BLOCK;
		uint64_t *index = realloc(b->index, max * sizeof *index);

		if (!index)
			return MLS_ENOMEM;
		b->index = index;
		b->max_index = max;
	}
	b->index[b->nr_index++] = lba;
	return 0;
}

int mls_sst_builder_add(struct mls_sst_builder *b, const struct mls_index_rec *rec)
{
	struct mls_sst_block_disk *block;
	int err;

	MLS_INVARIANT(!b->failed && !b->finished);
	MLS_INVARIANT(rec->lba != MLS_LBA_NONE);
	MLS_INVARIANT(b->info.nr_records == 0 || rec->lba > b->info.max_lba);

	if (b->nr_in_block == 0) {
		err = index_push(b, rec->lba);
		if (err)
			return builder_fail(b, err);
		block_begin(b);
	}
	block = (void *)mls_block_at(b->buf, b->nr_full);
	mls_index_rec_encode(&block->rec[b->nr_in_block++], rec);
	if (b->info.nr_records++ == 0)
		b->info.min_lba = rec->lba;
	b->info.max_lba = rec->lba;

	err = b->nr_in_block == MLS_SST_RECS_PER_BLOCK ? record_block_done(b) : 0;
	return err ? builder_fail(b, err) : 0;
}

uint64_t mls_sst_builder_nr_records(const struct mls_sst_builder *b)
{
	return b->info.nr_records;
}

static int write_index(struct mls_sst_builder *b)
{
	for (uint64_t i = 0; i < b->nr_index; i += MLS_SST_INDEX_PER_BLOCK) {
		uint8_t *block = block_begin(b);
		int err;

		for (unsigned k = 0; k < MLS_SST_INDEX_PER_BLOCK && i + k < b->nr_index; k++)
			mls_put_le64(block + k * 8, b->index[i + k]);
		err = block_done(b);
		if (err)
			return err;
	}
	return 0;
}

static int write_footer(struct mls_sst_builder *b)
{
	struct mls_sst_footer_disk *footer = block_begin(b);

	memcpy(footer->magic, MLS_SST_MAGIC, sizeof footer->magic);
	mls_put_le64(footer->nr_records, b->info.nr_records);
	mls_put_le64(footer->nr_record_blocks, b->nr_index);
	mls_put_le64(footer->nr_index_blocks, mls_sst_nr_index_blocks(b->nr_index));
	mls_put_le64(footer->min_lba, b->info.min_lba);
	mls_put_le64(footer->max_lba, b->info.max_lba);
	return block_done(b);
}

int mls_sst_builder_finish(struct mls_sst_builder *b, struct mls_sst_info *info)
{
	struct mls_log_writer *log = b->log;
	int err = 0;

	MLS_INVARIANT(!b->failed && !b->finished && b->info.nr_records > 0);

	if (b->nr_in_block)
		err = record_block_done(b);
	if (!err)
		err = write_index(b);
	if (!err)
		err = write_footer(b);
	if (!err)
		err = buf_append(b);
	if (err)
		return builder_fail(b, err);
	b->finished = true;
	b->log = NULL;
	err = mls_log_finish(log);
	if (err)
		return builder_fail(b, err);
	*info = b->info;
	return 0;
}
