/* SPDX-License-Identifier: MPL-2.0 */
/*
 * disk_read.c - reading, and what is mapped.
 *
 * The index tells where a block's newest version lies; between that look and the read of
 * the device the cleaner may move it and its segment may be reused. No lock keeps that out: a
 * location of a former life isn't pinned (MLS_ENOENT), and a block overwritten under our eyes
 * doesn't open; in both cases the LBA is looked up again. Only when the index still says the same
 * is it an integrity violation.
 */
#include "5-disk/disk.h"

#include <string.h>

#include "5-disk/location.h"
#include "base/buf.h"
#include "base/checked.h"
#include "base/err.h"
#include "base/log.h"

#define READ_TRIES 64

/* ---- Blocks ---- */

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

int mls_disk_read_block(struct mls_disk *disk, uint64_t lba, void *out, struct mls_index_rec *rec)
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
	bool have[MLS_CHUNK_IO_BLOCKS];		/* read ahead: out has it */
	bool again[MLS_CHUNK_IO_BLOCKS];	/* it wasn't to be had, or isn't what the record says */
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
		if (job->have[i])
			continue;
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

	mls_read_plan_make(&job->plan, &disk->read_pool, job->hbas, nr, out);
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

/* One try for all that isn't in out yet. */
static int job_run(struct mls_disk *disk, struct read_job *job, uint32_t nr, uint8_t *out)
{
	int err;

	job_sort(disk, job, nr, out);
	err = job_read(disk, job, nr, out);
	for (uint32_t i = 0; i < nr; i++) {
		uint8_t *block = out + (size_t)i * MLS_BLOCK_BYTES;
		struct mls_seg_pin *pin = &job->pins[i];

		if (job->hbas[i] == MLS_HBA_NONE)
			continue;
		if (!err)
			job->again[i] = mls_data_open(pin->key, pin->birth, pin->slot, job->recs[i].lba,
						      job->plan.at[i], block, job->recs[i].tag) != 0;
		mls_segment_table_unpin(pin);
	}
	mls_read_plan_release(&job->plan);
	return err;
}

int mls_disk_read_chunk(struct mls_disk *disk, uint64_t lba, uint32_t nr, uint8_t *out)
{
	struct read_job job;
	int err = look_up(disk, lba, nr, job.recs);

	if (err)
		return err;
	memset(job.have, 0, nr * sizeof job.have[0]);
	mls_read_ahead_take(disk->ahead, lba, nr, job.recs, out, job.have);
	err = job_run(disk, &job, nr, out);
	for (uint32_t i = 0; i < nr && !err; i++)
		if (job.again[i])
			err = mls_disk_read_block(disk, lba + i, out + (size_t)i * MLS_BLOCK_BYTES, &job.recs[i]);
	if (!err)
		mls_defrag_offer(disk->defrag, lba, nr, job.recs, out);
	return err;
}

int mls_disk_read_quietly(struct mls_disk *disk, uint64_t lba, uint32_t nr, uint8_t *out, struct mls_index_rec *recs)
{
	struct read_job job;
	int err = look_up(disk, lba, nr, job.recs);

	if (err)
		return err;
	memset(job.have, 0, nr * sizeof job.have[0]);
	err = job_run(disk, &job, nr, out);
	for (uint32_t i = 0; i < nr && !err; i++) {
		recs[i] = job.recs[i];
		if (job.again[i])
			recs[i].hba = MLS_HBA_NONE;
	}
	return err;
}

/* Part of one block. */
static int read_part(struct mls_disk *disk, uint64_t lba, uint32_t from, uint32_t bytes, uint8_t *out)
{
	_Alignas(MLS_BLOCK_BYTES) uint8_t block[MLS_BLOCK_BYTES];
	struct mls_index_rec rec;
	int err = mls_disk_read_block(disk, lba, block, &rec);

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
	mls_read_ahead_begin(disk->ahead, offset / MLS_BLOCK_BYTES, bytes / MLS_BLOCK_BYTES);
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
	mls_read_ahead_end(disk->ahead);
	if (err && err != MLS_EAUTH)
		mls_count(&disk->count.io_errors, 1);
	return err;
}

/* ---- Seek ---- */

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
