/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_store_file.c - the register in a file: what was advanced to is what is read, or the one before
 * if the last write was torn, or an error; never something else. Nobody else's file is touched.
 */
#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "format/mlsdisk_format.h"
#include "tests/lib/check_run.h"
#include "trust/store.h"
#include "tests/lib/test_log.h"

#define FILE_BYTES (2 * MLS_BLOCK_BYTES)
#define SLOT_BYTES sizeof(struct mls_trust_slot_disk)

static char dir[64], path[128], uri[160];
static const uint8_t uuid_a[16] = "disk A", uuid_b[16] = "disk B", key_a[32] = "key A", key_b[32] = "key B";

static void setup(void)
{
	mls_set_logger(test_log_quiet, NULL);
	snprintf(dir, sizeof dir, "/tmp/test_store.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/state/mlsdisk/a.trust", dir);
	snprintf(uri, sizeof uri, "file:%s", path);
}

static void teardown(void)
{
	char command[128];

	snprintf(command, sizeof command, "rm -r %s", dir);
	ck_assert_int_eq(system(command), 0);
	mls_set_logger(NULL, NULL);
}

static struct mls_trusted_store *open_store(const uint8_t uuid[16], const uint8_t key[32])
{
	struct mls_trusted_store *store = NULL;

	ck_assert_int_eq(mls_trusted_store_open(&store, uri, uuid), 0);
	ck_assert_int_eq(store->ops->set_key(store, key), 0);
	return store;
}

static struct mls_trust trust_of(const uint8_t uuid[16], uint64_t sync_id)
{
	struct mls_trust trust = { .sync_id = sync_id };

	memcpy(trust.uuid, uuid, 16);
	memset(trust.digest, (int)(sync_id * 7), sizeof trust.digest);
	return trust;
}

static int advance(struct mls_trusted_store *store, uint64_t sync_id)
{
	struct mls_trust trust = trust_of(uuid_a, sync_id);

	return store->ops->advance(store, &trust);
}

/* What a process that opens the store now reads. */
static int read_anew(const uint8_t uuid[16], const uint8_t key[32], struct mls_trust *trust)
{
	struct mls_trusted_store *store = NULL;
	int err = mls_trusted_store_open(&store, uri, uuid);

	if (!err)
		err = store->ops->set_key(store, key);
	if (!err)
		err = store->ops->read(store, trust);
	mls_trusted_store_destroy(store);
	return err;
}

static void make_file(uint64_t sync_id_from, uint64_t sync_id_to)
{
	struct mls_trusted_store *store = open_store(uuid_a, key_a);

	for (uint64_t id = sync_id_from; id <= sync_id_to; id++)
		ck_assert_int_eq(advance(store, id), 0);
	mls_trusted_store_destroy(store);
}

static void load_file(uint8_t image[FILE_BYTES])
{
	FILE *f = fopen(path, "r");

	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fread(image, 1, FILE_BYTES, f), FILE_BYTES);
	ck_assert_int_eq(fgetc(f), EOF);
	fclose(f);
}

static void save_file(const void *image, size_t bytes)
{
	FILE *f = fopen(path, "w");

	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(image, 1, bytes, f), bytes);
	ck_assert_int_eq(fclose(f), 0);
}

START_TEST(holds_the_last_advance)
{
	struct mls_trust want, got;

	for (uint64_t id = 1; id < 8; id++) {
		make_file(id, id);
		want = trust_of(uuid_a, id);
		memset(&got, 0, sizeof got);
		ck_assert_int_eq(read_anew(uuid_a, key_a, &got), 0);
		ck_assert_mem_eq(&got, &want, sizeof got);
	}
	make_file(8, 50);
	ck_assert_int_eq(read_anew(uuid_a, key_a, &got), 0);
	ck_assert_uint_eq(got.sync_id, 50);
	make_file(7, 7);	/* a rollback that the user accepted */
	ck_assert_int_eq(read_anew(uuid_a, key_a, &got), 0);
	ck_assert_uint_eq(got.sync_id, 7);
}
END_TEST

START_TEST(nothing_is_made_before_the_first_advance)
{
	struct mls_trust got;
	char parent[128];
	struct stat st;

	snprintf(parent, sizeof parent, "%s/state", dir);
	ck_assert_int_eq(read_anew(uuid_a, key_a, &got), MLS_ENOENT);
	ck_assert_int_ne(stat(parent, &st), 0);

	make_file(1, 1);
	ck_assert_int_eq(stat(parent, &st), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0700);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0600);
	ck_assert_uint_eq(st.st_size, FILE_BYTES);
}
END_TEST

