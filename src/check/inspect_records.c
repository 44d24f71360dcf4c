/* SPDX-License-Identifier: MPL-2.0 */
/*
 * inspect_records.c - the records of the index, by LBA, newest first.
 *
 * A merge of sources: the WAL's records (sorted here), each table of level 0, and chains of disjoint
 * tables of each deeper level, of which one table is open at a time. So the number of open tables, and
 * with it memory, doesn't depend on the size of the disk. Sources are in order of age, newest first; of
 * equal LBAs the first source's comes first.
 *
 * Blocks that don't authenticate, or don't decode, are skipped without a word: pass 3 names them. But a
 * record of an older table must not pass for the newest where a newer one has such a gap: each source
 * knows the LBAs that it lost before its next record.
 */
#include <stdlib.h>
#include <string.h>

#include "4-lsm/sst_block.h"
#include "5-disk/location.h"
#include "base/buf.h"
#include "base/checked.h"
#include "base/err.h"
#include "check/inspect_internal.h"

#define AHEAD_BLOCKS 16u

/* ---- Logs ---- */

int mls_inspect_log_open(struct mls_inspect *x, const struct mls_inspect_log *log, struct mls_inspect_open_log *open)
{
	uint64_t *hbas = calloc(log->nr_chunks, sizeof *hbas);
	int err;

	if (!hbas)
		return MLS_ENOMEM;
	for (uint32_t i = 0; i < log->nr_chunks; i++)
		hbas[i] = mls_inspect_run_hba(x, log->runs[i]);
	open->crypto = NULL;
	err = mls_block_log_init_existing(&open->raw, x->dev, x->run_blocks, hbas, log->nr_chunks,
					  mls_crypto_log_total_blocks(log->root.nr_data_blocks));
	free(hbas);
	if (err)
		return err == MLS_ENOMEM ? err : MLS_EFORMAT;
	err = mls_crypto_log_open(&open->crypto, &open->raw, x->keys, &log->root);
	if (err)
		mls_block_log_release(&open->raw);
	return err == MLS_EINVAL ? MLS_EFORMAT : err;
}

void mls_inspect_log_close(struct mls_inspect_open_log *open)
{
	if (!open->crypto)
		return;
	mls_crypto_log_close(open->crypto);
	mls_block_log_release(&open->raw);
	open->crypto = NULL;
}

/* ---- Sources ---- */

struct wal_rec {
	uint64_t lba;
	uint32_t group;
	uint32_t at;			/* in the group */
};

struct source {
	/* A chain of tables; or, if there are none, the WAL. */
	const struct mls_table_meta **tables;
	size_t nr_tables, next_table;
	struct mls_inspect_open_log log;	/* of table next_table - 1 */
	const struct mls_table_meta *table;
	uint64_t nr_blocks, next_block;		/* record blocks of the table */
	struct mls_sst_block_disk *blocks;	/* AHEAD_BLOCKS */
	bool valid[AHEAD_BLOCKS];
	uint32_t nr_ahead, at_block, at_rec;

	struct wal_rec *wal;
	size_t nr_wal, next_wal;

	bool lost;				/* [lost_from, lost_upto] stood in what was skipped on the way to rec */
	uint64_t lost_from, lost_upto;
	uint64_t after;				/* LBAs before this one have been read */

	bool has;				/* rec is the source's next record */
	struct mls_inspect_rec rec;
};

struct merge {
	struct mls_inspect *x;
	uint64_t lba, end;
	struct source *sources;
	size_t nr_sources;
};

/* ---- A table's records ---- */

static bool block_possible(const struct source *source, uint64_t at, const struct mls_sst_block_disk *block)
{
	uint64_t left = source->table->info.nr_records - at * MLS_SST_RECS_PER_BLOCK;

	return mls_sst_block_nr(block) == mls_min_u64(left, MLS_SST_RECS_PER_BLOCK);
}

