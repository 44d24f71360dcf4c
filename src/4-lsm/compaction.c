/* SPDX-License-Identifier: MPL-2.0 */
/*
 * compaction.c - why it exists: keep lookups cheap, and find out which records are dead.
 *
 * What is picked, in this order:
 *   level 0, committed     MLS_LSM_L0_COMPACT tables or more: all of them, and what they overlap in
 *                          level 1 -> level 1; short of free runs, fewer
 *   level n > 0 too large  one table, round robin, and what it overlaps in level n + 1 -> level n + 1
 *   level 0, uncommitted   more than MLS_LSM_L0_UNCOMMITTED of an epoch -> one table of the same epoch
 *
 * Why an uncommitted table never goes down: recovery must be able to drop it and find beneath what
 * was there before. Among tables of one epoch that isn't an issue: all of them are dropped, or none.
 *
 * Tables beside the overlap that are less than half full join in: else syncs of a few blocks here and there
 * would each leave a small table in level 1 for ever, which takes a whole run.
 *
 * A tombstone is kept as long as a deeper level has a table that it may have to hide something in.
 *
 * Flushes go on meanwhile: they only add tables to level 0, newer than any that is picked.
 *
 * Invariant: in level 0, epochs don't descend with age; so the uncommitted tables are the newest.
 */
#include <stdlib.h>

#include "4-lsm/lsm_internal.h"
#include "4-lsm/merge.h"
#include "4-lsm/sst_block.h"
#include "base/checked.h"
#include "base/err.h"
#include "base/log.h"

#define AHEAD_BLOCKS 128u	/* a read waits behind megabytes of segments: better few of them */
#define LEVEL_FACTOR 10u
#define LEVEL_1_MEMTABLES 4u
#define SMALL_TABLES_PART 8u	/* of the free runs: tables that don't fill theirs may take as many */
#define JOIN_MAX 8u		/* small neighbours on each side */

/* ---- Policy ---- */

/* The first, so the newest, table of level 0 that is committed. */
static unsigned first_committed(const struct mls_lsm *lsm, const struct mls_table_set *set)
{
	unsigned i = 0;

	while (i < set->first[1] && set->tables[i].meta.epoch > lsm->committed)
		i++;
	return i;
}

unsigned mls_lsm_committed_l0_locked(const struct mls_lsm *lsm)
{
	return lsm->tables->first[1] - first_committed(lsm, lsm->tables);
}

static void widen(const struct mls_table_set *set, unsigned from, unsigned to, uint64_t *min_lba,
		  uint64_t *max_lba)
{
	for (unsigned i = from; i < to; i++) {
		*min_lba = mls_min_u64(*min_lba, set->tables[i].meta.info.min_lba);
		*max_lba = mls_max_u64(*max_lba, set->tables[i].meta.info.max_lba);
	}
}

static bool hides_deeper(const struct mls_table_set *set, unsigned level, uint64_t min_lba, uint64_t max_lba)
{
	for (unsigned l = level + 1; l < MLS_NR_LEVELS; l++) {
		unsigned from, to;

		mls_table_set_overlap(set, l, min_lba, max_lba, &from, &to);
		if (from < to)
			return true;
	}
	return false;
}

static bool is_small(const struct mls_lsm *lsm, const struct mls_table *table)
{
	return table->meta.info.nr_records <= lsm->opts.table_records / 2;
}

/* Small tables just before and behind [*from, *to) of a level, too. */
static void join_small(const struct mls_lsm *lsm, unsigned level, unsigned *from, unsigned *to)
{
	const struct mls_table_set *set = lsm->tables;

	for (unsigned i = 0; i < JOIN_MAX && *from > set->first[level]; i++, --*from)
		if (!is_small(lsm, &set->tables[*from - 1]))
			break;
	for (unsigned i = 0; i < JOIN_MAX && *to < set->first[level + 1]; i++, ++*to)
		if (!is_small(lsm, &set->tables[*to]))
			break;
}

