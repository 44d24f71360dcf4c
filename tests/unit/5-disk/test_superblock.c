/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_superblock.c - the root is believed as a whole or not at all: damage, forgery, a wrong key and a
 * foreign device are told apart, one good copy is enough, and a removed key stays removed.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "0-bio/block_dev.h"
#include "5-disk/key_slot.h"
#include "5-disk/superblock.h"
#include "base/buf.h"
#include "base/endian.h"
#include "base/rand.h"
#include "tests/lib/check_run.h"

#define SB_BYTES sizeof(struct mls_superblock_disk)
#define CHECKSUM_AT offsetof(struct mls_superblock_disk, checksum)

static const uint8_t uuid[16] = "superblock test";
static const struct mls_secret key_a = { .data = "0123456789abcdef0123456789abcdef", .bytes = 32 };
static const struct mls_secret key_b = { .data = "0123456789abcdef0123456789abcdeF", .bytes = 32 };
static const struct mls_secret words = { .data = "correct horse", .bytes = 13, .passphrase = true };
static const uint64_t hba_of[2] = { MLS_SUPERBLOCK_HBA_0, MLS_SUPERBLOCK_HBA_1 };

static struct mls_block_dev *dev;
static struct mls_superblock sb;
static struct mls_keyring *keys;
static unsigned nr_warnings;

static void count_warnings(void *arg, enum mls_log_level level, const char *message)
{
	(void)arg;
	(void)message;
	nr_warnings += level == MLS_LOG_WARNING;
}

static struct mls_geometry some_geometry(void)
{
	const struct mls_format_opts opts = { .disk_bytes = 8 << 20 };
	struct mls_geometry geo = { 0 };

	ck_assert_int_eq(mls_geometry_init(&geo, &opts, mls_backing_bytes(opts.disk_bytes) / MLS_BLOCK_BYTES), 0);
	return geo;
}

/* A formatted device with key_a in slot 0. */
static void setup(void)
{
	struct mls_geometry geo = some_geometry();

	mls_set_logger(count_warnings, NULL);
	nr_warnings = 0;
	keys = NULL;
	ck_assert_int_eq(mls_block_dev_mem_new(&dev, mls_geometry_end(&geo)), 0);
	ck_assert_int_eq(mls_superblock_new(&sb, &keys, &geo, uuid, &key_a, 0, "first"), 0);
	ck_assert_int_eq(mls_superblock_write(dev, keys, &sb), 0);
}

static void teardown(void)
{
	mls_keyring_free(keys);
	mls_block_dev_destroy(dev);
	mls_set_logger(NULL, NULL);
}

static int read_with(const struct mls_secret *secret, struct mls_superblock *out)
{
	struct mls_superblock got;
	struct mls_keyring *opened = NULL;
	int err = mls_superblock_read(dev, secret, &got, &opened);

	ck_assert((err == 0) == (opened != NULL));
	if (!err && out)
		*out = got;
	mls_keyring_free(opened);
	return err;
}

static void load(unsigned copy, struct mls_superblock_disk *disk)
{
	uint8_t *block = mls_blocks_alloc(1);

	ck_assert_int_eq(mls_block_dev_read(dev, hba_of[copy], 1, block), 0);
	memcpy(disk, block, SB_BYTES);
	mls_blocks_free(block);
}

static void store(unsigned copy, const void *disk)
{
	uint8_t *block = mls_blocks_alloc(1);

	memcpy(block, disk, SB_BYTES);
	ck_assert_int_eq(mls_block_dev_write(dev, hba_of[copy], 1, block), 0);
	mls_blocks_free(block);
}

static void fix_checksum(struct mls_superblock_disk *disk)
{
	ck_assert_int_eq(mls_sha256(disk, CHECKSUM_AT, disk->checksum), 0);
}

