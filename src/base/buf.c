/* SPDX-License-Identifier: MPL-2.0 */
/* buf.c - memory for blocks and for secrets; see buf.h. */
#include "base/buf.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

void *mls_blocks_alloc(uint64_t nr_blocks)
{
	uint64_t bytes;
	void *blocks;

	if (!mls_mul_u64(nr_blocks, MLS_BLOCK_BYTES, &bytes) || bytes > SIZE_MAX / 2)
		return NULL;
	if (posix_memalign(&blocks, MLS_BLOCK_BYTES, bytes ? bytes : MLS_BLOCK_BYTES))
		return NULL;
	return blocks;
}

void *mls_blocks_zalloc(uint64_t nr_blocks)
{
	void *blocks = mls_blocks_alloc(nr_blocks);

	if (blocks)
		memset(blocks, 0, nr_blocks * MLS_BLOCK_BYTES);
	return blocks;
}

void mls_blocks_free(void *blocks)
{
	free(blocks);
}

void mls_wipe(void *secret, size_t bytes)
{
	explicit_bzero(secret, bytes);
}
