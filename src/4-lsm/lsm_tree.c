/* SPDX-License-Identifier: MPL-2.0 */
/*
 * lsm_tree.c - why it exists: the door to the index. What stands behind it: lsm_internal.h.
 *
 *   new --(load, replay | format)--> replayed: reads --start--> started: reads, puts, syncs
 *                                                                 |
 *                                          any error of a worker or a sync: poisoned, reads only
 *
 * Invariant (tests count it): born - died, over all calls of the listener, is the number of versions
 * and records that point to a block.
 */
#include <stdlib.h>
#include <string.h>

#include "4-lsm/lsm_internal.h"
#include "base/err.h"

/* ---- Life ---- */

static void on_reset(void *arg)
{
	struct mls_lsm *lsm = arg;

	mls_lsm_state_reset(&lsm->state);
	mls_lsm_forget(lsm);
}

static int on_apply(void *arg, const uint8_t *edit, size_t bytes)
{
	struct mls_lsm *lsm = arg;

	return mls_lsm_state_apply(&lsm->state, edit, bytes);
}

static int on_snapshot(void *arg, struct mls_edit_group *group)
{
	struct mls_lsm *lsm = arg;

	return mls_lsm_state_snapshot(&lsm->state, group);
}

static void register_owner(struct mls_lsm *lsm)
{
	struct mls_edit_owner owner = {
		.reset = on_reset, .apply = on_apply, .snapshot = on_snapshot, .arg = lsm,
	};

	mls_journal_set_owner(lsm->journal, MLS_OWNER_LSM, &owner);
}

uint32_t mls_lsm_memtable_versions(const struct mls_lsm *lsm)
{
	return lsm->opts.memtable_records + lsm->opts.memtable_records / 4 + 1;
}

void mls_lsm_forget(struct mls_lsm *lsm)
{
	MLS_INVARIANT(lsm->phase != MLS_LSM_STARTED && !lsm->frozen);
	mls_memtable_clear(lsm->active);
	mls_wal_group_release(&lsm->held);
	lsm->has_held = false;
	if (lsm->tables->nr) {
		struct mls_table_set *empty;

		/* No memory to forget a set that was only read: its readers are gone. */
		if (mls_table_set_new(&empty, NULL, NULL, 0, NULL, 0) == 0) {
			mls_table_set_put(lsm->tables);
			lsm->tables = empty;
		}
	}
	memset(&lsm->wal_end, 0, sizeof lsm->wal_end);
	lsm->wal_start_seq = 0;
	lsm->committed = 0;
	lsm->epoch = 0;
	lsm->next_age = 1;
	lsm->phase = MLS_LSM_NEW;
}

static int lsm_init(struct mls_lsm *lsm)
{
	int err = mls_block_cache_new(&lsm->cache, lsm->opts.cache_bytes);

	if (!err)
		err = mls_table_set_new(&lsm->tables, NULL, NULL, 0, NULL, 0);
	if (!err)
		err = mls_memtable_new(&lsm->active, mls_lsm_memtable_versions(lsm), &lsm->listener);
	return err;
}

int mls_lsm_new(struct mls_lsm **out, struct mls_tx_store *store, struct mls_journal *journal,
		const struct mls_keyring *keys, const struct mls_block_ring *wal_ring,
		const struct mls_lsm_listener *listener, const struct mls_lsm_opts *opts)
{
	struct mls_lsm *lsm;
	int err;

	if (opts->memtable_records == 0 || opts->memtable_records > UINT32_MAX / 4 ||
	    mls_wal_group_blocks(3 * (uint64_t)opts->memtable_records, 0) > wal_ring->nr_blocks)
		return MLS_EINVAL;
	lsm = calloc(1, sizeof *lsm);
	if (!lsm)
		return MLS_ENOMEM;
	lsm->store = store;
	lsm->journal = journal;
	lsm->keys = keys;
	lsm->ring = *wal_ring;
	lsm->listener = *listener;
	lsm->opts = *opts;
	if (lsm->opts.table_records == 0)
		lsm->opts.table_records = opts->memtable_records;
	if (lsm->opts.run_records == 0)
		lsm->opts.run_records = lsm->opts.table_records;
	lsm->next_age = 1;
	mls_lsm_state_init(&lsm->state);
	pthread_mutex_init(&lsm->compact_lock, NULL);
	pthread_mutex_init(&lsm->tell_lock, NULL);
	pthread_mutex_init(&lsm->mem_lock, NULL);
	pthread_cond_init(&lsm->work, NULL);
	pthread_cond_init(&lsm->done, NULL);
	err = lsm_init(lsm);
	if (err) {
		mls_lsm_free(lsm);
		return err;
	}
	register_owner(lsm);
	*out = lsm;
	return 0;
}

