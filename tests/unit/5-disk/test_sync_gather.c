/* SPDX-License-Identifier: MPL-2.0 */
/* Who a round of a sync waits for, and for how long. */
#include <check.h>
#include <pthread.h>
#include <stdlib.h>

#include "5-disk/latency.h"
#include "5-disk/sync_gather.h"
#include "tests/lib/check_run.h"

#define MS UINT64_C(1000000)

static struct mls_sync_gather gather;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void setup(void)
{
	mls_sync_gather_init(&gather);
	pthread_mutex_lock(&lock);
}

static void teardown(void)
{
	pthread_mutex_unlock(&lock);
}

/* The time that begin took; *nr: how many the round serves. */
static uint64_t begin(unsigned *nr)
{
	uint64_t began = mls_now_ns();

	*nr = mls_sync_gather_begin(&gather, &lock);
	return mls_now_ns() - began;
}

START_TEST(a_single_thread_has_no_company_to_wait_for)
{
	for (unsigned i = 0; i < 100; i++) {
		unsigned nr;

		mls_sync_gather_join(&gather);
		ck_assert_uint_eq(gather.nr_expected, 1);
		begin(&nr);
		ck_assert_uint_eq(nr, 1);
		mls_sync_gather_end(&gather, nr, 1000 * MS);
	}
}
END_TEST

START_TEST(those_served_and_those_that_came_meanwhile_are_expected)
{
	unsigned nr;

	mls_sync_gather_join(&gather);
	begin(&nr);
	mls_sync_gather_join(&gather);		/* two come while the round runs */
	mls_sync_gather_join(&gather);
	mls_sync_gather_end(&gather, nr, 2 * MS);
	ck_assert_uint_eq(gather.nr_expected, 3);

	mls_sync_gather_join(&gather);		/* and the first comes back */
	begin(&nr);
	ck_assert_uint_eq(nr, 3);
	mls_sync_gather_end(&gather, nr, 2 * MS);
	ck_assert_uint_eq(gather.nr_expected, 3);
}
END_TEST

START_TEST(who_stays_away_is_waited_for_once_and_not_for_long)
{
	uint64_t took;
	unsigned nr;

	for (unsigned i = 0; i < 3; i++)
		mls_sync_gather_join(&gather);
	begin(&nr);
	ck_assert_uint_eq(nr, 3);
	mls_sync_gather_end(&gather, nr, 3600 * 1000 * MS);	/* an hour: patience has a limit of its own */
	mls_sync_gather_join(&gather);
	took = begin(&nr);
	ck_assert_uint_eq(nr, 1);
	ck_assert_uint_ge(took, MS / 2);
	ck_assert_uint_lt(took, 30 * 1000 * MS);
	mls_sync_gather_end(&gather, nr, MS);
	ck_assert_uint_eq(gather.nr_expected, 1);
}
END_TEST

static void *join_later(void *arg)
{
	(void)arg;
	pthread_mutex_lock(&lock);		/* let go when the leader waits */
	mls_sync_gather_join(&gather);
	pthread_mutex_unlock(&lock);
	return NULL;
}

/* Tried until the other one came within the patience of 1 ms: on a busy machine not at once. */
START_TEST(the_last_to_come_ends_the_wait)
{
	unsigned nr = 0;

	for (unsigned tries = 0; nr != 2; tries++) {
		pthread_t other;

		ck_assert_uint_lt(tries, 1000);
		gather.nr_expected = 2;
		gather.round_ns = 1000 * MS;
		gather.nr_here = 0;
		mls_sync_gather_join(&gather);
		ck_assert_int_eq(pthread_create(&other, NULL, join_later, NULL), 0);
		begin(&nr);
		pthread_mutex_unlock(&lock);
		pthread_join(other, NULL);
		pthread_mutex_lock(&lock);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("5-disk/sync_gather");
	TCase *tc = tcase_create("all");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, a_single_thread_has_no_company_to_wait_for);
	tcase_add_test(tc, those_served_and_those_that_came_meanwhile_are_expected);
	tcase_add_test(tc, who_stays_away_is_waited_for_once_and_not_for_long);
	tcase_add_test(tc, the_last_to_come_ends_the_wait);
	suite_add_tcase(suite, tc);
	return check_run(suite);
}
