/* SPDX-License-Identifier: MPL-2.0 */
/*
 * fault_dev.h - a device whose Nth operation fails.
 *
 * Role     The loop of every error test: fail operation 1, 2, 3 ... until a run is clean (fired is
 *          false after it); after each, reopen on the healthy device and look.
 * Counting Each transfer (not each call) that is of a kind in `kinds` counts as one operation, from
 *          1. The transfer that fails doesn't reach inner (a write: half of its bytes do); the
 *          others of the same call do.
 * Threads  Any; operations are done one at a time.
 *
 *	struct fault_dev *flaky = fault_dev_new(disk, FAULT_ALL);
 *	fault_dev_arm(flaky, n, MLS_EIO, false);
 *	... use &flaky->base ...
 *	mls_block_dev_destroy(&flaky->base);
 */
#ifndef MLS_TEST_FAULT_DEV_H
#define MLS_TEST_FAULT_DEV_H

#include <pthread.h>

#include "mlsdisk/mlsdisk.h"

enum {
	FAULT_READ = 1 << 0,
	FAULT_WRITE = 1 << 1,
	FAULT_FLUSH = 1 << 2,
	FAULT_DISCARD = 1 << 3,		/* not in ALL: a discard is a hint */
	FAULT_ALL = FAULT_READ | FAULT_WRITE | FAULT_FLUSH,
};

struct fault_dev {
	struct mls_block_dev base;	/* first: all that the layer above sees */
	struct mls_block_dev *inner;	/* borrowed */
	unsigned kinds;
	uint64_t op_count, fail_at;	/* operations from 1; fail_at 0: never */
	int err;			/* what the failing operation answers */
	bool sticky, fired;		/* sticky: all later ones fail too */
	pthread_mutex_t lock;
};

struct fault_dev *fault_dev_new(struct mls_block_dev *inner, unsigned kinds);	/* NULL: no memory */

/* Count from 1 again; the fail_at-th operation from now fails with err. */
void fault_dev_arm(struct fault_dev *f, uint64_t fail_at, int err, bool sticky);

#endif
