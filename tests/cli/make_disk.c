/* SPDX-License-Identifier: MPL-2.0 */
/*
 * make_disk.c - a small disk with a history, for tests of the tools that look at disks.
 *
 *	make_disk BACKING KEY-FILE STORE-FILE
 *
 * All files are made anew. What is random is random (UUID, keys, tags, sessions); all else comes out the
 * same each time: background work is done by the calls, and the history is fixed:
 *
 *   session 1   LBA 0-599 written; 0-199 again; 300-339 discarded; closed. Enough for tables in two levels.
 *   session 2   LBA 0-9 again and 1000 for the first time, synced; 11 written and not synced; then the
 *               process is gone, as in a crash.
 *
 * A block's content is its LBA and version as text, and zeros.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "mlsdisk/mlsdisk.h"

#define DISK_BYTES (UINT64_C(8) << 20)
#define MEMTABLE_RECORDS 256u

static const char key[32] = "make_disk: a key for tests only";

static void must(int err, const char *what)
{
	if (!err)
		return;
	fprintf(stderr, "make_disk: %s: %s\n", what, mls_strerror(err));
	exit(1);
}

static void write_lbas(struct mls_disk *disk, uint64_t lba, uint64_t nr, unsigned version)
{
	for (; nr; nr--, lba++) {
		char block[MLS_BLOCK_BYTES] = "";

		snprintf(block, sizeof block, "LBA %" PRIu64 ", version %u\n", lba, version);
		must(mls_disk_write(disk, lba * MLS_BLOCK_BYTES, block, sizeof block), "write");
	}
}

static void write_key_file(const char *path)
{
	FILE *file = fopen(path, "w");

	if (!file || fwrite(key, sizeof key, 1, file) != 1 || fclose(file) != 0) {
		perror(path);
		exit(1);
	}
}

static void first_session(struct mls_disk *disk)
{
	write_lbas(disk, 0, 600, 1);
	must(mls_disk_sync(disk), "sync");
	write_lbas(disk, 0, 200, 2);
	must(mls_disk_sync(disk), "sync");
	must(mls_disk_discard(disk, 300 * MLS_BLOCK_BYTES, 40 * MLS_BLOCK_BYTES), "discard");
	must(mls_disk_close(disk), "close");
}

static void second_session(struct mls_disk *disk)
{
	write_lbas(disk, 0, 10, 3);
	write_lbas(disk, 1000, 1, 3);
	must(mls_disk_sync(disk), "sync");
	write_lbas(disk, 11, 1, 3);
}

int main(int argc, char **argv)
{
	const struct mls_secret secret = { key, sizeof key, false };
	const struct mls_format_opts format = { .disk_bytes = DISK_BYTES };
	struct mls_block_dev_ops no_discard;
	const struct mls_open_opts open = { .inline_work = true, .memtable_records = MEMTABLE_RECORDS };
	uint8_t uuid[MLS_UUID_BYTES];
	struct mls_trusted_store *store;
	struct mls_block_dev *dev;
	struct mls_disk *disk;
	char uri[4096];

	if (argc != 4)
		return 2;
	write_key_file(argv[2]);
	snprintf(uri, sizeof uri, "file:%s", argv[3]);
	must(mls_uuid_new(uuid), "UUID");
	must(mls_block_dev_open(&dev, argv[1], MLS_DEV_CREATE, mls_backing_bytes(DISK_BYTES)), "BACKING");
	no_discard = *dev->ops;
	no_discard.discard = NULL;	/* not every file system can, and it would show */
	dev->ops = &no_discard;
	must(mls_trusted_store_open(&store, uri, uuid), "store");
	must(mls_disk_format(dev, store, &secret, uuid, &format), "format");
	must(mls_disk_open(&disk, dev, store, &secret, &open), "open");
	first_session(disk);
	must(mls_disk_open(&disk, dev, store, &secret, &open), "open again");
	second_session(disk);
	_exit(0);		/* a crash: nothing is closed */
}
