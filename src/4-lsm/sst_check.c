/* SPDX-License-Identifier: MPL-2.0 */
/*
 * sst_check.c - is an SSTable what it must be?
 *
 * Footer and index first: they say which LBAs a damaged record block held. Then all record blocks, in
 * large reads; where one fails, block by block. Damaged blocks in a row are one finding.
 *
 * Invariants checked: the log has the length of a table of so many records; footer and index say what
 * the journal says; LBAs ascend strictly, through all blocks; all blocks but the last are full.
 */
#include "4-lsm/sst_check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "4-lsm/sst_block.h"
#include "base/buf.h"
#include "base/checked.h"

#define READ_BLOCKS 64u

struct state {
	const struct mls_sst_check *check;
	uint64_t nr_record_blocks, nr_index_blocks;
	uint64_t *index;		/* NULL: it can't be read */
	void *blocks;			/* READ_BLOCKS */

	uint64_t bad_from, nr_bad;	/* record blocks in a row that can't be read */
	int bad_err;
	uint64_t next_lba;		/* the next record's is at least this */
	uint64_t nr_seen;
	bool any_bad, told_order;
};

static struct mls_finding finding_of(const struct state *s, enum mls_finding_code code)
{
	struct mls_finding finding = mls_finding_init(code);

	finding.log_id = s->check->info->log_id;
	return finding;
}

