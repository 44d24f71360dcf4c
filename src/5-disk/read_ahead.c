/* SPDX-License-Identifier: MPL-2.0 */
/*
 * read_ahead.c - who reads in sequence finds the next blocks in memory; see read_ahead.h.
 *
 * A window's way: free -> queued -> reading -> ready -> free. Who needs one that is queued takes it off and reads for
 * himself; who needs one that is being read waits for it, as he would wait for the same transfers.
 */
#include "5-disk/read_ahead.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "5-disk/disk.h"
#include "base/buf.h"
#include "base/checked.h"
#include "base/err.h"

#define WINDOWS 4u
#define THREADS 2u
#define STREAMS 4u
#define RUN_MIN 3u		/* requests that followed one another are a stream */
#define WINDOW_MIN 32u		/* blocks */
#define REQUESTS_A_WINDOW 8u
#define REQUEST_MAX (MLS_CHUNK_IO_BLOCKS / 2)	/* larger ones keep the device busy themselves: nothing was gained */
#define AHEAD 2u		/* windows, at least, where there are free ones */
#define BUSY_READERS 3u		/* at once; above that nothing is read ahead */
#define STALE_NS UINT64_C(100000000)	/* nobody came for it so long: another stream may have it, ... */
#define FORGOTTEN_NS UINT64_C(5000000000)	/* ... it's given up */

enum window_state { WINDOW_FREE, WINDOW_QUEUED, WINDOW_READING, WINDOW_READY };

struct window {
	enum window_state state;
	uint64_t lba;
	uint32_t nr;
	unsigned pins;			/* readers that copy */
	uint64_t changed_ns;
	struct mls_index_rec recs[MLS_CHUNK_IO_BLOCKS];	/* what blocks hold; hba MLS_HBA_NONE: nothing */
	uint8_t *blocks;
};

struct stream {
	uint64_t next;			/* LBA behind the last request */
	uint64_t upto;			/* windows are there, or were, before it */
	uint64_t used;			/* by the clock */
	unsigned run;
};

struct mls_read_ahead {
	struct mls_disk *disk;
	atomic_uint nr_readers, nr_filled;	/* users' reads under way; windows that aren't free */
	pthread_mutex_t lock;			/* of what follows */
	pthread_cond_t work, done;
	pthread_t threads[THREADS];
	unsigned nr_threads;
	bool stop;
	uint64_t clock;				/* requests */
	struct stream streams[STREAMS];
	struct window windows[WINDOWS];
};

/* ---- Windows; lock held ---- */

static void set_state(struct mls_read_ahead *ahead, struct window *window, enum window_state state)
{
	if (window->state == WINDOW_FREE && state != WINDOW_FREE)
		atomic_fetch_add(&ahead->nr_filled, 1);
	if (window->state != WINDOW_FREE && state == WINDOW_FREE)
		atomic_fetch_sub(&ahead->nr_filled, 1);
	window->state = state;
	window->changed_ns = mls_now_ns();
}

static bool overlaps(const struct window *window, uint64_t lba, uint64_t nr)
{
	return window->state != WINDOW_FREE && window->lba < lba + nr && lba < window->lba + window->nr;
}

static struct window *overlapping(struct mls_read_ahead *ahead, uint64_t lba, uint64_t nr)
{
	for (unsigned i = 0; i < WINDOWS; i++)
		if (overlaps(&ahead->windows[i], lba, nr))
			return &ahead->windows[i];
	return NULL;
}

/* Nobody has come for it for so long. */
static bool is_unwanted(const struct window *window, uint64_t ns)
{
	return window->state == WINDOW_READY && window->pins == 0 && window->changed_ns + ns < mls_now_ns();
}

/* A free one, or else a stale one. */
static struct window *unused_window(struct mls_read_ahead *ahead)
{
	struct window *stale = NULL;

	for (unsigned i = 0; i < WINDOWS; i++) {
		struct window *window = &ahead->windows[i];

		if (window->state == WINDOW_FREE && window->pins == 0)
			return window;
		if (is_unwanted(window, STALE_NS))
			stale = window;
	}
	return stale;
}

static struct window *next_queued(struct mls_read_ahead *ahead)
{
	struct window *first = NULL;

