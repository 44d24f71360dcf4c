/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_disk_threads.c - many threads on one disk, for TSan and for the eye.
 *
 * Each writer owns every nth block and knows what it wrote; readers look everywhere and accept only
 * whole versions; others write 512-byte parts of shared blocks, each its own part; one syncs. With
 * flushes, compactions and cleaning going on all the time.
 */
#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "tests/lib/test_rand.h"
#include "tests/unit/5-disk/disk_fixture.h"

#define NR_WRITERS 3u
#define NR_BLOCKS 900u			/* written whole */
#define SHARED_LBA 1000u		/* eight writers of 512 bytes each share these blocks */
#define NR_SHARED 4u

static struct mls_disk *disk;
static atomic_bool stop;
static _Atomic uint64_t newest[NR_BLOCKS];

struct writer {
	pthread_t thread;
	unsigned index;
	uint64_t steps;
};

static void *write_whole(void *arg)
{
	struct writer *w = arg;
	struct test_rand r;

	test_rand_seed(&r, w->index);
	for (uint64_t i = 1; i <= w->steps; i++) {
		uint64_t lba = test_rand_below(&r, NR_BLOCKS / NR_WRITERS) * NR_WRITERS + w->index;

		ck_assert_int_eq(block_write(disk, lba, i), 0);
		atomic_store(&newest[lba], i);
		ck_assert(block_is(disk, lba, i));
	}
	return NULL;
}

static void *write_parts(void *arg)
{
	struct writer *w = arg;
	uint8_t part[512], back[512];

	for (uint64_t i = 1; i <= w->steps; i++) {
		uint64_t at = (SHARED_LBA + i % NR_SHARED) * MLS_BLOCK_BYTES + w->index * sizeof part;

		memset(part, (int)(i ^ w->index), sizeof part);
		ck_assert_int_eq(mls_disk_write(disk, at, part, sizeof part), 0);
		ck_assert_int_eq(mls_disk_read(disk, at, back, sizeof back), 0);
		ck_assert_mem_eq(part, back, sizeof part);
	}
	return NULL;
}

/* A block is one whole version: its second word says which. */
static void *read_any(void *arg)
{
	static _Thread_local _Alignas(MLS_BLOCK_BYTES) uint8_t buf[16 * MLS_BLOCK_BYTES];
	uint8_t expected[MLS_BLOCK_BYTES];
	struct test_rand r;

	test_rand_seed(&r, (uintptr_t)arg);
	while (!atomic_load(&stop)) {
		uint64_t lba = test_rand_below(&r, NR_BLOCKS - 16), before[16];

		for (unsigned i = 0; i < 16; i++)
			before[i] = atomic_load(&newest[lba + i]);
		ck_assert_int_eq(mls_disk_read(disk, lba * MLS_BLOCK_BYTES, buf, sizeof buf), 0);
		for (unsigned i = 0; i < 16; i++) {
			uint64_t version;

			memcpy(&version, buf + i * MLS_BLOCK_BYTES + 8, sizeof version);
			block_fill(expected, lba + i, version);
			ck_assert_mem_eq(buf + i * MLS_BLOCK_BYTES, expected, MLS_BLOCK_BYTES);
			ck_assert_uint_ge(version, before[i]);
		}
	}
	return NULL;
}

static void *sync_often(void *arg)
{
	(void)arg;
	while (!atomic_load(&stop))
		ck_assert_int_eq(mls_disk_sync(disk), 0);
	return NULL;
}

START_TEST(threads_see_whole_and_newest_versions)
{
	uint64_t steps = test_env_u64("MLS_STEPS", 4000);
	struct writer whole[NR_WRITERS], parts[8];
	pthread_t readers[2], syncer;
	struct disk_fixture f;

	fixture_init(&f, 8 * MIB, mls_backing_bytes(4 * MIB));
	f.opts.inline_work = false;
	f.opts.memtable_records = 256;
	disk = fixture_open(&f);
	atomic_store(&stop, false);
	for (unsigned i = 0; i < NR_WRITERS; i++) {
		whole[i] = (struct writer){ .index = i, .steps = steps };
		ck_assert_int_eq(pthread_create(&whole[i].thread, NULL, write_whole, &whole[i]), 0);
	}
	for (unsigned i = 0; i < 8; i++) {
		parts[i] = (struct writer){ .index = i, .steps = steps / 8 };
		ck_assert_int_eq(pthread_create(&parts[i].thread, NULL, write_parts, &parts[i]), 0);
	}
	for (uintptr_t i = 0; i < 2; i++)
		ck_assert_int_eq(pthread_create(&readers[i], NULL, read_any, (void *)(i + 100)), 0);
	ck_assert_int_eq(pthread_create(&syncer, NULL, sync_often, NULL), 0);

	for (unsigned i = 0; i < NR_WRITERS; i++)
		pthread_join(whole[i].thread, NULL);
	for (unsigned i = 0; i < 8; i++)
		pthread_join(parts[i].thread, NULL);
	atomic_store(&stop, true);
	pthread_join(readers[0], NULL);
	pthread_join(readers[1], NULL);
	pthread_join(syncer, NULL);
	ck_assert_int_eq(mls_disk_close(disk), 0);

	disk = fixture_open(&f);
	for (uint64_t lba = 0; lba < NR_BLOCKS; lba++)
		ck_assert(block_is(disk, lba, atomic_load(&newest[lba])));
	ck_assert_int_eq(mls_disk_close(disk), 0);
	fixture_release(&f);
}
END_TEST

static void loud(void *arg, enum mls_log_level level, const char *message)
{
	(void)arg;
	fprintf(stderr, "%d %s\n", level, message);
}

int main(void)
{
	Suite *suite = suite_create("disk threads");
	TCase *tc = tcase_create("disk threads");
	SRunner *runner;
	int failed;

	if (getenv("MLS_LOUD"))
		mls_set_logger(loud, NULL);
	tcase_set_timeout(tc, 300);
	tcase_add_test(tc, threads_see_whole_and_newest_versions);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
