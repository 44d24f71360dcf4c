/* SPDX-License-Identifier: MPL-2.0 */
/* test_key_admin.c - secrets come and go; whatever fails on the way, somebody can still open the disk. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "0-bio/block_dev.h"
#include "5-disk/key_slot.h"
#include "5-disk/superblock.h"
#include "base/buf.h"
#include "tests/lib/check_run.h"
#include "tests/lib/fault_dev.h"
#include "tests/lib/test_log.h"
#include "tests/unit/5-disk/disk_fixture.h"

static const struct mls_secret key_a = { .data = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", .bytes = 32 };
static const struct mls_secret key_b = { .data = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", .bytes = 32 };
static const struct mls_secret key_c = { .data = "cccccccccccccccccccccccccccccccc", .bytes = 32 };
static const struct mls_secret empty = { .data = "", .bytes = 0 };

static struct mls_block_dev *dev;

static void setup(void)
{
	const struct mls_format_opts opts = { .disk_bytes = 4 << 20 };
	struct mls_geometry geo = { 0 };
	struct mls_superblock sb;
	struct mls_keyring *keys = NULL;
	uint8_t uuid[MLS_UUID_BYTES];

	mls_set_logger(test_log_quiet, NULL);
	ck_assert_int_eq(mls_uuid_new(uuid), 0);
	ck_assert_int_eq(mls_geometry_init(&geo, &opts, mls_backing_bytes(opts.disk_bytes) / MLS_BLOCK_BYTES), 0);
	ck_assert_int_eq(mls_block_dev_mem_new(&dev, mls_geometry_end(&geo)), 0);
	ck_assert_int_eq(mls_superblock_new(&sb, &keys, &geo, uuid, &key_a, 0, "first"), 0);
	ck_assert_int_eq(mls_superblock_write(dev, keys, &sb), 0);
	mls_keyring_free(keys);
}

static void teardown(void)
{
	mls_block_dev_destroy(dev);
	mls_set_logger(NULL, NULL);
}

/* 0 or MLS_EKEY; the generation if it opens. */
static int opens(const struct mls_secret *secret, uint64_t *generation)
{
	struct mls_superblock sb;
	struct mls_keyring *keys = NULL;
	int err = mls_superblock_read(dev, secret, &sb, &keys);

	mls_keyring_free(keys);
	if (!err && generation)
		*generation = sb.generation;
	return err;
}

START_TEST(secrets_come_and_go)
{
	struct mls_key_info info[MLS_NR_KEY_SLOTS];
	uint64_t generation = 0;
	unsigned slot = 99;

	ck_assert_int_eq(mls_key_add(dev, &key_a, &key_b, MLS_KEY_SLOT_ANY, "second", &slot), 0);
	ck_assert_uint_eq(slot, 1);
	ck_assert_int_eq(opens(&key_a, NULL), 0);
	ck_assert_int_eq(opens(&key_b, &generation), 0);
	ck_assert_uint_eq(generation, 2);

	ck_assert_int_eq(mls_key_change(dev, &key_b, &key_c, MLS_KEY_SLOT_ANY, "third", &slot), 0);
	ck_assert_uint_eq(slot, 1);
	ck_assert_int_eq(opens(&key_b, NULL), MLS_EKEY);
	ck_assert_int_eq(opens(&key_c, NULL), 0);

	ck_assert_int_eq(mls_key_list(dev, info), 0);
	ck_assert(info[0].used && info[1].used && !info[2].used);
	ck_assert_str_eq(info[0].label, "first");
	ck_assert_str_eq(info[1].label, "third");
	ck_assert(!info[1].passphrase);

	ck_assert_int_eq(mls_key_remove(dev, &key_c, 0, &slot), 0);
	ck_assert_int_eq(opens(&key_a, NULL), MLS_EKEY);
	ck_assert_int_eq(opens(&key_c, &generation), 0);
	ck_assert_uint_eq(generation, 4);
}
END_TEST

START_TEST(the_last_slot_stays)
{
	ck_assert_int_eq(mls_key_remove(dev, &key_a, MLS_KEY_SLOT_ANY, NULL), MLS_EINVAL);
	ck_assert_int_eq(mls_key_remove(dev, &key_a, 0, NULL), MLS_EINVAL);
	ck_assert_int_eq(opens(&key_a, NULL), 0);
}
END_TEST

START_TEST(slots_are_eight)
{
	unsigned slot = 99;

	for (unsigned i = 1; i < MLS_NR_KEY_SLOTS; i++) {
		ck_assert_int_eq(mls_key_add(dev, &key_a, &key_b, MLS_KEY_SLOT_ANY, NULL, &slot), 0);
		ck_assert_uint_eq(slot, i);
	}
	ck_assert_int_eq(mls_key_add(dev, &key_a, &key_b, MLS_KEY_SLOT_ANY, NULL, &slot), MLS_ENOSPC);
	ck_assert_uint_eq(slot, 7);
	ck_assert_int_eq(mls_key_remove(dev, &key_a, 5, &slot), 0);
	ck_assert_int_eq(mls_key_remove(dev, &key_a, 5, &slot), MLS_ENOENT);
	ck_assert_int_eq(mls_key_add(dev, &key_a, &key_c, 4, NULL, &slot), MLS_EEXIST);
	ck_assert_int_eq(mls_key_add(dev, &key_a, &key_c, MLS_KEY_SLOT_ANY, NULL, &slot), 0);
	ck_assert_uint_eq(slot, 5);
}
END_TEST

