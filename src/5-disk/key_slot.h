/* SPDX-License-Identifier: MPL-2.0 */
/*
 * key_slot.h - layer 5: the master key, wrapped under a user's secret.
 *
 * Role     secret -> KDF -> wrapping key -> seals the master key. A passphrase, or a key file of less
 *          than 32 bytes, goes through scrypt; a longer key file is a key already, so HKDF will do.
 *          Which KDF a slot has stands in the slot; any secret is tried on any slot.
 * Cost     scrypt: 128 * 8 * 2^log_n bytes of memory (default 17: 128 MiB, some tenths of a second).
 *          The bounds hold for what is read, too, before anything is allocated; and a slot that wants more than
 *          the default and more than half of this machine's memory isn't tried.
 * Keys     wrapping key: born from a salt that is fresh at each fill; seals one master key once, nonce 0.
 */
#ifndef MLS_DISK_KEY_SLOT_H
#define MLS_DISK_KEY_SLOT_H

#include "1-crypto/kdf.h"
#include "format/mlsdisk_format.h"

enum mls_slot_kdf { MLS_SLOT_KDF_HKDF = 1, MLS_SLOT_KDF_SCRYPT = 2 };

#define MLS_SCRYPT_LOG_N_DEFAULT 17u
#define MLS_SCRYPT_LOG_N_MIN 14u
#define MLS_SCRYPT_LOG_N_MAX 22u
#define MLS_KEY_FILE_STRONG_BYTES 32u	/* a key file this long isn't stretched */

static inline bool mls_key_slot_used(const struct mls_key_slot_disk *slot)
{
	return slot->state == 1;
}

/* Neither free nor one that a secret could open. */
bool mls_key_slot_malformed(const struct mls_key_slot_disk *slot);

/*
 * Fill a slot: new salt, new wrapping. The superblock must then be written.
 *
 * log_n    0: default.
 * label    for people; up to 39 bytes are kept. NULL: none.
 * Returns  0; MLS_EINVAL: empty secret, or log_n out of bounds; MLS_EIO; MLS_ENOMEM, also if this machine
 *          couldn't open it. *slot is untouched on error.
 */
MLS_MUST_CHECK int mls_key_slot_fill(struct mls_key_slot_disk *slot, const struct mls_keyring *keys,
				     const struct mls_secret *secret, unsigned log_n, const char *label);

void mls_key_slot_clear(struct mls_key_slot_disk *slot);

/*
 * Open a slot as the host showed it.
 *
 * Returns  0: keys is made (mls_keyring_free); MLS_EKEY: not this secret, or not a used slot, or one
 *          that can't be or wants too much memory (which is logged); MLS_EIO; MLS_ENOMEM.
 */
MLS_MUST_CHECK int mls_key_slot_open(const struct mls_key_slot_disk *slot, const uint8_t uuid[MLS_UUID_BYTES],
				     const struct mls_secret *secret, struct mls_keyring **keys);

#endif
