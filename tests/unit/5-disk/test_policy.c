/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_policy.c - what happens when unsynced writes outgrow the space that the last synced state leaves.
 *
 * early    The disk syncs by itself, as often as it must. Each such sync is as whole as a user's: after a crash
 *          the disk is as of one moment, at or after it.
 * strict   ENOSPC, while everything that was synced stays as it was synced; reads, discards and the user's
 *          sync work, and after that sync writing goes on. The disk never syncs by itself.
 *
 * Blocks are written one after the other, the Nth with version N; so the versions found after a crash tell
 * which moment it is.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "0-bio/block_dev.h"
#include "5-disk/disk.h"
#include "tests/lib/check_run.h"
#include "tests/lib/crash_dev.h"
#include "tests/lib/test_rand.h"
#include "tests/unit/5-disk/disk_fixture.h"

#define DISK_BLOCKS (8 * MIB / MLS_BLOCK_BYTES)
#define WRITES_MAX 40000u

struct policy {
	struct disk_fixture f;
	struct mls_block_dev *medium;
	struct crash_dev *crash;
	struct mls_disk *disk;
	struct test_rand r;
	uint64_t version[DISK_BLOCKS];
	uint32_t history[WRITES_MAX + 1];	/* the LBA of write N */
	uint64_t nr_written;
};

static void policy_init(struct policy *p, bool strict, bool inline_work)
{
	memset(p, 0, sizeof *p);
	test_rand_seed(&p->r, 5);
	fixture_init(&p->f, DISK_BLOCKS * MLS_BLOCK_BYTES, 0);
	p->medium = p->f.dev;
	p->crash = crash_dev_new(p->medium, NULL);
	ck_assert(p->crash);
	p->f.dev = &p->crash->base;
	p->f.opts.strict_sync = strict;
	p->f.opts.inline_work = inline_work;
	p->disk = fixture_open(&p->f);
}

static void policy_release(struct policy *p)
{
	mls_block_dev_destroy(p->f.dev);
	mls_block_dev_destroy(p->medium);
}

static int policy_write(struct policy *p, uint64_t lba)
{
	int err = block_write(p->disk, lba, p->nr_written + 1);

	ck_assert_uint_lt(p->nr_written, WRITES_MAX);
	if (!err) {
		p->version[lba] = ++p->nr_written;
		p->history[p->nr_written] = (uint32_t)lba;
	}
	return err;
}

static void policy_discard(struct policy *p, uint64_t lba)
{
	ck_assert_int_eq(mls_disk_discard(p->disk, lba * MLS_BLOCK_BYTES, MLS_BLOCK_BYTES), 0);
	p->version[lba] = 0;
}

static void check_all(struct mls_disk *disk, const uint64_t *version)
{
	for (uint64_t lba = 0; lba < DISK_BLOCKS; lba++)
		ck_assert_msg(block_is(disk, lba, version[lba]), "LBA %llu isn't of version %llu",
			      (unsigned long long)lba, (unsigned long long)version[lba]);
}

/* All that was written is there, also at the next open if that is asked for. */
static void policy_end(struct policy *p, bool reopen)
{
	check_all(p->disk, p->version);
	ck_assert_int_eq(mls_disk_close(p->disk), 0);
	if (reopen) {
		p->disk = fixture_open(&p->f);
		check_all(p->disk, p->version);
		ck_assert_int_eq(mls_disk_close(p->disk), 0);
	}
	policy_release(p);
}

static struct mls_disk_stat stat_of(struct mls_disk *disk)
{
	struct mls_disk_stat stat;

	mls_disk_stat(disk, &stat);
	return stat;
}

/* ---- A crash now, on a copy ---- */

struct aftermath {
	struct disk_fixture f;
	struct mls_disk *disk;
};

static void crash_now(struct policy *p, struct aftermath *after, uint64_t seed)
{
	after->f = p->f;
	after->f.dev = crash_dev_image(p->crash, seed);
	ck_assert(after->f.dev);
	after->disk = fixture_open(&after->f);
}

static void aftermath_release(struct aftermath *after)
{
	ck_assert_int_eq(mls_disk_close(after->disk), 0);
	mls_block_dev_destroy(after->f.dev);
}

/* The newest version there is. */
static uint64_t newest_version(struct mls_disk *disk)
{
	uint64_t newest = 0;

	for (uint64_t lba = 0; lba < DISK_BLOCKS; lba++) {
		uint64_t block[MLS_BLOCK_BYTES / 8];

		ck_assert_int_eq(mls_disk_read(disk, lba * MLS_BLOCK_BYTES, block, sizeof block), 0);
		newest = block[1] > newest ? block[1] : newest;
	}
	return newest;
}

