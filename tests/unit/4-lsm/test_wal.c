/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_wal.c - a group comes back as it was written; authentic bytes that can't be one are refused,
 * and so are edits of the index's state.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "4-lsm/lsm_state.h"
#include "4-lsm/wal.h"
#include "base/endian.h"
#include "tests/lib/check_run.h"
#include "tests/lib/test_log.h"

#define RING_BLOCKS 32u

static struct mls_block_dev *dev;
static struct mls_keyring *keys;
static struct mls_block_ring ring;

static void setup(void)
{
	static const uint8_t master[MLS_KEY_BYTES] = "master", uuid[MLS_UUID_BYTES] = "disk";

	ck_assert_int_eq(mls_block_dev_mem_new(&dev, RING_BLOCKS), 0);
	ck_assert_int_eq(mls_keyring_new(&keys, master, uuid), 0);
	ck_assert_int_eq(mls_block_ring_init(&ring, dev, 0, RING_BLOCKS), 0);
}

static void teardown(void)
{
	mls_keyring_free(keys);
	mls_block_dev_destroy(dev);
}

static void check_round_trip(size_t nr_recs, size_t announce_bytes)
{
	struct mls_chain_pos pos = { .seq = 0, .tag = "before" };
	struct mls_index_rec *recs = calloc(nr_recs + 1, sizeof *recs);
	uint8_t announce[3000];
	struct mls_wal_group in = {
		.head = { .sync_id = 9, .commit = 7, .generation = 3, .session = "session", .settled = true },
		.flags = MLS_WAL_FLAG_SETTLED,
		.announce = announce,
		.announce_bytes = announce_bytes,
		.recs = recs,
		.nr_recs = nr_recs,
	}, out = MLS_WAL_GROUP_INIT;
	struct mls_chain_writer *writer;
	struct mls_chain_reader *reader;
	const uint8_t *bytes;
	size_t nr_bytes;

	memset(announce, 'a', sizeof announce);
	for (size_t i = 0; i < nr_recs; i++)
		recs[i] = (struct mls_index_rec){ .lba = i * 77, .hba = i % 3 ? i : 0, .tag = { (uint8_t)i } };
	ck_assert_int_eq(mls_chain_writer_new(&writer, &ring, keys, MLS_WAL_LABEL, &pos), 0);
	ck_assert_int_eq(mls_wal_write_group(writer, &in), 0);
	ck_assert_uint_eq(mls_chain_writer_pos(writer)->seq, mls_wal_group_blocks(nr_recs, announce_bytes));

	ck_assert_int_eq(mls_chain_reader_new(&reader, &ring, keys, MLS_WAL_LABEL, &pos), 0);
	ck_assert_int_eq(mls_chain_reader_next(reader, &bytes, &nr_bytes), 0);
	ck_assert_int_eq(mls_wal_group_decode(&out, bytes, nr_bytes, mls_chain_reader_pos(reader)->tag), 0);
	memcpy(in.head.tag, mls_chain_writer_pos(writer)->tag, sizeof in.head.tag);
	ck_assert_uint_eq(out.head.sync_id, 9);
	ck_assert_uint_eq(out.head.commit, 7);
	ck_assert_uint_eq(out.head.generation, 3);
	ck_assert(out.head.settled && out.flags == in.flags);
	ck_assert_mem_eq(out.head.session, in.head.session, sizeof in.head.session);
	ck_assert_mem_eq(out.head.tag, in.head.tag, sizeof in.head.tag);
	ck_assert_uint_eq(out.announce_bytes, announce_bytes);
	ck_assert_int_eq(memcmp(out.announce, announce, announce_bytes), 0);
	ck_assert_uint_eq(out.nr_recs, nr_recs);
	ck_assert_int_eq(memcmp(out.recs, recs, nr_recs * sizeof *recs), 0);
	mls_wal_group_release(&out);
	mls_wal_group_release(&out);
	mls_chain_reader_free(reader);
	mls_chain_writer_free(writer);
	free(recs);
}

START_TEST(a_group_comes_back)
{
	static const size_t recs[] = { 0, 1, 123, 124, 127, 128, 129, 1000 };
	static const size_t announce[] = { 0, 1, 40, 3000 };

	for (unsigned i = 0; i < sizeof recs / sizeof *recs; i++)
		for (unsigned k = 0; k < sizeof announce / sizeof *announce; k++)
			check_round_trip(recs[i], announce[k]);
}
END_TEST

/* A group of two records and four bytes of announcements; then each field bent. */
struct raw_group {
	struct mls_wal_group_hdr_disk hdr;
	uint8_t announce[4];
	struct mls_index_rec_disk recs[2];
};

