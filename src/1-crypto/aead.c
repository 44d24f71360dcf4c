/* SPDX-License-Identifier: MPL-2.0 */
/*
 * aead.c - the door to AES-256-GCM, and the choice of the engine behind it; see aead.h.
 *
 * The choice is made once in a process, at the first key: ipsec-mb if it is there, if the
 * environment doesn't keep it out, and if it gives on this CPU, for lengths that reach all of its
 * loops, the very bytes that OpenSSL gives. Otherwise OpenSSL. Both write the same format, so the
 * choice is never stored.
 */
#include "1-crypto/aead.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "1-crypto/aead_engine.h"
#include "1-crypto/kdf.h"
#include "base/buf.h"
#include "base/endian.h"
#include "base/err.h"
#include "base/log.h"

/* One call's bytes: what both libraries take without a loop of ours. */
#define AEAD_BYTES_MAX ((size_t)1 << 30)

struct mls_aead {
	const struct mls_aead_engine *engine;
	void *state;
	uint8_t key_id[16];	/* for the audit hook only */
};

static mls_aead_audit_fn *audit;
static void *audit_arg;

static const struct mls_aead_engine *chosen;
static pthread_once_t chosen_once = PTHREAD_ONCE_INIT;

#define SELF_TEST_BYTES 4097u

/* Seal with a, open with b; then flip one bit of the tag, which b must refuse. */
static int agree_on(struct mls_aead *a, struct mls_aead *b, size_t bytes, size_t aad_bytes, const uint8_t *in,
		    uint8_t *x, uint8_t *y)
{
	uint8_t nonce[MLS_NONCE_BYTES], tag_a[MLS_TAG_BYTES], tag_b[MLS_TAG_BYTES];
	int err;

	mls_nonce_make(nonce, (uint32_t)aad_bytes, bytes);
	/* Not through mls_aead_seal: here a nonce is used twice, which the audit hook needn't hear of. */
	err = a->engine->seal(a->state, nonce, in, aad_bytes, in, bytes, x, tag_a);
	if (!err)
		err = b->engine->seal(b->state, nonce, in, aad_bytes, in, bytes, y, tag_b);
	if (err)
		return err;
	if (memcmp(x, y, bytes) != 0 || memcmp(tag_a, tag_b, MLS_TAG_BYTES) != 0)
		return MLS_EAUTH;
	err = mls_aead_open(b, nonce, in, aad_bytes, x, bytes, y, tag_a);
	if (err)
		return err;
	if (memcmp(y, in, bytes) != 0)
		return MLS_EAUTH;
	tag_a[bytes % MLS_TAG_BYTES] ^= 0x10;
	return mls_aead_open(b, nonce, in, aad_bytes, x, bytes, y, tag_a) == MLS_EAUTH ? 0 : MLS_EAUTH;
}

int mls_aead_engines_agree(const struct mls_aead_engine *engine_a, const struct mls_aead_engine *engine_b)
{
	static const size_t lengths[] = { 0, 1, 15, 16, 17, 63, 64, 65, 127, 128, 255, 256, 257, 511, 768, 1023,
					  1024, 1025, 2047, 4016, 4080, 4095, 4096, 4097 };
	static const size_t aad_lengths[] = { 0, 1, 12, 16, 20, 64 };
	uint8_t key[MLS_KEY_BYTES];
	struct mls_aead *a = NULL, *b = NULL;
	uint8_t *bufs = malloc(3 * SELF_TEST_BYTES);
	size_t i, j;
	int err;

	if (!bufs)
		return MLS_ENOMEM;
	for (i = 0; i < sizeof key; i++)
		key[i] = (uint8_t)(i * 7 + 1);
	for (i = 0; i < SELF_TEST_BYTES; i++)
		bufs[i] = (uint8_t)(i * i >> 3 ^ i);
	err = mls_aead_new_with(&a, engine_a, key);
	if (!err)
		err = mls_aead_new_with(&b, engine_b, key);
	for (i = 0; !err && i < sizeof lengths / sizeof *lengths; i++)
		for (j = 0; !err && j < sizeof aad_lengths / sizeof *aad_lengths; j++)
			err = agree_on(a, b, lengths[i], aad_lengths[j], bufs, bufs + SELF_TEST_BYTES,
				       bufs + 2 * SELF_TEST_BYTES);
	mls_aead_free(a);
	mls_aead_free(b);
	free(bufs);
	return err;
}

