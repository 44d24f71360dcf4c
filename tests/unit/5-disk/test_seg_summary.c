/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_seg_summary.c - summaries tell the order of all writes, whatever the cleaner did; totals last.
 */
#include "5-disk/seg_summary.h"

#include "base/buf.h"
#include "base/err.h"
#include "check/inspect.h"
#include "tests/lib/check_run.h"
#include "tests/unit/5-disk/disk_fixture.h"

#define NR_SLOTS 253u
#define SUMMARY_BLOCKS 3u

START_TEST(summary_comes_back_as_it_was)
{
	static const uint8_t master[32] = { 7 }, uuid[MLS_UUID_BYTES] = { 9 };
	struct mls_seg_slot in[NR_SLOTS], out[NR_SLOTS];
	struct mls_seg_summary sealed = { .run = 5, .birth = 77, .session = 31, .epoch = 33, .nr_slots = NR_SLOTS, .slots = in };
	struct mls_seg_summary opened = { .slots = out };
	uint8_t *scratch = malloc(mls_seg_summary_bytes(NR_SLOTS));
	void *blocks = mls_blocks_zalloc(SUMMARY_BLOCKS);
	struct mls_keyring *keys;

	ck_assert_int_eq(mls_keyring_new(&keys, master, uuid), 0);
	memset(in, 0, sizeof in);
	for (unsigned i = 0; i < NR_SLOTS; i++) {
		in[i].lba = i % 7 ? i : MLS_SLOT_VOID;
		in[i].order = (struct mls_write_order){ (UINT64_C(1) << 48) - 1 - i, (UINT64_C(1) << 40) + i };
		memset(in[i].tag, (int)i, sizeof in[i].tag);
	}
	memset(sealed.key_salt, 3, sizeof sealed.key_salt);
	ck_assert_int_eq(mls_seg_summary_seal(keys, &sealed, scratch, blocks, SUMMARY_BLOCKS), 0);
	ck_assert_int_eq(mls_seg_summary_open(keys, blocks, SUMMARY_BLOCKS, 5, NR_SLOTS, &opened), 0);
	ck_assert(opened.birth == 77 && opened.session == 31 && opened.epoch == 33 && opened.nr_slots == NR_SLOTS);
	ck_assert_mem_eq(opened.key_salt, sealed.key_salt, sizeof sealed.key_salt);
	ck_assert_mem_eq(in, out, sizeof in);
	ck_assert_int_eq(mls_seg_summary_open(keys, blocks, SUMMARY_BLOCKS, 6, NR_SLOTS, &opened), MLS_ENOENT);
	ck_assert_int_eq(mls_seg_summary_open(keys, blocks, SUMMARY_BLOCKS, 5, NR_SLOTS - 1, &opened), MLS_ENOENT);
	((uint8_t *)blocks)[3000] ^= 1;
	ck_assert_int_eq(mls_seg_summary_open(keys, blocks, SUMMARY_BLOCKS, 5, NR_SLOTS, &opened), MLS_ENOENT);
	mls_keyring_free(keys);
	mls_blocks_free(blocks);
	free(scratch);
}
END_TEST

/* The version of each LBA that has the largest order, by the summaries of all runs. */
struct newest {
	struct mls_write_order order;
	uint64_t hba;
};

static void compete(struct mls_inspect *x, struct newest *newest)
{
	struct mls_seg_summary summary = { .slots = calloc(x->nr_slots, sizeof *summary.slots) };

	for (uint64_t run = 0; run < x->nr_runs; run++) {
		if (x->runs[run].kind == MLS_RUN_CHUNK || mls_inspect_summary(x, run, &summary))
			continue;
		for (uint32_t i = 0; i < summary.nr_slots; i++) {
			struct newest *old;

			if (summary.slots[i].lba == MLS_SLOT_VOID)
				continue;
			old = &newest[summary.slots[i].lba];
			if (old->hba && mls_order_before(&summary.slots[i].order, &old->order))
				continue;
			*old = (struct newest){ summary.slots[i].order, mls_inspect_run_hba(x, run) + i };
		}
	}
	free(summary.slots);
}

struct compare {
	struct mls_inspect *x;
	struct newest *newest;
	uint64_t nr;
};

static int same_order(void *arg, const struct mls_inspect_rec *rec)
{
	struct compare *c = arg;
	struct mls_seg_summary summary = { .slots = calloc(c->x->nr_slots, sizeof *summary.slots) };
	uint64_t run;
	uint32_t slot;

	if (rec->newest && rec->rec.hba != MLS_HBA_NONE) {
		ck_assert(mls_inspect_slot_of(c->x, rec->rec.hba, &run, &slot));
		ck_assert_int_eq(mls_inspect_summary(c->x, run, &summary), 0);
		ck_assert_uint_eq(summary.slots[slot].lba, rec->rec.lba);
		ck_assert_uint_eq(summary.slots[slot].order.epoch, c->newest[rec->rec.lba].order.epoch);
		ck_assert_uint_eq(summary.slots[slot].order.nr, c->newest[rec->rec.lba].order.nr);
		c->nr++;
	}
	free(summary.slots);
	return 0;
}

