/* SPDX-License-Identifier: MPL-2.0 */
/*
 * lsm_tree.c - why it exists: the door to the index. What stands behind it: lsm_internal.h.
 *
 *   new --(load, replay | format)--> replayed: reads --start--> started: reads, puts, syncs
 *                                                                 |
 *                                          any error of a worker or a sync: poisoned, reads only
 *
 * Lookup: memtable, frozen memtable, then the tables, newest first. The memtables and a reference to
 * the table set are taken under one hold of mem_lock, so a record that a flush moves from one to the
 * other is seen in at least one of them. Tables are read without a lock.
 *
 * Invariant (tests count it): born - died, over all calls of the listener, is the number of versions
 * and records that point to a block.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "4-lsm/lsm_internal.h"
#include "base/checked.h"
#include "base/err.h"

#define NEXT_WINDOW 256u	/* LBAs that next looks up at once */
#define MAX_DELAY_NS 100000000u	/* of one put */
#define BLOCK_DELAY_NS 1000000u	/* per record, when level 0 is nearly at its limit */
#define LOOK_AHEAD 16u		/* LBAs */
#define FLUSH_TABLES 3u		/* a committed and an uncommitted one, and what a compaction rounds up */

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

/* ---- Put ---- */

/* Free runs that flushes must leave, for the compaction of level 0 that is due: where its queue is long as many as all of it
 * takes before it gives any back, else a few. */
static uint64_t runs_to_leave_locked(const struct mls_lsm *lsm, unsigned nr_l0)
{
	const struct mls_table_set *set = lsm->tables;
	uint64_t nr_records = set->level_records[0] + set->level_records[1] + lsm->opts.memtable_records;

	if (nr_l0 <= MLS_LSM_L0_COMPACT)
		return 0;
	return FLUSH_TABLES + (nr_l0 > MLS_LSM_L0_SLOW ? mls_div_round_up(nr_records, lsm->opts.run_records) : 1);
}

/* Is level 0 so full that puts must wait, and is somebody there who can help? */
static bool stalled_locked(const struct mls_lsm *lsm)
{
	unsigned nr_l0 = mls_lsm_committed_l0_locked(lsm);
	uint64_t to_leave;

	if (!lsm->has_compactor || lsm->compact_blocked || lsm->stopping)
		return false;
	to_leave = runs_to_leave_locked(lsm, nr_l0);
	return nr_l0 > MLS_LSM_L0_STOP || (to_leave && mls_tx_store_nr_free(lsm->store) < to_leave);
}

/* Until nr versions fit into the active memtable. */
static int wait_for_room_locked(struct mls_lsm *lsm, uint32_t nr)
{
	for (;;) {
		int err = mls_lsm_check_locked(lsm);

		if (err)
			return err;
		if (mls_lsm_freeze_if_due_locked(lsm))
			pthread_cond_broadcast(&lsm->work);
		if (stalled_locked(lsm)) {
			pthread_cond_wait(&lsm->done, &lsm->mem_lock);
			continue;
		}
		if (mls_memtable_room(lsm->active) >= nr)
			return 0;
		if (lsm->frozen) {
			err = mls_lsm_flush_wait_locked(lsm);
			if (err)
				return err;
		} else if (!lsm->has_flusher) {
			/* Who is to wait for whom? The caller may be the one that syncs. */
			return mls_memtable_reserve(lsm->active, nr);
		} else {
			pthread_cond_wait(&lsm->done, &lsm->mem_lock);
		}
	}
}

/* The longer the queue of level 0, the slower; nothing stops suddenly. */
static uint64_t delay_ns_locked(const struct mls_lsm *lsm, size_t nr)
{
	uint64_t nr_l0 = mls_lsm_committed_l0_locked(lsm), excess, range = MLS_LSM_L0_STOP - MLS_LSM_L0_SLOW;

	if (!lsm->has_compactor || lsm->compact_blocked || nr_l0 <= MLS_LSM_L0_SLOW)
		return 0;
	excess = mls_min_u64(nr_l0 - MLS_LSM_L0_SLOW, range);
	return mls_min_u64(nr * (BLOCK_DELAY_NS * excess / range) * excess / range, MAX_DELAY_NS);
}

