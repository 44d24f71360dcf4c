/* SPDX-License-Identifier: MPL-2.0 */
/*
 * segment_table_edits.c - how lives are made durable, and learned again.
 *
 * A sync *announces* in its WAL group the segments opened since the last one; each index transaction
 * (flush, compaction) *journals* those still unknown to the journal, because it may move the WAL's
 * start past their announcement, and the ends of lives not journaled yet, because it may turn such a
 * run into a chunk. Ends are repeated until a transaction that names them has committed. Recovery
 * takes the journal's edits first, then the announcements of the groups behind.
 */
#include "5-disk/segment_table_internal.h"

#include <stdlib.h>
#include <string.h>

#include "5-disk/seg_edit.h"
#include "base/endian.h"
#include "base/err.h"
#include "base/log.h"
#include "format/mlsdisk_format.h"

/* ---- Edits, made ---- */

int mls_seg_edit_life(struct mls_edit_group *group, uint8_t type, uint64_t run, uint64_t birth, uint32_t key_id,
		     int64_t delta)
{
	struct mls_seg_add_disk edit = { .type = type };

	mls_put_le32(edit.delta, (uint32_t)(int32_t)delta);
	mls_put_le64(edit.run, run);
	mls_put_le64(edit.birth, birth);
	mls_put_le32(edit.key_id, key_id);
	return mls_edit_add(group, MLS_OWNER_SEGMENTS, &edit, sizeof edit);
}

static void key_encode(struct mls_seg_key_disk *edit, const struct mls_data_key *key)
{
	*edit = (struct mls_seg_key_disk){ .type = MLS_SEG_EDIT_KEY };
	mls_put_le32(edit->key_id, key->id);
	memcpy(edit->salt, key->salt, sizeof edit->salt);
}

int mls_seg_edit_keys(struct mls_segment_table *table, struct mls_edit_group *group, bool all)
{
	int err = 0;

	for (struct mls_data_key *key = table->key_set; key && !err; key = key->next) {
		struct mls_seg_key_disk edit;

		if (key->journaled && !all)
			continue;
		key_encode(&edit, key);
		err = mls_edit_add(group, MLS_OWNER_SEGMENTS, &edit, sizeof edit);
	}
	return err;
}

int mls_seg_edit_next_birth(struct mls_segment_table *table, struct mls_edit_group *group)
{
	uint8_t edit[16] = { MLS_SEG_EDIT_NEXT_BIRTH };

	mls_put_le64(edit + 8, table->next_birth);
	return mls_edit_add(group, MLS_OWNER_SEGMENTS, edit, sizeof edit);
}

static void totals_locked(struct mls_segment_table *table, struct mls_totals *totals)
{
	memset(totals, 0, sizeof *totals);
	if (table->totals_now)
		table->totals_now(table->totals_arg, totals);
	for (unsigned i = 0; i < MLS_NR_TOTALS; i++)
		totals->at[i] += table->totals_before.at[i];
}

int mls_seg_edit_totals(struct mls_segment_table *table, struct mls_edit_group *group)
{
	struct mls_totals_disk edit;
	struct mls_totals totals;

	totals_locked(table, &totals);
	mls_totals_encode(&edit, &totals);
	return mls_edit_add(group, MLS_OWNER_SEGMENTS, &edit, sizeof edit);
}

void mls_segment_table_totals(struct mls_segment_table *table, struct mls_totals *totals)
{
	pthread_mutex_lock(&table->lock);
	totals_locked(table, totals);
	pthread_mutex_unlock(&table->lock);
}

int mls_segment_table_note_totals(struct mls_segment_table *table, struct mls_edit_group *group)
{
	int err;

	pthread_mutex_lock(&table->lock);
	err = mls_seg_edit_totals(table, group);
	pthread_mutex_unlock(&table->lock);
	return err;
}

/* ---- Journal owner ---- */

static void on_reset(void *arg)
{
	struct mls_segment_table *table = arg;

	pthread_mutex_lock(&table->lock);
	mls_seg_entries_reset(table);
	table->loading = true;
	pthread_mutex_unlock(&table->lock);
}

static int apply_key(struct mls_segment_table *table, const struct mls_seg_edit *edit, bool journaled)
{
	uint32_t id = edit->key_id;
	struct mls_data_key *key = mls_seg_key_by_id(table, id);
	int err;

	if (key && memcmp(key->salt, edit->salt, sizeof key->salt) == 0) {
		key->journaled |= journaled;
		return 0;
	}
	if (key && !table->loading)
		return MLS_EFORMAT;
	err = mls_data_key_new(&key, table->keys, id, edit->salt);
	if (err)
		return err;
	key->journaled = journaled;
	key->next = table->key_set;		/* in front: shadows a key of a session that was given up */
	table->key_set = key;
	if (id >= table->next_key_id)
		table->next_key_id = id + 1;
	return 0;
}

