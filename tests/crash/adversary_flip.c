/* SPDX-License-Identifier: MPL-2.0 */
/*
 * adversary_flip.c - one bit of every byte, and whole blocks wiped.
 *
 * What is read only when somebody asks for an LBA (data, SSTables) is flipped under a disk that is open,
 * without a cache for tables: two reads an attack instead of an open. There the answer must be an error,
 * as the block's tag covers every byte of it; and once the bit is back, the truth. All else is opened
 * anew for each flip.
 */
#include "tests/crash/adversary_lib.h"

#include <string.h>

#include "base/buf.h"
#include "format/mlsdisk_format.h"

/* An open disk, read-only, under which blocks change. */
struct lazy {
	struct mls_disk *disk;
	struct test_store store;
};

static void lazy_open(struct adv *a, struct lazy *lazy, bool cache)
{
	lazy->store = a->d->store;
	adv_must(a, adv_open(a->d, &lazy->store, true, cache ? 0 : 1, &lazy->disk), "open");
}

static void lazy_expect(struct adv *a, struct lazy *lazy, uint64_t lba, int expected)
{
	int err = mls_disk_read(lazy->disk, lba * MLS_BLOCK_BYTES, a->buf, MLS_BLOCK_BYTES);

	if (err != expected)
		adv_fail(a, "LBA %" PRIu64 " answers \"%s\", expected \"%s\"", lba, mls_strerror(err),
			 mls_strerror(expected));
	if (!err && memcmp(a->buf, mls_block_at(a->d->truth, lba), MLS_BLOCK_BYTES) != 0)
		adv_fail(a, "LBA %" PRIu64 " reads as something else, without an error", lba);
}

static void flip(struct adv *a, uint64_t hba, uint64_t byte)
{
	tamper_dev_touch(a->d->dev, hba)[byte] ^= (uint8_t)(1u << test_rand_below(&a->rand, 8));
}

/* Every byte of each block of this kind that some LBA is read through. */
static void flip_lazily(struct adv *a, enum adv_kind kind, bool cache, uint64_t share)
{
	struct adv_disk *d = a->d;
	struct lazy lazy;

	lazy_open(a, &lazy, cache);
	for (uint64_t hba = 0; hba < d->dev->base.nr_blocks; hba++) {
		bool any = false;

		if (d->kind[hba] != kind || d->reader[hba] == ADV_NONE || d->at_open[hba])
			continue;
		for (uint64_t byte = 0; byte < MLS_BLOCK_BYTES; byte++) {
			uint8_t *at;
			uint8_t old;

			if (!adv_case(a, share,
				      "byte %" PRIu64 " of HBA %" PRIu64 " flipped under an open disk", byte,
				      hba, 0))
				continue;
			at = tamper_dev_touch(d->dev, hba) + byte;
			old = *at;
			*at ^= (uint8_t)(1u << test_rand_below(&a->rand, 8));
			lazy_expect(a, &lazy, d->reader[hba], MLS_EAUTH);
			*at = old;
			a->count->errors++;
			any = true;
		}
		if (any)
			lazy_expect(a, &lazy, d->reader[hba], MLS_OK);
	}
	(void)mls_disk_close(lazy.disk);
}

void adv_flip_data(struct adv *a)
{
	flip_lazily(a, ADV_DATA, true, 8);
}

void adv_flip_table(struct adv *a)
{
	flip_lazily(a, ADV_TABLE, false, 4);
}

/* Every byte of what opening reads. A chain's headers are always tried, of other bytes a share. */
void adv_flip_open(struct adv *a)
{
	struct adv_disk *d = a->d;

	for (uint64_t hba = 0; hba < d->dev->base.nr_blocks; hba++) {
		if (!d->at_open[hba] || !adv_is_used(d, hba))
			continue;
		for (uint64_t byte = 0; byte < MLS_BLOCK_BYTES; byte++) {
			bool dense = byte < sizeof(struct mls_chain_hdr_disk);

			if (!adv_case(a, dense ? 2 : 128, "byte %" PRIu64 " of HBA %" PRIu64 " flipped", byte,
				      hba, 0))
				continue;
			tamper_dev_begin(d->dev);
			flip(a, hba, byte);
			adv_look(a, ADV_REFUSALS, ADV_ANY_MODE);
		}
	}
}

/* What neither opening nor reading takes: summaries, dead blocks, old chains, free runs. */
void adv_flip_rest(struct adv *a)
{
	struct adv_disk *d = a->d;

	for (uint64_t hba = 0; hba < d->dev->base.nr_blocks; hba++) {
		if (d->at_open[hba] || d->reader[hba] != ADV_NONE)
			continue;
		for (unsigned i = 0; i < 4; i++) {
			if (!adv_case(a, adv_is_used(d, hba) ? 8 : 64, "some byte of HBA %" PRIu64 " flipped",
				      hba, 0, 0))
				continue;
			tamper_dev_begin(d->dev);
			flip(a, hba, test_rand_below(&a->rand, i ? MLS_BLOCK_BYTES : 80));
			adv_look(a, ADV_REFUSALS, ADV_ANY_MODE);
		}
	}
}

void adv_wipe(struct adv *a)
{
	struct adv_disk *d = a->d;

	for (uint64_t hba = 0; hba < d->dev->base.nr_blocks; hba++) {
		for (unsigned with = 0; with < 3; with++) {
			if (!adv_case(a, adv_is_used(d, hba) ? 4 : 32,
				      "HBA %" PRIu64 " wiped (way %" PRIu64 ")", hba, with, 0))
				continue;
			tamper_dev_begin(d->dev);
			if (with == 2)
				test_rand_fill(&a->rand, tamper_dev_touch(d->dev, hba), MLS_BLOCK_BYTES);
			else
				memset(tamper_dev_touch(d->dev, hba), with ? 0xff : 0, MLS_BLOCK_BYTES);
			adv_look(a, ADV_REFUSALS, ADV_ANY_MODE);
		}
	}
}
