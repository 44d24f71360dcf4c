/* SPDX-License-Identifier: MPL-2.0 */
/* test_journal.c - what was committed comes back, whole and in order, and the journal stays bounded. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "1-crypto/crypto_chain.h"
#include "2-edit/edit_group.h"
#include "2-edit/journal_reader.h"
#include "base/buf.h"
#include "base/endian.h"
#include "format/mlsdisk_format.h"
#include "tests/lib/check_run.h"
#include "tests/lib/test_log.h"
#include "tests/unit/2-edit/toy.h"

static struct mls_block_dev *dev;

static void setup(void)
{
	ck_assert_int_eq(mls_block_dev_mem_new(&dev, TOY_DEV_BLOCKS), 0);
}

static void teardown(void)
{
	mls_block_dev_destroy(dev);
}

static uint64_t area_hba(unsigned area)
{
	return TOY_HBA + (uint64_t)area * TOY_AREA_BLOCKS;
}

static void *area_copy(unsigned area)
{
	void *blocks = mls_blocks_alloc(TOY_AREA_BLOCKS);

	ck_assert_int_eq(mls_block_dev_read(dev, area_hba(area), TOY_AREA_BLOCKS, blocks), 0);
	return blocks;
}

static void area_put(unsigned area, const void *blocks)
{
	ck_assert_int_eq(mls_block_dev_write(dev, area_hba(area), TOY_AREA_BLOCKS, blocks), 0);
}

static bool of_session(const struct mls_journal_info *info, uint8_t session)
{
	for (unsigned i = 0; i < MLS_SESSION_BYTES; i++)
		if (info->session[i] != session)
			return false;
	return true;
}

/* A session: on what is there, or on nothing; nr commits. */
static void run_session(uint8_t session, uint64_t base, uint64_t nr)
{
	struct world *world = world_open(dev);
	struct mls_journal_info info;
	int err = toy_load_newest(world, &info);

	ck_assert(err == 0 || (err == MLS_ENOENT && base == 0));
	ck_assert(toy_is(world, base, 0));
	ck_assert_int_eq(toy_start(world, session), 0);
	for (uint64_t n = 1; n <= nr; n++) {
		ck_assert_int_eq(toy_commit(world, base, n), 0);
		ck_assert_uint_eq(mls_journal_last_commit(world->journal), n);
	}
	world_close(world);
}

START_TEST(nothing_there)
{
	struct world *world = world_open(dev);
	struct mls_journal_info info;
	unsigned areas[2], nr = 7;

	ck_assert_int_eq(mls_journal_candidates(world->journal, areas, &nr), 0);
	ck_assert_uint_eq(nr, 0);
	ck_assert_int_eq(mls_journal_load(world->journal, 0, &info), MLS_ENOENT);
	ck_assert_int_eq(mls_journal_load(world->journal, 1, &info), MLS_ENOENT);
	ck_assert_int_eq(toy_commit(world, 0, 1), MLS_EROFS);
	world_close(world);
}
END_TEST

START_TEST(impossible_places)
{
	struct mls_journal *journal;

	ck_assert_int_eq(mls_journal_new(&journal, dev, NULL, 0, 0), MLS_EINVAL);
	ck_assert_int_eq(mls_journal_new(&journal, dev, NULL, 0, TOY_DEV_BLOCKS), MLS_EINVAL);
	ck_assert_int_eq(mls_journal_new(&journal, dev, NULL, TOY_DEV_BLOCKS - 5, 3), MLS_EINVAL);
	ck_assert_int_eq(mls_journal_new(&journal, dev, NULL, UINT64_MAX, 64), MLS_EINVAL);
	mls_journal_free(NULL);
}
END_TEST

START_TEST(commits_come_back)
{
	struct world *world;
	struct mls_journal_info info;

	run_session(1, 0, 7);
	world = world_open(dev);
	ck_assert_int_eq(toy_load_newest(world, &info), 0);
	ck_assert(of_session(&info, 1));
	ck_assert_uint_eq(info.commit, 7);
	ck_assert(toy_is(world, 0, 7));
	ck_assert_int_eq(toy_commit(world, 7, 1), MLS_EROFS);	/* loaded, not started */
	world_close(world);
}
END_TEST

