/* SPDX-License-Identifier: MPL-2.0 */
/*
 * disk_open.c - recovery, and the end of a disk's use.
 *
 *   superblock -> trusted store (T) -> journal area, newest first -> WAL to its last whole group (M)
 *   -> is M acceptable? -> is the journal area M's? -> (for writing) snapshot in the other area, OPEN
 *   group, T onto it -> threads.
 *
 * Nothing is written before M is accepted. A crash at any point before T stands on the OPEN group
 * leaves the old journal area, the old WAL up to M and the old T, so the next open decides again,
 * from the same bytes.
 *
 * What is accepted: verdict.c.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "5-disk/disk.h"
#include "5-disk/punch.h"
#include "5-disk/verdict.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "base/rand.h"

#define PUNCH_AT_CLOSE_NS 1000000000u

/* What the trusted store says. */
struct witness {
	struct mls_trust trust;
	bool has;		/* false: no store, or an empty one that may be */
};

/* ---- The trusted store ---- */

static int read_witness(struct mls_disk *disk, struct witness *witness)
{
	uint8_t key[MLS_KEY_BYTES];
	int err = 0;

	witness->has = false;
	if (!disk->store)
		return 0;
	if (disk->store->ops->set_key) {
		err = mls_key_derive(disk->keys, "store", NULL, key);
		if (!err)
			err = disk->store->ops->set_key(disk->store, key);
		mls_wipe(key, sizeof key);
	}
	if (!err)
		err = disk->store->ops->read(disk->store, &witness->trust);
	if ((err == MLS_ENOENT || err == MLS_EAUTH) && disk->opts.accept_rollback)
		return 0;
	if (err == MLS_ENOENT) {
		mls_error("the trusted store holds nothing for this disk: it was lost, or another one is meant. If "
			  "you are sure that this disk image is the latest, open it once with --accept-rollback");
		return MLS_ESTALE;
	}
	if (err == MLS_EAUTH) {
		mls_error("the trusted store is damaged. If you are sure that this disk image is the latest, open it once "
			  "with --accept-rollback, which makes the store anew");
		return MLS_ESTALE;
	}
	if (!err && memcmp(witness->trust.uuid, disk->sb.uuid, MLS_UUID_BYTES) != 0) {
		mls_error("the trusted store belongs to another disk; give this disk's own with --trusted-store");
		return MLS_ESTALE;
	}
	witness->has = err == 0;
	return err;
}

/* ---- Is the newest sync acceptable? ---- */

/* Each block of the last group is there and authenticates. false on any doubt. */
static bool last_group_holds(struct mls_disk *disk, const struct mls_replay *replay)
{
	void *block;
	int err;

	if (replay->last.settled || replay->nr_recs == 0)
		return true;
	err = mls_segment_table_announced(disk->table, replay->announce, replay->announce_bytes);
	block = mls_blocks_alloc(1);
	if (!block)
		return false;
	for (size_t i = 0; i < replay->nr_recs && !err; i++)
		if (replay->recs[i].hba != MLS_HBA_NONE)
			err = mls_disk_read_rec(disk, &replay->recs[i], block);
	mls_wipe(block, MLS_BLOCK_BYTES);
	mls_blocks_free(block);
	if (err)
		mls_info("disk: sync %" PRIu64 " was under way at the crash and isn't whole; undone",
			 replay->last.sync_id);
	return err == 0;
}

static int refuse(const struct mls_disk *disk, enum mls_verdict verdict, const struct mls_trust *trust,
		  const struct mls_sync_head *newest)
{
	switch (verdict) {
	case MLS_VERDICT_OLD_SUPERBLOCK:
		mls_error("rollback: expected superblock generation %" PRIu64 ", found %" PRIu64
			  ": an older superblock was put back",
			  newest->generation, disk->sb.generation);
		return MLS_ESTALE;
	case MLS_VERDICT_BROKEN:
		mls_error("integrity violation: expected sync %" PRIu64 ", but the log breaks off behind sync %" PRIu64
			  " and goes on later: BACKING is damaged or was changed. Restore it from a backup and open "
			  "it once with --accept-rollback",
			  trust->sync_id, newest->sync_id);
		return MLS_EAUTH;
	case MLS_VERDICT_ROLLBACK:
		mls_error("rollback: expected sync %" PRIu64 ", found sync %" PRIu64 ": BACKING is an older copy, or its "
			  "last syncs were cut off. If you restored a backup on purpose, open it once with "
			  "--accept-rollback",
			  trust->sync_id, newest->sync_id);
		return MLS_ESTALE;
	default:
		mls_error("store mismatch: the trusted store expects sync %" PRIu64 ", found sync %" PRIu64
			  ", and they aren't of one history: another copy of the disk went on, or the store was "
			  "put back. If this image is the one to keep, open it once with --accept-rollback",
			  trust->sync_id, newest->sync_id);
		return MLS_ESTALE;
	}
}

