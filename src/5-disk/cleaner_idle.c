/* SPDX-License-Identifier: MPL-2.0 */
/*
 * cleaner_idle.c - what the cleaner does when nobody writes, or reads much.
 *
 * In a pause it makes room for the next burst and puts what is scanned in sequence (defrag.h). When the disk is idle it finds
 * out what the discards of before have freed, closes up segments, and gives free runs back to the host (punch.h).
 */
#include "5-disk/cleaner_internal.h"

#include "5-disk/disk.h"
#include "5-disk/punch.h"
#include "base/checked.h"
#include "base/err.h"
#include "base/log.h"

#define PAUSE_NS UINT64_C(250000000)	/* so long without a change and without many reads: a pause, ... */
#define IDLE_NS UINT64_C(2000000000)	/* ... the disk is idle */
#define LOOK_NS UINT64_C(50000000)	/* until a pause: how often to look whether it has begun */
#define IDLE_READS 64u
#define PAUSE_LIVE_PART 3u	/* of a segment may be live for it to be emptied in a pause: half a block moved for each gained */
#define IDLE_VICTIMS 8u		/* at a time: who comes back soon finds the device free */
#define IDLE_REST 2u		/* times as long as it took: the rest after some idle work; others want the host's device, too */
#define IDLE_DEAD_PART 20u	/* idle: reclaim when one in so many live blocks may be dead */

/* How long ago a user changed something, or read much. If we haven't looked for long, somebody has stopped us, or the
 * whole machine, and users come back when we do. */
static uint64_t quiet_ns(struct mls_cleaner *cleaner)
{
	uint64_t changes = atomic_load(&cleaner->disk->count.writes) + atomic_load(&cleaner->disk->count.discards);
	uint64_t reads = atomic_load(&cleaner->disk->count.reads), now = mls_now_ns();

	if (reads - cleaner->seen_reads > IDLE_READS) {
		cleaner->changed_ns = now;
		cleaner->seen_reads = reads;
	}
	if (changes != cleaner->seen_changes || now - cleaner->looked_ns > 2 * TICK_NS)
		cleaner->changed_ns = now;
	cleaner->seen_changes = changes;
	cleaner->looked_ns = now;
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
	int err;

	if (room <= stat->live_blocks + stat->live_blocks / IDLE_DEAD_PART + 4 * nr_slots)
		return 0;
	nr = mls_cleaner_victims(cleaner, max_live, walk, infos, IDLE_VICTIMS);
	if (nr == 0)
		return 0;
	err = mls_movers_clean(cleaner->movers, infos, nr, walk, &moved);
	*worked = !err && moved.gain > 0;	/* else trying again at once would be in vain, too */
	return err;
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
			err = mls_cleaner_early_sync(disk);
		if (!err)
			err = mls_cleaner_compact(cleaner, &progress);
		*worked = true;
	} else if (stat.nr_cleaned_waiting > 0) {
		err = mls_cleaner_early_sync(disk);
		*worked = true;
	} else {
		err = close_up(cleaner, &stat, mls_segment_slots(disk->sb.geo.run_blocks) / 4 * 3, true, worked);
	}
	if (err)
		*worked = false;
	return err;
}

/*
 * In a pause: room for the next burst, half of all that isn't live, by segments that are cheap to empty. At full speed: who
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
	mls_cleaner_learn_hidden(cleaner);
	mls_segment_table_stat(disk->table, &stat);
	live_runs = mls_div_round_up(mls_cleaner_live_blocks(cleaner), nr_slots);
	spare = room + stat.nr_segments - mls_min_u64(live_runs, stat.nr_segments);
	if (room + stat.nr_cleaned_waiting < spare / 2)
		err = close_up(cleaner, &stat, nr_slots / PAUSE_LIVE_PART, false, worked);
	if (!err && !*worked && room < spare / 2 && stat.nr_cleaned_waiting > 0) {
		err = mls_cleaner_early_sync(disk);
		*worked = true;
	}
	return err;
}

/* What is scanned back into sequence, for the next scan. */
static bool gather(struct mls_cleaner *cleaner)
{
	return cleaner->disk->defrag && mls_cleaner_has_plenty(cleaner) && mls_defrag_pause_step(cleaner->disk->defrag);
}

uint64_t mls_cleaner_housekeeping(struct mls_cleaner *cleaner)
{
	struct mls_disk *disk = cleaner->disk;
	uint64_t quiet = quiet_ns(cleaner), began = mls_now_ns(), took, rest;
	bool worked = false;
	int err;

	if (mls_disk_stopped(disk))
		return TICK_NS;
	if (quiet < PAUSE_NS)
		return mls_min_u64(PAUSE_NS - quiet, LOOK_NS);
	err = make_room(cleaner, &worked);
	if (!err && (worked || gather(cleaner)))
		return 0;
	if (!err && quiet >= IDLE_NS && mls_punch_wanted(disk))
		err = reclaim(cleaner, &worked);	/* gently: others want the host's device, too */
	if (err)
		mls_debug("cleaner: idle work couldn't be done now: %s", mls_strerror(err));
	took = mls_now_ns() - began;
	rest = mls_punch_wanted(disk) ? mls_punch_step(disk, cleaner->low_runs, quiet < IDLE_NS) : 0;
	if (worked && !err)
		return mls_max_u64(rest, mls_min_u64(took * IDLE_REST, TICK_NS));
	return rest ? rest : TICK_NS;
}
