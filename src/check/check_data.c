/* SPDX-License-Identifier: MPL-2.0 */
/*
 * check_data.c - pass 6: every block that an LBA reads authenticates.
 *
 * BACKING is done in windows of WINDOW_SLOTS blocks. For each, a walk over the index fills a table, by
 * slot, with the LBA and tag of the block that is needed there; then threads take its segments one by
 * one, in order of HBA, read what is needed in large transfers, and authenticate. So memory is bounded
 * whatever the size of the disk, and the device sees a sequential read. More threads than cores, since
 * each waits for its own transfers.
 *
 * A segment's summary, where there is one of this life, must say of each slot what the index says.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "5-disk/location.h"
#include "base/buf.h"
#include "base/checked.h"
#include "check/inspect_internal.h"

#define WINDOW_SLOTS (UINT64_C(4) << 20)	/* 96 MiB of table */
#define NR_WORKERS 4u
#define IO_BLOCKS 256u				/* of a transfer, at most */
#define GAP_BLOCKS 16u				/* so many that aren't needed are read along */

struct wanted {
	uint64_t lba;			/* MLS_LBA_NONE: nobody needs the slot */
	uint8_t tag[MLS_TAG_BYTES];
};

struct pass {
	struct mls_inspect *x;
	mls_block_sink_fn *sink;
	void *sink_arg;
	mls_progress_fn *progress;
	void *progress_arg;

	struct wanted *wanted;		/* of the window: (run - first_run) * nr_slots + slot */
	uint64_t first_run, nr_runs;	/* of the window */
	atomic_uint_fast64_t next_run;	/* that nobody has taken yet */
	atomic_int err;			/* not 0: everybody stops */

	pthread_mutex_t lock;		/* of what follows, and of reports */
	uint64_t nr_done, nr_all;
};

/* What one thread works with. */
struct worker {
	struct pass *pass;
	uint8_t *blocks;		/* run_blocks: each slot's block has its place */
	struct mls_io *ios;
	unsigned nr_ios;
	bool *bad;			/* by slot: it couldn't be read */
	struct mls_seg_summary summary;
	struct mls_finding pending;	/* damage in a row; nr_blocks 0: none */
};

/* ---- Findings ---- */

static void tell_pending(struct worker *w)
{
	struct pass *pass = w->pass;

	if (w->pending.nr_blocks) {
		pthread_mutex_lock(&pass->lock);
		mls_inspect_report(pass->x, &w->pending, "%s",
				   w->pending.code == MLS_FOUND_DATA_DAMAGED ? "these LBAs read as errors" : "I/O error");
		pthread_mutex_unlock(&pass->lock);
	}
	w->pending.nr_blocks = 0;
}

static void note_lost(struct worker *w, enum mls_finding_code code, uint64_t run, uint32_t slot, uint64_t lba)
{
	struct mls_finding *p = &w->pending;
	uint64_t hba = mls_inspect_run_hba(w->pass->x, run) + slot;

	if (p->nr_blocks && p->code == code && p->hba + p->nr_blocks == hba && p->lba + p->nr_lbas == lba) {
		p->nr_blocks++;
		p->nr_lbas++;
		return;
	}
	tell_pending(w);
	*p = mls_finding_init(code);
	p->run = run;
	p->hba = hba;
	p->lba = lba;
	p->nr_blocks = p->nr_lbas = 1;
}

static void summary_differs(struct worker *w, uint64_t run, uint32_t slot, uint64_t lba)
{
	struct mls_finding finding = mls_finding_init(MLS_FOUND_SEG_SUMMARY_DIFFERS);

	finding.run = run;
	finding.hba = mls_inspect_run_hba(w->pass->x, run) + slot;
	finding.nr_blocks = 1;
	finding.lba = lba;
	finding.nr_lbas = 1;
	pthread_mutex_lock(&w->pass->lock);
	mls_inspect_report(w->pass->x, &finding, "slot %u: the summary has another LBA or tag", slot);
	pthread_mutex_unlock(&w->pass->lock);
}

/* ---- One segment ---- */

static const struct wanted *wanted_at(const struct pass *pass, uint64_t run, uint32_t slot)
{
	return &pass->wanted[(run - pass->first_run) * pass->x->nr_slots + slot];
}

/* Transfers over what is needed; small gaps are read along. */
static void plan(struct worker *w, uint64_t run)
{
	const struct mls_inspect *x = w->pass->x;
	uint64_t hba = mls_inspect_run_hba(x, run);
	struct mls_io *last = NULL;

	w->nr_ios = 0;
	for (uint32_t slot = 0; slot < x->nr_slots; slot++) {
		uint64_t end;

		if (wanted_at(w->pass, run, slot)->lba == MLS_LBA_NONE)
			continue;
		end = last ? last->hba + last->nr_blocks - hba : 0;
		if (last && slot - end <= GAP_BLOCKS && slot - (last->hba - hba) < IO_BLOCKS) {
			last->nr_blocks = (uint32_t)(slot + 1 - (last->hba - hba));
			continue;
		}
		last = &w->ios[w->nr_ios++];
		*last = (struct mls_io){ hba + slot, 1, 0, mls_block_at(w->blocks, slot) };
	}
}

