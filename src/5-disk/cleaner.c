/* SPDX-License-Identifier: MPL-2.0 */
/*
 * cleaner.c - gives the space of dead blocks back; see cleaner.h. Its threads, and who waits for them.
 *
 * Cleaning begins at the low mark, which is small: who cleans late finds more dead blocks. Where much is
 * dead, and so cheap to have, it begins earlier and nobody is slowed for it: writers come in gusts.
 */
#include "5-disk/cleaner_internal.h"

#include <stdlib.h>
#include <time.h>

#include "5-disk/disk.h"
#include "5-disk/punch.h"
#include "base/checked.h"
#include "base/err.h"
#include "base/log.h"

#define ROUNDS_BEFORE_SYNC 8u
#define MOVERS 3u		/* threads that empty victims beside the cleaner's */
#define PUNCHES_INLINE 8u	/* without a thread: ranges a sync gives back */

/* ---- The thread ---- */

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
	struct mls_cleaner *cleaner = arg;
	uint64_t rest = TICK_NS;

	pthread_mutex_lock(&cleaner->lock);
	while (!cleaner->stop) {
		bool is_waited_for = cleaner->nr_waiting > 0;
		int err;

		if (!cleaner->asked && cleaner->nr_waiting == 0) {
			wait_for_work(cleaner, rest);
			if (cleaner->asked || cleaner->nr_waiting > 0 || cleaner->stop)
				continue;
			pthread_mutex_unlock(&cleaner->lock);
			rest = mls_cleaner_housekeeping(cleaner);
			mls_cleaner_set_start_room(cleaner);
			cleaner->supply_began_ns = 0;
			pthread_mutex_lock(&cleaner->lock);
			continue;
		}
		cleaner->asked = false;
		pthread_mutex_unlock(&cleaner->lock);
		err = is_waited_for || !mls_cleaner_enough_free(cleaner) ? mls_cleaner_round(cleaner) : 0;
		mls_cleaner_measure_supply(cleaner);
		mls_cleaner_set_start_room(cleaner);
		mls_count(&cleaner->disk->count.cleaner_rounds, 1);
		pthread_mutex_lock(&cleaner->lock);
		cleaner->rounds++;
		cleaner->round_err = err;
		if (err == MLS_ENOSPC)
			cleaner->vain_round = cleaner->rounds;
		if (!err && !mls_cleaner_enough_free(cleaner))
			cleaner->asked = true;
		pthread_cond_broadcast(&cleaner->round_done);
	}
	pthread_cond_broadcast(&cleaner->round_done);
	pthread_mutex_unlock(&cleaner->lock);
	return NULL;
}

/* ---- What writers call ---- */

/* Until leave_locked the thread works. Returns when a whole round will have been that began after now. */
static uint64_t ask_for_round_locked(struct mls_cleaner *cleaner)
{
	cleaner->nr_waiting++;
	pthread_cond_signal(&cleaner->work);
	return cleaner->rounds + 2;
}

/* What the last round came to. */
static int leave_locked(struct mls_cleaner *cleaner)
{
	cleaner->nr_waiting--;
	return cleaner->stop ? MLS_ENOSPC : cleaner->round_err;
}

/*
 * Rounds that gain something and such that don't may take turns, others taking what was gained. Who looked at the last
 * one only could find the good ones each time, and wait for seconds while others are refused; so one that was in
 * vain since he came is enough.
 */
int mls_cleaner_wait(struct mls_cleaner *cleaner, uint64_t *since)
{
	uint64_t until;
	int err;

	if (!cleaner->has_thread)
		return mls_cleaner_round(cleaner);
	pthread_mutex_lock(&cleaner->lock);
	until = ask_for_round_locked(cleaner);
	if (*since == 0)
		*since = cleaner->rounds + 1;	/* may be under way */
	while (cleaner->rounds < until && !cleaner->stop &&
	       mls_chunk_alloc_room(cleaner->disk->alloc) == 0)
		pthread_cond_wait(&cleaner->round_done, &cleaner->lock);
	err = leave_locked(cleaner);
	if (!err && cleaner->vain_round > *since)
		err = MLS_ENOSPC;
	if (mls_chunk_alloc_room(cleaner->disk->alloc) > 0)
		err = 0;
	pthread_mutex_unlock(&cleaner->lock);
	return err;
}

