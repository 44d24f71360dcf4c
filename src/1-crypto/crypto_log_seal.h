/* SPDX-License-Identifier: MPL-2.0 */
/*
 * crypto_log_seal.h - layer 1, private: one block of a crypto log, sealed or opened.
 *
 * Key      Born in builder_new: HKDF(master, "log", random salt), so never in two logs. It seals
 *          this log's blocks only; the nonce is the block's position, and the builder only counts
 *          up and refuses all work after an error. Readers only open.
 * AAD      le32 kind (0: data; 1 + level: node) || le64 index among its kind.
 */
#ifndef MLS_CRYPTO_LOG_SEAL_H
#define MLS_CRYPTO_LOG_SEAL_H

#include "1-crypto/aead.h"
#include "base/endian.h"

#define MLS_LOG_KEY_LABEL "log"
#define MLS_LOG_KIND_DATA 0u
#define MLS_LOG_KIND_NODE(level) (1u + (level))

struct mls_log_place {
	uint32_t kind;
	uint64_t index;
	uint64_t pos;		/* in the block log */
};

#define MLS_LOG_AAD_BYTES 12u

static inline void mls_log_nonce_and_aad(const struct mls_log_place *place, uint8_t nonce[MLS_NONCE_BYTES],
					 uint8_t aad[MLS_LOG_AAD_BYTES])
{
	mls_nonce_make(nonce, 0, place->pos);
	mls_put_le32(aad, place->kind);
	mls_put_le64(aad + 4, place->index);
}

static inline int mls_log_seal(struct mls_aead *aead, const struct mls_log_place *place, const void *plain,
			       void *sealed, uint8_t tag[MLS_TAG_BYTES])
{
	uint8_t nonce[MLS_NONCE_BYTES], aad[MLS_LOG_AAD_BYTES];

	mls_log_nonce_and_aad(place, nonce, aad);
	return mls_aead_seal(aead, nonce, aad, sizeof aad, plain, MLS_BLOCK_BYTES, sealed, tag);
}

/* In place. */
static inline int mls_log_unseal(struct mls_aead *aead, const struct mls_log_place *place, void *block,
				 const uint8_t tag[MLS_TAG_BYTES])
{
	uint8_t nonce[MLS_NONCE_BYTES], aad[MLS_LOG_AAD_BYTES];

	mls_log_nonce_and_aad(place, nonce, aad);
	return mls_aead_open(aead, nonce, aad, sizeof aad, block, MLS_BLOCK_BYTES, block, tag);
}

#endif