/* true: the workers are to be told, once the lock is free. */
static bool insert_locked(struct mls_lsm *lsm, const struct mls_index_rec *recs, size_t nr)
{
	for (size_t i = 0; i < nr; i++)
		MLS_INVARIANT(recs[i].lba != MLS_LBA_NONE && recs[i].hba != MLS_HBA_MISSING);
	mls_memtable_insert(lsm->active, recs, nr, lsm->epoch);
	lsm->epoch_used = true;
	return mls_lsm_freeze_if_due_locked(lsm);
}

static void after_put(struct mls_lsm *lsm, uint64_t delay_ns)
{
	struct timespec delay = { .tv_nsec = (long)delay_ns };

	if (lsm->opts.inline_work)
		mls_lsm_work_inline(lsm);
	else if (delay_ns)
		nanosleep(&delay, NULL);
}

static int put_batch(struct mls_lsm *lsm, const struct mls_index_rec *recs, size_t nr)
{
	uint64_t delay_ns = 0;
	bool frozen = false;
	int err;

	pthread_mutex_lock(&lsm->mem_lock);
	err = wait_for_room_locked(lsm, (uint32_t)nr);
	if (!err) {
		delay_ns = delay_ns_locked(lsm, nr);
		frozen = insert_locked(lsm, recs, nr);
	}
	mls_lsm_unlock_and_tell(lsm, frozen);
	if (!err)
		after_put(lsm, delay_ns);
	return err;
}

int mls_lsm_put(struct mls_lsm *lsm, const struct mls_index_rec *recs, size_t nr)
{
	size_t max = mls_max_u64(1, lsm->opts.memtable_records / 4);
	int err = 0;

	for (size_t done = 0; !err && done < nr;) {
		size_t n = mls_min_u64(max, nr - done);

		err = put_batch(lsm, recs + done, n);
		done += n;
	}
	return err;
}

/* ---- Get ---- */

/* The newest version in a memtable; NULL: none there. */
static const struct mls_index_rec *get_in_memory_locked(const struct mls_lsm *lsm, uint64_t lba)
{
	const struct mls_index_rec *rec = mls_memtable_get(lsm->active, lba);

	return rec || !lsm->frozen ? rec : mls_memtable_get(lsm->frozen, lba);
}

/* Before the i-th of nr lookups in a row: writers wait while memory is waited for. */
static void look_ahead_locked(const struct mls_lsm *lsm, const struct mls_index_rec *recs, size_t i, size_t nr)
{
	if (i % LOOK_AHEAD)
		return;
	nr = mls_min_u64(nr - i, LOOK_AHEAD);
	mls_memtable_prefetch(lsm->active, recs + i, nr);
	if (lsm->frozen)
		mls_memtable_prefetch(lsm->frozen, recs + i, nr);
}

/* What isn't in memory stays as it is; the set is for the rest. */
static struct mls_table_set *get_range_locked(struct mls_lsm *lsm, uint64_t lba, size_t nr,
					      struct mls_index_rec *recs, size_t *nr_missing)
{
	mls_lookup_init(recs, nr);
	*nr_missing = nr;
	for (size_t i = 0; i < nr; i++) {
		const struct mls_index_rec *rec = get_in_memory_locked(lsm, lba + i);

		if (rec) {
			recs[i] = *rec;
			--*nr_missing;
		}
	}
	return *nr_missing ? mls_table_set_get(lsm->tables) : NULL;
}

