/* SPDX-License-Identifier: MPL-2.0 */
/*
 * salvage.c - everything that still authenticates, into a raw image; see salvage.h.
 *
 * With an index this is pass 6 with a sink. Without one, LBAs are done in windows: a walk over all lives
 * (a segment's summary, or what the WAL says of a segment that has none) finds, for each LBA of the
 * window, its newest version (births that a crash took back are given again: of equal ones the later epoch
 * counts). A second walk reads the lives' blocks, segment by segment, and writes out those that won and
 * authenticate. A version that won and doesn't authenticate is lost: an older one must
 * not take its place.
 */
#include "check/salvage.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "1-crypto/crypto_chain.h"
#include "5-disk/location.h"
#include "5-disk/seg_edit.h"
#include "base/buf.h"
#include "base/checked.h"
#include "check/inspect_internal.h"

#define WINDOW_LBAS (UINT64_C(4) << 20)		/* 96 MiB of table */

/* ---- Lost and saved ---- */

int mls_salvage_lose(struct mls_salvage *s, uint64_t lba, uint64_t nr_lbas, enum mls_finding_code why)
{
	struct mls_lost_range *last = s->nr_ranges ? &s->lost[s->nr_ranges - 1] : NULL, *lost = s->lost;

	if (last && last->why == why && last->lba + last->nr_lbas == lba) {
		last->nr_lbas += nr_lbas;
		return 0;
	}
	if ((s->nr_ranges & (s->nr_ranges - 1)) == 0)
		lost = realloc(lost, (s->nr_ranges ? s->nr_ranges * 2 : 1) * sizeof *lost);
	if (!lost)
		return MLS_ENOMEM;
	s->lost = lost;
	lost[s->nr_ranges++] = (struct mls_lost_range){ lba, nr_lbas, why };
	return 0;
}

static bool is_zero(const uint8_t *block)
{
	return block[0] == 0 && memcmp(block, block + 1, MLS_BLOCK_BYTES - 1) == 0;
}

static int save(struct mls_salvage *s, uint64_t lba, const void *block)
{
	ssize_t n = MLS_BLOCK_BYTES;

	if (!is_zero(block))
		n = pwrite(s->image_fd, block, MLS_BLOCK_BYTES, (off_t)(lba * MLS_BLOCK_BYTES));
	return n == MLS_BLOCK_BYTES ? 0 : MLS_EIO;
}

static int by_lba(const void *a, const void *b)
{
	const struct mls_lost_range *left = a, *right = b;

	return left->lba < right->lba ? -1 : left->lba > right->lba;
}

/* In order of LBA, disjoint; and count. */
static void settle_lost(struct mls_salvage *s)
{
	size_t nr = 0;

	if (s->nr_ranges)
		qsort(s->lost, s->nr_ranges, sizeof *s->lost, by_lba);
	for (size_t i = 0; i < s->nr_ranges; i++) {
		struct mls_lost_range range = s->lost[i], *last = nr ? &s->lost[nr - 1] : NULL;
		uint64_t end = range.lba + range.nr_lbas;

		if (last && range.lba <= last->lba + last->nr_lbas && (range.why == last->why ||
								       range.lba < last->lba + last->nr_lbas))
			last->nr_lbas = mls_max_u64(last->nr_lbas, end - last->lba);
		else
			s->lost[nr++] = range;
	}
	s->nr_ranges = nr;
	s->nr_lost = 0;
	for (size_t i = 0; i < nr; i++)
		s->nr_lost += s->lost[i].nr_lbas;
}

void mls_salvage_release(struct mls_salvage *s)
{
	free(s->lost);
	s->lost = NULL;
	s->nr_ranges = 0;
}

/* ---- With an index ---- */

struct indexed {
	struct mls_salvage *s;
	pthread_mutex_t lock;
};

static int sink(void *arg, uint64_t lba, const void *block)
{
	struct indexed *indexed = arg;
	int err = block ? save(indexed->s, lba, block) : 0;

	pthread_mutex_lock(&indexed->lock);
	if (block)
		indexed->s->nr_saved++;
	else
		err = mls_salvage_lose(indexed->s, lba, 1, MLS_FOUND_DATA_DAMAGED);
	pthread_mutex_unlock(&indexed->lock);
	return err;
}

