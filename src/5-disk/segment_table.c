/* SPDX-License-Identifier: MPL-2.0 */
/*
 * segment_table.c - which runs are segments, since when, under which key, how live.
 *
 * How a run's life is made durable. A sync *announces* in its WAL group the segments opened since
 * the last one; each index transaction (flush, compaction) *journals* those still unknown to the
 * journal, because it may move the WAL's start past their announcement, and the ends of lives not
 * journaled yet, because it may turn such a run into a chunk. Ends are repeated until a
 * transaction that names them has committed.
 *
 * No life ends while a transaction stands between prepare and done (nr_prepared): its edits name
 * lives, and would otherwise bring a dead one back when the journal is read. Ends that fall due
 * meanwhile wait (end_due).
 */
#include "5-disk/segment_table.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "5-disk/location.h"
#include "5-disk/seg_edit.h"
#include "5-disk/segment.h"
#include "base/endian.h"
#include "base/err.h"
#include "base/log.h"
#include "format/mlsdisk_format.h"

struct seg_entry {
	struct mls_data_key *key;
	struct mls_seg_buf *buf;
	uint64_t birth;			/* 0: never lived, as far as we know */
	uint64_t clean_epoch;		/* CLEANED: free once this is committed */
	uint32_t live_mem;
	uint32_t live_sst;
	uint8_t state;			/* enum mls_seg_state */
	bool journaled;
	bool spared;			/* damaged: not a victim */
};

/* A life: what announcements and edits name. */
struct seg_life {
	uint64_t run, birth;
};

struct life_list {
	struct seg_life *at;
	size_t nr, cap;
	uint64_t base;			/* dropped from the front so far: at[i] is number base + i */
};

struct mls_segment_table {
	pthread_mutex_t lock;
	struct mls_chunk_alloc *alloc;
	const struct mls_keyring *keys;
	struct seg_entry *entries;
	uint64_t nr_runs, max_runs;
	uint64_t nr_touched;			/* entries behind were never used: loops end here */
	uint64_t next_birth;
	uint32_t next_key_id;
	struct mls_data_key *key_set;		/* all known; the set has one reference each */
	struct mls_data_key *key_now;		/* seals new segments; NULL: draw one */
	uint32_t key_now_segments;
	struct life_list to_announce;		/* opened, not in a committed sync yet */
	uint64_t announcing_upto;		/* numbers below this are in a sync now */
	uint64_t ended_announced, ended_announcing;	/* the same for the ended */
	struct life_list to_journal;		/* opened, not in the journal yet */
	struct life_list ended;			/* journaled lives that ended; the journal doesn't know */
	struct life_list end_due;		/* waiting for nr_prepared == 0 */
	struct life_list cleaned;		/* waiting for a sync */
	unsigned nr_prepared;
	bool loading;
	uint64_t nr_segments, live_blocks;
	int (*before_commit)(void *arg);
	void *before_commit_arg;
};

/* ---- Lists of lives ---- */

static int lives_reserve(struct life_list *list, size_t more)
{
	size_t cap = list->cap ? list->cap : 16;
	struct seg_life *at;

	while (cap < list->nr + more)
		cap *= 2;
	if (cap == list->cap)
		return 0;
	at = realloc(list->at, cap * sizeof *at);
	if (!at)
		return MLS_ENOMEM;
	list->at = at;
	list->cap = cap;
	return 0;
}

static int lives_add(struct life_list *list, uint64_t run, uint64_t birth)
{
	int err = lives_reserve(list, 1);

	if (!err)
		list->at[list->nr++] = (struct seg_life){ run, birth };
	return err;
}

static uint64_t lives_end(const struct life_list *list)
{
	return list->base + list->nr;
}

/* Drop all that have a number below upto; another may have dropped some of them before. */
static void lives_drop_until(struct life_list *list, uint64_t upto)
{
	size_t nr;

	MLS_INVARIANT(upto <= lives_end(list));
	if (upto <= list->base)
		return;
	nr = (size_t)(upto - list->base);
	memmove(list->at, list->at + nr, (list->nr - nr) * sizeof *list->at);
	list->nr -= nr;
	list->base = upto;
}