/* *accept_last: is the last group part of the accepted state? say: tell people of a refusal; once is
 * enough, as the second journal area leads, as a rule, to the same WAL. */
static int judge(struct mls_disk *disk, const struct witness *witness, const struct mls_replay *replay, bool say,
		 bool *accept_last)
{
	const struct mls_trust *trust = witness->has ? &witness->trust : NULL;
	enum mls_verdict verdict = mls_verdict_of(trust, disk->sb.generation, replay, disk->opts.accept_rollback);

	if (verdict == MLS_VERDICT_NEWEST)
		*accept_last = replay->has_last;
	else if (verdict == MLS_VERDICT_IF_WHOLE)
		*accept_last = last_group_holds(disk, replay);
	else if (say)
		return refuse(disk, verdict, trust, mls_replay_newest(replay));
	else
		return verdict == MLS_VERDICT_BROKEN ? MLS_EAUTH : MLS_ESTALE;
	return 0;
}

/* ---- One journal area and the WAL that follows it ---- */

static int load_area(struct mls_disk *disk, unsigned area, struct mls_journal_info *info, struct mls_replay *replay)
{
	int err;

	mls_chunk_alloc_reset(disk->alloc);
	err = mls_journal_load(disk->journal, area, info);
	return err ? err : mls_lsm_replay_begin(disk->lsm, replay);
}

/*
 * The area and the WAL once more, without the last group, whose sync is undone. What is read now was judged the
 * time before, and BACKING may have changed since: the chain must end in the same group, by its tag the same
 * from start to end, or an older state could slip in between.
 */
static int reload_area(struct mls_disk *disk, unsigned area, struct mls_journal_info *info, struct mls_replay *replay)
{
	struct mls_sync_head judged = replay->last;
	int err = load_area(disk, area, info, replay);

	if (err)
		return err;
	if (replay->has_last && replay->last.sync_id == judged.sync_id &&
	    mls_equal_const_time(replay->last.tag, judged.tag, MLS_TAG_BYTES))
		return 0;
	mls_error("integrity violation: BACKING changed while it was opened: sync %" PRIu64 " isn't there any more",
		  judged.sync_id);
	return MLS_EAUTH;
}

/* MLS_ENOENT: the area isn't the accepted sync's; try the other. */
static int try_area(struct mls_disk *disk, unsigned area, const struct witness *witness, bool say,
		    struct mls_sync_head *accepted)
{
	struct mls_journal_info info;
	struct mls_replay replay;
	bool accept_last;
	int err;

	err = load_area(disk, area, &info, &replay);
	if (!err)
		err = judge(disk, witness, &replay, say, &accept_last);
	/* To look at the last group's data its announcements were applied; undone, it must leave no trace. */
	if (!err && replay.has_last && !accept_last)
		err = reload_area(disk, area, &info, &replay);
	if (err)
		return err;
	*accepted = accept_last ? replay.last : replay.before;
	if (!mls_verdict_area_is_of(&info, accepted))
		return MLS_ENOENT;
	if (disk->amend)
		err = mls_journal_apply_loaded(disk->journal, disk->amend);
	if (!err)
		err = mls_lsm_replay_end(disk->lsm, accept_last);
	return err ? err : mls_segment_table_loaded(disk->table);
}

static int recover(struct mls_disk *disk, const struct witness *witness, struct mls_sync_head *accepted)
{
	unsigned areas[MLS_NR_JOURNAL_AREAS], nr;
	int err = mls_journal_candidates(disk->journal, areas, &nr), first = MLS_ENOENT;

	if (err)
		return err;
	for (unsigned i = 0; i < nr; i++) {
		err = try_area(disk, areas[i], witness, i == 0, accepted);
		if (err == 0 || err == MLS_ENOMEM || err == MLS_EIO)
			return err;
		if (first == MLS_ENOENT)
			first = err;
	}
	if (first == MLS_ENOENT || first == MLS_EFORMAT) {
		mls_error("integrity violation: no journal area belongs to the last sync: BACKING is damaged or was "
			  "changed");
		return MLS_EAUTH;
	}
	return first;
}

/* ---- From the accepted state on ---- */

