/* SPDX-License-Identifier: MPL-2.0 */
/*
 * dump_space.c - sections chunks, logs, index and stats: who owns the space, and how full it is.
 */
#include <stdlib.h>
#include <string.h>

#include "5-disk/location.h"
#include "base/buf.h"
#include "tools/dump.h"

/* ---- What anybody can see of a run ---- */

const char *dump_look_name(enum dump_look look)
{
	static const char *const names[] = {
		[LOOK_ZEROS] = "zeros", [LOOK_SUMMARY] = "closed segment", [LOOK_WRITTEN] = "written",
		[LOOK_UNREADABLE] = "unreadable",
	};

	return names[look];
}

static bool all_zero(const uint8_t *block)
{
	return block[0] == 0 && memcmp(block, block + 1, MLS_BLOCK_BYTES - 1) == 0;
}

/* A summary's magic is in clear; all else is zeros, or bytes that look random. */
enum dump_look dump_look_at_run(struct dump *d, uint64_t run)
{
	uint64_t hba = mls_inspect_run_hba(d->x, run);
	uint8_t *blocks = mls_blocks_zalloc(2);
	struct mls_io ios[2] = {
		{ .hba = hba, .nr_blocks = 1 },
		{ .hba = hba + d->x->nr_slots, .nr_blocks = 1 },
	};
	enum dump_look look = LOOK_WRITTEN;

	if (!blocks)
		return LOOK_UNREADABLE;
	ios[0].data = blocks;
	ios[1].data = blocks + MLS_BLOCK_BYTES;
	if (mls_block_dev_readv(d->x->dev, ios, 2))
		look = LOOK_UNREADABLE;
	else if (memcmp(ios[1].data, MLS_BLOB_MAGIC, sizeof MLS_BLOB_MAGIC - 1) == 0)
		look = LOOK_SUMMARY;
	else if (all_zero(ios[0].data) && all_zero(ios[1].data))
		look = LOOK_ZEROS;
	mls_blocks_free(blocks);
	return look;
}

/* ---- Chunks ---- */

const char *dump_run_kind(uint8_t kind)
{
	static const char *const names[] = {
		[MLS_RUN_FREE] = "free", [MLS_RUN_CHUNK] = "chunk", [MLS_RUN_SEGMENT] = "segment",
		[MLS_RUN_TWICE] = "owned twice",
	};

	return names[kind];
}

static void print_run(struct dump *d, uint64_t run, uint64_t nr_runs)
{
	const struct mls_inspect_run *r = &d->x->runs[run];
	bool segment = r->kind == MLS_RUN_SEGMENT || r->kind == MLS_RUN_TWICE;
	bool chunk = r->kind == MLS_RUN_CHUNK || r->kind == MLS_RUN_TWICE;

	out_row(d->out);
	out_number(d->out, "run", run);
	out_number(d->out, "runs", nr_runs);
	out_number(d->out, "hba", mls_inspect_run_hba(d->x, run));
	out_number_if(d->out, "log", chunk, r->log_id);
	out_number_if(d->out, "chunk", chunk, r->chunk);
	out_number_if(d->out, "birth", segment, r->birth);
	out_number_if(d->out, "key", segment, r->key_id);
	out_number_if(d->out, "live", segment, r->nr_live);
	out_number_if(d->out, "records_sst", segment, r->live_sst);
	out_number_if(d->out, "records_wal", segment, r->live_wal);
	if (segment)
		out_signed(d->out, "noted", r->noted_live);
	else
		out_none(d->out, "noted");
	out_text(d->out, "kind", dump_run_kind(r->kind));
	out_row_end(d->out);
}

/* Neighbouring free runs are one row. */
static void print_owners(struct dump *d)
{
	static const struct out_column columns[] = {
		{ "run", 8 }, { "runs", 8 }, { "hba", 11 }, { "log", 8 }, { "chunk", 6 }, { "birth", 9 },
		{ "key", 6 }, { "live", 5 }, { "records_sst", 11 }, { "records_wal", 11 }, { "noted", 6 },
		{ "kind", -11 },
	};
	const struct mls_inspect *x = d->x;

	out_table(d->out, "owners", columns, NR_COLUMNS(columns));
	for (uint64_t run = 0, end; run < x->nr_runs; run = end) {
		for (end = run + 1; x->runs[run].kind == MLS_RUN_FREE && end < x->nr_runs &&
				    x->runs[end].kind == MLS_RUN_FREE; end++)
			;
		print_run(d, run, end - run);
	}
	out_table_end(d->out);
}