static int count_change(struct mls_segment_table *table, struct seg_entry *entry, int32_t delta)
{
	int64_t live_sst = (int64_t)entry->live_sst + delta;

	if (live_sst < 0 || live_sst > UINT32_MAX)
		return MLS_EFORMAT;
	entry->live_sst = (uint32_t)live_sst;
	table->live_blocks += (uint64_t)(int64_t)delta;
	return 0;
}

/* A life begins, if it is news; then its count changes. */
static int apply_add(struct mls_segment_table *table, const struct mls_seg_edit *edit, bool journaled)
{
	uint64_t run = edit->run, birth = edit->birth;
	struct mls_data_key *key = mls_seg_key_by_id(table, edit->key_id);
	struct seg_entry *entry;

	if (run >= table->nr_runs || birth == 0)
		return MLS_EFORMAT;
	entry = &table->entries[run];
	if (birth < entry->birth || (birth == entry->birth && entry->state == MLS_SEG_FREE))
		return 0;		/* that life has ended */
	if (birth > entry->birth) {
		if (!table->loading)
			return 0;	/* never at run time: lives begin in open_run */
		if (!key)		/* a snapshot leaves out keys that only dead lives had */
			return journaled ? MLS_EFORMAT : 0;
		mls_seg_entry_begin(table, entry, birth, key, MLS_SEG_CLOSED);
		if (birth >= table->next_birth)
			table->next_birth = birth + 1;
	}
	entry->journaled |= journaled;
	return count_change(table, entry, edit->delta);
}

static int apply_free(struct mls_segment_table *table, const struct mls_seg_edit *edit)
{
	uint64_t run = edit->run, birth = edit->birth;
	struct seg_entry *entry;

	if (run >= table->nr_runs)
		return MLS_EFORMAT;
	entry = &table->entries[run];
	if (!table->loading || entry->birth != birth || entry->state == MLS_SEG_FREE)
		return 0;		/* at run time the entry has ended before the edit was made */
	mls_data_key_put(entry->key);
	table->live_blocks -= (uint64_t)entry->live_mem + entry->live_sst;
	table->hidden_blocks -= entry->hidden;
	table->nr_segments--;
	*entry = (struct seg_entry){ .birth = birth, .state = MLS_SEG_FREE };
	return 0;
}

static int apply_locked(struct mls_segment_table *table, const uint8_t *bytes, size_t nr_bytes, bool journaled)
{
	struct mls_seg_edit edit;
	int err = mls_seg_edit_decode(&edit, bytes, nr_bytes);

	if (err)
		return err;
	switch (edit.type) {
	case MLS_SEG_EDIT_KEY:
		return apply_key(table, &edit, journaled);
	case MLS_SEG_EDIT_ADD:
		return apply_add(table, &edit, journaled);
	case MLS_SEG_EDIT_FREE:
		return apply_free(table, &edit);
	case MLS_SEG_EDIT_TOTALS:
		if (table->loading)	/* at run time they were made here */
			mls_totals_decode(&table->totals_before, edit.totals);
		return 0;
	default:
		table->next_birth = edit.birth > table->next_birth ? edit.birth : table->next_birth;
		return 0;
	}
}

static int on_apply(void *arg, const uint8_t *edit, size_t bytes)
{
	struct mls_segment_table *table = arg;
	int err;

	pthread_mutex_lock(&table->lock);
	err = apply_locked(table, edit, bytes, true);
	pthread_mutex_unlock(&table->lock);
	return err;
}

static int on_snapshot(void *arg, struct mls_edit_group *group)
{
	struct mls_segment_table *table = arg;
	int err;

	pthread_mutex_lock(&table->lock);
	err = mls_seg_edit_next_birth(table, group);
	if (!err)
		err = mls_seg_edit_totals(table, group);
	if (!err)
		err = mls_seg_edit_keys(table, group, true);
	for (uint64_t run = 0; run < table->nr_touched && !err; run++) {
		struct seg_entry *entry = &table->entries[run];

		if (entry->state == MLS_SEG_FREE)
			continue;
		err = mls_seg_edit_life(group, MLS_SEG_EDIT_ADD, run, entry->birth, entry->key->id, entry->live_sst);
		entry->journaled = true;
	}
	pthread_mutex_unlock(&table->lock);
	return err;
}

const struct mls_edit_owner mls_seg_edit_owner = {
	.reset = on_reset,
	.apply = on_apply,
	.snapshot = on_snapshot,
};

/* ---- Recovery ---- */

/* Is the run a chunk by now? Then the announced life has ended, and nobody needs it. */
static bool became_chunk(struct mls_segment_table *table, const struct mls_seg_add_disk *disk)
{
	uint64_t run = mls_get_le64(disk->run);

	return run < table->nr_runs && mls_chunk_alloc_used(table->alloc, run);
}

