/* SPDX-License-Identifier: MPL-2.0 */
/*
 * cleaner.c - gives the space of dead blocks back; see cleaner.h.
 *
 * One round: take the segments with the fewest live blocks and have them emptied (mover.h). The next sync
 * frees them: until then the last synced state may need them. That sync is made by a thread of its own when
 * enough of them wait, so that cleaning goes on meanwhile; only a cleaner that has no room left waits for it.
 *
 * What is kept free or waits for a sync isn't there for dead blocks to gather in, and so makes each victim
 * fuller: near 90 % a hundredth of the pool held back costs a tenth of the speed. So marks are low, and syncs
 * are frequent as long as space is short.
 *
 * Cleaning begins at the low mark, which is small: who cleans late finds more dead blocks. Where much is dead,
 * and so cheap to have, it begins earlier and nobody is slowed for it: writers come in gusts.
 *
 * Writers are slowed to the rate at which blocks become free. From the low mark down to no room at all each
 * block gets a later moment at which it may be written: at half way exactly as fast as the cleaner has gained
 * blocks lately, faster above, slower below. So writers and cleaner settle somewhere between, and nobody
 * comes to wait for the last run.
 */
#include "5-disk/cleaner.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "5-disk/disk.h"
#include "5-disk/mover.h"
#include "5-disk/punch.h"
#include "base/checked.h"
#include "base/err.h"
#include "base/log.h"

#define VICTIMS_MAX 16u
#define POOR_ROUNDS_MAX 8u
#define SYNC_PART 4u		/* of the runs below the mark wait for one sync */
#define SYNC_RUNS_AHEAD 2u	/* strict: room for so many times what is written between two syncs */
#define SYNC_RUNS_FADE 16u
#define ROUNDS_BEFORE_SYNC 8u
#define EARLY_PART 8u		/* of what is dead: so much is kept free if it is above the low mark */
#define PLENTY_PART 64u		/* of all runs above what cleaning begins at: room for moves that aren't needed */
#define LOW_PART 64u		/* of all runs; from there on writers are slowed */
#define LOW_RUNS_MAX 32u
#define CLEAN_PART 256u		/* of all runs are for moves until the next sync */
#define CLEAN_RUNS_MAX 64u
#define MOVERS 3u		/* threads that empty victims beside the cleaner's */
#define PACE_MAX_NS 20000000u	/* longest pause of one request: 20 ms */
#define PACE_MIN_NS 1000000u	/* debts below aren't worth a pause: to sleep and wake costs as much as a write */
#define PACE_STEEP 16u		/* how much slower than the cleaner, at most */
#define PACE_BLOCK_NS 3000u	/* what a block takes, before it has been measured */
#define PACE_BLOCK_MAX_NS 200000u
#define SUPPLY_WINDOW_NS 50000000u	/* measured over so long at least */
#define TICK_NS 1000000000u	/* how often an idle cleaner looks around */
#define PAUSE_NS UINT64_C(250000000)	/* so long without a change and without many reads: a pause, ... */
#define IDLE_NS UINT64_C(2000000000)	/* ... the disk is idle */
#define IDLE_READS 64u
#define IDLE_VICTIMS 8u		/* at a time: who comes back soon finds the device free */
#define IDLE_REST 2u		/* times as long as it took: the rest after some idle work; others want the host's device, too */
#define IDLE_DEAD_PART 20u	/* idle: reclaim when one in so many live blocks may be dead */
#define PUNCHES_INLINE 8u	/* without a thread: ranges a sync gives back */


struct mls_cleaner {
	struct mls_disk *disk;
	pthread_mutex_t lock;
	pthread_cond_t work, sync_work, round_done;
	pthread_t thread, syncer;
	bool has_thread, has_syncer, stop, sync_wanted;
	atomic_bool asked;
	unsigned nr_waiting;
	uint64_t rounds;		/* finished */
	uint64_t vain_round;		/* the last that gained nothing */
	int round_err;			/* 0: the last round gained something */
	atomic_uint_fast64_t low_runs;	/* free runs, and ... */
	atomic_uint_fast64_t low_room;	/* ... runs that users may take, from which on writers are slowed */
	atomic_uint_fast64_t start_room;	/* at least low_room: from which on there's work to do */
	uint64_t live_compacted;	/* live blocks right after the last full compaction */
	unsigned nr_poor;		/* rounds in a row that gained less than a segment */
	uint64_t sync_compacted;	/* the last sync it knew of */
	uint64_t buried_compacted;	/* discarded blocks then */
	uint64_t seen_changes;		/* users' writes and discards when last looked at */
	uint64_t changed_ns;		/* when they were seen to differ */
	uint64_t seen_reads;		/* users' reads when they were last found to be many */
	struct mls_movers *movers;
	pthread_t teller;
	bool has_teller;		/* the cleaner's thread's, until that is over */
	atomic_bool told;		/* the index has told once what it hides */
	/* How fast blocks become free, and when the next block may be written. */
	atomic_uint_fast64_t block_ns, next_write_ns;
	uint64_t supply_began_ns, supply_runs, supply_written;
	atomic_uint nr_before_sync;	/* users that are about to sync */
	uint64_t synced_written;	/* strict policy: blocks that users had written at their last sync */
	uint64_t sync_runs;		/* and the runs they write between two syncs: the most of late */
};