void mls_lsm_free(struct mls_lsm *lsm)
{
	if (!lsm)
		return;
	mls_lsm_workers_stop(lsm);
	mls_chain_writer_free(lsm->wal);
	mls_wal_group_release(&lsm->held);
	mls_table_set_put(lsm->tables);
	mls_memtable_free(lsm->active);
	mls_memtable_free(lsm->frozen);
	mls_memtable_free(lsm->spare);
	mls_block_cache_free(lsm->cache);
	free(lsm->cut_recs);
	mls_lsm_state_release(&lsm->state);
	pthread_cond_destroy(&lsm->done);
	pthread_cond_destroy(&lsm->work);
	pthread_mutex_destroy(&lsm->mem_lock);
	pthread_mutex_destroy(&lsm->tell_lock);
	pthread_mutex_destroy(&lsm->compact_lock);
	free(lsm);
}

/* ---- Space pressure ---- */

/* Old records meet new ones in tables only: have what is synced flushed, or all there is. */
static int flush_for_compaction_locked(struct mls_lsm *lsm, bool unsynced_too)
{
	int err = mls_lsm_check_locked(lsm);

	while (!err && lsm->has_flusher && lsm->sync_running) {
		pthread_cond_wait(&lsm->done, &lsm->mem_lock);
		err = mls_lsm_check_locked(lsm);
	}
	while (!err && (lsm->frozen || !lsm->spare)) {
		if (lsm->frozen)
			err = mls_lsm_flush_wait_locked(lsm);
		else
			pthread_cond_wait(&lsm->done, &lsm->mem_lock);
		if (!err)
			err = mls_lsm_check_locked(lsm);
	}
	if (err || mls_memtable_nr_versions(lsm->active) == 0 ||
	    (!unsynced_too && mls_memtable_first_epoch(lsm->active) > lsm->committed) ||
	    !mls_lsm_freeze_allowed_locked(lsm))
		return err;
	mls_lsm_freeze_locked(lsm);
	return mls_lsm_flush_wait_locked(lsm);
}

static bool pick(struct mls_lsm *lsm, bool unsynced, struct mls_compaction *c)
{
	bool picked;

	pthread_mutex_lock(&lsm->mem_lock);
	picked = unsynced ? mls_compaction_pick_unsynced_locked(lsm, c) : mls_compaction_pick_any_locked(lsm, c);
	pthread_mutex_unlock(&lsm->mem_lock);
	return picked;
}

/* With compact_lock. unsynced: one merge of the current epoch's tables; else all that the synced ones allow. */
static int compact_locked(struct mls_lsm *lsm, bool unsynced)
{
	struct mls_compaction c;
	bool more = true;
	int err;

	pthread_mutex_lock(&lsm->mem_lock);
	if (!unsynced)
		lsm->compact_blocked = false;
	err = flush_for_compaction_locked(lsm, unsynced);
	pthread_mutex_unlock(&lsm->mem_lock);
	while (!err && more && pick(lsm, unsynced, &c)) {
		err = mls_compaction_run(lsm, &c);
		more = !unsynced;
	}
	return err;
}

static int compact(struct mls_lsm *lsm, bool unsynced, bool *progress)
{
	uint64_t nr_dropped;
	int err;

	pthread_mutex_lock(&lsm->compact_lock);
	pthread_mutex_lock(&lsm->mem_lock);
	nr_dropped = lsm->nr_dropped;
	pthread_mutex_unlock(&lsm->mem_lock);
	err = compact_locked(lsm, unsynced);
	pthread_mutex_lock(&lsm->mem_lock);
	if (!err)
		err = mls_lsm_check_locked(lsm);
	if (!err)
		*progress = lsm->nr_dropped != nr_dropped;
	pthread_mutex_unlock(&lsm->mem_lock);
	pthread_mutex_unlock(&lsm->compact_lock);
	return err;
}

int mls_lsm_compact_all(struct mls_lsm *lsm, bool *progress)
{
	return compact(lsm, false, progress);
}

int mls_lsm_merge_unsynced(struct mls_lsm *lsm, bool *progress)
{
	return compact(lsm, true, progress);
}
