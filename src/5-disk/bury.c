/* SPDX-License-Identifier: MPL-2.0 */
/*
 * bury.c - discards of large ranges, which return at once; see bury.h.
 *
 * A block's way: mapped --noted--> reads as zeros --tombstone put--> out of the table, unmapped. It leaves the
 * table after its tombstone is in the index, and readers look into the table first: so at no moment
 * does the old content shine through.
 *
 * A write must not be buried: it first takes its blocks out of the table (buried), under the work lock,
 * which the thread holds from looking a block up to putting its tombstone. The cleaner's moves need no
 * lock: a move changes the place of the newest version, and only if there is one.
 *
 * A sync makes the state of one moment durable, so at its cut nothing may be noted that was discarded before: what
 * was written after the discard is in the group, and a crash would show it beside the old data. So whoever syncs,
 * be it the cleaner, buries everything before the cut, and until then nothing new is noted (cutting).
 *
 * The cleaner may wait for a sync, and a sync for the work lock: nobody waits for space with that lock held. A sync
 * itself waits for nobody's space, since he may be waiting for it; so what is noted has its space held back before
 * (hold), and what there is no space for is buried before the discard returns.
 *
 * Invariant: the ranges are not empty and don't overlap.
 */
#include "5-disk/bury.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "5-disk/disk.h"
#include "base/checked.h"
#include "base/err.h"

#define RANGES_MAX 64u
#define LARGE_MIN 16u
#define LARGE_MAX 16384u	/* 64 MiB: some milliseconds */
#define RETRY_NS 100000000
#define MISSES_MAX 16u		/* tries that found no space, in a row */
#define BATCH_CHUNKS 64u	/* buried at once of what can't be noted */
#define RECS_PER_BLOCK 124u	/* of a table, with all that belongs to it */

struct range {
	uint64_t lba, end;
};

/* Of one who waits for space. */
struct patience {
	unsigned misses;
	uint64_t since;			/* see mls_cleaner_wait */
};

struct mls_burier {
	struct mls_disk *disk;
	pthread_t thread;
	bool has_thread;
	pthread_mutex_t work;
	pthread_mutex_t table;		/* of all below */
	pthread_cond_t noted;
	struct range ranges[RANGES_MAX + 1];	/* one more: while one is split */
	unsigned nr;
	bool stop, cutting;
	pthread_cond_t cut;
	atomic_uint nr_hint;		/* = nr between two changes, to be looked at without the lock */
};

/* ---- The table. Its lock is held. ---- */

static void remove_at(struct mls_burier *burier, unsigned i)
{
	burier->ranges[i] = burier->ranges[--burier->nr];
}

static void append(struct mls_burier *burier, uint64_t lba, uint64_t end)
{
	MLS_INVARIANT(lba < end && burier->nr <= RANGES_MAX);
	burier->ranges[burier->nr++] = (struct range){ lba, end };
}

/* The end of a change. In the midst of one a range may be missing that is about to be put back, which nobody may see. */
static void changed(struct mls_burier *burier)
{
	atomic_store(&burier->nr_hint, burier->nr);
}

/* false: there are too many. */
static bool note(struct mls_burier *burier, uint64_t lba, uint64_t end)
{
	if (burier->nr >= RANGES_MAX)
		return false;
	for (unsigned i = 0; i < burier->nr;) {
		struct range *range = &burier->ranges[i];

		if (range->lba > end || range->end < lba) {
			i++;
			continue;
		}
		lba = mls_min_u64(lba, range->lba);
		end = mls_max_u64(end, range->end);
		remove_at(burier, i);
		i = 0;
	}
	append(burier, lba, end);
	changed(burier);
	return true;
}

