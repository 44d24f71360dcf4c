/* SPDX-License-Identifier: MPL-2.0 */
/*
 * merge.h - layer 4: many sorted sources as one, each LBA once, the newest record of it.
 *
 * Role     Flush, compaction and scans. Sources are added newest first; of records with the same
 *          LBA the one of the source added first is given, and the others are dropped, each
 *          with a call to dropped. Tombstones are given as any other record.
 * Errors   Of the sources and of dropped, passed on. After an error, only free.
 * Threads  One at a time.
 */
#ifndef MLS_LSM_MERGE_H
#define MLS_LSM_MERGE_H

#include "4-lsm/sstable.h"

struct mls_merge;

/* The next record, in strictly ascending LBA; MLS_ENOENT: end. */
typedef int mls_merge_next_fn(void *arg, struct mls_index_rec *rec);

/* rec is older than a record given (by the next return of mls_merge_next). Not 0: stops the merge. */
typedef int mls_merge_dropped_fn(void *arg, const struct mls_index_rec *rec);

/* dropped may be NULL. */
MLS_MUST_CHECK int mls_merge_new(struct mls_merge **merge, unsigned max_sources,
				 mls_merge_dropped_fn *dropped, void *arg);

/* Each of them must be older than those added before. At most max_sources; before the first next. */
void mls_merge_add(struct mls_merge *merge, mls_merge_next_fn *next, void *arg);
void mls_merge_add_iter(struct mls_merge *merge, struct mls_sst_iter *iter);	/* borrowed */
/* nr records in strictly ascending LBA; borrowed. */
void mls_merge_add_array(struct mls_merge *merge, const struct mls_index_rec *recs, size_t nr);

/* MLS_ENOENT: end. */
MLS_MUST_CHECK int mls_merge_next(struct mls_merge *merge, struct mls_index_rec *rec);
void mls_merge_free(struct mls_merge *merge);	/* NULL is fine */

#endif
