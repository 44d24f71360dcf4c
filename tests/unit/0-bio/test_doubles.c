/* SPDX-License-Identifier: MPL-2.0 */
/* The doubles of tests/lib do what their headers say: a double that forgets to lose hides bugs. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "0-bio/block_dev.h"
#include "base/buf.h"
#include "tests/lib/check_run.h"
#include "tests/lib/crash_dev.h"
#include "tests/lib/fault_dev.h"
#include "tests/lib/tamper.h"
#include "tests/lib/test_rand.h"
#include "tests/lib/test_store.h"

#define DEV_BLOCKS 16u

static struct mls_block_dev *disk;
static uint8_t *buf;

static void setup(void)
{
	ck_assert_int_eq(mls_block_dev_mem_new(&disk, DEV_BLOCKS), 0);
	buf = mls_blocks_zalloc(DEV_BLOCKS);
	ck_assert_ptr_nonnull(buf);
}

static void teardown(void)
{
	mls_block_dev_destroy(disk);
	mls_blocks_free(buf);
}

static int put(struct mls_block_dev *dev, uint64_t hba, int byte)
{
	memset(buf, byte, MLS_BLOCK_BYTES);
	return mls_block_dev_write(dev, hba, 1, buf);
}

/* The byte that fills the block; -1: it is a mixture. */
static int get(struct mls_block_dev *dev, uint64_t hba)
{
	ck_assert_int_eq(mls_block_dev_read(dev, hba, 1, buf), 0);
	return memcmp(buf, buf + 1, MLS_BLOCK_BYTES - 1) == 0 ? buf[0] : -1;
}

START_TEST(random_numbers_repeat)
{
	struct test_rand a, b;
	uint8_t bytes_a[13], bytes_b[13];

	test_rand_seed(&a, 7);
	test_rand_seed(&b, 7);
	for (int i = 0; i < 100; i++) {
		uint64_t n = test_rand_between(&a, 5, 9);

		ck_assert_uint_eq(n, test_rand_between(&b, 5, 9));
		ck_assert(n >= 5 && n <= 9);
	}
	test_rand_fill(&a, bytes_a, sizeof bytes_a);
	test_rand_fill(&b, bytes_b, sizeof bytes_b);
	ck_assert_mem_eq(bytes_a, bytes_b, sizeof bytes_a);
	test_rand_seed(&b, 8);
	ck_assert_uint_ne(test_rand_u64(&a), test_rand_u64(&b));
}
END_TEST

START_TEST(the_nth_operation_fails)
{
	struct fault_dev *f = fault_dev_new(disk, FAULT_ALL);
	struct mls_io ios[3];

	for (unsigned i = 0; i < 3; i++)
		ios[i] = (struct mls_io){ .hba = i, .nr_blocks = 1, .data = buf };
	memset(buf, 5, MLS_BLOCK_BYTES);
	fault_dev_arm(f, 2, MLS_ENOSPC, false);
	ck_assert_int_eq(mls_block_dev_writev(&f->base, ios, 3), MLS_ENOSPC);
	ck_assert(f->fired);
	ck_assert(ios[0].err == 0 && ios[1].err == MLS_ENOSPC && ios[2].err == 0);
	ck_assert_int_eq(get(disk, 0), 5);
	ck_assert_int_eq(get(disk, 1), 0);
	ck_assert_int_eq(get(disk, 2), 5);
	ck_assert_int_eq(mls_block_dev_flush(&f->base), 0);

	fault_dev_arm(f, 2, MLS_EIO, true);
	ck_assert_int_eq(mls_block_dev_flush(&f->base), 0);
	ck_assert_int_eq(mls_block_dev_flush(&f->base), MLS_EIO);
	ck_assert_int_eq(mls_block_dev_read(&f->base, 0, 1, buf), MLS_EIO);
	fault_dev_arm(f, 0, MLS_EIO, true);
	ck_assert_int_eq(mls_block_dev_read(&f->base, 0, 1, buf), 0);
	ck_assert(!f->fired);
	mls_block_dev_destroy(&f->base);
}
END_TEST

