/* SPDX-License-Identifier: MPL-2.0 */
/*
 * lsm_sync.c - why it exists: an epoch becomes durable as one WAL group.
 *
 *   idle --cut--> cut --wal_write--> written --commit--> idle
 *                  |                    |
 *                  +------abandon-------+--------> idle, poisoned
 *
 * What the group must hold: the records of the closed epoch that no durable SSTable has. Those are
 * the dirty versions of the active memtable, and of the frozen one as long as its flush isn't
 * published. A flush that is durable but not yet published makes the group say it twice, which is
 * harmless: the group is newer than the table, and says the same.
 *
 * Room in the ring: cut makes sure of it, since later nothing can be frozen. When a memtable is
 * frozen, its flush will move the WAL's start to where it was frozen; from there on the group must
 * fit, and wal_write may wait for that flush. A part of the ring is left for OPEN groups, which come
 * before a session may flush.
 */
#include <stdlib.h>
#include <string.h>

#include "4-lsm/lsm_internal.h"
#include "base/checked.h"
#include "base/err.h"

#define MIN_RESERVE_BLOCKS 4u

static uint64_t reserve_blocks(const struct mls_lsm *lsm)
{
	return mls_max_u64(MIN_RESERVE_BLOCKS, lsm->ring.nr_blocks / 16);
}

static uint32_t nr_dirty_locked(const struct mls_lsm *lsm)
{
	return mls_memtable_nr_dirty(lsm->active) + (lsm->frozen ? mls_memtable_nr_dirty(lsm->frozen) : 0);
}

/* ---- Cut ---- */

/* Will the group fit, at the latest when the frozen memtable has been flushed? */
static bool group_fits_locked(const struct mls_lsm *lsm)
{
	uint64_t start = lsm->frozen ? lsm->frozen_start.pos.seq : lsm->wal_start_seq;
	uint64_t used = lsm->wal_end.pos.seq - start;

	return used + mls_wal_group_blocks(nr_dirty_locked(lsm), 0) + reserve_blocks(lsm) <= lsm->ring.nr_blocks;
}

/* Freeze and flush until the group fits. */
static int make_room_locked(struct mls_lsm *lsm)
{
	for (;;) {
		int err = mls_lsm_ready_locked(lsm);

		if (err)
			return err;
		if (!lsm->opened || group_fits_locked(lsm))
			return 0;
		if (lsm->frozen) {
			if (lsm->frozen_start.pos.seq == lsm->wal_end.pos.seq)
				return 0;	/* no better can be had: wal_write will tell */
			err = mls_lsm_flush_wait_locked(lsm);
			if (err)
				return err;
		} else if (mls_lsm_freeze_allowed_locked(lsm)) {
			mls_lsm_freeze_locked(lsm);
		} else {
			pthread_cond_wait(&lsm->done, &lsm->mem_lock);	/* for the spare memtable */
		}
	}
}

static int recs_reserve(struct mls_lsm *lsm, size_t nr)
{
	struct mls_index_rec *recs;

	if (nr <= lsm->cap_cut)
		return 0;
	recs = realloc(lsm->cut_recs, nr * sizeof *recs);
	if (!recs)
		return MLS_ENOMEM;
	lsm->cut_recs = recs;
	lsm->cap_cut = nr;
	return 0;
}

/* Copy mt's dirty records that newer (or NULL) hasn't got a version of. */
static size_t collect(struct mls_memtable *mt, const struct mls_memtable *newer, struct mls_index_rec *recs)
{
	size_t nr = 0;

	for (const struct mls_mem_version *v = mls_memtable_first_dirty(mt); v; v = mls_memtable_next_dirty(mt, v))
		if (!newer || !mls_memtable_get(newer, v->rec.lba))
			recs[nr++] = v->rec;
	mls_memtable_forget_dirty(mt);
	return nr;
}

static int cut_locked(struct mls_lsm *lsm, struct mls_lsm_cut *cut)
{
	int err = make_room_locked(lsm);

	if (!err)
		err = recs_reserve(lsm, nr_dirty_locked(lsm));
	if (err)
		return err;
	memset(cut, 0, sizeof *cut);
	if (lsm->frozen)
		cut->nr_records = collect(lsm->frozen, lsm->active, lsm->cut_recs);
	cut->nr_records += collect(lsm->active, NULL, lsm->cut_recs + cut->nr_records);
	cut->sync_id = lsm->epoch++;
	lsm->epoch_used = false;
	lsm->sync_running = true;
	return 0;
}

