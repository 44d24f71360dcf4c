/* SPDX-License-Identifier: MPL-2.0 */
/*
 * lsm_tree.h - layer 4: the index LBA -> (HBA, tag), which knows what is synced.
 *
 * Role     Memtable, WAL, SSTables in levels, background flush and compaction, behind one door.
 *          The layer above writes data blocks, puts their records here, and drives sync.
 * Epochs   A put belongs to the current epoch = the id the next sync gets. cut closes it. commit
 *          makes it the committed one. Only one sync runs at a time (the caller's duty).
 * Records  lba < the disk's size; hba MLS_HBA_NONE: tombstone. get gives the newest version.
 * Listener Layer 5 counts records per segment; it is told of each record's birth and death.
 * Errors   MLS_EAUTH, MLS_EIO from below; MLS_ENOSPC when a flush finds no run; MLS_EPOISONED
 *          after a failed commit or WAL write; MLS_ENOMEM.
 * Threads  put, move, get, next: any, any time. cut/wal_write/commit: one sync at a time, any
 *          thread. new/replay/start/free: one thread, alone.
 * Source   doc/design.md 7.
 */
#ifndef MLS_LSM_TREE_H
#define MLS_LSM_TREE_H

#include "0-bio/block_ring.h"
#include "3-log/tx_log.h"
#include "4-lsm/record.h"

/* All may be called with lsm->mem_lock held: they must be short, do no I/O and not call back. */
struct mls_lsm_listener {
	/* Versions enter the memtable (put, move, replay). Those among them that are tombstones don't count. */
	void (*born)(void *arg, const struct mls_index_rec *recs, size_t nr);
	/* A version in a memtable is gone, and no state that can still be accepted needs it. */
	void (*died)(void *arg, uint64_t hba);
	/*
	 * Around each transaction on SSTables. begin -> NULL: no memory. added: a record moved from
	 * memtable to SSTable (its life goes on). dropped: an SSTable record is gone once the
	 * transaction is durable. prepare: add layer 5's edits (counts of records in SSTables).
	 * done: committed or not; frees ctx; if committed, the dropped records have died.
	 */
	void *(*tx_begin)(void *arg);
	int (*tx_added)(void *ctx, uint64_t hba);
	int (*tx_dropped)(void *ctx, uint64_t hba);
	int (*tx_prepare)(void *ctx, struct mls_edit_group *group);
	void (*tx_done)(void *ctx, bool committed);
	/* An SSTable record that is hidden by a newer one of another place; once each, if mls_lsm_tell_shadowed was
	 * ever called. Until it is dropped it is counted all the same. May be NULL. */
	void (*shadowed)(void *arg, uint64_t hba);
	/* Replay: the announcements of a WAL group that is about to be applied. */
	int (*announced)(void *arg, const uint8_t *bytes, size_t nr_bytes);
	void *arg;
};

struct mls_lsm_opts {
	uint32_t memtable_records;	/* capacity of one memtable; the ring must take 3 of them */
	uint32_t table_records;		/* at most in a table made by compaction, so that it fills a run
					 * and no more; 0: memtable_records */
	uint32_t run_records;		/* how many fill a run: so many where free runs are few; 0: table_records */
	uint64_t cache_bytes;		/* bound of the SSTable block cache */
	bool inline_work;		/* flush and compact within put; no threads */
	bool read_only;
};

struct mls_lsm;

/* Registers MLS_OWNER_LSM with the journal. All borrowed; listener is copied. MLS_EINVAL: the ring
 * is too small for 3 memtables. */
MLS_MUST_CHECK int mls_lsm_new(struct mls_lsm **lsm, struct mls_tx_store *store, struct mls_journal *journal,
			       const struct mls_keyring *keys, const struct mls_block_ring *wal_ring,
			       const struct mls_lsm_listener *listener, const struct mls_lsm_opts *opts);
void mls_lsm_free(struct mls_lsm *lsm);		/* stops the threads; doesn't sync */

/* ---- Format: the state of an empty index, before mls_journal_start of the first session ---- */
void mls_lsm_format(struct mls_lsm *lsm, const uint8_t first_tag[MLS_TAG_BYTES],
		    const uint8_t session[MLS_SESSION_BYTES]);

/* ---- Recovery, after mls_journal_load ---- */

