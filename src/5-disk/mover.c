/* SPDX-License-Identifier: MPL-2.0 */
/*
 * mover.c - empties segments; see mover.h.
 *
 * A victim's way: summary -> look each LBA up -> read what is current -> open, seal, put -> cleaned. The index
 * is asked in order of LBA: so each of its blocks is looked at once, and near the one before.
 *
 * Which slots are live isn't asked of the counts (they lag behind) but of the index itself. Only those that it has told
 * to be dead needn't be asked for: most, in a good victim.
 *
 * Moves go in order of LBA: what random writes scattered comes closer together, which helps readers.
 *
 * A segment without a summary (open at a crash) is found out by a walk over the whole index: at leisure, or when
 * nothing else gives space.
 */
#include "5-disk/mover.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "5-disk/dead_slots.h"
#include "5-disk/disk.h"
#include "5-disk/location.h"
#include "5-disk/move.h"
#include "base/buf.h"
#include "base/checked.h"
#include "base/err.h"
#include "base/log.h"

#define BATCH 64u		/* blocks that are moved together */
#define GAP_MAX 16u		/* dead blocks that are read rather than skipped: a transfer costs more */

struct by_lba {
	uint64_t lba;
	uint32_t slot;
};

/* What one thread works with: a segment's worth of each. */
struct mover {
	struct mls_movers *all;
	pthread_t thread;
	struct mls_seg_slot *slots;	/* the summary's */
	struct by_lba *by_lba;		/* those of them that name a block, in order of LBA */
	struct mls_index_rec *current;	/* records that are newest and point into the victim, in order of LBA */
	bool *wanted;			/* by slot: current */
	uint64_t *dead;			/* a bit a slot: known to be */
	uint8_t *blocks;		/* by slot, then the summary's */
};

struct mls_movers {
	struct mls_disk *disk;
	void (*emptied)(void *arg);
	void *emptied_arg;
	unsigned nr_helpers;
	pthread_mutex_t lock;		/* of all below */
	pthread_cond_t work, done;
	const struct mls_seg_info *infos;	/* victims; [next, nr) are still to be taken */
	size_t nr, next;
	bool walk;
	unsigned nr_busy;		/* helpers that are at a victim */
	int err;
	struct mls_moved moved;
	bool stop;
	struct mover mover[];		/* the caller's, then the helpers' */
};

struct victim {
	struct mls_seg_info info;
	struct mls_seg_pin pin;		/* of its first slot */
	uint64_t view;			/* of the index, when it was asked what is current */
	uint32_t nr_current;
	bool has_blocks;		/* all of them are in mover->blocks */
	bool damaged;
	bool walk_left;			/* it has no summary, and nobody wants to walk */
	bool left;			/* a sync came between */
};

static uint64_t victim_loc(struct mls_disk *disk, const struct mls_seg_info *info, uint32_t slot)
{
	return mls_loc_make(mls_chunk_alloc_hba(disk->alloc, info->run) + slot, info->birth);
}

/* ---- What is current ---- */

static int compare_lba(const void *a, const void *b)
{
	const struct by_lba *x = a, *y = b;

	return (x->lba > y->lba) - (x->lba < y->lba);
}

/* mover->by_lba := the first nr_slots of the summary but those that are dead, or were taken and never sealed well. */
static uint32_t sort_slots(struct mover *mover, const struct victim *victim, uint32_t nr_slots)
{
	struct mls_disk *disk = mover->all->disk;
	uint32_t nr = 0;

	mls_segment_table_dead_slots(disk->table, victim->info.run, victim->info.birth, mover->dead);
	for (uint32_t slot = 0; slot < nr_slots; slot++)
		if (mover->slots[slot].lba < disk->nr_blocks && !mls_dead_slot_in(mover->dead, slot))
			mover->by_lba[nr++] = (struct by_lba){ mover->slots[slot].lba, slot };
	qsort(mover->by_lba, nr, sizeof *mover->by_lba, compare_lba);
	return nr;
}

