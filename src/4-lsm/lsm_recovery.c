/* SPDX-License-Identifier: MPL-2.0 */
/*
 * lsm_recovery.c - why it exists: from the journal's state and the WAL to the index as of one sync.
 *
 *   new --load--> (state) --replay_begin--> last group held --replay_end--> replayed --start--> started
 *         ^______________________________________/  the area wasn't acceptable: load the other
 *
 * The last group is held back, since layer 5 decides whether its sync counts (doc/design.md 8). All
 * before it are complete: each was followed by another.
 *
 * Order in the WAL: sync ids go up by one; only an OPEN group may leave some out. Sessions and
 * journal commits are not looked at here: layer 5 compares those of the accepted sync.
 *
 * SSTables of an epoch that isn't accepted are dropped in memory, by the edits and counts that a
 * transaction would have; the snapshot that opens the session makes it durable. A committed table has
 * no younger version in it, nor an uncommitted one an older (flush.c), so whole tables go or stay.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "4-lsm/lsm_internal.h"
#include "base/err.h"
#include "base/log.h"

/* ---- Replay ---- */

static int apply_held(struct mls_lsm *lsm)
{
	const struct mls_wal_group *group = &lsm->held;
	uint64_t sync_id = group->head.sync_id;
	int err = 0;

	if (group->nr_recs > UINT32_MAX)
		return MLS_ENOMEM;
	err = mls_memtable_reserve(lsm->active, (uint32_t)group->nr_recs);
	if (!err && group->announce_bytes && lsm->listener.announced)
		err = lsm->listener.announced(lsm->listener.arg, group->announce, group->announce_bytes);
	if (err)
		return err;
	if (group->nr_recs)
		mls_memtable_insert(lsm->active, group->recs, group->nr_recs, sync_id);
	mls_memtable_forget_dirty(lsm->active);
	mls_memtable_commit(lsm->active, sync_id);
	return 0;
}

static int check_order(const struct mls_lsm *lsm, const struct mls_wal_group *group)
{
	uint64_t before = lsm->behind.sync_id, sync_id = group->head.sync_id;

	if (mls_wal_group_follows(group, before))
		return 0;
	mls_error("index: sync %" PRIu64 " follows sync %" PRIu64 " in the WAL", sync_id, before);
	return MLS_EFORMAT;
}

/* Hold the group back; what was held until now is complete. */
static int take_group(struct mls_lsm *lsm, const uint8_t *bytes, size_t nr_bytes, const struct mls_chain_pos *pos)
{
	struct mls_wal_group group = MLS_WAL_GROUP_INIT;
	int err = mls_wal_group_decode(&group, bytes, nr_bytes, pos->tag);

	if (err)
		return err;
	err = check_order(lsm, &group);
	if (!err && lsm->has_held) {
		err = apply_held(lsm);
		lsm->before_head = lsm->held.head;
	}
	if (err) {
		mls_wal_group_release(&group);
		return err;
	}
	mls_wal_group_release(&lsm->held);
	lsm->held = group;
	lsm->has_held = true;
	lsm->before = lsm->behind;
	lsm->behind.pos = *pos;
	lsm->behind.sync_id = group.head.sync_id;
	lsm->behind.commit = group.head.commit;
	lsm->behind.generation = group.head.generation;
	memcpy(lsm->behind.session, group.head.session, sizeof lsm->behind.session);
	return 0;
}

static int read_wal(struct mls_lsm *lsm, bool *more_behind)
{
	struct mls_chain_reader *reader;
	const uint8_t *bytes;
	size_t nr_bytes;
	int err;

	err = mls_chain_reader_new(&reader, &lsm->ring, lsm->keys, MLS_WAL_LABEL, &lsm->behind.pos);
	if (err)
		return err;
	while ((err = mls_chain_reader_next(reader, &bytes, &nr_bytes)) == 0) {
		err = take_group(lsm, bytes, nr_bytes, mls_chain_reader_pos(reader));
		if (err)
			break;
	}
	if (err == MLS_ENOENT) {
		*more_behind = mls_chain_reader_more_behind(reader);
		err = 0;
	}
	mls_chain_reader_free(reader);
	return err;
}