/* Without a key: neighbours that look the same are one row. */
static void print_looks(struct dump *d)
{
	static const struct out_column columns[] = {
		{ "run", 8 }, { "runs", 8 }, { "hba", 11 }, { "look", -14 },
	};
	const struct mls_inspect *x = d->x;
	enum dump_look look = x->nr_runs ? dump_look_at_run(d, 0) : LOOK_ZEROS, next = look;

	out_table(d->out, "looks", columns, NR_COLUMNS(columns));
	for (uint64_t run = 0, end; run < x->nr_runs; run = end, look = next) {
		for (end = run + 1; end < x->nr_runs; end++) {
			next = dump_look_at_run(d, end);
			if (next != look)
				break;
		}
		out_row(d->out);
		out_number(d->out, "run", run);
		out_number(d->out, "runs", end - run);
		out_number(d->out, "hba", mls_inspect_run_hba(x, run));
		out_text(d->out, "look", dump_look_name(look));
		out_row_end(d->out);
	}
	out_table_end(d->out);
}

int dump_chunks(struct dump *d)
{
	const struct mls_inspect *x = d->x;
	int err = x->area >= 0 ? mls_inspect_count(d->x) : 0;

	if (err)
		return err;
	out_object(d->out, "chunks");
	out_number(d->out, "runs", x->nr_runs);
	out_number(d->out, "run_blocks", x->run_blocks);
	if (x->area >= 0) {
		out_number(d->out, "free", x->nr_free_runs);
		out_number(d->out, "segments", x->nr_segments);
		out_number(d->out, "chunks", x->nr_chunks);
		print_owners(d);
	} else if (x->has_sb) {
		print_looks(d);
	}
	out_object_end(d->out);
	return 0;
}

/* ---- Logs ---- */

static void print_log(struct dump *d, const struct mls_inspect_log *log)
{
	const struct mls_table_meta *table = log->table;

	out_row(d->out);
	out_number(d->out, "log", log->id);
	out_number(d->out, "bucket", log->bucket);
	out_number(d->out, "data_blocks", log->root.nr_data_blocks);
	out_number(d->out, "blocks", mls_crypto_log_total_blocks(log->root.nr_data_blocks));
	out_number_if(d->out, "level", table, table ? table->level : 0);
	out_number_if(d->out, "epoch", table, table ? table->epoch : 0);
	out_number_if(d->out, "records", table, table ? table->info.nr_records : 0);
	out_number_if(d->out, "min_lba", table, table ? table->info.min_lba : 0);
	out_number_if(d->out, "max_lba", table, table ? table->info.max_lba : 0);
	out_text(d->out, "state",
		 !table ? "leaked" : table->epoch > d->x->accepted.sync_id ? "dropped" : "table");
	out_numbers(d->out, "chunks", log->runs, log->nr_chunks);
	out_row_end(d->out);
}

int dump_logs(struct dump *d)
{
	static const struct out_column columns[] = {
		{ "log", 8 }, { "bucket", 6 }, { "data_blocks", 11 }, { "blocks", 8 }, { "level", 5 },
		{ "epoch", 8 }, { "records", 10 }, { "min_lba", 11 }, { "max_lba", 11 }, { "state", -7 },
		{ "chunks", -6 },
	};

	if (d->x->area < 0) {
		out_none(d->out, "logs");
		return 0;
	}
	out_table(d->out, "logs", columns, NR_COLUMNS(columns));
	for (size_t i = 0; i < d->x->nr_logs; i++)
		print_log(d, &d->x->logs[i]);
	out_table_end(d->out);
	return 0;
}

/* ---- Index ---- */

static uint64_t wal_records(const struct mls_inspect *x)
{
	uint64_t nr = 0;

	for (size_t i = 0; i < x->nr_groups; i++)
		nr += x->groups[i].accepted ? x->groups[i].group.nr_recs : 0;
	return nr;
}

/* Blocks of the log of a table, 0 if there is none. */
static uint64_t table_blocks(const struct mls_inspect *x, const struct mls_table_meta *table)
{
	const struct mls_inspect_log *log = mls_inspect_find_log(x, table->info.log_id);

	return log ? mls_crypto_log_total_blocks(log->root.nr_data_blocks) : 0;
}