/* One sync as the WAL (or its start in the journal) tells it. */
struct mls_sync_head {
	uint64_t sync_id;
	uint8_t tag[MLS_TAG_BYTES];		/* the group's digest: what the trusted store keeps */
	uint8_t session[MLS_SESSION_BYTES];
	uint64_t commit;			/* journal commit that must be there at least */
	uint64_t generation;			/* superblock generation in force then */
	bool settled;				/* its data was durable before the group was written */
};

/*
 * Read the WAL from its start; apply every whole group but the last, which is held back.
 *
 * before   the sync before the last group (or, without any group, the WAL's start);
 * last     the last group; has_last false: there is none, and before is the newest.
 * recs     the last group's records, valid until mls_lsm_replay_end.
 * more_behind  what stopped the replay looks like damage, not like the end (for the message).
 */
struct mls_replay {
	struct mls_sync_head before, last;
	bool has_last;
	const struct mls_index_rec *recs;
	size_t nr_recs;
	const uint8_t *announce;
	size_t announce_bytes;
	bool more_behind;
};
/* Another mls_journal_load forgets all of it, without a word to the listener, and begins anew. */
MLS_MUST_CHECK int mls_lsm_replay_begin(struct mls_lsm *lsm, struct mls_replay *replay);

/* Apply the held group or forget it; then drop, in memory (mls_journal_apply_loaded), all SSTables
 * of an epoch later than the accepted sync. */
MLS_MUST_CHECK int mls_lsm_replay_end(struct mls_lsm *lsm, bool accept_last);

/*
 * Begin to write, after mls_journal_start: next sync gets next_sync_id; WAL goes on behind the
 * accepted group. Starts the worker threads unless inline_work.
 *
 * The first sync must follow soon (the OPEN group): up to its commit nothing is frozen, flushed or
 * compacted, since a crash before it takes the disk back to the journal area of the session before.
 */
MLS_MUST_CHECK int mls_lsm_start(struct mls_lsm *lsm, const uint8_t session[MLS_SESSION_BYTES],
				 uint64_t next_sync_id);

/* ---- Use ---- */

/*
 * All nr records enter the current epoch, in order. May wait (smoothly) for flush and compaction, and
 * for the sync that is running.
 *
 * Returns  0; MLS_ENOSPC, MLS_ENOMEM: none of them has (of more than a quarter memtable: some have),
 *          and a later try may succeed; MLS_EROFS; MLS_EPOISONED, or once the error that poisoned.
 */
MLS_MUST_CHECK int mls_lsm_put(struct mls_lsm *lsm, const struct mls_index_rec *recs, size_t nr);

/* put rec if the newest version of rec->lba still points to old_hba (MLS_HBA_NONE: is unmapped);
 * *moved tells. */
MLS_MUST_CHECK int mls_lsm_move(struct mls_lsm *lsm, const struct mls_index_rec *rec, uint64_t old_hba,
				bool *moved);

/*
 * The same for many, together. The caller looked them up and saw olds[i]; view is what mls_lsm_view gave
 * before that look. As long as it holds, the tables needn't be asked again. *nr_moved: how many were put.
 */
uint64_t mls_lsm_view(struct mls_lsm *lsm);
MLS_MUST_CHECK int mls_lsm_move_each(struct mls_lsm *lsm, const struct mls_index_rec *recs, const uint64_t *olds,
				     size_t nr, uint64_t view, size_t *nr_moved);

/*
 * recs[i] for lba + i; hba MLS_HBA_NONE where nothing is mapped.
 *
 * Whoever reads the block at hba afterwards must be prepared that it was overwritten in the meantime
 * and its segment used again: look the LBA up again before a wrong tag is called damage.
 */
MLS_MUST_CHECK int mls_lsm_get(struct mls_lsm *lsm, uint64_t lba, size_t nr, struct mls_index_rec *recs);

/* The same for LBAs that don't stand in a row: recs[i].lba is given, and none is less than the one before. */
MLS_MUST_CHECK int mls_lsm_get_each(struct mls_lsm *lsm, struct mls_index_rec *recs, size_t nr);

/* The first mapped LBA in [lba, end). MLS_ENOENT: none. */
MLS_MUST_CHECK int mls_lsm_next_mapped(struct mls_lsm *lsm, uint64_t lba, uint64_t end, uint64_t *found);

/* ---- Sync: cut, wal_write, (flush, trusted store by the caller), commit ---- */

