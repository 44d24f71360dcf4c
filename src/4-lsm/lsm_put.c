/* SPDX-License-Identifier: MPL-2.0 */
/*
 * lsm_put.c - writers' records, and moves: records that are put only if they replace what they were made from.
 *
 * Who puts may wait: for room in the memtable, for a compaction of level 0, and the longer its queue the longer.
 */
#include <time.h>

#include "4-lsm/lsm_internal.h"
#include "base/checked.h"
#include "base/err.h"

#define MAX_DELAY_NS 100000000u	/* of one put */
#define BLOCK_DELAY_NS 1000000u	/* per record, when level 0 is nearly at its limit */
#define FLUSH_TABLES 3u		/* a committed and an uncommitted one, and what a compaction rounds up */

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
		int err = mls_lsm_ready_locked(lsm);

		if (err)
			return err;
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

/* ---- Move ---- */

/* One try. *again: a flush moved records to the tables since they were looked up. */
static int try_move(struct mls_lsm *lsm, const struct mls_index_rec *rec, uint64_t old_hba, bool *moved,
		    bool *again)
{
	const struct mls_index_rec *newest;
	struct mls_index_rec in_tables;
	uint64_t view = mls_lsm_view(lsm), delay_ns = 0;
	bool frozen = false;
	int err = mls_lsm_get(lsm, rec->lba, 1, &in_tables);

	if (err)
		return err;
	*moved = *again = false;
	if (in_tables.hba != old_hba)
		return 0;

	pthread_mutex_lock(&lsm->mem_lock);
	err = wait_for_room_locked(lsm, 1);
	if (!err) {
		newest = mls_lsm_in_memory_locked(lsm, rec->lba);
		*again = !newest && lsm->nr_flushes != view;
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

		mls_lsm_look_ahead_locked(lsm, recs, i, nr);
		newest = mls_lsm_in_memory_locked(lsm, recs[i].lba);
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
