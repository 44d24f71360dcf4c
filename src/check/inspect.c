/* SPDX-License-Identifier: MPL-2.0 */
/*
 * inspect.c - a disk seen from outside: superblocks, key slots, trusted store, places.
 *
 * What is believed grows step by step, and each step is done with what the ones before gave:
 *
 *   copies -> a key -> sb authentic -> what the store says -> journal areas -> WAL -> verdict -> state
 *
 * A step that fails leaves its fields empty and reports; the later ones that need it are left out.
 */
#include "check/inspect.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "5-disk/key_slot.h"
#include "base/buf.h"
#include "base/err.h"
#include "check/inspect_internal.h"

void mls_inspect_report(struct mls_inspect *x, struct mls_finding *finding, const char *format, ...)
{
	va_list args;

	if (!x->report)
		return;
	va_start(args, format);
	vsnprintf(finding->detail, sizeof finding->detail, format, args);
	va_end(args);
	x->report(x->report_arg, finding);
}

/* ---- Superblocks ---- */

static void report_copies(struct mls_inspect *x, int counts)
{
	static const enum mls_finding_code codes[] = {
		[MLS_COPY_MISSING] = MLS_FOUND_SB_COPY_MISSING,
		[MLS_COPY_UNREADABLE] = MLS_FOUND_SB_COPY_UNREADABLE,
		[MLS_COPY_VERSION] = MLS_FOUND_SB_COPY_VERSION,
		[MLS_COPY_DAMAGED] = MLS_FOUND_SB_COPY_DAMAGED,
		[MLS_COPY_LOCKED] = MLS_FOUND_SB_COPY_FORGED,
		[MLS_COPY_FORGED] = MLS_FOUND_SB_COPY_FORGED,
		[MLS_COPY_AUTHENTIC] = MLS_FOUND_SB_COPY_OLD,
	};

	for (int i = 0; i < (int)MLS_NR_COPIES; i++) {
		const struct mls_superblock_copy *copy = &x->copies[i];
		struct mls_finding finding = mls_finding_init(codes[copy->state]);

		if (i == counts || (copy->state == MLS_COPY_AUTHENTIC && copy->sb.generation == x->sb.generation))
			continue;
		finding.hba = copy->hba;
		finding.nr_blocks = 1;
		if (copy->state == MLS_COPY_AUTHENTIC)
			mls_inspect_report(x, &finding, "copy %d: expected generation %" PRIu64 ", found %" PRIu64, i,
					   x->sb.generation, copy->sb.generation);
		else
			mls_inspect_report(x, &finding, "copy %d", i);
	}
}

static void report_slots(struct mls_inspect *x)
{
	for (unsigned i = 0; i < MLS_NR_KEY_SLOTS; i++) {
		struct mls_finding finding = mls_finding_init(MLS_FOUND_SLOT_MALFORMED);

		if (!mls_key_slot_malformed(&x->sb.slots[i]))
			continue;
		mls_inspect_report(x, &finding, "slot %u: state %u, KDF %u, cost %u", i, x->sb.slots[i].state,
				   x->sb.slots[i].kdf, x->sb.slots[i].scrypt_log_n);
	}
}

/* No copy can be believed: why? */
static int no_superblock(struct mls_inspect *x, bool has_secret)
{
	struct mls_finding finding = mls_finding_init(MLS_FOUND_SB_LOST);
	const struct mls_superblock_copy *best = &x->copies[x->copies[1].state > x->copies[0].state];

	if (best->state == MLS_COPY_UNREADABLE)
		return MLS_EIO;
	if (best->state < MLS_COPY_DAMAGED)
		return MLS_EFORMAT;
	if (has_secret && best->state == MLS_COPY_LOCKED)
		return MLS_EKEY;
	x->sb = best->sb;
	x->has_sb = mls_geometry_possible(&best->sb.geo);
	if (best->state == MLS_COPY_DAMAGED || best->state == MLS_COPY_FORGED)
		mls_inspect_report(x, &finding, "copy 0 and copy 1 are damaged or forged");
	return 0;
}

static int look_at_superblocks(struct mls_inspect *x, const struct mls_secret *secret)
{
	struct mls_finding finding = mls_finding_init(MLS_FOUND_DEVICE_SHORT);
	int counts, err;

	err = mls_superblock_look(x->dev, secret, x->copies, &counts, &x->keys);
	if (err)
		return err;
	if (counts < 0)
		return no_superblock(x, secret != NULL);
	x->sb = x->copies[counts].sb;
	x->has_sb = x->authentic = true;
	report_copies(x, counts);
	report_slots(x);
	if (mls_geometry_end(&x->sb.geo) > x->dev->nr_blocks) {
		finding.hba = x->dev->nr_blocks;
		finding.nr_blocks = mls_geometry_end(&x->sb.geo) - x->dev->nr_blocks;
		mls_inspect_report(x, &finding, "expected %" PRIu64 " blocks, found %" PRIu64,
				   mls_geometry_end(&x->sb.geo), x->dev->nr_blocks);
	}
	return 0;
}

/* ---- Trusted store ---- */

static int read_store(struct mls_inspect *x, struct mls_trusted_store *store)
{
	uint8_t key[MLS_KEY_BYTES];
	int err = 0;

	if (store->ops->set_key) {
		err = mls_key_derive(x->keys, "store", NULL, key);
		if (!err)
			err = store->ops->set_key(store, key);
		mls_wipe(key, sizeof key);
	}
	return err ? err : store->ops->read(store, &x->trust);
}

