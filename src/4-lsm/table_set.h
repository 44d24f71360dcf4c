/* SPDX-License-Identifier: MPL-2.0 */
/*
 * table_set.h - layer 4: the open SSTables of one moment, for readers without locks.
 *
 * Role     Immutable. A flush or compaction makes a new set out of the old one; who holds a
 *          reference goes on reading the tables of his, even those deleted meanwhile.
 * Order    Level 0 first, newest first; then each level in order of LBA, disjoint. A lookup that
 *          goes through it in this order meets the newest record first.
 * Errors   Of the tables; MLS_EFORMAT: tables of a deeper level overlap; MLS_ENOMEM.
 * Threads  Any. Lookups read from BACKING: hold no lock. The last put closes logs.
 */
#ifndef MLS_LSM_TABLE_SET_H
#define MLS_LSM_TABLE_SET_H

#include "4-lsm/lsm_state.h"

struct mls_table {
	struct mls_table_meta meta;
	struct mls_sst *sst;
};

struct mls_table_set {
	uint32_t refs;			/* atomic */
	unsigned nr;
	unsigned first[MLS_NR_LEVELS + 1];	/* level l is [first[l], first[l + 1]) */
	uint64_t level_records[MLS_NR_LEVELS];
	struct mls_table tables[];
};

/*
 * The tables of old (NULL: none) without those of nr_remove log ids, and nr_add more. *set gets one
 * reference; takes its own of the tables' (old and add keep theirs).
 */
MLS_MUST_CHECK int mls_table_set_new(struct mls_table_set **set, const struct mls_table_set *old,
				     const uint64_t *remove, unsigned nr_remove, const struct mls_table *add,
				     unsigned nr_add);
struct mls_table_set *mls_table_set_get(struct mls_table_set *set);
void mls_table_set_put(struct mls_table_set *set);	/* NULL is fine */

static inline unsigned mls_table_set_level_nr(const struct mls_table_set *set, unsigned level)
{
	return set->first[level + 1] - set->first[level];
}

static inline uint64_t mls_table_set_nr_records(const struct mls_table_set *set)
{
	uint64_t nr = 0;

	for (unsigned level = 0; level < MLS_NR_LEVELS; level++)
		nr += set->level_records[level];
	return nr;
}

/* The tables of `level` >= 1 that overlap [min_lba, max_lba]: [*from, *to). */
void mls_table_set_overlap(const struct mls_table_set *set, unsigned level, uint64_t min_lba, uint64_t max_lba,
			   unsigned *from, unsigned *to);

/* As mls_sst_get_range, over all tables. */
MLS_MUST_CHECK int mls_table_set_get_range(const struct mls_table_set *set, uint64_t lba, size_t nr,
					   struct mls_index_rec *recs, size_t *nr_missing);

/* As mls_sst_get_each, over all tables. fetch: it's likely that blocks are missing in the cache; those of all tables of a level are
 * read together, at the price of a second search. */
MLS_MUST_CHECK int mls_table_set_get_each(const struct mls_table_set *set, struct mls_index_rec *recs, size_t nr,
					  bool fetch, size_t *nr_missing);

/* The smallest LBA in [lba, end) of any record, tombstone or not. MLS_ENOENT: none. */
MLS_MUST_CHECK int mls_table_set_next(const struct mls_table_set *set, uint64_t lba, uint64_t end,
				      uint64_t *found);

#endif