int mls_lsm_get(struct mls_lsm *lsm, uint64_t lba, size_t nr, struct mls_index_rec *recs)
{
	struct mls_table_set *set;
	size_t nr_missing;
	int err = 0;

	if (nr == 0 || nr >= MLS_LBA_NONE - lba)
		return nr ? MLS_EINVAL : 0;
	pthread_mutex_lock(&lsm->mem_lock);
	MLS_INVARIANT(lsm->phase != MLS_LSM_NEW);
	set = get_range_locked(lsm, lba, nr, recs, &nr_missing);
	pthread_mutex_unlock(&lsm->mem_lock);
	if (set)
		err = mls_table_set_get_range(set, lba, nr, recs, &nr_missing);
	mls_table_set_put(set);
	for (size_t i = 0; !err && nr_missing && i < nr; i++)
		if (recs[i].lba == MLS_LBA_NONE)
			recs[i] = (struct mls_index_rec){ .lba = lba + i, .hba = MLS_HBA_NONE };
	return err;
}

int mls_lsm_get_each(struct mls_lsm *lsm, struct mls_index_rec *recs, size_t nr)
{
	size_t nr_missing = nr;
	struct mls_table_set *set;
	int err;

	for (size_t i = 1; i < nr; i++)
		MLS_INVARIANT(recs[i].lba >= recs[i - 1].lba);
	pthread_mutex_lock(&lsm->mem_lock);
	MLS_INVARIANT(lsm->phase != MLS_LSM_NEW);
	for (size_t i = 0; i < nr; i++) {
		const struct mls_index_rec *rec;

		look_ahead_locked(lsm, recs, i, nr);
		rec = get_in_memory_locked(lsm, recs[i].lba);
		if (rec) {
			recs[i] = *rec;
			nr_missing--;
		} else {
			recs[i].hba = MLS_HBA_MISSING;
		}
	}
	set = mls_table_set_get(lsm->tables);
	pthread_mutex_unlock(&lsm->mem_lock);
	err = mls_table_set_get_each(set, recs, nr, &nr_missing);
	mls_table_set_put(set);
	for (size_t i = 0; i < nr && nr_missing; i++)
		if (recs[i].hba == MLS_HBA_MISSING)
			recs[i].hba = MLS_HBA_NONE;
	return err;
}

/* The smallest LBA >= lba, < end, that any source has a record of. MLS_ENOENT. */
static int next_candidate(struct mls_lsm *lsm, uint64_t lba, uint64_t end, uint64_t *found)
{
	uint64_t best = end, at;
	struct mls_table_set *set;
	int err;

	pthread_mutex_lock(&lsm->mem_lock);
	MLS_INVARIANT(lsm->phase != MLS_LSM_NEW);
	if (mls_memtable_next_lba(lsm->active, lba, &at) && at < best)
		best = at;
	if (lsm->frozen && mls_memtable_next_lba(lsm->frozen, lba, &at) && at < best)
		best = at;
	set = mls_table_set_get(lsm->tables);
	pthread_mutex_unlock(&lsm->mem_lock);
	err = mls_table_set_next(set, lba, best, &best);
	mls_table_set_put(set);
	if (err && err != MLS_ENOENT)
		return err;
	if (best >= end)
		return MLS_ENOENT;
	*found = best;
	return 0;
}

int mls_lsm_next_mapped(struct mls_lsm *lsm, uint64_t lba, uint64_t end, uint64_t *found)
{
	struct mls_index_rec recs[NEXT_WINDOW];

	for (;;) {
		size_t nr;
		int err = next_candidate(lsm, lba, end, &lba);

		if (err)
			return err;
		nr = mls_min_u64(NEXT_WINDOW, end - lba);
		err = mls_lsm_get(lsm, lba, nr, recs);
		if (err)
			return err;
		for (size_t i = 0; i < nr; i++)
			if (recs[i].hba != MLS_HBA_NONE) {
				*found = lba + i;
				return 0;
			}
		lba += nr;	/* tombstones only */
	}
}

/* ---- Move ---- */