static void print_levels(struct dump *d)
{
	static const struct out_column columns[] = {
		{ "level", 5 }, { "tables", 6 }, { "records", 12 }, { "blocks", 10 },
	};
	const struct mls_inspect *x = d->x;

	out_table(d->out, "levels", columns, NR_COLUMNS(columns));
	for (unsigned level = 0; level < MLS_NR_LEVELS; level++) {
		uint64_t nr_tables = 0, nr_records = 0, nr_blocks = 0;

		for (size_t i = 0; i < x->lsm.nr_tables; i++) {
			if (x->lsm.tables[i].level != level)
				continue;
			nr_tables++;
			nr_records += x->lsm.tables[i].info.nr_records;
			nr_blocks += table_blocks(x, &x->lsm.tables[i]);
		}
		if (!nr_tables)
			continue;
		out_row(d->out);
		out_number(d->out, "level", level);
		out_number(d->out, "tables", nr_tables);
		out_number(d->out, "records", nr_records);
		out_blocks(d->out, "blocks", nr_blocks);
		out_row_end(d->out);
	}
	out_table_end(d->out);
}

/* LBAs in a row whose blocks lie in a row. */
struct extent {
	struct dump *d;
	uint64_t lba, hba, nr_blocks;
};

static void print_extent(struct extent *e)
{
	struct dump_out *o = e->d->out;
	struct mls_place place = mls_inspect_place(e->d->x, e->hba);
	bool in_run = place.kind == MLS_PLACE_RUN;

	if (!e->nr_blocks)
		return;
	out_row(o);
	out_number(o, "lba", e->lba);
	out_number(o, "blocks", e->nr_blocks);
	out_number(o, "hba", e->hba);
	out_number_if(o, "run", in_run, place.index);
	out_number_if(o, "slot", in_run, place.pos);
	out_row_end(o);
}

static int extend(void *arg, const struct mls_inspect_rec *rec)
{
	struct extent *e = arg;
	uint64_t hba = mls_loc_hba(rec->rec.hba);

	if (!rec->newest || rec->rec.hba == MLS_HBA_NONE)
		return 0;
	if (e->nr_blocks && rec->rec.lba == e->lba + e->nr_blocks && hba == e->hba + e->nr_blocks &&
	    (hba - e->d->x->runs_hba) % e->d->x->run_blocks != 0) {
		e->nr_blocks++;
		return 0;
	}
	print_extent(e);
	e->lba = rec->rec.lba;
	e->hba = hba;
	e->nr_blocks = 1;
	return 0;
}

int dump_index(struct dump *d)
{
	static const struct out_column columns[] = {
		{ "lba", 12 }, { "blocks", 8 }, { "hba", 12 }, { "run", 9 }, { "slot", 5 },
	};
	struct extent extent = { .d = d };
	int err;

	if (d->x->area < 0) {
		out_none(d->out, "index");
		return 0;
	}
	out_object(d->out, "index");
	out_number(d->out, "wal_records", wal_records(d->x));
	print_levels(d);
	out_table(d->out, "extents", columns, NR_COLUMNS(columns));
	err = mls_inspect_records(d->x, 0, d->x->sb.geo.disk_blocks, extend, &extent);
	print_extent(&extent);
	out_table_end(d->out);
	out_object_end(d->out);
	return err;
}

/* ---- Statistics ---- */

#define NR_FILLS 6	/* empty, then fifths */

struct space {
	uint64_t live, slots;			/* of all segments */
	uint64_t by_fill[NR_FILLS];
	uint32_t *fills;			/* live blocks of each segment, ascending */
	size_t nr_fills;
};