/* Runs that it takes before it gives any back. */
static uint64_t runs_needed(const struct mls_compaction *c)
{
	uint64_t nr_records = 0;

	for (unsigned i = c->newer_from; i < c->newer_to; i++)
		nr_records += c->set->tables[i].meta.info.nr_records;
	for (unsigned i = c->older_from; i < c->older_to; i++)
		nr_records += c->set->tables[i].meta.info.nr_records;
	return mls_div_round_up(nr_records, c->max_records);
}

static bool fits(const struct mls_lsm *lsm, const struct mls_compaction *c)
{
	return runs_needed(c) <= mls_tx_store_nr_free(lsm->store);
}

/* [from, to) of the level above, and what it overlaps in out_level, become tables of out_level. */
static void plan_down(struct mls_lsm *lsm, struct mls_compaction *c, unsigned from, unsigned to, uint8_t out_level)
{
	struct mls_table_set *set = lsm->tables;
	uint64_t min_lba = UINT64_MAX, max_lba = 0;

	c->set = mls_table_set_get(set);
	c->newer_from = from;
	c->newer_to = to;
	widen(set, from, to, &min_lba, &max_lba);
	mls_table_set_overlap(set, out_level, min_lba, max_lba, &c->older_from, &c->older_to);
	join_small(lsm, out_level, &c->older_from, &c->older_to);
	widen(set, c->older_from, c->older_to, &min_lba, &max_lba);
	c->out_level = out_level;
	c->out_age = 0;
	c->out_epoch = 0;
	for (unsigned i = from; i < to; i++)
		c->out_epoch = mls_max_u64(c->out_epoch, set->tables[i].meta.epoch);
	for (unsigned i = c->older_from; i < c->older_to; i++)
		c->out_epoch = mls_max_u64(c->out_epoch, set->tables[i].meta.epoch);
	MLS_INVARIANT(c->out_epoch <= lsm->committed);
	c->max_records = lsm->opts.table_records;
	if (runs_needed(c) > mls_tx_store_nr_free(lsm->store) / SMALL_TABLES_PART)
		c->max_records = lsm->opts.run_records;
	c->keep_tombstones = hides_deeper(set, out_level, min_lba, max_lba);
}

static void plan_one_table(struct mls_lsm *lsm, struct mls_compaction *c, unsigned level)
{
	const struct mls_table_set *set = lsm->tables;
	unsigned from = set->first[level], to = set->first[level + 1], i = from;

	while (i < to && set->tables[i].meta.info.min_lba < lsm->cursors[level])
		i++;
	if (i == to)
		i = from;
	lsm->cursors[level] = set->tables[i].meta.info.max_lba + 1;
	plan_down(lsm, c, i, i + 1, (uint8_t)(level + 1));
}

/* One table of a deeper level, if that fits. */
static bool plan_deeper_that_fits(struct mls_lsm *lsm, struct mls_compaction *c)
{
	for (unsigned level = MLS_NR_LEVELS - 2; level > 0; level--) {
		if (mls_table_set_level_nr(lsm->tables, level) == 0)
			continue;
		plan_one_table(lsm, c, level);
		if (fits(lsm, c))
			return true;
		mls_table_set_put(c->set);
	}
	return false;
}

/* All committed tables of level 0; where that takes more runs than are free, the oldest of them, or what makes level 1
 * smaller. */
static void plan_level_0(struct mls_lsm *lsm, struct mls_compaction *c)
{
	unsigned from = first_committed(lsm, lsm->tables), to = lsm->tables->first[1];

	plan_down(lsm, c, from, to, 1);
	while (!fits(lsm, c) && from + 1 < to) {
		mls_table_set_put(c->set);
		plan_down(lsm, c, ++from, to, 1);
	}
	if (!fits(lsm, c)) {
		mls_table_set_put(c->set);
		if (!plan_deeper_that_fits(lsm, c))
			plan_down(lsm, c, from, to, 1);
	}
}

/* Uncommitted tables of the newest epoch. */
static unsigned nr_uncommitted(const struct mls_lsm *lsm, const struct mls_table_set *set)
{
	unsigned end = first_committed(lsm, set), nr = 0;

	while (nr < end && set->tables[nr].meta.epoch == set->tables[0].meta.epoch)
		nr++;
	return nr;
}

