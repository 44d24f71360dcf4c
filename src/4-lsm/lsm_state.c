/* SPDX-License-Identifier: MPL-2.0 */
/*
 * lsm_state.c - why it exists: the index's structure changes by edits of the journal, and only so.
 *
 * A snapshot is a WAL-start edit and a table-add edit for each table: the same bytes, and the same
 * decoder, as in commits.
 *
 * Invariants (fsck can check them): a log is at most one table; min_lba <= max_lba; a table holds at
 * most max_lba - min_lba + 1 records, and at least one. That the tables of a deeper level don't
 * overlap holds after each whole group only, so table_set checks it.
 */
#include "4-lsm/lsm_state.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "base/err.h"
#include "base/log.h"

void mls_lsm_state_init(struct mls_lsm_state *state)
{
	memset(state, 0, sizeof *state);
	pthread_mutex_init(&state->lock, NULL);
}

void mls_lsm_state_release(struct mls_lsm_state *state)
{
	free(state->tables);
	pthread_mutex_destroy(&state->lock);
}

void mls_lsm_state_reset(void *arg)
{
	struct mls_lsm_state *state = arg;

	pthread_mutex_lock(&state->lock);
	state->nr_tables = 0;
	memset(&state->wal_start, 0, sizeof state->wal_start);
	state->has_wal_start = false;
	pthread_mutex_unlock(&state->lock);
}

/* ---- Room ---- */

static int room_for(struct mls_lsm_state *state, size_t cap)
{
	struct mls_table_meta *tables;

	if (cap <= state->cap_tables)
		return 0;
	cap = cap * 2 + 16;
	tables = realloc(state->tables, cap * sizeof *tables);
	if (!tables)
		return MLS_ENOMEM;
	state->tables = tables;
	state->cap_tables = cap;
	return 0;
}

int mls_lsm_state_reserve(struct mls_lsm_state *state, size_t nr)
{
	int err;

	pthread_mutex_lock(&state->lock);
	err = room_for(state, state->nr_tables + state->nr_reserved + nr);
	if (!err)
		state->nr_reserved += nr;
	pthread_mutex_unlock(&state->lock);
	return err;
}

void mls_lsm_state_unreserve(struct mls_lsm_state *state, size_t nr)
{
	pthread_mutex_lock(&state->lock);
	MLS_INVARIANT(state->nr_reserved >= nr);
	state->nr_reserved -= nr;
	pthread_mutex_unlock(&state->lock);
}

/* ---- Edits in bytes ---- */

void mls_table_add_encode(struct mls_table_add_disk *edit, const struct mls_table_meta *meta)
{
	memset(edit, 0, sizeof *edit);
	edit->type = MLS_LSM_EDIT_TABLE_ADD;
	edit->level = meta->level;
	mls_put_le64(edit->log_id, meta->info.log_id);
	mls_put_le64(edit->age, meta->age);
	mls_put_le64(edit->epoch, meta->epoch);
	mls_put_le64(edit->nr_records, meta->info.nr_records);
	mls_put_le64(edit->min_lba, meta->info.min_lba);
	mls_put_le64(edit->max_lba, meta->info.max_lba);
}

void mls_table_remove_encode(uint8_t edit[MLS_TABLE_REMOVE_BYTES], uint64_t log_id)
{
	memset(edit, 0, MLS_TABLE_REMOVE_BYTES);
	edit[0] = MLS_LSM_EDIT_TABLE_REMOVE;
	mls_put_le64(edit + 8, log_id);
}

void mls_wal_start_encode(struct mls_wal_start_disk *edit, const struct mls_wal_start *start)
{
	memset(edit, 0, sizeof *edit);
	edit->type = MLS_LSM_EDIT_WAL_START;
	mls_put_le64(edit->seq, start->pos.seq);
	memcpy(edit->tag, start->pos.tag, sizeof edit->tag);
	mls_put_le64(edit->sync_id, start->sync_id);
	memcpy(edit->session, start->session, sizeof edit->session);
	mls_put_le64(edit->commit, start->commit);
	mls_put_le64(edit->generation, start->generation);
}

/* ---- Edits applied ---- */

static int bad_edit(const char *what, uint64_t log_id)
{
	mls_error("index: an edit can't be: %s (log %" PRIu64 ")", what, log_id);
	return MLS_EFORMAT;
}

