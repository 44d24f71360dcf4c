/* SPDX-License-Identifier: MPL-2.0 */
/*
 * tamper_dev.h - a device in memory whose owner is the adversary: he changes blocks and takes it back.
 *
 * Role     Plain memory, no lock. From tamper_dev_begin on, each block is saved before it is changed for
 *          the first time, by the disk or by the test; tamper_dev_undo brings the bytes and the size of
 *          then back. That costs the changed blocks only, so a disk can be attacked many thousand times a
 *          second.
 * Lies     `answer` may change what a read gives, each time anew. What lies behind nr_blocks is kept, but
 *          the disk can't reach it (a device that was truncated).
 * Threads  One: the disk above works inline.
 */
#ifndef MLS_TEST_TAMPER_DEV_H
#define MLS_TEST_TAMPER_DEV_H

#include "mlsdisk/mlsdisk.h"

struct tamper_dev {
	struct mls_block_dev base; /* first; nr_blocks may be changed */
	uint8_t *bytes;		   /* capacity blocks */
	uint64_t capacity;
	uint64_t nr_writes; /* transfers, by the disk */
	bool *seen;	    /* per block: read by the disk since the test cleared it */

	/* Called for each block that the disk reads; block is the disk's copy. NULL: the truth. */
	void (*answer)(void *arg, uint64_t hba, uint8_t *block);
	/* Called after each block that the disk writes; old: what was there. 0, or what the write answers. */
	int (*written)(void *arg, uint64_t hba, const uint8_t *old);
	int (*flushed)(void *arg);
	void *arg;

	bool saving;
	uint64_t nr_blocks_then;
	uint32_t *saved_as; /* per block: its place in saved, plus 1; 0: unchanged */
	uint64_t *saved_hba;
	uint8_t *saved;
	uint32_t nr_saved, cap_saved;
};

struct tamper_dev *tamper_dev_new(uint64_t nr_blocks, uint64_t capacity);

/* The block, to look at; and to change. */
const uint8_t *tamper_dev_at(const struct tamper_dev *d, uint64_t hba);
uint8_t *tamper_dev_touch(struct tamper_dev *d, uint64_t hba);
/* false: it had these bytes already. */
bool tamper_dev_put(struct tamper_dev *d, uint64_t hba, const uint8_t *block);
void tamper_dev_swap(struct tamper_dev *d, uint64_t hba_a, uint64_t hba_b);
bool tamper_dev_is_zero(const struct tamper_dev *d, uint64_t hba);

void tamper_dev_begin(struct tamper_dev *d);
void tamper_dev_undo(struct tamper_dev *d);

#endif