int mls_lsm_replay_begin(struct mls_lsm *lsm, struct mls_replay *replay)
{
	bool more_behind = false;
	int err;

	mls_lsm_forget(lsm);
	if (!lsm->state.has_wal_start) {
		mls_error("index: the journal doesn't tell where the WAL starts");
		return MLS_EFORMAT;
	}
	lsm->before = lsm->behind = lsm->state.wal_start;
	lsm->before_head = mls_wal_start_head(&lsm->behind);
	err = read_wal(lsm, &more_behind);
	if (err) {
		mls_lsm_forget(lsm);
		return err;
	}
	*replay = (struct mls_replay){
		.before = lsm->before_head,
		.has_last = lsm->has_held,
		.last = lsm->held.head,
		.recs = lsm->held.recs,
		.nr_recs = lsm->held.nr_recs,
		.announce = lsm->held.announce,
		.announce_bytes = lsm->held.announce_bytes,
		.more_behind = more_behind,
	};
	return 0;
}

/* ---- The end of replay: tables ---- */

/* Tell the listener's ctx of every record in the table. */
static int count_dropped(struct mls_lsm *lsm, const struct mls_table_meta *meta, void *ctx)
{
	struct mls_sst_iter *iter = NULL;
	struct mls_index_rec rec;
	struct mls_sst *sst;
	int err = mls_sst_open(&sst, lsm->store, NULL, &meta->info);

	if (err)
		return err;
	err = mls_sst_iter_new(&iter, sst, 0, 0);
	while (!err) {
		err = mls_sst_iter_next(iter, &rec);
		if (!err && rec.hba != MLS_HBA_NONE)
			err = lsm->listener.tx_dropped(ctx, rec.hba);
	}
	mls_sst_iter_free(iter);
	mls_sst_put(sst);
	return err == MLS_ENOENT ? 0 : err;
}

static int drop_table(struct mls_lsm *lsm, const struct mls_table_meta *meta, void *ctx,
		      struct mls_edit_group *group)
{
	uint8_t edit[MLS_TABLE_REMOVE_BYTES];
	int err = count_dropped(lsm, meta, ctx);

	mls_table_remove_encode(edit, meta->info.log_id);
	if (!err)
		err = mls_tx_store_drop_edit(lsm->store, meta->info.log_id, group);
	if (!err)
		err = mls_edit_add(group, MLS_OWNER_LSM, edit, sizeof edit);
	return err;
}

static bool is_uncommitted(const struct mls_lsm *lsm, const struct mls_table_meta *meta)
{
	return meta->epoch > lsm->committed;
}

/* All tables of an epoch later than the accepted one: edits and counts into group. */
static int drop_uncommitted_to(struct mls_lsm *lsm, struct mls_edit_group *group)
{
	void *ctx = lsm->listener.tx_begin(lsm->listener.arg);
	int err = 0;

	if (!ctx)
		return MLS_ENOMEM;
	for (size_t i = 0; !err && i < lsm->state.nr_tables; i++)
		if (is_uncommitted(lsm, &lsm->state.tables[i]))
			err = drop_table(lsm, &lsm->state.tables[i], ctx, group);
	if (!err)
		err = lsm->listener.tx_prepare(ctx, group);
	if (!err)
		err = mls_journal_apply_loaded(lsm->journal, group);
	lsm->listener.tx_done(ctx, !err);
	return err;
}

static int drop_uncommitted(struct mls_lsm *lsm)
{
	struct mls_edit_group *group;
	bool any = false;
	int err;

	for (size_t i = 0; i < lsm->state.nr_tables; i++)
		any |= is_uncommitted(lsm, &lsm->state.tables[i]);
	if (!any)
		return 0;
	err = mls_edit_group_new(&group);
	if (err)
		return err;
	err = drop_uncommitted_to(lsm, group);
	mls_edit_group_free(group);
	return err;
}

