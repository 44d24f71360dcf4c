/* SPDX-License-Identifier: MPL-2.0 */
/*
 * crypto_blob.c - one value, sealed as a whole; see crypto_blob.h, struct mls_blob_hdr_disk.
 *
 * Key      Born in mls_blob_seal from a random salt, seals this one blob with nonce 0, and is
 *          gone when the function returns; so no nonce comes twice.
 */
#include "1-crypto/crypto_blob.h"

#include <string.h>

#include "base/buf.h"
#include "base/endian.h"
#include "base/err.h"
#include "base/rand.h"
#include "format/mlsdisk_format.h"

#define HDR_BYTES sizeof(struct mls_blob_hdr_disk)
#define AAD_BYTES offsetof(struct mls_blob_hdr_disk, tag)
#define BLOCKS_MAX ((1u << 30) / MLS_BLOCK_BYTES)

_Static_assert(AAD_BYTES == 64, "the header is authenticated up to its tag");

static const uint8_t nonce_zero[MLS_NONCE_BYTES];

size_t mls_blob_room(uint32_t nr_blocks)
{
	MLS_INVARIANT(nr_blocks > 0 && nr_blocks <= BLOCKS_MAX);
	return (size_t)nr_blocks * MLS_BLOCK_BYTES - HDR_BYTES;
}

int mls_blob_seal(const struct mls_keyring *keys, const char *label, uint64_t version, const void *payload,
		  size_t bytes, void *blocks, uint32_t nr_blocks)
{
	struct mls_blob_hdr_disk *hdr = blocks;
	uint8_t *sealed = (uint8_t *)blocks + HDR_BYTES;
	struct mls_aead *aead;
	int err;

	if (bytes > mls_blob_room(nr_blocks))
		return MLS_EINVAL;
	memset(hdr, 0, sizeof *hdr);
	memcpy(hdr->magic, MLS_BLOB_MAGIC, sizeof hdr->magic);
	err = mls_rand_bytes(hdr->salt, sizeof hdr->salt);
	if (err)
		return err;
	mls_put_le64(hdr->version, version);
	mls_put_le32(hdr->payload_bytes, (uint32_t)bytes);
	err = mls_key_derive_aead(keys, label, hdr->salt, &aead);
	if (err)
		return err;
	err = mls_aead_seal(aead, nonce_zero, hdr, AAD_BYTES, payload, bytes, sealed, hdr->tag);
	mls_aead_free(aead);
	memset(sealed + bytes, 0, mls_blob_room(nr_blocks) - bytes);
	return err;
}

int mls_blob_open(const struct mls_keyring *keys, const char *label, const void *blocks, uint32_t nr_blocks,
		  void *payload, size_t *bytes, uint64_t *version)
{
	const struct mls_blob_hdr_disk *hdr = blocks;
	const size_t payload_bytes = mls_get_le32(hdr->payload_bytes);
	struct mls_aead *aead;
	int err;

	/* The host's bytes: bounds first, then the tag, then what they mean. */
	if (memcmp(hdr->magic, MLS_BLOB_MAGIC, sizeof hdr->magic) != 0 ||
	    payload_bytes > mls_blob_room(nr_blocks))
		return MLS_EFORMAT;
	err = mls_key_derive_aead(keys, label, hdr->salt, &aead);
	if (err)
		return err;
	err = mls_aead_open(aead, nonce_zero, hdr, AAD_BYTES, (const uint8_t *)blocks + HDR_BYTES, payload_bytes,
			    payload, hdr->tag);
	mls_aead_free(aead);
	if (err)
		return err;
	*bytes = payload_bytes;
	*version = mls_get_le64(hdr->version);
	return 0;
}
