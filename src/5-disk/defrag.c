/* SPDX-License-Identifier: MPL-2.0 */
/*
 * defrag.c - puts what is read in sequence back into sequence; see defrag.h.
 *
 * A job's way: a reader copies what it has read into a free job -> the thread looks its LBAs up again -> what is
 * still the version that was read is moved (move.h).
 *
 * Windows are WINDOW_BLOCKS large. Who reads much of one at once gives it GATHERS credits; a pause takes one for each
 * time that it gathers that window. The first is for what the reader has met. The others are for what writes scatter
 * after that, and as a whole they may cost no more than those writes did. So this work is bounded by what users read and by
 * what they write. (With one only, the first pause between two bursts of writes used it up, and the next scan met what the
 * last burst had left.)
 */
#include "5-disk/defrag.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "5-disk/disk.h"
#include "5-disk/move.h"
#include "base/buf.h"
#include "base/checked.h"
#include "base/err.h"
#include "base/log.h"

_Static_assert(MLS_CHUNK_IO_BLOCKS <= MLS_MOVES_MAX, "a job is moved at once");

#define JOBS 8u
#define MIN_BLOCKS 32u			/* a read of fewer says nothing of sequence: a file system reads ahead 128 KiB */
#define PIECE_MIN 16u			/* mean blocks of an extent from which on a layout is good enough */
#define OFFERS_A_MOVE 16u			/* while readers are at work: they need the device themselves */
#define WINDOW_BLOCKS MLS_CHUNK_IO_BLOCKS
#define GATHERS 3u			/* of a window for a read of it; two bits */
#define WINDOWS_A_STEP 16u		/* gathered by one step, and ... */
#define LOOKS_A_STEP 256u		/* ... at most looked at */

struct job {
	uint64_t lba;
	uint32_t nr;
	struct mls_index_rec recs[MLS_CHUNK_IO_BLOCKS];	/* as they were read by */
	uint8_t *blocks;
	bool in_pause;			/* read by the pause step: costs a credit if it's moved, ... */
	uint32_t nr_again;		/* ... and so many blocks of what may be gathered again */
	struct job *next;
};

struct mls_defrag {
	struct mls_disk *disk;
	pthread_mutex_t lock;		/* of the lists and stop */
	pthread_cond_t work, done;
	pthread_t thread;
	bool has_thread, stop;
	struct job *free, *queue, **queue_end;
	unsigned nr_queued;		/* and under way */
	struct job jobs[JOBS];
	/* The pause step's. */
	uint64_t nr_windows, next_window;
	atomic_uchar *credits;		/* by window, two bits each */
	atomic_uint_fast64_t nr_again;	/* blocks gathered by other credits than the first */
	atomic_bool news;		/* credits were given since all windows were looked at, ... */
	uint64_t seen_written;		/* ... and so much had been written then */
	uint8_t *blocks;
	atomic_uint nr_offers;
};

static _Thread_local bool gathering, gathered;	/* it is the pause step that reads; what it has read is queued */

/* ---- What is scattered ---- */

/* Transfers that reading them takes, about; *mapped: blocks. */
static uint32_t count_pieces(const struct mls_index_rec *recs, uint32_t nr, uint32_t *mapped)
{
	uint32_t pieces = 0;

	*mapped = 0;
	for (uint32_t i = 0; i < nr; i++) {
		if (recs[i].hba == MLS_HBA_NONE)
			continue;
		pieces += i == 0 || recs[i].hba != recs[i - 1].hba + 1;
		++*mapped;
	}
	return pieces;
}

static bool is_scattered(const struct mls_index_rec *recs, uint32_t nr)
{
	uint32_t mapped, pieces = count_pieces(recs, nr, &mapped);

	return mapped >= MIN_BLOCKS && pieces * PIECE_MIN > mapped;
}

static unsigned shift_of(uint64_t window)
{
	return (unsigned)(window % 4 * 2);
}

static unsigned credits_of(const struct mls_defrag *defrag, uint64_t window)
{
	return atomic_load_explicit(&defrag->credits[window / 4], memory_order_acquire) >> shift_of(window) & GATHERS;
}

