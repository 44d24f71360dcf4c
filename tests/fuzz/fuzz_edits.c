/* SPDX-License-Identifier: MPL-2.0 */
/*
 * fuzz_edits.c - authentic journal groups of any bytes, through the journal and each owner's apply.
 *
 * Input    le16 length of the snapshot's edits, those, then the edits of one commit.
 */
#include <string.h>

#include "2-edit/edit_group.h"
#include "2-edit/journal_reader.h"
#include "base/endian.h"
#include "format/mlsdisk_format.h"
#include "tests/fuzz/fuzz.h"

static void write_group(struct mls_chain_writer *writer, bool snapshot, const uint8_t *edits, size_t bytes)
{
	struct mls_journal_hdr_disk hdr = { .kind = snapshot ? MLS_JOURNAL_SNAPSHOT : 0 };

	mls_put_le64(hdr.commit, !snapshot);
	fuzz_must(mls_chain_begin(writer));
	fuzz_must(mls_chain_put(writer, &hdr, sizeof hdr));
	if (bytes)
		fuzz_must(mls_chain_put(writer, edits, bytes));
	fuzz_must(mls_chain_end(writer));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct fuzz_stack stack;
	const struct mls_chain_pos birth = { 0 };
	struct fuzz_input in = { data, size };
	struct mls_chain_writer *writer;
	struct mls_journal_info info;
	struct mls_block_ring ring;
	struct mls_replay replay;
	size_t first;

	fuzz_stack_init(&stack, true);
	first = fuzz_take(&in, 2);
	first = first < in.left ? first : in.left;
	fuzz_must(mls_block_ring_init(&ring, stack.disk.dev, MLS_JOURNAL_HBA, stack.disk.sb.geo.journal_area_blocks));
	fuzz_must(mls_chain_writer_new(&writer, &ring, fuzz_keys(), MLS_JOURNAL_LABEL, &birth));
	write_group(writer, true, in.data, first);
	write_group(writer, false, in.data + first, in.left - first);
	mls_chain_writer_free(writer);

	mls_chunk_alloc_reset(stack.disk.alloc);
	if (mls_journal_load(stack.disk.journal, 0, &info) == 0 &&
	    mls_lsm_replay_begin(stack.disk.lsm, &replay) == 0 && mls_lsm_replay_end(stack.disk.lsm, replay.has_last) == 0)
		(void)!mls_segment_table_loaded(stack.disk.table);
	fuzz_stack_release(&stack);
	return 0;
}

static size_t edit(uint8_t *out, enum mls_edit_owner_id owner, const void *body, size_t bytes)
{
	struct mls_edit_hdr_disk hdr = { .owner = (uint8_t)owner };

	mls_put_le16(hdr.bytes, (uint16_t)bytes);
	memcpy(out, &hdr, sizeof hdr);
	memcpy(out + sizeof hdr, body, bytes);
	return sizeof hdr + bytes;
}

/* What a fresh disk's snapshot may hold, with a log, a table and a segment. */
size_t fuzz_seed(unsigned i, uint8_t *out, size_t room)
{
	struct { struct mls_log_create_disk head; uint8_t run[8]; } log = { .head = { .type = MLS_LOG_EDIT_CREATE } };
	struct mls_table_add_disk table = { .type = MLS_LSM_EDIT_TABLE_ADD };
	struct mls_wal_start_disk start = { .type = MLS_LSM_EDIT_WAL_START };
	struct mls_seg_key_disk key = { .type = MLS_SEG_EDIT_KEY };
	struct mls_seg_add_disk add = { .type = MLS_SEG_EDIT_ADD };
	struct mls_totals_disk totals = { .type = MLS_SEG_EDIT_TOTALS, .total = { { 1 } } };
	uint8_t next_id[16] = { MLS_LOG_EDIT_NEXT_ID };
	uint8_t delete[16] = { MLS_LOG_EDIT_DELETE, [8] = 1 }, remove[16] = { MLS_LSM_EDIT_TABLE_REMOVE, [8] = 1 };
	size_t n = 2;

	(void)room;
	if (i >= 4)
		return 0;
	mls_put_le32(log.head.nr_chunks, 1);
	mls_put_le64(log.head.id, 1);
	mls_put_le64(log.head.nr_data_blocks, 3);
	mls_put_le64(log.run, 2);
	next_id[8] = 2;
	mls_put_le64(table.log_id, 1);
	mls_put_le64(table.nr_records, 5);
	mls_put_le64(table.max_lba, 9);
	mls_put_le32(key.key_id, 1);
	mls_put_le64(add.run, 3);
	mls_put_le64(add.birth, 1);
	mls_put_le32(add.key_id, 1);
	mls_put_le32(add.delta, 4);
	n += edit(out + n, MLS_OWNER_LSM, &start, sizeof start);
	n += edit(out + n, MLS_OWNER_SEGMENTS, &key, sizeof key);
	n += edit(out + n, MLS_OWNER_SEGMENTS, &add, sizeof add);
	n += edit(out + n, MLS_OWNER_SEGMENTS, &totals, sizeof totals);
	if (i & 1) {
		n += edit(out + n, MLS_OWNER_LOGS, next_id, sizeof next_id);
		n += edit(out + n, MLS_OWNER_LOGS, &log, sizeof log);
		n += edit(out + n, MLS_OWNER_LSM, &table, sizeof table);
	}
	mls_put_le16(out, (uint16_t)(n - 2));
	if (i & 2) {
		n += edit(out + n, MLS_OWNER_LOGS, delete, sizeof delete);
		n += edit(out + n, MLS_OWNER_LSM, remove, sizeof remove);
	}
	return n;
}