static struct mls_table_meta *find_table(struct mls_lsm_state *state, uint64_t log_id)
{
	for (size_t i = 0; i < state->nr_tables; i++)
		if (state->tables[i].info.log_id == log_id)
			return &state->tables[i];
	return NULL;
}

static int apply_table_add(struct mls_lsm_state *state, const struct mls_table_add_disk *edit)
{
	struct mls_table_meta meta = {
		.level = edit->level,
		.age = mls_get_le64(edit->age),
		.epoch = mls_get_le64(edit->epoch),
		.info.log_id = mls_get_le64(edit->log_id),
		.info.nr_records = mls_get_le64(edit->nr_records),
		.info.min_lba = mls_get_le64(edit->min_lba),
		.info.max_lba = mls_get_le64(edit->max_lba),
	};
	uint64_t log_id = meta.info.log_id;
	int err;

	if (meta.level >= MLS_NR_LEVELS)
		return bad_edit("a level too deep", log_id);
	if (meta.info.min_lba > meta.info.max_lba || meta.info.max_lba == MLS_LBA_NONE ||
	    meta.info.nr_records == 0 ||
	    meta.info.nr_records - 1 > meta.info.max_lba - meta.info.min_lba)
		return bad_edit("a table whose LBAs and records don't fit", log_id);
	if (find_table(state, log_id))
		return bad_edit("a table added twice", log_id);
	err = room_for(state, state->nr_tables + 1);
	if (err)
		return err;
	state->tables[state->nr_tables++] = meta;
	return 0;
}

static int apply_table_remove(struct mls_lsm_state *state, const uint8_t *edit)
{
	uint64_t log_id = mls_get_le64(edit + 8);
	struct mls_table_meta *table = find_table(state, log_id);

	if (!table)
		return bad_edit("a table removed that isn't there", log_id);
	*table = state->tables[--state->nr_tables];
	return 0;
}

static int apply_wal_start(struct mls_lsm_state *state, const struct mls_wal_start_disk *edit)
{
	struct mls_wal_start *start = &state->wal_start;

	start->pos.seq = mls_get_le64(edit->seq);
	memcpy(start->pos.tag, edit->tag, sizeof start->pos.tag);
	start->sync_id = mls_get_le64(edit->sync_id);
	memcpy(start->session, edit->session, sizeof start->session);
	start->commit = mls_get_le64(edit->commit);
	start->generation = mls_get_le64(edit->generation);
	state->has_wal_start = true;
	return 0;
}

static int apply_locked(struct mls_lsm_state *state, const uint8_t *edit, size_t bytes)
{
	uint8_t type = bytes ? edit[0] : 0;

	if (type == MLS_LSM_EDIT_TABLE_ADD && bytes == sizeof(struct mls_table_add_disk))
		return apply_table_add(state, (const void *)edit);
	if (type == MLS_LSM_EDIT_TABLE_REMOVE && bytes == MLS_TABLE_REMOVE_BYTES)
		return apply_table_remove(state, edit);
	if (type == MLS_LSM_EDIT_WAL_START && bytes == sizeof(struct mls_wal_start_disk))
		return apply_wal_start(state, (const void *)edit);
	mls_error("index: an edit of unknown type %u, %zu bytes", type, bytes);
	return MLS_EFORMAT;
}

int mls_lsm_state_apply(void *arg, const uint8_t *edit, size_t bytes)
{
	struct mls_lsm_state *state = arg;
	int err;

	pthread_mutex_lock(&state->lock);
	err = apply_locked(state, edit, bytes);
	pthread_mutex_unlock(&state->lock);
	return err;
}

/* ---- Snapshot ---- */

static int snapshot_locked(const struct mls_lsm_state *state, struct mls_edit_group *group)
{
	struct mls_wal_start_disk start;
	struct mls_table_add_disk add;
	int err = 0;

	if (state->has_wal_start) {
		mls_wal_start_encode(&start, &state->wal_start);
		err = mls_edit_add(group, MLS_OWNER_LSM, &start, sizeof start);
	}
	for (size_t i = 0; !err && i < state->nr_tables; i++) {
		mls_table_add_encode(&add, &state->tables[i]);
		err = mls_edit_add(group, MLS_OWNER_LSM, &add, sizeof add);
	}
	return err;
}

int mls_lsm_state_snapshot(void *arg, struct mls_edit_group *group)
{
	struct mls_lsm_state *state = arg;
	int err;

	pthread_mutex_lock(&state->lock);
	err = snapshot_locked(state, group);
	pthread_mutex_unlock(&state->lock);
	return err;
}
