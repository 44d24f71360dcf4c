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
 * It is a hint: an error leaves tables untold, and their records may be told again.
 *
 * Under compact_lock: the tables read here aren't removed meanwhile, and `told` changes by nobody else.
 */
#include "4-lsm/lsm_internal.h"
#include "4-lsm/sst_block.h"
#include "base/checked.h"
#include "base/err.h"

/* The next older record of lba beneath table i, which is in level. */
static int find_beneath(const struct mls_table_set *set, unsigned i, uint64_t lba, struct mls_index_rec *rec,
			size_t *nr_missing)
{
	unsigned level = set->tables[i].meta.level;
	int err = 0;

	for (unsigned k = i + 1; !err && *nr_missing && level == 0 && k < set->first[1]; k++)
		if (set->tables[k].meta.info.min_lba <= lba && set->tables[k].meta.info.max_lba >= lba)
			err = mls_sst_get_range(set->tables[k].sst, lba, 1, rec, nr_missing);
	for (unsigned l = level + 1; !err && *nr_missing && l < MLS_NR_LEVELS; l++) {
		unsigned from, to;

		mls_table_set_overlap(set, l, lba, lba, &from, &to);
		if (from < to)
			err = mls_sst_get_range(set->tables[from].sst, lba, 1, rec, nr_missing);
	}
	return err;
}

static int tell_table(struct mls_lsm *lsm, const struct mls_table_set *set, unsigned i)
{
	struct mls_sst_iter *iter;
	struct mls_index_rec rec, older;
	int err = mls_sst_iter_new(&iter, set->tables[i].sst, 0, 0);

	if (err)
		return err;
	while (!__atomic_load_n(&lsm->stopping, __ATOMIC_RELAXED) && (err = mls_sst_iter_next(iter, &rec)) == 0) {
		size_t nr_missing = 1;

		mls_lookup_init(&older, 1);
		err = find_beneath(set, i, rec.lba, &older, &nr_missing);
		if (err)
			break;
		if (nr_missing == 0 && older.hba != MLS_HBA_NONE)
			lsm->listener.shadowed(lsm->listener.arg, older.hba);
	}
	mls_sst_iter_free(iter);
	if (err == MLS_ENOENT)
		set->tables[i].sst->told = true;
	return err == MLS_ENOENT ? 0 : err;
}

int mls_lsm_tell_locked(struct mls_lsm *lsm)
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
		if (!set->tables[i].sst->told && (set->tables[i].meta.level < deepest || deepest == 0))
			err = tell_table(lsm, set, i);
	mls_table_set_put(set);
	return err;
}

int mls_lsm_tell_shadowed(struct mls_lsm *lsm)
{
	int err;

	pthread_mutex_lock(&lsm->compact_lock);
	lsm->telling = true;
	err = mls_lsm_tell_locked(lsm);
	pthread_mutex_unlock(&lsm->compact_lock);
	return err;
}