/* One try. *again: a flush moved records to the tables since they were looked up. */
static int try_move(struct mls_lsm *lsm, const struct mls_index_rec *rec, uint64_t old_hba, bool *moved,
		    bool *again)
{
	const struct mls_index_rec *newest;
	struct mls_index_rec in_tables;
	uint64_t nr_flushes, delay_ns = 0;
	bool frozen = false;
	int err;

	pthread_mutex_lock(&lsm->mem_lock);
	nr_flushes = lsm->nr_flushes;
	pthread_mutex_unlock(&lsm->mem_lock);
	err = mls_lsm_get(lsm, rec->lba, 1, &in_tables);
	if (err)
		return err;
	*moved = *again = false;
	if (in_tables.hba != old_hba)
		return 0;

	pthread_mutex_lock(&lsm->mem_lock);
	err = wait_for_room_locked(lsm, 1);
	if (!err) {
		newest = get_in_memory_locked(lsm, rec->lba);
		*again = !newest && lsm->nr_flushes != nr_flushes;
		*moved = newest ? newest->hba == old_hba : !*again;
		if (*moved) {
			delay_ns = delay_ns_locked(lsm, 1);
			frozen = insert_locked(lsm, rec, 1);
		}
	}
	mls_lsm_unlock_and_tell(lsm, frozen);
	if (*moved)
		after_put(lsm, delay_ns);
	return err;
}

int mls_lsm_move(struct mls_lsm *lsm, const struct mls_index_rec *rec, uint64_t old_hba, bool *moved)
{
	bool done = false, again = true;
	int err = 0;

	while (!err && again)
		err = try_move(lsm, rec, old_hba, &done, &again);
	if (!err)
		*moved = done;
	return err;
}

/* A record leaves memory only by a flush. */
uint64_t mls_lsm_view(struct mls_lsm *lsm)
{
	uint64_t nr_flushes;

	pthread_mutex_lock(&lsm->mem_lock);
	nr_flushes = lsm->nr_flushes;
	pthread_mutex_unlock(&lsm->mem_lock);
	return nr_flushes;
}

/* As many from the front as can be told without the tables; *delay_ns for those. */
static int move_in_view(struct mls_lsm *lsm, const struct mls_index_rec *recs, const uint64_t *olds, size_t nr,
			uint64_t view, size_t *nr_told, size_t *nr_moved, uint64_t *delay_ns)
{
	size_t moved = 0, i = 0;
	bool frozen = false;
	int err;

	pthread_mutex_lock(&lsm->mem_lock);
	err = wait_for_room_locked(lsm, (uint32_t)nr);
	for (; !err && i < nr; i++) {
		const struct mls_index_rec *newest;

		look_ahead_locked(lsm, recs, i, nr);
		newest = get_in_memory_locked(lsm, recs[i].lba);
		if (!newest && lsm->nr_flushes != view)
			break;
		if (newest && newest->hba != olds[i])
			continue;
		frozen |= insert_locked(lsm, &recs[i], 1);
		moved++;
	}
	if (!err)
		*delay_ns = delay_ns_locked(lsm, moved);
	mls_lsm_unlock_and_tell(lsm, frozen);
	*nr_told = i;
	*nr_moved = moved;
	return err;
}

int mls_lsm_move_each(struct mls_lsm *lsm, const struct mls_index_rec *recs, const uint64_t *olds, size_t nr,
		      uint64_t view, size_t *nr_moved)
{
	size_t max = mls_max_u64(1, lsm->opts.memtable_records / 4);
	int err = 0;

	*nr_moved = 0;
	while (nr > 0 && !err) {
		size_t told, moved;
		uint64_t delay_ns = 0;

		err = move_in_view(lsm, recs, olds, mls_min_u64(nr, max), view, &told, &moved, &delay_ns);
		if (!err && moved)
			after_put(lsm, delay_ns);
		if (!err && told == 0) {	/* flushed meanwhile: it takes a look at the tables */
			bool done;

			err = mls_lsm_move(lsm, recs, *olds, &done);
			told = 1;
			moved = !err && done;
		}
		*nr_moved += moved;
		recs += told;
		olds += told;
		nr -= told;
	}
	return err;
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