START_TEST(refusals_change_nothing)
{
	uint64_t generation = 0;

	ck_assert_int_eq(mls_key_add(dev, &key_b, &key_c, MLS_KEY_SLOT_ANY, NULL, NULL), MLS_EKEY);
	ck_assert_int_eq(mls_key_remove(dev, &key_b, 0, NULL), MLS_EKEY);
	ck_assert_int_eq(mls_key_change(dev, &key_b, &key_c, 0, NULL, NULL), MLS_EKEY);
	ck_assert_int_eq(mls_key_change(dev, &key_a, &key_c, 3, NULL, NULL), MLS_ENOENT);
	ck_assert_int_eq(mls_key_add(dev, &key_a, &empty, MLS_KEY_SLOT_ANY, NULL, NULL), MLS_EINVAL);
	ck_assert_int_eq(mls_key_change(dev, &key_a, &empty, MLS_KEY_SLOT_ANY, NULL, NULL), MLS_EINVAL);
	for (int slot = -3; slot < 20; slot++)
		if (slot < -1 || slot > 7)
			ck_assert_int_eq(mls_key_add(dev, &key_a, &key_b, slot, NULL, NULL), MLS_EINVAL);
	ck_assert_int_eq(opens(&key_a, &generation), 0);
	ck_assert_uint_eq(generation, 1);
}
END_TEST

/* Goal: a change that fails leaves the old or the new secret, and the disk can be changed again.
 * Method: fail transfer 1, 2, 3 ... (a write: half of it arrives) until a run is clean. */
START_TEST(change_is_all_or_nothing_when_io_fails)
{
	struct fault_dev *flaky = fault_dev_new(dev, FAULT_ALL);
	const struct mls_secret *now = &key_a, *next = &key_b, *swap;
	unsigned nr_failed = 0;

	ck_assert_ptr_nonnull(flaky);
	for (uint64_t n = 1;; n++) {
		int err, old_opens, new_opens;

		fault_dev_arm(flaky, n, MLS_EIO, true);
		err = mls_key_change(&flaky->base, now, next, MLS_KEY_SLOT_ANY, NULL, NULL);
		old_opens = opens(now, NULL);
		new_opens = opens(next, NULL);
		ck_assert_msg((old_opens == 0) != (new_opens == 0), "operation %d: old %d, new %d", (int)n, old_opens,
			      new_opens);
		ck_assert(err || new_opens == 0);
		ck_assert_int_le(n, 20);
		if (!flaky->fired) {
			ck_assert_int_eq(err, 0);
			break;
		}
		nr_failed++;
		if (new_opens == 0) {
			swap = now;
			now = next;
			next = swap;
		}
	}
	ck_assert_uint_ge(nr_failed, 5);
	mls_block_dev_destroy(&flaky->base);
}
END_TEST

static int open_disk_with(struct mls_block_dev *disk_dev, const struct mls_secret *secret)
{
	const struct mls_open_opts opts = { .inline_work = true };
	struct mls_disk *disk = NULL;
	int err = mls_disk_open(&disk, disk_dev, NULL, secret, &opts);

	return err ? err : mls_disk_close(disk);
}

/* Goal: the host can't bring a removed secret back. Method: keep both superblocks, change the secret, open
 * once for writing, put them back. */
START_TEST(old_superblock_put_back_is_refused)
{
	const struct mls_format_opts opts = { .disk_bytes = 4 << 20 };
	struct mls_block_dev *disk_dev = NULL;
	uint8_t uuid[MLS_UUID_BYTES], *old = mls_blocks_alloc(2);

	ck_assert_int_eq(mls_block_dev_mem_new(&disk_dev, mls_backing_bytes(opts.disk_bytes) / MLS_BLOCK_BYTES), 0);
	ck_assert_int_eq(mls_uuid_new(uuid), 0);
	ck_assert_int_eq(mls_disk_format(disk_dev, NULL, &key_a, uuid, &opts), 0);
	ck_assert_int_eq(open_disk_with(disk_dev, &key_a), 0);
	ck_assert_int_eq(mls_block_dev_read(disk_dev, MLS_SUPERBLOCK_HBA_0, 1, old), 0);
	ck_assert_int_eq(mls_block_dev_read(disk_dev, MLS_SUPERBLOCK_HBA_1, 1, mls_block_at(old, 1)), 0);

	ck_assert_int_eq(mls_key_change(disk_dev, &key_a, &key_b, MLS_KEY_SLOT_ANY, NULL, NULL), 0);
	ck_assert_int_eq(open_disk_with(disk_dev, &key_a), MLS_EKEY);
	ck_assert_int_eq(open_disk_with(disk_dev, &key_b), 0);

	ck_assert_int_eq(mls_block_dev_write(disk_dev, MLS_SUPERBLOCK_HBA_0, 1, old), 0);
	ck_assert_int_eq(open_disk_with(disk_dev, &key_a), MLS_EKEY);	/* the other copy is newer */
	ck_assert_int_eq(mls_block_dev_write(disk_dev, MLS_SUPERBLOCK_HBA_1, 1, mls_block_at(old, 1)), 0);
	ck_assert_int_eq(open_disk_with(disk_dev, &key_a), MLS_ESTALE);
	mls_blocks_free(old);
	mls_block_dev_destroy(disk_dev);
}
END_TEST

