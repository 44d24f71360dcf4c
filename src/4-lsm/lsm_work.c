/* SPDX-License-Identifier: MPL-2.0 */
/*
 * lsm_work.c - why it exists: when a memtable is frozen, and who flushes and compacts.
 *
 *   active --freeze--> frozen --flush--> (cleared) spare --freeze--> active
 *
 * One thread flushes and another compacts, so that a flush, for which puts may wait, never waits for
 * a long compaction. With inline_work there are no threads: the caller of put or commit does both.
 *
 * A freeze is due when the active memtable is full, or when a third of the WAL ring is used: the rest
 * of the ring takes the syncs that come while the flush runs. A memtable holds a quarter more than
 * its nominal capacity, for the puts that come while a freeze isn't allowed.
 *
 * A flush without space stays wanted by nobody until somebody needs it; he asks, and waits for that
 * one attempt.
 */
#include "4-lsm/lsm_internal.h"
#include "base/err.h"
#include "base/log.h"
#include "base/thread.h"

int mls_lsm_check_locked(struct mls_lsm *lsm)
{
	int err = lsm->err;

	if (lsm->opts.read_only)
		return MLS_EROFS;
	MLS_INVARIANT(lsm->phase == MLS_LSM_STARTED);
	if (err)
		lsm->err = MLS_EPOISONED;
	return err;
}

void mls_lsm_poison_locked(struct mls_lsm *lsm, int err)
{
	if (!lsm->err) {
		mls_error("index: no more changes until it is opened again: %s", mls_strerror(err));
		lsm->err = err;
	}
	pthread_cond_broadcast(&lsm->done);
	pthread_cond_broadcast(&lsm->work);
}

/* ---- Freezing ---- */

uint64_t mls_lsm_wal_used_locked(const struct mls_lsm *lsm)
{
	return lsm->wal_end.pos.seq - lsm->wal_start_seq;
}

bool mls_lsm_freeze_allowed_locked(const struct mls_lsm *lsm)
{
	return lsm->opened && !lsm->sync_running && !lsm->frozen && lsm->spare && !lsm->err;
}

void mls_lsm_freeze_locked(struct mls_lsm *lsm)
{
	MLS_INVARIANT(mls_lsm_freeze_allowed_locked(lsm) && !lsm->flushing);
	MLS_INVARIANT(mls_memtable_nr_versions(lsm->spare) == 0);
	lsm->frozen = lsm->active;
	lsm->active = lsm->spare;
	lsm->spare = NULL;
	lsm->frozen_start = lsm->wal_end;
	lsm->flush_wanted = true;
}

bool mls_lsm_freeze_if_due_locked(struct mls_lsm *lsm)
{
	bool full = mls_memtable_nr_versions(lsm->active) >= lsm->opts.memtable_records;

	if (!mls_lsm_freeze_allowed_locked(lsm) ||
	    !(full || mls_lsm_wal_used_locked(lsm) > lsm->ring.nr_blocks / 3))
		return false;
	mls_lsm_freeze_locked(lsm);
	return true;
}

int mls_lsm_ready_locked(struct mls_lsm *lsm)
{
	int err = mls_lsm_check_locked(lsm);

	if (!err && mls_lsm_freeze_if_due_locked(lsm))
		pthread_cond_broadcast(&lsm->work);
	return err;
}

void mls_lsm_unlock_and_tell(struct mls_lsm *lsm, bool works)
{
	pthread_mutex_unlock(&lsm->mem_lock);
	if (works)
		pthread_cond_broadcast(&lsm->work);
}

/* ---- Waiting for a flush ---- */

static int flush_now_locked(struct mls_lsm *lsm)
{
	int err;

	if (lsm->flushing) {
		pthread_cond_wait(&lsm->done, &lsm->mem_lock);
		return 0;
	}
	pthread_mutex_unlock(&lsm->mem_lock);
	err = mls_lsm_flush(lsm);
	pthread_mutex_lock(&lsm->mem_lock);
	return err;
}

