/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_leak.c - what lies on BACKING tells nothing: no plaintext, no key, no table of LBAs.
 *
 * Method   The linker puts us between the library and its keys (-Wl,--wrap), so each key that was ever
 *          expanded or derived is known, the master key is unwrapped by the test. A run writes known text
 *          that has no 16 bytes twice, in order and at random, until the index was flushed and compacted
 *          and segments cleaned, the disk has grown and a passphrase was added; after each session each
 *          16-byte window of BACKING, at any offset, is looked up among all
 *          windows of the text and of the keys, and each offset is tried as the start of a table of
 *          ascending LBAs. The scanner must find what the test plants.
 */
#include <check.h>
#include <stdio.h>

#include "1-crypto/kdf.h"
#include "5-disk/superblock.h"
#include "base/endian.h"
#include "tests/lib/check_run.h"
#include "tests/lib/tamper.h"
#include "tests/lib/test_rand.h"
#include "tests/unit/5-disk/disk_fixture.h"

#define WINDOW_BYTES 16u
#define DISK_BYTES (2 * MIB)
#define NR_BLOCKS (DISK_BYTES / MLS_BLOCK_BYTES)
#define NR_VERSIONS 4u
#define NR_KEYS_MAX 65536u

/* ---- Keys, as they pass by ---- */

static uint8_t (*keys_seen)[MLS_KEY_BYTES];
static unsigned nr_keys;

static void saw_key(const uint8_t key[MLS_KEY_BYTES])
{
	if (keys_seen && nr_keys < NR_KEYS_MAX)
		memcpy(keys_seen[nr_keys++], key, MLS_KEY_BYTES);
}

int __real_mls_aead_new(struct mls_aead **aead, const uint8_t key[MLS_KEY_BYTES]);
int __wrap_mls_aead_new(struct mls_aead **aead, const uint8_t key[MLS_KEY_BYTES]);
int __wrap_mls_aead_new(struct mls_aead **aead, const uint8_t key[MLS_KEY_BYTES])
{
	saw_key(key);
	return __real_mls_aead_new(aead, key);
}

int __real_mls_key_derive(const struct mls_keyring *keys, const char *label, const uint8_t *salt, uint8_t *key);
int __wrap_mls_key_derive(const struct mls_keyring *keys, const char *label, const uint8_t *salt, uint8_t *key);
int __wrap_mls_key_derive(const struct mls_keyring *keys, const char *label, const uint8_t *salt, uint8_t *key)
{
	int err = __real_mls_key_derive(keys, label, salt, key);

	if (!err)
		saw_key(key);
	return err;
}

/* The keyring gives the master key to none but a wrapping key: we bring our own. */
static void see_master_key(struct disk_fixture *f)
{
	uint8_t wrapping[MLS_KEY_BYTES] = { 7 }, nonce[MLS_NONCE_BYTES] = { 0 }, wrapped[MLS_KEY_BYTES],
		tag[MLS_TAG_BYTES], master[MLS_KEY_BYTES];
	struct mls_superblock sb;
	struct mls_keyring *keys;
	struct mls_aead *aead;

	ck_assert_int_eq(mls_superblock_read(f->dev, &f->secret, &sb, &keys), 0);
	ck_assert_int_eq(__real_mls_aead_new(&aead, wrapping), 0);
	ck_assert_int_eq(mls_keyring_wrap(keys, aead, nonce, NULL, 0, wrapped, tag), 0);
	ck_assert_int_eq(mls_aead_open(aead, nonce, NULL, 0, wrapped, sizeof wrapped, master, tag), 0);
	saw_key(master);
	saw_key((const uint8_t *)fixture_key);
	mls_aead_free(aead);
	mls_keyring_free(keys);
}

/* ---- Windows ---- */

/* All windows of a text, by hash; positions from 1, 0: free. */
struct windows {
	const uint8_t *text;
	uint32_t *at;
	size_t room;
};

static uint64_t window_hash(const uint8_t *p)
{
	uint64_t h = mls_get_le64(p) * 0x9e3779b97f4a7c15 ^ mls_get_le64(p + 8) * 0xc2b2ae3d27d4eb4f;

	return h ^ h >> 29;
}