START_TEST(what_is_flushed_survives_every_cut)
{
	struct crash_dev *c = crash_dev_new(disk, NULL);

	ck_assert_int_eq(put(&c->base, 3, 1), 0);
	ck_assert_int_eq(get(&c->base, 3), 1);
	ck_assert_int_eq(get(disk, 3), 0);
	ck_assert_int_eq(mls_block_dev_flush(&c->base), 0);
	for (uint64_t seed = 0; seed < 100; seed++) {
		crash_dev_cut(c, seed);
		ck_assert_int_eq(get(&c->base, 3), 1);
	}
	mls_block_dev_destroy(&c->base);
}
END_TEST

/* Each block has a durable version 1 and pending 2 and 3: all outcomes come up, and no others. */
START_TEST(a_cut_leaves_any_version)
{
	struct crash_dev *c = crash_dev_new(disk, NULL);
	bool seen[4] = { false }, seen_torn = false, mixed_image = false;

	for (uint64_t hba = 0; hba < DEV_BLOCKS; hba++)
		ck_assert_int_eq(put(&c->base, hba, 1), 0);
	ck_assert_int_eq(mls_block_dev_flush(&c->base), 0);
	for (int version = 2; version <= 3; version++)
		for (uint64_t hba = 0; hba < DEV_BLOCKS; hba++)
			ck_assert_int_eq(put(&c->base, hba, version), 0);
	for (uint64_t seed = 0; seed < 200; seed++) {
		struct mls_block_dev *image = crash_dev_image(c, seed), *same = crash_dev_image(c, seed);

		for (uint64_t hba = 0; hba < DEV_BLOCKS; hba++) {
			int byte = get(image, hba);

			ck_assert_int_eq(get(same, hba), byte);
			ck_assert(byte == -1 || (byte >= 1 && byte <= 3));
			if (byte == -1)
				seen_torn = true;
			else
				seen[byte] = true;
			mixed_image |= byte != get(image, 0);
		}
		mls_block_dev_destroy(image);
		mls_block_dev_destroy(same);
	}
	ck_assert(seen[1] && seen[2] && seen[3] && seen_torn && mixed_image);
	ck_assert_int_eq(get(&c->base, 0), 3);		/* images left the device alone */
	crash_dev_cut(c, 1);
	ck_assert_int_eq(get(&c->base, 0), get(disk, 0));
	ck_assert_uint_eq(c->nr_pending, 0);
	mls_block_dev_destroy(&c->base);
}
END_TEST

START_TEST(power_goes_off_at_the_nth_operation)
{
	struct test_power power = { .cut_at = 3 };
	struct crash_dev *c = crash_dev_new(disk, &power);
	bool third_kept = false, third_lost = false;

	ck_assert_int_eq(put(&c->base, 0, 1), 0);
	ck_assert_int_eq(mls_block_dev_flush(&c->base), 0);
	ck_assert_int_eq(put(&c->base, 1, 2), MLS_EIO);		/* in flight */
	ck_assert(power.off);
	ck_assert_int_eq(put(&c->base, 2, 3), MLS_EIO);		/* too late */
	ck_assert_int_eq(mls_block_dev_flush(&c->base), MLS_EIO);
	ck_assert_int_eq(get(&c->base, 2), 3);
	for (uint64_t seed = 0; seed < 50; seed++) {
		struct mls_block_dev *image = crash_dev_image(c, seed);

		ck_assert_int_eq(get(image, 0), 1);
		third_kept |= get(image, 1) == 2;
		third_lost |= get(image, 1) == 0;
		ck_assert_int_eq(get(image, 2), 0);
		mls_block_dev_destroy(image);
	}
	ck_assert(third_kept && third_lost);

	crash_dev_cut(c, 0);
	test_power_on(&power, 0);
	ck_assert_int_eq(put(&c->base, 2, 4), 0);
	ck_assert_int_eq(mls_block_dev_flush(&c->base), 0);
	ck_assert_int_eq(get(disk, 2), 4);

	test_power_on(&power, 1);
	power.swallow = true;
	ck_assert_int_eq(mls_block_dev_flush(&c->base), 0);
	ck_assert_int_eq(put(&c->base, 2, 5), 0);
	ck_assert_int_eq(mls_block_dev_flush(&c->base), 0);
	crash_dev_cut(c, 0);
	ck_assert_int_eq(get(&c->base, 2), 4);
	mls_block_dev_destroy(&c->base);
}
END_TEST