static int compare_fills(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static int gather(const struct mls_inspect *x, struct space *space)
{
	*space = (struct space){ .slots = x->nr_segments * x->nr_slots };
	space->fills = calloc(x->nr_segments + 1, sizeof *space->fills);
	if (!space->fills)
		return MLS_ENOMEM;
	for (uint64_t run = 0; run < x->nr_runs && space->nr_fills < x->nr_segments; run++) {
		uint32_t live = x->runs[run].nr_live;

		if (x->runs[run].kind != MLS_RUN_SEGMENT)
			continue;
		space->live += live;
		space->fills[space->nr_fills++] = live;
		space->by_fill[live == 0 ? 0 : 1 + (uint64_t)(live - 1) * 5 / x->nr_slots]++;
	}
	qsort(space->fills, space->nr_fills, sizeof *space->fills, compare_fills);
	return 0;
}

static void print_fills(struct dump *d, const struct space *space)
{
	static const struct out_column columns[] = { { "live", -10 }, { "segments", 10 } };
	static const char *const names[NR_FILLS] = {
		"none", "to 20 %", "to 40 %", "to 60 %", "to 80 %", "to 100 %",
	};

	out_table(d->out, "segments_by_live", columns, NR_COLUMNS(columns));
	for (unsigned i = 0; i < NR_FILLS; i++) {
		out_row(d->out);
		out_text(d->out, "live", names[i]);
		out_number(d->out, "segments", space->by_fill[i]);
		out_row_end(d->out);
	}
	out_table_end(d->out);
}

/* Emptiest first, as the cleaner does: what must move so that a share of all segments is gained? A
 * gained run is one less segment: the moved blocks take runs themselves. */
static void print_cleaning(struct dump *d, const struct space *space)
{
	static const struct out_column columns[] = {
		{ "gain_percent", 12 }, { "victims", 9 }, { "move_blocks", 12 }, { "gained_runs", 11 },
	};
	static const unsigned percents[] = { 1, 5, 10, 25, 50 };
	uint64_t moved = 0, gained = 0;
	size_t victims = 0;

	out_table(d->out, "cleaning", columns, NR_COLUMNS(columns));
	for (size_t i = 0; i < NR_COLUMNS(percents) && space->nr_fills; i++) {
		uint64_t wanted = (space->nr_fills * percents[i] + 99) / 100;

		while (gained < wanted && victims < space->nr_fills) {
			moved += space->fills[victims++];
			gained = victims - (moved + d->x->nr_slots - 1) / d->x->nr_slots;
		}
		out_row(d->out);
		out_number(d->out, "gain_percent", percents[i]);
		out_number_if(d->out, "victims", gained >= wanted, victims);
		if (gained >= wanted)
			out_blocks(d->out, "move_blocks", moved);
		else
			out_none(d->out, "move_blocks");
		out_number_if(d->out, "gained_runs", gained >= wanted, gained);
		out_row_end(d->out);
	}
	out_table_end(d->out);
}

static void print_space(struct dump *d, const struct space *space)
{
	const struct mls_inspect *x = d->x;
	uint64_t summaries = x->nr_segments * (x->run_blocks - x->nr_slots);

	out_blocks(d->out, "disk_blocks", x->sb.geo.disk_blocks);
	out_blocks(d->out, "backing_blocks", x->dev->nr_blocks);
	out_blocks(d->out, "fixed_blocks", x->runs_hba);
	out_blocks(d->out, "free_blocks", x->nr_free_runs * x->run_blocks);
	out_blocks(d->out, "live_blocks", space->live);
	out_blocks(d->out, "dead_blocks", space->slots - space->live);
	out_blocks(d->out, "summary_blocks", summaries);
	out_blocks(d->out, "index_blocks", x->nr_chunks * x->run_blocks);
	out_ratio(d->out, "segments_live", space->live, space->slots);
	out_number(d->out, "runs", x->nr_runs);
	out_number(d->out, "free_runs", x->nr_free_runs);
	out_number(d->out, "segments", x->nr_segments);
	out_number(d->out, "chunks", x->nr_chunks);
	out_number(d->out, "wal_records", wal_records(x));
}

/* As of the last journal commit, which is the last thing a session does that ends in good order. */
static void print_totals(struct dump *d)
{
	const struct mls_totals *totals = &d->x->totals;

	out_object(d->out, "since_format");
	for (unsigned i = 0; i < MLS_NR_TOTALS_KNOWN; i++)
		out_number(d->out, mls_total_name((enum mls_total)i), totals->at[i]);
	out_factor(d->out, "write_amplification", totals->at[MLS_TOTAL_DEV_WRITTEN_BLOCKS] * MLS_BLOCK_BYTES,
		   totals->at[MLS_TOTAL_WRITTEN_BYTES]);
	out_factor(d->out, "read_amplification", totals->at[MLS_TOTAL_DEV_READ_BLOCKS] * MLS_BLOCK_BYTES,
		   totals->at[MLS_TOTAL_READ_BYTES]);
	out_object_end(d->out);
}

int dump_stats(struct dump *d)
{
	struct space space;
	int err;

	if (d->x->area < 0) {
		out_object(d->out, "stats");
		if (d->x->has_sb) {
			out_blocks(d->out, "disk_blocks", d->x->sb.geo.disk_blocks);
			out_blocks(d->out, "backing_blocks", d->x->dev->nr_blocks);
			out_blocks(d->out, "fixed_blocks", d->x->runs_hba);
			out_number(d->out, "runs", d->x->nr_runs);
		}
		out_object_end(d->out);
		return 0;
	}
	err = mls_inspect_count(d->x);
	if (!err)
		err = gather(d->x, &space);
	if (err)
		return err;
	out_object(d->out, "stats");
	print_space(d, &space);
	print_totals(d);
	print_levels(d);
	print_fills(d, &space);
	print_cleaning(d, &space);
	out_object_end(d->out);
	free(space.fills);
	return 0;
}
