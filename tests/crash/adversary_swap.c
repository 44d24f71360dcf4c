/* SPDX-License-Identifier: MPL-2.0 */
/*
 * adversary_swap.c - every pair of blocks of a kind changes places; and any block takes any other's.
 *
 * Data and tables are swapped under an open disk, as in adversary_flip.c: whoever reads one of the two
 * must get an error, for a tag is bound to the place and the LBA.
 */
#include "tests/crash/adversary_lib.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"

/* The blocks of a kind that a look can notice, ascending. */
struct places {
	uint64_t *hba;
	size_t nr;
};

static struct places places_of(const struct adv_disk *d, enum adv_kind kind, bool at_open)
{
	struct places p = {.hba = calloc(d->dev->base.nr_blocks, sizeof *p.hba)};

	MLS_INVARIANT(p.hba != NULL);
	for (uint64_t hba = 0; hba < d->dev->base.nr_blocks; hba++)
		if (d->kind[hba] == kind && adv_is_used(d, hba) &&
		    (at_open ? d->at_open[hba] || kind == ADV_SUPERBLOCK : d->reader[hba] != ADV_NONE))
			p.hba[p.nr++] = hba;
	return p;
}

static void expect_error(struct adv *a, struct mls_disk *disk, uint64_t hba)
{
	uint64_t lba = a->d->reader[hba];
	int err = mls_disk_read(disk, lba * MLS_BLOCK_BYTES, a->buf, MLS_BLOCK_BYTES);

	if (err != MLS_EAUTH)
		adv_fail(a, "LBA %" PRIu64 " answers \"%s\"", lba, mls_strerror(err));
}

static void swap_lazily(struct adv *a, enum adv_kind kind, bool cache, uint64_t share)
{
	struct places p = places_of(a->d, kind, false);
	struct test_store store = a->d->store;
	struct mls_disk *disk;

	adv_must(a, adv_open(a->d, &store, true, cache ? 0 : 1, &disk), "open");
	for (size_t i = 0; i < p.nr; i++) {
		for (size_t j = i + 1; j < p.nr; j++) {
			if (!adv_case(a, share, "HBA %" PRIu64 " and %" PRIu64 " swapped under an open disk",
				      p.hba[i], p.hba[j], 0))
				continue;
			tamper_dev_begin(a->d->dev);
			tamper_dev_swap(a->d->dev, p.hba[i], p.hba[j]);
			expect_error(a, disk, p.hba[i]);
			expect_error(a, disk, p.hba[j]);
			tamper_dev_undo(a->d->dev);
			a->count->errors++;
		}
	}
	adv_must(a, mls_disk_read(disk, 0, a->buf, (size_t)a->d->nr_lbas * MLS_BLOCK_BYTES),
		 "all put right again");
	if (memcmp(a->buf, a->d->truth, (size_t)a->d->nr_lbas * MLS_BLOCK_BYTES) != 0)
		adv_fail(a, "all put right again, but it isn't the truth");
	(void)mls_disk_close(disk);
	free(p.hba);
}

void adv_swap_data(struct adv *a)
{
	swap_lazily(a, ADV_DATA, true, 8);
}

void adv_swap_table(struct adv *a)
{
	swap_lazily(a, ADV_TABLE, false, 2);
}

static void swap_closed(struct adv *a, enum adv_kind kind, uint64_t share)
{
	struct places p = places_of(a->d, kind, true);

	for (size_t i = 0; i < p.nr; i++) {
		for (size_t j = i + 1; j < p.nr; j++) {
			if (!adv_case(a, share, "HBA %" PRIu64 " and %" PRIu64 " swapped", p.hba[i], p.hba[j],
				      0))
				continue;
			tamper_dev_begin(a->d->dev);
			tamper_dev_swap(a->d->dev, p.hba[i], p.hba[j]);
			adv_look(a, ADV_REFUSALS, ADV_ANY_MODE);
		}
	}
	free(p.hba);
}

/* What opening reads: superblocks, journal, WAL, the tables' footers. */
void adv_swap_open(struct adv *a)
{
	swap_closed(a, ADV_SUPERBLOCK, 1);
	swap_closed(a, ADV_JOURNAL, 2);
	swap_closed(a, ADV_WAL, 2);
	swap_closed(a, ADV_TABLE, 2);
}

/* Any two blocks, of different kinds as a rule; swapped, or one put in the other's place. */
void adv_swap_any(struct adv *a)
{
	for (unsigned i = 0; i < 4000; i++) {
		uint64_t hba, other;

		if (!adv_case(a, 8, "two blocks swapped or copied, round %" PRIu64, i, 0, 0))
			continue;
		hba = adv_any_used(a);
		other = adv_any_used(a);
		a->what = "HBA %" PRIu64 " and %" PRIu64 " swapped, or the second copied over the first";
		a->args[0] = hba;
		a->args[1] = other;
		tamper_dev_begin(a->d->dev);
		if (test_rand_chance(&a->rand, 1, 2))
			tamper_dev_swap(a->d->dev, hba, other);
		else
			tamper_dev_put(a->d->dev, hba, tamper_dev_at(a->d->dev, other));
		adv_look(a, ADV_KEY_REFUSALS, ADV_ANY_MODE);
	}
}
