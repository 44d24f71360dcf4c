/* SPDX-License-Identifier: MPL-2.0 */
/* buf.c - memory for blocks and for secrets; see buf.h. */
#include "base/buf.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/checked.h"

#define HUGE_PAGE_BYTES (UINT64_C(2) << 20)

void *mls_blocks_alloc(uint64_t nr_blocks)
{
	uint64_t bytes;
	void *blocks;
	bool huge;

	if (!mls_mul_u64(nr_blocks, MLS_BLOCK_BYTES, &bytes) || bytes > SIZE_MAX / 2)
		return NULL;
	huge = bytes >= HUGE_PAGE_BYTES;
	if (posix_memalign(&blocks, huge ? HUGE_PAGE_BYTES : MLS_BLOCK_BYTES, bytes ? bytes : MLS_BLOCK_BYTES))
		return NULL;
	/* A direct transfer pins each page by itself: large ones make that cheap. Only advice. */
	if (huge)
		(void)madvise(blocks, bytes - bytes % HUGE_PAGE_BYTES, MADV_HUGEPAGE);
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
