/* SPDX-License-Identifier: MPL-2.0 */
/*
 * segment_internal.h - what segment.c (slots, full segments) and segment_out.c (write-outs) share.
 *
 * Everything in struct mls_seg_writer but the atomics is under lock.
 */
#ifndef MLS_DISK_SEGMENT_INTERNAL_H
#define MLS_DISK_SEGMENT_INTERNAL_H

#include <pthread.h>

#include "5-disk/segment.h"

/* Segments under way to the device at once: while one waits, another is pinned and queued. */
#define MLS_NR_FLUSHERS 2u

/* One who waits for slots, on his own stack. They are handed to him, in the order of coming: were all woken to
 * look for themselves, most would go back to sleep, and some would never be the first. */
struct mls_seg_taker {
	uint32_t nr;
	uint64_t epoch;
	struct mls_seg_buf **buf;
	uint32_t *slot, *got;
	int err;
	bool served;
	pthread_cond_t wake;		/* served, or first and to look again */
	struct mls_seg_taker *next;
};

struct mls_seg_takers {
	struct mls_seg_taker *first, **end;
};

struct mls_seg_writer {
	pthread_mutex_t lock;
	pthread_cond_t changed;		/* a buffer changed its state */
	pthread_cond_t work;		/* for the flusher */
	struct mls_block_dev *dev;
	struct mls_chunk_alloc *alloc;
	struct mls_segment_table *table;
	const struct mls_keyring *keys;
	uint32_t run_blocks, nr_slots;
	unsigned nr_bufs;
	struct mls_seg_buf *bufs;
	struct mls_seg_buf *open[MLS_NR_STREAMS];
	struct mls_seg_takers takers[MLS_NR_STREAMS];
	struct mls_seg_buf *queue, **queue_end;
	pthread_t flushers[MLS_NR_FLUSHERS];
	unsigned nr_flushers;
	unsigned nr_untold;		/* segments in the queue of which the flushers are yet to be told */
	uint64_t session;		/* sync id of its first group */
	atomic_uint_fast64_t epoch, nr_sealed;	/* the order of the next block */
	int err;			/* of the last failed segment write; 0 once it worked */
	uint8_t *zeros;			/* for segment_out.c; NULL: nothing is claimed ahead */
	bool stop;
};

/* WRITTEN and all indexed: the segment is closed, the buffer idle. Lock held. */
void mls_seg_maybe_close_locked(struct mls_seg_writer *writer, struct mls_seg_buf *buf);

/* FULL and the last slot sealed: off it goes. Lock held; let it go by mls_seg_unlock. */
void mls_seg_maybe_enqueue_locked(struct mls_seg_writer *writer, struct mls_seg_buf *buf);

/* Lets go of the lock, and only then wakes the flushers. On busy processors who is woken takes that of who woke him: with
 * the lock in his hand he stood still for 3 to 40 ms, and all writers behind him, a fifth of the time. */
void mls_seg_unlock(struct mls_seg_writer *writer);

/* All of a WRITING segment is on the device, if what the flusher wrote and what write-outs were writing is. Lock held. */
void mls_seg_maybe_written_locked(struct mls_seg_writer *writer, struct mls_seg_buf *buf);

/* One whole segment to the device, but for what a write-out is just bringing there. Lock held, let go for the I/O. */
void mls_seg_flush_buf_locked(struct mls_seg_writer *writer, struct mls_seg_buf *buf);

#endif
