/* SPDX-License-Identifier: MPL-2.0 */
/* test_kdf.c - published vectors, and that each input of a derived key counts. */
#include <check.h>

#include "1-crypto/kdf.h"
#include "tests/lib/check_run.h"
#include "tests/vectors/hex.h"
#include "tests/vectors/kdf.h"

#define NR(array) (sizeof(array) / sizeof(*(array)))

static void assert_hex(const uint8_t got[32], const char *want_hex)
{
	uint8_t want[32];

	ck_assert_uint_eq(from_hex(want_hex, want, sizeof want), 32);
	ck_assert_mem_eq(got, want, 32);
}

START_TEST(hkdf_published)
{
	for (size_t i = 0; i < NR(hkdf_vectors); i++) {
		uint8_t ikm[80], salt[80], key[32];
		char info[81];
		size_t ikm_bytes = from_hex(hkdf_vectors[i].ikm, ikm, sizeof ikm);
		size_t salt_bytes = from_hex(hkdf_vectors[i].salt, salt, sizeof salt);

		info[from_hex(hkdf_vectors[i].info, (uint8_t *)info, 80)] = '\0';
		ck_assert_int_eq(mls_hkdf_sha256(ikm, ikm_bytes, salt, salt_bytes, info, key), 0);
		assert_hex(key, hkdf_vectors[i].key);
	}
}
END_TEST

START_TEST(hmac_published)
{
	for (size_t i = 0; i < NR(hmac_vectors); i++) {
		uint8_t key[32] = { 0 }, data[64], mac[32];
		size_t bytes;

		from_hex(hmac_vectors[i].key, key, sizeof key);
		bytes = from_hex(hmac_vectors[i].data, data, sizeof data);
		ck_assert_int_eq(mls_hmac_sha256(key, data, bytes, mac), 0);
		assert_hex(mac, hmac_vectors[i].mac);
	}
}
END_TEST

START_TEST(sha256_published)
{
	uint8_t digest[32];

	ck_assert_int_eq(mls_sha256("", 0, digest), 0);
	assert_hex(digest, SHA256_EMPTY);
	ck_assert_int_eq(mls_sha256("abc", 3, digest), 0);
	assert_hex(digest, SHA256_ABC);
}
END_TEST

START_TEST(scrypt_published)
{
	uint8_t key[32];

	ck_assert_int_eq(mls_scrypt_any_salt(SCRYPT_SECRET, strlen(SCRYPT_SECRET), SCRYPT_SALT,
					     strlen(SCRYPT_SALT), SCRYPT_LOG_N, key), 0);
	assert_hex(key, SCRYPT_KEY);
}
END_TEST

START_TEST(scrypt_inputs)
{
	uint8_t salt[32] = { 1 }, a[32], b[32];

	ck_assert_int_eq(mls_scrypt("secret", 6, salt, 4, a), 0);
	ck_assert_int_eq(mls_scrypt("secret", 6, salt, 5, b), 0);
	ck_assert_mem_ne(a, b, 32);
	ck_assert_int_eq(mls_scrypt("secreT", 6, salt, 4, b), 0);
	ck_assert_mem_ne(a, b, 32);
	salt[31] = 1;
	ck_assert_int_eq(mls_scrypt("secret", 6, salt, 4, b), 0);
	ck_assert_mem_ne(a, b, 32);
	ck_assert_int_eq(mls_scrypt(NULL, 0, salt, 4, a), 0);
	ck_assert_int_eq(mls_scrypt("", 0, salt, 4, b), 0);
	ck_assert_mem_eq(a, b, 32);
	/* More memory than OpenSSL's default bound of 32 MiB. */
	ck_assert_int_eq(mls_scrypt("secret", 6, salt, 16, a), 0);
	ck_assert_int_eq(mls_scrypt("secret", 6, salt, 0, a), MLS_EINVAL);
	ck_assert_int_eq(mls_scrypt("secret", 6, salt, 23, a), MLS_EINVAL);
}
END_TEST

