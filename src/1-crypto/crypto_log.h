/* SPDX-License-Identifier: MPL-2.0 */
/*
 * crypto_log.h - layer 1: a write-once list of blocks under a Merkle tree.
 *
 * Role     Random access to many blocks that stand under one small trusted root. Nodes hold the
 *          tags of their children (MLS_MHT_FANOUT a node) and are sealed as the data blocks are.
 *          The layout is fixed by the number of data blocks: a node follows its last child; the
 *          last, unfilled nodes follow at the end, lowest level first (doc/format.md).
 * Nonces   One random salt, so one key, per log; nonce = position in the block log, each sealed
 *          once. A log can't be opened for appending again.
 * Trust    Root (salt, tag, nr_data_blocks) comes from someone trusted; then every read is
 *          the data appended, or MLS_EAUTH.
 * Threads  Builder: one. Reader: any number; the node cache takes its own lock.
 */
#ifndef MLS_CRYPTO_LOG_H
#define MLS_CRYPTO_LOG_H

#include "0-bio/block_log.h"
#include "1-crypto/kdf.h"

#define MLS_MHT_FANOUT 255u	/* 255 tags of 16 bytes and a small header fit a block */

struct mls_log_root {
	uint8_t salt[MLS_SALT_BYTES];
	uint8_t tag[MLS_TAG_BYTES];
	uint64_t nr_data_blocks;
};

/* Data blocks and nodes together. */
uint64_t mls_crypto_log_total_blocks(uint64_t nr_data_blocks);

struct mls_crypto_log_builder;

/* raw is borrowed and empty. Buffers up to 64 sealed blocks before it writes. After an error all
 * calls but free answer MLS_EPOISONED. append's blocks may have any alignment. */
MLS_MUST_CHECK int mls_crypto_log_builder_new(struct mls_crypto_log_builder **builder, struct mls_block_log *raw,
					      const struct mls_keyring *keys);
MLS_MUST_CHECK int mls_crypto_log_append(struct mls_crypto_log_builder *builder, const void *blocks,
					 uint32_t nr_blocks);
/* Write the last nodes and give the root. Doesn't flush. MLS_EINVAL: nothing was appended. */
MLS_MUST_CHECK int mls_crypto_log_finish(struct mls_crypto_log_builder *builder, struct mls_log_root *root);
void mls_crypto_log_builder_free(struct mls_crypto_log_builder *builder);

struct mls_crypto_log;

/* raw is borrowed. Nothing is read yet. MLS_EINVAL: raw's length doesn't fit the root. */
MLS_MUST_CHECK int mls_crypto_log_open(struct mls_crypto_log **log, const struct mls_block_log *raw,
				       const struct mls_keyring *keys, const struct mls_log_root *root);
void mls_crypto_log_close(struct mls_crypto_log *log);

/* Where data block pos lies; for messages. */
uint64_t mls_crypto_log_hba(const struct mls_crypto_log *log, uint64_t pos);

/* blocks (aligned as for struct mls_io) gets nr_blocks of plaintext; all zeros on error.
 * MLS_EINVAL past the end; MLS_EAUTH; MLS_EIO; MLS_ENOMEM. */
MLS_MUST_CHECK int mls_crypto_log_read(struct mls_crypto_log *log, uint64_t pos, uint32_t nr_blocks, void *blocks);

/* One block, by a transfer that somebody else carries out along with others. */
struct mls_log_fetch {
	struct mls_crypto_log *log;
	uint64_t pos;
	uint8_t tag[MLS_TAG_BYTES];
};

/* io is what to read, into block; tree nodes that it needs are read here. Errors as of read. */
MLS_MUST_CHECK int mls_crypto_log_fetch_begin(struct mls_crypto_log *log, uint64_t pos, void *block,
					      struct mls_log_fetch *fetch, struct mls_io *io);
/* io has been tried. The block has plaintext, or zeros and an error. */
MLS_MUST_CHECK int mls_crypto_log_fetch_end(const struct mls_log_fetch *fetch, const struct mls_io *io);

#endif
