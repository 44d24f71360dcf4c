/* SPDX-License-Identifier: MPL-2.0 */
/*
 * block_log.h - layer 0: an append-only sequence of blocks over chunks that are got one by one.
 *
 * Role     Position -> HBA through a list of chunks of equal length. Appending asks a callback
 *          for a chunk when the last is full. Nothing here is authenticated.
 * Shapes   Position: block index from 0. chunk_blocks: blocks of each chunk.
 * Errors   append: what grow answers, MLS_EIO, MLS_ENOMEM; read: MLS_EINVAL past the end.
 * Threads  One appender, and no reader while it appends (the list of chunks may move). Any number of
 *          readers otherwise.
 */
#ifndef MLS_BIO_BLOCK_LOG_H
#define MLS_BIO_BLOCK_LOG_H

#include "0-bio/block_dev.h"

struct mls_block_log {
	struct mls_block_dev *dev;			/* borrowed */
	uint32_t chunk_blocks;
	uint64_t nr_blocks;				/* appended so far */
	uint64_t *chunk_hbas;				/* owned; first block of each chunk */
	uint32_t nr_chunks, cap_chunks;
	int (*grow)(void *arg, uint64_t *hba);		/* NULL: read-only */
	void *grow_arg;
};

void mls_block_log_init(struct mls_block_log *log, struct mls_block_dev *dev, uint32_t chunk_blocks,
			int (*grow)(void *arg, uint64_t *hba), void *grow_arg);

/* An existing one. chunk_hbas is copied. MLS_EINVAL: nr_blocks doesn't fit into the chunks. */
MLS_MUST_CHECK int mls_block_log_init_existing(struct mls_block_log *log, struct mls_block_dev *dev,
					       uint32_t chunk_blocks, const uint64_t *chunk_hbas,
					       uint32_t nr_chunks, uint64_t nr_blocks);
void mls_block_log_release(struct mls_block_log *log);
MLS_MUST_CHECK int mls_block_log_append(struct mls_block_log *log, const void *blocks, uint32_t nr_blocks);
MLS_MUST_CHECK int mls_block_log_read(const struct mls_block_log *log, uint64_t pos, uint32_t nr_blocks,
				      void *blocks);

#endif