/* Goal: a secret that removes itself is refused from then on, whatever superblock is put back, with no open in between. */
START_TEST(a_removed_secret_stays_out_at_once)
{
	const struct mls_open_opts opts = { .inline_work = true };
	struct disk_fixture f;
	struct mls_disk *disk;
	struct mls_secret first;
	uint8_t *old = mls_blocks_alloc(2);
	unsigned changed = 9;
	int told = -1;

	fixture_init(&f, 4 * MIB, 0);
	first = f.secret;
	disk = fixture_open(&f);
	ck_assert_int_eq(block_write(disk, 7, 3), 0);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	ck_assert_int_eq(mls_key_add(f.dev, &first, &key_b, MLS_KEY_SLOT_ANY, NULL, NULL), 0);
	ck_assert_int_eq(mls_block_dev_read(f.dev, MLS_SUPERBLOCK_HBA_0, 1, old), 0);
	ck_assert_int_eq(mls_block_dev_read(f.dev, MLS_SUPERBLOCK_HBA_1, 1, mls_block_at(old, 1)), 0);

	ck_assert_int_eq(mls_key_remove_told(f.dev, &f.store.base, &first, MLS_KEY_SLOT_ANY, &changed, &told), 0);
	ck_assert_uint_eq(changed, 0);
	ck_assert_int_eq(told, 0);
	ck_assert_int_eq(mls_disk_open(&disk, f.dev, &f.store.base, &first, &opts), MLS_EKEY);
	ck_assert_int_eq(mls_disk_open(&disk, f.dev, &f.store.base, &key_b, &opts), 0);
	ck_assert(block_is(disk, 7, 3));
	ck_assert_int_eq(mls_disk_close(disk), 0);

	ck_assert_int_eq(mls_block_dev_write(f.dev, MLS_SUPERBLOCK_HBA_0, 1, old), 0);
	ck_assert_int_eq(mls_block_dev_write(f.dev, MLS_SUPERBLOCK_HBA_1, 1, mls_block_at(old, 1)), 0);
	ck_assert_int_eq(mls_disk_open(&disk, f.dev, &f.store.base, &first, &opts), MLS_ESTALE);
	mls_blocks_free(old);
	fixture_release(&f);
}
END_TEST

/* Goal: a store that can't be told doesn't undo the removal; the next open tells it. */
START_TEST(a_store_that_fails_is_told_later)
{
	const struct mls_open_opts opts = { .inline_work = true };
	struct disk_fixture f;
	struct mls_disk *disk;
	unsigned changed;
	int told = 0;

	fixture_init(&f, 4 * MIB, 0);
	disk = fixture_open(&f);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	ck_assert_int_eq(mls_key_add(f.dev, &f.secret, &key_b, MLS_KEY_SLOT_ANY, NULL, NULL), 0);
	f.store.read_err = MLS_EIO;
	ck_assert_int_eq(mls_key_remove_told(f.dev, &f.store.base, &f.secret, MLS_KEY_SLOT_ANY, &changed, &told), 0);
	ck_assert_int_ne(told, 0);
	f.store.read_err = 0;
	ck_assert_int_eq(mls_disk_open(&disk, f.dev, &f.store.base, &f.secret, &opts), MLS_EKEY);
	ck_assert_int_eq(mls_disk_open(&disk, f.dev, &f.store.base, &key_b, &opts), 0);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	fixture_release(&f);
}
END_TEST

START_TEST(list_needs_a_disk)
{
	struct mls_key_info info[MLS_NR_KEY_SLOTS];
	struct mls_block_dev *blank = NULL;

	ck_assert_int_eq(mls_block_dev_mem_new(&blank, 100), 0);
	ck_assert_int_eq(mls_key_list(blank, info), MLS_EFORMAT);
	mls_block_dev_destroy(blank);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("key_admin");
	TCase *tc = tcase_create("key_admin");

	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, secrets_come_and_go);
	tcase_add_test(tc, the_last_slot_stays);
	tcase_add_test(tc, slots_are_eight);
	tcase_add_test(tc, refusals_change_nothing);
	tcase_add_test(tc, change_is_all_or_nothing_when_io_fails);
	tcase_add_test(tc, old_superblock_put_back_is_refused);
	tcase_add_test(tc, a_removed_secret_stays_out_at_once);
	tcase_add_test(tc, a_store_that_fails_is_told_later);
	tcase_add_test(tc, list_needs_a_disk);
	suite_add_tcase(suite, tc);
	return check_run(suite);
}
