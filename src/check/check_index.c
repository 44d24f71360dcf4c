/* SPDX-License-Identifier: MPL-2.0 */
/*
 * check_index.c - passes 2 and 3: every block of every log authenticates; every SSTable is one.
 *
 * Pass 2 checks that each log belongs to a table, and reads those that don't, too. Pass 3 reads each
 * table's log through mls_sst_check, which authenticates all its blocks (pass 2's business, done where
 * the lost LBAs can be named), and checks that tables of one deeper level don't overlap.
 * Who owns which run was checked when the state was loaded; it is reported under pass 2, too.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "4-lsm/sst_check.h"
#include "base/buf.h"
#include "base/checked.h"
#include "check/inspect_internal.h"

#define READ_BLOCKS 64u

struct walk {
	struct mls_inspect *x;
	mls_progress_fn *progress;
	void *arg;
	uint64_t done, all;
};

static bool went_on(void *arg, uint64_t nr_blocks)
{
	struct walk *walk = arg;

	walk->done = mls_min_u64(walk->done + nr_blocks, walk->all);
	if (walk->progress)
		walk->progress(walk->arg, 3, walk->done, walk->all);
	return !mls_inspect_stopped(walk->x);
}

/* ---- A log without a table ---- */

static int read_all(struct walk *walk, const struct mls_inspect_log *log, struct mls_crypto_log *crypto)
{
	struct mls_finding finding = mls_finding_init(MLS_FOUND_LOG_DAMAGED);
	uint64_t nr_bad = 0;
	void *blocks = mls_blocks_alloc(READ_BLOCKS);
	int err = blocks ? 0 : MLS_ENOMEM;

	for (uint64_t at = 0; at < log->root.nr_data_blocks && !err;) {
		uint32_t nr = (uint32_t)mls_min_u64(READ_BLOCKS, log->root.nr_data_blocks - at);

		err = mls_crypto_log_read(crypto, at, nr, blocks);
		if (err == MLS_EAUTH || err == MLS_EIO) {
			nr_bad += nr;
			err = 0;
		}
		at += nr;
		if (!err && !went_on(walk, nr))
			err = MLS_EABORTED;
	}
	mls_blocks_free(blocks);
	finding.log_id = log->id;
	if (!err && nr_bad)
		mls_inspect_report(walk->x, &finding, "about %" PRIu64 " of %" PRIu64 " blocks; nobody needs them", nr_bad,
				   log->root.nr_data_blocks);
	return err;
}

static int check_leaked(struct walk *walk, const struct mls_inspect_log *log)
{
	struct mls_finding finding = mls_finding_init(MLS_FOUND_LOG_LEAKED);
	struct mls_inspect_open_log open;
	int err;

	finding.log_id = log->id;
	mls_inspect_report(walk->x, &finding, "%" PRIu32 " chunks", log->nr_chunks);
	err = mls_inspect_log_open(walk->x, log, &open);
	if (err)
		return err == MLS_EFORMAT ? 0 : err;
	err = read_all(walk, log, open.crypto);
	mls_inspect_log_close(&open);
	return err;
}

/* ---- Tables ---- */

static int check_table(struct walk *walk, const struct mls_table_meta *table)
{
	struct mls_finding finding = mls_finding_init(MLS_FOUND_TABLE_NO_LOG);
	const struct mls_inspect_log *log = mls_inspect_find_log(walk->x, table->info.log_id);
	struct mls_inspect_open_log open;
	struct mls_sst_check check;
	int err;

	finding.log_id = table->info.log_id;
	finding.lba = table->info.min_lba;
	finding.nr_lbas = table->info.max_lba - table->info.min_lba + 1;
	if (!log) {
		mls_inspect_report(walk->x, &finding, "%" PRIu64 " records are lost", table->info.nr_records);
		return 0;
	}
	err = mls_inspect_log_open(walk->x, log, &open);
	if (err == MLS_EFORMAT) {
		finding.code = MLS_FOUND_LOG_MALFORMED;
		mls_inspect_report(walk->x, &finding, "%" PRIu64 " records are lost", table->info.nr_records);
	}
	if (err)
		return err == MLS_EFORMAT ? 0 : err;
	check = (struct mls_sst_check){ .log = open.crypto, .nr_data_blocks = log->root.nr_data_blocks,
					.info = &table->info, .report = walk->x->report,
					.report_arg = walk->x->report_arg, .progress = went_on, .progress_arg = walk };
	err = mls_sst_check(&check);
	mls_inspect_log_close(&open);
	return err;
}

static void check_overlap(struct mls_inspect *x, const struct mls_table_meta *left, const struct mls_table_meta *right)
{
	struct mls_finding finding = mls_finding_init(MLS_FOUND_TABLE_OVERLAP);

	if (left->level == 0 || left->level != right->level || left->info.max_lba < right->info.min_lba)
		return;
	finding.log_id = right->info.log_id;
	finding.lba = right->info.min_lba;
	finding.nr_lbas = mls_min_u64(left->info.max_lba, right->info.max_lba) - right->info.min_lba + 1;
	mls_inspect_report(x, &finding, "level %u: with the table in log %" PRIu64, left->level, left->info.log_id);
}

int mls_inspect_check_logs(struct mls_inspect *x, mls_progress_fn *progress, void *arg)
{
	struct walk walk = { .x = x, .progress = progress, .arg = arg };
	int err = 0;

	for (size_t i = 0; i < x->nr_logs; i++)
		walk.all += x->logs[i].root.nr_data_blocks;
	for (size_t i = 0; i < x->nr_logs && !err; i++)
		if (!x->logs[i].table)
			err = check_leaked(&walk, &x->logs[i]);
	for (size_t i = 0; i < x->lsm.nr_tables && !err; i++) {
		err = check_table(&walk, &x->lsm.tables[i]);
		if (!err && i > 0)
			check_overlap(x, &x->lsm.tables[i - 1], &x->lsm.tables[i]);
	}
	return err;
}
