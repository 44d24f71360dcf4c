/* SPDX-License-Identifier: MPL-2.0 */
/*
 * segment_table.c - which runs are segments, since when, under which key, how live.
 *
 * No life ends while a transaction stands between prepare and done (nr_prepared): its edits name
 * lives, and would otherwise bring a dead one back when the journal is read. Ends that fall due
 * meanwhile wait (end_due). How a life is made durable: segment_table_edits.c.
 */
#include "5-disk/segment_table_internal.h"

#include <stdlib.h>
#include <string.h>

#include "5-disk/location.h"
#include "5-disk/segment.h"
#include "base/err.h"
#include "base/log.h"

/* ---- Lists of lives ---- */

int mls_lives_reserve(struct life_list *list, size_t more)
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

int mls_lives_add(struct life_list *list, uint64_t run, uint64_t birth)
{
	int err = mls_lives_reserve(list, 1);

	if (!err)
		list->at[list->nr++] = (struct seg_life){ run, birth };
	return err;
}

void mls_lives_drop_until(struct life_list *list, uint64_t upto)
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

struct seg_entry *mls_seg_entry_of_loc(struct mls_segment_table *table, uint64_t loc, uint64_t *run)
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

struct mls_data_key *mls_seg_key_by_id(struct mls_segment_table *table, uint32_t id)
{
	for (struct mls_data_key *key = table->key_set; key; key = key->next)
		if (key->id == id)
			return key;
	return NULL;
}

/* Keys that no run uses any more (only the set's reference is left). */
void mls_seg_drop_unused_keys(struct mls_segment_table *table)
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

void mls_seg_entry_begin(struct mls_segment_table *table, struct seg_entry *entry, uint64_t birth,
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
	table->hidden_blocks -= entry->hidden;
	*entry = (struct seg_entry){ .key = key, .birth = birth, .state = (uint8_t)state };
}

void mls_seg_entry_end(struct mls_segment_table *table, uint64_t run)
{
	struct seg_entry *entry = &table->entries[run];

	MLS_INVARIANT(entry->state != MLS_SEG_FREE && entry->buf == NULL);
	if (entry->journaled && mls_lives_add(&table->ended, run, entry->birth)) {
		mls_warn("disk: no memory to note the end of a segment in run %llu; it stays taken until "
			 "the next open", (unsigned long long)run);
		return;
	}
	mls_data_key_put(entry->key);
	table->live_blocks -= (uint64_t)entry->live_mem + entry->live_sst;
	table->hidden_blocks -= entry->hidden;
	table->nr_segments--;
	*entry = (struct seg_entry){ .birth = entry->birth, .state = MLS_SEG_FREE };
	mls_dead_slots_clear(&table->dead, run);
	mls_chunk_alloc_give(table->alloc, run);
}

void mls_seg_end_or_defer(struct mls_segment_table *table, uint64_t run)
{
	if (table->nr_prepared == 0)
		mls_seg_entry_end(table, run);
	else if (mls_lives_add(&table->end_due, run, table->entries[run].birth))
		mls_warn("disk: no memory to free run %llu now", (unsigned long long)run);
}

void mls_seg_maybe_end(struct mls_segment_table *table, uint64_t run)
{
	struct seg_entry *entry = &table->entries[run];

	if (!table->loading && entry->state == MLS_SEG_CLOSED && entry->live_mem == 0 && entry->live_sst == 0)
		mls_seg_end_or_defer(table, run);
}

void mls_seg_end_those_due(struct mls_segment_table *table)
{
	for (size_t i = 0; i < table->end_due.nr; i++) {
		struct seg_life life = table->end_due.at[i];
		struct seg_entry *entry = &table->entries[life.run];
		bool dead = entry->live_mem == 0 && entry->live_sst == 0;

		if (entry->birth == life.birth &&
		    (entry->state == MLS_SEG_CLEANED || (entry->state == MLS_SEG_CLOSED && dead)))
			mls_seg_entry_end(table, life.run);
	}
	table->end_due.nr = 0;
	mls_seg_drop_unused_keys(table);
}

/* ---- Counts ---- */

int mls_seg_contradict(struct mls_segment_table *table, uint64_t run)
{
	if (!table->contradicted)
		mls_error("disk: more records of run %llu come or go than there are: the state is damaged",
			  (unsigned long long)run);
	table->contradicted = true;
	return MLS_EFORMAT;
}

void mls_seg_less_in_memory(struct mls_segment_table *table, uint64_t run, uint32_t nr)
{
	struct seg_entry *entry = &table->entries[run];

	if (nr > entry->live_mem) {
		(void)mls_seg_contradict(table, run);
		nr = entry->live_mem;
	}
	entry->live_mem -= nr;
	table->live_blocks -= nr;
}

/* ---- Listener: memtable ---- */

/* While the WAL is replayed, a version may be replaced by itself. */
static void mark_dead(struct mls_segment_table *table, uint64_t run, uint64_t loc)
{
	if (!table->loading)
		mls_dead_slots_mark(&table->dead, run,
				    (uint32_t)(mls_loc_hba(loc) - mls_chunk_alloc_hba(table->alloc, run)));
}

