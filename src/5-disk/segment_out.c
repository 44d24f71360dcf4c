/* SPDX-License-Identifier: MPL-2.0 */
/*
 * segment_out.c - write-outs: what was taken until now goes to the device, though its segment isn't full.
 *
 * A write-out writes the slots of an open segment that aren't written yet, and waits for the segments that are on
 * their way. Either it writes itself, or it gathers the transfers for a sync, which sends them along with its WAL
 * group. Small ones claim the host's blocks of the next ones, by zeros; none of these may be under way when their
 * slots are written (claiming).
 *
 * Who fills a segment doesn't wait for its write-out. Then the flusher leaves out what that is writing and leaves the
 * rest of the work to the last of them to end. But what was gathered for a sync may wait for others, so the flusher writes it, too.
 *
 * Invariant: nr_written never goes back; [nr_written, upto) of a transfer under way is sealed, and its buffer isn't
 * closed before (nr_out).
 */
#include "5-disk/segment_internal.h"

#include <sched.h>

#include "0-bio/block_dev.h"
#include "base/buf.h"
#include "base/checked.h"
#include "base/err.h"

/* A write-out of few slots is a sync of few blocks, and more like it will come. */
#define SMALL_WRITE_OUT 16u
#define CLAIM_SLOTS 64u
#define CALM_WRITE_OUTS 8u		/* small ones, after a large one, before zeros are worth it again */

/* Lock held. The sealing threads don't wait for anything, so this ends within microseconds. */
static void wait_sealed(struct mls_seg_writer *writer, struct mls_seg_buf *buf, uint32_t from, uint32_t upto)
{
	pthread_mutex_unlock(&writer->lock);
	for (uint32_t i = from; i < upto; i++)
		while (!atomic_load_explicit(&buf->sealed[i], memory_order_acquire))
			sched_yield();
	pthread_mutex_lock(&writer->lock);
}

/* How far to write zeros behind a write-out; upto: not at all. */
static uint32_t claim_upto(const struct mls_seg_writer *writer, const struct mls_seg_buf *buf, uint32_t upto)
{
	if (!writer->zeros || buf->nr_calm > 0 || upto <= buf->nr_claimed)
		return upto;
	return (uint32_t)mls_min_u64(upto + CLAIM_SLOTS, writer->nr_slots);
}

static int write_and_claim(struct mls_seg_writer *writer, struct mls_seg_buf *buf, uint32_t from, uint32_t upto,
			   uint32_t claim)
{
	uint64_t hba = mls_chunk_alloc_hba(writer->alloc, buf->run);
	struct mls_io ios[2] = { { hba + from, upto - from, 0, mls_block_at(buf->blocks, from) },
				 { hba + upto, claim - upto, 0, writer->zeros } };

	return mls_block_dev_writev(writer->dev, ios, claim > upto ? 2 : 1);
}

/* Lock held. One that wrote the slots before upto has come back with err. */
static void transfer_done(struct mls_seg_writer *writer, struct mls_seg_buf *buf, uint32_t upto, int err)
{
	buf->nr_out--;
	/* The flusher may have written all meanwhile, or another write-out more than this one. */
	if (!err && buf->nr_written < upto)
		buf->nr_written = upto;
	mls_seg_maybe_written_locked(writer, buf);
	mls_seg_maybe_close_locked(writer, buf);
}

/* Of a FILLING buffer that nobody claims slots for. */
static int write_out_open(struct mls_seg_writer *writer, struct mls_seg_buf *buf)
{
	uint32_t from = buf->nr_written, upto = buf->nr_taken, claim;
	bool claims;
	int err;

	if (from == upto)
		return 0;
	/* Few may also be what came while many were on their way; several times in a row it isn't that. */
	if (upto - from > SMALL_WRITE_OUT)
		buf->nr_calm = CALM_WRITE_OUTS;
	else if (buf->nr_calm > 0)
		buf->nr_calm--;
	claim = claim_upto(writer, buf, upto);
	claims = claim > upto;
	buf->nr_out++;
	buf->nr_writing++;
	buf->nr_issued = (uint32_t)mls_max_u64(buf->nr_issued, upto);
	buf->claiming = claims;
	wait_sealed(writer, buf, from, upto);
	pthread_mutex_unlock(&writer->lock);
	err = write_and_claim(writer, buf, from, upto, claim);
	pthread_mutex_lock(&writer->lock);
	if (claims) {
		if (!err)
			buf->nr_claimed = claim;
		buf->claiming = false;
		pthread_cond_broadcast(&writer->changed);
	}
	buf->nr_writing--;
	transfer_done(writer, buf, upto, err);
	return err;
}

/* A buffer is out if it is idle again, written, or of a later life than when we looked. */
static bool is_out(const struct mls_seg_buf *buf, uint64_t birth)
{
	return buf->birth != birth || buf->state == MLS_BUF_IDLE || buf->state == MLS_BUF_WRITTEN;
}

/* The open segment of its stream: what of it isn't out goes into out. One that was opened since this stream's was
 * gathered has nothing from before the call. */
