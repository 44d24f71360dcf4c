/* SPDX-License-Identifier: MPL-2.0 */
/*
 * adversary_splice.c - blocks of other disks: of one that the same key file opens, and of a clone that
 * went on by itself; two clones on one register; and a device that is longer or shorter than it was.
 */
#include "tests/crash/adversary_lib.h"

#include <string.h>

#include "base/buf.h"
#include "base/checked.h"

/* ---- Blocks of another disk ---- */

static void take(struct adv *a, const struct adv_disk *from, struct adv_range range)
{
	for (uint64_t hba = range.hba; hba < range.hba + range.nr_blocks; hba++)
		if (hba < from->dev->capacity && hba < a->d->dev->base.nr_blocks)
			tamper_dev_put(a->d->dev, hba, tamper_dev_at(from->dev, hba));
}

static void splice_blocks(struct adv *a, const struct adv_disk *from)
{
	struct adv_disk *d = a->d;

	for (uint64_t hba = 0; hba < d->dev->base.nr_blocks; hba++) {
		if (memcmp(tamper_dev_at(from->dev, hba), tamper_dev_at(d->dev, hba), MLS_BLOCK_BYTES) == 0)
			continue;
		if (!adv_case(a, 4, "HBA %" PRIu64 " of another disk", hba, 0, 0))
			continue;
		tamper_dev_begin(d->dev);
		take(a, from, (struct adv_range){hba, 1});
		adv_look(a, ADV_REFUSALS, ADV_ANY_MODE);
	}
	for (uint64_t run = 0; run < d->nr_runs; run++) {
		if (!adv_case(a, 2, "run %" PRIu64 " of another disk", run, 0, 0))
			continue;
		tamper_dev_begin(d->dev);
		take(a, from, adv_run(d, run));
		adv_look(a, ADV_REFUSALS, ADV_ANY_MODE);
	}
}

/* Every set of parts; the last is the whole image. The two copies of the superblock also one by one. */
static void splice_parts(struct adv *a, const struct adv_disk *from)
{
	struct adv_disk *d = a->d;

	for (unsigned set = 1; set < 1u << ADV_NR_PARTS; set++) {
		for (unsigned i = 0; i < 4; i++) {
			if (!adv_case(a, 1, "the set %" PRIu64 " of parts of another disk, way %" PRIu64, set,
				      i, 0))
				continue;
			tamper_dev_begin(d->dev);
			for (unsigned part = 0; part < ADV_NR_PARTS; part++)
				if (set >> part & 1)
					take(a, from, d->parts[part]);
			if (i & 1)
				tamper_dev_put(d->dev, 0, adv_old_block(&d->moments[d->nr_moments - 1], 0));
			adv_look(a, ADV_KEY_REFUSALS, i & 2 ? ADV_WRITING : ADV_READ_ONLY);
		}
	}
	for (unsigned i = 0; i < 600; i++) {
		if (!adv_case(a, 4, "blocks of two disks mixed, round %" PRIu64, i, 0, 0))
			continue;
		tamper_dev_begin(d->dev);
		for (uint64_t hba = 0; hba < d->dev->base.nr_blocks; hba++)
			if (test_rand_chance(&a->rand, 1, 1 + i))
				take(a, from, (struct adv_range){hba, 1});
		adv_look(a, ADV_KEY_REFUSALS, ADV_ANY_MODE);
	}
}

void adv_splice_twin(struct adv *a)
{
	struct adv_disk *twin = adv_twin(a, a->d);

	splice_blocks(a, twin);
	splice_parts(a, twin);
	adv_disk_free(twin);
}

/* Same master key, same history up to a moment, and then another. From a late moment the clone is a few syncs
 * away, so its sync ids are those of the disk, too. */
void adv_splice_clone(struct adv *a)
{
	unsigned from[2] = {0, a->d->nr_moments > 3 ? a->d->nr_moments - 3 : 0};

	for (unsigned i = 0; i < 2; i++) {
		struct adv_disk *clone = adv_clone(a, a->d, &a->d->moments[from[i]]);

		splice_blocks(a, clone);
		splice_parts(a, clone);
		adv_disk_free(clone);
	}
}

/* ---- Two clones that advance one register ---- */

