/* SPDX-License-Identifier: MPL-2.0 */
/*
 * sync_turns.h - layer 5: one round of a sync at a time, and who makes it.
 *
 * Role     Who asks for a sync needs a round that begins after he has asked. The first of those that wait for one makes
 *          it, for all of them; who asks while it runs waits for the next. What must not meet a round (a superblock's
 *          change) takes its turn among them.
 * Waiting  Each waits on a semaphore of his own and is told once, after the lock was let go, what came of his round or
 *          that it's his to make. With a condition for all, everybody woken queued for the lock again, and glibc lets the
 *          next broadcast wait until all whom the last one woke have run.
 * Threads  Any. The lock is never held while a round is made.
 * Source   doc/design.md 8.
 */
#ifndef MLS_DISK_SYNC_TURNS_H
#define MLS_DISK_SYNC_TURNS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "5-disk/sync_gather.h"

struct mls_sync_waiter;

struct mls_sync_turns {
	pthread_mutex_t lock;
	struct mls_sync_gather gather;
	struct mls_sync_waiter *first, **end;	/* in the order of coming */
	uint64_t nr_begun;			/* rounds */
	bool taken;				/* it is somebody's turn */
};

void mls_sync_turns_init(struct mls_sync_turns *turns);

/* true: make a round, for *nr callers, and end it. false: one was made; *err is what came of it. */
bool mls_sync_turns_begin_round(struct mls_sync_turns *turns, unsigned *nr, int *err);
void mls_sync_turns_end_round(struct mls_sync_turns *turns, unsigned nr, uint64_t round_ns, int err);

/* No round runs from the return of the first to the second. */
void mls_sync_turns_enter(struct mls_sync_turns *turns);
void mls_sync_turns_leave(struct mls_sync_turns *turns);

#endif