/* The next blocks; one by one if they can't be had together. */
static int read_ahead(struct source *source)
{
	uint32_t nr = (uint32_t)mls_min_u64(AHEAD_BLOCKS, source->nr_blocks - source->next_block);
	int err = mls_crypto_log_read(source->log.crypto, source->next_block, nr, source->blocks);

	if (err == MLS_ENOMEM)
		return err;
	for (uint32_t i = 0; i < nr; i++) {
		int one = err ? mls_crypto_log_read(source->log.crypto, source->next_block + i, 1, &source->blocks[i]) : 0;

		if (one == MLS_ENOMEM)
			return one;
		source->valid[i] = one == 0 && block_possible(source, source->next_block + i, &source->blocks[i]);
	}
	source->next_block += nr;
	source->nr_ahead = nr;
	source->at_block = source->at_rec = 0;
	return 0;
}

/* The block that the first record >= lba may be in, by halving; damaged ones count as behind it. */
static int seek_table(struct source *source, uint64_t lba)
{
	uint64_t low = 0, high = source->nr_blocks;

	while (high - low > AHEAD_BLOCKS) {
		uint64_t mid = low + (high - low) / 2;
		int err = mls_crypto_log_read(source->log.crypto, mid, 1, source->blocks);

		if (err == MLS_ENOMEM)
			return err;
		if (err || !block_possible(source, mid, source->blocks) || mls_sst_block_lba(source->blocks, 0) > lba)
			high = mid;
		else
			low = mid;
	}
	source->next_block = low;
	source->nr_ahead = source->at_block = 0;
	return 0;
}

/* What stood between `after` and upto can't be read; joins what was lost on the same way. */
static void lose(struct merge *m, struct source *source, uint64_t from, uint64_t upto)
{
	m->x->index_damaged = true;
	if (!source->lost)
		source->lost_from = from;
	source->lost = true;
	source->lost_upto = upto;
}

/* Open the chain's next table that has something in the range. *open false: there is none. */
static int open_table(struct merge *m, struct source *source, bool *open)
{
	*open = false;
	while (source->next_table < source->nr_tables) {
		const struct mls_table_meta *table = source->tables[source->next_table++];
		const struct mls_inspect_log *log = mls_inspect_find_log(m->x, table->info.log_id);
		int err;

		mls_inspect_log_close(&source->log);
		if (table->info.max_lba < m->lba || table->info.min_lba >= m->end)
			continue;
		source->table = table;
		source->nr_blocks = source->next_block = 0;
		err = log ? mls_inspect_log_open(m->x, log, &source->log) : MLS_EFORMAT;
		if (err == MLS_EFORMAT) {
			lose(m, source, table->info.min_lba, table->info.max_lba);
			continue;
		}
		if (err)
			return err;
		source->after = table->info.min_lba;
		source->nr_blocks = mls_min_u64(mls_sst_nr_record_blocks(table->info.nr_records),
						log->root.nr_data_blocks);
		*open = true;
		return seek_table(source, table->info.min_lba < m->lba ? m->lba : 0);
	}
	return 0;
}

static int next_of_tables(struct merge *m, struct source *source)
{
	for (;;) {
		const struct mls_sst_block_disk *block;
		bool open;
		int err;

		if (source->at_block < source->nr_ahead) {
			block = &source->blocks[source->at_block];
			if (source->valid[source->at_block] && source->at_rec < mls_sst_block_nr(block)) {
				mls_index_rec_decode(&source->rec.rec, &block->rec[source->at_rec++]);
				if (source->lost)
					source->lost_upto = mls_min_u64(source->lost_upto, source->rec.rec.lba - 1);
				source->after = source->rec.rec.lba + 1;
				source->has = true;
				return 0;
			}
			if (!source->valid[source->at_block])
				lose(m, source, source->after, source->table->info.max_lba);
			source->at_block++;
			source->at_rec = 0;
			continue;
		}
		if (source->table && source->next_block < source->nr_blocks) {
			err = read_ahead(source);
			if (err)
				return err;
			continue;
		}
		err = open_table(m, source, &open);
		if (err || !open)
			return err;
	}
}

/* ---- Any source's next record within the range ---- */