	for (unsigned i = 0; i < WINDOWS; i++) {
		struct window *window = &ahead->windows[i];

		if (window->state == WINDOW_QUEUED && (!first || window->changed_ns < first->changed_ns))
			first = window;
	}
	return first;
}

/* false: no window for it now. */
static bool queue_window(struct mls_read_ahead *ahead, uint64_t lba, uint32_t nr)
{
	struct window *window;

	if (overlapping(ahead, lba, nr))
		return true;
	window = unused_window(ahead);
	if (!window)
		return false;
	window->lba = lba;
	window->nr = nr;
	set_state(ahead, window, WINDOW_QUEUED);
	pthread_cond_signal(&ahead->work);
	return true;
}

/* ---- Streams; lock held ---- */

/* The stream that this request goes on with, or begins. */
static struct stream *stream_of(struct mls_read_ahead *ahead, uint64_t lba)
{
	struct stream *oldest = &ahead->streams[0];

	for (unsigned i = 0; i < STREAMS; i++) {
		struct stream *stream = &ahead->streams[i];

		if (stream->run > 0 && stream->next == lba)
			return stream;
		if (stream->used < oldest->used)
			oldest = stream;
	}
	*oldest = (struct stream){ .next = lba };
	return oldest;
}

static void go_on(struct mls_read_ahead *ahead, struct stream *stream, uint64_t nr)
{
	uint64_t nr_blocks = atomic_load(&ahead->disk->nr_blocks), from;
	uint64_t window = mls_min_u64(mls_max_u64(nr * REQUESTS_A_WINDOW, WINDOW_MIN), MLS_CHUNK_IO_BLOCKS);

	stream->run++;
	stream->next += nr;
	stream->used = ++ahead->clock;
	if (stream->run < RUN_MIN)
		return;
	for (from = mls_max_u64(stream->upto, stream->next); from < stream->next + AHEAD * window && from < nr_blocks;
	     from += window)
		if (!queue_window(ahead, from, (uint32_t)mls_min_u64(window, nr_blocks - from)))
			break;
	stream->upto = from;
}

void mls_read_ahead_begin(struct mls_read_ahead *ahead, uint64_t lba, uint64_t nr)
{
	if (!ahead || atomic_fetch_add(&ahead->nr_readers, 1) >= BUSY_READERS || nr == 0 || nr > REQUEST_MAX)
		return;
	pthread_mutex_lock(&ahead->lock);
	go_on(ahead, stream_of(ahead, lba), nr);
	pthread_mutex_unlock(&ahead->lock);
}

void mls_read_ahead_end(struct mls_read_ahead *ahead)
{
	if (ahead)
		atomic_fetch_sub(&ahead->nr_readers, 1);
}

/* ---- Taking ---- */

static uint32_t copy_blocks(const struct window *window, uint64_t lba, uint32_t nr, const struct mls_index_rec *recs,
			    uint8_t *out, bool *have)
{
	uint64_t from = mls_max_u64(lba, window->lba), end = mls_min_u64(lba + nr, window->lba + window->nr);
	uint32_t nr_copied = 0;

	for (uint64_t at = from; at < end; at++) {
		const struct mls_index_rec *rec = &recs[at - lba];

		if (rec->hba == MLS_HBA_NONE || !mls_same_version(rec, &window->recs[at - window->lba]))
			continue;
		memcpy(mls_block_at(out, at - lba), mls_block_at(window->blocks, at - window->lba), MLS_BLOCK_BYTES);
		have[at - lba] = true;
		nr_copied++;
	}
	return nr_copied;
}

/* Lock held, and let go for the copy. Who has its last block gives it back. */
static void take_ready(struct mls_read_ahead *ahead, struct window *window, uint64_t lba, uint32_t nr,
		       const struct mls_index_rec *recs, uint8_t *out, bool *have)
{
	uint32_t nr_copied;

	window->pins++;
	pthread_mutex_unlock(&ahead->lock);
	nr_copied = copy_blocks(window, lba, nr, recs, out, have);
	mls_count(&ahead->disk->count.ahead_used_blocks, nr_copied);
	pthread_mutex_lock(&ahead->lock);
	window->pins--;
	set_state(ahead, window, window->lba + window->nr <= lba + nr ? WINDOW_FREE : window->state);
}