/* [lba, end) isn't in the table any more. false: no room for what is left on both sides. */
static bool take_out(struct mls_burier *burier, uint64_t lba, uint64_t end)
{
	for (unsigned i = 0; i < burier->nr;) {
		struct range range = burier->ranges[i];

		if (range.lba >= end || range.end <= lba) {
			i++;
			continue;
		}
		if (range.lba < lba && range.end > end && burier->nr >= RANGES_MAX)
			return false;	/* then it is the only one there, and nothing has changed */
		remove_at(burier, i);
		if (range.lba < lba)
			append(burier, range.lba, lba);
		if (range.end > end)
			append(burier, end, range.end);
		i = 0;
	}
	changed(burier);
	return true;
}

static bool first_range(struct mls_burier *burier, struct range *range)
{
	bool is_any;

	pthread_mutex_lock(&burier->table);
	is_any = burier->nr > 0;
	if (is_any)
		*range = burier->ranges[0];
	pthread_mutex_unlock(&burier->table);
	return is_any;
}

uint64_t mls_buried_until(struct mls_burier *burier, uint64_t lba)
{
	uint64_t until = lba;

	if (!burier || atomic_load(&burier->nr_hint) == 0)
		return lba;
	pthread_mutex_lock(&burier->table);
	for (unsigned i = 0; i < burier->nr; i++)
		if (burier->ranges[i].lba <= lba && lba < burier->ranges[i].end)
			until = burier->ranges[i].end;
	pthread_mutex_unlock(&burier->table);
	return until;
}

uint64_t mls_buried_from(struct mls_burier *burier, uint64_t lba, uint64_t end)
{
	uint64_t first = end;

	if (!burier || atomic_load(&burier->nr_hint) == 0)
		return end;
	pthread_mutex_lock(&burier->table);
	for (unsigned i = 0; i < burier->nr; i++)
		if (burier->ranges[i].end > lba && burier->ranges[i].lba < end)
			first = mls_min_u64(first, mls_max_u64(lba, burier->ranges[i].lba));
	pthread_mutex_unlock(&burier->table);
	return first;
}

static uint64_t pending_locked(const struct mls_burier *burier)
{
	uint64_t nr = 0;

	for (unsigned i = 0; i < burier->nr; i++)
		nr += burier->ranges[i].end - burier->ranges[i].lba;
	return nr;
}

uint64_t mls_bury_pending(struct mls_burier *burier)
{
	uint64_t nr;

	if (!burier)
		return 0;
	pthread_mutex_lock(&burier->table);
	nr = pending_locked(burier);
	pthread_mutex_unlock(&burier->table);
	return nr;
}

/* ---- Space for what is noted ---- */

/* What the index takes at most for tombstones of nr blocks: each memtable becomes a table of its own. */
static uint64_t runs_for(const struct mls_disk *disk, uint64_t nr)
{
	uint64_t memtable = disk->opts.memtable_records, run_recs = disk->sb.geo.run_blocks * RECS_PER_BLOCK;

	return mls_div_round_up(nr, memtable) * (1 + mls_div_round_up(memtable, run_recs));
}

/* With the table's lock: hold as much back as all that is noted, and nr blocks more, may need. false: there isn't
 * so much; then it stays as it is. */
static bool hold_locked(struct mls_burier *burier, uint64_t nr)
{
	struct mls_segment_stat stat;

	nr += pending_locked(burier);
	mls_segment_table_stat(burier->disk->table, &stat);
	return mls_chunk_alloc_hold(burier->disk->alloc, runs_for(burier->disk, mls_min_u64(nr, stat.live_blocks)));
}

/* Less is noted now. */
static void taken_out_locked(struct mls_burier *burier)
{
	(void)hold_locked(burier, 0);	/* while live blocks become more, it may be refused: then it stays */
}

/* ---- Tombstones ---- */

/* For the mapped ones of [lba, end), chunk by chunk; *next: how far it came. Stops after max chunks. */
static int put_tombstones(struct mls_disk *disk, uint64_t lba, uint64_t end, unsigned max, uint64_t *next)
{
	int err = 0;

	while (lba < end && !err && max-- > 0) {
		uint32_t nr = (uint32_t)mls_min_u64(end - lba, MLS_CHUNK_IO_BLOCKS), mapped;

		err = mls_disk_bury_chunk(disk, lba, nr, &mapped);
		if (err)
			break;
		lba += nr;
		if (mapped == 0 && lba < end)
			err = mls_lsm_next_mapped(disk->lsm, lba, end, &lba);
		if (err == MLS_ENOENT) {
			lba = end;
			err = 0;
		}
	}
	*next = lba;
	return err;
}

