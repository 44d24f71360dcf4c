/* SPDX-License-Identifier: MPL-2.0 */
/*
 * tamper.h - what the owner of BACKING can do to it: change, swap, put old bytes back.
 *
 * Works on any device, best on one in memory. The disk above must be closed or be one whose caches
 * the test knows about. An error of the device stops the test.
 */
#ifndef MLS_TEST_TAMPER_H
#define MLS_TEST_TAMPER_H

#include "mlsdisk/mlsdisk.h"

void tamper_flip_bit(struct mls_block_dev *dev, uint64_t hba, uint32_t bit);	/* bit < 8 * MLS_BLOCK_BYTES */
void tamper_swap(struct mls_block_dev *dev, uint64_t hba_a, uint64_t hba_b);
void tamper_copy(struct mls_block_dev *dev, uint64_t from_hba, uint64_t to_hba);
void tamper_fill(struct mls_block_dev *dev, uint64_t hba, uint64_t nr_blocks, uint8_t byte);

/* A whole image, kept aside. */
struct tamper_image {
	uint64_t nr_blocks;
	uint8_t *bytes;			/* owned */
};

void tamper_image_take(struct tamper_image *image, struct mls_block_dev *dev);
void tamper_image_release(struct tamper_image *image);
void tamper_image_put_back(const struct tamper_image *image, struct mls_block_dev *dev);
void tamper_image_put_back_range(const struct tamper_image *image, struct mls_block_dev *dev, uint64_t hba,
				 uint64_t nr_blocks);
bool tamper_image_block_is_zero(const struct tamper_image *image, uint64_t hba);
bool tamper_image_block_same(const struct tamper_image *a, const struct tamper_image *b, uint64_t hba);

#endif