/* What failed as a whole is read block by block. */
static int read_planned(struct worker *w, uint64_t run)
{
	const struct mls_inspect *x = w->pass->x;
	int err = w->nr_ios ? mls_block_dev_readv(x->dev, w->ios, w->nr_ios) : 0;

	memset(w->bad, 0, x->nr_slots * sizeof *w->bad);
	if (!err || err == MLS_ENOMEM)
		return err;
	for (uint32_t slot = 0; slot < x->nr_slots; slot++) {
		int one;

		if (wanted_at(w->pass, run, slot)->lba == MLS_LBA_NONE)
			continue;
		one = mls_block_dev_read(x->dev, mls_inspect_run_hba(x, run) + slot, 1, mls_block_at(w->blocks, slot));
		if (one == MLS_ENOMEM)
			return one;
		w->bad[slot] = one != 0;
	}
	return 0;
}

static int check_slot(struct worker *w, uint64_t run, uint32_t slot, bool has_summary)
{
	struct pass *pass = w->pass;
	const struct mls_inspect_run *entry = &pass->x->runs[run];
	const struct wanted *wanted = wanted_at(pass, run, slot);
	const struct mls_seg_slot *noted = &w->summary.slots[slot];
	uint8_t *block = mls_block_at(w->blocks, slot);
	int err = MLS_EAUTH;

	if (has_summary && (slot >= w->summary.nr_slots || noted->lba != wanted->lba ||
			    memcmp(noted->tag, wanted->tag, MLS_TAG_BYTES) != 0))
		summary_differs(w, run, slot, wanted->lba);
	if (w->bad[slot]) {
		note_lost(w, MLS_FOUND_DATA_UNREADABLE, run, slot, wanted->lba);
	} else {
		if (entry->key)
			err = mls_data_open(entry->key, entry->birth, slot, wanted->lba, block, block, wanted->tag);
		if (err == MLS_EAUTH)
			note_lost(w, MLS_FOUND_DATA_DAMAGED, run, slot, wanted->lba);
		else if (err)
			return err;
	}
	return pass->sink ? pass->sink(pass->sink_arg, wanted->lba, err ? NULL : block) : 0;
}

static int check_segment(struct worker *w, uint64_t run)
{
	struct pass *pass = w->pass;
	struct mls_inspect *x = pass->x;
	bool has_summary;
	int err;

	plan(w, run);
	err = read_planned(w, run);
	if (err)
		return err;
	err = mls_inspect_summary(x, run, &w->summary);
	if (err == MLS_ENOMEM)
		return err;
	has_summary = err == 0 && mls_inspect_summary_is_of(x, &w->summary);
	err = 0;
	for (uint32_t slot = 0; slot < x->nr_slots && !err; slot++)
		if (wanted_at(pass, run, slot)->lba != MLS_LBA_NONE)
			err = check_slot(w, run, slot, has_summary);
	tell_pending(w);
	pthread_mutex_lock(&pass->lock);
	pass->nr_done += x->runs[run].nr_live;
	if (pass->progress)
		pass->progress(pass->progress_arg, 6, pass->nr_done, pass->nr_all);
	pthread_mutex_unlock(&pass->lock);
	return err;
}

/* ---- Threads ---- */

static void *work(void *arg)
{
	struct worker *w = arg;
	struct pass *pass = w->pass;

	while (!atomic_load(&pass->err)) {
		uint64_t run = atomic_fetch_add(&pass->next_run, 1);
		int err;

		if (run >= pass->first_run + pass->nr_runs)
			break;
		if (pass->x->runs[run].nr_live == 0)
			continue;
		err = mls_inspect_stopped(pass->x) ? MLS_EABORTED : check_segment(w, run);
		if (err)
			atomic_store(&pass->err, err);
	}
	return NULL;
}

static int worker_init(struct worker *w, struct pass *pass)
{
	const struct mls_inspect *x = pass->x;

	*w = (struct worker){ .pass = pass };
	w->blocks = mls_blocks_alloc(x->run_blocks);
	w->ios = calloc(x->nr_slots, sizeof *w->ios);
	w->bad = calloc(x->nr_slots, sizeof *w->bad);
	w->summary.slots = calloc(x->nr_slots, sizeof *w->summary.slots);
	return w->blocks && w->ios && w->bad && w->summary.slots ? 0 : MLS_ENOMEM;
}

static void worker_release(struct worker *w)
{
	if (w->blocks)
		mls_wipe(w->blocks, (size_t)w->pass->x->run_blocks * MLS_BLOCK_BYTES);
	mls_blocks_free(w->blocks);
	free(w->ios);
	free(w->bad);
	free(w->summary.slots);
}

