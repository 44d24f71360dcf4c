/* SPDX-License-Identifier: MPL-2.0 */
/* test_crypto_blob.c - a blob opens to what was sealed, or not at all. */
#include "1-crypto/crypto_blob.h"

#include "base/buf.h"
#include "base/endian.h"
#include "base/rand.h"
#include "format/mlsdisk_format.h"
#include "tests/lib/check_run.h"
#include "tests/unit/1-crypto/crypto_test.h"

#define LABEL "blob test"
#define HDR_BYTES sizeof(struct mls_blob_hdr_disk)

START_TEST(every_size_comes_back)
{
	struct mls_keyring *keys = test_keys(1, 1);
	uint8_t *blocks = mls_blocks_alloc(4), *payload = malloc(4 * MLS_BLOCK_BYTES),
		*back = malloc(4 * MLS_BLOCK_BYTES);
	struct test_rand rand;

	test_rand_seed(&rand, 1);
	test_rand_fill(&rand, payload, 4 * MLS_BLOCK_BYTES);
	for (uint32_t nr = 1; nr <= 4; nr++) {
		size_t room = mls_blob_room(nr), bytes;
		const size_t sizes[] = { 0, 1, 15, 16, 17, 1000, room - 1, room };
		uint64_t version;

		ck_assert_uint_eq(room, nr * MLS_BLOCK_BYTES - HDR_BYTES);
		for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
			memset(blocks, 0xa5, nr * MLS_BLOCK_BYTES);
			ck_assert_int_eq(mls_blob_seal(keys, LABEL, i << 40, payload, sizes[i], blocks, nr), 0);
			for (size_t k = HDR_BYTES + sizes[i]; k < nr * MLS_BLOCK_BYTES; k++)
				ck_assert_uint_eq(blocks[k], 0);
			ck_assert_int_eq(mls_blob_open(keys, LABEL, blocks, nr, back, &bytes, &version), 0);
			ck_assert_uint_eq(bytes, sizes[i]);
			ck_assert_uint_eq(version, (uint64_t)i << 40);
			ck_assert_mem_eq(back, payload, bytes);
		}
		ck_assert_int_eq(mls_blob_seal(keys, LABEL, 1, payload, room + 1, blocks, nr), MLS_EINVAL);
	}
	mls_blocks_free(blocks);
	free(payload);
	free(back);
	mls_keyring_free(keys);
}
END_TEST

/* One bit of each byte of header and ciphertext; nothing of the payload is seen after that. */
START_TEST(each_byte_counts)
{
	struct mls_keyring *keys = test_keys(1, 1);
	uint8_t *blocks = mls_blocks_alloc(1), payload[500], back[MLS_BLOCK_BYTES], zeros[500] = { 0 };

	memset(payload, 'x', sizeof payload);
	ck_assert_int_eq(mls_blob_seal(keys, LABEL, 5, payload, sizeof payload, blocks, 1), 0);
	for (size_t byte = 0; byte < HDR_BYTES + sizeof payload; byte++) {
		for (unsigned bit = 0; bit < 8; bit++) {
			uint64_t version = 77;
			size_t bytes = 78;
			int err;

			blocks[byte] ^= (uint8_t)(1 << bit);
			memset(back, 'y', sizeof back);
			err = mls_blob_open(keys, LABEL, blocks, 1, back, &bytes, &version);
			ck_assert(err == MLS_EAUTH || err == MLS_EFORMAT);
			ck_assert_uint_eq(version, 77);
			ck_assert_uint_eq(bytes, 78);
			if (err == MLS_EAUTH && byte >= HDR_BYTES)
				ck_assert_mem_eq(back, zeros, sizeof payload);
			if (byte < 8)
				ck_assert_int_eq(err, MLS_EFORMAT);
			blocks[byte] ^= (uint8_t)(1 << bit);
		}
	}
	mls_blocks_free(blocks);
	mls_keyring_free(keys);
}
END_TEST

START_TEST(impossible_lengths)
{
	static const uint32_t lengths[] = { MLS_BLOCK_BYTES - HDR_BYTES + 1, MLS_BLOCK_BYTES, 0x7fffffff, 0x80000000,
					    0xffffffff };
	struct mls_keyring *keys = test_keys(1, 1);
	uint8_t *blocks = mls_blocks_zalloc(1), back[MLS_BLOCK_BYTES];
	struct mls_blob_hdr_disk *hdr = (void *)blocks;
	uint64_t version;
	size_t bytes;

	ck_assert_int_eq(mls_blob_open(keys, LABEL, blocks, 1, back, &bytes, &version), MLS_EFORMAT);
	ck_assert_int_eq(mls_blob_seal(keys, LABEL, 5, "x", 1, blocks, 1), 0);
	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
		mls_put_le32(hdr->payload_bytes, lengths[i]);
		ck_assert_int_eq(mls_blob_open(keys, LABEL, blocks, 1, back, &bytes, &version), MLS_EFORMAT);
	}
	mls_blocks_free(blocks);
	mls_keyring_free(keys);
}
END_TEST

START_TEST(other_keys_and_labels)
{
	struct mls_keyring *keys = test_keys(1, 1), *others[] = { test_keys(2, 1), test_keys(1, 2) };
	uint8_t *a = mls_blocks_alloc(1), *b = mls_blocks_alloc(1), back[MLS_BLOCK_BYTES];
	uint64_t version;
	size_t bytes;

	ck_assert_int_eq(mls_blob_seal(keys, LABEL, 5, "abc", 3, a, 1), 0);
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(mls_blob_open(others[i], LABEL, a, 1, back, &bytes, &version), MLS_EAUTH);
		mls_keyring_free(others[i]);
	}
	ck_assert_int_eq(mls_blob_open(keys, "other", a, 1, back, &bytes, &version), MLS_EAUTH);

	/* The same value sealed again has another salt, and the two don't mix. */
	ck_assert_int_eq(mls_blob_seal(keys, LABEL, 5, "abc", 3, b, 1), 0);
	ck_assert_mem_ne(a + 8, b + 8, 32);
	ck_assert_mem_ne(a + HDR_BYTES, b + HDR_BYTES, 3);
	memcpy(b + HDR_BYTES, a + HDR_BYTES, 3);
	ck_assert_int_eq(mls_blob_open(keys, LABEL, b, 1, back, &bytes, &version), MLS_EAUTH);
	mls_blocks_free(a);
	mls_blocks_free(b);
	mls_keyring_free(keys);
}
END_TEST

static int no_random(void *arg, void *out, size_t bytes)
{
	(void)arg, (void)out, (void)bytes;
	return MLS_EIO;
}

START_TEST(no_salt_no_blob)
{
	struct mls_keyring *keys = test_keys(1, 1);
	uint8_t *blocks = mls_blocks_alloc(1);

	mls_rand_set_source(no_random, NULL);
	ck_assert_int_eq(mls_blob_seal(keys, LABEL, 5, "x", 1, blocks, 1), MLS_EIO);
	mls_rand_set_source(NULL, NULL);
	mls_blocks_free(blocks);
	mls_keyring_free(keys);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("crypto_blob");
	TCase *tc = tcase_create("all");

	mls_set_logger(test_log_quiet, NULL);
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, every_size_comes_back);
	tcase_add_test(tc, each_byte_counts);
	tcase_add_test(tc, impossible_lengths);
	tcase_add_test(tc, other_keys_and_labels);
	tcase_add_test(tc, no_salt_no_blob);
	suite_add_tcase(suite, tc);	return check_run(suite);
}
