/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_defrag.c - large reads of a scattered layout leave a better one, and never another content.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "5-disk/disk.h"
#include "tests/lib/check_run.h"
#include "tests/lib/crash_dev.h"
#include "tests/lib/test_rand.h"
#include "tests/unit/5-disk/disk_fixture.h"

#define DISK_BLOCKS (32 * MIB / MLS_BLOCK_BYTES)
#define NR_BLOCKS (DISK_BLOCKS / 2)	/* used */
#define READ_BLOCKS 256u
#define PATIENCE_MS 60000u

struct world {
	struct disk_fixture f;
	struct mls_block_dev *medium;
	struct crash_dev *crash;
	struct mls_disk *disk;
	struct test_rand r;
	uint64_t version[NR_BLOCKS], nr_written;
};

static struct world *world_new(bool strict, bool no_defrag)
{
	struct world *w = calloc(1, sizeof *w);

	ck_assert(w);
	test_rand_seed(&w->r, 7);
	fixture_init(&w->f, DISK_BLOCKS * MLS_BLOCK_BYTES, 0);
	w->medium = w->f.dev;
	w->crash = crash_dev_new(w->medium, NULL);
	ck_assert(w->crash);
	w->f.dev = &w->crash->base;
	w->f.opts.inline_work = false;
	w->f.opts.strict_sync = strict;
	w->f.opts.no_defrag = no_defrag;
	w->disk = fixture_open(&w->f);
	return w;
}

static void world_free(struct world *w)
{
	ck_assert_int_eq(mls_disk_close(w->disk), 0);
	mls_block_dev_destroy(w->f.dev);
	mls_block_dev_destroy(w->medium);
	free(w);
}

static void write_one(struct world *w, uint64_t lba)
{
	ck_assert_int_eq(block_write(w->disk, lba, w->nr_written + 1), 0);
	w->version[lba] = ++w->nr_written;
}

static void write_in_sequence(struct world *w)
{
	for (uint64_t lba = 0; lba < NR_BLOCKS; lba++)
		write_one(w, lba);
}

/* 4099 is prime, so every LBA comes once, and no two neighbours after one another. */
static void write_scattered(struct world *w)
{
	for (uint64_t i = 0; i < NR_BLOCKS; i++)
		write_one(w, i * 4099 % NR_BLOCKS);
}

static void check_content(struct mls_disk *disk, const uint64_t *version)
{
	for (uint64_t lba = 0; lba < NR_BLOCKS; lba++)
		ck_assert_msg(block_is(disk, lba, version[lba]), "LBA %llu isn't of version %llu",
			      (unsigned long long)lba, (unsigned long long)version[lba]);
}

static void read_all(struct world *w, uint32_t nr)
{
	uint8_t *buf = aligned_alloc(MLS_BLOCK_BYTES, READ_BLOCKS * MLS_BLOCK_BYTES), expected[MLS_BLOCK_BYTES];

	ck_assert(buf && nr <= READ_BLOCKS);
	for (uint64_t lba = 0; lba + nr <= NR_BLOCKS; lba += nr) {
		ck_assert_int_eq(mls_disk_read(w->disk, lba * MLS_BLOCK_BYTES, buf, nr * (size_t)MLS_BLOCK_BYTES), 0);
		for (uint32_t i = 0; i < nr; i++) {
			block_fill(expected, lba + i, w->version[lba + i]);
			ck_assert_mem_eq(expected, buf + i * (size_t)MLS_BLOCK_BYTES, MLS_BLOCK_BYTES);
		}
	}
	free(buf);
}

/* Extents that the index has. */
static uint64_t nr_extents(struct mls_disk *disk)
{
	uint64_t nr = 0, last = 0;

	for (uint64_t lba = 0; lba < NR_BLOCKS; lba++) {
		struct mls_index_rec rec;

		ck_assert_int_eq(mls_lsm_get(disk->lsm, lba, 1, &rec), 0);
		nr += rec.hba != last + 1;
		last = rec.hba;
	}
	return nr;
}

