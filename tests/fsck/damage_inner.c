/* SPDX-License-Identifier: MPL-2.0 */
/* damage_inner.c - the index and what it leads to: logs, tables, records, segments, data; see damage.c. */
#include "tests/fsck/damage.h"

#include <string.h>

#include "3-log/stored_log.h"
#include "5-disk/location.h"

/* ---- Kinds: logs and runs ---- */

static void sst_record(struct lab *l) { lab_flip(l, lab_log_block(l, lab_some_log(l), 0), 77); }

static void sst_footer(struct lab *l)
{
	const struct mls_inspect_log *log = lab_some_log(l);
	uint64_t nr = mls_crypto_log_total_blocks(log->root.nr_data_blocks);

	lab_flip(l, lab_log_block(l, log, nr - 2), 77);		/* the tree's only node comes last */
}

static void sst_node(struct lab *l)
{
	const struct mls_inspect_log *log = lab_some_log(l);

	lab_flip(l, lab_log_block(l, log, mls_crypto_log_total_blocks(log->root.nr_data_blocks) - 1), 77);
}

/* Another table's block in the place of ours. */
static void sst_replayed(struct lab *l)
{
	const struct mls_inspect_log *log = lab_some_log(l);
	const struct mls_inspect_log *other = &l->x->logs[log == &l->x->logs[0]];

	lab_require(log->id != other->id, "only one log");
	lab_copy_blocks(l, lab_log_block(l, other, 0), lab_log_block(l, log, 0), 1);
}

static bool put_run(struct lab *l, struct mls_edit_group *out, enum mls_edit_owner_id owner, uint8_t *edit,
		    size_t bytes, void *arg)
{
	const uint64_t *run = arg;

	(void)out, (void)bytes;
	if (edit && lab_is_create(owner, edit, lab_some_log(l)->id))
		mls_put_le64(edit + sizeof(struct mls_log_create_disk), *run);
	return false;
}

static void run_twice(struct lab *l)
{
	const struct mls_inspect_log *log = lab_some_log(l);
	uint64_t run = l->x->logs[log == &l->x->logs[0]].runs[0];

	lab_change_journal(l, put_run, &run);
}

static void run_range(struct lab *l)
{
	uint64_t run = l->x->nr_runs + 5;

	lab_change_journal(l, put_run, &run);
}

static bool add_segment(struct lab *l, struct mls_edit_group *out, enum mls_edit_owner_id owner, uint8_t *edit,
			size_t bytes, void *arg)
{
	const uint64_t *run_and_birth = arg;
	struct mls_seg_add_disk add = { .type = MLS_SEG_EDIT_ADD };

	(void)edit, (void)bytes;
	if (owner != MLS_NR_OWNERS)
		return false;
	mls_put_le64(add.run, run_and_birth[0]);
	mls_put_le64(add.birth, run_and_birth[1]);
	mls_put_le32(add.key_id, l->x->data_keys[0].id);
	lab_must(mls_edit_add(out, MLS_OWNER_SEGMENTS, &add, sizeof add), "edit");
	return false;
}

static void run_chunk_and_segment(struct lab *l)
{
	uint64_t run_and_birth[2] = { lab_some_log(l)->runs[0], 1000000 };

	lab_change_journal(l, add_segment, run_and_birth);
}

static void birth_twice(struct lab *l)
{
	uint64_t run_and_birth[2] = { lab_free_run(l), l->x->runs[lab_live_run(l)].birth };

	lab_change_journal(l, add_segment, run_and_birth);
}

/* A second log with the same blocks, in a run of its own. */
static bool add_log(struct lab *l, struct mls_edit_group *out, enum mls_edit_owner_id owner, uint8_t *edit,
		    size_t bytes, void *arg)
{
	const uint64_t *run = arg;
	struct mls_log_create_disk *create = (void *)edit;
	uint8_t copy[MLS_BLOCK_BYTES];

	if (!edit || !lab_is_create(owner, edit, lab_some_log(l)->id))
		return false;
	memcpy(copy, edit, bytes);
	create = (void *)copy;
	mls_put_le64(create->id, l->x->logs[l->x->nr_logs - 1].id + 7);
	mls_put_le64(copy + sizeof *create, *run);
	lab_must(mls_edit_add(out, owner, copy, bytes), "edit");
	return false;
}

