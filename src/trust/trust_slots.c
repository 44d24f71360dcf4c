/* SPDX-License-Identifier: MPL-2.0 */
/*
 * trust_slots.c - two slots, written in turn: which one counts, and what they say of their medium.
 *
 * A slot authenticates under a key derived from the master key, so that a mistaken copy, a damaged
 * register, or one of another disk can be told from one that speaks the truth.
 *
 * Invariant: at any time after the first advance one slot on the medium is whole, since the other is
 * written next; a write that failed is repeated in the same slot.
 */
#include "trust/trust_slots.h"

#include <string.h>

#include "base/err.h"
#include "base/log.h"

#define SLOT_MAC_AT offsetof(struct mls_trust_slot_disk, mac)

void mls_trust_slots_set_key(struct mls_trust_slots *s, const uint8_t key[MLS_KEY_BYTES])
{
	memcpy(s->key, key, sizeof s->key);
	s->has_key = true;
	s->state = MLS_TRUST_UNKNOWN;
}

static bool all_zero(const uint8_t *p, size_t bytes)
{
	return p[0] == 0 && memcmp(p, p + 1, bytes - 1) == 0;
}

/* What this slot says of the whole store if the other one isn't VALID. */
static int slot_judge(const struct mls_trust_slots *s, unsigned slot, enum mls_trust_state *state)
{
	const struct mls_trust_slot_disk *disk = mls_trust_slot_at(s, slot);
	uint8_t mac[32];
	int err;

	if (all_zero((const uint8_t *)disk, s->slot_bytes)) {
		*state = MLS_TRUST_EMPTY;
		return 0;
	}
	if (memcmp(disk->magic, MLS_TRUST_MAGIC, sizeof disk->magic) != 0 ||
	    memcmp(disk->uuid, s->uuid, sizeof disk->uuid) != 0) {
		*state = MLS_TRUST_FOREIGN;
		return 0;
	}
	*state = MLS_TRUST_DAMAGED;	/* as long as nobody can tell */
	if (!s->has_key)
		return 0;
	err = mls_hmac_sha256(s->key, disk, SLOT_MAC_AT, mac);
	if (err)
		return err;
	if (mls_equal_const_time(mac, disk->mac, sizeof mac) && mls_get_le32(disk->version) == MLS_TRUST_VERSION)
		*state = MLS_TRUST_VALID;
	return 0;
}

/* Both slots' verdicts into one, and which slot to write next. */
static void combine(struct mls_trust_slots *s, const enum mls_trust_state slot[MLS_NR_TRUST_SLOTS], const char *name)
{
	uint64_t counter[MLS_NR_TRUST_SLOTS] = { mls_get_le64(mls_trust_slot_at(s, 0)->counter),
						 mls_get_le64(mls_trust_slot_at(s, 1)->counter) };
	unsigned newest = slot[1] == MLS_TRUST_VALID && (slot[0] != MLS_TRUST_VALID || counter[1] > counter[0]);

	s->counter = 0;
	s->next_slot = 0;
	s->nr_damaged = 0;
	if (slot[newest] == MLS_TRUST_VALID) {
		s->state = MLS_TRUST_VALID;
		s->counter = counter[newest];
		s->next_slot = !newest;
		/* The second advance fills the second slot: from then on a free one is a lost one. */
		s->nr_damaged = slot[!newest] != MLS_TRUST_VALID &&
				(slot[!newest] != MLS_TRUST_EMPTY || s->counter > 1);
		if (s->nr_damaged)
			mls_warn("trusted store %s: slot %u is damaged; slot %u counts", name, !newest, newest);
	} else if (slot[0] == MLS_TRUST_DAMAGED || slot[1] == MLS_TRUST_DAMAGED) {
		s->state = MLS_TRUST_DAMAGED;
	} else if (slot[0] == MLS_TRUST_FOREIGN || slot[1] == MLS_TRUST_FOREIGN) {
		s->state = MLS_TRUST_FOREIGN;
	} else {
		s->state = MLS_TRUST_EMPTY;
	}
}

int mls_trust_slots_judge(struct mls_trust_slots *s, const char *name)
{
	enum mls_trust_state slot[MLS_NR_TRUST_SLOTS];

	for (unsigned i = 0; i < MLS_NR_TRUST_SLOTS; i++) {
		int err = slot_judge(s, i, &slot[i]);

		if (err)
			return err;
	}
	combine(s, slot, name);
	return 0;
}

void mls_trust_slots_value(const struct mls_trust_slots *s, struct mls_trust *trust)
{
	const struct mls_trust_slot_disk *disk = mls_trust_slot_at(s, !s->next_slot);

	MLS_INVARIANT(s->state == MLS_TRUST_VALID);
	memcpy(trust->uuid, disk->uuid, sizeof trust->uuid);
	trust->sync_id = mls_get_le64(disk->sync_id);
	memcpy(trust->digest, disk->digest, sizeof trust->digest);
}

int mls_trust_slots_encode(struct mls_trust_slots *s, const struct mls_trust *trust)
{
	struct mls_trust_slot_disk *disk = mls_trust_slot_at(s, s->next_slot);

	MLS_INVARIANT(s->has_key && s->next_slot < MLS_NR_TRUST_SLOTS);
	memset(disk, 0, s->slot_bytes);
	memcpy(disk->magic, MLS_TRUST_MAGIC, sizeof disk->magic);
	mls_put_le32(disk->version, MLS_TRUST_VERSION);
	mls_put_le64(disk->counter, s->counter + 1);
	memcpy(disk->uuid, trust->uuid, sizeof disk->uuid);
	mls_put_le64(disk->sync_id, trust->sync_id);
	memcpy(disk->digest, trust->digest, sizeof disk->digest);
	return mls_hmac_sha256(s->key, disk, SLOT_MAC_AT, disk->mac);
}

void mls_trust_slots_written(struct mls_trust_slots *s)
{
	if (s->state != MLS_TRUST_VALID)
		s->nr_damaged = 0;
	else if (s->nr_damaged)
		s->nr_damaged--;
	s->state = MLS_TRUST_VALID;
	s->counter++;
	s->next_slot = !s->next_slot;
}

int mls_trust_slots_refuse_foreign(const struct mls_trust_slots *s, const char *name, const char *hint)
{
	char ours[MLS_UUID_TEXT_BYTES], found[MLS_UUID_TEXT_BYTES];

	mls_uuid_format(ours, s->uuid);
	for (unsigned i = 0; i < MLS_NR_TRUST_SLOTS; i++) {
		const struct mls_trust_slot_disk *disk = mls_trust_slot_at(s, i);

		if (memcmp(disk->magic, MLS_TRUST_MAGIC, sizeof disk->magic) != 0)
			continue;
		mls_uuid_format(found, disk->uuid);
		mls_error("trusted store %s: expected the one of disk %s, found that of disk %s; %s", name, ours, found,
			  hint);
		return MLS_ESTALE;
	}
	mls_error("trusted store %s: not a trusted store, so it is left alone; expected the one of disk %s", name, ours);
	return MLS_ESTALE;
}