/* ---- A round ---- */

/* Under the strict policy what waits for a sync counts, too: cleaning more before it would only take room. */
static bool enough_free(struct mls_cleaner *cleaner)
{
	uint64_t room = mls_chunk_alloc_room(cleaner->disk->alloc);
	struct mls_segment_stat stat;

	if (room > cleaner->start_room || !cleaner->disk->opts.strict_sync)
		return room > cleaner->start_room;
	mls_segment_table_stat(cleaner->disk->table, &stat);
	return room + stat.nr_cleaned_waiting > cleaner->start_room;
}

/* Under the strict policy how much to clean is a matter of the user's syncs alone. */
static void set_start_room(struct mls_cleaner *cleaner)
{
	uint32_t nr_slots = mls_segment_slots(cleaner->disk->sb.geo.run_blocks);
	struct mls_segment_stat stat;
	uint64_t live, in_segments;

	if (cleaner->disk->opts.strict_sync)
		return;
	mls_segment_table_stat(cleaner->disk->table, &stat);
	live = stat.live_blocks - mls_min_u64(stat.hidden_blocks, stat.live_blocks);
	in_segments = stat.nr_segments * nr_slots;
	cleaner->start_room = mls_max_u64(cleaner->low_room,
					  (in_segments - mls_min_u64(live, in_segments)) / nr_slots / EARLY_PART);
}

/*
 * Under the strict policy. To move what is synced takes room now and gives some after the user's sync. So that is done
 * before a sync, and never in between: a burst of writes shall have all the room there is. What was never synced is
 * moved at any time.
 */
static bool may_move_synced(struct mls_cleaner *cleaner)
{
	return !cleaner->disk->opts.strict_sync || atomic_load(&cleaner->nr_before_sync) > 0;
}

/* The best few victims; *gain: blocks that they seem to give, by their counts. walk: those without summary, too. */
static size_t pick_victims(struct mls_cleaner *cleaner, struct mls_seg_info *infos, bool walk, uint64_t *gain)
{
	uint32_t nr_slots = mls_segment_slots(cleaner->disk->sb.geo.run_blocks);
	size_t nr;

	mls_segment_table_unsynced_only(cleaner->disk->table, !may_move_synced(cleaner));
	mls_segment_table_no_summary_too(cleaner->disk->table, walk);
	nr = mls_segment_table_victims(cleaner->disk->table, nr_slots - 1, infos, VICTIMS_MAX);
	*gain = 0;
	for (size_t i = 0; i < nr; i++)
		*gain += nr_slots - infos[i].live;
	return nr;
}

static int early_sync(struct mls_disk *disk)
{
	int err;

	if (disk->opts.strict_sync)
		return MLS_ENOSPC;
	err = mls_disk_sync_grouped(disk, true);
	if (!err)
		mls_info("disk: synced early to free space (sync %llu)",
			 (unsigned long long)atomic_load(&disk->synced_id));
	return err;
}

/* Is it time to have the cleaned segments, even at the price of a sync nobody asked for? */
static bool sync_is_due(struct mls_cleaner *cleaner, bool no_room)
{
	uint64_t room = mls_chunk_alloc_room(cleaner->disk->alloc);
	uint64_t mark = room > cleaner->low_room ? cleaner->start_room : cleaner->low_room;
	struct mls_segment_stat stat;

	mls_segment_table_stat(cleaner->disk->table, &stat);
	if (stat.nr_cleaned_waiting == 0)
		return false;
	return no_room || (!cleaner->disk->opts.strict_sync &&
			   stat.nr_cleaned_waiting >= mls_max_u64(mark / SYNC_PART, 1));
}

/* While one runs, another isn't asked for: it comes with the next victim. */
static void ask_syncer(struct mls_cleaner *cleaner)
{
	pthread_mutex_lock(&cleaner->lock);
	if (!cleaner->sync_wanted) {
		cleaner->sync_wanted = true;
		pthread_cond_signal(&cleaner->sync_work);
	}
	pthread_mutex_unlock(&cleaner->lock);
}

