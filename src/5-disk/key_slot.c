/* SPDX-License-Identifier: MPL-2.0 */
/* key_slot.c - the master key, wrapped under a user's secret; see key_slot.h. */
#include "5-disk/key_slot.h"

#include <string.h>
#include <unistd.h>

#include "1-crypto/secret.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "base/rand.h"

#define WRAPPING_LABEL "MlsDisk key slot"
#define HEAD_BYTES offsetof(struct mls_key_slot_disk, wrapped)
_Static_assert(HEAD_BYTES == 40, "the head of a slot is its associated data");

/* No nonce can repeat under a key that seals once. */
static const uint8_t nonce_0[MLS_NONCE_BYTES];

struct slot_aad {
	uint8_t uuid[MLS_UUID_BYTES];
	uint8_t head[HEAD_BYTES];
};

static void aad_make(struct slot_aad *aad, const struct mls_key_slot_disk *slot, const uint8_t uuid[MLS_UUID_BYTES])
{
	memcpy(aad->uuid, uuid, sizeof aad->uuid);
	memcpy(aad->head, slot, sizeof aad->head);
}

static bool log_n_possible(unsigned log_n)
{
	return log_n >= MLS_SCRYPT_LOG_N_MIN && log_n <= MLS_SCRYPT_LOG_N_MAX;
}

static bool slot_possible(const struct mls_key_slot_disk *slot)
{
	if (!mls_key_slot_used(slot))
		return false;
	return slot->kdf == MLS_SLOT_KDF_HKDF ||
	       (slot->kdf == MLS_SLOT_KDF_SCRYPT && log_n_possible(slot->scrypt_log_n));
}

bool mls_key_slot_malformed(const struct mls_key_slot_disk *slot)
{
	return slot->state != 0 && !slot_possible(slot);
}

/*
 * What the host may ask for at most, 4 GiB, is more than a small machine has: the kernel would kill us, or others. So
 * a slot that wants more than half of the memory isn't tried, and another one may still open the disk. What we take
 * by default is always allowed.
 */
static bool memory_suffices(const struct mls_key_slot_disk *slot)
{
	uint64_t wanted_kib;
	long pages, page_bytes;

	/* What isn't scrypt's may have anything as its cost. */
	if (slot->kdf != MLS_SLOT_KDF_SCRYPT || slot->scrypt_log_n <= MLS_SCRYPT_LOG_N_DEFAULT)
		return true;
	wanted_kib = (uint64_t)1 << slot->scrypt_log_n;
	pages = sysconf(_SC_PHYS_PAGES);
	page_bytes = sysconf(_SC_PAGESIZE);
	if (pages <= 0 || page_bytes <= 0 || wanted_kib <= (uint64_t)pages * (uint64_t)page_bytes / 1024 / 2)
		return true;
	mls_warn("key slot: its passphrase takes %u MiB to stretch, more than half of the memory here: it's from a larger "
		 "machine, or forged; passed over", (unsigned)(wanted_kib / 1024));
	return false;
}

/* The slot's KDF and salt are set. */
static int wrapping_key(const struct mls_key_slot_disk *slot, const struct mls_secret *secret,
			struct mls_aead **aead)
{
	uint8_t key[MLS_KEY_BYTES];
	int err;

	if (slot->kdf == MLS_SLOT_KDF_HKDF)
		err = mls_hkdf_sha256(secret->data, secret->bytes, slot->salt, sizeof slot->salt, WRAPPING_LABEL,
				      key);
	else
		err = mls_scrypt(secret->data, secret->bytes, slot->salt, slot->scrypt_log_n, key);
	if (!err)
		err = mls_aead_new(aead, key);
	mls_wipe(key, sizeof key);
	return err;
}

int mls_key_slot_fill(struct mls_key_slot_disk *slot, const struct mls_keyring *keys,
		      const struct mls_secret *secret, unsigned log_n, const char *label)
{
	bool stretch = secret->passphrase || secret->bytes < MLS_KEY_FILE_STRONG_BYTES;
	struct mls_key_slot_disk new_slot = { .state = 1 };
	struct mls_aead *aead = NULL;
	struct slot_aad aad;
	int err;

	if (!log_n)
		log_n = MLS_SCRYPT_LOG_N_DEFAULT;
	if (secret->bytes == 0 || !log_n_possible(log_n))
		return MLS_EINVAL;

	new_slot.kdf = stretch ? MLS_SLOT_KDF_SCRYPT : MLS_SLOT_KDF_HKDF;
	new_slot.scrypt_log_n = stretch ? (uint8_t)log_n : 0;
	if (!memory_suffices(&new_slot))
		return MLS_ENOMEM;
	if (label)
		memcpy(new_slot.label, label, strnlen(label, sizeof new_slot.label - 1));
	err = mls_rand_bytes(new_slot.salt, sizeof new_slot.salt);
	if (!err)
		err = wrapping_key(&new_slot, secret, &aead);
	if (err)
		return err;
	aad_make(&aad, &new_slot, mls_keyring_uuid(keys));
	err = mls_keyring_wrap(keys, aead, nonce_0, &aad, sizeof aad, new_slot.wrapped, new_slot.tag);
	mls_aead_free(aead);
	if (!err)
		*slot = new_slot;
	return err;
}

void mls_key_slot_clear(struct mls_key_slot_disk *slot)
{
	memset(slot, 0, sizeof *slot);
}

int mls_key_slot_open(const struct mls_key_slot_disk *slot, const uint8_t uuid[MLS_UUID_BYTES],
		      const struct mls_secret *secret, struct mls_keyring **keys)
{
	struct mls_aead *aead = NULL;
	struct slot_aad aad;
	uint8_t *master;
	int err;

	if (!slot_possible(slot) || secret->bytes == 0 || !memory_suffices(slot))
		return MLS_EKEY;
	master = mls_secret_alloc(MLS_KEY_BYTES);
	if (!master)
		return MLS_ENOMEM;
	err = wrapping_key(slot, secret, &aead);
	if (err)
		goto out;
	aad_make(&aad, slot, uuid);
	err = mls_aead_open(aead, nonce_0, &aad, sizeof aad, slot->wrapped, sizeof slot->wrapped, master, slot->tag);
	if (err == MLS_EAUTH)
		err = MLS_EKEY;
	if (!err)
		err = mls_keyring_new(keys, master, uuid);
out:
	mls_aead_free(aead);
	mls_secret_free(master, MLS_KEY_BYTES);
	return err;
}