/* ---- Entries ---- */

static struct seg_entry *entry_of_loc(struct mls_segment_table *table, uint64_t loc, uint64_t *run)
{
	struct seg_entry *entry;
	uint32_t slot;

	if (!mls_chunk_alloc_run_of(table->alloc, mls_loc_hba(loc), run, &slot))
		return NULL;
	entry = &table->entries[*run];
	if (entry->state == MLS_SEG_FREE || !mls_loc_is_of(loc, entry->birth))
		return NULL;
	return entry;
}

static struct mls_data_key *key_by_id(struct mls_segment_table *table, uint32_t id)
{
	for (struct mls_data_key *key = table->key_set; key; key = key->next)
		if (key->id == id)
			return key;
	return NULL;
}

/* Keys that no run uses any more (only the set's reference is left). */
static void drop_unused_keys(struct mls_segment_table *table)
{
	struct mls_data_key **link = &table->key_set;

	while (*link) {
		struct mls_data_key *key = *link;

		if (key == table->key_now || atomic_load(&key->refs) > 1) {
			link = &key->next;
			continue;
		}
		*link = key->next;
		mls_data_key_put(key);
	}
}

static void entry_begin(struct mls_segment_table *table, struct seg_entry *entry, uint64_t birth,
			struct mls_data_key *key, enum mls_seg_state state)
{
	if (entry->state != MLS_SEG_FREE)
		mls_data_key_put(entry->key);
	else
		table->nr_segments++;
	mls_data_key_get(key);
	if ((uint64_t)(entry - table->entries) >= table->nr_touched)
		table->nr_touched = (uint64_t)(entry - table->entries) + 1;
	table->live_blocks -= (uint64_t)entry->live_mem + entry->live_sst;
	*entry = (struct seg_entry){ .key = key, .birth = birth, .state = (uint8_t)state };
}

/* The life ends now; the birth stays, so that an older one is never taken for newer. */
static void entry_end(struct mls_segment_table *table, uint64_t run)
{
	struct seg_entry *entry = &table->entries[run];

	MLS_INVARIANT(entry->state != MLS_SEG_FREE && entry->buf == NULL);
	if (entry->journaled && lives_add(&table->ended, run, entry->birth)) {
		mls_warn("disk: no memory to note the end of a segment in run %llu; it stays taken until "
			 "the next open", (unsigned long long)run);
		return;
	}
	mls_data_key_put(entry->key);
	table->live_blocks -= (uint64_t)entry->live_mem + entry->live_sst;
	table->nr_segments--;
	*entry = (struct seg_entry){ .birth = entry->birth, .state = MLS_SEG_FREE };
	mls_chunk_alloc_give(table->alloc, run);
}

static void end_or_defer(struct mls_segment_table *table, uint64_t run)
{
	if (table->nr_prepared == 0)
		entry_end(table, run);
	else if (lives_add(&table->end_due, run, table->entries[run].birth))
		mls_warn("disk: no memory to free run %llu now", (unsigned long long)run);
}

static void maybe_end(struct mls_segment_table *table, uint64_t run)
{
	struct seg_entry *entry = &table->entries[run];

	if (!table->loading && entry->state == MLS_SEG_CLOSED && entry->live_mem == 0 && entry->live_sst == 0)
		end_or_defer(table, run);
}

static void end_those_due(struct mls_segment_table *table)
{
	for (size_t i = 0; i < table->end_due.nr; i++) {
		struct seg_life life = table->end_due.at[i];
		struct seg_entry *entry = &table->entries[life.run];
		bool dead = entry->live_mem == 0 && entry->live_sst == 0;

		if (entry->birth == life.birth &&
		    (entry->state == MLS_SEG_CLEANED || (entry->state == MLS_SEG_CLOSED && dead)))
			entry_end(table, life.run);
	}
	table->end_due.nr = 0;
	drop_unused_keys(table);
}

/* ---- Listener: memtable ---- */