/* A mover is done with a victim. */
static void on_emptied(void *arg)
{
	struct mls_cleaner *cleaner = arg;

	if (cleaner->has_syncer && sync_is_due(cleaner, false))
		ask_syncer(cleaner);
}

/* With no room left, or nothing else to do, the cleaner waits for the sync: more moves would take what is
 * kept for the index. */
static int sync_if_due(struct mls_cleaner *cleaner, bool idle)
{
	bool no_room = mls_chunk_alloc_room(cleaner->disk->alloc) <= 1;

	if (!sync_is_due(cleaner, no_room))
		return 0;
	if (no_room || idle || !cleaner->has_syncer)
		return early_sync(cleaner->disk);
	ask_syncer(cleaner);
	return 0;
}

static void *syncer_main(void *arg)
{
	struct mls_cleaner *cleaner = arg;

	pthread_mutex_lock(&cleaner->lock);
	while (!cleaner->stop) {
		if (!cleaner->sync_wanted) {
			pthread_cond_wait(&cleaner->sync_work, &cleaner->lock);
			continue;
		}
		pthread_mutex_unlock(&cleaner->lock);
		if (early_sync(cleaner->disk))
			mls_debug("cleaner: couldn't sync now");
		pthread_mutex_lock(&cleaner->lock);
		cleaner->sync_wanted = false;
		pthread_cond_broadcast(&cleaner->round_done);
	}
	pthread_mutex_unlock(&cleaner->lock);
	return NULL;
}

static uint64_t live_blocks(struct mls_cleaner *cleaner)
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
	uint64_t live = live_blocks(cleaner), floor = cleaner->live_compacted;
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

