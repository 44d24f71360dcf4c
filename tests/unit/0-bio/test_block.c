/* SPDX-License-Identifier: MPL-2.0 */
/* Layer 0 without a host: checked calls, memory device, range, ring, log. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "0-bio/block_log.h"
#include "0-bio/block_ring.h"
#include "0-bio/block_set.h"
#include "base/buf.h"
#include "tests/lib/check_run.h"
#include "tests/lib/fault_dev.h"
#include "tests/lib/test_log.h"

static struct mls_block_dev *dev;
static uint8_t *buf, *got;

#define DEV_BLOCKS 64u
#define BUF_BLOCKS 64u

static void setup(void)
{
	ck_assert_int_eq(mls_block_dev_mem_new(&dev, DEV_BLOCKS), 0);
	buf = mls_blocks_zalloc(BUF_BLOCKS);
	got = mls_blocks_zalloc(BUF_BLOCKS);
	ck_assert(buf && got);
	for (uint32_t i = 0; i < BUF_BLOCKS; i++)
		memset(mls_block_at(buf, i), (int)i + 1, MLS_BLOCK_BYTES);
}

static void teardown(void)
{
	mls_block_dev_destroy(dev);
	mls_blocks_free(buf);
	mls_blocks_free(got);
}

static bool is_block(const struct mls_block_dev *d, uint64_t hba, int byte)
{
	uint8_t *b = mls_blocks_alloc(1);
	bool same;

	ck_assert_int_eq(mls_block_dev_read((struct mls_block_dev *)(uintptr_t)d, hba, 1, b), 0);
	same = b[0] == byte && memcmp(b, b + 1, MLS_BLOCK_BYTES - 1) == 0;
	mls_blocks_free(b);
	return same;
}

/* ---- Checked calls ---- */

START_TEST(transfers_outside_the_device_are_refused_whole)
{
	struct mls_io ios[2] = {
		{ .hba = 0, .nr_blocks = 1, .data = buf },
		{ .hba = DEV_BLOCKS, .nr_blocks = 1, .data = buf },
	};

	ck_assert_int_eq(mls_block_dev_writev(dev, ios, 2), MLS_EINVAL);
	ck_assert(is_block(dev, 0, 0));		/* the first wasn't done either */
	ck_assert_int_eq(mls_block_dev_read(dev, DEV_BLOCKS - 1, 2, got), MLS_EINVAL);
	ck_assert_int_eq(mls_block_dev_read(dev, UINT64_MAX, 2, got), MLS_EINVAL);
	ck_assert_int_eq(mls_block_dev_read(dev, 0, 0, got), MLS_EINVAL);
	ck_assert_int_eq(mls_block_dev_discard(dev, DEV_BLOCKS, 1), MLS_EINVAL);
	ck_assert_int_eq(mls_block_dev_discard(dev, 1, UINT64_MAX), MLS_EINVAL);
	ck_assert_int_eq(mls_block_dev_read(dev, DEV_BLOCKS - 1, 1, got), 0);
}
END_TEST

START_TEST(memory_keeps_what_is_written)
{
	struct mls_io ios[2] = {
		{ .hba = 7, .nr_blocks = 2, .data = buf },
		{ .hba = 1, .nr_blocks = 1, .data = mls_block_at(buf, 2) },
	};

	ck_assert_int_eq(mls_block_dev_writev(dev, ios, 2), 0);
	ck_assert_int_eq(mls_block_dev_flush(dev), 0);
	ck_assert(is_block(dev, 7, 1) && is_block(dev, 8, 2) && is_block(dev, 1, 3));
	ck_assert(is_block(dev, 0, 0) && is_block(dev, 9, 0));
	ck_assert_int_eq(mls_block_dev_discard(dev, 7, 1), 0);
	ck_assert(is_block(dev, 8, 2));
	ck_assert_int_eq(mls_block_dev_discard(dev, DEV_BLOCKS, 0), 0);
}
END_TEST

START_TEST(memory_device_sizes)
{
	struct mls_block_dev *other = NULL;

	ck_assert_int_eq(mls_block_dev_mem_new(&other, 0), MLS_EINVAL);
	ck_assert_int_eq(mls_block_dev_mem_new(&other, UINT64_MAX / 2), MLS_EINVAL);
	ck_assert_ptr_null(other);
	mls_block_dev_destroy(NULL);
}
END_TEST

/* ---- Range ---- */

