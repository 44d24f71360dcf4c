/* SPDX-License-Identifier: MPL-2.0 */
/* test_chunk_alloc.c - each run has at most one owner, and the reserves hold. */
#include <check.h>
#include <pthread.h>
#include <stdlib.h>

#include "3-log/chunk_alloc.h"
#include "tests/lib/check_run.h"
#include "tests/lib/test_log.h"

#define BASE_HBA 100u
#define RUN_BLOCKS 16u

static struct mls_chunk_alloc *alloc_of(uint64_t nr_runs)
{
	struct mls_chunk_alloc *alloc;

	ck_assert_int_eq(mls_chunk_alloc_new(&alloc, BASE_HBA, RUN_BLOCKS, nr_runs), 0);
	return alloc;
}

static uint64_t taken(struct mls_chunk_alloc *alloc)
{
	uint64_t run;

	ck_assert_int_eq(mls_chunk_alloc_take(alloc, MLS_RUN_INDEX, &run), 0);
	return run;
}

/* Goal: every run is handed out once, none beyond the end, at sizes around the word of the bitmap. */
START_TEST(all_runs_once)
{
	static const uint64_t sizes[] = { 1, 2, 63, 64, 65, 127, 128, 129, 1000 };

	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		struct mls_chunk_alloc *alloc = alloc_of(sizes[i]);
		bool *seen = calloc(sizes[i], sizeof *seen);
		uint64_t run = 12345;

		for (uint64_t n = 0; n < sizes[i]; n++) {
			run = taken(alloc);
			ck_assert_uint_lt(run, sizes[i]);
			ck_assert(!seen[run]);
			seen[run] = true;
			ck_assert(mls_chunk_alloc_used(alloc, run));
			ck_assert_uint_eq(mls_chunk_alloc_nr_free(alloc), sizes[i] - n - 1);
		}
		ck_assert_int_eq(mls_chunk_alloc_take(alloc, MLS_RUN_INDEX, &run), MLS_ENOSPC);

		/* A full one finds the single free run wherever it is. */
		for (uint64_t n = 0; n < sizes[i]; n++) {
			mls_chunk_alloc_give(alloc, n * 7 % sizes[i]);
			ck_assert_uint_eq(taken(alloc), n * 7 % sizes[i]);
		}
		free(seen);
		mls_chunk_alloc_free(alloc);
	}
}
END_TEST

/* Goal: the lowest free run is taken, so that what is in use stays at the front. */
START_TEST(lowest_first)
{
	struct mls_chunk_alloc *alloc = alloc_of(300);

	for (uint64_t n = 0; n < 250; n++)
		ck_assert_uint_eq(taken(alloc), n);
	mls_chunk_alloc_give(alloc, 200);
	mls_chunk_alloc_give(alloc, 3);
	mls_chunk_alloc_give(alloc, 64);
	ck_assert_uint_eq(taken(alloc), 3);
	ck_assert_uint_eq(taken(alloc), 64);
	ck_assert_uint_eq(taken(alloc), 200);
	ck_assert_uint_eq(taken(alloc), 250);
	mls_chunk_alloc_free(alloc);
}
END_TEST

/* Goal: stale runs are lent from the top, in ranges, never one that is used, and nobody takes them meanwhile. */
START_TEST(stale_runs_are_lent)
{
	struct mls_chunk_alloc *alloc = alloc_of(130);
	uint64_t run, nr;

	ck_assert_uint_eq(mls_chunk_alloc_nr_stale(alloc), 130);	/* nobody knows after an open */
	for (unsigned n = 0; n < 10; n++)
		(void)taken(alloc);
	ck_assert_int_eq(mls_chunk_alloc_mark(alloc, 100), 0);
	ck_assert(mls_chunk_alloc_borrow_stale(alloc, 20, 0, 0, &run, &nr));
	ck_assert(run == 110 && nr == 20);
	ck_assert(mls_chunk_alloc_used(alloc, 115));
	mls_chunk_alloc_return(alloc, run, nr, true);
	ck_assert(mls_chunk_alloc_borrow_stale(alloc, 20, 0, 0, &run, &nr));
	ck_assert(run == 101 && nr == 9);
	mls_chunk_alloc_return(alloc, run, nr, false);			/* the punch failed: stale still */
	ck_assert(mls_chunk_alloc_borrow_stale(alloc, 1000, 0, 0, &run, &nr));
	ck_assert(run == 101 && nr == 9);
	mls_chunk_alloc_return(alloc, run, nr, true);
	ck_assert_uint_eq(mls_chunk_alloc_nr_stale(alloc), 90);

	/* min_free and keep bound what is lent. */
	ck_assert(!mls_chunk_alloc_borrow_stale(alloc, 1000, 119, 0, &run, &nr));
	ck_assert(!mls_chunk_alloc_borrow_stale(alloc, 1000, 0, 90, &run, &nr));
	ck_assert(mls_chunk_alloc_borrow_stale(alloc, 1000, 0, 88, &run, &nr));
	ck_assert(run == 98 && nr == 2);
	mls_chunk_alloc_return(alloc, run, nr, true);
	ck_assert(mls_chunk_alloc_borrow_stale(alloc, 1000, 0, 0, &run, &nr));
	ck_assert(run == 10 && nr == 88);
	ck_assert_uint_eq(taken(alloc), 98);				/* those lent aren't there */
	mls_chunk_alloc_return(alloc, run, nr, true);
	ck_assert_uint_eq(mls_chunk_alloc_nr_stale(alloc), 0);
	ck_assert(!mls_chunk_alloc_borrow_stale(alloc, 1000, 0, 0, &run, &nr));

	run = taken(alloc);						/* a new life, a new trace */
	mls_chunk_alloc_give(alloc, run);
	ck_assert_uint_eq(mls_chunk_alloc_nr_stale(alloc), 1);
	mls_chunk_alloc_free(alloc);
}
END_TEST