void mls_read_ahead_take(struct mls_read_ahead *ahead, uint64_t lba, uint32_t nr, const struct mls_index_rec *recs,
			 uint8_t *out, bool *have)
{
	if (!ahead || atomic_load(&ahead->nr_filled) == 0)
		return;
	pthread_mutex_lock(&ahead->lock);
	for (unsigned i = 0; i < WINDOWS; i++) {
		struct window *window = &ahead->windows[i];

		while (overlaps(window, lba, nr) && window->state == WINDOW_READING && !ahead->stop)
			pthread_cond_wait(&ahead->done, &ahead->lock);
		if (!overlaps(window, lba, nr)) {
			if (is_unwanted(window, FORGOTTEN_NS))	/* once all are free nobody takes the lock for them any more */
				set_state(ahead, window, WINDOW_FREE);
			continue;
		}
		if (window->state == WINDOW_QUEUED)
			set_state(ahead, window, WINDOW_FREE);
		else if (window->state == WINDOW_READY)
			take_ready(ahead, window, lba, nr, recs, out, have);
	}
	pthread_mutex_unlock(&ahead->lock);
}

/* ---- Reading ---- */

static void *reader_main(void *arg)
{
	struct mls_read_ahead *ahead = arg;

	pthread_mutex_lock(&ahead->lock);
	while (!ahead->stop) {
		struct window *window = next_queued(ahead);
		int err;

		if (!window) {
			pthread_cond_wait(&ahead->work, &ahead->lock);
			continue;
		}
		set_state(ahead, window, WINDOW_READING);
		pthread_mutex_unlock(&ahead->lock);
		err = mls_disk_read_quietly(ahead->disk, window->lba, window->nr, window->blocks, window->recs);
		mls_count(&ahead->disk->count.ahead_blocks, window->nr);
		pthread_mutex_lock(&ahead->lock);
		set_state(ahead, window, err ? WINDOW_FREE : WINDOW_READY);
		pthread_cond_broadcast(&ahead->done);
	}
	pthread_mutex_unlock(&ahead->lock);
	return NULL;
}

/* ---- Birth and death ---- */

int mls_read_ahead_new(struct mls_read_ahead **out, struct mls_disk *disk)
{
	struct mls_read_ahead *ahead = calloc(1, sizeof *ahead);
	int err = 0;

	if (!ahead)
		return MLS_ENOMEM;
	ahead->disk = disk;
	pthread_mutex_init(&ahead->lock, NULL);
	pthread_cond_init(&ahead->work, NULL);
	pthread_cond_init(&ahead->done, NULL);
	for (unsigned i = 0; i < WINDOWS && !err; i++) {
		ahead->windows[i].blocks = mls_blocks_zalloc(MLS_CHUNK_IO_BLOCKS);
		err = ahead->windows[i].blocks ? 0 : MLS_ENOMEM;
	}
	while (!err && ahead->nr_threads < THREADS) {
		err = pthread_create(&ahead->threads[ahead->nr_threads], NULL, reader_main, ahead) ? MLS_ENOMEM : 0;
		ahead->nr_threads += !err;
	}
	if (err) {
		mls_read_ahead_free(ahead);
		return err;
	}
	*out = ahead;
	return 0;
}

void mls_read_ahead_free(struct mls_read_ahead *ahead)
{
	if (!ahead)
		return;
	pthread_mutex_lock(&ahead->lock);
	ahead->stop = true;
	pthread_cond_broadcast(&ahead->work);
	pthread_cond_broadcast(&ahead->done);
	pthread_mutex_unlock(&ahead->lock);
	for (unsigned i = 0; i < ahead->nr_threads; i++)
		pthread_join(ahead->threads[i], NULL);
	for (unsigned i = 0; i < WINDOWS; i++) {
		if (ahead->windows[i].blocks)
			mls_wipe(ahead->windows[i].blocks, (size_t)MLS_CHUNK_IO_BLOCKS * MLS_BLOCK_BYTES);
		mls_blocks_free(ahead->windows[i].blocks);
	}
	pthread_cond_destroy(&ahead->done);
	pthread_cond_destroy(&ahead->work);
	pthread_mutex_destroy(&ahead->lock);
	free(ahead);
}
