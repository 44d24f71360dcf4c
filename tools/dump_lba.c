/* SPDX-License-Identifier: MPL-2.0 */
/*
 * dump_lba.c - section lba: the whole story of one block.
 *
 * Versions come from two sides: the records of the index, newest first, and the summaries of segments,
 * of lives that have ended, too, which still tell what lies in runs that nobody has used again. A
 * summary's version that a record knows is the same one, and told once.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "0-bio/block_dev.h"
#include "5-disk/location.h"
#include "base/buf.h"
#include "cli/cli.h"
#include "tools/dump.h"

struct version {
	struct mls_inspect_rec found;	/* of a summary: rec only */
	bool of_summary;
	uint64_t birth;			/* of a summary */
	struct mls_write_order order;	/* of a summary */
	uint8_t key_salt[MLS_SALT_BYTES];
	int err;			/* of reading its block; MLS_ENOENT: not there any more */
};

struct story {
	struct dump *d;
	uint64_t lba;
	struct version *versions;
	size_t nr, room, nr_records;	/* records come first */
	uint8_t *block, *plain;		/* a block each; plain: what the LBA reads now */
	bool has_plain;
};

static struct version *add_version(struct story *s)
{
	struct version *grown;

	if (s->nr == s->room) {
		grown = realloc(s->versions, (s->room + 16) * sizeof *grown);
		if (!grown)
			return NULL;
		s->versions = grown;
		s->room += 16;
	}
	s->versions[s->nr] = (struct version){ .err = MLS_ENOENT };
	return &s->versions[s->nr++];
}

/* ---- From the index ---- */

static int add_record(void *arg, const struct mls_inspect_rec *rec)
{
	struct story *s = arg;
	struct version *v = add_version(s);

	if (!v)
		return MLS_ENOMEM;
	v->found = *rec;
	s->nr_records = s->nr;
	return 0;
}

static void report_damage(struct story *s, const struct version *v)
{
	struct mls_finding finding = mls_finding_init(v->err == MLS_EAUTH  ? MLS_FOUND_DATA_DAMAGED :
						      v->err == MLS_ENOENT ? MLS_FOUND_LBA_DEAD :
									     MLS_FOUND_DATA_UNREADABLE);

	finding.hba = mls_loc_hba(v->found.rec.hba);
	finding.lba = s->lba;
	finding.nr_blocks = finding.nr_lbas = 1;
	s->d->x->report(s->d->x->report_arg, &finding);
}

static int read_records(struct story *s)
{
	for (size_t i = 0; i < s->nr_records; i++) {
		struct version *v = &s->versions[i];

		if (v->found.rec.hba == MLS_HBA_NONE)
			continue;
		v->err = mls_inspect_read(s->d->x, &v->found.rec, s->block);
		if (v->err == MLS_ENOMEM)
			return v->err;
		if (!v->found.newest)
			continue;
		if (v->err)
			report_damage(s, v);
		s->has_plain = v->err == 0;
		if (s->has_plain)
			memcpy(s->plain, s->block, MLS_BLOCK_BYTES);
	}
	return 0;
}

/* ---- From the summaries ---- */

static bool known(const struct story *s, uint64_t loc, const uint8_t tag[MLS_TAG_BYTES])
{
	for (size_t i = 0; i < s->nr_records; i++)
		if (s->versions[i].found.rec.hba == loc &&
		    memcmp(s->versions[i].found.rec.tag, tag, MLS_TAG_BYTES) == 0)
			return true;
	return false;
}

/* A life that has ended: the journal doesn't know its key any more, but the summary does. */
static int read_by_summary(struct story *s, struct version *v, uint32_t slot)
{
	struct mls_data_key *key;
	int err = mls_data_key_new(&key, s->d->x->keys, 0, v->key_salt);

	if (err)
		return err;
	err = mls_block_dev_read(s->d->x->dev, mls_loc_hba(v->found.rec.hba), 1, s->block);
	if (!err)
		err = mls_data_open(key, v->birth, slot, s->lba, s->block, s->block, v->found.rec.tag);
	mls_data_key_put(key);
	return err;
}

