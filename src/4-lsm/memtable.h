/* SPDX-License-Identifier: MPL-2.0 */
/*
 * memtable.h - layer 4: the newest records, in memory, with the versions that a crash may need.
 *
 * Role     LBA -> versions, newest first, each of another epoch. Knows which of them no WAL group
 *          and no SSTable has yet (dirty), and which are only there for a recovery (shadowed).
 * Memory   All of it is allocated by new; insert never allocates. reserve grows (replay).
 * Epochs   Inserts come in ascending epochs. All dirty versions are of one epoch, the newest.
 * Threads  None of its own: the caller holds lsm->mem_lock. The iteration of a frozen table may go
 *          without, as long as nobody inserts or commits (struct mls_lsm, `flushing`).
 */
#ifndef MLS_LSM_MEMTABLE_H
#define MLS_LSM_MEMTABLE_H

#include "4-lsm/lsm_tree.h"

struct mls_memtable;

/* One version. Read-only for others. */
struct mls_mem_version {
	struct mls_index_rec rec;
	uint64_t epoch;
	uint64_t shadow_epoch;	/* of the version in front of it */
	uint32_t next;		/* LBA in the same hash bucket; of the newest version only */
	uint32_t older;		/* version of the same LBA */
	uint32_t link;		/* next in the dirty, the shadowed or the free list */
	uint32_t unused;
};

/* listener is borrowed; its born and died are called. */
MLS_MUST_CHECK int mls_memtable_new(struct mls_memtable **mt, uint32_t max_versions,
				    const struct mls_lsm_listener *listener);
void mls_memtable_free(struct mls_memtable *mt);	/* NULL is fine; nobody is told */
void mls_memtable_clear(struct mls_memtable *mt);	/* nobody is told */

uint32_t mls_memtable_nr_versions(const struct mls_memtable *mt);
uint32_t mls_memtable_room(const struct mls_memtable *mt);	/* versions that can still enter */
MLS_MUST_CHECK int mls_memtable_reserve(struct mls_memtable *mt, uint32_t nr_versions);	/* room >= nr after 0 */
uint64_t mls_memtable_first_epoch(const struct mls_memtable *mt);	/* of the first insert since clear */

/*
 * Each of recs, in their order, is the newest version of its LBA from now on. A version of the same epoch dies at
 * once; an older one is shadowed until commit(epoch). There must be room.
 */
void mls_memtable_insert(struct mls_memtable *mt, const struct mls_index_rec *recs, size_t nr, uint64_t epoch);

/* The LBAs of recs are about to be looked up: memory brings what that needs together, instead of one after the other. */
void mls_memtable_prefetch(const struct mls_memtable *mt, const struct mls_index_rec *recs, size_t nr);

/* The newest version, tombstone or not; NULL: none. */
const struct mls_index_rec *mls_memtable_get(const struct mls_memtable *mt, uint64_t lba);

/* The sync of epoch is complete: what versions of epochs <= epoch shadow dies. */
void mls_memtable_commit(struct mls_memtable *mt, uint64_t epoch);

/* ---- Dirty versions, in the order of their first insert ---- */
uint32_t mls_memtable_nr_dirty(const struct mls_memtable *mt);
const struct mls_mem_version *mls_memtable_first_dirty(const struct mls_memtable *mt);
const struct mls_mem_version *mls_memtable_next_dirty(const struct mls_memtable *mt,
						      const struct mls_mem_version *version);
void mls_memtable_forget_dirty(struct mls_memtable *mt);

/* ---- In order of LBA ---- */

/* The smallest LBA >= lba that has a version. Looks at each version. false: none. */
bool mls_memtable_next_lba(const struct mls_memtable *mt, uint64_t lba, uint64_t *found);

/* Sort; then newest version of the i-th LBA, i < the number sort gave. Valid until the next insert. */
uint32_t mls_memtable_sort(struct mls_memtable *mt);
const struct mls_mem_version *mls_memtable_sorted(const struct mls_memtable *mt, uint32_t i);
/* The next older version of the same LBA; NULL: none. */
const struct mls_mem_version *mls_memtable_older(const struct mls_memtable *mt,
						 const struct mls_mem_version *version);

#endif
