/* SPDX-License-Identifier: MPL-2.0 */
/*
 * disk_io.c - read, write and discard.
 *
 * Reading. The index tells where a block's newest version lies; between that look and the read of
 * the device the cleaner may move it and its segment may be reused. No lock keeps that out: a
 * location of a former life isn't pinned (MLS_ENOENT), and a block overwritten under our eyes
 * doesn't open; in both cases the LBA is looked up again. Only when the index still says the same
 * is it an integrity violation.
 *
 * Writing part of a block. The new block is put with mls_lsm_move, that is, only if the version
 * it was made from is still the newest; else it is made again. So it is atomic against writers of
 * the whole block without a lock; stripes only keep writers of parts from starving each other.
 */
#include "5-disk/disk.h"

#include <string.h>

#include "5-disk/location.h"
#include "base/buf.h"
#include "base/checked.h"
#include "base/err.h"
#include "base/log.h"

#define READ_TRIES 64
#define PUT_TRIES 16

/* ---- Reading ---- */

int mls_disk_read_rec(struct mls_disk *disk, const struct mls_index_rec *rec, void *out)
{
	struct mls_seg_pin pin;
	int err = mls_segment_table_pin(disk->table, rec->hba, &pin);

	if (err)
		return err;
	if (pin.buf) {
		err = mls_data_open(pin.key, pin.birth, pin.slot, rec->lba, mls_block_at(pin.buf->blocks, pin.slot),
				    out, rec->tag);
	} else {
		err = mls_block_dev_read(disk->dev, mls_loc_hba(rec->hba), 1, out);
		if (!err)
			err = mls_data_open(pin.key, pin.birth, pin.slot, rec->lba, out, out, rec->tag);
	}
	mls_segment_table_unpin(&pin);
	return err;
}

static int integrity_error(struct mls_disk *disk, const struct mls_index_rec *rec)
{
	mls_count(&disk->count.integrity_errors, 1);
	mls_error("disk: LBA %llu at HBA %llu isn't what was written there: integrity violation",
		  (unsigned long long)rec->lba, (unsigned long long)mls_loc_hba(rec->hba));
	return MLS_EAUTH;
}

/* One block, by itself; *rec is the version that out holds afterwards. */
static int read_block(struct mls_disk *disk, uint64_t lba, void *out, struct mls_index_rec *rec)
{
	struct mls_index_rec now;
	int err;

	if (mls_buried_until(disk->burier, lba) > lba) {
		*rec = (struct mls_index_rec){ .lba = lba, .hba = MLS_HBA_NONE };
		memset(out, 0, MLS_BLOCK_BYTES);
		return 0;
	}
	err = mls_lsm_get(disk->lsm, lba, 1, rec);
	for (int tries = 0; !err && tries < READ_TRIES; tries++) {
		if (rec->hba == MLS_HBA_NONE) {
			memset(out, 0, MLS_BLOCK_BYTES);
			return 0;
		}
		err = mls_disk_read_rec(disk, rec, out);
		if (err != MLS_ENOENT && err != MLS_EAUTH)
			return err;
		err = mls_lsm_get(disk->lsm, lba, 1, &now);
		if (!err && mls_same_version(rec, &now))
			return integrity_error(disk, rec);
		*rec = now;
	}
	return err ? err : integrity_error(disk, rec);
}

/* What one call of mls_disk_read_chunk works on. */
struct read_job {
	struct mls_index_rec recs[MLS_CHUNK_IO_BLOCKS];
	struct mls_seg_pin pins[MLS_CHUNK_IO_BLOCKS];
	uint64_t hbas[MLS_CHUNK_IO_BLOCKS];	/* MLS_HBA_NONE: not on the device */
	bool again[MLS_CHUNK_IO_BLOCKS];
	struct mls_read_plan plan;
};

/* Records for nr blocks. What is about to be buried reads as zeros: asked before the index is, as a block
 * leaves that table only when its tombstone is in the index. */