/* Without the work lock. If the index had no space for a tombstone, wait for some; 0: go on. */
static int wait_for_space(struct mls_disk *disk, int err, bool progress, struct patience *patience)
{
	if (err != MLS_ENOSPC)
		return err;
	if (progress)
		*patience = (struct patience){ 0 };
	if (patience->misses >= MISSES_MAX)
		return err;
	if (mls_disk_wait_for_space(disk, &patience->since))
		patience->misses = MISSES_MAX;	/* in any case once more */
	else
		patience->misses++;
	return 0;
}

/* One chunk of a noted range; *done gets how many blocks less are noted. */
static int bury_some(struct mls_burier *burier, const struct range *range, uint64_t *done)
{
	uint64_t next = range->lba;
	struct range now;
	int err = 0;

	pthread_mutex_lock(&burier->work);
	/* Is it still as we saw it? (A longer one may have swallowed it.) */
	if (first_range(burier, &now) && now.lba == range->lba && now.end == range->end) {
		err = put_tombstones(burier->disk, range->lba, range->end, 1, &next);
		pthread_mutex_lock(&burier->table);
		if (next > range->lba) {
			(void)take_out(burier, range->lba, next);	/* it begins there: nothing is split */
			taken_out_locked(burier);
		}
		pthread_mutex_unlock(&burier->table);
	}
	pthread_mutex_unlock(&burier->work);
	*done = next - range->lba;
	return err;
}

/* As many blocks as are noted now, so that it ends though more are noted meanwhile. */
static int bury_all(struct mls_burier *burier, bool may_wait)
{
	uint64_t left = mls_bury_pending(burier), done;
	struct patience patience = { 0 };
	struct range range;
	int err = 0;

	while (!err && left > 0 && first_range(burier, &range)) {
		err = bury_some(burier, &range, &done);
		if (may_wait)
			err = wait_for_space(burier->disk, err, done > 0, &patience);
		left -= mls_min_u64(left, done);
	}
	return err;
}

int mls_bury_all(struct mls_burier *burier)
{
	return burier ? bury_all(burier, true) : 0;
}

int mls_bury_before_cut(struct mls_burier *burier)
{
	int err;

	if (!burier)
		return 0;
	pthread_mutex_lock(&burier->table);
	MLS_INVARIANT(!burier->cutting);
	burier->cutting = true;
	pthread_mutex_unlock(&burier->table);
	err = bury_all(burier, false);
	MLS_INVARIANT(err || mls_bury_pending(burier) == 0);
	if (err)
		mls_bury_cut_made(burier);
	return err;
}

void mls_bury_cut_made(struct mls_burier *burier)
{
	if (!burier)
		return;
	pthread_mutex_lock(&burier->table);
	burier->cutting = false;
	pthread_cond_broadcast(&burier->cut);
	pthread_mutex_unlock(&burier->table);
}

static void *burier_main(void *arg)
{
	struct mls_burier *burier = arg;

	pthread_mutex_lock(&burier->table);
	while (!burier->stop) {
		struct range range = burier->ranges[0];
		uint64_t done;
		int err;

		if (burier->nr == 0) {
			pthread_cond_wait(&burier->noted, &burier->table);
			continue;
		}
		pthread_mutex_unlock(&burier->table);
		err = bury_some(burier, &range, &done);
		if (err)	/* no space, or poisoned: whoever syncs is told */
			nanosleep(&(struct timespec){ .tv_nsec = RETRY_NS }, NULL);
		pthread_mutex_lock(&burier->table);
	}
	pthread_mutex_unlock(&burier->table);
	return NULL;
}

/* ---- For others ---- */

