/* SPDX-License-Identifier: MPL-2.0 */
/*
 * baseline.h - the disks that MlsDisk is measured against, on its own block layer.
 *
 * Role     Four ways to answer reads and writes of blocks. baseline_engine.c puts any of them behind
 *          the engine's public calls, so that the FUSE front end serves it unchanged: what is
 *          measured is the difference between the disks, nothing else.
 * Shapes   Whole blocks; data is aligned to MLS_BLOCK_BYTES.
 * Errors   enum mls_err, as the engine's.
 * Threads  Any, any time, but destroy. Overlapping writes in flight at once leave either's bytes.
 */
#ifndef MLS_BENCH_BASELINE_H
#define MLS_BENCH_BASELINE_H

#include "1-crypto/aead.h"
#include "mlsdisk/mlsdisk.h"

struct baseline;

struct baseline_ops {
	int (*read)(struct baseline *disk, uint64_t lba, uint32_t nr_blocks, void *data);
	int (*write)(struct baseline *disk, uint64_t lba, uint32_t nr_blocks, const void *data);
	int (*flush)(struct baseline *disk);	/* 0: what was written before survives a power cut */
	int (*destroy)(struct baseline *disk);	/* flushes; frees disk, not the device */
};

struct baseline {
	const struct baseline_ops *ops;
	uint64_t nr_blocks;
};

/* Touches nothing: reads leave data as it is, writes are dropped. As large as dev. */
MLS_MUST_CHECK int null_disk_new(struct baseline **disk, struct mls_block_dev *dev);

/* Hands everything on to dev. */
MLS_MUST_CHECK int pass_disk_new(struct baseline **disk, struct mls_block_dev *dev);

/* In-place AES-256-XTS, a block a sector, tweak = le128 LBA. key: two AES-256 keys, unequal. */
#define CRYPT_KEY_BYTES 64u
MLS_MUST_CHECK int crypt_disk_new(struct baseline **disk, struct mls_block_dev *dev,
				  const uint8_t key[CRYPT_KEY_BYTES]);

/*
 * In-place AES-256-GCM under a Merkle tree with a recovery journal, see pfs_disk.c. A device whose
 * first block is zero becomes a new disk. cache_bytes bounds the cache of tree nodes, 0: default.
 *
 * Returns  0; MLS_EAUTH: changed bytes or another key; MLS_ENOSPC: dev is too small; MLS_EIO; MLS_ENOMEM.
 */
MLS_MUST_CHECK int pfs_disk_new(struct baseline **disk, struct mls_block_dev *dev, const uint8_t key[MLS_KEY_BYTES],
				uint64_t cache_bytes);

#endif
