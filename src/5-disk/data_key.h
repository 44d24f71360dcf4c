/* SPDX-License-Identifier: MPL-2.0 */
/*
 * data_key.h - layer 5: the keys of user data.
 *
 * Role     A data key seals the blocks of up to MLS_KEY_SEGMENTS segments. It is derived from the
 *          master key and a salt drawn when it is made; the salts of keys in use are part of the
 *          segment table's state.
 * Nonces   (slot, birth): birth numbers the segments opened in this process, so it is fresh under
 *          a key that this process drew; each slot is sealed once. A key that was loaded only opens.
 * Threads  A key may be used by any number; get/put are atomic. The set is guarded by its owner.
 */
#ifndef MLS_DISK_DATA_KEY_H
#define MLS_DISK_DATA_KEY_H

#include <stdatomic.h>

#include "1-crypto/kdf.h"

#define MLS_KEY_SEGMENTS 1024u

struct mls_data_key {
	struct mls_data_key *next;	/* in the set */
	struct mls_aead *aead;
	atomic_uint refs;		/* the set's owner counts runs; readers pin */
	uint32_t id;
	bool journaled;			/* the salt is in the journal */
	bool fresh;			/* drawn by this process: may seal */
	uint8_t salt[MLS_SALT_BYTES];
};

/* salt NULL: draw one. The key starts with one reference. */
MLS_MUST_CHECK int mls_data_key_new(struct mls_data_key **key, const struct mls_keyring *keys, uint32_t id,
				    const uint8_t *salt);
void mls_data_key_get(struct mls_data_key *key);
void mls_data_key_put(struct mls_data_key *key);	/* the last one wipes and frees */

MLS_MUST_CHECK int mls_data_seal(struct mls_data_key *key, uint64_t birth, uint32_t slot, uint64_t lba,
				 const void *plain, void *sealed, uint8_t tag[MLS_TAG_BYTES]);
MLS_MUST_CHECK int mls_data_open(struct mls_data_key *key, uint64_t birth, uint32_t slot, uint64_t lba,
				 const void *sealed, void *plain, const uint8_t tag[MLS_TAG_BYTES]);

#endif