static int add_slots(struct story *s, const struct mls_seg_summary *summary)
{
	for (uint32_t slot = 0; slot < summary->nr_slots; slot++) {
		uint64_t hba = mls_inspect_run_hba(s->d->x, summary->run) + slot;
		uint64_t loc = mls_loc_make(hba, summary->birth);
		struct version *v;

		if (summary->slots[slot].lba != s->lba || known(s, loc, summary->slots[slot].tag))
			continue;
		v = add_version(s);
		if (!v)
			return MLS_ENOMEM;
		v->of_summary = true;
		v->found.rec = (struct mls_index_rec){ .lba = s->lba, .hba = loc };
		memcpy(v->found.rec.tag, summary->slots[slot].tag, MLS_TAG_BYTES);
		memcpy(v->key_salt, summary->key_salt, MLS_SALT_BYTES);
		v->birth = summary->birth;
		v->order = summary->slots[slot].order;
		v->err = read_by_summary(s, v, slot);
		if (v->err == MLS_ENOMEM)
			return v->err;
	}
	return 0;
}

static int newer_first(const void *a, const void *b)
{
	const struct version *x = a, *y = b;

	if (mls_order_before(&x->order, &y->order) || mls_order_before(&y->order, &x->order))
		return mls_order_before(&x->order, &y->order) ? 1 : -1;
	return (x->found.rec.hba < y->found.rec.hba) - (x->found.rec.hba > y->found.rec.hba);
}

static int search_summaries(struct story *s)
{
	struct mls_inspect *x = s->d->x;
	struct mls_seg_summary summary = { .slots = calloc(x->nr_slots, sizeof *summary.slots) };
	int err = summary.slots ? 0 : MLS_ENOMEM;

	for (uint64_t run = 0; run < x->nr_runs && !err; run++) {
		if (x->runs[run].kind == MLS_RUN_CHUNK)
			continue;
		err = mls_inspect_summary(x, run, &summary);
		if (!err)
			err = add_slots(s, &summary);
		else if (err == MLS_ENOENT || err == MLS_EIO || err == MLS_EAUTH)
			err = 0;
	}
	free(summary.slots);
	if (s->nr > s->nr_records)
		qsort(s->versions + s->nr_records, s->nr - s->nr_records, sizeof *s->versions, newer_first);
	return err;
}

/* ---- Telling ---- */

static const char *version_state(const struct version *v)
{
	if (v->of_summary)
		return "forgotten";
	if (!v->found.accepted)
		return "dropped";
	if (!v->found.newest)
		return v->found.doubtful ? "doubtful" : "superseded";
	return v->found.rec.hba == MLS_HBA_NONE ? "discarded" : "current";
}

static const char *block_state(const struct version *v)
{
	if (v->found.rec.hba == MLS_HBA_NONE)
		return NULL;
	switch (v->err) {
	case MLS_OK:
		return "authentic";
	case MLS_EAUTH:
		return v->of_summary ? "overwritten" : "damaged";
	case MLS_ENOENT:
		return "life ended";
	default:
		return "unreadable";
	}
}

/* Where the record itself is. */
static void print_source(struct story *s, const struct version *v)
{
	const struct mls_inspect *x = s->d->x;
	const struct mls_inspect_group *group = v->found.group < 0 ? NULL : &x->groups[v->found.group];
	bool wal = !v->of_summary && group;
	const struct mls_table_meta *table = v->of_summary || wal ? NULL : v->found.table;

	out_text(s->d->out, "source", v->of_summary ? "summary" : wal ? "wal" : "sstable");
	out_number_if(s->d->out, "sync_id", wal, wal ? group->group.head.sync_id : 0);
	out_number_if(s->d->out, "wal_hba", wal, wal ? x->wal_hba + group->seq % x->wal_blocks : 0);
	out_number_if(s->d->out, "epoch", v->of_summary || table, table ? table->epoch : v->order.epoch);
	out_number_if(s->d->out, "log", table, table ? table->info.log_id : 0);
	out_number_if(s->d->out, "level", table, table ? table->level : 0);
}

