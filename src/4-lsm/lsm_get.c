/* SPDX-License-Identifier: MPL-2.0 */
/*
 * lsm_get.c - looking up: memtable, frozen memtable, then the tables, newest first.
 *
 * The memtables and a reference to the table set are taken under one hold of mem_lock, so a record that a flush moves
 * from one to the other is seen in at least one of them. Tables are read without a lock.
 */
#include "4-lsm/lsm_internal.h"
#include "4-lsm/sst_block.h"
#include "base/checked.h"
#include "base/err.h"

#define NEXT_WINDOW 256u	/* LBAs that next looks up at once */
#define LOOK_AHEAD 16u		/* LBAs */
#define FETCH_CACHE_MIN (UINT64_C(4) << 20)	/* in a smaller one blocks that are read together would push each other out */

const struct mls_index_rec *mls_lsm_in_memory_locked(const struct mls_lsm *lsm, uint64_t lba)
{
	const struct mls_index_rec *rec = mls_memtable_get(lsm->active, lba);

	return rec || !lsm->frozen ? rec : mls_memtable_get(lsm->frozen, lba);
}

void mls_lsm_look_ahead_locked(const struct mls_lsm *lsm, const struct mls_index_rec *recs, size_t i, size_t nr)
{
	if (i % LOOK_AHEAD)
		return;
	nr = mls_min_u64(nr - i, LOOK_AHEAD);
	mls_memtable_prefetch(lsm->active, recs + i, nr);
	if (lsm->frozen)
		mls_memtable_prefetch(lsm->frozen, recs + i, nr);
}

bool mls_lsm_fits_cache(const struct mls_lsm *lsm, const struct mls_table_set *set)
{
	return mls_sst_nr_record_blocks(mls_table_set_nr_records(set)) <= lsm->opts.cache_bytes / MLS_BLOCK_BYTES / 2;
}

/* What isn't in memory stays as it is; the set is for the rest. */
static struct mls_table_set *get_range_locked(struct mls_lsm *lsm, uint64_t lba, size_t nr,
					      struct mls_index_rec *recs, size_t *nr_missing)
{
	mls_lookup_init(recs, nr);
	*nr_missing = nr;
	for (size_t i = 0; i < nr; i++) {
		const struct mls_index_rec *rec = mls_lsm_in_memory_locked(lsm, lba + i);

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
	bool fetch;
	int err;

	for (size_t i = 1; i < nr; i++)
		MLS_INVARIANT(recs[i].lba >= recs[i - 1].lba);
	pthread_mutex_lock(&lsm->mem_lock);
	MLS_INVARIANT(lsm->phase != MLS_LSM_NEW);
	for (size_t i = 0; i < nr; i++) {
		const struct mls_index_rec *rec;

		mls_lsm_look_ahead_locked(lsm, recs, i, nr);
		rec = mls_lsm_in_memory_locked(lsm, recs[i].lba);
		if (rec) {
			recs[i] = *rec;
			nr_missing--;
		} else {
			recs[i].hba = MLS_HBA_MISSING;
		}
	}
	set = mls_table_set_get(lsm->tables);
	pthread_mutex_unlock(&lsm->mem_lock);
	fetch = lsm->opts.cache_bytes >= FETCH_CACHE_MIN && !mls_lsm_fits_cache(lsm, set);
	err = mls_table_set_get_each(set, recs, nr, fetch, &nr_missing);
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