static bool next_id_last(struct lab *l, struct mls_edit_group *out, enum mls_edit_owner_id owner, uint8_t *edit,
			 size_t bytes, void *arg)
{
	uint8_t next[MLS_LOG_ID_EDIT_BYTES];

	if (owner == MLS_OWNER_LOGS && edit && edit[0] == MLS_LOG_EDIT_NEXT_ID)
		return true;		/* dropped: our log has a higher id */
	if (owner == MLS_NR_OWNERS) {
		mls_log_id_edit_encode(next, MLS_LOG_EDIT_NEXT_ID, l->x->logs[l->x->nr_logs - 1].id + 8);
		lab_must(mls_edit_add(out, MLS_OWNER_LOGS, next, sizeof next), "edit");
		return false;
	}
	return add_log(l, out, owner, edit, bytes, arg);
}

static void log_leaked(struct lab *l)
{
	uint64_t run = lab_free_run(l);

	lab_require(lab_some_log(l)->nr_chunks == 1, "the log has several chunks");
	lab_copy_blocks(l, mls_inspect_run_hba(l->x, lab_some_log(l)->runs[0]), mls_inspect_run_hba(l->x, run),
		    l->x->run_blocks);
	lab_change_journal(l, next_id_last, &run);
}

static bool drop_create(struct lab *l, struct mls_edit_group *out, enum mls_edit_owner_id owner, uint8_t *edit,
			size_t bytes, void *arg)
{
	(void)out, (void)bytes, (void)arg;
	return edit && lab_is_create(owner, edit, lab_some_log(l)->id);
}

static void log_deleted(struct lab *l) { lab_change_journal(l, drop_create, NULL); }

/* ---- Kinds: tables ---- */

static struct mls_table_add_disk *table_add_of(struct lab *l, enum mls_edit_owner_id owner, uint8_t *edit)
{
	struct mls_table_add_disk *add = (void *)edit;

	return edit && owner == MLS_OWNER_LSM && edit[0] == MLS_LSM_EDIT_TABLE_ADD &&
	       mls_get_le64(add->log_id) == lab_some_log(l)->id ? add : NULL;
}

static bool wider(struct lab *l, struct mls_edit_group *out, enum mls_edit_owner_id owner, uint8_t *edit,
		  size_t bytes, void *arg)
{
	struct mls_table_add_disk *add = table_add_of(l, owner, edit);

	(void)out, (void)bytes, (void)arg;
	if (add)
		mls_put_le64(add->max_lba, mls_get_le64(add->max_lba) + 10);
	return false;
}

static bool same_level(struct lab *l, struct mls_edit_group *out, enum mls_edit_owner_id owner, uint8_t *edit,
		       size_t bytes, void *arg)
{
	struct mls_table_add_disk *add = (void *)edit;

	(void)l, (void)out, (void)bytes, (void)arg;
	if (owner == MLS_OWNER_LSM && edit && edit[0] == MLS_LSM_EDIT_TABLE_ADD) {
		add->level = 3;
		mls_put_le64(add->max_lba, mls_get_le64(add->max_lba) + 300);
	}
	return false;
}

static void table_range(struct lab *l) { lab_change_journal(l, wider, NULL); }
static void table_overlap(struct lab *l) { lab_change_journal(l, same_level, NULL); }

static void swap_records(struct mls_sst_block_disk *block)
{
	struct mls_index_rec_disk rec = block->rec[3];

	block->rec[3] = block->rec[4];
	block->rec[4] = rec;
}

static void fewer_records(struct mls_sst_block_disk *block)
{
	mls_put_le16(block->nr_records, (uint16_t)(mls_get_le16(block->nr_records) - 1));
}

static void table_unsorted(struct lab *l) { lab_change_table(l, swap_records); }
static void table_count(struct lab *l) { lab_change_table(l, fewer_records); }

/* ---- Kinds: records and segments ---- */

static void lba_range(struct lab *l)
{
	lab_wal_rec(l, 2)->lba = LAB_DISK_BLOCKS + 10;
	lab_change_wal(l);
}

static void lba_nowhere(struct lab *l)
{
	struct mls_index_rec *rec = lab_wal_rec(l, 2);

	rec->hba = (rec->hba & ~MLS_LOC_HBA_MASK) | l->x->wal_hba;
	lab_change_wal(l);
}

static void slot_shared(struct lab *l)
{
	lab_wal_rec(l, 2)->hba = lab_wal_rec(l, 3)->hba;
	lab_change_wal(l);
}

struct count_change {
	uint64_t run;
	int32_t delta;
};

