/* SPDX-License-Identifier: MPL-2.0 */
/*
 * segment.c - segments in the making; see segment.h for the states of slots and buffers.
 *
 * Invariants: a slot is sealed once; nr_written <= nr_taken; bytes in [0, nr_written) of a buffer
 * don't change any more; a buffer goes back to the pool when its segment is closed in the table
 * (so no new reader finds it) and the last reader has let go.
 */
#include "5-disk/segment_internal.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "0-bio/block_dev.h"
#include "5-disk/geometry.h"
#include "5-disk/location.h"
#include "base/buf.h"
#include "base/checked.h"
#include "base/err.h"
#include "base/log.h"

/* ---- Summary ---- */

static int summary_seal(struct mls_seg_writer *writer, struct mls_seg_buf *buf)
{
	struct mls_seg_summary summary = {
		.run = buf->run,
		.birth = buf->birth,
		.session = writer->session,
		.epoch = buf->epoch,
		.nr_slots = buf->nr_taken,
		.slots = buf->slots,
	};

	memcpy(summary.key_salt, buf->key->salt, sizeof summary.key_salt);
	return mls_seg_summary_seal(writer->keys, &summary, buf->scratch, mls_block_at(buf->blocks, writer->nr_slots),
				    writer->run_blocks - writer->nr_slots);
}

int mls_seg_open_summary(struct mls_seg_writer *writer, uint64_t run, uint64_t birth,
			 const uint8_t key_salt[MLS_SALT_BYTES], const void *blocks, struct mls_seg_slot *slots,
			 uint32_t *nr_slots)
{
	struct mls_seg_summary summary = { .slots = slots };
	int err = mls_seg_summary_open(writer->keys, blocks, writer->run_blocks - writer->nr_slots, run,
				       writer->nr_slots, &summary);

	if (!err && (summary.birth != birth || memcmp(summary.key_salt, key_salt, MLS_SALT_BYTES) != 0))
		err = MLS_ENOENT;
	if (!err)
		*nr_slots = summary.nr_slots;
	return err;
}

int mls_seg_read_summary(struct mls_seg_writer *writer, uint64_t run, uint64_t birth,
			 const uint8_t key_salt[MLS_SALT_BYTES], void *blocks, struct mls_seg_slot *slots,
			 uint32_t *nr_slots)
{
	uint64_t hba = mls_chunk_alloc_hba(writer->alloc, run) + writer->nr_slots;
	int err = mls_block_dev_read(writer->dev, hba, writer->run_blocks - writer->nr_slots, blocks);

	return err ? err : mls_seg_open_summary(writer, run, birth, key_salt, blocks, slots, nr_slots);
}

/* ---- Buffers ---- */

static struct mls_seg_buf *idle_buf(struct mls_seg_writer *writer)
{
	for (unsigned i = 0; i < writer->nr_bufs; i++) {
		struct mls_seg_buf *buf = &writer->bufs[i];

		if (buf->state == MLS_BUF_IDLE && atomic_load_explicit(&buf->pins, memory_order_acquire) == 0)
			return buf;
	}
	return NULL;
}

static bool buf_pool_has_idle(struct mls_seg_writer *writer)
{
	for (unsigned i = 0; i < writer->nr_bufs; i++)
		if (writer->bufs[i].state == MLS_BUF_IDLE)
			return true;
	return false;
}

static void serve_takers(struct mls_seg_writer *writer);

void mls_seg_maybe_close_locked(struct mls_seg_writer *writer, struct mls_seg_buf *buf)
{
	if (buf->state != MLS_BUF_WRITTEN || buf->nr_out > 0 || atomic_load(&buf->nr_unindexed) > 0)
		return;
	mls_segment_table_close_run(writer->table, buf->run);
	buf->state = MLS_BUF_IDLE;
	buf->key = NULL;
	pthread_cond_broadcast(&writer->changed);
	serve_takers(writer);
}

/* ---- Writing ---- */

