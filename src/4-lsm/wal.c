/* SPDX-License-Identifier: MPL-2.0 */
/*
 * wal.c - why it exists: one sync is one group, and this is what a group's bytes mean.
 *
 *   +--------------------+------------------------------+---------------------------+
 *   | header, 64 bytes   | announcements, of layer 5    | records, 32 bytes each    |
 *   +--------------------+------------------------------+---------------------------+
 *
 * Invariants (fsck can check them): the lengths in the header are those of the group; no record has
 * LBA or HBA 2^64 - 1; unknown flags are refused, since they would change what the group means.
 */
#include "4-lsm/wal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "base/log.h"

#define HDR_BYTES sizeof(struct mls_wal_group_hdr_disk)
#define REC_BYTES sizeof(struct mls_index_rec_disk)
#define BATCH 128u
#define KNOWN_FLAGS (MLS_WAL_FLAG_SETTLED | MLS_WAL_FLAG_OPEN)

uint64_t mls_wal_group_blocks(uint64_t nr_records, uint64_t announce_bytes)
{
	return mls_chain_blocks(HDR_BYTES + announce_bytes + nr_records * REC_BYTES);
}

/* ---- Writing ---- */

static void hdr_encode(struct mls_wal_group_hdr_disk *hdr, const struct mls_wal_group *group)
{
	memset(hdr, 0, sizeof *hdr);
	mls_put_le64(hdr->sync_id, group->head.sync_id);
	memcpy(hdr->session, group->head.session, sizeof hdr->session);
	mls_put_le64(hdr->commit, group->head.commit);
	mls_put_le64(hdr->generation, group->head.generation);
	mls_put_le64(hdr->nr_records, group->nr_recs);
	mls_put_le32(hdr->announce_bytes, (uint32_t)group->announce_bytes);
	hdr->flags = group->flags;
}

static int put_records(struct mls_chain_writer *writer, const struct mls_index_rec *recs, size_t nr)
{
	struct mls_index_rec_disk batch[BATCH];
	int err = 0;

	for (size_t done = 0; !err && done < nr;) {
		size_t n = mls_min_u64(BATCH, nr - done);

		for (size_t i = 0; i < n; i++)
			mls_index_rec_encode(&batch[i], &recs[done + i]);
		err = mls_chain_put(writer, batch, n * REC_BYTES);
		done += n;
	}
	return err;
}

int mls_wal_write_group(struct mls_chain_writer *writer, const struct mls_wal_group *group)
{
	struct mls_wal_group_hdr_disk hdr;
	int err;

	if (group->announce_bytes > UINT32_MAX)
		return MLS_EINVAL;
	hdr_encode(&hdr, group);
	err = mls_chain_begin(writer);
	if (!err)
		err = mls_chain_put(writer, &hdr, sizeof hdr);
	if (!err && group->announce_bytes)
		err = mls_chain_put(writer, group->announce, group->announce_bytes);
	if (!err)
		err = put_records(writer, group->recs, group->nr_recs);
	if (!err)
		err = mls_chain_end_along(writer, group->along, group->nr_along);
	return err;
}

/* ---- Reading ---- */

static int malformed(const struct mls_wal_group *group, const char *what)
{
	mls_error("index: WAL group of sync %" PRIu64 " is malformed: %s", group->head.sync_id, what);
	return MLS_EFORMAT;
}

static int hdr_decode(struct mls_wal_group *group, const uint8_t *bytes, size_t nr_bytes)
{
	const struct mls_wal_group_hdr_disk *hdr = (const void *)bytes;
	uint64_t nr_records, room;

	if (nr_bytes < HDR_BYTES)
		return malformed(group, "no header");
	group->head.sync_id = mls_get_le64(hdr->sync_id);
	memcpy(group->head.session, hdr->session, sizeof hdr->session);
	group->head.commit = mls_get_le64(hdr->commit);
	group->head.generation = mls_get_le64(hdr->generation);
	group->flags = hdr->flags;
	group->head.settled = hdr->flags & MLS_WAL_FLAG_SETTLED;
	if (hdr->flags & ~KNOWN_FLAGS)
		return malformed(group, "unknown flags");

	room = nr_bytes - HDR_BYTES;
	group->announce_bytes = mls_get_le32(hdr->announce_bytes);
	nr_records = mls_get_le64(hdr->nr_records);
	if (group->announce_bytes > room)
		return malformed(group, "announcements longer than the group");
	room -= group->announce_bytes;
	if (room % REC_BYTES != 0 || room / REC_BYTES != nr_records)
		return malformed(group, "another number of records than it tells");
	group->nr_recs = nr_records;
	return 0;
}

static int records_decode(const struct mls_wal_group *group, struct mls_index_rec *recs, const uint8_t *bytes)
{
	const struct mls_index_rec_disk *in = (const void *)bytes;

	for (size_t i = 0; i < group->nr_recs; i++) {
		mls_index_rec_decode(&recs[i], &in[i]);
		if (recs[i].lba == MLS_LBA_NONE || recs[i].hba == UINT64_MAX)
			return malformed(group, "a record out of range");
	}
	return 0;
}

int mls_wal_group_decode(struct mls_wal_group *group, const uint8_t *bytes, size_t nr_bytes,
			 const uint8_t tag[MLS_TAG_BYTES])
{
	struct mls_wal_group g = MLS_WAL_GROUP_INIT;
	struct mls_index_rec *recs = NULL;
	void *announce = NULL;
	int err = hdr_decode(&g, bytes, nr_bytes);

	if (err)
		return err;
	memcpy(g.head.tag, tag, MLS_TAG_BYTES);
	recs = malloc((g.nr_recs ? g.nr_recs : 1) * sizeof *recs);
	announce = malloc(g.announce_bytes ? g.announce_bytes : 1);
	err = recs && announce ? records_decode(&g, recs, bytes + HDR_BYTES + g.announce_bytes) : MLS_ENOMEM;
	if (err) {
		free(recs);
		free(announce);
		return err;
	}
	memcpy(announce, bytes + HDR_BYTES, g.announce_bytes);
	g.announce = announce;
	g.recs = recs;
	*group = g;
	return 0;
}

void mls_wal_group_release(struct mls_wal_group *group)
{
	free((void *)(uintptr_t)group->recs);
	free((void *)(uintptr_t)group->announce);
	*group = MLS_WAL_GROUP_INIT;
}