START_TEST(what_was_written_is_read)
{
	struct mls_superblock got;
	struct mls_keyring *opened = NULL;
	uint8_t key_1[32], key_2[32];

	ck_assert_int_eq(mls_superblock_read(dev, &key_a, &got, &opened), 0);
	ck_assert_mem_eq(got.uuid, uuid, sizeof uuid);
	ck_assert_uint_eq(got.generation, 1);
	ck_assert_mem_eq(&got.geo, &sb.geo, sizeof got.geo);
	ck_assert_mem_eq(got.slots, sb.slots, sizeof got.slots);
	ck_assert_uint_eq(got.opened_slot, 0);
	ck_assert_str_eq((const char *)got.slots[0].label, "first");
	ck_assert_int_eq(mls_key_derive(keys, "x", NULL, key_1), 0);
	ck_assert_int_eq(mls_key_derive(opened, "x", NULL, key_2), 0);
	ck_assert_mem_eq(key_1, key_2, sizeof key_1);
	ck_assert_uint_eq(nr_warnings, 0);
	mls_keyring_free(opened);
}
END_TEST

START_TEST(wrong_key_is_told_from_damage)
{
	const struct mls_secret empty = { .data = "", .bytes = 0 };

	ck_assert_int_eq(read_with(&key_b, NULL), MLS_EKEY);
	ck_assert_int_eq(read_with(&words, NULL), MLS_EKEY);
	ck_assert_int_eq(read_with(&empty, NULL), MLS_EINVAL);
}
END_TEST

START_TEST(what_is_no_disk_is_told)
{
	static const uint8_t zeros[SB_BYTES];
	struct mls_block_dev *whole = dev;

	store(0, zeros);
	store(1, zeros);
	ck_assert_int_eq(read_with(&key_a, NULL), MLS_EFORMAT);
	for (uint64_t nr = 1; nr <= 17; nr++) {
		ck_assert_int_eq(mls_block_dev_mem_new(&dev, nr), 0);
		ck_assert_int_eq(read_with(&key_a, NULL), MLS_EFORMAT);
		mls_block_dev_destroy(dev);
	}
	dev = whole;
}
END_TEST

START_TEST(every_flip_in_one_copy_leaves_the_other)
{
	struct mls_superblock_disk good, bad;
	struct mls_superblock got;

	load(0, &good);
	for (unsigned copy = 0; copy < 2; copy++) {
		for (size_t i = 0; i < SB_BYTES; i++) {
			bad = good;
			((uint8_t *)&bad)[i] ^= (uint8_t)(1u << (i & 7));
			store(copy, &bad);
			nr_warnings = 0;
			ck_assert_msg(read_with(&key_a, &got) == 0, "copy %u byte %zu", copy, i);
			ck_assert_uint_eq(nr_warnings, 1);
			ck_assert_uint_eq(got.good_copy, !copy);
			ck_assert_mem_eq(got.slots, sb.slots, sizeof got.slots);
		}
		store(copy, &good);
	}
}
END_TEST

START_TEST(every_flip_in_both_copies_is_refused)
{
	struct mls_superblock_disk good, bad;

	load(0, &good);
	for (size_t i = 0; i < SB_BYTES; i++) {
		int want = i < 12 ? MLS_EFORMAT : MLS_EAUTH;	/* magic, version */

		bad = good;
		((uint8_t *)&bad)[i] ^= (uint8_t)(1u << (i & 7));
		store(0, &bad);
		store(1, &bad);
		ck_assert_msg(read_with(&key_a, NULL) == want, "byte %zu", i);
	}
}
END_TEST

/* The adversary recomputes the checksum: he has no key for the MAC. */
START_TEST(every_flip_with_a_right_checksum_is_refused)
{
	struct mls_superblock_disk good, bad;

	load(0, &good);
	for (size_t i = 12; i < CHECKSUM_AT; i++) {
		int err;

		bad = good;
		((uint8_t *)&bad)[i] ^= (uint8_t)(1u << (i & 7));
		fix_checksum(&bad);
		store(0, &bad);
		store(1, &bad);
		err = read_with(&key_a, NULL);
		ck_assert_msg(err == MLS_EAUTH || err == MLS_EKEY, "byte %zu: %d", i, err);
	}
}
END_TEST