static void give_credits(struct mls_defrag *defrag, uint64_t lba)
{
	uint64_t window = lba / WINDOW_BLOCKS;

	if (window >= defrag->nr_windows)	/* the disk has grown: after the next open */
		return;
	if (credits_of(defrag, window) == GATHERS)
		return;
	atomic_fetch_or_explicit(&defrag->credits[window / 4], (unsigned char)(GATHERS << shift_of(window)),
				 memory_order_release);
	atomic_store_explicit(&defrag->news, true, memory_order_release);
}

/* Only of a window that the pause step took for having one: readers meanwhile can but add to it. */
static void take_credit(struct mls_defrag *defrag, uint64_t window)
{
	MLS_INVARIANT(credits_of(defrag, window) > 0);
	atomic_fetch_sub_explicit(&defrag->credits[window / 4], (unsigned char)(1u << shift_of(window)),
				  memory_order_relaxed);
}

static uint64_t written_blocks(const struct mls_defrag *defrag)
{
	return atomic_load(&defrag->disk->count.written_bytes) / MLS_BLOCK_BYTES;
}

static bool may_gather(const struct mls_defrag *defrag, uint64_t window)
{
	unsigned credits = credits_of(defrag, window);

	return credits == GATHERS || (credits > 0 && atomic_load(&defrag->nr_again) < written_blocks(defrag));
}

/* ---- Moving ---- */

static bool is_current(const struct mls_index_rec *now, const struct mls_index_rec *read)
{
	return read->hba != MLS_HBA_NONE && mls_same_version(now, read);
}

/* The order is of before the look: who writes an LBA after it has a later one. */
static int move_job(struct mls_disk *disk, const struct job *job)
{
	struct mls_write_order order = mls_seg_order_of_now(disk->writer);
	uint64_t view = mls_lsm_view(disk->lsm);
	struct mls_index_rec now[MLS_CHUNK_IO_BLOCKS];
	struct mls_move moves[MLS_CHUNK_IO_BLOCKS];
	uint32_t nr = 0;
	int err = mls_lsm_get(disk->lsm, job->lba, job->nr, now);

	if (err)
		return err;
	for (uint32_t i = 0; i < job->nr; i++)
		if (is_current(&now[i], &job->recs[i]))
			moves[nr++] = (struct mls_move){ job->lba + i, now[i].hba, mls_block_at(job->blocks, i), order };
	return mls_move_blocks(disk, moves, nr, view, &disk->count.defragmented_blocks);
}

/* If space has got short it's left for a pause, when there is room again. */
static int work_off(struct mls_defrag *defrag, struct job *job)
{
	if (!mls_cleaner_has_plenty(defrag->disk->cleaner)) {
		atomic_fetch_sub(&defrag->nr_again, job->nr_again);
		return 0;
	}
	if (job->in_pause)
		take_credit(defrag, job->lba / WINDOW_BLOCKS);
	return move_job(defrag->disk, job);
}

static void *defrag_main(void *arg)
{
	struct mls_defrag *defrag = arg;

	pthread_mutex_lock(&defrag->lock);
	while (!defrag->stop) {
		struct job *job = defrag->queue;
		int err = 0;

		if (!job) {
			pthread_cond_wait(&defrag->work, &defrag->lock);
			continue;
		}
		defrag->queue = job->next;
		if (!defrag->queue)
			defrag->queue_end = &defrag->queue;
		pthread_mutex_unlock(&defrag->lock);
		err = work_off(defrag, job);
		mls_wipe(job->blocks, (size_t)job->nr * MLS_BLOCK_BYTES);
		if (err)
			mls_debug("defrag: LBA %llu on stay where they are: %s", (unsigned long long)job->lba,
				  mls_strerror(err));
		pthread_mutex_lock(&defrag->lock);
		job->next = defrag->free;
		defrag->free = job;
		defrag->nr_queued--;
		pthread_cond_signal(&defrag->done);
	}
	pthread_mutex_unlock(&defrag->lock);
	return NULL;
}

/* ---- What readers call ---- */

static struct job *take_job(struct mls_defrag *defrag)
{
	struct job *job;