/* Where much is live, nearly all is read: then it is one transfer together with the summary. If that fails, what is
 * needed is read by itself: what can't be read may be dead. */
static int read_whole(struct mover *mover, struct victim *victim)
{
	struct mls_disk *disk = mover->all->disk;
	uint32_t run_blocks = disk->sb.geo.run_blocks;
	int err;

	if (victim->info.live < mls_segment_slots(run_blocks) / 2)
		return 0;
	err = mls_block_dev_read(disk->dev, mls_chunk_alloc_hba(disk->alloc, victim->info.run), run_blocks,
				 mover->blocks);
	victim->has_blocks = !err;
	return err == MLS_EIO ? 0 : err;
}

static int get_summary(struct mover *mover, struct victim *victim, uint32_t *nr_slots)
{
	struct mls_disk *disk = mover->all->disk;
	void *blocks = mls_block_at(mover->blocks, mls_segment_slots(disk->sb.geo.run_blocks));

	return victim->has_blocks ?
		       mls_seg_open_summary(disk->writer, victim->info.run, victim->info.birth,
					    victim->pin.key->salt, blocks, mover->slots, nr_slots) :
		       mls_seg_read_summary(disk->writer, victim->info.run, victim->info.birth,
					    victim->pin.key->salt, blocks, mover->slots, nr_slots);
}

/* mover->current := the records of the summary's LBAs that point where the summary says. */
static int find_by_summary(struct mover *mover, struct victim *victim)
{
	struct mls_disk *disk = mover->all->disk;
	struct mls_index_rec recs[BATCH];
	uint32_t nr_slots = 0, nr;
	int err = get_summary(mover, victim, &nr_slots);

	if (err)
		return err;
	victim->nr_current = 0;
	victim->view = mls_lsm_view(disk->lsm);
	nr = sort_slots(mover, victim, nr_slots);
	for (uint32_t at = 0; at < nr && !err; at += BATCH) {
		uint32_t nr_recs = (uint32_t)mls_min_u64(nr - at, BATCH);

		for (uint32_t i = 0; i < nr_recs; i++)
			recs[i].lba = mover->by_lba[at + i].lba;
		err = mls_lsm_get_each(disk->lsm, recs, nr_recs);
		for (uint32_t i = 0; i < nr_recs && !err; i++)
			if (recs[i].hba == victim_loc(disk, &victim->info, mover->by_lba[at + i].slot))
				mover->current[victim->nr_current++] = recs[i];
	}
	return err;
}

static uint32_t slot_of(const struct mover *mover, const struct victim *victim, uint32_t i)
{
	return (uint32_t)(mover->current[i].hba - victim_loc(mover->all->disk, &victim->info, 0));
}

static int find_by_walk(struct mover *mover, struct victim *victim)
{
	struct mls_disk *disk = mover->all->disk;
	struct mls_index_rec recs[MLS_CHUNK_IO_BLOCKS];
	uint64_t lba = 0, first = victim_loc(disk, &victim->info, 0);
	uint32_t nr_slots = mls_segment_slots(disk->sb.geo.run_blocks);
	int err = 0;

	victim->nr_current = 0;
	victim->view = mls_lsm_view(disk->lsm);
	while (lba < disk->nr_blocks) {
		uint32_t nr;

		err = mls_lsm_next_mapped(disk->lsm, lba, disk->nr_blocks, &lba);
		if (err)
			break;
		nr = (uint32_t)mls_min_u64(disk->nr_blocks - lba, MLS_CHUNK_IO_BLOCKS);
		err = mls_lsm_get(disk->lsm, lba, nr, recs);
		if (err)
			break;
		for (uint32_t i = 0; i < nr; i++) {
			if (recs[i].hba < first || recs[i].hba >= first + nr_slots)
				continue;
			MLS_INVARIANT(victim->nr_current < nr_slots);
			mover->current[victim->nr_current++] = recs[i];
			mover->slots[recs[i].hba - first].order = mls_seg_order_of_past(disk->writer);
		}
		lba += nr;
	}
	return err == MLS_ENOENT ? 0 : err;
}