static void on_born(void *arg, const struct mls_index_rec *recs, size_t nr)
{
	struct mls_segment_table *table = arg;
	uint64_t run;

	pthread_mutex_lock(&table->lock);
	for (size_t i = 0; i < nr; i++) {
		struct seg_entry *entry = recs[i].hba == MLS_HBA_NONE ? NULL :
					  mls_seg_entry_of_loc(table, recs[i].hba, &run);

		if (entry) {
			entry->live_mem++;
			table->live_blocks++;
		}
	}
	pthread_mutex_unlock(&table->lock);
}

static void on_died(void *arg, uint64_t loc)
{
	struct mls_segment_table *table = arg;
	struct seg_entry *entry;
	uint64_t run;

	pthread_mutex_lock(&table->lock);
	entry = mls_seg_entry_of_loc(table, loc, &run);
	if (entry) {
		mls_seg_less_in_memory(table, run, 1);
		mark_dead(table, run, loc);
		mls_seg_maybe_end(table, run);
	}
	pthread_mutex_unlock(&table->lock);
}

static void on_shadowed(void *arg, uint64_t loc)
{
	struct mls_segment_table *table = arg;
	struct seg_entry *entry;
	uint64_t run;

	pthread_mutex_lock(&table->lock);
	entry = mls_seg_entry_of_loc(table, loc, &run);
	if (entry) {
		mark_dead(table, run, loc);
		if (entry->hidden < entry->live_sst) {
			entry->hidden++;
			table->hidden_blocks++;
		}
	}
	pthread_mutex_unlock(&table->lock);
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
	err = mls_lives_reserve(&table->to_announce, 1);
	if (!err)
		err = mls_lives_reserve(&table->to_journal, 1);
	if (!err)
		err = key_for_next(table);
	if (!err)
		err = mls_chunk_alloc_take(table->alloc, class, run);
	if (err)
		goto out;

	entry = &table->entries[*run];
	MLS_INVARIANT(entry->state == MLS_SEG_FREE && mls_dead_slots_none(&table->dead, *run));
	*birth = table->next_birth++;
	*key = table->key_now;
	table->key_now_segments++;
	mls_seg_entry_begin(table, entry, *birth, *key, MLS_SEG_OPEN);
	entry->buf = buf;
	entry->cut_marks = table->cut_marks;
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
	mls_seg_maybe_end(table, run);
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

/*
 * Has no cut fallen between the segment's beginning and now? Then no group, not even one under way, names a block
 * of it: whatever the last synced state needs is elsewhere. One that began during a cut may be in its group.
 */
static bool is_unsynced(const struct mls_segment_table *table, const struct seg_entry *entry)
{
	return entry->cut_marks == table->cut_marks && table->cut_marks % 2 == 1;
}

bool mls_segment_table_is_unsynced(struct mls_segment_table *table, uint64_t run, uint64_t birth)
{
	const struct seg_entry *entry = &table->entries[run];
	bool unsynced;

	pthread_mutex_lock(&table->lock);
	unsynced = entry->birth == birth && is_unsynced(table, entry);
	pthread_mutex_unlock(&table->lock);
	return unsynced;
}

void mls_segment_table_cut(struct mls_segment_table *table, bool begins)
{
	pthread_mutex_lock(&table->lock);
	MLS_INVARIANT(table->cut_marks % 2 == (begins ? 1 : 0));
	table->cut_marks++;
	pthread_mutex_unlock(&table->lock);
}

size_t mls_segment_table_victims(struct mls_segment_table *table, const struct mls_victim_choice *choice,
				 struct mls_seg_info *infos, size_t max)
{
	enum mls_seg_spared spared_most = choice->later_too ? MLS_SPARED_FOR_LATER : MLS_SPARED_NOT;
	size_t nr = 0;

	pthread_mutex_lock(&table->lock);
	for (uint64_t run = 0; run < table->nr_touched; run++) {
		struct seg_entry *entry = &table->entries[run];
		uint32_t live = entry->live_mem + entry->live_sst - mls_seg_hidden(entry);
		size_t at;

		if (choice->unsynced_only && !is_unsynced(table, entry))
			continue;
		if (entry->state != MLS_SEG_CLOSED || entry->spared > spared_most || live > choice->max_live ||
		    (nr == max && live >= infos[nr - 1].live))
			continue;
		at = nr < max ? nr++ : nr - 1;
		for (; at > 0 && infos[at - 1].live > live; at--)
			infos[at] = infos[at - 1];
		infos[at] = (struct mls_seg_info){ run, entry->birth, live, MLS_SEG_CLOSED, choice->unsynced_only };
	}
	pthread_mutex_unlock(&table->lock);
	return nr;
}

bool mls_segment_table_cleaned(struct mls_segment_table *table, const struct mls_seg_info *victim, uint64_t epoch)
{
	struct seg_entry *entry = &table->entries[victim->run];
	bool is_there, left = false;

	pthread_mutex_lock(&table->lock);
	is_there = entry->state == MLS_SEG_CLOSED && entry->birth == victim->birth;	/* else it has ended by itself */
	if (is_there && is_unsynced(table, entry)) {
		entry->state = MLS_SEG_CLEANED;		/* if its end must wait, it may end with live records in tables */
		mls_seg_end_or_defer(table, victim->run);
	} else if (is_there && victim->unsynced_only) {
		left = true;
	} else if (is_there && !mls_lives_add(&table->cleaned, victim->run, victim->birth)) {
		entry->state = MLS_SEG_CLEANED;
		entry->clean_epoch = epoch;
	}
	pthread_mutex_unlock(&table->lock);
	return !left;
}

void mls_segment_table_dead_slots(struct mls_segment_table *table, uint64_t run, uint64_t birth, uint64_t *bits)
{
	size_t bytes = table->dead.words_per_run * sizeof *bits;

	pthread_mutex_lock(&table->lock);
	if (table->entries[run].birth == birth)
		memcpy(bits, mls_dead_slots_of(&table->dead, run), bytes);
	else
		memset(bits, 0, bytes);
	pthread_mutex_unlock(&table->lock);
}

void mls_segment_table_spare(struct mls_segment_table *table, uint64_t run, uint64_t birth, enum mls_seg_spared spared)
{
	pthread_mutex_lock(&table->lock);
	if (table->entries[run].birth == birth)
		table->entries[run].spared = (uint8_t)spared;
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
		mls_seg_end_or_defer(table, life.run);
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
					   table->end_due.nr, lives_end(&table->ended) - told,
					   table->hidden_blocks };
	pthread_mutex_unlock(&table->lock);
}

