/* SPDX-License-Identifier: MPL-2.0 */
/*
 * inspect_state.c - pass 1: journal and WAL into the state that an opening would find.
 *
 * The steps are those of recovery (5-disk/disk_open.c), with its decoders and its verdict, but edits go
 * into plain tables that can hold what recovery refuses: a run with two owners, a table without a log.
 *
 *   for each area, newest first: load -> chunks claimed -> WAL read -> verdict -> is the area that sync's?
 *   the first that is, or else the first that could be loaded, is loaded once more, to be told about.
 *
 * Invariants checked here: a group follows the one before; a run has one owner; edits name what exists.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "2-edit/edit_group.h"
#include "2-edit/journal_reader.h"
#include "3-log/stored_log.h"
#include "5-disk/location.h"
#include "5-disk/seg_edit.h"
#include "5-disk/verdict.h"
#include "base/buf.h"
#include "base/err.h"
#include "check/inspect_internal.h"

/* ---- Forget ---- */

static void free_groups(struct mls_inspect *x)
{
	for (size_t i = 0; i < x->nr_groups; i++)
		mls_wal_group_release(&x->groups[i].group);
	free(x->groups);
	x->groups = NULL;
	x->nr_groups = 0;
}

void mls_inspect_free_state(struct mls_inspect *x)
{
	for (size_t i = 0; i < x->nr_logs; i++)
		free(x->logs[i].runs);
	free(x->logs);
	x->logs = NULL;
	x->nr_logs = 0;
	for (size_t i = 0; i < x->nr_data_keys; i++)
		mls_data_key_put(x->data_keys[i].key);
	free(x->data_keys);
	x->data_keys = NULL;
	x->nr_data_keys = 0;
	mls_lsm_state_reset(&x->lsm);
	memset(&x->totals, 0, sizeof x->totals);
	if (x->runs)
		memset(x->runs, 0, x->nr_runs * sizeof *x->runs);
	free_groups(x);
}

/* at, with room for one more element of bytes; NULL: no memory, at is as it was. Grows by doubling. */
static void *room_for_one(void *at, size_t nr, size_t bytes)
{
	if ((nr & (nr - 1)) != 0 || (nr > 0 && nr < 16))
		return at;
	return realloc(at, (nr ? nr * 2 : 16) * bytes);
}

/* ---- Edits of logs ---- */