/* What isn't written yet and the summary; one transfer when the segment is full. Lock not held. */
static int write_rest(struct mls_seg_writer *writer, struct mls_seg_buf *buf, uint32_t from)
{
	struct mls_io ios[2];
	uint64_t hba = mls_chunk_alloc_hba(writer->alloc, buf->run);
	uint32_t nr_summary = writer->run_blocks - writer->nr_slots;
	int err = summary_seal(writer, buf);

	if (err)
		return err;
	if (buf->nr_taken == writer->nr_slots)
		return mls_block_dev_write(writer->dev, hba + from, writer->run_blocks - from,
					   mls_block_at(buf->blocks, from));
	ios[0] = (struct mls_io){ hba + writer->nr_slots, nr_summary, 0,
				  mls_block_at(buf->blocks, writer->nr_slots) };
	ios[1] = (struct mls_io){ hba + from, buf->nr_taken - from, 0, mls_block_at(buf->blocks, from) };
	return mls_block_dev_writev(writer->dev, ios, from < buf->nr_taken ? 2 : 1);
}

static void enqueue(struct mls_seg_writer *writer, struct mls_seg_buf *buf);

void mls_seg_maybe_written_locked(struct mls_seg_writer *writer, struct mls_seg_buf *buf)
{
	if (buf->state != MLS_BUF_WRITING || !buf->rest_out || buf->nr_writing > 0)
		return;
	buf->rest_out = false;
	if (buf->nr_written < buf->rest_from) {		/* a write-out has failed */
		enqueue(writer, buf);
		return;
	}
	buf->nr_written = buf->nr_taken;
	buf->state = MLS_BUF_WRITTEN;
	mls_seg_maybe_close_locked(writer, buf);
	pthread_cond_broadcast(&writer->changed);
}

void mls_seg_flush_buf_locked(struct mls_seg_writer *writer, struct mls_seg_buf *buf)
{
	uint32_t from;
	int err;

	buf->state = MLS_BUF_WRITING;
	while (buf->claiming)	/* zeros under way must not arrive after what we write */
		pthread_cond_wait(&writer->changed, &writer->lock);
	from = buf->nr_writing > 0 ? buf->nr_issued : buf->nr_written;
	pthread_mutex_unlock(&writer->lock);
	err = write_rest(writer, buf, from);
	pthread_mutex_lock(&writer->lock);
	if (err) {
		mls_error("disk: segment in run %llu couldn't be written: %s; it is kept in memory",
			  (unsigned long long)buf->run, mls_strerror(err));
		buf->state = MLS_BUF_FAILED;
		writer->err = err;
		serve_takers(writer);
		pthread_cond_broadcast(&writer->changed);
		return;
	}
	buf->rest_out = true;
	buf->rest_from = from;
	mls_seg_maybe_written_locked(writer, buf);
}

static void enqueue(struct mls_seg_writer *writer, struct mls_seg_buf *buf)
{
	if (writer->nr_flushers == 0) {
		mls_seg_flush_buf_locked(writer, buf);
		return;
	}
	buf->state = MLS_BUF_WRITING;
	buf->next = NULL;
	*writer->queue_end = buf;
	writer->queue_end = &buf->next;
	writer->nr_untold++;
}

void mls_seg_unlock(struct mls_seg_writer *writer)
{
	unsigned nr_untold = writer->nr_untold;

	writer->nr_untold = 0;
	pthread_mutex_unlock(&writer->lock);
	while (nr_untold-- > 0)
		pthread_cond_signal(&writer->work);
}

static void *flusher_main(void *arg)
{
	struct mls_seg_writer *writer = arg;

	pthread_mutex_lock(&writer->lock);
	for (;;) {
		struct mls_seg_buf *buf = writer->queue;

		if (buf) {
			writer->queue = buf->next;
			if (!writer->queue)
				writer->queue_end = &writer->queue;
			mls_seg_flush_buf_locked(writer, buf);
		} else if (writer->stop) {
			break;
		} else {
			pthread_cond_wait(&writer->work, &writer->lock);
		}
	}
	pthread_mutex_unlock(&writer->lock);
	return NULL;
}

void mls_seg_maybe_enqueue_locked(struct mls_seg_writer *writer, struct mls_seg_buf *buf)
{
	if (buf->state == MLS_BUF_FULL && atomic_load(&buf->nr_unsealed) == 0)
		enqueue(writer, buf);
}

/* ---- Slots ---- */

