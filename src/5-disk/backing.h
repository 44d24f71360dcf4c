/* SPDX-License-Identifier: MPL-2.0 */
/*
 * backing.h - layer 5: has the host promise its space before anything depends on it.
 *
 * Role     BACKING may be a sparse file on a host that gets full. Superblocks, journal and WAL get their
 *          space at format, so that a sync never meets a full host. Runs get theirs before they are
 *          taken, some ahead of need: a writer is told MLS_ENOSPC before his data is acknowledged, and
 *          there are backed runs left for what frees others.
 * Threads  Any. Takes its own lock over the device's reserve, then the allocator's. Has one of its own.
 * Source   doc/design.md 8 "A full host".
 */
#ifndef MLS_DISK_BACKING_H
#define MLS_DISK_BACKING_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "3-log/chunk_alloc.h"
#include "5-disk/geometry.h"

struct mls_backing {
	struct mls_block_dev *dev;		/* borrowed, as the next */
	struct mls_chunk_alloc *alloc;		/* NULL: the device can't be asked */
	bool discards;
	pthread_mutex_t lock;
	uint64_t next_run;			/* to be tried, after a refusal */
	uint64_t retry_ns, told_ns;		/* not before; 0: at once. When people were last told */
	uint64_t given_then;			/* mls_chunk_alloc_nr_given at the refusal */
	atomic_uint_fast64_t nr_refused;
	pthread_t thread;
	bool has_thread;
	sem_t work;
	atomic_bool asked, stop;		/* of the thread */
};

/* inner: the device itself; dev: through which it is used. discards: may space be given back? */
void mls_backing_init(struct mls_backing *backing, struct mls_block_dev *dev, const struct mls_block_dev *inner,
		      struct mls_chunk_alloc *alloc, bool discards);
void mls_backing_release(struct mls_backing *backing);

/* From now on a thread asks the host before writers have to. Start before there are any, stop when there are no more. */
MLS_MUST_CHECK int mls_backing_start(struct mls_backing *backing);
void mls_backing_stop(struct mls_backing *backing);

/* The space of all that isn't runs. */
MLS_MUST_CHECK int mls_backing_fixed(struct mls_block_dev *dev, const struct mls_geometry *geo);

/* Before a run is taken: see that there are backed ones. Costs next to nothing when there are. */
void mls_backing_renew(struct mls_backing *backing);

#endif
