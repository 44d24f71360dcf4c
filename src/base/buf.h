/* SPDX-License-Identifier: MPL-2.0 */
/*
 * buf.h - below all layers: memory for blocks and for secrets.
 *
 * Role     The one place that allocates block-aligned memory, and the one that wipes.
 * Shapes   Block memory is aligned to MLS_BLOCK_BYTES and counted in blocks. It isn't zeroed.
 * Threads  Any.
 */
#ifndef MLS_BASE_BUF_H
#define MLS_BASE_BUF_H

#include "mlsdisk/mlsdisk.h"

/* NULL: no memory. */
void *mls_blocks_alloc(uint64_t nr_blocks);
void *mls_blocks_zalloc(uint64_t nr_blocks);	/* zeroed */
void mls_blocks_free(void *blocks);		/* NULL is fine */

/* Overwrite a secret so that the compiler can't leave it out. */
void mls_wipe(void *secret, size_t bytes);

static inline uint8_t *mls_block_at(void *blocks, uint64_t index)
{
	return (uint8_t *)blocks + index * MLS_BLOCK_BYTES;
}

#endif
