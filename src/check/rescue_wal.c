/* SPDX-License-Identifier: MPL-2.0 */
/*
 * rescue_wal.c - the WAL without a journal; see rescue_wal.h.
 *
 * Without a journal nobody says where the WAL starts: any first block of a group may be a start. Chains are
 * followed from each that no chain before has passed, in order of seq.
 */
#include "check/rescue_wal.h"

#include <stdlib.h>
#include <string.h>

#include "1-crypto/crypto_chain.h"
#include "5-disk/location.h"
#include "5-disk/seg_edit.h"
#include "base/buf.h"
#include "base/checked.h"
#include "check/inspect_internal.h"

/* at, with room for one more element of bytes; NULL: no memory. Grows by doubling. */
static void *room_for_one(void *at, size_t nr, size_t bytes)
{
	if (nr > 0 && (nr & (nr - 1)) != 0)
		return at;
	return realloc(at, (nr ? nr * 2 : 1) * bytes);
}

/* ---- Sessions ---- */

int rescue_wal_add_session(struct rescue_wal *w, uint64_t session)
{
	uint64_t *sessions;

	if (w->nr_sessions && w->sessions[w->nr_sessions - 1] == session)
		return 0;
	sessions = room_for_one(w->sessions, w->nr_sessions, sizeof *sessions);
	if (!sessions)
		return MLS_ENOMEM;
	w->sessions = sessions;
	sessions[w->nr_sessions++] = session;
	return 0;
}

static int by_number(const void *a, const void *b)
{
	const uint64_t *left = a, *right = b;

	return *left < *right ? -1 : *left > *right;
}

void rescue_wal_sort_sessions(struct rescue_wal *w)
{
	if (w->nr_sessions)
		qsort(w->sessions, w->nr_sessions, sizeof *w->sessions, by_number);
}

bool rescue_wal_undone(const struct rescue_wal *w, uint64_t session, uint64_t epoch)
{
	size_t low = 0, high = w->nr_sessions;

	while (low < high) {		/* the first session behind */
		size_t mid = low + (high - low) / 2;

		if (w->sessions[mid] <= session)
			low = mid + 1;
		else
			high = mid;
	}
	return low < w->nr_sessions && w->sessions[low] <= epoch;
}

/* ---- Groups ---- */

static struct rescue_life *life_of(const struct rescue_wal *w, uint64_t run)
{
	return w->last_life[run] ? &w->lives[w->last_life[run] - 1] : NULL;
}

static int add_life(struct rescue_wal *w, const struct mls_seg_edit *edit)
{
	struct rescue_life *lives, life = { .run = edit->run, .birth = edit->birth, .key_id = edit->key_id };

	if (edit->run >= w->x->nr_runs || (life_of(w, edit->run) && life_of(w, edit->run)->birth == edit->birth))
		return 0;
	lives = room_for_one(w->lives, w->nr_lives, sizeof *lives);
	if (!lives)
		return MLS_ENOMEM;
	w->lives = lives;
	life.slots = malloc(w->x->nr_slots * sizeof *life.slots);
	if (!life.slots)
		return MLS_ENOMEM;
	for (uint32_t i = 0; i < w->x->nr_slots; i++)
		life.slots[i].lba = MLS_SLOT_VOID;
	life.session = w->session_now;
	lives[w->nr_lives++] = life;
	w->last_life[edit->run] = w->nr_lives;
	return 0;
}

static int add_key(struct rescue_wal *w, const struct mls_seg_edit *edit)
{
	void *keys = room_for_one(w->keys, w->nr_keys, sizeof *w->keys);

	if (!keys)
		return MLS_ENOMEM;
	w->keys = keys;
	w->keys[w->nr_keys].id = edit->key_id;
	memcpy(w->keys[w->nr_keys++].salt, edit->salt, MLS_SALT_BYTES);
	return 0;
}

