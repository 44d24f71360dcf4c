/* SPDX-License-Identifier: MPL-2.0 */
/*
 * dump_hba.c - section hba: what a host block is, and who owns it.
 *
 * The place says what kind of block it can be; the journal says who owns the run; the owner's own lists
 * say which part of it this is. Without a key there is only the place, and whether it is zeros.
 */
#include <stdlib.h>
#include <string.h>

#include "0-bio/block_dev.h"
#include "1-crypto/crypto_log_layout.h"
#include "5-disk/location.h"
#include "base/buf.h"
#include "tools/dump.h"

/* ---- Chains ---- */

static void tell_journal(struct dump *d, const struct mls_place *place)
{
	const struct mls_inspect_area *area = &d->x->areas[place->index];

	out_text(d->out, "kind", "journal");
	out_number(d->out, "area", place->index);
	out_number(d->out, "block", place->pos);
	if (!d->x->authentic)
		return;
	out_bool(d->out, "accepted", area->err == 0 && area->accepted);
	out_bool(d->out, "in_use", area->err == 0 && place->pos < area->used_blocks);
}

static const struct mls_inspect_group *group_at(const struct mls_inspect *x, uint64_t pos)
{
	for (size_t i = 0; i < x->nr_groups; i++)
		for (uint64_t k = 0; k < x->groups[i].nr_blocks; k++)
			if ((x->groups[i].seq + k) % x->wal_blocks == pos)
				return &x->groups[i];
	return NULL;
}

static void tell_wal(struct dump *d, const struct mls_place *place)
{
	const struct mls_inspect_group *group = group_at(d->x, place->pos);

	out_text(d->out, "kind", "wal");
	out_number(d->out, "block", place->pos);
	if (!d->x->authentic)
		return;
	out_bool(d->out, "in_use", group != NULL);
	if (!group)
		return;
	out_number(d->out, "sync_id", group->group.head.sync_id);
	out_number(d->out, "first_seq", group->seq);
	out_number(d->out, "records", group->group.nr_recs);
	out_bool(d->out, "accepted", group->accepted);
}

/* ---- Chunks ---- */

/* How many data blocks lie before pos; *is_data: and pos is the next. */
static uint64_t data_before(uint64_t nr_data, uint64_t pos, bool *is_data)
{
	uint64_t low = 0, high = nr_data;

	while (low < high) {
		uint64_t mid = low + (high - low) / 2;

		if (mls_mht_data_pos(mid) < pos)
			low = mid + 1;
		else
			high = mid;
	}
	*is_data = low < nr_data && mls_mht_data_pos(low) == pos;
	return low;
}

static const char *table_part(const struct mls_table_meta *table, uint64_t index, uint64_t nr_data)
{
	if (index < (table->info.nr_records + MLS_SST_RECS_PER_BLOCK - 1) / MLS_SST_RECS_PER_BLOCK)
		return "records";
	return index + 1 == nr_data ? "footer" : "index";
}

static void tell_chunk(struct dump *d, const struct mls_place *place, const struct mls_inspect_run *run)
{
	const struct mls_inspect_log *log = mls_inspect_find_log(d->x, run->log_id);
	uint64_t pos = (uint64_t)run->chunk * d->x->run_blocks + place->pos, index;
	bool is_data;

	out_number(d->out, "log", run->log_id);
	out_number(d->out, "chunk", run->chunk);
	out_number(d->out, "log_position", pos);
	if (!log)
		return;
	out_number_if(d->out, "level", log->table, log->table ? log->table->level : 0);
	if (pos >= mls_crypto_log_total_blocks(log->root.nr_data_blocks)) {
		out_text(d->out, "log_part", "behind the end");
		return;
	}
	index = data_before(log->root.nr_data_blocks, pos, &is_data);
	if (!is_data) {
		out_text(d->out, "log_part", "tree node");
		return;
	}
	out_text(d->out, "log_part",
		 log->table ? table_part(log->table, index, log->root.nr_data_blocks) : "data");
	out_number(d->out, "data_block", index);
}

/* ---- Segments ---- */

struct owner {
	uint64_t hba, lba;
	bool found, current;
	const struct mls_inspect *x;
};

/* Does a record point to the block, in the present life of its run? */
static int look_for_owner(void *arg, const struct mls_inspect_rec *rec)
{
	struct owner *owner = arg;
	uint64_t run;
	uint32_t slot;

	if (mls_loc_hba(rec->rec.hba) != owner->hba ||
	    !mls_inspect_slot_of(owner->x, rec->rec.hba, &run, &slot))
		return 0;
	owner->lba = rec->rec.lba;
	owner->found = true;
	owner->current = owner->current || (rec->newest && rec->accepted);
	return 0;
}

