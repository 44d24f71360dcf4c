/* SPDX-License-Identifier: MPL-2.0 */
/*
 * baseline_engine.c - a baseline in the place of the engine: the calls of the public library that the FUSE
 * front end makes, answered by a struct baseline.
 *
 * baseline-fuse links the front end's own files with this one instead of libmlsdisk, so that options, workers,
 * request buffers and sync queue are the same code, and change together.
 *
 * Bytes become blocks here. Whole blocks go straight through, any number at a time; a request that begins or
 * ends inside a block reads and writes back its whole blocks, alone.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "1-crypto/kdf.h"
#include "base/buf.h"
#include "base/checked.h"
#include "bench/baselines/baseline_engine.h"

struct mls_disk {
	struct baseline *baseline;
	struct mls_block_dev *dev;	/* borrowed */
	uint64_t disk_bytes;
	pthread_rwlock_t edges;		/* exclusive: a request that isn't whole blocks; taken before any other */
	_Atomic uint64_t reads, writes, read_bytes, written_bytes, syncs;
};

static enum baseline_kind selected;

int baseline_select(const char *name)
{
	static const char *const names[] = {
		[BASELINE_NULL] = "null", [BASELINE_PASS] = "pass", [BASELINE_CRYPT] = "crypt", [BASELINE_PFS] = "pfs"};

	for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
		if (strcmp(name, names[i]) == 0) {
			selected = (enum baseline_kind)i;
			return 0;
		}
	return MLS_EINVAL;
}

/* ---- Open and close ---- */

static int new_crypt(struct baseline **baseline, struct mls_block_dev *dev, const struct mls_secret *secret)
{
	uint8_t key[CRYPT_KEY_BYTES];
	int err = mls_hkdf_sha256(secret->data, secret->bytes, NULL, 0, "baseline crypt data", key);

	if (!err)
		err = mls_hkdf_sha256(secret->data, secret->bytes, NULL, 0, "baseline crypt tweak", key + MLS_KEY_BYTES);
	if (!err)
		err = crypt_disk_new(baseline, dev, key);
	mls_wipe(key, sizeof key);
	return err;
}

static int new_pfs(struct baseline **baseline, struct mls_block_dev *dev, const struct mls_secret *secret,
		   uint64_t cache_bytes)
{
	uint8_t key[MLS_KEY_BYTES];
	int err = mls_hkdf_sha256(secret->data, secret->bytes, NULL, 0, "baseline pfs", key);

	if (!err)
		err = pfs_disk_new(baseline, dev, key, cache_bytes);
	mls_wipe(key, sizeof key);
	return err;
}

static int baseline_new(struct baseline **baseline, struct mls_block_dev *dev, const struct mls_secret *secret,
			const struct mls_open_opts *opts)
{
	switch (selected) {
	case BASELINE_NULL:
		return null_disk_new(baseline, dev);
	case BASELINE_PASS:
		return pass_disk_new(baseline, dev);
	case BASELINE_CRYPT:
		return new_crypt(baseline, dev, secret);
	case BASELINE_PFS:
		return new_pfs(baseline, dev, secret, opts->cache_bytes);
	}
	return MLS_EINVAL;
}

/* Nothing tells our baselines from any other bytes. */
int mls_probe(struct mls_block_dev *dev, struct mls_probe *probe)
{
	*probe = (struct mls_probe){
		.is_mlsdisk = true, .nr_slots_used = 1, .disk_bytes = dev->nr_blocks * MLS_BLOCK_BYTES};
	return 0;
}

int mls_disk_open(struct mls_disk **disk, struct mls_block_dev *dev, struct mls_trusted_store *store,
		  const struct mls_secret *secret, const struct mls_open_opts *opts)
{
	struct mls_disk *d = calloc(1, sizeof *d);
	int err;

	(void)store;
	if (!d)
		return MLS_ENOMEM;
	err = baseline_new(&d->baseline, dev, secret, opts);
	if (err) {
		free(d);
		return err;
	}
	d->dev = dev;
	d->disk_bytes = d->baseline->nr_blocks * MLS_BLOCK_BYTES;
	pthread_rwlock_init(&d->edges, NULL);
	*disk = d;
	return 0;
}

int mls_disk_close(struct mls_disk *disk)
{
	int err = disk->baseline->ops->destroy(disk->baseline);

	pthread_rwlock_destroy(&disk->edges);
	free(disk);
	return err;
}

/* ---- Requests ---- */

static bool is_whole(const void *data, uint64_t offset, size_t bytes)
{
	return (offset | bytes | (uintptr_t)data) % MLS_BLOCK_BYTES == 0;
}

/* The blocks around a request, in memory of their own. */
struct cover {
	uint64_t lba;
	uint32_t nr_blocks;
	size_t from;	/* where the request's bytes begin in blocks */
	uint8_t *blocks;
};