/* The disk after a crash is as of one moment; which one. */
static uint64_t check_moment(struct policy *p, uint64_t seed)
{
	static uint64_t version[DISK_BLOCKS];
	struct aftermath after;
	uint64_t moment;

	crash_now(p, &after, seed);
	moment = newest_version(after.disk);
	memset(version, 0, sizeof version);
	for (uint64_t n = 1; n <= moment; n++)
		version[p->history[n]] = n;
	check_all(after.disk, version);
	aftermath_release(&after);
	return moment;
}

/* ---- early ---- */

/* Goal: without any sync of the user's, writes of many times the free space go on, and each early sync is complete. */
START_TEST(early_syncs_are_whole)
{
	struct policy *p = calloc(1, sizeof *p);
	uint64_t early = 0, moments = 0;

	ck_assert(p);
	policy_init(p, false, true);
	for (uint64_t i = 0; i < 10 * DISK_BLOCKS; i++) {
		uint64_t lba = i < DISK_BLOCKS ? i : test_rand_below(&p->r, DISK_BLOCKS), acknowledged = p->nr_written;
		uint64_t now;

		ck_assert_int_eq(policy_write(p, lba), 0);
		now = stat_of(p->disk).early_syncs;
		if (now == early)
			continue;
		early = now;
		/* It was made within this write: all before it are in it. Not each one is tried: it takes a while. */
		if (early <= 3 || early % 16 == 0) {
			ck_assert_uint_ge(check_moment(p, early), acknowledged);
			moments++;
		}
	}
	ck_assert_uint_ge(moments, 4);
	ck_assert_uint_eq(stat_of(p->disk).syncs, 0);
	policy_end(p, false);
	free(p);
}
END_TEST

/* Goal: the same with the cleaner's threads. (One sync of the user's: what was never synced needs none to be reused.) */
START_TEST(early_syncs_let_threads_go_on)
{
	struct policy *p = calloc(1, sizeof *p);

	ck_assert(p);
	policy_init(p, false, false);
	for (uint64_t i = 0; i < 4 * DISK_BLOCKS; i++) {
		ck_assert_int_eq(policy_write(p, i < DISK_BLOCKS ? i : test_rand_below(&p->r, DISK_BLOCKS)), 0);
		if (i == DISK_BLOCKS)
			ck_assert_int_eq(mls_disk_sync(p->disk), 0);
	}
	ck_assert_uint_gt(stat_of(p->disk).early_syncs, 0);
	ck_assert_uint_eq(stat_of(p->disk).syncs, 1);
	policy_end(p, true);
	free(p);
}
END_TEST

/*
 * Goal: an early sync has what was discarded before it, however large: a crash never shows the old data beside what was
 * written later. Method: a quarter of the disk, filled, is discarded, something is written elsewhere, and then comes
 * the sync that the cleaner would make; the range waits for it, as there is no thread that works it off.
 */
START_TEST(early_syncs_have_large_discards)
{
	uint64_t part = DISK_BLOCKS / 4, moments = 0, stale = 0;
	struct policy *p = calloc(1, sizeof *p);
	char *json;

	ck_assert(p);
	policy_init(p, false, true);
	for (uint64_t lba = 0; lba < DISK_BLOCKS; lba++)
		ck_assert_int_eq(policy_write(p, lba), 0);
	for (unsigned round = 0; round < 12; round++) {
		uint64_t early, discarded_at, from = round % 3 * part, last = 3 * part + round;
		struct aftermath after;

		for (uint64_t lba = from; lba < from + part; lba++)
			ck_assert_int_eq(policy_write(p, lba), 0);
		early = stat_of(p->disk).early_syncs;
		ck_assert_int_eq(mls_disk_discard(p->disk, from * MLS_BLOCK_BYTES, part * MLS_BLOCK_BYTES), 0);
		memset(&p->version[from], 0, part * sizeof *p->version);
		discarded_at = p->nr_written;
		ck_assert_int_eq(mls_disk_stats_json(p->disk, &json, &(size_t){ 0 }), 0);
		stale += strstr(json, "\"discarded_waiting_blocks\": 512") != NULL;
		free(json);
		ck_assert_int_eq(policy_write(p, last), 0);
		ck_assert_int_eq(mls_disk_sync_grouped(p->disk, true), 0);
		ck_assert_uint_gt(stat_of(p->disk).early_syncs, early);
		crash_now(p, &after, round);
		ck_assert_uint_gt(newest_version(after.disk), discarded_at);
		for (uint64_t lba = from; lba < from + part; lba++)
			ck_assert_msg(block_is(after.disk, lba, 0), "round %u: LBA %llu is there again", round,
				      (unsigned long long)lba);
		aftermath_release(&after);
		moments++;
	}
	ck_assert_uint_eq(moments, 12);
	ck_assert_uint_gt(stale, 6);	/* else it shows nothing */
	policy_end(p, false);
	free(p);
}
END_TEST

