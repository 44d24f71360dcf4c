/* SPDX-License-Identifier: MPL-2.0 */
/* lsm_look.c - why it exists: numbers for stat, and all that is in the index for fsck, dump, tests. */
#include <string.h>

#include "4-lsm/lsm_internal.h"

void mls_lsm_stat(struct mls_lsm *lsm, struct mls_lsm_stat *stat)
{
	struct mls_block_cache_stat cache;

	_Static_assert(MLS_NR_LEVELS == sizeof stat->level_tables / sizeof stat->level_tables[0], "levels");
	memset(stat, 0, sizeof *stat);
	mls_block_cache_stat(lsm->cache, &cache);
	stat->cache_hits = cache.hits;
	stat->cache_misses = cache.misses;
	pthread_mutex_lock(&lsm->mem_lock);
	stat->memtable_records = mls_memtable_nr_versions(lsm->active);
	stat->frozen_records = lsm->frozen ? mls_memtable_nr_versions(lsm->frozen) : 0;
	stat->nr_tables = lsm->tables->nr;
	stat->nr_table_records = mls_table_set_nr_records(lsm->tables);
	stat->flushes = lsm->nr_flushes;
	stat->compactions = lsm->nr_compactions;
	stat->committed_epoch = lsm->committed;
	stat->wal_blocks_used = mls_lsm_wal_used_locked(lsm);
	for (unsigned l = 0; l < MLS_NR_LEVELS; l++) {
		stat->level_tables[l] = mls_table_set_level_nr(lsm->tables, l);
		stat->level_records[l] = lsm->tables->level_records[l];
	}
	pthread_mutex_unlock(&lsm->mem_lock);
}

typedef int scan_fn(void *arg, const struct mls_lsm_scanned *scanned);

static int scan_table(const struct mls_table *table, scan_fn *fn, void *arg)
{
	struct mls_lsm_scanned s = {
		.level = table->meta.level,
		.log_id = table->meta.info.log_id,
		.epoch = table->meta.epoch,
	};
	struct mls_sst_iter *iter;
	int err = mls_sst_iter_new(&iter, table->sst, 0, 0), stop = 0;

	if (err)
		return err;
	while (!err && !stop) {
		err = mls_sst_iter_next(iter, &s.rec);
		if (!err)
			stop = fn(arg, &s);
	}
	mls_sst_iter_free(iter);
	return err == MLS_ENOENT || !err ? stop : err;
}

static int scan_memtable(struct mls_memtable *mt, scan_fn *fn, void *arg)
{
	uint32_t nr = mls_memtable_sort(mt);
	int stop = 0;

	for (uint32_t i = 0; !stop && i < nr; i++) {
		const struct mls_mem_version *v = mls_memtable_sorted(mt, i);

		for (; !stop && v; v = mls_memtable_older(mt, v)) {
			struct mls_lsm_scanned s = { .rec = v->rec, .level = -1, .epoch = v->epoch };

			stop = fn(arg, &s);
		}
	}
	return stop;
}

int mls_lsm_scan(struct mls_lsm *lsm, scan_fn *fn, void *arg)
{
	struct mls_table_set *set;
	int err = 0;

	pthread_mutex_lock(&lsm->mem_lock);
	/* The frozen one's order belongs to its flush. */
	while (lsm->frozen && lsm->flushing && !lsm->err)
		pthread_cond_wait(&lsm->done, &lsm->mem_lock);
	set = mls_table_set_get(lsm->tables);
	err = scan_memtable(lsm->active, fn, arg);
	if (!err && lsm->frozen)
		err = scan_memtable(lsm->frozen, fn, arg);
	pthread_mutex_unlock(&lsm->mem_lock);
	for (unsigned i = 0; !err && i < set->nr; i++)
		err = scan_table(&set->tables[i], fn, arg);
	mls_table_set_put(set);
	return err;
}

int mls_lsm_tables(struct mls_lsm *lsm, int (*fn)(void *arg, const struct mls_lsm_table *table), void *arg)
{
	struct mls_table_set *set;
	int stop = 0;

	pthread_mutex_lock(&lsm->mem_lock);
	set = mls_table_set_get(lsm->tables);
	pthread_mutex_unlock(&lsm->mem_lock);
	for (unsigned i = 0; !stop && i < set->nr; i++) {
		const struct mls_table_meta *meta = &set->tables[i].meta;
		struct mls_lsm_table table = {
			.log_id = meta->info.log_id,
			.nr_records = meta->info.nr_records,
			.min_lba = meta->info.min_lba,
			.max_lba = meta->info.max_lba,
			.age = meta->age,
			.epoch = meta->epoch,
			.level = meta->level,
		};

		stop = fn(arg, &table);
	}
	mls_table_set_put(set);
	return stop;
}
