/* SPDX-License-Identifier: MPL-2.0 */
/* test_space.c - space comes back, also to the host, and a disk that is full says so and goes on. */
#include <time.h>

#include "tests/lib/test_rand.h"
#include "tests/lib/thin_dev.h"
#include "tests/unit/5-disk/disk_fixture.h"

/* A fixture whose device is a thin one over the fixture's own. */
struct thin_fixture {
	struct disk_fixture f;
	struct mls_block_dev *mem;
	struct thin_dev *thin;
};

static void thin_init(struct thin_fixture *t, uint64_t disk_bytes, uint64_t backing_bytes)
{
	fixture_init(&t->f, disk_bytes, backing_bytes);
	t->mem = t->f.dev;
	t->thin = thin_dev_new(t->mem);
	ck_assert(t->thin);
	t->f.dev = &t->thin->base;
}

static void thin_release(struct thin_fixture *t)
{
	mls_block_dev_destroy(t->f.dev);
	mls_block_dev_destroy(t->mem);
}

static void fill(struct mls_disk *disk, uint64_t from, uint64_t to, uint64_t version)
{
	for (uint64_t lba = from; lba < to; lba++)
		ck_assert_int_eq(block_write(disk, lba, version), 0);
}

static uint64_t run_blocks(struct mls_disk *disk)
{
	struct mls_disk_stat stat;

	mls_disk_stat(disk, &stat);
	return stat.run_blocks;
}

static void sleep_ms(long ms)
{
	struct timespec ts = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

	nanosleep(&ts, NULL);
}

/* ---- The host gets space back ---- */

/* Goal: after fill and discard the host's space shrinks by itself, on an idle disk, to what is live. */
START_TEST(an_idle_disk_gives_discarded_space_back)
{
	uint64_t nr = 16 * MIB / MLS_BLOCK_BYTES, keep = nr / 8, bound;
	struct thin_fixture t;
	struct mls_disk *disk;
	int tries = 0;

	thin_init(&t, 16 * MIB, 0);
	t.f.opts.inline_work = false;
	disk = fixture_open(&t.f);
	for (unsigned round = 0; round < 3; round++) {
		fill(disk, 0, nr, round + 1);
		ck_assert_int_eq(mls_disk_discard(disk, keep * MLS_BLOCK_BYTES, (nr - keep) * MLS_BLOCK_BYTES), 0);
	}
	ck_assert_int_eq(mls_disk_sync(disk), 0);
	/* Live data, the index, the WAL, the open segments. */
	bound = keep + keep / 10 + 256 + 12 * run_blocks(disk);
	while (thin_dev_taken(t.thin) > bound && ++tries < 200)
		sleep_ms(100);
	ck_assert_msg(thin_dev_taken(t.thin) <= bound, "%llu blocks are taken, expected %llu at most",
		      (unsigned long long)thin_dev_taken(t.thin), (unsigned long long)bound);
	for (uint64_t lba = 0; lba < nr; lba++)
		ck_assert(block_is(disk, lba, lba < keep ? 3 : 0));
	ck_assert_int_eq(mls_disk_close(disk), 0);
	disk = fixture_open(&t.f);
	for (uint64_t lba = 0; lba < nr; lba++)
		ck_assert(block_is(disk, lba, lba < keep ? 3 : 0));
	ck_assert_int_eq(mls_disk_close(disk), 0);
	thin_release(&t);
}
END_TEST

START_TEST(nodiscard_gives_nothing_back)
{
	uint64_t nr = 8 * MIB / MLS_BLOCK_BYTES;
	struct thin_fixture t;
	struct mls_disk *disk;

	thin_init(&t, 8 * MIB, 0);
	t.f.opts.no_discard = true;
	disk = fixture_open(&t.f);
	fill(disk, 0, nr, 1);
	ck_assert_int_eq(mls_disk_discard(disk, 0, 8 * MIB), 0);
	ck_assert_int_eq(mls_disk_sync(disk), 0);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	ck_assert_uint_eq(thin_dev_taken(t.thin), t.thin->max_taken);
	thin_release(&t);
}
END_TEST

/* Goal: a device whose discard is a write of garbage in the worst moment loses nothing that was synced. */
START_TEST(what_is_given_back_was_not_needed)
{
	uint64_t nr = 8 * MIB / MLS_BLOCK_BYTES;
	uint64_t *version = calloc(nr, sizeof *version);
	struct thin_fixture t;
	struct test_rand r;
	struct mls_disk *disk;

	test_rand_seed(&r, 11);
	thin_init(&t, 8 * MIB, 0);
	for (unsigned round = 1; round <= 6; round++) {
		disk = fixture_open(&t.f);
		for (unsigned i = 0; i < nr; i++) {
			uint64_t lba = test_rand_below(&r, nr);

			if (i % 3) {
				ck_assert_int_eq(block_write(disk, lba, round), 0);
				version[lba] = round;
			} else {
				ck_assert_int_eq(mls_disk_discard(disk, lba * MLS_BLOCK_BYTES, MLS_BLOCK_BYTES), 0);
				version[lba] = 0;
			}
			if (i % 200 == 0)
				ck_assert_int_eq(mls_disk_sync(disk), 0);
		}
		ck_assert_int_eq(mls_disk_close(disk), 0);
		disk = fixture_open(&t.f);
		for (uint64_t lba = 0; lba < nr; lba++)
			ck_assert(block_is(disk, lba, version[lba]));
		ck_assert_int_eq(mls_disk_close(disk), 0);
	}
	thin_release(&t);
	free(version);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("space");
	TCase *tc = tcase_create("host");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, an_idle_disk_gives_discarded_space_back);
	tcase_add_test(tc, nodiscard_gives_nothing_back);
	tcase_add_test(tc, what_is_given_back_was_not_needed);
	suite_add_tcase(s, tc);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