/* ---- Discards beside syncs ---- */

#define PART (DISK_BLOCKS / 2)

struct beside {
	struct policy p;
	struct aftermath after;
	atomic_bool stop;
	atomic_uint_fast64_t nr_rounds;
};

/* Round n: the part gets version n, is discarded, and then the marker, the last block, gets version n. */
static void *discard_again_and_again(void *arg)
{
	struct beside *b = arg;

	for (uint64_t n = 1; !atomic_load(&b->stop); n++) {
		for (uint64_t lba = 0; lba < PART; lba++)
			ck_assert_int_eq(block_write(b->p.disk, lba, n), 0);
		ck_assert_int_eq(mls_disk_discard(b->p.disk, 0, PART * MLS_BLOCK_BYTES), 0);
		ck_assert_int_eq(block_write(b->p.disk, DISK_BLOCKS - 1, n), 0);
		atomic_store(&b->nr_rounds, n);
	}
	return NULL;
}

static uint64_t version_at(struct mls_disk *disk, uint64_t lba)
{
	uint64_t block[MLS_BLOCK_BYTES / 8];

	ck_assert_int_eq(mls_disk_read(disk, lba * MLS_BLOCK_BYTES, block, sizeof block), 0);
	return block[1];
}

/* A crash while nobody syncs: what the device and what the store has are of one moment. */
static int crash_between(struct mls_disk *disk, void *arg)
{
	struct beside *b = arg;

	(void)disk;
	crash_now(&b->p, &b->after, atomic_load(&b->nr_rounds));
	return 0;
}

/*
 * Goal: whenever a sync cuts in, the user's or an early one, it has all discards that returned before the writes it has.
 * Method: one thread discards and writes, this one syncs, crashes and looks.
 */
START_TEST(a_cut_keeps_the_order_of_discards_and_writes)
{
	struct beside *b = calloc(1, sizeof *b);
	pthread_t thread;
	unsigned marked = 0;

	ck_assert(b);
	policy_init(&b->p, false, false);
	ck_assert_int_eq(pthread_create(&thread, NULL, discard_again_and_again, b), 0);
	for (unsigned i = 0; i < 150; i++) {
		uint64_t marker;

		if (i % 2)
			ck_assert_int_eq(mls_disk_sync_grouped(b->p.disk, true), 0);
		else
			ck_assert_int_eq(mls_disk_sync(b->p.disk), 0);
		ck_assert_int_eq(mls_disk_between_syncs(b->p.disk, crash_between, b), 0);
		marker = version_at(b->after.disk, DISK_BLOCKS - 1);
		marked += marker > 0;
		for (uint64_t lba = 0; lba < PART; lba++) {
			uint64_t version = version_at(b->after.disk, lba);

			ck_assert_msg(version == 0 || version > marker, "sync %u: LBA %llu has version %llu beside marker %llu",
				      i, (unsigned long long)lba, (unsigned long long)version,
				      (unsigned long long)marker);
		}
		aftermath_release(&b->after);
	}
	atomic_store(&b->stop, true);
	pthread_join(thread, NULL);
	ck_assert_uint_gt(marked, 20);
	ck_assert_int_eq(mls_disk_close(b->p.disk), 0);
	policy_release(&b->p);
	free(b);
}
END_TEST

/* ---- strict ---- */

/* What the disk says of an honest device is no alarm: nothing is damaged. */
static void no_alarm(void *arg, enum mls_log_level level, const char *message)
{
	(void)arg;
	ck_assert_msg(level != MLS_LOG_ERROR, "%s", message);
}

/* Random overwrites until there is no space; how many. */
static uint64_t overwrite_until_full(struct policy *p, uint64_t nr_live)
{
	uint64_t nr = 0;
	int err;

	while ((err = policy_write(p, test_rand_below(&p->r, nr_live))) == 0)
		nr++;
	ck_assert_int_eq(err, MLS_ENOSPC);
	return nr;
}

