/* SPDX-License-Identifier: MPL-2.0 */
/*
 * adversary.c - the owner of BACKING changes, swaps and puts back, and must get nothing but errors.
 *
 * Goal     Guarantees 2 and 3: whatever is done to BACKING while the disk is closed (and some of it while
 *          it is open), a read returns the true bytes or an error. An old image is refused with ESTALE.
 *          Guarantee 5: of all images taken between two syncs, each, if it is accepted at all, shows
 *          the first of the two syncs.
 * Method   A small disk lives through some syncs; an image, the content and the register are kept at each,
 *          and an image at some moments between. Then one change after the other is tried on the last
 *          image, each on a scratch overlay that is dropped afterwards.
 *
 *	MLS_SEED     default 1
 *	MLS_SAMPLE   one of so many changes is tried; 1: all. Default 16
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "0-bio/block_dev.h"
#include "base/buf.h"
#include "base/checked.h"
#include "base/err.h"
#include "base/rand.h"
#include "mlsdisk/mlsdisk.h"
#include "tests/lib/crash_dev.h"
#include "tests/lib/tamper.h"
#include "tests/lib/test_rand.h"
#include "tests/lib/test_store.h"

#define DISK_BLOCKS 512u
#define WAL_BLOCKS 64u
#define RUN_BLOCKS 16u
#define DENSE_BLOCKS 64u		/* the superblocks and what follows: always all of them */
#define NR_EPOCHS 6u
#define NR_MOMENTS 4u			/* images between two syncs */

static const uint8_t key_file[32] = "the adversary hasn't got this...";

struct epoch {
	struct tamper_image image;	/* right after the sync */
	struct tamper_image moments[NR_MOMENTS];
	struct test_store store;
	uint8_t *content;
};

static struct {
	uint64_t seed, sample;
	struct test_rand rand, engine_rand;
	struct mls_block_dev *medium;		/* what is tampered with lies over it */
	struct crash_dev *overlay;
	struct test_power overlay_power;	/* off: nothing reaches the medium */
	struct epoch epochs[NR_EPOCHS];
	struct epoch last;			/* closed in good order */
	uint8_t *buf;
	char what[160];
	uint64_t tried, refused, errors, unharmed;
} t;

static char last_log[256];

static void keep_log(void *arg, enum mls_log_level level, const char *message)
{
	(void)arg;
	if (level <= MLS_LOG_WARNING)
		snprintf(last_log, sizeof last_log, "%s", message);
}

static int seeded_random(void *arg, void *out, size_t bytes)
{
	test_rand_fill(arg, out, bytes);
	return 0;
}

_Noreturn static void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void fail(const char *format, ...)
{
	va_list args;

	fprintf(stderr, "FAILED: %s: ", t.what);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\n  last message: %s\nreplay: MLS_SEED=%" PRIu64 " MLS_SAMPLE=%" PRIu64
			" tests/crash/adversary\n", last_log, t.seed, t.sample);
	exit(1);
}

#define WHAT(...) snprintf(t.what, sizeof t.what, __VA_ARGS__)

static int open_disk(struct mls_disk **disk, struct mls_block_dev *dev, struct test_store *store, bool read_only)
{
	struct mls_secret secret = { key_file, sizeof key_file, false };
	struct mls_open_opts opts = { .inline_work = true, .memtable_records = 64, .read_only = read_only };

	return mls_disk_open(disk, dev, &store->base, &secret, &opts);
}

static void must(int err, const char *what)
{
	if (err)
		fail("%s: %s", what, mls_strerror(err));
}

/* ---- The disk's life before the attack ---- */

static void keep_epoch(struct epoch *epoch, const struct test_store *store, const uint8_t *content)
{
	tamper_image_take(&epoch->image, t.medium);
	epoch->store = *store;
	epoch->content = mls_blocks_alloc(DISK_BLOCKS);
	MLS_INVARIANT(epoch->content != NULL);
	memcpy(epoch->content, content, DISK_BLOCKS * MLS_BLOCK_BYTES);
}