static int advance(struct merge *m, struct source *source)
{
	struct mls_inspect *x = m->x;
	int err = 0;

	do {
		source->has = false;
		if (source->wal && source->next_wal < source->nr_wal) {
			const struct wal_rec *at = &source->wal[source->next_wal++];
			const struct mls_inspect_group *group = &x->groups[at->group];

			source->rec = (struct mls_inspect_rec){ .rec = group->group.recs[at->at], .group = at->group,
								.accepted = group->accepted };
			source->has = true;
		} else if (!source->wal) {
			source->rec.group = -1;
			source->lost = false;
			err = next_of_tables(m, source);
			source->rec.table = source->table;
			if (source->has)
				source->rec.accepted = mls_inspect_table_accepted(x, source->table);
		}
	} while (!err && source->has && source->rec.rec.lba < m->lba);
	if (source->has && source->rec.rec.lba >= m->end)
		source->has = false;
	return err;
}

static int by_lba_newest(const void *a, const void *b)
{
	const struct wal_rec *left = a, *right = b;

	if (left->lba != right->lba)
		return left->lba < right->lba ? -1 : 1;
	if (left->group != right->group)
		return left->group > right->group ? -1 : 1;
	return left->at > right->at ? -1 : left->at < right->at;
}

static int wal_source(struct merge *m, struct source *source)
{
	const struct mls_inspect *x = m->x;
	size_t nr = 0;

	for (size_t g = 0; g < x->nr_groups; g++)
		nr += x->groups[g].group.nr_recs;
	source->wal = malloc((nr ? nr : 1) * sizeof *source->wal);
	if (!source->wal)
		return MLS_ENOMEM;
	for (size_t g = 0; g < x->nr_groups; g++)
		for (size_t i = 0; i < x->groups[g].group.nr_recs; i++) {
			uint64_t lba = x->groups[g].group.recs[i].lba;

			if (lba >= m->lba && lba < m->end)
				source->wal[source->nr_wal++] = (struct wal_rec){ lba, (uint32_t)g, (uint32_t)i };
		}
	if (source->nr_wal)
		qsort(source->wal, source->nr_wal, sizeof *source->wal, by_lba_newest);
	return 0;
}

/* The chain that table can join; or a new one. Tables come in order of search. */
static struct source *chain_for(struct merge *m, const struct mls_table_meta *table)
{
	for (size_t i = m->nr_sources; table->level > 0 && i-- > 1;) {
		struct source *source = &m->sources[i];
		const struct mls_table_meta *last = source->tables[source->nr_tables - 1];

		if (last->level != table->level)
			break;
		if (last->info.max_lba < table->info.min_lba)
			return source;
	}
	return &m->sources[m->nr_sources++];
}

static int table_sources(struct merge *m)
{
	const struct mls_lsm_state *lsm = &m->x->lsm;

	for (size_t i = 0; i < lsm->nr_tables; i++) {
		struct source *source = chain_for(m, &lsm->tables[i]);

		if (!source->tables)
			source->tables = calloc(lsm->nr_tables - i, sizeof *source->tables);
		if (!source->blocks)
			source->blocks = mls_blocks_alloc(AHEAD_BLOCKS);
		if (!source->tables || !source->blocks)
			return MLS_ENOMEM;
		source->tables[source->nr_tables++] = &lsm->tables[i];
	}
	return 0;
}

static int merge_init(struct merge *m, struct mls_inspect *x, uint64_t lba, uint64_t end)
{
	int err;

	*m = (struct merge){ .x = x, .lba = lba, .end = end };
	m->sources = calloc(x->lsm.nr_tables + 1, sizeof *m->sources);
	if (!m->sources)
		return MLS_ENOMEM;
	m->nr_sources = 1;
	err = wal_source(m, &m->sources[0]);
	if (!err)
		err = table_sources(m);
	for (size_t i = 0; i < m->nr_sources && !err; i++)
		err = advance(m, &m->sources[i]);
	return err;
}