/* The text is cut into pieces of `piece` bytes; a window lies within one. */
static void windows_init(struct windows *w, const uint8_t *text, size_t bytes, size_t piece)
{
	w->text = text;
	for (w->room = 1024; w->room < 3 * bytes; w->room *= 2)
		;
	w->at = calloc(w->room, sizeof *w->at);
	ck_assert_ptr_nonnull(w->at);
	for (size_t i = 0; i + WINDOW_BYTES <= bytes; i++) {
		size_t place = window_hash(text + i);

		if (i % piece > piece - WINDOW_BYTES)
			continue;
		while (w->at[place & (w->room - 1)])
			place++;
		w->at[place & (w->room - 1)] = (uint32_t)i + 1;
	}
}

static bool windows_have(const struct windows *w, const uint8_t *p)
{
	for (size_t place = window_hash(p); w->at[place & (w->room - 1)]; place++)
		if (memcmp(w->text + w->at[place & (w->room - 1)] - 1, p, WINDOW_BYTES) == 0)
			return true;
	return false;
}

/* ---- The scanner ---- */

struct found {
	uint64_t nr_text, nr_keys, nr_tables;
};

/* Three LBAs in a row, as in a WAL group, an SSTable, its index, a segment summary, or any like it. */
static bool is_table(const uint8_t *p, size_t left)
{
	for (size_t stride = 8; stride <= 48 && 2 * stride + 8 <= left; stride += 8) {
		uint64_t lba = mls_get_le64(p);

		if (lba > 0 && lba < NR_BLOCKS && mls_get_le64(p + stride) == lba + 1 &&
		    mls_get_le64(p + 2 * stride) == lba + 2)
			return true;
	}
	return false;
}

static struct found scan(const struct tamper_image *image, const struct windows *text, const struct windows *keys)
{
	size_t bytes = image->nr_blocks * MLS_BLOCK_BYTES;
	struct found found = { 0, 0, 0 };

	for (size_t i = 0; i + WINDOW_BYTES <= bytes; i++) {
		const uint8_t *p = image->bytes + i;

		found.nr_text += windows_have(text, p);
		found.nr_keys += windows_have(keys, p);
		found.nr_tables += is_table(p, bytes - i);
	}
	return found;
}

/* ---- The run ---- */

static uint8_t *text_block(uint8_t *text, uint64_t lba, uint64_t version)
{
	return text + (version * NR_BLOCKS + lba) * MLS_BLOCK_BYTES;
}

/* Letters, digits and signs at random: no 16 of them come twice. */
static uint8_t *text_new(void)
{
	size_t bytes = NR_VERSIONS * DISK_BYTES;
	uint8_t *text = malloc(bytes);
	struct test_rand r;

	ck_assert_ptr_nonnull(text);
	test_rand_seed(&r, 3);
	test_rand_fill(&r, text, bytes);
	for (size_t i = 0; i < bytes; i++)
		text[i] = (uint8_t)(' ' + text[i] % 95);
	return text;
}

static void write_text(struct mls_disk *disk, uint8_t *text, uint64_t lba, uint64_t version)
{
	ck_assert_int_eq(mls_disk_write(disk, lba * MLS_BLOCK_BYTES, text_block(text, lba, version),
					MLS_BLOCK_BYTES), 0);
}

/* Close, look at what lies there, open again. */
static struct mls_disk *look(struct disk_fixture *f, struct mls_disk *disk, const struct windows *text)
{
	struct tamper_image image;
	struct windows keys;
	struct found found;

	ck_assert_int_eq(mls_disk_close(disk), 0);
	ck_assert_uint_lt(nr_keys, NR_KEYS_MAX);
	windows_init(&keys, keys_seen[0], nr_keys * sizeof *keys_seen, MLS_KEY_BYTES);
	tamper_image_take(&image, f->dev);
	found = scan(&image, text, &keys);
	ck_assert_uint_eq(found.nr_text, 0);
	ck_assert_uint_eq(found.nr_keys, 0);
	ck_assert_uint_eq(found.nr_tables, 0);
	tamper_image_release(&image);
	free(keys.at);
	return fixture_open(f);
}

static const char passphrase[] = "correct horse battery staple, thrice over";

/* One more slot, and a little more space. */
static struct mls_disk *add_slot_and_grow(struct disk_fixture *f, struct mls_disk *disk)
{
	const struct mls_secret secret = { passphrase, sizeof passphrase - 1, true };

