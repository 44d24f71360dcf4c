/* SPDX-License-Identifier: MPL-2.0 */
/*
 * sstable.c - why it exists: look up records in a table at the cost of at most one block read.
 *
 * The sparse index (first LBA of each record block) is in memory from the open on, 8 bytes for 127
 * records. So a lookup is: binary search there, one block from the cache or the log, binary search in
 * it. A range lookup searches once and then walks.
 *
 * All bytes are authentic when they come here (layer 1), and yet checked, once, when they come: a
 * table that isn't what its owner wrote down gives MLS_EFORMAT, never an access out of bounds.
 *
 * Invariants: index ascends strictly from info.min_lba and ends at most at info.max_lba; the records
 * of block i lie in [index[i], index[i + 1]), those of the last one end with info.max_lba.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "4-lsm/sst_block.h"
#include "base/buf.h"
#include "base/checked.h"
#include "base/err.h"
#include "base/log.h"

#define INDEX_READ_BLOCKS 64u

/* ---- Opening ---- */

static int bad_table(const struct mls_sst *sst, const char *what)
{
	mls_error("index: table in log %" PRIu64 " is malformed: %s", sst->info.log_id, what);
	return MLS_EFORMAT;
}

static int check_footer(const struct mls_sst *sst, const struct mls_sst_footer_disk *footer)
{
	if (memcmp(footer->magic, MLS_SST_MAGIC, sizeof footer->magic) != 0)
		return bad_table(sst, "no footer");
	if (mls_get_le64(footer->nr_records) != sst->info.nr_records ||
	    mls_get_le64(footer->nr_record_blocks) != sst->nr_record_blocks ||
	    mls_get_le64(footer->nr_index_blocks) != mls_sst_nr_index_blocks(sst->nr_record_blocks) ||
	    mls_get_le64(footer->min_lba) != sst->info.min_lba ||
	    mls_get_le64(footer->max_lba) != sst->info.max_lba)
		return bad_table(sst, "the footer isn't the one of this table");
	return 0;
}

static int read_footer(const struct mls_sst *sst, uint64_t pos)
{
	struct mls_sst_footer_disk *footer = mls_blocks_alloc(1);
	int err;

	if (!footer)
		return MLS_ENOMEM;
	err = mls_log_read(sst->log, pos, 1, footer);
	if (!err)
		err = check_footer(sst, footer);
	mls_blocks_free(footer);
	return err;
}

static int check_index(const struct mls_sst *sst)
{
	const uint64_t *index = sst->index;
	uint64_t nr = sst->nr_record_blocks;

	if (index[0] != sst->info.min_lba || index[nr - 1] > sst->info.max_lba)
		return bad_table(sst, "the index doesn't begin or end where the table does");
	for (uint64_t i = 1; i < nr; i++)
		if (index[i] <= index[i - 1])
			return bad_table(sst, "the index doesn't ascend");
	return 0;
}

static int read_index(struct mls_sst *sst)
{
	uint64_t nr_blocks = mls_sst_nr_index_blocks(sst->nr_record_blocks);

	sst->index = mls_blocks_alloc(nr_blocks);
	if (!sst->index)
		return MLS_ENOMEM;
	for (uint64_t i = 0; i < nr_blocks; i += INDEX_READ_BLOCKS) {
		uint32_t nr = (uint32_t)mls_min_u64(INDEX_READ_BLOCKS, nr_blocks - i);
		int err = mls_log_read(sst->log, sst->nr_record_blocks + i, nr, mls_block_at(sst->index, i));

		if (err)
			return err;
	}
	for (uint64_t i = 0; i < sst->nr_record_blocks; i++)
		sst->index[i] = mls_get_le64((const uint8_t *)&sst->index[i]);
	return check_index(sst);
}

static void sst_free(struct mls_sst *sst)
{
	mls_log_close(sst->log);
	mls_blocks_free(sst->index);
	free(sst);
}

int mls_sst_open(struct mls_sst **out, struct mls_tx_store *store, struct mls_block_cache *cache,
		 const struct mls_sst_info *info)
{
	struct mls_sst *sst = calloc(1, sizeof *sst);
	int err;

	if (!sst)
		return MLS_ENOMEM;
	sst->info = *info;
	sst->cache = cache;
	sst->refs = 1;
	sst->nr_record_blocks = mls_sst_nr_record_blocks(info->nr_records);
	err = mls_log_open(store, info->log_id, &sst->log);
	if (err) {
		free(sst);
		return err;
	}
	/* The log's length bounds all that is allocated below. */
	if (info->nr_records == 0 || mls_log_nr_blocks(sst->log) != mls_sst_nr_blocks(info->nr_records))
		err = bad_table(sst, "its length doesn't fit its records");
	if (!err)
		err = read_footer(sst, mls_log_nr_blocks(sst->log) - 1);
	if (!err)
		err = read_index(sst);
	if (err) {
		sst_free(sst);
		return err;
	}
	*out = sst;
	return 0;
}