static void back(struct mls_chunk_alloc *alloc, uint64_t want)
{
	uint64_t run, nr;

	for (; want > 0; want -= nr) {
		ck_assert(mls_chunk_alloc_borrow_unbacked(alloc, 0, want, &run, &nr));
		mls_chunk_alloc_return_backed(alloc, run, nr, true, false);
	}
}

/* Goal: backed runs are wanted before there are none to take; not after a punch, and not on a full host, until one is needed. */
START_TEST(backing_is_wanted_in_time)
{
	struct mls_chunk_alloc *alloc = alloc_of(1000);
	unsigned nr_soon = 0;
	uint64_t run, nr;

	ck_assert_int_eq(mls_chunk_alloc_wants_backing(alloc), MLS_BACKING_ENOUGH);
	mls_chunk_alloc_track_backing(alloc);
	mls_chunk_alloc_set_reserve(alloc, 0, 0);
	ck_assert_int_eq(mls_chunk_alloc_wants_backing(alloc), MLS_BACKING_NOW);
	back(alloc, 400);
	ck_assert_int_eq(mls_chunk_alloc_wants_backing(alloc), MLS_BACKING_ENOUGH);
	while (mls_chunk_alloc_wants_backing(alloc) == MLS_BACKING_ENOUGH)
		ck_assert_int_eq(mls_chunk_alloc_take(alloc, MLS_RUN_USER, &run), 0);
	ck_assert_int_eq(mls_chunk_alloc_wants_backing(alloc), MLS_BACKING_SOON);
	ck_assert_uint_eq(mls_chunk_alloc_nr_backed(alloc), 388 / 32);	/* few enough: one for 32 that are used */

	/* What goes back to the host isn't asked for at once. */
	ck_assert(mls_chunk_alloc_borrow_stale(alloc, 1, 0, 0, &run, &nr));
	mls_chunk_alloc_return(alloc, run, nr, true);
	ck_assert_int_eq(mls_chunk_alloc_wants_backing(alloc), MLS_BACKING_ENOUGH);
	ck_assert_int_eq(mls_chunk_alloc_take(alloc, MLS_RUN_USER, &run), 0);
	ck_assert_int_eq(mls_chunk_alloc_wants_backing(alloc), MLS_BACKING_SOON);

	/* A full host is asked only for what is needed. */
	ck_assert(mls_chunk_alloc_borrow_unbacked(alloc, 0, 1, &run, &nr));
	mls_chunk_alloc_return_backed(alloc, run, nr, false, false);
	ck_assert_int_eq(mls_chunk_alloc_wants_backing(alloc), MLS_BACKING_ENOUGH);
	for (; mls_chunk_alloc_wants_backing(alloc) != MLS_BACKING_NOW; nr_soon++)
		ck_assert_int_eq(mls_chunk_alloc_take(alloc, MLS_RUN_USER, &run), 0);
	ck_assert_uint_gt(nr_soon, 8);
	ck_assert_int_eq(mls_chunk_alloc_take(alloc, MLS_RUN_USER, &run), MLS_ENOSPC);
	mls_chunk_alloc_free(alloc);
}
END_TEST