int mls_lsm_flush_wait_locked(struct mls_lsm *lsm)
{
	uint64_t seen = lsm->nr_flush_attempts;

	if (!lsm->frozen)
		return 0;
	if (!lsm->has_flusher)
		return flush_now_locked(lsm);
	lsm->flush_wanted = true;
	pthread_cond_broadcast(&lsm->work);
	while (lsm->frozen && lsm->nr_flush_attempts == seen && !lsm->err)
		pthread_cond_wait(&lsm->done, &lsm->mem_lock);
	if (lsm->err)
		return mls_lsm_check_locked(lsm);
	return lsm->frozen && lsm->nr_flush_attempts != seen ? lsm->flush_err : 0;
}

/* ---- The workers ---- */

static void *flusher_main(void *arg)
{
	struct mls_lsm *lsm = arg;
	int err;

	pthread_mutex_lock(&lsm->mem_lock);
	while (!lsm->stopping) {
		if (lsm->frozen && lsm->flush_wanted && !lsm->err) {
			pthread_mutex_unlock(&lsm->mem_lock);
			err = mls_lsm_flush(lsm);	/* who waits for it is told */
			(void)err;
			pthread_mutex_lock(&lsm->mem_lock);
		} else {
			pthread_cond_wait(&lsm->work, &lsm->mem_lock);
		}
	}
	pthread_mutex_unlock(&lsm->mem_lock);
	return NULL;
}

/* One compaction if there is one to do. */
static bool compact_one(struct mls_lsm *lsm)
{
	struct mls_compaction c;
	bool picked;
	int err = 0;

	pthread_mutex_lock(&lsm->compact_lock);
	pthread_mutex_lock(&lsm->mem_lock);
	picked = !lsm->stopping && mls_compaction_pick_locked(lsm, &c);
	pthread_mutex_unlock(&lsm->mem_lock);
	if (picked)
		err = mls_compaction_run(lsm, &c);
	pthread_mutex_unlock(&lsm->compact_lock);
	return picked && !err;
}

static void *compactor_main(void *arg)
{
	struct mls_lsm *lsm = arg;

	mls_thread_in_background();
	pthread_mutex_lock(&lsm->mem_lock);
	while (!lsm->stopping) {
		/* compact_lock comes before mem_lock: look, let go, and pick once both are held. */
		if (mls_compaction_due_locked(lsm)) {
			pthread_mutex_unlock(&lsm->mem_lock);
			compact_one(lsm);
			pthread_mutex_lock(&lsm->mem_lock);
		} else {
			pthread_cond_wait(&lsm->work, &lsm->mem_lock);
		}
	}
	pthread_mutex_unlock(&lsm->mem_lock);
	return NULL;
}

int mls_lsm_workers_start(struct mls_lsm *lsm)
{
	if (pthread_create(&lsm->flusher, NULL, flusher_main, lsm) != 0)
		return MLS_ENOMEM;
	lsm->has_flusher = true;
	if (pthread_create(&lsm->compactor, NULL, compactor_main, lsm) != 0)
		return MLS_ENOMEM;	/* free stops the other */
	lsm->has_compactor = true;
	return 0;
}

void mls_lsm_workers_stop(struct mls_lsm *lsm)
{
	pthread_mutex_lock(&lsm->mem_lock);
	__atomic_store_n(&lsm->stopping, true, __ATOMIC_RELAXED);
	pthread_cond_broadcast(&lsm->work);
	pthread_mutex_unlock(&lsm->mem_lock);
	if (lsm->has_flusher)
		pthread_join(lsm->flusher, NULL);
	if (lsm->has_compactor)
		pthread_join(lsm->compactor, NULL);
	lsm->has_flusher = lsm->has_compactor = false;
}

void mls_lsm_work_inline(struct mls_lsm *lsm)
{
	bool flush = true;

	while (flush) {
		pthread_mutex_lock(&lsm->mem_lock);
		flush = lsm->frozen && !lsm->flushing && !lsm->sync_running && !lsm->err;
		pthread_mutex_unlock(&lsm->mem_lock);
		if (flush && mls_lsm_flush(lsm) != 0)
			return;		/* poisoned, or asked again when there is need */
	}
	while (compact_one(lsm))
		;
}
