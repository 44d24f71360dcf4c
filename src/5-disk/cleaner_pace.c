/* SPDX-License-Identifier: MPL-2.0 */
/*
 * cleaner_pace.c - slows writers to the rate at which blocks become free.
 *
 * From the low mark down to no room at all each block gets a later moment at which it may be written: at half way
 * exactly as fast as the cleaner has gained blocks lately, faster above, slower below. So writers and cleaner
 * settle somewhere between, and nobody comes to wait for the last run.
 */
#include "5-disk/cleaner_internal.h"

#include <time.h>

#include "5-disk/disk.h"
#include "base/checked.h"

#define PACE_MAX_NS 20000000u	/* longest pause of one request: 20 ms */
#define PACE_MIN_NS 1000000u	/* debts below aren't worth a pause: to sleep and wake costs as much as a write */
#define PACE_STEEP 16u		/* how much slower than the cleaner, at most */
#define PACE_BLOCK_NS 3000u	/* what a block takes, before it has been measured */
#define PACE_BLOCK_MAX_NS 200000u
#define SUPPLY_WINDOW_NS 50000000u	/* measured over so long at least */

/* Blocks that came free while the cleaner worked, by what is free now and what was written meanwhile. */
void mls_cleaner_measure_supply(struct mls_cleaner *cleaner)
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

void mls_cleaner_pace_init(struct mls_cleaner *cleaner)
{
	atomic_init(&cleaner->block_ns, PACE_BLOCK_NS);
}

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