static int open_segment(struct mls_seg_writer *writer, enum mls_seg_stream stream, uint64_t epoch)
{
	enum mls_run_class class = stream == MLS_STREAM_USER ? MLS_RUN_USER : MLS_RUN_CLEAN;
	struct mls_seg_buf *buf = idle_buf(writer);
	int err;

	MLS_INVARIANT(buf != NULL);
	err = mls_segment_table_open_run(writer->table, class, buf, &buf->run, &buf->birth, &buf->key);
	if (err)
		return err;
	for (uint32_t i = 0; i < writer->nr_slots; i++)
		atomic_store_explicit(&buf->sealed[i], 0, memory_order_relaxed);
	buf->nr_taken = buf->nr_written = buf->nr_issued = buf->nr_claimed = 0;
	buf->rest_out = false;
	atomic_store(&buf->nr_unsealed, 0);
	atomic_store(&buf->nr_unindexed, 0);
	buf->nr_out = buf->nr_writing = 0;
	buf->nr_calm = 0;
	buf->epoch = epoch;
	buf->stream = stream;
	buf->state = MLS_BUF_FILLING;
	writer->open[stream] = buf;
	return 0;
}

/* Of the stream's open segment. */
static void give_slots(struct mls_seg_writer *writer, enum mls_seg_stream stream, const struct mls_seg_taker *taker)
{
	struct mls_seg_buf *buf = writer->open[stream];
	uint32_t got = (uint32_t)mls_min_u64(taker->nr, writer->nr_slots - buf->nr_taken);

	*taker->slot = buf->nr_taken;
	*taker->got = got;
	*taker->buf = buf;
	buf->nr_taken += got;
	atomic_fetch_add(&buf->nr_unsealed, got);
	atomic_fetch_add(&buf->nr_unindexed, got);
	if (buf->nr_taken == writer->nr_slots) {
		writer->open[stream] = NULL;
		buf->state = MLS_BUF_FULL;
	}
}

/* false: no buffer now. Lock held. */
static bool try_to_serve(struct mls_seg_writer *writer, enum mls_seg_stream stream, struct mls_seg_taker *taker)
{
	if (!writer->open[stream]) {
		taker->err = writer->err;
		if (!taker->err && !idle_buf(writer))
			return false;
		if (!taker->err)
			taker->err = open_segment(writer, stream, taker->epoch);
	}
	if (!taker->err)
		give_slots(writer, stream, taker);
	return true;
}

/* Whoever waits for slots gets what there is; moves first, as they make room. Lock held. */
static void serve_takers(struct mls_seg_writer *writer)
{
	static const enum mls_seg_stream order[MLS_NR_STREAMS] = { MLS_STREAM_CLEAN, MLS_STREAM_USER };

	for (unsigned i = 0; i < MLS_NR_STREAMS; i++) {
		struct mls_seg_takers *takers = &writer->takers[order[i]];
		struct mls_seg_taker *first;

		while ((first = takers->first) && try_to_serve(writer, order[i], first)) {
			takers->first = first->next;
			if (!first->next)
				takers->end = &takers->first;
			first->served = true;
			pthread_cond_signal(&first->wake);
		}
		if (takers->first && buf_pool_has_idle(writer))
			pthread_cond_signal(&takers->first->wake);
	}
}

/* Lock held. Waits for whoever came before, and for a buffer. */
static void wait_for_slots(struct mls_seg_writer *writer, enum mls_seg_stream stream, struct mls_seg_taker *taker)
{
	struct mls_seg_takers *takers = &writer->takers[stream];

	pthread_cond_init(&taker->wake, NULL);
	taker->next = NULL;
	*takers->end = taker;
	takers->end = &taker->next;
	while (!taker->served) {
		if (takers->first == taker && buf_pool_has_idle(writer)) {	/* a reader is about to let go */
			pthread_mutex_unlock(&writer->lock);
			sched_yield();
			pthread_mutex_lock(&writer->lock);
			serve_takers(writer);
		} else {
			pthread_cond_wait(&taker->wake, &writer->lock);
		}
	}
	pthread_cond_destroy(&taker->wake);
}

int mls_seg_take(struct mls_seg_writer *writer, enum mls_seg_stream stream, uint32_t nr, uint64_t epoch,
		 struct mls_seg_buf **buf, uint32_t *slot, uint32_t *got)
{
	struct mls_seg_taker taker = { .nr = nr, .epoch = epoch, .buf = buf, .slot = slot, .got = got };

