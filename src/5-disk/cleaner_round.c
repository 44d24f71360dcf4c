/* SPDX-License-Identifier: MPL-2.0 */
/*
 * cleaner_round.c - one round: take the segments with the fewest live blocks and have them emptied (mover.h).
 *
 * Where they seem to give nothing, their counts may be too high, and the index is asked to find out what is dead. Each
 * step is taken only if the one before didn't find a segment's worth.
 */
#include "5-disk/cleaner_internal.h"

#include "5-disk/disk.h"
#include "base/checked.h"
#include "base/err.h"
#include "base/log.h"

#define VICTIMS_MAX 16u
#define POOR_ROUNDS_MAX 8u

/* ---- What is dead ---- */

uint64_t mls_cleaner_live_blocks(struct mls_cleaner *cleaner)
{
	struct mls_segment_stat stat;

	mls_segment_table_stat(cleaner->disk->table, &stat);
	return stat.live_blocks - mls_min_u64(stat.hidden_blocks, stat.live_blocks);
}

/*
 * Old records that neither compaction nor the index has met yet make segments look fuller than they
 * are. Right after a full compaction the counts are exact; what they have grown by since then is what
 * another one may find. It rewrites the index, so it must be worth it; but before a writer is told ENOSPC, any
 * sync since then is reason enough (discards don't show in the counts).
 */
static bool compaction_worth_it(struct mls_cleaner *cleaner, bool desperate)
{
	uint64_t live = mls_cleaner_live_blocks(cleaner);
	uint64_t floor = cleaner->live_compacted ? cleaner->live_compacted : cleaner->live_opened;
	uint64_t in_memory = 2 * (uint64_t)cleaner->disk->opts.memtable_records;	/* they may hide as many */

	if (desperate && atomic_load(&cleaner->disk->synced_id) != cleaner->sync_compacted)
		return true;
	return live >= floor + mls_max_u64(cleaner->disk->nr_blocks / 32, 1) + in_memory;
}

/* A memtable hides records of tables, and nobody knows which until both are merged. */
static bool merge_worth_it(struct mls_cleaner *cleaner, bool desperate)
{
	struct mls_lsm_stat stat;

	mls_lsm_stat(cleaner->disk->lsm, &stat);
	return desperate || stat.memtable_records >= cleaner->disk->opts.memtable_records / 4;
}

int mls_cleaner_compact(struct mls_cleaner *cleaner, bool *progress)
{
	uint64_t sync_id = atomic_load(&cleaner->disk->synced_id);
	uint64_t buried = atomic_load(&cleaner->disk->count.buried_blocks);
	int err = mls_lsm_compact_all(cleaner->disk->lsm, progress);

	if (err)
		return err;
	cleaner->buried_compacted = buried;
	cleaner->live_compacted = mls_cleaner_live_blocks(cleaner);
	cleaner->sync_compacted = sync_id;
	mls_count(&cleaner->disk->count.cleaner_compactions, 1);
	return 0;
}

/*
 * Which records are hidden: after an open all tables tell it, half a second for each GiB of records, which no writer
 * should wait for. So a thread of its own asks for it the first time; until then victims are chosen by what is
 * known. After that only new tables have something to tell.
 */
static void *teller_main(void *arg)
{
	struct mls_cleaner *cleaner = arg;

	if (mls_lsm_tell_shadowed(cleaner->disk->lsm))
		mls_debug("cleaner: the counts of live blocks are too high now");
	atomic_store(&cleaner->told, true);
	return NULL;
}

void mls_cleaner_learn_hidden(struct mls_cleaner *cleaner)
{
	if (!cleaner->has_teller && !cleaner->disk->opts.inline_work)
		cleaner->has_teller = pthread_create(&cleaner->teller, NULL, teller_main, cleaner) == 0;
	if (!cleaner->has_teller || atomic_load(&cleaner->told))
		(void)teller_main(cleaner);
}

/* ---- Which segments ---- */

/*
 * Under the strict policy. To move what is synced takes room now and gives some after the user's sync. So that is done
 * before a sync, and never in between: a burst of writes shall have all the room there is. What was never synced is
 * moved at any time.
 */
static bool may_move_synced(struct mls_cleaner *cleaner)
{
	return !cleaner->disk->opts.strict_sync || atomic_load(&cleaner->nr_before_sync) > 0;
}

size_t mls_cleaner_victims(struct mls_cleaner *cleaner, uint32_t max_live, bool walk, struct mls_seg_info *infos,
			   size_t max)
{
	struct mls_victim_choice choice = { .max_live = max_live, .unsynced_only = !may_move_synced(cleaner),
					    .later_too = walk };

	return mls_segment_table_victims(cleaner->disk->table, &choice, infos, max);
}

/* Of one round. */
struct round {
	struct mls_seg_info victims[VICTIMS_MAX];
	size_t nr;
	uint64_t gain;		/* blocks that they seem to give, by their counts; then, that they gave */
	bool walk;		/* those without summary, too */
	bool progress;		/* records of the index were dropped */
};

/* The best few. */
static void pick_victims(struct mls_cleaner *cleaner, struct round *round)
{
	uint32_t nr_slots = mls_segment_slots(cleaner->disk->sb.geo.run_blocks);

	round->nr = mls_cleaner_victims(cleaner, nr_slots - 1, round->walk, round->victims, VICTIMS_MAX);
	round->gain = 0;
	for (size_t i = 0; i < round->nr; i++)
		round->gain += nr_slots - round->victims[i].live;
}