START_TEST(a_set_reaches_its_own_blocks_only)
{
	struct mls_block_dev *set;
	struct mls_io ios[2] = {
		{ .hba = 0, .nr_blocks = 1, .data = buf },
		{ .hba = 9, .nr_blocks = 1, .data = mls_block_at(buf, 1) },
	};

	ck_assert_int_eq(mls_block_set_new(&set, dev, 20, 10), 0);
	ck_assert_uint_eq(set->nr_blocks, 10);
	ck_assert_int_eq(mls_block_dev_writev(set, ios, 2), 0);
	ck_assert_uint_eq(ios[0].hba, 0);	/* the caller's array is as it was */
	ck_assert_uint_eq(ios[1].hba, 9);
	ck_assert(is_block(dev, 20, 1) && is_block(dev, 29, 2));
	ck_assert(is_block(set, 0, 1) && is_block(set, 9, 2));
	ck_assert_int_eq(mls_block_dev_write(set, 9, 2, buf), MLS_EINVAL);
	ck_assert(is_block(dev, 30, 0));
	ck_assert_int_eq(mls_block_dev_discard(set, 0, 1), 0);
	ck_assert_int_eq(mls_block_dev_discard(set, 10, 1), MLS_EINVAL);
	ck_assert_int_eq(mls_block_dev_flush(set), 0);
	mls_block_dev_destroy(set);

	ck_assert_int_eq(mls_block_set_new(&set, dev, 60, 5), MLS_EINVAL);
	ck_assert_int_eq(mls_block_set_new(&set, dev, 60, 0), MLS_EINVAL);
	ck_assert_int_eq(mls_block_set_new(&set, dev, UINT64_MAX, 2), MLS_EINVAL);
}
END_TEST

/* ---- Ring ---- */

START_TEST(a_ring_wraps)
{
	struct mls_block_ring ring;

	ck_assert_int_eq(mls_block_ring_init(&ring, dev, 10, 8), 0);
	/* Block seq holds seq + 1; each transfer of 5 starts at another place of the ring. */
	for (uint64_t seq = 0; seq + 5 <= BUF_BLOCKS; seq += 5) {
		ck_assert_int_eq(mls_block_ring_write(&ring, seq, 5, mls_block_at(buf, seq)), 0);
		ck_assert_int_eq(mls_block_ring_read(&ring, seq, 5, got), 0);
		ck_assert_mem_eq(got, mls_block_at(buf, seq), 5 * MLS_BLOCK_BYTES);
	}
	ck_assert_int_eq(mls_block_ring_read(&ring, 52, 8, got), 0);
	ck_assert_mem_eq(got, mls_block_at(buf, 52), 8 * MLS_BLOCK_BYTES);
	ck_assert(is_block(dev, 10 + 59 % 8, 60));
	ck_assert(is_block(dev, 9, 0) && is_block(dev, 18, 0));
}
END_TEST

/* Each of three transfers fails in turn: two of the ring, which wraps, and the one that goes along. */
START_TEST(a_ring_takes_transfers_along)
{
	for (unsigned failing = 0; failing <= 3; failing++) {
		struct mls_io along = { 40, 2, MLS_EABORTED, mls_block_at(buf, 20) };
		struct fault_dev *flaky = fault_dev_new(dev, FAULT_WRITE);
		struct mls_block_ring ring;
		int err;

		ck_assert_int_eq(mls_block_ring_init(&ring, &flaky->base, 10, 8), 0);
		fault_dev_arm(flaky, failing, MLS_ENOSPC, false);
		err = mls_block_ring_write_along(&ring, 6, 4, buf, &along, 1);
		ck_assert_int_eq(err, failing == 1 || failing == 2 ? MLS_ENOSPC : 0);
		ck_assert_int_eq(along.err, failing == 3 ? MLS_ENOSPC : 0);
		if (failing != 3)
			ck_assert(is_block(dev, 40, 21) && is_block(dev, 41, 22));
		if (err == 0)
			ck_assert(is_block(dev, 17, 2) && is_block(dev, 10, 3));
		mls_block_dev_destroy(&flaky->base);
	}
}
END_TEST

START_TEST(what_goes_along_lies_within_the_device)
{
	struct mls_io along = { DEV_BLOCKS - 1, 2, MLS_EABORTED, buf };
	struct mls_block_ring ring;

	ck_assert_int_eq(mls_block_ring_init(&ring, dev, 10, 8), 0);
	ck_assert_int_eq(mls_block_ring_write_along(&ring, 0, 1, buf, &along, 1), MLS_EINVAL);
	ck_assert_int_eq(along.err, MLS_EABORTED);	/* not tried */
	ck_assert(is_block(dev, 10, 0));
}
END_TEST

START_TEST(ring_limits)
{
	struct mls_block_ring ring;

	ck_assert_int_eq(mls_block_ring_init(&ring, dev, 60, 5), MLS_EINVAL);
	ck_assert_int_eq(mls_block_ring_init(&ring, dev, 60, 0), MLS_EINVAL);
	ck_assert_int_eq(mls_block_ring_init(&ring, dev, 60, 4), 0);
	ck_assert_int_eq(mls_block_ring_write(&ring, 0, 5, buf), MLS_EINVAL);
	ck_assert_int_eq(mls_block_ring_read(&ring, 3, 5, got), MLS_EINVAL);
	ck_assert_int_eq(mls_block_ring_read(&ring, UINT64_MAX - 1, 0, got), 0);
	ck_assert_int_eq(mls_block_ring_write(&ring, UINT64_MAX - 3, 4, buf), 0);
}
END_TEST

