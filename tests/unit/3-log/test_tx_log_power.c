/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_tx_log_power.c - power cuts and failing I/O at every operation of transactions.
 *
 * Step k of the workload is one transaction: create log k, delete log k - 2, and set the number of
 * the owner above to k. So the number says which logs there must be: k - 1 and k, and no others.
 */
#include <check.h>
#include <stdlib.h>

#include "tests/lib/check_run.h"
#include "tests/lib/crash_dev.h"
#include "tests/lib/fault_dev.h"
#include "tests/lib/test_log.h"
#include "tests/unit/3-log/log_bench.h"

#define NR_STEPS 8u
#define NR_IMAGES 4u
#define OPS_MAX 1000u

static uint32_t blocks_of(uint64_t step)
{
	return (uint32_t)(1 + step * 37 % 90);
}

static int run_step(struct bench *bench, uint64_t step)
{
	struct mls_tx *tx;
	uint64_t id;
	int err;

	ck_assert_int_eq(mls_tx_begin(bench->store, &tx), 0);
	err = bench_add_log(tx, 0, blocks_of(step), &id);
	if (!err && step > 2)
		err = mls_tx_log_delete(tx, step - 2);
	if (!err) {
		ck_assert_uint_eq(id, step);
		err = bench_add_value(tx, step, step);
	}
	if (err) {
		ck_assert_int_eq(mls_tx_commit(tx), MLS_EABORTED);
		return err;
	}
	return mls_tx_commit(tx);
}

/* Exactly the logs after this step, readable, and each run in one place. */
static void check_state(struct bench *bench, uint64_t step)
{
	ck_assert_uint_eq(bench->value, step);
	ck_assert_uint_eq(bench_nr_logs(bench, -1), step < 2 ? step : 2);
	if (step >= 1)
		ck_assert(bench_has(bench, step, blocks_of(step)));
	if (step >= 2)
		ck_assert(bench_has(bench, step - 1, blocks_of(step - 1)));
	if (!mls_journal_poisoned(bench->journal))
		ck_assert_uint_eq(mls_chunk_alloc_nr_free(bench->alloc), bench_nr_free_by_list(bench));
}

/* Open and run to the end or the first error; *acked: steps that returned 0. */
static int run_workload(struct bench *bench, uint64_t *acked)
{
	int err = 0;

	for (uint64_t step = *acked + 1; step <= NR_STEPS && !err; step++) {
		err = run_step(bench, step);
		if (!err)
			*acked = step;
	}
	check_state(bench, *acked);
	return err;
}

/* What dev holds is the state of step acked or, if one was in flight, of the next; and it goes on. */
static void check_left(struct mls_block_dev *dev, uint64_t acked, bool in_flight)
{
	struct bench *bench = bench_open_ok(dev);
	uint64_t id;

	ck_assert(bench->value == acked || (in_flight && bench->value == acked + 1));
	check_state(bench, bench->value);
	ck_assert_int_eq(bench_create(bench, 1, 50, 0, &id), 0);
	ck_assert_uint_gt(id, bench->value);
	ck_assert(bench_has(bench, id, 50));
	ck_assert_int_eq(bench_delete(bench, id), 0);
	check_state(bench, bench->value);
	bench_close(bench);
}

START_TEST(power_cut_at_every_operation)
{
	bool cut = true;

	for (uint64_t n = 1; cut; n++) {
		struct mls_block_dev *medium;
		struct test_power power = { .cut_at = 0 };
		struct crash_dev *crash;
		struct bench *bench;
		uint64_t acked = 0;
		int err;

		ck_assert_int_eq(mls_block_dev_mem_new(&medium, BENCH_DEV_BLOCKS), 0);
		bench_close(bench_open_ok(medium));
		crash = crash_dev_new(medium, &power);
		test_power_on(&power, n);
		bench = bench_open(&crash->base, &err);
		if (bench) {
			err = run_workload(bench, &acked);
			bench_close(bench);
		}
		cut = power.off;
		ck_assert(!err == !cut);
		for (uint64_t i = 0; i < NR_IMAGES; i++) {
			struct mls_block_dev *image = crash_dev_image(crash, n * NR_IMAGES + i);

			check_left(image, acked, err != 0);
			mls_block_dev_destroy(image);
		}
		mls_block_dev_destroy(&crash->base);
		mls_block_dev_destroy(medium);
		ck_assert_uint_lt(n, OPS_MAX);
	}
}
END_TEST

