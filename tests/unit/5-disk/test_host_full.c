/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_host_full.c - BACKING lies on a host that gets full: the writer is told before anything of his is
 * acknowledged, and everything else goes on.
 *
 * In all tests the device must never refuse a write: whatever was written had its space before.
 */
#include <pthread.h>
#include <time.h>

#include "0-bio/block_dev.h"
#include "5-disk/disk.h"
#include "5-disk/move.h"
#include "base/buf.h"
#include "tests/lib/check_run.h"
#include "tests/lib/test_rand.h"
#include "tests/lib/thin_dev.h"
#include "tests/unit/5-disk/disk_fixture.h"

#define DISK_BLOCKS (32 * MIB / MLS_BLOCK_BYTES)

struct host {
	struct disk_fixture f;
	struct mls_block_dev *mem;
	struct thin_dev *thin;
	uint64_t version[DISK_BLOCKS];
	uint64_t nr_versions;
	struct test_rand r;
};

/* A disk of 32 MiB on a host with room for host_bytes of it. */
static void host_init(struct host *h, uint64_t host_bytes, bool inline_work)
{
	struct mls_format_opts opts = { .disk_bytes = DISK_BLOCKS * MLS_BLOCK_BYTES };

	memset(h, 0, sizeof *h);
	test_rand_seed(&h->r, 7);
	fixture_init(&h->f, opts.disk_bytes, 0);
	h->mem = h->f.dev;
	h->thin = thin_dev_new(h->mem);
	ck_assert(h->thin);
	thin_dev_limit(h->thin, host_bytes / MLS_BLOCK_BYTES);
	h->f.dev = &h->thin->base;
	test_store_init(&h->f.store, NULL);
	ck_assert_int_eq(mls_disk_format(h->f.dev, &h->f.store.base, &h->f.secret, h->f.uuid, &opts), 0);
	h->f.opts.inline_work = inline_work;
}

static void host_release(struct host *h)
{
	ck_assert_uint_eq(thin_dev_counts(h->thin).nr_refused, 0);
	mls_block_dev_destroy(h->f.dev);
	mls_block_dev_destroy(h->mem);
}

static int host_write(struct host *h, struct mls_disk *disk, uint64_t lba)
{
	int err = block_write(disk, lba, h->nr_versions + 1);

	if (!err)
		h->version[lba] = ++h->nr_versions;
	return err;
}

static void host_discard(struct host *h, struct mls_disk *disk, uint64_t lba, uint64_t nr)
{
	ck_assert_int_eq(mls_disk_discard(disk, lba * MLS_BLOCK_BYTES, nr * MLS_BLOCK_BYTES), 0);
	memset(&h->version[lba], 0, nr * sizeof *h->version);
}

static void check_all(struct host *h, struct mls_disk *disk)
{
	for (uint64_t lba = 0; lba < DISK_BLOCKS; lba++)
		ck_assert_msg(block_is(disk, lba, h->version[lba]), "LBA %llu", (unsigned long long)lba);
}

/* From LBA 0 on; returns the first one that found no space. */
static uint64_t fill_up(struct host *h, struct mls_disk *disk, bool sync)
{
	uint64_t lba;
	int err = 0;

	for (lba = 0; lba < DISK_BLOCKS && !err; lba++) {
		err = host_write(h, disk, lba);
		if (!err && sync && lba % 100 == 0)
			ck_assert_int_eq(mls_disk_sync(disk), 0);
	}
	ck_assert_int_eq(err, MLS_ENOSPC);
	return lba - 1;
}

static struct mls_disk *reopen(struct host *h, struct mls_disk *disk)
{
	ck_assert_int_eq(mls_disk_close(disk), 0);
	return fixture_open(&h->f);
}

/*
 * Goal: ENOSPC comes to the writer; sync, reads and discards work on the full host; what was acknowledged is
 * all there, also after the next open; what a discard frees is usable at once; the disk goes on when
 * the host has space again.
 */
START_TEST(a_full_host_refuses_the_writer_and_nothing_else)
{
	struct mls_disk *disk;
	struct host h;
	uint64_t full, more;

	host_init(&h, 16 * MIB, _i % 2);
	disk = fixture_open(&h.f);
	full = fill_up(&h, disk, _i / 2);
	ck_assert_uint_gt(full, 8 * MIB / MLS_BLOCK_BYTES);
	check_all(&h, disk);
	ck_assert_int_eq(mls_disk_sync(disk), 0);
	ck_assert_int_eq(host_write(&h, disk, DISK_BLOCKS - 1), MLS_ENOSPC);
	disk = reopen(&h, disk);
	check_all(&h, disk);

	host_discard(&h, disk, 0, full / 2);
	ck_assert_int_eq(mls_disk_sync(disk), 0);
	for (more = 0; more < full / 3; more++)
		ck_assert_int_eq(host_write(&h, disk, full + more), 0);
	check_all(&h, disk);
	while (host_write(&h, disk, full + more) == 0)
		more++;
	ck_assert_int_eq(mls_disk_sync(disk), 0);

	thin_dev_limit(h.thin, 0);
	for (uint64_t lba = 0; lba < full / 2; lba++) {
		int err = host_write(&h, disk, lba);

		/* The host isn't asked at each write. */
		for (int tries = 0; err == MLS_ENOSPC && tries < 100; tries++) {
			nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
			err = host_write(&h, disk, lba);
		}
		ck_assert_int_eq(err, 0);
	}
	disk = reopen(&h, disk);
	check_all(&h, disk);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	host_release(&h);
}
END_TEST