/* Goal: each session begins in the area that wasn't loaded, with the state it found, commit 0. */
START_TEST(sessions_follow_each_other)
{
	for (unsigned s = 0; s < 5; s++) {
		struct world *world;
		struct mls_journal_info info;
		unsigned areas[2], nr;

		run_session((uint8_t)(s + 1), s * 3, 3);
		world = world_open(dev);
		ck_assert_int_eq(mls_journal_candidates(world->journal, areas, &nr), 0);
		ck_assert_uint_eq(nr, s == 0 ? 1 : 2);
		ck_assert_uint_eq(areas[0], s % 2);
		ck_assert_int_eq(mls_journal_load(world->journal, areas[0], &info), 0);
		ck_assert(of_session(&info, (uint8_t)(s + 1)) && info.commit == 3 && info.ordinal == s);
		ck_assert(toy_is(world, s * 3, 3));
		if (nr == 2) {		/* the session before is still whole */
			ck_assert_int_eq(mls_journal_load(world->journal, areas[1], &info), 0);
			ck_assert(of_session(&info, (uint8_t)s) && info.commit == 3);
			ck_assert(toy_is(world, (s - 1) * 3, 3));
		}
		world_close(world);
	}
}
END_TEST

/* Goal: a loaded older area is the base of the next session, which overwrites the newer one. */
START_TEST(older_area_may_be_taken)
{
	struct world *world;
	struct mls_journal_info info;

	run_session(1, 0, 3);
	run_session(2, 3, 4);
	world = world_open(dev);
	ck_assert_int_eq(mls_journal_load(world->journal, 1, &info), 0);
	ck_assert_int_eq(mls_journal_load(world->journal, 0, &info), 0);
	ck_assert_int_eq(toy_start(world, 3), 0);
	ck_assert_int_eq(toy_commit(world, 3, 1), 0);
	world_close(world);

	world = world_open(dev);
	ck_assert_int_eq(toy_load_newest(world, &info), 0);
	ck_assert(of_session(&info, 3) && info.commit == 1);
	ck_assert(toy_is(world, 3, 1));
	world_close(world);
}
END_TEST

START_TEST(apply_loaded_goes_into_the_snapshot)
{
	struct world *world;
	struct mls_journal_info info;
	struct mls_edit_group *group;
	uint8_t bad[3] = { 1, 2, 3 };

	run_session(1, 0, 3);
	world = world_open(dev);
	ck_assert_int_eq(toy_load_newest(world, &info), 0);
	ck_assert_int_eq(mls_edit_group_new(&group), 0);
	toy_add(group, MLS_OWNER_LSM, 4000, 99);
	ck_assert_int_eq(mls_journal_apply_loaded(world->journal, group), 0);
	ck_assert_int_eq(mls_edit_add(group, MLS_OWNER_LSM, bad, sizeof bad), 0);
	ck_assert_int_eq(mls_journal_apply_loaded(world->journal, group), MLS_EFORMAT);
	mls_edit_group_free(group);
	ck_assert_int_eq(toy_start(world, 2), 0);
	world_close(world);

	world = world_open(dev);
	ck_assert_int_eq(toy_load_newest(world, &info), 0);
	ck_assert_uint_eq(world->toys[0].cells[4000], 99);
	world->toys[0].cells[4000] = 0;
	ck_assert(toy_is(world, 0, 3));
	world_close(world);
}
END_TEST

/* Goal: 128 blocks take commits for ever, and at any time the newest area has the last one. */
START_TEST(bounded_for_ever)
{
	struct world *world = world_open(dev);

	ck_assert_int_eq(toy_start(world, 1), 0);
	for (uint64_t n = 1; n <= 30000; n++) {
		ck_assert_int_eq(toy_commit(world, 0, n), 0);
		if (n % 613 == 0) {
			struct world *other = world_open(dev);
			struct mls_journal_info info;

			ck_assert_int_eq(toy_load_newest(other, &info), 0);
			ck_assert_uint_eq(info.commit, n);
			ck_assert(toy_is(other, 0, n));
			world_close(other);
		}
	}
	world_close(world);
}
END_TEST

