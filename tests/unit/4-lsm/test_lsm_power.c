/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_lsm_power.c - a power cut, or failing I/O, at every operation of a workload that flushes,
 * compacts, syncs and reopens; and a second cut inside the recovery.
 *
 * After each: what is recovered is the last completed sync, or the one that was running, whichever
 * the recovery decides on; the listener's counts are those of a scan; and the index goes on.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/check_run.h"
#include "tests/lib/crash_dev.h"
#include "tests/lib/fault_dev.h"
#include "tests/lib/test_log.h"
#include "tests/lib/test_rand.h"
#include "tests/unit/4-lsm/tree_bench.h"

#define NR_STEPS 120u
#define NR_IMAGES 2u
#define OPS_MAX 3000u

static struct tree_world *base_world;
static struct mls_block_dev *base_dev;

static void setup(void)
{
	base_world = tree_world_new();
	ck_assert_int_eq(mls_block_dev_mem_new(&base_dev, TREE_DEV_BLOCKS), 0);
	tree_format(base_world, base_dev);
}

static void teardown(void)
{
	mls_block_dev_destroy(base_dev);
	free(base_world);
}

/* A copy of what setup formatted. */
static struct mls_block_dev *formatted_dev(void)
{
	struct crash_dev *crash = crash_dev_new(base_dev, NULL);
	struct mls_block_dev *copy;

	ck_assert_ptr_nonnull(crash);
	copy = crash_dev_image(crash, 0);
	ck_assert_ptr_nonnull(copy);
	mls_block_dev_destroy(&crash->base);
	return copy;
}

/* The same steps for the same seed; ends at the first error. */
static int run_steps(struct tree_bench *b, uint64_t seed, unsigned nr_steps)
{
	struct test_rand r;
	int err = 0;

	test_rand_seed(&r, seed);
	for (unsigned i = 0; !err && i < nr_steps; i++) {
		/* A quarter memtable at most: then a put is all or nothing. */
		uint64_t nr = test_rand_between(&r, 1, 10), lba = test_rand_below(&r, 150);
		bool mapped = test_rand_chance(&r, 5, 6), sync = test_rand_chance(&r, 1, 5), progress;

		err = tree_put(b, lba, nr, mapped);
		if (!err && sync)
			err = tree_sync(b);
		if (!err && i % 16 == 15)
			err = mls_lsm_compact_all(b->lsm, &progress);
	}
	return err;
}

static int run_all(struct tree_world *world, struct mls_block_dev *dev)
{
	int err;
	struct tree_bench *b = tree_open(world, dev, &tree_inline_opts, &err);

	if (!b)
		return err;
	err = run_steps(b, 11, NR_STEPS);
	tree_check(b);	/* reads go on, with what the caller was told */
	tree_close(b);
	if (err)
		return err;
	b = tree_open(world, dev, &tree_inline_opts, &err);
	if (!b)
		return err;
	err = run_steps(b, 12, NR_STEPS / 2);
	tree_close(b);
	return err;
}

static void check_and_go_on(struct tree_world *world, struct mls_block_dev *dev, uint64_t seed)
{
	struct tree_bench *b = tree_open_ok(world, dev, &tree_inline_opts);

	tree_check(b);
	tree_check_counts(b);
	ck_assert_int_eq(run_steps(b, seed, 6), 0);
	ck_assert_int_eq(tree_sync(b), 0);
	tree_check(b);
	tree_check_counts(b);
	tree_close(b);
}

/* Open with a cut at one of the first operations of the recovery. */
static void cut_in_recovery(struct tree_world *world, struct mls_block_dev *image, uint64_t seed)
{
	struct test_power power = { .cut_at = 1 + seed % 9 };
	struct crash_dev *crash = crash_dev_new(image, &power);
	struct tree_bench *b;
	int err;

	ck_assert_ptr_nonnull(crash);
	b = tree_open(world, &crash->base, &tree_inline_opts, &err);
	if (b)
		tree_close(b);
	crash_dev_cut(crash, seed);
	mls_block_dev_destroy(&crash->base);
}

static void check_image(const struct tree_world *world, struct crash_dev *crash, uint64_t seed)
{
	struct mls_block_dev *image = crash_dev_image(crash, seed);
	struct tree_world *copy = tree_world_new();

	ck_assert_ptr_nonnull(image);
	tree_world_copy(copy, world);
	copy->reject_last = seed & 2;
	if (seed & 1)
		cut_in_recovery(copy, image, seed / 4);
	check_and_go_on(copy, image, seed);
	free(copy);
	mls_block_dev_destroy(image);
}

START_TEST(power_cut_at_every_operation)
{
	bool cut = true;
	uint64_t n;

	for (n = 1; cut; n++) {
		struct mls_block_dev *medium = formatted_dev();
		struct test_power power = { .cut_at = n };
		struct crash_dev *crash = crash_dev_new(medium, &power);
		struct tree_world *world = tree_world_new();
		int err;

		tree_world_copy(world, base_world);
		err = run_all(world, &crash->base);
		cut = power.off;
		ck_assert(cut == (err != 0));
		for (uint64_t i = 0; i < NR_IMAGES; i++)
			check_image(world, crash, test_rand_mix(n, i));
		mls_block_dev_destroy(&crash->base);
		mls_block_dev_destroy(medium);
		free(world);
		ck_assert_uint_lt(n, OPS_MAX);
	}
	ck_assert_uint_gt(n, 100);
}
END_TEST

/* One operation fails; the machine lives on. Whoever was told 0 was told the truth. */
static void fail_each(unsigned kinds, int err, bool sticky)
{
	bool fired = true;

	for (uint64_t n = 1; fired; n++) {
		struct mls_block_dev *medium = formatted_dev();
		struct fault_dev *flaky = fault_dev_new(medium, kinds);
		struct tree_world *world = tree_world_new();
		int got;

		tree_world_copy(world, base_world);
		fault_dev_arm(flaky, n, err, sticky);
		got = run_all(world, &flaky->base);
		fired = flaky->fired;
		ck_assert(got == 0 || fired);
		fault_dev_arm(flaky, 0, 0, false);
		check_and_go_on(world, medium, n);
		mls_block_dev_destroy(&flaky->base);
		mls_block_dev_destroy(medium);
		free(world);
		ck_assert_uint_lt(n, OPS_MAX);
	}
}

START_TEST(each_write_and_flush_fails_once)
{
	fail_each(FAULT_WRITE | FAULT_FLUSH, MLS_EIO, false);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("lsm_power");
	TCase *tc = tcase_create("all");

	mls_set_logger(test_log_quiet, NULL);
	tcase_set_timeout(tc, 300);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, power_cut_at_every_operation);
	tcase_add_test(tc, each_write_and_flush_fails_once);
	suite_add_tcase(suite, tc);
	return check_run(suite);
}
