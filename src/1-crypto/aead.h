/* SPDX-License-Identifier: MPL-2.0 */
/*
 * aead.h - layer 1: AES-256-GCM, seal and open.
 *
 * Role     The one door to bulk encryption; with kdf.c the only code that knows a crypto library.
 *          A struct mls_aead is an expanded key; making one is expensive, using it is not.
 * Engine   OpenSSL EVP always; ipsec-mb if it was built in and the CPU has AES-NI/AVX or better.
 *          The engine is chosen once, at first use, after a self-test has shown that both give
 *          the same bytes. MLS_AEAD_ENGINE=openssl in the environment keeps ipsec-mb out.
 * Nonces   The caller's duty: never twice under one key (doc/design.md 3). Tests watch it through
 *          mls_aead_set_audit.
 * Threads  Any number may use one struct mls_aead at the same time.
 */
#ifndef MLS_CRYPTO_AEAD_H
#define MLS_CRYPTO_AEAD_H

#include "mlsdisk/mlsdisk.h"

#define MLS_KEY_BYTES 32u
#define MLS_NONCE_BYTES 12u

struct mls_aead;

MLS_MUST_CHECK int mls_aead_new(struct mls_aead **aead, const uint8_t key[MLS_KEY_BYTES]);
void mls_aead_free(struct mls_aead *aead);	/* wipes; NULL is fine */

/* in and out: bytes long, equal or disjoint. tag gets MLS_TAG_BYTES. MLS_EIO: the library failed;
 * MLS_ENOMEM. At most 1 GiB. */
MLS_MUST_CHECK int mls_aead_seal(struct mls_aead *aead, const uint8_t nonce[MLS_NONCE_BYTES], const void *aad,
				 size_t aad_bytes, const void *in, size_t bytes, void *out,
				 uint8_t tag[MLS_TAG_BYTES]);

/* MLS_EAUTH: wrong key, nonce, aad, tag or bytes. out is zeroed on any error. */
MLS_MUST_CHECK int mls_aead_open(struct mls_aead *aead, const uint8_t nonce[MLS_NONCE_BYTES], const void *aad,
				 size_t aad_bytes, const void *in, size_t bytes, void *out,
				 const uint8_t tag[MLS_TAG_BYTES]);

/* nonce = le32 a, le64 b. */
void mls_nonce_make(uint8_t nonce[MLS_NONCE_BYTES], uint32_t a, uint64_t b);

/* "openssl" or "ipsec-mb". */
const char *mls_aead_engine(void);

/* Tests: called before each seal with a fingerprint of the key (SHA-256, first 16 bytes). Set it
 * before threads start; NULL: off. */
typedef void mls_aead_audit_fn(void *arg, const uint8_t key_id[16], const uint8_t nonce[MLS_NONCE_BYTES]);
void mls_aead_set_audit(mls_aead_audit_fn *fn, void *arg);

#endif
