/* SPDX-License-Identifier: MPL-2.0 */
/*
 * disk_sync.c - sync: group commit, one flush, then the trusted store.
 *
 * A round takes everything that was acknowledged before it started; sync_turns.c tells who makes it, and for whom.
 * States of a round:
 *
 *   nothing written yet -> data of open segments on its way (may fail without harm: the blocks stay
 *   in memory) -> what was discarded is buried (likewise) -> cut (from here a failure poisons: nobody knows what is on the medium) -> WAL
 *   group -> flush -> trusted store -> committed.
 *
 * Invariant: sync returns 0 only if the trusted store names a group that holds, or follows, every
 * record put before the call.
 */
#include "5-disk/disk.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"

static int poison(struct mls_disk *disk, const char *what, int err)
{
	if (!atomic_exchange(&disk->poisoned, true))
		mls_error("disk: sync %llu failed (%s: %s). What reached the medium is unknown: no more writes "
			  "until the disk is opened again",
			  (unsigned long long)disk->trust.sync_id + 1, what, mls_strerror(err));
	return err;
}

/* The group, and along with it the slots that aren't on the device yet. */
static int write_with_data(struct mls_disk *disk, struct mls_lsm_cut *cut, uint8_t flags, const char **what)
{
	struct mls_seg_out out;
	uint8_t *announce = NULL;
	size_t announce_bytes = 0;
	int err, err_data;

	*what = "writing data";
	err = mls_seg_out_begin(disk->writer, &out);
	if (err)
		return err;
	cut->along = out.ios;
	cut->nr_along = out.nr;
	err = mls_segment_table_announce(disk->table, &announce, &announce_bytes);
	if (!err) {
		*what = "writing the WAL";
		err = mls_lsm_wal_write(disk->lsm, cut, announce, announce_bytes, disk->sb.generation, flags);
	}
	free(announce);
	err_data = mls_seg_out_end(disk->writer, &out);
	if (!err && err_data) {		/* once more: a group without its data would end the session */
		*what = "writing data";
		err = mls_seg_write_out(disk->writer);
	}
	return err;
}

/* From the cut to the trusted store. */
static int commit_cut(struct mls_disk *disk, struct mls_lsm_cut *cut, uint8_t flags, const char **what)
{
	struct mls_trust trust = disk->trust;
	int err = 0;

	if (cut->nr_records > MLS_SYNC_VERIFY_MAX) {
		*what = "writing data";
		err = mls_seg_write_out(disk->writer);
		if (!err) {
			*what = "flush";
			err = mls_block_dev_flush(disk->dev);
		}
		flags |= MLS_WAL_FLAG_SETTLED;
	}
	if (!err)
		err = write_with_data(disk, cut, flags, what);
	if (!err) {
		*what = "flush";
		err = mls_block_dev_flush(disk->dev);
	}
	if (err)
		return err;
	trust.sync_id = cut->sync_id;
	memcpy(trust.digest, cut->digest, sizeof trust.digest);
	*what = "trusted store";
	if (disk->store)
		err = disk->store->ops->advance(disk->store, &trust);
	if (!err)
		disk->trust = trust;
	return err;
}

/* One group with flags; see sync_round for the usual one. */
static int write_group(struct mls_disk *disk, uint8_t flags)
{
	struct mls_lsm_cut cut;
	const char *what = "cut";
	int err = mls_bury_before_cut(disk->burier);

	if (err)
		return err;
	atomic_store(&disk->epoch_bound, disk->trust.sync_id + 2);
	mls_segment_table_cut(disk->table, true);
	err = mls_lsm_cut(disk->lsm, &cut);
	mls_segment_table_cut(disk->table, false);
	mls_bury_cut_made(disk->burier);
	if (err)
		return err == MLS_EPOISONED ? poison(disk, what, err) : err;
	mls_seg_writer_epoch(disk->writer, cut.sync_id + 1);
	err = commit_cut(disk, &cut, flags, &what);
	mls_segment_table_announce_done(disk->table, err == 0);
	if (err) {
		mls_lsm_abandon(disk->lsm, &cut);
		return poison(disk, what, err);
	}
	mls_lsm_commit(disk->lsm, &cut);
	atomic_store(&disk->synced_id, cut.sync_id);
	mls_segment_table_committed(disk->table, cut.sync_id);
	return 0;
}

static int sync_round(struct mls_disk *disk, bool early)
{
	struct mls_segment_stat segments;
	int err;

	if (mls_disk_stopped(disk))
		return MLS_EPOISONED;
	/* Cleaned segments wait for a later group, be it an empty one. The last group of all tells what
	 * became free, so that it is free at the next open. */
	mls_segment_table_stat(disk->table, &segments);
	if (!mls_lsm_dirty(disk->lsm) && mls_bury_pending(disk->burier) == 0 && segments.nr_cleaned_waiting == 0 &&
	    (segments.nr_ends_untold == 0 || !disk->closing))
		return 0;
	if (!mls_seg_out_is_small(disk->writer)) {	/* what can fail without harm goes first */
		err = mls_seg_write_out(disk->writer);
		if (err)
			return err;
	}
	mls_count(&disk->count.sync_rounds, 1);
	err = write_group(disk, 0);
	if (!err && early)
		mls_count(&disk->count.early_syncs, 1);
	return err;
}

int mls_disk_write_group(struct mls_disk *disk)
{
	int err = mls_seg_write_out(disk->writer);

	return err ? err : write_group(disk, 0);
}

int mls_disk_between_syncs(struct mls_disk *disk, int (*fn)(struct mls_disk *disk, void *arg), void *arg)
{
	int err;

	mls_sync_turns_enter(&disk->turns);
	err = fn(disk, arg);
	mls_sync_turns_leave(&disk->turns);
	return err;
}

int mls_disk_open_record(struct mls_disk *disk)
{
	return write_group(disk, MLS_WAL_FLAG_OPEN);
}

int mls_disk_sync_grouped(struct mls_disk *disk, bool early)
{
	uint64_t began;
	unsigned nr;
	int err;

	if (!mls_sync_turns_begin_round(&disk->turns, &nr, &err))
		return err;
	began = mls_now_ns();
	err = sync_round(disk, early);
	mls_sync_turns_end_round(&disk->turns, nr, mls_now_ns() - began, err);
	return err;
}

int mls_disk_sync(struct mls_disk *disk)
{
	uint64_t began = mls_now_ns();
	int err;

	mls_count(&disk->count.syncs, 1);
	if (disk->opts.read_only)
		return 0;
	err = mls_bury_all(disk->burier);
	if (!err && disk->cleaner)
		mls_cleaner_before_sync(disk->cleaner);
	if (!err)
		err = mls_disk_sync_grouped(disk, false);
	mls_latency_note(&disk->sync_latency, began);
	if (disk->cleaner)
		mls_cleaner_synced(disk->cleaner);
	return err;
}