static bool recount(struct lab *l, struct mls_edit_group *out, enum mls_edit_owner_id owner, uint8_t *edit,
		    size_t bytes, void *arg)
{
	const struct count_change *change = arg;
	struct mls_seg_add_disk add = { .type = MLS_SEG_EDIT_ADD };

	(void)edit, (void)bytes;
	if (owner != MLS_NR_OWNERS)
		return false;
	mls_put_le32(add.delta, (uint32_t)change->delta);
	mls_put_le64(add.run, change->run);
	mls_put_le64(add.birth, l->x->runs[change->run].birth);
	mls_put_le32(add.key_id, l->x->runs[change->run].key_id);
	lab_must(mls_edit_add(out, MLS_OWNER_SEGMENTS, &add, sizeof add), "edit");
	return false;
}

static void count_high(struct lab *l)
{
	struct count_change change = { lab_live_run(l), 5 };

	lab_change_journal(l, recount, &change);
}

static void count_zero(struct lab *l)
{
	struct count_change change = { lab_live_run(l), -(int32_t)l->x->runs[lab_live_run(l)].noted_live };

	lab_change_journal(l, recount, &change);
}

static bool free_segment(struct lab *l, struct mls_edit_group *out, enum mls_edit_owner_id owner, uint8_t *edit,
			 size_t bytes, void *arg)
{
	struct mls_seg_add_disk end = { .type = MLS_SEG_EDIT_FREE };
	const uint64_t *run = arg;

	(void)edit, (void)bytes;
	if (owner != MLS_NR_OWNERS)
		return false;
	mls_put_le64(end.run, *run);
	mls_put_le64(end.birth, l->x->runs[*run].birth);
	lab_must(mls_edit_add(out, MLS_OWNER_SEGMENTS, &end, sizeof end), "edit");
	return false;
}

static void segment_freed(struct lab *l)
{
	uint64_t run = lab_live_run(l);

	lab_change_journal(l, free_segment, &run);
}

static bool drop_keys(struct lab *l, struct mls_edit_group *out, enum mls_edit_owner_id owner, uint8_t *edit,
		      size_t bytes, void *arg)
{
	(void)l, (void)out, (void)bytes, (void)arg;
	return owner == MLS_OWNER_SEGMENTS && edit && edit[0] == MLS_SEG_EDIT_KEY;
}

static void keys_lost(struct lab *l) { lab_change_journal(l, drop_keys, NULL); }

/* ---- Kinds: data ---- */

static void data_flip(struct lab *l) { lab_flip(l, mls_loc_hba(lab_live_rec(l, true, 9).hba), 4095); }
static void data_new_flip(struct lab *l) { lab_flip(l, mls_loc_hba(lab_live_rec(l, false, 1).hba), 0); }
static void data_zeroed(struct lab *l) { lab_zero(l, mls_inspect_run_hba(l->x, lab_live_run(l)), l->x->nr_slots); }

static void data_swapped(struct lab *l)
{
	uint64_t a = mls_loc_hba(lab_live_rec(l, true, 2).hba), b = mls_loc_hba(lab_live_rec(l, true, 3).hba);

	lab_copy_blocks(l, a, mls_inspect_run_hba(l->x, lab_free_run(l)), 1);
	lab_copy_blocks(l, b, a, 1);
	lab_copy_blocks(l, mls_inspect_run_hba(l->x, lab_free_run(l)), b, 1);
}

static void summary_flip(struct lab *l)
{
	lab_flip(l, mls_inspect_run_hba(l->x, lab_live_run(l)) + l->x->nr_slots, 100);
}

const struct damage_kind damage_inner[] = {
	{ "sst-record", sst_record },
	{ "sst-footer", sst_footer },
	{ "sst-node", sst_node },
	{ "sst-replayed", sst_replayed },
	{ "run-twice", run_twice },
	{ "run-range", run_range },
	{ "run-chunk-and-segment", run_chunk_and_segment },
	{ "birth-twice", birth_twice },
	{ "log-leaked", log_leaked },
	{ "log-deleted", log_deleted },
	{ "table-range", table_range },
	{ "table-overlap", table_overlap },
	{ "table-unsorted", table_unsorted },
	{ "table-count", table_count },
	{ "lba-range", lba_range },
	{ "lba-nowhere", lba_nowhere },
	{ "slot-shared", slot_shared },
	{ "count-high", count_high },
	{ "count-zero", count_zero },
	{ "segment-freed", segment_freed },
	{ "keys-lost", keys_lost },
	{ "data-flip", data_flip },
	{ "data-new-flip", data_new_flip },
	{ "data-zeroed", data_zeroed },
	{ "data-swapped", data_swapped },
	{ "summary-flip", summary_flip },
	{ NULL, NULL },
};