static void gather_open(struct mls_seg_writer *writer, struct mls_seg_buf *buf, struct mls_seg_out *out)
{
	uint32_t from = buf->nr_written, upto = buf->nr_taken;

	for (unsigned i = 0; i < out->nr; i++)
		if (out->bufs[i]->stream == buf->stream)
			return;
	if (from == upto)
		return;
	MLS_INVARIANT(out->nr < MLS_NR_STREAMS);
	out->ios[out->nr] = (struct mls_io){ mls_chunk_alloc_hba(writer->alloc, buf->run) + from, upto - from,
					     MLS_EABORTED, mls_block_at(buf->blocks, from) };
	out->bufs[out->nr] = buf;
	out->upto[out->nr++] = upto;
	buf->nr_out++;
	wait_sealed(writer, buf, from, upto);
}

/* out NULL: all is written here. */
static int write_out_buf(struct mls_seg_writer *writer, struct mls_seg_buf *buf, struct mls_seg_out *out)
{
	uint64_t birth = buf->birth;

	while (buf->claiming)
		pthread_cond_wait(&writer->changed, &writer->lock);
	if (is_out(buf, birth))
		return 0;
	if (buf->state == MLS_BUF_FILLING && out) {
		gather_open(writer, buf, out);
		return 0;
	}
	if (buf->state == MLS_BUF_FILLING)
		return write_out_open(writer, buf);
	if (buf->state == MLS_BUF_FAILED)
		mls_seg_flush_buf_locked(writer, buf);
	while (!is_out(buf, birth) && buf->state != MLS_BUF_FAILED)
		pthread_cond_wait(&writer->changed, &writer->lock);
	return is_out(buf, birth) ? 0 : writer->err;
}

/* Lock held. No buffer is in trouble any more: forget the error. */
static void forget_error(struct mls_seg_writer *writer)
{
	for (unsigned i = 0; i < writer->nr_bufs; i++)
		if (writer->bufs[i].state == MLS_BUF_FAILED)
			return;
	writer->err = 0;
}

static int write_out(struct mls_seg_writer *writer, struct mls_seg_out *out)
{
	int err = 0;

	pthread_mutex_lock(&writer->lock);
	for (unsigned i = 0; i < writer->nr_bufs; i++) {
		int e = write_out_buf(writer, &writer->bufs[i], out);

		err = err ? err : e;
	}
	forget_error(writer);
	mls_seg_unlock(writer);
	return err;
}

int mls_seg_write_out(struct mls_seg_writer *writer)
{
	return write_out(writer, NULL);
}

int mls_seg_out_begin(struct mls_seg_writer *writer, struct mls_seg_out *out)
{
	int err, err_end;

	out->nr = 0;
	err = write_out(writer, out);
	if (!err)
		return 0;
	err_end = mls_seg_out_end(writer, out);
	MLS_INVARIANT(out->nr == 0 && (err_end == 0 || err_end == MLS_EABORTED));	/* none was tried */
	return err;
}

int mls_seg_out_end(struct mls_seg_writer *writer, struct mls_seg_out *out)
{
	int err = 0;

	pthread_mutex_lock(&writer->lock);
	for (unsigned i = 0; i < out->nr; i++) {
		struct mls_seg_buf *buf = out->bufs[i];

		err = err ? err : out->ios[i].err;
		transfer_done(writer, buf, out->upto[i], out->ios[i].err);
	}
	mls_seg_unlock(writer);
	out->nr = 0;
	return err;
}

/* Of a FILLING buffer. */
static bool rest_is_small(const struct mls_seg_writer *writer, const struct mls_seg_buf *buf)
{
	uint32_t rest = buf->nr_taken - buf->nr_written;

	return rest == 0 || (rest <= SMALL_WRITE_OUT && (!writer->zeros || buf->nr_taken <= buf->nr_claimed));
}

bool mls_seg_out_is_small(struct mls_seg_writer *writer)
{
	bool small = true;

	pthread_mutex_lock(&writer->lock);
	for (unsigned i = 0; i < writer->nr_bufs && small; i++) {
		const struct mls_seg_buf *buf = &writer->bufs[i];

		if (buf->state == MLS_BUF_FILLING)
			small = rest_is_small(writer, buf);
		else
			small = buf->state == MLS_BUF_IDLE || buf->state == MLS_BUF_WRITTEN;
	}
	pthread_mutex_unlock(&writer->lock);
	return small;
}

int mls_seg_finish(struct mls_seg_writer *writer)
{
	pthread_mutex_lock(&writer->lock);
	for (unsigned stream = 0; stream < MLS_NR_STREAMS; stream++) {
		struct mls_seg_buf *buf = writer->open[stream];

		if (!buf)
			continue;
		writer->open[stream] = NULL;
		buf->state = MLS_BUF_FULL;
		mls_seg_maybe_enqueue_locked(writer, buf);
	}
	mls_seg_unlock(writer);
	return mls_seg_write_out(writer);
}

int mls_seg_writer_claim_ahead(struct mls_seg_writer *writer)
{
	writer->zeros = mls_blocks_zalloc(CLAIM_SLOTS);
	return writer->zeros ? 0 : MLS_ENOMEM;
}