/* A round that began after we came. */
static int whole_round(struct mls_cleaner *cleaner)
{
	uint64_t until;
	int err;

	if (!cleaner->has_thread)
		return mls_cleaner_round(cleaner);
	pthread_mutex_lock(&cleaner->lock);
	until = ask_for_round_locked(cleaner);
	while (cleaner->rounds < until && !cleaner->stop)
		pthread_cond_wait(&cleaner->round_done, &cleaner->lock);
	err = leave_locked(cleaner);
	pthread_mutex_unlock(&cleaner->lock);
	return err;
}

void mls_cleaner_before_sync(struct mls_cleaner *cleaner)
{
	if (!cleaner->disk->opts.strict_sync)
		return;
	mls_cleaner_expect_as_much_again(cleaner);
	if (mls_cleaner_enough_free(cleaner))
		return;
	atomic_fetch_add(&cleaner->nr_before_sync, 1);
	for (unsigned i = 0; i < ROUNDS_BEFORE_SYNC && !mls_cleaner_enough_free(cleaner); i++)
		if (whole_round(cleaner))
			break;
	atomic_fetch_sub(&cleaner->nr_before_sync, 1);
	/* A round that has begun meanwhile must not go on behind the cut: only the next sync would free what it takes. */
	if (cleaner->has_thread && whole_round(cleaner))
		mls_debug("cleaner: nothing more to be had before the sync");
}

void mls_cleaner_synced(struct mls_cleaner *cleaner)
{
	pthread_mutex_lock(&cleaner->lock);
	pthread_cond_broadcast(&cleaner->round_done);	/* whoever waits for room may have it now */
	pthread_mutex_unlock(&cleaner->lock);
	for (unsigned i = 0; i < PUNCHES_INLINE && !cleaner->has_thread; i++)
		if (!mls_punch_step(cleaner->disk, cleaner->low_runs, false))
			break;
}

/* ---- Birth and death ---- */

static int start_threads(struct mls_cleaner *cleaner)
{
	cleaner->has_syncer = pthread_create(&cleaner->syncer, NULL, mls_cleaner_syncer, cleaner) == 0;
	if (cleaner->has_syncer)
		cleaner->has_thread = pthread_create(&cleaner->thread, NULL, cleaner_main, cleaner) == 0;
	return cleaner->has_thread ? 0 : MLS_ENOMEM;
}

int mls_cleaner_new(struct mls_cleaner **out, struct mls_disk *disk)
{
	struct mls_cleaner *cleaner = calloc(1, sizeof *cleaner);
	pthread_condattr_t clock;
	int err;

	if (!cleaner)
		return MLS_ENOMEM;
	cleaner->disk = disk;
	mls_cleaner_pace_init(cleaner);
	cleaner->changed_ns = mls_now_ns();	/* who opens a disk is about to use it, ... */
	cleaner->live_opened = mls_cleaner_live_blocks(cleaner);	/* ... and shan't wait half a second for a compaction */
	pthread_mutex_init(&cleaner->lock, NULL);
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_cond_init(&cleaner->work, &clock);
	pthread_condattr_destroy(&clock);
	pthread_cond_init(&cleaner->sync_work, NULL);
	pthread_cond_init(&cleaner->round_done, NULL);
	mls_cleaner_set_reserves(cleaner);
	err = mls_movers_new(&cleaner->movers, disk, disk->opts.inline_work ? 0 : MOVERS, mls_cleaner_on_emptied,
			     cleaner);
	if (!err && !disk->opts.inline_work)
		err = start_threads(cleaner);
	if (err) {
		mls_cleaner_free(cleaner);
		return err;
	}
	*out = cleaner;
	return 0;
}

void mls_cleaner_free(struct mls_cleaner *cleaner)
{
	if (!cleaner)
		return;
	pthread_mutex_lock(&cleaner->lock);
	cleaner->stop = true;
	pthread_cond_signal(&cleaner->work);
	pthread_cond_signal(&cleaner->sync_work);
	pthread_mutex_unlock(&cleaner->lock);
	if (cleaner->has_thread)
		pthread_join(cleaner->thread, NULL);
	mls_lsm_tell_no_more(cleaner->disk->lsm);
	if (cleaner->has_teller)
		pthread_join(cleaner->teller, NULL);
	if (cleaner->has_syncer)
		pthread_join(cleaner->syncer, NULL);
	mls_movers_free(cleaner->movers);
	pthread_cond_destroy(&cleaner->round_done);
	pthread_cond_destroy(&cleaner->sync_work);
	pthread_cond_destroy(&cleaner->work);
	pthread_mutex_destroy(&cleaner->lock);
	free(cleaner);
}