static void tell(const struct state *s, struct mls_finding *finding, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
static void tell(const struct state *s, struct mls_finding *finding, const char *format, ...)
{
	va_list args;

	if (!s->check->report)
		return;
	va_start(args, format);
	vsnprintf(finding->detail, sizeof finding->detail, format, args);
	va_end(args);
	s->check->report(s->check->report_arg, finding);
}

static struct mls_finding damage(const struct state *s, uint64_t block, uint64_t nr_blocks, int err)
{
	struct mls_finding finding = finding_of(s, err == MLS_EAUTH ? MLS_FOUND_LOG_DAMAGED : MLS_FOUND_LOG_UNREADABLE);

	finding.hba = mls_crypto_log_hba(s->check->log, block);
	finding.nr_blocks = nr_blocks;
	return finding;
}

/* ---- Footer and index ---- */

static int check_footer(struct state *s)
{
	const struct mls_sst_info *info = s->check->info;
	const struct mls_sst_footer_disk *footer = s->blocks;
	uint64_t at = s->nr_record_blocks + s->nr_index_blocks;
	struct mls_finding finding;
	int err = mls_crypto_log_read(s->check->log, at, 1, s->blocks);

	if (err == MLS_ENOMEM)
		return err;
	if (err) {
		finding = damage(s, at, 1, err);
		tell(s, &finding, "the footer; no LBA is lost by this alone");
		return 0;
	}
	finding = finding_of(s, MLS_FOUND_TABLE_MALFORMED);
	if (memcmp(footer->magic, MLS_SST_MAGIC, sizeof footer->magic) != 0)
		tell(s, &finding, "no footer");
	else if (mls_get_le64(footer->nr_records) != info->nr_records ||
		 mls_get_le64(footer->min_lba) != info->min_lba || mls_get_le64(footer->max_lba) != info->max_lba)
		tell(s, &finding, "the footer's numbers aren't the journal's");
	else if (mls_get_le64(footer->nr_record_blocks) != s->nr_record_blocks ||
		 mls_get_le64(footer->nr_index_blocks) != s->nr_index_blocks)
		tell(s, &finding, "the footer's numbers of blocks don't fit its records");
	return 0;
}

static int read_index(struct state *s)
{
	struct mls_finding finding;

	s->index = malloc(s->nr_index_blocks * MLS_SST_INDEX_PER_BLOCK * sizeof *s->index);
	if (!s->index)
		return MLS_ENOMEM;
	for (uint64_t i = 0; i < s->nr_index_blocks; i++) {
		int err = mls_crypto_log_read(s->check->log, s->nr_record_blocks + i, 1, s->blocks);

		if (err == MLS_ENOMEM)
			return err;
		if (err) {
			finding = damage(s, s->nr_record_blocks + i, 1, err);
			tell(s, &finding, "the index of the table; no LBA is lost by this alone");
			free(s->index);
			s->index = NULL;
			return 0;
		}
		for (unsigned k = 0; k < MLS_SST_INDEX_PER_BLOCK; k++)
			s->index[i * MLS_SST_INDEX_PER_BLOCK + k] = mls_get_le64((uint8_t *)s->blocks + k * 8);
	}
	return 0;
}

/* ---- Record blocks ---- */

static void end_damage(struct state *s, uint64_t next_lba)
{
	struct mls_finding finding;

	if (!s->nr_bad)
		return;
	finding = damage(s, s->bad_from, s->nr_bad, s->bad_err);
	finding.lba = s->next_lba;
	if (s->index && s->index[s->bad_from] > s->next_lba)
		finding.lba = s->index[s->bad_from];
	finding.nr_lbas = next_lba > finding.lba ? next_lba - finding.lba : 0;
	s->nr_bad = 0;
	tell(s, &finding, "%s", s->bad_err == MLS_EAUTH ? "records of these LBAs, or the tree's node above them"
							 : "records of these LBAs");
}

static void note_bad(struct state *s, uint64_t block, int err)
{
	if (s->nr_bad && err != s->bad_err)
		end_damage(s, s->index ? s->index[block] : s->next_lba);
	if (!s->nr_bad)
		s->bad_from = block;
	s->nr_bad++;
	s->bad_err = err;
	s->any_bad = true;
}

static void order_problem(struct state *s, uint64_t lba)
{
	struct mls_finding finding = finding_of(s, MLS_FOUND_TABLE_ORDER);

	if (s->told_order)
		return;
	s->told_order = true;
	finding.lba = lba;
	finding.nr_lbas = 1;
	tell(s, &finding, "expected LBA %" PRIu64 " or more, found %" PRIu64, s->next_lba, lba);
}

static void check_block(struct state *s, uint64_t at, const struct mls_sst_block_disk *block)
{
	const struct mls_sst_info *info = s->check->info;
	uint64_t left = info->nr_records - at * MLS_SST_RECS_PER_BLOCK;
	unsigned expected = (unsigned)mls_min_u64(left, MLS_SST_RECS_PER_BLOCK), nr = mls_sst_block_nr(block);
	struct mls_finding finding = finding_of(s, MLS_FOUND_TABLE_MALFORMED);

	if (nr != expected) {
		s->any_bad = true;
		finding.hba = mls_crypto_log_hba(s->check->log, at);
		finding.nr_blocks = 1;
		finding.lba = s->index ? s->index[at] : s->next_lba;
		finding.nr_lbas = (s->index && at + 1 < s->nr_record_blocks ? s->index[at + 1] : info->max_lba + 1) -
				  finding.lba;
		tell(s, &finding, "record block %" PRIu64 ": expected %u records, found %u", at, expected, nr);
		return;
	}
	if (s->index && s->index[at] != mls_sst_block_lba(block, 0))
		tell(s, &finding, "record block %" PRIu64 " begins with LBA %" PRIu64 ", its index says %" PRIu64, at,
		     mls_sst_block_lba(block, 0), s->index[at]);
	end_damage(s, mls_sst_block_lba(block, 0));
	for (unsigned i = 0; i < nr; i++) {
		uint64_t lba = mls_sst_block_lba(block, i);

		if (lba < s->next_lba)
			order_problem(s, lba);
		s->next_lba = lba + 1;
	}
	s->nr_seen += nr;
}

static int check_some(struct state *s, uint64_t first, uint32_t nr)
{
	int err = mls_crypto_log_read(s->check->log, first, nr, s->blocks);

	if (err == MLS_ENOMEM)
		return err;
	for (uint32_t i = 0; i < nr; i++) {
		const struct mls_sst_block_disk *block = (const void *)mls_block_at(s->blocks, i);
		int one = err ? mls_crypto_log_read(s->check->log, first + i, 1, mls_block_at(s->blocks, i)) : 0;

		if (one == MLS_ENOMEM)
			return one;
		if (one)
			note_bad(s, first + i, one);
		else
			check_block(s, first + i, block);
	}
	return 0;
}

static void check_range(struct state *s)
{
	const struct mls_sst_info *info = s->check->info;
	struct mls_finding finding = finding_of(s, MLS_FOUND_TABLE_RANGE);

	if (s->any_bad)
		return;
	if (s->nr_seen != info->nr_records)
		tell(s, &finding, "expected %" PRIu64 " records, found %" PRIu64, info->nr_records, s->nr_seen);
	else if (s->next_lba != info->max_lba + 1)
		tell(s, &finding, "expected LBA %" PRIu64 " as the last, found %" PRIu64, info->max_lba, s->next_lba - 1);
}

static int check_records(struct state *s)
{
	s->next_lba = s->check->info->min_lba;
	for (uint64_t at = 0; at < s->nr_record_blocks;) {
		uint32_t nr = (uint32_t)mls_min_u64(READ_BLOCKS, s->nr_record_blocks - at);
		int err = check_some(s, at, nr);

		if (err)
			return err;
		at += nr;
		if (s->check->progress && !s->check->progress(s->check->progress_arg, nr))
			return MLS_EABORTED;
	}
	end_damage(s, s->check->info->max_lba + 1);
	check_range(s);
	return 0;
}

int mls_sst_check(const struct mls_sst_check *check)
{
	struct state s = { .check = check };
	struct mls_finding finding = finding_of(&s, MLS_FOUND_TABLE_MALFORMED);
	int err;

	if (mls_sst_nr_blocks(check->info->nr_records) != check->nr_data_blocks) {
		tell(&s, &finding, "expected %" PRIu64 " blocks, found %" PRIu64, mls_sst_nr_blocks(check->info->nr_records),
		     check->nr_data_blocks);
		return 0;
	}
	s.nr_record_blocks = mls_sst_nr_record_blocks(check->info->nr_records);
	s.nr_index_blocks = mls_sst_nr_index_blocks(s.nr_record_blocks);
	s.blocks = mls_blocks_alloc(READ_BLOCKS);
	err = s.blocks ? check_footer(&s) : MLS_ENOMEM;
	if (!err)
		err = read_index(&s);
	if (!err)
		err = check_records(&s);
	free(s.index);
	mls_blocks_free(s.blocks);
	return err;
}
