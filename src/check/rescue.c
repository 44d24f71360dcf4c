/* SPDX-License-Identifier: MPL-2.0 */
/*
 * rescue.c - blocks that no index names any more, found by what the segments hold.
 *
 * LBAs are done in windows. A walk over all lives (a segment's summary, or what the WAL says of a segment
 * that has none) finds for each LBA of the window the largest order among its versions; what is left of the
 * index tells of discards, and of versions in segments that have no summary; a second walk reads the lives'
 * blocks, segment by segment, and saves those of the winning order that authenticate. A version that has
 * won and doesn't authenticate is lost: an older one must not take its place. A copy of the same write
 * (before or after the cleaner moved it) has the same order, and may.
 *
 * With a journal (gaps) only segments that live count, and only LBAs whose index blocks are damaged.
 * Without one, segments of all times compete; what a crash undid is told by sessions (doc/format.md 11).
 */
#include "check/rescue.h"

#include <stdlib.h>
#include <string.h>

#include "5-disk/location.h"
#include "base/buf.h"
#include "base/checked.h"
#include "check/inspect_internal.h"
#include "check/rescue_wal.h"

#define LIVES_OPEN_MAX 8u			/* segments that a session has in the making at once */
#define WINDOW_LBAS (UINT64_C(4) << 20)		/* 96 MiB of table */

enum lba_state {
	LBA_SETTLED,		/* nobody asks, or the index has answered */
	LBA_NOTHING,		/* no version found so far */
	LBA_WON,		/* order has won; its block hasn't been met yet */
	LBA_DAMAGED,		/* it was met, and doesn't authenticate */
	LBA_UNREADABLE,
	LBA_SAVED,
};

struct winner {
	struct mls_write_order order;
	uint8_t state;			/* enum lba_state */
};

struct rescue {
	struct mls_salvage *s;
	struct mls_inspect *x;
	struct rescue_wal wal;
	bool gaps;
	uint64_t bound;			/* no later epoch was ever synced */
	struct mls_data_key *keys;	/* by salt, as met */
	bool *has_summary;		/* by run: of a life that counts */
	uint64_t nr_blind;		/* runs that may hold blocks nobody can tell of */

	struct mls_lost_range *ranges;	/* gaps: what is asked for */
	size_t nr_ranges;

	struct winner *winners;		/* of the window */
	uint64_t first_lba, nr_lbas;
	uint64_t weighed_lba;		/* the index's newest record of it was looked at */
	struct mls_seg_summary summary;	/* of the life that is being looked at */
	uint8_t *blocks;		/* run_blocks */
};

static struct winner *winner_of(struct rescue *r, uint64_t lba)
{
	struct winner *winner;

	if (lba < r->first_lba || lba - r->first_lba >= r->nr_lbas)
		return NULL;
	winner = &r->winners[lba - r->first_lba];
	return winner->state == LBA_SETTLED ? NULL : winner;
}

/* ---- The life of a run, into r->summary ---- */

static int key_for(struct rescue *r, struct mls_data_key **key)
{
	struct mls_data_key *new;
	int err;

	for (*key = r->keys; *key; *key = (*key)->next)
		if (memcmp((*key)->salt, r->summary.key_salt, MLS_SALT_BYTES) == 0)
			return 0;
	err = mls_data_key_new(&new, r->x->keys, 0, r->summary.key_salt);
	if (err)
		return err;
	new->next = r->keys;
	r->keys = *key = new;
	return 0;
}

static int living_summary(struct rescue *r, uint64_t run)
{
	const struct mls_inspect_run *entry = &r->x->runs[run];
	int err = MLS_ENOENT;

	if (entry->kind == MLS_RUN_SEGMENT || entry->kind == MLS_RUN_TWICE)
		err = mls_inspect_summary(r->x, run, &r->summary);
	if (!err && !mls_inspect_summary_is_of(r->x, &r->summary))
		err = MLS_ENOENT;
	return err == MLS_EIO ? MLS_ENOENT : err;
}

/*
 * Into r->summary: a life that the WAL announced, and that has no summary. If it wasn't among the last that
 * its session began, its segment was filled, and had one: the run has had another life since, which took the
 * summary's place. Slots that don't authenticate any more are no damage then. (But for a segment of moves
 * that stayed open until a crash, while many others were filled.)
 */