static int run_indexed(struct mls_salvage *s)
{
	struct indexed indexed = { .s = s };
	bool was_damaged = s->x->index_damaged;
	int err;

	pthread_mutex_init(&indexed.lock, NULL);
	err = mls_inspect_check_data(s->x, sink, &indexed, s->progress, s->progress_arg);
	pthread_mutex_destroy(&indexed.lock);
	/* The index could be read when it was checked, and not now: nobody knows which LBAs are missing. */
	if (!err && s->x->index_damaged && !was_damaged)
		err = mls_salvage_lose(s, 0, s->x->sb.geo.disk_blocks, MLS_FOUND_LOG_UNREADABLE);
	return err;
}

/* ---- Without: lives ---- */

/* What the WAL says of a segment: its life, its key, and the slots that records name. */
struct wal_life {
	uint64_t run, birth;
	uint32_t key_id;
	struct mls_seg_slot *slots;		/* nr_slots; lba MLS_LBA_NONE: no record */
};

struct wal_key {
	uint32_t id;
	uint8_t salt[MLS_SALT_BYTES];
};

struct rescue {
	struct mls_salvage *s;
	struct mls_inspect *x;
	struct wal_life *lives;
	size_t nr_lives;
	struct wal_key *wal_keys;
	size_t nr_wal_keys;
	struct mls_data_key *keys;		/* by salt, as met */

	struct winner {
		uint64_t birth, epoch;		/* birth 0: no version */
		uint64_t loc;
	} *winners;				/* of the window */
	uint64_t first_lba, nr_lbas;
	struct mls_seg_summary summary;	/* of the life that is being looked at */
	uint8_t *blocks;			/* run_blocks */
};

static struct wal_life *life_of(struct rescue *r, uint64_t run)
{
	for (size_t i = r->nr_lives; i-- > 0;)		/* the one announced last counts */
		if (r->lives[i].run == run)
			return &r->lives[i];
	return NULL;
}

static int add_life(struct rescue *r, const struct mls_seg_edit *edit)
{
	struct wal_life *lives, life = { .run = edit->run, .birth = edit->birth, .key_id = edit->key_id };

	if (edit->run >= r->x->nr_runs || (life_of(r, edit->run) && life_of(r, edit->run)->birth == edit->birth))
		return 0;
	lives = realloc(r->lives, (r->nr_lives + 1) * sizeof *lives);
	if (!lives)
		return MLS_ENOMEM;
	r->lives = lives;
	life.slots = malloc(r->x->nr_slots * sizeof *life.slots);
	if (!life.slots)
		return MLS_ENOMEM;
	memset(life.slots, 0xff, r->x->nr_slots * sizeof *life.slots);
	lives[r->nr_lives++] = life;
	return 0;
}

static int add_wal_key(struct rescue *r, const struct mls_seg_edit *edit)
{
	struct wal_key *keys = realloc(r->wal_keys, (r->nr_wal_keys + 1) * sizeof *keys);

	if (!keys)
		return MLS_ENOMEM;
	r->wal_keys = keys;
	keys[r->nr_wal_keys].id = edit->key_id;
	memcpy(keys[r->nr_wal_keys++].salt, edit->salt, MLS_SALT_BYTES);
	return 0;
}

static void add_record(struct rescue *r, const struct mls_index_rec *rec)
{
	struct mls_place place = mls_inspect_place(r->x, mls_loc_hba(rec->hba));
	struct wal_life *life;

	if (rec->hba == MLS_HBA_NONE || place.kind != MLS_PLACE_RUN || place.pos >= r->x->nr_slots)
		return;
	life = life_of(r, place.index);
	if (!life || !mls_loc_is_of(rec->hba, life->birth))
		return;
	life->slots[place.pos].lba = rec->lba;
	memcpy(life->slots[place.pos].tag, rec->tag, MLS_TAG_BYTES);
}

static int take_wal_group(struct rescue *r, const struct mls_wal_group *group)
{
	const uint8_t *at = group->announce;
	size_t left = group->announce_bytes;
	int err = 0;

	while (left > 0 && !err) {
		size_t bytes = mls_seg_edit_bytes(at[0]);
		struct mls_seg_edit edit;

		if (bytes == 0 || bytes > left || mls_seg_edit_decode(&edit, at, bytes))
			break;
		if (edit.type == MLS_SEG_EDIT_KEY)
			err = add_wal_key(r, &edit);
		else if (edit.type == MLS_SEG_EDIT_ADD)
			err = add_life(r, &edit);
		at += bytes;
		left -= bytes;
	}
	for (size_t i = 0; i < group->nr_recs && !err; i++)
		add_record(r, &group->recs[i]);
	return err;
}

