/* SPDX-License-Identifier: MPL-2.0 */
/*
 * fuzz_store.c - the two slots of a trusted store, whatever medium they are on.
 *
 * Input    a byte: bits 0, 1: MAC of slot 0, 1 again; bit 2: no key is known yet; then edits.
 */
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "trust/store.h"
#include "trust/trust_slots.h"

static void good_slots(struct mls_trust_slots *s)
{
	memset(s->bytes, 0, MLS_NR_TRUST_SLOTS * s->slot_bytes);
	for (unsigned i = 0; i < MLS_NR_TRUST_SLOTS; i++) {
		struct mls_trust_slot_disk *slot = mls_trust_slot_at(s, i);

		memcpy(slot->magic, MLS_TRUST_MAGIC, sizeof slot->magic);
		mls_put_le32(slot->version, MLS_TRUST_VERSION);
		mls_put_le64(slot->counter, 4 + i);
		memcpy(slot->uuid, s->uuid, sizeof slot->uuid);
		mls_put_le64(slot->sync_id, 5 + i);
	}
}

/* What is judged VALID has a value; the next advance doesn't touch the slot that counts. */
static void use(struct mls_trust_slots *s)
{
	struct mls_trust trust = { .sync_id = 7 }, again;

	memcpy(trust.uuid, s->uuid, sizeof trust.uuid);
	if (mls_trust_slots_judge(s, "fuzz") != 0)
		return;
	if (s->state == MLS_TRUST_FOREIGN)
		(void)mls_trust_slots_refuse_foreign(s, "fuzz", "give each its own");
	if (s->state == MLS_TRUST_VALID)
		mls_trust_slots_value(s, &trust);
	if (s->state == MLS_TRUST_FOREIGN || !s->has_key)
		return;
	trust.sync_id++;
	fuzz_must(mls_trust_slots_encode(s, &trust));
	mls_trust_slots_written(s);
	mls_trust_slots_value(s, &again);
	fuzz_must(again.sync_id != trust.sync_id);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t bytes[MLS_NR_TRUST_SLOTS * MLS_BLOCK_BYTES], key[MLS_KEY_BYTES];
	static bool has_key;
	struct mls_trust_slots s = { .bytes = bytes, .slot_bytes = MLS_BLOCK_BYTES };
	struct fuzz_input in = { data, size };
	unsigned flags = (unsigned)fuzz_take(&in, 1);

	if (!has_key)
		fuzz_must(mls_key_derive(fuzz_keys(), MLS_TRUST_KEY_LABEL, NULL, key));
	has_key = true;
	memcpy(s.uuid, mls_keyring_uuid(fuzz_keys()), sizeof s.uuid);
	if (!(flags & 4))
		mls_trust_slots_set_key(&s, key);
	good_slots(&s);
	fuzz_edit(&in, bytes, sizeof bytes);
	for (unsigned i = 0; i < MLS_NR_TRUST_SLOTS; i++) {
		struct mls_trust_slot_disk *slot = mls_trust_slot_at(&s, i);

		if (flags & 1 << i)
			fuzz_must(mls_hmac_sha256(key, slot, offsetof(struct mls_trust_slot_disk, mac), slot->mac));
	}
	use(&s);
	return 0;
}

size_t fuzz_seed(unsigned i, uint8_t *out, size_t room)
{
	static const uint8_t seeds[][10] = { { 3 }, { 1 }, { 2 }, { 3, 16, 0, 255, 23, 0, 255 }, { 3, 8, 0, 2 },
					     { 3, 24, 0, 9, 24, 16, 9 }, { 7, 0, 0, 1 } };

	(void)room;
	if (i >= sizeof seeds / sizeof *seeds)
		return 0;
	memcpy(out, seeds[i], sizeof seeds[i]);
	return i < 3 ? 1 : sizeof seeds[i];
}