static int look_up(struct mls_disk *disk, uint64_t lba, uint32_t nr, struct mls_index_rec *recs)
{
	bool buried[MLS_CHUNK_IO_BLOCKS];
	uint64_t end = lba + nr, at = mls_buried_from(disk->burier, lba, end), first = at;
	int err;

	memset(buried, 0, sizeof buried);
	while (at < end) {
		uint64_t until = mls_min_u64(mls_buried_until(disk->burier, at), end);

		memset(&buried[at - lba], 1, until - at);
		at = mls_buried_from(disk->burier, mls_max_u64(until, at + 1), end);
	}
	err = mls_lsm_get(disk->lsm, lba, nr, recs);
	for (at = first; at < end && !err; at++)
		if (buried[at - lba])
			recs[at - lba].hba = MLS_HBA_NONE;
	return err;
}

/* Zeros and blocks in memory at once; the rest is on the device. */
static void job_sort(struct mls_disk *disk, struct read_job *job, uint32_t nr, uint8_t *out)
{
	for (uint32_t i = 0; i < nr; i++) {
		struct mls_index_rec *rec = &job->recs[i];
		struct mls_seg_pin *pin = &job->pins[i];
		uint8_t *block = out + (size_t)i * MLS_BLOCK_BYTES;

		job->hbas[i] = MLS_HBA_NONE;
		job->again[i] = false;
		if (rec->hba == MLS_HBA_NONE) {
			memset(block, 0, MLS_BLOCK_BYTES);
			continue;
		}
		if (mls_segment_table_pin(disk->table, rec->hba, pin)) {
			job->again[i] = true;
			continue;
		}
		if (!pin->buf) {
			job->hbas[i] = mls_loc_hba(rec->hba);
			continue;
		}
		job->again[i] = mls_data_open(pin->key, pin->birth, pin->slot, rec->lba,
					      mls_block_at(pin->buf->blocks, pin->slot), block, rec->tag) != 0;
		mls_segment_table_unpin(pin);
	}
}

/* What lies between the blocks that are wanted needn't be readable. */
static int job_read(struct mls_disk *disk, struct read_job *job, uint32_t nr, uint8_t *out)
{
	int err;

	mls_read_plan_make(&job->plan, job->hbas, nr, out);
	if (job->plan.nr_ios == 0)
		return 0;
	err = mls_block_dev_readv(disk->dev, job->plan.ios, job->plan.nr_ios);
	if (err && job->plan.extra) {
		mls_read_plan_release(&job->plan);
		mls_read_plan_make_straight(&job->plan, job->hbas, nr, out);
		err = mls_block_dev_readv(disk->dev, job->plan.ios, job->plan.nr_ios);
	}
	return err;
}

int mls_disk_read_chunk(struct mls_disk *disk, uint64_t lba, uint32_t nr, uint8_t *out)
{
	struct read_job job;
	int err = look_up(disk, lba, nr, job.recs);

	if (err)
		return err;
	job_sort(disk, &job, nr, out);
	err = job_read(disk, &job, nr, out);
	for (uint32_t i = 0; i < nr; i++) {
		uint8_t *block = out + (size_t)i * MLS_BLOCK_BYTES;
		struct mls_seg_pin *pin = &job.pins[i];

		if (job.hbas[i] == MLS_HBA_NONE)
			continue;
		if (!err)
			job.again[i] = mls_data_open(pin->key, pin->birth, pin->slot, job.recs[i].lba,
						     job.plan.at[i], block, job.recs[i].tag) != 0;
		mls_segment_table_unpin(pin);
	}
	mls_read_plan_release(&job.plan);
	for (uint32_t i = 0; i < nr && !err; i++)
		if (job.again[i])
			err = read_block(disk, lba + i, out + (size_t)i * MLS_BLOCK_BYTES, &job.recs[i]);
	if (!err)
		mls_defrag_offer(disk->defrag, lba, nr, job.recs, out);
	return err;
}

/* Part of one block. */
static int read_part(struct mls_disk *disk, uint64_t lba, uint32_t from, uint32_t bytes, uint8_t *out)
{
	_Alignas(MLS_BLOCK_BYTES) uint8_t block[MLS_BLOCK_BYTES];
	struct mls_index_rec rec;
	int err = read_block(disk, lba, block, &rec);

	if (!err)
		memcpy(out, block + from, bytes);
	mls_wipe(block, sizeof block);
	return err;
}