/* Goal: growing adds free runs, none of them stale, at any size around the word of the bitmap. */
START_TEST(grows)
{
	static const uint64_t sizes[] = { 1, 63, 64, 65, 128, 200 };

	for (unsigned i = 0; i < 6; i++)
		for (unsigned j = i; j < 6; j++) {
			struct mls_chunk_alloc *alloc = alloc_of(sizes[i]);
			uint64_t run;

			while (mls_chunk_alloc_take(alloc, MLS_RUN_INDEX, &run) == 0)
				;
			ck_assert_int_eq(mls_chunk_alloc_grow(alloc, sizes[i] - 1), MLS_EINVAL);
			ck_assert_int_eq(mls_chunk_alloc_grow(alloc, UINT64_MAX / 4), MLS_EINVAL);
			ck_assert_int_eq(mls_chunk_alloc_grow(alloc, sizes[j]), 0);
			ck_assert_uint_eq(mls_chunk_alloc_nr_runs(alloc), sizes[j]);
			ck_assert_uint_eq(mls_chunk_alloc_nr_free(alloc), sizes[j] - sizes[i]);
			ck_assert_uint_eq(mls_chunk_alloc_nr_stale(alloc), 0);
			for (uint64_t n = sizes[i]; n < sizes[j]; n++)
				ck_assert_uint_eq(taken(alloc), n);
			ck_assert_int_eq(mls_chunk_alloc_take(alloc, MLS_RUN_INDEX, &run), MLS_ENOSPC);
			mls_chunk_alloc_free(alloc);
		}
}
END_TEST

START_TEST(classes_respect_reserves)
{
	struct mls_chunk_alloc *alloc = alloc_of(10);
	uint64_t run = 77;
	int i;

	mls_chunk_alloc_set_reserve(alloc, 5, 2);
	for (i = 0; i < 5; i++)
		ck_assert_int_eq(mls_chunk_alloc_take(alloc, MLS_RUN_USER, &run), 0);
	run = 77;
	ck_assert_int_eq(mls_chunk_alloc_take(alloc, MLS_RUN_USER, &run), MLS_ENOSPC);
	ck_assert_uint_eq(run, 77);
	for (i = 0; i < 3; i++)
		ck_assert_int_eq(mls_chunk_alloc_take(alloc, MLS_RUN_CLEAN, &run), 0);
	ck_assert_int_eq(mls_chunk_alloc_take(alloc, MLS_RUN_CLEAN, &run), MLS_ENOSPC);
	for (i = 0; i < 2; i++)
		ck_assert_int_eq(mls_chunk_alloc_take(alloc, MLS_RUN_INDEX, &run), 0);
	ck_assert_int_eq(mls_chunk_alloc_take(alloc, MLS_RUN_INDEX, &run), MLS_ENOSPC);

	mls_chunk_alloc_give(alloc, 3);		/* one free: for the index only */
	ck_assert_int_eq(mls_chunk_alloc_take(alloc, MLS_RUN_CLEAN, &run), MLS_ENOSPC);
	ck_assert_int_eq(mls_chunk_alloc_take(alloc, MLS_RUN_INDEX, &run), 0);
	ck_assert_uint_eq(run, 3);
	mls_chunk_alloc_free(alloc);
}
END_TEST

/* Goal: what is held is the index's; it may be had only if users could have it, and less always. */
START_TEST(held_runs_are_the_index_s)
{
	struct mls_chunk_alloc *alloc;
	uint64_t run;

	ck_assert_int_eq(mls_chunk_alloc_new(&alloc, 0, 16, 20), 0);
	mls_chunk_alloc_set_reserve(alloc, 5, 2);
	ck_assert(!mls_chunk_alloc_hold(alloc, 16));
	ck_assert_uint_eq(mls_chunk_alloc_room(alloc), 15);
	ck_assert(mls_chunk_alloc_hold(alloc, 10));
	ck_assert_uint_eq(mls_chunk_alloc_room(alloc), 5);
	ck_assert(mls_chunk_alloc_hold(alloc, 15));
	ck_assert(!mls_chunk_alloc_hold(alloc, 16));
	ck_assert(mls_chunk_alloc_hold(alloc, 12));
	for (unsigned i = 0; i < 3; i++)
		ck_assert_int_eq(mls_chunk_alloc_take(alloc, MLS_RUN_USER, &run), 0);
	ck_assert_int_eq(mls_chunk_alloc_take(alloc, MLS_RUN_USER, &run), MLS_ENOSPC);
	for (unsigned i = 0; i < 3; i++)
		ck_assert_int_eq(mls_chunk_alloc_take(alloc, MLS_RUN_CLEAN, &run), 0);
	ck_assert_int_eq(mls_chunk_alloc_take(alloc, MLS_RUN_CLEAN, &run), MLS_ENOSPC);
	for (unsigned i = 0; i < 14; i++)
		ck_assert_int_eq(mls_chunk_alloc_take(alloc, MLS_RUN_INDEX, &run), 0);
	ck_assert_int_eq(mls_chunk_alloc_take(alloc, MLS_RUN_INDEX, &run), MLS_ENOSPC);
	ck_assert(mls_chunk_alloc_hold(alloc, 0));
	ck_assert(!mls_chunk_alloc_hold(alloc, 1));
	mls_chunk_alloc_free(alloc);
}
END_TEST