/* Goal: the error comes out, the state is that before, no run is lost as long as the journal lives. */
static void fail_each(int fail_err, bool sticky)
{
	bool fired = true;

	for (uint64_t n = 1; fired; n++) {
		struct mls_block_dev *medium;
		struct fault_dev *flaky;
		struct bench *bench;
		uint64_t acked = 0;
		int err;

		ck_assert_int_eq(mls_block_dev_mem_new(&medium, BENCH_DEV_BLOCKS), 0);
		bench_close(bench_open_ok(medium));
		flaky = fault_dev_new(medium, FAULT_WRITE | FAULT_FLUSH);
		fault_dev_arm(flaky, n, fail_err, sticky);
		bench = bench_open(&flaky->base, &err);
		if (bench) {
			bool poisoned;

			err = run_workload(bench, &acked);
			poisoned = mls_journal_poisoned(bench->journal);
			if (poisoned) {
				uint64_t id;
				int again = bench_create(bench, 0, 3, 0, &id);

				ck_assert(again == MLS_EPOISONED || (sticky && again == fail_err));
				check_state(bench, acked);
			}
			bench_close(bench);
			check_left(medium, acked, poisoned);
		}
		fired = flaky->fired;
		ck_assert_int_eq(err, fired ? fail_err : 0);
		mls_block_dev_destroy(&flaky->base);
		mls_block_dev_destroy(medium);
		ck_assert_uint_lt(n, OPS_MAX);
	}
}

START_TEST(io_fails_once)
{
	fail_each(MLS_EIO, false);
}
END_TEST

START_TEST(io_fails_for_ever)
{
	fail_each(MLS_EIO, true);
}
END_TEST

START_TEST(host_has_no_space)
{
	fail_each(MLS_ENOSPC, false);
}
END_TEST

/* Goal: a write that fails in an append is gone with its transaction; the store lives on. */
START_TEST(failed_append_aborts_only_its_transaction)
{
	struct mls_block_dev *medium;
	struct fault_dev *flaky;
	struct bench *bench;
	struct mls_tx *other;
	uint64_t id, kept;

	ck_assert_int_eq(mls_block_dev_mem_new(&medium, BENCH_DEV_BLOCKS), 0);
	flaky = fault_dev_new(medium, FAULT_WRITE);
	bench = bench_open_ok(&flaky->base);
	ck_assert_int_eq(mls_tx_begin(bench->store, &other), 0);
	ck_assert_int_eq(bench_add_log(other, 0, 20, &kept), 0);

	fault_dev_arm(flaky, 1, MLS_EIO, false);
	ck_assert_int_eq(bench_create(bench, 0, 20, 0, &id), MLS_EIO);
	ck_assert(!mls_journal_poisoned(bench->journal));
	ck_assert_uint_eq(mls_chunk_alloc_nr_free(bench->alloc), BENCH_NR_RUNS - 2);	/* other's */
	ck_assert_int_eq(mls_tx_commit(other), 0);
	ck_assert(bench_has(bench, kept, 20));
	bench_close(bench);
	mls_block_dev_destroy(&flaky->base);
	mls_block_dev_destroy(medium);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("tx_log_power");
	TCase *tc = tcase_create("all");

	mls_set_logger(test_log_quiet, NULL);
	tcase_set_timeout(tc, 240);
	tcase_add_test(tc, power_cut_at_every_operation);
	tcase_add_test(tc, io_fails_once);
	tcase_add_test(tc, io_fails_for_ever);
	tcase_add_test(tc, host_has_no_space);
	tcase_add_test(tc, failed_append_aborts_only_its_transaction);
	suite_add_tcase(suite, tc);	return check_run(suite);
}
