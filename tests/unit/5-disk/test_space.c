/* SPDX-License-Identifier: MPL-2.0 */
/* test_space.c - space comes back, also to the host, and a disk that is full says so and goes on. */
#include <stdio.h>
#include <time.h>

#include "0-bio/block_dev.h"
#include "5-disk/bury.h"
#include "5-disk/dead_slots.h"
#include "5-disk/disk.h"
#include "5-disk/location.h"
#include "base/checked.h"
#include "tests/lib/check_run.h"
#include "tests/lib/fault_dev.h"
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

/* A disk of HALF_DISK_BYTES on a device that shows space for half of it; the rest is there to grow. */
#define HALF_DISK_BYTES (32 * MIB)

static void thin_init_half(struct thin_fixture *t)
{
	struct mls_format_opts opts = { .disk_bytes = HALF_DISK_BYTES };

	thin_init(t, HALF_DISK_BYTES, 0);
	thin_dev_show(t->thin, mls_backing_bytes(HALF_DISK_BYTES / 2) / MLS_BLOCK_BYTES);
	test_store_init(&t->f.store, NULL);
	ck_assert_int_eq(mls_disk_format(t->f.dev, &t->f.store.base, &t->f.secret, t->f.uuid, &opts), 0);
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

/* One after the other until there is no space; how many. */
static uint64_t fill_up(struct mls_disk *disk, uint64_t max, uint64_t version)
{
	uint64_t nr = 0;
	int err;

	do
		err = block_write(disk, nr, version);
	while (!err && ++nr < max);
	ck_assert_int_eq(err, MLS_ENOSPC);
	return nr;
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
	/* Live data, the index, journal and WAL, the open segments, and what is reserved on the host. */
	bound = keep + keep / 10 + 384 + 24 * run_blocks(disk);
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
	ck_assert_uint_eq(thin_dev_taken(t.thin), thin_dev_counts(t.thin).max_taken);
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

/* ---- Discards of large ranges ---- */

/* What seek must say at lba, by the versions; block-aligned. */
static void check_seek(struct mls_disk *disk, const uint64_t *version, uint64_t nr, uint64_t lba)
{
	uint64_t data = lba, hole = lba, found;
	int err;

	while (data < nr && !version[data])
		data++;
	while (hole < nr && version[hole])
		hole++;
	err = mls_disk_seek(disk, lba * MLS_BLOCK_BYTES, true, &found);
	ck_assert_int_eq(err, data < nr ? 0 : MLS_ENOENT);
	if (!err)
		ck_assert_uint_eq(found, data * MLS_BLOCK_BYTES);
	ck_assert_int_eq(mls_disk_seek(disk, lba * MLS_BLOCK_BYTES, false, &found), 0);
	ck_assert_uint_eq(found, hole * MLS_BLOCK_BYTES);
}

/* Goal: large discards, which are worked off in the background, look done from the moment they return: to reads of all
 * kinds, writes (also of parts), seeks, and, once synced, to the next open. */
START_TEST(large_discards_look_done_at_once)
{
	uint64_t nr = 32 * MIB / MLS_BLOCK_BYTES, nr_writes = 0;
	uint64_t *version = calloc(nr, sizeof *version);
	struct disk_fixture f;
	struct test_rand r;
	struct mls_disk *disk;

	test_rand_seed(&r, 21);
	fixture_init(&f, 32 * MIB, 0);
	f.opts.inline_work = _i == 0;
	disk = fixture_open(&f);
	fill(disk, 0, nr, ++nr_writes);
	for (uint64_t lba = 0; lba < nr; lba++)
		version[lba] = nr_writes;
	for (unsigned step = 0; step < 4000; step++) {
		uint64_t lba = test_rand_below(&r, nr), what = test_rand_below(&r, 100);
		uint64_t run = mls_min_u64(nr - lba, 1 + test_rand_below(&r, what % 2 ? 400 : nr));

		if (what < 6) {
			ck_assert_int_eq(mls_disk_discard(disk, lba * MLS_BLOCK_BYTES, run * MLS_BLOCK_BYTES), 0);
			memset(&version[lba], 0, run * sizeof *version);
		} else if (what < 50) {
			run = mls_min_u64(run, 40);
			fill(disk, lba, lba + run, ++nr_writes);
			for (uint64_t i = 0; i < run; i++)
				version[lba + i] = nr_writes;
		} else if (what < 60) {		/* zeros over the start of a block: only a hole stays as it is */
			if (version[lba] == 0)
				ck_assert_int_eq(mls_disk_write(disk, lba * MLS_BLOCK_BYTES, &(char[100]){ 0 }, 100), 0);
			if (version[lba] == 0)
				ck_assert_int_eq(mls_disk_discard(disk, lba * MLS_BLOCK_BYTES, MLS_BLOCK_BYTES), 0);
		} else if (what < 62) {
			ck_assert_int_eq(mls_disk_sync(disk), 0);
		} else if (what < 70) {
			check_seek(disk, version, nr, lba);
		} else {
			ck_assert(block_is(disk, lba, version[lba]));
		}
	}
	for (unsigned round = 0; round < 2; round++) {
		for (uint64_t lba = 0; lba < nr; lba++)
			ck_assert(block_is(disk, lba, version[lba]));
		ck_assert_int_eq(mls_disk_close(disk), 0);
		disk = fixture_open(&f);
	}
	ck_assert_int_eq(mls_disk_close(disk), 0);
	fixture_release(&f);
	free(version);
}
END_TEST

/* Goal: while the thread buries what was discarded, no seek finds data there, and no read old content. Method: blocks here
 * and there, so that the index is asked where the next one is while the thread is just about to bury that. */
START_TEST(nothing_shines_through_while_it_is_buried)
{
	uint64_t nr = 32 * MIB / MLS_BLOCK_BYTES, found, nr_seeks = 0;
	struct disk_fixture f;
	struct mls_disk *disk;

	fixture_init(&f, 32 * MIB, 0);
	f.opts.inline_work = false;
	disk = fixture_open(&f);
	for (unsigned round = 1; round <= 30; round++) {
		for (uint64_t lba = round % 8; lba < nr; lba += 8)
			ck_assert_int_eq(block_write(disk, lba, round), 0);
		ck_assert_int_eq(mls_disk_discard(disk, 0, nr * MLS_BLOCK_BYTES), 0);
		do {
			ck_assert_int_eq(mls_disk_seek(disk, 0, true, &found), MLS_ENOENT);
			ck_assert(block_is(disk, (nr_seeks * 37 % (nr / 8)) * 8 + round % 8, 0));
			nr_seeks++;
		} while (mls_bury_pending(disk->burier) > 0);
	}
	ck_assert_uint_gt(nr_seeks, 30);	/* more than one a round: some met the thread at work */
	ck_assert_int_eq(mls_disk_close(disk), 0);
	fixture_release(&f);
}
END_TEST

/* Goal: a writer on a full disk gets the space of a discard that has just returned. */
START_TEST(what_a_large_discard_frees_is_usable_at_once)
{
	uint64_t nr = HALF_DISK_BYTES / MLS_BLOCK_BYTES, full;
	struct thin_fixture t;
	struct mls_disk *disk;

	thin_init_half(&t);
	t.f.opts.inline_work = _i == 0;
	disk = fixture_open(&t.f);
	full = fill_up(disk, nr, 1);
	for (unsigned round = 2; round < 6; round++) {
		ck_assert_int_eq(mls_disk_sync(disk), 0);
		ck_assert_int_eq(mls_disk_discard(disk, 0, 32 * MIB), 0);
		fill(disk, 0, full * 9 / 10, round);
	}
	for (uint64_t lba = 0; lba < nr; lba++)
		ck_assert(block_is(disk, lba, lba < full * 9 / 10 ? 5 : 0));
	ck_assert_int_eq(mls_disk_close(disk), 0);
	thin_release(&t);
}
END_TEST

/*
 * Goal: on a disk that is full to the last block, everything can be discarded and synced, under either policy: the
 * tombstones have their space before the discard returns. Method: the usual memtable, and one so small that the index
 * takes more runs for them than there are: then a discard under the strict policy may be refused, but no sync is,
 * and with them it gets through.
 */
START_TEST(a_full_disk_can_be_discarded_and_synced)
{
	uint64_t nr = HALF_DISK_BYTES / MLS_BLOCK_BYTES, full = 0;
	bool strict = _i / 2 % 2 == 0, small = _i / 4 == 0;
	struct thin_fixture t;
	struct mls_disk *disk;
	int err = 0;

	thin_init_half(&t);
	t.f.opts.inline_work = _i % 2 == 0;
	t.f.opts.strict_sync = strict;
	t.f.opts.memtable_records = small ? 64 : 0;
	disk = fixture_open(&t.f);
	for (unsigned round = 1; round < 4; round++) {
		for (full = 0, err = 0; full < nr && !err; full += !err) {
			err = block_write(disk, full, round);
			if (err == MLS_ENOSPC && strict) {	/* it may be what waits for a sync */
				ck_assert_int_eq(mls_disk_sync(disk), 0);
				err = block_write(disk, full, round);
			}
		}
		ck_assert_int_eq(err, MLS_ENOSPC);
		/* Tiny tables take a run each: more runs are the index's, and some are half-way through a compaction. */
		ck_assert_uint_gt(full, (small ? 10 : 12) * MIB / MLS_BLOCK_BYTES);
		ck_assert_int_eq(mls_disk_sync(disk), 0);
		err = mls_disk_discard(disk, 0, 32 * MIB);
		for (unsigned i = 0; strict && small && err == MLS_ENOSPC && i < 10; i++) {
			ck_assert_int_eq(mls_disk_sync(disk), 0);
			err = mls_disk_discard(disk, 0, 32 * MIB);
		}
		ck_assert_int_eq(err, 0);
		for (uint64_t lba = 0; lba < nr; lba += 7)
			ck_assert(block_is(disk, lba, 0));
		ck_assert_int_eq(mls_disk_sync(disk), 0);
	}
	ck_assert_int_eq(mls_disk_close(disk), 0);
	disk = fixture_open(&t.f);
	for (uint64_t lba = 0; lba < nr; lba++)
		ck_assert(block_is(disk, lba, 0));
	ck_assert_int_eq(mls_disk_close(disk), 0);
	thin_release(&t);
}
END_TEST

/* ---- Growing ---- */

static uint64_t size_of(struct mls_disk *disk)
{
	struct mls_disk_stat stat;

	mls_disk_stat(disk, &stat);
	return stat.disk_bytes;
}

/* Goal: the disk grows under use and stays larger; what it held stays, what is new reads as zeros. */
START_TEST(a_disk_grows)
{
	uint64_t nr = 4 * MIB / MLS_BLOCK_BYTES;
	struct disk_fixture f;
	struct mls_disk *disk;

	fixture_init(&f, 4 * MIB, mls_backing_bytes(16 * MIB));
	f.opts.inline_work = _i == 0;
	disk = fixture_open(&f);
	fill(disk, 0, nr, 1);
	ck_assert_int_eq(block_write(disk, nr, 1), MLS_EINVAL);
	ck_assert_int_eq(mls_disk_resize(disk, 4 * MIB - MLS_BLOCK_BYTES), MLS_EINVAL);
	ck_assert_int_eq(mls_disk_resize(disk, UINT64_MAX), MLS_EINVAL);
	ck_assert_int_eq(mls_disk_resize(disk, 4 * MIB), 0);
	ck_assert_uint_eq(size_of(disk), 4 * MIB);
	ck_assert_int_eq(mls_disk_resize(disk, 12 * MIB), 0);
	ck_assert_uint_eq(size_of(disk), 12 * MIB);
	ck_assert(block_is(disk, 3 * nr - 1, 0));
	fill(disk, nr, 3 * nr, 2);
	ck_assert_int_eq(mls_disk_resize(disk, 12 * MIB + 4097), 0);
	ck_assert_int_eq(mls_disk_sync(disk), 0);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	disk = fixture_open(&f);
	ck_assert_uint_eq(size_of(disk), 12 * MIB + 4096);
	for (uint64_t lba = 0; lba <= 3 * nr; lba++)
		ck_assert(block_is(disk, lba, lba < nr ? 1 : lba < 3 * nr ? 2 : 0));
	ck_assert_int_eq(mls_disk_close(disk), 0);
	f.opts.read_only = true;
	disk = fixture_open(&f);
	ck_assert_int_eq(mls_disk_resize(disk, 16 * MIB), MLS_EROFS);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	fixture_release(&f);
}
END_TEST

/* Goal: a backing that grew is used; a disk that was full takes data again. */
START_TEST(a_backing_that_grew_is_used)
{
	uint64_t nr = HALF_DISK_BYTES / MLS_BLOCK_BYTES, full;
	struct mls_disk_stat before, after;
	struct thin_fixture t;
	struct mls_disk *disk;

	thin_init_half(&t);
	t.f.opts.inline_work = _i == 0;
	disk = fixture_open(&t.f);
	full = fill_up(disk, nr, 1);
	mls_disk_stat(disk, &before);
	thin_dev_show(t.thin, t.mem->nr_blocks);
	ck_assert_int_eq(mls_disk_resize(disk, 32 * MIB), 0);
	mls_disk_stat(disk, &after);
	ck_assert_uint_gt(after.nr_runs, before.nr_runs * 3 / 2);
	fill(disk, full, nr, 2);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	disk = fixture_open(&t.f);
	for (uint64_t lba = 0; lba < nr; lba++)
		ck_assert(block_is(disk, lba, lba < full ? 1 : 2));
	ck_assert_int_eq(mls_disk_close(disk), 0);
	thin_release(&t);
}
END_TEST

/* Goal: whichever write or flush of a resize fails, the disk opens with the old size or the new one, and all data. */
START_TEST(a_resize_that_fails_leaves_one_size_or_the_other)
{
	uint64_t nr = 2 * MIB / MLS_BLOCK_BYTES;
	unsigned done = 0;

	for (unsigned at = 1; !done; at++) {
		struct disk_fixture f;
		struct fault_dev *fault;
		struct mls_block_dev *mem;
		struct mls_disk *disk;
		int err;

		fixture_init(&f, 2 * MIB, mls_backing_bytes(8 * MIB));
		mem = f.dev;
		fault = fault_dev_new(mem, FAULT_WRITE | FAULT_FLUSH);
		ck_assert(fault);
		f.dev = &fault->base;
		disk = fixture_open(&f);
		fill(disk, 0, nr, 1);
		ck_assert_int_eq(mls_disk_sync(disk), 0);
		fault_dev_arm(fault, at, MLS_EIO, false);
		err = mls_disk_resize(disk, 8 * MIB);
		done = !fault->fired;
		ck_assert_int_eq(err == 0, done);
		fault->fail_at = 0;
		/* It may be tried again, to another size; but not after a flush that failed. */
		err = size_of(disk) == 2 * MIB ? mls_disk_resize(disk, 6 * MIB) : 0;
		ck_assert(err == 0 || err == MLS_EPOISONED);
		(void)mls_disk_close(disk);
		f.dev = mem;
		disk = fixture_open(&f);
		ck_assert(size_of(disk) == 6 * MIB || size_of(disk) == 8 * MIB || (err && size_of(disk) == 2 * MIB));
		for (uint64_t lba = 0; lba < nr; lba++)
			ck_assert(block_is(disk, lba, 1));
		ck_assert_int_eq(mls_disk_close(disk), 0);
		mls_block_dev_destroy(&fault->base);
		fixture_release(&f);
	}
}
END_TEST

/* Goal: an old superblock put back after a resize is refused. */
START_TEST(the_old_superblock_is_refused)
{
	uint8_t *old = aligned_alloc(MLS_BLOCK_BYTES, 2 * MLS_BLOCK_BYTES);
	struct disk_fixture f;
	struct mls_disk *disk;

	fixture_init(&f, 2 * MIB, 0);
	ck_assert_int_eq(mls_block_dev_read(f.dev, 0, 1, old), 0);
	ck_assert_int_eq(mls_block_dev_read(f.dev, 16, 1, old + MLS_BLOCK_BYTES), 0);
	disk = fixture_open(&f);
	ck_assert_int_eq(mls_disk_resize(disk, 3 * MIB), 0);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	ck_assert_int_eq(mls_block_dev_write(f.dev, 0, 1, old), 0);
	ck_assert_int_eq(mls_block_dev_write(f.dev, 16, 1, old + MLS_BLOCK_BYTES), 0);
	ck_assert_int_eq(fixture_try_open(&f, &disk), MLS_ESTALE);
	free(old);
	fixture_release(&f);
}
END_TEST

/* ---- Statistics ---- */

static uint64_t number_of(const char *json, const char *name)
{
	char key[64];
	const char *at;

	snprintf(key, sizeof key, "\"%s\": ", name);
	at = strstr(json, key);
	ck_assert_msg(at, "no %s in %s", name, json);
	return strtoull(at + strlen(key), NULL, 10);
}

START_TEST(statistics_tell_what_happened)
{
	struct disk_fixture f;
	struct mls_disk *disk;
	size_t bytes;
	char *json;

	fixture_init(&f, 4 * MIB, 0);
	disk = fixture_open(&f);
	fill(disk, 0, 100, 1);
	ck_assert_int_eq(mls_disk_discard(disk, 0, 10 * MLS_BLOCK_BYTES), 0);
	ck_assert_int_eq(mls_disk_sync(disk), 0);
	ck_assert_int_eq(mls_disk_stats_json(disk, &json, &bytes), 0);
	ck_assert_uint_eq(strlen(json), bytes);
	ck_assert_uint_eq(number_of(json, "version"), 1);
	ck_assert_uint_eq(number_of(json, "disk_bytes"), 4 * MIB);
	ck_assert_uint_eq(number_of(json, "writes"), 100);
	ck_assert_uint_eq(number_of(json, "discarded_blocks"), 10);
	ck_assert_uint_eq(number_of(json, "live_blocks"), 90);
	ck_assert_uint_eq(number_of(json, "integrity"), 0);
	ck_assert(strstr(json, "\"state\": \"ok\""));
	free(json);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	fixture_release(&f);
}
END_TEST

/* ---- Cleaning ---- */

/* A device with a block that can't be read; or that doesn't read a whole run at once: somewhere in it is such a block. */
struct patchy_dev {
	struct mls_block_dev base, *inner;
	uint64_t bad_hba, run_blocks, nr_refused;	/* 0: all is well */
};

static bool is_refused(const struct patchy_dev *p, const struct mls_io *io, unsigned nr)
{
	bool has_bad = p->bad_hba && p->bad_hba - io->hba < io->nr_blocks;

	return has_bad || (nr == 1 && p->run_blocks && io->nr_blocks == p->run_blocks);
}

static int patchy_read(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr)
{
	struct patchy_dev *p = (struct patchy_dev *)dev;

	for (unsigned i = 0; i < nr; i++) {
		if (is_refused(p, &ios[i], nr)) {
			p->nr_refused++;
			return ios[i].err = MLS_EIO;
		}
	}
	return mls_block_dev_readv(p->inner, ios, nr);
}

static int patchy_write(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr)
{
	return mls_block_dev_writev(((struct patchy_dev *)dev)->inner, ios, nr);
}

static int patchy_flush(struct mls_block_dev *dev)
{
	return mls_block_dev_flush(((struct patchy_dev *)dev)->inner);
}

static void patchy_destroy(struct mls_block_dev *dev)
{
	(void)dev;
}

static const struct mls_block_dev_ops patchy_ops = {
	.read = patchy_read, .write = patchy_write, .flush = patchy_flush, .destroy = patchy_destroy,
};

/* A disk whose tables are far smaller than the runs they take, has room for them all the same. */
START_TEST(tiny_tables_leave_room)
{
	uint64_t nr = 16 * MIB / MLS_BLOCK_BYTES * 6 / 10;
	struct test_rand rand;
	struct disk_fixture f;
	struct mls_disk *disk;

	fixture_init(&f, 16 * MIB, 0);
	f.opts.memtable_records = 128;
	test_rand_seed(&rand, 3);
	disk = fixture_open(&f);
	fill(disk, 0, nr, 1);
	for (uint64_t n = 0; n < 7 * nr; n++)
		ck_assert_int_eq(block_write(disk, test_rand_below(&rand, nr), 2), 0);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	fixture_release(&f);
}
END_TEST

/* Goal: what is live in a victim is moved, although what is dead in it can't be read. (No table has as
 * many blocks of records as a run, so nothing but a victim is read in one transfer of that size.) */
START_TEST(dead_blocks_need_not_be_readable)
{
	uint64_t nr = 16 * MIB / MLS_BLOCK_BYTES * 8 / 10;
	struct patchy_dev patchy = { .base.ops = &patchy_ops };
	struct mls_disk_stat stat;
	struct test_rand rand;
	struct disk_fixture f;
	struct mls_disk *disk;
	uint64_t *version = calloc(nr, sizeof *version);

	ck_assert_ptr_nonnull(version);
	fixture_init(&f, 16 * MIB, 0);
	patchy.inner = f.dev;
	patchy.base.nr_blocks = f.dev->nr_blocks;
	f.dev = &patchy.base;
	test_rand_seed(&rand, 3);
	disk = fixture_open(&f);
	patchy.run_blocks = run_blocks(disk);
	for (uint64_t n = 1; n <= 8 * nr; n++) {
		uint64_t lba = n <= nr ? n - 1 : test_rand_below(&rand, nr);

		ck_assert_int_eq(block_write(disk, lba, n), 0);
		version[lba] = n;
	}
	mls_disk_stat(disk, &stat);
	ck_assert_uint_gt(patchy.nr_refused, 0);
	ck_assert_uint_ge(stat.cleaned_segments, patchy.nr_refused);
	ck_assert_uint_gt(stat.moved_blocks, 0);
	for (uint64_t lba = 0; lba < nr; lba++)
		ck_assert(block_is(disk, lba, version[lba]));
	ck_assert_int_eq(mls_disk_close(disk), 0);
	f.dev = patchy.inner;
	fixture_release(&f);
	free(version);
}
END_TEST

/* The same for a reader: what was overwritten lies between what he wants, and comes with it. */
START_TEST(dead_blocks_between_need_not_be_readable)
{
	static _Alignas(MLS_BLOCK_BYTES) uint8_t data[32 * MLS_BLOCK_BYTES], expected[MLS_BLOCK_BYTES];
	struct patchy_dev patchy = { .base.ops = &patchy_ops };
	struct mls_index_rec old;
	struct disk_fixture f;
	struct mls_disk *disk;

	fixture_init(&f, 16 * MIB, 0);
	patchy.inner = f.dev;
	patchy.base.nr_blocks = f.dev->nr_blocks;
	f.dev = &patchy.base;
	disk = fixture_open(&f);
	fill(disk, 0, 32, 1);
	ck_assert_int_eq(mls_lsm_get(disk->lsm, 10, 1, &old), 0);
	fill(disk, 10, 11, 2);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	disk = fixture_open(&f);
	patchy.bad_hba = mls_loc_hba(old.hba);
	ck_assert_int_eq(mls_disk_read(disk, 0, data, sizeof data), 0);
	ck_assert_uint_eq(patchy.nr_refused, 1);
	for (uint64_t lba = 0; lba < 32; lba++) {
		block_fill(expected, lba, lba == 10 ? 2 : 1);
		ck_assert_mem_eq(data + lba * MLS_BLOCK_BYTES, expected, MLS_BLOCK_BYTES);
	}
	ck_assert_int_eq(mls_disk_close(disk), 0);
	f.dev = patchy.inner;
	fixture_release(&f);
}
END_TEST

/* The marks of the run that lba's newest version is in; *slot: where. false: it's a hole. */
static bool dead_around(struct mls_disk *disk, uint64_t lba, uint64_t *bits, uint32_t *slot)
{
	struct mls_seg_pin pin;
	struct mls_index_rec rec;

	ck_assert_int_eq(mls_lsm_get(disk->lsm, lba, 1, &rec), 0);
	if (rec.hba == MLS_HBA_NONE)
		return false;
	ck_assert_int_eq(mls_segment_table_pin(disk->table, rec.hba, &pin), 0);
	mls_segment_table_dead_slots(disk->table, pin.run, pin.birth, bits);
	*slot = pin.slot;
	mls_segment_table_unpin(&pin);
	return true;
}

static unsigned nr_marks(const uint64_t *bits, uint32_t nr_slots)
{
	unsigned nr = 0;

	for (uint32_t slot = 0; slot < nr_slots; slot++)
		nr += mls_dead_slot_in(bits, slot);
	return nr;
}

/* What the newest record of any LBA points to is never marked dead; and what is overwritten is, most of it, once the index
 * has told. Moves of the cleaner, discards and reopens in between. */
START_TEST(what_is_marked_dead_is_hidden)
{
	uint64_t nr = 16 * MIB / MLS_BLOCK_BYTES / 2, marked = 0, bits[64];
	struct test_rand rand;
	struct disk_fixture f;
	struct mls_disk *disk;

	fixture_init(&f, 16 * MIB, 0);
	f.opts.memtable_records = 256;
	test_rand_seed(&rand, 5 + (uint64_t)_i);
	disk = fixture_open(&f);
	ck_assert_uint_le(run_blocks(disk), 64 * 64);
	fill(disk, 0, nr, 1);
	for (unsigned round = 0; round < 12; round++) {
		for (uint64_t n = 0; n < nr; n++)
			ck_assert_int_eq(block_write(disk, test_rand_below(&rand, nr), 2 + round), 0);
		ck_assert_int_eq(mls_disk_discard(disk, test_rand_below(&rand, nr) * MLS_BLOCK_BYTES, MIB / 4), 0);
		if (round % 2)
			ck_assert_int_eq(mls_disk_sync(disk), 0);
		if (round % 5 == 4) {
			ck_assert_int_eq(mls_disk_close(disk), 0);
			disk = fixture_open(&f);
		}
		ck_assert_int_eq(mls_lsm_tell_shadowed(disk->lsm), 0);
		for (uint64_t lba = 0; lba < nr; lba++) {
			uint32_t slot;

			if (!dead_around(disk, lba, bits, &slot))
				continue;
			ck_assert(!mls_dead_slot_in(bits, slot));
			marked += nr_marks(bits, (uint32_t)run_blocks(disk));
		}
	}
	ck_assert_uint_gt(marked, 12 * nr);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	fixture_release(&f);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("space");
	TCase *tc = tcase_create("host");

	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, an_idle_disk_gives_discarded_space_back);
	tcase_add_test(tc, nodiscard_gives_nothing_back);
	tcase_add_test(tc, what_is_given_back_was_not_needed);
	suite_add_tcase(s, tc);
	tc = tcase_create("discards");
	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, large_discards_look_done_at_once, 0, 2);
	tcase_add_test(tc, nothing_shines_through_while_it_is_buried);
	tcase_add_loop_test(tc, what_a_large_discard_frees_is_usable_at_once, 0, 2);
	tcase_add_loop_test(tc, a_full_disk_can_be_discarded_and_synced, 0, 8);
	suite_add_tcase(s, tc);
	tc = tcase_create("growing");
	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, a_disk_grows, 0, 2);
	tcase_add_loop_test(tc, a_backing_that_grew_is_used, 0, 2);
	tcase_add_test(tc, a_resize_that_fails_leaves_one_size_or_the_other);
	tcase_add_test(tc, the_old_superblock_is_refused);
	suite_add_tcase(s, tc);
	tc = tcase_create("cleaning");
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, tiny_tables_leave_room);
	tcase_add_test(tc, dead_blocks_need_not_be_readable);
	tcase_add_test(tc, dead_blocks_between_need_not_be_readable);
	tcase_add_loop_test(tc, what_is_marked_dead_is_hidden, 0, 4);
	suite_add_tcase(s, tc);
	tc = tcase_create("statistics");
	tcase_add_test(tc, statistics_tell_what_happened);
	suite_add_tcase(s, tc);
	return check_run(s);
}
