/* SPDX-License-Identifier: MPL-2.0 */
/*
 * disk_write.c - writing and discarding.
 *
 * Writing part of a block. The new block is put with mls_lsm_move, that is, only if the version
 * it was made from is still the newest; else it is made again. So it is atomic against writers of
 * the whole block without a lock; stripes only keep writers of parts from starving each other.
 */
#include "5-disk/disk.h"

#include <string.h>

#include "base/buf.h"
#include "base/checked.h"
#include "base/err.h"

#define PUT_TRIES 16

/* ---- Writing ---- */

int mls_disk_wait_for_space(struct mls_disk *disk, uint64_t *since)
{
	int err = mls_cleaner_wait(disk->cleaner, since);

	if (err == MLS_ENOSPC && mls_lsm_poisoned(disk->lsm))
		err = MLS_EPOISONED;	/* no space because nothing can be compacted any more */
	return err;
}

/* The index may need a run for its memtable before it takes these. */
static int put_records(struct mls_disk *disk, const struct mls_index_rec *recs, uint32_t nr)
{
	int err = MLS_ENOSPC, no_space = 0;
	uint64_t since = 0;

	for (int tries = 0; tries < PUT_TRIES && err == MLS_ENOSPC && !no_space; tries++) {
		if (tries)
			no_space = mls_disk_wait_for_space(disk, &since);
		err = mls_lsm_put(disk->lsm, recs, nr);
	}
	return err;
}

static int may_write(struct mls_disk *disk)
{
	if (disk->opts.read_only)
		return MLS_EROFS;
	return mls_disk_stopped(disk) ? MLS_EPOISONED : 0;
}

/* Slots for up to nr blocks; waits for the cleaner when there is no free run. */
static int take_slots(struct mls_disk *disk, uint32_t nr, struct mls_seg_buf **buf, uint32_t *slot, uint32_t *got)
{
	uint64_t since = 0;
	int err;

	mls_cleaner_pace(disk->cleaner, nr);
	for (;;) {
		mls_backing_renew(&disk->backing);
		err = mls_seg_take(disk->writer, MLS_STREAM_USER, nr, atomic_load(&disk->epoch_bound), buf, slot,
				   got);
		if (err != MLS_ENOSPC)
			return err;
		err = mls_bury_all(disk->burier);	/* what was discarded is free space, too */
		if (!err)
			err = mls_disk_wait_for_space(disk, &since);
		if (err)
			return err;
	}
}

static int write_blocks(struct mls_disk *disk, uint64_t lba, uint32_t nr, const uint8_t *in)
{
	struct mls_index_rec recs[MLS_CHUNK_IO_BLOCKS];
	int err = mls_bury_before_write(disk->burier, lba, nr);

	while (nr > 0) {
		struct mls_seg_buf *buf;
		uint32_t slot, got;

		if (!err)
			err = take_slots(disk, (uint32_t)mls_min_u64(nr, MLS_CHUNK_IO_BLOCKS), &buf, &slot, &got);
		if (err)
			return err;
		err = mls_seg_seal(disk->writer, buf, slot, got, lba, in, recs);
		if (!err)
			err = put_records(disk, recs, got);
		if (err)
			mls_seg_void(disk->writer, buf, slot, got);
		mls_seg_indexed(disk->writer, buf, got);
		if (err)
			return err;
		lba += got;
		nr -= got;
		in += (size_t)got * MLS_BLOCK_BYTES;
	}
	return 0;
}

/* Put block as the successor of version old; *moved false: old isn't the newest any more. */
static int replace_block(struct mls_disk *disk, const struct mls_index_rec *old, const uint8_t *block, bool *moved)
{
	struct mls_index_rec rec;
	struct mls_seg_buf *buf;
	uint32_t slot, got;
	int err = take_slots(disk, 1, &buf, &slot, &got);

	if (err)
		return err;
	err = mls_seg_seal(disk->writer, buf, slot, 1, old->lba, block, &rec);
	if (!err)
		err = mls_lsm_move(disk->lsm, &rec, old->hba, moved);
	if (err || !*moved)
		mls_seg_void(disk->writer, buf, slot, 1);
	mls_seg_indexed(disk->writer, buf, 1);
	return err;
}

