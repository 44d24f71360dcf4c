/* SPDX-License-Identifier: MPL-2.0 */
/*
 * fuzz_superblock.c - both superblocks and their key slots, as the host shows them.
 *
 * Input    a byte of flags (1: checksum again, 2: MAC again, 4: both copies, 8: look at it without a key, too),
 *          then edits of a good superblock.
 */
#include <string.h>

#include "5-disk/superblock.h"
#include "tests/fuzz/fuzz.h"

static const struct mls_secret secret = { "a key file of thirty-two bytes .", 32, false };

static struct mls_superblock_disk good;
static struct mls_keyring *good_keys;
static struct mls_block_dev *dev;

static void prepare(void)
{
	struct mls_format_opts opts = { .disk_bytes = 1 << 20 };
	uint8_t uuid[MLS_UUID_BYTES] = { 5 };
	struct mls_superblock sb;
	struct mls_geometry geo;

	if (dev)
		return;
	(void)fuzz_keys();
	dev = fuzz_dev_new(mls_backing_bytes(1 << 20) / MLS_BLOCK_BYTES);
	fuzz_must(mls_geometry_init(&geo, &opts, dev->nr_blocks));
	fuzz_must(mls_superblock_new(&sb, &good_keys, &geo, uuid, &secret, 0, "fuzz"));
	fuzz_must(mls_superblock_encode(&good, &sb, good_keys));
}

/* Costs that are possible but large would only make the fuzzer slow: leave those to the unit test. */
static void tame(struct mls_superblock_disk *sb)
{
	for (unsigned i = 0; i < MLS_NR_KEY_SLOTS; i++)
		if (sb->slots[i].kdf == 2)
			sb->slots[i].scrypt_log_n |= 0x80;
}

static void seal(struct mls_superblock_disk *sb, unsigned flags)
{
	uint8_t key[MLS_KEY_BYTES];

	if (flags & 1)
		fuzz_must(mls_sha256(sb, offsetof(struct mls_superblock_disk, checksum), sb->checksum));
	if (flags & 2) {
		fuzz_must(mls_key_derive(good_keys, "superblock", NULL, key));
		fuzz_must(mls_hmac_sha256(key, sb, offsetof(struct mls_superblock_disk, mac), sb->mac));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static _Alignas(MLS_BLOCK_BYTES) struct mls_superblock_disk sb;
	struct fuzz_input in = { data, size };
	struct mls_key_info info[MLS_NR_KEY_SLOTS];
	struct mls_keyring *keys;
	struct mls_superblock out;
	struct mls_probe probe;
	unsigned flags;

	prepare();
	flags = (unsigned)fuzz_take(&in, 1);
	sb = good;
	fuzz_edit(&in, (uint8_t *)&sb, sizeof sb);
	tame(&sb);
	seal(&sb, flags);
	fuzz_must(mls_block_dev_write(dev, MLS_SUPERBLOCK_HBA_0, 1, &sb));
	if (!(flags & 4))
		sb = good;
	fuzz_must(mls_block_dev_write(dev, MLS_SUPERBLOCK_HBA_1, 1, &sb));
	if (mls_superblock_read(dev, &secret, &out, &keys) == 0)
		mls_keyring_free(keys);
	if (flags & 8) {
		(void)!mls_probe(dev, &probe);
		(void)!mls_key_list(dev, info);
	}
	return 0;
}

size_t fuzz_seed(unsigned i, uint8_t *out, size_t room)
{
	static const uint16_t fields[] = { 8, 12, 32, 40, 48, 56, 64, 1984, 1985, 1986, 2000, 4032, 4064 };
	size_t nr = sizeof fields / sizeof *fields;

	(void)room;
	if (i >= 2 * nr)
		return 0;
	out[0] = i < nr ? 7 : 3 | 8;
	for (unsigned k = 0; k < 8; k++) {
		out[1 + 3 * k] = (uint8_t)(fields[i % nr] + k);
		out[2 + 3 * k] = (uint8_t)((fields[i % nr] + k) >> 8);
		out[3 + 3 * k] = i < nr ? 0xff : 0;
	}
	return i < nr ? 25 : 7;
}
