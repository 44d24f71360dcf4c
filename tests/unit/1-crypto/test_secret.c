/* SPDX-License-Identifier: MPL-2.0 */
/* test_secret.c - memory of keys: zeroed, nobody else's, locked and out of core dumps, also the second time. */
#include <check.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "1-crypto/secret.h"
#include "base/err.h"
#include "tests/lib/check_run.h"
#include "tests/lib/test_sanitizer.h"

#define NR_KEYS 40u		/* more than are kept */
#define THREADS 4u
#define ROUNDS 5000u

static bool all_are(const uint8_t *bytes, size_t nr, uint8_t value)
{
	for (size_t i = 0; i < nr; i++)
		if (bytes[i] != value)
			return false;
	return true;
}

static size_t size_of(unsigned i)
{
	static const size_t sizes[] = { 1, 32, 600, 4095, 4096, 4097, 10000 };

	return sizes[i % (sizeof sizes / sizeof *sizes)];
}

START_TEST(each_is_zeroed_and_a_page_of_its_own)
{
	uint8_t *keys[NR_KEYS];

	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < NR_KEYS; i++) {
			keys[i] = mls_secret_alloc(size_of(i + round));
			ck_assert_ptr_nonnull(keys[i]);
			ck_assert_uint_eq((uintptr_t)keys[i] % MLS_BLOCK_BYTES, 0);
			ck_assert(all_are(keys[i], size_of(i + round), 0));
			memset(keys[i], (int)i + 1, size_of(i + round));
		}
		for (unsigned i = 0; i < NR_KEYS; i++) {
			ck_assert(all_are(keys[i], size_of(i + round), (uint8_t)(i + 1)));
			mls_secret_free(keys[i], size_of(i + round));
		}
	}
	mls_secret_free(NULL, 1);
}
END_TEST

/* Does the kernel keep the page locked, and out of core dumps? The sanitizers' runtimes answer mlock and lock nothing. */
static bool is_guarded(const void *at)
{
	char line[512], flags[512] = "";
	unsigned long from, upto;
	FILE *maps = fopen("/proc/self/smaps", "r");
	bool here = false;

	ck_assert_ptr_nonnull(maps);
	while (fgets(line, sizeof line, maps)) {
		if (sscanf(line, "%lx-%lx ", &from, &upto) == 2)
			here = from <= (uintptr_t)at && (uintptr_t)at < upto;
		else if (here && strncmp(line, "VmFlags:", 8) == 0)
			strcpy(flags, line);
	}
	fclose(maps);
	return (TEST_SANITIZER || strstr(flags, " lo")) && strstr(flags, " dd");
}

START_TEST(each_is_locked_and_not_dumped)
{
	for (unsigned round = 0; round < 3; round++) {
		void *key = mls_secret_alloc(32);

		ck_assert_ptr_nonnull(key);
		memset(key, 1, 32);
		ck_assert(is_guarded(key));
		mls_secret_free(key, 32);
	}
}
END_TEST

static void *come_and_go(void *arg)
{
	uint8_t mine = *(uint8_t *)arg;

	for (unsigned i = 0; i < ROUNDS; i++) {
		uint8_t *one = mls_secret_alloc(64), *two = mls_secret_alloc(64);

		MLS_INVARIANT(one && two && all_are(one, 64, 0) && all_are(two, 64, 0));
		memset(one, mine, 64);
		memset(two, mine, 64);
		MLS_INVARIANT(all_are(one, 64, mine));
		mls_secret_free(one, 64);
		MLS_INVARIANT(all_are(two, 64, mine));
		mls_secret_free(two, 64);
	}
	return NULL;
}

START_TEST(threads_never_share)
{
	pthread_t threads[THREADS];
	uint8_t names[THREADS];

	for (unsigned i = 0; i < THREADS; i++) {
		names[i] = (uint8_t)(i + 1);
		ck_assert_int_eq(pthread_create(&threads[i], NULL, come_and_go, &names[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("1-crypto/secret");
	TCase *tc = tcase_create("all");

	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, each_is_zeroed_and_a_page_of_its_own);
	tcase_add_test(tc, each_is_locked_and_not_dumped);
	tcase_add_test(tc, threads_never_share);
	suite_add_tcase(suite, tc);
	return check_run(suite);
}
