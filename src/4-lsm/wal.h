/* SPDX-License-Identifier: MPL-2.0 */
/*
 * wal.h - layer 4: one sync as a group of the WAL chain.
 *
 * Role     Encodes and decodes the group: header, announcements of layer 5, records. Only sync
 *          writes to the WAL. Where it starts, and what room it has, is the tree's business.
 * Errors   Those of the chain. Decoding: MLS_EFORMAT: authentic, but can't be; MLS_ENOMEM.
 * Threads  One at a time.
 * Source   doc/design.md 7; struct mls_wal_group_hdr_disk.
 */
#ifndef MLS_LSM_WAL_H
#define MLS_LSM_WAL_H

#include "1-crypto/crypto_chain.h"
#include "4-lsm/lsm_tree.h"

#define MLS_WAL_LABEL "wal"

struct mls_wal_group {
	struct mls_sync_head head;
	uint8_t flags;
	const void *announce;		/* announce_bytes */
	size_t announce_bytes;
	const struct mls_index_rec *recs;
	size_t nr_recs;
	struct mls_io *along;		/* transfers that go to the device with the group; a reader has none */
	unsigned nr_along;
};
#define MLS_WAL_GROUP_INIT ((struct mls_wal_group){ .recs = NULL })

/* Blocks of the ring that a group takes. */
uint64_t mls_wal_group_blocks(uint64_t nr_records, uint64_t announce_bytes);

/* Append the group; head.tag isn't looked at: writer's position has it afterwards. */
MLS_MUST_CHECK int mls_wal_write_group(struct mls_chain_writer *writer, const struct mls_wal_group *group);

/* group (empty before) owns copies; tag is the one that ends it in the chain. */
MLS_MUST_CHECK int mls_wal_group_decode(struct mls_wal_group *group, const uint8_t *bytes, size_t nr_bytes,
					const uint8_t tag[MLS_TAG_BYTES]);
/* May group follow the sync `before`? Ids go up by one; only an OPEN group may leave some out. */
static inline bool mls_wal_group_follows(const struct mls_wal_group *group, uint64_t before)
{
	uint64_t sync_id = group->head.sync_id;

	return sync_id == before + 1 || ((group->flags & MLS_WAL_FLAG_OPEN) && sync_id > before);
}

/* Of a decoded one; leaves it empty. Any number of times. */
void mls_wal_group_release(struct mls_wal_group *group);

#endif
