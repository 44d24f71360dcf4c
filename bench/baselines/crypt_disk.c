/* SPDX-License-Identifier: MPL-2.0 */
/*
 * crypt_disk.c - CryptDisk: in-place AES-256-XTS, what dm-crypt and LUKS do, behind the same FUSE.
 *
 * Confidentiality alone: no tags, no freshness, one device write for one request. Honestly tuned: each
 * thread keeps its expanded keys, so a block costs one call to set the tweak and one to encrypt; a request
 * is encrypted into the thread's bounce buffer and leaves in one device write; a read is decrypted where it
 * arrived. (ipsec-mb has no XTS; OpenSSL's uses the same AES instructions.)
 */
#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "0-bio/block_dev.h"
#include "base/buf.h"
#include "base/checked.h"
#include "base/endian.h"
#include "bench/baselines/baseline.h"

#define BOUNCE_BLOCKS 256u	/* 1 MiB, the largest FUSE request */

struct crypt_disk {
	struct baseline base;
	struct mls_block_dev *dev;	/* borrowed */
	uint8_t key[CRYPT_KEY_BYTES];
	pthread_key_t kit;		/* each thread's struct crypt_kit */
};

/* What a thread works with. */
struct crypt_kit {
	EVP_CIPHER_CTX *encrypt, *decrypt;
	uint8_t *bounce;
};

static void kit_free(void *arg)
{
	struct crypt_kit *kit = arg;

	if (!kit)
		return;
	EVP_CIPHER_CTX_free(kit->encrypt);
	EVP_CIPHER_CTX_free(kit->decrypt);
	mls_blocks_free(kit->bounce);
	free(kit);
}

static int kit_init(struct crypt_kit *kit, const uint8_t *key)
{
	kit->encrypt = EVP_CIPHER_CTX_new();
	kit->decrypt = EVP_CIPHER_CTX_new();
	kit->bounce = mls_blocks_alloc(BOUNCE_BLOCKS);
	if (!kit->encrypt || !kit->decrypt || !kit->bounce)
		return MLS_ENOMEM;
	if (EVP_EncryptInit_ex(kit->encrypt, EVP_aes_256_xts(), NULL, key, NULL) != 1 ||
	    EVP_DecryptInit_ex(kit->decrypt, EVP_aes_256_xts(), NULL, key, NULL) != 1)
		return MLS_EIO;
	return 0;
}

/* NULL: no memory, or OpenSSL doesn't take the key. */
static struct crypt_kit *kit_get(struct crypt_disk *d)
{
	struct crypt_kit *kit = pthread_getspecific(d->kit);

	if (kit)
		return kit;
	kit = calloc(1, sizeof *kit);
	if (!kit || kit_init(kit, d->key) || pthread_setspecific(d->kit, kit)) {
		kit_free(kit);
		return NULL;
	}
	return kit;
}

static int xts_blocks(EVP_CIPHER_CTX *ctx, uint64_t lba, uint32_t nr_blocks, const uint8_t *in, uint8_t *out)
{
	uint8_t tweak[16] = {0};
	int n;

	for (uint32_t i = 0; i < nr_blocks; i++) {
		mls_put_le64(tweak, lba + i);
		/* The direction is the context's own: -1. */
		if (EVP_CipherInit_ex(ctx, NULL, NULL, NULL, tweak, -1) != 1 ||
		    EVP_CipherUpdate(ctx, out + (size_t)i * MLS_BLOCK_BYTES, &n, in + (size_t)i * MLS_BLOCK_BYTES,
				     MLS_BLOCK_BYTES) != 1)
			return MLS_EIO;
	}
	return 0;
}

static int crypt_read(struct baseline *disk, uint64_t lba, uint32_t nr_blocks, void *data)
{
	struct crypt_disk *d = (struct crypt_disk *)disk;
	struct crypt_kit *kit = kit_get(d);
	int err;

	if (!kit)
		return MLS_ENOMEM;
	err = mls_block_dev_read(d->dev, lba, nr_blocks, data);
	return err ? err : xts_blocks(kit->decrypt, lba, nr_blocks, data, data);
}

static int crypt_write(struct baseline *disk, uint64_t lba, uint32_t nr_blocks, const void *data)
{
	struct crypt_disk *d = (struct crypt_disk *)disk;
	struct crypt_kit *kit = kit_get(d);
	const uint8_t *from = data;
	int err = kit ? 0 : MLS_ENOMEM;

	while (!err && nr_blocks) {
		uint32_t nr = (uint32_t)mls_min_u64(nr_blocks, BOUNCE_BLOCKS);

		err = xts_blocks(kit->encrypt, lba, nr, from, kit->bounce);
		if (!err)
			err = mls_block_dev_write(d->dev, lba, nr, kit->bounce);
		lba += nr;
		nr_blocks -= nr;
		from += (size_t)nr * MLS_BLOCK_BYTES;
	}
	return err;
}

static int crypt_flush(struct baseline *disk)
{
	return mls_block_dev_flush(((struct crypt_disk *)disk)->dev);
}

/* The caller's threads are gone but itself: theirs went with them. */
static int crypt_destroy(struct baseline *disk)
{
	struct crypt_disk *d = (struct crypt_disk *)disk;
	int err = crypt_flush(disk);

	kit_free(pthread_getspecific(d->kit));
	pthread_key_delete(d->kit);
	mls_wipe(d->key, sizeof d->key);
	free(d);
	return err;
}

int crypt_disk_new(struct baseline **disk, struct mls_block_dev *dev, const uint8_t key[CRYPT_KEY_BYTES])
{
	static const struct baseline_ops ops = {
		.read = crypt_read, .write = crypt_write, .flush = crypt_flush, .destroy = crypt_destroy};
	struct crypt_disk *d = calloc(1, sizeof *d);

	if (!d)
		return MLS_ENOMEM;
	if (pthread_key_create(&d->kit, kit_free)) {
		free(d);
		return MLS_ENOMEM;
	}
	d->base.ops = &ops;
	d->base.nr_blocks = dev->nr_blocks;
	d->dev = dev;
	memcpy(d->key, key, CRYPT_KEY_BYTES);
	*disk = &d->base;
	return 0;
}