/* The blocks of mover->current into mover->blocks; large transfers. */
static int read_current(struct mover *mover, const struct victim *victim)
{
	struct mls_disk *disk = mover->all->disk;
	uint32_t nr_slots = mls_segment_slots(disk->sb.geo.run_blocks);
	uint64_t first = mls_chunk_alloc_hba(disk->alloc, victim->info.run);
	struct mls_io ios[MLS_CHUNK_IO_BLOCKS];
	unsigned nr_ios = 0;
	int err = 0;

	if (victim->has_blocks)
		return 0;
	memset(mover->wanted, 0, nr_slots * sizeof *mover->wanted);
	for (uint32_t i = 0; i < victim->nr_current; i++)
		mover->wanted[slot_of(mover, victim, i)] = true;
	for (uint32_t slot = 0; slot < nr_slots && !err; slot++) {
		struct mls_io *last = nr_ios ? &ios[nr_ios - 1] : NULL;

		if (!mover->wanted[slot])
			continue;
		if (last && first + slot - last->hba <= last->nr_blocks + GAP_MAX) {
			last->nr_blocks = (uint32_t)(first + slot - last->hba) + 1;
			continue;
		}
		if (nr_ios == MLS_CHUNK_IO_BLOCKS) {
			err = mls_block_dev_readv(disk->dev, ios, nr_ios);
			nr_ios = 0;
		}
		ios[nr_ios++] = (struct mls_io){ first + slot, 1, 0, mls_block_at(mover->blocks, slot) };
	}
	if (!err && nr_ios)
		err = mls_block_dev_readv(disk->dev, ios, nr_ios);
	return err;
}

/* ---- Moving it ---- */

/* Has the victim got blocks by now that a sync may need? Then to empty it would take room now, and give some only
 * after the next sync. */
static bool is_left_alone(struct mover *mover, const struct victim *victim)
{
	return victim->info.unsynced_only &&
	       !mls_segment_table_is_unsynced(mover->all->disk->table, victim->info.run, victim->info.birth);
}

/* Block i doesn't open. Is it of no interest any more, since newer versions of all blocks have ended the victim, and
 * another segment is there now? */
static int is_overwritten(struct mover *mover, uint32_t i, bool *overwritten)
{
	struct mls_index_rec now = { 0 };
	int err = mls_lsm_get(mover->all->disk->lsm, mover->current[i].lba, 1, &now);

	*overwritten = !err && !mls_same_version(&mover->current[i], &now);
	return err;
}

/* Open block i in place. *whole false: there's nothing to move. If it isn't what was written, it stays where it is, and
 * its reader gets the error. */
static int open_block(struct mover *mover, struct victim *victim, uint32_t i, bool *whole)
{
	const struct mls_index_rec *rec = &mover->current[i];
	uint32_t slot = slot_of(mover, victim, i);
	uint8_t *block = mls_block_at(mover->blocks, slot);
	int err = mls_data_open(victim->pin.key, victim->pin.birth, slot, rec->lba, block, block, rec->tag);
	bool overwritten;

	*whole = !err;
	if (err != MLS_EAUTH)
		return err;
	err = is_overwritten(mover, i, &overwritten);
	if (err || overwritten)
		return err;
	victim->damaged = true;
	mls_error("cleaner: LBA %llu at HBA %llu isn't what was written there; left in place",
		  (unsigned long long)rec->lba, (unsigned long long)mls_loc_hba(rec->hba));
	return 0;
}