static uint64_t nr_moved(struct world *w)
{
	return atomic_load(&w->disk->count.defragmented_blocks);
}

static void nap(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
}

/* Reads again and again, as what finds the queue full stays as it is, until there are at most so many extents. */
static void read_until(struct world *w, uint64_t extents)
{
	for (unsigned ms = 0; nr_extents(w->disk) > extents && ms < PATIENCE_MS; ms += 10) {
		read_all(w, READ_BLOCKS);
		nap();
	}
	ck_assert_uint_le(nr_extents(w->disk), extents);
}

START_TEST(a_scan_puts_scattered_blocks_in_sequence)
{
	struct world *w = world_new(false, false);

	write_scattered(w);
	ck_assert_int_eq(mls_disk_sync(w->disk), 0);
	ck_assert_uint_gt(nr_extents(w->disk), NR_BLOCKS / 2);
	read_until(w, NR_BLOCKS / 16);
	ck_assert_uint_ge(nr_moved(w), NR_BLOCKS / 2);
	check_content(w->disk, w->version);
	ck_assert_int_eq(mls_disk_close(w->disk), 0);
	w->disk = fixture_open(&w->f);
	ck_assert_uint_le(nr_extents(w->disk), NR_BLOCKS / 16);
	check_content(w->disk, w->version);
	world_free(w);
}
END_TEST

/* What lies well, what is read in small pieces, a disk under the strict policy, and who doesn't want it aren't touched. */
START_TEST(nothing_is_moved_without_need)
{
	struct world *w = world_new(_i == 2, _i == 3);

	if (_i == 0)
		write_in_sequence(w);
	else
		write_scattered(w);
	ck_assert_int_eq(mls_disk_sync(w->disk), 0);
	for (unsigned i = 0; i < 20; i++) {
		read_all(w, _i == 1 ? 16 : READ_BLOCKS);
		nap();
	}
	ck_assert_uint_eq(nr_moved(w), 0);
	world_free(w);
}
END_TEST

/* Moves are writes of the epoch: lost with it, kept with it, and no crash shows anything but what was synced. */
START_TEST(a_crash_undoes_it_or_keeps_it)
{
	struct world *w = world_new(false, false);

	write_scattered(w);
	ck_assert_int_eq(mls_disk_sync(w->disk), 0);
	for (unsigned round = 0; round < 8; round++) {
		struct disk_fixture f = w->f;
		struct mls_disk *disk;

		if (round >= 4)
			ck_assert_int_eq(mls_disk_sync(w->disk), 0);
		f.dev = crash_dev_image(w->crash, round);
		ck_assert(f.dev);
		disk = fixture_open(&f);
		check_content(disk, w->version);
		ck_assert_int_eq(mls_disk_close(disk), 0);
		mls_block_dev_destroy(f.dev);
		read_all(w, READ_BLOCKS);
	}
	read_until(w, NR_BLOCKS / 16);
	world_free(w);
}
END_TEST

struct reader {
	struct world *w;
	atomic_bool stop;
};

static void *scan(void *arg)
{
	struct reader *reader = arg;
	uint8_t *buf = aligned_alloc(MLS_BLOCK_BYTES, READ_BLOCKS * MLS_BLOCK_BYTES);

	ck_assert(buf);
	while (!atomic_load(&reader->stop))
		for (uint64_t lba = 0; lba < NR_BLOCKS; lba += READ_BLOCKS)
			ck_assert_int_eq(mls_disk_read(reader->w->disk, lba * MLS_BLOCK_BYTES, buf,
						       READ_BLOCKS * MLS_BLOCK_BYTES), 0);
	free(buf);
	return NULL;
}