/* false: there is no space for so many tombstones, or there are too many ranges. */
static bool try_note(struct mls_burier *burier, uint64_t lba, uint64_t end)
{
	bool noted;

	pthread_mutex_lock(&burier->table);
	while (burier->cutting)
		pthread_cond_wait(&burier->cut, &burier->table);
	noted = hold_locked(burier, end - lba) && note(burier, lba, end);
	taken_out_locked(burier);	/* what was noted twice, or not at all */
	pthread_cond_signal(&burier->noted);
	pthread_mutex_unlock(&burier->table);
	return noted;
}

int mls_bury(struct mls_burier *burier, uint64_t lba, uint64_t end)
{
	struct mls_disk *disk = burier->disk;
	uint64_t large = mls_max_u64(LARGE_MIN, mls_min_u64(LARGE_MAX, disk->nr_blocks / 64));
	struct patience patience = { 0 };
	int err = 0;

	while (lba < end && !err) {
		uint64_t next;

		if (end - lba > large && try_note(burier, lba, end))
			return 0;
		err = put_tombstones(disk, lba, end, BATCH_CHUNKS, &next);
		err = wait_for_space(disk, err, next > lba, &patience);
		lba = next;
	}
	return err;
}

/* The first blocks of [lba, end) that are noted; *room false: no room in the table for what is left on both sides. */
static int bury_first(struct mls_burier *burier, uint64_t lba, uint64_t end, uint64_t *done, bool *room)
{
	uint64_t first, until;
	int err = 0;

	*done = 0;
	pthread_mutex_lock(&burier->work);
	first = mls_buried_from(burier, lba, end);
	until = first < end ? mls_min_u64(mls_buried_until(burier, first), end) : first;
	if (until > first)
		err = put_tombstones(burier->disk, first, until, 1, &until);
	if (!err && until > first) {
		pthread_mutex_lock(&burier->table);
		*done = mls_min_u64(until, end) - first;
		*room = take_out(burier, first, first + *done);
		taken_out_locked(burier);
		pthread_mutex_unlock(&burier->table);
	}
	pthread_mutex_unlock(&burier->work);
	return err;
}

int mls_bury_before_write(struct mls_burier *burier, uint64_t lba, uint64_t nr)
{
	uint64_t end = lba + nr, done;
	struct patience patience = { 0 };
	int err = 0;

	while (!err && mls_buried_from(burier, lba, end) < end) {
		bool room = true;

		err = bury_first(burier, lba, end, &done, &room);
		err = wait_for_space(burier->disk, err, done > 0, &patience);
		if (!err && !room)
			err = mls_bury_all(burier);
	}
	return err;
}

int mls_burier_new(struct mls_burier **out, struct mls_disk *disk)
{
	struct mls_burier *burier = calloc(1, sizeof *burier);

	if (!burier)
		return MLS_ENOMEM;
	burier->disk = disk;
	pthread_mutex_init(&burier->work, NULL);
	pthread_mutex_init(&burier->table, NULL);
	pthread_cond_init(&burier->noted, NULL);
	pthread_cond_init(&burier->cut, NULL);
	if (!disk->opts.inline_work)
		burier->has_thread = pthread_create(&burier->thread, NULL, burier_main, burier) == 0;
	if (!burier->has_thread && !disk->opts.inline_work) {
		mls_burier_free(burier);
		return MLS_ENOMEM;
	}
	*out = burier;
	return 0;
}

void mls_burier_free(struct mls_burier *burier)
{
	if (!burier)
		return;
	if (burier->has_thread) {
		pthread_mutex_lock(&burier->table);
		burier->stop = true;
		pthread_cond_signal(&burier->noted);
		pthread_mutex_unlock(&burier->table);
		pthread_join(burier->thread, NULL);
	}
	pthread_cond_destroy(&burier->cut);
	pthread_cond_destroy(&burier->noted);
	pthread_mutex_destroy(&burier->table);
	pthread_mutex_destroy(&burier->work);
	free(burier);
}