static int add_record(struct rescue_wal *w, const struct mls_index_rec *rec, uint64_t sync_id)
{
	struct mls_place place = mls_inspect_place(w->x, mls_loc_hba(rec->hba));
	struct rescue_note *notes = room_for_one(w->notes, w->nr_notes, sizeof *notes);
	struct rescue_life *life;

	if (!notes)
		return MLS_ENOMEM;
	w->notes = notes;
	notes[w->nr_notes++] = (struct rescue_note){ rec->lba, rec->hba, sync_id };
	if (rec->hba == MLS_HBA_NONE || place.kind != MLS_PLACE_RUN || place.pos >= w->x->nr_slots)
		return 0;
	life = life_of(w, place.index);
	if (!life || !mls_loc_is_of(rec->hba, life->birth))
		return 0;
	life->slots[place.pos].lba = rec->lba;
	life->slots[place.pos].order = (struct mls_write_order){ sync_id, UINT64_MAX };
	memcpy(life->slots[place.pos].tag, rec->tag, MLS_TAG_BYTES);
	return 0;
}

static int take_group(struct rescue_wal *w, const struct mls_wal_group *group)
{
	const uint8_t *at = group->announce;
	size_t left = group->announce_bytes;
	int err = 0;

	w->newest = mls_max_u64(w->newest, group->head.sync_id);
	if (group->flags & MLS_WAL_FLAG_OPEN) {
		err = rescue_wal_add_session(w, group->head.sync_id);
		w->session_now++;
	}
	if (w->sessions_only)
		return err;
	while (left > 0 && !err) {
		size_t bytes = mls_seg_edit_bytes(at[0]);
		struct mls_seg_edit edit;

		if (bytes == 0 || bytes > left || mls_seg_edit_decode(&edit, at, bytes))
			break;
		if (edit.type == MLS_SEG_EDIT_KEY)
			err = add_key(w, &edit);
		else if (edit.type == MLS_SEG_EDIT_ADD)
			err = add_life(w, &edit);
		at += bytes;
		left -= bytes;
	}
	for (size_t i = 0; i < group->nr_recs && !err; i++)
		err = add_record(w, &group->recs[i], group->head.sync_id);
	return err;
}

/* ---- The ring ---- */

/* Groups from this block on, as far as the chain goes. *next_seq: behind the last one. */
static int read_chain(struct rescue_wal *w, const struct mls_block_ring *ring, const struct mls_chain_pos *from,
		      uint64_t *next_seq)
{
	struct mls_chain_reader *reader;
	const uint8_t *bytes;
	size_t nr_bytes;
	int err = mls_chain_reader_new(&reader, ring, w->x->keys, MLS_WAL_LABEL, from);

	if (err)
		return err;
	while ((err = mls_chain_reader_next(reader, &bytes, &nr_bytes)) == 0) {
		struct mls_wal_group group = MLS_WAL_GROUP_INIT;

		*next_seq = mls_chain_reader_pos(reader)->seq;
		err = mls_wal_group_decode(&group, bytes, nr_bytes, mls_chain_reader_pos(reader)->tag);
		if (!err)
			err = take_group(w, &group);
		mls_wal_group_release(&group);
		if (!err && mls_inspect_stopped(w->x))
			err = MLS_EABORTED;
		if (err)
			break;
	}
	mls_chain_reader_free(reader);
	return err == MLS_ENOMEM || err == MLS_EABORTED ? err : 0;
}

static int by_seq(const void *a, const void *b)
{
	const struct mls_chain_pos *left = a, *right = b;

	return left->seq < right->seq ? -1 : left->seq > right->seq;
}

static int read_ring(struct rescue_wal *w)
{
	struct mls_chain_pos *firsts = calloc(w->x->wal_blocks, sizeof *firsts);
	uint8_t *block = mls_blocks_alloc(1);
	const struct mls_chain_hdr_disk *hdr = (const void *)block;
	struct mls_block_ring ring;
	uint64_t next_seq = 0;
	size_t nr = 0;
	int err = firsts && block ? 0 : MLS_ENOMEM;

	for (uint64_t i = 0; i < w->x->wal_blocks && !err; i++) {
		if (mls_block_dev_read(w->x->dev, w->x->wal_hba + i, 1, block) ||
		    !(hdr->flags & MLS_CHAIN_FLAG_FIRST) || mls_get_le64(hdr->seq) % w->x->wal_blocks != i)
			continue;
		firsts[nr].seq = mls_get_le64(hdr->seq);
		memcpy(firsts[nr++].tag, hdr->prev_tag, MLS_TAG_BYTES);
	}
	if (!err && nr)
		qsort(firsts, nr, sizeof *firsts, by_seq);
	if (!err && mls_block_ring_init(&ring, w->x->dev, w->x->wal_hba, w->x->wal_blocks) == 0)
		for (size_t i = 0; i < nr && !err; i++)
			if (firsts[i].seq >= next_seq)
				err = read_chain(w, &ring, &firsts[i], &next_seq);
	mls_blocks_free(block);
	free(firsts);
	return err;
}