static int compact(struct mls_cleaner *cleaner, bool *progress)
{
	uint64_t sync_id = atomic_load(&cleaner->disk->synced_id);
	uint64_t buried = atomic_load(&cleaner->disk->count.buried_blocks);
	int err = mls_lsm_compact_all(cleaner->disk->lsm, progress);

	if (err)
		return err;
	cleaner->buried_compacted = buried;
	cleaner->live_compacted = live_blocks(cleaner);
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

static void learn_hidden(struct mls_cleaner *cleaner)
{
	if (!cleaner->has_teller && !cleaner->disk->opts.inline_work)
		cleaner->has_teller = pthread_create(&cleaner->teller, NULL, teller_main, cleaner) == 0;
	if (!cleaner->has_teller || atomic_load(&cleaner->told))
		(void)teller_main(cleaner);
}

/* Somebody else's sync or transaction may be about to free runs. */
static bool others_gain(struct mls_cleaner *cleaner, uint64_t synced_before)
{
	struct mls_segment_stat stat;

	mls_segment_table_stat(cleaner->disk->table, &stat);
	return stat.nr_ends_due > 0 || stat.nr_cleaned_waiting > 0 ||
	       atomic_load(&cleaner->disk->synced_id) != synced_before;
}

/* One round: 0 when something was gained, MLS_ENOSPC when there's nothing to gain. */
static int clean_round(struct mls_cleaner *cleaner)
{
	struct mls_disk *disk = cleaner->disk;
	uint32_t nr_slots = mls_segment_slots(disk->sb.geo.run_blocks);
	struct mls_seg_info infos[VICTIMS_MAX];
	uint64_t synced_before = atomic_load(&disk->synced_id);
	uint64_t free_before = mls_chunk_alloc_nr_free(disk->alloc), gain;
	bool poor, walk, progress = false;
	struct mls_moved moved = { 0 };
	int err = 0;
	size_t nr;

	learn_hidden(cleaner);
	nr = pick_victims(cleaner, infos, false, &gain);
	poor = gain < nr_slots;

	if (compaction_worth_it(cleaner, poor) && gain < nr * nr_slots / 4 + nr_slots) {
		err = compact(cleaner, &progress);
		nr = pick_victims(cleaner, infos, false, &gain);
	}
	/* What is dead among unsynced blocks can be told only once they are synced. */
	if (!err && gain < nr_slots && !disk->opts.strict_sync && mls_lsm_dirty(disk->lsm)) {
		err = early_sync(disk);
		if (!err)
			err = compact(cleaner, &progress);
		nr = pick_victims(cleaner, infos, false, &gain);
	}
	/* Under the strict policy at least what is dead by unsynced blocks alone. */
	if (!err && disk->opts.strict_sync && merge_worth_it(cleaner, poor) && gain < nr * nr_slots / 4 + nr_slots) {
		err = mls_lsm_merge_unsynced(disk->lsm, &progress);
		nr = pick_victims(cleaner, infos, false, &gain);
	}
	walk = gain < nr_slots;
	if (!err && walk)
		nr = pick_victims(cleaner, infos, true, &gain);
	if (!err && gain >= nr_slots)
		err = mls_movers_clean(cleaner->movers, infos, nr, walk, &moved);
	if (!err && moved.gain == 0 && moved.walks_left)
		err = mls_movers_clean(cleaner->movers, infos, nr, true, &moved);
	/* The index has eaten the room for moves: many small tables, each in a run of its own. */
	if (!err && moved.gain == 0 && nr > 0 && moved.starved) {
		err = compact(cleaner, &progress);
		if (!err)
			err = mls_movers_clean(cleaner->movers, infos, nr, walk, &moved);
	}
	gain = moved.gain;
	if (!err)
		err = sync_if_due(cleaner, gain < nr_slots);
	if (err)
		return err;
	mls_backing_renew(&disk->backing);	/* what became free on a full host is of use only now */
	mls_debug("cleaner: %zu segments, %llu blocks gained, %llu runs free, %llu before", nr,
		  (unsigned long long)gain, (unsigned long long)mls_chunk_alloc_nr_free(disk->alloc),
		  (unsigned long long)free_before);
	/* Small gains add up in the cleaner's open segment; but not for ever. */
	if (gain >= nr_slots || progress || mls_chunk_alloc_nr_free(disk->alloc) > free_before)
		cleaner->nr_poor = 0;
	else if (++cleaner->nr_poor >= (gain == 0 && !others_gain(cleaner, synced_before) ? 2 : POOR_ROUNDS_MAX))
		return MLS_ENOSPC;
	return 0;
}

/* ---- When nobody writes ---- */

/* How long ago a user changed something, or read much. */
static uint64_t quiet_ns(struct mls_cleaner *cleaner)
{
	uint64_t changes = atomic_load(&cleaner->disk->count.writes) + atomic_load(&cleaner->disk->count.discards);
	uint64_t reads = atomic_load(&cleaner->disk->count.reads), now = mls_now_ns();

	if (reads - cleaner->seen_reads > IDLE_READS) {
		cleaner->changed_ns = now;
		cleaner->seen_reads = reads;
	}
	if (changes != cleaner->seen_changes)
		cleaner->changed_ns = now;
	cleaner->seen_changes = changes;
	return now - cleaner->changed_ns;
}

/* Records that a compaction would find dead, as far as one can know. */
static bool much_is_dead(struct mls_cleaner *cleaner, uint64_t live)
{
	uint32_t nr_slots = mls_segment_slots(cleaner->disk->sb.geo.run_blocks);
	uint64_t dead = atomic_load(&cleaner->disk->count.buried_blocks) - cleaner->buried_compacted;

	if (live > cleaner->live_compacted)
		dead += live - cleaner->live_compacted;
	return dead >= mls_max_u64(live / IDLE_DEAD_PART, 2 * nr_slots);
}

/* Close up segments with no more than max_live live blocks, a batch at a time; walk: those without a summary, too. */
static int close_up(struct mls_cleaner *cleaner, const struct mls_segment_stat *stat, uint32_t max_live, bool walk,
		    bool *worked)
{
	struct mls_disk *disk = cleaner->disk;
	uint32_t nr_slots = mls_segment_slots(disk->sb.geo.run_blocks);
	uint64_t room = stat->nr_segments * nr_slots;
	struct mls_seg_info infos[IDLE_VICTIMS];
	struct mls_moved moved;
	size_t nr;

	if (room <= stat->live_blocks + stat->live_blocks / IDLE_DEAD_PART + 4 * nr_slots)
		return 0;
	mls_segment_table_unsynced_only(disk->table, !may_move_synced(cleaner));
	mls_segment_table_no_summary_too(disk->table, walk);
	nr = mls_segment_table_victims(disk->table, max_live, infos, IDLE_VICTIMS);
	if (nr == 0)
		return 0;
	*worked = true;
	return mls_movers_clean(cleaner->movers, infos, nr, walk, &moved);
}

/*
 * What was discarded becomes free runs, so that the host can have them. Under the strict policy that
 * waits for the user's syncs. *worked: there may be more to do at once.
 */
static int reclaim(struct mls_cleaner *cleaner, bool *worked)
{
	struct mls_disk *disk = cleaner->disk;
	struct mls_segment_stat stat;
	bool progress, dirty = mls_lsm_dirty(disk->lsm);
	int err = 0;

	mls_segment_table_stat(disk->table, &stat);
	if (much_is_dead(cleaner, stat.live_blocks)) {
		if (dirty)
			err = early_sync(disk);
		if (!err)
			err = compact(cleaner, &progress);
		*worked = true;
	} else if (stat.nr_cleaned_waiting > 0) {
		err = early_sync(disk);
		*worked = true;
	} else {
		err = close_up(cleaner, &stat, mls_segment_slots(disk->sb.geo.run_blocks) / 4 * 3, true, worked);
	}
	if (err)
		*worked = false;
	return err;
}

/*
 * In a pause: room for the next burst, half of all that isn't live, by segments that are half dead. At full speed: who
 * writes in bursts, and that's most, then never meets the cleaner.
 */
static int make_room(struct mls_cleaner *cleaner, bool *worked)
{
	struct mls_disk *disk = cleaner->disk;
	uint64_t room = mls_chunk_alloc_room(disk->alloc);
	struct mls_segment_stat stat;
	uint32_t nr_slots = mls_segment_slots(disk->sb.geo.run_blocks);
	uint64_t live_runs, spare;
	int err = 0;

	if (disk->opts.strict_sync)
		return 0;
	learn_hidden(cleaner);
	mls_segment_table_stat(disk->table, &stat);
	live_runs = mls_div_round_up(live_blocks(cleaner), nr_slots);
	spare = room + stat.nr_segments - mls_min_u64(live_runs, stat.nr_segments);
	if (room + stat.nr_cleaned_waiting < spare / 2)
		err = close_up(cleaner, &stat, nr_slots / 2, false, worked);
	if (!err && !*worked && room < spare / 2 && stat.nr_cleaned_waiting > 0) {
		err = early_sync(disk);
		*worked = true;
	}
	return err;
}

/* When the disk is idle: gently, as others want the host's device, too. */
static int idle_work(struct mls_cleaner *cleaner, bool *worked)
{
	if (mls_cleaner_has_plenty(cleaner) && mls_defrag_idle_step(cleaner->disk->defrag)) {
		*worked = true;
		return 0;
	}
	return mls_punch_wanted(cleaner->disk) ? reclaim(cleaner, worked) : 0;
}

/* Returns how long there is nothing to do, in ns. */
static uint64_t housekeeping(struct mls_cleaner *cleaner)
{
	struct mls_disk *disk = cleaner->disk;
	uint64_t quiet = quiet_ns(cleaner), began = mls_now_ns(), took, rest;
	bool worked = false;
	int err;

	if (mls_disk_stopped(disk))
		return TICK_NS;
	if (quiet < PAUSE_NS)
		return PAUSE_NS;
	err = make_room(cleaner, &worked);
	if (worked && !err)
		return 0;
	if (!err && quiet >= IDLE_NS)
		err = idle_work(cleaner, &worked);
	if (err)
		mls_debug("cleaner: idle work couldn't be done now: %s", mls_strerror(err));
	took = mls_now_ns() - began;
	rest = mls_punch_wanted(disk) ? mls_punch_step(disk, cleaner->low_runs, quiet < IDLE_NS) : 0;
	if (worked && !err)
		return mls_max_u64(rest, mls_min_u64(took * IDLE_REST, TICK_NS));
	return rest ? rest : TICK_NS;
}

static void wait_for_work(struct mls_cleaner *cleaner, uint64_t ns)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += (time_t)((uint64_t)until.tv_nsec + ns) / 1000000000;
	until.tv_nsec = (long)(((uint64_t)until.tv_nsec + ns) % 1000000000);
	pthread_cond_timedwait(&cleaner->work, &cleaner->lock, &until);
}

