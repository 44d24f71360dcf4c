/* SPDX-License-Identifier: MPL-2.0 */
/*
 * seg_summary.c - a segment's summary, to bytes and back; see seg_summary.h.
 */
#include "5-disk/seg_summary.h"

#include <stdlib.h>
#include <string.h>

#include "1-crypto/crypto_blob.h"
#include "base/err.h"

#define LABEL "summary"

int mls_seg_summary_seal(const struct mls_keyring *keys, const struct mls_seg_summary *summary, uint8_t *scratch,
			 void *blocks, uint32_t nr_blocks)
{
	struct mls_seg_summary_disk *head = (void *)scratch;
	struct mls_seg_slot_disk *slot = (void *)(scratch + sizeof *head);

	memset(head, 0, sizeof *head);
	mls_put_le64(head->run, summary->run);
	mls_put_le64(head->birth, summary->birth);
	mls_put_le64(head->session, summary->session);
	memcpy(head->key_salt, summary->key_salt, sizeof head->key_salt);
	mls_put_le64(head->epoch, summary->epoch);
	mls_put_le32(head->nr_slots, summary->nr_slots);
	for (uint32_t i = 0; i < summary->nr_slots; i++) {
		const struct mls_seg_slot *from = &summary->slots[i];

		mls_put_le64(slot[i].lba, from->lba);
		mls_put_le48(slot[i].epoch, from->order.epoch);
		mls_put_le48(slot[i].nr, from->order.nr);
		memcpy(slot[i].tag, from->tag, sizeof slot[i].tag);
	}
	return mls_blob_seal(keys, LABEL, summary->birth, scratch, mls_seg_summary_bytes(summary->nr_slots), blocks,
			     nr_blocks);
}

/* Authentic bytes; bounds are checked all the same. */
static int decode(const uint8_t *plain, size_t bytes, uint32_t max_slots, struct mls_seg_summary *summary)
{
	const struct mls_seg_summary_disk *head = (const void *)plain;
	const struct mls_seg_slot_disk *slot = (const void *)(plain + sizeof *head);
	uint32_t nr_slots;

	if (bytes < sizeof *head)
		return MLS_ENOENT;
	nr_slots = mls_get_le32(head->nr_slots);
	if (nr_slots > max_slots || bytes != mls_seg_summary_bytes(nr_slots))
		return MLS_ENOENT;
	summary->run = mls_get_le64(head->run);
	summary->birth = mls_get_le64(head->birth);
	summary->session = mls_get_le64(head->session);
	summary->epoch = mls_get_le64(head->epoch);
	memcpy(summary->key_salt, head->key_salt, sizeof summary->key_salt);
	summary->nr_slots = nr_slots;
	for (uint32_t i = 0; i < nr_slots; i++) {
		struct mls_seg_slot *to = &summary->slots[i];

		to->lba = mls_get_le64(slot[i].lba);
		to->order.epoch = mls_get_le48(slot[i].epoch);
		to->order.nr = mls_get_le48(slot[i].nr);
		memcpy(to->tag, slot[i].tag, sizeof to->tag);
	}
	return 0;
}

int mls_seg_summary_open(const struct mls_keyring *keys, const void *blocks, uint32_t nr_blocks, uint64_t run,
			 uint32_t max_slots, struct mls_seg_summary *summary)
{
	uint8_t *plain = malloc(mls_blob_room(nr_blocks));
	uint64_t version;
	size_t bytes;
	int err;

	if (!plain)
		return MLS_ENOMEM;
	err = mls_blob_open(keys, LABEL, blocks, nr_blocks, plain, &bytes, &version);
	if (!err)
		err = decode(plain, bytes, max_slots, summary);
	if (!err && (version != summary->birth || summary->run != run))
		err = MLS_ENOENT;
	free(plain);
	return err == MLS_EAUTH || err == MLS_EFORMAT ? MLS_ENOENT : err;
}
