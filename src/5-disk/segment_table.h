/* SPDX-License-Identifier: MPL-2.0 */
/*
 * segment_table.h - layer 5: which runs are segments, since when, under which key, how live.
 *
 * Role     Journal owner MLS_OWNER_SEGMENTS and the index's listener. One entry a run.
 * Counts   live_mem: memtable versions that point into the segment's present life; live_sst:
 *          SSTable records that do. Their sum is an upper bound of what a reader can still reach
 *          (dead records count until memtable or compaction meets them). At 0 the run is free.
 * States   FREE -> OPEN (slots are being taken) -> CLOSED (all on the device) -> FREE, or
 *          CLOSED -> CLEANED (all that is current was moved away) -> FREE after the next sync.
 * Invariants (fsck): each run with an entry isn't a chunk; live_sst equals a recount over all
 *          SSTables of records whose location is of the entry's birth; births are unique.
 * Threads  Any; takes table->lock (below the index's lock), no I/O.
 * Source   doc/design.md 7, 8; doc/format.md "Segment edits".
 */
#ifndef MLS_DISK_SEGMENT_TABLE_H
#define MLS_DISK_SEGMENT_TABLE_H

#include "4-lsm/lsm_tree.h"
#include "5-disk/data_key.h"
#include "5-disk/totals.h"

enum mls_seg_state { MLS_SEG_FREE, MLS_SEG_OPEN, MLS_SEG_CLOSED, MLS_SEG_CLEANED };

struct mls_seg_buf;
struct mls_segment_table;

/* max_runs: the table can grow up to there, with the allocator. */
MLS_MUST_CHECK int mls_segment_table_new(struct mls_segment_table **table, struct mls_chunk_alloc *alloc,
					 struct mls_journal *journal, const struct mls_keyring *keys,
					 uint64_t max_runs);
void mls_segment_table_grow(struct mls_segment_table *table, uint64_t nr_runs);	/* before the allocator */
void mls_segment_table_free(struct mls_segment_table *table);

/* The index's listener. before_commit runs in each transaction that moves records to SSTables,
 * without locks: it must bring all slots taken so far to the device. */
void mls_segment_table_listener(struct mls_segment_table *table, struct mls_lsm_listener *listener,
				int (*before_commit)(void *arg), void *arg);

/*
 * The disk's totals travel with the segments' edits. now gives those of this session so far; it is called with
 * table->lock held.
 */
void mls_segment_table_count(struct mls_segment_table *table, void (*now)(void *arg, struct mls_totals *totals),
			     void *arg);
/* Since format: what the journal had, and now. */
void mls_segment_table_totals(struct mls_segment_table *table, struct mls_totals *totals);
/* The edit that notes them. */
MLS_MUST_CHECK int mls_segment_table_note_totals(struct mls_segment_table *table, struct mls_edit_group *group);

/* ---- Recovery ---- */

/* Take in a WAL group's announcements (also of a group that may yet be refused). */
MLS_MUST_CHECK int mls_segment_table_announced(struct mls_segment_table *table, const uint8_t *bytes,
					       size_t nr_bytes);

/* After the replay: marks the runs, frees those nobody points to; from now on edits don't create
 * entries. MLS_EFORMAT: a run is a chunk, too. */
MLS_MUST_CHECK int mls_segment_table_loaded(struct mls_segment_table *table);

/* ---- Segments in the making ---- */

/* Take a free run and begin its next life, with a fresh data key when due. MLS_ENOSPC. */
MLS_MUST_CHECK int mls_segment_table_open_run(struct mls_segment_table *table, enum mls_run_class class,
					      struct mls_seg_buf *buf, uint64_t *run, uint64_t *birth,
					      struct mls_data_key **key);

/* All slots are on the device and in the index: readers go to the device, the run may die. */
void mls_segment_table_close_run(struct mls_segment_table *table, uint64_t run);

/* What a sync must announce: keys and segments, opened and ended, since the last sync that got committed.
 * bytes is malloc'ed for the caller; seal the deal with announce_done. */
MLS_MUST_CHECK int mls_segment_table_announce(struct mls_segment_table *table, uint8_t **bytes,
					      size_t *nr_bytes);
void mls_segment_table_announce_done(struct mls_segment_table *table, bool committed);

/* ---- Reading ---- */

struct mls_seg_pin {
	struct mls_data_key *key;
	struct mls_seg_buf *buf;	/* not NULL: the block is in memory */
	uint64_t birth, run;
	uint32_t slot;
};

/* MLS_ENOENT: loc isn't of a living segment (any more). The pin keeps key and buffer. */
MLS_MUST_CHECK int mls_segment_table_pin(struct mls_segment_table *table, uint64_t loc,
					 struct mls_seg_pin *pin);
void mls_segment_table_unpin(struct mls_seg_pin *pin);

/* ---- Cleaning ---- */

struct mls_seg_info {
	uint64_t run, birth;
	uint32_t live;
	enum mls_seg_state state;
	bool unsynced_only;		/* of a victim: how it was chosen, see mls_victim_choice */
};

enum mls_seg_spared {
	MLS_SPARED_NOT,
	MLS_SPARED_FOR_LATER,		/* it has no summary (it was open at a crash): to empty it takes long */
	MLS_SPARED_FOR_GOOD,		/* a damaged block keeps it from being emptied */
};

struct mls_victim_choice {
	uint32_t max_live;
	bool unsynced_only;		/* those that no sync can have a block of: free as soon as they are cleaned */
	bool later_too;			/* those that are spared for later, too */
};

/* Up to max closed segments, fewest live first. Returns how many. */
size_t mls_segment_table_victims(struct mls_segment_table *table, const struct mls_victim_choice *choice,
				 struct mls_seg_info *infos, size_t max);

/* Is it still so that no sync can have a block of this life? */
bool mls_segment_table_is_unsynced(struct mls_segment_table *table, uint64_t run, uint64_t birth);

/* Around each cut of the index, so that the table knows which segments are older than it. */
void mls_segment_table_cut(struct mls_segment_table *table, bool begins);

/* Every current version of a victim was moved by records of epochs <= epoch: free it once that is committed; at once if
 * nothing of it was ever in a sync. false: it was to be emptied only if it's so, and isn't any more; it stays closed. */
bool mls_segment_table_cleaned(struct mls_segment_table *table, const struct mls_seg_info *victim, uint64_t epoch);

/* Which slots of that life hold what is hidden by newer versions, as far as is known: dead_slots.h. bits: mls_dead_words of
 * a run's blocks. */
void mls_segment_table_dead_slots(struct mls_segment_table *table, uint64_t run, uint64_t birth, uint64_t *bits);

/* Until the disk is closed. */
void mls_segment_table_spare(struct mls_segment_table *table, uint64_t run, uint64_t birth, enum mls_seg_spared spared);

/* A sync is complete. Returns how many cleaned runs became free. */
size_t mls_segment_table_committed(struct mls_segment_table *table, uint64_t epoch);

struct mls_segment_stat {
	uint64_t nr_segments, live_blocks, nr_cleaned_waiting;
	uint64_t nr_ends_due;		/* lives that end once no transaction is prepared */
	uint64_t nr_ends_untold;	/* lives that ended, which neither WAL nor journal knows of */
	uint64_t hidden_blocks;		/* of live_blocks: hidden by newer records, as far as was told */
};
void mls_segment_table_stat(struct mls_segment_table *table, struct mls_segment_stat *stat);
struct mls_seg_info mls_segment_table_info(struct mls_segment_table *table, uint64_t run);

#endif