static void on_born(void *arg, uint64_t loc)
{
	struct mls_segment_table *table = arg;
	struct seg_entry *entry;
	uint64_t run;

	pthread_mutex_lock(&table->lock);
	entry = entry_of_loc(table, loc, &run);
	if (entry) {
		entry->live_mem++;
		table->live_blocks++;
	}
	pthread_mutex_unlock(&table->lock);
}

static void on_died(void *arg, uint64_t loc)
{
	struct mls_segment_table *table = arg;
	struct seg_entry *entry;
	uint64_t run;

	pthread_mutex_lock(&table->lock);
	entry = entry_of_loc(table, loc, &run);
	if (entry) {
		MLS_INVARIANT(entry->live_mem > 0);
		entry->live_mem--;
		table->live_blocks--;
		maybe_end(table, run);
	}
	pthread_mutex_unlock(&table->lock);
}

/* ---- Listener: transactions on SSTables ---- */

struct run_delta {
	uint64_t loc;			/* any location of the life: names run and birth; 0: empty */
	uint64_t run;
	uint32_t added, dropped;
};

struct seg_tx {
	struct mls_segment_table *table;
	struct run_delta *deltas;	/* open hash by run and birth */
	size_t nr, cap;
	uint64_t ended_upto;		/* the group names table->ended and to_journal up to these */
	uint64_t journaled_upto;
	bool prepared;
};

static void *on_tx_begin(void *arg)
{
	struct seg_tx *tx = calloc(1, sizeof *tx);

	if (!tx)
		return NULL;
	tx->table = arg;
	tx->cap = 256;
	tx->deltas = calloc(tx->cap, sizeof *tx->deltas);
	if (!tx->deltas) {
		free(tx);
		return NULL;
	}
	return tx;
}

static bool same_life(const struct run_delta *delta, uint64_t run, uint64_t loc)
{
	return delta->run == run && delta->loc >> MLS_LOC_HBA_BITS == loc >> MLS_LOC_HBA_BITS;
}

static struct run_delta *delta_probe(struct run_delta *deltas, size_t cap, uint64_t run, uint64_t loc)
{
	uint64_t hash = (run ^ (loc >> MLS_LOC_HBA_BITS) << 32) * UINT64_C(0x9e3779b97f4a7c15);
	size_t i = (size_t)(hash >> 32) & (cap - 1);

	while (deltas[i].loc && !same_life(&deltas[i], run, loc))
		i = (i + 1) & (cap - 1);
	return &deltas[i];
}

static int deltas_grow(struct seg_tx *tx)
{
	size_t cap = tx->cap * 2;
	struct run_delta *deltas = calloc(cap, sizeof *deltas);

	if (!deltas)
		return MLS_ENOMEM;
	for (size_t i = 0; i < tx->cap; i++)
		if (tx->deltas[i].loc)
			*delta_probe(deltas, cap, tx->deltas[i].run, tx->deltas[i].loc) = tx->deltas[i];
	free(tx->deltas);
	tx->deltas = deltas;
	tx->cap = cap;
	return 0;
}

static int delta_count(struct seg_tx *tx, uint64_t loc, bool added)
{
	struct run_delta *delta;
	uint64_t run;
	uint32_t slot;

	if (!mls_chunk_alloc_run_of(tx->table->alloc, mls_loc_hba(loc), &run, &slot))
		return MLS_EFORMAT;
	if (tx->nr * 2 >= tx->cap && deltas_grow(tx))
		return MLS_ENOMEM;
	delta = delta_probe(tx->deltas, tx->cap, run, loc);
	if (!delta->loc) {
		*delta = (struct run_delta){ .loc = loc, .run = run };
		tx->nr++;
	}
	*(added ? &delta->added : &delta->dropped) += 1;
	return 0;
}

static int on_tx_added(void *ctx, uint64_t loc)
{
	return delta_count(ctx, loc, true);
}

static int on_tx_dropped(void *ctx, uint64_t loc)
{
	return delta_count(ctx, loc, false);
}

