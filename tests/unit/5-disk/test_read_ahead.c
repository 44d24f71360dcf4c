/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_read_ahead.c - who reads in sequence is read ahead for, and never given anything but what a block holds then.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "5-disk/disk.h"
#include "5-disk/location.h"
#include "tests/lib/check_run.h"
#include "tests/lib/fault_dev.h"
#include "tests/lib/tamper.h"
#include "tests/lib/test_log.h"
#include "tests/lib/test_rand.h"
#include "tests/unit/5-disk/disk_fixture.h"

#define NR_BLOCKS 2048u
#define REQUEST 16u			/* blocks */
#define WINDOW (8 * REQUEST)		/* that are read ahead for it at once */

struct world {
	struct disk_fixture f;
	struct mls_block_dev *medium;
	struct fault_dev *fault;	/* above it */
	struct mls_disk *disk;
	uint64_t version[NR_BLOCKS];
};

/* Each block has been written, all of them are on the device. */
static void world_init(struct world *w)
{
	memset(w, 0, sizeof *w);
	fixture_init(&w->f, 16 * MIB, 0);
	w->medium = w->f.dev;
	w->fault = fault_dev_new(w->medium, FAULT_READ);
	w->f.dev = &w->fault->base;
	w->f.opts.inline_work = false;
	w->f.opts.no_defrag = true;
	w->disk = fixture_open(&w->f);
	for (uint64_t lba = 0; lba < NR_BLOCKS; lba++)
		ck_assert_int_eq(block_write(w->disk, lba, w->version[lba] = 1), 0);
	ck_assert_int_eq(mls_disk_close(w->disk), 0);
	w->disk = fixture_open(&w->f);
}

static void world_release(struct world *w)
{
	ck_assert_int_eq(mls_disk_close(w->disk), 0);
	fixture_release(&w->f);
	mls_block_dev_destroy(w->medium);
}

static int read_request(struct world *w, uint64_t lba)
{
	uint8_t buf[REQUEST * MLS_BLOCK_BYTES], expected[MLS_BLOCK_BYTES];
	int err = mls_disk_read(w->disk, lba * MLS_BLOCK_BYTES, buf, sizeof buf);

	for (uint32_t i = 0; i < REQUEST && !err; i++) {
		block_fill(expected, lba + i, w->version[lba + i]);
		ck_assert_mem_eq(expected, buf + i * (size_t)MLS_BLOCK_BYTES, MLS_BLOCK_BYTES);
	}
	return err;
}

/* Three requests from lba on; then all that is read ahead for them has been. Returns where the next one begins. */
static uint64_t begin_stream(struct world *w, uint64_t lba)
{
	uint64_t before = atomic_load(&w->disk->count.ahead_blocks);

	for (unsigned i = 0; i < 3; i++, lba += REQUEST)
		ck_assert_int_eq(read_request(w, lba), 0);
	while (atomic_load(&w->disk->count.ahead_blocks) < before + 2 * WINDOW)
		usleep(1000);
	return lba;
}

START_TEST(a_stream_finds_its_blocks_in_memory)
{
	struct world w;
	uint64_t lba;

	world_init(&w);
	lba = begin_stream(&w, 0);
	fault_dev_arm(w.fault, 1, MLS_EIO, true);	/* nothing can be read any more, and needn't be */
	for (unsigned i = 0; i < 2 * WINDOW / REQUEST; i++, lba += REQUEST)
		ck_assert_int_eq(read_request(&w, lba), 0);
	ck_assert_uint_eq(atomic_load(&w.disk->count.ahead_used_blocks), 2 * WINDOW);
	fault_dev_arm(w.fault, 0, 0, false);
	for (; lba < NR_BLOCKS; lba += REQUEST)
		ck_assert_int_eq(read_request(&w, lba), 0);
	world_release(&w);
}
END_TEST

/* Nor of who reads parts of blocks, which don't come from here, or large pieces. */
START_TEST(nothing_is_read_ahead_of_who_jumps)
{
	static uint8_t large[MIB];
	struct world w;

	world_init(&w);
	for (unsigned i = 0; i < 200; i++)
		ck_assert_int_eq(mls_disk_read(w.disk, i * 512, large, 512), 0);
	for (unsigned i = 0; i < 4; i++)
		ck_assert_int_eq(mls_disk_read(w.disk, i * MIB, large, MIB), 0);
	for (unsigned i = 0; i < 200; i++)
		ck_assert_int_eq(read_request(&w, i * 7919 % (NR_BLOCKS / REQUEST - 1) * REQUEST), 0);
	ck_assert_uint_eq(atomic_load(&w.disk->count.ahead_blocks), 0);
	world_release(&w);
}
END_TEST

/* Overwritten, in part, or discarded, between the reading and the request. */
START_TEST(what_has_changed_is_read_as_it_is_now)
{
	struct world w;
	uint64_t lba;
	uint8_t part[512];

	world_init(&w);
	lba = begin_stream(&w, 0);
	for (uint64_t at = lba; at < lba + 2 * WINDOW; at += 5)
		ck_assert_int_eq(block_write(w.disk, at, w.version[at] = 2), 0);
	for (uint64_t at = lba + 1; at < lba + 2 * WINDOW; at += 5) {
		ck_assert_int_eq(mls_disk_discard(w.disk, at * MLS_BLOCK_BYTES, MLS_BLOCK_BYTES), 0);
		w.version[at] = 0;
	}
	memset(part, 0, sizeof part);		/* a new version of the same content */
	ck_assert_int_eq(mls_disk_read(w.disk, (lba + 2) * MLS_BLOCK_BYTES, part, sizeof part), 0);
	ck_assert_int_eq(mls_disk_write(w.disk, (lba + 2) * MLS_BLOCK_BYTES, part, sizeof part), 0);
	for (unsigned i = 0; i < 2 * WINDOW / REQUEST; i++, lba += REQUEST)
		ck_assert_int_eq(read_request(&w, lba), 0);
	ck_assert_uint_gt(atomic_load(&w.disk->count.ahead_used_blocks), WINDOW);
	ck_assert_uint_lt(atomic_load(&w.disk->count.ahead_used_blocks), 2 * WINDOW * 3 / 5);
	world_release(&w);
}
END_TEST