/* What --accept-rollback did, once it is done. */
static void tell_acceptance(const struct mls_disk *disk, const struct witness *witness,
			    const struct mls_sync_head *accepted)
{
	const struct mls_trust *trust = &witness->trust;

	if (!disk->store)
		mls_warn("--accept-rollback had nothing to accept: there is no trusted store");
	else if (!witness->has)
		mls_warn("accepted without a word from the trusted store: sync %" PRIu64 ". The store begins anew with sync "
			 "%" PRIu64 "; every other copy of this disk is refused from now on",
			 accepted->sync_id, disk->trust.sync_id);
	else if (trust->sync_id == accepted->sync_id && memcmp(trust->digest, accepted->tag, MLS_TAG_BYTES) == 0)
		mls_warn("--accept-rollback wasn't needed: BACKING is as the trusted store knows it, at sync %" PRIu64,
			 trust->sync_id);
	else
		mls_warn("accepted against the trusted store: expected sync %" PRIu64 ", found sync %" PRIu64
			 ". The store moves on to sync %" PRIu64 "; every other copy of this disk is refused from now on",
			 trust->sync_id, accepted->sync_id, disk->trust.sync_id);
}

/* A copy may have lost what format had reserved. Without it the disk works until the host is full. */
static void reserve_space(struct mls_disk *disk)
{
	int err = mls_backing_fixed(disk->dev, &disk->sb.geo);

	if (err)
		mls_warn("disk: the host can't reserve space for journal and WAL (%s): a sync may fail",
			 mls_strerror(err));
}

static int start_session(struct mls_disk *disk, const struct witness *witness, const struct mls_sync_head *accepted)
{
	uint8_t session[MLS_SESSION_BYTES];
	uint64_t newest = accepted->sync_id;
	int err = 0;

	disk->session = true;
	memcpy(disk->trust.uuid, disk->sb.uuid, MLS_UUID_BYTES);
	disk->trust.sync_id = accepted->sync_id;
	memcpy(disk->trust.digest, accepted->tag, MLS_TAG_BYTES);
	if (witness->has && witness->trust.sync_id > newest)
		newest = witness->trust.sync_id;	/* accepted rollback: ids are never given twice */
	else if (witness->has && witness->trust.sync_id < newest && !disk->opts.accept_rollback)
		err = disk->store->ops->advance(disk->store, &disk->trust);
	if (!err)
		err = mls_rand_bytes(session, sizeof session);
	reserve_space(disk);
	if (!err)
		err = mls_journal_start(disk->journal, session);
	if (!err)
		err = mls_lsm_start(disk->lsm, session, newest + 1);
	disk->trust.sync_id = newest;
	atomic_store(&disk->epoch_bound, newest + 1);
	mls_seg_writer_begin(disk->writer, newest + 1);
	if (!err)
		err = mls_disk_open_record(disk);
	if (!err && disk->opts.accept_rollback)
		tell_acceptance(disk, witness, accepted);
	if (!err && !disk->opts.inline_work)
		err = mls_backing_start(&disk->backing);
	if (!err)
		err = mls_burier_new(&disk->burier, disk);
	if (!err)
		err = disk->opts.inline_work || disk->opts.no_defrag ? 0 : mls_defrag_new(&disk->defrag, disk);
	if (!err)
		err = mls_cleaner_new(&disk->cleaner, disk);	/* its syncs bury; in pauses it has defrag work */
	if (!err)
		mls_backing_renew(&disk->backing);
	return err;
}

/* With superblock and keys. */
static int open_disk(struct mls_disk *disk)
{
	struct mls_sync_head accepted;
	struct witness witness;
	int err = read_witness(disk, &witness);

	if (!err)
		err = mls_disk_stack_new(disk);
	if (!err)
		err = recover(disk, &witness, &accepted);
	if (!err && !disk->opts.inline_work)
		err = mls_read_ahead_new(&disk->ahead, disk);
	if (err)
		return err;
	if (disk->opts.read_only) {
		disk->trust.sync_id = accepted.sync_id;
		return 0;
	}
	return start_session(disk, &witness, &accepted);
}

static struct mls_disk *disk_new(struct mls_block_dev *dev, struct mls_trusted_store *store,
				 const struct mls_open_opts *opts)
{
	struct mls_disk *disk = calloc(1, sizeof *disk);

	if (!disk)
		return NULL;
	mls_block_meter_init(&disk->meter, dev);
	disk->dev = &disk->meter.base;
	disk->store = store;
	disk->opts = *opts;
	mls_sync_turns_init(&disk->turns);
	for (unsigned i = 0; i < MLS_NR_RMW_STRIPES; i++)
		pthread_mutex_init(&disk->rmw[i], NULL);
	return disk;
}

/* err: of what came before; with it, the disk is freed. */
static int open_or_free(struct mls_disk **out, struct mls_disk *disk, int err)
{
	if (!err)
		err = open_disk(disk);
	disk->amend = NULL;
	if (err) {
		mls_disk_stack_free(disk);
		free(disk);
		return err;
	}
	*out = disk;
	return 0;
}

