/* SPDX-License-Identifier: MPL-2.0 */
/*
 * sstable.h - layer 4: a sorted, immutable table of index records in one log.
 *
 * Role     Built once, in a transaction, from records in ascending LBA; then read by any number.
 *          Record blocks, then index blocks (first LBA of each record block), then a footer.
 * Shapes   Each LBA once. At least one record. Tombstones are records like any other.
 * Memory   Builder: 64 blocks and 8 bytes a record block. Reader: 8 bytes a record block, and what
 *          the block cache holds. Iterator: its read-ahead.
 * Errors   MLS_EAUTH, MLS_EIO from below; MLS_ENOMEM; MLS_EFORMAT: authentic, but not a table, or
 *          not the one that info tells of.
 * Threads  Builder, iterator: one thread at a time. Reader: any.
 * Source   doc/format.md "SSTable".
 */
#ifndef MLS_LSM_SSTABLE_H
#define MLS_LSM_SSTABLE_H

#include "3-log/tx_log.h"
#include "4-lsm/block_cache.h"
#include "4-lsm/record.h"

/* What the owner of a table keeps of it (in its edits). */
struct mls_sst_info {
	uint64_t log_id;
	uint64_t nr_records;		/* > 0 */
	uint64_t min_lba, max_lba;	/* of its records, both inclusive */
};

/* Blocks of data (without the tree's nodes) of a table of nr_records. */
uint64_t mls_sst_nr_blocks(uint64_t nr_records);

/* ---- Building ---- */

struct mls_sst_builder;

/* Creates the table's log in tx (borrowed). The table exists for others from the tx's commit on. */
MLS_MUST_CHECK int mls_sst_builder_new(struct mls_sst_builder **builder, struct mls_tx *tx, uint8_t bucket);

/* rec->lba must be greater than the one before, and not MLS_LBA_NONE. After an error, only free. */
/* Right after new: record blocks go into the cache, too. */
void mls_sst_builder_set_cache(struct mls_sst_builder *builder, struct mls_block_cache *cache);
MLS_MUST_CHECK int mls_sst_builder_add(struct mls_sst_builder *builder, const struct mls_index_rec *rec);

uint64_t mls_sst_builder_nr_records(const struct mls_sst_builder *builder);

/* At least one record must have been added. Then only free. */
MLS_MUST_CHECK int mls_sst_builder_finish(struct mls_sst_builder *builder, struct mls_sst_info *info);

/* Any time; NULL is fine. Without a successful finish, the tx must be aborted (it can't be committed). */
void mls_sst_builder_free(struct mls_sst_builder *builder);

/* ---- Reading ---- */

struct mls_sst;

/*
 * Open a committed table: reads the footer and the index blocks. store and cache are borrowed and
 * must outlive the table; cache NULL: every lookup reads.
 *
 * Returns  0, with one reference; MLS_ENOENT: no such log; MLS_EFORMAT; MLS_EAUTH; MLS_EIO; MLS_ENOMEM.
 */
MLS_MUST_CHECK int mls_sst_open(struct mls_sst **sst, struct mls_tx_store *store,
				struct mls_block_cache *cache, const struct mls_sst_info *info);
struct mls_sst *mls_sst_get(struct mls_sst *sst);	/* one more reference; gives sst */
void mls_sst_put(struct mls_sst *sst);			/* the last one closes the log; NULL is fine */

/* The table was replaced: the last put also drops its blocks from the cache. */
void mls_sst_set_dead(struct mls_sst *sst);

const struct mls_sst_info *mls_sst_info(const struct mls_sst *sst);

/*
 * Fill in recs[i] for lba + i where the table has a record and recs[i] isn't found yet (record.h).
 *
 * nr_missing  of all recs; grows less by each one filled in. At 0, nothing more is looked at.
 * On error, what was filled in is right.
 */
MLS_MUST_CHECK int mls_sst_get_range(struct mls_sst *sst, uint64_t lba, size_t nr, struct mls_index_rec *recs,
				     size_t *nr_missing);

/*
 * The same for single LBAs: recs[i].lba is given, none less than the one before; those whose hba is
 * MLS_HBA_MISSING are looked for.
 */
MLS_MUST_CHECK int mls_sst_get_each(struct mls_sst *sst, struct mls_index_rec *recs, size_t nr, size_t *nr_missing);

/*
 * A record block on its way into the cache, read along with others. begin: is the block that may have lba missing there, and
 * has the cache room for it? Then want is to be read, and end called. What can't be read is left to the lookup, which tells why.
 *
 * *next   for the next begin, of this table and with a greater lba; first 0. Blocks before it have had their turn.
 */
struct mls_sst_fetch {
	struct mls_sst *sst;
	struct mls_cached_block *cached;
	uint64_t block;
};
bool mls_sst_fetch_begin(struct mls_sst *sst, uint64_t lba, uint64_t *next, struct mls_sst_fetch *fetch,
			 struct mls_log_want *want);
void mls_sst_fetch_end(const struct mls_sst_fetch *fetch, const struct mls_log_want *want);

/* The first record, tombstone or not, with an LBA >= lba. MLS_ENOENT: none. */
MLS_MUST_CHECK int mls_sst_next(struct mls_sst *sst, uint64_t lba, struct mls_index_rec *rec);

/* ---- Scanning: reads ahead, past the cache ---- */

struct mls_sst_iter;

#define MLS_SST_AHEAD_BLOCKS 64u

/* From the first record with an LBA >= lba on. Holds a reference. Reads nothing yet.
 * ahead_blocks: blocks a read; 0: MLS_SST_AHEAD_BLOCKS. */
MLS_MUST_CHECK int mls_sst_iter_new(struct mls_sst_iter **iter, struct mls_sst *sst, uint64_t lba,
				    uint32_t ahead_blocks);
/* MLS_ENOENT: end. */
MLS_MUST_CHECK int mls_sst_iter_next(struct mls_sst_iter *iter, struct mls_index_rec *rec);
/* Go on with the first record with an LBA >= lba that comes after the one given last. Reads nothing yet. */
void mls_sst_iter_skip(struct mls_sst_iter *iter, uint64_t lba);
void mls_sst_iter_free(struct mls_sst_iter *iter);	/* NULL is fine */

#endif