static int edit_life(struct mls_edit_group *group, uint8_t type, uint64_t run, uint64_t birth, uint32_t key_id,
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

static int edit_keys(struct mls_segment_table *table, struct mls_edit_group *group, bool all)
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

static int edit_next_birth(struct mls_segment_table *table, struct mls_edit_group *group)
{
	uint8_t edit[16] = { MLS_SEG_EDIT_NEXT_BIRTH };

	mls_put_le64(edit + 8, table->next_birth);
	return mls_edit_add(group, MLS_OWNER_SEGMENTS, edit, sizeof edit);
}

/* New lives, ended lives, counts; called with the lock held. */
static int prepare_edits(struct seg_tx *tx, struct mls_edit_group *group)
{
	struct mls_segment_table *table = tx->table;
	int err = edit_next_birth(table, group);

	if (!err)
		err = edit_keys(table, group, false);
	for (size_t i = 0; i < table->ended.nr && !err; i++)
		err = edit_life(group, MLS_SEG_EDIT_FREE, table->ended.at[i].run, table->ended.at[i].birth, 0, 0);
	for (size_t i = 0; i < table->to_journal.nr && !err; i++) {
		struct seg_life life = table->to_journal.at[i];
		struct seg_entry *entry = &table->entries[life.run];

		if (entry->state != MLS_SEG_FREE && entry->birth == life.birth)
			err = edit_life(group, MLS_SEG_EDIT_ADD, life.run, life.birth, entry->key->id, 0);
	}
	for (size_t i = 0; i < tx->cap && !err; i++) {
		struct run_delta *delta = &tx->deltas[i];
		int64_t change = (int64_t)delta->added - delta->dropped;
		struct seg_entry *entry;
		uint64_t run;

		if (!delta->loc || !(entry = entry_of_loc(table, delta->loc, &run)) || change == 0)
			continue;
		err = edit_life(group, MLS_SEG_EDIT_ADD, run, entry->birth, entry->key->id, change);
	}
	tx->ended_upto = lives_end(&table->ended);
	tx->journaled_upto = lives_end(&table->to_journal);
	return err;
}

static int on_tx_prepare(void *ctx, struct mls_edit_group *group)
{
	struct seg_tx *tx = ctx;
	struct mls_segment_table *table = tx->table;
	int err = 0;

	if (table->before_commit && !table->loading)
		err = table->before_commit(table->before_commit_arg);
	if (err)
		return err;
	pthread_mutex_lock(&table->lock);
	table->nr_prepared++;
	tx->prepared = true;
	err = prepare_edits(tx, group);
	pthread_mutex_unlock(&table->lock);
	return err;
}

static void tx_settle(struct seg_tx *tx)
{
	struct mls_segment_table *table = tx->table;

	for (size_t i = 0; i < tx->cap; i++) {
		struct run_delta *delta = &tx->deltas[i];
		struct seg_entry *entry;
		uint64_t run;

		if (!delta->loc || !(entry = entry_of_loc(table, delta->loc, &run)))
			continue;
		MLS_INVARIANT(entry->live_mem >= delta->added);
		entry->live_mem -= delta->added;
		table->live_blocks -= delta->added;
		if (table->nr_prepared == 0)
			maybe_end(table, run);
		else if (entry->live_mem == 0 && entry->live_sst == 0)
			end_or_defer(table, run);
	}
}

static void on_tx_done(void *ctx, bool committed)
{
	struct seg_tx *tx = ctx;
	struct mls_segment_table *table = tx->table;

	pthread_mutex_lock(&table->lock);
	if (tx->prepared)
		table->nr_prepared--;
	if (committed) {
		lives_drop_until(&table->ended, tx->ended_upto);
		lives_drop_until(&table->to_journal, tx->journaled_upto);
		tx_settle(tx);
	}
	if (table->nr_prepared == 0 && !table->loading)
		end_those_due(table);
	pthread_mutex_unlock(&table->lock);
	free(tx->deltas);
	free(tx);
}

/* ---- Journal owner ---- */

static void entries_reset(struct mls_segment_table *table)
{
	for (uint64_t run = 0; run < table->nr_touched; run++)
		if (table->entries[run].state != MLS_SEG_FREE)
			mls_data_key_put(table->entries[run].key);
	memset(table->entries, 0, table->nr_touched * sizeof *table->entries);
	table->nr_touched = 0;
	while (table->key_set) {
		struct mls_data_key *key = table->key_set;

		table->key_set = key->next;
		mls_data_key_put(key);
	}
	table->key_now = NULL;
	table->next_birth = 1;
	table->next_key_id = 1;
	table->nr_segments = table->live_blocks = 0;
	table->to_announce.nr = table->to_journal.nr = table->ended.nr = 0;
	table->end_due.nr = table->cleaned.nr = 0;
}

static void on_reset(void *arg)
{
	struct mls_segment_table *table = arg;

	pthread_mutex_lock(&table->lock);
	entries_reset(table);
	table->loading = true;
	pthread_mutex_unlock(&table->lock);
}

static int apply_key(struct mls_segment_table *table, const struct mls_seg_edit *edit, bool journaled)
{
	uint32_t id = edit->key_id;
	struct mls_data_key *key = key_by_id(table, id);
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
	struct mls_data_key *key = key_by_id(table, edit->key_id);
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
		entry_begin(table, entry, birth, key, MLS_SEG_CLOSED);
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
	err = edit_next_birth(table, group);
	if (!err)
		err = edit_keys(table, group, true);
	for (uint64_t run = 0; run < table->nr_touched && !err; run++) {
		struct seg_entry *entry = &table->entries[run];

		if (entry->state == MLS_SEG_FREE)
			continue;
		err = edit_life(group, MLS_SEG_EDIT_ADD, run, entry->birth, entry->key->id, entry->live_sst);
		entry->journaled = true;
	}
	pthread_mutex_unlock(&table->lock);
	return err;
}

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

static int on_announced(void *arg, const uint8_t *bytes, size_t nr_bytes)
{
	return mls_segment_table_announced(arg, bytes, nr_bytes);
}

int mls_segment_table_loaded(struct mls_segment_table *table)
{
	int err = 0;

	pthread_mutex_lock(&table->lock);
	for (uint64_t run = 0; run < table->nr_touched && !err; run++) {
		struct seg_entry *entry = &table->entries[run];

		if (entry->state == MLS_SEG_FREE)
			continue;
		err = mls_chunk_alloc_mark(table->alloc, run);
		if (err)
			mls_error("disk: run %llu is a chunk and a segment", (unsigned long long)run);
		else if (entry->live_mem == 0 && entry->live_sst == 0)
			entry_end(table, run);
		else if (!entry->journaled)
			err = lives_add(&table->to_journal, run, entry->birth);
	}
	table->loading = false;
	drop_unused_keys(table);
	pthread_mutex_unlock(&table->lock);
	return err;
}

/* ---- Segments in the making ---- */

/* The key for the next segment: the one of now, or a fresh one. Called without the lock held. */
static int key_for_next(struct mls_segment_table *table)
{
	struct mls_data_key *key;
	int err;

	if (table->key_now && table->key_now_segments < MLS_KEY_SEGMENTS)
		return 0;
	err = mls_data_key_new(&key, table->keys, table->next_key_id, NULL);
	if (err)
		return err;
	table->next_key_id++;
	key->next = table->key_set;
	table->key_set = key;
	table->key_now = key;
	table->key_now_segments = 0;
	return 0;
}

int mls_segment_table_open_run(struct mls_segment_table *table, enum mls_run_class class, struct mls_seg_buf *buf,
			       uint64_t *run, uint64_t *birth, struct mls_data_key **key)
{
	struct seg_entry *entry;
	int err;

	pthread_mutex_lock(&table->lock);
	err = lives_reserve(&table->to_announce, 1);
	if (!err)
		err = lives_reserve(&table->to_journal, 1);
	if (!err)
		err = key_for_next(table);
	if (!err)
		err = mls_chunk_alloc_take(table->alloc, class, run);
	if (err)
		goto out;

	entry = &table->entries[*run];
	MLS_INVARIANT(entry->state == MLS_SEG_FREE);
	*birth = table->next_birth++;
	*key = table->key_now;
	table->key_now_segments++;
	entry_begin(table, entry, *birth, *key, MLS_SEG_OPEN);
	entry->buf = buf;
	table->to_announce.at[table->to_announce.nr++] = (struct seg_life){ *run, *birth };
	table->to_journal.at[table->to_journal.nr++] = (struct seg_life){ *run, *birth };
out:
	pthread_mutex_unlock(&table->lock);
	return err;
}

void mls_segment_table_close_run(struct mls_segment_table *table, uint64_t run)
{
	struct seg_entry *entry = &table->entries[run];

	pthread_mutex_lock(&table->lock);
	MLS_INVARIANT(entry->state == MLS_SEG_OPEN);
	entry->state = MLS_SEG_CLOSED;
	entry->buf = NULL;
	maybe_end(table, run);
	pthread_mutex_unlock(&table->lock);
}

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
		lives_drop_until(&table->to_announce, table->announcing_upto);
		table->ended_announced = table->ended_announcing;
	}
	pthread_mutex_unlock(&table->lock);
}

