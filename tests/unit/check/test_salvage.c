/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_salvage.c - what a salvage brings back is what the disk held, with and without an index.
 *
 * Method: a disk with a long history (overwritten, discarded, cleaned, crashed, opened again) is damaged,
 * and salvaged into a file; each block must be the last version that was synced.
 */
#define _GNU_SOURCE
#include "check/salvage.h"

#include <sys/mman.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "tests/lib/check_run.h"
#include "tests/unit/5-disk/disk_fixture.h"

#define DISK_BYTES (16 * MIB)
#define SEEDS 3			/* histories of random numbers, every other one with large memtables */
#define NR_LBAS (DISK_BYTES / MLS_BLOCK_BYTES)

struct history {
	struct disk_fixture f;
	uint64_t version[NR_LBAS];	/* of what was synced */
	uint64_t state;			/* of the random numbers */
	uint64_t moved;
	bool unknowable[NR_LBAS];	/* nothing but the lost index told of it */
};

static uint64_t below(struct history *h, uint64_t n)
{
	h->state = h->state * 6364136223846793005u + 1442695040888963407u;
	return (h->state >> 33) % n;
}

static void history_init(struct history *h, unsigned seed)
{
	memset(h, 0, sizeof *h);
	h->state = seed;
	fixture_init(&h->f, DISK_BYTES, 0);
	h->f.opts.memtable_records = seed % 2 ? 4096 : 512;
}

/* nr changes of random blocks, one in ten a discard; synced at the end. */
static void change(struct history *h, struct mls_disk *disk, unsigned nr, uint64_t version)
{
	for (unsigned i = 0; i < nr; i++) {
		uint64_t lba = below(h, NR_LBAS);

		if (below(h, 10) == 0) {
			ck_assert_int_eq(mls_disk_discard(disk, lba * MLS_BLOCK_BYTES, MLS_BLOCK_BYTES), 0);
			h->version[lba] = 0;
		} else {
			ck_assert_int_eq(block_write(disk, lba, version + i), 0);
			h->version[lba] = version + i;
		}
		if (i % 700 == 699)
			ck_assert_int_eq(mls_disk_sync(disk), 0);
	}
	ck_assert_int_eq(mls_disk_sync(disk), 0);
}

static void close_disk(struct history *h, struct mls_disk *disk)
{
	struct mls_disk_stat stat;

	mls_disk_stat(disk, &stat);
	h->moved += stat.moved_blocks;
	ck_assert_int_eq(mls_disk_close(disk), 0);
}

/* Without a word to BACKING or the trusted store. */
static void crash(struct history *h, struct mls_disk *disk)
{
	struct mls_block_dev *now;
	struct test_store store = h->f.store;

	/* A copy of the device as it is; the close goes to the old one. */
	ck_assert_int_eq(mls_block_dev_mem_new(&now, h->f.dev->nr_blocks), 0);
	for (uint64_t hba = 0; hba < now->nr_blocks; hba++) {
		uint8_t *block = mls_blocks_alloc(1);

		ck_assert_int_eq(mls_block_dev_read(h->f.dev, hba, 1, block), 0);
		ck_assert_int_eq(mls_block_dev_write(now, hba, 1, block), 0);
		mls_blocks_free(block);
	}
	ck_assert_int_eq(mls_disk_close(disk), 0);
	mls_block_dev_destroy(h->f.dev);
	h->f.dev = now;
	h->f.store = store;
}

static void damage(struct history *h, uint64_t hba)
{
	uint8_t *block = mls_blocks_alloc(1);

	ck_assert_int_eq(mls_block_dev_read(h->f.dev, hba, 1, block), 0);
	block[1234] ^= 4;
	ck_assert_int_eq(mls_block_dev_write(h->f.dev, hba, 1, block), 0);
	mls_blocks_free(block);
}

struct outcome {
	struct mls_salvage s;
	struct mls_inspect *x;
	uint8_t *image;			/* DISK_BYTES */
};

static void note(void *arg, const struct mls_finding *finding)
{
	struct outcome *o = arg;

	if (finding->code == MLS_FOUND_LOG_DAMAGED && finding->lba != MLS_FINDING_NOWHERE)
		ck_assert_int_eq(mls_salvage_lose(&o->s, finding->lba, finding->nr_lbas, finding->code), 0);
}