struct mls_lsm_cut {
	uint64_t sync_id;
	size_t nr_records;		/* that go into the WAL group */
	uint8_t digest[MLS_TAG_BYTES];	/* after wal_write */
	struct mls_io *along;		/* the caller's, before wal_write: transfers that the group takes along; see */
	unsigned nr_along;		/* mls_block_ring_write_along */
};

/*
 * Close the epoch. From here to commit (or abandon) no memtable is frozen; puts go on, into the next
 * epoch, as long as the memtable has room. May wait for a flush. After an error no sync is running.
 */
MLS_MUST_CHECK int mls_lsm_cut(struct mls_lsm *lsm, struct mls_lsm_cut *cut);

/* Write the group to the ring; may wait until a flush makes room. flags: MLS_WAL_FLAG_... After
 * MLS_ENOSPC or MLS_ENOMEM nothing was written, and it may be called again; or abandon, as after any
 * other error. */
MLS_MUST_CHECK int mls_lsm_wal_write(struct mls_lsm *lsm, struct mls_lsm_cut *cut, const void *announce,
				     size_t announce_bytes, uint64_t generation, uint8_t flags);

/* The sync is complete: durable and in the trusted store. Versions it superseded die. */
void mls_lsm_commit(struct mls_lsm *lsm, struct mls_lsm_cut *cut);

/* The sync failed: the index is poisoned for writing. */
void mls_lsm_abandon(struct mls_lsm *lsm, struct mls_lsm_cut *cut);

/* Is there anything that a sync would have to make durable? */
bool mls_lsm_dirty(struct mls_lsm *lsm);
/* A worker or a sync failed: reads only, until it is opened again. */
bool mls_lsm_poisoned(struct mls_lsm *lsm);

/*
 * Space pressure: meet old records. Flushes the memtable if it holds synced versions and compacts
 * until each level is merged into the deepest; afterwards, up to later puts, every dead record
 * that the committed state allows to drop has been dropped.
 * *progress: records were dropped.
 *
 * Waits for a running sync: not to be called between cut and commit by the thread that syncs.
 */
MLS_MUST_CHECK int mls_lsm_compact_all(struct mls_lsm *lsm, bool *progress);

/*
 * The same for what isn't synced, which no sync is made for: flushes the memtable, and merges the tables of the current
 * epoch into one. *progress: records were dropped. Likewise not between cut and commit.
 */
MLS_MUST_CHECK int mls_lsm_merge_unsynced(struct mls_lsm *lsm, bool *progress);

/* From now on shadowed is called; here for all that isn't known yet. A hint, also after an error. */
MLS_MUST_CHECK int mls_lsm_tell_shadowed(struct mls_lsm *lsm);
void mls_lsm_tell_no_more(struct mls_lsm *lsm);	/* the disk is closed: ends it, also where it is under way */

/* ---- Looking inside: fsck, dump, tests ---- */

/* One version in a memtable (level < 0, log_id 0) or one record of an SSTable. */
struct mls_lsm_scanned {
	struct mls_index_rec rec;
	int level;
	uint64_t log_id;
	uint64_t epoch;			/* of the version, or the newest epoch in the table */
};

/* Every version and record there is: first the memtables, then the tables, newest first. fn != 0
 * stops and is returned. fn must not call the tree; the caller sees to it that nothing is put. */
MLS_MUST_CHECK int mls_lsm_scan(struct mls_lsm *lsm, int (*fn)(void *arg, const struct mls_lsm_scanned *scanned),
				void *arg);

struct mls_lsm_table {
	uint64_t log_id, nr_records, min_lba, max_lba, age, epoch;
	uint8_t level;
};
/* Every SSTable, level 0 first, there newest first; deeper in order of LBA. As above. */
MLS_MUST_CHECK int mls_lsm_tables(struct mls_lsm *lsm, int (*fn)(void *arg, const struct mls_lsm_table *table),
				  void *arg);

struct mls_lsm_stat {
	uint64_t memtable_records, frozen_records, nr_tables, nr_table_records, flushes, compactions;
	uint64_t cache_hits, cache_misses, committed_epoch, wal_blocks_used;
	uint64_t level_tables[8], level_records[8];
};
void mls_lsm_stat(struct mls_lsm *lsm, struct mls_lsm_stat *stat);

#endif
