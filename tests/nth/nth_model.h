/* SPDX-License-Identifier: MPL-2.0 */
/*
 * nth_model.h - which contents a disk may have after a call that failed.
 *
 * Role     The history of a test: blocks that were changed, in the order of the calls. A disk whose memory
 *          was lost must hold a state of that history: what was there after some number of changes, never
 *          a mixture of two moments. How many changes it may hold is the caller's knowledge: all, or those
 *          up to the last sync, or, if the disk may have synced by itself (an early sync of the cleaner, in
 *          the caller's thread or in its own), any number between.
 * Versions A block's content is block_fill of its LBA and a version; with NTH_PART only the first
 *          NTH_PART_BYTES of it, then zeros; version 0 is all zeros.
 */
#ifndef MLS_TEST_NTH_MODEL_H
#define MLS_TEST_NTH_MODEL_H

#include "mlsdisk/mlsdisk.h"

#define NTH_DISK_BYTES (UINT64_C(2) << 20)
#define NTH_NR_BLOCKS (NTH_DISK_BYTES / MLS_BLOCK_BYTES)
#define NTH_CHANGES_MAX 4096u
#define NTH_PART ((uint64_t)1 << 63)
#define NTH_PART_BYTES 2000u

struct nth_model {
	uint64_t base[NTH_NR_BLOCKS];	/* versions before the first change */
	struct nth_change {
		uint64_t lba, version;
	} changes[NTH_CHANGES_MAX];
	size_t nr;			/* changes, with those of a call that failed */
	size_t nr_sure;			/* of calls that succeeded */
	size_t nr_synced;		/* durable for sure */
};

void nth_model_change(struct nth_model *model, uint64_t lba, uint64_t version);

/* All that was changed is the base of a new history. */
void nth_model_settle(struct nth_model *model);

/*
 * Is what disk reads the state after k changes, low <= k <= high? NULL: yes; else why not. buf: a block.
 */
const char *nth_model_check(const struct nth_model *model, struct mls_disk *disk, size_t low, size_t high,
			    uint8_t *buf);

/* The version that a block's bytes are; false: of none. */
bool nth_model_version_of(const uint8_t *block, uint64_t lba, uint64_t *version);

#endif