static int announced_life(struct rescue *r, const struct rescue_life *life, const uint8_t *salt)
{
	bool ended = life->nr_later >= LIVES_OPEN_MAX;
	uint64_t hba = mls_inspect_run_hba(r->x, life->run);
	struct mls_data_key *key;
	int err;

	r->summary.run = life->run;
	r->summary.birth = life->birth;
	r->summary.session = UINT64_MAX;	/* synced: never undone */
	r->summary.nr_slots = r->x->nr_slots;
	memcpy(r->summary.key_salt, salt, MLS_SALT_BYTES);
	memcpy(r->summary.slots, life->slots, r->x->nr_slots * sizeof *life->slots);
	err = key_for(r, &key);
	for (uint32_t slot = 0; slot < r->x->nr_slots && ended && !err; slot++) {
		struct mls_seg_slot *noted = &r->summary.slots[slot];

		if (noted->lba == MLS_SLOT_VOID || mls_block_dev_read(r->x->dev, hba + slot, 1, r->blocks))
			continue;
		if (mls_data_open(key, life->birth, slot, noted->lba, r->blocks, r->blocks, noted->tag))
			noted->lba = MLS_SLOT_VOID;
	}
	return err;
}

/* MLS_ENOENT: nothing is known of the run. */
static int look_at_life(struct rescue *r, uint64_t run)
{
	const uint8_t *salt = NULL;
	const struct rescue_life *life;
	int err;

	if (r->gaps)
		return living_summary(r, run);
	life = rescue_wal_life(&r->wal, run, &salt);
	err = mls_inspect_summary(r->x, run, &r->summary);
	if (err == MLS_ENOMEM || (err && !life))
		return err == MLS_ENOMEM ? err : MLS_ENOENT;
	if (err == 0 && (!life || life->birth < r->summary.birth ||
			 (life->birth == r->summary.birth && memcmp(salt, r->summary.key_salt, MLS_SALT_BYTES) == 0)))
		return 0;
	return announced_life(r, life, salt);
}

/* fn for each run of which a life is known. */
static int each_life(struct rescue *r, int (*fn)(struct rescue *r))
{
	int err = 0;

	for (uint64_t run = 0; run < r->x->nr_runs && !err; run++) {
		if (run % 64 == 0 && mls_inspect_stopped(r->x))
			return MLS_EABORTED;
		err = look_at_life(r, run);
		if (err == 0)
			err = fn(r);
		else if (err == MLS_ENOENT)
			err = 0;
		if (r->s->progress && run % 16 == 0)
			r->s->progress(r->s->progress_arg, 6, run * r->x->run_blocks,
				       r->x->nr_runs * r->x->run_blocks);
	}
	return err;
}

/* ---- Before: sessions, and who has a summary ---- */

static int survey(struct rescue *r)
{
	int err = 0;

	for (uint64_t run = 0; run < r->x->nr_runs && !err; run++) {
		if (run % 64 == 0 && mls_inspect_stopped(r->x))
			return MLS_EABORTED;
		err = mls_inspect_summary(r->x, run, &r->summary);
		if (err == 0) {
			r->has_summary[run] = !r->gaps || mls_inspect_summary_is_of(r->x, &r->summary);
			err = rescue_wal_add_session(&r->wal, r->summary.session);
		} else if (err != MLS_ENOMEM) {
			err = 0;
		}
		if (r->gaps && r->x->runs[run].kind == MLS_RUN_SEGMENT && !r->has_summary[run])
			r->nr_blind++;
	}
	rescue_wal_sort_sessions(&r->wal);
	return err;
}

/* ---- Who wins ---- */

static int compete(struct rescue *r)
{
	const struct mls_seg_summary *life = &r->summary;

	for (uint32_t slot = 0; slot < life->nr_slots; slot++) {
		const struct mls_write_order *order = &life->slots[slot].order;
		struct winner *winner = winner_of(r, life->slots[slot].lba);

		if (!winner || order->epoch > r->bound || rescue_wal_undone(&r->wal, life->session, order->epoch))
			continue;
		if (winner->state == LBA_NOTHING || mls_order_before(&winner->order, order))
			*winner = (struct winner){ *order, LBA_WON };
	}
	return 0;
}

