/* SPDX-License-Identifier: MPL-2.0 */
/*
 * block_meter.h - layer 0: a device that counts what passes to the one below.
 *
 * Role     Statistics; and the guard over flushes: once one has failed, writes and flushes answer
 *          MLS_EPOISONED and don't reach inner. Passes the rest on; destroy leaves inner alone.
 * Threads  Any; counters are atomic.
 */
#ifndef MLS_BIO_BLOCK_METER_H
#define MLS_BIO_BLOCK_METER_H

#include <stdatomic.h>

#include "0-bio/block_dev.h"

struct mls_block_meter {
	struct mls_block_dev base;	/* first: all that the layer above sees */
	struct mls_block_dev *inner;	/* borrowed */
	atomic_uint_fast64_t read_blocks, written_blocks, discarded_blocks, flushes;
	atomic_bool flush_failed;	/* for good; see block_meter.c */
};

void mls_block_meter_init(struct mls_block_meter *meter, struct mls_block_dev *inner);

#endif
