/* SPDX-License-Identifier: MPL-2.0 */
/*
 * adversary_open.c - attacks on a disk while it is used: a device that lies, each time anew, and tampered
 * summaries, which only the cleaner reads.
 *
 * A block that was right when it was checked may be another one when it is read next: nothing may be
 * believed that was read again. And what the disk writes on the grounds of lies (compaction, cleaning,
 * the snapshot of the next opening) must not make one of them true.
 */
#include "tests/crash/adversary_lib.h"

#include <string.h>

#include "base/buf.h"

#define CLEANING_CALLS 400u

/* ---- A device that lies ---- */

/* One read in `in` of a block is answered with something else. */
struct lies {
	struct adv *a;
	struct test_rand rand;
	uint64_t in;
};

static void lie(void *arg, uint64_t hba, uint8_t *block)
{
	struct lies *lies = arg;
	struct adv_disk *d = lies->a->d;
	const struct adv_moment *moment = &d->moments[test_rand_below(&lies->rand, d->nr_moments)];
	uint64_t other = test_rand_below(&lies->rand, moment->image.nr_blocks);

	if (!test_rand_chance(&lies->rand, 1, lies->in))
		return;
	switch (test_rand_below(&lies->rand, 5)) {
	case 0:
		block[test_rand_below(&lies->rand, MLS_BLOCK_BYTES)] ^= 0x10;
		break;
	case 1:
		memcpy(block, adv_old_block(moment, other), MLS_BLOCK_BYTES);
		break;
	case 2:
		memset(block, 0, MLS_BLOCK_BYTES);
		break;
	default:
		memcpy(block, adv_old_block(moment, hba), MLS_BLOCK_BYTES);
	}
}

/* Lies from the opening on, or only once the disk is open. The last look is without them. */
static void look_through_lies(struct adv *a, struct lies *lies, bool from_the_start, bool read_only)
{
	struct adv_disk *d = a->d;
	struct test_store store = d->store;
	struct mls_disk *disk;
	int err;

	d->dev->arg = lies;
	d->dev->answer = from_the_start ? lie : NULL;
	err = adv_open(d, &store, read_only, 32 * MLS_BLOCK_BYTES, &disk);
	d->dev->answer = lie;
	if (err) {
		if (!from_the_start || !(ADV_KEY_REFUSALS & ADV_MAY(err)))
			adv_fail(a, "open: %s", mls_strerror(err));
		a->count->refused++;
	} else {
		bool clean = adv_read_all(a, disk, d->truth, d->given_up);

		clean ? a->count->harmless++ : a->count->errors++;
		memcpy(a->synced, d->truth, (size_t)d->nr_lbas * MLS_BLOCK_BYTES);
		memcpy(a->now, d->truth, (size_t)d->nr_lbas * MLS_BLOCK_BYTES);
		if (!read_only && !d->given_up)
			err = adv_churn(&a->rand, disk, d->nr_lbas, 60, a->now, a->synced);
		(void)mls_disk_close(disk);
	}
	d->dev->answer = NULL;
	if (read_only || d->given_up || err == MLS_EABORTED)
		return;
	err = adv_open(d, &store, true, 0, &disk);
	if (err == MLS_EAUTH) /* lies were written down as damage: fair */
		return;
	adv_must(a, err, "opening without lies");
	if (err)
		return;
	(void)adv_read_all(a, disk, a->synced, a->now);
	(void)mls_disk_close(disk);
}

void adv_lies(struct adv *a)
{
	for (unsigned i = 0; i < 2000; i++) {
		struct lies lies = {.a = a};

		if (!adv_case(a, 8, "a device that lies, round %" PRIu64, i, 0, 0))
			continue;
		test_rand_seed(&lies.rand, test_rand_u64(&a->rand));
		lies.in = UINT64_C(2) << test_rand_below(&a->rand, 9);
		memcpy(a->synced, a->d->truth, (size_t)a->d->nr_lbas * MLS_BLOCK_BYTES);
		memcpy(a->now, a->d->truth, (size_t)a->d->nr_lbas * MLS_BLOCK_BYTES);
		tamper_dev_begin(a->d->dev);
		look_through_lies(a, &lies, i % 2, i % 4 < 2);
		tamper_dev_undo(a->d->dev);
	}
}

/* ---- Summaries ---- */

static void tamper_summary(struct adv *a, uint64_t hba, unsigned how)
{
	struct adv_disk *d = a->d;
	uint64_t other;

	switch (how) {
	case 0:
		tamper_dev_touch(d->dev, hba)[test_rand_below(&a->rand, 80)] ^= 0x10;
		break;
	case 1:
		tamper_dev_touch(d->dev, hba)[test_rand_below(&a->rand, 512)] ^= 0x10;
		break;
	case 2:
		adv_put_back(d, adv_any_moment(a), (struct adv_range){hba, 1});
		break;
	default:
		do
			other = test_rand_below(&a->rand, d->dev->base.nr_blocks);
		while (d->kind[other] != ADV_SUMMARY);
		tamper_dev_swap(d->dev, hba, other);
	}
}

/* Overwritten until the cleaner has been everywhere. */
static void use_it_up(struct adv *a)
{
	struct adv_disk *d = a->d;
	struct test_store store = d->store;
	struct mls_disk *disk;
	int err;

	adv_must(a, adv_open(d, &store, false, 0, &disk), "open");
	memcpy(a->now, d->truth, (size_t)d->nr_lbas * MLS_BLOCK_BYTES);
	memcpy(a->synced, d->truth, (size_t)d->nr_lbas * MLS_BLOCK_BYTES);
	err = adv_churn(&a->rand, disk, d->nr_lbas, CLEANING_CALLS, a->now, a->synced);
	if (err && err != MLS_EAUTH && err != MLS_EPOISONED && err != MLS_ENOSPC)
		adv_fail(a, "using it: %s", mls_strerror(err));
	if (err != MLS_EABORTED && adv_read_all(a, disk, a->now, NULL))
		a->count->harmless++;
	else
		a->count->errors++;
	(void)mls_disk_close(disk);
	adv_must(a, adv_open(d, &store, true, 0, &disk), "open again");
	(void)adv_read_all(a, disk, a->synced, a->now);
	(void)mls_disk_close(disk);
}

void adv_summaries(struct adv *a)
{
	struct adv_disk *d = a->d;

	for (uint64_t hba = 0; hba < d->dev->base.nr_blocks && !d->given_up; hba++) {
		if (d->kind[hba] != ADV_SUMMARY || !adv_is_used(d, hba))
			continue;
		for (unsigned i = 0; i < 4; i++) {
			if (!adv_case(a, 8, "the summary at HBA %" PRIu64 " and others, way %" PRIu64, hba, i,
				      0))
				continue;
			tamper_dev_begin(d->dev);
			tamper_summary(a, hba, i);
			for (uint64_t h = 0; h < d->dev->base.nr_blocks; h++) /* any that is cleaned will do */
				if (d->kind[h] == ADV_SUMMARY && adv_is_used(d, h) &&
				    test_rand_chance(&a->rand, 1, 2))
					tamper_summary(a, h, i);
			use_it_up(a);
			tamper_dev_undo(d->dev);
		}
	}
}