static uint64_t epoch_of(const struct rescue *r, const struct mls_inspect_rec *rec)
{
	return rec->table ? rec->table->epoch : r->x->groups[rec->group].group.head.sync_id;
}

/* What is left of the index has a record, the newest that it knows of. Its epoch is a bound. */
static int weigh(void *arg, const struct mls_inspect_rec *rec)
{
	struct rescue *r = arg;
	struct winner *winner = winner_of(r, rec->rec.lba);
	uint64_t epoch = epoch_of(r, rec), run;
	uint32_t slot;
	int err;

	if (!winner || !rec->accepted || rec->rec.lba == r->weighed_lba)
		return 0;
	r->weighed_lba = rec->rec.lba;
	if (r->gaps && !rec->doubtful) {
		winner->state = LBA_SETTLED;
		return 0;
	}
	if (winner->state == LBA_WON && winner->order.epoch > epoch)
		return 0;
	if (rec->rec.hba == MLS_HBA_NONE) {
		winner->state = LBA_SETTLED;
		return 0;
	}
	if (!mls_inspect_slot_of(r->x, rec->rec.hba, &run, &slot) || r->has_summary[run])
		return 0;			/* stale, or it competes by itself */
	err = mls_inspect_read(r->x, &rec->rec, r->blocks);
	if (err)
		return err == MLS_ENOMEM ? err : 0;
	winner->state = LBA_SAVED;
	r->s->nr_saved++;
	return mls_salvage_save(r->s, rec->rec.lba, r->blocks);
}

static void bury(struct rescue *r)
{
	for (uint64_t i = 0; i < r->nr_lbas; i++) {
		struct winner *winner = &r->winners[i];

		if (winner->state == LBA_WON && winner->order.epoch <= rescue_wal_buried(&r->wal, r->first_lba + i))
			winner->state = LBA_NOTHING;
	}
}

/* ---- Saving ---- */

/* The LBA whose winner this slot is, or is a copy of; NULL: none, or it is saved. */
static struct winner *won_by(struct rescue *r, uint32_t slot)
{
	const struct mls_seg_slot *noted = &r->summary.slots[slot];
	struct winner *winner = winner_of(r, noted->lba);

	if (!winner || winner->state < LBA_WON || winner->state == LBA_SAVED ||
	    winner->order.epoch != noted->order.epoch || winner->order.nr != noted->order.nr)
		return NULL;
	return winner;
}

static int save_winners(struct rescue *r)
{
	uint64_t hba = mls_inspect_run_hba(r->x, r->summary.run);
	bool any = false, whole;
	struct mls_data_key *key;
	int err = key_for(r, &key);

	for (uint32_t slot = 0; slot < r->summary.nr_slots && !any; slot++)
		any = won_by(r, slot) != NULL;
	if (err || !any)
		return err;
	whole = mls_block_dev_read(r->x->dev, hba, r->summary.nr_slots, r->blocks) == 0;
	for (uint32_t slot = 0; slot < r->summary.nr_slots && !err; slot++) {
		const struct mls_seg_slot *noted = &r->summary.slots[slot];
		uint8_t *block = mls_block_at(r->blocks, slot);
		struct winner *winner = won_by(r, slot);
		int one = 0;

		if (!winner)
			continue;
		if (!whole)
			one = mls_block_dev_read(r->x->dev, hba + slot, 1, block);
		if (!one)
			one = mls_data_open(key, r->summary.birth, slot, noted->lba, block, block, noted->tag);
		winner->state = one == 0 ? LBA_SAVED : one == MLS_EAUTH ? LBA_DAMAGED : LBA_UNREADABLE;
		if (one == 0) {
			err = mls_salvage_save(r->s, noted->lba, block);
			r->s->nr_saved++;
		}
	}
	return err;
}

/* ---- Windows ---- */

