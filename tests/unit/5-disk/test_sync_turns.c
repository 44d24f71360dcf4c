/* SPDX-License-Identifier: MPL-2.0 */
/* test_sync_turns.c - each caller gets a round that began after he asked; one at a time; nobody is left behind. */
#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "5-disk/sync_turns.h"
#include "base/err.h"
#include "tests/lib/check_run.h"

#define THREADS 8u
#define ASKS 3000u

static struct mls_sync_turns turns;
static atomic_uint nr_rounds, written, synced;
static atomic_bool busy;

static void setup(void)
{
	mls_sync_turns_init(&turns);
	nr_rounds = written = synced = 0;
	busy = false;
}

static void pause_ms(long ms)
{
	nanosleep(&(struct timespec){ .tv_nsec = ms * 1000000 }, NULL);
}

/* What came of it; the round has the error of its number. */
static int ask(void)
{
	unsigned nr, seen;
	int err;

	if (!mls_sync_turns_begin_round(&turns, &nr, &err))
		return err;
	ck_assert(!atomic_exchange(&busy, true));
	seen = written;
	err = (int)++nr_rounds;
	synced = seen;
	busy = false;
	mls_sync_turns_end_round(&turns, nr, 1000, err);
	return err;
}

static void *ask_once(void *arg)
{
	*(int *)arg = ask();
	return NULL;
}

/* Threads that have asked, and wait. */
static unsigned nr_queued(void)
{
	unsigned nr;

	pthread_mutex_lock(&turns.lock);
	nr = turns.gather.nr_here;
	pthread_mutex_unlock(&turns.lock);
	return nr;
}

START_TEST(who_asks_alone_makes_his_round)
{
	for (int i = 1; i < 10; i++)
		ck_assert_int_eq(ask(), i);
	ck_assert(!turns.taken && !turns.first);
}
END_TEST

START_TEST(who_asks_while_a_round_runs_gets_the_next)
{
	pthread_t threads[THREADS];
	int result[THREADS];
	unsigned nr;
	int err;

	ck_assert(mls_sync_turns_begin_round(&turns, &nr, &err));
	for (unsigned i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, ask_once, &result[i]), 0);
	while (nr_queued() < THREADS)
		pause_ms(1);
	ck_assert_uint_eq(nr_rounds, 0);
	mls_sync_turns_end_round(&turns, nr, 1000, 77);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	for (unsigned i = 0; i < THREADS; i++)
		ck_assert_int_eq(result[i], 1);		/* one round for all, not that of 77 */
}
END_TEST

START_TEST(no_round_runs_between_enter_and_leave)
{
	pthread_t thread;
	int result = 0;

	mls_sync_turns_enter(&turns);
	ck_assert_int_eq(pthread_create(&thread, NULL, ask_once, &result), 0);
	while (nr_queued() < 1)
		pause_ms(1);
	pause_ms(5);
	ck_assert_uint_eq(nr_rounds, 0);
	mls_sync_turns_leave(&turns);
	pthread_join(thread, NULL);
	ck_assert_int_eq(result, 1);
	ck_assert(!turns.taken && !turns.first);
}
END_TEST

static void *ask_often(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < ASKS; i++) {
		unsigned mine = ++written;

		(void)ask();
		MLS_INVARIANT(synced >= mine);
	}
	return NULL;
}

static void *enter_often(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < ASKS / 10; i++) {
		mls_sync_turns_enter(&turns);
		MLS_INVARIANT(!atomic_exchange(&busy, true));
		busy = false;
		mls_sync_turns_leave(&turns);
	}
	return NULL;
}

START_TEST(many_threads_are_all_served)
{
	pthread_t threads[THREADS];

	for (unsigned i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, i ? ask_often : enter_often, NULL), 0);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	ck_assert_uint_eq(synced, written);
	ck_assert_uint_le(nr_rounds, written);
	ck_assert(!turns.taken && !turns.first);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("5-disk/sync_turns");
	TCase *tc = tcase_create("all");

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, who_asks_alone_makes_his_round);
	tcase_add_test(tc, who_asks_while_a_round_runs_gets_the_next);
	tcase_add_test(tc, no_round_runs_between_enter_and_leave);
	tcase_add_test(tc, many_threads_are_all_served);
	suite_add_tcase(suite, tc);
	return check_run(suite);
}