/* Image 0: the disk's; 1: some blocks of the clone's; 2: more of them; 3: the clone's. */
static void offer_images(struct adv *a, const struct adv_disk *clone, const struct test_store *then,
			 unsigned last, const uint8_t *truth)
{
	struct adv_disk *d = a->d;

	for (unsigned image = 0; image < 4; image++) {
		bool honest = image == (last ? 3 : 0);
		struct test_store store = *then;
		struct mls_disk *disk;
		int err;

		for (uint64_t hba = 0; image && hba < d->dev->base.nr_blocks; hba++)
			if (image == 3 || test_rand_chance(&a->rand, image, 3))
				take(a, clone, (struct adv_range){hba, 1});
		err = adv_open(d, &store, true, 0, &disk);
		if (err && (honest || !(ADV_REFUSALS & ADV_MAY(err))))
			adv_fail(a, "image %u: %s", image, mls_strerror(err));
		a->count->refused += err != 0;
		if (err)
			continue;
		if (!adv_read_all(a, disk, truth, NULL) && honest)
			adv_fail(a, "errors on the image that the register stands for");
		(void)mls_disk_close(disk);
		a->count->harmless++;
	}
}

/*
 * Both are used by turns; then each image, and mixtures of the two, are offered to the register. Whoever
 * advanced it last is accepted with what he synced; the other one never is.
 */
static void share(struct adv *a, struct adv_disk *clone)
{
	struct adv_disk *d = a->d, *side[2] = {d, clone};
	struct test_store store = d->store;
	struct mls_disk *disk[2];
	unsigned last = 0;

	for (unsigned i = 0; i < 2; i++) {
		memcpy(i ? a->now : a->synced, d->truth, (size_t)d->nr_lbas * MLS_BLOCK_BYTES);
		if (i) /* on its copy of the register: the image is one that both could have opened */
			store = d->store;
		adv_must(a, adv_open(side[i], &store, false, 0, &disk[i]), "open");
	}
	for (unsigned turn = 0; turn < 5; turn++) {
		int err;

		last = (unsigned)test_rand_below(&a->rand, 2);
		err = adv_churn(&a->rand, disk[last], d->nr_lbas, 3, last ? a->now : a->synced, NULL);
		if (err != MLS_ENOSPC)
			adv_must(a, err, "write");
		adv_must(a, mls_disk_sync(disk[last]), "sync");
	}
	for (unsigned i = 0; i < 2; i++) { /* killed */
		struct test_store now = store;

		store.fail_at = store.nr_advances + 1;
		store.fail_sticky = true;
		(void)mls_disk_close(disk[i]);
		store = now;
	}
	offer_images(a, clone, &store, last, last ? a->now : a->synced);
}

void adv_shared_store(struct adv *a)
{
	struct adv_disk *d = a->d;

	for (unsigned i = 0; i < 64; i++) {
		struct adv_disk clone = {.name = "clone", .nr_lbas = d->nr_lbas};

		if (d->given_up || !adv_case(a, 4, "two clones on one register, round %" PRIu64, i, 0, 0))
			continue;
		clone.dev = tamper_dev_new(d->dev->base.nr_blocks, d->dev->capacity);
		for (uint64_t hba = 0; hba < d->dev->base.nr_blocks; hba++)
			tamper_dev_put(clone.dev, hba, tamper_dev_at(d->dev, hba));
		tamper_dev_begin(d->dev);
		share(a, &clone);
		tamper_dev_undo(d->dev);
		mls_block_dev_destroy(&clone.dev->base);
	}
}

/* ---- The device's length ---- */

void adv_size(struct adv *a)
{
	struct adv_disk *d = a->d;
	uint64_t nr_blocks = d->dev->base.nr_blocks;

	for (uint64_t more = 1; more <= d->dev->capacity - nr_blocks; more += 97) {
		if (!adv_case(a, 1, "%" PRIu64 " blocks longer", more, 0, 0))
			continue;
		tamper_dev_begin(d->dev);
		d->dev->base.nr_blocks += more;
		for (uint64_t hba = nr_blocks; hba < nr_blocks + more; hba++)
			memcpy(tamper_dev_touch(d->dev, hba), tamper_dev_at(d->dev, hba % nr_blocks),
			       MLS_BLOCK_BYTES);
		adv_look(a, 0, ADV_ANY_MODE); /* nothing to refuse */
	}
	for (uint64_t left = 1; left < nr_blocks; left++) {
		if (!adv_case(a, 2, "%" PRIu64 " blocks left", left, 0, 0))
			continue;
		tamper_dev_begin(d->dev);
		d->dev->base.nr_blocks = left;
		adv_look(a, ADV_KEY_REFUSALS, ADV_ANY_MODE);
	}
	for (uint64_t left = 1; left < nr_blocks; left += 3) {
		if (!adv_case(a, 2, "%" PRIu64 " blocks left, the rest a hole", left, 0, 0))
			continue;
		tamper_dev_begin(d->dev);
		for (uint64_t hba = left; hba < nr_blocks; hba++)
			if (adv_is_used(d, hba))
				memset(tamper_dev_touch(d->dev, hba), 0, MLS_BLOCK_BYTES);
		adv_look(a, ADV_KEY_REFUSALS, ADV_ANY_MODE);
	}
}