/* Blocks that came free while the cleaner worked, by what is free now and what was written meanwhile. */
static void measure_supply(struct mls_cleaner *cleaner)
{
	struct mls_disk *disk = cleaner->disk;
	uint64_t now = mls_now_ns(), written = atomic_load(&disk->count.written_bytes) / MLS_BLOCK_BYTES, ns;
	struct mls_segment_stat stat;
	int64_t blocks;
	uint64_t runs;

	mls_segment_table_stat(disk->table, &stat);
	runs = mls_chunk_alloc_nr_free(disk->alloc) + stat.nr_cleaned_waiting;
	ns = now - cleaner->supply_began_ns;
	if (cleaner->supply_began_ns && ns < SUPPLY_WINDOW_NS)
		return;
	blocks = (int64_t)(written - cleaner->supply_written) +
		 ((int64_t)runs - (int64_t)cleaner->supply_runs) * disk->sb.geo.run_blocks;
	if (cleaner->supply_began_ns) {
		uint64_t block_ns = ns / (uint64_t)(blocks > 0 ? blocks : 1);

		block_ns = mls_min_u64(block_ns, PACE_BLOCK_MAX_NS);
		atomic_store(&cleaner->block_ns, (atomic_load(&cleaner->block_ns) * 3 + block_ns) / 4);
	}
	cleaner->supply_began_ns = now;
	cleaner->supply_runs = runs;
	cleaner->supply_written = written;
}