static void plan_uncommitted(struct mls_lsm *lsm, struct mls_compaction *c)
{
	struct mls_table_set *set = lsm->tables;

	*c = (struct mls_compaction){
		.set = mls_table_set_get(set),
		.newer_to = nr_uncommitted(lsm, set),
		.out_level = 0,
		.out_age = set->tables[0].meta.age,
		.out_epoch = set->tables[0].meta.epoch,
		.max_records = UINT64_MAX,
		.keep_tombstones = true,
	};
}

static uint64_t level_target(const struct mls_lsm *lsm, unsigned level)
{
	uint64_t target = (uint64_t)lsm->opts.memtable_records * LEVEL_1_MEMTABLES;

	while (level-- > 1)
		target *= LEVEL_FACTOR;
	return target;
}

enum due { DUE_NOTHING, DUE_LEVEL_0, DUE_DEEPER, DUE_UNCOMMITTED };

static enum due what_is_due(const struct mls_lsm *lsm, unsigned *level)
{
	const struct mls_table_set *set = lsm->tables;

	if (!lsm->opened || lsm->err || lsm->compact_blocked)
		return DUE_NOTHING;
	if (mls_lsm_committed_l0_locked(lsm) >= MLS_LSM_L0_COMPACT)
		return DUE_LEVEL_0;
	for (*level = 1; *level + 1 < MLS_NR_LEVELS; (*level)++)
		if (set->level_records[*level] > level_target(lsm, *level))
			return DUE_DEEPER;
	return nr_uncommitted(lsm, set) > MLS_LSM_L0_UNCOMMITTED ? DUE_UNCOMMITTED : DUE_NOTHING;
}

bool mls_compaction_due_locked(const struct mls_lsm *lsm)
{
	unsigned level;

	return what_is_due(lsm, &level) != DUE_NOTHING;
}

bool mls_compaction_pick_locked(struct mls_lsm *lsm, struct mls_compaction *c)
{
	unsigned level;

	switch (what_is_due(lsm, &level)) {
	case DUE_LEVEL_0:
		plan_level_0(lsm, c);
		return true;
	case DUE_DEEPER:
		plan_one_table(lsm, c, level);
		return true;
	case DUE_UNCOMMITTED:
		plan_uncommitted(lsm, c);
		return true;
	case DUE_NOTHING:
		break;
	}
	return false;
}

bool mls_compaction_pick_any_locked(struct mls_lsm *lsm, struct mls_compaction *c)
{
	const struct mls_table_set *set = lsm->tables;
	unsigned deepest = MLS_NR_LEVELS - 1;

	if (!lsm->opened || lsm->err)
		return false;
	if (mls_lsm_committed_l0_locked(lsm) > 0) {
		plan_level_0(lsm, c);
		return true;
	}
	while (deepest > 1 && mls_table_set_level_nr(set, deepest) == 0)
		deepest--;
	for (unsigned level = 1; level < deepest; level++)
		if (mls_table_set_level_nr(set, level)) {
			plan_one_table(lsm, c, level);
			return true;
		}
	return false;
}

bool mls_compaction_pick_unsynced_locked(struct mls_lsm *lsm, struct mls_compaction *c)
{
	if (!lsm->opened || lsm->err || nr_uncommitted(lsm, lsm->tables) < 2)
		return false;
	plan_uncommitted(lsm, c);
	return true;
}

/* ---- Doing it ---- */

struct job {
	struct mls_table_tx t;
	struct mls_compaction *c;
	struct mls_sst_iter **iters;
	unsigned nr_iters, max_iters;
	struct mls_merge *merge;
};

static int on_dropped(void *arg, const struct mls_index_rec *rec)
{
	struct job *job = arg;

	return mls_table_tx_dropped(&job->t, rec);
}

static int add_inputs(struct job *job, unsigned from, unsigned to)
{
	int err = 0;

	for (unsigned i = from; !err && i < to; i++) {
		struct mls_sst_iter **iter = &job->iters[job->nr_iters];

		err = mls_sst_iter_new(iter, job->c->set->tables[i].sst, 0, AHEAD_BLOCKS);
		if (!err) {
			mls_merge_add_iter(job->merge, *iter);
			job->nr_iters++;
		}
	}
	return err;
}

