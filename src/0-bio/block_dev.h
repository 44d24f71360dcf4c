/* SPDX-License-Identifier: MPL-2.0 */
/*
 * block_dev.h - layer 0: an untrusted array of blocks.
 *
 * Role     The only door to the host. Nothing that comes through it is secret or true. The
 *          contract (struct mls_block_dev_ops) is public and stands in mlsdisk.h; here are the
 *          checked calls through which the layers above use it.
 * Errors   As in mlsdisk.h. These calls check the range, so an implementation needn't.
 * Threads  Any.
 * Source   doc/design.md 2; doc/format.md 1.
 */
#ifndef MLS_BIO_BLOCK_DEV_H
#define MLS_BIO_BLOCK_DEV_H

#include "mlsdisk/mlsdisk.h"

/* All nr transfers; MLS_EINVAL, and none done, if one is empty or lies outside the device. data that
 * isn't aligned to MLS_BLOCK_BYTES breaks an invariant. */
MLS_MUST_CHECK int mls_block_dev_readv(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr);
MLS_MUST_CHECK int mls_block_dev_writev(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr);

/* One transfer. */
MLS_MUST_CHECK int mls_block_dev_read(struct mls_block_dev *dev, uint64_t hba, uint32_t nr_blocks, void *data);
MLS_MUST_CHECK int mls_block_dev_write(struct mls_block_dev *dev, uint64_t hba, uint32_t nr_blocks,
				       const void *data);

MLS_MUST_CHECK int mls_block_dev_flush(struct mls_block_dev *dev);

/* A hint: 0 also when the device can't. */
int mls_block_dev_discard(struct mls_block_dev *dev, uint64_t hba, uint64_t nr_blocks);

/* Space for these blocks, so that writing them doesn't fail for want of it. MLS_ENOSPC: the host has none. */
MLS_MUST_CHECK int mls_block_dev_reserve(struct mls_block_dev *dev, uint64_t hba, uint64_t nr_blocks);

/* How many blocks it has; asks the host again where it can. */
MLS_MUST_CHECK int mls_block_dev_measure(struct mls_block_dev *dev, uint64_t *nr_blocks);

#endif
