/* SPDX-License-Identifier: MPL-2.0 */
/*
 * seg_summary.h - layer 5: what a segment says of its own slots.
 *
 * Role     The one encoder and decoder, for the writer, the cleaner, and those who only look. With the
 *          summaries alone an index can be made anew: each slot tells the LBA, the tag, and the order of
 *          the write among all others.
 * Order    (epoch, nr): epoch is the current one when the block was sealed, or one earlier if a sync cut
 *          in between seal and index; nr counts the writes of a session. Of two versions of an LBA, one
 *          written after the other was acknowledged, the later one has the larger order. A block that the
 *          cleaner moves keeps its order.
 * Session  `session` is the sync id of the session's first group. Versions of a session whose epoch isn't
 *          before the first group of a later session were undone.
 * Source   doc/format.md "Segment".
 */
#ifndef MLS_DISK_SEG_SUMMARY_H
#define MLS_DISK_SEG_SUMMARY_H

#include "1-crypto/kdf.h"
#include "base/endian.h"
#include "format/mlsdisk_format.h"

struct mls_write_order {
	uint64_t epoch, nr;
};

static inline bool mls_order_before(const struct mls_write_order *a, const struct mls_write_order *b)
{
	return a->epoch != b->epoch ? a->epoch < b->epoch : a->nr < b->nr;
}

#define MLS_SLOT_VOID UINT64_MAX	/* lba: the block never entered the index */

struct mls_seg_slot {
	uint64_t lba;
	struct mls_write_order order;
	uint8_t tag[MLS_TAG_BYTES];
};

struct mls_seg_summary {
	uint64_t run, birth, session, epoch;
	uint8_t key_salt[MLS_SALT_BYTES];
	uint32_t nr_slots;
	struct mls_seg_slot *slots;	/* the caller's */
};

/* The bytes before they are sealed; scratch for both functions has room for so many. */
static inline size_t mls_seg_summary_bytes(uint32_t nr_slots)
{
	return sizeof(struct mls_seg_summary_disk) + (size_t)nr_slots * sizeof(struct mls_seg_slot_disk);
}

MLS_MUST_CHECK int mls_seg_summary_seal(const struct mls_keyring *keys, const struct mls_seg_summary *summary,
					uint8_t *scratch, void *blocks, uint32_t nr_blocks);

/*
 * Whatever summary authenticates in blocks; of which life is for the caller to compare. slots has room for
 * max_slots. Returns 0; MLS_ENOENT: none; MLS_ENOMEM.
 */
MLS_MUST_CHECK int mls_seg_summary_open(const struct mls_keyring *keys, const void *blocks, uint32_t nr_blocks,
					uint64_t run, uint32_t max_slots, struct mls_seg_summary *summary);

#endif