/* Announcements are packed edits; their length follows from their type. */
int mls_segment_table_announced(struct mls_segment_table *table, const uint8_t *bytes, size_t nr_bytes)
{
	int err = 0;

	pthread_mutex_lock(&table->lock);
	while (nr_bytes > 0 && !err) {
		size_t len = mls_seg_edit_bytes(bytes[0]);

		if (len == 0 || len > nr_bytes) {
			err = MLS_EFORMAT;
			break;
		}
		if (bytes[0] == MLS_SEG_EDIT_KEY || !became_chunk(table, (const void *)bytes))
			err = apply_locked(table, bytes, len, false);
		bytes += len;
		nr_bytes -= len;
	}
	pthread_mutex_unlock(&table->lock);
	return err;
}

int mls_seg_announced(void *arg, const uint8_t *bytes, size_t nr_bytes)
{
	return mls_segment_table_announced(arg, bytes, nr_bytes);
}

int mls_segment_table_loaded(struct mls_segment_table *table)
{
	int err;

	pthread_mutex_lock(&table->lock);
	err = table->contradicted ? MLS_EFORMAT : 0;
	for (uint64_t run = 0; run < table->nr_touched && !err; run++) {
		struct seg_entry *entry = &table->entries[run];

		if (entry->state == MLS_SEG_FREE)
			continue;
		err = mls_chunk_alloc_mark(table->alloc, run);
		if (err)
			mls_error("disk: run %llu is a chunk and a segment", (unsigned long long)run);
		else if (entry->live_mem == 0 && entry->live_sst == 0)
			mls_seg_entry_end(table, run);
		else if (!entry->journaled)
			err = mls_lives_add(&table->to_journal, run, entry->birth);
	}
	table->loading = false;
	mls_seg_drop_unused_keys(table);
	pthread_mutex_unlock(&table->lock);
	return err;
}

/* ---- Announcements ---- */

static size_t announce_keys(const struct mls_segment_table *table, uint8_t *out)
{
	size_t nr = 0;

	for (struct mls_data_key *key = table->key_set; key; key = key->next) {
		if (!key->fresh || key->journaled)
			continue;
		if (out)
			key_encode((struct mls_seg_key_disk *)out + nr, key);
		nr++;
	}
	return nr * sizeof(struct mls_seg_key_disk);
}

static size_t announce_life(uint8_t *out, uint8_t type, const struct seg_life *life, uint32_t key_id)
{
	struct mls_seg_add_disk edit = { .type = type };

	mls_put_le64(edit.run, life->run);
	mls_put_le64(edit.birth, life->birth);
	mls_put_le32(edit.key_id, key_id);
	memcpy(out, &edit, sizeof edit);
	return sizeof edit;
}

/* Keys, then the ends of lives, then new lives: a run may have both. */
static size_t announce_locked(struct mls_segment_table *table, uint8_t *out)
{
	size_t used = announce_keys(table, out);

	for (size_t i = 0; i < table->ended.nr; i++)
		if (table->ended.base + i >= table->ended_announced)
			used += announce_life(out + used, MLS_SEG_EDIT_FREE, &table->ended.at[i], 0);
	for (size_t i = 0; i < table->to_announce.nr; i++) {
		const struct seg_life *life = &table->to_announce.at[i];
		struct seg_entry *entry = &table->entries[life->run];

		if (entry->state != MLS_SEG_FREE && entry->birth == life->birth)
			used += announce_life(out + used, MLS_SEG_EDIT_ADD, life, entry->key->id);
	}
	return used;
}

int mls_segment_table_announce(struct mls_segment_table *table, uint8_t **bytes, size_t *nr_bytes)
{
	uint8_t *out;

	pthread_mutex_lock(&table->lock);
	if (table->contradicted) {
		pthread_mutex_unlock(&table->lock);
		return MLS_EFORMAT;
	}
	out = malloc(announce_keys(table, NULL) +
		     (table->to_announce.nr + table->ended.nr) * sizeof(struct mls_seg_add_disk) + 1);
	if (out) {
		*nr_bytes = announce_locked(table, out);
		table->announcing_upto = lives_end(&table->to_announce);
		table->ended_announcing = lives_end(&table->ended);
		*bytes = out;
	}
	pthread_mutex_unlock(&table->lock);
	return out ? 0 : MLS_ENOMEM;
}

void mls_segment_table_announce_done(struct mls_segment_table *table, bool committed)
{
	pthread_mutex_lock(&table->lock);
	if (committed) {
		mls_lives_drop_until(&table->to_announce, table->announcing_upto);
		table->ended_announced = table->ended_announcing;
	}
	pthread_mutex_unlock(&table->lock);
}
