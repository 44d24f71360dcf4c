/* SPDX-License-Identifier: MPL-2.0 */
/*
 * table_tx.c - why it exists: flush and compaction change the tables in the same four steps, and the
 * order of the steps is what makes it safe.
 *
 *   build (logs in a tx, edits, the listener's counts) --commit--> durable --open--> --publish--> seen
 *     any error: abort, nothing happened                  an error here: poisoned; readers keep the
 *                                                         old tables, whose logs they hold open
 */
#include <stdlib.h>
#include <string.h>

#include "4-lsm/lsm_internal.h"
#include "4-lsm/sst_block.h"
#include "base/err.h"

int mls_table_tx_begin(struct mls_table_tx *t, struct mls_lsm *lsm)
{
	int err;

	memset(t, 0, sizeof *t);
	t->lsm = lsm;
	t->ctx = lsm->listener.tx_begin(lsm->listener.arg);
	if (!t->ctx)
		return MLS_ENOMEM;
	err = mls_tx_begin(lsm->store, &t->tx);
	if (err)
		lsm->listener.tx_done(t->ctx, false);
	return err;
}

static void release(struct mls_table_tx *t)
{
	for (unsigned i = 0; i < t->nr_add; i++)
		mls_sst_put(t->add[i].sst);
	free(t->add);
	free(t->remove);
}

void mls_table_tx_abort(struct mls_table_tx *t)
{
	mls_sst_builder_free(t->builder);
	mls_tx_abort(t->tx);
	t->lsm->listener.tx_done(t->ctx, false);
	release(t);
}

/* ---- Building ---- */

/* Else lookups fill it better than this would. */
static bool index_fits_cache(struct mls_lsm *lsm)
{
	bool fits;

	pthread_mutex_lock(&lsm->mem_lock);
	fits = mls_lsm_fits_cache(lsm, lsm->tables);
	pthread_mutex_unlock(&lsm->mem_lock);
	return fits;
}

int mls_table_tx_add(struct mls_table_tx *t, uint8_t level, const struct mls_index_rec *rec)
{
	if (!t->builder) {
		int err = mls_sst_builder_new(&t->builder, t->tx, level);

		if (err)
			return err;
		if (index_fits_cache(t->lsm))
			mls_sst_builder_set_cache(t->builder, t->lsm->cache);
	}
	return mls_sst_builder_add(t->builder, rec);
}

static int add_room(struct mls_table_tx *t)
{
	unsigned cap = t->cap_add * 2 + 4;
	struct mls_table *add;

	if (t->nr_add < t->cap_add)
		return 0;
	add = realloc(t->add, cap * sizeof *add);
	if (!add)
		return MLS_ENOMEM;
	t->add = add;
	t->cap_add = cap;
	return 0;
}

int mls_table_tx_end_table(struct mls_table_tx *t, uint8_t level, uint64_t age, uint64_t epoch)
{
	struct mls_table *table;
	struct mls_table_add_disk edit;
	int err;

	if (!t->builder)
		return 0;
	err = add_room(t);
	if (err)
		return err;
	table = &t->add[t->nr_add];
	*table = (struct mls_table){ .meta = { .level = level, .age = age, .epoch = epoch } };
	err = mls_sst_builder_finish(t->builder, &table->meta.info);
	if (err)
		return err;
	mls_sst_builder_free(t->builder);
	t->builder = NULL;
	t->nr_add++;
	mls_table_add_encode(&edit, &table->meta);
	return mls_tx_edit(t->tx, MLS_OWNER_LSM, &edit, sizeof edit);
}

static int remove_room(struct mls_table_tx *t)
{
	unsigned cap = t->cap_remove * 2 + 16;
	uint64_t *remove;

	if (t->nr_remove < t->cap_remove)
		return 0;
	remove = realloc(t->remove, cap * sizeof *remove);
	if (!remove)
		return MLS_ENOMEM;
	t->remove = remove;
	t->cap_remove = cap;
	return 0;
}

int mls_table_tx_remove(struct mls_table_tx *t, const struct mls_table *table)
{
	uint64_t log_id = table->meta.info.log_id;
	uint8_t edit[MLS_TABLE_REMOVE_BYTES];
	int err = remove_room(t);

	if (err)
		return err;
	mls_table_remove_encode(edit, log_id);
	err = mls_tx_log_delete(t->tx, log_id);
	if (!err)
		err = mls_tx_edit(t->tx, MLS_OWNER_LSM, edit, sizeof edit);
	if (!err)
		t->remove[t->nr_remove++] = log_id;
	return err;
}

int mls_table_tx_dropped(struct mls_table_tx *t, const struct mls_index_rec *rec)
{
	t->nr_dropped++;
	if (rec->hba == MLS_HBA_NONE)
		return 0;
	return t->lsm->listener.tx_dropped(t->ctx, rec->hba);
}

/* ---- Commit ---- */

static int open_added(struct mls_table_tx *t)
{
	int err = 0;

	for (unsigned i = 0; !err && i < t->nr_add; i++)
		err = mls_sst_open(&t->add[i].sst, t->lsm->store, t->lsm->cache, &t->add[i].meta.info);
	for (unsigned i = 0; !err && i < t->nr_add; i++)
		__atomic_store_n(&t->add[i].sst->told, t->told, __ATOMIC_RELAXED);
	return err;
}

/* The removed tables' blocks leave the cache with their last reader. */
static void bury_removed(const struct mls_table_tx *t, struct mls_table_set *old)
{
	for (unsigned i = 0; i < t->nr_remove; i++)
		for (unsigned k = 0; k < old->nr; k++)
			if (old->tables[k].meta.info.log_id == t->remove[i])
				mls_sst_set_dead(old->tables[k].sst);
}

static int publish(struct mls_table_tx *t, void (*published)(struct mls_lsm *lsm, void *arg), void *arg)
{
	struct mls_lsm *lsm = t->lsm;
	struct mls_table_set *set, *old;
	int err = open_added(t);

	if (err)
		return err;
	pthread_mutex_lock(&lsm->mem_lock);
	old = lsm->tables;
	err = mls_table_set_new(&set, old, t->remove, t->nr_remove, t->add, t->nr_add);
	if (!err) {
		lsm->tables = set;
		lsm->nr_dropped += t->nr_dropped;
		published(lsm, arg);
	}
	pthread_mutex_unlock(&lsm->mem_lock);
	if (err)
		return err;
	bury_removed(t, old);
	mls_table_set_put(old);
	return 0;
}

int mls_table_tx_commit(struct mls_table_tx *t, void (*published)(struct mls_lsm *lsm, void *arg), void *arg)
{
	struct mls_lsm *lsm = t->lsm;
	int err;

	MLS_INVARIANT(!t->builder);
	err = mls_lsm_state_reserve(&lsm->state, t->nr_add);
	if (err) {
		mls_table_tx_abort(t);
		return err;
	}
	err = lsm->listener.tx_prepare(t->ctx, mls_tx_group(t->tx));
	if (err) {
		mls_table_tx_abort(t);
	} else {
		err = mls_tx_commit(t->tx);
		t->committed = !err;
		if (!err)
			err = publish(t, published, arg);
		lsm->listener.tx_done(t->ctx, t->committed);
		release(t);
	}
	mls_lsm_state_unreserve(&lsm->state, t->nr_add);
	return err;
}