START_TEST(wants_a_key_first)
{
	struct mls_trusted_store *store = NULL;
	struct mls_trust trust = trust_of(uuid_a, 1);

	ck_assert_int_eq(mls_trusted_store_open(&store, uri, uuid_a), 0);
	ck_assert_int_eq(store->ops->read(store, &trust), MLS_EINVAL);
	ck_assert_int_eq(store->ops->advance(store, &trust), MLS_EINVAL);
	mls_trusted_store_destroy(store);
}
END_TEST

START_TEST(wrong_key_is_told)
{
	struct mls_trust got;

	make_file(1, 2);
	ck_assert_int_eq(read_anew(uuid_a, key_b, &got), MLS_EAUTH);
}
END_TEST

/* Goal: any change of one slot leaves the other one's value. Method: flip each byte of the newer, then
 * of the older slot. */
START_TEST(one_damaged_slot_leaves_the_other)
{
	uint8_t image[FILE_BYTES];
	struct mls_trust got;

	make_file(1, 4);	/* slot 0: 1, 3; slot 1: 2, 4 */
	load_file(image);
	for (size_t i = 0; i < SLOT_BYTES; i++) {
		for (unsigned slot = 0; slot < 2; slot++) {
			image[slot * MLS_BLOCK_BYTES + i] ^= 0x41;
			save_file(image, FILE_BYTES);
			ck_assert_int_eq(read_anew(uuid_a, key_a, &got), 0);
			ck_assert_msg(got.sync_id == (slot ? 3u : 4u), "byte %zu of slot %u", i, slot);
			image[slot * MLS_BLOCK_BYTES + i] ^= 0x41;
		}
	}
}
END_TEST

START_TEST(two_damaged_slots_are_an_error)
{
	uint8_t image[FILE_BYTES];
	struct mls_trust got;
	int err;

	make_file(1, 4);
	load_file(image);
	for (size_t i = 0; i < SLOT_BYTES; i++) {
		bool names_disk = i < 8 || (i >= 24 && i < 40);		/* magic and UUID */

		image[i] ^= 0x41;
		image[MLS_BLOCK_BYTES + i] ^= 0x41;
		save_file(image, FILE_BYTES);
		err = read_anew(uuid_a, key_a, &got);
		ck_assert_msg(err == (names_disk ? MLS_ESTALE : MLS_EAUTH), "byte %zu: %d", i, err);
		image[i] ^= 0x41;
		image[MLS_BLOCK_BYTES + i] ^= 0x41;
	}
}
END_TEST

/* Goal: a crash in the middle of an advance leaves the old or the new value, and the store works on.
 * Method: all prefixes of the write, with the rest old. */
START_TEST(torn_advance_leaves_old_or_new)
{
	uint8_t before[FILE_BYTES], after[FILE_BYTES], torn[FILE_BYTES];
	struct mls_trust got;

	make_file(1, 4);
	load_file(before);
	make_file(5, 5);
	load_file(after);
	for (size_t cut = 0; cut <= FILE_BYTES; cut++) {
		if (cut > SLOT_BYTES + 8 && cut < FILE_BYTES)
			continue;		/* zeros */
		memcpy(torn, before, FILE_BYTES);
		memcpy(torn, after, cut);
		save_file(torn, FILE_BYTES);
		ck_assert_int_eq(read_anew(uuid_a, key_a, &got), 0);
		ck_assert(got.sync_id == (cut < SLOT_BYTES ? 4u : 5u) || memcmp(torn, after, FILE_BYTES) == 0);
		make_file(6, 6);
		ck_assert_int_eq(read_anew(uuid_a, key_a, &got), 0);
		ck_assert_uint_eq(got.sync_id, 6);
	}
}
END_TEST

/* Goal: the same for the making of the store: none, or the first value. Method: the two writes of which it
 * consists, zeros and slot 0, each cut at every 512 bytes, with the sectors of a cut in any order, as a disk
 * may write them. */
START_TEST(torn_creation_leaves_none_or_the_first)
{
	uint8_t zeros[FILE_BYTES] = { 0 }, first[FILE_BYTES], torn[FILE_BYTES];

	make_file(1, 1);
	load_file(first);
	for (size_t bytes = 0; bytes <= FILE_BYTES; bytes += 512) {
		struct mls_trust got;

		save_file(zeros, bytes);
		ck_assert_int_eq(read_anew(uuid_a, key_a, &got), MLS_ENOENT);
	}
	for (unsigned kept = 0; kept < 1u << (MLS_BLOCK_BYTES / 512); kept++) {
		struct mls_trust got;

		memset(torn, 0, sizeof torn);
		for (unsigned sector = 0; sector < MLS_BLOCK_BYTES / 512; sector++)
			if (kept & 1u << sector)
				memcpy(torn + sector * 512, first + sector * 512, 512);
		save_file(torn, FILE_BYTES);
		ck_assert_int_eq(read_anew(uuid_a, key_a, &got), kept & 1 ? 0 : MLS_ENOENT);
		if (kept % 64 > 1)
			continue;
		make_file(2, 2);
		ck_assert_int_eq(read_anew(uuid_a, key_a, &got), 0);
		ck_assert_uint_eq(got.sync_id, 2);
	}
}
END_TEST

