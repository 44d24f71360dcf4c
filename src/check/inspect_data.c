/* SPDX-License-Identifier: MPL-2.0 */
/*
 * inspect_data.c - single blocks of user data, and the segments' summaries.
 *
 * A block is believed if it authenticates under the index's tag, for its LBA, slot and birth; a summary,
 * if its blob does. An old summary authenticates too: its birth says of which life of the run it is.
 */
#include <stdlib.h>
#include <string.h>

#include "1-crypto/crypto_blob.h"
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

static int summary_decode(const struct mls_inspect *x, const uint8_t *plain, size_t bytes,
			  struct mls_inspect_summary *summary)
{
	const struct mls_seg_summary_disk *head = (const void *)plain;
	const struct mls_seg_slot_disk *slot = (const void *)(plain + sizeof *head);
	uint32_t nr_slots;

	if (bytes < sizeof *head)
		return MLS_ENOENT;
	nr_slots = mls_get_le32(head->nr_slots);
	if (nr_slots > x->nr_slots || bytes != sizeof *head + nr_slots * sizeof *slot)
		return MLS_ENOENT;
	summary->run = mls_get_le64(head->run);
	summary->birth = mls_get_le64(head->birth);
	summary->epoch = mls_get_le64(head->epoch);
	memcpy(summary->key_salt, head->key_salt, sizeof summary->key_salt);
	summary->nr_slots = nr_slots;
	for (uint32_t i = 0; i < nr_slots; i++) {
		summary->slots[i].lba = mls_get_le64(slot[i].lba);
		memcpy(summary->slots[i].tag, slot[i].tag, MLS_TAG_BYTES);
	}
	return 0;
}

int mls_inspect_summary(struct mls_inspect *x, uint64_t run, struct mls_inspect_summary *summary)
{
	uint32_t nr_blocks = x->run_blocks - x->nr_slots;
	void *blocks = mls_blocks_alloc(nr_blocks);
	uint8_t *plain = malloc(mls_blob_room(nr_blocks));
	uint64_t version;
	size_t bytes;
	int err = MLS_ENOMEM;

	if (!blocks || !plain)
		goto out;
	err = mls_block_dev_read(x->dev, mls_inspect_run_hba(x, run) + x->nr_slots, nr_blocks, blocks);
	if (err) {
		err = err == MLS_ENOMEM ? err : MLS_EIO;
		goto out;
	}
	err = mls_blob_open(x->keys, "summary", blocks, nr_blocks, plain, &bytes, &version);
	if (!err)
		err = summary_decode(x, plain, bytes, summary);
	if (err == MLS_EAUTH || err == MLS_EFORMAT)
		err = MLS_ENOENT;
	if (!err && (version != summary->birth || summary->run != run))
		err = MLS_ENOENT;
out:
	free(plain);
	mls_blocks_free(blocks);
	return err;
}

bool mls_inspect_summary_is_of(const struct mls_inspect *x, const struct mls_inspect_summary *summary)
{
	const struct mls_inspect_run *entry = &x->runs[summary->run];

	return summary->birth == entry->birth && entry->key &&
	       memcmp(entry->key->salt, summary->key_salt, MLS_SALT_BYTES) == 0;
}