START_TEST(geometry_from_another_disk_is_refused)
{
	struct mls_superblock other = sb;
	struct mls_keyring *other_keys = NULL;
	struct mls_superblock_disk disk;

	/* Its own checksum and MAC are right, but the MAC is under another master key. */
	other.geo.disk_blocks++;
	ck_assert_int_eq(mls_keyring_new(&other_keys, (const uint8_t *)key_b.data, uuid), 0);
	ck_assert_int_eq(mls_superblock_encode(&disk, &other, other_keys), 0);
	mls_keyring_free(other_keys);
	store(0, &disk);
	store(1, &disk);
	ck_assert_int_eq(read_with(&key_a, NULL), MLS_EAUTH);
}
END_TEST

START_TEST(shorter_device_is_refused)
{
	struct mls_block_dev *whole = dev;
	struct mls_superblock_disk disk;

	load(0, &disk);
	ck_assert_int_eq(mls_block_dev_mem_new(&dev, whole->nr_blocks - 1), 0);
	store(0, &disk);
	store(1, &disk);
	ck_assert_int_eq(read_with(&key_a, NULL), MLS_EAUTH);
	mls_block_dev_destroy(dev);
	ck_assert_int_eq(mls_block_dev_mem_new(&dev, whole->nr_blocks + 1), 0);
	store(0, &disk);
	ck_assert_int_eq(read_with(&key_a, NULL), 0);	/* longer is fine; so is one copy */
	mls_block_dev_destroy(dev);
	dev = whole;
}
END_TEST

/* Goal: a crash in a rewrite leaves the old or the new one. Method: all that can be on the medium. */
START_TEST(crash_in_a_rewrite_leaves_old_or_new)
{
	struct mls_superblock_disk old_disk, new_disk, torn;
	struct mls_superblock changed = sb, got;

	load(0, &old_disk);
	changed.generation++;
	ck_assert_int_eq(mls_key_slot_fill(&changed.slots[3], keys, &key_b, 0, NULL), 0);
	ck_assert_int_eq(mls_superblock_encode(&new_disk, &changed, keys), 0);
	for (size_t cut = 0; cut <= SB_BYTES; cut += 64) {
		for (unsigned copy = 0; copy < 2; copy++) {
			torn = old_disk;
			memcpy(&torn, &new_disk, cut);
			store(copy, &torn);
			store(!copy, copy == 0 ? &old_disk : &new_disk);
			ck_assert_int_eq(read_with(&key_a, &got), 0);
			ck_assert_uint_eq(got.generation, copy || cut == SB_BYTES ? 2 : 1);
		}
	}
	store(0, &new_disk);
	store(1, &new_disk);
	ck_assert_int_eq(read_with(&key_b, &got), 0);
	ck_assert_uint_eq(got.opened_slot, 3);
}
END_TEST

START_TEST(removed_key_stays_removed_beside_a_newer_copy)
{
	struct mls_superblock_disk old_disk, new_disk;
	struct mls_superblock changed = sb, got;

	load(0, &old_disk);
	changed.generation++;
	ck_assert_int_eq(mls_key_slot_fill(&changed.slots[0], keys, &key_b, 0, NULL), 0);
	ck_assert_int_eq(mls_superblock_encode(&new_disk, &changed, keys), 0);
	for (unsigned copy = 0; copy < 2; copy++) {
		store(copy, &old_disk);
		store(!copy, &new_disk);
		ck_assert_int_eq(read_with(&key_a, NULL), MLS_EKEY);
		ck_assert_int_eq(read_with(&key_b, &got), 0);
		ck_assert_uint_eq(got.generation, 2);
		ck_assert_uint_eq(got.good_copy, !copy);
	}
}
END_TEST

START_TEST(forged_newer_copy_doesnt_hide_the_good_one)
{
	struct mls_superblock_disk good, forged;
	struct mls_superblock got;

	load(0, &good);
	forged = good;
	mls_put_le64(forged.generation, 99);
	memset(&forged.slots, 0, sizeof forged.slots);
	fix_checksum(&forged);
	for (unsigned copy = 0; copy < 2; copy++) {
		store(copy, &forged);
		store(!copy, &good);
		ck_assert_int_eq(read_with(&key_a, &got), 0);
		ck_assert_uint_eq(got.generation, 1);
	}
}
END_TEST

/* ---- Order of writing ---- */

struct order_dev {
	struct mls_block_dev base;	/* first */
	uint64_t order[8];		/* HBA written, or UINT64_MAX for a flush */
	unsigned nr, fail_at;		/* operations from 1; 0: never */
};