static int open_tables(struct mls_lsm *lsm)
{
	size_t nr = lsm->state.nr_tables, nr_open = 0;
	struct mls_table *tables = calloc(nr ? nr : 1, sizeof *tables);
	struct mls_table_set *set;
	int err = tables ? 0 : MLS_ENOMEM;

	while (!err && nr_open < nr) {
		struct mls_table *table = &tables[nr_open];

		table->meta = lsm->state.tables[nr_open];
		if (table->meta.level == 0 && table->meta.age >= lsm->next_age)
			lsm->next_age = table->meta.age + 1;
		err = mls_sst_open(&table->sst, lsm->store, lsm->cache, &table->meta.info);
		nr_open += !err;
	}
	if (!err)
		err = mls_table_set_new(&set, NULL, NULL, 0, tables, (unsigned)nr);
	if (!err) {
		mls_table_set_put(lsm->tables);
		lsm->tables = set;
	}
	for (size_t i = 0; i < nr_open; i++)
		mls_sst_put(tables[i].sst);
	free(tables);
	return err;
}

int mls_lsm_replay_end(struct mls_lsm *lsm, bool accept_last)
{
	int err = 0;

	MLS_INVARIANT(lsm->phase == MLS_LSM_NEW && (!accept_last || lsm->has_held));
	if (accept_last)
		err = apply_held(lsm);
	if (err)
		return err;
	lsm->wal_end = accept_last || !lsm->has_held ? lsm->behind : lsm->before;
	mls_wal_group_release(&lsm->held);
	lsm->has_held = false;
	lsm->wal_start_seq = lsm->state.wal_start.pos.seq;
	lsm->committed = lsm->wal_end.sync_id;
	lsm->epoch = lsm->committed + 1;
	err = drop_uncommitted(lsm);
	if (!err)
		err = open_tables(lsm);
	if (!err)
		lsm->phase = MLS_LSM_REPLAYED;
	return err;
}

/* ---- Format, start ---- */

void mls_lsm_format(struct mls_lsm *lsm, const uint8_t first_tag[MLS_TAG_BYTES],
		    const uint8_t session[MLS_SESSION_BYTES])
{
	struct mls_wal_start *start = &lsm->state.wal_start;

	mls_lsm_state_reset(&lsm->state);
	mls_lsm_forget(lsm);
	memcpy(start->pos.tag, first_tag, MLS_TAG_BYTES);
	memcpy(start->session, session, MLS_SESSION_BYTES);
	lsm->state.has_wal_start = true;
	lsm->wal_end = *start;
	lsm->epoch = 1;
	lsm->phase = MLS_LSM_REPLAYED;
}

int mls_lsm_start(struct mls_lsm *lsm, const uint8_t session[MLS_SESSION_BYTES], uint64_t next_sync_id)
{
	uint32_t nr_versions = mls_lsm_memtable_versions(lsm);
	int err;

	MLS_INVARIANT(lsm->phase == MLS_LSM_REPLAYED && !lsm->opts.read_only && next_sync_id > lsm->committed);
	err = mls_memtable_new(&lsm->spare, nr_versions, &lsm->listener);
	if (err)
		return err;
	/* Room for the puts up to the first freeze, beside what was replayed. */
	err = mls_memtable_reserve(lsm->active, nr_versions);
	if (err)
		return err;
	lsm->cap_cut = 2 * (size_t)nr_versions;
	lsm->cut_recs = calloc(lsm->cap_cut, sizeof *lsm->cut_recs);
	if (!lsm->cut_recs)
		return MLS_ENOMEM;
	err = mls_chain_writer_new(&lsm->wal, &lsm->ring, lsm->keys, MLS_WAL_LABEL, &lsm->wal_end.pos);
	if (err)
		return err;
	memcpy(lsm->session, session, sizeof lsm->session);
	lsm->epoch = next_sync_id;
	lsm->phase = MLS_LSM_STARTED;
	return lsm->opts.inline_work ? 0 : mls_lsm_workers_start(lsm);
}