	pthread_mutex_lock(&defrag->lock);
	job = defrag->free;
	if (job)
		defrag->free = job->next;
	pthread_mutex_unlock(&defrag->lock);
	return job;
}

static void queue_job(struct mls_defrag *defrag, struct job *job)
{
	pthread_mutex_lock(&defrag->lock);
	job->next = NULL;
	*defrag->queue_end = job;
	defrag->queue_end = &job->next;
	defrag->nr_queued++;
	pthread_cond_signal(&defrag->work);
	pthread_mutex_unlock(&defrag->lock);
}

/* The others are for the pause step, which their windows' credits tell. */
static bool is_its_turn(struct mls_defrag *defrag)
{
	return gathering ||
	       atomic_fetch_add_explicit(&defrag->nr_offers, 1, memory_order_relaxed) % OFFERS_A_MOVE == 0;
}

/* A job for blocks that lie badly; NULL: not now. */
static struct job *job_for(struct mls_defrag *defrag)
{
	return mls_cleaner_has_plenty(defrag->disk->cleaner) && is_its_turn(defrag) ? take_job(defrag) : NULL;
}

void mls_defrag_offer(struct mls_defrag *defrag, uint64_t lba, uint32_t nr, const struct mls_index_rec *recs,
		      const void *plain)
{
	struct job *job;

	if (!defrag || nr < MIN_BLOCKS)
		return;
	if (!gathering)
		give_credits(defrag, lba);
	job = is_scattered(recs, nr) ? job_for(defrag) : NULL;
	gathered = gathering && job;
	if (!job)
		return;
	job->in_pause = gathering;
	job->nr_again = gathering && credits_of(defrag, lba / WINDOW_BLOCKS) < GATHERS ? nr : 0;
	atomic_fetch_add(&defrag->nr_again, job->nr_again);
	job->lba = lba;
	job->nr = nr;
	memcpy(job->recs, recs, nr * sizeof *recs);
	memcpy(job->blocks, plain, (size_t)nr * MLS_BLOCK_BYTES);
	queue_job(defrag, job);
}

/* ---- In a pause ---- */

/* Until no more than so many jobs are queued. */
static void wait_for_jobs(struct mls_defrag *defrag, unsigned nr)
{
	pthread_mutex_lock(&defrag->lock);
	while (defrag->nr_queued > nr && !defrag->stop)
		pthread_cond_wait(&defrag->done, &defrag->lock);
	pthread_mutex_unlock(&defrag->lock);
}

static bool window_is_scattered(struct mls_disk *disk, uint64_t lba, uint32_t nr)
{
	struct mls_index_rec recs[WINDOW_BLOCKS];

	return mls_lsm_get(disk->lsm, lba, nr, recs) == 0 && is_scattered(recs, nr);
}

/* Reading a scattered window offers it. false: it couldn't be taken now. */
static bool gather_window(struct mls_defrag *defrag, uint64_t window, uint64_t lba, uint32_t nr)
{
	wait_for_jobs(defrag, JOBS / 2);
	gathering = true;
	gathered = false;
	if (mls_disk_read_chunk(defrag->disk, lba, nr, defrag->blocks)) {
		mls_debug("defrag: LBA %llu on can't be read", (unsigned long long)lba);
		take_credit(defrag, window);	/* it shan't be tried for ever */
	}
	gathering = false;
	mls_wipe(defrag->blocks, (size_t)nr * MLS_BLOCK_BYTES);
	return gathered;
}

/* A window after the other, round and round; returns how many were gathered. *settled: all lie well, or may not be. */
static unsigned gather_some(struct mls_defrag *defrag, bool *settled)
{
	uint64_t nr_blocks = atomic_load(&defrag->disk->nr_blocks), i = 0;
	unsigned nr_gathered = 0, nr_looks = 0, nr_left = 0;

	for (; i < defrag->nr_windows && nr_gathered < WINDOWS_A_STEP && nr_looks < LOOKS_A_STEP; i++) {
		uint64_t window = defrag->next_window, lba = window * WINDOW_BLOCKS;
		uint32_t nr = (uint32_t)mls_min_u64(nr_blocks - lba, WINDOW_BLOCKS);
		bool may = may_gather(defrag, window);

		if (may && !mls_cleaner_has_plenty(defrag->disk->cleaner))
			break;
		defrag->next_window = window + 1 < defrag->nr_windows ? window + 1 : 0;
		if (!may)
			continue;
		nr_looks++;
		if (!window_is_scattered(defrag->disk, lba, nr))
			continue;
		if (gather_window(defrag, window, lba, nr))
			nr_gathered++;
		else
			nr_left++;
	}
	*settled = i == defrag->nr_windows && nr_gathered + nr_left == 0;
	return nr_gathered;
}