	ck_assert_int_eq(mls_disk_close(disk), 0);
	ck_assert_int_eq(mls_key_add(f->dev, &f->secret, &secret, MLS_KEY_SLOT_ANY, "for people", NULL), 0);
	saw_key((const uint8_t *)passphrase);
	disk = fixture_open(f);
	ck_assert_int_eq(mls_disk_resize(disk, DISK_BYTES + 64 * MLS_BLOCK_BYTES), 0);
	return disk;
}

static void run(struct disk_fixture *f, uint8_t *text, const struct windows *windows)
{
	struct mls_disk *disk = fixture_open(f);
	struct mls_disk_stat stat;
	struct test_rand r;

	test_rand_seed(&r, 4);
	for (uint64_t lba = 0; lba < NR_BLOCKS; lba++)
		write_text(disk, text, lba, 0);
	ck_assert_int_eq(mls_disk_sync(disk), 0);
	for (unsigned i = 0; i < 6 * NR_BLOCKS; i++) {
		uint64_t lba = test_rand_below(&r, NR_BLOCKS), version = test_rand_below(&r, NR_VERSIONS);

		if (i % 5 == 0)		/* part of a block, of the same text */
			ck_assert_int_eq(mls_disk_write(disk, lba * MLS_BLOCK_BYTES + 100,
							text_block(text, lba, version) + 100, 3000), 0);
		else
			write_text(disk, text, lba, version);
		if (i % 300 == 0)
			ck_assert_int_eq(mls_disk_sync(disk), 0);
		if (i % 700 == 0)
			disk = look(f, disk, windows);
		if (i == 1000)
			disk = add_slot_and_grow(f, disk);
	}
	for (uint64_t lba = 0; lba < NR_BLOCKS; lba++)	/* and an SSTable, a WAL in order */
		write_text(disk, text, lba, 1);
	mls_disk_stat(disk, &stat);
	ck_assert_uint_gt(stat.compactions, 0);
	ck_assert_uint_gt(stat.cleaned_segments, 0);
	ck_assert_int_eq(mls_disk_close(disk), 0);
}

START_TEST(backing_holds_no_plaintext_no_key_and_no_table)
{
	uint8_t *text = text_new();
	struct windows text_windows, key_windows;
	struct tamper_image image;
	struct disk_fixture f;
	struct found found;

	keys_seen = malloc(NR_KEYS_MAX * sizeof *keys_seen);
	ck_assert_ptr_nonnull(keys_seen);
	nr_keys = 0;
	fixture_init(&f, DISK_BYTES, 0);
	f.opts.memtable_records = 128;
	see_master_key(&f);
	windows_init(&text_windows, text, NR_VERSIONS * DISK_BYTES, MLS_BLOCK_BYTES);
	run(&f, text, &text_windows);
	ck_assert_uint_lt(nr_keys, NR_KEYS_MAX);
	windows_init(&key_windows, keys_seen[0], nr_keys * sizeof *keys_seen, MLS_KEY_BYTES);
	tamper_image_take(&image, f.dev);
	printf("%llu blocks of BACKING, %u keys\n", (unsigned long long)image.nr_blocks, nr_keys);

	found = scan(&image, &text_windows, &key_windows);
	ck_assert_uint_eq(found.nr_text, 0);
	ck_assert_uint_eq(found.nr_keys, 0);
	ck_assert_uint_eq(found.nr_tables, 0);

	/* The scanner sees one of each, wherever it lies. */
	memcpy(image.bytes + 5 * MLS_BLOCK_BYTES + 4090, text_block(text, 77, 2) + 1001, WINDOW_BYTES);
	memcpy(image.bytes + 7 * MLS_BLOCK_BYTES + 3, keys_seen[nr_keys / 2] + 5, WINDOW_BYTES);
	for (uint64_t i = 0; i < 3; i++)
		mls_put_le64(image.bytes + 9 * MLS_BLOCK_BYTES + 1 + 32 * i, 300 + i);
	found = scan(&image, &text_windows, &key_windows);
	ck_assert_uint_eq(found.nr_text, 1);
	ck_assert_uint_eq(found.nr_keys, 1);
	ck_assert_uint_ge(found.nr_tables, 1);

	tamper_image_release(&image);
	fixture_release(&f);
	free(text_windows.at);
	free(key_windows.at);
	free(keys_seen);
	keys_seen = NULL;
	free(text);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("leak");
	TCase *tc = tcase_create("leak");

	tcase_set_timeout(tc, 300);
	tcase_add_test(tc, backing_holds_no_plaintext_no_key_and_no_table);
	suite_add_tcase(suite, tc);
	return check_run(suite);
}
