/* SPDX-License-Identifier: MPL-2.0 */
/*
 * cleaner_sync.c - the syncs that nobody asked for: only a sync frees what was cleaned, since until then the last synced
 * state may need it.
 *
 * It is made by a thread of its own when enough waits for one, so that cleaning goes on meanwhile; only a cleaner that
 * has no room left waits for it. What waits isn't there for dead blocks to gather in (cleaner_room.c), so syncs are
 * frequent as long as space is short.
 */
#include "5-disk/cleaner_internal.h"

#include "5-disk/disk.h"
#include "base/checked.h"
#include "base/err.h"
#include "base/log.h"

#define SYNC_PART 4u		/* of the runs below the mark wait for one sync */

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

void mls_cleaner_on_emptied(void *arg)
{
	struct mls_cleaner *cleaner = arg;

	if (cleaner->has_syncer && sync_is_due(cleaner, false))
		ask_syncer(cleaner);
}

int mls_cleaner_sync_if_due(struct mls_cleaner *cleaner, bool idle, int err)
{
	bool no_room = err || mls_chunk_alloc_room(cleaner->disk->alloc) <= 1;

	if (!sync_is_due(cleaner, no_room))
		return err;
	if (no_room || idle || !cleaner->has_syncer)
		return mls_cleaner_early_sync(cleaner->disk);
	ask_syncer(cleaner);
	return err;
}

void *mls_cleaner_syncer(void *arg)
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
