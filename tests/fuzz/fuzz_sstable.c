/* SPDX-License-Identifier: MPL-2.0 */
/*
 * fuzz_sstable.c - an SSTable's record, index and footer blocks, authentic, with any content.
 *
 * Input    le16 records told, le16 first and last LBA told, a byte: blocks - 1; then edits of these blocks.
 */
#include <string.h>

#include "4-lsm/record.h"
#include "4-lsm/sstable.h"
#include "base/endian.h"
#include "format/mlsdisk_format.h"
#include "tests/fuzz/fuzz.h"

#define NR_MAX 6u

static struct fuzz_stack stack;
static uint8_t blocks[NR_MAX][MLS_BLOCK_BYTES];

/* A good table of one record block, so far as nr allows: then come its index and footer. */
static void good_blocks(unsigned nr, const struct mls_sst_info *info)
{
	struct mls_sst_block_disk *recs = (void *)blocks[0];
	struct mls_sst_footer_disk *footer = (void *)blocks[nr - 1];

	memset(blocks, 0, sizeof blocks);
	mls_put_le16(recs->nr_records, (uint16_t)info->nr_records);
	for (unsigned i = 0; i < info->nr_records && i < MLS_SST_RECS_PER_BLOCK; i++) {
		mls_put_le64(recs->rec[i].lba, info->min_lba + i);
		mls_put_le64(recs->rec[i].hba, 700 + i);
	}
	mls_put_le64(blocks[nr > 1 ? nr - 2 : 0], info->min_lba);
	memset(footer, 0, sizeof *footer);
	memcpy(footer->magic, "MlsSst1", 8);
	mls_put_le64(footer->nr_records, info->nr_records);
	mls_put_le64(footer->nr_record_blocks, 1);
	mls_put_le64(footer->nr_index_blocks, 1);
	mls_put_le64(footer->min_lba, info->min_lba);
	mls_put_le64(footer->max_lba, info->max_lba);
}

static void use_table(struct mls_sst *sst)
{
	struct mls_index_rec recs[8], rec;
	struct mls_sst_iter *iter;
	size_t missing = 8;

	mls_lookup_init(recs, 8);
	(void)!mls_sst_get_range(sst, mls_sst_info(sst)->min_lba, 8, recs, &missing);
	(void)!mls_sst_next(sst, 0, &rec);
	fuzz_must(mls_sst_iter_new(&iter, sst, 0, 2));
	while (mls_sst_iter_next(iter, &rec) == 0)
		;
	mls_sst_iter_free(iter);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t session[MLS_SESSION_BYTES] = { 3 }, tag[MLS_TAG_BYTES] = { 1 };
	struct fuzz_input in = { data, size };
	struct mls_sst_info info;
	struct mls_log_writer *writer;
	struct mls_sst *sst;
	struct mls_tx *tx;
	unsigned nr;

	fuzz_stack_init(&stack, true);
	mls_lsm_format(stack.disk.lsm, tag, session);
	fuzz_must(mls_journal_start(stack.disk.journal, session));
	info.nr_records = fuzz_take(&in, 2);
	info.min_lba = fuzz_take(&in, 2);
	info.max_lba = fuzz_take(&in, 2);
	nr = (unsigned)fuzz_take(&in, 1) % NR_MAX + 1;
	good_blocks(nr, &info);
	fuzz_edit(&in, blocks[0], nr * MLS_BLOCK_BYTES);
	fuzz_must(mls_tx_begin(stack.disk.logs, &tx));
	fuzz_must(mls_tx_log_create(tx, 1, &writer, &info.log_id));
	fuzz_must(mls_log_append(writer, blocks, nr));
	fuzz_must(mls_log_finish(writer));
	fuzz_must(mls_tx_commit(tx));
	if (info.nr_records > 0 && mls_sst_open(&sst, stack.disk.logs, NULL, &info) == 0) {
		use_table(sst);
		mls_sst_put(sst);
	}
	fuzz_stack_release(&stack);
	return 0;
}

size_t fuzz_seed(unsigned i, uint8_t *out, size_t room)
{
	static const uint8_t seeds[][13] = { { 10, 0, 5, 0, 14, 0, 2 },			/* good */
					     { 1, 0, 7, 0, 7, 0, 2 },			/* the least */
					     { 127, 0, 1, 0, 127, 0, 2 },		/* a full block */
					     { 10, 0, 5, 0, 14, 0, 2, 0, 0, 128 },	/* more than a block holds */
					     { 10, 0, 5, 0, 14, 0, 2, 16, 32, 255 },	/* footer: record blocks */
					     { 10, 0, 5, 0, 14, 0, 4 } };

	(void)room;
	if (i >= sizeof seeds / sizeof *seeds)
		return 0;
	memcpy(out, seeds[i], sizeof seeds[i]);
	return i < 3 ? 7 : sizeof seeds[i];
}
