/* SPDX-License-Identifier: MPL-2.0 */
/*
 * open_rounds.c - a thousand times open, write, sync, close on a disk of 64 MiB.
 *
 * Goal     Nothing of an earlier round is lost (an earlier implementation recovered only its newest
 *          WAL), and what the rounds leave behind is bounded.
 * Method   Over the public library, as mlsdisk-fuse is, on a file in TMPDIR; every write also goes to
 *          a plain array, compared in part each round and as a whole every hundred.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mlsdisk/mlsdisk.h"

#define DISK_BYTES ((size_t)64 << 20)
#define WRITES_PER_ROUND 4u
#define MAX_WRITE_BYTES (64u << 10)

#define CHECK(cond)                                                                                            \
	do {                                                                                                   \
		if (!(cond)) {                                                                                 \
			printf("open_rounds.c:%d: not so: %s\n", __LINE__, #cond);                             \
			return 1;                                                                              \
		}                                                                                              \
	} while (0)

static const uint8_t key[32] = "a key for tests, 32 bytes long.";
static const struct mls_secret secret = {.data = key, .bytes = sizeof key};

struct bench {
	char backing[4096], store_uri[4096];
	uint8_t uuid[MLS_UUID_BYTES];
	uint8_t *model, *found;
	uint64_t random;
};

struct opened {
	struct mls_block_dev *dev;
	struct mls_trusted_store *store;
	struct mls_disk *disk;
};

static uint64_t next_random(struct bench *b)
{
	b->random ^= b->random << 13;
	b->random ^= b->random >> 7;
	b->random ^= b->random << 17;
	return b->random;
}

static int format(struct bench *b)
{
	struct mls_format_opts opts = {.disk_bytes = DISK_BYTES};
	struct mls_trusted_store *store;
	struct mls_block_dev *dev;

	CHECK(mls_uuid_new(b->uuid) == 0);
	CHECK(mls_block_dev_open(&dev, b->backing, MLS_DEV_CREATE, mls_backing_bytes(DISK_BYTES)) == 0);
	CHECK(mls_trusted_store_open(&store, b->store_uri, b->uuid) == 0);
	CHECK(mls_disk_format(dev, store, &secret, b->uuid, &opts) == 0);
	mls_trusted_store_destroy(store);
	mls_block_dev_destroy(dev);
	return 0;
}

static int open_disk(struct bench *b, struct opened *o)
{
	const struct mls_open_opts opts = {0};

	CHECK(mls_block_dev_open(&o->dev, b->backing, 0, 0) == 0);
	CHECK(mls_trusted_store_open(&o->store, b->store_uri, b->uuid) == 0);
	CHECK(mls_disk_open(&o->disk, o->dev, o->store, &secret, &opts) == 0);
	return 0;
}

static int close_disk(struct opened *o)
{
	CHECK(mls_disk_close(o->disk) == 0);
	mls_trusted_store_destroy(o->store);
	mls_block_dev_destroy(o->dev);
	return 0;
}

static int write_some(struct bench *b, struct opened *o)
{
	for (unsigned i = 0; i < WRITES_PER_ROUND; i++) {
		size_t bytes = 512 * (1 + next_random(b) % (MAX_WRITE_BYTES / 512));
		size_t at = next_random(b) % (DISK_BYTES - bytes);

		for (size_t j = 0; j < bytes; j++)
			b->model[at + j] = (uint8_t)(next_random(b) >> 32);
		CHECK(mls_disk_write(o->disk, at, b->model + at, bytes) == 0);
	}
	CHECK(mls_disk_sync(o->disk) == 0);
	return 0;
}

static int compare(struct bench *b, struct opened *o, size_t at, size_t bytes)
{
	CHECK(mls_disk_read(o->disk, at, b->found, bytes) == 0);
	CHECK(memcmp(b->found, b->model + at, bytes) == 0);
	return 0;
}

static int rounds(struct bench *b, unsigned nr)
{
	uint64_t chunks_halfway = 0;
	struct mls_disk_stat stat;
	struct opened o;

	for (unsigned round = 1; round <= nr; round++) {
		bool whole = round % 100 == 0 || round == nr;

		CHECK(open_disk(b, &o) == 0);
		CHECK(compare(b, &o, whole ? 0 : next_random(b) % (DISK_BYTES / 2),
			      whole ? DISK_BYTES : 1 << 20) == 0);
		CHECK(write_some(b, &o) == 0);
		mls_disk_stat(o.disk, &stat);
		if (round == nr / 2)
			chunks_halfway = stat.nr_chunks;
		CHECK(close_disk(&o) == 0);
	}
	CHECK(stat.nr_chunks <= 2 * chunks_halfway + 8);
	CHECK(open_disk(b, &o) == 0);
	CHECK(compare(b, &o, 0, DISK_BYTES) == 0);
	CHECK(close_disk(&o) == 0);
	return 0;
}

int main(void)
{
	const char *tmp = getenv("TMPDIR"), *nr = getenv("MLS_OPEN_ROUNDS");
	char dir[4000];
	struct bench b = {.random = 88172645463325252u};
	struct stat before, after;
	int failed;

	snprintf(dir, sizeof dir, "%s/mlsdisk-rounds.XXXXXX", tmp ? tmp : "/var/tmp");
	CHECK(mkdtemp(dir));
	snprintf(b.backing, sizeof b.backing, "%s/disk", dir);
	snprintf(b.store_uri, sizeof b.store_uri, "file:%s/store/disk", dir);
	b.model = calloc(1, DISK_BYTES);
	b.found = malloc(DISK_BYTES);
	CHECK(b.model && b.found);
	CHECK(format(&b) == 0);
	CHECK(stat(b.backing, &before) == 0);
	failed = rounds(&b, nr ? (unsigned)atoi(nr) : 1000);
	CHECK(stat(b.backing, &after) == 0 && before.st_size == after.st_size);
	free(b.model);
	free(b.found);
	if (!failed) {
		char command[4100];

		snprintf(command, sizeof command, "rm -rf '%s'", dir);
		failed = system(command) ? 1 : 0;
	}
	return failed;
}
