/* SPDX-License-Identifier: MPL-2.0 */
/*
 * thin_dev.h - a device on a host that gives out its space block by block, and may run out of it.
 *
 * Role     Like a sparse file: a block takes space from its first write or reserve on, until it is discarded.
 *          With a limit, a write that would take more answers MLS_ENOSPC, having done what was
 *          possible. Counts what is taken now and was at most.
 * Threads  Any.
 */
#ifndef MLS_TEST_THIN_DEV_H
#define MLS_TEST_THIN_DEV_H

#include <pthread.h>

#include "mlsdisk/mlsdisk.h"

struct thin_counts {
	uint64_t nr_taken, max_taken;	/* blocks */
	uint64_t nr_refused;		/* writes */
	uint64_t nr_not_reserved;
	unsigned nr_held;		/* reserves under way, while they are held */
};

struct thin_dev {
	struct mls_block_dev base;	/* first */
	struct mls_block_dev *inner;	/* borrowed */
	pthread_mutex_t lock;
	pthread_cond_t let_go;
	bool holds;
	bool *taken;			/* by block */
	struct thin_counts count;
	uint64_t limit;			/* 0: none */
	uint64_t nr_shown;		/* blocks that measure tells of */
};

/* NULL: no memory. */
struct thin_dev *thin_dev_new(struct mls_block_dev *inner);

/* As of now; while the device is used. */
struct thin_counts thin_dev_counts(struct thin_dev *t);
uint64_t thin_dev_taken(struct thin_dev *t);
void thin_dev_limit(struct thin_dev *t, uint64_t limit);

/* From now on who reserves waits, until it is let go. */
void thin_dev_hold_reserves(struct thin_dev *t, bool hold);

/* Show only so many blocks of inner: at once if that is fewer, else when the user measures. */
void thin_dev_show(struct thin_dev *t, uint64_t nr_blocks);

#endif