/* What mls_key_derive promises: HKDF(master, salt = UUID || salt, info = label). */
START_TEST(derive_is_hkdf)
{
	uint8_t master[32], uuid[16], full[48], key[32], want[32];
	struct mls_keyring *keys;

	for (int i = 0; i < 32; i++) {
		master[i] = (uint8_t)(i + 1);
		full[16 + i] = (uint8_t)(200 - i);
	}
	for (int i = 0; i < 16; i++)
		full[i] = uuid[i] = (uint8_t)(0x80 + i);
	ck_assert_int_eq(mls_keyring_new(&keys, master, uuid), 0);
	ck_assert_mem_eq(mls_keyring_uuid(keys), uuid, 16);
	ck_assert_int_eq(mls_key_derive(keys, "label", full + 16, key), 0);
	ck_assert_int_eq(mls_hkdf_sha256(master, 32, full, 48, "label", want), 0);
	ck_assert_mem_eq(key, want, 32);
	ck_assert_int_eq(mls_key_derive(keys, "label", NULL, key), 0);
	ck_assert_int_eq(mls_hkdf_sha256(master, 32, full, 16, "label", want), 0);
	ck_assert_mem_eq(key, want, 32);
	mls_keyring_free(keys);
	mls_keyring_free(NULL);
}
END_TEST

START_TEST(each_input_of_a_key_counts)
{
	uint8_t master[32] = { 1 }, uuid[16] = { 2 }, salt[32] = { 3 }, keys_made[5][32];
	struct mls_keyring *keys;

	for (int i = 0; i < 5; i++) {
		master[31] = i == 1;
		uuid[15] = i == 2;
		salt[31] = i == 3;
		ck_assert_int_eq(mls_keyring_new(&keys, master, uuid), 0);
		ck_assert_int_eq(mls_key_derive(keys, i == 4 ? "b" : "a", salt, keys_made[i]), 0);
		mls_keyring_free(keys);
		for (int j = 0; j < i; j++)
			ck_assert_mem_ne(keys_made[i], keys_made[j], 32);
	}
}
END_TEST

START_TEST(derived_aead_has_the_derived_key)
{
	uint8_t master[32] = { 1 }, uuid[16] = { 2 }, salt[32] = { 3 }, nonce[12] = { 0 }, key[32];
	uint8_t text[5] = "hello", tag[16];
	struct mls_aead *derived, *plain;
	struct mls_keyring *keys;

	ck_assert_int_eq(mls_keyring_new(&keys, master, uuid), 0);
	ck_assert_int_eq(mls_key_derive(keys, "x", salt, key), 0);
	ck_assert_int_eq(mls_key_derive_aead(keys, "x", salt, &derived), 0);
	ck_assert_int_eq(mls_aead_new(&plain, key), 0);
	ck_assert_int_eq(mls_aead_seal(derived, nonce, NULL, 0, text, 5, text, tag), 0);
	ck_assert_int_eq(mls_aead_open(plain, nonce, NULL, 0, text, 5, text, tag), 0);
	ck_assert_mem_eq(text, "hello", 5);
	mls_aead_free(derived);
	mls_aead_free(plain);
	mls_keyring_free(keys);
}
END_TEST

START_TEST(wrap_seals_the_master_key)
{
	uint8_t master[32] = { 1, 2, 3 }, uuid[16] = { 2 }, secret[32] = { 8 }, nonce[12] = { 0 };
	uint8_t wrapped[32], tag[16], back[32];
	struct mls_aead *wrapping;
	struct mls_keyring *keys;

	ck_assert_int_eq(mls_keyring_new(&keys, master, uuid), 0);
	ck_assert_int_eq(mls_aead_new(&wrapping, secret), 0);
	ck_assert_int_eq(mls_keyring_wrap(keys, wrapping, nonce, "aad", 3, wrapped, tag), 0);
	ck_assert_int_eq(mls_aead_open(wrapping, nonce, "aad", 3, wrapped, 32, back, tag), 0);
	ck_assert_mem_eq(back, master, 32);
	ck_assert_int_eq(mls_aead_open(wrapping, nonce, "aaD", 3, wrapped, 32, back, tag), MLS_EAUTH);
	mls_aead_free(wrapping);
	mls_keyring_free(keys);
}
END_TEST

START_TEST(const_time_equal)
{
	ck_assert(mls_equal_const_time("abc", "abc", 3));
	ck_assert(!mls_equal_const_time("abc", "abd", 3));
	ck_assert(mls_equal_const_time("abc", "abd", 2));
	ck_assert(mls_equal_const_time("a", "b", 0));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("kdf");
	TCase *tc = tcase_create("all");

	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, hkdf_published);
	tcase_add_test(tc, hmac_published);
	tcase_add_test(tc, sha256_published);
	tcase_add_test(tc, scrypt_published);
	tcase_add_test(tc, scrypt_inputs);
	tcase_add_test(tc, derive_is_hkdf);
	tcase_add_test(tc, each_input_of_a_key_counts);
	tcase_add_test(tc, derived_aead_has_the_derived_key);
	tcase_add_test(tc, wrap_seals_the_master_key);
	tcase_add_test(tc, const_time_equal);
	suite_add_tcase(suite, tc);	return check_run(suite);
}