/* ---- Log ---- */

/* Chunks of 4 blocks at 40, 8, 32, then no more. */
static int grow_three(void *arg, uint64_t *hba)
{
	static const uint64_t hbas[] = { 40, 8, 32 };
	unsigned *nr = arg;

	if (*nr == 3)
		return MLS_ENOSPC;
	*hba = hbas[(*nr)++];
	return 0;
}

START_TEST(a_log_grows_by_chunks)
{
	struct mls_block_log log, again;
	unsigned nr = 0;

	mls_block_log_init(&log, dev, 4, grow_three, &nr);
	ck_assert_int_eq(mls_block_log_append(&log, buf, 3), 0);
	ck_assert_uint_eq(nr, 1);
	ck_assert_int_eq(mls_block_log_append(&log, mls_block_at(buf, 3), 1), 0);
	ck_assert_uint_eq(nr, 1);
	ck_assert_int_eq(mls_block_log_append(&log, mls_block_at(buf, 4), 6), 0);
	ck_assert_uint_eq(nr, 3);
	ck_assert(is_block(dev, 40, 1) && is_block(dev, 8, 5) && is_block(dev, 33, 10));

	/* One that doesn't fit changes nothing, and one that fits still goes. */
	ck_assert_int_eq(mls_block_log_append(&log, buf, 3), MLS_ENOSPC);
	ck_assert_uint_eq(log.nr_blocks, 10);
	ck_assert_int_eq(mls_block_log_append(&log, mls_block_at(buf, 10), 2), 0);
	ck_assert_int_eq(mls_block_log_read(&log, 0, 12, got), 0);
	ck_assert_mem_eq(got, buf, 12 * MLS_BLOCK_BYTES);
	ck_assert_int_eq(mls_block_log_read(&log, 11, 2, got), MLS_EINVAL);
	ck_assert_int_eq(mls_block_log_read(&log, 12, 0, got), 0);

	ck_assert_int_eq(mls_block_log_init_existing(&again, dev, 4, log.chunk_hbas, 3, 13), MLS_EINVAL);
	ck_assert_int_eq(mls_block_log_init_existing(&again, dev, 4, log.chunk_hbas, 3, 11), 0);
	ck_assert_int_eq(mls_block_log_read(&again, 3, 8, got), 0);
	ck_assert_mem_eq(got, mls_block_at(buf, 3), 8 * MLS_BLOCK_BYTES);
	ck_assert_int_eq(mls_block_log_read(&again, 11, 1, got), MLS_EINVAL);
	ck_assert_int_eq(mls_block_log_append(&again, buf, 2), MLS_EINVAL);	/* read-only */
	mls_block_log_release(&again);
	mls_block_log_release(&log);
}
END_TEST

static int grow_single_blocks(void *arg, uint64_t *hba)
{
	uint64_t *next = arg;

	*hba = *next;
	*next = (*next + 37) % DEV_BLOCKS;	/* scattered; 37 and 64 have no common factor */
	return 0;
}

START_TEST(a_log_of_many_small_chunks)
{
	struct mls_block_log log;
	uint64_t next = 0;

	mls_block_log_init(&log, dev, 1, grow_single_blocks, &next);
	ck_assert_int_eq(mls_block_log_append(&log, buf, DEV_BLOCKS), 0);
	ck_assert_int_eq(mls_block_log_read(&log, 0, DEV_BLOCKS, got), 0);
	ck_assert_mem_eq(got, buf, DEV_BLOCKS * MLS_BLOCK_BYTES);
	ck_assert(is_block(dev, 37, 2));
	mls_block_log_release(&log);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("0-bio/block");
	TCase *tc = tcase_create("all");

	mls_set_logger(test_log_quiet, NULL);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, transfers_outside_the_device_are_refused_whole);
	tcase_add_test(tc, memory_keeps_what_is_written);
	tcase_add_test(tc, memory_device_sizes);
	tcase_add_test(tc, a_set_reaches_its_own_blocks_only);
	tcase_add_test(tc, a_ring_wraps);
	tcase_add_test(tc, a_ring_takes_transfers_along);
	tcase_add_test(tc, what_goes_along_lies_within_the_device);
	tcase_add_test(tc, ring_limits);
	tcase_add_test(tc, a_log_grows_by_chunks);
	tcase_add_test(tc, a_log_of_many_small_chunks);
	suite_add_tcase(suite, tc);
	return check_run(suite);
}