	MLS_INVARIANT(nr > 0);
	pthread_mutex_lock(&writer->lock);
	if (writer->takers[stream].first || !try_to_serve(writer, stream, &taker))
		wait_for_slots(writer, stream, &taker);
	pthread_mutex_unlock(&writer->lock);
	return taker.err;
}

void mls_seg_writer_begin(struct mls_seg_writer *writer, uint64_t session)
{
	writer->session = session;
	atomic_store(&writer->epoch, session);
	atomic_store(&writer->nr_sealed, 0);
}

void mls_seg_writer_epoch(struct mls_seg_writer *writer, uint64_t epoch)
{
	atomic_store(&writer->epoch, epoch);
}

struct mls_write_order mls_seg_order_of_past(const struct mls_seg_writer *writer)
{
	return (struct mls_write_order){ .epoch = writer->session, .nr = 0 };
}

/* The orders of the next nr blocks: that of the first. */
static struct mls_write_order orders_of_now(struct mls_seg_writer *writer, uint32_t nr)
{
	struct mls_write_order order = { .epoch = atomic_load(&writer->epoch) };

	order.nr = atomic_fetch_add(&writer->nr_sealed, nr) + 1;
	return order;
}

struct mls_write_order mls_seg_order_of_now(struct mls_seg_writer *writer)
{
	return orders_of_now(writer, 1);
}

static int seal_block(struct mls_seg_writer *writer, struct mls_seg_buf *buf, uint32_t slot, uint64_t lba,
		      const void *plain, const struct mls_write_order *order, struct mls_index_rec *rec)
{
	struct mls_seg_slot *noted = &buf->slots[slot];
	uint8_t *sealed = mls_block_at(buf->blocks, slot);
	int err = mls_data_seal(buf->key, buf->birth, slot, lba, plain, sealed, noted->tag);

	if (err) {
		memset(sealed, 0, MLS_BLOCK_BYTES);
		memset(noted->tag, 0, MLS_TAG_BYTES);
	}
	noted->lba = err ? MLS_SLOT_VOID : lba;
	noted->order = *order;
	rec->lba = lba;
	rec->hba = mls_loc_make(mls_chunk_alloc_hba(writer->alloc, buf->run) + slot, buf->birth);
	memcpy(rec->tag, noted->tag, MLS_TAG_BYTES);
	atomic_store_explicit(&buf->sealed[slot], 1, memory_order_release);
	return err;
}

static void note_sealed(struct mls_seg_writer *writer, struct mls_seg_buf *buf, uint32_t nr)
{
	if (atomic_fetch_sub(&buf->nr_unsealed, nr) != nr)
		return;
	pthread_mutex_lock(&writer->lock);
	mls_seg_maybe_enqueue_locked(writer, buf);
	mls_seg_unlock(writer);
}

int mls_seg_seal(struct mls_seg_writer *writer, struct mls_seg_buf *buf, uint32_t slot, uint32_t nr, uint64_t lba,
		 const void *plain, struct mls_index_rec *recs)
{
	struct mls_write_order order = orders_of_now(writer, nr);
	const uint8_t *block = plain;
	int err = 0;

	for (uint32_t i = 0; i < nr; i++, order.nr++, block += MLS_BLOCK_BYTES) {
		int e = seal_block(writer, buf, slot + i, lba + i, block, &order, &recs[i]);

		err = err ? err : e;
	}
	note_sealed(writer, buf, nr);
	return err;
}

int mls_seg_seal_moved(struct mls_seg_writer *writer, struct mls_seg_buf *buf, uint32_t slot, uint64_t lba,
		       const void *plain, const struct mls_write_order *order, struct mls_index_rec *rec)
{
	int err = seal_block(writer, buf, slot, lba, plain, order, rec);

	note_sealed(writer, buf, 1);
	return err;
}

void mls_seg_void(struct mls_seg_writer *writer, struct mls_seg_buf *buf, uint32_t slot, uint32_t nr)
{
	pthread_mutex_lock(&writer->lock);
	if (buf->state == MLS_BUF_FILLING || buf->state == MLS_BUF_FULL)	/* nobody reads them now */
		for (uint32_t i = 0; i < nr; i++)
			buf->slots[slot + i].lba = MLS_SLOT_VOID;
	pthread_mutex_unlock(&writer->lock);
}

