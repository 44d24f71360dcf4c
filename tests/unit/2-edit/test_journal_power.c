/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_journal_power.c - power cuts and failing I/O at every operation of the journal.
 *
 * The workload is a second session on top of a first: its start, and commits enough for two changes
 * of area, with a snapshot of several blocks. After each cut or failure the journal must show the
 * state of the last commit that returned, or of the one that was in flight, all of it.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/check_run.h"
#include "tests/lib/crash_dev.h"
#include "tests/lib/fault_dev.h"
#include "tests/lib/test_log.h"
#include "tests/unit/2-edit/toy.h"

#define BASE_COMMITS 30u		/* of the first session */
#define NR_COMMITS 30u			/* of the second */
#define FAT 12000u			/* 48 blocks more in each snapshot */
#define NR_IMAGES 4u
#define OPS_MAX 1000u

static struct mls_block_dev *medium_with_first_session(void)
{
	struct mls_block_dev *medium;
	struct world *world;

	ck_assert_int_eq(mls_block_dev_mem_new(&medium, TOY_DEV_BLOCKS), 0);
	world = world_open(medium);
	ck_assert_int_eq(toy_start(world, 1), 0);
	for (uint64_t n = 1; n <= BASE_COMMITS; n++)
		ck_assert_int_eq(toy_commit(world, 0, n), 0);
	world_close(world);
	return medium;
}

struct outcome {
	bool started;
	uint64_t acked;			/* commits that returned 0 */
	int err;			/* of the first call that failed */
};

/* The second session, until a call fails. */
static struct outcome run_workload(struct world *world)
{
	struct outcome out = { 0 };
	struct mls_journal_info info;

	out.err = toy_load_newest(world, &info);
	if (out.err)
		return out;
	ck_assert(toy_is(world, 0, BASE_COMMITS));
	world->toys[0].fat = FAT;
	out.err = toy_start(world, 2);
	if (out.err)
		return out;
	out.started = true;
	for (uint64_t n = 1; n <= NR_COMMITS; n++) {
		out.err = toy_commit(world, BASE_COMMITS, n);
		ck_assert_uint_eq(mls_journal_last_commit(world->journal), out.err ? n - 1 : n);
		if (out.err)
			return out;
		out.acked = n;
	}
	return out;
}

/* What dev holds is what may be left of a workload with this outcome. */
static void check_left(struct mls_block_dev *dev, const struct outcome *out)
{
	struct world *world = world_open(dev);
	struct mls_journal_info info;

	ck_assert_int_eq(toy_load_newest(world, &info), 0);
	if (info.session[0] == 1) {
		ck_assert(!out->started);
		ck_assert_uint_eq(info.commit, BASE_COMMITS);
		ck_assert(toy_is(world, 0, BASE_COMMITS));
	} else {
		ck_assert_uint_eq(info.session[0], 2);
		if (info.commit != out->acked)
			ck_assert(out->err && out->started && info.commit == out->acked + 1);
		ck_assert(toy_is(world, BASE_COMMITS, info.commit));
	}
	world_close(world);
}

/* Open dev again, with a cut at each operation of the start, and each time look at what is left. */
static void crash_again(struct mls_block_dev *dev, uint64_t seed)
{
	bool cut = true;

	for (uint64_t n = 1; cut; n++) {
		struct test_power power = { .cut_at = n };
		struct crash_dev *crash = crash_dev_new(dev, &power);
		struct mls_journal_info before, after;
		struct world *world = world_open(&crash->base);
		struct mls_block_dev *image;
		uint64_t value;
		int err;

		ck_assert_int_eq(toy_load_newest(world, &before), 0);
		value = world->toys[0].cells[0];
		err = toy_start(world, 3);
		cut = power.off;
		ck_assert(!err == !cut);
		world_close(world);

		image = crash_dev_image(crash, seed + n);
		world = world_open(image);
		ck_assert_int_eq(toy_load_newest(world, &after), 0);
		if (after.session[0] == 3)
			ck_assert_uint_eq(after.commit, 0);
		else
			ck_assert(cut && after.session[0] == before.session[0] &&
				  after.commit == before.commit);
		ck_assert_uint_eq(world->toys[0].cells[0], value);
		ck_assert_uint_eq(world->toys[1].cells[0], value);
		world_close(world);
		mls_block_dev_destroy(image);
		mls_block_dev_destroy(&crash->base);
		ck_assert_uint_lt(n, OPS_MAX);
	}
}

START_TEST(power_cut_at_every_operation)
{
	bool cut = true;

	for (uint64_t n = 1; cut; n++) {
		struct mls_block_dev *medium = medium_with_first_session();
		struct test_power power = { .cut_at = n };
		struct crash_dev *crash = crash_dev_new(medium, &power);
		struct world *world = world_open(&crash->base);
		struct outcome out = run_workload(world);

		cut = power.off;
		ck_assert(!out.err == !cut);
		world_close(world);
		for (uint64_t i = 0; i < NR_IMAGES; i++) {
			struct mls_block_dev *image = crash_dev_image(crash, n * NR_IMAGES + i);

			check_left(image, &out);
			if (i == 0)
				crash_again(image, n * OPS_MAX);
			mls_block_dev_destroy(image);
		}
		mls_block_dev_destroy(&crash->base);
		mls_block_dev_destroy(medium);
		ck_assert_uint_lt(n, OPS_MAX);
	}
}
END_TEST

