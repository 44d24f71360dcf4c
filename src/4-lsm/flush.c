/* SPDX-License-Identifier: MPL-2.0 */
/*
 * flush.c - why it exists: the frozen memtable becomes SSTables, and the WAL's start moves behind it.
 *
 * Which version goes where is decided by `committed` when the flush begins:
 *
 *   newest version      goes to                 the version it shadows
 *   epoch <= committed  the committed table     has died already
 *   epoch >  committed  the uncommitted table   goes to the committed table: a crash may need it
 *
 * All uncommitted versions are of one epoch (a freeze never falls into a running sync), so there are
 * two tables at most, and an uncommitted one is newer than all committed ones.
 *
 * A flush without any record is made all the same if the WAL must get shorter.
 */
#include "4-lsm/lsm_internal.h"
#include "base/err.h"

struct flush {
	struct mls_table_tx t;
	struct mls_memtable *mt;
	uint32_t nr_lbas;
	uint64_t committed, age;
	struct mls_wal_start start;
};

static int write_record(struct flush *f, const struct mls_index_rec *rec)
{
	struct mls_lsm *lsm = f->t.lsm;
	int err = mls_table_tx_add(&f->t, 0, rec);

	if (!err && rec->hba != MLS_HBA_NONE)
		err = lsm->listener.tx_added(f->t.ctx, rec->hba);
	return err;
}

static int write_committed(struct flush *f)
{
	int err = 0;

	for (uint32_t i = 0; !err && i < f->nr_lbas; i++) {
		const struct mls_mem_version *version = mls_memtable_sorted(f->mt, i);

		if (version->epoch > f->committed)
			version = mls_memtable_older(f->mt, version);
		if (!version)
			continue;
		MLS_INVARIANT(version->epoch <= f->committed && !mls_memtable_older(f->mt, version));
		err = write_record(f, &version->rec);
	}
	return err ? err : mls_table_tx_end_table(&f->t, 0, f->age, f->committed);
}

static int write_uncommitted(struct flush *f)
{
	uint64_t epoch = 0;
	int err = 0;

	for (uint32_t i = 0; !err && i < f->nr_lbas; i++) {
		const struct mls_mem_version *version = mls_memtable_sorted(f->mt, i);

		if (version->epoch <= f->committed)
			continue;
		MLS_INVARIANT(epoch == 0 || epoch == version->epoch);
		epoch = version->epoch;
		err = write_record(f, &version->rec);
	}
	return err ? err : mls_table_tx_end_table(&f->t, 0, f->age + 1, epoch);
}

static int move_wal_start(struct flush *f)
{
	struct mls_wal_start_disk edit;

	mls_wal_start_encode(&edit, &f->start);
	return mls_tx_edit(f->t.tx, MLS_OWNER_LSM, &edit, sizeof edit);
}

/* With mem_lock: from now on the tables have what the frozen memtable had. */
static void published(struct mls_lsm *lsm, void *arg)
{
	const struct flush *f = arg;

	MLS_INVARIANT(lsm->frozen == f->mt && lsm->flushing);
	lsm->frozen = NULL;
	lsm->flushing = false;
	lsm->wal_start_seq = f->start.pos.seq;
	lsm->nr_flushes++;
	lsm->compact_blocked = false;
}

static int write_tables(struct flush *f, struct mls_lsm *lsm)
{
	int err;

	f->nr_lbas = mls_memtable_sort(f->mt);
	err = mls_table_tx_begin(&f->t, lsm);
	if (err)
		return err;
	err = write_committed(f);
	if (!err)
		err = write_uncommitted(f);
	if (!err)
		err = move_wal_start(f);
	if (err) {
		mls_table_tx_abort(&f->t);
		return err;
	}
	return mls_table_tx_commit(&f->t, published, f);
}

static bool flush_begin(struct mls_lsm *lsm, struct flush *f)
{
	bool begin;

	pthread_mutex_lock(&lsm->mem_lock);
	lsm->flush_wanted = false;
	begin = lsm->frozen && !lsm->flushing && !lsm->err;
	if (begin) {
		lsm->flushing = true;
		f->mt = lsm->frozen;
		f->committed = lsm->committed;
		f->start = lsm->frozen_start;
		f->age = lsm->next_age;
		lsm->next_age += 2;
	}
	pthread_mutex_unlock(&lsm->mem_lock);
	return begin;
}

static void flush_end(struct mls_lsm *lsm, struct flush *f, int err)
{
	if (!err)
		mls_memtable_clear(f->mt);	/* nobody sees it any more */
	pthread_mutex_lock(&lsm->mem_lock);
	if (!err) {
		lsm->spare = f->mt;
		(void)mls_lsm_freeze_if_due_locked(lsm);	/* all are told below */
	} else if (!f->t.committed) {
		/* Its versions are its own again: those that a commit spared meanwhile die now. */
		lsm->flushing = false;
		mls_memtable_commit(lsm->frozen, lsm->committed);
	}
	if (err && (f->t.committed || !mls_lsm_is_transient(err)))
		mls_lsm_poison_locked(lsm, err);
	lsm->nr_flush_attempts++;
	lsm->flush_err = err;
	pthread_cond_broadcast(&lsm->done);
	pthread_cond_broadcast(&lsm->work);
	pthread_mutex_unlock(&lsm->mem_lock);
}

int mls_lsm_flush(struct mls_lsm *lsm)
{
	struct flush f = { .nr_lbas = 0 };
	int err;

	if (!flush_begin(lsm, &f))
		return 0;
	err = write_tables(&f, lsm);
	flush_end(lsm, &f, err);
	return err;
}
