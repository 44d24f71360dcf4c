/* SPDX-License-Identifier: MPL-2.0 */
/*
 * data_key.c - the keys of user data; see data_key.h.
 *
 * A block is bound to its LBA by the AAD and to its place by the nonce: a block moved to another
 * slot, another segment or another LBA doesn't open.
 */
#include "5-disk/data_key.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/endian.h"
#include "base/err.h"
#include "base/rand.h"

int mls_data_key_new(struct mls_data_key **out, const struct mls_keyring *keys, uint32_t id,
		     const uint8_t *salt)
{
	struct mls_data_key *key = calloc(1, sizeof *key);
	int err = 0;

	if (!key)
		return MLS_ENOMEM;
	key->id = id;
	key->fresh = salt == NULL;
	atomic_init(&key->refs, 1);
	if (salt)
		memcpy(key->salt, salt, sizeof key->salt);
	else
		err = mls_rand_bytes(key->salt, sizeof key->salt);
	if (!err)
		err = mls_key_derive_aead(keys, "data", key->salt, &key->aead);
	if (err) {
		free(key);
		return err;
	}
	*out = key;
	return 0;
}

void mls_data_key_get(struct mls_data_key *key)
{
	atomic_fetch_add_explicit(&key->refs, 1, memory_order_relaxed);
}

void mls_data_key_put(struct mls_data_key *key)
{
	if (!key || atomic_fetch_sub_explicit(&key->refs, 1, memory_order_acq_rel) != 1)
		return;
	mls_aead_free(key->aead);
	free(key);
}

int mls_data_seal(struct mls_data_key *key, uint64_t birth, uint32_t slot, uint64_t lba, const void *plain,
		  void *sealed, uint8_t tag[MLS_TAG_BYTES])
{
	uint8_t nonce[MLS_NONCE_BYTES], aad[8];

	MLS_INVARIANT(key->fresh);
	mls_nonce_make(nonce, slot, birth);
	mls_put_le64(aad, lba);
	return mls_aead_seal(key->aead, nonce, aad, sizeof aad, plain, MLS_BLOCK_BYTES, sealed, tag);
}

int mls_data_open(struct mls_data_key *key, uint64_t birth, uint32_t slot, uint64_t lba, const void *sealed,
		  void *plain, const uint8_t tag[MLS_TAG_BYTES])
{
	uint8_t nonce[MLS_NONCE_BYTES], aad[8];

	mls_nonce_make(nonce, slot, birth);
	mls_put_le64(aad, lba);
	return mls_aead_open(key->aead, nonce, aad, sizeof aad, sealed, MLS_BLOCK_BYTES, plain, tag);
}