/*
 * Goal: round after round: ENOSPC after as many writes as the synced state leaves space for; all that was synced
 * is what a crash would leave; nobody but the user syncs; a sync brings the space back.
 */
START_TEST(strict_answers_no_space_and_keeps_what_was_synced)
{
	struct policy *p = calloc(1, sizeof *p);
	uint64_t *synced = calloc(DISK_BLOCKS, sizeof *synced), nr_live = DISK_BLOCKS * 3 / 4;

	ck_assert(p && synced);
	mls_set_logger(no_alarm, NULL);
	policy_init(p, true, _i == 0);
	for (uint64_t lba = 0; lba < nr_live; lba++)
		ck_assert_int_eq(policy_write(p, lba), 0);
	ck_assert_int_eq(mls_disk_sync(p->disk), 0);
	for (unsigned round = 0; round < 4; round++) {
		struct mls_disk_stat before = stat_of(p->disk), full;
		struct aftermath after;
		uint64_t nr;

		memcpy(synced, p->version, sizeof p->version);
		nr = overwrite_until_full(p, nr_live);
		full = stat_of(p->disk);
		ck_assert_uint_eq(full.early_syncs, 0);
		ck_assert_uint_eq(full.sync_id, before.sync_id);
		/* Not before a good part of the room is used; with threads the index may have taken the other. */
		ck_assert_msg(nr >= before.nr_room_runs * before.run_blocks / 2,
			      "round %u: no space after %llu writes, there was room for %llu runs of %llu blocks", round,
			      (unsigned long long)nr, (unsigned long long)before.nr_room_runs,
			      (unsigned long long)before.run_blocks);
		/* Cleaning may still have found a little; then it stays so. */
		for (unsigned again = 0, refused = 0; refused < 5; again++) {
			refused = policy_write(p, again % nr_live) == MLS_ENOSPC ? refused + 1 : 0;
			ck_assert_uint_lt(again, nr_live / 4);
		}
		for (uint64_t lba = round; lba < nr_live; lba += 64)
			policy_discard(p, lba);
		check_all(p->disk, p->version);
		crash_now(p, &after, round);
		check_all(after.disk, synced);
		aftermath_release(&after);
		ck_assert_uint_eq(stat_of(p->disk).sync_id, before.sync_id);
		ck_assert_int_eq(mls_disk_sync(p->disk), 0);
		ck_assert_uint_eq(stat_of(p->disk).sync_id, before.sync_id + 1);
	}
	policy_end(p, true);
	free(synced);
	free(p);
}
END_TEST

/*
 * Goal: a program that syncs often enough isn't refused, however much it writes. With threads on a busy machine
 * the cleaner may come late: then it is seldom, and a sync helps.
 */
START_TEST(strict_goes_on_with_syncs)
{
	struct policy *p = calloc(1, sizeof *p);
	uint64_t nr_live = DISK_BLOCKS / 2, nr_refused = 0;

	ck_assert(p);
	policy_init(p, true, _i == 0);
	for (uint64_t i = 0; i < 8 * nr_live; i++) {
		uint64_t lba = i < nr_live ? i : test_rand_below(&p->r, nr_live);
		int err = policy_write(p, lba);
		struct mls_disk_stat stat = stat_of(p->disk);

		for (unsigned tries = 0; err == MLS_ENOSPC && _i == 1 && tries < 10; tries++) {
			nr_refused++;
			ck_assert_int_eq(mls_disk_sync(p->disk), 0);
			err = policy_write(p, lba);
		}
		ck_assert_msg(err == 0, "write %llu: %s, %llu runs free, %llu segments", (unsigned long long)i,
			      mls_strerror(err), (unsigned long long)stat.nr_free_runs, (unsigned long long)stat.nr_segments);
		if (i % 100 == 0)
			ck_assert_int_eq(mls_disk_sync(p->disk), 0);
	}
	ck_assert_uint_le(nr_refused, nr_live / 10);
	ck_assert_uint_eq(stat_of(p->disk).early_syncs, 0);
	policy_end(p, false);
	free(p);
}
END_TEST

/* Blocks that users may write now, with nothing cleaned, and the slots of a run. */
static uint64_t room_blocks(struct mls_disk *disk)
{
	return mls_chunk_alloc_room(disk->alloc) * mls_segment_slots(disk->sb.geo.run_blocks);
}

