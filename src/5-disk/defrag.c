/* SPDX-License-Identifier: MPL-2.0 */
/*
 * defrag.c - puts what is read in sequence back into sequence; see defrag.h.
 *
 * A job's way: a reader copies what it has read into a free job -> the thread looks its LBAs up again -> what is
 * still the version that was read is moved (move.h).
 *
 * Windows are WINDOW_BLOCKS large. A bit tells that somebody has read much of one at once; it is taken away when the
 * idle disk gathers that window. So idle work, too, is bounded by what users read.
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
#define OFFERS_A_MOVE 4u			/* while readers are at work: they need the device themselves */
#define WINDOW_BLOCKS MLS_CHUNK_IO_BLOCKS
#define WINDOWS_A_STEP 16u		/* gathered by one idle step, and ... */
#define LOOKS_A_STEP 256u		/* ... at most looked at */

struct job {
	uint64_t lba;
	uint32_t nr;
	struct mls_index_rec recs[MLS_CHUNK_IO_BLOCKS];	/* as they were read by */
	uint8_t *blocks;
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
	/* The idle step's. */
	uint64_t nr_windows, next_window;
	atomic_uchar *read;		/* by window, a bit each */
	uint8_t *blocks;
	atomic_uint nr_offers;
};

static _Thread_local bool gathering;	/* it is the idle step that reads */

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

static void note_window(struct mls_defrag *defrag, uint64_t lba, bool was_read)
{
	uint64_t window = lba / WINDOW_BLOCKS;
	unsigned char bit = (unsigned char)(1u << window % 8);

	if (window >= defrag->nr_windows)	/* the disk has grown: after the next open */
		return;
	if (!was_read)
		atomic_fetch_and_explicit(&defrag->read[window / 8], (unsigned char)~bit, memory_order_relaxed);
	else if (!(atomic_load_explicit(&defrag->read[window / 8], memory_order_relaxed) & bit))
		atomic_fetch_or_explicit(&defrag->read[window / 8], bit, memory_order_release);
}

static bool window_was_read(const struct mls_defrag *defrag, uint64_t window)
{
	return atomic_load_explicit(&defrag->read[window / 8], memory_order_acquire) >> window % 8 & 1;
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
		if (mls_cleaner_has_plenty(defrag->disk->cleaner))
			err = move_job(defrag->disk, job);
		else
			note_window(defrag, job->lba, true);	/* for the idle disk, when there is room again */
		mls_wipe(job->blocks, (size_t)job->nr * MLS_BLOCK_BYTES);
		if (err)
			mls_debug("defrag: LBA %llu on stay where they are: %s", (unsigned long long)job->lba,
				  mls_strerror(err));
		pthread_mutex_lock(&defrag->lock);
		job->next = defrag->free;
		defrag->free = job;
		if (--defrag->nr_queued == 0)
			pthread_cond_broadcast(&defrag->done);
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

/* The others are for the idle step, which their windows' bits tell. */
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
	bool scattered;
	struct job *job;

	if (!defrag || nr < MIN_BLOCKS)
		return;
	scattered = is_scattered(recs, nr);
	job = scattered ? job_for(defrag) : NULL;
	if (!gathering || (scattered && !job))
		note_window(defrag, lba, true);
	if (!job)
		return;
	job->lba = lba;
	job->nr = nr;
	memcpy(job->recs, recs, nr * sizeof *recs);
	memcpy(job->blocks, plain, (size_t)nr * MLS_BLOCK_BYTES);
	queue_job(defrag, job);
}

/* ---- When the disk is idle ---- */

static void wait_until_moved(struct mls_defrag *defrag)
{
	pthread_mutex_lock(&defrag->lock);
	while (defrag->nr_queued > 0 && !defrag->stop)
		pthread_cond_wait(&defrag->done, &defrag->lock);
	pthread_mutex_unlock(&defrag->lock);
}

/* Reading a scattered window offers it; what can't be moved now gets its bit again. */
static bool gather_window(struct mls_defrag *defrag, uint64_t window)
{
	struct mls_disk *disk = defrag->disk;
	struct mls_index_rec recs[WINDOW_BLOCKS];
	uint64_t lba = window * WINDOW_BLOCKS, nr_blocks = atomic_load(&disk->nr_blocks);
	uint32_t nr = (uint32_t)mls_min_u64(nr_blocks - lba, WINDOW_BLOCKS);

	if (mls_lsm_get(disk->lsm, lba, nr, recs) || !is_scattered(recs, nr))
		return false;
	note_window(defrag, lba, false);
	if (mls_disk_read_chunk(disk, lba, nr, defrag->blocks))
		mls_debug("defrag: LBA %llu on can't be read", (unsigned long long)lba);
	mls_wipe(defrag->blocks, (size_t)nr * MLS_BLOCK_BYTES);
	return true;
}

bool mls_defrag_idle_step(struct mls_defrag *defrag)
{
	unsigned nr_gathered = 0, nr_looks = 0;

	gathering = true;
	for (uint64_t i = 0; i < defrag->nr_windows && nr_gathered < WINDOWS_A_STEP && nr_looks < LOOKS_A_STEP; i++) {
		uint64_t window = defrag->next_window;

		defrag->next_window = window + 1 < defrag->nr_windows ? window + 1 : 0;
		if (!window_was_read(defrag, window))
			continue;
		if (!mls_cleaner_has_plenty(defrag->disk->cleaner))
			break;
		nr_looks++;
		nr_gathered += gather_window(defrag, window);
		if (nr_gathered % (JOBS / 2) == 0)
			wait_until_moved(defrag);
	}
	wait_until_moved(defrag);
	gathering = false;
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
	defrag->read = calloc(mls_div_round_up(defrag->nr_windows, 8), sizeof *defrag->read);
	defrag->blocks = mls_blocks_zalloc(WINDOW_BLOCKS);
	if (!defrag->read || !defrag->blocks)
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
	free(defrag->read);
	pthread_cond_destroy(&defrag->done);
	pthread_cond_destroy(&defrag->work);
	pthread_mutex_destroy(&defrag->lock);
	free(defrag);
}