/* ---- Reading ---- */

int mls_segment_table_pin(struct mls_segment_table *table, uint64_t loc, struct mls_seg_pin *pin)
{
	struct seg_entry *entry;
	uint32_t slot;
	uint64_t run;
	int err = MLS_ENOENT;

	if (!mls_chunk_alloc_run_of(table->alloc, mls_loc_hba(loc), &run, &slot))
		return MLS_ENOENT;
	entry = &table->entries[run];
	pthread_mutex_lock(&table->lock);
	if (entry->state != MLS_SEG_FREE && mls_loc_is_of(loc, entry->birth)) {
		*pin = (struct mls_seg_pin){ entry->key, entry->buf, entry->birth, run, slot };
		mls_data_key_get(pin->key);
		if (pin->buf)
			mls_seg_buf_get(pin->buf);
		err = 0;
	}
	pthread_mutex_unlock(&table->lock);
	return err;
}

void mls_segment_table_unpin(struct mls_seg_pin *pin)
{
	mls_data_key_put(pin->key);
	if (pin->buf)
		mls_seg_buf_put(pin->buf);
	*pin = (struct mls_seg_pin){ 0 };
}

/* ---- Cleaning ---- */

size_t mls_segment_table_victims(struct mls_segment_table *table, uint32_t max_live, struct mls_seg_info *infos,
				 size_t max)
{
	size_t nr = 0;

	pthread_mutex_lock(&table->lock);
	for (uint64_t run = 0; run < table->nr_touched; run++) {
		struct seg_entry *entry = &table->entries[run];
		uint32_t live = entry->live_mem + entry->live_sst;
		size_t at;

		if (entry->state != MLS_SEG_CLOSED || entry->spared || live > max_live ||
		    (nr == max && live >= infos[nr - 1].live))
			continue;
		at = nr < max ? nr++ : nr - 1;
		for (; at > 0 && infos[at - 1].live > live; at--)
			infos[at] = infos[at - 1];
		infos[at] = (struct mls_seg_info){ run, entry->birth, live, MLS_SEG_CLOSED };
	}
	pthread_mutex_unlock(&table->lock);
	return nr;
}

