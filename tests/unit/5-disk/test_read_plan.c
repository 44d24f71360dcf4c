/* SPDX-License-Identifier: MPL-2.0 */
/* test_read_plan.c - every block of a read comes to its place, in no more transfers than need be. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "4-lsm/record.h"
#include "5-disk/read_plan.h"
#include "base/buf.h"
#include "tests/lib/check_run.h"
#include "tests/lib/test_rand.h"

#define NR MLS_CHUNK_IO_BLOCKS
#define NOT_READ 0xee

static uint8_t *out;
static struct mls_read_plan plan;
static struct mls_read_pool pool;

/* The device's block at hba begins with its number; transfers come in any order. */
static void transfer(void)
{
	struct test_rand rand;
	unsigned first;

	test_rand_seed(&rand, plan.nr_ios);
	first = plan.nr_ios ? (unsigned)test_rand_below(&rand, plan.nr_ios) : 0;
	for (unsigned n = 0; n < plan.nr_ios; n++) {
		struct mls_io *io = &plan.ios[(first + n) % plan.nr_ios];

		for (uint32_t b = 0; b < io->nr_blocks; b++) {
			uint64_t hba = io->hba + b;

			memset(mls_block_at(io->data, b), 0, MLS_BLOCK_BYTES);
			memcpy(mls_block_at(io->data, b), &hba, sizeof hba);
		}
	}
}

static bool is_in_place(uint32_t i, uint64_t hba)
{
	return memcmp(plan.at[i], &hba, sizeof hba) == 0 && (plan.extra || plan.at[i] == mls_block_at(out, i));
}

/* What isn't read keeps what it was: a block of zeros, or one that came from memory. Returns the number of transfers. */
static unsigned check_plan(const uint64_t *hbas, uint32_t nr)
{
	unsigned nr_ios;

	memset(out, NOT_READ, NR * MLS_BLOCK_BYTES);
	mls_read_plan_make(&plan, &pool, hbas, nr, out);
	transfer();
	for (uint32_t i = 0; i < nr; i++)
		ck_assert(hbas[i] == MLS_HBA_NONE ? mls_block_at(out, i)[0] == NOT_READ : is_in_place(i, hbas[i]));
	nr_ios = plan.nr_ios;
	mls_read_plan_release(&plan);
	return nr_ios;
}

static void setup(void)
{
	out = mls_blocks_alloc(NR);
	ck_assert_ptr_nonnull(out);
	ck_assert_int_eq(mls_read_pool_init(&pool, 2), 0);
}

static void teardown(void)
{
	ck_assert_uint_eq(pool.nr_free, 2);
	mls_read_pool_release(&pool);
	mls_blocks_free(out);
}

START_TEST(layouts_and_what_they_take)
{
	uint64_t hbas[NR];

	for (uint32_t i = 0; i < NR; i++)
		hbas[i] = MLS_HBA_NONE;
	ck_assert_uint_eq(check_plan(hbas, NR), 0);
	ck_assert_uint_eq(check_plan(hbas, 0), 0);
	for (uint32_t i = 0; i < NR; i++)		/* in sequence */
		hbas[i] = 1000 + i;
	ck_assert_uint_eq(check_plan(hbas, NR), 1);
	ck_assert_uint_eq(check_plan(hbas, 1), 1);
	for (uint32_t i = 3; i < NR; i += 10)		/* overwritten here and there */
		hbas[i] = 100000 * (i + 1);
	ck_assert_uint_eq(check_plan(hbas, NR), 1 + (NR + 6) / 10);
	for (uint32_t i = 3; i < NR; i += 10)		/* discarded there */
		hbas[i] = MLS_HBA_NONE;
	ck_assert_uint_eq(check_plan(hbas, NR), 1);
	for (uint32_t i = 0; i < NR; i++)		/* closed up, without every third */
		hbas[i] = i % 3 ? 1000 + i / 3 * 2 + i % 3 : 50000 + 1000 * i;
	ck_assert_uint_eq(check_plan(hbas, NR), 1 + (NR + 2) / 3);
	for (uint32_t i = 0; i < NR; i++)		/* backwards */
		hbas[i] = 5000 - i;
	ck_assert_uint_eq(check_plan(hbas, NR), 1);
	for (uint32_t i = 0; i < NR; i++)		/* two streams by turns, far apart; one afterwards */
		hbas[i] = i < NR / 2 ? 1000 + 100000 * (i % 2) + i : 700000 + i;
	ck_assert_uint_eq(check_plan(hbas, NR), 3);
	for (uint32_t i = 0; i < NR; i++)		/* nowhere near each other */
		hbas[i] = 1000 + 100 * i;
	ck_assert_uint_eq(check_plan(hbas, NR), NR);
	for (uint32_t i = 0; i < NR; i++)		/* gaps that would take too much memory */
		hbas[i] = 1000 + 3 * i;
	ck_assert_uint_eq(check_plan(hbas, NR), NR);
	for (uint32_t i = 0; i < NR; i++)		/* all in one place, as in a damaged index */
		hbas[i] = 1000;
	ck_assert_uint_eq(check_plan(hbas, NR), NR);
}
END_TEST

/* Whoever finds no buffer reads piece by piece. */
START_TEST(buffers_are_few)
{
	struct mls_read_plan others[2];
	uint64_t hbas[NR];

	for (uint32_t i = 0; i < NR; i++)
		hbas[i] = 5000 - i;
	for (unsigned k = 0; k < 2; k++) {
		mls_read_plan_make(&others[k], &pool, hbas, NR, out);
		ck_assert_uint_eq(others[k].nr_ios, 1);
	}
	ck_assert_ptr_ne(others[0].extra, others[1].extra);
	ck_assert_uint_eq(check_plan(hbas, NR), NR);
	mls_read_plan_release(&others[1]);
	ck_assert_uint_eq(check_plan(hbas, NR), 1);
	mls_read_plan_release(&others[0]);
}
END_TEST

START_TEST(any_layout)
{
	struct test_rand rand;
	uint64_t hbas[NR];

	test_rand_seed(&rand, 1 + (uint64_t)_i);
	for (unsigned round = 0; round < 500; round++) {
		uint32_t nr = 1 + (uint32_t)test_rand_below(&rand, NR);
		uint64_t width = 1 + test_rand_below(&rand, 1 + test_rand_below(&rand, 4 * NR));
		uint64_t at = 1 + test_rand_below(&rand, 1000);

		for (uint32_t i = 0; i < nr; i++) {
			if (test_rand_below(&rand, 4) == 0)
				at = 1 + test_rand_below(&rand, width);
			hbas[i] = test_rand_below(&rand, 8) ? at++ : MLS_HBA_NONE;
		}
		ck_assert_uint_le(check_plan(hbas, nr), nr);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("read_plan");
	TCase *tc = tcase_create("all");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, layouts_and_what_they_take);
	tcase_add_test(tc, buffers_are_few);
	tcase_add_loop_test(tc, any_layout, 0, 4);
	suite_add_tcase(s, tc);
	return check_run(s);
}
