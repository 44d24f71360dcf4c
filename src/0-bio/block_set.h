/* SPDX-License-Identifier: MPL-2.0 */
/*
 * block_set.h - layer 0: a range of a device, itself a device.
 *
 * Role     Gives a module its own blocks, counted from 0, and none of the others.
 * Errors   MLS_EINVAL from new if the range isn't within inner. Flush goes to inner.
 */
#ifndef MLS_BIO_BLOCK_SET_H
#define MLS_BIO_BLOCK_SET_H

#include "0-bio/block_dev.h"

/* inner is borrowed. */
MLS_MUST_CHECK int mls_block_set_new(struct mls_block_dev **set, struct mls_block_dev *inner, uint64_t hba,
				     uint64_t nr_blocks);

#endif