static int move_current(struct mover *mover, struct victim *victim)
{
	struct mls_disk *disk = mover->all->disk;
	int err = 0;

	for (uint32_t at = 0; at < victim->nr_current && !err;) {
		struct mls_move moves[BATCH];
		uint32_t nr = 0;

		victim->left = is_left_alone(mover, victim);
		if (victim->left)
			return 0;
		for (; at < victim->nr_current && nr < BATCH && !err; at++) {
			const struct mls_index_rec *rec = &mover->current[at];
			uint32_t slot = slot_of(mover, victim, at);
			bool whole;

			err = open_block(mover, victim, at, &whole);
			moves[nr] = (struct mls_move){ rec->lba, rec->hba, mls_block_at(mover->blocks, slot),
						       mover->slots[slot].order };
			nr += whole;
		}
		if (!err)
			err = mls_move_blocks(disk, moves, nr, victim->view, &disk->count.moved_blocks);
	}
	return err;
}

static int empty_pinned(struct mover *mover, struct victim *victim)
{
	struct mls_disk *disk = mover->all->disk;
	int err;

	victim->left = is_left_alone(mover, victim);
	if (victim->left)
		return 0;
	err = read_whole(mover, victim);
	if (!err)
		err = find_by_summary(mover, victim);
	if (err == MLS_ENOENT && !mover->all->walk) {
		mls_segment_table_spare(disk->table, victim->info.run, victim->info.birth, MLS_SPARED_FOR_LATER);
		victim->walk_left = true;
		return 0;
	}
	if (err == MLS_ENOENT)
		err = find_by_walk(mover, victim);
	if (!err)
		err = read_current(mover, victim);
	if (!err)
		err = move_current(mover, victim);
	if (err || victim->left)
		return err;
	if (victim->damaged) {
		mls_segment_table_spare(disk->table, victim->info.run, victim->info.birth, MLS_SPARED_FOR_GOOD);
		return 0;
	}
	victim->left = !mls_segment_table_cleaned(disk->table, &victim->info, atomic_load(&disk->epoch_bound));
	mls_count(&disk->count.cleaned_segments, !victim->left);
	return 0;
}

static int empty_segment(struct mover *mover, const struct mls_seg_info *info, uint64_t *gain, bool *walk_left)
{
	struct mls_disk *disk = mover->all->disk;
	struct victim victim = { .info = *info };
	int err = 0;

	if (mls_segment_table_pin(disk->table, victim_loc(disk, info, 0), &victim.pin) == 0) {
		err = empty_pinned(mover, &victim);
		mls_segment_table_unpin(&victim.pin);
	}				/* else it was freed meanwhile: nothing in it is current */
	*walk_left = victim.walk_left;
	*gain = err || victim.walk_left || victim.left ? 0 : mls_segment_slots(disk->sb.geo.run_blocks) - victim.nr_current;
	return err;
}

/* ---- Several at a time ---- */

/* Victims, one after the other, until there are no more. Lock held; let go for the work. */
static void work_off(struct mover *mover)
{
	struct mls_movers *all = mover->all;

	while (all->next < all->nr && !all->err) {
		const struct mls_seg_info *info = &all->infos[all->next++];
		uint64_t gain;
		bool walk_left;
		int err;

		all->nr_busy++;
		pthread_mutex_unlock(&all->lock);
		err = empty_segment(mover, info, &gain, &walk_left);
		if (!err && !walk_left)
			all->emptied(all->emptied_arg);
		pthread_mutex_lock(&all->lock);
		all->nr_busy--;
		all->moved.gain += gain;
		all->moved.walks_left |= walk_left;
		if (err == MLS_ENOSPC)
			all->moved.starved = true;	/* the next one may need no room */
		else if (err && !all->err)
			all->err = err;
	}
}

static void *helper_main(void *arg)
{
	struct mover *mover = arg;
	struct mls_movers *all = mover->all;

	pthread_mutex_lock(&all->lock);
	while (!all->stop) {
		work_off(mover);
		if (all->nr_busy == 0)
			pthread_cond_broadcast(&all->done);
		pthread_cond_wait(&all->work, &all->lock);
	}
	pthread_mutex_unlock(&all->lock);
	return NULL;
}