/* Goal: with some of the host's space to spare, overwriting goes on for ever: on a full host old runs are cleaned. */
START_TEST(overwriting_on_a_full_host_goes_on)
{
	struct mls_disk *disk;
	uint64_t nr = 10 * MIB / MLS_BLOCK_BYTES;
	struct host h;

	host_init(&h, 18 * MIB, _i % 2);
	disk = fixture_open(&h.f);
	for (uint64_t i = 0; i < 6 * nr; i++) {
		uint64_t lba = i < nr ? i : test_rand_below(&h.r, nr);
		int err = host_write(&h, disk, lba);

		ck_assert_msg(err == 0, "write %llu: %s", (unsigned long long)i, mls_strerror(err));
		if (i % 500 == 0)
			ck_assert_int_eq(mls_disk_sync(disk), 0);
	}
	ck_assert_uint_gt(thin_dev_counts(h.thin).nr_not_reserved, 0);
	disk = reopen(&h, disk);
	check_all(&h, disk);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	host_release(&h);
}
END_TEST

/* Goal: discards need room in the index, too; on a full host they have it, however many come. */
START_TEST(discards_go_on_on_a_full_host)
{
	struct mls_disk *disk;
	struct host h;
	uint64_t full;

	host_init(&h, 16 * MIB, _i % 2);
	disk = fixture_open(&h.f);
	full = fill_up(&h, disk, false);
	for (unsigned step = 0; step < 8; step++)
		for (uint64_t lba = step; lba < full; lba += 8)
			host_discard(&h, disk, lba, 1);
	ck_assert_int_eq(mls_disk_sync(disk), 0);
	check_all(&h, disk);
	for (uint64_t lba = 0; lba < full / 2; lba++)
		ck_assert_int_eq(host_write(&h, disk, lba), 0);
	disk = reopen(&h, disk);
	check_all(&h, disk);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	host_release(&h);
}
END_TEST

/* Goal: a host without room for journal and WAL is found at format, and a read-only open asks it for nothing. */
START_TEST(format_takes_what_syncs_need)
{
	struct mls_format_opts opts = { .disk_bytes = DISK_BLOCKS * MLS_BLOCK_BYTES };
	struct mls_disk *disk;
	uint64_t taken;
	struct host h;

	host_init(&h, 16 * MIB, true);
	taken = thin_dev_taken(h.thin);
	h.f.opts.read_only = true;
	disk = fixture_open(&h.f);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	ck_assert_uint_eq(thin_dev_taken(h.thin), taken);
	ck_assert_int_eq(mls_block_dev_discard(h.f.dev, 0, h.f.dev->nr_blocks), 0);
	thin_dev_limit(h.thin, taken - 1);
	ck_assert_int_eq(mls_disk_format(h.f.dev, &h.f.store.base, &h.f.secret, h.f.uuid, &opts), MLS_ENOSPC);
	host_release(&h);
}
END_TEST

struct syncer {
	struct host *h;
	struct mls_disk *disk;
	uint64_t first, end;
};

/* Each block is read again after a later sync: what that one claims ahead mustn't fall on it. */
static void *sync_each_write(void *arg)
{
	struct syncer *s = arg;

	for (uint64_t lba = s->first; lba < s->end; lba++) {
		ck_assert_int_eq(block_write(s->disk, lba, lba + 1), 0);
		ck_assert_int_eq(mls_disk_sync(s->disk), 0);
		s->h->version[lba] = lba + 1;
		ck_assert(block_is(s->disk, s->first + (lba - s->first) / 2, s->first + (lba - s->first) / 2 + 1));
	}
	return NULL;
}

/* Goal: small write-outs write zeros behind what they bring out; no writer's block is hit by them. */
START_TEST(small_syncs_claim_blocks_ahead)
{
	enum { NR_THREADS = 4, BLOCKS_EACH = 400 };
	struct syncer syncers[NR_THREADS];
	pthread_t threads[NR_THREADS];
	struct mls_disk *disk;
	struct host h;

	host_init(&h, 64 * MIB, false);
	disk = fixture_open(&h.f);
	for (unsigned i = 0; i < NR_THREADS; i++) {
		syncers[i] = (struct syncer){ &h, disk, i * BLOCKS_EACH, (i + 1) * BLOCKS_EACH };
		ck_assert_int_eq(pthread_create(&threads[i], NULL, sync_each_write, &syncers[i]), 0);
	}
	for (unsigned i = 0; i < NR_THREADS; i++)
		pthread_join(threads[i], NULL);
	check_all(&h, disk);
	disk = reopen(&h, disk);
	check_all(&h, disk);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	host_release(&h);
}
END_TEST