/* The summary knows the LBA; if there is none of this life (open at a crash), ask all records. */
static int find_owner(struct dump *d, uint64_t run, uint32_t slot, struct owner *owner)
{
	struct mls_inspect *x = d->x;
	struct mls_seg_summary summary = { .slots = calloc(x->nr_slots, sizeof *summary.slots) };
	int err = summary.slots ? mls_inspect_summary(x, run, &summary) : MLS_ENOMEM;
	bool told = !err && summary.birth == x->runs[run].birth;

	if (err == MLS_ENOENT || err == MLS_EIO || err == MLS_EAUTH)
		err = 0;
	if (!err && told && slot < summary.nr_slots) {
		owner->lba = summary.slots[slot].lba;
		owner->found = true;
		err = mls_inspect_records(x, owner->lba, owner->lba + 1, look_for_owner, owner);
	} else if (!err && !told) {
		err = mls_inspect_records(x, 0, x->sb.geo.disk_blocks, look_for_owner, owner);
	}
	free(summary.slots);
	return err;
}

static int tell_segment(struct dump *d, const struct mls_place *place, const struct mls_inspect_run *run)
{
	struct owner owner = { .hba = mls_inspect_run_hba(d->x, place->index) + place->pos, .x = d->x };
	int err;

	out_number(d->out, "birth", run->birth);
	out_number(d->out, "key", run->key_id);
	if (place->pos >= d->x->nr_slots) {
		out_text(d->out, "part", "summary");
		return 0;
	}
	err = find_owner(d, place->index, (uint32_t)place->pos, &owner);
	if (err)
		return err;
	out_text(d->out, "part", "slot");
	out_number(d->out, "slot", place->pos);
	out_number_if(d->out, "lba", owner.found, owner.lba);
	out_text(d->out, "content", owner.current ? "live" : owner.found ? "dead" : "not in use");
	return 0;
}

static int tell_run(struct dump *d, const struct mls_place *place)
{
	const struct mls_inspect_run *run = d->x->area < 0 ? NULL : &d->x->runs[place->index];

	out_text(d->out, "kind", run ? dump_run_kind(run->kind) : "run");
	out_number(d->out, "run", place->index);
	out_number(d->out, "block", place->pos);
	if (!run) {
		out_text(d->out, "run_looks", dump_look_name(dump_look_at_run(d, place->index)));
		return 0;
	}
	if (run->kind == MLS_RUN_CHUNK || run->kind == MLS_RUN_TWICE)
		tell_chunk(d, place, run);
	return run->kind == MLS_RUN_SEGMENT || run->kind == MLS_RUN_TWICE ? tell_segment(d, place, run) : 0;
}

/* ---- All ---- */

static const char *bytes_of(struct dump *d)
{
	uint8_t *block = mls_blocks_zalloc(1);
	const char *text = "not zeros";

	if (!block)
		return NULL;
	if (mls_block_dev_read(d->x->dev, d->arg, 1, block))
		text = "unreadable";
	else if (block[0] == 0 && memcmp(block, block + 1, MLS_BLOCK_BYTES - 1) == 0)
		text = "zeros";
	mls_blocks_free(block);
	return text;
}

uint64_t dump_hba_limit(const struct mls_inspect *x)
{
	return x->dev->nr_blocks;
}

int dump_hba(struct dump *d)
{
	struct mls_place place = mls_inspect_place(d->x, d->arg);
	int err = 0;

	out_object(d->out, "hba");
	out_number(d->out, "hba", d->arg);
	out_text(d->out, "bytes", bytes_of(d));
	switch (place.kind) {
	case MLS_PLACE_SUPERBLOCK:
		out_text(d->out, "kind", "superblock");
		out_number(d->out, "copy", place.index);
		out_text(d->out, "state", dump_copy_state(d->x->copies[place.index].state));
		break;
	case MLS_PLACE_UNUSED:
		out_text(d->out, "kind", "unused");
		break;
	case MLS_PLACE_JOURNAL:
		tell_journal(d, &place);
		break;
	case MLS_PLACE_WAL:
		tell_wal(d, &place);
		break;
	case MLS_PLACE_RUN:
		err = tell_run(d, &place);
		break;
	}
	out_object_end(d->out);
	return err;
}
