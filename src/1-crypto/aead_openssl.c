/* SPDX-License-Identifier: MPL-2.0 */
/*
 * aead_openssl.c - AES-256-GCM by OpenSSL's EVP; the engine that is always there.
 *
 * Setting up a key in EVP costs as much as sealing a block, so a key keeps a few contexts that
 * already have it; a call sets only the nonce. A context serves one call at a time:
 *
 *	free (busy flag clear)  --take-->  in use  --put-->  free
 *
 * A thread begins to look at its own place, so that threads seldom meet. If all are in use, the
 * call makes a context for itself: slower, never wrong, and nobody waits.
 *
 * Invariant: a slot's ctx is touched only by the one who set its flag, or when the key is freed.
 */
#include "1-crypto/aead_engine.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdatomic.h>

#include "1-crypto/openssl_err.h"
#include "1-crypto/secret.h"
#include "base/log.h"

#define NR_SLOTS 8u

struct slot {
	_Alignas(64) atomic_flag busy;
	EVP_CIPHER_CTX *ctx;		/* NULL until first taken */
};

struct openssl_key {
	struct slot slots[NR_SLOTS];
	uint8_t key[MLS_KEY_BYTES];
};

static EVP_CIPHER *cipher;
static pthread_once_t cipher_once = PTHREAD_ONCE_INIT;

static void fetch_cipher(void)
{
	cipher = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
	if (!cipher)
		mls_error("OpenSSL has no AES-256-GCM");
}

static EVP_CIPHER_CTX *ctx_make(const struct openssl_key *key)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();

	if (ctx && EVP_EncryptInit_ex(ctx, cipher, NULL, key->key, NULL) == 1)
		return ctx;
	EVP_CIPHER_CTX_free(ctx);
	ERR_clear_error();
	return NULL;
}

static unsigned my_first_slot(void)
{
	static atomic_uint nr_threads;
	static _Thread_local unsigned mine;

	if (mine == 0)
		mine = atomic_fetch_add_explicit(&nr_threads, 1, memory_order_relaxed) % NR_SLOTS + 1;
	return mine - 1;
}

/* *slot: whom to give it back to; NULL: the context was made for this call. */
static EVP_CIPHER_CTX *ctx_take(struct openssl_key *key, struct slot **slot)
{
	unsigned first = my_first_slot(), i;

	for (i = 0; i < NR_SLOTS; i++) {
		struct slot *s = &key->slots[(first + i) % NR_SLOTS];

		if (atomic_flag_test_and_set_explicit(&s->busy, memory_order_acquire))
			continue;
		if (!s->ctx)
			s->ctx = ctx_make(key);
		if (s->ctx) {
			*slot = s;
			return s->ctx;
		}
		atomic_flag_clear_explicit(&s->busy, memory_order_release);
		return NULL;
	}
	*slot = NULL;
	return ctx_make(key);
}

static void ctx_put(EVP_CIPHER_CTX *ctx, struct slot *slot)
{
	if (slot)
		atomic_flag_clear_explicit(&slot->busy, memory_order_release);
	else
		EVP_CIPHER_CTX_free(ctx);
}

static int openssl_key_new(void **state, const uint8_t key[MLS_KEY_BYTES])
{
	struct openssl_key *made = mls_secret_alloc(sizeof *made);
	struct slot *first;
	unsigned i;

	if (!made)
		return MLS_ENOMEM;
	for (i = 0; i < NR_SLOTS; i++)
		atomic_flag_clear(&made->slots[i].busy);
	for (i = 0; i < MLS_KEY_BYTES; i++)
		made->key[i] = key[i];
	/* The first context now: a key that can't be used shouldn't be handed out. */
	first = &made->slots[my_first_slot()];
	first->ctx = ctx_make(made);
	if (!first->ctx) {
		mls_secret_free(made, sizeof *made);
		return MLS_ENOMEM;
	}
	*state = made;
	return 0;
}

static void openssl_key_free(void *state)
{
	struct openssl_key *key = state;
	unsigned i;

	for (i = 0; i < NR_SLOTS; i++)
		EVP_CIPHER_CTX_free(key->slots[i].ctx);		/* OpenSSL wipes its part */
	mls_secret_free(key, sizeof *key);
}

static int openssl_seal(void *state, const uint8_t nonce[MLS_NONCE_BYTES], const void *aad, size_t aad_bytes,
			const void *in, size_t bytes, void *out, uint8_t tag[MLS_TAG_BYTES])
{
	struct slot *slot;
	EVP_CIPHER_CTX *ctx = ctx_take(state, &slot);
	uint8_t none[16];
	int n, err;

	if (!ctx)
		return MLS_ENOMEM;
	if (EVP_EncryptInit_ex(ctx, NULL, NULL, NULL, nonce) != 1 ||
	    (aad_bytes > 0 && EVP_EncryptUpdate(ctx, NULL, &n, aad, (int)aad_bytes) != 1) ||
	    (bytes > 0 && EVP_EncryptUpdate(ctx, out, &n, in, (int)bytes) != 1) ||
	    EVP_EncryptFinal_ex(ctx, none, &n) != 1 ||
	    EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, MLS_TAG_BYTES, tag) != 1) {
		err = mls_openssl_failed("sealing");
		goto out;
	}
	err = 0;
out:
	ctx_put(ctx, slot);
	return err;
}

static int openssl_open(void *state, const uint8_t nonce[MLS_NONCE_BYTES], const void *aad, size_t aad_bytes,
			const void *in, size_t bytes, void *out, const uint8_t tag[MLS_TAG_BYTES])
{
	struct slot *slot;
	EVP_CIPHER_CTX *ctx = ctx_take(state, &slot);
	uint8_t none[16];
	int n, err;

	if (!ctx)
		return MLS_ENOMEM;
	if (EVP_DecryptInit_ex(ctx, NULL, NULL, NULL, nonce) != 1 ||
	    EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, MLS_TAG_BYTES, (void *)(uintptr_t)tag) != 1 ||
	    (aad_bytes > 0 && EVP_DecryptUpdate(ctx, NULL, &n, aad, (int)aad_bytes) != 1) ||
	    (bytes > 0 && EVP_DecryptUpdate(ctx, out, &n, in, (int)bytes) != 1)) {
		err = mls_openssl_failed("opening");
		goto out;
	}
	err = EVP_DecryptFinal_ex(ctx, none, &n) == 1 ? 0 : MLS_EAUTH;
	if (err)
		ERR_clear_error();
out:
	ctx_put(ctx, slot);
	return err;
}

static const struct mls_aead_engine engine = {
	.name = "openssl",
	.key_new = openssl_key_new,
	.key_free = openssl_key_free,
	.seal = openssl_seal,
	.open = openssl_open,
};

const struct mls_aead_engine *mls_aead_engine_openssl(void)
{
	pthread_once(&cipher_once, fetch_cipher);
	return cipher ? &engine : NULL;
}