/* What became of LBAs [from, upto) of the window; range: whose they are, in gaps. */
static int settle(struct rescue *r, uint64_t from, uint64_t upto, const struct mls_lost_range *range)
{
	struct mls_finding finding = mls_finding_init(MLS_FOUND_SALVAGED_UNINDEXED);
	uint64_t nr_saved = 0;
	int err = 0;

	for (uint64_t lba = from; lba < upto && !err; lba++) {
		switch ((enum lba_state)r->winners[lba - r->first_lba].state) {
		case LBA_SETTLED:
			break;
		case LBA_NOTHING:
			if (range && r->nr_blind)
				err = mls_salvage_lose(r->s, lba, 1, range->why);
			break;
		case LBA_SAVED:
			nr_saved++;
			break;
		case LBA_UNREADABLE:
			err = mls_salvage_lose(r->s, lba, 1, MLS_FOUND_DATA_UNREADABLE);
			break;
		default:
			err = mls_salvage_lose(r->s, lba, 1, MLS_FOUND_DATA_DAMAGED);
		}
	}
	finding.lba = from;
	finding.nr_lbas = upto - from;
	if (range)
		r->s->nr_rebuilt += nr_saved;
	mls_inspect_report(r->x, &finding, "%llu blocks found by the segments' summaries; %llu segments have none",
			   (unsigned long long)nr_saved, (unsigned long long)r->nr_blind);
	return err;
}

/* The part of a range that lies in the window; false: none. */
static bool clip(const struct rescue *r, const struct mls_lost_range *range, uint64_t *from, uint64_t *upto)
{
	*from = mls_max_u64(range->lba, r->first_lba);
	*upto = mls_min_u64(range->lba + range->nr_lbas, r->first_lba + r->nr_lbas);
	return *from < *upto;
}

/* *any: somebody asks for something in this window. */
static void begin_window(struct rescue *r, bool *any)
{
	uint64_t from, upto;

	*any = !r->gaps;
	for (uint64_t i = 0; i < r->nr_lbas; i++)
		r->winners[i] = (struct winner){ .state = r->gaps ? LBA_SETTLED : LBA_NOTHING };
	for (size_t i = 0; i < r->nr_ranges; i++) {
		if (!clip(r, &r->ranges[i], &from, &upto))
			continue;
		*any = true;
		for (uint64_t lba = from; lba < upto; lba++)
			r->winners[lba - r->first_lba].state = LBA_NOTHING;
	}
	r->weighed_lba = MLS_LBA_NONE;
}

static int end_window(struct rescue *r)
{
	uint64_t from, upto;
	int err = 0;

	if (!r->gaps)
		return settle(r, r->first_lba, r->first_lba + r->nr_lbas, NULL);
	for (size_t i = 0; i < r->nr_ranges && !err; i++)
		if (clip(r, &r->ranges[i], &from, &upto))
			err = settle(r, from, upto, &r->ranges[i]);
	return err;
}

static int do_windows(struct rescue *r)
{
	uint64_t disk_blocks = r->x->sb.geo.disk_blocks;
	int err = 0;

	for (r->first_lba = 0; r->first_lba < disk_blocks && !err; r->first_lba += r->nr_lbas) {
		bool any;

		r->nr_lbas = mls_min_u64(WINDOW_LBAS, disk_blocks - r->first_lba);
		begin_window(r, &any);
		if (!any)
			continue;
		err = each_life(r, compete);
		if (!err)
			err = mls_inspect_records(r->x, r->first_lba, r->first_lba + r->nr_lbas, weigh, r);
		if (!err && !r->gaps)
			bury(r);
		if (!err)
			err = each_life(r, save_winners);
		if (!err)
			err = end_window(r);
	}
	return err;
}

/* ---- From the beginning ---- */

