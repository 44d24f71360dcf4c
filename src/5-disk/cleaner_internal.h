/* SPDX-License-Identifier: MPL-2.0 */
/*
 * cleaner_internal.h - the cleaner as its own files see it; see cleaner.h.
 *
 * Files    cleaner.c: threads, and what callers wait for; cleaner_round.c: one round; cleaner_room.c: how much is to be
 *          free; cleaner_sync.c: syncs that free what was cleaned; cleaner_idle.c: when nobody writes; cleaner_pace.c:
 *          how fast writers may.
 */
#ifndef MLS_DISK_CLEANER_INTERNAL_H
#define MLS_DISK_CLEANER_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "5-disk/cleaner.h"
#include "5-disk/mover.h"

#define TICK_NS 1000000000u	/* how often an idle cleaner looks around */

struct mls_cleaner {
	struct mls_disk *disk;
	pthread_mutex_t lock;
	pthread_cond_t work, sync_work, round_done;
	pthread_t thread, syncer;
	bool has_thread, has_syncer, stop, sync_wanted;
	atomic_bool asked;
	unsigned nr_waiting;
	uint64_t rounds;		/* finished */
	uint64_t vain_round;		/* the last that gained nothing */
	int round_err;			/* 0: the last round gained something */
	atomic_uint_fast64_t low_runs;	/* free runs, and ... */
	atomic_uint_fast64_t low_room;	/* ... runs that users may take, from which on writers are slowed */
	atomic_uint_fast64_t start_room;	/* at least low_room: from which on there's work to do */
	uint64_t live_compacted;	/* live blocks right after the last full compaction; 0: there was none yet */
	uint64_t live_opened;		/* and when the disk was opened */
	unsigned nr_poor;		/* rounds in a row that gained less than a segment */
	uint64_t sync_compacted;	/* the last sync it knew of */
	uint64_t buried_compacted;	/* discarded blocks then */
	uint64_t seen_changes;		/* users' writes and discards when last looked at */
	uint64_t changed_ns;		/* when they were seen to differ */
	uint64_t looked_ns;		/* at them, the last time */
	uint64_t seen_reads;		/* users' reads when they were last found to be many */
	struct mls_movers *movers;
	pthread_t teller;
	bool has_teller;		/* the cleaner's thread's, until that is over */
	atomic_bool told;		/* the index has told once what it hides */
	/* How fast blocks become free, and when the next block may be written. */
	atomic_uint_fast64_t block_ns, next_write_ns;
	uint64_t supply_began_ns, supply_runs, supply_written;
	atomic_uint nr_before_sync;	/* users that are about to sync */
	uint64_t synced_written;	/* strict policy: blocks that users had written at their last sync */
	uint64_t sync_runs;		/* and the runs they write between two syncs: the most of late */
};

/* ---- cleaner_round.c; for the cleaner's thread ---- */

/* 0 when something was gained, MLS_ENOSPC when there's nothing to gain. */
MLS_MUST_CHECK int mls_cleaner_round(struct mls_cleaner *cleaner);
/* By the counts; what is known to be hidden isn't. */
uint64_t mls_cleaner_live_blocks(struct mls_cleaner *cleaner);
/* Segments with at most max_live live blocks that may be emptied now, fewest live first; walk: those without a summary,
 * too. Returns how many. */
size_t mls_cleaner_victims(struct mls_cleaner *cleaner, uint32_t max_live, bool walk, struct mls_seg_info *infos,
			   size_t max);
/* Have the index tell what it hides. */
void mls_cleaner_learn_hidden(struct mls_cleaner *cleaner);
/* All of the index; *progress: records were dropped. */
MLS_MUST_CHECK int mls_cleaner_compact(struct mls_cleaner *cleaner, bool *progress);

/* ---- cleaner_room.c ---- */

bool mls_cleaner_enough_free(struct mls_cleaner *cleaner);
/* By how many runs there are, and what users write between two syncs. */
void mls_cleaner_set_reserves(struct mls_cleaner *cleaner);
/* By what is dead: after each round. */
void mls_cleaner_set_start_room(struct mls_cleaner *cleaner);
/* Strict policy, a user syncs: what he writes until the next sync should find its space free already. */
void mls_cleaner_expect_as_much_again(struct mls_cleaner *cleaner);

/* ---- cleaner_sync.c ---- */

/* MLS_ENOSPC: not under this policy. */
MLS_MUST_CHECK int mls_cleaner_early_sync(struct mls_disk *disk);
/* With no room left, or nothing else to do (idle), the cleaner waits for the sync: more moves would take what is
 * kept for the index. err: what the round came to; 0 after a sync. */
MLS_MUST_CHECK int mls_cleaner_sync_if_due(struct mls_cleaner *cleaner, bool idle, int err);
/* A mover is done with a victim. */
void mls_cleaner_on_emptied(void *cleaner);
void *mls_cleaner_syncer(void *cleaner);	/* a thread */

/* ---- cleaner_idle.c ---- */

/* Some of what is to be done when nobody asks for anything. Returns how long there is no more, in ns. */
uint64_t mls_cleaner_housekeeping(struct mls_cleaner *cleaner);

/* ---- cleaner_pace.c ---- */

void mls_cleaner_pace_init(struct mls_cleaner *cleaner);
void mls_cleaner_measure_supply(struct mls_cleaner *cleaner);	/* after each round */

#endif