void mls_segment_table_cleaned(struct mls_segment_table *table, uint64_t run, uint64_t birth, uint64_t epoch)
{
	struct seg_entry *entry = &table->entries[run];

	pthread_mutex_lock(&table->lock);
	if (entry->state == MLS_SEG_CLOSED && entry->birth == birth && !lives_add(&table->cleaned, run, birth)) {
		entry->state = MLS_SEG_CLEANED;
		entry->clean_epoch = epoch;
	}
	pthread_mutex_unlock(&table->lock);
}

void mls_segment_table_spare(struct mls_segment_table *table, uint64_t run, uint64_t birth)
{
	pthread_mutex_lock(&table->lock);
	if (table->entries[run].birth == birth)
		table->entries[run].spared = true;
	pthread_mutex_unlock(&table->lock);
}

size_t mls_segment_table_committed(struct mls_segment_table *table, uint64_t epoch)
{
	size_t kept = 0, freed = 0;

	pthread_mutex_lock(&table->lock);
	for (size_t i = 0; i < table->cleaned.nr; i++) {
		struct seg_life life = table->cleaned.at[i];
		struct seg_entry *entry = &table->entries[life.run];

		if (entry->state != MLS_SEG_CLEANED || entry->birth != life.birth)
			continue;
		if (entry->clean_epoch > epoch) {
			table->cleaned.at[kept++] = life;
			continue;
		}
		end_or_defer(table, life.run);
		freed++;
	}
	table->cleaned.nr = kept;
	pthread_mutex_unlock(&table->lock);
	return freed;
}