int mls_lsm_cut(struct mls_lsm *lsm, struct mls_lsm_cut *cut)
{
	int err;

	pthread_mutex_lock(&lsm->mem_lock);
	MLS_INVARIANT(!lsm->sync_running);
	err = cut_locked(lsm, cut);
	pthread_mutex_unlock(&lsm->mem_lock);
	return err;
}

/* ---- Write ---- */

static int wait_for_room(struct mls_lsm *lsm, uint64_t nr_blocks)
{
	int err;

	pthread_mutex_lock(&lsm->mem_lock);
	for (;;) {
		err = mls_lsm_check_locked(lsm);
		if (err || mls_lsm_wal_used_locked(lsm) + nr_blocks <= lsm->ring.nr_blocks)
			break;
		err = lsm->frozen ? mls_lsm_flush_wait_locked(lsm) : MLS_ENOSPC;
		if (err)
			break;
	}
	pthread_mutex_unlock(&lsm->mem_lock);
	return err;
}

int mls_lsm_wal_write(struct mls_lsm *lsm, struct mls_lsm_cut *cut, const void *announce, size_t announce_bytes,
		      uint64_t generation, uint8_t flags)
{
	struct mls_wal_group group = {
		.head = { .sync_id = cut->sync_id, .generation = generation },
		.flags = flags,
		.announce = announce,
		.announce_bytes = announce_bytes,
		.recs = lsm->cut_recs,
		.nr_recs = cut->nr_records,
		.along = cut->along,
		.nr_along = cut->nr_along,
	};
	int err;

	MLS_INVARIANT(lsm->sync_running && cut->sync_id + 1 == lsm->epoch);
	err = wait_for_room(lsm, mls_wal_group_blocks(cut->nr_records, announce_bytes));
	if (err)
		return err;
	/* What cut left out is in tables that were committed before; so name the last commit of now. */
	group.head.commit = mls_journal_last_commit(lsm->journal);
	memcpy(group.head.session, lsm->session, sizeof group.head.session);
	err = mls_wal_write_group(lsm->wal, &group);
	if (err)
		return err;
	lsm->cut_end.pos = *mls_chain_writer_pos(lsm->wal);
	lsm->cut_end.sync_id = cut->sync_id;
	lsm->cut_end.commit = group.head.commit;
	lsm->cut_end.generation = group.head.generation;
	memcpy(lsm->cut_end.session, lsm->session, sizeof lsm->cut_end.session);
	memcpy(cut->digest, lsm->cut_end.pos.tag, sizeof cut->digest);
	return 0;
}

/* ---- Commit, abandon ---- */

void mls_lsm_commit(struct mls_lsm *lsm, struct mls_lsm_cut *cut)
{
	bool works;

	pthread_mutex_lock(&lsm->mem_lock);
	MLS_INVARIANT(lsm->sync_running && lsm->cut_end.sync_id == cut->sync_id);
	lsm->committed = cut->sync_id;
	lsm->wal_end = lsm->cut_end;
	lsm->sync_running = false;
	lsm->opened = true;
	lsm->compact_blocked = false;
	mls_memtable_commit(lsm->active, cut->sync_id);
	if (lsm->frozen && !lsm->flushing)
		mls_memtable_commit(lsm->frozen, cut->sync_id);
	/* To wake threads in vain costs a small sync a fifth of its time. */
	works = mls_lsm_freeze_if_due_locked(lsm);
	works |= mls_compaction_due_locked(lsm);
	pthread_cond_broadcast(&lsm->done);
	mls_lsm_unlock_and_tell(lsm, works);
	if (lsm->opts.inline_work)
		mls_lsm_work_inline(lsm);
}

void mls_lsm_abandon(struct mls_lsm *lsm, struct mls_lsm_cut *cut)
{
	(void)cut;
	pthread_mutex_lock(&lsm->mem_lock);
	MLS_INVARIANT(lsm->sync_running);
	lsm->sync_running = false;
	mls_lsm_poison_locked(lsm, MLS_EPOISONED);
	pthread_mutex_unlock(&lsm->mem_lock);
}

bool mls_lsm_poisoned(struct mls_lsm *lsm)
{
	bool poisoned;

	pthread_mutex_lock(&lsm->mem_lock);
	poisoned = lsm->err != 0;
	pthread_mutex_unlock(&lsm->mem_lock);
	return poisoned;
}

bool mls_lsm_dirty(struct mls_lsm *lsm)
{
	bool dirty;

	pthread_mutex_lock(&lsm->mem_lock);
	dirty = lsm->epoch_used || lsm->sync_running;
	pthread_mutex_unlock(&lsm->mem_lock);
	return dirty;
}