static void print_version(struct story *s, const struct version *v)
{
	struct dump_out *o = s->d->out;
	uint64_t loc = v->found.rec.hba;
	struct mls_place place = mls_inspect_place(s->d->x, mls_loc_hba(loc));
	bool in_run = loc != MLS_HBA_NONE && place.kind == MLS_PLACE_RUN;

	out_row(o);
	out_text(o, "state", version_state(v));
	print_source(s, v);
	out_number_if(o, "hba", loc != MLS_HBA_NONE, mls_loc_hba(loc));
	out_number_if(o, "run", in_run, place.index);
	out_number_if(o, "slot", in_run, place.pos);
	out_number_if(o, "birth", loc != MLS_HBA_NONE, loc >> MLS_LOC_HBA_BITS);
	out_text(o, "block", block_state(v));
	if (loc != MLS_HBA_NONE)
		out_hex(o, "tag", v->found.rec.tag, MLS_TAG_BYTES);
	else
		out_none(o, "tag");
	out_row_end(o);
}

static const char *reads_as(const struct story *s)
{
	if (s->d->x->area < 0)
		return NULL;
	for (size_t i = 0; i < s->nr_records; i++) {
		const struct version *v = &s->versions[i];

		if (!v->found.newest)
			continue;
		if (v->found.rec.hba == MLS_HBA_NONE)
			return "zeros, discarded";
		return v->err ? "an error" : "data";
	}
	return s->d->x->index_damaged ? "an error" : "zeros, never written";
}

static void tell(struct story *s)
{
	static const struct out_column columns[] = {
		{ "state", -10 }, { "source", -7 }, { "sync_id", 8 }, { "wal_hba", 8 }, { "epoch", 8 },
		{ "log", 7 }, { "level", 5 }, { "hba", 10 }, { "run", 7 }, { "slot", 4 }, { "birth", 8 },
		{ "block", -11 },
		{ "tag", -32 },
	};
	struct dump_out *o = s->d->out;

	out_object(o, "lba");
	out_number(o, "lba", s->lba);
	out_number(o, "offset_bytes", s->lba * MLS_BLOCK_BYTES);
	out_text(o, "reads_as", reads_as(s));
	out_table(o, "versions", columns, NR_COLUMNS(columns));
	for (size_t i = 0; i < s->nr; i++)
		print_version(s, &s->versions[i]);
	out_table_end(o);
	if (s->d->data && s->has_plain)
		out_data(o, "data", s->plain, MLS_BLOCK_BYTES);
	out_object_end(o);
}

uint64_t dump_lba_limit(const struct mls_inspect *x)
{
	return x->has_sb ? x->sb.geo.disk_blocks : UINT64_MAX;
}

int dump_lba(struct dump *d)
{
	struct story story = { .d = d, .lba = d->arg };
	int err;

	if (d->x->area < 0) {
		mls_cli_warn("without key and journal nobody can say where LBA %" PRIu64 " is", d->arg);
		tell(&story);
		return 0;
	}
	story.block = mls_blocks_zalloc(1);
	story.plain = mls_blocks_zalloc(1);
	err = story.block && story.plain ? 0 : MLS_ENOMEM;
	if (!err)
		err = mls_inspect_records(d->x, d->arg, d->arg + 1, add_record, &story);
	if (!err)
		err = read_records(&story);
	if (!err)
		err = search_summaries(&story);
	if (!err)
		tell(&story);
	if (story.block)
		mls_wipe(story.block, MLS_BLOCK_BYTES);
	if (story.plain)
		mls_wipe(story.plain, MLS_BLOCK_BYTES);
	mls_blocks_free(story.block);
	mls_blocks_free(story.plain);
	free(story.versions);
	return err;
}
