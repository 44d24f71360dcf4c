/* SPDX-License-Identifier: MPL-2.0 */
/*
 * crash_dev.h - a device that keeps what wasn't flushed apart, and can lose it.
 *
 * Role     Writes are pending until a flush; reads see them. A power cut leaves, of each block that
 *          has pending versions, any one of them, the durable one, or a mixture in pieces of 512
 *          bytes: kept, dropped, torn, in any order. The seed decides, so an image can be made again.
 *          A discard is a pending write of garbage: who reads what he discarded, notices.
 * Power    With a struct test_power, power goes off at its Nth operation (each transfer of a write
 *          and each flush is one). The transfer in flight is pending: it may have got through. Later
 *          writes never get through. Reads and discards aren't counted and go on.
 * Cost     A pending block is 4 KiB and some bytes; an image is a copy of the medium's non-zero
 *          blocks. crash_dev_cut in place costs the pending blocks only.
 * Threads  Any.
 */
#ifndef MLS_TEST_CRASH_DEV_H
#define MLS_TEST_CRASH_DEV_H

#include <pthread.h>

#include "mlsdisk/mlsdisk.h"
#include "tests/lib/test_power.h"

struct crash_pending {
	uint64_t hba;
	uint32_t older;			/* index + 1 of the version before it of the same block; 0: none */
	bool lost;			/* written after the cut */
	uint8_t *data;			/* owned, one block */
};

struct crash_dev {
	struct mls_block_dev base;	/* first */
	struct mls_block_dev *medium;	/* borrowed; holds what is durable */
	struct test_power *power;	/* borrowed; NULL: never fails by itself */
	struct crash_pending *pending;	/* in the order of writing */
	uint32_t nr_pending, cap_pending;
	uint32_t *newest;		/* per block: index + 1 of its newest pending version; 0: none */
	uint64_t nr_flushes;
	pthread_mutex_t lock;
};

/* medium: a memory device, as a rule. NULL: no memory. Destroy drops what is pending. */
struct crash_dev *crash_dev_new(struct mls_block_dev *medium, struct test_power *power);

/* Power fails now, and the machine starts again: the medium becomes one of the images that may be left,
 * nothing is pending any more. Doesn't touch the struct test_power. */
void crash_dev_cut(struct crash_dev *c, uint64_t seed);

/* Everything pending is undone: back to what is durable. With a power that is off and swallows, flushes
 * don't make anything durable: a cheap way to try something on a disk. */
void crash_dev_drop(struct crash_dev *c);

/* The same image as a memory device of its own; the crash device goes on as if nothing happened.
 * NULL: no memory. */
struct mls_block_dev *crash_dev_image(struct crash_dev *c, uint64_t seed);

#endif
