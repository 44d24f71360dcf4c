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

struct range {
	uint64_t lba, end;
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
	bool stop;
	atomic_uint nr_hint;		/* = nr, to be looked at without the lock */
};

/* ---- The table. Its lock is held. ---- */

static void remove_at(struct mls_burier *burier, unsigned i)
{
	burier->ranges[i] = burier->ranges[--burier->nr];
	atomic_store(&burier->nr_hint, burier->nr);
}

static void append(struct mls_burier *burier, uint64_t lba, uint64_t end)
{
	MLS_INVARIANT(lba < end && burier->nr <= RANGES_MAX);
	burier->ranges[burier->nr++] = (struct range){ lba, end };
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
			return false;
		remove_at(burier, i);
		if (range.lba < lba)
			append(burier, range.lba, lba);
		if (range.end > end)
			append(burier, end, range.end);
		i = 0;
	}
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

uint64_t mls_bury_pending(struct mls_burier *burier)
{
	uint64_t nr = 0;

	if (!burier)
		return 0;
	pthread_mutex_lock(&burier->table);
	for (unsigned i = 0; i < burier->nr; i++)
		nr += burier->ranges[i].end - burier->ranges[i].lba;
	pthread_mutex_unlock(&burier->table);
	return nr;
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

/* One chunk of a noted range. */
static int bury_some(struct mls_burier *burier, const struct range *range)
{
	uint64_t next = range->lba;
	struct range now;
	int err = 0;

	pthread_mutex_lock(&burier->work);
	/* Is it still as we saw it? (A longer one may have swallowed it.) */
	if (first_range(burier, &now) && now.lba == range->lba && now.end == range->end) {
		err = put_tombstones(burier->disk, range->lba, range->end, 1, &next);
		pthread_mutex_lock(&burier->table);
		if (next > range->lba)
			(void)take_out(burier, range->lba, next);	/* it begins there: nothing is split */
		pthread_mutex_unlock(&burier->table);
	}
	pthread_mutex_unlock(&burier->work);
	return err;
}

int mls_bury_all(struct mls_burier *burier)
{
	struct range range;
	int err = 0;

	if (!burier)
		return 0;
	while (!err && first_range(burier, &range))
		err = bury_some(burier, &range);
	return err;
}

static void *burier_main(void *arg)
{
	struct mls_burier *burier = arg;

	pthread_mutex_lock(&burier->table);
	while (!burier->stop) {
		struct range range = burier->ranges[0];
		int err;

		if (burier->nr == 0) {
			pthread_cond_wait(&burier->noted, &burier->table);
			continue;
		}
		pthread_mutex_unlock(&burier->table);
		err = bury_some(burier, &range);
		if (err)	/* no space, or poisoned: whoever syncs is told */
			nanosleep(&(struct timespec){ .tv_nsec = RETRY_NS }, NULL);
		pthread_mutex_lock(&burier->table);
	}
	pthread_mutex_unlock(&burier->table);
	return NULL;
}

/* ---- For others ---- */

int mls_bury(struct mls_burier *burier, uint64_t lba, uint64_t end)
{
	struct mls_disk *disk = burier->disk;
	uint64_t large = mls_max_u64(LARGE_MIN, mls_min_u64(LARGE_MAX, disk->nr_blocks / 64));
	bool noted = false;
	int err;

	if (burier->has_thread && end - lba > large) {
		pthread_mutex_lock(&burier->table);
		noted = note(burier, lba, end);
		pthread_cond_signal(&burier->noted);
		pthread_mutex_unlock(&burier->table);
	}
	if (noted)
		return 0;
	err = mls_bury_before_write(burier, lba, end - lba);	/* what is noted of it */
	return err ? err : put_tombstones(disk, lba, end, UINT32_MAX, &lba);
}

int mls_bury_before_write(struct mls_burier *burier, uint64_t lba, uint64_t nr)
{
	uint64_t end = lba + nr, first, until;
	bool room = true;
	int err = 0;

	while (room && !err && (first = mls_buried_from(burier, lba, end)) < end) {
		pthread_mutex_lock(&burier->work);
		until = mls_min_u64(mls_buried_until(burier, first), end);
		if (until > first)
			err = put_tombstones(burier->disk, first, until, 1, &until);
		if (!err && until > first) {
			pthread_mutex_lock(&burier->table);
			room = take_out(burier, first, mls_min_u64(until, end));
			pthread_mutex_unlock(&burier->table);
		}
		pthread_mutex_unlock(&burier->work);
	}
	return room || err ? err : mls_bury_all(burier);
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
	pthread_cond_destroy(&burier->noted);
	pthread_mutex_destroy(&burier->table);
	pthread_mutex_destroy(&burier->work);
	free(burier);
}
