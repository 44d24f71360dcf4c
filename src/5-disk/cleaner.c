/* SPDX-License-Identifier: MPL-2.0 */
/*
 * cleaner.c - gives the space of dead blocks back; see cleaner.h.
 *
 * One round: take the segments with the fewest live blocks; of each, look every slot's LBA up and
 * move what is still current into the cleaner's own stream; mark it cleaned. The next sync frees
 * the cleaned ones: until then the last synced state may need them. A move enters the index only
 * if the moved version is still the newest, so it never brings old data back, and it belongs to
 * the current epoch like any write, so a crash undoes it as a whole.
 *
 * Which slots are live isn't asked of the counts (they lag behind, until compaction) but of the
 * index itself; the counts only choose the victims.
 *
 * A segment without a summary (open at a crash) is found out by a walk over the whole index.
 */
#include "5-disk/cleaner.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "5-disk/disk.h"
#include "5-disk/location.h"
#include "5-disk/punch.h"
#include "base/buf.h"
#include "base/checked.h"
#include "base/err.h"
#include "base/log.h"

#define VICTIMS_MAX 16u
#define POOR_ROUNDS_MAX 8u
#define PACE_MAX_NS 20000000	/* longest pause of one request: 20 ms */
#define TICK_NS 1000000000u	/* how often an idle cleaner looks around */
#define IDLE_NS UINT64_C(2000000000)	/* so long without a change: the disk is idle */
#define IDLE_DEAD_PART 20u	/* idle: reclaim when one in so many live blocks may be dead */
#define PUNCHES_INLINE 8u	/* without a thread: ranges a sync gives back */


struct mls_cleaner {
	struct mls_disk *disk;
	pthread_mutex_t lock;
	pthread_cond_t work, round_done;
	pthread_t thread;
	bool has_thread, stop, asked;
	unsigned nr_waiting;
	uint64_t rounds;		/* finished */
	int round_err;			/* 0: the last round gained something */
	atomic_uint_fast64_t low_runs;	/* free runs, and ... */
	atomic_uint_fast64_t low_room;	/* ... runs that users may take, from which on there's work to do */
	uint64_t live_compacted;	/* live blocks right after the last full compaction */
	unsigned nr_poor;		/* rounds in a row that gained less than a segment */
	uint64_t sync_compacted;	/* the last sync it knew of */
	uint64_t buried_compacted;	/* discarded blocks then */
	uint64_t seen_changes;		/* users' writes and discards when last looked at */
	uint64_t changed_ns;		/* when they were seen to differ */
	struct mls_seg_slot *slots;	/* one segment's worth, for the round */
	struct mls_index_rec *current;
	struct mls_write_order *orders;	/* of the current ones */
	uint8_t *blocks;
};

/* ---- One segment ---- */

struct victim {
	struct mls_seg_info info;
	uint32_t nr_current;
};

static uint64_t victim_loc(struct mls_disk *disk, const struct mls_seg_info *info, uint32_t slot)
{
	return mls_loc_make(mls_chunk_alloc_hba(disk->alloc, info->run) + slot, info->birth);
}

/* cleaner->current := the records that are newest and point into the victim, in slot order. */
static int find_by_summary(struct mls_cleaner *cleaner, struct victim *victim)
{
	struct mls_disk *disk = cleaner->disk;
	uint32_t nr_slots = 0;
	struct mls_seg_pin pin;
	int err;

	victim->nr_current = 0;
	if (mls_segment_table_pin(disk->table, victim_loc(disk, &victim->info, 0), &pin))
		return 0;		/* freed meanwhile: nothing in it is current */
	err = mls_seg_read_summary(disk->writer, victim->info.run, victim->info.birth, pin.key->salt,
				   cleaner->slots, &nr_slots);
	mls_segment_table_unpin(&pin);
	for (uint32_t i = 0; i < nr_slots && !err; i++) {
		struct mls_index_rec *rec = &cleaner->current[victim->nr_current];

		if (cleaner->slots[i].lba >= disk->nr_blocks)
			continue;	/* a slot that was taken but never sealed well */
		err = mls_lsm_get(disk->lsm, cleaner->slots[i].lba, 1, rec);
		if (!err && rec->hba == victim_loc(disk, &victim->info, i))
			cleaner->orders[victim->nr_current++] = cleaner->slots[i].order;
	}
	return err;
}

