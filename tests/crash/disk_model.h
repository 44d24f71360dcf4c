/* SPDX-License-Identifier: MPL-2.0 */
/*
 * disk_model.h - what a disk may contain after a crash: plain arrays beside the real disk.
 *
 * Role     now: what reads must return. synced: what a crash must leave. An early sync falls into the
 *          middle of a call; how many of that call's blocks it has, only the disk knows: those blocks
 *          of `synced` are open, each may be old or new (a call promises atomicity per block).
 * Shapes   Blocks of MLS_BLOCK_BYTES; ranges in bytes.
 *
 *	model_begin(m, offset, bytes)   before a call that changes the range: keeps the old content
 *	... change m->now, call the disk ...
 *	model_end(m)                    it returned 0; or model_settle: ask the disk what it has now
 */
#ifndef MLS_TEST_DISK_MODEL_H
#define MLS_TEST_DISK_MODEL_H

#include "mlsdisk/mlsdisk.h"

/* The blocks a call touches, before it. */
struct model_span {
	uint64_t lba, nr_blocks;	/* 0 blocks: none */
	uint8_t *bytes;			/* owned; room for the whole disk */
};

struct disk_model {
	uint64_t nr_blocks;
	uint8_t *now, *synced;
	bool *dirty;			/* per block: now may differ from synced */
	uint64_t *dirty_list, nr_dirty;
	struct model_span call;		/* content before the running call */
	struct model_span open;		/* content after the call in which the last sync fell */
};

void model_init(struct disk_model *m, uint64_t nr_blocks);
void model_release(struct disk_model *m);

void model_begin(struct disk_model *m, uint64_t offset, uint64_t bytes);
void model_end(struct disk_model *m);

/* The disk completed a sync: between calls (or within one that changes nothing), or within a call. */
void model_synced(struct disk_model *m);
void model_synced_within_call(struct disk_model *m);

/* Blocks of the running call: old or new, as the disk says. content: all of the disk. false: neither. */
bool model_settle(struct disk_model *m, const uint8_t *content, uint64_t *bad_lba);

enum model_match {
	MODEL_SYNCED = 1 << 0,		/* content is the synced state */
	MODEL_NOW = 1 << 1,		/* content is the newest state, the running call done, or in part */
};

/* Which states content can be. Of those that it isn't, the first block that differs (any may be NULL). */
unsigned model_match(const struct disk_model *m, const uint8_t *content, uint64_t *not_synced_lba,
		     uint64_t *not_now_lba);

/* The disk was opened again and contains this: it is both states now. */
void model_restart(struct disk_model *m, const uint8_t *content);

#endif
