/* SPDX-License-Identifier: MPL-2.0 */
/*
 * fuzz_slot.c - a key slot, as the host shows it.
 *
 * Input    a byte: bit 0: the secret is the right one; then edits of a good slot.
 */
#include <string.h>

#include "5-disk/key_slot.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct mls_secret right = { "a key file of thirty-two bytes .", 32, false };
	static const struct mls_secret wrong = { "a key file of thirty-two bytes !", 32, false };
	static struct mls_key_slot_disk good;
	struct mls_key_slot_disk slot;
	struct fuzz_input in = { data, size };
	struct mls_keyring *keys;
	unsigned flags = (unsigned)fuzz_take(&in, 1);
	bool changed, opens;

	if (!mls_key_slot_used(&good))
		fuzz_must(mls_key_slot_fill(&good, fuzz_keys(), &right, 0, "fuzz"));
	slot = good;
	fuzz_edit(&in, (uint8_t *)&slot, sizeof slot);
	/* Costs that are possible but large would only make the fuzzer slow: leave those to the unit test. */
	if (slot.kdf == MLS_SLOT_KDF_SCRYPT)
		slot.scrypt_log_n |= 0x80;
	/* Not under the tag: the label, which anybody may change, and what is behind it. */
	changed = memcmp(&slot, &good, offsetof(struct mls_key_slot_disk, label)) != 0;
	opens = mls_key_slot_open(&slot, mls_keyring_uuid(fuzz_keys()), flags & 1 ? &right : &wrong, &keys) == 0;
	if (opens)
		mls_keyring_free(keys);
	fuzz_must(opens != (!changed && (flags & 1)));
	fuzz_must(opens && mls_key_slot_malformed(&slot));
	return 0;
}

size_t fuzz_seed(unsigned i, uint8_t *out, size_t room)
{
	static const uint8_t seeds[][10] = { { 1 }, { 0 }, { 1, 0, 0, 2 }, { 1, 1, 0, 2, 2, 0, 17 }, { 1, 1, 0, 3 },
					     { 1, 8, 0, 1, 40, 0, 9, 72, 0, 1 }, { 1, 88, 0, 'x' } };

	(void)room;
	if (i >= sizeof seeds / sizeof *seeds)
		return 0;
	memcpy(out, seeds[i], sizeof seeds[i]);
	return i < 2 ? 1 : sizeof seeds[i];
}
