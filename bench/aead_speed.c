/* SPDX-License-Identifier: MPL-2.0 */
/*
 * aead_speed.c - what a 4 KiB seal and open cost, by each engine, with one reused key.
 *
 * Prints one line an engine: 10^9 bytes a second of CPU time. Compare with
 * `openssl speed -evp aes-256-gcm -bytes 4096`, which sets no nonce and takes no tag.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "1-crypto/aead_engine.h"
#include "base/buf.h"

#define NR_BLOCKS 64u		/* a working set that stays in the second-level cache */
#define SECONDS 0.5

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);	/* neighbours don't count, as in openssl speed */
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static uint8_t *plain, *sealed;
static uint8_t tags[NR_BLOCKS][MLS_TAG_BYTES];

static int seal_all(struct mls_aead *aead)
{
	uint8_t nonce[MLS_NONCE_BYTES], aad[20] = { 0 };
	uint32_t i;
	int err = 0;

	for (i = 0; !err && i < NR_BLOCKS; i++) {
		mls_nonce_make(nonce, 1, i);
		err = mls_aead_seal(aead, nonce, aad, sizeof aad, mls_block_at(plain, i), MLS_BLOCK_BYTES,
				    mls_block_at(sealed, i), tags[i]);
	}
	return err;
}

static int open_all(struct mls_aead *aead)
{
	uint8_t nonce[MLS_NONCE_BYTES], aad[20] = { 0 };
	uint32_t i;
	int err = 0;

	for (i = 0; !err && i < NR_BLOCKS; i++) {
		mls_nonce_make(nonce, 1, i);
		err = mls_aead_open(aead, nonce, aad, sizeof aad, mls_block_at(sealed, i), MLS_BLOCK_BYTES,
				    mls_block_at(plain, i), tags[i]);
	}
	return err;
}

static int measure(int (*all)(struct mls_aead *aead), struct mls_aead *aead, double *gb_s)
{
	double start = now(), end = start;
	uint64_t rounds = 0;
	int err = 0;

	while (!err && end - start < SECONDS) {
		err = all(aead);
		rounds++;
		end = now();
	}
	*gb_s = (double)(rounds * NR_BLOCKS * MLS_BLOCK_BYTES) / (end - start) * 1e-9;
	return err;
}

static int measure_engine(const struct mls_aead_engine *engine)
{
	static const uint8_t key[MLS_KEY_BYTES] = { 1 };
	struct mls_aead *aead;
	double seal, open;
	int err = mls_aead_new_with(&aead, engine, key);

	if (err)
		return err;
	err = measure(seal_all, aead, &seal);
	if (!err)
		err = measure(open_all, aead, &open);
	if (!err)
		printf("%-8s  seal %.2f GB/s  open %.2f GB/s\n", engine->name, seal, open);
	mls_aead_free(aead);
	return err;
}

int main(void)
{
	const struct mls_aead_engine *engines[] = { mls_aead_engine_openssl(), mls_aead_engine_ipsec_mb() };
	unsigned i;
	int err = 0;

	plain = mls_blocks_zalloc(NR_BLOCKS);
	sealed = mls_blocks_zalloc(NR_BLOCKS);
	if (!plain || !sealed)
		return 1;
	for (i = 0; !err && i < 2; i++)
		if (engines[i])
			err = measure_engine(engines[i]);
	mls_blocks_free(plain);
	mls_blocks_free(sealed);
	if (err)
		fprintf(stderr, "aead_speed: %s\n", mls_strerror(err));
	return err != 0;
}