/* Goal: no order of the sectors of an advance's write matters. Method: all subsets of the eight. */
START_TEST(advance_torn_at_sectors_leaves_old_or_new)
{
	uint8_t before[FILE_BYTES], after[FILE_BYTES], torn[FILE_BYTES];
	struct mls_trusted_store *store;
	struct mls_trust got;

	make_file(1, 4);
	load_file(before);
	make_file(5, 5);
	load_file(after);
	for (unsigned kept = 0; kept < 1u << (MLS_BLOCK_BYTES / 512); kept++) {
		memcpy(torn, before, sizeof torn);
		for (unsigned sector = 0; sector < MLS_BLOCK_BYTES / 512; sector++)
			if (kept & 1u << sector)
				memcpy(torn + sector * 512, after + sector * 512, 512);
		save_file(torn, FILE_BYTES);
		ck_assert_int_eq(read_anew(uuid_a, key_a, &got), 0);
		ck_assert_uint_eq(got.sync_id, kept & 1 ? 5 : 4);
	}
	memcpy(torn, before, sizeof torn);
	memcpy(torn, after, 60);		/* on a medium that tears within a sector */
	save_file(torn, FILE_BYTES);
	store = open_store(uuid_a, key_a);
	ck_assert_int_eq(store->ops->read(store, &got), 0);
	ck_assert_uint_eq(store->ops->nr_damaged(store), 1);
	ck_assert_int_eq(store->ops->advance(store, &got), 0);
	ck_assert_int_eq(store->ops->read(store, &got), 0);
	ck_assert_uint_eq(store->ops->nr_damaged(store), 0);
	ck_assert_uint_eq(got.sync_id, 4);
	mls_trusted_store_destroy(store);
}
END_TEST

START_TEST(file_of_zeros_is_an_empty_store)
{
	static const uint8_t zeros[FILE_BYTES + 1];
	struct mls_trust got;

	make_file(1, 1);
	for (size_t bytes = 0; bytes <= FILE_BYTES; bytes += bytes < 1024 ? 512 : 1024) {
		save_file(zeros, bytes);
		ck_assert_int_eq(read_anew(uuid_a, key_a, &got), MLS_ENOENT);
		make_file(9, 9);
		ck_assert_int_eq(read_anew(uuid_a, key_a, &got), 0);
		ck_assert_uint_eq(got.sync_id, 9);
	}
	save_file(zeros, FILE_BYTES + 1);
	ck_assert_int_eq(read_anew(uuid_a, key_a, &got), MLS_ESTALE);
}
END_TEST

START_TEST(store_of_another_disk_is_left_alone)
{
	uint8_t before[FILE_BYTES], after[FILE_BYTES];
	struct mls_trust trust = trust_of(uuid_b, 9);
	struct mls_trusted_store *store = open_store(uuid_b, key_b), *refused = NULL;

	make_file(1, 2);	/* comes into being while the other one is open */
	load_file(before);
	ck_assert_int_eq(mls_trusted_store_open(&refused, uri, uuid_b), MLS_ESTALE);
	ck_assert_ptr_null(refused);
	ck_assert_int_eq(store->ops->advance(store, &trust), MLS_ESTALE);	/* format: without a read */
	ck_assert_int_eq(store->ops->read(store, &trust), MLS_ESTALE);
	ck_assert_int_eq(store->ops->advance(store, &trust), MLS_ESTALE);
	trust = trust_of(uuid_a, 9);
	ck_assert_int_eq(store->ops->advance(store, &trust), MLS_ESTALE);
	mls_trusted_store_destroy(store);
	load_file(after);
	ck_assert_mem_eq(before, after, FILE_BYTES);
}
END_TEST

START_TEST(file_that_is_no_store_is_left_alone)
{
	static const char letter[] = "Dear mother, ...";
	struct mls_trusted_store *store, *refused = NULL;
	struct mls_trust got;
	char text[64] = "";
	FILE *f;

	make_file(1, 1);
	store = open_store(uuid_a, key_a);
	save_file(letter, sizeof letter);
	ck_assert_int_eq(store->ops->read(store, &got), MLS_ESTALE);
	ck_assert_int_eq(advance(store, 1), MLS_ESTALE);
	mls_trusted_store_destroy(store);
	ck_assert_int_eq(mls_trusted_store_open(&refused, uri, uuid_a), MLS_ESTALE);
	ck_assert_ptr_null(refused);
	f = fopen(path, "r");
	ck_assert_uint_eq(fread(text, 1, sizeof text, f), sizeof letter);
	fclose(f);
	ck_assert_str_eq(text, letter);
}
END_TEST

