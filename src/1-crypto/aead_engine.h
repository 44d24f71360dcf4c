/* SPDX-License-Identifier: MPL-2.0 */
/*
 * aead_engine.h - layer 1, private: the two libraries behind aead.h.
 *
 * Role     aead.c picks one engine for the process; only tests and the micro-benchmark name one.
 * Shapes   state is one expanded key; its engine keeps it in memory of secret.h.
 * Threads  Any number of threads use one state at the same time.
 */
#ifndef MLS_CRYPTO_AEAD_ENGINE_H
#define MLS_CRYPTO_AEAD_ENGINE_H

#include "1-crypto/aead.h"

struct mls_aead_engine {
	const char *name;
	int (*key_new)(void **state, const uint8_t key[MLS_KEY_BYTES]);
	void (*key_free)(void *state);
	int (*seal)(void *state, const uint8_t nonce[MLS_NONCE_BYTES], const void *aad, size_t aad_bytes,
		    const void *in, size_t bytes, void *out, uint8_t tag[MLS_TAG_BYTES]);
	int (*open)(void *state, const uint8_t nonce[MLS_NONCE_BYTES], const void *aad, size_t aad_bytes,
		    const void *in, size_t bytes, void *out, const uint8_t tag[MLS_TAG_BYTES]);
};

/* NULL: not built in, or this CPU or the library can't. Cheap after the first call. */
const struct mls_aead_engine *mls_aead_engine_openssl(void);
const struct mls_aead_engine *mls_aead_engine_ipsec_mb(void);

/* mls_aead_new with a given engine. */
MLS_MUST_CHECK int mls_aead_new_with(struct mls_aead **aead, const struct mls_aead_engine *engine,
				     const uint8_t key[MLS_KEY_BYTES]);

/* Do both give the same bytes, and refuse the same tag? 0, or what went wrong. */
MLS_MUST_CHECK int mls_aead_engines_agree(const struct mls_aead_engine *a, const struct mls_aead_engine *b);

#endif