static void salvage(struct history *h, struct outcome *o)
{
	memset(o, 0, sizeof *o);
	ck_assert_int_eq(mls_inspect_open(&o->x, h->f.dev, &h->f.store.base, &h->f.secret, note, o), 0);
	if (o->x->consistent)
		ck_assert_int_eq(mls_inspect_check(o->x, NULL, NULL), 0);
	o->s.x = o->x;
	o->s.image_fd = memfd_create("salvage", 0);
	ck_assert_int_eq(ftruncate(o->s.image_fd, (off_t)DISK_BYTES), 0);
	ck_assert_int_eq(mls_salvage_run(&o->s), 0);
	o->image = mmap(NULL, DISK_BYTES, PROT_READ, MAP_SHARED, o->s.image_fd, 0);
	ck_assert(o->image != MAP_FAILED);
}

/* back: a discarded block may hold a version of before. */
static void compare(const struct history *h, const struct outcome *o, bool back)
{
	uint8_t expected[MLS_BLOCK_BYTES];
	uint64_t wrong = 0, came_back = 0;

	for (uint64_t lba = 0; lba < NR_LBAS; lba++) {
		block_fill(expected, lba, h->version[lba]);
		if (memcmp(expected, o->image + lba * MLS_BLOCK_BYTES, MLS_BLOCK_BYTES) == 0)
			continue;
		if (back && (h->version[lba] == 0 || h->unknowable[lba]))
			came_back++;
		else
			wrong++;
	}
	ck_assert_msg(wrong == 0, "%llu blocks are wrong", (unsigned long long)wrong);
	ck_assert_msg(came_back < NR_LBAS / 10, "%llu came back", (unsigned long long)came_back);
}

static void release(struct history *h, struct outcome *o)
{
	munmap(o->image, DISK_BYTES);
	close(o->s.image_fd);
	mls_salvage_release(&o->s);
	mls_inspect_close(o->x);
	fixture_release(&h->f);
	free(h);
}

/* Several segments, with summaries. The cleaner may sync early: then what came before counts. */
static void write_unsynced(struct history *h, struct mls_disk *disk)
{
	struct mls_disk_stat before, after;

	for (uint64_t nr = 0; nr < 900; nr++) {
		mls_disk_stat(disk, &before);
		ck_assert_int_eq(block_write(disk, nr * 3, 777777), 0);
		mls_disk_stat(disk, &after);
		for (uint64_t i = 0; i < nr && before.early_syncs != after.early_syncs; i++)
			h->version[i * 3] = 777777;
	}
	h->moved += after.moved_blocks;
}

/* Three sessions of which the second crashes with much that wasn't synced; the cleaner had to work. */
static struct history *long_history(bool crash_last, unsigned seed)
{
	struct history *h = malloc(sizeof *h);
	struct mls_disk *disk;

	history_init(h, seed);
	for (unsigned session = 1; session <= 3; session++) {
		disk = fixture_open(&h->f);
		change(h, disk, 3 * NR_LBAS, session * 100000);
		if (session == 2 || (session == 3 && crash_last)) {
			write_unsynced(h, disk);
			crash(h, disk);
		} else {
			close_disk(h, disk);
		}
	}
	ck_assert_msg(h->moved > 0, "the cleaner had nothing to do");
	return h;
}

struct search {
	struct history *h;
	struct mls_inspect *x;
};

/* In a segment that was open at the crash; the WAL may know, if its ring still has the segment's announcement. */
static int note_unknowable(void *arg, const struct mls_inspect_rec *rec)
{
	struct search *s = arg;
	struct mls_seg_summary summary = { .slots = calloc(s->x->nr_slots, sizeof *summary.slots) };
	uint64_t run;
	uint32_t slot;

	if (rec->newest && mls_inspect_slot_of(s->x, rec->rec.hba, &run, &slot))
		s->h->unknowable[rec->rec.lba] = mls_inspect_summary(s->x, run, &summary) ||
						 !mls_inspect_summary_is_of(s->x, &summary);
	free(summary.slots);
	return 0;
}

static void note_all_unknowable(struct history *h, struct mls_inspect *x)
{
	struct search s = { h, x };

	ck_assert_int_eq(mls_inspect_records(x, 0, UINT64_MAX, note_unknowable, &s), 0);
}