static int order_note(struct mls_block_dev *base, uint64_t what)
{
	struct order_dev *d = (struct order_dev *)base;

	d->order[d->nr++] = what;
	return d->nr == d->fail_at ? MLS_EIO : 0;
}

static int order_write(struct mls_block_dev *base, struct mls_io *ios, unsigned nr)
{
	ck_assert_uint_eq(nr, 1);
	return order_note(base, ios[0].hba);
}

static int order_flush(struct mls_block_dev *base)
{
	return order_note(base, UINT64_MAX);
}

static const struct mls_block_dev_ops order_ops = { .write = order_write, .flush = order_flush };

START_TEST(the_good_copy_is_overwritten_last)
{
	for (unsigned good = 0; good < 2; good++) {
		struct order_dev d = { .base = { .ops = &order_ops, .nr_blocks = 100 } };

		sb.good_copy = good;
		ck_assert_int_eq(mls_superblock_write(&d.base, keys, &sb), 0);
		ck_assert_uint_eq(d.nr, 4);
		ck_assert_uint_eq(d.order[0], hba_of[!good]);
		ck_assert_uint_eq(d.order[1], UINT64_MAX);
		ck_assert_uint_eq(d.order[2], hba_of[good]);
		ck_assert_uint_eq(d.order[3], UINT64_MAX);
	}
}
END_TEST

START_TEST(failed_write_stops_the_rewrite)
{
	for (unsigned n = 1; n <= 4; n++) {
		struct order_dev d = { .base = { .ops = &order_ops, .nr_blocks = 100 }, .fail_at = n };

		ck_assert_int_eq(mls_superblock_write(&d.base, keys, &sb), MLS_EIO);
		ck_assert_uint_eq(d.nr, n);	/* nothing after the failure */
	}
}
END_TEST

/* ---- Key slots ---- */

START_TEST(secrets_choose_their_kdf)
{
	const struct mls_secret short_file = { .data = words.data, .bytes = words.bytes };
	const struct mls_secret long_words = { .data = key_a.data, .bytes = 32, .passphrase = true };
	const struct mls_secret *const secrets[] = { &words, &short_file, &long_words, &key_a };
	struct mls_key_slot_disk slot = { 0 };
	struct mls_keyring *opened;

	for (size_t i = 0; i < 4; i++) {
		ck_assert_int_eq(mls_key_slot_fill(&slot, keys, secrets[i], 14, "x"), 0);
		ck_assert_uint_eq(slot.kdf, i < 3 ? MLS_SLOT_KDF_SCRYPT : MLS_SLOT_KDF_HKDF);
		ck_assert_uint_eq(slot.scrypt_log_n, i < 3 ? 14 : 0);
		opened = NULL;
		ck_assert_int_eq(mls_key_slot_open(&slot, uuid, secrets[i], &opened), 0);
		mls_keyring_free(opened);
		ck_assert_int_eq(mls_key_slot_open(&slot, uuid, &key_b, &opened), MLS_EKEY);
		ck_assert_int_eq(mls_key_slot_open(&slot, (const uint8_t *)"another disk....", secrets[i], &opened),
				 MLS_EKEY);
	}
	/* The same words typed or in a file are the same secret. */
	ck_assert_int_eq(mls_key_slot_fill(&slot, keys, &words, 14, NULL), 0);
	opened = NULL;
	ck_assert_int_eq(mls_key_slot_open(&slot, uuid, &short_file, &opened), 0);
	mls_keyring_free(opened);
}
END_TEST

START_TEST(same_secret_twice_gives_unrelated_slots)
{
	struct mls_key_slot_disk one = { 0 }, two = { 0 };

	ck_assert_int_eq(mls_key_slot_fill(&one, keys, &key_a, 0, NULL), 0);
	ck_assert_int_eq(mls_key_slot_fill(&two, keys, &key_a, 0, NULL), 0);
	ck_assert_mem_ne(one.salt, two.salt, sizeof one.salt);
	ck_assert_mem_ne(one.wrapped, two.wrapped, sizeof one.wrapped);
}
END_TEST

