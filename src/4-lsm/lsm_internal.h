/* SPDX-License-Identifier: MPL-2.0 */
/*
 * lsm_internal.h - layer 4, within the tree: its state, shared by the files behind the door.
 *
 * Files    lsm_tree.c (life)  lsm_put.c  lsm_get.c  lsm_sync.c (cut ... commit)  lsm_recovery.c (replay, start)
 *          lsm_work.c (freeze, workers)  lsm_shadow.c  flush.c
 *          compaction.c  table_tx.c
 * Locks    In the order taken (doc/design.md 11):
 *            compact_lock   one compaction at a time; held over its I/O
 *            tell_lock      who tells what is hidden; held over its I/O
 *            mem_lock       everything below the mark; never over I/O. Listener calls born and
 *                           died come with it held.
 *            state.lock     lsm_state.h
 *          Transactions are prepared and committed with neither mem_lock nor state.lock held.
 * Epochs   committed < epoch. While a sync runs: epoch == cut's sync id + 1.
 * Freeze   Never while a sync runs, and not before the first commit of the session (`opened`).
 * Flushing `flushing`: somebody reads the frozen memtable without mem_lock; it must not change, so
 *          its versions don't die by commit: their lives pass to the SSTables. If the flush fails,
 *          the deaths are caught up with.
 */
#ifndef MLS_LSM_LSM_INTERNAL_H
#define MLS_LSM_LSM_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "4-lsm/lsm_state.h"
#include "4-lsm/lsm_tree.h"
#include "4-lsm/memtable.h"
#include "4-lsm/table_set.h"
#include "4-lsm/wal.h"

#define MLS_LSM_L0_COMPACT 4u		/* committed level-0 tables that are worth a compaction */
#define MLS_LSM_L0_SLOW 8u		/* from here on puts are delayed */
#define MLS_LSM_L0_STOP 24u		/* from here on puts wait */
#define MLS_LSM_L0_UNCOMMITTED 8u	/* more than these are merged among themselves */

enum mls_lsm_phase { MLS_LSM_NEW, MLS_LSM_REPLAYED, MLS_LSM_STARTED };

struct mls_lsm {
	struct mls_tx_store *store;		/* borrowed, as the next three */
	struct mls_journal *journal;
	const struct mls_keyring *keys;
	struct mls_block_ring ring;
	struct mls_lsm_listener listener;
	struct mls_lsm_opts opts;
	uint8_t session[MLS_SESSION_BYTES];
	struct mls_block_cache *cache;
	struct mls_lsm_state state;

	pthread_mutex_t compact_lock;
	pthread_mutex_t tell_lock;
	bool telling;				/* set under compact_lock and tell_lock: see lsm_shadow.c */
	uint64_t cursors[MLS_NR_LEVELS];	/* under compact_lock: round robin, next LBA */

	pthread_mutex_t mem_lock;
	pthread_cond_t work;			/* workers wait: there may be something to do */
	pthread_cond_t done;			/* puts and cuts wait: something was done */

	/* ---- Under mem_lock ---- */
	enum mls_lsm_phase phase;
	struct mls_memtable *active, *frozen, *spare;	/* frozen, spare: or NULL */
	struct mls_wal_start frozen_start;	/* where the WAL stood at the freeze */
	bool flushing;
	struct mls_table_set *tables;
	uint64_t nr_flushes, nr_compactions, nr_dropped;
	uint64_t next_age;
	uint64_t epoch, committed;
	bool epoch_used;			/* there were puts in the current epoch */
	bool sync_running, opened;
	struct mls_wal_start wal_end;		/* behind the last committed group */
	uint64_t wal_start_seq;			/* where a recovery would begin */
	int err;				/* not 0: poisoned; what to answer next */
	bool flush_wanted;			/* the flusher hasn't tried since it was asked */
	uint64_t nr_flush_attempts;
	int flush_err;				/* of the last attempt */
	bool compact_blocked;			/* no space or memory; until something changes */
	bool stopping;
	atomic_bool tell_no_more;

	/* ---- The running sync's; its thread only ---- */
	struct mls_chain_writer *wal;
	struct mls_index_rec *cut_recs;
	size_t cap_cut;
	struct mls_wal_start cut_end;

	/* ---- Replay, one thread ---- */
	struct mls_wal_group held;		/* the last group */
	bool has_held;
	struct mls_wal_start before, behind;	/* the sync before the held group; the newest one */
	struct mls_sync_head before_head;

	pthread_t flusher, compactor;
	bool has_flusher, has_compactor;
};

static inline bool mls_lsm_is_transient(int err)
{
	return err == MLS_ENOSPC || err == MLS_ENOMEM;
}

/* ---- lsm_work.c ---- */

/* May the index be changed? 0, MLS_EROFS, or what poisoned it. */
int mls_lsm_check_locked(struct mls_lsm *lsm);
void mls_lsm_poison_locked(struct mls_lsm *lsm, int err);