/* Goal: a failed write or flush comes out, poisons for good, and leaves the state before or after. */
static void fail_each(unsigned kinds, bool sticky)
{
	bool fired = true;

	for (uint64_t n = 1; fired; n++) {
		struct mls_block_dev *medium = medium_with_first_session();
		struct fault_dev *flaky = fault_dev_new(medium, kinds);
		struct world *world = world_open(&flaky->base);
		struct outcome out;

		fault_dev_arm(flaky, n, MLS_EIO, sticky);
		out = run_workload(world);
		fired = flaky->fired;
		ck_assert_int_eq(out.err, fired ? MLS_EIO : 0);
		ck_assert(mls_journal_poisoned(world->journal) == fired);
		if (fired) {
			ck_assert_int_eq(toy_commit(world, BASE_COMMITS, 7), MLS_EPOISONED);
			ck_assert_uint_eq(mls_journal_last_commit(world->journal), out.acked);
			ck_assert(toy_is(world, BASE_COMMITS, out.acked));
		}
		world_close(world);
		check_left(medium, &out);
		mls_block_dev_destroy(&flaky->base);
		mls_block_dev_destroy(medium);
		ck_assert_uint_lt(n, OPS_MAX);
	}
}

START_TEST(write_or_flush_fails_once)
{
	fail_each(FAULT_WRITE | FAULT_FLUSH, false);
}
END_TEST

START_TEST(write_or_flush_fails_for_ever)
{
	fail_each(FAULT_WRITE | FAULT_FLUSH, true);
}
END_TEST

/* Goal: a read error comes out as MLS_EIO, or as what the other area holds, which says its age. */
static void fail_each_read(bool sticky)
{
	struct mls_block_dev *medium = medium_with_first_session();
	struct world *world = world_open(medium);
	struct outcome whole = run_workload(world);
	bool fired = true;

	ck_assert_int_eq(whole.err, 0);
	world_close(world);
	for (uint64_t n = 1; fired; n++) {
		struct fault_dev *flaky = fault_dev_new(medium, FAULT_READ);
		struct mls_journal_info info;
		int err;

		world = world_open(&flaky->base);
		fault_dev_arm(flaky, n, MLS_EIO, sticky);
		err = toy_load_newest(world, &info);
		fired = flaky->fired;
		ck_assert(err == 0 || (fired && err == MLS_EIO));
		if (!err) {
			ck_assert_uint_eq(info.session[0], 2);
			ck_assert(info.commit == NR_COMMITS || (fired && info.commit < NR_COMMITS));
			ck_assert(toy_is(world, BASE_COMMITS, info.commit));
		} else {
			ck_assert(toy_is(world, 0, 0));
		}
		world_close(world);
		mls_block_dev_destroy(&flaky->base);
		ck_assert_uint_lt(n, OPS_MAX);
	}
	mls_block_dev_destroy(medium);
}

START_TEST(read_fails_once)
{
	fail_each_read(false);
}
END_TEST

START_TEST(read_fails_for_ever)
{
	fail_each_read(true);
}
END_TEST

/* ---- A group is only as good as what it refers to ---- */

/* Goal: whatever the group refers to was written before and is durable if the group is. Method: write
 * a number to a block of its own, commit it, cut; an image that has commit n has block >= n. */
START_TEST(commit_makes_earlier_writes_durable)
{
	const uint64_t hba = TOY_DEV_BLOCKS - 1;
	static uint8_t block[MLS_BLOCK_BYTES] __attribute__((aligned(MLS_BLOCK_BYTES)));
	bool cut = true;

	for (uint64_t n = 1; cut; n++) {
		struct mls_block_dev *medium = medium_with_first_session();
		struct test_power power = { .cut_at = n };
		struct crash_dev *crash = crash_dev_new(medium, &power);
		struct world *world = world_open(&crash->base);
		int err;

		world->toys[0].fat = FAT;
		err = toy_start(world, 2);
		for (uint8_t i = 1; i <= 20 && !err; i++) {
			memset(block, i, sizeof block);
			err = mls_block_dev_write(&crash->base, hba, 1, block);
			if (!err)
				err = toy_commit(world, 0, i);
		}
		cut = power.off;
		world_close(world);
		for (uint64_t i = 0; i < NR_IMAGES; i++) {
			struct mls_block_dev *image = crash_dev_image(crash, n * NR_IMAGES + i);
			struct mls_journal_info info;

			world = world_open(image);
			if (toy_load_newest(world, &info) == 0 && info.session[0] == 2 && info.commit > 0) {
				ck_assert_int_eq(mls_block_dev_read(image, hba, 1, block), 0);
				for (unsigned b = 0; b < sizeof block; b++)
					ck_assert_uint_ge(block[b], info.commit);
			}
			world_close(world);
			mls_block_dev_destroy(image);
		}
		mls_block_dev_destroy(&crash->base);
		mls_block_dev_destroy(medium);
		ck_assert_uint_lt(n, OPS_MAX);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("journal_power");
	TCase *tc = tcase_create("all");

	mls_set_logger(test_log_quiet, NULL);
	tcase_set_timeout(tc, 240);
	tcase_add_test(tc, power_cut_at_every_operation);
	tcase_add_test(tc, write_or_flush_fails_once);
	tcase_add_test(tc, write_or_flush_fails_for_ever);
	tcase_add_test(tc, read_fails_once);
	tcase_add_test(tc, read_fails_for_ever);
	tcase_add_test(tc, commit_makes_earlier_writes_durable);
	suite_add_tcase(suite, tc);	return check_run(suite);
}
