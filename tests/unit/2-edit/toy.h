/* SPDX-License-Identifier: MPL-2.0 */
/*
 * toy.h - tests of layer 2: an owner whose state is easy to compare, and a journal on any device.
 *
 * The state is TOY_CELLS numbers; an edit sets one. toy_commit writes the commit's number into
 * cell 0 of two owners and into one other cell of each, so a state that shows different numbers in
 * cell 0, or a cell that the model doesn't, is a group that was torn.
 */
#ifndef MLS_TESTS_TOY_H
#define MLS_TESTS_TOY_H

#include "2-edit/journal.h"

#define TOY_CELLS 4096u
#define TOY_AREA_BLOCKS 64u
#define TOY_HBA 3u			/* the journal doesn't lie at the device's start */
#define TOY_DEV_BLOCKS (TOY_HBA + 2 * TOY_AREA_BLOCKS + 5)

struct toy {
	uint64_t cells[TOY_CELLS];
	uint64_t fat;			/* snapshot also has this many edits that change nothing */
};

struct world {
	struct mls_block_dev *dev;	/* borrowed */
	struct mls_keyring *keys;
	struct mls_journal *journal;
	struct toy toys[2];		/* MLS_OWNER_LSM, MLS_OWNER_SEGMENTS */
};

/* A new process: nothing known but the key. */
struct world *world_open(struct mls_block_dev *dev);
void world_close(struct world *world);

void toy_add(struct mls_edit_group *group, enum mls_edit_owner_id owner, uint32_t cell, uint64_t value);

/* Commit number n of a session whose state began as base. Returns mls_journal_commit's result. */
int toy_commit(struct world *world, uint64_t base, uint64_t n);

/* Is the state exactly that after commits 1 ... n on top of base? */
bool toy_is(const struct world *world, uint64_t base, uint64_t n);

/* Fresh session named by a number. */
int toy_start(struct world *world, uint8_t session);

/* Load the newest candidate that loads. MLS_ENOENT: none. */
int toy_load_newest(struct world *world, struct mls_journal_info *info);

#endif
