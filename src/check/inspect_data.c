/* SPDX-License-Identifier: MPL-2.0 */
/*
 * inspect_data.c - single blocks of user data, and the segments' summaries.
 *
 * A block is believed if it authenticates under the index's tag, for its LBA, slot and birth; a summary,
 * if its blob does. An old summary authenticates too: its birth says of which life of the run it is.
 */
#include <stdlib.h>
#include <string.h>

#include "5-disk/location.h"
#include "base/buf.h"
#include "base/checked.h"
#include "base/endian.h"
#include "check/inspect_internal.h"

int mls_inspect_read(struct mls_inspect *x, const struct mls_index_rec *rec, void *out)
{
	const struct mls_inspect_run *entry;
	uint64_t run;
	uint32_t slot;
	int err;

	if (!mls_inspect_slot_of(x, rec->hba, &run, &slot) || !x->runs[run].key)
		return MLS_ENOENT;
	entry = &x->runs[run];
	err = mls_block_dev_read(x->dev, mls_loc_hba(rec->hba), 1, out);
	if (err)
		return err == MLS_ENOMEM ? err : MLS_EIO;
	return mls_data_open(entry->key, entry->birth, slot, rec->lba, out, out, rec->tag);
}

int mls_inspect_summary(struct mls_inspect *x, uint64_t run, struct mls_seg_summary *summary)
{
	uint32_t nr_blocks = x->run_blocks - x->nr_slots;
	void *blocks = mls_blocks_alloc(nr_blocks);
	int err;

	if (!blocks)
		return MLS_ENOMEM;
	err = mls_block_dev_read(x->dev, mls_inspect_run_hba(x, run) + x->nr_slots, nr_blocks, blocks);
	if (err)
		err = err == MLS_ENOMEM ? err : MLS_EIO;
	else
		err = mls_seg_summary_open(x->keys, blocks, nr_blocks, run, x->nr_slots, summary);
	mls_blocks_free(blocks);
	return err;
}

bool mls_inspect_summary_is_of(const struct mls_inspect *x, const struct mls_seg_summary *summary)
{
	const struct mls_inspect_run *entry = &x->runs[summary->run];

	return summary->birth == entry->birth && entry->key &&
	       memcmp(entry->key->salt, summary->key_salt, MLS_SALT_BYTES) == 0;
}