static int by_lba(const void *a, const void *b)
{
	const struct rescue_note *left = a, *right = b;

	if (left->lba != right->lba)
		return left->lba < right->lba ? -1 : 1;
	return left->epoch < right->epoch ? -1 : left->epoch > right->epoch;
}

/* Of each LBA the last note. */
static void keep_last_notes(struct rescue_wal *w)
{
	size_t kept = 0;

	if (w->nr_notes)
		qsort(w->notes, w->nr_notes, sizeof *w->notes, by_lba);
	for (size_t i = 0; i < w->nr_notes; i++)
		if (i + 1 == w->nr_notes || w->notes[i + 1].lba != w->notes[i].lba)
			w->notes[kept++] = w->notes[i];
	w->nr_notes = kept;
}

static const struct rescue_note *note_of(const struct rescue_wal *w, uint64_t lba)
{
	size_t low = 0, high = w->nr_notes;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (w->notes[mid].lba < lba)
			low = mid + 1;
		else
			high = mid;
	}
	return low < w->nr_notes && w->notes[low].lba == lba ? &w->notes[low] : NULL;
}

/*
 * A slot whose LBA has a later record is void: the block was overwritten, or moved (its new place knows its
 * true order, which is earlier than that of the group), and the run may be another thing by now.
 */
static void void_outdated(struct rescue_wal *w)
{
	for (uint32_t i = 0; i < w->nr_lives; i++) {
		const struct rescue_life *life = &w->lives[i];
		uint64_t first = mls_inspect_run_hba(w->x, life->run);

		for (uint32_t slot = 0; slot < w->x->nr_slots; slot++) {
			const struct rescue_note *last;

			if (life->slots[slot].lba == MLS_SLOT_VOID)
				continue;
			last = note_of(w, life->slots[slot].lba);
			if (!last || last->loc != mls_loc_make(first + slot, life->birth))
				life->slots[slot].lba = MLS_SLOT_VOID;
		}
	}
}

static void count_later(struct rescue_wal *w)
{
	for (uint32_t i = w->nr_lives; i-- > 1;)
		if (w->lives[i - 1].session == w->lives[i].session)
			w->lives[i - 1].nr_later = w->lives[i].nr_later + 1;
}

int rescue_wal_read(struct rescue_wal *w, struct mls_inspect *x, bool sessions_only)
{
	int err;

	*w = (struct rescue_wal){ .x = x, .sessions_only = sessions_only };
	w->last_life = calloc(x->nr_runs, sizeof *w->last_life);
	err = w->last_life ? read_ring(w) : MLS_ENOMEM;
	keep_last_notes(w);
	void_outdated(w);
	count_later(w);
	return err;
}

void rescue_wal_release(struct rescue_wal *w)
{
	for (uint32_t i = 0; i < w->nr_lives; i++)
		free(w->lives[i].slots);
	free(w->lives);
	free(w->last_life);
	free(w->keys);
	free(w->notes);
	free(w->sessions);
}

/* ---- Asking ---- */

const struct rescue_life *rescue_wal_life(const struct rescue_wal *w, uint64_t run, const uint8_t **salt)
{
	const struct rescue_life *life = life_of(w, run);

	for (size_t i = w->nr_keys; life && i-- > 0;) {	/* of two with one id the later one counts */
		if (w->keys[i].id != life->key_id)
			continue;
		*salt = w->keys[i].salt;
		return life;
	}
	return NULL;
}

uint64_t rescue_wal_buried(const struct rescue_wal *w, uint64_t lba)
{
	const struct rescue_note *last = note_of(w, lba);

	return last && last->loc == MLS_HBA_NONE ? last->epoch : 0;
}