static void merge_release(struct merge *m)
{
	for (size_t i = 0; m->sources && i < m->nr_sources; i++) {
		mls_inspect_log_close(&m->sources[i].log);
		mls_blocks_free(m->sources[i].blocks);
		free(m->sources[i].tables);
		free(m->sources[i].wal);
	}
	free(m->sources);
}

static struct source *smallest(const struct merge *m)
{
	struct source *best = NULL;

	for (size_t i = 0; i < m->nr_sources; i++)
		if (m->sources[i].has && (!best || m->sources[i].rec.rec.lba < best->rec.rec.lba))
			best = &m->sources[i];
	return best;
}

/* May one of the sources before `source`, which are newer, have lost a record of the LBA? */
static bool is_doubtful(const struct merge *m, const struct source *source)
{
	uint64_t lba = source->rec.rec.lba;

	for (const struct source *newer = m->sources; newer < source; newer++)
		if (newer->lost && lba >= newer->lost_from && lba <= newer->lost_upto &&
		    mls_inspect_table_accepted(m->x, newer->table))
			return true;
	return false;
}

int mls_inspect_records(struct mls_inspect *x, uint64_t lba, uint64_t end,
			int (*fn)(void *arg, const struct mls_inspect_rec *rec), void *arg)
{
	uint64_t settled_lba = MLS_LBA_NONE;	/* its newest accepted record has been given out */
	uint64_t nr = 0;
	struct source *source;
	struct merge m;
	int err = merge_init(&m, x, lba, end);

	while (!err && (source = smallest(&m)) != NULL) {
		struct mls_inspect_rec *rec = &source->rec;

		rec->doubtful = is_doubtful(&m, source);
		rec->newest = rec->accepted && !rec->doubtful && rec->rec.lba != settled_lba &&
			      rec->rec.lba < x->sb.geo.disk_blocks;
		if (rec->newest)
			settled_lba = rec->rec.lba;
		err = fn(arg, rec);
		if (!err)
			err = advance(&m, source);
		if (!err && ++nr % 4096 == 0 && mls_inspect_stopped(x))
			err = MLS_EABORTED;
	}
	merge_release(&m);
	return err;
}

/* ---- Counting ---- */

bool mls_inspect_slot_of(const struct mls_inspect *x, uint64_t loc, uint64_t *run, uint32_t *slot)
{
	struct mls_place place = mls_inspect_place(x, mls_loc_hba(loc));
	const struct mls_inspect_run *entry;

	if (place.kind != MLS_PLACE_RUN || place.pos >= x->nr_slots)
		return false;
	entry = &x->runs[place.index];
	if ((entry->kind != MLS_RUN_SEGMENT && entry->kind != MLS_RUN_TWICE) || !entry->birth ||
	    !mls_loc_is_of(loc, entry->birth))
		return false;
	*run = place.index;
	*slot = (uint32_t)place.pos;
	return true;
}

void mls_inspect_count_rec(struct mls_inspect *x, const struct mls_inspect_rec *rec)
{
	struct mls_inspect_run *entry;
	uint64_t run;
	uint32_t slot;

	if (rec->rec.hba == MLS_HBA_NONE || !mls_inspect_slot_of(x, rec->rec.hba, &run, &slot))
		return;
	entry = &x->runs[run];
	if (rec->table)
		entry->live_sst++;
	else if (rec->accepted)
		entry->live_wal++;
	entry->nr_live += rec->newest;
}

void mls_inspect_count_begin(struct mls_inspect *x)
{
	for (uint64_t i = 0; i < x->nr_runs; i++)
		x->runs[i].live_sst = x->runs[i].live_wal = x->runs[i].nr_live = 0;
}

static int count_one(void *arg, const struct mls_inspect_rec *rec)
{
	mls_inspect_count_rec(arg, rec);
	return 0;
}

int mls_inspect_count(struct mls_inspect *x)
{
	int err;

	if (x->counted || !x->runs)
		return 0;
	mls_inspect_count_begin(x);
	err = mls_inspect_records(x, 0, MLS_LBA_NONE, count_one, x);
	x->counted = err == 0;
	return err;
}