/* The window's segments, by all threads; this one is the first of them. */
static int do_window(struct pass *pass, struct worker *workers)
{
	pthread_t threads[NR_WORKERS];
	unsigned nr_started = 0;

	atomic_store(&pass->next_run, pass->first_run);
	while (nr_started + 1 < NR_WORKERS &&
	       pthread_create(&threads[nr_started], NULL, work, &workers[nr_started + 1]) == 0)
		nr_started++;
	work(&workers[0]);
	for (unsigned i = 0; i < nr_started; i++)
		pthread_join(threads[i], NULL);
	return atomic_load(&pass->err);
}

/* Another LBA has the slot in the table already (pass 4 tells of it): this one is checked at once. */
static int check_shared(struct pass *pass, const struct mls_index_rec *rec, uint64_t run)
{
	struct mls_finding finding = mls_finding_init(MLS_FOUND_DATA_DAMAGED);
	void *block = mls_blocks_alloc(1);
	int err = block ? mls_inspect_read(pass->x, rec, block) : MLS_ENOMEM;

	if (err != MLS_ENOMEM && err) {
		finding.run = run;
		finding.hba = mls_loc_hba(rec->hba);
		finding.lba = rec->lba;
		finding.nr_blocks = finding.nr_lbas = 1;
		mls_inspect_report(pass->x, &finding, "its slot is another LBA's");
	}
	if (err != MLS_ENOMEM)
		err = pass->sink ? pass->sink(pass->sink_arg, rec->lba, err ? NULL : block) : 0;
	if (block)
		mls_wipe(block, MLS_BLOCK_BYTES);
	mls_blocks_free(block);
	return err;
}

static int want(void *arg, const struct mls_inspect_rec *rec)
{
	struct pass *pass = arg;
	struct wanted *wanted;
	uint64_t run;
	uint32_t slot;

	if (!rec->newest || rec->rec.hba == MLS_HBA_NONE || !mls_inspect_slot_of(pass->x, rec->rec.hba, &run, &slot) ||
	    run < pass->first_run || run - pass->first_run >= pass->nr_runs)
		return 0;
	wanted = &pass->wanted[(run - pass->first_run) * pass->x->nr_slots + slot];
	if (wanted->lba != MLS_LBA_NONE)
		return check_shared(pass, &rec->rec, run);
	wanted->lba = rec->rec.lba;
	memcpy(wanted->tag, rec->rec.tag, MLS_TAG_BYTES);
	return 0;
}

static bool window_is_empty(const struct pass *pass)
{
	for (uint64_t i = 0; i < pass->nr_runs; i++)
		if (pass->x->runs[pass->first_run + i].nr_live)
			return false;
	return true;
}

static int do_windows(struct pass *pass, struct worker *workers, uint64_t window_runs)
{
	struct mls_inspect *x = pass->x;
	int err = 0;

	for (uint64_t run = 0; run < x->nr_runs && !err; run += window_runs) {
		pass->first_run = run;
		pass->nr_runs = mls_min_u64(window_runs, x->nr_runs - run);
		if (window_is_empty(pass))
			continue;
		memset(pass->wanted, 0xff, window_runs * x->nr_slots * sizeof *pass->wanted);
		err = mls_inspect_records(x, 0, UINT64_MAX, want, pass);
		if (!err)
			err = do_window(pass, workers);
	}
	return err;
}

int mls_inspect_check_data(struct mls_inspect *x, mls_block_sink_fn *sink, void *sink_arg, mls_progress_fn *progress,
			   void *arg)
{
	struct pass pass = { .x = x, .sink = sink, .sink_arg = sink_arg, .progress = progress, .progress_arg = arg };
	struct worker workers[NR_WORKERS];
	uint64_t window_runs;
	int err;

	if (!x->runs)
		return 0;
	err = mls_inspect_count(x);
	if (err)
		return err;
	for (uint64_t run = 0; run < x->nr_runs; run++)
		pass.nr_all += x->runs[run].nr_live;
	window_runs = mls_min_u64(mls_max_u64(WINDOW_SLOTS / x->run_blocks, 1), x->nr_runs);
	pthread_mutex_init(&pass.lock, NULL);
	pass.wanted = malloc(window_runs * x->nr_slots * sizeof *pass.wanted);
	err = pass.wanted ? 0 : MLS_ENOMEM;
	for (unsigned i = 0; i < NR_WORKERS; i++) {
		int one = worker_init(&workers[i], &pass);

		err = err ? err : one;
	}
	if (!err)
		err = do_windows(&pass, workers, window_runs);
	for (unsigned i = 0; i < NR_WORKERS; i++)
		worker_release(&workers[i]);
	free(pass.wanted);
	pthread_mutex_destroy(&pass.lock);
	return err;
}
