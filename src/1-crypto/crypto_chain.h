/* SPDX-License-Identifier: MPL-2.0 */
/*
 * crypto_chain.h - layer 1: linked records, only ever appended to and read in order.
 *
 * Role     A chain of 4 KiB blocks on a ring. Each carries its predecessor's tag, so the tag of
 *          the last block is a digest of all. A *group* is a byte string over one or more blocks
 *          whose last is marked; a group is there as a whole or not at all.
 * Nonces   A writer draws a salt; the key derived from it seals this writer's blocks only; the
 *          nonce is the block's seq, which only grows in one writer. After an error the writer
 *          refuses all (MLS_EPOISONED): nobody knows which blocks were written.
 * Trust    The reader is given the position to start from, tag included, by someone trusted.
 *          It stops (MLS_ENOENT) at the first block that doesn't continue the chain: that may be
 *          the end, a torn write or an attack; who keeps a digest elsewhere can tell.
 * Space    The chain doesn't know what part of the ring is still needed: its user does.
 * Threads  One thread at a time per writer or reader.
 */
#ifndef MLS_CRYPTO_CHAIN_H
#define MLS_CRYPTO_CHAIN_H

#include "0-bio/block_ring.h"
#include "1-crypto/kdf.h"

/* Where the next block goes, and the tag of the one before (zeros at a chain's birth). */
struct mls_chain_pos {
	uint64_t seq;
	uint8_t tag[MLS_TAG_BYTES];
};

/* Payload bytes of one block, and blocks that a group of bytes takes (at least 1). */
#define MLS_CHAIN_ROOM_BYTES (MLS_BLOCK_BYTES - 80u)
uint64_t mls_chain_blocks(uint64_t group_bytes);

struct mls_chain_writer;

/* ring, keys borrowed; label is a string constant. Draws the salt. */
MLS_MUST_CHECK int mls_chain_writer_new(struct mls_chain_writer **writer, const struct mls_block_ring *ring,
					const struct mls_keyring *keys, const char *label,
					const struct mls_chain_pos *pos);
void mls_chain_writer_free(struct mls_chain_writer *writer);

/*
 * Append one group: begin, put as often as wanted, end. put writes out whenever its buffer
 * (64 blocks) is full; end writes the rest. Nothing is flushed. After end, writer's position is
 * behind the group, and its tag is the group's digest. MLS_ENOSPC (and poisoned): the group is
 * longer than the ring.
 */
MLS_MUST_CHECK int mls_chain_begin(struct mls_chain_writer *writer);
MLS_MUST_CHECK int mls_chain_put(struct mls_chain_writer *writer, const void *bytes, size_t nr_bytes);
MLS_MUST_CHECK int mls_chain_end(struct mls_chain_writer *writer);

/* end, and the last blocks take transfers along; see mls_block_ring_write_along. */
MLS_MUST_CHECK int mls_chain_end_along(struct mls_chain_writer *writer, struct mls_io *along, unsigned nr_along);
const struct mls_chain_pos *mls_chain_writer_pos(const struct mls_chain_writer *writer);

struct mls_chain_reader;

MLS_MUST_CHECK int mls_chain_reader_new(struct mls_chain_reader **reader, const struct mls_block_ring *ring,
					const struct mls_keyring *keys, const char *label,
					const struct mls_chain_pos *pos);
void mls_chain_reader_free(struct mls_chain_reader *reader);

/*
 * The next whole group. *bytes (owned by the reader, valid until the next call) and *nr_bytes.
 * Returns 0; MLS_ENOENT: no further whole group; MLS_EIO; MLS_ENOMEM. Never reads more blocks
 * than the ring has from the start position on. After 0, mls_chain_reader_pos is behind the group.
 */
MLS_MUST_CHECK int mls_chain_reader_next(struct mls_chain_reader *reader, const uint8_t **bytes,
					 size_t *nr_bytes);
const struct mls_chain_pos *mls_chain_reader_pos(const struct mls_chain_reader *reader);

/*
 * Only to word a refusal: does a block further on in the ring, of a seq behind the reader's
 * position, authenticate? Then what stopped the reader is damage rather than the chain's end.
 */
bool mls_chain_reader_more_behind(struct mls_chain_reader *reader);

#endif
