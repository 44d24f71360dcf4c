/* SPDX-License-Identifier: MPL-2.0 */
/*
 * sync_queue.h - syncs of image.raw, so that they never occupy every worker.
 *
 * Role     Up to MLS_SYNCERS_MAX workers sync the disk at once, each for its own request: the disk
 *          makes one round of them. Requests beyond that are queued, not waited for: their workers
 *          go back to reading and writing, and one that has synced answers them all after a round
 *          more.
 * Errors   A request is answered with the errno of the sync that covers it.
 * Threads  Any. lock is held for list work only, never over a sync.
 */
#ifndef MLS_FUSE_SYNC_QUEUE_H
#define MLS_FUSE_SYNC_QUEUE_H

#include <pthread.h>
#include <stdatomic.h>

#include <fuse_lowlevel.h>

#include "mlsdisk/mlsdisk.h"

/* An FSYNC, or a WRITE of O_DSYNC: that is answered with what it wrote. */
struct mls_sync_waiter {
	fuse_req_t req;
	size_t written_bytes; /* 0: not a WRITE */
};

#define MLS_SYNCERS_MAX 16u /* half of the workers: the rest reads and writes */

struct mls_sync_list {
	struct mls_sync_waiter *waiters;
	size_t nr, room;
};

struct mls_sync_queue {
	struct mls_disk *disk; /* borrowed */
	pthread_mutex_t lock;
	struct mls_sync_list waiting; /* under lock */
	struct mls_sync_list served;  /* of the worker that drains */
	unsigned nr_syncing;	      /* under lock: workers in here */
	bool draining;		      /* under lock: one of them answers those that waited */
	_Atomic uint64_t written;     /* changes that have returned */
	_Atomic uint64_t synced;      /* value of written that the last good sync covers */
};

MLS_MUST_CHECK int mls_sync_queue_init(struct mls_sync_queue *queue, struct mls_disk *disk);
void mls_sync_queue_release(struct mls_sync_queue *queue);

/* A write or discard has returned; call before it is answered. */
void mls_sync_queue_note_change(struct mls_sync_queue *queue);

/* Answer req after a sync that begins now or later. */
void mls_sync_queue_sync(struct mls_sync_queue *queue, fuse_req_t req);

/* The same for a WRITE of some bytes that must be durable before it is answered. */
void mls_sync_queue_sync_write(struct mls_sync_queue *queue, fuse_req_t req, size_t written_bytes);

/* As mls_sync_queue_sync if something was changed since the last good sync; else answer at once. */
void mls_sync_queue_sync_if_changed(struct mls_sync_queue *queue, fuse_req_t req);

#endif