int mls_disk_open_amended(struct mls_disk **out, struct mls_block_dev *dev, struct mls_trusted_store *store,
			  const struct mls_secret *secret, const struct mls_open_opts *opts,
			  const struct mls_edit_group *amend)
{
	struct mls_disk *disk = disk_new(dev, store, opts);

	if (!disk)
		return MLS_ENOMEM;
	disk->amend = amend;
	return open_or_free(out, disk, mls_superblock_read(disk->dev, secret, &disk->sb, &disk->keys));
}

int mls_disk_open_unlocked(struct mls_disk **out, struct mls_block_dev *dev, struct mls_trusted_store *store,
			   const struct mls_superblock *sb, struct mls_keyring *keys, const struct mls_open_opts *opts)
{
	struct mls_disk *disk = disk_new(dev, store, opts);

	if (!disk) {
		mls_keyring_free(keys);
		return MLS_ENOMEM;
	}
	disk->sb = *sb;
	disk->keys = keys;
	return open_or_free(out, disk, 0);
}

int mls_disk_open(struct mls_disk **disk, struct mls_block_dev *dev, struct mls_trusted_store *store,
		  const struct mls_secret *secret, const struct mls_open_opts *opts)
{
	return mls_disk_open_amended(disk, dev, store, secret, opts, NULL);
}

/* What was done in this session, into the journal. */
static int note_totals(struct mls_disk *disk)
{
	struct mls_tx *tx;
	int err = mls_tx_begin(disk->logs, &tx);

	if (err)
		return err;
	err = mls_segment_table_note_totals(disk->table, mls_tx_group(tx));
	if (!err)
		return mls_tx_commit(tx);
	mls_tx_abort(tx);
	return err;
}

int mls_disk_close(struct mls_disk *disk)
{
	int err = 0, err_bury = disk->opts.read_only ? 0 : mls_bury_all(disk->burier);

	mls_defrag_stop(disk->defrag);
	mls_cleaner_free(disk->cleaner);
	disk->cleaner = NULL;
	mls_backing_stop(&disk->backing);	/* what is punched at the end stays so */
	if (!disk->opts.read_only && !mls_disk_stopped(disk)) {
		err = mls_disk_sync_grouped(disk, false);
		disk->closing = true;
		if (!err)
			err = mls_disk_sync_grouped(disk, false);
		if (!err)
			err = mls_seg_finish(disk->writer);	/* summaries: the cleaner's next round is cheap */
		if (!err)
			mls_punch_rest(disk, PUNCH_AT_CLOSE_NS);
		if (!err)
			err = note_totals(disk);
	} else if (!disk->opts.read_only) {
		err = MLS_EPOISONED;
	}
	mls_disk_stack_free(disk);
	free(disk);
	return err ? err : err_bury;
}

void mls_disk_stat(struct mls_disk *disk, struct mls_disk_stat *stat)
{
	struct mls_segment_stat segments;
	struct mls_lsm_stat lsm;

	memset(stat, 0, sizeof *stat);
	mls_segment_table_stat(disk->table, &segments);
	mls_lsm_stat(disk->lsm, &lsm);
	memcpy(stat->uuid, disk->sb.uuid, sizeof stat->uuid);
	stat->disk_bytes = disk->disk_bytes;
	stat->sync_id = lsm.committed_epoch;
	stat->nr_runs = mls_chunk_alloc_nr_runs(disk->alloc);
	stat->nr_free_runs = mls_chunk_alloc_nr_free(disk->alloc);
	stat->nr_room_runs = mls_chunk_alloc_room(disk->alloc);
	stat->nr_segments = segments.nr_segments;
	stat->nr_chunks = mls_tx_store_nr_chunks(disk->logs);
	stat->run_blocks = disk->sb.geo.run_blocks;
	stat->live_blocks = segments.live_blocks;
	stat->reads = atomic_load(&disk->count.reads);
	stat->writes = atomic_load(&disk->count.writes);
	stat->syncs = atomic_load(&disk->count.syncs);
	stat->early_syncs = atomic_load(&disk->count.early_syncs);
	stat->discards = atomic_load(&disk->count.discards);
	stat->read_bytes = atomic_load(&disk->count.read_bytes);
	stat->written_bytes = atomic_load(&disk->count.written_bytes);
	stat->dev_written_blocks = atomic_load(&disk->meter.written_blocks);
	stat->dev_read_blocks = atomic_load(&disk->meter.read_blocks);
	stat->dev_flushes = atomic_load(&disk->meter.flushes);
	stat->cleaned_segments = atomic_load(&disk->count.cleaned_segments);
	stat->moved_blocks = atomic_load(&disk->count.moved_blocks);
	stat->compactions = lsm.compactions;
	stat->memtable_flushes = lsm.flushes;
	stat->integrity_errors = atomic_load(&disk->count.integrity_errors);
	stat->poisoned = mls_disk_stopped(disk) || mls_lsm_poisoned(disk->lsm);
}