struct mls_seg_info mls_segment_table_info(struct mls_segment_table *table, uint64_t run)
{
	struct seg_entry *entry = &table->entries[run];
	struct mls_seg_info info;

	pthread_mutex_lock(&table->lock);
	info = (struct mls_seg_info){ .run = run, .birth = entry->birth, .live = entry->live_mem + entry->live_sst,
				      .state = (enum mls_seg_state)entry->state };
	pthread_mutex_unlock(&table->lock);
	return info;
}

/* ---- Birth and death of the table ---- */

void mls_seg_entries_reset(struct mls_segment_table *table)
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
	memset(&table->totals_before, 0, sizeof table->totals_before);
	table->nr_segments = table->live_blocks = table->hidden_blocks = 0;
	table->to_announce.nr = table->to_journal.nr = table->ended.nr = 0;
	table->end_due.nr = table->cleaned.nr = 0;
	table->cut_marks = 1;		/* what was loaded has 0: it may be synced */
	table->contradicted = false;
}

void mls_segment_table_listener(struct mls_segment_table *table, struct mls_lsm_listener *listener,
				int (*before_commit)(void *arg), void *arg)
{
	table->before_commit = before_commit;
	table->before_commit_arg = arg;
	*listener = (struct mls_lsm_listener){
		.born = on_born,
		.died = on_died,
		.tx_begin = mls_seg_tx_begin,
		.tx_added = mls_seg_tx_added,
		.tx_dropped = mls_seg_tx_dropped,
		.tx_prepare = mls_seg_tx_prepare,
		.tx_done = mls_seg_tx_done,
		.shadowed = on_shadowed,
		.announced = mls_seg_announced,
		.arg = table,
	};
}

void mls_segment_table_count(struct mls_segment_table *table, void (*now)(void *arg, struct mls_totals *totals),
			     void *arg)
{
	table->totals_now = now;
	table->totals_arg = arg;
}

int mls_segment_table_new(struct mls_segment_table **out, struct mls_chunk_alloc *alloc,
			  struct mls_journal *journal, const struct mls_keyring *keys, uint64_t max_runs)
{
	struct mls_segment_table *table = calloc(1, sizeof *table);
	struct mls_edit_owner owner = mls_seg_edit_owner;

	if (!table)
		return MLS_ENOMEM;
	owner.arg = table;
	table->alloc = alloc;
	table->keys = keys;
	table->nr_runs = mls_chunk_alloc_nr_runs(alloc);
	/* All at once, so that no entry ever moves; memory is taken when one is touched. */
	table->max_runs = max_runs;
	table->entries = calloc(max_runs, sizeof *table->entries);
	if (!table->entries || mls_dead_slots_init(&table->dead, max_runs, mls_chunk_alloc_run_blocks(alloc))) {
		free(table->entries);
		free(table);
		return MLS_ENOMEM;
	}
	table->next_birth = table->next_key_id = table->cut_marks = 1;
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
	mls_seg_entries_reset(table);
	free(table->to_announce.at);
	free(table->to_journal.at);
	free(table->ended.at);
	free(table->end_due.at);
	free(table->cleaned.at);
	free(table->entries);
	mls_dead_slots_release(&table->dead);
	pthread_mutex_destroy(&table->lock);
	free(table);
}