static size_t log_at(const struct mls_inspect *x, uint64_t id)
{
	size_t low = 0, high = x->nr_logs;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (x->logs[mid].id < id)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

const struct mls_inspect_log *mls_inspect_find_log(const struct mls_inspect *x, uint64_t id)
{
	size_t at = log_at(x, id);

	return at < x->nr_logs && x->logs[at].id == id ? &x->logs[at] : NULL;
}

static void bad_log(struct mls_inspect *x, enum mls_finding_code code, uint64_t id, uint64_t run, const char *what)
{
	struct mls_finding finding = mls_finding_init(code);

	finding.log_id = id;
	finding.run = run;
	mls_inspect_report(x, &finding, "%s", what);
}

static int add_log(struct mls_inspect *x, const struct mls_log_create *create)
{
	size_t at = log_at(x, create->id);
	struct mls_inspect_log log = { .id = create->id, .bucket = create->bucket, .root = create->root };
	struct mls_inspect_log *logs = room_for_one(x->logs, x->nr_logs, sizeof *logs);

	if (!logs)
		return MLS_ENOMEM;
	x->logs = logs;
	log.runs = calloc(create->nr_chunks, sizeof *log.runs);
	if (!log.runs)
		return MLS_ENOMEM;
	for (uint32_t i = 0; i < create->nr_chunks; i++) {
		log.runs[i] = mls_get_le64(create->runs + (size_t)i * 8);
		if (log.runs[i] < x->nr_runs)
			continue;
		bad_log(x, MLS_FOUND_RUN_RANGE, log.id, log.runs[i], "the log can't be read");
		free(log.runs);
		return 0;
	}
	log.nr_chunks = create->nr_chunks;
	memmove(logs + at + 1, logs + at, (x->nr_logs - at) * sizeof *logs);
	logs[at] = log;
	x->nr_logs++;
	return 0;
}

static int apply_log(struct mls_inspect *x, const struct mls_edit *edit)
{
	struct mls_log_create create;
	uint64_t id;
	size_t at;

	switch (edit->bytes ? edit->data[0] : 0) {
	case MLS_LOG_EDIT_CREATE:
		if (mls_log_create_decode(&create, x->run_blocks, edit->data, edit->bytes))
			break;
		if (!mls_inspect_find_log(x, create.id))
			return add_log(x, &create);
		bad_log(x, MLS_FOUND_LOG_MALFORMED, create.id, MLS_FINDING_NOWHERE, "created twice");
		return 0;
	case MLS_LOG_EDIT_DELETE:
		if (mls_log_id_edit_decode(edit->data, edit->bytes, &id))
			break;
		at = log_at(x, id);
		if (at == x->nr_logs || x->logs[at].id != id) {
			bad_log(x, MLS_FOUND_LOG_MALFORMED, id, MLS_FINDING_NOWHERE, "deleted, but doesn't exist");
			return 0;
		}
		free(x->logs[at].runs);
		memmove(x->logs + at, x->logs + at + 1, (x->nr_logs - at - 1) * sizeof *x->logs);
		x->nr_logs--;
		return 0;
	case MLS_LOG_EDIT_NEXT_ID:
		if (mls_log_id_edit_decode(edit->data, edit->bytes, &id))
			break;
		return 0;
	}
	bad_log(x, MLS_FOUND_LOG_MALFORMED, MLS_FINDING_NOWHERE, MLS_FINDING_NOWHERE, "an edit that can't be");
	return 0;
}

/* ---- Edits of segments ---- */

static void bad_segment(struct mls_inspect *x, uint64_t run, const char *what)
{
	struct mls_finding finding = mls_finding_init(MLS_FOUND_SEG_MALFORMED);

	finding.run = run;
	mls_inspect_report(x, &finding, "%s", what);
}

static struct mls_data_key *key_by_id(const struct mls_inspect *x, uint32_t id)
{
	for (size_t i = x->nr_data_keys; i-- > 0;)
		if (x->data_keys[i].id == id)
			return x->data_keys[i].key;
	return NULL;
}

static int add_key(struct mls_inspect *x, const struct mls_seg_edit *edit)
{
	struct mls_inspect_key *keys, key = { .id = edit->key_id };
	int err;

	memcpy(key.salt, edit->salt, sizeof key.salt);
	for (size_t i = 0; i < x->nr_data_keys; i++)
		if (x->data_keys[i].id == key.id && memcmp(x->data_keys[i].salt, key.salt, sizeof key.salt) == 0)
			return 0;
	keys = room_for_one(x->data_keys, x->nr_data_keys, sizeof *keys);
	if (!keys)
		return MLS_ENOMEM;
	x->data_keys = keys;
	err = mls_data_key_new(&key.key, x->keys, key.id, key.salt);
	if (!err)
		keys[x->nr_data_keys++] = key;
	return err;
}

static void add_life(struct mls_inspect *x, const struct mls_seg_edit *edit)
{
	struct mls_inspect_run *run = &x->runs[edit->run];

	if (edit->birth < run->birth || (edit->birth == run->birth && run->kind == MLS_RUN_FREE))
		return;			/* that life has ended */
	if (edit->birth > run->birth) {
		*run = (struct mls_inspect_run){ .birth = edit->birth, .key_id = edit->key_id,
						 .key = key_by_id(x, edit->key_id), .kind = MLS_RUN_SEGMENT };
		if (!run->key)
			bad_segment(x, edit->run, "no key of its number is known");
	}
	run->noted_live += edit->delta;
}

static int apply_seg(struct mls_inspect *x, const uint8_t *bytes, size_t nr_bytes)
{
	struct mls_seg_edit edit;

	if (mls_seg_edit_decode(&edit, bytes, nr_bytes)) {
		bad_segment(x, MLS_FINDING_NOWHERE, "an edit that can't be");
		return 0;
	}
	if (edit.type == MLS_SEG_EDIT_KEY)
		return add_key(x, &edit);
	if (edit.type == MLS_SEG_EDIT_NEXT_BIRTH)
		return 0;
	if (edit.type == MLS_SEG_EDIT_TOTALS) {
		mls_totals_decode(&x->totals, edit.totals);
		return 0;
	}
	if (edit.run >= x->nr_runs || (edit.type == MLS_SEG_EDIT_ADD && edit.birth == 0)) {
		bad_segment(x, edit.run, edit.birth ? "a run that isn't on the disk" : "never born");
		return 0;
	}
	if (edit.type == MLS_SEG_EDIT_ADD)
		add_life(x, &edit);
	else if (x->runs[edit.run].birth == edit.birth)
		x->runs[edit.run] = (struct mls_inspect_run){ .birth = edit.birth };
	return 0;
}

/* ---- A journal area ---- */

static int apply_lsm(struct mls_inspect *x, const struct mls_edit *edit)
{
	struct mls_finding finding = mls_finding_init(MLS_FOUND_TABLE_MALFORMED);
	int err = mls_lsm_state_apply(&x->lsm, edit->data, edit->bytes);

	if (err == MLS_EFORMAT) {
		if (edit->bytes >= 16 && edit->data[0] != MLS_LSM_EDIT_WAL_START)
			finding.log_id = mls_get_le64(edit->data + 8);
		mls_inspect_report(x, &finding, "an edit of the index that can't be");
		err = 0;
	}
	return err;
}

static int apply_group(struct mls_inspect *x, struct mls_inspect_area *area, const struct mls_journal_group *group)
{
	const uint8_t *at = group->edits;
	size_t left = group->edit_bytes;
	struct mls_edit edit;
	int err;

	while ((err = mls_edit_next(&at, &left, &edit)) == 0) {
		area->nr_edits++;
		if (edit.owner == MLS_OWNER_LOGS)
			err = apply_log(x, &edit);
		else if (edit.owner == MLS_OWNER_LSM)
			err = apply_lsm(x, &edit);
		else
			err = apply_seg(x, edit.data, edit.bytes);
		if (err)
			return err;
	}
	return err == MLS_ENOENT ? 0 : err;
}

/* Read the area; apply: into the state, which is empty. area->err: what became of it. */
static int load_area(struct mls_inspect *x, struct mls_inspect_area *area, bool apply)
{
	struct mls_journal_reader *reader = NULL;
	struct mls_journal_group group;
	struct mls_block_ring ring;
	int err;

	area->nr_groups = area->used_blocks = area->nr_edits = 0;
	err = mls_block_ring_init(&ring, x->dev, area->hba, area->nr_blocks);
	if (!err)
		err = mls_journal_reader_new(&reader, &ring, x->keys);
	while (!err) {
		err = mls_journal_reader_next(reader, &group);
		if (err)
			break;
		area->info = group.info;
		area->nr_groups++;
		area->used_blocks += mls_chain_blocks(sizeof(struct mls_journal_hdr_disk) + group.edit_bytes);
		if (apply)
			err = apply_group(x, area, &group);
		if (!err && mls_inspect_stopped(x))
			err = MLS_EABORTED;
	}
	mls_journal_reader_free(reader);
	if (err == MLS_ENOMEM || err == MLS_EABORTED)
		return err;
	area->err = err == MLS_ENOENT && area->nr_groups ? 0 : err;
	return 0;
}

static void report_area(struct mls_inspect *x, const struct mls_inspect_area *area)
{
	struct mls_finding finding = mls_finding_init(MLS_FOUND_JOURNAL_AREA_UNREADABLE);

	if (area->err == 0 || area->err == MLS_ENOENT)
		return;
	if (area->err == MLS_EFORMAT)
		finding.code = MLS_FOUND_JOURNAL_AREA_MALFORMED;
	finding.hba = area->hba;
	finding.nr_blocks = area->nr_blocks;
	mls_inspect_report(x, &finding, "area %d: %s behind group %" PRIu64, (int)(area - x->areas),
			   mls_strerror(area->err), area->nr_groups);
}

/* ---- Owners of the runs ---- */

static void claim_chunk(struct mls_inspect *x, const struct mls_inspect_log *log, uint32_t chunk)
{
	struct mls_inspect_run *run = &x->runs[log->runs[chunk]];
	struct mls_finding finding = mls_finding_init(MLS_FOUND_RUN_TWICE);

	if (run->kind == MLS_RUN_FREE) {
		run->kind = MLS_RUN_CHUNK;
		run->log_id = log->id;
		run->chunk = chunk;
		return;
	}
	finding.run = log->runs[chunk];
	finding.hba = mls_inspect_run_hba(x, finding.run);
	finding.nr_blocks = x->run_blocks;
	finding.log_id = log->id;
	if (run->kind == MLS_RUN_SEGMENT)
		mls_inspect_report(x, &finding, "a chunk of the log, and a segment");
	else
		mls_inspect_report(x, &finding, "a chunk of the log, and of log %" PRIu64, run->log_id);
	run->kind = MLS_RUN_TWICE;
	run->log_id = log->id;
	run->chunk = chunk;
}

static void claim_chunks(struct mls_inspect *x)
{
	for (size_t i = 0; i < x->nr_logs; i++)
		for (uint32_t chunk = 0; chunk < x->logs[i].nr_chunks; chunk++)
			claim_chunk(x, &x->logs[i], chunk);
}

/* Has the announced life ended? Its run is a chunk by now, or a snapshot left its key out. */
static bool announced_in_vain(const struct mls_inspect *x, const struct mls_seg_edit *edit)
{
	const struct mls_inspect_run *run;

	if (edit->type == MLS_SEG_EDIT_KEY || edit->run >= x->nr_runs)
		return false;
	run = &x->runs[edit->run];
	return run->kind == MLS_RUN_CHUNK || run->kind == MLS_RUN_TWICE ||
	       (edit->type == MLS_SEG_EDIT_ADD && edit->birth > run->birth && !key_by_id(x, edit->key_id));
}

/* Segments and keys that a WAL group announces. */
static int take_announcements(struct mls_inspect *x, const struct mls_wal_group *group)
{
	const uint8_t *at = group->announce;
	size_t left = group->announce_bytes;
	int err = 0;

	while (left > 0 && !err) {
		size_t bytes = mls_seg_edit_bytes(at[0]);
		struct mls_seg_edit edit;

		if (bytes == 0 || bytes > left || mls_seg_edit_decode(&edit, at, bytes)) {
			bad_segment(x, MLS_FINDING_NOWHERE, "an announcement in the WAL that can't be");
			return 0;
		}
		if (!announced_in_vain(x, &edit))
			err = apply_seg(x, at, bytes);
		at += bytes;
		left -= bytes;
	}
	return err;
}

static void count_kinds(struct mls_inspect *x)
{
	x->nr_free_runs = x->nr_segments = x->nr_chunks = 0;
	for (uint64_t i = 0; i < x->nr_runs; i++) {
		x->nr_free_runs += x->runs[i].kind == MLS_RUN_FREE;
		x->nr_segments += x->runs[i].kind == MLS_RUN_SEGMENT || x->runs[i].kind == MLS_RUN_TWICE;
		x->nr_chunks += x->runs[i].kind == MLS_RUN_CHUNK || x->runs[i].kind == MLS_RUN_TWICE;
	}
}

/* ---- The WAL ---- */

static int wal_problem(struct mls_inspect *x, enum mls_finding_code code, const struct mls_chain_pos *pos, int err)
{
	struct mls_finding finding = mls_finding_init(code);

	x->wal_bad = true;
	finding.hba = x->wal_hba + pos->seq % x->wal_blocks;
	finding.nr_blocks = 1;
	mls_inspect_report(x, &finding, "block %" PRIu64 " of the WAL: %s", pos->seq, mls_strerror(err));
	return 0;
}

static int take_group(struct mls_inspect *x, const uint8_t *bytes, size_t nr_bytes, const struct mls_chain_pos *from,
		      const struct mls_chain_pos *upto)
{
	struct mls_inspect_group *groups, new = { .seq = from->seq, .nr_blocks = upto->seq - from->seq };
	uint64_t before = x->nr_groups ? x->groups[x->nr_groups - 1].group.head.sync_id : x->lsm.wal_start.sync_id;
	int err;

	groups = room_for_one(x->groups, x->nr_groups, sizeof *groups);
	if (!groups)
		return MLS_ENOMEM;
	x->groups = groups;
	err = mls_wal_group_decode(&new.group, bytes, nr_bytes, upto->tag);
	if (!err && !mls_wal_group_follows(&new.group, before)) {
		mls_wal_group_release(&new.group);
		err = MLS_EFORMAT;
	}
	if (!err)
		groups[x->nr_groups++] = new;
	return err;
}

static int read_wal(struct mls_inspect *x)
{
	struct mls_chain_pos pos = x->lsm.wal_start.pos;
	struct mls_chain_reader *reader = NULL;
	struct mls_block_ring ring;
	const uint8_t *bytes;
	size_t nr_bytes;
	int err;

	free_groups(x);
	x->wal_more_behind = x->wal_bad = false;
	err = mls_block_ring_init(&ring, x->dev, x->wal_hba, x->wal_blocks);
	if (!err)
		err = mls_chain_reader_new(&reader, &ring, x->keys, MLS_WAL_LABEL, &pos);
	while (!err && (err = mls_chain_reader_next(reader, &bytes, &nr_bytes)) == 0) {
		err = take_group(x, bytes, nr_bytes, &pos, mls_chain_reader_pos(reader));
		if (!err)
			pos = *mls_chain_reader_pos(reader);
		if (!err && mls_inspect_stopped(x))
			err = MLS_EABORTED;
	}
	if (err == MLS_ENOENT) {
		x->wal_more_behind = mls_chain_reader_more_behind(reader);
		err = 0;
	} else if (err == MLS_EFORMAT) {
		err = wal_problem(x, MLS_FOUND_WAL_MALFORMED, &pos, err);
	} else if (err != MLS_ENOMEM && err != MLS_EABORTED) {
		err = wal_problem(x, MLS_FOUND_WAL_UNREADABLE, &pos, err);
	}
	mls_chain_reader_free(reader);
	return err;
}

/* ---- The verdict ---- */

static struct mls_replay replay_of(const struct mls_inspect *x)
{
	struct mls_replay replay = { .before = mls_wal_start_head(&x->lsm.wal_start), .more_behind = x->wal_more_behind };

	if (x->nr_groups) {
		replay.has_last = true;
		replay.last = x->groups[x->nr_groups - 1].group.head;
		if (x->nr_groups > 1)
			replay.before = x->groups[x->nr_groups - 2].group.head;
	}
	return replay;
}

/* As recovery does it: each block that the last group names is there. */
static int last_group_holds(struct mls_inspect *x, bool *holds)
{
	const struct mls_wal_group *group = &x->groups[x->nr_groups - 1].group;
	void *block = mls_blocks_alloc(1);
	int err = 0;

	if (!block)
		return MLS_ENOMEM;
	*holds = true;
	for (size_t i = 0; i < group->nr_recs && *holds && !group->head.settled; i++) {
		if (group->recs[i].hba == MLS_HBA_NONE)
			continue;
		err = mls_inspect_stopped(x) ? MLS_EABORTED : mls_inspect_read(x, &group->recs[i], block);
		if (err == MLS_ENOMEM || err == MLS_EABORTED)
			break;
		*holds = err == 0;
		err = 0;
	}
	mls_wipe(block, MLS_BLOCK_BYTES);
	mls_blocks_free(block);
	return err;
}

/* What a load of one area came to. */
struct attempt {
	enum mls_verdict verdict;
	bool loaded, accept_last, is_of;
	bool wal_bad;			/* recovery would refuse it for that alone */
	struct mls_sync_head newest;
};

static int judge(struct mls_inspect *x, const struct mls_inspect_area *area, struct attempt *attempt)
{
	struct mls_replay replay = replay_of(x);
	struct mls_sync_head accepted;
	int err = 0;

	attempt->newest = *mls_replay_newest(&replay);
	attempt->wal_bad = x->wal_bad;
	attempt->accept_last = replay.has_last;
	attempt->verdict = mls_verdict_of(x->has_trust ? &x->trust : NULL, x->sb.generation, &replay, false);
	if (attempt->verdict == MLS_VERDICT_IF_WHOLE)
		err = last_group_holds(x, &attempt->accept_last);
	accepted = attempt->accept_last ? replay.last : replay.before;
	attempt->is_of = mls_verdict_area_is_of(&area->info, &accepted);
	return err;
}

/* announce_last: take in the last group's announcements, too. */
static int load(struct mls_inspect *x, struct mls_inspect_area *area, bool *loaded, bool announce_last)
{
	size_t nr;
	int err;

	mls_inspect_free_state(x);
	err = load_area(x, area, true);
	*loaded = area->err == 0 && x->lsm.has_wal_start;
	if (err || area->err)
		return err;
	claim_chunks(x);
	if (x->lsm.has_wal_start)
		err = read_wal(x);
	nr = x->nr_groups && !announce_last ? x->nr_groups - 1 : x->nr_groups;
	for (size_t i = 0; i < nr && !err; i++)
		err = take_announcements(x, &x->groups[i].group);
	return err;
}

static bool is_accepted(const struct attempt *attempt)
{
	return attempt->loaded && attempt->is_of && !attempt->wal_bad &&
	       (attempt->verdict == MLS_VERDICT_NEWEST || attempt->verdict == MLS_VERDICT_IF_WHOLE);
}

/* Try the area, silently. */
static int try_area(struct mls_inspect *x, unsigned area, struct attempt *attempt)
{
	mls_report_fn *report = x->report;
	int err;

	x->report = NULL;
	*attempt = (struct attempt){ .verdict = MLS_VERDICT_MISMATCH };
	err = load(x, &x->areas[area], &attempt->loaded, true);
	if (!err && attempt->loaded)
		err = judge(x, &x->areas[area], attempt);
	x->report = report;
	return err;
}

/* ---- Tell ---- */

static void report_refusal(struct mls_inspect *x, const struct attempt *attempt)
{
	struct mls_finding finding = mls_finding_init(MLS_FOUND_JOURNAL_LOST);

	switch (attempt->verdict) {
	case MLS_VERDICT_OLD_SUPERBLOCK:
		finding.code = MLS_FOUND_SB_STALE;
		mls_inspect_report(x, &finding, "expected generation %" PRIu64 ", found %" PRIu64,
				   attempt->newest.generation, x->sb.generation);
		return;
	case MLS_VERDICT_BROKEN:
		finding.code = MLS_FOUND_WAL_BROKEN;
		if (x->nr_groups)
			finding.hba = x->wal_hba + (x->groups[x->nr_groups - 1].seq +
						    x->groups[x->nr_groups - 1].nr_blocks) % x->wal_blocks;
		else
			finding.hba = x->wal_hba + x->lsm.wal_start.pos.seq % x->wal_blocks;
		finding.nr_blocks = 1;
		break;
	case MLS_VERDICT_ROLLBACK:
		finding.code = MLS_FOUND_ROLLBACK;
		break;
	case MLS_VERDICT_MISMATCH:
		finding.code = MLS_FOUND_STORE_MISMATCH;
		break;
	default:
		mls_inspect_report(x, &finding, "sync %" PRIu64 " names commit %" PRIu64 " of a session that no area holds",
				   attempt->newest.sync_id, attempt->newest.commit);
		return;
	}
	mls_inspect_report(x, &finding, "expected sync %" PRIu64 ", found sync %" PRIu64, x->trust.sync_id,
			   attempt->newest.sync_id);
}

/* What opening for writing will settle. */
static void note_recovery(struct mls_inspect *x, const struct attempt *attempt)
{
	struct mls_finding finding = mls_finding_init(MLS_FOUND_RECOVERY_PENDING);
	size_t nr_dropped = 0;
	int n = 0;

	for (size_t i = 0; i < x->lsm.nr_tables; i++)
		nr_dropped += !mls_inspect_table_accepted(x, &x->lsm.tables[i]);
	if (x->nr_groups && !attempt->accept_last)
		n = snprintf(x->recovery, sizeof x->recovery, "sync %" PRIu64 " isn't whole and will be undone; ",
			     attempt->newest.sync_id);
	else if (x->has_trust && x->trust.sync_id < x->accepted.sync_id)
		n = snprintf(x->recovery, sizeof x->recovery, "sync %" PRIu64 " will be told to the trusted store; ",
			     x->accepted.sync_id);
	if (nr_dropped)
		n += snprintf(x->recovery + n, sizeof x->recovery - (size_t)n,
			      "%zu SSTables of writes that were never synced will be dropped; ", nr_dropped);
	x->verdict = n ? MLS_INSPECT_NEEDS_RECOVERY : MLS_INSPECT_CLEAN;
	if (n) {
		x->recovery[n - 2] = '\0';
		mls_inspect_report(x, &finding, "%s", x->recovery);
	}
}

static int by_search(const void *a, const void *b)
{
	const struct mls_table_meta *left = a, *right = b;

	if (left->level != right->level)
		return left->level < right->level ? -1 : 1;
	if (left->level == 0)
		return left->age > right->age ? -1 : left->age < right->age;
	return left->info.min_lba < right->info.min_lba ? -1 : left->info.min_lba > right->info.min_lba;
}

static void settle_tables(struct mls_inspect *x)
{
	if (x->lsm.nr_tables)
		qsort(x->lsm.tables, x->lsm.nr_tables, sizeof *x->lsm.tables, by_search);
	for (size_t i = 0; i < x->lsm.nr_tables; i++) {
		size_t at = log_at(x, x->lsm.tables[i].info.log_id);

		if (at < x->nr_logs && x->logs[at].id == x->lsm.tables[i].info.log_id)
			x->logs[at].table = &x->lsm.tables[i];
	}
}

/* Load the chosen area for good, and tell of it. */
static int settle(struct mls_inspect *x, unsigned area, const struct attempt *attempt)
{
	mls_report_fn *report = x->report;
	struct mls_replay replay;
	bool loaded;
	int err;

	if (!attempt->is_of)
		x->report = NULL;	/* what doesn't belong together can't but contradict itself */
	err = load(x, &x->areas[area], &loaded, attempt->accept_last);
	x->report = report;
	if (!err && !loaded)
		err = MLS_EIO;	/* it could be read a moment ago */
	if (err)
		return err;
	x->consistent = attempt->is_of;
	x->area = (int)area;
	x->areas[area].accepted = is_accepted(attempt);
	replay = replay_of(x);
	x->accepted = attempt->accept_last && replay.has_last ? replay.last : replay.before;
	for (size_t i = 0; i < x->nr_groups; i++)
		x->groups[i].accepted = i + 1 < x->nr_groups || attempt->accept_last;
	settle_tables(x);
	count_kinds(x);
	if (is_accepted(attempt)) {
		note_recovery(x, attempt);
	} else {
		x->verdict = MLS_INSPECT_REFUSED;
		if (!attempt->wal_bad)
			report_refusal(x, attempt);
	}
	return 0;
}

/* Newest first; an area that can't be loaded comes last. */
static unsigned first_area(const struct mls_inspect *x)
{
	if (x->areas[0].nr_groups == 0 || x->areas[1].nr_groups == 0)
		return x->areas[0].nr_groups == 0;
	return x->areas[1].info.ordinal > x->areas[0].info.ordinal;
}

int mls_inspect_load_state(struct mls_inspect *x)
{
	struct attempt attempts[MLS_NR_JOURNAL_AREAS];
	unsigned chosen, first;
	int err = 0;

	for (unsigned area = 0; area < MLS_NR_JOURNAL_AREAS && !err; area++) {
		err = load_area(x, &x->areas[area], false);
		report_area(x, &x->areas[area]);
	}
	if (err)
		return err;
	first = first_area(x);
	for (unsigned i = 0; i < MLS_NR_JOURNAL_AREAS && !err; i++) {
		chosen = (first + i) % MLS_NR_JOURNAL_AREAS;
		err = try_area(x, chosen, &attempts[chosen]);
		if (!err && is_accepted(&attempts[chosen]))
			return settle(x, chosen, &attempts[chosen]);
	}
	if (err)
		return err;
	chosen = attempts[first].loaded ? first : (first + 1) % MLS_NR_JOURNAL_AREAS;
	if (attempts[chosen].loaded)
		return settle(x, chosen, &attempts[chosen]);
	mls_inspect_free_state(x);
	count_kinds(x);
	x->verdict = MLS_INSPECT_REFUSED;
	report_refusal(x, &(struct attempt){ .verdict = MLS_VERDICT_NEWEST });
	return 0;
}
