/* SPDX-License-Identifier: MPL-2.0 */
/*
 * record.h - layer 4: one index record, in memory and in bytes.
 *
 * Role     What the memtable, the WAL and the SSTables hold; the one encoder and decoder of it.
 * Shapes   lba < the disk's size, so MLS_LBA_NONE is no record's. hba MLS_HBA_NONE: tombstone.
 * Threads  Any.
 */
#ifndef MLS_LSM_RECORD_H
#define MLS_LSM_RECORD_H

#include <stdbool.h>
#include <string.h>

#include "base/endian.h"
#include "format/mlsdisk_format.h"

#define MLS_LBA_NONE UINT64_MAX
#define MLS_HBA_MISSING UINT64_MAX	/* no record has it; in a lookup of single LBAs: not found yet */

struct mls_index_rec {
	uint64_t lba;
	uint64_t hba;
	uint8_t tag[MLS_TAG_BYTES];
};

/* Of one LBA. */
static inline bool mls_same_version(const struct mls_index_rec *a, const struct mls_index_rec *b)
{
	return a->hba == b->hba && memcmp(a->tag, b->tag, sizeof a->tag) == 0;
}

static inline void mls_index_rec_encode(struct mls_index_rec_disk *out, const struct mls_index_rec *rec)
{
	mls_put_le64(out->lba, rec->lba);
	mls_put_le64(out->hba, rec->hba);
	memcpy(out->tag, rec->tag, MLS_TAG_BYTES);
}

static inline void mls_index_rec_decode(struct mls_index_rec *rec, const struct mls_index_rec_disk *in)
{
	rec->lba = mls_get_le64(in->lba);
	rec->hba = mls_get_le64(in->hba);
	memcpy(rec->tag, in->tag, MLS_TAG_BYTES);
}

/*
 * A lookup of [lba, lba + nr) goes through sources, newest first, with one array recs[nr]. recs[i] is
 * found, be it a tombstone, once recs[i].lba == lba + i; a source fills in only what isn't found yet.
 */
static inline void mls_lookup_init(struct mls_index_rec *recs, size_t nr)
{
	for (size_t i = 0; i < nr; i++)
		recs[i].lba = MLS_LBA_NONE;
}

#endif