/* The first nr blocks go to the cleaner's open segment. */
static void move_some(struct mls_disk *disk, uint32_t nr)
{
	uint8_t *blocks = mls_blocks_alloc(nr);
	struct mls_index_rec recs[MLS_MOVES_MAX];
	struct mls_move moves[MLS_MOVES_MAX];
	uint64_t view = mls_lsm_view(disk->lsm);
	atomic_uint_fast64_t moved = 0;

	ck_assert_int_eq(mls_lsm_get(disk->lsm, 0, nr, recs), 0);
	ck_assert_int_eq(mls_disk_read(disk, 0, blocks, nr * MLS_BLOCK_BYTES), 0);
	for (uint32_t i = 0; i < nr; i++)
		moves[i] = (struct mls_move){ i, recs[i].hba, mls_block_at(blocks, i), mls_seg_order_of_now(disk->writer) };
	ck_assert_int_eq(mls_move_blocks(disk, moves, nr, view, &moved), 0);
	ck_assert_uint_eq(moved, nr);
	mls_blocks_free(blocks);
}

/* Goal: a burst in a segment doesn't end that for good, nor does one in a segment that nobody writes to any more. */
START_TEST(small_syncs_claim_again_after_a_burst)
{
	struct mls_format_opts opts = { .disk_bytes = DISK_BLOCKS * MLS_BLOCK_BYTES, .run_blocks = 256 };
	struct mls_disk *disk;
	struct host h;
	unsigned nr = 0;

	host_init(&h, 64 * MIB, false);
	test_store_init(&h.f.store, NULL);
	ck_assert_int_eq(mls_disk_format(h.f.dev, &h.f.store.base, &h.f.secret, h.f.uuid, &opts), 0);
	disk = fixture_open(&h.f);
	for (uint64_t lba = 0; lba < 20; lba++)
		ck_assert_int_eq(block_write(disk, lba, 1), 0);
	ck_assert_int_eq(mls_disk_sync(disk), 0);
	if (_i == 1) {
		move_some(disk, 20);
		ck_assert_int_eq(mls_disk_sync(disk), 0);
	}
	for (; nr < 20; nr++) {
		ck_assert_int_eq(block_write(disk, nr, 2), 0);
		if (mls_seg_out_is_small(disk->writer))
			break;
		ck_assert_int_eq(mls_disk_sync(disk), 0);
	}
	ck_assert_uint_gt(nr, 1);
	ck_assert_uint_lt(nr, 20);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	host_release(&h);
}
END_TEST

/* Goal: while the host is asked for space ahead of need, writers take what it has given before. */
START_TEST(a_writer_does_not_wait_for_the_host)
{
	struct mls_format_opts opts = { .disk_bytes = DISK_BLOCKS * MLS_BLOCK_BYTES, .run_blocks = 16 };
	struct mls_disk *disk;
	uint64_t lba = DISK_BLOCKS / 2;
	struct host h;

	host_init(&h, 64 * MIB, false);
	test_store_init(&h.f.store, NULL);
	ck_assert_int_eq(mls_disk_format(h.f.dev, &h.f.store.base, &h.f.secret, h.f.uuid, &opts), 0);
	disk = fixture_open(&h.f);
	for (uint64_t i = 0; i < lba; i++)
		ck_assert_int_eq(host_write(&h, disk, i), 0);
	thin_dev_hold_reserves(h.thin, true);
	for (; lba < DISK_BLOCKS && thin_dev_counts(h.thin).nr_held == 0; lba++) {
		ck_assert_int_eq(host_write(&h, disk, lba), 0);
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);	/* for whoever asks the host */
	}
	ck_assert_uint_eq(thin_dev_counts(h.thin).nr_held, 1);
	for (unsigned more = 0; more < 16 && lba < DISK_BLOCKS; more++)
		ck_assert_int_eq(host_write(&h, disk, lba++), 0);
	thin_dev_hold_reserves(h.thin, false);
	while (lba < DISK_BLOCKS)
		ck_assert_int_eq(host_write(&h, disk, lba++), 0);
	check_all(&h, disk);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	host_release(&h);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("host_full");
	TCase *tc = tcase_create("host_full");

	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, a_full_host_refuses_the_writer_and_nothing_else, 0, 4);
	tcase_add_loop_test(tc, overwriting_on_a_full_host_goes_on, 0, 2);
	tcase_add_loop_test(tc, discards_go_on_on_a_full_host, 0, 2);
	tcase_add_test(tc, a_writer_does_not_wait_for_the_host);
	tcase_add_test(tc, small_syncs_claim_blocks_ahead);
	tcase_add_loop_test(tc, small_syncs_claim_again_after_a_burst, 0, 2);
	tcase_add_test(tc, format_takes_what_syncs_need);
	suite_add_tcase(s, tc);
	return check_run(s);
}
