/* SPDX-License-Identifier: MPL-2.0 */
/*
 * sync_gather.h - layer 5: a round of a sync waits a moment for those who are about to ask.
 *
 * Role     Threads that sync after each write fall into two parties: one waits for the round of the other, writes,
 *          and asks just when the next round has begun without it. Then each round serves half of them. So a round
 *          waits until as many have asked as were served by the last one or came while it ran, at most half of the
 *          time that a round takes. A single thread never waits: it has no company.
 * Threads  All calls with the lock of the rounds held.
 * Source   doc/design.md 8.
 */
#ifndef MLS_DISK_SYNC_GATHER_H
#define MLS_DISK_SYNC_GATHER_H

#include <pthread.h>
#include <stdint.h>

struct mls_sync_gather {
	pthread_cond_t all_here;
	unsigned nr_here;	/* have asked for the next round */
	unsigned nr_expected;
	uint64_t round_ns;	/* of the last one */
};

void mls_sync_gather_init(struct mls_sync_gather *gather);

/* Somebody asks for the next round. */
void mls_sync_gather_join(struct mls_sync_gather *gather);

/* The leader, before the round: wait (lock is let go) for company. The round serves those that have joined; returns
 * how many. */
unsigned mls_sync_gather_begin(struct mls_sync_gather *gather, pthread_mutex_t *lock);

/* The leader, after it: it served so many and took so long. */
void mls_sync_gather_end(struct mls_sync_gather *gather, unsigned nr_served, uint64_t round_ns);

#endif
