/* SPDX-License-Identifier: MPL-2.0 */
/*
 * segment_table_tx.c - the counts of records in SSTables, transaction by transaction.
 *
 * A transaction gathers, by life, the records that go to SSTables and those dropped from them. Its
 * group of edits names the sums, and with them all lives begun and ended that the journal doesn't
 * know of yet: it may move the WAL's start past their announcement, or turn a dead segment's run
 * into a chunk. From prepare to done no life ends; see segment_table.c.
 */
#include "5-disk/segment_table_internal.h"

#include <stdlib.h>

#include "5-disk/location.h"
#include "base/checked.h"
#include "base/err.h"
#include "base/log.h"
#include "format/mlsdisk_format.h"

struct run_delta {
	uint64_t loc;			/* any location of the life: names run and birth; 0: empty */
	uint64_t run;
	uint32_t added, dropped;
};

struct seg_tx {
	struct mls_segment_table *table;
	struct run_delta *deltas;	/* open hash by run and birth */
	size_t nr, cap;
	uint64_t ended_upto;		/* the group names table->ended and to_journal up to these */
	uint64_t journaled_upto;
	bool prepared;
};

void *mls_seg_tx_begin(void *arg)
{
	struct seg_tx *tx = calloc(1, sizeof *tx);

	if (!tx)
		return NULL;
	tx->table = arg;
	tx->cap = 256;
	tx->deltas = calloc(tx->cap, sizeof *tx->deltas);
	if (!tx->deltas) {
		free(tx);
		return NULL;
	}
	return tx;
}

static bool same_life(const struct run_delta *delta, uint64_t run, uint64_t loc)
{
	return delta->run == run && delta->loc >> MLS_LOC_HBA_BITS == loc >> MLS_LOC_HBA_BITS;
}

static struct run_delta *delta_probe(struct run_delta *deltas, size_t cap, uint64_t run, uint64_t loc)
{
	uint64_t hash = (run ^ (loc >> MLS_LOC_HBA_BITS) << 32) * UINT64_C(0x9e3779b97f4a7c15);
	size_t i = (size_t)(hash >> 32) & (cap - 1);

	while (deltas[i].loc && !same_life(&deltas[i], run, loc))
		i = (i + 1) & (cap - 1);
	return &deltas[i];
}

static int deltas_grow(struct seg_tx *tx)
{
	size_t cap = tx->cap * 2;
	struct run_delta *deltas = calloc(cap, sizeof *deltas);

	if (!deltas)
		return MLS_ENOMEM;
	for (size_t i = 0; i < tx->cap; i++)
		if (tx->deltas[i].loc)
			*delta_probe(deltas, cap, tx->deltas[i].run, tx->deltas[i].loc) = tx->deltas[i];
	free(tx->deltas);
	tx->deltas = deltas;
	tx->cap = cap;
	return 0;
}

static int delta_count(struct seg_tx *tx, uint64_t loc, bool added)
{
	struct run_delta *delta;
	uint64_t run;
	uint32_t slot;

	if (!mls_chunk_alloc_run_of(tx->table->alloc, mls_loc_hba(loc), &run, &slot))
		return MLS_EFORMAT;
	if (tx->nr * 2 >= tx->cap && deltas_grow(tx))
		return MLS_ENOMEM;
	delta = delta_probe(tx->deltas, tx->cap, run, loc);
	if (!delta->loc) {
		*delta = (struct run_delta){ .loc = loc, .run = run };
		tx->nr++;
	}
	*(added ? &delta->added : &delta->dropped) += 1;
	return 0;
}

int mls_seg_tx_added(void *ctx, uint64_t loc)
{
	return delta_count(ctx, loc, true);
}

int mls_seg_tx_dropped(void *ctx, uint64_t loc)
{
	return delta_count(ctx, loc, false);
}

/* New lives, ended lives, counts; called with the lock held. */
static int prepare_edits(struct seg_tx *tx, struct mls_edit_group *group)
{
	struct mls_segment_table *table = tx->table;
	int err = mls_seg_edit_next_birth(table, group);

	if (!err)
		err = mls_seg_edit_totals(table, group);
	if (!err)
		err = mls_seg_edit_keys(table, group, false);
	for (size_t i = 0; i < table->ended.nr && !err; i++)
		err = mls_seg_edit_life(group, MLS_SEG_EDIT_FREE, table->ended.at[i].run, table->ended.at[i].birth, 0, 0);
	for (size_t i = 0; i < table->to_journal.nr && !err; i++) {
		struct seg_life life = table->to_journal.at[i];
		struct seg_entry *entry = &table->entries[life.run];

		if (entry->state != MLS_SEG_FREE && entry->birth == life.birth)
			err = mls_seg_edit_life(group, MLS_SEG_EDIT_ADD, life.run, life.birth, entry->key->id, 0);
	}
	for (size_t i = 0; i < tx->cap && !err; i++) {
		struct run_delta *delta = &tx->deltas[i];
		int64_t change = (int64_t)delta->added - delta->dropped;
		struct seg_entry *entry;
		uint64_t run;

		if (!delta->loc || !(entry = mls_seg_entry_of_loc(table, delta->loc, &run)))
			continue;
		if (entry->live_mem < delta->added || (int64_t)entry->live_sst + change < 0)
			return mls_seg_contradict(table, run);
		if (change != 0)
			err = mls_seg_edit_life(group, MLS_SEG_EDIT_ADD, run, entry->birth, entry->key->id, change);
	}
	tx->ended_upto = lives_end(&table->ended);
	tx->journaled_upto = lives_end(&table->to_journal);
	return err;
}

int mls_seg_tx_prepare(void *ctx, struct mls_edit_group *group)
{
	struct seg_tx *tx = ctx;
	struct mls_segment_table *table = tx->table;
	int err = 0;

	if (table->before_commit && !table->loading)
		err = table->before_commit(table->before_commit_arg);
	if (err)
		return err;
	pthread_mutex_lock(&table->lock);
	table->nr_prepared++;
	tx->prepared = true;
	err = table->contradicted ? MLS_EFORMAT : prepare_edits(tx, group);
	pthread_mutex_unlock(&table->lock);
	return err;
}

static void tx_settle(struct seg_tx *tx)
{
	struct mls_segment_table *table = tx->table;

	for (size_t i = 0; i < tx->cap; i++) {
		struct run_delta *delta = &tx->deltas[i];
		struct seg_entry *entry;
		uint64_t run, hidden;

		if (!delta->loc || !(entry = mls_seg_entry_of_loc(table, delta->loc, &run)))
			continue;
		mls_seg_less_in_memory(table, run, delta->added);
		hidden = mls_min_u64(entry->hidden, delta->dropped);
		entry->hidden -= (uint32_t)hidden;
		table->hidden_blocks -= hidden;
		if (table->nr_prepared == 0)
			mls_seg_maybe_end(table, run);
		else if (entry->live_mem == 0 && entry->live_sst == 0)
			mls_seg_end_or_defer(table, run);
	}
}

void mls_seg_tx_done(void *ctx, bool committed)
{
	struct seg_tx *tx = ctx;
	struct mls_segment_table *table = tx->table;

	pthread_mutex_lock(&table->lock);
	if (tx->prepared)
		table->nr_prepared--;
	if (committed) {
		mls_lives_drop_until(&table->ended, tx->ended_upto);
		mls_lives_drop_until(&table->to_journal, tx->journaled_upto);
		tx_settle(tx);
	}
	if (table->nr_prepared == 0 && !table->loading)
		mls_seg_end_those_due(table);
	pthread_mutex_unlock(&table->lock);
	free(tx->deltas);
	free(tx);
}