static void *cleaner_main(void *arg)
{
	struct mls_cleaner *cleaner = arg;
	uint64_t rest = TICK_NS;

	pthread_mutex_lock(&cleaner->lock);
	while (!cleaner->stop) {
		bool is_waited_for = cleaner->nr_waiting > 0;
		int err;

		if (!cleaner->asked && cleaner->nr_waiting == 0) {
			wait_for_work(cleaner, rest);
			if (cleaner->asked || cleaner->nr_waiting > 0 || cleaner->stop)
				continue;
			pthread_mutex_unlock(&cleaner->lock);
			rest = housekeeping(cleaner);
			set_start_room(cleaner);
			cleaner->supply_began_ns = 0;
			pthread_mutex_lock(&cleaner->lock);
			continue;
		}
		cleaner->asked = false;
		pthread_mutex_unlock(&cleaner->lock);
		err = is_waited_for || !enough_free(cleaner) ? clean_round(cleaner) : 0;
		measure_supply(cleaner);
		set_start_room(cleaner);
		mls_count(&cleaner->disk->count.cleaner_rounds, 1);
		pthread_mutex_lock(&cleaner->lock);
		cleaner->rounds++;
		cleaner->round_err = err;
		if (err == MLS_ENOSPC)
			cleaner->vain_round = cleaner->rounds;
		if (!err && !enough_free(cleaner))
			cleaner->asked = true;
		pthread_cond_broadcast(&cleaner->round_done);
	}
	pthread_cond_broadcast(&cleaner->round_done);
	pthread_mutex_unlock(&cleaner->lock);
	return NULL;
}

/* ---- What writers call ---- */

/* What a block costs its writer now, in ns. */
static uint64_t price_ns(struct mls_cleaner *cleaner, uint64_t room)
{
	uint64_t block_ns = atomic_load_explicit(&cleaner->block_ns, memory_order_relaxed);
	uint64_t missing = cleaner->low_room - mls_min_u64(room, cleaner->low_room);

	if (room * PACE_STEEP <= missing)
		return block_ns * PACE_STEEP;
	return block_ns * missing / room;
}

/* All writers draw on one account: each block moves on the moment of the next. */
static void pause_writer(struct mls_cleaner *cleaner, uint64_t room, uint32_t nr_blocks)
{
	uint64_t price = price_ns(cleaner, room) * nr_blocks, now = mls_now_ns();
	uint64_t next = atomic_load(&cleaner->next_write_ns), mine;
	struct timespec pause = { 0 };

	do {
		mine = mls_max_u64(next, now) + price;
		mine = mls_min_u64(mine, now + PACE_MAX_NS);
	} while (!atomic_compare_exchange_weak(&cleaner->next_write_ns, &next, mine));
	if (mine - now >= PACE_MIN_NS) {
		pause.tv_nsec = (long)(mine - now);
		nanosleep(&pause, NULL);
		mls_count(&cleaner->disk->count.paused_ns, mine - now);
	}
}

void mls_cleaner_pace(struct mls_cleaner *cleaner, uint32_t nr_blocks)
{
	uint64_t room = mls_chunk_alloc_room(cleaner->disk->alloc);

	if (room > cleaner->start_room || !cleaner->has_thread)
		return;
	if (!atomic_load(&cleaner->asked)) {
		pthread_mutex_lock(&cleaner->lock);
		atomic_store(&cleaner->asked, true);
		pthread_cond_signal(&cleaner->work);
		pthread_mutex_unlock(&cleaner->lock);
	}
	/* Under the strict policy nobody is slowed: his sync would help, not his waiting. */
	if (room <= cleaner->low_room && !cleaner->disk->opts.strict_sync)
		pause_writer(cleaner, room, nr_blocks);
}

/*
 * Rounds that gain something and such that don't may take turns, others taking what was gained. Who looked at the last
 * one only could find the good ones each time, and wait for seconds while others are refused; so one that was in
 * vain since he came is enough.
 */