/* Into slot order, each slot at most once. */
static void note_current(struct mls_cleaner *cleaner, struct victim *victim, const struct mls_index_rec *rec)
{
	uint32_t at = victim->nr_current;

	MLS_INVARIANT(at < mls_segment_slots(cleaner->disk->sb.geo.run_blocks));
	while (at > 0 && cleaner->current[at - 1].hba > rec->hba) {
		cleaner->current[at] = cleaner->current[at - 1];
		at--;
	}
	cleaner->current[at] = *rec;
	victim->nr_current++;
}

static int find_by_walk(struct mls_cleaner *cleaner, struct victim *victim)
{
	struct mls_disk *disk = cleaner->disk;
	struct mls_index_rec recs[MLS_CHUNK_IO_BLOCKS];
	uint64_t lba = 0, first = victim_loc(disk, &victim->info, 0);
	uint32_t nr_slots = mls_segment_slots(disk->sb.geo.run_blocks);
	int err = 0;

	victim->nr_current = 0;
	while (lba < disk->nr_blocks) {
		uint32_t nr;

		err = mls_lsm_next_mapped(disk->lsm, lba, disk->nr_blocks, &lba);
		if (err)
			break;
		nr = (uint32_t)mls_min_u64(disk->nr_blocks - lba, MLS_CHUNK_IO_BLOCKS);
		err = mls_lsm_get(disk->lsm, lba, nr, recs);
		if (err)
			break;
		for (uint32_t i = 0; i < nr; i++)
			if (recs[i].hba >= first && recs[i].hba < first + nr_slots)
				note_current(cleaner, victim, &recs[i]);
		lba += nr;
	}
	for (uint32_t i = 0; i < victim->nr_current; i++)
		cleaner->orders[i] = mls_seg_order_of_past(disk->writer);
	return err == MLS_ENOENT ? 0 : err;
}

/* The blocks of cleaner->current into cleaner->blocks, block i for record i; large transfers. */
static int read_current(struct mls_cleaner *cleaner, const struct victim *victim)
{
	struct mls_io ios[MLS_CHUNK_IO_BLOCKS];
	unsigned nr_ios = 0;
	int err = 0;

	for (uint32_t i = 0; i < victim->nr_current && !err; i++) {
		uint64_t hba = mls_loc_hba(cleaner->current[i].hba);
		struct mls_io *last = nr_ios ? &ios[nr_ios - 1] : NULL;

		if (last && last->hba + last->nr_blocks == hba) {
			last->nr_blocks++;
			continue;
		}
		if (nr_ios == MLS_CHUNK_IO_BLOCKS) {
			err = mls_block_dev_readv(cleaner->disk->dev, ios, nr_ios);
			nr_ios = 0;
		}
		ios[nr_ios++] = (struct mls_io){ hba, 1, 0, mls_block_at(cleaner->blocks, i) };
	}
	if (!err && nr_ios)
		err = mls_block_dev_readv(cleaner->disk->dev, ios, nr_ios);
	return err;
}

static int move_block(struct mls_disk *disk, const struct mls_index_rec *old, const struct mls_write_order *order,
		      const uint8_t *plain)
{
	struct mls_index_rec rec;
	struct mls_seg_buf *buf;
	uint32_t slot, got;
	bool moved;
	int err;

	mls_backing_renew(&disk->backing);
	err = mls_seg_take(disk->writer, MLS_STREAM_CLEAN, 1, atomic_load(&disk->epoch_bound), &buf, &slot, &got);
	if (err)
		return err;
	err = mls_seg_seal(disk->writer, buf, slot, old->lba, plain, order, &rec);
	if (!err)
		err = mls_lsm_move(disk->lsm, &rec, old->hba, &moved);
	mls_seg_indexed(disk->writer, buf, 1);
	if (!err)
		mls_count(&disk->count.moved_blocks, moved);
	return err;
}

