/* SPDX-License-Identifier: MPL-2.0 */
/*
 * kdf.h - layer 1: keys from keys, keys from secrets, digests.
 *
 * Role     mls_keyring holds the master key in locked memory and hands out derived keys only.
 * Errors   MLS_EIO: the crypto library failed; MLS_ENOMEM.
 * Threads  Any, once the keyring is made.
 */
#ifndef MLS_CRYPTO_KDF_H
#define MLS_CRYPTO_KDF_H

#include "1-crypto/aead.h"

#define MLS_SALT_BYTES 32u

struct mls_keyring;

/* master is copied into locked memory that core dumps leave out. */
MLS_MUST_CHECK int mls_keyring_new(struct mls_keyring **keys, const uint8_t master[MLS_KEY_BYTES],
				   const uint8_t uuid[MLS_UUID_BYTES]);
void mls_keyring_free(struct mls_keyring *keys);	/* wipes; NULL is fine */
const uint8_t *mls_keyring_uuid(const struct mls_keyring *keys);

/*
 * HKDF-SHA256: ikm = master key, salt = UUID || salt, info = label. salt NULL: only the UUID.
 * label is a C string from the table in doc/design.md 3.
 */
MLS_MUST_CHECK int mls_key_derive(const struct mls_keyring *keys, const char *label,
				  const uint8_t salt[MLS_SALT_BYTES], uint8_t key[MLS_KEY_BYTES]);

/* The same, expanded, ready to use. */
MLS_MUST_CHECK int mls_key_derive_aead(const struct mls_keyring *keys, const char *label,
				       const uint8_t salt[MLS_SALT_BYTES], struct mls_aead **aead);

/* Seal a copy of the master key (key slots): the one place where it leaves the keyring. */
MLS_MUST_CHECK int mls_keyring_wrap(const struct mls_keyring *keys, struct mls_aead *wrapping,
				    const uint8_t nonce[MLS_NONCE_BYTES], const void *aad, size_t aad_bytes,
				    uint8_t wrapped[MLS_KEY_BYTES], uint8_t tag[MLS_TAG_BYTES]);

/* Plain primitives, for key slots. scrypt: N = 1 << log_n, r = 8, p = 1; takes (1 << log_n) KiB;
 * MLS_EINVAL: log_n outside 1 ... 22. */
MLS_MUST_CHECK int mls_hkdf_sha256(const void *ikm, size_t ikm_bytes, const void *salt, size_t salt_bytes,
				   const char *info, uint8_t key[MLS_KEY_BYTES]);
MLS_MUST_CHECK int mls_scrypt(const void *secret, size_t secret_bytes, const uint8_t salt[MLS_SALT_BYTES],
			      unsigned log_n, uint8_t key[MLS_KEY_BYTES]);
/* With a salt of any length, as the published vectors have it. */
MLS_MUST_CHECK int mls_scrypt_any_salt(const void *secret, size_t secret_bytes, const void *salt,
				       size_t salt_bytes, unsigned log_n, uint8_t key[MLS_KEY_BYTES]);
MLS_MUST_CHECK int mls_sha256(const void *data, size_t bytes, uint8_t digest[32]);
MLS_MUST_CHECK int mls_hmac_sha256(const uint8_t key[MLS_KEY_BYTES], const void *data, size_t bytes,
				   uint8_t mac[32]);
bool mls_equal_const_time(const void *a, const void *b, size_t bytes);

#endif