int mls_movers_clean(struct mls_movers *all, const struct mls_seg_info *infos, size_t nr, bool walk,
		     struct mls_moved *moved)
{
	int err;

	pthread_mutex_lock(&all->lock);
	all->infos = infos;
	all->nr = nr;
	all->next = 0;
	all->walk = walk;
	all->err = 0;
	all->moved = (struct mls_moved){ 0 };
	pthread_cond_broadcast(&all->work);
	work_off(&all->mover[0]);
	while (all->nr_busy > 0)
		pthread_cond_wait(&all->done, &all->lock);
	all->nr = all->next = 0;	/* infos is the caller's again */
	*moved = all->moved;
	err = all->err;
	pthread_mutex_unlock(&all->lock);
	return err;
}

/* ---- Birth and death ---- */

static int mover_init(struct mover *mover, struct mls_movers *all)
{
	uint32_t nr_slots = mls_segment_slots(all->disk->sb.geo.run_blocks);

	mover->all = all;
	mover->slots = calloc(nr_slots, sizeof *mover->slots);
	mover->by_lba = calloc(nr_slots, sizeof *mover->by_lba);
	mover->current = calloc(nr_slots, sizeof *mover->current);
	mover->wanted = calloc(nr_slots, sizeof *mover->wanted);
	mover->dead = calloc(mls_dead_words(all->disk->sb.geo.run_blocks), sizeof *mover->dead);
	mover->blocks = mls_blocks_alloc(all->disk->sb.geo.run_blocks);
	return mover->slots && mover->by_lba && mover->current && mover->wanted && mover->dead && mover->blocks ? 0 : MLS_ENOMEM;
}

static void mover_release(struct mover *mover)
{
	if (mover->blocks)
		mls_wipe(mover->blocks, (size_t)mover->all->disk->sb.geo.run_blocks * MLS_BLOCK_BYTES);
	mls_blocks_free(mover->blocks);
	free(mover->dead);
	free(mover->wanted);
	free(mover->current);
	free(mover->by_lba);
	free(mover->slots);
}

int mls_movers_new(struct mls_movers **out, struct mls_disk *disk, unsigned nr_helpers,
		   void (*emptied)(void *arg), void *arg)
{
	struct mls_movers *all = calloc(1, sizeof *all + (nr_helpers + 1) * sizeof all->mover[0]);
	int err = 0;

	if (!all)
		return MLS_ENOMEM;
	all->disk = disk;
	all->emptied = emptied;
	all->emptied_arg = arg;
	pthread_mutex_init(&all->lock, NULL);
	pthread_cond_init(&all->work, NULL);
	pthread_cond_init(&all->done, NULL);
	err = mover_init(&all->mover[0], all);
	while (!err && all->nr_helpers < nr_helpers) {
		struct mover *mover = &all->mover[all->nr_helpers + 1];

		err = mover_init(mover, all);
		if (!err && pthread_create(&mover->thread, NULL, helper_main, mover) != 0)
			err = MLS_ENOMEM;
		if (err)
			mover_release(mover);
		else
			all->nr_helpers++;
	}
	if (err) {
		mls_movers_free(all);
		return err;
	}
	*out = all;
	return 0;
}

void mls_movers_free(struct mls_movers *all)
{
	if (!all)
		return;
	pthread_mutex_lock(&all->lock);
	all->stop = true;
	pthread_cond_broadcast(&all->work);
	pthread_mutex_unlock(&all->lock);
	for (unsigned i = 1; i <= all->nr_helpers; i++)
		pthread_join(all->mover[i].thread, NULL);
	for (unsigned i = 0; i <= all->nr_helpers; i++)
		mover_release(&all->mover[i]);
	pthread_cond_destroy(&all->done);
	pthread_cond_destroy(&all->work);
	pthread_mutex_destroy(&all->lock);
	free(all);
}