/* Open and move each block. One that doesn't open stays where it is: its reader gets the error. */
static int move_current(struct mls_cleaner *cleaner, const struct victim *victim, bool *damaged)
{
	struct mls_disk *disk = cleaner->disk;
	int err = 0;

	*damaged = false;
	for (uint32_t i = 0; i < victim->nr_current && !err; i++) {
		const struct mls_index_rec *rec = &cleaner->current[i];
		uint8_t *block = mls_block_at(cleaner->blocks, i);
		struct mls_seg_pin pin;

		if (mls_segment_table_pin(disk->table, rec->hba, &pin))
			return MLS_EAUTH;
		err = mls_data_open(pin.key, pin.birth, pin.slot, rec->lba, block, block, rec->tag);
		mls_segment_table_unpin(&pin);
		if (err == MLS_EAUTH) {
			*damaged = true;
			err = 0;
			mls_error("cleaner: LBA %llu at HBA %llu isn't what was written there; left in place",
				  (unsigned long long)rec->lba, (unsigned long long)mls_loc_hba(rec->hba));
			continue;
		}
		if (!err)
			err = move_block(disk, rec, &cleaner->orders[i], block);
	}
	return err;
}

static int clean_segment(struct mls_cleaner *cleaner, struct victim *victim)
{
	struct mls_disk *disk = cleaner->disk;
	bool damaged;
	int err = find_by_summary(cleaner, victim);

	if (err == MLS_ENOENT)
		err = find_by_walk(cleaner, victim);
	if (!err)
		err = read_current(cleaner, victim);
	if (!err)
		err = move_current(cleaner, victim, &damaged);
	if (err)
		return err;
	if (damaged) {
		mls_segment_table_spare(disk->table, victim->info.run, victim->info.birth);
		return 0;
	}
	mls_segment_table_cleaned(disk->table, victim->info.run, victim->info.birth,
				  atomic_load(&disk->epoch_bound));
	mls_count(&disk->count.cleaned_segments, 1);
	return 0;
}

/* ---- A round ---- */

static bool enough_free(struct mls_cleaner *cleaner)
{
	return mls_chunk_alloc_room(cleaner->disk->alloc) > cleaner->low_room;
}

/* The best few victims; *gain: blocks that they seem to give, by their counts. */
static size_t pick_victims(struct mls_cleaner *cleaner, struct mls_seg_info *infos, uint64_t *gain)
{
	uint32_t nr_slots = mls_segment_slots(cleaner->disk->sb.geo.run_blocks);
	size_t nr = mls_segment_table_victims(cleaner->disk->table, nr_slots - 1, infos, VICTIMS_MAX);

	*gain = 0;
	for (size_t i = 0; i < nr; i++)
		*gain += nr_slots - infos[i].live;
	return nr;
}