static int cover_read(struct cover *cover, struct mls_disk *disk, uint64_t offset, size_t bytes)
{
	uint64_t end = mls_div_round_up(offset + bytes, MLS_BLOCK_BYTES);

	cover->lba = offset / MLS_BLOCK_BYTES;
	cover->nr_blocks = (uint32_t)(end - cover->lba);
	cover->from = offset % MLS_BLOCK_BYTES;
	cover->blocks = mls_blocks_alloc(cover->nr_blocks);
	if (!cover->blocks)
		return MLS_ENOMEM;
	return disk->baseline->ops->read(disk->baseline, cover->lba, cover->nr_blocks, cover->blocks);
}

static bool is_inside(const struct mls_disk *disk, uint64_t offset, uint64_t bytes)
{
	return mls_range_within(offset, bytes, disk->disk_bytes);
}

int mls_disk_read(struct mls_disk *disk, uint64_t offset, void *buf, size_t bytes)
{
	struct cover cover;
	int err;

	if (!is_inside(disk, offset, bytes))
		return MLS_EINVAL;
	if (is_whole(buf, offset, bytes)) {
		err = disk->baseline->ops->read(disk->baseline, offset / MLS_BLOCK_BYTES,
						(uint32_t)(bytes / MLS_BLOCK_BYTES), buf);
	} else {
		err = cover_read(&cover, disk, offset, bytes);
		if (!err)
			memcpy(buf, cover.blocks + cover.from, bytes);
		mls_blocks_free(cover.blocks);
	}
	atomic_fetch_add_explicit(&disk->reads, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&disk->read_bytes, bytes, memory_order_relaxed);
	return err;
}

static int write_covered(struct mls_disk *disk, uint64_t offset, const void *buf, size_t bytes)
{
	struct cover cover;
	int err = cover_read(&cover, disk, offset, bytes);

	if (!err) {
		memcpy(cover.blocks + cover.from, buf, bytes);
		err = disk->baseline->ops->write(disk->baseline, cover.lba, cover.nr_blocks, cover.blocks);
	}
	mls_blocks_free(cover.blocks);
	return err;
}

int mls_disk_write(struct mls_disk *disk, uint64_t offset, const void *buf, size_t bytes)
{
	int err;

	if (!is_inside(disk, offset, bytes))
		return MLS_EINVAL;
	if (is_whole(buf, offset, bytes)) {
		pthread_rwlock_rdlock(&disk->edges);
		err = disk->baseline->ops->write(disk->baseline, offset / MLS_BLOCK_BYTES,
						 (uint32_t)(bytes / MLS_BLOCK_BYTES), buf);
	} else {
		pthread_rwlock_wrlock(&disk->edges);
		err = write_covered(disk, offset, buf, bytes);
	}
	pthread_rwlock_unlock(&disk->edges);
	atomic_fetch_add_explicit(&disk->writes, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&disk->written_bytes, bytes, memory_order_relaxed);
	return err;
}

/* In-place disks have nothing to give back: what must read as zeros is written as zeros. */
int mls_disk_discard(struct mls_disk *disk, uint64_t offset, uint64_t bytes)
{
	static const uint8_t zeros[64 * MLS_BLOCK_BYTES] __attribute__((aligned(4096)));
	int err = is_inside(disk, offset, bytes) ? 0 : MLS_EINVAL;

	while (!err && bytes) {
		size_t room = sizeof zeros - offset % MLS_BLOCK_BYTES, nr = (size_t)mls_min_u64(bytes, room);

		err = mls_disk_write(disk, offset, zeros, nr);
		offset += nr;
		bytes -= nr;
	}
	return err;
}

int mls_disk_sync(struct mls_disk *disk)
{
	atomic_fetch_add_explicit(&disk->syncs, 1, memory_order_relaxed);
	return disk->baseline->ops->flush(disk->baseline);
}

/* ---- What else the front end asks ---- */

int mls_disk_resize(struct mls_disk *disk, uint64_t new_bytes)
{
	return new_bytes / MLS_BLOCK_BYTES * MLS_BLOCK_BYTES == disk->disk_bytes ? 0 : MLS_EINVAL;
}

/* It is data from end to end. */
int mls_disk_seek(struct mls_disk *disk, uint64_t offset, bool data, uint64_t *found)
{
	if (offset >= disk->disk_bytes)
		return MLS_ENOENT;
	*found = data ? offset : disk->disk_bytes;
	return 0;
}

void mls_disk_stat(struct mls_disk *disk, struct mls_disk_stat *stat)
{
	*stat = (struct mls_disk_stat){
		.disk_bytes = disk->disk_bytes,
		.live_blocks = disk->baseline->nr_blocks,
		.run_blocks = 1,
		.nr_runs = disk->baseline->nr_blocks,
		.reads = disk->reads,
		.writes = disk->writes,
		.read_bytes = disk->read_bytes,
		.written_bytes = disk->written_bytes,
		.syncs = disk->syncs,
	};
}

int mls_disk_stats_json(struct mls_disk *disk, char **json, size_t *bytes)
{
	int n = asprintf(json, "{\"reads\":%llu,\"writes\":%llu,\"read_bytes\":%llu,\"written_bytes\":%llu}\n",
			 (unsigned long long)disk->reads, (unsigned long long)disk->writes,
			 (unsigned long long)disk->read_bytes, (unsigned long long)disk->written_bytes);

	if (n < 0)
		return MLS_ENOMEM;
	*bytes = (size_t)n;
	return 0;
}
