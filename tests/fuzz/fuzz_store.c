/* SPDX-License-Identifier: MPL-2.0 */
/*
 * fuzz_store.c - the two slots of a trusted store's file.
 *
 * Input    a byte: bits 0, 1: MAC of slot 0, 1 again; bit 2: the file is as long as the input; then edits.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/endian.h"
#include "format/mlsdisk_format.h"
#include "tests/fuzz/fuzz.h"
#include "trust/store.h"

#define FILE_BYTES (MLS_NR_TRUST_SLOTS * MLS_BLOCK_BYTES)

static char path[4096];

static void forget_file(void)
{
	unlink(path);
}

static void prepare(void)
{
	const char *dir = getenv("TMPDIR");
	int fd;

	if (path[0])
		return;
	snprintf(path, sizeof path, "%s/mlsdisk-fuzz-XXXXXX", dir ? dir : "/tmp");
	fd = mkstemp(path);
	fuzz_must(fd < 0);
	close(fd);
	atexit(forget_file);
}

static void write_file(const uint8_t *bytes, size_t nr_bytes)
{
	FILE *file = fopen(path, "wb");

	fuzz_must(!file || fwrite(bytes, 1, nr_bytes, file) != nr_bytes);
	fuzz_must(fclose(file));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t file[FILE_BYTES];
	struct fuzz_input in = { data, size };
	const uint8_t *uuid = mls_keyring_uuid(fuzz_keys());
	uint8_t key[MLS_KEY_BYTES];
	struct mls_trusted_store *store;
	struct mls_trust trust = { .sync_id = 7 };
	unsigned flags = (unsigned)fuzz_take(&in, 1);

	prepare();
	fuzz_must(mls_key_derive(fuzz_keys(), MLS_TRUST_KEY_LABEL, NULL, key));
	memset(file, 0, sizeof file);
	for (unsigned i = 0; i < MLS_NR_TRUST_SLOTS; i++) {
		struct mls_trust_slot_disk *slot = (void *)(file + i * MLS_BLOCK_BYTES);

		memcpy(slot->magic, MLS_TRUST_MAGIC, sizeof slot->magic);
		mls_put_le32(slot->version, MLS_TRUST_VERSION);
		mls_put_le64(slot->counter, 4 + i);
		memcpy(slot->uuid, uuid, sizeof slot->uuid);
		mls_put_le64(slot->sync_id, 5 + i);
	}
	if (!(flags & 4))
		fuzz_edit(&in, file, sizeof file);
	for (unsigned i = 0; i < MLS_NR_TRUST_SLOTS; i++) {
		struct mls_trust_slot_disk *slot = (void *)(file + i * MLS_BLOCK_BYTES);

		if (flags & 1 << i)
			fuzz_must(mls_hmac_sha256(key, slot, offsetof(struct mls_trust_slot_disk, mac), slot->mac));
	}
	if (flags & 4)
		write_file(in.data, in.left < 3 * FILE_BYTES ? in.left : 3 * FILE_BYTES);
	else
		write_file(file, sizeof file);
	if (mls_store_file_open(&store, path, uuid) != 0)
		return 0;
	memcpy(trust.uuid, uuid, sizeof trust.uuid);
	if (store->ops->set_key(store, key) == 0 && store->ops->read(store, &trust) == 0)
		(void)store->ops->advance(store, &trust);
	mls_trusted_store_destroy(store);
	return 0;
}

size_t fuzz_seed(unsigned i, uint8_t *out, size_t room)
{
	static const uint8_t seeds[][10] = { { 3 }, { 1 }, { 2 }, { 3, 16, 0, 255, 23, 0, 255 }, { 3, 8, 0, 2 },
					     { 3, 24, 0, 9, 24, 16, 9 }, { 4, 'M', 'l', 's' } };

	(void)room;
	if (i >= sizeof seeds / sizeof *seeds)
		return 0;
	memcpy(out, seeds[i], sizeof seeds[i]);
	return i < 3 ? 1 : sizeof seeds[i];
}
