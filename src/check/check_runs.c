/* SPDX-License-Identifier: MPL-2.0 */
/*
 * check_runs.c - passes 4 and 5: what LBAs point to, and what the runs are noted to hold.
 *
 * Pass 4 walks over all records, by LBA: each that an LBA reads points to a slot of a living segment,
 * and no two to the same one (a bit a slot, for runs that have any). It counts on the way. LBAs in a row
 * with the same fault are one finding.
 *
 * Pass 5 compares the counts with those of the journal, and looks for the segments' summaries.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "5-disk/location.h"
#include "check/inspect_internal.h"

/* ---- Pass 4 ---- */

struct records {
	struct mls_inspect *x;
	mls_progress_fn *progress;
	void *arg;
	uint64_t nr_done, nr_all;
	uint8_t **taken;		/* by run: a bit a slot; NULL: none yet */
	struct mls_finding pending;	/* nr_lbas 0: none */
	uint64_t pending_loc;
};

static void tell_pending(struct records *r)
{
	if (r->pending.nr_lbas)
		mls_inspect_report(r->x, &r->pending, "the first one to HBA %" PRIu64 ", birth %" PRIu64 " (mod 2^24)",
				   mls_loc_hba(r->pending_loc), r->pending_loc >> MLS_LOC_HBA_BITS);
	r->pending.nr_lbas = 0;
}

static void fault(struct records *r, enum mls_finding_code code, const struct mls_inspect_rec *rec)
{
	struct mls_place place = mls_inspect_place(r->x, mls_loc_hba(rec->rec.hba));

	if (r->pending.nr_lbas && r->pending.code == code && r->pending.lba + r->pending.nr_lbas == rec->rec.lba) {
		r->pending.nr_lbas++;
		return;
	}
	tell_pending(r);
	r->pending = mls_finding_init(code);
	r->pending.lba = rec->rec.lba;
	r->pending.nr_lbas = 1;
	r->pending_loc = rec->rec.hba;
	r->pending.hba = mls_loc_hba(rec->rec.hba);
	r->pending.nr_blocks = 1;
	if (rec->table)
		r->pending.log_id = rec->table->info.log_id;
	if (place.kind == MLS_PLACE_RUN)
		r->pending.run = place.index;
}

/* *twice: was the slot taken already? */
static int take_slot(struct records *r, uint64_t run, uint32_t slot, bool *twice)
{
	if (!r->taken[run])
		r->taken[run] = calloc(1, (r->x->nr_slots + 7) / 8);
	if (!r->taken[run])
		return MLS_ENOMEM;
	*twice = r->taken[run][slot / 8] & 1u << slot % 8;
	r->taken[run][slot / 8] |= (uint8_t)(1u << slot % 8);
	return 0;
}

static int check_rec(void *arg, const struct mls_inspect_rec *rec)
{
	struct records *r = arg;
	struct mls_place place;
	bool twice = false;
	uint64_t run;
	uint32_t slot;
	int err;

	if (r->progress && ++r->nr_done % 65536 == 0)
		r->progress(r->arg, 4, r->nr_done < r->nr_all ? r->nr_done : r->nr_all, r->nr_all);
	mls_inspect_count_rec(r->x, rec);
	if (rec->accepted && rec->rec.lba >= r->x->sb.geo.disk_blocks) {
		fault(r, MLS_FOUND_LBA_RANGE, rec);
		return 0;
	}
	if (!rec->newest || rec->rec.hba == MLS_HBA_NONE)
		return 0;
	place = mls_inspect_place(r->x, mls_loc_hba(rec->rec.hba));
	if (place.kind != MLS_PLACE_RUN || place.pos >= r->x->nr_slots) {
		fault(r, MLS_FOUND_LBA_NOWHERE, rec);
		return 0;
	}
	if (!mls_inspect_slot_of(r->x, rec->rec.hba, &run, &slot)) {
		fault(r, MLS_FOUND_LBA_DEAD, rec);
		return 0;
	}
	err = take_slot(r, run, slot, &twice);
	if (!err && twice)
		fault(r, MLS_FOUND_SLOT_SHARED, rec);
	return err;
}