START_TEST(kdf_cost_is_bounded_both_ways)
{
	struct mls_key_slot_disk slot = { 0 }, evil;
	struct mls_keyring *opened = NULL;

	ck_assert_int_eq(mls_key_slot_fill(&slot, keys, &words, 13, NULL), MLS_EINVAL);
	ck_assert_int_eq(mls_key_slot_fill(&slot, keys, &words, 23, NULL), MLS_EINVAL);
	ck_assert_int_eq(mls_key_slot_fill(&slot, keys, &words, 14, NULL), 0);
	for (unsigned log_n = 0; log_n < 256; log_n++) {
		if (log_n >= MLS_SCRYPT_LOG_N_MIN && log_n <= MLS_SCRYPT_LOG_N_MAX)
			continue;
		evil = slot;
		evil.scrypt_log_n = (uint8_t)log_n;
		ck_assert_int_eq(mls_key_slot_open(&evil, uuid, &words, &opened), MLS_EKEY);
	}
	evil = slot;
	evil.kdf = MLS_SLOT_KDF_HKDF;	/* made cheap: another wrapping key */
	ck_assert_int_eq(mls_key_slot_open(&evil, uuid, &words, &opened), MLS_EKEY);
	evil = slot;
	evil.kdf = 0;
	ck_assert_int_eq(mls_key_slot_open(&evil, uuid, &words, &opened), MLS_EKEY);
	evil = slot;
	evil.state = 2;
	ck_assert_int_eq(mls_key_slot_open(&evil, uuid, &words, &opened), MLS_EKEY);
	ck_assert_ptr_null(opened);
}
END_TEST

/* The linker gives us this one: how much memory the machine has, is the test's to say. */
static long memory_pages;
long __real_sysconf(int name);
long __wrap_sysconf(int name);
long __wrap_sysconf(int name)
{
	return name == _SC_PHYS_PAGES && memory_pages ? memory_pages : __real_sysconf(name);
}

START_TEST(kdf_takes_half_of_the_memory_at_most)
{
	const long mib = (1 << 20) / __real_sysconf(_SC_PAGESIZE);
	struct mls_key_slot_disk slot = { 0 }, evil;
	struct mls_keyring *opened = NULL;

	ck_assert_int_eq(mls_key_slot_fill(&slot, keys, &words, 18, NULL), 0);	/* 256 MiB */
	memory_pages = 511 * mib;
	ck_assert_int_eq(mls_key_slot_fill(&evil, keys, &words, 18, NULL), MLS_ENOMEM);
	ck_assert_int_eq(mls_key_slot_open(&slot, uuid, &words, &opened), MLS_EKEY);
	ck_assert_ptr_null(opened);
	memory_pages = 512 * mib;
	ck_assert_int_eq(mls_key_slot_open(&slot, uuid, &words, &opened), 0);
	mls_keyring_free(opened);
	/* A header that asks for all there may be: were it tried, the 4 GiB would show in the time. */
	evil = slot;
	evil.scrypt_log_n = MLS_SCRYPT_LOG_N_MAX;
	ck_assert_int_eq(mls_key_slot_open(&evil, uuid, &words, &opened), MLS_EKEY);
	/* What isn't stretched needs none; what we take by default is always tried. */
	memory_pages = 1;
	ck_assert_int_eq(mls_key_slot_fill(&slot, keys, &words, 0, NULL), 0);
	ck_assert_int_eq(mls_key_slot_open(&slot, uuid, &words, &opened), 0);
	mls_keyring_free(opened);
	ck_assert_int_eq(mls_key_slot_fill(&slot, keys, &key_a, 0, NULL), 0);
	ck_assert_int_eq(mls_key_slot_open(&slot, uuid, &key_a, &opened), 0);
	mls_keyring_free(opened);
	slot.scrypt_log_n = 255;		/* it has no cost, whatever is written there */
	ck_assert_int_eq(mls_key_slot_open(&slot, uuid, &key_a, &opened), MLS_EKEY);
	memory_pages = 0;
}
END_TEST

