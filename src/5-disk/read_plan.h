/* SPDX-License-Identifier: MPL-2.0 */
/*
 * read_plan.h - layer 5: which transfers bring the blocks of one read.
 *
 * Role     A transfer costs the device as much as some blocks more (doc/performance.md), so what lies near each other on
 *          BACKING comes in one, whatever the order of the LBAs: what was written in sequence and overwritten here and
 *          there, and what the cleaner has closed up. Blocks of others that lie between are read and left.
 * Where    A transfer that fits goes where the reader wants it; one that doesn't into memory of the plan, from
 *          where its blocks are opened into place. Nothing but ciphertext is ever there.
 * Memory   For MLS_READ_PLAN_EXTRA blocks at most, from make to release; none is fine, it takes more transfers then.
 */
#ifndef MLS_DISK_READ_PLAN_H
#define MLS_DISK_READ_PLAN_H

#include "mlsdisk/mlsdisk.h"

#define MLS_CHUNK_IO_BLOCKS 256u	/* a request is served in pieces of so many blocks */
#define MLS_READ_PLAN_EXTRA (2 * MLS_CHUNK_IO_BLOCKS)

struct mls_read_plan {
	struct mls_io ios[MLS_CHUNK_IO_BLOCKS];
	unsigned nr_ios;
	uint8_t *at[MLS_CHUNK_IO_BLOCKS];	/* where block i will lie */
	uint8_t *extra;
};

/* hbas: of nr blocks, MLS_HBA_NONE: it isn't read. Block i is wanted at out + i blocks; nothing else of out is touched. */
void mls_read_plan_make(struct mls_read_plan *plan, const uint64_t *hbas, uint32_t nr, uint8_t *out);
/* The same without anything in between, and in the order of out. */
void mls_read_plan_make_straight(struct mls_read_plan *plan, const uint64_t *hbas, uint32_t nr, uint8_t *out);
void mls_read_plan_release(struct mls_read_plan *plan);

#endif