static int decode(const struct raw_group *raw, size_t nr_bytes)
{
	static const uint8_t tag[MLS_TAG_BYTES];
	struct mls_wal_group group = MLS_WAL_GROUP_INIT;
	uint8_t *bytes = malloc(nr_bytes + !nr_bytes);	/* exactly as long: ASan watches */
	int err;

	memcpy(bytes, raw, nr_bytes);
	err = mls_wal_group_decode(&group, bytes, nr_bytes, tag);
	free(bytes);
	if (err)
		ck_assert_ptr_null(group.recs);
	mls_wal_group_release(&group);
	return err;
}

START_TEST(what_cant_be_is_refused)
{
	struct raw_group good = { .announce = "abc" }, bad;

	mls_put_le64(good.hdr.nr_records, 2);
	mls_put_le32(good.hdr.announce_bytes, 4);
	ck_assert_int_eq(decode(&good, sizeof good), 0);
	for (size_t n = 0; n < sizeof good; n++)
		ck_assert_int_eq(decode(&good, n), MLS_EFORMAT);
	bad = good;
	mls_put_le64(bad.hdr.nr_records, 1);
	ck_assert_int_eq(decode(&bad, sizeof bad), MLS_EFORMAT);
	mls_put_le64(bad.hdr.nr_records, UINT64_MAX / 32 + 3);
	ck_assert_int_eq(decode(&bad, sizeof bad), MLS_EFORMAT);
	bad = good;
	mls_put_le32(bad.hdr.announce_bytes, UINT32_MAX);
	ck_assert_int_eq(decode(&bad, sizeof bad), MLS_EFORMAT);
	bad = good;
	bad.hdr.flags = 4;
	ck_assert_int_eq(decode(&bad, sizeof bad), MLS_EFORMAT);
	bad = good;
	mls_put_le64(bad.recs[1].lba, UINT64_MAX);
	ck_assert_int_eq(decode(&bad, sizeof bad), MLS_EFORMAT);
	bad = good;
	mls_put_le64(bad.recs[0].hba, UINT64_MAX);
	ck_assert_int_eq(decode(&bad, sizeof bad), MLS_EFORMAT);
}
END_TEST

/* ---- Edits of the state ---- */

static int add_table(struct mls_lsm_state *state, const struct mls_table_meta *meta)
{
	struct mls_table_add_disk edit;

	mls_table_add_encode(&edit, meta);
	return mls_lsm_state_apply(state, (const uint8_t *)&edit, sizeof edit);
}

START_TEST(edits_that_cant_be_are_refused)
{
	const struct mls_table_meta good = {
		.info = { .log_id = 5, .nr_records = 10, .min_lba = 20, .max_lba = 29 }, .level = 1,
	};
	struct mls_table_meta bad = good;
	uint8_t remove[MLS_TABLE_REMOVE_BYTES], unknown[16] = { 9 };
	struct mls_lsm_state state;

	mls_lsm_state_init(&state);
	bad.level = MLS_NR_LEVELS;
	ck_assert_int_eq(add_table(&state, &bad), MLS_EFORMAT);
	bad = good;
	bad.info.nr_records = 11;
	ck_assert_int_eq(add_table(&state, &bad), MLS_EFORMAT);
	bad.info.nr_records = 0;
	ck_assert_int_eq(add_table(&state, &bad), MLS_EFORMAT);
	bad = good;
	bad.info.min_lba = 30;
	ck_assert_int_eq(add_table(&state, &bad), MLS_EFORMAT);
	bad = good;
	bad.info.max_lba = UINT64_MAX;
	ck_assert_int_eq(add_table(&state, &bad), MLS_EFORMAT);
	ck_assert_int_eq(add_table(&state, &good), 0);
	ck_assert_int_eq(add_table(&state, &good), MLS_EFORMAT);

	mls_table_remove_encode(remove, 6);
	ck_assert_int_eq(mls_lsm_state_apply(&state, remove, sizeof remove), MLS_EFORMAT);
	ck_assert_int_eq(mls_lsm_state_apply(&state, remove, sizeof remove - 1), MLS_EFORMAT);
	ck_assert_int_eq(mls_lsm_state_apply(&state, unknown, sizeof unknown), MLS_EFORMAT);
	ck_assert_int_eq(mls_lsm_state_apply(&state, unknown, 0), MLS_EFORMAT);
	ck_assert_uint_eq(state.nr_tables, 1);
	mls_table_remove_encode(remove, 5);
	ck_assert_int_eq(mls_lsm_state_apply(&state, remove, sizeof remove), 0);
	ck_assert_uint_eq(state.nr_tables, 0);
	mls_lsm_state_release(&state);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("wal");
	TCase *tc = tcase_create("all");

	mls_set_logger(test_log_quiet, NULL);
	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_group_comes_back);
	tcase_add_test(tc, what_cant_be_is_refused);
	tcase_add_test(tc, edits_that_cant_be_are_refused);
	suite_add_tcase(suite, tc);
	return check_run(suite);
}