static bool gives_little(const struct round *round, uint32_t nr_slots)
{
	return round->gain < round->nr * nr_slots / 4 + nr_slots;
}

/* As long as the victims seem to give little or nothing: it may be that more is dead than is known. */
static int find_out_more(struct mls_cleaner *cleaner, struct round *round)
{
	struct mls_disk *disk = cleaner->disk;
	uint32_t nr_slots = mls_segment_slots(disk->sb.geo.run_blocks);
	bool poor = round->gain < nr_slots;
	int err = 0;

	if (compaction_worth_it(cleaner, poor) && gives_little(round, nr_slots)) {
		err = mls_cleaner_compact(cleaner, &round->progress);
		pick_victims(cleaner, round);
	}
	/* What is dead among unsynced blocks can be told only once they are synced. */
	if (!err && round->gain < nr_slots && !disk->opts.strict_sync && mls_lsm_dirty(disk->lsm)) {
		err = mls_cleaner_early_sync(disk);
		if (!err)
			err = mls_cleaner_compact(cleaner, &round->progress);
		pick_victims(cleaner, round);
	}
	/* Under the strict policy at least what is dead by unsynced blocks alone. */
	if (!err && disk->opts.strict_sync && merge_worth_it(cleaner, poor) && gives_little(round, nr_slots)) {
		err = mls_lsm_merge_unsynced(disk->lsm, &round->progress);
		pick_victims(cleaner, round);
	}
	return err;
}

static int find_victims(struct mls_cleaner *cleaner, struct round *round)
{
	uint32_t nr_slots = mls_segment_slots(cleaner->disk->sb.geo.run_blocks);
	int err;

	mls_cleaner_learn_hidden(cleaner);
	pick_victims(cleaner, round);
	err = find_out_more(cleaner, round);
	round->walk = round->gain < nr_slots;
	if (!err && round->walk)
		pick_victims(cleaner, round);
	return err;
}

/* ---- A round ---- */

static int empty_victims(struct mls_cleaner *cleaner, struct round *round)
{
	struct mls_moved moved = { 0 };
	int err = 0;

	if (round->gain >= mls_segment_slots(cleaner->disk->sb.geo.run_blocks))
		err = mls_movers_clean(cleaner->movers, round->victims, round->nr, round->walk, &moved);
	if (!err && moved.gain == 0 && moved.walks_left)
		err = mls_movers_clean(cleaner->movers, round->victims, round->nr, true, &moved);
	/* The index has eaten the room for moves: many small tables, each in a run of its own. */
	if (!err && moved.gain == 0 && round->nr > 0 && moved.starved) {
		err = mls_cleaner_compact(cleaner, &round->progress);
		if (!err)
			err = mls_movers_clean(cleaner->movers, round->victims, round->nr, round->walk, &moved);
	}
	round->gain = moved.gain;
	return err;
}

/* Somebody else's sync or transaction may be about to free runs. */
static bool others_gain(struct mls_cleaner *cleaner, uint64_t synced_before)
{
	struct mls_segment_stat stat;

	mls_segment_table_stat(cleaner->disk->table, &stat);
	return stat.nr_ends_due > 0 || stat.nr_cleaned_waiting > 0 ||
	       atomic_load(&cleaner->disk->synced_id) != synced_before;
}

/* Small gains add up in the cleaner's open segment; but not for ever. MLS_ENOSPC: they haven't. */
static int count_poor_rounds(struct mls_cleaner *cleaner, const struct round *round, bool gained, uint64_t synced_before)
{
	if (gained || round->progress)
		cleaner->nr_poor = 0;
	else if (++cleaner->nr_poor >= (round->gain == 0 && !others_gain(cleaner, synced_before) ? 2 : POOR_ROUNDS_MAX))
		return MLS_ENOSPC;
	return 0;
}

int mls_cleaner_round(struct mls_cleaner *cleaner)
{
	struct mls_disk *disk = cleaner->disk;
	uint32_t nr_slots = mls_segment_slots(disk->sb.geo.run_blocks);
	uint64_t synced_before = atomic_load(&disk->synced_id), free_before = mls_chunk_alloc_nr_free(disk->alloc), nr_free;
	struct round round = { .nr = 0 };
	int err = find_victims(cleaner, &round);

	if (err)
		round.gain = 0;
	else
		err = empty_victims(cleaner, &round);
	/* No space for a compaction or a move: what waits for a sync may be just that. */
	if (!err || err == MLS_ENOSPC)
		err = mls_cleaner_sync_if_due(cleaner, round.gain < nr_slots, err);
	if (err)
		return err;
	mls_backing_renew(&disk->backing);	/* what became free on a full host is of use only now */
	nr_free = mls_chunk_alloc_nr_free(disk->alloc);
	mls_debug("cleaner: %zu segments, %llu blocks gained, %llu runs free, %llu before", round.nr,
		  (unsigned long long)round.gain, (unsigned long long)nr_free, (unsigned long long)free_before);
	return count_poor_rounds(cleaner, &round, round.gain >= nr_slots || nr_free > free_before, synced_before);
}
