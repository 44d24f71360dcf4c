/* SPDX-License-Identifier: MPL-2.0 */
/*
 * block_ring.h - layer 0: an endless sequence of blocks on a finite range.
 *
 * Role     Block seq lies at seq % nr_blocks; a transfer that runs over the end is split in two.
 *          The ring knows nothing of what is still needed: its user keeps the distance.
 * Shapes   seq: uint64_t from 0, never wraps in practice. nr_blocks <= the ring's length.
 * Threads  Any.
 */
#ifndef MLS_BIO_BLOCK_RING_H
#define MLS_BIO_BLOCK_RING_H

#include "0-bio/block_dev.h"

struct mls_block_ring {
	struct mls_block_dev *dev;	/* borrowed */
	uint64_t hba;			/* of block 0 */
	uint64_t nr_blocks;
};

/* MLS_EINVAL: the range isn't within dev, or empty. */
MLS_MUST_CHECK int mls_block_ring_init(struct mls_block_ring *ring, struct mls_block_dev *dev, uint64_t hba,
				       uint64_t nr_blocks);
MLS_MUST_CHECK int mls_block_ring_read(const struct mls_block_ring *ring, uint64_t seq, uint32_t nr_blocks,
				       void *data);
MLS_MUST_CHECK int mls_block_ring_write(const struct mls_block_ring *ring, uint64_t seq, uint32_t nr_blocks,
					const void *data);

/*
 * The same, with up to MLS_RING_ALONG_MAX transfers to anywhere on the ring's device that go along: one call for
 * all. What becomes of them stands in the err of each, and only there; where nothing was written at all, they keep
 * the err that they had.
 */
#define MLS_RING_ALONG_MAX 6u
MLS_MUST_CHECK int mls_block_ring_write_along(const struct mls_block_ring *ring, uint64_t seq, uint32_t nr_blocks,
					      const void *data, struct mls_io *along, unsigned nr_along);

#endif
