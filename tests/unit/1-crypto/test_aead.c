/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_aead.c - both engines give the published bytes and each other's, and refuse everything else.
 */
#include <check.h>
#include <pthread.h>
#include <stdlib.h>

#include "1-crypto/aead_engine.h"
#include "1-crypto/kdf.h"
#include "base/endian.h"
#include "tests/lib/check_run.h"
#include "tests/vectors/aes256_gcm.h"
#include "tests/vectors/hex.h"

#define BYTES_MAX 9000u
#define NR(array) (sizeof(array) / sizeof(*(array)))

static const struct mls_aead_engine *engine(int i)
{
	return i == 0 ? mls_aead_engine_openssl() : mls_aead_engine_ipsec_mb();
}

static struct mls_aead *aead_of(const struct mls_aead_engine *e, const uint8_t key[MLS_KEY_BYTES])
{
	struct mls_aead *aead;

	ck_assert_int_eq(mls_aead_new_with(&aead, e, key), 0);
	return aead;
}

static uint64_t rng;

static uint64_t next_random(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}

static void fill_random(uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		bytes[i] = (uint8_t)next_random();
}

START_TEST(openssl_is_there)
{
	ck_assert_ptr_nonnull(mls_aead_engine_openssl());
	ck_assert(strcmp(mls_aead_engine(), "openssl") == 0 || strcmp(mls_aead_engine(), "ipsec-mb") == 0);
}
END_TEST

START_TEST(published_vectors)
{
	const struct mls_aead_engine *e = engine(_i);

	for (size_t i = 0; e && i < NR(gcm_vectors); i++) {
		const struct gcm_vector *v = &gcm_vectors[i];
		uint8_t key[32], nonce[12], plain[64], aad[64], sealed[64], tag[16], out[64], got_tag[16];
		size_t bytes, aad_bytes;
		struct mls_aead *aead;

		from_hex(v->key, key, sizeof key);
		from_hex(v->nonce, nonce, sizeof nonce);
		from_hex(v->tag, tag, sizeof tag);
		from_hex(v->sealed, sealed, sizeof sealed);
		bytes = from_hex(v->plain, plain, sizeof plain);
		aad_bytes = from_hex(v->aad, aad, sizeof aad);
		aead = aead_of(e, key);
		ck_assert_int_eq(mls_aead_seal(aead, nonce, aad, aad_bytes, plain, bytes, out, got_tag), 0);
		ck_assert_msg(memcmp(out, sealed, bytes) == 0 && memcmp(got_tag, tag, 16) == 0, "%s", v->name);
		ck_assert_int_eq(mls_aead_open(aead, nonce, aad, aad_bytes, sealed, bytes, out, tag), 0);
		ck_assert_mem_eq(out, plain, bytes);
		mls_aead_free(aead);
	}
}
END_TEST

START_TEST(published_failures)
{
	const struct mls_aead_engine *e = engine(_i);

	for (size_t i = 0; e && i < NR(gcm_fail_vectors); i++) {
		const struct gcm_vector *v = &gcm_fail_vectors[i];
		uint8_t key[32], nonce[12], aad[64], sealed[64], tag[16], out[64], zeros[64] = { 0 };
		size_t bytes, aad_bytes;
		struct mls_aead *aead;

		from_hex(v->key, key, sizeof key);
		from_hex(v->nonce, nonce, sizeof nonce);
		from_hex(v->tag, tag, sizeof tag);
		bytes = from_hex(v->sealed, sealed, sizeof sealed);
		aad_bytes = from_hex(v->aad, aad, sizeof aad);
		aead = aead_of(e, key);
		memset(out, 0xa5, sizeof out);
		ck_assert_int_eq(mls_aead_open(aead, nonce, aad, aad_bytes, sealed, bytes, out, tag), MLS_EAUTH);
		ck_assert_mem_eq(out, zeros, bytes);
		mls_aead_free(aead);
	}
}
END_TEST