static void some_writes(struct mls_disk *disk, uint8_t *content, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		uint64_t lba = test_rand_below(&t.rand, DISK_BLOCKS);
		uint64_t n = mls_min_u64(test_rand_between(&t.rand, 1, 12), DISK_BLOCKS - lba);
		uint64_t offset = lba * MLS_BLOCK_BYTES, bytes = n * MLS_BLOCK_BYTES;

		if (test_rand_chance(&t.rand, 1, 8)) {
			memset(content + offset, 0, bytes);
			must(mls_disk_discard(disk, offset, bytes), "discard");
		} else {
			test_rand_fill(&t.rand, content + offset, bytes);
			must(mls_disk_write(disk, offset, content + offset, bytes), "write");
		}
	}
}

static void live(void)
{
	struct mls_format_opts format = { .disk_bytes = DISK_BLOCKS * MLS_BLOCK_BYTES, .run_blocks = RUN_BLOCKS,
					  .wal_blocks = WAL_BLOCKS };
	struct mls_secret secret = { key_file, sizeof key_file, false };
	uint64_t nr_blocks = mls_backing_bytes(format.disk_bytes) / MLS_BLOCK_BYTES + WAL_BLOCKS + 128 * RUN_BLOCKS;
	uint8_t uuid[MLS_UUID_BYTES], *content = mls_blocks_zalloc(DISK_BLOCKS);
	struct test_store store;
	struct mls_disk *disk;

	WHAT("the disk's life");
	MLS_INVARIANT(content != NULL);
	must(mls_block_dev_mem_new(&t.medium, nr_blocks), "device");
	test_store_init(&store, NULL);
	must(mls_uuid_new(uuid), "uuid");
	must(mls_disk_format(t.medium, &store.base, &secret, uuid, &format), "format");
	must(open_disk(&disk, t.medium, &store, false), "open");
	for (unsigned i = 0; i < NR_EPOCHS; i++) {
		some_writes(disk, content, 40);
		if (i % 3 == 2) {
			must(mls_disk_close(disk), "close");
			must(open_disk(&disk, t.medium, &store, false), "reopen");
		} else {
			must(mls_disk_sync(disk), "sync");
		}
		keep_epoch(&t.epochs[i], &store, content);
		for (unsigned k = 0; k < NR_MOMENTS; k++) {
			uint64_t sync_id = store.trust.sync_id;

			some_writes(disk, content, 8);
			if (store.trust.sync_id != sync_id)
				fail("an early sync, with so much space");
			tamper_image_take(&t.epochs[i].moments[k], t.medium);
		}
	}
	must(mls_disk_close(disk), "close");
	keep_epoch(&t.last, &store, content);
	mls_blocks_free(content);
}

/* ---- One look at what a change did ---- */

/* Read block by block: the truth, or MLS_EAUTH. */
static void check_blocks(struct mls_disk *disk, const uint8_t *truth)
{
	bool error = false;

	for (uint64_t lba = 0; lba < DISK_BLOCKS; lba++) {
		uint64_t offset = lba * MLS_BLOCK_BYTES;
		int err = mls_disk_read(disk, offset, t.buf, MLS_BLOCK_BYTES);

		if (err == MLS_EAUTH)
			error = true;
		else if (err)
			fail("reading LBA %" PRIu64 ": %s", lba, mls_strerror(err));
		else if (memcmp(t.buf, truth + offset, MLS_BLOCK_BYTES) != 0)
			fail("LBA %" PRIu64 " reads as something else, without an error", lba);
	}
	t.errors += error;
	t.unharmed += !error;
}

/* The overlay has been tampered with. Open, read all of it, forget it. */
static void look(void)
{
	struct test_store store = t.last.store;
	struct mls_disk *disk;
	int err = open_disk(&disk, &t.overlay->base, &store, test_rand_chance(&t.rand, 1, 2));

	t.tried++;
	if (!err) {
		check_blocks(disk, t.last.content);
		(void)mls_disk_close(disk);
	} else if (err == MLS_EAUTH || err == MLS_ESTALE || err == MLS_EFORMAT || err == MLS_EKEY) {
		t.refused++;
		if (memcmp(&store, &t.last.store, sizeof store) != 0)
			fail("open refused, but moved the trusted store");
	} else {
		fail("open: %s", mls_strerror(err));
	}
	crash_dev_drop(t.overlay);
}