/* Goal: with a snapshot that takes most of an area, and groups of several blocks, all still fits. */
START_TEST(large_snapshots_and_groups)
{
	struct world *world = world_open(dev);
	struct mls_journal_info info;
	struct mls_edit_group *group;

	world->toys[1].fat = 12000;		/* 16 bytes each: 48 blocks */
	ck_assert_int_eq(toy_start(world, 1), 0);
	ck_assert_int_eq(mls_edit_group_new(&group), 0);
	for (uint32_t i = 200; i < 3000; i++)
		toy_add(group, MLS_OWNER_LSM, i, i);	/* 12 blocks */
	for (uint64_t n = 1; n < 100; n++) {
		ck_assert_int_eq(mls_journal_commit(world->journal, group), 0);
		ck_assert_uint_eq(mls_journal_last_commit(world->journal), n);
		/* 48 blocks, and 12 more for the cells: now there's room for the 4 blocks of this only */
		if (n == 1)
			world->toys[1].fat = 8000;
	}
	mls_edit_group_free(group);
	world_close(world);

	world = world_open(dev);
	ck_assert_int_eq(toy_load_newest(world, &info), 0);
	ck_assert_uint_eq(info.commit, 99);
	ck_assert_uint_eq(world->toys[0].cells[2999], 2999);
	world_close(world);
}
END_TEST

/* Goal: what can't fit is refused before anything is written, and the journal goes on. */
START_TEST(too_large_changes_nothing)
{
	struct world *world = world_open(dev);
	struct mls_edit_group *group;

	ck_assert_int_eq(toy_start(world, 1), 0);
	ck_assert_int_eq(toy_commit(world, 0, 1), 0);
	ck_assert_int_eq(mls_edit_group_new(&group), 0);
	while (mls_chain_blocks(mls_edit_group_bytes(group) + 40) < TOY_AREA_BLOCKS)
		for (int i = 0; i < 10; i++)
			toy_add(group, MLS_OWNER_LSM, 0, 1);
	ck_assert_int_eq(mls_journal_commit(world->journal, group), MLS_ENOSPC);
	ck_assert(!mls_journal_poisoned(world->journal));
	ck_assert_int_eq(toy_commit(world, 0, 2), 0);

	/* A snapshot that doesn't fit: ENOSPC where it falls due, no damage before or after. */
	world->toys[0].fat = 17000;
	for (uint64_t n = 3; n < 200; n++) {
		int err = toy_commit(world, 0, n);

		if (err) {
			ck_assert_int_eq(err, MLS_ENOSPC);
			ck_assert_int_eq(toy_commit(world, 0, n), MLS_ENOSPC);
			ck_assert(!mls_journal_poisoned(world->journal));
			ck_assert(toy_is(world, 0, n - 1));
			world->toys[0].fat = 0;
			ck_assert_int_eq(toy_commit(world, 0, n), 0);
			ck_assert_int_eq(toy_commit(world, 0, n + 1), 0);
			break;
		}
		ck_assert_uint_lt(n, 199);
	}
	mls_edit_group_free(group);
	world_close(world);
}
END_TEST

/* Goal: the long chain of an earlier life behind a short new one is never read as its continuation. */
START_TEST(earlier_life_is_no_continuation)
{
	struct world *world;
	struct mls_journal_info info;

	run_session(1, 0, 40);			/* area 0: 41 blocks */
	run_session(2, 40, 0);			/* area 1: its snapshot */
	run_session(3, 40, 0);			/* area 0: one or two blocks, then session 1's */
	world = world_open(dev);
	ck_assert_int_eq(mls_journal_load(world->journal, 0, &info), 0);
	ck_assert(of_session(&info, 3));
	ck_assert_uint_eq(info.commit, 0);
	ck_assert(toy_is(world, 40, 0));
	world_close(world);
}
END_TEST