START_TEST(mark_refuses_second_owner)
{
	struct mls_chunk_alloc *alloc = alloc_of(70);

	ck_assert_int_eq(mls_chunk_alloc_mark(alloc, 0), 0);
	ck_assert_int_eq(mls_chunk_alloc_mark(alloc, 69), 0);
	ck_assert_int_eq(mls_chunk_alloc_mark(alloc, 69), MLS_EFORMAT);
	ck_assert_int_eq(mls_chunk_alloc_mark(alloc, 70), MLS_EFORMAT);
	ck_assert_int_eq(mls_chunk_alloc_mark(alloc, UINT64_MAX), MLS_EFORMAT);
	ck_assert_uint_eq(mls_chunk_alloc_nr_free(alloc), 68);
	ck_assert_uint_eq(taken(alloc), 1);

	mls_chunk_alloc_reset(alloc);
	ck_assert_uint_eq(mls_chunk_alloc_nr_free(alloc), 70);
	ck_assert_int_eq(mls_chunk_alloc_mark(alloc, 69), 0);
	ck_assert_uint_eq(taken(alloc), 0);
	mls_chunk_alloc_free(alloc);
}
END_TEST

START_TEST(places)
{
	struct mls_chunk_alloc *alloc = alloc_of(3);
	uint64_t run = 9;
	uint32_t slot = 9;

	ck_assert_uint_eq(mls_chunk_alloc_nr_runs(alloc), 3);
	ck_assert_uint_eq(mls_chunk_alloc_run_blocks(alloc), RUN_BLOCKS);
	ck_assert_uint_eq(mls_chunk_alloc_hba(alloc, 2), BASE_HBA + 2 * RUN_BLOCKS);
	ck_assert(!mls_chunk_alloc_run_of(alloc, 0, &run, &slot));
	ck_assert(!mls_chunk_alloc_run_of(alloc, BASE_HBA - 1, &run, &slot));
	ck_assert(!mls_chunk_alloc_run_of(alloc, BASE_HBA + 3 * RUN_BLOCKS, &run, &slot));
	ck_assert(!mls_chunk_alloc_run_of(alloc, UINT64_MAX, &run, &slot));
	ck_assert(mls_chunk_alloc_run_of(alloc, BASE_HBA, &run, &slot));
	ck_assert(run == 0 && slot == 0);
	ck_assert(mls_chunk_alloc_run_of(alloc, BASE_HBA + 3 * RUN_BLOCKS - 1, &run, &slot));
	ck_assert(run == 2 && slot == RUN_BLOCKS - 1);
	mls_chunk_alloc_free(alloc);
}
END_TEST

START_TEST(impossible_geometry)
{
	struct mls_chunk_alloc *alloc;

	ck_assert_int_eq(mls_chunk_alloc_new(&alloc, 0, 0, 1), MLS_EINVAL);
	ck_assert_int_eq(mls_chunk_alloc_new(&alloc, 0, 1, 0), MLS_EINVAL);
	ck_assert_int_eq(mls_chunk_alloc_new(&alloc, 0, 1024, UINT64_MAX / 2), MLS_EINVAL);
	ck_assert_int_eq(mls_chunk_alloc_new(&alloc, UINT64_MAX, 1, 1), MLS_EINVAL);
	mls_chunk_alloc_free(NULL);
}
END_TEST

static void *take_and_give(void *arg)
{
	struct mls_chunk_alloc *alloc = arg;
	uint64_t mine[8];

	for (int round = 0; round < 2000; round++) {
		for (int i = 0; i < 8; i++)
			ck_assert_int_eq(mls_chunk_alloc_take(alloc, MLS_RUN_USER, &mine[i]), 0);
		for (int i = 0; i < 8; i++)
			mls_chunk_alloc_give(alloc, mine[i]);	/* asserts that it's ours */
	}
	return NULL;
}

START_TEST(threads_never_share)
{
	struct mls_chunk_alloc *alloc = alloc_of(33);
	pthread_t threads[4];

	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, take_and_give, alloc), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	ck_assert_uint_eq(mls_chunk_alloc_nr_free(alloc), 33);
	mls_chunk_alloc_free(alloc);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("chunk_alloc");
	TCase *tc = tcase_create("all");

	mls_set_logger(test_log_quiet, NULL);
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, all_runs_once);
	tcase_add_test(tc, lowest_first);
	tcase_add_test(tc, stale_runs_are_lent);
	tcase_add_test(tc, backing_is_wanted_in_time);
	tcase_add_test(tc, grows);
	tcase_add_test(tc, classes_respect_reserves);
	tcase_add_test(tc, held_runs_are_the_index_s);
	tcase_add_test(tc, mark_refuses_second_owner);
	tcase_add_test(tc, places);
	tcase_add_test(tc, impossible_geometry);
	tcase_add_test(tc, threads_never_share);
	suite_add_tcase(suite, tc);	return check_run(suite);
}