struct mls_sst *mls_sst_get(struct mls_sst *sst)
{
	uint32_t before = __atomic_fetch_add(&sst->refs, 1, __ATOMIC_RELAXED);

	MLS_INVARIANT(before > 0);
	return sst;
}

void mls_sst_put(struct mls_sst *sst)
{
	if (!sst || __atomic_fetch_sub(&sst->refs, 1, __ATOMIC_ACQ_REL) != 1)
		return;
	if (sst->cache && __atomic_load_n(&sst->dead, __ATOMIC_RELAXED))
		mls_block_cache_drop_log(sst->cache, sst->info.log_id);
	sst_free(sst);
}

void mls_sst_set_dead(struct mls_sst *sst)
{
	__atomic_store_n(&sst->dead, true, __ATOMIC_RELAXED);
}

const struct mls_sst_info *mls_sst_info(const struct mls_sst *sst)
{
	return &sst->info;
}

/* ---- Record blocks ---- */

static int check_block(const struct mls_sst *sst, uint64_t i, const struct mls_sst_block_disk *block)
{
	bool is_last = i == sst->nr_record_blocks - 1;
	struct mls_sst_span span = mls_sst_span(sst, i);
	unsigned nr = mls_sst_block_nr(block);
	uint64_t last;

	if (nr != span.nr)
		return bad_table(sst, "a block has the wrong number of records");
	if (mls_sst_block_lba(block, 0) != span.first)
		return bad_table(sst, "a block isn't the one that the index tells of");
	for (unsigned k = 1; k < nr; k++)
		if (mls_sst_block_lba(block, k) <= mls_sst_block_lba(block, k - 1))
			return bad_table(sst, "records don't ascend");
	last = mls_sst_block_lba(block, nr - 1);
	if (is_last ? last != sst->info.max_lba : last >= span.end)
		return bad_table(sst, "a block doesn't end where it should");
	return 0;
}

int mls_sst_read_blocks(const struct mls_sst *sst, uint64_t first, uint32_t nr,
			struct mls_sst_block_disk *blocks)
{
	int err;

	MLS_INVARIANT(mls_range_within(first, nr, sst->nr_record_blocks));
	err = mls_log_read(sst->log, first, nr, blocks);
	for (uint32_t i = 0; i < nr && !err; i++)
		err = check_block(sst, first + i, &blocks[i]);
	return err;
}