static int look_at_store(struct mls_inspect *x, struct mls_trusted_store *store)
{
	struct mls_finding finding = mls_finding_init(MLS_FOUND_STORE_NONE);

	x->store_err = MLS_ENOENT;
	if (!store) {
		mls_inspect_report(x, &finding, "an old copy of the whole of BACKING would go unnoticed");
		return 0;
	}
	x->store_err = read_store(x, store);
	if (!x->store_err && memcmp(x->trust.uuid, x->sb.uuid, MLS_UUID_BYTES) != 0)
		x->store_err = MLS_ESTALE;
	x->has_trust = x->store_err == 0;
	switch (x->store_err) {
	case MLS_OK:
		if (!store->ops->nr_damaged || store->ops->nr_damaged(store) == 0)
			return 0;
		finding.code = MLS_FOUND_STORE_COPY_DAMAGED;
		break;
	case MLS_ENOENT:
		finding.code = MLS_FOUND_STORE_EMPTY;
		break;
	case MLS_EAUTH:
		finding.code = MLS_FOUND_STORE_DAMAGED;
		break;
	case MLS_ESTALE:
		finding.code = MLS_FOUND_STORE_FOREIGN;
		break;
	case MLS_EIO:
		finding.code = MLS_FOUND_STORE_UNREADABLE;
		break;
	default:
		return x->store_err;
	}
	mls_inspect_report(x, &finding, "%s", "");
	return 0;
}

/* ---- Places ---- */

static void note_places(struct mls_inspect *x)
{
	const struct mls_geometry *geo = &x->sb.geo;

	for (unsigned area = 0; area < MLS_NR_JOURNAL_AREAS; area++) {
		x->areas[area].hba = mls_geometry_journal_hba(geo) + area * geo->journal_area_blocks;
		x->areas[area].nr_blocks = geo->journal_area_blocks;
		x->areas[area].err = MLS_ENOENT;
	}
	x->wal_hba = mls_geometry_wal_hba(geo);
	x->wal_blocks = geo->wal_blocks;
	x->runs_hba = mls_geometry_runs_hba(geo);
	x->run_blocks = geo->run_blocks;
	x->nr_runs = geo->nr_runs;
	x->nr_slots = mls_segment_slots(geo->run_blocks);
}

struct mls_place mls_inspect_place(const struct mls_inspect *x, uint64_t hba)
{
	for (unsigned i = 0; i < MLS_NR_COPIES; i++)
		if (hba == (i ? MLS_SUPERBLOCK_HBA_1 : MLS_SUPERBLOCK_HBA_0))
			return (struct mls_place){ MLS_PLACE_SUPERBLOCK, i, 0 };
	if (!x->has_sb)
		return (struct mls_place){ MLS_PLACE_UNUSED, 0, 0 };
	for (unsigned area = 0; area < MLS_NR_JOURNAL_AREAS; area++)
		if (hba >= x->areas[area].hba && hba - x->areas[area].hba < x->areas[area].nr_blocks)
			return (struct mls_place){ MLS_PLACE_JOURNAL, area, hba - x->areas[area].hba };
	if (hba >= x->wal_hba && hba - x->wal_hba < x->wal_blocks)
		return (struct mls_place){ MLS_PLACE_WAL, 0, hba - x->wal_hba };
	if (hba >= x->runs_hba && (hba - x->runs_hba) / x->run_blocks < x->nr_runs)
		return (struct mls_place){ MLS_PLACE_RUN, (hba - x->runs_hba) / x->run_blocks,
					   (hba - x->runs_hba) % x->run_blocks };
	return (struct mls_place){ MLS_PLACE_UNUSED, 0, 0 };
}

uint64_t mls_inspect_run_hba(const struct mls_inspect *x, uint64_t run)
{
	return x->runs_hba + run * x->run_blocks;
}

/* ---- Birth and death ---- */

static int look(struct mls_inspect *x, struct mls_trusted_store *store, const struct mls_secret *secret)
{
	int err = look_at_superblocks(x, secret);

	if (err || !x->has_sb)
		return err;
	note_places(x);
	if (!x->authentic)
		return 0;
	err = look_at_store(x, store);
	if (err)
		return err;
	x->runs = calloc(x->nr_runs, sizeof *x->runs);
	if (!x->runs)
		return MLS_ENOMEM;
	return mls_inspect_load_state(x);
}

int mls_inspect_open(struct mls_inspect **x, struct mls_block_dev *dev, struct mls_trusted_store *store,
		     const struct mls_secret *secret, mls_report_fn *report, void *report_arg)
{
	return mls_inspect_open_until(x, dev, store, secret, report, report_arg, NULL, NULL);
}

int mls_inspect_open_until(struct mls_inspect **out, struct mls_block_dev *dev, struct mls_trusted_store *store,
			   const struct mls_secret *secret, mls_report_fn *report, void *report_arg,
			   bool (*stop)(void *arg), void *stop_arg)
{
	struct mls_inspect *x = calloc(1, sizeof *x);
	int err;

	if (!x)
		return MLS_ENOMEM;
	x->dev = dev;
	x->area = -1;
	x->report = report;
	x->report_arg = report_arg;
	x->stop = stop;
	x->stop_arg = stop_arg;
	mls_lsm_state_init(&x->lsm);
	err = look(x, store, secret);
	if (err) {
		mls_inspect_close(x);
		return err;
	}
	*out = x;
	return 0;
}

void mls_inspect_close(struct mls_inspect *x)
{
	if (!x)
		return;
	mls_inspect_free_state(x);
	mls_lsm_state_release(&x->lsm);
	mls_keyring_free(x->keys);
	free(x->runs);
	free(x);
}