/* Of the blocks that hold anything, one in t.sample, and all of the first ones. */
static bool is_due(uint64_t hba)
{
	if (tamper_image_block_is_zero(&t.last.image, hba))
		return false;
	return hba < DENSE_BLOCKS || test_rand_chance(&t.rand, 1, t.sample);
}

static uint64_t any_used_block(void)
{
	uint64_t hba;

	do
		hba = test_rand_below(&t.rand, t.medium->nr_blocks);
	while (tamper_image_block_is_zero(&t.last.image, hba));
	return hba;
}

/* ---- Attacks on a closed disk ---- */

static void flip_bits(void)
{
	for (uint64_t hba = 0; hba < t.medium->nr_blocks; hba++) {
		uint32_t bit = (uint32_t)test_rand_below(&t.rand, 8 * MLS_BLOCK_BYTES);

		if (test_rand_chance(&t.rand, 1, 2))	/* headers are more interesting than their share */
			bit %= 8 * 80;
		if (!is_due(hba))
			continue;
		WHAT("bit %u of HBA %" PRIu64 " flipped", bit, hba);
		tamper_flip_bit(&t.overlay->base, hba, bit);
		look();
	}
}

static void wipe_blocks(void)
{
	for (uint64_t hba = 0; hba < t.medium->nr_blocks; hba++) {
		if (!is_due(hba))
			continue;
		WHAT("HBA %" PRIu64 " zeroed", hba);
		tamper_fill(&t.overlay->base, hba, 1, 0);
		look();
	}
}

static void swap_and_copy_blocks(void)
{
	for (uint64_t hba = 0; hba < t.medium->nr_blocks; hba++) {
		uint64_t other = any_used_block();

		if (!is_due(hba))
			continue;
		if (test_rand_chance(&t.rand, 1, 2)) {
			WHAT("HBA %" PRIu64 " and %" PRIu64 " swapped", hba, other);
			tamper_swap(&t.overlay->base, hba, other);
		} else {
			WHAT("HBA %" PRIu64 " copied to %" PRIu64, other, hba);
			tamper_copy(&t.overlay->base, other, hba);
		}
		look();
	}
}

static const struct tamper_image *any_old_image(void)
{
	struct epoch *epoch = &t.epochs[test_rand_below(&t.rand, NR_EPOCHS)];
	uint64_t which = test_rand_below(&t.rand, NR_MOMENTS + 1);

	return which == NR_MOMENTS ? &epoch->image : &epoch->moments[which];
}

static void put_old_blocks_back(void)
{
	for (uint64_t hba = 0; hba < t.medium->nr_blocks; hba++) {
		const struct tamper_image *old = any_old_image();

		if (!is_due(hba) || tamper_image_block_same(old, &t.last.image, hba))
			continue;
		WHAT("HBA %" PRIu64 " put back", hba);
		tamper_image_put_back_range(old, &t.overlay->base, hba, 1);
		look();
	}
}

/* Runs, journal areas, the WAL, or anything else that lies together. */
static void put_old_ranges_back(void)
{
	uint64_t nr = 16 * 32 / t.sample;

	for (uint64_t i = 0; i < nr; i++) {
		uint64_t hba = test_rand_below(&t.rand, t.medium->nr_blocks);
		uint64_t len = UINT64_C(1) << test_rand_between(&t.rand, 1, 9);

		len = mls_min_u64(len, t.medium->nr_blocks - hba);
		WHAT("%" PRIu64 " blocks from HBA %" PRIu64 " put back", len, hba);
		tamper_image_put_back_range(any_old_image(), &t.overlay->base, hba, len);
		look();
	}
}

/* ---- Whole images ---- */

static void open_image(const struct tamper_image *image, const struct test_store *register_then, int expected,
		       const uint8_t *content)
{
	struct test_store store = *register_then;
	struct mls_disk *disk;
	int err;

	tamper_image_put_back(image, &t.overlay->base);
	err = open_disk(&disk, &t.overlay->base, &store, false);
	t.tried++;
	if (err != expected)
		fail("open: %s, expected %s", mls_strerror(err), mls_strerror(expected));
	if (!err) {
		uint64_t errors = t.errors;

		check_blocks(disk, content);
		if (t.errors != errors)
			fail("integrity errors on an untouched image");
		must(mls_disk_close(disk), "close");
	} else {
		t.refused++;
	}
	crash_dev_drop(t.overlay);
}

