/* SPDX-License-Identifier: MPL-2.0 */
/*
 * segment.h - layer 5: segments in the making.
 *
 * Role     Hands out slots, keeps the sealed blocks of open segments in memory, brings them to
 *          the device: full segments in the background and at once with their summary, the rest
 *          of open ones at a sync.
 * A slot   is taken (belongs to one writer), sealed (ciphertext, LBA and tag are in the buffer),
 *          and indexed (its record is in the index, or will never be). Between taken and sealed
 *          a writer must not wait for anything: a sync waits for it.
 * Streams  Users' writes and the cleaner's moves fill segments of their own.
 * Errors   A segment that couldn't be written stays in memory and is tried again by the next
 *          write_out; until that works, taking slots answers the error. Writing the same sealed
 *          bytes to the same place again uses no nonce twice.
 * Threads  Any. Locks: writer->lock, then the segment table's.
 * Source   doc/design.md 8; doc/format.md "Segment".
 */
#ifndef MLS_DISK_SEGMENT_H
#define MLS_DISK_SEGMENT_H

#include <stdatomic.h>

#include "5-disk/seg_summary.h"
#include "5-disk/segment_table.h"
#include "format/mlsdisk_format.h"

enum mls_seg_stream { MLS_STREAM_USER, MLS_STREAM_CLEAN, MLS_NR_STREAMS };

enum mls_seg_buf_state {
	MLS_BUF_IDLE,		/* in the pool */
	MLS_BUF_FILLING,	/* the open segment of a stream */
	MLS_BUF_FULL,		/* all taken; waits for the last seal, then for the flusher */
	MLS_BUF_WRITING,	/* with the flusher */
	MLS_BUF_FAILED,		/* the device refused; to be tried again */
	MLS_BUF_WRITTEN,	/* on the device; waits for the last slot to be indexed */
};

struct mls_seg_buf {
	uint8_t *blocks;		/* run_blocks of them: slots, then the summary */
	struct mls_seg_slot *slots;
	atomic_uchar *sealed;		/* by slot */
	uint8_t *scratch;		/* for the summary, before it is sealed */
	struct mls_data_key *key;	/* borrowed: the table holds it while the segment is open */
	uint64_t run, birth, epoch;
	uint32_t nr_taken, nr_written;	/* nr_written: on the device */
	uint32_t nr_issued;		/* slots before it are written, or a write-out is writing them now */
	uint32_t rest_from;		/* WRITING, rest_out: what the flusher wrote begins here */
	bool rest_out;
	uint32_t nr_claimed;		/* slots the host has written blocks for, see claim_upto */
	uint8_t nr_calm;		/* small write-outs until it claims again: there was a large one */
	unsigned nr_out;		/* partial writes under way, or gathered for a sync that will write them */
	unsigned nr_writing;		/* those that wait for nothing but the device */
	bool claiming;			/* one of them writes zeros to slots behind those taken */
	atomic_uint nr_unsealed, nr_unindexed;
	atomic_uint pins;		/* readers */
	enum mls_seg_buf_state state;
	enum mls_seg_stream stream;
	struct mls_seg_buf *next;	/* in the flusher's queue */
};

/* Readers keep a buffer from being reused. */
static inline void mls_seg_buf_get(struct mls_seg_buf *buf)
{
	atomic_fetch_add_explicit(&buf->pins, 1, memory_order_acquire);
}

static inline void mls_seg_buf_put(struct mls_seg_buf *buf)
{
	atomic_fetch_sub_explicit(&buf->pins, 1, memory_order_release);
}

struct mls_seg_writer;

/* nr_bufs whole segments in memory, allocated here. inline_work: no flusher thread. */
MLS_MUST_CHECK int mls_seg_writer_new(struct mls_seg_writer **writer, struct mls_block_dev *dev,
				      struct mls_chunk_alloc *alloc, struct mls_segment_table *table,
				      const struct mls_keyring *keys, unsigned nr_bufs, bool inline_work);
void mls_seg_writer_free(struct mls_seg_writer *writer);	/* stops the flusher; writes nothing */

/* A session begins, before the first slot is taken: the sync id of its first group. */
void mls_seg_writer_begin(struct mls_seg_writer *writer, uint64_t session);

/* An epoch has begun: a sync has just cut. Sealed slots are of this one (or a later one). */
void mls_seg_writer_epoch(struct mls_seg_writer *writer, uint64_t epoch);

/*
 * Up to nr slots in a row. May wait for a buffer (back-pressure), never for space. Who waits is served in the
 * order of coming, within a stream.
 * Returns 0; MLS_ENOSPC: no run for this stream; what a failed write answered.
 */