void mls_segment_table_stat(struct mls_segment_table *table, struct mls_segment_stat *stat)
{
	uint64_t told;

	pthread_mutex_lock(&table->lock);
	told = table->ended_announced > table->ended.base ? table->ended_announced : table->ended.base;

	*stat = (struct mls_segment_stat){ table->nr_segments, table->live_blocks, table->cleaned.nr,
					   table->end_due.nr, lives_end(&table->ended) - told };
	pthread_mutex_unlock(&table->lock);
}

struct mls_seg_info mls_segment_table_info(struct mls_segment_table *table, uint64_t run)
{
	struct seg_entry *entry = &table->entries[run];
	struct mls_seg_info info;

	pthread_mutex_lock(&table->lock);
	info = (struct mls_seg_info){ run, entry->birth, entry->live_mem + entry->live_sst,
				      (enum mls_seg_state)entry->state };
	pthread_mutex_unlock(&table->lock);
	return info;
}

/* ---- Birth and death of the table ---- */

void mls_segment_table_listener(struct mls_segment_table *table, struct mls_lsm_listener *listener,
				int (*before_commit)(void *arg), void *arg)
{
	table->before_commit = before_commit;
	table->before_commit_arg = arg;
	*listener = (struct mls_lsm_listener){
		.born = on_born,
		.died = on_died,
		.tx_begin = on_tx_begin,
		.tx_added = on_tx_added,
		.tx_dropped = on_tx_dropped,
		.tx_prepare = on_tx_prepare,
		.tx_done = on_tx_done,
		.announced = on_announced,
		.arg = table,
	};
}

int mls_segment_table_new(struct mls_segment_table **out, struct mls_chunk_alloc *alloc,
			  struct mls_journal *journal, const struct mls_keyring *keys, uint64_t max_runs)
{
	struct mls_segment_table *table = calloc(1, sizeof *table);
	struct mls_edit_owner owner = { on_reset, on_apply, on_snapshot, table };

	if (!table)
		return MLS_ENOMEM;
	table->alloc = alloc;
	table->keys = keys;
	table->nr_runs = mls_chunk_alloc_nr_runs(alloc);
	/* All at once, so that no entry ever moves; memory is taken when one is touched. */
	table->max_runs = max_runs;
	table->entries = calloc(max_runs, sizeof *table->entries);
	if (!table->entries) {
		free(table);
		return MLS_ENOMEM;
	}
	table->next_birth = table->next_key_id = 1;
	pthread_mutex_init(&table->lock, NULL);
	mls_journal_set_owner(journal, MLS_OWNER_SEGMENTS, &owner);
	*out = table;
	return 0;
}

void mls_segment_table_grow(struct mls_segment_table *table, uint64_t nr_runs)
{
	pthread_mutex_lock(&table->lock);
	MLS_INVARIANT(nr_runs >= table->nr_runs && nr_runs <= table->max_runs);
	table->nr_runs = nr_runs;
	pthread_mutex_unlock(&table->lock);
}

void mls_segment_table_free(struct mls_segment_table *table)
{
	if (!table)
		return;
	entries_reset(table);
	free(table->to_announce.at);
	free(table->to_journal.at);
	free(table->ended.at);
	free(table->end_due.at);
	free(table->cleaned.at);
	free(table->entries);
	pthread_mutex_destroy(&table->lock);
	free(table);
}