/* Goal: whoever sealed it, the other engine opens it, at any length and alignment, in place too. */
START_TEST(engines_agree_on_random_lengths)
{
	const struct mls_aead_engine *a = engine(0), *b = engine(1);
	static uint8_t plain[BYTES_MAX], x[BYTES_MAX + 64], y[BYTES_MAX + 64], aad[300];
	uint8_t key[32], nonce[12], tag_x[16], tag_y[16];
	struct mls_aead *with_a, *with_b;

	if (!b)
		return;		/* this build or CPU has one engine */
	ck_assert_int_eq(mls_aead_engines_agree(a, b), 0);
	ck_assert_int_eq(mls_aead_engines_agree(b, a), 0);
	rng = 0x9e3779b97f4a7c15;
	for (int round = 0; round < 600; round++) {
		size_t bytes = round < 300 ? (size_t)round : next_random() % BYTES_MAX;
		size_t aad_bytes = next_random() % sizeof aad, shift = next_random() % 64;

		fill_random(key, sizeof key);
		fill_random(nonce, sizeof nonce);
		fill_random(plain, bytes);
		fill_random(aad, aad_bytes);
		with_a = aead_of(a, key);
		with_b = aead_of(b, key);
		ck_assert_int_eq(mls_aead_seal(with_a, nonce, aad, aad_bytes, plain, bytes, x, tag_x), 0);
		memcpy(y + shift, plain, bytes);
		ck_assert_int_eq(mls_aead_seal(with_b, nonce, aad, aad_bytes, y + shift, bytes, y + shift,
					       tag_y), 0);
		ck_assert_mem_eq(x, y + shift, bytes);
		ck_assert_mem_eq(tag_x, tag_y, 16);
		ck_assert_int_eq(mls_aead_open(with_a, nonce, aad, aad_bytes, y + shift, bytes, y + shift,
					       tag_x), 0);
		ck_assert_mem_eq(y + shift, plain, bytes);
		ck_assert_int_eq(mls_aead_open(with_b, nonce, aad, aad_bytes, x, bytes, x, tag_y), 0);
		ck_assert_mem_eq(x, plain, bytes);
		mls_aead_free(with_a);
		mls_aead_free(with_b);
	}
}
END_TEST