START_TEST(a_discard_is_pending_garbage)
{
	struct crash_dev *c = crash_dev_new(disk, NULL);

	ck_assert_int_eq(put(&c->base, 0, 1), 0);
	ck_assert_int_eq(mls_block_dev_flush(&c->base), 0);
	ck_assert_int_eq(mls_block_dev_discard(&c->base, 0, 1), 0);
	ck_assert_int_ne(get(&c->base, 0), 1);
	ck_assert_int_eq(get(disk, 0), 1);
	mls_block_dev_destroy(&c->base);
}
END_TEST

START_TEST(tampering_changes_what_it_says)
{
	struct tamper_image old, now;

	ck_assert_int_eq(put(disk, 1, 1), 0);
	ck_assert_int_eq(put(disk, 2, 2), 0);
	tamper_image_take(&old, disk);
	tamper_swap(disk, 1, 2);
	ck_assert_int_eq(get(disk, 1), 2);
	tamper_flip_bit(disk, 0, 8 * 4095 + 7);
	ck_assert_int_eq(mls_block_dev_read(disk, 0, 1, buf), 0);
	ck_assert_uint_eq(buf[4095], 0x80);
	tamper_copy(disk, 1, 5);
	ck_assert_int_eq(get(disk, 5), 2);
	tamper_fill(disk, 6, 2, 9);
	ck_assert_int_eq(get(disk, 7), 9);
	tamper_image_take(&now, disk);
	ck_assert(!tamper_image_block_same(&old, &now, 1));
	ck_assert(tamper_image_block_same(&old, &now, 8));
	ck_assert(tamper_image_block_is_zero(&now, 8));
	ck_assert(!tamper_image_block_is_zero(&now, 0));
	tamper_image_put_back_range(&old, disk, 1, 1);
	ck_assert_int_eq(get(disk, 1), 1);
	ck_assert_int_eq(get(disk, 2), 1);
	tamper_image_put_back(&old, disk);
	ck_assert_int_eq(get(disk, 2), 2);
	ck_assert_int_eq(get(disk, 0), 0);
	tamper_image_release(&old);
	tamper_image_release(&now);
}
END_TEST

START_TEST(the_store_loses_power_too)
{
	struct test_power power = { .cut_at = 2 };
	struct mls_trust one = { .sync_id = 1 }, two = { .sync_id = 2 }, got;
	struct test_store store;

	for (int keep = 0; keep <= 1; keep++) {
		test_store_init(&store, &power);
		test_power_on(&power, 2);
		store.keep_at_cut = keep;
		ck_assert_int_eq(store.base.ops->read(&store.base, &got), MLS_ENOENT);
		ck_assert_int_eq(store.base.ops->advance(&store.base, &one), 0);
		ck_assert_int_eq(store.base.ops->advance(&store.base, &two), MLS_EIO);
		ck_assert_int_eq(store.base.ops->advance(&store.base, &two), MLS_EIO);
		ck_assert_int_eq(store.base.ops->read(&store.base, &got), 0);
		ck_assert_uint_eq(got.sync_id, keep ? 2 : 1);
	}
	test_store_init(&store, NULL);
	store.fail_at = 1;
	ck_assert_int_eq(store.base.ops->advance(&store.base, &one), MLS_EIO);
	ck_assert_int_eq(store.base.ops->read(&store.base, &got), MLS_ENOENT);
	ck_assert_int_eq(store.base.ops->advance(&store.base, &one), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("lib/doubles");
	TCase *tc = tcase_create("all");

	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, random_numbers_repeat);
	tcase_add_test(tc, the_nth_operation_fails);
	tcase_add_test(tc, what_is_flushed_survives_every_cut);
	tcase_add_test(tc, a_cut_leaves_any_version);
	tcase_add_test(tc, power_goes_off_at_the_nth_operation);
	tcase_add_test(tc, a_discard_is_pending_garbage);
	tcase_add_test(tc, tampering_changes_what_it_says);
	tcase_add_test(tc, the_store_loses_power_too);
	suite_add_tcase(suite, tc);
	return check_run(suite);
}
