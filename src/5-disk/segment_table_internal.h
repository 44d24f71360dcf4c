/* SPDX-License-Identifier: MPL-2.0 */
/*
 * segment_table_internal.h - the segment table, shared by its three files.
 *
 * Files    segment_table.c: entries and their states; segment_table_tx.c: the index's transactions;
 *          segment_table_edits.c: edits and announcements, made and taken in.
 * Locks    every function here is called with table->lock held.
 */
#ifndef MLS_DISK_SEGMENT_TABLE_INTERNAL_H
#define MLS_DISK_SEGMENT_TABLE_INTERNAL_H

#include <pthread.h>

#include "5-disk/dead_slots.h"
#include "5-disk/segment_table.h"

struct seg_entry {
	struct mls_data_key *key;
	struct mls_seg_buf *buf;
	uint64_t birth;			/* 0: never lived, as far as we know */
	uint64_t clean_epoch;		/* CLEANED: free once this is committed */
	uint64_t cut_marks;		/* table->cut_marks when it began */
	uint32_t live_mem;
	uint32_t live_sst;
	uint32_t hidden;		/* of live_sst: known to be hidden by newer records. A hint */
	uint8_t state;			/* enum mls_seg_state */
	bool journaled;
	uint8_t spared;			/* enum mls_seg_spared */
};

/* In the middle of a transaction there may be more of them than records. */
static inline uint32_t mls_seg_hidden(const struct seg_entry *entry)
{
	return entry->hidden < entry->live_sst ? entry->hidden : entry->live_sst;
}

/* A life: what announcements and edits name. */
struct seg_life {
	uint64_t run, birth;
};

struct life_list {
	struct seg_life *at;
	size_t nr, cap;
	uint64_t base;			/* dropped from the front so far: at[i] is number base + i */
};

struct mls_segment_table {
	pthread_mutex_t lock;
	struct mls_chunk_alloc *alloc;
	const struct mls_keyring *keys;
	struct seg_entry *entries;
	struct mls_dead_slots dead;
	uint64_t nr_runs, max_runs;
	uint64_t nr_touched;			/* entries behind were never used: loops end here */
	uint64_t next_birth;
	uint32_t next_key_id;
	struct mls_data_key *key_set;		/* all known; the set has one reference each */
	struct mls_data_key *key_now;		/* seals new segments; NULL: draw one */
	uint32_t key_now_segments;
	struct life_list to_announce;		/* opened, not in a committed sync yet */
	uint64_t announcing_upto;		/* numbers below this are in a sync now */
	uint64_t ended_announced, ended_announcing;	/* the same for the ended */
	struct life_list to_journal;		/* opened, not in the journal yet */
	struct life_list ended;			/* journaled lives that ended; the journal doesn't know */
	struct life_list end_due;		/* waiting for nr_prepared == 0 */
	struct life_list cleaned;		/* waiting for a sync */
	unsigned nr_prepared;
	uint64_t cut_marks;			/* +1 before each cut and +1 behind it: even in between */
	bool loading;
	bool contradicted;			/* see mls_seg_contradict */
	uint64_t nr_segments, live_blocks, hidden_blocks;
	int (*before_commit)(void *arg);
	void *before_commit_arg;
	struct mls_totals totals_before;	/* of all sessions before */
	void (*totals_now)(void *arg, struct mls_totals *totals);	/* of this one; NULL: nobody counts */
	void *totals_arg;
};

/* ---- segment_table.c ---- */

MLS_MUST_CHECK int mls_lives_reserve(struct life_list *list, size_t more);
MLS_MUST_CHECK int mls_lives_add(struct life_list *list, uint64_t run, uint64_t birth);

static inline uint64_t lives_end(const struct life_list *list)
{
	return list->base + list->nr;
}

/* Drop all that have a number below upto; another may have dropped some of them before. */
void mls_lives_drop_until(struct life_list *list, uint64_t upto);

/* The living segment that the location is of; NULL: none (any more). */
struct seg_entry *mls_seg_entry_of_loc(struct mls_segment_table *table, uint64_t loc, uint64_t *run);
void mls_seg_entry_begin(struct mls_segment_table *table, struct seg_entry *entry, uint64_t birth,
			 struct mls_data_key *key, enum mls_seg_state state);
/* The life ends now; the birth stays, so that an older one is never taken for newer. */
void mls_seg_entry_end(struct mls_segment_table *table, uint64_t run);
/* The same, or as soon as no transaction is prepared. */
void mls_seg_end_or_defer(struct mls_segment_table *table, uint64_t run);
void mls_seg_maybe_end(struct mls_segment_table *table, uint64_t run);	/* if closed and nobody points to it */
void mls_seg_end_those_due(struct mls_segment_table *table);
void mls_seg_entries_reset(struct mls_segment_table *table);

/* The journal and the WAL, when they were loaded, told other counts or lives than the index has: the key's holder can write
 * that. Nothing is committed from now on. Returns MLS_EFORMAT. */
int mls_seg_contradict(struct mls_segment_table *table, uint64_t run);
/* So many records of the run are in no memtable any more. */
void mls_seg_less_in_memory(struct mls_segment_table *table, uint64_t run, uint32_t nr);

struct mls_data_key *mls_seg_key_by_id(struct mls_segment_table *table, uint32_t id);
/* Keys that no run uses any more. */
void mls_seg_drop_unused_keys(struct mls_segment_table *table);

/* ---- segment_table_tx.c: the listener's, with the table as arg ---- */

void *mls_seg_tx_begin(void *arg);
int mls_seg_tx_added(void *ctx, uint64_t loc);
int mls_seg_tx_dropped(void *ctx, uint64_t loc);
int mls_seg_tx_prepare(void *ctx, struct mls_edit_group *group);
void mls_seg_tx_done(void *ctx, bool committed);

/* ---- segment_table_edits.c ---- */

extern const struct mls_edit_owner mls_seg_edit_owner;	/* arg: to be set */
int mls_seg_announced(void *arg, const uint8_t *bytes, size_t nr_bytes);	/* the listener's */
MLS_MUST_CHECK int mls_seg_edit_life(struct mls_edit_group *group, uint8_t type, uint64_t run, uint64_t birth,
				     uint32_t key_id, int64_t delta);
MLS_MUST_CHECK int mls_seg_edit_keys(struct mls_segment_table *table, struct mls_edit_group *group, bool all);
MLS_MUST_CHECK int mls_seg_edit_totals(struct mls_segment_table *table, struct mls_edit_group *group);
MLS_MUST_CHECK int mls_seg_edit_next_birth(struct mls_segment_table *table, struct mls_edit_group *group);

#endif