/*
 * Goal: strict refuses no burst that fits: what is free after a sync can be filled to the last run, whatever was written
 * between two syncs before, as moving what is synced would take room now and give some only after a sync.
 */
START_TEST(strict_takes_a_burst_that_fits)
{
	struct policy *p = calloc(1, sizeof *p);
	uint64_t nr_live = DISK_BLOCKS * 3 / 4;

	ck_assert(p);
	policy_init(p, true, _i == 0);
	for (uint64_t lba = 0; lba < nr_live; lba++)
		ck_assert_int_eq(policy_write(p, lba), 0);
	ck_assert_int_eq(mls_disk_sync(p->disk), 0);
	for (unsigned round = 0; round < 6; round++) {
		uint64_t room = room_blocks(p->disk), nr = 0;
		struct mls_segment_stat stat;

		for (uint64_t lba = test_rand_below(&p->r, nr_live); policy_write(p, lba) == 0; lba = (lba + 7) % nr_live)
			nr++;
		/* But for a few runs that the index takes. */
		ck_assert_msg(nr + 8 * 15 >= room * 9 / 10, "round %u: room for %llu blocks, no space after %llu", round,
			      (unsigned long long)room, (unsigned long long)nr);
		mls_segment_table_stat(p->disk->table, &stat);
		ck_assert_uint_eq(stat.nr_cleaned_waiting, 0);	/* nothing was spent on what only a sync frees */
		ck_assert_int_eq(mls_disk_sync(p->disk), 0);
		for (unsigned i = 0; i < round * 20; i++)
			ck_assert_int_eq(policy_write(p, test_rand_below(&p->r, nr_live)), 0);
		ck_assert_int_eq(mls_disk_sync(p->disk), 0);
	}
	policy_end(p, false);
	free(p);
}
END_TEST

/*
 * Goal: what was overwritten before it was ever synced is room again, without a sync: a few blocks, as many as half of
 * the room, are overwritten at random without end, and none is refused; a crash leaves what was synced.
 */
START_TEST(strict_reuses_what_was_never_synced)
{
	struct policy *p = calloc(1, sizeof *p);
	uint64_t *synced = calloc(DISK_BLOCKS, sizeof *synced), nr_live = DISK_BLOCKS * 3 / 4, nr_hot;
	struct aftermath after;
	uint64_t sync_id;

	ck_assert(p && synced);
	policy_init(p, true, _i == 0);
	for (uint64_t lba = 0; lba < nr_live; lba++)
		ck_assert_int_eq(policy_write(p, lba), 0);
	ck_assert_int_eq(mls_disk_sync(p->disk), 0);
	memcpy(synced, p->version, sizeof p->version);
	sync_id = stat_of(p->disk).sync_id;
	nr_hot = room_blocks(p->disk) / 2;
	for (uint64_t i = 0; i < 16 * DISK_BLOCKS; i++) {
		int err = policy_write(p, test_rand_below(&p->r, nr_hot));

		ck_assert_msg(err == 0, "overwrite %llu: %s", (unsigned long long)i, mls_strerror(err));
		if (i % 5000 != 4999)
			continue;
		crash_now(p, &after, i);
		check_all(after.disk, synced);
		aftermath_release(&after);
	}
	check_all(p->disk, p->version);
	ck_assert_uint_eq(stat_of(p->disk).sync_id, sync_id);
	ck_assert_int_eq(mls_disk_sync(p->disk), 0);
	crash_now(p, &after, 1);
	check_all(after.disk, p->version);
	aftermath_release(&after);
	policy_end(p, true);
	free(synced);
	free(p);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("policy");
	TCase *tc = tcase_create("early");

	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, early_syncs_are_whole);
	tcase_add_test(tc, early_syncs_let_threads_go_on);
	tcase_add_test(tc, early_syncs_have_large_discards);
	tcase_add_test(tc, a_cut_keeps_the_order_of_discards_and_writes);
	suite_add_tcase(s, tc);
	tc = tcase_create("strict");
	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, strict_answers_no_space_and_keeps_what_was_synced, 0, 2);
	tcase_add_loop_test(tc, strict_goes_on_with_syncs, 0, 2);
	tcase_add_loop_test(tc, strict_takes_a_burst_that_fits, 0, 2);
	tcase_add_loop_test(tc, strict_reuses_what_was_never_synced, 0, 2);
	suite_add_tcase(s, tc);
	return check_run(s);
}