uint64_t mls_sst_find_block(const struct mls_sst *sst, uint64_t from, uint64_t lba)
{
	uint64_t lo = from, hi = sst->nr_record_blocks;

	MLS_INVARIANT(from < hi && sst->index[from] <= lba);
	/* Who goes on from somewhere isn't far from there. */
	for (uint64_t step = 1; from > 0 && step < hi - lo; step *= 2) {
		if (sst->index[lo + step] > lba)
			hi = lo + step;
		else
			lo += step;
	}
	while (hi - lo > 1) {		/* index[lo] <= lba < index[hi], were there one */
		uint64_t mid = lo + (hi - lo) / 2;

		if (sst->index[mid] <= lba)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

/* A record block to look at: in the cache and pinned, or, if there is no room, in the caller's frame. */
struct block_ref {
	const struct mls_sst_block_disk *block;
	struct mls_sst_span span;
	struct mls_cached_block *cached;
	struct mls_sst_block_disk own __attribute__((aligned(MLS_BLOCK_BYTES)));
};

static void block_put(struct block_ref *ref)
{
	if (ref->cached)
		mls_block_cache_put(ref->cached);
	ref->cached = NULL;
}

static int block_get(struct mls_sst *sst, uint64_t i, struct block_ref *ref)
{
	struct mls_block_cache *cache = sst->cache;
	int err;

	ref->span = mls_sst_span(sst, i);
	ref->cached = cache ? mls_block_cache_lookup(cache, sst->info.log_id, i) : NULL;
	if (ref->cached) {
		ref->block = ref->cached->data;
		return 0;
	}
	ref->cached = cache ? mls_block_cache_reserve(cache, sst->info.log_id, i) : NULL;
	ref->block = ref->cached ? ref->cached->data : &ref->own;
	err = mls_sst_read_blocks(sst, i, 1, ref->cached ? ref->cached->data : &ref->own);
	if (err) {
		block_put(ref);
		return err;
	}
	if (ref->cached)
		mls_block_cache_publish(cache, ref->cached);
	return 0;
}

bool mls_sst_fetch_begin(struct mls_sst *sst, uint64_t lba, uint64_t *next, struct mls_sst_fetch *fetch,
			 struct mls_log_want *want)
{
	struct mls_cached_block *cached;
	uint64_t block;

	if (!sst->cache)
		return false;
	block = mls_sst_find_block(sst, *next ? *next - 1 : 0, lba);
	if (block + 1 == *next)
		return false;
	*next = block + 1;
	cached = mls_block_cache_peek(sst->cache, sst->info.log_id, block);
	if (!cached)
		cached = mls_block_cache_lookup(sst->cache, sst->info.log_id, block);	/* a miss that counts */
	if (cached) {
		mls_block_cache_put(cached);
		return false;
	}
	cached = mls_block_cache_reserve(sst->cache, sst->info.log_id, block);
	if (!cached)
		return false;
	*fetch = (struct mls_sst_fetch){ .sst = sst, .cached = cached, .block = block };
	*want = (struct mls_log_want){ .reader = sst->log, .pos = block, .block = cached->data };
	return true;
}

void mls_sst_fetch_end(const struct mls_sst_fetch *fetch, const struct mls_log_want *want)
{
	if (!want->err && !check_block(fetch->sst, fetch->block, fetch->cached->data))
		mls_block_cache_publish(fetch->sst->cache, fetch->cached);
	mls_block_cache_put(fetch->cached);
}

/* ---- Looking up ---- */

/* Fill in what the block has for the missing ones of recs[at ...]. */
static void take_from_block(const struct block_ref *ref, uint64_t lba, size_t nr, size_t at,
			    struct mls_index_rec *recs, size_t *nr_missing)
{
	for (unsigned k = mls_sst_block_search(ref->block, &ref->span, lba + at); k < ref->span.nr; k++) {
		uint64_t rec_lba = mls_sst_block_lba(ref->block, k);
		struct mls_index_rec *rec;

		if (rec_lba - lba >= nr)
			return;
		rec = &recs[rec_lba - lba];
		if (rec->lba == rec_lba)
			continue;
		MLS_INVARIANT(*nr_missing > 0);
		mls_index_rec_decode(rec, &ref->block->rec[k]);
		--*nr_missing;
	}
}

int mls_sst_get_range(struct mls_sst *sst, uint64_t lba, size_t nr, struct mls_index_rec *recs,
		      size_t *nr_missing)
{
	uint64_t block = 0;
	struct block_ref ref;
	size_t i = 0;
	int err;

	MLS_INVARIANT(nr <= MLS_LBA_NONE - lba);
	if (lba < sst->info.min_lba) {
		if (sst->info.min_lba - lba >= nr)
			return 0;
		i = sst->info.min_lba - lba;
	}
	while (*nr_missing > 0) {
		while (i < nr && recs[i].lba == lba + i)
			i++;
		if (i == nr || lba + i > sst->info.max_lba)
			return 0;
		block = mls_sst_find_block(sst, block, lba + i);
		err = block_get(sst, block, &ref);
		if (err)
			return err;
		take_from_block(&ref, lba, nr, i, recs, nr_missing);
		block_put(&ref);
		if (++block == sst->nr_record_blocks || sst->index[block] - lba >= nr)
			return 0;
		i = sst->index[block] - lba;	/* between, the table has nothing */
	}
	return 0;
}

/* *rec, if the block has it. */
static void take_one(const struct block_ref *ref, struct mls_index_rec *rec, size_t *nr_missing)
{
	unsigned k = mls_sst_block_search(ref->block, &ref->span, rec->lba);

	if (k == ref->span.nr || mls_sst_block_lba(ref->block, k) != rec->lba)
		return;
	MLS_INVARIANT(*nr_missing > 0);
	mls_index_rec_decode(rec, &ref->block->rec[k]);
	--*nr_missing;
}

int mls_sst_get_each(struct mls_sst *sst, struct mls_index_rec *recs, size_t nr, size_t *nr_missing)
{
	uint64_t at = 0;
	struct block_ref ref = { .block = NULL };

	for (size_t i = 0; i < nr && *nr_missing > 0 && recs[i].lba <= sst->info.max_lba; i++) {
		uint64_t block;

		if (recs[i].hba != MLS_HBA_MISSING || recs[i].lba < sst->info.min_lba)
			continue;
		block = mls_sst_find_block(sst, at, recs[i].lba);
		if (!ref.block || block != at) {
			int err;

			block_put(&ref);
			err = block_get(sst, block, &ref);
			if (err)
				return err;
			at = block;
		}
		take_one(&ref, &recs[i], nr_missing);
	}
	block_put(&ref);
	return 0;
}

int mls_sst_next(struct mls_sst *sst, uint64_t lba, struct mls_index_rec *rec)
{
	struct block_ref ref;
	uint64_t block;
	unsigned k;
	int err;

	if (lba > sst->info.max_lba)
		return MLS_ENOENT;
	lba = mls_max_u64(lba, sst->info.min_lba);
	block = mls_sst_find_block(sst, 0, lba);
	err = block_get(sst, block, &ref);
	if (err)
		return err;
	k = mls_sst_block_search(ref.block, &ref.span, lba);
	if (k == ref.span.nr) {
		/* lba lies behind this block and at most at max_lba, so there is a next one. */
		block_put(&ref);
		err = block_get(sst, block + 1, &ref);
		if (err)
			return err;
		k = 0;
	}
	mls_index_rec_decode(rec, &ref.block->rec[k]);
	block_put(&ref);
	return 0;
}
