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
 */
#include "5-disk/cleaner_internal.h"

#include <stdlib.h>
#include <time.h>

#include "5-disk/disk.h"
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
#define PUNCHES_INLINE 8u	/* without a thread: ranges a sync gives back */

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

size_t mls_cleaner_victims(struct mls_cleaner *cleaner, uint32_t max_live, bool walk, struct mls_seg_info *infos,
			   size_t max)
{
	struct mls_victim_choice choice = { .max_live = max_live, .unsynced_only = !may_move_synced(cleaner),
					    .later_too = walk };

	return mls_segment_table_victims(cleaner->disk->table, &choice, infos, max);
}

/* The best few victims; *gain: blocks that they seem to give, by their counts. walk: those without summary, too. */
static size_t pick_victims(struct mls_cleaner *cleaner, struct mls_seg_info *infos, bool walk, uint64_t *gain)
{
	uint32_t nr_slots = mls_segment_slots(cleaner->disk->sb.geo.run_blocks);
	size_t nr = mls_cleaner_victims(cleaner, nr_slots - 1, walk, infos, VICTIMS_MAX);

	*gain = 0;
	for (size_t i = 0; i < nr; i++)
		*gain += nr_slots - infos[i].live;
	return nr;
}

int mls_cleaner_early_sync(struct mls_disk *disk)
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
 * kept for the index. err: what the round came to; 0 after a sync. */
static int sync_if_due(struct mls_cleaner *cleaner, bool idle, int err)
{
	bool no_room = err || mls_chunk_alloc_room(cleaner->disk->alloc) <= 1;

	if (!sync_is_due(cleaner, no_room))
		return err;
	if (no_room || idle || !cleaner->has_syncer)
		return mls_cleaner_early_sync(cleaner->disk);
	ask_syncer(cleaner);
	return err;
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
		if (mls_cleaner_early_sync(cleaner->disk))
			mls_debug("cleaner: couldn't sync now");
		pthread_mutex_lock(&cleaner->lock);
		cleaner->sync_wanted = false;
		pthread_cond_broadcast(&cleaner->round_done);
	}
	pthread_mutex_unlock(&cleaner->lock);
	return NULL;
}

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

	mls_cleaner_learn_hidden(cleaner);
	nr = pick_victims(cleaner, infos, false, &gain);
	poor = gain < nr_slots;

	if (compaction_worth_it(cleaner, poor) && gain < nr * nr_slots / 4 + nr_slots) {
		err = mls_cleaner_compact(cleaner, &progress);
		nr = pick_victims(cleaner, infos, false, &gain);
	}
	/* What is dead among unsynced blocks can be told only once they are synced. */
	if (!err && gain < nr_slots && !disk->opts.strict_sync && mls_lsm_dirty(disk->lsm)) {
		err = mls_cleaner_early_sync(disk);
		if (!err)
			err = mls_cleaner_compact(cleaner, &progress);
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
		err = mls_cleaner_compact(cleaner, &progress);
		if (!err)
			err = mls_movers_clean(cleaner->movers, infos, nr, walk, &moved);
	}
	gain = moved.gain;
	/* No space for a compaction or a move: what waits for a sync may be just that. */
	if (!err || err == MLS_ENOSPC)
		err = sync_if_due(cleaner, gain < nr_slots, err);
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

static void wait_for_work(struct mls_cleaner *cleaner, uint64_t ns)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += (time_t)((uint64_t)until.tv_nsec + ns) / 1000000000;
	until.tv_nsec = (long)(((uint64_t)until.tv_nsec + ns) % 1000000000);
	pthread_cond_timedwait(&cleaner->work, &cleaner->lock, &until);
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
			rest = mls_cleaner_housekeeping(cleaner);
			set_start_room(cleaner);
			cleaner->supply_began_ns = 0;
			pthread_mutex_lock(&cleaner->lock);
			continue;
		}
		cleaner->asked = false;
		pthread_mutex_unlock(&cleaner->lock);
		err = is_waited_for || !enough_free(cleaner) ? clean_round(cleaner) : 0;
		mls_cleaner_measure_supply(cleaner);
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
	uint64_t used = mls_cleaner_live_blocks(cleaner) / mls_segment_slots(disk->sb.geo.run_blocks) + reserve;
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
	mls_cleaner_pace_init(cleaner);
	cleaner->changed_ns = mls_now_ns();	/* who opens a disk is about to use it, ... */
	cleaner->live_opened = mls_cleaner_live_blocks(cleaner);	/* ... and shan't wait half a second for a compaction */
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
