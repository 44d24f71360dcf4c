/* SPDX-License-Identifier: MPL-2.0 */
/*
 * kdf.c - keys from keys, keys from secrets, digests; see kdf.h.
 *
 * Beside aead_openssl.c and aead_ipsec_mb.c the only file that knows a crypto library.
 *
 * Keys     The master key is born at format (random), lives here in memory of secret.h, and seals
 *          nothing: it is only the input of HKDF. A derived key's nonces are the business of who
 *          asked for it; that no two callers get the same key is the label's doing, that no two
 *          sessions do is the random salt's (doc/design.md 3).
 */
#include "1-crypto/kdf.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <pthread.h>
#include <string.h>

#include "1-crypto/openssl_err.h"
#include "1-crypto/secret.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"

#define SCRYPT_R 8u
#define SCRYPT_P 1u
#define SCRYPT_LOG_N_MAX 22u

struct mls_keyring {
	uint8_t master[MLS_KEY_BYTES];
	uint8_t uuid[MLS_UUID_BYTES];
};

int mls_keyring_new(struct mls_keyring **keys, const uint8_t master[MLS_KEY_BYTES],
		    const uint8_t uuid[MLS_UUID_BYTES])
{
	struct mls_keyring *made = mls_secret_alloc(sizeof *made);

	if (!made)
		return MLS_ENOMEM;
	memcpy(made->master, master, MLS_KEY_BYTES);
	memcpy(made->uuid, uuid, MLS_UUID_BYTES);
	*keys = made;
	return 0;
}

void mls_keyring_free(struct mls_keyring *keys)
{
	mls_secret_free(keys, sizeof *keys);
}

const uint8_t *mls_keyring_uuid(const struct mls_keyring *keys)
{
	return keys->uuid;
}

int mls_key_derive(const struct mls_keyring *keys, const char *label, const uint8_t salt[MLS_SALT_BYTES],
		   uint8_t key[MLS_KEY_BYTES])
{
	uint8_t full_salt[MLS_UUID_BYTES + MLS_SALT_BYTES];
	size_t bytes = MLS_UUID_BYTES;

	MLS_INVARIANT(label[0] != '\0');
	memcpy(full_salt, keys->uuid, MLS_UUID_BYTES);
	if (salt) {
		memcpy(full_salt + bytes, salt, MLS_SALT_BYTES);
		bytes += MLS_SALT_BYTES;
	}
	return mls_hkdf_sha256(keys->master, MLS_KEY_BYTES, full_salt, bytes, label, key);
}

int mls_key_derive_aead(const struct mls_keyring *keys, const char *label, const uint8_t salt[MLS_SALT_BYTES],
			struct mls_aead **aead)
{
	uint8_t key[MLS_KEY_BYTES];
	int err = mls_key_derive(keys, label, salt, key);

	if (!err)
		err = mls_aead_new(aead, key);
	mls_wipe(key, sizeof key);
	return err;
}

int mls_keyring_wrap(const struct mls_keyring *keys, struct mls_aead *wrapping,
		     const uint8_t nonce[MLS_NONCE_BYTES], const void *aad, size_t aad_bytes,
		     uint8_t wrapped[MLS_KEY_BYTES], uint8_t tag[MLS_TAG_BYTES])
{
	return mls_aead_seal(wrapping, nonce, aad, aad_bytes, keys->master, MLS_KEY_BYTES, wrapped, tag);
}

static EVP_KDF *hkdf;
static pthread_once_t hkdf_once = PTHREAD_ONCE_INIT;

static void fetch_hkdf(void)
{
	hkdf = EVP_KDF_fetch(NULL, OSSL_KDF_NAME_HKDF, NULL);
}

/* OpenSSL's parameters take no const pointers, though it only reads these. */
static void *unconst(const void *p)
{
	return (void *)(uintptr_t)p;
}

int mls_hkdf_sha256(const void *ikm, size_t ikm_bytes, const void *salt, size_t salt_bytes, const char *info,
		    uint8_t key[MLS_KEY_BYTES])
{
	OSSL_PARAM params[5], *p = params;
	EVP_KDF_CTX *ctx;
	int err = 0;

	pthread_once(&hkdf_once, fetch_hkdf);
	ctx = hkdf ? EVP_KDF_CTX_new(hkdf) : NULL;
	if (!ctx)
		return mls_openssl_failed("HKDF");
	*p++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, unconst("SHA256"), 0);
	*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, unconst(ikm), ikm_bytes);
	if (salt_bytes > 0)
		*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, unconst(salt), salt_bytes);
	*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, unconst(info), strlen(info));
	*p = OSSL_PARAM_construct_end();
	if (EVP_KDF_derive(ctx, key, MLS_KEY_BYTES, params) != 1)
		err = mls_openssl_failed("HKDF");
	EVP_KDF_CTX_free(ctx);
	return err;
}

int mls_scrypt(const void *secret, size_t secret_bytes, const uint8_t salt[MLS_SALT_BYTES], unsigned log_n,
	       uint8_t key[MLS_KEY_BYTES])
{
	return mls_scrypt_any_salt(secret, secret_bytes, salt, MLS_SALT_BYTES, log_n, key);
}

int mls_scrypt_any_salt(const void *secret, size_t secret_bytes, const void *salt, size_t salt_bytes,
			unsigned log_n, uint8_t key[MLS_KEY_BYTES])
{
	uint64_t n, max_bytes;

	if (log_n < 1 || log_n > SCRYPT_LOG_N_MAX)
		return MLS_EINVAL;
	n = (uint64_t)1 << log_n;
	max_bytes = 128 * SCRYPT_R * (n + SCRYPT_P + 2) + (1u << 20);
	/* A NULL password means "only check the parameters" to OpenSSL. */
	if (EVP_PBE_scrypt(secret_bytes ? secret : "", secret_bytes, salt, salt_bytes, n, SCRYPT_R, SCRYPT_P,
			   max_bytes, key, MLS_KEY_BYTES) != 1)
		return mls_openssl_failed("scrypt");
	return 0;
}

int mls_sha256(const void *data, size_t bytes, uint8_t digest[32])
{
	if (EVP_Digest(data, bytes, digest, NULL, EVP_sha256(), NULL) != 1)
		return mls_openssl_failed("SHA-256");
	return 0;
}

int mls_hmac_sha256(const uint8_t key[MLS_KEY_BYTES], const void *data, size_t bytes, uint8_t mac[32])
{
	if (!HMAC(EVP_sha256(), key, MLS_KEY_BYTES, data, bytes, mac, NULL))
		return mls_openssl_failed("HMAC");
	return 0;
}

bool mls_equal_const_time(const void *a, const void *b, size_t bytes)
{
	return CRYPTO_memcmp(a, b, bytes) == 0;
}
