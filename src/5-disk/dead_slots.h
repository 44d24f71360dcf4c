/* SPDX-License-Identifier: MPL-2.0 */
/*
 * dead_slots.h - layer 5: slots of which the index has said that a newer version hides what they hold.
 *
 * Role     Saves the cleaner a look at the index for each of them. What isn't marked may be dead all the same: nothing
 *          is known of what died before the disk was opened, until the index tells (mls_lsm_tell_shadowed).
 * Why      a mark can be believed: versions of an LBA only get newer, so what is hidden once is never current
 *          again in this life of the run. A crash may undo the newer one; the marks are in memory, and gone with it.
 * Memory   A bit a block of a run, as a damaged index may name one behind the slots; taken when the first one is marked.
 * Invariant A free run has no marks, nor has any while the state is loaded: a life begins without.
 * Threads  Under the segment table's lock.
 */
#ifndef MLS_DISK_DEAD_SLOTS_H
#define MLS_DISK_DEAD_SLOTS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "mlsdisk/mlsdisk.h"

struct mls_dead_slots {
	uint64_t *bits;			/* words_per_run for each run */
	uint32_t words_per_run;
};

static inline uint32_t mls_dead_words(uint32_t run_blocks)
{
	return (run_blocks + 63) / 64;
}

MLS_MUST_CHECK static inline int mls_dead_slots_init(struct mls_dead_slots *dead, uint64_t nr_runs, uint32_t run_blocks)
{
	dead->words_per_run = mls_dead_words(run_blocks);
	dead->bits = calloc(nr_runs, dead->words_per_run * sizeof *dead->bits);
	return dead->bits ? 0 : MLS_ENOMEM;
}

static inline void mls_dead_slots_release(struct mls_dead_slots *dead)
{
	free(dead->bits);
}

static inline uint64_t *mls_dead_slots_of(const struct mls_dead_slots *dead, uint64_t run)
{
	return dead->bits + run * dead->words_per_run;
}

static inline bool mls_dead_slots_none(const struct mls_dead_slots *dead, uint64_t run)
{
	uint64_t any = 0;

	for (uint32_t i = 0; i < dead->words_per_run; i++)
		any |= mls_dead_slots_of(dead, run)[i];
	return any == 0;
}

/* A life of the run has ended. */
static inline void mls_dead_slots_clear(struct mls_dead_slots *dead, uint64_t run)
{
	memset(mls_dead_slots_of(dead, run), 0, dead->words_per_run * sizeof *dead->bits);
}

static inline void mls_dead_slots_mark(struct mls_dead_slots *dead, uint64_t run, uint32_t slot)
{
	mls_dead_slots_of(dead, run)[slot / 64] |= UINT64_C(1) << slot % 64;
}

static inline bool mls_dead_slot_in(const uint64_t *bits, uint32_t slot)
{
	return bits[slot / 64] >> slot % 64 & 1;
}

#endif