static int open_inputs(struct job *job)
{
	const struct mls_compaction *c = job->c;
	int err;

	job->max_iters = c->newer_to - c->newer_from + c->older_to - c->older_from;
	job->iters = calloc(job->max_iters, sizeof(struct mls_sst_iter *));
	if (!job->iters)
		return MLS_ENOMEM;
	err = mls_merge_new(&job->merge, job->max_iters, on_dropped, job);
	if (!err)
		err = add_inputs(job, c->newer_from, c->newer_to);
	if (!err)
		err = add_inputs(job, c->older_from, c->older_to);
	return err;
}

static void close_inputs(struct job *job)
{
	mls_merge_free(job->merge);
	for (unsigned i = 0; i < job->nr_iters; i++)
		mls_sst_iter_free(job->iters[i]);
	free(job->iters);
}

static int write_outputs(struct job *job)
{
	const struct mls_compaction *c = job->c;
	struct mls_table_tx *t = &job->t;
	struct mls_index_rec rec;
	int err;

	while ((err = mls_merge_next(job->merge, &rec)) == 0) {
		if (rec.hba == MLS_HBA_NONE && !c->keep_tombstones)
			continue;
		if (__atomic_load_n(&t->lsm->stopping, __ATOMIC_RELAXED))
			return MLS_EABORTED;
		err = mls_table_tx_add(t, c->out_level, &rec);
		if (!err && mls_sst_builder_nr_records(t->builder) >= c->max_records)
			err = mls_table_tx_end_table(t, c->out_level, c->out_age, c->out_epoch);
		if (err)
			return err;
	}
	if (err != MLS_ENOENT)
		return err;
	return mls_table_tx_end_table(t, c->out_level, c->out_age, c->out_epoch);
}

static int remove_inputs(struct job *job, unsigned from, unsigned to)
{
	int err = 0;

	for (unsigned i = from; !err && i < to; i++)
		err = mls_table_tx_remove(&job->t, &job->c->set->tables[i]);
	return err;
}

static bool all_told(const struct mls_table_set *set, unsigned from, unsigned to)
{
	while (from < to && __atomic_load_n(&set->tables[from].sst->told, __ATOMIC_RELAXED))
		from++;
	return from == to;
}

static void published(struct mls_lsm *lsm, void *arg)
{
	(void)arg;
	lsm->nr_compactions++;
	pthread_cond_broadcast(&lsm->done);
}

static int run_tx(struct job *job, struct mls_lsm *lsm)
{
	const struct mls_compaction *c = job->c;
	int err = mls_table_tx_begin(&job->t, lsm);

	if (err)
		return err;
	job->t.told = !c->keep_tombstones ||	/* nothing beneath */
		      (all_told(c->set, c->newer_from, c->newer_to) &&
		       all_told(c->set, c->older_from, c->older_to));
	err = open_inputs(job);
	if (!err)
		err = write_outputs(job);
	close_inputs(job);
	if (!err)
		err = remove_inputs(job, c->newer_from, c->newer_to);
	if (!err)
		err = remove_inputs(job, c->older_from, c->older_to);
	if (err) {
		mls_table_tx_abort(&job->t);
		return err;
	}
	return mls_table_tx_commit(&job->t, published, NULL);
}

int mls_compaction_run(struct mls_lsm *lsm, struct mls_compaction *c)
{
	struct job job = { .c = c };
	int err;

	if (mls_lsm_tell(lsm))
		mls_debug("index: couldn't tell what is hidden now");
	err = run_tx(&job, lsm);
	mls_table_set_put(c->set);
	if (!err)
		return 0;
	pthread_mutex_lock(&lsm->mem_lock);
	if (!job.t.committed && mls_lsm_is_transient(err))
		lsm->compact_blocked = true;
	else if (job.t.committed || err != MLS_EABORTED || !lsm->stopping)
		mls_lsm_poison_locked(lsm, err);
	pthread_cond_broadcast(&lsm->done);
	pthread_mutex_unlock(&lsm->mem_lock);
	return err;
}