static void choose_engine(void)
{
	const struct mls_aead_engine *openssl = mls_aead_engine_openssl(), *fast;
	const char *wish = getenv("MLS_AEAD_ENGINE");

	chosen = openssl;
	if (wish && strcmp(wish, "openssl") == 0)
		return;
	fast = mls_aead_engine_ipsec_mb();
	if (!fast || !openssl)
		return;
	if (mls_aead_engines_agree(openssl, fast) == 0)
		chosen = fast;
	else
		mls_warn("AES-GCM of %s failed its self-test on this CPU; OpenSSL is used", fast->name);
}

int mls_aead_new_with(struct mls_aead **aead, const struct mls_aead_engine *engine,
		      const uint8_t key[MLS_KEY_BYTES])
{
	struct mls_aead *made;
	uint8_t digest[32];
	int err;

	if (!engine)
		return MLS_EIO;
	made = calloc(1, sizeof *made);
	if (!made)
		return MLS_ENOMEM;
	made->engine = engine;
	err = mls_sha256(key, MLS_KEY_BYTES, digest);
	if (err)
		goto fail;
	memcpy(made->key_id, digest, sizeof made->key_id);
	mls_wipe(digest, sizeof digest);
	err = engine->key_new(&made->state, key);
	if (err)
		goto fail;
	*aead = made;
	return 0;
fail:
	free(made);
	return err;
}

int mls_aead_new(struct mls_aead **aead, const uint8_t key[MLS_KEY_BYTES])
{
	pthread_once(&chosen_once, choose_engine);
	return mls_aead_new_with(aead, chosen, key);
}

void mls_aead_free(struct mls_aead *aead)
{
	if (!aead)
		return;
	aead->engine->key_free(aead->state);
	mls_wipe(aead, sizeof *aead);
	free(aead);
}

int mls_aead_seal(struct mls_aead *aead, const uint8_t nonce[MLS_NONCE_BYTES], const void *aad, size_t aad_bytes,
		  const void *in, size_t bytes, void *out, uint8_t tag[MLS_TAG_BYTES])
{
	MLS_INVARIANT(bytes <= AEAD_BYTES_MAX && aad_bytes <= AEAD_BYTES_MAX);
	if (__builtin_expect(audit != NULL, 0))
		audit(audit_arg, aead->key_id, nonce);
	return aead->engine->seal(aead->state, nonce, aad, aad_bytes, in, bytes, out, tag);
}

int mls_aead_open(struct mls_aead *aead, const uint8_t nonce[MLS_NONCE_BYTES], const void *aad, size_t aad_bytes,
		  const void *in, size_t bytes, void *out, const uint8_t tag[MLS_TAG_BYTES])
{
	int err;

	MLS_INVARIANT(bytes <= AEAD_BYTES_MAX && aad_bytes <= AEAD_BYTES_MAX);
	err = aead->engine->open(aead->state, nonce, aad, aad_bytes, in, bytes, out, tag);
	if (err && bytes > 0)
		memset(out, 0, bytes);	/* nobody gets to see what didn't authenticate */
	return err;
}

void mls_nonce_make(uint8_t nonce[MLS_NONCE_BYTES], uint32_t a, uint64_t b)
{
	mls_put_le32(nonce, a);
	mls_put_le64(nonce + 4, b);
}

const char *mls_aead_engine(void)
{
	pthread_once(&chosen_once, choose_engine);
	return chosen ? chosen->name : "none";
}

void mls_aead_set_audit(mls_aead_audit_fn *fn, void *arg)
{
	audit_arg = arg;
	audit = fn;
}