static int rescue(struct rescue *r)
{
	struct mls_inspect *x = r->x;
	int err = MLS_ENOMEM;

	r->summary.slots = calloc(x->nr_slots, sizeof *r->summary.slots);
	r->has_summary = calloc(x->nr_runs, sizeof *r->has_summary);
	r->blocks = mls_blocks_alloc(x->run_blocks);
	r->winners = malloc(mls_min_u64(WINDOW_LBAS, x->sb.geo.disk_blocks) * sizeof *r->winners);
	if (r->summary.slots && r->has_summary && r->blocks && r->winners)
		err = rescue_wal_read(&r->wal, x, r->gaps);
	if (!err)
		err = survey(r);
	if (!err && r->gaps)
		r->bound = x->accepted.sync_id;
	else
		r->bound = x->has_trust && r->wal.newest ? mls_max_u64(x->trust.sync_id, r->wal.newest) : UINT64_MAX;
	if (!err)
		err = do_windows(r);
	rescue_wal_release(&r->wal);
	while (r->keys) {
		struct mls_data_key *key = r->keys;

		r->keys = key->next;
		mls_data_key_put(key);
	}
	if (r->blocks)
		mls_wipe(r->blocks, (size_t)x->run_blocks * MLS_BLOCK_BYTES);
	mls_blocks_free(r->blocks);
	free(r->winners);
	free(r->has_summary);
	free(r->summary.slots);
	return err;
}

int mls_rescue_all(struct mls_salvage *s)
{
	struct rescue r = { .s = s, .x = s->x };

	return rescue(&r);
}

static bool is_of_index(enum mls_finding_code why)
{
	return why == MLS_FOUND_LOG_DAMAGED || why == MLS_FOUND_LOG_UNREADABLE || why == MLS_FOUND_LOG_MALFORMED ||
	       why == MLS_FOUND_TABLE_NO_LOG || why == MLS_FOUND_TABLE_MALFORMED;
}

static int by_lba(const void *a, const void *b)
{
	const struct mls_lost_range *left = a, *right = b;

	return left->lba < right->lba ? -1 : left->lba > right->lba;
}

/* Ranges of the index go to r, disjoint; the others stay. */
static int take_ranges(struct rescue *r)
{
	struct mls_salvage *s = r->s;
	size_t kept = 0, nr = 0;

	r->ranges = calloc(s->nr_ranges + 1, sizeof *r->ranges);
	if (!r->ranges)
		return MLS_ENOMEM;
	for (size_t i = 0; i < s->nr_ranges; i++)
		if (is_of_index(s->lost[i].why))
			r->ranges[nr++] = s->lost[i];
		else
			s->lost[kept++] = s->lost[i];
	s->nr_ranges = kept;
	qsort(r->ranges, nr, sizeof *r->ranges, by_lba);
	for (size_t i = 0; i < nr; i++) {
		const struct mls_lost_range *range = &r->ranges[i];
		struct mls_lost_range *last = r->nr_ranges ? &r->ranges[r->nr_ranges - 1] : NULL;

		if (last && range->lba <= last->lba + last->nr_lbas)
			last->nr_lbas = mls_max_u64(last->nr_lbas, range->lba + range->nr_lbas - last->lba);
		else
			r->ranges[r->nr_ranges++] = *range;
	}
	return 0;
}

struct doubts {
	struct mls_salvage *s;
	uint64_t lba;		/* its newest record was looked at */
};

static int note_doubt(void *arg, const struct mls_inspect_rec *rec)
{
	struct doubts *doubts = arg;

	if (!rec->accepted || rec->rec.lba == doubts->lba || rec->rec.lba >= doubts->s->x->sb.geo.disk_blocks)
		return 0;
	doubts->lba = rec->rec.lba;
	return rec->doubtful ? mls_salvage_lose(doubts->s, rec->rec.lba, 1, MLS_FOUND_LOG_DAMAGED) : 0;
}

/* The findings' ranges are narrower: they are drawn with a table's own index, where that can be read. What the
 * walk over the records takes for doubtful wasn't saved, and has to be asked for, too. */
static int ask_for_doubtful(struct mls_salvage *s)
{
	struct doubts doubts = { s, MLS_LBA_NONE };

	return s->x->index_damaged ? mls_inspect_records(s->x, 0, MLS_LBA_NONE, note_doubt, &doubts) : 0;
}

int mls_rescue_gaps(struct mls_salvage *s)
{
	struct rescue r = { .s = s, .x = s->x, .gaps = true };
	int err = ask_for_doubtful(s);

	if (!err)
		err = take_ranges(&r);
	if (!err && r.nr_ranges)
		err = rescue(&r);
	free(r.ranges);
	return err;
}