/* Has anything happened since all windows were found to lie well? */
static bool is_settled(struct mls_defrag *defrag)
{
	return !atomic_load_explicit(&defrag->news, memory_order_acquire) && written_blocks(defrag) == defrag->seen_written;
}

bool mls_defrag_pause_step(struct mls_defrag *defrag)
{
	uint64_t written = written_blocks(defrag);
	unsigned nr_gathered;
	bool settled;

	if (is_settled(defrag))
		return false;
	atomic_store_explicit(&defrag->news, false, memory_order_release);
	nr_gathered = gather_some(defrag, &settled);
	wait_for_jobs(defrag, 0);
	if (settled)
		defrag->seen_written = written;
	else
		atomic_store_explicit(&defrag->news, true, memory_order_release);
	return nr_gathered > 0;
}

/* ---- Birth and death ---- */

int mls_defrag_new(struct mls_defrag **out, struct mls_disk *disk)
{
	struct mls_defrag *defrag = calloc(1, sizeof *defrag);
	int err = 0;

	if (!defrag)
		return MLS_ENOMEM;
	defrag->disk = disk;
	defrag->queue_end = &defrag->queue;
	pthread_mutex_init(&defrag->lock, NULL);
	pthread_cond_init(&defrag->work, NULL);
	pthread_cond_init(&defrag->done, NULL);
	defrag->nr_windows = mls_div_round_up(atomic_load(&disk->nr_blocks), WINDOW_BLOCKS);
	defrag->credits = calloc(mls_div_round_up(defrag->nr_windows, 4), sizeof *defrag->credits);
	defrag->blocks = mls_blocks_zalloc(WINDOW_BLOCKS);
	if (!defrag->credits || !defrag->blocks)
		err = MLS_ENOMEM;
	for (unsigned i = 0; i < JOBS && !err; i++) {
		struct job *job = &defrag->jobs[i];

		job->blocks = mls_blocks_zalloc(MLS_CHUNK_IO_BLOCKS);
		job->next = defrag->free;
		defrag->free = job;
		if (!job->blocks)
			err = MLS_ENOMEM;
	}
	if (!err && pthread_create(&defrag->thread, NULL, defrag_main, defrag))
		err = MLS_ENOMEM;
	defrag->has_thread = !err;
	if (err) {
		mls_defrag_free(defrag);
		return err;
	}
	*out = defrag;
	return 0;
}

void mls_defrag_stop(struct mls_defrag *defrag)
{
	if (!defrag)
		return;
	pthread_mutex_lock(&defrag->lock);
	defrag->stop = true;
	pthread_cond_broadcast(&defrag->work);
	pthread_cond_broadcast(&defrag->done);
	pthread_mutex_unlock(&defrag->lock);
	if (defrag->has_thread)
		pthread_join(defrag->thread, NULL);
	defrag->has_thread = false;
}

void mls_defrag_free(struct mls_defrag *defrag)
{
	if (!defrag)
		return;
	mls_defrag_stop(defrag);
	for (unsigned i = 0; i < JOBS; i++) {
		if (defrag->jobs[i].blocks)
			mls_wipe(defrag->jobs[i].blocks, (size_t)MLS_CHUNK_IO_BLOCKS * MLS_BLOCK_BYTES);
		mls_blocks_free(defrag->jobs[i].blocks);
	}
	mls_blocks_free(defrag->blocks);
	free(defrag->credits);
	pthread_cond_destroy(&defrag->done);
	pthread_cond_destroy(&defrag->work);
	pthread_mutex_destroy(&defrag->lock);
	free(defrag);
}
