/* SPDX-License-Identifier: MPL-2.0 */
/*
 * crypto_blob.h - layer 1: one value of a few blocks, sealed as a whole.
 *
 * Role     For values that are written once at a known place: segment summaries.
 * Nonces   Each seal draws a salt; the key derived from it seals this one blob, nonce 0.
 * Trust    An old blob authenticates too: the caller compares version with the one he expects.
 * Shapes   header (struct mls_blob_hdr_disk) + ciphertext, in nr_blocks whole blocks (at most
 *          1 GiB), the rest 0. The rest is not authenticated, nor ever looked at.
 */
#ifndef MLS_CRYPTO_BLOB_H
#define MLS_CRYPTO_BLOB_H

#include "1-crypto/kdf.h"

/* Payload bytes that fit. */
size_t mls_blob_room(uint32_t nr_blocks);

/* MLS_EINVAL: payload larger than the room. blocks gets nr_blocks blocks, ready to be written. */
MLS_MUST_CHECK int mls_blob_seal(const struct mls_keyring *keys, const char *label, uint64_t version,
				 const void *payload, size_t bytes, void *blocks, uint32_t nr_blocks);

/*
 * payload has room for mls_blob_room(nr_blocks) bytes; *bytes and *version get what was sealed.
 * Returns 0; MLS_EFORMAT: no blob or an impossible length; MLS_EAUTH: changed bytes, wrong key
 * or label. payload is zeroed on MLS_EAUTH.
 */
MLS_MUST_CHECK int mls_blob_open(const struct mls_keyring *keys, const char *label, const void *blocks,
				 uint32_t nr_blocks, void *payload, size_t *bytes, uint64_t *version);

#endif