START_TEST(the_current_version_has_the_largest_order)
{
	const uint64_t nr = 16 * MIB / MLS_BLOCK_BYTES;
	struct newest *newest = calloc(nr, sizeof *newest);
	struct compare compare = { .newest = newest };
	struct mls_disk_stat stat;
	struct disk_fixture f;
	struct mls_disk *disk;
	struct mls_inspect *x;
	uint64_t lba = 1, moved = 0;

	fixture_init(&f, 16 * MIB, 0);
	for (unsigned session = 0; session < 3; session++) {
		disk = fixture_open(&f);
		for (unsigned i = 0; i < 3 * nr; i++) {
			lba = (lba * 6364136223846793005u + 1442695040888963407u) % nr;
			ck_assert_int_eq(block_write(disk, lba, i), 0);
			if (i % 5 == 0)		/* part of a block: made from the version before */
				ck_assert_int_eq(mls_disk_write(disk, lba * MLS_BLOCK_BYTES + 100, "x", 1), 0);
			if (i % 900 == 0)
				ck_assert_int_eq(mls_disk_sync(disk), 0);
		}
		mls_disk_stat(disk, &stat);
		moved += stat.moved_blocks;
		ck_assert_int_eq(mls_disk_close(disk), 0);
	}
	ck_assert_msg(moved > 0, "the cleaner had nothing to do");
	ck_assert_int_eq(mls_inspect_open(&x, f.dev, &f.store.base, &f.secret, NULL, NULL), 0);
	compete(x, newest);
	compare.x = x;
	ck_assert_int_eq(mls_inspect_records(x, 0, UINT64_MAX, same_order, &compare), 0);
	ck_assert_uint_gt(compare.nr, nr / 2);
	mls_inspect_close(x);
	fixture_release(&f);
	free(newest);
}
END_TEST

static struct mls_totals totals_of(struct disk_fixture *f)
{
	struct mls_inspect *x;
	struct mls_totals totals;

	ck_assert_int_eq(mls_inspect_open(&x, f->dev, &f->store.base, &f->secret, NULL, NULL), 0);
	totals = x->totals;
	mls_inspect_close(x);
	return totals;
}

START_TEST(totals_outlive_sessions)
{
	struct mls_totals totals;
	struct disk_fixture f;
	struct mls_disk *disk;
	char buf[4096];

	fixture_init(&f, 8 * MIB, 0);
	totals = totals_of(&f);
	ck_assert_uint_eq(totals.at[MLS_TOTAL_SESSIONS], 0);
	for (unsigned session = 1; session <= 3; session++) {
		disk = fixture_open(&f);
		for (uint64_t lba = 0; lba < 100; lba++)
			ck_assert_int_eq(block_write(disk, lba, session), 0);
		ck_assert_int_eq(mls_disk_read(disk, 0, buf, sizeof buf), 0);
		ck_assert_int_eq(mls_disk_discard(disk, 0, 10 * MLS_BLOCK_BYTES), 0);
		ck_assert_int_eq(mls_disk_close(disk), 0);
		totals = totals_of(&f);
		ck_assert_uint_eq(totals.at[MLS_TOTAL_SESSIONS], session);
		ck_assert_uint_eq(totals.at[MLS_TOTAL_WRITTEN_BYTES], session * 100 * MLS_BLOCK_BYTES);
		ck_assert_uint_eq(totals.at[MLS_TOTAL_READ_BYTES], session * sizeof buf);
		ck_assert_uint_eq(totals.at[MLS_TOTAL_DISCARDED_BLOCKS], session * 10);
		ck_assert(mls_totals_write_amplification(&totals) > 1.0);
	}
	/* A crash: what the journal hadn't heard of is lost, the rest stays. */
	disk = fixture_open(&f);
	ck_assert_int_eq(block_write(disk, 0, 9), 0);
	totals = totals_of(&f);
	ck_assert_uint_eq(totals.at[MLS_TOTAL_SESSIONS], 4);
	ck_assert_uint_eq(totals.at[MLS_TOTAL_WRITTEN_BYTES], 3 * 100 * MLS_BLOCK_BYTES);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	fixture_release(&f);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("seg_summary");
	TCase *tc = tcase_create("summaries and totals");

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, summary_comes_back_as_it_was);
	tcase_add_test(tc, the_current_version_has_the_largest_order);
	tcase_add_test(tc, totals_outlive_sessions);
	suite_add_tcase(suite, tc);	return check_run(suite);
}