/* in NULL: zeros. */
static int write_part(struct mls_disk *disk, uint64_t lba, uint32_t from, uint32_t bytes, const uint8_t *in)
{
	_Alignas(MLS_BLOCK_BYTES) uint8_t block[MLS_BLOCK_BYTES];
	pthread_mutex_t *stripe = &disk->rmw[lba % MLS_NR_RMW_STRIPES];
	struct mls_index_rec old;
	bool moved = false;
	int err = 0;

	pthread_mutex_lock(stripe);
	err = mls_bury_before_write(disk->burier, lba, 1);
	while (!err && !moved) {
		err = mls_disk_read_block(disk, lba, block, &old);
		if (err)
			break;
		if (!in && old.hba == MLS_HBA_NONE)
			break;		/* zeros already */
		old.lba = lba;
		if (in)
			memcpy(block + from, in, bytes);
		else
			memset(block + from, 0, bytes);
		err = replace_block(disk, &old, block, &moved);
	}
	pthread_mutex_unlock(stripe);
	mls_wipe(block, sizeof block);
	return err;
}

int mls_disk_write(struct mls_disk *disk, uint64_t offset, const void *buf, size_t bytes)
{
	const uint8_t *in = buf;
	int err = may_write(disk);
	uint64_t began;

	if (!mls_range_within(offset, bytes, disk->disk_bytes))
		return MLS_EINVAL;
	if (err)
		return err;
	began = mls_now_ns();
	mls_count(&disk->count.writes, 1);
	mls_count(&disk->count.written_bytes, bytes);
	while (bytes > 0 && !err) {
		uint64_t lba = offset / MLS_BLOCK_BYTES;
		uint32_t from = (uint32_t)(offset % MLS_BLOCK_BYTES);
		uint32_t nr = (uint32_t)mls_min_u64(bytes / MLS_BLOCK_BYTES, UINT32_MAX);
		size_t done;

		if (from || nr == 0) {
			done = mls_min_u64(bytes, MLS_BLOCK_BYTES - from);
			err = write_part(disk, lba, from, (uint32_t)done, in);
		} else {
			done = (size_t)nr * MLS_BLOCK_BYTES;
			err = write_blocks(disk, lba, nr, in);
		}
		in += done;
		offset += done;
		bytes -= done;
	}
	mls_latency_note(&disk->write_latency, began);
	if (err)
		mls_count(err == MLS_ENOSPC ? &disk->count.no_space : &disk->count.io_errors, 1);
	return err;
}

/* ---- Discard ---- */

int mls_disk_bury_chunk(struct mls_disk *disk, uint64_t lba, uint32_t nr, uint32_t *mapped)
{
	struct mls_index_rec recs[MLS_CHUNK_IO_BLOCKS];
	int err = mls_lsm_get(disk->lsm, lba, nr, recs);

	if (err)
		return err;
	*mapped = 0;
	for (uint32_t i = 0; i < nr; i++)
		if (recs[i].hba != MLS_HBA_NONE)
			recs[(*mapped)++] = (struct mls_index_rec){ .lba = lba + i, .hba = MLS_HBA_NONE };
	if (*mapped)
		err = mls_lsm_put(disk->lsm, recs, *mapped);
	if (!err)
		mls_count(&disk->count.buried_blocks, *mapped);
	return err;
}

int mls_disk_discard(struct mls_disk *disk, uint64_t offset, uint64_t bytes)
{
	uint64_t end = offset + bytes, first, last;
	int err = may_write(disk);

	if (!mls_range_within(offset, bytes, disk->disk_bytes))
		return MLS_EINVAL;
	if (err || bytes == 0)
		return err;
	mls_count(&disk->count.discards, 1);
	first = mls_div_round_up(offset, MLS_BLOCK_BYTES);
	last = end / MLS_BLOCK_BYTES;
	if (first > last)	/* within one block */
		return write_part(disk, last, (uint32_t)(offset % MLS_BLOCK_BYTES), (uint32_t)bytes, NULL);
	if (offset % MLS_BLOCK_BYTES)
		err = write_part(disk, first - 1, (uint32_t)(offset % MLS_BLOCK_BYTES),
				 (uint32_t)(MLS_BLOCK_BYTES - offset % MLS_BLOCK_BYTES), NULL);
	if (!err)
		err = first < last ? mls_bury(disk->burier, first, last) : 0;
	if (!err && end % MLS_BLOCK_BYTES)
		err = write_part(disk, last, 0, (uint32_t)(end % MLS_BLOCK_BYTES), NULL);
	return err;
}
