/* SPDX-License-Identifier: MPL-2.0 */
/*
 * read_plan.h - layer 5: which transfers bring the blocks of one read.
 *
 * Role     A transfer costs the device as much as some blocks more (doc/performance.md), so what lies near each other on
 *          BACKING comes in one, whatever the order of the LBAs: what was written in sequence and overwritten here and
 *          there, and what the cleaner has closed up. Blocks of others that lie between are read and left.
 * Where    A transfer that fits goes where the reader wants it; one that doesn't into a buffer of the pool, from
 *          where its blocks are opened into place. Nothing but ciphertext is ever there.
 * Memory   A plan has a buffer from make to release, if it needs one and one is free; if none is, it takes more transfers.
 * Threads  Any; a plan is one thread's.
 */
#ifndef MLS_DISK_READ_PLAN_H
#define MLS_DISK_READ_PLAN_H

#include <pthread.h>

#include "mlsdisk/mlsdisk.h"

#define MLS_CHUNK_IO_BLOCKS 256u	/* a request is served in pieces of so many blocks */
#define MLS_READ_BUF_BLOCKS (MLS_CHUNK_IO_BLOCKS + 64)	/* gaps, too */
#define MLS_READ_BUFS_MAX 16u

struct mls_read_pool {
	pthread_mutex_t lock;
	uint8_t *blocks;
	uint8_t *free[MLS_READ_BUFS_MAX];
	unsigned nr_free;
};

/* nr buffers of MLS_READ_BUF_BLOCKS, touched when they are used. */
MLS_MUST_CHECK int mls_read_pool_init(struct mls_read_pool *pool, unsigned nr);
void mls_read_pool_release(struct mls_read_pool *pool);

struct mls_read_plan {
	struct mls_io ios[MLS_CHUNK_IO_BLOCKS];
	unsigned nr_ios;
	uint8_t *at[MLS_CHUNK_IO_BLOCKS];	/* where block i will lie */
	uint8_t *extra;				/* NULL, or a buffer of pool */
	struct mls_read_pool *pool;
};

/* hbas: of nr blocks, MLS_HBA_NONE: it isn't read. Block i is wanted at out + i blocks; nothing else of out is touched. */
void mls_read_plan_make(struct mls_read_plan *plan, struct mls_read_pool *pool, const uint64_t *hbas, uint32_t nr,
			uint8_t *out);
/* The same without anything in between, and in the order of out. */
void mls_read_plan_make_straight(struct mls_read_plan *plan, const uint64_t *hbas, uint32_t nr, uint8_t *out);
void mls_read_plan_release(struct mls_read_plan *plan);

#endif
