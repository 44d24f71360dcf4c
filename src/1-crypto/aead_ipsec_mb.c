/* SPDX-License-Identifier: MPL-2.0 */
/*
 * aead_ipsec_mb.c - AES-256-GCM by Intel's ipsec-mb, where the CPU has the instructions.
 *
 * Only the direct GCM functions are used: they take an expanded key and a context on the stack
 * and touch nothing of the manager, which is just a table of pointers here; so one manager serves
 * all threads. It is made once and kept for the life of the process.
 *
 * The library computes the tag on opening and leaves the comparison to us.
 */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "1-crypto/aead_engine.h"

#ifdef HAVE_IPSEC_MB

#include <intel-ipsec-mb.h>
#include <pthread.h>

#include "1-crypto/kdf.h"
#include "1-crypto/secret.h"
#include "base/buf.h"
#include "base/log.h"

static IMB_MGR *mgr;
static pthread_once_t mgr_once = PTHREAD_ONCE_INIT;

static bool cpu_is_fit(uint64_t features)
{
	const uint64_t wanted = IMB_FEATURE_AESNI | IMB_FEATURE_PCLMULQDQ | IMB_FEATURE_AVX;

#ifdef IMB_FEATURE_AESNI_EMU
	if (features & IMB_FEATURE_AESNI_EMU)
		return false;
#endif
#ifdef IMB_FEATURE_SELF_TEST
	if ((features & IMB_FEATURE_SELF_TEST) && !(features & IMB_FEATURE_SELF_TEST_PASS))
		return false;
#endif
	return (features & wanted) == wanted;
}

static void make_mgr(void)
{
	IMB_MGR *made = alloc_mb_mgr(0);

	if (!made)
		return;
	init_mb_mgr_auto(made, NULL);
	if (cpu_is_fit(made->features)) {
		mgr = made;
	} else {
		mls_debug("ipsec-mb isn't used: CPU features %llx", (unsigned long long)made->features);
		free_mb_mgr(made);
	}
}

static int ipsec_mb_key_new(void **state, const uint8_t key[MLS_KEY_BYTES])
{
	struct gcm_key_data *made = mls_secret_alloc(sizeof *made);	/* page-aligned; it wants 64 bytes */

	if (!made)
		return MLS_ENOMEM;
	IMB_AES256_GCM_PRE(mgr, key, made);
	*state = made;
	return 0;
}

static void ipsec_mb_key_free(void *state)
{
	mls_secret_free(state, sizeof(struct gcm_key_data));
}

static int ipsec_mb_seal(void *state, const uint8_t nonce[MLS_NONCE_BYTES], const void *aad, size_t aad_bytes,
			 const void *in, size_t bytes, void *out, uint8_t tag[MLS_TAG_BYTES])
{
	struct gcm_context_data ctx;

	IMB_AES256_GCM_ENC(mgr, state, &ctx, out, in, bytes, nonce, aad, aad_bytes, tag, MLS_TAG_BYTES);
	mls_wipe(&ctx, sizeof ctx);
	return 0;
}

static int ipsec_mb_open(void *state, const uint8_t nonce[MLS_NONCE_BYTES], const void *aad, size_t aad_bytes,
			 const void *in, size_t bytes, void *out, const uint8_t tag[MLS_TAG_BYTES])
{
	struct gcm_context_data ctx;
	uint8_t computed[MLS_TAG_BYTES];
	bool equal;

	IMB_AES256_GCM_DEC(mgr, state, &ctx, out, in, bytes, nonce, aad, aad_bytes, computed, MLS_TAG_BYTES);
	equal = mls_equal_const_time(computed, tag, MLS_TAG_BYTES);
	mls_wipe(&ctx, sizeof ctx);
	mls_wipe(computed, sizeof computed);	/* on failure it would be the tag of a forgery */
	return equal ? 0 : MLS_EAUTH;
}

static const struct mls_aead_engine engine = {
	.name = "ipsec-mb",
	.key_new = ipsec_mb_key_new,
	.key_free = ipsec_mb_key_free,
	.seal = ipsec_mb_seal,
	.open = ipsec_mb_open,
};

const struct mls_aead_engine *mls_aead_engine_ipsec_mb(void)
{
	pthread_once(&mgr_once, make_mgr);
	return mgr ? &engine : NULL;
}

#else /* !HAVE_IPSEC_MB */

const struct mls_aead_engine *mls_aead_engine_ipsec_mb(void)
{
	return NULL;
}

#endif