uint64_t mls_lsm_wal_used_locked(const struct mls_lsm *lsm);
bool mls_lsm_freeze_allowed_locked(const struct mls_lsm *lsm);
/* It must be allowed. Whoever freezes tells the workers, or waits for the flush, which does. */
void mls_lsm_freeze_locked(struct mls_lsm *lsm);
/* Freeze if it is time to, and allowed. true: the workers are to be told, where that can be when the lock is free. */
bool mls_lsm_freeze_if_due_locked(struct mls_lsm *lsm);
/* For who is about to change it, and may have to wait: checked, and frozen if that's due. What check answers. */
int mls_lsm_ready_locked(struct mls_lsm *lsm);
/* Lets go of mem_lock, and only then tells the workers, if there is work: who is woken may take the processor of who woke him. */
void mls_lsm_unlock_and_tell(struct mls_lsm *lsm, bool works);

/* Have the frozen memtable flushed: wait for one attempt. Gives up mem_lock meanwhile. */
int mls_lsm_flush_wait_locked(struct mls_lsm *lsm);

unsigned mls_lsm_committed_l0_locked(const struct mls_lsm *lsm);

int mls_lsm_workers_start(struct mls_lsm *lsm);
void mls_lsm_workers_stop(struct mls_lsm *lsm);
/* The workers' work, by the caller, if there are none. */
void mls_lsm_work_inline(struct mls_lsm *lsm);

/* ---- lsm_tree.c, lsm_recovery.c ---- */

uint32_t mls_lsm_memtable_versions(const struct mls_lsm *lsm);	/* of a full one, with what comes late */
/* Forget what a load and a replay made; nobody is told. */
void mls_lsm_forget(struct mls_lsm *lsm);

/* ---- lsm_get.c ---- */

/* With room for tables that a compaction is about to replace? */
bool mls_lsm_fits_cache(const struct mls_lsm *lsm, const struct mls_table_set *set);
/* The newest version in a memtable; NULL: none there. */
const struct mls_index_rec *mls_lsm_in_memory_locked(const struct mls_lsm *lsm, uint64_t lba);
/* Before the i-th of nr lookups in a row: writers wait while memory is waited for. */
void mls_lsm_look_ahead_locked(const struct mls_lsm *lsm, const struct mls_index_rec *recs, size_t i, size_t nr);

/* ---- lsm_shadow.c ---- */

/* Tell the listener what is hidden, if anybody wants to know. Without tell_lock and mem_lock. */
int mls_lsm_tell(struct mls_lsm *lsm);

/* ---- flush.c ---- */

/* One attempt to flush the frozen memtable, if there is one and nobody is at it. */
int mls_lsm_flush(struct mls_lsm *lsm);

/* ---- compaction.c ---- */

struct mls_compaction {
	struct mls_table_set *set;	/* a reference; the inputs are two ranges of its tables */
	unsigned newer_from, newer_to, older_from, older_to;
	uint8_t out_level;
	uint64_t out_age, out_epoch, max_records;
	bool keep_tombstones;
};

/* Would pick find something? */
bool mls_compaction_due_locked(const struct mls_lsm *lsm);
/* What should be compacted, now; false: nothing. Under compact_lock. */
bool mls_compaction_pick_locked(struct mls_lsm *lsm, struct mls_compaction *c);
/* Regardless of sizes: towards a single level. */
bool mls_compaction_pick_any_locked(struct mls_lsm *lsm, struct mls_compaction *c);
/* All tables of the current epoch, if there are two or more. */
bool mls_compaction_pick_unsynced_locked(struct mls_lsm *lsm, struct mls_compaction *c);
/* Do it, and release *c. Under compact_lock, without mem_lock. Handles its errors (poison, blocked). */
int mls_compaction_run(struct mls_lsm *lsm, struct mls_compaction *c);

/* ---- table_tx.c ---- */

/* A transaction on SSTables: built, removed, committed, published; with the listener's part. */
struct mls_table_tx {
	struct mls_lsm *lsm;
	struct mls_tx *tx;
	void *ctx;			/* the listener's */
	struct mls_sst_builder *builder;	/* of the table being built; NULL: none */
	struct mls_table *add;
	unsigned nr_add, cap_add;
	uint64_t *remove;
	unsigned nr_remove, cap_remove;
	uint64_t nr_dropped;
	bool committed;			/* even if commit answers an error */
	bool told;			/* what is added is: lsm_shadow.c */
};

int mls_table_tx_begin(struct mls_table_tx *t, struct mls_lsm *lsm);
int mls_table_tx_add(struct mls_table_tx *t, uint8_t level, const struct mls_index_rec *rec);
/* End the table being built, if there is one. */
int mls_table_tx_end_table(struct mls_table_tx *t, uint8_t level, uint64_t age, uint64_t epoch);
int mls_table_tx_remove(struct mls_table_tx *t, const struct mls_table *table);
int mls_table_tx_dropped(struct mls_table_tx *t, const struct mls_index_rec *rec);
/* Commit and publish; published is called with mem_lock held, together with the new tables. */
int mls_table_tx_commit(struct mls_table_tx *t, void (*published)(struct mls_lsm *lsm, void *arg), void *arg);
void mls_table_tx_abort(struct mls_table_tx *t);

#endif