int mls_inspect_check_records(struct mls_inspect *x, mls_progress_fn *progress, void *arg)
{
	struct records r = { .x = x, .progress = progress, .arg = arg };
	int err;

	if (!x->runs)
		return 0;
	for (size_t i = 0; i < x->lsm.nr_tables; i++)
		r.nr_all += x->lsm.tables[i].info.nr_records;
	for (size_t i = 0; i < x->nr_groups; i++)
		r.nr_all += x->groups[i].group.nr_recs;
	r.taken = calloc(x->nr_runs, sizeof *r.taken);
	if (!r.taken)
		return MLS_ENOMEM;
	mls_inspect_count_begin(x);
	err = mls_inspect_records(x, 0, UINT64_MAX, check_rec, &r);
	x->counted = err == 0;
	if (!err)
		tell_pending(&r);
	for (uint64_t run = 0; run < x->nr_runs; run++)
		free(r.taken[run]);
	free(r.taken);
	return err;
}

/* ---- Pass 5 ---- */

static void check_count(struct mls_inspect *x, uint64_t run)
{
	const struct mls_inspect_run *entry = &x->runs[run];
	struct mls_finding finding = mls_finding_init(MLS_FOUND_SEG_COUNT);

	if (entry->noted_live == (int64_t)entry->live_sst || x->index_damaged)
		return;
	finding.run = run;
	finding.hba = mls_inspect_run_hba(x, run);
	finding.nr_blocks = x->run_blocks;
	mls_inspect_report(x, &finding, "expected %" PRIu32 " records in SSTables, found %" PRId64 " noted",
			   entry->live_sst, entry->noted_live);
}

/* MLS_ENOENT: there is none of this life. One of another key is of a session that was given up: its births
 * were given again. */
static int check_summary(struct mls_inspect *x, uint64_t run, struct mls_seg_summary *summary)
{
	int err = mls_inspect_summary(x, run, summary);

	if (err)
		return err == MLS_ENOMEM ? err : MLS_ENOENT;
	return mls_inspect_summary_is_of(x, summary) ? 0 : MLS_ENOENT;
}

static int by_number(const void *a, const void *b)
{
	const uint64_t *left = a, *right = b;

	return *left < *right ? -1 : *left > *right;
}

/* Births are unique. */
static int check_births(struct mls_inspect *x)
{
	uint64_t *births = malloc((x->nr_segments ? x->nr_segments : 1) * sizeof *births);
	struct mls_finding finding = mls_finding_init(MLS_FOUND_SEG_MALFORMED);
	size_t nr = 0;

	if (!births)
		return MLS_ENOMEM;
	for (uint64_t run = 0; run < x->nr_runs; run++)
		if (x->runs[run].kind == MLS_RUN_SEGMENT)
			births[nr++] = x->runs[run].birth;
	if (nr)
		qsort(births, nr, sizeof *births, by_number);
	for (size_t i = 1; i < nr; i++)
		if (births[i] == births[i - 1])
			mls_inspect_report(x, &finding, "two segments have birth %" PRIu64, births[i]);
	free(births);
	return 0;
}

int mls_inspect_check_runs(struct mls_inspect *x, mls_progress_fn *progress, void *arg)
{
	struct mls_finding finding = mls_finding_init(MLS_FOUND_SEG_SUMMARY);
	struct mls_seg_summary summary = { .nr_slots = 0 };
	uint64_t nr_without = 0;
	int err;

	if (!x->runs)
		return 0;
	err = mls_inspect_count(x);
	if (!err)
		err = check_births(x);
	if (!err) {
		summary.slots = calloc(x->nr_slots, sizeof *summary.slots);
		err = summary.slots ? 0 : MLS_ENOMEM;
	}
	for (uint64_t run = 0; run < x->nr_runs && !err; run++) {
		if (progress && run % 64 == 0)
			progress(arg, 5, run, x->nr_runs);
		if (run % 64 == 0 && mls_inspect_stopped(x))
			err = MLS_EABORTED;
		if (err || x->runs[run].kind != MLS_RUN_SEGMENT)
			continue;
		check_count(x, run);
		if (x->runs[run].nr_live == 0)
			continue;
		err = check_summary(x, run, &summary);
		if (err == MLS_ENOENT) {
			if (nr_without++ == 0)
				finding.run = run;
			err = 0;
		}
	}
	free(summary.slots);
	if (!err && nr_without)
		mls_inspect_report(x, &finding, "%" PRIu64 " segments, the first one named", nr_without);
	return err;
}

int mls_inspect_check(struct mls_inspect *x, mls_progress_fn *progress, void *arg)
{
	int err = mls_inspect_check_logs(x, progress, arg);

	if (!err)
		err = mls_inspect_check_records(x, progress, arg);
	if (!err)
		err = mls_inspect_check_runs(x, progress, arg);
	return err;
}