/* What isn't what was written is an error for who asks for it, once, and for nobody before. */
START_TEST(damage_is_told_when_it_is_asked_for)
{
	struct mls_index_rec rec;
	uint64_t lba = 3 * REQUEST, damaged = lba + 20;
	struct world w;

	mls_set_logger(test_log_quiet, NULL);
	world_init(&w);
	ck_assert_int_eq(mls_lsm_get(w.disk->lsm, damaged, 1, &rec), 0);
	tamper_flip_bit(w.medium, mls_loc_hba(rec.hba), 12345);
	ck_assert_uint_eq(begin_stream(&w, 0), lba);
	ck_assert_uint_eq(atomic_load(&w.disk->count.integrity_errors), 0);
	ck_assert_int_eq(read_request(&w, lba), 0);
	ck_assert_int_eq(read_request(&w, lba + REQUEST), MLS_EAUTH);
	ck_assert_uint_eq(atomic_load(&w.disk->count.integrity_errors), 1);
	ck_assert_int_eq(read_request(&w, lba + 2 * REQUEST), 0);
	tamper_flip_bit(w.medium, mls_loc_hba(rec.hba), 12345);
	ck_assert_int_eq(read_request(&w, lba + REQUEST), 0);
	world_release(&w);
	mls_set_logger(NULL, NULL);
}
END_TEST

/* A failed read ahead is nobody's error. */
START_TEST(what_could_not_be_read_is_tried_again)
{
	struct world w;
	uint64_t lba = 0;

	mls_set_logger(test_log_quiet, NULL);
	world_init(&w);
	for (unsigned i = 0; i < 2; i++, lba += REQUEST)
		ck_assert_int_eq(read_request(&w, lba), 0);
	fault_dev_arm(w.fault, 2, MLS_EIO, false);	/* of the third request and what is read ahead for it, in any order */
	if (read_request(&w, lba) == 0)
		lba += REQUEST;
	while (atomic_load(&w.disk->count.ahead_blocks) < 2 * WINDOW)
		usleep(1000);
	for (; lba < NR_BLOCKS; lba += REQUEST)
		ck_assert_int_eq(read_request(&w, lba), 0);
	world_release(&w);
	mls_set_logger(NULL, NULL);
}
END_TEST

/* ---- Threads ---- */

static struct world shared;
static _Atomic uint64_t newest[NR_BLOCKS];
static atomic_bool stop;

static void *read_on_and_on(void *arg)
{
	uint64_t lba = (uintptr_t)arg * REQUEST;
	uint8_t buf[REQUEST * MLS_BLOCK_BYTES];

	for (; !atomic_load(&stop); lba = (lba + REQUEST) % NR_BLOCKS) {
		uint64_t before[REQUEST];

		for (unsigned i = 0; i < REQUEST; i++)
			before[i] = atomic_load(&newest[lba + i]);
		ck_assert_int_eq(mls_disk_read(shared.disk, lba * MLS_BLOCK_BYTES, buf, sizeof buf), 0);
		for (unsigned i = 0; i < REQUEST; i++)
			ck_assert_uint_ge(block_version(buf + i * (size_t)MLS_BLOCK_BYTES, lba + i), before[i]);
		usleep(100);		/* a device in memory is as fast as who reads ahead */
	}
	return NULL;
}

START_TEST(streams_beside_a_writer)
{
	uint64_t steps = test_env_u64("MLS_STEPS", 20000);
	pthread_t readers[3];
	struct test_rand r;

	world_init(&shared);
	test_rand_seed(&r, 1);
	atomic_store(&stop, false);
	for (uint64_t lba = 0; lba < NR_BLOCKS; lba++)
		atomic_store(&newest[lba], 1);
	for (uintptr_t i = 0; i < 3; i++)
		ck_assert_int_eq(pthread_create(&readers[i], NULL, read_on_and_on, (void *)(i * 37)), 0);
	for (uint64_t i = 0; i < steps; i++) {
		uint64_t lba = test_rand_below(&r, NR_BLOCKS);

		ck_assert_int_eq(block_write(shared.disk, lba, i + 2), 0);
		atomic_store(&newest[lba], i + 2);
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < 3; i++)
		pthread_join(readers[i], NULL);
	world_release(&shared);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("read ahead");
	TCase *tc = tcase_create("read ahead");

	tcase_set_timeout(tc, 300);
	tcase_add_test(tc, a_stream_finds_its_blocks_in_memory);
	tcase_add_test(tc, nothing_is_read_ahead_of_who_jumps);
	tcase_add_test(tc, what_has_changed_is_read_as_it_is_now);
	tcase_add_test(tc, damage_is_told_when_it_is_asked_for);
	tcase_add_test(tc, what_could_not_be_read_is_tried_again);
	tcase_add_test(tc, streams_beside_a_writer);
	suite_add_tcase(suite, tc);
	return check_run(suite);
}
