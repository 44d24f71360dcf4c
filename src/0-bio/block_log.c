/* SPDX-License-Identifier: MPL-2.0 */
/*
 * block_log.c - an append-only sequence of blocks over chunks.
 *
 * Invariant: nr_blocks <= nr_chunks * chunk_blocks. A failed append leaves nr_blocks as it was; the
 * chunks it got stay in the list (their owner frees all of the list in the end), and the next append
 * writes into them.
 */
#include "0-bio/block_log.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/err.h"

#define IOS_MAX 16u		/* transfers a call; longer ranges take several calls */

void mls_block_log_init(struct mls_block_log *log, struct mls_block_dev *dev, uint32_t chunk_blocks,
			int (*grow)(void *arg, uint64_t *hba), void *grow_arg)
{
	MLS_INVARIANT(chunk_blocks > 0);
	memset(log, 0, sizeof *log);
	log->dev = dev;
	log->chunk_blocks = chunk_blocks;
	log->grow = grow;
	log->grow_arg = grow_arg;
}

int mls_block_log_init_existing(struct mls_block_log *log, struct mls_block_dev *dev, uint32_t chunk_blocks,
				const uint64_t *chunk_hbas, uint32_t nr_chunks, uint64_t nr_blocks)
{
	uint64_t *hbas = NULL;

	if (nr_blocks > (uint64_t)nr_chunks * chunk_blocks)
		return MLS_EINVAL;
	if (nr_chunks) {
		hbas = malloc(nr_chunks * sizeof *hbas);
		if (!hbas)
			return MLS_ENOMEM;
		memcpy(hbas, chunk_hbas, nr_chunks * sizeof *hbas);
	}
	mls_block_log_init(log, dev, chunk_blocks, NULL, NULL);
	log->chunk_hbas = hbas;
	log->nr_chunks = log->cap_chunks = nr_chunks;
	log->nr_blocks = nr_blocks;
	return 0;
}

void mls_block_log_release(struct mls_block_log *log)
{
	free(log->chunk_hbas);
	log->chunk_hbas = NULL;
	log->nr_chunks = log->cap_chunks = 0;
	log->nr_blocks = 0;
}

static int add_chunk(struct mls_block_log *log)
{
	uint64_t hba;
	int err;

	if (!log->grow)
		return MLS_EINVAL;
	if (log->nr_chunks == log->cap_chunks) {	/* memory first: a chunk we got must not be lost */
		uint32_t cap = log->cap_chunks ? log->cap_chunks * 2 : 4;
		uint64_t *hbas = realloc(log->chunk_hbas, cap * sizeof *hbas);

		if (!hbas)
			return MLS_ENOMEM;
		log->chunk_hbas = hbas;
		log->cap_chunks = cap;
	}
	err = log->grow(log->grow_arg, &hba);
	if (err)
		return err;
	log->chunk_hbas[log->nr_chunks++] = hba;
	return 0;
}

/* Transfer [pos, pos + nr_blocks), which lies within the chunks, IOS_MAX pieces at a time. */
static int transfer(const struct mls_block_log *log, uint64_t pos, uint32_t nr_blocks, uint8_t *data,
		    int (*call)(struct mls_block_dev *, struct mls_io *, unsigned))
{
	struct mls_io ios[IOS_MAX];
	int err = 0;

	while (nr_blocks && !err) {
		unsigned nr = 0;

		for (; nr < IOS_MAX && nr_blocks; nr++) {
			uint32_t within = (uint32_t)(pos % log->chunk_blocks);
			uint32_t piece = (uint32_t)mls_min_u64(nr_blocks, log->chunk_blocks - within);

			ios[nr] = (struct mls_io){ .hba = log->chunk_hbas[pos / log->chunk_blocks] + within,
						   .nr_blocks = piece,
						   .data = data };
			pos += piece;
			nr_blocks -= piece;
			data += (size_t)piece * MLS_BLOCK_BYTES;
		}
		err = call(log->dev, ios, nr);
	}
	return err;
}

int mls_block_log_append(struct mls_block_log *log, const void *blocks, uint32_t nr_blocks)
{
	uint64_t end;
	int err;

	if (!mls_add_u64(log->nr_blocks, nr_blocks, &end))
		return MLS_EINVAL;
	while (end > (uint64_t)log->nr_chunks * log->chunk_blocks) {
		err = add_chunk(log);
		if (err)
			return err;
	}
	err = transfer(log, log->nr_blocks, nr_blocks, (uint8_t *)(uintptr_t)blocks, mls_block_dev_writev);
	if (err)
		return err;
	log->nr_blocks = end;
	return 0;
}

int mls_block_log_read(const struct mls_block_log *log, uint64_t pos, uint32_t nr_blocks, void *blocks)
{
	if (!mls_range_within(pos, nr_blocks, log->nr_blocks))
		return MLS_EINVAL;
	return transfer(log, pos, nr_blocks, blocks, mls_block_dev_readv);
}