void mls_seg_indexed(struct mls_seg_writer *writer, struct mls_seg_buf *buf, uint32_t nr)
{
	unsigned before = atomic_fetch_sub(&buf->nr_unindexed, nr);

	MLS_INVARIANT(before >= nr);
	if (before > nr)
		return;
	pthread_mutex_lock(&writer->lock);
	mls_seg_maybe_close_locked(writer, buf);
	pthread_mutex_unlock(&writer->lock);
}

/* ---- Birth and death of the writer ---- */

static int buf_init(struct mls_seg_writer *writer, struct mls_seg_buf *buf)
{
	buf->blocks = mls_blocks_alloc(writer->run_blocks);
	buf->slots = calloc(writer->nr_slots, sizeof *buf->slots);
	buf->scratch = malloc(mls_seg_summary_bytes(writer->nr_slots));
	buf->sealed = calloc(writer->nr_slots, sizeof *buf->sealed);
	if (!buf->blocks || !buf->slots || !buf->scratch || !buf->sealed)
		return MLS_ENOMEM;
	/* Touch it now: the kernel may be reclaiming memory through us later. */
	memset(buf->blocks, 0, (size_t)writer->run_blocks * MLS_BLOCK_BYTES);
	memset(buf->scratch, 0, mls_seg_summary_bytes(writer->nr_slots));
	return 0;
}

static void buf_release(struct mls_seg_buf *buf)
{
	mls_blocks_free(buf->blocks);
	free(buf->slots);
	free(buf->scratch);
	free(buf->sealed);
}

int mls_seg_writer_new(struct mls_seg_writer **out, struct mls_block_dev *dev, struct mls_chunk_alloc *alloc,
		       struct mls_segment_table *table, const struct mls_keyring *keys, unsigned nr_bufs,
		       bool inline_work)
{
	struct mls_seg_writer *writer = calloc(1, sizeof *writer);
	int err = 0;

	if (!writer)
		return MLS_ENOMEM;
	pthread_mutex_init(&writer->lock, NULL);
	pthread_cond_init(&writer->changed, NULL);
	pthread_cond_init(&writer->work, NULL);
	writer->dev = dev;
	writer->alloc = alloc;
	writer->table = table;
	writer->keys = keys;
	writer->run_blocks = mls_chunk_alloc_run_blocks(alloc);
	writer->nr_slots = mls_segment_slots(writer->run_blocks);
	writer->queue_end = &writer->queue;
	for (unsigned stream = 0; stream < MLS_NR_STREAMS; stream++)
		writer->takers[stream].end = &writer->takers[stream].first;
	writer->nr_bufs = nr_bufs;
	writer->bufs = calloc(nr_bufs, sizeof *writer->bufs);
	if (!writer->bufs)
		err = MLS_ENOMEM;
	for (unsigned i = 0; i < nr_bufs && !err; i++)
		err = buf_init(writer, &writer->bufs[i]);
	while (!err && !inline_work && writer->nr_flushers < MLS_NR_FLUSHERS) {
		if (pthread_create(&writer->flushers[writer->nr_flushers], NULL, flusher_main, writer))
			err = MLS_ENOMEM;
		else
			writer->nr_flushers++;
	}
	if (err) {
		mls_seg_writer_free(writer);
		return err;
	}
	*out = writer;
	return 0;
}

void mls_seg_writer_free(struct mls_seg_writer *writer)
{
	if (!writer)
		return;
	pthread_mutex_lock(&writer->lock);
	writer->stop = true;
	pthread_cond_broadcast(&writer->work);
	pthread_mutex_unlock(&writer->lock);
	for (unsigned i = 0; i < writer->nr_flushers; i++)
		pthread_join(writer->flushers[i], NULL);
	for (unsigned i = 0; writer->bufs && i < writer->nr_bufs; i++)
		buf_release(&writer->bufs[i]);
	free(writer->bufs);
	mls_blocks_free(writer->zeros);
	pthread_cond_destroy(&writer->work);
	pthread_cond_destroy(&writer->changed);
	pthread_mutex_destroy(&writer->lock);
	free(writer);
}