static void lose_journal(struct history *h)
{
	struct mls_inspect *x;

	ck_assert_int_eq(mls_inspect_open(&x, h->f.dev, &h->f.store.base, &h->f.secret, NULL, NULL), 0);
	note_all_unknowable(h, x);
	damage(h, x->areas[0].hba);
	damage(h, x->areas[1].hba);
	mls_inspect_close(x);
}

START_TEST(whole_disk_comes_back)
{
	struct history *h = long_history(_i % 2, (unsigned)_i / 2);
	struct outcome o;

	salvage(h, &o);
	ck_assert(!o.s.from_summaries && o.s.nr_lost == 0);
	compare(h, &o, false);
	release(h, &o);
}
END_TEST

START_TEST(without_a_journal_the_newest_versions_win)
{
	struct history *h = long_history(_i % 2, (unsigned)_i / 2);
	struct outcome o;

	lose_journal(h);
	salvage(h, &o);
	ck_assert(o.s.from_summaries);
	for (size_t i = 0; i < o.s.nr_ranges; i++)	/* where a discarded block was overwritten */
		for (uint64_t k = 0; k < o.s.lost[i].nr_lbas; k++)
			ck_assert(h->version[o.s.lost[i].lba + k] == 0 || h->unknowable[o.s.lost[i].lba + k]);
	compare(h, &o, true);
	release(h, &o);
}
END_TEST

START_TEST(discards_that_the_wal_knows_are_honoured)
{
	struct history *h = long_history(false, (unsigned)_i);
	enum { nr = 64 };
	bool known[nr];
	unsigned nr_known = 0;
	struct mls_disk *disk;
	struct outcome o;

	h->f.opts.memtable_records = 0;		/* room for all of it, so that the WAL has all of it */
	disk = fixture_open(&h->f);
	for (uint64_t lba = 0; lba < nr; lba++)	/* one that is a hole already gets no tombstone now */
		known[lba] = h->version[lba] != 0;
	ck_assert_int_eq(mls_disk_discard(disk, 0, nr * MLS_BLOCK_BYTES), 0);
	ck_assert_int_eq(mls_disk_sync(disk), 0);
	ck_assert_int_eq(block_write(disk, 5, 4711), 0);
	close_disk(h, disk);
	memset(h->version, 0, nr * sizeof *h->version);
	h->version[5] = 4711;
	lose_journal(h);
	salvage(h, &o);
	known[5] = true;
	for (uint64_t lba = 0; lba < nr; lba++) {
		uint8_t expected[MLS_BLOCK_BYTES];

		if (!known[lba])
			continue;
		nr_known++;
		block_fill(expected, lba, h->version[lba]);
		ck_assert_mem_eq(expected, o.image + lba * MLS_BLOCK_BYTES, MLS_BLOCK_BYTES);
	}
	ck_assert_uint_gt(nr_known, nr / 2);
	compare(h, &o, true);
	release(h, &o);
}
END_TEST

/* Every log of the index has a damaged block, or only damaged ones. */
START_TEST(a_damaged_index_is_made_up_for_by_summaries)
{
	struct history *h = long_history(false, (unsigned)_i / 2);
	struct mls_inspect *x;
	struct outcome o;

	ck_assert_int_eq(mls_inspect_open(&x, h->f.dev, &h->f.store.base, &h->f.secret, NULL, NULL), 0);
	note_all_unknowable(h, x);
	for (size_t i = 0; i < x->nr_logs; i++) {
		const struct mls_inspect_log *log = &x->logs[i];

		for (uint64_t pos = _i % 2; pos < log->root.nr_data_blocks; pos += _i % 2 ? 3 : 1)
			damage(h, mls_inspect_run_hba(x, log->runs[pos / x->run_blocks]) + pos % x->run_blocks);
	}
	mls_inspect_close(x);
	salvage(h, &o);
	ck_assert(!o.s.from_summaries && o.s.nr_rebuilt > 0);
	compare(h, &o, true);
	release(h, &o);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("salvage");
	TCase *tc = tcase_create("salvage");

	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, whole_disk_comes_back, 0, 2);
	tcase_add_loop_test(tc, without_a_journal_the_newest_versions_win, 0, 2 * SEEDS);
	tcase_add_loop_test(tc, discards_that_the_wal_knows_are_honoured, 0, SEEDS);
	tcase_add_loop_test(tc, a_damaged_index_is_made_up_for_by_summaries, 0, 2 * SEEDS);
	suite_add_tcase(suite, tc);
	return check_run(suite);
}
