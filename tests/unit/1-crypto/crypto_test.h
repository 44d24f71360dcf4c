/* SPDX-License-Identifier: MPL-2.0 */
/* crypto_test.h - what the tests of layer 1's constructs share. */
#ifndef MLS_CRYPTO_TEST_H
#define MLS_CRYPTO_TEST_H

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "0-bio/block_dev.h"
#include "1-crypto/kdf.h"
#include "tests/lib/fault_dev.h"
#include "tests/lib/tamper.h"
#include "tests/lib/test_log.h"
#include "tests/lib/test_rand.h"

/* Keyrings of different numbers differ in the master key; of different disks in the UUID. */
static inline struct mls_keyring *test_keys(uint8_t number, uint8_t disk)
{
	uint8_t master[MLS_KEY_BYTES] = { number }, uuid[MLS_UUID_BYTES] = { disk };
	struct mls_keyring *keys;

	ck_assert_int_eq(mls_keyring_new(&keys, master, uuid), 0);
	return keys;
}

static inline struct mls_block_dev *test_mem_dev(uint64_t nr_blocks)
{
	struct mls_block_dev *dev;

	ck_assert_int_eq(mls_block_dev_mem_new(&dev, nr_blocks), 0);
	return dev;
}

/* Has any (key, nonce) pair been seen before? Set up with mls_aead_set_audit(test_audit, &a). */
struct test_audit {
	struct { uint8_t key_id[16], nonce[MLS_NONCE_BYTES]; } seen[4096];
	size_t nr_seen, nr_twice;
};

static inline void test_audit(void *arg, const uint8_t key_id[16], const uint8_t nonce[MLS_NONCE_BYTES])
{
	struct test_audit *a = arg;
	size_t i;

	for (i = 0; i < a->nr_seen; i++)
		if (memcmp(a->seen[i].key_id, key_id, 16) == 0 &&
		    memcmp(a->seen[i].nonce, nonce, MLS_NONCE_BYTES) == 0)
			a->nr_twice++;
	ck_assert_uint_lt(a->nr_seen, sizeof a->seen / sizeof *a->seen);
	memcpy(a->seen[a->nr_seen].key_id, key_id, 16);
	memcpy(a->seen[a->nr_seen++].nonce, nonce, MLS_NONCE_BYTES);
}

#endif