START_TEST(damaged_store_can_begin_anew)
{
	uint8_t image[FILE_BYTES];
	struct mls_trusted_store *store;
	struct mls_trust got;

	make_file(1, 2);
	load_file(image);
	image[50] ^= 1;
	image[MLS_BLOCK_BYTES + 50] ^= 1;
	save_file(image, FILE_BYTES);
	store = open_store(uuid_a, key_a);
	ck_assert_int_eq(store->ops->read(store, &got), MLS_EAUTH);
	ck_assert_int_eq(advance(store, 3), 0);		/* --accept-rollback */
	mls_trusted_store_destroy(store);
	ck_assert_int_eq(read_anew(uuid_a, key_a, &got), 0);
	ck_assert_uint_eq(got.sync_id, 3);
}
END_TEST

START_TEST(second_opener_is_kept_out)
{
	struct mls_trusted_store *first, *second = NULL;

	first = open_store(uuid_a, key_a);
	ck_assert_int_eq(advance(first, 1), 0);
	ck_assert_int_eq(mls_trusted_store_open(&second, uri, uuid_a), MLS_EBUSY);
	ck_assert_ptr_null(second);
	mls_trusted_store_destroy(first);
	ck_assert_int_eq(mls_trusted_store_open(&second, uri, uuid_a), 0);
	mls_trusted_store_destroy(second);
}
END_TEST

START_TEST(uris)
{
	struct mls_trusted_store *store = (void *)dir;

	ck_assert_int_eq(mls_trusted_store_open(&store, "none", uuid_a), 0);
	ck_assert_ptr_null(store);
	mls_trusted_store_destroy(store);
	ck_assert_int_eq(mls_trusted_store_open(&store, "file:", uuid_a), MLS_EINVAL);
	ck_assert_int_eq(mls_trusted_store_open(&store, "tpm2:0x2500016", uuid_a), MLS_EINVAL);
	ck_assert_int_eq(mls_trusted_store_open(&store, "/some/path", uuid_a), MLS_EINVAL);
	ck_assert_int_eq(mls_trusted_store_open(&store, "", uuid_a), MLS_EINVAL);
	snprintf(uri, sizeof uri, "file:/dev/null");
	ck_assert_int_eq(mls_trusted_store_open(&store, uri, uuid_a), MLS_EINVAL);
	ck_assert_ptr_null(store);
}
END_TEST

START_TEST(default_path_names_the_disk)
{
	static const uint8_t uuid[16] = { 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
					  0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10 };
	char got[256], want[256];

	setenv("XDG_STATE_HOME", "/state", 1);
	if (geteuid() == 0)
		snprintf(want, sizeof want, "/var/lib/mlsdisk/01234567-89ab-cdef-fedc-ba9876543210.trust");
	else
		snprintf(want, sizeof want, "/state/mlsdisk/01234567-89ab-cdef-fedc-ba9876543210.trust");
	ck_assert_int_eq(mls_trusted_store_default_path(got, sizeof got, uuid), 0);
	ck_assert_str_eq(got, want);
	ck_assert_int_eq(mls_trusted_store_default_path(got, 20, uuid), MLS_EINVAL);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("store_file");
	TCase *tc = tcase_create("store_file");

	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, holds_the_last_advance);
	tcase_add_test(tc, nothing_is_made_before_the_first_advance);
	tcase_add_test(tc, wants_a_key_first);
	tcase_add_test(tc, wrong_key_is_told);
	tcase_add_test(tc, one_damaged_slot_leaves_the_other);
	tcase_add_test(tc, two_damaged_slots_are_an_error);
	tcase_add_test(tc, torn_advance_leaves_old_or_new);
	tcase_add_test(tc, torn_creation_leaves_none_or_the_first);
	tcase_add_test(tc, advance_torn_at_sectors_leaves_old_or_new);
	tcase_add_test(tc, file_of_zeros_is_an_empty_store);
	tcase_add_test(tc, store_of_another_disk_is_left_alone);
	tcase_add_test(tc, file_that_is_no_store_is_left_alone);
	tcase_add_test(tc, damaged_store_can_begin_anew);
	tcase_add_test(tc, second_opener_is_kept_out);
	tcase_add_test(tc, uris);
	tcase_add_test(tc, default_path_names_the_disk);
	suite_add_tcase(suite, tc);
	return check_run(suite);
}