/* Groups from this block on, as far as the chain goes. *next_seq: behind the last one. */
static int read_chain(struct rescue *r, const struct mls_block_ring *ring, const struct mls_chain_pos *from,
		      uint64_t *next_seq)
{
	struct mls_chain_reader *reader;
	const uint8_t *bytes;
	size_t nr_bytes;
	int err = mls_chain_reader_new(&reader, ring, r->x->keys, MLS_WAL_LABEL, from);

	if (err)
		return err;
	while ((err = mls_chain_reader_next(reader, &bytes, &nr_bytes)) == 0) {
		struct mls_wal_group group = MLS_WAL_GROUP_INIT;

		*next_seq = mls_chain_reader_pos(reader)->seq;
		err = mls_wal_group_decode(&group, bytes, nr_bytes, mls_chain_reader_pos(reader)->tag);
		if (!err)
			err = take_wal_group(r, &group);
		mls_wal_group_release(&group);
		if (err)
			break;
	}
	mls_chain_reader_free(reader);
	return err == MLS_ENOMEM ? err : 0;
}

struct wal_block {
	struct mls_chain_pos pos;	/* of the block, and the tag of the one before */
};

static int by_seq(const void *a, const void *b)
{
	const struct wal_block *left = a, *right = b;

	return left->pos.seq < right->pos.seq ? -1 : left->pos.seq > right->pos.seq;
}

/* Without a journal nobody says where the WAL starts: any first block of a group may be a start. */
static int read_wal(struct rescue *r)
{
	struct wal_block *firsts = calloc(r->x->wal_blocks, sizeof *firsts);
	uint8_t *block = mls_blocks_alloc(1);
	const struct mls_chain_hdr_disk *hdr = (const void *)block;
	struct mls_block_ring ring;
	uint64_t next_seq = 0;
	size_t nr = 0;
	int err = firsts && block ? 0 : MLS_ENOMEM;

	for (uint64_t i = 0; i < r->x->wal_blocks && !err; i++) {
		if (mls_block_dev_read(r->x->dev, r->x->wal_hba + i, 1, block) ||
		    !(hdr->flags & MLS_CHAIN_FLAG_FIRST) || mls_get_le64(hdr->seq) % r->x->wal_blocks != i)
			continue;
		firsts[nr].pos.seq = mls_get_le64(hdr->seq);
		memcpy(firsts[nr++].pos.tag, hdr->prev_tag, MLS_TAG_BYTES);
	}
	if (!err && nr)
		qsort(firsts, nr, sizeof *firsts, by_seq);
	if (!err && mls_block_ring_init(&ring, r->x->dev, r->x->wal_hba, r->x->wal_blocks) == 0)
		for (size_t i = 0; i < nr && !err; i++)
			if (firsts[i].pos.seq >= next_seq)
				err = read_chain(r, &ring, &firsts[i].pos, &next_seq);
	mls_blocks_free(block);
	free(firsts);
	return err;
}

/* ---- The life of a run, into r->summary ---- */

static const uint8_t *wal_salt(const struct rescue *r, uint32_t id)
{
	for (size_t i = r->nr_wal_keys; i-- > 0;)
		if (r->wal_keys[i].id == id)
			return r->wal_keys[i].salt;
	return NULL;
}

/* MLS_ENOENT: nothing is known of the run. */
static int look_at_life(struct rescue *r, uint64_t run)
{
	struct wal_life *life = life_of(r, run);
	const uint8_t *salt = life ? wal_salt(r, life->key_id) : NULL;
	int err = mls_inspect_summary(r->x, run, &r->summary);

	if (err == MLS_ENOMEM || (err && !salt))
		return err == MLS_ENOMEM ? err : MLS_ENOENT;
	if (err == 0 && (!salt || life->birth < r->summary.birth ||
			 (life->birth == r->summary.birth && memcmp(salt, r->summary.key_salt, MLS_SALT_BYTES) == 0)))
		return 0;
	r->summary.run = run;
	r->summary.birth = life->birth;
	r->summary.epoch = UINT64_MAX;		/* synced: the WAL has it */
	r->summary.nr_slots = r->x->nr_slots;
	memcpy(r->summary.key_salt, salt, MLS_SALT_BYTES);
	memcpy(r->summary.slots, life->slots, r->x->nr_slots * sizeof *life->slots);
	return 0;
}

static struct winner *winner_of(struct rescue *r, uint32_t slot)
{
	uint64_t lba = r->summary.slots[slot].lba;

