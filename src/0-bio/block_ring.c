/* SPDX-License-Identifier: MPL-2.0 */
/* block_ring.c - an endless sequence of blocks on a finite range; see block_ring.h. */
#include "0-bio/block_ring.h"

#include "base/checked.h"
#include "base/err.h"

int mls_block_ring_init(struct mls_block_ring *ring, struct mls_block_dev *dev, uint64_t hba, uint64_t nr_blocks)
{
	if (nr_blocks == 0 || !mls_range_within(hba, nr_blocks, dev->nr_blocks))
		return MLS_EINVAL;
	ring->dev = dev;
	ring->hba = hba;
	ring->nr_blocks = nr_blocks;
	return 0;
}

/* The one or two transfers that [seq, seq + nr_blocks) is; nr_blocks is within the ring's length. */
static unsigned map_ios(const struct mls_block_ring *ring, uint64_t seq, uint32_t nr_blocks, void *data,
			struct mls_io ios[2])
{
	uint64_t start = seq % ring->nr_blocks;
	uint32_t first = (uint32_t)mls_min_u64(nr_blocks, ring->nr_blocks - start);

	ios[0] = (struct mls_io){ .hba = ring->hba + start, .nr_blocks = first, .data = data };
	if (first == nr_blocks)
		return 1;
	ios[1] = (struct mls_io){ .hba = ring->hba,
				  .nr_blocks = nr_blocks - first,
				  .data = (uint8_t *)data + (size_t)first * MLS_BLOCK_BYTES };
	return 2;
}

int mls_block_ring_read(const struct mls_block_ring *ring, uint64_t seq, uint32_t nr_blocks, void *data)
{
	struct mls_io ios[2];

	if (nr_blocks > ring->nr_blocks)
		return MLS_EINVAL;
	if (nr_blocks == 0)
		return 0;
	return mls_block_dev_readv(ring->dev, ios, map_ios(ring, seq, nr_blocks, data, ios));
}

int mls_block_ring_write(const struct mls_block_ring *ring, uint64_t seq, uint32_t nr_blocks, const void *data)
{
	return mls_block_ring_write_along(ring, seq, nr_blocks, data, NULL, 0);
}

static int first_err(const struct mls_io *ios, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		if (ios[i].err)
			return ios[i].err;
	return 0;
}

int mls_block_ring_write_along(const struct mls_block_ring *ring, uint64_t seq, uint32_t nr_blocks, const void *data,
			       struct mls_io *along, unsigned nr_along)
{
	struct mls_io ios[2 + MLS_RING_ALONG_MAX];
	unsigned nr;
	int err;

	MLS_INVARIANT(nr_along <= MLS_RING_ALONG_MAX && (nr_along == 0 || nr_blocks > 0));
	if (nr_blocks > ring->nr_blocks)
		return MLS_EINVAL;
	if (nr_blocks == 0)
		return 0;
	nr = map_ios(ring, seq, nr_blocks, (void *)(uintptr_t)data, ios);
	for (unsigned i = 0; i < nr_along; i++) {
		ios[nr + i] = along[i];
		ios[nr + i].err = 0;
	}
	err = mls_block_dev_writev(ring->dev, ios, nr + nr_along);
	if (err && !first_err(ios, nr + nr_along))	/* none was done */
		return err;
	for (unsigned i = 0; i < nr_along; i++)
		along[i].err = ios[nr + i].err;
	return first_err(ios, nr);
}