/* Clean them; *gain: blocks that do become free; *starved: there was no room for some moves. */
static int clean_batch(struct mls_cleaner *cleaner, const struct mls_seg_info *infos, size_t nr, uint64_t *gain,
		       bool *starved)
{
	uint32_t nr_slots = mls_segment_slots(cleaner->disk->sb.geo.run_blocks);
	int err = 0;

	*gain = 0;
	*starved = false;
	for (size_t i = 0; i < nr && !err; i++) {
		struct victim victim = { .info = infos[i] };

		err = clean_segment(cleaner, &victim);
		if (!err)
			*gain += nr_slots - victim.nr_current;
		if (err == MLS_ENOSPC) {
			*starved = true;	/* the next one may need no room */
			err = 0;
		}
	}
	return err;
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
static bool must_sync(struct mls_cleaner *cleaner)
{
	struct mls_segment_stat stat;

	mls_segment_table_stat(cleaner->disk->table, &stat);
	return stat.nr_cleaned_waiting > 0 &&
	       mls_chunk_alloc_room(cleaner->disk->alloc) <= 1;
}

static uint64_t live_blocks(struct mls_cleaner *cleaner)
{
	struct mls_segment_stat stat;

	mls_segment_table_stat(cleaner->disk->table, &stat);
	return stat.live_blocks;
}

/*
 * Old records that compaction hasn't met yet make segments look fuller than they are. Right after
 * a full compaction the counts are exact; what they have grown by since then is what another one
 * may find. It rewrites the index, so it must be worth it; but before a writer is told ENOSPC, any
 * sync since then is reason enough (discards don't show in the counts).
 */
static bool compaction_worth_it(struct mls_cleaner *cleaner, bool desperate)
{
	uint64_t live = live_blocks(cleaner), floor = cleaner->live_compacted;

	if (desperate && atomic_load(&cleaner->disk->synced_id) != cleaner->sync_compacted)
		return true;
	return live >= floor + mls_max_u64(cleaner->disk->nr_blocks / 32, 1);
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
	size_t nr = pick_victims(cleaner, infos, &gain);
	bool poor = gain < nr_slots, progress = false, starved = false;
	int err = 0;

	if (compaction_worth_it(cleaner, poor) && gain < nr * nr_slots / 4 + nr_slots) {
		err = compact(cleaner, &progress);
		nr = pick_victims(cleaner, infos, &gain);
	}
	/* What is dead among unsynced blocks can be told only once they are synced. */
	if (!err && gain < nr_slots && !disk->opts.strict_sync && mls_lsm_dirty(disk->lsm)) {
		err = early_sync(disk);
		if (!err)
			err = compact(cleaner, &progress);
		nr = pick_victims(cleaner, infos, &gain);
	}
	if (!err && gain >= nr_slots)
		err = clean_batch(cleaner, infos, nr, &gain, &starved);
	else
		gain = 0;
	/* The index has eaten the room for moves: many small tables, each in a run of its own. */
	if (!err && gain == 0 && nr > 0 && starved) {
		err = compact(cleaner, &progress);
		if (!err)
			err = clean_batch(cleaner, infos, nr, &gain, &starved);
	}
	if (!err && must_sync(cleaner))
		err = early_sync(disk);
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

/* Has a user changed something lately? */
static bool is_busy(struct mls_cleaner *cleaner)
{
	uint64_t changes = atomic_load(&cleaner->disk->count.writes) + atomic_load(&cleaner->disk->count.discards);
	uint64_t now = mls_now_ns();

	if (changes != cleaner->seen_changes)
		cleaner->changed_ns = now;
	cleaner->seen_changes = changes;
	return now - cleaner->changed_ns < IDLE_NS;
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

/* Close up segments with many dead blocks, a batch at a time. */
static int close_up(struct mls_cleaner *cleaner, const struct mls_segment_stat *stat, bool *worked)
{
	struct mls_disk *disk = cleaner->disk;
	uint32_t nr_slots = mls_segment_slots(disk->sb.geo.run_blocks);
	uint64_t room = stat->nr_segments * nr_slots, gain;
	struct mls_seg_info infos[VICTIMS_MAX];
	bool starved;
	size_t nr;

	if (room <= stat->live_blocks + stat->live_blocks / IDLE_DEAD_PART + 4 * nr_slots)
		return 0;
	nr = mls_segment_table_victims(disk->table, nr_slots / 4 * 3, infos, VICTIMS_MAX);
	if (nr == 0)
		return 0;
	*worked = true;
	return clean_batch(cleaner, infos, nr, &gain, &starved);
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
		err = close_up(cleaner, &stat, worked);
	}
	if (err)
		*worked = false;
	return err;
}

/* Returns how long there is nothing to do, in ns. */
static uint64_t housekeeping(struct mls_cleaner *cleaner)
{
	struct mls_disk *disk = cleaner->disk;
	bool busy, worked = false;
	uint64_t rest;

	if (!mls_punch_wanted(disk) || mls_disk_stopped(disk))
		return TICK_NS;
	busy = is_busy(cleaner);
	if (!busy && reclaim(cleaner, &worked))
		mls_debug("cleaner: couldn't reclaim space now");
	rest = mls_punch_step(disk, cleaner->low_runs, busy);
	return rest ? rest : worked ? TICK_NS / 100 : TICK_NS;
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
	uint64_t rest = TICK_NS;
	struct mls_cleaner *cleaner = arg;

	pthread_mutex_lock(&cleaner->lock);
	while (!cleaner->stop) {
		int err;

		if (!cleaner->asked && cleaner->nr_waiting == 0) {
			wait_for_work(cleaner, rest);
			if (cleaner->asked || cleaner->nr_waiting > 0 || cleaner->stop)
				continue;
			pthread_mutex_unlock(&cleaner->lock);
			rest = housekeeping(cleaner);
			pthread_mutex_lock(&cleaner->lock);
			continue;
		}
		cleaner->asked = false;
		pthread_mutex_unlock(&cleaner->lock);
		err = clean_round(cleaner);
		mls_count(&cleaner->disk->count.cleaner_rounds, 1);
		pthread_mutex_lock(&cleaner->lock);
		cleaner->rounds++;
		cleaner->round_err = err;
		if (!err && !enough_free(cleaner))
			cleaner->asked = true;
		pthread_cond_broadcast(&cleaner->round_done);
	}
	pthread_cond_broadcast(&cleaner->round_done);
	pthread_mutex_unlock(&cleaner->lock);
	return NULL;
}

/* ---- What writers call ---- */

/* The pause grows as the room goes from the low mark down to nothing. */
static void pause_writer(struct mls_cleaner *cleaner, uint64_t room, uint32_t nr_blocks)
{
	uint64_t span = cleaner->low_room, missing = span - mls_min_u64(room, span);
	uint64_t ns = mls_min_u64((uint64_t)nr_blocks * 20000 * missing * missing / (span * span), PACE_MAX_NS);
	struct timespec pause = { .tv_nsec = (long)ns };

	if (ns >= 10000) {
		nanosleep(&pause, NULL);
		mls_count(&cleaner->disk->count.paused_ns, ns);
	}
}

void mls_cleaner_pace(struct mls_cleaner *cleaner, uint32_t nr_blocks)
{
	uint64_t room = mls_chunk_alloc_room(cleaner->disk->alloc);

	if (room > cleaner->low_room || !cleaner->has_thread)
		return;
	pthread_mutex_lock(&cleaner->lock);
	cleaner->asked = true;
	pthread_cond_signal(&cleaner->work);
	pthread_mutex_unlock(&cleaner->lock);
	pause_writer(cleaner, room, nr_blocks);
}

int mls_cleaner_wait(struct mls_cleaner *cleaner)
{
	uint64_t until;
	int err;

	if (!cleaner->has_thread)
		return clean_round(cleaner);
	pthread_mutex_lock(&cleaner->lock);
	cleaner->nr_waiting++;
	pthread_cond_signal(&cleaner->work);
	until = cleaner->rounds + 2;	/* one whole round that began after we came */
	while (cleaner->rounds < until && !cleaner->stop) {
		if (cleaner->rounds + 1 == until && cleaner->round_err == 0 &&
		    mls_chunk_alloc_room(cleaner->disk->alloc) > 0)
			break;
		pthread_cond_wait(&cleaner->round_done, &cleaner->lock);
	}
	cleaner->nr_waiting--;
	err = cleaner->stop ? MLS_ENOSPC : cleaner->round_err;
	if (mls_chunk_alloc_room(cleaner->disk->alloc) > 0)
		err = 0;
	pthread_mutex_unlock(&cleaner->lock);
	return err;
}

void mls_cleaner_synced(struct mls_cleaner *cleaner)
{
	for (unsigned i = 0; i < PUNCHES_INLINE && !cleaner->has_thread; i++)
		if (!mls_punch_step(cleaner->disk, cleaner->low_runs, false))
			break;
}

/* ---- Birth and death ---- */

/*
 * Index: a flush (two tables) and a compaction of level 0 into level 1 write up to ten memtables
 * before they free anything. Cleaning: a batch of victims.
 */
static void set_reserves(struct mls_cleaner *cleaner)
{
	struct mls_disk *disk = cleaner->disk;
	uint64_t nr_runs = mls_chunk_alloc_nr_runs(disk->alloc), run_bytes = (uint64_t)disk->sb.geo.run_blocks * MLS_BLOCK_BYTES;
	uint64_t index = mls_div_round_up((uint64_t)disk->opts.memtable_records * 32 * 10, run_bytes) + 4;
	uint64_t clean = 4 + nr_runs / 128;

	index = mls_min_u64(index, nr_runs / 8 + 1);
	clean = mls_min_u64(clean, nr_runs / 16 + 1);
	cleaner->low_room = mls_max_u64(4, nr_runs / 32);
	cleaner->low_runs = index + clean + cleaner->low_room;
	/* Moves may use half of the index's part: when the index has grown into theirs, they come first,
	 * as they free. */
	mls_chunk_alloc_set_reserve(disk->alloc, index + clean, index / 2);
}

void mls_cleaner_resized(struct mls_cleaner *cleaner)
{
	set_reserves(cleaner);
}

int mls_cleaner_new(struct mls_cleaner **out, struct mls_disk *disk)
{
	uint32_t nr_slots = mls_segment_slots(disk->sb.geo.run_blocks);
	struct mls_cleaner *cleaner = calloc(1, sizeof *cleaner);
	pthread_condattr_t clock;

	if (!cleaner)
		return MLS_ENOMEM;
	cleaner->disk = disk;
	pthread_mutex_init(&cleaner->lock, NULL);
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_cond_init(&cleaner->work, &clock);
	pthread_condattr_destroy(&clock);
	pthread_cond_init(&cleaner->round_done, NULL);
	cleaner->slots = calloc(nr_slots, sizeof *cleaner->slots);
	cleaner->current = calloc(nr_slots + 1, sizeof *cleaner->current);
	cleaner->orders = calloc(nr_slots + 1, sizeof *cleaner->orders);
	cleaner->blocks = mls_blocks_alloc(nr_slots);
	if (!cleaner->slots || !cleaner->current || !cleaner->orders || !cleaner->blocks) {
		mls_cleaner_free(cleaner);
		return MLS_ENOMEM;
	}
	set_reserves(cleaner);
	if (!disk->opts.inline_work) {
		cleaner->has_thread = pthread_create(&cleaner->thread, NULL, cleaner_main, cleaner) == 0;
		if (!cleaner->has_thread) {
			mls_cleaner_free(cleaner);
			return MLS_ENOMEM;
		}
	}
	*out = cleaner;
	return 0;
}

void mls_cleaner_free(struct mls_cleaner *cleaner)
{
	if (!cleaner)
		return;
	if (cleaner->has_thread) {
		pthread_mutex_lock(&cleaner->lock);
		cleaner->stop = true;
		pthread_cond_signal(&cleaner->work);
		pthread_mutex_unlock(&cleaner->lock);
		pthread_join(cleaner->thread, NULL);
	}
	if (cleaner->blocks)
		mls_wipe(cleaner->blocks, (size_t)mls_segment_slots(cleaner->disk->sb.geo.run_blocks) * MLS_BLOCK_BYTES);
	mls_blocks_free(cleaner->blocks);
	free(cleaner->slots);
	free(cleaner->current);
	free(cleaner->orders);
	pthread_cond_destroy(&cleaner->round_done);
	pthread_cond_destroy(&cleaner->work);
	pthread_mutex_destroy(&cleaner->lock);
	free(cleaner);
}