/* Goal: a flipped bit ends the chain there: a prefix of the commits, or no snapshot; never other edits. */
START_TEST(tampered_area_is_a_prefix)
{
	run_session(1, 0, 10);
	for (uint64_t block = 0; block <= 10; block++) {
		for (unsigned at = 0; at < MLS_BLOCK_BYTES; at += at < 96 ? 1 : 397) {
			struct world *world = world_open(dev);
			uint8_t *blocks = area_copy(0), *byte = blocks + block * MLS_BLOCK_BYTES + at;
			struct mls_journal_info info;
			int err;

			*byte ^= 0x10;
			area_put(0, blocks);
			err = mls_journal_load(world->journal, 0, &info);
			if (block == 0) {
				ck_assert_int_eq(err, MLS_ENOENT);
				ck_assert(toy_is(world, 0, 0));
			} else {
				ck_assert_int_eq(err, 0);
				ck_assert_uint_eq(info.commit, block - 1);
				ck_assert(toy_is(world, 0, block - 1));
			}
			*byte ^= 0x10;
			area_put(0, blocks);
			mls_blocks_free(blocks);
			world_close(world);
		}
	}
}
END_TEST

/* Goal: an area put back, or blocks of it mixed into the new one, shows an old whole state by its own
 * session and number, which the caller compares; never a mixture. */
START_TEST(replayed_area_says_which_it_is)
{
	struct world *world = world_open(dev);
	struct mls_journal_info info;
	uint8_t *old, *new;

	ck_assert_int_eq(toy_start(world, 1), 0);
	for (uint64_t n = 1; n <= 20; n++)
		ck_assert_int_eq(toy_commit(world, 0, n), 0);
	old = area_copy(0);
	world_close(world);
	run_session(2, 20, 5);
	run_session(3, 25, 10);
	new = area_copy(0);

	for (unsigned from = 0; from <= 15; from++) {
		uint8_t *mixed = area_copy(0);

		memcpy(mixed + from * MLS_BLOCK_BYTES, old + from * MLS_BLOCK_BYTES,
		       (TOY_AREA_BLOCKS - from) * MLS_BLOCK_BYTES);
		area_put(0, mixed);
		world = world_open(dev);
		if (from == 0) {
			ck_assert_int_eq(mls_journal_load(world->journal, 0, &info), 0);
			ck_assert(of_session(&info, 1) && info.commit == 20);
			ck_assert(toy_is(world, 0, 20));
		} else if (mls_journal_load(world->journal, 0, &info) == 0) {
			ck_assert(of_session(&info, 3) && info.commit <= 10);
			ck_assert(toy_is(world, 25, info.commit));
		} else {
			ck_assert_uint_lt(from, 3);	/* within the snapshot */
		}
		world_close(world);
		mls_blocks_free(mixed);
		area_put(0, new);
	}
	mls_blocks_free(old);
	mls_blocks_free(new);
}
END_TEST

/* Goal: damage to the newest snapshot leaves the area out; the other is still a candidate. */
START_TEST(candidates_have_whole_snapshots)
{
	struct world *world;
	unsigned areas[2], nr;
	uint8_t *blocks;

	run_session(1, 0, 2);
	run_session(2, 2, 2);
	blocks = area_copy(1);
	blocks[100] ^= 1;
	area_put(1, blocks);
	world = world_open(dev);
	ck_assert_int_eq(mls_journal_candidates(world->journal, areas, &nr), 0);
	ck_assert_uint_eq(nr, 1);
	ck_assert_uint_eq(areas[0], 0);
	world_close(world);
	mls_blocks_free(blocks);
}
END_TEST

/* ---- Authentic groups that can't be: what only our own bugs, or a holder of the key, could write ---- */

struct forged {
	uint8_t kind;
	uint8_t session;
	uint64_t commit, ordinal;
	size_t hdr_bytes;		/* 0: all */
	uint8_t edits[32];
	size_t edit_bytes;
};