/* Whole blocks into memory that isn't block-aligned. */
static int read_unaligned(struct mls_disk *disk, uint64_t lba, uint32_t nr, uint8_t *out)
{
	uint8_t *bounce = mls_blocks_alloc(nr);
	int err;

	if (!bounce)
		return MLS_ENOMEM;
	err = mls_disk_read_chunk(disk, lba, nr, bounce);
	if (!err)
		memcpy(out, bounce, (size_t)nr * MLS_BLOCK_BYTES);
	mls_blocks_free(bounce);
	return err;
}

int mls_disk_read(struct mls_disk *disk, uint64_t offset, void *buf, size_t bytes)
{
	uint8_t *out = buf;
	int err = 0;

	if (!mls_range_within(offset, bytes, disk->disk_bytes))
		return MLS_EINVAL;
	mls_count(&disk->count.reads, 1);
	mls_count(&disk->count.read_bytes, bytes);
	while (bytes > 0 && !err) {
		uint64_t lba = offset / MLS_BLOCK_BYTES;
		uint32_t from = (uint32_t)(offset % MLS_BLOCK_BYTES);
		uint32_t nr = (uint32_t)mls_min_u64(bytes / MLS_BLOCK_BYTES, MLS_CHUNK_IO_BLOCKS);
		size_t done;

		if (from || nr == 0) {
			done = mls_min_u64(bytes, MLS_BLOCK_BYTES - from);
			err = read_part(disk, lba, from, (uint32_t)done, out);
		} else {
			done = (size_t)nr * MLS_BLOCK_BYTES;
			err = (uintptr_t)out % MLS_BLOCK_BYTES ? read_unaligned(disk, lba, nr, out)
							       : mls_disk_read_chunk(disk, lba, nr, out);
		}
		out += done;
		offset += done;
		bytes -= done;
	}
	if (err && err != MLS_EAUTH)
		mls_count(&disk->count.io_errors, 1);
	return err;
}

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
		err = read_block(disk, lba, block, &old);
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

/* ---- Discard and seek ---- */

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

static int next_hole(struct mls_disk *disk, uint64_t lba, uint64_t *found)
{
	struct mls_index_rec recs[MLS_CHUNK_IO_BLOCKS];

	while (lba < disk->nr_blocks) {
		uint32_t nr = (uint32_t)mls_min_u64(disk->nr_blocks - lba, MLS_CHUNK_IO_BLOCKS);
		int err = look_up(disk, lba, nr, recs);

		if (err)
			return err;
		for (uint32_t i = 0; i < nr; i++, lba++) {
			if (recs[i].hba == MLS_HBA_NONE) {
				*found = lba;
				return 0;
			}
		}
	}
	*found = disk->nr_blocks;
	return 0;
}

/* Behind what is about to be buried. What the index has found may be buried a moment later: so it is looked up in the
 * right order once more. */
static int next_data(struct mls_disk *disk, uint64_t lba, uint64_t *found)
{
	struct mls_index_rec rec = { .hba = MLS_HBA_NONE };
	int err = 0;

	while (!err && rec.hba == MLS_HBA_NONE) {
		lba = mls_buried_until(disk->burier, lba);
		if (lba >= disk->nr_blocks)
			return MLS_ENOENT;
		err = mls_lsm_next_mapped(disk->lsm, lba, disk->nr_blocks, &lba);
		if (!err)
			err = look_up(disk, lba, 1, &rec);
	}
	*found = lba;
	return err;
}

int mls_disk_seek(struct mls_disk *disk, uint64_t offset, bool data, uint64_t *found)
{
	uint64_t lba = offset / MLS_BLOCK_BYTES, at;
	int err;

	if (offset >= disk->disk_bytes)
		return MLS_ENOENT;
	err = data ? next_data(disk, lba, &at) : next_hole(disk, lba, &at);
	if (!err)
		*found = mls_max_u64(offset, at * MLS_BLOCK_BYTES);
	return err;
}
