/* SPDX-License-Identifier: MPL-2.0 */
/* tamper.c - what the owner of BACKING can do to it; see tamper.h. */
#include "tests/lib/tamper.h"

#include <string.h>
#include <sys/mman.h>

#include "0-bio/block_dev.h"
#include "base/buf.h"
#include "base/err.h"

static const uint8_t zero[MLS_BLOCK_BYTES];

static void get(struct mls_block_dev *dev, uint64_t hba, void *block)
{
	MLS_INVARIANT(mls_block_dev_read(dev, hba, 1, block) == 0);
}

static void put(struct mls_block_dev *dev, uint64_t hba, const void *block)
{
	MLS_INVARIANT(mls_block_dev_write(dev, hba, 1, block) == 0);
}

static uint8_t *two_blocks(void)
{
	uint8_t *blocks = mls_blocks_alloc(2);

	MLS_INVARIANT(blocks != NULL);
	return blocks;
}

void tamper_flip_bit(struct mls_block_dev *dev, uint64_t hba, uint32_t bit)
{
	uint8_t *block = two_blocks();

	get(dev, hba, block);
	block[bit / 8] ^= (uint8_t)(1u << bit % 8);
	put(dev, hba, block);
	mls_blocks_free(block);
}

void tamper_swap(struct mls_block_dev *dev, uint64_t hba_a, uint64_t hba_b)
{
	uint8_t *blocks = two_blocks();

	get(dev, hba_a, blocks);
	get(dev, hba_b, mls_block_at(blocks, 1));
	put(dev, hba_b, blocks);
	put(dev, hba_a, mls_block_at(blocks, 1));
	mls_blocks_free(blocks);
}

void tamper_copy(struct mls_block_dev *dev, uint64_t from_hba, uint64_t to_hba)
{
	uint8_t *block = two_blocks();

	get(dev, from_hba, block);
	put(dev, to_hba, block);
	mls_blocks_free(block);
}

void tamper_fill(struct mls_block_dev *dev, uint64_t hba, uint64_t nr_blocks, uint8_t byte)
{
	uint8_t *block = two_blocks();

	memset(block, byte, MLS_BLOCK_BYTES);
	for (uint64_t i = 0; i < nr_blocks; i++)
		put(dev, hba + i, block);
	mls_blocks_free(block);
}

void tamper_image_take(struct tamper_image *image, struct mls_block_dev *dev)
{
	size_t bytes = (size_t)dev->nr_blocks * MLS_BLOCK_BYTES;
	uint8_t *block = two_blocks();

	/* A mapping, so that blocks of zeros cost nothing here either. */
	image->nr_blocks = dev->nr_blocks;
	image->bytes = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	MLS_INVARIANT(image->bytes != MAP_FAILED);
	for (uint64_t hba = 0; hba < dev->nr_blocks; hba++) {
		get(dev, hba, block);
		if (memcmp(block, zero, sizeof zero) != 0)
			memcpy(mls_block_at(image->bytes, hba), block, MLS_BLOCK_BYTES);
	}
	mls_blocks_free(block);
}

void tamper_image_release(struct tamper_image *image)
{
	if (image->bytes)
		munmap(image->bytes, (size_t)image->nr_blocks * MLS_BLOCK_BYTES);
	image->bytes = NULL;
	image->nr_blocks = 0;
}

void tamper_image_put_back_range(const struct tamper_image *image, struct mls_block_dev *dev, uint64_t hba,
				 uint64_t nr_blocks)
{
	uint8_t *block = two_blocks();

	for (uint64_t i = hba; i < hba + nr_blocks; i++) {
		const uint8_t *old = image->bytes + (size_t)i * MLS_BLOCK_BYTES;

		get(dev, i, block);		/* compared first: what is the same stays unallocated */
		if (memcmp(block, old, MLS_BLOCK_BYTES) != 0)
			put(dev, i, old);
	}
	mls_blocks_free(block);
}

void tamper_image_put_back(const struct tamper_image *image, struct mls_block_dev *dev)
{
	tamper_image_put_back_range(image, dev, 0, image->nr_blocks);
}

bool tamper_image_block_is_zero(const struct tamper_image *image, uint64_t hba)
{
	return memcmp(image->bytes + (size_t)hba * MLS_BLOCK_BYTES, zero, sizeof zero) == 0;
}

bool tamper_image_block_same(const struct tamper_image *a, const struct tamper_image *b, uint64_t hba)
{
	size_t at = (size_t)hba * MLS_BLOCK_BYTES;

	return memcmp(a->bytes + at, b->bytes + at, MLS_BLOCK_BYTES) == 0;
}
