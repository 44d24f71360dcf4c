/* SPDX-License-Identifier: MPL-2.0 */
/*
 * cleaner_room.c - how much room is kept free, and when there is enough.
 *
 * What is kept free isn't there for dead blocks to gather in, and so makes each victim fuller: near 90 % a hundredth of
 * the pool held back costs a tenth of the speed. So marks are low.
 *
 *   reserve    runs that only the index and the cleaner may take
 *   low_room   what users may take, from which on writers are slowed
 *   start_room at least that; from there on there is work to do
 */
#include "5-disk/cleaner_internal.h"

#include "5-disk/disk.h"
#include "base/checked.h"
#include "base/err.h"

#define SYNC_RUNS_AHEAD 2u	/* strict: room for so many times what is written between two syncs */
#define SYNC_RUNS_FADE 16u
#define EARLY_PART 8u		/* of what is dead: so much is kept free if it is above the low mark */
#define PLENTY_PART 64u		/* of all runs above what cleaning begins at: room for moves that aren't needed */
#define LOW_PART 64u		/* of all runs; from there on writers are slowed */
#define LOW_RUNS_MAX 32u
#define CLEAN_PART 256u		/* of all runs are for moves until the next sync */
#define CLEAN_RUNS_MAX 64u

/* Under the strict policy what waits for a sync counts, too: cleaning more before it would only take room. */
bool mls_cleaner_enough_free(struct mls_cleaner *cleaner)
{
	uint64_t room = mls_chunk_alloc_room(cleaner->disk->alloc);
	struct mls_segment_stat stat;

	if (room > cleaner->start_room || !cleaner->disk->opts.strict_sync)
		return room > cleaner->start_room;
	mls_segment_table_stat(cleaner->disk->table, &stat);
	return room + stat.nr_cleaned_waiting > cleaner->start_room;
}

/* Under the strict policy how much to clean is a matter of the user's syncs alone. */
void mls_cleaner_set_start_room(struct mls_cleaner *cleaner)
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
void mls_cleaner_set_reserves(struct mls_cleaner *cleaner)
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

void mls_cleaner_expect_as_much_again(struct mls_cleaner *cleaner)
{
	struct mls_disk *disk = cleaner->disk;
	uint64_t written = atomic_load(&disk->count.written_bytes) / MLS_BLOCK_BYTES, runs;

	pthread_mutex_lock(&cleaner->lock);
	runs = mls_div_round_up(written - cleaner->synced_written, disk->sb.geo.run_blocks);
	cleaner->synced_written = written;
	cleaner->sync_runs -= mls_div_round_up(cleaner->sync_runs, SYNC_RUNS_FADE);
	cleaner->sync_runs = mls_max_u64(runs, cleaner->sync_runs);
	mls_cleaner_set_reserves(cleaner);
	pthread_mutex_unlock(&cleaner->lock);
}

void mls_cleaner_resized(struct mls_cleaner *cleaner)
{
	mls_cleaner_set_reserves(cleaner);
}

bool mls_cleaner_has_plenty(struct mls_cleaner *cleaner)
{
	struct mls_disk *disk = cleaner->disk;
	uint64_t mark = cleaner->start_room + mls_chunk_alloc_nr_runs(disk->alloc) / PLENTY_PART;

	return !disk->opts.strict_sync && !mls_disk_stopped(disk) &&
	       mls_chunk_alloc_room(disk->alloc) > mls_max_u64(mark, 2 * cleaner->low_room);
}