/* Each bit of key, nonce, aad, ciphertext and tag counts, and what is refused leaves only zeros. */
START_TEST(any_changed_bit_is_refused)
{
	const struct mls_aead_engine *e = engine(_i);
	uint8_t in[32 + 12 + 20 + 67 + 16], *key = in, *nonce = in + 32, *aad = in + 44, *sealed = in + 64,
		*tag = in + 131;
	uint8_t plain[67], out[67], zeros[67] = { 0 };
	struct mls_aead *aead;

	if (!e)
		return;
	rng = 42;
	fill_random(in, sizeof in);
	fill_random(plain, sizeof plain);
	aead = aead_of(e, key);
	ck_assert_int_eq(mls_aead_seal(aead, nonce, aad, 20, plain, sizeof plain, sealed, tag), 0);
	mls_aead_free(aead);
	for (size_t bit = 0; bit < sizeof in * 8; bit++) {
		in[bit / 8] ^= (uint8_t)(1 << bit % 8);
		aead = aead_of(e, key);
		memset(out, 0xa5, sizeof out);
		ck_assert_int_eq(mls_aead_open(aead, nonce, aad, 20, sealed, sizeof out, out, tag), MLS_EAUTH);
		ck_assert_mem_eq(out, zeros, sizeof out);
		mls_aead_free(aead);
		in[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	aead = aead_of(e, key);
	ck_assert_int_eq(mls_aead_open(aead, nonce, aad, 20, sealed, sizeof out, out, tag), 0);
	ck_assert_mem_eq(out, plain, sizeof plain);
	ck_assert_int_eq(mls_aead_open(aead, nonce, aad, 19, sealed, sizeof out, out, tag), MLS_EAUTH);
	ck_assert_int_eq(mls_aead_open(aead, nonce, aad, 20, sealed, sizeof out - 1, out, tag), MLS_EAUTH);
	mls_aead_free(aead);
}
END_TEST

START_TEST(empty_needs_no_buffers)
{
	const struct mls_aead_engine *e = engine(_i);
	uint8_t key[32] = { 7 }, nonce[12] = { 0 }, tag[16];
	struct mls_aead *aead;

	if (!e)
		return;
	aead = aead_of(e, key);
	ck_assert_int_eq(mls_aead_seal(aead, nonce, NULL, 0, NULL, 0, NULL, tag), 0);
	ck_assert_int_eq(mls_aead_open(aead, nonce, NULL, 0, NULL, 0, NULL, tag), 0);
	tag[15] ^= 1;
	ck_assert_int_eq(mls_aead_open(aead, nonce, NULL, 0, NULL, 0, NULL, tag), MLS_EAUTH);
	mls_aead_free(aead);
}
END_TEST

/* More threads than a key has contexts, all with one key; each must get its own bytes back. */
struct worker {
	struct mls_aead *aead;
	uint32_t number;
	int nr_wrong;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	uint8_t plain[1000], sealed[1000], back[1000], nonce[12], tag[16];

	for (uint64_t i = 0; i < 300; i++) {
		memset(plain, (int)(w->number * 31 + i), sizeof plain);
		mls_nonce_make(nonce, w->number, i);
		if (mls_aead_seal(w->aead, nonce, nonce, 12, plain, sizeof plain, sealed, tag) != 0 ||
		    mls_aead_open(w->aead, nonce, nonce, 12, sealed, sizeof plain, back, tag) != 0 ||
		    memcmp(plain, back, sizeof plain) != 0)
			w->nr_wrong++;
		tag[i % 16] ^= 1;
		if (mls_aead_open(w->aead, nonce, nonce, 12, sealed, sizeof plain, back, tag) != MLS_EAUTH)
			w->nr_wrong++;
	}
	return NULL;
}

START_TEST(threads_share_a_key)
{
	const struct mls_aead_engine *e = engine(_i);
	uint8_t key[32] = { 1, 2, 3 };
	struct worker workers[20];
	pthread_t threads[20];
	struct mls_aead *aead;

	if (!e)
		return;
	aead = aead_of(e, key);
	for (uint32_t i = 0; i < NR(workers); i++) {
		workers[i] = (struct worker){ .aead = aead, .number = i };
		ck_assert_int_eq(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
	}
	for (uint32_t i = 0; i < NR(workers); i++) {
		pthread_join(threads[i], NULL);
		ck_assert_int_eq(workers[i].nr_wrong, 0);
	}
	mls_aead_free(aead);
}
END_TEST

struct seen {
	uint8_t key_id[16], nonce[12];
	unsigned nr;
};

static void see(void *arg, const uint8_t key_id[16], const uint8_t nonce[MLS_NONCE_BYTES])
{
	struct seen *seen = arg;

	memcpy(seen->key_id, key_id, 16);
	memcpy(seen->nonce, nonce, 12);
	seen->nr++;
}

START_TEST(audit_sees_each_seal)
{
	uint8_t key[32] = { 9 }, nonce[12], block[16] = { 0 }, tag[16], digest[32];
	struct seen seen = { .nr = 0 };
	struct mls_aead *aead;

	mls_aead_set_audit(see, &seen);
	ck_assert_int_eq(mls_aead_new(&aead, key), 0);
	ck_assert_uint_eq(seen.nr, 0);		/* the self-test of the engines doesn't count */
	mls_nonce_make(nonce, 0x01020304, 0x1122334455667788);
	ck_assert_int_eq(mls_aead_seal(aead, nonce, NULL, 0, block, 16, block, tag), 0);
	ck_assert_uint_eq(seen.nr, 1);
	ck_assert_mem_eq(seen.nonce, nonce, 12);
	ck_assert_int_eq(mls_sha256(key, sizeof key, digest), 0);
	ck_assert_mem_eq(seen.key_id, digest, 16);
	ck_assert_int_eq(mls_aead_open(aead, nonce, NULL, 0, block, 16, block, tag), 0);
	ck_assert_uint_eq(seen.nr, 1);
	mls_aead_set_audit(NULL, NULL);
	ck_assert_int_eq(mls_aead_seal(aead, nonce, NULL, 0, block, 16, block, tag), 0);
	ck_assert_uint_eq(seen.nr, 1);
	mls_aead_free(aead);
	mls_aead_free(NULL);
}
END_TEST

START_TEST(nonce_layout)
{
	const uint8_t want[12] = { 4, 3, 2, 1, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11 };
	uint8_t nonce[12];

	mls_nonce_make(nonce, 0x01020304, 0x1122334455667788);
	ck_assert_mem_eq(nonce, want, 12);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("aead");
	TCase *tc = tcase_create("all");

	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, openssl_is_there);
	tcase_add_loop_test(tc, published_vectors, 0, 2);
	tcase_add_loop_test(tc, published_failures, 0, 2);
	tcase_add_test(tc, engines_agree_on_random_lengths);
	tcase_add_loop_test(tc, any_changed_bit_is_refused, 0, 2);
	tcase_add_loop_test(tc, empty_needs_no_buffers, 0, 2);
	tcase_add_loop_test(tc, threads_share_a_key, 0, 2);
	tcase_add_test(tc, audit_sees_each_seal);
	tcase_add_test(tc, nonce_layout);
	suite_add_tcase(suite, tc);	return check_run(suite);
}