static void forge(const struct forged *groups, unsigned nr)
{
	struct world *world = world_open(dev);
	const struct mls_chain_pos birth = { 0 };
	struct mls_chain_writer *writer;
	struct mls_block_ring ring;

	ck_assert_int_eq(mls_block_ring_init(&ring, dev, area_hba(0), TOY_AREA_BLOCKS), 0);
	ck_assert_int_eq(mls_chain_writer_new(&writer, &ring, world->keys, MLS_JOURNAL_LABEL, &birth), 0);
	for (unsigned i = 0; i < nr; i++) {
		struct mls_journal_hdr_disk hdr = { .kind = groups[i].kind };
		size_t hdr_bytes = groups[i].hdr_bytes ? groups[i].hdr_bytes : sizeof hdr;

		memset(hdr.session, groups[i].session, sizeof hdr.session);
		mls_put_le64(hdr.commit, groups[i].commit);
		mls_put_le64(hdr.ordinal, groups[i].ordinal);
		ck_assert_int_eq(mls_chain_begin(writer), 0);
		ck_assert_int_eq(mls_chain_put(writer, &hdr, hdr_bytes), 0);
		ck_assert_int_eq(mls_chain_put(writer, groups[i].edits, groups[i].edit_bytes), 0);
		ck_assert_int_eq(mls_chain_end(writer), 0);
	}
	mls_chain_writer_free(writer);
	world_close(world);
}

static int load_forged(const struct forged *groups, unsigned nr)
{
	struct mls_journal_info info;
	struct world *world;
	int err;

	forge(groups, nr);
	world = world_open(dev);
	err = mls_journal_load(world->journal, 0, &info);
	if (err)
		ck_assert(toy_is(world, 0, 0));
	world_close(world);
	return err;
}

#define SNAPSHOT { .kind = MLS_JOURNAL_SNAPSHOT, .session = 1, .commit = 5, .ordinal = 9 }
#define EDIT_OK { MLS_OWNER_LSM, 0, 12, 0, 7 }

START_TEST(authentic_nonsense_is_refused)
{
	const struct forged good[] = { SNAPSHOT, { .session = 1, .commit = 6, .ordinal = 9, .edits = EDIT_OK,
						   .edit_bytes = 16 } };
	const struct forged bad_first[] = {
		{ .kind = 0, .session = 1 },
		{ .kind = 2, .session = 1 },
		{ .kind = 1, .session = 1, .hdr_bytes = 39 },
		{ .kind = 1, .edits = { MLS_OWNER_LSM }, .edit_bytes = 1 },
		{ .kind = 1, .edits = { MLS_OWNER_LSM, 0, 13 }, .edit_bytes = 16 },
		{ .kind = 1, .edits = { MLS_OWNER_LSM, 0, 11 }, .edit_bytes = 15 },
		{ .kind = 1, .edits = { MLS_OWNER_LSM, 0, 0 }, .edit_bytes = 4 },
		{ .kind = 1, .edits = { MLS_OWNER_LSM, 1, 12 }, .edit_bytes = 16 },
		{ .kind = 1, .edits = { MLS_OWNER_LOGS, 0, 12 }, .edit_bytes = 16 },	/* no such owner set */
		{ .kind = 1, .edits = { MLS_NR_OWNERS, 0, 12 }, .edit_bytes = 16 },
		{ .kind = 1, .edits = { 0, 0, 12 }, .edit_bytes = 16 },
	};
	const struct forged bad_second[] = {
		{ .session = 1, .commit = 5, .ordinal = 9 },
		{ .session = 1, .commit = 7, .ordinal = 9 },
		{ .session = 2, .commit = 6, .ordinal = 9 },
		{ .session = 1, .commit = 6, .ordinal = 8 },
		{ .kind = MLS_JOURNAL_SNAPSHOT, .session = 1, .commit = 6, .ordinal = 9 },
		{ .session = 1, .commit = 6, .ordinal = 9, .edits = { MLS_OWNER_LSM, 0, 12, 0, 0, 16 },
		  .edit_bytes = 16 },
	};

	ck_assert_int_eq(load_forged(good, 2), 0);
	for (size_t i = 0; i < sizeof bad_first / sizeof *bad_first; i++)
		ck_assert_msg(load_forged(&bad_first[i], 1) == MLS_EFORMAT, "first %zu", i);
	for (size_t i = 0; i < sizeof bad_second / sizeof *bad_second; i++) {
		const struct forged groups[2] = { SNAPSHOT, bad_second[i] };

		ck_assert_msg(load_forged(groups, 2) == MLS_EFORMAT, "second %zu", i);
	}
}
END_TEST