int mls_cleaner_wait(struct mls_cleaner *cleaner, uint64_t *since)
{
	uint64_t until;
	int err;

	if (!cleaner->has_thread)
		return clean_round(cleaner);
	pthread_mutex_lock(&cleaner->lock);
	cleaner->nr_waiting++;
	pthread_cond_signal(&cleaner->work);
	until = cleaner->rounds + 2;	/* one whole round that began after we came */
	if (*since == 0)
		*since = cleaner->rounds + 1;	/* may be under way */
	while (cleaner->rounds < until && !cleaner->stop &&
	       mls_chunk_alloc_room(cleaner->disk->alloc) == 0)
		pthread_cond_wait(&cleaner->round_done, &cleaner->lock);
	cleaner->nr_waiting--;
	err = cleaner->stop ? MLS_ENOSPC : cleaner->round_err;
	if (!err && cleaner->vain_round > *since)
		err = MLS_ENOSPC;
	if (mls_chunk_alloc_room(cleaner->disk->alloc) > 0)
		err = 0;
	pthread_mutex_unlock(&cleaner->lock);
	return err;
}

/* Strict policy: what users write between two syncs, and some more, but no more than can be hoped for. */
static uint64_t room_between_syncs(struct mls_cleaner *cleaner, uint64_t reserve)
{
	struct mls_disk *disk = cleaner->disk;
	uint64_t used = live_blocks(cleaner) / mls_segment_slots(disk->sb.geo.run_blocks) + reserve;
	uint64_t nr_runs = mls_chunk_alloc_nr_runs(disk->alloc);

	return mls_min_u64(SYNC_RUNS_AHEAD * cleaner->sync_runs, (nr_runs - mls_min_u64(nr_runs, used)) / 2);
}

/*
 * Index: a flush (two tables) and a compaction of level 0 into level 1 write up to ten memtables before they
 * free anything; however small a table is, it takes a run. Cleaning: what is moved until the next sync.
 */
static void set_reserves(struct mls_cleaner *cleaner)
{
	struct mls_disk *disk = cleaner->disk;
	uint64_t nr_runs = mls_chunk_alloc_nr_runs(disk->alloc), run_bytes = (uint64_t)disk->sb.geo.run_blocks * MLS_BLOCK_BYTES;
	uint64_t nr_records = (uint64_t)disk->opts.memtable_records * 10;
	uint64_t index = mls_max_u64(mls_div_round_up(nr_records * 32, run_bytes) + 4,
				     mls_div_round_up(nr_records, disk->table_records) + 2);
	uint64_t clean = mls_min_u64(2 + nr_runs / CLEAN_PART, CLEAN_RUNS_MAX);

	index = mls_min_u64(index, nr_runs / 8 + 1);
	clean = mls_min_u64(clean, nr_runs / 16 + 1);
	cleaner->low_room = mls_max_u64(4, mls_min_u64(nr_runs / LOW_PART, LOW_RUNS_MAX));
	if (cleaner->sync_runs)
		cleaner->low_room = mls_max_u64(cleaner->low_room, room_between_syncs(cleaner, index + clean));
	cleaner->start_room = cleaner->low_room;
	cleaner->low_runs = index + clean + cleaner->low_room;
	/* Moves may use half of the index's part: when the index has grown into theirs, they come first,
	 * as they free. */
	mls_chunk_alloc_set_reserve(disk->alloc, index + clean, index / 2);
}

/* Under the strict policy. What users write until their next sync should find its space free already. */
static void expect_as_much_again(struct mls_cleaner *cleaner)
{
	struct mls_disk *disk = cleaner->disk;
	uint64_t written = atomic_load(&disk->count.written_bytes) / MLS_BLOCK_BYTES, runs;

	pthread_mutex_lock(&cleaner->lock);
	runs = mls_div_round_up(written - cleaner->synced_written, disk->sb.geo.run_blocks);
	cleaner->synced_written = written;
	cleaner->sync_runs -= mls_div_round_up(cleaner->sync_runs, SYNC_RUNS_FADE);
	cleaner->sync_runs = mls_max_u64(runs, cleaner->sync_runs);
	set_reserves(cleaner);
	pthread_mutex_unlock(&cleaner->lock);
}

/* A round that began after we came. */
static int whole_round(struct mls_cleaner *cleaner)
{
	uint64_t until;
	int err;

	if (!cleaner->has_thread)
		return clean_round(cleaner);
	pthread_mutex_lock(&cleaner->lock);
	cleaner->nr_waiting++;
	pthread_cond_signal(&cleaner->work);
	until = cleaner->rounds + 2;
	while (cleaner->rounds < until && !cleaner->stop)
		pthread_cond_wait(&cleaner->round_done, &cleaner->lock);
	cleaner->nr_waiting--;
	err = cleaner->stop ? MLS_ENOSPC : cleaner->round_err;
	pthread_mutex_unlock(&cleaner->lock);
	return err;
}