MLS_MUST_CHECK int mls_seg_take(struct mls_seg_writer *writer, enum mls_seg_stream stream, uint32_t nr,
				uint64_t epoch, struct mls_seg_buf **buf, uint32_t *slot, uint32_t *got);

/*
 * Seal nr neighbours, from lba on, into slots from slot on; gives their records for the index. Each slot taken
 * must be sealed. On error (the crypto library failed) the slots count as sealed, and those that failed are lost.
 */
MLS_MUST_CHECK int mls_seg_seal(struct mls_seg_writer *writer, struct mls_seg_buf *buf, uint32_t slot, uint32_t nr,
				uint64_t lba, const void *plain, struct mls_index_rec *recs);

/* The same of one block that is moved: it keeps the order of the write which it comes from. */
MLS_MUST_CHECK int mls_seg_seal_moved(struct mls_seg_writer *writer, struct mls_seg_buf *buf, uint32_t slot,
				      uint64_t lba, const void *plain, const struct mls_write_order *order,
				      struct mls_index_rec *rec);

/* nr slots from slot on didn't enter the index: the summary shouldn't name them. Before mls_seg_indexed. (If the
 * summary is on its way already it does; what was written next has a later order.) */
void mls_seg_void(struct mls_seg_writer *writer, struct mls_seg_buf *buf, uint32_t slot, uint32_t nr);

/* The order of a block that is moved and whose own one would take a look at its segment's summary: that of a write
 * which begins now. Before the look at the index. */
struct mls_write_order mls_seg_order_of_now(struct mls_seg_writer *writer);

/* The order of a block whose own one isn't known (its segment, of an earlier session, has no summary): later than
 * all of earlier sessions, earlier than all of this one. */
struct mls_write_order mls_seg_order_of_past(const struct mls_seg_writer *writer);

/* nr slots have their records in the index, or never will. */
void mls_seg_indexed(struct mls_seg_writer *writer, struct mls_seg_buf *buf, uint32_t nr);

/*
 * The device is a file: have small write-outs claim the blocks of the next ones, too, by zeros. A host's file
 * system keeps a journal of its own, and the flush of a first write to a block waits for that.
 */
MLS_MUST_CHECK int mls_seg_writer_claim_ahead(struct mls_seg_writer *writer);

/* Bring every slot taken before the call to the device (no flush). */
MLS_MUST_CHECK int mls_seg_write_out(struct mls_seg_writer *writer);

/*
 * The same with transfers that somebody else carries out, along with his own: begin brings what isn't in an open
 * segment to the device and gathers the rest. Each begin that answered 0 needs its end, which looks at the err of
 * each io (MLS_EABORTED as long as it wasn't tried) and answers the first.
 */
struct mls_seg_out {
	struct mls_io ios[MLS_NR_STREAMS];
	struct mls_seg_buf *bufs[MLS_NR_STREAMS];
	uint32_t upto[MLS_NR_STREAMS];		/* slots of bufs[i] before this one are gathered */
	unsigned nr;
};

MLS_MUST_CHECK int mls_seg_out_begin(struct mls_seg_writer *writer, struct mls_seg_out *out);
MLS_MUST_CHECK int mls_seg_out_end(struct mls_seg_writer *writer, struct mls_seg_out *out);

/* Is all that isn't on the device a few slots that the host has blocks for? To write them can't fail for want of space. */
bool mls_seg_out_is_small(struct mls_seg_writer *writer);

/* Close the open segments, however full, with their summaries (clean close). */
MLS_MUST_CHECK int mls_seg_finish(struct mls_seg_writer *writer);

/*
 * A segment's summary, from the device. slots has room for mls_segment_slots. MLS_ENOENT: there is
 * none of this life (the segment was open at a crash).
 *
 * blocks    room for the summary's blocks; open: they are there.
 * key_salt  of the segment's key. Run and birth don't name a life: what a crashed session opened after
 *           its last sync is undone, and the next session gives the same births to the same runs. Its
 *           keys are fresh, so the salt tells whose summary it is.
 */
MLS_MUST_CHECK int mls_seg_read_summary(struct mls_seg_writer *writer, uint64_t run, uint64_t birth,
					const uint8_t key_salt[MLS_SALT_BYTES], void *blocks,
					struct mls_seg_slot *slots, uint32_t *nr_slots);
MLS_MUST_CHECK int mls_seg_open_summary(struct mls_seg_writer *writer, uint64_t run, uint64_t birth,
					const uint8_t key_salt[MLS_SALT_BYTES], const void *blocks,
					struct mls_seg_slot *slots, uint32_t *nr_slots);

#endif