START_TEST(long_label_is_cut)
{
	struct mls_key_slot_disk slot = { 0 };
	char label[100];

	memset(label, 'x', sizeof label - 1);
	label[sizeof label - 1] = '\0';
	ck_assert_int_eq(mls_key_slot_fill(&slot, keys, &key_a, 0, label), 0);
	ck_assert_uint_eq(strlen((const char *)slot.label), 39);
}
END_TEST

struct failing_source {
	unsigned nr, fail_at;
};

static int failing_random(void *arg, void *out, size_t bytes)
{
	struct failing_source *source = arg;

	memset(out, 0x5a, bytes);
	return ++source->nr == source->fail_at ? MLS_EIO : 0;
}

/* Goal: no key is ever made of bytes that aren't random. Method: fail call 1, 2, ... of the source. */
START_TEST(failing_random_source_makes_no_key)
{
	struct failing_source source = { 0 };

	for (;;) {
		struct mls_superblock made;
		struct mls_keyring *ring = NULL;
		int err;

		source.nr = 0;
		source.fail_at++;
		mls_rand_set_source(failing_random, &source);
		err = mls_superblock_new(&made, &ring, &sb.geo, uuid, &key_a, 0, NULL);
		mls_rand_set_source(NULL, NULL);
		ck_assert_int_eq(err, source.nr >= source.fail_at ? MLS_EIO : 0);
		ck_assert((ring != NULL) == (err == 0));
		mls_keyring_free(ring);
		if (!err)
			break;
	}
	ck_assert_uint_eq(source.nr, 2);	/* the master key and the slot's salt */
}
END_TEST

/* ---- Probe ---- */

START_TEST(probe_says_what_is_there)
{
	static const uint8_t zeros[SB_BYTES];
	struct mls_superblock_disk disk;
	struct mls_probe probe = { 0 };

	for (unsigned damaged = 0; damaged < 4; damaged++) {
		ck_assert_int_eq(mls_probe(dev, &probe), 0);
		ck_assert(probe.is_mlsdisk);
		ck_assert_mem_eq(probe.uuid, uuid, sizeof uuid);
		ck_assert_uint_eq(probe.disk_bytes, sb.geo.disk_blocks * MLS_BLOCK_BYTES);
		ck_assert_uint_eq(probe.nr_slots_used, 1);
		load(damaged & 1, &disk);
		disk.checksum[0] ^= 1;
		store(damaged & 1, &disk);
	}
	store(0, zeros);
	ck_assert_int_eq(mls_probe(dev, &probe), 0);
	ck_assert(probe.is_mlsdisk);
	store(1, zeros);
	ck_assert_int_eq(mls_probe(dev, &probe), 0);
	ck_assert(!probe.is_mlsdisk);
	ck_assert_uint_eq(probe.disk_bytes, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("superblock");
	TCase *tc = tcase_create("superblock");

	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, what_was_written_is_read);
	tcase_add_test(tc, wrong_key_is_told_from_damage);
	tcase_add_test(tc, what_is_no_disk_is_told);
	tcase_add_test(tc, every_flip_in_one_copy_leaves_the_other);
	tcase_add_test(tc, every_flip_in_both_copies_is_refused);
	tcase_add_test(tc, every_flip_with_a_right_checksum_is_refused);
	tcase_add_test(tc, geometry_from_another_disk_is_refused);
	tcase_add_test(tc, shorter_device_is_refused);
	tcase_add_test(tc, crash_in_a_rewrite_leaves_old_or_new);
	tcase_add_test(tc, removed_key_stays_removed_beside_a_newer_copy);
	tcase_add_test(tc, forged_newer_copy_doesnt_hide_the_good_one);
	tcase_add_test(tc, the_good_copy_is_overwritten_last);
	tcase_add_test(tc, failed_write_stops_the_rewrite);
	tcase_add_test(tc, secrets_choose_their_kdf);
	tcase_add_test(tc, same_secret_twice_gives_unrelated_slots);
	tcase_add_test(tc, kdf_cost_is_bounded_both_ways);
	tcase_add_test(tc, kdf_takes_half_of_the_memory_at_most);
	tcase_add_test(tc, long_label_is_cut);
	tcase_add_test(tc, failing_random_source_makes_no_key);
	tcase_add_test(tc, probe_says_what_is_there);
	suite_add_tcase(suite, tc);
	return check_run(suite);
}