void mls_cleaner_before_sync(struct mls_cleaner *cleaner)
{
	if (!cleaner->disk->opts.strict_sync)
		return;
	expect_as_much_again(cleaner);
	if (enough_free(cleaner))
		return;
	atomic_fetch_add(&cleaner->nr_before_sync, 1);
	for (unsigned i = 0; i < ROUNDS_BEFORE_SYNC && !enough_free(cleaner); i++)
		if (whole_round(cleaner))
			break;
	atomic_fetch_sub(&cleaner->nr_before_sync, 1);
	/* A round that has begun meanwhile must not go on behind the cut: only the next sync would free what it takes. */
	if (cleaner->has_thread && whole_round(cleaner))
		mls_debug("cleaner: nothing more to be had before the sync");
}

void mls_cleaner_synced(struct mls_cleaner *cleaner)
{
	pthread_mutex_lock(&cleaner->lock);
	pthread_cond_broadcast(&cleaner->round_done);	/* whoever waits for room may have it now */
	pthread_mutex_unlock(&cleaner->lock);
	for (unsigned i = 0; i < PUNCHES_INLINE && !cleaner->has_thread; i++)
		if (!mls_punch_step(cleaner->disk, cleaner->low_runs, false))
			break;
}

bool mls_cleaner_has_plenty(struct mls_cleaner *cleaner)
{
	struct mls_disk *disk = cleaner->disk;
	uint64_t mark = cleaner->start_room + mls_chunk_alloc_nr_runs(disk->alloc) / PLENTY_PART;

	return !disk->opts.strict_sync && !mls_disk_stopped(disk) &&
	       mls_chunk_alloc_room(disk->alloc) > mls_max_u64(mark, 2 * cleaner->low_room);
}

/* ---- Birth and death ---- */

void mls_cleaner_resized(struct mls_cleaner *cleaner)
{
	set_reserves(cleaner);
}

static int start_threads(struct mls_cleaner *cleaner)
{
	cleaner->has_syncer = pthread_create(&cleaner->syncer, NULL, syncer_main, cleaner) == 0;
	if (cleaner->has_syncer)
		cleaner->has_thread = pthread_create(&cleaner->thread, NULL, cleaner_main, cleaner) == 0;
	return cleaner->has_thread ? 0 : MLS_ENOMEM;
}

int mls_cleaner_new(struct mls_cleaner **out, struct mls_disk *disk)
{
	struct mls_cleaner *cleaner = calloc(1, sizeof *cleaner);
	pthread_condattr_t clock;
	int err;

	if (!cleaner)
		return MLS_ENOMEM;
	cleaner->disk = disk;
	atomic_init(&cleaner->block_ns, PACE_BLOCK_NS);
	cleaner->changed_ns = mls_now_ns();	/* who opens a disk is about to use it, ... */
	cleaner->live_compacted = live_blocks(cleaner);	/* ... and shan't wait half a second for a compaction */
	pthread_mutex_init(&cleaner->lock, NULL);
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_cond_init(&cleaner->work, &clock);
	pthread_condattr_destroy(&clock);
	pthread_cond_init(&cleaner->sync_work, NULL);
	pthread_cond_init(&cleaner->round_done, NULL);
	set_reserves(cleaner);
	err = mls_movers_new(&cleaner->movers, disk, disk->opts.inline_work ? 0 : MOVERS, on_emptied,
			     cleaner);
	if (!err && !disk->opts.inline_work)
		err = start_threads(cleaner);
	if (err) {
		mls_cleaner_free(cleaner);
		return err;
	}
	*out = cleaner;
	return 0;
}

void mls_cleaner_free(struct mls_cleaner *cleaner)
{
	if (!cleaner)
		return;
	pthread_mutex_lock(&cleaner->lock);
	cleaner->stop = true;
	pthread_cond_signal(&cleaner->work);
	pthread_cond_signal(&cleaner->sync_work);
	pthread_mutex_unlock(&cleaner->lock);
	if (cleaner->has_thread)
		pthread_join(cleaner->thread, NULL);
	mls_lsm_tell_no_more(cleaner->disk->lsm);
	if (cleaner->has_teller)
		pthread_join(cleaner->teller, NULL);
	if (cleaner->has_syncer)
		pthread_join(cleaner->syncer, NULL);
	mls_movers_free(cleaner->movers);
	pthread_cond_destroy(&cleaner->round_done);
	pthread_cond_destroy(&cleaner->sync_work);
	pthread_cond_destroy(&cleaner->work);
	pthread_mutex_destroy(&cleaner->lock);
	free(cleaner);
}
