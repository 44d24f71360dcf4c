/* SPDX-License-Identifier: MPL-2.0 */
/*
 * chunk_alloc.h - layer 3: who has which run. In memory only.
 *
 * Role     BACKING behind the WAL ring is an array of runs. A run is free or has one owner: a
 *          log (as a chunk) or the disk (as a segment). Nothing is stored: at open the owners
 *          mark what is theirs, and a run marked twice is MLS_EFORMAT.
 * Reserve  Runs are taken in one of three classes; each may not take the last ones that are kept
 *          for the classes below it: MLS_RUN_USER (user data) > MLS_RUN_CLEAN (cleaning) >
 *          MLS_RUN_INDEX (flush and compaction, may take the last).
 * Stale    A free run is stale as long as the host may still keep space for it: since it was given, and
 *          after an open as nobody knows. Stale runs are borrowed to be punched, and are nobody's to take
 *          meanwhile.
 * Backed   A free run is backed if the host has promised space for it. With backing tracked, user data and
 *          cleaning take backed runs only, and leave some: a host that is full refuses a writer before
 *          anything is acknowledged, and not a flush. Runs are borrowed to be backed, too. Without
 *          tracking every run counts as backed.
 * Threads  Any; takes alloc->lock, no I/O. room and wants_backing, which each write asks, take nothing.
 */
#ifndef MLS_LOG_CHUNK_ALLOC_H
#define MLS_LOG_CHUNK_ALLOC_H

#include "mlsdisk/mlsdisk.h"

enum mls_run_class { MLS_RUN_USER, MLS_RUN_CLEAN, MLS_RUN_INDEX };

struct mls_chunk_alloc;

/* Run r lies at base_hba + r * run_blocks. */
MLS_MUST_CHECK int mls_chunk_alloc_new(struct mls_chunk_alloc **alloc, uint64_t base_hba, uint32_t run_blocks,
				       uint64_t nr_runs);
void mls_chunk_alloc_free(struct mls_chunk_alloc *alloc);
void mls_chunk_alloc_reset(struct mls_chunk_alloc *alloc);	/* all free (load of another area) */

/* Free runs that user data must leave, and that cleaning must leave. index_reserve <= user_reserve. */
void mls_chunk_alloc_set_reserve(struct mls_chunk_alloc *alloc, uint64_t user_reserve, uint64_t index_reserve);

/* From now on the index has nr_held runs more to itself, instead of those held before. false: to have them more than are
 * free for user data would be needed; nothing has changed. Never refused when it is less than before. */
bool mls_chunk_alloc_hold(struct mls_chunk_alloc *alloc, uint64_t nr_held);

/* MLS_ENOSPC: none for this class. The lowest free run: what is in use stays at the front, and what
 * the host gave space to is used again before anything else. */
MLS_MUST_CHECK int mls_chunk_alloc_take(struct mls_chunk_alloc *alloc, enum mls_run_class class, uint64_t *run);
void mls_chunk_alloc_give(struct mls_chunk_alloc *alloc, uint64_t run);

/* At load. MLS_EFORMAT: out of range or owned already. */
MLS_MUST_CHECK int mls_chunk_alloc_mark(struct mls_chunk_alloc *alloc, uint64_t run);

/* Before the first take: runs are backed only once mls_chunk_alloc_return_backed says so. */
void mls_chunk_alloc_track_backing(struct mls_chunk_alloc *alloc);

bool mls_chunk_alloc_used(struct mls_chunk_alloc *alloc, uint64_t run);
uint64_t mls_chunk_alloc_nr_free(struct mls_chunk_alloc *alloc);
uint64_t mls_chunk_alloc_nr_backed(struct mls_chunk_alloc *alloc);	/* free and backed */
/* How many runs user data may take now; 0: none. */
uint64_t mls_chunk_alloc_room(struct mls_chunk_alloc *alloc);
uint64_t mls_chunk_alloc_nr_stale(struct mls_chunk_alloc *alloc);	/* free and stale */

/*
 * Borrow up to max stale runs in a row, the highest first, leaving at least min_free free runs and
 * the keep lowest stale ones. false: none. To be returned; punched: they aren't stale any more.
 */
bool mls_chunk_alloc_borrow_stale(struct mls_chunk_alloc *alloc, uint64_t max, uint64_t min_free, uint64_t keep,
				  uint64_t *run, uint64_t *nr);
void mls_chunk_alloc_return(struct mls_chunk_alloc *alloc, uint64_t run, uint64_t nr, bool punched);

/* Of the runs that could be backed, does user data need one? */
enum mls_backing_want {
	MLS_BACKING_ENOUGH,
	MLS_BACKING_SOON,	/* there are few left. Not said after a punch, before the next run is taken */
	MLS_BACKING_NOW,	/* there is none to take */
};
enum mls_backing_want mls_chunk_alloc_wants_backing(struct mls_chunk_alloc *alloc);
/* Borrow up to max runs in a row that aren't backed, from run from on, stale ones first. false: none there. */
bool mls_chunk_alloc_borrow_unbacked(struct mls_chunk_alloc *alloc, uint64_t from, uint64_t max, uint64_t *run,
				     uint64_t *nr);
/* backed false: the host is full; from now to the next true only backed runs count as room. stale: it may
 * have given something all the same. */
void mls_chunk_alloc_return_backed(struct mls_chunk_alloc *alloc, uint64_t run, uint64_t nr, bool backed,
				   bool stale);
/* Counts what may have given the host space, or runs that it has space for. */
uint64_t mls_chunk_alloc_nr_given(struct mls_chunk_alloc *alloc);

/* More runs, at the end. nr_runs >= those there are. */
MLS_MUST_CHECK int mls_chunk_alloc_grow(struct mls_chunk_alloc *alloc, uint64_t nr_runs);

uint64_t mls_chunk_alloc_nr_runs(const struct mls_chunk_alloc *alloc);
uint32_t mls_chunk_alloc_run_blocks(const struct mls_chunk_alloc *alloc);
uint64_t mls_chunk_alloc_hba(const struct mls_chunk_alloc *alloc, uint64_t run);
/* false: hba isn't in any run. */
bool mls_chunk_alloc_run_of(const struct mls_chunk_alloc *alloc, uint64_t hba, uint64_t *run, uint32_t *slot);

#endif
