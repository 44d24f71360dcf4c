/* SPDX-License-Identifier: MPL-2.0 */
/*
 * lsm_shadow.c - why it exists: who cleans wants to know which records of SSTables are hidden by newer ones,
 * long before a compaction brings the two together.
 *
 * A table is *told* when for each of its records the next older one, in the tables beneath, was told to the
 * listener. So each hidden record is told once: by the table that hides it. What a compaction makes of told
 * tables is told already. As soon as somebody wants to know, tables are told at the latest when they are
 * compacted, so that none is dropped untold. After an open all tables are untold.
 *
 * It is a hint: an error leaves tables untold, and their records may be told again. But what is told is so: a record of
 * the same place isn't hidden by its like. (A sync in the middle of a flush says again what the flush's table
 * has; after a crash there are both.)
 *
 * Under tell_lock alone, so that the cleaner doesn't wait for a compaction. What it tells then it finds in
 * the tables as they were: those that are being compacted were told before. A newer table hides the newest
 * record beneath, which a compaction never drops. `told` becomes true under tell_lock, or before a table
 * is published. The switch alone needs both locks: no compaction under way then could drop untold tables.
 *
 * The tables beneath are walked side by side with the one to be told, in large reads.
 */
#include <stdlib.h>

#include "4-lsm/lsm_internal.h"
#include "4-lsm/sst_block.h"
#include "base/checked.h"
#include "base/err.h"

/* One table of level 0, or a level: tables [at, to) of the set, which are disjoint and ascend. */
struct layer {
	unsigned at, to;
	struct mls_sst_iter *iter;	/* of table at; NULL: not looked at yet */
	struct mls_index_rec rec;	/* given last by iter */
	bool has_rec;
};

struct beneath {
	const struct mls_table_set *set;
	struct layer *layers;		/* newest first */
	unsigned nr_layers;
};

static int beneath_init(struct beneath *b, const struct mls_table_set *set, unsigned i)
{
	unsigned level = set->tables[i].meta.level, nr = 0;

	*b = (struct beneath){ .set = set };
	b->layers = calloc((size_t)set->first[1] + MLS_NR_LEVELS, sizeof *b->layers);
	if (!b->layers)
		return MLS_ENOMEM;
	for (unsigned k = i + 1; level == 0 && k < set->first[1]; k++)
		b->layers[nr++] = (struct layer){ .at = k, .to = k + 1 };
	for (unsigned l = level + 1; l < MLS_NR_LEVELS; l++)
		b->layers[nr++] = (struct layer){ .at = set->first[l], .to = set->first[l + 1] };
	b->nr_layers = nr;
	return 0;
}

static void layer_next_table(struct layer *layer)
{
	mls_sst_iter_free(layer->iter);
	layer->iter = NULL;
	layer->has_rec = false;
	layer->at++;
}

static void beneath_release(struct beneath *b)
{
	for (unsigned i = 0; i < b->nr_layers; i++)
		layer_next_table(&b->layers[i]);
	free(b->layers);
}

/* Is lba in the layer? Asked in ascending order. */
static int layer_find(struct layer *layer, const struct mls_table_set *set, uint64_t lba, bool *found)
{
	int err = 0;

	while (!err && layer->at < layer->to && !(layer->has_rec && layer->rec.lba >= lba)) {
		const struct mls_table *table = &set->tables[layer->at];

		if (table->meta.info.max_lba < lba) {
			layer_next_table(layer);
			continue;
		}
		if (table->meta.info.min_lba > lba)
			break;
		if (layer->iter)
			mls_sst_iter_skip(layer->iter, lba);
		else
			err = mls_sst_iter_new(&layer->iter, table->sst, lba, 0);
		if (!err)
			err = mls_sst_iter_next(layer->iter, &layer->rec);
		layer->has_rec = !err;
	}
	*found = !err && layer->has_rec && layer->rec.lba == lba;
	return err;
}

static int tell_record(struct mls_lsm *lsm, struct beneath *b, const struct mls_index_rec *rec)
{
	bool found = false;
	int err = 0;

	for (unsigned i = 0; !err && !found && i < b->nr_layers; i++) {
		struct layer *layer = &b->layers[i];

		err = layer_find(layer, b->set, rec->lba, &found);
		if (found && layer->rec.hba != MLS_HBA_NONE && layer->rec.hba != rec->hba)
			lsm->listener.shadowed(lsm->listener.arg, layer->rec.hba);
	}
	return err;
}

static int tell_table(struct mls_lsm *lsm, const struct mls_table_set *set, unsigned i)
{
	struct beneath b;
	struct mls_sst_iter *iter = NULL;
	struct mls_index_rec rec;
	int err = beneath_init(&b, set, i);

	if (err)
		return err;
	err = mls_sst_iter_new(&iter, set->tables[i].sst, 0, 0);
	while (!err && !atomic_load_explicit(&lsm->tell_no_more, memory_order_relaxed) &&
	       !__atomic_load_n(&lsm->stopping, __ATOMIC_RELAXED)) {
		err = mls_sst_iter_next(iter, &rec);
		if (err == MLS_ENOENT) {
			__atomic_store_n(&set->tables[i].sst->told, true, __ATOMIC_RELAXED);
			err = 0;
			break;
		}
		if (!err)
			err = tell_record(lsm, &b, &rec);
	}
	mls_sst_iter_free(iter);
	beneath_release(&b);
	return err;
}

static int tell_locked(struct mls_lsm *lsm)
{
	struct mls_table_set *set;
	unsigned deepest = MLS_NR_LEVELS - 1;
	int err = 0;

	if (!lsm->telling || !lsm->listener.shadowed)
		return 0;
	pthread_mutex_lock(&lsm->mem_lock);
	set = mls_table_set_get(lsm->tables);
	pthread_mutex_unlock(&lsm->mem_lock);
	while (deepest > 0 && mls_table_set_level_nr(set, deepest) == 0)
		deepest--;
	/* Disjoint and with nothing beneath: the deepest level hides nothing. */
	for (unsigned i = 0; !err && i < set->nr; i++)
		if (!__atomic_load_n(&set->tables[i].sst->told, __ATOMIC_RELAXED) &&
		    (set->tables[i].meta.level < deepest || deepest == 0))
			err = tell_table(lsm, set, i);
	mls_table_set_put(set);
	return err;
}

int mls_lsm_tell(struct mls_lsm *lsm)
{
	int err;

	pthread_mutex_lock(&lsm->tell_lock);
	err = tell_locked(lsm);
	pthread_mutex_unlock(&lsm->tell_lock);
	return err;
}

void mls_lsm_tell_no_more(struct mls_lsm *lsm)
{
	atomic_store(&lsm->tell_no_more, true);
}

int mls_lsm_tell_shadowed(struct mls_lsm *lsm)
{
	bool telling;

	pthread_mutex_lock(&lsm->tell_lock);
	telling = lsm->telling;
	pthread_mutex_unlock(&lsm->tell_lock);
	if (!telling) {
		pthread_mutex_lock(&lsm->compact_lock);
		pthread_mutex_lock(&lsm->tell_lock);
		lsm->telling = true;
		pthread_mutex_unlock(&lsm->tell_lock);
		pthread_mutex_unlock(&lsm->compact_lock);
	}
	return mls_lsm_tell(lsm);
}