static void roll_back(void)
{
	for (unsigned i = 0; i < NR_EPOCHS; i++) {
		struct epoch *epoch = &t.epochs[i];

		WHAT("the image of sync %u put back", i);
		open_image(&epoch->image, &t.last.store, MLS_ESTALE, NULL);
		open_image(&epoch->image, &epoch->store, MLS_OK, epoch->content);
		for (unsigned k = 0; k < NR_MOMENTS; k++) {
			WHAT("image %u after sync %u put back", k, i);
			open_image(&epoch->moments[k], &t.last.store, MLS_ESTALE, NULL);
			open_image(&epoch->moments[k], &epoch->store, MLS_OK, epoch->content);
		}
		if (i + 2 < NR_EPOCHS) {	/* one sync ahead is what a crash leaves; two aren't */
			WHAT("the image of sync %u with the register of sync %u", i + 2, i);
			open_image(&t.epochs[i + 2].image, &epoch->store, MLS_ESTALE, NULL);
		}
	}
	WHAT("the last image");
	open_image(&t.last.image, &t.last.store, MLS_OK, t.last.content);
}

/* ---- Attacks on an open disk: caches must not make a lie of what is checked only once ---- */

static void tamper_while_open(void)
{
	for (uint64_t round = 0; round < 64 / t.sample + 2; round++) {
		struct test_store store = t.last.store;
		struct mls_disk *disk;

		WHAT("tampering with an open disk, round %" PRIu64, round);
		must(open_disk(&disk, &t.overlay->base, &store, false), "open");
		for (unsigned i = 0; i < 60; i++) {
			uint64_t hba = any_used_block();

			if (test_rand_chance(&t.rand, 1, 3))
				tamper_flip_bit(&t.overlay->base, hba, (uint32_t)test_rand_below(&t.rand, 32768));
			else if (test_rand_chance(&t.rand, 1, 2))
				tamper_swap(&t.overlay->base, hba, any_used_block());
			else
				tamper_image_put_back_range(any_old_image(), &t.overlay->base, hba, 1);
		}
		check_blocks(disk, t.last.content);
		t.tried++;
		(void)mls_disk_close(disk);
		crash_dev_drop(t.overlay);
	}
}

static void release(void)
{
	for (unsigned i = 0; i < NR_EPOCHS; i++) {
		tamper_image_release(&t.epochs[i].image);
		for (unsigned k = 0; k < NR_MOMENTS; k++)
			tamper_image_release(&t.epochs[i].moments[k]);
		mls_blocks_free(t.epochs[i].content);
	}
	tamper_image_release(&t.last.image);
	mls_blocks_free(t.last.content);
	mls_block_dev_destroy(&t.overlay->base);
	mls_block_dev_destroy(t.medium);
	mls_blocks_free(t.buf);
}

int main(void)
{
	t.seed = test_env_u64("MLS_SEED", 1);
	t.sample = mls_max_u64(test_env_u64("MLS_SAMPLE", 16), 1);
	test_rand_seed(&t.rand, t.seed);
	test_rand_seed(&t.engine_rand, test_rand_mix(t.seed, 1));
	mls_set_logger(keep_log, NULL);
	mls_rand_set_source(seeded_random, &t.engine_rand);
	t.buf = mls_blocks_alloc(1);
	MLS_INVARIANT(t.buf != NULL);

	live();
	t.overlay_power.swallow = true;
	atomic_store(&t.overlay_power.off, true);
	t.overlay = crash_dev_new(t.medium, &t.overlay_power);
	MLS_INVARIANT(t.overlay != NULL);

	roll_back();
	flip_bits();
	wipe_blocks();
	swap_and_copy_blocks();
	put_old_blocks_back();
	put_old_ranges_back();
	tamper_while_open();
	printf("%" PRIu64 " attacks: %" PRIu64 " refused at open, %" PRIu64 " gave errors, %" PRIu64 " did no harm\n",
	       t.tried, t.refused, t.errors, t.unharmed);
	release();
	return 0;
}