/* A write that was acknowledged is never covered by a move of what was there before it. */
START_TEST(writers_win)
{
	struct world *w = world_new(false, false);
	struct reader reader = { .w = w };
	pthread_t thread;

	write_scattered(w);
	ck_assert_int_eq(pthread_create(&thread, NULL, scan, &reader), 0);
	for (unsigned i = 0; i < 10000; i++) {
		uint64_t lba = test_rand_below(&w->r, NR_BLOCKS);

		if (i % 8 == 7) {
			ck_assert_int_eq(mls_disk_discard(w->disk, lba * MLS_BLOCK_BYTES, MLS_BLOCK_BYTES), 0);
			w->version[lba] = 0;
		} else {
			write_one(w, lba);
		}
		lba = test_rand_below(&w->r, NR_BLOCKS);
		ck_assert(block_is(w->disk, lba, w->version[lba]));
		if (i % 1000 == 0)
			ck_assert_int_eq(mls_disk_sync(w->disk), 0);
	}
	atomic_store(&reader.stop, true);
	pthread_join(thread, NULL);
	ck_assert_uint_gt(nr_moved(w), 0);
	check_content(w->disk, w->version);
	world_free(w);
}
END_TEST

static void wait_until_gathered(struct world *w, uint64_t extents)
{
	for (unsigned ms = 0; nr_extents(w->disk) > extents && ms < PATIENCE_MS; ms += 10)
		nap();
	ck_assert_uint_le(nr_extents(w->disk), extents);
}

/* Until it has looked around twice without moving anything. */
static void wait_until_idle(struct world *w)
{
	uint64_t moved;

	do {
		moved = nr_moved(w);
		nanosleep(&(struct timespec){ .tv_sec = 4 }, NULL);
	} while (nr_moved(w) != moved);
}

/* What was read in sequence once is put in sequence again when nobody is at work: three times, and then that's it. */
START_TEST(an_idle_disk_gathers_what_was_scanned)
{
	struct world *w = world_new(false, false);
	uint64_t moved;

	write_in_sequence(w);
	read_all(w, READ_BLOCKS);
	for (unsigned i = 0; i < 3; i++) {
		write_scattered(w);
		ck_assert_uint_gt(nr_extents(w->disk), NR_BLOCKS / 2);
		wait_until_gathered(w, NR_BLOCKS / 16);
		wait_until_idle(w);
		check_content(w->disk, w->version);
	}
	moved = nr_moved(w);
	write_scattered(w);
	wait_until_idle(w);
	ck_assert_uint_eq(nr_moved(w), moved);
	check_content(w->disk, w->version);
	world_free(w);
}
END_TEST

/* So many in each window that it's worth gathering. */
static void write_here_and_there(struct world *w)
{
	for (uint64_t lba = 0; lba < NR_BLOCKS; lba += 10)
		write_one(w, lba);
}

/* Few writes that scatter much: once for the reader, and after that no more than was written. */
START_TEST(gathering_costs_no_more_than_what_was_read_and_written)
{
	struct world *w = world_new(false, false);
	uint64_t moved, written;

	write_in_sequence(w);
	ck_assert_int_eq(mls_disk_close(w->disk), 0);
	w->disk = fixture_open(&w->f);	/* what was written before doesn't count */
	read_all(w, READ_BLOCKS);
	write_here_and_there(w);
	wait_until_gathered(w, NR_BLOCKS / 16);
	wait_until_idle(w);
	moved = nr_moved(w);
	ck_assert_uint_le(moved, NR_BLOCKS);
	write_here_and_there(w);
	written = w->nr_written - NR_BLOCKS;
	wait_until_idle(w);
	ck_assert_uint_gt(nr_moved(w), moved);
	ck_assert_uint_le(nr_moved(w), moved + written + READ_BLOCKS);
	check_content(w->disk, w->version);
	world_free(w);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("defrag");
	TCase *tc = tcase_create("defrag");

	tcase_set_timeout(tc, 240);
	tcase_add_test(tc, a_scan_puts_scattered_blocks_in_sequence);
	tcase_add_loop_test(tc, nothing_is_moved_without_need, 0, 4);
	tcase_add_test(tc, a_crash_undoes_it_or_keeps_it);
	tcase_add_test(tc, writers_win);
	tcase_add_test(tc, an_idle_disk_gathers_what_was_scanned);
	tcase_add_test(tc, gathering_costs_no_more_than_what_was_read_and_written);
	suite_add_tcase(suite, tc);
	return check_run(suite);
}