START_TEST(area_sizes)
{
	uint64_t before = 0;

	for (uint64_t nr_runs = 1; nr_runs < UINT64_C(1) << 40; nr_runs *= 2) {
		uint64_t blocks = mls_journal_area_blocks(nr_runs);

		ck_assert_uint_ge(blocks, 64);
		ck_assert_uint_ge(blocks, before);
		ck_assert_uint_gt(blocks * MLS_CHAIN_ROOM_BYTES, nr_runs * 128);
		ck_assert_uint_lt(blocks, 100 + nr_runs / 10);
		before = blocks;
	}
	ck_assert_uint_ge(mls_journal_area_blocks(UINT64_MAX), before);
}
END_TEST

START_TEST(edit_groups)
{
	struct mls_edit_group *a, *b;
	uint8_t big[MLS_EDIT_BYTES_MAX] = { 42 };
	struct mls_edit edit;
	const uint8_t *at;
	size_t left;

	ck_assert_int_eq(mls_edit_group_new(&a), 0);
	ck_assert_int_eq(mls_edit_group_new(&b), 0);
	ck_assert_uint_eq(mls_edit_group_bytes(a), 0);
	ck_assert_int_eq(mls_edit_group_append(a, b), 0);
	ck_assert_int_eq(mls_edit_add(a, MLS_OWNER_LSM, "x", 1), 0);
	ck_assert_int_eq(mls_edit_add(b, MLS_OWNER_LOGS, big, sizeof big), 0);
	ck_assert_int_eq(mls_edit_add(b, MLS_OWNER_SEGMENTS, "yz", 2), 0);
	ck_assert_int_eq(mls_edit_group_append(a, b), 0);
	ck_assert_uint_eq(mls_edit_group_bytes(a), 3 * 4 + 1 + sizeof big + 2);

	at = mls_edit_group_data(a);
	left = mls_edit_group_bytes(a);
	ck_assert_int_eq(mls_edit_next(&at, &left, &edit), 0);
	ck_assert(edit.owner == MLS_OWNER_LSM && edit.bytes == 1 && edit.data[0] == 'x');
	ck_assert_int_eq(mls_edit_next(&at, &left, &edit), 0);
	ck_assert(edit.owner == MLS_OWNER_LOGS && edit.bytes == sizeof big && edit.data[0] == 42);
	ck_assert_int_eq(mls_edit_next(&at, &left, &edit), 0);
	ck_assert(edit.owner == MLS_OWNER_SEGMENTS && edit.bytes == 2 && memcmp(edit.data, "yz", 2) == 0);
	ck_assert_int_eq(mls_edit_next(&at, &left, &edit), MLS_ENOENT);
	mls_edit_group_free(a);
	mls_edit_group_free(b);
	mls_edit_group_free(NULL);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("journal");
	TCase *tc = tcase_create("all");

	mls_set_logger(test_log_quiet, NULL);
	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, nothing_there);
	tcase_add_test(tc, impossible_places);
	tcase_add_test(tc, commits_come_back);
	tcase_add_test(tc, sessions_follow_each_other);
	tcase_add_test(tc, older_area_may_be_taken);
	tcase_add_test(tc, apply_loaded_goes_into_the_snapshot);
	tcase_add_test(tc, bounded_for_ever);
	tcase_add_test(tc, large_snapshots_and_groups);
	tcase_add_test(tc, too_large_changes_nothing);
	tcase_add_test(tc, earlier_life_is_no_continuation);
	tcase_add_test(tc, tampered_area_is_a_prefix);
	tcase_add_test(tc, replayed_area_says_which_it_is);
	tcase_add_test(tc, candidates_have_whole_snapshots);
	tcase_add_test(tc, authentic_nonsense_is_refused);
	tcase_add_test(tc, area_sizes);
	tcase_add_test(tc, edit_groups);
	suite_add_tcase(suite, tc);	return check_run(suite);
}