	if (lba < r->first_lba || lba - r->first_lba >= r->nr_lbas)
		return NULL;
	return &r->winners[lba - r->first_lba];
}

static uint64_t loc_of(const struct rescue *r, uint32_t slot)
{
	return mls_loc_make(mls_inspect_run_hba(r->x, r->summary.run) + slot, r->summary.birth);
}

/* Slots of one life come in order. */
static int compete(struct rescue *r)
{
	const struct mls_seg_summary *life = &r->summary;

	for (uint32_t slot = 0; slot < life->nr_slots; slot++) {
		struct winner *winner = winner_of(r, slot);

		if (winner && (life->birth > winner->birth ||
			       (life->birth == winner->birth && life->epoch >= winner->epoch)))
			*winner = (struct winner){ life->birth, life->epoch, loc_of(r, slot) };
	}
	return 0;
}

static bool has_won(struct rescue *r, uint32_t slot)
{
	const struct winner *winner = winner_of(r, slot);

	return winner && winner->loc == loc_of(r, slot);
}

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

static int save_winners(struct rescue *r)
{
	uint64_t hba = mls_inspect_run_hba(r->x, r->summary.run);
	bool any = false, whole;
	struct mls_data_key *key;
	int err = key_for(r, &key);

	for (uint32_t slot = 0; slot < r->summary.nr_slots && !any; slot++)
		any = has_won(r, slot);
	if (err || !any)
		return err;
	whole = mls_block_dev_read(r->x->dev, hba, r->summary.nr_slots, r->blocks) == 0;
	for (uint32_t slot = 0; slot < r->summary.nr_slots && !err; slot++) {
		const struct mls_seg_slot *noted = &r->summary.slots[slot];
		uint8_t *block = mls_block_at(r->blocks, slot);
		int one;

		if (!has_won(r, slot))
			continue;
		one = whole ? 0 : mls_block_dev_read(r->x->dev, hba + slot, 1, block);
		if (!one)
			one = mls_data_open(key, r->summary.birth, slot, noted->lba, block, block, noted->tag);
		if (one == 0)
			err = save(r->s, noted->lba, block);
		else
			err = mls_salvage_lose(r->s, noted->lba, 1,
					       one == MLS_EAUTH ? MLS_FOUND_DATA_DAMAGED : MLS_FOUND_DATA_UNREADABLE);
		r->s->nr_saved += one == 0;
	}
	return err;
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
			r->s->progress(r->s->progress_arg, 6, run, r->x->nr_runs);
	}
	return err;
}

static int do_windows(struct rescue *r)
{
	uint64_t disk_blocks = r->x->sb.geo.disk_blocks;
	int err = 0;

	for (r->first_lba = 0; r->first_lba < disk_blocks && !err; r->first_lba += r->nr_lbas) {
		r->nr_lbas = mls_min_u64(WINDOW_LBAS, disk_blocks - r->first_lba);
		memset(r->winners, 0, r->nr_lbas * sizeof *r->winners);
		err = each_life(r, compete);
		if (!err)
			err = each_life(r, save_winners);
	}
	return err;
}

static int run_from_summaries(struct mls_salvage *s)
{
	struct rescue r = { .s = s, .x = s->x };
	int err;

	s->from_summaries = true;
	r.summary.slots = calloc(s->x->nr_slots, sizeof *r.summary.slots);
	r.blocks = mls_blocks_alloc(s->x->run_blocks);
	r.winners = malloc(mls_min_u64(WINDOW_LBAS, s->x->sb.geo.disk_blocks) * sizeof *r.winners);
	err = r.summary.slots && r.blocks && r.winners ? read_wal(&r) : MLS_ENOMEM;
	if (!err)
		err = do_windows(&r);
	for (size_t i = 0; i < r.nr_lives; i++)
		free(r.lives[i].slots);
	while (r.keys) {
		struct mls_data_key *key = r.keys;

		r.keys = key->next;
		mls_data_key_put(key);
	}
	if (r.blocks)
		mls_wipe(r.blocks, (size_t)s->x->run_blocks * MLS_BLOCK_BYTES);
	mls_blocks_free(r.blocks);
	free(r.lives);
	free(r.wal_keys);
	free(r.winners);
	free(r.summary.slots);
	return err;
}

int mls_salvage_run(struct mls_salvage *s)
{
	int err = s->x->consistent ? run_indexed(s) : run_from_summaries(s);

	settle_lost(s);
	return err;
}
