/* SPDX-License-Identifier: MPL-2.0 */
/*
 * trust_slots.h - beside the layers: the register kept twice, for a medium whose write can be cut off.
 *
 * Role     Encodes, authenticates and judges the two slots; whoever has the medium (a file, a TPM's
 *          index) reads and writes them. An advance writes the slot that doesn't count, so that one
 *          whole slot is there at any time.
 * Use      bytes, slot_bytes and uuid set once; key before the first judgement. read both slots ->
 *          judge -> value, or: encode -> write slot next_slot -> written.
 * Errors   As of 1-crypto/kdf.h; MLS_ESTALE from refuse_foreign.
 * Threads  The caller's.
 * Source   doc/format.md 12.
 */
#ifndef MLS_TRUST_TRUST_SLOTS_H
#define MLS_TRUST_TRUST_SLOTS_H

#include "base/endian.h"
#include "1-crypto/kdf.h"
#include "format/mlsdisk_format.h"

/*
 * UNKNOWN   not read yet
 * EMPTY     nothing, or only zeros: an advance creates
 * VALID     a slot counts: `counter` is its; `next_slot` is the other
 * DAMAGED   a store, but no slot authenticates: an advance (the user accepts a rollback) starts anew
 * FOREIGN   another disk's, or no store at all: nobody but its owner may overwrite it
 */
enum mls_trust_state {
	MLS_TRUST_UNKNOWN,
	MLS_TRUST_EMPTY,
	MLS_TRUST_VALID,
	MLS_TRUST_DAMAGED,
	MLS_TRUST_FOREIGN,
};

struct mls_trust_slots {
	uint8_t *bytes;			/* the slots, slot_bytes from one to the next, zero behind each */
	size_t slot_bytes;		/* at least that of struct mls_trust_slot_disk */
	uint8_t uuid[MLS_UUID_BYTES];
	bool has_key;
	uint8_t key[MLS_KEY_BYTES];
	enum mls_trust_state state;
	unsigned next_slot;
	uint64_t counter;
	unsigned nr_damaged;		/* VALID: slots that should hold a value and don't */
};

static inline struct mls_trust_slot_disk *mls_trust_slot_at(const struct mls_trust_slots *s, unsigned slot)
{
	return (struct mls_trust_slot_disk *)(s->bytes + slot * s->slot_bytes);
}

void mls_trust_slots_set_key(struct mls_trust_slots *s, const uint8_t key[MLS_KEY_BYTES]);

/* What was read into bytes -> the state. name: whose store, for messages. Without a key nothing is VALID. */
MLS_MUST_CHECK int mls_trust_slots_judge(struct mls_trust_slots *s, const char *name);

/* The value of a VALID register. */
void mls_trust_slots_value(const struct mls_trust_slots *s, struct mls_trust *trust);

/* trust into slot next_slot, in memory. */
MLS_MUST_CHECK int mls_trust_slots_encode(struct mls_trust_slots *s, const struct mls_trust *trust);

/* That slot is on the medium, durable: it is the one that counts now. */
void mls_trust_slots_written(struct mls_trust_slots *s);

/* MLS_ESTALE, with a message that says whose the slots are. hint: what to do. */
int mls_trust_slots_refuse_foreign(const struct mls_trust_slots *s, const char *name, const char *hint);

#endif
